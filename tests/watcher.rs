//! The watcher costs nearly nothing beside tasks that behave, does each of its duties, and leaves a thread alone that
//! is only preempted.
#![cfg(target_os = "linux")]

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gmp::runtime::{Builder, Metrics, Runtime};
use gmp::task::{block_in_place, yield_now};

use limit::limited;

#[path = "support/limit.rs"]
mod limit;

fn runtime(procs: usize) -> Runtime {
    Builder::new().procs(procs).on_stuck(|_| ()).build().unwrap()
}

/// What the watcher has done that makes it look more often.
fn acts(m: &Metrics) -> u64 {
    m.sysmon_flags + m.sysmon_wakes + m.sysmon_netpolls + m.rescues + m.retakes + m.releases
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is there to be written.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Tasks that take turns until the guard is dropped.
struct Turns(Arc<AtomicBool>);

impl Turns {
    fn of(runtime: &Runtime, tasks: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..tasks {
            let stop = stop.clone();
            drop(runtime.spawn(async move {
                while !stop.load(Relaxed) {
                    yield_now().await;
                }
            }));
        }
        Turns(stop)
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// One test at a time loads the machine or minds that others do.
static ALONE: Mutex<()> = Mutex::new(());

/// It never looks more than every 5 ms beside tasks that yield, and every millisecond for a second after it has acted,
/// which other load on the machine may make it do: then it is tried again.
#[test]
fn r05_beside_tasks_that_behave_the_watcher_looks_every_five_milliseconds() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    limited(|| {
        let runtime = runtime(2);
        let _turns = Turns::of(&runtime, 4);
        let (mut acted, mut quiet_since) = (acts(&runtime.metrics()), Instant::now());
        let mut seen = 0;
        for _ in 0..300 {
            let (before, start) = (runtime.metrics(), Instant::now());
            while runtime.metrics().sysmon_looks < before.sysmon_looks + 20 {
                std::thread::sleep(Duration::from_millis(5));
            }
            let after = runtime.metrics();
            if acts(&after) != acted {
                (acted, quiet_since) = (acts(&after), Instant::now());
            } else if start > quiet_since + Duration::from_millis(1100) || acted == 0 {
                let (looks, ms) = (after.sysmon_looks - before.sysmon_looks, start.elapsed().as_millis() as u64);
                assert!(looks <= ms / 5 + 2, "{looks} looks in {ms} ms: {after:?}");
                seen += 1;
                if seen == 5 {
                    return;
                }
            }
        }
        eprintln!("!!!! SKIPPED: the watcher's looks beside tasks that behave: other load made it act all the time");
    });
}

/// Processes that keep all CPUs busy, until the guard is dropped.
struct Burners(Vec<Child>);

impl Burners {
    fn more_than_cpus() -> Self {
        let count = 3 * std::thread::available_parallelism().unwrap().get();
        let burner = || {
            let mut child = Command::new("sh")
                .args(["-c", "echo; while :; do :; done"])
                .stdout(Stdio::piped())
                .spawn()
                .expect("a shell that burns");
            // It has started when it says so.
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
            child
        };
        Burners((0..count).map(|_| burner()).collect())
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have been killed by somebody else.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Polls that use 1 ms of CPU, less than it takes to be stuck, and last for many looks of the watcher because others
/// have the CPUs; a task waits behind each. Where the CPU itself is another machine's for a while, its clock goes on: a
/// poll may then have used what it takes.
#[test]
fn r03_a_thread_that_is_only_preempted_is_not_rescued() {
    const LONG: Duration = Duration::from_millis(8);
    const STUCK: Duration = Duration::from_millis(2);
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    limited(|| {
        let runtime = runtime(1);
        let _turns = Turns::of(&runtime, 1);
        let _burners = Burners::more_than_cpus();
        let task = runtime.spawn(async {
            let (mut long, mut stuck, mut polls) = (0, 0, 0);
            while long < 20 && polls < 2000 {
                let (wall, cpu) = (Instant::now(), cpu_time());
                while cpu_time() - cpu < Duration::from_millis(1) {
                    std::hint::spin_loop();
                }
                stuck += u64::from(cpu_time() - cpu >= STUCK);
                long += usize::from(wall.elapsed() >= LONG);
                polls += 1;
                yield_now().await;
            }
            (long, stuck)
        });
        let (long, stuck) = runtime.block_on(task).unwrap();
        let metrics = runtime.metrics();
        if long == 0 {
            eprintln!("!!!! SKIPPED: a thread that is only preempted: the burners never had the CPUs for long");
            return;
        }
        assert!(metrics.rescues <= stuck, "{stuck} polls have used {STUCK:?}: {metrics:?}");
        assert!(metrics.sysmon_looks > 0);
    });
}

/// Each duty, by its counter; the poll goes on only when it has been done. The netpoller's is in `net.rs`, threads that
/// could not be started in `threads_refused.rs`, releases in `block_in_place.rs`.
#[test]
fn r25_the_watcher_counts_what_it_does() {
    limited(|| {
        let runtime = runtime(1);
        let handle = runtime.handle();
        let duties = runtime.spawn(async move {
            let until = |done: &dyn Fn(&Metrics) -> bool| {
                while !done(&handle.metrics()) {
                    std::thread::yield_now();
                }
            };
            // Retake, of a blocking call before a task.
            let (done, is_done) = channel();
            drop(gmp::spawn(async move { done.send(()).unwrap() }));
            block_in_place(|| is_done.recv().unwrap());
            until(&|m| m.retakes > 0);
            yield_now().await;
            // The flag at a slice that lasts too long, alone on its processor.
            until(&|m| m.sysmon_flags > 0);
            yield_now().await;
            // Rescue, of this poll before a task.
            let behind = gmp::spawn(async {});
            until(&|_| behind.is_finished());
            until(&|m| m.rescues > 0 && m.stuck_threads > 0);
        });
        runtime.block_on(duties).unwrap();
    });
    limited(|| {
        // A task behind a long poll beside an idle processor: a machine is woken for it.
        let runtime = Builder::new().procs(2).rescue(None).build().unwrap();
        let handle = runtime.handle();
        let task = runtime.spawn(async move {
            // A wake into an empty queue wakes nobody: this poll is about to end, says the rule.
            let (wake, woken) = futures::channel::oneshot::channel();
            let other = gmp::spawn(async move { woken.await.unwrap() });
            while handle.metrics().live_tasks < 2 || handle.metrics().idle_procs == 0 {
                yield_now().await;
            }
            let before = handle.metrics().sysmon_wakes;
            wake.send(()).unwrap();
            while !other.is_finished() {
                std::thread::yield_now();
            }
            handle.metrics().sysmon_wakes - before
        });
        let woken = runtime.block_on(task).unwrap();
        let metrics = runtime.metrics();
        // A processor that the machine's other load has made slow wakes one itself.
        assert!(woken > 0 || metrics.wakes > 0, "{metrics:?}");
        assert_eq!(metrics.rescues, 0);
    });
}

/// Due timers of a processor in a poll that is stuck: nobody else has them, and the machine in the netpoller sleeps for
/// longer.
#[test]
fn r07_due_timers_of_a_stuck_poll_fire() {
    limited(|| {
        for procs in [1, 2] {
            let runtime = runtime(procs);
            let fired = Arc::new(AtomicUsize::new(0));
            let task = runtime.spawn({
                let fired = fired.clone();
                async move {
                    for _ in 0..3 {
                        let fired = fired.clone();
                        drop(gmp::spawn(async move {
                            gmp::time::sleep(Duration::from_millis(1)).await;
                            fired.fetch_add(1, Relaxed);
                        }));
                    }
                    yield_now().await;
                    while fired.load(Relaxed) < 3 {
                        std::hint::spin_loop();
                    }
                }
            });
            // Not `block_on`: a thread that wants a processor would be a reason to rescue by itself.
            while !task.is_finished() {
                std::thread::yield_now();
            }
        }
    });
}

/// The second thread of the runtime, which a rescue starts, waits in its hook for a task that only a third can run.
#[test]
fn r03_a_hook_that_blocks_at_the_start_of_a_thread_keeps_no_processor() {
    limited(|| {
        let (open, opened) = channel::<()>();
        let (opened, starts) = (Mutex::new(opened), AtomicUsize::new(0));
        let hook = move || {
            if starts.fetch_add(1, Relaxed) == 1 {
                opened.lock().unwrap().recv().unwrap();
            }
        };
        let runtime = Builder::new().procs(1).on_stuck(|_| ()).on_thread_start(hook).build().unwrap();
        let (end, ended) = channel::<()>();
        let (begin, begun) = channel();
        let stuck = runtime.spawn(async move {
            begin.send(()).unwrap();
            let _ = ended.recv();
        });
        begun.recv().unwrap();
        let opens = runtime.spawn(async move { open.send(()).unwrap() });
        while !opens.is_finished() {
            std::thread::yield_now();
        }
        assert!(runtime.metrics().retakes > 0);
        drop(end);
        while !stuck.is_finished() {
            std::thread::yield_now();
        }
    });
}

/// It looks again at once, and not milliseconds later: of many polls that block before a task one at least is found so.
/// But no poll is given up on that was just blocked: a contended lock is over soon.
#[test]
fn r03_a_poll_that_blocks_is_found_soon_and_not_at_once() {
    const TRIES: usize = 100;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    limited(|| {
        let seen_for = Arc::new(Mutex::new(Vec::new()));
        let hook = {
            let seen_for = seen_for.clone();
            move |stuck: &gmp::runtime::StuckPoll| seen_for.lock().unwrap().push(stuck.polling_for)
        };
        let runtime = Builder::new().procs(1).on_stuck(hook).build().unwrap();
        for _ in 0..TRIES {
            let (open, opened) = channel::<()>();
            let blocks = runtime.spawn(async move { opened.recv().unwrap() });
            let opens = runtime.spawn(async move { open.send(()).unwrap() });
            while !blocks.is_finished() || !opens.is_finished() {
                std::thread::yield_now();
            }
        }
        let seen_for = seen_for.lock().unwrap();
        // A task that is spawned second may be run first.
        if seen_for.len() < TRIES / 10 {
            eprintln!("!!!! SKIPPED: only {} of {TRIES} polls were stuck", seen_for.len());
            return;
        }
        let least = seen_for.iter().min().unwrap();
        assert!(*least < Duration::from_millis(1), "{seen_for:?}");
        assert!(*least >= Duration::from_micros(500), "{seen_for:?}");
    });
}

#[test]
fn r05_a_task_that_ticks_now_and_then_does_not_wake_the_watcher() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    limited(|| {
        let runtime = runtime(1);
        // Looks until there is none for so long that it must sleep deeply.
        let looks = || {
            let mut last = runtime.metrics().sysmon_looks;
            loop {
                std::thread::sleep(Duration::from_millis(200));
                let now = runtime.metrics().sysmon_looks;
                if now == std::mem::replace(&mut last, now) {
                    return now;
                }
            }
        };
        let mut before = looks();
        loop {
            runtime.block_on(runtime.spawn(async {})).unwrap();
            let after = looks();
            // Else a thread with the processor was preempted for so long that the watcher came to see.
            if after == before {
                return;
            }
            before = after;
        }
    });
}
