//! Who waits, and in what order (Go: sudog, waitq): a place inside the future that waits, and the line that it stands
//! in. Channels (`hchan`) and locks (`gate`) keep their lines under a lock of theirs; nothing is allocated for a wait.
//!
//! 1. A place is in at most one line. While it is, it belongs to the lock of that line; before and afterwards to its
//!    future.
//! 2. A place leaves its line under the lock: it is served, refused, or leaves by itself. A future that is dropped
//!    leaves first, so what is in a line is alive.
//! 3. The phase is written last: who served a place touches it no more, for its future may be gone at once.
//! 4. Wakers are cloned before the lock is taken, and woken or dropped after it is released.
//!
//! | phase   | the place belongs to | who leaves it                                                    |
//! |---------|----------------------|------------------------------------------------------------------|
//! | out     | its future           | `Line::push` → in line                                           |
//! | in line | the lock of its line | `Line::serve` → served · `Line::refuse` → refused · `leave` → out |
//! | served  | its future           | `Sudog::end` → out                                               |
//! | refused | its future           | `Sudog::end` → out                                               |

use std::marker::PhantomPinned;
use std::mem::{self, MaybeUninit};
use std::ptr::NonNull;
use std::task::Waker;

use crate::sys::UnsafeCell;
use crate::sys::atomic::{
    AtomicU8,
    Ordering::{Acquire, Relaxed, Release},
};

/// Where a place is. See the table above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Out,
    InLine,
    Served,
    Refused,
}

const OUT: u8 = Phase::Out as u8;
const IN_LINE: u8 = Phase::InLine as u8;
const SERVED: u8 = Phase::Served as u8;
const REFUSED: u8 = Phase::Refused as u8;

/// A place in a line, part of the future that waits, with what it gives or gets.
pub(crate) struct Sudog<T> {
    phase: AtomicU8,
    /// Guarded as the table above says.
    value: UnsafeCell<Option<T>>,
    /// There while the place is in line, and guarded as the table says. Most never are, and nothing is written for
    /// them.
    links: UnsafeCell<MaybeUninit<Links<T>>>,
    _pinned: PhantomPinned,
}

struct Links<T> {
    waker: Waker,
    previous: Option<NonNull<Sudog<T>>>,
    next: Option<NonNull<Sudog<T>>>,
}

// SAFETY: the place is touched by its future, or under the lock of its line (invariant 1), and what it holds may be
// sent.
unsafe impl<T: Send> Send for Sudog<T> {}
// SAFETY: as above; a shared reference alone gives nothing but the phase.
unsafe impl<T: Send> Sync for Sudog<T> {}

/// [`Sudog::new`] writes these fields, and has to know of another one.
const _: fn(&Sudog<()>) = |Sudog { phase: _, value: _, links: _, _pinned: _ }| ();

impl<T> Sudog<T> {
    /// A place with what it gives, in no line.
    #[inline]
    pub(crate) fn new(value: Option<T>) -> Self {
        let mut sudog = MaybeUninit::<Self>::uninit();
        let at = sudog.as_mut_ptr();
        // Field by field: a literal is made aside, and copied into the future with what nobody has written, in pieces
        // that do not match those it was made of.
        // SAFETY: the fields are those of `sudog`, and what is not written of it may be anything: `links`, which loom
        // wants to know of, and one that has no size.
        unsafe {
            (&raw mut (*at).phase).write(AtomicU8::new(OUT));
            (&raw mut (*at).value).write(UnsafeCell::new(value));
            #[cfg(gmp_loom)]
            (&raw mut (*at).links).write(UnsafeCell::new(MaybeUninit::uninit()));
            sudog.assume_init()
        }
    }

    #[inline]
    pub(crate) fn phase(&self) -> Phase {
        // Acquire: pairs with the Release in `leave_line`: its future sees what it was served.
        match self.phase.load(Acquire) {
            OUT => Phase::Out,
            IN_LINE => Phase::InLine,
            SERVED => Phase::Served,
            _ => Phase::Refused,
        }
    }

