//! `tidegate-load compare`: whether one result is worse than another.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::{Exit, Failure, load, print};
use crate::quantity;
use crate::report::RunResult;
use crate::report::compare::{Difference, Meaning, compare, show};
use crate::report::likeness;
use crate::report::standing::{self, Fault, SCHEMA};

/// See the module text.
#[derive(Clone, Debug, Args)]
pub(super) struct CompareArgs {
    /// The first side: results of `run --json`, one or several in one file or in files joined by commas.
    #[arg(value_name = "BASE")]
    base: String,
    /// The second side, likewise.
    #[arg(value_name = "NEW")]
    new: String,
    /// The share by which a quantity may differ; what the runs scatter is allowed beyond it. Of single runs of one interval
    /// nobody knows the scatter: no difference of theirs is called worse or better, but for the error rate's.
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
    tell_unknown_noise(&differences);
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
        Some(Fault::Unjudged | Fault::Invalid | Fault::GeneratorBound) => Exit::Invalid,
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

/// Says of what it cannot be told whether it is worse, and what to do about it.
fn tell_unknown_noise(differences: &[Difference]) {
    let names: Vec<&str> =
        differences.iter().filter(|difference| difference.noise.is_none()).map(|difference| difference.name).collect();
    if !names.is_empty() {
        eprintln!(
            "tidegate-load: nobody knows how {} scatter: a side has one run of fewer than two intervals with a value. No difference \
             of these is called worse or better; give several runs of each side, or longer ones",
            names.join(", ")
        );
    }
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
    let refuse = |why: String| Failure::usage(format!("{}: {why}", file.display()));
    let runs: Result<Vec<RunResult>, Failure> = serde_json::Deserializer::from_str(&text)
        .into_iter::<Value>()
        .map(|run| {
            let run = run.map_err(|error| refuse(format!("not a result of 'run --json': {error}")))?;
            // Before the fields are looked at: those of another schema may have other names, or other meanings.
            let schema = &run["schema"];
            if !schema.is_null() && *schema != SCHEMA {
                return Err(refuse(format!("schema {schema}, and this program compares schema {SCHEMA} only")));
            }
            serde_json::from_value(run).map_err(|error| refuse(format!("not a result of 'run --json': {error}")))
        })
        .collect();
    match runs {
        Ok(runs) if runs.is_empty() => Err(refuse("no result in it".into())),
        runs => runs,
    }
}
