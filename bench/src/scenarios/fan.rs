//! S6 and S18: work that spreads out and comes together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{Batch, Better, Info, Kind, server};
use crate::cell::Cell;
use crate::laps::{Extra, Outcome};
use crate::peer::Peer;
use crate::stats;
use crate::usage::Usage;

/// S6: a tree of tasks.
#[derive(Debug)]
pub struct Skynet;

impl Batch for Skynet {
    const INFO: Info = Info::scheduler(
        "skynet",
        "a task of a tree of tasks, 10 a node, 10^5 leaves, joined by their parents",
        Some(60.0),
    );
    const OPS: (u64, u64) = (111_111, 1_111);

    async fn batch<P: Peer>(ops: u64) {
        // Not an async fn: that its future is `Send` would follow from itself.
        fn node<P: Peer>(first: u64, leaves: u64) -> P::Join<u64> {
            P::spawn(async move {
                if leaves == 1 {
                    return first;
                }
                let each = leaves / 10;
                let mut children = Vec::with_capacity(10);
                for child in 0..10 {
                    children.push(node::<P>(first + child * each, each));
                }
                let mut sum = 0;
                for child in children {
                    sum += child.await;
                }
                sum
            })
        }
        // A tree of 111…1 nodes has 100…0 leaves.
        let leaves = 10u64.pow(ops.ilog10());
        assert_eq!(node::<P>(0, leaves).await, leaves * (leaves - 1) / 2);
    }
}

/// S6: the number of Fibonacci, each call a task.
#[derive(Debug)]
pub struct Fib;

impl Batch for Fib {
    const INFO: Info =
        Info::scheduler("fib", "a task of fib(25), each of which spawns two and joins them: 242785 tasks", None);
    const OPS: (u64, u64) = (242_785, 1_973);

    async fn batch<P: Peer>(ops: u64) {
        // Not an async fn: that its future is `Send` would follow from itself.
        fn fib<P: Peer>(n: u64) -> P::Join<u64> {
            P::spawn(async move {
                if n < 2 {
                    return n;
                }
                let (one, other) = (fib::<P>(n - 1), fib::<P>(n - 2));
                one.await + other.await
            })
        }
        let (n, number) = if ops == Self::OPS.0 { (25, 75_025) } else { (15, 610) };
        assert_eq!(fib::<P>(n).await, number);
    }
}

/// S18 (a): one task makes work for all.
#[derive(Debug)]
pub struct Spread;

impl Batch for Spread {
    const INFO: Info =
        Info::scheduler("spread", "a task spawns 10k tasks of 5 us; ideal is 5000 ns over the CPUs in use", None);
    const OPS: (u64, u64) = (10_000, 200);

    async fn batch<P: Peer>(ops: u64) {
        let mut tasks = Vec::with_capacity(ops as usize);
        for _ in 0..ops {
            tasks.push(P::spawn(async { server::burn(Duration::from_micros(5)) }));
        }
        for task in tasks {
            task.await;
        }
    }
}

/// S18 (c): tasks behind a long poll.
pub const BEHIND: Info = Info {
    name: "behind",
    about: "a task spawns 100 others and computes 50 ms without a yield: how long the last of them waits",
    unit: "ms",
    better: Better::Less,
    target: Some(12.0),
    kind: Kind::Waiting,
    slow: false,
    service: None,
};

/// Runs [`BEHIND`].
pub fn behind<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    // A check that all works wants them too: polls so long that others go on meanwhile, and turns after the first.
    let hold = cell.pick(Duration::from_millis(50), Duration::from_millis(20));
    let turns = cell.pick(20, 3);
    peer.block_on_inside(async move {
        let usage = Usage::now();
        let mut worst_ms = Vec::new();
        for _ in 0..turns {
            let worst = Arc::new(AtomicU64::new(0));
            let spawned = Instant::now();
            let tasks: Vec<_> = (0..100)
                .map(|_| {
                    let worst = worst.clone();
                    P::spawn(async move {
                        worst.fetch_max(spawned.elapsed().as_nanos() as u64, Relaxed);
                    })
                })
                .collect();
            server::burn(hold);
            for task in tasks {
                task.await;
            }
            worst_ms.push(worst.load(Relaxed) as f64 / 1e6);
        }
        let (usage, turns) = (Usage::now() - usage, worst_ms.len());
        let extras = vec![Extra::new("worst", stats::most(&worst_ms), "ms")];
        let mut outcome = Outcome::single(stats::median(&worst_ms), turns as u64, usage, extras);
        (outcome.best, outcome.batches) = (stats::least(&worst_ms), turns);
        outcome
    })
}
