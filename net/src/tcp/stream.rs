//! A TCP connection.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::net::{self, Shutdown, SocketAddr};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_io::AsyncWrite;
use gmp_executor::netpoll::{Direction, Interest, Kind, Ready};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};

use super::split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
use super::{ReuniteError, TcpSocket};
use crate::addr::{ToSocketAddrs, addrs_of};
use crate::source::Source;

/// A TCP connection.
///
/// It reads and writes through the traits of `futures-io`, also by shared reference (`&TcpStream`): then at most one
/// task may read and one may write at a time; of several that poll the same direction the last one is woken. The system
/// call is tried first; the task waits only when it would block, or if the last read or write was short and no event
/// has come since. Where messages are as long as the buffer, so that reading on has found nothing, a poll for reading
/// may let queued tasks go first: it wakes the task and is pending, once for a full buffer, as when the task's budget
/// is spent. What reads into an empty buffer does not wait, and gives 0.
///
/// ```
/// # gmp::block_on(async {
/// use futures::io::{AsyncReadExt, AsyncWriteExt};
///
/// let listener = gmp::net::TcpListener::bind("127.0.0.1:0").await?;
/// let client = gmp::net::TcpStream::connect(listener.local_addr()?).await?;
/// let (served, _) = listener.accept().await?;
/// // Both ends by shared reference.
/// (&client).write_all(b"ping").await?;
/// let mut bytes = [0; 4];
/// (&served).read_exact(&mut bytes).await?;
/// assert_eq!(&bytes, b"ping");
/// # Ok::<(), std::io::Error>(())
/// # }).unwrap();
/// ```
///
/// Go: net.TCPConn.
pub struct TcpStream {
    source: Source<net::TcpStream>,
}

/// Less than was asked for, and not the end: the stream is drained, or full. A transfer that the system cuts for being
/// too long (at 2 GiB less a page) proves nothing.
fn short(len: usize) -> impl Fn(&usize) -> bool {
    move |&n| 0 < n && n < len.min(1 << 30)
}

/// As many buffers as the system takes at a time: more is an error to it, or a cut that looks like a short transfer.
const MAX_BUFFERS: usize = libc::UIO_MAXIOV as usize;

fn size_of_all(buffers: &[impl Deref<Target = [u8]>]) -> usize {
    buffers.iter().map(|b| b.len()).sum()
}

impl TcpStream {
    /// Connects to the first address of `addr` that answers.
    ///
    /// # Errors
    ///
    /// Of the last address that was tried; that there is none; or that the runtime was shut down.
    ///
    /// # Cancel safety
    ///
    /// Strict: dropping it closes what it opened.
    pub async fn connect(addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
        let mut last = None;
        for &addr in addrs_of(addr).await?.iter() {
            let connected = match TcpSocket::for_addr(addr) {
                Ok(socket) => socket.connect(addr).await,
                // Perhaps a family that this machine does not have.
                Err(e) => Err(e),
            };
            match connected {
                Ok(stream) => return Ok(stream),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::InvalidInput.into()))
    }

    pub(super) fn registered(stream: net::TcpStream, kind: Kind) -> io::Result<TcpStream> {
        Ok(TcpStream::of(Source::new(stream, kind)?))
    }

    pub(super) fn of(source: Source<net::TcpStream>) -> TcpStream {
        TcpStream { source }
    }

    /// Takes a stream of std over. It is made not to block, and with it every `try_clone` of it. It may be connecting:
    /// then `writable` waits until that has ended, and `take_error` tells how.
    ///
    /// # Errors
    ///
    /// Those of the system, or that the runtime was shut down. The stream is closed then.
    pub fn from_std(stream: net::TcpStream) -> io::Result<TcpStream> {
        stream.set_nonblocking(true)?;
        // Without a peer it is not connected yet, or not any more: the kernel says what is ready.
        let kind = if stream.peer_addr().is_ok() { Kind::Open } else { Kind::Connecting };
        TcpStream::registered(stream, kind)
    }

