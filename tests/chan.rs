//! Channels as users see them.

use std::collections::BTreeSet;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FusedStream;
use gmp::Builder;
use gmp::chan::{Receiver, RecvError, SendError, Sender, TryRecvError, TrySendError, bounded, unbounded};

use polls::{Wakes, poll, poll_counted};

#[path = "support/polls.rs"]
mod polls;

/// What can be received at once.
fn received<T>(receiver: &Receiver<T>) -> Vec<T> {
    std::iter::from_fn(|| receiver.try_recv().ok()).collect()
}

#[test]
fn r19_what_is_sent_is_received_in_order() {
    for capacity in [0, 1, 2, 7, 100, usize::MAX] {
        gmp::block_on(async {
            let (sender, receiver) = bounded(capacity);
            let task = gmp::spawn(async move {
                for n in 0..1000 {
                    sender.send(n).await.unwrap();
                }
            });
            for n in 0..1000 {
                assert_eq!(receiver.recv().await, Ok(n), "capacity {capacity}");
            }
            assert_eq!(receiver.recv().await, Err(RecvError));
            task.await.unwrap();
        });
    }
}

#[test]
fn r19_many_senders_and_receivers_lose_and_double_nothing() {
    const EACH: usize = 2_000;
    for (capacity, procs) in [(0, 2), (1, 2), (3, 4), (100, 2), (usize::MAX, 4)] {
        let runtime = Builder::new().procs(procs).build().unwrap();
        runtime.block_on(async {
            let (sender, receiver) =
                if capacity == usize::MAX { unbounded::<(usize, usize)>() } else { bounded(capacity) };
            let receivers: Vec<_> = (0..3)
                .map(|_| {
                    let receiver = receiver.clone();
                    gmp::spawn(async move {
                        let mut mine: Vec<(usize, usize)> = Vec::new();
                        while let Ok(message) = receiver.recv().await {
                            // Of one sender each receiver sees a rising sequence.
                            if let Some(last) = mine.iter().rev().find(|(sender, _)| *sender == message.0) {
                                assert!(last.1 < message.1);
                            }
                            mine.push(message);
                        }
                        mine
                    })
                })
                .collect();
            drop(receiver);
            for task in 0..4 {
                let sender = sender.clone();
                drop(gmp::spawn(async move {
                    for n in 0..EACH {
                        sender.send((task, n)).await.unwrap();
                    }
                }));
            }
            drop(sender);
            let mut all = BTreeSet::new();
            for receiver in receivers {
                for message in receiver.await.unwrap() {
                    assert!(all.insert(message), "{message:?} came twice");
                }
            }
            assert_eq!(all.len(), 4 * EACH);
        });
    }
}

#[test]
fn r19_a_rendezvous_waits_for_its_receiver() {
    let (sender, receiver) = bounded(0);
    assert_eq!(sender.try_send(1), Err(TrySendError::Full(1)));
    assert!(sender.is_full() && sender.is_empty());
    let mut send = pin!(sender.send(2));
    assert!(poll(send.as_mut()).is_pending());
    assert_eq!(receiver.try_recv(), Ok(2));
    assert_eq!(poll(send), Poll::Ready(Ok(())));
    let mut recv = pin!(receiver.recv());
    assert!(poll(recv.as_mut()).is_pending());
    assert_eq!(sender.try_send(3), Ok(()));
    assert_eq!(sender.try_send(4), Err(TrySendError::Full(4)));
    assert_eq!(poll(recv), Poll::Ready(Ok(3)));
}

