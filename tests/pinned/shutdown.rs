//! Pinned tasks at the end of their runtime, and wakers that outlive task, thread and runtime.

use std::cell::Cell;
use std::future::pending;
#[cfg(target_os = "linux")]
use std::sync::mpsc::Sender;
use std::sync::mpsc::channel;
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use gmp::runtime::{Builder, Runtime};
use gmp::task::{spawn_local, yield_now};

use crate::door::Door;
use crate::drops::Drops;
use crate::limit::limited;
use crate::{Bound, Tells, runtime, until};
#[cfg(target_os = "linux")]
use crate::{is_marked, mark};

#[test]
fn r14_shutdown_ends_those_that_wait() {
    const TASKS: usize = 5;
    limited(|| {
        for procs in [1, 2] {
            let runtime = runtime(procs);
            let drops = Drops::default();
            let (ended, has_ended) = channel();
            let tasks: Vec<_> = (0..TASKS)
                .map(|n| {
                    let (guard, local, ended) = (drops.guard(), drops.guard(), ended.clone());
                    let (started, is_started) = channel();
                    let task = runtime.spawn_pinned(move || async move {
                        thread_local! {
                            static ENDS: Cell<Option<Tells>> = const { Cell::new(None) };
                        }
                        ENDS.set(Some(Tells(ended)));
                        let (_bound, local) = (Bound::new(guard), Bound::new(local));
                        drop(spawn_local(async move {
                            let _bound = local;
                            pending::<()>().await;
                        }));
                        started.send(()).unwrap();
                        match n % 3 {
                            0 => pending::<()>().await,
                            1 => gmp::time::sleep(Duration::MAX).await,
                            _ => loop {
                                yield_now().await;
                            },
                        }
                    });
                    is_started.recv().unwrap();
                    task
                })
                .collect();
            assert_eq!(runtime.metrics().pinned_threads, TASKS);
            assert_eq!(runtime.metrics().live_tasks, TASKS);
            let handle = runtime.handle();
            drop(runtime);
            assert_eq!(drops.count(), 2 * TASKS);
            // The threads are gone, with their thread-locals.
            assert_eq!(has_ended.try_iter().count(), TASKS);
            for task in tasks {
                let error = gmp::block_on(task).unwrap_err();
                assert!(error.is_cancelled() && error.to_string().contains("runtime shut down"), "{error}");
            }
            let guard = drops.guard();
            let late = handle.spawn_pinned(move || async move { drop(guard) });
            assert!(gmp::block_on(late).unwrap_err().to_string().contains("runtime shut down"));
            assert_eq!(drops.count(), 2 * TASKS + 1);
        }
    });
}

/// Spawns go on while the runtime is shut down, and each ends in one way.
#[test]
fn r14_spawns_beside_shutdown() {
    limited(|| {
        for _ in 0..20 {
            let runtime = runtime(2);
            let drops = Drops::default();
            let handle = runtime.handle();
            let (first, has_first) = channel();
            let counts = drops.clone();
            let spawner = thread::spawn(move || {
                (0..30)
                    .map(|_| {
                        let guard = counts.guard();
                        let task = handle.spawn_pinned(move || async move {
                            let _bound = Bound::new(guard);
                            yield_now().await;
                        });
                        let _ = first.send(());
                        task
                    })
                    .collect::<Vec<_>>()
            });
            has_first.recv().unwrap();
            drop(runtime);
            for task in spawner.join().unwrap() {
                if let Err(error) = gmp::block_on(task) {
                    assert!(error.is_cancelled());
                }
            }
            assert_eq!(drops.count(), 30);
        }
    });
}

#[test]
fn r14_shutdown_waits_for_a_poll_and_not_for_one_that_was_given_up_on() {
    limited(|| {
        let runtime = runtime(1);
        let drops = Drops::default();
        let guard = drops.guard();
        let (go, gone) = channel::<()>();
        let (started, is_started) = channel();
        drop(runtime.spawn_pinned(move || async move {
            let _bound = Bound::new(guard);
            started.send(()).unwrap();
            let _ = gone.recv();
        }));
        is_started.recv().unwrap();
        // Rescued.
        runtime.block_on(runtime.spawn(async {})).unwrap();
        assert_eq!(runtime.metrics().stuck_threads, 1);
        let left = runtime.shutdown_timeout(Duration::from_millis(50)).unwrap_err();
        assert_eq!((left.tasks, left.threads), (1, 1));
        assert_eq!(drops.count(), 0);
        drop(go);
        until(|| drops.count() == 1);
        // In a poll that nobody gave up on: waited for.
        let runtime = Builder::new().procs(2).rescue(None).build().unwrap();
        let (started, is_started) = channel();
        let (guard, handle) = (drops.guard(), runtime.handle());
        drop(runtime.spawn_pinned(move || async move {
            let _bound = Bound::new(guard);
            started.send(()).unwrap();
            // The runtime closes while this poll goes on.
            until(|| handle.spawn(pending::<()>()).is_finished());
        }));
        is_started.recv().unwrap();
        drop(runtime);
        assert_eq!(drops.count(), 2);
    });
}

