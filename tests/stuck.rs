//! Nothing a task does inside `poll` delays the others.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::channel::oneshot;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use gmp::net::{TcpListener, TcpStream};
use gmp::runtime::{Builder, Handle, Runtime, StuckIn};
use gmp::task::{block_in_place, yield_now};
use gmp::time::sleep;

use limit::limited;
use pair::pair;
use stuck::{KINDS, Stuck};

#[path = "support/limit.rs"]
mod limit;
#[path = "support/pair.rs"]
mod pair;
#[path = "support/stuck.rs"]
mod stuck;

fn runtime(procs: usize) -> Runtime {
    // The lines about stuck polls are not for this test's reader.
    Builder::new().procs(procs).on_stuck(|_| ()).build().unwrap()
}

/// One task that is stuck until 200 tasks in its queue, one in its run-next slot, three due timers, a readable socket,
/// a task spawned from a plain thread and a `block_on` of another thread have all had their turn.
/// So many such tasks are in that poll at once.
async fn stuck_before_all_sorts(stuck: Stuck, in_poll: Arc<AtomicUsize>, tasks: usize) {
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
    // Before anything is queued: one that had its turn before all are stuck would free a processor for the others.
    in_poll.fetch_add(1, Relaxed);
    while in_poll.load(Relaxed) < tasks {
        std::hint::spin_loop();
    }
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
    for procs in [1, 2, 4] {
        for stuck in KINDS {
            limited(|| {
                let runtime = runtime(procs);
                // With all of them in a poll at once: no processor is left but by a rescue.
                let in_poll = Arc::new(AtomicUsize::new(0));
                let tasks: Vec<_> =
                    (0..procs).map(|_| runtime.spawn(stuck_before_all_sorts(stuck, in_poll.clone(), procs))).collect();
                for task in tasks {
                    runtime.block_on(task).unwrap();
                }
                assert!(runtime.metrics().rescues > 0, "{procs} {stuck:?}: {:?}", runtime.metrics());
            });
        }
    }
}

