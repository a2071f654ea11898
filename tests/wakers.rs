//! Wakers at hard times: under a lock, across runtimes, after the end of the task or of its runtime, in destructors.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures::channel::oneshot;
use gmp::runtime::{Builder, Runtime};
use gmp::task::{LocalSet, yield_now};

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

/// Takes a lock in its destructor.
struct LocksInDrop(Arc<Mutex<usize>>);

impl Drop for LocksInDrop {
    fn drop(&mut self) {
        *self.0.lock().unwrap() += 1;
    }
}

/// The destructors wait for the lock, in the thread that shuts down; the thread that wakes under it does not.
#[test]
fn r13_a_wake_under_a_lock_runs_no_destructor() {
    const TASKS: usize = 20_000;
    limited(|| {
        let runtime = runtime(1);
        let lock = Arc::new(Mutex::new(0));
        let (send, wakers) = channel();
        for _ in 0..TASKS {
            let (held, send) = (LocksInDrop(lock.clone()), send.clone());
            drop(runtime.spawn(std::future::poll_fn(move |cx| {
                let _ = (&held, send.send(cx.waker().clone()));
                Poll::<()>::Pending
            })));
        }
        let mut wakers: Vec<Waker> = wakers.into_iter().take(TASKS).collect();
        // Shutdown wakes the oldest first: many of these wakes come before its own, while the runtime closes.
        wakers.reverse();
        let guard = lock.lock().unwrap();
        let handle = runtime.handle();
        let shutdown = thread::spawn(move || drop(runtime));
        while !handle.spawn(async {}).is_finished() {}
        wakers.iter().for_each(Waker::wake_by_ref);
        drop(guard);
        shutdown.join().unwrap();
        assert_eq!(*lock.lock().unwrap(), TASKS);
    });
}

