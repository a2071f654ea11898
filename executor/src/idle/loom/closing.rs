//! Closing against a wake, against the count of live tasks.

use std::sync::Arc;

use loom::thread;

use super::*;
use crate::sys::submit_fence_after_rmw;

/// Mirrors what `runtime::shutdown` and `task` have of a runtime: one task, which waits, and those that it spawns.
struct Runtime {
    world: &'static World,
    closing: AtomicBool,
    shutdown: Parker,
    /// The task is in a queue. Of several wakes one schedules: `task::state`.
    scheduled: AtomicBool,
    /// Tasks whose state says that they are live: what the walk of the arenas counts.
    live: AtomicUsize,
    /// The machine's thread.
    threads: AtomicUsize,
    guests: AtomicUsize,
    /// The slot, which is another runtime's after shutdown. Read by guests; loom checks that none is left.
    slot: UnsafeCell<()>,
}

// SAFETY: guests only read the slot, and shutdown writes it when none is left; loom checks that.
unsafe impl Sync for Runtime {}

impl Runtime {
    /// With a processor for each thread.
    fn new(threads: usize) -> Arc<Self> {
        Arc::new(Runtime {
            world: World::new(threads as u32, usize::MAX),
            closing: AtomicBool::new(false),
            shutdown: Parker::new(),
            scheduled: AtomicBool::new(false),
            live: AtomicUsize::new(1),
            threads: AtomicUsize::new(threads),
            guests: AtomicUsize::new(0),
            slot: UnsafeCell::new(()),
        })
    }

    /// Mirrors a waker of the task, then `Sched::ready_foreign`.
    fn wake(&self) {
        if self.scheduled.swap(true, AcqRel) {
            return;
        }
        self.world.inject.push(unit());
        submit_fence();
        if self.closing.load(Acquire) {
            self.shutdown.unpark();
        } else if self.world.idle.should_wake() && self.enter() {
            self.world.idle.wake_one(self.world, None);
            self.leave();
        }
    }

    /// Mirrors `Sched::enter`.
    fn enter(&self) -> bool {
        self.guests.fetch_add(1, AcqRel);
        let open = !self.closing.load(Acquire);
        if !open {
            self.leave();
        }
        open
    }

    /// Mirrors `Sched::leave`.
    fn leave(&self) {
        self.guests.fetch_sub(1, AcqRel);
        if self.closing.load(Acquire) {
            self.shutdown.unpark();
        }
    }

    /// The task's future is gone. Mirrors `State::complete` and `Sched::has_ended_task`.
    fn end_task(&self) {
        self.live.fetch_sub(1, AcqRel);
        submit_fence_after_rmw();
        if self.closing.load(Relaxed) {
            self.shutdown.unpark();
        }
    }

    /// Mirrors `shutdown::close` and `shutdown::discard_all`, then gives the slot away.
    fn shut_down(&self) {
        self.closing.swap(true, AcqRel);
        idle_fence();
        self.world.idle.close(self.world);
        self.wake();
        loop {
            while self.world.inject.pop().is_some() {
                self.end_task();
            }
            let threads = self.threads.load(Acquire) + self.guests.fetch_add(0, AcqRel);
            if self.live.load(Relaxed) == 0 && threads == 0 {
                self.slot.with_mut(|_| ());
                return;
            }
            self.shutdown.park();
        }
    }
}

/// The waker has won the right to queue the task, and shutdown waits for that.
#[test]
fn r14_a_wake_against_closing() {
    loom::model(|| {
        let runtime = Runtime::new(0);
        let waker = {
            let runtime = runtime.clone();
            thread::spawn(move || runtime.wake())
        };
        runtime.shut_down();
        waker.join().unwrap();
    });
}

/// The task has been taken by a thread that is neither a machine nor the one that shuts down, and ends there.
#[test]
fn r14_a_task_that_ends_elsewhere_against_closing() {
    loom::model(|| {
        let runtime = Runtime::new(0);
        runtime.scheduled.store(true, Relaxed);
        let elsewhere = {
            let runtime = runtime.clone();
            thread::spawn(move || runtime.end_task())
        };
        runtime.shut_down();
        elsewhere.join().unwrap();
    });
}

/// A thread of others is in the runtime or finds it closing; shutdown waits for it.
#[test]
fn r14_a_guest_against_closing() {
    loom::model(|| {
        let runtime = Runtime::new(0);
        let guest = {
            let runtime = runtime.clone();
            thread::spawn(move || {
                if runtime.enter() {
                    runtime.slot.with(|_| ());
                    runtime.leave();
                }
            })
        };
        runtime.shut_down();
        guest.join().unwrap();
    });
}

/// A machine runs the task to its end, or shutdown drops it, and the machine ends.
#[test]
fn r14_closing_against_a_wake_and_the_machine_that_runs_it() {
    bounded(2, || {
        let runtime = Runtime::new(1);
        let world = runtime.world;
        let slot = take(world);
        let machine = {
            let runtime = runtime.clone();
            thread::spawn(move || {
                let mut worker = Worker::new(world, machine());
                worker.slot = Some(slot);
                while worker.find() {
                    if worker.spinning {
                        worker.stop_spinning();
                    }
                    runtime.end_task();
                }
                // Mirrors the end of `threads::start`.
                runtime.threads.fetch_sub(1, AcqRel);
                runtime.shutdown.unpark();
            })
        };
        let waker = {
            let runtime = runtime.clone();
            thread::spawn(move || runtime.wake())
        };
        runtime.shut_down();
        machine.join().unwrap();
        waker.join().unwrap();
    });
}

/// A machine that has not learned that the runtime closes runs a waker that spawns, in its arena, then ends and leaves
/// the new task in the global queue. No task lives before, but shutdown must not be over until it has dropped that one.
#[test]
fn r14_a_spawn_on_a_machine_against_closing() {
    loom::model(|| {
        let runtime = Runtime::new(1);
        runtime.live.store(0, Relaxed);
        runtime.scheduled.store(true, Relaxed);
        let machine = {
            let runtime = runtime.clone();
            thread::spawn(move || {
                // Mirrors `State::publish` and the push, to a queue of its own.
                runtime.live.fetch_add(1, Relaxed);
                let spawned = unit();
                // Mirrors `Worker::abandon`.
                runtime.world.inject.push(spawned);
                runtime.shutdown.unpark();
                // Mirrors the end of `threads::start`.
                runtime.threads.fetch_sub(1, AcqRel);
                runtime.shutdown.unpark();
            })
        };
        runtime.shut_down();
        assert_eq!(runtime.live.load(Relaxed), 0, "a task outlives its runtime");
        machine.join().unwrap();
    });
}
