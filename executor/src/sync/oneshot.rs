//! A channel for one message: handles, the future and the budget around `oneshot`.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::future::FusedFuture;

use crate::budget::poll_charge;
use crate::chan::{RecvError, TryRecvError};
use crate::cold;
use crate::oneshot::{Half, halves};

/// Makes a channel for one message. Go: `make(chan T, 1)`
///
/// It is one allocation, which is freed as soon as both halves are done. For more than one message, or several
/// receivers, there is [`chan::bounded`](crate::chan::bounded).
///
/// # Examples
///
/// ```
/// use gmp::sync::oneshot;
///
/// gmp::block_on(async {
///     let (sender, receiver) = oneshot::channel();
///     gmp::spawn(async { sender.send(6 * 7) });
///     assert_eq!(receiver.await, Ok(42));
/// });
/// ```
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = halves();
    (Sender { half: sender }, Receiver { half: Some(receiver) })
}

/// Sends the message. When it is dropped without, the receiver gets an error.
pub struct Sender<T> {
    half: Half<T, true>,
}

/// Receives the message: it is a future of it, or of a [`RecvError`] if none will come.
///
/// It is a [`FusedFuture`] too, terminated when it has given either.
///
/// # Panics
///
/// When it is polled after that.
///
/// # Cancel safety
///
/// Await `&mut receiver`, in a `select!` too, and nothing is lost: a message that has come stays with it. When the
/// receiver itself is dropped a message that has come is dropped with it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use gmp::sync::oneshot;
///
/// gmp::block_on(async {
///     let (sender, mut receiver) = oneshot::channel();
///     assert!(gmp::time::timeout(Duration::from_millis(1), &mut receiver).await.is_err());
///     sender.send("late").unwrap();
///     assert_eq!(receiver.await, Ok("late"));
/// });
/// ```
#[must_use = "whoever sends gets the message back when this is dropped"]
pub struct Receiver<T> {
    /// Until the message, or that none will come, is out.
    half: Option<Half<T, false>>,
}

// No user code runs while a side changes what both share, so a panic leaves nothing half changed. The message is on its
// way from one thread to another, whatever `T` is.
impl<T> UnwindSafe for Sender<T> {}
impl<T> RefUnwindSafe for Sender<T> {}
impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}

impl<T> Sender<T> {
    /// Sends the message, at once: it waits for nobody.
    ///
    /// # Errors
    ///
    /// The receiver is gone or closed; the error is the message. That it was sent does not say that it is received: the
    /// receiver may still be dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = gmp::sync::oneshot::channel();
    /// drop(receiver);
    /// assert_eq!(sender.send("back"), Err("back"));
    /// ```
    #[inline]
    pub fn send(self, message: T) -> Result<(), T> {
        self.half.send(message)
    }

    /// Whether the receiver is gone or closed.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = gmp::sync::oneshot::channel::<u32>();
    /// assert!(!sender.is_closed());
    /// drop(receiver);
    /// assert!(sender.is_closed());
    /// ```
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.half.is_ended()
    }

    /// Waits until the receiver is gone or closed: whoever works for the message may stop then.
    ///
    /// # Cancel safety
    ///
    /// Strict: dropping it loses nothing; call again.
    ///
    /// # Examples
    ///
    /// ```
    /// gmp::block_on(async {
    ///     let (mut sender, receiver) = gmp::sync::oneshot::channel::<u32>();
    ///     gmp::spawn(async { drop(receiver) });
    ///     sender.closed().await;
    ///     assert!(sender.is_closed());
    /// });
    /// ```
    pub async fn closed(&mut self) {
        poll_fn(|cx| self.poll_closed(cx)).await;
    }

    /// As [`closed`](Self::closed), for futures that are polled by hand. The waker of the last poll is woken.
    ///
    /// # Examples
    ///
    /// ```
    /// gmp::block_on(async {
    ///     let (mut sender, receiver) = gmp::sync::oneshot::channel::<u32>();
    ///     drop(receiver);
    ///     std::future::poll_fn(|cx| sender.poll_closed(cx)).await;
    /// });
    /// ```
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let charge = ready!(poll_charge(cx));
        ready!(self.half.poll_ended(cx.waker()));
        charge.made_progress();
        Poll::Ready(())
    }
}

