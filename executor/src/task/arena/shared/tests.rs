//! Unit tests of the shared arena. They take cells by class, as those of the arena do.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use super::*;
use crate::sys::atomic::AtomicUsize;
use crate::task::arena::page::capacity;
use crate::task::arena::{KEPT_SHARED, PUT_AWAY, PUT_AWAY_ALONG};

const CLASS: usize = 9;

/// A cell, which goes with whoever has it.
struct Taken(NonNull<u8>);

// SAFETY: as above.
unsafe impl Send for Taken {}

impl Taken {
    fn free(self, is_machine: bool) {
        // SAFETY: the cell is ours, and its word 0.
        unsafe {
            self.0.cast::<AtomicUsize>().as_ref().store(0, Relaxed);
            Arena::free(self.0, None, || is_machine);
        }
    }
}

impl SharedArena {
    /// The tests leave the arena where it is.
    fn take_one(&self, generation: u32) -> Option<(Taken, u64)> {
        // SAFETY: as said.
        let taken = unsafe { self.take_of_class(generation, CLASS, |next| next, || ()) };
        taken.map(|(cell, number)| (Taken(cell), number))
    }

    fn page_count(&self) -> usize {
        self.arena.pages.lock().len()
    }
}

fn open() -> SharedArena {
    let arena = SharedArena::new();
    arena.open(1, std::ptr::null());
    arena
}

#[test]
fn r14_nobody_comes_in_but_while_it_is_open() {
    let arena = SharedArena::new();
    assert!(arena.take_one(1).is_none(), "nobody has opened it");
    arena.open(3, std::ptr::null());
    assert!(arena.take_one(1).is_none(), "another runtime has the slot");
    let (first, second) = (arena.take_one(3).unwrap(), arena.take_one(3).unwrap());
    assert_eq!((first.1, second.1, arena.spawned()), (0, 1, 2));
    arena.close();
    assert!(arena.take_one(3).is_none());
    assert_eq!(arena.spawned(), 2);
    arena.open(5, std::ptr::null());
    assert_eq!(arena.spawned(), 0, "it counts for the next one");
    assert_eq!(arena.take_one(5).map(|(cell, number)| (cell.free(false), number).1), Some(2));
    first.0.free(true);
    second.0.free(false);
    arena.trim();
    assert_eq!(arena.page_count(), 0);
}

/// A thread that runs no tasks puts a cell away by itself, and with the last one the memory goes, up to what is kept.
#[test]
fn r18_what_others_free_needs_nobody_to_put_it_away() {
    let arena = open();
    let pages = KEPT_SHARED + 5;
    let cells: Vec<_> = (0..pages * capacity(CLASS)).map(|_| arena.take_one(1).unwrap().0).collect();
    assert_eq!(arena.page_count(), pages);
    cells.into_iter().for_each(|cell| cell.free(false));
    assert!(!arena.arena.has_returned());
    assert_eq!(arena.page_count(), KEPT_SHARED + 1, "and the first");
    arena.trim();
    assert_eq!(arena.page_count(), 0);
}

/// Two such threads meet again and again: what one of them leaves because of the other is put away by who comes next.
#[test]
fn r18_what_is_left_by_who_met_another_is_put_away_with_the_next() {
    let arena = open();
    let pages = KEPT_SHARED + 5;
    let mut cells: Vec<_> = (0..pages * capacity(CLASS)).map(|_| arena.take_one(1).unwrap().0).collect();
    let later = cells.split_off(cells.len() - cells.len().div_ceil(PUT_AWAY_ALONG));
    let lock = arena.lock();
    cells.into_iter().for_each(|cell| cell.free(false));
    drop(lock);
    assert!(arena.arena.has_returned() && arena.page_count() == pages);
    later.into_iter().for_each(|cell| cell.free(false));
    // The last one has asked for as many as there were, and did not see the end.
    arena.take_one(1).unwrap().0.free(false);
    assert!(!arena.arena.has_returned());
    assert_eq!(arena.page_count(), KEPT_SHARED + 1);
    arena.trim();
    assert_eq!(arena.page_count(), 0);
}

#[test]
fn who_meets_another_one_says_so_and_waits() {
    let arena = open();
    let take = |met: &dyn Fn()| {
        // SAFETY: the arena stays where it is.
        let taken = unsafe { arena.take_of_class(1, CLASS, |next| next, met) };
        Taken(taken.unwrap().0).free(false);
    };
    take(&|| panic!("nobody is there"));
    let (told, is_told) = mpsc::channel();
    thread::scope(|scope| {
        let lock = arena.enter(|| panic!("nobody is there"));
        let (take, told) = (&take, told);
        scope.spawn(move || take(&|| told.send(()).unwrap()));
        is_told.recv().unwrap();
        drop(lock);
    });
    assert_eq!(arena.spawned(), 2);
    arena.trim();
}

/// Who joins tasks, or puts away what machines have left, would drive a spawner through all arenas, each of which keeps
/// memory: also one that has the lock, and has done nothing since the spawner let it go.
#[test]
fn r18_only_spawners_part() {
    let arena = open();
    let parts = || arena.arena.lock.as_ref().unwrap().try_lock_marked().err();
    let taken = arena.take_one(1).unwrap().0;
    assert_eq!(parts(), None, "nobody is there");
    let other = arena.lock();
    assert_eq!(parts(), Some(false), "the spawner before is gone");
    drop(other);
    let spawner = arena.enter(|| ());
    assert_eq!(parts(), Some(true));
    drop(spawner);
    taken.free(false);
    arena.trim();
}

