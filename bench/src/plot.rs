//! The plots of a report: the ratios of all scenarios, and the latency distributions where there are any.
//!
//! 1. A peer has the same colour in all of them.
//! 2. Both kinds have a logarithmic axis: a stall is a thousand times a beat.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::peer::Peer;
use crate::peers::gmp::Gmp;
use crate::report;
use crate::run::{Plan, Row};
use crate::stats;
use crate::verdict::{good, times_worse};

type Drawn = Result<(), Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Pixels on the right for the peers' names.
const LEGEND: u32 = 100;

/// One for each peer.
pub(crate) const COLOURS: [RGBColor; 9] = [
    RGBColor(200, 30, 60),
    RGBColor(40, 90, 190),
    RGBColor(110, 160, 230),
    RGBColor(30, 140, 80),
    RGBColor(0, 160, 180),
    RGBColor(150, 90, 190),
    RGBColor(200, 130, 20),
    RGBColor(120, 80, 40),
    RGBColor(90, 90, 90),
];

fn colour(plan: &Plan, peer: &str) -> RGBColor {
    let place = plan.peers.iter().position(|entry| entry.name == peer).unwrap_or(0);
    COLOURS[place]
}

/// What was drawn.
#[derive(Debug, Default)]
pub struct Plots {
    /// The names of the plots.
    pub names: Vec<String>,
    /// What went wrong with others.
    pub failed: Vec<String>,
}

/// Draws all plots into `directory`; one that fails costs no other.
pub fn all(directory: &Path, plan: &Plan, rows: &[Row]) -> Plots {
    let mut plots = Plots::default();
    let mut draw = |name: String, height: u32, drawing: &dyn Fn(&Area<'_>) -> Drawn| {
        let file = directory.join(&name).with_extension("svg");
        let draw = || -> Drawn {
            let area = SVGBackend::new(&file, (900, height)).into_drawing_area();
            area.fill(&WHITE)?;
            drawing(&area)?;
            Ok(area.present()?)
        };
        match draw() {
            Ok(()) => plots.names.push(name),
            Err(error) => plots.failed.push(format!("the plot {name}: {error}")),
        }
    };
    for &procs in &plan.procs {
        let ratios = ratios(rows, procs);
        if !ratios.is_empty() {
            let height = 90 + 22 * ratios.len() as u32;
            draw(format!("ratios-{procs}p"), height, &|area| draw_ratios(area, plan, procs, &ratios));
        }
    }
    for group in report::groups(rows) {
        if group.iter().any(|row| !distribution(row).is_empty()) {
            let name = format!("{}-{}p", group[0].scenario.name, group[0].procs);
            draw(name, 360, &|area| draw_distribution(area, plan, group));
        }
    }
    plots
}

/// A scenario, and how many times gmp's figure each other peer's is.
type Ratios = (&'static str, Vec<(&'static str, f64)>);

fn ratios(rows: &[Row], procs: usize) -> Vec<Ratios> {
    let mut all = Vec::new();
    for group in report::groups(rows).filter(|group| group[0].procs == procs) {
        let Some(gmp) = group.iter().find(|row| row.peer == Gmp::NAME) else { continue };
        let others = group.iter().filter(|row| row.peer != Gmp::NAME);
        let times: Vec<_> = others
            .filter_map(|row| Some((row.peer, times_worse(row, gmp)?.median)))
            .filter(|(_, times)| times.is_finite() && *times > 0.0)
            .collect();
        if !times.is_empty() {
            all.push((group[0].scenario.name, times));
        }
    }
    all
}

