//! Models of the store: firing against the owner's drop, reset and poll, against shutdown, and against going to sleep.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Wake, Waker};

use loom::sync::atomic::Ordering::Relaxed;
use loom::sync::atomic::{AtomicBool, AtomicUsize};
use loom::thread::{self, JoinHandle};

use super::{Entry, Look, Timers, WakeBatch};
use crate::clock::NEVER;
use crate::sys::{idle_fence, submit_fence};

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

fn count() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count(AtomicUsize::new(0)));
    (count.clone(), count.into())
}

/// A store that lives as long as the model's run.
fn store() -> &'static Timers {
    Box::leak(Box::new(Timers::new()))
}

fn armed(home: &'static Timers, deadline: u64, waker: &Waker) -> Pin<Box<Entry>> {
    let mut entry = Box::pin(Entry::new(false));
    let _ = entry.as_mut().poll(|| home, deadline, waker);
    entry
}

fn fire(home: &Timers, now: u64) {
    let mut batch = WakeBatch::new();
    assert!(!home.run_due(now, usize::MAX, &mut batch));
    batch.wake_all();
}

fn firing(home: &'static Timers, now: u64) -> JoinHandle<()> {
    thread::spawn(move || fire(home, now))
}

#[test]
fn r07_fire_against_drop() {
    loom::model(|| {
        let home = store();
        let (count, waker) = count();
        let entry = armed(home, 1, &waker);
        let fire = firing(home, 1);
        drop(entry);
        fire.join().unwrap();
        assert_eq!((home.len(), home.earliest()), (0, NEVER));
        assert!(count.0.load(Relaxed) <= 1);
        assert_eq!(Arc::strong_count(&count), 2, "the store's waker is gone");
    });
}

#[test]
fn r07_fire_against_reset() {
    loom::model(|| {
        let home = store();
        let (count, waker) = count();
        let mut entry = armed(home, 1, &waker);
        let first = firing(home, 1);
        let _ = entry.as_mut().reset(5);
        first.join().unwrap();
        // Either the fire came first, and the entry is new; or the reset did, and the entry waits for 5.
        let before = count.0.load(Relaxed);
        assert_eq!(entry.is_idle(), before == 1);
        let _ = entry.as_mut().poll(|| home, 5, &waker);
        assert_eq!((home.len(), home.settled()), (1, 5));
        fire(home, 5);
        assert!(entry.is_fired());
        assert_eq!(count.0.load(Relaxed), before + 1);
    });
}

#[test]
fn r07_fire_against_the_reset_of_one_and_the_drop_of_another() {
    loom::model(|| {
        let home = store();
        let (count, waker) = count();
        let mut reset = armed(home, 1, &waker);
        let dropped = armed(home, 2, &waker);
        let third = armed(home, 3, &waker);
        let fire = firing(home, 2);
        let dropping = thread::spawn(move || drop(dropped));
        let _ = reset.as_mut().reset(9);
        fire.join().unwrap();
        dropping.join().unwrap();
        assert_eq!(home.settled(), 3);
        assert_eq!(home.len(), 1 + usize::from(!reset.is_idle()));
        assert!(!third.is_fired());
        assert!(count.0.load(Relaxed) <= 2);
        drop((reset, third));
        assert_eq!(home.earliest(), NEVER);
    });
}

#[test]
fn r07_fire_against_a_new_waker() {
    loom::model(|| {
        let home = store();
        let ((old, old_waker), (new, new_waker)) = (count(), count());
        let mut entry = armed(home, 1, &old_waker);
        let fire = firing(home, 1);
        let look = entry.as_mut().poll(|| home, 1, &new_waker);
        fire.join().unwrap();
        let woken = (old.0.load(Relaxed), new.0.load(Relaxed));
        match look {
            Look::Fired => assert_eq!(woken, (1, 0)),
            _ => assert_eq!(woken, (0, 1), "a poll that said wait has left its waker"),
        }
    });
}

