//! All counters of a server in one place, and what they come to: totals, rates, readiness. Shards and writers write
//! their blocks; the control thread writes the rates once a second; any thread reads, and answers with them without
//! allocating.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::{Padded, ShardMetrics, Snapshot, WriterMetrics};

/// From this share of utilization or of a log buffer on, `/ready` answers 503: a balancer should send new clients
/// elsewhere while there is still room for those that are here.
pub const READY_SHARE_MAX: f64 = 0.9;

/// Every counter of the server.
#[derive(Debug)]
pub struct ServerMetrics {
    /// One block per shard, by shard number.
    pub shards: Box<[Padded<ShardMetrics>]>,
    /// One block per writer, by writer number; shared one by one, because a writer knows no server.
    pub writers: Box<[Arc<WriterMetrics>]>,
    /// What the control thread computed last.
    pub summary: Summary,
    scale: Scale,
}

/// The sizes that counters are compared with. Fixed at start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Bytes of one shard's log buffer.
    pub log_buffer_bytes: u64,
    /// Busy share of a shard's core to hold, 0 to 1.
    pub target_utilization: f64,
    /// Requests in flight from which on others are refused: `max_ccu` times the target.
    pub normal_ccu: u64,
}

/// Rates over the last second, written by the control thread only.
#[derive(Debug, Default)]
pub struct Summary {
    events_per_second: Share,
    utilization: Share,
    refusing: Share,
    queue_utilization: Share,
    avg_latency_ms: Share,
    p99_latency_ms: Share,
    backpressure_active: AtomicBool,
}

/// A float that one thread writes and any thread reads.
#[derive(Debug, Default)]
struct Share(AtomicU64);

impl Share {
    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

impl Summary {
    /// Events placed per second, over the last second.
    #[must_use]
    pub fn events_per_second(&self) -> f64 {
        self.events_per_second.get()
    }

    /// Share of the shards' cores spent serving, 0 to 1, the mean over shards: what the target is for.
    #[must_use]
    pub fn utilization(&self) -> f64 {
        self.utilization.get()
    }

    /// Share of the shards' cores spent refusing, which comes on top.
    #[must_use]
    pub fn refusing(&self) -> f64 {
        self.refusing.get()
    }

    /// Share of the fullest log buffer in use, 0 to 1: a request that meets a full shard waits, however empty others are.
    #[must_use]
    pub fn queue_utilization(&self) -> f64 {
        self.queue_utilization.get()
    }

    /// Mean time from a request's last byte to its ack level, in milliseconds; 0 without requests.
    #[must_use]
    pub fn avg_latency_ms(&self) -> f64 {
        self.avg_latency_ms.get()
    }

    /// The 99th percentile of the same.
    #[must_use]
    pub fn p99_latency_ms(&self) -> f64 {
        self.p99_latency_ms.get()
    }

    /// Whether a shard had no room or refused a request for want of it in the last second.
    #[must_use]
    pub fn backpressure_active(&self) -> bool {
        self.backpressure_active.load(Ordering::Relaxed)
    }
}

/// Sums over all shards since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests whose head was read.
    pub requests: u64,
    /// Requests answered 2xx.
    pub requests_ok: u64,
    /// Requests refused with 429, 503 or 507.
    pub requests_rejected: u64,
    /// Requests answered with any other 4xx or 5xx.
    pub requests_error: u64,
    /// Events placed.
    pub events: u64,
    /// Of those, refused for a tenant's limit: that says nothing of the server.
    pub requests_limited: u64,
    /// Requests let in and not yet answered at their ack level.
    pub requests_in_flight: u64,
    /// Times there was no room.
    pub no_room_stalls: u64,
    /// Nanoseconds spent working.
    pub busy_ns: u64,
    /// Of those, spent on refusing.
    pub refusing_ns: u64,
}

impl ServerMetrics {
    /// All zero, for that many shards and writers.
    #[must_use]
    pub fn new(shards: usize, writers: usize, scale: Scale) -> Self {
        Self {
            shards: (0..shards).map(|_| Padded::default()).collect(),
            writers: (0..writers).map(|_| Arc::default()).collect(),
            summary: Summary::default(),
            scale,
        }
    }