fn draw_ratios(area: &Area<'_>, plan: &Plan, procs: usize, ratios: &[Ratios]) -> Drawn {
    let all = ratios.iter().flat_map(|(_, times)| times.iter().map(|(_, times)| *times));
    let (low, high) = all.fold((0.5_f64, 4.0_f64), |(low, high), times| (low.min(times), high.max(times)));
    let rows = ratios.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{procs}P: each peer's cost in times gmp's; right of 1 gmp is better"), ("sans-serif", 18))
        .margin(10)
        .margin_right(LEGEND)
        .x_label_area_size(30)
        .y_label_area_size(150)
        .build_cartesian_2d((low * 0.8..high * 1.25).log_scale(), 0.0..rows)?;
    // The scenarios' names stand beside their rows, in the order of the tables from above.
    let name = |y: f64| ratios.get((rows - y).floor() as usize).map_or("", |(name, _)| *name);
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .y_labels(0)
        .x_label_formatter(&|x| format!("{x}"))
        .draw()?;
    for row in 0..ratios.len() {
        let y = rows - row as f64 - 0.5;
        let line = [(low * 0.8, y), (high * 1.25, y)];
        chart.draw_series(LineSeries::new(line, RGBColor(225, 225, 225)))?;
        let at = chart.backend_coord(&(low * 0.8, y));
        let style = ("sans-serif", 13).into_font().color(&BLACK).pos(plotters::style::text_anchor::Pos::new(
            plotters::style::text_anchor::HPos::Right,
            plotters::style::text_anchor::VPos::Center,
        ));
        area.draw(&Text::new(name(y).to_owned(), (at.0 - 8, at.1), style))?;
    }
    chart.draw_series(LineSeries::new([(1.0, 0.0), (1.0, rows)], colour(plan, Gmp::NAME).stroke_width(2)))?;
    let mut shown = Vec::new();
    for peer in &plan.peers {
        let colour = colour(plan, peer.name);
        let points = ratios.iter().enumerate().flat_map(|(row, (_, times))| {
            let mine = times.iter().filter(|(name, _)| *name == peer.name);
            mine.map(move |(_, times)| (*times, rows - row as f64 - 0.5))
        });
        let points: Vec<_> = points.collect();
        if !points.is_empty() {
            chart.draw_series(points.into_iter().map(|point| Circle::new(point, 4, colour.filled())))?;
            shown.push(peer.name);
        }
    }
    legend(area, plan, &shown)
}

/// The distribution of a row: the median over its rounds at each share.
fn distribution(row: &Row) -> Vec<(f64, f64)> {
    let rounds = good(row);
    let Some(first) = rounds.first() else { return Vec::new() };
    let at = |i: usize| -> Vec<f64> { rounds.iter().map(|round| round.outcome.distribution[i].1).collect() };
    first.outcome.distribution.iter().enumerate().map(|(i, (share, _))| (*share, stats::median(&at(i)))).collect()
}

fn draw_distribution(area: &Area<'_>, plan: &Plan, group: &[Row]) -> Drawn {
    let info = &group[0].scenario;
    // The unit of the distribution is that of the row.
    let lines: Vec<_> = group.iter().map(|row| (row.peer, distribution(row))).filter(|(_, d)| !d.is_empty()).collect();
    let values = lines.iter().flat_map(|(_, line)| line.iter().map(|(_, value)| value.max(1e-3)));
    let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
    let shares: Vec<f64> = lines[0].1.iter().map(|(share, _)| *share).collect();
    let last = shares.len() as f64 - 1.0;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{}, {}P", info.name, group[0].procs), ("sans-serif", 18))
        .margin(10)
        .margin_right(LEGEND)
        .x_label_area_size(45)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..last, (low * 0.7..high * 1.4).log_scale())?;
    let share = |x: &f64| {
        let whole = (x - x.round()).abs() < 1e-6;
        shares.get(x.round() as usize).filter(|_| whole).map_or(String::new(), |share| match *share {
            1.0 => "worst".into(),
            share => format!("p{}", (share * 1000.0).round() / 10.0),
        })
    };
    chart
        .configure_mesh()
        .x_labels(shares.len())
        .x_label_formatter(&share)
        .y_desc(info.unit)
        .y_label_formatter(&|y| format!("{y}"))
        .draw()?;
    let mut shown = Vec::new();
    for (peer, line) in lines {
        let colour = colour(plan, peer);
        let points: Vec<_> = line.iter().enumerate().map(|(i, (_, value))| (i as f64, value.max(1e-3))).collect();
        chart.draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?;
        chart.draw_series(points.into_iter().map(|point| Circle::new(point, 3, colour.filled())))?;
        shown.push(peer);
    }
    legend(area, plan, &shown)
}

/// Names the peers in the margin that the charts leave on the right, where it hides no point.
fn legend(area: &Area<'_>, plan: &Plan, peers: &[&str]) -> Drawn {
    let left = area.dim_in_pixel().0 as i32 - LEGEND as i32 + 12;
    for (i, peer) in peers.iter().enumerate() {
        let y = 50 + 20 * i as i32;
        area.draw(&Circle::new((left, y), 5, colour(plan, peer).filled()))?;
        area.draw(&Text::new((*peer).to_owned(), (left + 12, y - 6), ("sans-serif", 14)))?;
    }
    Ok(())
}
