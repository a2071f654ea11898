//! What hyper asks of a runtime: an executor and a timer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use gmp_executor::time::{self, sleep_until};
use hyper::rt::{Executor, Sleep, Timer};

/// Runs hyper's futures as tasks of the current runtime.
///
/// # Examples
///
/// ```no_run
/// use gmp::rt::GmpExecutor;
/// use hyper::server::conn::http2;
///
/// let builder = http2::Builder::new(GmpExecutor);
/// # let _ = builder;
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct GmpExecutor;

impl<F> Executor<F> for GmpExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(gmp_executor::runtime::spawn(future));
    }
}

/// Gives hyper the time: header timeouts, keep-alive.
///
/// # Examples
///
/// ```no_run
/// use gmp::rt::GmpTimer;
/// use hyper::server::conn::http1;
///
/// let mut builder = http1::Builder::new();
/// builder.timer(GmpTimer);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct GmpTimer;

/// A sleep that hyper can hold and reset.
struct GmpSleep(time::Sleep);

impl GmpSleep {
    fn project(self: Pin<&mut Self>) -> Pin<&mut time::Sleep> {
        // SAFETY: the sleep is pinned with `self` and never moved out of it.
        unsafe { self.map_unchecked_mut(|s| &mut s.0) }
    }
}

impl Future for GmpSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().poll(cx)
    }
}

impl Sleep for GmpSleep {}

impl Timer for GmpTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(GmpSleep(time::sleep(duration)))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(GmpSleep(sleep_until(deadline.into())))
    }

    fn now(&self) -> Instant {
        time::Instant::now().into_std()
    }

    /// Moves the deadline of a sleep that this timer made; nothing is allocated.
    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<GmpSleep>() {
            Some(sleep) => sleep.project().reset(deadline.into()),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}
