//! What the scheduler promises of order, fairness and waste, seen through its own counters.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use gmp::runtime::{Builder, FoundIn, Metrics, Runtime};
use gmp::task::yield_now;

fn runtime(procs: usize) -> Runtime {
    // A thread that is only slow to come back must not be given up on: these are the orders of undisturbed processors.
    Builder::new().procs(procs).rescue(None).build().unwrap()
}

/// Runs `scenario` as a task; gives what the scheduler counted while it ran.
fn counted<F>(runtime: &Runtime, scenario: F) -> (Metrics, Metrics)
where
    F: Future<Output = ()> + Send + 'static,
{
    let handle = runtime.handle();
    let task = runtime.spawn(async move {
        let before = handle.metrics();
        scenario.await;
        (before, handle.metrics())
    });
    runtime.block_on(task).unwrap()
}

#[test]
fn r04_a_chain_of_spawns_does_not_starve_its_neighbour() {
    /// Each link spawns the next, until told to stop; they all come out of the run-next slot.
    fn link(links: Arc<AtomicUsize>, stop: Arc<AtomicBool>) {
        drop(gmp::spawn(async move {
            links.fetch_add(1, Relaxed);
            if !stop.load(Relaxed) {
                link(links, stop);
            }
        }));
    }
    let runtime = runtime(1);
    let links = Arc::new(AtomicUsize::new(0));
    let at = runtime.block_on(runtime.spawn({
        let links = links.clone();
        async move {
            let stop = Arc::new(AtomicBool::new(false));
            let neighbour = gmp::spawn({
                let (links, stop) = (links.clone(), stop.clone());
                async move {
                    stop.store(true, Relaxed);
                    links.load(Relaxed)
                }
            });
            link(links, stop);
            neighbour.await.unwrap()
        }
    }));
    let at = at.unwrap();
    assert!(at <= 256 + 1, "the neighbour ran after {at:?} links");
}

#[test]
fn r04_the_global_queue_is_looked_at_at_least_every_61st_pick() {
    let runtime = runtime(1);
    let handle = runtime.handle();
    let task = runtime.spawn(async move {
        let polls = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let busy: Vec<_> = (0..2)
            .map(|_| {
                let (polls, stop) = (polls.clone(), stop.clone());
                gmp::spawn(async move {
                    while !stop.load(Relaxed) {
                        polls.fetch_add(1, Relaxed);
                        yield_now().await;
                    }
                })
            })
            .collect();
        for _ in 0..100 {
            // The push happens inside this poll, so nothing is picked between it and the count.
            let outside = handle.clone();
            let seen = polls.clone();
            let before = polls.load(Relaxed);
            let outside = std::thread::spawn(move || outside.spawn(async move { seen.load(Relaxed) }));
            let flags = handle.metrics().sysmon_flags;
            let after = outside.join().unwrap().await.unwrap();
            // A task whose slice is over goes to the global queue too, and may lie there first.
            let ahead = handle.metrics().sysmon_flags - flags + 1;
            assert!(after - before <= 61 * ahead, "{} picks went by", after - before);
        }
        stop.store(true, Relaxed);
        for task in busy {
            task.await.unwrap();
        }
    });
    runtime.block_on(task).unwrap();
}

#[test]
fn r04_without_a_socket_the_netpoller_is_never_looked_at() {
    let runtime = runtime(1);
    let (_, after) = counted(&runtime, async {
        for _ in 0..10_000 {
            yield_now().await;
        }
    });
    assert!(after.looks > 0);
    assert_eq!(after.netpoll_looks, 0);
}

