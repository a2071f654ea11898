//! Pinned tasks: each on a thread of its own, which counts among the processors like any other.

use std::cell::Cell;
use std::collections::HashSet;
use std::future::pending;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use gmp::runtime::{Builder, Runtime};
use gmp::task::{LocalSet, block_in_place, coop, spawn_local, spawn_pinned, yield_now};

use drops::Drops;
use limit::limited;

#[path = "../support/door.rs"]
mod door;
#[path = "../support/drops.rs"]
mod drops;
#[path = "../support/limit.rs"]
mod limit;

mod shutdown;

fn runtime(procs: usize) -> Runtime {
    // The lines about stuck polls are not for this test's reader.
    Builder::new().procs(procs).on_stuck(|_| ()).build().unwrap()
}

/// Not `Send`. Aborts the process if it is dropped elsewhere than where it was made.
struct Bound(Rc<ThreadId>, #[expect(dead_code, reason = "counts its drop")] drops::Guard);

impl Bound {
    fn new(guard: drops::Guard) -> Bound {
        Bound(Rc::new(thread::current().id()), guard)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if thread::current().id() != *self.0 {
            eprintln!("a pinned future was dropped on another thread");
            std::process::abort();
        }
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in a destructor");
    }
}

/// Tells when it is dropped: as a thread-local, that its thread ends.
struct Tells(Sender<()>);

impl Drop for Tells {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// Waits until the numbers are so.
fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        thread::yield_now();
    }
}

#[test]
fn r02_each_has_a_thread_of_its_own_from_first_poll_to_drop() {
    const TASKS: usize = 4;
    limited(|| {
        for procs in [1, 2] {
            let runtime = runtime(procs);
            let drops = Drops::default();
            let tasks: Vec<_> = (0..TASKS)
                .map(|_| {
                    let guard = drops.guard();
                    runtime.spawn_pinned(move || {
                        let bound = Bound::new(guard);
                        async move {
                            for n in 0..50 {
                                assert_eq!(thread::current().id(), *bound.0);
                                match n % 3 {
                                    0 => yield_now().await,
                                    1 => gmp::time::sleep(Duration::from_micros(50)).await,
                                    _ => gmp::spawn(async {}).await.unwrap(),
                                }
                            }
                            (*bound.0, thread::current().name().map(str::to_owned))
                        }
                    })
                })
                .collect();
            let ended: Vec<_> = runtime.block_on(async { futures::future::join_all(tasks).await });
            let (threads, mut names): (HashSet<_>, Vec<_>) = ended.into_iter().map(Result::unwrap).unzip();
            assert_eq!(threads.len(), TASKS);
            names.sort_unstable();
            assert_eq!(names, (0..TASKS).map(|n| Some(format!("gmp-pin-{n}"))).collect::<Vec<_>>());
            assert_eq!(drops.count(), TASKS);
            until(|| runtime.metrics().pinned_threads == 0);
        }
    });
}

/// What a task does to its thread, and leaves in its thread-locals, goes with it.
#[test]
fn r02_its_thread_ends_with_it() {
    thread_local! {
        static LEFT: Cell<Option<Tells>> = const { Cell::new(None) };
    }
    limited(|| {
        let (ended, has_ended) = channel();
        let (starts, stops) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let runtime = Builder::new()
            .procs(1)
            .on_thread_start({
                let starts = starts.clone();
                move || {
                    starts.fetch_add(1, SeqCst);
                }
            })
            .on_thread_stop({
                let stops = stops.clone();
                move || {
                    stops.fetch_add(1, SeqCst);
                }
            })
            .build()
            .unwrap();
        for n in 0..3 {
            let ended = ended.clone();
            let task = runtime.spawn_pinned(move || async move {
                assert!(LEFT.take().is_none(), "a thread was used again");
                LEFT.set(Some(Tells(ended)));
                yield_now().await;
            });
            while !task.is_finished() {
                thread::yield_now();
            }
            has_ended.recv().unwrap();
            assert_eq!((starts.load(SeqCst), stops.load(SeqCst)), (n + 1, n + 1));
        }
    });
}

