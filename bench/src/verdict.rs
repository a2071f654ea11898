//! How gmp stands against the best of the others in each row. `report`, `publish` and `plot` print it.
//!
//! 1. The best other peer is the one with the best median of its rounds' medians; the ratio is that of the medians in
//!    each round, with an interval over the rounds (`stats`). Best batches are shown and decide nothing: of many
//!    batches whoever goes well now and then has a good one.
//! 2. gmp is ahead if the whole interval is above 1 and its CPU time is at most 10 % above the other's: a runtime that
//!    wins by spinning has not won. So in every row, also where it is not that of the operation (a cold start's is the
//!    process's, beside tasks that burn CPUs on purpose nearly all of it is theirs).
//! 3. Fewer than six rounds make no verdict: from the least to the greatest of five holds the true median in 93.8 of
//!    100 cases, of six in 96.9; with more the interval leaves out what it can and holds it in 98 or more.
//! 4. Where an answer never came, to one request or more of those that count, the figure is how long it was waited for:
//!    a bound, and printed as one. Who left some unanswered is behind who left none, and never ahead.
//! 5. A row in which a cell of gmp's failed has failed, whatever the others of its rounds gave, and is in no mean. One
//!    in which all of a peer's failed is in none either, and says at best that gmp is behind: the best may be missing.

use serde::Serialize;

use crate::cell::CellReport;
use crate::peer::Peer;
use crate::peers::gmp::Gmp;
use crate::report;
use crate::run::Row;
use crate::scenarios::server::UNANSWERED;
use crate::scenarios::{Better, Kind};
use crate::stats::{self, Interval};

/// gmp may use so many times the CPU time of the other and still be ahead.
const DEARER: f64 = 1.1;

/// Rounds that a verdict needs.
pub const ROUNDS: usize = 6;

/// An interval within so many times of 1 says that both are even; a wider one that holds 1 says nothing.
const EVEN: f64 = 1.1;

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stand {
    /// The interval is above 1.
    Ahead,
    /// It is, but at more CPU time.
    Dearer,
    /// The interval holds 1, and is narrow.
    Even,
    /// The interval holds 1, and much besides.
    Undecided,
    /// The interval is below 1.
    Behind,
    /// There are too few rounds to say.
    Open,
    /// A cell of gmp's failed.
    Failed,
    /// gmp is not behind those that are left, and a peer's cells failed.
    PeerFailed,
}

impl Stand {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Stand::Ahead => "ahead",
            Stand::Dearer => "ahead, dearer",
            Stand::Even => "even",
            Stand::Undecided => "undecided",
            Stand::Behind => "behind",
            Stand::Open => "too few rounds",
            Stand::Failed => "FAILED",
            Stand::PeerFailed => "no verdict",
        }
    }
}

/// gmp against the best of the others, in one scenario with so many threads.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The scenario.
    pub scenario: &'static str,
    /// Threads.
    pub procs: usize,
    /// The rounds that went well for both.
    pub rounds: usize,
    /// The best of the others; none if all of them failed.
    pub other: Option<&'static str>,
    /// How many times better gmp is; none if no round went well for both.
    pub times: Option<Interval>,
    /// Whether that is a bound, as the other left requests unanswered.
    pub at_least: bool,
    /// Whether it is one the other way, as gmp did; with both it says nothing.
    pub at_most: bool,
    /// CPU time an operation, in times the other's; none if no round went well for both.
    pub cpu_times: Option<f64>,
    /// What that means.
    pub stand: Stand,
    /// The peers whose cells failed: all of them, or so many of the best other's that too few rounds are left.
    pub failed: Vec<&'static str>,
    /// Whether the row is one of those the mean is taken of.
    pub in_mean: bool,
}

impl Verdict {
    /// The other, how many times better gmp is, CPU time in times the other's, and what it means.
    pub fn columns(&self) -> [String; 4] {
        let times = self.times.as_ref().map(|times| match (self.at_most, self.at_least) {
            (true, true) => "both are bounds".to_owned(),
            (true, false) => format!("< {}", report::interval(times)),
            (false, at_least) => format!("{}{}", report::bound(at_least), report::interval(times)),
        });
        let cpu = self.cpu_times.map(|times| format!("{times:.2}"));
        let none = || "-".to_owned();
        [
            self.other.map_or_else(none, str::to_owned),
            times.unwrap_or_else(none),
            cpu.unwrap_or_else(none),
            self.words(),
        ]
    }

    fn words(&self) -> String {
        let word = self.stand.word();
        if self.failed.is_empty() { word.into() } else { format!("{word}, {} failed", self.failed.join(", ")) }
    }
}

