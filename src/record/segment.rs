//! The first page of a segment: which segment it is, and exactly where the one before it ended.

use std::fmt;

use super::{FORMAT_VERSION, crc32c, get_u16, get_u32, get_u64, put};
use crate::base::{Epoch, PAGE_BYTES, Seq, ShardId, WriterId};

/// Bytes of the header: one page, so that it is written apart from the chunks.
pub const SEGMENT_HEADER_BYTES: usize = PAGE_BYTES;
/// Shards one writer may serve: their numbers are an array of fixed size in each segment header. One writer per NUMA
/// node and one shard per core make 256 more than any node has.
pub const SHARDS_PER_WRITER_MAX: usize = 256;
/// A segment's length on disk is a u64, but what a flipped bit could make of it is bounded: 64 GiB.
const SEGMENT_BYTES_LIMIT: u64 = 64 << 30;

const MAGIC: [u8; 4] = *b"TGs\x01";
const CRC_AT: usize = SEGMENT_HEADER_BYTES - 4;
const FIELDS_END: usize = 56;
const SEQS_AT: usize = 1024;
const SEQS_END: usize = SEQS_AT + SHARDS_PER_WRITER_MAX * 8;
const _: () = assert!(FIELDS_END <= SEQS_AT && SEQS_END <= CRC_AT);

/// The last chunk number of each shard of one writer.
#[derive(Clone, PartialEq, Eq)]
pub struct ShardSeqs([Seq; SHARDS_PER_WRITER_MAX]);

impl Default for ShardSeqs {
    fn default() -> Self {
        Self([Seq(0); SHARDS_PER_WRITER_MAX])
    }
}

impl fmt::Debug for ShardSeqs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(shard, seq)| (shard.0, seq.0))).finish()
    }
}

impl ShardSeqs {
    /// The last number of `shard`; 0 if it has none yet or can have none.
    #[must_use]
    pub fn last(&self, shard: ShardId) -> Seq {
        self.0.get(usize::from(shard.0)).copied().unwrap_or_default()
    }

    /// Notes the chunk after the last one; false, and nothing noted, if `seq` is not that or the shard is out of range.
    #[must_use]
    pub fn advance(&mut self, shard: ShardId, seq: Seq) -> bool {
        match self.0.get_mut(usize::from(shard.0)) {
            // Checked: the number before may come from a disk.
            Some(last) if last.0.checked_add(1) == Some(seq.0) => {
                *last = seq;
                true
            }
            _ => false,
        }
    }

    /// The shards that have a chunk, with the number of their last one.
    pub fn iter(&self) -> impl Iterator<Item = (ShardId, Seq)> + '_ {
        self.0.iter().enumerate().filter(|(_, seq)| **seq > Seq(0)).map(|(shard, seq)| (ShardId(shard as u16), *seq))
    }
}

/// A segment header's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The writer.
    pub writer: WriterId,
    /// Number of the segment.
    pub epoch: Epoch,
    /// Length of the file.
    pub segment_bytes: u64,
    /// When the segment was begun, Unix time in nanoseconds.
    pub created_unix_ns: u64,
    /// The segment before it; 0 if it is the first ever.
    pub previous_epoch: Epoch,
    /// Where the valid data of the segment before it ends; 0 if there is none. What lies behind was never acknowledged.
    pub previous_end: u64,
    /// Header CRC of the last chunk before this segment; 0 if there is none.
    pub previous_crc: u32,
    /// The last chunk number of each shard before this segment: found again without reading older segments.
    pub seqs: ShardSeqs,
}

/// Why a page is not a segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentFault {
    /// No magic number.
    NoHeader,
    /// The checksum does not hold.
    Checksum,
    /// A sound header of a format this build does not read.
    Version(u16),
    /// A sound header with impossible fields.
    Fields,
    /// A sound header of another segment: what a recycled file held before.
    Stale(Epoch),
}

impl fmt::Display for SegmentFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHeader => f.write_str("no segment header"),
            Self::Checksum => f.write_str("segment header with a wrong checksum"),
            Self::Version(version) => write!(f, "segment of format version {version}"),
            Self::Fields => f.write_str("segment header with impossible fields"),
            Self::Stale(epoch) => write!(f, "segment header of epoch {}", epoch.0),
        }
    }
}

