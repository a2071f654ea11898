//! `Interval`: ticks that come again and again.
//!
//! 1. The schedule is the start and the period. A tick gives the instant at which it was due, not the one at which it
//!    came.
//! 2. A tick is *missed* if it comes a whole period late or 5 ms late, whichever is less. Only then does the behaviour
//!    count: ticks that are late as timers are late keep to the schedule.
//! 3. A tick allocates nothing; making an interval does, once.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::{Instant, Sleep, sleep_until};
use crate::clock::nanos;

/// A tick that comes later than this was missed, however long the period.
const LATE: Duration = Duration::from_millis(5);

/// Ticks every `period`; the first tick comes at once. Go: `time.NewTicker`, whose first tick comes after a period
///
/// # Panics
///
/// If `period` is zero. A tick that is waited for panics as a [`Sleep`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use gmp::time::{Instant, interval};
///
/// gmp::block_on(async {
///     let start = Instant::now();
///     let mut ticks = interval(Duration::from_millis(2));
///     for _ in 0..3 {
///         ticks.tick().await;
///     }
///     assert!(start.elapsed() >= Duration::from_millis(4));
/// });
/// ```
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    interval_at(Instant::now(), period)
}

/// Ticks at `start` and then every `period`.
///
/// # Panics
///
/// If `period` is zero. A tick that is waited for panics as a [`Sleep`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use gmp::time::{Instant, interval_at};
///
/// gmp::block_on(async {
///     let start = Instant::now() + Duration::from_millis(2);
///     let mut ticks = interval_at(start, Duration::from_millis(2));
///     assert_eq!(ticks.tick().await, start);
/// });
/// ```
#[track_caller]
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval's period is zero: it needs one that is longer");
    Interval { next: Box::pin(sleep_until(start)), period, behavior: MissedTickBehavior::default() }
}

/// What an [`Interval`] does about ticks that nobody waited for in time: those that come a whole period late, or 5 ms.
///
/// With a period of 50 ms and a tick that is asked for at 120 ms instead of 50:
///
/// | behaviour | ticks come at |
/// |---|---|
/// | `Burst` | 0, 120, 120, 150, 200 |
/// | `Delay` | 0, 120, 170, 220 |
/// | `Skip`  | 0, 120, 150, 200 |
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use gmp::time::{MissedTickBehavior, interval};
///
/// let mut ticks = interval(Duration::from_millis(50));
/// assert_eq!(ticks.missed_tick_behavior(), MissedTickBehavior::Burst);
/// ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
/// ```
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum MissedTickBehavior {
    /// Missed ticks come at once, one after the other, until the schedule is caught up with.
    #[default]
    Burst,
    /// The next tick comes a period after the late one, and so on from there: the schedule is moved.
    Delay,
    /// Missed ticks are left out; the next one is the next of the schedule. Go: `time.Ticker`
    Skip,
}

impl MissedTickBehavior {
    /// When the next tick is due, after one that was due at `due` and came at `now`.
    fn next(self, due: Instant, now: Instant, period: Duration) -> Instant {
        let late = now.duration_since(due);
        if late < period.min(LATE) {
            return due + period;
        }
        match self {
            MissedTickBehavior::Burst => due + period,
            MissedTickBehavior::Delay => now + period,
            MissedTickBehavior::Skip => {
                // Go: `when + period * (1 + late / period)`.
                let into_period = nanos(late) % nanos(period);
                now + (period - Duration::from_nanos(into_period))
            }
        }
    }
}

/// Ticks made by [`interval`] and [`interval_at`].
///
/// It belongs to the runtime that first waits for a tick, as a [`Sleep`] does.
pub struct Interval {
    /// Until the next tick.
    next: Pin<Box<Sleep>>,
    period: Duration,
    behavior: MissedTickBehavior,
}

impl Interval {
    /// Waits for the next tick and gives the instant at which it was due.
    ///
    /// # Cancel safety
    ///
    /// Strict: dropping it loses no tick.
    ///
    /// # Panics
    ///
    /// As a [`Sleep`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use gmp::time::interval;
    ///
    /// gmp::block_on(async {
    ///     let mut ticks = interval(Duration::from_millis(1));
    ///     let first = ticks.tick().await;
    ///     assert_eq!(ticks.tick().await, first + Duration::from_millis(1));
    /// });
    /// ```
    pub async fn tick(&mut self) -> Instant {
        poll_fn(|cx| self.poll_tick(cx)).await
    }

