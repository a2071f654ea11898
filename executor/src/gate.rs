//! An async lock without what it guards (Go: sync.Mutex, whose rules these are). `sync` puts the value and the guards
//! around it.
//!
//! 1. Who sets `HELD` has the lock, and clears it with one locked instruction. What more there is to do is behind the
//!    lock of the line, where no user code runs.
//! 2. `QUEUED` says that somebody stands in line, and `DUE` that the first of them has been passed by too often. Both
//!    change under the lock of the line alone, and with the line.
//! 3. Who lines up does so in one step with having seen that the lock is held: its holder then sees `QUEUED` when it
//!    lets go.
//! 4. One at a time is woken to look again, and is out of line meanwhile (`WOKEN`): until it has looked nobody else is
//!    woken. It takes the lock, or it is in the first place of the line again, or it goes away and wakes the next if
//!    the lock is free.
//! 5. While `DUE` is set nobody takes the lock: it is handed to the first in line, `HELD` and all. Whoever is first has
//!    it handed over after [`PASSES`] turns, at most, in which it found it taken again; how many took it from its wake
//!    to its look does not count. Those behind it follow in their order.
//! 6. `HOT` says that machines met here: one found the lock held, and free a moment later, so its holder was running. A
//!    hot lock has a home, the processor where a task last took it that came for it in a poll: a lock that is only
//!    tried, or handed over, has none, and does not cool. Who comes from another one rather stands in line than takes
//!    it: its task is woken at home then, by who lets go, and those who contend gather on one processor, where no line
//!    of memory moves. That needs a moment in which the lock is held (3); if a few looks see none, the lock is not
//!    busy, and is taken. `heat` counts down to the end of it. Home and heat are guesses: the holder writes them, or
//!    who has the lock of the line, anybody reads them, and nothing but speed relies on them. A task of another runtime
//!    than the home's is woken where it lives: that is slower, not wrong.
//!
//! | HELD | DUE | the lock belongs to                               |
//! |------|-----|---------------------------------------------------|
//! |  0   |  0  | whoever comes first                               |
//! |  1   | any | its holder                                        |
//! |  0   |  1  | the first in line: its holder is about to hand it |

use std::cell::Cell;
use std::task::{Poll, Waker};

use crate::sudog::{Line, Phase, Sudog};
use crate::sys::atomic::{
    AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use crate::sys::{OwnMutex, const_but_in_models, rank, spin_loop};
use crate::wakers::{let_go, wake};

const HELD: u32 = 1;
const QUEUED: u32 = 2;
const WOKEN: u32 = 4;
const DUE: u32 = 8;
const HOT: u32 = 16;

/// So often may a waiter find the lock taken by somebody who came later; then it is handed over.
const PASSES: u32 = 3;

/// So often is a lock taken after machines met at it until it is cold.
const HEAT: u32 = if cfg!(gmp_loom) { 2 } else { 512 };
/// So often does who comes from elsewhere look for the holder of a hot lock: it is taken every few nanoseconds, if it
/// is worth to gather there.
const LOOKS: u32 = if cfg!(gmp_loom) { 1 } else { 4 };

/// Where who comes for the lock runs.
pub(crate) trait Place {
    /// A number that no other processor has, 0 for none: a task that runs on one can be woken on another, of its
    /// runtime.
    fn number(&self) -> u32;
    /// A task from here has lined up, to be woken at the home of the lock.
    fn task_goes_home(&self);
}

const NOWHERE: u32 = 0;

/// See the head of the file.
pub(crate) struct Gate {
    state: AtomicU32,
    /// Invariant 6.
    home: AtomicU32,
    /// Invariant 6.
    heat: AtomicU32,
    line: OwnMutex<Line<Grant>>,
}

/// What a waiter is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// It may look again.
    Woken,
    /// It has the lock.
    Handed,
}

/// The place of somebody who waits, and how often it was passed by.
pub(crate) struct Waiter {
    sudog: Sudog<Grant>,
    /// Its future's own.
    passed: Cell<u32>,
}

// SAFETY: the count is touched by the future of the waiter alone, through `poll_acquire`, which asks for that.
unsafe impl Sync for Waiter {}

impl Waiter {
    #[inline]
    pub(crate) fn new() -> Self {
        Waiter { sudog: Sudog::new(None), passed: Cell::new(0) }
    }

    /// Whether it stands in line, or was served.
    #[inline]
    pub(crate) fn is_waited(&self) -> bool {
        self.sudog.phase() != Phase::Out
    }
}

impl Gate {
    const_but_in_models! {
        pub(crate) fn new() -> Self {
            Gate {
                state: AtomicU32::new(0),
                home: AtomicU32::new(NOWHERE),
                heat: AtomicU32::new(0),
                line: OwnMutex::new(rank::LEAF, Line::new()),
            }
        }
    }

