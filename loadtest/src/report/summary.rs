//! What a person reads: a line while the run goes on, and a page at its end. Main thread.

use std::fmt::Write as _;
use std::time::Duration;

use super::result::{Latencies, Point, RunResult};
use super::series::Recovery;
use crate::quantity::{show_count, show_duration, show_latency};

/// The line of one interval. `left` is the time to the end of the load.
#[must_use]
pub fn progress(point: &Point, left: Duration) -> String {
    let seconds = point.seconds().max(1e-9);
    let per_second = |count: f64| show_count((count / seconds).round());
    if point.drain {
        let (answered, errors) = (point.requests, point.errors);
        return format!(
            "{:>7.1}s drain   {answered} late answers  p99 {}  errors {errors}",
            point.to_s,
            show_latency(point.p99_us)
        );
    }
    let phase = if point.warmup { "warm-up" } else { "" };
    format!(
        "{:>7.1}s {phase:<7} {:>8} req/s of {:>8}  {:>9} ev/s  p50 {:>8}  p99 {:>8}  errors {}  rejected {}  left {}",
        point.to_s,
        per_second(point.requests as f64),
        per_second(point.offered),
        per_second(point.events as f64),
        show_latency(point.p50_us),
        show_latency(point.p99_us),
        point.errors,
        point.rejected,
        show_duration(left),
    )
}

/// The page at the end.
#[must_use]
pub fn summary(result: &RunResult) -> String {
    let mut text = String::new();
    let manifest = &result.manifest;
    // A rate of no time is none.
    let is_measured = result.measured_s > 0.0;
    let rate = |value: f64| if is_measured { show_count(value.round()) } else { "-".into() };
    let mega = if is_measured { format!("{:.1}", result.bytes_per_second / 1e6) } else { "-".into() };
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "{label:<12} {value}");
    };
    line(
        "target",
        format!(
            "{} · {} loop · {} connections × {} · batch {} · ack {} · {}",
            manifest.target,
            manifest.mode,
            manifest.connections,
            manifest.pipeline,
            manifest.batch,
            manifest.ack,
            manifest.template
        ),
    );
    line("offered", show_offered(result, &rate(result.offered_requests_per_second)));
    line(
        "goodput",
        format!(
            "{} req/s · {} events/s · {mega} MB/s",
            rate(result.requests_per_second),
            rate(result.events_per_second),
        ),
    );
    line(
        "requests",
        format!(
            "{} · {} errors · {} rejected · error rate {:.4} %",
            result.requests,
            result.errors,
            result.rejected,
            result.error_rate * 100.0
        ),
    );
    for (name, count) in result.outcomes.iter().filter(|(name, count)| **count > 0 && *name != "accepted") {
        line("", format!("{name} {count}"));
    }
    line("latency", "p50        p90        p95        p99        p99.9      max".into());
    line(" intended", percentiles(&result.latency_us.corrected));
    line(" actual", percentiles(&result.latency_us.uncorrected));
    if result.errors + result.rejected > 0 {
        line(" failed", percentiles(&result.latency_us.failed));
    }
    if result.kinds.len() > 1 {
        for (name, kind) in &result.kinds {
            line(
                &format!(" {name}"),
                format!("{}  {} requests, {} errors", percentiles(&kind.latency_us), kind.requests, kind.errors),
            );
        }
    }
    line(
        "generator",
        format!(
            "busy {:.0} % · without core {:.0} % · slip p50 {} p99 {} max {}",
            result.generator.busy_fraction * 100.0,
            result.generator.starved_fraction * 100.0,
            show_latency(result.generator.slip_p50_us),
            show_latency(result.generator.slip_p99_us),
            show_latency(result.generator.slip_max_us)
        ),
    );
    if let Some(slow) = &result.slow_readers {
        line(
            "slow",
            format!(
                "{} readers · {} bytes read · closed by the server {} times",
                slow.connections, slow.bytes_read, slow.closed_by_server
            ),
        );
    }
    for recovery in &result.recovery {
        line("recovery", format!("after the fall at {:.1} s: {}", recovery.at_s, show_recovery(recovery)));
    }
    if let Some(knee) = result.knee {
        line("knee", format!("kept up until {} req/s were offered", show_count(knee.round())));
    }
    if let Some(memory) = &result.server {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (first, last) = (mib(memory.rss_first_bytes), mib(memory.rss_last_bytes));
        let growth = memory.rss_growth_bytes_per_minute / f64::from(1 << 20);
        line("server", format!("resident {first:.1} → {last:.1} MiB, {growth:+.2} MiB a minute"));
    }
    if let Some(verdict) = &result.verdict {
        line("oracle", show_verdict(verdict));
        for example in &verdict.examples {
            line("", example.clone());
        }
    }
    if let Some(failed) = &result.verdict_failed {
        line("oracle", format!("NO VERDICT · {failed}"));
    }
    for threshold in &result.thresholds {
        let verdict = if threshold.passed { "ok    " } else { "MISSED" };
        let value = threshold.value.map_or("not measured".into(), |value| format!("{value:.4}"));
        line("threshold", format!("{verdict} {} {value} (limit {})", threshold.name, threshold.limit));
    }
    for because in &result.invalid_because {
        line("INVALID", because.clone());
    }
    text
}

fn show_recovery(recovery: &Recovery) -> String {
    match (recovery.p99_limit_us, recovery.recovered_after_s) {
        (None, _) => "- (what counts as recovered needs a limit, --max-p99)".into(),
        (Some(_), Some(seconds)) => format!("{seconds:.1} s"),
        (Some(_), None) => "not".into(),
    }
}

/// How much was offered for how long.
fn show_offered(result: &RunResult, rate: &str) -> String {
    let told = format!("{rate} req/s for {:.1} s", result.measured_s);
    match &result.interrupted {
        None => told,
        // The load was whole, but for what is lost in adding fractions: what was interrupted has a line of its own.
        Some(_) if result.measured_s + 1e-6 >= result.manifest.duration_s => told,
        Some(signal) => {
            format!("{told} · INTERRUPTED by {signal}, {:.1} s were planned", result.manifest.duration_s)
        }
    }
}

/// One line of an oracle's findings.
#[must_use]
pub fn show_verdict(verdict: &super::result::Verdict) -> String {
    format!(
        "{} · sent {} · acked {} · stored {} · lost {} · duplicated {} · corrupted {} · unknown {} · stored but not acked {}{}",
        if verdict.sound { "SOUND" } else { "NOT SOUND" },
        verdict.sent,
        verdict.acked,
        verdict.stored,
        verdict.lost,
        verdict.duplicated,
        verdict.corrupted,
        verdict.unknown,
        verdict.stored_not_acked,
        if verdict.other_runs > 0 { format!(" · of other runs {}", verdict.other_runs) } else { String::new() }
    )
}

fn percentiles(latencies: &Latencies) -> String {
    let values = [latencies.p50, latencies.p90, latencies.p95, latencies.p99, latencies.p999, latencies.max];
    values.iter().map(|us| format!("{:<10}", show_latency(*us))).collect::<Vec<_>>().join(" ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_without_a_limit_is_told_as_none() {
        let mut recovery = Recovery { at_s: 5.0, p99_limit_us: None, recovered_after_s: None };
        assert!(show_recovery(&recovery).starts_with('-') && show_recovery(&recovery).contains("--max-p99"));
        recovery.p99_limit_us = Some(100.0);
        assert_eq!(show_recovery(&recovery), "not");
        recovery.recovered_after_s = Some(0.0);
        assert_eq!(show_recovery(&recovery), "0.0 s");
    }
}
