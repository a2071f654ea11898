//! What users hold of a task: the handle that waits for its output, and the one that aborts it.

use std::any::Any;
use std::panic::Location;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, Waker, ready};

use async_task::FallibleTask;

use super::{Failure, Id, Meta, Output, registry};
use crate::budget::poll_charge;

/// Waits for a task's output. Dropping it detaches the task, which goes on.
///
/// # Cancel safety
///
/// Strict: a handle that was polled and not ready can be polled again, and dropping it loses nothing but the output.
///
/// # Examples
///
/// ```
/// gmp::block_on(async {
///     let handle = gmp::spawn(async { 6 * 7 });
///     assert_eq!(handle.await.unwrap(), 42);
/// });
/// ```
#[must_use = "dropping a handle detaches its task; say `drop` if that is meant"]
pub struct JoinHandle<T> {
    /// `None` only while it is dropped.
    task: Option<FallibleTask<Result<Output<T>, Failure>, Meta>>,
    /// In the task's cell, which `task` keeps alive.
    meta: NonNull<Meta>,
    /// It was ready once.
    is_taken: bool,
}

// SAFETY: the pointer leads to a `Sync` value; the output moves to whoever awaits the handle.
unsafe impl<T: Send> Send for JoinHandle<T> {}
// SAFETY: a shared handle gives out nothing of the output.
unsafe impl<T: Send> Sync for JoinHandle<T> {}

impl<T> Unpin for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    /// # Safety
    ///
    /// `meta` is the meta data of `task`.
    pub(super) unsafe fn new(task: FallibleTask<Result<Output<T>, Failure>, Meta>, meta: *const Meta) -> Self {
        // SAFETY: a reference was behind it.
        JoinHandle { task: Some(task), meta: unsafe { NonNull::new_unchecked(meta.cast_mut()) }, is_taken: false }
    }

    fn meta(&self) -> &Meta {
        // SAFETY: `task` is there until the drop and keeps the cell.
        unsafe { self.meta.as_ref() }
    }

    /// Asks the task to end: its future is dropped before its next poll, and the handle gives a cancelled [`JoinError`].
    /// A task that has ended already, or ends in the poll that goes on, is left as it is; so is a blocking closure that runs.
    ///
    /// # Examples
    ///
    /// ```
    /// gmp::block_on(async {
    ///     let handle = gmp::spawn(std::future::pending::<()>());
    ///     handle.abort();
    ///     assert!(handle.await.unwrap_err().is_cancelled());
    /// });
    /// ```
    pub fn abort(&self) {
        registry::abort(self.meta());
    }

    /// A handle that can abort the task from elsewhere. It keeps the task's memory, but not its future.
    ///
    /// # Examples
    ///
    /// ```
    /// gmp::block_on(async {
    ///     let handle = gmp::spawn(std::future::pending::<()>());
    ///     let abort = handle.abort_handle();
    ///     std::thread::spawn(move || abort.abort());
    ///     assert!(handle.await.unwrap_err().is_cancelled());
    /// });
    /// ```
    #[must_use]
    pub fn abort_handle(&self) -> AbortHandle {
        let id = self.id();
        AbortHandle { live: registry::waker(self.meta()).map(|waker| (waker, self.meta)), id }
    }

    /// Whether the task has ended.
    ///
    /// # Examples
    ///
    /// ```
    /// gmp::block_on(async {
    ///     let mut handle = gmp::spawn(async {});
    ///     (&mut handle).await.unwrap();
    ///     assert!(handle.is_finished());
    /// });
    /// ```
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.as_ref().is_none_or(FallibleTask::is_finished)
    }

    /// The task's name.
    #[must_use]
    pub fn id(&self) -> Id {
        self.meta().id()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    ///
    /// If it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.is_taken, "a `JoinHandle` was polled after it was ready");
        let charge = ready!(poll_charge(cx));
        let (id, location) = (self.id(), self.meta().location);
        let task = self.task.as_mut().expect("a handle has its task until it is dropped");
        let result = ready!(Pin::new(task).poll(cx));
        charge.made_progress();
        self.is_taken = true;
        Poll::Ready(match result {
            Some(Ok(output)) => Ok(output.into_inner()),
            Some(Err(Failure::Aborted)) => Err(JoinError { id, location, why: Why::Cancelled }),
            Some(Err(Failure::Panicked(payload))) => {
                Err(JoinError { id, location, why: Why::Panicked(payload.into_inner()) })
            }
            None => {
                let why = if self.meta().is_local() { Why::SetDropped } else { Why::Shutdown };
                Err(JoinError { id, location, why })
            }
        })
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.detach();
        }
    }
}

