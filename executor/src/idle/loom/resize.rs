//! The number of processors changes: against steal, going idle, `want`, and those who submit.

use loom::thread;

use super::*;

/// Each processor has a queue; all `units` are in that of the last one, whose machine is asked to quit by and by. With
/// more than two processors the first task waits for the last.
fn with_queues(procs: u32, units: usize, goal: usize) -> &'static World {
    let world = World::with(procs, goal, |world| {
        if procs > 2 {
            world.gate = Some(Parker::new());
        }
        for proc in &mut world.procs {
            proc.local = Some(Local::new(false));
            proc.asked = Some(AtomicBool::new(false));
        }
    });
    let last = world.procs.last().and_then(|p| p.local.as_ref());
    (0..units).for_each(|_| last.expect("a queue").push(unit()));
    world
}

/// Nothing was run twice.
fn check(world: &World) {
    assert_eq!(world.ran.load(Relaxed), world.goal);
}

/// A machine quits its processor with two tasks, while another one steals from it and goes idle: each task is run once.
#[test]
fn r03_resize_against_steal_and_going_idle() {
    bounded(2, || {
        let world = with_queues(2, 2, 2);
        let slots = [take(world), take(world)];
        let workers = slots.map(|slot| Worker::start(world, slot, false));
        world.resize(1);
        for worker in workers {
            worker.join().unwrap();
        }
        check(world);
    });
}

/// A thread in `block_on` gives up the processor that is one too many, or is going to be: it never looks at a queue
/// again, and the only machine sleeps.
#[test]
fn r01_a_dying_processor_that_is_given_up_wakes_a_machine_for_its_tasks() {
    bounded(3, || {
        let world = with_queues(2, 1, 1);
        let (living, dying) = (take(world), take(world));
        let worker = Worker::parked(world);
        world.give_up(living);
        let resizer = thread::spawn(move || world.resize(1));
        world.give_up(dying);
        resizer.join().unwrap();
        worker.join().unwrap();
        check(world);
    });
}

/// A machine that quits goes on with another processor, with the first of its tasks, which waits for the second:
/// somebody else must be woken for that one.
#[test]
fn r01_a_machine_that_quits_wakes_another_one_for_the_rest() {
    bounded(2, || {
        let world = with_queues(3, 1, 2);
        // One in the ring and one in the slot are not for others to see.
        assert_eq!(world.procs[2].local.as_ref().unwrap().queue.next.replace(unit()), Replaced::Nothing);
        let slots = [take(world), take(world), take(world)];
        let parked = Worker::parked(world);
        slots[..2].iter().for_each(|slot| world.give_up(*slot));
        world.resize(2);
        let worker = Worker::start(world, slots[2], false);
        parked.join().unwrap();
        worker.join().unwrap();
        check(world);
    });
}

/// A processor dies and comes back at once, for another machine: its queue has one owner at a time.
#[test]
fn r03_a_processor_that_dies_and_comes_back_has_one_owner() {
    bounded(2, || {
        let world = with_queues(2, 1, 2);
        let slots = [take(world), take(world)];
        let worker = Worker::start(world, slots[1], false);
        world.resize(1);
        world.resize(2);
        world.ready_foreign();
        // Somebody takes it if it is idle again.
        world.give_up(slots[0]);
        worker.join().unwrap();
        check(world);
    });
}

/// A thread submits while there is no idle processor, and one comes to life: whoever made it looks at the queues.
#[test]
fn r01_submit_against_a_processor_that_comes_to_life() {
    loom::model(|| {
        let world = World::with(2, 1, |world| {
            world.gate = Some(Parker::new());
            world.procs.iter_mut().for_each(|p| p.asked = Some(AtomicBool::new(false)));
        });
        world.resize(1);
        // A poll that waits for the task.
        let _polling = take(world);
        let submitter = thread::spawn(move || world.ready_foreign());
        world.resize(2);
        world.gate.as_ref().unwrap().park();
        submitter.join().unwrap();
    });
}

/// Two threads want a processor. One dies, which does not help them, and comes back, which does.
#[test]
fn r03_resize_against_want() {
    bounded(2, || {
        let world = with_queues(2, 0, usize::MAX);
        let (kept, dying) = (take(world), take(world));
        let wanting = [(); 2].map(|()| {
            thread::spawn(move || {
                let slot = world.idle.acquire(machine(), None, world).expect("the runtime is open");
                world.hold(slot);
                world.give_up(slot);
            })
        });
        world.resize(1);
        world.give_up(dying);
        world.resize(2);
        for thread in wanting {
            thread.join().unwrap();
        }
        world.give_up(kept);
        assert_eq!((world.idle.counts().idle(), world.idle.counts().spinning()), (2, 0));
    });
}

/// A machine is granted a processor that is one too many by then: it quits it, and takes the task elsewhere.
#[test]
fn r03_resize_against_a_grant() {
    bounded(2, || {
        let world = with_queues(2, 0, 1);
        let worker = Worker::parked(world);
        let resizer = thread::spawn(move || world.resize(1));
        world.ready_foreign();
        resizer.join().unwrap();
        worker.join().unwrap();
        check(world);
    });
}

/// `sysmon` does not sleep beside a processor that is dying: nobody else sees to the task behind its poll.
#[test]
fn r05_sysmon_does_not_sleep_beside_a_dying_processor() {
    loom::model(|| {
        let world = with_queues(2, 0, usize::MAX);
        let (living, dying) = (take(world), take(world));
        let resizer = thread::spawn(move || world.resize(1));
        world.give_up(living);
        assert!(!world.idle.sysmon_sleeps());
        resizer.join().unwrap();
        world.give_up(dying);
        assert!(world.idle.sysmon_sleeps());
    });
}
