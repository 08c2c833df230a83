//! The 96-byte header of a chunk. The writer fills it in; recovery and readers decode it.

use std::fmt;

use super::{FORMAT_VERSION, crc32c, get_u16, get_u32, get_u64, put};
use crate::base::{CHUNK_BYTES_MAX, Epoch, PAGE_BYTES, Seq, ShardId, WriterId, align_up};
use crate::record::SEGMENT_HEADER_BYTES;

/// Bytes of the header.
pub const CHUNK_HEADER_BYTES: usize = 96;
/// The shard a seal names: no shard's chunk.
pub const SEAL_SHARD: ShardId = ShardId(u16::MAX);

const MAGIC: [u8; 4] = *b"TGc\x01";
/// Offset of the header's own checksum, its last field. Everything before it is covered.
const CRC_AT: usize = CHUNK_HEADER_BYTES - 4;
/// First byte after the fields in use; from here to the checksum all is zero.
const FIELDS_END: usize = 68;

/// What a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkKind {
    /// Events of one shard.
    Events = 1,
    /// The end of a log that was closed in order: no payload, nothing after it in its segment.
    Seal = 2,
}

/// A chunk header's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// What the chunk is.
    pub kind: ChunkKind,
    /// Epoch of the segment it was written to.
    pub epoch: Epoch,
    /// Where in the segment it begins, in bytes.
    pub offset: u64,
    /// Everything in the segment before this was synced before this chunk was written: where its group begins, or the
    /// group before, if that was still being synced.
    pub synced_end: u64,
    /// The writer.
    pub writer: WriterId,
    /// The shard whose events it holds; [`SEAL_SHARD`] for a seal.
    pub shard: ShardId,
    /// Its number in that shard's sequence; 0 for a seal.
    pub seq: Seq,
    /// When the shard closed it, Unix time in nanoseconds.
    pub sealed_unix_ns: u64,
    /// Event records in the payload.
    pub events: u32,
    /// Bytes of the payload, without padding.
    pub payload_bytes: u32,
    /// CRC32C of the payload.
    pub payload_crc: u32,
    /// Header CRC of the chunk before this one in the writer's log; 0 for the first ever.
    pub previous_crc: u32,
}

/// Why a header is not the one expected at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// No magic number: zeros, or the middle of something else.
    NoHeader,
    /// A magic number, but the checksum does not hold.
    Checksum,
    /// A sound header of a format this build does not read.
    Version(u16),
    /// A sound header whose fields contradict each other or the format's limits.
    Fields,
    /// A sound header of another segment, place or writer: what a recycled file held before.
    Stale(Epoch),
}

impl fmt::Display for HeaderFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHeader => f.write_str("no chunk header"),
            Self::Checksum => f.write_str("chunk header with a wrong checksum"),
            Self::Version(version) => write!(f, "chunk of format version {version}"),
            Self::Fields => f.write_str("chunk header with impossible fields"),
            Self::Stale(epoch) => write!(f, "chunk of epoch {}", epoch.0),
        }
    }
}

impl ChunkHeader {
    /// A seal at `offset`, everything before which is synced.
    #[must_use]
    pub fn seal(writer: WriterId, epoch: Epoch, offset: u64, previous_crc: u32, sealed_unix_ns: u64) -> Self {
        Self {
            kind: ChunkKind::Seal,
            epoch,
            offset,
            synced_end: offset,
            writer,
            shard: SEAL_SHARD,
            seq: Seq(0),
            sealed_unix_ns,
            events: 0,
            payload_bytes: 0,
            payload_crc: 0,
            previous_crc,
        }
    }

    /// Bytes the chunk takes on disk: header, payload and zeros up to a multiple of [`PAGE_BYTES`].
    #[must_use]
    pub fn padded_bytes(&self) -> usize {
        align_up(CHUNK_HEADER_BYTES + self.payload_bytes as usize, PAGE_BYTES)
    }

