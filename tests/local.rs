//! Local tasks: their futures stay on one thread, whoever wakes, aborts and forgets them.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use gmp::runtime::{Builder, Runtime};
use gmp::task::{JoinHandle, LocalSet, coop, spawn_local, yield_now};

use door::Door;
use drops::Drops;
use limit::limited;

#[path = "support/door.rs"]
mod door;
#[path = "support/drops.rs"]
mod drops;
#[path = "support/limit.rs"]
mod limit;

fn runtime(procs: usize) -> Runtime {
    Builder::new().procs(procs).build().unwrap()
}

/// Not `Send`; says where it is dropped.
struct Bound(Rc<Cell<usize>>, ThreadId, #[expect(dead_code, reason = "counts its drop")] drops::Guard);

impl Bound {
    fn new(drops: &Drops) -> Bound {
        Bound(Rc::default(), thread::current().id(), drops.guard())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
        if thread::current().id() != self.1 {
            eprintln!("a local future was dropped on another thread");
            std::process::abort();
        }
    }
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    panic.downcast_ref::<String>().cloned().unwrap_or_else(|| panic.downcast_ref::<&str>().unwrap().to_string())
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn r02_tasks_of_a_set_share_its_thread() {
    limited(|| {
        let runtime = runtime(2);
        let set = LocalSet::new();
        let sum = Rc::new(Cell::new(0));
        let add = |n| {
            let (sum, here) = (sum.clone(), thread::current().id());
            async move {
                for _ in 0..10 {
                    yield_now().await;
                    assert_eq!(thread::current().id(), here);
                    sum.set(sum.get() + n);
                }
                sum
            }
        };
        let before = set.spawn_local(add(1));
        assert_eq!(sum.get(), 0, "nothing runs before the set is polled");
        let output = set.block_on(&runtime, async {
            let inside = spawn_local(add(100));
            let nested = spawn_local(async move { spawn_local(async { 7 }).await.unwrap() });
            assert_eq!(nested.await.unwrap(), 7);
            // Neither future nor output is `Send`.
            inside.await.unwrap()
        });
        runtime.block_on(set.run_until(before)).unwrap();
        assert_eq!(output.get(), 1010);
        // All futures are gone, with what they held.
        drop(set);
        drop(output);
        assert_eq!(Rc::strong_count(&sum), 1);
    });
}

#[test]
fn r02_the_set_is_ready_when_no_task_is_left() {
    limited(|| {
        let mut set = LocalSet::new();
        let done = Rc::new(Cell::new(0));
        for _ in 0..200 {
            let done = done.clone();
            drop(set.spawn_local(async move {
                gmp::time::sleep(Duration::from_micros(100)).await;
                let inner = done.clone();
                drop(spawn_local(async move { inner.set(inner.get() + 1) }));
                done.set(done.get() + 1);
            }));
        }
        gmp::block_on(&mut set);
        assert_eq!(done.get(), 400);
        // Empty: at once; and it can be used again.
        gmp::block_on(&mut set);
        let again = set.spawn_local(async { 7 });
        gmp::block_on(&mut set);
        assert!(again.is_finished());
        assert_eq!(gmp::block_on(again).unwrap(), 7);
    });
}

#[test]
fn r01_wakes_from_threads_and_from_another_runtime() {
    const ROUNDS: usize = 300;
    limited(|| {
        let (here, other) = (runtime(1), runtime(2));
        let drops = Drops::default();
        for round in 0..ROUNDS {
            let doors = [Door::default(), Door::default(), Door::default()];
            here.block_on(async {
                let tasks: Vec<_> = doors
                    .iter()
                    .map(|door| {
                        let (bound, door) = (Bound::new(&drops), door.clone());
                        spawn_local(async move {
                            door.await;
                            drop(bound);
                        })
                    })
                    .collect();
                let opens = doors.clone();
                let thread = thread::spawn(move || {
                    if round % 2 == 0 {
                        // Only when it waits, so that this wake is the one that counts.
                        drop(opens[0].waker_of(1));
                    }
                    opens[0].open();
                });
                let opens = doors.clone();
                drop(other.spawn(async move {
                    opens[1].open();
                    yield_now().await;
                    opens[2].open();
                }));
                for task in tasks {
                    task.await.unwrap();
                }
                thread.join().unwrap();
            });
        }
        assert_eq!(drops.count(), 3 * ROUNDS);
    });
}

/// The last waker of a detached task is dropped elsewhere: before the task's end, after it, and after its set is gone.
#[test]
fn r13_wakers_and_handles_outlive_their_set() {
    limited(|| {
        let drops = Drops::default();
        let (send, receive) = channel::<Waker>();
        let (dropped, is_dropped) = channel();
        let elsewhere = thread::spawn(move || {
            for waker in receive {
                waker.wake_by_ref();
                drop(waker.clone());
                drop(waker);
                dropped.send(()).unwrap();
            }
        });
        let waits = |send: &std::sync::mpsc::Sender<Waker>| {
            let (bound, send, mut polled) = (Bound::new(&drops), send.clone(), false);
            std::future::poll_fn(move |cx| {
                let _ = &bound;
                if !std::mem::replace(&mut polled, true) {
                    send.send(cx.waker().clone()).unwrap();
                }
                Poll::<()>::Pending
            })
        };
        let mut kept = Vec::new();
        let (keep, keeps) = channel();
        {
            let set = LocalSet::new();
            for _ in 0..50 {
                drop(set.spawn_local(waits(&send)));
                drop(set.spawn_local(waits(&keep)));
            }
            gmp::block_on(set.run_until(async {
                for _ in 0..100 {
                    yield_now().await;
                }
            }));
            kept.extend(keeps.try_iter());
            assert_eq!(kept.len(), 50);
            for _ in 0..50 {
                is_dropped.recv().unwrap();
            }
            assert_eq!(drops.count(), 0, "a future went with a waker");
        }
        assert_eq!(drops.count(), 100);
        // The set is gone, and others have its memory.
        let others: Vec<_> = (0..4)
            .map(|_| {
                let set = LocalSet::new();
                let task = set.spawn_local(yield_now());
                (set, task)
            })
            .collect();
        for waker in kept {
            send.send(waker).unwrap();
            is_dropped.recv().unwrap();
        }
        for (set, task) in others {
            gmp::block_on(set.run_until(task)).unwrap();
        }
        drop(send);
        drop(keep);
        elsewhere.join().unwrap();
    });
}

#[test]
fn r14_a_set_that_is_dropped_drops_its_tasks_here() {
    limited(|| {
        let drops = Drops::default();
        let set = LocalSet::new();
        let refused = Rc::new(RefCell::new(Vec::<JoinHandle<()>>::new()));
        /// Spawns when it is dropped.
        struct Spawns(Rc<RefCell<Vec<JoinHandle<()>>>>, Bound);
        impl Drop for Spawns {
            fn drop(&mut self) {
                let bound = Rc::downgrade(&self.1.0);
                self.0.borrow_mut().push(spawn_local(async move { drop(bound) }));
            }
        }
        let waits: Vec<_> = (0..3)
            .map(|_| {
                let spawns = Spawns(refused.clone(), Bound::new(&drops));
                set.spawn_local(async move {
                    let _spawns = spawns;
                    std::future::pending::<()>().await;
                })
            })
            .collect();
        gmp::block_on(set.run_until(yield_now()));
        // Never polled.
        let bound = Bound::new(&drops);
        let fresh = set.spawn_local(async move { drop(bound) });
        drop(set);
        assert_eq!(drops.count(), 4);
        assert_eq!(refused.borrow().len(), 3);
        for handle in waits.into_iter().chain(refused.take()).chain([fresh]) {
            assert!(handle.is_finished());
            let error = gmp::block_on(handle).unwrap_err();
            assert!(error.is_cancelled());
            assert!(error.to_string().contains("the set or `block_on` that ran it is gone"), "{error}");
        }
    });
}

/// Another thread wakes the tasks all the time: their runnables may just be on their way home.
#[test]
fn r14_a_set_is_dropped_beside_wakes() {
    const ROUNDS: usize = 300;
    limited(|| {
        let drops = Drops::default();
        let wakers = Arc::new(Mutex::new(Vec::<Waker>::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let waking = {
            let (wakers, stop) = (wakers.clone(), stop.clone());
            thread::spawn(move || {
                while !stop.load(SeqCst) {
                    wakers.lock().unwrap().iter().for_each(Waker::wake_by_ref);
                }
            })
        };
        for _ in 0..ROUNDS {
            let set = LocalSet::new();
            for _ in 0..4 {
                let (bound, wakers) = (Bound::new(&drops), wakers.clone());
                let mut is_known = false;
                drop(set.spawn_local(std::future::poll_fn(move |cx| {
                    let _ = &bound;
                    if !std::mem::replace(&mut is_known, true) {
                        wakers.lock().unwrap().push(cx.waker().clone());
                    }
                    Poll::<()>::Pending
                })));
            }
            gmp::block_on(set.run_until(yield_now()));
            drop(set);
            wakers.lock().unwrap().clear();
        }
        stop.store(true, SeqCst);
        waking.join().unwrap();
        assert_eq!(drops.count(), 4 * ROUNDS);
    });
}

#[test]
fn r12_a_panic_ends_one_local_task() {
    limited(|| {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("in a destructor");
            }
        }
        let set = LocalSet::new();
        gmp::block_on(set.run_until(async {
            let polls = spawn_local(async { panic!("in a poll") });
            let drops = spawn_local(async {
                let _bomb = Bomb;
                yield_now().await;
            });
            let aborted = spawn_local(async {
                let _bomb = Bomb;
                std::future::pending::<()>().await;
            });
            let lives = spawn_local(async {
                for _ in 0..5 {
                    yield_now().await;
                }
                7
            });
            assert_eq!(text(&*polls.await.unwrap_err().into_panic()), "in a poll");
            assert_eq!(text(&*drops.await.unwrap_err().into_panic()), "in a destructor");
            aborted.abort();
            assert_eq!(text(&*aborted.await.unwrap_err().into_panic()), "in a destructor");
            assert_eq!(lives.await.unwrap(), 7);
        }));
        // And at the end of the set.
        let last = set.spawn_local(async {
            let _bomb = Bomb;
            std::future::pending::<()>().await;
        });
        gmp::block_on(set.run_until(yield_now()));
        drop(set);
        assert!(gmp::block_on(last).unwrap_err().is_cancelled());
    });
}

#[test]
fn r12_a_panic_of_the_future_beside_leaves_the_set_usable() {
    limited(|| {
        let set = LocalSet::new();
        let task = set.spawn_local(async {
            yield_now().await;
            7
        });
        let panics = catch_unwind(AssertUnwindSafe(|| gmp::block_on(set.run_until(async { panic!("beside") }))));
        assert_eq!(text(&*panics.unwrap_err()), "beside");
        assert!(catch_unwind(|| spawn_local(async {})).is_err(), "the set was left");
        assert_eq!(gmp::block_on(set.run_until(task)).unwrap(), 7);
    });
}

#[test]
fn r15_aborts_come_from_other_threads() {
    limited(|| {
        let drops = Drops::default();
        gmp::block_on(async {
            let handles: Vec<JoinHandle<()>> = (0..3)
                .map(|_| {
                    let bound = Bound::new(&drops);
                    spawn_local(async move {
                        let _bound = bound;
                        std::future::pending::<()>().await;
                    })
                })
                .collect();
            yield_now().await;
            let aborts: Vec<_> = handles.iter().map(JoinHandle::abort_handle).collect();
            // One by its abort handle, all by the handles themselves, which are `Send` as their output is.
            let handles = thread::spawn(move || {
                aborts[0].abort();
                handles.iter().for_each(JoinHandle::abort);
                (handles, aborts)
            });
            let (handles, aborts) = handles.join().unwrap();
            for handle in handles {
                assert!(handle.await.unwrap_err().is_cancelled());
            }
            assert_eq!(drops.count(), 3);
            thread::spawn(move || {
                for abort in aborts {
                    assert!(abort.is_finished());
                    abort.abort();
                }
            })
            .join()
            .unwrap();
        });
    });
}

#[test]
fn r15_a_task_that_was_never_polled_is_aborted() {
    limited(|| {
        let drops = Drops::default();
        let set = LocalSet::new();
        let bound = Bound::new(&drops);
        let task = set.spawn_local(async move { drop(bound) });
        task.abort();
        assert_eq!(drops.count(), 0);
        assert!(gmp::block_on(set.run_until(task)).unwrap_err().is_cancelled());
        assert_eq!(drops.count(), 1);
        // A handle of a set that is gone.
        let late = set.spawn_local(async {}).abort_handle();
        drop(set);
        assert!(late.is_finished());
        late.abort();
    });
}

#[test]
fn r02_a_dropped_handle_detaches() {
    limited(|| {
        let done = Rc::new(Cell::new(false));
        let set = LocalSet::new();
        let seen = done.clone();
        drop(set.spawn_local(async move {
            yield_now().await;
            seen.set(true);
            // Nobody takes it.
            Bound::new(&Drops::default())
        }));
        gmp::block_on(set);
        assert!(done.get());
    });
}

/// The output is `Send`: the handle may be awaited anywhere.
#[test]
fn r02_a_handle_is_awaited_on_another_runtime() {
    limited(|| {
        let (here, there) = (runtime(1), runtime(1));
        here.block_on(async {
            let own = Rc::new(6);
            let task = spawn_local(async move {
                yield_now().await;
                *own * 7
            });
            let output = there.spawn(task).await.unwrap();
            assert_eq!(output.unwrap(), 42);
        });
    });
}

#[test]
fn r24_outside_of_a_set_it_names_the_mend() {
    limited(|| {
        let drops = Drops::default();
        let guard = drops.guard();
        let panic = catch_unwind(AssertUnwindSafe(|| drop(spawn_local(async move { drop(guard) }))));
        let refused = text(&*panic.unwrap_err());
        for mend in ["LocalSet::run_until", "block_on", "spawn_pinned", "#[gmp::main(local)]"] {
            assert!(refused.contains(mend), "{refused}");
        }
        assert_eq!(drops.count(), 1);
        let runtime = runtime(2);
        let in_a_task = runtime.spawn(async { catch_unwind(|| drop(spawn_local(async {}))).is_err() });
        let in_a_closure = runtime.spawn_blocking(|| catch_unwind(|| drop(spawn_local(async {}))).is_err());
        assert!(runtime.block_on(in_a_task).unwrap());
        assert!(runtime.block_on(in_a_closure).unwrap());
    });
}

#[test]
fn r02_in_block_on_without_a_set() {
    limited(|| {
        let drops = Drops::default();
        let runtime = runtime(1);
        let [left] = runtime.block_on(async {
            let own = Rc::new(40);
            let task = spawn_local(async move { *own + spawn_local(async { 2 }).await.unwrap() });
            assert_eq!(task.await.unwrap(), 42);
            let bound = Bound::new(&drops);
            let left = spawn_local(async move {
                let _bound = bound;
                std::future::pending::<()>().await;
            });
            [left]
        });
        // It went with the `block_on`.
        assert_eq!(drops.count(), 1);
        assert!(runtime.block_on(left).unwrap_err().is_cancelled());
        assert!(catch_unwind(|| drop(spawn_local(async {}))).is_err());
    });
}

#[test]
fn r24_nested_in_each_other_and_in_a_task() {
    limited(|| {
        let runtime = runtime(1);
        let task = runtime.spawn(async {
            gmp::block_on(async {
                let set = LocalSet::new();
                let outer = spawn_local(async { 1 });
                let sum = set
                    .run_until(async {
                        let inner = spawn_local(async {
                            // A `block_on` of its own, whose tasks run while this one waits in it.
                            gmp::block_on(async {
                                let local = spawn_local(async {
                                    yield_now().await;
                                    10
                                });
                                let spawned = gmp::spawn(async { 100 });
                                local.await.unwrap() + spawned.await.unwrap()
                            })
                        });
                        inner.await.unwrap() + gmp::task::block_in_place(|| 1000)
                    })
                    .await;
                sum + outer.await.unwrap()
            })
        });
        assert_eq!(runtime.block_on(task).unwrap(), 1111);
    });
}

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

/// Local tasks that yield for ever, beside tasks of the runtime on its one processor, timers, and the future beside them.
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

/// Guards are the user's: dropped in any order, and after their set.
#[test]
fn r23_guards_in_any_order() {
    limited(|| {
        let (a, b) = (LocalSet::new(), LocalSet::new());
        let (guard_a, guard_b) = (a.enter(), b.enter());
        let in_b = spawn_local(async { 2 });
        drop(guard_a);
        drop(a);
        drop(guard_b);
        // What was entered before is `a`, which is gone.
        let late = spawn_local(async { 1 });
        assert!(gmp::block_on(late).unwrap_err().is_cancelled());
        assert_eq!(gmp::block_on(b.run_until(in_b)).unwrap(), 2);
        // A guard that leaves the `block_on` in which it was made.
        let runtime = runtime(1);
        let set = LocalSet::new();
        let guard = runtime.block_on(async {
            drop(spawn_local(async {}));
            set.enter()
        });
        drop(guard);
        // A new `block_on` is a new place.
        assert_eq!(runtime.block_on(async { spawn_local(async { 7 }).await.unwrap() }), 7);
    });
}

#[test]
fn r07_r08_sleeps_and_sockets() {
    limited(|| {
        let runtime = runtime(1);
        let set = LocalSet::new();
        set.block_on(&runtime, async {
            let listener = gmp::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let served = Rc::new(Cell::new(0));
            let counts = served.clone();
            drop(spawn_local(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let served = counts.clone();
                    drop(spawn_local(async move {
                        let mut byte = [0];
                        stream.read_exact(&mut byte).await.unwrap();
                        gmp::time::sleep(Duration::from_millis(1)).await;
                        served.set(served.get() + 1);
                        stream.write_all(&byte).await.unwrap();
                    }));
                }
            }));
            let clients = (0..20u8).map(|n| {
                gmp::spawn(async move {
                    let mut stream = gmp::net::TcpStream::connect(address).await.unwrap();
                    stream.write_all(&[n]).await.unwrap();
                    let mut byte = [0];
                    stream.read_exact(&mut byte).await.unwrap();
                    assert_eq!(byte, [n]);
                })
            });
            for client in clients.collect::<Vec<_>>() {
                client.await.unwrap();
            }
            assert_eq!(served.get(), 20);
        });
    });
}

