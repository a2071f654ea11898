//! Nothing a task does inside `poll` delays the others.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::AsyncReadExt;
use gmp::net::{TcpListener, TcpStream};
use gmp::runtime::{Builder, Handle, Runtime};
use gmp::task::{block_in_place, yield_now};
use gmp::time::sleep;

use limit::limited;

#[path = "support/limit.rs"]
mod limit;

fn runtime(procs: usize) -> Runtime {
    // The lines about stuck polls are not for this test's reader.
    Builder::new().procs(procs).on_stuck(|_| ()).build().unwrap()
}

/// How a poll is stuck until `done` hears from everybody.
#[derive(Clone, Copy)]
enum Stuck {
    Computing,
    Sleeping,
    Waiting,
}

impl Stuck {
    /// Inside a poll: goes on only when `count` messages have come.
    fn until(self, done: &Receiver<()>, count: usize) {
        let mut heard = 0;
        while heard < count {
            match self {
                Stuck::Computing => match done.try_recv() {
                    Ok(()) => heard += 1,
                    Err(_) => std::hint::spin_loop(),
                },
                Stuck::Sleeping => {
                    std::thread::sleep(Duration::from_millis(50));
                    heard += done.try_iter().count();
                }
                Stuck::Waiting => {
                    done.recv().unwrap();
                    heard += 1;
                }
            }
        }
    }
}

/// A connection: gmp's end, and a plain one.
async fn pair() -> (TcpStream, std::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().await.unwrap().0, plain)
}

/// One task that is stuck until 200 tasks in its queue, one in its run-next slot, three due timers, a readable socket, a task
/// spawned from a plain thread and a `block_on` of another thread have all had their turn.
async fn stuck_before_all_sorts(stuck: Stuck) {
    const QUEUED: usize = 200;
    let (done, all) = channel();
    let tell = |done: &Sender<()>| {
        let done = done.clone();
        async move { done.send(()).unwrap() }
    };
    let (mut stream, mut plain) = pair().await;
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let told = tell(&done);
            gmp::spawn(async {
                sleep(Duration::from_millis(1)).await;
                told.await;
            })
        })
        .collect();
    let told = tell(&done);
    let reader = gmp::spawn(async move {
        stream.read_exact(&mut [0]).await.unwrap();
        told.await;
    });
    // They wait by now.
    yield_now().await;
    yield_now().await;
    let queued: Vec<_> = (0..=QUEUED).map(|_| gmp::spawn(tell(&done))).collect();
    let handle = Handle::current();
    let (outside, blocking) = (tell(&done), tell(&done));
    // The rest of this poll is stuck.
    let plain_thread = std::thread::spawn(move || {
        plain.write_all(b"x").unwrap();
        let spawned = handle.spawn(outside);
        handle.block_on(blocking);
        handle.block_on(spawned).unwrap();
    });
    stuck.until(&all, QUEUED + 1 + 3 + 1 + 2);
    // Not stuck any more: the plain thread may want this processor.
    for task in queued.into_iter().chain(waiting).chain([reader]) {
        task.await.unwrap();
    }
    block_in_place(|| plain_thread.join().unwrap());
}

#[test]
fn r03_whatever_waits_behind_a_stuck_poll_is_rescued() {
    for stuck in [Stuck::Computing, Stuck::Sleeping, Stuck::Waiting] {
        limited(|| {
            let runtime = runtime(1);
            runtime.block_on(runtime.spawn(stuck_before_all_sorts(stuck))).unwrap();
            assert!(runtime.metrics().rescues > 0);
        });
    }
}

#[test]
fn r03_also_if_every_processor_is_stuck_at_once() {
    for procs in [2, 4] {
        for stuck in [Stuck::Computing, Stuck::Waiting] {
            limited(|| {
                let runtime = runtime(procs);
                let tasks: Vec<_> = (0..procs).map(|_| runtime.spawn(stuck_before_all_sorts(stuck))).collect();
                for task in tasks {
                    runtime.block_on(task).unwrap();
                }
            });
        }
    }
}

