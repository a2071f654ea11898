//! Tasks that are bound to one thread: `async-task`'s cell around the user's future, and what its set knows of it.
//! `local` makes and runs them; this is the one file besides that names `async-task`. They go through no run queue.
//!
//! 1. The future is polled and dropped inside `catch_unwind`, and so is the output: `async-task` never sees a panic of
//!    theirs.
//! 2. The set's list holds a waker of a task until its future is gone: `async-task` frees a task that nobody can wake
//!    without dropping its future.
//! 3. Nor does it see the waker of who waits for a task, unless that is the runtime's own: where one panics in its
//!    hands it ends the process. It has a [`Joiner`] in its place.
//!
//! `Meta::word`:
//!
//! | bits | mean                                                                                        |
//! |------|---------------------------------------------------------------------------------------------|
//! | 63   | aborted: set by any handle, seen by the next poll, which drops the future. Set under the lock of the home |
//! | 62   | pinned: the task of a thread of its own. Written once, before anybody knows the task        |
//! | 0–60 | the id                                                                                      |

use std::any::Any;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};

use async_task::{FallibleTask, Runnable, ScheduleInfo, WithInfo};

use super::local::Home;
use super::{FLAGS, Failure, Id, Outcome, Output, caught, is_waker, swallow};
use crate::sys::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sys::{Mutex, assert_no_lock_held, rank};
use crate::waits;

const ABORTED: u64 = 1 << 63;
const PINNED: u64 = 1 << 62;

/// What a set knows of a task. It lies in the task's cell.
pub(super) struct Meta {
    home: &'static Home,
    /// Where the task was spawned.
    pub(super) location: &'static Location<'static>,
    /// See the head of the file. The id is written once, before the task is queued.
    word: AtomicU64,
}

impl std::fmt::Debug for Meta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meta").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Meta {
    pub(super) fn home(&self) -> &'static Home {
        self.home
    }

    pub(super) fn id(&self) -> Id {
        Id(self.word.load(Relaxed) & !FLAGS)
    }

    /// The task gets its name. Nobody else knows it yet.
    pub(super) fn set_id(&self, id: Id) {
        self.word.store(self.word.load(Relaxed) & FLAGS | id.0, Relaxed);
    }

    fn is_pinned(&self) -> bool {
        self.word.load(Relaxed) & PINNED != 0
    }

    fn is_aborted(&self) -> bool {
        // Acquire: pairs with `abort`; the task sees what its aborter did before.
        self.word.load(Acquire) & ABORTED != 0
    }

    /// The lock of the home is held.
    pub(super) fn abort(&self) {
        // Release: pairs with the Acquire in `is_aborted`.
        self.word.store(self.word.load(Relaxed) | ABORTED, Release);
    }

    /// A counted reference to the task, if its future still exists.
    fn waker(&self, abort: bool) -> Option<Waker> {
        if self.id() == Id::NONE { None } else { self.home.waker(self, abort) }
    }
}

/// The user's future with its meta data.
struct Guarded<F> {
    /// Null once the future is gone. Valid before: the meta data lies in the same cell.
    meta: *const Meta,
    /// Gone if `meta` is null.
    future: ManuallyDrop<F>,
}

// SAFETY: the pointer leads to a `Sync` value in the same allocation.
unsafe impl<F: Send> Send for Guarded<F> {}

impl<F> Guarded<F> {
    /// Drops the future, takes the task out of its set's list and gives back the panic of a destructor.
    fn end(&mut self) -> Result<(), Box<dyn Any + Send>> {
        let meta = std::mem::replace(&mut self.meta, std::ptr::null());
        if meta.is_null() {
            return Ok(());
        }
        assert_no_lock_held();
        // SAFETY: the future was there as `meta` was not null, and is never touched again.
        let result = caught(|| unsafe { ManuallyDrop::drop(&mut self.future) });
        // SAFETY: the meta data lies in the cell that this future lies in.
        let meta = unsafe { &*meta };
        if meta.id() != Id::NONE {
            meta.home.remove(meta);
        }
        result
    }
}

impl<F: Future> Future for Guarded<F> {
    type Output = Outcome<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: the future is never moved out of the pinned `self`, only dropped in place.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: the future is there, as `async-task` polls nothing that was ready; so is its meta data.
        let meta = unsafe { &*this.meta };
        if meta.is_aborted() {
            return Poll::Ready(Err(match this.end() {
                Ok(()) => Failure::ABORTED,
                Err(payload) => Failure::panicked(payload),
            }));
        }
        // SAFETY: structural pinning, as above.
        let future = unsafe { Pin::new_unchecked(&mut *this.future) };
        let result = match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(Output::new(output)),
            Err(payload) => Err(Failure::panicked(payload)),
        };
        Poll::Ready(match (this.end(), result) {
            (Ok(()), result) => result,
            // The first panic is the one to tell of.
            (Err(second), Err(first)) => {
                swallow(|| drop(second));
                Err(first)
            }
            (Err(payload), Ok(output)) => {
                drop(output);
                Err(Failure::panicked(payload))
            }
        })
    }
}

