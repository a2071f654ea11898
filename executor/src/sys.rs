//! The one module that names atomics, cells, locks, futexes and threads. Every other file takes them from here, so that
//! the same code runs on std and inside loom.
//!
//! 1. The cfgs `gmp_loom`, `gmp_shuttle`, `gmp_tsan` and `gmp_asan` appear here and in the module list of `lib.rs`,
//!    nowhere else.
//! 2. Store-load ordering is only ever made by one of the named fences below; data is handed over by Release and
//!    Acquire operations. loom models exactly that, and the thread sanitizer understands it.
//! 3. A lock has a rank. A thread takes locks in rising rank only, and holds none while user code runs. Debug builds
//!    check both.
#![allow(clippy::disallowed_methods)]

#[cfg(gmp_loom)]
#[path = "sys/loom.rs"]
mod form;
#[cfg(not(gmp_loom))]
#[path = "sys/std.rs"]
mod form;

#[cfg(all(test, not(gmp_loom)))]
pub(crate) use form::slow_steps;
pub(crate) use form::{
    Futex, Inbox, Mutex, MutexGuard, OwnMutex, OwnMutexGuard, Queue, UnsafeCell, assert_no_lock_held, atomic, spin_loop,
};
#[cfg(not(gmp_loom))]
pub(crate) use form::{count_forks, fork_count, is_main_thread, thread_id, try_print_error};

#[cfg(all(test, gmp_loom))]
pub(crate) mod doubles;

use atomic::{Ordering::SeqCst, fence};

/// On cache lines of its own: many threads write it, and what lies beside it is not theirs.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Line<T>(pub(crate) T);

impl<T> std::ops::Deref for Line<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

/// What is made by the first who asks for it.
#[cfg(not(gmp_loom))]
#[allow(clippy::disallowed_types)]
pub(crate) type Lazy<T> = std::sync::LazyLock<T>;

/// A constructor that is `const`, but in the models: loom's atomics and locks are made at run time.
macro_rules! const_but_in_models {
    ($(#[$attribute:meta])* $visible:vis fn $($rest:tt)*) => {
        $(#[$attribute])*
        #[cfg(not(gmp_loom))]
        $visible const fn $($rest)*

        $(#[$attribute])*
        #[cfg(gmp_loom)]
        $visible fn $($rest)*
    };
}
pub(crate) use const_but_in_models;

/// The ranks of all locks, lowest first: a thread that holds one takes only higher ones.
pub(crate) mod rank {
    /// The process-wide lists: free slots, the default runtime.
    pub(crate) const PROCESS: u8 = 1;
    /// What a runtime starts and ends with: thread handles, hooks.
    pub(crate) const RUNTIME: u8 = 2;
    /// The scheduler lock: idle processors, idle machines, `want`, the processor table.
    pub(crate) const SCHED: u8 = 3;
    /// A shard of the registry of live tasks, or a shared arena.
    pub(crate) const REGISTRY: u8 = 4;
    /// The timer store of a processor slot.
    pub(crate) const TIMERS: u8 = 5;
    /// The table of descriptors.
    pub(crate) const NETPOLL: u8 = 6;
    /// The waiters of one descriptor.
    pub(crate) const DESCRIPTOR: u8 = 7;
    /// The global queue.
    pub(crate) const INJECT: u8 = 8;
    /// A leaf: nothing is locked under it, but for the alarm.
    pub(crate) const LEAF: u8 = 9;
    /// The watcher's alarm, which anybody may ring.
    pub(crate) const ALARM: u8 = 10;
}

/// Whether the cells of many tasks lie in one allocation. Not for tools that look for what is used after it was freed:
/// they know allocations only.
pub(crate) const TASKS_SHARE_PAGES: bool = !cfg!(any(miri, gmp_asan));

/// Submit side of the sleep protocol: work was published before it, idle and spinning counts are read after it.
/// Its partner is [`idle_fence`]. Whichever comes first in the total order, one side sees the other.
#[inline]
pub(crate) fn submit_fence() {
    fence(SeqCst);
}

/// [`submit_fence`] after a locked instruction of the same thread, which published what the other side must see.
/// On x86 that instruction is the fence; elsewhere this is a fence.
#[inline]
pub(crate) fn submit_fence_after_rmw() {
    #[cfg(all(target_arch = "x86_64", not(any(gmp_loom, gmp_shuttle))))]
    std::sync::atomic::compiler_fence(SeqCst);
    #[cfg(not(all(target_arch = "x86_64", not(any(gmp_loom, gmp_shuttle)))))]
    fence(SeqCst);
}

/// Going-idle side of the sleep protocol: the idle or spinning count was changed before it, the queues are looked at
/// after it. Its partner is [`submit_fence`].
#[inline]
pub(crate) fn idle_fence() {
    fence(SeqCst);
}

/// What CLOCK_MONOTONIC reads, in nanoseconds. `std::time::Instant` has the same clock in a form that is dear to
/// subtract.
#[inline]
pub(crate) fn monotonic() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel, or its page in this process, writes the time there. The clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