#[test]
fn r03_a_heart_beats_beside_stuck_polls() {
    const BEATS: usize = 20;
    for stuck in [Stuck::Computing, Stuck::Waiting] {
        for procs in [1, 2, 4] {
            limited(|| {
                let runtime = runtime(procs);
                let mut beats = Vec::new();
                let hogs: Vec<_> = (0..procs)
                    .map(|_| {
                        let (beat, beaten) = channel();
                        beats.push(beat);
                        // One poll that lasts until the heart has beaten so often.
                        runtime.spawn(async move { stuck.until(&beaten, BEATS) })
                    })
                    .collect();
                let heart = runtime.spawn(async move {
                    for _ in 0..BEATS {
                        sleep(Duration::from_millis(5)).await;
                        beats.iter().for_each(|beat| beat.send(()).unwrap());
                    }
                });
                runtime.block_on(async {
                    heart.await.unwrap();
                    for hog in hogs {
                        hog.await.unwrap();
                    }
                });
            });
        }
    }
}

#[test]
fn r01_a_task_woken_just_before_its_waker_blocks_for_good_runs() {
    limited(|| {
        let runtime = runtime(1);
        let task = runtime.spawn(async {
            let (go, gone) = futures::channel::oneshot::channel();
            let (done, is_done) = channel();
            let woken = gmp::spawn(async move {
                gone.await.unwrap();
                done.send(()).unwrap();
            });
            yield_now().await;
            go.send(()).unwrap();
            is_done.recv().unwrap();
            woken.await.unwrap();
        });
        runtime.block_on(task).unwrap();
    });
}

#[test]
fn r03_a_stuck_task_strands_nothing_that_it_wakes_or_spawns() {
    limited(|| {
        const SPAWNS: usize = 10_000;
        let runtime = runtime(1);
        let task = runtime.spawn(async {
            let ran = Arc::new(AtomicUsize::new(0));
            // One poll: each time all that was spawned so far has to run before it goes on.
            for n in 1..=SPAWNS {
                let counter = ran.clone();
                drop(gmp::spawn(async move { counter.fetch_add(1, Relaxed) }));
                if n % 1000 == 0 {
                    while ran.load(Relaxed) < n {
                        std::thread::yield_now();
                    }
                }
            }
        });
        runtime.block_on(task).unwrap();
        assert!(runtime.metrics().rescues > 0);
    });
}

#[test]
fn r03_all_stuck_at_once_again_and_again_beside_flowing_tasks() {
    limited(|| {
        const PROCS: usize = 2;
        const ROUNDS: usize = 5;
        const FLOWING: usize = 10_000;
        let keep_alive = Duration::from_millis(20);
        let runtime = Builder::new().procs(PROCS).on_stuck(|_| ()).thread_keep_alive(keep_alive).build().unwrap();
        let ran = Arc::new((0..FLOWING).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>());
        let flow = runtime.spawn({
            let ran = ran.clone();
            async move {
                for n in 0..FLOWING {
                    let ran = ran.clone();
                    drop(gmp::spawn(async move {
                        yield_now().await;
                        ran[n].fetch_add(1, Relaxed);
                    }));
                    if n % 10 == 0 {
                        yield_now().await;
                    }
                }
            }
        });
        for round in 1..=ROUNDS {
            let hogs: Vec<_> = (0..PROCS)
                .map(|_| {
                    let ran = ran.clone();
                    // Stuck until a part of the flow has passed.
                    runtime.spawn(async move {
                        while ran[FLOWING * round / ROUNDS - 1].load(Relaxed) == 0 {
                            std::thread::yield_now();
                        }
                    })
                })
                .collect();
            for hog in hogs {
                runtime.block_on(hog).unwrap();
            }
        }
        runtime.block_on(flow).unwrap();
        while runtime.metrics().live_tasks > 0 {
            runtime.block_on(yield_now());
        }
        assert!(ran.iter().all(|n| n.load(Relaxed) == 1), "lost or run twice");
        // The count of threads comes back to normal: the limit of this test is the time for it.
        let most = PROCS + 1;
        while runtime.metrics().stuck_threads > 0 || runtime.metrics().threads > most {
            std::thread::yield_now();
        }
    });
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
            let before = handle.metrics();
            for _ in 0..1_000_000 {
                block_in_place(|| ());
            }
            (before, handle.metrics())
        });
        let (before, after) = runtime.block_on(task).unwrap();
        assert_eq!(after.retakes, before.retakes);
        assert_eq!(after.sysmon_wakes, before.sysmon_wakes);
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

