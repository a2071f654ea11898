//! The store on real threads, against a model, and with wakers that are hostile.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{RawWaker, RawWakerVTable, Wake, Waker};

use super::{Entry, Look, Timers, WakeBatch};
use crate::clock::NEVER;
pub(super) use crate::seeds::Random;
use crate::seeds::{Seed, seed, seeds};
use crate::sys::atomic::AtomicUsize;
use crate::sys::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::sys::{Mutex, rank};

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(SeqCst)
    }
}

fn store() -> &'static Timers {
    Box::leak(Box::new(Timers::new()))
}

fn entry() -> Pin<Box<Entry>> {
    Box::pin(Entry::new(false))
}

fn armed(home: &'static Timers, deadline: u64, waker: &Waker) -> Pin<Box<Entry>> {
    let mut entry = entry();
    assert!(!matches!(entry.as_mut().poll(|| home, deadline, waker), Look::Fired));
    entry
}

/// A poll of an entry that is not idle.
fn look(entry: &mut Pin<Box<Entry>>, waker: &Waker) -> Look {
    entry.as_mut().poll(|| unreachable!("it has a home"), 0, waker)
}

/// Fires all that is due; gives how many batches it took.
fn fire(home: &Timers, now: u64) -> usize {
    let mut batch = WakeBatch::new();
    let mut batches = 1;
    while home.run_due(now, usize::MAX, &mut batch) {
        batch.wake_all();
        batches += 1;
    }
    batch.wake_all();
    batches
}

