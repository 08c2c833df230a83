//! What the time series tells beside its sums: recovery after a fall, the knee, steadiness, memory. Pure.

use serde::{Deserialize, Serialize};

use super::result::Point;

/// Share of the offered rate at which a server still keeps up.
const KEEPS_UP: f64 = 0.95;
/// Points on each side of a comparison of beginning and end: a quarter of the series.
const QUARTERS: usize = 4;

/// How long after a fall of the load the server was itself again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// When the load fell, seconds from the start.
    pub at_s: f64,
    /// The 99th percentile that counts as recovered; `None` if no limit was given, and nothing can be said.
    #[serde(default)]
    pub p99_limit_us: Option<f64>,
    /// Seconds until the first interval without an error in which the 99th percentile was within its limit again; `None`
    /// if there was none before the next fall or the end, or no limit.
    pub recovered_after_s: Option<f64>,
}

/// The server's memory over the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerMemory {
    /// Resident at the first measured interval.
    pub rss_first_bytes: u64,
    /// At the last.
    pub rss_last_bytes: u64,
    /// Its slope over the measured time, by least squares.
    pub rss_growth_bytes_per_minute: f64,
}

/// Recoveries after each of `falls` (ns from the start) behind which an interval was measured: not after one with which
/// the load ends.
#[must_use]
pub fn recoveries(points: &[Point], falls: &[u64], p99_limit_us: Option<f64>) -> Vec<Recovery> {
    let recovery = |at: usize| {
        let at_s = falls[at] as f64 / 1e9;
        let until_s = falls.get(at + 1).map_or(f64::INFINITY, |next| *next as f64 / 1e9);
        let mut behind = points.iter().filter(|point| point.is_measured() && point.from_s >= at_s - 1e-6).peekable();
        behind.peek()?;
        let is_well = |point: &&Point| {
            let is_within = point.p99_us.zip(p99_limit_us).is_some_and(|(p99, limit)| p99 <= limit);
            point.errors == 0 && point.requests > 0 && is_within
        };
        let first = behind.take_while(|point| point.from_s < until_s).find(is_well);
        let recovered_after_s = first.map(|point| (point.from_s - at_s).max(0.0));
        Some(Recovery { at_s, p99_limit_us, recovered_after_s })
    };
    (0..falls.len()).filter_map(recovery).collect()
}

/// The highest offered rate at which goodput kept up, if more was offered than was kept up with.
#[must_use]
pub fn knee(points: &[Point]) -> Option<f64> {
    let measured = || points.iter().filter(|point| point.is_measured() && point.offered > 0.0);
    let rate = |point: &Point| point.offered / point.seconds();
    let keeps_up = |point: &&Point| point.requests as f64 >= point.offered * KEEPS_UP;
    let beyond = measured().filter(|point| !keeps_up(point)).map(rate).fold(0.0, f64::max);
    let knee = measured().filter(keeps_up).map(rate).fold(0.0, f64::max);
    // A stall at one and the same rate is no knee.
    (knee > 0.0 && knee < beyond * KEEPS_UP).then_some(knee)
}

/// How far the goodput of the last quarter of the series is from that of the first, as a share of the latter.
#[must_use]
pub fn drift(points: &[Point]) -> Option<f64> {
    let measured: Vec<&Point> = points.iter().filter(|point| point.is_measured()).collect();
    let quarter = measured.len() / QUARTERS;
    if quarter == 0 {
        return None;
    }
    let rate = |points: &[&Point]| {
        let requests: u64 = points.iter().map(|point| point.requests).sum();
        requests as f64 / points.iter().map(|point| point.seconds()).sum::<f64>()
    };
    let (first, last) = (rate(&measured[..quarter]), rate(&measured[measured.len() - quarter..]));
    (first > 0.0).then(|| (last / first - 1.0).abs())
}

/// The most events per second of any measured interval.
#[must_use]
pub fn peak_events_per_second(points: &[Point]) -> Option<f64> {
    let rates = points.iter().filter(|point| point.is_measured()).map(|point| point.events as f64 / point.seconds());
    rates.max_by(f64::total_cmp)
}

