//! Polls that do not end: how `sysmon` tells one from a thread that is only preempted, and how the tasks behind it are
//! rescued.
//!
//! A poll is stuck if it is the same one at two looks and its thread either is blocked (asleep, in the kernel, stopped)
//! or has computed for [`BURNT_NS`] since the look that first saw the poll. A thread that is runnable but does not run
//! is left alone. One that is blocked is given [`BLOCKED_NS`]; its task is a blocker from then on (see `blockers`).
//!
//! Rescue, all of it under the scheduler lock, which every change of a processor's owner takes but for the two steps of
//! `block_in_place`. First: the processor is still the table's and is still in that very poll; else nothing is done.
//! Then (1) the sentinel goes into its run-next slot, and a fence; (2) what was in the slot and then the ring, taken as
//! a thief takes it, go to the global queue as one batch in order; (3) a fresh processor replaces it in the table and
//! goes to a machine that wants one, else to the idle list, and a machine is woken for the work.
//!
//! From then on the old processor is a husk and nobody but its owner looks into it. The owner learns it from the
//! sentinel (see `runq`): what it wakes and spawns goes to the global queue, and at its next pick the husk goes back to
//! its slot. A rescue that races with the end of the poll may cost one more poll of a task beside the processors'
//! number.

use std::panic::Location;
use std::time::Duration;

use super::Sched;
use crate::context;
use crate::idle::HandedOff;
use crate::processor::{Polled, Processor};
use crate::sys::atomic::Ordering::AcqRel;
use crate::sys::idle_fence;
use crate::task::Id;

/// A poll that computes for so long since it was first seen is stuck, in nanoseconds.
const BURNT_NS: u64 = 2_000_000;

/// A poll whose thread is blocked is stuck after so long, in nanoseconds: a contended lock or a read that misses the
/// page cache is over sooner.
pub(super) const BLOCKED_NS: u64 = 500_000;

/// A poll that was first seen so long ago, in nanoseconds, is stuck where the system does not tell what its thread
/// does.
const LASTED_NS: u64 = 4_000_000;

/// At the limit of stuck threads a machine waits for a processor for so long, in nanoseconds.
const WANT_NS: u64 = 10_000_000;

/// What a stuck poll is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StuckIn {
    /// A task.
    Task,
    /// A future that a thread polls in `block_on`.
    BlockOn,
    /// Wakers of due timers, of ready sockets, or of who waits for a blocking closure: some are not the runtime's own.
    Wakers,
}

/// A poll that does not end, as the hook of `Builder::on_stuck` is told of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StuckPoll {
    /// What it is of.
    pub stuck_in: StuckIn,
    /// Its task; `None` if it is of no task.
    pub task: Option<Id>,
    /// Where its task was spawned; `None` if it is of no task.
    pub location: Option<&'static Location<'static>>,
    /// The name of its thread as the system has it, which may be cut short; empty if it cannot be had.
    pub thread: String,
    /// For how long the poll has been seen to go on, at least.
    pub polling_for: Duration,
    /// Whether its processor goes on without it. If not, the limit of `Builder::max_stuck` is reached, or there was an
    /// idle processor for the tasks behind it.
    pub rescued: bool,
    /// Threads that are stuck now.
    pub stuck_threads: usize,
}

impl StuckPoll {
    pub(crate) fn new(
        polled: Polled,
        (thread, polling_for): (String, Duration),
        rescued: bool,
        stuck_threads: usize,
    ) -> Self {
        let (stuck_in, task, location) = match polled {
            Polled::Task(task, location) => (StuckIn::Task, Some(task), Some(location)),
            Polled::BlockOn => (StuckIn::BlockOn, None, None),
            Polled::Wakers => (StuckIn::Wakers, None, None),
        };
        StuckPoll { stuck_in, task, location, thread, polling_for, rescued, stuck_threads }
    }
}

impl std::fmt::Display for StuckPoll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.stuck_in, self.location) {
            (StuckIn::Task, Some(location)) => write!(f, "a task spawned at {location} ")?,
            (StuckIn::Task, None) => f.write_str("a task ")?,
            (StuckIn::BlockOn, _) => f.write_str("a future in `block_on` ")?,
            (StuckIn::Wakers, _) => f.write_str("a waker of a timer, a socket or a blocking closure ")?,
        }
        match self.polling_for.as_millis() {
            0 => write!(f, "has been in one poll for {} µs", self.polling_for.as_micros())?,
            ms => write!(f, "has been in one poll for {ms} ms")?,
        }
        if self.rescued {
            write!(f, "; the others go on without its thread ({} stuck)", self.stuck_threads)
        } else {
            write!(f, "; {} threads are stuck, which is the limit, so tasks wait for it", self.stuck_threads)
        }
    }
}

