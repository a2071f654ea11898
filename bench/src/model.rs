//! What many processors would meet at: how often an operation touches a line that all of them share, counted by the
//! scheduler itself with few processors and with many, and what share of the time that line would be busy (`--model`).
//!
//! 1. The counts are measured, with as many processors as it says, on however many CPUs there are. The share is a
//!    model: every processor goes as fast as one alone, and a touch keeps the line from all others for `TOUCH_NS`. A
//!    share of 100 % is the end of scaling by that line.
//! 2. Lines that all processors share are two: the global queue with its lock, and the word of the idle processors with
//!    its lists. A theft meets one other processor at one queue; the registry of tasks has a shard for each processor
//!    and is met by others only when a task ends elsewhere; timers and counters are a processor's own.

use std::fmt::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gmp::runtime::{FoundIn, Metrics};

use crate::peer::Peer;
use crate::peers::gmp::Gmp;
use crate::run;
use crate::scenarios::{Batch, channel, fan, messages, spawn, switch};

/// From one CPU to another and on to the next: half of a round trip of a line between two (performance of the machine
/// of the README: 195 ns), and what is done with it.
const TOUCH_NS: f64 = 120.0;

/// Units that move at once when a local queue overflows.
const OVERFLOW: f64 = 128.0;

/// The numbers of processors the model asks about.
const MANY: [usize; 2] = [64, 192];

/// How often an operation touches what is shared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Touches {
    /// The lock of the global queue.
    pub global: f64,
    /// The word of the idle processors, or the lock of its lists.
    pub idle: f64,
    /// Units or batches taken from another processor.
    pub thefts: f64,
    /// System calls for the netpoller: looks, and wakes of who waits in it.
    pub netpoll: f64,
}

impl Touches {
    /// From what was counted over so many operations, `from_outside` of which came through the global queue by
    /// themselves.
    fn counted(before: &Metrics, after: &Metrics, ops: f64, from_outside: f64) -> Touches {
        let of = |number: fn(&Metrics) -> u64| (number(after) - number(before)) as f64 / ops;
        let found = |exit: FoundIn| (after.found_in(exit) - before.found_in(exit)) as f64 / ops;
        Touches {
            global: of(|m| m.overflowed) / OVERFLOW
                + found(FoundIn::GlobalTick)
                + found(FoundIn::GlobalBatch)
                + from_outside,
            // To begin and to end a search, to sleep, to be woken: each is one change of the word.
            idle: 2.0 * of(|m| m.spins) + of(|m| m.parks) + of(|m| m.wakes),
            thefts: found(FoundIn::Stolen) + found(FoundIn::StolenLone),
            netpoll: of(|m| m.netpoll_looks) + of(|m| m.netpoll_breaks),
        }
    }

    /// The share of the time in which the busier of the two lines is taken, if each of so many processors does an
    /// operation in `ns`.
    fn share(self, procs: usize, ns: f64) -> f64 {
        procs as f64 * self.global.max(self.idle) * TOUCH_NS / ns
    }
}

/// How an operation is run so many times, and what of them comes from outside.
type Run = fn(&Gmp, u64) -> f64;

struct Scenario {
    name: &'static str,
    ops: u64,
    run: Run,
}

fn batch<B: Batch>() -> Scenario {
    let run = |peer: &Gmp, ops: u64| {
        peer.block_on_inside(B::batch::<Gmp>(ops));
        0.0
    };
    Scenario { name: B::INFO.name, ops: B::OPS.0, run }
}

fn outside(peer: &Gmp, ops: u64) -> f64 {
    let tasks: Vec<_> = (0..ops).map(|_| peer.spawn_outside(async {})).collect();
    peer.block_on(async {
        for task in tasks {
            task.await;
        }
    });
    1.0
}

fn scenarios() -> Vec<Scenario> {
    vec![
        batch::<spawn::Inside>(),
        batch::<spawn::Chained>(),
        batch::<switch::YieldMany>(),
        batch::<switch::PingPong>(),
        batch::<channel::OwnMany>(),
        batch::<messages::Rigs>(),
        batch::<fan::Skynet>(),
        batch::<fan::Spread>(),
        Scenario { name: spawn::OUTSIDE.name, ops: 10_000, run: outside },
    ]
}

/// Counts and nanoseconds of an operation with so many processors.
fn measure(scenario: &Scenario, procs: usize, times: u32) -> (Touches, f64) {
    let peer = Gmp::without_rescue(procs);
    (scenario.run)(&peer, scenario.ops);
    let before = peer.runtime().metrics();
    let start = Instant::now();
    let mut from_outside = 0.0;
    for _ in 0..times {
        from_outside = (scenario.run)(&peer, scenario.ops);
    }
    let ops = scenario.ops as f64 * f64::from(times);
    let ns = start.elapsed().as_nanos() as f64 / ops;
    (Touches::counted(&before, &peer.runtime().metrics(), ops, from_outside), ns)
}

/// What this takes at most, in a process of its own: some seconds are usual.
const LIMIT: Duration = Duration::from_secs(120);

/// The table, made by a process of its own; else why there is none.
///
/// # Errors
///
/// It failed, or did not end in time.
pub fn of_a_child(quick: bool) -> Result<String, String> {
    let this = std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
    let mut command = Command::new(this);
    command.arg("--model").args(quick.then_some("--quick")).stdin(Stdio::null()).stdout(Stdio::piped());
    run::printed(command.spawn().map_err(|error| format!("it does not start: {error}"))?, LIMIT)
}

/// The table; `quick` counts little.
pub fn table(quick: bool) -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let times = if quick { 1 } else { 20 };
    let mut out = String::new();
    let _ = writeln!(
        out,
        "Touches of shared lines, in a thousand operations, counted with so many processors on {cpus} CPUs; busy: the share \
         of the time that\nthe busier of the two lines would be taken if every processor went as fast as one alone, at \
         {TOUCH_NS} ns a touch.\n\n{:<16}{:>8}{:>6}{:>10}{:>10}{:>10}{:>10}{:>9}",
        "scenario", "ns, 1P", "P", "global", "idle", "thefts", "netpoll", "busy"
    );
    for scenario in scenarios() {
        let (_, ns) = measure(&scenario, 1, times);
        for procs in [cpus].into_iter().chain(MANY) {
            let (touches, _) = measure(&scenario, procs, times);
            let Touches { global, idle, thefts, netpoll } = touches;
            let [global, idle, thefts, netpoll] = [global, idle, thefts, netpoll].map(|count| count * 1e3);
            let busy = touches.share(procs, ns) * 100.0;
            let _ = writeln!(
                out,
                "{:<16}{ns:>8.0}{procs:>6}{global:>10.2}{idle:>10.2}{thefts:>10.2}{netpoll:>10.2}{busy:>8.1}%",
                scenario.name
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_touched_all_the_time_is_busy_all_the_time() {
        let touches = Touches { global: 0.5, idle: 0.1, ..Touches::default() };
        assert!((touches.share(2, TOUCH_NS) - 1.0).abs() < 1e-9);
        assert!((touches.share(64, 64.0 * TOUCH_NS) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn spawns_from_outside_are_counted_where_they_meet() {
        let scenario = Scenario { name: "outside", ops: 100, run: outside };
        let (touches, ns) = measure(&scenario, 2, 1);
        assert!(touches.global >= 1.0 && ns > 0.0, "{touches:?}");
    }
}
