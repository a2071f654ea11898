//! S14 and S15 in small: how late a heartbeat comes, or the answer to one byte string, beside a task for each thread
//! that holds it for 200 ms in every poll, or beside many that compute for as long in all. Each quarter of a second has
//! a poll that begins, or the many, so the worst of each is taken, and the median of these is compared, not one moment
//! of the machine; the worst of all is printed beside it.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::server::{self, Hogs, Rate};
use super::{Better, Info, Kind};
use crate::cell::Cell;
use crate::laps::{Extra, Outcome};
use crate::peer::Peer;
use crate::rate;
use crate::stats;
use crate::usage::Usage;

const PERIOD: Duration = Duration::from_millis(5);

/// A timer beside tasks that sleep inside `poll`.
pub const BLOCK: Info = info(
    "late-block",
    "usual worst of a quarter second, delay of a 5 ms heartbeat; a task a thread blocks 200 ms a poll",
);

/// A timer beside tasks that compute inside `poll`.
pub const BURN: Info = info(
    "late-burn",
    "usual worst of a quarter second, delay of a 5 ms heartbeat; a task a thread computes 200 ms a poll",
);

/// A timer beside tasks that are many, and each compute in their only poll.
pub const BURST: Info = info(
    "late-burst",
    "usual worst of a quarter second, delay of a 5 ms heartbeat; 8 tasks a thread, spawned in it at once, compute 25 ms",
);

/// A TCP echo beside tasks that sleep inside `poll`.
pub const BLOCK_ECHO: Info = info(
    "late-block-echo",
    "usual worst of a quarter second, a TCP echo due every 5 ms; a task a thread blocks 200 ms a poll",
);

/// A TCP echo beside tasks that compute inside `poll`.
pub const BURN_ECHO: Info = info(
    "late-burn-echo",
    "usual worst of a quarter second, a TCP echo due every 5 ms; a task a thread computes 200 ms a poll",
);

const fn info(name: &'static str, about: &'static str) -> Info {
    let target = Some(12.0);
    Info { name, about, unit: "ms", better: Better::Less, target, kind: Kind::Waiting, slow: true, service: None }
}

/// Runs [`BLOCK`].
pub fn block<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    timer(peer, cell, std::thread::sleep)
}

/// Runs [`BURN`].
pub fn burn<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    timer(peer, cell, server::burn)
}

/// Runs [`BURST`].
pub fn burst<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    /// A task of it, in steps of [`compute`]: some 25 ms on the machine of the README.
    const STEPS: u32 = 12_000_000;
    let (tasks, steps) = (8 * cell.procs, cell.pick(STEPS, STEPS / 100));
    let (lasting, every) = cell.pick((5 * rate::STRETCH, rate::STRETCH), (4 * PERIOD, 2 * PERIOD));
    peer.block_on_inside(async move {
        let heart = P::spawn(beat::<P>(lasting));
        let start = Usage::now();
        let bursts = P::spawn(async move {
            let start = Instant::now();
            for number in 0.. {
                P::sleep((number * every).saturating_sub(start.elapsed())).await;
                if start.elapsed() >= lasting {
                    return;
                }
                let burst: Vec<_> = (0..tasks).map(|_| P::spawn(async move { compute(steps) })).collect();
                for task in burst {
                    task.await;
                }
            }
        });
        let late_ms = heart.await;
        let usage = Usage::now() - start;
        bursts.await;
        beats(late_ms, lasting, usage)
    })
}

/// As much work for whoever does it, however many share the CPUs.
fn compute(steps: u32) {
    let mut number = black_box(1_u64);
    for _ in 0..steps {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
    }
    black_box(number);
}

/// Runs [`BLOCK_ECHO`].
pub fn block_echo<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    echo(peer, cell, std::thread::sleep)
}

/// Runs [`BURN_ECHO`].
pub fn burn_echo<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    echo(peer, cell, server::burn)
}

fn hogs(cell: &Cell, hold: fn(Duration)) -> Hogs {
    Hogs { count: cell.procs, hold, time: cell.pick(Duration::from_millis(200), Duration::from_millis(10)) }
}

fn timer<P: Peer>(peer: &P, cell: &Cell, hold: fn(Duration)) -> Outcome {
    let hogs = hogs(cell, hold);
    let lasting = hogs.time * 6;
    peer.block_on_inside(async move {
        let stop = Arc::new(AtomicBool::new(false));
        let heart = P::spawn(beat::<P>(lasting));
        let usage = Usage::now();
        let tasks = hogs.spawn::<P>(&stop, &Arc::new(AtomicU64::new(0)));
        let late_ms = heart.await;
        let usage = Usage::now() - usage;
        stop.store(true, Relaxed);
        for task in tasks {
            task.await;
        }
        beats(late_ms, lasting, usage)
    })
}

/// How late each beat came: from the start, and in milliseconds.
async fn beat<P: Peer>(lasting: Duration) -> Vec<(Duration, f64)> {
    let start = Instant::now();
    let mut late_ms = Vec::new();
    while start.elapsed() < lasting {
        let due = Instant::now() + PERIOD;
        P::sleep(PERIOD).await;
        late_ms.push((due - start, due.elapsed().as_secs_f64() * 1e3));
    }
    late_ms
}

fn beats(late_ms: Vec<(Duration, f64)>, lasting: Duration, usage: Usage) -> Outcome {
    let beats = Extra::new("beats", late_ms.len() as f64, "");
    let usual = rate::usual_p999(&late_ms, lasting);
    let mut late_ms: Vec<f64> = late_ms.into_iter().map(|(_, ms)| ms).collect();
    late_ms.sort_by(f64::total_cmp);
    outcome(usual, rate::quantiles(&late_ms), usage, [beats])
}

/// Unlike the heartbeat, whose next beat counts from when the last one came, an echo is due every 5 ms in any case.
fn echo<P: Peer>(peer: &P, cell: &Cell, hold: fn(Duration)) -> Outcome {
    let hogs = hogs(cell, hold);
    let ms = hogs.time.as_millis() as u64 * 6;
    let rate = Rate { protocol: "echo", connections: 1, per_second: 200, ms };
    let beside =
        server::run(peer, cell, server::echo::<P>, Some(hogs), move |address, ready| rate.drive(&address, ready));
    let report = beside.report;
    let distribution = report.quantiles_us.iter().map(|&(share, us)| (share, us / 1e3)).collect();
    outcome(report.usual_p999_us / 1e3, distribution, beside.usage, server::answers(&report))
}

fn outcome(
    usual: f64,
    distribution: Vec<(f64, f64)>,
    usage: Usage,
    further: impl IntoIterator<Item = Extra>,
) -> Outcome {
    let at = |share: f64| stats::at(&distribution, share);
    let mut extras = vec![
        Extra::new("p50", at(0.5), "ms"),
        Extra::new("p99", at(0.99), "ms"),
        Extra::new("worst of all", at(1.0), "ms"),
    ];
    extras.extend(further);
    // One operation: the CPU time of a cell says more than that of a beat, for there are fewer beats the later they
    // come.
    let mut outcome = Outcome::single(usual, 1, usage, extras);
    outcome.distribution = distribution;
    outcome
}