#[test]
fn r25_the_hook_is_told_where_the_task_was_spawned() {
    limited(|| {
        let told = Arc::new(Mutex::new(Vec::new()));
        let runtime = Builder::new()
            .procs(1)
            .on_stuck({
                let told = told.clone();
                move |stuck| told.lock().unwrap().push((stuck.location.map(|l| l.line()), stuck.rescued))
            })
            .build()
            .unwrap();
        let (done, is_done) = channel();
        let line = line!() + 1;
        let stuck = runtime.spawn(async move {
            let other = gmp::spawn(async move { done.send(()).unwrap() });
            is_done.recv().unwrap();
            other.await.unwrap();
        });
        runtime.block_on(stuck).unwrap();
        assert!(told.lock().unwrap().contains(&(Some(line), true)));
    });
}

#[test]
fn r14_a_runtime_with_a_stuck_poll_shuts_down_in_its_time() {
    limited(|| {
        let runtime = runtime(1);
        let (go, gone) = channel::<()>();
        let (started, is_started) = channel();
        let ran = Arc::new(AtomicUsize::new(0));
        let stuck = runtime.spawn(async move {
            started.send(()).unwrap();
            let _ = gone.recv();
        });
        is_started.recv().unwrap();
        // Rescued: others run.
        let counter = ran.clone();
        runtime.block_on(runtime.spawn(async move { counter.fetch_add(1, Relaxed) })).unwrap();
        let left = runtime.shutdown_timeout(Duration::from_millis(100)).unwrap_err();
        assert_eq!(left.tasks, 1);
        drop(go);
        // Its thread ends the rest of the shutdown.
        drop(stuck);
        assert_eq!(ran.load(Relaxed), 1);
    });
}

#[test]
fn r14_dropping_a_runtime_does_not_wait_for_a_poll_that_was_given_up_on() {
    limited(|| {
        let runtime = runtime(1);
        let (go, gone) = channel::<()>();
        let (started, is_started) = channel();
        drop(runtime.spawn(async move {
            started.send(()).unwrap();
            let _ = gone.recv();
        }));
        is_started.recv().unwrap();
        runtime.block_on(runtime.spawn(async {})).unwrap();
        assert_eq!(runtime.metrics().stuck_threads, 1);
        drop(runtime);
        // Only now does the poll end.
        drop(go);
    });
}

/// A waker that sends a message.
struct Tell(Mutex<Sender<()>>);

impl std::task::Wake for Tell {
    fn wake(self: Arc<Self>) {
        self.0.lock().unwrap().send(()).unwrap();
    }
}

#[test]
fn r07_a_timer_behind_a_long_poll_fires_beside_an_idle_processor() {
    limited(|| {
        // Without rescue: the other processor's machine, asleep in the netpoller without a deadline, has to come for it.
        let runtime = Builder::new().procs(2).rescue(None).build().unwrap();
        let handle = runtime.handle();
        let task = runtime.spawn(async move {
            // Both machines are there: one waits inside its poll for the other.
            let (here, there) = channel();
            let other = gmp::spawn(async move { here.send(()).unwrap() });
            there.recv().unwrap();
            other.await.unwrap();
            loop {
                let now = handle.metrics();
                if now.idle_procs == 1 && now.spinning_threads == 0 && now.idle_threads > 0 {
                    break;
                }
                std::thread::yield_now();
            }
            let (done, is_done) = channel();
            let waker = Arc::new(Tell(Mutex::new(done))).into();
            let mut timer = Box::pin(sleep(Duration::from_millis(20)));
            assert!(timer.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
            // This poll ends when somebody else has fired the timer.
            is_done.recv().unwrap();
        });
        runtime.block_on(task).unwrap();
    });
}