    /// Takes the lock if it is free and cold: what happens mostly, in few instructions.
    #[inline]
    pub(crate) fn acquire_at_once(&self) -> bool {
        // Acquire: pairs with the Release in `release`, here and below.
        match self.state.compare_exchange(0, HELD, Acquire, Relaxed) {
            Ok(_) => true,
            Err(state) => {
                is_free(state)
                    && state & HOT == 0
                    && self.state.compare_exchange(state, state | HELD, Acquire, Relaxed).is_ok()
            }
        }
    }

    /// Takes the lock if it is free.
    #[inline]
    pub(crate) fn try_acquire(&self) -> bool {
        let taken = |state: u32| is_free(state).then_some(state | HELD);
        // Acquire: as above.
        self.state.fetch_update(Acquire, Relaxed, taken).is_ok()
    }

    /// Takes the lock, which was free in `state`, from `here`, and clears `own` with it. The error is the state now.
    fn take(&self, state: u32, own: u32, here: u32) -> Result<(), u32> {
        let heat = self.heat.load(Relaxed);
        let cold = if heat == 0 { HOT } else { 0 };
        // Acquire: pairs with the Release in `release`.
        self.state.compare_exchange(state, (state | HELD) & !(own | cold), Acquire, Relaxed)?;
        if state & HOT != 0 {
            self.home.store(here, Relaxed);
            self.heat.store(heat.saturating_sub(1), Relaxed);
        }
        Ok(())
    }

    /// Whether it is better for who comes from `here` to stand in line.
    fn is_elsewhere(&self, state: u32, here: u32) -> bool {
        let home = self.home.load(Relaxed);
        state & HOT != 0 && home != here && home != NOWHERE && here != NOWHERE
    }

    /// Lets go of the lock. Its holder calls.
    #[inline]
    pub(crate) fn release(&self) {
        // Release: pairs with the Acquire of whoever takes the lock.
        let state = self.state.fetch_sub(HELD, Release);
        if state & QUEUED != 0 {
            self.released(state);
        }
    }

    #[cold]
    fn released(&self, state: u32) {
        // One that is woken already looks again, unless it waits to be handed the lock.
        if state & (WOKEN | DUE) != WOKEN {
            self.pass_on();
        }
    }

    /// The lock was free, and nobody was woken: the first in line gets its turn, unless somebody has taken the lock
    /// meanwhile, who then comes here.
    fn pass_on(&self) {
        let mut line = self.line.lock();
        let waker = loop {
            let state = self.state.load(Relaxed);
            if state & HELD != 0 || line.is_empty() || state & (WOKEN | DUE) == WOKEN {
                return;
            }
            let (grant, next) =
                if state & DUE != 0 { (Grant::Handed, (state | HELD) & !DUE) } else { (Grant::Woken, state | WOKEN) };
            let next = if line.has_one() { next & !QUEUED } else { next };
            // AcqRel: Acquire pairs with the Release in `release`, and the place that is served passes it on; Release
            // with the Acquire of the next to take the lock.
            if self.state.compare_exchange(state, next, AcqRel, Relaxed).is_ok() {
                break line.serve(|place| *place = Some(grant));
            }
        };
        drop(line);
        if let Some(((), waker)) = waker {
            wake(waker);
        }
    }

    /// Takes the lock, or stands in line for it.
    ///
    /// # Safety
    ///
    /// The caller is the future of the waiter, which stays where it is until [`Gate::leave`], and is of this lock.
    pub(crate) unsafe fn poll_acquire(&self, waiter: &Waiter, waker: &Waker, here: &impl Place) -> Poll<()> {
        let sudog = &waiter.sudog;
        // SAFETY: its future calls.
        if sudog.phase() == Phase::InLine && unsafe { self.still_waits(sudog, waker) } {
            return Poll::Pending;
        }
        // SAFETY: out of line, and its future calls.
        let grant = unsafe { sudog.end() };
        if grant == Some(Grant::Handed) {
            return Poll::Ready(());
        }
        let woken = grant == Some(Grant::Woken);
        // SAFETY: passed on.
        unsafe { self.take_or_line_up(waiter, waker, woken, here) }
    }

