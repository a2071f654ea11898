//! Deadlocks and leaks, as far as a runtime can know of them (`Builder::detect_deadlocks`): `sysmon` looks, `block_on`
//! panics with the report, users ask for the list of leaked tasks.
//!
//! A *leak* is exact (see `leak`). A *deadlock* is a guess: the runtime was quiet for a second (see `quiet`), no timer
//! is armed, no task waits for I/O, and somebody waits. A thread that the runtime knows nothing of may still be about
//! to wake one of them.
//!
//! # When to look
//!
//! `sysmon` looks while it is awake, and once more before it sleeps deeply: it says that it sleeps, looks, and sleeps.
//! A change after that look must wake it, or be followed by another look. While every processor is idle, a runtime in
//! which somebody waits is not dead because
//!
//! | there is                                            | which ends with                                            |
//! |-----------------------------------------------------|------------------------------------------------------------|
//! | a timer, or a task that waits for I/O               | a machine that takes a processor, which wakes `sysmon`     |
//! | a blocking closure, a poll that is stuck            | [`Sched::agent_left`]                                      |
//! | anything else: a machine on its way from the idle list to its sleep, a thread between its processor and its wait, one that waits in another runtime | nothing that could be relied on |
//!
//! So in the last case it does not sleep deeply but looks again after a step ([`Sched::ends_with_a_wake`]). That is
//! decided from what is seen after it has said that it sleeps: what was true before may have ended with a processor
//! that is idle again. A timer or a socket that a thread of no runtime drops is not seen to; a heuristic may miss it.
//!
//! Time counts only in small steps, one a look: of a process that was stopped for a minute it is not said that its
//! runtime was quiet for as long.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use super::Sched;
use crate::clock::NEVER;
use crate::sys::try_print_error;
use crate::task::Id;
use crate::task::registry::WaitingTask;

/// How long a runtime is quiet before that is called a deadlock, unless the builder says otherwise.
const AFTER: Duration = Duration::from_secs(1);
/// The builder may say no less: `sysmon` would do nothing but look.
const AFTER_MIN: Duration = Duration::from_millis(10);
/// The time is made of at least so many looks.
const STEPS: u32 = 10;
/// A report names so many of those who wait.
const NAMED: usize = 64;

/// A task that can never run again: it waits, and no waker of it is left anywhere.
///
/// # Examples
///
/// ```
/// let runtime = gmp::Builder::new().procs(1).detect_deadlocks(true).build()?;
/// let task = runtime.spawn(std::future::pending::<()>());
/// let leaked = loop {
///     match runtime.leaked_tasks().pop() {
///         Some(leaked) => break leaked,
///         None => std::thread::yield_now(),
///     }
/// };
/// assert_eq!(leaked.id, task.id());
/// assert_eq!(leaked.location.file(), file!());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeakedTask {
    /// Its name.
    pub id: Id,
    /// Where it was spawned.
    pub location: &'static Location<'static>,
}

impl fmt::Display for LeakedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} spawned at {}", self.id, self.location)
    }
}

/// What is wrong, as the first line of a report has it.
pub(crate) enum Why {
    /// The runtime was quiet for so long.
    Quiet(Duration),
    /// The future of a `block_on` that was called there has no waker left.
    Leak(&'static Location<'static>),
}

impl Sched {
    fn waiting_tasks(&self) -> Vec<WaitingTask> {
        let mut waiting = Vec::new();
        if self.detects() {
            self.shards().for_each(|shard| shard.list_waiting(&mut waiting));
            self.local_tasks.list_waiting(&mut waiting);
        }
        waiting.sort_by_key(|task| (task.location.file(), task.location.line(), task.location.column(), task.id));
        waiting
    }

    /// The tasks that can never run again, by where they were spawned.
    pub(crate) fn leaked_tasks(&self) -> Vec<LeakedTask> {
        let leaked = self.waiting_tasks().into_iter().filter(|task| task.leaked);
        leaked.map(|WaitingTask { id, location, .. }| LeakedTask { id, location }).collect()
    }

