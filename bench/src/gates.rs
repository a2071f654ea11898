//! What an operation of gmp's costs in counts that no busy machine changes: instructions, those of them that are
//! locked, system calls, allocations, wakes of threads. `.ci/run` holds them against recorded ceilings (`--gates`).
//!
//! 1. Each count is taken of `n` operations and of `2 n`, in processes of their own, and the difference divided by `n`:
//!    what starting and stopping cost falls out.
//! 2. Instructions are callgrind's, of the thread that executed most of them: with one processor the one that runs
//!    tasks. Of tasks that are spawned from outside both threads count. System calls are strace's, with the threads of
//!    the watcher left out: its looks are paced by the clock. Wakes are the scheduler's own counters, with two
//!    processors.
//! 3. The scheduler looks at its queues and sockets by the clock, which under valgrind, beside others, runs fast: of
//!    several runs the one with the fewest instructions counts, and so with wakes.
//! 4. There is no rescue: under valgrind every long poll would be a stuck one. Brief closures run on processors only
//!    where there is one, so of them no instructions are counted.
//! 5. A count above its ceiling by 2 % fails, and so does a ceiling whose count is gone. Instructions are those of the
//!    recorded compiler; with another one they are printed and not compared, nor are the locked ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::alloc;
use crate::locked::Program;
use crate::peers::gmp::Gmp;
use crate::scenarios::{Batch, blocking, channel, mutex, spawn, switch, timer};

mod operations;

/// How far a count may be above its ceiling: this share of it.
const MARGIN: f64 = 0.02;

/// What a count of next to nothing may be above its ceiling, an operation: a doubling of some table, a look at the
/// sockets.
const SLACK: f64 = 0.01;

/// The names of two counts.
const LOCKED: &str = "locked instructions";
const LOCKED_SHARED: &str = "locked instructions, shared";

/// Runs of which the one with the fewest counts.
const RUNS: usize = 4;

/// One operation whose counts are gated: its name, and how many make a run.
pub struct Gate {
    /// That of the scenario, if it is one.
    pub name: &'static str,
    ops: u64,
    /// Threads that take part with one processor.
    threads: usize,
    /// Whether it executes as many instructions in each run with one.
    instructions: bool,
    /// Whether as many of them are locked.
    pub locked: bool,
    /// Whether it wakes as many machines in each run with two.
    wakes: bool,
    /// Whether it waits for sockets as often in each run.
    waits: bool,
    /// Whether it is closures, which are to run on processors.
    brief: bool,
    run: fn(usize, u64) -> Counts,
}

/// What a run of the program counts by itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Counts {
    allocs: u64,
    wakes: u64,
    /// Closures that ran on processors.
    brief: u64,
}

/// The counts of an operation.
type Figures = BTreeMap<String, f64>;

/// The recorded ceilings.
#[derive(Debug, Serialize, Deserialize)]
struct Ceilings {
    /// The compiler whose instructions these are.
    rustc: String,
    /// By scenario, then by what is counted.
    ceilings: BTreeMap<String, Figures>,
}

/// Counts so many operations in a task, after so many that make what is made at the first use.
fn counted_in<F>(peer: &Gmp, before: u64, ops: u64, batch: fn(u64) -> F) -> Counts
where
    F: Future<Output = ()> + Send + 'static,
{
    let run = |ops| peer.runtime().block_on(async { gmp::spawn(batch(ops)).await }).expect("it does not panic");
    run(before);
    counted_while(peer, || run(ops))
}

fn counted_while(peer: &Gmp, run: impl FnOnce()) -> Counts {
    let before = peer.runtime().metrics();
    alloc::start();
    run();
    let allocs = alloc::stop().allocs;
    let after = peer.runtime().metrics();
    Counts { allocs, wakes: after.wakes - before.wakes, brief: after.blocking_brief - before.blocking_brief }
}

const fn gate<B: Batch>(ops: u64) -> Gate {
    let run = |procs, ops| counted_in(&Gmp::without_rescue(procs), B::OPS.1, ops, B::batch::<Gmp>);
    own(B::INFO.name, ops, run)
}

const fn own(name: &'static str, ops: u64, run: fn(usize, u64) -> Counts) -> Gate {
    Gate { name, ops, threads: 1, instructions: true, locked: true, wakes: true, waits: true, brief: false, run }
}

impl Gate {
    /// Operations in a run.
    pub fn ops(&self) -> u64 {
        self.ops
    }
}

