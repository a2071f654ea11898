//! Go's channels: handles, futures and the budget around `hchan`.
//!
//! Many send and many receive, each message goes to one receiver, in the order of sending. A channel ends when all
//! senders are gone, when all receivers are, or when somebody closes it; what was sent before is still received.
//!
//! 1. A handle counts, and who takes a count to zero closes the channel. Nobody receives after the last receiver, so
//!    that one drops what is in the buffer too: a message may hold a sender of its own channel.
//! 2. A future takes its place out of its line when it is dropped, before the handle that it borrows can go.
//! 3. The place of a [`Receiver`] as a stream is in a box of its own. Whoever receives through the handle takes over
//!    what that place was served, so that nothing lies there while others wait.
//!
//! | Go               | here                                                      |
//! |------------------|-----------------------------------------------------------|
//! | `make(chan T)`   | [`bounded(0)`](bounded)                                   |
//! | `c <- v`         | `sender.send(v).await`                                    |
//! | `v, ok := <-c`   | `receiver.recv().await`                                   |
//! | `for v := range c` | `while let Ok(v) = receiver.recv().await`               |
//! | `close(c)`       | [`Sender::close`], or dropping the last sender            |
//! | `len(c)`, `cap(c)` | [`Receiver::len`], [`Receiver::capacity`]               |

use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_core::stream::FusedStream;

use crate::budget::{self, Charge};
use crate::cold;
use crate::hchan::{Hchan, NotPut, NotTaken, Served};
use crate::sudog::{Phase, Sudog};
use crate::sys::atomic::{
    AtomicUsize,
    Ordering::{AcqRel, Relaxed},
};

pub use error::{RecvError, SendError, TryRecvError, TrySendError};

mod error;

/// What the handles of a channel share.
struct Shared<T> {
    hchan: Hchan<T>,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

/// A handle is gone. Tells whether it was the last of its kind.
fn leave(count: &AtomicUsize) -> bool {
    // AcqRel: pairs with itself: the last one sees what the others did before they went.
    count.fetch_sub(1, AcqRel) == 1
}

/// Makes a channel for `capacity` messages. Go: `make(chan T, capacity)`
///
/// With a capacity of 0 sender and receiver meet: [`Sender::send`] waits until somebody receives.
///
/// # Examples
///
/// ```
/// gmp::block_on(async {
///     let (sender, receiver) = gmp::chan::bounded(0);
///     gmp::spawn(async move {
///         for n in 1..=3 {
///             sender.send(n).await.unwrap();
///         }
///     });
///     let mut sum = 0;
///     while let Ok(n) = receiver.recv().await {
///         sum += n;
///     }
///     assert_eq!(sum, 6);
/// });
/// ```
#[must_use]
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    with(Hchan::bounded(capacity))
}

/// Makes a channel that always has room. What is sent faster than it is received stays in memory.
///
/// [`Sender::send`] is a future here too, which does nothing until it is awaited: also `let _ = sender.send(message)`
/// sends nothing. [`Sender::try_send`] is what tokio's `UnboundedSender::send` is.
///
/// # Examples
///
/// ```
/// let (sender, receiver) = gmp::chan::unbounded();
/// sender.try_send("from any thread").unwrap();
/// assert_eq!(gmp::block_on(receiver.recv()), Ok("from any thread"));
/// ```
#[must_use]
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    with(Hchan::unbounded())
}

fn with<T>(hchan: Hchan<T>) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared { hchan, senders: AtomicUsize::new(1), receivers: AtomicUsize::new(1) });
    (Sender { shared: shared.clone() }, Receiver { shared, stream: None, is_over: false })
}

