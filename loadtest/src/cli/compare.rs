//! `tidegate-load compare`: whether one result is worse than another.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Exit, Failure, load, print};
use crate::quantity;
use crate::report::RunResult;
use crate::report::compare::{Meaning, compare, show};

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
}

/// Does what the options say.
pub(super) fn run(args: &CompareArgs) -> Result<Exit, Failure> {
    let (base, new) = (read(&args.base)?, read(&args.new)?);
    let mut is_valid = true;
    for (side, runs) in [("first", &base), ("second", &new)] {
        if runs.iter().any(|run| !run.valid) {
            is_valid = false;
            eprintln!("tidegate-load: a run of the {side} side is invalid: its generator was the bottleneck");
        }
    }
    let differences = compare(&base, &new, args.threshold);
    print(&show(&differences));
    let fails = |meaning| meaning == Meaning::Worse || args.both_ways && meaning == Meaning::Better;
    Ok(match differences.iter().any(|difference| fails(difference.meaning)) {
        true => Exit::Missed,
        false if !is_valid && !args.allow_bottleneck => Exit::Invalid,
        false => Exit::Ok,
    })
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
