//! Spawning empty tasks: from a task, from a thread that is no worker, and each from the one before.

use futures::channel::oneshot;

use super::{Batch, Info};
use crate::cell::Cell;
use crate::laps::{Laps, Outcome};
use crate::peer::Peer;

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
