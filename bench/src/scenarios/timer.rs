//! S10 and S11: a million timers at once, timers that are armed and never fire, as those of time limits are, and how late
//! one comes on an idle machine.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::poll;

use super::{Batch, Better, Info, Kind};
use crate::cell::Cell;
use crate::laps::{Extra, Laps, Outcome};
use crate::peer::Peer;
use crate::stats;
use crate::usage::{Usage, proc_status};

/// A runtime with a budget for each poll (tokio: 128) refuses what goes beyond it, and arms no timer then.
const YIELD_EVERY: u64 = 100;

/// Far enough that it never fires.
const FAR: Duration = Duration::from_secs(10);

/// Arms and drops one timer at a time.
#[derive(Debug)]
pub struct Churn;

impl Batch for Churn {
    const INFO: Info =
        Info::scheduler("timer-churn", "a sleep of 10 s is made, polled once and dropped; clock included", Some(48.0));
    const OPS: (u64, u64) = (10_000, 200);

    async fn batch<P: Peer>(ops: u64) {
        for n in 1..=ops {
            let sleep = pin!(P::sleep(FAR));
            assert!(poll!(sleep).is_pending());
            if n % YIELD_EVERY == 0 {
                P::yield_now().await;
            }
        }
    }
}

/// S11: time limits around something that is ready soon, in ten thousand tasks.
pub const LIMITS: Info = Info::scheduler(
    "timer-limits",
    "10k tasks each give something that yields once a limit of 10 s, again and again",
    Some(75.0),
);

/// Runs [`LIMITS`]. So many turns a task that its spawn does not count.
pub fn limits<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    const TURNS: u64 = 100;
    let tasks = cell.pick(10_000, 100);
    let mut laps = Laps::new(cell, tasks * TURNS);
    peer.block_on_inside(async move {
        while laps.again() {
            let tasks: Vec<_> = (0..tasks)
                .map(|_| {
                    P::spawn(async {
                        for _ in 0..TURNS {
                            assert!(within::<P, _>(FAR, P::yield_now()).await.is_some());
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
        }
        laps.finish()
    })
}

/// `future`, or nothing if it takes longer: the same code for all peers, on their own sleep.
async fn within<P: Peer, F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut limit = pin!(P::sleep(limit));
    poll_fn(|cx: &mut Context<'_>| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        limit.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// S10: very many timers that all fire.
pub const MILLION: Info = Info {
    name: "timer-million",
    about: "1M tasks, each asleep for a random time up to 1 s, all spawned: CPU time of all",
    unit: "s",
    better: Better::Less,
    target: None,
    kind: Kind::Scheduler,
    slow: true,
};

/// Runs [`MILLION`].
pub fn million<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    let n = cell.pick(1_000_000, 1_000);
    let late: Arc<[AtomicU32]> = (0..n).map(|_| AtomicU32::new(0)).collect();
    peer.block_on_inside(async move {
        // The times are drawn before, and are the same for all peers.
        let mut random = fastrand::Rng::with_seed(10);
        let micros: Vec<u32> = (0..n).map(|_| random.u32(..1_000_000)).collect();
        let before = proc_status("VmRSS").unwrap_or(0);
        let (usage, start) = (Usage::now(), Instant::now());
        let mut tasks = Vec::with_capacity(n);
        for (index, micros) in micros.into_iter().enumerate() {
            let late = late.clone();
            tasks.push(P::spawn(async move {
                let duration = Duration::from_micros(micros.into());
                let due = Instant::now() + duration;
                P::sleep(duration).await;
                let nanos = Instant::now().saturating_duration_since(due).as_nanos();
                late[index].store(u32::try_from(nanos).unwrap_or(u32::MAX), Relaxed);
            }));
        }
        let spawned = start.elapsed();
        let rss = proc_status("VmRSS").unwrap_or(0).saturating_sub(before);
        for task in tasks {
            task.await;
        }
        let (usage, took) = (Usage::now() - usage, start.elapsed());
        let mut late: Vec<f64> = late.iter().map(|nanos| f64::from(nanos.load(Relaxed)) / 1e6).collect();
        late.sort_by(f64::total_cmp);
        let extras = vec![
            Extra::new("late p50", stats::quantile(&late, 0.5), "ms"),
            Extra::new("late p99", stats::quantile(&late, 0.99), "ms"),
            Extra::new("late max", stats::most(&late), "ms"),
            Extra::new("resident when all are spawned", rss as f64 / 1024.0, "MiB"),
            Extra::new("spawning", spawned.as_secs_f64(), "s"),
            Extra::new("all", took.as_secs_f64(), "s"),
        ];
        Outcome::single(usage.cpu_ns as f64 / 1e9, n as u64, usage, extras)
    })
}

/// The shortest sleep that is worth one.
pub const SHORT: Info = nap("sleep-50us", "one task alone sleeps 50 µs at a time: how long it takes", 200.0);

/// What tokio rounds up.
pub const MILLI: Info = nap("sleep-1ms", "one task alone sleeps 1 ms at a time: how long it takes", 1200.0);

const fn nap(name: &'static str, about: &'static str, target: f64) -> Info {
    let target = Some(target);
    Info { name, about, unit: "µs", better: Better::Less, target, kind: Kind::Scheduler, slow: false }
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
        let mut took = Vec::with_capacity(n);
        let usage = Usage::now();
        for _ in 0..n {
            let start = Instant::now();
            P::sleep(duration).await;
            took.push(start.elapsed().as_secs_f64() * 1e6);
        }
        let usage = Usage::now() - usage;
        took.sort_by(f64::total_cmp);
        let extras = vec![
            Extra::new("p99", stats::quantile(&took, 0.99), "µs"),
            Extra::new("least", stats::least(&took), "µs"),
            Extra::new("max", stats::most(&took), "µs"),
        ];
        let mut outcome = Outcome::single(stats::quantile(&took, 0.5), n as u64, usage, extras);
        outcome.batches = n;
        outcome
    })
}