#[test]
fn r24_no_more_run_at_once_than_there_are_processors() {
    const PINNED: usize = 8;
    limited(|| {
        for procs in [1, 2] {
            let runtime = Builder::new().procs(procs).rescue(None).build().unwrap();
            let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let work = {
                let (inside, most) = (inside.clone(), most.clone());
                move || {
                    let now = inside.fetch_add(1, SeqCst) + 1;
                    most.fetch_max(now, SeqCst);
                    for _ in 0..2000 {
                        std::hint::spin_loop();
                    }
                    inside.fetch_sub(1, SeqCst);
                }
            };
            /// Works in its destructor too.
            struct Works<F: Fn()>(F);
            impl<F: Fn()> Drop for Works<F> {
                fn drop(&mut self) {
                    (self.0)();
                }
            }
            let pinned: Vec<_> = (0..PINNED)
                .map(|_| {
                    let work = work.clone();
                    runtime.spawn_pinned(move || {
                        work();
                        async move {
                            let (dropped, local) = (Works(work.clone()), work.clone());
                            drop(spawn_local(async move {
                                let _works = Works(local);
                                pending::<()>().await;
                            }));
                            for turn in 0..60 {
                                work();
                                match turn % 3 {
                                    0 => yield_now().await,
                                    1 => gmp::time::sleep(Duration::from_micros(20)).await,
                                    _ => spawn_local(yield_now()).await.unwrap(),
                                }
                            }
                            drop(dropped);
                        }
                    })
                })
                .collect();
            let tasks: Vec<_> = (0..4)
                .map(|_| {
                    let work = work.clone();
                    runtime.spawn(async move {
                        for _ in 0..200 {
                            work();
                            yield_now().await;
                        }
                    })
                })
                .collect();
            runtime.block_on(async {
                for task in pinned.into_iter().chain(tasks) {
                    work();
                    task.await.unwrap();
                }
            });
            assert!(most.load(SeqCst) <= procs, "{} on {procs} processors", most.load(SeqCst));
        }
    });
}

/// On one processor: each waits for the next, which can only run when the others have given the processor up.
#[test]
fn r24_several_on_one_processor_wait_for_each_other() {
    const PINNED: usize = 5;
    const TURNS: usize = 200;
    limited(|| {
        let runtime = runtime(1);
        let (mut senders, mut receivers): (Vec<_>, Vec<_>) =
            (0..PINNED).map(|_| futures::channel::mpsc::channel::<usize>(1)).unzip();
        // Each sends to the one after it.
        senders.rotate_left(1);
        let first = senders[PINNED - 1].clone();
        let tasks: Vec<_> = receivers
            .drain(..)
            .zip(senders.drain(..))
            .map(|(mut receiver, mut sender)| {
                runtime.spawn_pinned(move || async move {
                    use futures::{SinkExt, StreamExt};
                    let mut turns = 0;
                    while let Some(n) = receiver.next().await {
                        turns += 1;
                        if n == 0 || sender.send(n - 1).await.is_err() {
                            break;
                        }
                    }
                    turns
                })
            })
            .collect();
        let turns = runtime.block_on(async move {
            use futures::SinkExt;
            let mut first = first;
            first.send(PINNED * TURNS - 1).await.unwrap();
            drop(first);
            let mut turns = 0;
            for task in tasks {
                turns += task.await.unwrap();
            }
            turns
        });
        assert_eq!(turns, PINNED * TURNS);
    });
}

