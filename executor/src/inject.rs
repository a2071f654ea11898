//! The global queue (Go: `sched.runq`): where tasks come from threads without a processor, and where full local queues
//! overflow. `sched` fills and empties it; the one file that knows its form.
//!
//! It has two ends, each with its lock: units come in at one, and when the other has none left what has come in becomes
//! the other, all of it in one step. So who pushes waits for nobody who takes a batch.
//!
//! 1. Units leave in the order in which they came; those of a processor that dies go before all.
//! 2. The length of an end is changed under its lock together with it, so a reader without the lock sees a length that
//!    was true. After [`crate::sys::idle_fence`] it sees every push whose [`crate::sys::submit_fence`] came earlier.
//! 3. Units that move from one end to the other are seen at both for a moment, and never at none: they are counted
//!    where they go before they cease to count where they were, and a reader looks in the other order.

use std::collections::VecDeque;

use crate::runq::{Ring, Unit};
use crate::sys::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sys::{Line, Mutex, MutexGuard, OwnMutex, const_but_in_models, rank};

/// At most so many units leave in one batch, half of a local queue (Go: `len(pp.runq)/2`).
pub(crate) const BATCH: usize = 128;

/// A queue that is empty again keeps memory for so many units.
const KEPT: usize = 4096;

/// The global queue of one runtime.
pub(crate) struct Inject {
    /// Where units come in. The lock is held for a push, or for a swap.
    back: Line<End<OwnMutex<VecDeque<Unit>>>>,
    /// Where they leave. Its lock is taken before that of `back`.
    front: Line<End<Mutex<VecDeque<Unit>>>>,
}

/// An end of the queue.
struct End<L> {
    /// Written under `queue`, read without.
    len: AtomicUsize,
    queue: L,
}

impl<L> End<L> {
    const_but_in_models! {
        fn new(queue: L) -> Line<End<L>> {
            Line(End { len: AtomicUsize::new(0), queue })
        }
    }
}

impl Inject {
    const_but_in_models! {
        pub(crate) fn new() -> Self {
            Inject {
                back: End::new(OwnMutex::new(rank::LEAF, VecDeque::new())),
                front: End::new(Mutex::new(rank::INJECT, VecDeque::new())),
            }
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        // Acquire: pairs with the Release in `refill` (invariant 3).
        let back = self.back.len.load(Acquire);
        back + self.front.len.load(Relaxed)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends one unit (Go: `globrunqput`).
    pub(crate) fn push(&self, unit: Unit) {
        let mut queue = self.back.queue.lock();
        queue.push_back(unit);
        self.back.len.store(queue.len(), Relaxed);
    }

    /// Appends a batch in order (Go: `globrunqputbatch`). Gives how many they were.
    pub(crate) fn push_batch(&self, units: impl Iterator<Item = Unit>) -> usize {
        let mut queue = self.back.queue.lock();
        let before = queue.len();
        queue.extend(units);
        self.back.len.store(queue.len(), Relaxed);
        queue.len() - before
    }

    /// Puts a batch, in order, before everything that is queued (Go: `globrunqputhead`, unit by unit).
    pub(crate) fn push_front(&self, units: impl Iterator<Item = Unit>) {
        let units: Vec<Unit> = units.collect();
        if units.is_empty() {
            return;
        }
        let mut queue = self.front.queue.lock();
        units.into_iter().rev().for_each(|unit| queue.push_front(unit));
        self.front.len.store(queue.len(), Relaxed);
    }

    /// Takes the oldest unit.
    pub(crate) fn pop(&self) -> Option<Unit> {
        if self.is_empty() {
            return None;
        }
        let mut queue = self.front.queue.lock();
        self.refill(&mut queue);
        let unit = queue.pop_front();
        self.taken(queue);
        unit
    }

    /// Takes `min(most, size, size / procs + 1)` units, at least one, and no more than there is room for: the first is
    /// the answer, the others go to `into` in order (Go: `globrunqgetbatch`).
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
        let mut queue = self.front.queue.lock();
        self.refill(&mut queue);
        let size = queue.len() + self.back.len.load(Relaxed);
        let n = most.clamp(1, room + 1).min(size / procs + 1);
        let from_front = n.min(queue.len());
        let mut units = queue.drain(..from_front);
        let first = units.next();
        // SAFETY: passed on.
        unsafe { into.extend(units) };
        if first.is_some() && from_front < n {
            self.refill(&mut queue);
            let rest = (n - from_front).min(queue.len());
            // SAFETY: passed on.
            unsafe { into.extend(queue.drain(..rest)) };
        }
        self.taken(queue);
        first
    }

    /// What has come in goes next, if nothing is left to leave. The lock of `front` is held.
    fn refill(&self, front: &mut VecDeque<Unit>) {
        if !front.is_empty() || self.back.len.load(Relaxed) == 0 {
            return;
        }
        let mut back = self.back.queue.lock();
        std::mem::swap(front, &mut *back);
        self.front.len.store(front.len(), Relaxed);
        // Release: pairs with the Acquire in `len` (invariant 3).
        self.back.len.store(0, Release);
    }

    /// Publishes the length. After a burst the memory goes back, outside the lock.
    fn taken(&self, mut queue: MutexGuard<'_, VecDeque<Unit>>) {
        self.front.len.store(queue.len(), Relaxed);
        if queue.is_empty() && queue.capacity() > KEPT {
            let burst = std::mem::take(&mut *queue);
            drop(queue);
            drop(burst);
        }
    }
}

#[cfg(all(test, gmp_loom))]
mod loom;
#[cfg(all(test, not(gmp_loom)))]
mod tests;
