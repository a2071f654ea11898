//! One-shot sleep and wake of a thread (Go: note). `machine`, `sched` and `runtime` park on it; anybody may unpark.
//!
//! 1. Only the owner parks. Any thread may unpark, any number of times, also before the park and after it.
//! 2. An unpark that comes before a park makes that park return at once: tokens do not add up, and none is lost.
//! 3. What the unparking thread wrote before `unpark` is seen after the `park` that takes its token.
//!
//! | state  | value | who leaves it                                                    |
//! |--------|-------|------------------------------------------------------------------|
//! | empty  |   0   | `park` → parked · `unpark` → token                               |
//! | token  |   1   | `park` → empty, without sleeping                                 |
//! | parked |   2   | `unpark` → token, and wakes · `park_timeout` that ends → empty   |

use std::time::{Duration, Instant};

use crate::sys::Futex;
use crate::sys::atomic::Ordering::{Acquire, Relaxed, Release};

const EMPTY: u32 = 0;
const TOKEN: u32 = 1;
const PARKED: u32 = 2;

/// A thread's parker.
#[derive(Debug)]
pub(crate) struct Parker {
    state: Futex,
}

impl Parker {
    #[cfg(not(gmp_loom))]
    pub(crate) const fn new() -> Self {
        Parker { state: Futex::new(EMPTY) }
    }

    #[cfg(gmp_loom)]
    pub(crate) fn new() -> Self {
        Parker { state: Futex::new(EMPTY) }
    }

    /// Sleeps until there is a token, and takes it.
    pub(crate) fn park(&self) {
        self.park_until(None);
    }

    /// Sleeps until there is a token or the time is over; tells whether it took a token.
    pub(crate) fn park_timeout(&self, timeout: Duration) -> bool {
        self.park_until(Instant::now().checked_add(timeout))
    }

    fn park_until(&self, deadline: Option<Instant>) -> bool {
        let word = self.state.word();
        // Acquire: pairs with the Release in `unpark`, whose writes we then see (invariant 3).
        if word.compare_exchange(TOKEN, EMPTY, Acquire, Relaxed).is_ok() {
            return true;
        }
        if word.compare_exchange(EMPTY, PARKED, Relaxed, Relaxed).is_err() {
            // Only a token can have come: we alone write `PARKED` (invariant 1). Acquire as above, for the latest of
            // several unparks.
            word.swap(EMPTY, Acquire);
            return true;
        }
        loop {
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if left.is_some_and(|l| l.is_zero()) {
                // Acquire: a token that came at the last moment is taken with what it guards.
                return word.swap(EMPTY, Acquire) == TOKEN;
            }
            self.state.wait(PARKED, left);
            if word.compare_exchange(TOKEN, EMPTY, Acquire, Relaxed).is_ok() {
                return true;
            }
        }
    }

    /// Leaves a token and wakes the thread if it sleeps. Tells whether it had to be woken.
    pub(crate) fn unpark(&self) -> bool {
        // Release: pairs with the Acquire in `park_until`.
        let asleep = self.state.word().swap(TOKEN, Release) == PARKED;
        if asleep {
            self.state.wake_one();
        }
        asleep
    }
}

#[cfg(all(test, gmp_loom))]
pub(crate) mod loom;
#[cfg(all(test, not(gmp_loom)))]
mod tests;