/// The sending half of a channel. Clones send into the same one.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Sends `message`: waits until there is room for it, or a receiver. Go: `c <- message`
    ///
    /// Who began to wait first goes first.
    ///
    /// # Errors
    ///
    /// The channel is closed; the error gives the message back.
    ///
    /// # Cancel safety
    ///
    /// Dropping it before it is ready: the message was sent, or it was not and is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// gmp::block_on(async {
    ///     let (sender, receiver) = gmp::chan::bounded(1);
    ///     sender.send(1).await.unwrap();
    ///     drop(receiver);
    ///     assert_eq!(sender.send(2).await.unwrap_err().into_inner(), 2);
    /// });
    /// ```
    #[inline]
    pub fn send(&self, message: T) -> Send<'_, T> {
        Send { shared: &self.shared, sudog: Sudog::new(Some(message)) }
    }

    /// Sends `message` if that can be done at once.
    ///
    /// # Errors
    ///
    /// There is no room, or the channel is closed; the error gives the message back.
    ///
    /// # Examples
    ///
    /// ```
    /// use gmp::chan::{TrySendError, bounded};
    ///
    /// let (sender, receiver) = bounded(1);
    /// assert_eq!(sender.try_send(1), Ok(()));
    /// assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
    /// drop(receiver);
    /// assert_eq!(sender.try_send(3), Err(TrySendError::Closed(3)));
    /// ```
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.shared.hchan.try_put(message).map_err(|not_put| match not_put {
            NotPut::Full(message) => TrySendError::Full(message),
            NotPut::Closed(message) => TrySendError::Closed(message),
        })
    }

    /// [`Sender::send`] that blocks the thread, for code that is not async. No other task waits for it, except local
    /// tasks of this thread: the processor is given up meanwhile.
    ///
    /// # Errors
    ///
    /// The channel is closed; the error gives the message back.
    ///
    /// # Panics
    ///
    /// As [`block_on`](crate::runtime::block_on), on a thread that is in a runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = gmp::chan::bounded(0);
    /// let thread = std::thread::spawn(move || sender.send_blocking("hello"));
    /// assert_eq!(gmp::block_on(receiver.recv()), Ok("hello"));
    /// assert_eq!(thread.join().unwrap(), Ok(()));
    /// ```
    #[track_caller]
    pub fn send_blocking(&self, message: T) -> Result<(), SendError<T>> {
        match self.try_send(message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(message)) => Err(SendError(message)),
            Err(TrySendError::Full(message)) => cold::wait_for(self.send(message)),
        }
    }

    /// Waits until the channel is closed, or all receivers are gone.
    ///
    /// # Cancel safety
    ///
    /// Strict: dropping it loses nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// gmp::block_on(async {
    ///     let (sender, receiver) = gmp::chan::bounded::<u32>(1);
    ///     gmp::spawn(async move { drop(receiver) });
    ///     sender.closed().await;
    ///     assert!(sender.is_closed());
    /// });
    /// ```
    pub fn closed(&self) -> Closed<'_, T> {
        Closed { shared: &self.shared, sudog: Sudog::new(None) }
    }

    /// Whether both are of one channel.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _receiver) = gmp::chan::bounded::<u32>(1);
    /// assert!(sender.same_channel(&sender.clone()));
    /// ```
    #[must_use]
    pub fn same_channel(&self, other: &Sender<T>) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

/// The receiving half of a channel. Clones receive from the same one; each message goes to one of them.
///
/// It is a `futures` [`Stream`] too. One whose `poll_next` is pending keeps its place in the line, also for messages
/// that others could have: poll it again, receive by other means, or drop it. As a [`FusedStream`] it is terminated
/// when its own `poll_next` has given the end.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// The place of the stream, once it was polled.
    stream: Option<Pin<Box<Sudog<Served<T>>>>>,
    /// The stream has given its end.
    is_over: bool,
}

