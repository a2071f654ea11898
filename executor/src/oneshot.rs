//! One message from one sender to one receiver, without the handles. `sync::oneshot` puts those, the future and the
//! budget around it.
//!
//! The word of state has the same three bits for either side, which it sets for itself:
//!
//! | bit     | says                                                                         |
//! |---------|------------------------------------------------------------------------------|
//! | `waits` | its waker is in its place                                                    |
//! | `ended` | the sender has sent or never will; the receiver takes no more than was sent  |
//! | `gone`  | it touches nothing any more                                                  |
//!
//! 1. `waits` is set only while the other side has not ended, by an exchange that fails if it has: who ends finds who
//!    waits, or who is about to wait finds the end. Nobody waits for what has happened.
//! 2. The waker in a place belongs to its side until the other one ends and finds `waits`: then it belongs to that one,
//!    which reads it out, once. Its own side may compare it with another meanwhile, and never writes over it: it takes
//!    `waits` back first, and has the waker only if the other side had not ended.
//! 3. The message is the sender's until it has ended, then the receiver's until that is gone. Who frees drops it.
//! 4. Who sets `gone` last frees; who finds the other gone needs no exchange for it. A waker is woken after that.

use std::mem::{self, MaybeUninit};
use std::ptr::NonNull;
use std::task::{Poll, Waker};

use crate::sys::UnsafeCell;
use crate::sys::atomic::{
    AtomicU8,
    Ordering::{AcqRel, Acquire},
};
use crate::wakers::{let_go, wake};

/// See the head of the file.
struct Shared<T> {
    state: AtomicU8,
    /// Invariant 3.
    message: UnsafeCell<Option<T>>,
    /// By side; invariant 2.
    wakers: [UnsafeCell<MaybeUninit<Waker>>; 2],
}

/// The bits of a side, and its place.
struct Side {
    waits: u8,
    ended: u8,
    gone: u8,
    place: usize,
}

const SENDER: Side = Side { waits: 1, ended: 2, gone: 4, place: 0 };
const RECEIVER: Side = Side { waits: 8, ended: 16, gone: 32, place: 1 };

/// What a side has of it; the sender's if it `SENDS`. It ends when dropped.
pub(crate) struct Half<T, const SENDS: bool> {
    shared: NonNull<Shared<T>>,
}

// SAFETY: the message goes from one thread to another, and nobody has a reference to it.
unsafe impl<T: Send, const SENDS: bool> Send for Half<T, SENDS> {}
// SAFETY: as above; with a shared reference nobody does more than look.
unsafe impl<T: Send, const SENDS: bool> Sync for Half<T, SENDS> {}

/// What an end has done.
#[must_use]
enum End {
    /// Nothing.
    Refused,
    /// All that was asked for.
    Done,
    /// It has ended and is not gone yet: first it was to take this waker out.
    Wakes(Waker),
}

/// Both halves.
pub(crate) fn halves<T>() -> (Half<T, true>, Half<T, false>) {
    let place = || UnsafeCell::new(MaybeUninit::uninit());
    let shared = Shared { state: AtomicU8::new(0), message: UnsafeCell::new(None), wakers: [place(), place()] };
    let shared = NonNull::from(Box::leak(Box::new(shared)));
    (Half { shared }, Half { shared })
}

impl<T, const SENDS: bool> Half<T, SENDS> {
    const ME: Side = if SENDS { SENDER } else { RECEIVER };
    const OTHER: Side = if SENDS { RECEIVER } else { SENDER };

    #[inline]
    fn shared(&self) -> &Shared<T> {
        // SAFETY: it is there until both halves are gone (invariant 4).
        unsafe { self.shared.as_ref() }
    }

    /// Whether the other side has ended.
    #[inline]
    pub(crate) fn is_ended(&self) -> bool {
        // Acquire: pairs with the AcqRel in `end`: its message is there.
        self.shared().state.load(Acquire) & Self::OTHER.ended != 0
    }

    /// Ready if the other side has ended; else `waker` is woken when it does.
    #[inline]
    pub(crate) fn poll_ended(&mut self, waker: &Waker) -> Poll<()> {
        let shared = self.shared();
        // Acquire: as in `is_ended`.
        let mut state = shared.state.load(Acquire);
        if state & Self::OTHER.ended != 0 {
            return Poll::Ready(());
        }
        let place = &shared.wakers[Self::ME.place];
        let waits = state & Self::ME.waits != 0;
        // SAFETY: it is in its place, and who reads it out leaves it there to be compared (invariant 2).
        if waits && place.with(|kept| unsafe { (*kept).assume_init_ref().will_wake(waker) }) {
            return Poll::Pending;
        }
        // Foreign code, which may panic: before anything is changed.
        let waker = waker.clone();
        let old = self.take_back();
        if waits && old.is_none() {
            let_go(Some(waker));
            return Poll::Ready(());
        }
        // SAFETY: the bit is not set, so the place is this side's.
        place.with_mut(|kept| unsafe { (*kept).write(waker) });
        state &= !Self::ME.waits;
        // AcqRel: pairs with the AcqRel in `end`, which has the waker then. Acquire: as in `is_ended`.
        while let Err(now) = shared.state.compare_exchange_weak(state, state | Self::ME.waits, AcqRel, Acquire) {
            if now & Self::OTHER.ended != 0 {
                // SAFETY: as above.
                let_go(Some(unsafe { shared.read(Self::ME) }));
                let_go(old);
                return Poll::Ready(());
            }
            state = now;
        }
        let_go(old);
        Poll::Pending
    }