#[test]
fn r19_who_waits_first_is_served_first() {
    let (sender, receiver) = bounded(1);
    let mut first = pin!(receiver.recv());
    let mut second = pin!(receiver.recv());
    assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
    sender.try_send(1).unwrap();
    // Nobody who comes later gets ahead of the line.
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    sender.try_send(2).unwrap();
    assert_eq!(poll(second), Poll::Ready(Ok(2)));
    assert_eq!(poll(first), Poll::Ready(Ok(1)));

    sender.try_send(0).unwrap();
    let mut first = pin!(sender.send(1));
    let mut second = pin!(sender.send(2));
    assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
    assert_eq!(receiver.try_recv(), Ok(0));
    assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
    assert_eq!(poll(first), Poll::Ready(Ok(())));
    assert!(poll(second.as_mut()).is_pending());
    assert_eq!(receiver.try_recv(), Ok(1));
    assert_eq!(receiver.try_recv(), Ok(2));
    assert_eq!(poll(second), Poll::Ready(Ok(())));
}

#[test]
fn r19_a_message_wakes_one_receiver_once() {
    let (sender, receiver) = bounded(4);
    let wakes = Arc::new(Wakes::default());
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(receiver.recv())).collect();
    for recv in &mut waiting {
        assert!(poll_counted(recv.as_mut(), &wakes).is_pending());
    }
    sender.try_send(1).unwrap();
    assert_eq!(wakes.count(), 1);
    sender.close();
    assert_eq!(wakes.count(), 3);
    let ends: Vec<_> = waiting.iter_mut().map(|recv| poll(recv.as_mut())).collect();
    assert_eq!(ends, [Poll::Ready(Ok(1)), Poll::Ready(Err(RecvError)), Poll::Ready(Err(RecvError))]);
}

#[test]
fn r19_a_dropped_receive_loses_no_message() {
    for capacity in [0, 1] {
        let (sender, receiver) = bounded(capacity);
        let wakes = Arc::new(Wakes::default());
        {
            let mut dropped = Box::pin(receiver.recv());
            let mut next = pin!(receiver.recv());
            assert!(poll(dropped.as_mut()).is_pending());
            assert!(poll_counted(next.as_mut(), &wakes).is_pending());
            sender.try_send(1).unwrap();
            drop(dropped);
            assert_eq!(wakes.count(), 1, "the next in line has it");
            assert_eq!(poll(next), Poll::Ready(Ok(1)));
        }
        // Nobody is in line: it is the first to be received.
        let mut dropped = Box::pin(receiver.recv());
        assert!(poll(dropped.as_mut()).is_pending());
        sender.try_send(2).unwrap();
        let rest = sender.try_send(3);
        assert_eq!(rest.is_ok(), capacity == 1);
        drop(dropped);
        assert_eq!(receiver.try_recv(), Ok(2));
        assert_eq!(receiver.try_recv(), if capacity == 1 { Ok(3) } else { Err(TryRecvError::Empty) });
        // One that waits and is dropped leaves the line.
        let mut dropped = Box::pin(receiver.recv());
        assert!(poll(dropped.as_mut()).is_pending());
        drop(dropped);
        assert_eq!(sender.try_send(4).is_ok(), capacity == 1);
    }
}

/// In whatever order their receives are dropped, and whatever is received in between.
#[test]
fn r19_messages_that_come_back_keep_their_order() {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for capacity in [Some(0), Some(1), Some(9), None] {
        for order in orders {
            for taken in 0..3 {
                let (sender, receiver) = capacity.map_or_else(unbounded, bounded);
                let mut waiting: Vec<_> = (0..3).map(|_| Some(Box::pin(receiver.recv()))).collect();
                waiting.iter_mut().flatten().for_each(|recv| assert!(poll(recv.as_mut()).is_pending()));
                let later = (0..7).take_while(|n| sender.try_send(*n).is_ok()).skip(3);
                let mut left: Vec<_> = later.collect();
                let mut came = Vec::new();
                for (at, n) in order.into_iter().enumerate() {
                    waiting[n] = None;
                    left.push(n);
                    left.sort_unstable();
                    if at < taken {
                        came.push(receiver.try_recv().unwrap());
                        assert_eq!(came.last(), Some(&left.remove(0)));
                    }
                }
                assert_eq!(receiver.len(), left.len());
                assert_eq!(received(&receiver), left, "dropped as {order:?}, after {came:?}");
            }
        }
    }
}