impl<T> Receiver<T> {
    /// Receives a message, waiting for one. Go: `<-c`
    ///
    /// Who began to wait first is served first.
    ///
    /// # Errors
    ///
    /// The channel is closed and empty.
    ///
    /// # Cancel safety
    ///
    /// Strict: dropping it loses nothing. A message that had just come for it goes to the next receiver, before all
    /// that were sent later and that nobody has received yet.
    ///
    /// # Examples
    ///
    /// ```
    /// gmp::block_on(async {
    ///     let (sender, receiver) = gmp::chan::bounded(8);
    ///     sender.send(1).await.unwrap();
    ///     drop(sender);
    ///     assert_eq!(receiver.recv().await, Ok(1));
    ///     assert_eq!(receiver.recv().await, Err(gmp::chan::RecvError));
    /// });
    /// ```
    #[inline]
    pub fn recv(&self) -> Recv<'_, T> {
        Recv { receiver: self, sudog: Sudog::new(None) }
    }

    /// Receives a message if there is one.
    ///
    /// # Errors
    ///
    /// There is none: for now, or for ever.
    ///
    /// # Examples
    ///
    /// ```
    /// use gmp::chan::{TryRecvError, bounded};
    ///
    /// let (sender, receiver) = bounded(1);
    /// assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    /// sender.try_send(1).unwrap();
    /// drop(sender);
    /// assert_eq!(receiver.try_recv(), Ok(1));
    /// assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    /// ```
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        if let Some(served) = self.end_stream() {
            return Ok(served.message);
        }
        self.shared.hchan.try_take().map_err(|not_taken| match not_taken {
            NotTaken::Empty => TryRecvError::Empty,
            NotTaken::Closed => TryRecvError::Closed,
        })
    }

    /// [`Receiver::recv`] that blocks the thread, for code that is not async. No other task waits for it, except local
    /// tasks of this thread: the processor is given up meanwhile.
    ///
    /// # Errors
    ///
    /// The channel is closed and empty.
    ///
    /// # Panics
    ///
    /// As [`block_on`](crate::runtime::block_on), on a thread that is in a runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = gmp::chan::bounded(1);
    /// let thread = std::thread::spawn(move || receiver.recv_blocking());
    /// gmp::block_on(sender.send("hello")).unwrap();
    /// assert_eq!(thread.join().unwrap(), Ok("hello"));
    /// ```
    #[track_caller]
    pub fn recv_blocking(&self) -> Result<T, RecvError> {
        match self.try_recv() {
            Ok(message) => Ok(message),
            Err(TryRecvError::Closed) => Err(RecvError),
            Err(TryRecvError::Empty) => cold::wait_for(self.recv()),
        }
    }

    /// The stream's place leaves the line; gives what it was served.
    #[inline]
    fn end_stream(&self) -> Option<Served<T>> {
        let sudog = self.stream.as_ref().filter(|sudog| sudog.phase() != Phase::Out)?;
        // SAFETY: `poll_next` has the handle to itself, so nobody polls it now, and those who come here at once take
        // turns at the lock.
        unsafe { self.shared.hchan.end_take(sudog) }
    }
}

macro_rules! both {
    ($($handle:ident, $count:ident;)*) => {$(
        impl<T> $handle<T> {
            /// Closes the channel for all: nothing is sent any more, what is in it is still received, and nobody waits.
            /// Tells whether it was open. Go: `close(c)`
            ///
            /// # Examples
            ///
            /// ```
            /// let (sender, receiver) = gmp::chan::bounded(1);
            /// sender.try_send(1).unwrap();
            /// assert!(sender.close());
            /// assert!(!receiver.close() && receiver.is_closed());
            /// assert!(sender.try_send(2).is_err());
            /// assert_eq!(receiver.try_recv(), Ok(1));
            /// ```
            pub fn close(&self) -> bool {
                self.shared.hchan.close(false)
            }

            /// Whether the channel is closed.
            ///
            /// # Examples
            ///
            /// ```
            /// let (sender, receiver) = gmp::chan::unbounded::<u32>();
            /// assert!(!sender.is_closed() && !receiver.is_closed());
            /// drop(receiver);
            /// assert!(sender.is_closed());
            /// ```
            #[must_use]
            pub fn is_closed(&self) -> bool {
                self.shared.hchan.is_closed()
            }

            /// How many messages are in the channel. Those of senders that wait for room are not counted. Go: `len(c)`
            ///
            /// # Examples
            ///
            /// ```
            /// let (sender, receiver) = gmp::chan::bounded(2);
            /// sender.try_send(1).unwrap();
            /// assert_eq!((sender.len(), receiver.len()), (1, 1));
            /// ```
            #[must_use]
            pub fn len(&self) -> usize {
                self.shared.hchan.len()
            }

            /// Whether no message is in the channel.
            ///
            /// # Examples
            ///
            /// ```
            /// let (sender, receiver) = gmp::chan::bounded::<u32>(2);
            /// assert!(sender.is_empty() && receiver.is_empty());
            /// ```
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Whether no more messages fit in. With capacity 0 none ever does.
            ///
            /// # Examples
            ///
            /// ```
            /// let (sender, receiver) = gmp::chan::bounded(1);
            /// sender.try_send(1).unwrap();
            /// assert!(sender.is_full() && receiver.is_full());
            /// ```
            #[must_use]
            pub fn is_full(&self) -> bool {
                self.capacity().is_some_and(|capacity| self.len() >= capacity)
            }

            /// How many messages fit in; `None` without a bound. Go: `cap(c)`
            ///
            /// # Examples
            ///
            /// ```
            /// assert_eq!(gmp::chan::bounded::<u32>(2).0.capacity(), Some(2));
            /// assert_eq!(gmp::chan::unbounded::<u32>().1.capacity(), None);
            /// ```
            #[must_use]
            pub fn capacity(&self) -> Option<usize> {
                self.shared.hchan.capacity()
            }
        }

        impl<T> fmt::Debug for $handle<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($handle))
                    .field("capacity", &self.capacity())
                    .field("len", &self.len())
                    .field("closed", &self.is_closed())
                    .finish()
            }
        }
    )*};
}

