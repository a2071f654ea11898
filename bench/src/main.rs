//! gmp beside its peers: the command line. `--help` prints the options.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use gmp_bench::cell::Cell;
use gmp_bench::peers::Code;
use gmp_bench::rate;
use gmp_bench::run::{self, Plan};
use gmp_bench::scenarios::{Info, Kind, http};
use gmp_bench::{alloc, gates, load, locked, machine, model, peers, publish, report, verdict};
use lexopt::{Arg, Parser, ValueExt};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

const USAGE: &str = "\
gmp beside its peers: every scenario is one source that all runtimes run.

usage: gmp-bench [options]

  --scenario NAME,…  only these (a name that ends in - means all that start so); may be repeated
  --peer NAME,…      only these; may be repeated
  --procs N,…        numbers of threads that run tasks (default: 1, the CPUs, twice the CPUs; the last not in slow scenarios)
  --rounds N         rounds of the whole (default 7; a verdict wants 6, and one odd round counts in it up to 10)
  --settle N         rounds in all of the rows that those leave undecided
  --json FILE        also write every round and the summaries to FILE
  --publish DIR      also write DIR/RESULTS.md and DIR/plots/*.svg; a run of everything removes the other plots there
  --quick            one round of tiny sizes: shows that all works, its figures mean nothing
  --gates FILE       count instructions, system calls, allocations and wakes of gmp's operations (valgrind, strace), and
                     compare them with the ceilings in FILE
  --record-gates FILE  the same, and write them to FILE
  --locked           the locked instructions of gmp's operations, and whose they are (valgrind, objdump, addr2line)
  --model            how often an operation touches lines that all processors share, and what 64 and 192 would make of it
  --list             print scenarios and peers
  -h, --help         print this

Go takes part if GMP_BENCH_GO names a `go`, or one is on the PATH.
Build with --release. Progress goes to stderr, the table to stdout; the exit code is 1 if a cell failed or
something could not be written.
With `wrk` on the PATH alone: ";

/// All of `--help`.
fn usage() -> String {
    let scenarios = peers::scenarios();
    let names: Vec<_> = scenarios.iter().filter(|scenario| http::needs_wrk(scenario)).map(|s| s.name).collect();
    format!("{USAGE}{}.", names.join(", "))
}

/// More processors gmp does not take.
const PROCS_MAX: usize = 1024;

enum Job {
    Help,
    List,
    Compare {
        plan: Plan,
        json: Option<String>,
        publish: Option<PathBuf>,
        skipped: Vec<&'static str>,
    },
    /// One cell; the program starts itself with it.
    Cell {
        scenario: String,
        peer: String,
        cell: Cell,
    },
    /// The counts of gmp's operations against their ceilings, which are in the file.
    Gates {
        file: PathBuf,
        record: bool,
    },
    /// The locked instructions of an operation.
    Locked,
    /// The counts for many processors.
    Model {
        quick: bool,
    },
    /// One run of such a count; the program starts itself with it.
    Count {
        scenario: String,
        procs: usize,
        ops: u64,
    },
    /// The load generator; a cell starts it.
    Load {
        address: String,
        connections: usize,
        ms: u64,
        way: load::Way,
    },
    /// Connections that ask nothing, until standard input ends; a cell starts it.
    Hold {
        address: String,
        connections: usize,
    },
    /// The load generator at a constant rate; a cell starts it.
    Rate {
        address: String,
        plan: rate::Plan,
    },
}

fn parse() -> Result<Job, Box<dyn Error>> {
    let (mut names, mut peer_names, mut procs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut rounds, mut settle, mut json, mut publish) = (None, 0, None, None);
    let (mut quick, mut model, mut cell) = (false, false, None);
    let split = |value: String| value.split(',').map(str::to_owned).collect::<Vec<_>>();
    let mut args = Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("scenario") => names.extend(split(args.value()?.string()?)),
            Arg::Long("peer") => peer_names.extend(split(args.value()?.string()?)),
            Arg::Long("procs") => {
                for given in split(args.value()?.string()?) {
                    let asked = number("procs", &given)?;
                    if !procs.contains(&asked) {
                        procs.push(asked);
                    }
                }
            }
            Arg::Long("rounds") => rounds = Some(number("rounds", &args.value()?.string()?)?),
            Arg::Long("settle") => settle = number("settle", &args.value()?.string()?)?,
            Arg::Long("json") => json = Some(args.value()?.string()?),
            Arg::Long("publish") => publish = Some(PathBuf::from(args.value()?)),
            Arg::Long("quick") => quick = true,
            Arg::Long("model") => model = true,
            Arg::Long("list") => return Ok(Job::List),
            Arg::Long("locked") => return Ok(Job::Locked),
            Arg::Long("help") | Arg::Short('h') => return Ok(Job::Help),
            Arg::Long("cell") => {
                cell = Some((args.value()?.string()?, args.value()?.string()?, args.value()?.parse()?));
            }
            Arg::Long("hold") => {
                let address = args.value()?.string()?;
                return Ok(Job::Hold { address, connections: args.value()?.parse()? });
            }
            Arg::Long(kind @ ("load" | "churn" | "skew")) => {
                let way = kind.parse()?;
                let (address, connections) = (args.value()?.string()?, args.value()?.parse()?);
                return Ok(Job::Load { address, connections, ms: args.value()?.parse()?, way });
            }
            Arg::Long(kind @ ("gates" | "record-gates")) => {
                let record = kind == "record-gates";
                return Ok(Job::Gates { file: PathBuf::from(args.value()?), record });
            }
            Arg::Long("count") => {
                let (scenario, procs) = (args.value()?.string()?, args.value()?.parse()?);
                return Ok(Job::Count { scenario, procs, ops: args.value()?.parse()? });
            }
            Arg::Long("rate") => {
                let (protocol, address) = (args.value()?.parse()?, args.value()?.string()?);
                let (connections, per_second) = (args.value()?.parse()?, args.value()?.parse()?);
                let lasting = Duration::from_millis(args.value()?.parse()?);
                return Ok(Job::Rate { address, plan: rate::Plan { protocol, connections, per_second, lasting } });
            }
            _ => return Err(arg.unexpected().into()),
        }
    }
    if model {
        return Ok(Job::Model { quick });
    }
    if let Some((scenario, peer, procs)) = cell {
        return Ok(Job::Cell {
            scenario,
            peer,
            cell: Cell { procs, quick, started_in: Duration::ZERO, load_cpu: None },
        });
    }
    let chose = !names.is_empty() || !peer_names.is_empty() || !procs.is_empty() || quick;
    let mut slow_procs = procs.clone();
    if procs.is_empty() {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        slow_procs = vec![1, cpus];
        procs = vec![1, cpus, 2 * cpus];
        slow_procs.dedup();
        procs.dedup();
    }
    let rounds = rounds.unwrap_or(if quick { 1 } else { 7 });
    if rounds == 0 || procs.iter().any(|procs| !(1..=PROCS_MAX).contains(procs)) {
        return Err(format!("--rounds wants a number from 1, --procs numbers from 1 to {PROCS_MAX}").into());
    }
    if settle > 0 && (rounds < verdict::ROUNDS || settle <= rounds) {
        return Err(format!("--settle wants --rounds of {} or more, and more than those", verdict::ROUNDS).into());
    }
    let means = |name: &str, wanted: &str| name == wanted || wanted.ends_with('-') && name.starts_with(wanted);
    let chosen = |name: &str, wanted: &[String]| wanted.is_empty() || wanted.iter().any(|w| means(name, w));
    let (mut scenarios, mut peers) = (peers::scenarios(), peers::all());
    if let Some(odd) = names.iter().find(|wanted| !scenarios.iter().any(|s| means(s.name, wanted))) {
        return Err(format!("no scenario is called {odd}; --list prints them").into());
    }
    if let Some(odd) = peer_names.iter().find(|wanted| !peers.iter().any(|p| means(p.name, wanted))) {
        return Err(format!("no peer is called {odd}; --list prints them").into());
    }
    scenarios.retain(|scenario| chosen(scenario.name, &names));
    peers.retain(|peer| chosen(peer.name, &peer_names));
    let is_run = |scenario: &Info| {
        let procs = if scenario.slow { &slow_procs } else { &procs };
        procs.iter().any(|&procs| peers.iter().any(|peer| (peer.takes_part)(scenario, procs)))
    };
    if !scenarios.iter().any(is_run) {
        return Err("none of these peers takes part in one of these scenarios".into());
    }
    let mut skipped = Vec::new();
    if scenarios.iter().any(http::needs_wrk) && !http::has_wrk() {
        skipped = scenarios.iter().filter(|scenario| http::needs_wrk(scenario)).map(|scenario| scenario.name).collect();
        scenarios.retain(|scenario| !http::needs_wrk(scenario));
    }
    let whole = !chose && skipped.is_empty();
    Ok(Job::Compare {
        plan: Plan { scenarios, peers, procs, slow_procs, rounds, settle, quick, whole },
        json,
        publish,
        skipped,
    })
}

/// The number that an option was given.
fn number(option: &str, given: &str) -> Result<usize, String> {
    given.parse().map_err(|error| format!("--{option} {given}: {error}"))
}

/// What a reader has to know of this run before it begins: what is left out, and what is not as it should be.
fn notes(plan: &Plan, skipped: &[&str]) -> Vec<String> {
    let mut notes = Vec::new();
    if !skipped.is_empty() {
        notes.push(format!("SKIPPED: there is no `wrk` on the PATH (Debian: wrk): {}", skipped.join(", ")));
    }
    for peer in &plan.peers {
        if let Code::Program(program) = peer.code {
            notes.extend(
                program().err().map(|why| format!("SKIPPED: {0} takes no part, as there is no {0}: {why}", peer.name)),
            );
        }
    }
    let asked = |scenario: &Info| matches!(scenario.kind, Kind::Network | Kind::Waiting);
    if plan.scenarios.iter().any(asked) && !rate::goes_first() {
        notes.push(
            "the generator at a constant rate may not go before other threads (root's priority -20 was refused): beside \
             tasks that compute its own delays are in the latencies"
                .into(),
        );
    }
    notes
}

/// Prints a line on standard error. One that nobody reads any more is no reason to lose the run.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

fn compare(
    plan: &Plan,
    json: Option<&str>,
    publish: Option<&Path>,
    skipped: &[&str],
) -> Result<ExitCode, Box<dyn Error>> {
    // What cannot be written is to be known before the hour, not after it.
    if let Some(directory) = publish {
        publish::prepare(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    if let Some(file) = json {
        publish::may_write(Path::new(file)).map_err(|error| format!("{file}: {error}"))?;
    }
    let machine = machine::now();
    let notes = notes(plan, skipped);
    for note in &notes {
        tell(note);
    }
    if cfg!(debug_assertions) && !plan.quick {
        tell("gmp-bench: this is a debug build: the figures say nothing");
    }
    let rows = run::run(plan, verdict::is_undecided, tell);
    // Each is written whatever became of the others, and the files first: they outlast who reads the table.
    let mut lost = Vec::new();
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&report::json(&machine, plan, &rows, skipped, &notes));
        let written = text.map_err(io::Error::from).and_then(|text| fs::write(file, text + "\n"));
        lost.extend(written.err().map(|error| format!("{file}: {error}")));
    }
    if let Some(directory) = publish {
        let written = publish::write(directory, &machine, plan, &rows, &notes);
        lost.extend(written.err().map(|error| format!("{}: {error}", directory.display())));
    }
    let mut table = report::table(plan, &rows);
    for note in &notes {
        table += &format!("\n{note}\n");
    }
    lost.extend(print(&table).err().map(|error| format!("standard output: {error}")));
    for error in &lost {
        tell(&format!("gmp-bench: {error}"));
    }
    let failed = rows.iter().flat_map(|row| &row.rounds).any(Result::is_err);
    Ok(if failed || !lost.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn main() -> ExitCode {
    let (error, code) = match parse() {
        Ok(job) => match run_job(job) {
            Ok(code) => return code,
            Err(error) => (error.to_string(), ExitCode::FAILURE),
        },
        Err(error) => (format!("{error}\n--help prints the options"), ExitCode::from(2)),
    };
    tell(&format!("gmp-bench: {error}"));
    code
}

fn run_job(job: Job) -> Result<ExitCode, Box<dyn Error>> {
    match job {
        Job::Help => println!("{}", usage()),
        Job::List => {
            for scenario in peers::scenarios() {
                println!("{:<16} {} [{}]", scenario.name, scenario.about, scenario.unit);
            }
            println!("\npeers: {}", peers::all().iter().map(|peer| peer.name).collect::<Vec<_>>().join(", "));
        }
        Job::Compare { plan, json, publish, skipped } => {
            return compare(&plan, json.as_deref(), publish.as_deref(), &skipped);
        }
        Job::Cell { scenario, peer, cell } => {
            let entry = peers::all().into_iter().find(|entry| entry.name == peer);
            let entry = entry.ok_or_else(|| format!("no peer is called {peer}"))?;
            let Code::Here(run) = entry.code else {
                return Err(format!("{peer} runs in a program of its own").into());
            };
            let report = run(&scenario, &cell).ok_or_else(|| format!("no scenario is called {scenario}"))?;
            println!("{}", serde_json::to_string(&report)?);
        }
        Job::Gates { file, record } => {
            let hold = gates::check(&file, record)?;
            return Ok(if hold { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Job::Locked => locked::print()?,
        Job::Model { quick } => print!("{}", model::table(quick)),
        Job::Count { scenario, procs, ops } => {
            let counts = gates::count(&scenario, procs, ops).ok_or_else(|| format!("no gate is called {scenario}"))?;
            println!("{}", serde_json::to_string(&counts)?);
        }
        Job::Load { address, connections, ms, way } => {
            let report = load::run(address.parse()?, connections, Duration::from_millis(ms), way)?;
            println!("{}", serde_json::to_string(&report)?);
        }
        Job::Hold { address, connections } => {
            load::hold(address.parse()?, connections, io::stdin())?;
        }
        Job::Rate { address, plan } => {
            let ready = || {
                println!("ready");
                io::stdout().flush()
            };
            let report = rate::run(address.parse()?, &plan, ready)?;
            println!("{}", serde_json::to_string(&report)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}
