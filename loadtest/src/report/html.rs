//! The report of a run as one HTML file without references to anything outside of it. Main thread.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use super::chart::{Chart, Mark, Scale, Series, escape};
use super::hgrm::nines;
use super::result::{Latencies, Point, RunResult};
use super::summary::show_verdict;
use crate::quantity::{show_count, show_latency, show_us};

const STYLE: &str = "\
:root{--fg:#1b1f24;--bg:#fff;--soft:#6b7280;--line:#e2e5ea;--c1:#1463c4;--c2:#c2410c;--c3:#15803d;--c4:#7c3aed;--bad:#b91c1c}\
@media(prefers-color-scheme:dark){:root{--fg:#e5e7eb;--bg:#14171c;--soft:#9aa3af;--line:#2c323b;--c1:#6ab0ff;--c2:#fb923c;--c3:#4ade80;--c4:#c4a5ff;--bad:#f87171}}\
body{font:15px/1.45 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:1500px;margin:0 auto;padding:24px}\
h1{font-size:22px;margin:0 0 4px}h2{font-size:16px;margin:28px 0 8px}p{margin:4px 0}.soft{color:var(--soft)}.bad{color:var(--bad);font-weight:600}\
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(520px,1fr));gap:18px}svg{width:100%;height:auto}\
.tiles{display:flex;flex-wrap:wrap;gap:12px 36px;margin:16px 0}.tiles b{display:block;font-size:24px;font-weight:600}\
table{border-collapse:collapse}td,th{padding:3px 18px 3px 0;text-align:left;vertical-align:top}td.n,th.n{text-align:right}\
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}svg .title{font-size:13px;font-weight:600;fill:var(--fg)}\
.grid{stroke:var(--line)}polyline,line{fill:none;stroke-width:1.6}\
.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}.s3{stroke:var(--c3)}.s4{stroke:var(--c4)}\
.d1{fill:var(--c1)}.d2{fill:var(--c2)}.d3{fill:var(--c3)}.d4{fill:var(--c4)}\
code{font-size:13px;white-space:pre-wrap;word-break:break-all}";

/// The report. The histograms are those the result's percentiles were taken from.
#[must_use]
pub fn html(result: &RunResult, corrected: &Histogram<u64>, uncorrected: &Histogram<u64>) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>tidegate-load: {target}</title><style>{STYLE}</style></head><body>\n<h1>Load on {target}</h1>\n",
        target = escape(&result.manifest.target)
    );
    write_head(&mut page, result);
    page.push_str("<div class=\"charts\">\n");
    page.push_str(&latency_distribution(corrected, uncorrected));
    page.push_str(&throughput(result));
    page.push_str(&latency_over_time(result));
    page.push_str(&goodput(result));
    if result.intervals.iter().any(|point| point.is_measured() && point.errors + point.rejected > 0) {
        page.push_str(&failures(result));
    }
    page.push_str("</div>\n");
    write_latencies(&mut page, result);
    write_thresholds(&mut page, result);
    write_manifest(&mut page, result);
    page.push_str("</body></html>\n");
    page
}

fn write_head(page: &mut String, result: &RunResult) {
    let manifest = &result.manifest;
    let _ = writeln!(
        page,
        "<p class=\"soft\">{} loop · {} connections × {} · {} events of {:.0} bytes per request · ack {} · {:.1} s measured</p>",
        manifest.mode,
        manifest.connections,
        manifest.pipeline,
        manifest.batch,
        manifest.event_bytes_mean,
        escape(&manifest.ack),
        result.measured_s
    );
    for because in &result.invalid_because {
        let _ = writeln!(page, "<p class=\"bad\">INVALID: {}</p>", escape(because));
    }
    let tiles = [
        ("requests/s", show_count(result.requests_per_second.round())),
        ("events/s", show_count(result.events_per_second.round())),
        ("offered requests/s", show_count(result.offered_requests_per_second.round())),
        ("p50 from intended time", show_latency(result.latency_us.corrected.p50)),
        ("p99 from intended time", show_latency(result.latency_us.corrected.p99)),
        ("errors", result.errors.to_string()),
        ("rejected", result.rejected.to_string()),
        ("generator busy", format!("{:.0} %", result.generator.busy_fraction * 100.0)),
    ];
    page.push_str("<div class=\"tiles\">");
    for (label, value) in tiles {
        let _ = write!(page, "<div><b>{}</b><span class=\"soft\">{label}</span></div>", escape(&value));
    }
    page.push_str("</div>\n");
    if let Some(verdict) = &result.verdict {
        let class = if verdict.sound { "" } else { " class=\"bad\"" };
        let _ = writeln!(page, "<p{class}>Oracle: {}</p>", escape(&show_verdict(verdict)));
    }
    if let Some(failed) = &result.verdict_failed {
        let _ = writeln!(page, "<p class=\"bad\">Oracle: no verdict: {}</p>", escape(failed));
    }
}

