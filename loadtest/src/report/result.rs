//! The result of a run as `loadtest/docs/result.md` describes it: made from what was counted, written as JSON, read by
//! `compare`. Main thread.

use std::collections::BTreeMap;

use hdrhistogram::{Counter, Histogram};
use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::manifest::Manifest;
use super::series::{self, Recovery, ServerMemory};
use crate::interrupt::Signal;
use crate::plan::{Mode, Plan};
use crate::request::Outcome;
use crate::run::Run;

/// Version of the schema.
const SCHEMA: u32 = 1;
/// A generator thread without at least this share of its time to spare may have limited the run.
const IDLE_FRACTION_MIN: f64 = 0.05;
/// One that waited for its core for more than this share of the time read answers late all along.
const STARVED_FRACTION_MAX: f64 = 0.5;
/// A thread that did nothing for so long was stopped: the server's answers waited for it.
const PAUSE_US_MAX: f64 = 250_000.0;
/// A 99th percentile of slip above this, and above this share of the latency's own, is not what was asked for.
const SLIP_P99_US_MAX: f64 = 1000.0;
const SLIP_SHARE_MAX: f64 = 0.1;

/// Percentiles of a latency, microseconds; `None` where nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// Median.
    pub p50: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 95th.
    pub p95: Option<f64>,
    /// 99th.
    pub p99: Option<f64>,
    /// 99.9th.
    pub p999: Option<f64>,
    /// Longest.
    pub max: Option<f64>,
    /// Mean.
    pub mean: Option<f64>,
}

impl Latencies {
    /// Of a histogram of ns.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| quantile_us(histogram, quantile);
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
            mean: (!histogram.is_empty()).then(|| histogram.mean() / 1e3),
        }
    }
}

/// A quantile of a histogram of ns in microseconds; `None` if it holds nothing, of which the histogram itself says 0.
#[must_use]
pub fn quantile_us<C: Counter>(histogram: &Histogram<C>, quantile: f64) -> Option<f64> {
    (!histogram.is_empty()).then(|| histogram.value_at_quantile(quantile).min(histogram.max()) as f64 / 1e3)
}

/// Latency from both beginnings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyPair {
    /// From the intended send time.
    pub corrected: Latencies,
    /// From the actual send.
    pub uncorrected: Latencies,
    /// From the intended send time, of the requests that ended as they should not.
    #[serde(default)]
    pub failed: Latencies,
}

/// One interval of the time series; see the schema for the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the schema describes them")]
pub struct Point {
    pub from_s: f64,
    pub to_s: f64,
    pub warmup: bool,
    pub drain: bool,
    pub clients: u32,
    pub offered: f64,
    pub sent: u64,
    pub requests: u64,
    pub events: u64,
    pub bytes: u64,
    pub errors: u64,
    pub rejected: u64,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub max_us: Option<f64>,
    pub uncorrected_p99_us: Option<f64>,
    pub server_rss_bytes: Option<u64>,
}

impl Point {
    /// Whether it is part of the measured time and long enough for a rate.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        !self.warmup && !self.drain && self.seconds() > 1e-3
    }

    /// Its length.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.to_s - self.from_s
    }
}

/// How the generator fared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the schema describes them")]
pub struct GeneratorReport {
    pub busy_fraction: f64,
    pub starved_fraction: f64,
    pub slip_p50_us: Option<f64>,
    pub slip_p99_us: Option<f64>,
    pub slip_max_us: Option<f64>,
    #[serde(default)]
    pub pause_max_us: f64,
    #[serde(default)]
    pub cores: Vec<GeneratorReport>,
}

/// One kind of request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the schema describes them")]
pub struct KindResult {
    pub requests: u64,
    pub errors: u64,
    pub latency_us: Latencies,
}

/// What slow readers met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the schema describes them")]
pub struct SlowReaders {
    pub connections: usize,
    pub bytes_read: u64,
    pub closed_by_server: u64,
}

/// A limit and what was measured against it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the schema describes them")]
pub struct Threshold {
    pub name: String,
    pub limit: f64,
    pub value: Option<f64>,
    pub passed: bool,
}

/// What the oracle found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the schema describes them")]
pub struct Verdict {
    pub sound: bool,
    pub sent: u64,
    pub acked: u64,
    pub stored: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub corrupted: u64,
    pub unknown: u64,
    pub stored_not_acked: u64,
    pub other_runs: u64,
    pub examples: Vec<String>,
}