impl<T> Receiver<T> {
    /// Receives the message if it is there.
    ///
    /// # Errors
    ///
    /// It is not: not yet, or it never will be, for the sender is gone, this receiver is closed, or the message is out.
    ///
    /// # Examples
    ///
    /// ```
    /// use gmp::chan::TryRecvError;
    ///
    /// let (sender, mut receiver) = gmp::sync::oneshot::channel();
    /// assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    /// sender.send(1).unwrap();
    /// assert_eq!(receiver.try_recv(), Ok(1));
    /// assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    /// ```
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let half = self.half.as_mut().ok_or(TryRecvError::Closed)?;
        if !half.is_over() {
            return Err(TryRecvError::Empty);
        }
        self.end().map_err(|RecvError| TryRecvError::Closed)
    }

    /// Receives the message, and blocks the thread until then, for code that is not async. No other task waits for it,
    /// except local tasks of this thread: the processor is given up meanwhile.
    ///
    /// # Errors
    ///
    /// None will come, or it is out.
    ///
    /// # Panics
    ///
    /// As [`block_on`](crate::runtime::block_on), on a thread that is in a runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = gmp::sync::oneshot::channel();
    /// let thread = std::thread::spawn(move || receiver.recv_blocking());
    /// sender.send("hello").unwrap();
    /// assert_eq!(thread.join().unwrap(), Ok("hello"));
    /// ```
    #[track_caller]
    pub fn recv_blocking(mut self) -> Result<T, RecvError> {
        match self.try_recv() {
            Ok(message) => Ok(message),
            Err(TryRecvError::Closed) => Err(RecvError),
            Err(TryRecvError::Empty) => cold::wait_for(self),
        }
    }

    /// Whether no message is there: not yet, or it never will be, or it is out.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = gmp::sync::oneshot::channel();
    /// assert!(receiver.is_empty());
    /// sender.send(1).unwrap();
    /// assert!(!receiver.is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.half.as_ref().is_some_and(Half::has_message)
    }

    /// Whether it has given the message, or that none will come: then it is not to be polled any more.
    ///
    /// # Examples
    ///
    /// ```
    /// gmp::block_on(async {
    ///     let (sender, mut receiver) = gmp::sync::oneshot::channel::<u32>();
    ///     drop(sender);
    ///     assert!(!receiver.is_terminated());
    ///     assert!((&mut receiver).await.is_err() && receiver.is_terminated());
    /// });
    /// ```
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        self.half.is_none()
    }

    /// Lets nothing be sent any more. A message that is there already is received as before.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, mut receiver) = gmp::sync::oneshot::channel();
    /// receiver.close();
    /// assert_eq!(sender.send(1), Err(1));
    /// assert!(gmp::block_on(receiver).is_err());
    /// ```
    pub fn close(&mut self) {
        if let Some(half) = &mut self.half {
            half.close();
        }
    }

    /// The message, or that none will come. Which of them is settled.
    #[inline]
    fn end(&mut self) -> Result<T, RecvError> {
        self.half.take().and_then(|mut half| half.take()).ok_or(RecvError)
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, RecvError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let half = self.half.as_mut().expect("a oneshot receiver is polled after it gave its message");
        let charge = ready!(poll_charge(cx));
        if !half.is_over() {
            ready!(half.poll_ended(cx.waker()));
        }
        charge.made_progress();
        Poll::Ready(self.end())
    }
}

impl<T> FusedFuture for Receiver<T> {
    fn is_terminated(&self) -> bool {
        self.is_terminated()
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("is_closed", &self.is_closed()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("is_terminated", &self.is_terminated()).finish_non_exhaustive()
    }
}
