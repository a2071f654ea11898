//! A processor's own queue: the run-next slot and a FIFO deque capped at [`CAPACITY`]. `sched` fills and empties it; the
//! one file that knows the deque.
//!
//! 1. Only the machine that holds the processor (the owner) pushes, and only it fills the run-next slot. Anybody may take
//!    out of either.
//! 2. A unit is in one place at a time: taking it out of the slot or the deque is one locked instruction, and whoever wins
//!    it owns the unit.
//! 3. At most [`CAPACITY`] units are in the deque. What comes on top leaves with the older half, in order.
//! 4. Once [`RunNext::condemn`] has put the sentinel into the slot it stays there until the owner gives the queue back: from
//!    then on the queue belongs to no processor. The owner learns it from the sentinel coming out of the slot, or from a
//!    second look at the slot after each push to the deque; whoever condemned it empties the deque after a fence. Whichever
//!    fence came first, one of them sees a unit that was pushed meanwhile.

use std::ptr::NonNull;

use crate::sys::atomic::{
    AtomicPtr,
    Ordering::{AcqRel, Acquire, Relaxed},
};

#[cfg(not(gmp_loom))]
pub(crate) use deque::RunQueue;

/// How many units a deque holds (Go: the length of `p.runq`).
#[cfg(not(gmp_loom))]
pub(crate) const CAPACITY: usize = 256;

/// A task that is to run: a pointer that says nothing about what it points to. Whoever has the unit has the right, and the
/// duty, to run or drop the task once.
#[derive(Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Unit(NonNull<()>);

// SAFETY: a unit is the sole right to a task, and tasks are `Send`.
unsafe impl Send for Unit {}

impl Unit {
    #[inline]
    pub(crate) fn new(task: NonNull<()>) -> Self {
        Unit(task)
    }

    /// To look at the task without taking it.
    pub(crate) fn as_raw(&self) -> NonNull<()> {
        self.0
    }

    #[inline]
    pub(crate) fn into_raw(self) -> NonNull<()> {
        self.0
    }
}

/// The sentinel of invariant 4: no unit has this address.
const CONDEMNED: *mut () = std::ptr::without_provenance_mut(1);

/// What was in the run-next slot when a unit was put in.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Replaced {
    /// Nothing.
    Nothing,
    /// This unit, which now has to go elsewhere.
    Unit(Unit),
    /// The queue was condemned: this unit, the one that was to be put in, has to go elsewhere.
    Condemned(Unit),
}

/// The slot for the task that runs next (Go: `p.runnext`).
#[derive(Debug)]
pub(crate) struct RunNext(AtomicPtr<()>);

