//! Walks the chunks of one segment and judges where it ends. Any thread; pure: bytes come from a closure.
//!
//! The one hard question of recovery is whether a chunk that is not whole was ever acknowledged. It was not if nothing
//! proves that a sync covered it: then it is a *torn tail* and the log ends before it. It may have been if something
//! does: then it is *damage*. For a chunk missing at offset X of segment E, the proofs are
//!
//! 1. a chunk further on in E that was written after X was synced, and says so: `synced_end > X`;
//! 2. a segment after E: its header says where E ended, and was written after that was synced;
//! 3. the durable mark, which the writer moves past X only after the sync that covers X returned 0.
//!
//! Of what was never synced any subset of the writes may be on disk, each torn anywhere: the last group, and the one
//! that was being synced while it was written. All their chunks carry a `synced_end ≤ X`, so none of them proves anything.

use std::fmt;
use std::io;

use super::chunk::{CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, HeaderFault};
use super::crc32c;
use super::event::{RecordFault, Records};
use super::segment::{LinkFault, SEGMENT_HEADER_BYTES, SegmentFault, SegmentHeader, ShardSeqs};
use crate::base::{CHUNK_BYTES_MAX, Epoch, PAGE_BYTES, Seq, ShardId, WriterId};

/// Bytes a [`Walker`]'s buffer must have: the longest chunk.
pub const WALK_BUFFER_BYTES_MIN: usize = CHUNK_BYTES_MAX;

/// What padding is compared with; it is always shorter than a page.
static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// A place between two chunks of one writer's log, with all that the next chunk must continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The writer.
    pub writer: WriterId,
    /// The segment.
    pub epoch: Epoch,
    /// Where in the segment the next chunk begins.
    pub offset: u64,
    /// Header CRC of the last chunk; 0 if there is none.
    pub crc: u32,
    /// The last chunk number of each shard.
    pub seqs: ShardSeqs,
    /// What the last chunk in this segment says was synced before it; 0 before the first.
    synced_end: u64,
}

impl Cursor {
    /// The place before the first chunk of a segment.
    #[must_use]
    pub fn at_start_of(header: &SegmentHeader) -> Self {
        Self {
            writer: header.writer,
            epoch: header.epoch,
            offset: SEGMENT_HEADER_BYTES as u64,
            crc: header.previous_crc,
            seqs: header.seqs.clone(),
            synced_end: 0,
        }
    }

    /// The end of what lies before a segment, as its header says.
    #[must_use]
    pub fn before(header: &SegmentHeader) -> Self {
        Self { epoch: header.previous_epoch, offset: header.previous_end, ..Self::at_start_of(header) }
    }

    /// The place before the first chunk ever.
    #[must_use]
    pub fn before_all(writer: WriterId) -> Self {
        Self { writer, epoch: Epoch(0), offset: 0, crc: 0, seqs: ShardSeqs::default(), synced_end: 0 }
    }

    /// Moves behind a whole chunk; its fault, and nothing moved, if it does not continue the log.
    fn advance(&mut self, header: &ChunkHeader, crc: u32) -> Result<(), Fault> {
        if header.previous_crc != self.crc {
            return Err(Fault::Chain);
        }
        if header.synced_end < self.synced_end {
            return Err(Fault::SyncedEnd);
        }
        if header.kind == ChunkKind::Events && !self.seqs.advance(header.shard, header.seq) {
            let last = self.seqs.last(header.shard);
            return Err(Fault::Seq { shard: header.shard, last, found: header.seq });
        }
        self.synced_end = header.synced_end;
        self.crc = crc;
        self.offset = header.end();
        Ok(())
    }
}

/// Why the chunk expected at a place is not there, or a segment is not the one expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No such header.
    Header(HeaderFault),
    /// The chunk ends behind its segment, or behind the end its successor names.
    Overrun,
    /// The payload's checksum does not hold.
    Payload,
    /// The padding is not zero.
    Padding,
    /// The payload's checksum holds but its records do not add up.
    Records(RecordFault),
    /// The chunk continues another chunk than the one before it.
    Chain,
    /// The chunk knows of less that was synced than the one before it.
    SyncedEnd,
    /// The chunk's number is not the one after the shard's last.
    Seq {
        /// The shard.
        shard: ShardId,
        /// Its last number.
        last: Seq,
        /// The chunk's.
        found: Seq,
    },
    /// The file is shorter than its segment.
    Short,
    /// The segment's header is not sound.
    Segment(SegmentFault),
    /// The segment does not continue the one before it.
    Link(LinkFault),
    /// A segment that the durable mark names is missing.
    Missing,
}

