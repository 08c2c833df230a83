//! `tidegate-load crash`: rounds of load, kill -9, restart, oracle.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Exit, Failure, LoadArgs, print, write_file};
use crate::crash::{self, Crash, CrashResult, Round};
use crate::oracle::log;
use crate::quantity;
use crate::report::show_verdict;

/// See the module text.
#[derive(Clone, Debug, Args)]
#[command(args_override_self = true)]
pub(super) struct CrashArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Kills, those during recovery not counted.
    #[arg(long, default_value_t = 10, value_name = "N")]
    rounds: u32,
    /// The server's command line, as 'tidegate serve --data DIR --listen ADDR'; it must be able to start again.
    #[arg(long, value_name = "COMMAND")]
    server: String,
    /// The server's data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Longest time under load before a kill.
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
    let crash = Crash {
        rounds: args.rounds,
        server: args.server.clone(),
        data: args.data.clone(),
        tidegate: log::program(args.load.tidegate.as_deref()),
        load_max: args.load_max,
        seed: args.load.seed,
        server_log: args.server_log.clone(),
    };
    // The kill ends each load; its own duration must not come first. Nothing is measured.
    let mut load = args.load.clone();
    load.duration = args.load_max * 2 + Duration::from_secs(60);
    load.warmup = Duration::ZERO;
    load.drain = Duration::from_secs(2);
    let first = load.plan(true)?;
    let mut first = Some(first);
    let mut plan = || match first.take() {
        Some(plan) => Ok(plan),
        None => load.plan(true).map_err(|failure| failure.text),
    };
    let found = crash::crash(&crash, &mut plan, &mut show_round).map_err(Failure::unable)?;
    show(&found);
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&found).expect("a result has string keys only");
        write_file(path, &format!("{json}\n"))?;
    }
    Ok(if found.sound { Exit::Ok } else { Exit::Unsound })
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

fn show(found: &CrashResult) {
    let lost: u64 = found.rounds.iter().map(|round| round.verdict.lost).max().unwrap_or(0);
    print(&format!(
        "{} rounds, {} kills: {} · after an orderly end: {} · most lost in any round: {lost} · tidegate verify: {}\n",
        found.rounds.len(),
        found.kills,
        if found.sound { "SOUND" } else { "NOT SOUND" },
        show_verdict(&found.last),
        if found.log_is_sound { "sound" } else { "DAMAGED" }
    ));
}
