//! Tasks that are known to hold their thread in each poll, because they block there or because they compute for long: a
//! machine does not poll such a task as others. Before one that blocks it gives its processor away, not when `sysmon`
//! finds the poll; one that computes it leaves to a thread of its own (see `lanes`).
//!
//! A task becomes a blocker when the others were rescued from a poll of it in which its thread was blocked. It stays
//! one while each further poll blocks for [`STILL_NS`], and about [`KNOWN_NS`] without being found to block: where
//! that was not its way, one poll costs a hand-off for nothing. A poll in which it says that it blocks, by
//! `block_in_place` or a `block_on`, says nothing of the rest. It is suspected when a machine that looks around after
//! each pick finds that one poll of it took long; the next poll of a suspect is measured, and one that computes for
//! long while others wait or may come becomes a burner. It stays one until its polls have not computed for
//! [`STILL_NS`] during [`SHORT_FOR_NS`]. Of a task that was never polled the place may be known where it was spawned
//! (see `places`).
//!
//! 1. What is known is a hint: entries are read without order, and where a set is full, one more is not known, unless
//!    one of them was not found to block for [`STAYS_NS`]. They are written under the lock of `polls`, and the filter
//!    with them: it has the bit of each that is known and no others, so a poll of one that is not mostly costs no more
//!    than a look at it. While any place is known it has all bits.
//! 2. Before a poll of a blocker the machine does to its own processor what a rescue does (see `stuck`), between two
//!    polls, under the scheduler lock: of it and `sysmon` one finds the processor to be the table's no more. From there
//!    on it polls on a husk.
//! 3. A poll that begins so is no processor's that is in the table, so `sysmon` finds it in the list here, and tells of
//!    it.
//! 4. Too many burners are none, for [`CROWDED_NS`] and more: of many that compute alike, some would have threads of
//!    their own and the others share the processors.

use std::panic::Location;
use std::time::Duration;

use super::Sched;
use super::known::{Known, Noted, bit};
use super::places::{Kind, Places};
use super::stuck::{BLOCKED_NS, StuckPoll, cpu_ns, thread_name};
use crate::blocking;
use crate::clock;
use crate::idle::HandedOff;
use crate::metrics::SharedCounter;
use crate::processor::{Polled, Processor};
use crate::sys::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use crate::sys::{Line, Mutex, rank, thread_id};
use crate::task::Id;

/// A known task whose thread was blocked for so long in a poll stays known, in nanoseconds, and so does one that used
/// so much CPU time.
pub(super) const STILL_NS: u64 = BLOCKED_NS / 2;

/// A task that was not found to block or to compute for so long, in nanoseconds, is not known any more.
const KNOWN_NS: u64 = 10_000_000_000;

/// After so long, in nanoseconds, it leaves its place to another one that needs it.
const STAYS_NS: u64 = 1_000_000_000;

/// For twice as long, in nanoseconds, nobody is suspected after a suspect was none, and twice as long each time, so
/// many times.
const TRUSTED_NS: u64 = 500_000;
const ACQUITTED_MAX: u32 = 8;

/// For so long, in nanoseconds, nobody is a burner after there were too many, and twice as long each time that there
/// are at once again.
const CROWDED_NS: u64 = 1_000_000_000;
const CROWDED_MAX_NS: u64 = 60_000_000_000;

/// A burner whose polls have been short for so long, in nanoseconds, is none any more: those of some are so in turn.
const SHORT_FOR_NS: u64 = 20_000_000;

/// A poll of a burner that lasts for so long, in nanoseconds, is told of, and counts as no lane's any more.
pub(super) const LASTS_NS: u64 = 10_000_000;

/// Why nobody is to be a burner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// There are too many.
    Crowded,
    /// No thread is to be had for a lane.
    NoThread,
    /// No lane comes to those that wait.
    Stalled,
}

/// Who is known, and who of them is being polled.
pub(crate) struct Blockers {
    /// A bit for each that is known, several may share one: what is asked before each poll.
    filter: Line<AtomicU64>,
    blocks: Known,
    burns: Known,
    suspects: Known,
    places: Places,
    /// How many suspects in a row were none, and until when nobody is suspected after that.
    acquitted: AtomicU32,
    trusted_until: AtomicU64,
    /// Until then nobody becomes a burner, and for how long then.
    crowded_until: AtomicU64,
    crowded_for: AtomicU64,
    polls: Mutex<Vec<Poll>>,
    /// Polls that gave their processor away before they began.
    pub(super) ahead: SharedCounter,
}

