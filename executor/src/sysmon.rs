//! The watcher: a thread without a processor that mends what workers cannot see (Go: `sysmon`).
//!
//! At each look, in order: a netpoller that nobody looked at for 10 ms; processors, one by one, for a time slice that
//! goes on too long, for a poll that is stuck or a blocking call before work, and for work behind a long poll, or
//! several, beside an idle processor; machines that have wanted one for long while no more threads may be stuck;
//! sockets or due timers that no machine attends; closures that are kept, or whose threads are slow to come, and
//! threads of any kind that could not be started; once a second, and first of all after deep sleep, how many processors
//! there are to be (beside tasks that are so short and rare that nothing wakes it, once in ten seconds), and also
//! before deep sleep, memory that no machine comes to; the schedtrace line.
//!
//! | state of the runtime                        | next look in |
//! |---------------------------------------------|--------------|
//! | a processor is off the idle list            | 5 ms         |
//! | `sysmon` acted less than a second ago       | 1 ms         |
//! | it rescued tasks from a poll that was blocked, less than 100 ms ago | 1 ms |
//! | blocking closures run on processors         | 1 ms         |
//! | work waits behind a thread that is blocked   | 100 µs, at most 50 times in a row |
//! | a timer will, before the next of these looks | when that is due |
//! | tasks were just rescued                     | 100 µs, four times |
//! | all processors idle at 20 looks in a row    | it sleeps on its alarm, which the first one that is taken off the idle list sets |
//! | the same at the first after it was woken, and it has not acted for a second | it sleeps again: what woke it took less than a look |
//! | the same, and it may be or become a deadlock | 100 ms, until that is known, if the runtime looks for deadlocks |
//!
//! 1. It holds no processor and runs no task, and no waker while there is a thread for it: some are the user's and may
//!    block. What it finds in the netpoller goes to the pool of threads without a processor (see `blocking`).
//! 2. It sleeps deeply only if every processor is idle, which it decides under the scheduler lock.

use std::collections::HashMap;
use std::panic::Location;
use std::task::Waker;
use std::time::Duration;

use self::alarm::Alarm;
use crate::clock::{self, NEVER};
use crate::duty::{self, Watcher};
use crate::metrics::{Metrics, SharedCounter};
use crate::park::Parker;
use crate::processor::{Polled, Processor, QUIT, SLICE_OVER};
use crate::sched::Sched;
use crate::sched::deadlock::DeadlockWatch;
use crate::sched::stuck::{StuckIn, StuckPoll, Suspect, Verdict};
use crate::sys::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sys::{submit_fence, try_print_error};
use crate::task::swallow;
use crate::trace;

mod alarm;

/// Between two looks while something runs.
const LOOK: Duration = Duration::from_millis(5);
/// Between two looks for [`ACTED`] after it did something.
const LOOK_AFTER_ACT: Duration = Duration::from_millis(1);
const ACTED_NS: u64 = 1_000_000_000;
/// The same after it rescued tasks from a poll that was blocked, whose task is known from then on: others may block
/// next.
const LEARNT_NS: u64 = 100_000_000;
/// Between two looks while work waits behind a thread that is blocked, and how many of them come in a row.
const LOOK_STILL: Duration = Duration::from_micros(100);
const LOOKS_STILL: u32 = 50;
/// So many of them follow a rescue: the next task on that processor may be one that blocks, too.
const LOOKS_AFTER_RESCUE: u32 = 4;
/// If all was idle for so long, its alarm is stopped when all is idle again; else it goes off, which is one wake for
/// what may be many tasks.
const RARE_NS: u64 = 100_000_000;
/// It is not stopped if `sysmon` has not looked for so long: how many CPUs there are may have changed.
const UNSEEN_NS: u64 = 10_000_000_000;
/// So many looks with everything idle, then it sleeps.
const LOOKS_IDLE: u32 = 20;
/// So many if they were idle at each look since it was woken: a task that ticks once a second does not keep it awake.
const LOOKS_BRIEF: u32 = 1;
/// When it has slept deeply it looks how many CPUs there are, unless it did so short ago.
pub(crate) const REFRESH_WOKEN_NS: u64 = 50_000_000;
/// A netpoller that nobody looked at for so long is looked at.
const NETPOLL_NS: u64 = 10_000_000;
/// A netpoller that nobody sits in, and that nobody came out of for so long, gets a machine if a processor is idle. Who
/// just came out of it runs what it brought and goes back.
const UNATTENDED_NS: u64 = 500_000;
/// Between two looks at how many CPUs there are.
const REFRESH_NS: u64 = 1_000_000_000;
/// A time slice (Go: `forcePreemptNS`).
const SLICE_NS: u64 = 10_000_000;
/// Between two lines about stuck polls of tasks that were spawned in one place.
const WARN_NS: u64 = 60_000_000_000;

