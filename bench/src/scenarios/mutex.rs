//! S9: a mutex that 64 tasks want, with nothing or a little work under it, and how fair it is.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Batch, Info, server};
use crate::cell::Cell;
use crate::laps::{Extra, Laps, Outcome};
use crate::peer::Peer;
use crate::stats;

const LOCKERS: u64 = 64;

/// The runtime's own mutex, held across a yield now and then.
#[derive(Debug)]
pub struct Contended;

impl Batch for Contended {
    const INFO: Info = Info::scheduler(
        "mutex-64",
        "64 tasks lock and unlock a mutex of their runtime, and yield in it now and then",
        None,
    );
    const OPS: (u64, u64) = (LOCKERS * 200, LOCKERS * 8);

    async fn batch<P: Peer>(ops: u64) {
        let mutex = Arc::new(P::mutex());
        let tasks: Vec<_> = (0..LOCKERS)
            .map(|_| {
                let mutex = mutex.clone();
                P::spawn(async move {
                    for turn in 0..ops / LOCKERS {
                        P::locked(&mutex, turn % 8 == 0).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
    }
}

/// The runtime's own mutex; nothing is done under it.
pub const OWN: Info =
    Info::scheduler("mutex-own", "64 tasks lock and unlock a mutex of their runtime, and yield after each 16", None);

/// The runtime's own mutex; a hundred nanoseconds of work are done under it.
pub const OWN_100: Info = Info::scheduler(
    "mutex-own-100ns",
    "64 tasks lock a mutex of their runtime, compute 100 ns, unlock it, and yield after each 16",
    None,
);

/// Nothing is done under it.
pub const NEUTRAL: Info = Info::scheduler(
    "mutex-neutral",
    "64 tasks lock and unlock async-lock's mutex, one crate for all, and yield after each 16",
    None,
);

/// A hundred nanoseconds of work are done under it.
pub const NEUTRAL_100: Info = Info::scheduler(
    "mutex-neutral-100ns",
    "64 tasks lock async-lock's mutex, one crate for all, compute 100 ns, unlock it, and yield after each 16",
    None,
);

/// Without any yield a task that meets no other would have all its turns in a row on one thread, and nobody would wait.
const YIELD_EVERY: u64 = 16;

/// Runs [`OWN`].
pub fn own<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure::<P, Own<P>>(peer, cell, Duration::ZERO)
}

/// Runs [`OWN_100`].
pub fn own_100<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure::<P, Own<P>>(peer, cell, Duration::from_nanos(100))
}

/// Runs [`NEUTRAL`].
pub fn neutral<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure::<P, async_lock::Mutex<()>>(peer, cell, Duration::ZERO)
}

/// Runs [`NEUTRAL_100`].
pub fn neutral_100<P: Peer>(peer: &P, cell: &Cell) -> Outcome {
    measure::<P, async_lock::Mutex<()>>(peer, cell, Duration::from_nanos(100))
}

/// A mutex that is locked for a while.
trait Lock: Send + Sync + 'static {
    fn new() -> Self;
    fn locked_for(&self, work: impl FnOnce() + Send) -> impl Future<Output = ()> + Send;
}

struct Own<P: Peer>(P::Mutex);

impl<P: Peer> Lock for Own<P> {
    fn new() -> Self {
        Own(P::mutex())
    }

    fn locked_for(&self, work: impl FnOnce() + Send) -> impl Future<Output = ()> + Send {
        P::locked_for(&self.0, work)
    }
}

impl Lock for async_lock::Mutex<()> {
    fn new() -> Self {
        async_lock::Mutex::new(())
    }

    async fn locked_for(&self, work: impl FnOnce() + Send) {
        let _guard = self.lock().await;
        work();
    }
}

fn measure<P: Peer, L: Lock>(peer: &P, cell: &Cell, work: Duration) -> Outcome {
    let each = cell.pick(1_000, 32);
    let mut laps = Laps::new(cell, LOCKERS * each);
    peer.block_on_inside(async move {
        let mut unfair = Vec::new();
        while laps.again() {
            unfair.push(batch::<P, L>(each, work).await);
        }
        let mut outcome = laps.finish();
        outcome.extras.push(Extra::new("last task after", stats::median(&unfair), "times the first"));
        outcome
    })
}

/// How many times as long as the first task to be done the last one takes.
async fn batch<P: Peer, L: Lock>(each: u64, work: Duration) -> f64 {
    let mutex = Arc::new(L::new());
    let start = Instant::now();
    let tasks: Vec<_> = (0..LOCKERS)
        .map(|_| {
            let mutex = mutex.clone();
            P::spawn(async move {
                for turn in 1..=each {
                    let work = || {
                        if !work.is_zero() {
                            server::burn(work);
                        }
                    };
                    mutex.locked_for(work).await;
                    if turn % YIELD_EVERY == 0 {
                        P::yield_now().await;
                    }
                }
                start.elapsed().as_secs_f64()
            })
        })
        .collect();
    let mut took = Vec::with_capacity(tasks.len());
    for task in tasks {
        took.push(task.await);
    }
    stats::most(&took) / stats::least(&took)
}