// No user code runs under the lock of a channel, so a panic leaves none half changed (see `hchan`). What is in it is on
// its way from one thread to another, whatever `T` is.
impl<T> UnwindSafe for Sender<T> {}
impl<T> RefUnwindSafe for Sender<T> {}
impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}
// The message is the sender's own until it is sent.
impl<T: UnwindSafe> UnwindSafe for Send<'_, T> {}
impl<T> UnwindSafe for Recv<'_, T> {}
impl<T> UnwindSafe for Closed<'_, T> {}

both! {
    Sender, senders;
    Receiver, receivers;
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.fetch_add(1, Relaxed);
        Sender { shared: self.shared.clone() }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receivers.fetch_add(1, Relaxed);
        Receiver { shared: self.shared.clone(), stream: None, is_over: false }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if leave(&self.shared.senders) {
            self.shared.hchan.close(false);
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if let Some(served) = self.end_stream() {
            self.shared.hchan.put_back(served);
        }
        if leave(&self.shared.receivers) {
            self.shared.hchan.close(true);
        }
    }
}

impl<T> Stream for Receiver<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let this = self.get_mut();
        let sudog = this.stream.get_or_insert_with(|| Box::pin(Sudog::new(None)));
        let poll = if sudog.phase() == Phase::Out {
            poll_take(&this.shared, sudog, cx)
        } else {
            wait_take(&this.shared, sudog, cx)
        };
        this.is_over = matches!(poll, Poll::Ready(Err(_)));
        poll.map(Result::ok)
    }
}

impl<T> FusedStream for Receiver<T> {
    fn is_terminated(&self) -> bool {
        // Closed and empty would not do: others receive what is left, between a look and the poll that relies on it.
        self.is_over
    }
}

/// For a place that is out of line.
#[inline]
fn poll_take<T>(shared: &Shared<T>, sudog: &Sudog<Served<T>>, cx: &mut Context<'_>) -> Poll<Result<T, RecvError>> {
    let charge = match budget::slice() {
        Some(slice) => {
            if let Some(message) = shared.hchan.take_at_once() {
                slice.spend();
                return Poll::Ready(Ok(message));
            }
            slice.charge()
        }
        None => ready!(budget::poll_refuse(cx)),
    };
    poll_wait_take(shared, sudog, cx, charge)
}

/// [`wait_take`] for a unit of the budget.
#[inline(never)]
fn poll_wait_take<T>(
    shared: &Shared<T>,
    sudog: &Sudog<Served<T>>,
    cx: &mut Context<'_>,
    charge: Charge,
) -> Poll<Result<T, RecvError>> {
    let poll = wait_take(shared, sudog, cx);
    if poll.is_ready() {
        charge.made_progress();
    }
    poll
}

