//! S19: what a task that waits costs in memory, its handle not included.

use std::future::{Future, pending};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::{Better, Info, Kind};
use crate::alloc;
use crate::cell::Cell;
use crate::laps::{Extra, Outcome};
use crate::peer::Peer;
use crate::usage::{Usage, proc_status};

/// Tasks of a future without state.
pub const PENDING: Info =
    info("idle-pending", "100k tasks polled once, future of one byte: live heap a task", Some(96.0));

/// Tasks that sleep.
pub const SLEEPING: Info =
    info("idle-sleeping", "100k tasks asleep for an hour, future included: live heap a task", None);

const fn info(name: &'static str, about: &'static str, target: Option<f64>) -> Info {
    Info { name, about, unit: "B/task", better: Better::Less, target, kind: Kind::Scheduler, slow: false }
}

/// Tasks of this process that were polled.
static POLLED: AtomicUsize = AtomicUsize::new(0);

/// Runs [`PENDING`].
pub fn pending_tasks<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell, pending)
}

/// Runs [`SLEEPING`].
pub fn sleeping<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure(peer, cell, || P::sleep(Duration::from_secs(3_600)))
}

fn measure<P: Peer, F>(peer: &P, cell: &Cell, wait: impl Fn() -> F + Send + 'static) -> Outcome
where
    F: Future<Output = ()> + Send + 'static,
{
    let n = cell.pick(100_000, 1_000);
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
