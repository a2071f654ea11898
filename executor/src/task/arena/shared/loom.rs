//! Models of the shared arena: spawners beside those who free, and beside shutdown. As in those of the arena, pages are
//! the system's, words and links loom's, and the word of a task that lives is not 0.

use std::ptr::NonNull;
use std::sync::Arc;

use ::loom::{model, thread};

use super::SharedArena;
use crate::inject::Inject;
use crate::park::Parker;
use crate::runq::Unit;
use crate::sys::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use crate::sys::{UnsafeCell, idle_fence, submit_fence, submit_fence_after_rmw};
use crate::task::arena::page::{CLASSES, Cell};
use crate::task::arena::{Arena, PUT_AWAY_BESIDE};

/// The largest class: few cells are made at a time.
const CLASS: usize = CLASSES - 1;

#[derive(Clone, Copy)]
struct Taken(NonNull<Cell>);

// SAFETY: it stands for the cell.
unsafe impl Send for Taken {}

fn open() -> Arc<SharedArena> {
    let arena = Arc::new(SharedArena::new());
    arena.open(1, std::ptr::null());
    arena
}

impl Taken {
    /// A task is made of a cell.
    fn publish(self) {
        // SAFETY: the cell is ours.
        let word = unsafe { &(*self.0.as_ptr()).word };
        assert_eq!(word.load(Relaxed), 0);
        // Release: pairs with the Acquire of a walker.
        word.store(1, Release);
    }

    /// The task ends.
    fn end(self, is_machine: bool) {
        // SAFETY: the task is ours.
        unsafe {
            let word = &(*self.0.as_ptr()).word;
            assert_eq!(word.load(Relaxed), 1, "a cell is two tasks");
            // Relaxed: as in `State::retire`.
            word.store(0, Relaxed);
            Arena::free(self.0.cast(), None, || is_machine);
        }
    }
}

fn take(arena: &SharedArena) -> Option<Taken> {
    // SAFETY: each thread of the model keeps the arena.
    let taken = unsafe { arena.take_of_class(1, CLASS, |next| next, || ()) };
    taken.map(|(cell, _)| Taken(cell.cast()))
}

/// Two threads spawn; one's task is ended by itself, the other's by a machine. No cell is two tasks at a time, none is
/// lost.
#[test]
fn r23_spawners_and_a_machine_share_an_arena() {
    model(|| {
        let arena = open();
        let first = take(&arena).unwrap();
        first.publish();
        let machine = {
            let keep = arena.clone();
            thread::spawn(move || {
                first.end(true);
                drop(keep);
            })
        };
        let other = {
            let arena = arena.clone();
            thread::spawn(move || {
                let task = take(&arena).unwrap();
                task.publish();
                task.end(false);
            })
        };
        // The load of `collect` would hide the push from loom; this is the rest of it.
        if let Some(_owned) = arena.arena.lock.as_ref().unwrap().try_lock() {
            // SAFETY: who holds the lock is the owner.
            unsafe { arena.arena.put_away(PUT_AWAY_BESIDE) };
        }
        let task = take(&arena).unwrap();
        task.publish();
        task.end(false);
        machine.join().unwrap();
        other.join().unwrap();
        assert_eq!(arena.spawned(), 3);
        arena.trim();
        assert!(arena.arena.pages.lock().is_empty());
    });
}

/// What a spawn from outside and a shutdown have of a runtime. Mirrors `Sched::ready_foreign`, `shutdown::close` and
/// `shutdown::discard_all`.
struct Runtime {
    arena: SharedArena,
    inject: Inject,
    closing: AtomicBool,
    shutdown: Parker,
    ended: AtomicUsize,
    /// The slot, which is another runtime's after shutdown. Tasks read it.
    slot: UnsafeCell<()>,
}

// SAFETY: shutdown writes the slot when no task lives; loom checks that.
unsafe impl Sync for Runtime {}
// SAFETY: as above.
unsafe impl Send for Runtime {}

