//! Time in a runtime that closes. Its machines end, and nobody waits in the netpoller for a deadline; but a thread in
//! `block_on` may wait for time, in a destructor, in a blocking closure or in a poll that shutdown waits for.
//! `runtime::block_on` calls this.
//!
//! 1. Whoever waits keeps the time for all: it sleeps until the earliest deadline and fires what is due, whoever armed
//!    it. So what a thread arms before it waits fires.
//! 2. Shutdown unparks who waits after it has said that the runtime closes: they come here, also if they looked just
//!    before.
//! 3. A clock that stands is moved to the deadline: nobody is left who would move it.

use std::time::Duration;

use super::{RuntimeRef, Sched};
use crate::clock::NEVER;
use crate::park::Parker;

impl Sched {
    /// Parks this thread, which waits in `block_on`, until it is unparked or a timer was due.
    pub(crate) fn park_while_closing(&'static self, runtime: RuntimeRef, parker: &Parker) {
        // As a guest: else the clock that is moved may be that of the next runtime.
        if !self.enter(|| runtime.is_there()) {
            return;
        }
        let deadline = self.settled_deadline();
        if deadline != NEVER {
            self.clock.advance_to(deadline);
        }
        let left = deadline.saturating_sub(self.clock.now());
        self.leave();
        if deadline == NEVER {
            return parker.park();
        }
        if left == 0 || !parker.park_timeout(Duration::from_nanos(left)) {
            self.wake_due(self.clock.now());
        }
    }
}
