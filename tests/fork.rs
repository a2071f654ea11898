//! After a fork the child has the memory of the runtime, but not its threads.

use std::panic::{AssertUnwindSafe, catch_unwind};

use gmp::runtime::{Builder, Runtime};

/// Runs `child` in a forked process; it ends well or names the line that failed.
fn in_child(child: impl FnOnce()) {
    // SAFETY: the child runs only this thread and ends by `_exit`. It may allocate: glibc makes its allocator usable in
    // the child of a process with threads.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "no child process");
    if pid == 0 {
        // SAFETY: an alarm ends a child that hangs; neither call touches memory.
        unsafe { libc::alarm(30) };
        let ended_well = catch_unwind(AssertUnwindSafe(child)).is_ok();
        // SAFETY: as above.
        unsafe { libc::_exit(if ended_well { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: `status` is there to be written.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status, 0, "the child's status: its message is above");
}

fn panics_with(message: &str, misuse: impl FnOnce()) {
    let panic = catch_unwind(AssertUnwindSafe(misuse)).expect_err("a panic");
    let said = panic.downcast_ref::<String>().expect("a message");
    assert!(said.contains(message), "{said}");
}

const MESSAGE: &str = "belongs to the parent process";

fn runtime() -> Runtime {
    Builder::new().procs(1).build().unwrap()
}

/// No thread of the runtime is just starting any more.
fn settle(runtime: &Runtime) {
    runtime.block_on(runtime.spawn(async {})).unwrap();
    while runtime.metrics().sysmon_looks == 0 {
        std::thread::yield_now();
    }
}

fn a_runtime_of_the_parent_is_an_error() {
    let runtime = runtime();
    settle(&runtime);
    let in_parent = runtime.spawn(std::future::pending::<()>());
    in_child(|| {
        panics_with(MESSAGE, || drop(runtime.spawn(async {})));
        panics_with(MESSAGE, || runtime.block_on(async {}));
        let entered = runtime.enter();
        panics_with(MESSAGE, || drop(gmp::spawn(async {})));
        panics_with(MESSAGE, || gmp::block_on(async {}));
        assert!(gmp::Handle::try_current().unwrap_err().to_string().contains(MESSAGE));
        drop(entered);
        let own = self::runtime();
        assert_eq!(own.block_on(own.spawn(async { 7 })).unwrap(), 7);
        assert_eq!(gmp::block_on(async { gmp::spawn(async { 8 }).await.unwrap() }), 8);
        drop(own);
        drop(runtime);
    });
    drop(in_parent);
}

fn the_parent_goes_on() {
    let runtime = runtime();
    let task = runtime.spawn(async { gmp::task::yield_now().await });
    in_child(|| ());
    runtime.block_on(task).unwrap();
    assert_eq!(runtime.block_on(runtime.spawn(async { 7 })).unwrap(), 7);
}

/// One test, and no thread that starts or ends at a fork: std takes a lock of the process (`thread_info` in its
/// `stack_overflow`) when a thread starts and when it ends. If another thread has it at the fork, no thread of the
/// child ever gets past its start.
#[test]
fn r24_use_in_a_forked_child_is_an_error_and_the_parent_goes_on() {
    // SAFETY: it ends this process if a parent hangs; no memory is touched.
    unsafe { libc::alarm(120) };
    the_parent_goes_on();
    a_runtime_of_the_parent_is_an_error();
}
