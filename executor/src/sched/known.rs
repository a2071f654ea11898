//! Which tasks are known for something: a few, in sets that their ids name. What is known is a hint. It is written
//! under the lock of who has it (see `blockers`), and anybody reads it without order.

use crate::sys::atomic::{AtomicU64, Ordering::Relaxed};
use crate::task::Id;

/// So many tasks at most are known, in sets of so many.
pub(super) const WAYS: usize = 4;
pub(super) const SETS: usize = 16;

/// No task's id.
const NOBODY: u64 = 0;

pub(super) struct Known {
    /// Each in the set that its id names.
    entries: [[Entry; WAYS]; SETS],
}

pub(super) struct Entry {
    task: AtomicU64,
    /// When it last did what it is known for.
    at: AtomicU64,
}

/// What [`Known::note`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    WasKnown,
    /// It is now, and another one of its set perhaps no more.
    Is,
    NoRoom,
}

impl Known {
    pub(super) const fn new() -> Self {
        Known {
            entries: [const { [const { Entry { task: AtomicU64::new(NOBODY), at: AtomicU64::new(0) } }; WAYS] }; SETS],
        }
    }

    pub(super) fn has(&self, task: Id) -> bool {
        self.set(task).iter().any(|entry| entry.task.load(Relaxed) == task.to_bits())
    }

    /// `task` did it `now`. Where there is no room it takes the place of one that did not for `stays` nanoseconds.
    pub(super) fn note(&self, task: Id, now: u64, stays: u64) -> Noted {
        let set = self.set(task);
        let by = |number| set.iter().find(|entry| entry.task.load(Relaxed) == number);
        // Who still does it stays: of five that take turns each would else put out the next one.
        let is_over = |entry: &&Entry| now.saturating_sub(entry.at.load(Relaxed)) >= stays;
        let oldest = || set.iter().min_by_key(|entry| entry.at.load(Relaxed)).filter(is_over);
        let Some(entry) = by(task.to_bits()).or_else(|| by(NOBODY)).or_else(oldest) else { return Noted::NoRoom };
        entry.at.store(now, Relaxed);
        if entry.task.swap(task.to_bits(), Relaxed) == task.to_bits() { Noted::WasKnown } else { Noted::Is }
    }

    /// Those for whose number and time it is so are like the others.
    pub(super) fn forget(&self, is_over: impl Fn(u64, u64) -> bool) {
        for entry in self.entries.as_flattened() {
            let task = entry.task.load(Relaxed);
            if task != NOBODY && is_over(task, entry.at.load(Relaxed)) {
                entry.task.store(NOBODY, Relaxed);
            }
        }
    }

    /// How many are known.
    pub(super) fn count(&self) -> usize {
        self.entries.as_flattened().iter().filter(|entry| entry.task.load(Relaxed) != NOBODY).count()
    }

    /// The bits of all that are known.
    pub(super) fn bits(&self) -> u64 {
        let known = self.entries.as_flattened().iter().map(|entry| entry.task.load(Relaxed));
        known.filter(|task| *task != NOBODY).fold(0, |bits, task| bits | bit(task))
    }

    pub(super) fn set(&self, task: Id) -> &[Entry; WAYS] {
        &self.entries[(hash(task.to_bits()) >> 32) as usize % SETS]
    }
}

/// Fibonacci's hash: ids differ in their low bits, or in those that name where the task lies.
#[inline]
fn hash(task: u64) -> u64 {
    task.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The bit of a task in a filter.
#[inline]
pub(super) fn bit(task: u64) -> u64 {
    1 << (hash(task) >> 58)
}
