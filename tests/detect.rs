//! Tasks that wait in vain: leaks are known exactly, deadlocks are guessed after a second, and nothing else is taken
//! for one.

use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use gmp::Builder;
use gmp::net::UdpSocket;
use gmp::runtime::{Handle, Runtime};
use gmp::signal::unix::{SignalKind, signal};
use gmp::task::LocalSet;

use limit::limited;

#[path = "support/limit.rs"]
mod limit;

/// One that a test need not wait a second for.
const SOON: Duration = Duration::from_millis(50);
/// One that no test lives to see.
const NEVER: Duration = Duration::from_secs(24 * 3600);

fn builder(after: Duration) -> Builder {
    Builder::new().procs(2).detect_deadlocks(true).deadlock_after(after)
}

fn runtime(after: Duration) -> Runtime {
    builder(after).build().unwrap()
}

/// What `f` panics with.
fn report_of<R>(f: impl FnOnce() -> R) -> String {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("there was no report"),
        Err(payload) => *payload.downcast::<String>().expect("a report is a text"),
    }
}

/// This very place, as reports have it.
#[track_caller]
fn here(lines_below: u32) -> String {
    let here = Location::caller();
    format!("{}:{}:", here.file(), here.line() + lines_below)
}

/// Waits until a runtime that began to be quiet before this call would have been called a deadlock: two others have.
fn outlive_a_deadlock() {
    for _ in 0..2 {
        let (_sender, receiver) = oneshot::channel::<()>();
        report_of(|| runtime(SOON).block_on(receiver));
    }
}

#[test]
fn r24_two_tasks_that_wait_for_each_other_are_reported() {
    limited(|| {
        let runtime = runtime(SOON);
        let ((to_a, a), (to_b, b)) = (oneshot::channel::<()>(), oneshot::channel::<()>());
        let at_a = here(1);
        let task_a = runtime.spawn(async move { a.await.map(|()| to_b.send(())) });
        let at_b = here(1);
        let task_b = runtime.spawn(async move { b.await.map(|()| to_a.send(())) });
        let (id_a, id_b) = (task_a.id(), task_b.id());
        let at_main = here(1);
        let report = report_of(|| runtime.block_on(async { (task_a.await, task_b.await) }));
        assert!(report.starts_with("deadlock: nothing has run for 50ms"), "{report}");
        assert!(report.contains("2 tasks wait, 0 of them leaked; 1 threads wait"), "{report}");
        assert!(report.contains(&format!("task {id_a} waits, spawned at {at_a}")), "{report}");
        assert!(report.contains(&format!("task {id_b} waits, spawned at {at_b}")), "{report}");
        assert!(report.contains(&format!("a thread waits in the `block_on` at {at_main}")), "{report}");
        assert!(report.contains("#[gmp::test(external_wakers)]"), "{report}");
        // The runtime goes on, and so would the tasks.
        assert_eq!(runtime.block_on(runtime.spawn(async { 7 })).unwrap(), 7);
        assert_eq!(runtime.metrics().live_tasks, 2);
    });
}

#[test]
fn r24_a_leaked_task_is_marked_in_the_report() {
    limited(|| {
        let runtime = runtime(SOON);
        let task = runtime.spawn(pending::<()>());
        let id = task.id();
        let report = report_of(|| runtime.block_on(task));
        assert!(report.contains("1 tasks wait, 1 of them leaked"), "{report}");
        assert!(report.contains(&format!("task {id} waits, spawned at {}", file!())), "{report}");
        assert!(report.contains("it is leaked"), "{report}");
    });
}

#[test]
fn r24_a_body_without_a_waker_is_reported_at_once() {
    limited(|| {
        for external in [false, true] {
            let runtime = builder(NEVER).external_wakers(external).build().unwrap();
            let at = here(1);
            let report = report_of(|| runtime.block_on(pending::<()>()));
            assert!(report.starts_with(&format!("deadlock: the future in the `block_on` at {at}")), "{report}");
            assert!(report.ends_with("no task waits, and no other thread"), "{report}");
            // Its waker goes later, on another thread.
            let (give, given) = channel::<Waker>();
            let keeper = thread::spawn(move || drop(given.recv().unwrap()));
            let report = report_of(|| {
                runtime.block_on(poll_fn(|cx| {
                    give.send(cx.waker().clone()).unwrap();
                    Poll::<()>::Pending
                }))
            });
            assert!(report.contains("no waker of it is left"), "{report}");
            keeper.join().unwrap();
        }
    });
}