#[test]
fn r14_a_runtime_dropped_in_its_own_pinned_task() {
    limited(|| {
        let runtime = runtime(1);
        let (give, given) = channel::<Runtime>();
        let (done, is_done) = channel();
        drop(runtime.spawn_pinned(move || async move {
            let runtime = given.recv().unwrap();
            drop(runtime);
            done.send(()).unwrap();
        }));
        give.send(runtime).unwrap();
        is_done.recv().unwrap();
    });
}

/// Nor is the thread that ends the runtime, where the destructors of its tasks run, started from the pinned one.
#[cfg(target_os = "linux")]
#[test]
fn r23_the_thread_that_ends_the_runtime_inherits_nothing() {
    struct Asks(Sender<bool>);
    impl Drop for Asks {
        fn drop(&mut self) {
            let _ = self.0.send(is_marked());
        }
    }
    limited(|| {
        for is_dropped in [true, false] {
            let runtime = runtime(1);
            let (marked, is_so) = channel();
            let asks = Asks(marked);
            let task = runtime.spawn(async move {
                let _asks = asks;
                pending::<()>().await;
            });
            let (give, given) = channel::<Runtime>();
            let pinned = runtime.spawn_pinned(move || async move {
                mark();
                let runtime = given.recv().unwrap();
                if is_dropped {
                    drop(runtime);
                } else {
                    runtime.shutdown_timeout(Duration::ZERO).unwrap_err();
                }
            });
            give.send(runtime).unwrap();
            assert!(!is_so.recv().unwrap());
            assert!(gmp::block_on(task).unwrap_err().is_cancelled());
            // Its poll has ended, whatever the runtime did meanwhile.
            gmp::block_on(pinned).unwrap();
        }
    });
}

/// Tasks without a thread that are aborted while the runtime shuts down.
#[test]
fn r14_shutdown_beside_aborts_of_those_without_a_thread() {
    const TASKS: usize = 5;
    limited(|| {
        for _ in 0..20 {
            let runtime = Builder::new().procs(1).max_threads(3).build().unwrap();
            let first = runtime.spawn_pinned(pending::<()>);
            until(|| runtime.metrics().pinned_threads == 1);
            let drops = Drops::default();
            let task = |guard| runtime.spawn_pinned(move || async move { drop(guard) });
            let tasks: Vec<_> = (0..TASKS).map(|_| task(drops.guard())).collect();
            let (go, gone) = channel();
            let aborts = thread::spawn(move || {
                for task in &tasks {
                    task.abort();
                    let _ = go.send(());
                }
                tasks
            });
            gone.recv().unwrap();
            drop(runtime);
            assert_eq!(drops.count(), TASKS);
            for task in aborts.join().unwrap() {
                assert!(gmp::block_on(task).unwrap_err().is_cancelled());
            }
            assert!(gmp::block_on(first).unwrap_err().is_cancelled());
        }
        // On its way to a machine, which is busy.
        let runtime = Builder::new().procs(1).max_threads(3).rescue(None).build().unwrap();
        drop(runtime.spawn_pinned(pending::<()>));
        until(|| runtime.metrics().pinned_threads == 1);
        let (go, gone) = channel::<()>();
        let (started, is_started) = channel();
        drop(runtime.spawn(async move {
            started.send(()).unwrap();
            let _ = gone.recv();
        }));
        is_started.recv().unwrap();
        let drops = Drops::default();
        let guard = drops.guard();
        let task = runtime.spawn_pinned(move || async move { drop(guard) });
        until(|| runtime.metrics().pinned_queue == 1);
        assert_eq!(runtime.metrics().live_tasks, 3);
        task.abort();
        // The one that is to drop it.
        until(|| runtime.metrics().live_tasks == 4);
        assert_eq!(drops.count(), 0);
        runtime.shutdown_timeout(Duration::from_millis(50)).unwrap_err();
        assert_eq!(drops.count(), 1);
        let error = gmp::block_on(task).unwrap_err();
        assert!(error.to_string().contains("runtime shut down"), "{error}");
        drop(go);
    });
}

#[test]
fn r13_wakers_outlive_task_thread_and_runtime() {
    limited(|| {
        let drops = Drops::default();
        let mut wakers = Vec::<Waker>::new();
        for end in 0..3 {
            let runtime = runtime(1);
            let (send, receive) = channel();
            let guard = drops.guard();
            let task = runtime.spawn_pinned(move || {
                let bound = Bound::new(guard);
                std::future::poll_fn(move |cx| {
                    let _ = (&bound, send.send(cx.waker().clone()));
                    Poll::<()>::Pending
                })
            });
            let waker = receive.recv().unwrap();
            // It is polled for each of these, on its thread.
            for _ in 0..20 {
                let waker = waker.clone();
                thread::spawn(move || waker.wake()).join().unwrap();
                drop(receive.recv().unwrap());
            }
            match end {
                0 => {
                    task.abort();
                    assert!(runtime.block_on(task).unwrap_err().is_cancelled());
                }
                1 => drop(task),
                _ => drop((task, runtime)),
            }
            wakers.push(waker);
        }
        assert_eq!(drops.count(), 3);
        // Others have the memory.
        let runtime = runtime(1);
        let door = Door::default();
        let task = runtime.spawn_pinned({
            let door = door.clone();
            move || door
        });
        drop(door.waker_of(1));
        thread::spawn(move || {
            for waker in wakers {
                waker.wake_by_ref();
                drop(waker);
            }
        })
        .join()
        .unwrap();
        door.open();
        runtime.block_on(task).unwrap();
    });
}
