//! Tables for people and JSON for programs, from the rows of `run`.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value, json};

use crate::alloc;
use crate::cell::CellReport;
use crate::machine::Machine;
use crate::peer::Peer;
use crate::peers::gmp::Gmp;
use crate::run::{Plan, Row};
use crate::scenarios::{self, Better, Info, Kind};
use crate::stats::{self, Interval};
use crate::verdict::{self, Verdict, best_row, good};

/// A row, summed up over its rounds.
#[derive(Debug, Serialize)]
struct Summary {
    /// Median over the rounds of each round's median batch.
    median: f64,
    /// The best batch of all rounds.
    best: f64,
    /// How many times the best peer's figure, each round's median batch against the same round's.
    times_best: Option<Interval>,
    cpu_ns_per_op: f64,
    voluntary_per_op: f64,
    involuntary_per_op: f64,
    allocs_per_op: Option<f64>,
    rss_peak_kib: f64,
    threads: u64,
    /// Name, unit and median over the rounds.
    extras: Vec<(String, String, f64)>,
}

fn over_rounds(rounds: &[&CellReport], value: impl Fn(&CellReport) -> f64) -> f64 {
    stats::median(&rounds.iter().map(|report| value(report)).collect::<Vec<_>>())
}

fn summary(row: &Row, best: Option<&Row>) -> Option<Summary> {
    let rounds = good(row);
    let first = rounds.first()?;
    let bests: Vec<f64> = rounds.iter().map(|report| report.outcome.best).collect();
    let per_op =
        |value: fn(&CellReport) -> u64| over_rounds(&rounds, |report| value(report) as f64 / report.outcome.ops as f64);
    let extra = |i: usize| {
        let extra = &first.outcome.extras[i];
        (extra.name.clone(), extra.unit.clone(), over_rounds(&rounds, |report| report.outcome.extras[i].value))
    };
    Some(Summary {
        median: over_rounds(&rounds, |report| report.outcome.median),
        best: if row.scenario.better == Better::Less { stats::least(&bests) } else { stats::most(&bests) },
        times_best: best.and_then(|best| verdict::times_worse(row, best)),
        cpu_ns_per_op: per_op(|report| report.outcome.usage.cpu_ns),
        voluntary_per_op: per_op(|report| report.outcome.usage.voluntary),
        involuntary_per_op: per_op(|report| report.outcome.usage.involuntary),
        allocs_per_op: first
            .outcome
            .allocs_per_op
            .map(|_| over_rounds(&rounds, |report| report.outcome.allocs_per_op.unwrap_or(0.0))),
        rss_peak_kib: over_rounds(&rounds, |report| report.rss_peak_kib as f64),
        threads: first.threads,
        extras: (0..first.outcome.extras.len()).map(extra).collect(),
    })
}

/// Rows that are compared with each other.
pub fn groups(rows: &[Row]) -> impl Iterator<Item = &[Row]> {
    rows.chunk_by(|a, b| a.scenario.name == b.scenario.name && a.procs == b.procs)
}

