//! Time that stands: `pause`, `advance`, `resume`.

use std::time::Duration;

use crate::clock::nanos;
use crate::runtime;
use crate::sched::Sched;
use crate::task::yield_now;

/// The runtime that the free functions mean.
#[track_caller]
fn sched() -> &'static Sched {
    match runtime::current() {
        Ok(runtime) => runtime.sched,
        Err(e) => panic!("there is no clock: {e}"),
    }
}

/// Stops the clock of the current runtime, so that tests of things that take time take none.
///
/// [`Instant::now`](super::Instant::now) stands still. When the runtime is idle, so that nothing can happen before the
/// next sleep or time limit is over, the clock jumps to that deadline at once. [`advance`] moves it by hand, [`resume`]
/// lets it go on. `#[gmp::test(start_paused = true)]` and `Builder::start_paused` begin with a clock that stands.
///
/// Idle means: no task is ready or runs, no [`spawn_blocking`](crate::runtime::spawn_blocking) closure is queued or
/// runs, no task is in [`block_in_place`](crate::runtime::block_in_place), and no socket that a task waits for is
/// ready. A task that waits for a socket that is not ready does not hold the clock, and neither does anything that
/// threads of your own do: beside those a paused clock may jump before they come to wake a task. What waits in
/// `block_on` does not hold it either, except inside `block_in_place`, where to wait for a sleep is to wait for ever;
/// `block_on` needs none around it. The same holds inside a closure of `spawn_blocking` that was running on a processor
/// when time was paused; none begins to run there while it is. And what waits in the `block_on` of another runtime
/// holds the clock, unless it waits for this one inside of that, on the same thread.
///
/// Each runtime has its clock; what is not a sleep, a time limit or an interval goes by the process's, such as
/// [`std::time::Instant`] and the runtime's own watcher. With more than one processor time stands for all of them.
///
/// # Panics
///
/// If the clock is paused already, or the current runtime is shut down.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use gmp::time::{Instant, pause, sleep};
///
/// let runtime = gmp::Builder::new().procs(2).build()?;
/// runtime.block_on(async {
///     pause();
///     let start = Instant::now();
///     sleep(Duration::from_secs(3600)).await;
///     assert_eq!(start.elapsed(), Duration::from_secs(3600));
/// });
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn pause() {
    assert!(sched().pause_clock(), "the clock is paused already, by `pause` or `start_paused`: call `resume` first");
}

/// Lets the clock of the current runtime go on from where it stands.
///
/// # Panics
///
/// If it is not paused, or the current runtime is shut down.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use gmp::time::{Instant, advance, pause, resume};
///
/// let runtime = gmp::Builder::new().procs(1).build()?;
/// runtime.block_on(async {
///     let start = Instant::now();
///     pause();
///     advance(Duration::from_secs(60)).await;
///     resume();
///     assert!(start.elapsed() >= Duration::from_secs(60));
/// });
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn resume() {
    assert!(sched().resume_clock(), "the clock is not paused: call `pause` first");
}

/// Moves the paused clock of the current runtime forward by `duration`, in one step, and lets the tasks go first whose
/// sleeps and time limits are over then.
///
/// The step is that of a machine that was suspended: each sleep whose deadline was passed ends once, late by as much,
/// and an [`Interval`](super::Interval) does what its [`MissedTickBehavior`](super::MissedTickBehavior) says. To see
/// every deadline at its time, sleep instead: an idle runtime with a paused clock goes from one to the next. The clock
/// goes no further than 146 years.
///
/// # Cancel safety
///
/// The clock moves at the first poll. To drop the future afterwards only leaves out that others go first.
///
/// # Panics
///
/// If the clock is not paused, or the current runtime is shut down.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use gmp::time::{Instant, advance, sleep};
///
/// let runtime = gmp::Builder::new().procs(1).start_paused(true).build()?;
/// runtime.block_on(async {
///     let start = Instant::now();
///     let woken = gmp::spawn(async move {
///         sleep(Duration::from_secs(5)).await;
///         start.elapsed()
///     });
///     gmp::task::yield_now().await;
///     advance(Duration::from_secs(7)).await;
///     assert_eq!(woken.await.unwrap(), Duration::from_secs(7));
/// });
/// # Ok::<(), std::io::Error>(())
/// ```
pub async fn advance(duration: Duration) {
    assert!(sched().advance_clock(nanos(duration)), "the clock is not paused: call `pause` first");
    yield_now().await;
}
