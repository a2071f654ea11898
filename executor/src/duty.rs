//! Whose duty it is to start the watcher while there is none. A cold start does not wait for that thread: the first
//! machine stands by from the moment the runtime is built, and whoever waits for its first task keeps watch meanwhile.
//! `sysmon` asks before it starts the watcher, the first machine before its first task, `runtime::block_on` when it
//! waits.
//!
//! | phase    | whose duty it is, while there is no watcher                                                          |
//! |----------|------------------------------------------------------------------------------------------------------|
//! | anyone's | of whoever takes a processor or starts a machine                                                      |
//! | standby  | of the first machine, which has run nothing                                                           |
//! | lookout  | of the same; a thread that waits in a `block_on` can take the duty over                               |
//! | lent     | of that thread; the first machine runs tasks                                                          |
//!
//! 1 anyone's → standby: `promise` · 2 any → anyone's: `is_done` · 3 standby → lookout: `look_out` · 4 lookout →
//! standby, 5 lent → anyone's: `look_away` · 6 lookout → lent: `lend` · 7 lent → standby: `give_back`
//!
//! 1. While a thread is in user code and there is no watcher, another one that is not has the duty: it starts the
//!    watcher after [`PATIENCE`], or before it gets to user code itself.
//! 2. Whoever takes an edge to "anyone's" starts the watcher next.
//! 3. The word carries the generation of the runtime: a thread that waited for an earlier one of the slot changes
//!    nothing.

use std::time::Duration;

