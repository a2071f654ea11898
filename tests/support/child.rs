//! A child of a fork.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

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
}
