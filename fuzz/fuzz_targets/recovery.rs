//! Recovery, readers and `verify` over logs that a fuzzer made of a sound one: they agree, and nothing panics.
//!
//! The input is a list of edits of four bytes each: a place in three segments (three bytes) and a value. The highest bit
//! of the place asks for the page's checksum to be made right again, so that the checks behind checksums are reached.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tidegate::base::{EVENT_BYTES_MAX, Epoch, PAGE_BYTES, Seq, ShardId, TenantId, WriterId};
use tidegate::log::{LogReader, verify_storages};
use tidegate::record::{
    CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, RECORD_HEADER_BYTES, SegmentHeader, ShardSeqs, crc32c,
    put_record_header,
};
use tidegate::sys::storage::faulty::FaultyDisk;
use tidegate::writer::recover::recover;

const PAGES_PER_SEGMENT: usize = 5;
const SEGMENT_BYTES: usize = PAGES_PER_SEGMENT * PAGE_BYTES;
const SEGMENTS: u64 = 3;
const WRITER: WriterId = WriterId(0);

static SOUND: LazyLock<Vec<Vec<u8>>> = LazyLock::new(sound_log);

fuzz_target!(|edits: &[u8]| {
    let mut segments = SOUND.clone();
    for edit in edits.chunks_exact(4) {
        let place = usize::from(edit[0] & 0x7F) << 16 | usize::from(edit[1]) << 8 | usize::from(edit[2]);
        let segment = &mut segments[place / SEGMENT_BYTES % SEGMENTS as usize];
        segment[place % SEGMENT_BYTES] = edit[3];
        if edit[0] & 0x80 != 0 {
            let page = place % SEGMENT_BYTES / PAGE_BYTES * PAGE_BYTES;
            make_checksums_right(&mut segment[page..page + PAGE_BYTES]);
        }
    }
    let disk = FaultyDisk::new(1);
    for (index, segment) in segments.into_iter().enumerate() {
        disk.put(&format!("{:016x}.segment", index + 1), segment);
    }
    let recovered = recover(&mut disk.storage(), WRITER, u64::MAX);
    let mut reader = LogReader::over(vec![(WRITER, Box::new(disk.storage()))]);
    let mut events = 0;
    let read = loop {
        match reader.next_chunk() {
            Ok(Some(chunk)) => {
                for event in chunk.events() {
                    assert!(!event.event.is_empty() && event.event.len() <= EVENT_BYTES_MAX);
                    events += 1;
                }
            }
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    let report = verify_storages(vec![(WRITER, Box::new(disk.storage()))]).expect("a disk in memory can be read");
    assert_eq!((recovered.is_ok(), read), (report.sound, report.sound), "{recovered:?} {report:?}");
    if let Ok(recovered) = recovered {
        assert_eq!((recovered.report.events_read, report.events), (events, events));
    }
});

/// Three segments: two full ones, and one that ends with a group of two chunks.
fn sound_log() -> Vec<Vec<u8>> {
    let (mut crc, mut seqs) = (0, ShardSeqs::default());
    let mut segments = Vec::new();
    for epoch in 1..=SEGMENTS {
        let mut bytes = vec![0; SEGMENT_BYTES];
        let header = SegmentHeader {
            writer: WRITER,
            epoch: Epoch(epoch),
            segment_bytes: SEGMENT_BYTES as u64,
            created_unix_ns: epoch,
            previous_epoch: Epoch(epoch - 1),
            previous_end: if epoch == 1 { 0 } else { SEGMENT_BYTES as u64 },
            previous_crc: crc,
            seqs: seqs.clone(),
        };
        header.encode((&mut bytes[..PAGE_BYTES]).try_into().expect("a page"));
        let pages = if epoch == SEGMENTS { PAGES_PER_SEGMENT - 1 } else { PAGES_PER_SEGMENT };
        for page in 1..pages {
            let synced_end = if page == pages - 1 { page - 1 } else { page };
            crc = put_chunk(&mut bytes, epoch, page, synced_end, &mut seqs, crc);
        }
        segments.push(bytes);
    }
    segments
}

fn put_chunk(
    bytes: &mut [u8],
    epoch: u64,
    page: usize,
    synced_end: usize,
    seqs: &mut ShardSeqs,
    previous_crc: u32,
) -> u32 {
    let shard = ShardId((page % 2) as u16);
    let seq = seqs.last(shard).next();
    assert!(seqs.advance(shard, seq));
    let page_bytes = &mut bytes[page * PAGE_BYTES..(page + 1) * PAGE_BYTES];
    let event = format!("{{\"shard\":{},\"seq\":{}}}", shard.0, seq.0);
    let payload_bytes = RECORD_HEADER_BYTES + event.len();
    let payload = &mut page_bytes[CHUNK_HEADER_BYTES..CHUNK_HEADER_BYTES + payload_bytes];
    put_record_header(payload.first_chunk_mut().expect("a record header"), event.len(), TenantId(1), 0);
    payload[RECORD_HEADER_BYTES..].copy_from_slice(event.as_bytes());
    let header = ChunkHeader {
        kind: ChunkKind::Events,
        epoch: Epoch(epoch),
        offset: (page * PAGE_BYTES) as u64,
        synced_end: (synced_end * PAGE_BYTES) as u64,
        writer: WRITER,
        shard,
        seq: Seq(seq.0),
        sealed_unix_ns: 1,
        events: 1,
        payload_bytes: payload_bytes as u32,
        payload_crc: crc32c(payload),
        previous_crc,
    };
    header.encode(page_bytes.first_chunk_mut().expect("a chunk header"))
}

fn make_checksums_right(page: &mut [u8]) {
    let is_chunk = page.starts_with(b"TGc");
    if is_chunk {
        let length = u32::from_le_bytes([page[56], page[57], page[58], page[59]]) as usize;
        let end = CHUNK_HEADER_BYTES.saturating_add(length).min(PAGE_BYTES);
        let crc = crc32c(&page[CHUNK_HEADER_BYTES..end]);
        page[60..64].copy_from_slice(&crc.to_le_bytes());
    }
    let end = if is_chunk { CHUNK_HEADER_BYTES } else { PAGE_BYTES };
    let crc = crc32c(&page[..end - 4]);
    page[end - 4..end].copy_from_slice(&crc.to_le_bytes());
}
