//! Whether one result is worse than another, beyond their noise. Pure.
//!
//! A difference counts when it exceeds both a share that matters (the threshold) and what the runs themselves scatter.
//! Scatter is taken from several runs of a side where there are, else from the intervals of the one run: their median
//! absolute deviation, which one disturbed second does not move. Drift between runs is larger than scatter within one,
//! so compare sides that ran in alternation, or give several runs of each. One value has no scatter that anybody knows: what
//! differs by more than the threshold may be noise, and is called neither worse nor better.

use super::result::{Point, RunResult};
use crate::quantity::{show_count, show_us};

/// Scatter that a difference must exceed, in standard errors.
const ERRORS_MIN: f64 = 3.0;
/// A median absolute deviation as a standard deviation of normally scattered values.
const MAD_TO_DEVIATION: f64 = 1.4826;

/// One quantity of both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Its name.
    pub name: &'static str,
    /// The first side's value; `None` where nothing was measured.
    pub base: Option<f64>,
    /// The second side's.
    pub new: Option<f64>,
    /// `new` against `base`, as a share of the latter; above 0 is more.
    pub change: Option<f64>,
    /// What has to be exceeded; `None` if nobody knows how much the values scatter.
    pub noise: Option<f64>,
    /// What it means.
    pub meaning: Meaning,
}

/// What a difference means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Within threshold or noise.
    Same,
    /// The second side is better.
    Better,
    /// It would be, but it failed more or its figures cannot be trusted: what fails can be fast.
    Withheld,
    /// Beyond the threshold, and perhaps noise.
    Unknown,
    /// The second side is worse.
    Worse,
}

struct Quantity {
    name: &'static str,
    more_is_better: bool,
    of_run: fn(&RunResult) -> Option<f64>,
    of_point: fn(&Point) -> Option<f64>,
}

const QUANTITIES: [Quantity; 4] = [
    Quantity {
        name: "requests_per_second",
        more_is_better: true,
        of_run: |run| Some(run.requests_per_second),
        of_point: |point| Some(point.requests as f64 / point.seconds()),
    },
    Quantity {
        name: "events_per_second",
        more_is_better: true,
        of_run: |run| Some(run.events_per_second),
        of_point: |point| Some(point.events as f64 / point.seconds()),
    },
    Quantity {
        name: "p50_us",
        more_is_better: false,
        of_run: |run| run.latency_us.corrected.p50,
        of_point: |point| point.p50_us,
    },
    Quantity {
        name: "p99_us",
        more_is_better: false,
        of_run: |run| run.latency_us.corrected.p99,
        of_point: |point| point.p99_us,
    },
];

/// The differences between two sides of one or more runs each; `threshold` is the share that matters. Nothing is called
/// better unless `may_be_better`, nor if more of the second side failed.
#[must_use]
pub fn compare(base: &[RunResult], new: &[RunResult], threshold: f64, may_be_better: bool) -> Vec<Difference> {
    assert!(!base.is_empty() && !new.is_empty(), "each side has a run");
    let mut differences: Vec<Difference> = QUANTITIES.iter().map(|q| difference(q, base, new, threshold)).collect();
    // A share, not a ratio: from no errors to some there is no ratio.
    let rate = |side: &[RunResult]| median(&mut side.iter().map(|run| run.error_rate).collect::<Vec<_>>());
    let (base_rate, new_rate) = (rate(base), rate(new));
    // One request in ten thousand is what a retry hides.
    let noise = 1e-4;
    let change = new_rate - base_rate;
    let meaning = match change {
        change if change > noise => Meaning::Worse,
        change if change < -noise => Meaning::Better,
        _ => Meaning::Same,
    };
    let fails_more = meaning == Meaning::Worse;
    differences.push(Difference {
        name: "error_rate",
        base: Some(base_rate),
        new: Some(new_rate),
        change: Some(change),
        noise: Some(noise),
        meaning,
    });
    for difference in &mut differences {
        if difference.meaning == Meaning::Better && (fails_more || !may_be_better) {
            difference.meaning = Meaning::Withheld;
        }
    }
    differences
}

