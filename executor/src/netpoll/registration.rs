//! A registration: the netpoller's half of a socket. `gmp-net` holds one beside every fd; sockets are tried first and
//! waited for after.
//!
//! 1. It is dropped before its fd is closed, so that no event of the next fd of that number can be its own.
//! 2. After its runtime has ended it touches nothing, and every wait on it is an error. In the child of a fork the
//!    runtime of the parent is gone as well.
//! 3. The system call is tried first, but for a connection under way. Only when it would block, or when a stream gave
//!    or took less than asked, is the direction taken for drained, and only if no event came meanwhile.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::RawFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use super::Netpoll;
use super::descriptor::{Descriptor, Ended, Waiter};
use super::guess::{Gave, Guess};
use super::readiness::{Direction, Drained, Interest, Ready};
use super::table::Key;
use crate::budget::poll_charge;
use crate::context;
use crate::runtime::{FORKED, SHUT_DOWN};

/// What a fresh registration expects of its fd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connected, listening or a datagram socket: the first calls are tried at once.
    Open,
    /// A connection under way: nothing is ready until the kernel says so.
    Connecting,
}

/// The netpoller's half of a socket.
pub struct Registration {
    netpoll: &'static Netpoll,
    descriptor: &'static Descriptor,
    key: Key,
}

pub(super) fn shut_down() -> io::Error {
    io::Error::other(SHUT_DOWN)
}

#[cold]
fn forked() -> io::Error {
    io::Error::other(FORKED)
}

impl From<Ended> for io::Error {
    fn from(_: Ended) -> io::Error {
        shut_down()
    }
}

impl Registration {
    /// Registers an fd with the netpoller of the runtime that this thread is in, else of the default one.
    ///
    /// # Errors
    ///
    /// `Unsupported` for a regular file, `AlreadyExists` for an fd that is registered, those of the system, or that
    /// there is no such runtime.
    ///
    /// # Safety
    ///
    /// `fd` stays open until the registration is dropped.
    pub unsafe fn new(fd: RawFd, kind: Kind) -> io::Result<Registration> {
        // SAFETY: passed on.
        unsafe { crate::runtime::current()?.sched.netpoll.register(fd, kind) }
    }

    pub(super) fn of(netpoll: &'static Netpoll, descriptor: &'static Descriptor, key: Key) -> Self {
        Registration { netpoll, descriptor, key }
    }

    /// Ready in `direction`, or parks the task in the one slot that the `poll_*` methods of this direction share: the
    /// last one to poll is woken.
    ///
    /// # Errors
    ///
    /// The runtime was shut down.
    pub fn poll_ready(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        let charge = ready!(poll_charge(cx));
        let readiness = ready!(self.poll_slot(direction, cx))?;
        charge.made_progress();
        Poll::Ready(Ok(readiness))
    }

    #[inline]
    fn poll_slot(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        self.check_process()?;
        match self.descriptor.look(self.key.generation) {
            Some(seen) if seen.meets(direction.into()) => Poll::Ready(Ok(seen)),
            _ => self.park_in_slot(direction, cx),
        }
    }

    /// The rest of `poll_slot`. Not inlined: of three calls for a request it is one that parks.
    #[inline(never)]
    fn park_in_slot(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        let polled = self.netpoll.with_arm(self.key, |waiting, arm| {
            self.descriptor.poll_slot(self.key.generation, direction, cx.waker(), waiting, arm)
        });
        if polled.is_pending() {
            context::io_is_awaited(self.netpoll);
        }
        polled.map_err(io::Error::from)
    }

    /// Whether this is the process that registered it, and not a child of its fork.
    #[inline]
    #[must_use]
    pub fn is_of_this_process(&self) -> bool {
        self.netpoll.is_of_this_process()
    }

    /// An error in the child of a fork, before anything of the parent's is touched.
    #[inline]
    fn check_process(&self) -> io::Result<()> {
        if self.is_of_this_process() { Ok(()) } else { Err(forked()) }
    }

