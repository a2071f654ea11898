//! `RESULTS.md` and its plots, written by `--publish`: nobody writes a figure there by hand.

use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

use crate::machine::Machine;
use crate::peer::Peer;
use crate::peers::gmp::Gmp;
use crate::run::{Plan, Row};
use crate::scenarios::{self, Kind};
use crate::verdict::{self, Stand, Verdict};
use crate::{alloc, gates, model, pin, plot, report, stats};

/// What the plan of the suite asks for and is not run, or not so, with the reason: kept by hand, with the scenarios.
const DIFFERS: &str = include_str!("differs.md");

/// Writes `RESULTS.md` and `plots/*.svg` into `directory`.
///
/// # Errors
///
/// Those of the file system, and of the drawing.
pub fn write(directory: &Path, machine: &Machine, plan: &Plan, rows: &[Row], notes: &[String]) -> io::Result<()> {
    let plots = directory.join("plots");
    fs::create_dir_all(&plots)?;
    let drawn = plot::all(&plots, plan, rows).map_err(|error| io::Error::other(error.to_string()))?;
    let mut text = markdown(machine, plan, rows, notes, &drawn);
    if plan.peers.iter().any(|peer| peer.name == Gmp::NAME) {
        scaling(&mut text, &model::of_a_child(plan.quick));
    }
    text.push('\n');
    text.push_str(DIFFERS);
    fs::write(directory.join("RESULTS.md"), text)
}

fn markdown(machine: &Machine, plan: &Plan, rows: &[Row], notes: &[String], drawn: &[String]) -> String {
    let mut out = String::new();
    let Machine { date, command, system, rustc, settings, environment, commit, load } = machine;
    let _ = writeln!(out, "# Results of the bench\n\nWritten by the program; do not edit.\n");
    if let Some(failed) = report::failed(rows) {
        let _ = writeln!(out, "**{failed}**\n");
    }
    let _ = writeln!(
        out,
        "- command: `{command}`\n- date: {date}, commit {commit}\n- machine: {system}\n- built by {rustc}: {settings}\n\
         - load average when it began: {load:.2} (well above zero: something else ran, and the figures say little)\n\
         - {} rounds, peers in turn, the first of them rotated, a process a cell, allocator: {} (Go has its own)",
        plan.rounds,
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
    let _ = writeln!(out, "\n## Peers and their settings\n");
    for peer in &plan.peers {
        for &procs in &plan.procs {
            if plan.scenarios.iter().any(|scenario| (peer.takes_part)(scenario, procs)) {
                let _ = writeln!(out, "- {}, {procs}P: {}", peer.name, (peer.settings)(procs));
            }
        }
    }
    if !drawn.is_empty() {
        let _ = writeln!(out, "\n## Plots\n");
        for name in drawn {
            let _ = writeln!(out, "![{0}](plots/{0}.svg)\n", name);
        }
    }
    let _ = writeln!(
        out,
        "\n## Rows\n\nmedian: of the rounds' median batches; best: of all batches; × best: per-round ratio of the median \
         batches to the best peer's, its median and in brackets the interval ({}); CPU: user and system, of the \
         measured process, with what hogs burn on purpose, and in a cold start since the process began; ctx: context \
         switches, voluntary + involuntary; `>`: a bound, for requests were left unanswered.",
        stats::interval_over(plan.rounds)
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
        "\n## Locked instructions\n\nOf gmp's operations, with one processor, by callgrind; on the local path none is to be on \
         a line that all processors share. Not measured by this run: from `bench/gates.json`, recorded by `--record-gates` \
         with {rustc} and held by `.ci/run`.\n\n| operation | locked instructions | of them on shared lines |\n|---|---:|---:|"
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
    match count(Stand::Open) {
        0 => out.push_str(".\n\n"),
        open => {
            let _ = writeln!(out, "; {open} have too few rounds.\n");
        }
    }
    for &procs in &plan.procs {
        if let Some(mean) = verdict::mean(verdicts, procs) {
            let _ = writeln!(out, "- {procs}P: {}", mean.text());
        }
    }
    let _ = writeln!(out, "\n| scenario | P | best of the others | gmp is … times better | CPU time, times | |");
    let _ = writeln!(out, "|---|---|---|---|---:|---|");
    for verdict in verdicts {
        let (Verdict { scenario, procs, .. }, [other, times, cpu, word]) = (verdict, verdict.columns());
        let _ = writeln!(out, "| {scenario} | {procs} | {other} | {times} | {cpu} | {word} |");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers;
    use crate::scenarios::Batch;
    use crate::scenarios::switch::YieldOne;

    fn plan() -> Plan {
        let (procs, slow_procs) = (vec![1], vec![1]);
        Plan { scenarios: vec![YieldOne::INFO], peers: peers::all(), procs, slow_procs, rounds: 6, quick: false }
    }

    #[test]
    fn what_failed_stands_first() {
        let rounds = vec![Err("it took more than 30 s".to_owned()); 6];
        let row = Row { scenario: YieldOne::INFO, procs: 1, peer: "gmp", ceiling: false, absent: None, rounds };
        let text = markdown(&crate::machine::now(), &plan(), &[row], &[], &[]);
        let first = text.lines().find(|line| line.contains("FAILED")).expect("it is told");
        assert_eq!(first, "**6 cells FAILED: yield-1 1P gmp (6 of 6 rounds: it took more than 30 s).**");
        assert!(text.find(first) < text.find("- command"), "{text}");
        assert!(text.contains("1 FAILED, in a cell of gmp's"), "{text}");
        assert!(text.contains("| yield-1 | 1 | - | - | - | FAILED |"), "{text}");
        let table = report::table(&plan(), &[]);
        assert!(!table.contains("FAILED"), "{table}");
    }

    #[test]
    fn a_target_is_told() {
        let row =
            Row { scenario: YieldOne::INFO, procs: 1, peer: "gmp", ceiling: false, absent: None, rounds: Vec::new() };
        let text = markdown(&crate::machine::now(), &plan(), &[row], &[], &[]);
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
        assert!(made.contains(&rustc) && locked.len() == crate::gates::all().len());
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
        assert!(markdown(&machine, &plan(), &[], &[], &[]).contains(&format!("allocator: {name} (")));
        assert!(report::table(&plan(), &[]).contains(&format!("Allocator: {name} (")));
        assert_eq!(report::json(&machine, &plan(), &[], &[], &[])["allocator"], name);
    }
}
