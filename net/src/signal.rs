//! Signals: a socket pair each, whose reading end waits in the netpoller like any other. No thread of its own.
//!
//! 1. The handler writes one byte at most that has not been read: `pending` says if one is there. If the system has no
//!    memory for it that signal is lost, but the next one tries again.
//! 2. The reader first reads the byte, then clears `pending`, then reports: a signal that comes after the report writes
//!    the next byte, and one that came before is part of it.
//! 3. The child of a fork shares the socket pair, so there the handler does nothing: what it writes the parent would
//!    take for a signal of its own.
//! 4. signal-hook-registry drops the handler, and with it the writing end, only when no thread is in it.

use std::io;

/// Waits for the next interrupt of the terminal (Ctrl-C), `SIGINT`.
///
/// After the first call the signal no longer ends the process. Go: signal.Notify with os.Interrupt.
///
/// # Errors
///
/// Those of the system, or that the runtime was shut down.
///
/// # Cancel safety
///
/// Lossy: a signal that comes while no call waits is not seen by the next one; keep a `Signal` for that.
///
/// ```no_run
/// # gmp::block_on(async {
/// gmp::signal::ctrl_c().await?;
/// println!("that is all");
/// # Ok::<(), std::io::Error>(())
/// # }).unwrap();
/// ```
pub async fn ctrl_c() -> io::Result<()> {
    unix::signal(unix::SignalKind::interrupt())?.wait().await
}

/// Signals of unix.
pub mod unix {
    use std::fmt;
    use std::io::{self, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll};

    use gmp_executor::netpoll::{Direction, Kind};
    use signal_hook_registry::{FORBIDDEN, SigId};

    use crate::source::Source;

    /// A kind of signal, by its number.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct SignalKind(i32);

    macro_rules! kinds {
        ($($name:ident = $number:ident: $what:literal;)*) => { impl SignalKind { $(
            #[doc = concat!("`", stringify!($number), "`: ", $what)]
            #[must_use]
            pub const fn $name() -> SignalKind {
                SignalKind(libc::$number)
            }
        )* } };
    }

    kinds! {
        alarm = SIGALRM: "a timer of the process has run out.";
        child = SIGCHLD: "a child process has changed its state.";
        hangup = SIGHUP: "the terminal has gone; often: read the configuration again.";
        interrupt = SIGINT: "Ctrl-C at the terminal.";
        io = SIGIO: "a file is ready.";
        pipe = SIGPIPE: "a write to what nobody reads.";
        quit = SIGQUIT: "Ctrl-\\ at the terminal.";
        terminate = SIGTERM: "the process is asked to end.";
        user_defined1 = SIGUSR1: "for the user's own use.";
        user_defined2 = SIGUSR2: "for the user's own use.";
        window_change = SIGWINCH: "the terminal's size has changed.";
    }

    impl SignalKind {
        /// The kind of a number.
        #[must_use]
        pub const fn from_raw(number: i32) -> SignalKind {
            SignalKind(number)
        }

        /// Its number.
        #[must_use]
        pub const fn as_raw_value(self) -> i32 {
            self.0
        }
    }

    impl From<i32> for SignalKind {
        fn from(number: i32) -> SignalKind {
            SignalKind(number)
        }
    }

    impl From<SignalKind> for i32 {
        fn from(kind: SignalKind) -> i32 {
            kind.0
        }
    }

    /// Hears the signals of one kind. Several that come before they are asked for count as one.
    pub struct Signal {
        kind: SignalKind,
        source: Source<UnixStream>,
        pending: Arc<AtomicBool>,
        handler: SigId,
    }

    /// Hears the signals of a kind from now on. From the first time on they have no other effect, for the life of the
    /// process, even after the `Signal` is dropped. Go: signal.Notify.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a kind that cannot be handled (`SIGKILL`, `SIGSTOP`, `SIGILL`, `SIGFPE`, `SIGSEGV`, or no
    /// signal at all); those of the system; or that the runtime was shut down.
    ///
    /// ```
    /// # gmp::block_on(async {
    /// use gmp::signal::unix::{SignalKind, signal};
    ///
    /// let mut hangups = signal(SignalKind::hangup())?;
    /// std::process::Command::new("kill").args(["-HUP", &std::process::id().to_string()]).status()?;
    /// hangups.recv().await;
    /// # Ok::<(), std::io::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn signal(kind: SignalKind) -> io::Result<Signal> {
        if kind.0 <= 0 || FORBIDDEN.contains(&kind.0) {
            let what = format!("signal {} cannot be handled", kind.0);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let (ours, handlers) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        handlers.set_nonblocking(true)?;
        let source = Source::new(ours, Kind::Open)?;
        let pending = Arc::new(AtomicBool::new(false));
        let seen = pending.clone();
        let process = std::process::id();
        // SAFETY: the action asks for the process's number, swaps an atomic and writes to a socket that does not block,
        // all of which a handler may do; it allocates nothing and cannot panic. The writing end cannot break: the
        // reading end is closed after it, in `drop`. signal-hook-registry keeps errno.
        let handler = unsafe {
            signal_hook_registry::register(kind.0, move || {
                if std::process::id() == process {
                    announce(&seen, &handlers);
                }
            })
        }?;
        Ok(Signal { kind, source, pending, handler })
    }

    /// The handler's part, but for a fork.
    fn announce(pending: &AtomicBool, mut reader: impl Write) {
        // AcqRel: pairs with the swap in `poll`. It has room for one byte, which is all that is ever in it.
        if !pending.swap(true, Ordering::AcqRel) && reader.write(&[1]).is_err() {
            // Release: as above. There is no byte, and so nobody else would clear it (invariant 1).
            pending.store(false, Ordering::Release);
        }
    }

    impl Signal {
        /// Waits for the next signal. It never gives `None`, except after the runtime was shut down, and in the child
        /// of a fork.
        ///
        /// # Cancel safety
        ///
        /// Strict: a signal that was not reported is reported by the next call.
        pub async fn recv(&mut self) -> Option<()> {
            self.wait().await.ok()
        }

        pub(super) async fn wait(&mut self) -> io::Result<()> {
            std::future::poll_fn(|cx| self.poll(cx)).await
        }

        /// As `recv`.
        pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<()>> {
            self.poll(cx).map(Result::ok)
        }

        fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let read = || (&*self.source).read(&mut [0; 1]);
            self.source.registration().poll_io(Direction::Read, cx, read).map_ok(|_| {
                // AcqRel: pairs with the swap in the handler (invariant 2).
                self.pending.swap(false, Ordering::AcqRel);
            })
        }
    }

    impl fmt::Debug for Signal {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Signal").field("kind", &self.kind).finish_non_exhaustive()
        }
    }

    impl Drop for Signal {
        fn drop(&mut self) {
            signal_hook_registry::unregister(self.handler);
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// Fails as a socket does for which there is no memory.
        struct NoMemory;

        impl Write for NoMemory {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(libc::ENOBUFS))
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        #[test]
        fn r11_a_signal_that_could_not_be_written_does_not_make_deaf() {
            let (pending, mut written) = (AtomicBool::new(false), Vec::new());
            announce(&pending, NoMemory);
            announce(&pending, &mut written);
            announce(&pending, &mut written);
            assert_eq!(written, [1]);
        }
    }
}
