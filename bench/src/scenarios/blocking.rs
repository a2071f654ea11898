//! S16: blocking calls; most of them do not block, which leaves what they cost by themselves.

use std::time::Duration;

use super::{Batch, Info, Kind, server};
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

/// Sends closures to the threads for blocking calls, `AT_ONCE` of them, and as many when these have ended: empty ones,
/// ones that compute 10 µs, and ones that sleep 1 ms. No peer needs a task around such a call: all begin with it at
/// once and give a handle.
#[derive(Debug)]
pub struct Calls<const US: u64, const AT_ONCE: u64>;

impl<const US: u64, const AT_ONCE: u64> Batch for Calls<US, AT_ONCE> {
    const INFO: Info = {
        let (name, about) = match (US, AT_ONCE) {
            (0, 1) => ("spawn-blocking", "an empty spawn_blocking is awaited, then the next"),
            (10, 1) => ("spawn-blocking-10us", "a spawn_blocking that computes 10 us is awaited, then the next"),
            (1000, 1) => ("spawn-blocking-1ms", "a spawn_blocking that sleeps 1 ms is awaited, then the next"),
            (0, 64) => ("spawn-blocking-64", "64 empty spawn_blocking at once, as 64 others when all have ended"),
            (10, 64) => (
                "spawn-blocking-64-10us",
                "64 spawn_blocking at once compute 10 us each, as 64 others when all have ended",
            ),
            (1000, 64) => {
                ("spawn-blocking-64-1ms", "64 spawn_blocking at once sleep 1 ms each, as 64 others when all have ended")
            }
            _ => panic!("there is no such scenario"),
        };
        Info { kind: Kind::Blocking, ..Info::scheduler(name, about, None) }
    };
    const OPS: (u64, u64) = match US {
        1000 => (4 * AT_ONCE, AT_ONCE),
        _ => (1_024, 64),
    };

    async fn batch<P: Peer>(ops: u64) {
        let mut calls = Vec::with_capacity(AT_ONCE as usize);
        for _ in 0..ops / AT_ONCE {
            for _ in 0..AT_ONCE {
                calls.push(P::spawn_blocking(call::<US>));
            }
            for call in calls.drain(..) {
                call.await;
            }
        }
    }
}

fn call<const US: u64>() {
    let time = Duration::from_micros(US);
    match US {
        0 => {}
        1000 => std::thread::sleep(time),
        _ => server::burn(time),
    }
}