/// Not the line of gmp that calls `block_on` for it.
#[test]
fn r24_a_local_set_that_waits_in_vain_is_reported_where_it_was_called() {
    limited(|| {
        let (runtime, set) = (runtime(SOON), LocalSet::new());
        let at = here(1);
        let report = report_of(|| set.block_on(&runtime, pending::<()>()));
        assert!(report.contains(&format!("a thread waits in the `block_on` at {at}")), "{report}");
    });
}

/// A body that was woken is polled, though its last waker went with that wake.
#[test]
fn r01_a_waker_used_up_is_no_leak() {
    limited(|| {
        let runtime = runtime(NEVER);
        let (give, given) = channel::<Waker>();
        let waker = thread::spawn(move || given.into_iter().for_each(Waker::wake));
        for _ in 0..1000 {
            let mut polled = false;
            runtime.block_on(poll_fn(|cx| {
                if std::mem::replace(&mut polled, true) {
                    return Poll::Ready(());
                }
                give.send(cx.waker().clone()).unwrap();
                Poll::Pending
            }));
            let give = give.clone();
            let mut polled = false;
            let task = runtime.spawn(poll_fn(move |cx| {
                if std::mem::replace(&mut polled, true) {
                    return Poll::Ready(());
                }
                give.send(cx.waker().clone()).unwrap();
                Poll::Pending
            }));
            runtime.block_on(task).unwrap();
        }
        drop(give);
        waker.join().unwrap();
        assert_eq!(runtime.leaked_tasks(), []);
    });
}

#[test]
fn r18_leaked_tasks_are_listed_exactly() {
    /// Gives away each waker that it is polled with.
    async fn giving(give: Sender<Waker>) {
        poll_fn(|cx| {
            give.send(cx.waker().clone()).unwrap();
            Poll::Pending
        })
        .await
    }
    limited(|| {
        let runtime = builder(NEVER).procs(1).build().unwrap();
        let leaked = || runtime.leaked_tasks().iter().map(|task| task.id).collect::<Vec<_>>();
        let (give, kept) = channel();
        let (give_dropped, dropped) = channel();
        let at_never = here(1);
        let never = runtime.spawn(pending::<()>());
        let keeps = runtime.spawn(giving(give));
        let drops = runtime.spawn(giving(give_dropped));
        let timer = runtime.spawn(gmp::time::sleep(NEVER));
        let waker = kept.recv().unwrap();
        let other: Waker = dropped.recv().unwrap();
        // The one processor came to the first task first, and to those two: when it comes to this one, their polls are
        // over.
        runtime.block_on(runtime.spawn(async {})).unwrap();
        assert_eq!(leaked(), [never.id()]);
        assert!(runtime.leaked_tasks()[0].location.to_string().starts_with(&at_never));
        drop(other);
        assert_eq!(leaked(), [never.id(), drops.id()]);
        // Clones count, and one that is left is enough.
        let clones = [waker.clone(), waker.clone()];
        drop(waker);
        assert_eq!(leaked(), [never.id(), drops.id()]);
        assert_eq!(runtime.metrics().leaked_tasks, 2);
        drop(clones);
        assert_eq!(leaked(), [never.id(), keeps.id(), drops.id()]);
        assert_eq!(runtime.handle().leaked_tasks().len(), 3);
        // A leaked task can be aborted, and is none any more.
        never.abort();
        assert!(runtime.block_on(never).unwrap_err().is_cancelled());
        assert_eq!(leaked(), [keeps.id(), drops.id()]);
        drop(timer);
    });
}

#[test]
fn r13_clones_of_a_counted_waker_are_equal_and_outlive_the_runtime() {
    limited(|| {
        let runtime = runtime(NEVER);
        let (give, given) = channel();
        let mut first: Option<Waker> = None;
        let task = runtime.spawn(poll_fn(move |cx| {
            let before = first.get_or_insert_with(|| cx.waker().clone());
            assert!(before.will_wake(cx.waker()) && before.clone().will_wake(cx.waker()));
            give.send(cx.waker().clone()).unwrap();
            Poll::<()>::Pending
        }));
        // Each wake is one poll more.
        let wakers: Vec<Waker> = (0..10).map(|_| given.recv().unwrap()).inspect(Waker::wake_by_ref).collect();
        drop(runtime);
        assert!(task.is_finished());
        let another = self::runtime(NEVER);
        thread::spawn(move || {
            let clones = wakers.clone();
            wakers.iter().for_each(Waker::wake_by_ref);
            clones.into_iter().for_each(Waker::wake);
            drop(wakers);
        })
        .join()
        .unwrap();
        assert_eq!(another.metrics().polled, 0);
        assert_eq!(another.block_on(another.spawn(async { 7 })).unwrap(), 7);
    });
}

