//! Aborting a task: at most the poll that goes on is finished, and the future is dropped once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

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
fn r15_before_the_first_poll() {
    limited(|| {
        let runtime = runtime(1);
        let drops = Drops::default();
        let polls = Arc::new(AtomicUsize::new(0));
        // Both run on the one processor: the inner task cannot be polled before the outer one lets go.
        let (guard, counted) = (drops.guard(), polls.clone());
        let task = runtime.spawn(async move {
            let inner = gmp::spawn(async move {
                let _guard = guard;
                counted.fetch_add(1, Ordering::SeqCst);
            });
            inner.abort();
            inner.await
        });
        assert!(runtime.block_on(task).unwrap().unwrap_err().is_cancelled());
        assert_eq!((polls.load(Ordering::SeqCst), drops.count()), (0, 1));
    });
}

#[test]
fn r15_while_it_waits_from_another_thread() {
    limited(|| {
        let runtime = runtime(2);
        let drops = Drops::default();
        let (guard, door) = (drops.guard(), Door::default());
        let inside = door.clone();
        let task = runtime.spawn(async move {
            let _guard = guard;
            inside.await;
        });
        door.waker_of(1);
        let abort = task.abort_handle();
        assert!(!abort.is_finished());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| abort.clone().abort());
            }
        });
        let id = task.id();
        let error = runtime.block_on(task).unwrap_err();
        assert!(error.is_cancelled() && error.id() == id && abort.id() == id);
        assert!(abort.is_finished());
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn r15_while_it_runs() {
    /// Whether the task ends in the poll in which it is aborted.
    fn check(ends: bool) {
        let runtime = runtime(1);
        let drops = Drops::default();
        let guard = drops.guard();
        let (inside, arrived) = channel();
        let (release, released) = channel();
        let mut first = true;
        let task = runtime.spawn(std::future::poll_fn(move |_| {
            let _ = &guard;
            assert!(std::mem::replace(&mut first, false), "a poll began after the abort");
            inside.send(()).unwrap();
            released.recv().unwrap();
            if ends { std::task::Poll::Ready(7) } else { std::task::Poll::Pending }
        }));
        arrived.recv().unwrap();
        task.abort();
        assert_eq!(drops.count(), 0, "the poll goes on with its future");
        release.send(()).unwrap();
        match runtime.block_on(task) {
            Ok(output) => assert!(ends && output == 7),
            Err(error) => assert!(!ends && error.is_cancelled()),
        }
        assert_eq!(drops.count(), 1);
    }
    limited(|| [true, false].map(check));
}

#[test]
fn r15_after_it_ended() {
    limited(|| {
        let runtime = runtime(1);
        let task = runtime.spawn(async { 7 });
        let early = task.abort_handle();
        while !task.is_finished() {
            thread::yield_now();
        }
        task.abort();
        early.abort();
        let late = task.abort_handle();
        assert!(early.is_finished() && late.is_finished());
        late.abort();
        assert_eq!(runtime.block_on(task).unwrap(), 7);
    });
}

/// The entry of a task that has ended goes to the next one that is spawned.
#[test]
fn r15_a_late_abort_does_not_hit_the_next_task_in_the_registry() {
    limited(|| {
        let runtime = runtime(1);
        for _ in 0..100 {
            let mut ended = runtime.spawn(async {});
            let handle = ended.abort_handle();
            runtime.block_on(&mut ended).unwrap();
            let door = Door::default();
            let next = runtime.spawn(door.clone());
            door.waker_of(1);
            ended.abort();
            handle.abort();
            assert!(handle.is_finished() && !next.is_finished());
            door.open();
            runtime.block_on(next).expect("nobody aborted this one");
        }
    });
}

#[test]
fn r15_aborts_race_with_ends() {
    limited(|| {
        let runtime = runtime(2);
        let drops = Drops::default();
        const TASKS: usize = 5000;
        let (send, aborts) = channel::<gmp::task::AbortHandle>();
        let aborter = thread::spawn(move || aborts.into_iter().for_each(|abort| abort.abort()));
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let guard = drops.guard();
                let task = runtime.spawn(async move {
                    gmp::task::yield_now().await;
                    drop(guard);
                });
                send.send(task.abort_handle()).unwrap();
                task
            })
            .collect();
        drop(send);
        for task in tasks {
            if let Err(error) = runtime.block_on(task) {
                assert!(error.is_cancelled());
            }
        }
        aborter.join().unwrap();
        assert_eq!((drops.count(), runtime.metrics().live_tasks), (TASKS, 0));
    });
}
