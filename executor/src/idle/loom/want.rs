//! `want` against going idle, against closing.

use loom::thread;

use super::*;

/// Mirrors `block_on`: takes a processor, polls, gives it up.
fn block_on(world: &'static World) {
    if let Some(slot) = world.idle.acquire(machine(), world) {
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

/// A spinner that hands its processor over was what a submitter relied on, and the thread that has the processor now waits
/// for that task.
#[test]
fn r01_a_spinner_that_serves_want_wakes_the_next() {
    bounded(1, || {
        let world = World::with(2, 2, |world| world.gate = Some(Parker::new()));
        let (slot, other) = (take(world), take(world));
        assert!(world.idle.start_spinning());
        let wanting = thread::spawn(move || {
            if let Some(slot) = world.idle.acquire(machine(), world) {
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
        let mut spinner = Worker { world, machine: machine(), slot: Some(slot), spinning: true };
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