impl RunNext {
    pub(crate) fn new() -> Self {
        RunNext(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// Puts `unit` in and gives back what was there. Owner only.
    ///
    /// It is one locked instruction, so [`crate::sys::submit_fence_after_rmw`] may follow.
    #[inline]
    pub(crate) fn replace(&self, unit: Unit) -> Replaced {
        // AcqRel: Release hands the task to the thief's Acquire in `steal`; Acquire takes over what we get back from
        // nobody but ourselves, and costs nothing.
        let before = self.0.swap(unit.0.as_ptr(), AcqRel);
        if before == CONDEMNED {
            return self.replace_condemned();
        }
        NonNull::new(before).map_or(Replaced::Nothing, |unit| Replaced::Unit(Unit(unit)))
    }

    /// The sentinel came out: it goes back in, and what was put in for it comes out, unless a thief took it meanwhile.
    #[cold]
    fn replace_condemned(&self) -> Replaced {
        // AcqRel: pairs with `steal`, as in `replace`.
        let unit = self.0.swap(CONDEMNED, AcqRel);
        NonNull::new(unit).map_or(Replaced::Nothing, |unit| Replaced::Condemned(Unit(unit)))
    }

    /// Puts the sentinel in (invariant 4) and gives back what was there. `sysmon` only.
    pub(crate) fn condemn(&self) -> Option<Unit> {
        // AcqRel: Acquire pairs with the Release in `replace`; Release with the owner's next swap, which then sees that the
        // processor is gone.
        let before = self.0.swap(CONDEMNED, AcqRel);
        debug_assert_ne!(before, CONDEMNED, "a queue was condemned twice");
        NonNull::new(before).map(Unit)
    }

    /// Whether the queue was condemned.
    #[inline]
    pub(crate) fn is_condemned(&self) -> bool {
        self.0.load(Relaxed) == CONDEMNED
    }

    /// The owner has emptied a condemned queue: it may serve again.
    pub(crate) fn pardon(&self) {
        // Relaxed: whoever gets the queue next gets it under a lock.
        self.0.store(std::ptr::null_mut(), Relaxed);
    }

    /// Takes what is there. Owner only.
    #[inline]
    pub(crate) fn take(&self) -> Option<Unit> {
        // Only we fill the slot (invariant 1), so an empty one stays empty; only the sentinel may come.
        let seen = self.0.load(Relaxed);
        if seen.is_null() || seen == CONDEMNED {
            return None;
        }
        // AcqRel: Acquire costs nothing; Release pairs with the Acquire in `condemn`, so that whoever condemns the queue later
        // sees what we pushed to the deque before. A thief that was faster left null.
        let taken = self.0.swap(std::ptr::null_mut(), AcqRel);
        if taken == CONDEMNED {
            // Nobody else writes the slot of a condemned queue.
            self.0.store(CONDEMNED, Relaxed);
            return None;
        }
        NonNull::new(taken).map(Unit)
    }

    /// The unit that is there now, as a word to compare with; 0 if there is none.
    #[inline]
    pub(crate) fn peek(&self) -> usize {
        let seen = self.0.load(Relaxed);
        if seen == CONDEMNED { 0 } else { seen as usize }
    }

    /// Takes what is there if it is still `seen`, a non-zero answer of [`RunNext::peek`]. Any thread.
    pub(crate) fn steal(&self, seen: usize) -> Option<Unit> {
        // Acquire: pairs with the Release in `replace`; we then see the task as its last owner left it.
        self.0
            .compare_exchange(seen as *mut (), std::ptr::null_mut(), Acquire, Relaxed)
            .ok()
            .and_then(NonNull::new)
            .map(Unit)
    }
}

#[cfg(not(gmp_loom))]
mod deque {
    use crossbeam_deque::{Steal, Stealer, Worker};

    use super::{CAPACITY, RunNext, Unit};
    use crate::sys::UnsafeCell;

    /// The run-next slot and the deque of one processor.
    pub(crate) struct RunQueue {
        pub(crate) next: RunNext,
        /// Touched by the owner only.
        worker: UnsafeCell<Worker<Unit>>,
        stealer: Stealer<Unit>,
    }

    // SAFETY: `worker` is touched by the owner only (the contract of the unsafe functions); the rest is `Sync`.
    unsafe impl Sync for RunQueue {}

    /// What a theft brought.
    #[derive(Debug)]
    pub(crate) struct Loot {
        /// The oldest of the stolen units, to be run first.
        pub(crate) first: Unit,
        /// How many more of them now lie in the thief's deque.
        pub(crate) more: usize,
    }

    impl RunQueue {
        pub(crate) fn new() -> Self {
            let worker = Worker::new_fifo();
            RunQueue { next: RunNext::new(), stealer: worker.stealer(), worker: UnsafeCell::new(worker) }
        }

        /// # Safety
        ///
        /// The caller holds the processor.
        #[inline]
        unsafe fn worker<R>(&self, f: impl FnOnce(&Worker<Unit>) -> R) -> R {
            // SAFETY: the owner is one thread at a time, and the hand-over of a processor orders its accesses.
            self.worker.with(|worker| f(unsafe { &*worker }))
        }

        /// Units in the deque. Exact for the owner but for thieves, who only take.
        ///
        /// # Safety
        ///
        /// The caller holds the processor.
        #[inline]
        pub(crate) unsafe fn len(&self) -> usize {
            // SAFETY: passed on.
            unsafe { self.worker(Worker::len) }
        }

        /// Appends `unit`. If the deque is full, its older half and then `unit` go into `overflow` instead, in order
        /// (Go: `runqput`, `runqputslow`). Tells whether there were others.
        ///
        /// # Safety
        ///
        /// The caller holds the processor.
        #[inline]
        pub(crate) unsafe fn push(&self, unit: Unit, overflow: impl FnOnce(&mut dyn Iterator<Item = Unit>)) -> bool {
            // SAFETY: passed on.
            unsafe {
                self.worker(|worker| {
                    let queued = worker.len();
                    if queued < CAPACITY {
                        worker.push(unit);
                    } else {
                        let half = std::iter::from_fn(|| worker.pop()).take(CAPACITY / 2);
                        overflow(&mut half.chain(std::iter::once(unit)));
                    }
                    queued > 0
                })
            }
        }

        /// Takes the oldest unit (Go: `runqget` behind `runnext`).
        ///
        /// # Safety
        ///
        /// The caller holds the processor.
        #[inline]
        pub(crate) unsafe fn pop(&self) -> Option<Unit> {
            // SAFETY: passed on.
            unsafe {
                self.worker(|worker| {
                    // The deque asks this too. Without it a yield of the bench took 38 ns instead of 32.
                    if worker.is_empty() { None } else { worker.pop() }
                })
            }
        }

        /// Units in the deque as another thread sees them.
        pub(crate) fn len_seen(&self) -> usize {
            self.stealer.len()
        }

        /// Takes half of `self`, at most `limit`, into the deque of `into` (Go: `runqsteal`).
        ///
        /// # Safety
        ///
        /// The caller holds the processor of `into`.
        pub(crate) unsafe fn steal_into(&self, into: &RunQueue, limit: usize) -> Option<Loot> {
            // SAFETY: passed on.
            unsafe {
                into.worker(|worker| {
                    let before = worker.len();
                    // The owner of a deque that resizes makes thieves retry; a few times are enough, others look too.
                    for _ in 0..4 {
                        match self.stealer.steal_batch_with_limit_and_pop(worker, limit) {
                            Steal::Success(first) => {
                                return Some(Loot { first, more: worker.len().saturating_sub(before) });
                            }
                            Steal::Empty => return None,
                            Steal::Retry => std::hint::spin_loop(),
                        }
                    }
                    None
                })
            }
        }

        /// Takes one unit out of the deque from any thread.
        pub(crate) fn steal_one(&self) -> Option<Unit> {
            loop {
                match self.stealer.steal() {
                    Steal::Success(unit) => return Some(unit),
                    Steal::Empty => return None,
                    Steal::Retry => std::hint::spin_loop(),
                }
            }
        }
    }
}

#[cfg(all(test, gmp_loom))]
mod loom;
#[cfg(all(test, not(gmp_loom)))]
pub(crate) mod tests;
