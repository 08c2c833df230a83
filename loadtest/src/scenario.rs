//! Scenarios: a load's shape over time, its requests and its thresholds, from a TOML file. Main thread.
//!
//! A scenario speaks of clients, as the systems did whose load it reproduces. Here a client is a connection that asks so
//! many times a second, whether the server keeps up or not: clients times their rate is an open-loop schedule, and the
//! number of connections follows the clients.
//!
//! `SCALE` multiplies clients and times, `TIME_SCALE` times alone: a small machine runs the same shape in a minute.

use std::time::Duration;

use serde::Deserialize;

use crate::event::TemplateKind;
use crate::plan::Share;
use crate::quantity;
use crate::report::Limits;
use crate::request::{BATCH_MAX, Format, Kind, KindOptions};
use crate::schedule::{Arrivals, Curve, Piece};

/// A stage is never shorter: an interval must fit.
const STAGE_MIN: Duration = Duration::from_millis(500);
/// Body of an echo.
const ECHO_BYTES: usize = 23_000;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    requests_per_client_per_second: f64,
    #[serde(default)]
    arrivals: ArrivalsName,
    template: Option<TemplateKind>,
    start_clients: u32,
    stage: Vec<Stage>,
    request: Vec<Request>,
    #[serde(default)]
    thresholds: Thresholds,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ArrivalsName {
    Even,
    #[default]
    Poisson,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stage {
    time: String,
    clients: u32,
    /// At once, instead of evenly over the stage.
    #[serde(default)]
    jump: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    kind: Kind,
    weight: f64,
    #[serde(default = "one")]
    batch: usize,
    #[serde(default)]
    format: Format,
}

fn one() -> usize {
    1
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Thresholds {
    p95: Option<String>,
    p99: Option<String>,
    error_rate: Option<f64>,
    #[serde(default)]
    rejections_allowed: bool,
    /// Multiplied by SCALE, as the load is.
    peak_events_per_second: Option<String>,
    recovery: Option<String>,
    recovered_p99: Option<String>,
    throughput_drift: Option<f64>,
    memory_growth_mib_per_minute: Option<f64>,
}

/// A scenario at a scale.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it is, in a sentence.
    pub about: String,
    /// Clients over time.
    pub clients: Curve,
    /// Requests per second over time.
    pub rate: Curve,
    /// How arrivals are drawn.
    pub arrivals: Arrivals,
    /// What events are like, if it says.
    pub template: Option<TemplateKind>,
    /// Kinds of requests.
    pub shares: Vec<Share>,
    /// What the run may come to.
    pub limits: Limits,
}

impl Scenario {
    /// Reads a scenario and scales it.
    ///
    /// # Errors
    /// A sentence that says what cannot be meant.
    pub fn parse(text: &str, scale: f64, time_scale: f64) -> Result<Self, String> {
        for (name, value) in [("SCALE", scale), ("TIME_SCALE", time_scale)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(format!("{name} must be a number above 0, not {value}"));
            }
        }
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        if file.stage.is_empty() || file.request.is_empty() {
            return Err("a scenario needs at least one [[stage]] and one [[request]]".into());
        }
        if file.requests_per_client_per_second <= 0.0 || !file.requests_per_client_per_second.is_finite() {
            return Err("requests_per_client_per_second must be above 0".into());
        }
        let clients = clients(&file, scale, time_scale)?;
        let rate = clients.scaled(file.requests_per_client_per_second);
        rate.check()?;
        Ok(Self {
            rate,
            clients,
            arrivals: match file.arrivals {
                ArrivalsName::Even => Arrivals::Even,
                ArrivalsName::Poisson => Arrivals::Poisson,
            },
            template: file.template,
            shares: file.request.iter().map(share).collect::<Result<_, _>>()?,
            limits: limits(&file.thresholds, scale)?,
            about: file.about,
        })
    }
}

/// Clients at a scale: none stays none, some stay at least one.
fn scaled(clients: u32, scale: f64) -> f64 {
    if clients == 0 { 0.0 } else { (f64::from(clients) * scale).round().max(1.0) }
}

