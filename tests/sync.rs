//! Locks as users see them.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};
use std::thread;

use gmp::Builder;
use gmp::sync::Mutex;

use polls::{Wakes, poll, poll_counted};

#[path = "support/polls.rs"]
mod polls;

#[test]
fn r19_one_at_a_time_has_the_value() {
    for procs in [1, 2, 4] {
        let runtime = Builder::new().procs(procs).build().unwrap();
        runtime.block_on(async {
            let shared = Arc::new((Mutex::new(0_u64), AtomicBool::new(false)));
            let tasks: Vec<_> = (0..16)
                .map(|_| {
                    let shared = shared.clone();
                    gmp::spawn(async move {
                        for turn in 0..500 {
                            let mut count = shared.0.lock().await;
                            assert!(!shared.1.swap(true, SeqCst), "two have it");
                            if turn % 7 == 0 {
                                gmp::task::yield_now().await;
                            }
                            *count += 1;
                            shared.1.store(false, SeqCst);
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(*shared.0.lock().await, 16 * 500);
        });
    }
}

#[test]
fn r19_who_waits_is_woken_in_order() {
    let mutex = Mutex::new(());
    let wakes: Vec<_> = (0..3).map(|_| Arc::new(Wakes::default())).collect();
    let guard = mutex.try_lock().unwrap();
    let mut waiting: Vec<_> = wakes.iter().map(|_| Box::pin(mutex.lock())).collect();
    for (lock, wakes) in waiting.iter_mut().zip(&wakes) {
        assert!(poll_counted(lock.as_mut(), wakes).is_pending());
    }
    let woken = || wakes.iter().map(|wakes| wakes.count()).collect::<Vec<_>>();
    drop(guard);
    assert_eq!(woken(), [1, 0, 0], "one is woken at a time");
    let Poll::Ready(guard) = poll(waiting[0].as_mut()) else { panic!("it was woken and the lock is free") };
    assert!(poll(waiting[1].as_mut()).is_pending());
    drop(guard);
    assert_eq!(woken()[2], 0);
    let Poll::Ready(guard) = poll(waiting[1].as_mut()) else { panic!("as above") };
    drop(guard);
    assert_eq!(woken(), [1, 0, 1], "the second waits with another waker by then");
    assert!(poll(waiting[2].as_mut()).is_ready());
}

/// Whoever comes takes the lock while it is free, but a waiter that was passed by some times is handed it.
#[test]
fn r04_a_waiter_is_passed_by_a_few_times_at_most() {
    let mutex = Mutex::new(());
    let wakes = Arc::new(Wakes::default());
    let mut guard = mutex.try_lock().unwrap();
    let mut first = pin!(mutex.lock());
    let mut second = pin!(mutex.lock());
    assert!(poll_counted(first.as_mut(), &wakes).is_pending());
    assert!(poll(second.as_mut()).is_pending());
    let mut passed = 0;
    loop {
        drop(guard);
        // Its task is woken, and late.
        match mutex.try_lock() {
            Ok(next) => guard = next,
            Err(_) => break,
        }
        passed += 1;
        assert!(passed < 10, "it starves");
        // The holder may take it again and again meanwhile: nobody else is woken.
        drop(guard);
        guard = mutex.try_lock().unwrap();
        assert_eq!(wakes.count(), passed);
        assert!(poll_counted(first.as_mut(), &wakes).is_pending());
    }
    assert_eq!(passed, 3);
    let Poll::Ready(guard) = poll(first) else { panic!("it has the lock") };
    assert!(poll(second.as_mut()).is_pending());
    drop(guard);
    assert!(poll(second).is_ready());
}

/// Dropped in line, woken, or with the lock in its hands: the next gets it.
#[test]
fn r19_a_dropped_lock_gives_way_to_the_next() {
    let mutex = Mutex::new(());
    for passes in 0..5 {
        let wakes = Arc::new(Wakes::default());
        let mut guard = mutex.try_lock().unwrap();
        let mut first = Box::pin(mutex.lock());
        let mut second = pin!(mutex.lock());
        assert!(poll(first.as_mut()).is_pending());
        assert!(poll_counted(second.as_mut(), &wakes).is_pending());
        let mut handed = false;
        for _ in 0..passes {
            drop(guard);
            match mutex.try_lock() {
                Ok(next) => guard = next,
                Err(_) => {
                    handed = true;
                    guard = match poll(first.as_mut()) {
                        Poll::Ready(next) => next,
                        Poll::Pending => panic!("it was handed the lock"),
                    };
                    break;
                }
            }
            assert!(poll(first.as_mut()).is_pending());
        }
        assert_eq!(handed, passes > 3);
        drop(guard);
        assert_eq!(wakes.count(), usize::from(handed));
        drop(first);
        assert_eq!(wakes.count(), 1);
        assert!(poll(second).is_ready());
    }
    // In line.
    let guard = mutex.try_lock().unwrap();
    let mut waits = Box::pin(mutex.lock());
    assert!(poll(waits.as_mut()).is_pending());
    drop(waits);
    drop(guard);
    assert!(mutex.try_lock().is_ok());
}

/// A waker whose clones panic.
struct NoClone;

impl NoClone {
    const WAKER: RawWakerVTable = RawWakerVTable::new(|_| panic!("this waker has no clones"), |_| (), |_| (), |_| ());

    fn waker() -> Waker {
        // SAFETY: nothing is behind the pointer, and nothing is done with it.
        unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &Self::WAKER)) }
    }
}

#[test]
fn r13_whose_waker_panics_does_not_keep_the_others_from_their_turn() {
    let mutex = Mutex::new(());
    let (mut first, mut second) = (Box::pin(mutex.lock()), Box::pin(mutex.lock()));
    let wakes: [Arc<Wakes>; 2] = Default::default();
    let held = mutex.try_lock().unwrap();
    assert!(poll_counted(first.as_mut(), &wakes[0]).is_pending());
    assert!(poll_counted(second.as_mut(), &wakes[1]).is_pending());
    drop(held);
    assert_eq!(wakes[0].count(), 1);
    // The first was woken, and finds the lock taken again.
    let held = mutex.try_lock().unwrap();
    let waker = NoClone::waker();
    let polled = catch_unwind(AssertUnwindSafe(|| first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()));
    assert!(polled.is_err());
    drop(first);
    drop(held);
    assert_eq!(wakes[1].count(), 1, "nobody is woken any more");
    assert!(poll(second.as_mut()).is_ready());
}

#[test]
fn r12_a_panic_unlocks() {
    let mutex = Arc::new(Mutex::new(1));
    let panics = mutex.clone();
    gmp::block_on(async {
        gmp::spawn(async move {
            *panics.lock().await = 2;
            panic!("expected");
        })
        .await
        .unwrap_err();
    });
    assert_eq!(*mutex.try_lock().unwrap(), 2);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _guard = mutex.blocking_lock();
        panic!("expected");
    }));
    assert!(result.is_err() && mutex.try_lock().is_ok());
}

