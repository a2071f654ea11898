//! Children of forks, and what becomes of them.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gmp::runtime::Runtime;

pub fn exit(status: i32) -> ! {
    // SAFETY: no memory is touched.
    unsafe { libc::_exit(status) }
}

/// A child as its parent sees it.
pub struct Child {
    pid: libc::pid_t,
    stderr: UnixStream,
}

/// `None` in the child, which ends if it hangs, and whose standard error its parent reads.
pub fn fork() -> Option<Child> {
    let (stderr, of_child) = UnixStream::pair().unwrap();
    // SAFETY: the child runs only this thread, and ends by `_exit` or is ended. It may allocate: glibc makes its
    // allocator usable in the child of a process with threads.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "no child process");
    if pid == 0 {
        // SAFETY: no memory is touched.
        unsafe {
            libc::alarm(100);
            libc::dup2(of_child.as_raw_fd(), libc::STDERR_FILENO);
        }
    }
    (pid != 0).then_some(Child { pid, stderr })
}

impl Child {
    /// Waits for it; gives its status and what it said.
    pub fn ended(mut self) -> (i32, String) {
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        let mut status = 0;
        // SAFETY: `status` is there to be written.
        assert_eq!(unsafe { libc::waitpid(self.pid, &mut status, 0) }, self.pid);
        (status, said)
    }

    /// It is to end well.
    pub fn ends_well(self) {
        let (status, said) = self.ended();
        assert_eq!(status, 0, "the child's status; it said: {said}");
    }
}

/// Runs `child` in a forked process; it ends well or names the line that failed.
pub fn in_child(child: impl FnOnce()) {
    match fork() {
        Some(child) => child.ends_well(),
        None => {
            let ended = catch_unwind(AssertUnwindSafe(child));
            // Not to what a test's harness keeps to itself.
            if let Err(panic) = &ended {
                let said = panic.downcast_ref::<String>().map_or("a panic", String::as_str);
                let _ = writeln!(std::io::stderr(), "{said}");
            }
            exit(i32::from(ended.is_err()))
        }
    }
}

/// No thread of the runtime is just starting any more.
pub fn settle(runtime: &Runtime) {
    runtime.block_on(runtime.spawn(async {})).unwrap();
    while runtime.metrics().sysmon_looks == 0 {
        std::thread::yield_now();
    }
}
