//! The stages that are counted. Each warms up, then runs inside [`counted`](super::counted) and returns how many units
//! (events, requests, chunks) that was.

use std::hint::black_box;
use std::sync::Arc;

use tidegate::base::{KIB, Limits, MIB, Seq, ShardId, TenantId};
use tidegate::handoff::{Bell, LogBuffer, channel};
use tidegate::json::{Scan, Validator};
use tidegate::record::{RECORD_HEADER_BYTES, crc32c, put_record_header};
use tidegate::shard::http::parse_head;
use tidegate::shard::place::judge;
use tidegate::shard::split::{BodyShape, EventError, EventSink, Placed, Splitter};
use tidegate::sys::memory::Region;

use crate::counted;
use crate::shapes::{Size, events_of};
use crate::shard::{batches_on, refusals, singles};

/// Different events, so that no branch is learnt by heart.
const EVENTS: u64 = 256;
/// Rounds over those events.
const ROUNDS: u64 = 8;

/// One stage.
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    /// What is counted by the unit.
    pub(crate) unit: &'static str,
    /// Runs it; the number of units.
    pub(crate) run: fn() -> u64,
}

const fn stage(name: &'static str, unit: &'static str, run: fn() -> u64) -> Stage {
    Stage { name, unit, run }
}

/// All of them. The names are keys of the baseline.
pub(crate) const STAGES: &[Stage] = &[
    stage("validate_268", "event", || validate(Size::Mean268)),
    stage("validate_343", "event", || validate(Size::Bytes343)),
    stage("validate_4200", "event", || validate(Size::Large4200)),
    stage("split_and_validate_ndjson_64k", "event", || split_and_validate(BodyShape::Lines)),
    stage("split_and_validate_array_64k", "event", || split_and_validate(BodyShape::Json)),
    stage("split_and_validate_envelope_64k", "event", || split_and_validate(BodyShape::Batch)),
    stage("frame_and_checksum_343", "event", frame_and_checksum),
    stage("head_of_a_load_client", "request", || parse_heads(LOAD_CLIENT)),
    stage("head_of_a_browser", "request", || parse_heads(BROWSER)),
    stage("hand_off", "chunk", hand_off),
    stage("shard_single_300", "request", singles),
    stage("shard_refused_300", "request", refusals),
    stage("shard_batch_200_on_1", "event", || batches_on(1)),
    stage("shard_batch_200_on_8", "event", || batches_on(8)),
    stage("shard_batch_200_on_64", "event", || batches_on(64)),
];

/// Warms `work` up by one call, then counts one.
fn count(mut work: impl FnMut()) {
    work();
    counted(&mut work);
}

fn validate(size: Size) -> u64 {
    let events = events_of(size, EVENTS);
    let mut validator = Validator::new(Limits::default().json_depth_max);
    count(|| {
        for event in (0..ROUNDS).flat_map(|_| &events) {
            let mut valid = validator.validate(black_box(event)).expect("the generator makes JSON");
            black_box(valid.string_field("event_id"));
        }
    });
    EVENTS * ROUNDS
}

/// Judges every event and keeps none.
struct Judged<'a> {
    validator: &'a mut Validator,
    events: u64,
}

impl EventSink for Judged<'_> {
    fn validator(&mut self) -> &mut Validator {
        self.validator
    }

    fn event(&mut self, event: &[u8], scan: Option<Scan<'_>>) -> Placed {
        black_box(judge(self.validator, event, scan)).expect("the generator makes JSON");
        self.events += 1;
        Placed::Taken
    }

    fn refuse(&mut self, error: EventError) {
        unreachable!("{error}");
    }
}

