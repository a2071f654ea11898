//! A descriptor: what the netpoller keeps for one registered fd (Go: pollDesc). `table` hands descriptors out and takes
//! them back; `registration` waits on them; the backends feed them events.
//!
//! 1. Descriptors are never freed and never move: a key or a registration that is out of date finds another generation.
//! 2. Who waits looks at the word again under the lock before it parks its waker, and an event changes the word before
//!    it takes the lock: one of the two sees the other, so no readiness is lost.
//! 3. An event wakes every waiter of its directions and hands readiness to none of them: a waiter that was woken and
//!    then dropped takes nothing with it.
//! 4. A linked waiter belongs to the lock. It is unlinked by the event that takes its waker, by `retire`, or by its own
//!    drop, so a linked waiter is always alive.
//! 5. Wakers are cloned before the lock is taken and dropped or woken after it is released.
//! 6. A descriptor fills one line and no more: a runtime has one for each connection.
//! 7. The count of waiters goes up under the lock with every waker that is parked, and down when the waker was taken
//!    out: by whoever drops it, or by the caller of `event`, which has the number as the result.

use std::marker::PhantomPinned;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Poll, Waker};

use super::readiness::{Direction, Drained, Event, Interest, Ready, Word};
use crate::sys::atomic::AtomicUsize;
use crate::sys::atomic::Ordering::Relaxed;
use crate::sys::{Mutex, UnsafeCell, rank};

/// The registration has ended: by `Netpoll::close`, for its owner cannot use it after having ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended;

/// What the netpoller keeps for one fd. A line of its own: neighbours belong to other processors.
#[repr(align(64))]
pub(crate) struct Descriptor {
    word: Word,
    parked: Mutex<Parked>,
}

/// Guarded by the descriptor's lock.
struct Parked {
    /// The registered fd; nothing while the descriptor is free.
    fd: Option<RawFd>,
    /// The wakers of the `poll_*` methods, one a direction; the last one wins.
    slots: [Option<Waker>; 2],
    /// The oldest of the waiters of the async methods. It has the youngest before it, and the youngest none after it.
    first: Option<NonNull<Waiter>>,
}

// Debug builds keep the rank beside the lock.
#[cfg(all(target_pointer_width = "64", not(debug_assertions), not(gmp_loom)))]
const _: () = assert!(size_of::<Descriptor>() == 64);

// SAFETY: the waiters that the list points to are only touched under the lock (invariant 4), and what they hold, a
// waker, may be sent.
unsafe impl Send for Parked {}

/// A place in the list of those who wait, part of the future that waits.
pub(crate) struct Waiter {
    /// Guarded by the descriptor's lock while `may_be_linked`; the future's own before.
    links: UnsafeCell<Links>,
    _pinned: PhantomPinned,
}

struct Links {
    linked: bool,
    interest: Interest,
    waker: Option<Waker>,
    previous: Option<NonNull<Waiter>>,
    next: Option<NonNull<Waiter>>,
}

// SAFETY: `links` is only touched under the descriptor's lock, or by the owner before it was ever linked.
unsafe impl Send for Waiter {}
// SAFETY: as above.
unsafe impl Sync for Waiter {}

impl Waiter {
    pub(crate) fn new(interest: Interest) -> Self {
        Waiter {
            links: UnsafeCell::new(Links { linked: false, interest, waker: None, previous: None, next: None }),
            _pinned: PhantomPinned,
        }
    }
}

/// Runs `f` on the links of a waiter.
///
/// # Safety
///
/// The caller holds the lock of the descriptor that the waiter waits for, and the waiter is alive: it is linked, or
/// borrowed by the caller.
unsafe fn links<R>(waiter: NonNull<Waiter>, f: impl FnOnce(&mut Links) -> R) -> R {
    // SAFETY: alive, and the lock makes the access exclusive, both by the contract above.
    unsafe { waiter.as_ref().links.with_mut(|links| f(&mut *links)) }
}

impl Parked {
    fn link(&mut self, waiter: NonNull<Waiter>) {
        let last = match self.first {
            // SAFETY: under the lock, through which `self` is reached, and the first of the list is alive (invariant
            // 4).
            Some(first) => unsafe { links(first, |l| l.previous.replace(waiter)) },
            None => {
                self.first = Some(waiter);
                Some(waiter)
            }
        };
        // SAFETY: under the lock, and `waiter` is borrowed by `poll_linked`.
        unsafe {
            links(waiter, |l| {
                l.linked = true;
                l.previous = last;
                l.next = None;
            });
        }
        if let Some(last) = last.filter(|last| *last != waiter) {
            // SAFETY: under the lock, and linked, so alive (invariant 4).
            unsafe { links(last, |l| l.next = Some(waiter)) };
        }
    }