/// See the module text; the schema describes the fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the schema describes them")]
pub struct RunResult {
    pub schema: u32,
    #[serde(default)]
    pub measured_s: f64,
    pub requests_per_second: f64,
    pub events_per_second: f64,
    pub bytes_per_second: f64,
    pub offered_requests_per_second: f64,
    pub requests: u64,
    pub events: u64,
    pub errors: u64,
    pub rejected: u64,
    pub error_rate: f64,
    pub latency_us: LatencyPair,
    pub valid: bool,
    #[serde(default)]
    pub interrupted: Option<String>,
    pub invalid_because: Vec<String>,
    pub generator: GeneratorReport,
    pub outcomes: BTreeMap<String, u64>,
    pub statuses: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slow_readers: Option<SlowReaders>,
    pub kinds: BTreeMap<String, KindResult>,
    #[serde(default)]
    pub recovery: Vec<Recovery>,
    #[serde(default)]
    pub knee: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server: Option<ServerMemory>,
    pub thresholds: Vec<Threshold>,
    pub verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verdict_failed: Option<String>,
    pub manifest: Manifest,
    pub intervals: Vec<Point>,
}

impl RunResult {
    /// Measured requests that ended with an outcome for which `holds`.
    #[must_use]
    pub fn outcomes_that(&self, holds: fn(Outcome) -> bool) -> u64 {
        let counted = Outcome::ALL.into_iter().filter(|outcome| holds(*outcome));
        counted.filter_map(|outcome| self.outcomes.get(outcome.name())).sum()
    }

    /// Whether the generator was the bottleneck and nothing else makes the run invalid.
    #[must_use]
    pub fn is_only_generator_bound(&self) -> bool {
        !self.valid && self.interrupted.is_none() && self.outcomes_that(|outcome| outcome == Outcome::Unsolicited) == 0
    }
}

/// The result of a run of `plan`, judged by `limits`. `signal` is the one that came while it went on.
#[must_use]
pub fn make(plan: &Plan, run: &Run, manifest: Manifest, limits: &Limits, signal: Option<Signal>) -> RunResult {
    let totals = &run.totals;
    let count = |holds: &dyn Fn(Outcome) -> bool| {
        let counted = Outcome::ALL.iter().filter(|outcome| holds(**outcome));
        counted.map(|outcome| totals.outcomes[*outcome as usize]).sum::<u64>()
    };
    let requests = count(&|_| true);
    let errors = count(&|outcome| outcome.is_error());
    let rejected = count(&|outcome| outcome == Outcome::Rejected);
    let failed = if limits.rejections_allowed { errors } else { errors + rejected };
    let measured: Vec<&Point> = run.points.iter().filter(|point| point.is_measured()).collect();
    let seconds = run.measured_s.max(1e-9);
    // Folded from 0: the sum of no floats is -0.
    let sum = |of: &dyn Fn(&Point) -> f64| measured.iter().map(|point| of(point)).fold(0.0, |sum, value| sum + value);
    let generator = generator_report(run);
    let corrected = Latencies::of(&totals.corrected);
    let interrupted = signal.filter(|_| run.ended_early).map(Signal::name);
    let mut invalid_because: Vec<String> =
        interrupted.map(|name| tell_interruption(plan, run, name)).into_iter().collect();
    let unsolicited = count(&|outcome| outcome == Outcome::Unsolicited);
    if unsolicited > 0 {
        invalid_because.push(format!(
            "{unsolicited} answers came that no request was waiting for: others may have been taken for those of other \
             requests, and neither latencies nor acknowledgements can be trusted"
        ));
    }
    invalid_because.extend(judge_generator(plan, &generator, corrected.p99));
    let kinds = plan.shares.iter().zip(&totals.kinds).map(|(share, kind)| {
        let result =
            KindResult { requests: kind.requests, errors: kind.errors, latency_us: Latencies::of(&kind.corrected) };
        (kind_name(share), result)
    });
    let falls = falls(plan);
    let recovered_p99 = limits.recovered_p99.or(limits.p99).map(|time| time.as_secs_f64() * 1e6);
    let mut result = RunResult {
        schema: SCHEMA,
        measured_s: run.measured_s,
        requests_per_second: sum(&|point| point.requests as f64) / seconds,
        events_per_second: sum(&|point| point.events as f64) / seconds,
        bytes_per_second: sum(&|point| point.bytes as f64) / seconds,
        offered_requests_per_second: sum(&|point| point.offered) / seconds,
        requests,
        events: sum(&|point| point.events as f64) as u64,
        errors,
        rejected,
        error_rate: if requests == 0 { 0.0 } else { failed as f64 / requests as f64 },
        latency_us: LatencyPair {
            corrected,
            uncorrected: Latencies::of(&totals.uncorrected),
            failed: Latencies::of(&totals.failed),
        },
        valid: invalid_because.is_empty(),
        interrupted: interrupted.map(str::to_owned),
        invalid_because,
        generator,
        outcomes: Outcome::ALL.iter().map(|o| (o.name().to_owned(), totals.outcomes[*o as usize])).collect(),
        statuses: totals
            .statuses
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(status, count)| (status.to_string(), *count))
            .collect(),
        slow_readers: (plan.slow_readers > 0).then_some(SlowReaders {
            connections: plan.slow_readers,
            bytes_read: run.slow_bytes,
            closed_by_server: run.slow_closed,
        }),
        kinds: kinds.collect(),
        recovery: series::recoveries(&run.points, &falls, recovered_p99),
        knee: series::knee(&run.points),
        server: series::memory(&run.points),
        thresholds: Vec::new(),
        verdict: None,
        verdict_failed: None,
        manifest,
        intervals: run.points.clone(),
    };
    result.thresholds = limits.judge(&result);
    result
}