/// Writes its number into a common list.
struct Log {
    id: usize,
    list: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Log {
    fn wake(self: Arc<Self>) {
        self.list.lock().push(self.id);
    }
}

struct Sleeper {
    entry: Pin<Box<Entry>>,
    waker: Waker,
    /// Its key in the model, while it is armed.
    key: Option<(u64, u64)>,
}

fn against_the_model(seed: Seed, operations: usize) {
    let mut random = seed.random(0);
    let home = store();
    let woken = Arc::new(Mutex::new(rank::LEAF, Vec::new()));
    let mut sleepers: Vec<Option<Sleeper>> = Vec::new();
    let mut model = BTreeMap::new();
    let (mut now, mut seq) = (0, 0);
    for _ in 0..operations {
        let first = |model: &BTreeMap<(u64, u64), usize>| model.keys().next().map_or(NEVER, |key| key.0);
        // What is cancelled stays the earliest until somebody asks.
        let before = if random.below(2) == 0 { home.settled() } else { home.earliest() };
        // Coarse, so that equal deadlines are common; some in the past, some that never come.
        let deadline = match random.below(50) {
            0 => NEVER,
            1..5 => random.below(now + 1),
            _ => now + 16 * random.below(64),
        };
        seq += 1;
        let pick = random.below(sleepers.len() as u64 + 1) as usize;
        match random.below(100) {
            0..40 => {
                let id = sleepers.len();
                let waker = Waker::from(Arc::new(Log { id, list: woken.clone() }));
                let mut entry = entry();
                let earliest = matches!(entry.as_mut().poll(|| home, deadline, &waker), Look::Earliest(_));
                assert_eq!(earliest, deadline < before);
                model.insert((deadline, seq), id);
                sleepers.push(Some(Sleeper { entry, waker, key: Some((deadline, seq)) }));
            }
            40..65 => {
                if let Some(Some(sleeper)) = sleepers.get_mut(pick) {
                    let fired = sleeper.entry.is_fired();
                    assert_eq!(fired, sleeper.key.is_none());
                    let earliest = sleeper.entry.as_mut().reset(deadline).is_some();
                    if let Some(key) = sleeper.key {
                        model.remove(&key);
                        assert_eq!(earliest, deadline < before, "only a nearer deadline is news");
                    } else {
                        assert!(sleeper.entry.is_idle());
                        let _ = sleeper.entry.as_mut().poll(|| home, deadline, &sleeper.waker);
                    }
                    model.insert((deadline, seq), pick);
                    sleeper.key = Some((deadline, seq));
                }
            }
            65..90 => {
                if let Some(Some(Sleeper { key: Some(key), .. })) = sleepers.get_mut(pick).map(Option::take) {
                    model.remove(&key);
                }
            }
            _ => {
                now += random.below(256);
                fire(home, now);
                let mut due = Vec::new();
                while let Some(first) = model.first_entry().filter(|first| first.key().0 <= now) {
                    let id = first.remove();
                    let sleeper = sleepers[id].as_mut().expect("a cancelled sleeper is not in the model");
                    sleeper.key = None;
                    assert!(matches!(look(&mut sleeper.entry, &sleeper.waker), Look::Fired));
                    due.push(id);
                }
                assert_eq!(std::mem::take(&mut *woken.lock()), due, "at {now}");
            }
        }
        assert!(home.earliest() <= first(&model));
        if random.below(4) == 0 {
            assert_eq!((home.settled(), home.earliest()), (first(&model), first(&model)));
        }
        assert_eq!(home.len(), model.len());
        if random.below(64) == 0 {
            home.store.lock().check();
        }
    }
}

#[test]
fn r07_order_and_time_are_those_of_a_sorted_map() {
    against_the_model(seed(0x676d70), 1_000_000);
    for seed in seeds(0..32) {
        against_the_model(seed, 2_000);
    }
}

#[test]
fn r07_what_is_due_leaves_in_batches_of_64() {
    let home = store();
    let count = Arc::new(Count::default());
    let entries: Vec<_> = (0..200).map(|i| armed(home, i, &count.clone().into())).collect();
    let mut batch = WakeBatch::new();
    assert!(home.run_due(199, usize::MAX, &mut batch));
    assert_eq!((home.len(), home.earliest()), (136, 64));
    assert!(home.run_due(199, usize::MAX, &mut batch), "a full batch takes no more");
    assert_eq!(home.len(), 136);
    batch.wake_all();
    assert_eq!(batch.len(), 0);
    assert_eq!(count.get(), 64);
    assert_eq!(fire(home, 199), 3);
    assert_eq!((count.get(), home.earliest()), (200, NEVER));
    assert!(entries.iter().all(|entry| entry.is_fired()));
}

#[test]
fn r07_never_is_not_due_at_the_end_of_time() {
    let home = store();
    let count = Arc::new(Count::default());
    let never = armed(home, NEVER, &count.clone().into());
    let last = armed(home, NEVER - 1, &count.clone().into());
    fire(home, NEVER);
    assert_eq!((never.is_fired(), last.is_fired(), count.get()), (false, true, 1));
    drop(never);
    assert_eq!(home.len(), 0);
}

#[test]
fn r07_a_reset_to_the_past_fires_at_the_next_look_and_keeps_the_waker() {
    let home = store();
    let count = Arc::new(Count::default());
    let mut entry = armed(home, 1_000, &count.clone().into());
    assert!(entry.as_mut().reset(0).is_some(), "it became the earliest");
    fire(home, 1);
    assert!(entry.is_fired());
    assert_eq!(count.get(), 1);
}

#[test]
fn r07_the_last_waker_is_the_one_that_is_woken() {
    let home = store();
    let (old, new) = (Arc::new(Count::default()), Arc::new(Count::default()));
    let (old_waker, new_waker) = (Waker::from(old.clone()), Waker::from(new.clone()));
    let mut entry = armed(home, 5, &old_waker);
    assert_eq!(Arc::strong_count(&old), 3);
    let _ = look(&mut entry, &old_waker);
    assert_eq!(Arc::strong_count(&old), 3, "the same waker is not cloned again");
    assert!(matches!(look(&mut entry, &new_waker), Look::Waiting));
    assert_eq!((Arc::strong_count(&old), Arc::strong_count(&new)), (2, 3));
    fire(home, 5);
    assert_eq!((old.get(), new.get()), (0, 1));
    assert!(matches!(look(&mut entry, &old_waker), Look::Fired));
    assert_eq!(Arc::strong_count(&new), 2);
}

/// Arms its entry again from inside the wake.
struct Rearm {
    home: &'static Timers,
    turns: AtomicUsize,
    entry: Mutex<Option<Pin<Box<Entry>>>>,
}

impl Wake for Rearm {
    fn wake(self: Arc<Self>) {
        let turn = self.turns.fetch_add(1, SeqCst) as u64 + 1;
        let mut entry = self.entry.lock().take().expect("one wake at a time");
        assert!(entry.is_fired());
        let _ = entry.as_mut().reset(turn);
        let _ = entry.as_mut().poll(|| self.home, turn, &self.clone().into());
        *self.entry.lock() = Some(entry);
    }
}

#[test]
fn r13_a_waker_that_arms_its_timer_again_inside_the_wake() {
    let home = store();
    let rearm = Arc::new(Rearm { home, turns: AtomicUsize::new(0), entry: Mutex::new(rank::LEAF, None) });
    let first = armed(home, 0, &rearm.clone().into());
    *rearm.entry.lock() = Some(first);
    for now in 0..100 {
        fire(home, now);
        assert_eq!(rearm.turns.load(SeqCst) as u64, now + 1);
        assert_eq!((home.len(), home.earliest()), (1, now + 1));
    }
    let last = rearm.entry.lock().take();
    drop(last);
    assert_eq!((home.len(), Arc::strong_count(&rearm)), (0, 1));
}

struct Hostile {
    home: &'static Timers,
    clones: AtomicUsize,
    drops: AtomicUsize,
    wakes: AtomicUsize,
}

/// Its clone, wake and drop all take the store's lock.
const HOSTILE: RawWakerVTable = RawWakerVTable::new(
    |data| {
        let hostile = hostile(data);
        hostile.home.len();
        hostile.clones.fetch_add(1, SeqCst);
        RawWaker::new(data, &HOSTILE)
    },
    |data| {
        wake_hostile(data);
        drop_hostile(data);
    },
    wake_hostile,
    drop_hostile,
);

fn hostile(data: *const ()) -> &'static Hostile {
    // SAFETY: the tests leak what they make wakers of.
    unsafe { &*data.cast() }
}

