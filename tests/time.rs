//! Timers as a user has them: who wakes whom, what is moved or dropped beside a fire, a process that was stopped.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{BufRead, BufReader, Read};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::task::noop_waker;
use gmp::runtime::{Builder, Runtime};
use gmp::task::yield_now;
use gmp::time::{Instant, MissedTickBehavior, Sleep, interval, resume, sleep, sleep_until, timeout};

use limit::limited;
use rest::Resting;

#[path = "support/limit.rs"]
mod limit;
#[path = "support/rest.rs"]
mod rest;

/// Bytes that this thread has allocated and not freed: other tests run beside this one's.
struct Bytes;

thread_local! {
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

impl Bytes {
    fn count(&self, bytes: i64) {
        // A thread that ends may have no counter any more.
        let _ = LIVE.try_with(|live| live.set(live.get() + bytes));
    }
}

// SAFETY: all is passed on to the system's allocator.
unsafe impl GlobalAlloc for Bytes {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count(layout.size() as i64);
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        self.count(-(layout.size() as i64));
        // SAFETY: passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Bytes = Bytes;

const HOUR: Duration = Duration::from_secs(3600);

fn runtime(procs: usize) -> Runtime {
    Builder::new().procs(procs).build().unwrap()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&noop_waker()))
}

#[test]
fn r06_only_a_nearer_deadline_from_outside_breaks_the_sleep() {
    limited(|| {
        for round in 0..10 {
            let runtime = Resting::new(2);
            // A timer in the store of each processor: what comes from outside goes to the first one's, and may be the
            // earliest there but not of all.
            let both = Arc::new(Barrier::new(2));
            // The first spawned mostly runs on the first processor.
            for hours in if round % 2 == 0 { [1, 9] } else { [9, 1] } {
                let both = both.clone();
                drop(runtime.spawn(async move {
                    both.wait();
                    sleep(hours * HOUR).await;
                }));
            }
            runtime.rest();
            let _guard = runtime.enter();
            let breaks = || runtime.metrics().netpoll_breaks;
            let before = breaks();
            let mut later = Box::pin(sleep(3 * HOUR));
            assert!(poll_once(later.as_mut()).is_pending());
            later.as_mut().reset(Instant::now() + 2 * HOUR);
            later.as_mut().reset(Instant::now() + 4 * HOUR);
            drop(later);
            assert_eq!(breaks(), before, "a later one is nobody's business");
            let mut nearer = Box::pin(sleep(HOUR / 2));
            assert!(poll_once(nearer.as_mut()).is_pending());
            assert_eq!(breaks(), before + 1);
            runtime.rest();
            nearer.as_mut().reset(Instant::now() + HOUR / 4);
            assert_eq!(breaks(), before + 2);
            runtime.rest();
            nearer.as_mut().reset(Instant::now() + HOUR / 3);
            drop(nearer);
            assert_eq!(breaks(), before + 2, "what is gone is found gone in time");
        }
    });
}

#[test]
fn r06_a_timer_that_was_cancelled_wakes_nobody() {
    limited(|| {
        // One machine, which goes to sleep each time after its task has cancelled what was the nearest deadline. A
        // second one might have gone to sleep before, when that deadline was still there.
        let runtime = Resting::new(1);
        for round in 0..50 {
            let cancelled = runtime.spawn(async {
                // Armed in this order: the last is the root of the heap, and not the last of its items.
                let mut far: Vec<_> = (0..8).map(|n| Box::pin(sleep((n + 2) * HOUR))).collect();
                for far in &mut far {
                    assert!(futures::poll!(far.as_mut()).is_pending());
                }
                let mut near = Box::pin(sleep(Duration::from_secs(30)));
                assert!(futures::poll!(near.as_mut()).is_pending());
                drop(near);
                far
            });
            let far = futures::executor::block_on(cancelled).unwrap();
            runtime.rest();
            let _guard = runtime.enter();
            let before = runtime.metrics().netpoll_breaks;
            // Were somebody asleep until the cancelled one, this would be later and break nothing.
            let mut between = Box::pin(sleep(Duration::from_secs(60)));
            assert!(poll_once(between.as_mut()).is_pending());
            assert_eq!(runtime.metrics().netpoll_breaks, before + 1, "round {round}");
            drop((between, far));
        }
    });
}

#[test]
fn r06_a_timer_that_fires_wakes_one_machine() {
    const TICKS: u64 = 40;
    // Some of them have the timer on the processor that the machine takes when it wakes, others on the other one.
    for round in 0..8 {
        let runtime = Resting::new(2);
        runtime.block_on(async {
            let ticks = gmp::spawn(async {
                for _ in 0..TICKS {
                    sleep(Duration::from_millis(1)).await;
                }
            });
            ticks.await.unwrap();
        });
        runtime.rest();
        // Each tick puts the machine to sleep that it woke, and no other; a few more belong to the beginning and the
        // end. Fewer there are where a machine was kept from sleeping until the tick had come.
        let parks = runtime.metrics().parks;
        assert!(parks < TICKS * 3 / 2, "round {round}: {parks} parks for {TICKS} ticks");
    }
}

