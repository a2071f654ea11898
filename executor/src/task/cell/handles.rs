//! What handles hold of a cell: the part of a `JoinHandle`, and that of an `AbortHandle`. Who may do what is `state`'s.

use std::marker::PhantomData;
use std::task::{Context, Poll, Waker};

use super::{BLOCKING, Id, Location, Outcome, Task};
use crate::sys::atomic::Ordering::Relaxed;
use crate::task::state::{Left, State};
use crate::waits;

/// A handle's part of a task: JOIN, and its reference.
pub(in crate::task) struct Join<T> {
    task: Task,
    _output: PhantomData<T>,
}

impl<T> Join<T> {
    /// Of a new task.
    #[inline]
    pub(super) fn new(task: Task) -> Self {
        Join { task, _output: PhantomData }
    }

    #[inline]
    fn state(&self) -> &State {
        // SAFETY: JOIN's reference keeps the cell until `leave`.
        unsafe { &self.task.header().state }
    }

    pub(in crate::task) fn id(&self) -> Id {
        // SAFETY: as above.
        unsafe { self.task.id() }
    }

    pub(in crate::task) fn location(&self) -> &'static Location<'static> {
        // SAFETY: as above.
        unsafe { self.task.location() }
    }

    pub(in crate::task) fn is_finished(&self) -> bool {
        self.state().is_complete()
    }

    pub(in crate::task) fn abort(&self) {
        // SAFETY: as above.
        unsafe { abort(self.task) };
    }

    /// `None` if the future is gone.
    pub(in crate::task) fn abort_handle(&self) -> Option<Abort> {
        self.state().try_ref().then(|| Abort { task: self.task })
    }

    /// Takes the outcome, or leaves a waker. It may be ready once.
    #[inline]
    pub(in crate::task) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<T>> {
        if self.state().is_complete() || self.register(cx.waker()) {
            // SAFETY: the outcome is there, and ours (invariant 3 of `state`); it is taken once.
            return Poll::Ready(unsafe { self.task.outcome::<T>().read() });
        }
        Poll::Pending
    }

    /// Leaves a waker in the cell. Tells whether the task is complete, for which nobody is woken then.
    fn register(&mut self, waker: &Waker) -> bool {
        let mut former = None;
        // SAFETY: the cell is kept. The waker in it may be looked at while JOIN_WAKER is set, and is ours once it is
        // taken back.
        let slot = unsafe { &self.task.header().waker };
        if self.state().has_waker() {
            // SAFETY: as above: nobody writes it.
            if slot.with(|registered| unsafe { (*registered).assume_init_ref().will_wake(waker) }) {
                return false;
            }
        }
        let waker = waker.clone();
        if self.state().has_waker() {
            if !self.state().take_back() {
                return true;
            }
            former = Some(self.taken_back());
        }
        if waits::is_waker(&waker) {
            waits::joins(&waker, self.task.address(), self.id().to_bits());
        }
        // SAFETY: JOIN_WAKER is clear, so the room is ours, and empty.
        slot.with_mut(|slot| unsafe { (*slot).write(waker) });
        let is_complete = !self.state().registered();
        if is_complete {
            // SAFETY: it stayed ours.
            drop(unsafe { self.task.take_waker() });
        }
        drop(former);
        is_complete
    }

    /// The waker that was in the cell, and is ours again.
    fn taken_back(&self) -> Waker {
        // SAFETY: `take_back` said so.
        let waker = unsafe { self.task.take_waker() };
        waits::leaves(&waker, self.task.address());
        waker
    }

    /// The handle is dropped. Call it once; `is_taken`: a poll was ready.
    #[inline]
    pub(in crate::task) fn leave(&mut self, is_taken: bool) {
        if is_taken {
            self.let_go();
        } else {
            self.leave_untaken();
        }
    }

    /// The task is complete, and its outcome gone.
    #[inline]
    fn let_go(&mut self) {
        if self.state().let_go_handle() {
            // SAFETY: it was the last reference.
            unsafe { self.task.free() };
        }
    }

    fn leave_untaken(&mut self) {
        let mut former = None;
        loop {
            match self.state().leave() {
                Left::Gone => break,
                Left::TakeWaker => {
                    if self.state().take_back() {
                        former = Some(self.taken_back());
                    }
                }
                Left::DropOutcome => {
                    // SAFETY: the outcome is ours (invariant 3 of `state`), and what is in it swallows panics.
                    unsafe { self.task.outcome::<T>().drop_in_place() };
                    self.let_go();
                    break;
                }
            }
        }
        // It is the user's, and the handle is gone.
        drop(former);
    }
}

/// An abort handle's reference to a task.
pub(in crate::task) struct Abort {
    task: Task,
}

// SAFETY: it does nothing but change the word.
unsafe impl Sync for Abort {}

impl Abort {
    fn state(&self) -> &State {
        // SAFETY: the reference keeps the cell.
        unsafe { &self.task.header().state }
    }

    pub(in crate::task) fn abort(&self) {
        // SAFETY: as above.
        unsafe { abort(self.task) };
    }

    pub(in crate::task) fn is_finished(&self) -> bool {
        !self.state().is_alive()
    }
}

impl Clone for Abort {
    fn clone(&self) -> Self {
        self.state().add_ref();
        Abort { task: self.task }
    }
}

impl Drop for Abort {
    fn drop(&mut self) {
        if self.state().let_go() {
            // SAFETY: it was the last reference.
            unsafe { self.task.free() };
        }
    }
}

/// # Safety
///
/// The cell is kept meanwhile.
unsafe fn abort(task: Task) {
    // SAFETY: passed on; the unit is ours if the word says so.
    unsafe {
        let header = task.header();
        if header.state.abort() {
            task.ready();
        } else if header.word.load(Relaxed) & BLOCKING != 0 && header.state.is_alive() {
            // It may be in the queue of the pool.
            task.sched().abort_blocking(task.address());
        }
    }
}
