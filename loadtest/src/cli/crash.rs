//! `tidegate-load crash`: rounds of load, kill -9, restart, oracle.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::load::Times;
use super::outputs::check_outputs;
use super::{Exit, Failure, LoadArgs, print, write_file};
use crate::crash::{self, Crash, CrashResult, Round};
use crate::interrupt::Interrupt;
use crate::oracle::log;
use crate::quantity;
use crate::report::show_verdict;
use crate::request::Ack;

/// See the module text.
#[derive(Clone, Debug, Args)]
#[command(args_override_self = true)]
pub(super) struct CrashArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Kills, those during recovery not counted.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The server's command line, as 'tidegate serve --data DIR --listen ADDR'; it must be able to start again.
    #[arg(long, value_name = "COMMAND")]
    server: String,
    /// The server's data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Longest time under load before a kill; it counts from the round's first acknowledgement, or from 10 s on.
    #[arg(long, value_parser = quantity::duration, default_value = "1s", value_name = "TIME")]
    load_max: Duration,
    /// Where the server's output goes.
    #[arg(long, default_value = "tidegate-load-crash.log", value_name = "FILE")]
    server_log: PathBuf,
    /// Write what was found as JSON; '-' for standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Does what the options say.
pub(super) fn run(args: &CrashArgs) -> Result<Exit, Failure> {
    check(args)?;
    let interrupt =
        Interrupt::handle().map_err(|error| Failure::unable(format!("signals cannot be handled: {error}")))?;
    let crash = Crash {
        rounds: args.rounds,
        server: args.server.clone(),
        data: args.data.clone(),
        tidegate: log::program(args.load.tidegate.as_deref()),
        load_max: args.load_max,
        seed: args.load.seed,
        server_log: args.server_log.clone(),
        interrupt: interrupt.clone(),
    };
    // The kill ends each load; its own duration must not come first. Nothing is measured.
    let times = Times {
        duration: args.load_max * 2 + Duration::from_secs(60),
        warmup: Duration::ZERO,
        drain: Duration::from_secs(2),
        interval: Duration::from_secs(1),
    };
    let load = &args.load;
    let first = load.plan(&times, true)?;
    if crash::is_taken(first.target) {
        let why = format!("--target {}: something listens there before --server was started", load.target);
        return Err(Failure::usage(why));
    }
    let mut first = Some(first);
    let mut plan = || match first.take() {
        Some(plan) => Ok(plan),
        None => load.plan(&times, true).map_err(|failure| failure.text),
    };
    let found = crash::crash(&crash, &mut plan, &mut show_round);
    show(args, &found);
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&found).expect("a result has string keys only");
        write_file(path, &format!("{json}\n"))?;
    }
    let is_wrong = found.found_wrong();
    match (found.failed, interrupt.signal().filter(|_| found.interrupted.is_some())) {
        _ if is_wrong => Ok(Exit::Unsound),
        (_, Some(signal)) => Ok(Exit::Interrupted(signal)),
        (Some(failed), _) => Err(Failure::unable(failed)),
        _ => Ok(Exit::Ok),
    }
}

/// Refuses what would call a sound server unsound, or a server that was not tried sound.
fn check(args: &CrashArgs) -> Result<(), Failure> {
    if args.load_max < crash::LOAD_MIN {
        let least = crash::LOAD_MIN.as_millis();
        return Err(Failure::usage(format!("--load-max must be at least {least}ms: a kill needs a load")));
    }
    if args.load.ack == Some(Ack::Memory) {
        let why = "--ack memory: such events a crash loses by definition; use durable or written";
        return Err(Failure::usage(why));
    }
    let shape = args.load.schedule.as_deref().unwrap_or("constant");
    if !matches!(shape, "constant" | "poisson" | "poisson,constant") {
        let why = format!(
            "--schedule {shape}: the kill comes at a random time, long before its end; use constant or poisson"
        );
        return Err(Failure::usage(why));
    }
    // A log named '-' is a file.
    let log = Path::new(".").join(&args.server_log);
    let json = args.json.as_deref().map(|path| ("--json", path));
    check_outputs(&json.into_iter().chain([("--server-log", log.as_path())]).collect::<Vec<_>>())?;
    log::check_program(&log::program(args.load.tidegate.as_deref())).map_err(Failure::usage)
}

fn show_round(round: &Round) {
    let again = if round.killed_again { ", killed again while recovering" } else { "" };
    let refused = match round.refused_starts {
        0 => String::new(),
        count => format!(" at start {}", count + 1),
    };
    eprintln!(
        "round {:>3}: killed after {} ms{again}, ready after {} ms{refused}, {} acked · {}",
        round.round,
        round.load_ms,
        round.ready_after_ms,
        round.acked_in_round,
        show_verdict(&round.verdict)
    );
    for example in &round.verdict.examples {
        eprintln!("           {example}");
    }
}

fn show(args: &CrashArgs, found: &CrashResult) {
    let lost: u64 = found.rounds.iter().map(|round| round.verdict.lost).max().unwrap_or(0);
    let mut text = format!("{} rounds, {} kills: ", found.rounds.len(), found.kills);
    text += match (found.sound, found.found_wrong()) {
        (true, _) => "SOUND",
        (false, true) => "NOT SOUND",
        (false, false) => "NOT DONE",
    };
    if let Some(signal) = &found.interrupted {
        let data = if found.data_removed { "removed" } else { "kept" };
        text += &format!(" · INTERRUPTED by {signal}, {} rounds were planned · data {data}", args.rounds);
    }
    if let Some(last) = &found.last {
        text += &format!(" · after an orderly end: {}", show_verdict(last));
    }
    text += &format!(" · most lost in any round: {lost}");
    if let Some(is_sound) = found.log_is_sound {
        text += if is_sound { " · tidegate verify: sound" } else { " · tidegate verify: DAMAGED" };
    }
    if args.json.as_deref() == Some(Path::new("-")) {
        eprintln!("{text}");
    } else {
        print(&format!("{text}\n"));
    }
}
