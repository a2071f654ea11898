//! An async runtime for Rust with Go's G/M/P scheduler.
//!
//! ```
//! #[gmp::main]
//! async fn main() {
//!     let answer = gmp::spawn(async { 6 * 7 });
//!     assert_eq!(answer.await.unwrap(), 42);
//! }
//! ```
//!
//! Tasks are stackless futures ([`spawn`]). They are run by threads that hold one of [`procs`] processors. Names are
//! those of the field: what tokio's users know, where the meaning is the same.
//!
//! - [`macro@main`] and [`macro@test`] run an `async fn`; [`block_on`] runs a future anywhere; [`Builder`] makes a
//!   [`Runtime`].
//! - [`task`]: spawning, joining, aborting, yielding; tasks that stay on one thread.
//! - [`chan`]: channels. [`sync`]: a mutex, and channels for one message.
//! - [`time`]: sleeping, ticking, time limits.
//! - [`net`]: sockets. [`signal`]: signals.
//! - `rt`, with feature `hyper`: what hyper asks of a runtime.
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod attribute;

pub use gmp_executor::runtime::{
    Builder, Handle, Runtime, block_in_place, block_on, procs, set_procs, spawn, spawn_blocking,
};
pub use gmp_executor::task::yield_now;
pub use gmp_macros::{main, test};

/// Runtimes: building, entering, measuring and shutting them down.
///
/// What is asked of a runtime that was shut down, or waits in it then, gets an error that says `runtime shut down`: the
/// handle of a task a [`JoinError`](crate::task::JoinError) that
/// [is a cancellation](crate::task::JoinError::is_cancelled), a socket or `set_procs` an `io::Error` of the kind
/// `Other`, which no error of the system is. A signal gives `None` then, `Handle::block_on` panics, and so does a
/// `block_on` that waits for time.
///
/// ```
/// use std::io::ErrorKind;
///
/// let runtime = gmp::Builder::new().procs(1).build()?;
/// let socket = runtime.block_on(gmp::net::UdpSocket::bind("127.0.0.1:0"))?;
/// let waits = runtime.spawn(std::future::pending::<()>());
/// drop(runtime);
/// let cancelled = gmp::block_on(waits).unwrap_err();
/// assert!(cancelled.is_cancelled() && cancelled.to_string().contains("runtime shut down"));
/// let ended = gmp::block_on(socket.recv(&mut [0])).unwrap_err();
/// assert!(ended.kind() == ErrorKind::Other && ended.to_string().contains("runtime shut down"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub mod runtime {
    pub use gmp_executor::runtime::{
        Builder, EnterGuard, FoundIn, Handle, LeakedTask, Leftover, Metrics, Runtime, StuckIn, StuckPoll,
    };
}

/// Tasks: spawning, joining, aborting, yielding. [`spawn_local`](task::spawn_local) and
/// [`spawn_pinned`](task::spawn_pinned) make those that stay on one thread.
pub mod task {
    pub use gmp_executor::runtime::{block_in_place, spawn, spawn_blocking, spawn_pinned};
    pub use gmp_executor::task::{AbortHandle, Id, JoinError, JoinHandle, YieldNow, yield_now};
    pub use gmp_executor::task::{LocalEnterGuard, LocalSet, spawn_local};

    /// How long a task may go on before it yields.
    pub mod coop {
        pub use gmp_executor::budget::{Unconstrained, consume_budget, has_budget_remaining, unconstrained};
    }
}

/// Sleeping, ticking, time limits, and time that stands.
pub mod time {
    pub use gmp_executor::time::{
        Instant, Interval, MissedTickBehavior, Sleep, Timeout, advance, error, interval, interval_at, pause, resume,
        sleep, sleep_until, timeout, timeout_at,
    };
}

/// Go's channels: many send, many receive, each message goes to one.
pub mod chan {
    pub use gmp_executor::chan::{
        Closed, Receiver, Recv, RecvError, Send, SendError, Sender, TryRecvError, TrySendError, bounded, unbounded,
    };
}

/// Sockets on the netpoller.
pub mod net {
    pub use gmp_net::tcp;
    pub use gmp_net::{Interest, Ready, TcpListener, TcpSocket, TcpStream, ToSocketAddrs, UdpSocket, lookup_host};
}

/// What tasks share: locks that a task waits for without blocking its thread, and channels for one message.
pub mod sync {
    pub use gmp_executor::sync::{Lock, Mutex, MutexGuard, OwnedMutexGuard, TryLockError, oneshot};
}

/// Signals, on the netpoller.
pub mod signal {
    pub use gmp_net::signal::{ctrl_c, unix};
}

/// What hyper asks of a runtime. [`TcpStream`](net::TcpStream) has hyper's I/O traits itself; a stream around it that
/// has those of futures-io, as one of TLS, has hyper's in an adapter such as `smol_hyper::rt::FuturesIo`.
#[cfg(feature = "hyper")]
#[cfg_attr(docsrs, doc(cfg(feature = "hyper")))]
pub mod rt {
    pub use gmp_net::rt::{GmpExecutor, GmpTimer};
}

/// What the macros' expansions call. Not for use by hand: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use crate::attribute::{Local, Probe, Spawned, main_builder, test, test_builder, via};
}

/// The examples of README.md are compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
