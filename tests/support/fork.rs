//! Children of forks, and what becomes of them.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gmp::runtime::Runtime;

pub use child::{Child, fork};

#[path = "child.rs"]
mod child;

pub fn exit(status: i32) -> ! {
    // SAFETY: no memory is touched.
    unsafe { libc::_exit(status) }
}

impl Child {
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
