//! The watcher: a thread without a processor that mends what workers cannot see (Go: `sysmon`).
//!
//! At each look, in order: a netpoller that nobody looked at for 10 ms; processors, one by one, for a time slice that goes
//! on too long and for work behind a long poll beside an idle processor; sockets or due timers that no machine attends;
//! machines, and threads for blocking closures, that could not be started; the schedtrace line.
//!
//! | state of the runtime                        | next look in |
//! |---------------------------------------------|--------------|
//! | a processor is off the idle list            | 5 ms         |
//! | `sysmon` acted less than a second ago       | 1 ms         |
//! | all processors idle at 20 looks in a row    | it sleeps until the first one is taken off the idle list |
//!
//! 1. It holds no processor and runs no task. What it wakes goes to the global queue.
//! 2. It sleeps deeply only if every processor is idle, which it decides under the scheduler lock.

use std::task::Waker;
use std::time::Duration;

use crate::clock::{self, NEVER};
use crate::metrics::{Metrics, SharedCounter};
use crate::park::Parker;
use crate::processor::SLICE_OVER;
use crate::sched::Sched;
use crate::sched::find::wake_all;
use crate::sys::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::trace;

/// Between two looks while something runs.
const LOOK: Duration = Duration::from_millis(5);
/// Between two looks for [`ACTED`] after it did something.
const LOOK_AFTER_ACT: Duration = Duration::from_millis(1);
const ACTED_NS: u64 = 1_000_000_000;
/// So many looks with everything idle, then it sleeps.
const LOOKS_IDLE: u32 = 20;
/// A netpoller that nobody looked at for so long is looked at.
const NETPOLL_NS: u64 = 10_000_000;
/// A time slice (Go: `forcePreemptNS`).
const SLICE_NS: u64 = 10_000_000;

/// What others know of `sysmon`.
pub(crate) struct Sysmon {
    parker: Parker,
    started: AtomicBool,
    /// The runtime closes.
    ended: AtomicBool,
    looks: SharedCounter,
    flags: SharedCounter,
    wakes: SharedCounter,
}

/// What one look saw of a processor.
#[derive(Clone, Copy, Default)]
struct Seen {
    polls: u32,
    schedtick: u32,
    /// When this `schedtick` was first seen.
    since: u64,
}

impl Sysmon {
    pub(crate) fn new() -> Self {
        Sysmon {
            parker: Parker::new(),
            started: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            looks: SharedCounter::default(),
            flags: SharedCounter::default(),
            wakes: SharedCounter::default(),
        }
    }

    pub(crate) fn reset(&self) {
        self.started.store(false, Relaxed);
        self.ended.store(false, Relaxed);
        [&self.looks, &self.flags, &self.wakes].into_iter().for_each(SharedCounter::reset);
    }

    /// Whether it runs, or is being started.
    pub(crate) fn is_started(&self) -> bool {
        self.started.load(Relaxed)
    }

    /// Wakes it from its sleep, deep or not.
    pub(crate) fn wake(&self) {
        self.parker.unpark();
    }

    /// Tells it to end.
    pub(crate) fn end(&self) {
        // Release: pairs with the Acquire in `watch`.
        self.ended.store(true, Release);
        self.parker.unpark();
    }

    pub(crate) fn count_into(&self, metrics: &mut Metrics) {
        metrics.sysmon_looks = self.looks.get();
        metrics.sysmon_flags = self.flags.get();
        metrics.sysmon_wakes = self.wakes.get();
    }
}

impl Sched {
    /// Starts `sysmon` if it does not run yet: before the first processor is used.
    #[inline]
    pub(crate) fn sysmon_start(&'static self) {
        if !self.sysmon.started.load(Relaxed) {
            self.sysmon_start_once();
        }
    }

    #[cold]
    fn sysmon_start_once(&'static self) {
        // Acquire: pairs with the Release below, so that a second try sees the end of the first one.
        if self.sysmon.started.swap(true, Acquire) {
            return;
        }
        if self.threads.spawn(self, "sysmon", false, move || self.watch()).is_err() {
            // The next machine that starts tries again.
            // Release: pairs with the Acquire above.
            self.sysmon.started.store(false, Release);
        }
    }

    fn watch(&'static self) {
        let mut seen = vec![Seen::default(); self.idle.total() as usize];
        let mut ready = Vec::new();
        let mut trace = trace::Schedtrace::new(self);
        let mut looks_idle = 0;
        let mut acted_at = None;
        // Acquire: pairs with the Release in `end`.
        while !self.sysmon.ended.load(Acquire) {
            let now = clock::now();
            if self.idle.counts().idle() == self.idle.total() {
                looks_idle += 1;
            } else {
                looks_idle = 0;
            }
            if looks_idle >= LOOKS_IDLE && !trace.is_on() && self.idle.sysmon_sleeps() {
                self.sysmon.parker.park();
                looks_idle = 0;
                continue;
            }
            let look = match acted_at {
                Some(at) if now - at < ACTED_NS => LOOK_AFTER_ACT,
                _ => LOOK,
            };
            self.sysmon.parker.park_timeout(trace.cap(look, now));
            // Acquire: as at the head of the loop.
            if self.sysmon.ended.load(Acquire) {
                break;
            }
            let (acted, waiting) = self.look_around(&mut seen, &mut ready);
            if acted {
                acted_at = Some(clock::now());
            }
            if self.blocking_retry() | waiting {
                // Perhaps a thread could not be started: it is tried again at each look.
                looks_idle = 0;
            }
            trace.print_if_due(self, clock::now());
        }
    }

    /// One look; tells whether it did something, and whether it saw work that nobody does.
    fn look_around(&'static self, seen: &mut [Seen], ready: &mut Vec<Waker>) -> (bool, bool) {
        self.sysmon.looks.add(1);
        let now = clock::now();
        let mut acted = false;
        if now.saturating_sub(self.netpolled_at()) > NETPOLL_NS && self.netpoll_now(ready, now) {
            acted |= !ready.is_empty();
            wake_all(ready);
        }
        let mut wake = false;
        for (slot, seen) in self.slots().zip(seen) {
            let p = &slot.processor;
            let (polls, schedtick) = (p.polls(), p.schedtick());
            let same_poll = polls == seen.polls && polls % 2 == 1;
            let stood = polls == seen.polls;
            if schedtick != seen.schedtick {
                *seen = Seen { polls, schedtick, since: now };
                continue;
            }
            if now - seen.since >= SLICE_NS && p.is_polling() && p.attention() & SLICE_OVER == 0 {
                p.ask(SLICE_OVER);
                self.sysmon.flags.add(1);
                acted = true;
            }
            if same_poll {
                p.mark_slow();
            }
            // Case 4: work behind a processor that did not move.
            let waits = p.queue.len_seen() > 0 || p.queue.next.peek() != 0;
            wake |= stood && waits;
            seen.polls = polls;
        }
        let unattended = !self.is_netpoller_attended();
        wake |= unattended && self.netpoll.waiters() > 0;
        wake |= unattended && self.earliest_deadline() != NEVER;
        wake |= !self.inject.is_empty();
        if wake && self.idle.should_wake() && self.idle.wake_one(self, None) {
            self.sysmon.wakes.add(1);
            acted = true;
        }
        (acted, wake)
    }
}