/// A set is a future: it needs no runtime of ours, only somebody who polls it.
#[test]
fn r13_under_another_executor() {
    limited(|| {
        let door = Door::default();
        let set = LocalSet::new();
        let waits = set.spawn_local(door.clone());
        let opener = thread::spawn(move || {
            drop(door.waker_of(1));
            door.open();
        });
        futures::executor::block_on(set.run_until(waits)).unwrap();
        opener.join().unwrap();
    });
}

#[test]
fn r18_large_futures_and_many_sets() {
    limited(|| {
        let drops = Drops::default();
        let mut ids = std::collections::BTreeSet::new();
        let sets: Vec<_> = (0..50)
            .map(|_| {
                let set = LocalSet::new();
                for _ in 0..4 {
                    let (bound, large) = (Bound::new(&drops), [7u8; 5000]);
                    let task = set.spawn_local(async move {
                        let _bound = bound;
                        yield_now().await;
                        assert_eq!(large[4999], 7);
                        std::future::pending::<()>().await;
                    });
                    assert!(ids.insert(task.id()), "two live tasks have one name");
                }
                set
            })
            .collect();
        gmp::block_on(async {
            for set in &sets {
                set.run_until(async {
                    yield_now().await;
                    yield_now().await;
                })
                .await;
            }
        });
        drop(sets);
        assert_eq!(drops.count(), 200);
    });
}

/// The destructor of a thread-local drops a set, on its thread.
#[test]
fn r23_a_set_in_a_thread_local() {
    limited(|| {
        thread_local! {
            static SET: LocalSet = LocalSet::new();
        }
        let drops = Drops::default();
        let counts = drops.clone();
        let thread = thread::spawn(move || {
            SET.with(|set| {
                let bound = Bound::new(&counts);
                drop(set.spawn_local(async move {
                    let _bound = bound;
                    std::future::pending::<()>().await;
                }));
                gmp::block_on(set.run_until(yield_now()));
            });
        });
        thread.join().unwrap();
        assert_eq!(drops.count(), 1);
    });
}
