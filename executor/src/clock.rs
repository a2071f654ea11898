//! The clock: CLOCK_MONOTONIC as nanoseconds since a start that the whole process shares. Timers, `sched` and `sysmon`
//! compare and subtract its readings. What a user sees of it is a runtime's own, which can be paused: `clock/pausable.rs`.
//!
//! 1. A reading never goes back, on any thread.
//! 2. No real reading is [`NEVER`]: it is 584 years away.

#[cfg(not(gmp_loom))]
mod pausable;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

#[cfg(not(gmp_loom))]
pub(crate) use pausable::{PausableClock, was_ever_paused};

/// The deadline that never comes.
pub(crate) const NEVER: u64 = u64::MAX;

/// The instant that reads 0: that of the first use of the clock.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// The time, in nanoseconds since the start. Go: nanotime
#[inline]
pub(crate) fn now() -> u64 {
    nanos(start().elapsed())
}

/// A length of time in nanoseconds; what does not fit is `u64::MAX`, 584 years.
#[inline]
pub(crate) fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos().into())
}

/// The nanoseconds from the start to `instant`, negative before it, at most 292 years either way.
pub(crate) fn from_std(instant: Instant) -> i64 {
    let start = start();
    match instant.checked_duration_since(start) {
        Some(after) => 0i64.saturating_add_unsigned(nanos(after)),
        None => 0i64.saturating_sub_unsigned(nanos(start.duration_since(instant))),
    }
}

/// The instant that lies `ns` from the start, or as far that way as the platform's instants reach by halves.
pub(crate) fn to_std(ns: i64) -> Instant {
    let mut distance = Duration::from_nanos(ns.unsigned_abs());
    loop {
        let instant = if ns < 0 { start().checked_sub(distance) } else { start().checked_add(distance) };
        match instant {
            Some(instant) => return instant,
            None => distance /= 2,
        }
    }
}