/// A body that only a plain thread can wake, and what else there is beside it.
struct Beside {
    runtime: Runtime,
    body: oneshot::Receiver<()>,
    sender: oneshot::Sender<()>,
}

impl Beside {
    fn new(builder: Builder) -> Self {
        let (sender, body) = oneshot::channel();
        Beside { runtime: builder.build().unwrap(), body, sender }
    }

    /// The body waits for longer than a deadlock would take, and goes on.
    fn goes_on(self) -> Runtime {
        let Beside { runtime, body, sender } = self;
        let plain = thread::spawn(move || {
            outlive_a_deadlock();
            sender.send(()).unwrap();
        });
        assert_eq!(runtime.block_on(body), Ok(()));
        plain.join().unwrap();
        runtime
    }
}

#[test]
fn r24_a_body_that_only_a_plain_thread_can_wake_is_taken_for_a_deadlock() {
    limited(|| {
        let Beside { runtime, body, sender } = Beside::new(builder(SOON));
        let report = report_of(|| runtime.block_on(body));
        assert!(report.contains("0 tasks wait"), "{report}");
        drop(sender);
    });
}

#[test]
fn r24_external_wakers_are_waited_for() {
    limited(|| drop(Beside::new(builder(SOON).external_wakers(true)).goes_on()));
}

#[test]
fn r24_without_detection_nothing_is_reported() {
    limited(|| {
        let beside = Beside::new(Builder::new().procs(2).deadlock_after(SOON));
        drop(beside.runtime.spawn(pending::<()>()));
        beside.runtime.block_on(beside.runtime.spawn(async {})).unwrap();
        assert_eq!(beside.runtime.leaked_tasks(), []);
        assert_eq!(beside.runtime.metrics().leaked_tasks, 0);
        drop(beside.goes_on());
    });
}

#[test]
fn r24_a_task_that_waits_for_a_socket_is_no_deadlock() {
    limited(|| {
        let beside = Beside::new(builder(SOON));
        let socket = beside.runtime.block_on(UdpSocket::bind("127.0.0.1:0")).unwrap();
        drop(beside.runtime.spawn(async move { socket.recv_from(&mut [0]).await.map(drop) }));
        drop(beside.goes_on());
    });
}

#[test]
fn r24_a_task_that_waits_for_a_signal_is_no_deadlock() {
    limited(|| {
        let beside = Beside::new(builder(SOON));
        drop(beside.runtime.spawn(async { signal(SignalKind::user_defined2()).unwrap().recv().await }));
        drop(beside.goes_on());
    });
}

#[test]
fn r24_a_task_that_waits_for_a_timer_is_no_deadlock() {
    limited(|| {
        let beside = Beside::new(builder(SOON));
        drop(beside.runtime.spawn(gmp::time::sleep(NEVER)));
        drop(beside.goes_on());
    });
}

#[test]
fn r24_a_blocking_closure_is_no_deadlock_and_its_end_may_be() {
    limited(|| {
        let beside = Beside::new(builder(SOON));
        let (end, ended) = channel::<()>();
        drop(beside.runtime.spawn_blocking(move || ended.recv()));
        let Beside { runtime, body, sender } = beside;
        let plain = thread::spawn(move || {
            outlive_a_deadlock();
            sender.send(()).unwrap();
        });
        assert_eq!(runtime.block_on(body), Ok(()));
        plain.join().unwrap();
        // Nobody waits for its handle: its end wakes no task, and is noticed all the same.
        let (_sender, receiver) = oneshot::channel::<()>();
        let ender = thread::spawn(move || {
            outlive_a_deadlock();
            end.send(()).unwrap();
        });
        report_of(|| runtime.block_on(receiver));
        ender.join().unwrap();
        // Its thread is through with it.
        while runtime.metrics().blocking_idle_threads == 0 {
            thread::yield_now();
        }
    });
}

