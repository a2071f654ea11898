//! S17 and S19: what tasks that wait cost, in memory and in time. Their handles are not included.

use std::future::{Future, pending};
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures::channel::oneshot;

use super::{Better, Info, Kind};
use crate::alloc;
use crate::cell::Cell;
use crate::laps::{Extra, Outcome};
use crate::load;
use crate::peer::Peer;
use crate::usage::{Usage, proc_status};

/// Tasks of a future without state.
pub const PENDING: Info =
    info("idle-pending", "100k tasks polled once, future of one byte: live heap a task", Some(96.0));

/// Tasks that sleep.
pub const SLEEPING: Info = Info {
    slow: true,
    ..info("idle-sleeping", "1M tasks asleep for an hour, future included: live heap a task", None)
};

const fn info(name: &'static str, about: &'static str, target: Option<f64>) -> Info {
    Info { name, about, unit: "B/task", better: Better::Less, target, kind: Kind::Waiting, slow: false, service: None }
}

/// Tasks that wait for a message.
pub const RECEIVING: Info = info(
    "idle-receiving",
    "100k tasks wait for a message on one own channel each, channel included: live heap a task",
    None,
);

/// Connections that wait for bytes.
pub const CONNECTED: Info = Info {
    unit: "B/conn",
    slow: true,
    ..info(
        "idle-connected",
        "10k connections, or as many as may be open, whose tasks wait for 64 bytes: live heap of the server, each",
        None,
    )
};

/// A runtime with nothing to do.
pub const ASLEEP: Info = Info {
    unit: "us/s",
    slow: true,
    ..info("idle-asleep", "CPU time in a second in which 10k tasks and 1000 connections wait for nothing to come", None)
};

/// The same with a timer that goes on.
pub const TICKING: Info = Info {
    unit: "us/s",
    slow: true,
    ..info("idle-ticking", "the same beside one task that sleeps a second at a time", None)
};

/// Tasks of this process that were polled.
static POLLED: AtomicUsize = AtomicUsize::new(0);

/// Runs [`PENDING`].
pub fn pending_tasks<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell.pick(100_000, 1_000), pending)
}

/// Runs [`RECEIVING`].
pub fn receiving<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell.pick(100_000, 1_000), || {
        let (sender, mut receiver) = P::channel(1);
        async move {
            let _ = P::recv(&mut receiver).await;
            drop(sender);
        }
    })
}

/// A process that keeps connections open and asks nothing, until this is dropped.
#[derive(Debug)]
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        // The end of its input tells it.
        drop(self.0.stdin.take());
        // It ends by itself; how is of no interest any more.
        let _ = self.0.wait();
    }
}

/// Accepts connections of another process, and spawns a task that waits for bytes on each.
async fn connect<P: Peer>(n: usize) -> Held {
    let (mut listener, address) = P::listen().await.expect("a port of the loopback is free");
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command.args(["--hold", &address.to_string(), &n.to_string()]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut held = Held(command.spawn().expect("the other process starts"));
    for accepted in 1..=n {
        let mut stream = P::accept(&mut listener).await.expect("accept works");
        P::detach(P::spawn(async move {
            POLLED.fetch_add(1, Relaxed);
            let mut buf = [0; 64];
            // The end of the connection, or an error, when the process ends.
            let _ = P::read(&mut stream, &mut buf).await;
        }));
        if accepted % load::CHUNK == 0 {
            let input = held.0.stdin.as_mut().expect("it is piped");
            input.write_all(b"x").expect("the other process lives");
        }
    }
    held
}

/// How many of so many connections the process may have open.
fn allowed(connections: usize) -> usize {
    let limit = load::raise_open_files();
    connections.min(limit.saturating_sub(100) as usize)
}

async fn polled<P: Peer>(n: usize) {
    while POLLED.load(Relaxed) < n {
        P::yield_now().await;
    }
}

/// Runs [`CONNECTED`].
pub fn connected<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    let n = allowed(cell.pick(10_000, 200));
    peer.block_on_inside(async move {
        let rss = proc_status("VmRSS").unwrap_or(0);
        let usage = Usage::now();
        alloc::start();
        let held = connect::<P>(n).await;
        polled::<P>(n).await;
        let counts = alloc::stop();
        let usage = Usage::now() - usage;
        let rss = proc_status("VmRSS").unwrap_or(0).saturating_sub(rss);
        drop(held);
        let per = |value: f64| value / n as f64;
        let resident = Extra::new("resident", per(rss as f64 * 1024.0), "B/connection");
        let extras = vec![resident, Extra::new("connections", n as f64, "")];
        let mut outcome = Outcome::single(per(counts.live_bytes as f64), n as u64, usage, extras);
        outcome.allocs_per_op = Some(per(counts.allocs as f64));
        outcome
    })
}

