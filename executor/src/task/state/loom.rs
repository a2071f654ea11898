//! Models of the state word: wakes, polls, the end of a task, its handle, the last reference and the walk at shutdown.
//!
//! What is in a cell is in loom's cells: it sees an access that nothing orders, also one after the memory was given
//! back.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::Mutex;
use loom::sync::atomic::AtomicBool;
use loom::thread;

use super::{AtomicUsize, Completed, Left, State, Woken};
use crate::sys::atomic::Ordering::{Acquire, Relaxed, Release};

/// A cell, with what surrounds it: `cell` in small.
struct Cell {
    state: State,
    /// Everything behind the word. Written when the memory is given back.
    memory: UnsafeCell<()>,
    /// The future's own.
    polls: UnsafeCell<usize>,
    /// Whether the outcome is there.
    outcome: UnsafeCell<bool>,
    outcomes_dropped: AtomicUsize,
    /// The number of the waker in the cell.
    waker: UnsafeCell<usize>,
    /// The numbers of the joiners woken, added up.
    woken: AtomicUsize,
    frees: AtomicUsize,
    /// The unit, if it is queued. Release and Acquire, as all queues: invariant 1.
    queue: AtomicBool,
    /// What the future waits for, both of it. Relaxed: the word alone has to order it for a wake that queues nothing.
    event: AtomicBool,
    other_event: AtomicBool,
    /// After how many polls it ends without the event.
    ends_after: usize,
    /// In so many polls it wakes itself.
    yields: usize,
    /// So many wakers the first poll makes, and so many of them nobody has taken yet.
    makes: usize,
    made: Mutex<usize>,
}

// SAFETY: loom checks what the protocol promises.
unsafe impl Send for Cell {}
// SAFETY: as above.
unsafe impl Sync for Cell {}

impl Cell {
    /// Queued, with its handle, and so many wakers besides.
    fn new(wakers: usize, ends_after: usize) -> Arc<Cell> {
        Self::yielding(wakers, ends_after, 0)
    }

    fn yielding(wakers: usize, ends_after: usize, yields: usize) -> Arc<Cell> {
        Self::making(wakers, ends_after, yields, 0)
    }

    fn making(wakers: usize, ends_after: usize, yields: usize, makes: usize) -> Arc<Cell> {
        let cell = Cell {
            state: State(AtomicUsize::new(0)),
            memory: UnsafeCell::new(()),
            polls: UnsafeCell::new(0),
            outcome: UnsafeCell::new(false),
            outcomes_dropped: AtomicUsize::new(0),
            waker: UnsafeCell::new(0),
            woken: AtomicUsize::new(0),
            frees: AtomicUsize::new(0),
            queue: AtomicBool::new(true),
            event: AtomicBool::new(false),
            other_event: AtomicBool::new(true),
            ends_after,
            yields,
            makes,
            made: Mutex::new(0),
        };
        cell.state.publish();
        (0..wakers).for_each(|_| cell.state.add_ref());
        Arc::new(cell)
    }

    /// Something of the cell is used.
    fn touch(&self) {
        self.memory.with(|_| ());
    }

    fn free(&self) {
        self.memory.with_mut(|_| ());
        self.state.retire();
        // Release: an allocator gives memory from one thread to the next in order.
        self.frees.fetch_add(1, Release);
    }

    fn push(&self) {
        self.touch();
        assert!(!self.queue.swap(true, Release), "there are two units of a task");
    }

    /// Takes the unit, if it is queued, and polls the task.
    fn run(&self) {
        if !self.queue.swap(false, Acquire) {
            return;
        }
        self.touch();
        let mut wakers = 0;
        if !self.state.start() {
            // SAFETY: nobody else has the unit; loom checks that.
            let polls = self.polls.with_mut(|polls| unsafe {
                *polls += 1;
                *polls
            });
            if polls == 1 && self.makes > 0 {
                wakers = self.makes;
                *self.made.lock().unwrap() = wakers;
            }
            if !(self.event.load(Relaxed) && self.other_event.load(Relaxed)) && polls < self.ends_after {
                let is_queued = if polls <= self.yields {
                    self.state.add_refs(wakers);
                    true
                } else {
                    self.state.stop(wakers)
                };
                if is_queued {
                    self.push();
                }
                return;
            }
        }
        self.finish(wakers);
    }