use crate::sys::atomic::{
    AtomicU8, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sys::const_but_in_models;

/// So long tasks go without a watcher, and as much longer as the system takes to wake the thread that looks out. The
/// watcher's own looks are further apart.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1);

/// When the system refuses the watcher its thread, nobody would start the threads that it refused too. So whoever
/// sleeps tries again, after so long at first, and then as long as it has been refused so far: a system that refuses
/// threads for good is not asked for ever.
const RETRY: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(1);

const ANYONES: u64 = 0;
const STANDBY: u64 = 1;
const LOOKOUT: u64 = 2;
const LENT: u64 = 3;
/// So many bits of the word are the phase; the generation is above them.
const BITS: u32 = 2;

/// The duty of one runtime slot. Relaxed throughout: one word, changed by read-modify-writes, says it all, and hands
/// nothing over.
pub(crate) struct Duty(AtomicU64);

impl Duty {
    const_but_in_models! {
        pub(crate) fn new() -> Self {
            Duty(AtomicU64::new(ANYONES))
        }
    }

    /// Fresh for the runtime of this generation.
    pub(crate) fn open(&self, generation: u32) {
        self.0.store(word(generation, ANYONES), Relaxed);
    }

    /// The first machine of the runtime is about to be started, and stands by from there on.
    pub(crate) fn promise(&self) {
        let before = self.0.fetch_or(STANDBY, Relaxed);
        debug_assert_eq!(phase(before), ANYONES, "two machines are the first");
    }

    /// The watcher is being started, or the first machine could not be.
    pub(crate) fn is_done(&self) {
        self.move_on(|phase| (phase != ANYONES).then_some(ANYONES));
    }

    /// Whether somebody has the duty.
    #[inline]
    pub(crate) fn is_kept(&self) -> bool {
        phase(self.0.load(Relaxed)) != ANYONES
    }

    /// This thread begins to wait, in a `block_on` of that runtime, for [`PATIENCE`], and could take the duty over. If
    /// so it calls [`Duty::look_away`] when it has waited, and then takes a processor, which starts the watcher if need
    /// be.
    #[must_use]
    pub(crate) fn look_out(&self, generation: u32) -> bool {
        let (from, to) = (word(generation, STANDBY), word(generation, LOOKOUT));
        self.0.compare_exchange(from, to, Relaxed, Relaxed).is_ok()
    }

    /// See [`Duty::look_out`].
    pub(crate) fn look_away(&self, generation: u32) {
        let (lookout, lent) = (word(generation, LOOKOUT), word(generation, LENT));
        // Neither, if the first machine has started the watcher, or the runtime is another one.
        let _ = self.0.fetch_update(Relaxed, Relaxed, |now| match now {
            _ if now == lookout => Some(word(generation, STANDBY)),
            _ if now == lent => Some(word(generation, ANYONES)),
            _ => None,
        });
    }

    /// The first machine is about to run something. Tells whether another thread has the duty now; else the machine
    /// starts the watcher before.
    #[must_use]
    pub(crate) fn lend(&self) -> bool {
        self.move_on(|phase| (phase == LOOKOUT).then_some(LENT)) == LOOKOUT
    }

    /// The first machine's first task has ended, and the machine then starts the watcher. What is left is to wake who
    /// joins the task, with a waker that is none of the user's.
    pub(crate) fn give_back(&self) {
        self.move_on(|phase| (phase == LENT).then_some(STANDBY));
    }

    /// Gives the phase before.
    fn move_on(&self, to: impl Fn(u64) -> Option<u64>) -> u64 {
        let moved = self.0.fetch_update(Relaxed, Relaxed, |now| {
            let generation = (now >> BITS) as u32;
            to(phase(now)).map(|phase| word(generation, phase))
        });
        let (Ok(before) | Err(before)) = moved;
        phase(before)
    }
}

const MISSING: u8 = 0;
const COMING: u8 = 1;
const THERE: u8 = 2;

/// Whether there is a watcher. While it is being started there is none: the system may refuse its thread, and nobody
/// who sleeps without a limit by then would try again.
pub(crate) struct Watcher {
    state: AtomicU8,
    /// When its thread was refused first, since it was there or the runtime was built; 0 if it was not.
    refused_at: AtomicU64,
}

impl Watcher {
    const_but_in_models! {
        pub(crate) fn new() -> Self {
            Watcher { state: AtomicU8::new(MISSING), refused_at: AtomicU64::new(0) }
        }
    }

    /// Fresh for another runtime of the same slot.
    pub(crate) fn reset(&self) {
        self.state.store(MISSING, Relaxed);
        self.refused_at.store(0, Relaxed);
    }

    /// So long whoever sleeps does so, at `now`, before the next try.
    pub(crate) fn retries_in(&self, now: u64) -> Duration {
        match self.refused_at.load(Relaxed) {
            0 => RETRY,
            at => Duration::from_nanos(now.saturating_sub(at)).clamp(RETRY, RETRY_MAX),
        }
    }

    #[inline]
    pub(crate) fn is_there(&self) -> bool {
        self.state.load(Relaxed) == THERE
    }

    /// Whether somebody is starting it.
    pub(crate) fn is_coming(&self) -> bool {
        self.state.load(Relaxed) == COMING
    }

    /// Whether this thread is the one that starts it; [`Watcher::was_started`] follows.
    #[must_use]
    pub(crate) fn starts(&self) -> bool {
        // Acquire: pairs with the Release in `was_started`, so that a second try sees the end of the first one.
        self.state.compare_exchange(MISSING, COMING, Acquire, Relaxed).is_ok()
    }

    /// Its thread was started at `now`, or else refused.
    pub(crate) fn was_started(&self, is_there: bool, now: u64) {
        // One who starts it at a time.
        match self.refused_at.load(Relaxed) {
            0 if !is_there => self.refused_at.store(now, Relaxed),
            _ if is_there => self.refused_at.store(0, Relaxed),
            _ => {}
        }
        // Release: pairs with the Acquire in `starts`.
        self.state.store(if is_there { THERE } else { MISSING }, Release);
    }
}

fn word(generation: u32, phase: u64) -> u64 {
    u64::from(generation) << BITS | phase
}

fn phase(word: u64) -> u64 {
    word & ((1 << BITS) - 1)
}

#[cfg(all(test, gmp_loom))]
mod loom;

#[cfg(all(test, not(gmp_loom)))]
mod tests {
    use super::*;

    #[test]
    fn r05_a_thread_that_is_refused_for_long_is_asked_for_more_and_more_rarely() {
        const MS: u64 = 1_000_000;
        let watcher = Watcher::new();
        let mut now = MS;
        let mut refused = |is_there| {
            assert!(watcher.starts());
            watcher.was_started(is_there, now);
            let waits = watcher.retries_in(now);
            now += waits.as_nanos() as u64;
            waits.as_millis()
        };
        let waits: Vec<_> = (0..11).map(|_| refused(false)).collect();
        assert_eq!(waits, [5, 5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(refused(true), 5);
        watcher.reset();
        assert_eq!([false; 3].map(&mut refused), [5, 5, 10]);
    }
}
