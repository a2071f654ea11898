//! Tasks that are known to block: a machine gives its processor away before it polls one, not when `sysmon` finds the
//! poll.
//!
//! A task becomes a blocker when the others were rescued from a poll of it in which its thread was blocked. It stays
//! one while each further poll blocks for [`STILL_NS`], and about [`KNOWN_NS`] without being found to block: where
//! that was not its way, one poll costs a hand-off for nothing. A poll in which it says that it blocks, by
//! `block_in_place` or a `block_on`, says nothing of the rest.
//!
//! 1. What is known is a hint: entries are read without order, and where [`WAYS`] tasks share a set, one more is not
//!    known, unless one of them was not found to block for [`STAYS_NS`]. They are written under the lock of `polls`,
//!    and the filter with them: it has the bit of each that is known and no others, so a poll of one that is not mostly
//!    costs no more than a look at it.
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
use crate::sys::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sys::{Line, Mutex, rank, thread_id};
use crate::task::Id;

/// A known task whose thread was blocked for so long in a poll stays known, in nanoseconds.
const STILL_NS: u64 = BLOCKED_NS / 2;

/// A task that was not found to block for so long, in nanoseconds, is not known any more.
const KNOWN_NS: u64 = 10_000_000_000;

/// After so long, in nanoseconds, it leaves its place to another one that needs it.
const STAYS_NS: u64 = 1_000_000_000;

/// So many tasks at most are known, in sets of so many.
const WAYS: usize = 4;
const SETS: usize = 16;

/// No task's id.
const NOBODY: u64 = 0;