/// What others know of `sysmon`.
pub(crate) struct Sysmon {
    parker: Parker,
    /// What it sleeps on deeply, if the system gives one.
    alarm: Alarm,
    /// Until when more may come of what it last did; 0 if it did nothing.
    wary_until: AtomicU64,
    /// When it last began a look.
    looked_at: AtomicU64,
    /// Since when all is idle, if it sleeps on its alarm. Guarded by the scheduler lock, but for the store before that.
    idle_since: AtomicU64,
    watcher: Watcher,
    /// It looks at the netpoller, and wakes what that brings.
    delivering: AtomicBool,
    /// The runtime closes.
    ended: AtomicBool,
    looks: SharedCounter,
    flags: SharedCounter,
    wakes: SharedCounter,
    /// These three are counted before what they count can be seen.
    pub(crate) rescues: SharedCounter,
    pub(crate) retakes: SharedCounter,
    pub(crate) releases: SharedCounter,
    netpolls: SharedCounter,
    /// Looks at how many CPUs there are.
    refreshes: SharedCounter,
}

/// What the looks have seen of one slot.
#[derive(Clone, Default)]
struct Seen {
    schedtick: u64,
    /// When this `schedtick` was first seen.
    since: u64,
    polls: u32,
    /// The poll that the processor was in at the last look.
    suspect: Option<Suspect>,
    /// The blocking call that it was in, by its status.
    blocking: Option<u32>,
    /// Blocking closures that had run on the processor.
    brief_closures: u64,
}

/// What came of a look.
#[derive(Default)]
struct Looked {
    /// `sysmon` did something else than to rescue tasks from a poll that is blocked.
    acted: bool,
    /// There is work that nobody does.
    waiting: bool,
    /// Work waits behind a thread that is blocked: in `block_in_place`, in a closure, or in a poll.
    still: bool,
    /// The next timer, which is due in so many nanoseconds, will wait behind a thread that is blocked in a poll.
    due_in: Option<u64>,
    rescued: bool,
    /// Blocking closures ran on processors since the last look.
    brief_closures: bool,
}

impl Looked {
    /// Until the next look, if `sysmon` acted lately or not, and so many looks in a row met threads that are blocked.
    fn next_in(&self, lately: bool, looks_still: u32) -> Duration {
        let look = match lately || self.brief_closures {
            _ if (1..=LOOKS_STILL).contains(&looks_still) => LOOK_STILL,
            true => LOOK_AFTER_ACT,
            false => LOOK,
        };
        self.due_in.map_or(look, |ns| look.min(Duration::from_nanos(ns)))
    }
}

impl Sysmon {
    pub(crate) const fn new() -> Self {
        Sysmon {
            parker: Parker::new(),
            alarm: Alarm::new(),
            wary_until: AtomicU64::new(0),
            looked_at: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            watcher: Watcher::new(),
            delivering: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            looks: SharedCounter::new(),
            flags: SharedCounter::new(),
            wakes: SharedCounter::new(),
            rescues: SharedCounter::new(),
            retakes: SharedCounter::new(),
            releases: SharedCounter::new(),
            netpolls: SharedCounter::new(),
            refreshes: SharedCounter::new(),
        }
    }

