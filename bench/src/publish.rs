//! `RESULTS.md` and its plots, written by `--publish`: nobody writes a figure there by hand.

use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

use crate::machine::Machine;
use crate::peer::Peer;
use crate::peers::gmp::Gmp;
use crate::plot::{self, Plots};
use crate::run::{Plan, Row};
use crate::scenarios::{self, Kind};
use crate::verdict::{self, Stand, Verdict};
use crate::{alloc, gates, model, pin, report};

/// What the plan of the suite asks for and is not run, or not so, with the reason: kept by hand, with the scenarios.
const DIFFERS: &str = include_str!("differs.md");

/// Makes `directory`, and tries what [`write()`] does there.
///
/// # Errors
///
/// Those of the file system.
pub fn prepare(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory.join("plots"))?;
    may_write(&directory.join("RESULTS.md"))
}

/// Whether a file can be written; what is in it stays.
///
/// # Errors
///
/// Those of the file system.
pub fn may_write(file: &Path) -> io::Result<()> {
    fs::OpenOptions::new().create(true).append(true).open(file).map(drop)
}

/// Writes `RESULTS.md` and `plots/*.svg` into `directory`, which was prepared.
///
/// # Errors
///
/// Those of the file system, and of the drawing. A plot that fails does not cost the text, which says so.
pub fn write(directory: &Path, machine: &Machine, plan: &Plan, rows: &[Row], notes: &[String]) -> io::Result<()> {
    let into = directory.join("plots");
    let mut plots = plot::all(&into, plan, rows);
    if plan.whole {
        let removed = remove_others(&into, &plots.names);
        plots.failed.extend(removed.err().map(|error| format!("older plots cannot be removed: {error}")));
    }
    let mut text = markdown(machine, plan, rows, notes, &plots);
    if plan.peers.iter().any(|peer| peer.name == Gmp::NAME) {
        scaling(&mut text, &model::of_a_child(plan.quick));
    }
    text.push('\n');
    text.push_str(DIFFERS);
    fs::write(directory.join("RESULTS.md"), text)?;
    if plots.failed.is_empty() { Ok(()) } else { Err(io::Error::other(plots.failed.join("; "))) }
}