/// A body of 64 KiB in pieces of a receive buffer each: finding the events and validating them is one pass.
fn split_and_validate(shape: BodyShape) -> u64 {
    let events = events_of(Size::Bytes343, 190);
    let body = match shape {
        BodyShape::Lines => events.join(b"\n".as_slice()),
        BodyShape::Json => [b"[".as_slice(), &events.join(b",".as_slice()), b"]"].concat(),
        BodyShape::Batch => [b"{\"events\":[".as_slice(), &events.join(b",".as_slice()), b"]}"].concat(),
    };
    let limits = Limits::default();
    let mut carry = Vec::with_capacity(4 * KIB);
    let mut validator = Validator::new(limits.json_depth_max);
    let expected = events.len() as u64 * ROUNDS;
    count(|| {
        let mut sink = Judged { validator: &mut validator, events: 0 };
        for _ in 0..ROUNDS {
            let mut splitter = Splitter::new(shape, &limits);
            for piece in body.chunks(16 * KIB) {
                assert!(splitter.feed(piece, &mut carry, &mut sink).stop.is_none());
            }
            splitter.finish(&mut carry, &mut sink).expect("the body is whole");
        }
        assert_eq!(sink.events, expected);
    });
    expected
}

fn frame_and_checksum() -> u64 {
    let events = events_of(Size::Bytes343, 200);
    let mut payload = vec![0; MIB];
    count(|| {
        for _ in 0..ROUNDS {
            let mut at = 0;
            for event in &events {
                let (header, rest) =
                    payload[at..].split_first_chunk_mut::<RECORD_HEADER_BYTES>().expect("room was made");
                put_record_header(header, event.len(), TenantId(0), 0);
                rest[..event.len()].copy_from_slice(event);
                at += RECORD_HEADER_BYTES + event.len();
            }
            black_box(crc32c(&payload[..at]));
        }
    });
    200 * ROUNDS
}

const LOAD_CLIENT: &[u8] =
    b"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\nContent-Length: 300\r\n\r\n";
const BROWSER: &[u8] = b"POST /v1/events/batch?atomic=true HTTP/1.1\r\nHost: ingest.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\n\
    Accept: application/json, text/plain, */*\r\nAccept-Language: en-US,en;q=0.9,de;q=0.8\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://shop.example.com/checkout?step=3\r\n\
    Content-Type: application/json; charset=utf-8\r\nContent-Length: 4211\r\nOrigin: https://shop.example.com\r\n\
    Connection: keep-alive\r\nX-Request-ID: 0f8fad5b-d9cb-469f-a165-70867728950e\r\nX-Ack: durable\r\n\r\n";

/// Where a receive buffer would begin. A constant lies wherever the linker has put it, and a search for a byte takes other steps from
/// there: code added elsewhere would seem to make heads dearer.
#[repr(align(64))]
struct Aligned([u8; KIB]);

fn parse_heads(head: &[u8]) -> u64 {
    const REQUESTS: u64 = 1000;
    let limits = Limits::default();
    let mut aligned = Aligned([0; KIB]);
    aligned.0[..head.len()].copy_from_slice(head);
    let head = &aligned.0[..head.len()];
    count(|| {
        for _ in 0..REQUESTS {
            black_box(parse_head(black_box(head), &mut 0, &limits)).expect("a valid head").expect("a whole one");
        }
    });
    REQUESTS
}

/// Seal, offer, take, settle, take back: both ends on this thread, no bytes copied.
fn hand_off() -> u64 {
    const CHUNKS: u64 = 1000;
    let region = Arc::new(Region::map(4 * MIB, false).expect("memory"));
    let [shard_bell, writer_bell] = [(); 2].map(|()| Arc::new(Bell::new().expect("a descriptor")));
    let (mut shard, mut writer) =
        channel(ShardId(0), Arc::clone(&region), 64, Seq(0), shard_bell, writer_bell, Arc::default());
    let mut buffer = LogBuffer::new(region, ShardId(0), MIB, Seq(0));
    count(|| {
        for _ in 0..CHUNKS {
            black_box(buffer.extend(1000).expect("everything is settled"));
            buffer.commit(1);
            shard.offer(buffer.seal(0, 0).expect("it holds an event")).expect("there is room");
            while let Some(chunk) = writer.take() {
                writer.publish_written(chunk.seq);
                writer.publish_durable(chunk.seq);
                writer.settle(chunk);
            }
            writer.ring();
            shard.take_settled(&mut buffer);
        }
    });
    CHUNKS
}
