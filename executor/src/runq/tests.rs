//! The local queue on real threads, with numbers for tasks.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::{CAPACITY, Overflow, Replaced, Ring, RunQueue, Unit};
use crate::seeds::{seed, seeds};

pub(crate) fn unit(n: usize) -> Unit {
    Unit::new(NonNull::new((n + 2) as *mut ()).unwrap())
}

pub(crate) fn number(unit: Unit) -> usize {
    unit.into_raw().as_ptr() as usize - 2
}

/// Collects what overflows.
#[derive(Default)]
struct Away(RefCell<Vec<usize>>);

impl Overflow for Away {
    fn overflow(&self, units: impl Iterator<Item = Unit>) {
        self.0.borrow_mut().extend(units.map(number));
    }
}

/// Pushes as the owner; what overflows is collected.
fn push<const N: usize>(queue: &Ring<N>, n: usize, overflow: &mut Vec<usize>) -> bool {
    let away = Away::default();
    // SAFETY: the test's thread is the owner.
    let behind_others = unsafe { queue.push(unit(n), &away) };
    overflow.extend(away.0.into_inner());
    behind_others
}

fn pop<const N: usize>(queue: &Ring<N>) -> Option<usize> {
    // SAFETY: as above.
    unsafe { queue.pop() }.map(number)
}

#[test]
fn r02_the_257th_push_sends_the_older_half_and_itself_away_in_order() {
    let queue = RunQueue::<CAPACITY>::new();
    let mut overflow = Vec::new();
    for n in 0..=CAPACITY {
        push(&queue, n, &mut overflow);
    }
    let away: Vec<_> = (0..CAPACITY / 2).chain([CAPACITY]).collect();
    assert_eq!(overflow, away);
    let left: Vec<_> = std::iter::from_fn(|| pop(&queue)).collect();
    assert_eq!(left, (CAPACITY / 2..CAPACITY).collect::<Vec<_>>());
}

#[test]
fn r02_fifo_at_every_fill_level() {
    let queue = RunQueue::<CAPACITY>::new();
    for fill in 0..CAPACITY {
        assert_eq!(pop(&queue), None);
        for n in 0..fill {
            push(&queue, n, &mut Vec::new());
        }
        assert_eq!(queue.len_seen(), fill);
        for n in 0..fill {
            assert_eq!(pop(&queue), Some(n));
        }
    }
}

#[test]
fn r02_a_theft_takes_half_and_loses_nothing() {
    for fill in 0..CAPACITY {
        let (victim, thief) = (RunQueue::<CAPACITY>::new(), RunQueue::<CAPACITY>::new());
        for n in 0..fill {
            push(&victim, n, &mut Vec::new());
        }
        // SAFETY: the test's thread owns both.
        let loot = unsafe { victim.steal_into(&thief, 128) };
        let stolen = loot.as_ref().map_or(0, |l| l.more + 1);
        assert_eq!(stolen, fill.div_ceil(2));
        let first = loot.map(|l| number(l.first));
        let all: Vec<_> = first
            .into_iter()
            .chain(std::iter::from_fn(|| pop(&thief)))
            .chain(std::iter::from_fn(|| pop(&victim)))
            .collect();
        assert_eq!(all, (0..fill).collect::<Vec<_>>(), "the oldest half, in order, then what was left");
    }
}

#[test]
fn r02_owner_and_thieves_take_each_unit_once() {
    const UNITS: usize = 200_000;
    let queue = Arc::new(RunQueue::<CAPACITY>::new());
    let done = Arc::new(AtomicBool::new(false));
    let taken = Arc::new(Mutex::new(Vec::new()));
    let thieves: Vec<_> = (0..2)
        .map(|_| {
            let (queue, done, taken) = (queue.clone(), done.clone(), taken.clone());
            std::thread::spawn(move || {
                let mine = RunQueue::<CAPACITY>::new();
                let mut got = Vec::new();
                while !done.load(Ordering::Acquire) {
                    // SAFETY: `mine` is this thread's.
                    if let Some(loot) = unsafe { queue.steal_into(&mine, 128) } {
                        got.push(number(loot.first));
                    }
                    got.extend(std::iter::from_fn(|| pop(&mine)));
                    let next = queue.next.peek();
                    if next != 0 {
                        got.extend(queue.next.steal(next).map(number));
                    }
                }
                taken.lock().unwrap().extend(got);
            })
        })
        .collect();
    let mut got = Vec::new();
    for n in 0..UNITS {
        if n % 3 == 0 {
            if let Replaced::Unit(displaced) = queue.next.replace(unit(n)) {
                push(&queue, number(displaced), &mut got);
            }
        } else {
            push(&queue, n, &mut got);
        }
        if n % 5 == 0 {
            got.extend(queue.next.take().map(number));
            got.extend(pop(&queue));
        }
    }
    while let Some(n) = queue.next.take().map(number).or_else(|| pop(&queue)) {
        got.push(n);
    }
    done.store(true, Ordering::Release);
    thieves.into_iter().for_each(|t| t.join().unwrap());
    got.extend(taken.lock().unwrap().iter().copied());
    assert_eq!(got.len(), UNITS, "lost or doubled");
    assert_eq!(got.iter().collect::<HashSet<_>>().len(), UNITS, "lost and doubled");
}

#[test]
fn r02_a_slot_that_changed_is_not_stolen() {
    let queue = RunQueue::<CAPACITY>::new();
    assert_eq!(queue.next.replace(unit(1)), Replaced::Nothing);
    let seen = queue.next.peek();
    assert_eq!(queue.next.replace(unit(2)), Replaced::Unit(unit(1)));
    assert_eq!(queue.next.steal(seen), None);
    assert_eq!(queue.next.take().map(number), Some(2));
    assert_eq!(queue.next.peek(), 0);
}

