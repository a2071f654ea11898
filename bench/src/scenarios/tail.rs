//! S14 and S15: HTTP hello at a constant rate beside tasks that hold their thread. Closed loops hide a stall, for they
//! ask less while it lasts; this one does not. The tasks hold their threads all the while, so each quarter of a second
//! has the tail that they make, and its median is compared; the whole run's p99.9 and maximum are printed beside it.

use std::time::Duration;

use super::server::{self, Hogs, Rate};
use super::{Better, Drive, Info, Kind, Service, http};
use crate::cell::Cell;
use crate::laps::{Extra, Outcome};
use crate::peer::Peer;
use crate::rate::RateReport;
use crate::usage::Usage;

/// Beside tasks that compute.
pub const BURN: Info = info(
    "http-burn",
    "usual p99.9 of a quarter second, HTTP hello at 4000 req/s from when due; 2 tasks burn 2 ms a poll",
);

/// Beside tasks that block.
pub const BLOCK: Info = info(
    "http-block",
    "usual p99.9 of a quarter second, HTTP hello at 4000 req/s from when due; 8 tasks block 50 ms a poll",
);

/// Beside as many of them as there are threads.
pub const BLOCK_1X: Info = info(
    "http-block-1x",
    "usual p99.9 of a quarter second, HTTP hello at 4000 req/s from when due; a task a thread blocks 50 ms a poll",
);

/// Beside none, for comparison; any server with hyper can take part.
pub const SERVED: [(Info, Drive); 1] = [(
    Info {
        service: Some(Service::Http),
        ..info(
            "http-steady",
            "usual p99.9 of a quarter second, HTTP hello at 4000 req/s from when due; nothing else runs",
        )
    },
    |cell, address, ready| outcome(rate(cell).drive(address, ready)),
)];

const fn info(name: &'static str, about: &'static str) -> Info {
    Info { name, about, unit: "ms", better: Better::Less, target: None, kind: Kind::Network, slow: true, service: None }
}

/// Runs [`BURN`].
pub fn burn<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell, Hogs { count: 2, hold: server::burn, time: Duration::from_millis(2) })
}

/// Runs [`BLOCK`].
pub fn block<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell, Hogs { count: 8, hold: std::thread::sleep, time: Duration::from_millis(50) })
}

/// Runs [`BLOCK_1X`].
pub fn block_1x<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell, Hogs { count: cell.procs, hold: std::thread::sleep, time: Duration::from_millis(50) })
}

fn measure<P: Peer>(peer: &P, cell: &Cell, hogs: Hogs) -> Outcome {
    let rate = rate(cell);
    let beside =
        server::run(peer, cell, http::serve::<P>, Some(hogs), move |address, ready| rate.drive(&address, ready));
    let mut outcome = outcome(beside.report);
    outcome.usage = beside.usage;
    outcome.extras.push(Extra::new("hogs", beside.hog_polls, "polls/s"));
    outcome
}

fn rate(cell: &Cell) -> Rate {
    Rate { protocol: "http", connections: 64, per_second: 4_000, ms: cell.pick(2_500, 250) }
}

fn outcome(report: RateReport) -> Outcome {
    let ms = |share| report.quantile(share) / 1e3;
    let mut extras = vec![
        Extra::new("p50", ms(0.5), "ms"),
        Extra::new("p99", ms(0.99), "ms"),
        Extra::new("p99.9 of all", ms(0.999), "ms"),
        Extra::new("max", ms(1.0), "ms"),
    ];
    extras.extend(server::answers(&report));
    extras.push(Extra::new("generator p99", report.lag_p99_us / 1e3, "ms late"));
    let ops = server::in_all(&report).max(1);
    let mut outcome = Outcome::single(report.usual_p999_us / 1e3, ops, Usage::default(), extras);
    outcome.distribution = report.quantiles_us.iter().map(|&(share, us)| (share, us / 1e3)).collect();
    outcome
}