/// One that never waits gives the processor to tasks, timers and other threads all the same.
#[test]
fn r04_those_that_never_wait_let_others_run() {
    limited(|| {
        let runtime = runtime(1);
        let greedy: Vec<_> = (0..3)
            .map(|n| {
                runtime.spawn_pinned(move || async move {
                    loop {
                        if n == 0 { yield_now().await } else { coop::consume_budget().await }
                    }
                })
            })
            .collect();
        runtime.block_on(async {
            for _ in 0..20 {
                gmp::spawn(gmp::time::sleep(Duration::from_micros(100))).await.unwrap();
                spawn_pinned(yield_now).await.unwrap();
            }
        });
        for task in greedy {
            task.abort();
            assert!(runtime.block_on(task).unwrap_err().is_cancelled());
        }
    });
}

#[test]
fn r15_an_abort_drops_the_future_on_its_thread() {
    limited(|| {
        let runtime = runtime(1);
        let drops = Drops::default();
        let waits = |guard| {
            let (started, is_started) = channel();
            let task = runtime.spawn_pinned(move || async move {
                let _bound = Bound::new(guard);
                started.send(()).unwrap();
                pending::<()>().await;
            });
            is_started.recv().unwrap();
            task
        };
        let task = waits(drops.guard());
        task.abort();
        assert!(runtime.block_on(task).unwrap_err().is_cancelled());
        let task = waits(drops.guard());
        let abort = task.abort_handle();
        drop(task);
        thread::spawn(move || abort.abort()).join().unwrap();
        until(|| drops.count() == 2 && runtime.metrics().pinned_threads == 0);
        // Before its first poll: the closure is dropped and never called.
        let (go, gone) = channel::<()>();
        let runtime = Builder::new().procs(1).rescue(None).build().unwrap();
        let (started, is_started) = channel();
        let holds = runtime.spawn(async move {
            started.send(()).unwrap();
            gone.recv().unwrap();
        });
        is_started.recv().unwrap();
        let guard = drops.guard();
        let never = runtime.spawn_pinned(move || {
            drop(guard);
            async { unreachable!("it was aborted before it began") }
        });
        never.abort();
        go.send(()).unwrap();
        assert!(runtime.block_on(never).unwrap_err().is_cancelled());
        runtime.block_on(holds).unwrap();
        assert_eq!(drops.count(), 3);
    });
}

/// It has no thread, and may never get one: a machine drops its closure.
#[test]
fn r15_an_abort_ends_a_task_that_waits_for_a_thread() {
    struct Names(Sender<String>);
    impl Drop for Names {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().name().unwrap_or("").to_owned());
        }
    }
    limited(|| {
        let runtime = Builder::new().procs(1).max_threads(3).build().unwrap();
        let first = runtime.spawn_pinned(pending::<()>);
        until(|| runtime.metrics().pinned_threads == 1);
        let (names, named) = channel();
        let waits = || {
            let names = Names(names.clone());
            runtime.spawn_pinned(move || async move { drop(names) })
        };
        let [before, aborted, forgotten, after] = [waits(), waits(), waits(), waits()];
        until(|| runtime.metrics().pinned_queue == 4);
        aborted.abort();
        let error = runtime.block_on(aborted).unwrap_err();
        assert!(error.is_cancelled() && !error.to_string().contains("shut down"), "{error}");
        assert_eq!(named.recv().unwrap(), "gmp-0");
        // Nobody waits for it.
        let abort = forgotten.abort_handle();
        drop(forgotten);
        thread::spawn(move || abort.abort()).join().unwrap();
        assert_eq!(named.recv().unwrap(), "gmp-0");
        until(|| runtime.metrics().live_tasks == 3 && runtime.metrics().pinned_queue == 2);
        // What its destructor throws goes to the handle.
        let bomb = Bomb;
        let throws = runtime.spawn_pinned(move || async move { drop(bomb) });
        until(|| runtime.metrics().pinned_queue == 3);
        throws.abort();
        assert!(runtime.block_on(throws).unwrap_err().is_panic());
        // The others have their turn.
        first.abort();
        runtime.block_on(before).unwrap();
        runtime.block_on(after).unwrap();
        assert!([named.recv().unwrap(), named.recv().unwrap()].iter().all(|name| name.starts_with("gmp-pin-")));
        drop(runtime);
        assert_eq!(named.try_iter().count(), 0);
    });
}

