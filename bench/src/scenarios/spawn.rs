//! Spawning empty tasks: from a task, from a thread that is no worker, and each from the one before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use futures::channel::oneshot;

use super::{Batch, Info};
use crate::cell::Cell;
use crate::laps::{Laps, Outcome};
use crate::peer::Peer;
use crate::usage::Usage;

/// S2.
#[derive(Debug)]
pub struct Inside;

impl Batch for Inside {
    const INFO: Info =
        Info::scheduler("spawn-inside", "a task spawns 10k empty tasks, then joins them all", Some(85.0));
    const OPS: (u64, u64) = (10_000, 200);

    async fn batch<P: Peer>(ops: u64) {
        let mut tasks = Vec::with_capacity(ops as usize);
        for _ in 0..ops {
            tasks.push(P::spawn(async {}));
        }
        for task in tasks {
            task.await;
        }
    }
}

/// S2 without handles: a counter tells when all have run.
#[derive(Debug)]
pub struct Detached;

impl Batch for Detached {
    const INFO: Info =
        Info::scheduler("spawn-detached", "a task spawns 10k tasks that count down, no handles", Some(85.0));
    const OPS: (u64, u64) = (10_000, 200);

    async fn batch<P: Peer>(ops: u64) {
        let (done, wait) = oneshot::channel();
        let shared = Arc::new((AtomicU64::new(ops), std::sync::Mutex::new(Some(done))));
        for _ in 0..ops {
            let shared = shared.clone();
            P::detach(P::spawn(async move {
                let (left, done) = &*shared;
                if left.fetch_sub(1, Relaxed) == 1 {
                    let done = done.lock().expect("no holder panics").take().expect("only one is the last");
                    done.send(()).expect("the root waits");
                }
            }));
        }
        wait.await.expect("the last task sends");
    }
}

/// S2 with a future of so many bytes.
#[derive(Debug)]
pub struct Sized<const BYTES: usize>;

impl<const BYTES: usize> Batch for Sized<BYTES> {
    const INFO: Info = match BYTES {
        16 => {
            Info::scheduler("spawn-16b", "a task spawns 2k tasks whose future has 16 B more, then joins them all", None)
        }
        256 => {
            Info::scheduler("spawn-256b", "a task spawns 2k tasks whose future has 256 B, then joins them all", None)
        }
        1024 => Info::scheduler("spawn-1k", "a task spawns 2k tasks whose future has 1 KiB, then joins them all", None),
        _ => panic!("there is no such scenario"),
    };
    const OPS: (u64, u64) = (2_000, 100);

    async fn batch<P: Peer>(ops: u64) {
        let mut tasks = Vec::with_capacity(ops as usize);
        for number in 0..ops {
            let state = [number as u8; BYTES];
            tasks.push(P::spawn(async move { std::hint::black_box(&state)[7] }));
        }
        for task in tasks {
            task.await;
        }
    }
}

/// S1 with two threads.
pub const OUTSIDE_2: Info =
    Info::scheduler("spawn-outside-2", "2 threads spawn 100k empty tasks together, and join their own", None);

/// S1 with eight threads.
pub const OUTSIDE_8: Info =
    Info::scheduler("spawn-outside-8", "8 threads spawn 100k empty tasks together, and join their own", None);

/// Runs [`OUTSIDE_2`].
pub fn outside_2<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    outside_of::<P, 2>(peer, cell)
}

/// Runs [`OUTSIDE_8`].
pub fn outside_8<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    outside_of::<P, 8>(peer, cell)
}

fn outside_of<P: Peer, const THREADS: u64>(peer: &P, cell: &Cell) -> Outcome {
    let ops = cell.pick(100_000, 800);
    let mut laps = Laps::new(cell, ops);
    while laps.again() {
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let tasks: Vec<_> = (0..ops / THREADS).map(|_| peer.spawn_outside(async {})).collect();
                    futures_lite::future::block_on(async {
                        for task in tasks {
                            task.await;
                        }
                    });
                });
            }
        });
    }
    laps.finish()
}

/// S1 beside a runtime that is busy: tokio's `spawn_many_remote_busy1`, without the 10 us that its tasks compute.
pub const OUTSIDE_BUSY: Info = Info::scheduler(
    "spawn-outside-busy",
    "the main thread spawns 10k empty tasks while 8 tasks yield all the time, then joins them all",
    None,
);

/// Runs [`OUTSIDE_BUSY`].
pub fn outside_busy<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    let stop = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..8)
        .map(|_| {
            let stop = stop.clone();
            peer.spawn_outside(async move {
                while !stop.load(Relaxed) {
                    P::yield_now().await;
                }
            })
        })
        .collect();
    let outcome = outside(peer, cell);
    stop.store(true, Relaxed);
    peer.block_on(async {
        for task in busy {
            task.await;
        }
    });
    outcome
}

/// S1 with one thread.
pub const OUTSIDE: Info =
    Info::scheduler("spawn-outside", "the main thread spawns 10k empty tasks, then joins them all", Some(120.0));

/// Runs [`OUTSIDE`]. tokio's own benches `spawn_many_local` and `spawn_many_remote_idle` are both this.
pub fn outside<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    let ops = cell.pick(10_000, 200);
    let mut laps = Laps::new(cell, ops);
    while laps.again() {
        let mut tasks = Vec::with_capacity(ops as usize);
        for _ in 0..ops {
            tasks.push(peer.spawn_outside(async {}));
        }
        peer.block_on(async {
            for task in tasks {
                task.await;
            }
        });
    }
    laps.finish()
}

/// S5.
#[derive(Debug)]
pub struct Chained;

impl Batch for Chained {
    const INFO: Info = Info::scheduler("chained-spawn", "each of 1000 tasks spawns the next and ends", Some(50.0));
    const OPS: (u64, u64) = (1_000, 100);

    async fn batch<P: Peer>(ops: u64) {
        fn hop<P: Peer>(left: u64, done: oneshot::Sender<()>) {
            if left == 0 {
                done.send(()).expect("the root waits");
            } else {
                P::detach(P::spawn(async move { hop::<P>(left - 1, done) }));
            }
        }
        let (done, wait) = oneshot::channel();
        hop::<P>(ops, done);
        wait.await.expect("the chain ends with a send");
    }
}

/// S20.
pub const START: Info = Info {
    unit: "us",
    ..Info::scheduler(
        "cold-start",
        "a runtime is built in a fresh process, and its first task runs and is joined",
        None,
    )
};

/// Runs [`START`]: `cell` did, before anything else in this process.
pub fn start<P: Peer>(_: &P, cell: &Cell) -> Outcome {
    Outcome::single(cell.started_in.as_nanos() as f64 / 1e3, 1, Usage::now(), Vec::new())
}
