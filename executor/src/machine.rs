//! Machines (M): the OS threads that run tasks. `idle` parks and wakes them, `sched` runs them.
//!
//! 1. A machine holds at most one processor, and a processor has at most one machine.
//! 2. A machine that sleeps holds no processor. It is woken with a grant: a processor, or word that the runtime closes.
//! 3. A grant is written by whoever took the machine off a list under the scheduler lock, so there is one at a time.
//!
//! Machines are type-stable: a runtime slot recycles them and never frees them, so a late unpark does no harm.

use crate::park::Parker;
use crate::sys::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

const NONE: u32 = 0;
const CLOSED: u32 = u32::MAX;
const SPINNING: u32 = 1 << 31;

/// What a sleeping machine is woken with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// The processor of this slot is yours. With `spinning` you count as a spinner already.
    Processor {
        /// Index into the processor table.
        slot: u32,
        /// Whether the waker has counted the machine as a spinner.
        spinning: bool,
    },
    /// Go on without a processor: the runtime closes, or the machine was released.
    Closed,
}

/// Why a machine woke up.
#[cfg(not(gmp_loom))]
#[derive(Debug)]
pub(crate) enum Parked {
    Granted(Grant),
    /// Without a grant. It is still on its list.
    Unparked,
    /// As `Unparked`.
    TimeOver,
}

/// What others know of a machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) parker: Parker,
    /// A packed [`Grant`]. Written by the waker (invariant 3), taken by the machine.
    grant: AtomicU32,
    /// The slot for whose queue this machine was woken, plus one; 0 if something else did. Guarded like `grant`.
    woken_by: AtomicU32,
    /// The machine goes on without a processor although the runtime is open. Guarded like `grant`.
    released: AtomicBool,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Machine {
            parker: Parker::new(),
            grant: AtomicU32::new(NONE),
            woken_by: AtomicU32::new(0),
            released: AtomicBool::new(false),
        }
    }

    /// Writes the grant; the caller then unparks the machine or breaks its wait in the netpoller.
    pub(crate) fn grant(&self, grant: Grant, woken_by: Option<u32>) {
        debug_assert_eq!(self.grant.load(Relaxed), NONE, "a machine was granted twice");
        self.woken_by.store(woken_by.map_or(0, |slot| slot + 1), Relaxed);
        let word = match grant {
            Grant::Processor { slot, spinning } => (slot + 1) | if spinning { SPINNING } else { 0 },
            Grant::Closed => CLOSED,
        };
        // Release: pairs with the Acquire in `take_grant`; the new owner sees the processor as the last one left it.
        self.grant.store(word, Release);
    }

    /// The machine has wanted a processor for so long that it goes on without one; the caller then unparks it.
    pub(crate) fn release(&self) {
        self.released.store(true, Relaxed);
        self.grant(Grant::Closed, None);
    }

    /// Whether the last grant was a [`Machine::release`]. Once, and owner only.
    pub(crate) fn take_released(&self) -> bool {
        let released = self.released.load(Relaxed);
        self.released.store(false, Relaxed);
        released
    }

    /// Takes the grant if one has come. Owner only.
    pub(crate) fn take_grant(&self) -> Option<Grant> {
        // Acquire: pairs with the Release in `grant`.
        let word = self.grant.load(Acquire);
        if word == NONE {
            return None;
        }
        self.grant.store(NONE, Relaxed);
        Some(match word {
            CLOSED => Grant::Closed,
            _ => Grant::Processor { slot: (word & !SPINNING) - 1, spinning: word & SPINNING != 0 },
        })
    }

    /// Whether a grant has come. Owner only.
    pub(crate) fn is_granted(&self) -> bool {
        self.grant.load(Relaxed) != NONE
    }

    /// The slot for whose queue this machine was woken, once. Owner only.
    pub(crate) fn take_woken_by(&self) -> Option<u32> {
        let slot = self.woken_by.load(Relaxed);
        if slot == 0 {
            return None;
        }
        self.woken_by.store(0, Relaxed);
        Some(slot - 1)
    }

    /// Sleeps until a grant comes or somebody unparks the machine without one, at most for `timeout` if there is one.
    #[cfg(not(gmp_loom))]
    pub(crate) fn park_once(&self, timeout: Option<std::time::Duration>) -> Parked {
        let unparked = self.is_granted()
            || match timeout {
                Some(timeout) => self.parker.park_timeout(timeout),
                None => {
                    self.parker.park();
                    true
                }
            };
        match self.take_grant() {
            Some(grant) => Parked::Granted(grant),
            None if unparked => Parked::Unparked,
            None => Parked::TimeOver,
        }
    }

    /// Sleeps until a grant comes (Go: `stopm`).
    pub(crate) fn park(&self) -> Grant {
        loop {
            if let Some(grant) = self.take_grant() {
                return grant;
            }
            self.parker.park();
        }
    }
}