    /// Takes the wakers that a poll has made, if it has.
    fn with_made(&self, f: impl Fn(&Cell)) {
        let made = std::mem::take(&mut *self.made.lock().unwrap());
        (0..made).for_each(|_| f(self));
    }

    fn run_all(&self) {
        while self.queue.load(Relaxed) {
            self.run();
        }
    }

    /// Mirrors `cell::finish`.
    fn finish(&self, wakers: usize) {
        // SAFETY: the future is gone, and the outcome is the completer's.
        self.outcome.with_mut(|outcome| unsafe { *outcome = true });
        match self.state.complete(wakers) {
            Completed::Joined => {}
            Completed::Wake => {
                self.touch();
                // SAFETY: `complete` gave it to us.
                let waker = self.waker.with(|waker| unsafe { *waker });
                if self.state.let_go() {
                    self.free();
                }
                self.woken.fetch_add(waker, Relaxed);
            }
            Completed::Unwanted => {
                self.drop_outcome();
                if self.state.end(wakers) {
                    self.free();
                }
            }
        }
    }

    fn drop_outcome(&self) {
        // SAFETY: who is left with the outcome drops it; loom checks that it is one.
        assert!(self.outcome.with_mut(|outcome| unsafe { std::mem::replace(&mut *outcome, false) }));
        self.outcomes_dropped.fetch_add(1, Relaxed);
    }

    fn wake_by_value(&self) {
        self.touch();
        match self.state.wake_and_let_go() {
            Woken::Queue => self.push(),
            Woken::Nothing => {}
            Woken::Free => self.free(),
        }
    }

    fn wake_by_ref(&self) {
        if self.state.wake() {
            self.push();
        }
    }

    fn drop_waker(&self) {
        self.touch();
        if self.state.let_go() {
            self.free();
        }
    }

    /// Mirrors `Join::poll` with the waker of this number.
    fn join(&self, number: usize) -> bool {
        self.touch();
        if self.state.is_complete() || self.register(number) {
            self.drop_outcome();
            return true;
        }
        false
    }

    fn register(&self, number: usize) -> bool {
        if self.state.has_waker() {
            // SAFETY: both sides look at most.
            if self.waker.with(|waker| unsafe { *waker }) == number {
                return false;
            }
            if !self.state.take_back() {
                return true;
            }
        }
        // SAFETY: JOIN_WAKER is clear.
        self.waker.with_mut(|waker| unsafe { *waker = number });
        !self.state.registered()
    }

    /// Mirrors the drop of a handle.
    fn leave(&self, is_taken: bool) {
        self.touch();
        loop {
            match self.state.leave() {
                Left::Gone => return,
                Left::TakeWaker => {
                    if self.state.take_back() {
                        // SAFETY: it is ours again.
                        self.waker.with_mut(|waker| unsafe { *waker = 0 });
                    }
                }
                Left::DropOutcome => {
                    if !is_taken {
                        self.drop_outcome();
                    }
                    if self.state.let_go_handle() {
                        self.free();
                    }
                    return;
                }
            }
        }
    }

    fn assert_over(&self) {
        assert_eq!(self.frees.load(Relaxed), 1, "the memory was not given back once");
        assert_eq!(self.outcomes_dropped.load(Relaxed), 1, "the outcome was not dropped once");
    }
}

fn spawn(cell: &Arc<Cell>, f: impl FnOnce(&Cell) + 'static) -> thread::JoinHandle<()> {
    let cell = cell.clone();
    thread::spawn(move || f(&cell))
}

/// The waker's thread does what the future waits for, and wakes while the poll ends. It must be seen by a poll.
#[test]
fn r01_a_wake_against_the_end_of_a_poll_is_not_lost() {
    loom::model(|| {
        let cell = Cell::new(1, usize::MAX);
        let waker = spawn(&cell, |cell| {
            cell.event.store(true, Relaxed);
            cell.wake_by_value();
        });
        cell.run_all();
        waker.join().unwrap();
        cell.run_all();
        assert!(cell.join(1), "the wake was lost");
        cell.leave(true);
        cell.assert_over();
    });
}

