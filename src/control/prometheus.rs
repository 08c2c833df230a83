//! Counters in Prometheus' text format, and in OpenMetrics' for those who ask for it. Control thread; pure but for what
//! the process uses.
//!
//! Formats: <https://prometheus.io/docs/instrumenting/exposition_formats/> (0.0.4) and
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/> (1.0.0). They differ in three places here: OpenMetrics names
//! a counter's family without `_total`, knows the type `info`, and ends with `# EOF`.

use std::fmt::{Display, Write};

use super::plan_view::VERSION;
use super::tenants::TENANT_FIELDS;
use super::view::{ServerView, WRITER_STATES, state_name};
use crate::metrics::{
    Field, HistogramField, Kind, SHARD_FIELDS, SHARD_HISTOGRAMS, Snapshot, WRITER_FIELDS, WRITER_HISTOGRAMS,
};
use crate::sys::process::{self, Usage};

/// Bucket edges in nanoseconds: 2^13 (8 µs) to 2^34 (17 s), and halfway between, up to one tenth above 2^34's. These are
/// edges of the histogram's own buckets, so the counts are exact; 1.5 × 2^26 and 1.5 × 2^27 ns are 100.7 and 201.3 ms,
/// next to where alerts look.
fn bucket_edges_ns() -> impl Iterator<Item = u64> {
    (13..34).flat_map(|magnitude| [1u64 << magnitude, 3 << (magnitude - 1)]).chain([1 << 34])
}

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What an `Accept` header asks for (RFC 9110, section 12.5.1): OpenMetrics if it is wanted at least as much as text
    /// and named; who takes anything gets text.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Self {
        let accept = accept.unwrap_or_default().to_ascii_lowercase();
        let (open, is_named) = quality(&accept, "application/openmetrics-text");
        let (text, _) = quality(&accept, "text/plain");
        let is_asked = open > text || is_named && open == text;
        if is_asked && open > 0.0 { Self::OpenMetrics } else { Self::Text }
    }

    /// The answer's `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// How much an `Accept` header, in lower case, wants a media type, 0 to 1, and whether it names the type. The range that
/// comes closest to the type counts, and of several as close (versions of it) the one that is wanted most.
fn quality(accept: &str, media_type: &str) -> (f32, bool) {
    let (kind, _) = media_type.split_once('/').expect("a media type has two parts");
    let (mut closest, mut wanted) = (0, 0.0_f32);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let closeness = match parts.next() {
            Some(name) if name == media_type => 3,
            Some(name) if name.strip_suffix("/*") == Some(kind) => 2,
            Some("*/*") => 1,
            _ => continue,
        };
        let q = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
        // What cannot be read is taken as if it were not there.
        let q = q.filter(|q| (0.0..=1.0).contains(q)).unwrap_or(1.0);
        if closeness > closest {
            (closest, wanted) = (closeness, q);
        } else if closeness == closest {
            wanted = q.max(wanted);
        }
    }
    (wanted, closest == 3)
}

/// All metrics of a server.
#[must_use]
pub fn render(view: &ServerView, format: Format) -> String {
    render_with(view, format, process::usage())
}

fn render_with(view: &ServerView, format: Format, usage: Usage) -> String {
    let mut page = Page { text: String::with_capacity(64 * 1024), format };
    page.build();
    page.server(view);
    page.process(view, usage);
    let shards: Vec<_> = view.metrics.shards.iter().map(|block| &**block).collect();
    page.blocks("", "shard", &shards, SHARD_FIELDS, SHARD_HISTOGRAMS);
    let writers: Vec<_> = view.metrics.writers.iter().map(|block| &**block).collect();
    page.blocks("writer_", "writer", &writers, WRITER_FIELDS, WRITER_HISTOGRAMS);
    page.writer_states(view);
    page.tenants(view);
    if format == Format::OpenMetrics {
        page.text += "# EOF\n";
    }
    page.text
}

