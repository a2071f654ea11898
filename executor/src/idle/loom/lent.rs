//! A thread of the pool that takes an idle processor for what it wakes, against everybody else who does something with
//! the last processor: no task is left behind, and no closure that the thread keeps.

use std::sync::Arc;

use loom::thread;

use super::*;
use crate::sys::{Mutex, rank};

/// What the pool has of a closure that is queued. Mirrors `blocking::State`.
#[derive(Default)]
struct Queued {
    closures: usize,
    kept: usize,
    coming: usize,
    round: u32,
}

/// Mirrors `blocking::lent`, and of `blocking` what that rests on: closures here are numbers to count, as tasks are.
struct Pool {
    world: &'static World,
    queued: Mutex<Queued>,
}

impl Pool {
    fn new(world: &'static World) -> Arc<Self> {
        Arc::new(Pool { world, queued: Mutex::new(rank::LEAF, Queued::default()) })
    }

    /// Mirrors `Sched::call`: another thread comes, at once, and runs a closure if one is left.
    fn call(&self) {
        let mut queued = self.queued.lock();
        if queued.closures <= queued.coming + queued.kept {
            return;
        }
        queued.coming += 1;
        drop(queued);
        let mut queued = self.queued.lock();
        queued.coming -= 1;
        drop(queued);
        self.run_closures();
    }

    fn run_closures(&self) {
        loop {
            let mut queued = self.queued.lock();
            if queued.closures == 0 {
                return;
            }
            queued.closures -= 1;
            drop(queued);
            self.world.count();
        }
    }

    /// A task that a lent thread runs queues a closure, which that thread keeps. Mirrors `State::keep`.
    fn keep(&self) -> u32 {
        let mut queued = self.queued.lock();
        queued.closures += 1;
        queued.kept += 1;
        queued.round
    }

    /// Mirrors `Keeping::end`.
    fn end_keeping(&self, round: u32) {
        let mut queued = self.queued.lock();
        if queued.round == round {
            queued.kept -= 1;
        }
    }

    /// Mirrors `Sched::blocking_retry`, at a look of `sysmon`.
    fn look(&self) {
        let mut queued = self.queued.lock();
        if queued.kept > 0 {
            queued.kept = 0;
            queued.round += 1;
        }
        drop(queued);
        self.call();
    }
}

/// The end of a closure wakes a task. Mirrors `Sched::ready_outside` and `Worker::run_lent`: the thread runs it itself
/// if a processor is idle.
fn end_closure(world: &'static World, ran: impl FnOnce()) {
    let Some(slot) = world.idle.take(world) else {
        return world.ready_foreign();
    };
    world.hold(slot);
    let next = &world.procs[slot as usize].local.as_ref().expect("a model with queues").queue.next;
    let before = next.replace(unit());
    assert!(matches!(before, Replaced::Nothing), "an idle processor had a task");
    // A thief may have it.
    if next.take().is_some() {
        world.count();
        ran();
    }
    world.give_up(slot);
}

fn with_queues(procs: u32, goal: usize) -> &'static World {
    World::with(procs, goal, |world| {
        world.procs.iter_mut().for_each(|p| p.local = Some(Local::new(false)));
    })
}

/// The thread has the only processor when a task comes from outside, and a machine is about to sleep, or sleeps.
#[test]
fn r01_a_lent_thread_against_going_idle_and_a_submitter() {
    bounded(2, || {
        let world = with_queues(1, 2);
        let worker = Worker::start(world, take(world), false);
        let lent = thread::spawn(move || end_closure(world, || ()));
        world.ready_foreign();
        lent.join().unwrap();
        worker.join().unwrap();
    });
}

/// Two of them end their closures at once, and no machine is awake.
#[test]
fn r01_two_lent_threads_and_one_processor() {
    bounded(3, || {
        let world = with_queues(1, 2);
        let worker = Worker::parked(world);
        let other = thread::spawn(move || end_closure(world, || ()));
        end_closure(world, || ());
        other.join().unwrap();
        worker.join().unwrap();
    });
}