#[test]
fn r07_a_timer_from_outside_wakes_a_runtime_whose_threads_all_sleep() {
    limited(|| {
        for procs in [1, 2] {
            let runtime = Resting::new(procs);
            runtime.block_on(gmp::spawn(yield_now())).unwrap();
            runtime.rest();
            let _guard = runtime.enter();
            futures::executor::block_on(sleep(ms(2)));
            // The other way to get there.
            drop(runtime.spawn(sleep(HOUR)));
            runtime.rest();
            assert!(futures::executor::block_on(timeout(ms(2), std::future::pending::<()>())).is_err());
        }
    });
}

#[test]
fn r07_a_sleep_moves_between_tasks_processors_threads_and_runtimes() {
    limited(|| {
        let (first, second) = (runtime(2), runtime(1));
        for round in 0..200 {
            let deadline = Instant::now() + Duration::from_micros(round * 20);
            let mut nap = Box::pin(sleep_until(deadline));
            // In a tuple, as what an async block gives is not to be awaited by chance.
            let step = |mut nap: Pin<Box<Sleep>>| async move {
                let _ = futures::poll!(nap.as_mut());
                (nap,)
            };
            (nap,) = futures::executor::block_on(first.spawn(step(nap))).unwrap();
            (nap,) =
                futures::executor::block_on(first.spawn(async move { gmp::spawn(step(nap)).await.unwrap() })).unwrap();
            (nap,) = std::thread::spawn(move || futures::executor::block_on(step(nap))).join().unwrap();
            (nap,) = second.block_on(step(nap));
            (nap,) = futures::executor::block_on(second.spawn(step(nap))).unwrap();
            match round % 3 {
                0 => futures::executor::block_on(nap),
                1 => second.block_on(nap),
                _ => futures::executor::block_on(first.spawn(nap)).unwrap(),
            }
            assert!(Instant::now() >= deadline);
        }
    });
}

#[test]
fn r15_a_task_that_is_aborted_while_its_timer_fires() {
    limited(|| {
        let runtime = runtime(2);
        runtime.block_on(async {
            let (mut ended, mut aborted) = (0, 0);
            for round in 0..3_000u64 {
                let task = gmp::spawn(sleep(Duration::from_micros(50)));
                let abort = task.abort_handle();
                let other = gmp::spawn(async move {
                    sleep(Duration::from_micros(round % 100)).await;
                    abort.abort();
                });
                match task.await {
                    Ok(()) => ended += 1,
                    Err(error) if error.is_cancelled() => aborted += 1,
                    Err(error) => panic!("{error}"),
                }
                other.await.unwrap();
            }
            assert_eq!(ended + aborted, 3_000);
        });
        assert_eq!(runtime.metrics().timers, 0);
    });
}

/// Gives a new life to its sleep inside the wake, and panics.
struct Hostile {
    nap: std::sync::Mutex<Pin<Box<Sleep>>>,
    wakes: AtomicUsize,
}

impl Wake for Hostile {
    fn wake(self: Arc<Self>) {
        let wakes = self.wakes.fetch_add(1, Relaxed) + 1;
        let mut nap = self.nap.lock().unwrap();
        if wakes < 5 {
            // Once more if this thread was preempted for as long.
            loop {
                nap.as_mut().reset(Instant::now() + Duration::from_micros(100));
                if nap.as_mut().poll(&mut Context::from_waker(&Waker::from(self.clone()))).is_pending() {
                    break;
                }
            }
        }
        drop(nap);
        panic!("wake number {wakes}");
    }
}

