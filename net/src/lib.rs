//! Sockets and signals on gmp's netpoller.
//!
//! In reading order: `source` ties a socket to its registration; `addr` and `lookup` say what can be connected to;
//! `tcp` has the sockets; `hyper` (by feature) their foreign traits; `signal` is signals as one more socket.
#![deny(missing_docs)]

mod addr;
#[cfg(feature = "hyper")]
mod hyper;
mod lookup;
pub mod signal;
mod source;
pub mod tcp;

pub use addr::{ToSocketAddrs, lookup_host};
pub use gmp_executor::netpoll::{Interest, Readiness as Ready};
pub use tcp::{TcpListener, TcpSocket, TcpStream};

#[cfg(test)]
mod tests;