/// What `sysmon` remembers of one poll.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Suspect {
    polls: u32,
    /// At the last look.
    was_blocked: bool,
    tid: i32,
    /// When a look first saw the poll.
    since: u64,
    /// CPU time of its thread at that look, and at the last one; `None` where the system does not tell.
    cpu_first: Option<u64>,
    cpu_last: Option<u64>,
    /// It was reported.
    told: bool,
}

impl Suspect {
    /// The first look at a poll.
    pub(crate) fn new(p: &Processor, polls: u32, now: u64) -> Self {
        Suspect { polls, ..Suspect::of_thread(p.tid(), now) }
    }

    /// The first look at a thread, whatever it polls.
    pub(crate) fn of_thread(tid: i32, now: u64) -> Self {
        let cpu = cpu_ns(tid);
        Suspect { polls: 0, was_blocked: false, tid, since: now, cpu_first: cpu, cpu_last: cpu, told: false }
    }

    pub(crate) fn is(&self, polls: u32) -> bool {
        self.polls == polls
    }

    pub(crate) fn tid(&self) -> i32 {
        self.tid
    }

    /// The name of the thread as the system has it.
    pub(crate) fn thread(&self) -> String {
        thread_name(self.tid)
    }

    /// Whether the thread was blocked at the last look.
    pub(crate) fn was_blocked(&self) -> bool {
        self.was_blocked
    }

    pub(crate) fn polling_for(&self, now: u64) -> Duration {
        Duration::from_nanos(now - self.since)
    }

    /// Whether the poll has been reported, which it is once; at the limit it stays where it is and is seen again.
    pub(crate) fn is_told(&mut self) -> bool {
        std::mem::replace(&mut self.told, true)
    }

    /// At the first look: whether the thread seems to be blocked, so that the next look is to come soon. One that
    /// computes is told by its clock, which moves even between two readings, and costs no file.
    pub(crate) fn stands_still(&self) -> bool {
        self.cpu_last.is_some() && cpu_ns(self.tid) == self.cpu_last && is_blocked(self.tid) == Some(true)
    }

    /// At the first look: whether the thread computes, or would if it had a CPU, as far as the system tells.
    pub(crate) fn is_seen_to_run(&self) -> bool {
        self.cpu_last.is_some() && cpu_ns(self.tid) != self.cpu_last || is_blocked(self.tid) == Some(false)
    }

    /// A further look at the same poll.
    pub(crate) fn look(&mut self, now: u64) -> Verdict {
        let lasts = now - self.since;
        let stuck_if = |is_stuck| if is_stuck { Verdict::Stuck } else { Verdict::Runs };
        let cpu = cpu_ns(self.tid);
        let (Some(first), Some(last), Some(used)) = (self.cpu_first, self.cpu_last, cpu) else {
            return stuck_if(lasts >= LASTED_NS);
        };
        self.cpu_last = cpu;
        self.was_blocked = false;
        if used != last {
            return stuck_if(used.saturating_sub(first) >= BURNT_NS);
        }
        // It stood still between two looks: blocked, or preempted.
        let is_blocked = is_blocked(self.tid);
        self.was_blocked = is_blocked == Some(true);
        match is_blocked {
            Some(true) if lasts < BLOCKED_NS => Verdict::Blocked,
            Some(is_blocked) => stuck_if(is_blocked),
            None => stuck_if(lasts >= LASTED_NS),
        }
    }
}

/// What a further look at a poll says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its thread computes, or would if it had a CPU.
    Runs,
    /// Its thread is blocked, and may be only for a moment.
    Blocked,
    Stuck,
}

