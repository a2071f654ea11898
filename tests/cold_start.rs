//! The first task of a runtime, which runs before the watcher is there.

use std::pin::pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};

use gmp::runtime::{Builder, Runtime};

use limit::limited;

#[path = "support/limit.rs"]
mod limit;

fn runtime(procs: usize) -> Runtime {
    Builder::new().procs(procs).build().unwrap()
}

/// Each of these hangs if nobody starts the watcher.
fn check(f: impl Fn(&Runtime)) {
    for procs in [1, 2] {
        f(&runtime(procs));
    }
}

#[test]
fn r02_a_first_task_that_blocks_delays_no_other() {
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
fn r02_a_first_poll_that_blocks_delays_no_task() {
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
fn r02_a_first_task_and_who_it_wakes_may_both_block() {
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

/// It is no poll that blocks, and the task has ended. The thread in `block_on` waits for another task meanwhile, or is woken by
/// that waker and blocks too.
#[test]
fn r03_a_first_task_whose_joiner_blocks_when_woken_delays_no_other() {
    for wakes_root in [false, true].repeat(10) {
        limited(|| {
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
        });
    }
}

/// Also from a thread that is in no `block_on`, and with a hook, which may block too.
#[test]
fn r02_a_first_task_from_outside_that_blocks_delays_no_other() {
    let (hook_may_end, hook) = mpsc::channel();
    let hook = std::sync::Mutex::new(Some(hook));
    let runtime = Builder::new()
        .procs(1)
        .on_thread_start(move || {
            // The first machine's waits for a task, which another machine runs.
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
    runtime.block_on(async {
        first.await.unwrap();
        other.await.unwrap();
    });
}

/// What a cold start waits for: the machine that is on its way when the task is spawned. Of several starts, as the machine may
/// be faster than who spawned.
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