#[test]
fn r12_a_panic_goes_to_the_handle() {
    limited(|| {
        let runtime = runtime(1);
        let tasks = [
            runtime.spawn_pinned(|| {
                if true {
                    panic!("in the closure")
                }
                async {}
            }),
            runtime.spawn_pinned(|| async { panic!("in the future") }),
            runtime.spawn_pinned(|| async {
                let _bomb = Bomb;
                yield_now().await;
            }),
            runtime.spawn_pinned(|| async {
                let local = spawn_local(async { panic!("in a local task") });
                std::panic::resume_unwind(local.await.unwrap_err().into_panic())
            }),
        ];
        let texts = ["in the closure", "in the future", "in a destructor", "in a local task"];
        for (task, text) in tasks.into_iter().zip(texts) {
            let panic = runtime.block_on(task).unwrap_err().into_panic();
            assert_eq!(panic.downcast_ref(), Some(&text));
        }
        until(|| runtime.metrics().pinned_threads == 0);
        assert_eq!(runtime.metrics().idle_procs, 1, "a processor went with a thread");
        assert_eq!(runtime.block_on(runtime.spawn_pinned(|| async { 7 })).unwrap(), 7);
    });
}

#[test]
fn r24_everything_works_inside() {
    limited(|| {
        for procs in [1, 2] {
            let runtime = runtime(procs);
            let drops = Drops::default();
            let guard = drops.guard();
            let task = runtime.spawn_pinned(|| async {
                let here = thread::current().id();
                let nested = gmp::block_on(async {
                    let local = spawn_local(async move { thread::current().id() });
                    assert_eq!(local.await.unwrap(), here);
                    gmp::spawn(async { 1 }).await.unwrap()
                });
                let blocking = block_in_place(|| gmp::block_on(gmp::spawn(async { 10 })).unwrap());
                let in_a_set = LocalSet::new().run_until(async { spawn_local(async { 100 }).await.unwrap() }).await;
                let local = spawn_local(async {
                    gmp::time::sleep(Duration::from_millis(1)).await;
                    1000
                });
                // It is left behind, and goes with the pinned task, on its thread.
                let bound = Bound::new(guard);
                drop(spawn_local(async move {
                    let _bound = bound;
                    pending::<()>().await;
                }));
                let pinned = spawn_pinned(|| async { 10_000 });
                let closure = gmp::spawn_blocking(|| 100_000);
                nested + blocking + in_a_set + local.await.unwrap() + pinned.await.unwrap() + closure.await.unwrap()
            });
            assert_eq!(runtime.block_on(task).unwrap(), 111_111);
            until(|| runtime.metrics().pinned_threads == 0);
            assert_eq!(drops.count(), 1);
        }
    });
}

#[test]
fn r08_sockets_inside() {
    limited(|| {
        let runtime = runtime(1);
        let (told, address) = channel();
        let server = runtime.spawn_pinned(|| async move {
            let listener = gmp::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            let served = Rc::new(Cell::new(0));
            while served.get() < 10 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut byte = [0];
                stream.read_exact(&mut byte).await.unwrap();
                stream.write_all(&byte).await.unwrap();
                served.set(served.get() + 1);
            }
        });
        let address = address.recv().unwrap();
        let client = runtime.spawn_pinned(move || async move {
            for n in 0..10 {
                let mut stream = gmp::net::TcpStream::connect(address).await.unwrap();
                stream.write_all(&[n]).await.unwrap();
                let mut byte = [0];
                stream.read_exact(&mut byte).await.unwrap();
                assert_eq!(byte, [n]);
            }
        });
        runtime.block_on(async {
            client.await.unwrap();
            server.await.unwrap();
        });
    });
}

