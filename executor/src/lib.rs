//! The scheduler of gmp.
#![deny(missing_docs)]

mod sys;

mod clock;
mod park;
mod timers;

#[cfg(not(gmp_loom))]
mod budget;
#[cfg(not(gmp_loom))]
mod context;
#[cfg(not(gmp_loom))]
pub mod time;