    /// # Safety
    ///
    /// As for [`Gate::poll_acquire`], and the place is in no line. `woken` if it was, and has not looked again yet.
    unsafe fn take_or_line_up(&self, waiter: &Waiter, waker: &Waker, woken: bool, place: &impl Place) -> Poll<()> {
        let here = place.number();
        let own = if woken { WOKEN } else { 0 };
        let mut state = self.state.load(Relaxed);
        // Who was woken has stood in line, wherever it runs now.
        let elsewhere = !woken && self.is_elsewhere(state, here);
        let mut looks = if elsewhere { LOOKS } else { 0 };
        while is_free(state) {
            if looks > 0 {
                looks -= 1;
                spin_loop();
                state = self.state.load(Relaxed);
                continue;
            }
            match self.take(state, own, here) {
                Ok(()) => {
                    if elsewhere {
                        self.heat.store(self.heat.load(Relaxed) / 2, Relaxed);
                    }
                    return Poll::Ready(());
                }
                Err(now) => state = now,
            }
        }
        // The clone is the user's, and may panic.
        let on_panic = woken.then_some(PassTurn(self));
        let mut spare = Some(waker.clone());
        std::mem::forget(on_panic);
        let mut line = self.line.lock();
        let mut looks = if elsewhere { LOOKS } else { 0 };
        let poll = loop {
            let state = self.state.load(Relaxed);
            if is_free(state) {
                if looks > 0 {
                    looks -= 1;
                    spin_loop();
                    continue;
                }
                // It was held a moment ago. Who finds no heat takes the mark away again.
                self.heat.store(HEAT, Relaxed);
                // Relaxed: the mark hands nothing over.
                let state = self.state.fetch_or(HOT, Relaxed) | HOT;
                if is_free(state) && self.take(state, own, here).is_ok() {
                    break Poll::Ready(());
                }
                continue;
            }
            let due = if woken && waiter.passed.get() + 1 >= PASSES { DUE } else { 0 };
            // Relaxed: what it guards is handed over by the phase and by the lock of the line.
            if self.state.compare_exchange(state, (state | QUEUED | due) & !own, Relaxed, Relaxed).is_err() {
                continue;
            }
            let waker = spare.take().expect("it was just cloned");
            // SAFETY: in no line, its future calls, and keeps it (contract).
            unsafe {
                if woken {
                    waiter.passed.set(waiter.passed.get() + 1);
                    line.push_front(&waiter.sudog, waker);
                } else {
                    line.push(&waiter.sudog, waker);
                }
            }
            break Poll::Pending;
        };
        let goes_home = elsewhere && poll.is_pending();
        if goes_home {
            self.heat.store(HEAT, Relaxed);
        }
        drop(line);
        if goes_home {
            place.task_goes_home();
        }
        let_go(spare);
        poll
    }

    /// Whether a place that was in line still is; then it has this waker.
    ///
    /// # Safety
    ///
    /// The caller is the future of the place.
    unsafe fn still_waits(&self, sudog: &Sudog<Grant>, waker: &Waker) -> bool {
        let mut spare = Some(waker.clone());
        let line = self.line.lock();
        let waits = sudog.phase() == Phase::InLine;
        if waits {
            // SAFETY: in line, and the lock is held.
            spare = spare.map(|waker| unsafe { sudog.set_waker(waker) });
        }
        drop(line);
        let_go(spare);
        waits
    }

    /// The waiter goes away, with the lock or without: it was taken by [`Gate::poll_acquire`] that was ready, or
    /// nothing of it stays with the waiter.
    ///
    /// # Safety
    ///
    /// The caller is the future of the waiter.
    #[inline]
    pub(crate) unsafe fn leave(&self, waiter: &Waiter) {
        if waiter.sudog.phase() != Phase::Out {
            // SAFETY: passed on.
            unsafe { self.leave_slowly(&waiter.sudog) };
        }
    }

    /// # Safety
    ///
    /// As for [`Gate::leave`].
    #[cold]
    unsafe fn leave_slowly(&self, sudog: &Sudog<Grant>) {
        let mut line = self.line.lock();
        let mut waker = None;
        if sudog.phase() == Phase::InLine {
            let mut gone = if line.is_first(sudog) { DUE } else { 0 };
            // SAFETY: in this line.
            waker = Some(unsafe { line.remove(sudog) });
            if line.is_empty() {
                gone |= QUEUED;
            }
            // Relaxed: under the lock of the line (invariant 2). A holder that has let go already is on its way to it.
            self.state.fetch_and(!gone, Relaxed);
        }
        drop(line);
        let_go(waker);
        // SAFETY: out of line, and its future calls.
        match unsafe { sudog.end() } {
            None => {}
            Some(Grant::Handed) => self.release(),
            Some(Grant::Woken) => self.pass_turn(),
        }
    }

    /// Who was woken does not look any more: the next in line gets its turn.
    fn pass_turn(&self) {
        // Relaxed: nothing is handed over. Against a holder that lets go there is an order in this word: it sees that
        // nobody is woken any more, or we see that it has let go.
        let state = self.state.fetch_and(!WOKEN, Relaxed);
        if state & (HELD | QUEUED) == QUEUED {
            self.pass_on();
        }
    }
}

/// Whether the lock is anybody's who comes.
#[inline]
fn is_free(state: u32) -> bool {
    state & (HELD | DUE) == 0
}

/// Passes the turn of who was woken on, if it is dropped.
struct PassTurn<'a>(&'a Gate);

impl Drop for PassTurn<'_> {
    fn drop(&mut self) {
        self.0.pass_turn();
    }
}

#[cfg(all(test, gmp_loom))]
mod loom;
#[cfg(all(test, not(gmp_loom)))]
mod tests;