/// The rounds of a row that went well.
pub fn good(row: &Row) -> Vec<&CellReport> {
    row.rounds.iter().filter_map(|round| round.as_ref().ok()).collect()
}

/// Whether the row's figure is a bound: in the median round not all requests that count were answered.
pub fn is_bound(row: &Row) -> bool {
    let unanswered = |report: &CellReport| {
        report.outcome.extras.iter().find(|extra| extra.name == UNANSWERED).map_or(0.0, |extra| extra.value)
    };
    let left: Vec<f64> = good(row).into_iter().map(unanswered).collect();
    !left.is_empty() && stats::median(&left) > 0.0
}

/// The row with the best median of its rounds' medians; a ceiling is none.
pub fn best_row<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Option<&'a Row> {
    let figure = |row: &Row| {
        let medians: Vec<f64> = good(row).iter().map(|report| report.outcome.median).collect();
        let value = stats::median(&medians);
        if row.scenario.better == Better::Less { value } else { -value }
    };
    rows.into_iter().filter(|row| !row.ceiling && !good(row).is_empty()).min_by(|a, b| figure(a).total_cmp(&figure(b)))
}

/// Per round, how many times worse than `best` the row is; 1 is as good. `None` if they share no round.
pub fn times_worse(row: &Row, best: &Row) -> Option<Interval> {
    let both = row.rounds.iter().zip(&best.rounds);
    let ratios: Vec<f64> = both
        .filter_map(|(row, best)| Some((row.as_ref().ok()?.outcome.median, best.as_ref().ok()?.outcome.median)))
        .map(|(this, best)| if row.scenario.better == Better::Less { this / best } else { best / this })
        .collect();
    if ratios.is_empty() { None } else { Some(stats::ratio(&ratios)) }
}

/// CPU time of an operation: the median over the rounds, in nanoseconds.
fn cpu(row: &Row) -> f64 {
    let per_op: Vec<f64> = good(row).iter().map(|r| r.outcome.usage.cpu_ns as f64 / r.outcome.ops as f64).collect();
    stats::median(&per_op)
}

/// The verdict on one group of rows that are compared; `None` if gmp took no part, or no other did.
pub fn verdict(rows: &[Row]) -> Option<Verdict> {
    let gmp = rows.iter().find(|row| row.peer == Gmp::NAME && !row.rounds.is_empty())?;
    let other = best_row(rows.iter().filter(|row| row.peer != Gmp::NAME));
    let any_failed = |row: &Row| row.rounds.iter().any(Result::is_err);
    let alone = rows.iter().all(|row| row.peer == Gmp::NAME || row.ceiling || row.rounds.is_empty());
    if alone && !any_failed(gmp) {
        return None;
    }
    let times = other.and_then(|other| times_worse(other, gmp));
    let cpu_times = other.filter(|_| times.is_some()).map(|other| cpu(gmp) / cpu(other));
    let well = |other: &Row| gmp.rounds.iter().zip(&other.rounds).filter(|(a, b)| a.is_ok() && b.is_ok()).count();
    let shared = other.map_or(0, well);
    let is_other = |row: &Row| other.is_some_and(|other| other.peer == row.peer);
    let compared = rows.iter().filter(|row| row.peer != Gmp::NAME && !row.ceiling);
    let failed: Vec<_> = compared
        .filter(|row| any_failed(row) && (good(row).is_empty() || is_other(row) && shared < ROUNDS))
        .map(|row| row.peer)
        .collect();
    let dear = cpu_times.is_some_and(|times| times > DEARER);
    let (at_most, at_least) = (is_bound(gmp), other.is_some_and(is_bound));
    let stand = match times.filter(|_| shared >= ROUNDS).map(|times| enough(times, at_most, at_least, dear)) {
        _ if any_failed(gmp) => Stand::Failed,
        Some(Stand::Behind) => Stand::Behind,
        _ if !failed.is_empty() => Stand::PeerFailed,
        stand => stand.unwrap_or(Stand::Open),
    };
    let info = &gmp.scenario;
    Some(Verdict {
        scenario: info.name,
        procs: gmp.procs,
        rounds: shared,
        other: other.map(|other| other.peer),
        times,
        at_least,
        at_most,
        cpu_times,
        stand,
        failed,
        in_mean: info.kind == Kind::Scheduler && info.unit == "ns/op",
    })
}

