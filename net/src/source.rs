//! A socket with its registration at the netpoller. Every type of this crate that waits holds one.
//!
//! 1. The registration is dropped before the socket is closed: it is the first field.

use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;

use gmp_executor::netpoll::{Guess, Kind, Registration};

/// A socket that does not block, and its registration.
pub(crate) struct Source<T> {
    registration: Registration,
    io: T,
    guess: Guess,
}

impl<T: AsRawFd> Source<T> {
    /// Registers `io`, which must not block.
    pub(crate) fn new(io: T, kind: Kind) -> io::Result<Self> {
        // SAFETY: the fd is that of `io`, a socket or a file of std that keeps it open until it drops, which is after
        // the registration (invariant 1) or after `into_inner` has dropped that.
        let registration = unsafe { Registration::new(io.as_raw_fd(), kind) }?;
        Ok(Source { registration, io, guess: Guess::default() })
    }

    pub(crate) fn registration(&self) -> &Registration {
        &self.registration
    }

    /// What is guessed of its reads, if it is a stream.
    pub(crate) fn guess(&self) -> &Guess {
        &self.guess
    }

    /// Ends the registration.
    pub(crate) fn into_inner(self) -> T {
        drop(self.registration);
        self.io
    }
}

impl<T> Deref for Source<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.io
    }
}
