//! Tasks that are known to block: a machine gives its processor away before it polls one, not when `sysmon` finds the
//! poll.
//!
//! A task becomes a blocker when the others were rescued from a poll of it in which its thread was blocked. It stays
//! one while each further poll blocks for [`STILL_NS`], and no longer than [`KNOWN_NS`] without being polled: where
//! that was not its way, one poll costs a hand-off for nothing.
//!
//! 1. What is known is a hint: entries are read and written without order, and one task may push another's entry out.
//! 2. The machine does to its own processor what a rescue does (see `stuck`), between two polls, under the scheduler
//!    lock: of it and `sysmon` one finds the processor to be the table's no more. From there on it polls on a husk.
//! 3. A poll that begins so is no processor's that is in the table, so `sysmon` finds it in the list here, and tells of
//!    it.

use std::time::Duration;

use super::Sched;
use super::stuck::{BLOCKED_NS, StuckPoll, cpu_ns, thread_name};
use crate::blocking;
use crate::clock;
use crate::idle::HandedOff;
use crate::metrics::SharedCounter;
use crate::processor::{Polled, Processor};
use crate::sys::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use crate::sys::{Line, Mutex, rank, thread_id};
use crate::task::Id;

/// A known task whose thread was blocked for so long in a poll stays known, in nanoseconds.
const STILL_NS: u64 = BLOCKED_NS / 2;

/// A task that was not polled for so long, in nanoseconds, is not known any more.
const KNOWN_NS: u64 = 10_000_000_000;

/// So many tasks at most are known.
const KNOWN_MAX: usize = 64;

/// No task's id.
const NOBODY: u64 = 0;

/// Who is known, and who of them is being polled.
pub(crate) struct Blockers {
    /// How many are known: what is asked before each poll.
    count: Line<AtomicU32>,
    /// Each in the entry that its id names.
    known: [Entry; KNOWN_MAX],
    polls: Mutex<Vec<Poll>>,
    /// Polls that gave their processor away before they began.
    pub(super) ahead: SharedCounter,
}

struct Entry {
    task: AtomicU64,
    /// When it was last found to block.
    at: AtomicU64,
}

/// A poll that gave its processor away before it began.
struct Poll {
    polled: Polled,
    tid: i32,
    since: u64,
    /// It was reported.
    told: bool,
}

impl Blockers {
    pub(crate) const fn new() -> Self {
        Blockers {
            count: Line(AtomicU32::new(0)),
            known: [const { Entry { task: AtomicU64::new(NOBODY), at: AtomicU64::new(0) } }; KNOWN_MAX],
            polls: Mutex::new(rank::LEAF, Vec::new()),
            ahead: SharedCounter::new(),
        }
    }

    /// Whether any task is known.
    #[inline]
    pub(crate) fn are_there(&self) -> bool {
        self.count.load(Relaxed) != 0
    }

    pub(crate) fn is_known(&self, task: Id) -> bool {
        self.entry(task).task.load(Relaxed) == task.to_bits()
    }

    /// The others were rescued from `task`, whose thread was blocked, or it has blocked again.
    pub(crate) fn learn(&self, task: Id, now: u64) {
        let entry = self.entry(task);
        entry.at.store(now, Relaxed);
        if entry.task.swap(task.to_bits(), Relaxed) == NOBODY {
            self.count.fetch_add(1, Relaxed);
        }
    }

    /// `task` is like the others.
    fn forget(&self, task: Id) {
        self.clear(self.entry(task), task.to_bits());
    }

    /// Forgets those who were not polled for long.
    pub(crate) fn forget_old(&self, now: u64) {
        if !self.are_there() {
            return;
        }
        for entry in &self.known {
            if now.saturating_sub(entry.at.load(Relaxed)) >= KNOWN_NS {
                self.clear(entry, entry.task.load(Relaxed));
            }
        }
    }

    fn clear(&self, entry: &Entry, task: u64) {
        if task != NOBODY && entry.task.compare_exchange(task, NOBODY, Relaxed, Relaxed).is_ok() {
            self.count.fetch_sub(1, Relaxed);
        }
    }

    pub(crate) fn reset(&self) {
        self.ahead.reset();
        for entry in &self.known {
            self.clear(entry, entry.task.load(Relaxed));
        }
    }

