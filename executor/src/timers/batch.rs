//! Wakers that were moved out from under a lock and are to be woken without one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use crate::sys::assert_no_lock_held;

/// How many wakers leave a lock at once. They run user code: between two batches the machine shows that it is alive.
const CAPACITY: usize = 64;

/// Up to 64 wakers. It keeps its memory, so a machine has one for its life.
pub(crate) struct WakeBatch {
    wakers: Vec<Waker>,
}

impl WakeBatch {
    pub(crate) fn new() -> Self {
        WakeBatch { wakers: Vec::with_capacity(CAPACITY) }
    }

    pub(crate) fn len(&self) -> usize {
        self.wakers.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.wakers.len() >= CAPACITY
    }

    pub(crate) fn push(&mut self, waker: Waker) {
        debug_assert!(!self.is_full(), "pushing must not allocate under a lock");
        self.wakers.push(waker);
    }

    /// Wakes them in the order they came in. One that panics has been reported by the panic hook; the others still get
    /// their wake.
    pub(crate) fn wake_all(&mut self) {
        wake_all(self.wakers.drain(..));
    }
}

/// Wakes them one by one, also after one that panics.
pub(super) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    assert_no_lock_held();
    for waker in wakers {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
            // Its destructor is foreign code too, and may panic again.
            std::mem::forget(payload);
        }
    }
}