/// A lent thread finds no processor when the runtime closes: what it wakes is in the global queue, which shutdown
/// empties.
#[test]
fn r14_a_lent_thread_against_closing() {
    bounded(3, || {
        let world = with_queues(1, usize::MAX);
        let lent = thread::spawn(move || end_closure(world, || ()));
        world.idle.close(world);
        lent.join().unwrap();
        let ran = world.ran.load(Relaxed);
        assert_eq!(ran + usize::from(world.inject.pop().is_some()), 1, "a task is lost, or was there twice");
    });
}

/// The task that a lent thread runs waits in its poll for the closure that the thread keeps: a look of `sysmon` calls
/// another one for it, and the thread is back before, or afterwards.
#[test]
fn r16_a_kept_closure_against_a_look() {
    for waits in [false, true] {
        bounded(3, move || {
            let world = with_queues(1, 2);
            let pool = Pool::new(world);
            let worker = Worker::parked(world);
            let lent = {
                let pool = pool.clone();
                thread::spawn(move || {
                    let mut keeps = None;
                    end_closure(world, || {
                        keeps = Some(pool.keep());
                        while waits && pool.queued.lock().closures > 0 {
                            thread::yield_now();
                        }
                    });
                    pool.end_keeping(keeps.expect("a processor was idle"));
                    pool.run_closures();
                })
            };
            while waits && pool.queued.lock().kept == 0 {
                thread::yield_now();
            }
            pool.look();
            lent.join().unwrap();
            worker.join().unwrap();
            let queued = pool.queued.lock();
            assert_eq!((queued.closures, queued.kept, queued.coming), (0, 0, 0));
        });
    }
}

/// Mirrors what shutdown asks of the threads of one closure's runtime, and what the thread does with itself.
struct Ending {
    /// Mirrors the machines among `sched::threads::Threads`.
    machines: AtomicUsize,
    /// Closures that run, threads of the pool, those of them that are lent. Mirrors `blocking::State`.
    state: Mutex<(usize, usize, usize)>,
    shutdown: Parker,
    /// What a thread that runs tasks touches, and shutdown gives away when none is left.
    tasks: UnsafeCell<()>,
}

// SAFETY: the thread only reads the cell, and shutdown writes it when that is over; loom checks that.
unsafe impl Sync for Ending {}

/// Shutdown waits for a thread that is lent, at whatever point of its closure, its lending or its return it looks.
#[test]
fn r14_shutdown_waits_for_a_thread_that_is_being_lent() {
    loom::model(|| {
        let ending = Arc::new(Ending {
            machines: AtomicUsize::new(0),
            state: Mutex::new(rank::LEAF, (1, 1, 0)),
            shutdown: Parker::new(),
            tasks: UnsafeCell::new(()),
        });
        let lent = {
            let ending = ending.clone();
            thread::spawn(move || {
                // Mirrors `Sched::processor_for_what_a_closure_wakes`, then `run_closures`.
                ending.machines.fetch_add(1, AcqRel);
                {
                    let mut state = ending.state.lock();
                    state.0 -= 1;
                    state.2 += 1;
                }
                // Mirrors `blocking::lent::run`.
                ending.tasks.with(|_| ());
                {
                    let mut state = ending.state.lock();
                    state.2 -= 1;
                    ending.machines.fetch_sub(1, AcqRel);
                    ending.shutdown.unpark();
                }
                // Mirrors the end of `serve`.
                ending.state.lock().1 -= 1;
                ending.shutdown.unpark();
            })
        };
        // Mirrors `shutdown::leftover` and `shutdown::discard_all`.
        loop {
            let (running, blocking) = {
                let state = ending.state.lock();
                (state.0, state.1 - state.2)
            };
            if running == 0 && blocking == 0 && ending.machines.load(Acquire) == 0 {
                break;
            }
            ending.shutdown.park();
        }
        ending.tasks.with_mut(|_| ());
        lent.join().unwrap();
    });
}
