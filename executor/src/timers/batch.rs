//! Wakers that were moved out from under a lock and are to be woken without one.

use std::task::Waker;

use crate::wakers::wake;

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

    /// Wakes them in the order they came in.
    pub(crate) fn wake_all(&mut self) {
        self.wakers.drain(..).for_each(wake);
    }
}
