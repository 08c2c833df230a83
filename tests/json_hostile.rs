//! What strangers can make the validator do besides parsing: bounded by counting it, not by a clock.
//!
//! Looking at an event passes over its bytes once, hashes and compares its tokens, and walks over them if they are new;
//! none of that is repeated for an event that has ended. So the bytes looked at, the walks and the events parsed after they were
//! looked at in vain bound the work, and each is held against what the stream deserves.

#[path = "../benches/shapes/mod.rs"]
#[allow(dead_code, reason = "the benches use more of it")]
mod shapes;

use shapes::streams;
use tidegate::base::Limits;
use tidegate::json::{Counts, Level, Lines, Scan, Validator};
use tidegate::shard::split::{BodyShape, EventError, EventSink, Placed, Splitter};

/// Lines of which the first are looked at, whatever they are.
const LOOKED_AT_FIRST: u64 = 64;
/// Bytes that a shard has in one input, as with its provided buffers.
const INPUT_BYTES: usize = 16 << 10;

/// Judges `events` as lines, in inputs of a provided buffer's size and a part of a line before each, on `level`. Returns how
/// many are valid, and what was done for it.
fn judge(events: &[Vec<u8>], level: Level) -> (u64, Counts) {
    let mut validator = Validator::with_level(128, level);
    let mut body = events.join(&b'\n');
    body.push(b'\n');
    let (mut valid, mut start, mut lines) = (0, 0, Lines::new());
    while start < body.len() {
        let input = &body[start..body.len().min(start + INPUT_BYTES)];
        let bytes = validator.scan_lines(input, &mut lines);
        assert!(bytes > 0, "every line fits an input");
        valid += lines.as_slice().iter().map(|line| u64::from(validator.judge(*line).is_ok())).sum::<u64>();
        start += bytes;
    }
    let counts = validator.counts();
    assert!(counts.known_shapes + counts.walked + counts.unscanned >= valid, "{counts:?}");
    (valid, counts)
}

/// A valid event and one with a fault at its end.
fn pair() -> (Vec<u8>, Vec<u8>) {
    let valid = streams::one_shape(343).swap_remove(0);
    let mut broken = valid.clone();
    broken.push(b']');
    (valid, broken)
}

/// Events in the order of `pattern`, over and over: `v` valid, `b` broken.
fn in_turn(pattern: &str, count: usize) -> Vec<Vec<u8>> {
    let (valid, broken) = pair();
    let events = pattern.bytes().cycle().take(count);
    events.map(|kind| if kind == b'v' { valid.clone() } else { broken.clone() }).collect()
}

fn bytes_of(events: &[Vec<u8>]) -> u64 {
    events.iter().map(|event| event.len() as u64 + 1).sum()
}

#[test]
fn valid_hostile_events_are_walked_once_at_most_and_never_parsed() {
    for (name, events) in [
        ("a shape per event", streams::ever_new_shapes()),
        ("more shapes than are kept, in turn", streams::more_shapes_than_fit()),
        ("huge shapes", streams::huge_shapes()),
        ("numbers", streams::numbers()),
        ("escapes", streams::escapes()),
        ("tiny", streams::tiny()),
    ] {
        for level in Level::all() {
            let (valid, counts) = judge(&events, level);
            assert_eq!((valid, counts.parsed), (events.len() as u64, 0), "{level}: {name}");
            assert_eq!(counts.known_shapes + counts.walked, valid, "{level}: {name}: {counts:?}");
            // Twice only what did not end in an input, or was behind the lines that are looked at together.
            let twice = bytes_of(&events) * 5 / 4 + INPUT_BYTES as u64;
            assert!(counts.scanned_bytes <= twice, "{level}: {name}: {counts:?}, {} bytes", bytes_of(&events));
        }
    }
}

/// Judges the elements of arrays, and counts calls.
struct Judge {
    validator: Validator,
    valid: u64,
    invalid: u64,
    refused: u64,
}

impl EventSink for Judge {
    fn validator(&mut self) -> &mut Validator {
        &mut self.validator
    }

    fn event(&mut self, event: &[u8], scan: Option<Scan<'_>>) -> Placed {
        let is_valid = match scan {
            Some(scan) => self.validator.judge(scan).is_ok(),
            None => self.validator.validate(event).is_ok(),
        };
        self.valid += u64::from(is_valid);
        self.invalid += u64::from(!is_valid);
        Placed::Taken
    }

    fn refuse(&mut self, _: EventError) {
        self.refused += 1;
    }
}

