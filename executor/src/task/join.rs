//! What users hold of a task: the handle that waits for its output, and the one that aborts it.

use std::any::Any;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::Id;
use super::bound::{self, Bound};
use super::cell::{self, Join};
use super::outcome::{Cause, Failure};
use crate::budget::poll_charge;

/// Waits for a task's output. Dropping it detaches the task, which goes on: `gmp::spawn(…);` is one that nobody waits
/// for. What a detached task panics with is told by the panic hook alone.
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
pub struct JoinHandle<T> {
    task: Kind<T>,
    /// It was ready once.
    is_taken: bool,
}

/// What kind of task it is.
enum Kind<T> {
    Cell(Join<T>),
    Bound(Bound<T>),
}

// SAFETY: what leads to the task may be used from any thread; the output moves to whoever awaits the handle.
unsafe impl<T: Send> Send for JoinHandle<T> {}
// SAFETY: a shared handle gives out nothing of the output.
unsafe impl<T: Send> Sync for JoinHandle<T> {}

impl<T> Unpin for JoinHandle<T> {}

// A panic leaves a handle as it is: it is changed only by a poll that is ready.
impl<T> UnwindSafe for JoinHandle<T> {}
impl<T> RefUnwindSafe for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    #[inline]
    pub(super) fn new(task: Join<T>) -> Self {
        JoinHandle { task: Kind::Cell(task), is_taken: false }
    }

    pub(super) fn bound(task: Bound<T>) -> Self {
        JoinHandle { task: Kind::Bound(task), is_taken: false }
    }

    /// Asks the task to end: its future is dropped before its next poll, and the handle gives a cancelled
    /// [`JoinError`]. A task that has ended already, or ends in the poll that goes on, is left as it is; so is a
    /// blocking closure that runs.
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
        match &self.task {
            Kind::Cell(task) => task.abort(),
            Kind::Bound(task) => task.abort(),
        }
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
        let live = match &self.task {
            Kind::Cell(task) => task.abort_handle().map(Live::Cell),
            Kind::Bound(task) => task.abort_handle().map(Live::Bound),
        };
        AbortHandle { live, id: self.id() }
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
        match &self.task {
            Kind::Cell(task) => task.is_finished(),
            Kind::Bound(task) => task.is_finished(),
        }
    }

    /// The task's name.
    #[must_use]
    pub fn id(&self) -> Id {
        match &self.task {
            Kind::Cell(task) => task.id(),
            Kind::Bound(task) => task.id(),
        }
    }

    #[cold]
    fn error(&self, failure: Failure) -> JoinError {
        let location = match &self.task {
            Kind::Cell(task) => task.location(),
            Kind::Bound(task) => task.location(),
        };
        let why = match failure.into_cause() {
            Cause::Aborted => Why::Cancelled,
            Cause::Panicked(payload) => Why::Panicked(payload),
            Cause::Shutdown => Why::Shutdown,
            Cause::SetDropped => Why::SetDropped,
        };
        JoinError { id: self.id(), location, why }
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
        let outcome = ready!(match &mut self.task {
            Kind::Cell(task) => task.poll(cx),
            Kind::Bound(task) => task.poll(cx),
        });
        self.is_taken = true;
        charge.made_progress();
        Poll::Ready(match outcome {
            Ok(output) => Ok(output.into_inner()),
            Err(failure) => Err(self.error(failure)),
        })
    }
}

impl<T> Drop for JoinHandle<T> {
    #[inline]
    fn drop(&mut self) {
        match &mut self.task {
            Kind::Cell(task) => task.leave(self.is_taken),
            Kind::Bound(task) => task.leave(),
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
    /// None if the task had ended when the handle was made.
    live: Option<Live>,
    id: Id,
}

#[derive(Clone)]
enum Live {
    Cell(cell::Abort),
    Bound(bound::Abort),
}

// SAFETY: what leads to the task may be used from any thread, and keeps what it leads to.
unsafe impl Send for AbortHandle {}
// SAFETY: as above.
unsafe impl Sync for AbortHandle {}

// It does nothing but change the word of the task.
impl UnwindSafe for AbortHandle {}
impl RefUnwindSafe for AbortHandle {}

impl AbortHandle {
    /// Asks the task to end; see [`JoinHandle::abort`].
    pub fn abort(&self) {
        match &self.live {
            Some(Live::Cell(task)) => task.abort(),
            Some(Live::Bound(task)) => task.abort(),
            None => {}
        }
    }

    /// Whether the task's future is gone.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.live {
            Some(Live::Cell(task)) => task.is_finished(),
            Some(Live::Bound(task)) => task.is_finished(),
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

/// Why a task gave no output: it panicked, was aborted, or its runtime was shut down, or the local set that it was in
/// dropped.
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

    /// Whether the task was aborted, or dropped with its runtime or local set. The text of the error says which: that
    /// of a task whose runtime was shut down has `runtime shut down` in it.
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