#[test]
fn r13_a_waker_that_arms_its_sleep_again_and_panics() {
    limited(|| {
        let runtime = runtime(1);
        let _guard = runtime.enter();
        let hostile =
            Arc::new(Hostile { nap: std::sync::Mutex::new(Box::pin(sleep(ms(1)))), wakes: AtomicUsize::new(0) });
        let waker = Waker::from(hostile.clone());
        assert!(hostile.nap.lock().unwrap().as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        while hostile.wakes.load(Relaxed) < 5 {
            // Others get their wakes meanwhile.
            runtime.block_on(sleep(Duration::from_micros(200)));
        }
        drop(waker);
        runtime.block_on(sleep(ms(1)));
    });
}

#[test]
fn r14_a_sleep_of_a_runtime_that_shuts_down_is_dropped_and_never_ends() {
    limited(|| {
        for procs in [1, 2] {
            let runtime = runtime(procs);
            let ended = Arc::new(AtomicUsize::new(0));
            let tasks: Vec<_> = (0..100)
                .map(|n| {
                    let ended = ended.clone();
                    runtime.spawn(async move {
                        // Some are just due.
                        sleep(if n % 2 == 0 { HOUR } else { Duration::from_micros(n * 10) }).await;
                        ended.fetch_add(1, Relaxed);
                    })
                })
                .collect();
            let mut outside = Box::pin(sleep(HOUR));
            let guard = runtime.enter();
            assert!(poll_once(outside.as_mut()).is_pending());
            drop(guard);
            drop(runtime);
            let mut done = 0;
            for task in tasks {
                match futures::executor::block_on(task) {
                    Ok(()) => done += 1,
                    Err(error) => assert!(error.is_cancelled(), "{error}"),
                }
            }
            assert_eq!(ended.load(Relaxed), done);
            outside.as_mut().reset(Instant::now());
            assert!(poll_once(outside.as_mut()).is_pending(), "its runtime is gone");
        }
    });
}

#[test]
fn r18_a_thousand_live_timers_and_a_million_dropped_ones() {
    let runtime = runtime(1);
    runtime
        .block_on(runtime.spawn(async {
            let mut live: Vec<_> = (0..1_000).map(|n| Box::pin(sleep(HOUR + n * ms(1)))).collect();
            for nap in &mut live {
                assert!(futures::poll!(nap.as_mut()).is_pending());
            }
            // Limits as a server sets them: some in flight, the oldest goes first.
            let mut flight: std::collections::VecDeque<_> = (0..100).map(|_| Box::pin(sleep(HOUR))).collect();
            let mut flat = 0;
            for n in 0..1_000_000 {
                let mut nap = flight.pop_front().unwrap();
                nap.set(sleep(ms(30_000 + n % 60_000)));
                assert!(futures::poll!(nap.as_mut()).is_pending());
                flight.push_back(nap);
                match n {
                    10_000 => flat = LIVE.get(),
                    // Each armed timer is an item of 16 bytes, at most twice that with what was cancelled, at most four
                    // times with the room of the heap.
                    _ if n > 10_000 && n % 1_000 == 0 => {
                        let grown = LIVE.get() - flat;
                        assert!(grown < 200_000, "{grown} bytes after {n} timers");
                    }
                    _ => {}
                }
                if n % 64 == 0 {
                    yield_now().await;
                }
            }
        }))
        .unwrap();
    assert_eq!(runtime.metrics().timers, 0);
}

const STOPPED: &str = "GMP_TEST_IS_STOPPED";

/// In a child process that its parent stops with signals for a while.
async fn in_a_process_that_is_stopped() {
    let start = Instant::now();
    let mut sleepers = Vec::new();
    for n in 0..200u64 {
        let mut nap = Box::pin(sleep(ms(n)));
        sleepers.push(gmp::spawn(async move {
            let mut fired = 0;
            poll_fn(|cx| {
                let poll = nap.as_mut().poll(cx);
                fired += usize::from(poll.is_ready());
                poll
            })
            .await;
            assert!(start.elapsed() >= ms(n), "early");
            fired
        }));
    }
    let period = ms(10);
    let mut tickers = Vec::new();
    for behavior in [MissedTickBehavior::Burst, MissedTickBehavior::Delay, MissedTickBehavior::Skip] {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(behavior);
        tickers.push(gmp::spawn(async move {
            // (due, came) of each tick.
            let mut seen = Vec::new();
            while start.elapsed() < ms(600) || seen.len() < 10 {
                seen.push((ticks.tick().await, Instant::now()));
            }
            (behavior, seen)
        }));
    }
    println!("armed");
    for sleeper in sleepers {
        assert_eq!(sleeper.await.unwrap(), 1, "each fires once");
    }
    let mut latest = Duration::ZERO;
    for ticker in tickers {
        let (behavior, seen) = ticker.await.unwrap();
        for pair in seen.windows(2) {
            let ((due, came), (next, _)) = (pair[0], pair[1]);
            let late = came - due;
            latest = latest.max(late);
            assert!(came >= due, "early");
            match behavior {
                MissedTickBehavior::Burst => assert_eq!(next - due, period),
                MissedTickBehavior::Delay if late >= ms(5) => assert!(next >= came, "{late:?}"),
                MissedTickBehavior::Delay => assert_eq!(next - due, period),
                MissedTickBehavior::Skip => {
                    assert!((next - due).as_nanos() % period.as_nanos() == 0 && next > due);
                    assert!(next + period > came, "{late:?}: a tick that was missed came");
                }
            }
        }
    }
    println!("latest {}", latest.as_millis());
}

#[test]
fn r07_a_process_that_was_stopped_fires_late_timers_once() {
    if std::env::var_os(STOPPED).is_some() {
        let runtime = runtime(2);
        return runtime.block_on(in_a_process_that_is_stopped());
    }
    limited(|| {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "r07_a_process_that_was_stopped_fires_late_timers_once", "--nocapture"])
            .env(STOPPED, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let id = child.id() as i32;
        let signal = |signal| {
            // SAFETY: the child has not been waited for, so the number is its own.
            assert_eq!(unsafe { libc::kill(id, signal) }, 0);
        };
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("armed") {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "the child ended early");
        }
        signal(libc::SIGSTOP);
        std::thread::sleep(ms(300));
        signal(libc::SIGCONT);
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert!(child.wait().unwrap().success(), "{rest}");
        let latest = rest.lines().find_map(|line| line.strip_prefix("latest ")).expect("it says how late it was");
        assert!(latest.trim().parse::<u64>().unwrap() >= 200, "it was not stopped: {latest} ms");
    });
}

