//! `tidegate-load run`: a plan, its run, and everything that is said of it.

use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;

use super::{Exit, Failure, LoadArgs, load, print, typed, write_file};
use crate::generator::Shared;
use crate::oracle::{self, Account, log};
use crate::plan::{Mode, Plan};
use crate::quantity;
use crate::report::{self, Limits, Manifest, Point, RunResult, Setting};
use crate::request::Outcome;
use crate::run::{self, Run};
use crate::scenario::Scenario;

/// See the module text.
#[derive(Clone, Debug, Args)]
#[command(args_override_self = true)]
pub(super) struct RunArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Shape, requests and thresholds from a file; see loadtest/scenarios.
    #[arg(long, value_name = "FILE", help_heading = "Scenario",
        conflicts_with_all = ["rate", "schedule", "duration", "connections", "batch", "format", "malformed"])]
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
    /// FILE.uncorrected.
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
    let (plan, limits, setting) = prepare(args)?;
    let plan = Arc::new(plan);
    load::reach(&plan)?;
    let shared = Shared::new(plan.threads());
    end_on_signal(&shared)?;
    let done = run::run(&plan, &shared, &mut watch(&plan, args)).map_err(Failure::unable)?;
    let mut manifest = Manifest::gather(&plan, &setting);
    manifest.started_unix_ms = done.started_unix_ms;
    if let Some(level) = done.totals.ack.as_ref().filter(|level| !level.is_empty() && plan.head.ack.is_none()) {
        manifest.ack = format!("{level} (server default)");
    }
    let mut result = report::make(&plan, &done, manifest, &limits);
    if let Some(data) = &args.verify {
        let account = Account { templates: &plan.templates, ledgers: &done.ledgers };
        let program = log::program(args.load.tidegate.as_deref());
        result.verdict = Some(oracle::verify(&program, data, &[account]).map_err(Failure::unable)?);
    }
    write_outputs(args, &result, &done)?;
    Ok(exit_of(args, &result))
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
        schedule: args.load.schedule.clone().or(args.load.rate.map(|rate| format!("constant {rate}/s"))),
        scenario: None,
        template: args.load.template_name(),
    };
    let Some(file) = &args.scenario else {
        return Ok((args.load.plan(args.verify.is_some())?, own, setting));
    };
    let time_scale = args.time_scale.unwrap_or(args.scale);
    let scenario = Scenario::parse(&load::read_file(file)?, args.scale, time_scale)
        .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    if !args.quiet {
        eprintln!("{}", scenario.about);
    }
    let mut load = args.load.clone();
    load.connections = scenario.clients.peak().ceil() as usize;
    load.duration = Duration::from_nanos(scenario.clients.duration_ns());
    load.template = scenario.template.unwrap_or(load.template);
    setting.template = load.template_name();
    setting.scenario = Some(format!("{} at scale {}, times {time_scale}", file.display(), args.scale));
    let mut plan = load.plan(args.verify.is_some())?;
    let warmup_ns = plan.warmup_ns();
    plan.mode = Mode::Open { curve: scenario.rate.after_warmup(warmup_ns), arrivals: scenario.arrivals };
    plan.clients = Some(scenario.clients.after_warmup(warmup_ns));
    plan.shares = scenario.shares;
    Ok((plan, scenario.limits.overridden_by(own), setting))
}

/// Ends the load at the first signal, so that an interrupted run still says what it saw; the second one kills.
fn end_on_signal(shared: &Arc<Shared>) -> Result<(), Failure> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGINT, libc::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&asked))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&asked)))
            .map_err(|error| Failure::unable(format!("signals cannot be handled: {error}")))?;
    }
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        while !asked.load(Ordering::Relaxed) {
            std::thread::park_timeout(Duration::from_millis(50));
        }
        shared.stop.store(true, Ordering::Relaxed);
    });
    Ok(())
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

fn write_outputs(args: &RunArgs, result: &RunResult, done: &Run) -> Result<(), Failure> {
    if !args.quiet {
        if std::io::stderr().is_terminal() {
            eprintln!();
        }
        let summary = report::summary(result);
        if args.json.as_deref() == Some(Path::new("-")) {
            // Standard output is the JSON's.
            eprint!("{summary}");
        } else {
            print(&summary);
        }
    }
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(result).expect("a result has string keys only");
        write_file(path, &format!("{json}\n"))?;
    }
    let totals = &done.totals;
    if let Some(path) = &args.hgrm {
        write_file(path, &report::hgrm(&totals.corrected))?;
        let mut beside = path.clone().into_os_string();
        beside.push(".uncorrected");
        write_file(Path::new(&beside), &report::hgrm(&totals.uncorrected))?;
    }
    if let Some(path) = &args.html {
        write_file(path, &report::html(result, &totals.corrected, &totals.uncorrected))?;
    }
    Ok(())
}

fn exit_of(args: &RunArgs, result: &RunResult) -> Exit {
    if result.verdict.as_ref().is_some_and(|verdict| !verdict.sound) {
        return Exit::Unsound;
    }
    if result.thresholds.iter().any(|threshold| !threshold.passed) {
        return Exit::Missed;
    }
    if result.outcomes_that(Outcome::is_good) == 0 {
        eprintln!("tidegate-load: no request was answered as it should be");
        return Exit::Unable;
    }
    if !result.valid && !args.allow_bottleneck { Exit::Invalid } else { Exit::Ok }
}
