//! The scheduler of gmp.
#![deny(missing_docs)]

mod sys;

#[cfg(not(gmp_loom))]
mod budget;
#[doc(hidden)]
pub mod netpoll;
mod park;