    /// Waits until a direction of `interest` is ready.
    ///
    /// # Errors
    ///
    /// The runtime was shut down.
    ///
    /// # Cancel safety
    ///
    /// Strict: waiting takes nothing, so dropping it loses nothing.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        let mut wait = pin!(self.wait(interest));
        poll_fn(|cx| {
            let charge = ready!(poll_charge(cx));
            let readiness = ready!(wait.as_mut().poll(cx))?;
            charge.made_progress();
            Poll::Ready(Ok(readiness))
        })
        .await
    }

    fn wait(&self, interest: Interest) -> Wait<'_> {
        Wait { registration: self, interest, waiter: Waiter::new(interest), linked: false }
    }

    /// What is known now. An ended registration is ready for nothing.
    ///
    /// # Errors
    ///
    /// The runtime was shut down.
    pub fn look(&self) -> io::Result<Ready> {
        self.check_process()?;
        self.descriptor.look(self.key.generation).ok_or_else(shut_down)
    }

    /// Takes `interest` for drained, unless an event came since `seen`, or the end of the stream or an error has been
    /// seen.
    pub fn clear(&self, interest: Interest, seen: Ready) {
        self.descriptor.clear(seen, interest, Drained::Short);
    }

    /// Runs `op`, once. Also if nothing is known to be ready: what has become so since is not known before somebody
    /// looks at the netpoller, which nobody may do soon while no task waits.
    ///
    /// # Errors
    ///
    /// What `op` gives, or that the runtime was shut down.
    pub fn try_io<R>(&self, interest: Interest, op: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        let seen = self.look()?;
        let result = op();
        if result.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock) {
            self.descriptor.clear(seen, interest, Drained::WouldBlock);
        }
        result
    }

    /// Runs `op` until it gives something else than `WouldBlock`; waits in the slot of `direction`.
    ///
    /// # Errors
    ///
    /// Those of `op`, or that the runtime was shut down.
    pub fn poll_io<R>(
        &self,
        direction: Direction,
        cx: &mut Context<'_>,
        op: impl FnMut() -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.poll_transfer(direction, cx, op, |_| false)
    }

    /// As `poll_io`, for a stream: `short` tells of a transfer that was less than asked, but not nothing.
    ///
    /// # Errors
    ///
    /// Those of `op`, or that the runtime was shut down.
    #[inline]
    pub fn poll_transfer<R>(
        &self,
        direction: Direction,
        cx: &mut Context<'_>,
        mut op: impl FnMut() -> io::Result<R>,
        short: impl Fn(&R) -> bool,
    ) -> Poll<io::Result<R>> {
        let charge = ready!(poll_charge(cx));
        loop {
            let seen = ready!(self.poll_slot(direction, cx))?;
            if let Some(result) = self.attempt(seen, direction, &mut op, &short) {
                charge.made_progress();
                return Poll::Ready(result);
            }
        }
    }

    /// As `poll_transfer` for reading, with what is guessed of this stream: where the read is thought to find nothing
    /// the task is woken and pending once, so that those go first that are queued.
    ///
    /// # Errors
    ///
    /// Those of `op`, or that the runtime was shut down.
    #[inline]
    pub fn poll_read(
        &self,
        guess: &Guess,
        cx: &mut Context<'_>,
        mut op: impl FnMut() -> io::Result<usize>,
        short: impl Fn(&usize) -> bool,
    ) -> Poll<io::Result<usize>> {
        let charge = ready!(poll_charge(cx));
        loop {
            let seen = ready!(self.poll_slot(Direction::Read, cx))?;
            if guess.lets_others_go(context::others_go_quickly) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let result = self.attempt(seen, Direction::Read, &mut op, &short);
            guess.learn(match &result {
                None => Gave::Nothing,
                Some(Ok(n)) if *n > 0 && !short(n) => Gave::Full,
                Some(_) => Gave::Rest,
            });
            if let Some(result) = result {
                charge.made_progress();
                return Poll::Ready(result);
            }
        }
    }

    /// As `poll_io`, for any number of tasks at a time.
    ///
    /// # Errors
    ///
    /// Those of `op`, or that the runtime was shut down.
    ///
    /// # Cancel safety
    ///
    /// Strict: if it is dropped, `op` has not had an effect.
    pub async fn async_io<R>(&self, direction: Direction, op: impl FnMut() -> io::Result<R>) -> io::Result<R> {
        self.async_transfer(direction, op, |_| false).await
    }

    /// As `poll_transfer`, for any number of tasks at a time.
    ///
    /// # Errors
    ///
    /// Those of `op`, or that the runtime was shut down.
    ///
    /// # Cancel safety
    ///
    /// Strict: if it is dropped, `op` has not had an effect.
    pub async fn async_transfer<R>(
        &self,
        direction: Direction,
        mut op: impl FnMut() -> io::Result<R>,
        short: impl Fn(&R) -> bool,
    ) -> io::Result<R> {
        let mut wait = pin!(self.wait(direction.into()));
        poll_fn(|cx| {
            let charge = ready!(poll_charge(cx));
            loop {
                let seen = ready!(wait.as_mut().poll(cx))?;
                if let Some(result) = self.attempt(seen, direction, &mut op, &short) {
                    charge.made_progress();
                    return Poll::Ready(result);
                }
            }
        })
        .await
    }

    /// Runs `op` once more, after `seen`: nothing if it would block.
    #[inline]
    fn attempt<R>(
        &self,
        seen: Ready,
        direction: Direction,
        op: &mut impl FnMut() -> io::Result<R>,
        short: &impl Fn(&R) -> bool,
    ) -> Option<io::Result<R>> {
        loop {
            let drained = match op() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Drained::WouldBlock,
                Ok(done) if short(&done) => {
                    self.descriptor.clear(seen, direction.into(), Drained::Short);
                    return Some(Ok(done));
                }
                result => return Some(result),
            };
            self.descriptor.clear(seen, direction.into(), drained);
            return None;
        }
    }

    /// Index and generation.
    #[cfg(test)]
    pub(super) fn key(&self) -> (u32, u32) {
        (self.key.index, self.key.generation)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.netpoll.deregister(self.descriptor, self.key);
    }
}

