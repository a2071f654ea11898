//! polling's own wait, for systems without a backend of their own; tests run it on Linux too.
//!
//! 1. An fd gives one event for each time it is asked for. It is asked for under the descriptor's lock, whenever a task
//!    parks there and whenever an event leaves some waiting, with all that is then waited for; what is ready already
//!    comes at once, so neither the tick nor RDHUP matters here.
//! 2. polling has one flag for all notifications, and any wait takes it. A wait without a timeout that may have taken a
//!    break of the blocked thread gives it again. polling also lets one thread in at a time: the other returns at once
//!    with nothing.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{BorrowedFd, RawFd};
use std::task::Waker;
use std::time::Duration;

use polling::{Events, PollMode, Poller};

use super::breaks::Breaks;
use super::driver::{Outcome, Wait};
use super::readiness::{Event, Interest};
use super::table::{Key, Table};
use crate::sys::{Mutex, rank};

const BATCH: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// polling's poller, driven as it is meant to be.
pub(super) struct Portable {
    poller: Poller,
    /// Buffers that no thread waits with.
    spare: Mutex<Vec<Events>>,
}

impl Portable {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Portable { poller: Poller::new()?, spare: Mutex::new(rank::LEAF, Vec::new()) })
    }

    pub(super) fn add(&self, fd: RawFd, key: Key) -> io::Result<()> {
        let none = polling::Event::none(key.to_usize());
        // SAFETY: the caller of `register` keeps the fd open until the registration is dropped, which deletes it here.
        unsafe { self.poller.add_with_mode(fd, none, PollMode::Oneshot) }
    }

    pub(super) fn delete(&self, fd: RawFd) -> io::Result<()> {
        // SAFETY: as in `add`; this is the drop of that registration.
        self.poller.delete(unsafe { BorrowedFd::borrow_raw(fd) })
    }

    pub(super) fn notify(&self) {
        let notified = self.poller.notify();
        debug_assert!(notified.is_ok(), "polling's notification failed: {notified:?}");
    }

    /// Asks for the next event of `fd`.
    pub(super) fn arm(&self, fd: RawFd, key: Key, interest: Interest) {
        let wanted = polling::Event::new(key.to_usize(), interest.is_readable(), interest.is_writable());
        // SAFETY: the descriptor names the fd under its lock, so the drop of its registration has not ended.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        // It fails if that drop has begun and has deleted the fd: then nobody waits for the event.
        let _ = self.poller.modify(fd, wanted);
    }

    pub(super) fn wait(
        &self,
        wait: Wait,
        table: &Table,
        breaks: &Breaks,
        ready: &mut Vec<Waker>,
    ) -> io::Result<Outcome> {
        let spare = self.spare.lock().pop();
        let mut events = spare.unwrap_or_else(|| Events::with_capacity(BATCH));
        let timeout = match wait {
            Wait::Now => Some(Duration::ZERO),
            Wait::Until(time) => Some(time),
            Wait::Forever => None,
        };
        let result = self.poller.wait(&mut events, timeout);
        let mut outcome = Outcome { taken: 0, broken: wait != Wait::Now };
        for event in events.iter() {
            let key = Key::from_usize(event.key);
            let seen = Event { readable: event.readable, writable: event.writable, ..Event::default() };
            if let Some(descriptor) = table.get(key.index) {
                let arm = |fd, interest| self.arm(fd, key, interest);
                outcome.taken += descriptor.event(key.generation, seen, ready, Some(&arm));
            }
        }
        events.clear();
        self.spare.lock().push(events);
        if wait == Wait::Now && breaks.is_pending() {
            self.notify();
        }
        match result {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(e),
            _ => Ok(outcome),
        }
    }
}
