//! Models of a channel: messages that are handed over, taken back and refused, beside each other.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};

use loom::thread;

use super::{Hchan, NotTaken};
use crate::park::loom::sleeper;
use crate::sudog::Sudog;
use crate::sys::doubles::bounded;

fn send(hchan: &Hchan<u8>, message: u8) -> Result<(), u8> {
    let sudog = pin!(Sudog::new(Some(message)));
    let (sleeper, waker) = sleeper();
    loop {
        // SAFETY: the place is pinned here, and out of line when the poll is ready.
        match unsafe { hchan.poll_put(&sudog, &waker) } {
            Poll::Ready(result) => return result,
            Poll::Pending => sleeper.park(),
        }
    }
}

fn recv(hchan: &Hchan<u8>) -> Result<u8, NotTaken> {
    let sudog = pin!(Sudog::new(None));
    let (sleeper, waker) = sleeper();
    loop {
        // SAFETY: as above.
        match unsafe { hchan.poll_take(&sudog, &waker) } {
            Poll::Ready(result) => return result,
            Poll::Pending => sleeper.park(),
        }
    }
}

/// Polls once, and gives up if that is not enough.
fn recv_cancelled(hchan: &Hchan<u8>) -> Option<u8> {
    let sudog = pin!(Sudog::new(None));
    // SAFETY: the place is pinned here until it has left.
    let poll = unsafe { hchan.poll_take(&sudog, Waker::noop()) };
    if let Poll::Ready(result) = poll {
        return result.ok();
    }
    // SAFETY: as above.
    unsafe { hchan.leave_take(&sudog) };
    None
}

/// As above. Tells whether the message was sent.
fn send_cancelled(hchan: &Hchan<u8>, message: u8) -> bool {
    let sudog = pin!(Sudog::new(Some(message)));
    // SAFETY: the place is pinned here until it has left.
    let poll = unsafe { hchan.poll_put(&sudog, Waker::noop()) };
    // SAFETY: as above.
    unsafe { hchan.leave_put(&sudog) };
    // SAFETY: as above; what was not sent is still in the place.
    poll == Poll::Ready(Ok(())) || unsafe { sudog.end() }.is_none()
}

fn channels() -> [fn() -> Hchan<u8>; 3] {
    [|| Hchan::bounded(0), || Hchan::bounded(1), Hchan::unbounded]
}

/// Two messages come in their order, whoever waits for whom, and then the end.
#[test]
fn r19_messages_come_in_order_and_then_the_end() {
    for channel in channels() {
        bounded(2, move || {
            let hchan = Arc::new(channel());
            let sender = {
                let hchan = hchan.clone();
                thread::spawn(move || {
                    assert_eq!(send(&hchan, 1), Ok(()));
                    assert_eq!(send(&hchan, 2), Ok(()));
                    hchan.close(false);
                })
            };
            assert_eq!([recv(&hchan), recv(&hchan), recv(&hchan)], [Ok(1), Ok(2), Err(NotTaken::Closed)]);
            sender.join().unwrap();
        });
    }
}

/// Of two that put at once one message is put where one has room.
#[test]
fn r19_no_more_is_put_at_once_than_has_room() {
    let put = |hchan: &Hchan<u8>| {
        let sudog = pin!(Sudog::new(Some(1)));
        // SAFETY: its future calls, and it is in no line.
        unsafe { hchan.put_at_once(&sudog) }
    };
    bounded(2, move || {
        let hchan = Arc::new(Hchan::bounded(1));
        let other = {
            let hchan = hchan.clone();
            thread::spawn(move || put(&hchan))
        };
        assert!(put(&hchan) ^ other.join().unwrap());
    });
}

/// Who waits for room gets it, also from a receiver that saw nobody wait.
#[test]
fn r19_what_is_taken_at_once_makes_room() {
    bounded(2, || {
        let hchan = Arc::new(Hchan::bounded(1));
        assert_eq!(send(&hchan, 1), Ok(()));
        let sender = {
            let hchan = hchan.clone();
            thread::spawn(move || send(&hchan, 2))
        };
        assert_eq!(hchan.take_at_once().map_or_else(|| recv(&hchan), Ok), Ok(1));
        assert_eq!(sender.join().unwrap(), Ok(()));
        assert_eq!(recv(&hchan), Ok(2));
    });
}

/// Two receivers: each message comes to one of them.
#[test]
fn r19_each_message_comes_to_one() {
    for channel in channels() {
        bounded(2, move || {
            let hchan = Arc::new(channel());
            let sender = {
                let hchan = hchan.clone();
                thread::spawn(move || (1..=2).for_each(|message| assert_eq!(send(&hchan, message), Ok(()))))
            };
            let other = {
                let hchan = hchan.clone();
                thread::spawn(move || recv(&hchan).unwrap())
            };
            assert_eq!(recv(&hchan).unwrap() + other.join().unwrap(), 3);
            sender.join().unwrap();
        });
    }
}

