//! Threads that stand still with the lock of standard error, on which `sysmon` tells of what it sees. A process of its
//! own: others print too.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use gmp::Builder;
use gmp::runtime::Runtime;

/// As `limited`, but it takes no lock to say so.
fn limited<R>(test: impl FnOnce() -> R) -> R {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let (alive, over) = channel::<()>();
    thread::spawn(move || {
        if over.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
            let text = format!("{name} hangs\n");
            // SAFETY: the text is there.
            unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
            std::process::abort();
        }
    });
    let result = test();
    drop(alive);
    result
}

fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        thread::yield_now();
    }
}

fn runs(runtime: &Runtime) {
    let task = runtime.spawn(async {});
    until(|| task.is_finished());
}

#[test]
fn r03_a_poll_that_is_stuck_with_the_lock_of_stderr_does_not_stop_the_watcher() {
    limited(|| {
        let runtime = Builder::new().procs(1).build().unwrap();
        let (end, ended) = channel::<()>();
        let (begin, began) = channel::<()>();
        let locks = runtime.spawn(async move {
            let _lock = std::io::stderr().lock();
            begin.send(()).unwrap();
            ended.recv().unwrap();
        });
        began.recv().unwrap();
        // It is rescued, and told of.
        runs(&runtime);
        let (open, opened) = channel::<()>();
        let (begin, began) = channel::<()>();
        let waits = runtime.spawn(async move {
            begin.send(()).unwrap();
            opened.recv().unwrap();
        });
        began.recv().unwrap();
        let opens = runtime.spawn(async move { open.send(()).unwrap() });
        until(|| opens.is_finished() && waits.is_finished());
        end.send(()).unwrap();
        until(|| locks.is_finished());
    });
}

/// A report of a deadlock that nobody but standard error can be told.
#[test]
fn r24_a_report_of_a_deadlock_waits_for_no_lock() {
    limited(|| {
        let soon = |procs| {
            let builder = Builder::new().procs(procs).on_stuck(|_| ()).detect_deadlocks(true);
            builder.deadlock_after(Duration::from_millis(50)).build().unwrap()
        };
        let runtime = soon(1);
        let _lock = std::io::stderr().lock();
        let (send, receive) = futures::channel::oneshot::channel::<()>();
        let waits = runtime.spawn(receive);
        // Two others are told meanwhile, one after the other.
        for _ in 0..2 {
            let (_send, receive) = futures::channel::oneshot::channel::<()>();
            let other = soon(1);
            assert!(catch_unwind(AssertUnwindSafe(|| other.block_on(receive))).is_err());
        }
        // The watcher goes on.
        let (open, opened) = channel::<()>();
        let (begin, began) = channel::<()>();
        let blocks = runtime.spawn(async move {
            begin.send(()).unwrap();
            opened.recv().unwrap();
        });
        began.recv().unwrap();
        let opens = runtime.spawn(async move { open.send(()).unwrap() });
        until(|| opens.is_finished() && blocks.is_finished());
        send.send(()).unwrap();
        until(|| waits.is_finished());
    });
}
