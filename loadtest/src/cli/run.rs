//! `tidegate-load run`: a plan, its run, and everything that is said of it.

use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::load::Times;
use super::outputs::Outputs;
use super::{Exit, Failure, LoadArgs, load, print, typed};
use crate::generator::Shared;
use crate::interrupt::{Interrupt, Signal};
use crate::oracle::{self, Account, log};
use crate::plan::{Mode, Plan};
use crate::quantity;
use crate::report::{self, Limits, Manifest, Point, RunResult, Setting};
use crate::request::Outcome;
use crate::run;
use crate::scenario::Scenario;

/// See the module text.
#[derive(Clone, Debug, Args)]
#[command(args_override_self = true)]
pub(super) struct RunArgs {
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    times: Times,
    /// Shape, requests and thresholds from a file, with the path, content type and template of each; see loadtest/scenarios.
    /// Options that say any of these are refused beside it. Events may come from --events or --replay.
    #[arg(long, value_name = "FILE", help_heading = "Scenario",
        conflicts_with_all = ["rate", "schedule", "duration", "connections", "batch", "format", "malformed", "path",
            "content_type"])]
    scenario: Option<PathBuf>,
    /// Multiplies the scenario's clients and times.
    #[arg(long, env = "SCALE", default_value_t = 1.0, value_name = "FACTOR", help_heading = "Scenario")]
    scale: f64,
    /// Multiplies the scenario's times instead of --scale.
    #[arg(long, env = "TIME_SCALE", value_name = "FACTOR", help_heading = "Scenario")]
    time_scale: Option<f64>,
    /// Look for every acknowledged event in this log afterwards.
    #[arg(long, value_name = "DATA_DIR", help_heading = "Oracle")]
    verify: Option<PathBuf>,
    /// Watch the memory of this process.
    #[arg(long, value_name = "PID", help_heading = "Output")]
    server_pid: Option<u32>,
    /// Write the result as JSON; '-' for standard output.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,
    /// Write the latency distribution for HdrHistogram's plotters, and beside it that from the actual sends as
    /// FILE.uncorrected; '-' for standard output, without the second.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    hgrm: Option<PathBuf>,
    /// Write a report with charts, one file.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    html: Option<PathBuf>,
    /// Print no progress and no summary.
    #[arg(long, short, help_heading = "Output")]
    quiet: bool,
    /// Fail if the 99th percentile of the latency from the intended time is above this.
    #[arg(long, value_parser = quantity::duration, value_name = "TIME", help_heading = "Thresholds")]
    max_p99: Option<Duration>,
    /// Fail if a larger share of the requests than this did not end as it should, as 0.001 or 0.1%.
    #[arg(long, value_parser = quantity::share, value_name = "SHARE", help_heading = "Thresholds")]
    max_error_rate: Option<f64>,
    /// Fail if fewer requests per second than this were answered as they should be.
    #[arg(long, value_parser = quantity::count, value_name = "N", help_heading = "Thresholds")]
    min_rate: Option<f64>,
    /// Leave rejections (429, 503 with Retry-After, 507) out of the error rate.
    #[arg(long, help_heading = "Thresholds")]
    rejections_allowed: bool,
    /// Exit with 0 although the generator was the bottleneck; the result is still marked invalid.
    #[arg(long, help_heading = "Thresholds")]
    allow_bottleneck: bool,
}

/// Does what the options say.
pub(super) fn run(args: &RunArgs) -> Result<Exit, Failure> {
    check_ends(args)?;
    let (plan, limits, setting) = prepare(args)?;
    let plan = Arc::new(plan);
    load::reach(&plan)?;
    let shared = Shared::new(plan.threads());
    let interrupt =
        Interrupt::handle().map_err(|error| Failure::unable(format!("signals cannot be handled: {error}")))?;
    interrupt.stops(&shared);
    let done = run::run(&plan, &shared, &mut watch(&plan, args)).map_err(Failure::unable)?;
    let mut manifest = Manifest::gather(&plan, &setting);
    manifest.started_unix_ms = done.started_unix_ms;
    if let Some(level) = done.totals.ack.as_ref().filter(|level| !level.is_empty() && plan.head.ack.is_none()) {
        manifest.ack = format!("{level} (server default)");
    }
    let mut result = report::make(&plan, &done, manifest, &limits, interrupt.signal());
    let outputs = args.outputs();
    let mut unread = None;
    if let Some(data) = &args.verify {
        // First of all: a log that cannot be read, or a second signal, must not cost what was measured.
        result.verdict_failed = Some("the log was not read to its end".into());
        // What cannot be written now is told when it is written again.
        let _ = outputs.write_early(&result, &done);
        let account = Account { templates: &plan.templates, ledgers: &done.ledgers };
        unread = look(args, data, account, &interrupt, &mut result).err();
    }
    show(args, &result);
    outputs.write(&result, &done)?;
    match unread {
        Some(failure) => Err(failure),
        None => Ok(exit_of(args, &result, interrupt.signal())),
    }
}

