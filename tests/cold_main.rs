//! The first task of a runtime, which the main thread waits for: that thread polls it itself, where that delays nobody.
//! Without the harness, whose tests are not on the main thread. Each of these hangs if a promise is broken.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::mpsc;
use std::thread::{self, ThreadId};

use gmp::runtime::{Builder, Runtime};
use gmp::task::yield_now;

use child::fork;
use limit::limited;

#[path = "support/child.rs"]
mod child;
#[path = "support/limit.rs"]
mod limit;

fn main() {
    println!("running a_first_task_that_main_waits_for_needs_no_thread");
    limited(a_first_task_that_main_waits_for_needs_no_thread);
    println!("running r03_a_task_goes_to_a_machine_when_it_does_not_end");
    check(r03_a_task_goes_to_a_machine_when_it_does_not_end);
    println!("running r03_a_root_that_another_can_wake_is_not_delayed");
    check(r03_a_root_that_another_can_wake_is_not_delayed);
    println!("running r03_a_root_that_has_dropped_the_handle_is_not_delayed");
    check(r03_a_root_that_has_dropped_the_handle_is_not_delayed);
    println!("running r03_a_root_whose_handle_is_another_threads_is_not_delayed");
    check(r03_a_root_whose_handle_is_another_threads_is_not_delayed);
    println!("running r03_a_task_that_blocks_on_the_main_thread_delays_no_other");
    check(r03_a_task_that_blocks_on_the_main_thread_delays_no_other);
    println!("running r12_a_task_that_panics_on_the_main_thread_ends_alone");
    check(r12_a_task_that_panics_on_the_main_thread_ends_alone);
    println!("running a_task_on_the_main_thread_is_in_no_local_set");
    check(a_task_on_the_main_thread_is_in_no_local_set);
    println!("running a_task_on_the_main_thread_is_in_its_own_runtime");
    check(a_task_on_the_main_thread_is_in_its_own_runtime);
    println!("running a_task_on_the_main_thread_may_block_in_place_and_block_on");
    check(a_task_on_the_main_thread_may_block_in_place_and_block_on);
    println!("running r24_a_child_forked_on_the_main_thread_ends_with_the_poll");
    check(r24_a_child_forked_on_the_main_thread_ends_with_the_poll);
    println!("running tasks_stay_where_threads_are_made_as_the_user_says");
    limited(tasks_stay_where_threads_are_made_as_the_user_says);
}

fn runtime(procs: usize) -> Runtime {
    Builder::new().procs(procs).build().unwrap()
}

/// Of several starts: the first machine may be faster.
fn check(f: impl Fn(&Runtime)) {
    limited(|| {
        for procs in [1, 2].repeat(10) {
            f(&runtime(procs));
        }
    });
}

async fn thread() -> ThreadId {
    thread::current().id()
}

fn a_first_task_that_main_waits_for_needs_no_thread() {
    let here = thread::current().id();
    for procs in [1, 2, 4] {
        let mut starts = (0..50).map(|_| {
            let runtime = runtime(procs);
            runtime.block_on(async { gmp::spawn(thread()).await.unwrap() })
        });
        assert!(starts.any(|ran_on| ran_on == here), "with {procs} processors");
        let mut starts = (0..50).map(|_| {
            let runtime = runtime(procs);
            thread::scope(|scope| {
                let other = scope.spawn(|| {
                    let ran_on = runtime.block_on(async { gmp::spawn(thread()).await.unwrap() });
                    (ran_on, thread::current().id())
                });
                other.join().unwrap()
            })
        });
        assert!(starts.all(|(ran_on, other)| ran_on != other), "the stack of that thread may be a small one");
    }
}

fn r03_a_task_goes_to_a_machine_when_it_does_not_end(runtime: &Runtime) {
    let here = thread::current().id();
    let ran_on = runtime.block_on(async {
        let task = gmp::spawn(async {
            yield_now().await;
            thread().await
        });
        task.await.unwrap()
    });
    assert_ne!(ran_on, here);
}

/// The task tells the root, and goes on when the root has come to that.
fn r03_a_root_that_another_can_wake_is_not_delayed(runtime: &Runtime) {
    let (ready, woken) = gmp::chan::bounded(1);
    let (go_on, wait) = mpsc::channel();
    runtime.block_on(async {
        let mut task = pin!(gmp::spawn(async move {
            ready.try_send(()).unwrap();
            wait.recv().unwrap();
        }));
        let mut recv = pin!(woken.recv());
        poll_fn(|cx| {
            assert!(task.as_mut().poll(cx).is_pending());
            recv.as_mut().poll(cx)
        })
        .await
        .unwrap();
        go_on.send(()).unwrap();
        task.await.unwrap();
    });
}

/// The root has waited for the task in the same poll, and waits for something else.
fn r03_a_root_that_has_dropped_the_handle_is_not_delayed(runtime: &Runtime) {
    let (ready, woken) = gmp::chan::bounded(1);
    let (go_on, wait) = mpsc::channel();
    runtime.block_on(async {
        let mut task = Some(gmp::spawn(async move {
            ready.try_send(()).unwrap();
            wait.recv().unwrap();
        }));
        let mut recv = pin!(woken.recv());
        poll_fn(|cx| {
            if let Some(mut task) = task.take() {
                let _ = pin!(&mut task).poll(cx);
            }
            recv.as_mut().poll(cx)
        })
        .await
        .unwrap();
        go_on.send(()).unwrap();
    });
}