fn wake_hostile(data: *const ()) {
    hostile(data).home.len();
    hostile(data).wakes.fetch_add(1, SeqCst);
}

fn drop_hostile(data: *const ()) {
    hostile(data).home.len();
    hostile(data).drops.fetch_add(1, SeqCst);
}

#[test]
fn r13_wakers_are_cloned_woken_and_dropped_without_the_lock() {
    let home = store();
    let (clones, drops, wakes) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let hostile: &'static Hostile = Box::leak(Box::new(Hostile { home, clones, drops, wakes }));
    // SAFETY: the functions of the table keep the contract; the data is never freed.
    let waker = unsafe { Waker::from_raw(RawWaker::new(std::ptr::from_ref(hostile).cast(), &HOSTILE)) };
    let count = Arc::new(Count::default());

    let fired = armed(home, 1, &waker);
    let dropped = armed(home, 2, &waker);
    let mut replaced = armed(home, 2, &waker);
    let _ = look(&mut replaced, &count.clone().into());
    let mut replacing = armed(home, 2, &count.clone().into());
    let _ = look(&mut replacing, &waker);
    fire(home, 1);
    assert!(fired.is_fired());
    drop(dropped);
    let closed = armed(home, 2, &waker);
    home.close();
    let refused = armed(home, 2, &waker);
    assert!(!closed.is_fired() && !refused.is_fired());

    assert_eq!(hostile.clones.load(SeqCst), hostile.drops.load(SeqCst));
    assert_eq!((hostile.clones.load(SeqCst), hostile.wakes.load(SeqCst)), (6, 3));
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics");
    }
}

#[test]
fn r13_a_waker_that_panics_takes_no_wake_from_the_others() {
    let home = store();
    let count = Arc::new(Count::default());
    let _before = armed(home, 1, &count.clone().into());
    let panics = armed(home, 2, &Arc::new(Panics).into());
    let _after = armed(home, 3, &count.clone().into());
    fire(home, 3);
    assert!(panics.is_fired());
    assert_eq!(count.get(), 2);
}

/// Drops an entry when it is dropped.
struct DropsEntry(Mutex<Option<Pin<Box<Entry>>>>);

impl Wake for DropsEntry {
    fn wake(self: Arc<Self>) {
        let entry = self.0.lock().take();
        drop(entry);
    }
}

