//! `tidegate-load compare`: whether one result is worse than another.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Exit, Failure, load, print};
use crate::quantity;
use crate::report::RunResult;
use crate::report::compare::{Meaning, compare, show};
use crate::report::likeness;
use crate::report::standing::{self, Fault};

/// See the module text.
#[derive(Clone, Debug, Args)]
pub(super) struct CompareArgs {
    /// The first side: results of `run --json`, one or several in one file or in files joined by commas.
    #[arg(value_name = "BASE")]
    base: String,
    /// The second side, likewise.
    #[arg(value_name = "NEW")]
    new: String,
    /// The share by which a quantity may differ; what the runs scatter is allowed beyond it.
    #[arg(long, value_parser = quantity::share, default_value = "5%", value_name = "SHARE")]
    threshold: f64,
    /// Also fail if something became better: a baseline that is no longer true.
    #[arg(long)]
    both_ways: bool,
    /// Compare runs although the generator was the bottleneck in one; the exit code is then that of the comparison.
    #[arg(long)]
    allow_bottleneck: bool,
    /// Compare runs of different loads: what differs is told, and not refused.
    #[arg(long)]
    allow_unlike: bool,
}

/// Does what the options say.
pub(super) fn run(args: &CompareArgs) -> Result<Exit, Failure> {
    let (base, new) = (read(&args.base)?, read(&args.new)?);
    let unlike = likeness::unlike(base.iter().chain(&new));
    if !unlike.is_empty() && !args.allow_unlike {
        return Err(Failure::usage(format!(
            "these runs are of different loads (--allow-unlike compares them all the same): {}",
            unlike.join("; ")
        )));
    }
    for difference in unlike {
        eprintln!("tidegate-load: different loads: {difference}");
    }
    let gravest = tell_faults(&base, &new, args.allow_bottleneck);
    let missed = standing::newly_missed(&base, &new);
    let differences = compare(&base, &new, args.threshold, gravest.is_none() && missed.is_empty());
    print(&show(&differences));
    for name in &missed {
        print(&format!("threshold {name}: missed by the second side only  WORSE\n"));
    }
    let fails = |meaning| meaning == Meaning::Worse || args.both_ways && meaning == Meaning::Better;
    let is_missed = !missed.is_empty() || differences.iter().any(|difference| fails(difference.meaning));
    Ok(match gravest {
        Some(Fault::Unsound) => Exit::Unsound,
        _ if is_missed => Exit::Missed,
        Some(Fault::NothingAnswered) => Exit::Unable,
        Some(Fault::Invalid | Fault::GeneratorBound) => Exit::Invalid,
        None => Exit::Ok,
    })
}

/// Says why runs cannot be held against each other; the gravest of the reasons that are not allowed.
fn tell_faults(base: &[RunResult], new: &[RunResult], allows_bottleneck: bool) -> Option<Fault> {
    let mut gravest = None;
    for (side, runs) in [("first", base), ("second", new)] {
        for fault in runs.iter().flat_map(standing::faults) {
            eprintln!("tidegate-load: a run of the {side} side {}", fault.sentence());
            if fault != Fault::GeneratorBound || !allows_bottleneck {
                gravest = Some(gravest.map_or(fault, |other: Fault| other.min(fault)));
            }
        }
    }
    gravest
}

/// All results in files joined by commas.
fn read(files: &str) -> Result<Vec<RunResult>, Failure> {
    let mut runs = Vec::new();
    for file in files.split(',').map(PathBuf::from) {
        runs.extend(read_one(&file)?);
    }
    Ok(runs)
}

fn read_one(file: &Path) -> Result<Vec<RunResult>, Failure> {
    let text = load::read_file(file)?;
    let runs: Result<Vec<RunResult>, _> = serde_json::Deserializer::from_str(&text).into_iter().collect();
    match runs {
        Ok(runs) if runs.is_empty() => Err(Failure::usage(format!("{}: no result in it", file.display()))),
        Ok(runs) => Ok(runs),
        Err(error) => Err(Failure::usage(format!("{}: not a result of 'run --json': {error}", file.display()))),
    }
}