/// With its processor, and after that was taken for other tasks.
#[test]
fn r24_a_poll_that_blocks_is_no_deadlock() {
    limited(|| {
        for (in_place, taken) in [(false, false), (false, true), (true, false), (true, true)] {
            let beside = Beside::new(builder(SOON).procs(1).on_stuck(|_| ()));
            let ((end, ended), (begin, began)) = (channel::<()>(), channel::<()>());
            drop(beside.runtime.spawn(async move {
                begin.send(()).unwrap();
                let blocks = || ended.recv();
                if in_place { gmp::block_in_place(blocks) } else { blocks() }
            }));
            began.recv().unwrap();
            if taken {
                beside.runtime.block_on(beside.runtime.spawn(gmp::task::yield_now())).unwrap();
                let metrics = beside.runtime.metrics();
                assert!(if in_place { metrics.retakes > 0 } else { metrics.rescues > 0 }, "{metrics:?}");
            }
            let runtime = beside.goes_on();
            drop(end);
            drop(runtime);
        }
    });
}

#[test]
fn r24_a_thread_that_has_entered_the_runtime_is_no_deadlock() {
    limited(|| {
        let Beside { runtime, body, sender } = Beside::new(builder(SOON));
        let handle = runtime.handle();
        let plain = thread::spawn(move || {
            let _inside = handle.enter();
            outlive_a_deadlock();
            sender.send(()).unwrap();
        });
        // The other one is inside before this one waits.
        let _inside = runtime.enter();
        assert_eq!(runtime.block_on(body), Ok(()));
        plain.join().unwrap();
        // A thread that waits itself in a `block_on` is not about to wake anybody.
        let (_sender, receiver) = oneshot::channel::<()>();
        report_of(|| runtime.block_on(receiver));
    });
}

#[test]
fn r24_a_wait_in_another_runtime_is_no_deadlock_of_this_one() {
    limited(|| {
        let other = Builder::new().procs(1).build().unwrap();
        let Beside { runtime, body, sender } = Beside::new(builder(SOON));
        let task = runtime.spawn(async move { other.block_on(body) });
        let plain = thread::spawn(move || {
            outlive_a_deadlock();
            sender.send(()).unwrap();
        });
        assert_eq!(runtime.block_on(task).unwrap(), Ok(()));
        plain.join().unwrap();
    });
}

#[test]
fn r24_every_block_on_inside_another_is_told() {
    limited(|| {
        let runtime = runtime(SOON);
        let (inner, outer) = (channel(), channel());
        let (told, handle) = (inner.0, runtime.handle());
        // In a task, and in a blocking closure.
        let task = runtime.spawn(async move {
            let (_sender, receiver) = oneshot::channel::<()>();
            told.send(report_of(|| gmp::block_on(receiver))).unwrap();
            pending::<()>().await;
        });
        let told = outer.0;
        drop(runtime.spawn_blocking(move || {
            let (_sender, receiver) = oneshot::channel::<()>();
            told.send(report_of(|| handle.block_on(receiver))).unwrap();
        }));
        let report = report_of(|| runtime.block_on(task));
        assert!(report.contains("3 threads wait"), "{report}");
        for told in [inner.1.recv().unwrap(), outer.1.recv().unwrap()] {
            assert_eq!(told, report);
        }
    });
}

#[test]
fn r24_a_block_on_inside_the_same_one_is_told() {
    limited(|| {
        let runtime = runtime(SOON);
        let (_sender, receiver) = oneshot::channel::<()>();
        let report = report_of(|| runtime.block_on(async { runtime.block_on(receiver) }));
        assert!(report.contains("1 threads wait"), "{report}");
    });
}

#[test]
fn r24_a_block_on_that_waits_for_a_local_task_around_it_is_told() {
    limited(|| {
        let runtime = runtime(SOON);
        let report = report_of(|| {
            runtime.block_on(async {
                let task = gmp::task::spawn_local(async { 1 });
                gmp::block_on(task)
            })
        });
        assert!(report.starts_with("deadlock: nothing has run for 50ms"), "{report}");
    });
}