impl<T> std::fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinHandle").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Aborts a task; see [`JoinHandle::abort_handle`].
#[derive(Clone)]
pub struct AbortHandle {
    /// None if the task had ended when the handle was made. The waker keeps the cell that the pointer leads into.
    live: Option<(Waker, NonNull<Meta>)>,
    id: Id,
}

// SAFETY: the pointer leads to a `Sync` value that the waker beside it keeps alive.
unsafe impl Send for AbortHandle {}
// SAFETY: as above.
unsafe impl Sync for AbortHandle {}

impl AbortHandle {
    /// Asks the task to end; see [`JoinHandle::abort`].
    pub fn abort(&self) {
        if let Some((_, meta)) = &self.live {
            // SAFETY: the waker keeps the cell.
            registry::abort(unsafe { meta.as_ref() });
        }
    }

    /// Whether the task's future is gone.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.live {
            // SAFETY: the waker keeps the cell.
            Some((_, meta)) => registry::waker(unsafe { meta.as_ref() }).is_none(),
            None => true,
        }
    }

    /// The task's name.
    #[must_use]
    pub fn id(&self) -> Id {
        self.id
    }
}

impl std::fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AbortHandle").field("id", &self.id).finish_non_exhaustive()
    }
}

enum Why {
    Cancelled,
    Panicked(Box<dyn Any + Send>),
    Shutdown,
    SetDropped,
}

/// Why a task gave no output: it panicked, was aborted, or its runtime was shut down, or the local set that it was in dropped.
///
/// # Examples
///
/// ```
/// gmp::block_on(async {
///     let error = gmp::spawn(async { panic!("boom") }).await.unwrap_err();
///     assert_eq!(error.into_panic().downcast_ref(), Some(&"boom"));
/// });
/// ```
pub struct JoinError {
    id: Id,
    location: &'static Location<'static>,
    why: Why,
}

// SAFETY: a shared error reads of the payload only its type, and the text if it is a `&str` or a `String`.
unsafe impl Sync for JoinError {}

impl JoinError {
    /// Whether the task panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        matches!(self.why, Why::Panicked(_))
    }

    /// Whether the task was aborted, or dropped with its runtime or local set.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        !self.is_panic()
    }

    /// The payload of the panic.
    ///
    /// # Panics
    ///
    /// If the task did not panic.
    #[must_use]
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        self.try_into_panic().unwrap_or_else(|e| panic!("`into_panic` on a task that did not panic: {e}"))
    }

    /// The payload of the panic.
    ///
    /// # Errors
    ///
    /// The error itself, if the task did not panic.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send>, JoinError> {
        match self.why {
            Why::Panicked(payload) => Ok(payload),
            why => Err(JoinError { why, ..self }),
        }
    }

    /// The task's name.
    #[must_use]
    pub fn id(&self) -> Id {
        self.id
    }
}

impl std::fmt::Display for JoinError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "task {} (spawned at {}) ", self.id, self.location)?;
        match &self.why {
            Why::Cancelled => f.write_str("was cancelled"),
            Why::Shutdown => f.write_str("did not end: runtime shut down"),
            Why::SetDropped => f.write_str("did not end: the set or `block_on` that ran it is gone"),
            Why::Panicked(payload) => match message(payload.as_ref()) {
                Some(message) => write!(f, "panicked: {message}"),
                None => f.write_str("panicked"),
            },
        }
    }
}

fn message(payload: &(dyn Any + Send)) -> Option<&str> {
    payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

impl std::fmt::Debug for JoinError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl std::error::Error for JoinError {}

impl From<JoinError> for std::io::Error {
    fn from(error: JoinError) -> Self {
        std::io::Error::other(error)
    }
}