struct Page {
    text: String,
    format: Format,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let suffix = if kind == "counter" && self.format == Format::Text { "_total" } else { "" };
        let _infallible = writeln!(self.text, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _infallible = writeln!(self.text, "{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, "", value);
    }

    fn build(&mut self) {
        let labels = format!("{{version=\"{VERSION}\"}}");
        match self.format {
            Format::Text => self.family("tidegate_build_info", "gauge", "The version that runs."),
            Format::OpenMetrics => self.family("tidegate_build", "info", "The version that runs."),
        }
        self.sample("tidegate_build_info", &labels, 1);
    }

    fn server(&mut self, view: &ServerView) {
        let summary = &view.metrics.summary;
        self.gauge("tidegate_up_seconds", "Time since the start.", view.uptime().as_secs_f64());
        self.gauge("tidegate_ready", "1 if /ready answers 200.", u8::from(view.readiness().is_ready()));
        self.gauge("tidegate_draining", "1 once the server is on its way out.", u8::from(view.is_draining()));
        self.gauge(
            "tidegate_utilization_ratio",
            "Share of the shards' cores spent serving, over the last second.",
            summary.utilization(),
        );
        self.gauge(
            "tidegate_refusing_utilization_ratio",
            "Share of the shards' cores spent refusing, over the last second.",
            summary.refusing(),
        );
        self.gauge(
            "tidegate_target_utilization_ratio",
            "Share of a shard's core to spend serving.",
            view.metrics.target_utilization(),
        );
        self.gauge(
            "tidegate_queue_utilization_ratio",
            "Share of the fullest log buffer in use.",
            summary.queue_utilization(),
        );
        self.gauge(
            "tidegate_backpressure_active",
            "1 if a shard had no room or refused a request for want of it in the last second.",
            u8::from(summary.backpressure_active()),
        );
        self.gauge(
            "tidegate_memory_planned_bytes",
            "What the shards may come to: pools, and every decompressor at its largest.",
            view.memory_planned_bytes,
        );
        self.gauge(
            "tidegate_log_filesystem_bytes",
            "Size of the log's filesystem when the server started.",
            view.filesystem_bytes,
        );
    }

    /// Names that every Prometheus client library uses, so that ready-made dashboards find them.
    fn process(&mut self, view: &ServerView, usage: Usage) {
        self.family("process_cpu_seconds", "counter", "Processor time of all threads.");
        self.sample("process_cpu_seconds_total", "", usage.processor_time.as_secs_f64());
        if let Some(stolen) = process::stolen_time() {
            let help = "Time the hypervisor gave to others, over all cores of the host.";
            self.family("tidegate_host_steal_seconds", "counter", help);
            self.sample("tidegate_host_steal_seconds_total", "", stolen.as_secs_f64());
        }
        self.gauge("process_resident_memory_bytes", "Resident memory.", usage.resident_bytes);
        self.gauge("process_open_fds", "Open descriptors.", usage.open_files);
        self.gauge(
            "process_start_time_seconds",
            "When the process started, since the Unix epoch.",
            view.started_unix().as_secs_f64(),
        );
    }

    fn blocks<T>(
        &mut self,
        prefix: &str,
        label: &str,
        blocks: &[&T],
        fields: &[Field<T>],
        histograms: &[HistogramField<T>],
    ) {
        for field in fields {
            let (kind, name) = match field.kind {
                Kind::Gauge => ("gauge", format!("tidegate_{prefix}{}", field.name)),
                Kind::Counter => ("counter", format!("tidegate_{prefix}{}", field.name)),
                Kind::Nanoseconds | Kind::NanosecondsNow => {
                    let stem = field.name.strip_suffix("_ns").unwrap_or(field.name);
                    let kind = if field.kind == Kind::Nanoseconds { "counter" } else { "gauge" };
                    (kind, format!("tidegate_{prefix}{stem}_seconds"))
                }
                Kind::Millionths => {
                    let stem = field.name.strip_suffix("_ppm").unwrap_or(field.name);
                    ("gauge", format!("tidegate_{prefix}{stem}_ratio"))
                }
            };
            self.family(&name, kind, field.help);
            let sample = if kind == "counter" { format!("{name}_total") } else { name };
            for (id, block) in blocks.iter().enumerate() {
                let labels = format!("{{{label}=\"{id}\"}}");
                let value = (field.of)(block).get();
                match field.kind {
                    Kind::Nanoseconds | Kind::NanosecondsNow => self.sample(&sample, &labels, seconds(value)),
                    Kind::Millionths => self.sample(&sample, &labels, millionths(value)),
                    Kind::Counter | Kind::Gauge => self.sample(&sample, &labels, value),
                }
            }
        }
        for field in histograms {
            let name = format!("tidegate_{prefix}{}_seconds", field.name);
            self.family(&name, "histogram", field.help);
            for (id, block) in blocks.iter().enumerate() {
                self.histogram(&name, &format!("{label}=\"{id}\""), &(field.of)(block).snapshot());
            }
        }
    }

    fn histogram(&mut self, name: &str, label: &str, snapshot: &Snapshot) {
        let bucket = format!("{name}_bucket");
        for edge_ns in bucket_edges_ns() {
            let labels = format!("{{{label},le=\"{}\"}}", seconds(edge_ns));
            self.sample(&bucket, &labels, snapshot.count_at_most(edge_ns));
        }
        self.sample(&bucket, &format!("{{{label},le=\"+Inf\"}}"), snapshot.count());
        self.sample(&format!("{name}_sum"), &format!("{{{label}}}"), seconds(snapshot.sum_ns()));
        self.sample(&format!("{name}_count"), &format!("{{{label}}}"), snapshot.count());
    }

    fn tenants(&mut self, view: &ServerView) {
        let figures = view.tenants.figures();
        if figures.is_empty() {
            return;
        }
        for (at, field) in TENANT_FIELDS.iter().enumerate() {
            let name = format!("tidegate_tenant_{}", field.name);
            self.family(&name, "counter", field.help);
            for (tenant, figures) in &figures {
                // A name needs no quoting: the key file allows letters, digits and three signs.
                self.sample(&format!("{name}_total"), &format!("{{tenant=\"{tenant}\"}}"), figures[at]);
            }
        }
    }

    fn writer_states(&mut self, view: &ServerView) {
        self.family("tidegate_writer_state", "gauge", "1 for the state each writer is in, 0 for the others.");
        for (id, status) in view.writers.iter().enumerate() {
            let now = status.state();
            for state in WRITER_STATES {
                let labels = format!("{{writer=\"{id}\",state=\"{}\"}}", state_name(state));
                self.sample("tidegate_writer_state", &labels, u8::from(state == now));
            }
        }
    }
}

/// Parts per million as a ratio.
#[expect(clippy::cast_precision_loss, reason = "53 bits are far more than a share has")]
fn millionths(ppm: u64) -> f64 {
    ppm as f64 / 1e6
}

/// Nanoseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "53 bits of nanoseconds are 104 days")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use super::super::config::Config;
    use super::super::host::made_up::host;
    use super::super::plan::Plan;
    use super::*;
    use crate::handoff::{WriterState, WriterStatus};
    use crate::metrics::{Scale, ServerMetrics};