/// Three digits or so, without an exponent.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1e7 => format!("{:.0}M", value / 1e6),
        v if v >= 1e6 => format!("{:.1}M", value / 1e6),
        v if v >= 1e5 => format!("{:.0}k", value / 1e3),
        0.0 => "0".into(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// The unit of a scenario's figure, which values of it are good, and what gmp aims at.
pub fn measured(info: &Info) -> String {
    let better = if info.better == Better::Less { "less" } else { "more" };
    let target = info.target.map(|target| format!("; gmp's target with 1P is {target}")).unwrap_or_default();
    format!("{}, {better} is better{target}", info.unit)
}

/// How gmp stands to its targets with one processor, by the median; its best batch in brackets.
pub fn targets(rows: &[Row]) -> Option<String> {
    let (mut met, mut missed) = (Vec::new(), Vec::new());
    for row in rows.iter().filter(|row| row.procs == 1 && row.peer == Gmp::NAME) {
        let (name, Some(target)) = (row.scenario.name, row.scenario.target) else { continue };
        let Some(s) = summary(row, None) else {
            missed.push(format!("{name} FAILED"));
            continue;
        };
        let is_met = if row.scenario.better == Better::Less { s.median <= target } else { s.median >= target };
        let text = format!("{name} {} ({}) of {target}", short(s.median), short(s.best));
        if is_met { met.push(text) } else { missed.push(text) }
    }
    let list = |texts: Vec<String>| if texts.is_empty() { "none".to_owned() } else { texts.join(", ") };
    let is_any = !(met.is_empty() && missed.is_empty());
    is_any.then(|| format!("gmp's targets with 1P, by the median (best): missed: {}; met: {}", list(missed), list(met)))
}

/// How many rounds there are, in words.
pub fn rounds(plan: &Plan) -> String {
    let more = if plan.settle > plan.rounds {
        format!(", {} of the rows that they leave undecided", plan.settle)
    } else {
        String::new()
    };
    format!("{} rounds{more}", plan.rounds)
}

/// What the intervals are, in words.
pub fn intervals(plan: &Plan) -> String {
    let mut text = stats::interval_over(plan.rounds);
    if plan.settle > plan.rounds {
        text += &format!("; where that is undecided, {}", stats::interval_over(plan.settle));
    }
    text
}

/// The whole report as text.
pub fn table(plan: &Plan, rows: &[Row]) -> String {
    let mut out = String::new();
    if let Some(failed) = failed(rows) {
        let _ = writeln!(out, "{failed}\n");
    }
    for peer in &plan.peers {
        for &procs in &plan.procs {
            if plan.scenarios.iter().any(|scenario| (peer.takes_part)(scenario, procs)) {
                let _ = writeln!(out, "{:<9} {procs}P: {}", peer.name, (peer.settings)(procs));
            }
        }
    }
    let _ = writeln!(
        out,
        "Allocator: {} (Go has its own). {}, peers interleaved, start rotated, a process a cell.\nmedian: of the rounds' \
         median batches; best: of all batches; x best: per-round ratio of median batches, its median and in \
         brackets the interval\n({}); CPU: user + system; ctx: context switches, voluntary + involuntary; > and <: a bound, \
         for requests were left unanswered.",
        alloc::name(),
        rounds(plan),
        intervals(plan)
    );
    let mut last = "";
    for rows in groups(rows) {
        let info = &rows[0].scenario;
        if info.name != last {
            last = info.name;
            let _ = writeln!(out, "\n{}: {} [{}]", info.name, info.about, measured(info));
            if let Some(reference) = scenarios::reference(info) {
                let _ = writeln!(out, "     (for reference, not measured here: {reference})");
            }
            let _ = writeln!(
                out,
                "     {:<9}{:>10}{:>10}  {:<18}{:>11}{:>17}{:>9}{:>9}  further",
                "peer", "median", "best", "x best", "CPU ns/op", "ctx/1k op", "alloc/op", "RSS MiB"
            );
        }
        for line in lines(rows) {
            let [procs, peer, median, best, times, cpu, ctx, allocs, rss, further] = line;
            let _ = writeln!(
                out,
                "  {procs}P {peer:<9}{median:>10}{best:>10}  {times:<18}{cpu:>11}{ctx:>17}{allocs:>9}{rss:>9}  {further}"
            );
        }
    }
    let verdicts = verdict::verdicts(rows);
    if !verdicts.is_empty() {
        let _ = writeln!(out, "\ngmp beside the best of the others: times better, CPU time in times the other's");
    }
    for verdict in &verdicts {
        let (Verdict { scenario, procs, rounds, .. }, [other, times, cpu, word]) = (verdict, verdict.columns());
        let _ =
            writeln!(out, "  {procs}P {scenario:<22} {other:<9} {times:<18} CPU {cpu:<12} {rounds:>2} rounds  {word}");
    }
    for &procs in &plan.procs {
        if let Some(mean) = verdict::mean(&verdicts, procs) {
            let _ = writeln!(out, "  {procs}P {}", mean.text());
        }
    }
    if let Some(targets) = targets(rows) {
        let _ = writeln!(out, "\n{targets}");
    }
    if let Some(failed) = failed(rows) {
        let _ = writeln!(out, "\n{failed}");
    }
    out
}

/// What failed, if anything did.
pub fn failed(rows: &[Row]) -> Option<String> {
    let (cells, lines) = verdict::failures(rows);
    (cells > 0).then(|| format!("{cells} cells FAILED: {}.", lines.join("; ")))
}

/// What stands before a figure that is a bound.
pub fn bound(is_one: bool) -> &'static str {
    if is_one { "> " } else { "" }
}