/// Whether more rounds may say more: the interval says nothing, or there is none, as some of the best other's failed.
pub fn is_undecided(rows: &[Row]) -> bool {
    let says_nothing = |verdict: Verdict| match verdict.stand {
        Stand::Undecided => true,
        Stand::PeerFailed => (1..ROUNDS).contains(&verdict.rounds),
        _ => false,
    };
    verdict(rows).is_some_and(says_nothing)
}

/// What enough rounds say.
fn enough(Interval { low, high, .. }: Interval, at_most: bool, at_least: bool, dear: bool) -> Stand {
    if at_most {
        // Both were waited for until the run ended, and that is all their figures say.
        if at_least { Stand::Undecided } else { Stand::Behind }
    } else if low > 1.0 {
        if dear { Stand::Dearer } else { Stand::Ahead }
    } else if at_least {
        Stand::Undecided
    } else if high < 1.0 {
        Stand::Behind
    } else if low * EVEN >= 1.0 && high <= EVEN {
        Stand::Even
    } else {
        Stand::Undecided
    }
}

/// The verdicts on all rows.
pub fn verdicts(rows: &[Row]) -> Vec<Verdict> {
    report::groups(rows).filter_map(verdict).collect()
}

/// How many cells failed, and for each row with such cells a line that says which and why.
pub fn failures(rows: &[Row]) -> (usize, Vec<String>) {
    let (mut cells, mut lines) = (0, Vec::new());
    for Row { scenario, procs, peer, rounds, .. } in rows {
        let failed = rounds.iter().filter(|round| round.is_err()).count();
        let Some(why) = rounds.iter().find_map(|round| round.as_ref().err()) else { continue };
        cells += failed;
        lines.push(format!("{} {procs}P {peer} ({failed} of {} rounds: {why})", scenario.name, rounds.len()));
    }
    (cells, lines)
}

/// A mean over the scheduler's scenarios.
#[derive(Debug)]
pub struct Mean {
    /// The geometric mean of gmp's ratios; none if no row is left.
    pub times: Option<f64>,
    /// Of how many rows.
    pub rows: usize,
    /// Those that are not in it, for gmp or a peer failed there.
    pub left_out: Vec<&'static str>,
}

impl Mean {
    /// In words.
    pub fn text(&self) -> String {
        let Mean { times, rows, left_out } = self;
        let mut text = match times {
            Some(times) => format!("geometric mean over the scheduler's {rows} scenarios in ns/op: {times:.2} times"),
            None => "no geometric mean over the scheduler's scenarios in ns/op".to_owned(),
        };
        if !left_out.is_empty() {
            text += &format!("; LEFT OUT, as cells failed: {}", left_out.join(", "));
        }
        text
    }
}

