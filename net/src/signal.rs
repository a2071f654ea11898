//! Signals: an eventfd each, which waits in the netpoller like a socket. No thread of its own.
//!
//! 1. The handler adds one to the count. That takes no memory and no room: no signal is lost. Only a count that is full
//!    refuses, and that is there to be read.
//! 2. The reader takes the whole count, then reports: a signal that comes after the report counts anew, and one that
//!    came before is part of it.
//! 3. The child of a fork shares the count, so there the handler does nothing: what it adds the parent would take for a
//!    signal of its own.
//! 4. signal-hook-registry drops the handler, and with it what it has of the eventfd, only when no thread is in it. A
//!    thread of the parent that was in it at a fork stays in it in the child, so there a `Signal` leaves the handler.

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
    use std::fs::File;
    use std::io::{self, Read, Write};
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use gmp_executor::netpoll::{Direction, Kind};
    use rustix::event::{EventfdFlags, eventfd};
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
        source: Source<Arc<File>>,
        handler: SigId,
        /// The process that it belongs to.
        process: u32,
    }

    /// Hears the signals of a kind from now on. From the first time on they have no other effect, for the life of the
    /// process, even after the `Signal` is dropped. Go: signal.Notify.
    ///
    /// A child of a fork inherits that: a signal that is sent to it has no effect, until it execs a program, or listens
    /// itself in a runtime of its own.
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
        let count = Arc::new(File::from(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?));
        let handlers = count.clone();
        let source = Source::new(count, Kind::Open)?;
        let process = std::process::id();
        // SAFETY: the action asks for the process's number and writes to an eventfd that does not block, both of which
        // a handler may do; it allocates nothing and cannot panic. signal-hook-registry keeps errno.
        let handler = unsafe {
            signal_hook_registry::register(kind.0, move || {
                if std::process::id() == process {
                    // It fails where the count is full, and then it is read (invariant 1).
                    let _ = (&*handlers).write(&1u64.to_ne_bytes());
                }
            })
        }?;
        Ok(Signal { kind, source, handler, process })
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
            let read = || (&**self.source).read(&mut [0; size_of::<u64>()]);
            self.source.registration().poll_io(Direction::Read, cx, read).map_ok(drop)
        }
    }

    impl fmt::Debug for Signal {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Signal").field("kind", &self.kind).finish_non_exhaustive()
        }
    }

    impl Drop for Signal {
        fn drop(&mut self) {
            // Invariant 4.
            if std::process::id() == self.process {
                signal_hook_registry::unregister(self.handler);
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use std::os::fd::AsRawFd;

        use super::*;

        /// What a socket or a pipe is told takes memory, which the system may not have.
        #[test]
        fn r01_a_signal_needs_no_memory_and_no_room() {
            let runtime = gmp_executor::runtime::Builder::new().procs(1).build().unwrap();
            let _entered = runtime.enter();
            let mut signals = signal(SignalKind::window_change()).unwrap();
            let is = std::fs::read_link(format!("/proc/self/fd/{}", signals.source.as_raw_fd())).unwrap();
            assert_eq!(is.to_str(), Some("anon_inode:[eventfd]"));
            // As many as there can be: the handler's does not fit.
            (&**signals.source).write_all(&(u64::MAX - 1).to_ne_bytes()).unwrap();
            // SAFETY: the signal is handled.
            assert_eq!(unsafe { libc::raise(libc::SIGWINCH) }, 0);
            runtime.block_on(async {
                assert_eq!(signals.recv().await, Some(()));
                assert!(
                    std::future::poll_fn(|cx| Poll::Ready(signals.poll_recv(cx).is_pending())).await,
                    "all are one"
                );
            });
        }
    }
}
