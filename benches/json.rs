//! Validation beside other parsers, in one run: every contender judges every stream in each of many short rounds, and
//! the best round of each counts, so that a noisy machine disturbs all alike. Prints one table.
//!
//! `cargo bench --bench json` measures all streams, `cargo bench --bench json -- PART` those whose name contains PART, and
//! `… -- PART CONTENDER` by one contender only. Ratios are to the first contender of the table. With `JSON_FILE=FILE` the one
//! stream is the events of that file, a JSON object a line, over and over: what a stream of your own costs.
//!
//! The validator is given the stream as lines and finds where they end; the others are given each event apart. simd-json
//! changes the text it parses, so a copy of it is part of its work.

mod shapes;

use std::env;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::time::Instant;

use serde::de::IgnoredAny;
use shapes::documents;
use shapes::streams;
use shapes::{Size, events_of};
use simd_json::{Buffers, INPUT_PADDING, Tape, fill_tape_padded};
use tidegate::json::{Level, Lines, Validator};

/// Rounds; the best of each contender counts. `JSON_ROUNDS` sets another number, for a profiler.
const ROUNDS: usize = 60;
/// Bytes that a contender judges in a round at least: a millisecond or so.
const ROUND_BYTES: usize = 1 << 20;
const DEPTH_MAX: usize = 128;

/// A stream of events in the two forms that contenders take.
struct Stream {
    name: String,
    events: Vec<Vec<u8>>,
    lines: Vec<u8>,
    /// How many events are valid.
    valid: usize,
}

impl Stream {
    fn new(name: &str, events: Vec<Vec<u8>>, valid: usize) -> Self {
        let mut lines = events.join(&b'\n');
        lines.push(b'\n');
        Self { name: name.to_owned(), events, lines, valid }
    }

    /// The lines of a file that are not blank.
    ///
    /// # Errors
    /// Which line is no event.
    fn of_file(path: &str) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        let mut events = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let event = line.trim();
            if event.is_empty() {
                continue;
            }
            if let Err(error) = serde_json::from_str::<IgnoredAny>(event) {
                return Err(format!("{path}, line {number}: not JSON at byte {}", error.column()));
            }
            if !event.starts_with('{') {
                return Err(format!("{path}, line {number}: not an object; a JSON object a line is wanted"));
            }
            events.push(event.as_bytes().to_vec());
        }
        if events.is_empty() {
            return Err(format!("{path}: no line with an event"));
        }
        let count = events.len();
        let name = std::path::Path::new(path).file_name().map_or_else(|| path.into(), |name| name.to_string_lossy());
        Ok(Self::new(&name, events, count))
    }

    fn bytes(&self) -> usize {
        self.events.iter().map(Vec::len).sum()
    }
}

/// Judges all events of a stream; returns how many are valid.
type Contender = (String, Box<dyn FnMut(&Stream) -> usize>);

fn by_validator(level: Level) -> Contender {
    let mut validator = Validator::with_level(DEPTH_MAX, level);
    let judge = move |stream: &Stream| {
        let (mut rest, mut valid, mut lines) = (&stream.lines[..], 0, Lines::new());
        while !rest.is_empty() {
            let bytes = validator.scan_lines(rest, &mut lines);
            for scan in lines.as_slice() {
                valid += usize::from(validator.judge(*scan).is_ok());
            }
            rest = &rest[bytes..];
        }
        valid
    };
    (level.to_string(), Box::new(judge))
}

fn by_simd_json() -> Contender {
    let mut buffers = Buffers::with_max_depth(1 << 20, DEPTH_MAX);
    let mut scratch = vec![0; (1 << 20) + INPUT_PADDING];
    let mut home = Some(Tape(Vec::with_capacity(1 << 16)));
    let judge = move |stream: &Stream| {
        let mut valid = 0;
        for event in &stream.events {
            scratch[..event.len()].copy_from_slice(event);
            let mut tape = home.take().expect("put back by the last event").reset();
            let padded = &mut scratch[..event.len() + INPUT_PADDING];
            valid += usize::from(fill_tape_padded(padded, event.len(), &mut buffers, &mut tape).is_ok());
            home = Some(tape.reset());
        }
        valid
    };
    ("simd-json".to_owned(), Box::new(judge))
}

