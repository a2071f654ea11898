//! The budget: a brake for tasks whose leaves are always ready, and never a gate.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::channel::mpsc;
use futures::future::BoxFuture;
use futures::{AsyncReadExt, FutureExt, SinkExt, StreamExt};
use gmp::runtime::{Builder, Runtime};
use gmp::task::coop::{consume_budget, has_budget_remaining, unconstrained};
use gmp::task::yield_now;

use limit::limited;
use pair::pair;

#[path = "support/limit.rs"]
mod limit;
#[path = "support/pair.rs"]
mod pair;

/// Operations in a slice.
const SLICE: usize = 128;

fn runtime(procs: usize) -> Runtime {
    Builder::new().procs(procs).build().unwrap()
}

/// Runs `of_the_task` beside a sibling on one processor; gives how many steps it took until the sibling ran.
fn steps_until_a_sibling_runs<F>(of_the_task: impl FnOnce(Arc<AtomicUsize>, Arc<AtomicBool>) -> F) -> usize
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = runtime(1);
    let (steps, ran) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (of_the_sibling, after) = (ran.clone(), steps.clone());
    let looping = of_the_task(steps, ran);
    let task = runtime.spawn(async move {
        let sibling = gmp::spawn(async move {
            of_the_sibling.store(true, Ordering::SeqCst);
            after.load(Ordering::SeqCst)
        });
        looping.await;
        sibling.await.unwrap()
    });
    runtime.block_on(task).unwrap()
}

#[test]
fn r04_a_task_that_is_always_ready_yields_within_a_slice() {
    limited(|| {
        let steps = steps_until_a_sibling_runs(|steps, ran| async move {
            let of_a_poll = steps.clone();
            let mut looping = pin!(async move {
                while !ran.load(Ordering::SeqCst) {
                    consume_budget().await;
                    steps.fetch_add(1, Ordering::SeqCst);
                }
            });
            poll_fn(|cx| {
                let before = of_a_poll.load(Ordering::SeqCst);
                let polled = looping.as_mut().poll(cx);
                let steps = of_a_poll.load(Ordering::SeqCst) - before;
                assert!(steps <= SLICE, "{steps} steps in one poll");
                polled
            })
            .await;
        });
        // With its slice the task leaves the local queue for the global one. That is served before the local queue if
        // a look comes just then, as it does when the thread was preempted; not twice in a row.
        assert!(steps <= 2 * SLICE, "{steps} steps");
    });
}

