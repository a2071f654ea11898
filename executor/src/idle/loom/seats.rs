//! The seat in the netpoller: who sleeps there, until when, and who is told.

use loom::thread;

use super::*;

fn with_timer(procs: u32, goal: usize) -> &'static World {
    World::with(procs, goal, |world| world.timer = Some(AtomicU64::new(NEVER)))
}

/// A thread without a processor arms a timer while the last machine goes to sleep in the netpoller.
#[test]
fn r01_a_timer_against_the_machine_that_sleeps_for_all() {
    loom::model(|| {
        let world = with_timer(1, 1);
        let worker = Worker::start(world, take(world), false);
        world.arm(5);
        worker.join().unwrap();
    });
}

/// A machine in the netpoller is granted a processor while another one goes idle: one of them has the seat at a time.
#[test]
fn r01_one_machine_at_a_time_is_in_the_netpoller() {
    bounded(2, || {
        let world = World::new(2, 1);
        let workers = [Worker::start(world, take(world), false), Worker::start(world, take(world), false)];
        // Somebody saw work that was gone before the machine came.
        world.idle.wake_one(world, None);
        world.ready_foreign();
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

/// The machine in the netpoller is taken away for a task while a timer is armed: whoever sits down next sees it.
#[test]
fn r01_a_timer_and_a_task_against_the_machine_in_the_netpoller() {
    bounded(2, || {
        let world = with_timer(1, 2);
        let worker = Worker::start(world, take(world), false);
        let task = thread::spawn(move || world.ready_foreign());
        world.arm(5);
        task.join().unwrap();
        worker.join().unwrap();
    });
}

/// A worker arms a timer without telling anybody; it looks when it gives its processor up.
#[test]
fn r01_a_timer_of_a_thread_that_gives_its_processor_up() {
    bounded(2, || {
        let world = with_timer(2, 1);
        let slot = take(world);
        let worker = Worker::start(world, take(world), false);
        world.timer.as_ref().unwrap().store(5, Relaxed);
        world.give_up(slot);
        worker.join().unwrap();
    });
}
