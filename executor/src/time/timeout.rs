//! `Timeout`: a future with a limit.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::{Instant, Sleep, sleep, sleep_until};
use crate::budget;
use error::Elapsed;

/// Gives `future` at most `duration`, counted from this call. Go: `context.WithTimeout`
///
/// A future that is ready at the poll in which the time runs out still gives its value: the future is polled first. It
/// is dropped with the `Timeout`, not when the time is over.
///
/// # Errors
///
/// [`Elapsed`] when the time is over and the future is not ready.
///
/// # Panics
///
/// Where `future` does, and as a [`Sleep`].
///
/// # Cancel safety
///
/// That of `future`, which is dropped with the `Timeout`.
///
/// ```
/// use std::time::Duration;
/// use gmp::time::{sleep, timeout};
///
/// gmp::block_on(async {
///     assert_eq!(timeout(Duration::from_secs(1), async { 7 }).await, Ok(7));
///     assert!(timeout(Duration::from_millis(1), sleep(Duration::from_secs(3600))).await.is_err());
/// });
/// ```
#[inline]
pub fn timeout<F: IntoFuture>(duration: Duration, future: F) -> Timeout<F::IntoFuture> {
    Timeout { future: future.into_future(), limit: sleep(duration) }
}

/// Gives `future` time until `deadline`. Go: `context.WithDeadline`
///
/// # Errors
///
/// [`Elapsed`] when the deadline has passed and the future is not ready.
///
/// # Panics
///
/// Where `future` does, and as a [`Sleep`].
///
/// # Cancel safety
///
/// That of `future`, which is dropped with the `Timeout`.
///
/// ```
/// use std::time::Duration;
/// use gmp::time::{Instant, timeout_at};
///
/// gmp::block_on(async {
///     let deadline = Instant::now() + Duration::from_millis(1);
///     assert!(timeout_at(deadline, std::future::pending::<()>()).await.is_err());
///     assert!(Instant::now() >= deadline);
/// });
/// ```
pub fn timeout_at<F: IntoFuture>(deadline: Instant, future: F) -> Timeout<F::IntoFuture> {
    Timeout { future: future.into_future(), limit: sleep_until(deadline) }
}

/// The future of [`timeout`] and [`timeout_at`].
///
/// ```
/// use std::time::Duration;
/// use gmp::time::timeout;
///
/// let limited = timeout(Duration::from_secs(1), std::future::ready(7));
/// assert_eq!(limited.into_inner().into_inner(), 7);
/// ```
#[must_use = "futures do nothing unless you `.await` or poll them"]
#[derive(Debug)]
pub struct Timeout<F> {
    /// Pinned.
    future: F,
    /// Pinned.
    limit: Sleep,
}

impl<F> Timeout<F> {
    /// The future inside.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let limited = gmp::time::timeout(Duration::from_secs(1), std::future::ready(7));
    /// assert_eq!(limited.get_ref().clone().into_inner(), 7);
    /// ```
    #[must_use]
    pub fn get_ref(&self) -> &F {
        &self.future
    }

    /// The future inside, to change it.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let mut limited = gmp::time::timeout(Duration::from_secs(1), std::future::ready(7));
    /// *limited.get_mut() = std::future::ready(8);
    /// assert_eq!(limited.into_inner().into_inner(), 8);
    /// ```
    pub fn get_mut(&mut self) -> &mut F {
        &mut self.future
    }

    /// Takes the limit off.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let limited = gmp::time::timeout(Duration::from_secs(1), std::future::ready(7));
    /// assert_eq!(limited.into_inner().into_inner(), 7);
    /// ```
    pub fn into_inner(self) -> F {
        self.future
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Who has spent its slice lets others go first. No unit is held meanwhile, or a hundred limits around a future
        // would leave it none.
        drop(ready!(budget::poll_charge(cx)));
        // SAFETY: neither field is moved out.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: pinned because the timeout is.
        if let Poll::Ready(value) = unsafe { Pin::new_unchecked(&mut this.future) }.poll(cx) {
            return Poll::Ready(Ok(value));
        }
        // SAFETY: as above.
        ready!(unsafe { Pin::new_unchecked(&mut this.limit) }.poll_elapsed(cx));
        // Nothing is refused any more: a future that spends all of the slice at each poll would keep its limit off for
        // ever.
        if let Some(slice) = budget::slice() {
            slice.spend();
        }
        Poll::Ready(Err(Elapsed(())))
    }
}

/// What [`timeout`] and [`timeout_at`] fail with.
pub mod error {
    use std::{fmt, io};

    /// The time was over before the future was ready.
    ///
    /// ```
    /// use std::io;
    /// use std::time::Duration;
    /// use gmp::time::timeout;
    ///
    /// async fn late() -> io::Result<()> {
    ///     timeout(Duration::from_millis(1), std::future::pending::<()>()).await?;
    ///     Ok(())
    /// }
    /// assert_eq!(gmp::block_on(late()).unwrap_err().kind(), io::ErrorKind::TimedOut);
    /// ```
    #[derive(Debug, PartialEq, Eq)]
    pub struct Elapsed(pub(super) ());

    impl fmt::Display for Elapsed {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("deadline has elapsed")
        }
    }

    impl std::error::Error for Elapsed {}

    impl From<Elapsed> for io::Error {
        fn from(elapsed: Elapsed) -> io::Error {
            io::Error::new(io::ErrorKind::TimedOut, elapsed)
        }
    }
}
