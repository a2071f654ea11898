//! The measuring loop of every scenario that works in batches: warm-up, timed batches, one batch with allocations
//! counted.
//!
//! 1. The time of a batch is what passes between two calls of [`Laps::again`]; nothing is printed or allocated by
//!    `again` while batches are timed.
//! 2. CPU time and context switches are those of the timed batches together.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::alloc;
use crate::cell::Cell;
use crate::stats;
use crate::usage::Usage;

/// Timed batches at most, so that their store never grows.
const MAX_BATCHES: usize = 65_536;

/// What a scenario measured in one cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The median over the batches, in the scenario's unit.
    pub median: f64,
    /// The best batch: the least where less is better, else the most.
    pub best: f64,
    /// How many batches there were.
    pub batches: usize,
    /// Operations in them together.
    pub ops: u64,
    /// What they cost.
    pub usage: Usage,
    /// Calls of the allocator per operation, where they were counted.
    pub allocs_per_op: Option<f64>,
    /// Further figures.
    pub extras: Vec<Extra>,
    /// Where the figure is one of a distribution: shares, and the values below which they lie.
    #[serde(default)]
    pub distribution: Vec<(f64, f64)>,
}

/// A figure beside the main one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Extra {
    /// What it is.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// How much.
    pub value: f64,
}

impl Extra {
    /// A figure.
    pub fn new(name: &str, value: f64, unit: &str) -> Extra {
        Extra { name: name.into(), unit: unit.into(), value }
    }
}

impl Outcome {
    /// The outcome of a cell that measures one figure once.
    pub fn single(value: f64, ops: u64, usage: Usage, extras: Vec<Extra>) -> Outcome {
        Outcome {
            median: value,
            best: value,
            batches: 1,
            ops,
            usage,
            allocs_per_op: None,
            extras,
            distribution: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    New,
    WarmUp,
    Timed,
    Counted,
}

/// `while laps.again() { batch }`, then [`Laps::finish`].
#[derive(Debug)]
pub struct Laps {
    ops: u64,
    warm_up: Duration,
    timed: Duration,
    min_batches: usize,
    phase: Phase,
    phase_start: Instant,
    lap_start: Instant,
    /// Nanoseconds per operation of each timed batch.
    ns_per_op: Vec<f64>,
    /// Before the timed batches; from the last of them on, what they cost.
    usage: Usage,
    allocs: u64,
}

impl Laps {
    /// For batches of `ops` operations.
    pub fn new(cell: &Cell, ops: u64) -> Laps {
        let now = Instant::now();
        Laps {
            ops,
            warm_up: cell.warm_up(),
            timed: cell.timed(),
            min_batches: if cell.quick { 2 } else { 7 },
            phase: Phase::New,
            phase_start: now,
            lap_start: now,
            ns_per_op: Vec::with_capacity(MAX_BATCHES),
            usage: Usage::default(),
            allocs: 0,
        }
    }

    /// Ends a batch, and says whether another is to be run.
    pub fn again(&mut self) -> bool {
        let now = Instant::now();
        let since = now - self.phase_start;
        match self.phase {
            Phase::New => self.phase = Phase::WarmUp,
            Phase::WarmUp => {
                if since >= self.warm_up {
                    self.phase = Phase::Timed;
                    self.phase_start = now;
                    self.usage = Usage::now();
                }
            }
            Phase::Timed => {
                self.ns_per_op.push((now - self.lap_start).as_nanos() as f64 / self.ops as f64);
                let batches = self.ns_per_op.len();
                if since >= self.timed && batches >= self.min_batches || batches == MAX_BATCHES {
                    self.usage = Usage::now() - self.usage;
                    self.phase = Phase::Counted;
                    alloc::start();
                }
            }
            Phase::Counted => {
                self.allocs = alloc::stop().allocs;
                return false;
            }
        }
        self.lap_start = Instant::now();
        true
    }

    /// What was measured, in nanoseconds per operation.
    ///
    /// # Panics
    ///
    /// If `again` has not yet said that it is over.
    pub fn finish(self) -> Outcome {
        let batches = self.ns_per_op.len();
        Outcome {
            median: stats::median(&self.ns_per_op),
            best: stats::least(&self.ns_per_op),
            batches,
            ops: self.ops * batches as u64,
            usage: self.usage,
            allocs_per_op: Some(self.allocs as f64 / self.ops as f64),
            extras: Vec::new(),
            distribution: Vec::new(),
        }
    }
}
