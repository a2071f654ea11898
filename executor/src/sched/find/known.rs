//! What a machine does with a task of which something is known (see `blockers`): it leaves one that computes for long
//! to a lane, gives its processor away before one that blocks, and measures a poll of one whose last one took long.

use super::Worker;
use crate::clock::{self, NEVER};
use crate::processor::{LONG_NS, Processor, SPAWNS_MAX};
use crate::runq::Unit;
use crate::sched::blockers::Begun;
use crate::sched::stuck::cpu_ns;
use crate::sys::thread_id;
use crate::task::{self, Id};

/// A poll of a task that is known to block.
struct Begins {
    task: Id,
    /// What [`Processor::status`] was.
    status: u32,
    begun: Begun,
}

impl Worker {
    /// Runs a task of which something may be known, or leaves it to a lane.
    #[cold]
    pub(super) fn run_known(&mut self, p: &'static Processor, mut unit: Unit) {
        let (blockers, task) = (&self.sched.blockers, task::id(&unit));
        if self.sched.burns(&unit) {
            match self.sched.leave_to_lane(unit) {
                // Nothing was polled: if it took long to bring the lane, that is no task's doing.
                Ok(()) => return p.polls_block_on(),
                Err(back) => unit = back,
            }
        }
        if let Some(begins) = self.begin_if_blocker(p, &unit) {
            self.poll_task(p, unit);
            self.end_of_blocker(p, begins);
        } else if blockers.suspects(task) {
            self.run_suspect(p, unit);
        } else {
            self.poll_task(p, unit);
        }
    }

    /// If it is known of this task that it blocks, the processor goes on without it from the start.
    fn begin_if_blocker(&mut self, p: &'static Processor, unit: &Unit) -> Option<Begins> {
        let (blockers, task) = (&self.sched.blockers, task::id(unit));
        (blockers.blocks(task) && self.sched.give_away_ahead(p)).then(|| Begins {
            task,
            status: p.status(),
            begun: blockers.begin(task::polled(unit)),
        })
    }

    /// The poll of a task that is known, which began on `p`, is over.
    fn end_of_blocker(&mut self, p: &'static Processor, Begins { task, status, begun }: Begins) {
        // Else it was in a blocking call of which it has told: that one stands in no other's way.
        let is_whole = self.processor().is_some_and(|now| std::ptr::eq(now, p)) && p.status() == status;
        self.sched.blockers.end(task, begun, is_whole);
    }

    /// Runs a task whose last poll took long, perhaps because the system had taken the CPU from it. If it computes for
    /// long again, while others wait or may come, the next polls are not to be in their way.
    fn run_suspect(&mut self, p: &'static Processor, unit: Unit) {
        let (sched, task) = (self.sched, task::id(&unit));
        let (cpu, spawned) = (cpu_ns(thread_id()), p.counters().spawned.get());
        self.poll_task(p, unit);
        sched.die_if_forked();
        let used = cpu_ns(thread_id()).zip(cpu).map(|(after, before)| after.saturating_sub(before));
        let (now, has_computed) = (clock::now(), used.is_some_and(|used| used >= LONG_NS));
        sched.blockers.acquit_or_not(task, now, has_computed);
        // Else it has come back from a wait.
        let is_whole = self.processor().is_some_and(|now| std::ptr::eq(now, p));
        if !has_computed || !is_whole || p.last_polled().is_none() {
            return;
        }
        let spawns = p.counters().spawned.get().wrapping_sub(spawned) > SPAWNS_MAX;
        if !spawns && self.others_wait(p) {
            sched.knows_burner(task, now);
        }
    }

    /// Whether others have waited for the poll that has just ended on `p`, or may come in the next.
    fn others_wait(&self, p: &'static Processor) -> bool {
        let sched = self.sched;
        // The first: they were rescued from it. The task itself may be queued.
        p.queue.next.is_condemned()
            || p.queue.len_seen() + usize::from(!sched.inject.is_empty()) > 1
            || sched.netpoll.waiters() > 0
            || sched.earliest_deadline() != NEVER
    }
}