    pub(crate) fn reset(&self) {
        self.watcher.reset();
        self.ended.store(false, Relaxed);
        self.wary_until.store(0, Relaxed);
        self.looked_at.store(0, Relaxed);
        let Sysmon {
            parker: _,
            alarm: _,
            wary_until: _,
            looked_at: _,
            idle_since: _,
            watcher: _,
            delivering: _,
            ended: _,
            looks,
            flags,
            wakes,
            rescues,
            retakes,
            releases,
            netpolls,
            refreshes,
        } = self;
        [looks, flags, wakes, rescues, retakes, releases, netpolls, refreshes]
            .into_iter()
            .for_each(SharedCounter::reset);
    }

    /// Whether its thread is there, or on its way for sure.
    #[inline]
    pub(crate) fn is_started(&self) -> bool {
        self.watcher.is_there()
    }

    /// Whether its thread is being started, which the system may refuse.
    pub(crate) fn is_coming(&self) -> bool {
        self.watcher.is_coming()
    }

    /// So long whoever sleeps does so before it tries to start it once more.
    pub(crate) fn retries_in(&self) -> Duration {
        self.watcher.retries_in(clock::now())
    }

    /// Whether it holds wakers that it took out of the netpoller, or is about to.
    pub(crate) fn is_delivering(&self) -> bool {
        // Acquire: pairs with the Release in `deliver`: if it has done, what it woke is in the queues.
        self.delivering.load(Acquire)
    }

    /// Wakes it from its sleep, deep or not.
    pub(crate) fn wake(&self) {
        self.parker.unpark();
        self.alarm.ring();
    }

    /// See [`Host::set_alarm`](crate::idle::Host::set_alarm).
    pub(crate) fn set_alarm(&self) -> bool {
        let now = clock::now();
        self.alarm.set(if self.acted_lately(now) { LOOK_AFTER_ACT } else { LOOK });
        self.may_stop_alarm(now)
    }

    /// Whether the alarm, set `now`, may be stopped before it goes off.
    fn may_stop_alarm(&self, now: u64) -> bool {
        let for_ns = |at: &AtomicU64| now.saturating_sub(at.load(Relaxed));
        for_ns(&self.idle_since) >= RARE_NS && for_ns(&self.looked_at) < UNSEEN_NS
    }

    /// See [`Host::stop_alarm`](crate::idle::Host::stop_alarm).
    pub(crate) fn stop_alarm(&self) {
        self.idle_since.store(clock::now(), Relaxed);
        self.alarm.stop();
    }

    /// Whether it did something short ago: more of that kind may come.
    fn acted_lately(&self, now: u64) -> bool {
        now < self.wary_until.load(Relaxed)
    }

    /// It did something just now of which more may come for so long.
    fn is_wary_for(&self, ns: u64) {
        let until = (clock::now() + ns).max(self.wary_until.load(Relaxed));
        self.wary_until.store(until, Relaxed);
    }

    /// Tells it to end.
    pub(crate) fn end(&self) {
        // Release: pairs with the Acquire in `watch`.
        self.ended.store(true, Release);
        self.wake();
    }

    /// It has ended, or never was.
    pub(crate) fn close(&self) {
        self.alarm.close();
    }

    pub(crate) fn count_into(&self, metrics: &mut Metrics) {
        metrics.sysmon_looks = self.looks.get();
        metrics.sysmon_flags = self.flags.get();
        metrics.sysmon_wakes = self.wakes.get();
        metrics.rescues = self.rescues.get();
        metrics.retakes = self.retakes.get();
        metrics.releases = self.releases.get();
        metrics.sysmon_netpolls = self.netpolls.get();
        metrics.procs_refreshes = self.refreshes.get();
    }

    /// A look at how many CPUs there are.
    pub(crate) fn count_refresh(&self) {
        self.refreshes.add(1);
    }
}

impl Sched {
    /// Gets the alarm. With the runtime and not when it first sleeps: a program that counts its fds is to find as many
    /// later.
    pub(crate) fn sysmon_prepare(&self) {
        if !self.detects() {
            self.sysmon.alarm.open();
        }
    }

