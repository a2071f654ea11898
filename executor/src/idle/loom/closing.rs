//! Closing against a wake, against the count of live tasks.

use std::sync::Arc;

use loom::thread;

use super::*;
use crate::sys::{Mutex, rank};

/// Mirrors what `runtime::shutdown` and `task` have of a runtime: one task, which waits.
struct Runtime {
    world: &'static World,
    closing: AtomicBool,
    shutdown: Parker,
    /// The task is in a queue. Of several wakes one schedules: `task::state`.
    scheduled: AtomicBool,
    registry: Mutex<()>,
    /// Written under `registry`, read without.
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
            registry: Mutex::new(rank::REGISTRY, ()),
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

    /// The task's future is gone. Mirrors `registry::remove` and `Sched::task_ended`.
    fn end_task(&self) {
        let registry = self.registry.lock();
        self.live.store(self.live.load(Relaxed) - 1, Relaxed);
        drop(registry);
        if self.closing.load(Relaxed) {
            self.shutdown.unpark();
        }
    }

    /// Mirrors `shutdown::close` and `shutdown::discard_all`, then gives the slot away.
    fn shut_down(&self) {
        self.closing.swap(true, AcqRel);
        idle_fence();
        drop(self.registry.lock());
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