    /// Gives the stream to std. It still does not block.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn into_std(self) -> io::Result<net::TcpStream> {
        Ok(self.source.into_inner())
    }

    /// The address of this end.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.source.local_addr()
    }

    /// The address of the other end.
    ///
    /// # Errors
    ///
    /// Those of `getpeername(2)`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.source.peer_addr()
    }

    /// Whether small segments are sent at once.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.source.nodelay()
    }

    /// Sets whether small segments are sent at once.
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.source.set_nodelay(nodelay)
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

    /// The error that is pending, which is taken away by this.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.source.take_error()
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
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.source.registration().poll_ready(Direction::Read, cx).map_ok(drop)
    }

    /// As `writable`; the last task that polled for writing is woken.
    ///
    /// # Errors
    ///
    /// The runtime was shut down.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.source.registration().poll_ready(Direction::Write, cx).map_ok(drop)
    }

    /// Reads what is there: how much, in bytes; 0 is the end.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if nothing is there; those of `recv(2)`; or that the runtime was shut down.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len();
        self.try_transfer(Interest::READABLE, len, || self.recv(buffer, RecvFlags::empty()))
    }

    /// As `try_read`, into several buffers.
    ///
    /// # Errors
    ///
    /// As `try_read`.
    pub fn try_read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let count = buffers.len().min(MAX_BUFFERS);
        let buffers = &mut buffers[..count];
        self.try_transfer(Interest::READABLE, size_of_all(buffers), || (&*self.source).read_vectored(buffers))
    }

    /// Writes what there is room for: how much, in bytes.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is no room; those of `send(2)`; or that the runtime was shut down.
    pub fn try_write(&self, buffer: &[u8]) -> io::Result<usize> {
        self.try_transfer(Interest::WRITABLE, buffer.len(), || self.send(buffer))
    }

    /// As `try_write`, from several buffers.
    ///
    /// # Errors
    ///
    /// As `try_write`.
    pub fn try_write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let buffers = &buffers[..buffers.len().min(MAX_BUFFERS)];
        self.try_transfer(Interest::WRITABLE, size_of_all(buffers), || self.send_vectored(buffers))
    }

    fn try_transfer(
        &self,
        interest: Interest,
        len: usize,
        op: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<usize> {
        let registration = self.source.registration();
        let seen = registration.look()?;
        let n = registration.try_io(interest, op)?;
        if short(len)(&n) {
            registration.clear(interest, seen);
        }
        Ok(n)
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

    /// Reads without taking away, waiting for at least one byte: how much, in bytes; 0 is the end.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`, or that the runtime was shut down.
    ///
    /// # Cancel safety
    ///
    /// Strict: dropping it loses nothing; call again.
    pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.source.registration().async_io(Direction::Read, || self.recv(buffer, RecvFlags::PEEK)).await
    }

    /// As `peek`; the last task that polled for reading is woken.
    ///
    /// # Errors
    ///
    /// As `peek`.
    pub fn poll_peek(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.source.registration().poll_io(Direction::Read, cx, || self.recv(buffer, RecvFlags::PEEK))
    }

    /// Ends a direction: `Shutdown::Write` sends what is left, and then the end. Go: TCPConn.CloseWrite.
    ///
    /// # Errors
    ///
    /// Those of `shutdown(2)`, except that there is no connection any more. If the peer has reset it, which may have
    /// lost what was written, `take_error` or the next read tells.
    pub fn shutdown_std(&self, how: Shutdown) -> io::Result<()> {
        match self.source.shutdown(how) {
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        }
    }

    /// Ends the sending side: the peer reads to the end. Reading goes on. Go: TCPConn.CloseWrite.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::shutdown_std`]: none of a connection that the peer has reset.
    ///
    /// # Cancel safety
    ///
    /// Strict: it does not wait.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self).poll_close(cx)).await
    }

    /// Halves that borrow the stream.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        (ReadHalf(self), WriteHalf(self))
    }

    /// Halves that own the stream together. The writing half ends the sending side when it drops.
    ///
    /// ```
    /// # gmp::block_on(async {
    /// use futures::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// let listener = gmp::net::TcpListener::bind("127.0.0.1:0").await?;
    /// let client = gmp::net::TcpStream::connect(listener.local_addr()?).await?;
    /// let (served, _) = listener.accept().await?;
    /// let (_, mut writer) = served.into_split();
    /// writer.write_all(b"all there is").await?;
    /// // Sends the end.
    /// drop(writer);
    /// let mut text = String::new();
    /// let (mut reader, _writer) = client.into_split();
    /// reader.read_to_string(&mut text).await?;
    /// assert_eq!(text, "all there is");
    /// # Ok::<(), std::io::Error>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        let stream = Arc::new(self);
        (OwnedReadHalf::new(stream.clone()), OwnedWriteHalf::new(stream))
    }

    /// Puts the halves of one stream together again.
    ///
    /// # Errors
    ///
    /// Both halves, if they are of two streams.
    pub fn reunite(read: OwnedReadHalf, write: OwnedWriteHalf) -> Result<TcpStream, ReuniteError> {
        read.reunite(write)
    }

    pub(super) fn is_of_this_process(&self) -> bool {
        self.source.registration().is_of_this_process()
    }

    fn recv(&self, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        if buffer.is_empty() {
            // The system would say that it would block.
            return Ok(0);
        }
        Ok(recv(&*self.source, buffer, flags)?.1)
    }

    fn send(&self, buffer: &[u8]) -> io::Result<usize> {
        Ok(send(&*self.source, buffer, SendFlags::NOSIGNAL)?)
    }

    fn send_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(sendmsg(&*self.source, buffers, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?)
    }

    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let len = buffer.len();
        if len == 0 {
            return Poll::Ready(Ok(0));
        }
        let op = || self.recv(buffer, RecvFlags::empty());
        self.source.registration().poll_read(self.source.guess(), cx, op, short(len))
    }

    /// As `poll_recv`, into memory that nobody has written: so many bytes from the start are written then.
    #[cfg_attr(not(feature = "hyper"), expect(dead_code, reason = "only the foreign traits have such memory"))]
    pub(crate) fn poll_recv_uninit(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Poll<io::Result<usize>> {
        let len = buffer.len();
        if len == 0 {
            return Poll::Ready(Ok(0));
        }
        let op = || Ok(recv(&*self.source, &mut *buffer, RecvFlags::empty())?.1);
        self.source.registration().poll_read(self.source.guess(), cx, op, short(len))
    }

    pub(crate) fn poll_recv_vectored(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = buffers.len().min(MAX_BUFFERS);
        let buffers = &mut buffers[..count];
        let len = size_of_all(buffers);
        if len == 0 {
            return Poll::Ready(Ok(0));
        }
        let op = || (&*self.source).read_vectored(buffers);
        self.source.registration().poll_read(self.source.guess(), cx, op, short(len))
    }

    pub(crate) fn poll_send(&self, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let op = || self.send(buffer);
        self.source.registration().poll_transfer(Direction::Write, cx, op, short(buffer.len()))
    }

    pub(crate) fn poll_send_vectored(&self, cx: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let buffers = &buffers[..buffers.len().min(MAX_BUFFERS)];
        let op = || self.send_vectored(buffers);
        self.source.registration().poll_transfer(Direction::Write, cx, op, short(size_of_all(buffers)))
    }
}

