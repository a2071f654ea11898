//! `sysmon`'s last look for a deadlock against the machine that goes idle.

use loom::thread;

use super::*;

/// A task stops a timer that would have kept the runtime alive, and its machine goes idle. `sysmon` ends the model when
/// it has seen that nothing can happen any more; if it sleeps before, nobody wakes it.
#[test]
fn r24_the_last_look_against_the_last_machine_going_idle() {
    bounded(3, || {
        let world = World::with(1, 2, |world| world.timer = Some(AtomicU64::new(1)));
        let slot = take(world);
        assert!(world.idle.start_spinning());
        let worker = Worker::start(world, slot, true);
        // Mirrors `Sched::watch` after so many looks with all processors idle, and `DeadlockWatch::look`.
        loop {
            let sleeps = world.idle.sysmon_sleeps();
            let dead = world.idle.quiet(|_| true).is_some() && world.earliest_deadline() == NEVER;
            let ends_with_a_wake = world.earliest_deadline() != NEVER;
            if dead {
                break;
            }
            if sleeps && ends_with_a_wake {
                world.sysmon.park();
            } else {
                thread::yield_now();
            }
        }
        world.idle.close(world);
        worker.join().unwrap();
    });
}
