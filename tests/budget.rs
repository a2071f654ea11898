//! The budget: a brake for tasks whose leaves are always ready, and never a gate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::channel::mpsc;
use futures::{FutureExt, SinkExt, StreamExt};
use gmp::runtime::{Builder, Runtime};
use gmp::task::coop::{consume_budget, has_budget_remaining, unconstrained};

use limit::limited;

#[path = "support/limit.rs"]
mod limit;

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
            while !ran.load(Ordering::SeqCst) {
                consume_budget().await;
                steps.fetch_add(1, Ordering::SeqCst);
            }
        });
        assert!(steps <= 128, "{steps} steps");
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
            assert!((1..=128).contains(&spent), "{spent} units");
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