/// The same of a task that yields: the wake comes before it does, while it is queued, or in the poll after that. The
/// first of its polls is over on another thread.
#[test]
fn r01_a_wake_of_a_task_that_yields_is_not_lost() {
    for yields in [1, 2] {
        loom::model(move || {
            let cell = Cell::yielding(1, usize::MAX, yields);
            let waker = spawn(&cell, |cell| {
                cell.event.store(true, Relaxed);
                cell.wake_by_value();
            });
            let machine = spawn(&cell, Cell::run);
            cell.run();
            machine.join().unwrap();
            waker.join().unwrap();
            cell.run_all();
            assert!(cell.join(1), "the wake was lost");
            cell.leave(true);
            cell.assert_over();
        });
    }
}

/// A poll has given a waker of its own away and is not over: its count is still too low.
#[test]
fn r01_a_waker_that_a_poll_has_made_wakes_while_it_ends() {
    fn wake(cell: &Cell) {
        cell.event.store(true, Relaxed);
        cell.wake_by_value();
    }
    for yields in [0, 1] {
        loom::model(move || {
            let cell = Cell::making(0, usize::MAX, yields, 1);
            let waker = spawn(&cell, |cell| cell.with_made(wake));
            cell.run_all();
            waker.join().unwrap();
            cell.with_made(wake);
            cell.run_all();
            assert!(cell.join(1), "the wake was lost");
            cell.leave(true);
            cell.assert_over();
        });
    }
}

/// The task ends in the poll that has made a waker, which is dropped meanwhile, and wakes who waits for it.
#[test]
fn r23_a_waker_that_the_last_poll_has_made_is_dropped_before_it_ends() {
    loom::model(|| {
        let cell = Cell::making(0, 1, 0, 1);
        assert!(!cell.join(1));
        let dropper = spawn(&cell, |cell| cell.with_made(Cell::drop_waker));
        cell.run();
        assert_eq!(cell.woken.load(Relaxed), 1);
        assert!(cell.join(1));
        cell.leave(true);
        dropper.join().unwrap();
        cell.with_made(Cell::drop_waker);
        cell.assert_over();
    });
}

/// The count is below 0 if both wakers are dropped before the poll is over, as nobody has a handle. The task ends in
/// that poll or in the next one, on any thread.
#[test]
fn r23_wakers_that_a_poll_has_made_are_dropped_before_it_ends() {
    for ends_after in [1, 2] {
        loom::model(move || {
            let cell = Cell::making(0, ends_after, 1, 2);
            cell.leave(false);
            let dropper = spawn(&cell, |cell| cell.with_made(Cell::drop_waker));
            let machine = spawn(&cell, Cell::run);
            cell.run();
            dropper.join().unwrap();
            machine.join().unwrap();
            cell.run_all();
            cell.with_made(Cell::drop_waker);
            cell.assert_over();
        });
    }
}

/// Two wake at once, one of them by reference, and one of the wakes finds the other's. The poll that is going on, or
/// the next one, sees what both wrote.
#[test]
fn r02_two_wakes_against_a_poll_give_one_unit_and_lose_nothing() {
    loom::model(|| {
        let cell = Cell::new(2, usize::MAX);
        cell.other_event.store(false, Relaxed);
        let by_ref = spawn(&cell, |cell| {
            cell.other_event.store(true, Relaxed);
            cell.wake_by_ref();
            cell.drop_waker();
        });
        let by_value = spawn(&cell, |cell| {
            cell.event.store(true, Relaxed);
            cell.wake_by_value();
        });
        cell.run();
        by_ref.join().unwrap();
        by_value.join().unwrap();
        cell.run_all();
        assert!(cell.join(1), "a wake was lost");
        cell.leave(true);
        cell.assert_over();
    });
}

/// The poll goes from one thread to another: what it wrote before it stopped is there.
#[test]
fn r01_a_poll_sees_what_the_one_before_wrote_elsewhere() {
    loom::model(|| {
        let cell = Cell::new(1, 2);
        let waker = spawn(&cell, |cell| {
            cell.wake_by_value();
            cell.run();
        });
        cell.run();
        waker.join().unwrap();
        cell.run_all();
        let done = cell.join(1);
        cell.leave(done);
        // A wake that came before the first poll was used up by it; the task then waits, and shutdown finds it.
        if !done {
            assert!(cell.state.try_ref());
            cell.event.store(true, Relaxed);
            cell.wake_by_value();
            cell.run_all();
        }
        cell.assert_over();
    });
}