    /// Starts `sysmon` if it does not run yet and nobody else has the duty: before the first processor is used.
    #[inline]
    pub(crate) fn sysmon_start_if_anyones(&'static self) {
        if !self.sysmon.is_started() && !self.duty.is_kept() {
            self.sysmon_start_once();
        }
    }

    /// So long a thread of this runtime sleeps at most before it starts `sysmon`, or tries to again; `None` if that
    /// runs.
    pub(crate) fn unwatched_for(&self) -> Option<Duration> {
        if self.sysmon.is_started() {
            None
        } else if self.duty.is_kept() {
            Some(duty::PATIENCE)
        } else {
            Some(self.sysmon.retries_in())
        }
    }

    /// Starts `sysmon` if somebody has the duty: a machine that has it may be this one.
    #[inline]
    pub(crate) fn sysmon_start_if_owed(&'static self) {
        if self.duty.is_kept() {
            self.sysmon_start();
        }
    }

    /// Starts `sysmon` if it does not run yet, whoever has the duty.
    #[inline]
    pub(crate) fn sysmon_start(&'static self) {
        if !self.sysmon.is_started() {
            self.sysmon_start_once();
        }
    }

    #[cold]
    fn sysmon_start_once(&'static self) {
        if !self.sysmon.watcher.starts() {
            return;
        }
        // If it fails, whoever takes a processor next tries again, and whoever sleeps.
        self.duty.is_done();
        let started = self.threads.spawn(self, "sysmon", false, move || self.watch());
        self.sysmon.watcher.was_started(started.is_ok(), clock::now());
    }

    fn watch(&'static self) {
        // The first task may have blocked before this thread was there.
        let mut seen = self.first_sight();
        let (mut refresh, mut refreshed_at) = (false, clock::now());
        // Once a second, and before it sleeps deeply: whether there is memory that only it comes to.
        let mut collects = false;
        let mut ready = Vec::new();
        let mut warned = HashMap::new();
        let mut trace = trace::Schedtrace::new(self);
        let mut deadlock = DeadlockWatch::new(self);
        let (mut looks_idle, mut looks_still, mut after_rescue) = (0, 0, 0);
        // Whether it was woken just now, and whether there was anything to watch at a look since then.
        let (mut woken, mut watched) = (false, true);
        // Its alarm went off: the time until the look is over.
        let mut at_once = false;
        let mut looked = Looked::default();
        // Acquire: pairs with the Release in `Sysmon::end`.
        while !self.sysmon.ended.load(Acquire) {
            let now = clock::now();
            let fresh = if std::mem::take(&mut refresh) { REFRESH_WOKEN_NS } else { REFRESH_NS };
            if now - refreshed_at >= fresh {
                refreshed_at = now;
                self.refresh_procs();
                collects = true;
            }
            if std::mem::take(&mut woken) {
                // The processor whose taking woke it is hardly idle yet.
                looks_idle = 0;
            } else if self.idle.counts().idle() == self.idle.procs() {
                looks_idle += 1;
            } else {
                looks_idle = 0;
                watched = true;
            }
            let lately = self.sysmon.acted_lately(now);
            let enough = if watched || lately { LOOKS_IDLE } else { LOOKS_BRIEF };
            let mut may_sleep = looks_idle >= enough && !trace.is_on();
            if collects || may_sleep {
                collects = self.collect_unheld();
                may_sleep &= !collects;
            }
            if may_sleep && !self.detects() && self.sysmon.alarm.open() {
                self.sysmon.idle_since.store(now, Relaxed);
                if self.idle.sysmon_waits() {
                    self.sleep_on_alarm();
                    (woken, watched, at_once) = (true, false, true);
                    // The limits may have changed long ago.
                    refresh = true;
                    continue;
                }
            }
            // Said before the look: a processor that is taken after it wakes us, one that was before it is seen.
            let sleeps = may_sleep && self.idle.sysmon_sleeps();
            let deadlock_in = deadlock.look(self, now);
            if sleeps {
                match deadlock_in {
                    Some(left) => {
                        // Who wakes it asks for a look: a thread was refused, or is not to start one.
                        if self.sysmon.parker.park_timeout(left) {
                            (woken, watched) = (true, false);
                        }
                    }
                    None => {
                        self.sysmon.parker.park();
                        (woken, watched) = (true, false);
                        // As above.
                        refresh = true;
                    }
                }
                continue;
            }
            if !std::mem::take(&mut at_once) {
                self.sysmon.parker.park_timeout(trace.cap(looked.next_in(lately, looks_still), now));
            }
            // Acquire: as above.
            if self.sysmon.ended.load(Acquire) {
                break;
            }
            seen.resize(self.idle.slots() as usize, Seen::default());
            looked = self.look_around(&mut seen, &mut ready, &mut warned);
            if after_rescue > 0 {
                // Its poll may have armed a timer while it was made a husk, and told nobody.
                self.attend_netpoller();
            }
            if looked.acted || looked.rescued {
                self.sysmon.is_wary_for(if looked.acted { ACTED_NS } else { LEARNT_NS });
                watched = true;
            }
            if self.blocking_retry() | self.retry_wakers() | self.pinned_retry() | looked.waiting {
                // Perhaps a thread could not be started: it is tried again at each look.
                looks_idle = 0;
                watched = true;
            }
            after_rescue = if looked.rescued { LOOKS_AFTER_RESCUE } else { u32::saturating_sub(after_rescue, 1) };
            looks_still = if looked.still || after_rescue > 0 { looks_still + 1 } else { 0 };
            trace.print_if_due(self, clock::now());
        }
    }

