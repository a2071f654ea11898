//! What must not take a lock, counted: only debug builds count locks. What is to happen while `sysmon` sleeps deeply.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::{Builder, FORKED, Handle, Runtime, block_in_place, block_on, spawn};
use crate::cpus::tests::Tree;
use crate::sys::{slow_steps, spin_loop};
use crate::sysmon::REFRESH_WOKEN_NS;
use crate::task::yield_now;
use crate::{clock, context};

fn runtime(procs: usize) -> Runtime {
    Builder::new().procs(procs).on_stuck(|_| ()).build().unwrap()
}

#[test]
fn r03_a_short_blocking_call_takes_no_lock_and_touches_no_futex() {
    // One processor for the task, one for the thread that waits for it: nobody wants what is in a call.
    let runtime = runtime(2);
    let task = runtime.spawn(async {
        let before = slow_steps();
        for _ in 0..1_000_000 {
            block_in_place(|| ());
        }
        slow_steps() - before
    });
    assert_eq!(runtime.block_on(task).unwrap(), 0);
    assert_eq!(runtime.metrics().retakes, 0);
}

/// What is counted above does count: the end of a call whose processor was taken wants one.
#[test]
fn r03_a_long_blocking_call_takes_locks() {
    let runtime = runtime(1);
    let task = runtime.spawn(async {
        let before = slow_steps();
        block_in_place(|| {
            let (done, is_done) = channel();
            drop(spawn(async move { done.send(()).unwrap() }));
            is_done.recv().unwrap();
        });
        slow_steps() - before
    });
    assert!(runtime.block_on(task).unwrap() > 0);
    assert_eq!(runtime.metrics().retakes, 1);
}

/// Machines came for nothing, and then the tasks are long: by the number of picks the next look is far away, and no two
/// looks of `sysmon` see the same poll.
#[test]
fn r03_sysmon_sees_tasks_behind_long_picks() {
    const TASKS: u32 = 40;
    let runtime = runtime(2);
    let round = || async {
        let p = context::processor().unwrap();
        let now = clock::now();
        // Looks one after the other: the next one comes after more picks than there are tasks.
        for _ in 0..12 {
            p.raise_backoff();
            p.looked(now, now);
        }
        assert!(p.look_every() > TASKS as usize);
        let compute = || async {
            let began = clock::now();
            while clock::now() - began < 1_000_000 {
                spin_loop();
            }
        };
        let tasks: Vec<_> = (0..TASKS).map(|_| spawn(compute())).collect();
        for task in tasks {
            task.await.unwrap();
        }
    };
    // The system may keep the second thread for as long as a round takes.
    let is_helped = (0..200).any(|_| {
        runtime.block_on(runtime.spawn(round())).unwrap();
        runtime.metrics().stolen > 0
    });
    assert!(is_helped, "tasks wait beside an idle processor");
}

/// Forks; the child has half a minute.
fn fork() -> libc::pid_t {
    // SAFETY: the child runs only this thread and ends by `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: an alarm ends a child that hangs; it touches no memory.
        unsafe { libc::alarm(30) };
    }
    assert!(pid >= 0, "no child process");
    pid
}

/// The status with which a child ends, which is 0 if all was well.
fn ended_with(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is there to be written.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status), "the child hung");
    libc::WEXITSTATUS(status)
}

/// In a forked child a lock that another thread of the parent held at the fork is never let go: what says that a
/// runtime is the parent's must not come to one.
#[test]
fn r24_use_in_a_forked_child_is_refused_before_any_lock_is_taken() {
    let runtime = runtime(1);
    runtime.block_on(async {});
    let panics = |misuse: &mut dyn FnMut()| catch_unwind(AssertUnwindSafe(misuse)).is_err();
    // The message would go to the lock of standard error.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let pid = fork();
    if pid == 0 {
        let before = slow_steps();
        let entered = runtime.enter();
        let refused = panics(&mut || drop(runtime.spawn(async {})))
            && panics(&mut || drop(runtime.spawn_blocking(|| ())))
            && panics(&mut || drop(runtime.spawn_pinned(|| async {})))
            && panics(&mut || runtime.block_on(async {}))
            && panics(&mut || drop(spawn(async {})))
            && panics(&mut || block_on(async {}))
            && Handle::try_current().is_err_and(|e| e.to_string().contains(FORKED));
        drop(entered);
        drop(runtime);
        let status = if !refused { 1 } else { i32::from(slow_steps() != before) * 2 };
        // SAFETY: no memory is touched.
        unsafe { libc::_exit(status) };
    }
    std::panic::set_hook(hook);
    assert_eq!(ended_with(pid), 0, "1: something was not refused; 2: a lock was taken");
}