#[test]
fn r14_closing_ends_entries_and_what_is_done_to_them_later_touches_nothing() {
    let home = store();
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let inner = armed(home, 7, &waker);
    let drops_entry = Arc::new(DropsEntry(Mutex::new(rank::LEAF, Some(inner))));
    let outer = armed(home, 3, &drops_entry.into());
    let mut entries: Vec<_> = (0..100).map(|i| armed(home, i, &waker)).collect();

    home.close();
    assert_eq!((home.len(), home.earliest()), (0, NEVER));
    assert_eq!((Arc::strong_count(&count), count.get()), (2, 101), "all wakers are woken");
    drop(outer);
    let mut refused = armed(home, 1, &waker);
    assert_eq!(home.len(), 0);

    // The slot's next runtime.
    home.open();
    let next = armed(home, 50, &waker);
    entries.push(entry());
    for entry in &mut entries[..100] {
        assert!(entry.as_mut().reset(1).is_none());
        assert!(matches!(look(entry, &waker), Look::Shut));
    }
    assert!(refused.as_mut().reset(1).is_none());
    assert!(matches!(look(&mut refused, &waker), Look::Shut));
    assert_eq!((home.len(), home.earliest()), (1, 50));
    assert!(entries.iter().all(|entry| !entry.is_fired()));
    drop((entries, refused));
    assert_eq!((home.len(), count.get()), (1, 101));
    fire(home, 50);
    assert!(next.is_fired());
    assert_eq!(count.get(), 102);
}

#[test]
fn r18_timers_that_are_dropped_leave_nothing_behind() {
    let home = store();
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    for deadline in 0..1_000_000 {
        drop(armed(home, deadline, &waker));
    }
    assert!(home.store.lock().capacity() <= 8);
    let seed = seed(1);
    let mut random = seed.random(0);
    let mut entries: Vec<_> = (0..100_000).map(|_| armed(home, random.any() >> 1, &waker)).collect();
    assert_eq!(home.len(), 100_000);
    while !entries.is_empty() {
        let pick = random.below(entries.len() as u64) as usize;
        drop(entries.swap_remove(pick));
    }
    assert_eq!((home.len(), home.earliest()), (0, NEVER));
    assert!(home.store.lock().capacity() <= 512, "the memory of the peak is given back");
    assert_eq!((count.get(), Arc::strong_count(&count)), (0, 2));
}

#[test]
fn r07_firing_against_drops_resets_and_new_wakers_on_other_threads() {
    const ROUNDS: u64 = 20_000;
    let home = store();
    let now = AtomicUsize::new(1);
    let owners = AtomicUsize::new(2);
    let count = Arc::new(Count::default());
    let fired = AtomicUsize::new(0);
    let seed = seed(0);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (now, owners, fired, count) = (&now, &owners, &fired, &count);
            let mut random = seed.random(thread);
            scope.spawn(move || {
                let wakers: Vec<Waker> = (0..3).map(|_| count.clone().into()).collect();
                for _ in 0..ROUNDS {
                    let now = now.load(Relaxed) as u64;
                    let mut entry = armed(home, now + random.below(4), &wakers[0]);
                    // Each turn of `reset` or of a new waker may come before, in or after the fire.
                    let mut ended = false;
                    for _ in 0..random.below(4) {
                        if matches!(look(&mut entry, &Waker::from(count.clone())), Look::Fired) {
                            fired.fetch_add(1, Relaxed);
                            ended = true;
                            break;
                        }
                        let _ = entry.as_mut().reset(now + random.below(4));
                        if entry.is_idle() {
                            let _ = entry.as_mut().poll(|| home, now, &wakers[1]);
                        }
                    }
                    if !ended && random.below(2) == 0 {
                        // It must come, whatever the race was: the others make time go on.
                        while !matches!(look(&mut entry, &wakers[2]), Look::Fired) {
                            std::thread::yield_now();
                        }
                        fired.fetch_add(1, Relaxed);
                    }
                }
                owners.fetch_sub(1, Release);
            });
        }
        let (now, owners) = (&now, &owners);
        for _ in 0..2 {
            scope.spawn(move || {
                // Acquire: pairs with the owners' Release.
                while owners.load(Acquire) > 0 {
                    fire(home, now.fetch_add(1, Relaxed) as u64);
                    std::thread::yield_now();
                }
            });
        }
    });
    assert_eq!((home.len(), home.earliest()), (0, NEVER));
    assert_eq!(Arc::strong_count(&count), 1, "no waker is left over");
    assert!(count.get() >= fired.load(Relaxed), "each fire was a wake");
}