    /// Unlinks a linked waiter: its waker and the next one.
    fn unlink(&mut self, waiter: NonNull<Waiter>) -> (Option<Waker>, Option<NonNull<Waiter>>) {
        // SAFETY: under the lock, and the waiter is linked, so alive (invariant 4).
        let (previous, next, waker) = unsafe {
            links(waiter, |l| {
                l.linked = false;
                (l.previous.take(), l.next.take(), l.waker.take())
            })
        };
        if self.first == Some(waiter) {
            self.first = next;
        } else if let Some(previous) = previous {
            // SAFETY: under the lock, and linked, so alive (invariant 4).
            unsafe { links(previous, |l| l.next = next) };
        }
        // After the youngest comes nobody, and it is before the first.
        if let Some(after) = next.or(self.first) {
            // SAFETY: as above.
            unsafe { links(after, |l| l.previous = previous) };
        }
        (waker, next)
    }

    /// Takes out every waker that waits for something in `interest`.
    fn take(&mut self, interest: Interest, taken: &mut Vec<Waker>) {
        for direction in [Direction::Read, Direction::Write] {
            if interest.meets(direction.into()) {
                taken.extend(self.slots[direction as usize].take());
            }
        }
        let mut at = self.first;
        while let Some(waiter) = at {
            // SAFETY: under the lock, and linked, so alive (invariant 4).
            let (waits_for, next) = unsafe { links(waiter, |l| (l.interest, l.next)) };
            at = next;
            if waits_for.meets(interest) {
                let (waker, _) = self.unlink(waiter);
                taken.extend(waker);
            }
        }
    }

    /// What somebody waits for.
    fn interest(&self) -> Option<Interest> {
        let mut sum = None;
        let mut join = |interest: Interest| sum = Some(sum.map_or(interest, |s: Interest| s | interest));
        for direction in [Direction::Read, Direction::Write] {
            if self.slots[direction as usize].is_some() {
                join(direction.into());
            }
        }
        let mut at = self.first;
        while let Some(waiter) = at {
            // SAFETY: under the lock, and linked, so alive (invariant 4).
            let (waits_for, next) = unsafe { links(waiter, |l| (l.interest, l.next)) };
            join(waits_for);
            at = next;
        }
        sum
    }
}

/// How a backend asks the kernel for the next event, where it has to be asked each time. Called under the descriptor's
/// lock, with the fd and what is waited for.
pub(crate) type Arm<'a> = Option<&'a dyn Fn(RawFd, Interest)>;

impl Descriptor {
    pub(crate) fn new(generation: u32, tick: u32) -> Self {
        Descriptor {
            word: Word::new(generation, tick),
            parked: Mutex::new(rank::DESCRIPTOR, Parked { fd: None, slots: [None, None], first: None }),
        }
    }

    /// What is known now, or nothing if `generation` has ended.
    #[inline]
    pub(crate) fn look(&self, generation: u32) -> Option<Ready> {
        self.word.load(generation)
    }

    /// The call that followed `seen` found nothing more.
    pub(crate) fn clear(&self, seen: Ready, interest: Interest, drained: Drained) {
        self.word.clear(seen, interest, drained);
    }

    /// Starts a registration: its generation. The caller took the descriptor from the free list.
    pub(crate) fn begin(&self, fd: RawFd, ready: bool) -> u32 {
        let mut parked = self.parked.lock();
        debug_assert!(parked.fd.is_none() && parked.first.is_none(), "a free descriptor has no fd and no waiters");
        parked.fd = Some(fd);
        self.word.begin(ready)
    }

    /// Ends the registration of `generation`, or whichever there is: its fd, if there was one to end. The wakers of all
    /// who wait go into `taken`, and are counted.
    pub(crate) fn retire(&self, generation: Option<u32>, taken: &mut Vec<Waker>) -> Option<RawFd> {
        let mut parked = self.parked.lock();
        if generation.is_some_and(|g| g != self.word.generation()) {
            return None;
        }
        let fd = parked.fd.take()?;
        self.word.end();
        parked.take(Interest::READABLE | Interest::WRITABLE, taken);
        Some(fd)
    }