/// `procs` polls that are stuck until `heart`, which is given the ends to tell them by, has beaten so often.
fn beats_beside_stuck_polls<H>(heart: impl Fn(usize, Vec<Sender<()>>) -> H)
where
    H: Future<Output = ()> + Send + 'static,
{
    const BEATS: usize = 20;
    for stuck in KINDS {
        for procs in [1, 2, 4] {
            limited(|| {
                let runtime = runtime(procs);
                let (tell, told): (Vec<_>, Vec<_>) = (0..procs).map(|_| channel()).unzip();
                // One poll each.
                let hogs: Vec<_> =
                    told.into_iter().map(|beaten| runtime.spawn(async move { stuck.until(&beaten, BEATS) })).collect();
                let heart = runtime.spawn(heart(BEATS, tell));
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
fn r03_a_heart_beats_beside_stuck_polls() {
    beats_beside_stuck_polls(|beats, tell| async move {
        for _ in 0..beats {
            sleep(Duration::from_millis(5)).await;
            tell.iter().for_each(|hog| hog.send(()).unwrap());
        }
    });
}

#[test]
fn r03_an_echo_answers_beside_stuck_polls() {
    beats_beside_stuck_polls(|beats, tell| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let echo = gmp::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut byte = [0];
            while stream.read(&mut byte).await.unwrap() > 0 {
                stream.write_all(&byte).await.unwrap();
            }
        });
        let mut stream = TcpStream::connect(address).await.unwrap();
        for n in 0..beats {
            let mut answer = [0];
            stream.write_all(&[n as u8]).await.unwrap();
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, [n as u8]);
            tell.iter().for_each(|hog| hog.send(()).unwrap());
        }
        drop(stream);
        echo.await.unwrap();
    });
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
        const ROUNDS: usize = 100;
        const WAITING: usize = 30;
        const SPAWNS: usize = 70;
        let runtime = runtime(1);
        let (ended, has_ended) = channel::<()>();
        let (go, gone) = channel::<()>();
        let task = runtime.spawn(async move {
            let ran = Arc::new(AtomicUsize::new(0));
            let waiting: Vec<_> = (0..WAITING)
                .map(|_| {
                    let (wake, mut woken) = futures::channel::mpsc::unbounded();
                    let ran = ran.clone();
                    drop(gmp::spawn(async move {
                        while let Some(()) = woken.next().await {
                            ran.fetch_add(1, Relaxed);
                        }
                    }));
                    wake
                })
                .collect();
            yield_now().await;
            // A poll that does not end: all that it wakes and spawns in a round has to run before the next.
            for round in 1..=ROUNDS {
                for n in 0..WAITING.max(SPAWNS) {
                    if let Some(wake) = waiting.get(n) {
                        wake.unbounded_send(()).unwrap();
                    }
                    if n < SPAWNS {
                        let ran = ran.clone();
                        drop(gmp::spawn(async move { ran.fetch_add(1, Relaxed) }));
                    }
                }
                while ran.load(Relaxed) < round * (WAITING + SPAWNS) {
                    std::thread::yield_now();
                }
            }
            drop(ended);
            let _ = gone.recv();
        });
        has_ended.recv().unwrap_err();
        assert!(!task.is_finished());
        let metrics = runtime.metrics();
        assert!(metrics.rescues > 0 && metrics.stuck_threads == 1, "{metrics:?}");
        drop(go);
        runtime.block_on(task).unwrap();
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
fn r25_the_hook_is_told_where_the_task_was_spawned() {
    limited(|| {
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let runtime = Builder::new()
            .procs(1)
            .on_stuck(move |stuck| {
                let told = (stuck.stuck_in, stuck.location.map(|l| l.line()), stuck.rescued);
                tell.lock().unwrap().send(told).unwrap();
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
        while told.recv().unwrap() != (StuckIn::Task, Some(line), true) {}
        // A future in `block_on`, and a waker that is not the runtime's own.
        let (done, is_done) = channel();
        runtime.block_on(async {
            drop(gmp::spawn(async move { done.send(()).unwrap() }));
            is_done.recv().unwrap();
        });
        while told.recv().unwrap() != (StuckIn::BlockOn, None, true) {}
        let (done, is_done) = channel();
        let (called, is_called) = oneshot::channel();
        let (fired, has_fired) = oneshot::channel();
        let waker = Arc::new(Blocks(Mutex::new(Some((called, is_done, fired))))).into();
        runtime
            .block_on(runtime.spawn(async move {
                let mut timer = Box::pin(sleep(Duration::from_millis(1)));
                assert!(timer.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
                // The waker blocks until this task has gone on. Not a second timer: late enough, both fire at one look.
                is_called.await.unwrap();
                done.send(()).unwrap();
                has_fired.await.unwrap();
            }))
            .unwrap();
        while told.recv().unwrap() != (StuckIn::Wakers, None, true) {}
    });
}

/// A waker that says that it is called, waits for a message, and then sends one.
struct Blocks(Mutex<Option<Signals>>);

type Signals = (oneshot::Sender<()>, Receiver<()>, oneshot::Sender<()>);

impl std::task::Wake for Blocks {
    fn wake(self: Arc<Self>) {
        let (called, done, fired) = self.0.lock().unwrap().take().unwrap();
        called.send(()).unwrap();
        done.recv().unwrap();
        fired.send(()).unwrap();
    }
}

#[test]
fn r17_at_the_limit_a_stuck_poll_keeps_its_processor_and_is_told_of_once() {
    limited(|| {
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let runtime = Builder::new()
            .procs(1)
            .max_stuck(1)
            .on_stuck(move |stuck| tell.lock().unwrap().send((stuck.rescued, stuck.stuck_threads)).unwrap())
            .build()
            .unwrap();
        let (go, gone): (Vec<_>, Vec<_>) = (0..2).map(|_| channel::<()>()).unzip();
        let (start, started) = channel();
        let stuck: Vec<_> = gone
            .into_iter()
            .map(|gone| {
                let start = start.clone();
                runtime.spawn(async move {
                    start.send(()).unwrap();
                    let _ = gone.recv();
                })
            })
            .collect();
        started.iter().take(2).for_each(drop);
        assert_eq!(told.recv().unwrap(), (true, 1));
        let waits = runtime.spawn(async {});
        assert_eq!(told.recv().unwrap(), (false, 1), "the limit is reached");
        // Many looks later.
        let looks = runtime.metrics().sysmon_looks;
        while runtime.metrics().sysmon_looks < looks + 20 {
            std::thread::yield_now();
        }
        let metrics = runtime.metrics();
        assert_eq!((metrics.rescues, metrics.stuck_threads), (1, 1), "{metrics:?}");
        assert!(!waits.is_finished() && told.try_recv().is_err());
        drop(go);
        runtime.block_on(async {
            waits.await.unwrap();
            for stuck in stuck {
                stuck.await.unwrap();
            }
        });
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

/// Whether something waited behind it or not: what drops the runtime goes on before the poll ends.
#[test]
fn r14_dropping_a_runtime_does_not_wait_for_a_poll_that_is_stuck() {
    #[derive(Clone, Copy)]
    enum Call {
        Blocks,
        InPlace,
        /// `sysmon` has taken its processor.
        Retaken,
        /// In a `block_on` of its own runtime.
        Waits,
        Computes,
    }
    fn check(procs: usize, call: Call, is_pinned: bool) {
        let runtime = runtime(procs);
        let (go, gone) = channel::<()>();
        let (come, comes) = oneshot::channel::<()>();
        let (started, is_started) = channel();
        let poll = move || async move {
            started.send(()).unwrap();
            match call {
                Call::Blocks => drop(gone.recv()),
                Call::Waits => drop(gmp::block_on(comes)),
                Call::InPlace | Call::Retaken => drop(block_in_place(|| gone.recv())),
                Call::Computes => while gone.try_recv() == Err(TryRecvError::Empty) {},
            }
        };
        let task = if is_pinned { runtime.spawn_pinned(poll) } else { runtime.spawn(poll()) };
        is_started.recv().unwrap();
        if let Call::Retaken = call {
            runtime.block_on(runtime.spawn(async {})).unwrap();
            assert!(runtime.metrics().retakes > 0);
        }
        drop((runtime, task));
        // Only now does the poll end.
        drop((go, come));
    }
    limited(|| {
        std::thread::scope(|scope| {
            for is_pinned in [false, true] {
                for procs in [1, 2] {
                    for call in [Call::Blocks, Call::InPlace, Call::Waits] {
                        scope.spawn(move || check(procs, call, is_pinned));
                    }
                }
            }
            scope.spawn(|| check(1, Call::Retaken, false));
            scope.spawn(|| check(1, Call::Retaken, true));
        });
        check(2, Call::Computes, false);
    });
}

/// More than there are CPUs: at each look some have none.
#[test]
fn r14_dropping_a_runtime_does_not_wait_for_many_polls_that_compute() {
    const POLLS: usize = 48;
    limited(|| {
        let runtime = runtime(POLLS);
        let (computing, end) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        for _ in 0..POLLS {
            let (computing, end) = (computing.clone(), end.clone());
            drop(runtime.spawn(async move {
                computing.fetch_add(1, Relaxed);
                while !end.load(Relaxed) {}
            }));
        }
        while computing.load(Relaxed) < POLLS {
            std::thread::yield_now();
        }
        drop(runtime);
        end.store(true, Relaxed);
    });
}

/// This poll blocks until others were rescued from it, and goes on when they are asleep and `sysmon` has looked after
/// it for the last time.
fn rescued_beside_sleepers() {
    const LOOKS: u64 = 8;
    let handle = Handle::current();
    let (ran, has_run) = channel();
    drop(gmp::spawn(async move { ran.send(()).unwrap() }));
    has_run.recv().unwrap();
    let looks = handle.metrics().sysmon_looks;
    loop {
        let now = handle.metrics();
        let are_asleep = now.stuck_threads == 1 && now.idle_procs == 1 && now.spinning_threads == 0;
        if are_asleep && now.sysmon_looks >= looks + LOOKS {
            return;
        }
        std::thread::yield_now();
    }
}

/// Longer than `sysmon` looks around after the last that it did.
const LONGER_THAN_LOOKS: Duration = Duration::from_millis(400);

#[test]
fn r04_a_timer_that_a_rescued_poll_arms_fires() {
    limited(|| {
        let runtime = runtime(1);
        let task = runtime.spawn(async {
            rescued_beside_sleepers();
            futures::executor::block_on(sleep(LONGER_THAN_LOOKS));
        });
        // Without a look at the runtime.
        futures::executor::block_on(task).unwrap();
    });
}

#[test]
fn r04_a_root_that_was_rescued_may_sleep() {
    limited(|| {
        runtime(1).block_on(async {
            rescued_beside_sleepers();
            sleep(LONGER_THAN_LOOKS).await;
        });
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
        // Without rescue: the other processor's machine, asleep in the netpoller without a deadline, has to come for
        // it.
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