/// A median with its interval.
pub fn interval(t: &Interval) -> String {
    let digits = if t.median < 10.0 { 2 } else { 0 };
    format!("{:.digits$} [{:.digits$}-{:.digits$}]", t.median, t.low, t.high)
}

/// The columns of each row of a comparison: threads, peer, median, best, times the best, CPU, context switches,
/// allocations, memory, and what is said further.
pub fn lines(rows: &[Row]) -> Vec<[String; 10]> {
    let best = best_row(rows);
    rows.iter()
        .map(|row| {
            let mut line: [String; 10] = Default::default();
            (line[0], line[1]) = (row.procs.to_string(), row.peer.into());
            let mut further = Vec::new();
            if row.absent.is_some() {
                further.push(format!("no {}", row.peer));
            }
            if let Some(s) = summary(row, best) {
                let bound = bound(verdict::is_bound(row));
                line[2] = format!("{bound}{}", short(s.median));
                line[3] = short(s.best);
                line[4] = s.times_best.as_ref().map(|times| format!("{bound}{}", interval(times))).unwrap_or_default();
                line[5] = short(s.cpu_ns_per_op);
                line[6] = format!("{} + {}", short(s.voluntary_per_op * 1e3), short(s.involuntary_per_op * 1e3));
                line[7] = s.allocs_per_op.map_or_else(|| "-".into(), short);
                line[8] = format!("{:.1}", s.rss_peak_kib / 1024.0);
                further.extend(s.extras.iter().map(|(name, unit, value)| {
                    format!("{name} {}{}{unit}", short(*value), if unit.is_empty() { "" } else { " " })
                }));
            }
            if row.scenario.kind == Kind::Blocking {
                let threads = good(row).iter().map(|report| report.threads).max();
                further.extend(threads.map(|threads| format!("threads in the end {threads}")));
            }
            let failed = row.rounds.iter().filter(|round| round.is_err()).count();
            if failed > 0 {
                let why = row.rounds.iter().find_map(|round| round.as_ref().err());
                further.push(format!("{failed} of {} rounds FAILED: {}", row.rounds.len(), why.map_or("", |s| s)));
            }
            line[9] = further.join(", ");
            line
        })
        .collect()
}

/// The whole report as JSON: every round of every row, and the summaries of the table.
pub fn json(machine: &Machine, plan: &Plan, rows: &[Row], skipped: &[&str], notes: &[String]) -> Value {
    let mut list = Vec::new();
    for rows in groups(rows) {
        let best = best_row(rows);
        for row in rows {
            let rounds: Vec<Value> = row
                .rounds
                .iter()
                .map(|round| match round {
                    Ok(report) => json!(report),
                    Err(error) => json!({ "error": error }),
                })
                .collect();
            list.push(json!({
                "scenario": row.scenario.name,
                "about": row.scenario.about,
                "unit": row.scenario.unit,
                "less_is_better": row.scenario.better == Better::Less,
                "target": row.scenario.target,
                "procs": row.procs,
                "peer": row.peer,
                "absent": row.absent,
                "is_best": best.is_some_and(|best| best.peer == row.peer),
                "summary": summary(row, best),
                "rounds": rounds,
            }));
        }
    }
    let settings = |procs: usize| plan.peers.iter().map(move |peer| (peer.name, procs, (peer.settings)(procs)));
    json!({
        "machine": machine,
        "rounds": plan.rounds,
        "settle": plan.settle,
        "quick": plan.quick,
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "allocator": alloc::name(),
        "settings": plan.procs.iter().flat_map(|&procs| settings(procs))
            .map(|(peer, procs, settings)| json!({ "peer": peer, "procs": procs, "settings": settings }))
            .collect::<Vec<_>>(),
        "skipped": skipped,
        "notes": notes,
        "failed": verdict::failures(rows).1,
        "verdicts": verdict::verdicts(rows),
        "rows": list,
    })
}