#[test]
fn r04_an_unconstrained_task_does_not_yield() {
    limited(|| {
        let steps = steps_until_a_sibling_runs(|steps, _| {
            unconstrained(async move {
                for _ in 0..10_000 {
                    consume_budget().await;
                    assert!(has_budget_remaining());
                    steps.fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        assert_eq!(steps, 10_000);
    });
}

#[test]
fn r04_what_is_left_of_the_budget_is_told() {
    limited(|| {
        assert!(has_budget_remaining(), "a thread of no runtime has no budget to spend");
        let runtime = runtime(1);
        let task = runtime.spawn(async {
            let mut spent = 0;
            while has_budget_remaining() {
                consume_budget().await;
                spent += 1;
            }
            assert!((1..=SLICE).contains(&spent), "{spent} units");
            assert!(unconstrained(async { has_budget_remaining() }).await);
            // Refused once, then on a new slice.
            consume_budget().await;
            has_budget_remaining()
        });
        assert!(runtime.block_on(task).unwrap());
    });
}

/// A foreign `block_on` polls in a loop inside one poll of the task: refusing for ever would be a hang.
#[test]
fn r04_a_foreign_block_on_inside_a_task_is_not_refused_for_ever() {
    // With the budget spent by operations, and with the flag that the watcher sets when a slice lasts too long.
    receive_in_a_foreign_block_on(|| {
        consume_budget().now_or_never();
    });
    receive_in_a_foreign_block_on(std::hint::spin_loop);
}

fn receive_in_a_foreign_block_on(spend: fn()) {
    const MESSAGES: usize = 1000;
    limited(|| {
        // The sender needs a processor of its own: a foreign `block_on` keeps its task's.
        let runtime = runtime(2);
        let task = runtime.spawn(async move {
            while has_budget_remaining() {
                spend();
            }
            let (mut sender, mut receiver) = mpsc::channel(1);
            let sending = gmp::spawn(async move {
                for n in 0..MESSAGES {
                    sender.send(n).await.unwrap();
                }
            });
            futures::executor::block_on(async move {
                let mut sum = 0;
                for _ in 0..MESSAGES {
                    consume_budget().await;
                    sum += receiver.next().await.unwrap();
                }
                sending.await.unwrap();
                sum
            })
        });
        assert_eq!(runtime.block_on(task).unwrap(), MESSAGES * (MESSAGES - 1) / 2);
    });
}

/// Spends the slice of the running task.
fn spend() {
    while has_budget_remaining() {
        consume_budget().now_or_never();
    }
}

#[test]
fn r04_in_one_poll_the_leaves_refuse_sixty_four_times() {
    limited(|| {
        let runtime = runtime(1);
        let task = runtime.spawn(async {
            // Twice: the count is one of a poll.
            for _ in 0..2 {
                spend();
                // A brake, not a gate. `spend` was refused once if it was the watcher that ended the slice.
                let (refused, then_let_through) = refusals();
                assert!((63..=64).contains(&refused) && then_let_through, "{refused}");
                gmp::task::yield_now().await;
            }
        });
        runtime.block_on(task).unwrap();
    });
}

#[test]
fn r04_nothing_is_refused_where_there_is_no_slice_to_spend() {
    limited(|| {
        let runtime = runtime(1);
        let task = runtime.spawn(async {
            spend();
            assert!(consume_budget().now_or_never().is_none());
            let is_free = || has_budget_remaining() && (0..1000).all(|_| consume_budget().now_or_never().is_some());
            assert!(gmp::task::block_in_place(is_free));
            assert!(gmp::task::block_in_place(|| gmp::task::block_in_place(is_free)));
            assert!(unconstrained(async { is_free() }).await, "unconstrained");
            assert!(gmp::block_on(async { is_free() }), "a nested `block_on`");
            assert!(std::thread::spawn(is_free).join().unwrap(), "a plain thread");
            // Back in the poll it is as before, unless the processor was taken meanwhile: it comes back with a new
            // slice.
            loop {
                spend();
                let slices = || gmp::Handle::current().metrics().schedticks;
                let before = slices();
                let panics =
                    std::panic::catch_unwind(|| gmp::task::block_in_place(|| std::panic::resume_unwind(Box::new(0))));
                assert!(panics.is_err());
                let is_spent = !has_budget_remaining() && consume_budget().now_or_never().is_none();
                if slices() == before {
                    break assert!(is_spent);
                }
            }
        });
        runtime.block_on(task).unwrap();
    });
}

/// The name of a leaf whose pending polls leave nothing of the slice.
fn spends(leaf: &'static str, is_ready: &mut dyn FnMut() -> bool) -> Option<&'static str> {
    let is_kept = (0..1000).all(|_| !is_ready()) && has_budget_remaining();
    (!is_kept).then_some(leaf)
}

/// How often `consume_budget` is refused in a row, and whether it is let through from then on.
fn refusals() -> (usize, bool) {
    let is_ready = || consume_budget().now_or_never().is_some();
    let refused = std::iter::from_fn(|| (!is_ready()).then_some(())).count();
    (refused, (0..1000).all(|_| is_ready()))
}

/// More limits around a task's handle than there are units in a slice.
#[test]
fn r04_limits_around_a_future_leave_it_the_budget() {
    fn nested(depth: usize) -> BoxFuture<'static, ()> {
        if depth == 0 {
            return gmp::spawn(yield_now()).map(Result::unwrap).boxed();
        }
        gmp::time::timeout(Duration::from_secs(3600), nested(depth - 1)).map(Result::unwrap).boxed()
    }
    limited(|| {
        let runtime = runtime(1);
        runtime.block_on(async { nested(2 * SLICE).await });
        runtime.block_on(runtime.spawn(async { nested(2 * SLICE).await })).unwrap();
    });
}

/// Of 1000 polls that are pending none spends anything, or the 128 units would be gone. The watcher may end a slice of
/// a thread that was preempted: then it is tried again.
#[test]
fn r04_a_pending_operation_gives_its_unit_back() {
    limited(|| {
        let runtime = runtime(2);
        let task = runtime.spawn(async {
            let (mut stream, _plain) = pair().await;
            let mut never = gmp::spawn(std::future::pending::<()>());
            let mut limited = pin!(gmp::time::timeout(Duration::from_secs(3600), std::future::pending::<()>()));
            let mut sleep = pin!(gmp::time::sleep(Duration::from_secs(3600)));
            for attempt in 0.. {
                let spent: Vec<_> = [
                    spends("join", &mut || (&mut never).now_or_never().is_some()),
                    spends("timeout", &mut || limited.as_mut().now_or_never().is_some()),
                    spends("sleep", &mut || sleep.as_mut().now_or_never().is_some()),
                    spends("socket", &mut || stream.read(&mut [0]).now_or_never().is_some()),
                ]
                .into_iter()
                .flatten()
                .collect();
                if spent.is_empty() {
                    break;
                }
                assert!(attempt < 100, "{spent:?} spent units");
                gmp::task::yield_now().await;
            }
            never.abort();
        });
        runtime.block_on(task).unwrap();
    });
}

#[test]
fn r04_joins_timers_and_sockets_take_from_the_slice() {
    const READY: usize = 400;
    limited(|| {
        let runtime = runtime(2);
        let task = runtime.spawn(async {
            let (stream, mut plain) = pair().await;
            std::io::Write::write_all(&mut plain, b"x").unwrap();
            stream.readable().await.unwrap();
            let joins: Vec<_> = (0..READY).map(|_| gmp::spawn(async {})).collect();
            let mut timers: Vec<_> = (0..READY).map(|_| Box::pin(gmp::time::sleep(Duration::ZERO))).collect();
            while !joins.iter().all(gmp::task::JoinHandle::is_finished) {
                gmp::task::yield_now().await;
            }
            let mut joins = joins.into_iter();
            let taken = [
                ("join", (0..READY).map_while(|_| joins.next().unwrap().now_or_never()).count()),
                ("timer", {
                    gmp::task::yield_now().await;
                    timers.iter_mut().map_while(|timer| timer.as_mut().now_or_never()).count()
                }),
                ("socket", {
                    gmp::task::yield_now().await;
                    (0..READY).map_while(|_| stream.readable().now_or_never()).count()
                }),
            ];
            for (leaf, taken) in taken {
                assert!(taken <= SLICE, "{taken} at {leaf}");
            }
        });
        runtime.block_on(task).unwrap();
    });
}

/// What goes first when a task makes way: Go's order, with what is queued in front.
#[test]
fn r04_a_yield_lets_those_that_are_queued_go_first() {
    limited(|| {
        let runtime = runtime(1);
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let task = runtime.spawn({
            let order = order.clone();
            async move {
                let push = |n: usize| order.lock().unwrap().push(n);
                let others: Vec<_> = (0..3)
                    .map(|n| {
                        let order = order.clone();
                        gmp::spawn(async move { order.lock().unwrap().push(n) })
                    })
                    .collect();
                gmp::task::yield_now().await;
                push(10);
                gmp::task::yield_now().await;
                push(11);
                for other in others {
                    other.await.unwrap();
                }
            }
        });
        runtime.block_on(task).unwrap();
        assert_eq!(*order.lock().unwrap(), [2, 0, 1, 10, 11]);
    });
}
