//! How many processors there are, while they run; how many threads there may be.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gmp::runtime::{Builder, Runtime};
use gmp::task::{block_in_place, yield_now};
use gmp::time::sleep;

use door::Door;
use limit::limited;

#[path = "support/door.rs"]
mod door;
#[path = "support/limit.rs"]
mod limit;

/// Waits, as a thread.
fn until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

/// Tasks that yield until they are told to end, and count their turns.
struct Load {
    end: Arc<AtomicBool>,
    turns: Arc<AtomicUsize>,
    tasks: Vec<gmp::task::JoinHandle<()>>,
}

impl Load {
    fn new(runtime: &Runtime, tasks: usize) -> Self {
        let (end, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let task = || {
            let (end, turns) = (end.clone(), turns.clone());
            runtime.spawn(async move {
                while !end.load(Relaxed) {
                    turns.fetch_add(1, Relaxed);
                    yield_now().await;
                }
            })
        };
        let tasks = (0..tasks).map(|_| task()).collect();
        Load { end, turns, tasks }
    }

    fn turns(&self) -> usize {
        self.turns.load(Relaxed)
    }

    fn end(self, runtime: &Runtime) {
        self.end.store(true, Relaxed);
        for task in self.tasks {
            runtime.block_on(task).unwrap();
        }
    }
}

/// How many are in here at the same time, and at most were.
#[derive(Default)]
struct Crowd {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Crowd {
    fn pass(&self, inside: impl FnOnce()) {
        let now = self.now.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(now, Relaxed);
        inside();
        self.now.fetch_sub(1, Relaxed);
    }
}

/// A directory that goes with the test.
struct Tree(PathBuf);

impl Tree {
    /// One cgroup of version 2, of which this process is.
    fn new(name: &str) -> Self {
        let tree = Tree(std::env::temp_dir().join(format!("gmp-procs-{}-{name}", std::process::id())));
        tree.write("proc/self/cgroup", "0::/pod/app\n");
        tree.write("proc/self/mountinfo", "29 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n");
        tree
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // In one step, as the kernel's files change.
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    fn quota(&self, text: &str) {
        self.write("sys/fs/cgroup/pod/cpu.max", text);
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Whether the environment sets the number, which then goes before what these tests are about.
fn is_set_by_environment() -> bool {
    let set = std::env::var_os("GMP_PROCS").is_some_and(|text| !text.is_empty());
    if set {
        eprintln!("!!!! SKIPPED: GMP_PROCS is set");
    }
    set
}

fn under(tree: &Tree) -> Runtime {
    Builder::new().cpus_under(&tree.0, 8).build().unwrap()
}

#[test]
fn r03_resized_a_thousand_times_under_load_nothing_is_lost_and_nothing_runs_twice() {
    limited(|| {
        const TASKS: usize = 20_000;
        let runtime = Builder::new().procs(1).on_stuck(|_| ()).build().unwrap();
        let polls = Arc::new((0..TASKS).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>());
        let over = Arc::new(AtomicBool::new(false));
        let resizer = std::thread::spawn({
            let (handle, over) = (runtime.handle(), over.clone());
            move || {
                let mut before = 1;
                for round in 0..1000 {
                    let procs = if round % 2 == 0 { 8 } else { 1 };
                    assert_eq!(handle.set_procs(procs).unwrap(), before);
                    assert_eq!(handle.procs(), procs);
                    before = procs;
                    // Now and then so that the machines come to it, now and then so that they do not.
                    if round % 3 == 0 {
                        std::thread::yield_now();
                    }
                }
                over.store(true, Relaxed);
            }
        });
        let spawner = runtime.spawn({
            let polls = polls.clone();
            async move {
                let mut handles = Vec::new();
                let mut n = 0;
                // As many as there are, and on until the last resize.
                while n < TASKS || !over.load(Relaxed) {
                    let polls = polls.clone();
                    handles.push(gmp::spawn(async move {
                        polls[n % TASKS].fetch_add(1, Relaxed);
                        match n % 5 {
                            0 => yield_now().await,
                            1 => sleep(Duration::from_micros(50)).await,
                            2 => block_in_place(std::thread::yield_now),
                            3 => drop(gmp::spawn(yield_now()).await),
                            _ => {}
                        }
                        n
                    }));
                    n += 1;
                    if n % 256 == 0 {
                        yield_now().await;
                    }
                }
                let spawned = handles.len();
                for (n, handle) in handles.into_iter().enumerate() {
                    assert_eq!(handle.await.unwrap(), n);
                }
                spawned
            }
        });
        let spawned = runtime.block_on(spawner).unwrap();
        resizer.join().unwrap();
        assert_eq!(polls.iter().map(|n| n.load(Relaxed)).sum::<usize>(), spawned);
        for (n, polls) in polls.iter().enumerate() {
            assert_eq!(polls.load(Relaxed), spawned / TASKS + usize::from(n < spawned % TASKS), "task {n}");
        }
        assert_eq!(runtime.procs(), 1);
        // The last of those that were too many are given up, and nothing is left behind.
        until(|| runtime.metrics().live_tasks == 0 && runtime.metrics().idle_procs == 1);
        let metrics = runtime.metrics();
        assert_eq!((metrics.global_queue, metrics.timers, metrics.stuck_threads), (0, 0, 0));
    });
}

#[test]
fn r03_no_more_than_procs_run_after_a_shrink() {
    limited(|| {
        const BEFORE: usize = 6;
        for procs in [1, 2] {
            let runtime = Builder::new().procs(BEFORE).rescue(None).build().unwrap();
            // All processors run a task at once.
            let (arrived, all) = channel();
            let (let_go, gone): (Vec<_>, Vec<_>) = (0..BEFORE).map(|_| channel::<()>()).unzip();
            let tasks: Vec<_> = gone
                .into_iter()
                .map(|gone| {
                    let arrived = arrived.clone();
                    runtime.spawn(async move {
                        arrived.send(()).unwrap();
                        gone.recv().unwrap();
                    })
                })
                .collect();
            (0..BEFORE).for_each(|_| all.recv().unwrap());
            assert_eq!(runtime.set_procs(procs).unwrap(), BEFORE);
            let_go.into_iter().for_each(|door| door.send(()).unwrap());
            for task in tasks {
                runtime.block_on(task).unwrap();
            }
            // The polls that were in progress are over; each machine that was too many comes to its next pick.
            let load = Load::new(&runtime, 4 * BEFORE);
            until(|| runtime.metrics().idle_threads >= BEFORE - procs);
            let crowd = Arc::new(Crowd::default());
            let tasks: Vec<_> = (0..200)
                .map(|_| {
                    let crowd = crowd.clone();
                    runtime.spawn(async move {
                        for _ in 0..10 {
                            crowd.pass(std::thread::yield_now);
                            yield_now().await;
                        }
                    })
                })
                .collect();
            for task in tasks {
                runtime.block_on(task).unwrap();
            }
            load.end(&runtime);
            let most = crowd.most.load(Relaxed);
            assert!(most <= procs, "{most} at once on {procs} processors");
        }
    });
}

#[test]
fn r03_a_larger_number_runs_more_tasks_at_once() {
    limited(|| {
        let runtime = Builder::new().procs(1).rescue(None).build().unwrap();
        let (arrived, all) = channel();
        let (let_go, gone): (Vec<_>, Vec<_>) = (0..5).map(|_| channel::<()>()).unzip();
        let tasks: Vec<_> = gone
            .into_iter()
            .map(|gone| {
                let arrived = arrived.clone();
                runtime.spawn(async move {
                    arrived.send(()).unwrap();
                    gone.recv().unwrap();
                })
            })
            .collect();
        all.recv().unwrap();
        runtime.set_procs(5).unwrap();
        // Each of them blocks its processor until all have come.
        (0..4).for_each(|_| all.recv().unwrap());
        let_go.into_iter().for_each(|door| door.send(()).unwrap());
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
    });
}

#[test]
fn r07_timers_of_a_processor_that_is_gone_fire() {
    limited(|| {
        const PROCS: usize = 4;
        // Beside a processor that is never idle, and beside one that sleeps until the timer comes.
        for busy in [true, false] {
            let runtime = Builder::new().procs(PROCS).rescue(None).build().unwrap();
            let (arrived, all) = channel();
            let (let_go, gone): (Vec<_>, Vec<_>) = (0..PROCS).map(|_| channel::<()>()).unzip();
            let sleepers: Vec<_> = gone
                .into_iter()
                .map(|gone| {
                    let arrived = arrived.clone();
                    runtime.spawn(async move {
                        let mut nap = std::pin::pin!(sleep(Duration::from_millis(200)));
                        // Armed on this processor; all of them are taken at once.
                        let mut armed = nap.as_mut();
                        futures::future::poll_fn(move |cx| {
                            assert!(armed.as_mut().poll(cx).is_pending());
                            arrived.send(()).unwrap();
                            gone.recv().unwrap();
                            std::task::Poll::Ready(())
                        })
                        .await;
                        nap.await;
                    })
                })
                .collect();
            (0..PROCS).for_each(|_| all.recv().unwrap());
            runtime.set_procs(1).unwrap();
            let load = busy.then(|| Load::new(&runtime, 3));
            let_go.into_iter().for_each(|door| door.send(()).unwrap());
            for sleeper in sleepers {
                // Not `block_on`: its thread would look for timers too.
                until(|| sleeper.is_finished());
            }
            assert_eq!(runtime.metrics().timers_fired, PROCS as u64);
            if let Some(load) = load {
                load.end(&runtime);
            }
        }
    });
}

#[test]
fn r03_the_tasks_of_a_processor_that_dies_in_a_blocking_call_run_at_once() {
    limited(|| {
        let runtime = Builder::new().procs(2).rescue(None).build().unwrap();
        let (arrived, all) = channel();
        let (let_go, gone): (Vec<_>, Vec<_>) = (0..2).map(|_| channel::<()>()).unzip();
        let tasks: Vec<_> = gone
            .into_iter()
            .map(|gone| {
                let arrived = arrived.clone();
                runtime.spawn(async move {
                    let (behind, ran) = channel();
                    let task = gmp::spawn(async move { behind.send(()).unwrap() });
                    block_in_place(|| {
                        arrived.send(()).unwrap();
                        gone.recv().unwrap();
                        ran.recv().unwrap();
                    });
                    task.await.unwrap();
                })
            })
            .collect();
        (0..2).for_each(|_| all.recv().unwrap());
        runtime.set_procs(1).unwrap();
        let_go.into_iter().for_each(|door| door.send(()).unwrap());
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
    });
}

#[test]
fn r03_a_poll_that_is_stuck_on_a_dying_processor_strands_nothing() {
    limited(|| {
        let runtime = Builder::new().procs(4).on_stuck(|_| ()).build().unwrap();
        let done = Arc::new(AtomicUsize::new(0));
        let stuck: Vec<_> = (0..4)
            .map(|_| {
                let done = done.clone();
                runtime.spawn(async move {
                    for _ in 0..100 {
                        let done = done.clone();
                        drop(gmp::spawn(async move { done.fetch_add(1, Relaxed) }));
                    }
                    // In this very poll the number goes down, and the tasks behind all of them have to run.
                    gmp::set_procs(1).unwrap();
                    until(|| done.load(Relaxed) == 400);
                })
            })
            .collect();
        for task in stuck {
            runtime.block_on(task).unwrap();
        }
        assert_eq!(runtime.procs(), 1);
        until(|| runtime.metrics().stuck_threads == 0);
    });
}

#[test]
fn r03_set_from_everywhere_at_once_the_last_one_holds() {
    limited(|| {
        let runtime = Builder::new().procs(2).build().unwrap();
        let load = Load::new(&runtime, 8);
        let threads: Vec<_> = (0..3)
            .map(|thread| {
                let handle = runtime.handle();
                std::thread::spawn(move || {
                    for round in 0..300 {
                        handle.set_procs(1 + (thread + round) % 7).unwrap();
                    }
                })
            })
            .collect();
        let tasks: Vec<_> = (0..3)
            .map(|task| {
                runtime.spawn(async move {
                    for round in 0..300 {
                        gmp::set_procs(1 + (task * 3 + round) % 9).unwrap();
                        yield_now().await;
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        runtime.block_on(async { gmp::set_procs(3) }).unwrap();
        assert_eq!((runtime.procs(), runtime.metrics().procs), (3, 3));
        let turns = load.turns();
        until(|| load.turns() > turns + 1000);
        load.end(&runtime);
        until(|| runtime.metrics().idle_procs == 3);
    });
}

#[test]
fn r25_counters_never_go_backwards_when_processors_come_and_go() {
    limited(|| {
        let runtime = Builder::new().procs(8).build().unwrap();
        let load = Load::new(&runtime, 16);
        let mut last = runtime.metrics();
        for round in 0..200 {
            runtime.set_procs(1 + round % 8).unwrap();
            let next = runtime.metrics();
            assert_eq!(next.local_queues.len(), 1 + round % 8);
            assert!(next.polled >= last.polled && next.parks >= last.parks && next.looks >= last.looks);
            assert!(next.idle_procs <= 8);
            last = next;
        }
        load.end(&runtime);
    });
}

#[test]
fn r18_threads_that_are_too_many_after_a_shrink_end() {
    limited(|| {
        const PROCS: usize = 6;
        let runtime = Builder::new().procs(PROCS).thread_keep_alive(Duration::from_millis(10)).build().unwrap();
        let door = Door::default();
        let barrier = Arc::new(std::sync::Barrier::new(PROCS));
        let tasks: Vec<_> = (0..PROCS)
            .map(|_| {
                let (door, barrier) = (door.clone(), barrier.clone());
                runtime.spawn(async move {
                    block_in_place(|| barrier.wait());
                    door.await;
                })
            })
            .collect();
        drop(door.waker_of(PROCS));
        until(|| runtime.metrics().idle_procs == PROCS);
        // Those that are left sleep without a limit by now, or are about to.
        runtime.set_procs(1).unwrap();
        until(|| runtime.metrics().threads <= 2);
        door.open();
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
    });
}

#[test]
fn r24_numbers_out_of_range_are_errors_that_quote_them() {
    let runtime = Builder::new().procs(1).build().unwrap();
    for bad in [0, 1025, usize::MAX] {
        for error in
            [runtime.set_procs(bad), runtime.handle().set_procs(bad), runtime.block_on(async { gmp::set_procs(bad) })]
        {
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&format!("1 to 1024, not `{bad}`")), "{error}");
        }
    }
    assert_eq!(runtime.set_procs(1024).unwrap(), 1);
    assert_eq!(runtime.block_on(runtime.spawn(async { gmp::procs() })).unwrap(), 1024);
    for bad in [0, 1, 2] {
        let error = Builder::new().max_threads(bad).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&format!("max_threads takes a number of threads from 3 on, not `{bad}`")));
    }
}

#[test]
fn r14_after_the_runtime_it_is_an_error() {
    let runtime = Builder::new().procs(2).build().unwrap();
    let handle = runtime.handle();
    drop(runtime);
    let next = Builder::new().procs(3).build().unwrap();
    assert!(handle.set_procs(1).unwrap_err().to_string().contains("shut down"));
    assert_eq!((handle.procs(), next.procs()), (0, 3));
}

#[test]
fn r14_a_shutdown_beside_those_who_set_the_number_ends() {
    limited(|| {
        for _ in 0..50 {
            let runtime = Builder::new().procs(2).build().unwrap();
            let load = Load::new(&runtime, 4);
            let threads: Vec<_> = (1..3)
                .map(|thread| {
                    let handle = runtime.handle();
                    std::thread::spawn(move || {
                        let mut procs = 1;
                        while handle.set_procs(procs).is_ok() {
                            procs = procs % 40 + thread;
                        }
                    })
                })
                .collect();
            until(|| load.turns() > 10);
            drop(runtime);
            for thread in threads {
                thread.join().unwrap();
            }
            assert!(load.tasks.iter().all(gmp::task::JoinHandle::is_finished));
        }
    });
}

#[test]
fn r17_the_tightest_quota_of_all_cgroups_is_the_default() {
    if is_set_by_environment() {
        return;
    }
    let tree = Tree::new("default");
    assert_eq!(under(&tree).procs(), 8);
    tree.quota("250000 100000");
    assert_eq!(under(&tree).procs(), 3);
    tree.write("sys/fs/cgroup/pod/app/cpu.max", "50000 100000");
    assert_eq!(under(&tree).procs(), 2);
    assert_eq!(Builder::new().cpus_under(&tree.0, 1).build().unwrap().procs(), 1);
    assert_eq!(Builder::new().cpus_under(&tree.0, 8).procs(7).build().unwrap().procs(), 7);
    assert_eq!(Builder::new().cpus_under(Path::new("/nowhere"), 5).build().unwrap().procs(), 5);
}

#[test]
fn r17_a_quota_that_changes_is_followed_until_the_number_is_set_by_hand() {
    if is_set_by_environment() {
        return;
    }
    limited(|| {
        let tree = Tree::new("refresh");
        tree.quota("400000 100000");
        let (follows, set) = (under(&tree), under(&tree));
        let loads = [Load::new(&follows, 2), Load::new(&set, 2)];
        assert_eq!((follows.procs(), set.procs()), (4, 4));
        for (quota, procs) in [("600000 100000", 6), ("150000 100000", 2), ("max 100000", 8), ("300001 100000", 4)] {
            tree.quota(quota);
            until(|| follows.procs() == procs && set.procs() == procs);
        }
        set.set_procs(5).unwrap();
        let refreshes = set.metrics().procs_refreshes;
        assert!(refreshes >= 4);
        tree.quota("200000 100000");
        until(|| follows.procs() == 2);
        tree.quota("700000 100000");
        until(|| follows.procs() == 7);
        assert_eq!((set.procs(), set.metrics().procs_refreshes), (5, refreshes), "nobody looks any more");
        let [a, b] = loads;
        a.end(&follows);
        b.end(&set);
    });
}

#[test]
fn r17_at_the_limit_of_threads_every_task_and_closure_runs() {
    limited(|| {
        const LIMIT: usize = 5;
        let crowd = Arc::new(Crowd::default());
        let (started, stopped) = (crowd.clone(), crowd.clone());
        let runtime = Builder::new()
            .procs(8)
            .max_threads(LIMIT)
            .on_stuck(|_| ())
            .on_thread_start(move || {
                let now = started.now.fetch_add(1, Relaxed) + 1;
                started.most.fetch_max(now, Relaxed);
            })
            .on_thread_stop(move || {
                stopped.now.fetch_sub(1, Relaxed);
            })
            .thread_keep_alive(Duration::from_millis(1))
            .build()
            .unwrap();
        let ran = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..200)
            .map(|n| {
                let ran = ran.clone();
                runtime.spawn(async move {
                    match n % 5 {
                        // Stuck for a while.
                        0 => std::thread::sleep(Duration::from_millis(3)),
                        1 => block_in_place(|| std::thread::sleep(Duration::from_millis(3))),
                        2 => gmp::spawn_blocking(|| std::thread::sleep(Duration::from_millis(1))).await.unwrap(),
                        3 => gmp::task::spawn_pinned(|| async { yield_now().await }).await.unwrap(),
                        _ => yield_now().await,
                    }
                    ran.fetch_add(1, Relaxed);
                })
            })
            .collect();
        let closures: Vec<_> = (0..100)
            .map(|_| {
                let ran = ran.clone();
                runtime.spawn_blocking(move || ran.fetch_add(1, Relaxed))
            })
            .collect();
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        for closure in closures {
            runtime.block_on(closure).unwrap();
        }
        assert_eq!(ran.load(Relaxed), 300);
        let most = crowd.most.load(Relaxed);
        assert!(most <= LIMIT, "{most} threads");
        let metrics = runtime.metrics();
        assert!(metrics.thread_refusals > 0);
        assert_eq!(metrics.thread_failures, 0, "the system was not asked");
    });
}

#[test]
fn r17_blocking_closures_at_the_limit_run_in_order_and_leave_room_for_tasks() {
    limited(|| {
        let runtime = Builder::new().procs(1).max_threads(3).build().unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let (go, gone) = channel::<()>();
        let first = runtime.spawn_blocking(move || gone.recv().unwrap());
        let closures: Vec<_> = (0..50)
            .map(|n| {
                let order = order.clone();
                runtime.spawn_blocking(move || order.lock().unwrap().push(n))
            })
            .collect();
        assert_eq!(runtime.metrics().blocking_threads, 1);
        // Tasks have a thread beside it.
        runtime.block_on(runtime.spawn(async { gmp::spawn(async {}).await })).unwrap().unwrap();
        go.send(()).unwrap();
        runtime.block_on(first).unwrap();
        for closure in closures {
            runtime.block_on(closure).unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..50).collect::<Vec<_>>());
    });
}

/// Their threads want processors like any other's, also those that are taken away meanwhile.
#[test]
fn r03_pinned_tasks_go_on_while_the_number_of_processors_changes() {
    limited(|| {
        let runtime = Builder::new().procs(1).on_stuck(|_| ()).build().unwrap();
        let _entered = runtime.enter();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let end = Arc::new(AtomicBool::new(false));
        let pinned: Vec<_> = (0..4)
            .map(|i| {
                let (running, most, end) = (running.clone(), most.clone(), end.clone());
                gmp::task::spawn_pinned(move || async move {
                    let (thread, mut turns) = (std::thread::current().id(), 0);
                    while !end.load(Relaxed) || turns < 50 {
                        most.fetch_max(running.fetch_add(1, Relaxed) + 1, Relaxed);
                        running.fetch_sub(1, Relaxed);
                        turns += 1;
                        // One waits for a timer, one is woken by a task, one is away, one never waits.
                        match i {
                            0 => sleep(Duration::from_micros(100)).await,
                            1 => gmp::spawn(async {}).await.unwrap(),
                            2 => block_in_place(std::thread::yield_now),
                            _ => yield_now().await,
                        }
                        assert_eq!(std::thread::current().id(), thread);
                    }
                })
            })
            .collect();
        let load = Load::new(&runtime, 4);
        for i in 0..300 {
            runtime.set_procs([8, 1, 3, 1][i % 4]).unwrap();
            let turns = load.turns();
            until(|| load.turns() > turns);
        }
        runtime.set_procs(1).unwrap();
        end.store(true, Relaxed);
        for task in pinned {
            runtime.block_on(task).unwrap();
        }
        load.end(&runtime);
        assert!(most.load(Relaxed) <= 8, "{most:?}");
        until(|| {
            let metrics = runtime.metrics();
            metrics.idle_procs == 1 && metrics.procs == 1
        });
    });
}