/// The end of the task against the poll of its handle: it is ready, or woken.
#[test]
fn r01_who_waits_is_woken_or_finds_the_outcome() {
    loom::model(|| {
        let cell = Cell::new(0, 1);
        let machine = spawn(&cell, Cell::run);
        let mut done = cell.join(1);
        machine.join().unwrap();
        assert_eq!(cell.woken.load(Relaxed), usize::from(!done), "the joiner was not woken, or for nothing");
        if !done {
            done = cell.join(1);
        }
        assert!(done);
        cell.leave(true);
        cell.assert_over();
    });
}

/// The handle changes its waker, then is polled with the same again, while the task ends.
#[test]
fn r01_who_waits_with_another_waker_is_woken_by_that() {
    loom::model(|| {
        let cell = Cell::new(0, 1);
        assert!(!cell.join(1));
        let machine = spawn(&cell, Cell::run);
        let mut done = cell.join(10) || cell.join(10);
        machine.join().unwrap();
        let woken = cell.woken.load(Relaxed);
        // The first one may have been taken before it was changed; then the handle finds the outcome.
        assert!(if done { [0, 1].contains(&woken) || woken == 10 } else { woken == 10 });
        if !done {
            done = cell.join(10);
        }
        assert!(done);
        cell.leave(true);
        cell.assert_over();
    });
}

/// The handle is dropped while the task ends: one of the two drops the outcome, the last one gives the memory back.
#[test]
fn r02_the_outcome_is_dropped_once_when_the_handle_goes() {
    for polled in [false, true] {
        loom::model(move || {
            let cell = Cell::new(0, 1);
            if polled {
                assert!(!cell.join(1));
            }
            let machine = spawn(&cell, Cell::run);
            cell.leave(false);
            machine.join().unwrap();
            cell.assert_over();
        });
    }
}

/// The task ends, its handle goes and its last waker is dropped, all at once.
#[test]
fn r23_the_last_reference_gives_the_memory_back_once() {
    loom::model(|| {
        let cell = Cell::new(1, 1);
        let machine = spawn(&cell, Cell::run);
        let waker = spawn(&cell, Cell::drop_waker);
        let done = cell.join(1);
        cell.leave(done);
        machine.join().unwrap();
        waker.join().unwrap();
        cell.assert_over();
    });
}

/// Nobody waits for the task: whoever of the machine and the last waker comes last gives the memory back.
#[test]
fn r23_the_end_of_a_detached_task_against_its_last_waker() {
    loom::model(|| {
        let cell = Cell::new(1, 1);
        cell.leave(false);
        let waker = spawn(&cell, Cell::drop_waker);
        cell.run();
        waker.join().unwrap();
        cell.assert_over();
    });
}

/// A wake by value of a task that ends: it queues nothing afterwards, and may be the last reference.
#[test]
fn r02_a_wake_of_a_task_that_ends_queues_nothing() {
    loom::model(|| {
        let cell = Cell::new(1, 1);
        cell.leave(false);
        let waker = spawn(&cell, Cell::wake_by_value);
        cell.run();
        waker.join().unwrap();
        assert!(!cell.queue.load(Relaxed), "a task was queued that had ended");
        cell.assert_over();
    });
}

/// The abort ends a task that waits, or has yielded, or comes too late; it is queued once, and its handle told.
#[test]
fn r15_an_abort_against_a_poll_and_a_wake() {
    for yields in [0, 1] {
        loom::model(move || {
            let cell = Cell::yielding(1, usize::MAX, yields);
            let waker = spawn(&cell, Cell::wake_by_value);
            let aborter = spawn(&cell, |cell| {
                if cell.state.abort() {
                    cell.push();
                }
            });
            cell.run();
            waker.join().unwrap();
            aborter.join().unwrap();
            cell.run_all();
            assert!(cell.join(1), "the abort was lost");
            cell.leave(true);
            cell.assert_over();
        });
    }
}

