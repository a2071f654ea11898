//! Pinned tasks at the end of their runtime, and wakers that outlive task, thread and runtime.

use std::cell::Cell;
use std::future::pending;
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
