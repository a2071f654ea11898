//! S16: blocking calls; most of them do not block, which leaves what they cost by themselves.

use std::time::Duration;

use super::{Batch, Info, Kind};
use crate::peer::Peer;

/// What hands its thread's other work away in a poll does so once in each; the next poll begins with it back.
const YIELD_EVERY: u64 = 100;

/// Says that a call may block, which it does not.
#[derive(Debug)]
pub struct InPlace;

impl Batch for InPlace {
    const INFO: Info = Info {
        kind: Kind::Blocking,
        ..Info::scheduler("block-in-place", "an empty block_in_place; a yield after every 100", Some(25.0))
    };
    const OPS: (u64, u64) = (10_000, 200);

    async fn batch<P: Peer>(ops: u64) {
        for n in 1..=ops {
            P::block_in_place(|| ());
            if n % YIELD_EVERY == 0 {
                P::yield_now().await;
            }
        }
    }
}

/// Sends empty closures to the threads for blocking calls, one after another.
#[derive(Debug)]
pub struct Pool;

impl Batch for Pool {
    const INFO: Info = Info {
        kind: Kind::Blocking,
        ..Info::scheduler("spawn-blocking", "an empty spawn_blocking is awaited, then the next", None)
    };
    const OPS: (u64, u64) = (1_000, 50);

    async fn batch<P: Peer>(ops: u64) {
        for _ in 0..ops {
            P::spawn_blocking(|| ()).await;
        }
    }
}

/// Many closures that block, at once.
#[derive(Debug)]
pub struct Crowd;

const AT_ONCE: u64 = 64;

impl Batch for Crowd {
    const INFO: Info = Info {
        kind: Kind::Blocking,
        ..Info::scheduler(
            "spawn-blocking-64",
            "64 closures at once sleep 1 ms each, as 64 others when all have ended",
            None,
        )
    };
    const OPS: (u64, u64) = (AT_ONCE * 4, AT_ONCE);

    async fn batch<P: Peer>(ops: u64) {
        for _ in 0..ops / AT_ONCE {
            let calls = (0..AT_ONCE)
                .map(|_| P::spawn(P::spawn_blocking(|| std::thread::sleep(Duration::from_millis(1)))))
                .collect::<Vec<_>>();
            for call in calls {
                call.await;
            }
        }
    }
}