/// One that was passed on to the next in line is still older than one that was sent after it.
#[test]
fn r19_a_message_that_comes_back_twice_keeps_its_place() {
    for (sender, receiver) in [bounded(2), unbounded()] {
        let [mut first, mut second, mut third] = [(); 3].map(|()| Box::pin(receiver.recv()));
        for recv in [&mut first, &mut second, &mut third] {
            assert!(poll(recv.as_mut()).is_pending());
        }
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        drop(first);
        drop(second);
        assert_eq!(receiver.len(), 1);
        drop(third);
        assert_eq!(received(&receiver), [1, 2]);
    }
}

/// What a dropped receive puts back may be more than the capacity: what is taken of that makes no room.
#[test]
fn r19_a_message_that_came_back_makes_no_room() {
    for capacity in [0, 1, 2] {
        let (sender, receiver) = bounded(capacity);
        let mut dropped = Box::pin(receiver.recv());
        assert!(poll(dropped.as_mut()).is_pending());
        for n in 0..=capacity {
            sender.try_send(n).unwrap();
        }
        drop(dropped);
        assert_eq!(receiver.len(), capacity + 1);
        assert_eq!(poll(pin!(receiver.recv())), Poll::Ready(Ok(0)));
        let mut send = pin!(sender.send(capacity + 1));
        assert!(poll(send.as_mut()).is_pending(), "capacity {capacity}: there is no room");
        assert_eq!(receiver.len(), capacity);
        for n in 1..=capacity + 1 {
            assert_eq!(poll(pin!(receiver.recv())), Poll::Ready(Ok(n)));
        }
        assert_eq!(poll(send), Poll::Ready(Ok(())));
    }
}

#[test]
fn r19_a_dropped_send_has_sent_or_not() {
    let token = Rc::new(());
    let (sender, receiver) = bounded(1);
    sender.try_send(token.clone()).unwrap();
    let mut waits = Box::pin(sender.send(token.clone()));
    let mut behind = Box::pin(sender.send(token.clone()));
    assert!(poll(waits.as_mut()).is_pending() && poll(behind.as_mut()).is_pending());
    drop(waits);
    assert_eq!(Rc::strong_count(&token), 3, "what was not sent is dropped");
    receiver.try_recv().unwrap();
    // It was sent, out of its place.
    drop(behind);
    assert_eq!(receiver.len(), 1);
    drop((sender, receiver));
    assert_eq!(Rc::strong_count(&token), 1);
}

#[test]
fn r19_a_closed_channel_gives_what_is_in_it() {
    let (sender, receiver) = bounded(2);
    sender.try_send(1).unwrap();
    sender.try_send(2).unwrap();
    let mut waits = pin!(sender.send(3));
    assert!(poll(waits.as_mut()).is_pending());
    assert!(receiver.close() && !sender.close());
    assert_eq!(poll(waits), Poll::Ready(Err(SendError(3))), "who waits for room has its message back");
    assert_eq!(sender.try_send(4), Err(TrySendError::Closed(4)));
    assert_eq!(gmp::block_on(sender.send(5)), Err(SendError(5)));
    assert_eq!(gmp::block_on(receiver.recv()), Ok(1));
    assert_eq!(receiver.try_recv(), Ok(2));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
}