/// Another home has another lock, so only the state's Release and Acquire order the fire before the insertion.
#[test]
fn r07_fire_against_reset_into_another_home() {
    loom::model(|| {
        let (home, other) = (store(), store());
        let (count, waker) = count();
        let mut entry = armed(home, 1, &waker);
        let first = firing(home, 1);
        let _ = entry.as_mut().reset(5);
        let moved = entry.is_idle();
        let _ = entry.as_mut().poll(|| other, 5, &waker);
        assert_eq!(other.len(), usize::from(moved));
        drop(entry);
        first.join().unwrap();
        assert_eq!((home.len(), other.len()), (0, 0));
        assert_eq!(count.0.load(Relaxed), usize::from(moved));
    });
}

#[test]
fn r07_two_machines_fire_one_store() {
    loom::model(|| {
        let home = store();
        let (count, waker) = count();
        let entries = [armed(home, 1, &waker), armed(home, 1, &waker)];
        let other = firing(home, 1);
        fire(home, 1);
        other.join().unwrap();
        assert!(entries.iter().all(|entry| entry.is_fired()));
        assert_eq!(count.0.load(Relaxed), 2);
    });
}

#[test]
fn r14_close_against_fire_and_drop() {
    loom::model(|| {
        let home = store();
        let (count, waker) = count();
        let dropped = armed(home, 1, &waker);
        let kept = armed(home, 2, &waker);
        let fire = firing(home, 2);
        let closing = thread::spawn(move || home.close());
        drop(dropped);
        fire.join().unwrap();
        closing.join().unwrap();
        assert_eq!((home.len(), home.earliest()), (0, NEVER));
        assert_eq!(Arc::strong_count(&count), 2);
        if kept.is_fired() {
            assert!(count.0.load(Relaxed) >= 1);
        }
    });
}

#[test]
fn r14_close_against_insert_and_reset() {
    loom::model(|| {
        let home = store();
        let (count, waker) = count();
        let closing = thread::spawn(move || home.close());
        let mut entry = armed(home, 5, &waker);
        let _ = entry.as_mut().reset(1);
        closing.join().unwrap();
        fire(home, 1);
        assert!(!entry.is_fired() && !entry.is_idle(), "shut for good");
        assert!(matches!(entry.as_mut().poll(|| home, 1, &waker), Look::Shut));
        // Closing wakes whom it finds.
        assert!(home.len() == 0 && count.0.load(Relaxed) <= 1 && Arc::strong_count(&count) == 2);
    });
}

/// A thread without a processor inserts while the last machine goes to sleep: one of them sees the other.
#[test]
fn r01_an_insertion_is_seen_by_who_goes_to_sleep_or_sees_it_asleep() {
    loom::model(|| {
        let home = store();
        let (_count, waker) = count();
        let asleep = Arc::new(AtomicBool::new(false));
        let sleeper = {
            let asleep = asleep.clone();
            thread::spawn(move || {
                asleep.store(true, Relaxed);
                idle_fence();
                home.earliest() == 5
            })
        };
        let mut entry = Box::pin(Entry::new(false));
        assert!(matches!(entry.as_mut().poll(|| home, 5, &waker), Look::Earliest(_)));
        submit_fence();
        let sees_asleep = asleep.load(Relaxed);
        assert!(sleeper.join().unwrap() || sees_asleep);
    });
}

/// The earliest deadline is cancelled, which leaves it behind, and a later one is inserted that is not the earliest by
/// that.
#[test]
fn r01_an_insertion_behind_a_cancelled_one_is_seen_by_who_goes_to_sleep() {
    loom::model(|| {
        let home = store();
        let (_count, waker) = count();
        let cancelled = armed(home, 1, &waker);
        let _last = armed(home, 9, &waker);
        let asleep = Arc::new(AtomicBool::new(false));
        let sleeper = {
            let asleep = asleep.clone();
            thread::spawn(move || {
                // As in `Sched::publish_poll_deadline`.
                let deadline = home.settled();
                asleep.store(true, Relaxed);
                idle_fence();
                deadline.min(home.settled())
            })
        };
        drop(cancelled);
        let mut entry = Box::pin(Entry::new(false));
        let is_news = matches!(entry.as_mut().poll(|| home, 5, &waker), Look::Earliest(_));
        submit_fence();
        let breaks = is_news && asleep.load(Relaxed);
        assert!(sleeper.join().unwrap() <= 5 || breaks, "it sleeps until 9");
    });
}