/// The only processor is taken from a pinned thread that blocks, and comes back.
#[test]
fn r03_a_pinned_poll_that_is_stuck_keeps_nobody_waiting() {
    limited(|| {
        let told = Arc::new(Mutex::new(Vec::new()));
        let runtime = Builder::new()
            .procs(1)
            .on_stuck({
                let told = told.clone();
                move |stuck| told.lock().unwrap().push(stuck.location.map(|l| l.line()))
            })
            .build()
            .unwrap();
        let line = line!() + 1;
        let stuck = runtime.spawn_pinned(|| async {
            let (done, is_done) = channel();
            // Behind this poll, on its processor.
            let other = gmp::spawn(async move { done.send(()).unwrap() });
            is_done.recv().unwrap();
            other.await.unwrap();
            let (done, is_done) = channel();
            drop(gmp::spawn(async move { done.send(()).unwrap() }));
            block_in_place(|| is_done.recv().unwrap());
            yield_now().await;
            7
        });
        assert_eq!(runtime.block_on(stuck).unwrap(), 7);
        // The rescue comes before it is told of.
        until(|| told.lock().unwrap().contains(&Some(line)));
        until(|| runtime.metrics().stuck_threads == 0 && runtime.metrics().idle_procs == 1);
    });
}

/// Whether this thread blocks a signal, which a thread inherits from the one that starts it.
#[cfg(target_os = "linux")]
fn is_marked() -> bool {
    // SAFETY: the set is there to be written, then read.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut set);
        libc::sigismember(&set, libc::SIGWINCH) == 1
    }
}

/// So that [`is_marked`].
#[cfg(target_os = "linux")]
fn mark() {
    // SAFETY: a set on the stack, made by `sigemptyset`.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGWINCH);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}

/// Go: `TestLockOSThreadAvoidsStatePropagation`.
#[cfg(target_os = "linux")]
#[test]
fn r23_no_thread_of_the_runtime_inherits_from_a_pinned_one() {
    limited(|| {
        for procs in [1, 2] {
            let runtime = runtime(procs);
            let task = runtime.spawn_pinned(|| async {
                mark();
                assert!(is_marked());
                // No machine is there yet, no thread of the pool and no other pinned one.
                let marked = [
                    gmp::spawn(async { is_marked() }).await.unwrap(),
                    gmp::spawn_blocking(is_marked).await.unwrap(),
                    spawn_pinned(|| async { is_marked() }).await.unwrap(),
                ];
                // Nor if it blocks, and the others go on elsewhere.
                let (done, is_done) = channel();
                drop(gmp::spawn(async move { done.send(is_marked()).unwrap() }));
                assert!(is_marked());
                (marked, is_done.recv().unwrap())
            });
            assert_eq!(runtime.block_on(task).unwrap(), ([false; 3], false));
            assert_eq!(runtime.metrics().thread_failures, 0);
        }
    });
}

#[test]
fn r24_on_the_default_runtime_from_a_plain_thread() {
    limited(|| {
        let task = spawn_pinned(|| async {
            yield_now().await;
            *Rc::new(7)
        });
        assert_eq!(gmp::block_on(task).unwrap(), 7);
    });
}

/// `sysmon` tries again at each of its looks, not as fast as it can.
#[test]
fn r05_a_refused_pinned_task_does_not_make_the_watcher_spin() {
    limited(|| {
        let runtime = Builder::new().procs(1).max_threads(3).build().unwrap();
        let first = runtime.spawn_pinned(pending::<()>);
        until(|| runtime.metrics().pinned_threads == 1);
        let second = runtime.spawn_pinned(|| async {});
        until(|| runtime.metrics().pinned_queue == 1);
        let (start, before) = (std::time::Instant::now(), runtime.metrics().sysmon_looks);
        thread::sleep(Duration::from_millis(500));
        let (looks, passed) = (runtime.metrics().sysmon_looks - before, start.elapsed());
        assert!(u128::from(looks) <= passed.as_millis() + 50, "{looks} looks in {passed:?}");
        first.abort();
        until(|| second.is_finished());
    });
}
