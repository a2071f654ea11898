//! Models of the tally.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use loom::thread;

use super::Tally;

/// A task around a tally, and what its cell does with its wakes. Everything but the tally is relaxed: what orders the
/// threads is the tally.
struct Task {
    tally: Tally,
    queued: AtomicBool,
    polls: AtomicUsize,
    /// What the waker leaves for the task, and what the last poll saw of it.
    left: AtomicUsize,
    seen: AtomicUsize,
}

impl Task {
    /// Its first poll has given a clone of the waker to the thread that is about to start.
    fn new() -> Self {
        let task = Task {
            tally: Tally::new(),
            queued: AtomicBool::new(true),
            polls: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
            seen: AtomicUsize::new(0),
        };
        task.tally.count();
        task
    }

    /// Mirrors `Counted::poll`, by the one thread that runs the task.
    fn run(&self) {
        while self.queued.swap(false, Relaxed) {
            self.tally.begin_poll();
            self.polls.fetch_add(1, Relaxed);
            self.seen.store(self.left.load(Relaxed), Relaxed);
            if self.tally.end_poll() {
                self.queued.swap(true, Relaxed);
            }
        }
    }

    /// Mirrors a wake by value, of the only waker.
    fn wake(&self) {
        self.left.store(1, Relaxed);
        if self.tally.wake() {
            self.queued.swap(true, Relaxed);
        }
        let _ = self.tally.uncount();
    }
}

/// The only waker is used up by another thread, before, while or after the task is polled, and a third thread looks.
#[test]
fn r01_a_leaked_task_is_not_polled_again_and_a_woken_one_is() {
    loom::model(|| {
        let task = Arc::new(Task::new());
        let waker = {
            let task = task.clone();
            thread::spawn(move || task.wake())
        };
        let looker = {
            let task = task.clone();
            thread::spawn(move || {
                task.tally.is_leaked().then(|| {
                    assert!(!task.queued.load(Relaxed), "a leaked task is queued");
                    task.polls.load(Relaxed)
                })
            })
        };
        task.run();
        waker.join().unwrap();
        task.run();
        assert_eq!(task.seen.load(Relaxed), 1, "the last poll came before the wake");
        assert!(task.tally.is_leaked(), "it waits and there is no waker");
        if let Some(polls) = looker.join().unwrap() {
            assert_eq!(polls, task.polls.load(Relaxed), "a leaked task was polled");
        }
    });
}
