//! Channels for one message as users see them.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread;

use futures::FutureExt;
use futures::future::FusedFuture;
use gmp::chan::{RecvError, TryRecvError};
use gmp::runtime::Builder;
use gmp::sync::oneshot::{self, channel};
use gmp::task::coop::has_budget_remaining;

use polls::{Wakes, poll, poll_counted};

#[path = "support/polls.rs"]
mod polls;

#[test]
fn r19_each_message_comes_to_its_receiver() {
    for procs in [1, 2, 4] {
        let runtime = Builder::new().procs(procs).build().unwrap();
        let sum = runtime.block_on(async {
            let pairs: Vec<_> = (0..2_000_u64)
                .map(|n| {
                    let (ping, pinged) = channel();
                    let (pong, ponged) = channel();
                    gmp::spawn(async move { pong.send(pinged.await.unwrap() + 1) });
                    gmp::spawn(async move {
                        ping.send(n).unwrap();
                        ponged.await.unwrap()
                    })
                })
                .collect();
            let mut sum = 0;
            for pair in pairs {
                sum += pair.await.unwrap();
            }
            sum
        });
        assert_eq!(sum, (1..=2_000).sum());
    }
}

/// Threads outside and tasks inside, each with one end of many; what is sent, refused and received is counted, and each
/// message is dropped once.
#[test]
fn r19_none_is_lost_beside_receivers_that_go_away() {
    struct Counted(Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    const MANY: usize = 3_000;
    let dropped = Arc::new(AtomicUsize::new(0));
    let runtime = Builder::new().procs(2).build().unwrap();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..MANY).map(|_| channel()).unzip();
    let thread = {
        let dropped = dropped.clone();
        thread::spawn(move || senders.into_iter().filter_map(|s| s.send(Counted(dropped.clone())).err()).count())
    };
    let received = runtime.block_on(async {
        let tasks: Vec<_> = receivers
            .into_iter()
            .enumerate()
            .map(|(i, mut receiver)| {
                gmp::spawn(async move {
                    match i % 4 {
                        0 => receiver.await.is_ok(),
                        1 => {
                            let _ = (&mut receiver).now_or_never();
                            false
                        }
                        2 => {
                            receiver.close();
                            receiver.await.is_ok()
                        }
                        _ => receiver.try_recv().is_ok(),
                    }
                })
            })
            .collect();
        let mut received = 0;
        for task in tasks {
            received += usize::from(task.await.unwrap());
        }
        received
    });
    let refused = thread.join().unwrap();
    assert_eq!(dropped.load(SeqCst), MANY, "{received} received, {refused} refused");
    assert!(received >= MANY / 4 && received + refused <= MANY, "{received} received, {refused} refused");
}

#[test]
fn r19_a_sender_that_is_dropped_ends_the_wait() {
    let (sender, receiver) = channel::<u32>();
    let wakes = Arc::new(Wakes::default());
    let mut receiver = pin!(receiver);
    assert!(poll_counted(receiver.as_mut(), &wakes).is_pending());
    drop(sender);
    assert_eq!(wakes.count(), 1);
    assert!(!receiver.is_terminated() && receiver.is_empty());
    assert_eq!(poll(receiver.as_mut()), Poll::Ready(Err(RecvError)));
    assert!(receiver.is_terminated());
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
}

#[test]
fn r19_the_waker_of_the_last_poll_is_woken_and_none_is_kept() {
    let (sender, receiver) = channel();
    let (first, last) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    let mut receiver = pin!(receiver);
    for wakes in [&first, &first, &last, &last] {
        assert!(poll_counted(receiver.as_mut(), wakes).is_pending());
    }
    assert_eq!((Arc::strong_count(&first), Arc::strong_count(&last)), (1, 2));
    sender.send(1).unwrap();
    assert_eq!((first.count(), last.count()), (0, 1));
    assert_eq!(Arc::strong_count(&last), 1, "it is woken by value");
    assert_eq!(poll(receiver.as_mut()), Poll::Ready(Ok(1)));

    // A side that goes away takes its waker along, whatever the other one does later.
    let (mut sender, mut receiver) = channel::<u32>();
    assert!(poll_counted(Pin::new(&mut receiver), &first).is_pending());
    assert!(poll_counted(pin!(sender.closed()), &last).is_pending());
    assert_eq!((Arc::strong_count(&first), Arc::strong_count(&last)), (2, 2));
    drop(receiver);
    assert_eq!((first.count(), last.count()), (0, 2));
    assert_eq!((Arc::strong_count(&first), Arc::strong_count(&last)), (1, 1));
    let (mut sender_too, receiver) = channel();
    assert!(poll_counted(pin!(sender_too.closed()), &last).is_pending());
    sender_too.send(1).unwrap();
    assert_eq!((last.count(), Arc::strong_count(&last)), (2, 1));
    drop((sender, receiver));
}

#[test]
fn r19_after_a_close_nothing_is_sent_and_what_was_is_received() {
    let (mut sender, mut receiver) = channel();
    let wakes = Arc::new(Wakes::default());
    assert!(poll_counted(pin!(sender.closed()), &wakes).is_pending());
    receiver.close();
    receiver.close();
    assert_eq!(wakes.count(), 1);
    assert!(sender.is_closed() && poll(pin!(sender.closed())).is_ready());
    assert_eq!(sender.send("back"), Err("back"));
    assert_eq!(poll(pin!(receiver)), Poll::Ready(Err(RecvError)));

    let (sender, mut receiver) = channel();
    sender.send("there").unwrap();
    receiver.close();
    assert!(!receiver.is_empty());
    assert_eq!(receiver.try_recv(), Ok("there"));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    receiver.close();

    // Closed while the sender lives: nothing is there, and nothing is waited for.
    for polled in [false, true] {
        let (sender, mut receiver) = channel::<u32>();
        receiver.close();
        if polled {
            assert_eq!(poll(pin!(receiver)), Poll::Ready(Err(RecvError)));
        } else {
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
        }
        drop(sender);
    }
}

