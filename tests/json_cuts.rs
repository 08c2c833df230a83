//! However a body is cut into receive buffers, each event gets the same verdict and the same bytes are stored.

#[path = "support/events.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod events;
#[path = "support/random.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod random;

use events::{EventName, Kind};
use tidegate::base::{Limits, TenantId};
use tidegate::json::{JsonError, Level, Scan, Validator};
use tidegate::record::{RECORD_HEADER_BYTES, Records};
use tidegate::shard::place::{judge, write_record};
use tidegate::shard::split::{BodyShape, EventError, EventSink, Placed, Splitter};

/// Does with events what a shard does, without its chunks.
struct Sink<'a> {
    validator: &'a mut Validator,
    records: Vec<u8>,
    errors: Vec<Result<JsonError, EventError>>,
}

impl EventSink for Sink<'_> {
    fn validator(&mut self) -> &mut Validator {
        self.validator
    }

    fn event(&mut self, event: &[u8], scan: Option<Scan<'_>>) -> Placed {
        match judge(self.validator, event, scan) {
            Ok(valid) => {
                let may_have_line_ends = valid.may_have_line_ends();
                let before = self.records.len();
                self.records.resize(before + RECORD_HEADER_BYTES + event.len(), 0);
                write_record(&mut self.records[before..], event, TenantId::default(), may_have_line_ends);
            }
            Err(error) => self.errors.push(Ok(error)),
        }
        Placed::Taken
    }

    fn refuse(&mut self, error: EventError) {
        self.errors.push(Err(error));
    }
}

type Outcome = (Vec<u8>, Vec<Result<JsonError, EventError>>);

fn store(validator: &mut Validator, shape: BodyShape, body: &[u8], cuts: &[usize], last_is_known: bool) -> Outcome {
    let mut sink = Sink { validator, records: Vec::new(), errors: Vec::new() };
    let mut carry = Vec::new();
    let mut splitter = Splitter::new(shape, &Limits::default());
    let mut start = 0;
    for (index, end) in cuts.iter().copied().chain([body.len()]).enumerate() {
        let piece = body[start..end].to_vec();
        start = end;
        let fed = if last_is_known && index == cuts.len() {
            splitter.feed_last(&piece, &mut carry, &mut sink)
        } else {
            splitter.feed(&piece, &mut carry, &mut sink)
        };
        assert_eq!((fed.consumed, fed.stop), (piece.len(), None));
    }
    splitter.finish(&mut carry, &mut sink).expect("there is room");
    (sink.records, sink.errors)
}

/// Valid events of the real schema, on one line and over several, with invalid ones between them.
fn body_of(shape: BodyShape) -> (Vec<u8>, Vec<Vec<u8>>, usize) {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    let mut valid = Vec::new();
    for number in 0..6 {
        let event = events::event(11, Kind::Attribution, EventName { lane: 1, number });
        let event = if shape != BodyShape::Lines && number % 2 == 1 { events::spread(&event) } else { event };
        valid.push(events::stored(&event));
        parts.push(event);
    }
    valid.push(b"{ \"cr\" :  1 }".to_vec());
    parts.push(b"{ \"cr\" :\r 1 }".to_vec());
    for broken in [&br#"{"a":01}"#[..], br#"{"a":"\ud800"}"#, b"{\"a\":\"\xff\"}", br#"{"a" 1}"#] {
        parts.insert(parts.len() / 2, broken.to_vec());
    }
    let body = match shape {
        BodyShape::Lines => [parts.join(&b"\r\n"[..]), b"\n \n".to_vec()].concat(),
        BodyShape::Json => [b"[".to_vec(), parts.join(&b" ,\n"[..]), b"]".to_vec()].concat(),
        BodyShape::Batch => {
            [br#"{"n":1,"events":["#.to_vec(), parts.join(&b","[..]), br#"],"m":[]}"#.to_vec()].concat()
        }
    };
    (body, valid, 4)
}

#[test]
fn an_event_split_at_each_byte_is_judged_and_stored_the_same() {
    for level in Level::all().into_iter().chain([Level::parser()]) {
        let mut validator = Validator::with_level(Limits::default().json_depth_max, level).never_resting();
        for shape in [BodyShape::Lines, BodyShape::Json, BodyShape::Batch] {
            let (body, valid, broken) = body_of(shape);
            let whole = store(&mut validator, shape, &body, &[], true);
            let stored: Vec<&[u8]> =
                Records::new(&whole.0).map(|record| record.expect("written whole").event).collect();
            assert_eq!(stored, valid, "{level} {shape:?}");
            assert_eq!(whole.1.len(), broken, "{level} {shape:?}: {:?}", whole.1);
            for cut in 0..=body.len() {
                let outcome = store(&mut validator, shape, &body, &[cut], cut % 2 == 0);
                assert_eq!(outcome, whole, "{level} {shape:?} cut at {cut}");
                let twice = [cut, (cut + 64).min(body.len())];
                let outcome = store(&mut validator, shape, &body, &twice, cut % 2 == 1);
                assert_eq!(outcome, whole, "{level} {shape:?} cut at {twice:?}");
            }
        }
    }
}

#[test]
fn random_cuts_change_nothing() {
    let mut random = random::Random::new(random::seed("random_cuts"));
    let mut validator = Validator::new(Limits::default().json_depth_max);
    for shape in [BodyShape::Lines, BodyShape::Json, BodyShape::Batch] {
        let (body, ..) = body_of(shape);
        let whole = store(&mut validator, shape, &body, &[], false);
        for _ in 0..300 {
            let mut cuts: Vec<usize> =
                (0..random.below(20)).map(|_| random.below(body.len() as u64 + 1) as usize).collect();
            cuts.sort_unstable();
            let outcome = store(&mut validator, shape, &body, &cuts, random.one_in(2));
            assert_eq!(outcome, whole, "{shape:?} cut at {cuts:?}");
        }
    }
}
