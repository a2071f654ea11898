//! The netpoller of a runtime slot: opened when a runtime is built, closed when it ends, opened again by the next one.
//!
//! 1. The backend is held by counted references: who waits, breaks or registers while another closes goes on with a
//!    poller that is still open, and the last of them closes it.
//! 2. The table's copy of the reference is taken away under the lock under which registrations begin and end, so that
//!    a registration and the poller it was added to are always of one runtime.
//! 3. The child of a fork touches nothing of it. The kernel has one poller for both processes, and in it the parent's
//!    registrations: one that the child ended would be the parent's. And a lock that another thread held at the fork is
//!    never let go.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::breaks::Breaks;
use super::descriptor::{Arm, Descriptor};
#[cfg(target_os = "linux")]
use super::linux::Native;
use super::portable::Portable;
use super::registration::{Kind, Registration, shut_down};
use super::table::{Key, Table};
use crate::sys::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sys::atomic::{AtomicBool, AtomicUsize};
use crate::sys::{Line, Mutex, fork_count, rank};
use crate::wakers::wake;

/// Which way to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Backend {
    /// The system's own: edge-triggered epoll on Linux, `Portable` elsewhere.
    #[default]
    Native,
    /// polling's wait, with one request an event.
    Portable,
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all. Takes no breaks.
    Now,
    /// At most this long, and not less unless something comes.
    Until(Duration),
    /// Until something comes.
    Forever,
}

impl Wait {
    /// The same, or a shorter one.
    #[cfg(not(gmp_loom))]
    pub(crate) fn at_most(self, time: Duration) -> Self {
        match self {
            Wait::Now => Wait::Now,
            Wait::Until(left) => Wait::Until(left.min(time)),
            Wait::Forever => Wait::Until(time),
        }
    }
}

/// What a wait has done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    /// How many wakers were taken out.
    pub(super) taken: usize,
    /// Whether the blocked thread has read a break.
    pub(super) broken: bool,
}

/// An open poller.
pub(super) enum Driver {
    #[cfg(target_os = "linux")]
    Native(Native),
    Portable(Portable),
}

impl Driver {
    fn new(backend: Backend, busy_poll: Option<Duration>) -> io::Result<Self> {
        // polling's wait does not show whether looking pays.
        let _ = busy_poll;
        match backend {
            #[cfg(target_os = "linux")]
            Backend::Native => Native::new(busy_poll).map(Driver::Native),
            _ => Portable::new().map(Driver::Portable),
        }
    }

    fn add(&self, fd: RawFd, key: Key) -> io::Result<()> {
        let added = match self {
            #[cfg(target_os = "linux")]
            Driver::Native(native) => native.add(fd, key),
            Driver::Portable(portable) => portable.add(fd, key),
        };
        added.map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied => io::Error::new(
                io::ErrorKind::Unsupported,
                "this kind of file cannot be waited for (a regular file?): use a thread of its own",
            ),
            io::ErrorKind::AlreadyExists => io::Error::new(
                io::ErrorKind::AlreadyExists,
                "this fd is registered with the runtime already: use try_clone for a second handle",
            ),
            _ => e,
        })
    }

    fn delete(&self, fd: RawFd) -> io::Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Driver::Native(native) => native.delete(fd),
            Driver::Portable(portable) => portable.delete(fd),
        }
    }

    fn notify(&self) {
        match self {
            #[cfg(target_os = "linux")]
            Driver::Native(native) => native.notify(),
            Driver::Portable(portable) => portable.notify(),
        }
    }
}

/// The netpoller of a runtime slot. Never freed.
pub(crate) struct Netpoll {
    table: Table,
    /// The open poller, for those who wait and break.
    driver: Mutex<Option<Arc<Driver>>>,
    breaks: Breaks,
    /// Whether events have to be asked for. Written by `open`, before the first registration.
    arms: AtomicBool,
    /// [`fork_count`] when it was opened. Written by `open`.
    forks: AtomicUsize,
    /// Tasks that wait for I/O. Every wait for it writes this.
    waiting: Line<AtomicUsize>,
    /// Whether a thread is in a blocking wait.
    blocked: AtomicBool,
    /// Whether a thread is in a wait without a timeout; looked at by debug builds.
    polled: AtomicBool,
}

