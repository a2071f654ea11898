//! `Sleep`: the future that ends at an instant.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::Instant;
use crate::timers::{Entry, Look};
use crate::{budget, context};

/// What a poll says that could only be repeated for ever.
const WAITS_IN_VAIN: &str = "the runtime was shut down while its `block_on` waits for time, and no timer of it fires any more; \
                             end that `block_on` before the runtime is dropped, or give it a runtime of its own";

/// Waits until `duration` has passed, counted from this call. Go: `time.Sleep`
///
/// It never ends early. It is late by what the scheduler needs to come to it. [`Duration::ZERO`] ends at once, and a
/// duration beyond 292 years never does.
///
/// # Panics
///
/// Polling it panics if it needs the default runtime and that cannot be built: on a thread of no runtime.
///
/// # Cancel safety
///
/// Strict: dropping it loses nothing.
///
/// ```
/// use std::time::Duration;
/// use gmp::time::{Instant, sleep};
///
/// gmp::block_on(async {
///     let start = Instant::now();
///     sleep(Duration::from_millis(5)).await;
///     assert!(start.elapsed() >= Duration::from_millis(5));
/// });
/// ```
#[inline]
pub fn sleep(duration: Duration) -> Sleep {
    Sleep { deadline: Instant::now() + duration, entry: Entry::new(!duration.is_zero()) }
}

/// Waits until `deadline`; one in the past ends at once.
///
/// # Panics
///
/// Polling it panics if it needs the default runtime and that cannot be built: on a thread of no runtime.
///
/// # Cancel safety
///
/// Strict: dropping it loses nothing.
///
/// ```
/// use std::time::Duration;
/// use gmp::time::{Instant, sleep_until};
///
/// gmp::block_on(async {
///     let deadline = Instant::now() + Duration::from_millis(5);
///     sleep_until(deadline).await;
///     assert!(Instant::now() >= deadline);
/// });
/// ```
#[inline]
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, entry: Entry::new(false) }
}

/// The future of [`sleep`] and [`sleep_until`].
///
/// It belongs to the runtime that first polls it. After that runtime has been shut down it never ends; and since a
/// `block_on` of that runtime would then wait for ever, polling it there is a panic.
///
/// # Panics
///
/// Polling it panics as above, and on a thread of no runtime, if the default runtime is needed and cannot be built; it
/// may be polled again when it can.
///
/// # Examples
///
/// To poll it by reference, as in a loop that waits for one of several things, pin it:
///
/// ```
/// use std::pin::pin;
/// use std::time::Duration;
/// use gmp::time::{Instant, sleep};
///
/// gmp::block_on(async {
///     let mut idle = pin!(sleep(Duration::from_secs(3600)));
///     assert!(!idle.is_elapsed());
///     idle.as_mut().reset(Instant::now() + Duration::from_millis(1));
///     idle.as_mut().await;
///     assert!(idle.is_elapsed());
/// });
/// ```
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Sleep {
    deadline: Instant,
    /// If the clock was read when this was made and the deadline was ahead, the first poll need not read it again.
    entry: Entry,
}

impl Sleep {
    /// When it ends.
    ///
    /// ```
    /// use gmp::time::{Instant, sleep_until};
    ///
    /// let now = Instant::now();
    /// assert_eq!(sleep_until(now).deadline(), now);
    /// ```
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether it is over. That its deadline has passed is not enough: false until a poll or the runtime has seen it.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// assert!(!gmp::time::sleep(Duration::from_secs(1)).is_elapsed());
    /// ```
    #[must_use]
    pub fn is_elapsed(&self) -> bool {
        self.entry.is_fired()
    }

    /// Gives it another deadline, also when it is over.
    ///
    /// A task that waits for it is woken at the new deadline. If it was over, it must be polled again to be waited for.
    ///
    /// ```
    /// use std::pin::pin;
    /// use std::time::Duration;
    /// use gmp::time::{Instant, sleep};
    ///
    /// gmp::block_on(async {
    ///     let mut sleep = pin!(sleep(Duration::ZERO));
    ///     sleep.as_mut().await;
    ///     sleep.as_mut().reset(Instant::now() + Duration::from_millis(2));
    ///     sleep.await;
    /// });
    /// ```
    pub fn reset(self: Pin<&mut Self>, deadline: Instant) {
        let (own, entry) = self.project();
        *own = deadline;
        let deadline = deadline.to_deadline();
        if let Some(home) = entry.reset(deadline) {
            context::timer_is_earliest(home, deadline);
        }
    }

    /// A poll that does not look at the budget.
    #[inline]
    pub(super) fn poll_elapsed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (deadline, mut entry) = self.project();
        let deadline = deadline.to_deadline();
        if entry.is_idle() && context::now() >= deadline {
            entry.as_mut().elapse();
        }
        match entry.poll(context::timer_home, deadline, cx.waker()) {
            Look::Fired => Poll::Ready(()),
            Look::Waiting => Poll::Pending,
            Look::Shut => {
                // Elsewhere it is one of the things that never come; there the thread would wait for ever.
                assert!(!context::blocks_on_what_is_shut_down(), "{WAITS_IN_VAIN}");
                Poll::Pending
            }
            Look::Earliest(home) => {
                context::timer_is_earliest(home, deadline);
                Poll::Pending
            }
        }
    }

    fn project(self: Pin<&mut Self>) -> (&mut Instant, Pin<&mut Entry>) {
        // SAFETY: the entry is never moved out, and nothing else is pinned.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: it is pinned because the sleep is.
        (&mut this.deadline, unsafe { Pin::new_unchecked(&mut this.entry) })
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.as_mut().poll_elapsed(cx));
        ready!(budget::poll_charge(cx)).made_progress();
        Poll::Ready(())
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep")
            .field("deadline", &self.deadline)
            .field("is_elapsed", &self.is_elapsed())
            .finish_non_exhaustive()
    }
}