    /// The sums now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for shard in &self.shards {
            totals.requests += shard.requests.get();
            totals.requests_ok += shard.requests_ok.get();
            totals.requests_rejected += shard.requests_rejected.get();
            totals.requests_error += shard.requests_error.get();
            totals.events += shard.events.get();
            totals.requests_limited += shard.refused_limited.get();
            totals.requests_in_flight += shard.requests_in_flight.get();
            totals.no_room_stalls += shard.no_room_stalls.get();
            totals.busy_ns += shard.busy_ns.get();
            totals.refusing_ns += shard.refusing_ns.get();
        }
        totals
    }

    /// Busy share of a shard's core to hold, 0 to 1.
    #[must_use]
    pub fn target_utilization(&self) -> f64 {
        self.scale.target_utilization
    }

    /// Writes the answer to `GET /api/metrics`: one JSON object with every field of the contract, at most
    /// [`SUMMARY_JSON_BYTES_MAX`] long. Allocates nothing.
    ///
    /// # Errors
    /// When `out` has no room.
    pub fn write_json(&self, out: &mut impl Write) -> fmt::Result {
        let totals = self.totals();
        let summary = &self.summary;
        write!(
            out,
            "{{\"total_requests\":{},\"successful_requests\":{},\"rejected_requests\":{},\"error_requests\":{},\
             \"events_total\":{},\"events_per_second\":{:.1},\"utilization\":{:.4},\"target_utilization\":{:.4},\
             \"backpressure_active\":{},\"queue_utilization\":{:.4},\"current_ccu\":{},\"normal_ccu\":{},\
             \"avg_latency_ms\":{:.3},\"p99_latency_ms\":{:.3},\"refusing_utilization\":{:.4}}}",
            totals.requests,
            totals.requests_ok,
            totals.requests_rejected,
            totals.requests_error,
            totals.events,
            summary.events_per_second(),
            summary.utilization(),
            self.target_utilization(),
            summary.backpressure_active(),
            summary.queue_utilization(),
            totals.requests_in_flight,
            self.scale.normal_ccu,
            summary.avg_latency_ms(),
            summary.p99_latency_ms(),
            summary.refusing(),
        )
    }

    /// Whether new clients should be sent here, judged by the last second and by what the caller knows of the moment.
    #[must_use]
    pub fn readiness(&self, draining: bool, writer: WriterHealth) -> Readiness {
        Readiness {
            draining,
            writer,
            utilization: self.summary.utilization() + self.summary.refusing(),
            queue_utilization: self.summary.queue_utilization(),
        }
    }
}

/// Longest text of [`ServerMetrics::write_json`]: the names and fifteen values of at most 20 digits.
pub const SUMMARY_JSON_BYTES_MAX: usize = 768;

/// The worst state among the writers, as far as readiness goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WriterHealth {
    /// All take events.
    Running,
    /// One is still recovering.
    Starting,
    /// One has reached the disk reserve.
    Full,
    /// One has stopped after a drain.
    Stopped,
    /// One has failed.
    Poisoned,
}

/// The parts of `/ready`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Readiness {
    /// Whether the server is on its way out.
    pub draining: bool,
    /// The worst of the writers.
    pub writer: WriterHealth,
    /// Busy share of the shards' cores, serving or refusing.
    pub utilization: f64,
    /// Share of the fullest log buffer in use.
    pub queue_utilization: f64,
}

/// Longest text of [`Readiness::write_json`].
pub const READY_JSON_BYTES_MAX: usize = 256;

impl Readiness {
    /// Whether all checks pass: 200, else 503.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.checks().iter().all(|(_, state)| *state == "ok")
    }

    fn checks(&self) -> [(&'static str, &'static str); 5] {
        let below = |share: f64| if share < READY_SHARE_MAX { "ok" } else { "at_or_above_90_percent" };
        let writer = match self.writer {
            WriterHealth::Running | WriterHealth::Full => "ok",
            WriterHealth::Starting => "starting",
            WriterHealth::Stopped => "stopped",
            WriterHealth::Poisoned => "failed",
        };
        [
            ("draining", if self.draining { "draining" } else { "ok" }),
            ("writer", writer),
            ("disk", if self.writer == WriterHealth::Full { "reserve_reached" } else { "ok" }),
            ("utilization", below(self.utilization)),
            ("queue", below(self.queue_utilization)),
        ]
    }

    /// Writes the answer to `GET /ready`: `{"ready":…,"checks":{…}}`, each check `"ok"` or what is wrong, at most
    /// [`READY_JSON_BYTES_MAX`] long. Allocates nothing.
    ///
    /// # Errors
    /// When `out` has no room.
    pub fn write_json(&self, out: &mut impl Write) -> fmt::Result {
        write!(out, "{{\"ready\":{},\"checks\":{{", self.is_ready())?;
        for (at, (name, state)) in self.checks().iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(out, "{comma}\"{name}\":\"{state}\"")?;
        }
        out.write_str("}}")
    }
}