fn latency_distribution(corrected: &Histogram<u64>, uncorrected: &Histogram<u64>) -> String {
    let series = |name, color, mark, histogram| Series { name, color, mark, points: nines(histogram) };
    let show_nines = |nines: f64| match nines {
        nines if nines < 0.1 => "0 %".into(),
        nines if nines < 0.5 => "50 %".into(),
        nines => format!("{} %", 100.0 - 10f64.powf(2.0 - nines)),
    };
    Chart {
        title: "Latency by percentile",
        x_label: "percentile",
        y_label: "",
        y_scale: Scale::Log,
        show_x: &show_nines,
        show_y: &|ns| show_us(ns / 1e3),
        x_ticks: vec![0.0, 2f64.log10(), 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        series: vec![
            series("from the actual send", 2, Mark::Dashes, uncorrected),
            series("from the intended time", 1, Mark::Line, corrected),
        ],
    }
    .svg()
}

fn over_time(points: &[Point], value: impl Fn(&Point) -> f64) -> Vec<(f64, f64)> {
    points
        .iter()
        .filter(|point| point.is_measured())
        .map(|point| ((point.from_s + point.to_s) / 2.0, value(point)))
        .collect()
}

fn throughput(result: &RunResult) -> String {
    let points = &result.intervals;
    let is_open = result.manifest.mode == "open";
    let mut series = vec![Series {
        name: "answered",
        color: 1,
        mark: Mark::Line,
        points: over_time(points, |point| point.requests as f64 / point.seconds()),
    }];
    if is_open {
        let points = over_time(points, |point| point.offered / point.seconds());
        series.insert(0, Series { name: "offered", color: 3, mark: Mark::Dashes, points });
    }
    time_chart("Requests per second", Scale::Linear, &|value| show_count(value), series)
}

fn latency_over_time(result: &RunResult) -> String {
    let points = &result.intervals;
    let of = |name, color, value: &dyn Fn(&Point) -> Option<f64>| Series {
        name,
        color,
        mark: Mark::Line,
        points: over_time(points, |point| value(point).unwrap_or(0.0))
            .into_iter()
            .filter(|point| point.1 > 0.0)
            .collect(),
    };
    let series = vec![
        of("p50", 3, &|point| point.p50_us),
        of("p99", 1, &|point| point.p99_us),
        of("max", 2, &|point| point.max_us),
    ];
    time_chart("Latency from the intended time", Scale::Log, &show_us, series)
}

fn failures(result: &RunResult) -> String {
    let points = &result.intervals;
    let of = |name, color, value: &dyn Fn(&Point) -> f64| Series {
        name,
        color,
        mark: Mark::Line,
        points: over_time(points, value),
    };
    let series = vec![
        of("errors", 2, &|point| point.errors as f64 / point.seconds()),
        of("rejected", 4, &|point| point.rejected as f64 / point.seconds()),
    ];
    time_chart("Errors and rejections per second", Scale::Linear, &|value| show_count(value), series)
}

fn time_chart(title: &str, y_scale: Scale, show_y: &dyn Fn(f64) -> String, series: Vec<Series<'_>>) -> String {
    // Ticks are round numbers, but not all of them are binary ones.
    let show_x = |seconds: f64| format!("{} s", (seconds * 1e6).round() / 1e6);
    Chart { title, x_label: "time", y_label: "", y_scale, show_x: &show_x, show_y, x_ticks: Vec::new(), series }.svg()
}

fn goodput(result: &RunResult) -> String {
    let measured = || result.intervals.iter().filter(|point| point.is_measured());
    let offered = |point: &Point| point.offered / point.seconds();
    let most = measured().map(offered).fold(0.0, f64::max);
    let points = measured().map(|point| (offered(point), point.requests as f64 / point.seconds())).collect();
    Chart {
        title: "Goodput against offered load, an interval each",
        x_label: "offered requests per second",
        y_label: "",
        y_scale: Scale::Linear,
        show_x: &|value| show_count(value),
        show_y: &|value| show_count(value),
        x_ticks: Vec::new(),
        series: vec![
            Series { name: "all of it", color: 3, mark: Mark::Dashes, points: vec![(0.0, 0.0), (most, most)] },
            Series { name: "answered", color: 1, mark: Mark::Dots, points },
        ],
    }
    .svg()
}

fn write_latencies(page: &mut String, result: &RunResult) {
    page.push_str("<h2>Latency</h2>\n<table><tr><th></th>");
    for name in ["p50", "p90", "p95", "p99", "p99.9", "max", "mean"] {
        let _ = write!(page, "<th class=\"n\">{name}</th>");
    }
    page.push_str("<th class=\"n\">requests</th><th class=\"n\">errors</th></tr>\n");
    let mut row = |name: &str, latencies: &Latencies, counts: Option<(u64, u64)>| {
        let _ = write!(page, "<tr><td>{}</td>", escape(name));
        let Latencies { p50, p90, p95, p99, p999, max, mean } = *latencies;
        for value in [p50, p90, p95, p99, p999, max, mean] {
            let _ = write!(page, "<td class=\"n\">{}</td>", show_latency(value));
        }
        if let Some((requests, errors)) = counts {
            let _ = write!(page, "<td class=\"n\">{requests}</td><td class=\"n\">{errors}</td>");
        }
        page.push_str("</tr>\n");
    };
    row("from the intended time", &result.latency_us.corrected, Some((result.requests, result.errors)));
    row("from the actual send", &result.latency_us.uncorrected, None);
    if result.errors + result.rejected > 0 {
        row("of failed ones, from the intended time", &result.latency_us.failed, None);
    }
    for (name, kind) in &result.kinds {
        row(name, &kind.latency_us, Some((kind.requests, kind.errors)));
    }
    page.push_str("</table>\n");
    let generator = &result.generator;
    let _ = writeln!(
        page,
        "<p class=\"soft\">The generator was busy {:.0} % of the time and without its core {:.0} %; requests left {} late at the \
         99th percentile although a connection was free.</p>",
        generator.busy_fraction * 100.0,
        generator.starved_fraction * 100.0,
        show_latency(generator.slip_p99_us)
    );
}

fn write_thresholds(page: &mut String, result: &RunResult) {
    if result.thresholds.is_empty() {
        return;
    }
    page.push_str("<h2>Thresholds</h2>\n<table>");
    for threshold in &result.thresholds {
        let verdict = if threshold.passed { "met" } else { "<span class=\"bad\">missed</span>" };
        let value = threshold.value.map_or("not measured".into(), |value| format!("{value:.4}"));
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{verdict}</td><td class=\"n\">{value}</td><td class=\"n soft\">limit {}</td></tr>",
            escape(&threshold.name),
            threshold.limit
        );
    }
    page.push_str("</table>\n");
}

fn write_manifest(page: &mut String, result: &RunResult) {
    page.push_str("<h2>Manifest</h2>\n<table>");
    let manifest = serde_json::to_value(&result.manifest).expect("a manifest has string keys only");
    for (name, value) in manifest.as_object().expect("a manifest is an object") {
        let value = match value {
            serde_json::Value::Null => "not known".to_owned(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let _ = writeln!(page, "<tr><td class=\"soft\">{name}</td><td><code>{}</code></td></tr>", escape(&value));
    }
    page.push_str("</table>\n");
}
