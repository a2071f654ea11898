//! Whether it pays that machines come to a processor. It knows by those that came: `ready` asks before it wakes one,
//! and thieves before they steal.
//!
//! 1. k goes up when a machine that was woken for this processor finds nothing, and when what a thief has taken was
//!    less than the theft costs; it goes to 0 when a theft paid, or the owner's picks take long.
//! 2. With k above 0 the processor is spared: only one of 2^k wakes happens, a thief gives the owner time to come to
//!    what is queued, and a machine that goes idle does not come back for it. The owner runs it in any case. If it is
//!    in a long poll, or in picks so long that its next look is far, the watcher sees that; if its tasks are others by
//!    now, a look in so many wakes a machine, and all is as before.

use super::Processor;
use super::look::LOOK_NS_MAX;
use crate::sys::atomic::Ordering::Relaxed;

/// After 2^k wakes without a theft that paid a machine may be woken again, k at most this.
const BACKOFF_MAX: u32 = 12;
/// Picks that take longer than this, in nanoseconds and on average, are worth a machine of their own.
const WORTH_PICK_NS: u64 = 5_000;
/// Looks of a spared processor that wake a machine for what is queued are so far apart, in nanoseconds, and the first
/// from when it was taken: one that was idle meanwhile has no tasks that wait.
const PROBE_NS: u64 = 1_000_000;
/// After so many of these looks a thief has no patience once: tasks that always come to their turn within it may be
/// better off apart nevertheless.
const TRY_EVERY: u32 = 16;
/// A spared processor is given so long, in nanoseconds and twice that for each k up to the third, to come to what is
/// queued.
const PATIENCE_NS: u64 = 5_000;
const PATIENCE_MAX: u32 = 3;

impl Processor {
    // Any thread.

    /// Invariant 2.
    #[inline]
    pub(crate) fn is_spared(&self) -> bool {
        self.seen.backoff.load(Relaxed) != 0
    }

    /// How long, in nanoseconds, a thief waits for the owner of a spared processor.
    pub(crate) fn patience(&self) -> u64 {
        PATIENCE_NS << self.seen.backoff.load(Relaxed).min(PATIENCE_MAX)
    }

    /// Whether a thief is to steal without patience, to see if that pays. Asked once for each time.
    #[cold]
    pub(crate) fn take_try(&self) -> bool {
        let tries = self.seen.tries.load(Relaxed);
        if tries {
            self.seen.tries.store(false, Relaxed);
        }
        tries
    }

    /// A machine came for nothing, or for less than it costs.
    pub(crate) fn raise_backoff(&self) {
        let k = self.seen.backoff.load(Relaxed);
        self.seen.backoff.store((k + 1).min(BACKOFF_MAX), Relaxed);
    }

    /// It paid a machine to come.
    pub(crate) fn reset_backoff(&self) {
        if self.is_spared() {
            self.seen.backoff.store(0, Relaxed);
        }
    }

    /// Whether a look is due by the clock at `now` and would find that picks take long. By their number it may be 60 of
    /// them away.
    pub(crate) fn is_look_missed(&self, now: u64) -> bool {
        let picks = self.own.look_every.load(Relaxed).saturating_sub(self.own.looks_in.load(Relaxed));
        let passed = now.saturating_sub(self.looked_at());
        passed > LOOK_NS_MAX && passed > u64::from(picks) * WORTH_PICK_NS
    }

    // Owner.

    /// Whether a machine may be woken for what was just queued: always, until machines come for nothing.
    #[inline]
    pub(crate) fn may_wake(&self) -> bool {
        let passed = self.own.wakes_passed.load(Relaxed);
        let may = passed >= (1 << self.seen.backoff.load(Relaxed)) - 1;
        self.own.wakes_passed.store(if may { 0 } else { passed + 1 }, Relaxed);
        may
    }

    /// At a look at `now`, `picks` picks and `passed` nanoseconds after the last: whether to wake a machine for what is
    /// queued, if it paid the last times or not. Not for a lone task: its own machine comes to it next, however long
    /// picks take.
    pub(super) fn may_probe(&self, now: u64, picks: u32, passed: u64) -> bool {
        if !self.is_spared() || self.queue.len_seen() < 2 {
            return false;
        }
        let worth = passed > u64::from(picks) * WORTH_PICK_NS;
        if worth {
            self.reset_backoff();
        }
        worth || now.saturating_sub(self.own.last_probe.load(Relaxed)) >= PROBE_NS
    }

    /// A machine is about to be woken at a look.
    pub(crate) fn probes(&self, now: u64) {
        self.own.last_probe.store(now, Relaxed);
        let probes = self.own.probes.load(Relaxed).wrapping_add(1);
        self.own.probes.store(probes, Relaxed);
        if probes % TRY_EVERY == 0 {
            self.seen.tries.store(true, Relaxed);
        }
    }
}

#[cfg(all(test, not(gmp_loom)))]
pub(super) mod tests;
