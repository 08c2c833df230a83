//! One body of events: split the same however it is cut, and each event judged as another parser judges it.
//!
//! The first byte picks the shape, the second the size of the pieces; the rest is the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::base::Limits;
use tidegate::json::{Scan, Validator};
use tidegate::shard::place::judge;
use tidegate::shard::split::{BodyShape, Carry, CarryFull, EventError, EventSink, Placed, Splitter, Stop};

const EVENT_BYTES_MAX: usize = 100;

/// Another parser's grammar. It does not look at surrogates, so text with escapes of them is not judged.
fn is_object(event: &[u8]) -> Option<bool> {
    let Ok(text) = std::str::from_utf8(event) else { return Some(false) };
    let escaped_surrogate = text.to_ascii_lowercase().contains("\\ud");
    let valid = text.starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    (!escaped_surrogate || !valid).then_some(valid)
}

struct Sink {
    calls: Vec<Result<(Vec<u8>, bool), EventError>>,
    validator: Validator,
    offers: usize,
    full_every: usize,
}

impl EventSink for Sink {
    fn validator(&mut self) -> &mut Validator {
        &mut self.validator
    }

    fn event(&mut self, event: &[u8], scan: Option<Scan<'_>>) -> Placed {
        self.offers += 1;
        if self.offers.is_multiple_of(self.full_every) {
            return Placed::NoRoom;
        }
        assert!(!event.is_empty() && event.len() <= EVENT_BYTES_MAX);
        let valid = judge(&mut self.validator, event, scan).is_ok();
        if let Some(expected) = is_object(event) {
            assert_eq!(valid, expected, "{:?}", String::from_utf8_lossy(event));
        }
        self.calls.push(Ok((event.to_vec(), valid)));
        Placed::Taken
    }

    fn refuse(&mut self, error: EventError) {
        self.calls.push(Err(error));
    }
}

struct Pouch(Vec<u8>);

impl Carry for Pouch {
    fn extend(&mut self, bytes: &[u8]) -> Result<(), CarryFull> {
        self.0.extend_from_slice(bytes);
        assert!(self.0.len() <= EVENT_BYTES_MAX);
        Ok(())
    }

    fn as_slice(&self) -> &[u8] {
        &self.0
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

fn split(shape: BodyShape, body: &[u8], piece: usize, full_every: usize, last_is_known: bool) -> (Sink, bool) {
    let limits = Limits { event_bytes_max: EVENT_BYTES_MAX, events_per_request_max: 50, ..Limits::default() };
    // Deep enough for any event of this size, so that the other parser, which has no limit here, agrees.
    let mut sink = Sink { calls: Vec::new(), validator: Validator::new(EVENT_BYTES_MAX), offers: 0, full_every };
    let mut carry = Pouch(Vec::new());
    let mut splitter = Splitter::new(shape, &limits);
    let mut pieces = body.chunks(piece).peekable();
    while let Some(piece) = pieces.next() {
        let piece = piece.to_vec();
        let mut at = 0;
        loop {
            let fed = if last_is_known && pieces.peek().is_none() {
                splitter.feed_last(&piece[at..], &mut carry, &mut sink)
            } else {
                splitter.feed(&piece[at..], &mut carry, &mut sink)
            };
            at += fed.consumed;
            match fed.stop {
                None => break assert_eq!(at, piece.len()),
                Some(Stop::NoRoom) => {}
                Some(Stop::CarryFull) => unreachable!("this carry never is"),
                Some(Stop::TooMany) => return (sink, true),
            }
        }
    }
    loop {
        match splitter.finish(&mut carry, &mut sink) {
            Ok(()) => break,
            Err(Stop::TooMany) => return (sink, true),
            Err(_) => {}
        }
    }
    assert!(carry.0.is_empty());
    assert_eq!(splitter.seen() as usize, sink.calls.len());
    (sink, false)
}

fuzz_target!(|bytes: &[u8]| {
    let [shape, piece, body @ ..] = bytes else { return };
    let shape = [BodyShape::Lines, BodyShape::Json, BodyShape::Batch][usize::from(*shape) % 3];
    let (whole, too_many) = split(shape, body, body.len().max(1), usize::MAX, true);
    let piece = 1 + usize::from(*piece);
    for (piece, full_every, last_is_known) in [(1, usize::MAX, false), (piece, 2, true), (piece, 3, false)] {
        let (cut, cut_too_many) = split(shape, body, piece, full_every, last_is_known);
        assert_eq!((cut.calls, cut_too_many), (whole.calls.clone(), too_many), "{shape:?} in pieces of {piece}");
    }
    // An array of objects that another parser takes for whole is split into those objects.
    if shape == BodyShape::Json
        && let Ok(array) = serde_json::from_slice::<Vec<&serde_json::value::RawValue>>(body)
        && array.iter().all(|element| element.get().starts_with('{') && element.get().len() <= EVENT_BYTES_MAX)
        && array.len() <= 50
    {
        let expected: Vec<&[u8]> = array.iter().map(|element| element.get().as_bytes()).collect();
        let found: Vec<&[u8]> =
            whole.calls.iter().map(|call| call.as_ref().expect("no refusal in valid JSON").0.as_slice()).collect();
        assert_eq!(found, expected);
    }
});
