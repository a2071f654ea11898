//! Medians, and how far a peer is from the best one. `laps` and `report` call it.

/// Resamples for an interval.
const RESAMPLES: usize = 2_000;

/// The middle value, or the mean of the two in the middle.
///
/// # Panics
///
/// If there is none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

/// The smallest value; infinity if there is none.
pub fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The largest value; minus infinity if there is none.
pub fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// The value below which `share` of the sorted `values` lie.
///
/// # Panics
///
/// If there is none.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() as f64 * share) as usize).min(sorted.len() - 1)]
}

/// The value at `share` in a list of quantiles; not a number if it has none there.
pub fn at(quantiles: &[(f64, f64)], share: f64) -> f64 {
    quantiles.iter().find(|(at, _)| *at == share).map_or(f64::NAN, |(_, value)| *value)
}

/// A median with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Interval {
    /// The median of the ratios.
    pub median: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The median of the per-round ratios, with a percentile bootstrap over the rounds. The same ratios give the same
/// interval. One round gives an interval without width.
///
/// # Panics
///
/// If there is no round.
pub fn ratio(ratios: &[f64]) -> Interval {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| median(&(0..ratios.len()).map(|_| ratios[rng.usize(..ratios.len())]).collect::<Vec<_>>()))
        .collect();
    medians.sort_by(f64::total_cmp);
    Interval { median: median(ratios), low: quantile(&medians, 0.025), high: quantile(&medians, 0.975) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn interval_holds_the_median_and_is_reproducible() {
        let ratios = [1.1, 1.3, 1.2, 1.25, 1.15, 1.9, 1.2];
        let interval = ratio(&ratios);
        assert!(interval.low <= interval.median && interval.median <= interval.high);
        assert!(interval.low >= 1.1 && interval.high <= 1.9);
        assert_eq!(interval, ratio(&ratios));
    }

    #[test]
    fn interval_of_one_round_has_no_width() {
        assert_eq!(ratio(&[1.5]), Interval { median: 1.5, low: 1.5, high: 1.5 });
    }
}
