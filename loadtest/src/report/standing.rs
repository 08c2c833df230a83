//! Whether a run's figures can be held against another's at all. Pure.

use super::result::RunResult;
use crate::request::Outcome;

/// The schema of results that can be compared: the one that `run` writes.
pub const SCHEMA: u32 = 1;

/// Why they cannot. In the order in which a comparison's exit code goes by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The oracle found something wrong.
    Unsound,
    /// No request was answered as it should be.
    NothingAnswered,
    /// Nobody knows what the oracle would have found.
    Unjudged,
    /// It is not valid, and not only for its generator.
    Invalid,
    /// Its generator was the bottleneck.
    GeneratorBound,
}

impl Fault {
    /// What a person is told.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Unsound => "is NOT SOUND: what was acknowledged is not what is stored",
            Self::NothingAnswered => "had no request answered as it should be",
            Self::Unjudged => "has no verdict: its log was not read to its end",
            Self::Invalid => "is invalid: it was interrupted, or met answers that no request was waiting for",
            Self::GeneratorBound => "is invalid: its generator was the bottleneck",
        }
    }
}

/// The faults of a run, the gravest first.
#[must_use]
pub fn faults(run: &RunResult) -> Vec<Fault> {
    let all = [
        (Fault::Unsound, run.verdict.as_ref().is_some_and(|verdict| !verdict.sound)),
        (Fault::NothingAnswered, run.outcomes_that(Outcome::is_good) == 0),
        (Fault::Unjudged, run.verdict.is_none() && run.verdict_failed.is_some()),
        (Fault::Invalid, !run.valid && !run.is_only_generator_bound()),
        (Fault::GeneratorBound, run.is_only_generator_bound()),
    ];
    all.into_iter().filter(|(_, holds)| *holds).map(|(fault, _)| fault).collect()
}

/// Thresholds that a run of the second side missed and none of the first.
#[must_use]
pub fn newly_missed(base: &[RunResult], new: &[RunResult]) -> Vec<String> {
    let missed = |side: &[RunResult]| -> Vec<String> {
        let thresholds = side.iter().flat_map(|run| &run.thresholds);
        thresholds.filter(|threshold| !threshold.passed).map(|threshold| threshold.name.clone()).collect()
    };
    let before = missed(base);
    let mut names: Vec<String> = missed(new).into_iter().filter(|name| !before.contains(name)).collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::result::tests::result_with;
    use crate::report::{Threshold, Verdict};

    fn good() -> RunResult {
        let mut run = result_with(Vec::new());
        run.outcomes.insert("accepted".into(), 5);
        run
    }

    #[test]
    fn each_fault_is_told_and_a_good_run_has_none() {
        assert_eq!(faults(&good()), []);
        assert_eq!(faults(&RunResult { verdict: Some(Verdict::default()), ..good() }), [Fault::Unsound]);
        let sound = Verdict { sound: true, ..Verdict::default() };
        assert_eq!(faults(&RunResult { verdict: Some(sound), ..good() }), []);
        assert_eq!(faults(&RunResult { outcomes: [].into(), ..good() }), [Fault::NothingAnswered]);
        let unjudged = RunResult { verdict_failed: Some("cut off".into()), ..good() };
        assert_eq!(faults(&unjudged), [Fault::Unjudged]);
        let invalid = RunResult { valid: false, ..good() };
        assert_eq!(faults(&invalid), [Fault::GeneratorBound]);
        let interrupted = RunResult { interrupted: Some("SIGINT".into()), ..invalid.clone() };
        assert_eq!(faults(&interrupted), [Fault::Invalid]);
        let mut too_many = invalid;
        too_many.outcomes.insert("unsolicited".into(), 1);
        assert_eq!(faults(&too_many), [Fault::Invalid]);
    }

    #[test]
    fn what_is_written_can_be_compared() {
        assert_eq!(good().schema, SCHEMA);
    }

    #[test]
    fn a_threshold_is_newly_missed_only_if_it_was_met_before() {
        let with = |passed: bool| {
            let threshold = Threshold { name: "p99_us".into(), limit: 1.0, value: None, passed };
            [RunResult { thresholds: vec![threshold], ..good() }]
        };
        assert_eq!(newly_missed(&with(true), &with(false)), ["p99_us"]);
        assert_eq!(newly_missed(&[good()], &with(false)), ["p99_us"]);
        assert!(newly_missed(&with(false), &with(false)).is_empty());
        assert!(newly_missed(&with(false), &with(true)).is_empty());
    }
}
