//! The first task of a runtime, which runs before the watcher is there.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};

use gmp::runtime::{Builder, Runtime};

use limit::limited;

#[path = "support/limit.rs"]
mod limit;

fn runtime(procs: usize) -> Runtime {
    Builder::new().procs(procs).build().unwrap()
}

/// Each of these hangs if nobody starts the watcher, be the runtime new or stood by for so long that it has one.
fn check(f: impl Fn(&Runtime)) {
    limited(|| {
        for procs in [1, 2] {
            f(&runtime(procs));
            let late = runtime(procs);
            wait_for_watcher(&late);
            f(&late);
        }
    });
}

/// The first machine starts it when it has stood by for a millisecond.
fn wait_for_watcher(runtime: &Runtime) {
    while runtime.metrics().sysmon_looks == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn r03_a_first_task_that_blocks_delays_no_other() {
    check(|runtime| {
        let (send, wait) = mpsc::channel();
        runtime.block_on(async {
            let other = gmp::spawn(async move { send.send(()).unwrap() });
            // It goes into the run-next slot: with one processor it is the first that runs.
            let first = gmp::spawn(async move { wait.recv().unwrap() });
            first.await.unwrap();
            other.await.unwrap();
        });
    });
}

#[test]
fn r03_a_first_poll_that_blocks_delays_no_task() {
    check(|runtime| {
        let (send, wait) = mpsc::channel();
        runtime.block_on(async {
            let task = gmp::spawn(async move { send.send(()).unwrap() });
            wait.recv().unwrap();
            task.await.unwrap();
        });
    });
}

/// The thread that looked out while the first task runs is woken by it and does not come back, nor does the task.
#[test]
fn r03_a_first_task_and_who_it_wakes_may_both_block() {
    check(|runtime| {
        let (ready, woken) = gmp::chan::bounded(1);
        let (send_to_task, task_waits) = mpsc::channel();
        let (send_to_root, root_waits) = mpsc::channel();
        runtime.block_on(async {
            let other = gmp::spawn(async move {
                send_to_task.send(()).unwrap();
                send_to_root.send(()).unwrap();
            });
            let first = gmp::spawn(async move {
                ready.send(()).await.unwrap();
                task_waits.recv().unwrap();
            });
            woken.recv().await.unwrap();
            root_waits.recv().unwrap();
            first.await.unwrap();
            other.await.unwrap();
        });
    });
}

/// A waker that wakes another one, if there is one, and then blocks.
struct Blocks {
    other: Mutex<Option<Waker>>,
    until: Mutex<mpsc::Receiver<()>>,
}

impl Wake for Blocks {
    fn wake(self: Arc<Self>) {
        let other = self.other.lock().unwrap().take();
        other.into_iter().for_each(Waker::wake);
        let _ = self.until.lock().unwrap().recv();
    }
}

/// It is no poll that blocks, and the task has ended. The thread in `block_on` waits for another task meanwhile, or is
/// woken by that waker and blocks too.
#[test]
fn r03_a_first_task_whose_joiner_blocks_when_woken_delays_no_other() {
    for wakes_root in [false, true].repeat(10) {
        check(|runtime| {
            let (send, until) = mpsc::channel();
            let mut until = Some(until);
            let (send_to_root, root_waits) = mpsc::channel();
            runtime.block_on(async {
                let other = gmp::spawn(async move {
                    // Nobody waits if the task ended before it was joined.
                    let _ = send.send(());
                    send_to_root.send(()).unwrap();
                });
                let mut first = pin!(gmp::spawn(async {}));
                let mut is_polled = false;
                std::future::poll_fn(|cx| {
                    if std::mem::replace(&mut is_polled, true) {
                        return Poll::Ready(());
                    }
                    // What wakes it is the waker below.
                    let other = wakes_root.then(|| cx.waker().clone());
                    let blocks = Blocks { other: Mutex::new(other), until: Mutex::new(until.take().unwrap()) };
                    let waker = Waker::from(Arc::new(blocks));
                    let joined = first.as_mut().poll(&mut Context::from_waker(&waker));
                    if wakes_root && joined.is_pending() { Poll::Pending } else { Poll::Ready(()) }
                })
                .await;
                if wakes_root {
                    root_waits.recv().unwrap();
                }
                other.await.unwrap();
            });
        });
    }
}

/// Nobody is in a `block_on`, so that nobody looks out.
#[test]
fn r03_a_first_task_from_outside_that_blocks_delays_no_other() {
    check(|runtime| {
        let (send, wait) = mpsc::channel();
        let first = runtime.spawn(async move { wait.recv().unwrap() });
        let other = runtime.spawn(async move { send.send(()).unwrap() });
        while !(first.is_finished() && other.is_finished()) {
            std::thread::yield_now();
        }
    });
}

/// Two threads wait, of which one at most looks out. Each one's task needs the other's, so that one of the tasks
/// blocks.
#[test]
fn r03_a_first_task_that_blocks_delays_no_other_block_on() {
    check(|runtime| {
        let (to_one, one_waits) = mpsc::channel();
        let (to_other, other_waits) = mpsc::channel();
        std::thread::scope(|scope| {
            for (send, wait) in [(to_other, one_waits), (to_one, other_waits)] {
                scope.spawn(move || {
                    let task = runtime.spawn(async move {
                        send.send(()).unwrap();
                        wait.recv().unwrap();
                    });
                    runtime.block_on(task).unwrap();
                });
            }
        });
    });
}

/// The hook of the first machine's thread waits for a task, which another machine runs.
#[test]
fn r03_the_first_hook_may_wait_for_a_task() {
    limited(|| {
        let (hook_may_end, hook) = mpsc::channel();
        let hook = std::sync::Mutex::new(Some(hook));
        let runtime = Builder::new()
            .procs(1)
            .on_thread_start(move || {
                let wait: Option<mpsc::Receiver<()>> = hook.lock().unwrap().take();
                if let Some(wait) = wait {
                    wait.recv().unwrap();
                }
            })
            .build()
            .unwrap();
        let (send, wait) = mpsc::channel();
        let first = runtime.spawn(async move { wait.recv().unwrap() });
        let other = runtime.spawn(async move {
            hook_may_end.send(()).unwrap();
            send.send(()).unwrap();
        });
        while !(first.is_finished() && other.is_finished()) {
            std::thread::yield_now();
        }
    });
}

/// Else one that waits for a task would keep the end of such a runtime for ever.
#[test]
fn r14_a_runtime_that_is_never_used_runs_no_hook() {
    limited(|| {
        for waits in [false, true] {
            let hooks = Arc::new(AtomicUsize::new(0));
            let count = |hooks: &Arc<AtomicUsize>| {
                let hooks = hooks.clone();
                move || {
                    hooks.fetch_add(1, Relaxed);
                }
            };
            let builder = Builder::new().procs(1).on_thread_start(count(&hooks)).on_thread_stop(count(&hooks));
            let runtime = builder.build().unwrap();
            if waits {
                wait_for_watcher(&runtime);
            }
            drop(runtime);
            assert_eq!(hooks.load(Relaxed), 0);
        }
    });
}

/// What a cold start waits for: the machine that is on its way when the task is spawned. Of several starts, as the
/// machine may be faster than who spawned.
#[test]
fn a_first_task_needs_one_thread() {
    for procs in [1, 2, 4] {
        let threads = (0..50).map(|_| {
            let runtime = runtime(procs);
            runtime.block_on(async { gmp::spawn(async {}).await.unwrap() });
            runtime.metrics().threads
        });
        assert_eq!(threads.min(), Some(1), "with {procs} processors");
    }
}
