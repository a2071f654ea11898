//! S12: a TCP echo of 64 bytes, a task a connection. The generator (`load`) is a process of its own.

use std::process::Command;

use super::server::{self, Beside, Rate};
use super::{Better, Info};
use crate::cell::Cell;
use crate::laps::{Extra, Outcome};
use crate::load::LoadReport;
use crate::peer::Peer;
use crate::stats;

/// One connection: nothing but latency.
pub const ONE: Info = Info::network("echo-1", "TCP echo of 64 B, 1 connection, closed loop");

/// Many: throughput.
pub const MANY: Info = Info::network("echo-64", "TCP echo of 64 B, 64 connections, closed loop");

/// Very many.
pub const CROWD: Info = Info::network("echo-1000", "TCP echo of 64 B, 1000 connections, closed loop");

/// Connections that live for one echo.
pub const CHURN: Info = Info {
    unit: "conn/s",
    ..Info::network("echo-churn", "connect, TCP echo of 64 B, close; 32 at a time, closed loop")
};

/// At a constant rate.
pub const STEADY: Info = Info {
    unit: "us",
    better: Better::Less,
    slow: true,
    ..Info::network("echo-steady", "p99.9 of a TCP echo of 64 B, 64 connections, 20000/s, from when it was due")
};

/// Runs [`CROWD`].
pub fn crowd<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell, cell.pick(1_000, 100), "--load")
}

/// Runs [`CHURN`].
pub fn churn<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell, 32, "--churn")
}

/// Runs [`STEADY`].
pub fn steady<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    let rate = Rate { protocol: "echo", connections: 64, per_second: 20_000, ms: cell.pick(1_000, 100) };
    let beside = server::run(peer, cell, server::echo::<P>, None, move |address, ready| rate.drive(&address, ready));
    let report = beside.report;
    let extras = vec![
        Extra::new("p50", report.quantile(0.5), "us"),
        Extra::new("p99", report.quantile(0.99), "us"),
        Extra::new("max", report.quantile(1.0), "us"),
        Extra::new("unanswered", report.unanswered as f64, ""),
        Extra::new("generator p99", report.lag_p99_us, "us late"),
    ];
    let mut outcome = Outcome::single(report.quantile(0.999), report.answered.max(1), beside.usage, extras);
    outcome.distribution = report.quantiles_us;
    outcome
}

/// Runs [`ONE`].
pub fn one<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell, 1, "--load")
}

/// Runs [`MANY`].
pub fn many<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell, 64, "--load")
}

fn measure<P: Peer>(peer: &P, cell: &Cell, connections: usize, generator: &'static str) -> Outcome {
    let ms = cell.pick(350, 30);
    let Beside { report: load, usage, .. } = server::run(peer, cell, server::echo::<P>, None, move |address, _| {
        let program = std::env::current_exe().expect("this program has a path");
        let args = [generator.into(), address, connections.to_string(), ms.to_string()];
        let output = Command::new(program).args(args).output().expect("the generator starts");
        assert!(output.status.success(), "the generator failed: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<LoadReport>(&output.stdout).expect("the generator prints its report")
    });
    let extras = vec![
        Extra::new("p50", load.p50_us, "us"),
        Extra::new("p99", load.p99_us, "us"),
        Extra::new("max", load.max_us, "us"),
    ];
    let (median, best) = (stats::median(&load.per_second), stats::most(&load.per_second));
    let batches = load.per_second.len();
    Outcome { median, best, batches, ..Outcome::single(median, load.requests, usage, extras) }
}
