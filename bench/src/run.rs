//! The order of things: for each round, scenario and number of threads all peers one after another, each cell in a
//! process of its own.
//!
//! 1. Peers of one comparison run next to each other in time, and each round starts with another of them, so that a
//!    slow moment of the machine, or the place in the row, falls on all alike.
//! 2. A cell that fails or hangs is reported and loses nothing but itself.
//! 3. Comparisons that the rounds leave undecided get more of them, if the plan says so. They are looked at twice
//!    then, and no more: who looks again and again sees in the end what chance has in store.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::cell::CellReport;
use crate::peers::{Code, Entry};
use crate::pin;
use crate::scenarios::{Info, Kind, http};

/// A cell gets this long before it is killed.
const LIMIT: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Debug)]
pub struct Plan {
    /// The scenarios.
    pub scenarios: Vec<Info>,
    /// The peers.
    pub peers: Vec<Entry>,
    /// Numbers of threads.
    pub procs: Vec<usize>,
    /// The same for slow scenarios.
    pub slow_procs: Vec<usize>,
    /// Rounds.
    pub rounds: usize,
    /// Rounds in all of what those leave undecided.
    pub settle: usize,
    /// Whether sizes and times are cut down.
    pub quick: bool,
    /// Whether it is all of the suite, with the numbers of threads it has by itself.
    pub whole: bool,
}

/// The rounds of a peer in a scenario with so many threads.
#[derive(Debug)]
pub struct Row {
    /// The scenario.
    pub scenario: Info,
    /// Threads.
    pub procs: usize,
    /// The peer's name.
    pub peer: &'static str,
    /// Whether it is no runtime but what none can pass.
    pub ceiling: bool,
    /// Why the peer is not there; it has no rounds then.
    pub absent: Option<&'static str>,
    /// What each round gave, in order; `Err` says how it failed.
    pub rounds: Vec<Result<CellReport, String>>,
}

/// Runs the plan; `is_undecided` is asked of each comparison after the plan's rounds, and `progress` gets a line for
/// each in each round.
pub fn run(plan: &Plan, is_undecided: impl Fn(&[Row]) -> bool, progress: impl FnMut(&str)) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for &scenario in &plan.scenarios {
        for &procs in if scenario.slow { &plan.slow_procs } else { &plan.procs } {
            let peers = plan.peers.iter().filter(|peer| (peer.takes_part)(&scenario, procs));
            rows.extend(peers.map(|peer| {
                let absent = if let Code::Program(program) = peer.code { program().err() } else { None };
                Row { scenario, procs, peer: peer.name, ceiling: peer.ceiling, absent, rounds: Vec::new() }
            }));
        }
    }
    measure(&mut rows, plan, is_undecided, progress, cell);
    rows
}

/// Runs the rounds of all rows, each cell by `cell`.
fn measure(
    rows: &mut [Row],
    plan: &Plan,
    is_undecided: impl Fn(&[Row]) -> bool,
    mut progress: impl FnMut(&str),
    cell: impl Fn(&Info, &Entry, usize, bool) -> Result<CellReport, String>,
) {
    let begun = Instant::now();
    let mut compared: Vec<_> =
        rows.chunk_by_mut(|a, b| a.scenario.name == b.scenario.name && a.procs == b.procs).collect();
    for round in 0..plan.rounds.max(plan.settle) {
        if round == plan.rounds {
            compared.retain(|rows| is_undecided(rows));
            progress(&format!("{} comparisons are undecided, and run on", compared.len()));
        }
        for rows in &mut compared {
            let Row { scenario, procs, .. } = rows[0];
            let minutes = begun.elapsed().as_secs() / 60;
            let (of, name) = (if round < plan.rounds { plan.rounds } else { plan.settle }, scenario.name);
            let mut line = format!("{minutes:>3} min  round {}/{of}  {procs}P {name:<16}", round + 1);
            for i in 0..rows.len() {
                let n = rows.len();
                let row = &mut rows[(round + i) % n];
                if row.absent.is_some() {
                    continue;
                }
                let entry = plan.peers.iter().find(|entry| entry.name == row.peer).expect("rows are of these peers");
                let result = cell(&scenario, entry, procs, plan.quick);
                line += &match &result {
                    Ok(report) => format!("  {} {:.1}", row.peer, report.outcome.median),
                    Err(error) => format!("  {} FAILED: {error}", row.peer),
                };
                row.rounds.push(result);
            }
            progress(&line);
        }
    }
}

/// Runs one cell in a child process, and checks what threads it used.
fn cell(scenario: &Info, peer: &Entry, procs: usize, quick: bool) -> Result<CellReport, String> {
    let text = printed(start(scenario, peer, procs, quick)?, LIMIT)?;
    let report: CellReport = serde_json::from_str(&text).map_err(|error| format!("its report is no JSON: {error}"))?;
    if report.ran_on != procs {
        return Err(format!("it ran tasks on {} threads at once, not {procs}", report.ran_on));
    }
    Ok(report)
}