fn difference(quantity: &Quantity, base: &[RunResult], new: &[RunResult], threshold: f64) -> Difference {
    let (base, base_error) = value_and_error(quantity, base);
    let (new, new_error) = value_and_error(quantity, new);
    let mut difference =
        Difference { name: quantity.name, base, new, change: None, noise: Some(threshold), meaning: Meaning::Same };
    let (Some(base), Some(new)) = (base, new) else {
        // A side of which nothing was measured answered nothing: no latency of it is a good one.
        difference.meaning = match (base, new) {
            (Some(_), None) => Meaning::Worse,
            (None, Some(_)) => Meaning::Better,
            _ => Meaning::Same,
        };
        return difference;
    };
    let scale = base.abs().max(f64::MIN_POSITIVE);
    let scatter = base_error.zip(new_error).map(|(base, new)| ERRORS_MIN * (base.powi(2) + new.powi(2)).sqrt() / scale);
    difference.noise = scatter.map(|scatter| scatter.max(threshold));
    let change = (new - base) / scale;
    difference.change = Some(change);
    difference.meaning = match change {
        change if change.abs() <= difference.noise.unwrap_or(threshold) => Meaning::Same,
        _ if difference.noise.is_none() => Meaning::Unknown,
        change if (change > 0.0) == quantity.more_is_better => Meaning::Better,
        _ => Meaning::Worse,
    };
    difference
}

/// The value of a side and its standard error; no value if one of its runs has none, no error of fewer than two values.
fn value_and_error(quantity: &Quantity, side: &[RunResult]) -> (Option<f64>, Option<f64>) {
    let of_runs: Option<Vec<f64>> = side.iter().map(quantity.of_run).collect();
    let Some(mut of_runs) = of_runs else { return (None, None) };
    let (value, mut values) = match side {
        [run] => {
            let points = run.intervals.iter().filter(|point| point.is_measured());
            (of_runs[0], points.filter_map(quantity.of_point).collect())
        }
        _ => (median(&mut of_runs), of_runs),
    };
    if values.len() < 2 {
        return (Some(value), None);
    }
    let count = values.len() as f64;
    let middle = median(&mut values);
    let mut deviations: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    (Some(value), Some(MAD_TO_DEVIATION * median(&mut deviations) / count.sqrt()))
}

fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// The differences as lines for people.
#[must_use]
pub fn show(differences: &[Difference]) -> String {
    let mut text = String::new();
    for difference in differences {
        let show = |value: Option<f64>| match (difference.name, value) {
            (_, None) => "-".into(),
            (name, Some(value)) if name.ends_with("_us") => show_us(value),
            ("error_rate", Some(value)) => format!("{value:.5}"),
            (_, Some(value)) => show_count(value.round()),
        };
        let change = difference.change.map_or("-".into(), |change| format!("{:+.2}", change * 100.0));
        let meaning = match difference.meaning {
            Meaning::Same => "same",
            Meaning::Better => "BETTER",
            Meaning::Withheld => "not called better: a side failed",
            Meaning::Unknown => "not told from noise",
            Meaning::Worse => "WORSE",
        };
        let noise = difference.noise.map_or("unknown".into(), |noise| format!("{:.2} %", noise * 100.0));
        text.push_str(&format!(
            "{:<20} {:>12} → {:>12}  {change:>8} %  (noise {noise})  {meaning}\n",
            difference.name,
            show(difference.base),
            show(difference.new)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::report::result::tests::result_with;

    /// A run whose intervals scatter by `scatter` around `rate`.
    fn run(rate: f64, scatter: f64, seed: u64) -> RunResult {
        let mut random = Random::new(seed, 1);
        let points = (0..30)
            .map(|at| Point {
                from_s: f64::from(at),
                to_s: f64::from(at) + 1.0,
                requests: (rate * (1.0 + scatter * (random.unit() - 0.5))) as u64,
                p50_us: Some(100.0),
                p99_us: Some(200.0),
                ..Point::default()
            })
            .collect();
        let mut result = result_with(points);
        result.requests_per_second = rate;
        result
    }

    fn meaning(base: &[RunResult], new: &[RunResult], name: &str) -> Meaning {
        compare(base, new, 0.05, true).into_iter().find(|difference| difference.name == name).unwrap().meaning
    }

    #[test]
    fn a_difference_counts_beyond_threshold_and_noise_only() {
        let quiet = |rate| [run(rate, 0.01, 1)];
        assert_eq!(meaning(&quiet(1000.0), &quiet(960.0), "requests_per_second"), Meaning::Same);
        assert_eq!(meaning(&quiet(1000.0), &quiet(900.0), "requests_per_second"), Meaning::Worse);
        assert_eq!(meaning(&quiet(1000.0), &quiet(1100.0), "requests_per_second"), Meaning::Better);
        let noisy = |rate, seed| [run(rate, 1.5, seed)];
        assert_eq!(meaning(&noisy(1000.0, 1), &noisy(900.0, 2), "requests_per_second"), Meaning::Same);
        assert_eq!(meaning(&noisy(1000.0, 1), &noisy(200.0, 2), "requests_per_second"), Meaning::Worse);
    }

    #[test]
    fn several_runs_scatter_among_themselves() {
        let side = |rates: [f64; 3]| rates.map(|rate| run(rate, 0.0, 1));
        let base = side([1000.0, 1001.0, 999.0]);
        assert_eq!(meaning(&base, &side([900.0, 901.0, 899.0]), "requests_per_second"), Meaning::Worse);
        assert_eq!(meaning(&base, &side([600.0, 900.0, 1300.0]), "requests_per_second"), Meaning::Same);
    }

    /// Two values could be scattered by any much.
    #[test]
    fn of_one_value_nothing_is_called_worse_or_better() {
        let long = [run(1000.0, 0.01, 1)];
        let short = |rate| {
            let mut run = run(rate, 0.0, 1);
            run.intervals.truncate(1);
            [run]
        };
        for (base, new) in [(&short(1000.0), &short(500.0)), (&short(500.0), &short(1000.0)), (&long, &short(500.0))] {
            assert_eq!(meaning(base, new, "requests_per_second"), Meaning::Unknown);
            let told = show(&compare(base, new, 0.05, true));
            assert!(told.contains("(noise unknown)  not told from noise"), "{told}");
        }
        assert_eq!(meaning(&short(1000.0), &short(960.0), "requests_per_second"), Meaning::Same);
        // Two runs of one interval each scatter between themselves.
        let two = |rate| [short(rate), short(rate)].concat();
        assert_eq!(meaning(&two(1000.0), &two(500.0), "requests_per_second"), Meaning::Worse);
        let failing = [RunResult { error_rate: 0.5, ..short(1000.0)[0].clone() }];
        assert_eq!(meaning(&short(1000.0), &failing, "error_rate"), Meaning::Worse);
    }

    #[test]
    fn slower_and_failing_are_worse() {
        let base = [run(1000.0, 0.01, 1)];
        let mut new = [run(1000.0, 0.01, 1)];
        new[0].latency_us.corrected.p99 = Some(300.0);
        new[0].error_rate = 0.01;
        let mut slow = base.clone();
        slow[0].latency_us.corrected.p99 = Some(200.0);
        assert_eq!(meaning(&slow, &new, "p99_us"), Meaning::Worse);
        assert_eq!(meaning(&new, &slow, "p99_us"), Meaning::Better);
        assert_eq!(meaning(&slow, &new, "error_rate"), Meaning::Worse);
    }

    #[test]
    fn what_fails_more_or_cannot_be_trusted_is_never_better() {
        let base = [run(1000.0, 0.01, 1)];
        let mut fast = run(2000.0, 0.01, 1);
        fast.latency_us.corrected.p99 = Some(50.0);
        let meanings = |new: &RunResult, may_be_better: bool| -> Vec<Meaning> {
            let all = compare(&base, std::slice::from_ref(new), 0.05, may_be_better);
            all.into_iter().map(|difference| difference.meaning).collect()
        };
        assert!(meanings(&fast, true).contains(&Meaning::Better));
        assert!(!meanings(&fast, false).contains(&Meaning::Better));
        assert!(meanings(&fast, false).contains(&Meaning::Withheld));
        fast.error_rate = 0.5;
        assert!(!meanings(&fast, true).contains(&Meaning::Better) && meanings(&fast, true).contains(&Meaning::Worse));
    }

    #[test]
    fn a_side_of_which_nothing_was_measured_is_worse_and_has_no_number() {
        let mut base = run(1000.0, 0.01, 1);
        base.latency_us.corrected.p99 = Some(50.0);
        let none = run(1000.0, 0.01, 1);
        assert_eq!(meaning(std::slice::from_ref(&base), std::slice::from_ref(&none), "p99_us"), Meaning::Worse);
        assert_eq!(meaning(std::slice::from_ref(&none), std::slice::from_ref(&none), "p99_us"), Meaning::Same);
        let text = show(&compare(&[base], &[none], 0.05, true));
        assert!(text.lines().any(|line| line.starts_with("p99_us") && line.contains("→            -")), "{text}");
    }
}
