//! What the admin port shows: counters, writers' states and the plan, shared by reference with the threads that change
//! them. Built at boot, read by the control thread.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::plan::Plan;
use super::tenants::TenantsShown;
use crate::handoff::{WriterFailure, WriterState, WriterStatus};
use crate::metrics::{
    Field, HistogramField, Readiness, SHARD_FIELDS, SHARD_HISTOGRAMS, ServerMetrics, WRITER_FIELDS, WRITER_HISTOGRAMS,
    WriterHealth,
};

/// A running server, as seen from outside its data path.
#[derive(Debug)]
pub struct ServerView {
    /// Every counter.
    pub metrics: Arc<ServerMetrics>,
    /// Every writer's state, by writer number.
    pub writers: Vec<Arc<WriterStatus>>,
    /// What can be seen of tenants.
    pub tenants: Arc<TenantsShown>,
    /// Set once the server is on its way out; shards read it too.
    pub draining: Arc<AtomicBool>,
    /// The plan as JSON.
    pub plan_json: String,
    /// The plan as a table.
    pub plan_text: String,
    /// What shards may come to: their pools and every decompressor at its largest.
    pub memory_planned_bytes: u64,
    /// Size of the log's filesystem at the start.
    pub filesystem_bytes: u64,
    started: Instant,
    started_unix: Duration,
}

impl ServerView {
    /// A view of a server that starts now.
    #[must_use]
    pub fn new(metrics: Arc<ServerMetrics>, writers: Vec<Arc<WriterStatus>>, plan: &Plan) -> Self {
        assert_eq!(metrics.writers.len(), writers.len(), "a state and a block of counters for each writer");
        Self {
            metrics,
            writers,
            tenants: Arc::default(),
            draining: Arc::new(AtomicBool::new(false)),
            plan_json: plan.to_json(),
            plan_text: plan.to_string(),
            memory_planned_bytes: plan.memory.most_bytes(plan.shards.len()),
            filesystem_bytes: plan.host.filesystem.total_bytes,
            started: Instant::now(),
            started_unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// The same with these tenants.
    #[must_use]
    pub fn with_tenants(self, tenants: Arc<TenantsShown>) -> Self {
        Self { tenants, ..self }
    }

    /// Time since the start.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// When it started, since the Unix epoch.
    #[must_use]
    pub fn started_unix(&self) -> Duration {
        self.started_unix
    }

    /// Whether the server is on its way out.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The first writer that failed, and why.
    #[must_use]
    pub fn failure(&self) -> Option<WriterFailure> {
        self.writers.iter().find_map(|status| status.failure())
    }

    /// Why retention removes nothing although it is told to, with the fix; `None` while it does.
    #[must_use]
    pub fn retention_stands_still(&self) -> Option<String> {
        let errno = self.writers.iter().map(|status| status.followers_errno()).find(|errno| *errno != 0)?;
        Some(format!(
            "followers/ in the data directory cannot be read ({}), so retention removes nothing, since a reader might need it: \
             let the server's user read what is in there, or remove it while nobody reads the log",
            std::io::Error::from_raw_os_error(errno)
        ))
    }

    /// Whether new clients should be sent here.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let worst = self.writers.iter().map(|status| health(status.state())).max();
        self.metrics.readiness(self.is_draining(), worst.unwrap_or(WriterHealth::Running))
    }

    /// Every counter of every shard and writer as JSON: `{"shards":[{"shard":0,…}],"writers":[{"writer":0,…}]}`.
    #[must_use]
    pub fn blocks_json(&self) -> String {
        let shards = self.metrics.shards.iter().enumerate();
        let shards: Vec<Value> =
            shards.map(|(id, block)| block_json("shard", id, &**block, SHARD_FIELDS, SHARD_HISTOGRAMS)).collect();
        let writers = self.metrics.writers.iter().zip(&self.writers).enumerate();
        let writers: Vec<Value> = writers
            .map(|(id, (block, status))| {
                let mut json = block_json("writer", id, &**block, WRITER_FIELDS, WRITER_HISTOGRAMS);
                json["state"] = json!(state_name(status.state()));
                json["failure"] = json!(status.failure().map(|failure| failure.to_string()));
                json
            })
            .collect();
        json!({"shards": shards, "writers": writers}).to_string()
    }

    /// The summary as JSON, as shards answer it too.
    #[must_use]
    pub fn summary_json(&self) -> String {
        let mut text = String::new();
        self.metrics.write_json(&mut text).expect("a String has room");
        text
    }

    /// A small page for people: is it well, what does it do, where is more.
    #[must_use]
    pub fn page(&self) -> String {
        let readiness = self.readiness();
        let mut state = String::new();
        readiness.write_json(&mut state).expect("a String has room");
        let mut page = String::from(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"5\">\
             <title>tidegate</title><style>body{font:14px/1.5 monospace;margin:2em;max-width:100ch}\
             pre{white-space:pre-wrap}</style><h1>tidegate</h1>",
        );
        let ready = if readiness.is_ready() { "ready" } else { "not ready" };
        let summary = self.summary_json().replace(",\"", "\n\"").replace(['{', '}'], "");
        let _infallible = writeln!(
            page,
            "<p>{ready}, up {} s</p><pre>{}</pre><h2>Now</h2><pre>{}</pre><h2>Plan</h2><pre>{}</pre>\
             <p><a href=\"/metrics\">/metrics</a> <a href=\"/api/metrics\">/api/metrics</a> \
             <a href=\"/api/shards\">/api/shards</a> <a href=\"/api/plan\">/api/plan</a> \
             <a href=\"/ready\">/ready</a> <a href=\"/health\">/health</a></p></html>",
            self.uptime().as_secs(),
            escape(&state),
            escape(&summary),
            escape(&self.plan_text),
        );
        page
    }
}

/// Paths and addresses in the plan are the operator's, but a page is no place to trust even those.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn health(state: WriterState) -> WriterHealth {
    match state {
        WriterState::Starting => WriterHealth::Starting,
        WriterState::Running => WriterHealth::Running,
        WriterState::Full => WriterHealth::Full,
        WriterState::Poisoned => WriterHealth::Poisoned,
        WriterState::Stopped => WriterHealth::Stopped,
    }
}

/// All states a writer can be in.
pub const WRITER_STATES: [WriterState; 5] =
    [WriterState::Starting, WriterState::Running, WriterState::Full, WriterState::Poisoned, WriterState::Stopped];

/// The name of a writer's state, as metrics and JSON show it.
#[must_use]
pub fn state_name(state: WriterState) -> &'static str {
    match state {
        WriterState::Starting => "starting",
        WriterState::Running => "running",
        WriterState::Full => "full",
        WriterState::Poisoned => "poisoned",
        WriterState::Stopped => "stopped",
    }
}

fn block_json<T>(label: &str, id: usize, block: &T, fields: &[Field<T>], histograms: &[HistogramField<T>]) -> Value {
    let mut json = Map::new();
    json.insert(label.to_owned(), json!(id));
    for field in fields {
        json.insert(field.name.to_owned(), json!((field.of)(block).get()));
    }
    for field in histograms {
        let snapshot = (field.of)(block).snapshot();
        let quantiles = json!({
            "count": snapshot.count(),
            "sum_ns": snapshot.sum_ns(),
            "p50_ns": snapshot.quantile_ns(0.5),
            "p99_ns": snapshot.quantile_ns(0.99),
            "p999_ns": snapshot.quantile_ns(0.999),
        });
        json.insert(field.name.to_owned(), quantiles);
    }
    Value::Object(json)
}