fn by_sonic_rs() -> Contender {
    let judge = |stream: &Stream| {
        let is_valid = |event: &&Vec<u8>| sonic_rs::from_slice::<IgnoredAny>(event).is_ok();
        stream.events.iter().filter(is_valid).count()
    };
    ("sonic-rs".to_owned(), Box::new(judge))
}

fn by_serde_json() -> Contender {
    let judge = |stream: &Stream| {
        let is_valid = |event: &&Vec<u8>| {
            std::str::from_utf8(event).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
        };
        stream.events.iter().filter(is_valid).count()
    };
    ("serde_json".to_owned(), Box::new(judge))
}

fn streams() -> Vec<Stream> {
    let valid = |name: &str, events: Vec<Vec<u8>>| {
        let count = events.len();
        Stream::new(name, events, count)
    };
    let half_broken = streams::half_broken();
    let half = half_broken.len() / 2;
    vec![
        valid("one shape, 268 B", streams::one_shape(268)),
        valid("one shape, 343 B", streams::one_shape(343)),
        valid("attribution, 268 B", events_of(Size::Mean268, 1024)),
        valid("attribution, 343 B", events_of(Size::Bytes343, 1024)),
        valid("16 shapes", streams::sixteen_shapes()),
        valid("4.2 KB", events_of(Size::Large4200, 128)),
        valid("GitHub's timeline", documents::timeline(512)),
        valid("Twitter's statuses", documents::statuses(128)),
        valid("Twitter's answer", vec![documents::search_answer()]),
        valid("hostile: ever new shapes", streams::ever_new_shapes()),
        valid("hostile: more shapes than fit", streams::more_shapes_than_fit()),
        valid("hostile: huge shapes", streams::huge_shapes()),
        valid("hostile: numbers", streams::numbers()),
        valid("hostile: escapes", streams::escapes()),
        valid("hostile: tiny", streams::tiny()),
        Stream::new("hostile: every other one broken", half_broken, half),
        Stream::new("hostile: all broken", streams::all_broken(), 0),
    ]
}

fn main() -> io::Result<()> {
    let mut args = env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    let (wanted, by) = (args.next().unwrap_or_default(), args.next().unwrap_or_default());
    let streams = match env::var("JSON_FILE") {
        Ok(path) => vec![Stream::of_file(&path).unwrap_or_else(|why| {
            eprintln!("json: {why}");
            std::process::exit(2)
        })],
        Err(_) => streams(),
    };
    let mut contenders = vec![by_simd_json(), by_sonic_rs(), by_serde_json()];
    contenders.extend([Level::parser()].into_iter().chain(Level::all()).map(by_validator));
    contenders.retain(|(name, _)| name.contains(&by));

    let rounds = env::var("JSON_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("a number of rounds"));
    let mut out = io::stdout().lock();
    write!(out, "{:32}{:>7}", "ns per event (ratio)", "bytes")?;
    for (name, _) in &contenders {
        write!(out, "{name:>18}")?;
    }
    writeln!(out)?;
    for stream in streams.iter().filter(|stream| stream.name.contains(&wanted)) {
        let passes = ROUND_BYTES.div_ceil(stream.bytes());
        let mut best = vec![u128::MAX; contenders.len()];
        for _ in 0..rounds {
            for ((name, judge), best) in contenders.iter_mut().zip(&mut best) {
                let start = Instant::now();
                for _ in 0..passes {
                    let valid = black_box(judge(black_box(stream)));
                    assert_eq!(valid, stream.valid, "valid events of {} by {name}", stream.name);
                }
                *best = (*best).min(start.elapsed().as_nanos());
            }
        }
        let events = stream.events.len();
        write!(out, "{:32}{:>7}", stream.name, stream.bytes() / events)?;
        for time in &best {
            let ns = *time as f64 / (passes * events) as f64;
            write!(out, "{:>18}", format!("{ns:.1} ({:.2})", best[0] as f64 / *time as f64))?;
        }
        writeln!(out)?;
        out.flush()?;
    }
    Ok(())
}