    /// Sleeps deeply, until a processor has been off the idle list for a look, or somebody wakes `sysmon`.
    fn sleep_on_alarm(&self) {
        while {
            let rung = self.sysmon.alarm.sleep();
            !self.idle.sysmon_woke(rung)
        } {}
    }

    /// The polls that go on when the watcher comes: those of them that still do at its first look are seen twice then.
    fn first_sight(&self) -> Vec<Seen> {
        let now = clock::now();
        let seen = self.slots().map(|slot| {
            let p = slot.processor();
            let polls = p.polls();
            let suspect = (polls % 2 == 1).then(|| Suspect::new(p, polls, now));
            Seen { schedtick: p.schedtick(), since: now, polls, suspect, ..Seen::default() }
        });
        seen.collect()
    }

    fn look_around(&'static self, seen: &mut [Seen], ready: &mut Vec<Waker>, warned: &mut Warned) -> Looked {
        self.sysmon.looks.add(1);
        self.idle.sysmon_looks();
        let now = clock::now();
        self.sysmon.looked_at.store(now, Relaxed);
        let due = self.clock.due_at(now);
        let mut looked = Looked::default();
        let ahead = self.earliest_deadline().checked_sub(due).filter(|ns| *ns > 0 && u128::from(*ns) < LOOK.as_nanos());
        let ahead = ahead.filter(|_| !self.clock.is_paused());
        if now.saturating_sub(self.netpolled_at()) > NETPOLL_NS && !self.is_netpoller_attended() {
            looked.acted |= self.deliver(ready, now);
        }
        if self.earliest_deadline() <= due {
            // A processor in a long poll armed it, and the machine in the netpoller sleeps longer.
            self.attend_netpoller();
        }
        let unattended = !self.is_netpoller_attended();
        let unwatched = unattended && (self.netpoll.waiters() > 0 || self.earliest_deadline() != NEVER);
        let left_alone = unwatched && now.saturating_sub(self.netpolled_at()) > UNATTENDED_NS;
        // Work for whoever has a processor, beside what lies in a processor's own queue.
        let common = !self.inject.is_empty()
            || self.idle.is_wanted()
            || unattended && self.netpoll.waiters() > 0
            || self.earliest_deadline() <= due;
        // Case 4 of the wake rules: work behind a processor that does not move, beside an idle one.
        let mut wake = self.threads.take_asked() || !self.inject.is_empty() || left_alone;
        // It goes on to look until somebody has come for that.
        looked.waiting = unwatched;
        for (slot, seen) in self.slots().zip(seen) {
            let p = slot.processor();
            let (polls, schedtick, status) = (p.polls(), p.schedtick(), p.status());
            let queued = p.queue.len_seen() > 0 || p.queue.next.peek() != 0;
            let brief_closures = p.counters().brief_closures.get();
            looked.brief_closures |= brief_closures != std::mem::replace(&mut seen.brief_closures, brief_closures);
            if schedtick != seen.schedtick {
                *seen = Seen { schedtick, since: now, brief_closures, ..Seen::default() };
            } else if now - seen.since >= SLICE_NS && p.is_polling() && p.attention() & SLICE_OVER == 0 {
                p.ask(SLICE_OVER);
                self.sysmon.flags.add(1);
                looked.acted = true;
            }
            wake |= queued && seen.polls == polls;
            // Each of them ends between two looks, but together they take as long as one that does not. It may also be
            // that the owner was preempted: whoever comes finds out what that is worth.
            wake |= p.queue.len_seen() > 1 && p.is_look_missed(now);
            looked.waiting |= queued;
            seen.polls = polls;
            if p.is_blocking() {
                seen.suspect = None;
                // One that is too many waits to be given up.
                let waits = queued || common || p.attention() & QUIT != 0;
                // Brief closures follow each other, and each look meets another one.
                let runs = waits && p.polled_closure().is_some() && Suspect::of_thread(p.tid(), now).is_seen_to_run();
                looked.still |= waits && !runs;
                // The thread that is started for the processor has the same hook, which may block again.
                let may = !p.is_in_hook() || self.threads.in_hooks() <= self.idle.procs() as usize;
                if seen.blocking == Some(status) && waits && may && self.retake(p, status, !runs) {
                    looked.acted = true;
                }
                seen.blocking = Some(status);
                continue;
            }
            seen.blocking = None;
            if polls % 2 == 0 {
                seen.suspect = None;
                continue;
            }
            let may_rescue = self.idle.counts().idle() == 0 && self.max_stuck() > 0;
            let waits = (queued || common) && may_rescue;
            match &mut seen.suspect {
                Some(suspect) if suspect.is(polls) => {
                    p.mark_slow();
                    let verdict = if waits { suspect.look(now) } else { Verdict::Runs };
                    looked.still |= verdict == Verdict::Blocked;
                    let was_blocked = suspect.was_blocked();
                    if verdict == Verdict::Stuck && self.rescue_or_warn(p, suspect, now, warned) {
                        // The fresh processor may be at the same count of polls: what was seen is not of it.
                        *seen = Seen { since: now, ..Seen::default() };
                        looked.rescued = true;
                        looked.acted |= !was_blocked;
                    }
                }
                suspect => {
                    let suspect = suspect.insert(Suspect::new(p, polls, now));
                    looked.still |= waits && suspect.stands_still();
                }
            }
            if may_rescue && !waits && ahead.is_some() && seen.suspect.is_some_and(|suspect| suspect.stands_still()) {
                looked.due_in = ahead;
            }
        }
        for stuck in self.blockers.untold(now, self.beside.threads()) {
            self.tell(&stuck, now, warned);
        }
        self.blockers.forget_old(now);
        looked.waiting |= self.look_after_lanes(now);
        if self.idle.is_wanted() {
            let limit = self.max_stuck();
            if limit > 0 && self.beside.threads() >= limit {
                looked.acted |= self.release_want(now) > 0;
            } else {
                self.idle.keep_want();
            }
        }
        if wake && self.idle.should_wake() && self.idle.wake_one(self, None) {
            self.sysmon.wakes.add(1);
            looked.acted = true;
        }
        looked.waiting |= wake;
        looked
    }

