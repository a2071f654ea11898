//! Models of the run-next slot: its owner against thieves. What is in the deque is crossbeam's to prove; see
//! `sys::doubles` for what the other models assume of it.

use std::ptr::NonNull;
use std::sync::Arc;

use loom::thread;

use super::{Replaced, RunNext, Unit};
use crate::sys::UnsafeCell;

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

/// Runs what was taken, and tells how many that were.
/// What had been in the slot.
fn displaced(replaced: Replaced) -> Option<Unit> {
    match replaced {
        Replaced::Unit(unit) => Some(unit),
        _ => None,
    }
}

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
