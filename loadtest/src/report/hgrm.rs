//! Latency distributions in the text format of HdrHistogram's plotters (.hgrm). Pure.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// Steps per halving of the distance to 100 %.
const TICKS_PER_HALF: u32 = 5;
/// Values are written in milliseconds, as the plotters expect.
const NS_PER_MS: f64 = 1e6;

/// The distribution of a histogram of ns as text, in milliseconds.
#[must_use]
pub fn hgrm(histogram: &Histogram<u64>) -> String {
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        let quantile = step.quantile_iterated_to();
        let value = step.value_iterated_to() as f64 / NS_PER_MS;
        let count = histogram.count_between(0, step.value_iterated_to());
        let _ = write!(text, "{value:12.3} {quantile:14.12} {count:10}");
        let _ = if quantile < 1.0 { writeln!(text, " {:14.2}", 1.0 / (1.0 - quantile)) } else { writeln!(text) };
    }
    let (mean, deviation) = (histogram.mean() / NS_PER_MS, histogram.stdev() / NS_PER_MS);
    let _ = writeln!(text, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
    let max = histogram.max() as f64 / NS_PER_MS;
    let _ = writeln!(text, "#[Max     = {max:12.3}, Total count    = {:12}]", histogram.len());
    let (buckets, sub_buckets) = (histogram.distinct_values(), 1 << (u32::from(histogram.sigfig()) * 10 / 3 + 1));
    let _ = writeln!(text, "#[Buckets = {buckets:12}, SubBuckets     = {sub_buckets:12}]");
    text
}

/// Points of the distribution for a chart: nines (−log10 of the distance to 100 %) and value in ns.
#[must_use]
pub(super) fn nines(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    // Beyond one over the count every quantile is the longest value.
    let most = (histogram.len() as f64).log10().clamp(0.5, 6.0);
    let steps = 120;
    (0..=steps)
        .map(|step| {
            let nines = most * f64::from(step) / f64::from(steps);
            (nines, histogram.value_at_quantile(1.0 - 10f64.powf(-nines)) as f64)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::histogram;

    #[test]
    fn the_text_has_ascending_rows_and_ends_at_everything() {
        let mut values = histogram::<u64>();
        for us in 1..=10_000 {
            values.record(us * 1000).unwrap();
        }
        let text = hgrm(&values);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|field| field.parse().unwrap()).collect())
            .collect();
        assert!(rows.len() > 20 && rows.windows(2).all(|pair| pair[0][0] <= pair[1][0] && pair[0][2] <= pair[1][2]));
        let last = rows.last().unwrap();
        assert_eq!((last[1], last[2]), (1.0, 10_000.0));
        let median = rows.iter().find(|row| row[1] >= 0.5).unwrap();
        assert!((median[0] - 5.0).abs() < 0.1, "{median:?} in milliseconds");
    }

    #[test]
    fn nines_go_as_far_as_there_are_values() {
        let mut values = histogram::<u64>();
        (1..=1000).for_each(|us| values.record(us * 1000).unwrap());
        let points = nines(&values);
        assert!((points.last().unwrap().0 - 3.0).abs() < 1e-9);
        assert!(nines(&histogram()).is_empty());
    }
}