    /// Takes what is in the place.
    ///
    /// # Safety
    ///
    /// The caller is the future of the place, which is in no line.
    #[inline]
    pub(crate) unsafe fn take(&self) -> Option<T> {
        // SAFETY: in no line, so the place is its future's (invariant 1).
        unsafe { self.with_value(Option::take) }
    }

    /// The wait is over for its future: the place may be used again. Gives what is in it.
    ///
    /// # Safety
    ///
    /// As for [`Sudog::take`].
    #[inline]
    pub(crate) unsafe fn end(&self) -> Option<T> {
        self.phase.store(OUT, Relaxed);
        // SAFETY: passed on.
        unsafe { self.take() }
    }

    /// Puts a value back that [`Sudog::end`] gave.
    ///
    /// # Safety
    ///
    /// As for [`Sudog::take`].
    #[inline]
    pub(crate) unsafe fn put(&self, value: T) {
        // SAFETY: as in `take`.
        unsafe { self.with_value(|place| *place = Some(value)) }
    }

    /// Another waker than before, for a place in line. Gives the old one, to be dropped without the lock.
    ///
    /// # Safety
    ///
    /// The place is in a line whose lock the caller holds.
    pub(crate) unsafe fn set_waker(&self, waker: Waker) -> Waker {
        // SAFETY: passed on.
        unsafe { self.links(|links| mem::replace(&mut links.waker, waker)) }
    }

    /// Whether the place in line has a waker that wakes the same.
    ///
    /// # Safety
    ///
    /// The place is in a line whose lock the caller holds.
    pub(crate) unsafe fn will_wake(&self, waker: &Waker) -> bool {
        // SAFETY: passed on.
        unsafe { self.links(|links| links.waker.will_wake(waker)) }
    }

    /// # Safety
    ///
    /// The place is in a line whose lock the caller holds.
    #[inline]
    unsafe fn links<R>(&self, f: impl FnOnce(&mut Links<T>) -> R) -> R {
        // SAFETY: it belongs to the lock, and who put it in line has written them.
        unsafe { self.with_links(|links| f(links.assume_init_mut())) }
    }

    /// The place leaves its line: what it had there.
    ///
    /// # Safety
    ///
    /// The place is in a line whose lock the caller holds, and not any more afterwards.
    #[inline]
    unsafe fn unlink(&self) -> Links<T> {
        // SAFETY: as in `links`; nobody reads them again.
        unsafe { self.with_links(|links| links.assume_init_read()) }
    }

    /// The last touch of a place that was in line (invariant 3).
    #[inline]
    fn leave_line(&self, phase: u8) {
        // Release: pairs with the Acquire in `phase`.
        self.phase.store(phase, Release);
    }

    /// # Safety
    ///
    /// The caller is who the place belongs to (invariant 1).
    #[inline]
    unsafe fn with_value<R>(&self, f: impl FnOnce(&mut Option<T>) -> R) -> R {
        // SAFETY: nobody else touches it, by the contract.
        self.value.with_mut(|value| f(unsafe { &mut *value }))
    }

    /// # Safety
    ///
    /// As for [`Sudog::with_value`].
    #[inline]
    unsafe fn with_links<R>(&self, f: impl FnOnce(&mut MaybeUninit<Links<T>>) -> R) -> R {
        // SAFETY: as there.
        self.links.with_mut(|links| f(unsafe { &mut *links }))
    }
}

/// Those who wait, the oldest first. It is behind the lock that its places belong to.
pub(crate) struct Line<T> {
    first: Option<NonNull<Sudog<T>>>,
    last: Option<NonNull<Sudog<T>>>,
}

// SAFETY: the places are touched under the lock of the line alone (invariant 1), and what they hold may be sent.
unsafe impl<T: Send> Send for Line<T> {}

