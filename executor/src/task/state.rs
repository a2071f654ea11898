//! The state word of a task's cell: flags and a count of references, changed in one step. `cell` does what a change
//! says is to be done; nothing here touches anything but the word.
//!
//! **0 means: free memory, no task.** Whoever looks at the word of memory that may be free, or be given to another task
//! at that moment, goes by that ([`State::try_ref`]).
//!
//! | phase       | HELD | WOKEN | ALIVE | COMPLETE | who leaves it                                                 |
//! |-------------|------|-------|-------|----------|---------------------------------------------------------------|
//! | idle        |  0   |   0   |   1   |    0     | `wake`, `wake_and_let_go`, `abort`: → held, and they queue it |
//! | held        |  1   |   0   |   1   |    0     | `stop`: → idle · a wake: → held, woken · `complete`, `end`    |
//! | held, woken |  1   |   1   |   1   |    0     | `start`: → held · `complete`, `end`; not `stop`               |
//! | complete    |  0   |  any  |   0   |    1     | the last reference: → free                                    |
//!
//! Held says that somebody has the unit: it is in a queue, or its task in a poll. The word does not say which, and so
//! the way from one to the other changes nothing in it. Nor does a task that wakes itself in its poll: the poll
//! (`context::Polling`) tells so to who queues it, and how many wakers of its own it has made.
//!
//! | flag       | says                                                                | set by                  | cleared by                        |
//! |------------|---------------------------------------------------------------------|-------------------------|-----------------------------------|
//! | JOIN       | the handle exists; once COMPLETE is set the outcome is its          | `new`                   | `leave`, `let_go_handle`          |
//! | JOIN_WAKER | the waker in the cell is there, and whoever completes the task may take it | `registered`     | `take_back`; not after COMPLETE   |
//! | ABORTED    | the future is to be dropped, not polled again                       | `abort`                 | nobody                            |
//!
//! A reference each have: ALIVE, JOIN, every waker, every abort handle. The unit and the poll have none: only who
//! polls, or drops the future in place of a poll, ends ALIVE, so the cell cannot go before they have done.
//!
//! 1. Of the wakes between two starts one queues the task, at most: that which finds it idle. What was done before the
//!    unit was queued is handed over by the queue, Release and Acquire in each: what that waker wrote, and the state of
//!    the word, so that `start` can go by a load. What a wake wrote that queues nothing is handed over by the word:
//!    such a wake is a read-modify-write also where it changes nothing, each of them is Release, and `start` Acquire.
//!    As the word is only ever changed by read-modify-writes, from `new` to the last reference, `start` sees what came
//!    before any of them: the other wakes, the poll before on another thread, the abort.
//! 2. The future belongs to who has the unit, from `start` to `stop`, `complete` or `end`.
//! 3. The outcome is written before `complete`. If JOIN is set there, in that very step, it is the handle's, which
//!    takes it or drops it; else it is still the completer's, and dropped before ALIVE ends (`Completed::Unwanted`,
//!    then `end`). JOIN is never set again, so it is dropped once.
//! 4. The waker in the cell belongs to the handle while JOIN_WAKER is clear. While it is set and COMPLETE is not, both
//!    sides only look at it, and whoever clears JOIN_WAKER or sets COMPLETE first takes it. A completer that takes it
//!    keeps ALIVE's reference meanwhile.
//! 5. References are raised by who has one, and by `try_ref` while ALIVE is set. So if ALIVE is not set and one is
//!    left, that one is the last for sure, and a load that sees it is as good as the read-modify-write
//!    (`let_go_handle`). While ALIVE is set none is, whatever the count says: the wakers that a poll makes of its own
//!    task are counted when it ends, in the step that gives the unit or ALIVE away, or before it. Others may have let
//!    them go by then, so the count is too low until then, and may be below 0: it is in the upper bits, and comes back.
//! 6. Who lets the last reference go has the memory, and nobody reads any of it afterwards but the word, in `try_ref`.

