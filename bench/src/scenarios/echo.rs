//! S12: a TCP echo of 64 bytes, a task a connection. The generator (`load`) is a process of its own.

use std::process::Command;

use super::Info;
use super::server::{self, Beside};
use crate::cell::Cell;
use crate::laps::{Extra, Outcome};
use crate::load::LoadReport;
use crate::peer::Peer;
use crate::stats;

/// One connection: nothing but latency.
pub const ONE: Info = Info::network("echo-1", "TCP echo of 64 B, 1 connection, closed loop");

/// Many: throughput.
pub const MANY: Info = Info::network("echo-64", "TCP echo of 64 B, 64 connections, closed loop");

/// Runs [`ONE`].
pub fn one<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell, 1)
}

/// Runs [`MANY`].
pub fn many<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell, 64)
}

fn measure<P: Peer>(peer: &P, cell: &Cell, connections: usize) -> Outcome {
    let ms = cell.pick(350, 30);
    let Beside { report: load, usage, .. } = server::run(peer, cell, server::echo::<P>, None, move |address, _| {
        let generator = std::env::current_exe().expect("this program has a path");
        let args = ["--load".into(), address, connections.to_string(), ms.to_string()];
        let output = Command::new(generator).args(args).output().expect("the generator starts");
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
