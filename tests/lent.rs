//! The thread that has run a blocking closure goes on with the task that waits for it, if a processor is idle, and with
//! the closure that this task calls next. What that task does must not keep anything waiting.
//! Each runtime has a limit: in one without, closures that are known to be brief run on processors (see `brief.rs`).

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use gmp::runtime::{Builder, Metrics, Runtime};

use drops::Drops;
use limit::limited;

#[path = "support/drops.rs"]
mod drops;
#[path = "support/limit.rs"]
mod limit;

fn runtime(procs: usize) -> Runtime {
    Builder::new().max_blocking(512).procs(procs).build().unwrap()
}

/// Until all processors are idle: a closure that returns then is followed by its task on the same thread.
fn wait_until_idle(metrics: impl Fn() -> Metrics) {
    loop {
        let now = metrics();
        if now.idle_procs == now.procs {
            return;
        }
        thread::yield_now();
    }
}

/// Comes back on a thread of the pool, which is lent to the scheduler. Gives its id.
async fn lend() -> ThreadId {
    loop {
        // Somebody else, as a thread that is about to wait in `block_on`, may take the processor between the look and
        // the wake.
        let id = call_when_idle().await;
        if id == thread::current().id() {
            return id;
        }
    }
}

/// A call of [`lend`].
async fn call_when_idle() -> ThreadId {
    let call = gmp::spawn_blocking(|| {
        let handle = gmp::runtime::Handle::current();
        wait_until_idle(|| handle.metrics());
        thread::current().id()
    });
    call.await.unwrap()
}

#[test]
fn r16_a_task_that_makes_one_call_after_the_other_needs_one_thread_and_no_wake() {
    const CALLS: u64 = 200;
    limited(|| {
        let runtime = runtime(1);
        let handle = runtime.handle();
        let (first, same, wakes) = runtime
            .block_on(runtime.spawn(async move {
                let first = lend().await;
                let before = handle.metrics();
                let mut same = 0;
                for _ in 0..CALLS {
                    let id = gmp::spawn_blocking(|| thread::current().id()).await.unwrap();
                    same += u64::from(id == first && thread::current().id() == first);
                }
                let after = handle.metrics();
                let lent = after.blocking_lent - before.blocking_lent;
                assert!(lent >= same, "{lent} of {same}");
                (first, same, after.wakes - before.wakes)
            }))
            .unwrap();
        // One that was preempted calls another thread, and some after it.
        assert!(same > 0, "{first:?} never ran a second closure");
        assert!(wakes <= CALLS - same, "{wakes} wakes beside {same} of {CALLS} calls on one thread");
    });
}

/// The poll waits for the closure that its thread has kept, by means that the runtime does not see, or that it does.
#[test]
fn r16_a_poll_may_wait_for_the_closure_that_it_has_just_called() {
    type Waits = fn(Receiver<u32>, gmp::task::JoinHandle<()>) -> u32;
    let ways: [(&str, Waits); 4] = [
        ("a channel of std", |receiver, _| receiver.recv().unwrap()),
        ("block_in_place", |receiver, _| gmp::task::block_in_place(|| receiver.recv().unwrap())),
        ("block_on", |receiver, closure| {
            gmp::block_on(closure).unwrap();
            receiver.try_recv().unwrap()
        }),
        ("the end of another runtime", |receiver, closure| {
            let other = runtime(1);
            let waits = other.spawn_blocking(move || gmp::block_on(closure).unwrap());
            other.shutdown_timeout(Duration::MAX).unwrap();
            drop(waits);
            receiver.recv().unwrap()
        }),
    ];
    for (way, wait) in ways {
        for procs in [1, 2] {
            limited(move || {
                let runtime = runtime(procs);
                let task = runtime.spawn(async move {
                    let here = lend().await;
                    let (sender, receiver) = channel();
                    let closure = gmp::spawn_blocking(move || sender.send(7).unwrap());
                    assert_eq!(thread::current().id(), here);
                    wait(receiver, closure)
                });
                assert_eq!(runtime.block_on(task).unwrap(), 7, "{way}");
            });
        }
    }
}

/// Enters the runtime and wakes the task that waits for this, when all are idle. For a thread of the pool.
fn wake_from_within(sender: &gmp::chan::Sender<()>) {
    let handle = gmp::runtime::Handle::current();
    wait_until_idle(|| handle.metrics());
    gmp::block_on(async { gmp::task::block_in_place(|| sender.try_send(()).unwrap()) });
}

/// The destructor of a result that nobody wants.
struct Unwanted(gmp::chan::Sender<()>);

