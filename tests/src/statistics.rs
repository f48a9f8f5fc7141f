//! What do measured times say?
//!
//! Medians, and how sure they are. No wall clock here: what goes in are numbers.

use crate::random::Random;

/// The value in the middle.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// The median with the ends of its 95 % interval, by the percentiles of 4,000 resamples (Efron's bootstrap).
#[must_use]
pub fn interval(values: &[f64]) -> [f64; 3] {
    const RESAMPLES: usize = 4_000;
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    let mut resample = || values.iter().map(|_| values[random.below(values.len())]).collect::<Vec<_>>();
    let mut medians: Vec<f64> = (0..RESAMPLES).map(|_| median(&resample())).collect();
    medians.sort_by(f64::total_cmp);
    let at = |share: f64| medians[(share * (RESAMPLES - 1) as f64).round() as usize];
    [median(values), at(0.025), at(0.975)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stands_in_the_middle_and_its_interval_around_it() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(interval(&[5.0; 8]), [5.0; 3]);
        let [middle, low, high] = interval(&[1.0, 2.0, 3.0, 4.0, 100.0]);
        assert!(low < middle && middle < high, "{low} {middle} {high}");
    }
}