#[test]
fn r19_a_receiver_that_is_polled_after_its_message_panics() {
    let (sender, mut receiver) = channel();
    sender.send(1).unwrap();
    assert_eq!(poll(pin!(&mut receiver)), Poll::Ready(Ok(1)));
    let payload = catch_unwind(AssertUnwindSafe(|| poll(pin!(&mut receiver)))).unwrap_err();
    assert_eq!(*payload.downcast::<String>().unwrap(), "a oneshot receiver is polled after it gave its message");
}

/// A message that is ready costs a unit of the budget: who is fed by many gives way.
#[test]
fn r04_messages_that_are_there_spend_the_budget() {
    let runtime = Builder::new().procs(1).build().unwrap();
    let polled = runtime.block_on(async {
        let task = gmp::spawn(async {
            let mut received = 0;
            while received < 1000 && has_budget_remaining() {
                let (sender, receiver) = channel();
                sender.send(()).unwrap();
                receiver.now_or_never().expect("there is budget left").unwrap();
                received += 1;
            }
            let (sender, mut receiver) = channel();
            sender.send(()).unwrap();
            let refused = (&mut receiver).now_or_never().is_none();
            (received, refused, receiver.await)
        });
        task.await.unwrap()
    });
    assert_eq!(polled, (128, true, Ok(())));
}

/// A waker that uses the channel, or panics: nothing of the channel's is half done then.
#[test]
fn r13_a_hostile_waker_does_no_harm() {
    struct Hostile(std::sync::Mutex<Option<oneshot::Sender<u8>>>);
    impl Wake for Hostile {
        fn wake(self: Arc<Self>) {
            panic!("expected");
        }
    }
    impl Drop for Hostile {
        fn drop(&mut self) {
            drop(self.0.get_mut().unwrap().take());
        }
    }
    let (other, others) = channel();
    let waker = Waker::from(Arc::new(Hostile(Some(other).into())));
    let (sender, mut receiver) = channel();
    assert!(Pin::new(&mut receiver).poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    assert_eq!(sender.send(1), Ok(()));
    assert_eq!(poll(pin!(others)), Poll::Ready(Err(RecvError)), "the waker is gone");
    assert_eq!(poll(pin!(receiver)), Poll::Ready(Ok(1)));

    // It holds the sender of the very channel: to replace it ends the wait.
    let (sender, mut receiver) = channel();
    let waker = Waker::from(Arc::new(Hostile(Some(sender).into())));
    assert!(Pin::new(&mut receiver).poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    let wakes = Arc::new(Wakes::default());
    assert!(poll_counted(Pin::new(&mut receiver), &wakes).is_pending());
    assert_eq!(wakes.count(), 1);
    assert_eq!(poll(pin!(receiver)), Poll::Ready(Err(RecvError)));

    // A clone that panics changes nothing.
    const BAD: RawWakerVTable = RawWakerVTable::new(|_| panic!("no clones"), |_| (), |_| (), |_| ());
    // SAFETY: it has no data.
    let bad = unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &BAD)) };
    let (sender, mut receiver) = channel();
    let wakes = Arc::new(Wakes::default());
    assert!(poll_counted(Pin::new(&mut receiver), &wakes).is_pending());
    let poll_bad = || Pin::new(&mut receiver).poll(&mut Context::from_waker(&bad));
    assert!(catch_unwind(AssertUnwindSafe(poll_bad)).is_err());
    sender.send(1).unwrap();
    assert_eq!((wakes.count(), receiver.try_recv()), (1, Ok(1)));
}

#[test]
fn r19_a_thread_waits_for_a_message() {
    let (sender, receiver) = channel();
    let thread = thread::spawn(move || receiver.recv_blocking());
    sender.send(1).unwrap();
    assert_eq!(thread.join().unwrap(), Ok(1));
    // Inside a task the processor is given up: the one there is runs the sender.
    let runtime = Builder::new().procs(1).build().unwrap();
    let received = runtime.block_on(async {
        let (sender, receiver) = channel();
        let waits = gmp::spawn(async move { receiver.recv_blocking() });
        gmp::spawn(async { sender.send(2) });
        waits.await.unwrap()
    });
    assert_eq!(received, Ok(2));
}

#[test]
fn r19_select_takes_it_by_reference() {
    gmp::block_on(async {
        let (sender, mut receiver) = channel();
        let (other, mut others) = channel::<u32>();
        sender.send(1).unwrap();
        let first = futures::select! {
            message = receiver => message,
            message = others => message,
        };
        assert_eq!(first, Ok(1));
        assert!(receiver.is_terminated() && !others.is_terminated());
        drop(other);
    });
}

#[test]
fn a_handle_says_what_it_is() {
    let (sender, receiver) = oneshot::channel::<Waker>();
    assert_eq!(format!("{sender:?}"), "Sender { is_closed: false, .. }");
    assert_eq!(format!("{receiver:?}"), "Receiver { is_terminated: false, .. }");
}
