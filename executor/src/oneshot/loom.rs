//! Models of a oneshot: a message or the end beside a wait, and both sides that end at once.

use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use loom::thread::{self, ThreadId};

use super::{Half, halves};
use crate::park::loom::{Sleeper, sleeper};
use crate::sys::doubles::bounded;

type Message = Arc<()>;

/// Waits until the other side has ended, first so often with a waker that nobody hears. Gives what slept, of which no
/// waker may be left.
fn wait<const SENDS: bool>(half: &mut Half<Message, SENDS>, unheard: usize) -> Arc<Sleeper> {
    let (sleeper, waker) = sleeper();
    if (0..unheard).all(|_| half.poll_ended(Waker::noop()).is_pending()) {
        while half.poll_ended(&waker).is_pending() {
            sleeper.park();
        }
    }
    assert_eq!(half.poll_ended(Waker::noop()), Poll::Ready(()));
    sleeper
}

/// Runs both sides beside each other. Whatever they do, nothing is left of message and wakers.
fn beside<A: 'static, B: 'static>(
    sends: fn(Half<Message, true>, Message) -> A,
    receives: fn(Half<Message, false>) -> B,
    holds: fn(A, B),
) {
    bounded(3, move || {
        let (sender, receiver) = halves();
        let message = Arc::new(());
        let sent = message.clone();
        let (result, done) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || result.send(SendIt(sends(sender, sent))).unwrap());
        let received = receives(receiver);
        thread.join().unwrap();
        holds(done.recv().unwrap().0, received);
        assert_eq!(Arc::strong_count(&message), 1, "the message is left");
    });
}

/// A result on its way home, when nobody else has any part of it.
struct SendIt<T>(T);

// SAFETY: of what comes in it nothing is shared without a count.
unsafe impl<T> Send for SendIt<T> {}

fn is_let_go(sleeper: Arc<Sleeper>) {
    assert_eq!(Arc::strong_count(&sleeper), 1, "its waker is left");
}

#[test]
fn r19_a_message_comes_to_who_waits() {
    for unheard in [0, 1] {
        let receives = [
            |mut receiver: Half<Message, false>| (wait(&mut receiver, 0), receiver.take()),
            |mut receiver: Half<Message, false>| (wait(&mut receiver, 1), receiver.take()),
        ][unheard];
        beside(
            |sender, message| sender.send(message).is_ok(),
            receives,
            |sent, (sleeper, message)| {
                assert!(sent && message.is_some());
                is_let_go(sleeper);
            },
        );
    }
}

#[test]
fn r19_who_waits_is_told_that_none_will_come() {
    beside(
        |sender, _| drop(sender),
        |mut receiver| (wait(&mut receiver, 1), receiver.take()),
        |(), (sleeper, message)| {
            assert!(message.is_none());
            is_let_go(sleeper);
        },
    );
}

/// The message is refused, or dropped with the receiver.
#[test]
fn r19_a_receiver_that_goes_away_leaves_nothing() {
    beside(
        |sender, message| drop(sender.send(message)),
        |mut receiver| {
            let (sleeper, waker) = sleeper();
            let _ = receiver.poll_ended(&waker);
            drop((waker, receiver));
            sleeper
        },
        |(), sleeper| is_let_go(sleeper),
    );
}

/// It is the receiver that drops a message that was sent to it, and not a sender that is about to wake it.
#[test]
fn r19_a_message_goes_with_its_receiver() {
    struct Message(Arc<Mutex<Option<ThreadId>>>);

    impl Drop for Message {
        fn drop(&mut self) {
            *self.0.lock().unwrap() = Some(thread::current().id());
        }
    }

    bounded(3, || {
        let (sender, mut receiver) = halves();
        let dropped_by = Arc::new(Mutex::new(None));
        let message = Message(dropped_by.clone());
        let sends = thread::spawn(move || sender.send(message).is_ok());
        let _ = receiver.poll_ended(Waker::noop());
        drop(receiver);
        let by = sends.thread().id();
        let was_sent = sends.join().unwrap();
        assert_eq!(dropped_by.lock().unwrap().unwrap() == by, !was_sent);
    });
}

#[test]
fn r19_after_a_close_what_was_sent_is_there_and_no_more() {
    beside(
        |sender, message| sender.send(message).is_ok(),
        |mut receiver| {
            let (sleeper, waker) = sleeper();
            let _ = receiver.poll_ended(&waker);
            receiver.close();
            drop(waker);
            (sleeper, receiver.take())
        },
        |sent, (sleeper, message)| {
            assert_eq!(sent, message.is_some());
            is_let_go(sleeper);
        },
    );
}

#[test]
fn r19_a_sender_that_waits_is_told_that_nobody_receives() {
    for dropped in [false, true] {
        let receives = [|mut receiver: Half<Message, false>| receiver.close(), drop][usize::from(dropped)];
        beside(
            |mut sender, message| (wait(&mut sender, 1), sender.send(message).is_err()),
            receives,
            |(sleeper, refused), ()| {
                assert!(refused);
                is_let_go(sleeper);
            },
        );
    }
}

/// Each has a waker in its place, and takes it back or wakes the other's.
#[test]
fn r19_both_wait_and_both_end() {
    beside(
        |mut sender, message| {
            let (sleeper, waker) = sleeper();
            let _ = sender.poll_ended(&waker);
            drop((waker, sender.send(message)));
            sleeper
        },
        |mut receiver| {
            let (sleeper, waker) = sleeper();
            let _ = receiver.poll_ended(&waker);
            drop((waker, receiver));
            sleeper
        },
        |one, other| [one, other].into_iter().for_each(is_let_go),
    );
}