/// Who is known, and who of them is being polled.
pub(crate) struct Blockers {
    /// A bit for each that is known, several may share one: what is asked before each poll.
    filter: Line<AtomicU64>,
    /// Each in the set that its id names.
    known: [[Entry; WAYS]; SETS],
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
            filter: Line(AtomicU64::new(0)),
            known: [const { [const { Entry { task: AtomicU64::new(NOBODY), at: AtomicU64::new(0) } }; WAYS] }; SETS],
            polls: Mutex::new(rank::LEAF, Vec::new()),
            ahead: SharedCounter::new(),
        }
    }

    /// Whether the task may be known; it is asked for its id only if any is.
    #[inline]
    pub(crate) fn may_know(&self, task: impl FnOnce() -> Id) -> bool {
        // Two loads: a comparison with memory is an instruction less in the poll of every task.
        self.filter.load(Relaxed) != 0 && self.filter.load(Relaxed) & bit(task().to_bits()) != 0
    }

    pub(crate) fn is_known(&self, task: Id) -> bool {
        self.set(task).iter().any(|entry| entry.task.load(Relaxed) == task.to_bits())
    }

    /// The others were rescued from `task`, whose thread was blocked.
    pub(crate) fn learn(&self, task: Id, now: u64) {
        let _polls = self.polls.lock();
        self.note(task, now);
    }

    /// `task` has blocked. Under the lock.
    fn note(&self, task: Id, now: u64) {
        let set = self.set(task);
        let by = |number| set.iter().find(|entry| entry.task.load(Relaxed) == number);
        // Who is found to block stays: of five that take turns each would else put out the next one.
        let is_over = |entry: &&Entry| now.saturating_sub(entry.at.load(Relaxed)) >= STAYS_NS;
        let oldest = || set.iter().min_by_key(|entry| entry.at.load(Relaxed)).filter(is_over);
        let Some(entry) = by(task.to_bits()).or_else(|| by(NOBODY)).or_else(oldest) else { return };
        entry.at.store(now, Relaxed);
        if entry.task.swap(task.to_bits(), Relaxed) != task.to_bits() {
            self.filter_again();
        }
    }

    /// Those for whom it is so are like the others. Under the lock.
    fn forget(&self, is_over: impl Fn(&Entry) -> bool) {
        for entry in self.known.as_flattened() {
            if entry.task.load(Relaxed) != NOBODY && is_over(entry) {
                entry.task.store(NOBODY, Relaxed);
            }
        }
        self.filter_again();
    }

    /// Under the lock.
    fn filter_again(&self) {
        let known = self.known.as_flattened().iter().map(|entry| entry.task.load(Relaxed));
        let filter = known.filter(|task| *task != NOBODY).fold(0, |filter, task| filter | bit(task));
        self.filter.store(filter, Relaxed);
    }

    /// Forgets those who were not found to block for long.
    pub(crate) fn forget_old(&self, now: u64) {
        if self.filter.load(Relaxed) != 0 {
            let _polls = self.polls.lock();
            self.forget(|entry| now.saturating_sub(entry.at.load(Relaxed)) >= KNOWN_NS);
        }
    }

    pub(crate) fn reset(&self) {
        self.ahead.reset();
        let _polls = self.polls.lock();
        self.forget(|_| true);
    }

    fn set(&self, task: Id) -> &[Entry; WAYS] {
        &self.known[(hash(task.to_bits()) >> 32) as usize % SETS]
    }

    /// A poll of a task that is known begins on this thread.
    pub(crate) fn begin(&self, polled: Polled) -> Begun {
        let tid = thread_id();
        let since = clock::now();
        self.polls.lock().push(Poll { polled, tid, since, told: false });
        Begun { tid, since, cpu: cpu_ns(tid) }
    }

    /// That poll of `task` is over. `is_whole`: all the while it held the processor that it began with.
    pub(crate) fn end(&self, task: Id, begun: Begun, is_whole: bool) {
        let now = clock::now();
        let used = match (begun.cpu, cpu_ns(begun.tid)) {
            (Some(before), Some(now)) => now - before,
            _ => 0,
        };
        let blocked = (now - begun.since).saturating_sub(used);
        let mut polls = self.polls.lock();
        polls.retain(|poll| poll.tid != begun.tid || poll.since != begun.since);
        self.judge(task, now, is_whole.then_some(blocked));
    }

    /// A poll of `task` has ended that was blocked for so long, in nanoseconds, if that can be told. Under the lock.
    fn judge(&self, task: Id, now: u64, blocked: Option<u64>) {
        match blocked {
            Some(blocked) if blocked >= STILL_NS => self.note(task, now),
            Some(_) => self.forget(|entry| entry.task.load(Relaxed) == task.to_bits()),
            // It is found again, or forgotten when it is not.
            None => {}
        }
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

/// Fibonacci's hash: ids differ in their low bits, or in those that name where the task lies.
#[inline]
fn hash(task: u64) -> u64 {
    task.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The bit of a task in the filter.
#[inline]
fn bit(task: u64) -> u64 {
    1 << (hash(task) >> 58)
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

    fn is_asked_of(blockers: &Blockers, task: Id) -> bool {
        blockers.may_know(|| task) && blockers.is_known(task)
    }

    fn forget(blockers: &Blockers, task: Id) {
        blockers.judge(task, 0, Some(0));
    }

    /// Else each poll would pay for the question.
    #[test]
    fn r03_nobody_is_known_when_all_are_forgotten() {
        let blockers = Blockers::new();
        blockers.reset();
        let is_any_known = || blockers.may_know(|| Id::from_bits(1)) || blockers.filter.load(Relaxed) != 0;
        assert!(!is_any_known());
        // More than there is room for: some push others out.
        let tasks: Vec<_> = (1..=2 * (SETS * WAYS) as u64).map(Id::from_bits).collect();
        tasks.iter().for_each(|&task| blockers.learn(task, 0));
        assert!(tasks.iter().any(|&task| is_asked_of(&blockers, task)));
        tasks.iter().for_each(|&task| forget(&blockers, task));
        tasks.iter().for_each(|&task| forget(&blockers, task));
        assert!(!is_any_known());
        blockers.learn(tasks[0], 1);
        blockers.forget_old(KNOWN_NS);
        assert!(is_asked_of(&blockers, tasks[0]));
        blockers.forget_old(KNOWN_NS + 1);
        assert!(!is_any_known());
        blockers.learn(tasks[0], 1);
        blockers.reset();
        assert!(!is_any_known() && !blockers.is_known(tasks[0]));
    }

    /// Each would cost those behind it a rescue, each time.
    #[test]
    fn r03_known_blockers_of_one_set_leave_each_other_there() {
        let blockers = Blockers::new();
        let first = Id::from_bits(1);
        let together = |task: &Id| std::ptr::eq(blockers.set(*task), blockers.set(first));
        let tasks: Vec<_> = (1..).map(Id::from_bits).filter(together).take(WAYS + 1).collect();
        let (last, tasks) = tasks.split_last().unwrap();
        for now in 1..4 {
            tasks.iter().for_each(|&task| blockers.learn(task, now));
            assert!(tasks.iter().all(|&task| is_asked_of(&blockers, task)));
        }
        // A place that is free goes first, whoever had it.
        let (left, others) = tasks.split_last().unwrap();
        blockers.learn(*left, 9);
        forget(&blockers, *left);
        blockers.learn(*last, 4);
        assert!(others.iter().chain([last]).all(|&task| is_asked_of(&blockers, task)));
        // One is too many: it is not known, until one of the others was not found to block for long.
        others.iter().for_each(|&task| blockers.learn(task, 4));
        blockers.learn(*left, 4);
        assert!(!blockers.is_known(*left) && others.iter().all(|&task| is_asked_of(&blockers, task)));
        let later = 4 + STAYS_NS;
        others[1..].iter().chain([last]).for_each(|&task| blockers.learn(task, later));
        blockers.learn(*left, later);
        assert!(!blockers.is_known(others[0]));
        assert!(others[1..].iter().chain([left, last]).all(|&task| is_asked_of(&blockers, task)));
        // Of those who share a bit one stays known when another is forgotten.
        let bits = |task: &Id| bit(task.to_bits()) == bit(first.to_bits());
        let two: Vec<_> = (1..).map(Id::from_bits).filter(bits).take(2).collect();
        two.iter().for_each(|&task| blockers.learn(task, later + STAYS_NS));
        assert!(two.iter().all(|&task| is_asked_of(&blockers, task)));
        forget(&blockers, two[0]);
        assert!(is_asked_of(&blockers, two[1]));
    }

    #[test]
    fn r03_a_poll_that_said_that_it_blocks_teaches_nothing() {
        let (blockers, task) = (Blockers::new(), Id::from_bits(1));
        blockers.learn(task, 1);
        blockers.judge(task, KNOWN_NS, None);
        assert!(is_asked_of(&blockers, task));
        blockers.forget_old(KNOWN_NS + 1);
        assert!(!is_asked_of(&blockers, task));
        blockers.learn(task, 1);
        blockers.judge(task, KNOWN_NS, Some(STILL_NS));
        blockers.forget_old(KNOWN_NS + 1);
        assert!(is_asked_of(&blockers, task));
        blockers.judge(task, KNOWN_NS, Some(STILL_NS - 1));
        assert!(!is_asked_of(&blockers, task));
    }
}
