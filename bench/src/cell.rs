//! One cell: a scenario on a peer with so many threads, in this process. `run` starts a process for each, so that no
//! runtime meets what another left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use serde::{Deserialize, Serialize};

use crate::laps::Outcome;
use crate::peer::Peer;
use crate::peers::cores::{self, Server};
use crate::pin;
use crate::scenarios::{self, Kind, Run, Served, server};
use crate::usage::proc_status;

/// How a scenario is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// Threads that run tasks.
    pub procs: usize,
    /// Whether sizes and times are cut down to a check that all works.
    pub quick: bool,
    /// From the start of the runtime until a first task had been joined.
    pub started_in: Duration,
    /// The CPU for a load generator, if the server was pinned to another.
    pub load_cpu: Option<usize>,
}

impl Cell {
    /// `full`, or `quick` in a smoke run.
    pub fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// How long batches run untimed.
    pub fn warm_up(&self) -> Duration {
        self.pick(Duration::from_millis(40), Duration::from_millis(2))
    }

    /// How long batches are timed.
    pub fn timed(&self) -> Duration {
        self.pick(Duration::from_millis(100), Duration::from_millis(10))
    }
}

/// What a cell's process prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CellReport {
    /// What the scenario measured.
    pub outcome: Outcome,
    /// Peak resident memory of the process, in KiB.
    pub rss_peak_kib: u64,
    /// Threads of the process at the end, those that run no tasks included.
    pub threads: u64,
    /// Threads that were inside tasks at the same moment, at most.
    pub ran_on: usize,
}

/// Runs the scenario of that name on a fresh runtime.
pub fn run<P: Peer>(scenario: &str, cell: &Cell) -> Option<CellReport> {
    let scenario = scenarios::all::<P>().into_iter().find(|s| s.info.name == scenario)?;
    let mut cell = *cell;
    if scenario.info.kind == Kind::Network && cell.procs == 1 {
        cell.load_cpu = pin_server();
    }
    let begun = Instant::now();
    let peer = P::build(cell.procs);
    peer.block_on_inside(async {});
    cell.started_in = begun.elapsed();
    let outcome = match scenario.run {
        Run::Inside(run) => run(&peer, &cell),
        Run::Server(drive) => server::measure(&peer, &cell, &scenario.info, drive),
    };
    let rss_peak_kib = proc_status("VmHWM").unwrap_or(0);
    let ran_on = peer.block_on_inside(count_threads::<P>(cell.procs));
    let threads = proc_status("Threads").unwrap_or(0);
    Some(CellReport { outcome, rss_peak_kib, threads, ran_on })
}

/// The same of a peer that is a server and nothing else; `None` also if the scenario is none for any server.
pub fn serve<S: Server>(scenario: &str, cell: &Cell) -> Option<CellReport> {
    let Served { info, drive } = scenarios::served().into_iter().find(|s| s.info.name == scenario)?;
    let service = info.service?;
    let mut cell = *cell;
    if cell.procs == 1 {
        cell.load_cpu = pin_server();
    }
    let (_reserved, address) = cores::reserve();
    S::start(cell.procs, address, service);
    let generator = std::thread::spawn(move || {
        // Nobody is to be told when it is ready: there are no hogs.
        let (ready, _) = oneshot::channel();
        server::beside(cell.load_cpu, || drive(&cell, &address.to_string(), ready))
    });
    let (outcome, usage) = generator.join().expect("the load generator works");
    let rss_peak_kib = proc_status("VmHWM").unwrap_or(0);
    let ran_on = cores::count_threads(cell.procs, address, service);
    let threads = proc_status("Threads").unwrap_or(0);
    Some(CellReport { outcome: Outcome { usage, ..outcome }, rss_peak_kib, threads, ran_on })
}

/// Pins this thread and those it will start to the first CPU, and gives the one for the generator, if there are two.
fn pin_server() -> Option<usize> {
    let (first, last) = pin::first_and_last()?;
    pin::to(first);
    Some(last)
}

/// How many threads run tasks at once: rounds of tasks that compute until `procs` of them were inside together.
///
/// They compute and do not sleep, and never for long: a runtime that starts another thread beside a blocked one must
/// not be taken for one that has too many.
async fn count_threads<P: Peer>(procs: usize) -> usize {
    let inside = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let give_up = Instant::now() + Duration::from_secs(5);
    loop {
        let tasks: Vec<_> = (0..4 * procs)
            .map(|_| {
                let (inside, most) = (inside.clone(), most.clone());
                P::spawn(async move {
                    most.fetch_max(inside.fetch_add(1, Relaxed) + 1, Relaxed);
                    let until = Instant::now() + Duration::from_micros(500);
                    while Instant::now() < until && most.load(Relaxed) <= procs {
                        std::hint::spin_loop();
                    }
                    inside.fetch_sub(1, Relaxed);
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        let most = most.load(Relaxed);
        if most >= procs || Instant::now() > give_up {
            return most;
        }
    }
}