/// What is gated.
pub fn all() -> Vec<Gate> {
    let (instructions, locked) = (false, false);
    vec![
        gate::<spawn::Inside>(20_000),
        gate::<spawn::Detached>(20_000),
        gate::<spawn::Chained>(20_000),
        gate::<switch::YieldOne>(50_000),
        gate::<switch::YieldMany>(50_000),
        gate::<switch::PingPong>(10_000),
        gate::<channel::OwnOne>(20_000),
        gate::<mutex::Contended>(25_600),
        gate::<timer::Churn>(20_000),
        gate::<blocking::InPlace>(50_000),
        own("channel-bounded", 20_000, operations::bounded),
        own("channel-unbounded", 20_000, operations::unbounded),
        own("timer-fires", 20_000, operations::fires),
        // How often the thread that waits, or the one that is held, looks around is in the instructions of both.
        Gate { threads: 2, instructions, wakes: false, ..own("spawn-outside-held", 20_000, operations::outside) },
        // By the clock are what the watcher does in a runtime with a rescue, and how many sockets a wait finds ready.
        Gate { instructions, locked, brief: true, ..own("spawn-blocking", 20_000, operations::brief) },
        Gate { instructions, locked, waits: false, ..own("echo-inside", 3_200, operations::echo) },
    ]
}

/// One run, in this process: so many operations of the scenario; `None` if no gate has that name.
pub fn count(scenario: &str, procs: usize, ops: u64) -> Option<Counts> {
    let gate = all().into_iter().find(|gate| gate.name == scenario)?;
    Some((gate.run)(procs, ops))
}

/// Counts everything, prints it, and compares it with the ceilings in `file`, or writes them there. Whether all hold.
///
/// # Errors
///
/// valgrind, strace, objdump or addr2line is not there or fails, or the file cannot be read or written.
pub fn check(file: &Path, record: bool) -> io::Result<bool> {
    let rustc = env!("GMP_BENCH_RUSTC").to_owned();
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display()));
    let read = || serde_json::from_slice(&fs::read(file)?).map_err(io::Error::from);
    let recorded: Option<Ceilings> = if record { None } else { Some(read().map_err(named)?) };
    if !alloc::IS_SYSTEMS {
        return Err(io::Error::other("the ceilings are those of the system's allocator: build without `mimalloc`"));
    }
    let same = recorded.as_ref().is_none_or(|recorded| recorded.rustc == rustc);
    if let Some(recorded) = recorded.as_ref().filter(|_| !same) {
        println!("SKIPPED: instructions are not compared: recorded with {}, built by {rustc}", recorded.rustc);
    }
    let (mut ceilings, mut hold) = (BTreeMap::new(), true);
    let program = Program::this()?;
    for gate in all() {
        let figures = figures(&gate, &program)?;
        let limits = recorded.as_ref().map(|recorded| recorded.ceilings.get(gate.name).cloned().unwrap_or_default());
        for (what, figure) in &figures {
            let mut line = format!("{:<18} {what:<30}{figure:>10.3}", gate.name);
            if let Some(limits) = &limits {
                let compared = same || !what.contains("instructions");
                match limits.get(what) {
                    Some(ceiling) if compared && *figure > ceiling * (1.0 + MARGIN) + SLACK => {
                        line += &format!("  TOO MUCH: the ceiling is {ceiling:.3}");
                        hold = false;
                    }
                    Some(ceiling) => line += &format!("  ceiling {ceiling:.3}"),
                    None => {
                        line += "  there is no ceiling for it";
                        hold = false;
                    }
                }
            }
            println!("{line}");
        }
        ceilings.insert(gate.name.to_owned(), figures);
    }
    for (name, limits) in recorded.into_iter().flat_map(|recorded| recorded.ceilings) {
        let counted = ceilings.get(&name);
        for what in limits.keys().filter(|what| !counted.is_some_and(|figures| figures.contains_key(*what))) {
            println!("{name:<18} {what:<30} is not counted, and has a ceiling");
            hold = false;
        }
    }
    if record {
        // Three digits are as many as are the same in the next run.
        let round = |figure: &mut f64| *figure = (*figure * 1e3).round() / 1e3;
        ceilings.values_mut().flat_map(BTreeMap::values_mut).for_each(round);
        fs::write(file, serde_json::to_string_pretty(&Ceilings { rustc, ceilings })? + "\n").map_err(named)?;
    }
    Ok(hold)
}

/// What `gates.json` of this source has on locked instructions: the compiler they were recorded with, and of each
/// operation all of them and those on lines that all processors share.
pub fn recorded_locked() -> (String, Vec<(String, f64, f64)>) {
    let recorded: Ceilings = serde_json::from_str(include_str!("../gates.json")).expect("this program wrote it");
    let of = |(name, figures): (String, Figures)| Some((name, *figures.get(LOCKED)?, *figures.get(LOCKED_SHARED)?));
    (recorded.rustc, recorded.ceilings.into_iter().filter_map(of).collect())
}