/// Its key, and nothing behind it: who formats runs the user's writer, which may do anything, and no lock is held for
/// it. So neither the netpoller nor a lock of `sys` has a `Debug` that a derive could take along.
impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { index, generation } = self.key;
        f.debug_struct("Registration").field("index", &index).field("generation", &generation).finish_non_exhaustive()
    }
}

/// Waits in the list of a descriptor.
struct Wait<'a> {
    registration: &'a Registration,
    interest: Interest,
    waiter: Waiter,
    /// Whether the waiter may be in the list.
    linked: bool,
}

impl Future for Wait<'_> {
    type Output = io::Result<Ready>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `waiter` is the only field that is pinned; it is not moved below.
        let this = unsafe { self.get_unchecked_mut() };
        let (registration, interest) = (this.registration, this.interest);
        registration.check_process()?;
        // SAFETY: it is pinned with `self`, and `drop` unlinks it before its memory goes.
        let waiter = unsafe { Pin::new_unchecked(&this.waiter) };
        let result = registration.netpoll.with_arm(registration.key, |waiting, arm| {
            let generation = registration.key.generation;
            registration.descriptor.poll_linked(generation, interest, waiter, cx.waker(), waiting, arm)
        });
        if result.is_pending() {
            this.linked = true;
            context::io_is_awaited(registration.netpoll);
        }
        result.map_err(io::Error::from)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        // In the child of a fork nobody comes to the list any more.
        if self.linked && self.registration.netpoll.is_of_this_process() {
            let Registration { netpoll, descriptor, .. } = self.registration;
            // SAFETY: it was pinned by the polls that linked it.
            let waiter = unsafe { Pin::new_unchecked(&self.waiter) };
            descriptor.unlink(waiter, netpoll.waiting());
        }
    }
}