/// The name of a thread of this process as the system has it.
pub(super) fn thread_name(tid: i32) -> String {
    let name = std::fs::read_to_string(format!("/proc/self/task/{tid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// CPU time of a thread of this process, in nanoseconds.
pub(super) fn cpu_ns(tid: i32) -> Option<u64> {
    // The kernel's name for the scheduler clock of one thread.
    const PER_THREAD_SCHED: i32 = 4 | 2;
    let clock = (!tid << 3) | PER_THREAD_SCHED;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is there to be written.
    let failed = unsafe { libc::clock_gettime(clock, &mut time) } != 0;
    (!failed).then(|| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Whether a thread of this process sleeps, is in the kernel uninterruptibly, or is stopped.
fn is_blocked(tid: i32) -> Option<bool> {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).ok()?;
    // The name before the state may hold anything, also parentheses.
    let state = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
    Some(matches!(state, 'S' | 'D' | 'T' | 't'))
}

impl Sched {
    /// Takes the processor `p` from the poll that `suspect` names, if it is still in it. Gives how many threads are
    /// stuck then.
    pub(crate) fn rescue(&'static self, p: &'static Processor, suspect: &Suspect) -> Option<usize> {
        let slot = self.slot(p.index);
        let mut stuck = 0;
        let taken = self.idle.take_away(p.index, self, || {
            if !slot.is_current(p) || !suspect.is(p.polls()) || p.is_blocking() {
                return None;
            }
            self.sysmon.rescues.add(1);
            // The destructor of what it has returned may block, too.
            self.blocking.lost_processor(p, suspect.was_blocked());
            let work;
            (stuck, work) = self.strip(p);
            Some(work)
        });
        self.went_on(taken).then_some(stuck)
    }

    /// Makes `p`, the table's, a husk, and another processor the table's: the three steps, the scheduler lock held.
    /// Gives how many threads are stuck then, and whether there is work for that processor.
    pub(super) fn strip(&'static self, p: &'static Processor) -> (usize, bool) {
        // Before the sentinel is there: `return_husk` may come as soon as it is.
        let stuck = self.beside.thread_begins();
        // 1.
        let next = p.queue.next.condemn();
        idle_fence();
        // 2.
        let queued = std::iter::from_fn(|| p.queue.steal_one());
        self.inject.push_batch(next.into_iter().chain(queued));
        // 3.
        self.slot(p.index).renew();
        (stuck, !self.inject.is_empty() || self.is_timer_due())
    }

    /// Takes the processor of `slot` from a blocking call that stood at `status` for two looks. `is_blocked`: its
    /// thread, if the call is a closure.
    pub(crate) fn retake(&'static self, p: &'static Processor, status: u32, is_blocked: bool) -> bool {
        let slot = self.slot(p.index);
        let taken = self.idle.take_away(p.index, self, || {
            if !slot.is_current(p) || !p.retake(status) {
                return None;
            }
            self.sysmon.retakes.add(1);
            self.blocking.lost_processor(p, is_blocked);
            self.call_goes_on_without(p);
            // A lone task of its queue too: no spinner has to look at it, and no submitter will.
            Some(self.is_work_queued(p) || self.is_timer_due())
        });
        self.went_on(taken)
    }

    /// `p` was taken in a blocking call, and the poll around that goes on without it.
    pub(super) fn call_goes_on_without(&self, p: &Processor) {
        // AcqRel: pairs with the end of `reacquire`, and with `quiet`.
        self.away.fetch_add(1, AcqRel);
        p.end_poll();
    }

    /// A processor was taken away, or was not: an idle one is offered to a machine. Tells whether it was.
    fn went_on(&'static self, taken: Option<HandedOff>) -> bool {
        if taken == Some(HandedOff::Idle) && self.idle.should_wake() {
            self.idle.wake_one(self, None);
        }
        taken.is_some()
    }

    /// The husk `p` goes back in the middle of its poll if there is an idle processor, on which the poll then goes on.
    #[cold]
    pub(crate) fn trade_husk(&'static self, p: &'static Processor) {
        if !self.is_of_this_process() {
            return context::set_processor(None);
        }
        let Some(slot) = self.idle.take(self) else {
            return;
        };
        let polled = p.polled();
        p.end_poll();
        self.return_husk(p);
        self.go_on_with(slot, polled);
    }

    /// Those who have wanted a processor for [`WANT_NS`] go on without one and count as stuck: at the limit of stuck
    /// threads none is made free for them, and what they hold may be what every poll waits for.
    pub(crate) fn release_want(&'static self, now: u64) -> u64 {
        // `end_release` may come as soon as the machine has been told.
        self.idle.release_want(now, WANT_NS, || {
            self.beside.thread_begins();
            self.sysmon.releases.add(1);
        })
    }

    /// This thread's poll goes on without a processor, and `sysmon` has counted it.
    pub(super) fn was_released(&'static self) {
        let before = context::set_released_by(Some(self));
        debug_assert!(before.is_none(), "a thread was released twice");
    }

    /// The poll of this thread is over, if it was one that went on without a processor. A thread of others was a guest
    /// until now.
    pub(crate) fn end_release(&'static self) {
        let Some(sched) = context::set_released_by(None) else {
            return;
        };
        debug_assert!(std::ptr::eq(sched, self), "a poll of another runtime is not over");
        self.beside.thread_ends();
        self.agent_left();
        if !context::is_worker_of(self) {
            self.leave();
        }
        self.clock_may_advance();
    }

    /// How many threads may be stuck; 0 if no poll is ever rescued.
    pub(crate) fn max_stuck(&self) -> usize {
        self.config.lock().max_stuck.unwrap_or(0)
    }
}
