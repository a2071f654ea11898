//! Doubles of the foreign crates for the models, each with the property it assumes; and how large models run.

use loom::sync::{Condvar, Mutex};

/// Runs a model with at most so many preemptions. Three threads with locks have more schedules than a test may take,
/// and such faults are found with two or three.
pub(crate) fn bounded(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(model);
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

/// The alarm of `sysmon`. Assumed: it goes off if it is set and not stopped; that may be at once.
pub(crate) struct Alarm {
    is_set: Mutex<bool>,
    event: Condvar,
}

impl Alarm {
    pub(crate) fn new() -> Self {
        Alarm { is_set: Mutex::new(false), event: Condvar::new() }
    }

    pub(crate) fn set(&self, is_set: bool) {
        *self.is_set.lock().unwrap() = is_set;
        self.event.notify_one();
    }

    pub(crate) fn sleep(&self) {
        let mut is_set = self.is_set.lock().unwrap();
        while !*is_set {
            is_set = self.event.wait(is_set).unwrap();
        }
        *is_set = false;
    }
}
