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
    bounded(3, || {
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

/// A machine that wants a processor when the runtime closes goes on without one.
#[test]
fn r14_want_against_closing() {
    bounded(3, || {
        let world = World::new(1, 1);
        let slot = take(world);
        let other = thread::spawn(move || block_on(world));
        let third = thread::spawn(move || block_on(world));
        world.count();
        world.idle.close(world);
        world.give_up(slot);
        other.join().unwrap();
        third.join().unwrap();
    });
}