    /// [`Interval::tick`] as a poll. The waker of the last call is the one that is woken.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use gmp::time::interval;
    ///
    /// gmp::block_on(async {
    ///     let mut ticks = interval(Duration::from_millis(1));
    ///     std::future::poll_fn(|cx| ticks.poll_tick(cx)).await;
    /// });
    /// ```
    pub fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        ready!(self.next.as_mut().poll(cx));
        let due = self.next.deadline();
        let next = self.behavior.next(due, Instant::now(), self.period);
        self.next.as_mut().reset(next);
        Poll::Ready(due)
    }

    /// The next tick comes a period from now, and the others after it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use gmp::time::{Instant, interval};
    ///
    /// gmp::block_on(async {
    ///     let mut ticks = interval(Duration::from_millis(2));
    ///     let before = Instant::now();
    ///     ticks.reset();
    ///     assert!(ticks.tick().await >= before + Duration::from_millis(2));
    /// });
    /// ```
    pub fn reset(&mut self) {
        self.reset_at(Instant::now() + self.period);
    }

    /// The next tick comes at once, and the others after it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use gmp::time::interval;
    ///
    /// gmp::block_on(async {
    ///     let mut ticks = interval(Duration::from_secs(3600));
    ///     ticks.tick().await;
    ///     ticks.reset_immediately();
    ///     ticks.tick().await;
    /// });
    /// ```
    pub fn reset_immediately(&mut self) {
        self.reset_at(Instant::now());
    }

    /// The next tick comes `after` from now, and the others after it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use gmp::time::interval;
    ///
    /// gmp::block_on(async {
    ///     let mut ticks = interval(Duration::from_secs(3600));
    ///     ticks.tick().await;
    ///     ticks.reset_after(Duration::from_millis(1));
    ///     ticks.tick().await;
    /// });
    /// ```
    pub fn reset_after(&mut self, after: Duration) {
        self.reset_at(Instant::now() + after);
    }

    /// The next tick comes at `deadline`, and the others after it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use gmp::time::{Instant, interval};
    ///
    /// gmp::block_on(async {
    ///     let mut ticks = interval(Duration::from_secs(3600));
    ///     let deadline = Instant::now() + Duration::from_millis(1);
    ///     ticks.reset_at(deadline);
    ///     assert_eq!(ticks.tick().await, deadline);
    /// });
    /// ```
    pub fn reset_at(&mut self, deadline: Instant) {
        self.next.as_mut().reset(deadline);
    }

    /// What it does about missed ticks.
    ///
    /// # Examples
    ///
    /// ```
    /// use gmp::time::{MissedTickBehavior, interval};
    ///
    /// let ticks = interval(std::time::Duration::from_secs(1));
    /// assert_eq!(ticks.missed_tick_behavior(), MissedTickBehavior::Burst);
    /// ```
    #[must_use]
    pub fn missed_tick_behavior(&self) -> MissedTickBehavior {
        self.behavior
    }

    /// Says what it does about missed ticks from here on.
    ///
    /// # Examples
    ///
    /// ```
    /// use gmp::time::{MissedTickBehavior, interval};
    ///
    /// let mut ticks = interval(std::time::Duration::from_secs(1));
    /// ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    /// assert_eq!(ticks.missed_tick_behavior(), MissedTickBehavior::Delay);
    /// ```
    pub fn set_missed_tick_behavior(&mut self, behavior: MissedTickBehavior) {
        self.behavior = behavior;
    }

    /// The time between two ticks.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// assert_eq!(gmp::time::interval(Duration::from_secs(1)).period(), Duration::from_secs(1));
    /// ```
    #[must_use]
    pub fn period(&self) -> Duration {
        self.period
    }
}

impl fmt::Debug for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interval")
            .field("next", &self.next.deadline())
            .field("period", &self.period)
            .field("missed_tick_behavior", &self.behavior)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Instant, MissedTickBehavior};

    #[test]
    fn r07_where_the_next_tick_is() {
        use MissedTickBehavior::{Burst, Delay, Skip};
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let period = Duration::from_millis(50);
        let next = |behavior: MissedTickBehavior, came| behavior.next(at(0), at(came), period);
        for behavior in [Burst, Delay, Skip] {
            assert_eq!(next(behavior, 0), at(50));
            assert_eq!(next(behavior, 4), at(50), "late as timers are late");
        }
        assert_eq!([Burst, Delay, Skip].map(|b| next(b, 10)), [at(50), at(60), at(50)]);
        assert_eq!([Burst, Delay, Skip].map(|b| next(b, 50)), [at(50), at(100), at(100)]);
        assert_eq!([Burst, Delay, Skip].map(|b| next(b, 120)), [at(50), at(170), at(150)]);
        // A short period is missed as a whole before 5 ms are over.
        let short = Duration::from_millis(2);
        assert_eq!([Burst, Delay, Skip].map(|b| b.next(at(0), at(3), short)), [at(2), at(5), at(4)]);
        assert_eq!(Skip.next(at(0), at(1), short), at(2));
    }

    #[test]
    fn r07_a_period_beyond_the_end_of_time_ticks_once() {
        let now = Instant::now();
        let never = now + Duration::MAX;
        for behavior in [MissedTickBehavior::Burst, MissedTickBehavior::Delay, MissedTickBehavior::Skip] {
            for late in [Duration::ZERO, Duration::from_secs(3600)] {
                assert_eq!(behavior.next(now, now + late, Duration::MAX), never);
            }
        }
    }
}