impl Drop for Unwanted {
    fn drop(&mut self) {
        wake_from_within(&self.0);
    }
}

/// A waker that is not a task's.
struct Foreign(gmp::chan::Sender<()>);

impl Wake for Foreign {
    fn wake(self: Arc<Self>) {
        wake_from_within(&self.0);
    }
}

/// They may do anything, so the thread is not lent while they run: it would lose the processor, and shutdown wait for
/// it.
#[test]
fn r14_no_thread_is_lent_in_a_destructor_or_in_a_foreign_waker() {
    for foreign in [false, true] {
        for procs in [1, 2] {
            limited(move || {
                let runtime = runtime(procs);
                let (sender, receiver) = gmp::chan::bounded(1);
                let woken = runtime.spawn(async move { receiver.recv().await.unwrap() });
                let (open, gate) = channel::<()>();
                let result = Arc::new(Mutex::new(Some(sender)));
                let unwanted = result.clone();
                let mut closure = runtime.spawn_blocking(move || {
                    let _ = gate.recv();
                    unwanted.lock().unwrap().take().map(Unwanted)
                });
                let closure = if foreign {
                    let waker = Waker::from(Arc::new(Foreign(result.lock().unwrap().take().unwrap())));
                    assert!(Pin::new(&mut closure).poll(&mut Context::from_waker(&waker)).is_pending());
                    Some(closure)
                } else {
                    drop(closure);
                    None
                };
                drop(open);
                runtime.block_on(woken).unwrap();
                while runtime.metrics().blocking_idle_threads == 0 {
                    thread::yield_now();
                }
                assert_eq!(runtime.metrics().blocking_lent, 0);
                drop(closure);
                runtime.shutdown_timeout(Duration::MAX).unwrap();
            });
        }
    }
}

/// Until the watcher sleeps so deeply that a processor which is taken for a moment does not wake it.
/// It is that of the runtime whose threads have this name.
fn wait_until_unwatched(name: &str, metrics: impl Fn() -> Metrics) {
    let name = format!("{name}-sysmon");
    loop {
        let looks = metrics().sysmon_looks;
        // If it is asleep now and later, and has not looked in between, that is one sleep, which is longer than any
        // between looks. One that gets no CPU meanwhile is not asleep.
        let sleeps = is_asleep(&name);
        thread::sleep(Duration::from_millis(150));
        if sleeps && is_asleep(&name) && metrics().sysmon_looks == looks {
            return;
        }
    }
}

/// Whether the kernel has the one thread of this name asleep.
#[cfg(target_os = "linux")]
fn is_asleep(name: &str) -> bool {
    std::fs::read_dir("/proc/self/task").unwrap().any(|thread| {
        // It may have ended.
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default();
        stat.contains(&format!("({name}) S"))
    })
}

#[cfg(not(target_os = "linux"))]
fn is_asleep(_: &str) -> bool {
    true
}

/// Nobody looks at what is kept: the wait itself calls a thread.
#[test]
fn r16_a_wait_calls_for_the_kept_closure() {
    limited(|| {
        let runtime = Builder::new().max_blocking(512).procs(1).thread_name("keeps").build().unwrap();
        let task = runtime.spawn(async {
            let call = gmp::spawn_blocking(|| {
                let handle = gmp::runtime::Handle::current();
                wait_until_unwatched("keeps", || handle.metrics());
            });
            call.await.unwrap();
            gmp::block_on(gmp::spawn_blocking(|| 7)).unwrap()
        });
        assert_eq!(runtime.block_on(task).unwrap(), 7);
    });
}

/// Nor at closures that wait for each other, and that are queued before a thread has come: those that come call the
/// others.
#[test]
fn r16_closures_that_wait_for_each_other_all_start() {
    const CLOSURES: usize = 9;
    limited(|| {
        let (open, gate) = channel::<()>();
        let gate = Mutex::new(gate);
        let builder = Builder::new().max_blocking(512).procs(1).thread_name("many").on_thread_start(move || {
            if thread::current().name().unwrap().starts_with("many-block") {
                let _ = gate.lock().unwrap().recv();
            }
        });
        let runtime = builder.build().unwrap();
        runtime.block_on(runtime.spawn(async {})).unwrap();
        wait_until_unwatched("many", || runtime.metrics());
        let together = Arc::new(Barrier::new(CLOSURES + 1));
        for _ in 0..CLOSURES {
            let together = together.clone();
            drop(runtime.spawn_blocking(move || together.wait()));
        }
        assert_eq!((runtime.metrics().blocking_threads, runtime.metrics().blocking_queue), (2, CLOSURES));
        drop(open);
        together.wait();
    });
}