/// Without a charge it is for who has waited: that one has had its turn in the queue, which is no less than the budget
/// asks for.
#[inline]
fn wait_take<T>(shared: &Shared<T>, sudog: &Sudog<Served<T>>, cx: &mut Context<'_>) -> Poll<Result<T, RecvError>> {
    // SAFETY: it is called by the future of the place or by its stream, which pin it and call `leave_take` or
    // `end_take` before they end.
    unsafe { shared.hchan.poll_take(sudog, cx.waker()) }.map_err(|_| RecvError)
}

/// [`wait_put`] for a unit of the budget.
#[inline(never)]
fn poll_wait_put<T>(
    shared: &Shared<T>,
    sudog: &Sudog<T>,
    cx: &mut Context<'_>,
    charge: Charge,
) -> Poll<Result<(), SendError<T>>> {
    let poll = wait_put(shared, sudog, cx);
    if poll.is_ready() {
        charge.made_progress();
    }
    poll
}

#[inline]
fn wait_put<T>(shared: &Shared<T>, sudog: &Sudog<T>, cx: &mut Context<'_>) -> Poll<Result<(), SendError<T>>> {
    // SAFETY: it is called by the future of the place, which is pinned with it and calls `leave_put` before it ends.
    unsafe { shared.hchan.poll_put(sudog, cx.waker()) }.map_err(SendError)
}

/// The future of [`Sender::send`].
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Send<'a, T> {
    shared: &'a Shared<T>,
    /// With the message, until it is sent.
    sudog: Sudog<T>,
}

impl<T> Future for Send<'_, T> {
    type Output = Result<(), SendError<T>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.into_ref().get_ref();
        if this.sudog.phase() != Phase::Out {
            // As in `wait_take`.
            return wait_put(this.shared, &this.sudog, cx);
        }
        let charge = match budget::slice() {
            // SAFETY: this is the future of the place, which is in no line.
            Some(slice) if unsafe { this.shared.hchan.put_at_once(&this.sudog) } => {
                slice.spend();
                return Poll::Ready(Ok(()));
            }
            Some(slice) => slice.charge(),
            None => ready!(budget::poll_refuse(cx)),
        };
        poll_wait_put(this.shared, &this.sudog, cx, charge)
    }
}

impl<T> Drop for Send<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this is the future of the place.
        unsafe { self.shared.hchan.leave_put(&self.sudog) };
    }
}

/// The future of [`Receiver::recv`].
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Recv<'a, T> {
    receiver: &'a Receiver<T>,
    sudog: Sudog<Served<T>>,
}

impl<T> Future for Recv<'_, T> {
    type Output = Result<T, RecvError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.into_ref().get_ref();
        if this.sudog.phase() != Phase::Out {
            return wait_take(&this.receiver.shared, &this.sudog, cx);
        }
        if let Some(served) = this.receiver.end_stream() {
            return Poll::Ready(Ok(served.message));
        }
        poll_take(&this.receiver.shared, &this.sudog, cx)
    }
}

impl<T> Drop for Recv<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this is the future of the place.
        unsafe { self.receiver.shared.hchan.leave_take(&self.sudog) };
    }
}

/// The future of [`Sender::closed`].
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Closed<'a, T> {
    shared: &'a Shared<T>,
    sudog: Sudog<T>,
}

impl<T> Future for Closed<'_, T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.into_ref().get_ref();
        let charge = ready!(budget::poll_charge(cx));
        // SAFETY: this is the future of the place, which is pinned with it; its drop calls `leave_closed`.
        ready!(unsafe { this.shared.hchan.poll_closed(&this.sudog, cx.waker()) });
        charge.made_progress();
        Poll::Ready(())
    }
}

impl<T> Drop for Closed<'_, T> {
    fn drop(&mut self) {
        // SAFETY: this is the future of the place.
        unsafe { self.shared.hchan.leave_closed(&self.sudog) };
    }
}

macro_rules! futures {
    ($($future:ident)*) => {$(
        impl<T> fmt::Debug for $future<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($future)).finish_non_exhaustive()
            }
        }
    )*};
}

futures! { Send Recv Closed }
