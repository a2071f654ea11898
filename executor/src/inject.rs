//! The global queue (Go: `sched.runq`): where tasks come from threads without a processor, and where full local queues
//! overflow. `sched` fills and empties it; the one file that knows its form.
//!
//! 1. Units leave in the order in which they came; those of a processor that dies go before all.
//! 2. `len` is changed under the lock together with the queue, so a reader without the lock sees a length that was true.
//!    After [`crate::sys::idle_fence`] it sees every push whose [`crate::sys::submit_fence`] came earlier.

use std::collections::VecDeque;

use crate::runq::{Ring, Unit};
use crate::sys::atomic::{AtomicUsize, Ordering::Relaxed};
use crate::sys::{Mutex, MutexGuard, rank};

/// At most so many units leave in one batch, half of a local queue (Go: `len(pp.runq)/2`).
pub(crate) const BATCH: usize = 128;

/// A queue that is empty again keeps memory for so many units.
const KEPT: usize = 4096;

/// The global queue of one runtime.
pub(crate) struct Inject {
    /// Written under `queue`, read without.
    len: AtomicUsize,
    queue: Mutex<VecDeque<Unit>>,
}

impl Inject {
    pub(crate) fn new() -> Self {
        Inject { len: AtomicUsize::new(0), queue: Mutex::new(rank::INJECT, VecDeque::new()) }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends one unit (Go: `globrunqput`).
    pub(crate) fn push(&self, unit: Unit) {
        let mut queue = self.queue.lock();
        queue.push_back(unit);
        self.len.store(queue.len(), Relaxed);
    }

    /// Appends a batch in order (Go: `globrunqputbatch`). Gives how many they were.
    pub(crate) fn push_batch(&self, units: impl Iterator<Item = Unit>) -> usize {
        let mut queue = self.queue.lock();
        let before = queue.len();
        queue.extend(units);
        self.len.store(queue.len(), Relaxed);
        queue.len() - before
    }

    /// Puts a batch, in order, before everything that is queued (Go: `globrunqputhead`, unit by unit).
    pub(crate) fn push_front(&self, units: impl Iterator<Item = Unit>) {
        let units: Vec<Unit> = units.collect();
        if units.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        units.into_iter().rev().for_each(|unit| queue.push_front(unit));
        self.len.store(queue.len(), Relaxed);
    }

    /// Takes the oldest unit.
    pub(crate) fn pop(&self) -> Option<Unit> {
        if self.is_empty() {
            return None;
        }
        let mut queue = self.queue.lock();
        let unit = queue.pop_front();
        self.taken(queue);
        unit
    }

    /// Takes `min(most, size, size / procs + 1)` units, at least one, and no more than there is room for: the first is the answer,
    /// the others go to `into` in order (Go: `globrunqgetbatch`).
    ///
    /// # Safety
    ///
    /// The caller is the owner of `into`.
    pub(crate) unsafe fn pop_batch<const N: usize>(&self, procs: usize, most: usize, into: &Ring<N>) -> Option<Unit> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: passed on.
        let room = N - unsafe { into.len() };
        let mut queue = self.queue.lock();
        let size = queue.len();
        let n = most.clamp(1, room + 1).min(size).min(size / procs + 1);
        let mut batch = queue.drain(..n);
        let first = batch.next();
        // SAFETY: passed on.
        unsafe { into.extend(batch) };
        self.taken(queue);
        first
    }

    /// Publishes the length. After a burst the memory goes back, outside the lock.
    fn taken(&self, mut queue: MutexGuard<'_, VecDeque<Unit>>) {
        self.len.store(queue.len(), Relaxed);
        if queue.is_empty() && queue.capacity() > KEPT {
            let burst = std::mem::take(&mut *queue);
            drop(queue);
            drop(burst);
        }
    }
}

#[cfg(all(test, not(gmp_loom)))]
mod tests;