#[test]
fn r15_an_aborted_task_unlocks_and_leaves_the_line() {
    gmp::block_on(async {
        let mutex = Arc::new(Mutex::new(()));
        let (holds, waits) = (mutex.clone(), mutex.clone());
        let holds = gmp::spawn(async move {
            let _guard = holds.lock_owned().await;
            std::future::pending::<()>().await;
        });
        while mutex.try_lock().is_ok() {
            gmp::task::yield_now().await;
        }
        let waits = gmp::spawn(async move { drop(waits.lock().await) });
        gmp::task::yield_now().await;
        waits.abort();
        assert!(waits.await.unwrap_err().is_cancelled());
        holds.abort();
        drop(mutex.lock().await);
        assert!(holds.await.unwrap_err().is_cancelled());
    });
}

/// One processor: while a task blocks in `blocking_lock`, the one that holds the lock runs.
#[test]
fn r04_a_blocking_lock_gives_its_processor_up() {
    let runtime = Builder::new().procs(1).rescue(None).build().unwrap();
    runtime.block_on(async {
        let mutex = Arc::new(Mutex::new(0));
        let guard = mutex.clone().lock_owned().await;
        let waits = mutex.clone();
        let waits = gmp::spawn(async move { *waits.blocking_lock() += 1 });
        for _ in 0..3 {
            gmp::task::yield_now().await;
        }
        drop(guard);
        waits.await.unwrap();
        assert_eq!(*mutex.lock().await, 1);
    });
}

/// Threads of no runtime wait by themselves.
#[test]
fn r19_threads_take_turns() {
    let mutex = Mutex::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..500).for_each(|_| *mutex.blocking_lock() += 1));
        }
    });
    assert_eq!(mutex.into_inner(), 2000);
}

/// A lock that is free costs a unit.
#[test]
fn r04_a_free_lock_takes_from_the_budget() {
    let locks = gmp::block_on(async {
        let locks = async {
            let mutex = Mutex::new(0);
            while gmp::task::coop::has_budget_remaining() {
                *mutex.lock().await += 1;
            }
            mutex.into_inner()
        };
        gmp::spawn(locks).await.unwrap()
    });
    // The watcher may end a slice before it is spent.
    assert!(locks <= 128, "a slice of 128 units lasted for {locks} locks");
}

#[test]
fn r04_who_has_waited_for_a_lock_needs_no_budget() {
    let runtime = Builder::new().procs(1).build().unwrap();
    let task = runtime.spawn(async {
        let mutex = Mutex::new(());
        let held = mutex.lock().await;
        let mut waits = pin!(mutex.lock());
        assert!(futures::poll!(waits.as_mut()).is_pending());
        drop(held);
        // It is its turn, and others wait until it has taken it.
        while futures::poll!(pin!(gmp::task::coop::consume_budget())).is_ready() {}
        assert!(futures::poll!(waits.as_mut()).is_ready());
    });
    runtime.block_on(task).unwrap();
}

#[test]
fn r19_a_value_without_a_size_can_be_locked() {
    let mutex: Arc<Mutex<[u8]>> = Arc::new(Mutex::new([1, 2, 3]));
    gmp::block_on(async {
        mutex.lock().await[0] = 9;
        assert_eq!(mutex.clone().lock_owned().await[..], [9, 2, 3]);
    });
    assert_eq!(format!("{mutex:?}"), "Mutex { value: [9, 2, 3] }");
    let guard = mutex.try_lock().unwrap();
    assert_eq!(format!("{mutex:?}"), "Mutex { value: <locked> }");
    drop(guard);
}
