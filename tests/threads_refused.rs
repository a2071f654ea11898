//! The system refuses threads: nothing is lost. One test, as the limit holds for the whole process.
#![cfg(target_os = "linux")]

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;

use limit::limited;

#[path = "support/limit.rs"]
mod limit;

/// The stack of a thread of the runtime: address space, not memory.
const STACK: usize = 1 << 30;

/// Limits the address space of this process; `None` is no limit.
fn limit_memory(bytes: Option<usize>) {
    let now = bytes.map_or(libc::RLIM_INFINITY, |bytes| bytes as libc::rlim_t);
    let limit = libc::rlimit { rlim_cur: now, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the limit is a value on the stack.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0, "{}", std::io::Error::last_os_error());
}

/// The address space that is in use, in bytes.
fn used() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').next().unwrap().parse::<usize>().unwrap() * 4096
}

/// A runtime without a thread, and from here on none is to be had.
fn alone(builder: gmp::Builder) -> gmp::Runtime {
    limit_memory(Some(used() + STACK / 2));
    let runtime = builder.build().unwrap();
    assert_eq!(runtime.metrics().threads, 0, "the first machine was refused");
    runtime
}

/// A runtime whose watcher is there before the lack, and no machine.
fn watched(builder: gmp::Builder) -> gmp::Runtime {
    let runtime = alone(builder);
    limit_memory(None);
    runtime.block_on(async {});
    assert_eq!(runtime.metrics().threads, 0, "the next one is not needed");
    runtime
}

/// What is written to standard error meanwhile.
fn said(f: impl FnOnce()) -> String {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    // SAFETY: fds, and no memory.
    let before = unsafe { libc::dup(libc::STDERR_FILENO) };
    assert!(before >= 0);
    // SAFETY: as above.
    unsafe { libc::dup2(theirs.as_raw_fd(), libc::STDERR_FILENO) };
    drop(theirs);
    f();
    // SAFETY: as above.
    unsafe { libc::dup2(before, libc::STDERR_FILENO) };
    // SAFETY: it is not used again.
    unsafe { libc::close(before) };
    let mut text = String::new();
    ours.read_to_string(&mut text).unwrap();
    text
}

/// One test: the limit is the process's, and so is standard error.
#[test]
fn r11_what_needs_a_thread_waits_while_the_system_refuses_it() {
    first_refusal();
    closures();
    brief_closures();
    pinned_tasks();
}

/// Nobody would else learn why nothing runs.
fn first_refusal() {
    limited(|| {
        let text = said(|| {
            let runtime = alone(gmp::Builder::new().procs(1).thread_stack_size(STACK).thread_name("web"));
            let closure = runtime.spawn_blocking(|| ());
            let refused = runtime.metrics().thread_failures;
            assert!(refused > 1, "{refused}");
            limit_memory(None);
            runtime.block_on(closure).unwrap();
        });
        assert!(text.starts_with("gmp: the system refuses the thread `web-0` with a stack of 1073741824 "), "{text}");
        assert_eq!(text.lines().count(), 1, "once: {text}");
    });
}

fn pinned_tasks() {
    limited(|| {
        let builder = || gmp::Builder::new().procs(1).thread_stack_size(STACK);
        let runtime = watched(builder());
        limit_memory(Some(used() + STACK / 2));
        let (ran, has_run) = channel();
        let spawn = |n| {
            let ran = ran.clone();
            runtime.spawn_pinned(move || {
                ran.send(n).unwrap();
                async move { n }
            })
        };
        let handles: Vec<_> = (0..3).map(spawn).collect();
        // One that nobody waits for, and one that is aborted meanwhile.
        drop(spawn(3));
        let aborted = spawn(4);
        aborted.abort();
        let refused = runtime.metrics().thread_failures;
        assert!(refused >= 5, "{refused}");
        while runtime.metrics().thread_failures < refused + 5 {
            std::thread::yield_now();
        }
        assert!(has_run.try_recv().is_err());
        // Between two tries. The one that was aborted waits for a machine to drop it, which is refused too.
        let counts = || (runtime.metrics().pinned_queue, runtime.metrics().pinned_threads);
        while counts() != (4, 0) {
            std::thread::yield_now();
        }
        limit_memory(None);
        // Not `block_on`: nobody but the watcher is to help.
        while !(handles.iter().all(|handle| handle.is_finished()) && aborted.is_finished()) {
            std::thread::yield_now();
        }
        let mut order: Vec<i32> = has_run.iter().take(4).collect();
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2, 3]);
        assert!(runtime.block_on(aborted).unwrap_err().is_cancelled());
        drop(runtime);
        // No watcher either, nor a machine: whoever waits tries again.
        let runtime = alone(builder());
        let task = runtime.spawn_pinned(|| async { 7 });
        let refused = runtime.metrics().thread_failures;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while runtime.metrics().thread_failures < refused + 5 {
                    std::thread::yield_now();
                }
                limit_memory(None);
            });
            assert_eq!(runtime.block_on(task).unwrap(), 7);
        });
        drop(runtime);
        // A task that never gets a thread does not keep its runtime: its closure is dropped.
        let runtime = builder().build().unwrap();
        limit_memory(Some(used() + STACK / 2));
        let held = std::sync::Arc::new(());
        let guard = held.clone();
        let orphan = runtime.spawn_pinned(move || async move { drop(guard) });
        drop(runtime);
        limit_memory(None);
        assert_eq!(std::sync::Arc::strong_count(&held), 1);
        assert!(gmp::block_on(orphan).unwrap_err().is_cancelled());
    });
}

