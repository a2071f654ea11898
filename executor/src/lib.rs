//! The scheduler of gmp: Go's G/M/P for stackless Rust futures.
//!
//! Users take it through the façade `gmp`; this crate is for it and for `gmp-net`.
//!
//! | Go | here | is |
//! |---|---|---|
//! | G | task | a future and its state |
//! | M | machine | an OS thread that runs tasks |
//! | P | processor | the right to run tasks, with a queue |
//!
//! A task is *readied* into the queue of a processor; the machine that holds it runs it. A machine without work *spins*
//! for a moment, *steals*, and *parks*. A machine that waits *hands off* its processor. `sysmon` watches from outside.
//!
//! Read `sched` first (the essay), then the modules in this order; each uses those above it.
#![deny(missing_docs)]
// Tests may take std's atomics and locks; the code takes them from `sys` (clippy.toml).
#![cfg_attr(test, allow(clippy::disallowed_types, clippy::disallowed_methods))]

mod sys;

mod clock;
mod inject;
mod leak;
mod machine;
mod mailbox;
mod park;
mod runq;
mod sudog;
#[cfg(not(gmp_loom))]
mod waits;
mod wakers;

mod duty;
mod gate;
mod hchan;
mod idle;
mod oneshot;
mod timers;

#[doc(hidden)]
pub mod netpoll;

#[cfg(not(gmp_loom))]
mod blocking;
#[cfg(not(gmp_loom))]
#[doc(hidden)]
pub mod budget;
#[cfg(not(gmp_loom))]
mod context;
#[cfg(not(gmp_loom))]
mod cpus;
#[cfg(not(gmp_loom))]
pub mod metrics;
#[cfg(not(gmp_loom))]
mod pinned;
#[cfg(not(gmp_loom))]
mod processor;
#[cfg(not(gmp_loom))]
mod sched;
#[cfg(not(gmp_loom))]
mod sysmon;
#[cfg(not(gmp_loom))]
pub mod task;
/// What the models see of it.
#[cfg(gmp_loom)]
mod task {
    mod arena;
    mod panics;
    mod state;
    pub(crate) use panics::swallow;
}
#[cfg(not(gmp_loom))]
pub mod time;
#[cfg(not(gmp_loom))]
mod trace;

#[cfg(not(gmp_loom))]
pub mod chan;
#[cfg(not(gmp_loom))]
mod cold;
#[cfg(not(gmp_loom))]
pub mod sync;

#[cfg(not(gmp_loom))]
pub mod runtime;

#[cfg(all(test, not(gmp_loom)))]
#[path = "../../tests/support/seeds.rs"]
mod seeds;