/// Removes the plots of scenarios that are gone: all but those of these names.
fn remove_others(directory: &Path, names: &[String]) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let is_plot = entry.file_type()?.is_file() && path.extension().is_some_and(|ending| ending == "svg");
        if is_plot && !names.iter().any(|name| path.file_stem().is_some_and(|stem| stem == name.as_str())) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn markdown(machine: &Machine, plan: &Plan, rows: &[Row], notes: &[String], plots: &Plots) -> String {
    let mut out = String::new();
    let Machine { date, command, system, rustc, settings, environment, commit, load } = machine;
    let _ = writeln!(out, "# Results of the bench\n\nWritten by the program; do not edit.\n");
    if let Some(failed) = report::failed(rows) {
        let _ = writeln!(out, "**{failed}**\n");
    }
    for failed in &plots.failed {
        let _ = writeln!(out, "**FAILED: {failed}**\n");
    }
    let _ = writeln!(
        out,
        "- command: `{command}`\n- date: {date}, commit {commit}\n- machine: {system}\n- built by {rustc}: {settings}\n\
         - load average when it began: {load:.2} (well above zero: something else ran, and the figures say little)\n\
         - {}, peers in turn, the first of them rotated, a process a cell, allocator: {} (Go has its own)",
        report::rounds(plan),
        alloc::name(),
    );
    if !environment.is_empty() {
        let _ = writeln!(out, "- set in the environment: `{}`", environment.join("`, `"));
    }
    if pins(plan) {
        let _ = writeln!(
            out,
            "- with one P a server of the network's scenarios has one CPU and its generator another; no other row is \
             pinned: the thread that gmp starts beside a stuck poll then runs on the second CPU"
        );
    }
    for note in notes {
        let _ = writeln!(out, "- {note}");
    }
    if plan.quick {
        let _ = writeln!(out, "\n**A `--quick` run: these figures mean nothing.**");
    }
    let verdicts = verdict::verdicts(rows);
    summary(&mut out, plan, &verdicts);
    if let Some(targets) = report::targets(rows) {
        let _ = writeln!(out, "\n{targets}.");
    }
    let _ = writeln!(out, "\n## Peers and their settings\n");
    for peer in &plan.peers {
        for &procs in &plan.procs {
            if plan.scenarios.iter().any(|scenario| (peer.takes_part)(scenario, procs)) {
                let _ = writeln!(out, "- {}, {procs}P: {}", peer.name, (peer.settings)(procs));
            }
        }
    }
    if !plots.names.is_empty() {
        let _ = writeln!(out, "\n## Plots\n");
        for name in &plots.names {
            let _ = writeln!(out, "![{0}](plots/{0}.svg)\n", name);
        }
    }
    let _ = writeln!(
        out,
        "\n## Rows\n\nmedian: of the rounds' median batches; best: of all batches; × best: per-round ratio of the median \
         batches to the best peer's, its median and in brackets the interval ({}); CPU: user and system, of the \
         measured process, with what hogs burn on purpose, and in a cold start since the process began; ctx: context \
         switches, voluntary + involuntary; `>` and `<`: a bound, for requests were left unanswered.",
        report::intervals(plan)
    );
    let mut last = "";
    for rows in report::groups(rows) {
        let info = &rows[0].scenario;
        if info.name != last {
            last = info.name;
            let _ = writeln!(out, "\n### {}\n\n{} ({})\n", info.name, info.about, report::measured(info));
            if let Some(reference) = scenarios::reference(info) {
                let _ = writeln!(out, "For reference, not measured here: {reference}.\n");
            }
            let _ = writeln!(
                out,
                "| P | peer | median | best | × best | CPU ns/op | ctx/1k op | alloc/op | RSS MiB | further |"
            );
            let _ = writeln!(out, "|---|---|---:|---:|---|---:|---:|---:|---:|---|");
        }
        for line in report::lines(rows) {
            let _ = writeln!(out, "| {} |", line.join(" | "));
        }
    }
    out
}

/// Whether any row is pinned.
fn pins(plan: &Plan) -> bool {
    let served = plan.scenarios.iter().any(|scenario| scenario.kind == Kind::Network);
    served && plan.procs.contains(&1) && pin::first_and_last().is_some()
}

/// What more processors than there are would meet: the model's table, and gmp's locked instructions.
fn scaling(out: &mut String, model: &Result<String, String>) {
    let (rustc, locked) = gates::recorded_locked();
    let _ = writeln!(
        out,
        "\n## What 64 and 192 processors would make of it\n\nBy `--model`, in a process of its own after the rows.\n"
    );
    let _ = match model {
        Ok(table) => writeln!(out, "```text\n{}\n```", table.trim_end()),
        Err(why) => writeln!(out, "**FAILED: {why}**"),
    };
    let _ = writeln!(
        out,
        "\n## Ceilings of locked instructions\n\nOf gmp's operations, with one processor, by callgrind; on the local path \
         none is to be on a line that all processors share. Those that are: where more tasks are made ready at once than \
         a local queue holds they go to the global one, as do all that are spawned from outside (counted with the thread \
         that spawns them), and a machine that finds none goes idle.\n\nNot measured by this run: the ceilings in `bench/gates.json`, \
         recorded by `--record-gates` with {rustc} and held by `.ci/run` where that is the compiler.\n\n| operation | \
         locked instructions, at most | of them on shared lines, at most |\n|---|---:|---:|"
    );
    for (operation, all, shared) in locked {
        let _ = writeln!(out, "| {operation} | {all:.2} | {shared:.3} |");
    }
}

