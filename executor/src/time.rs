//! Time for tasks: instants, sleeping, ticking, and limits on how long a future may take.
//!
//! 1. Nothing is early: a [`Sleep`] ends only when the clock has reached its deadline.
//! 2. No duration is too long: what would lie beyond the end of time is never.
//! 3. The clock is that of the current runtime (`context::now`), which [`pause`] stops.
//! 4. A [`Sleep`] registers with the runtime at its first poll, not when it is made, and not before it must wait.

mod instant;
mod interval;
mod pause;
mod sleep;
mod timeout;

pub use instant::Instant;
pub use interval::{Interval, MissedTickBehavior, interval, interval_at};
pub use pause::{advance, pause, resume};
pub use sleep::{Sleep, sleep, sleep_until};
pub use timeout::{Timeout, error, timeout, timeout_at};

#[cfg(test)]
mod tests;
