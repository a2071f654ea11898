//! How the time of a deadlock is counted, by a clock of the test's own.

use std::sync::mpsc::channel;
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use super::DeadlockWatch;
use crate::context;
use crate::runtime::{Builder, Runtime};
use crate::sched::Sched;

const SECOND: u64 = 1_000_000_000;
const STEP: u64 = SECOND / 10;

fn sched_of(runtime: &Runtime) -> &'static Sched {
    let _entered = runtime.enter();
    context::current().runtime.expect("it was entered").sched
}

/// Waits until everything that a call brought is over.
fn await_quiet(sched: &'static Sched) {
    while sched.is_dead().is_none() {
        thread::yield_now();
    }
}

/// Calls `check` with a runtime in whose `block_on` a thread waits, and gives what that thread was told.
fn told(check: impl FnOnce(&Runtime, &'static Sched, &mut DeadlockWatch)) -> String {
    let day = Duration::from_secs(24 * 3600);
    let runtime = Builder::new().procs(1).detect_deadlocks(true).deadlock_after(day).build().unwrap();
    let sched = sched_of(&runtime);
    let (give, given) = channel::<Waker>();
    let handle = runtime.handle();
    let waits = thread::spawn(move || {
        handle.block_on(std::future::poll_fn(|cx| {
            give.send(cx.waker().clone()).unwrap();
            Poll::<()>::Pending
        }))
    });
    let _waker = given.recv().unwrap();
    await_quiet(sched);
    let mut watch = DeadlockWatch { after: Some(Duration::from_secs(1)), ..DeadlockWatch::new(sched) };
    check(&runtime, sched, &mut watch);
    *waits.join().unwrap_err().downcast::<String>().unwrap()
}

/// Looks a step apart from `from` on: how many there were when the time was over, at most `limit`.
fn steps(watch: &mut DeadlockWatch, sched: &'static Sched, from: u64, limit: u64) -> Option<u64> {
    (0..limit).find(|step| watch.look(sched, from + step * STEP).is_none())
}

#[test]
fn r24_a_second_without_work_is_a_deadlock_and_told_once() {
    let report = told(|_, sched, watch| {
        assert_eq!(steps(watch, sched, SECOND, 20), Some(10));
        assert_eq!(watch.reported, watch.last.map(|(dead, _)| dead));
    });
    assert!(report.starts_with("deadlock: nothing has run for 1s"), "{report}");
}

#[test]
fn r24_work_in_between_starts_the_second_anew() {
    told(|runtime, sched, watch| {
        assert_eq!(steps(watch, sched, SECOND, 9), None);
        runtime.block_on(runtime.spawn(async {})).unwrap();
        await_quiet(sched);
        // The look that sees the difference, and ten more.
        assert_eq!(steps(watch, sched, 2 * SECOND, 20), Some(10));
    });
}

/// The process was stopped, or had no CPU: whoever was to wake somebody had none either.
#[test]
fn r24_a_long_time_between_two_looks_counts_as_a_step() {
    told(|_, sched, watch| {
        assert_eq!(steps(watch, sched, SECOND, 3), None);
        // Two steps have passed.
        assert!(watch.look(sched, 1000 * SECOND).is_some());
        assert_eq!(steps(watch, sched, 1000 * SECOND + STEP, 20), Some(6));
    });
}

/// Steps of no time would never add up, and the watcher would not sleep between them.
#[test]
fn r05_the_watcher_sleeps_between_looks_for_deadlocks_however_short_the_time() {
    for after in [0, 1, 9, 1_000_000].map(Duration::from_nanos) {
        let runtime = Builder::new().procs(1).detect_deadlocks(true).deadlock_after(after).build().unwrap();
        let sched = sched_of(&runtime);
        let _entered = runtime.enter();
        let _task = runtime.spawn(std::future::pending::<()>());
        let mut watch = DeadlockWatch::new(sched);
        assert!(watch.look(sched, SECOND).is_some_and(|left| left >= Duration::from_millis(1)), "{after:?}");
    }
}
