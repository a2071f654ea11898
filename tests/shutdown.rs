//! Shutdown ends, and every future is dropped once.

use std::cell::RefCell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use futures::AsyncReadExt;
use gmp::net::{TcpListener, TcpStream};
use gmp::runtime::{Builder, Runtime};

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

#[test]
fn r14_a_detached_task_that_waits_for_nothing_is_dropped() {
    limited(|| {
        let runtime = runtime(1);
        let drops = Drops::default();
        let (guard, (ran, has_run)) = (drops.guard(), channel());
        drop(runtime.spawn(async move {
            let _guard = guard;
            ran.send(()).unwrap();
            std::future::pending::<()>().await;
        }));
        has_run.recv().unwrap();
        assert_eq!(drops.count(), 0);
        drop(runtime);
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn r14_a_million_tasks_that_wait() {
    const TASKS: usize = 1_000_000;
    limited(|| {
        let runtime = runtime(2);
        let drops = Drops::default();
        for _ in 0..TASKS {
            let guard = drops.guard();
            drop(runtime.spawn(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            }));
        }
        drop(runtime);
        assert_eq!(drops.count(), TASKS);
    });
}

#[test]
fn r14_spawns_during_shutdown_from_outside_and_from_destructors() {
    /// Spawns another task when it is dropped.
    struct Spawns(gmp::Handle, Drops, Arc<Mutex<Vec<gmp::task::JoinHandle<()>>>>);
    impl Drop for Spawns {
        fn drop(&mut self) {
            let guard = self.1.guard();
            let late = self.0.spawn(async move { drop(guard) });
            self.2.lock().unwrap().push(late);
            let guard = self.1.guard();
            drop(gmp::spawn(async move { drop(guard) }));
        }
    }
    const ROUNDS: usize = 30;
    limited(|| {
        for _ in 0..ROUNDS {
            let runtime = runtime(2);
            let (drops, late) = (Drops::default(), Arc::default());
            let stop = AtomicBool::new(false);
            let handle = runtime.handle();
            let spawned = thread::scope(|scope| {
                let outside = scope.spawn(|| {
                    // What is refused is dropped here, and spawns by the free function.
                    let _entered = handle.enter();
                    let mut spawned = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let guard = drops.guard();
                        let held = Spawns(handle.clone(), drops.clone(), Arc::clone(&late));
                        drop(handle.spawn(async move {
                            let _both = (guard, held);
                            std::future::pending::<()>().await;
                        }));
                        spawned += 1;
                    }
                    spawned
                });
                while runtime.metrics().spawned < 20 {
                    thread::yield_now();
                }
                drop(runtime);
                stop.store(true, Ordering::Relaxed);
                outside.join().unwrap()
            });
            let next = self::runtime(1);
            let late = std::mem::take(&mut *late.lock().unwrap());
            assert_eq!(late.len(), spawned);
            for late in late {
                let error = next.block_on(late).unwrap_err();
                assert!(error.to_string().contains("runtime shut down"), "{error}");
            }
            assert_eq!(drops.count(), 3 * spawned, "each of the three futures is dropped once");
        }
    });
}

/// A machine may poll a task once more after shutdown has woken it, and a thread outside may queue one after shutdown
/// has looked at the queue.
#[test]
fn r14_shutdown_while_tasks_are_woken() {
    const TASKS: usize = 20;
    limited(|| {
        for round in 0..2000 {
            let runtime = runtime(2);
            let drops = Drops::default();
            let (send, wakers) = channel();
            for _ in 0..TASKS {
                let (guard, send) = (drops.guard(), send.clone());
                drop(runtime.spawn(std::future::poll_fn(move |cx| {
                    let _ = (&guard, send.send(cx.waker().clone()));
                    Poll::<()>::Pending
                })));
            }
            drop(send);
            let waker = thread::spawn(move || wakers.into_iter().for_each(|waker| waker.wake()));
            (0..round % 50 * 100).for_each(|_| std::hint::spin_loop());
            drop(runtime);
            waker.join().unwrap();
            assert_eq!(drops.count(), TASKS);
        }
    });
}

#[test]
fn r14_a_poll_that_does_not_end_is_left_and_dropped_later() {
    limited(|| {
        let runtime = runtime(1);
        let drops = Drops::default();
        let (inside, arrived) = channel();
        let (release, released) = channel::<()>();
        let guards = [drops.guard(), drops.guard()];
        let [stuck, queued] = guards;
        let task = runtime.spawn(async move {
            let _guard = stuck;
            inside.send(()).unwrap();
            let _ = released.recv();
            std::future::pending::<()>().await;
        });
        arrived.recv().unwrap();
        drop(runtime.spawn(async move { drop(queued) }));
        let left = runtime.shutdown_timeout(Duration::from_millis(20)).unwrap_err();
        assert_eq!((left.tasks, left.threads), (1, 1));
        assert_eq!(drops.count(), 1, "what was queued is dropped in time");
        drop(release);
        assert!(self::runtime(1).block_on(task).unwrap_err().is_cancelled());
        assert_eq!(drops.count(), 2);
    });
}

#[test]
fn r24_a_runtime_is_dropped_in_its_own_task() {
    limited(|| {
        let runtime = Arc::new(runtime(1));
        let drops = Drops::default();
        let (guard, inside) = (drops.guard(), runtime.clone());
        let door = Door::default();
        let last = door.clone();
        let other = runtime.spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        let task = runtime.spawn(async move {
            last.await;
            drop(inside);
        });
        door.waker_of(1);
        drop(runtime);
        door.open();
        let next = self::runtime(1);
        let _ = next.block_on(task);
        assert!(next.block_on(other).unwrap_err().is_cancelled());
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn r24_a_runtime_is_dropped_in_its_own_block_on() {
    limited(|| {
        let runtime = runtime(1);
        let drops = Drops::default();
        let guard = drops.guard();
        let other = runtime.spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        let handle = runtime.handle();
        handle.block_on(async move {
            drop(runtime);
            // This thread still has its processor: a runtime built now must not get the same one.
            let next = self::runtime(1);
            let task = next.spawn(async { thread::current().name().map(str::to_owned) });
            assert_ne!(next.block_on(task).unwrap(), thread::current().name().map(str::to_owned));
            gmp::task::yield_now().await;
        });
        assert!(self::runtime(1).block_on(other).unwrap_err().is_cancelled());
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn r24_a_runtime_is_dropped_in_a_task_of_another() {
    limited(|| {
        let outer = runtime(1);
        for _ in 0..20 {
            let inner = runtime(1);
            let drops = Drops::default();
            let guard = drops.guard();
            drop(inner.spawn(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            }));
            outer.block_on(outer.spawn(async move { drop(inner) })).unwrap();
            assert_eq!(drops.count(), 1, "this drop waits");
        }
        // In a `block_on` of the other, inside a task of its own: nobody can wait for the thread that is in it.
        let inner = Arc::new(runtime(1));
        let (owner, handle) = (inner.clone(), outer.handle());
        let (go, gone) = channel::<()>();
        let task = inner.spawn(async move {
            gone.recv().unwrap_err();
            handle.block_on(async move { drop(owner) });
        });
        drop(inner);
        drop(go);
        outer.block_on(task).unwrap();
    });
}

/// Each drop, or `block_on`, waits for the poll in which the other one is. Those of a task, in a blocking call or not,
/// and of a pinned one.
#[test]
fn r24_two_runtimes_whose_tasks_wait_for_each_other() {
    /// How `second` keeps a poll of its runtime from ending.
    #[derive(Clone, Copy)]
    enum Second {
        Drops,
        BlocksOnFirst,
    }
    fn in_place(is_in_place: bool, f: impl FnOnce()) {
        if is_in_place { gmp::block_in_place(f) } else { f() }
    }
    let meet = |second: Second, is_in_place: bool, is_pinned: bool| {
        let [a, b] = [(); 2].map(|()| Builder::new().procs(1).on_stuck(|_| ()).build().unwrap());
        let (on_a, on_b) = (a.handle(), b.handle());
        let (closing, inside) = (on_b.clone(), Arc::new(Barrier::new(2)));
        let first_inside = inside.clone();
        let drops_b = async move {
            first_inside.wait();
            in_place(is_in_place, || drop(b));
        };
        let first = if is_pinned { on_a.spawn_pinned(|| drops_b) } else { on_a.spawn(drops_b) };
        let waits_for_a = async move {
            inside.wait();
            // The other one is in its drop, which waits for this poll.
            thread::spawn(move || while !closing.spawn(async {}).is_finished() {}).join().unwrap();
            in_place(is_in_place, || match second {
                Second::Drops => drop(a),
                Second::BlocksOnFirst => a.handle().block_on(first).unwrap(),
            });
        };
        let second = if is_pinned { on_b.spawn_pinned(|| waits_for_a) } else { on_b.spawn(waits_for_a) };
        runtime(1).block_on(second).unwrap();
    };
    limited(|| {
        thread::scope(|scope| {
            for second in [Second::Drops, Second::BlocksOnFirst] {
                for (is_in_place, is_pinned) in [(false, false), (true, false), (false, true)] {
                    let meet = &meet;
                    scope.spawn(move || meet(second, is_in_place, is_pinned));
                }
            }
        });
    });
}

#[test]
fn r14_a_shutdown_in_the_background_waits_for_no_closure() {
    limited(|| {
        let runtime = runtime(1);
        let drops = Drops::default();
        let guard = drops.guard();
        let task = runtime.spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        let ((began, has_begun), (end, until)) = (channel(), channel());
        let closure = runtime.spawn_blocking(move || {
            began.send(()).unwrap();
            until.recv()
        });
        has_begun.recv().unwrap();
        runtime.shutdown_background();
        end.send(7).unwrap();
        let next = self::runtime(1);
        assert_eq!(next.block_on(closure).unwrap(), Ok(7));
        assert!(next.block_on(task).unwrap_err().is_cancelled());
        assert_eq!(drops.count(), 1);
    });
}

/// A thread in `block_on` holds a processor; the slot must not serve the next runtime meanwhile.
#[test]
fn r14_shutdown_waits_for_the_poll_of_a_block_on() {
    limited(|| {
        let runtime = runtime(1);
        let handle = runtime.handle();
        let (inside, arrived) = channel();
        let door = Door::default();
        let (release, released) = channel::<()>();
        let waits_at = door.clone();
        let blocked = thread::spawn(move || {
            handle.block_on(async move {
                inside.send(()).unwrap();
                let _ = released.recv();
                waits_at.await;
                gmp::spawn(async {}).await.unwrap_err().to_string()
            })
        });
        arrived.recv().unwrap();
        let left = runtime.shutdown_timeout(Duration::from_millis(20)).unwrap_err();
        assert_eq!((left.tasks, left.threads), (0, 1));
        drop(release);
        door.waker_of(1);
        // Its later polls go without a processor, and leave the next runtime alone.
        let next = self::runtime(1);
        door.open();
        assert!(blocked.join().unwrap().contains("runtime shut down"));
        assert_eq!(next.block_on(next.spawn(async { 7 })).unwrap(), 7);
    });
}

#[test]
fn r14_the_hooks_are_dropped_with_the_runtime() {
    limited(|| {
        let drops = Drops::default();
        let (start, stop) = (drops.guard(), drops.guard());
        let hooks = Builder::new().procs(1).on_thread_start(move || {
            let _ = &start;
        });
        let runtime = hooks
            .on_thread_stop(move || {
                let _ = &stop;
            })
            .build()
            .unwrap();
        runtime.block_on(runtime.spawn(async {})).unwrap();
        drop(runtime);
        assert_eq!(drops.count(), 2);
    });
}

/// Its thread has no processor there, and is one that shutdown would wait for.
#[test]
fn r14_a_runtime_dropped_in_a_blocking_call_of_its_own_block_on() {
    limited(|| {
        let runtime = Builder::new().procs(2).build().unwrap();
        let handle = runtime.handle();
        handle.block_on(async move { gmp::block_in_place(move || drop(runtime)) });
    });
}

/// Sleeps when it is dropped.
struct Naps(Arc<AtomicBool>);

impl Drop for Naps {
    fn drop(&mut self) {
        gmp::block_on(gmp::time::sleep(Duration::from_millis(2)));
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn r14_a_destructor_sleeps_while_the_runtime_shuts_down() {
    limited(|| {
        for paused in [false, true] {
            let runtime = Builder::new().procs(1).start_paused(paused).build().unwrap();
            let slept = Arc::new(AtomicBool::new(false));
            let naps = Naps(slept.clone());
            drop(runtime.spawn(async move {
                std::future::pending::<()>().await;
                drop(naps);
            }));
            drop(runtime);
            assert!(slept.load(Ordering::Relaxed));
        }
    });
}

/// Reads when it is dropped, and waits before there is anything to read.
struct Reads(Option<(TcpStream, std::net::TcpStream)>, Arc<AtomicBool>);

impl Reads {
    async fn new(has_read: &Arc<AtomicBool>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plain = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Reads(Some((listener.accept().await.unwrap().0, plain)), has_read.clone())
    }
}

impl Drop for Reads {
    fn drop(&mut self) {
        let (mut stream, mut plain) = self.0.take().unwrap();
        gmp::block_on(async {
            let mut byte = [0];
            let read = stream.read_exact(&mut byte);
            futures::join!(async { read.await.unwrap() }, async { plain.write_all(b"x").unwrap() });
        });
        self.1.store(true, Ordering::Relaxed);
    }
}

#[test]
fn r14_a_destructor_waits_for_a_socket_while_the_runtime_shuts_down() {
    limited(|| {
        for builder in [Builder::new(), Builder::new().portable_netpoll(), Builder::new().start_paused(true)] {
            let runtime = builder.procs(1).build().unwrap();
            let has_read = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
            let [in_a_task, in_a_closure] = [&has_read[0], &has_read[1]].map(|b| runtime.block_on(Reads::new(b)));
            drop(runtime.spawn(async move {
                std::future::pending::<()>().await;
                drop(in_a_task);
            }));
            let (began, begun) = channel();
            let closing = runtime.handle();
            drop(runtime.spawn_blocking(move || {
                began.send(()).unwrap();
                // Until the runtime closes: then a task has ended when it is spawned.
                let is_refused = || {
                    let task = closing.spawn(std::future::pending::<()>());
                    let is_refused = task.is_finished();
                    task.abort();
                    is_refused
                };
                while !is_refused() {
                    thread::yield_now();
                }
                drop(in_a_closure);
            }));
            begun.recv().unwrap();
            runtime.shutdown_timeout(Duration::from_secs(60)).unwrap();
            assert!(has_read.iter().all(|has_read| has_read.load(Ordering::Relaxed)));
        }
    });
}

/// The poll of a task and a blocking closure wait for time, and shutdown for them.
#[test]
fn r14_shutdown_waits_for_those_who_wait_for_time() {
    limited(|| {
        for _ in 0..5 {
            let runtime = runtime(2);
            let ((began, begun), (slept, has_slept)) = (channel(), channel());
            let nap = move || {
                began.send(()).unwrap();
                gmp::block_on(gmp::time::sleep(Duration::from_millis(20)));
                slept.send(()).unwrap();
            };
            let in_a_task = nap.clone();
            drop(runtime.spawn(async move { in_a_task() }));
            drop(runtime.spawn_blocking(nap));
            // Some wait already, and some only when it has begun.
            begun.recv().unwrap();
            begun.recv().unwrap();
            drop(runtime);
            assert_eq!(has_slept.try_iter().count(), 2, "both have slept");
        }
    });
}

#[test]
fn r14_a_block_on_that_waits_for_time_in_a_runtime_that_is_gone_panics() {
    const HOUR: Duration = Duration::from_secs(3600);
    limited(|| {
        let runtime = runtime(1);
        let handle = runtime.handle();
        let (armed, is_armed) = channel();
        let waits = thread::spawn(move || {
            handle.block_on(async move {
                let mut sleep = std::pin::pin!(gmp::time::sleep(HOUR));
                assert!(futures::poll!(sleep.as_mut()).is_pending());
                armed.send(()).unwrap();
                sleep.await;
            });
        });
        is_armed.recv().unwrap();
        drop(runtime);
        let panic = waits.join().unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains("shut down while its `block_on` waits for time"), "{message}");
    });
}

/// Drops what it holds when its thread ends.
struct AtExit(Option<Box<dyn FnOnce()>>);

impl Drop for AtExit {
    fn drop(&mut self) {
        self.0.take().unwrap()();
    }
}

/// `at_exit` runs among the destructors of this thread's thread-locals.
fn when_the_thread_ends(at_exit: impl FnOnce() + 'static) {
    thread_local! {
        static AT_EXIT: RefCell<Option<AtExit>> = const { RefCell::new(None) };
    }
    AT_EXIT.set(Some(AtExit(Some(Box::new(at_exit)))));
}

/// A thread cannot wait for its own end.
#[test]
fn r24_a_runtime_that_is_dropped_when_a_thread_of_its_own_ends() {
    limited(|| {
        for pinned in [false, true] {
            let runtime = Builder::new().procs(1).thread_keep_alive(Duration::ZERO).build().unwrap();
            let handle = runtime.handle();
            let (ends, ended) = channel();
            let keep = move || {
                when_the_thread_ends(move || {
                    drop(runtime);
                    ends.send(()).unwrap();
                });
            };
            if pinned {
                drop(handle.spawn_pinned(|| async { keep() }));
            } else {
                drop(handle.spawn_blocking(keep));
            }
            ended.recv().expect("to drop it panicked");
            // Others end it.
            while handle.metrics().procs != 0 {
                thread::yield_now();
            }
        }
    });
}

#[test]
fn r24_a_runtime_that_is_dropped_by_the_hook_of_stuck_polls() {
    limited(|| {
        let owner = Arc::new(Mutex::new(None::<Runtime>));
        let (told, is_told) = channel();
        let (dropped, is_dropped) = channel();
        let runtime = Builder::new().procs(1).on_stuck({
            let owner = owner.clone();
            move |_| {
                let Some(runtime) = owner.lock().unwrap().take() else { return };
                told.send(()).unwrap();
                dropped.send(catch_unwind(AssertUnwindSafe(|| drop(runtime))).is_ok()).unwrap();
            }
        });
        let runtime = runtime.build().unwrap();
        let handle = runtime.handle();
        *owner.lock().unwrap() = Some(runtime);
        drop(handle.spawn(async move {
            let behind = gmp::spawn(async {});
            is_told.recv().unwrap();
            drop(behind);
        }));
        assert!(is_dropped.recv().unwrap(), "to drop it panicked");
        while handle.metrics().procs != 0 {
            thread::yield_now();
        }
    });
}

/// It is in no number of the runtime's any more, and may take a processor like any thread.
#[test]
fn r14_a_poll_in_the_destructor_of_a_thread_local_of_a_machine_that_has_ended_is_waited_for() {
    const MACHINES: usize = 4;
    limited(|| {
        for pinned in [false, true] {
            let builder = Builder::new().procs(1).on_stuck(|_| ()).thread_keep_alive(Duration::ZERO);
            let runtime = builder.build().unwrap();
            let (polls, is_polling) = channel();
            let (end, ends) = channel::<()>();
            let ends = Arc::new(Mutex::new(Some(ends)));
            let handle = runtime.handle();
            let block = move || {
                when_the_thread_ends(move || {
                    let Some(ends) = ends.lock().unwrap().take() else { return };
                    handle.block_on(async {
                        polls.send(()).unwrap();
                        let _ = ends.recv();
                    });
                });
            };
            if pinned {
                drop(runtime.spawn_pinned(|| async { block() }));
            } else {
                // More than the processors need: some of them end.
                let at_once = Arc::new(Barrier::new(MACHINES));
                for _ in 0..MACHINES {
                    let (block, at_once) = (block.clone(), at_once.clone());
                    drop(runtime.spawn(async move {
                        block();
                        gmp::task::block_in_place(|| at_once.wait());
                    }));
                }
            }
            is_polling.recv().unwrap();
            // The next thread to start has the runtime forget those that have ended.
            let closure = runtime.spawn_blocking(|| ());
            while !closure.is_finished() {
                thread::yield_now();
            }
            let leftover = runtime.shutdown_timeout(Duration::from_secs(1)).unwrap_err();
            assert!(leftover.threads > 0, "pinned: {pinned}: {leftover}");
            end.send(()).unwrap();
        }
    });
}
