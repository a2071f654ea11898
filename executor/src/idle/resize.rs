//! The number of processors changes while they run (Go: `procresize`, which stops the world; this does not).
//!
//! The processors of the first [`Idle::procs`] slots live; the others are to die. A slot that was once in use stays in
//! use: others look at its queue, its timers and its counters as at any other's.
//!
//! | processor | who has it                                    | it leaves by                                                    |
//! |-----------|-----------------------------------------------|-----------------------------------------------------------------|
//! | idle      | nobody; it is on the idle list                | a machine takes it: → running · `resize`: → dead                |
//! | running   | a machine, or a grant on its way to one       | given up: → idle, or to a machine · `resize`: → dying           |
//! | dying     | as before: it is running, and too many        | `resize`: → running · given up, taken away, `quit`: → dead      |
//! | dead      | nobody                                        | `resize`: → idle, or to a machine in `want`                     |
//!
//! To be fewer, all of it under the scheduler lock: the number goes down; the idle ones that are too many leave the
//! list and are buried; those that run are asked to quit, and one in a blocking call is taken from its machine and
//! buried. To be more, also under the lock: the dead among the first slots go to `want`, else to the idle list; the
//! dying ones live on, as nobody has given them up. In both cases the caller then fences and looks at the queues, as
//! after [`Idle::hand_off`].
//!
//! 1. A processor is buried under the lock, by whoever gave it up under the same hold of it: its queue has one owner,
//!    and has been emptied before anybody can have the processor again.
//! 2. Every path that frees a processor asks whether it is dying. A machine that is asked comes to such a path at its
//!    next pick at the latest ([`Idle::quit`]); `block_on` when it waits or yields; a poll that is stuck when it is
//!    rescued. So the number holds as soon as the polls that were in progress have ended.
//! 3. What is buried goes to the global queue, where the living find it: whoever buried it wakes one of them after a
//!    fence, if one is idle. A machine that goes idle at that moment sees the queue under the lock, or in its look
//!    after its fence.
//! 4. At least one processor lives, so nobody in `want` waits for a dying one, which is not given to them.

use super::{Host, IDLE, Idle, Lists};
use crate::sys::atomic::Ordering::{AcqRel, Relaxed, Release};
use crate::sys::{MutexGuard, idle_fence};

/// What came of quitting a processor.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Quit {
    /// It is not too many, or not any more: its machine keeps it.
    Lives,
    /// It is dead, and its machine has none.
    Dead,
    /// As [`super::Retired::Husk`].
    Husk,
}

impl Idle {
    /// Makes it `procs`, whose slots are in use; gives the number before. `None`: the runtime closes. The caller then
    /// looks at the queues, and wakes a machine if something waits.
    pub(crate) fn resize(&self, procs: u32, host: &'static impl Host) -> Option<u32> {
        let mut lists = self.lists.lock();
        if lists.closed {
            return None;
        }
        let before = self.procs();
        self.procs.store(procs, Relaxed);
        let mut sleepers = Vec::new();
        if procs < before {
            let (idle, too_many): (Vec<_>, Vec<_>) = lists.procs.drain(..).partition(|slot| *slot < procs);
            lists.procs = idle;
            // AcqRel: pairs with the CAS in `wake_one`.
            self.word.fetch_sub(IDLE * too_many.len() as u64, AcqRel);
            for slot in too_many {
                self.bury(&mut lists, slot, host);
            }
            for slot in procs..before {
                if !lists.dead[slot as usize] && host.dismiss(slot) {
                    self.bury(&mut lists, slot, host);
                }
            }
            // They look whether they are still needed.
            sleepers = lists.machines.clone();
        }
        for slot in (before..procs).rev() {
            if std::mem::take(&mut lists.dead[slot as usize]) {
                self.free_living(&mut lists, slot);
            }
        }
        drop(lists);
        for machine in sleepers {
            machine.parker.unpark();
        }
        idle_fence();
        Some(before)
    }

    /// So many slots are in use from here on, all made; the processors of the new ones are dead.
    pub(crate) fn add_slots(&self, slots: u32) {
        let mut lists = self.lists.lock();
        debug_assert!(slots >= self.slots());
        lists.dead.resize(slots as usize, true);
        // Release: pairs with the Acquire in `slots`.
        self.slots.store(slots, Release);
    }

    /// A machine was asked to quit the processor `slot` (invariant 2). If it is dead the caller looks at the queues.
    pub(crate) fn quit(&self, slot: u32, is_current: impl FnOnce() -> bool, host: &'static impl Host) -> Quit {
        let mut lists = self.lists.lock();
        if !is_current() {
            return Quit::Husk;
        }
        if !self.is_dying(&lists, slot) {
            return Quit::Lives;
        }
        self.bury(&mut lists, slot, host);
        drop(lists);
        idle_fence();
        Quit::Dead
    }

    /// Calls `f`, under the lock, if the processor `slot` is dead: nobody has it, and nobody gets it meanwhile.
    pub(crate) fn while_dead<R>(&self, slot: u32, f: impl FnOnce() -> R) -> Option<R> {
        let lists = self.lists.lock();
        lists.dead[slot as usize].then(f)
    }

    /// Whether the processor `slot`, which somebody has, is one too many. A runtime that closes buries nobody: shutdown
    /// looks at the queues one after another, and must not miss what moves.
    pub(super) fn is_dying(&self, lists: &Lists, slot: u32) -> bool {
        !lists.closed && slot >= self.procs()
    }

    /// Invariant 1.
    pub(super) fn bury(&self, lists: &mut MutexGuard<'_, Lists>, slot: u32, host: &'static impl Host) {
        debug_assert!(!lists.dead[slot as usize], "a processor died twice");
        lists.dead[slot as usize] = true;
        host.bury(slot);
    }
}