/// Looks for what was acknowledged in the log, until a signal comes. One that ended the load has done its part: what was
/// promised until then is looked for to the end.
fn look(
    args: &RunArgs,
    data: &Path,
    account: Account<'_>,
    interrupt: &Interrupt,
    result: &mut RunResult,
) -> Result<(), Failure> {
    let load_was_ended = result.interrupted.is_some();
    let goes_on = || load_was_ended || interrupt.signal().is_none();
    let program = log::program(args.load.tidegate.as_deref());
    let error = match oracle::verify(&program, data, &[account], &goes_on) {
        Ok(verdict) => {
            (result.verdict, result.verdict_failed) = (Some(verdict), None);
            return Ok(());
        }
        Err(error) => error,
    };
    if let Some(signal) = interrupt.signal().filter(|_| !load_was_ended) {
        let name = signal.name();
        result.interrupted = Some(name.into());
        result.verdict_failed = Some(format!("{name} came before the log was read to its end"));
        return Ok(());
    }
    result.verdict_failed = Some(error.clone());
    Err(Failure::unable(format!("the log could not be looked at: {error}")))
}

impl RunArgs {
    fn outputs(&self) -> Outputs<'_> {
        Outputs { json: self.json.as_deref(), hgrm: self.hgrm.as_deref(), html: self.html.as_deref() }
    }
}

/// Refuses before the load what would fail behind it.
fn check_ends(args: &RunArgs) -> Result<(), Failure> {
    args.outputs().check()?;
    if let Some(pid) = args.server_pid.filter(|pid| resident_bytes(*pid).is_none()) {
        return Err(Failure::usage(format!("--server-pid {pid}: no process whose memory can be watched")));
    }
    let Some(data) = &args.verify else { return Ok(()) };
    std::fs::read_dir(data)
        .map_err(|error| Failure::usage(format!("--verify {}: no log can be read there: {error}", data.display())))?;
    log::check_program(&log::program(args.load.tidegate.as_deref())).map_err(Failure::usage)
}

/// The plan, the limits and what the manifest says of them.
fn prepare(args: &RunArgs) -> Result<(Plan, Limits, Setting), Failure> {
    let own = Limits {
        p99: args.max_p99,
        error_rate: args.max_error_rate,
        requests_per_second: args.min_rate,
        rejections_allowed: args.rejections_allowed,
        ..Limits::default()
    };
    let mut setting = Setting {
        command: typed(),
        schedule: args.load.schedule_name(),
        scenario: None,
        template: args.load.template_name(),
    };
    let Some(file) = &args.scenario else {
        return Ok((args.load.plan(&args.times, args.verify.is_some())?, own, setting));
    };
    let time_scale = args.time_scale.unwrap_or(args.scale);
    let scenario = Scenario::parse(&load::read_file(file)?, args.scale, time_scale)
        .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    if !args.quiet {
        eprintln!("{}", scenario.about);
    }
    let mut load = args.load.clone();
    load.connections = scenario.clients.peak().ceil() as usize;
    let times = Times { duration: Duration::from_nanos(scenario.clients.duration_ns()), ..args.times.clone() };
    if scenario.template.is_some() && load.template.is_some() {
        let why = "--template: the file of --scenario brings its own; leave one of the two out";
        return Err(Failure::usage(why));
    }
    load.template = scenario.template.or(load.template);
    setting.template = load.template_name();
    setting.scenario = Some(format!("{} at scale {}, times {time_scale}", file.display(), args.scale));
    let mut plan = load.plan(&times, args.verify.is_some())?;
    let warmup_ns = plan.warmup_ns();
    plan.mode = Mode::Open { curve: scenario.rate.after_warmup(warmup_ns), arrivals: scenario.arrivals };
    plan.clients = Some(scenario.clients.after_warmup(warmup_ns));
    plan.shares = scenario.shares;
    Ok((plan, scenario.limits.overridden_by(own), setting))
}

/// Looks at the server's memory at each interval and shows the interval: over the last one on a terminal, below it in
/// a file.
fn watch(plan: &Plan, args: &RunArgs) -> impl FnMut(&mut Point) + use<> {
    let is_terminal = std::io::stderr().is_terminal();
    let whole = plan.warmup + plan.duration;
    let (quiet, server) = (args.quiet, args.server_pid);
    move |point: &mut Point| {
        point.server_rss_bytes = server.and_then(resident_bytes);
        if quiet || (point.drain && point.requests + point.errors + point.rejected == 0) {
            return;
        }
        let left = whole.saturating_sub(Duration::from_secs_f64(point.to_s));
        let line = report::progress(point, left);
        let mut out = std::io::stderr().lock();
        let _ = if is_terminal { write!(out, "\r\x1b[K{line}") } else { writeln!(out, "{line}") };
        let _ = out.flush();
    }
}

/// Resident memory of a process; `None` once it has ended.
fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn show(args: &RunArgs, result: &RunResult) {
    if args.quiet {
        return;
    }
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    let summary = report::summary(result);
    if args.outputs().is_printed() {
        eprint!("{summary}");
    } else {
        print(&summary);
    }
}

fn exit_of(args: &RunArgs, result: &RunResult, signal: Option<Signal>) -> Exit {
    if result.verdict.as_ref().is_some_and(|verdict| !verdict.sound) {
        return Exit::Unsound;
    }
    // Thresholds are for the whole load.
    if let Some(signal) = signal.filter(|_| result.interrupted.is_some()) {
        return Exit::Interrupted(signal);
    }
    if result.thresholds.iter().any(|threshold| !threshold.passed) {
        return Exit::Missed;
    }
    if result.outcomes_that(Outcome::is_good) == 0 {
        eprintln!("tidegate-load: no request was answered as it should be");
        return Exit::Unable;
    }
    let is_allowed = args.allow_bottleneck && result.is_only_generator_bound();
    if result.valid || is_allowed { Exit::Ok } else { Exit::Invalid }
}