    /// Where the chunk after it begins.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.padded_bytes() as u64
    }

    /// Writes the header; its CRC, which the next chunk carries as `previous_crc`.
    #[must_use]
    pub fn encode(&self, bytes: &mut [u8; CHUNK_HEADER_BYTES]) -> u32 {
        put(bytes, 0, &MAGIC);
        put(bytes, 4, &FORMAT_VERSION.to_le_bytes());
        put(bytes, 6, &(self.kind as u16).to_le_bytes());
        put(bytes, 8, &self.epoch.0.to_le_bytes());
        put(bytes, 16, &self.offset.to_le_bytes());
        put(bytes, 24, &self.synced_end.to_le_bytes());
        put(bytes, 32, &self.seq.0.to_le_bytes());
        put(bytes, 40, &self.sealed_unix_ns.to_le_bytes());
        put(bytes, 48, &self.writer.0.to_le_bytes());
        put(bytes, 50, &self.shard.0.to_le_bytes());
        put(bytes, 52, &self.events.to_le_bytes());
        put(bytes, 56, &self.payload_bytes.to_le_bytes());
        put(bytes, 60, &self.payload_crc.to_le_bytes());
        put(bytes, 64, &self.previous_crc.to_le_bytes());
        bytes[FIELDS_END..CRC_AT].fill(0);
        let crc = crc32c(&bytes[..CRC_AT]);
        put(bytes, CRC_AT, &crc.to_le_bytes());
        crc
    }

    /// Reads a header and its CRC; the checksum is checked before any field is believed.
    ///
    /// # Errors
    /// Everything [`HeaderFault`] names but `Stale`, which only [`ChunkHeader::decode_at`] can tell.
    pub fn decode(bytes: &[u8]) -> Result<(Self, u32), HeaderFault> {
        let Some(bytes) = bytes.get(..CHUNK_HEADER_BYTES) else { return Err(HeaderFault::NoHeader) };
        if bytes[..MAGIC.len()] != MAGIC {
            return Err(HeaderFault::NoHeader);
        }
        let crc = get_u32(bytes, CRC_AT);
        if crc32c(&bytes[..CRC_AT]) != crc {
            return Err(HeaderFault::Checksum);
        }
        let version = get_u16(bytes, 4);
        if version != FORMAT_VERSION {
            return Err(HeaderFault::Version(version));
        }
        let kind = match get_u16(bytes, 6) {
            1 => ChunkKind::Events,
            2 => ChunkKind::Seal,
            _ => return Err(HeaderFault::Fields),
        };
        let header = Self {
            kind,
            epoch: Epoch(get_u64(bytes, 8)),
            offset: get_u64(bytes, 16),
            synced_end: get_u64(bytes, 24),
            seq: Seq(get_u64(bytes, 32)),
            sealed_unix_ns: get_u64(bytes, 40),
            writer: WriterId(get_u16(bytes, 48)),
            shard: ShardId(get_u16(bytes, 50)),
            events: get_u32(bytes, 52),
            payload_bytes: get_u32(bytes, 56),
            payload_crc: get_u32(bytes, 60),
            previous_crc: get_u32(bytes, 64),
        };
        let reserved_is_zero = bytes[FIELDS_END..CRC_AT].iter().all(|byte| *byte == 0);
        if reserved_is_zero && header.is_possible() { Ok((header, crc)) } else { Err(HeaderFault::Fields) }
    }

    /// Reads the header that belongs at `offset` of segment `epoch` of `writer`.
    ///
    /// # Errors
    /// Everything [`HeaderFault`] names.
    pub fn decode_at(bytes: &[u8], writer: WriterId, epoch: Epoch, offset: u64) -> Result<(Self, u32), HeaderFault> {
        let (header, crc) = Self::decode(bytes)?;
        if header.epoch != epoch || header.offset != offset || header.writer != writer {
            return Err(HeaderFault::Stale(header.epoch));
        }
        Ok((header, crc))
    }

    fn is_possible(&self) -> bool {
        let content = match self.kind {
            ChunkKind::Events => self.seq > Seq(0) && self.events > 0 && self.payload_bytes > 0,
            ChunkKind::Seal => {
                self.shard == SEAL_SHARD && self.seq == Seq(0) && self.events == 0 && self.payload_bytes == 0
            }
        };
        content
            && self.payload_bytes as usize <= CHUNK_BYTES_MAX - CHUNK_HEADER_BYTES
            && self.epoch > Epoch(0)
            && self.synced_end >= SEGMENT_HEADER_BYTES as u64
            && self.synced_end <= self.offset
            && self.offset.is_multiple_of(PAGE_BYTES as u64)
            // A segment is far smaller: this keeps `end` from overflowing.
            && self.offset <= u64::MAX / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> ChunkHeader {
        ChunkHeader {
            kind: ChunkKind::Events,
            epoch: Epoch(3),
            offset: 3 * PAGE_BYTES as u64,
            synced_end: 2 * PAGE_BYTES as u64,
            writer: WriterId(1),
            shard: ShardId(4),
            seq: Seq(17),
            sealed_unix_ns: 1_790_000_000_123_456_789,
            events: 2,
            payload_bytes: 5000,
            payload_crc: 0xDEAD_BEEF,
            previous_crc: 0x1234_5678,
        }
    }

    fn encoded(header: &ChunkHeader) -> [u8; CHUNK_HEADER_BYTES] {
        let mut bytes = [0xAA; CHUNK_HEADER_BYTES];
        let _ = header.encode(&mut bytes);
        bytes
    }

    #[test]
    fn a_header_reads_back_as_written() {
        let seal = ChunkHeader::seal(WriterId(1), Epoch(3), 8192, 5, 6);
        for header in [header(), seal] {
            let mut bytes = [0xAA; CHUNK_HEADER_BYTES];
            let crc = header.encode(&mut bytes);
            assert_eq!(ChunkHeader::decode(&bytes), Ok((header, crc)));
            assert_eq!(ChunkHeader::decode_at(&bytes, header.writer, header.epoch, header.offset), Ok((header, crc)));
        }
        assert_eq!((header().padded_bytes(), header().end()), (8192, 5 * 4096));
        assert_eq!(seal.padded_bytes(), 4096);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encoded(&header());
        for bit in (0..CHUNK_HEADER_BYTES * 8).step_by(if cfg!(miri) { 61 } else { 1 }) {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(ChunkHeader::decode(&bad).is_err(), "bit {bit}");
        }
        assert_eq!(ChunkHeader::decode(&[0; CHUNK_HEADER_BYTES]), Err(HeaderFault::NoHeader));
        assert_eq!(ChunkHeader::decode(&bytes[..95]), Err(HeaderFault::NoHeader), "too short to hold one");
    }

    #[test]
    fn a_header_counts_in_its_own_place_only() {
        let bytes = encoded(&header());
        let stale = Err(HeaderFault::Stale(Epoch(3)));
        assert_eq!(ChunkHeader::decode_at(&bytes, WriterId(1), Epoch(4), header().offset), stale);
        assert_eq!(ChunkHeader::decode_at(&bytes, WriterId(1), Epoch(3), header().offset + 4096), stale);
        assert_eq!(ChunkHeader::decode_at(&bytes, WriterId(0), Epoch(3), header().offset), stale);
    }

    #[test]
    fn impossible_fields_are_refused_even_with_a_right_checksum() {
        let impossible: [fn(&mut ChunkHeader); 9] = [
            |header| header.events = 0,
            |header| header.payload_bytes = 0,
            |header| header.payload_bytes = (CHUNK_BYTES_MAX - CHUNK_HEADER_BYTES) as u32 + 1,
            |header| header.seq = Seq(0),
            |header| header.epoch = Epoch(0),
            |header| header.synced_end = header.offset + 4096,
            |header| header.synced_end = 0,
            |header| header.offset += 512,
            |header| header.kind = ChunkKind::Seal,
        ];
        for (row, change) in impossible.iter().enumerate() {
            let mut header = header();
            change(&mut header);
            assert_eq!(ChunkHeader::decode(&encoded(&header)), Err(HeaderFault::Fields), "row {row}");
        }
        let mut bytes = encoded(&header());
        bytes[80] = 1;
        let crc = crc32c(&bytes[..CRC_AT]);
        put(&mut bytes, CRC_AT, &crc.to_le_bytes());
        assert_eq!(ChunkHeader::decode(&bytes), Err(HeaderFault::Fields), "reserved bytes are zero");
    }
}
