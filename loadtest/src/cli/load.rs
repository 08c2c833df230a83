//! Options that describe a load, shared by `run` and `crash`, and the plan made from them.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

use super::Failure;
use crate::event::{Run, TEMPLATES_MAX, THREADS_MAX, TemplateKind, Templates};
use crate::generator::PIPELINE_MAX;
use crate::oracle::log;
use crate::plan::{CONNECTIONS_MAX, Mode, Plan, Share};
use crate::quantity;
use crate::random::Random;
use crate::request::{Ack, BATCH_MAX, Check, Encoding, Format, HeadOptions, Kind, KindOptions, field};
use crate::schedule::{Arrivals, Curve};
use crate::sys::thread;

/// Descriptors beside those of connections.
const DESCRIPTORS_BESIDE: u64 = 64;
/// Bytes of a log that are replayed.
const REPLAY_BYTES_MAX: usize = 256 << 20;
/// How long the target may take to accept the connection that is tried first.
const REACH_WITHIN: Duration = Duration::from_secs(5);
/// A key longer than this is not a key.
const KEY_BYTES_MAX: usize = 512;

/// See the module text.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// Where the server listens, HOST:PORT.
    #[arg(long, env = "TIDEGATE_LOAD_TARGET", default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub target: String,
    /// Requests per second, up to 1G. Makes an open loop; without it and without --schedule the loop is closed.
    #[arg(long, value_parser = quantity::count, value_name = "N")]
    pub rate: Option<f64>,
    /// Rate over time: constant, step:RATE@TIME/RATE@TIME, ramp:FROM-TO or spike:BASE-PEAK; 'poisson' or 'poisson,SHAPE'
    /// draws random arrivals.
    #[arg(long, value_name = "SHAPE")]
    pub schedule: Option<String>,
    /// How long one answer is waited for.
    #[arg(long, value_parser = quantity::duration, default_value = "10s", value_name = "TIME")]
    pub timeout: Duration,
    /// Connections, over all cores; up to a million.
    #[arg(long, short, default_value_t = 64, value_name = "N")]
    pub connections: usize,
    /// Requests under way on one connection.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub pipeline: usize,
    /// Events per request, up to a million.
    #[arg(long, default_value_t = 200, value_name = "N")]
    pub batch: usize,
    /// How events stand in a body; 'single' means --batch 1.
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    pub format: Format,
    /// Compression of bodies.
    #[arg(long, value_enum, default_value_t = Encoding::Identity)]
    pub encoding: Encoding,
    /// Make a few bodies beforehand and send them again and again, so that compressed ones cost the generator next to
    /// nothing. Events repeat, so the log cannot be verified.
    #[arg(long)]
    pub repeat_bodies: bool,
    /// Level at which requests ask to be acknowledged; without it the server's default.
    #[arg(long, value_enum)]
    pub ack: Option<Ack>,
    /// What events are like; without it attribution.
    #[arg(long, value_enum)]
    pub template: Option<TemplateKind>,
    /// Events from a file, one JSON object a line, each with a load_id put in front.
    #[arg(long, value_name = "FILE", conflicts_with = "template")]
    pub events: Option<PathBuf>,
    /// Events from a tidegate log, by 'tidegate cat'; up to a million of them.
    #[arg(long, value_name = "DATA_DIR", conflicts_with_all = ["template", "events"])]
    pub replay: Option<PathBuf>,
    /// API keys, one a line; the first is used most.
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// Skew of the keys: Zipf's exponent, 0 for none.
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    pub key_skew: f64,
    /// Requests after which a connection is closed and another opened.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub requests_per_connection: Option<u32>,
    /// Connections that read 64 bytes ten times a second, beside the others; up to a million.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub slow_readers: usize,
    /// Share of the requests that carry a malformed event, as 0.01 or 1%.
    #[arg(long, value_parser = quantity::share, default_value = "0", value_name = "SHARE")]
    pub malformed: f64,
    /// Cores of the generator's threads, one thread each, as 0,2-5. Without it: one thread on the last core allowed.
    #[arg(long, value_parser = parse_cores, value_name = "LIST")]
    pub cores: Option<Cores>,
    /// What everything random comes from.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Another path than the format's own: other servers.
    #[arg(long, value_parser = field::path, value_name = "PATH")]
    pub path: Option<String>,
    /// Another content type than the format's own.
    #[arg(long, value_parser = field::value, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// More header lines, as 'Name: value', but for those that are written anyway; may be repeated.
    #[arg(long = "header", value_parser = field::line, value_name = "LINE")]
    pub headers: Vec<String>,
    /// How closely answers are looked at: as tidegate promises them, any 2xx, or not waited for at all.
    #[arg(long, value_enum, default_value_t = Check::Tidegate)]
    pub check: Check,
    /// The tidegate program that reads logs. Without it: the one beside this program, or on PATH.
    #[arg(long, env = "TIDEGATE_BIN", value_name = "PROGRAM")]
    pub tidegate: Option<PathBuf>,
}