impl<F> Drop for Guarded<F> {
    fn drop(&mut self) {
        if let Err(payload) = self.end() {
            swallow(|| drop(payload));
        }
    }
}

/// Makes a task, which is to be entered and queued. `is_pinned`: it is that of a thread of its own.
///
/// # Safety
///
/// The future may be polled and dropped wherever its set and `schedule` bring the runnable, and its output wherever the
/// handle may go, for as long as they live.
pub(super) unsafe fn new<F: Future>(
    home: &'static Home,
    location: &'static Location<'static>,
    is_pinned: bool,
    future: F,
    schedule: impl Fn(Runnable<Meta>, ScheduleInfo) + Copy + Send + Sync + 'static,
) -> (Runnable<Meta>, Bound<F::Output>) {
    let word = AtomicU64::new(Id::NONE.0 | if is_pinned { PINNED } else { 0 });
    let meta = Meta { home, location, word };
    let future = |meta: &Meta| Guarded { meta, future: ManuallyDrop::new(future) };
    // SAFETY: passed on; the schedule function is a function without state, and any waker may move anywhere.
    let (runnable, task) =
        unsafe { async_task::Builder::new().metadata(meta).spawn_unchecked(future, WithInfo(schedule)) };
    let meta = NonNull::from(task.metadata());
    (runnable, Bound { task: Some(task.fallible()), meta, joiner: None })
}

/// Stands between `async-task` and the waker of who waits for a task (invariant 3). It is woken once for each waker
/// that is put in, or not at all.
struct Joiner(Mutex<Option<Waker>>);

impl Joiner {
    fn new() -> Arc<Joiner> {
        Arc::new(Joiner(Mutex::new(rank::LEAF, None)))
    }

    fn has(&self, waker: &Waker) -> bool {
        self.0.lock().as_ref().is_some_and(|registered| registered.will_wake(waker))
    }

    fn replace(&self, waker: Option<Waker>) {
        let former = std::mem::replace(&mut *self.0.lock(), waker);
        swallow(|| drop(former));
    }
}

impl Wake for Joiner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let waker = self.0.lock().take();
        if let Some(waker) = waker {
            swallow(|| waker.wake());
        }
    }
}

/// A handle's part of a task.
pub(super) struct Bound<T> {
    /// `None` once the handle is dropped.
    task: Option<FallibleTask<Outcome<T>, Meta>>,
    /// In the task's cell, which `task` keeps alive.
    meta: NonNull<Meta>,
    /// Made by the first poll that waits with a waker of others.
    joiner: Option<Arc<Joiner>>,
}

impl<T> Bound<T> {
    fn meta(&self) -> &Meta {
        // SAFETY: `task` is there until the handle is dropped and keeps the cell.
        unsafe { self.meta.as_ref() }
    }

    pub(super) fn id(&self) -> Id {
        self.meta().id()
    }

    pub(super) fn location(&self) -> &'static Location<'static> {
        self.meta().location
    }

    pub(super) fn is_finished(&self) -> bool {
        self.task.as_ref().is_none_or(FallibleTask::is_finished)
    }

    pub(super) fn abort(&self) {
        abort(self.meta());
    }

    /// `None` if the future is gone.
    pub(super) fn abort_handle(&self) -> Option<Abort> {
        self.meta().waker(false).map(|waker| Abort { _waker: waker, meta: self.meta })
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<T>> {
        let outcome = ready!(self.poll_task(cx));
        self.forget_waker();
        let dropped = if self.meta().is_pinned() { Failure::SHUTDOWN } else { Failure::SET_DROPPED };
        Poll::Ready(outcome.unwrap_or(Err(dropped)))
    }

    fn poll_task(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outcome<T>>> {
        let task = self.task.as_mut().expect("a handle has its task until it is dropped");
        if is_waker(cx.waker()) || waits::is_waker(cx.waker()) {
            return Pin::new(task).poll(cx);
        }
        let joiner = self.joiner.get_or_insert_with(Joiner::new);
        if !joiner.has(cx.waker()) {
            joiner.replace(Some(cx.waker().clone()));
        }
        Pin::new(task).poll(&mut Context::from_waker(&Waker::from(joiner.clone())))
    }

    /// The waker of others goes now: `async-task` may keep the joiner for longer.
    fn forget_waker(&mut self) {
        if let Some(joiner) = self.joiner.take() {
            joiner.replace(None);
        }
    }

    /// The handle is dropped.
    pub(super) fn leave(&mut self) {
        self.forget_waker();
        if let Some(task) = self.task.take() {
            task.detach();
        }
    }
}

/// An abort handle's reference to a task.
#[derive(Clone)]
pub(super) struct Abort {
    /// Keeps the cell that the pointer leads into.
    _waker: Waker,
    meta: NonNull<Meta>,
}

impl Abort {
    fn meta(&self) -> &Meta {
        // SAFETY: the waker keeps the cell.
        unsafe { self.meta.as_ref() }
    }

    pub(super) fn abort(&self) {
        abort(self.meta());
    }

    pub(super) fn is_finished(&self) -> bool {
        self.meta().waker(false).is_none()
    }
}

fn abort(meta: &Meta) {
    if let Some(waker) = meta.waker(true) {
        waker.wake();
    }
}
