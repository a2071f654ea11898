//! Go: a program of its own (`go/`) with its counterparts of the scenarios, built when there is a `go`.
//!
//! 1. `GMP_BENCH_GO` names the `go` to build with, else it is the first on the `PATH`. Without one, or if the program
//!    does not build with it (Debian's is too old to be a fair peer), Go's rows say "no go".
//! 2. It is built once a run, beside this program, by the one that starts the cells.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::{Code, Entry};
use crate::scenarios::blocking::InPlace;
use crate::scenarios::channel::NeutralOne;
use crate::scenarios::messages::Mpmc;
use crate::scenarios::{Batch, Info, mutex, spawn};

/// Its name on the command line and in the tables.
pub const NAME: &str = "go";

/// What Go has no counterpart of: another's channel or mutex; the word that a goroutine is about to block on its own
/// thread, which Go sees by itself; a runtime that starts at a moment that can be seen. `spawn_blocking` has one, for
/// who calls it wants the call off his own turn: a goroutine for each call.
const LACKS: [Info; 7] = [
    NeutralOne::INFO,
    Mpmc::<1>::INFO,
    Mpmc::<100>::INFO,
    mutex::NEUTRAL,
    mutex::NEUTRAL_100,
    InPlace::INFO,
    spawn::START,
];

#[derive(Debug)]
struct Go {
    program: PathBuf,
    version: String,
}

pub(super) fn entry() -> Entry {
    Entry { name: NAME, settings, takes_part, ceiling: false, code: Code::Program(program) }
}

fn settings(procs: usize) -> String {
    match go() {
        Ok(go) => {
            let version = &go.version;
            format!("{version}, GOMAXPROCS = {procs}, other settings default; net/http in the HTTP scenarios")
        }
        Err(why) => format!("no go: {why}"),
    }
}

fn takes_part(scenario: &Info, _: usize) -> bool {
    LACKS.iter().all(|lacks| lacks.name != scenario.name)
}

fn program() -> Result<&'static Path, &'static str> {
    go().as_ref().map(|go| go.program.as_path()).map_err(String::as_str)
}

fn go() -> &'static Result<Go, String> {
    static GO: OnceLock<Result<Go, String>> = OnceLock::new();
    GO.get_or_init(build)
}

fn build() -> Result<Go, String> {
    let named = std::env::var_os("GMP_BENCH_GO");
    let go = PathBuf::from(named.clone().unwrap_or_else(|| OsString::from("go")));
    let run = |args: &[&str], program: Option<&Path>| {
        let mut command = Command::new(&go);
        command.args(args).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/go")).stdin(Stdio::null());
        if let Some(program) = program {
            command.arg(program).arg(".");
        }
        // It is the go that is asked for, or none: no other is to be fetched.
        let output = command.env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0").output();
        let output = output.map_err(|error| match named {
            Some(_) => format!("{}: {error}", go.display()),
            None => "none on the PATH, and GMP_BENCH_GO names none".into(),
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{} {}: {}", go.display(), args[0], said.trim().replace('\n', "; ")))
    };
    let version = run(&["version"], None)?;
    let here = std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
    // Two benches in one directory have a program each.
    let mut name = here.file_name().unwrap_or_default().to_owned();
    name.push("-go");
    let program = here.with_file_name(name);
    run(&["build", "-o"], Some(&program))?;
    Ok(Go { program, version: version.trim_start_matches("go version ").to_owned() })
}