/// What an interrupted run has to say of itself.
fn tell_interruption(plan: &Plan, run: &Run, signal: &str) -> String {
    let whole_s = plan.duration.as_secs_f64();
    if run.measured_s > 0.0 {
        format!(
            "{signal} ended it after {:.1} of {whole_s:.1} s: its figures are those of a part of the load",
            run.measured_s
        )
    } else {
        format!("{signal} ended it in the warm-up: nothing was measured of {whole_s:.1} s")
    }
}

/// Where the load falls, ns from the start: of clients where there are any, else of the rate.
fn falls(plan: &Plan) -> Vec<u64> {
    let mut falls = match (&plan.clients, &plan.mode) {
        (Some(clients), _) => clients.falls(),
        (None, Mode::Open { curve, .. }) => curve.falls(),
        (None, Mode::Closed) => Vec::new(),
    };
    // From the warm-up to the first stage is none.
    falls.retain(|at| *at > plan.warmup_ns());
    falls
}

/// Name of a kind in results; two batch sizes of one mix are told apart by it.
pub(super) fn kind_name(share: &crate::plan::Share) -> String {
    let options = &share.options;
    if options.has_events() { format!("{}_{}", options.kind.name(), options.batch) } else { options.kind.name().into() }
}

fn generator_report(run: &Run) -> GeneratorReport {
    let cores: Vec<GeneratorReport> = run
        .threads
        .iter()
        .map(|thread| GeneratorReport {
            busy_fraction: thread.busy_fraction,
            starved_fraction: thread.starved_fraction,
            slip_p50_us: thread.slip_us[0],
            slip_p99_us: thread.slip_us[1],
            slip_max_us: thread.slip_us[2],
            pause_max_us: thread.pause_max_ns as f64 / 1e3,
            cores: Vec::new(),
        })
        .collect();
    let slip = &run.totals.slip;
    let busiest = cores
        .iter()
        .max_by(|one, other| one.busy_fraction.total_cmp(&other.busy_fraction))
        .cloned()
        .unwrap_or_default();
    GeneratorReport {
        slip_p50_us: quantile_us(slip, 0.5),
        slip_p99_us: quantile_us(slip, 0.99),
        slip_max_us: quantile_us(slip, 1.0),
        pause_max_us: cores.iter().map(|core| core.pause_max_us).fold(0.0, f64::max),
        cores,
        ..busiest
    }
}

