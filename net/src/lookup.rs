//! Looking a host name up, as a blocking closure: `getaddrinfo` blocks, and no processor should wait for it.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use gmp_executor::runtime::Handle;
use gmp_executor::task::JoinHandle;

/// A lookup under way. Dropping it ends it if it has not started; else it goes on for nobody.
#[derive(Debug)]
pub(crate) struct Lookup(JoinHandle<io::Result<Vec<SocketAddr>>>);

impl Lookup {
    /// Starts looking `host` up.
    pub(crate) fn start(host: String, port: u16) -> io::Result<Lookup> {
        let lookup = move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        Ok(Lookup(Handle::try_current()?.spawn_blocking(lookup)))
    }
}

impl Future for Lookup {
    type Output = io::Result<Vec<SocketAddr>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The runtime was shut down, or the resolver panicked: either is an `io::Error` as it stands.
        Pin::new(&mut self.0).poll(cx).map(|ended| ended?)
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.0.abort();
    }
}