/// How gmp stands, row by row.
fn summary(out: &mut String, plan: &Plan, verdicts: &[Verdict]) {
    if verdicts.is_empty() {
        return;
    }
    let count = |stand| verdicts.iter().filter(|v| v.stand == stand).count();
    let _ = write!(
        out,
        "\n## gmp beside the best of the others\n\nOf {} rows gmp is ahead in {}, ahead at more than 1.1 times the CPU time \
         in {}, even (the interval holds 1 and is within 1.1 times of it) in {}, behind in {}; {} are undecided, as the interval is \
         wide; {} FAILED, in a cell of gmp's",
        verdicts.len(),
        count(Stand::Ahead),
        count(Stand::Dearer),
        count(Stand::Even),
        count(Stand::Behind),
        count(Stand::Undecided),
        count(Stand::Failed)
    );
    let rarer = [(Stand::PeerFailed, "have no verdict, as a peer failed"), (Stand::Open, "have too few rounds")];
    for (stand, what) in rarer {
        if count(stand) > 0 {
            let _ = write!(out, "; {} {what}", count(stand));
        }
    }
    out.push_str(".\n\n");
    for &procs in &plan.procs {
        if let Some(mean) = verdict::mean(verdicts, procs) {
            let _ = writeln!(out, "- {procs}P: {}", mean.text());
        }
    }
    let _ =
        writeln!(out, "\n| scenario | P | best of the others | gmp is … times better | CPU time, times | rounds | |");
    let _ = writeln!(out, "|---|---|---|---|---:|---:|---|");
    for verdict in verdicts {
        let (Verdict { scenario, procs, rounds, .. }, [other, times, cpu, word]) = (verdict, verdict.columns());
        let _ = writeln!(out, "| {scenario} | {procs} | {other} | {times} | {cpu} | {rounds} | {word} |");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::CellReport;
    use crate::laps::Outcome;
    use crate::peers;
    use crate::scenarios::Batch;
    use crate::scenarios::switch::YieldOne;
    use crate::usage::Usage;

    fn plan() -> Plan {
        let (procs, slow_procs) = (vec![1], vec![1]);
        let (scenarios, peers) = (vec![YieldOne::INFO], peers::all());
        Plan { scenarios, peers, procs, slow_procs, rounds: 6, settle: 15, quick: false, whole: false }
    }

    #[test]
    fn what_failed_stands_first() {
        let rounds = vec![Err("it took more than 30 s".to_owned()); 6];
        let row = Row { scenario: YieldOne::INFO, procs: 1, peer: "gmp", ceiling: false, absent: None, rounds };
        let text = markdown(&crate::machine::now(), &plan(), &[row], &[], &Plots::default());
        let first = text.lines().find(|line| line.contains("FAILED")).expect("it is told");
        assert_eq!(first, "**6 cells FAILED: yield-1 1P gmp (6 of 6 rounds: it took more than 30 s).**");
        assert!(text.find(first) < text.find("- command"), "{text}");
        assert!(text.contains("1 FAILED, in a cell of gmp's"), "{text}");
        assert!(text.contains("| yield-1 | 1 | - | - | - | 0 | FAILED |"), "{text}");
        let table = report::table(&plan(), &[]);
        assert!(!table.contains("FAILED"), "{table}");
    }

    /// A row with one figure in each round.
    fn row(peer: &'static str, figure: f64) -> Row {
        let report = || {
            let outcome = Outcome::single(figure, 1, Usage::default(), Vec::new());
            Ok(CellReport { outcome, rss_peak_kib: 1, threads: 1, ran_on: 1 })
        };
        let rounds = (0..6).map(|_| report()).collect();
        Row { scenario: YieldOne::INFO, procs: 1, peer, ceiling: false, absent: None, rounds }
    }

    #[test]
    fn a_plot_that_fails_does_not_cost_the_text_and_older_ones_go_after_a_run_of_everything() {
        let directory = std::env::temp_dir().join(format!("gmp-bench-publish-{}", std::process::id()));
        let plots = directory.join("plots");
        prepare(&directory).expect("it can be made");
        for kept in ["older-1p.svg", "notes.txt"] {
            fs::write(plots.join(kept), "older").expect("it can be written");
        }
        let mut plan = plan();
        // Without gmp among them no model is made, which would be this test's program once more.
        plan.peers.retain(|peer| peer.name != Gmp::NAME);
        let rows = [row(Gmp::NAME, 10.0), row("tokio", 20.0)];
        let write = |plan: &Plan| write(&directory, &crate::machine::now(), plan, &rows, &[]);
        let there = |name: &str| plots.join(name).exists();
        write(&plan).expect("nothing fails");
        assert!(there("ratios-1p.svg") && there("older-1p.svg"));
        plan.whole = true;
        write(&plan).expect("nothing fails");
        assert!(there("ratios-1p.svg") && there("notes.txt") && !there("older-1p.svg"));
        // Nobody can write a file where a directory is.
        fs::remove_file(plots.join("ratios-1p.svg")).expect("it was drawn");
        fs::create_dir(plots.join("ratios-1p.svg")).expect("it is gone");
        fs::remove_file(directory.join("RESULTS.md")).expect("it was written");
        let told = write(&plan).expect_err("the plot fails").to_string();
        let text = fs::read_to_string(directory.join("RESULTS.md")).expect("it is written all the same");
        fs::remove_dir_all(&directory).expect("it is ours");
        assert!(told.starts_with("the plot ratios-1p: "), "{told}");
        assert!(
            text.contains(&format!("**FAILED: {told}**")) && text.contains("| yield-1 | 1 | tokio | 2.00 "),
            "{text}"
        );
    }

    #[test]
    fn a_target_is_told() {
        let row =
            Row { scenario: YieldOne::INFO, procs: 1, peer: "gmp", ceiling: false, absent: None, rounds: Vec::new() };
        let text = markdown(&crate::machine::now(), &plan(), &[row], &[], &Plots::default());
        let target = YieldOne::INFO.target.expect("it has one");
        assert!(text.contains(&format!("(ns/op, less is better; gmp's target with 1P is {target})")), "{text}");
    }

    #[test]
    fn locked_instructions_and_the_model_are_kept() {
        let (mut made, mut failed) = (String::new(), String::new());
        scaling(&mut made, &Ok("spawn-inside 64".into()));
        scaling(&mut failed, &Err("it hung".into()));
        assert!(made.contains("```text\nspawn-inside 64\n```") && failed.contains("**FAILED: it hung**"));
        let (rustc, locked) = crate::gates::recorded_locked();
        let counted = crate::gates::all().into_iter().filter(|gate| gate.locked).count();
        assert!(made.contains(&rustc) && locked.len() == counted);
        assert!(locked.iter().all(|(name, ..)| made.contains(&format!("| {name} | "))), "{made}");
    }

    #[test]
    fn pinning_is_told_where_there_is_some() {
        let mut plan = plan();
        assert!(!pins(&plan));
        plan.scenarios = peers::scenarios();
        assert_eq!(pins(&plan), pin::first_and_last().is_some());
        plan.procs = vec![2];
        assert!(!pins(&plan));
    }

    #[test]
    fn the_allocator_is_the_one_in_use() {
        let (name, machine) = (alloc::name(), crate::machine::now());
        assert_eq!(name.contains("mimalloc"), cfg!(feature = "mimalloc"));
        assert!(markdown(&machine, &plan(), &[], &[], &Plots::default()).contains(&format!("allocator: {name} (")));
        assert!(report::table(&plan(), &[]).contains(&format!("Allocator: {name} (")));
        assert_eq!(report::json(&machine, &plan(), &[], &[], &[])["allocator"], name);
    }
}
