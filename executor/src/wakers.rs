//! Wakers are foreign code: they are woken and dropped without a lock, and one that panics ends nothing here. The panic
//! hook has reported it, and whoever wakes has nothing to do with it; the others still get their wake.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use crate::sys::assert_no_lock_held;

/// Wakes, and goes on also if the waker panics.
#[inline]
pub(crate) fn wake(waker: Waker) {
    go_on_after(|| waker.wake());
}

/// Drops a waker, and goes on also if that panics.
pub(crate) fn let_go(waker: Option<Waker>) {
    go_on_after(|| drop(waker));
}

#[inline]
fn go_on_after(foreign: impl FnOnce()) {
    assert_no_lock_held();
    if let Err(payload) = catch_unwind(AssertUnwindSafe(foreign)) {
        // Its destructor is foreign code too, and may panic again.
        mem::forget(payload);
    }
}