/// Many elements are looked at in one pass, which anything but a comma between two of them ends: it is then not begun again for
/// bytes it has passed over, however often that happens.
#[test]
fn elements_are_looked_at_once_whatever_stands_between_them() {
    let events: Vec<Vec<u8>> = in_turn("vvvbvvvvb", 2_000);
    let broken = events.iter().filter(|event| event.ends_with(b"]")).count() as u64;
    let all = |refused| (2_000 - broken, broken, refused);
    for (name, between, calls) in [
        ("a comma", &b","[..], all(0)),
        ("commas and space", b" ,\n\t", all(0)),
        ("no comma", b" ", (1, 0, 1)),
        ("another byte", b";", (1, 0, 1)),
        ("an empty element", b",,", all(1_999)),
        ("a number", b", 1,", all(1_999)),
        ("a string with braces", br#","{\"{","#, all(1_999)),
    ] {
        for level in Level::all() {
            let validator = Validator::with_level(128, level);
            let mut judge = Judge { validator, valid: 0, invalid: 0, refused: 0 };
            let (mut splitter, mut carry) = (Splitter::new(BodyShape::Json, &Limits::default()), Vec::new());
            // A fault behind an element's brace would be no part of it.
            let events: Vec<Vec<u8>> = events.iter().map(|event| broken_inside(event)).collect();
            let body = [b"[", &events.join(between)[..], b"]"].concat();
            for input in body.chunks(INPUT_BYTES) {
                let fed = splitter.feed(input, &mut carry, &mut judge);
                assert_eq!((fed.consumed, fed.stop), (input.len(), None));
            }
            splitter.finish(&mut carry, &mut judge).expect("there is room");
            assert_eq!((judge.valid, judge.invalid, judge.refused), calls, "{level}: {name}");
            // Once, a block at each end of a pass, and what of each input belongs to an element that ends in the next: that
            // twice there, and once more when it is whole.
            let bytes = body.len() as u64 * 3 / 2;
            assert!(judge.validator.counts().scanned_bytes <= bytes, "{level}: {name}: {:?}", judge.validator.counts());
        }
    }
}

/// The same event with its fault, if it has one, before its last brace.
fn broken_inside(event: &[u8]) -> Vec<u8> {
    let mut event = event.to_vec();
    if event.ends_with(b"]") {
        let last = event.len() - 1;
        event.swap(last - 1, last);
    }
    event
}

#[test]
fn a_stream_of_faults_is_soon_left_to_the_parser() {
    for level in Level::all() {
        let events = in_turn("b", 10_000);
        let (valid, counts) = judge(&events, level);
        assert_eq!((valid, counts.parsed), (0, 10_000));
        assert_eq!(counts.unscanned, 10_000 - LOOKED_AT_FIRST, "{level}: {counts:?}");
        assert!(counts.scanned_bytes <= 2 * INPUT_BYTES as u64, "{level}: {counts:?}");
    }
}

#[test]
fn no_more_faults_are_looked_at_in_vain_than_valid_events_pay_for() {
    for pattern in ["vb", "vbb", "vvb", "vvbb", "vvbbb", "vbbbbbbb", "vvvvvvvvbbbbbbbb", "bbbbbbbbbbbbbbbbbbbbbbbbv"] {
        for level in Level::all() {
            let events = in_turn(pattern, 6_000);
            let (valid, counts) = judge(&events, level);
            assert_eq!(valid, events.iter().filter(|event| event.ends_with(b"}")).count() as u64, "{pattern}");
            let broken = events.len() as u64 - valid;
            let valid_but_parsed = counts.parsed - broken;
            let proven = valid - valid_but_parsed;
            let in_vain = counts.parsed - counts.unscanned;
            assert!(valid_but_parsed <= counts.unscanned, "{level}: {pattern}: {counts:?}");
            let paid = 2 * proven + valid_but_parsed + 2 * LOOKED_AT_FIRST;
            assert!(2 * in_vain <= paid, "{level}: {pattern}: {counts:?}, {valid} valid");
        }
    }
}

#[test]
fn a_stream_that_becomes_valid_is_looked_at_again() {
    for level in Level::all() {
        let mut events = in_turn("b", 1_000);
        events.extend(in_turn("v", 1_000));
        let (valid, counts) = judge(&events, level);
        assert_eq!(valid, 1_000);
        assert!(counts.unscanned <= 1_000 + 2, "{level}: {counts:?}");
        assert!(counts.known_shapes >= 900, "{level}: {counts:?}");
    }
}

#[test]
fn streams_that_are_half_valid_are_looked_at_all_the_time() {
    for level in Level::all() {
        let (_, counts) = judge(&in_turn("vb", 10_000), level);
        assert_eq!((counts.unscanned, counts.parsed), (0, 5_000), "{level}: {counts:?}");
    }
}

#[test]
fn the_parser_alone_looks_at_no_line() {
    let (valid, counts) = judge(&in_turn("vb", 1_000), Level::parser());
    assert_eq!(valid, 500);
    assert_eq!((counts.parsed, counts.unscanned, counts.scanned_bytes), (1_000, 1_000, 0));
    assert_eq!((counts.known_shapes, counts.walked), (0, 0));
}