/// How long a load is measured, and what is around that.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Times")]
pub struct Times {
    /// Measured time. A step schedule brings its own.
    #[arg(long, value_parser = quantity::duration, default_value = "10s", value_name = "TIME")]
    pub duration: Duration,
    /// Load before measuring begins.
    #[arg(long, value_parser = quantity::duration, default_value = "1s", value_name = "TIME")]
    pub warmup: Duration,
    /// How long answers are waited for at the end, also at that which SIGINT or SIGTERM brings: of a server that hangs, all of
    /// this. A second signal ends the process at once, and its result is lost.
    #[arg(long, value_parser = quantity::duration, default_value = "10s", value_name = "TIME")]
    pub drain: Duration,
    /// Length of an interval of the time series.
    #[arg(long, value_parser = quantity::duration, default_value = "1s", value_name = "TIME")]
    pub interval: Duration,
}

/// A list of cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores(pub Vec<usize>);

fn parse_cores(text: &str) -> Result<Cores, String> {
    quantity::cores(text).map(Cores)
}

impl LoadArgs {
    /// The plan these options mean, for so long. `keeps_ledger`: what is acknowledged is remembered.
    ///
    /// # Errors
    /// [`Failure`] with the option that cannot be and what to do about it, or if nothing answers at the target.
    pub fn plan(&self, times: &Times, keeps_ledger: bool) -> Result<Plan, Failure> {
        let target = self.resolve()?;
        let cores = self.generator_cores()?;
        let keys = self.read_keys()?;
        let (mode, duration) = self.mode(times)?;
        if self.repeat_bodies && keeps_ledger {
            let why = "--repeat-bodies: events that repeat cannot be looked for; leave it out, or --verify";
            return Err(Failure::usage(why.to_owned()));
        }
        if self.check == Check::Nothing && keeps_ledger {
            let why = "--check nothing: what nobody waits for is not acknowledged, and cannot be looked for";
            return Err(Failure::usage(why));
        }
        let shares = self.shares()?;
        let run = new_run(self.seed);
        let templates = Arc::new(self.templates(run)?);
        let plan = Plan {
            target,
            mode,
            clients: None,
            connections: self.connections,
            pipeline: self.pipeline,
            requests_per_connection: self.requests_per_connection,
            head: HeadOptions {
                host: self.target.clone(),
                ack: self.ack,
                encoding: self.encoding,
                repeats: self.repeat_bodies,
                key_bytes: keys.iter().map(String::len).max().unwrap_or(0),
                may_close: self.requests_per_connection.is_some(),
                headers: self.headers.clone(),
                check: self.check,
            },
            shares,
            keys,
            key_skew: self.key_skew,
            templates,
            warmup: times.warmup,
            duration,
            drain: times.drain,
            timeout: self.timeout,
            interval: times.interval,
            seed: self.seed,
            cores,
            slow_readers: self.slow_readers,
            keeps_ledger,
        };
        check(&plan)?;
        Ok(plan)
    }

    /// What events are made of, in a word.
    #[must_use]
    pub fn template_name(&self) -> String {
        match (&self.events, &self.replay) {
            (Some(file), _) => format!("file {}", file.display()),
            (_, Some(data)) => format!("replay {}", data.display()),
            _ => clap::ValueEnum::to_possible_value(&self.template.unwrap_or_default())
                .map_or(String::new(), |value| value.get_name().into()),
        }
    }