impl Fault {
    /// Whether a crash between write and sync can leave this behind. What it cannot is damage wherever it is found.
    #[must_use]
    pub fn can_be_torn(&self) -> bool {
        // A sound header of another version, or with impossible fields, was written so: to drop it would lose what a
        // later release wrote.
        let torn_header =
            matches!(self, Self::Header(HeaderFault::NoHeader | HeaderFault::Checksum | HeaderFault::Stale(_)));
        torn_header || matches!(self, Self::Payload | Self::Padding | Self::Short)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(fault) => fault.fmt(f),
            Self::Overrun => f.write_str("a chunk ends behind its segment"),
            Self::Payload => f.write_str("a chunk's payload with a wrong checksum"),
            Self::Padding => f.write_str("a chunk's padding is not zero"),
            Self::Records(fault) => fault.fmt(f),
            Self::Chain => f.write_str("a chunk that does not continue the one before it"),
            Self::SyncedEnd => f.write_str("a chunk older than the one before it"),
            Self::Seq { shard, last, found } => {
                write!(f, "chunk {} of shard {} follows chunk {}", found.0, shard.0, last.0)
            }
            Self::Short => f.write_str("the file is cut short"),
            Self::Segment(fault) => fault.fmt(f),
            Self::Link(fault) => fault.fmt(f),
            Self::Missing => f.write_str("a segment known to be durable is missing"),
        }
    }
}

/// Acknowledged data that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The writer.
    pub writer: WriterId,
    /// The segment.
    pub epoch: Epoch,
    /// Where in it.
    pub offset: u64,
    /// What is wrong there.
    pub fault: Fault,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "writer-{:02}/{:016x}.segment is damaged at offset {}: {}",
            self.writer.0, self.epoch.0, self.offset, self.fault
        )
    }
}

/// How a segment is known to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Exactly here: the next segment's header says so.
    Closed(u64),
    /// Nowhere yet: it is the newest. What lies before this offset is known to be durable.
    Open(u64),
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Where the next segment says.
    Closed,
    /// With a seal: the server was stopped in order.
    Sealed,
    /// With zeros or with what a recycled file held before.
    Clean,
    /// With an unfinished group that was never acknowledged.
    Torn(Fault),
}

/// One chunk, whole.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Its header.
    pub header: ChunkHeader,
    /// Its event records.
    pub payload: &'a [u8],
}

/// What is at a cursor.
#[derive(Debug)]
pub enum Step<'a> {
    /// A whole chunk that continues the log; the cursor is behind it.
    Chunk(Chunk<'a>),
    /// No such chunk; the cursor has not moved.
    Stop(Fault),
}

/// Reads chunks through a buffer of at least [`WALK_BUFFER_BYTES_MIN`]. Bytes come from `read(offset, into)`, which
/// returns how many there were, fewer than asked for only at the end of the file.
#[derive(Debug)]
pub struct Walker<B> {
    buffer: B,
    window_start: u64,
    window_bytes: usize,
    current: Option<ChunkHeader>,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Walker<B> {
    /// A walker over `buffer`, aligned as its reads must be.
    ///
    /// # Panics
    /// If the buffer is too short or not a whole number of pages.
    #[must_use]
    pub fn new(buffer: B) -> Self {
        assert!(buffer.as_ref().len() >= WALK_BUFFER_BYTES_MIN, "the buffer must hold the longest chunk");
        assert!(buffer.as_ref().len().is_multiple_of(PAGE_BYTES));
        Self { buffer, window_start: 0, window_bytes: 0, current: None }
    }

    /// Forgets what was read: for another file, or one whose bytes may have changed.
    pub fn forget(&mut self) {
        self.window_bytes = 0;
        self.current = None;
    }

    /// The chunk that [`Walker::next`] returned last, if nothing was done since.
    #[must_use]
    pub fn current(&self) -> Option<Chunk<'_>> {
        let header = self.current?;
        let from = (header.offset - self.window_start) as usize + CHUNK_HEADER_BYTES;
        let payload = &self.buffer.as_ref()[from..from + header.payload_bytes as usize];
        Some(Chunk { header, payload })
    }

