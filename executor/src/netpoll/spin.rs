//! Whether a blocking wait looks for a while before it goes to sleep, and for how long. `linux` asks it at each such
//! wait and tells it what came of it.
//!
//! To sleep and to be woken takes as much CPU time as to look for some microseconds, and whoever sends waits for it:
//! where answers come that fast, a request takes half the time for about the same CPU time.
//!
//! 1. Nothing relies on it: looking is part of the wait, and takes what the wait would have taken, breaks too.
//! 2. It pays its way: looks that find nothing in time make the next ones rarer, down to one for 64 waits that sleep,
//!    and two in three have to find something for each wait to have one. One that only timers wake makes no more than
//!    that, one that nothing wakes makes none.
//! 3. Where many send, sleep gathers what they send: several events for the price of one wake. So before each look that
//!    is rare a wait that sleeps is asked, and where all look, one in 128 sleeps to be asked.
//! 4. Where what comes is far off nobody looks: the two waits before a look that is rare are asked how long they slept,
//!    and if both did for longer than looks and a wake at either end, it is left out and later ones asked.
//! 5. Where all look, and find something so late that to sleep would be cheaper, nobody looks for a while.
//! 6. Where threads wait for a CPU nobody looks: a thread that sleeps is the first to run again, and one that looks has
//!    used up its turn. It was taken off the CPU, which the gap between two looks shows.

use std::io;
use std::time::Duration;

use crate::clock;
use crate::sys::atomic::Ordering::Relaxed;
use crate::sys::atomic::{AtomicBool, AtomicU32, AtomicU64};

/// So long a wait looks at most, in nanoseconds, unless the user says otherwise: about what it takes to sleep and to be
/// woken on a virtual machine.
const MAX_NS: u64 = 50_000;

/// While `Spin::rare` is 0 each wait looks, else one after 2^(rare - 1) that sleep; at most this, and so at first.
const RARE_MAX: u32 = 7;
/// What it goes up by after looks that found nothing, or sleep that gathered. It goes down by one after those that did.
const IN_VAIN: u32 = 2;

/// So many events at once have been gathered by sleep.
const SEVERAL: usize = 2;
/// One of so many waits sleeps to see, where the others look and find.
const SLEEP_EVERY: u32 = 128;

/// A wait that slept so much longer than looks last says that they would have found nothing, in nanoseconds: it takes
/// a wake until the other side sends, and one until this one runs.
const WAKES_NS: u64 = 100_000;

/// So many finds are asked how long looks took: if that was more than half of [`MAX_NS`] on average, or of what the
/// user asked for if that is more, to sleep and to be woken is less, and not much later.
const ASKED: u32 = 64;

/// A gap between two looks, in nanoseconds, in which another thread must have had the CPU.
const GAP_NS: u64 = 200_000;
/// So many waits sleep after that, and twice as many each time that it comes again soon, up to the fourth.
const CONTENDED: u32 = 1_000;
const CONTENDED_MAX: u32 = 4;
/// So many looks that find something between two gaps say that they are chance.
const RUN: u32 = 4_096;

/// What the waits of a netpoller have learnt.
// Relaxed throughout: only the thread in the blocking wait comes here, and who is there next was given its seat.
pub(super) struct Spin {
    max_ns: u64,
    /// See [`RARE_MAX`].
    rare: AtomicU32,
    /// So many waits sleep until the next that looks.
    left_out: AtomicU32,
    /// How many found something since the last gap.
    found: AtomicU32,
    /// The doublings of [`CONTENDED`].
    contended: AtomicU32,
    /// How many finds were asked since the last judgement or pause, and how long the looks for them took together, in
    /// nanoseconds.
    asked: AtomicU32,
    spent: AtomicU64,
    /// The last wait that was asked slept for too long for looks to find anything.
    was_long: AtomicBool,
}

/// How many waits sleep until the next that looks.
fn sleeps(rare: u32) -> u32 {
    rare.checked_sub(1).map_or(0, |doublings| 1 << doublings)
}

/// What a wait does.
#[derive(PartialEq, Eq)]
enum Turn {
    Look,
    Sleep,
    /// One of the two before one looks: they say how long sleep is, and the last of them whether it gathers.
    SleepAndSee {
        last: bool,
    },
}