fn figures(gate: &Gate, program: &Program) -> io::Result<Figures> {
    let per_op = |[once, twice]: [u64; 2]| (twice as f64 - once as f64) / gate.ops as f64;
    let [once, twice] = [plain(gate, 1, 1)?, plain(gate, 1, 2)?];
    let mut figures = vec![("allocations", per_op([once.allocs, twice.allocs]))];
    if gate.wakes {
        let wakes = |times| fewest(|| plain(gate, 2, times), |counts| counts.wakes);
        figures.push(("wakes, 2P", per_op([wakes(1)?.wakes, wakes(2)?.wakes])));
    }
    if gate.instructions || gate.locked {
        let [once, twice] = profiles(gate)?;
        if gate.instructions {
            figures.push(("instructions", per_op([once.instructions, twice.instructions])));
        }
        if gate.locked {
            let [locked, shared] = program.locked(gate, &once, &twice)?;
            figures.extend([(LOCKED, locked), (LOCKED_SHARED, shared)]);
        }
    }
    if gate.brief {
        figures.push(("closures in the pool", 1.0 - per_op([once.brief, twice.brief])));
    }
    figures.push(("system calls", per_op([system_calls(gate, 1)?, system_calls(gate, 2)?])));
    Ok(figures.into_iter().map(|(what, figure)| (what.to_owned(), figure.max(0.0))).collect())
}

/// Of several runs the one with the fewest of what is asked for.
fn fewest<T>(run: impl Fn() -> io::Result<T>, of: impl Fn(&T) -> u64) -> io::Result<T> {
    let mut best = run()?;
    for _ in 1..RUNS {
        let next = run()?;
        if of(&next) < of(&best) {
            best = next;
        }
    }
    Ok(best)
}

/// The arguments of a run of `times` as many operations.
fn arguments(gate: &Gate, procs: usize, times: u64) -> [String; 4] {
    ["--count".into(), gate.name.into(), procs.to_string(), (gate.ops * times).to_string()]
}

/// Runs a command to its end and gives what it printed.
///
/// # Errors
///
/// It does not start, or fails.
pub fn output(command: &mut Command) -> io::Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{name} ended with {}: {}", output.status, said.trim())))
}

fn plain(gate: &Gate, procs: usize, times: u64) -> io::Result<Counts> {
    let printed = output(Command::new(std::env::current_exe()?).args(arguments(gate, procs, times)))?;
    Ok(serde_json::from_slice(&printed)?)
}

/// A directory of this process's own, gone when this is dropped.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> io::Result<Scratch> {
        let directory = std::env::temp_dir().join(format!("gmp-bench-gates-{}", std::process::id()));
        fs::create_dir(&directory)?;
        Ok(Scratch(directory))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans the directory for such things.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What callgrind says of the threads that take part in a run.
pub struct Profile {
    /// The cost of each instruction.
    pub text: String,
    /// All of them.
    instructions: u64,
}

/// The profiles of a run, and of one with twice as many operations.
///
/// # Errors
///
/// valgrind is not there or fails.
pub fn profiles(gate: &Gate) -> io::Result<[Profile; 2]> {
    let profile = |times| fewest(|| callgrind(gate, times), |profile| profile.instructions);
    Ok([profile(1)?, profile(2)?])
}

fn callgrind(gate: &Gate, times: u64) -> io::Result<Profile> {
    let scratch = Scratch::new()?;
    let mut command = Command::new("valgrind");
    command.args(["-q", "--tool=callgrind", "--separate-threads=yes", "--dump-instr=yes"]);
    command.args(["--compress-pos=no", "--compress-strings=no"]);
    command.arg(format!("--callgrind-out-file={}", scratch.0.join("out").display()));
    output(command.arg(std::env::current_exe()?).args(arguments(gate, 1, times)))?;
    let threads: io::Result<Vec<_>> =
        fs::read_dir(&scratch.0)?.map(|entry| fs::read_to_string(entry?.path())).collect();
    let mut threads = threads?;
    threads.sort_by_key(|text| std::cmp::Reverse(total(text)));
    threads.truncate(gate.threads);
    Ok(Profile { instructions: threads.iter().map(|text| total(text)).sum(), text: threads.join("\n") })
}

fn total(profile: &str) -> u64 {
    profile.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok()).unwrap_or(0)
}

fn system_calls(gate: &Gate, times: u64) -> io::Result<u64> {
    let scratch = Scratch::new()?;
    let file = scratch.0.join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&file).arg(std::env::current_exe()?);
    output(command.args(arguments(gate, 1, times)))?;
    let trace = fs::read_to_string(&file)?;
    let thread = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let watchers: BTreeSet<_> = trace
        .lines()
        .filter(|line| line.contains("prctl(PR_SET_NAME") && line.contains("sysmon\""))
        .filter_map(thread)
        .collect();
    // A call that another thread interrupts is told of in two lines.
    let is_wait = |line: &str| line.contains(" epoll_wait(") || line.contains(" epoll_pwait");
    let counts = |line: &&str| !line.contains(" resumed>") && (gate.waits || !is_wait(line));
    let calls = trace.lines().filter(counts);
    Ok(calls.filter_map(thread).filter(|thread| !watchers.contains(thread)).count() as u64)
}
