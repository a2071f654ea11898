//! A processor's own queue: the run-next slot, and behind it a FIFO ([`Ring`]) of at most [`CAPACITY`]. `sched` fills
//! and empties it.
//!
//! 1. Only the machine that holds the processor (the owner) pushes, and only it fills the run-next slot. Anybody may
//!    take out of either.
//! 2. A unit is in one place at a time: taking it out of the slot or the ring is one locked instruction, and whoever
//!    wins it owns the unit.
//! 3. At most [`CAPACITY`] units are in the ring. What comes on top leaves with the older half, in order.
//! 4. Once [`RunNext::condemn`] has put the sentinel into the slot it stays there until the owner gives the queue back:
//!    from then on the queue belongs to no processor. The owner learns it from the sentinel coming out of the slot, or
//!    from a second look at the slot after each push to the ring; whoever condemned it empties the ring after a fence.
//!    Whichever fence came first, one of them sees a unit that was pushed meanwhile.

use std::ptr::NonNull;

use crate::sys::atomic::{
    AtomicPtr,
    Ordering::{AcqRel, Acquire, Relaxed},
};

mod ring;

pub(crate) use ring::{Overflow, Ring};

/// How many units a ring holds (Go: the length of `p.runq`).
pub(crate) const CAPACITY: usize = 256;

/// A task that is to run: a pointer that says nothing about what it points to. Whoever has the unit has the right, and
/// the duty, to run or drop the task once.
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
        // AcqRel: Acquire pairs with the Release in `replace`; Release with the owner's next swap, which then sees that
        // the processor is gone.
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
        // AcqRel: Acquire costs nothing; Release pairs with the Acquire in `condemn`, so that whoever condemns the
        // queue later sees what we pushed to the ring before. A thief that was faster left null.
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

/// The queue of one processor.
#[repr(C)]
pub(crate) struct RunQueue<const N: usize = CAPACITY> {
    pub(crate) next: RunNext,
    ring: Ring<N>,
}

impl<const N: usize> RunQueue<N> {
    pub(crate) fn new() -> Self {
        RunQueue { next: RunNext::new(), ring: Ring::new() }
    }
}

impl<const N: usize> std::ops::Deref for RunQueue<N> {
    type Target = Ring<N>;
    #[inline]
    fn deref(&self) -> &Ring<N> {
        &self.ring
    }
}

#[cfg(all(test, gmp_loom))]
mod loom;
#[cfg(all(test, not(gmp_loom)))]
pub(crate) mod tests;
