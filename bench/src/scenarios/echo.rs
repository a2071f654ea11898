//! S12: a TCP echo of 64 bytes, a task a connection. The generator (`load`) is a process of its own.

use std::process::Command;

use super::server::{self, Rate, Ready};
use super::{Better, Drive, Info, Service};
use crate::cell::Cell;
use crate::laps::{Extra, Outcome};
use crate::load::LoadReport;
use crate::stats;
use crate::usage::Usage;

/// The scenarios, each with what asks.
pub const ALL: [(Info, Drive); 6] = [
    (echo("echo-1", "TCP echo of 64 B, 1 connection, closed loop"), |cell, at, _| ask(cell, at, 1, "--load")),
    (echo("echo-64", "TCP echo of 64 B, 64 connections, closed loop"), |cell, at, _| ask(cell, at, 64, "--load")),
    (echo("echo-1000", "TCP echo of 64 B, 1000 connections, closed loop"), |cell, at, _| {
        ask(cell, at, cell.pick(1_000, 100), "--load")
    }),
    (SKEWED, |cell, at, _| ask(cell, at, 64, "--skew")),
    (CHURN, |cell, at, _| ask(cell, at, 32, "--churn")),
    (STEADY, steady),
];

/// S18 (b): one task accepts all of them, and few of them have nearly all the work.
const SKEWED: Info =
    echo("echo-skewed", "TCP echo of 64 B, 64 connections, 90 % of the requests on 6 of them, closed loop");

/// Connections that live for one echo.
const CHURN: Info =
    Info { unit: "conn/s", ..echo("echo-churn", "connect, TCP echo of 64 B, close; 32 at a time, closed loop") };

/// At a constant rate.
const STEADY: Info = Info {
    unit: "us",
    better: Better::Less,
    slow: true,
    ..echo("echo-steady", "usual p99.9 of a quarter second, TCP echo of 64 B, 64 connections, 20000/s from when due")
};

const fn echo(name: &'static str, about: &'static str) -> Info {
    Info::network(Service::Echo, name, about)
}

fn steady(cell: &Cell, address: &str, ready: Ready) -> Outcome {
    let rate = Rate { protocol: "echo", connections: 64, per_second: 20_000, ms: cell.pick(1_250, 100) };
    let report = rate.drive(address, ready);
    let mut extras = vec![
        Extra::new("p50", report.quantile(0.5), "us"),
        Extra::new("p99", report.quantile(0.99), "us"),
        Extra::new("p99.9 of all", report.quantile(0.999), "us"),
        Extra::new("max", report.quantile(1.0), "us"),
    ];
    extras.extend(server::answers(&report));
    extras.push(Extra::new("generator p99", report.lag_p99_us, "us late"));
    let ops = server::in_all(&report).max(1);
    let mut outcome = Outcome::single(report.usual_p999_us, ops, Usage::default(), extras);
    outcome.distribution = report.quantiles_us;
    outcome
}

fn ask(cell: &Cell, address: &str, connections: usize, generator: &str) -> Outcome {
    let ms = cell.pick(350, 30);
    let program = std::env::current_exe().expect("this program has a path");
    let args = [generator.into(), address.to_owned(), connections.to_string(), ms.to_string()];
    let output = Command::new(program).args(args).output().expect("the generator starts");
    assert!(output.status.success(), "the generator failed: {}", String::from_utf8_lossy(&output.stderr));
    let load: LoadReport = serde_json::from_slice(&output.stdout).expect("the generator prints its report");
    let extras = vec![
        Extra::new("p50", load.p50_us, "us"),
        Extra::new("p99", load.p99_us, "us"),
        Extra::new("max", load.max_us, "us"),
        Extra::new("generator busy", load.busy, ""),
    ];
    let (median, best) = (stats::median(&load.per_second), stats::most(&load.per_second));
    let batches = load.per_second.len();
    Outcome { median, best, batches, ..Outcome::single(median, load.requests, Usage::default(), extras) }
}