#[test]
fn r19_nothing_is_sent_once_the_channel_is_closed() {
    /// Sends as soon as it is woken.
    struct Sends(Mutex<Option<Sender<u32>>>);
    impl Wake for Sends {
        fn wake(self: Arc<Self>) {
            if let Some(sender) = self.0.lock().unwrap().take() {
                assert!(sender.is_closed());
                assert_eq!(sender.try_send(1), Err(TrySendError::Closed(1)));
            }
        }
    }
    for (sender, receiver) in [bounded(1), unbounded()] {
        let (mut first, mut second) = (pin!(receiver.recv()), pin!(receiver.recv()));
        let sends = Arc::new(Sends(Mutex::new(Some(sender.clone()))));
        assert!(first.as_mut().poll(&mut Context::from_waker(&sends.clone().into())).is_pending());
        assert!(poll(second.as_mut()).is_pending());
        // It ends the waits one after the other, and the second is still in line when the first is woken.
        sender.close();
        assert!(sends.0.lock().unwrap().is_none(), "nobody was woken");
        assert_eq!(poll(first.as_mut()), Poll::Ready(Err(RecvError)));
        assert_eq!(poll(second.as_mut()), Poll::Ready(Err(RecvError)));
    }
}

/// Who waits for room has its message back, also if somebody receives before that wait is over.
#[test]
fn r19_nothing_is_taken_from_those_in_line_once_the_channel_is_closed() {
    /// Receives what there is when it is woken.
    struct Receives(Receiver<usize>, Mutex<Option<Vec<usize>>>);
    impl Wake for Receives {
        fn wake(self: Arc<Self>) {
            *self.1.lock().unwrap() = Some(received(&self.0));
        }
    }
    for capacity in 0..3 {
        let (sender, receiver) = bounded(capacity);
        (0..capacity).for_each(|n| sender.try_send(n).unwrap());
        let (mut first, mut second) = (pin!(sender.send(10)), pin!(sender.send(11)));
        let receives = Arc::new(Receives(receiver.clone(), Mutex::new(None)));
        assert!(first.as_mut().poll(&mut Context::from_waker(&receives.clone().into())).is_pending());
        assert!(poll(second.as_mut()).is_pending());
        // It ends the waits one after the other, and the second is still in line when the first is woken.
        assert!(sender.close());
        assert_eq!(receives.1.lock().unwrap().take(), Some((0..capacity).collect()), "capacity {capacity}");
        assert_eq!((poll(first), poll(second)), (Poll::Ready(Err(SendError(10))), Poll::Ready(Err(SendError(11)))));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    }
}

#[test]
fn r19_the_last_handle_closes() {
    let (sender, receiver) = bounded::<u8>(1);
    let other = sender.clone();
    drop(sender);
    assert!(!receiver.is_closed());
    drop(other);
    assert!(receiver.is_closed());

    let (sender, receiver) = unbounded::<u8>();
    let other = receiver.clone();
    drop(receiver);
    assert!(!sender.is_closed());
    drop(other);
    assert!(sender.is_closed());
    assert_eq!(sender.try_send(1), Err(TrySendError::Closed(1)));
}

/// A message may hold a sender of its own channel: nothing of it stays when nobody receives any more.
#[test]
fn r18_the_last_receiver_drops_what_nobody_will_receive() {
    struct Message(Arc<()>, Sender<Message>);
    let token = Arc::new(());
    for channel in [|| bounded(4), unbounded] {
        let (sender, receiver) = channel();
        sender.try_send(Message(token.clone(), sender.clone())).unwrap();
        let Message(seen, other) = receiver.try_recv().unwrap();
        other.try_send(Message(seen, other.clone())).unwrap();
        drop(other);
        drop(receiver);
        assert_eq!(Arc::strong_count(&token), 1);
        drop(sender);
    }
}

/// A request whose destructor panics, or one whose answer somebody waits for.
struct Request {
    bomb: Option<&'static str>,
    _answer: Option<Sender<()>>,
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Some(what) = self.bomb {
            panic_any(what);
        }
    }
}

