//! Doubles of the foreign crates for the models, each with the property it assumes.

use std::ptr::NonNull;

use loom::sync::{Condvar, Mutex};

use super::atomic::{
    AtomicPtr, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use crate::runq::Unit;

/// The deque of a processor. Assumed of crossbeam-deque: one thread at a time pushes; each unit is taken once, in order,
/// and its taker sees what the pusher wrote before; a length read after a fence shows all pushes before its partner.
pub(crate) struct Deque {
    head: AtomicUsize,
    tail: AtomicUsize,
    units: [AtomicPtr<()>; 4],
}

impl Deque {
    pub(crate) fn new() -> Self {
        let empty = || AtomicPtr::new(std::ptr::null_mut());
        Deque { head: AtomicUsize::new(0), tail: AtomicUsize::new(0), units: [empty(), empty(), empty(), empty()] }
    }

    pub(crate) fn push(&self, unit: Unit) {
        let tail = self.tail.load(Relaxed);
        self.units[tail].store(unit.into_raw().as_ptr(), Relaxed);
        // Release: pairs with the Acquire in `take`.
        self.tail.store(tail + 1, Release);
    }

    pub(crate) fn len_seen(&self) -> usize {
        self.tail.load(Relaxed).saturating_sub(self.head.load(Relaxed))
    }

    pub(crate) fn take(&self) -> Option<Unit> {
        loop {
            let head = self.head.load(Relaxed);
            // Acquire: pairs with the Release in `push`.
            if head >= self.tail.load(Acquire) {
                return None;
            }
            let unit = self.units[head].load(Relaxed);
            if self.head.compare_exchange(head, head + 1, AcqRel, Relaxed).is_ok() {
                return NonNull::new(unit).map(Unit::new);
            }
        }
    }
}

/// The netpoller. Assumed: a break is there until the thread that is blocked takes it, also if it came before the wait
/// began; a wait with a deadline may end at once, for that time may have passed. One thread blocks at a time, which is
/// checked.
pub(crate) struct Poller {
    state: Mutex<PollerState>,
    event: Condvar,
}

struct PollerState {
    broken: bool,
    blocked: bool,
}

impl Poller {
    pub(crate) fn new() -> Self {
        Poller { state: Mutex::new(PollerState { broken: false, blocked: false }), event: Condvar::new() }
    }

    pub(crate) fn wait(&self, forever: bool) {
        let mut state = self.state.lock().unwrap();
        assert!(!state.blocked, "two threads block in one netpoller");
        state.blocked = true;
        while forever && !state.broken {
            state = self.event.wait(state).unwrap();
        }
        *state = PollerState { broken: false, blocked: false };
    }

    pub(crate) fn wake_blocked(&self) {
        self.state.lock().unwrap().broken = true;
        self.event.notify_one();
    }
}
