//! `yield_now`: lets the others go first.

use std::pin::Pin;
use std::task::{Context, Poll};

/// Lets the tasks that are queued on this processor run before this one goes on (Go: `runtime.Gosched`).
///
/// # Cancel safety
///
/// Strict: dropping it loses nothing.
///
/// # Examples
///
/// ```
/// gmp::block_on(async {
///     gmp::task::yield_now().await;
/// });
/// ```
#[inline]
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

/// The future of [`yield_now`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
