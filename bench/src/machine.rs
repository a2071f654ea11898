//! Where and with what a run was made: for the head of a report.

use std::process::Command;

use serde::Serialize;

/// What a reader needs to know of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// When it began, in UTC.
    pub date: String,
    /// The command.
    pub command: String,
    /// The processor's name, how many CPUs may be used, and the kernel.
    pub system: String,
    /// The compiler that built this program.
    pub rustc: &'static str,
    /// The commit of the source it was built from, if git says so now.
    pub commit: String,
    /// Runnable processes in the minute before it began: near zero, or something else ran as well.
    pub load: f64,
}

/// Of the run that begins now.
pub fn now() -> Machine {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown CPU".into());
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let uname = rustix::system::uname();
    let (kernel, machine) = (uname.release().to_string_lossy(), uname.machine().to_string_lossy());
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    Machine {
        date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        command: format!("cargo run --release -p gmp-bench -- {}", arguments.join(" ")),
        system: format!("{cpus} CPUs ({model}, {machine}), {memory} of memory, Linux {kernel}"),
        rustc: env!("GMP_BENCH_RUSTC"),
        commit: commit(),
        load: std::fs::read_to_string("/proc/loadavg")
            .ok()
            .and_then(|line| line.split(' ').next()?.parse().ok())
            .unwrap_or(f64::NAN),
    }
}

/// The commit, and whether the tree is another; what an earlier report wrote there does not count.
fn commit() -> String {
    let directory = env!("CARGO_MANIFEST_DIR");
    let commit = said("git", &["-C", directory, "rev-parse", "--short", "HEAD"]);
    let others = [":/", ":(exclude)RESULTS.md", ":(exclude)plots"];
    let changed = said("git", &[&["-C", directory, "status", "--porcelain", "--"], &others[..]].concat());
    if changed == "unknown" { commit } else { format!("{commit}-dirty") }
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The first line of what a program prints; "unknown" if it prints none.
fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("").to_owned());
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".into())
}
