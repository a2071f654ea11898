//! `block_on` wherever it may be called: it holds a processor while it polls, and none while it waits.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use gmp::runtime::{Builder, Handle, Runtime};
use gmp::task::yield_now;

use door::Door;
use limit::limited;

#[path = "support/door.rs"]
mod door;
#[path = "support/limit.rs"]
mod limit;

fn runtime(procs: usize) -> Runtime {
    Builder::new().procs(procs).build().unwrap()
}

#[test]
fn r24_inside_a_task_on_one_processor() {
    limited(|| {
        let runtime = runtime(1);
        let task = runtime.spawn(async {
            // The inner task can only run on the processor that this one gives up.
            gmp::block_on(async { gmp::spawn(async { yield_now().await }).await.unwrap() });
            gmp::block_on(async { 7 })
        });
        assert_eq!(runtime.block_on(task).unwrap(), 7);
    });
}

#[test]
fn r24_nested_several_deep() {
    fn nest(depth: u32) -> u32 {
        if depth == 0 {
            return 0;
        }
        gmp::block_on(async move {
            yield_now().await;
            let inner = gmp::spawn(async move { nest(depth - 1) });
            let here = nest(depth / 2);
            inner.await.unwrap().max(here) + 1
        })
    }
    limited(|| {
        for procs in [1, 2] {
            let runtime = runtime(procs);
            assert_eq!(runtime.block_on(async { nest(6) }), 6);
            assert_eq!(runtime.block_on(runtime.spawn(async { nest(6) })).unwrap(), 6);
        }
    });
}

#[test]
fn r24_on_another_runtime_inside_a_task() {
    limited(|| {
        let (a, b) = (runtime(1), runtime(1));
        let (to_a, to_b) = (a.handle(), b.handle());
        let task = a.spawn(async move {
            let sibling = gmp::spawn(async { 1 });
            let inner = to_b.block_on(async move {
                // Both runtimes go on meanwhile, and this one is the current one.
                assert_eq!(sibling.await.unwrap(), 1);
                let back = gmp::spawn(async move { to_a.block_on(async { gmp::spawn(async { 2 }).await.unwrap() }) });
                back.await.unwrap()
            });
            inner + gmp::spawn(async { 3 }).await.unwrap()
        });
        assert_eq!(a.block_on(task).unwrap(), 5);
    });
}

#[test]
fn r24_many_threads_share_one_processor() {
    const THREADS: usize = 16;
    const TURNS: usize = 200;
    limited(|| {
        let runtime = runtime(1);
        let inside = AtomicUsize::new(0);
        let turns = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    runtime.block_on(async {
                        for turn in 0..TURNS {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two polls on one processor");
                            inside.fetch_sub(1, Ordering::SeqCst);
                            turns.fetch_add(1, Ordering::SeqCst);
                            match turn % 3 {
                                0 => yield_now().await,
                                1 => gmp::spawn(async {}).await.unwrap(),
                                _ => gmp::time::sleep(Duration::from_micros(50)).await,
                            }
                        }
                    });
                });
            }
        });
        assert_eq!(turns.load(Ordering::SeqCst), THREADS * TURNS);
    });
}

/// The guard hides nothing: the thread still gives its processor up when it waits.
#[test]
fn r24_with_a_runtime_entered() {
    limited(|| {
        let (a, b) = (runtime(1), runtime(1));
        let (to_a, to_b) = (a.handle(), b.handle());
        for entered in [to_a.clone(), to_b.clone()] {
            let task = a.spawn(async move {
                let _guard = entered.enter();
                gmp::block_on(async { gmp::spawn(async { 7 }).await.unwrap() })
            });
            assert_eq!(a.block_on(task).unwrap(), 7);
        }
        for entered in [&to_a, &to_b] {
            a.block_on(async {
                let _guard = entered.enter();
                assert_eq!(to_a.spawn(async { 7 }).await.unwrap(), 7);
                gmp::time::sleep(Duration::from_millis(1)).await;
                assert_eq!(gmp::spawn(async { 8 }).await.unwrap(), 8);
            });
        }
    });
}

/// The guard brings back the runtime of its thread, not a processor that the thread had.
#[test]
fn r23_a_guard_that_outlives_its_block_on() {
    limited(|| {
        let runtime = runtime(1);
        let handle = runtime.handle();
        let guard = runtime.block_on(async { handle.enter() });
        drop(guard);
        // The only processor is in a task's poll: this thread must not push to its queue.
        let door = Door::default();
        let waits = runtime.spawn(door.clone());
        door.waker_of(1);
        door.open();
        let metrics = runtime.metrics();
        runtime.block_on(waits).unwrap();
        assert_eq!(metrics.local_queues, [0]);
        thread::scope(|scope| {
            let spawner = scope.spawn(|| handle.block_on(async { gmp::spawn(async { 7 }).await.unwrap() }));
            assert_eq!(spawner.join().unwrap(), 7);
        });
    });
}