/// Turns counters into rates once a second. Owned by the control thread; allocates only while it is made.
#[derive(Debug)]
pub struct Summarizer {
    totals: Totals,
    latency: Snapshot,
    latency_before: Snapshot,
}

impl Summarizer {
    /// Starts from what the counters hold now.
    #[must_use]
    pub fn new(metrics: &ServerMetrics) -> Self {
        let mut latency = Snapshot::empty();
        read_latency(metrics, &mut latency);
        Self { totals: metrics.totals(), latency_before: latency.clone(), latency }
    }

    /// Computes what happened in the `elapsed` time since the last call and writes it to the summary.
    #[expect(clippy::cast_precision_loss, reason = "rates for display and thresholds")]
    pub fn tick(&mut self, metrics: &ServerMetrics, elapsed: Duration) {
        let (before, now) = (self.totals, metrics.totals());
        let since = |now: u64, before: u64| now.wrapping_sub(before) as f64;
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let summary = &metrics.summary;
        summary.events_per_second.set(since(now.events, before.events) / seconds);
        // By this thread's clock, not by the shards' wall_ns: a shard that sleeps through the second adds to neither.
        let core_ns = seconds * 1e9 * metrics.shards.len().max(1) as f64;
        let refusing = (since(now.refusing_ns, before.refusing_ns) / core_ns).min(1.0);
        let busy = (since(now.busy_ns, before.busy_ns) / core_ns).min(1.0);
        summary.utilization.set((busy - refusing).max(0.0));
        summary.refusing.set(refusing);
        let used = metrics.shards.iter().map(|shard| shard.log_buffer_bytes_used.get()).max().unwrap_or(0);
        summary.queue_utilization.set(used as f64 / metrics.scale.log_buffer_bytes.max(1) as f64);
        let refused = |totals: Totals| totals.requests_rejected.wrapping_sub(totals.requests_limited);
        let held = now.no_room_stalls != before.no_room_stalls || refused(now) != refused(before);
        summary.backpressure_active.store(held, Ordering::Relaxed);
        self.totals = now;

        std::mem::swap(&mut self.latency, &mut self.latency_before);
        read_latency(metrics, &mut self.latency);
        let window = self.latency.since(&self.latency_before);
        let count = window.count();
        let mean_ns = if count == 0 { 0.0 } else { window.sum_ns() as f64 / count as f64 };
        summary.avg_latency_ms.set(mean_ns / 1e6);
        summary.p99_latency_ms.set(window.quantile_ns(0.99) as f64 / 1e6);
    }
}

