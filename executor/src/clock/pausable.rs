//! The clock of one runtime: the process's, until somebody pauses it. `time` and `sched` read it for whatever is a
//! deadline of the user's; `sched::paused` moves it.
//!
//! 1. A reading never goes back, on any thread, also when the clock is paused or goes on beside it.
//! 2. `word` says all: a reader needs no second look at something else that may have changed meanwhile.
//! 3. While no clock of the process was ever paused a reading costs one load more than the process's.
//!
//! | `word`            | the clock is | it reads                                   | who leaves it               |
//! |-------------------|--------------|--------------------------------------------|-----------------------------|
//! | `value << 1`      | running      | the process's clock plus `value`, signed   | `pause` → pausing           |
//! | [`PAUSING`]       | being paused | nothing: readers wait                      | `pause` → paused            |
//! | `value << 1 \| 1` | paused       | `value`                                    | `resume` → running; `advance`, `advance_to` stay |

use super::now as process_now;
use crate::sys::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sys::atomic::{AtomicBool, AtomicU64};
use crate::sys::{Mutex, const_but_in_models, rank, spin_loop};

const PAUSED: u64 = 1;
/// No reading is negative, so no paused clock looks like this.
const PAUSING: u64 = u64::MAX;

/// 146 years: a clock that is moved goes no further, so that what it is ahead of the process's fits into `word`.
const END: u64 = (1 << 62) - 1;

/// A reader may have been between its reading and its look at `word` when that changed: the processor orders the two
/// within much less than this, in nanoseconds.
const SETTLE_NS: u64 = 2_000;

/// Alone on its line: everybody reads it.
#[repr(align(128))]
struct Alone(AtomicBool);

/// Whether a clock of this process was ever paused.
static EVER_PAUSED: Alone = Alone(AtomicBool::new(false));

/// Whether some runtime's clock may differ from the process's. A look that comes after a reading of the process's clock
/// tells whether that reading stands.
#[inline]
pub(crate) fn was_ever_paused() -> bool {
    EVER_PAUSED.0.load(Relaxed)
}

/// See the head of the file.
pub(crate) struct PausableClock {
    word: AtomicU64,
    /// Held by whoever changes `word`.
    change: Mutex<()>,
}

impl PausableClock {
    const_but_in_models! {
        pub(crate) fn new() -> Self {
            PausableClock { word: AtomicU64::new(0), change: Mutex::new(rank::LEAF, ()) }
        }
    }

    /// Fresh for a runtime.
    pub(crate) fn open(&self, paused: bool) {
        let _change = self.change.lock();
        let word = if paused {
            EVER_PAUSED.0.store(true, Relaxed);
            process_now() << 1 | PAUSED
        } else {
            0
        };
        // Release: pairs with the Acquire in `word`.
        self.word.store(word, Release);
    }

