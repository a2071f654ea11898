//! When the owner of a processor looks around: at the clock, the timers, the global queue and the netpoller, between
//! two picks. `Worker::find` asks and looks; the watcher, thieves and those who wake read how long ago that was, and
//! whether picks take long.
//!
//! 1. A look comes after [`LOOK_EVERY_MAX`] picks at the latest, and at the next pick after [`Processor::look_soon`].
//! 2. Looks come 50 to 200 µs apart, as far as picks allow it: the distance in picks follows the time that has passed.
//! 3. After a look that something long came before, each pick has one, for an eighth of that time: of many polls the
//!    long one is not known, and there may be another. Not if it was long because it has spawned so many.

use super::Processor;
use crate::sys::atomic::Ordering::Relaxed;

/// At most so many picks lie between two looks at clock, timers, global queue and netpoller (Go: 61).
pub(super) const LOOK_EVERY_MAX: u32 = 61;
/// Looks that come closer than this, in nanoseconds, are made rarer; those further apart than the next, denser.
const LOOK_NS_MIN: u64 = 50_000;
pub(super) const LOOK_NS_MAX: u64 = 200_000;
/// A busy processor looks at the netpoller, which costs a system call, when nobody has for so long, in nanoseconds, and
/// at one in so many looks in any case.
const NETPOLL_NS: u64 = 2_000_000;
const NETPOLL_LOOKS: u32 = 16;
/// Polls that take longer than this, in nanoseconds and on average, are long: a system call beside them is nothing.
pub(crate) const LONG_NS: u64 = 500_000;
/// A task that spawns more than so many others in a poll is better off on a processor, which has a queue for them.
pub(crate) const SPAWNS_MAX: u64 = 64;
/// Each pick has a look for this share of the time that was long. Beside short polls looks cost more than they do.
const DENSE_SHARE: u64 = 8;
/// A processor whose picks take longer than this, in nanoseconds and on average, is slow: it is not worth waiting for.
const SLOW_PICK_NS: u64 = 20_000;

/// What [`Processor::looked`] says of a look.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LookAt {
    /// To look at the netpoller too.
    pub(crate) netpoll: bool,
    /// The polls since the last look took long, on average.
    pub(crate) after_long_polls: bool,
    /// There was one poll since the last look, and it took long.
    pub(crate) after_one_long_poll: bool,
    /// To wake a machine for what is queued, whether or not that paid the last times.
    pub(crate) probe: bool,
}

impl Processor {
    // Any thread.

    /// When the processor was taken, or somebody last looked around on it.
    pub(crate) fn looked_at(&self) -> u64 {
        self.own.last_look.load(Relaxed)
    }

    /// Picks take long, or one poll was seen twice.
    #[inline]
    pub(crate) fn is_slow(&self) -> bool {
        self.seen.slow.load(Relaxed)
    }

    /// [`Processor::is_slow`], for one wake. If it is true that picks take long, a look comes with each of them and
    /// says so again; if the machine had only been preempted, that costs one wake and not many.
    #[inline]
    pub(crate) fn take_slow(&self) -> bool {
        let slow = self.is_slow();
        if slow {
            self.seen.slow.store(false, Relaxed);
        }
        slow
    }

    /// `sysmon` saw one poll at two looks.
    pub(crate) fn mark_slow(&self) {
        self.seen.slow.store(true, Relaxed);
    }

    // Owner.

    /// The next pick looks around first.
    pub(crate) fn look_soon(&self) {
        self.own.looks_in.store(0, Relaxed);
    }

    /// Counts a pick down; tells whether it is time to look around.
    #[inline]
    pub(crate) fn is_look_due(&self) -> bool {
        let left = self.own.looks_in.load(Relaxed);
        if left == 0 {
            return true;
        }
        self.own.looks_in.store(left - 1, Relaxed);
        false
    }

    /// How many picks there are from one look to the next.
    pub(crate) fn look_every(&self) -> usize {
        self.own.look_every.load(Relaxed) as usize
    }

