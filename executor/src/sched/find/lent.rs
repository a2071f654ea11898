//! A thread of the pool for blocking closures that runs what its closure woke. Why it may, and what it owes the pool,
//! is told in `blocking::lent`; here is what it does with a processor.
//!
//! It is a machine meanwhile: it counts as one, may be rescued from, and its polls are watched. But it neither searches
//! nor goes idle: when nothing is queued on its processor, and in any case after a moment, it gives that up, as a
//! thread does that begins to wait (`Sched::give_up`), and whoever that goes to searches.

use super::Worker;
use super::run::AbortOnPanic;
use crate::blocking;
use crate::clock;
use crate::processor::{Polled, Processor};
use crate::sched::Sched;

/// It runs so many tasks at most, and starts none after so long, in nanoseconds: then they are a machine's to run.
const RUNS_MAX: usize = 64;
const RUNS_NS: u64 = 100_000;

impl Sched {
    /// A processor for a thread of the pool that wakes the task which waits for its closure; `None`: it is to do so
    /// like any other thread. In the state of a poll of wakers, which [`Worker::run_lent`] ends.
    pub(in crate::sched) fn processor_for_what_a_closure_wakes(&'static self) -> Option<&'static Processor> {
        if !blocking::may_be_lent(self) || self.idle.counts().idle() == 0 || !self.blocking.spares_a_thread() {
            return None;
        }
        // Before the closure counts as ended: shutdown sees the one or the other.
        if !self.threads.lend(self.idle.procs()) {
            return None;
        }
        blocking::be_lent(self);
        self.sysmon_start();
        let slot = self.idle.take(self)?;
        Some(self.go_on_with(slot, Polled::Wakers))
    }
}

impl Worker {
    /// Runs what is queued on the processor that this thread took when its closure ended, and gives it up.
    pub(crate) fn run_lent(&mut self) {
        // The processor would be lost.
        let abort = AbortOnPanic("a panic left a task");
        let sched = self.sched;
        if let Some(p) = self.processor() {
            p.end_poll();
        }
        let mut begun = None;
        for _ in 0..RUNS_MAX {
            // Whoever has the processor next does what is asked for.
            let free = |p: &&Processor| p.attention() == 0 && !p.queue.next.is_condemned();
            let Some(p) = self.processor().filter(free) else { break };
            let Some(unit) = self.pick_local(p, false) else { break };
            self.run_task(p, unit);
            let more = self.processor().is_some_and(|p| p.queue.next.peek() != 0 || p.queue.len_seen() > 0);
            if !more || sched.idle.is_wanted() {
                break;
            }
            // Others are to run here before this thread comes to its closure.
            sched.call_for_kept_closure();
            let now = clock::now();
            if now - *begun.get_or_insert(now) >= RUNS_NS {
                break;
            }
        }
        sched.end_release();
        match self.processor() {
            Some(p) if p.is_closing() => self.abandon(p),
            Some(p) => sched.hand_back(p),
            None => sched.die_if_forked(),
        }
        std::mem::forget(abort);
    }
}
