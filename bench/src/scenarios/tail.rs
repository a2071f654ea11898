//! S14 and S15: HTTP hello at a constant rate beside tasks that hold their thread. Closed loops hide a stall, for they ask
//! less while it lasts; this one does not.

use std::time::Duration;

use super::server::{self, Hogs, Rate};
use super::{Better, Info, Kind, http};
use crate::cell::Cell;
use crate::laps::{Extra, Outcome};
use crate::peer::Peer;

/// Beside tasks that compute.
pub const BURN: Info =
    info("http-burn", "p99.9 of HTTP hello at 4000 req/s, from when it was due; 2 tasks burn 2 ms a poll");

/// Beside tasks that block.
pub const BLOCK: Info =
    info("http-block", "p99.9 of HTTP hello at 4000 req/s, from when it was due; 8 tasks block 50 ms a poll");

/// Beside none, for comparison.
pub const ALONE: Info =
    info("http-steady", "p99.9 of HTTP hello at 4000 req/s, from when it was due; nothing else runs");

const fn info(name: &'static str, about: &'static str) -> Info {
    Info { name, about, unit: "ms", better: Better::Less, target: None, kind: Kind::Network, slow: true }
}

/// Runs [`BURN`].
pub fn burn<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell, Some(Hogs { count: 2, hold: server::burn, time: Duration::from_millis(2) }))
}

/// Runs [`BLOCK`].
pub fn block<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell, Some(Hogs { count: 8, hold: std::thread::sleep, time: Duration::from_millis(50) }))
}

/// Runs [`ALONE`].
pub fn alone<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell, None)
}

fn measure<P: Peer>(peer: &P, cell: &Cell, hogs: Option<Hogs>) -> Outcome {
    let rate = Rate { protocol: "http", connections: 64, per_second: 4_000, ms: cell.pick(2_500, 250) };
    let beside = server::run(peer, cell, http::serve::<P>, hogs, move |address, ready| rate.drive(&address, ready));
    let report = beside.report;
    let ms = |share| report.quantile(share) / 1e3;
    let mut extras = vec![
        Extra::new("p50", ms(0.5), "ms"),
        Extra::new("p99", ms(0.99), "ms"),
        Extra::new("max", ms(1.0), "ms"),
        Extra::new("unanswered", report.unanswered as f64, ""),
        Extra::new("generator p99", report.lag_p99_us / 1e3, "ms late"),
    ];
    if hogs.is_some() {
        extras.push(Extra::new("hogs", beside.hog_polls, "polls/s"));
    }
    let mut outcome = Outcome::single(ms(0.999), report.answered.max(1), beside.usage, extras);
    outcome.distribution = report.quantiles_us.iter().map(|&(share, us)| (share, us / 1e3)).collect();
    outcome
}
