//! The clock: CLOCK_MONOTONIC as nanoseconds since a start that the whole process shares. Timers, `sched` and `sysmon`
//! compare and subtract its readings. What a user sees of it is a runtime's own, which can be paused:
//! `clock/pausable.rs`.
//!
//! 1. A reading never goes back, on any thread.
//! 2. No real reading is [`NEVER`]: it is 584 years away.

#[cfg(not(gmp_loom))]
mod pausable;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::sys::monotonic;

#[cfg(not(gmp_loom))]
pub(crate) use pausable::{PausableClock, was_ever_paused};

/// The deadline that never comes.
pub(crate) const NEVER: u64 = u64::MAX;

/// What reads 0: the first use of the clock, by std's clock and by the system's, which std's is without showing it.
struct Start {
    instant: Instant,
    ns: u64,
}

#[inline]
fn start() -> &'static Start {
    static START: OnceLock<Start> = OnceLock::new();
    START.get_or_init(|| {
        // std's is read first: what it says then lies before what we say, by less than the pair took to read. So an
        // instant of ours is never too late for std's clock, nor a deadline of std's too early for ours.
        let pairs = (0..16).map(|_| {
            let start = Start { instant: Instant::now(), ns: monotonic() };
            (start.instant.elapsed(), start)
        });
        pairs.min_by_key(|(took, _)| *took).expect("there are sixteen").1
    })
}

/// The time, in nanoseconds since the start. Go: nanotime
#[inline]
pub(crate) fn now() -> u64 {
    // The start first: its first use makes it.
    let start = start().ns;
    // A child of a fork may be in another time namespace, where less has passed.
    monotonic().saturating_sub(start)
}

/// A length of time in nanoseconds; what does not fit is `u64::MAX`, 584 years.
#[inline]
pub(crate) fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos().into())
}

/// The nanoseconds from the start to `instant`, negative before it, at most 292 years either way; and less than a
/// microsecond more, which is what two readings of the clock may be apart (`Start`).
pub(crate) fn from_std(instant: Instant) -> i64 {
    let start = start().instant;
    match instant.checked_duration_since(start) {
        Some(after) => 0i64.saturating_add_unsigned(nanos(after)),
        None => 0i64.saturating_sub_unsigned(nanos(start.duration_since(instant))),
    }
}

/// The instant that lies `ns` from the start, or as far that way as the platform's instants reach by halves.
pub(crate) fn to_std(ns: i64) -> Instant {
    let start = start().instant;
    let mut distance = Duration::from_nanos(ns.unsigned_abs());
    loop {
        let instant = if ns < 0 { start.checked_sub(distance) } else { start.checked_add(distance) };
        match instant {
            Some(instant) => return instant,
            None => distance /= 2,
        }
    }
}