/// A poll that gave its processor away before it began.
struct Poll {
    polled: Polled,
    tid: i32,
    since: u64,
    /// It is told of if it lasts for so long, in nanoseconds.
    tell_after: u64,
    /// It was reported.
    told: bool,
}

impl Blockers {
    pub(crate) const fn new() -> Self {
        Blockers {
            filter: Line(AtomicU64::new(0)),
            blocks: Known::new(),
            burns: Known::new(),
            suspects: Known::new(),
            places: Places::new(),
            acquitted: AtomicU32::new(0),
            trusted_until: AtomicU64::new(0),
            crowded_until: AtomicU64::new(0),
            crowded_for: AtomicU64::new(0),
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

    pub(crate) fn blocks(&self, task: Id) -> bool {
        self.blocks.has(task)
    }

    pub(crate) fn burns(&self, task: Id) -> bool {
        self.burns.has(task)
    }

    pub(crate) fn suspects(&self, task: Id) -> bool {
        self.suspects.has(task)
    }

    /// Whether tasks of that kind compute for long.
    pub(super) fn burn_as(&self, kind: Kind) -> bool {
        self.places.has(kind)
    }

    /// A task of that kind is left to a lane. Tells whether it is the first one of a kind that is known.
    pub(super) fn tries(&self, kind: Kind, now: u64) -> bool {
        self.places.has(kind) && {
            let _polls = self.polls.lock();
            self.places.tries(kind, now)
        }
    }

    /// The others were rescued from a task that was spawned at `location` and computed.
    pub(crate) fn learn_place(&self, location: &'static Location<'static>, now: u64) {
        let _polls = self.polls.lock();
        self.places.learn(location, now);
        self.filter_again();
    }

    /// A poll of `task` took long.
    pub(super) fn suspect(&self, task: Id, now: u64) {
        let _polls = self.polls.lock();
        let may_be = now >= self.crowded_until.load(Relaxed).max(self.trusted_until.load(Relaxed));
        let may_be = may_be && !self.blocks.has(task) && !self.burns.has(task);
        if may_be && self.suspects.note(task, now, STAYS_NS) == Noted::Is {
            self.filter_again();
        }
    }

    /// A poll of the suspect `task` was measured. Where they have not computed their polls are long because the system
    /// stops the thread, or takes the CPU away, and to measure is a system call or two for each: that is tried more
    /// and more rarely.
    pub(super) fn acquit_or_not(&self, task: Id, now: u64, has_computed: bool) {
        let _polls = self.polls.lock();
        self.suspects.forget(|known, _| known == task.to_bits());
        self.filter_again();
        let acquitted = if has_computed { 0 } else { (self.acquitted.load(Relaxed) + 1).min(ACQUITTED_MAX) };
        self.acquitted.store(acquitted, Relaxed);
        self.trusted_until.store(if has_computed { 0 } else { now + (TRUSTED_NS << acquitted) }, Relaxed);
    }

    /// The others were rescued from `task`, whose thread was blocked.
    pub(crate) fn learn(&self, task: Id, now: u64) {
        let _polls = self.polls.lock();
        self.burns.forget(|known, _| known == task.to_bits());
        self.note(task, now);
        self.filter_again();
    }

    /// `task` has blocked. Under the lock.
    fn note(&self, task: Id, now: u64) {
        if self.blocks.note(task, now, STAYS_NS) == Noted::Is {
            self.filter_again();
        }
    }

    /// Others waited for `task`, which has computed for long. `false`: that makes more than `most`, or more than there
    /// is room for.
    pub(super) fn learn_burner(&self, task: Id, now: u64, most: usize) -> bool {
        let _polls = self.polls.lock();
        if now < self.crowded_until.load(Relaxed) || self.blocks.has(task) {
            return true;
        }
        let noted = self.burns.note(task, now, STAYS_NS);
        if noted == Noted::Is {
            self.filter_again();
        }
        noted != Noted::NoRoom && self.burns.count() <= most
    }

    /// Nobody is a burner for a while, which is longer each time. Not if their lanes have only stalled, perhaps because
    /// they get no CPU.
    pub(super) fn end_burners(&self, now: u64, why: Why) {
        let _polls = self.polls.lock();
        if why != Why::Crowded {
            self.places.bar(now);
            self.filter_again();
        }
        let until = self.crowded_until.load(Relaxed);
        if now < until {
            // Several have found it at once.
            return;
        }
        // The last time was just over, or long ago.
        let is_new = why == Why::Stalled || now.saturating_sub(until) >= CROWDED_NS;
        let last = if is_new { 0 } else { self.crowded_for.load(Relaxed) };
        let next = (2 * last).clamp(CROWDED_NS, CROWDED_MAX_NS);
        self.crowded_for.store(next, Relaxed);
        self.crowded_until.store(now + next, Relaxed);
        self.burns.forget(|_, _| true);
        self.suspects.forget(|_, _| true);
        self.filter_again();
    }

    /// A poll of a burner begins on this thread.
    pub(super) fn begin_burner(&self, polled: Polled) -> Begun {
        self.begin_and_tell_after(polled, LASTS_NS)
    }

    /// That poll of `task`, which is of that `kind`, is over. If it has spawned others it was not for its own
    /// sake that it was long. Then, and if it has ended, it is no burner any more. Tells whether those of its kind are
    /// like the others from here on.
    pub(super) fn end_burner(
        &self,
        (task, kind): (Id, Option<Kind>),
        begun: Begun,
        has_ended: bool,
        spawns: bool,
    ) -> bool {
        let now = clock::now();
        let used = begun.used().unwrap_or(now - begun.since);
        let mut polls = self.polls.lock();
        begun.leave(&mut polls);
        let acquits = kind.is_some_and(|kind| self.places.judge(kind, now, if spawns { 0 } else { used }));
        if acquits {
            self.filter_again();
        }
        self.judge_burner(task, now, if has_ended || spawns { None } else { Some(used) });
        acquits
    }

    /// A burner has used so much CPU time in a poll, in nanoseconds, or is to be none. Under the lock.
    fn judge_burner(&self, task: Id, now: u64, used: Option<u64>) {
        if used.is_some_and(|used| used >= STILL_NS) {
            if self.burns.has(task) {
                self.burns.note(task, now, STAYS_NS);
            }
            return;
        }
        let is_over = |at| used.is_none() || now.saturating_sub(at) >= SHORT_FOR_NS;
        self.burns.forget(|known, at| known == task.to_bits() && is_over(at));
        self.filter_again();
    }

    /// Under the lock.
    fn filter_again(&self) {
        let bits = self.blocks.bits() | self.burns.bits() | self.suspects.bits();
        self.filter.store(if self.places.is_any_known() { u64::MAX } else { bits }, Relaxed);
    }

    /// Forgets those who were not found to block or to compute for long.
    pub(crate) fn forget_old(&self, now: u64) {
        if self.filter.load(Relaxed) != 0 {
            let _polls = self.polls.lock();
            let is_over = |_, at| now.saturating_sub(at) >= KNOWN_NS;
            self.blocks.forget(is_over);
            self.burns.forget(is_over);
            self.suspects.forget(|_, at| now.saturating_sub(at) >= STAYS_NS);
            self.places.forget_old(now);
            self.filter_again();
        }
    }

    pub(crate) fn reset(&self) {
        self.ahead.reset();
        self.crowded_until.store(0, Relaxed);
        self.crowded_for.store(0, Relaxed);
        self.acquitted.store(0, Relaxed);
        self.trusted_until.store(0, Relaxed);
        let _polls = self.polls.lock();
        self.blocks.forget(|_, _| true);
        self.burns.forget(|_, _| true);
        self.suspects.forget(|_, _| true);
        self.places.reset();
        self.filter_again();
    }

    /// A poll of a task that is known begins on this thread.
    pub(crate) fn begin(&self, polled: Polled) -> Begun {
        self.begin_and_tell_after(polled, BLOCKED_NS)
    }

    fn begin_and_tell_after(&self, polled: Polled, tell_after: u64) -> Begun {
        let tid = thread_id();
        let since = clock::now();
        self.polls.lock().push(Poll { polled, tid, since, tell_after, told: false });
        Begun { tid, since, cpu: cpu_ns(tid) }
    }

    /// That poll of `task` is over. `is_whole`: all the while it held the processor that it began with.
    pub(crate) fn end(&self, task: Id, begun: Begun, is_whole: bool) {
        let now = clock::now();
        let blocked = (now - begun.since).saturating_sub(begun.used().unwrap_or(0));
        let mut polls = self.polls.lock();
        begun.leave(&mut polls);
        self.judge(task, now, is_whole.then_some(blocked));
    }

    /// A poll of `task` has ended that was blocked for so long, in nanoseconds, if that can be told. Under the lock.
    fn judge(&self, task: Id, now: u64, blocked: Option<u64>) {
        match blocked {
            Some(blocked) if blocked >= STILL_NS => self.note(task, now),
            Some(_) => {
                self.blocks.forget(|known, _| known == task.to_bits());
                self.filter_again();
            }
            // It is found again, or forgotten when it is not.
            None => {}
        }
    }

    /// Those polls that have lasted for long and were not told of. Each is one of so many that are stuck now, or was
    /// one a moment ago.
    pub(crate) fn untold(&self, now: u64, stuck_threads: usize) -> Vec<StuckPoll> {
        let mut polls = self.polls.lock();
        let late = polls.iter_mut().filter(|poll| !poll.told && now.saturating_sub(poll.since) >= poll.tell_after);
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
                StuckPoll::new(polled, (thread_name(tid), Duration::from_nanos(ns)), true, stuck_threads.max(1))
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

impl Begun {
    /// CPU time since then, in nanoseconds.
    fn used(&self) -> Option<u64> {
        Some(cpu_ns(self.tid)? - self.cpu?)
    }

    fn leave(&self, polls: &mut Vec<Poll>) {
        polls.retain(|poll| poll.tid != self.tid || poll.since != self.since);
    }
}

impl Sched {
    /// The processor that this machine holds goes to others before a poll, which then begins on a husk. `false`: as
    /// many threads are stuck as may be, or the processor is not the table's to give away.
    pub(crate) fn give_away_ahead(&'static self, p: &'static Processor) -> bool {
        // The poll may wait for it while nobody looks.
        debug_assert!(!blocking::keeps_a_closure(), "a poll begins with a closure kept");
        let (slot, limit) = (self.slot(p.index), self.max_stuck());
        let taken = self.idle.take_away(p.index, self, || {
            if !slot.is_current(p) || self.beside.threads() >= limit {
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
    use super::super::known::{SETS, WAYS};
    use super::*;
    use crate::processor::LONG_NS;

    fn is_asked_of(blockers: &Blockers, task: Id) -> bool {
        blockers.may_know(|| task) && blockers.blocks(task)
    }

    fn forget(blockers: &Blockers, task: Id) {
        blockers.judge(task, 0, Some(0));
    }

    /// The thread may have come back by the time it is told of.
    #[test]
    fn r03_a_poll_that_is_told_of_was_one_of_those_that_are_stuck() {
        let blockers = Blockers::new();
        let told = |stuck| {
            let begun = blockers.begin(Polled::BlockOn);
            let told = blockers.untold(u64::MAX, stuck);
            begun.leave(&mut blockers.polls.lock());
            told.into_iter().map(|poll| poll.stuck_threads).collect::<Vec<_>>()
        };
        assert_eq!((told(0), told(3)), (vec![1], vec![3]));
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
        assert!(!is_any_known() && !blockers.blocks(tasks[0]));
    }

    /// Each would cost those behind it a rescue, each time.
    #[test]
    fn r03_known_blockers_of_one_set_leave_each_other_there() {
        let blockers = Blockers::new();
        let first = Id::from_bits(1);
        let together = |task: &Id| std::ptr::eq(blockers.blocks.set(*task), blockers.blocks.set(first));
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
        assert!(!blockers.blocks(*left) && others.iter().all(|&task| is_asked_of(&blockers, task)));
        let later = 4 + STAYS_NS;
        others[1..].iter().chain([last]).for_each(|&task| blockers.learn(task, later));
        blockers.learn(*left, later);
        assert!(!blockers.blocks(others[0]));
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
    fn r03_who_has_not_computed_for_a_while_is_no_burner() {
        let (blockers, task) = (Blockers::new(), Id::from_bits(1));
        let is_burner = || blockers.may_know(|| task) && blockers.burns(task);
        assert!(blockers.learn_burner(task, 1, 1) && is_burner());
        blockers.judge_burner(task, SHORT_FOR_NS, Some(STILL_NS - 1));
        assert!(is_burner(), "others of its polls may be long");
        blockers.judge_burner(task, SHORT_FOR_NS, Some(STILL_NS));
        blockers.judge_burner(task, SHORT_FOR_NS + 1, Some(0));
        assert!(is_burner(), "as that one was");
        blockers.judge_burner(task, 2 * SHORT_FOR_NS, Some(STILL_NS - 1));
        assert!(!is_burner() && !blockers.may_know(|| task));
        assert!(blockers.learn_burner(task, 1, 1) && is_burner());
        blockers.judge_burner(task, 2, None);
        assert!(!is_burner(), "it has ended");
        // Who blocks is no burner, and is none later.
        assert!(blockers.learn_burner(task, 1, 1));
        blockers.learn(task, 1);
        assert!(!blockers.burns(task) && blockers.learn_burner(task, 1, 1) && !blockers.burns(task));
    }

    #[test]
    fn r03_who_is_suspected_is_measured_once() {
        let (blockers, task) = (Blockers::new(), Id::from_bits(1));
        let is_suspect = || blockers.may_know(|| task) && blockers.suspects(task);
        blockers.suspect(task, 1);
        assert!(is_suspect());
        blockers.acquit_or_not(task, 1, true);
        assert!(!is_suspect() && !blockers.may_know(|| task));
        // Who was none makes suspects rarer, and rarer each time.
        let mut now = 1;
        for k in (1..=ACQUITTED_MAX).chain([ACQUITTED_MAX]) {
            blockers.suspect(task, now);
            assert!(is_suspect());
            blockers.acquit_or_not(task, now, false);
            now += TRUSTED_NS << k;
            blockers.suspect(task, now - 1);
            assert!(!is_suspect());
        }
        blockers.suspect(task, now);
        blockers.acquit_or_not(task, now, true);
        // It may never be polled again.
        blockers.suspect(task, 1);
        blockers.forget_old(STAYS_NS);
        assert!(is_suspect());
        blockers.forget_old(STAYS_NS + 1);
        assert!(!is_suspect() && !blockers.may_know(|| task));
        // Of these more is known, or nobody may be one.
        blockers.learn(task, 1);
        blockers.suspect(task, 1);
        assert!(!is_suspect());
        forget(&blockers, task);
        assert!(blockers.learn_burner(task, 1, 1));
        blockers.suspect(task, 1);
        assert!(!is_suspect());
        blockers.end_burners(1, Why::Stalled);
        blockers.suspect(task, CROWDED_NS);
        assert!(!is_suspect());
        blockers.suspect(task, 1 + CROWDED_NS);
        assert!(is_suspect());
        blockers.reset();
        assert!(!is_suspect());
    }

    #[test]
    fn r03_too_many_burners_are_none_for_longer_each_time() {
        const MOST: usize = 3;
        let blockers = Blockers::new();
        blockers.reset();
        let learn = |n: usize, now| (1..=n as u64).all(|task| blockers.learn_burner(Id::from_bits(task), now, MOST));
        let are_any = || blockers.filter.load(Relaxed) != 0;
        let mut now = 1;
        for pause in [CROWDED_NS, 2 * CROWDED_NS, 4 * CROWDED_NS] {
            assert!(learn(MOST, now) && !learn(MOST + 1, now));
            blockers.end_burners(now, Why::Crowded);
            assert!(!are_any());
            assert!(learn(MOST + 1, now + pause - 1) && !are_any());
            now += pause;
        }
        blockers.end_burners(now, Why::Stalled);
        now += CROWDED_NS;
        assert!(learn(1, now) && are_any(), "they had only stalled");
        now += CROWDED_NS;
        blockers.end_burners(now, Why::Crowded);
        assert!(!are_any() && learn(1, now + CROWDED_NS) && are_any(), "it was long ago");
    }

    /// Any task may be of a place that is known. Burners that crowd each other say nothing of places.
    #[test]
    fn r03_all_are_asked_for_while_a_place_is_known() {
        let (blockers, at) = (Blockers::new(), Location::caller());
        let kind = Kind::new((at, 1));
        let all_are = || blockers.filter.load(Relaxed) == u64::MAX;
        let learn = |now| (0..2).for_each(|_| blockers.learn_place(at, now));
        learn(1);
        assert!(all_are() && blockers.burn_as(kind));
        blockers.end_burners(2, Why::Crowded);
        assert!(all_are() && blockers.burn_as(kind));
        // A poll that has gone on since the clock was first read.
        while clock::now() < LONG_NS {}
        let long = || Begun { since: 0, cpu: None, ..blockers.begin_burner(Polled::BlockOn) };
        let task = Id::from_bits(1);
        blockers.end_burner((task, Some(kind)), long(), true, false);
        assert!(all_are(), "it was long");
        blockers.end_burner((task, Some(kind)), long(), false, true);
        assert!(!blockers.burn_as(kind), "it has spawned others");
        for why in [Why::Stalled, Why::NoThread] {
            blockers.reset();
            learn(1);
            assert!(blockers.learn_burner(task, 1, 1));
            blockers.end_burners(2, why);
            assert!(!blockers.may_know(|| task) && !blockers.burn_as(kind));
        }
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
