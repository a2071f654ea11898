//! S12: a TCP echo of 64 bytes, a task a connection. The generator (`load`) is a process of its own.

use std::process::Command;
use std::sync::mpsc;

use futures::channel::oneshot;

use super::Info;
use crate::cell::Cell;
use crate::laps::{Extra, Outcome};
use crate::load::{self, LoadReport};
use crate::peer::Peer;
use crate::pin;
use crate::stats;
use crate::usage::Usage;

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
    let (load, usage) = beside_server(peer, cell, echo::<P>, move |address| {
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
    Outcome { median, best, batches, ops: load.requests, usage, allocs_per_op: None, extras }
}

async fn echo<P: Peer>(mut stream: P::Stream) {
    let mut buf = [0; load::ECHO_BYTES];
    while let Ok(n @ 1..) = P::read(&mut stream, &mut buf).await {
        if P::write_all(&mut stream, &buf[..n]).await.is_err() {
            break;
        }
    }
}

/// Runs a server, `serve` for each connection, and beside it `generate` with the address, on a thread that is not the
/// runtime's. Returns what `generate` did and what this process, the server, used meanwhile.
pub(super) fn beside_server<P: Peer, S, R: Send + 'static>(
    peer: &P,
    cell: &Cell,
    serve: fn(P::Stream) -> S,
    generate: impl FnOnce(String) -> R + Send + 'static,
) -> (R, Usage)
where
    S: Future<Output = ()> + Send + 'static,
{
    let (bound, address) = mpsc::channel();
    let (done, wait) = oneshot::channel();
    let load_cpu = cell.load_cpu;
    let generator = std::thread::spawn(move || {
        if let Some(cpu) = load_cpu {
            pin::to(cpu);
        }
        let address = address.recv().expect("the server listens");
        let before = Usage::now();
        let report = generate(address);
        let usage = Usage::now() - before;
        // The root is gone only if the server failed, and then `join` below is never reached.
        let _ = done.send(());
        (report, usage)
    });
    peer.block_on_inside(async move {
        let (mut listener, address) = P::listen().await.expect("a port of the loopback is free");
        P::detach(P::spawn(async move {
            loop {
                let stream = P::accept(&mut listener).await.expect("accept works");
                P::detach(P::spawn(serve(stream)));
            }
        }));
        bound.send(address.to_string()).expect("the generator waits");
        // An error means that the generator panicked: `join` tells.
        let _ = wait.await;
    });
    generator.join().expect("the load generator works")
}