/// Tasks that are bound to a thread are told of like others.
#[test]
fn r24_local_and_pinned_tasks_are_told() {
    limited(|| {
        let runtime = runtime(SOON);
        let at_pinned = here(1);
        let pinned = runtime.spawn(async { gmp::task::spawn_pinned(pending::<()>).await.unwrap() });
        let report = report_of(|| {
            runtime.block_on(async {
                let local = gmp::task::spawn_local(pending::<()>());
                let (_sender, receiver) = oneshot::channel::<()>();
                let never_sent = gmp::task::spawn_local(receiver);
                drop((local.await, never_sent.await));
            })
        });
        assert!(report.contains("4 tasks wait, 2 of them leaked; 1 threads wait"), "{report}");
        let of_pinned = report.lines().find(|line| line.contains(&at_pinned) && line.contains("leaked"));
        assert!(of_pinned.is_some(), "{report}");
        assert_eq!(report.matches(&format!("spawned at {}", file!())).count(), 4, "{report}");
        // It goes on to wait.
        outlive_a_deadlock();
        assert!(!pinned.is_finished());
        let leaked: Vec<_> = runtime.leaked_tasks().iter().map(ToString::to_string).collect();
        assert!(matches!(&leaked[..], [task] if task.contains(&at_pinned)), "{leaked:?}");
    });
}

/// Nobody waits in a `block_on`: what a plain thread is told is a line on standard error.
#[test]
fn r24_without_a_block_on_the_report_is_printed() {
    const CHILD: &str = "GMP_TEST_DETECT_CHILD";
    if std::env::var_os(CHILD).is_none() {
        let this = std::env::current_exe().unwrap();
        let name = "r24_without_a_block_on_the_report_is_printed";
        let output = Command::new(this).args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
        let printed = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{printed}");
        assert_eq!(printed.matches("gmp: deadlock: nothing has run for 50ms").count(), 1, "{printed}");
        assert!(printed.contains(&format!("spawned at {}", file!())), "{printed}");
        return;
    }
    limited(|| {
        let runtime = runtime(SOON);
        let (sender, receiver) = oneshot::channel::<()>();
        let task = runtime.spawn(receiver);
        // It is printed meanwhile, once, and the task stays as it is.
        for _ in 0..3 {
            outlive_a_deadlock();
        }
        sender.send(()).unwrap();
        // A handle that was not polled before: the first poll finds the output.
        while !task.is_finished() {
            thread::yield_now();
        }
        assert_eq!(Handle::block_on(&runtime.handle(), task).unwrap(), Ok(()));
    });
}

#[gmp::test]
#[should_panic(expected = "deadlock: nothing has run for 1s")]
async fn r24_a_test_that_waits_in_vain_fails() {
    let (_sender, receiver) = oneshot::channel::<()>();
    let _ = receiver.await;
}

#[gmp::test(external_wakers)]
async fn r24_a_test_may_wait_for_plain_threads() {
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || {
        // The attribute's runtime takes a second: so does this one.
        let (_sender, never) = oneshot::channel::<()>();
        let runtime = Builder::new().procs(1).detect_deadlocks(true).build().unwrap();
        report_of(|| runtime.block_on(never));
        outlive_a_deadlock();
        sender.send(7).unwrap();
    });
    assert_eq!(receiver.await, Ok(7));
}

#[gmp::test(external_wakers)]
#[should_panic(expected = "no waker of it is left")]
async fn r24_a_test_without_a_waker_fails_whoever_wakes() {
    pending::<()>().await;
}

/// When its poll ends the watcher sleeps deeply, and no processor is taken.
#[test]
fn r24_a_body_that_was_stuck_and_then_waits_in_vain_is_reported() {
    limited(|| {
        let runtime = builder(SOON).procs(1).on_stuck(|_| ()).build().unwrap();
        let (_sender, mut receiver) = oneshot::channel::<()>();
        let mut polled = false;
        let body = poll_fn(|cx| {
            if !std::mem::replace(&mut polled, true) {
                // It is rescued, and all the others have long been idle.
                let other = runtime.spawn(async {});
                while !other.is_finished() {
                    thread::yield_now();
                }
                thread::sleep(Duration::from_millis(500));
            }
            receiver.poll_unpin(cx).map(drop)
        });
        let report = report_of(|| runtime.block_on(body));
        assert!(report.starts_with("deadlock: nothing has run"), "{report}");
    });
}

