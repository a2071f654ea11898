//! `block_in_place`: a blocking call in the middle of a poll (Go: a system call).

use crate::context;
use crate::processor::{Polled, Processor};

/// Runs `f`, which may block, on this thread. No other task waits for it, except local tasks of this thread: while
/// it lasts `sysmon` may give the processor to another thread (Go: `entersyscall`, `retake`). A short `f` costs
/// nanoseconds and moves nothing.
///
/// Inside `f` the thread counts as one outside the runtime: what it spawns and wakes goes to the global queue.
/// Afterwards it has a processor again, for which it may have to wait. It may be called anywhere, also inside another
/// `block_in_place`, and on a thread that runs no task, where it only calls `f`.
///
/// A poll that blocks without it is found out too, some milliseconds later; see `Builder::max_stuck`.
///
/// # Panics
///
/// If `f` does.
///
/// # Examples
///
/// ```
/// gmp::block_on(async {
///     let text = gmp::task::block_in_place(|| std::fs::read_to_string("Cargo.toml"));
///     assert!(text.is_ok());
/// });
/// ```
pub fn block_in_place<R>(f: impl FnOnce() -> R) -> R {
    // A machine that collects wakes cannot do without its processor: the waker that blocks is a stuck poll.
    let _back = context::current().processor.filter(|p| !p.is_batching()).map(InPlace::enter);
    f()
}

/// [`block_in_place`] in a poll of a task on `p`, which this thread holds. Tells whether it held it all the while.
pub(crate) fn in_place<R>(p: &'static Processor, f: impl FnOnce() -> R) -> (R, bool) {
    let mut back = InPlace::enter(p);
    let output = f();
    let was_kept = back.leave();
    std::mem::forget(back);
    (output, was_kept)
}

/// The processor is the machine's again when this is dropped, also if `f` panics.
struct InPlace {
    p: &'static Processor,
    /// What is polled here: another machine may have the processor when the poll goes on.
    polled: Polled,
    status: u32,
}

impl InPlace {
    fn enter(p: &'static Processor) -> Self {
        context::set_processor(None);
        InPlace { p, polled: p.polled(), status: p.enter_blocking() }
    }

    /// The call is over. Tells whether the processor was not taken.
    fn leave(&mut self) -> bool {
        let sched = self.p.sched;
        if !sched.is_of_this_process() {
            // The call has forked, and the processor stays the parent's.
            return false;
        }
        if !self.p.exit_blocking(self.status) {
            sched.reacquire(self.p.index, self.polled);
            return false;
        }
        context::set_processor(Some(self.p));
        if self.p.queue.next.is_condemned() {
            sched.trade_husk(self.p);
        }
        true
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        self.leave();
    }
}
