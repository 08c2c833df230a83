//! The long differential run: random texts and mutants of events judged by the validator, on every instruction set, and by two
//! other parsers, some millions of texts or as many as there is time for.
//!
//!     cargo run --profile counted --example json-differential -- MILLIONS
//!
//! The work is done in spans, each with validators of its own and from a seed of its own: a disagreement tells the seed of
//! its span, and `TIDEGATE_TEST_SEED` set to it meets the same text again, within a second or so. Prints how many texts of
//! each family were judged, now and then and at the end.

#[path = "bulk.rs"]
mod bulk;
#[path = "mutants.rs"]
mod mutants;
#[path = "../../benches/shapes/mod.rs"]
#[allow(dead_code, reason = "the benches use more of it")]
mod shapes;
#[path = "mod.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod verdict;

use std::io::{self, Write as _};
use std::panic;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use bulk::{Bulk, FAMILIES};
use shapes::{Size, documents, events_of, random, streams};

/// Texts of each family in a span.
const SPAN_TEXTS: u64 = 200_000;
/// Spans between two reports.
const REPORTED_SPANS: u64 = 50;

/// Seed of the span being judged, for the hook that runs when a text is disagreed on.
static SPAN_SEED: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    let Some(millions) = std::env::args().nth(1).and_then(|text| text.parse::<u64>().ok()) else {
        eprintln!("usage: json-differential MILLIONS");
        return ExitCode::from(2);
    };
    match run(millions * 1_000_000) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the counts cannot be printed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Judges at least so many texts.
fn run(texts: u64) -> io::Result<()> {
    let seed = random::seed("json-differential");
    let real = real_events();
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        tell(info);
        eprintln!("disagreement: repeat with TIDEGATE_TEST_SEED={}", SPAN_SEED.load(Ordering::Relaxed));
    }));
    let (mut judged, mut spans) = ([0_u64; FAMILIES.len()], 0);
    while judged.iter().sum::<u64>() < texts {
        let span_seed = seed.wrapping_add(spans);
        SPAN_SEED.store(span_seed, Ordering::Relaxed);
        judged.iter_mut().zip(span(span_seed, &real)).for_each(|(all, of_span)| *all += of_span);
        spans += 1;
        if spans % REPORTED_SPANS == 0 {
            report(&judged, (seed, spans))?;
        }
    }
    report(&judged, (seed, spans))
}

/// Judges the texts of one span. Returns how many of each family.
fn span(seed: u64, real: &[Vec<u8>]) -> [u64; FAMILIES.len()] {
    let mut bulk = Bulk::new(seed, real);
    let mut judged = [0; FAMILIES.len()];
    while judged.iter().any(|judged| *judged < SPAN_TEXTS) {
        for (family, judged) in FAMILIES.into_iter().zip(&mut judged) {
            if *judged < SPAN_TEXTS {
                *judged += bulk.judge_some(family);
            }
        }
    }
    judged
}

/// Events as honest sources send them, of many shapes; short ones more often than not, of which more are judged in a second.
fn real_events() -> Vec<Vec<u8>> {
    let mut real = events_of(Size::Mean268, 256);
    real.extend(streams::sixteen_shapes().into_iter().take(128));
    real.extend(documents::timeline(16));
    real.extend(documents::statuses(2));
    real.extend(events_of(Size::Large4200, 1));
    real.extend(streams::tiny().into_iter().take(16));
    real
}

fn report(judged: &[u64], (seed, spans): (u64, u64)) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{} texts without a disagreement:", judged.iter().sum::<u64>())?;
    for (family, judged) in FAMILIES.iter().zip(judged) {
        write!(out, " {family:?} {judged},")?;
    }
    writeln!(out, " {spans} spans from seed {seed}")?;
    out.flush()
}
