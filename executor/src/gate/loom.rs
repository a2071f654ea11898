//! Models of the lock: one holder at a time, and nobody is left in line, whoever lets go, comes and goes away beside
//! whom, and from wherever they come to a hot lock.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};

use loom::cell::UnsafeCell;
use loom::thread;

use super::{Gate, HEAT, HOT, NOWHERE, PASSES, Place, Relaxed, Waiter};
use crate::park::loom::sleeper;
use crate::sys::doubles::bounded;

struct At(u32);

impl Place for At {
    fn number(&self) -> u32 {
        self.0
    }

    fn task_goes_home(&self) {}
}

struct Counter {
    gate: Gate,
    count: UnsafeCell<u32>,
}

// SAFETY: the count is touched by the holder of the gate alone, which the model checks.
unsafe impl Sync for Counter {}

impl Counter {
    fn new() -> Arc<Counter> {
        Arc::new(Counter { gate: Gate::new(), count: UnsafeCell::new(0) })
    }

    fn count(&self) -> u32 {
        // SAFETY: the holder calls.
        self.count.with_mut(|count| unsafe {
            *count += 1;
            *count
        })
    }

    /// The lock is hot, and at home in the first place.
    fn hot() -> Arc<Counter> {
        let counter = Counter::new();
        counter.gate.home.store(1, Relaxed);
        counter.gate.heat.store(HEAT, Relaxed);
        counter.gate.state.store(HOT, Relaxed);
        counter
    }

    /// Locks, counts, unlocks. One who was `passed` by so often already. Gives how often it counted.
    fn add(&self, passed: u32) -> u32 {
        self.add_from(NOWHERE, passed)
    }

    /// As `sync::Mutex` does.
    ///
    /// # Safety
    ///
    /// As for `Gate::poll_acquire`.
    unsafe fn poll(&self, waiter: &Waiter, waker: &Waker, place: u32) -> Poll<()> {
        if !waiter.is_waited() && self.gate.acquire_at_once() {
            return Poll::Ready(());
        }
        // SAFETY: passed on.
        unsafe { self.gate.poll_acquire(waiter, waker, &At(place)) }
    }

    fn add_from(&self, place: u32, passed: u32) -> u32 {
        let waiter = pin!(Waiter::new());
        waiter.passed.set(passed);
        let (sleeper, waker) = sleeper();
        // SAFETY: the waiter is pinned here, and out of line when the poll is ready.
        while unsafe { self.poll(&waiter, &waker, place) }.is_pending() {
            sleeper.park();
        }
        self.count();
        self.gate.release();
        1
    }

    /// Polls so often, and goes away if that was not enough. Gives how often it counted.
    fn try_add(&self, polls: u32, passed: u32) -> u32 {
        self.try_add_from(NOWHERE, polls, passed)
    }

    fn try_add_from(&self, place: u32, polls: u32, passed: u32) -> u32 {
        let waiter = pin!(Waiter::new());
        waiter.passed.set(passed);
        // SAFETY: the waiter is pinned here until it has left.
        let poll = || unsafe { self.poll(&waiter, Waker::noop(), place) };
        let got = (0..polls).any(|_| poll() == Poll::Ready(()));
        if got {
            self.count();
            self.gate.release();
        }
        // SAFETY: as above.
        unsafe { self.gate.leave(&waiter) };
        got.into()
    }
}

/// What one thread does. Gives how often it counted.
type Part = fn(&Counter) -> u32;

/// Runs each on a thread of its own, and the first here; the gate is free afterwards.
fn all(parts: &'static [Part]) {
    all_of(Counter::new, parts);
}

fn all_of(new: fn() -> Arc<Counter>, parts: &'static [Part]) {
    bounded(2, move || {
        let counter = new();
        let threads: Vec<_> = parts[1..]
            .iter()
            .map(|part| {
                let counter = counter.clone();
                thread::spawn(move || part(&counter))
            })
            .collect();
        let here = parts[0](&counter);
        let counted = threads.into_iter().fold(here, |counted, thread| counted + thread.join().unwrap());
        assert!(counter.gate.try_acquire(), "somebody left it locked");
        assert_eq!(counter.count(), counted + 1);
    });
}

#[test]
fn r19_two_take_turns() {
    all(&[|c| c.add(0) + c.add(0), |c| c.add(0) + c.add(0)]);
}

#[test]
fn r19_three_take_turns() {
    all(&[|c| c.add(0), |c| c.add(0), |c| c.add(0)]);
}

/// One that was passed by is handed the lock, beside those who come and go.
#[test]
fn r04_who_was_passed_by_is_next() {
    all(&[|c| c.add(0) + c.add(0), |c| c.add(PASSES - 1), |c| c.add(0)]);
}

/// Whoever goes away, in line, woken or with the lock in its hands, leaves it to the next.
#[test]
fn r19_who_goes_away_leaves_the_lock_to_the_next() {
    all(&[|c| c.add(0) + c.add(0), |c| c.try_add(1, 0), |c| c.add(0)]);
    all(&[|c| c.add(0) + c.add(0), |c| c.try_add(2, PASSES - 1), |c| c.add(0)]);
}

/// Those from elsewhere rather stand in line: whoever lets go at home serves them, until the lock is cold.
#[test]
fn r19_those_from_elsewhere_get_a_hot_lock() {
    all_of(Counter::hot, &[|c| c.add_from(1, 0) + c.add_from(1, 0), |c| c.add_from(2, 0)]);
    all_of(Counter::hot, &[|c| c.add_from(1, 0), |c| c.add_from(2, 0), |c| c.add_from(2, 0)]);
    all_of(Counter::hot, &[|c| c.add_from(1, 0), |c| c.add_from(2, PASSES - 1), |c| c.add(0)]);
}

#[test]
fn r19_who_goes_away_leaves_a_hot_lock_to_the_next() {
    all_of(Counter::hot, &[|c| c.add_from(1, 0), |c| c.try_add_from(2, 1, 0), |c| c.add_from(2, 0)]);
}