    fn view() -> ServerView {
        let plan = Plan::make(&Config::default(), &host(3, 1, 1)).unwrap();
        let scale = Scale { log_buffer_bytes: 32 << 20, target_utilization: 0.67, normal_ccu: 100 };
        let metrics = ServerMetrics::new(2, 1, scale);
        metrics.shards[1].events.add(17);
        metrics.shards[0].busy_ns.add(1_500_000_000);
        metrics.shards[0].ack_latency.record_n(90_000_000, 3);
        metrics.shards[0].ack_latency.record(10_000_000_000_000);
        let status = WriterStatus::default();
        status.set(WriterState::Running);
        ServerView::new(Arc::new(metrics), vec![Arc::new(status)], &plan)
    }

    /// Reads a page back by the rules of the format: every sample belongs to the family declared last, families come
    /// once and in one piece, names and labels are well-formed, no series comes twice. Family → type, series → value.
    fn parse(page: &str, format: Format) -> (BTreeMap<String, String>, BTreeMap<String, f64>) {
        let (mut families, mut series) = (BTreeMap::new(), BTreeMap::new());
        let (mut family, mut kind, mut helped) = (String::new(), String::new(), BTreeSet::new());
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
        };
        assert!(page.ends_with('\n') && !page.contains("\n\n"));
        let mut lines = page.lines().peekable();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').unwrap();
                assert!(helped.insert(name.to_owned()) && !text.is_empty(), "{line}");
            } else if let Some(typed) = line.strip_prefix("# TYPE ") {
                let (name, declared) = typed.split_once(' ').unwrap();
                assert!(is_name(name) && helped.contains(name), "{line}");
                assert!(families.insert(name.to_owned(), declared.to_owned()).is_none(), "twice: {line}");
                (family, kind) = (name.to_owned(), declared.to_owned());
            } else if line == "# EOF" {
                assert!(format == Format::OpenMetrics && lines.peek().is_none(), "EOF in the middle");
            } else {
                let (name_and_labels, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = name_and_labels.split_once('{').unwrap_or((name_and_labels, "}"));
                for label in labels.strip_suffix('}').unwrap().split(',').filter(|label| !label.is_empty()) {
                    let (key, quoted) = label.split_once('=').unwrap();
                    assert!(is_name(key) && quoted.starts_with('"') && quoted.ends_with('"') && quoted.len() >= 2);
                }
                let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{name} outside {family}"));
                let allowed: &[&str] = match (kind.as_str(), format) {
                    ("counter", Format::OpenMetrics) => &["_total"],
                    ("info", _) => &["_info"],
                    ("histogram", _) => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                assert!(allowed.contains(&suffix), "{name} is no sample of a {kind}");
                assert!(series.insert(name_and_labels.to_owned(), value.parse().unwrap()).is_none(), "twice: {line}");
            }
        }
        assert_eq!(page.ends_with("# EOF\n"), format == Format::OpenMetrics);
        (families, series)
    }

    #[test]
    fn both_formats_read_back_by_their_rules() {
        for (format, counter) in [(Format::Text, "tidegate_events_total"), (Format::OpenMetrics, "tidegate_events")] {
            let (families, series) = parse(&render(&view(), format), format);
            assert_eq!(families[counter], "counter");
            assert_eq!(families["tidegate_connections_open"], "gauge");
            assert_eq!(series["tidegate_events_total{shard=\"1\"}"], 17.0);
            assert_eq!(series["tidegate_busy_seconds_total{shard=\"0\"}"], 1.5);
            assert_eq!(series["tidegate_writer_state{writer=\"0\",state=\"running\"}"], 1.0);
            assert_eq!(series["tidegate_writer_state{writer=\"0\",state=\"poisoned\"}"], 0.0);
            assert_eq!(series["tidegate_ready"], 1.0);
            assert_eq!(series[&format!("tidegate_build_info{{version=\"{VERSION}\"}}")], 1.0);
            assert!(series["process_resident_memory_bytes"] > 0.0);
        }
    }

    #[test]
    fn every_counter_of_every_shard_and_writer_is_there() {
        let (families, series) = parse(&render(&view(), Format::Text), Format::Text);
        for field in SHARD_FIELDS {
            let (stem, unit) = field.name.rsplit_once('_').unwrap_or((field.name, ""));
            let stem = match unit {
                "ns" => format!("{stem}_seconds"),
                "ppm" => format!("{stem}_ratio"),
                _ => field.name.to_owned(),
            };
            let goes_up = matches!(field.kind, Kind::Counter | Kind::Nanoseconds);
            let name = if goes_up { format!("{stem}_total") } else { stem };
            for shard in 0..2 {
                assert!(series.contains_key(&format!("tidegate_{name}{{shard=\"{shard}\"}}")), "{name}");
            }
        }
        assert!(WRITER_FIELDS.iter().all(|field| {
            let stem = field.name.strip_suffix("_ns").unwrap_or(field.name);
            families.keys().any(|family| family.starts_with(&format!("tidegate_writer_{stem}")))
        }));
        for name in ["tidegate_ack_latency_seconds", "tidegate_writer_sync_latency_seconds"] {
            assert_eq!(families[name], "histogram");
        }
    }

    #[test]
    fn buckets_are_cumulative_and_end_at_the_count() {
        let (_, series) = parse(&render(&view(), Format::Text), Format::Text);
        let bucket = |le: &str| series[&format!("tidegate_ack_latency_seconds_bucket{{shard=\"0\",le=\"{le}\"}}")];
        assert_eq!(bucket("0.067108864"), 0.0);
        assert_eq!(bucket("0.100663296"), 3.0);
        assert_eq!(bucket("17.179869184"), 3.0);
        assert_eq!(bucket("+Inf"), 4.0);
        assert_eq!(series["tidegate_ack_latency_seconds_count{shard=\"0\"}"], 4.0);
        assert_eq!(series["tidegate_ack_latency_seconds_sum{shard=\"0\"}"], 10_000.27);
        let edges: Vec<_> = bucket_edges_ns().collect();
        assert!(edges.is_sorted() && edges.len() == 43);
        let counts: Vec<_> = edges.iter().map(|edge| bucket(&seconds(*edge).to_string())).collect();
        assert!(counts.is_sorted());
    }

    #[test]
    fn open_metrics_only_when_asked_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for asked in [
            prometheus,
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; Q=0.5, text/plain;q=0.4",
            "application/openmetrics-text, text/plain",
            "text/plain;q=0.5, application/openmetrics-text;version=0.0.1;q=0.4, application/openmetrics-text;version=1.0.0",
            "application/*, text/plain;q=0.9",
            "application/openmetrics-text;q=0.5, */*;q=0.1",
        ] {
            assert_eq!(Format::accepted(Some(asked)), Format::OpenMetrics, "{asked}");
        }
        for other in [
            "",
            "text/plain",
            "*/*",
            "application/json",
            "application/openmetrics-text;q=0, text/plain",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.000, */*",
            "application/openmetrics-text;q=0.3, text/plain;q=0.9",
            "application/openmetrics-text;version=1.0.0;q=0.5, text/*;q=0.6",
            "application/openmetrics-text;q=0.5, */*",
        ] {
            assert_eq!(Format::accepted(Some(other)), Format::Text, "{other}");
        }
        assert_eq!(Format::accepted(None), Format::Text);
    }
}