/// A task that is known to block is polled without a processor in the table, so that nobody may be looking.
#[test]
fn r16_a_poll_of_a_task_that_is_known_to_block_may_wait_for_its_closure() {
    limited(|| {
        for procs in [1, 2] {
            let runtime = runtime(procs);
            let task = runtime.spawn(async {
                for _ in 0..20 {
                    // Perhaps this poll has no processor either, and goes on.
                    call_when_idle().await;
                    let (sender, receiver) = channel();
                    let again = sender.clone();
                    drop(gmp::spawn_blocking(move || sender.send(()).unwrap()));
                    receiver.recv().unwrap();
                    drop(gmp::spawn(async move { again.send(()).unwrap() }));
                    receiver.recv().unwrap();
                }
            });
            runtime.block_on(task).unwrap();
        }
    });
}

/// With as few threads as a runtime can have, the one that is lent does not take the pool's only place.
#[test]
fn r17_a_lent_thread_leaves_the_pool_a_place() {
    limited(|| {
        for max_threads in 3..8 {
            let runtime = Builder::new().max_blocking(512).procs(1).max_threads(max_threads).build().unwrap();
            let tasks: Vec<_> = (0..3)
                .map(|_| {
                    runtime.spawn(async {
                        for _ in 0..20 {
                            gmp::spawn_blocking(|| ()).await.unwrap();
                            let (sender, receiver) = channel();
                            drop(gmp::spawn_blocking(move || sender.send(()).unwrap()));
                            receiver.recv().unwrap();
                        }
                    })
                })
                .collect();
            for task in tasks {
                runtime.block_on(task).unwrap();
            }
        }
    });
}

/// Nor the one that a closure is to have which it calls, while all the others are in closures that do not end.
#[test]
fn r17_a_lent_thread_leaves_the_pool_a_place_beside_long_closures() {
    limited(|| {
        for max_threads in 4..7 {
            // With one thread left for the others, and more.
            for long in 1..max_threads - 2 {
                let runtime = Builder::new().max_blocking(512).procs(1).max_threads(max_threads).build().unwrap();
                let gates: Vec<_> = (0..long)
                    .map(|_| {
                        let (open, gate) = channel::<()>();
                        drop(runtime.spawn_blocking(move || gate.recv()));
                        open
                    })
                    .collect();
                let task = runtime.spawn(async {
                    for _ in 0..3 {
                        call_when_idle().await;
                        assert_eq!(gmp::block_on(gmp::spawn_blocking(|| 7)).unwrap(), 7);
                    }
                });
                runtime.block_on(task).unwrap();
                drop(gates);
            }
        }
    });
}

/// What a lent thread makes ready beside its own task is not left to it alone.
#[test]
fn r03_others_do_not_wait_for_a_lent_thread() {
    limited(|| {
        for procs in [1, 2] {
            let runtime = runtime(procs);
            let task = runtime.spawn(async {
                lend().await;
                let (open, gate) = channel();
                let other = gmp::spawn(async move { open.send(()).unwrap() });
                // Its thread stands still: the other task is rescued, or stolen.
                gate.recv().unwrap();
                other.await.unwrap();
            });
            runtime.block_on(task).unwrap();
            while runtime.metrics().stuck_threads > 0 {
                thread::yield_now();
            }
        }
    });
}

/// Nor is the task itself, where its poll was rescued from and yields at the end of its slice: the thread looks at no
/// queue afterwards, and `sysmon` may sleep by then.
#[test]
fn r01_a_task_that_yields_on_a_lent_thread_goes_on() {
    limited(|| {
        let runtime = Builder::new().max_blocking(512).procs(1).thread_name("yields").build().unwrap();
        let task = runtime.spawn(async {
            lend().await;
            let (open, gate) = channel();
            drop(gmp::spawn(async move { open.send(()).unwrap() }));
            gate.recv().unwrap();
            let handle = gmp::runtime::Handle::current();
            wait_until_unwatched("yields", || handle.metrics());
            while gmp::task::coop::has_budget_remaining() {
                gmp::task::coop::consume_budget().await;
            }
            gmp::task::yield_now().await;
        });
        runtime.block_on(task).unwrap();
    });
}

