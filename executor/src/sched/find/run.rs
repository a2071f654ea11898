//! What a machine does with what it found, from its thread's first step to the last.
//!
//! 1. A panic that leaves a task or a hook would take the processor with it: it ends the process.
//! 2. Between `begin_poll` and `end_poll` the processor may become a husk or another one (see `stuck`,
//!    `block_in_place`), or the thread may have none: what comes after a poll asks again.

use super::steal::is_long;
use super::{Worker, die};
use crate::clock;
use crate::processor::Processor;
use crate::runq::Unit;
use crate::runtime::block_in_place;
use crate::task;

/// A stolen task that ran for less, in nanoseconds, was not worth waking a machine.
const WORTH_NS: u64 = 20_000;

/// Ends the process if it is dropped.
pub(super) struct AbortOnPanic(pub(super) &'static str);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        die(self.0, &"see the message of the panic above");
    }
}

/// Whether a machine was given a processor before the runtime closed. A thread without one runs no hook, neither at its
/// start nor at its end.
pub(crate) struct Began(pub(crate) bool);

impl Worker {
    /// Runs tasks until the runtime closes, and before them the hook of a thread that starts.
    pub(crate) fn run(&mut self, on_start: Option<&(dyn Fn() + Send + Sync)>) -> Began {
        // The processor would go with the thread.
        let abort = AbortOnPanic("a machine panicked");
        let grant = self.machine.park();
        let began = self.accept(grant);
        if began {
            if let Some(hook) = on_start {
                self.run_hook(hook);
            }
            self.run_tasks();
        }
        std::mem::forget(abort);
        Began(began)
    }

    /// The hook may block, so it is a blocking call: what waits for the processor gets it, or another one with it.
    #[cold]
    pub(super) fn run_hook(&mut self, hook: &(dyn Fn() + Send + Sync)) {
        if std::mem::take(&mut self.spinning) {
            // Work that was queued before is found after the hook, or by whom the processor goes to; what is queued
            // from here on does not rely on this machine.
            let _ = self.sched.idle.stop_spinning();
        }
        if let Some(p) = self.processor() {
            p.polls_hook();
            p.begin_poll();
        }
        block_in_place(|| self.sched.threads.run_hook(hook));
        if let Some(p) = self.processor() {
            p.end_poll();
        }
    }

    pub(super) fn run_tasks(&mut self) {
        while let Some((p, unit)) = self.find() {
            self.run_found(p, unit);
        }
    }

    // Always: the loop above, which every task goes through, and the first machine's two steps, which cost nothing to
    // have twice.
    #[inline(always)]
    pub(super) fn run_found(&mut self, p: &'static Processor, unit: Unit) {
        if self.spinning {
            self.stop_spinning();
            if let Some(victim) = self.lone_of.take() {
                return self.run_lone(victim, p, unit);
            }
        }
        self.run_task(p, unit);
    }

    /// Runs a lone task of `victim`. If it was not worth the wake and waited for no long poll, `victim` wakes machines
    /// more rarely: that processor may only have been preempted for a moment. Not if this machine was there for other
    /// tasks before, all behind one poll, nor if the task is known: it may run elsewhere.
    #[cold]
    fn run_lone(&mut self, victim: &'static Processor, p: &'static Processor, unit: Unit) {
        let (start, is_known) = (clock::now(), self.sched.blockers.may_know(|| task::id(&unit)));
        self.run_task(p, unit);
        if !is_known {
            self.judge_lone(victim, start, clock::now());
        }
    }

    /// See [`Worker::run_lone`]: the task ran from `start` on.
    pub(super) fn judge_lone(&mut self, victim: &'static Processor, start: u64, now: u64) {
        let lasted = now - start;
        let behind = self.seen_in_poll(victim, now);
        if lasted >= WORTH_NS || behind.is_some_and(is_long) {
            victim.reset_backoff();
        } else if behind.is_none_or(|ns| ns <= lasted) {
            victim.raise_backoff();
        }
    }

    /// Runs a task on `p`, which this machine holds.
    #[inline(always)]
    pub(super) fn run_task(&mut self, p: &'static Processor, unit: Unit) {
        self.owes_a_pick = false;
        if self.sched.blockers.may_know(|| task::id(&unit)) {
            return self.run_known(p, unit);
        }
        self.poll_task(p, unit);
    }

    #[inline(always)]
    pub(super) fn poll_task(&mut self, p: &'static Processor, unit: Unit) {
        p.begin_poll();
        p.counters().polled.add(1);
        let abort = AbortOnPanic("a panic left a task");
        task::run(unit, p);
        std::mem::forget(abort);
        if let Some(p) = self.processor() {
            p.end_poll();
        }
    }
}
