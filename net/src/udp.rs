//! UDP sockets.

use std::fmt;
use std::io;
use std::net::{self, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll};

use gmp_executor::netpoll::{Direction, Interest, Kind, Ready};
use socket2::{Domain, Protocol, Socket, Type};

use crate::addr::{ToSocketAddrs, addrs_of};
use crate::source::Source;

/// A UDP socket. Any number of tasks may send and receive at a time, by shared reference.
///
/// ```
/// # gmp::block_on(async {
/// let a = gmp::net::UdpSocket::bind("127.0.0.1:0").await?;
/// let b = gmp::net::UdpSocket::bind("127.0.0.1:0").await?;
/// a.send_to(b"ping", b.local_addr()?).await?;
/// let mut bytes = [0; 64];
/// let (len, from) = b.recv_from(&mut bytes).await?;
/// assert_eq!((&bytes[..len], from), (&b"ping"[..], a.local_addr()?));
/// # Ok::<(), std::io::Error>(())
/// # }).unwrap();
/// ```
///
/// Go: net.UDPConn.
pub struct UdpSocket {
    source: Source<net::UdpSocket>,
}

impl UdpSocket {
    /// Binds to the first address of `addr` that can be bound. Port 0 lets the system choose.
    ///
    /// # Errors
    ///
    /// Of the last address that was tried; that there is none; or that the runtime was shut down.
    ///
    /// # Cancel safety
    ///
    /// Strict: dropping it closes what it opened.
    pub async fn bind(addr: impl ToSocketAddrs) -> io::Result<UdpSocket> {
        let mut last = None;
        for &addr in addrs_of(addr).await?.iter() {
            let bound = Socket::new(Domain::for_address(addr), Type::DGRAM.nonblocking(), Some(Protocol::UDP))
                .and_then(|socket| socket.bind(&addr.into()).map(|()| socket));
            match bound {
                Ok(socket) => return UdpSocket::registered(socket.into()),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::InvalidInput.into()))
    }

    fn registered(socket: net::UdpSocket) -> io::Result<UdpSocket> {
        Ok(UdpSocket { source: Source::new(socket, Kind::Open)? })
    }

    /// Takes a socket of std over. It is made not to block, and with it every `try_clone` of it.
    ///
    /// # Errors
    ///
    /// Those of the system, or that the runtime was shut down. The socket is closed then.
    pub fn from_std(socket: net::UdpSocket) -> io::Result<UdpSocket> {
        socket.set_nonblocking(true)?;
        UdpSocket::registered(socket)
    }

