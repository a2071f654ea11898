//! A TCP socket before it listens or connects.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use gmp_executor::netpoll::Kind;
use socket2::{Domain, Protocol, Socket, Type};

use super::{TcpListener, TcpStream};
use crate::source::Source;

/// A TCP socket that is neither connected nor listening, to set options on.
///
/// ```
/// # gmp::block_on(async {
/// let socket = gmp::net::TcpSocket::new_v4()?;
/// socket.set_reuseaddr(true)?;
/// socket.bind("127.0.0.1:0".parse().unwrap())?;
/// let listener = socket.listen(1024)?;
/// let socket = gmp::net::TcpSocket::new_v4()?;
/// socket.set_nodelay(true)?;
/// let stream = socket.connect(listener.local_addr()?).await?;
/// assert!(stream.nodelay()?);
/// # Ok::<(), std::io::Error>(())
/// # }).unwrap();
/// ```
pub struct TcpSocket {
    socket: Socket,
}

impl TcpSocket {
    /// One for IPv4.
    ///
    /// # Errors
    ///
    /// Those of `socket(2)`.
    pub fn new_v4() -> io::Result<TcpSocket> {
        TcpSocket::new(Domain::IPV4)
    }

    /// One for IPv6.
    ///
    /// # Errors
    ///
    /// Those of `socket(2)`.
    pub fn new_v6() -> io::Result<TcpSocket> {
        TcpSocket::new(Domain::IPV6)
    }

    pub(super) fn for_addr(addr: SocketAddr) -> io::Result<TcpSocket> {
        TcpSocket::new(Domain::for_address(addr))
    }

    fn new(domain: Domain) -> io::Result<TcpSocket> {
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        Ok(TcpSocket { socket })
    }

    /// Binds to `addr`.
    ///
    /// # Errors
    ///
    /// Those of `bind(2)`.
    pub fn bind(&self, addr: SocketAddr) -> io::Result<()> {
        self.socket.bind(&addr.into())
    }

    /// Connects to `addr`.
    ///
    /// # Errors
    ///
    /// Those of `connect(2)`, or that the runtime was shut down.
    ///
    /// # Cancel safety
    ///
    /// Lossy: the socket is closed.
    pub async fn connect(self, addr: SocketAddr) -> io::Result<TcpStream> {
        let kind = match self.socket.connect(&addr.into()) {
            Ok(()) => Kind::Open,
            // Both go on in the kernel.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => Kind::Connecting,
            Err(e) => return Err(e),
        };
        let source = Source::new(std::net::TcpStream::from(self.socket), kind)?;
        if kind == Kind::Connecting {
            source.registration().ready(crate::Interest::WRITABLE).await?;
            if let Some(e) = source.take_error()? {
                return Err(e);
            }
        }
        Ok(TcpStream::of(source))
    }

    /// Listens, with at most `backlog` connections that have not been accepted; the system has a maximum of its own.
    ///
    /// # Errors
    ///
    /// Those of `listen(2)`, or that the runtime was shut down.
    pub fn listen(self, backlog: u32) -> io::Result<TcpListener> {
        self.socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        TcpListener::registered(self.socket.into())
    }

    /// The address it is bound to.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let addr = self.socket.local_addr()?;
        addr.as_socket().ok_or_else(|| io::Error::other("not an internet address"))
    }

    /// The error that is pending, which is taken away by this.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.take_error()
    }
}

macro_rules! options {
    ($($get:ident, $set:ident, $type:ty, $of:ident, $with:ident: $what:literal;)*) => { impl TcpSocket { $(
        #[doc = concat!("Sets ", $what)]
        ///
        /// # Errors
        ///
        /// Those of `setsockopt(2)`.
        pub fn $set(&self, value: $type) -> io::Result<()> {
            self.socket.$with(value as _)
        }

        #[doc = concat!("Tells ", $what)]
        ///
        /// # Errors
        ///
        /// Those of `getsockopt(2)`.
        pub fn $get(&self) -> io::Result<$type> {
            Ok(self.socket.$of()? as $type)
        }
    )* } };
}

options! {
    reuseaddr, set_reuseaddr, bool, reuse_address, set_reuse_address:
        "`SO_REUSEADDR`: whether an address of connections that have just ended may be bound again.";
    reuseport, set_reuseport, bool, reuse_port, set_reuse_port:
        "`SO_REUSEPORT`: whether several sockets may be bound to one address, and share its connections.";
    keepalive, set_keepalive, bool, keepalive, set_keepalive:
        "`SO_KEEPALIVE`: whether the system asks now and then if the peer is alive.";
    nodelay, set_nodelay, bool, tcp_nodelay, set_tcp_nodelay:
        "`TCP_NODELAY`: whether small segments are sent at once.";
    send_buffer_size, set_send_buffer_size, u32, send_buffer_size, set_send_buffer_size:
        "`SO_SNDBUF`: the room for what has not been sent, in bytes.";
    recv_buffer_size, set_recv_buffer_size, u32, recv_buffer_size, set_recv_buffer_size:
        "`SO_RCVBUF`: the room for what has not been read, in bytes.";
}

impl TcpSocket {
    /// Sets `SO_LINGER`: how long a close waits for what has not been sent. On Linux it waits also if the socket does
    /// not block: the drop of the stream then blocks its thread so long, in the middle of a poll. With a time of zero
    /// it does not, and resets the connection.
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`.
    pub fn set_linger(&self, time: Option<Duration>) -> io::Result<()> {
        self.socket.set_linger(time)
    }

    /// Tells `SO_LINGER`: how long a close waits for what has not been sent.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        self.socket.linger()
    }
}

impl fmt::Debug for TcpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

impl AsFd for TcpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for TcpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