impl Runtime {
    fn new() -> Arc<Self> {
        let arena = SharedArena::new();
        arena.open(1, std::ptr::null());
        Arc::new(Runtime {
            arena,
            inject: Inject::new(),
            closing: AtomicBool::new(false),
            shutdown: Parker::new(),
            ended: AtomicUsize::new(0),
            slot: UnsafeCell::new(()),
        })
    }

    /// Tells whether it was let in.
    fn spawn(&self) -> bool {
        if self.closing.load(Acquire) {
            return false;
        }
        let Some(task) = take(&self.arena) else {
            return false;
        };
        task.publish();
        self.slot.with(|_| ());
        self.inject.push(Unit::new(task.0.cast()));
        submit_fence();
        if self.closing.load(Acquire) {
            self.shutdown.unpark();
        }
        true
    }

    /// Mirrors `cell::finish`: the count first.
    fn end(&self, unit: Unit) {
        let task = Taken(unit.into_raw().cast());
        self.slot.with(|_| ());
        self.ended.fetch_add(1, Relaxed);
        task.end(true);
        submit_fence_after_rmw();
        if self.closing.load(Relaxed) {
            self.shutdown.unpark();
        }
    }

    fn shut_down(&self) {
        self.closing.swap(true, AcqRel);
        idle_fence();
        self.arena.close();
        loop {
            while let Some(unit) = self.inject.pop() {
                self.end(unit);
            }
            if self.arena.spawned() == self.ended.load(Relaxed) as u64 {
                break;
            }
            self.shutdown.park();
        }
        self.slot.with_mut(|_| ());
        self.arena.trim();
    }
}

/// A spawn is refused, or its task is dropped before shutdown is over, and its memory goes with it.
#[test]
fn r14_spawns_from_outside_against_closing() {
    model(|| {
        let runtime = Runtime::new();
        let spawner = {
            let runtime = runtime.clone();
            thread::spawn(move || u64::from(runtime.spawn()))
        };
        runtime.shut_down();
        let spawned = spawner.join().unwrap();
        assert!(!runtime.spawn(), "the runtime is gone");
        assert_eq!((runtime.arena.spawned(), runtime.ended.load(Relaxed) as u64), (spawned, spawned));
        assert!(runtime.arena.arena.pages.lock().is_empty());
    });
}

/// A task that waits is found by the walk after the arena was closed, also in a page that had been kept.
#[test]
fn r14_who_has_closed_finds_what_was_spawned() {
    model(|| {
        let runtime = Runtime::new();
        let first = take(&runtime.arena).unwrap();
        first.publish();
        first.end(false);
        {
            let _owned = runtime.arena.lock();
            // SAFETY: who holds the lock is the owner; the page is empty, but for being the first.
            unsafe {
                let page = runtime.arena.arena.first(CLASS);
                runtime.arena.arena.leave_first(CLASS);
                runtime.arena.arena.own.with_mut(|own| (*own).kept.push(page));
                (*page).is_kept.store(true, Relaxed);
            }
        }
        let spawned = Arc::new(AtomicBool::new(false));
        let spawner = {
            let (runtime, spawned) = (runtime.clone(), spawned.clone());
            thread::spawn(move || {
                let task = take(&runtime.arena)?;
                task.publish();
                // Release: pairs with the Acquire below; as a push that somebody else has taken from.
                spawned.store(true, Release);
                Some(task)
            })
        };
        runtime.arena.close();
        let is_made = spawned.load(Acquire);
        let mut found = 0;
        // SAFETY: words that `walk` shows are there.
        runtime.arena.arena().walk(|word| found += unsafe { word.as_ref() }.load(Acquire));
        if is_made {
            assert_eq!(found, 1, "a task that waits was not found");
        }
        if let Some(task) = spawner.join().unwrap() {
            assert_eq!(runtime.arena.spawned(), 2);
            task.end(false);
        }
        runtime.arena.trim();
    });
}
