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
    /// How it was built: the level of optimisation, and what the environment set.
    pub settings: &'static str,
    /// Variables of the environment that bear on the figures, as far as they are set.
    pub environment: Vec<String>,
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
        command: format!("cargo run{} -p gmp-bench{} -- {}", release(), features(), arguments.join(" ")),
        system: format!("{cpus} CPUs ({model}, {machine}), {memory} of memory, Linux {kernel}"),
        rustc: env!("GMP_BENCH_RUSTC"),
        settings: env!("GMP_BENCH_SETTINGS"),
        environment: environment(),
        commit: commit(),
        load: std::fs::read_to_string("/proc/loadavg")
            .ok()
            .and_then(|line| line.split(' ').next()?.parse().ok())
            .unwrap_or(f64::NAN),
    }
}

fn release() -> &'static str {
    if cfg!(debug_assertions) { "" } else { " --release" }
}

fn features() -> String {
    let peers = if cfg!(feature = "peers") { "" } else { " --no-default-features" };
    let allocator = if cfg!(feature = "mimalloc") { " --features mimalloc" } else { "" };
    format!("{peers}{allocator}")
}

/// What is set of what moves figures.
fn environment() -> Vec<String> {
    let all = std::env::vars_os();
    moving(all.map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())))
}

/// The variables that move figures. Of the path to a `go` it is told that there is one: its version says the rest. What
/// else is named `GMP_BENCH_…` is of `build.rs`: `cargo run` sets it, and it has a line of its own.
fn moving(variables: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let exact = [
        "GOGC",
        "GODEBUG",
        "GOMEMLIMIT",
        "GOMAXPROCS",
        "GOFLAGS",
        "GOAMD64",
        "GOEXPERIMENT",
        "LD_PRELOAD",
        // The size of the pool of smol's `unblock`.
        "BLOCKING_MAX_THREADS",
    ];
    let starts =
        ["MALLOC_", "MIMALLOC_", "GLIBC_TUNABLES", "CARGO_PROFILE_", "RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "GMP_"];
    let mut set: Vec<String> = variables
        .filter(|(name, _)| name == "GMP_BENCH_GO" || !name.starts_with("GMP_BENCH_"))
        .filter(|(name, _)| exact.contains(&&**name) || starts.iter().any(|start| name.starts_with(start)))
        .map(|(name, value)| if name == "GMP_BENCH_GO" { name } else { format!("{name}={value}") })
        .collect();
    set.sort();
    set
}

/// The commit, and whether the tree is another; what an earlier report wrote there does not count.
fn commit() -> String {
    let directory = env!("CARGO_MANIFEST_DIR");
    let others = [":/", ":(exclude)RESULTS.md", ":(exclude)plots"];
    let status = [&["-C", directory, "status", "--porcelain", "--"], &others[..]].concat();
    state(printed("git", &["-C", directory, "rev-parse", "--short", "HEAD"]), printed("git", &status))
}

/// In words: a commit, and what `git status` says of changes, which is nothing if there are none.
fn state(commit: Option<String>, changes: Option<String>) -> String {
    match (commit, changes) {
        (None, _) => "unknown".into(),
        (Some(commit), None) => format!("{commit} (git does not say whether it was changed)"),
        (Some(commit), Some(changes)) if changes.is_empty() => commit,
        (Some(commit), Some(_)) => format!("{commit}-dirty"),
    }
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// What a program prints; "unknown" if it prints nothing.
fn said(program: &str, args: &[&str]) -> String {
    printed(program, args).filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".into())
}

/// The first line of what a program prints; none if it fails.
fn printed(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_figures_is_told_and_no_path_to_a_go() {
        let moving_ones = ["GMP_SCHEDTRACE", "GMP_BENCH_GO", "BLOCKING_MAX_THREADS", "MALLOC_ARENA_MAX"];
        let set = [&moving_ones[..], &["GMP_BENCH_RUSTC", "HOME", "NOGOGC"]].concat();
        let told = moving(set.iter().map(|name| (String::from(*name), "1".to_owned())));
        assert_eq!(told, ["BLOCKING_MAX_THREADS=1", "GMP_BENCH_GO", "GMP_SCHEDTRACE=1", "MALLOC_ARENA_MAX=1"]);
    }

    #[test]
    fn a_tree_is_clean_only_if_git_says_so() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(state(some("abc"), some("")), "abc");
        assert_eq!(state(some("abc"), some(" M file")), "abc-dirty");
        assert_eq!(state(some("abc"), None), "abc (git does not say whether it was changed)");
        assert_eq!(state(None, some("")), "unknown");
    }
}