use crate::sys::atomic::{
    AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

const HELD: usize = 1;
const WOKEN: usize = 2;
const ALIVE: usize = 4;
const COMPLETE: usize = 8;
const JOIN: usize = 16;
const JOIN_WAKER: usize = 32;
const ABORTED: usize = 64;
/// One reference. The bits from here on count them.
const REFERENCE: usize = 128;

/// From a poll, or a drop in its place, to the end of the future.
const COMPLETED: usize = COMPLETE.wrapping_sub(HELD + ALIVE);

/// See the head of the file.
#[derive(Debug)]
#[repr(transparent)]
pub(super) struct State(AtomicUsize);

/// What is to be done after [`State::wake_and_let_go`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Woken {
    /// The caller has the unit and queues it.
    Queue,
    Nothing,
    /// The caller had the last reference.
    Free,
}

/// What is to be done after [`State::complete`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Completed {
    /// Nothing: the cell is not the caller's any more.
    Joined,
    /// The waker in the cell is the caller's, who takes it out, then lets one reference go, then wakes it.
    Wake,
    /// There is no handle. Nothing has changed: the caller drops the outcome, then calls [`State::end`].
    Unwanted,
}

/// What the handle that is dropped has to do; see [`State::leave`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Left {
    /// Nothing: the reference is gone.
    Gone,
    /// To take its waker out, then to leave again.
    TakeWaker,
    /// To drop the outcome if it did not take it, then to call [`State::let_go_handle`].
    DropOutcome,
}

/// Nobody has a reference.
#[inline]
fn is_nobodys(word: usize) -> bool {
    word & (ALIVE | !(REFERENCE - 1)) == 0
}

/// A program leaks wakers, and is about to run over the count. The upper half of it is for what is below 0.
#[inline]
fn are_too_many(word: usize) -> bool {
    word >> (usize::BITS - 2) == 1
}

/// After a wake: an idle task is held, one that is held was woken.
#[inline]
fn woken(word: usize) -> usize {
    const { assert!(WOKEN == 2 * HELD) };
    word | HELD | (2 * (word & HELD))
}

impl State {
    /// The word of a new task, which is queued and has a handle. Stored by [`State::publish`].
    const NEW: usize = HELD | ALIVE | JOIN | (2 * REFERENCE);

    /// The rest of the cell is written: from here on [`State::try_ref`] finds the task.
    #[inline]
    pub(super) fn publish(&self) {
        // Release: pairs with the Acquire in `try_ref`, which finds the cell without having been given it.
        self.0.store(State::NEW, Release);
    }

    /// The last reference is gone, and the memory goes back.
    #[inline]
    pub(super) fn retire(&self) {
        // Relaxed: who sees it does nothing; the memory itself is handed over by the arena, or the allocator.
        self.0.store(0, Relaxed);
    }

    /// A poll begins. Tells whether the task was aborted. Only who has the unit may call it.
    #[inline]
    #[must_use]
    pub(super) fn start(&self) -> bool {
        // Acquire, both: pairs with the Release of each change before (invariant 1).
        let mut word = self.0.load(Acquire);
        debug_assert!(word & HELD != 0 && word & ALIVE != 0, "a task ran that was not queued");
        if word & WOKEN != 0 {
            word = self.0.fetch_sub(WOKEN, Acquire);
        }
        word & ABORTED != 0
    }

    /// The poll was not ready and has made so many `wakers`: held → idle, unless the task was woken meanwhile. Tells
    /// whether it was, and the caller has to queue it; if not, the task is not the caller's any more.
    #[inline]
    #[must_use]
    pub(super) fn stop(&self, wakers: usize) -> bool {
        let mut word = self.0.load(Relaxed);
        while word & WOKEN == 0 {
            let next = (word - HELD).wrapping_add(wakers * REFERENCE);
            if are_too_many(next) {
                // As in `add_refs`.
                std::process::abort();
            }
            // Release: pairs with the Acquire in `start`, which may be another thread's (invariant 1).
            match self.0.compare_exchange_weak(word, next, Release, Relaxed) {
                Ok(_) => return false,
                Err(now) => word = now,
            }
        }
        self.add_refs(wakers);
        true
    }