fn clients(file: &File, scale: f64, time_scale: f64) -> Result<Curve, String> {
    let mut before = scaled(file.start_clients, scale);
    let mut pieces = Vec::new();
    for stage in &file.stage {
        // Before it becomes a time: a scale may make more of it than a time can hold.
        let seconds = quantity::duration(&stage.time)?.as_secs_f64() * time_scale;
        if seconds > quantity::TIME_MAX.as_secs_f64() {
            let days = quantity::TIME_MAX.as_secs() / 86_400;
            return Err(format!("a stage of {} times {time_scale} is longer than {days} days", stage.time));
        }
        let time = Duration::from_secs_f64(seconds).max(STAGE_MIN);
        let to = scaled(stage.clients, scale);
        let from = if stage.jump { to } else { before };
        pieces.push(Piece { duration_ns: time.as_nanos() as u64, from, to });
        before = to;
    }
    let curve = Curve::new(pieces);
    if curve.peak() > 0.0 { Ok(curve) } else { Err("no stage has clients".into()) }
}

fn share(request: &Request) -> Result<Share, String> {
    if request.batch == 0 || request.weight <= 0.0 || !request.weight.is_finite() {
        return Err("a request needs a batch and a weight above 0".into());
    }
    if request.batch > BATCH_MAX {
        return Err(format!("a batch is at most {BATCH_MAX} events"));
    }
    if request.format == Format::Single && request.batch != 1 {
        return Err("format 'single' is a batch of 1".into());
    }
    let options = KindOptions {
        kind: request.kind,
        batch: request.batch,
        format: request.format,
        path: None,
        content_type: None,
        echo_bytes: ECHO_BYTES,
    };
    Ok(Share { options, weight: request.weight })
}

fn limits(thresholds: &Thresholds, scale: f64) -> Result<Limits, String> {
    let time = |text: &Option<String>| text.as_deref().map(quantity::duration).transpose();
    let peak = thresholds.peak_events_per_second.as_deref().map(quantity::count).transpose()?;
    Ok(Limits {
        p95: time(&thresholds.p95)?,
        p99: time(&thresholds.p99)?,
        error_rate: thresholds.error_rate,
        rejections_allowed: thresholds.rejections_allowed,
        requests_per_second: None,
        peak_events_per_second: peak.map(|rate| rate * scale.min(1.0)),
        recovery: time(&thresholds.recovery)?,
        recovered_p99: time(&thresholds.recovered_p99)?,
        throughput_drift: thresholds.throughput_drift,
        memory_growth_mib_per_minute: thresholds.memory_growth_mib_per_minute,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        about = "a test"
        requests_per_client_per_second = 5
        start_clients = 10
        [[stage]]
        time = "10s"
        clients = 100
        [[stage]]
        time = "10s"
        clients = 300
        jump = true
        [[request]]
        kind = "events"
        format = "ndjson"
        batch = 10
        weight = 3
        [[request]]
        kind = "health"
        weight = 1
        [thresholds]
        p95 = "100ms"
        peak_events_per_second = "1M"
    "#;

    #[test]
    fn clients_make_the_rate_and_jumps_jump() {
        let scenario = Scenario::parse(TEXT, 1.0, 1.0).unwrap();
        assert!((scenario.clients.at(5_000_000_000) - 55.0).abs() < 1e-6);
        assert!((scenario.rate.at(5_000_000_000) - 275.0).abs() < 1e-6);
        assert!((scenario.clients.at(10_000_000_000) - 300.0).abs() < 1e-6);
        assert_eq!(scenario.shares.len(), 2);
    }

    #[test]
    fn a_scale_shrinks_clients_times_and_rates_but_no_latency() {
        let scenario = Scenario::parse(TEXT, 0.1, 0.2).unwrap();
        assert_eq!(scenario.clients.duration_ns(), 4_000_000_000);
        assert!((scenario.clients.peak() - 30.0).abs() < 1e-6);
        assert_eq!(scenario.limits.peak_events_per_second, Some(100_000.0));
        assert_eq!(scenario.limits.p95, Some(Duration::from_millis(100)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (wrong, right) in [
            ("weight = 3", "weight = 0"),
            ("clients = 100", "clints = 100"),
            ("time = \"10s\"", "time = \"ten\""),
            ("format = \"ndjson\"", "format = \"single\""),
            ("kind = \"health\"", "kind = \"delete\""),
            ("batch = 10", "batch = 1000001"),
            ("per_second = 5", "per_second = 1e8"),
            ("time = \"10s\"", "time = \"9000h\""),
        ] {
            assert!(Scenario::parse(&TEXT.replacen(wrong, right, 1), 1.0, 1.0).is_err(), "{right}");
        }
        for (scale, time_scale) in [(0.0, 1.0), (1e300, 1.0), (1.0, 1e300), (1.0, 2e6)] {
            assert!(Scenario::parse(TEXT, scale, time_scale).is_err(), "{scale}, {time_scale}");
        }
    }
}