    /// The schedule in words, with its rate; `None` for a closed loop.
    #[must_use]
    pub fn schedule_name(&self) -> Option<String> {
        let constant = self.rate.map(|rate| format!("constant {rate}/s"));
        match self.schedule.as_deref() {
            None | Some("constant") => constant,
            Some("poisson" | "poisson,constant") => constant.map(|constant| format!("poisson,{constant}")),
            Some(shape) => Some(shape.to_owned()),
        }
    }

    /// Events per request: a single one has no choice.
    #[must_use]
    pub fn batch(&self) -> usize {
        if self.format == Format::Single { 1 } else { self.batch }
    }

    fn resolve(&self) -> Result<SocketAddr, Failure> {
        let mut addresses = self
            .target
            .to_socket_addrs()
            .map_err(|error| Failure::usage(format!("--target {}: {error}; expected HOST:PORT", self.target)))?;
        addresses.next().ok_or_else(|| Failure::usage(format!("--target {}: no address", self.target)))
    }

    fn generator_cores(&self) -> Result<Vec<Option<usize>>, Failure> {
        let allowed = thread::allowed_cores();
        let Some(Cores(cores)) = &self.cores else {
            return Ok(vec![allowed.last().copied()]);
        };
        if let Some(core) = cores.iter().find(|core| !allowed.contains(core)) {
            return Err(Failure::usage(format!("--cores: this process may not use core {core}, only {allowed:?}")));
        }
        Ok(cores.iter().copied().map(Some).collect())
    }

    fn read_keys(&self) -> Result<Vec<String>, Failure> {
        let Some(file) = &self.keys else { return Ok(Vec::new()) };
        let text = read_file(file)?;
        let keys: Vec<String> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        let is_key = |key: &String| key.len() <= KEY_BYTES_MAX && key.bytes().all(|byte| byte.is_ascii_graphic());
        match keys.iter().position(|key| !is_key(key)) {
            Some(at) => Err(Failure::usage(format!("--keys {}: key {} is no header value", file.display(), at + 1))),
            None if keys.is_empty() => Err(Failure::usage(format!("--keys {}: no key in it", file.display()))),
            None => Ok(keys),
        }
    }

    fn mode(&self, times: &Times) -> Result<(Mode, Duration), Failure> {
        let Some(text) = self.schedule.as_deref().or(self.rate.map(|_| "constant")) else {
            return Ok((Mode::Closed, times.duration));
        };
        let (arrivals, shape) = match text.split_once(',') {
            Some(("poisson", shape)) => (Arrivals::Poisson, shape),
            None if text == "poisson" => (Arrivals::Poisson, "constant"),
            _ => (Arrivals::Even, text),
        };
        let curve = Curve::parse(shape, self.rate, times.duration.as_nanos() as u64)
            .map_err(|error| Failure::usage(error.to_string()))?;
        if let Some(rate) = self.rate.filter(|_| shape != "constant") {
            let why = format!("--rate {rate}: schedule '{shape}' brings its own rates; leave one of the two out");
            return Err(Failure::usage(why));
        }
        let duration = Duration::from_nanos(curve.duration_ns());
        Ok((Mode::Open { curve: curve.after_warmup(times.warmup.as_nanos() as u64), arrivals }, duration))
    }

    fn shares(&self) -> Result<Vec<Share>, Failure> {
        if self.malformed > 0.0 && self.check == Check::Nothing {
            return Err(Failure::usage("--malformed needs answers to be judged: leave out --check nothing"));
        }
        let options = |kind| KindOptions {
            kind,
            batch: self.batch(),
            format: self.format,
            path: self.path.clone(),
            content_type: self.content_type.clone(),
            echo_bytes: 0,
        };
        let mut shares = Vec::new();
        if self.malformed < 1.0 {
            shares.push(Share { options: options(Kind::Events), weight: 1.0 - self.malformed });
        }
        if self.malformed > 0.0 {
            shares.push(Share { options: options(Kind::Malformed), weight: self.malformed });
        }
        Ok(shares)
    }

