//! A blocking call in the middle of a poll: the others go on, and it costs nothing if it is short.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gmp::runtime::{Builder, Runtime, StuckIn};
use gmp::task::{block_in_place, yield_now};

use limit::limited;

#[path = "support/limit.rs"]
mod limit;

fn runtime(procs: usize) -> Runtime {
    // The lines about stuck polls are not for this test's reader.
    Builder::new().procs(procs).on_stuck(|_| ()).build().unwrap()
}

#[test]
fn r17_without_rescue_never_more_than_procs_run() {
    const PROCS: usize = 2;
    limited(|| {
        let runtime = Builder::new().procs(PROCS).rescue(None).build().unwrap();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (running, most) = (running.clone(), most.clone());
                runtime.spawn(async move {
                    for _ in 0..5 {
                        block_in_place(|| std::thread::sleep(Duration::from_millis(2)));
                        most.fetch_max(running.fetch_add(1, Relaxed) + 1, Relaxed);
                        let start = Instant::now();
                        while start.elapsed() < Duration::from_millis(1) {
                            std::hint::spin_loop();
                        }
                        running.fetch_sub(1, Relaxed);
                        yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        assert!(most.load(Relaxed) <= PROCS, "{} ran at once", most.load(Relaxed));
        assert_eq!(runtime.metrics().rescues, 0);
    });
}

#[test]
fn r03_a_blocking_call_gives_its_processor_to_the_others() {
    limited(|| {
        let runtime = Builder::new().procs(1).rescue(None).build().unwrap();
        let task = runtime.spawn(async {
            let (done, is_done) = channel();
            let other = gmp::spawn(async move { done.send(()).unwrap() });
            block_in_place(|| is_done.recv().unwrap());
            other.await.unwrap();
        });
        runtime.block_on(task).unwrap();
        assert!(runtime.metrics().retakes > 0);
    });
}

#[test]
fn r03_a_blocking_call_may_spawn_wake_block_on_nest_and_panic() {
    limited(|| {
        let runtime = runtime(1);
        let task = runtime.spawn(async {
            let value = block_in_place(|| {
                let spawned = gmp::spawn(async { 40 });
                let inner = block_in_place(|| gmp::block_on(async { 2 }));
                gmp::block_on(spawned).unwrap() + inner
            });
            assert_eq!(value, 42);
            let panic =
                std::panic::catch_unwind(|| block_in_place(|| std::panic::resume_unwind(Box::new(7)))).unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&7));
            // The processor is back: the local path works, in the golden order.
            let order = Arc::new(Mutex::new(Vec::new()));
            let tasks: Vec<_> = (0..3)
                .map(|n| {
                    let order = order.clone();
                    gmp::spawn(async move { order.lock().unwrap().push(n) })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        runtime.block_on(task).unwrap();
        assert_eq!(block_in_place(|| 7), 7, "on a thread that runs no task");
    });
}

#[test]
fn r03_short_blocking_calls_move_nothing() {
    limited(|| {
        // One processor for the task, one for the thread that waits for it: nobody wants what is in a call.
        let runtime = runtime(2);
        let handle = runtime.handle();
        let task = runtime.spawn(async move {
            // The thread that spawned this counts the machine that it woke only afterwards.
            gmp::time::sleep(Duration::from_millis(20)).await;
            let before = handle.metrics();
            for n in 0..1_000_000 {
                if n % 2 == 0 {
                    block_in_place(|| ());
                } else {
                    // Some hundred nanoseconds.
                    block_in_place(|| (0..20).for_each(|_| std::hint::spin_loop()));
                }
            }
            (before, handle.metrics())
        });
        let (before, after) = runtime.block_on(task).unwrap();
        let moved = |m: &gmp::runtime::Metrics| (m.retakes, m.rescues, m.wakes, m.sysmon_wakes, m.threads);
        assert_eq!(moved(&after), moved(&before));
    });
}

#[test]
fn r03_a_lock_held_across_a_blocking_call_beside_polls_that_wait_for_it() {
    limited(|| {
        const PROCS: usize = 2;
        // No more threads may be stuck than there are processors: at the limit nobody makes a processor free.
        let runtime = Builder::new().procs(PROCS).max_stuck(PROCS).on_stuck(|_| ()).build().unwrap();
        let lock = Arc::new(Mutex::new(0));
        let (started, start) = channel();
        let holder = runtime.spawn({
            let lock = lock.clone();
            async move {
                let mut guard = lock.lock().unwrap();
                started.send(()).unwrap();
                block_in_place(|| std::thread::sleep(Duration::from_millis(50)));
                *guard += 1;
            }
        });
        start.recv().unwrap();
        let waiters: Vec<_> = (0..4 * PROCS)
            .map(|_| {
                let lock = lock.clone();
                runtime.spawn(async move { *lock.lock().unwrap() += 1 })
            })
            .collect();
        runtime.block_on(async {
            holder.await.unwrap();
            for waiter in waiters {
                waiter.await.unwrap();
            }
        });
        assert_eq!(*lock.lock().unwrap(), 1 + 4 * PROCS);
    });
}

/// A lock held across a blocking call while so many polls wait for it that no more threads may be stuck: the call comes
/// out and finds no processor, nor will there be one, so its poll goes on without.
fn holder_of_a_lock(holds: impl FnOnce(&Runtime, Arc<dyn Fn() + Send + Sync>)) {
    const PROCS: usize = 2;
    // As many as are stuck when all processors have gone once, and as many as then keep theirs.
    const WAITERS: usize = 2 * PROCS;
    let runtime = Builder::new().procs(PROCS).max_stuck(PROCS).on_stuck(|_| ()).build().unwrap();
    let (lock, waiting) = (Arc::new(Mutex::new(0)), Arc::new(AtomicUsize::new(0)));
    let handle = runtime.handle();
    let hold = {
        let (lock, waiting) = (lock.clone(), waiting.clone());
        move || {
            let mut guard = lock.lock().unwrap();
            let waiters: Vec<_> = (0..WAITERS)
                .map(|_| {
                    let (lock, waiting) = (lock.clone(), waiting.clone());
                    handle.spawn(async move {
                        waiting.fetch_add(1, Relaxed);
                        *lock.lock().unwrap() += 1;
                    })
                })
                .collect();
            block_in_place(|| {
                while waiting.load(Relaxed) < WAITERS {
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let metrics = handle.metrics();
            assert_eq!((metrics.stuck_threads, metrics.releases), (PROCS + 1, 1), "{metrics:?}");
            *guard += 1;
            drop(guard);
            // Still without a processor: a blocking call just runs, and a nested `block_on` has one for its own polls.
            assert_eq!(block_in_place(|| 7), 7);
            for waiter in waiters {
                gmp::block_on(waiter).unwrap();
            }
            assert_eq!(*lock.lock().unwrap(), 1 + WAITERS);
        }
    };
    holds(&runtime, Arc::new(hold));
    // Its poll is over; the others' threads come back too.
    while runtime.metrics().stuck_threads > 0 {
        std::thread::yield_now();
    }
    runtime.block_on(runtime.spawn(async {})).unwrap();
    runtime.shutdown_timeout(Duration::MAX).expect("nobody is left");
}

#[test]
fn r03_a_lock_held_across_a_blocking_call_of_a_task_at_the_limit() {
    limited(|| holder_of_a_lock(|runtime, hold| runtime.block_on(runtime.spawn(async move { hold() })).unwrap()));
}

#[test]
fn r03_a_lock_held_across_a_blocking_call_in_block_on_at_the_limit() {
    limited(|| holder_of_a_lock(|runtime, hold| runtime.block_on(async { hold() })));
}

/// A poll that was rescued makes a blocking call: if a processor is idle when it ends the poll goes on with that one.
#[test]
fn r03_a_blocking_call_in_a_rescued_poll_takes_an_idle_processor() {
    limited(|| {
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let runtime = Builder::new()
            .procs(1)
            .on_stuck(move |stuck| {
                tell.lock().unwrap().send((stuck.stuck_in, stuck.location.map(|l| l.line()))).unwrap()
            })
            .build()
            .unwrap();
        let handle = runtime.handle();
        let line = line!() + 1;
        let task = runtime.spawn(async move {
            let stuck = || {
                let (done, is_done) = channel();
                drop(gmp::spawn(async move { done.send(()).unwrap() }));
                is_done.recv().unwrap();
            };
            stuck();
            assert_eq!(handle.metrics().stuck_threads, 1);
            // Not idle: another task has it until it is told. The call ends without one.
            let (go, gone) = channel::<()>();
            let (started, has_started) = channel();
            let other = gmp::spawn(async move {
                started.send(()).unwrap();
                while gone.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    yield_now().await;
                }
            });
            has_started.recv().unwrap();
            block_in_place(|| ());
            assert_eq!(handle.metrics().stuck_threads, 1);
            drop(go);
            block_in_place(|| {
                // Inside it the thread has none.
                while !other.is_finished() || handle.metrics().idle_procs == 0 {
                    std::thread::yield_now();
                }
            });
            let metrics = handle.metrics();
            assert_eq!((metrics.stuck_threads, metrics.idle_procs), (0, 0), "{metrics:?}");
            // It can be taken again.
            stuck();
            assert_eq!(handle.metrics().stuck_threads, 1);
            // A nested `block_on` has a processor for its polls.
            gmp::block_on(async {
                yield_now().await;
                assert_eq!(handle.metrics().stuck_threads, 0);
            });
            handle.metrics().rescues
        });
        assert_eq!(runtime.block_on(task).unwrap(), 2);
        // Both times as the task that it is.
        assert_eq!(told.recv().unwrap(), (StuckIn::Task, Some(line)));
        assert_eq!(told.recv().unwrap(), (StuckIn::Task, Some(line)));
    });
}

/// A poll that goes on after a blocking call, with whatever processor, is still one of its task.
#[test]
fn r25_a_poll_keeps_its_place_of_birth_across_blocking_calls() {
    limited(|| {
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let runtime = Builder::new()
            .procs(1)
            .on_stuck(move |stuck| {
                tell.lock().unwrap().send((stuck.stuck_in, stuck.location.map(|l| l.line()))).unwrap()
            })
            .build()
            .unwrap();
        let line = line!() + 1;
        let task = runtime.spawn(async {
            let wait = || {
                let (done, is_done) = channel();
                drop(gmp::spawn(async move { done.send(()).unwrap() }));
                is_done.recv().unwrap();
            };
            block_in_place(wait);
            gmp::block_on(yield_now());
            wait();
        });
        runtime.block_on(task).unwrap();
        assert!(runtime.metrics().retakes > 0);
        while told.recv().unwrap() != (StuckIn::Task, Some(line)) {}
    });
}
