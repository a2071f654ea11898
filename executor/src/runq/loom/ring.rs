//! Models of the ring: the owner's push, pop and overflow against thieves, with positions that wrap round. Each unit is
//! a task whose memory is checked: who runs it sees what its pusher wrote, and runs it once.
//!
//! Not modelled: that a slot is overwritten before its reader has read it (invariant 4 of the ring). loom runs the
//! steps of a thread in order, so it never sees a read that is late; that rests on Release and Acquire of `head`, in
//! words.

use std::cell::RefCell;
use std::sync::Arc;

use loom::thread;

use super::{run, task, unit};
use crate::runq::{Overflow, Ring, Unit};
use crate::sys::doubles::bounded;

type Small = Ring<2>;

/// Runs what overflows.
#[derive(Default)]
struct Away(RefCell<u32>);

impl Overflow for Away {
    fn overflow(&self, units: impl Iterator<Item = Unit>) {
        *self.0.borrow_mut() += units.map(|unit| run(Some(unit))).sum::<u32>();
    }
}

/// A ring whose positions wrap round after so many units.
fn wrapping_after(units: u64) -> Arc<Small> {
    Arc::new(Small::starting_at(0u64.wrapping_sub(units)))
}

/// Pushes a task as the owner; what overflows is run.
fn push(ring: &Small, away: &Away) -> u32 {
    // SAFETY: the model's own thread is the owner.
    unsafe { ring.push(unit(task()), away) };
    away.0.take()
}

fn pop(ring: &Small) -> u32 {
    // SAFETY: as above.
    run(unsafe { ring.pop() })
}

fn drain(ring: &Small) -> u32 {
    // SAFETY: as above.
    std::iter::from_fn(|| unsafe { ring.pop() }).map(|unit| run(Some(unit))).sum()
}

/// Takes one unit, as `sysmon` and `steal_lone` do.
fn thief_of_one(ring: &Arc<Small>) -> thread::JoinHandle<u32> {
    let ring = ring.clone();
    thread::spawn(move || run(ring.steal_one()))
}

/// Takes half, and runs all it got.
fn thief_of_half(ring: &Arc<Small>) -> thread::JoinHandle<u32> {
    let ring = ring.clone();
    thread::spawn(move || {
        let own = Small::starting_at(u64::MAX);
        // SAFETY: this thread made `own`.
        let Some(loot) = (unsafe { ring.steal_into(&own, 2) }) else { return 0 };
        let more = drain(&own);
        assert_eq!(more, loot.more as u32);
        run(Some(loot.first)) + more
    })
}

/// Pushes and pops beside two thieves, over the end of the positions.
#[test]
fn r02_push_and_pop_against_two_thieves() {
    for wraps_after in [0, 1, 2] {
        loom::model(move || {
            let (ring, away) = (wrapping_after(wraps_after), Away::default());
            let thieves = [thief_of_one(&ring), thief_of_half(&ring)];
            let mut ran = push(&ring, &away) + push(&ring, &away) + pop(&ring);
            ran += thieves.into_iter().map(|thief| thief.join().unwrap()).sum::<u32>();
            assert_eq!(ran + drain(&ring), 2);
        });
    }
}

/// Slots are used again, while thieves read them: the third unit lies where the first was, the fourth where the second
/// was.
#[test]
fn r02_slots_used_again_against_two_thieves() {
    bounded(2, || {
        let (ring, away) = (wrapping_after(2), Away::default());
        let mut ran = push(&ring, &away) + push(&ring, &away);
        let thieves = [thief_of_half(&ring), thief_of_one(&ring)];
        ran += pop(&ring) + push(&ring, &away) + pop(&ring) + push(&ring, &away);
        ran += thieves.into_iter().map(|thief| thief.join().unwrap()).sum::<u32>();
        assert_eq!(ran + drain(&ring), 4);
    });
}

/// A full ring sends its older half away, unless a thief was faster.
#[test]
fn r02_overflow_against_two_thieves() {
    for wraps_after in [1, 2, 3] {
        loom::model(move || {
            let (ring, away) = (wrapping_after(wraps_after), Away::default());
            let mut ran = push(&ring, &away) + push(&ring, &away);
            let thieves = [thief_of_one(&ring), thief_of_half(&ring)];
            ran += push(&ring, &away);
            ran += thieves.into_iter().map(|thief| thief.join().unwrap()).sum::<u32>();
            assert_eq!(ran + drain(&ring), 3);
        });
    }
}

/// A batch appears at once: a thief sees none of it or the first, and the tasks as they were written.
#[test]
fn r02_a_batch_against_two_thieves() {
    loom::model(|| {
        let ring = wrapping_after(1);
        let thieves = [thief_of_one(&ring), thief_of_half(&ring)];
        // SAFETY: this thread is the owner.
        unsafe { ring.extend([unit(task()), unit(task())].into_iter()) };
        let stolen: u32 = thieves.into_iter().map(|thief| thief.join().unwrap()).sum();
        assert_eq!(stolen + drain(&ring), 2);
    });
}

/// Loot is stolen in its turn, while its thief runs the rest.
#[test]
fn r02_loot_against_a_thief() {
    loom::model(|| {
        let (victim, own) = (Ring::<4>::starting_at(u64::MAX - 1), Arc::new(Ring::<4>::starting_at(u64::MAX)));
        // SAFETY: this thread is the owner of both.
        unsafe { victim.extend([unit(task()), unit(task()), unit(task())].into_iter()) };
        let thief = {
            let own = own.clone();
            thread::spawn(move || run(own.steal_one()))
        };
        // SAFETY: as above.
        let loot = unsafe { victim.steal_into(&own, 4) }.expect("nobody else steals there");
        // SAFETY: as above.
        let ran = run(Some(loot.first)) + run(unsafe { own.pop() });
        assert_eq!((loot.more, ran + thief.join().unwrap(), victim.len_seen()), (1, 2, 1));
    });
}