    fn templates(&self, run: Run) -> Result<Templates, Failure> {
        if let Some(data) = &self.replay {
            return self.replayed(data, run);
        }
        let Some(file) = &self.events else {
            return Ok(Templates::generated(self.template.unwrap_or_default(), run, self.seed));
        };
        let text = std::fs::read(file).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
        Templates::of_lines(text.split(|byte| *byte == b'\n'), run)
            .map_err(|error| Failure::usage(format!("--events {}: {error}", file.display())))
    }

    /// The first events of a log.
    fn replayed(&self, data: &Path, run: Run) -> Result<Templates, Failure> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        log::read(&log::program(self.tidegate.as_deref()), data, &|| true, |line| {
            bytes += line.len();
            lines.push(line.to_vec());
            lines.len() < TEMPLATES_MAX && bytes < REPLAY_BYTES_MAX
        })
        .map_err(Failure::unable)?;
        Templates::of_lines(lines.iter().map(Vec::as_slice), run)
            .map_err(|error| Failure::usage(format!("--replay {}: {error}", data.display())))
    }
}

/// A file's text.
pub(super) fn read_file(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))
}

/// Tells this run's events from those of earlier ones with the same seed.
fn new_run(seed: u64) -> Run {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    Run(Random::new(seed ^ now, u64::from(std::process::id())).next_u64() as u32)
}

/// What cannot be, before it is tried.
fn check(plan: &Plan) -> Result<(), Failure> {
    let has_header = |name: &str| plan.head.headers.iter().any(|line| field::is_named(line, name));
    let limits = [
        (
            plan.connections == 0 || plan.connections > CONNECTIONS_MAX,
            format!("--connections must be from 1 to {CONNECTIONS_MAX}"),
        ),
        (plan.slow_readers > CONNECTIONS_MAX, format!("--slow-readers must be at most {CONNECTIONS_MAX}")),
        (plan.pipeline == 0 || plan.pipeline > PIPELINE_MAX, format!("--pipeline must be from 1 to {PIPELINE_MAX}")),
        (
            plan.shares.iter().any(|share| share.options.batch == 0 || share.options.batch > BATCH_MAX),
            format!("--batch must be from 1 to {BATCH_MAX}"),
        ),
        (plan.threads() > THREADS_MAX, format!("--cores: at most {THREADS_MAX} generator threads")),
        (
            plan.threads() > plan.connections,
            format!("--connections {}: each of {} threads needs one", plan.connections, plan.threads()),
        ),
        (plan.duration.is_zero(), "--duration must be above 0".to_owned()),
        (plan.timeout.is_zero(), "--timeout must be above 0".to_owned()),
        (plan.interval < Duration::from_millis(10), "--interval must be at least 10ms".to_owned()),
        (!plan.key_skew.is_finite() || plan.key_skew < 0.0, "--key-skew must be 0 or more".to_owned()),
        (plan.head.ack.is_some() && has_header("x-ack"), "--header X-Ack: --ack writes it already".to_owned()),
        (!plan.keys.is_empty() && has_header("x-api-key"), "--header X-API-Key: --keys writes it already".to_owned()),
    ];
    if let Some((_, text)) = limits.into_iter().find(|(is_wrong, _)| *is_wrong) {
        return Err(Failure::usage(text));
    }
    check_bodies(plan)?;
    thread::allow_descriptors((plan.connections + plan.slow_readers) as u64 + DESCRIPTORS_BESIDE)
        .map_err(Failure::unable)
}

fn check_bodies(plan: &Plan) -> Result<(), Failure> {
    let check = |share: &Share| share.options.check_body(plan.head.encoding, &plan.templates);
    plan.shares.iter().try_for_each(check).map_err(Failure::usage)
}

/// Whether what is to be sent can be, also of a scenario, which brings its own requests; and whether anything answers at
/// the target, before thousands of connections ask.
pub(super) fn reach(plan: &Plan) -> Result<(), Failure> {
    check_bodies(plan)?;
    TcpStream::connect_timeout(&plan.target, REACH_WITHIN)
        .map(drop)
        .map_err(|error| Failure::unable(format!("nothing answers at {}: {error}", plan.target)))
}