/// Why a segment does not continue the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// It names another predecessor: a segment between them is missing.
    Epoch {
        /// The predecessor it names.
        named: Epoch,
        /// The one that is there.
        found: Epoch,
    },
    /// The predecessor's valid data does not end where it says: it was cut or damaged later.
    End {
        /// The end it names.
        named: u64,
        /// The end that was found.
        found: u64,
    },
    /// The predecessor's last chunk is not the one it names.
    Chain,
    /// The predecessor's last numbers are not the ones it names.
    Seqs,
}

impl fmt::Display for LinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch { named, found } => write!(f, "follows segment {:016x}, not {:016x}", named.0, found.0),
            Self::End { named, found } => write!(f, "says the one before ends at {named}, found {found}"),
            Self::Chain => f.write_str("names another chunk as the last one before it"),
            Self::Seqs => f.write_str("names other chunk numbers than those before it"),
        }
    }
}

impl SegmentHeader {
    /// Writes the header.
    pub fn encode(&self, page: &mut [u8; SEGMENT_HEADER_BYTES]) {
        page.fill(0);
        put(page, 0, &MAGIC);
        put(page, 4, &FORMAT_VERSION.to_le_bytes());
        put(page, 6, &self.writer.0.to_le_bytes());
        put(page, 8, &self.epoch.0.to_le_bytes());
        put(page, 16, &self.segment_bytes.to_le_bytes());
        put(page, 24, &self.created_unix_ns.to_le_bytes());
        put(page, 32, &self.previous_epoch.0.to_le_bytes());
        put(page, 40, &self.previous_end.to_le_bytes());
        put(page, 48, &self.previous_crc.to_le_bytes());
        for (shard, seq) in self.seqs.0.iter().enumerate() {
            put(page, SEQS_AT + shard * 8, &seq.0.to_le_bytes());
        }
        let crc = crc32c(&page[..CRC_AT]);
        put(page, CRC_AT, &crc.to_le_bytes());
    }

    /// Reads the header of segment `epoch` of `writer`.
    ///
    /// # Errors
    /// Everything [`SegmentFault`] names.
    pub fn decode(page: &[u8], writer: WriterId, epoch: Epoch) -> Result<Self, SegmentFault> {
        let Some(page) = page.get(..SEGMENT_HEADER_BYTES) else { return Err(SegmentFault::NoHeader) };
        if page[..MAGIC.len()] != MAGIC {
            return Err(SegmentFault::NoHeader);
        }
        if crc32c(&page[..CRC_AT]) != get_u32(page, CRC_AT) {
            return Err(SegmentFault::Checksum);
        }
        let version = get_u16(page, 4);
        if version != FORMAT_VERSION {
            return Err(SegmentFault::Version(version));
        }
        let mut seqs = ShardSeqs::default();
        for (shard, seq) in seqs.0.iter_mut().enumerate() {
            *seq = Seq(get_u64(page, SEQS_AT + shard * 8));
        }
        let header = Self {
            writer: WriterId(get_u16(page, 6)),
            epoch: Epoch(get_u64(page, 8)),
            segment_bytes: get_u64(page, 16),
            created_unix_ns: get_u64(page, 24),
            previous_epoch: Epoch(get_u64(page, 32)),
            previous_end: get_u64(page, 40),
            previous_crc: get_u32(page, 48),
            seqs,
        };
        if header.epoch != epoch || header.writer != writer {
            return Err(SegmentFault::Stale(header.epoch));
        }
        if header.is_possible() { Ok(header) } else { Err(SegmentFault::Fields) }
    }

    /// Checks that this segment continues segment `epoch`, whose valid data ends at `end`.
    ///
    /// # Errors
    /// What does not fit.
    pub fn follows(&self, epoch: Epoch, end: u64, crc: u32, seqs: &ShardSeqs) -> Result<(), LinkFault> {
        if self.previous_epoch != epoch {
            return Err(LinkFault::Epoch { named: self.previous_epoch, found: epoch });
        }
        if self.previous_end != end {
            return Err(LinkFault::End { named: self.previous_end, found: end });
        }
        if self.previous_crc != crc {
            return Err(LinkFault::Chain);
        }
        if self.seqs == *seqs { Ok(()) } else { Err(LinkFault::Seqs) }
    }