    /// A wake. Tells whether the caller has the unit now, and has to queue it.
    #[inline]
    #[must_use]
    pub(super) fn wake(&self) -> bool {
        self.schedule(0)
    }

    /// The task is to end before its next poll. Tells whether the caller has the unit now, and has to queue it.
    #[must_use]
    pub(super) fn abort(&self) -> bool {
        self.schedule(ABORTED)
    }

    #[inline]
    fn schedule(&self, flags: usize) -> bool {
        let mut word = self.0.load(Relaxed);
        while word & ALIVE != 0 {
            // Release: pairs with the Acquire in `start` (invariant 1).
            match self.0.compare_exchange_weak(word, woken(word) | flags, Release, Relaxed) {
                Ok(_) => return word & HELD == 0,
                Err(now) => word = now,
            }
        }
        false
    }

    /// [`State::wake`] and the end of the waker in one step.
    #[inline]
    pub(super) fn wake_and_let_go(&self) -> Woken {
        let mut word = self.0.load(Relaxed);
        while word & ALIVE != 0 {
            // Release: as in `schedule`; and what was done with the reference comes before the memory goes.
            match self.0.compare_exchange_weak(word, woken(word).wrapping_sub(REFERENCE), Release, Relaxed) {
                Ok(_) if word & HELD == 0 => return Woken::Queue,
                Ok(_) => return Woken::Nothing,
                Err(now) => word = now,
            }
        }
        if self.let_go() { Woken::Free } else { Woken::Nothing }
    }

    /// Whether the coming poll is to drop the future.
    pub(super) fn is_aborted(&self) -> bool {
        self.0.load(Relaxed) & ABORTED != 0
    }

    /// Whether the future is there.
    #[inline]
    pub(super) fn is_alive(&self) -> bool {
        // Acquire: pairs with `complete` and `end`; who learns that the future is gone sees what its drop did.
        self.0.load(Acquire) & ALIVE != 0
    }

    /// Whether the outcome is there, or was. The handle may take it then.
    #[inline]
    pub(super) fn is_complete(&self) -> bool {
        // Acquire: pairs with `complete`; the handle sees the outcome.
        self.0.load(Acquire) & COMPLETE != 0
    }

    /// The future is gone, and the outcome in the cell. Its last poll has made so many `wakers`.
    #[inline]
    pub(super) fn complete(&self, wakers: usize) -> Completed {
        let mut word = self.0.load(Relaxed);
        while word & JOIN != 0 {
            let wake = word & JOIN_WAKER != 0;
            let kept = if wake { 0 } else { REFERENCE };
            let next = word.wrapping_add(COMPLETED).wrapping_add(wakers * REFERENCE).wrapping_sub(kept);
            // AcqRel: Release pairs with the Acquire in `is_complete`, `registered`, `take_back` and `leave`, for the
            // outcome, and with that of the last reference; Acquire with the Release in `registered`, for the waker.
            match self.0.compare_exchange_weak(word, next, AcqRel, Relaxed) {
                Ok(_) => return if wake { Completed::Wake } else { Completed::Joined },
                Err(now) => word = now,
            }
        }
        Completed::Unwanted
    }

    /// The future and the outcome are gone; `wakers` as above. Tells whether the reference of ALIVE was the last.
    #[inline]
    #[must_use]
    pub(super) fn end(&self, wakers: usize) -> bool {
        let change = COMPLETED.wrapping_sub(REFERENCE).wrapping_add(wakers * REFERENCE);
        // AcqRel: as in `let_go`.
        is_nobodys(self.0.fetch_add(change, AcqRel).wrapping_add(change))
    }

    /// One reference more, for who has one.
    #[inline]
    pub(super) fn add_ref(&self) {
        self.add_refs(1);
    }