    /// Checks the chunk at `cursor` and moves the cursor behind it. Nothing at or behind `limit` is read: bytes before
    /// it must not change any more.
    ///
    /// # Errors
    /// What `read` fails with.
    pub fn next<R>(&mut self, cursor: &mut Cursor, limit: u64, read: &mut R) -> io::Result<Step<'_>>
    where
        R: FnMut(u64, &mut [u8]) -> io::Result<usize>,
    {
        self.current = None;
        let at = cursor.offset;
        let page = self.fill(at, PAGE_BYTES, limit, read)?;
        if page.len() < PAGE_BYTES {
            let fault = if at < limit { Fault::Short } else { Fault::Header(HeaderFault::NoHeader) };
            return Ok(Step::Stop(fault));
        }
        let (header, crc) = match ChunkHeader::decode_at(page, cursor.writer, cursor.epoch, at) {
            Ok(decoded) => decoded,
            Err(fault) => return Ok(Step::Stop(Fault::Header(fault))),
        };
        if header.end() > limit {
            return Ok(Step::Stop(Fault::Overrun));
        }
        let window = self.fill(at, header.padded_bytes(), limit, read)?;
        let Some(bytes) = window.get(..header.padded_bytes()) else { return Ok(Step::Stop(Fault::Short)) };
        let (payload, padding) = bytes[CHUNK_HEADER_BYTES..].split_at(header.payload_bytes as usize);
        if crc32c(payload) != header.payload_crc {
            return Ok(Step::Stop(Fault::Payload));
        }
        if padding != &ZEROS[..padding.len()] {
            return Ok(Step::Stop(Fault::Padding));
        }
        if let Err(fault) = Records::check(payload, header.events) {
            return Ok(Step::Stop(Fault::Records(fault)));
        }
        if let Err(fault) = cursor.advance(&header, crc) {
            return Ok(Step::Stop(fault));
        }
        self.current = Some(header);
        Ok(Step::Chunk(self.current().expect("just set")))
    }