    /// The time, in nanoseconds since the start of the process unless it was paused.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        let real = process_now();
        if was_ever_paused() { self.now_slow() } else { real }
    }

    /// What is due, at a reading of the process's clock that the caller has just made. It may say a little less than
    /// [`now`](Self::now) while the clock goes on again, and never more.
    #[inline]
    pub(crate) fn due_at(&self, real: u64) -> u64 {
        if was_ever_paused() { Self::read(self.word(), real) } else { real }
    }

    #[cold]
    fn now_slow(&self) -> u64 {
        loop {
            let word = self.word();
            let now = Self::read(word, process_now());
            // If it is still the same the clock was not paused before the reading (`SETTLE_NS`), nor went on after it.
            if self.word.load(Relaxed) == word {
                return now;
            }
        }
    }

    fn read(word: u64, real: u64) -> u64 {
        if word & PAUSED != 0 { word >> 1 } else { real.saturating_add_signed(word as i64 >> 1) }
    }

    /// The word of a clock that runs or stands.
    fn word(&self) -> u64 {
        loop {
            // Acquire: pairs with the Release of each change: what the process's clock reads after it comes later.
            let word = self.word.load(Acquire);
            if word != PAUSING {
                return word;
            }
            spin_loop();
        }
    }

    #[inline]
    pub(crate) fn is_paused(&self) -> bool {
        was_ever_paused() && self.word() & PAUSED != 0
    }

    /// Stops the clock. `false`: it stood already.
    pub(crate) fn pause(&self) -> bool {
        let _change = self.change.lock();
        let word = self.word();
        if word & PAUSED != 0 {
            return false;
        }
        EVER_PAUSED.0.store(true, Relaxed);
        // Release: as below.
        self.word.store(PAUSING, Release);
        let begun = process_now();
        let real = loop {
            match process_now() {
                real if real - begun >= SETTLE_NS => break real,
                _ => spin_loop(),
            }
        };
        // Release: pairs with the Acquire in `word`.
        self.word.store(Self::read(word, real) << 1 | PAUSED, Release);
        true
    }

    /// Lets the clock go on from where it stands. `false`: it was not paused.
    pub(crate) fn resume(&self) -> bool {
        let _change = self.change.lock();
        let word = self.word();
        if word & PAUSED == 0 {
            return false;
        }
        let ahead = (word >> 1).wrapping_sub(process_now());
        // Release: pairs with the Acquire in `word`.
        self.word.store(ahead << 1, Release);
        true
    }

    /// Moves a paused clock forward by so many nanoseconds, as far as it goes. `false`: it was not paused.
    pub(crate) fn advance(&self, by: u64) -> bool {
        let _change = self.change.lock();
        let word = self.word();
        let paused = word & PAUSED != 0;
        if paused {
            let to = (word >> 1).saturating_add(by).min(END).max(word >> 1);
            // Release: pairs with the Acquire in `word`.
            self.word.store(to << 1 | PAUSED, Release);
        }
        paused
    }

    /// Moves a paused clock forward to `deadline`, unless it is there or further. `false`: it was not paused.
    pub(crate) fn advance_to(&self, deadline: u64) -> bool {
        let _change = self.change.lock();
        let word = self.word();
        let paused = word & PAUSED != 0;
        if paused && deadline > word >> 1 {
            // Release: pairs with the Acquire in `word`.
            self.word.store(deadline.min(END).max(word >> 1) << 1 | PAUSED, Release);
        }
        paused
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::Relaxed;

    use super::super::now as process_now;
    use super::{END, PAUSED, PausableClock};

    #[test]
    fn r07_a_paused_clock_stands_and_goes_on_from_there() {
        let clock = PausableClock::new();
        clock.open(false);
        assert!(!clock.is_paused() && !clock.resume() && !clock.advance(1) && !clock.advance_to(END));
        let before = clock.now();
        assert!(clock.pause() && !clock.pause());
        let frozen = clock.now();
        assert!(frozen >= before);
        std::thread::yield_now();
        assert_eq!((clock.now(), clock.due_at(process_now())), (frozen, frozen));
        assert!(clock.advance(5));
        assert_eq!(clock.now(), frozen + 5);
        assert!(clock.advance_to(frozen));
        assert_eq!(clock.now(), frozen + 5, "it does not go back");
        assert!(clock.advance_to(frozen + 3_600_000_000_000));
        let hour = clock.now();
        assert_eq!(hour, frozen + 3_600_000_000_000);
        assert!(clock.resume());
        let (first, second) = (clock.now(), clock.now());
        assert!(hour <= first && first <= second, "{hour} {first} {second}");
        while clock.now() == second {}
        // Behind the process's clock too, which went on while this one stood.
        assert!(clock.pause());
        let behind = clock.now();
        let real = process_now();
        while process_now() < real + 3_000_000 {}
        assert!(clock.resume());
        assert!((behind..behind + 3_000_000_000).contains(&clock.now()));
        assert!(clock.advance_to(END) == clock.is_paused());
        assert!(clock.pause() && clock.advance(u64::MAX));
        assert_eq!(clock.now(), END);
        // A clock that goes on from there is beyond it.
        assert!(clock.resume());
        while clock.now() <= END {}
        assert!(clock.pause());
        let beyond = clock.now();
        assert!(clock.advance(1) && clock.advance_to(END));
        assert_eq!(clock.now(), beyond, "it does not go back");
        clock.open(false);
        assert!(!clock.is_paused() && clock.now() <= process_now());
        clock.open(true);
        assert!(clock.is_paused() && clock.now() <= process_now());
    }

    #[test]
    fn r07_an_old_reading_is_not_far_ahead_of_a_clock_that_stood() {
        let clock = PausableClock::new();
        // As it is if nobody has read it before, and the runtime's first thread is slow.
        clock.open(true);
        clock.word.store(PAUSED, Relaxed);
        while process_now() == 0 {}
        assert!(clock.resume());
        assert!(clock.due_at(0) <= clock.now());
    }

    #[test]
    fn r07_readings_never_go_back_beside_pauses() {
        const ROUNDS: usize = 2_000;
        let clock = PausableClock::new();
        clock.open(false);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 0;
                    while !done.load(Relaxed) {
                        let now = clock.now();
                        assert!(now >= last, "{last} then {now}");
                        last = now;
                        assert!(clock.due_at(process_now()) <= clock.now(), "due before its time");
                    }
                });
            }
            for round in 0..ROUNDS {
                assert!(clock.pause());
                if round % 2 == 0 {
                    assert!(clock.advance(round as u64 * 10));
                }
                let frozen = clock.now();
                assert_eq!(clock.now(), frozen);
                assert!(clock.resume());
                assert!(clock.now() >= frozen);
            }
            done.store(true, Relaxed);
        });
    }
}
