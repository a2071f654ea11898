//! Sleeps and timeouts as a user sees them.

use std::future::{Future, pending, poll_fn, ready};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use super::{Instant, Sleep, Timeout, sleep, sleep_until, timeout, timeout_at};
use crate::budget;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn r23_a_sleep_is_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<Sleep>();
    check::<Timeout<Sleep>>();
}

#[test]
fn r07_a_sleep_is_never_early() {
    block_on(async {
        for micros in 0..200 {
            let duration = Duration::from_micros(micros);
            let (std, start) = (std::time::Instant::now(), Instant::now());
            sleep(duration).await;
            assert!(std.elapsed() >= duration && start.elapsed() >= duration);
            let deadline = Instant::now() + duration;
            sleep_until(deadline).await;
            assert!(Instant::now() >= deadline && std::time::Instant::now() >= deadline.into_std());
        }
    });
}

#[test]
fn r07_no_time_and_the_past_are_over_at_once() {
    assert!(poll_once(pin!(sleep(Duration::ZERO))).is_ready());
    assert!(poll_once(pin!(sleep_until(Instant::now()))).is_ready());
    let mut past = pin!(sleep_until(Instant::now() - Duration::from_secs(3600)));
    assert!(!past.is_elapsed(), "nobody has looked");
    assert!(poll_once(past.as_mut()).is_ready());
    assert!(past.is_elapsed());
    assert!(poll_once(past).is_ready(), "it stays over");
}

#[test]
fn r07_a_sleep_moves() {
    block_on(async {
        let mut sleep = pin!(sleep(Duration::from_secs(3600)));
        assert!(poll_once(sleep.as_mut()).is_pending());
        // To the past while it waits.
        sleep.as_mut().reset(Instant::now() - Duration::from_secs(1));
        sleep.as_mut().await;
        assert!(sleep.is_elapsed());
        // To the future after it is over.
        let deadline = Instant::now() + Duration::from_millis(2);
        sleep.as_mut().reset(deadline);
        assert!(!sleep.is_elapsed());
        assert_eq!(sleep.deadline(), deadline);
        sleep.as_mut().await;
        assert!(Instant::now() >= deadline);
        // Before it is ever polled.
        let mut fresh = pin!(super::sleep(Duration::from_secs(3600)));
        fresh.as_mut().reset(Instant::now());
        assert!(poll_once(fresh).is_ready());
    });
}

#[test]
fn r07_the_task_is_woken_at_the_new_deadline_without_another_poll() {
    let mut sleep = pin!(sleep(Duration::from_secs(3600)));
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    sleep.as_mut().reset(Instant::now() + Duration::from_millis(1));
    while !sleep.is_elapsed() {
        std::thread::park();
    }
}

#[test]
fn r07_no_duration_is_too_long() {
    let now = Instant::now();
    let never = now + Duration::MAX;
    for far in
        [never, now + Duration::from_secs(u64::MAX / 2), now + Duration::from_nanos(u64::MAX), never + Duration::MAX]
    {
        assert_eq!(far, never);
        let mut sleep = pin!(sleep_until(far));
        assert!(poll_once(sleep.as_mut()).is_pending());
        sleep.as_mut().reset(now);
        block_on(sleep);
    }
    let mut limited = pin!(timeout(Duration::MAX, pending::<()>()));
    assert!(poll_once(limited.as_mut()).is_pending());
    assert!(poll_once(pin!(sleep(Duration::MAX))).is_pending());
    // 100 years fit.
    let century = Duration::from_secs(100 * 365 * 24 * 3600);
    assert_eq!((now + century) - now, century);
    assert_eq!((now - century) + century, now);
    assert_eq!((now - century) + 3 * century, now + 2 * century);
    // The other end.
    let past = now - Duration::MAX;
    assert_eq!(past - Duration::from_secs(1), past);
    assert_eq!(past - never, Duration::ZERO);
    assert_eq!(never - past, Duration::from_nanos(u64::MAX));
    assert!(poll_once(pin!(sleep_until(past))).is_ready());
    assert_eq!(now.checked_sub(Duration::MAX), None);
    assert_eq!(now.checked_add(Duration::MAX), None);
}

#[test]
fn r07_instants_convert_both_ways() {
    let hour = Duration::from_secs(3600);
    let (std, now) = (std::time::Instant::now(), Instant::now());
    assert_eq!(Instant::from(std).into_std(), std);
    assert_eq!(Instant::from(std + hour), Instant::from(std) + hour);
    assert_eq!(std::time::Instant::from(now - hour), now.into_std() - hour);
    assert_eq!(Instant::from(now.into_std()), now);
    assert!(now + Duration::MAX > Instant::from((now + hour).into_std()));
    // Neither direction panics at the ends.
    let (first, last) = ((now - Duration::MAX).into_std(), (now + Duration::MAX).into_std());
    assert!(first < std && std < last);
}

#[test]
fn r07_a_future_that_is_ready_when_the_time_is_over_gives_its_value() {
    assert_eq!(poll_once(pin!(timeout(Duration::ZERO, ready(7)))), Poll::Ready(Ok(7)));
    assert_eq!(poll_once(pin!(timeout_at(Instant::now(), async { 7 }))), Poll::Ready(Ok(7)));
    let deadline = Instant::now() + Duration::from_millis(1);
    let both = block_on(timeout_at(
        deadline,
        poll_fn(|_| if Instant::now() < deadline { Poll::Pending } else { Poll::Ready(7) }),
    ));
    assert_eq!(both, Ok(7));
}

#[test]
fn r07_a_timeout_ends_and_is_an_io_error() {
    let error = block_on(timeout(Duration::from_millis(1), pending::<()>())).unwrap_err();
    assert_eq!(error.to_string(), "deadline has elapsed");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::TimedOut);
    assert!(poll_once(pin!(timeout(Duration::ZERO, pending::<()>()))).is_ready());
}

#[test]
fn r04_a_future_that_spends_the_budget_does_not_hide_its_timeout() {
    let greedy = poll_fn(|cx: &mut Context<'_>| {
        for _ in 0..1_000 {
            match budget::poll_charge(cx) {
                Poll::Ready(charge) => charge.made_progress(),
                Poll::Pending => return Poll::<()>::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    assert!(block_on(timeout(Duration::from_millis(1), greedy)).is_err());
}

#[test]
fn r18_sleeps_that_are_dropped_on_other_threads() {
    std::thread::scope(|scope| {
        for _ in 0..50 {
            let mut sleep = Box::pin(sleep(Duration::from_micros(200)));
            assert!(poll_once(sleep.as_mut()).is_pending());
            scope.spawn(move || drop(sleep));
        }
    });
}

#[test]
fn r18_a_sleep_is_forty_bytes() {
    assert_eq!(size_of::<super::Sleep>(), 40);
}