/// Another thread waits for the task by now, with a waker of its own.
fn r03_a_root_whose_handle_is_another_threads_is_not_delayed(runtime: &Runtime) {
    let (ready, woken) = gmp::chan::bounded(1);
    let (go_on, wait) = mpsc::channel();
    let joiner = runtime.block_on(async {
        let mut task = Some(gmp::spawn(async move {
            ready.try_send(()).unwrap();
            wait.recv().unwrap();
        }));
        let mut recv = pin!(woken.recv());
        let mut joiner = None;
        poll_fn(|cx| {
            if let Some(mut task) = task.take() {
                if pin!(&mut task).poll(cx).is_pending() {
                    let (polled, is_polled) = mpsc::channel();
                    joiner = Some(thread::spawn(move || {
                        futures::executor::block_on(async {
                            let mut task = pin!(task);
                            poll_fn(|cx| {
                                let joined = task.as_mut().poll(cx);
                                let _ = polled.send(());
                                joined
                            })
                            .await
                            .unwrap();
                        });
                    }));
                    is_polled.recv().unwrap();
                }
            }
            recv.as_mut().poll(cx)
        })
        .await
        .unwrap();
        go_on.send(()).unwrap();
        joiner
    });
    joiner.into_iter().for_each(|joiner| joiner.join().unwrap());
}

/// What it waits for is a task of its own, which a machine is to run; and one from outside.
fn r03_a_task_that_blocks_on_the_main_thread_delays_no_other(runtime: &Runtime) {
    let handle = runtime.handle();
    runtime.block_on(async {
        let task = gmp::spawn(async move {
            let (send, wait) = mpsc::channel();
            let send_too = send.clone();
            drop(gmp::spawn(async move { send.send(()).unwrap() }));
            thread::spawn(move || drop(handle.spawn(async move { send_too.send(()).unwrap() }))).join().unwrap();
            wait.recv().unwrap();
            wait.recv().unwrap();
        });
        task.await.unwrap();
    });
}

fn r12_a_task_that_panics_on_the_main_thread_ends_alone(runtime: &Runtime) {
    runtime.block_on(async {
        let task = gmp::spawn(async { std::panic::resume_unwind(Box::new("struck")) });
        let error = task.await.map(|()| {}).unwrap_err();
        assert_eq!(error.into_panic().downcast_ref(), Some(&"struck"));
        gmp::spawn(async {}).await.unwrap();
    });
}

fn a_task_on_the_main_thread_is_in_no_local_set(runtime: &Runtime) {
    runtime.block_on(async {
        let task = gmp::spawn(async {
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(|_| {}));
            let spawned = catch_unwind(AssertUnwindSafe(|| drop(gmp::task::spawn_local(async {}))));
            std::panic::set_hook(hook);
            spawned.is_err()
        });
        assert!(task.await.unwrap(), "it has spawned into the `block_on` around it");
        // That is there again.
        assert_eq!(gmp::task::spawn_local(async { 7 }).await.unwrap(), 7);
    });
}

fn a_task_on_the_main_thread_is_in_its_own_runtime(runtime: &Runtime) {
    let other = Builder::new().procs(1).build().unwrap();
    runtime.block_on(async {
        let task = gmp::spawn(async { drop(gmp::spawn(async {})) });
        let entered = other.enter();
        task.await.unwrap();
        drop(entered);
    });
    assert_eq!(other.metrics().spawned, 0, "it has spawned where the root is");
}

fn a_task_on_the_main_thread_may_block_in_place_and_block_on(runtime: &Runtime) {
    let sum = runtime.block_on(async {
        let task = gmp::spawn(async {
            let (send, wait) = mpsc::channel();
            drop(gmp::spawn(async move { send.send(1).unwrap() }));
            let first = gmp::task::block_in_place(|| wait.recv().unwrap());
            first + gmp::block_on(async { gmp::spawn(async { 2 }).await.unwrap() })
        });
        task.await.unwrap()
    });
    assert_eq!(sum, 3);
}

fn r24_a_child_forked_on_the_main_thread_ends_with_the_poll(runtime: &Runtime) {
    let child = runtime.block_on(async { gmp::spawn(async { fork() }).await.unwrap() });
    let (status, said) = child.expect("the child went on as if it were the parent").ended();
    assert!(said.contains("a child of a fork"), "status {status}: {said}");
}

fn tasks_stay_where_threads_are_made_as_the_user_says() {
    let here = thread::current().id();
    for _ in 0..20 {
        for builder in [
            Builder::new().on_thread_start(|| {}),
            Builder::new().on_thread_stop(|| {}),
            Builder::new().thread_stack_size(16 << 20),
        ] {
            let runtime = builder.procs(1).build().unwrap();
            assert_ne!(runtime.block_on(async { gmp::spawn(thread()).await.unwrap() }), here);
        }
    }
}
