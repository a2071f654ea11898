//! An async runtime for Rust with Go's G/M/P scheduler.

mod attribute;
mod standin;

pub use gmp_macros::{main, test};
pub use standin::procs;

/// What the macros' expansions call. Not for use by hand: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use crate::attribute::{Local, Probe, Spawned, main_builder, test, test_builder, via};
}