/// The server's memory, where it was looked at.
#[must_use]
pub fn memory(points: &[Point]) -> Option<ServerMemory> {
    let seen: Vec<(f64, u64)> = points
        .iter()
        .filter(|point| point.is_measured())
        .filter_map(|point| Some((point.to_s / 60.0, point.server_rss_bytes?)))
        .collect();
    let (first, last) = (seen.first()?.1, seen.last()?.1);
    let count = seen.len() as f64;
    let mean_minutes = seen.iter().map(|(minutes, _)| minutes).sum::<f64>() / count;
    let mean_bytes = seen.iter().map(|(_, bytes)| *bytes as f64).sum::<f64>() / count;
    let covariance: f64 = seen.iter().map(|(m, bytes)| (m - mean_minutes) * (*bytes as f64 - mean_bytes)).sum();
    let variance: f64 = seen.iter().map(|(minutes, _)| (minutes - mean_minutes).powi(2)).sum();
    Some(ServerMemory {
        rss_first_bytes: first,
        rss_last_bytes: last,
        rss_growth_bytes_per_minute: if variance > 0.0 { covariance / variance } else { 0.0 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(from_s: f64, offered: f64, requests: u64, p99_us: f64) -> Point {
        Point { from_s, to_s: from_s + 1.0, offered, requests, p99_us: Some(p99_us), ..Point::default() }
    }

    #[test]
    fn recovery_counts_from_the_fall_to_the_first_good_interval() {
        let mut points: Vec<Point> = (0..20).map(|at| point(f64::from(at), 10.0, 10, 50.0)).collect();
        points[10].p99_us = Some(900.0);
        points[11].errors = 1;
        let falls = [10_000_000_000, 15_000_000_000];
        let (limit, p99_limit_us) = (Some(100.0), Some(100.0));
        let found = recoveries(&points, &falls, limit);
        assert_eq!(found[0], Recovery { at_s: 10.0, p99_limit_us, recovered_after_s: Some(2.0) });
        assert_eq!(found[1], Recovery { at_s: 15.0, p99_limit_us, recovered_after_s: Some(0.0) });
        for point in &mut points[10..15] {
            point.errors = 1;
        }
        assert_eq!(recoveries(&points, &falls, limit)[0].recovered_after_s, None, "the next fall is another one");
    }

    #[test]
    fn without_a_limit_or_anything_behind_a_fall_no_recovery_is_told() {
        let points: Vec<Point> = (0..20).map(|at| point(f64::from(at), 10.0, 10, 50.0)).collect();
        let found = recoveries(&points, &[10_000_000_000, 20_000_000_000], None);
        assert_eq!(found, [Recovery { at_s: 10.0, p99_limit_us: None, recovered_after_s: None }]);
        // The end of the load, and what is less than an interval before it.
        for at in [20_000_000_000, 19_500_000_000] {
            assert_eq!(recoveries(&points, &[at], Some(100.0)), [], "{at}");
        }
    }

    #[test]
    fn the_knee_is_the_last_rate_that_was_kept_up_with() {
        let points = [
            point(0.0, 100.0, 100, 1.0),
            point(1.0, 200.0, 198, 1.0),
            point(2.0, 300.0, 210, 1.0),
            point(3.0, 400.0, 205, 1.0),
        ];
        assert_eq!(knee(&points), Some(200.0));
        assert_eq!(knee(&points[..2]), None, "nothing was offered beyond it");
    }

    #[test]
    fn drift_and_memory_are_seen_and_steadiness_is_none() {
        let mut points: Vec<Point> = (0..60).map(|at| point(f64::from(at), 10.0, 1000, 1.0)).collect();
        assert_eq!(drift(&points), Some(0.0));
        for (at, point) in points.iter_mut().enumerate() {
            point.server_rss_bytes = Some(1_000_000 + at as u64 * 1000);
            point.requests = 1000 - at as u64;
        }
        assert!(drift(&points).unwrap() > 0.04);
        let memory = memory(&points).unwrap();
        assert!((memory.rss_growth_bytes_per_minute - 60_000.0).abs() < 1.0, "{memory:?}");
    }
}