impl Spin {
    pub(super) fn new(max: Option<Duration>) -> Self {
        Spin {
            max_ns: max.map_or(MAX_NS, clock::nanos),
            rare: AtomicU32::new(RARE_MAX),
            left_out: AtomicU32::new(sleeps(RARE_MAX)),
            found: AtomicU32::new(0),
            contended: AtomicU32::new(0),
            asked: AtomicU32::new(0),
            spent: AtomicU64::new(0),
            was_long: AtomicBool::new(false),
        }
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
        let turn = self.turn();
        let mut looked = 0;
        if turn == Turn::Look {
            // What is there already would have been found without sleep.
            let mut count = look()?;
            if count > 0 {
                return Ok(count);
            }
            let start = now();
            let (mut last, mut gap) = (start, 0);
            while count == 0 && last - start < self.max_ns && gap < GAP_NS {
                count = look()?;
                let now = now();
                gap = gap.max(now - last);
                last = now;
            }
            let is_late = count > 0 && self.is_late(last - start);
            if !is_late {
                self.learn(count > 0, gap);
            }
            if count > 0 {
                return Ok(count);
            }
            looked = last - start;
        }
        let looked = Duration::from_nanos(looked);
        let Turn::SleepAndSee { last } = turn else { return sleep(looked) };
        let start = now();
        let count = sleep(looked)?;
        let is_long = now() - start > self.max_ns.saturating_add(WAKES_NS);
        let was_long = self.was_long.load(Relaxed);
        self.was_long.store(is_long, Relaxed);
        if last && count >= SEVERAL {
            self.learn(false, 0);
        } else if last && is_long && was_long {
            // No look in vain was made, so they get no rarer. One wait more than from look to look: what comes in the
            // rhythm of a power of two would be met at one point only.
            self.left_out.store(sleeps(self.rare.load(Relaxed)) + 1, Relaxed);
        }
        Ok(count)
    }

    fn turn(&self) -> Turn {
        let left_out = self.left_out.load(Relaxed);
        self.left_out.store(left_out.saturating_sub(1), Relaxed);
        match left_out {
            0 => Turn::Look,
            1 | 2 => Turn::SleepAndSee { last: left_out == 1 },
            _ => Turn::Sleep,
        }
    }

    /// How many waits sleep until the next that looks.
    #[cfg(test)]
    pub(super) fn left_out(&self) -> u32 {
        self.left_out.load(Relaxed)
    }

    /// Looks have found something, or it was better to sleep; `gap` is the longest time between two of them.
    fn learn(&self, found: bool, gap: u64) {
        let finds = self.found.load(Relaxed) + u32::from(found);
        // From a run on it counts in a circle, of which `SLEEP_EVERY` is a part.
        self.found.store(if finds == 2 * RUN { RUN } else { finds }, Relaxed);
        if gap >= GAP_NS {
            return self.pause(finds);
        }
        let rare = self.rare.load(Relaxed);
        let rare = if found { rare.saturating_sub(1) } else { (rare + IN_VAIN).min(RARE_MAX) };
        self.rare.store(rare, Relaxed);
        let to_see = u32::from(found && finds % SLEEP_EVERY == 0);
        self.left_out.store(sleeps(rare).max(to_see), Relaxed);
    }

    /// Looks have found something after so long, in nanoseconds. Where all waits look: whether that is too late on
    /// average, and they do no more.
    fn is_late(&self, looked: u64) -> bool {
        if self.rare.load(Relaxed) > 0 {
            return false;
        }
        let (asked, spent) = (self.asked.load(Relaxed) + 1, self.spent.load(Relaxed) + looked);
        let is_over = asked == ASKED;
        self.asked.store(if is_over { 0 } else { asked }, Relaxed);
        self.spent.store(if is_over { 0 } else { spent }, Relaxed);
        let is_late = is_over && spent / u64::from(ASKED) > self.max_ns.max(MAX_NS) / 2;
        if is_late {
            self.pause(self.found.load(Relaxed));
        }
        is_late
    }