/// The mean of gmp's ratios in the scheduler's scenarios with so many threads, if there are any.
pub fn mean(verdicts: &[Verdict], procs: usize) -> Option<Mean> {
    let (mut logs, mut left_out) = (Vec::new(), Vec::new());
    for verdict in verdicts.iter().filter(|verdict| verdict.in_mean && verdict.procs == procs) {
        match verdict.times {
            Some(times) if verdict.stand != Stand::Failed && verdict.failed.is_empty() => logs.push(times.median.ln()),
            _ => left_out.push(verdict.scenario),
        }
    }
    let rows = logs.len();
    let times = (rows > 0).then(|| (logs.iter().sum::<f64>() / rows as f64).exp());
    (rows > 0 || !left_out.is_empty()).then_some(Mean { times, rows, left_out })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::laps::{Extra, Outcome};
    use crate::peers::tokio::MultiThread;
    use crate::scenarios::{Batch, Info, switch::YieldOne};
    use crate::usage::Usage;

    fn row(peer: &'static str, better: Better, figures: &[f64], cpu_ns: u64) -> Row {
        let report = |&figure: &f64| {
            let usage = Usage { cpu_ns, ..Usage::default() };
            let outcome = Outcome::single(figure, 1, usage, Vec::new());
            Ok(CellReport { outcome, rss_peak_kib: 1, threads: 1, ran_on: 1 })
        };
        let scenario = Info { better, ..YieldOne::INFO };
        Row { scenario, procs: 1, peer, ceiling: false, absent: None, rounds: figures.iter().map(report).collect() }
    }

    fn stand(better: Better, gmp: &[f64], gmp_cpu: u64, other: &[f64]) -> Stand {
        verdict(&[row(Gmp::NAME, better, gmp, gmp_cpu), row(MultiThread::NAME, better, other, 100)]).unwrap().stand
    }

    #[test]
    fn ahead_needs_the_whole_interval_and_no_more_cpu_time() {
        let (less, more) = (Better::Less, Better::More);
        let (ten, twenty, thirty) = ([10.0; ROUNDS], [20.0; ROUNDS], [30.0; ROUNDS]);
        assert_eq!(stand(less, &ten, 100, &twenty), Stand::Ahead);
        assert_eq!(stand(less, &ten, 120, &twenty), Stand::Dearer);
        assert_eq!(stand(less, &[19.0, 21.0, 19.5, 20.5, 20.0, 20.0], 100, &twenty), Stand::Even);
        assert_eq!(stand(less, &[10.0, 30.0, 20.0, 10.0, 30.0, 20.0], 100, &twenty), Stand::Undecided);
        assert_eq!(stand(less, &thirty, 100, &twenty), Stand::Behind);
        assert_eq!(stand(more, &thirty, 100, &twenty), Stand::Ahead);
        assert_eq!(stand(more, &ten, 100, &twenty), Stand::Behind);
        assert_eq!(stand(less, &ten[1..], 100, &twenty[1..]), Stand::Open);
    }

    #[test]
    fn cpu_time_is_compared_in_every_row() {
        for info in crate::peers::scenarios() {
            let (gmp, other) = if info.better == Better::Less { (10.0, 20.0) } else { (20.0, 10.0) };
            let mut rows =
                [row(Gmp::NAME, info.better, &[gmp; ROUNDS], 111), row("other", info.better, &[other; ROUNDS], 100)];
            rows.iter_mut().for_each(|row| row.scenario = info);
            let verdict = verdict(&rows).unwrap();
            assert_eq!((verdict.stand, verdict.cpu_times), (Stand::Dearer, Some(1.11)), "{}", info.name);
        }
    }

    #[test]
    fn the_best_of_the_others_is_the_measure() {
        let less = Better::Less;
        let rows = [row("slow", less, &[40.0], 1), row(Gmp::NAME, less, &[10.0], 1), row("quick", less, &[20.0], 1)];
        let verdict = verdict(&rows).unwrap();
        assert_eq!((verdict.other, verdict.times.unwrap().median), (Some("quick"), 2.0));
    }

    #[test]
    fn what_was_never_answered_is_a_bound() {
        // However many were answered, also of those that do not count.
        let of = |peer, figure, left| {
            let mut row = row(peer, Better::Less, &[figure; ROUNDS], 1);
            for report in row.rounds.iter_mut().flatten() {
                (report.outcome.ops, report.outcome.extras) = (10_000, vec![Extra::new(UNANSWERED, left, "")]);
            }
            row
        };
        let said = |gmp_left, other, other_left| {
            let verdict = verdict(&[of(Gmp::NAME, 10.0, gmp_left), of("other", other, other_left)]).unwrap();
            verdict.columns()[1..].join(" ")
        };
        assert_eq!(said(0.0, 20.0, 0.0), "2.00 [2.00-2.00] 1.00 ahead");
        assert_eq!(said(0.0, 20.0, 1.0), "> 2.00 [2.00-2.00] 1.00 ahead");
        assert_eq!(said(1.0, 20.0, 0.0), "< 2.00 [2.00-2.00] 1.00 behind");
        assert_eq!(said(1.0, 20.0, 1.0), "both are bounds 1.00 undecided");
        assert_eq!(said(0.0, 10.0, 0.0), "1.00 [1.00-1.00] 1.00 even");
        // At least as good, or better.
        assert_eq!(said(0.0, 10.0, 1.0), "> 1.00 [1.00-1.00] 1.00 undecided");
        assert_eq!(said(0.0, 5.0, 1.0), "> 0.50 [0.50-0.50] 1.00 undecided");
        // One round of many is no bound yet.
        let mut rare = of(Gmp::NAME, 10.0, 0.0);
        rare.rounds[0].as_mut().unwrap().outcome.extras[0].value = 1.0;
        assert!(!is_bound(&rare));
    }

    #[test]
    fn a_ceiling_is_no_peer() {
        let mut ceiling = row("ceiling", Better::Less, &[1.0], 1);
        ceiling.ceiling = true;
        let rows = [row(Gmp::NAME, Better::Less, &[10.0], 1), ceiling, row("other", Better::Less, &[20.0], 1)];
        assert_eq!(verdict(&rows).unwrap().other, Some("other"));
    }

    #[test]
    fn the_mean_is_geometric() {
        let of = |peer, figure| row(peer, Better::Less, &[figure], 1);
        let twice = verdict(&[of(Gmp::NAME, 10.0), of("other", 20.0)]).unwrap();
        let half = verdict(&[of(Gmp::NAME, 20.0), of("other", 10.0)]).unwrap();
        let mean = mean(&[twice, half], 1).unwrap();
        assert!((mean.times.unwrap() - 1.0).abs() < 1e-9 && mean.rows == 2 && mean.left_out.is_empty());
    }

    #[test]
    fn a_cell_of_gmps_that_failed_is_seen() {
        let of = |peer, figure| row(peer, Better::Less, &[figure; ROUNDS], 1);
        let well = verdict(&[of(Gmp::NAME, 10.0), of("other", 20.0)]).unwrap();
        // One round of many, all of them, and all with nobody to compare with.
        let mut once = [of(Gmp::NAME, 10.0), of("other", 20.0)];
        once[0].rounds[3] = Err("it hung".into());
        let mut all = [of(Gmp::NAME, 10.0), of("other", 20.0)];
        all[0].rounds.fill_with(|| Err("it hung".into()));
        for rows in [&once[..], &all[..], &all[..1]] {
            let failed = verdict(rows).unwrap();
            assert_eq!(failed.stand, Stand::Failed);
            assert_eq!(failed.columns()[3], "FAILED");
            let left_out = format!("; LEFT OUT, as cells failed: {}", YieldOne::INFO.name);
            let alone = mean(std::slice::from_ref(&failed), 1).unwrap();
            let mean = mean(&[well.clone(), failed], 1).unwrap();
            assert!((mean.times.unwrap() - 2.0).abs() < 1e-9 && mean.rows == 1);
            assert!(mean.text().ends_with(&left_out), "{}", mean.text());
            // It is said also where no row is left.
            assert_eq!(alone.text(), format!("no geometric mean over the scheduler's scenarios in ns/op{left_out}"));
        }
        assert_eq!(failures(&once), (1, vec![format!("{} 1P gmp (1 of 6 rounds: it hung)", YieldOne::INFO.name)]));
        assert_eq!(failures(&all).0, ROUNDS);
        all[1].rounds.fill_with(|| Err("it hung".into()));
        assert_eq!(failures(&all).0, 2 * ROUNDS);
        // Nobody is left to compare with: no failure of gmp's, but the row is missing in the mean.
        all[0] = of(Gmp::NAME, 10.0);
        let alone = verdict(&all).unwrap();
        assert_eq!((alone.stand, alone.other), (Stand::PeerFailed, None));
        assert_eq!(mean(&[well, alone], 1).unwrap().left_out, [YieldOne::INFO.name]);
        assert!(verdict(&all[..1]).is_none());
        assert_eq!(failures(&[of("other", 20.0)]), (0, Vec::new()));
    }

    #[test]
    fn a_peer_that_failed_is_named_and_the_row_is_in_no_mean() {
        let of = |peer, figure| row(peer, Better::Less, &[figure; ROUNDS + 1], 1);
        let fail = |row: &mut Row, rounds: usize| row.rounds[..rounds].fill_with(|| Err("it hung".into()));
        let mut rows = [of(Gmp::NAME, 20.0), of("best", 30.0), of("other", 60.0), of("ceiling", 1.0)];
        rows[3].ceiling = true;
        fail(&mut rows[3], ROUNDS + 1);
        let well = verdict(&rows).unwrap();
        assert_eq!((well.stand, well.columns()[3].as_str()), (Stand::Ahead, "ahead"));
        // One of seven leaves six to compare with; of the best other two are too many, of another not.
        fail(&mut rows[1], 1);
        assert_eq!(verdict(&rows).unwrap().columns()[3], "ahead");
        assert!(!is_undecided(&rows));
        fail(&mut rows[2], 2);
        assert_eq!(verdict(&rows).unwrap().columns()[3], "ahead");
        rows[2] = of("other", 60.0);
        for failed in [2, ROUNDS + 1] {
            fail(&mut rows[1], failed);
            let verdict = verdict(&rows).unwrap();
            assert_eq!((verdict.stand, verdict.columns()[3].as_str()), (Stand::PeerFailed, "no verdict, best failed"));
            assert_eq!(is_undecided(&rows), failed == 2, "{failed}");
            let mean = mean(&[well.clone(), verdict], 1).unwrap();
            assert!((mean.times.unwrap() - 1.5).abs() < 1e-9 && mean.left_out == [YieldOne::INFO.name]);
        }
        // Who is behind those that are left is behind.
        rows[0] = of(Gmp::NAME, 70.0);
        assert_eq!(verdict(&rows).unwrap().columns()[3], "behind, best failed");
    }
}