    /// What a thread that waits in vain panics with.
    #[cold]
    pub(crate) fn deadlock_report(&'static self, why: &Why) -> String {
        let tasks = self.waiting_tasks();
        let threads = self.waits.waiting(self.runtime().generation);
        let mut lines = Vec::new();
        lines.extend(tasks.iter().map(|task| {
            let leaked = if task.leaked { "; it is leaked: no waker of it is left" } else { "" };
            format!("\n  task {} waits, spawned at {}{leaked}", task.id, task.location)
        }));
        lines.extend(threads.iter().map(|at| format!("\n  a thread waits in the `block_on` at {at}")));
        let more = lines.len().saturating_sub(NAMED);
        lines.truncate(NAMED);
        let list = lines.concat();
        let and_more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
        let leaked = tasks.iter().filter(|task| task.leaked).count();
        let count = match (tasks.len(), threads.len()) {
            (0, 0) => "no task waits, and no other thread".to_owned(),
            (tasks, threads) => format!("{tasks} tasks wait, {leaked} of them leaked; {threads} threads wait"),
        };
        match why {
            Why::Leak(at) => format!(
                "deadlock: the future in the `block_on` at {at} waits, and no waker of it is left: it can never go on\n\
                 {count}{list}{and_more}"
            ),
            Why::Quiet(after) => format!(
                "deadlock: nothing has run for {after:?}, and nothing that the runtime knows of can wake a task: no timer is \
                 armed, no task waits for I/O, no blocking closure runs\n{count}{list}{and_more}\n\
                 if a thread that is not the runtime's wakes one of them, say so: `#[gmp::test(external_wakers)]`, \
                 `Builder::external_wakers(true)`"
            ),
        }
    }

    /// The runtime is quiet, as [`Sched::quiet`] says it, no time and no socket can change that, and somebody waits.
    fn is_dead(&'static self) -> Option<u64> {
        let quiet = self.quiet(false)?;
        let asleep = self.earliest_deadline() == NEVER && self.netpoll.waiters() == 0;
        (asleep && (self.live_tasks() > 0 || self.waits.is_any_waiting(self.runtime().generation))).then_some(quiet)
    }

    /// Whether what keeps the runtime from being dead wakes `sysmon` when it ends (see the head of the file).
    fn ends_with_a_wake(&'static self) -> bool {
        let waits = self.live_tasks() > 0 || self.waits.is_anybody_there(self.runtime().generation);
        !waits
            || self.earliest_deadline() != NEVER
            || self.netpoll.waiters() > 0
            || self.beside.count() > 0
            || self.blocking.is_running()
    }

    /// What is counted as work for [`Sched::quiet`] is over, and no processor was needed for that: `sysmon` may have to
    /// look.
    #[inline]
    pub(crate) fn agent_left(&self) {
        if self.detects() {
            self.sysmon.wake();
        }
    }
}

/// What `sysmon` remembers from look to look.
pub(crate) struct DeadlockWatch {
    /// `None`: nobody looks.
    after: Option<Duration>,
    /// What [`Sched::is_dead`] said last, and when.
    last: Option<(u64, u64)>,
    /// For how long it has said so, in nanoseconds.
    passed: u64,
    /// What it said when that was reported.
    reported: Option<u64>,
}

impl DeadlockWatch {
    pub(crate) fn new(sched: &Sched) -> Self {
        let config = sched.config.lock();
        let on = config.detect_deadlocks && !config.external_wakers;
        let after = on.then(|| config.deadlock_after.unwrap_or(AFTER).max(AFTER_MIN));
        DeadlockWatch { after, last: None, passed: 0, reported: None }
    }

    /// A look at `now`, and a report if the time is over. Gives in how long the next look is to come at the latest, if
    /// the runtime may be in a deadlock, or may come into one without a word.
    pub(crate) fn look(&mut self, sched: &'static Sched, now: u64) -> Option<Duration> {
        let after = self.after?;
        let step = after / STEPS;
        let dead = sched.is_dead();
        match (dead, self.last) {
            (Some(dead), Some((last, at))) if dead == last => {
                self.passed += (now - at).min(step.as_nanos() as u64);
            }
            _ => self.passed = 0,
        }
        self.last = dead.map(|dead| (dead, now));
        if dead.is_none() {
            return (!sched.ends_with_a_wake()).then_some(step);
        }
        if dead == self.reported {
            return None;
        }
        if u128::from(self.passed) < after.as_nanos() {
            return Some(step);
        }
        let report = sched.deadlock_report(&Why::Quiet(after));
        // If no thread waits for the tasks that it could be told, they stay as they are. Somebody may have the lock of
        // standard error for ever, or not read a pipe: that must not stop `sysmon`, which tries again.
        if !sched.waits.condemn(sched.runtime().generation, &report) && !try_print_error(&format!("gmp: {report}")) {
            return Some(step);
        }
        self.reported = dead;
        None
    }
}

#[cfg(test)]
mod tests;