/// What a child prints until it ends; its stdout is piped. After `limit` it is killed, which is an error, and so is a
/// failure of its own.
pub(crate) fn printed(mut child: Child, limit: Duration) -> Result<String, String> {
    let mut stdout = child.stdout.take().expect("stdout is piped");
    let (ended, text) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.read_to_string(&mut text).map(|_| text);
        // The receiver is gone only after the limit.
        let _ = ended.send(read);
    });
    let Ok(text) = text.recv_timeout(limit) else {
        // It may have ended this moment, and then there is nothing to kill.
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("it took more than {} s", limit.as_secs()));
    };
    let status = child.wait().map_err(|error| format!("it cannot be waited for: {error}"))?;
    if !status.success() {
        return Err(format!("it ended with {status}"));
    }
    text.map_err(|error| format!("its output cannot be read: {error}"))
}

/// Starts the process of a cell.
fn start(scenario: &Info, peer: &Entry, procs: usize, quick: bool) -> Result<Child, String> {
    let this = std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
    let mut command;
    let mut cpu = None;
    match peer.code {
        Code::Here(_) => {
            command = Command::new(this);
            command.args(["--cell", scenario.name, peer.name, &procs.to_string()]);
            if quick {
                command.arg("--quick");
            }
        }
        Code::Program(program) => {
            command = Command::new(program()?);
            command
                .args(["-scenario", scenario.name, "-procs", &procs.to_string(), "-row", http::ROW, "-bench"])
                .arg(this);
            if quick {
                command.arg("-quick");
            }
            // `cell::run` pins itself; a program that has threads before its main begins cannot.
            if let (Some((first, last)), Kind::Network, 1) = (pin::first_and_last(), scenario.kind, procs) {
                command.args(["-load-cpu", &last.to_string()]);
                cpu = Some(first);
            }
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let child = match cpu {
        None => command.spawn(),
        // A child inherits the CPUs of the thread that starts it.
        Some(cpu) => std::thread::scope(|scope| {
            let pinned = scope.spawn(|| {
                pin::to(cpu);
                command.spawn()
            });
            pinned.join().expect("it does not panic")
        }),
    };
    child.map_err(|error| format!("it does not start: {error}"))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::peers;
    use crate::scenarios::Batch;
    use crate::scenarios::switch::{YieldMany, YieldOne};

    #[test]
    fn what_the_rounds_leave_undecided_runs_on() {
        let scenarios = vec![YieldOne::INFO, YieldMany::INFO];
        let peers: Vec<_> = peers::all().into_iter().filter(|peer| ["gmp", "tokio"].contains(&peer.name)).collect();
        let rows = |scenario| {
            let of = |peer: &Entry| Row {
                scenario,
                procs: 1,
                peer: peer.name,
                ceiling: false,
                absent: None,
                rounds: Vec::new(),
            };
            peers.iter().map(of).collect::<Vec<_>>()
        };
        for (settle, more) in [(5, 5), (0, 2), (2, 2)] {
            let mut rows: Vec<_> = scenarios.iter().copied().flat_map(rows).collect();
            let (peers, procs) = (peers::all(), vec![1]);
            let (scenarios, slow_procs) = (scenarios.clone(), procs.clone());
            let plan = Plan { scenarios, peers, procs, slow_procs, rounds: 2, settle, quick: true, whole: false };
            let order = RefCell::new(Vec::new());
            let cell = |scenario: &Info, entry: &Entry, _, _| {
                order.borrow_mut().push((scenario.name, entry.name));
                Err(String::new())
            };
            let is_undecided = |rows: &[Row]| {
                assert!(rows.len() == 2 && rows.iter().all(|row| row.rounds.len() == 2));
                rows[0].scenario.name == YieldMany::INFO.name
            };
            measure(&mut rows, &plan, is_undecided, |_| (), cell);
            assert_eq!(rows.iter().map(|row| row.rounds.len()).collect::<Vec<_>>(), [2, 2, more, more]);
            // In turn, and in each round another first.
            let many: Vec<_> = order
                .into_inner()
                .into_iter()
                .filter(|(name, _)| *name == YieldMany::INFO.name)
                .map(|(_, peer)| peer)
                .collect();
            assert!(
                many.chunks(4).all(|two| two[0] != two[1] && two.get(2).is_none_or(|next| *next == two[1])),
                "{many:?}"
            );
        }
    }

    #[test]
    fn a_child_that_hangs_or_fails_is_an_error() {
        let start = |program: &str| {
            let mut command = Command::new(program);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it is everywhere")
        };
        // It reads what nobody writes, and nobody closes.
        let mut hanging = start("cat");
        let _input = hanging.stdin.take();
        assert_eq!(printed(hanging, Duration::ZERO), Err("it took more than 0 s".into()));
        assert!(printed(start("false"), LIMIT).is_err_and(|why| why.contains("ended with")));
        assert_eq!(printed(start("true"), LIMIT), Ok(String::new()));
    }
}
