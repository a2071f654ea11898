//! Whether a blocking wait looks for a while before it goes to sleep, and for how long. `linux` asks it at each such
//! wait and tells it what came of it.
//!
//! To sleep and to be woken takes as much CPU time as to look for some microseconds, and whoever sends waits for it:
//! where answers come that fast, a request takes half the time for the same CPU time.
//!
//! 1. Nothing relies on it: looking is part of the wait, and takes what the wait would have taken, breaks too.
//! 2. It pays its way: looks that find nothing in time make the next ones rarer, down to one wait in 64, and two in
//!    three have to find something for each wait to have one. A machine that nobody sends to makes none.
//! 3. Where many send, sleep gathers what they send: several events for the price of one wake. A wait that slept and
//!    brought several says so; where all look, one in 128 sleeps to see.
//! 4. Where threads wait for a CPU nobody looks: a thread that sleeps is the first to run again, and one that looks has
//!    used up its turn. It was taken off the CPU, which the gap between two looks shows.

use std::io;
use std::time::Duration;

use crate::clock;
use crate::sys::atomic::AtomicU32;
use crate::sys::atomic::Ordering::Relaxed;

/// So long a wait looks at most, in nanoseconds, unless the user says otherwise: about what it takes to sleep and to be
/// woken on a virtual machine.
const MAX_NS: u64 = 50_000;

/// One of 2^k waits looks, k at most this.
const RARE_MAX: u32 = 6;
/// What k goes up by after looks that found nothing. It goes down by one after those that did.
const IN_VAIN: u32 = 2;

/// So many events at once have been gathered by sleep.
const SEVERAL: usize = 2;
/// One of so many waits sleeps to see, where the others look and find.
const SLEEP_EVERY: u32 = 128;

/// A gap between two looks, in nanoseconds, in which another thread must have had the CPU.
const GAP_NS: u64 = 200_000;
/// So many waits sleep after that.
const CONTENDED: u32 = 1_000;

/// What the waits of a netpoller have learnt.
// Relaxed throughout: only the thread in the blocking wait comes here, and who is there next was given its seat.
pub(super) struct Spin {
    max_ns: u64,
    /// The k of [`RARE_MAX`].
    rare: AtomicU32,
    /// So many waits sleep until the next that looks.
    left_out: AtomicU32,
    /// How many found something, modulo [`SLEEP_EVERY`].
    found: AtomicU32,
}

impl Spin {
    pub(super) fn new(max: Option<Duration>) -> Self {
        let max_ns = max.map_or(MAX_NS, clock::nanos);
        Spin { max_ns, rare: AtomicU32::new(0), left_out: AtomicU32::new(0), found: AtomicU32::new(0) }
    }

    /// Calls `look` until it finds something or its time is over, then `sleep`; `sleep` at once if looks do not pay, or
    /// if the wait is to last no longer than they do. `sleep` is told how long the looks took; both tell how many
    /// events they found.
    pub(super) fn wait(
        &self,
        time: Option<Duration>,
        now: impl Fn() -> u64,
        mut look: impl FnMut() -> io::Result<usize>,
        sleep: impl FnOnce(Duration) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.max_ns == 0 || time.is_some_and(|time| clock::nanos(time) <= self.max_ns) {
            return sleep(Duration::ZERO);
        }
        let mut looked = 0;
        if self.has_its_turn() {
            // What is there already would have been found without sleep.
            let mut count = look()?;
            let start = now();
            let (mut last, mut gap) = (start, 0);
            while count == 0 && last - start < self.max_ns {
                count = look()?;
                let now = now();
                gap = gap.max(now - last);
                last = now;
                if count > 0 {
                    self.found(gap);
                }
            }
            if count > 0 {
                return Ok(count);
            }
            self.in_vain();
            looked = last - start;
        }
        let count = sleep(Duration::from_nanos(looked))?;
        if count >= SEVERAL {
            self.in_vain();
        }
        Ok(count)
    }

    /// Whether this wait is one that looks.
    fn has_its_turn(&self) -> bool {
        let left_out = self.left_out.load(Relaxed);
        self.left_out.store(left_out.saturating_sub(1), Relaxed);
        left_out == 0
    }

    fn found(&self, gap: u64) {
        let rare = self.rare.load(Relaxed).saturating_sub(1);
        self.rare.store(rare, Relaxed);
        let found = (self.found.load(Relaxed) + 1) % SLEEP_EVERY;
        self.found.store(found, Relaxed);
        let sleeps = if gap >= GAP_NS { CONTENDED } else { u32::from(found == 0).max((1 << rare) - 1) };
        self.left_out.store(sleeps, Relaxed);
    }