    /// Looks at the netpoller and has what is ready woken. Tells whether anything was.
    fn deliver(&'static self, ready: &mut Vec<Waker>, now: u64) -> bool {
        self.sysmon.delivering.store(true, Relaxed);
        // The machine that sits down in the netpoller says so before it asks whether all is quiet: it sees that, or we
        // see it.
        submit_fence();
        let looked = self.netpoll_while_busy(ready, now);
        self.sysmon.netpolls.add(looked.into());
        let found = !ready.is_empty();
        if found && !self.push_wakers(ready) {
            self.wake_queued();
        }
        // Release: pairs with the Acquire in `is_delivering`.
        self.sysmon.delivering.store(false, Release);
        self.clock_may_advance();
        found
    }

    /// A poll is stuck, something waits and no processor is idle: rescues the tasks, unless as many threads as may be
    /// are stuck already.
    fn rescue_or_warn(
        &'static self,
        p: &'static Processor,
        suspect: &mut Suspect,
        now: u64,
        warned: &mut Warned,
    ) -> bool {
        // Before the rescue: the poll may end at once afterwards, and its thread with it.
        let (polled, thread) = (p.polled(), suspect.thread());
        let is_limit = self.beside.threads() >= self.max_stuck();
        let threads = if is_limit { None } else { self.rescue(p, suspect) };
        // Before it is told of: the machine that gets the processor comes to the next task, which may be another such.
        match (threads, polled) {
            (Some(_), Polled::Task(task, _)) if suspect.was_blocked() => self.blockers.learn(task, now),
            (Some(_), Polled::Task(_, location)) => self.blockers.learn_place(location, now),
            _ => {}
        }
        // Not rescued, and below the limit: the poll ended at the last moment.
        if threads.is_none() && (!is_limit || suspect.is_told()) {
            return false;
        }
        let rescued = threads.is_some();
        let threads = threads.unwrap_or_else(|| self.beside.threads());
        let stuck = StuckPoll::new(polled, (thread, suspect.polling_for(now)), rescued, threads);
        self.tell(&stuck, now, warned);
        rescued
    }

