//! A fork on a thread of the runtime. The child's only thread is a copy of that one, in the middle of what it did; what
//! is queued, what waits and what was going on elsewhere are the parent's.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake};
use std::time::Duration;

use gmp::runtime::{Builder, Handle, Runtime};
use gmp::task::{JoinHandle, block_in_place, yield_now};

use fork::{Child, exit, fork, in_child, settle};

#[path = "support/fork.rs"]
mod fork;

const HOUR: Duration = Duration::from_secs(3600);

/// What a child that goes on where the parent's runtime would is told.
const MESSAGE: &str = "a child of a fork";

/// None of its threads starts or ends but for what the test does.
fn runtime() -> Runtime {
    let runtime = Builder::new().procs(1).rescue(None).build().unwrap();
    settle(&runtime);
    runtime
}

/// Runs a task on a runtime of its own. Others are queued behind it, which the child leaves alone.
fn in_task<F: Future<Output = ()> + Send + 'static>(task: F) {
    let runtime = runtime();
    let task = async move {
        let queued = Queued::new();
        task.await;
        queued.run().await;
    };
    runtime.block_on(runtime.spawn(task)).unwrap();
}

fn in_blocking_closure(closure: fn()) {
    let runtime = runtime();
    runtime.block_on(runtime.spawn_blocking(closure)).unwrap();
}

fn in_pinned_task<F: Future<Output = ()> + 'static>(task: fn() -> F) {
    let runtime = runtime();
    runtime.block_on(runtime.spawn_pinned(task)).unwrap();
}

/// Tasks that are queued on this thread's processor, if it has one, and end a child in which they run.
struct Queued(Vec<JoinHandle<()>>);

impl Queued {
    fn new() -> Self {
        let parent = std::process::id();
        let run = move || {
            if std::process::id() != parent {
                exit(42);
            }
        };
        Queued((0..3).map(|_| gmp::spawn(async move { run() })).collect())
    }

    async fn run(self) {
        for task in self.0 {
            task.await.unwrap();
        }
    }
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// The child does what it can do anywhere.
fn builds_its_own() {
    assert_eq!(threads(), 1);
    let own = Builder::new().procs(1).build().unwrap();
    assert_eq!(own.block_on(own.spawn(async { 7 })).unwrap(), 7);
    own.block_on(own.spawn_blocking(|| ())).unwrap();
    own.block_on(own.spawn_pinned(|| async { gmp::time::sleep(Duration::from_millis(1)).await })).unwrap();
    drop(own);
    assert_eq!(threads(), 1, "a thread was started for the parent's runtime");
}

fn a_child_builds_its_own_runtime_wherever_it_was_forked() {
    in_task(async { in_child(builds_its_own) });
    in_task(async { block_in_place(|| in_child(builds_its_own)) });
    in_task(async { Handle::current().block_on(async { in_child(builds_its_own) }) });
    // In the poll around the `block_on`, too.
    in_task(async {
        let other = runtime();
        match other.block_on(async { fork() }) {
            Some(child) => child.ends_well(),
            None => {
                builds_its_own();
                exit(0);
            }
        }
    });
    in_blocking_closure(|| in_child(builds_its_own));
    in_pinned_task(|| async { in_child(builds_its_own) });
    runtime().block_on(async { in_child(builds_its_own) });
}

/// The runtime is to end the child, with a message.
fn is_ended(child: Child) {
    let (status, said) = child.ended();
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGABRT, "{status:#x}; it said: {said}");
    assert!(said.contains(MESSAGE), "{said}");
}

/// What it would come to is the parent's.
fn a_child_that_goes_on_is_ended() {
    /// In the parent there is nothing to wait for.
    async fn waits(child: Option<Child>) {
        match child {
            Some(child) => is_ended(child),
            None => std::future::pending().await,
        }
    }
    in_task(async { waits(fork()).await });
    // The thread of the closure goes on with the task.
    in_task(async {
        gmp::spawn_blocking(|| ()).await.unwrap();
        waits(fork()).await;
    });
    in_task(async {
        match fork() {
            Some(child) => is_ended(child),
            None => yield_now().await,
        }
    });
    // The processor stays the parent's when the call is over.
    in_task(async { waits(block_in_place(fork)).await });
    in_task(async { waits(Handle::current().block_on(async { fork() })).await });
    in_task(async {
        let other = runtime();
        let child = other.block_on(async { fork() });
        waits(child).await;
    });
    in_pinned_task(|| async { waits(fork()).await });
    /// In the child the task or the closure ends.
    fn ends() {
        if let Some(child) = fork() {
            is_ended(child);
        }
    }
    let runtime = runtime();
    runtime.block_on(runtime.spawn(async { ends() })).unwrap();
    in_blocking_closure(ends);
    in_pinned_task(|| async { ends() });
}

/// Outside a task the child is on a thread of its own, and has what is an error anywhere.
fn a_block_on_in_the_child_is_an_error_when_it_would_wait() {
    let runtime = runtime();
    let waits = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            match fork() {
                Some(child) => child.ends_well(),
                None => {
                    // To yield is no wait.
                    yield_now().await;
                    std::future::pending().await
                }
            }
        });
    }));
    if let Err(panic) = waits {
        let said = panic.downcast_ref::<String>().is_some_and(|said| said.contains("belongs to the parent process"));
        exit(i32::from(!said));
    }
    match runtime.block_on(async { fork() }) {
        Some(child) => child.ends_well(),
        None => {
            builds_its_own();
            exit(0);
        }
    }
}

