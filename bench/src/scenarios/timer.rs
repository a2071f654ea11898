//! S10 and S11: timers that fire, timers that are armed and never fire, as those of timeouts are, and how late one
//! comes on an idle machine.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures::poll;

use super::{Batch, Better, Info, Kind};
use crate::cell::Cell;
use crate::laps::{Extra, Outcome};
use crate::peer::Peer;
use crate::usage::Usage;
use crate::{rate, stats};

/// A runtime with a budget for each poll (tokio: 128) refuses what goes beyond it, and arms no timer then.
const YIELD_EVERY: u64 = 100;

/// Arms and drops one timer at a time.
#[derive(Debug)]
pub struct Churn;

impl Batch for Churn {
    const INFO: Info = Info {
        kind: Kind::Timer,
        ..Info::scheduler("timer-churn", "a sleep of 10 s is made, polled once and dropped; clock included", Some(48.0))
    };
    const OPS: (u64, u64) = (10_000, 200);

    async fn batch<P: Peer>(ops: u64) {
        for n in 1..=ops {
            let sleep = pin!(P::sleep(Duration::from_secs(10)));
            assert!(poll!(sleep).is_pending());
            if n % YIELD_EVERY == 0 {
                P::yield_now().await;
            }
        }
    }
}

/// S11 to the letter: timeouts around what is ready after a yield.
#[derive(Debug)]
pub struct Timeouts;

const GUARDED: u64 = 10_000;

impl Batch for Timeouts {
    const INFO: Info = Info {
        kind: Kind::Timer,
        ..Info::scheduler(
            "timeout",
            "10k tasks put a timeout of 10 s around a yield, 30 times each; spawning included",
            Some(75.0),
        )
    };
    const OPS: (u64, u64) = (GUARDED * 30, GUARDED);

    async fn batch<P: Peer>(ops: u64) {
        let guarded = |_| {
            P::spawn(async move {
                for _ in 0..ops / GUARDED {
                    P::timeout(Duration::from_secs(10), P::yield_now()).await;
                }
            })
        };
        let tasks: Vec<_> = (0..GUARDED).map(guarded).collect();
        for task in tasks {
            task.await;
        }
    }
}

/// S10.
pub const BULK: Info = Info {
    name: "timers-bulk",
    about: "1M tasks, spawned 64 at once, sleep for a random time of up to 1 s: how late the 99th of 100 wakes",
    unit: "ms",
    better: Better::Less,
    target: None,
    kind: Kind::Timer,
    slow: true,
    service: None,
};

/// Between two yields of who spawns them.
const SPAWNED_AT_ONCE: usize = 64;

/// Runs [`BULK`].
pub fn bulk<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    let n = cell.pick(1_000_000, 1_000);
    let longest = cell.pick(Duration::from_secs(1), Duration::from_millis(50));
    peer.block_on_inside(async move {
        let mut rng = fastrand::Rng::with_seed(7);
        let usage = Usage::now();
        let mut sleeps = Vec::with_capacity(n);
        for i in 1..=n {
            let time = longest.mul_f64(rng.f64());
            sleeps.push(P::spawn(async move {
                let due = Instant::now() + time;
                P::sleep(time).await;
                due.elapsed().as_secs_f64() * 1e3
            }));
            // All at once would be a queue of a million first polls, and timers due meanwhile would wait for its end.
            if i % SPAWNED_AT_ONCE == 0 {
                P::yield_now().await;
            }
        }
        let mut late_ms = Vec::with_capacity(n);
        for sleep in sleeps {
            late_ms.push(sleep.await);
        }
        let usage = Usage::now() - usage;
        late_ms.sort_by(f64::total_cmp);
        let distribution = rate::quantiles(&late_ms);
        let at = |share| stats::at(&distribution, share);
        let extras = vec![Extra::new("p50", at(0.5), "ms"), Extra::new("max", at(1.0), "ms")];
        let mut outcome = Outcome::single(at(0.99), n as u64, usage, extras);
        outcome.distribution = distribution;
        outcome
    })
}

/// The shortest sleep that is worth one.
pub const SHORT: Info = nap("sleep-50us", "one task alone sleeps 50 µs at a time: how long that takes", 200.0);

/// What rounding up to milliseconds would double.
pub const MILLI: Info = nap("sleep-1ms", "one task alone sleeps 1 ms at a time: how long that takes", 1200.0);

const fn nap(name: &'static str, about: &'static str, target: f64) -> Info {
    let target = Some(target);
    Info { name, about, unit: "µs", better: Better::Less, target, kind: Kind::Timer, slow: false, service: None }
}

/// Runs [`SHORT`].
pub fn short<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    naps(peer, Duration::from_micros(50), cell.pick(2_000, 20))
}

/// Runs [`MILLI`].
pub fn milli<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    naps(peer, Duration::from_millis(1), cell.pick(300, 5))
}

fn naps<P: Peer>(peer: &P, duration: Duration, n: usize) -> Outcome {
    peer.block_on_inside(async move {
        let mut took_us = Vec::with_capacity(n);
        let usage = Usage::now();
        for _ in 0..n {
            let start = Instant::now();
            P::sleep(duration).await;
            took_us.push(start.elapsed().as_secs_f64() * 1e6);
        }
        let usage = Usage::now() - usage;
        took_us.sort_by(f64::total_cmp);
        let distribution = rate::quantiles(&took_us);
        let at = |share| stats::at(&distribution, share);
        let extras = vec![Extra::new("p99", at(0.99), "µs"), Extra::new("max", at(1.0), "µs")];
        let mut outcome = Outcome::single(at(0.5), n as u64, usage, extras);
        outcome.distribution = distribution;
        outcome
    })
}
