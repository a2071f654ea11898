//! Local tasks: their futures stay on one thread, whoever wakes, aborts and forgets them.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Wake;
use std::thread::{self, ThreadId};
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use gmp::runtime::{Builder, Runtime};
use gmp::task::{LocalSet, spawn_local, yield_now};

use door::Door;
use drops::Drops;
use limit::limited;

#[path = "../support/door.rs"]
mod door;
#[path = "../support/drops.rs"]
mod drops;
#[path = "../support/limit.rs"]
mod limit;

mod ends;
mod hosts;

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

/// It lasts until it is dropped, whether the `block_on` has tasks of its own or not.
#[test]
fn r24_a_guard_across_an_await_in_block_on() {
    limited(|| {
        for has_tasks in [false, true] {
            let runtime = runtime(1);
            runtime.block_on(async {
                if has_tasks {
                    drop(spawn_local(std::future::pending::<()>()));
                    yield_now().await;
                }
                let set = LocalSet::new();
                let guard = set.enter();
                yield_now().await;
                let task = spawn_local(async { 7 });
                drop(guard);
                let own = spawn_local(async { 8 });
                assert_eq!(own.await.unwrap(), 8);
                assert!(!task.is_finished(), "it went to the `block_on`, with tasks: {has_tasks}");
                assert_eq!(set.run_until(task).await.unwrap(), 7);
            });
        }
    });
}

/// In a task of a set it ends with the poll: the next poll of the task, and its neighbours, are in their own set.
#[test]
fn r24_a_guard_across_an_await_in_a_task() {
    async fn runs() -> bool {
        let task = spawn_local(async {});
        // Enough polls for a task of the same set.
        for _ in 0..10 {
            yield_now().await;
        }
        task.is_finished()
    }
    limited(|| {
        let other = Rc::new(LocalSet::new());
        let (own, entered) = (LocalSet::new(), other.clone());
        gmp::block_on(own.run_until(async {
            let holds = spawn_local(async move {
                let guard = entered.enter();
                yield_now().await;
                let runs = runs().await;
                drop(guard);
                runs
            });
            let beside = spawn_local(runs());
            assert_eq!((holds.await.unwrap(), beside.await.unwrap()), (true, true));
            let guard = other.enter();
            yield_now().await;
            assert!(runs().await, "beside the tasks");
            drop(guard);
        }));
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
