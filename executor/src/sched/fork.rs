//! Forks. A child has the memory of the parent's runtimes and one thread, a copy of the one that forked. Where that is
//! a thread of a runtime, it is in the middle of a poll, a blocking closure or a hook, which goes on in the child.
//! Whatever runs user code on such a thread, and what may be called from any thread, asks here.
//!
//! 1. In the child a runtime of the parent's does nothing: none of its tasks runs, no thread is started for it, nobody
//!    looks at its netpoller. The kernel has that once for both, and what the child took there the parent would miss.
//! 2. From the fork on the child's thread holds no processor and is of no runtime: it may build its own, like any
//!    thread. When it is through with what it was in the middle of, and comes back to the parent's runtime, the process
//!    ends.
//! 3. A lock of the parent's runtime may have been another thread's at the fork, and is then never free: it is asked
//!    before one is taken.

use super::{RuntimeRef, Sched, die};
use crate::blocking;
use crate::context;
use crate::sys::atomic::Ordering::Relaxed;
use crate::sys::fork_count;

/// Called in a child, on its thread, before it comes out of the fork (invariant 2). It touches nothing but that
/// thread's own cells and atomics.
pub(super) extern "C" fn begin_child() {
    context::leave_runtimes();
    blocking::leave_pool();
}

impl RuntimeRef {
    /// Whether this process is the one that built the runtime.
    #[inline]
    pub(crate) fn is_of_this_process(self) -> bool {
        self.sched.is_of_this_process()
    }
}

impl Sched {
    /// Whether this process is the one that built the runtime.
    #[inline]
    pub(crate) fn is_of_this_process(&self) -> bool {
        // Relaxed: the child has the memory as it was at the fork.
        self.forks.load(Relaxed) == fork_count()
    }

    /// User code on a thread of the runtime is through, and that thread may be a copy (invariant 2).
    #[inline]
    pub(crate) fn die_if_forked(&self) {
        if !self.is_of_this_process() {
            die_in_child();
        }
    }
}

#[cold]
fn die_in_child() -> ! {
    let what = "a child of a fork has come to the end of the poll or the closure in which it was forked";
    die(what, &"what would come next is the parent's; a child builds a runtime of its own, or calls `exit` or `exec`")
}