/// A `block_on` that yields in a loop lets timers fire, on one processor.
#[test]
fn r04_a_block_on_that_yields_lets_sleepers_wake() {
    limited(|| {
        let runtime = runtime(1);
        runtime.block_on(async {
            let sleeper = gmp::spawn(gmp::time::sleep(Duration::from_millis(2)));
            while !sleeper.is_finished() {
                yield_now().await;
            }
        });
    });
}

/// Nor does one that never waits, because its leaves are always ready, keep the processor for itself.
#[test]
fn r04_a_block_on_that_is_always_ready_lets_others_run() {
    limited(|| {
        let runtime = runtime(1);
        let handle = runtime.handle();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let spawner = thread::spawn(move || {
            gone.recv().unwrap();
            handle.spawn(async { 7 })
        });
        runtime.block_on(async {
            // Well beyond what one slice and one poll let through.
            for _ in 0..100_000 {
                gmp::task::coop::consume_budget().await;
            }
            go.send(()).unwrap();
            while !spawner.is_finished() {
                gmp::task::coop::consume_budget().await;
            }
            let task = spawner.join().unwrap();
            while !task.is_finished() {
                gmp::task::coop::consume_budget().await;
            }
        });
    });
}

/// To let others go first is two thread switches, dearer by far than what a budget lasts for: a thread that has spent
/// it goes on for a while. How long that is goes by the clock, so it is tried until the machine has the time.
#[test]
fn r04_a_block_on_that_has_spent_its_budget_goes_on_for_a_while() {
    const SLICES: usize = 100;
    limited(|| {
        let runtime = runtime(1);
        let turns = Arc::new(AtomicUsize::new(0));
        let count = turns.clone();
        drop(runtime.spawn(async move {
            loop {
                count.fetch_add(1, Ordering::SeqCst);
                yield_now().await;
            }
        }));
        let gave_way = || {
            runtime.block_on(async {
                let (mut times, mut seen) = (0, turns.load(Ordering::SeqCst));
                for _ in 0..SLICES * 128 {
                    gmp::task::coop::consume_budget().await;
                    let now = turns.load(Ordering::SeqCst);
                    times += usize::from(now != seen);
                    seen = now;
                }
                times
            })
        };
        while gave_way() > SLICES / 2 {}
    });
}

/// The machine that fires timers collects their wakes on its processor; a waker that blocks does not take that away.
#[test]
fn r13_a_waker_that_blocks() {
    struct Blocks(Handle, Handle, AtomicUsize);
    impl Wake for Blocks {
        fn wake(self: Arc<Self>) {
            for runtime in [&self.0, &self.1] {
                runtime.block_on(yield_now());
                drop(runtime.spawn(async {}));
            }
            self.2.fetch_add(1, Ordering::SeqCst);
        }
    }
    limited(|| {
        let (a, b) = (runtime(1), runtime(1));
        let blocks = Arc::new(Blocks(a.handle(), b.handle(), AtomicUsize::new(0)));
        let waker = Waker::from(blocks.clone());
        let _entered = a.enter();
        let mut sleep = Box::pin(gmp::time::sleep(Duration::from_millis(1)));
        assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        a.block_on(a.spawn(gmp::time::sleep(Duration::from_millis(5)))).unwrap();
        while blocks.2.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        assert_eq!(a.block_on(a.spawn(async { 7 })).unwrap(), 7);
    });
}

#[test]
fn r12_a_panic_in_block_on_gives_the_processor_back() {
    /// Panics in its second poll.
    struct Second(bool);
    impl Future for Second {
        type Output = ();
        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            assert!(!std::mem::replace(&mut self.0, true), "struck");
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }
    limited(|| {
        let runtime = runtime(1);
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(Second(false))));
        assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"struck"));
        let task = runtime.spawn(async {
            let nested = std::panic::AssertUnwindSafe(|| gmp::block_on(Second(false)));
            assert!(std::panic::catch_unwind(nested).is_err());
            gmp::spawn(async { 7 }).await.unwrap()
        });
        assert_eq!(runtime.block_on(task).unwrap(), 7);
    });
}

#[test]
fn r04_threads_in_block_on_do_not_starve_tasks_and_timers() {
    limited(|| {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
        // One processor, and threads that want it all the time.
        let runtime = Builder::new().procs(1).build().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (handle, stop) = (runtime.handle(), stop.clone());
                std::thread::spawn(move || {
                    handle.block_on(async {
                        while !stop.load(Relaxed) {
                            gmp::task::yield_now().await;
                        }
                    });
                })
            })
            .collect();
        for _ in 0..20 {
            let (done, is_done) = std::sync::mpsc::channel();
            let slept = done.clone();
            drop(runtime.spawn(async move { done.send(()).unwrap() }));
            drop(runtime.spawn(async move {
                gmp::time::sleep(std::time::Duration::from_millis(1)).await;
                slept.send(()).unwrap();
            }));
            is_done.recv().unwrap();
            is_done.recv().unwrap();
        }
        stop.store(true, Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
