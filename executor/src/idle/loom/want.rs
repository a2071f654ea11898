//! `want` against going idle, against closing.

use loom::thread;

use super::*;

/// Mirrors `block_on`: takes a processor, polls, gives it up.
fn block_on(world: &'static World) {
    if let Some(slot) = world.idle.acquire(machine(), None, world) {
        world.hold(slot);
        world.give_up(slot);
    }
}

/// No processor is idle while a machine wants one, and each has one holder at a time.
#[test]
fn r01_want_against_going_idle() {
    bounded(2, || {
        let world = World::new(1, 1);
        let worker = Worker::start(world, take(world), false);
        let other = thread::spawn(move || block_on(world));
        block_on(world);
        other.join().unwrap();
        world.ready_foreign();
        worker.join().unwrap();
    });
}

/// As above, while a task comes.
#[test]
fn r01_want_against_a_submitter() {
    bounded(2, || {
        let world = World::new(1, 1);
        let worker = Worker::start(world, take(world), false);
        let other = thread::spawn(move || block_on(world));
        world.ready_foreign();
        other.join().unwrap();
        worker.join().unwrap();
    });
}

/// A spinner that hands its processor over was what a submitter relied on, and the thread that has the processor now
/// waits for that task.
#[test]
fn r01_a_spinner_that_serves_want_wakes_the_next() {
    bounded(1, || {
        let world = World::with(2, 2, |world| world.gate = Some(Parker::new()));
        let (slot, other) = (take(world), take(world));
        assert!(world.idle.start_spinning());
        let wanting = thread::spawn(move || {
            if let Some(slot) = world.idle.acquire(machine(), None, world) {
                world.count();
                world.give_up(slot);
            }
        });
        while !world.idle.is_wanted() {
            thread::yield_now();
        }
        let submitter = thread::spawn(move || {
            world.give_up(other);
            world.ready_foreign();
        });
        let mut spinner = Worker::new(world, machine());
        (spinner.slot, spinner.spinning) = (Some(slot), true);
        if spinner.hand_to_want(slot) {
            spinner.run_on();
        }
        submitter.join().unwrap();
        wanting.join().unwrap();
    });
}

/// A machine that wants a processor when the runtime closes goes on without one: the machine that has it ends with it
/// (`Worker::abandon`).
#[test]
fn r14_want_against_closing() {
    bounded(3, || {
        let world = World::new(1, 1);
        let _abandoned = take(world);
        let wanting = [(); 2].map(|()| thread::spawn(move || block_on(world)));
        world.idle.close(world);
        for thread in wanting {
            thread.join().unwrap();
        }
    });
}

/// Two threads want the only processor again and again, beside a task: of two processors in a row that are given up one
/// goes to the machine that runs it, and that machine runs it first.
#[test]
fn r04_want_takes_turns_with_the_queues() {
    /// Mirrors a `block_on` that yields.
    fn again_and_again(world: &'static World, before_the_task: &AtomicUsize) {
        for _ in 0..2 {
            let Some(slot) = world.idle.acquire(machine(), None, world) else { return };
            if world.ran.load(Acquire) == 0 {
                before_the_task.fetch_add(1, Relaxed);
            }
            world.give_up(slot);
        }
    }
    bounded(3, || {
        let world = World::new(1, 1);
        let slot = take(world);
        let worker = Worker::parked(world);
        world.ready_foreign();
        let before_the_task = std::sync::Arc::new(AtomicUsize::new(0));
        let other = {
            let before_the_task = before_the_task.clone();
            thread::spawn(move || again_and_again(world, &before_the_task))
        };
        world.give_up(slot);
        again_and_again(world, &before_the_task);
        other.join().unwrap();
        worker.join().unwrap();
        assert!(before_the_task.load(Relaxed) <= 1, "they passed the processor to each other beside a task");
    });
}

/// Two machines in `want` are released while the processor is given up and the runtime closes: each is told one thing,
/// those that were released are as many as were counted, and the processor has not gone to one that went on without.
#[test]
fn r03_a_release_against_giving_up_and_closing() {
    bounded(3, || {
        let world = World::new(1, usize::MAX);
        let slot = take(world);
        let counted = std::sync::Arc::new(AtomicUsize::new(0));
        let wanting = [(); 2].map(|()| {
            thread::spawn(move || {
                let machine = machine();
                match world.idle.acquire(machine, None, world) {
                    Some(slot) => {
                        world.hold(slot);
                        world.give_up(slot);
                        assert!(!machine.take_released());
                        0
                    }
                    None => usize::from(machine.take_released()),
                }
            })
        });
        let sysmon = {
            let counted = counted.clone();
            thread::spawn(move || {
                world.idle.release_want(0, 0, || {
                    counted.fetch_add(1, Relaxed);
                })
            })
        };
        world.give_up(slot);
        let _ = sysmon.join().unwrap();
        let idle = world.idle.counts().idle();
        world.idle.close(world);
        let released: usize = wanting.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(released, counted.load(Relaxed));
        assert!(idle <= 1 && world.idle.counts().idle() == 1, "the processor is lost, or idle twice");
    });
}
