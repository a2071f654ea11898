//! Models of the run-next slot and the ring: their owner against thieves and against `sysmon`. Those of the ring alone
//! are in `loom/ring.rs`.

use std::ptr::NonNull;
use std::sync::Arc;

use loom::thread;

mod ring;

use super::{Overflow, Replaced, RunNext, RunQueue, Unit};
use crate::inject::Inject;
use crate::sys::doubles::bounded;
use crate::sys::{UnsafeCell, idle_fence, submit_fence, submit_fence_after_rmw};

/// A task whose memory says how often it was run. loom checks that whoever runs it sees what was written before.
struct Task {
    runs: UnsafeCell<u32>,
}

// SAFETY: whoever has the unit has the task; the slot hands it over. loom checks that.
unsafe impl Sync for Task {}

fn task() -> &'static Task {
    Box::leak(Box::new(Task { runs: UnsafeCell::new(0) }))
}

fn unit(task: &'static Task) -> Unit {
    // SAFETY: the task is not in a queue.
    task.runs.with_mut(|runs| unsafe { *runs = 1 });
    Unit::new(NonNull::from(task).cast())
}

/// What had been in the slot.
fn displaced(replaced: Replaced) -> Option<Unit> {
    match replaced {
        Replaced::Unit(unit) => Some(unit),
        _ => None,
    }
}

/// Runs what was taken, and tells how many that were.
fn run(unit: Option<Unit>) -> u32 {
    let Some(unit) = unit else { return 0 };
    // SAFETY: it came from `unit`, and tasks are leaked.
    let task: &Task = unsafe { unit.into_raw().cast().as_ref() };
    // SAFETY: the unit is the sole right to the task.
    task.runs.with_mut(|runs| unsafe {
        assert_eq!(*runs, 1, "a task was run twice");
        *runs += 1;
    });
    1
}

fn thief(next: Arc<RunNext>) -> thread::JoinHandle<u32> {
    thread::spawn(move || match next.peek() {
        0 => 0,
        seen => run(next.steal(seen)),
    })
}

#[test]
fn r02_owner_and_two_thieves_run_one_task_once() {
    loom::model(|| {
        let next = Arc::new(RunNext::new());
        let thieves = [thief(next.clone()), thief(next.clone())];
        assert_eq!(next.replace(unit(task())), Replaced::Nothing);
        let own = run(next.take());
        let stolen: u32 = thieves.into_iter().map(|thief| thief.join().unwrap()).sum();
        assert_eq!(own + stolen, 1);
    });
}

#[test]
fn r02_a_displaced_task_is_the_owners_or_a_thiefs() {
    loom::model(|| {
        let next = Arc::new(RunNext::new());
        assert_eq!(next.replace(unit(task())), Replaced::Nothing);
        let thieves = [thief(next.clone()), thief(next.clone())];
        let own = run(displaced(next.replace(unit(task())))) + run(next.take());
        let stolen: u32 = thieves.into_iter().map(|thief| thief.join().unwrap()).sum();
        assert_eq!(own + stolen, 2);
    });
}

/// The same pointer is back in the slot: the thief that saw the first takes the second, which is as good.
#[test]
fn r02_the_same_task_twice_in_the_slot_is_run_twice() {
    loom::model(|| {
        let next = Arc::new(RunNext::new());
        let task = task();
        assert_eq!(next.replace(unit(task)), Replaced::Nothing);
        let thief = thief(next.clone());
        let mut own = 0;
        if let Some(first) = next.take() {
            own += run(Some(first));
            assert_eq!(next.replace(unit(task)), Replaced::Nothing);
            own += run(next.take());
        }
        let expected = if own == 0 { 1 } else { 2 };
        assert_eq!(own + thief.join().unwrap(), expected);
    });
}

/// A processor's queue, and where its units go when it is condemned. The owner's steps mirror
/// `Sched::ready_local`, `Sched::ready_yielded` and `Worker::find`, those of `sysmon` mirror `Sched::rescue`.
struct Queue {
    local: RunQueue<4>,
    global: Inject,
}

impl Overflow for Queue {
    fn overflow(&self, _units: impl Iterator<Item = Unit>) {
        unreachable!("no model here queues so many");
    }
}

impl Queue {
    fn new() -> Arc<Self> {
        Arc::new(Queue { local: RunQueue::new(), global: Inject::new() })
    }

    fn push(&self, unit: Unit) {
        // SAFETY: the caller is the owner.
        unsafe { self.local.push(unit, self) };
    }

