//! The first machine: a cold start. It is started while the runtime is built, which takes less time than a thread needs
//! to be there, and owes the watcher (see `duty`), which it starts when the first task no longer waits for that.
//!
//! It takes 100 µs until it is there. So a task that the main thread waits for meanwhile, and for nothing else, is
//! polled by that thread itself: it is a machine like any other while it is in a `block_on`, and the first one stands
//! by, or comes, with the duty. Not if the processor has anything queued behind that task; what it spawns and wakes
//! others get as from any machine. And not on a thread that the user has started, nor where the user has said how large
//! stacks are to be: that thread's may be smaller.

use std::sync::Arc;
use std::task::Waker;

use super::Worker;
use super::run::{AbortOnPanic, Began};
use crate::clock;
use crate::context;
use crate::machine::Parked;
use crate::metrics::FoundIn;
use crate::processor::Processor;
use crate::runq::Replaced;
use crate::sched::{Sched, count_found};
use crate::sys::atomic::Ordering::Relaxed;
use crate::sys::{is_main_thread, thread_id};
use crate::task::{self, local};
use crate::waits::{self, Wait};

/// The first machine runs its first task, and another thread has the watcher's duty until that has ended. A bit of
/// `Sched::at_end`.
const FIRST_RUNS: u8 = 2;

/// So long, in nanoseconds, the first machine waits for somebody to look out before it starts the watcher itself, which
/// takes longer.
const LOOKOUT_NS: u64 = 30_000;

impl Worker {
    /// [`Worker::run`] for the first machine, which may never be needed: then it runs no hook.
    pub(crate) fn run_first(&mut self, on_start: Option<&(dyn Fn() + Send + Sync)>) -> Began {
        let abort = AbortOnPanic("the first machine panicked");
        let grant = loop {
            match self.machine.park_once(self.sched.unwatched_for()) {
                Parked::Granted(grant) => break grant,
                Parked::TimeOver => self.sched.sysmon_start(),
                // The machine served another runtime before, whose last wake it never saw.
                Parked::Unparked => {}
            }
        };
        let began = self.accept(grant);
        if began {
            let goes_on = if let Some(hook) = on_start {
                self.sched.sysmon_start();
                self.run_hook(hook);
                true
            } else {
                self.run_first_task()
            };
            if goes_on {
                self.run_tasks();
            }
        }
        std::mem::forget(abort);
        Began(began)
    }

    /// Runs the first task while the thread that waits for it has the duty, if there is one. The watcher comes when
    /// this machine has found another task, or has given its processor up and slept for a while: its thread takes a
    /// CPU, and who waited wants processor and CPU. `false`: the runtime closes.
    fn run_first_task(&mut self) -> bool {
        if self.sched.runs_first() {
            for is_first in [true, false] {
                let Some((p, unit)) = self.find() else {
                    self.sched.ran_first();
                    return false;
                };
                if !is_first {
                    self.sched.sysmon_start();
                }
                self.run_found(p, unit);
                self.sched.ran_first();
            }
        } else {
            self.sched.sysmon_start();
        }
        true
    }
}

impl Sched {
    /// The first machine is about to run its first task. Tells whether another thread has the duty meanwhile; then
    /// [`Sched::ran_first`] follows.
    fn runs_first(&self) -> bool {
        self.first_machine.store(thread_id(), Relaxed);
        // The thread that woke this one is about to wait for it, but for a poll that goes on for longer.
        let until = clock::now() + LOOKOUT_NS;
        while !self.duty.lend() {
            // With the watcher there, or refused, nobody looks out any more.
            if !self.duty.is_kept() || clock::now() >= until {
                return false;
            }
            std::thread::yield_now();
        }
        self.at_end.fetch_or(FIRST_RUNS, Relaxed);
        true
    }

    fn ran_first(&self) {
        self.at_end.fetch_and(!FIRST_RUNS, Relaxed);
    }

    /// A task has ended in this thread, and who waits for it is about to be woken. If it is the first one, which no
    /// other ends inside, user code is left behind with it, unless that waker is the user's: it may block, and then the
    /// other thread keeps the duty.
    pub(in crate::sched) fn has_ended_first_task(&self, at_end: u8, joiner: Option<&Waker>) {
        let is_ours = |waker| waits::is_waker(waker) || task::is_waker(waker);
        if at_end & FIRST_RUNS != 0 && self.first_machine.load(Relaxed) == thread_id() && joiner.is_none_or(is_ours) {
            self.duty.give_back();
        }
    }

    /// A machine that the spawn of a lone task on `p` woke is on its way, and looks everywhere. Who hands `p` over to
    /// bring that task to another machine would start a second thread for it, which is there later. Tells whether the
    /// task is left to the one that comes: `p` then has no other work.
    #[cold]
    pub(in crate::sched) fn leave_to_first_machine(&self, p: &'static Processor) -> bool {
        if self.idle.counts().spinning() == 0 || p.queue.len_seen() > 0 {
            return false;
        }
        if let Some(unit) = p.queue.next.take() {
            self.inject.push(unit);
        }
        // The spinner may be gone: who gives a processor up looks at the queues once more.
        true
    }

    /// A thread in the root poll of a `block_on`, which was not ready, is to wait with `wait`: it polls the task that
    /// it joins, once, on `p`, which it holds, if that delays nobody. Who could be: the root, which nothing but the end
    /// of that task wakes; and what is queued, of which there is nothing. Afterwards it is in the root poll again, with
    /// a processor or without.
    #[cold]
    pub(crate) fn polls_joined(&'static self, p: &'static Processor, wait: &Arc<Wait>) {
        if !self.duty.is_kept() || !is_main_thread() || p.attention() != 0 || p.queue.len_seen() > 0 {
            return;
        }
        if self.config.lock().tasks_keep_to_threads {
            return;
        }
        let Some(unit) = p.queue.next.take() else { return };
        if !wait.joins_only(task::address(&unit), task::id(&unit).to_bits()) {
            // Whoever gives `p` up, which comes next, looks at it.
            if let Replaced::Condemned(unit) = p.queue.next.replace(unit) {
                self.ready_foreign(unit);
            }
            return;
        }
        p.end_poll();
        p.begin_slice();
        count_found(p, FoundIn::RunNext);
        p.counters().polled.add(1);
        p.begin_poll();
        let outside = (local::leave_all(), context::enter(self.runtime()));
        let abort = AbortOnPanic("a panic left a task");
        task::run(unit, p);
        std::mem::forget(abort);
        drop(outside);
        // As on a thread of the runtime: what comes next is the parent's.
        self.die_if_forked();
        if let Some(p) = context::processor_of(self) {
            p.end_poll();
            p.polls_block_on();
            p.begin_poll();
        }
    }
}
