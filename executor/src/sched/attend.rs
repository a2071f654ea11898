//! Who sits in the netpoller, and who looks at it besides. One machine at a time sleeps there until the next deadline;
//! whoever leaves timers or sockets behind, or puts in an earlier timer, sees to it that it is there and wakes in time.
//!
//! 1. `poll_until` is 0 if nobody is there, else until when its machine sleeps; it is published before the last look at
//!    the timers, so that either that look or whoever put a timer in sees the other.
//! 2. One thread at a time is in the netpoller; `polling` keeps those out that only look.

use std::task::Waker;

use super::{Sched, die};
use crate::clock::{self, NEVER};
use crate::netpoll::Wait;
use crate::sys::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sys::{idle_fence, submit_fence};

/// While sockets are registered, but nobody waits for one, busy processors look at the netpoller when nobody has for so
/// long, in nanoseconds: a system call in 2 ms is nothing.
const UNAWAITED_NS: u64 = 2_000_000;

impl Sched {
    /// A thread that has no processor any more leaves timers or sockets behind: somebody must sleep for them, and not
    /// too long.
    pub(crate) fn attend_netpoller(&'static self) {
        let deadline = self.settled_deadline();
        let until = self.poll_until.load(Relaxed);
        if until != 0 {
            if deadline < until {
                self.break_netpoller();
            }
        } else if (deadline != NEVER || self.netpoll.waiters() > 0)
            && self.idle.should_wake()
            && !self.idle.has_poller()
        {
            self.idle.wake_one(self, None);
        }
    }

    /// A thread that will not look itself made a timer with this deadline the earliest of its store.
    pub(crate) fn timer_is_earliest(&'static self, deadline: u64) {
        submit_fence();
        let until = self.poll_until.load(Relaxed);
        if until == 0 {
            if self.idle.should_wake() {
                self.wake_one_as_guest();
            }
        } else if deadline < until {
            self.break_netpoller();
        }
    }

    /// A thread without a processor left a task that waits for I/O. A runtime that has never run anything may have no
    /// machine, and one whose machines are all on their way to sleep has one that sits down in the netpoller.
    pub(crate) fn io_is_awaited(&'static self) {
        submit_fence();
        if !self.is_netpoller_attended() && self.idle.should_wake() {
            self.wake_one_as_guest();
        }
    }

    /// Breaks the blocked wait in the netpoller.
    pub(super) fn break_netpoller(&self) {
        self.netpoll_breaks.add(1);
        self.netpoll.wake_blocked();
    }

    /// Whether a machine is blocked in the netpoller, or about to be.
    pub(crate) fn is_netpoller_attended(&self) -> bool {
        self.poll_until.load(Relaxed) != 0
    }

    /// Looks at the netpoller without waiting, unless nobody waits for I/O or somebody else looks. What is ready is
    /// added to `ready`.
    pub(crate) fn netpoll_now(&self, ready: &mut Vec<Waker>, now: u64) -> bool {
        self.netpoll.waiters() > 0 && self.look_at_netpoller(ready, now)
    }

    /// As `netpoll_now`, where all stay busy: now and then also while nobody waits. A task that asks and
    /// does not wait (`accept().now_or_never()`) would else never hear of what has become ready since it last asked.
    pub(crate) fn netpoll_while_busy(&self, ready: &mut Vec<Waker>, now: u64) -> bool {
        let is_worth_it = self.netpoll.waiters() > 0
            || now.saturating_sub(self.netpolled_at()) >= UNAWAITED_NS && self.netpoll.has_sockets();
        is_worth_it && self.look_at_netpoller(ready, now)
    }

    fn look_at_netpoller(&self, ready: &mut Vec<Waker>, now: u64) -> bool {
        // Acquire: pairs with the Release below; the next one to look has the netpoller to itself.
        if self.is_netpoller_attended() || self.polling.swap(true, Acquire) {
            return false;
        }
        if let Err(e) = self.netpoll.wait(Wait::Now, ready) {
            die("the netpoller cannot be polled", &e);
        }
        self.last_netpoll.store(now, Relaxed);
        // Release: pairs with the Acquire above, on another thread.
        self.polling.store(false, Release);
        true
    }

    /// The machine in the netpoller publishes until when it will sleep, then looks at the timers once more: either it
    /// sees a timer that another thread put in, or that thread sees that it must break the wait.
    pub(super) fn publish_poll_deadline(&self) -> u64 {
        let deadline = self.wake_deadline();
        self.poll_until.store(deadline, Relaxed);
        idle_fence();
        let deadline = deadline.min(self.wake_deadline());
        self.poll_until.store(deadline, Relaxed);
        deadline
    }

    pub(super) fn left_netpoller(&self) {
        self.poll_until.store(0, Relaxed);
        self.last_netpoll.store(clock::now(), Relaxed);
    }
}