    fn pop(&self) -> Option<Unit> {
        // SAFETY: as above.
        unsafe { self.local.pop() }
    }

    fn wake(&self, unit: Unit) {
        match self.local.next.replace(unit) {
            Replaced::Nothing => {}
            Replaced::Unit(displaced) => {
                self.push(displaced);
                submit_fence();
                self.second_look();
            }
            Replaced::Condemned(unit) => self.global.push(unit),
        }
    }

    fn yields(&self, unit: Unit) {
        self.push(unit);
    }

    /// Mirrors `Sched::after_push` and `Sched::spill`.
    fn second_look(&self) {
        if self.local.next.is_condemned() {
            self.global.push_batch(std::iter::from_fn(|| self.pop()));
        }
    }

    /// A pick. With `look` it takes from the global queue first.
    fn pick(&self, look: bool) -> Option<Unit> {
        if self.local.next.is_condemned() {
            self.global.push_batch(std::iter::from_fn(|| self.pop()));
            return None;
        }
        if look {
            if let Some(unit) = self.global.pop() {
                submit_fence();
                self.second_look();
                return Some(unit);
            }
        }
        if let Some(unit) = self.local.next.take() {
            return Some(unit);
        }
        let unit = self.pop()?;
        submit_fence_after_rmw();
        self.second_look();
        Some(unit)
    }

    /// Any thread.
    fn steal(&self) -> u32 {
        let next = self.local.next.peek();
        run(self.local.steal_one().or_else(|| if next == 0 { None } else { self.local.next.steal(next) }))
    }

    fn rescue(self: &Arc<Self>) -> thread::JoinHandle<()> {
        let queue = self.clone();
        thread::spawn(move || {
            let next = queue.local.next.condemn();
            idle_fence();
            queue.global.push_batch(next.into_iter().chain(std::iter::from_fn(|| queue.local.steal_one())));
        })
    }

    /// The owner is in a poll that never ends: nothing is left to it. Tells how many units are in the global queue.
    fn stranded_none(&self) -> u32 {
        assert!(self.local.next.is_condemned());
        assert_eq!(self.local.len_seen(), 0, "a task is left in the queue of a poll that never ends");
        std::iter::from_fn(|| self.global.pop()).map(|unit| run(Some(unit))).sum()
    }
}

/// The poll wakes two tasks and never ends.
#[test]
fn r03_ready_against_rescue() {
    loom::model(|| {
        let queue = Queue::new();
        let sysmon = queue.rescue();
        queue.wake(unit(task()));
        queue.wake(unit(task()));
        sysmon.join().unwrap();
        assert_eq!(queue.stranded_none(), 2);
    });
}

/// As above, beside a thief.
#[test]
fn r03_ready_against_rescue_and_a_thief() {
    bounded(3, || {
        let queue = Queue::new();
        let sysmon = queue.rescue();
        let thief = {
            let queue = queue.clone();
            thread::spawn(move || queue.steal())
        };
        queue.wake(unit(task()));
        queue.wake(unit(task()));
        sysmon.join().unwrap();
        let stolen = thief.join().unwrap();
        assert_eq!(queue.stranded_none() + stolen, 2);
    });
}

/// The poll wakes two tasks and ends, and the next never does: that one may still be run by the owner.
#[test]
fn r03_ready_against_rescue_and_the_next_pick() {
    loom::model(|| {
        let queue = Queue::new();
        let sysmon = queue.rescue();
        queue.wake(unit(task()));
        queue.wake(unit(task()));
        let own = run(queue.pick(false));
        sysmon.join().unwrap();
        assert_eq!(queue.stranded_none() + own, 2);
    });
}

/// The poll yields, which is a push without a fence, and the next one, of a task that waited in the same queue, never
/// ends.
#[test]
fn r03_a_yield_against_rescue_and_the_next_pick() {
    loom::model(|| {
        let queue = Queue::new();
        queue.yields(unit(task()));
        let sysmon = queue.rescue();
        queue.yields(unit(task()));
        let own = run(queue.pick(false));
        sysmon.join().unwrap();
        assert_eq!(queue.stranded_none() + own, 2);
    });
}

/// As above; the next one is from the global queue.
#[test]
fn r03_a_yield_against_rescue_and_a_look_around() {
    loom::model(|| {
        let queue = Queue::new();
        queue.global.push(unit(task()));
        let sysmon = queue.rescue();
        queue.yields(unit(task()));
        let own = run(queue.pick(true));
        sysmon.join().unwrap();
        assert_eq!(queue.stranded_none() + own, 2);
    });
}
