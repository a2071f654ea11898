//! The store beside a hierarchical timer wheel, which is only here: the figures of DESIGN.md. Both have the entry in
//! the sleeping future, a waker that is cloned into it, and the store's lock; no clock is read.
//!
//! `cargo test --release -p gmp-executor --lib -- --ignored --nocapture timers::trial` prints nanoseconds, the least of
//! many short batches (of whole runs for the million). It is no test of speed: it fails only if the two do not fire the
//! same.

use std::collections::VecDeque;
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::task::Waker;
use std::time::Instant;

use super::tests::Random;
use super::{Entry, Timers, WakeBatch};
use crate::sys::{OwnMutex, UnsafeCell, rank};

/// A store on trial. An armed entry is cancelled by its drop.
trait Store: Sized + 'static {
    const NAME: &str;
    type Entry;
    fn make() -> Self;
    fn arm(&'static self, deadline: u64, waker: &Waker) -> Pin<Box<Self::Entry>>;
    /// As `arm`, in the memory of an entry, which is cancelled.
    fn arm_again(&'static self, entry: &mut Pin<Box<Self::Entry>>, deadline: u64, waker: &Waker);
    /// Fires what is due; gives how many.
    fn fire(&self, now: u64, batch: &mut WakeBatch) -> usize;
}

impl Store for Timers {
    const NAME: &str = "store";
    type Entry = Entry;

    fn make() -> Self {
        Timers::new()
    }

    fn arm(&'static self, deadline: u64, waker: &Waker) -> Pin<Box<Entry>> {
        let mut entry = Box::pin(Entry::new(true));
        let _ = entry.as_mut().poll(|| self, deadline, waker);
        entry
    }

    fn arm_again(&'static self, entry: &mut Pin<Box<Entry>>, deadline: u64, waker: &Waker) {
        entry.set(Entry::new(true));
        let _ = entry.as_mut().poll(|| self, deadline, waker);
    }

    fn fire(&self, now: u64, batch: &mut WakeBatch) -> usize {
        let mut fired = 0;
        loop {
            let more = self.run_due(now, usize::MAX, batch);
            fired += batch.len();
            batch.wake_all();
            if !more {
                return fired;
            }
        }
    }
}

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 11;

/// Eleven levels of 64 slots, down to a nanosecond; a slot is a list through the nodes.
struct Wheel(OwnMutex<Lists>);

struct Lists {
    /// Nothing before it waits.
    elapsed: u64,
    occupied: [u64; LEVELS],
    heads: Box<[[*mut WheelNode; SLOTS]; LEVELS]>,
}

// SAFETY: the nodes are reached under the lock alone.
unsafe impl Send for Lists {}

struct WheelNode {
    deadline: u64,
    level: u8,
    slot: u8,
    is_armed: bool,
    next: *mut WheelNode,
    prev: *mut WheelNode,
    waker: Option<Waker>,
}

/// Its node is reached under the wheel's lock alone, while armed.
struct WheelEntry {
    node: UnsafeCell<WheelNode>,
    home: &'static Wheel,
}

impl Lists {
    /// # Safety
    ///
    /// The node is in no list, and stays where it is until it has left this one.
    unsafe fn link(&mut self, node: *mut WheelNode) {
        // SAFETY: passed on; all of a list's nodes are alive.
        unsafe {
            let deadline = (*node).deadline.max(self.elapsed);
            let level = (63 - ((deadline ^ self.elapsed) | 1).leading_zeros()) / BITS;
            let slot = (deadline >> (level * BITS)) as usize % SLOTS;
            ((*node).level, (*node).slot) = (level as u8, slot as u8);
            let head = &mut self.heads[level as usize][slot];
            ((*node).prev, (*node).next) = (ptr::null_mut(), *head);
            if let Some(next) = NonNull::new(*head) {
                (*next.as_ptr()).prev = node;
            }
            *head = node;
            self.occupied[level as usize] |= 1 << slot;
        }
    }

    /// # Safety
    ///
    /// The node is in a list of this wheel.
    unsafe fn unlink(&mut self, node: *mut WheelNode) {
        // SAFETY: passed on; all of a list's nodes are alive.
        unsafe {
            let WheelNode { level, slot, next, prev, .. } = *node;
            if let Some(next) = NonNull::new(next) {
                (*next.as_ptr()).prev = prev;
            }
            match NonNull::new(prev) {
                Some(prev) => (*prev.as_ptr()).next = next,
                None => {
                    self.heads[usize::from(level)][usize::from(slot)] = next;
                    if next.is_null() {
                        self.occupied[usize::from(level)] &= !(1 << slot);
                    }
                }
            }
        }
    }

    /// The first slot that is not empty: its level, its number, and no deadline in it is before the third.
    fn first(&self) -> Option<(usize, usize, u64)> {
        self.occupied.iter().enumerate().find(|(_, occupied)| **occupied != 0).map(|(level, occupied)| {
            let slot = occupied.trailing_zeros();
            let shift = level as u32 * BITS;
            // What lies above this level is that of `elapsed`: else the node would be higher.
            let above = self.elapsed.checked_shr(shift + BITS).unwrap_or(0).checked_shl(shift + BITS).unwrap_or(0);
            (level, slot as usize, (above | u64::from(slot) << shift).max(self.elapsed))
        })
    }

    /// Takes one node out that is due.
    fn pop(&mut self, now: u64) -> Option<Waker> {
        while let Some((level, slot, from)) = self.first().filter(|(.., from)| *from <= now) {
            self.elapsed = from;
            let node = self.heads[level][slot];
            // SAFETY: it is in that list.
            unsafe { self.unlink(node) };
            if level == 0 {
                // SAFETY: it was in a list, so it is alive.
                let node = unsafe { &mut *node };
                node.is_armed = false;
                return node.waker.take();
            }
            // SAFETY: it has just left its list, for a lower level.
            unsafe { self.link(node) };
        }
        self.elapsed = self.elapsed.max(now);
        None
    }
}

impl Store for Wheel {
    const NAME: &str = "wheel";
    type Entry = WheelEntry;

    fn make() -> Self {
        let heads = Box::new([[ptr::null_mut(); SLOTS]; LEVELS]);
        Wheel(OwnMutex::new(rank::TIMERS, Lists { elapsed: 0, occupied: [0; LEVELS], heads }))
    }

    fn arm(&'static self, deadline: u64, waker: &Waker) -> Pin<Box<WheelEntry>> {
        let (next, prev) = (ptr::null_mut(), ptr::null_mut());
        let node = WheelNode { deadline, level: 0, slot: 0, is_armed: false, next, prev, waker: None };
        let mut entry = Box::pin(WheelEntry { node: UnsafeCell::new(node), home: self });
        self.arm_again(&mut entry, deadline, waker);
        entry
    }

    fn arm_again(&'static self, entry: &mut Pin<Box<WheelEntry>>, deadline: u64, waker: &Waker) {
        entry.cancel();
        let waker = Some(waker.clone());
        let mut lists = self.0.lock();
        entry.node.with_mut(|node| {
            // SAFETY: it is in no list, and pinned until its drop takes it out of this one.
            unsafe {
                ((*node).deadline, (*node).is_armed, (*node).waker) = (deadline, true, waker);
                lists.link(node);
            }
        });
    }

    fn fire(&self, now: u64, batch: &mut WakeBatch) -> usize {
        let mut fired = 0;
        loop {
            let mut lists = self.0.lock();
            while !batch.is_full() {
                let Some(waker) = lists.pop(now) else { break };
                batch.push(waker);
            }
            drop(lists);
            if batch.len() == 0 {
                return fired;
            }
            fired += batch.len();
            batch.wake_all();
        }
    }
}

impl WheelEntry {
    fn cancel(&self) {
        let mut lists = self.home.0.lock();
        // SAFETY: under the lock.
        let waker = self.node.with_mut(|node| unsafe {
            if std::mem::take(&mut (*node).is_armed) {
                lists.unlink(node);
            }
            (*node).waker.take()
        });
        drop(lists);
        drop(waker);
    }
}

impl Drop for WheelEntry {
    fn drop(&mut self) {
        self.cancel();
    }
}

const BATCH: usize = 1_000;
const BATCHES: usize = 300;
/// In nanoseconds: the others wait for one to two of them.
const SECOND: u64 = 1_000_000_000;

fn row(name: &str, what: &str, mut turn: impl FnMut()) {
    let mut least = f64::MAX;
    for _ in 0..BATCHES {
        let start = Instant::now();
        (0..BATCH).for_each(|_| turn());
        least = least.min(start.elapsed().as_nanos() as f64 / BATCH as f64);
    }
    println!("{name}: {what:<52} {least:6.1} ns");
}

fn measure<S: Store>() {
    let waker = Waker::from(std::sync::Arc::new(Nobody));
    let mut random = Random::new(1);
    let others = |home: &'static S, count: u64, random: &mut Random| -> VecDeque<_> {
        (0..count).map(|_| home.arm(SECOND + random.any() % SECOND, &waker)).collect()
    };
    let home: &'static S = Box::leak(Box::new(S::make()));
    let waiting = others(home, 1_000, &mut random);
    let mut entry = home.arm(3 * SECOND, &waker);
    row(S::NAME, "a late one, 1000 others wait", || home.arm_again(&mut entry, 3 * SECOND, &waker));
    row(S::NAME, "a random one, 1000 others", || {
        home.arm_again(&mut entry, SECOND + random.any() % SECOND, &waker);
    });
    row(S::NAME, "a new earliest one, 1000 others", || home.arm_again(&mut entry, SECOND / 2, &waker));
    drop((entry, waiting));

    let home: &'static S = Box::leak(Box::new(S::make()));
    let mut waiting: VecDeque<_> = (0..10_000).map(|n| home.arm(SECOND + n * 100, &waker)).collect();
    let mut latest = 2 * SECOND;
    row(S::NAME, "cancel the oldest of 10 000, insert a latest", || {
        latest += 100;
        let mut oldest = waiting.pop_front().expect("they are as many as before");
        home.arm_again(&mut oldest, latest, &waker);
        waiting.push_back(oldest);
    });
    row(S::NAME, "cancel any of 10 000, insert a latest", || {
        latest += 100;
        let pick = random.any() as usize % 10_000;
        home.arm_again(&mut waiting[pick], latest, &waker);
    });
    row(S::NAME, "cancel any of 10 000, insert a random one", || {
        let pick = random.any() as usize % 10_000;
        home.arm_again(&mut waiting[pick], SECOND + random.any() % SECOND, &waker);
    });
    drop(waiting);

    const MILLION: u64 = 1_000_000;
    let (mut insert, mut fire) = (f64::MAX, f64::MAX);
    for _ in 0..3 {
        let home: &'static S = Box::leak(Box::new(S::make()));
        let start = Instant::now();
        let waiting = others(home, MILLION, &mut random);
        insert = insert.min(start.elapsed().as_nanos() as f64 / MILLION as f64);
        let (mut batch, mut fired) = (WakeBatch::new(), 0);
        let start = Instant::now();
        // As a machine does that looks every 50 µs.
        for now in (SECOND..2 * SECOND + 50_000).step_by(50_000) {
            fired += home.fire(now, &mut batch);
        }
        fire = fire.min(start.elapsed().as_nanos() as f64 / MILLION as f64);
        assert_eq!(fired, waiting.len(), "each fires once");
    }
    println!("{}: {:<52} {insert:6.1} ns", S::NAME, "a million: insert one, allocation of its entry included");
    println!("{}: {:<52} {fire:6.1} ns", S::NAME, "a million: fire one");
}