/// Shutdown looks at a cell whose task ends, and at the next task in the same memory: it has a reference to one that is
/// alive, or none.
#[test]
fn r14_a_walk_finds_what_is_alive_and_nothing_else() {
    loom::model(|| {
        let cell = Cell::new(0, 1);
        cell.leave(false);
        let machine = spawn(&cell, |cell| {
            cell.run();
            // Acquire: pairs with `free`.
            if cell.frees.load(Acquire) == 1 {
                // The next task, which nobody can wake.
                cell.memory.with_mut(|_| ());
                // SAFETY: the memory is ours again.
                cell.polls.with_mut(|polls| unsafe { *polls = 7 });
                cell.queue.store(true, Relaxed);
                cell.state.publish();
                cell.leave(false);
            }
        });
        if cell.state.try_ref() {
            cell.touch();
            cell.event.store(true, Relaxed);
            cell.wake_by_value();
        }
        machine.join().unwrap();
        if cell.queue.load(Relaxed) {
            cell.run_all();
        }
        let tasks = cell.frees.load(Relaxed);
        assert!((1..=2).contains(&tasks));
        assert_eq!(cell.outcomes_dropped.load(Relaxed), tasks);
    });
}

/// Shutdown looks at memory in which a task is just being made.
#[test]
fn r14_a_walk_sees_the_whole_of_a_new_task_or_nothing() {
    loom::model(|| {
        let cell = Cell::new(0, 1);
        cell.state.retire();
        let spawner = spawn(&cell, |cell| {
            cell.memory.with_mut(|_| ());
            cell.state.publish();
        });
        if cell.state.try_ref() {
            cell.wake_by_value();
        }
        spawner.join().unwrap();
        cell.leave(false);
        cell.run();
        cell.assert_over();
    });
}

/// A task that waits for nothing, with no handle: the walk finds it, and it is dropped once.
#[test]
fn r14_a_task_that_nobody_can_wake_is_found_at_shutdown() {
    loom::model(|| {
        let cell = Cell::new(0, usize::MAX);
        let machine = spawn(&cell, |cell| {
            cell.run();
            cell.leave(false);
        });
        if cell.state.try_ref() {
            cell.event.store(true, Relaxed);
            cell.wake_by_value();
        }
        machine.join().unwrap();
        cell.run_all();
        if cell.frees.load(Relaxed) == 0 {
            // The wake was used up by the first poll, before the event was to be seen.
            assert!(cell.state.try_ref());
            cell.wake_by_value();
            cell.run_all();
        }
        cell.assert_over();
    });
}

/// Wakes of a task that is queued, or in a poll, are for one poll: the coming one.
#[test]
fn r02_wakes_that_queue_nothing_give_one_poll() {
    loom::model(|| {
        let state = State(AtomicUsize::new(0));
        state.publish();
        assert!(!state.wake() && !state.wake(), "it is queued");
        assert!(!state.start());
        assert!(!state.stop(0), "both were for the poll that has ended");
        assert!(state.wake() && !state.wake());
        assert!(!state.start());
        assert!(!state.wake() && !state.wake(), "it is in its poll");
        assert!(state.stop(0));
        assert!(!state.start());
        assert!(!state.stop(0));
    });
}

/// A closure that is not for a processor any more, on its way from there to the pool, all of whose threads are busy for
/// ever: its abort has it queued for a machine, wherever that finds it. Mirrors `task::run` with
/// `Sched::push_blocking`, and `handles::abort` with `Sched::abort_blocking`.
#[test]
fn r15_an_abort_against_the_way_to_the_pool_finds_the_closure() {
    loom::model(|| {
        let cell = Cell::new(0, 1);
        let pool = Arc::new(Mutex::new(false));
        let its_pool = pool.clone();
        let aborter = spawn(&cell, move |cell| {
            if cell.state.abort() {
                cell.push();
            } else if cell.state.is_alive() {
                let was_there = std::mem::take(&mut *its_pool.lock().unwrap());
                if was_there {
                    cell.push();
                }
            }
        });
        assert!(cell.queue.swap(false, Relaxed));
        if cell.state.start() {
            cell.finish(0);
        } else {
            // It has woken itself.
            let mut queue = pool.lock().unwrap();
            if cell.state.is_aborted() {
                drop(queue);
                cell.push();
            } else {
                *queue = true;
            }
        }
        aborter.join().unwrap();
        assert!(!*pool.lock().unwrap(), "it waits for a thread of the pool");
        cell.run_all();
        assert!(cell.join(1), "it was not dropped");
        cell.leave(true);
        cell.assert_over();
    });
}
