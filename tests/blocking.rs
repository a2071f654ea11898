//! Closures that block run beside the tasks: in order, within the limit, and none is lost.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use gmp::runtime::{Builder, Runtime};

use drops::Drops;
use limit::limited;

#[path = "support/drops.rs"]
mod drops;
#[path = "support/limit.rs"]
mod limit;

fn pool(limit: usize) -> Runtime {
    Builder::new().procs(2).max_blocking(limit).build().unwrap()
}

/// Fills a pool with the limit 1 until the sender is used or dropped.
fn occupy(runtime: &Runtime) -> (std::sync::mpsc::Sender<()>, gmp::task::JoinHandle<()>) {
    let (open, gate) = channel::<()>();
    let (started, has_started) = channel();
    let handle = runtime.spawn_blocking(move || {
        started.send(()).unwrap();
        let _ = gate.recv();
    });
    has_started.recv().unwrap();
    (open, handle)
}

#[test]
fn r16_closures_start_in_order() {
    limited(|| {
        let runtime = pool(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let (open, first) = occupy(&runtime);
        let handles: Vec<_> = (0..100)
            .map(|n| {
                let order = order.clone();
                runtime.spawn_blocking(move || order.lock().unwrap().push(n))
            })
            .collect();
        assert_eq!(runtime.metrics().blocking_queue, 100);
        drop(open);
        runtime.block_on(async {
            first.await.unwrap();
            for handle in handles {
                handle.await.unwrap();
            }
        });
        assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn r16_as_many_run_as_the_limit_allows_and_no_more() {
    const LIMIT: usize = 3;
    limited(|| {
        let runtime = pool(LIMIT);
        // Three must be inside at once, or none comes out.
        let together = Arc::new(Barrier::new(LIMIT));
        let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let handles: Vec<_> = (0..7 * LIMIT)
            .map(|_| {
                let (together, inside, most) = (together.clone(), inside.clone(), most.clone());
                runtime.spawn_blocking(move || {
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    together.wait();
                    inside.fetch_sub(1, Ordering::SeqCst);
                })
            })
            .collect();
        runtime.block_on(async {
            for handle in handles {
                handle.await.unwrap();
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), LIMIT);
        assert!(runtime.metrics().blocking_threads <= LIMIT, "{:?}", runtime.metrics());
    });
}

#[test]
fn r16_closures_that_wait_for_closures_need_no_place() {
    fn deep(depth: usize) -> usize {
        if depth == 0 { 0 } else { 1 + gmp::block_on(gmp::spawn_blocking(move || deep(depth - 1))).unwrap() }
    }
    fn wide(depth: u32) -> usize {
        if depth == 0 {
            return 1;
        }
        let handles: Vec<_> = (0..3).map(|_| gmp::spawn_blocking(move || wide(depth - 1))).collect();
        handles.into_iter().map(|handle| gmp::block_on(handle).unwrap()).sum()
    }
    limited(|| {
        for procs in [1, 2] {
            let runtime = Builder::new().procs(procs).max_blocking(1).build().unwrap();
            assert_eq!(runtime.block_on(runtime.spawn_blocking(|| deep(50))).unwrap(), 50);
            assert_eq!(runtime.block_on(runtime.spawn_blocking(|| wide(4))).unwrap(), 81);
            assert_eq!(runtime.metrics().blocking_queue, 0);
        }
    });
}

#[test]
fn r16_ten_thousand_closures() {
    const CLOSURES: u64 = 10_000;
    limited(|| {
        let runtime = pool(8);
        let task = runtime.spawn(async {
            let handles: Vec<_> = (0..CLOSURES).map(|n| gmp::spawn_blocking(move || n)).collect();
            let mut sum = 0;
            for handle in handles {
                sum += handle.await.unwrap();
            }
            sum
        });
        let outside: Vec<_> = (0..CLOSURES).map(|n| runtime.spawn_blocking(move || n)).collect();
        let sum: u64 = outside.into_iter().map(|handle| runtime.block_on(handle).unwrap()).sum();
        assert_eq!(sum, CLOSURES * (CLOSURES - 1) / 2);
        assert_eq!(runtime.block_on(task).unwrap(), sum);
        assert_eq!(runtime.metrics().live_tasks, 0);
    });
}

#[test]
fn r16_a_closure_holds_no_processor_and_has_its_runtime() {
    limited(|| {
        let runtime = Builder::new().procs(1).thread_name("test").max_blocking(1).build().unwrap();
        let (open, gate) = channel();
        let closure = runtime.spawn_blocking(move || {
            // The one processor runs the task that opens the gate.
            drop(gmp::spawn(async move { open.send(gmp::procs()).unwrap() }));
            let procs = gate.recv().unwrap();
            let slept = gmp::block_on(async {
                gmp::time::sleep(Duration::from_millis(1)).await;
                gmp::spawn(async { 7 }).await.unwrap()
            });
            (procs, slept, thread::current().name().unwrap().to_owned())
        });
        assert_eq!(runtime.block_on(closure).unwrap(), (1, 7, "test-block-0".to_owned()));
    });
}

#[test]
fn r16_outside_of_runtimes_the_default_one_has_the_closure() {
    limited(|| {
        let handle = gmp::task::spawn_blocking(|| gmp::spawn_blocking(|| 3));
        assert_eq!(gmp::block_on(async { handle.await.unwrap().await.unwrap() }), 3);
    });
}

#[test]
fn r15_abort_ends_a_closure_that_has_not_started() {
    limited(|| {
        let runtime = pool(1);
        let (open, first) = occupy(&runtime);
        let drops = Drops::default();
        let ran = Arc::new(AtomicBool::new(false));
        let mut handles: Vec<_> = (0..3)
            .map(|_| {
                let (guard, ran) = (drops.guard(), ran.clone());
                runtime.spawn_blocking(move || {
                    drop(guard);
                    ran.store(true, Ordering::SeqCst);
                })
            })
            .collect();
        // Every thread of the pool is in use, and the handle ends all the same.
        let by_handle = handles.remove(1);
        by_handle.abort();
        assert!(runtime.block_on(by_handle).unwrap_err().is_cancelled());
        let by_abort_handle = handles.remove(0);
        let abort = by_abort_handle.abort_handle();
        abort.abort();
        abort.abort();
        assert!(runtime.block_on(by_abort_handle).unwrap_err().is_cancelled());
        assert!(abort.is_finished());
        assert_eq!((drops.count(), ran.load(Ordering::SeqCst)), (2, false));
        // One that runs is left alone.
        first.abort();
        drop(open);
        runtime.block_on(first).unwrap();
        runtime.block_on(handles.remove(0)).unwrap();
        assert_eq!((drops.count(), ran.load(Ordering::SeqCst)), (3, true));
    });
}

#[test]
fn r12_a_panic_goes_to_the_handle_and_the_thread_goes_on() {
    struct PanicsInDrop;
    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }
    limited(|| {
        let runtime = pool(1);
        let names = Arc::new(Mutex::new(HashSet::new()));
        let note = |names: &Mutex<HashSet<_>>| names.lock().unwrap().insert(thread::current().id());
        let here = names.clone();
        let handle = runtime.spawn_blocking(move || {
            note(&here);
            std::panic::panic_any(41u8);
        });
        let error = runtime.block_on(handle).unwrap_err();
        assert_eq!(error.into_panic().downcast_ref(), Some(&41u8));
        let (here, guard) = (names.clone(), PanicsInDrop);
        let handle = runtime.spawn_blocking(move || {
            note(&here);
            drop(guard);
        });
        assert!(runtime.block_on(handle).unwrap_err().is_panic());
        // Nobody takes this output.
        drop(runtime.spawn_blocking(|| PanicsInDrop));
        let here = names.clone();
        runtime.block_on(runtime.spawn_blocking(move || note(&here))).unwrap();
        assert_eq!(names.lock().unwrap().len(), 1, "the thread did not survive");
    });
}

/// A thread that goes to rest tells the clock, and what this makes ready calls the next closure, with no other thread
/// to be had.
#[test]
fn r16_a_closure_that_comes_while_its_thread_tells_the_clock_is_run() {
    limited(|| {
        // With a limit: the closure waits for the processor to be idle, which it is not while it runs there.
        let builder = Builder::new().procs(1).max_threads(3).max_blocking(512).start_paused(true);
        let runtime = builder.thread_keep_alive(Duration::MAX).build().unwrap();
        let task = runtime.spawn(async {
            for _ in 0..5000 {
                let call = gmp::spawn_blocking(|| {
                    let handle = gmp::runtime::Handle::current();
                    while handle.metrics().idle_procs == 0 {
                        thread::yield_now();
                    }
                });
                drop(call);
                gmp::time::sleep(Duration::from_secs(1)).await;
            }
        });
        runtime.block_on(task).unwrap();
    });
}

#[test]
fn r16_idle_threads_end() {
    const THREADS: usize = 4;
    limited(|| {
        let runtime = Builder::new().procs(1).thread_keep_alive(Duration::from_millis(5)).build().unwrap();
        for _ in 0..20 {
            let together = Arc::new(Barrier::new(THREADS));
            let handles: Vec<_> = (0..THREADS)
                .map(|_| {
                    let together = together.clone();
                    runtime.spawn_blocking(move || together.wait().is_leader())
                })
                .collect();
            let leaders =
                handles.into_iter().map(|handle| runtime.block_on(handle).unwrap()).filter(|leads| *leads).count();
            assert_eq!(leaders, 1);
            while runtime.metrics().blocking_threads > 0 {
                thread::yield_now();
            }
            assert_eq!(runtime.metrics().blocking_idle_threads, 0);
        }
    });
}

#[test]
fn r16_idle_threads_are_used_again() {
    limited(|| {
        let runtime = Builder::new().procs(1).thread_keep_alive(Duration::MAX).build().unwrap();
        for _ in 0..100 {
            runtime.block_on(runtime.spawn_blocking(|| ())).unwrap();
            while runtime.metrics().blocking_idle_threads == 0 {
                thread::yield_now();
            }
        }
        assert_eq!(runtime.metrics().blocking_threads, 1);
    });
}

#[test]
fn r14_shutdown_drops_what_is_queued_and_waits_for_what_runs() {
    limited(|| {
        let runtime = pool(1);
        let drops = Drops::default();
        let (started, has_started) = channel();
        let (lives, is_gone) = channel::<()>();
        drop(runtime.spawn(async move {
            let _lives = lives;
            std::future::pending::<()>().await;
        }));
        let guard = drops.guard();
        let first = runtime.spawn_blocking(move || {
            started.send(()).unwrap();
            // It goes on until the runtime drops its tasks.
            is_gone.recv().unwrap_err();
            let refused = gmp::block_on(gmp::spawn_blocking(|| ())).unwrap_err();
            drop(guard);
            refused.to_string()
        });
        has_started.recv().unwrap();
        let guard = drops.guard();
        let queued = runtime.spawn_blocking(move || drop(guard));
        runtime.shutdown_timeout(Duration::MAX).expect("the closure ends");
        assert_eq!(drops.count(), 2);
        let next = pool(1);
        assert!(next.block_on(first).unwrap().contains("runtime shut down"));
        let error = next.block_on(queued).unwrap_err();
        assert!(error.is_cancelled() && error.to_string().contains("runtime shut down"), "{error}");
    });
}

#[test]
fn r14_shutdown_leaves_a_closure_that_does_not_end_and_says_so() {
    limited(|| {
        let drops = Drops::default();
        for timeout in [Some(Duration::from_millis(1)), None] {
            let runtime = pool(2);
            let (open, gate) = channel::<()>();
            let (started, has_started) = channel();
            let guard = drops.guard();
            let before = drops.count();
            let handle = runtime.spawn_blocking(move || {
                let _guard = guard;
                started.send(()).unwrap();
                let _ = gate.recv();
                gmp::block_on(gmp::spawn(async {})).is_err()
            });
            has_started.recv().unwrap();
            match timeout {
                Some(timeout) => {
                    let left = runtime.shutdown_timeout(timeout).unwrap_err();
                    // The first machine may be on its way to its end.
                    assert!(left.threads <= 1, "{left}");
                    assert_eq!((left.tasks, left.blocking), (0, 1), "{left}");
                }
                None => drop(runtime),
            }
            // The gate opens only now: waiting for the closure would be a hang.
            assert_eq!(drops.count(), before);
            let next = pool(2);
            drop(open);
            assert!(next.block_on(handle).unwrap(), "a runtime that is shut down took a task");
            assert_eq!(drops.count(), before + 1);
            next.shutdown_timeout(Duration::from_secs(30)).expect("nothing is left of the next runtime");
        }
    });
}

/// An idle thread of the pool that takes long to end is none of a closure.
#[test]
fn r14_shutdown_tells_threads_that_end_from_closures() {
    limited(|| {
        let (open, gate) = channel::<()>();
        let gate = Mutex::new(gate);
        let runtime = Builder::new().procs(1).thread_name("ends").on_thread_stop(move || {
            if thread::current().name().unwrap().starts_with("ends-block") {
                let _ = gate.lock().unwrap().recv();
            }
        });
        let runtime = runtime.build().unwrap();
        drop(runtime.spawn_blocking(|| ()));
        while runtime.metrics().blocking_idle_threads == 0 {
            thread::yield_now();
        }
        let left = runtime.shutdown_timeout(Duration::from_millis(1)).unwrap_err();
        assert_eq!((left.tasks, left.blocking), (0, 0), "{left}");
        assert!(left.threads >= 1, "{left}");
        drop(open);
    });
}

#[test]
fn r14_a_runtime_that_ends_in_its_own_closure_waits_for_nothing() {
    limited(|| {
        let runtime = pool(1);
        let handle = runtime.handle();
        let left = handle.spawn_blocking(move || runtime.shutdown_timeout(Duration::MAX).unwrap_err());
        assert_eq!(gmp::block_on(left).unwrap().blocking, 1);
    });
}

#[test]
fn r14_closures_from_everywhere_while_the_runtime_ends() {
    const ROUNDS: usize = 30;
    limited(|| {
        for _ in 0..ROUNDS {
            let runtime = pool(3);
            let (drops, handle) = (Drops::default(), runtime.handle());
            let stop = AtomicBool::new(false);
            let spawned = thread::scope(|scope| {
                let outside = scope.spawn(|| {
                    let mut handles = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let (guard, again) = (drops.guard(), drops.guard());
                        handles.push(handle.spawn_blocking(move || {
                            drop(guard);
                            drop(gmp::spawn_blocking(move || drop(again)));
                        }));
                        if handles.len() % 3 == 0 {
                            handles[handles.len() / 2].abort();
                        }
                    }
                    handles
                });
                while drops.count() < 20 {
                    thread::yield_now();
                }
                drop(runtime);
                stop.store(true, Ordering::Relaxed);
                outside.join().unwrap()
            });
            let closures = spawned.len();
            for handle in spawned {
                if let Err(e) = gmp::block_on(handle) {
                    assert!(e.is_cancelled(), "{e}");
                }
            }
            assert_eq!(drops.count(), 2 * closures);
        }
    });
}

#[test]
fn r24_a_limit_of_none_is_refused() {
    let error = Builder::new().max_blocking_threads(0).build().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("`0`"), "{error}");
}

#[test]
fn r24_a_stack_that_no_thread_can_have_is_refused() {
    for bytes in [1 << 60, usize::MAX] {
        let error = Builder::new().thread_stack_size(bytes).build().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        let text = error.to_string();
        assert!(text.starts_with("thread_stack_size") && text.contains(&format!("`{bytes}`")), "{text}");
    }
}

#[test]
fn r24_a_name_that_no_thread_can_have_is_refused() {
    limited(|| {
        let error = Builder::new().thread_name("web\0").build().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(r#""web\0""#), "{error}");
    });
}