    fn is_possible(&self) -> bool {
        let page = PAGE_BYTES as u64;
        self.epoch > Epoch(0)
            && self.previous_epoch < self.epoch
            && self.segment_bytes >= 2 * page
            && self.segment_bytes <= SEGMENT_BYTES_LIMIT
            && self.segment_bytes.is_multiple_of(page)
            && self.previous_end.is_multiple_of(page)
            && self.previous_end <= SEGMENT_BYTES_LIMIT
            && (self.previous_epoch == Epoch(0)) == (self.previous_end == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        let mut seqs = ShardSeqs::default();
        assert!(seqs.advance(ShardId(0), Seq(1)) && seqs.advance(ShardId(255), Seq(1)));
        SegmentHeader {
            writer: WriterId(0),
            epoch: Epoch(9),
            segment_bytes: 1 << 20,
            created_unix_ns: 77,
            previous_epoch: Epoch(7),
            previous_end: 8192,
            previous_crc: 0xABCD,
            seqs,
        }
    }

    fn encoded(header: &SegmentHeader) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut page = [0xFF; SEGMENT_HEADER_BYTES];
        header.encode(&mut page);
        page
    }

    #[test]
    fn a_header_reads_back_as_written() {
        let page = encoded(&header());
        assert_eq!(SegmentHeader::decode(&page, WriterId(0), Epoch(9)), Ok(header()));
        assert_eq!(SegmentHeader::decode(&page, WriterId(0), Epoch(8)), Err(SegmentFault::Stale(Epoch(9))));
        assert_eq!(SegmentHeader::decode(&page, WriterId(1), Epoch(9)), Err(SegmentFault::Stale(Epoch(9))));
        assert_eq!(SegmentHeader::decode(&[0; 4096], WriterId(0), Epoch(9)), Err(SegmentFault::NoHeader));
        assert_eq!(SegmentHeader::decode(&page[..4000], WriterId(0), Epoch(9)), Err(SegmentFault::NoHeader));
    }

    #[test]
    fn every_corrupted_byte_is_noticed() {
        let page = encoded(&header());
        for at in (0..SEGMENT_HEADER_BYTES).step_by(if cfg!(miri) { 512 } else { 1 }) {
            let mut bad = page;
            bad[at] ^= 0x10;
            assert!(SegmentHeader::decode(&bad, WriterId(0), Epoch(9)).is_err(), "byte {at}");
        }
    }

    #[test]
    fn impossible_fields_are_refused_even_with_a_right_checksum() {
        let impossible: [fn(&mut SegmentHeader); 6] = [
            |header| header.previous_epoch = header.epoch,
            |header| header.segment_bytes = 4096,
            |header| header.segment_bytes = (1 << 20) + 512,
            |header| header.segment_bytes = SEGMENT_BYTES_LIMIT + 4096,
            |header| header.previous_end = 100,
            |header| header.previous_epoch = Epoch(0),
        ];
        for (row, change) in impossible.iter().enumerate() {
            let mut header = header();
            change(&mut header);
            let decoded = SegmentHeader::decode(&encoded(&header), WriterId(0), Epoch(9));
            assert_eq!(decoded, Err(SegmentFault::Fields), "row {row}");
        }
    }

    #[test]
    fn a_segment_follows_exactly_one_end() {
        let header = header();
        assert_eq!(header.follows(Epoch(7), 8192, 0xABCD, &header.seqs), Ok(()));
        let wrong_epoch = LinkFault::Epoch { named: Epoch(7), found: Epoch(6) };
        assert_eq!(header.follows(Epoch(6), 8192, 0xABCD, &header.seqs), Err(wrong_epoch));
        let wrong_end = LinkFault::End { named: 8192, found: 4096 };
        assert_eq!(header.follows(Epoch(7), 4096, 0xABCD, &header.seqs), Err(wrong_end));
        assert_eq!(header.follows(Epoch(7), 8192, 0, &header.seqs), Err(LinkFault::Chain));
        assert_eq!(header.follows(Epoch(7), 8192, 0xABCD, &ShardSeqs::default()), Err(LinkFault::Seqs));
    }

    #[test]
    fn numbers_only_ever_advance_by_one() {
        let mut seqs = ShardSeqs::default();
        assert!(!seqs.advance(ShardId(3), Seq(2)), "a gap");
        assert!(seqs.advance(ShardId(3), Seq(1)) && seqs.advance(ShardId(3), Seq(2)));
        assert!(!seqs.advance(ShardId(3), Seq(2)), "a repetition");
        assert!(!seqs.advance(ShardId(256), Seq(1)), "out of range");
        assert_eq!(seqs.iter().collect::<Vec<_>>(), [(ShardId(3), Seq(2))]);
        assert_eq!(seqs.last(ShardId(u16::MAX)), Seq(0));
    }
}
