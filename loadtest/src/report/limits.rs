//! Thresholds: what a run may come to, and whether it did. Pure.

use std::time::Duration;

use super::result::{RunResult, Threshold};
use super::series;

/// The limits given, from the command line or a scenario.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// 95th percentile of the latency from the intended time.
    pub p95: Option<Duration>,
    /// 99th.
    pub p99: Option<Duration>,
    /// Share of the requests that did not end as they should.
    pub error_rate: Option<f64>,
    /// Rejections are left out of the error rate.
    pub rejections_allowed: bool,
    /// Requests per second answered as they should be, at least.
    pub requests_per_second: Option<f64>,
    /// Events per second of the best interval, at least.
    pub peak_events_per_second: Option<f64>,
    /// Time to be well again after the load has fallen.
    pub recovery: Option<Duration>,
    /// The 99th percentile that counts as well.
    pub recovered_p99: Option<Duration>,
    /// How far the goodput of the end may be from that of the beginning.
    pub throughput_drift: Option<f64>,
    /// Growth of the server's memory, MiB per minute. Needs the server's process.
    pub memory_growth_mib_per_minute: Option<f64>,
}

impl Limits {
    /// Those of `other` where it has any, else these.
    #[must_use]
    pub fn overridden_by(self, other: Self) -> Self {
        Self {
            p95: other.p95.or(self.p95),
            p99: other.p99.or(self.p99),
            error_rate: other.error_rate.or(self.error_rate),
            rejections_allowed: other.rejections_allowed || self.rejections_allowed,
            requests_per_second: other.requests_per_second.or(self.requests_per_second),
            peak_events_per_second: other.peak_events_per_second.or(self.peak_events_per_second),
            recovery: other.recovery.or(self.recovery),
            recovered_p99: other.recovered_p99.or(self.recovered_p99),
            throughput_drift: other.throughput_drift.or(self.throughput_drift),
            memory_growth_mib_per_minute: other.memory_growth_mib_per_minute.or(self.memory_growth_mib_per_minute),
        }
    }

    /// Each limit against what was measured. What was not measured is not met.
    #[must_use]
    pub fn judge(&self, result: &RunResult) -> Vec<Threshold> {
        let mut all = Vec::new();
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let latency = &result.latency_us.corrected;
        let mut at_most = |name: &str, limit: Option<f64>, value: Option<f64>| {
            if let Some(limit) = limit {
                let passed = value.is_some_and(|value| value <= limit);
                all.push(Threshold { name: name.into(), limit, value, passed });
            }
        };
        at_most("p95_us", self.p95.map(us), latency.p95);
        at_most("p99_us", self.p99.map(us), latency.p99);
        at_most("error_rate", self.error_rate, (result.requests > 0).then_some(result.error_rate));
        let slowest = result.recovery.iter().map(|recovery| recovery.recovered_after_s).collect::<Option<Vec<f64>>>();
        let slowest = slowest.and_then(|times| times.into_iter().max_by(f64::total_cmp));
        at_most("recovery_s", self.recovery.map(|time| time.as_secs_f64()), slowest);
        at_most("throughput_drift", self.throughput_drift, series::drift(&result.intervals));
        let growth = result.server.map(|memory| memory.rss_growth_bytes_per_minute / f64::from(1 << 20));
        at_most("memory_growth_mib_per_minute", self.memory_growth_mib_per_minute, growth);
        let mut at_least = |name: &str, limit: Option<f64>, value: Option<f64>| {
            if let Some(limit) = limit {
                let passed = value.is_some_and(|value| value >= limit);
                all.push(Threshold { name: name.into(), limit, value, passed });
            }
        };
        at_least("requests_per_second", self.requests_per_second, Some(result.requests_per_second));
        let peak = series::peak_events_per_second(&result.intervals);
        at_least("peak_events_per_second", self.peak_events_per_second, peak);
        all
    }
}