/// Why the run says nothing about the server; empty if it does.
fn judge_generator(plan: &Plan, generator: &GeneratorReport, p99_us: Option<f64>) -> Vec<String> {
    let mut because = Vec::new();
    for (at, core) in generator.cores.iter().enumerate() {
        let idle = 1.0 - core.busy_fraction - core.starved_fraction;
        if idle < IDLE_FRACTION_MIN {
            because.push(format!(
                "generator thread {at} was busy {:.0} % of the time and without its core {:.0} %: it, and not the server, \
                 was the limit; give it a core of its own, more cores (--cores), or larger batches",
                core.busy_fraction * 100.0,
                core.starved_fraction * 100.0
            ));
        }
    }
    let slip_us_max = SLIP_P99_US_MAX.max(p99_us.unwrap_or(0.0) * SLIP_SHARE_MAX);
    for (at, core) in
        generator.cores.iter().enumerate().filter(|(_, core)| core.starved_fraction > STARVED_FRACTION_MAX)
    {
        because.push(format!(
            "generator thread {at} was without its core {:.0} % of the time: latencies are its own as much as the server's; \
             give it a core of its own",
            core.starved_fraction * 100.0
        ));
    }
    if generator.pause_max_us > PAUSE_US_MAX {
        because.push(format!(
            "a generator thread did not run for {:.1} s: it was stopped, or its core was given to something of higher \
             priority; answers waited for it",
            generator.pause_max_us / 1e6
        ));
    }
    if let Some(slip_p99_us) = generator.slip_p99_us.filter(|slip| *slip > slip_us_max)
        && matches!(plan.mode, Mode::Open { .. })
    {
        because.push(format!(
            "1 % of the requests left more than {:.1} ms late although a connection was free: the schedule was not kept; \
             lower the rate or give the generator a core of its own",
            slip_p99_us / 1e3
        ));
    }
    because
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::generator::histogram;

    /// A result of nothing but these points.
    pub(in crate::report) fn result_with(intervals: Vec<Point>) -> RunResult {
        RunResult {
            schema: SCHEMA,
            measured_s: 0.0,
            requests_per_second: 0.0,
            events_per_second: 0.0,
            bytes_per_second: 0.0,
            offered_requests_per_second: 0.0,
            requests: 0,
            events: 0,
            errors: 0,
            rejected: 0,
            error_rate: 0.0,
            latency_us: LatencyPair::default(),
            valid: true,
            interrupted: None,
            invalid_because: Vec::new(),
            generator: GeneratorReport::default(),
            outcomes: BTreeMap::new(),
            statuses: BTreeMap::new(),
            slow_readers: None,
            kinds: BTreeMap::new(),
            recovery: Vec::new(),
            knee: None,
            server: None,
            thresholds: Vec::new(),
            verdict: None,
            verdict_failed: None,
            manifest: Manifest::default(),
            intervals,
        }
    }

    #[test]
    fn a_result_is_read_back_as_it_was_written() {
        let mut result = result_with(vec![Point { from_s: 0.5, to_s: 1.5, requests: 7, ..Point::default() }]);
        result.latency_us.corrected.p99 = Some(12.5);
        result.verdict = Some(Verdict { sound: true, sent: 9, ..Verdict::default() });
        let text = serde_json::to_string(&result).unwrap();
        assert_eq!(serde_json::from_str::<RunResult>(&text).unwrap(), result);
    }

    #[test]
    fn a_latency_of_nothing_is_none_and_no_short_one() {
        let mut values = histogram::<u64>();
        assert_eq!(Latencies::of(&values), Latencies::default());
        assert!(serde_json::to_string(&Latencies::of(&values)).unwrap().contains("\"p99\":null"));
        values.record(2_000_000).unwrap();
        let latencies = Latencies::of(&values);
        for value in [latencies.p50, latencies.p99, latencies.max, latencies.mean] {
            assert!((value.unwrap() - 2000.0).abs() < 2.0, "{latencies:?}");
        }
    }

    #[test]
    fn limits_are_met_at_their_value_and_missed_when_nothing_was_measured() {
        let mut result = result_with(Vec::new());
        (result.requests, result.error_rate) = (1000, 0.001);
        let limits = Limits {
            error_rate: Some(0.001),
            memory_growth_mib_per_minute: Some(1.0),
            requests_per_second: Some(1.0),
            p99: Some(std::time::Duration::from_secs(9)),
            ..Limits::default()
        };
        let passed: Vec<(String, bool)> =
            limits.judge(&result).into_iter().map(|threshold| (threshold.name, threshold.passed)).collect();
        let expected = [
            ("p99_us", false),
            ("error_rate", true),
            ("memory_growth_mib_per_minute", false),
            ("requests_per_second", false),
        ];
        assert_eq!(passed, expected.map(|(name, passed)| (name.to_owned(), passed)));
    }
}