struct Nobody;

impl std::task::Wake for Nobody {
    fn wake(self: std::sync::Arc<Self>) {}
}

/// Wakes at this time of a deadline that is `n`.
fn fires_at<S: Store>(deadlines: &[u64], times: &[u64]) -> Vec<usize> {
    let waker = Waker::from(std::sync::Arc::new(Nobody));
    let home: &'static S = Box::leak(Box::new(S::make()));
    let mut entries: Vec<_> = deadlines.iter().map(|deadline| home.arm(*deadline, &waker)).collect();
    // Every third is cancelled, and some of these are armed again.
    for n in (0..entries.len()).step_by(9) {
        home.arm_again(&mut entries[n], deadlines[n] / 2, &waker);
    }
    let mut batch = WakeBatch::new();
    times.iter().map(|now| home.fire(*now, &mut batch)).collect()
}

#[test]
fn r07_a_wheel_fires_as_the_store_does() {
    let mut random = Random::new(7);
    let deadlines: Vec<_> = (0..10_000).map(|n| random.any() >> (n % 64)).collect();
    let times: Vec<_> = (0..64).map(|bits| u64::MAX >> (64 - bits).min(63)).collect();
    assert_eq!(fires_at::<Timers>(&deadlines, &times), fires_at::<Wheel>(&deadlines, &times));
}

#[test]
#[ignore = "it measures; see the head of the file"]
fn the_store_beside_a_wheel() {
    measure::<Timers>();
    measure::<Wheel>();
}