    /// Tells of a stuck poll.
    fn tell(&self, stuck: &StuckPoll, now: u64, warned: &mut Warned) {
        let config = self.config.lock().clone();
        let traced = is_traced(stuck);
        if let Some(hook) = &config.on_stuck {
            swallow(|| hook(stuck));
            self.die_if_forked();
        } else if !traced {
            let last = warned.entry((stuck.stuck_in, stuck.location.map(std::ptr::from_ref))).or_insert(None);
            // A poll that is stuck may be so in the middle of a print, with the lock of standard error or before a pipe
            // that is full: that must not stop `sysmon`. The next one is told of then.
            if last.is_none_or(|at| now - at >= WARN_NS) && try_print_error(&format!("gmp: {stuck}")) {
                *last = Some(now);
            }
        }
    }
}

/// Tells `tracing` of a stuck poll. `false`: no subscriber wants to hear of it.
#[cfg(feature = "tracing")]
fn is_traced(stuck: &StuckPoll) -> bool {
    let mut traced = false;
    // A subscriber that panics, be it when it is asked, has told so itself, and must not end `sysmon`.
    swallow(|| {
        traced = tracing::event_enabled!(target: "gmp", tracing::Level::WARN);
        tracing::warn!(
            target: "gmp",
            stuck_in = ?stuck.stuck_in,
            task = stuck.task.map(crate::task::Id::to_bits),
            spawned_at = stuck.location.map(tracing::field::display),
            thread = stuck.thread,
            polling_for_ms = stuck.polling_for.as_millis() as u64,
            rescued = stuck.rescued,
            stuck_threads = stuck.stuck_threads,
            "{stuck}"
        );
    });
    traced
}

#[cfg(not(feature = "tracing"))]
fn is_traced(_: &StuckPoll) -> bool {
    false
}

/// When a line was last printed for what was stuck and where it was spawned.
type Warned = HashMap<(StuckIn, Option<*const Location<'static>>), Option<u64>>;

#[cfg(all(test, not(gmp_loom)))]
mod tests;