#[test]
fn r02_positions_wrap_round() {
    for before_the_end in 0..6 {
        let (ring, thief) = (Ring::<4>::starting_at(u64::MAX - before_the_end), Ring::<4>::starting_at(u64::MAX - 1));
        let mut away = Vec::new();
        for n in 0..7 {
            assert_eq!(push(&ring, n, &mut away), n > 0);
        }
        // The fifth finds it full; then two are left, and there is room for the others.
        assert_eq!(away, [0, 1, 4]);
        assert_eq!(ring.len_seen(), 4);
        // SAFETY: the test's thread owns both.
        let loot = unsafe { ring.steal_into(&thief, 4) }.unwrap();
        assert_eq!((number(loot.first), loot.more, pop(&thief)), (2, 1, Some(3)));
        assert_eq!(ring.steal_one().map(number), Some(5));
        assert_eq!((pop(&ring), pop(&ring), ring.len_seen()), (Some(6), None, 0));
    }
}

#[test]
fn r02_a_theft_takes_no_more_than_the_thief_has_room_for() {
    for lie_there in 0..=8 {
        let (victim, thief) = (Ring::<8>::new(), Ring::<8>::new());
        // SAFETY: the test's thread owns both.
        unsafe {
            victim.extend((0..8).map(unit));
            thief.extend((100..100 + lie_there).map(unit));
        }
        // SAFETY: as above.
        let loot = unsafe { victim.steal_into(&thief, 128) }.unwrap();
        let more = (8 - lie_there).min(3);
        assert_eq!((number(loot.first), loot.more, victim.len_seen()), (0, more, 7 - more));
        let all: Vec<_> = std::iter::from_fn(|| pop(&thief)).collect();
        assert_eq!(all, (100..100 + lie_there).chain(1..=more).collect::<Vec<_>>());
    }
}

#[test]
#[should_panic(expected = "more units than there is room for")]
fn r02_a_batch_never_lies_over_what_is_queued() {
    let ring = Ring::<4>::new();
    // SAFETY: the test's thread is the owner.
    unsafe { ring.extend((0..5).map(unit)) };
}

#[test]
fn r02_random_steps_agree_with_a_plain_queue() {
    for seed in seeds(1..200) {
        let mut random = seed.random(0);
        let (ring, thief) = (Ring::<8>::starting_at(u64::MAX - random.below(40)), Ring::<8>::new());
        let (mut plain, mut n) = (VecDeque::new(), 0);
        for _ in 0..200 {
            match random.below(8) {
                0..4 => {
                    let mut away = Vec::new();
                    assert_eq!(push(&ring, n, &mut away), !plain.is_empty());
                    plain.push_back(n);
                    if plain.len() > 8 {
                        assert_eq!(away, plain.drain(..4).chain([n]).collect::<Vec<_>>());
                        plain.pop_back();
                    }
                    n += 1;
                }
                4 | 5 => assert_eq!(pop(&ring), plain.pop_front()),
                6 => assert_eq!(ring.steal_one().map(number), plain.pop_front()),
                _ => {
                    let (limit, half) = (1 + random.below(6) as usize, plain.len().div_ceil(2));
                    // SAFETY: the test's thread owns both.
                    let first = unsafe { ring.steal_into(&thief, limit) }.map(|loot| number(loot.first));
                    let all: Vec<_> = first.into_iter().chain(std::iter::from_fn(|| pop(&thief))).collect();
                    assert_eq!(all, plain.drain(..half.min(limit)).collect::<Vec<_>>());
                }
            }
            assert_eq!(ring.len_seen(), plain.len());
        }
    }
}

/// What each thread takes comes in the order in which it was pushed, nothing twice, and all of it: with a ring so small
/// that it overflows and wraps all the time.
#[test]
fn r02_thieves_beside_a_small_ring_that_overflows_and_wraps() {
    const UNITS: usize = 100_000;
    let ring = Arc::new(Ring::<4>::starting_at(u64::MAX - UNITS as u64));
    let done = Arc::new(AtomicBool::new(false));
    let thieves: Vec<_> = (0..3)
        .map(|which| {
            let (ring, done) = (ring.clone(), done.clone());
            std::thread::spawn(move || {
                let (mine, mut got) = (Ring::<4>::starting_at(u64::MAX - 2), Vec::new());
                while !done.load(Ordering::Acquire) || ring.len_seen() > 0 {
                    if which == 0 {
                        got.extend(ring.steal_one().map(number));
                    // SAFETY: `mine` is this thread's.
                    } else if let Some(loot) = unsafe { ring.steal_into(&mine, 2) } {
                        got.push(number(loot.first));
                        got.extend(std::iter::from_fn(|| pop(&mine)));
                    }
                }
                got
            })
        })
        .collect();
    let seed = seed(7);
    let (mut away, mut popped, mut random) = (Vec::new(), Vec::new(), seed.random(0));
    for n in 0..UNITS {
        push(&ring, n, &mut away);
        if random.below(3) == 0 {
            popped.extend(pop(&ring));
        }
    }
    done.store(true, Ordering::Release);
    let mut all: Vec<_> = thieves.into_iter().map(|thief| thief.join().unwrap()).collect();
    all.push(popped);
    for one in &all {
        assert!(one.is_sorted(), "out of order");
    }
    let mut all: Vec<_> = all.into_iter().flatten().chain(away).collect();
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..UNITS), "lost or doubled");
}