impl<T> Line<T> {
    pub(crate) const fn new() -> Self {
        Line { first: None, last: None }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Whether nobody waits but one.
    pub(crate) fn has_one(&self) -> bool {
        self.first.is_some() && self.first == self.last
    }

    /// Whether the place is the oldest in this line.
    pub(crate) fn is_first(&self, sudog: &Sudog<T>) -> bool {
        self.first == Some(NonNull::from(sudog))
    }

    /// Puts a place at the end.
    ///
    /// # Safety
    ///
    /// The place is in no line, belongs to the caller, and stays where it is until it has left.
    #[inline]
    pub(crate) unsafe fn push(&mut self, sudog: &Sudog<T>, waker: Waker) {
        let at = NonNull::from(sudog);
        let previous = self.last.replace(at);
        // SAFETY: the caller's (contract).
        unsafe { sudog.with_links(|links| _ = links.write(Links { waker, previous, next: None })) };
        match previous {
            // SAFETY: in this line, so alive (invariant 2), and under its lock.
            Some(previous) => unsafe { previous.as_ref().links(|links| links.next = Some(at)) },
            None => self.first = Some(at),
        }
        sudog.phase.store(IN_LINE, Relaxed);
    }

    /// Puts a place before all others, as [`Line::push`] puts it behind them.
    ///
    /// # Safety
    ///
    /// As for [`Line::push`].
    pub(crate) unsafe fn push_front(&mut self, sudog: &Sudog<T>, waker: Waker) {
        let at = NonNull::from(sudog);
        let next = self.first.replace(at);
        // SAFETY: the caller's (contract).
        unsafe { sudog.with_links(|links| _ = links.write(Links { waker, previous: None, next })) };
        match next {
            // SAFETY: in this line, so alive (invariant 2), and under its lock.
            Some(next) => unsafe { next.as_ref().links(|links| links.previous = Some(at)) },
            None => self.last = Some(at),
        }
        sudog.phase.store(IN_LINE, Relaxed);
    }

    /// Takes the first out and gives it its due: `f` puts into its place what it gets, or takes what it gives. `None`
    /// if nobody waits. The waker is to be woken without the lock.
    #[inline]
    pub(crate) fn serve<R>(&mut self, f: impl FnOnce(&mut Option<T>) -> R) -> Option<(R, Waker)> {
        self.take_first(SERVED, f)
    }

    /// Takes the first out with nothing: there will be nothing any more. The waker is to be woken without the lock.
    pub(crate) fn refuse(&mut self) -> Option<Waker> {
        self.take_first(REFUSED, |_| ()).map(|((), waker)| waker)
    }

    #[inline]
    fn take_first<R>(&mut self, phase: u8, f: impl FnOnce(&mut Option<T>) -> R) -> Option<(R, Waker)> {
        let first = self.first?;
        // SAFETY: in this line, so alive (invariant 2) until the phase is written.
        let sudog = unsafe { first.as_ref() };
        // SAFETY: under the lock of its line, which `self` is behind.
        let done = unsafe { sudog.with_value(f) };
        // SAFETY: as above, and it leaves the line here.
        let Links { waker, next, .. } = unsafe { sudog.unlink() };
        self.first = next;
        match next {
            // SAFETY: as above.
            Some(next) => unsafe { next.as_ref().links(|links| links.previous = None) },
            None => self.last = None,
        }
        sudog.leave_line(phase);
        Some((done, waker))
    }

    /// Takes a place out that is in this line. Gives its waker, to be dropped without the lock.
    ///
    /// # Safety
    ///
    /// The place is in this line.
    pub(crate) unsafe fn remove(&mut self, sudog: &Sudog<T>) -> Waker {
        // SAFETY: under the lock of its line, which it leaves here.
        let Links { waker, previous, next } = unsafe { sudog.unlink() };
        match previous {
            // SAFETY: in this line, so alive (invariant 2), and under its lock.
            Some(previous) => unsafe { previous.as_ref().links(|links| links.next = next) },
            None => self.first = next,
        }
        match next {
            // SAFETY: as above.
            Some(next) => unsafe { next.as_ref().links(|links| links.previous = previous) },
            None => self.last = previous,
        }
        sudog.leave_line(OUT);
        waker
    }
}
