//! Submit against going idle, against `sysmon`'s sleep.

use loom::thread;

use super::*;

/// The last machine goes idle, into the netpoller, while a thread submits.
#[test]
fn r01_submit_against_the_last_machine_going_idle() {
    loom::model(|| {
        let world = World::new(1, 1);
        let worker = Worker::start(world, take(world), false);
        world.ready_foreign();
        worker.join().unwrap();
    });
}

/// As above, onto its parker: another one is in the netpoller.
#[test]
fn r01_submit_against_a_machine_that_parks() {
    bounded(2, || {
        let world = World::new(2, 1);
        let workers = [Worker::start(world, take(world), false), Worker::start(world, take(world), false)];
        world.ready_foreign();
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

/// The last spinner that finds a task wakes the next: the first task waits for the second, and its submitter woke
/// nobody.
#[test]
fn r01_the_last_spinner_wakes_the_next() {
    bounded(1, || {
        let world = World::with(2, 2, |world| world.gate = Some(Parker::new()));
        let spinner = take(world);
        assert!(world.idle.start_spinning());
        let workers = [Worker::start(world, spinner, true), Worker::parked(world)];
        world.ready_foreign();
        world.ready_foreign();
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

/// A machine is granted a processor while it looks once more, and finds something: it must not take a second one.
#[test]
fn r01_a_grant_against_the_second_look() {
    bounded(2, || {
        let world = World::with(2, 2, |world| world.gate = Some(Parker::new()));
        let worker = Worker::start(world, take(world), false);
        world.ready_foreign();
        world.ready_foreign();
        worker.join().unwrap();
    });
}

/// A submitter that counted itself a spinner and then found no processor must not be what another one relies on.
#[test]
fn r01_submit_beside_one_that_finds_no_processor() {
    bounded(3, || {
        let world = World::new(1, 2);
        let worker = Worker::parked(world);
        let first = thread::spawn(move || world.ready_foreign());
        // `block_on`: the processor is gone for a moment.
        if let Some(slot) = world.idle.acquire(machine(), None, world) {
            world.give_up(slot);
        }
        world.ready_foreign();
        first.join().unwrap();
        worker.join().unwrap();
    });
}

/// The second of two queued tasks wakes a machine: the first is behind a poll that waits for it.
#[test]
fn r01_a_task_behind_a_poll_against_a_machine_going_idle() {
    bounded(3, || {
        let world = World::with(2, 1, |world| {
            world.procs[0].local = Some(Local::new(true));
        });
        let slots = [take(world), take(world)];
        let worker = Worker::start(world, slots[1], false);
        let local = world.procs[slots[0] as usize].local.as_ref().unwrap();
        // Mirrors `Sched::ready_local`, for the second of two spawns.
        assert_eq!(local.queue.next.replace(unit()), Replaced::Nothing);
        let displaced = match local.queue.next.replace(unit()) {
            Replaced::Unit(displaced) => displaced,
            _ => unit(),
        };
        local.push(displaced);
        submit_fence();
        if world.idle.should_wake() {
            world.idle.wake_one(world, None);
        }
        // The poll ends when the task has been run: the runtime closes then.
        worker.join().unwrap();
    });
}

/// What is queued on a processor that is spared is left to its machine by all who search. That one gives the processor
/// up in the middle of its poll, while another machine goes idle beside it.
#[test]
fn r01_what_is_left_to_a_spared_processor_goes_on_with_it() {
    bounded(3, || {
        let world = World::with(2, 2, |world| {
            world.procs[0].local = Some(Local::spared());
        });
        let slots = [take(world), take(world)];
        let worker = Worker::start(world, slots[1], false);
        let local = world.procs[slots[0] as usize].local.as_ref().unwrap();
        // Mirrors `Sched::ready_local`, at one of the many times when nobody is woken.
        for _ in 0..2 {
            local.push(unit());
        }
        submit_fence();
        world.give_up(slots[0]);
        worker.join().unwrap();
    });
}

/// A lone task behind a poll is nobody's but `sysmon`'s, which must not sleep while a processor is in use.
#[test]
fn r01_sysmon_does_not_sleep_beside_a_lone_task() {
    bounded(3, || {
        let world = World::with(2, 2, |world| {
            for proc in &mut world.procs {
                proc.local = Some(Local::new(true));
            }
        });
        let worker = Worker::parked(world);
        let long_poll = std::sync::Arc::new(Parker::new());
        let sysmon = {
            let long_poll = long_poll.clone();
            // Mirrors `Sched::watch` and `Sched::look_around`. A poll that lasts is one that the next look finds.
            thread::spawn(move || {
                if world.idle.sysmon_sleeps() {
                    world.sysmon.park();
                }
                long_poll.park();
                let waits =
                    world.procs.iter().filter_map(|p| p.local.as_ref()).any(|local| local.queue.next.peek() != 0);
                if waits && world.idle.should_wake() {
                    world.idle.wake_one(world, None);
                }
            })
        };
        // A `block_on` thread takes the first processor and makes a task ready, then computes.
        let slot = world.idle.acquire(machine(), None, world).unwrap();
        let local = world.procs[slot as usize].local.as_ref().unwrap();
        assert_eq!(local.queue.next.replace(unit()), Replaced::Nothing);
        world.count();
        long_poll.unpark();
        sysmon.join().unwrap();
        worker.join().unwrap();
    });
}

/// As above, on its alarm: it is set while a processor is in use, whoever else has just gone idle and stops it.
#[test]
fn r01_an_alarm_that_is_stopped_is_not_the_next_ones() {
    bounded(3, || {
        let world = World::with(2, 1, |_| {});
        let long_poll = std::sync::Arc::new(Parker::new());
        assert!(world.idle.sysmon_waits());
        let sysmon = {
            let long_poll = long_poll.clone();
            // Mirrors `Sched::sleep_on_alarm`. A poll that lasts ends when `sysmon` has looked at it.
            thread::spawn(move || {
                while {
                    world.alarm.sleep();
                    !world.idle.sysmon_woke(false) || world.idle.sysmon_waits()
                } {}
                long_poll.unpark();
            })
        };
        // A thread takes a processor for a moment. Mirrors `Sched::give_up`.
        let short = thread::spawn(move || {
            let slot = world.idle.acquire(machine(), None, world).unwrap();
            assert_eq!(world.idle.hand_off(slot, || true, false, world), HandedOff::Idle);
            world.idle.stop_alarm(world);
        });
        let slot = world.idle.acquire(machine(), None, world).unwrap();
        long_poll.park();
        assert_eq!(world.idle.hand_off(slot, || true, false, world), HandedOff::Idle);
        short.join().unwrap();
        sysmon.join().unwrap();
    });
}