/// Two tasks that wake each other do not keep the thread for ever: the pool has it back.
#[test]
fn r16_a_lent_thread_comes_back() {
    limited(|| {
        let runtime = runtime(1);
        let (stop, stopped) = gmp::chan::bounded::<()>(1);
        let busy = runtime.spawn(async move {
            let lent = lend().await;
            let mut elsewhere = false;
            while stopped.try_recv().is_err() {
                elsewhere |= thread::current().id() != lent;
                gmp::task::yield_now().await;
            }
            elsewhere
        });
        while runtime.metrics().blocking_lent == 0 || runtime.metrics().blocking_idle_threads == 0 {
            thread::yield_now();
        }
        runtime.block_on(stop.send(())).unwrap();
        assert!(runtime.block_on(busy).unwrap());
    });
}

#[test]
fn r14_a_runtime_that_ends_in_a_task_on_a_lent_thread() {
    limited(|| {
        for procs in [1, 2] {
            let drops = Drops::default();
            let runtime = runtime(procs);
            let handle = runtime.handle();
            let (guard, closure) = (drops.guard(), drops.guard());
            let (done, is_done) = channel();
            drop(handle.spawn(async move {
                let _guard = guard;
                lend().await;
                // This one is kept, and never starts.
                drop(gmp::spawn_blocking(move || drop(closure)));
                drop(runtime);
                done.send(()).unwrap();
                std::future::pending::<()>().await;
            }));
            is_done.recv().unwrap();
            while drops.count() < 2 {
                thread::yield_now();
            }
        }
    });
}

#[test]
fn r14_shutdown_waits_for_a_lent_thread_in_its_poll() {
    limited(|| {
        for procs in [1, 2] {
            // Machines and idle threads of the pool may be on their way to their end. The lent thread counts once.
            while shut_down_in_a_lent_poll(procs) > 1 {}
        }
    });
}

/// The time for that is over in the poll. Gives how many threads are left.
fn shut_down_in_a_lent_poll(procs: usize) -> usize {
    let runtime = runtime(procs);
    let polls = Arc::new(AtomicUsize::new(0));
    let (in_poll, is_in_poll) = channel();
    let (open, gate) = channel::<()>();
    let seen = polls.clone();
    drop(runtime.spawn(async move {
        lend().await;
        in_poll.send(()).unwrap();
        let _ = gate.recv();
        seen.fetch_add(1, Ordering::SeqCst);
        gmp::task::yield_now().await;
        seen.fetch_add(1, Ordering::SeqCst);
    }));
    is_in_poll.recv().unwrap();
    let left = runtime.shutdown_timeout(Duration::from_millis(5)).unwrap_err();
    // The closure is over.
    assert_eq!((left.tasks, left.blocking), (1, 0), "{left}");
    assert!(left.threads >= 1, "{left}");
    assert_eq!(polls.load(Ordering::SeqCst), 0);
    drop(open);
    left.threads
}

/// A paused clock moves on when the last to stop work is a lent thread whose place was taken while its poll was stuck.
#[test]
fn r07_a_paused_clock_goes_on_when_a_lent_thread_ends() {
    limited(|| {
        let runtime = Builder::new().max_blocking(512).procs(1).max_threads(4).start_paused(true).build().unwrap();
        let (open, gate) = channel::<()>();
        let (slept, has_slept) = channel();
        drop(runtime.spawn(async move {
            while call_when_idle().await != thread::current().id() {}
            drop(gmp::spawn(async move {
                gmp::time::sleep(Duration::from_secs(1)).await;
                slept.send(()).unwrap();
            }));
            let _ = gate.recv();
        }));
        while runtime.metrics().stuck_threads == 0 {
            thread::yield_now();
        }
        // With another processor there are two threads too many for that one to come back.
        runtime.block_on(runtime.spawn_blocking(|| ())).unwrap();
        runtime.set_procs(2).unwrap();
        while runtime.metrics().blocking_idle_threads == 0 || runtime.metrics().idle_procs < 2 {
            thread::yield_now();
        }
        drop(open);
        has_slept.recv().unwrap();
    });
}

/// A clock that stands moves on while a task makes calls and sleeps, and never before a call has ended.
#[test]
fn r07_a_paused_clock_waits_for_calls_on_a_lent_thread() {
    limited(|| {
        let runtime = Builder::new().max_blocking(512).procs(1).start_paused(true).build().unwrap();
        let task = runtime.spawn(async {
            for _ in 0..50 {
                let begun = gmp::time::Instant::now();
                let slept = gmp::spawn(gmp::time::sleep(Duration::from_secs(1)));
                for _ in 0..3 {
                    gmp::spawn_blocking(thread::yield_now).await.unwrap();
                    assert_eq!(begun.elapsed(), Duration::ZERO);
                }
                slept.await.unwrap();
                assert_eq!(begun.elapsed(), Duration::from_secs(1));
            }
        });
        runtime.block_on(task).unwrap();
    });
}