    /// A look happens at `now`: sets the distance to the next one so that they come 50 to 200 µs apart, and tells what
    /// to look at. At the netpoller somebody last looked at `netpolled_at`.
    pub(crate) fn looked(&self, now: u64, netpolled_at: u64) -> LookAt {
        let every = self.own.look_every.load(Relaxed);
        let passed = now.saturating_sub(self.own.last_look.load(Relaxed));
        self.own.last_look.store(now, Relaxed);
        // Once may be a preempted thread; twice in a row is a processor with long polls.
        let slow = passed > u64::from(every) * SLOW_PICK_NS;
        self.seen.slow.store(slow && self.own.was_slow.load(Relaxed), Relaxed);
        self.own.was_slow.store(slow, Relaxed);
        let probe = self.may_probe(now, every, passed);
        let is_long = passed > u64::from(every) * LONG_NS;
        let after_one_long_poll = is_long && every == 1;
        // One of them, however slow the others were.
        let spawned = self.own.counters.spawned.get();
        let spawns = spawned.wrapping_sub(self.own.spawned_before.load(Relaxed)) > SPAWNS_MAX;
        self.own.spawned_before.store(spawned, Relaxed);
        if passed > LONG_NS + u64::from(every) * SLOW_PICK_NS && !spawns {
            self.own.dense_until.store(now + passed / DENSE_SHARE, Relaxed);
        }
        let every = if now < self.own.dense_until.load(Relaxed) {
            1
        } else if passed < LOOK_NS_MIN {
            (every * 2).min(LOOK_EVERY_MAX)
        } else if passed > LOOK_NS_MAX {
            // At once: the picks between two looks may be long polls.
            (u64::from(every) * LOOK_NS_MAX / 2 / passed).max(1) as u32
        } else {
            every
        };
        self.own.look_every.store(every, Relaxed);
        self.own.looks_in.store(every - 1, Relaxed);
        self.own.counters.looks.add(1);
        let without = self.own.looks_without_netpoll.load(Relaxed) + 1;
        let netpoll_after = if is_long { LOOK_NS_MIN } else { NETPOLL_NS };
        let netpoll = now.saturating_sub(netpolled_at) >= netpoll_after || without >= NETPOLL_LOOKS;
        self.own.looks_without_netpoll.store(if netpoll { 0 } else { without }, Relaxed);
        LookAt { netpoll, after_long_polls: is_long, after_one_long_poll, probe }
    }
}

#[cfg(all(test, not(gmp_loom)))]
mod tests {
    use super::*;
    use crate::processor::backoff::tests::processor;

    #[test]
    fn r03_a_long_poll_among_short_ones_is_found_when_it_comes_again() {
        const SHORT_NS: u64 = 100;
        let p = processor();
        let mut now = 1_000_000;
        p.taken(now);
        // Tells how many looks there were, and whether one came after one long poll alone.
        let mut picks = |n, ns| {
            let mut seen = (0, false);
            for _ in 0..n {
                now += ns;
                if p.is_look_due() {
                    seen = (seen.0 + 1, seen.1 | p.looked(now, now).after_one_long_poll);
                }
            }
            seen
        };
        picks(1000, SHORT_NS);
        let rare = picks(1000, SHORT_NS);
        picks(1, 4 * LONG_NS);
        // Until the next look it is not known.
        let (until_look, dense) = (u64::from(LOOK_EVERY_MAX), 4 * LONG_NS / DENSE_SHARE / SHORT_NS);
        let looks = picks(dense, SHORT_NS);
        assert!(!looks.1 && looks.0 >= dense - until_look, "{looks:?}");
        assert!(picks(1, 2 * LONG_NS).1);
        // Where none comes, looks are as rare as before.
        picks(dense + 1000, SHORT_NS);
        picks(61, SLOW_PICK_NS);
        picks(1000, SHORT_NS);
        p.counters().spawned.add(SPAWNS_MAX + 1);
        picks(1, 4 * LONG_NS);
        picks(200, SHORT_NS);
        let again = picks(1000, SHORT_NS);
        assert!(again.0.abs_diff(rare.0) <= 1 && rare.0 <= 1000 / until_look + 1, "{rare:?} {again:?}");
    }
}