#[test]
fn r24_a_wait_in_a_runtime_that_is_gone_is_none_of_the_next() {
    limited(|| {
        let old = Builder::new().procs(1).build().unwrap();
        let (sender, receiver) = oneshot::channel::<()>();
        let handle = old.handle();
        let (begin, began) = channel();
        let plain = thread::spawn(move || {
            handle.block_on(async move {
                begin.send(()).unwrap();
                receiver.await
            })
        });
        began.recv().unwrap();
        thread::sleep(Duration::from_millis(100));
        drop(old);
        // Several, as other tests may take the slot.
        let next: Vec<_> = (0..8).map(|_| runtime(SOON)).collect();
        for runtime in &next {
            let (_sender, never) = oneshot::channel::<()>();
            report_of(|| runtime.block_on(never));
        }
        sender.send(()).unwrap();
        assert_eq!(plain.join().unwrap(), Ok(()));
    });
}

/// One thread is stuck, which is the limit, another one in a poll that keeps its processor, and a third has been let go
/// on without one: no deadlock. When all of that is over, what is left is one.
#[test]
fn r24_polls_at_the_limit_of_stuck_threads_are_no_deadlock_and_their_end_may_be() {
    limited(|| {
        let runtime = builder(SOON).procs(1).max_stuck(1).on_stuck(|_| ()).build().unwrap();
        let blocks = || {
            let ((end, ended), (begin, began)) = (channel::<()>(), channel::<()>());
            let task = runtime.spawn(async move {
                begin.send(()).unwrap();
                let _ = ended.recv();
            });
            (task, end, began)
        };
        let (first, end_first, began) = blocks();
        began.recv().unwrap();
        let (_sender, receiver) = oneshot::channel::<()>();
        let report = report_of(|| {
            runtime.block_on(async {
                let second = gmp::block_in_place(|| {
                    let (second, end_second, began) = blocks();
                    began.recv().unwrap();
                    (second, end_second)
                });
                // No processor: the first poll has given its own up, the second has the other.
                let metrics = runtime.metrics();
                assert!(metrics.releases > 0 && metrics.stuck_threads == 2, "{metrics:?}");
                outlive_a_deadlock();
                drop((end_first, second.1));
                first.await.unwrap();
                second.0.await.unwrap();
                receiver.await
            })
        });
        assert!(report.starts_with("deadlock: nothing has run for 50ms"), "{report}");
        assert!(report.contains("0 tasks wait, 0 of them leaked; 1 threads wait"), "{report}");
        assert_eq!(runtime.metrics().stuck_threads, 0);
    });
}

/// A pinned task is leaked like any other, and not while somebody can wake it, nor when it was.
#[test]
fn r24_a_pinned_task_is_leaked_when_its_last_waker_goes() {
    limited(|| {
        let runtime = runtime(NEVER);
        let _entered = runtime.enter();
        let (give, given) = channel::<Waker>();
        let pinned = gmp::task::spawn_pinned(move || {
            let mut polls = 0;
            poll_fn(move |cx| {
                polls += 1;
                give.send(cx.waker().clone()).unwrap();
                if polls < 3 { Poll::Pending } else { Poll::Ready(()) }
            })
        });
        let waker = given.recv().unwrap();
        assert_eq!(runtime.leaked_tasks(), []);
        waker.wake();
        let waker = given.recv().unwrap();
        assert_eq!(runtime.leaked_tasks(), []);
        drop(waker);
        let leaked = loop {
            match runtime.leaked_tasks().pop() {
                Some(leaked) => break leaked,
                None => thread::yield_now(),
            }
        };
        assert_eq!(leaked.id, pinned.id());
        assert_eq!(runtime.metrics().leaked_tasks, 1);
        pinned.abort();
        assert!(runtime.block_on(pinned).unwrap_err().is_cancelled());
    });
}

/// While the watcher only waits to see whether the runtime is dead, it still looks when it is woken: a pinned thread
/// may not start a machine, and asks it to.
#[test]
fn r01_a_watcher_that_waits_for_a_deadlock_starts_machines() {
    limited(|| {
        for _ in 0..5 {
            let runtime = builder(Duration::from_secs(60)).procs(1).build().unwrap();
            let (sender, receiver) = oneshot::channel();
            let pinned = runtime.handle().spawn_pinned(|| async move {
                receiver.await.unwrap();
                gmp::spawn(async {}).await.unwrap();
            });
            let mut looks = (0, runtime.metrics().sysmon_looks);
            while looks.0 != looks.1 {
                thread::sleep(Duration::from_millis(150));
                looks = (looks.1, runtime.metrics().sysmon_looks);
            }
            sender.send(()).unwrap();
            futures::executor::block_on(pinned).unwrap();
        }
    });
}