    /// Gives the socket to std. It still does not block.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn into_std(self) -> io::Result<net::UdpSocket> {
        Ok(self.source.into_inner())
    }

    /// Sets the peer, for `send` and `recv`: the first address of `addr` that can be.
    ///
    /// # Errors
    ///
    /// Of the last address that was tried, or that there is none.
    ///
    /// # Cancel safety
    ///
    /// Strict: dropping it loses nothing; call again.
    pub async fn connect(&self, addr: impl ToSocketAddrs) -> io::Result<()> {
        let mut last = None;
        for &addr in addrs_of(addr).await?.iter() {
            match self.source.connect(addr) {
                Ok(()) => return Ok(()),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::InvalidInput.into()))
    }

    /// Sends a datagram to the peer: its size in bytes.
    ///
    /// # Errors
    ///
    /// Those of `send(2)`, among them what the peer's machine said to an earlier datagram, or that the runtime was shut
    /// down.
    ///
    /// # Cancel safety
    ///
    /// Strict: if it is dropped, nothing was sent.
    pub async fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        self.source.registration().async_io(Direction::Write, || self.source.send(datagram)).await
    }

    /// As `send`; the last task that polled for writing is woken.
    ///
    /// # Errors
    ///
    /// As `send`.
    pub fn poll_send(&self, cx: &mut Context<'_>, datagram: &[u8]) -> Poll<io::Result<usize>> {
        self.source.registration().poll_io(Direction::Write, cx, || self.source.send(datagram))
    }

    /// Receives a datagram from the peer: its size in bytes. What does not fit is lost.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`, or that the runtime was shut down.
    ///
    /// # Cancel safety
    ///
    /// Strict: if it is dropped, nothing was received.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.source.registration().async_io(Direction::Read, || self.source.recv(buffer)).await
    }

    /// As `recv`; the last task that polled for reading is woken.
    ///
    /// # Errors
    ///
    /// As `recv`.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.source.registration().poll_io(Direction::Read, cx, || self.source.recv(buffer))
    }

    /// Sends a datagram to the first address of `target`: its size in bytes.
    ///
    /// # Errors
    ///
    /// Those of `sendto(2)`; that there is no address; or that the runtime was shut down.
    ///
    /// # Cancel safety
    ///
    /// Strict: if it is dropped, nothing was sent.
    pub async fn send_to(&self, datagram: &[u8], target: impl ToSocketAddrs) -> io::Result<usize> {
        let target = addrs_of(target).await?[0];
        self.source.registration().async_io(Direction::Write, || self.source.send_to(datagram, target)).await
    }

    /// As `send_to`; the last task that polled for writing is woken.
    ///
    /// # Errors
    ///
    /// As `send_to`.
    pub fn poll_send_to(&self, cx: &mut Context<'_>, datagram: &[u8], target: SocketAddr) -> Poll<io::Result<usize>> {
        self.source.registration().poll_io(Direction::Write, cx, || self.source.send_to(datagram, target))
    }

    /// Receives a datagram: its size in bytes, and who sent it. What does not fit is lost.
    ///
    /// # Errors
    ///
    /// Those of `recvfrom(2)`, or that the runtime was shut down.
    ///
    /// # Cancel safety
    ///
    /// Strict: if it is dropped, nothing was received.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.source.registration().async_io(Direction::Read, || self.source.recv_from(buffer)).await
    }

    /// As `recv_from`; the last task that polled for reading is woken.
    ///
    /// # Errors
    ///
    /// As `recv_from`.
    pub fn poll_recv_from(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.source.registration().poll_io(Direction::Read, cx, || self.source.recv_from(buffer))
    }

    /// Receives a datagram without taking it away: its size in bytes, and who sent it.
    ///
    /// # Errors
    ///
    /// Those of `recvfrom(2)`, or that the runtime was shut down.
    ///
    /// # Cancel safety
    ///
    /// Strict: dropping it loses nothing; call again.
    pub async fn peek_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.source.registration().async_io(Direction::Read, || self.source.peek_from(buffer)).await
    }

    /// As `send`, without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is no room; else as `send`.
    pub fn try_send(&self, datagram: &[u8]) -> io::Result<usize> {
        self.try_io(Interest::WRITABLE, || self.source.send(datagram))
    }

    /// As `recv`, without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if nothing is there; else as `recv`.
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_io(Interest::READABLE, || self.source.recv(buffer))
    }

    /// As `send_to`, without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is no room; else as `send_to`.
    pub fn try_send_to(&self, datagram: &[u8], target: SocketAddr) -> io::Result<usize> {
        self.try_io(Interest::WRITABLE, || self.source.send_to(datagram, target))
    }

    /// As `recv_from`, without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if nothing is there; else as `recv_from`.
    pub fn try_recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.try_io(Interest::READABLE, || self.source.recv_from(buffer))
    }

    /// Runs `op`, a system call of the user's on this socket, once. `WouldBlock` from it means that nothing of
    /// `interest` is ready, all of it: `interest` names the one direction that `op` uses, or a task that waits for the
    /// other may wait for ever.
    ///
    /// # Errors
    ///
    /// Those of `op`, or that the runtime was shut down.
    pub fn try_io<R>(&self, interest: Interest, op: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.source.registration().try_io(interest, op)
    }

    /// Waits until a direction of `interest` is ready. It may be ready for nothing after all: then a `try_` method
    /// gives `WouldBlock`, and this waits again.
    ///
    /// # Errors
    ///
    /// The runtime was shut down.
    ///
    /// # Cancel safety
    ///
    /// Strict: dropping it loses nothing; call again.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        self.source.registration().ready(interest).await
    }

    /// Waits until it is readable; as `ready`.
    ///
    /// # Errors
    ///
    /// The runtime was shut down.
    ///
    /// # Cancel safety
    ///
    /// Strict: dropping it loses nothing; call again.
    pub async fn readable(&self) -> io::Result<()> {
        self.ready(Interest::READABLE).await.map(drop)
    }

    /// Waits until it is writable; as `ready`.
    ///
    /// # Errors
    ///
    /// The runtime was shut down.
    ///
    /// # Cancel safety
    ///
    /// Strict: dropping it loses nothing; call again.
    pub async fn writable(&self) -> io::Result<()> {
        self.ready(Interest::WRITABLE).await.map(drop)
    }

    /// As `readable`; the last task that polled for reading is woken.
    ///
    /// # Errors
    ///
    /// The runtime was shut down.
    pub fn poll_recv_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.source.registration().poll_ready(Direction::Read, cx).map_ok(drop)
    }

    /// As `writable`; the last task that polled for writing is woken.
    ///
    /// # Errors
    ///
    /// The runtime was shut down.
    pub fn poll_send_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.source.registration().poll_ready(Direction::Write, cx).map_ok(drop)
    }

    /// The address it is bound to.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.source.local_addr()
    }

    /// The address of the peer that `connect` set.
    ///
    /// # Errors
    ///
    /// Those of `getpeername(2)`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.source.peer_addr()
    }

    /// Whether datagrams to a broadcast address may be sent.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`.
    pub fn broadcast(&self) -> io::Result<bool> {
        self.source.broadcast()
    }

    /// Sets whether datagrams to a broadcast address may be sent.
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`.
    pub fn set_broadcast(&self, on: bool) -> io::Result<()> {
        self.source.set_broadcast(on)
    }

    /// The error that is pending, which is taken away by this.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.source.take_error()
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (*self.source).fmt(f)
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.source.as_raw_fd()
    }
}
