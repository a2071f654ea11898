//! Time and sockets in a runtime that closes. Its machines end, and nobody sits in the netpoller; but a thread in
//! `block_on` may wait for either, in a destructor, in a blocking closure or in a poll that shutdown waits for.
//! `runtime::block_on` calls this.
//!
//! 1. Whoever waits keeps the time for all: it sleeps until the earliest deadline and fires what is due, whoever armed
//!    it. So what a thread arms before it waits fires.
//! 2. Whoever waits while tasks wait for I/O looks at the netpoller first, and again after [`IO_LOOK`], or later, if
//!    many wait: they are guests while they look, and shutdown wants a moment without any. `sysmon` looks besides,
//!    seldom; the wakers that it finds are with the pool, and whoever waits wakes those first.
//! 3. Shutdown unparks who waits after it has said that the runtime closes: they come here, also if they looked just
//!    before.
//! 4. A clock that stands is moved to the deadline if no socket is ready and nobody has wakers in its hands: nobody is
//!    left who would move it.

use std::time::Duration;

use super::find::wake_all;
use super::{RuntimeRef, Sched};
use crate::clock::NEVER;
use crate::park::Parker;

/// So long a thread sleeps beside tasks that wait for I/O. It sleeps on its parker, where whoever wakes it finds it,
/// and not in the netpoller.
const IO_LOOK: Duration = Duration::from_millis(1);

impl Sched {
    /// Parks this thread, which waits in `block_on`, until it is unparked, a timer was due or a socket was ready. It
    /// may come back earlier.
    pub(crate) fn park_while_closing(&'static self, runtime: RuntimeRef, parker: &Parker) {
        // As a guest: else the clock that is moved may be that of the next runtime.
        if !self.enter(|| runtime.is_there()) {
            return;
        }
        let mut ready: Vec<_> = self.queued_wakers().collect();
        let awaits_io = self.netpoll.waiters() > 0;
        let looked = !awaits_io || self.look_from_seat(&mut ready);
        if !ready.is_empty() {
            self.leave();
            // This thread's may be among them.
            return wake_all(&mut ready);
        }
        // If not, somebody has wakers in its hands, and this thread looks again: until then the clock stands.
        let is_quiet = looked && !self.sysmon.is_delivering();
        let deadline = self.settled_deadline();
        let until_due = (deadline != NEVER).then(|| {
            if is_quiet {
                self.clock.advance_to(deadline);
            }
            Duration::from_nanos(deadline.saturating_sub(self.clock.now()))
        });
        self.leave();
        let look = || IO_LOOK * self.waits.waiting(runtime.generation).len().max(1) as u32;
        let looks_again = awaits_io || !is_quiet;
        let left = if looks_again { Some(until_due.map_or_else(look, |left| left.min(look()))) } else { until_due };
        match left {
            None => parker.park(),
            Some(left) => {
                if left.is_zero() || !parker.park_timeout(left) {
                    self.wake_due(self.clock.now());
                }
            }
        }
    }
}