#[test]
fn r02_a_million_tasks_on_eight_processors_run_once_each() {
    const TASKS: usize = 1_000_000;
    const SPAWNERS: usize = 100;
    let runtime = runtime(8);
    let runs = Arc::new((0..TASKS).map(|_| std::sync::atomic::AtomicU8::new(0)).collect::<Vec<_>>());
    let spawners: Vec<_> = (0..SPAWNERS)
        .map(|spawner| {
            let runs = runs.clone();
            runtime.spawn(async move {
                let tasks: Vec<_> = (spawner..TASKS)
                    .step_by(SPAWNERS)
                    .map(|n| {
                        let runs = runs.clone();
                        gmp::spawn(async move { runs[n].fetch_add(1, Relaxed) })
                    })
                    .collect();
                for task in tasks {
                    assert_eq!(task.await.unwrap(), 0, "run twice");
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for spawner in spawners {
            spawner.await.unwrap();
        }
    });
    assert!(runs.iter().all(|n| n.load(Relaxed) == 1));
    assert_eq!(runtime.metrics().live_tasks, 0);
}

/// Whose turn it is, and who waits for it.
#[derive(Default)]
struct Turn(Mutex<(usize, Option<Waker>)>);

impl Turn {
    /// Waits for the turn of `player` and gives it to the other one.
    async fn take(&self, player: usize) {
        poll_fn(|cx| {
            let mut turn = self.0.lock().unwrap();
            if turn.0 != player {
                turn.1 = Some(cx.waker().clone());
                return Poll::Pending;
            }
            turn.0 = 1 - player;
            let other = turn.1.take();
            drop(turn);
            if let Some(other) = other {
                other.wake();
            }
            Poll::Ready(())
        })
        .await;
    }
}

/// A pair of tasks that hand a turn to and fro `rounds` times.
async fn ping_pong(rounds: usize) {
    let turn = Arc::new(Turn::default());
    let player = |player| {
        let turn = turn.clone();
        async move {
            for _ in 0..rounds {
                turn.take(player).await;
            }
        }
    };
    let other = gmp::spawn(player(1));
    player(0).await;
    other.await.unwrap();
}

/// How often threads of this process have been preempted.
fn preemptions() -> u64 {
    // SAFETY: all zeroes are a value of this plain struct, and it is there to be written.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0);
        usage
    };
    usage.ru_nivcsw.try_into().unwrap()
}

#[test]
fn r06_a_ping_pong_pair_wakes_nobody() {
    let runtime = runtime(2);
    runtime.block_on(runtime.spawn(ping_pong(1000))).unwrap();
    let preempted = preemptions();
    let (before, after) = counted(&runtime, ping_pong(100_000));
    // Not none at all: a preempted thread looks like one that stands still, and may cost a few wakes.
    let most = 50 + 4 * (preemptions() - preempted);
    assert!(after.wakes - before.wakes <= most, "{} wakes, at most {most}", after.wakes - before.wakes);
    assert!(after.parks - before.parks <= most, "{} parks, at most {most}", after.parks - before.parks);
    assert!(after.stolen - before.stolen <= most, "{} thefts, at most {most}", after.stolen - before.stolen);
}

#[test]
fn r06_a_task_that_only_yields_wakes_nobody() {
    let runtime = runtime(2);
    let preempted = preemptions();
    let (before, after) = counted(&runtime, async {
        for _ in 0..200_000 {
            yield_now().await;
        }
    });
    let most = 50 + 4 * (preemptions() - preempted);
    assert!(after.wakes - before.wakes <= most, "{} wakes, at most {most}", after.wakes - before.wakes);
    assert!(after.stolen - before.stolen <= most, "{} thefts, at most {most}", after.stolen - before.stolen);
}

#[test]
fn r06_spawn_and_join_wakes_at_most_one_machine_in_a_thousand_spawns() {
    const ROUNDS: u64 = 200_000;
    let runtime = runtime(2);
    let preempted = preemptions();
    let (before, after) = counted(&runtime, async {
        for _ in 0..ROUNDS {
            gmp::spawn(async {}).await.unwrap();
        }
    });
    assert!(after.spawned - before.spawned >= ROUNDS);
    let wakes = after.wakes - before.wakes;
    // A preempted thread stands still, and its lone task is taken: that is no waste of the scheduler's.
    let preempted = preemptions() - preempted;
    assert!(wakes <= ROUNDS / 1000 + 4 * preempted, "{wakes} wakes for {ROUNDS} spawns, {preempted} preemptions");
}

#[test]
fn r06_one_burst_brings_all_processors_to_work() {
    const PROCS: usize = 4;
    let runtime = runtime(PROCS);
    // The tasks wait, inside their polls, until as many as there are processors have come together.
    let barrier = Arc::new(std::sync::Barrier::new(PROCS));
    let tasks: Vec<_> = (0..PROCS)
        .map(|_| {
            let barrier = barrier.clone();
            runtime.spawn(async move { barrier.wait().is_leader() })
        })
        .collect();
    let leaders = runtime.block_on(async {
        let mut leaders = 0;
        for task in tasks {
            leaders += usize::from(task.await.unwrap());
        }
        leaders
    });
    assert_eq!(leaders, 1);
}

#[test]
fn r01_a_task_behind_a_long_poll_is_run_by_another_processor() {
    let runtime = runtime(2);
    // In the run-next slot, woken by a task that then blocks until the woken one has run.
    let ran = runtime.spawn(async {
        let (go, gone) = futures::channel::oneshot::channel();
        let (done, is_done) = std::sync::mpsc::channel();
        let woken = gmp::spawn(async move {
            gone.await.unwrap();
            done.send(()).unwrap();
        });
        yield_now().await;
        go.send(()).unwrap();
        is_done.recv_timeout(std::time::Duration::from_secs(30)).expect("nobody ran the task behind this poll");
        woken.await.unwrap();
    });
    runtime.block_on(ran).unwrap();
}

#[test]
fn r25_each_way_of_finding_a_task_is_counted() {
    let runtime = runtime(1);
    let (before, after) = counted(&runtime, async {
        for _ in 0..100 {
            yield_now().await;
        }
        gmp::spawn(async {}).await.unwrap();
    });
    assert!(after.found_in(FoundIn::Local) >= before.found_in(FoundIn::Local) + 99);
    assert!(after.found_in(FoundIn::RunNext) > before.found_in(FoundIn::RunNext));
    assert_eq!(after.found_in(FoundIn::Stolen), 0);
}

#[test]
fn r04_tasks_with_long_polls_do_not_starve_a_timer_or_each_other() {
    use std::time::{Duration, Instant};
    // Each hog computes for longer than a slice in each poll, so it always comes back by way of the global queue.
    let runtime = runtime(1);
    let beats = runtime.spawn(async {
        let stop = Arc::new(AtomicBool::new(false));
        let hogs: Vec<_> = (0..2)
            .map(|_| {
                let stop = stop.clone();
                gmp::spawn(async move {
                    let mut polls = 0;
                    while !stop.load(Relaxed) {
                        let start = Instant::now();
                        while start.elapsed() < Duration::from_millis(25) {
                            std::hint::spin_loop();
                        }
                        polls += 1;
                        yield_now().await;
                    }
                    polls
                })
            })
            .collect();
        for _ in 0..4 {
            gmp::time::sleep(Duration::from_millis(1)).await;
        }
        stop.store(true, Relaxed);
        let mut polls = Vec::new();
        for hog in hogs {
            polls.push(hog.await.unwrap());
        }
        polls
    });
    let polls = runtime.block_on(beats).unwrap();
    assert!(polls.iter().sum::<u32>() <= 40, "four beats took {polls:?} long polls");
    assert!(polls.iter().all(|n| *n > 0));
}

/// Sleepers whose polls are long, and yielders, on one processor, until the sleepers have had so many polls and
/// `outside` has nothing more to do. Gives the polls of the sleepers and the turns of each yielder.
fn turns_beside_sleepers(
    (sleepers, yielders): (usize, usize),
    outside: impl FnOnce(&gmp::runtime::Runtime, &AtomicUsize),
) -> (usize, Vec<usize>) {
    let runtime = Builder::new().procs(1).rescue(None).build().unwrap();
    let (stop, slept) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let sleepers: Vec<_> = (0..sleepers)
        .map(|_| {
            let (stop, slept) = (stop.clone(), slept.clone());
            runtime.spawn(async move {
                while !stop.load(Relaxed) {
                    // Over when the others have had a poll.
                    gmp::time::sleep(std::time::Duration::from_micros(100)).await;
                    long_poll(&slept);
                }
            })
        })
        .collect();
    let yielders: Vec<_> = (0..yielders)
        .map(|_| {
            let stop = stop.clone();
            runtime.spawn(async move {
                let polls = AtomicUsize::new(0);
                while !stop.load(Relaxed) {
                    long_poll(&polls);
                    yield_now().await;
                }
                polls.into_inner()
            })
        })
        .collect();
    outside(&runtime, &slept);
    let slept = slept.load(Relaxed);
    stop.store(true, Relaxed);
    for task in sleepers {
        runtime.block_on(task).unwrap();
    }
    (slept, yielders.into_iter().map(|task| runtime.block_on(task).unwrap()).collect())
}

fn long_poll(polls: &AtomicUsize) {
    let end = std::time::Instant::now() + std::time::Duration::from_micros(700);
    while std::time::Instant::now() < end {
        std::hint::spin_loop();
    }
    polls.fetch_add(1, Relaxed);
}

/// What becomes ready in long polls goes first; here it has long polls too, and there is always some. Those that give
/// way to it, and what comes from outside, still have their turns.
#[test]
fn r04_what_gives_way_to_others_is_not_starved_by_them() {
    const SLEEPERS: usize = 2;
    const YIELDERS: usize = 3;
    const POLLS: usize = 60;
    let mut outside = 0;
    let (slept, turns) = turns_beside_sleepers((SLEEPERS, YIELDERS), |runtime, slept| {
        while slept.load(Relaxed) < POLLS {
            let task = runtime.spawn(async {});
            while !task.is_finished() && slept.load(Relaxed) < 100 * POLLS {
                std::thread::yield_now();
            }
            outside += 1;
        }
    });
    // One of them for each round of the sleepers is a third of that for each; half of it is asked for.
    let least = slept / SLEEPERS / YIELDERS / 2;
    assert!(turns.iter().all(|n| *n >= least), "{turns:?} turns beside {slept} of the sleepers");
    // A task from outside waits for two looks, and not for the end.
    assert!(outside >= POLLS / 30, "{outside} tasks from outside ran beside {slept} polls");
}

/// As above; what comes from outside has long polls too, and there is always some of that as well.
#[test]
fn r04_what_gives_way_is_not_starved_by_the_global_queue_either() {
    const POLLS: usize = 100;
    let (slept, turns) = turns_beside_sleepers((1, 1), |runtime, slept| {
        let polls = Arc::new(AtomicUsize::new(0));
        let task = || {
            let polls = polls.clone();
            runtime.spawn(async move { long_poll(&polls) })
        };
        let mut flight = [task(), task()];
        while slept.load(Relaxed) < POLLS {
            for slot in &mut flight {
                if slot.is_finished() {
                    *slot = task();
                }
            }
            std::thread::yield_now();
        }
    });
    assert!(turns[0] >= slept / 4, "{turns:?} turns beside {slept} of the sleeper");
}

/// Tasks that yield all the time leave the global queue half of the picks, and not one of 61.
#[test]
fn r04_a_full_global_queue_is_no_trickle_beside_tasks_that_yield() {
    const TASKS: usize = 2000;
    let runtime = Builder::new().procs(1).rescue(None).build().unwrap();
    let (stop, yields) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let yielders: Vec<_> = (0..8)
        .map(|_| {
            let (stop, yields) = (stop.clone(), yields.clone());
            runtime.spawn(async move {
                while !stop.load(Relaxed) {
                    yields.fetch_add(1, Relaxed);
                    yield_now().await;
                }
            })
        })
        .collect();
    // Nobody runs while they are queued.
    let (entered, is_in) = std::sync::mpsc::channel();
    let (go_on, gate) = std::sync::mpsc::channel::<()>();
    let holder = runtime.spawn(async move {
        entered.send(()).unwrap();
        gate.recv().unwrap();
    });
    is_in.recv().unwrap();
    let ended = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (stop, yields, ended) = (stop.clone(), yields.clone(), ended.clone());
            runtime.spawn(async move {
                // The last one counts, before anybody else runs.
                if ended.fetch_add(1, Relaxed) + 1 == TASKS {
                    stop.store(true, Relaxed);
                }
                yields.load(Relaxed)
            })
        })
        .collect();
    let before = yields.load(Relaxed);
    go_on.send(()).unwrap();
    let last = tasks.into_iter().map(|task| runtime.block_on(task).unwrap()).max().unwrap();
    for task in yielders {
        runtime.block_on(task).unwrap();
    }
    runtime.block_on(holder).unwrap();
    assert!(last - before < 10 * TASKS, "{} yields beside {TASKS} tasks", last - before);
}
