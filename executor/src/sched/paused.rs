//! A runtime's clock that stands, and when it moves. `time::{pause, advance, resume}` call it, and the machine in the
//! netpoller.
//!
//! # Who advances a paused clock
//!
//! `advance`, by as much as it is told; and the machine that sits in the netpoller, to the earliest deadline, when
//! nothing can happen before. That is [`Sched::advance_if_quiet`]. All of it is under the scheduler lock, so that no
//! processor is given out and no task is polled meanwhile, in this order:
//!
//! 1. The runtime is quiet (`quiet`): every processor is idle, nothing is queued, nobody who works for the runtime
//!    without a processor is about to queue anything, no blocking closure is queued or runs.
//! 2. A look at the netpoller without waiting finds nothing. It comes after 1, so it sees what the last task sent. A
//!    task that waits for a socket does not hold the clock: only a socket that is ready does.
//! 3. The earliest deadline is read, and the clock moved there. What inserts a timer from outside comes before, and is
//!    seen, or after, and goes by the moved clock.
//!
//! # Why it overtakes no task that is ready
//!
//! A task becomes ready by a wake or a spawn. If that comes from a task, or from a machine that fires a timer, its
//! thread has a processor until the task is queued. If it comes from another thread of the runtime, that one is counted
//! until then: as a blocking closure, a poll that is stuck or had its processor taken (`stuck`, `away`), one that waits
//! for another runtime (`away`), a thread in `block_on` that was woken (`waits`), `sysmon` that delivers, a machine
//! that leaves the netpoller with wakers ([`Bringing`]). Any other thread is none of the runtime's, and the clock does
//! not wait for it: what it does at the moment of an advance comes before or after.
//!
//! # Why it does not stand for ever
//!
//! Whoever is the last to stop work sees to it that the machine in the netpoller looks again. If that is a processor
//! that becomes idle, its machine, or the thread that gave it up, calls `attend_netpoller`: the machine in the
//! netpoller sleeps without a deadline while the clock stands, so any timer is earlier, and breaks the wait. So does an
//! insertion from outside. Who is counted otherwise calls [`Sched::clock_may_advance`] when it is not any more; a
//! machine whose poll was stuck need not, for it goes idle next, but one that was lent and ends instead does. Both
//! sides have a fence between what they change and what they read: the machine in the netpoller has said that it sleeps
//! before it asks whether all is quiet, so either it sees the change, or its sleep is seen and broken. The models in
//! `idle/loom/paused.rs` repeat these steps.

use std::task::Waker;

use super::Sched;
use super::find::after_batch;
use crate::clock::NEVER;
use crate::context;
use crate::netpoll::Wait;
use crate::sys::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sys::submit_fence;
use crate::timers::WakeBatch;

/// A machine has left the netpoller with wakers, until it has woken them and this is dropped.
pub(super) struct Bringing(&'static Sched);

impl Bringing {
    pub(super) fn begin(sched: &'static Sched) -> Self {
        // AcqRel: pairs with `quiet`.
        sched.away.fetch_add(1, AcqRel);
        Bringing(sched)
    }
}

impl Drop for Bringing {
    fn drop(&mut self) {
        // AcqRel: as above.
        self.0.away.fetch_sub(1, AcqRel);
        self.0.clock_may_advance();
    }
}

impl Sched {
    /// The machine in the netpoller moves a paused clock to the earliest deadline, if nothing can happen before (see
    /// the head of the file). What the netpoller brought instead is added to `ready`. Tells whether there is something
    /// to do.
    #[inline]
    pub(super) fn advance_if_quiet(&'static self, ready: &mut Vec<Waker>) -> bool {
        self.clock.is_paused() && self.advance_paused(ready)
    }

    #[cold]
    fn advance_paused(&'static self, ready: &mut Vec<Waker>) -> bool {
        // 1.
        let advanced = self.quiet_and(true, || {
            // 2.
            if !self.look_from_seat(ready) || !ready.is_empty() {
                return false;
            }
            // 3.
            let deadline = self.settled_deadline();
            deadline != NEVER && self.clock.advance_to(deadline) && deadline <= self.clock.now()
        });
        advanced.is_some() || !ready.is_empty()
    }

    /// Looks at the netpoller without waiting. `false` if another thread does.
    pub(super) fn look_from_seat(&self, ready: &mut Vec<Waker>) -> bool {
        if self.netpoll.waiters() == 0 {
            return true;
        }
        // Acquire: pairs with the Release in `netpoll_now`.
        if self.polling.swap(true, Acquire) {
            return false;
        }
        let looked = self.netpoll.wait(Wait::Now, ready);
        // Release: pairs with the Acquire above, and in `netpoll_now`.
        self.polling.store(false, Release);
        looked.is_ok()
    }

    /// One thing less keeps a paused clock: the machine in the netpoller looks again.
    #[inline]
    pub(crate) fn clock_may_advance(&'static self) {
        if self.clock.is_paused() {
            self.reconsider_clock();
        }
    }

    /// The clock was paused, moved, or goes on: whoever sleeps reconsiders until when.
    #[cold]
    fn reconsider_clock(&'static self) {
        submit_fence();
        if self.poll_until.load(Relaxed) != 0 {
            self.break_netpoller();
        } else if self.earliest_deadline() != NEVER && self.idle.should_wake() && !self.idle.has_poller() {
            // Nobody sits there yet: whoever is woken finds nothing else and sits down.
            self.wake_one_as_guest();
        }
    }

    /// Stops the clock. `false`: it stood already.
    pub(crate) fn pause_clock(&'static self) -> bool {
        let paused = self.clock.pause();
        self.reconsider_clock();
        paused
    }

    /// Lets the clock go on. `false`: it was not paused.
    pub(crate) fn resume_clock(&'static self) -> bool {
        let resumed = self.clock.resume();
        self.reconsider_clock();
        resumed
    }

    /// Moves a paused clock by so many nanoseconds and wakes what is then due, before anything that is readied later.
    /// `false`: it was not paused.
    pub(crate) fn advance_clock(&'static self, by: u64) -> bool {
        let advanced = self.clock.advance(by);
        self.wake_due(self.clock.now());
        self.reconsider_clock();
        advanced
    }

    /// Wakes whatever is due at `now`, on a thread with or without a processor.
    pub(super) fn wake_due(&'static self, now: u64) {
        let mut due = WakeBatch::new();
        let p = context::processor_of(self).filter(|p| !p.is_batching());
        for slot in self.slots() {
            let mut more = true;
            while more {
                more = slot.timers.run_due(now, usize::MAX, &mut due);
                if let Some(p) = p {
                    p.counters().timers_fired.add(due.len() as u64);
                    p.set_batching(true);
                }
                due.wake_all();
                if let Some(p) = p {
                    p.set_batching(false);
                    after_batch(self, p);
                }
            }
        }
    }
}
