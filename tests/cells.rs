//! A task's future, output, wakers and handles, wherever its memory comes from: it lies beside others of its processor,
//! or beside those that were spawned from outside, and when it is large it has an allocation of its own.

use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use gmp::runtime::{Builder, Runtime};
use gmp::task::{JoinHandle, yield_now};

use drops::{Drops, Guard};
use limit::limited;

#[path = "support/drops.rs"]
mod drops;
#[path = "support/limit.rs"]
mod limit;

fn runtime(procs: usize) -> Runtime {
    Builder::new().procs(procs).build().unwrap()
}

#[derive(Debug, Clone, Copy)]
enum From {
    Inside,
    Outside,
}

/// Spawns on the runtime, and gives the handle before the task has run.
fn spawn<F>(runtime: &Runtime, from: From, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match from {
        From::Inside => {
            let mut task = None;
            runtime.block_on(async { task = Some(gmp::spawn(future)) });
            task.unwrap()
        }
        From::Outside => runtime.spawn(future),
    }
}

fn both(check: impl Fn(From)) {
    for from in [From::Inside, From::Outside] {
        limited(|| check(from));
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Plain<const N: usize>([u8; N]);

#[derive(Clone, Copy, PartialEq, Debug)]
#[repr(align(64))]
struct Lines<const N: usize>([u8; N]);

#[derive(Clone, Copy, PartialEq, Debug)]
#[repr(align(4096))]
struct Page([u8; 5000]);

async fn keep<T: Copy + PartialEq + std::fmt::Debug>(value: T) -> T {
    let (kept, copy) = (value, value);
    for _ in 0..3 {
        yield_now().await;
        assert_eq!((&raw const kept).addr() % align_of::<T>(), 0);
    }
    assert_eq!(kept, copy);
    kept
}

fn keeps<T: Copy + PartialEq + std::fmt::Debug + Send + 'static>(value: T) {
    both(|from| {
        let runtime = runtime(1);
        let tasks: Vec<_> = (0..20).map(|_| spawn(&runtime, from, keep(value))).collect();
        // Polled before they have ended, and some not at all.
        runtime.block_on(async {
            for (n, task) in tasks.into_iter().enumerate() {
                if n % 5 > 0 {
                    assert_eq!(task.await.unwrap(), value);
                }
            }
        });
    });
}

#[test]
fn r02_futures_and_outputs_of_any_size_and_alignment() {
    keeps(());
    keeps(7_u8);
    keeps(7_u128);
    keeps(Plain([7; 100]));
    keeps(Plain([7; 700]));
    keeps(Plain([7; 20_000]));
    keeps(Lines([]));
    keeps(Lines([7; 64]));
    keeps(Page([7; 5000]));
}

/// What a future of so many bytes holds is dropped once: with a cell at hand or not, run, aborted or left.
fn is_dropped_once<const N: usize>() {
    both(|from| {
        let drops = Drops::default();
        let runtime = runtime(1);
        let hold = |n: u8| {
            let (guard, bytes) = (drops.guard(), [n; N]);
            async move {
                yield_now().await;
                let _guard = guard;
                assert_eq!(bytes, [n; N]);
            }
        };
        let spawn_all = || (0..3_u8).map(|n| (n, spawn(&runtime, from, hold(n)))).collect::<Vec<_>>();
        // The first of their kind find no cell at hand; those that come when these have ended do.
        for _ in 0..2 {
            for (n, task) in spawn_all() {
                match n {
                    0 => runtime.block_on(task).unwrap(),
                    1 => {
                        task.abort();
                        let _ = runtime.block_on(task);
                    }
                    _ => drop(task),
                }
            }
        }
        drop(runtime);
        assert_eq!(drops.count(), 6);
    });
}

#[test]
fn r02_a_future_of_any_size_is_dropped_once() {
    is_dropped_once::<0>();
    is_dropped_once::<1>();
    is_dropped_once::<100>();
    is_dropped_once::<470>();
    is_dropped_once::<600>();
    is_dropped_once::<3000>();
}

#[test]
fn r02_an_output_is_dropped_once() {
    both(|from| {
        let runtime = runtime(1);
        let drops = Drops::default();
        let guard = drops.guard();
        let taken = spawn(&runtime, from, async move { guard });
        drop(runtime.block_on(taken).unwrap());
        assert_eq!(drops.count(), 1);

        // The handle goes before the task has run; after it was polled; and after the task has ended.
        for polls in [0, 1, 2] {
            let drops = Drops::default();
            let guard = drops.guard();
            let (go, gone) = futures::channel::oneshot::channel();
            let mut task = spawn(&runtime, from, async move {
                gone.await.unwrap();
                guard
            });
            runtime.block_on(async {
                if polls > 0 {
                    assert!(futures::poll!(&mut task).is_pending());
                }
                if polls < 2 {
                    drop(task);
                    go.send(()).unwrap();
                } else {
                    go.send(()).unwrap();
                    while !task.is_finished() {
                        yield_now().await;
                    }
                    assert_eq!(drops.count(), 0, "it waits for the handle");
                    drop(task);
                }
            });
            while drops.count() == 0 {
                runtime.block_on(yield_now());
            }
            drop(runtime.spawn(async {}));
            assert_eq!(drops.count(), 1);
        }
    });
}

#[test]
fn r01_a_future_wakes_itself_with_a_waker_that_it_gives_away() {
    both(|from| {
        let runtime = runtime(1);
        let mut polls = 0;
        let task = spawn(
            &runtime,
            from,
            poll_fn(move |cx| {
                polls += 1;
                if polls == 10 {
                    return Poll::Ready(polls);
                }
                for waker in [cx.waker().clone(), cx.waker().clone()] {
                    waker.wake();
                }
                Poll::Pending
            }),
        );
        assert_eq!(runtime.block_on(task).unwrap(), 10);
    });
}

#[test]
fn r14_a_task_that_drops_its_last_waker_in_its_poll_is_dropped_with_the_runtime() {
    both(|from| {
        let runtime = runtime(1);
        let drops = Drops::default();
        let guard = drops.guard();
        let (polled, was_polled) = channel();
        drop(spawn(
            &runtime,
            from,
            poll_fn(move |cx| {
                let _guard = &guard;
                drop(cx.waker().clone());
                polled.send(()).unwrap();
                Poll::<()>::Pending
            }),
        ));
        was_polled.recv().unwrap();
        assert_eq!((drops.count(), runtime.metrics().live_tasks), (0, 1));
        drop(runtime);
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn r02_a_future_that_drops_its_own_handle() {
    both(|from| {
        let runtime = runtime(1);
        let drops = Drops::default();
        let own: Arc<Mutex<Option<JoinHandle<Guard>>>> = Arc::default();
        let (handle, guard) = (own.clone(), drops.guard());
        let (go, gone) = futures::channel::oneshot::channel();
        let task = spawn(&runtime, from, async move {
            gone.await.unwrap();
            drop(handle.lock().unwrap().take());
            yield_now().await;
            guard
        });
        *own.lock().unwrap() = Some(task);
        go.send(()).unwrap();
        while runtime.metrics().live_tasks > 0 {
            runtime.block_on(yield_now());
        }
        // A task counts as ended shortly before its output is dropped.
        drop(runtime);
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn r15_an_abort_ends_a_task_once_in_each_of_its_states() {
    both(|from| {
        let runtime = runtime(1);
        let drops = Drops::default();
        // Queued, waiting, woken and ended.
        for polls in 0..4 {
            let guard = drops.guard();
            let task = spawn(&runtime, from, async move {
                let _guard = guard;
                if polls < 3 {
                    pending::<()>().await;
                }
            });
            let abort = task.abort_handle();
            if polls > 0 {
                (0..10).for_each(|_| runtime.block_on(yield_now()));
            }
            if polls == 2 {
                abort.abort();
            }
            abort.abort();
            task.abort();
            let result = runtime.block_on(task);
            assert_eq!(result.is_ok(), polls == 3 && drops.count() == 4, "{result:?} after {polls}");
            abort.abort();
            assert!(abort.is_finished());
            assert_eq!(drops.count(), polls + 1);
        }
    });
}

/// A handle of a runtime that is gone is used by a task of the one that has its memory.
#[test]
fn r14_a_spawn_on_a_runtime_that_is_gone_inside_of_the_next() {
    limited(|| {
        let first = runtime(1);
        let gone = first.handle();
        drop(first);
        let next = runtime(1);
        let error = next.block_on(next.spawn(async move { gone.spawn(async { 7 }).await })).unwrap().unwrap_err();
        assert!(error.to_string().contains("runtime shut down"), "{error}");
        assert_eq!(next.metrics().live_tasks, 0);
    });
}

/// It is the runtime that the thread has entered, and the processor has a cell at hand for such a task.
#[test]
fn r14_a_spawn_on_an_entered_runtime_that_is_gone_inside_of_the_next() {
    limited(|| {
        let first = runtime(1);
        let gone = first.handle();
        drop(first);
        let next = runtime(1);
        let spawn = || gmp::spawn(keep(Plain([7; 100])));
        let (there, refused) = next
            .block_on(next.spawn(async move {
                let there = spawn().await;
                let refused = {
                    let _entered = gone.enter();
                    spawn()
                };
                (there, refused.await)
            }))
            .unwrap();
        assert_eq!(there.unwrap(), Plain([7; 100]));
        let error = refused.unwrap_err();
        assert!(error.to_string().contains("runtime shut down"), "{error}");
        assert_eq!(next.metrics().live_tasks, 0);
    });
}

/// Wakers and handles of tasks that were dropped with their runtime do nothing to the next one, whose tasks have memory
/// beside theirs.
#[test]
fn r23_what_leads_to_a_task_outlives_its_runtime() {
    both(|from| {
        let first = runtime(1);
        let drops = Drops::default();
        let wakers: Arc<Mutex<Vec<Waker>>> = Arc::default();
        let handles: Vec<_> = (0..1000)
            .map(|_| {
                let (guard, wakers) = (drops.guard(), wakers.clone());
                spawn(
                    &first,
                    from,
                    poll_fn(move |cx| {
                        let _guard = &guard;
                        wakers.lock().unwrap().push(cx.waker().clone());
                        Poll::<u64>::Pending
                    }),
                )
            })
            .collect();
        while wakers.lock().unwrap().len() < 1000 {
            first.block_on(yield_now());
        }
        let aborts: Vec<_> = handles.iter().map(JoinHandle::abort_handle).collect();
        drop(first);
        assert_eq!(drops.count(), 1000);
        let next = runtime(1);
        let spawn_some = || async {
            let tasks: Vec<_> = (0..3000_u64).map(|n| gmp::spawn(async move { n })).collect();
            for (n, task) in tasks.into_iter().enumerate() {
                assert_eq!(task.await.unwrap(), n as u64);
            }
        };
        next.block_on(next.spawn(spawn_some())).unwrap();
        for waker in wakers.lock().unwrap().drain(..) {
            waker.wake_by_ref();
            drop(waker.clone());
            waker.wake();
        }
        for abort in aborts {
            abort.abort();
            assert!(abort.is_finished());
        }
        next.block_on(next.spawn(spawn_some())).unwrap();
        for (n, handle) in handles.into_iter().enumerate() {
            if n % 2 == 0 {
                let mut handle = handle;
                let polled = Pin::new(&mut handle).poll(&mut Context::from_waker(Waker::noop()));
                let Poll::Ready(Err(error)) = polled else { panic!("{polled:?}") };
                assert!(error.to_string().contains("runtime shut down"), "{error}");
            }
        }
        next.block_on(next.spawn(spawn_some())).unwrap();
        assert_eq!(next.metrics().live_tasks, 0);
    });
}

/// Tasks end, and handles and wakers go, on other threads than those that spawned them.
#[test]
fn r02_tasks_that_end_elsewhere_are_dropped_once() {
    const SPAWNERS: usize = 4;
    const TASKS: usize = 5000;
    limited(|| {
        let runtime = runtime(2);
        let drops = Drops::default();
        let (handles, joined) = channel::<JoinHandle<Guard>>();
        let joiner = std::thread::spawn(move || {
            let mut count = 0;
            for (n, handle) in joined.iter().enumerate() {
                if n % 3 == 0 {
                    drop(futures::executor::block_on(handle).unwrap());
                    count += 1;
                }
            }
            count
        });
        let spawners: Vec<_> = (0..SPAWNERS)
            .map(|_| {
                let (handles, drops) = (handles.clone(), drops.clone());
                runtime.spawn(async move {
                    for n in 0..TASKS {
                        let guard = drops.guard();
                        let task = gmp::spawn(async move {
                            if n % 7 == 0 {
                                yield_now().await;
                            }
                            guard
                        });
                        if n % 2 == 0 {
                            handles.send(task).unwrap();
                        }
                        if n % 100 == 0 {
                            yield_now().await;
                        }
                    }
                })
            })
            .collect();
        drop(handles);
        for spawner in spawners {
            runtime.block_on(spawner).unwrap();
        }
        assert!(joiner.join().unwrap() > 0);
        while runtime.metrics().live_tasks > 0 {
            std::thread::yield_now();
        }
        drop(runtime);
        assert_eq!(drops.count(), SPAWNERS * TASKS);
    });
}