impl Netpoll {
    pub(crate) const fn new() -> Self {
        Self::on(Table::new())
    }

    /// One whose generations and ticks start there, to be near their wrap.
    #[cfg(test)]
    pub(super) const fn starting_at(generation: u32, tick: u32) -> Self {
        Self::on(Table::starting_at(generation, tick))
    }

    /// Goes on as on a kernel without `epoll_pwait2`.
    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn forget_pwait2(&self) {
        if let Some(Driver::Native(native)) = self.driver().as_deref() {
            native.forget_pwait2();
        }
    }

    /// How many blocking waits sleep at once until the next one that looks first.
    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn sleeps_before_a_look(&self) -> u32 {
        match self.driver().as_deref() {
            Some(Driver::Native(native)) => native.sleeps_before_a_look(),
            _ => 0,
        }
    }

    /// An event as a batch may still hold it, of the registration that `index` had at `generation`.
    #[cfg(test)]
    pub(super) fn late_event(&self, index: u32, generation: u32, ready: &mut Vec<Waker>) -> usize {
        let event = super::readiness::Event { readable: true, writable: true, ..Default::default() };
        self.table.get(index).map_or(0, |descriptor| descriptor.event(generation, event, ready, None))
    }

    const fn on(table: Table) -> Self {
        Netpoll {
            table,
            driver: Mutex::new(rank::NETPOLL, None),
            breaks: Breaks::new(),
            arms: AtomicBool::new(false),
            forks: AtomicUsize::new(0),
            waiting: Line(AtomicUsize::new(0)),
            blocked: AtomicBool::new(false),
            polled: AtomicBool::new(false),
        }
    }

    /// Opens the poller of a new runtime. Its blocking waits look for at most `busy_poll` before they sleep, or for as
    /// long as mostly pays.
    ///
    /// # Errors
    ///
    /// Those of the system: out of fds or memory.
    pub(crate) fn open(&self, backend: Backend, busy_poll: Option<Duration>) -> io::Result<()> {
        let new = Arc::new(Driver::new(backend, busy_poll)?);
        self.arms.store(matches!(*new, Driver::Portable(_)), Relaxed);
        self.forks.store(fork_count(), Relaxed);
        let mut driver = self.driver.lock();
        debug_assert!(driver.is_none(), "a netpoller is closed before it is opened again");
        // A late break of the last runtime may have set the flag and found no poller to notify. Under this lock: a
        // break that sets it from here on finds the new one.
        self.breaks.taken();
        *driver = Some(new.clone());
        drop(driver);
        self.table.open(new);
        Ok(())
    }

    /// Ends the runtime's registrations and its poller. Whoever waits is woken, and finds that the runtime was shut
    /// down.
    pub(crate) fn close(&self) {
        let mut taken = Vec::new();
        self.table.close(&mut taken);
        drop(self.driver.lock().take());
        self.wake_taken(taken);
    }

    fn wake_taken(&self, taken: Vec<Waker>) {
        self.waiting.0.fetch_sub(taken.len(), Relaxed);
        // They may be tasks of other runtimes, which go on.
        taken.into_iter().for_each(wake);
    }

    fn driver(&self) -> Option<Arc<Driver>> {
        self.driver.lock().clone()
    }

    /// Waits for events. The wakers of what became ready go into `ready`; the caller wakes them. A signal ends it
    /// early, with nothing; so may other reasons. Go: netpoll.
    ///
    /// # Errors
    ///
    /// Those of the system, or that the netpoller is closed.
    pub(crate) fn wait(&self, wait: Wait, ready: &mut Vec<Waker>) -> io::Result<()> {
        let driver = self.driver().ok_or_else(shut_down)?;
        let inside = if wait == Wait::Now { &self.polled } else { &self.blocked };
        // Acquire and Release pair with each other across threads, so that the check itself orders two waits.
        debug_assert!(!inside.swap(true, Acquire), "two threads in a {wait:?} wait of one netpoller");
        if wait != Wait::Now {
            self.blocked.store(true, Relaxed);
        }
        let outcome = match &*driver {
            #[cfg(target_os = "linux")]
            Driver::Native(native) => native.wait(wait, &self.table, ready),
            Driver::Portable(portable) => portable.wait(wait, &self.table, &self.breaks, ready),
        };
        if cfg!(debug_assertions) || wait != Wait::Now {
            // Before the waiters are counted down: who sees that none is left sees that somebody is on the way out.
            inside.store(false, Release);
        }
        let outcome = outcome?;
        if outcome.broken {
            self.breaks.taken();
        }
        if outcome.taken > 0 {
            // Release: pairs with the Acquire in `is_blocked`.
            self.waiting.0.fetch_sub(outcome.taken, Release);
        }
        Ok(())
    }