    /// Walks the rest of a segment from `cursor` on, shows each chunk to `visit`, and judges its end.
    ///
    /// # Errors
    /// What `read` fails with; damage is an answer, not an error.
    pub fn finish<R, V>(
        &mut self,
        cursor: &mut Cursor,
        segment_bytes: u64,
        bound: Bound,
        read: &mut R,
        visit: &mut V,
    ) -> io::Result<Result<Tail, Damage>>
    where
        R: FnMut(u64, &mut [u8]) -> io::Result<usize>,
        V: FnMut(&Chunk<'_>),
    {
        let (limit, durable_end) = match bound {
            Bound::Closed(end) => (end, end),
            Bound::Open(durable_end) => (segment_bytes, durable_end),
        };
        let damage = |cursor: &Cursor, fault| Damage {
            writer: cursor.writer,
            epoch: cursor.epoch,
            offset: cursor.offset,
            fault,
        };
        if limit > segment_bytes || durable_end > segment_bytes {
            return Ok(Err(damage(cursor, Fault::Overrun)));
        }
        let mut sealed = false;
        while cursor.offset < limit && !sealed {
            let fault = match self.next(cursor, limit, read)? {
                Step::Chunk(chunk) => {
                    sealed = chunk.header.kind == ChunkKind::Seal;
                    visit(&chunk);
                    continue;
                }
                Step::Stop(fault) => fault,
            };
            if !fault.can_be_torn() || cursor.offset < durable_end {
                return Ok(Err(damage(cursor, fault)));
            }
            return Ok(match self.survey(cursor, limit, read)? {
                Survey::Proof => Err(damage(cursor, fault)),
                Survey::NoProof => Ok(Tail::Torn(fault)),
                Survey::Nothing if is_clean(&fault) => Ok(Tail::Clean),
                Survey::Nothing => Ok(Tail::Torn(fault)),
            });
        }
        if cursor.offset < durable_end {
            return Ok(Err(damage(cursor, Fault::Missing)));
        }
        Ok(Ok(match bound {
            Bound::Closed(_) => Tail::Closed,
            Bound::Open(_) if sealed => Tail::Sealed,
            Bound::Open(_) => Tail::Clean,
        }))
    }

    /// Whether any page of a segment holds the header of one of its chunks: what tells an unused segment from one whose
    /// own header is damaged.
    ///
    /// # Errors
    /// What `read` fails with.
    pub fn holds_chunks<R>(
        &mut self,
        writer: WriterId,
        epoch: Epoch,
        segment_bytes: u64,
        read: &mut R,
    ) -> io::Result<bool>
    where
        R: FnMut(u64, &mut [u8]) -> io::Result<usize>,
    {
        let cursor = Cursor { epoch, ..Cursor::before_all(writer) };
        Ok(!matches!(self.survey(&cursor, segment_bytes, read)?, Survey::Nothing))
    }

    /// Looks at every page behind the cursor for chunks of this segment.
    fn survey<R>(&mut self, cursor: &Cursor, limit: u64, read: &mut R) -> io::Result<Survey>
    where
        R: FnMut(u64, &mut [u8]) -> io::Result<usize>,
    {
        self.current = None;
        let mut found = Survey::Nothing;
        let mut at = cursor.offset + PAGE_BYTES as u64;
        while at < limit {
            let pages = self.fill(at, PAGE_BYTES, limit, read)?;
            if pages.len() < PAGE_BYTES {
                break;
            }
            for page in pages.chunks_exact(PAGE_BYTES) {
                match ChunkHeader::decode_at(page, cursor.writer, cursor.epoch, at) {
                    Ok((header, _)) if header.synced_end > cursor.offset => return Ok(Survey::Proof),
                    Ok(_) => found = Survey::NoProof,
                    Err(_) => {}
                }
                at += PAGE_BYTES as u64;
            }
        }
        Ok(found)
    }

    /// The bytes from `at` on, as many as the buffer holds; at least `needed` unless the file or `limit` ends before.
    fn fill<R>(&mut self, at: u64, needed: usize, limit: u64, read: &mut R) -> io::Result<&[u8]>
    where
        R: FnMut(u64, &mut [u8]) -> io::Result<usize>,
    {
        debug_assert!(needed <= self.buffer.as_ref().len());
        let window_end = self.window_start + self.window_bytes as u64;
        if at < self.window_start || at + needed as u64 > window_end {
            let kept = if at >= self.window_start && at < window_end { (window_end - at) as usize } else { 0 };
            let buffer = self.buffer.as_mut();
            // `at` and the window's ends are multiples of a page, so what is read stays aligned, as O_DIRECT asks.
            buffer.copy_within(self.window_bytes - kept..self.window_bytes, 0);
            self.window_start = at;
            self.window_bytes = kept;
            let wanted = limit.saturating_sub(at).min(buffer.len() as u64) as usize;
            while self.window_bytes < wanted {
                let got = read(at + self.window_bytes as u64, &mut buffer[self.window_bytes..wanted])?;
                if got == 0 {
                    break;
                }
                self.window_bytes += got;
            }
            // A file that ends within a page ends before it.
            self.window_bytes -= self.window_bytes % PAGE_BYTES;
        }
        let from = (at - self.window_start) as usize;
        Ok(&self.buffer.as_ref()[from..self.window_bytes])
    }
}

/// What lies behind a chunk that is not whole.
enum Survey {
    Nothing,
    /// Chunks written before a sync covered it.
    NoProof,
    /// A chunk written after a sync covered it.
    Proof,
}

/// Whether a fault with nothing behind it is simply the end: no chunk was begun there.
fn is_clean(fault: &Fault) -> bool {
    matches!(fault, Fault::Header(HeaderFault::NoHeader | HeaderFault::Stale(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::TenantId;
    use crate::record::{RECORD_HEADER_BYTES, put_record_header};

    const WRITER: WriterId = WriterId(2);
    const EPOCH: Epoch = Epoch(5);
    const PAGE: u64 = PAGE_BYTES as u64;

    /// A segment of eight pages whose chunks, one page each, belong to groups of these sizes.
    fn segment(groups: &[u64]) -> (SegmentHeader, Vec<u8>) {
        let header = SegmentHeader {
            writer: WRITER,
            epoch: EPOCH,
            segment_bytes: 8 * PAGE,
            created_unix_ns: 1,
            previous_epoch: Epoch(4),
            previous_end: 2 * PAGE,
            previous_crc: 77,
            seqs: ShardSeqs::default(),
        };
        let mut bytes = vec![0; 8 * PAGE_BYTES];
        header.encode((&mut bytes[..PAGE_BYTES]).try_into().unwrap());
        let (mut offset, mut crc, mut seq) = (PAGE, 77, Seq(0));
        for chunks in groups {
            let synced_end = offset;
            for _ in 0..*chunks {
                seq = seq.next();
                crc = put_chunk(&mut bytes, offset, synced_end, seq, crc);
                offset += PAGE;
            }
        }
        (header, bytes)
    }

    fn put_chunk(bytes: &mut [u8], offset: u64, synced_end: u64, seq: Seq, previous_crc: u32) -> u32 {
        let event = format!("{{\"seq\":{}}}", seq.0);
        let page = &mut bytes[offset as usize..offset as usize + PAGE_BYTES];
        let payload_bytes = RECORD_HEADER_BYTES + event.len();
        let payload = &mut page[CHUNK_HEADER_BYTES..CHUNK_HEADER_BYTES + payload_bytes];
        put_record_header(payload.first_chunk_mut().unwrap(), event.len(), TenantId(0), 0);
        payload[RECORD_HEADER_BYTES..].copy_from_slice(event.as_bytes());
        let header = ChunkHeader {
            kind: ChunkKind::Events,
            epoch: EPOCH,
            offset,
            synced_end,
            writer: WRITER,
            shard: ShardId(0),
            seq,
            sealed_unix_ns: 0,
            events: 1,
            payload_bytes: payload_bytes as u32,
            payload_crc: crc32c(payload),
            previous_crc,
        };
        header.encode(page.first_chunk_mut().unwrap())
    }

    /// Chunks seen and the end found.
    fn finish(bytes: &[u8], header: &SegmentHeader, bound: Bound) -> (u64, Result<Tail, Damage>) {
        let mut walker = Walker::new(vec![0; WALK_BUFFER_BYTES_MIN]);
        let mut cursor = Cursor::at_start_of(header);
        let mut chunks = 0;
        // Short reads are continued.
        let mut read = |offset: u64, into: &mut [u8]| {
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            let length = rest.len().min(into.len()).min(3 * PAGE_BYTES);
            into[..length].copy_from_slice(&rest[..length]);
            Ok(length)
        };
        let judged = walker.finish(&mut cursor, header.segment_bytes, bound, &mut read, &mut |_| chunks += 1).unwrap();
        assert_eq!(cursor.seqs.last(ShardId(0)), Seq(chunks), "the cursor is behind what was seen");
        (chunks, judged)
    }

    #[test]
    fn only_what_was_written_after_a_sync_proves_it() {
        let (header, mut bytes) = segment(&[1, 2, 1]);
        assert_eq!(finish(&bytes, &header, Bound::Open(0)), (4, Ok(Tail::Clean)));
        assert_eq!(finish(&bytes, &header, Bound::Closed(5 * PAGE)), (4, Ok(Tail::Closed)));
        let damage = |page: u64, fault| Err(Damage { writer: WRITER, epoch: EPOCH, offset: page * PAGE, fault });
        let no_header = Fault::Header(HeaderFault::NoHeader);
        // The last group: torn, unless something says that it was synced.
        bytes[4 * PAGE_BYTES] ^= 1;
        assert_eq!(finish(&bytes, &header, Bound::Open(0)), (3, Ok(Tail::Clean)));
        assert_eq!(finish(&bytes, &header, Bound::Open(5 * PAGE)), (3, damage(4, no_header)));
        assert_eq!(finish(&bytes, &header, Bound::Closed(5 * PAGE)), (3, damage(4, no_header)));
        // The second group: its own rest proves nothing, the third group does.
        bytes[2 * PAGE_BYTES] ^= 1;
        assert_eq!(finish(&bytes, &header, Bound::Open(0)), (1, Ok(Tail::Torn(no_header))));
        bytes[4 * PAGE_BYTES] ^= 1;
        assert_eq!(finish(&bytes, &header, Bound::Open(0)), (1, damage(2, no_header)));
    }

    #[test]
    fn two_groups_may_be_torn_while_one_is_synced_beside_the_others_write() {
        // Pages 1 to 4, a group each, every one written while the one before it was synced.
        let synced_ends = [1, 1, 2, 3];
        let (header, mut bytes) = segment(&[]);
        let mut crc = 77;
        for (page, synced_end) in (1..).zip(synced_ends) {
            crc = put_chunk(&mut bytes, page * PAGE, synced_end * PAGE, Seq(page), crc);
        }
        assert_eq!(finish(&bytes, &header, Bound::Open(0)), (4, Ok(Tail::Clean)));
        let fault = Fault::Header(HeaderFault::NoHeader);
        let hit = |page: u64| {
            let mut bytes = bytes.clone();
            bytes[(page * PAGE) as usize] ^= 1;
            finish(&bytes, &header, Bound::Open(0))
        };
        assert_eq!(hit(4), (3, Ok(Tail::Clean)));
        assert_eq!(hit(3), (2, Ok(Tail::Torn(fault))), "the fourth was written before the third was synced");
        let damage = Damage { writer: WRITER, epoch: EPOCH, offset: 2 * PAGE, fault };
        assert_eq!(hit(2), (1, Err(damage)), "the fourth was written after the second was synced");
        // A chunk that knows less than the one before it was not written after it.
        let third = crc_of(&bytes, 3);
        put_chunk(&mut bytes, 4 * PAGE, PAGE, Seq(4), third);
        let damage = Damage { offset: 4 * PAGE, fault: Fault::SyncedEnd, ..damage };
        assert_eq!(finish(&bytes, &header, Bound::Open(0)), (3, Err(damage)));
    }

    fn crc_of(bytes: &[u8], page: u64) -> u32 {
        let offset = page * PAGE;
        ChunkHeader::decode_at(&bytes[offset as usize..], WRITER, EPOCH, offset).unwrap().1
    }

    #[test]
    fn an_end_that_does_not_fit_is_damage() {
        let (header, bytes) = segment(&[1, 1]);
        for (bound, chunks) in [(Bound::Closed(2 * PAGE), 1), (Bound::Closed(4 * PAGE), 2), (Bound::Open(4 * PAGE), 2)]
        {
            let (seen, judged) = finish(&bytes, &header, bound);
            let closes_early = bound == Bound::Closed(2 * PAGE);
            assert_eq!((seen, judged.is_ok()), (chunks, closes_early), "{bound:?}");
        }
        assert!(finish(&bytes, &header, Bound::Closed(9 * PAGE)).1.is_err(), "behind the segment");
        assert!(finish(&bytes[..2 * PAGE_BYTES + 100], &header, Bound::Closed(3 * PAGE)).1.is_err(), "cut short");
        assert_eq!(finish(&bytes[..2 * PAGE_BYTES], &header, Bound::Open(0)), (1, Ok(Tail::Torn(Fault::Short))));
    }

    #[test]
    fn a_chunk_in_another_place_is_not_that_places_chunk() {
        let (header, mut bytes) = segment(&[1, 1, 1]);
        let copy = bytes[2 * PAGE_BYTES..3 * PAGE_BYTES].to_vec();
        bytes[3 * PAGE_BYTES..4 * PAGE_BYTES].copy_from_slice(&copy);
        let stale = Tail::Clean;
        assert_eq!(finish(&bytes, &header, Bound::Open(0)), (2, Ok(stale)), "misplaced, so stale");
        let mut walker = Walker::new(vec![0; WALK_BUFFER_BYTES_MIN]);
        let mut read = |offset: u64, into: &mut [u8]| {
            into.copy_from_slice(&bytes[offset as usize..offset as usize + into.len()]);
            Ok(into.len())
        };
        assert!(walker.holds_chunks(WRITER, EPOCH, 8 * PAGE, &mut read).unwrap());
        assert!(!walker.holds_chunks(WRITER, Epoch(6), 8 * PAGE, &mut read).unwrap());
        assert!(!walker.holds_chunks(WriterId(1), EPOCH, 8 * PAGE, &mut read).unwrap());
    }
}