    fn entry(&self, task: Id) -> &Entry {
        // Fibonacci's hash: ids differ in their low bits, or in those that name where the task lies.
        let hash = task.to_bits().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.known[(hash >> 32) as usize % KNOWN_MAX]
    }

    /// A poll of a task that is known begins on this thread.
    pub(crate) fn begin(&self, polled: Polled) -> Begun {
        let tid = thread_id();
        let since = clock::now();
        self.polls.lock().push(Poll { polled, tid, since, told: false });
        Begun { tid, since, cpu: cpu_ns(tid) }
    }

    /// That poll of `task` is over.
    pub(crate) fn end(&self, task: Id, begun: Begun) {
        let now = clock::now();
        let used = match (begun.cpu, cpu_ns(begun.tid)) {
            (Some(before), Some(now)) => now - before,
            _ => 0,
        };
        if (now - begun.since).saturating_sub(used) >= STILL_NS {
            self.learn(task, now);
        } else {
            self.forget(task);
        }
        self.polls.lock().retain(|poll| poll.tid != begun.tid || poll.since != begun.since);
    }

    /// Those polls that have lasted for long and were not told of.
    pub(crate) fn untold(&self, now: u64, stuck_threads: usize) -> Vec<StuckPoll> {
        let mut polls = self.polls.lock();
        let late = polls.iter_mut().filter(|poll| !poll.told && now.saturating_sub(poll.since) >= BLOCKED_NS);
        let late: Vec<_> = late
            .map(|poll| {
                poll.told = true;
                (poll.polled, poll.tid, now - poll.since)
            })
            .collect();
        // The name of a thread is read from a file, and each poll of a known task takes this lock.
        drop(polls);
        late.into_iter()
            .map(|(polled, tid, ns)| {
                StuckPoll::new(polled, (thread_name(tid), Duration::from_nanos(ns)), true, stuck_threads)
            })
            .collect()
    }
}

/// When a poll began.
pub(crate) struct Begun {
    tid: i32,
    since: u64,
    /// CPU time of its thread; `None` where the system does not tell.
    cpu: Option<u64>,
}

impl Sched {
    /// The processor that this machine holds goes to others before a poll, which then begins on a husk. `false`: as
    /// many threads are stuck as may be, or the processor is not the table's to give away.
    pub(crate) fn give_away_ahead(&'static self, p: &'static Processor) -> bool {
        // The poll may wait for it while nobody looks.
        debug_assert!(!blocking::keeps_a_closure(), "a poll begins with a closure kept");
        let (slot, limit) = (self.slot(p.index), self.max_stuck());
        let taken = self.idle.take_away(p.index, self, || {
            if !slot.is_current(p) || self.stuck_threads() >= limit {
                return None;
            }
            self.blockers.ahead.add(1);
            Some(self.strip(p).1)
        });
        match taken {
            None => return false,
            Some(HandedOff::Idle) => self.left_idle(),
            Some(_) => {}
        }
        true
    }
}

#[cfg(all(test, not(gmp_loom)))]
mod tests {
    use super::*;

    /// Else each poll would pay for the question.
    #[test]
    fn r03_nobody_is_known_when_all_are_forgotten() {
        let blockers = Blockers::new();
        blockers.reset();
        assert!(!blockers.are_there());
        // More than there is room for: some push others out.
        let tasks: Vec<_> = (1..=2 * KNOWN_MAX as u64).map(Id::from_bits).collect();
        tasks.iter().for_each(|&task| blockers.learn(task, 0));
        assert!(blockers.are_there() && tasks.iter().any(|&task| blockers.is_known(task)));
        tasks.iter().for_each(|&task| blockers.forget(task));
        tasks.iter().for_each(|&task| blockers.forget(task));
        assert!(!blockers.are_there());
        blockers.learn(tasks[0], 1);
        blockers.forget_old(KNOWN_NS);
        assert!(blockers.are_there());
        blockers.forget_old(KNOWN_NS + 1);
        assert!(!blockers.are_there());
        blockers.learn(tasks[0], 1);
        blockers.reset();
        assert!(!blockers.are_there() && !blockers.is_known(tasks[0]));
    }
}
