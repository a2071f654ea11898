//! A clock that stands: the machine in the netpoller moves it to the earliest deadline when nothing can happen before,
//! and somebody makes it look when nothing can any more (`sched::paused`).
//!
//! In each model one unit is a timer, armed at `DEADLINE`; all others must have been run when the clock is moved there.
//! A clock that nobody moves is a model in which every thread sleeps.

use loom::thread;

use super::*;

const DEADLINE: u64 = 5;

/// Mirrors what `Sched` has for a clock that stands.
pub(super) struct Paused {
    now: AtomicU64,
    /// Threads without a processor that may be about to bring work.
    away: AtomicUsize,
}

impl Paused {
    pub(super) fn now(&self) -> u64 {
        self.now.load(Relaxed)
    }
}

impl World {
    /// A runtime whose clock stands, with `away` threads that work for it without a processor.
    fn paused(procs: u32, goal: usize, away: usize) -> &'static World {
        World::with(procs, goal, |world| {
            world.timer = Some(AtomicU64::new(DEADLINE));
            world.paused = Some(Paused { now: AtomicU64::new(0), away: AtomicUsize::new(away) });
        })
    }

    fn away(&self) -> &AtomicUsize {
        &self.paused.as_ref().expect("a model in which the clock stands").away
    }

    /// Mirrors `Sched::advance_if_quiet`, with `Sched::quiet_and`; no wait here lies inside one of another runtime.
    pub(super) fn advance_if_quiet(&'static self) -> bool {
        let Some(paused) = &self.paused else { return false };
        let quiet = self.idle.quiet(|_| {
            let agents = paused.away.load(Acquire);
            agents == 0
                && self.inject.is_empty()
                && !self.is_work_visible()
                && self.advance_to(self.earliest_deadline())
        });
        quiet.is_some()
    }

    /// Mirrors step 3 of the protocol.
    fn advance_to(&self, deadline: u64) -> bool {
        if deadline == NEVER {
            return false;
        }
        assert_eq!(self.ran.load(Acquire), self.goal - 1, "the clock overtakes a task that is ready");
        self.paused.as_ref().expect("its clock stands").now.store(deadline, Relaxed);
        true
    }

    /// Mirrors `Sched::clock_may_advance`, with `Sched::reconsider_clock`.
    fn clock_may_advance(&'static self) {
        submit_fence();
        if self.poll_until.load(Relaxed) != 0 {
            self.poller.wake_blocked();
        } else if self.earliest_deadline() != NEVER && self.idle.should_wake() && !self.idle.has_poller() {
            self.idle.wake_one(self, None);
        }
    }

    /// A thread that works for the runtime without a processor, as a blocking closure does, ends; it brings `work`
    /// units.
    fn agent_ends(&'static self, work: usize) {
        for _ in 0..work {
            self.ready_foreign();
        }
        self.away().fetch_sub(1, AcqRel);
        self.clock_may_advance();
    }
}

/// It has nothing to bring, but as long as it was there the clock stood.
#[test]
fn r07_the_clock_goes_on_when_the_last_agent_ends() {
    loom::model(|| {
        let world = World::paused(1, 1, 1);
        let worker = Worker::start(world, take(world), false);
        world.agent_ends(0);
        worker.join().unwrap();
    });
}

#[test]
fn r07_the_clock_waits_for_what_an_agent_brings() {
    bounded(2, || {
        let world = World::paused(1, 2, 1);
        let worker = Worker::start(world, take(world), false);
        world.agent_ends(1);
        worker.join().unwrap();
    });
}

/// A machine sits in the netpoller, or is about to, while another one runs a task to its end.
#[test]
fn r07_the_clock_waits_for_a_task_that_runs() {
    bounded(2, || {
        let world = World::paused(2, 2, 0);
        let workers = [take(world), take(world)];
        world.inject.push(unit());
        let workers = workers.map(|slot| Worker::start(world, slot, false));
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

/// The last one to stop work is a thread that waits in `block_on`, and leaves the timer to whoever sits in the
/// netpoller.
#[test]
fn r07_the_clock_goes_on_when_the_last_processor_is_given_up() {
    bounded(3, || {
        let world = World::paused(2, 1, 0);
        let slot = take(world);
        let worker = Worker::start(world, take(world), false);
        world.give_up(slot);
        worker.join().unwrap();
    });
}

/// A thread that is none of the runtime's arms the timer, which nobody knew of when all went to sleep.
#[test]
fn r07_the_clock_goes_to_a_timer_from_outside() {
    loom::model(|| {
        let world = World::paused(1, 1, 0);
        world.timer.as_ref().unwrap().store(NEVER, Relaxed);
        let worker = Worker::start(world, take(world), false);
        world.arm(DEADLINE);
        worker.join().unwrap();
    });
}
