//! A panic in a task ends that task alone, wherever it is thrown and whoever waits for the task.

use std::panic::panic_any;
use std::sync::mpsc::channel;

use gmp::runtime::{Builder, Runtime};
use gmp::task::JoinHandle;

use door::Door;
use drops::Drops;
use limit::limited;

#[path = "support/door.rs"]
mod door;
#[path = "support/drops.rs"]
mod drops;
#[path = "support/limit.rs"]
mod limit;

const PROCS: usize = 2;

/// Panics in its destructor.
#[derive(Debug)]
struct Bomb(#[expect(dead_code, reason = "counts its drop")] drops::Guard);

impl Drop for Bomb {
    fn drop(&mut self) {
        panic_any(Blast);
    }
}

/// A payload.
#[derive(Debug, PartialEq)]
struct Blast;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Where {
    Poll,
    /// Poll, with a payload whose own destructor panics.
    Payload,
    Destructor,
    Output,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Joined,
    Detached,
    /// The handle is dropped when the task has ended.
    DroppedLate,
    Aborted,
    Shutdown,
}

type Bombs = Option<Bomb>;

/// A task that waits at `door` and then panics at `place`.
fn spawn(runtime: &Runtime, place: Where, drops: &Drops, door: Door) -> JoinHandle<Bombs> {
    let guard = drops.guard();
    let bomb = (place == Where::Destructor).then(|| Bomb(drops.guard()));
    let of_later = drops.clone();
    runtime.spawn(async move {
        // In this order: the guard is dropped although the bomb goes off before.
        let _guard = guard;
        let _bomb = bomb;
        door.await;
        match place {
            Where::Poll => panic_any(Blast),
            Where::Payload => panic_any(Bomb(of_later.guard())),
            Where::Output => Some(Bomb(of_later.guard())),
            Where::Destructor => None,
        }
    })
}

fn check(place: Where, how: How) {
    let runtime = Builder::new().procs(PROCS).build().unwrap();
    let drops = Drops::default();
    let door = Door::default();
    if !matches!(how, How::Aborted | How::Shutdown) {
        door.open();
    }
    let mut task = spawn(&runtime, place, &drops, door.clone());
    if matches!(how, How::Aborted | How::Shutdown) {
        door.waker_of(1);
    }
    match how {
        How::Joined => match runtime.block_on(&mut task) {
            Ok(output) => {
                assert_eq!(place, Where::Output);
                std::mem::forget(output);
            }
            Err(error) => {
                assert!(error.is_panic() && !error.is_cancelled());
                let payload = error.into_panic();
                if place == Where::Payload {
                    std::mem::forget(payload);
                } else {
                    assert_eq!(payload.downcast_ref(), Some(&Blast));
                }
            }
        },
        How::Detached => drop(task),
        How::DroppedLate => {
            while !task.is_finished() {
                std::thread::yield_now();
            }
            drop(task);
        }
        How::Aborted => {
            task.abort();
            let error = runtime.block_on(task).expect_err("it never ended");
            assert_eq!(error.is_panic(), place == Where::Destructor, "{error}");
        }
        How::Shutdown => {
            drop(runtime);
            let end = Builder::new().procs(1).build().unwrap().block_on(task);
            assert!(end.expect_err("it never ended").is_cancelled());
            assert_eq!(drops.count(), if place == Where::Destructor { 2 } else { 1 });
            return;
        }
    }
    // The machines live on: so many tasks run at once as before, each on a thread of its own.
    let (arrived, arrivals) = channel();
    let rests: Vec<_> = (0..PROCS)
        .map(|_| {
            let arrived = arrived.clone();
            let (release, wait) = channel::<()>();
            drop(runtime.spawn(async move {
                arrived.send(release).unwrap();
                let _ = wait.recv();
            }));
            arrivals.recv().expect("a machine for each task")
        })
        .collect();
    drop(rests);
    drop(runtime);
    let bombs = match (place, how) {
        // The bomb was forgotten above.
        (Where::Payload | Where::Output, How::Joined) => 0,
        (Where::Poll, _) | (Where::Payload | Where::Output, How::Aborted) => 0,
        _ => 1,
    };
    assert_eq!(drops.count(), 1 + bombs, "each value is dropped once");
}

fn check_all(place: Where) {
    limited(|| {
        for how in [How::Joined, How::Detached, How::DroppedLate, How::Aborted, How::Shutdown] {
            check(place, how);
        }
    });
}

#[test]
fn r12_a_panic_in_a_poll() {
    check_all(Where::Poll);
}

#[test]
fn r12_a_payload_that_panics_in_its_own_destructor() {
    check_all(Where::Payload);
}

#[test]
fn r12_a_panic_in_the_destructor_of_a_future() {
    check_all(Where::Destructor);
}

#[test]
fn r12_a_panic_in_the_destructor_of_an_output() {
    check_all(Where::Output);
}

/// The first panic is the one to tell of. (In an `async` block the second would come while the first unwinds: Rust ends
/// the process then.)
#[test]
fn r12_a_future_panics_in_its_poll_and_in_its_destructor() {
    struct Twice(#[expect(dead_code, reason = "panics in its drop")] Bomb);
    impl Future for Twice {
        type Output = ();
        fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<()> {
            panic_any("first");
        }
    }
    limited(|| {
        let runtime = Builder::new().procs(1).build().unwrap();
        let drops = Drops::default();
        let error = runtime.block_on(runtime.spawn(Twice(Bomb(drops.guard())))).unwrap_err();
        assert_eq!(error.into_panic().downcast_ref(), Some(&"first"));
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn r12_a_thousand_panics_among_ten_thousand_tasks() {
    limited(|| {
        let runtime = Builder::new().procs(PROCS).build().unwrap();
        let tasks: Vec<_> = (0..10_000)
            .map(|n| {
                runtime.spawn(async move {
                    gmp::task::yield_now().await;
                    // No message: the hook would print a thousand of them.
                    if n % 10 == 0 {
                        std::panic::resume_unwind(Box::new(n));
                    }
                    n
                })
            })
            .collect();
        for (n, task) in tasks.into_iter().enumerate() {
            match runtime.block_on(task) {
                Ok(output) => assert_eq!(output, n),
                Err(error) => {
                    assert_eq!(n % 10, 0);
                    assert_eq!(error.into_panic().downcast_ref(), Some(&n));
                }
            }
        }
        assert_eq!(runtime.metrics().live_tasks, 0);
    });
}

#[test]
fn r12_a_hook_that_panics_costs_no_machine() {
    limited(|| {
        let runtime = Builder::new()
            .procs(1)
            .on_thread_start(|| panic!("at the start"))
            .on_thread_stop(|| panic!("at the end"))
            .build()
            .unwrap();
        assert_eq!(runtime.block_on(runtime.spawn(async { 7 })).unwrap(), 7);
        drop(runtime);
    });
}

#[test]
#[should_panic(expected = "polled after it was ready")]
fn r24_a_handle_is_ready_once() {
    let runtime = Builder::new().procs(1).build().unwrap();
    let mut task = runtime.spawn(async {});
    runtime.block_on(&mut task).unwrap();
    assert!(task.is_finished());
    let _ = runtime.block_on(&mut task);
}