fn read_latency(metrics: &ServerMetrics, into: &mut Snapshot) {
    into.clear();
    for shard in &metrics.shards {
        shard.ack_latency.add_to(into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(shards: usize) -> ServerMetrics {
        let scale = Scale { log_buffer_bytes: 1000, target_utilization: 0.67, normal_ccu: 201 };
        ServerMetrics::new(shards, 1, scale)
    }

    #[test]
    fn a_second_of_work_becomes_rates() {
        let metrics = metrics(2);
        metrics.shards[0].events.add(1_000_000);
        let mut summarizer = Summarizer::new(&metrics);
        metrics.shards[0].events.add(500);
        metrics.shards[1].events.add(1500);
        metrics.shards[0].busy_ns.add(1_000_000_000);
        metrics.shards[1].log_buffer_bytes_used.set(900);
        metrics.shards[0].ack_latency.record_n(1_000_000, 99);
        metrics.shards[1].ack_latency.record(50_000_000);
        summarizer.tick(&metrics, Duration::from_secs(2));
        let summary = &metrics.summary;
        assert!((summary.events_per_second() - 1000.0).abs() < 1e-6, "what was before does not count");
        assert!((summary.utilization() - 0.25).abs() < 1e-6, "one of two cores was busy half the time");
        assert!((summary.queue_utilization() - 0.9).abs() < 1e-6, "the fullest counts");
        assert!((summary.avg_latency_ms() - 1.49).abs() < 1e-6);
        assert!((1.0..1.1).contains(&summary.p99_latency_ms()), "99 of 100 took a millisecond");
        assert!(!summary.backpressure_active());

        metrics.shards[1].no_room_stalls.add(1);
        summarizer.tick(&metrics, Duration::from_secs(1));
        assert!(summary.backpressure_active());
        assert_eq!((summary.events_per_second(), summary.p99_latency_ms()), (0.0, 0.0), "the window moved on");
        metrics.shards[0].requests_rejected.add(3);
        metrics.shards[0].refused_limited.add(3);
        metrics.shards[0].busy_ns.add(1_600_000_000);
        metrics.shards[0].refusing_ns.add(400_000_000);
        summarizer.tick(&metrics, Duration::from_secs(1));
        assert!(!summary.backpressure_active(), "a tenant's limit is not the server's");
        assert!((summary.utilization() - 0.6).abs() < 1e-6 && (summary.refusing() - 0.2).abs() < 1e-6);
        assert!((metrics.readiness(false, WriterHealth::Running).utilization - 0.8).abs() < 1e-6, "busy is busy");
    }

    #[test]
    fn the_summary_is_json_with_every_field_of_the_contract() {
        let metrics = metrics(3);
        for shard in &metrics.shards {
            for counter in [&shard.requests, &shard.requests_ok, &shard.requests_rejected, &shard.requests_error] {
                counter.set(u64::MAX / 3);
            }
            shard.events.set(u64::MAX / 3);
            shard.requests_in_flight.set(7);
        }
        metrics.summary.events_per_second.set(1e15);
        let mut text = String::new();
        metrics.write_json(&mut text).unwrap();
        assert!(text.len() <= SUMMARY_JSON_BYTES_MAX, "{}", text.len());
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let names = "total_requests successful_requests rejected_requests error_requests events_total events_per_second \
                     utilization target_utilization backpressure_active queue_utilization current_ccu normal_ccu \
                     avg_latency_ms p99_latency_ms refusing_utilization";
        let mut expected: Vec<_> = names.split_whitespace().collect();
        expected.sort_unstable();
        let mut keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, expected);
        assert_eq!(json["current_ccu"], 21);
        assert_eq!(json["normal_ccu"], 201);
        assert_eq!(json["target_utilization"], 0.67);
        assert_eq!(json["total_requests"].as_u64(), Some(u64::MAX / 3 * 3));
    }

    #[test]
    fn ready_means_every_check_passes_and_each_failure_has_a_name() {
        let good = metrics(1).readiness(false, WriterHealth::Running);
        assert!(good.is_ready());
        for (bad, name, state) in [
            (Readiness { draining: true, ..good }, "draining", "draining"),
            (Readiness { writer: WriterHealth::Starting, ..good }, "writer", "starting"),
            (Readiness { writer: WriterHealth::Stopped, ..good }, "writer", "stopped"),
            (Readiness { writer: WriterHealth::Poisoned, ..good }, "writer", "failed"),
            (Readiness { writer: WriterHealth::Full, ..good }, "disk", "reserve_reached"),
            (Readiness { utilization: 0.9, ..good }, "utilization", "at_or_above_90_percent"),
            (Readiness { queue_utilization: 0.95, ..good }, "queue", "at_or_above_90_percent"),
        ] {
            assert!(!bad.is_ready());
            let mut text = String::new();
            bad.write_json(&mut text).unwrap();
            assert!(text.len() <= READY_JSON_BYTES_MAX);
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["ready"], false);
            let failing: Vec<_> =
                json["checks"].as_object().unwrap().iter().filter(|(_, state)| *state != "ok").collect();
            assert_eq!(failing, [(&name.to_owned(), &serde_json::json!(state))]);
        }
    }
}