    fn in_vain(&self) {
        let rare = (self.rare.load(Relaxed) + IN_VAIN).min(RARE_MAX);
        self.rare.store(rare, Relaxed);
        let left_out = self.left_out.load(Relaxed);
        self.left_out.store(left_out.max((1 << rare) - 1), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const MAX: Duration = Duration::from_micros(20);
    const NEVER: u32 = u32::MAX;

    /// Waits, one after the other.
    struct Waits {
        spin: Spin,
        clock: Cell<u64>,
        /// By so many nanoseconds the clock goes on at each look.
        step: u64,
        /// What a sleep brings.
        gathers: usize,
    }

    impl Waits {
        fn new() -> Self {
            Waits { spin: Spin::new(Some(MAX)), clock: Cell::new(0), step: 1_000, gathers: 1 }
        }

        /// How many looks one wait makes, of which the `found_at`th finds something.
        fn one(&self, found_at: u32) -> u32 {
            let (looks, slept) = (Cell::new(0), Cell::new(false));
            let look = || {
                looks.set(looks.get() + 1);
                self.clock.set(self.clock.get() + self.step);
                Ok(usize::from(looks.get() == found_at))
            };
            let sleep = |looked| {
                slept.set(true);
                // The first look is as long as the wait itself would have taken to find something.
                assert_eq!(looked, Duration::from_nanos(self.step) * looks.get().saturating_sub(1));
                Ok(self.gathers)
            };
            let count = self.spin.wait(None, || self.clock.get(), look, sleep).unwrap();
            assert_eq!((slept.get(), count), if looks.get() == found_at { (false, 1) } else { (true, self.gathers) });
            looks.get()
        }

        /// How many of so many waits look.
        fn looking(&self, waits: u32, found_at: u32) -> u32 {
            (0..waits).map(|_| u32::from(self.one(found_at) > 0)).sum()
        }
    }

    #[test]
    fn r08_a_wait_looks_for_its_time_and_no_longer() {
        let waits = Waits::new();
        assert_eq!(waits.one(3), 3);
        assert_eq!(waits.one(NEVER), 1 + 20);
        for (max, time) in [(0, None), (20, Some(20)), (20, Some(1))] {
            let spin = Spin::new(Some(Duration::from_micros(max)));
            let time = time.map(Duration::from_micros);
            assert_eq!(spin.wait(time, || 0, || panic!("a look, {max} of {time:?}"), |_| Ok(7)).unwrap(), 7);
        }
    }

    #[test]
    fn r07_looks_in_vain_are_one_in_64_waits_and_all_look_again_where_they_find_something() {
        let waits = Waits::new();
        assert_eq!((waits.looking(100, NEVER), waits.looking(640, NEVER)), (4, 10));
        let sleeps = 63 + 31 + 15 + 7 + 3 + 1;
        waits.looking(sleeps + RARE_MAX, 2);
        assert_eq!(waits.looking(100, 2), 100);
    }

    #[test]
    fn r08_what_was_there_at_once_is_no_reason_to_look() {
        let waits = Waits::new();
        waits.looking(100, NEVER);
        waits.looking(640, 1);
        assert!(waits.looking(640, NEVER) <= 11);
    }

    #[test]
    fn r08_two_in_three_have_to_find_something() {
        let looking = |found: u32, of: u32| {
            let waits = Waits::new();
            // In no order that the looks could fall in with.
            let finds = |i: u32| (i.wrapping_mul(0x9e37_79b9) >> 16) % of < found;
            (0..10_000).map(|i| u32::from(waits.one(if finds(i) { 2 } else { NEVER }) > 0)).sum::<u32>()
        };
        assert!(looking(9, 10) > 7_000, "{}", looking(9, 10));
        assert!(looking(1, 2) < 2_000, "{}", looking(1, 2));
    }

    #[test]
    fn r08_sleep_gathers_where_many_send_and_that_is_seen() {
        let mut waits = Waits::new();
        assert_eq!(waits.looking(10 * SLEEP_EVERY, 2), 10 * (SLEEP_EVERY - 1) + 1);
        waits.gathers = SEVERAL;
        let found = waits.looking(64_000, 2);
        assert!(found < 64_000 / 64 + 2 * SLEEP_EVERY, "{found}");
    }

    #[test]
    fn r08_nobody_looks_where_threads_wait_for_a_cpu() {
        let mut waits = Waits::new();
        assert_eq!(waits.looking(10, 2), 10);
        waits.step = GAP_NS;
        assert_eq!(waits.one(2), 2);
        waits.step = 1_000;
        assert_eq!(waits.looking(CONTENDED, 2), 0);
        assert_eq!(waits.looking(10, 2), 10);
    }
}
