//! Where this thread's timers go. In this branch: to one store, which a thread of its own fires.

use std::sync::OnceLock;

use crate::clock;
use crate::park::Parker;
use crate::timers::{Timers, WakeBatch};

static STORE: Timers = Timers::new();
static PARKER: Parker = Parker::new();

/// The store that a new timer of this thread goes to.
pub(crate) fn timer_home() -> &'static Timers {
    static DRIVER: OnceLock<()> = OnceLock::new();
    DRIVER.get_or_init(|| drop(std::thread::spawn(drive)));
    &STORE
}

/// A timer became the earliest of its store: who sleeps until later is woken.
pub(crate) fn timer_is_earliest(_home: &'static Timers, _deadline: u64) {
    PARKER.unpark();
}

fn drive() {
    let mut batch = WakeBatch::new();
    loop {
        while STORE.run_due(clock::now(), &mut batch) {
            batch.wake_all();
        }
        batch.wake_all();
        match STORE.earliest() {
            clock::NEVER => PARKER.park(),
            deadline => {
                PARKER.park_timeout(std::time::Duration::from_nanos(deadline.saturating_sub(clock::now())));
            }
        }
    }
}
