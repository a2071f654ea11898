//! `Instant`: a point on the runtime's clock.

use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

use crate::clock::{self, NEVER};
use crate::context;

/// A point in time, in nanoseconds, on a clock that never goes back.
///
/// It is [`std::time::Instant`] with arithmetic that saturates instead of panicking, 292 years before and after the
/// start of the process: `Instant::now() + Duration::MAX` is an instant that never comes. The two convert into each
/// other; one of std's that was read while the clock of the runtime is [paused](super::pause) is ahead of it. Go:
/// `time.Time`, its monotonic reading
///
/// ```
/// use std::time::Duration;
/// use gmp::time::Instant;
///
/// let start = Instant::now();
/// let deadline = start + Duration::from_millis(20);
/// assert_eq!(deadline - start, Duration::from_millis(20));
/// assert_eq!(start - deadline, Duration::ZERO);
/// assert!(start + Duration::MAX > deadline);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant {
    /// Nanoseconds from the clock's start, negative before it. The greatest value is never.
    ns: i64,
}

impl Instant {
    const FAR: Instant = Instant { ns: i64::MAX };

    /// The present. Reads the clock: that of the current runtime, which is the process's unless it was
    /// [paused](super::pause).
    ///
    /// ```
    /// let start = gmp::time::Instant::now();
    /// assert!(gmp::time::Instant::now() >= start);
    /// ```
    #[must_use]
    #[inline]
    pub fn now() -> Instant {
        Instant { ns: i64::try_from(context::now()).unwrap_or(i64::MAX) }
    }

    /// The same point as an instant of the standard library gives it.
    ///
    /// ```
    /// use gmp::time::Instant;
    ///
    /// let std = std::time::Instant::now();
    /// assert_eq!(Instant::from_std(std).into_std(), std);
    /// ```
    #[must_use]
    pub fn from_std(std: std::time::Instant) -> Instant {
        Instant { ns: clock::from_std(std) }
    }

    /// The same point as an instant of the standard library.
    ///
    /// ```
    /// let now = gmp::time::Instant::now();
    /// assert!(now.into_std() <= std::time::Instant::now());
    /// ```
    #[must_use]
    pub fn into_std(self) -> std::time::Instant {
        clock::to_std(self.ns)
    }

    /// The time since `earlier`, zero if that is later.
    ///
    /// ```
    /// use std::time::Duration;
    /// use gmp::time::Instant;
    ///
    /// let now = Instant::now();
    /// assert_eq!((now + Duration::from_secs(2)).duration_since(now), Duration::from_secs(2));
    /// assert_eq!(now.duration_since(now + Duration::from_secs(2)), Duration::ZERO);
    /// ```
    #[must_use]
    pub fn duration_since(&self, earlier: Instant) -> Duration {
        self.checked_duration_since(earlier).unwrap_or_default()
    }

    /// The time since `earlier`, nothing if that is later.
    ///
    /// ```
    /// use std::time::Duration;
    /// use gmp::time::Instant;
    ///
    /// let now = Instant::now();
    /// assert_eq!(now.checked_duration_since(now + Duration::from_secs(2)), None);
    /// ```
    #[must_use]
    pub fn checked_duration_since(&self, earlier: Instant) -> Option<Duration> {
        (*self >= earlier).then(|| Duration::from_nanos(self.ns.abs_diff(earlier.ns)))
    }

    /// The time since `earlier`, zero if that is later: [`duration_since`](Self::duration_since) by its longer name.
    ///
    /// ```
    /// let now = gmp::time::Instant::now();
    /// assert!(now.saturating_duration_since(now).is_zero());
    /// ```
    #[must_use]
    pub fn saturating_duration_since(&self, earlier: Instant) -> Duration {
        self.duration_since(earlier)
    }

    /// The time from this instant to the present, zero if it lies ahead. Reads the clock.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let ahead = gmp::time::Instant::now() + Duration::from_secs(3600);
    /// assert!(ahead.elapsed().is_zero());
    /// ```
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Instant::now().duration_since(*self)
    }

    /// The instant `duration` later, nothing if that is never.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let now = gmp::time::Instant::now();
    /// assert_eq!(now.checked_add(Duration::from_secs(1)), Some(now + Duration::from_secs(1)));
    /// assert_eq!(now.checked_add(Duration::MAX), None);
    /// ```
    #[must_use]
    pub fn checked_add(&self, duration: Duration) -> Option<Instant> {
        Some(*self + duration).filter(|sum| *sum != Self::FAR)
    }

    /// The instant `duration` earlier, nothing if that is further back than instants reach.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let now = gmp::time::Instant::now();
    /// assert_eq!(now.checked_sub(Duration::from_secs(3600)), Some(now - Duration::from_secs(3600)));
    /// assert_eq!(now.checked_sub(Duration::MAX), None);
    /// ```
    #[must_use]
    pub fn checked_sub(&self, duration: Duration) -> Option<Instant> {
        self.ns.checked_sub_unsigned(clock::nanos(duration)).map(|ns| Instant { ns })
    }

    /// As a deadline for a timer store: nanoseconds on its clock.
    pub(super) fn to_deadline(self) -> u64 {
        if self == Self::FAR { NEVER } else { u64::try_from(self.ns).unwrap_or(0) }
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    #[inline]
    fn add(self, duration: Duration) -> Instant {
        Instant { ns: self.ns.saturating_add_unsigned(clock::nanos(duration)) }
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, duration: Duration) -> Instant {
        Instant { ns: self.ns.saturating_sub_unsigned(clock::nanos(duration)) }
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.duration_since(earlier)
    }
}

impl From<std::time::Instant> for Instant {
    fn from(std: std::time::Instant) -> Instant {
        Instant::from_std(std)
    }
}

impl From<Instant> for std::time::Instant {
    fn from(instant: Instant) -> std::time::Instant {
        instant.into_std()
    }
}
