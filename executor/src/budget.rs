//! How many operations a task may complete before it yields. In this branch: 128 a thread, then one refusal.

use std::cell::Cell;
use std::task::{Context, Poll};

const UNITS: u32 = 128;

thread_local! {
    static LEFT: Cell<u32> = const { Cell::new(UNITS) };
}

/// A unit, given back unless the operation made progress.
#[must_use]
pub(crate) struct Charge(());

/// Takes a unit, or wakes the task and refuses.
pub(crate) fn poll_charge(cx: &mut Context<'_>) -> Poll<Charge> {
    match LEFT.get() {
        0 => {
            LEFT.set(UNITS);
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        left => {
            LEFT.set(left - 1);
            Poll::Ready(Charge(()))
        }
    }
}

impl Charge {
    /// The operation completed: the unit is spent.
    pub(crate) fn made_progress(self) {
        std::mem::forget(self);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        LEFT.set(LEFT.get() + 1);
    }
}