    /// Nobody looks for a while, which is longer each time that it comes again soon. What was asked is forgotten: what
    /// came while a thread had no CPU was not late.
    fn pause(&self, finds: u32) {
        let again = if finds < RUN { self.contended.load(Relaxed) } else { 0 };
        self.contended.store((again + 1).min(CONTENDED_MAX), Relaxed);
        self.found.store(0, Relaxed);
        self.asked.store(0, Relaxed);
        self.spent.store(0, Relaxed);
        self.rare.store(RARE_MAX, Relaxed);
        self.left_out.store(CONTENDED << again, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const MAX: Duration = Duration::from_micros(20);
    const NEVER: u32 = u32::MAX;
    /// The longest sleep after which looks are tried.
    const LONG: u64 = 20_000 + WAKES_NS;

    /// Waits, one after the other.
    struct Waits {
        spin: Spin,
        clock: Cell<u64>,
        /// By so many nanoseconds the clock goes on at each look.
        step: u64,
        /// What a sleep brings.
        gathers: usize,
        /// How long it is.
        sleep: u64,
    }

    impl Waits {
        fn new() -> Self {
            Waits::up_to(MAX)
        }

        fn up_to(max: Duration) -> Self {
            Waits { spin: Spin::new(Some(max)), clock: Cell::new(0), step: 1_000, gathers: 1, sleep: LONG }
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
                self.clock.set(self.clock.get() + self.sleep);
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

    /// All look.
    fn paying() -> Waits {
        paying_up_to(MAX)
    }

    fn paying_up_to(max: Duration) -> Waits {
        let waits = Waits::up_to(max);
        waits.looking(2 * (64 + 32 + 16 + 8 + 4 + 2), 2);
        waits
    }

    #[test]
    fn r08_a_wait_looks_for_its_time_and_no_longer() {
        let waits = paying();
        assert_eq!(waits.one(3), 3);
        assert_eq!(waits.one(NEVER), 1 + 20);
        for (max, time) in [(0, None), (20, Some(20)), (20, Some(1))] {
            let spin = Spin::new(Some(Duration::from_micros(max)));
            let time = time.map(Duration::from_micros);
            for _ in 0..100 {
                assert_eq!(spin.wait(time, || 0, || panic!("a look, {max} of {time:?}"), |_| Ok(7)).unwrap(), 7);
            }
        }
    }

    #[test]
    fn r07_looks_in_vain_are_one_in_65_waits_and_all_look_where_they_find_something() {
        let waits = Waits::new();
        assert_eq!(waits.looking(650, NEVER), 10, "from the start");
        let waits = paying();
        assert!(waits.looking(100, 2) >= 99);
        assert_eq!(waits.looking(1 + 2 + 1 + 8 + 1 + 32 + 1, NEVER), 4);
        assert_eq!(waits.looking(650, NEVER), 10);
    }

    #[test]
    fn r08_what_was_there_at_once_is_no_reason_to_look() {
        let waits = Waits::new();
        waits.looking(640, 1);
        assert!(waits.looking(650, NEVER) <= 11);
    }

    #[test]
    fn r08_two_in_three_have_to_find_something() {
        let looking = |finds: &dyn Fn(u32) -> bool| {
            let waits = paying();
            (0..10_000).map(|i| u32::from(waits.one(if finds(i) { 2 } else { NEVER }) > 0)).sum::<u32>()
        };
        // In no order that the looks could fall in with.
        let random = |i: u32, of: u32| (i.wrapping_mul(0x9e37_79b9) >> 16) % of;
        let (most, half) = (looking(&|i| random(i, 10) > 0), looking(&|i| random(i, 2) > 0));
        assert!(most > 6_000 && half < 2_000, "{most} {half}");
        // In one with which they could.
        for of in [4, 8, 16] {
            let most = looking(&|i| i % of > 0);
            assert!(most > 5_000, "{most} of {of}");
        }
    }

    #[test]
    fn r08_sleep_gathers_where_many_send_and_that_is_seen() {
        let mut waits = paying();
        let all = waits.looking(10 * SLEEP_EVERY, 2);
        assert!((10 * (SLEEP_EVERY - 1)..10 * SLEEP_EVERY).contains(&all), "{all}");
        // After any number of finds.
        assert!(waits.looking(3 * RUN, 2) < 3 * RUN);
        assert!(waits.looking(2 * SLEEP_EVERY, 2) < 2 * SLEEP_EVERY);
        waits.gathers = SEVERAL;
        let found = waits.looking(64_000, 2);
        assert!(found < 64_000 / 64 + SLEEP_EVERY, "{found}");
        waits.gathers = 1;
        waits.looking(1_000, 2);
        assert!(waits.looking(100, 2) >= 99);
    }

    #[test]
    fn r08_nobody_looks_where_sleep_is_long_and_short_sleep_is_seen() {
        let mut waits = Waits::new();
        waits.sleep = LONG + 1;
        assert_eq!(waits.looking(10_000, 2), 0, "from the start");
        waits.sleep = LONG;
        waits.looking(64 + 2 * (64 + 32 + 16 + 8 + 4 + 2), 2);
        assert!(waits.looking(100, 2) >= 99);
        // Two looks in vain at most: one, and one that follows a short sleep of before.
        waits.sleep = LONG + 1;
        assert!(waits.looking(10_000, NEVER) <= 2);
        // And soon again.
        waits.sleep = LONG;
        waits.looking(20, 2);
        assert!(waits.looking(100, 2) >= 99);
    }

    #[test]
    fn r08_long_sleep_in_a_rhythm_does_not_hide_the_others() {
        let rhythms = [(4, 1), (8, 1), (16, 1), (16, 2), (64, 1), (64, 2)];
        for (of, run, at) in rhythms.into_iter().flat_map(|(of, run)| (0..of).map(move |at| (of, run, at))) {
            let (mut waits, mut all) = (Waits::new(), 0);
            for i in 0..10_000 {
                let is_long = (i + at) % of < run;
                waits.sleep = LONG + u64::from(is_long);
                all += u32::from(waits.one(if is_long { NEVER } else { 2 }) > 0);
            }
            assert!(all > 5_000, "{all}, {run} of {of} from {at}");
        }
    }

    #[test]
    fn r08_nobody_looks_where_it_takes_long_to_find_something() {
        // Half of the time, and more, and never of less than looks take by themselves.
        for (max, early, late) in [(100, 51, Some(52)), (50, 26, Some(27)), (20, 20, None)] {
            let waits = paying_up_to(Duration::from_micros(max));
            assert!(waits.looking(10_000, early) > 9_000);
            if let Some(late) = late {
                let share = waits.looking(10_000, late);
                assert!(share < 1_500, "{share}");
            }
        }
        // Some are late, most are not.
        let waits = paying_up_to(Duration::from_micros(50));
        let all: u32 = (0..10_000).map(|i| waits.looking(1, if i % 4 == 0 { 45 } else { 13 })).sum();
        assert!(all > 9_000, "{all}");
    }

    #[test]
    fn r08_looks_may_be_as_long_as_can_be() {
        let waits = paying_up_to(Duration::MAX);
        assert!(waits.looking(1_000, 40) > 900);
    }

    #[test]
    fn r08_what_comes_while_a_thread_is_off_the_cpu_is_not_late() {
        let mut waits = paying_up_to(Duration::from_micros(50));
        waits.step = 4_000_000;
        assert_eq!(waits.one(2), 2);
        waits.step = 1_000;
        assert_eq!(waits.looking(CONTENDED, 2), 0);
        // Once, and not once more when those of before are counted too.
        waits.looking(2 * (64 + 32 + 16 + 8 + 4 + 2) + ASKED, 2);
        assert!(waits.looking(100, 2) >= 99);
    }

    #[test]
    fn r08_nobody_looks_where_threads_wait_for_a_cpu() {
        for found_at in [2, NEVER] {
            let mut waits = paying();
            // It comes again soon, and at last after a long time without.
            for doubled in [1, 2, 4, 8, 16, 16] {
                waits.step = GAP_NS;
                assert!(waits.one(found_at) > 0);
                waits.step = 1_000;
                assert_eq!(waits.looking(CONTENDED * doubled, 2), 0);
            }
            waits.looking(2 * RUN, 2);
            waits.step = GAP_NS;
            while waits.one(found_at) == 0 {}
            waits.step = 1_000;
            assert_eq!(waits.looking(CONTENDED, 2), 0);
            assert!(waits.one(2) > 0);
        }
    }
}
