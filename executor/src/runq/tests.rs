//! The local queue on real threads, with numbers for tasks.

use std::collections::HashSet;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::{CAPACITY, Replaced, RunQueue, Unit};

pub(crate) fn unit(n: usize) -> Unit {
    Unit::new(NonNull::new((n + 2) as *mut ()).unwrap())
}

pub(crate) fn number(unit: Unit) -> usize {
    unit.into_raw().as_ptr() as usize - 2
}

/// Pushes as the owner; what overflows is collected.
fn push(queue: &RunQueue, n: usize, overflow: &mut Vec<usize>) {
    // SAFETY: the test's thread is the owner.
    unsafe { queue.push(unit(n), |units| overflow.extend(units.map(number))) };
}

fn pop(queue: &RunQueue) -> Option<usize> {
    // SAFETY: as above.
    unsafe { queue.pop() }.map(number)
}

#[test]
fn r02_the_257th_push_sends_the_older_half_and_itself_away_in_order() {
    let queue = RunQueue::new();
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
    let queue = RunQueue::new();
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
        let (victim, thief) = (RunQueue::new(), RunQueue::new());
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
    let queue = Arc::new(RunQueue::new());
    let done = Arc::new(AtomicBool::new(false));
    let taken = Arc::new(Mutex::new(Vec::new()));
    let thieves: Vec<_> = (0..2)
        .map(|_| {
            let (queue, done, taken) = (queue.clone(), done.clone(), taken.clone());
            std::thread::spawn(move || {
                let mine = RunQueue::new();
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
    let queue = RunQueue::new();
    assert_eq!(queue.next.replace(unit(1)), Replaced::Nothing);
    let seen = queue.next.peek();
    assert_eq!(queue.next.replace(unit(2)), Replaced::Unit(unit(1)));
    assert_eq!(queue.next.steal(seen), None);
    assert_eq!(queue.next.take().map(number), Some(2));
    assert_eq!(queue.next.peek(), 0);
}