    /// The fd, while `generation` lasts.
    pub(crate) fn fd(&self, generation: u32) -> Option<RawFd> {
        let parked = self.parked.lock();
        if self.word.generation() == generation { parked.fd } else { None }
    }

    /// An event of `generation`: the wakers it is for go into `ready`, their number is the result (invariant 7).
    pub(crate) fn event(&self, generation: u32, event: Event, ready: &mut Vec<Waker>, arm: Arm<'_>) -> usize {
        if !self.word.event(generation, event) {
            return 0;
        }
        let before = ready.len();
        let mut parked = self.parked.lock();
        if self.word.generation() != generation {
            // Ended since, and perhaps begun again: whoever waits now waits for another fd.
            return 0;
        }
        parked.take(event.interest(), ready);
        if let (Some(arm), Some(fd), Some(interest)) = (arm, parked.fd, parked.interest()) {
            arm(fd, interest);
        }
        ready.len() - before
    }

    /// Ready, or parks `waker` in the slot of `direction`.
    pub(crate) fn poll_slot(
        &self,
        generation: u32,
        direction: Direction,
        waker: &Waker,
        waiting: &AtomicUsize,
        arm: Arm<'_>,
    ) -> Poll<Result<Ready, Ended>> {
        self.poll(generation, direction.into(), waker, arm, |parked, waker| {
            let slot = &mut parked.slots[direction as usize];
            if slot.as_ref().is_some_and(|old| old.will_wake(&waker)) {
                return Some(waker);
            }
            let old = slot.replace(waker);
            if old.is_none() {
                waiting.fetch_add(1, Relaxed);
            }
            old
        })
    }

    /// Ready, or links `waiter` with `waker`. After this only `unlink` ends its turn.
    pub(crate) fn poll_linked(
        &self,
        generation: u32,
        interest: Interest,
        waiter: Pin<&Waiter>,
        waker: &Waker,
        waiting: &AtomicUsize,
        arm: Arm<'_>,
    ) -> Poll<Result<Ready, Ended>> {
        let waiter = NonNull::from(waiter.get_ref());
        self.poll(generation, interest, waker, arm, |parked, waker| {
            // SAFETY: under the lock, and our caller borrows the waiter.
            let (linked, old) = unsafe { links(waiter, |l| (l.linked, l.waker.replace(waker))) };
            if !linked {
                parked.link(waiter);
                waiting.fetch_add(1, Relaxed);
            }
            old
        })
    }

    /// Ready, or `park`s a clone of the waker under the lock; `park` gives back the waker that is left over.
    fn poll(
        &self,
        generation: u32,
        interest: Interest,
        waker: &Waker,
        arm: Arm<'_>,
        park: impl FnOnce(&mut Parked, Waker) -> Option<Waker>,
    ) -> Poll<Result<Ready, Ended>> {
        let look = || match self.word.load(generation) {
            None => Some(Err(Ended)),
            Some(seen) if seen.meets(interest) => Some(Ok(seen)),
            Some(_) => None,
        };
        if let Some(result) = look() {
            return Poll::Ready(result);
        }
        let waker = waker.clone();
        let mut parked = self.parked.lock();
        // The second look, under the lock (invariant 2).
        let result = look();
        let left_over = match result {
            Some(_) => Some(waker),
            None => {
                let old = park(&mut parked, waker);
                if let (Some(arm), Some(fd), Some(interest)) = (arm, parked.fd, parked.interest()) {
                    arm(fd, interest);
                }
                old
            }
        };
        drop(parked);
        drop(left_over);
        result.map_or(Poll::Pending, Poll::Ready)
    }

    /// Ends the turn of a waiter that `poll_linked` may have linked.
    pub(crate) fn unlink(&self, waiter: Pin<&Waiter>, waiting: &AtomicUsize) {
        let waiter = NonNull::from(waiter.get_ref());
        let mut parked = self.parked.lock();
        // SAFETY: under the lock, and our caller borrows the waiter.
        let linked = unsafe { links(waiter, |l| l.linked) };
        let waker = if linked { parked.unlink(waiter).0 } else { None };
        drop(parked);
        if linked {
            waiting.fetch_sub(1, Relaxed);
        }
        drop(waker);
    }
}
