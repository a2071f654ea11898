//! Models of the readiness word with its waiters, and of breaking the blocked wait. The kernel is a double: bytes that
//! are there or not, and an event that follows them.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, Waker};

use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::breaks::Breaks;
use super::descriptor::{Descriptor, Ended, Waiter};
use super::readiness::{Direction, Drained, Event, Interest};
use crate::park::loom::sleeper;
use crate::sys::atomic::AtomicUsize;
use crate::sys::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sys::doubles::bounded;

/// A socket: what the kernel has, and what the netpoller knows of it.
struct Socket {
    /// Assumed of the kernel: bytes are there before the event that tells of them.
    bytes: AtomicUsize,
    descriptor: Descriptor,
    waiting: AtomicUsize,
}

const GENERATION: u32 = u32::MAX;
const READABLE: Event =
    Event { readable: true, writable: false, read_closed: false, write_closed: false, error: false, urgent: false };

impl Socket {
    fn new(ready: bool) -> Arc<Self> {
        let descriptor = Descriptor::new(GENERATION, 0);
        assert_eq!(descriptor.begin(3, ready), GENERATION);
        Arc::new(Socket { bytes: AtomicUsize::new(0), descriptor, waiting: AtomicUsize::new(0) })
    }

    /// A byte comes, and the thread in the netpoller is told.
    fn arrive(&self) {
        self.bytes.fetch_add(1, Release);
        self.event();
    }

    fn event(&self) {
        let mut ready = Vec::new();
        let count = self.descriptor.event(GENERATION, READABLE, &mut ready, None);
        self.waiting.fetch_sub(count, Relaxed);
        ready.into_iter().for_each(Waker::wake);
    }

    /// Takes a byte, waiting in the slot.
    fn read(&self) -> Result<(), Ended> {
        self.read_with(|waker| self.descriptor.poll_slot(GENERATION, Direction::Read, waker, &self.waiting, None))
    }

    fn read_with(&self, mut poll: impl FnMut(&Waker) -> Poll<Result<super::Ready, Ended>>) -> Result<(), Ended> {
        let (sleeper, waker) = sleeper();
        loop {
            match poll(&waker) {
                Poll::Pending => sleeper.park(),
                Poll::Ready(seen) => {
                    let seen = seen?;
                    // The system call.
                    if self.bytes.fetch_update(Acquire, Relaxed, |n| n.checked_sub(1)).is_ok() {
                        return Ok(());
                    }
                    self.descriptor.clear(seen, Interest::READABLE, Drained::WouldBlock);
                }
            }
        }
    }

    fn wait_linked(&self, waiter: Pin<&Waiter>) -> Result<(), Ended> {
        let (sleeper, waker) = sleeper();
        loop {
            let polled =
                self.descriptor.poll_linked(GENERATION, Interest::READABLE, waiter, &waker, &self.waiting, None);
            match polled {
                Poll::Pending => sleeper.park(),
                Poll::Ready(result) => return result.map(drop),
            }
        }
    }
}

#[test]
fn r08_an_event_beside_a_clear_and_a_wait_is_not_lost() {
    loom::model(|| {
        let socket = Socket::new(true);
        let kernel = socket.clone();
        let kernel = thread::spawn(move || kernel.arrive());
        socket.read().unwrap();
        kernel.join().unwrap();
        assert_eq!(socket.waiting.load(Relaxed), 0);
    });
}

#[test]
fn r08_two_events_beside_two_reads() {
    bounded(2, || {
        let socket = Socket::new(true);
        let kernel = socket.clone();
        let kernel = thread::spawn(move || {
            kernel.arrive();
            kernel.arrive();
        });
        socket.read().unwrap();
        socket.read().unwrap();
        kernel.join().unwrap();
        assert_eq!(socket.waiting.load(Relaxed), 0);
    });
}

#[test]
fn r08_a_waiter_that_drops_beside_the_event_leaves_it_to_the_other() {
    bounded(2, || {
        let socket = Socket::new(false);
        let kernel = socket.clone();
        let kernel = thread::spawn(move || kernel.arrive());
        let other = socket.clone();
        let other = thread::spawn(move || {
            let waiter = pin!(Waiter::new(Interest::READABLE));
            let result = other.wait_linked(waiter.as_ref());
            other.descriptor.unlink(waiter.as_ref(), &other.waiting);
            result.unwrap();
        });
        {
            let waiter = pin!(Waiter::new(Interest::READABLE));
            let (descriptor, waiting) = (&socket.descriptor, &socket.waiting);
            let _ =
                descriptor.poll_linked(GENERATION, Interest::READABLE, waiter.as_ref(), Waker::noop(), waiting, None);
            descriptor.unlink(waiter.as_ref(), waiting);
        }
        kernel.join().unwrap();
        other.join().unwrap();
        assert_eq!(socket.waiting.load(Relaxed), 0);
    });
}

#[test]
fn r14_an_end_beside_an_event_and_a_wait_reaches_the_waiter() {
    bounded(2, || {
        let socket = Socket::new(false);
        let kernel = socket.clone();
        let kernel = thread::spawn(move || kernel.event());
        let closer = socket.clone();
        let closer = thread::spawn(move || {
            let mut taken = Vec::new();
            assert_eq!(closer.descriptor.retire(None, &mut taken), Some(3));
            closer.waiting.fetch_sub(taken.len(), Relaxed);
            taken.into_iter().for_each(Waker::wake);
        });
        // The event brings no bytes, so only the end can let it go.
        assert_eq!(socket.read(), Err(Ended));
        kernel.join().unwrap();
        closer.join().unwrap();
        assert_eq!(socket.waiting.load(Relaxed), 0);
    });
}

/// The event of the break. Assumed of the kernel: it is level-triggered, so a wait returns while it is written and not
/// read, whoever else has seen it.
struct Level {
    written: Mutex<bool>,
    changed: Condvar,
}

impl Level {
    fn write(&self) {
        *self.written.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let mut written = self.written.lock().unwrap();
        while !*written {
            written = self.changed.wait(written).unwrap();
        }
    }

    fn read(&self) {
        *self.written.lock().unwrap() = false;
    }
}

#[test]
fn r01_a_break_beside_breaks_and_a_poll_reaches_the_blocked_thread() {
    bounded(2, || {
        let shared = Arc::new((
            Breaks::new(),
            Level { written: Mutex::new(false), changed: Condvar::new() },
            AtomicUsize::new(0),
        ));
        let mut threads: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let (breaks, level, published) = &*shared;
                    published.fetch_add(1, Relaxed);
                    if breaks.request() {
                        level.write();
                    }
                })
            })
            .collect();
        let poller = shared.clone();
        threads.push(thread::spawn(move || {
            // A wait without a timeout sees the event, and leaves it.
            let _ = *poller.1.written.lock().unwrap();
        }));
        let (breaks, level, published) = &*shared;
        while published.load(Relaxed) < 2 {
            level.wait();
            level.read();
            breaks.taken();
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