#[test]
fn r13_each_task_runs_on_its_own_runtime() {
    const TURNS: usize = 1000;
    fn name_begins(prefix: &str) {
        let name = thread::current().name().unwrap_or_default().to_owned();
        assert!(name.starts_with(prefix), "a task of {prefix} ran on {name}");
    }
    /// Turns taken, and who waits for the next.
    #[derive(Default)]
    struct Ball(Mutex<(usize, Option<Waker>)>);
    impl Ball {
        fn poll_turn(&self, mine: usize, cx: &mut Context<'_>) -> Poll<bool> {
            let mut ball = self.0.lock().unwrap();
            if ball.0 < TURNS && ball.0 % 2 != mine {
                ball.1 = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let goes_on = ball.0 < TURNS;
            ball.0 += usize::from(goes_on);
            let other = ball.1.take();
            drop(ball);
            if let Some(other) = other {
                other.wake();
            }
            Poll::Ready(goes_on)
        }
    }
    limited(|| {
        let [a, b] = ["alpha", "beta"].map(|name| Builder::new().procs(2).thread_name(name).build().unwrap());
        let ball = Arc::new(Ball::default());
        let players = [(&a, "alpha-", 0), (&b, "beta-", 1)].map(|(runtime, prefix, mine)| {
            let ball = ball.clone();
            runtime.spawn(async move {
                while std::future::poll_fn(|cx| ball.poll_turn(mine, cx)).await {
                    name_begins(prefix);
                }
            })
        });
        for player in players {
            a.block_on(player).unwrap();
        }
        assert_eq!(ball.0.lock().unwrap().0, TURNS);
    });
}

#[test]
fn r13_a_wake_after_the_end_does_nothing() {
    limited(|| {
        let runtime = runtime(1);
        let polls = Arc::new(AtomicUsize::new(0));
        let (counted, (send, wakers)) = (polls.clone(), channel());
        let task = runtime.spawn(std::future::poll_fn(move |cx| {
            counted.fetch_add(1, Ordering::SeqCst);
            send.send(cx.waker().clone()).unwrap();
            Poll::Ready(7)
        }));
        assert_eq!(runtime.block_on(task).unwrap(), 7);
        let waker = wakers.recv().unwrap();
        waker.wake_by_ref();
        let by_value = waker.clone();
        thread::scope(|scope| {
            scope.spawn(|| waker.wake_by_ref());
            scope.spawn(|| by_value.wake());
        });
        // A task spawned later runs later: a second poll would have been first.
        runtime.block_on(runtime.spawn(async {})).unwrap();
        drop(runtime);
        waker.wake_by_ref();
        assert_eq!(polls.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn r13_wakers_outlive_the_runtime_and_the_next_one() {
    limited(|| {
        let drops = Drops::default();
        let first = runtime(2);
        let door = Door::default();
        let (guard, task_door) = (drops.guard(), door.clone());
        let task = first.spawn(async move {
            let _guard = guard;
            task_door.await;
        });
        let waker = door.waker_of(1);
        drop(first);
        assert_eq!(drops.count(), 1, "the future does not wait for its waker");
        let second = runtime(2);
        waker.wake_by_ref();
        door.open();
        assert!(second.block_on(task).unwrap_err().is_cancelled());
        let metrics = second.metrics();
        assert_eq!((metrics.global_queue, metrics.live_tasks), (0, 0));
        drop(second);
        waker.wake();
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn r13_a_waker_wakes_in_its_own_drop() {
    /// Wakes a task when it is dropped, and when it is woken.
    struct WakesInDrop(Waker);
    impl Wake for WakesInDrop {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for WakesInDrop {
        fn drop(&mut self) {
            self.0.wake_by_ref();
        }
    }
    limited(|| {
        let runtime = runtime(1);
        let door = Door::default();
        let waiting = runtime.spawn(door.clone());
        let inner = door.waker_of(1);
        // As the waker of a timer, of a join handle, and of a task that is gone.
        let outer = Waker::from(Arc::new(WakesInDrop(inner.clone())));
        let mut handle = Box::pin(runtime.spawn(std::future::pending::<()>()));
        let _entered = runtime.enter();
        let mut sleep = Box::pin(gmp::time::sleep(Duration::from_secs(1000)));
        let mut cx = Context::from_waker(&outer);
        assert!(handle.as_mut().poll(&mut cx).is_pending());
        assert!(sleep.as_mut().poll(&mut cx).is_pending());
        drop(outer);
        let mut nothing = Context::from_waker(Waker::noop());
        assert!(handle.as_mut().poll(&mut nothing).is_pending());
        assert!(sleep.as_mut().poll(&mut nothing).is_pending());
        drop((handle, sleep));
        door.open();
        runtime.block_on(waiting).unwrap();
    });
}

#[test]
fn r24_wakes_and_handles_in_the_destructors_of_thread_locals() {
    struct AtExit {
        runtime: gmp::Handle,
        waker: Waker,
        _handle: gmp::task::JoinHandle<()>,
        drops: Drops,
        refused: Option<gmp::task::JoinHandle<()>>,
        said: std::sync::mpsc::Sender<gmp::task::JoinHandle<()>>,
    }
    impl Drop for AtExit {
        fn drop(&mut self) {
            self.waker.wake_by_ref();
            let guard = self.drops.guard();
            self.refused = Some(self.runtime.spawn(async move { drop(guard) }));
            self.said.send(self.refused.take().unwrap()).unwrap();
            // On a thread of the runtime this must not start the default runtime.
            drop(gmp::spawn(async {}));
        }
    }
    thread_local! {
        static AT_EXIT: RefCell<Option<AtExit>> = const { RefCell::new(None) };
    }
    limited(|| {
        let runtime = runtime(1);
        let drops = Drops::default();
        let door = Door::default();
        let (said, heard) = channel();
        let at_exit = || AtExit {
            runtime: runtime.handle(),
            waker: door.waker_of(1),
            _handle: runtime.spawn(std::future::pending()),
            drops: drops.clone(),
            refused: None,
            said: said.clone(),
        };
        let waiting = runtime.spawn(door.clone());
        door.waker_of(1);
        // A thread of the user's.
        let value = at_exit();
        thread::spawn(move || AT_EXIT.with(|cell| *cell.borrow_mut() = Some(value))).join().unwrap();
        runtime.block_on(heard.recv().unwrap()).expect("the runtime was there");
        // A thread of the runtime: its thread-locals go when the runtime is closed.
        let value = at_exit();
        let task = runtime.spawn(async move { AT_EXIT.with(|cell| *cell.borrow_mut() = Some(value)) });
        runtime.block_on(task).unwrap();
        drop(runtime);
        let refused = heard.recv().unwrap();
        let error = Builder::new().procs(1).build().unwrap().block_on(refused).unwrap_err();
        assert!(error.to_string().contains("runtime shut down"), "{error}");
        assert_eq!(drops.count(), 2);
        drop(waiting);
    });
}

/// Panics when it is woken.
struct Hostile;

impl Wake for Hostile {
    fn wake(self: Arc<Self>) {
        panic!("a hostile waker");
    }
}

/// Panics when it is dropped.
struct HostileInDrop;

impl Wake for HostileInDrop {
    fn wake(self: Arc<Self>) {}
}

impl Drop for HostileInDrop {
    fn drop(&mut self) {
        panic!("a hostile waker");
    }
}

#[test]
fn r13_a_waker_that_panics_in_a_batch_of_timers_costs_nobody_else_a_wake() {
    limited(|| {
        let runtime = runtime(1);
        let _entered = runtime.enter();
        let hostile = Waker::from(Arc::new(Hostile));
        let mut sleeps: Vec<_> = (0..10).map(|_| Box::pin(gmp::time::sleep(Duration::from_millis(5)))).collect();
        for sleep in &mut sleeps {
            assert!(sleep.as_mut().poll(&mut Context::from_waker(&hostile)).is_pending());
        }
        let sleepers: Vec<_> = (0..10).map(|_| runtime.spawn(gmp::time::sleep(Duration::from_millis(5)))).collect();
        for sleeper in sleepers {
            runtime.block_on(sleeper).unwrap();
        }
        for sleep in sleeps {
            runtime.block_on(sleep);
        }
        // A machine that died would have taken the only processor with it.
        assert_eq!(runtime.block_on(runtime.spawn(async { 7 })).unwrap(), 7);
    });
}

/// Neither on the machine that ends the task, nor in shutdown, which goes on to the others.
#[test]
fn r13_a_waker_that_panics_as_that_of_a_handle_does_no_harm() {
    limited(|| {
        let runtime = runtime(1);
        let hostile = Waker::from(Arc::new(Hostile));
        let (open, gate) = futures::channel::oneshot::channel::<()>();
        let mut ends = Box::pin(runtime.spawn(gate));
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(runtime.spawn(std::future::pending::<()>()))).collect();
        let mut cx = Context::from_waker(&hostile);
        assert!(ends.as_mut().poll(&mut cx).is_pending());
        for handle in &mut waiting {
            assert!(handle.as_mut().poll(&mut cx).is_pending());
        }
        open.send(()).unwrap();
        // One after the other on one processor, which is still there.
        assert_eq!(runtime.block_on(runtime.spawn(async { 7 })).unwrap(), 7);
        runtime.block_on(ends).unwrap().unwrap();
        drop(runtime);
        for handle in waiting {
            assert!(futures::executor::block_on(handle).unwrap_err().to_string().contains("runtime shut down"));
        }
    });
}

/// As above, of tasks that stay on one thread: where a waker panics in the hands of `async-task`, which has their
/// cells, the process ends.
#[test]
fn r13_a_waker_that_panics_as_that_of_the_handle_of_a_bound_task_does_no_harm() {
    limited(|| {
        let wakers = [|| Waker::from(Arc::new(Hostile)), || Waker::from(Arc::new(HostileInDrop))];
        for (waker, is_pinned) in wakers.into_iter().flat_map(|waker| [(waker, false), (waker, true)]) {
            let (runtime, set) = (runtime(2), LocalSet::new());
            let spawn = |gate: oneshot::Receiver<()>| {
                let future = async move { _ = gate.await };
                if is_pinned { runtime.spawn_pinned(|| future) } else { set.spawn_local(future) }
            };
            let (opens, gates): (Vec<_>, Vec<_>) = (0..4).map(|_| oneshot::channel()).unzip();
            let [mut ends, mut aborted, mut left, mut unwanted]: [_; 4] =
                gates.into_iter().map(spawn).collect::<Vec<_>>().try_into().unwrap();
            for handle in [&mut ends, &mut aborted, &mut left, &mut unwanted] {
                // Another one takes the place of the first.
                for waker in [waker(), waker()] {
                    assert!(Pin::new(&mut *handle).poll(&mut Context::from_waker(&waker)).is_pending());
                }
            }
            drop(unwanted);
            let mut opens = opens.into_iter();
            drop(opens.next());
            aborted.abort();
            runtime.block_on(set.run_until(async {
                while !(ends.is_finished() && aborted.is_finished()) {
                    yield_now().await;
                }
            }));
            drop((set, runtime));
            let error = futures::executor::block_on(left).unwrap_err().to_string();
            assert!(error.contains(if is_pinned { "runtime shut down" } else { "the set" }), "{error}");
            assert!(futures::executor::block_on(aborted).unwrap_err().is_cancelled());
            futures::executor::block_on(ends).unwrap();
        }
    });
}

/// The task goes on, and `async-task` keeps what it was given; the waker is let go.
#[test]
fn r13_a_waker_of_the_handle_of_a_bound_task_goes_with_the_handle() {
    limited(|| {
        struct Nothing;
        impl Wake for Nothing {
            fn wake(self: Arc<Self>) {}
        }
        let set = LocalSet::new();
        let nothing = Arc::new(Nothing);
        let mut handle = set.spawn_local(std::future::pending::<()>());
        assert!(Pin::new(&mut handle).poll(&mut Context::from_waker(&nothing.clone().into())).is_pending());
        assert_eq!(Arc::strong_count(&nothing), 2);
        drop(handle);
        assert_eq!(Arc::strong_count(&nothing), 1);
    });
}

/// Nor do those that panic while a runtime closes its sockets and its timers: tasks of another runtime that wait for a
/// socket of this one still hear of its end.
#[test]
fn r13_wakers_that_panic_while_a_runtime_closes() {
    limited(|| {
        let (closes, goes_on) = (runtime(1), runtime(1));
        let entered = closes.enter();
        let listen = || gmp::net::TcpListener::from_std(std::net::TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let (hostile, others) = (listen(), [listen(), listen()]);
        let waker = Waker::from(Arc::new(Hostile));
        assert!(hostile.poll_accept(&mut Context::from_waker(&waker)).is_pending());
        let waiting = others.map(|other| goes_on.spawn(async move { other.accept().await.map(drop) }));
        while closes.metrics().io_waiters < 3 {
            thread::yield_now();
        }
        let _sleeps = [(); 2].map(|()| {
            let mut sleep = Box::pin(gmp::time::sleep(Duration::from_secs(1000)));
            let waker = Waker::from(Arc::new(HostileInDrop));
            assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            sleep
        });
        drop(entered);
        drop(closes);
        for task in waiting {
            let error = goes_on.block_on(task).unwrap().unwrap_err();
            assert_eq!(error.to_string(), "runtime shut down");
        }
    });
}

/// What [`Own`] does at the end of its first poll.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Yield,
    Wait,
    End,
}

/// Makes so many wakers of its own in its first poll and drops some of them there. Its second poll is the last.
struct Own {
    made: usize,
    dropped: usize,
    then: Then,
    kept: Arc<Mutex<Vec<Waker>>>,
    polls: Arc<AtomicUsize>,
}

impl Future for Own {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.polls.fetch_add(1, Ordering::Relaxed) > 0 {
            return Poll::Ready(());
        }
        let mut made: Vec<_> = (0..self.made).map(|_| cx.waker().clone()).collect();
        made.truncate(self.made - self.dropped);
        *self.kept.lock().unwrap() = made;
        match self.then {
            Then::Yield => cx.waker().wake_by_ref(),
            Then::Wait => {}
            Then::End => return Poll::Ready(()),
        }
        Poll::Pending
    }
}

/// The memory of a task that has ended is not another's as long as a waker is left, however the poll ended that made
/// it: a wake would be the other's.
#[test]
fn r23_a_waker_keeps_the_memory_of_its_task_however_its_poll_ended() {
    let runtime = runtime(1);
    let own = |made, dropped, then| {
        let (kept, polls) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let future = Own { made, dropped, then, kept: kept.clone(), polls: polls.clone() };
        (gmp::spawn(future), kept, polls)
    };
    let all = (1..6).flat_map(|made| (0..made).map(move |dropped| (made, dropped)));
    let all = all.flat_map(|(made, dropped)| [Then::Yield, Then::Wait, Then::End].map(|then| (made, dropped, then)));
    let test = runtime.spawn(async move {
        for (made, dropped, then) in all {
            let (task, kept, polls) = own(made, dropped, then);
            while polls.load(Ordering::Relaxed) == 0 {
                yield_now().await;
            }
            if then == Then::Wait {
                kept.lock().unwrap()[0].wake_by_ref();
            }
            task.await.unwrap();
            let others: Vec<_> = (0..8).map(|_| own(0, 0, Then::Wait)).collect();
            while others.iter().any(|(_, _, polls)| polls.load(Ordering::Relaxed) == 0) {
                yield_now().await;
            }
            kept.lock().unwrap().drain(..).for_each(Waker::wake);
            for _ in 0..4 {
                yield_now().await;
            }
            for (other, _, polls) in others {
                assert_eq!(polls.load(Ordering::Relaxed), 1, "{made} {dropped} {then:?}");
                other.abort();
            }
        }
    });
    runtime.block_on(test).unwrap();
}
