//! Models of the arena: what an owner takes and puts away beside threads that free and one that walks. Pages are memory
//! of the system's, as ever; the words and links of the cells in them are loom's, made where the cells are made.
//!
//! loom takes only the last access to an atomic for what another one races with. So the owner swaps here without the
//! look that `collect` takes before: a load by the owner would hide behind the load of whoever pushes, and nothing
//! would come back.
//!
//! Assumed: who reads a page that was given back reads rubbish, and fails one way or another. The word is that of
//! `task::state` as far as it matters here: a task that lives has a count for itself, and only such a task is counted
//! up.

use std::ptr::NonNull;
use std::sync::Arc;

use ::loom::{model, thread};

use super::{Arena, CLASSES, Cell, PUT_AWAY, Page};
use crate::sys::UnsafeCell;
use crate::sys::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// The largest class: few cells are made at a time.
const CLASS: usize = CLASSES - 1;
/// In a word: the task lives. Counts lie below.
const ALIVE: usize = 1 << 8;
/// Stays until the memory goes back, as marks of a task that has ended do.
const MADE: usize = 1 << 9;

/// The arena's part of a task, and what is read only by whoever has a count.
#[repr(C)]
struct Task {
    cell: Cell,
    is_here: UnsafeCell<bool>,
}

#[derive(Clone, Copy)]
struct Ref(NonNull<Task>);

// SAFETY: it stands for a count.
unsafe impl Send for Ref {}

impl Ref {
    /// The owner makes a task, which lives.
    fn make(arena: &Arena) -> Ref {
        // SAFETY: the model's owner calls, and each thread of the model keeps the arena.
        let task = unsafe { arena.take(CLASS) }.unwrap().cast::<Task>();
        // SAFETY: the cell is ours and large enough.
        unsafe {
            let word = &(*task.as_ptr()).cell.word;
            assert_eq!(word.load(Relaxed), 0);
            (&raw mut (*task.as_ptr()).is_here).write(UnsafeCell::new(true));
            // Release: pairs with the Acquire in `find`.
            word.store(MADE | ALIVE | 1, Release);
        }
        Ref(task)
    }

    /// The task ends.
    fn end(self, own: Option<&Arena>) {
        self.let_go(ALIVE | 1, own);
    }

    /// Looks at the task and counts down.
    fn let_go(self, what: usize, own: Option<&Arena>) {
        // SAFETY: we have a count.
        unsafe {
            let task = self.0.as_ptr();
            assert!((*task).is_here.with(|is_here| *is_here));
            // AcqRel: pairs with itself; the last one sees what the others did.
            if (*task).cell.word.fetch_sub(what, AcqRel) == MADE | what {
                (*task).is_here.with_mut(|is_here| *is_here = false);
                // Relaxed: as in `State::retire`.
                (*task).cell.word.store(0, Relaxed);
                Arena::free(self.0.cast(), own, || true);
            }
        }
    }
}

/// What shutdown does: a count for each task that lives.
fn find(arena: &Arena) -> Vec<Ref> {
    let mut found = Vec::new();
    arena.walk(|at| {
        // SAFETY: a word that `walk` shows is there.
        let word = unsafe { at.as_ref() };
        let mut seen = word.load(Relaxed);
        while seen & ALIVE != 0 {
            // Acquire: pairs with the Release in `make`.
            match word.compare_exchange(seen, seen + 1, Acquire, Relaxed) {
                Ok(_) => return found.push(Ref(at.cast())),
                Err(now) => seen = now,
            }
        }
    });
    found
}

/// One thread ends a task, one finds tasks and lets them go; the owner puts away what came back and makes another task
/// of it, while the walker may still be at the cell.
#[test]
fn r23_a_cell_is_used_again_beside_a_walker() {
    model(|| {
        let arena = Arc::new(Arena::new(std::ptr::null()));
        let task = Ref::make(&arena);
        let ender = {
            let keep = arena.clone();
            thread::spawn(move || {
                task.end(None);
                drop(keep);
            })
        };
        let walker = {
            let arena = arena.clone();
            thread::spawn(move || find(&arena).into_iter().for_each(|found| found.let_go(1, None)))
        };
        // SAFETY: this thread is the owner.
        unsafe { arena.put_away(PUT_AWAY) };
        let second = Ref::make(&arena);
        second.end(Some(&arena));
        ender.join().unwrap();
        walker.join().unwrap();
        assert!(find(&arena).is_empty());
        // SAFETY: as above.
        unsafe { arena.trim() };
        assert!(arena.pages.lock().is_empty());
    });
}

/// Two threads free while the owner puts away: nothing is lost, and nothing comes twice.
#[test]
fn r23_what_is_freed_elsewhere_comes_back_once() {
    model(|| {
        let arena = Arc::new(Arena::new(std::ptr::null()));
        let tasks = [Ref::make(&arena), Ref::make(&arena)];
        let enders = tasks.map(|task| {
            let arena = arena.clone();
            thread::spawn(move || {
                task.end(None);
                drop(arena);
            })
        });
        let third = Ref::make(&arena);
        // SAFETY: this thread is the owner.
        unsafe { arena.put_away(PUT_AWAY) };
        third.end(Some(&arena));
        let fourth = Ref::make(&arena);
        enders.into_iter().for_each(|ender| ender.join().unwrap());
        fourth.end(Some(&arena));
        // SAFETY: as above.
        unsafe { arena.trim() };
        assert!(arena.pages.lock().is_empty());
    });
}

/// The owner gives an empty page back, and opens it or another one for cells of another size, while a thread walks.
#[test]
fn r23_pages_come_and_go_beside_a_walker() {
    for is_kept in [false, true] {
        model(move || {
            let arena = Arc::new(Arena::new(std::ptr::null()));
            let task = Ref::make(&arena);
            let ender = {
                let arena = arena.clone();
                thread::spawn(move || {
                    task.end(None);
                    drop(arena);
                })
            };
            let walker = {
                let arena = arena.clone();
                thread::spawn(move || find(&arena).into_iter().for_each(|found| found.let_go(1, None)))
            };
            // SAFETY: this thread is the owner; a page with one use is the first of its class and empty.
            unsafe {
                if is_kept {
                    while arena.put_away(PUT_AWAY) {}
                    let first = arena.first(CLASS);
                    if Page::own(first, |own| own.used == 1) {
                        arena.leave_first(CLASS);
                        arena.own.with_mut(|own| (*own).kept.push(first));
                        (*first).is_kept.store(true, Relaxed);
                    }
                } else {
                    arena.trim();
                }
                let cell = arena.take(CLASS - 1).unwrap();
                (*cell.cast::<Cell>().as_ptr()).word.store(0, Relaxed);
                Arena::free(cell, Some(&arena), || true);
            }
            ender.join().unwrap();
            walker.join().unwrap();
            // SAFETY: as above.
            unsafe { arena.trim() };
            assert!(arena.pages.lock().is_empty());
        });
    }
}