/// A receiver that goes away beside the sender takes nothing with it.
#[test]
fn r19_a_receiver_that_goes_away_loses_nothing() {
    for channel in channels() {
        bounded(2, move || {
            let hchan = Arc::new(channel());
            let quitter = {
                let hchan = hchan.clone();
                thread::spawn(move || recv_cancelled(&hchan))
            };
            let sender = {
                let hchan = hchan.clone();
                thread::spawn(move || (1..=2).for_each(|message| assert_eq!(send(&hchan, message), Ok(()))))
            };
            let first = recv(&hchan).unwrap();
            let other = quitter.join().unwrap();
            // What the other has not taken is there, also if it came back.
            let second = other.unwrap_or_else(|| recv(&hchan).unwrap());
            assert_eq!(first + second, 3);
            sender.join().unwrap();
        });
    }
}

/// A sender that goes away has sent its message or has it still.
#[test]
fn r19_a_sender_that_goes_away_has_sent_or_not() {
    for channel in channels() {
        bounded(2, move || {
            let hchan = Arc::new(channel());
            let quitter = {
                let hchan = hchan.clone();
                thread::spawn(move || {
                    let sent = send_cancelled(&hchan, 1);
                    assert_eq!(send(&hchan, 2), Ok(()));
                    hchan.close(false);
                    sent
                })
            };
            let mut received = Vec::new();
            while let Ok(message) = recv(&hchan) {
                received.push(message);
            }
            let sent = quitter.join().unwrap();
            assert_eq!(received, if sent { vec![1, 2] } else { vec![2] });
        });
    }
}

/// A close beside a send and a receive: the message is received, or its sender has it back.
#[test]
fn r19_a_close_loses_nothing() {
    for channel in channels() {
        bounded(2, move || {
            let hchan = Arc::new(channel());
            let sender = {
                let hchan = hchan.clone();
                thread::spawn(move || send(&hchan, 1))
            };
            let closer = {
                let hchan = hchan.clone();
                thread::spawn(move || assert!(hchan.close(false)))
            };
            let received = recv(&hchan);
            match sender.join().unwrap() {
                Ok(()) => assert_eq!(received, Ok(1)),
                Err(message) => assert_eq!((message, received), (1, Err(NotTaken::Closed))),
            }
            closer.join().unwrap();
        });
    }
}

/// A close beside a receive, with senders in line: the first one was served before it, or none is.
#[test]
fn r19_a_close_leaves_nobody_out_of_line() {
    for capacity in [0, 1] {
        bounded(2, move || {
            let hchan = Arc::new(Hchan::bounded(capacity));
            (0..capacity).for_each(|_| assert_eq!(send(&hchan, 0), Ok(())));
            let (first, second) = (pin!(Sudog::new(Some(1))), pin!(Sudog::new(Some(2))));
            // SAFETY: the places are pinned here, and out of line when the channel is closed.
            let poll = |sudog: &Sudog<u8>| unsafe { hchan.poll_put(sudog, Waker::noop()) };
            assert!(poll(&first).is_pending() && poll(&second).is_pending());
            let closer = {
                let hchan = hchan.clone();
                thread::spawn(move || hchan.close(false))
            };
            let before = hchan.try_take();
            assert!(closer.join().unwrap());
            let rest = std::iter::from_fn(|| hchan.try_take().ok());
            let sent: Vec<_> = before.into_iter().chain(rest).filter(|message| *message > 0).collect();
            match poll(&first) {
                Poll::Ready(Ok(())) => assert_eq!(sent, [1]),
                refused => assert_eq!((refused, sent), (Poll::Ready(Err(1)), vec![])),
            }
            assert_eq!(poll(&second), Poll::Ready(Err(2)));
        });
    }
}

/// Who waits for the end comes to it.
#[test]
fn r01_the_end_is_told() {
    loom::model(|| {
        let hchan = Arc::new(Hchan::<u8>::bounded(1));
        let closer = {
            let hchan = hchan.clone();
            thread::spawn(move || hchan.close(true))
        };
        let sudog = pin!(Sudog::new(None));
        let (sleeper, waker) = sleeper();
        // SAFETY: the place is pinned here, and out of line when the poll is ready.
        while unsafe { hchan.poll_closed(&sudog, &waker) }.is_pending() {
            sleeper.park();
        }
        assert!(closer.join().unwrap());
    });
}
