//! S14 and S15 in small: how late a heartbeat comes beside tasks that hold their thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{Better, Info, Kind};
use crate::cell::Cell;
use crate::laps::{Extra, Outcome};
use crate::peer::Peer;
use crate::stats;
use crate::usage::Usage;

const PERIOD: Duration = Duration::from_millis(5);

/// Tasks that sleep inside `poll`.
pub const BLOCK: Info = info("late-block", "worst delay of a 5 ms heartbeat; a task a thread blocks 200 ms per poll");

/// Tasks that compute inside `poll`.
pub const BURN: Info = info("late-burn", "worst delay of a 5 ms heartbeat; a task a thread computes 200 ms per poll");

const fn info(name: &'static str, about: &'static str) -> Info {
    let target = Some(12.0);
    Info { name, about, unit: "ms", better: Better::Less, target, kind: Kind::Scheduler, slow: true }
}

/// Runs [`BLOCK`].
pub fn block<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell, std::thread::sleep)
}

/// Runs [`BURN`].
pub fn burn<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell, |hold| {
        let start = Instant::now();
        while start.elapsed() < hold {
            std::hint::spin_loop();
        }
    })
}

fn measure<P: Peer>(peer: &P, cell: &Cell, hold_thread: fn(Duration)) -> Outcome {
    let hold = cell.pick(Duration::from_millis(200), Duration::from_millis(10));
    let lasting = hold * 6;
    let procs = cell.procs;
    peer.block_on_inside(async move {
        let stop = Arc::new(AtomicBool::new(false));
        let heart = P::spawn(async move {
            let start = Instant::now();
            let mut late_ms = Vec::new();
            while start.elapsed() < lasting {
                let due = Instant::now() + PERIOD;
                P::sleep(PERIOD).await;
                late_ms.push(due.elapsed().as_secs_f64() * 1e3);
            }
            late_ms
        });
        let usage = Usage::now();
        let hogs: Vec<_> = (0..procs)
            .map(|_| {
                let stop = stop.clone();
                P::spawn(async move {
                    while !stop.load(Relaxed) {
                        hold_thread(hold);
                        P::yield_now().await;
                    }
                })
            })
            .collect();
        let mut late_ms = heart.await;
        let usage = Usage::now() - usage;
        stop.store(true, Relaxed);
        for hog in hogs {
            hog.await;
        }
        late_ms.sort_by(f64::total_cmp);
        let extras = vec![
            Extra::new("p99", stats::quantile(&late_ms, 0.99), "ms"),
            Extra::new("p50", stats::quantile(&late_ms, 0.5), "ms"),
            Extra::new("beats", late_ms.len() as f64, ""),
        ];
        // One operation: the CPU time of a cell says more than that of a beat, for there are fewer beats the later they come.
        Outcome::single(stats::most(&late_ms), 1, usage, extras)
    })
}