    /// The waker of this side, if it is in its place and still this side's.
    #[inline]
    fn take_back(&self) -> Option<Waker> {
        let shared = self.shared();
        // Acquire: as in `is_ended`, of which it may be the first to see.
        if shared.state.load(Acquire) & (Self::ME.waits | Self::OTHER.ended) != Self::ME.waits {
            return None;
        }
        // AcqRel: pairs with the AcqRel in `end`: it is that one's, or it is here.
        let before = shared.state.fetch_and(!Self::ME.waits, AcqRel);
        // SAFETY: it was in its place, and nobody else reads it out any more.
        (before & Self::OTHER.ended == 0).then(|| unsafe { shared.read(Self::ME) })
    }

    /// Ends this side, and is gone with it if it `goes`, unless the state has one of these bits.
    #[inline]
    fn end(&self, goes: bool, unless: u8) -> End {
        let shared = self.shared();
        // Acquire, here and below: what the other side did before it ended or went.
        let mut state = shared.state.load(Acquire);
        loop {
            if state & unless != 0 {
                return End::Refused;
            }
            let wakes = state & (Self::OTHER.waits | Self::ME.ended) == Self::OTHER.waits;
            let bits = if goes && !wakes { Self::ME.ended | Self::ME.gone } else { Self::ME.ended };
            // AcqRel: hands the message over, and takes the waker over.
            match shared.state.compare_exchange_weak(state, state | bits, AcqRel, Acquire) {
                // SAFETY: it was in its place, and this is the one end that found it (invariant 2).
                Ok(_) if wakes => return End::Wakes(unsafe { shared.read(Self::OTHER) }),
                Ok(_) => return End::Done,
                Err(now) => state = now,
            }
        }
    }

    /// The message, if this is the receiver's half and the sender has sent one, once.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<T> {
        if SENDS || !self.is_ended() {
            return None;
        }
        // SAFETY: the sender has ended, and the receiver, which this is, is not gone (invariant 3).
        self.shared().message.with_mut(|message| unsafe { (*message).take() })
    }

    /// Touches nothing any more, and frees if the other side does not either.
    ///
    /// # Safety
    ///
    /// It is the last that is done with this half, its drop included.
    #[inline]
    unsafe fn go(&self) {
        // AcqRel: who frees comes after all that the other one did.
        if self.shared().state.fetch_or(Self::ME.gone, AcqRel) & Self::OTHER.gone != 0 {
            // SAFETY: both are gone.
            unsafe { free(self.shared) };
        }
    }
}

impl<T> Half<T, true> {
    /// Sends; the error has the message, for the receiver takes no more.
    #[inline]
    pub(crate) fn send(self, message: T) -> Result<(), T> {
        // SAFETY: it is the sender's until it ends (invariant 3).
        let place = |message| self.shared().message.with_mut(|place| unsafe { mem::replace(&mut *place, message) });
        place(Some(message));
        let own = self.take_back();
        let ended = self.end(true, RECEIVER.ended);
        if let End::Refused = ended {
            let message = place(None);
            let_go(own);
            return Err(message.expect("nobody else has it"));
        }
        let this = mem::ManuallyDrop::new(self);
        if let End::Wakes(waker) = ended {
            // SAFETY: nothing is done with it any more.
            unsafe { this.go() };
            wake(waker);
        }
        let_go(own);
        Ok(())
    }
}

impl<T> Half<T, false> {
    /// Whether the message is there.
    pub(crate) fn has_message(&self) -> bool {
        // SAFETY: the sender has ended, and to take it out somebody needs this half to itself (invariant 3).
        self.is_ended() && self.shared().message.with(|message| unsafe { (*message).is_some() })
    }

    /// Whether nothing is to be waited for: the sender has ended, or this side.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        // Acquire: as in `is_ended`.
        self.shared().state.load(Acquire) & (SENDER.ended | RECEIVER.ended) != 0
    }

    /// Takes no more than what has been sent.
    pub(crate) fn close(&mut self) {
        if let End::Wakes(waker) = self.end(false, 0) {
            wake(waker);
        }
    }
}

impl<T, const SENDS: bool> Drop for Half<T, SENDS> {
    #[inline]
    fn drop(&mut self) {
        let own = self.take_back();
        // A message goes with its receiver and not with a sender that is still about to wake it. One that comes from
        // now on comes with a sender that is gone: it has nobody to wake.
        let message = self.take();
        match self.end(true, Self::OTHER.gone) {
            End::Done => {}
            // SAFETY: the other side is gone, and nothing is done with this one any more.
            End::Refused => unsafe { free(self.shared) },
            End::Wakes(waker) => {
                // SAFETY: as above.
                unsafe { self.go() };
                wake(waker);
            }
        }
        let_go(own);
        drop(message);
    }
}

impl<T> Shared<T> {
    /// # Safety
    ///
    /// The waker of that side is in its place, and nobody else reads it out.
    unsafe fn read(&self, side: Side) -> Waker {
        // SAFETY: passed on.
        self.wakers[side.place].with(|waker| unsafe { (*waker).assume_init_read() })
    }
}

/// # Safety
///
/// Both sides are gone. So no waker is in its place any more: each side took its own back, or the other one had it.
unsafe fn free<T>(shared: NonNull<Shared<T>>) {
    // SAFETY: it came from a box, and nobody else has it.
    let shared = unsafe { Box::from_raw(shared.as_ptr()) };
    // For the models, which do not see memory go: to free is to write.
    shared.wakers.iter().for_each(|waker| waker.with_mut(drop));
}

#[cfg(all(test, gmp_loom))]
mod loom;
