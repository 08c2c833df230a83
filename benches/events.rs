//! A shard's work on events without its sockets: validating one, splitting a body into them.

mod shapes;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use shapes::{SIZES, Size, events_of};
use tidegate::base::{KIB, Limits};
use tidegate::json::{Scan, Validator};
use tidegate::shard::place::judge;
use tidegate::shard::split::{BodyShape, EventError, EventSink, Placed, Splitter};

/// Different events in turn, so that branches are not learnt by heart.
const EVENTS: u64 = 256;
/// Body of the splitting benches.
const BODY_BYTES: usize = 64 * KIB;

fn main() {
    divan::main();
}

/// One event through the validator, buffers reused.
#[divan::bench(args = SIZES)]
fn validate(bencher: Bencher<'_, '_>, size: Size) {
    let events = events_of(size, EVENTS);
    let mut validator = Validator::new(Limits::default().json_depth_max);
    let bytes = events.iter().map(Vec::len).sum::<usize>() / events.len();
    let mut turn = events.iter().cycle();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        let event = turn.next().expect("a cycle has no end");
        validator.validate(event).expect("the generator makes JSON").string_field("event_id").map(str::len)
    });
}

/// Judges every event and keeps none.
struct Count<'a> {
    validator: &'a mut Validator,
    events: usize,
    bytes: usize,
}

impl EventSink for Count<'_> {
    fn validator(&mut self) -> &mut Validator {
        self.validator
    }

    fn event(&mut self, event: &[u8], scan: Option<Scan<'_>>) -> Placed {
        judge(self.validator, event, scan).expect("the generator makes JSON");
        self.events += 1;
        self.bytes += event.len();
        Placed::Taken
    }

    fn refuse(&mut self, error: EventError) {
        unreachable!("{error}");
    }
}

fn body_of(shape: BodyShape) -> (Vec<u8>, usize) {
    let mut events = events_of(Size::Bytes343, EVENTS);
    events.truncate(BODY_BYTES / 344);
    let body = match shape {
        BodyShape::Lines => events.join(b"\n".as_slice()),
        BodyShape::Json => [b"[".as_slice(), &events.join(b",".as_slice()), b"]"].concat(),
        BodyShape::Batch => [b"{\"events\":[".as_slice(), &events.join(b",".as_slice()), b"]}"].concat(),
    };
    (body, events.len())
}

/// A body of 64 KiB that arrives in pieces of `piece_bytes`; events across the border of two are joined.
fn split(bencher: Bencher<'_, '_>, shape: BodyShape, piece_bytes: usize) {
    let (body, events) = body_of(shape);
    let limits = Limits::default();
    let mut carry = Vec::with_capacity(4 * KIB);
    let mut validator = Validator::new(limits.json_depth_max);
    bencher.counter(BytesCount::new(body.len())).counter(ItemsCount::new(events)).bench_local(|| {
        let mut splitter = Splitter::new(shape, &limits);
        let mut sink = Count { validator: &mut validator, events: 0, bytes: 0 };
        for piece in body.chunks(piece_bytes) {
            let fed = splitter.feed(piece, &mut carry, &mut sink);
            assert!(fed.stop.is_none(), "{fed:?}");
        }
        splitter.finish(&mut carry, &mut sink).expect("the body is whole");
        assert_eq!(sink.events, events);
        sink.bytes
    });
}

/// Pieces as large as a receive buffer, and the whole body at once.
const PIECES: [usize; 2] = [16 * KIB, BODY_BYTES];

#[divan::bench(args = PIECES)]
fn split_ndjson_64_kib(bencher: Bencher<'_, '_>, piece_bytes: usize) {
    split(bencher, BodyShape::Lines, piece_bytes);
}

#[divan::bench(args = PIECES)]
fn split_array_64_kib(bencher: Bencher<'_, '_>, piece_bytes: usize) {
    split(bencher, BodyShape::Json, piece_bytes);
}

#[divan::bench(args = PIECES)]
fn split_envelope_64_kib(bencher: Bencher<'_, '_>, piece_bytes: usize) {
    split(bencher, BodyShape::Batch, piece_bytes);
}
