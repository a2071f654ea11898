//! Threads that poll a future of their own (`block_on`): whether each of them runs, was woken, or waits. `runtime::block_on`
//! enters them, `sched::quiet` asks.
//!
//! 1. A thread is entered before it first acquires a processor, and leaves when it is done with its last one.
//! 2. What says that the thread waits, and what says that it was woken, are bits of one word, so that at no moment a thread
//!    that was woken looks like one that waits. It stops to wait before it acquires a processor, and begins to when it has
//!    given its own up.
//!
//! | state          | WAITING | WOKEN | who leaves it                                                    |
//! |----------------|---------|-------|------------------------------------------------------------------|
//! | running        |    0    |   0   | `begin` → waiting · `wake` → running, woken                      |
//! | running, woken |    0    |   1   | `take_wake` → running · `begin` → woken                          |
//! | waiting        |    1    |   0   | `wake` → woken, and unparks                                      |
//! | woken          |    1    |   1   | `end` → running                                                  |

use std::sync::Arc;
use std::task::Wake;

use crate::park::Parker;
use crate::sys::atomic::{
    AtomicU32,
    Ordering::{AcqRel, Acquire},
};
use crate::sys::{Mutex, rank, thread_id};

const WAITING: u32 = 1;
const WOKEN: u32 = 2;

/// One thread in one `block_on`, and its waker. It outlives the call if somebody keeps it.
#[derive(Debug)]
pub(crate) struct Wait {
    /// See the table above.
    state: AtomicU32,
    pub(crate) parker: Parker,
    /// The thread.
    tid: i32,
}

impl Wait {
    pub(crate) fn new() -> Self {
        Wait { state: AtomicU32::new(0), parker: Parker::new(), tid: thread_id() }
    }

    /// Whether it was woken since the last time; then the next poll sees what the waker did before. Owner only.
    pub(crate) fn take_wake(&self) -> bool {
        // AcqRel: pairs with `wake_by_ref`.
        self.state.fetch_and(!WOKEN, AcqRel) & WOKEN != 0
    }

    /// The wait begins: the thread has no processor any more. Owner only.
    pub(crate) fn begin(&self) {
        // AcqRel: pairs with `wake_by_ref`: one of the two comes first in the order of this word, and `end` or that one sees
        // the other.
        self.state.fetch_or(WAITING, AcqRel);
    }

    /// Ends the wait if the thread was woken; else it parks. Owner only.
    pub(crate) fn end(&self) -> bool {
        // Acquire: pairs with `wake_by_ref`; the next poll sees what the waker did before.
        self.state.compare_exchange(WAITING | WOKEN, 0, AcqRel, Acquire).is_ok()
    }

    /// Whether the thread waits and nobody has woken it.
    pub(crate) fn is_waiting(&self) -> bool {
        // Acquire: pairs with `begin`: who sees it sees what the thread did before it waited.
        self.state.load(Acquire) == WAITING
    }
}

impl Wake for Wait {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // AcqRel: pairs with `take_wake`, `begin` and `end`.
        if self.state.fetch_or(WOKEN, AcqRel) == WAITING {
            self.parker.unpark();
        }
    }
}

/// The threads of one runtime slot that are in `block_on`, in the order in which they came.
pub(crate) struct Waits(Mutex<Vec<Arc<Wait>>>);

impl Waits {
    pub(crate) fn new() -> Self {
        Waits(Mutex::new(rank::LEAF, Vec::new()))
    }

    pub(crate) fn enter(&self, wait: &Arc<Wait>) {
        self.0.lock().push(wait.clone());
    }

    /// The slot may serve another runtime by now: only this very entry goes.
    pub(crate) fn leave(&self, wait: &Arc<Wait>) {
        let mut waits = self.0.lock();
        // The last one that came is mostly the first to go.
        let at = waits.iter().rposition(|other| Arc::ptr_eq(other, wait));
        let gone = at.map(|at| waits.remove(at));
        drop(waits);
        drop(gone);
    }

    /// Whether all of them wait. Of calls inside each other only the innermost can.
    pub(crate) fn all_wait(&self) -> bool {
        let waits = self.0.lock();
        let is_outer = |at: usize| waits[at + 1..].iter().any(|later| later.tid == waits[at].tid);
        (0..waits.len()).all(|at| waits[at].is_waiting() || is_outer(at))
    }
}