/// A task that is in a poll until what comes with it is dropped.
fn in_a_poll(runtime: &Runtime) -> (JoinHandle<()>, Sender<()>) {
    let (go_on, goes_on) = channel::<()>();
    let (polls, is_polling) = channel();
    let polling = runtime.spawn(async move {
        polls.send(()).unwrap();
        goes_on.recv().unwrap_err();
    });
    is_polling.recv().unwrap();
    (polling, go_on)
}

/// The processor that the thread left for the call stays the parent's, with what is queued there, also where the thread
/// is in another runtime by then.
fn a_fork_in_a_blocking_call_inside_of_two_runtimes() {
    let (runtime, other) = (Builder::new().procs(2).rescue(None).build().unwrap(), self::runtime());
    settle(&runtime);
    // Its only machine is in a poll: work beside an idle processor would start another one.
    let (polling, go_on) = in_a_poll(&runtime);
    let parent = std::process::id();
    let waits = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let queued = Queued::new();
            let entered = other.enter();
            let child = block_in_place(fork);
            drop(entered);
            match child {
                Some(child) => child.ends_well(),
                None => std::future::pending().await,
            }
            queued.run().await;
        });
    }));
    if std::process::id() != parent {
        exit(i32::from(waits.is_ok() || threads() != 1));
    }
    drop(go_on);
    runtime.block_on(polling).unwrap();
}

/// A waker that forks.
struct Forks(Mutex<Option<Sender<Child>>>);

impl Wake for Forks {
    fn wake(self: Arc<Self>) {
        let Some(forked) = self.0.lock().unwrap().take() else { return };
        if let Some(child) = fork() {
            forked.send(child).unwrap();
        }
    }
}

/// What its machine would come to next is the parent's.
fn a_child_that_is_forked_in_a_waker_is_ended() {
    let runtime = Builder::new().procs(1).rescue(None).start_paused(true).build().unwrap();
    settle(&runtime);
    let (forked, has_forked) = channel();
    let entered = runtime.enter();
    let waker = Arc::new(Forks(Mutex::new(Some(forked)))).into();
    let mut sleep = Box::pin(gmp::time::sleep(HOUR));
    assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    // They are queued when it is due.
    let parent = std::process::id();
    let end = Arc::new(AtomicBool::new(false));
    let yields = |end: Arc<AtomicBool>| async move {
        while !end.load(Relaxed) {
            if std::process::id() != parent {
                exit(42);
            }
            yield_now().await;
        }
    };
    let tasks: Vec<_> = (0..3).map(|_| gmp::spawn(yields(end.clone()))).collect();
    runtime.block_on(runtime.spawn(gmp::time::advance(HOUR))).unwrap();
    is_ended(has_forked.recv().unwrap());
    end.store(true, Relaxed);
    tasks.into_iter().for_each(|task| runtime.block_on(task).unwrap());
    drop(entered);
}

/// Nobody is there to run it.
fn a_task_of_the_parents_that_is_woken_in_the_child_runs_in_the_parent_alone() {
    // Its only machine is in a poll, beside a processor that is idle: who wakes a task starts another one.
    let runtime = Builder::new().procs(2).rescue(None).build().unwrap();
    settle(&runtime);
    let parent = std::process::id();
    let (send, receive) = gmp::chan::bounded::<()>(1);
    let (waits, is_waiting) = channel();
    let waiting = runtime.spawn(async move {
        let mut receive = std::pin::pin!(receive.recv());
        std::future::poll_fn(|cx| {
            let received = receive.as_mut().poll(cx);
            waits.send(()).unwrap();
            received
        })
        .await
        .unwrap_err();
        if std::process::id() != parent {
            exit(42);
        }
    });
    is_waiting.recv().unwrap();
    let aborted = runtime.spawn(std::future::pending::<()>());
    let (polling, go_on) = in_a_poll(&runtime);
    let mut send = Some(send);
    in_child(|| {
        drop(send.take());
        aborted.abort();
        assert_eq!(threads(), 1, "a thread was started for the parent's runtime");
    });
    drop((send, go_on));
    runtime.block_on(polling).unwrap();
    runtime.block_on(waiting).unwrap();
}

/// One test, as in `fork.rs`.
#[test]
fn r24_a_fork_on_a_thread_of_the_runtime() {
    // SAFETY: it ends this process if a parent hangs; no memory is touched.
    unsafe { libc::alarm(120) };
    a_child_builds_its_own_runtime_wherever_it_was_forked();
    a_child_that_goes_on_is_ended();
    a_block_on_in_the_child_is_an_error_when_it_would_wait();
    a_task_of_the_parents_that_is_woken_in_the_child_runs_in_the_parent_alone();
    a_fork_in_a_blocking_call_inside_of_two_runtimes();
    a_child_that_is_forked_in_a_waker_is_ended();
}
