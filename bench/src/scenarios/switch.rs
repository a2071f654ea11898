//! Going from task to task: yields, and tokio's ping-pong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures::channel::oneshot;

use super::{Batch, Info};
use crate::peer::Peer;

/// S3 with a task alone: catches a runtime that goes to sleep, or to its driver, for every yield.
#[derive(Debug)]
pub struct YieldOne;

impl Batch for YieldOne {
    const INFO: Info = Info::scheduler("yield-1", "one task alone yields 10k times", Some(20.0));
    const OPS: (u64, u64) = (10_000, 200);

    async fn batch<P: Peer>(ops: u64) {
        for _ in 0..ops {
            P::yield_now().await;
        }
    }
}

/// S3 with 200 tasks, tokio's `yield_many`.
#[derive(Debug)]
pub struct YieldMany;

const YIELDERS: u64 = 200;

impl Batch for YieldMany {
    const INFO: Info = Info::scheduler("yield-200", "200 tasks yield 100 times each", Some(20.0));
    const OPS: (u64, u64) = (YIELDERS * 100, YIELDERS * 3);

    async fn batch<P: Peer>(ops: u64) {
        let tasks: Vec<_> = (0..YIELDERS).map(|_| P::spawn(YieldOne::batch::<P>(ops / YIELDERS))).collect();
        for task in tasks {
            task.await;
        }
    }
}

/// S3 with more tasks than a cache or a local queue holds.
#[derive(Debug)]
pub struct YieldCrowd;

const CROWD: u64 = 10_000;

impl Batch for YieldCrowd {
    const INFO: Info = Info::scheduler("yield-10k", "10k tasks yield 10 times each; their spawning included", None);
    const OPS: (u64, u64) = (CROWD * 10, CROWD);

    async fn batch<P: Peer>(ops: u64) {
        let tasks: Vec<_> = (0..CROWD).map(|_| P::spawn(YieldOne::batch::<P>(ops / CROWD))).collect();
        for task in tasks {
            task.await;
        }
    }
}

/// S4, tokio's `ping_pong` but started from a worker.
#[derive(Debug)]
pub struct PingPong;

impl Batch for PingPong {
    const INFO: Info =
        Info::scheduler("ping-pong", "1000 tasks spawn one each, and they exchange two own oneshots", Some(200.0));
    const OPS: (u64, u64) = (1_000, 100);

    async fn batch<P: Peer>(ops: u64) {
        let (done, wait) = oneshot::channel();
        let shared = Arc::new((AtomicU64::new(ops), std::sync::Mutex::new(Some(done))));
        for _ in 0..ops {
            let shared = shared.clone();
            P::detach(P::spawn(async move {
                let (ping, pinged) = P::oneshot();
                let (pong, ponged) = P::oneshot();
                P::detach(P::spawn(async move {
                    pinged.await.expect("a ping");
                    P::signal(pong);
                }));
                P::signal(ping);
                ponged.await.expect("a pong");
                let (left, done) = &*shared;
                if left.fetch_sub(1, Relaxed) == 1 {
                    let done = done.lock().expect("no holder panics").take().expect("only one is the last");
                    done.send(()).expect("the root waits");
                }
            }));
        }
        wait.await.expect("the last pair sends");
    }
}
