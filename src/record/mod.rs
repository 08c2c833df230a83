//! Bytes on disk: how segments, chunks and event records are framed. Any thread; pure: slices and integers in, values
//! out. Knows nothing of files, threads or time, and never panics on what a disk may hold.
//!
//! ```text
//! segment   [ header page 4 KiB ][ chunk ][ chunk ] … [ zeros, or what the recycled file held before ]
//! chunk     [ header 96 B ][ record ][ record ] … [ zeros to a multiple of 4 KiB ]
//! record    [ length u32 ][ tenant u16 ][ flags u16 ][ the event's bytes ]
//! ```
//!
//! All integers are little-endian. Every length is bounded before it is used. Each chunk names its segment's epoch and
//! its own offset, so that a chunk is valid in one place only; it carries the CRC of the chunk before it in the
//! writer's log, across segments, so that none can vanish from the middle; and it says where the group commit that
//! wrote it began, which is what tells damage from a torn tail (see [`walk`]).

mod checksum;
mod chunk;
mod event;
mod segment;
pub mod walk;

pub use checksum::{crc32c, crc32c_append};
pub use chunk::{CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, HeaderFault, SEAL_SHARD};
pub use event::{RECORD_HEADER_BYTES, Record, RecordFault, Records, put_record_header};
pub use segment::{LinkFault, SEGMENT_HEADER_BYTES, SHARDS_PER_WRITER_MAX, SegmentFault, SegmentHeader, ShardSeqs};

/// Version of everything in this room; a log of another version is refused, not guessed at.
pub const FORMAT_VERSION: u16 = 1;

fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}