fn closures() {
    limited(|| {
        let builder = || gmp::Builder::new().procs(1).thread_stack_size(STACK);
        let runtime = watched(builder());
        limit_memory(Some(used() + STACK / 2));
        let (ran, has_run) = channel();
        let handles: Vec<_> = (0..3)
            .map(|n| {
                let ran = ran.clone();
                runtime.spawn_blocking(move || ran.send(n).unwrap())
            })
            .collect();
        assert!(has_run.try_recv().is_err());
        assert_eq!(runtime.metrics().blocking_queue, 3);
        let refused = runtime.metrics().thread_failures;
        assert!(refused >= 3, "{refused}");
        // The watcher tries again, and again.
        while runtime.metrics().thread_failures < refused + 5 {
            std::thread::yield_now();
        }
        assert_eq!(runtime.metrics().blocking_queue, 3);
        limit_memory(None);
        for handle in handles {
            // Not `block_on`: nobody but the watcher is to help.
            while !handle.is_finished() {
                std::thread::yield_now();
            }
        }
        let mut order: Vec<i32> = has_run.try_iter().collect();
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2]);
        drop(runtime);
        // No watcher either, nor a machine: whoever waits tries again.
        let runtime = alone(builder());
        let closure = runtime.spawn_blocking(|| 7);
        let refused = runtime.metrics().thread_failures;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while runtime.metrics().thread_failures < refused + 5 {
                    std::thread::yield_now();
                }
                limit_memory(None);
            });
            assert_eq!(runtime.block_on(closure).unwrap(), 7);
        });
        drop(runtime);
        // A machine that is refused: its processor is idle beside the task, and the watcher tries again, and again.
        let runtime = watched(builder());
        limit_memory(Some(used() + STACK / 2));
        let task = runtime.spawn(async { 7 });
        let refused = runtime.metrics().thread_failures;
        assert!(refused > 0);
        while runtime.metrics().thread_failures < refused + 5 {
            std::thread::yield_now();
        }
        // Between two tries: one counts until it is refused.
        while runtime.metrics().threads > 0 {
            std::thread::yield_now();
        }
        assert!(!task.is_finished());
        limit_memory(None);
        while !task.is_finished() {
            std::thread::yield_now();
        }
        assert_eq!(runtime.block_on(task).unwrap(), 7);
        drop(runtime);
        // The watcher is refused while the first machine stands by, whose thread is the last: that tries again, and
        // again.
        limit_memory(Some(used() + STACK + STACK / 2));
        let runtime = builder().build().unwrap();
        assert_eq!(runtime.metrics().threads, 1);
        let closure = runtime.spawn_blocking(|| 7);
        let refused = runtime.metrics().thread_failures;
        while runtime.metrics().thread_failures < refused + 5 {
            std::thread::yield_now();
        }
        limit_memory(None);
        while !closure.is_finished() {
            std::thread::yield_now();
        }
        drop(runtime);
        // One for the task behind a blocking call, whose processor it is to go on with: the lone task stays with that
        // processor.
        let runtime = builder().rescue(None).build().unwrap();
        let handle = runtime.handle();
        let call = runtime.spawn(async move {
            limit_memory(Some(used() + STACK / 2));
            let refused = handle.metrics().thread_failures;
            let lone = gmp::spawn(async { 8 });
            gmp::task::block_in_place(|| {
                while handle.metrics().thread_failures < refused + 5 {
                    std::thread::yield_now();
                }
                assert!(!lone.is_finished());
                limit_memory(None);
                while !lone.is_finished() {
                    std::thread::yield_now();
                }
            });
            lone.await.unwrap()
        });
        assert_eq!(runtime.block_on(call).unwrap(), 8);
        drop(runtime);
        // A closure that never gets a thread does not keep its runtime.
        let runtime = builder().build().unwrap();
        limit_memory(Some(used() + STACK / 2));
        let orphan = runtime.spawn_blocking(|| ());
        drop(runtime);
        limit_memory(None);
        assert!(gmp::block_on(orphan).unwrap_err().is_cancelled());
    });
}

/// Where one that waits for a task runs on a processor, that has to go to another thread, and none may be to be had.
fn brief_closures() {
    type Work = Box<dyn FnOnce() + Send>;
    /// All of them are of one kind.
    fn call(work: impl FnOnce() + Send + 'static) -> gmp::task::JoinHandle<()> {
        let work: Work = Box::new(work);
        gmp::spawn_blocking(work)
    }
    limited(|| {
        let runtime = gmp::Builder::new().procs(1).thread_stack_size(STACK).build().unwrap();
        let task = runtime.spawn(async {
            let handle = gmp::Handle::current();
            while handle.metrics().blocking_brief == 0 {
                call(|| ()).await.unwrap();
            }
            limit_memory(Some(used() + STACK / 2));
            drop(gmp::task::spawn_pinned(|| async {}));
            assert!(handle.metrics().thread_failures > 0);
            let before = handle.metrics().blocking_brief;
            call(move || {
                // First: it would wait for ever.
                assert_eq!(handle.metrics().blocking_brief, before, "it runs on a processor");
                handle.block_on(handle.spawn(async {})).unwrap();
            })
            .await
            .unwrap();
            limit_memory(None);
        });
        runtime.block_on(task).unwrap();
    });
}