/// Runs [`ASLEEP`].
pub fn asleep<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    without_traffic(peer, cell, false)
}

/// Runs [`TICKING`].
pub fn ticking<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    without_traffic(peer, cell, true)
}

fn without_traffic<P: Peer>(peer: &P, cell: &Cell, ticks: bool) -> Outcome {
    let (tasks, connections) = cell.pick((10_000, 1_000), (100, 5));
    let connections = allowed(connections);
    let time = cell.pick(Duration::from_secs(2), Duration::from_millis(100));
    let held = peer.block_on_inside(async move {
        for _ in 0..tasks {
            P::detach(P::spawn(async {
                POLLED.fetch_add(1, Relaxed);
                // A task that nobody can wake may be dropped at once, so each keeps its waker.
                P::sleep(Duration::from_secs(3_600)).await;
            }));
        }
        if ticks {
            P::detach(P::spawn(async move {
                loop {
                    P::sleep(time / 2).await;
                }
            }));
        }
        let held = connect::<P>(connections).await;
        polled::<P>(tasks + connections).await;
        held
    });
    // What was begun ends, and whatever watches sees that there is nothing to watch.
    let before = cell.pick(Duration::from_millis(500), Duration::from_millis(20));
    let (over, wait) = oneshot::channel();
    let watch = std::thread::spawn(move || {
        std::thread::sleep(before);
        let usage = Usage::now();
        std::thread::sleep(time);
        let usage = Usage::now() - usage;
        over.send(usage).expect("somebody waits");
    });
    // Waited for in the runtime: one of a single thread does nothing else, and its timers would stand still.
    let usage = peer.block_on(wait).expect("it is sent");
    watch.join().expect("it does not panic");
    drop(held);
    let per_second = |value: f64| value / time.as_secs_f64();
    let switches = per_second((usage.voluntary + usage.involuntary) as f64);
    let extras = vec![Extra::new("switches", switches, "/s")];
    Outcome::single(per_second(usage.cpu_ns as f64 / 1e3), 1, usage, extras)
}

/// Runs [`SLEEPING`].
pub fn sleeping<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell.pick(1_000_000, 1_000), || P::sleep(Duration::from_secs(3_600)))
}

fn measure<P: Peer, F>(peer: &P, n: usize, wait: impl Fn() -> F + Send + 'static) -> Outcome
where
    F: Future<Output = ()> + Send + 'static,
{
    peer.block_on_inside(async move {
        let mut tasks = Vec::with_capacity(n);
        let rss = proc_status("VmRSS").unwrap_or(0);
        let usage = Usage::now();
        alloc::start();
        for _ in 0..n {
            let wait = wait();
            tasks.push(P::spawn(async move {
                POLLED.fetch_add(1, Relaxed);
                wait.await;
            }));
        }
        while POLLED.load(Relaxed) < n {
            P::yield_now().await;
        }
        let counts = alloc::stop();
        let usage = Usage::now() - usage;
        let rss = proc_status("VmRSS").unwrap_or(0).saturating_sub(rss);
        let per_task = |value: f64| value / n as f64;
        let extras = vec![Extra::new("resident", per_task(rss as f64 * 1024.0), "B/task")];
        let mut outcome = Outcome::single(per_task(counts.live_bytes as f64), n as u64, usage, extras);
        outcome.allocs_per_op = Some(per_task(counts.allocs as f64));
        outcome
    })
}