/// The reading trait for a type that has the stream at hand.
macro_rules! reads {
    ($type:ty, $self:ident => $stream:expr) => {
        impl futures_io::AsyncRead for $type {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buffer: &mut [u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                let $self = &*self;
                $stream.poll_recv(cx, buffer)
            }

            fn poll_read_vectored(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buffers: &mut [std::io::IoSliceMut<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                let $self = &*self;
                $stream.poll_recv_vectored(cx, buffers)
            }
        }
    };
}

/// The writing trait for a type that has the stream at hand.
macro_rules! writes {
    ($type:ty, $self:ident => $stream:expr) => {
        impl futures_io::AsyncWrite for $type {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buffer: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                let $self = &*self;
                $stream.poll_send(cx, buffer)
            }

            fn poll_write_vectored(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buffers: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                let $self = &*self;
                $stream.poll_send_vectored(cx, buffers)
            }

            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                _cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::task::Poll::Ready(Ok(()))
            }

            fn poll_close(
                self: std::pin::Pin<&mut Self>,
                _cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                let $self = &*self;
                std::task::Poll::Ready($stream.shutdown_std(std::net::Shutdown::Write))
            }
        }
    };
}

pub(super) use {reads, writes};

reads!(TcpStream, this => this);
writes!(TcpStream, this => this);
reads!(&TcpStream, this => this);
writes!(&TcpStream, this => this);

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (*self.source).fmt(f)
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.source.as_raw_fd()
    }
}
