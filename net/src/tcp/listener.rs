//! A TCP socket that listens.

use std::fmt;
use std::io;
use std::net::{self, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll};

use gmp_executor::netpoll::{Direction, Kind};
use rustix::net::{SocketFlags, acceptfrom_with};

use super::{TcpSocket, TcpStream};
use crate::addr::{ToSocketAddrs, addrs_of};
use crate::source::Source;

/// A TCP socket that listens for connections.
///
/// ```
/// # gmp::block_on(async {
/// use futures::io::{AsyncReadExt, AsyncWriteExt};
///
/// let listener = gmp::net::TcpListener::bind("127.0.0.1:0").await?;
/// let addr = listener.local_addr()?;
/// let mut client = gmp::net::TcpStream::connect(addr).await?;
/// let (mut served, peer) = listener.accept().await?;
/// assert_eq!(peer, client.local_addr()?);
/// served.write_all(b"hello").await?;
/// served.close().await?;
/// let mut text = String::new();
/// client.read_to_string(&mut text).await?;
/// assert_eq!(text, "hello");
/// # Ok::<(), std::io::Error>(())
/// # }).unwrap();
/// ```
///
/// Go: net.Listener.
pub struct TcpListener {
    source: Source<net::TcpListener>,
}

impl TcpListener {
    /// Binds to the first address of `addr` that can be bound, and listens.
    ///
    /// Port 0 lets the system choose. `SO_REUSEADDR` is set, and the backlog is the system's maximum (std: 128).
    ///
    /// # Errors
    ///
    /// Of the last address that was tried; that there is none; or that the runtime was shut down.
    ///
    /// # Cancel safety
    ///
    /// Strict: dropping it closes what it opened.
    pub async fn bind(addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        let mut last = None;
        for &addr in addrs_of(addr).await?.iter() {
            match TcpSocket::for_addr(addr).and_then(|socket| {
                socket.set_reuseaddr(true)?;
                socket.bind(addr)?;
                socket.listen(u32::MAX)
            }) {
                Ok(listener) => return Ok(listener),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::InvalidInput.into()))
    }

    pub(super) fn registered(listener: net::TcpListener) -> io::Result<TcpListener> {
        Ok(TcpListener { source: Source::new(listener, Kind::Open)? })
    }

    /// Waits for a connection, and gives it with its peer's address. Several tasks may wait at a time.
    ///
    /// # Errors
    ///
    /// Those of `accept(2)`. One of a connection that broke off, or of too many open files, leaves the listener as it
    /// was: try again, the latter after a while. Or that the connection cannot be registered, which closes it; or that
    /// the runtime was shut down.
    ///
    /// # Cancel safety
    ///
    /// Strict: a connection is either given or still in the backlog.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let accepted = self.source.registration().async_io(Direction::Read, || self.accept_now()).await?;
        registered(accepted)
    }

    /// As `accept`; the last task that polled is woken.
    ///
    /// # Errors
    ///
    /// As `accept`.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let accepted = self.source.registration().poll_io(Direction::Read, cx, || self.accept_now());
        accepted.map(|accepted| registered(accepted?))
    }

    fn accept_now(&self) -> io::Result<(net::TcpStream, SocketAddr)> {
        let (fd, addr) = acceptfrom_with(&*self.source, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        let stream = net::TcpStream::from(fd);
        let addr = match addr.and_then(|addr| SocketAddr::try_from(addr).ok()) {
            Some(addr) => addr,
            None => stream.peer_addr()?,
        };
        Ok((stream, addr))
    }

    /// The address it listens on.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.source.local_addr()
    }

    /// The time to live of what it sends, in hops.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`.
    pub fn ttl(&self) -> io::Result<u32> {
        self.source.ttl()
    }

    /// Sets the time to live of what it sends, in hops.
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.source.set_ttl(ttl)
    }

    /// Takes a listener of std over. It is made not to block, and with it every `try_clone` of it.
    ///
    /// # Errors
    ///
    /// Those of the system, or that the runtime was shut down. The listener is closed then.
    pub fn from_std(listener: net::TcpListener) -> io::Result<TcpListener> {
        listener.set_nonblocking(true)?;
        TcpListener::registered(listener)
    }

    /// Gives the listener to std. It still does not block.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn into_std(self) -> io::Result<net::TcpListener> {
        Ok(self.source.into_inner())
    }
}

fn registered((stream, addr): (net::TcpStream, SocketAddr)) -> io::Result<(TcpStream, SocketAddr)> {
    Ok((TcpStream::registered(stream, Kind::Open)?, addr))
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (*self.source).fmt(f)
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.source.as_raw_fd()
    }
}
