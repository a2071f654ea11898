//! The end of a machine that no processor needs, against those who wake it.

use loom::thread;

use super::*;

/// Mirrors the end of `Worker::park` for a machine whose keep-alive is over.
fn keep_alive_is_over(world: &'static World, machine: &'static Machine) {
    if world.idle.leave(machine) {
        return;
    }
    let mut worker = Worker::new(world, machine);
    let grant = machine.park();
    if worker.accept(grant) {
        worker.run_on();
    }
}

/// A task comes: the machine has its grant, or another one is started.
#[test]
fn r01_the_end_of_a_keep_alive_against_a_submitter() {
    bounded(3, || {
        let world = World::with(1, 1, |world| world.gate = Some(Parker::new()));
        let machine = machine();
        world.idle.put_to_sleep(machine);
        let leaver = thread::spawn(move || keep_alive_is_over(world, machine));
        world.ready_foreign();
        world.gate.as_ref().unwrap().park();
        leaver.join().unwrap();
    });
}

/// As above; the processor is handed over in the middle of a poll, and a second machine's time is over too.
#[test]
fn r01_the_ends_of_two_keep_alives_against_giving_up() {
    bounded(2, || {
        let world = World::with(1, 1, |world| world.gate = Some(Parker::new()));
        let slot = take(world);
        let leavers = [(); 2].map(|()| {
            let machine = machine();
            world.idle.put_to_sleep(machine);
            thread::spawn(move || keep_alive_is_over(world, machine))
        });
        world.ready_foreign();
        world.give_up(slot);
        world.gate.as_ref().unwrap().park();
        for leaver in leavers {
            leaver.join().unwrap();
        }
    });
}

/// The runtime closes: the machine has left or is told.
#[test]
fn r14_the_end_of_a_keep_alive_against_closing() {
    loom::model(|| {
        let world = World::new(1, 1);
        let machine = machine();
        world.idle.put_to_sleep(machine);
        let leaver = thread::spawn(move || keep_alive_is_over(world, machine));
        world.idle.close(world);
        leaver.join().unwrap();
    });
}