#[test]
fn r07_the_value_of_a_future_that_is_ready_in_the_same_tick() {
    limited(|| {
        let runtime = Builder::new().procs(1).start_paused(true).build().unwrap();
        runtime.block_on(async {
            for n in 1..100 {
                let (tell, told) = channel();
                // Both are due at the same instant; the one inside comes first, whichever fires first.
                let value = timeout(ms(n), async {
                    sleep(ms(n)).await;
                    tell.send(()).unwrap();
                    n
                })
                .await;
                assert_eq!((value, told.try_recv()), (Ok(n), Ok(())));
            }
        });
    });
}

/// More are due at once than a queue takes, and the global queue is long: they come in turns with what lies there, not
/// behind it.
#[test]
fn r04_due_timers_and_a_long_global_queue_take_turns() {
    const SLEEPERS: usize = 2_000;
    const QUEUED: usize = 20_000;
    limited(|| {
        let runtime = Builder::new().procs(1).rescue(None).start_paused(true).build().unwrap();
        let turn = Arc::new(AtomicUsize::new(0));
        let asleep = Arc::new(AtomicUsize::new(0));
        let root = {
            let turn = turn.clone();
            runtime.spawn(async move {
                let end = Instant::now() + Duration::from_millis(10);
                let sleepers: Vec<_> = (1..=SLEEPERS as u64)
                    .map(|n| {
                        let (turn, asleep) = (turn.clone(), asleep.clone());
                        gmp::spawn(async move {
                            asleep.fetch_add(1, Relaxed);
                            sleep_until(end - Duration::from_micros(n)).await;
                            turn.fetch_add(1, Relaxed)
                        })
                    })
                    .collect();
                while asleep.load(Relaxed) < SLEEPERS {
                    yield_now().await;
                }
                // From here on in one poll. The clock has stood until all were asleep.
                resume();
                let queued: Vec<_> = (0..QUEUED)
                    .map(|_| {
                        let turn = turn.clone();
                        gmp::spawn(async move { turn.fetch_add(1, Relaxed) })
                    })
                    .collect();
                while Instant::now() < end {
                    std::hint::spin_loop();
                }
                (sleepers, queued)
            })
        };
        let (sleepers, queued) = runtime.block_on(root).unwrap();
        let last_of = |tasks: Vec<gmp::task::JoinHandle<usize>>| {
            tasks.into_iter().map(|task| runtime.block_on(task).unwrap()).max().unwrap()
        };
        let (last_sleeper, last_queued) = (last_of(sleepers), last_of(queued));
        assert_eq!(last_sleeper.max(last_queued), SLEEPERS + QUEUED - 1);
        assert!(last_sleeper < QUEUED / 2, "the last of {SLEEPERS} sleepers came as number {last_sleeper}");
        assert!(last_sleeper >= SLEEPERS + SLEEPERS / 4, "what was queued waited for all of them: {last_sleeper}");
    });
}

/// Tasks that always have work fill the queue: timers fire all the same, some at each look.
#[test]
fn r04_timers_fire_beside_a_queue_that_is_never_short() {
    limited(|| {
        let runtime = Builder::new().procs(1).build().unwrap();
        let slept = Arc::new(AtomicUsize::new(0));
        let busy: Vec<_> = (0..200)
            .map(|_| {
                let slept = slept.clone();
                runtime.spawn(async move {
                    while slept.load(Relaxed) == 0 {
                        yield_now().await;
                    }
                })
            })
            .collect();
        runtime
            .block_on(runtime.spawn(async move {
                sleep(Duration::from_millis(1)).await;
                slept.store(1, Relaxed);
            }))
            .unwrap();
        for task in busy {
            runtime.block_on(task).unwrap();
        }
    });
}
