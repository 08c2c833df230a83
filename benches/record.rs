//! Framing: from validated events to a chunk ready for the disk, and the checksum apart.

mod shapes;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use shapes::{SIZES, Size, events_of};
use tidegate::base::{Epoch, KIB, MIB, Seq, ShardId, TenantId, WriterId};
use tidegate::record::{
    CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, RECORD_HEADER_BYTES, Records, crc32c, crc32c_append, put_record_header,
};

fn main() {
    divan::main();
}

/// Appends the record of each event; the payload's length.
fn frame(payload: &mut [u8], events: &[Vec<u8>]) -> usize {
    let mut at = 0;
    for event in events {
        let (header, rest) = payload[at..].split_first_chunk_mut::<RECORD_HEADER_BYTES>().expect("room was made");
        put_record_header(header, event.len(), TenantId(0), 0);
        rest[..event.len()].copy_from_slice(event);
        at += RECORD_HEADER_BYTES + event.len();
    }
    at
}

/// 200 events to records in a payload, its checksum in one go, and the chunk's header.
#[divan::bench(args = SIZES)]
fn frame_and_checksum_200(bencher: Bencher<'_, '_>, size: Size) {
    let events = events_of(size, 200);
    let mut payload = vec![0; MIB];
    let mut header_bytes = [0; CHUNK_HEADER_BYTES];
    let bytes = events.iter().map(Vec::len).sum::<usize>();
    bencher.counter(BytesCount::new(bytes)).counter(ItemsCount::new(events.len())).bench_local(|| {
        let filled = frame(&mut payload, &events);
        let header = ChunkHeader {
            kind: ChunkKind::Events,
            epoch: Epoch(1),
            offset: 4096,
            synced_end: 4096,
            writer: WriterId(0),
            shard: ShardId(0),
            seq: Seq(1),
            previous_crc: 0,
            events: events.len() as u32,
            payload_bytes: filled as u32,
            payload_crc: crc32c(&payload[..filled]),
            sealed_unix_ns: 1,
        };
        header.encode(&mut header_bytes)
    });
}

#[divan::bench(args = [300, 4 * KIB, 64 * KIB, MIB])]
fn checksum(bencher: Bencher<'_, '_>, bytes: usize) {
    let block: Vec<u8> = (0..bytes).map(|at| (at * 31 % 251) as u8).collect();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| crc32c(divan::black_box(&block)));
}

/// The same 64 KiB in pieces of an event: what checksumming event by event would cost.
#[divan::bench]
fn checksum_64_kib_by_event(bencher: Bencher<'_, '_>) {
    let block = vec![7; 64 * KIB];
    bencher
        .counter(BytesCount::new(block.len()))
        .bench_local(|| divan::black_box(&block).chunks(351).fold(0, crc32c_append));
}

/// A reader's walk over a payload.
#[divan::bench]
fn iterate_200(bencher: Bencher<'_, '_>) {
    let mut payload = vec![0; MIB];
    let filled = frame(&mut payload, &events_of(Size::Bytes343, 200));
    bencher.counter(ItemsCount::new(200usize)).bench_local(|| {
        Records::new(divan::black_box(&payload[..filled]))
            .map(|record| record.expect("sound").event.len())
            .sum::<usize>()
    });
}
