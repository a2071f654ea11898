//! Who polls the tasks of a set: several may, none of them for long, and none leaves the others asleep.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use futures::StreamExt;
use gmp::runtime::Builder;
use gmp::task::{LocalSet, coop, spawn_local, yield_now};

use crate::door::Door;
use crate::limit::limited;
use crate::{Count, runtime};

/// A task of the set polls its own set in a `block_on`, and waits there for a neighbour that it wakes from beside.
#[test]
fn r01_a_task_that_polls_its_own_set() {
    limited(|| {
        let set = Rc::new(LocalSet::new());
        let inner = set.clone();
        let door = Door::default();
        let waits = set.spawn_local(door.clone());
        let task = set.spawn_local(async move {
            gmp::block_on(async {
                // The neighbour waits by now, and nobody but the inner `block_on` can poll it.
                let open = async { door.open() };
                futures::join!(inner.run_until(waits), open).0.unwrap();
            });
        });
        gmp::block_on(set.run_until(task)).unwrap();
    });
}

/// It may also wait in a `block_on` that is not ours, and holds up whoever polls it.
#[test]
fn r01_a_task_that_polls_its_own_set_elsewhere() {
    limited(|| {
        let set = Rc::new(LocalSet::new());
        let inner = set.clone();
        let neighbour = set.spawn_local(async {
            yield_now().await;
            7
        });
        let task = set.spawn_local(async move { futures::executor::block_on(inner.run_until(neighbour)).unwrap() });
        assert_eq!(gmp::block_on(set.run_until(task)).unwrap(), 7);
    });
}

/// Tasks that poll their own set, or one the other's: each polls the next one inside its own poll, and thousands would
/// use up the stack.
#[test]
fn r18_tasks_that_poll_their_own_sets_nest_only_so_deep() {
    const TASKS: usize = 200;
    limited(|| {
        for sets in [1, 2] {
            let sets: Vec<_> = (0..sets).map(|_| Rc::new(LocalSet::new())).collect();
            let (first, last) = (sets[0].clone(), sets[sets.len() - 1].clone());
            let (depth, deepest) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let tasks: Vec<_> = (0..TASKS)
                .map(|n| {
                    let (own, other) = (sets[n % sets.len()].clone(), sets[(n + 1) % sets.len()].clone());
                    let (set, depth, deepest) = (own.clone(), depth.clone(), deepest.clone());
                    let mut polls = Box::pin(async move { other.run_until(own.run_until(yield_now())).await });
                    set.spawn_local(std::future::poll_fn(move |cx| {
                        depth.set(depth.get() + 1);
                        deepest.set(deepest.get().max(depth.get()));
                        let polled = polls.as_mut().poll(cx);
                        depth.set(depth.get() - 1);
                        polled
                    }))
                })
                .collect();
            gmp::block_on(first.run_until(last.run_until(async {
                for task in tasks {
                    task.await.unwrap();
                }
            })));
            assert!(deepest.get() <= 32, "{} polls inside of each other, in {} sets", deepest.get(), sets.len());
        }
    });
}

/// Two that wait for the set, each with a waker of its own: when one leaves, the other one still comes to the tasks.
#[test]
fn r01_each_host_of_a_set_is_woken() {
    limited(|| {
        let set = LocalSet::new();
        let (first, second) = (Door::default(), Door::default());
        gmp::block_on(async {
            let mut hosts = futures::stream::FuturesUnordered::new();
            for (n, door) in [(1, &first), (2, &second)] {
                let task = set.spawn_local(door.clone());
                hosts.push(set.run_until(async move {
                    task.await.unwrap();
                    n
                }));
            }
            let opener = {
                let (first, second) = (first.clone(), second.clone());
                thread::spawn(move || {
                    drop(second.waker_of(1));
                    second.open();
                    drop(first.waker_of(1));
                    first.open();
                })
            };
            let mut sum = 0;
            while let Some(n) = hosts.next().await {
                sum += n;
            }
            assert_eq!(sum, 3);
            opener.join().unwrap();
        });
    });
}

/// A host that was polled once and is not polled any more, with a waker that does nothing: the other one is woken too.
#[test]
fn r01_a_host_that_sleeps_on_takes_no_wakes_away() {
    limited(|| {
        for stale_first in [true, false] {
            let set = LocalSet::new();
            let door = Door::default();
            let waits = set.run_until(set.spawn_local(door.clone()));
            let mut stale = Box::pin(set.run_until(std::future::pending::<()>()));
            let mut poll_stale = || stale.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            gmp::block_on(async {
                let mut waits = std::pin::pin!(waits);
                if stale_first {
                    assert!(poll_stale().is_pending());
                }
                assert!(futures::poll!(&mut waits).is_pending());
                if !stale_first {
                    assert!(poll_stale().is_pending());
                }
                drop(door.waker_of(1));
                let opener = thread::spawn(move || door.open());
                waits.await.unwrap();
                opener.join().unwrap();
            });
        }
    });
}

