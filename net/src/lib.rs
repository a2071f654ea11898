//! Sockets and signals on gmp's netpoller.
//!
//! In reading order: `source` ties a socket to its registration; `addr` and `lookup` say what can be connected to;
//! `tcp` and `udp` have the sockets; `hyper` (by feature) their foreign traits; `signal` makes signals eventfds.
#![deny(missing_docs)]

mod addr;
#[cfg(feature = "hyper")]
mod hyper;
mod lookup;
#[cfg(feature = "hyper")]
pub mod rt;
pub mod signal;
mod source;
pub mod tcp;
mod udp;

pub use addr::{ToSocketAddrs, lookup_host};
pub use gmp_executor::netpoll::{Interest, Ready};
pub use tcp::{TcpListener, TcpSocket, TcpStream};
pub use udp::UdpSocket;

#[cfg(test)]
mod tests;