/// As above, beside a machine that comes whenever it can.
#[test]
fn r18_who_spawns_alone_stays() {
    let rounds = if cfg!(miri) { 50 } else { 200_000 };
    let arena = open();
    let (is_over, both) = (AtomicBool::new(false), Barrier::new(2));
    let mut parted = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            both.wait();
            while !is_over.load(Acquire) {
                arena.collect();
            }
        });
        both.wait();
        for _ in 0..rounds {
            // SAFETY: the arena stays where it is.
            let taken = unsafe { arena.take_of_class(1, CLASS, |next| next, || parted += 1) };
            Taken(taken.unwrap().0).free(true);
        }
        is_over.store(true, Release);
    });
    assert_eq!(parted, 0, "of {rounds} times");
    arena.trim();
}

/// A machine takes no lock, and nobody waits for one: what it frees lies there until somebody puts it away.
#[test]
fn what_machines_free_is_put_away_by_who_has_the_time() {
    let arena = open();
    let count = PUT_AWAY_BESIDE + 7;
    let cells: Vec<_> = (0..count).map(|_| arena.take_one(1).unwrap().0).collect();
    let (theirs, others): (Vec<_>, Vec<_>) = cells.into_iter().enumerate().partition(|(n, _)| n % 8 > 0);
    arena.take_one(1).unwrap().0.free(true);
    assert!(arena.arena.has_returned(), "a machine took the lock");
    while arena.collect() {}
    let lock = arena.lock();
    theirs.into_iter().for_each(|(_, cell)| cell.free(true));
    others.into_iter().for_each(|(_, cell)| cell.free(false));
    assert!(!arena.collect(), "somebody is there");
    drop(lock);
    assert!(arena.arena.has_returned());
    assert!(arena.collect(), "there is more than is put away at a time");
    while arena.collect() {}
    assert!(!arena.arena.has_returned());
    // All of them are found again before a page is opened.
    let again: Vec<_> = (0..capacity(CLASS)).map(|_| arena.take_one(1).unwrap().0).collect();
    assert_eq!(arena.page_count(), 1);
    again.into_iter().for_each(|cell| cell.free(true));
    // Who spawns comes to it too.
    let more = capacity(CLASS).min(PUT_AWAY);
    let cells: Vec<_> = (0..more).map(|_| arena.take_one(1).unwrap().0).collect();
    assert_eq!(arena.page_count(), 1);
    cells.into_iter().for_each(|cell| cell.free(false));
    arena.trim();
    assert_eq!(arena.page_count(), 0);
}

/// Spawners, machines that free, others that free, one that collects and one that walks.
#[test]
fn r23_many_threads_take_and_free() {
    const SPAWNERS: usize = 3;
    let rounds = if cfg!(miri) { 50 } else { 50_000 };
    let arena = Arc::new(open());
    let is_over = Arc::new(AtomicBool::new(false));
    let other = {
        let (arena, is_over) = (arena.clone(), is_over.clone());
        thread::spawn(move || {
            let mut seen = 0;
            while !is_over.load(Acquire) {
                arena.collect();
                // SAFETY: `walk` shows words that are there.
                arena.arena().walk(|word| seen += usize::from(unsafe { word.as_ref() }.load(Acquire) != 0));
                thread::yield_now();
            }
            seen
        })
    };
    let (to_machine, machine_in) = mpsc::channel::<(Taken, usize)>();
    let machine = thread::spawn(move || machine_in.into_iter().for_each(|(cell, mark)| check(cell, mark, true)));
    let spawners: Vec<_> = (0..SPAWNERS)
        .map(|spawner| {
            let (arena, to_machine) = (arena.clone(), to_machine.clone());
            thread::spawn(move || {
                let mut kept = Vec::new();
                for n in 0..rounds {
                    let mark = n * SPAWNERS + spawner + 1;
                    let (cell, _) = arena.take_one(1).unwrap();
                    // SAFETY: the cell is ours and has room for three words.
                    unsafe {
                        assert_eq!(cell.0.cast::<AtomicUsize>().as_ref().load(Acquire), 0);
                        cell.0.cast::<usize>().add(1).write(mark);
                        cell.0.cast::<usize>().add(2).write(mark);
                        cell.0.cast::<AtomicUsize>().as_ref().store(mark, Release);
                    }
                    if n % 3 == 0 {
                        kept.push((cell, mark))
                    } else {
                        to_machine.send((cell, mark)).unwrap()
                    }
                    if kept.len() > 1000 {
                        kept.drain(..).for_each(|(cell, mark)| check(cell, mark, false));
                    }
                }
                kept.into_iter().for_each(|(cell, mark)| check(cell, mark, false));
            })
        })
        .collect();
    drop(to_machine);
    spawners.into_iter().for_each(|spawner| spawner.join().unwrap());
    machine.join().unwrap();
    is_over.store(true, Release);
    other.join().unwrap();
    assert_eq!(arena.spawned() as usize, SPAWNERS * rounds);
    arena.trim();
    assert_eq!(arena.page_count(), 0, "a cell was lost, or came back twice");

    fn check(cell: Taken, mark: usize, is_machine: bool) {
        // SAFETY: the cell is ours.
        let words = unsafe { cell.0.cast::<[usize; 3]>().read() };
        assert_eq!(words, [mark; 3], "somebody else has the cell");
        cell.free(is_machine);
    }
}
