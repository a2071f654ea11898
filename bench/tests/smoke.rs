//! Every scenario on every peer, in tiny sizes, through the program itself.

use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

#[test]
fn every_scenario_runs_on_every_peer() {
    let directory = std::env::temp_dir().join(format!("gmp-bench-smoke-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("there is none of that name");
    let file = directory.join("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_gmp-bench"))
        .args(["--quick", "--procs", "1,2", "--json"])
        .arg(&file)
        .arg("--publish")
        .arg(&directory)
        .output()
        .expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let text = std::fs::read_to_string(&file).expect("the JSON was written");
    let results = std::fs::read_to_string(directory.join("RESULTS.md")).expect("the results were written");
    assert!(results.contains("these figures mean nothing"), "{results}");
    for link in results.lines().filter_map(|line| line.strip_prefix("![")?.split_once("](")?.1.strip_suffix(')')) {
        let plot = std::fs::read_to_string(directory.join(link)).expect("what is linked was drawn");
        assert!(plot.starts_with("<svg") && plot.contains("gmp"), "{link}");
    }
    for section in [
        "What 64 and 192 processors would make of it",
        "Ceilings of locked instructions",
        "Where it differs from the plan",
    ] {
        assert!(results.contains(&format!("\n## {section}\n")), "{results}");
    }
    assert!(!results.contains("**FAILED") && results.contains("```text\nTouches of shared lines"), "{results}");
    assert!(results.contains("plots/ratios-1p.svg") && results.contains("plots/late-block-2p.svg"), "{results}");
    std::fs::remove_dir_all(&directory).expect("it is ours");
    let report: Value = serde_json::from_str(&text).expect("it is JSON");
    for skipped in report["skipped"].as_array().expect("a list") {
        eprintln!("SKIPPED: {skipped}: there is no wrk on this machine");
    }
    let rows = report["rows"].as_array().expect("a list");
    let table = String::from_utf8_lossy(&output.stdout);
    for scenario in gmp_bench::peers::scenarios() {
        if report["skipped"].as_array().expect("a list").iter().any(|name| name == scenario.name) {
            continue;
        }
        assert!(table.contains(scenario.name) && results.contains(scenario.name), "{table}");
        for peer in gmp_bench::peers::all() {
            for procs in [1, 2] {
                let found = rows
                    .iter()
                    .find(|row| row["scenario"] == scenario.name && row["peer"] == peer.name && row["procs"] == procs);
                assert_eq!(found.is_some(), (peer.takes_part)(&scenario, procs), "{} {procs}P", scenario.name);
                if let Some(row) = found {
                    if !row["absent"].is_null() {
                        assert_eq!(peer.name, "go", "every other peer is part of the program");
                        assert!(table.contains("no go"), "{table}");
                        continue;
                    }
                    assert_eq!(row["rounds"][0]["ran_on"], procs);
                    assert!(row["summary"]["median"].as_f64().is_some_and(|median| median > 0.0), "{row}");
                }
            }
        }
    }
}

#[test]
fn a_go_that_is_not_there_is_told_before_all_else() {
    let output = Command::new(env!("CARGO_BIN_EXE_gmp-bench"))
        .args(["--quick", "--procs", "1", "--scenario", "yield-1", "--peer", "gmp,go"])
        .env("GMP_BENCH_GO", "/nowhere/go")
        .output()
        .expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let first = stderr.lines().next().expect("it says something");
    assert!(first.starts_with("SKIPPED: go takes no part") && first.contains("/nowhere/go"), "{stderr}");
    assert!(String::from_utf8_lossy(&output.stdout).contains(first));
}

/// One cell of each of two peers, with these arguments besides.
fn brief() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gmp-bench"));
    command.args(["--quick", "--procs", "1", "--scenario", "yield-1", "--peer", "gmp,tokio"]);
    command
}

#[test]
fn what_cannot_be_written_is_told_before_the_run() {
    let file = std::env::temp_dir().join(format!("gmp-bench-smoke-file-{}", std::process::id()));
    std::fs::write(&file, "no directory").expect("it can be written");
    for option in ["--publish", "--json"] {
        let output = brief().arg(option).arg(file.join("inside")).output().expect("the program starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty(), "{option}: {stderr}");
        assert!(stderr.contains("inside") && !stderr.contains("round 1/1"), "{option}: {stderr}");
    }
    std::fs::remove_file(&file).expect("it is ours");
}

#[test]
fn nobody_who_reads_costs_the_table_and_no_file() {
    let directory = std::env::temp_dir().join(format!("gmp-bench-smoke-full-{}", std::process::id()));
    let json = directory.join("report.json");
    let full = || std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    // Standard error is told what is lost, and may be as full.
    for stderr in [Stdio::piped(), full().into()] {
        let mut command = brief();
        command.arg("--publish").arg(&directory).arg("--json").arg(&json).stdout(full()).stderr(stderr);
        let output = command.spawn().and_then(Child::wait_with_output).expect("the program starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.is_empty() || stderr.contains("gmp-bench: standard output: "), "{stderr}");
        for file in [&json, &directory.join("RESULTS.md"), &directory.join("plots/ratios-1p.svg")] {
            let length = std::fs::metadata(file).map(|metadata| metadata.len()).unwrap_or(0);
            assert!(length > 0, "{}: {stderr}", file.display());
        }
        std::fs::remove_dir_all(&directory).expect("it is ours");
    }
}

#[test]
fn help_names_all_that_needs_wrk() {
    let output = Command::new(env!("CARGO_BIN_EXE_gmp-bench")).arg("--help").output().expect("the program starts");
    let help = String::from_utf8_lossy(&output.stdout);
    for scenario in gmp_bench::peers::scenarios().iter().filter(|s| gmp_bench::scenarios::http::needs_wrk(s)) {
        assert!(help.contains(scenario.name), "{}: {help}", scenario.name);
    }
}

#[test]
fn wrong_arguments_are_named() {
    for (args, said) in [
        ("--scenario nonsense", "no scenario is called nonsense"),
        ("--peer nonsense", "no peer is called nonsense"),
        ("--procs 0", "--procs numbers from 1 to 1024"),
        ("--procs 2000", "--procs numbers from 1 to 1024"),
        ("--procs two", "--procs two: invalid digit"),
        ("--rounds none", "--rounds none: invalid digit"),
        ("--settle 7", "--settle wants"),
        ("--settle", "missing argument"),
        ("--peer monoio --scenario yield-200", "none of these peers takes part"),
    ] {
        let output = bench(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args}: {stderr}");
        assert!(stderr.contains(said) && stderr.ends_with("--help prints the options\n"), "{args}: {stderr}");
    }
    let output = bench("--gates /nowhere/gates.json");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("gmp-bench: /nowhere/gates.json: "), "{stderr}");
    // Else the second one looks like another peer.
    let output = bench("--quick --peer gmp --scenario yield-1 --procs 1,1");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(stdout.lines().filter(|line| line.contains("1P gmp")).count(), 1, "{stdout}");
}

fn bench(args: &str) -> Output {
    let args = args.split(' ');
    Command::new(env!("CARGO_BIN_EXE_gmp-bench")).args(args).output().expect("the program starts")
}