#[test]
fn r24_what_a_forked_child_wakes_or_comes_out_of_is_left_alone_before_any_lock_is_taken() {
    let runtime = Builder::new().procs(1).max_blocking(1).build().unwrap();
    let waiting = runtime.spawn(std::future::pending::<()>());
    let (end, ends) = std::sync::mpsc::channel::<()>();
    let running = runtime.spawn_blocking(move || ends.recv().unwrap());
    let queued = runtime.spawn_blocking(|| ());
    let (pid, before) = runtime.block_on(async { (fork(), slow_steps()) });
    if pid == 0 {
        waiting.abort();
        queued.abort();
        // SAFETY: no memory is touched.
        unsafe { libc::_exit(i32::from(slow_steps() != before)) };
    }
    assert_eq!(ended_with(pid), 0, "a lock was taken");
    end.send(()).unwrap();
    runtime.block_on(running).unwrap();
    runtime.block_on(queued).unwrap();
}

#[test]
fn r05_a_quota_that_changed_in_deep_sleep_is_seen_afterwards() {
    let tree = Tree::new("sleep");
    tree.quota("300000 100000");
    let runtime = Builder::new().cpus_under(&tree.0, 8).build().unwrap();
    // By hand, by way of the environment.
    if runtime.runtime.sched.cpus_are_unknown() {
        eprintln!("!!!! SKIPPED: GMP_PROCS is set");
        return;
    }
    let idle = &runtime.runtime.sched.idle;
    runtime.block_on(runtime.spawn(async {})).unwrap();
    // It may have been woken a moment ago, and does not look at the quota again so soon.
    let mut seen = (runtime.metrics().procs_refreshes, clock::now());
    while !idle.is_sysmon_asleep() || clock::now() - seen.1 < REFRESH_WOKEN_NS {
        std::thread::yield_now();
        let refreshes = runtime.metrics().procs_refreshes;
        if refreshes != seen.0 {
            seen = (refreshes, clock::now());
        }
    }
    tree.quota("600000 100000");
    let before = runtime.metrics();
    // A task that goes on until it has come: one that is over sooner does not wake it.
    let (stop, is_over) = (Arc::new(AtomicBool::new(false)), Instant::now() + Duration::from_secs(30));
    drop(runtime.spawn({
        let stop = stop.clone();
        async move {
            while !stop.load(Relaxed) {
                yield_now().await;
            }
        }
    }));
    // It looks at the quota before it looks around, although a second is not over.
    while runtime.metrics().sysmon_looks == before.sysmon_looks && Instant::now() < is_over {
        std::thread::yield_now();
    }
    stop.store(true, Relaxed);
    assert_eq!(runtime.procs(), 6);
    assert!(runtime.metrics().procs_refreshes > before.procs_refreshes);
}

/// Although machines have come there for nothing.
#[test]
fn r01_the_tasks_behind_a_long_poll_of_a_spared_processor_are_run_by_others() {
    const TASKS: usize = 4;
    let runtime = Builder::new().procs(2).rescue(None).build().unwrap();
    let ran = runtime.spawn(async {
        let p = crate::context::processor().expect("a task runs on one");
        (0..12).for_each(|_| p.raise_backoff());
        let (done, is_done) = std::sync::mpsc::channel();
        for _ in 0..TASKS {
            let done = done.clone();
            drop(spawn(async move { done.send(()).unwrap() }));
        }
        for _ in 0..TASKS {
            is_done.recv_timeout(std::time::Duration::from_secs(30)).expect("nobody ran a task behind this poll");
        }
    });
    runtime.block_on(ran).unwrap();
}
