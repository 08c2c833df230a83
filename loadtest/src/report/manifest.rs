//! Where and how a run was made: what one needs to repeat it, or to know why it cannot be compared. Main thread.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::result::kind_name;
use crate::plan::{Mode, Plan};
use crate::request::{Check, Format, Kind, images};

/// See the module text; the schema in `loadtest/docs/result.md` describes the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the schema describes them")]
pub struct Manifest {
    pub command: String,
    pub version: String,
    pub commit: Option<String>,
    pub started_unix_ms: u64,
    pub seed: u64,
    pub run: String,
    pub kernel: String,
    pub cpu: String,
    pub governor: Option<String>,
    pub cores_online: usize,
    pub generator_cores: Vec<Option<usize>>,
    pub target: String,
    pub mode: String,
    pub schedule: Option<String>,
    pub scenario: Option<String>,
    pub connections: usize,
    pub pipeline: usize,
    pub batch: usize,
    pub format: Format,
    pub encoding: crate::request::Encoding,
    /// Whether bodies were made once and repeated.
    #[serde(default)]
    pub repeats_bodies: bool,
    /// Share of each kind among the requests.
    #[serde(default)]
    pub mix: Option<BTreeMap<String, f64>>,
    #[serde(default)]
    pub check: Option<Check>,
    #[serde(default)]
    pub requests_per_connection: Option<u32>,
    #[serde(default)]
    pub keys: usize,
    #[serde(default)]
    pub slow_readers: usize,
    #[serde(default)]
    pub timeout_s: Option<f64>,
    pub template: String,
    pub event_bytes_mean: f64,
    pub request_bytes_mean: f64,
    pub ack: String,
    pub duration_s: f64,
    pub warmup_s: f64,
    pub interval_s: f64,
}

/// What the plan does not know.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// The command line.
    pub command: String,
    /// The schedule as it was given.
    pub schedule: Option<String>,
    /// The scenario file.
    pub scenario: Option<String>,
    /// What events are made of.
    pub template: String,
}

impl Manifest {
    /// Of a run of `plan` on this machine.
    #[must_use]
    pub fn gather(plan: &Plan, setting: &Setting) -> Self {
        let events = plan.shares.iter().find(|share| share.options.kind == Kind::Events).or(plan.shares.first());
        let request_bytes: f64 = plan.shares.iter().map(|share| share.weight * request_bytes_mean(plan, share)).sum();
        let weights: f64 = plan.shares.iter().map(|share| share.weight).sum();
        Self {
            command: setting.command.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            commit: commit(),
            started_unix_ms: 0,
            seed: plan.seed,
            run: plan.templates.run().text(),
            kernel: read("/proc/sys/kernel/osrelease"),
            cpu: cpu_model(),
            governor: Some(read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"))
                .filter(|text| !text.is_empty()),
            cores_online: std::thread::available_parallelism().map_or(0, usize::from),
            generator_cores: plan.cores.clone(),
            target: plan.target.to_string(),
            mode: match plan.mode {
                Mode::Open { .. } => "open".into(),
                Mode::Closed => "closed".into(),
            },
            schedule: setting.schedule.clone(),
            scenario: setting.scenario.clone(),
            connections: plan.connections,
            pipeline: plan.pipeline,
            batch: events.map_or(0, |share| share.options.batch),
            format: events.map_or(Format::default(), |share| share.options.format),
            encoding: plan.head.encoding,
            repeats_bodies: plan.head.repeats,
            mix: Some(plan.shares.iter().map(|share| (kind_name(share), share.weight / weights)).collect()),
            check: Some(plan.check()),
            requests_per_connection: plan.requests_per_connection,
            keys: plan.keys.len(),
            slow_readers: plan.slow_readers,
            timeout_s: Some(plan.timeout.as_secs_f64()),
            template: setting.template.clone(),
            event_bytes_mean: plan.templates.bytes_mean(),
            request_bytes_mean: request_bytes / weights,
            ack: plan.head.ack.map_or("server default".into(), |ack| ack.token().into()),
            duration_s: plan.duration.as_secs_f64(),
            warmup_s: plan.warmup.as_secs_f64(),
            interval_s: plan.interval.as_secs_f64(),
        }
    }
}

/// Bytes of a kind's request on average, uncompressed.
fn request_bytes_mean(plan: &Plan, share: &crate::plan::Share) -> f64 {
    let images = images(&share.options, &plan.head, &plan.templates);
    images.iter().map(|image| image.bytes.len()).sum::<usize>() as f64 / images.len() as f64
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    line.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Of the working directory's repository, with `+` if files in it were changed; `TIDEGATE_COMMIT` overrides.
fn commit() -> Option<String> {
    if let Ok(commit) = std::env::var("TIDEGATE_COMMIT") {
        return Some(commit);
    }
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    Some(if is_changed { format!("{commit}+") } else { commit })
}