/// Who waits for an answer keeps a sender perhaps, so that the rest would lie in the channel for ever.
#[test]
fn r12_a_message_that_panics_when_nobody_receives_it_takes_none_along() {
    for channel in [unbounded, || bounded(4)] {
        let (sender, receiver) = channel();
        let (answer, answered) = bounded(1);
        let requests = [(Some("first"), None), (Some("second"), None), (None, Some(answer))];
        for (bomb, _answer) in requests {
            assert!(sender.try_send(Request { bomb, _answer }).is_ok());
        }
        let panic = catch_unwind(AssertUnwindSafe(|| drop(receiver))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"first"));
        assert_eq!(answered.try_recv(), Err(TryRecvError::Closed));
        assert!(sender.is_closed() && sender.is_empty());
    }
}

#[test]
fn r19_waiting_for_the_end() {
    let (sender, receiver) = bounded::<u8>(1);
    let wakes = Arc::new(Wakes::default());
    let mut closed = pin!(sender.closed());
    let mut dropped = Box::pin(sender.closed());
    assert!(poll_counted(closed.as_mut(), &wakes).is_pending());
    assert!(poll_counted(dropped.as_mut(), &wakes).is_pending());
    drop(dropped);
    receiver.try_recv().unwrap_err();
    drop(receiver);
    assert_eq!(wakes.count(), 1);
    assert!(poll(closed).is_ready());
    assert!(poll(pin!(sender.closed())).is_ready());
}

/// A waker that was replaced is not woken; the new one is.
#[test]
fn r01_the_last_waker_counts() {
    let (sender, receiver) = bounded(1);
    let (old, new) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    let mut recv = pin!(receiver.recv());
    assert!(poll_counted(recv.as_mut(), &old).is_pending());
    assert!(poll_counted(recv.as_mut(), &new).is_pending());
    assert_eq!(Arc::strong_count(&old), 1);
    sender.try_send(1).unwrap();
    assert_eq!((old.count(), new.count()), (0, 1));
    assert_eq!(poll(recv), Poll::Ready(Ok(1)));
}