    /// So many references more, for who has one.
    #[inline]
    pub(super) fn add_refs(&self, references: usize) {
        // Relaxed: who gets one gets it from who has one; what a poll has made is counted before its unit goes on.
        if references > 0 && are_too_many(self.0.fetch_add(references * REFERENCE, Relaxed)) {
            // What would be freed is still in use.
            std::process::abort();
        }
    }

    /// One reference, if the future is there. Anybody may ask, also of memory that may be free or another task's.
    #[must_use]
    pub(super) fn try_ref(&self) -> bool {
        let mut word = self.0.load(Relaxed);
        while word & ALIVE != 0 && !are_too_many(word) {
            // Acquire: pairs with the Release in `publish`.
            match self.0.compare_exchange_weak(word, word.wrapping_add(REFERENCE), Acquire, Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Lets one reference go. Tells whether it was the last.
    #[inline]
    #[must_use]
    pub(super) fn let_go(&self) -> bool {
        // AcqRel: Release for what was done with this reference, Acquire for what was done with the others, before the
        // memory goes; each pairs with the other.
        is_nobodys(self.0.fetch_sub(REFERENCE, AcqRel).wrapping_sub(REFERENCE))
    }

    /// The handle has put a waker into the cell, and JOIN_WAKER was clear. `false`: the task is complete, the outcome
    /// is there, and the waker still the handle's.
    #[must_use]
    pub(super) fn registered(&self) -> bool {
        // Acquire: pairs with `complete`, for the outcome.
        let mut word = self.0.load(Acquire);
        while word & COMPLETE == 0 {
            debug_assert_eq!(word & (JOIN | JOIN_WAKER), JOIN, "a waker was registered twice, or by nobody's handle");
            // Release: pairs with the Acquire in `complete`, for the waker. Acquire: as above.
            match self.0.compare_exchange_weak(word, word | JOIN_WAKER, Release, Acquire) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Whether the handle has a waker in the cell, which it may look at. The handle asks.
    #[inline]
    pub(super) fn has_waker(&self) -> bool {
        // Relaxed: only the handle itself sets and clears it.
        self.0.load(Relaxed) & JOIN_WAKER != 0
    }

    /// The handle takes back the waker that it put into the cell. `false`: the task is complete, and who completed it
    /// has the waker.
    #[must_use]
    pub(super) fn take_back(&self) -> bool {
        // Acquire: pairs with `complete`, for the outcome.
        let mut word = self.0.load(Acquire);
        while word & COMPLETE == 0 {
            debug_assert_eq!(word & (JOIN | JOIN_WAKER), JOIN | JOIN_WAKER, "a handle took back what it never gave");
            // Relaxed: what is in the cell is the handle's own. Acquire: as above.
            match self.0.compare_exchange_weak(word, word & !JOIN_WAKER, Relaxed, Acquire) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// The handle is dropped.
    pub(super) fn leave(&self) -> Left {
        // Acquire: pairs with `complete`, for the outcome.
        let mut word = self.0.load(Acquire);
        loop {
            if word & COMPLETE != 0 {
                return Left::DropOutcome;
            }
            if word & JOIN_WAKER != 0 {
                return Left::TakeWaker;
            }
            // Release: what was done with the reference comes before the memory goes. It is not the last: ALIVE has
            // one. Acquire: as above.
            match self.0.compare_exchange_weak(word, word.wrapping_sub(JOIN + REFERENCE), Release, Acquire) {
                Ok(_) => return Left::Gone,
                Err(now) => word = now,
            }
        }
    }

    /// The handle of a complete task lets its reference go. Tells whether it was the last.
    #[inline]
    #[must_use]
    pub(super) fn let_go_handle(&self) -> bool {
        // Acquire: as in `let_go`. Nobody can raise the count any more if it is one (invariant 5).
        if is_nobodys(self.0.load(Acquire).wrapping_sub(REFERENCE)) {
            return true;
        }
        // AcqRel: as in `let_go`.
        is_nobodys(self.0.fetch_sub(JOIN + REFERENCE, AcqRel).wrapping_sub(REFERENCE))
    }
}

#[cfg(all(test, gmp_loom))]
mod loom;