/// One that waits for the set is done, and leaves a task behind that it woke itself: the other one comes for it.
#[test]
fn r01_a_host_that_leaves_wakes_the_others() {
    limited(|| {
        let set = LocalSet::new();
        let door = Door::default();
        let waits = set.spawn_local(door.clone());
        gmp::block_on(async {
            let mut hosts = futures::stream::FuturesUnordered::new();
            let (go, gone) = futures::channel::oneshot::channel::<()>();
            let first: Pin<Box<dyn Future<Output = ()>>> = Box::pin(set.run_until(async {
                gone.await.unwrap();
                // Into the queue of the set, in the last poll of this host.
                door.open();
            }));
            let second: Pin<Box<dyn Future<Output = ()>>> = Box::pin(set.run_until(async {
                waits.await.unwrap();
            }));
            hosts.push(first);
            hosts.push(second);
            // Both wait.
            assert!(futures::poll!(hosts.next()).is_pending());
            yield_now().await;
            assert!(futures::poll!(hosts.next()).is_pending());
            go.send(()).unwrap();
            while hosts.next().await.is_some() {}
        });
    });
}

/// One poll of the set polls a bounded number of its tasks, then says that it is not done.
#[test]
fn r04_a_poll_of_the_set_is_bounded() {
    const TASKS: usize = 500;
    let mut set = LocalSet::new();
    let polls = Rc::new(Cell::new(0));
    for _ in 0..TASKS {
        let polls = polls.clone();
        drop(set.spawn_local(async move {
            for _ in 0..3 {
                polls.set(polls.get() + 1);
                yield_now().await;
            }
        }));
    }
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut cx = Context::from_waker(&waker);
    let mut before = 0;
    let mut hosts = 0;
    while Pin::new(&mut set).poll(&mut cx).is_pending() {
        hosts += 1;
        assert!(polls.get() - before <= 61, "{} polls in one", polls.get() - before);
        before = polls.get();
        assert_eq!(count.0.swap(0, SeqCst), 1, "it has work left and says so once");
    }
    assert_eq!(polls.get(), 3 * TASKS);
    // Each task has one more, which ends it.
    assert!(hosts >= 4 * TASKS / 61, "{hosts}");
}

/// No task is polled when the slice is spent, and each poll of the set polls one at least.
#[test]
fn r04_tasks_share_the_slice() {
    limited(|| {
        let runtime = runtime(1);
        let mut set = LocalSet::new();
        let polls = Rc::new(Cell::new(0));
        for _ in 0..10 {
            let polls = polls.clone();
            let mut endless = Box::pin(async {
                loop {
                    coop::consume_budget().await;
                }
            });
            drop(set.spawn_local(std::future::poll_fn(move |cx| {
                polls.set(polls.get() + 1);
                endless.as_mut().poll(cx).map(|never: std::convert::Infallible| match never {})
            })));
        }
        let mut before = 0;
        let each = runtime.block_on(std::future::poll_fn(|cx| {
            assert!(Pin::new(&mut set).poll(cx).is_pending());
            // The first one spends what there is.
            assert_eq!(polls.get() - before, 1);
            before = polls.get();
            if before == 30 { Poll::Ready(before) } else { Poll::Pending }
        }));
        assert_eq!(each, 30);
    });
}

/// Nor does it hold what else waits for the processor up for long: a slow poll is the last one of its poll of the set.
#[test]
fn r04_slow_tasks_take_turns_with_the_processor() {
    limited(|| {
        const TASKS: usize = 20;
        let runtime = Builder::new().procs(1).rescue(None).build().unwrap();
        // Many of one poll each, or one of many polls.
        for (tasks, polls_each) in [(TASKS, 1), (1, TASKS)] {
            let polls = Rc::new(Cell::new(0));
            let set = LocalSet::new();
            for _ in 0..tasks {
                let polls = polls.clone();
                drop(set.spawn_local(async move {
                    for _ in 0..polls_each {
                        polls.set(polls.get() + 1);
                        thread::sleep(Duration::from_millis(2));
                        yield_now().await;
                    }
                }));
            }
            let polled = set.block_on(&runtime, async {
                gmp::spawn(async {}).await.unwrap();
                polls.get()
            });
            // Far fewer than all of them: each poll of the set ends after two of these at most.
            assert!(polled < TASKS / 2, "{polled} of {TASKS} went first");
        }
    });
}

/// Local tasks that yield for ever, beside tasks of the runtime on its one processor, timers, and the future beside
/// them.
#[test]
fn r04_yielding_tasks_let_others_run() {
    limited(|| {
        let runtime = runtime(1);
        let set = LocalSet::new();
        for _ in 0..100 {
            drop(set.spawn_local(async {
                loop {
                    yield_now().await;
                }
            }));
            drop(set.spawn_local(async {
                loop {
                    coop::consume_budget().await;
                }
            }));
        }
        set.block_on(&runtime, async {
            for n in 0..20 {
                let task = gmp::spawn(async move {
                    gmp::time::sleep(Duration::from_micros(100)).await;
                    n
                });
                assert_eq!(task.await.unwrap(), n);
                gmp::time::sleep(Duration::from_micros(100)).await;
            }
        });
    });
}

/// The future beside the tasks is always ready to go on, and spends each slice; they still come to their turn.
#[test]
fn r04_a_future_beside_that_is_always_ready_lets_the_tasks_run() {
    limited(|| {
        for procs in [1, 2] {
            let runtime = runtime(procs);
            let greedy = async || {
                let done = Rc::new(Cell::new(0));
                let tasks: Vec<_> = (0..200)
                    .map(|_| {
                        let done = done.clone();
                        spawn_local(async move {
                            for _ in 0..10 {
                                coop::consume_budget().await;
                            }
                            done.set(done.get() + 1);
                        })
                    })
                    .collect();
                while done.get() < 200 {
                    coop::consume_budget().await;
                }
                drop(tasks);
            };
            runtime.block_on(greedy());
            LocalSet::new().block_on(&runtime, greedy());
        }
    });
}