/// A waker that uses the channel, or panics, does no harm: it is called without the lock.
#[test]
fn r13_a_hostile_waker_does_no_harm() {
    struct Hostile(Sender<u8>, Receiver<u8>);
    impl Wake for Hostile {
        fn wake(self: Arc<Self>) {
            self.0.try_send(9).unwrap();
            assert_eq!(self.1.try_recv(), Ok(9));
            panic!("expected");
        }
    }
    impl Drop for Hostile {
        fn drop(&mut self) {
            let _ = self.0.len();
        }
    }
    let (sender, receiver) = bounded(3);
    let waker = Waker::from(Arc::new(Hostile(sender.clone(), receiver.clone())));
    let mut recv = pin!(receiver.recv());
    assert!(recv.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    assert_eq!(sender.try_send(1), Ok(()));
    assert_eq!(poll(recv), Poll::Ready(Ok(1)));
}

#[test]
fn r19_a_stream_of_which_select_takes_all() {
    let (sender, mut receiver) = bounded(2);
    let (quiet, mut never) = bounded::<u32>(0);
    sender.try_send(1).unwrap();
    sender.try_send(2).unwrap();
    drop(sender);
    let mut other = receiver.clone();
    let taken = gmp::block_on(async {
        let mut taken = Vec::new();
        loop {
            futures::select! {
                n = receiver.select_next_some() => taken.push(n),
                n = never.select_next_some() => taken.push(n),
                complete => return taken,
            }
            // Empty and closed, but its stream has not said so.
            assert!(!receiver.is_terminated());
            quiet.close();
        }
    });
    assert_eq!(taken, [1, 2]);
    assert!(receiver.is_terminated() && never.is_terminated() && !other.is_terminated());
    assert_eq!(gmp::block_on(other.next()), None);
    assert!(other.is_terminated() && !other.clone().is_terminated());
}

#[test]
fn r19_a_stream_gives_all_and_shares_with_receive() {
    let (sender, mut receiver) = bounded(1);
    let wakes = Arc::new(Wakes::default());
    {
        let mut next = receiver.next();
        assert!(poll_counted(Pin::new(&mut next), &wakes).is_pending());
    }
    sender.try_send(1).unwrap();
    assert_eq!(wakes.count(), 1);
    sender.try_send(2).unwrap();
    // What the stream was served is the oldest.
    assert_eq!(receiver.try_recv(), Ok(1));
    assert_eq!(poll(Pin::new(&mut receiver.next())), Poll::Ready(Some(2)));
    assert!(poll(Pin::new(&mut receiver.next())).is_pending());
    sender.try_send(3).unwrap();
    let other = receiver.clone();
    assert_eq!(other.try_recv(), Err(TryRecvError::Empty));
    drop(receiver);
    assert_eq!(other.try_recv(), Ok(3), "a stream that is dropped puts it back");
    drop(sender);
    assert_eq!(gmp::block_on(other.collect::<Vec<_>>()), [] as [i32; 0]);
}

/// One processor: while a task blocks in `recv_blocking`, the one that sends runs.
#[test]
fn r04_a_blocking_receive_gives_its_processor_up() {
    let runtime = Builder::new().procs(1).rescue(None).build().unwrap();
    runtime.block_on(async {
        let (sender, receiver) = bounded(0);
        let blocks = gmp::spawn(async move {
            let first = receiver.recv_blocking();
            (first, receiver.recv_blocking(), receiver.recv_blocking())
        });
        let sends = gmp::spawn(async move {
            sender.send_blocking(1).unwrap();
            sender.send(2).await.unwrap();
        });
        sends.await.unwrap();
        assert_eq!(blocks.await.unwrap(), (Ok(1), Ok(2), Err(RecvError)));
    });
}

/// Threads of no runtime wait by themselves.
#[test]
fn r01_threads_outside_send_and_receive() {
    let (there, arrived) = bounded(0);
    let (back, returned) = bounded(1);
    let thread = thread::spawn(move || {
        while let Ok(n) = arrived.recv_blocking() {
            back.send_blocking(n + 1).unwrap();
        }
    });
    for n in 0..200 {
        there.send_blocking(n).unwrap();
        assert_eq!(returned.recv_blocking(), Ok(n + 1));
    }
    drop(there);
    thread.join().unwrap();
    assert_eq!(returned.recv_blocking(), Err(RecvError));
}

/// A message that nobody waits for costs a unit to send and one to receive.
#[test]
fn r04_a_busy_channel_takes_from_the_budget() {
    for (sender, receiver) in [bounded(1), unbounded()] {
        let pairs = async move {
            let mut pairs = 0;
            while gmp::task::coop::has_budget_remaining() {
                sender.send(pairs).await.unwrap();
                pairs = receiver.recv().await.unwrap() + 1;
            }
            pairs
        };
        let pairs = gmp::block_on(async { gmp::spawn(pairs).await.unwrap() });
        // The watcher may end a slice before it is spent.
        assert!(pairs <= 64, "a slice of 128 units lasted for {pairs} messages");
    }
}

/// Aborted tasks that wait in a channel leave it whole.
#[test]
fn r15_aborted_tasks_leave_the_line() {
    gmp::block_on(async {
        let (sender, receiver) = bounded(0);
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let receiver = receiver.clone();
                gmp::spawn(async move { receiver.recv().await })
            })
            .collect();
        for task in tasks.iter().step_by(2) {
            task.abort();
        }
        let mut received = 0;
        let odd: Vec<_> = {
            let mut odd = Vec::new();
            for (n, task) in tasks.into_iter().enumerate() {
                if n % 2 == 0 {
                    assert!(task.await.unwrap_err().is_cancelled());
                } else {
                    odd.push(task);
                }
            }
            odd
        };
        for n in 0..5 {
            sender.send(n).await.unwrap();
        }
        for task in odd {
            received += task.await.unwrap().unwrap();
        }
        assert_eq!(received, 10);
        gmp::time::timeout(Duration::ZERO, sender.send(1)).await.unwrap_err();
    });
}
