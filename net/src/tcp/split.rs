//! Halves of a TCP stream, for two tasks that read and write.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::Shutdown;
use std::ops::Deref;
use std::sync::Arc;

use super::TcpStream;
use super::stream::{reads, writes};

/// The reading half of a stream that is borrowed: `TcpStream::split`.
#[derive(Debug)]
pub struct ReadHalf<'a>(pub(super) &'a TcpStream);

/// The writing half of a stream that is borrowed: `TcpStream::split`.
#[derive(Debug)]
pub struct WriteHalf<'a>(pub(super) &'a TcpStream);

/// The reading half of a stream: `TcpStream::into_split`.
#[derive(Debug)]
pub struct OwnedReadHalf(Arc<TcpStream>);

/// The writing half of a stream: `TcpStream::into_split`. When it drops it ends the sending side, so that the peer
/// reads to the end. The copy that the child of a fork has ends nothing.
#[derive(Debug)]
pub struct OwnedWriteHalf {
    stream: Arc<TcpStream>,
    /// Whether the drop ends the sending side.
    ends: bool,
}

/// Halves of two streams cannot be put together; here they are again.
#[derive(Debug)]
pub struct ReuniteError(pub OwnedReadHalf, pub OwnedWriteHalf);

impl fmt::Display for ReuniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("these are halves of two different streams")
    }
}

impl Error for ReuniteError {}

impl OwnedReadHalf {
    pub(super) fn new(stream: Arc<TcpStream>) -> Self {
        OwnedReadHalf(stream)
    }

    /// Puts the halves of one stream together again.
    ///
    /// # Errors
    ///
    /// Both halves, if they are of two streams.
    pub fn reunite(self, write: OwnedWriteHalf) -> Result<TcpStream, ReuniteError> {
        if !Arc::ptr_eq(&self.0, &write.stream) {
            return Err(ReuniteError(self, write));
        }
        write.forget();
        match Arc::try_unwrap(self.0) {
            Ok(stream) => Ok(stream),
            Err(_) => unreachable!("a stream has two halves, and one of them has just gone"),
        }
    }
}

impl WriteHalf<'_> {
    /// As [`TcpStream::shutdown`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// Strict: it does not wait.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.shutdown_std(Shutdown::Write)
    }
}

impl OwnedWriteHalf {
    pub(super) fn new(stream: Arc<TcpStream>) -> Self {
        OwnedWriteHalf { stream, ends: true }
    }

    /// Puts the halves of one stream together again.
    ///
    /// # Errors
    ///
    /// Both halves, if they are of two streams.
    pub fn reunite(self, read: OwnedReadHalf) -> Result<TcpStream, ReuniteError> {
        read.reunite(self)
    }

    /// As [`TcpStream::shutdown`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// Strict: it does not wait.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.shutdown_std(Shutdown::Write)
    }

    /// Drops the half without ending the sending side.
    pub fn forget(mut self) {
        self.ends = false;
    }
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        // The child of a fork has the same connection, and would end it for its parent too.
        if self.ends && self.stream.is_of_this_process() {
            // A drop has nobody to tell of an error, and the peer sees it in any case.
            let _ = self.stream.shutdown_std(Shutdown::Write);
        }
    }
}

impl Deref for ReadHalf<'_> {
    type Target = TcpStream;
    fn deref(&self) -> &TcpStream {
        self.0
    }
}

impl Deref for WriteHalf<'_> {
    type Target = TcpStream;
    fn deref(&self) -> &TcpStream {
        self.0
    }
}

impl Deref for OwnedReadHalf {
    type Target = TcpStream;
    fn deref(&self) -> &TcpStream {
        &self.0
    }
}

impl Deref for OwnedWriteHalf {
    type Target = TcpStream;
    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

reads!(ReadHalf<'_>, this => this);
writes!(WriteHalf<'_>, this => this);
reads!(OwnedReadHalf, this => this);
writes!(OwnedWriteHalf, this => this);