    /// Breaks the blocked wait, now or, if there is none, when it begins. Go: netpollBreak.
    pub(crate) fn wake_blocked(&self) {
        if self.breaks.request() {
            if let Some(driver) = self.driver() {
                driver.notify();
            }
        }
    }

    /// Whether a thread is in a blocking wait, and has not come out with anything.
    pub(crate) fn is_blocked(&self) -> bool {
        // Acquire: pairs with the Release in `wait`, so that a count of waiters that went down shows in the flag.
        let _ = self.waiting.0.load(Acquire);
        self.blocked.load(Acquire)
    }

    /// How many tasks wait for I/O.
    #[inline]
    pub(crate) fn waiters(&self) -> usize {
        self.waiting.0.load(Relaxed)
    }

    /// Whether any socket is registered, awaited or not.
    pub(crate) fn has_sockets(&self) -> bool {
        self.table.registered() > 0
    }

    pub(super) fn waiting(&self) -> &AtomicUsize {
        &self.waiting.0
    }

    /// Registers an fd. Go: netpollopen.
    ///
    /// # Errors
    ///
    /// `Unsupported` for a regular file, `AlreadyExists` for an fd that is registered, those of the system, or that the
    /// netpoller is closed.
    ///
    /// # Safety
    ///
    /// `fd` stays open until the registration is dropped.
    pub(crate) unsafe fn register(&'static self, fd: RawFd, kind: Kind) -> io::Result<Registration> {
        let (key, descriptor, driver) = self.table.begin(fd, kind == Kind::Open)?;
        if let Err(e) = driver.add(fd, key) {
            let mut taken = Vec::new();
            self.table.end(key, true, &mut taken);
            debug_assert!(taken.is_empty(), "nobody waits for what has not been registered");
            return Err(e);
        }
        Ok(Registration::of(self, descriptor, key))
    }

    /// Whether this process is the one that opened it (invariant 3).
    // Relaxed: whoever has a registration of this runtime got it after `open`; the fork itself comes before whatever
    // its child does.
    #[inline]
    pub(super) fn is_of_this_process(&self) -> bool {
        self.forks.load(Relaxed) == fork_count()
    }

    /// Ends a registration, unless its runtime ended first. Go: netpollclose.
    pub(super) fn deregister(&self, descriptor: &Descriptor, key: Key) {
        if !self.is_of_this_process() {
            return;
        }
        let Some(driver) = self.table.driver_of(descriptor, key) else { return };
        let deleted = descriptor.fd(key.generation).is_some_and(|fd| driver.delete(fd).is_ok());
        let mut taken = Vec::new();
        // What could not be deleted may still give events: its descriptor is not used again.
        self.table.end(key, deleted, &mut taken);
        self.waiting.0.fetch_sub(taken.len(), Relaxed);
    }

    /// Calls `f` with the count of waiters and with the way to ask for events, if they have to be asked for.
    #[inline]
    pub(super) fn with_arm<R>(&self, key: Key, f: impl FnOnce(&AtomicUsize, Arm<'_>) -> R) -> R {
        // Relaxed: whoever has a registration of this runtime got it after `open`; one of an earlier runtime finds its
        // generation ended before it could arm anything.
        if self.arms.load(Relaxed) {
            if let Some(driver) = self.driver() {
                if let Driver::Portable(portable) = &*driver {
                    return f(&self.waiting.0, Some(&|fd, interest| portable.arm(fd, key, interest)));
                }
            }
        }
        f(&self.waiting.0, None)
    }
}
