//! A task that has kept the others waiting because it computed for long keeps them waiting no more: it is polled on a
//! thread beside the processors from then on.
#![cfg(target_os = "linux")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gmp::runtime::{Builder, Runtime, StuckPoll};
use gmp::task::{JoinHandle, block_in_place, spawn_blocking, yield_now};
use gmp::time::{Instant, sleep};

use limit::limited;

#[path = "support/limit.rs"]
mod limit;

/// More than makes a poll long, in nanoseconds of CPU time.
const LONG_NS: u64 = 1_000_000;

/// CPU time of this thread, in nanoseconds.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is there to be written.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn compute() {
    let end = cpu_ns() + LONG_NS;
    while cpu_ns() < end {}
}

/// Runs `test` while no other one of this file does: each has threads that compute, and a lane that gets no CPU stalls.
fn alone(test: impl FnOnce()) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    limited(test);
}

fn builder() -> Builder {
    Builder::new().procs(1).on_stuck(|_| ())
}

/// A task that always waits for its turn and counts them, until the guard is dropped.
struct Light {
    turns: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Light {
    fn on(runtime: &Runtime) -> Self {
        let (turns, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let light = Light { turns: turns.clone(), stop: stop.clone() };
        drop(runtime.spawn(async move {
            while !stop.load(Relaxed) {
                turns.fetch_add(1, Relaxed);
                yield_now().await;
            }
        }));
        light
    }
}

impl Drop for Light {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// A task that computes in each poll and then does this, until that says that it is over.
fn burner(runtime: &Runtime, mut then: impl FnMut() -> bool + Send + 'static) -> JoinHandle<()> {
    runtime.spawn(async move {
        loop {
            compute();
            if then() {
                break;
            }
            yield_now().await;
        }
    })
}

/// So many polls have begun on lanes since now.
fn lane_polls(runtime: &Runtime, more: u64) {
    let before = runtime.metrics().lane_polls;
    while runtime.metrics().lane_polls < before + more {
        std::thread::yield_now();
    }
}

/// Each poll ends when another task had its turn meanwhile, with one processor for both, and nobody is rescued.
#[test]
fn r03_a_task_that_computes_in_each_poll_keeps_nobody_waiting() {
    alone(|| {
        let runtime = builder().build().unwrap();
        let light = Light::on(&runtime);
        let (waits, polls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (turns, task_waits, task_polls) = (light.turns.clone(), waits.clone(), polls.clone());
        let burner = burner(&runtime, move || {
            if !task_waits.load(Relaxed) {
                return false;
            }
            let before = turns.load(Relaxed);
            while turns.load(Relaxed) == before {
                std::hint::spin_loop();
            }
            task_polls.fetch_add(1, Relaxed) == 20
        });
        lane_polls(&runtime, 2);
        let before = runtime.metrics();
        waits.store(true, Relaxed);
        runtime.block_on(burner).unwrap();
        let after = runtime.metrics();
        assert_eq!(after.rescues, before.rescues, "{after:?}");
        assert!(after.lane_polls - before.lane_polls >= 20, "{after:?}");
    });
}

/// Many at once, with one processor for all, and each computes until all of them are in a poll. When the watcher has
/// found two the others are left to lanes, and what else there is goes on.
#[test]
fn r03_tasks_spawned_where_tasks_compute_for_long_are_left_to_lanes() {
    const TASKS: u64 = 16;
    alone(|| {
        let runtime = builder().build().unwrap();
        let _light = Light::on(&runtime);
        // On a machine that is busy lanes may get no CPU for a while, and no place is known for a second then.
        loop {
            let before = runtime.metrics();
            let begun = Arc::new(AtomicU64::new(0));
            let tasks: Vec<_> = (0..TASKS)
                .map(|_| {
                    let begun = begun.clone();
                    runtime.spawn(async move {
                        begun.fetch_add(1, Relaxed);
                        while begun.load(Relaxed) < TASKS {
                            std::hint::spin_loop();
                        }
                    })
                })
                .collect();
            tasks.into_iter().for_each(|task| runtime.block_on(task).unwrap());
            let after = runtime.metrics();
            let (rescues, on_lanes) = (after.rescues - before.rescues, after.lane_polls - before.lane_polls);
            if rescues <= 4 && on_lanes >= TASKS - 4 {
                break;
            }
        }
    });
}

/// A program may spawn all that it has by one line. Two others of it are behind many that compute until both were
/// polled: the first is tried before those that are known by then, and the second goes the way of the first.
#[test]
fn r03_one_spawned_where_many_compute_does_not_wait_for_all_of_them() {
    const TASKS: u64 = 16;
    fn spawn(runtime: &Runtime, future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        runtime.spawn(future)
    }
    alone(|| {
        // Three in a row: by luck one of the lanes may be so quick that it needs neither.
        let mut good = 0;
        while good < 3 {
            // A new one, which knows of none of them.
            let runtime = builder().build().unwrap();
            let (begun, light) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
            let mut tasks = Vec::new();
            for _ in 0..TASKS {
                let (begun, light) = (begun.clone(), light.clone());
                tasks.push(spawn(&runtime, async move {
                    begun.fetch_add(1, Relaxed);
                    while light.load(Relaxed) < 2 {
                        std::hint::spin_loop();
                    }
                }));
            }
            let before_last = Arc::new(AtomicU64::new(0));
            for _ in 0..2 {
                let (begun, light, before_last) = (begun.clone(), light.clone(), before_last.clone());
                tasks.push(spawn(&runtime, async move {
                    before_last.store(begun.load(Relaxed), Relaxed);
                    light.fetch_add(1, Relaxed);
                }));
            }
            tasks.into_iter().for_each(|task| runtime.block_on(task).unwrap());
            // On a machine that is busy it may take a while until a lane gets a CPU, and hogs come to others.
            good = if before_last.load(Relaxed) <= TASKS / 2 { good + 1 } else { 0 };
        }
    });
}

#[test]
fn r03_a_task_that_computes_no_more_is_like_the_others() {
    alone(|| {
        let runtime = builder().build().unwrap();
        let _light = Light::on(&runtime);
        let (short, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let turns = Arc::new(AtomicU64::new(0));
        let (task_short, task_stop, task_turns) = (short.clone(), stop.clone(), turns.clone());
        let burner = runtime.spawn(async move {
            while !task_stop.load(Relaxed) {
                if !task_short.load(Relaxed) {
                    compute();
                }
                task_turns.fetch_add(1, Relaxed);
                yield_now().await;
            }
        });
        lane_polls(&runtime, 2);
        short.store(true, Relaxed);
        // Until a hundred turns of it were none on a lane.
        loop {
            let (before, polls) = (turns.load(Relaxed), runtime.metrics().lane_polls);
            while turns.load(Relaxed) < before + 100 {
                std::thread::yield_now();
            }
            if runtime.metrics().lane_polls == polls {
                break;
            }
        }
        stop.store(true, Relaxed);
        runtime.block_on(burner).unwrap();
    });
}

/// With one processor one of them is polled at a time.
#[test]
fn r03_burners_take_turns() {
    const BURNERS: usize = 4;
    alone(|| {
        let runtime = builder().build().unwrap();
        let light = Light::on(&runtime);
        // Each ends when all have had some.
        let turns: Arc<[AtomicU64; BURNERS]> = Arc::default();
        let burners: Vec<_> = (0..BURNERS)
            .map(|n| {
                let turns = turns.clone();
                burner(&runtime, move || {
                    turns[n].fetch_add(1, Relaxed);
                    turns.iter().all(|turns| turns.load(Relaxed) >= 20)
                })
            })
            .collect();
        for burner in burners {
            runtime.block_on(burner).unwrap();
        }
        assert!(runtime.metrics().lane_polls > 0);
        drop(light);
    });
}

/// What is polled on a lane is none of the processors' that the watcher looks at, and they may all sleep.
#[test]
fn r25_a_poll_on_a_lane_that_does_not_end_is_told_of() {
    alone(|| {
        for is_alone in [false, true] {
            let (tell, told) = channel();
            let tell = Mutex::new(tell);
            let hook = move |stuck: &StuckPoll| _ = tell.lock().unwrap().send((stuck.task, stuck.rescued));
            let runtime = Builder::new().procs(1).on_stuck(hook).build().unwrap();
            let mut light = Some(Light::on(&runtime));
            let (holds, open) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
            let (task_holds, task_open) = (holds.clone(), open.clone());
            let burner = burner(&runtime, move || {
                while task_holds.load(Relaxed) && !task_open.load(Relaxed) {
                    std::thread::yield_now();
                }
                task_open.load(Relaxed)
            });
            lane_polls(&runtime, 2);
            if is_alone {
                light = None;
                // The watcher goes to sleep if it may.
                lane_polls(&runtime, 100);
            }
            let rescues = runtime.metrics().rescues;
            told.try_iter().for_each(drop);
            holds.store(true, Relaxed);
            while told.recv().unwrap() != (Some(burner.id()), true) {}
            assert_eq!(runtime.metrics().rescues, rescues);
            open.store(true, Relaxed);
            runtime.block_on(burner).unwrap();
            drop(light);
        }
    });
}

/// A poll on a lane that does not end waits for the task behind it.
#[test]
fn r01_a_burner_behind_one_that_does_not_end_is_polled_all_the_same() {
    alone(|| {
        let runtime = builder().build().unwrap();
        let light = Light::on(&runtime);
        let (holds, behind) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (task_holds, task_behind) = (holds.clone(), behind.clone());
        let first = burner(&runtime, move || {
            if !task_holds.load(Relaxed) {
                return false;
            }
            let before = task_behind.load(Relaxed);
            while task_behind.load(Relaxed) < before + 5 {
                std::thread::yield_now();
            }
            true
        });
        let stop = Arc::new(AtomicBool::new(false));
        let task_stop = stop.clone();
        let second = burner(&runtime, move || {
            behind.fetch_add(1, Relaxed);
            task_stop.load(Relaxed)
        });
        lane_polls(&runtime, 10);
        // Nothing but burners from here on: every processor may be idle.
        drop(light);
        holds.store(true, Relaxed);
        runtime.block_on(first).unwrap();
        stop.store(true, Relaxed);
        runtime.block_on(second).unwrap();
    });
}

#[test]
fn r14_a_runtime_that_is_dropped_drops_the_burners_that_wait() {
    alone(|| {
        for _ in 0..5 {
            let dropped = Arc::new(());
            let runtime = builder().build().unwrap();
            let _light = Light::on(&runtime);
            for _ in 0..4 {
                let token = dropped.clone();
                drop(burner(&runtime, move || Arc::strong_count(&token) == 0));
            }
            lane_polls(&runtime, 5);
            drop(runtime);
            assert_eq!(Arc::strong_count(&dropped), 1);
        }
    });
}

/// One thread each for the processor, for closures and for pinned tasks.
#[test]
fn r17_without_a_thread_for_a_lane_a_burner_is_polled_like_the_others() {
    alone(|| {
        let runtime = builder().max_threads(3).build().unwrap();
        let light = Light::on(&runtime);
        let mut left = 100;
        let burner = burner(&runtime, move || {
            left -= 1;
            left == 0
        });
        runtime.block_on(burner).unwrap();
        let metrics = runtime.metrics();
        assert_eq!(metrics.lane_polls, 0);
        assert!(metrics.thread_refusals > 0, "no lane was asked for: {metrics:?}");
        drop(light);
    });
}

/// Whatever a task may do, on a lane too.
#[test]
fn r02_a_burner_blocks_spawns_panics_and_is_aborted_like_any_task() {
    alone(|| {
        let runtime = builder().build().unwrap();
        let _light = Light::on(&runtime);
        let handle = runtime.handle();
        let (mut left, inside) = (20, handle.clone());
        let known = Arc::new(AtomicBool::new(false));
        let task_known = known.clone();
        let does_all = burner(&runtime, move || {
            if !task_known.load(Relaxed) {
                return false;
            }
            assert_eq!(block_in_place(|| 1), 1);
            assert_eq!(inside.block_on(async { 2 }), 2);
            let spawned: Vec<_> = (0..10).map(|n| gmp::task::spawn(async move { n })).collect();
            let sum = inside.block_on(async {
                let mut sum = 0;
                for task in spawned {
                    sum += task.await.unwrap();
                }
                sum + spawn_blocking(|| 5).await.unwrap()
            });
            assert_eq!(sum, 50);
            left -= 1;
            left == 0
        });
        lane_polls(&runtime, 2);
        known.store(true, Relaxed);
        runtime.block_on(does_all).unwrap();

        let panics = Arc::new(AtomicBool::new(false));
        let task_panics = panics.clone();
        let panicking = burner(&runtime, move || {
            assert!(!task_panics.load(Relaxed), "as is wanted");
            false
        });
        lane_polls(&runtime, 2);
        panics.store(true, Relaxed);
        assert!(runtime.block_on(panicking).unwrap_err().is_panic());

        let aborted = burner(&runtime, || false);
        lane_polls(&runtime, 2);
        aborted.abort();
        assert!(runtime.block_on(aborted).unwrap_err().is_cancelled());

        let caught = burner(&runtime, || catch_unwind(AssertUnwindSafe(|| panic!("as is wanted"))).is_err());
        runtime.block_on(caught).unwrap();
    });
}

/// A burner that sleeps comes back from the timer to its lane.
#[test]
fn r03_a_burner_that_waits_is_one_when_it_comes_back() {
    alone(|| {
        let runtime = builder().build().unwrap();
        let light = Light::on(&runtime);
        let stop = Arc::new(AtomicBool::new(false));
        let task_stop = stop.clone();
        let burner = runtime.spawn(async move {
            while !task_stop.load(Relaxed) {
                compute();
                yield_now().await;
                compute();
                sleep(Duration::from_micros(100)).await;
            }
        });
        lane_polls(&runtime, 50);
        stop.store(true, Relaxed);
        runtime.block_on(burner).unwrap();
        drop(light);
    });
}

/// As for a poll that the others were rescued from.
#[test]
fn r14_dropping_a_runtime_does_not_wait_for_a_poll_on_a_lane_that_never_ends() {
    alone(|| {
        let runtime = builder().build().unwrap();
        let light = Light::on(&runtime);
        let blocks = Arc::new(AtomicBool::new(false));
        let ((go, gone), (begun, has_begun)) = (channel::<()>(), channel());
        let task_blocks = blocks.clone();
        drop(burner(&runtime, move || {
            if task_blocks.load(Relaxed) {
                begun.send(()).unwrap();
                let _ = gone.recv();
            }
            false
        }));
        lane_polls(&runtime, 2);
        blocks.store(true, Relaxed);
        has_begun.recv().unwrap();
        assert_eq!(runtime.metrics().stuck_threads, 0, "it is on a lane");
        drop(light);
        drop(runtime);
        // Only now does the poll end.
        drop(go);
    });
}

/// Nobody but its lane knows of it, and every machine sleeps, with no end or in another wait.
#[test]
fn r07_a_timer_that_a_lane_leaves_behind_fires() {
    alone(|| {
        let runtime = builder().build().unwrap();
        let light = Light::on(&runtime);
        let alone = Arc::new(AtomicBool::new(false));
        let task_alone = alone.clone();
        let burner = runtime.spawn(async move {
            while !task_alone.load(Relaxed) {
                compute();
                yield_now().await;
            }
            // The watcher goes to sleep meanwhile.
            for _ in 0..3 {
                compute();
                sleep(Duration::from_millis(300)).await;
                compute();
                yield_now().await;
                // The machine that the timer woke has gone to sleep when the next one is armed.
                (0..20).for_each(|_| compute());
            }
        });
        lane_polls(&runtime, 2);
        drop(light);
        alone.store(true, Relaxed);
        runtime.block_on(burner).unwrap();
    });
}

/// A clock that stands moves when nothing runs: a lane that computes does.
#[test]
fn r23_a_clock_that_stands_waits_for_lanes() {
    alone(|| {
        let runtime = builder().start_paused(true).build().unwrap();
        let light = Light::on(&runtime);
        let (start, stop) = (runtime.block_on(async { Instant::now() }), Arc::new(AtomicBool::new(false)));
        let sleeper = runtime.spawn(sleep(Duration::from_secs(3600)));
        let (task_stop, mut left) = (stop.clone(), 50);
        let burner = burner(&runtime, move || {
            assert_eq!(Instant::now(), start, "the clock moved");
            left -= i32::from(task_stop.load(Relaxed));
            left == 0
        });
        lane_polls(&runtime, 2);
        drop(light);
        stop.store(true, Relaxed);
        runtime.block_on(burner).unwrap();
        runtime.block_on(sleeper).unwrap();
    });
}

/// A poll on a lane that waits in a `block_on` is no reason for the clock to stand.
#[test]
fn r23_a_clock_that_stands_goes_on_for_a_wait_in_a_lanes_poll() {
    alone(|| {
        let runtime = builder().start_paused(true).build().unwrap();
        let light = Light::on(&runtime);
        let (waits, handle) = (Arc::new(AtomicBool::new(false)), runtime.handle());
        let task_waits = waits.clone();
        let burner = burner(&runtime, move || {
            let waits = task_waits.load(Relaxed);
            if waits {
                handle.block_on(sleep(Duration::from_secs(3600)));
            }
            waits
        });
        lane_polls(&runtime, 2);
        drop(light);
        waits.store(true, Relaxed);
        runtime.block_on(burner).unwrap();
    });
}
