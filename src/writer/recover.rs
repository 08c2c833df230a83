//! Where the log ends after a stop of any kind, or why that cannot be said. Control thread, before the writer's starts;
//! pure over [`ReadStorage`]: reads, decides, changes nothing.
//!
//! One row per (position, state); `X` is the offset of the first chunk that is not whole, `E` its segment. Each row has
//! a test of its name in `tests/recovery.rs`.
//!
//! | position | state | verdict | test |
//! |---|---|---|---|
//! | directory | empty | a new log | `an_empty_directory_is_a_new_log` |
//! | directory | prepared files, no segment (crash between create and rename) | a new log | `a_crash_between_create_and_rename_loses_nothing` |
//! | newest, end | seal | clean end | `a_sealed_log_ends_cleanly` |
//! | newest, end | zeros | clean end | `zeros_are_a_clean_end` |
//! | newest, end | chunks of an older epoch (recycled file) | clean end | `stale_data_of_a_recycled_segment_is_not_the_log` |
//! | newest, X | chunk not whole, nothing behind it | torn tail, dropped | `a_torn_last_chunk_is_dropped` |
//! | newest, X | chunk not whole, chunks of the same group behind it | torn tail, dropped | `an_unsynced_group_partly_written_is_dropped` |
//! | newest, X | chunk not whole, a later group behind it | damage | `damage_before_a_later_group_is_refused` |
//! | newest, X | chunk not whole, the seal behind it | damage | `damage_before_the_seal_is_refused` |
//! | newest, X | chunk not whole, the durable mark behind it | damage | `damage_before_the_durable_mark_is_refused` |
//! | newest, X | whole chunk, wrong number for its shard | damage | `a_gap_in_a_shards_numbers_is_refused` |
//! | newest, X | whole chunk, continues another chunk | damage | `a_broken_chain_is_refused` |
//! | newest, header | not sound, no chunk of its epoch | discarded | `an_unused_newest_segment_with_a_bad_header_is_discarded` |
//! | newest, header | not sound, chunks of its epoch | damage | `a_used_newest_segment_with_a_bad_header_is_refused` |
//! | newest | sound, no chunk (crash after the roll) | discarded | `an_empty_newest_segment_is_discarded` |
//! | newest | missing, but the durable mark lies in it | damage | `a_missing_newest_segment_is_refused` |
//! | older, X | chunk not whole before the end its successor names | damage | `damage_in_an_older_segment_is_refused` |
//! | older | chunks behind the end its successor names (dropped tail) | not the log | `a_tail_once_dropped_stays_dropped` |
//! | older, header | not sound | damage | `an_older_segment_with_a_bad_header_is_refused` |
//! | between | missing segment | damage | `a_missing_segment_is_refused` |
//! | oldest | predecessor gone (retention) | sound | `retired_segments_are_not_missed` |
//! | retired file | crash during retention | ignored, removed | `a_crash_during_retention_loses_nothing_live` |
//!
//! Damage is refused, never repaired: what was acknowledged is not there, and only the operator can say what that means.
//!
//! Segments are read whole from the newest backwards up to a budget of bytes, so that a start takes seconds whatever
//! the log holds; of the ones before, the headers and what they say of each other are checked. `tidegate verify` reads
//! everything.

use std::fmt;
use std::io;

use super::segment::{FileName, Live};
use crate::base::{Epoch, WriterId};
use crate::record::walk::{Bound, Cursor, Damage, Fault, Tail, WALK_BUFFER_BYTES_MIN, Walker};
use crate::record::{ChunkKind, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::sys::storage::{AlignedBytes, FileId, ReadStorage};

/// Bytes read at a time: above it a disk gets no faster.
const READ_BYTES: usize = 2 << 20;
const _: () = assert!(READ_BYTES >= WALK_BUFFER_BYTES_MIN);
/// Segments read whole whatever their length: the newest may be empty, and then the one before it is the end.
const SEGMENTS_READ_MIN: usize = 2;

/// Why the end of the log cannot be said.
#[derive(Debug)]
pub enum RecoverError {
    /// Acknowledged data is not there.
    Damaged(Damage),
    /// The directory or a file cannot be read.
    Io {
        /// What was tried.
        what: String,
        /// What the system answered.
        error: io::Error,
    },
}

impl From<Damage> for RecoverError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(damage) => damage.fmt(f),
            Self::Io { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for RecoverError {}

/// What recovery found, for the log of the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segments kept.
    pub segments: usize,
    /// Segments read whole.
    pub segments_read: usize,
    /// Events in them.
    pub events_read: u64,
    /// How the newest segment with chunks ends; `None` for a new log.
    pub tail: Option<Tail>,
    /// What was dropped, as a sentence; `None` if nothing was.
    pub truncated: Option<String>,
    /// Segments dropped because they were begun but never used.
    pub discarded: Vec<Epoch>,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.segments == 0 {
            return f.write_str("a new log");
        }
        write!(
            f,
            "recovered a log of {} segments; read {} of them with {} events",
            self.segments, self.segments_read, self.events_read
        )?;
        if !self.discarded.is_empty() {
            write!(f, "; discarded {} that were begun and never used", self.discarded.len())?;
        }
        if let Some(truncated) = &self.truncated {
            write!(f, "; {truncated}")?;
        }
        Ok(())
    }
}

/// Where the log ends and what it consists of.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The end: what the next chunk continues, and where.
    pub end: Cursor,
    /// The segments kept, oldest first.
    pub live: Vec<Live>,
    /// An epoch that no segment here ever had, nor any above it.
    pub next_epoch: Epoch,
    /// What was found.
    pub report: RecoveryReport,
}

/// Finds the end of the log of `writer` in `storage`. Reads whole segments up to about `read_bytes_max` bytes.
///
/// # Errors
/// [`RecoverError::Damaged`] by the table above, [`RecoverError::Io`] if something cannot be read.
pub fn recover(
    storage: &mut dyn ReadStorage,
    writer: WriterId,
    read_bytes_max: u64,
) -> Result<Recovered, RecoverError> {
    let mark = storage.durable_mark().map_err(io_at("reading the durable mark"))?;
    let mut recovery = Recovery {
        storage,
        writer,
        walker: Walker::new(AlignedBytes::zeroed(READ_BYTES)),
        report: RecoveryReport::default(),
    };
    let mut segments = recovery.read_headers()?;
    let newest = segments.last().map_or(Epoch(0), |segment| segment.live.epoch);
    let highest = newest.max(mark.map_or(Epoch(0), |mark| mark.epoch));
    // A mark at the very start of a segment proves nothing of it: it held no chunk yet.
    if let Some(mark) = mark.filter(|mark| mark.epoch > newest && mark.end > SEGMENT_HEADER_BYTES as u64) {
        let offset = SEGMENT_HEADER_BYTES as u64;
        return Err(Damage { writer, epoch: mark.epoch, offset, fault: Fault::Missing }.into());
    }
    let durable_end = mark.filter(|mark| mark.epoch == newest).map_or(0, |mark| mark.end);
    recovery.drop_unused_newest(&mut segments, durable_end)?;
    recovery.check_links(&segments)?;
    let end = recovery.walk(&mut segments, newest, durable_end, read_bytes_max)?;
    let mut report = recovery.report;
    report.segments = segments.len();
    let next_ends: Vec<u64> = segments.iter().skip(1).map(|next| sound(next).previous_end).collect();
    let ends = next_ends.into_iter().chain([end.offset]);
    let live = segments.into_iter().zip(ends).map(|(segment, end)| Live { end, ..segment.live }).collect();
    Ok(Recovered { end, live, next_epoch: Epoch(highest.0.saturating_add(1)), report })
}

fn io_at(what: &str) -> impl FnOnce(io::Error) -> RecoverError {
    let what = what.to_owned();
    move |error| RecoverError::Io { what, error }
}

struct Segment {
    live: Live,
    header: Result<SegmentHeader, Fault>,
}

struct Recovery<'a> {
    storage: &'a mut dyn ReadStorage,
    writer: WriterId,
    walker: Walker<AlignedBytes>,
    report: RecoveryReport,
}

impl Recovery<'_> {
    fn damage(&self, epoch: Epoch, offset: u64, fault: Fault) -> RecoverError {
        Damage { writer: self.writer, epoch, offset, fault }.into()
    }

    /// Opens a segment, hands it to `body`, closes it.
    fn with_file<T>(
        &mut self,
        epoch: Epoch,
        body: impl FnOnce(&mut dyn ReadStorage, &mut Walker<AlignedBytes>, FileId) -> io::Result<T>,
    ) -> Result<T, RecoverError> {
        let name = FileName::Segment(epoch).text();
        let what = format!("reading {name}");
        let file = self.storage.open(&name).map_err(io_at(&what))?;
        self.walker.forget();
        let outcome = body(self.storage, &mut self.walker, file);
        self.storage.close(file);
        outcome.map_err(io_at(&what))
    }

    /// Every segment with its header, oldest first.
    fn read_headers(&mut self) -> Result<Vec<Segment>, RecoverError> {
        let entries = self.storage.list().map_err(io_at("listing the log's directory"))?;
        let mut files: Vec<(Epoch, u64)> = entries
            .iter()
            .filter_map(|entry| match FileName::parse(&entry.name) {
                Some(FileName::Segment(epoch)) => Some((epoch, entry.bytes)),
                _ => None,
            })
            .collect();
        files.sort_unstable();
        let mut page = AlignedBytes::zeroed(SEGMENT_HEADER_BYTES);
        let mut segments = Vec::with_capacity(files.len());
        for (epoch, bytes) in files {
            let read = self.with_file(epoch, |storage, _, file| storage.read_at(file, 0, page.as_mut()))?;
            let header = SegmentHeader::decode(&page.as_ref()[..read], self.writer, epoch).map_err(Fault::Segment);
            let created_unix_ns = header.as_ref().map_or(0, |header| header.created_unix_ns);
            let live = Live { epoch, bytes, end: 0, disk_bytes: bytes, created_unix_ns, newest_unix_ns: 0 };
            segments.push(Segment { live, header });
        }
        Ok(segments)
    }

    /// Drops the newest segment if its header is not sound and it was never used. Its header is synced before it gets
    /// its name, and its name before its first chunk, so a crash leaves this behind only on a filesystem that reorders
    /// more than it should.
    fn drop_unused_newest(&mut self, segments: &mut Vec<Segment>, durable_end: u64) -> Result<(), RecoverError> {
        let Some(Segment { live, header: Err(fault) }) = segments.last() else { return Ok(()) };
        let (live, fault) = (*live, *fault);
        let writer = self.writer;
        let used = durable_end > SEGMENT_HEADER_BYTES as u64
            || self.with_file(live.epoch, |storage, walker, file| {
                let mut read = |offset, into: &mut [u8]| storage.read_at(file, offset, into);
                walker.holds_chunks(writer, live.epoch, live.bytes, &mut read)
            })?;
        if used {
            return Err(self.damage(live.epoch, 0, fault));
        }
        self.discard(segments);
        Ok(())
    }

    fn discard(&mut self, segments: &mut Vec<Segment>) {
        let segment = segments.pop().expect("there is a newest segment");
        self.report.discarded.push(segment.live.epoch);
    }

    /// Checks what the headers say of each other.
    fn check_links(&self, segments: &[Segment]) -> Result<(), RecoverError> {
        let mut previous: Option<&Segment> = None;
        for segment in segments {
            let epoch = segment.live.epoch;
            let header = segment.header.as_ref().map_err(|fault| self.damage(epoch, 0, *fault))?;
            if let Some(previous) = previous {
                let (end, crc) = (header.previous_end, header.previous_crc);
                header
                    .follows(previous.live.epoch, end, crc, &header.seqs)
                    .map_err(|fault| self.damage(epoch, 0, Fault::Link(fault)))?;
            }
            previous = Some(segment);
        }
        Ok(())
    }

    /// Reads the newest segments whole and returns the end of the log; drops the newest if it holds no chunk.
    fn walk(
        &mut self,
        segments: &mut Vec<Segment>,
        newest: Epoch,
        durable_end: u64,
        read_bytes_max: u64,
    ) -> Result<Cursor, RecoverError> {
        let first = first_to_read(segments, read_bytes_max);
        let mut end: Option<Cursor> = None;
        for index in first..segments.len() {
            let header = sound(&segments[index]).clone();
            let epoch = header.epoch;
            if let Some(end) = &end {
                header
                    .follows(end.epoch, end.offset, end.crc, &end.seqs)
                    .map_err(|fault| self.damage(epoch, 0, Fault::Link(fault)))?;
            }
            let bound = match segments.get(index + 1) {
                Some(next) => Bound::Closed(sound(next).previous_end),
                None if epoch == newest => Bound::Open(durable_end),
                // A newer segment was begun and dropped again. It was begun after this one was synced, but where that
                // was it no longer says.
                None => Bound::Open(0),
            };
            let mut cursor = Cursor::at_start_of(&header);
            let (mut events, mut newest_unix_ns) = (0, 0);
            let tail = self.with_file(epoch, |storage, walker, file| {
                let mut read = |offset, into: &mut [u8]| storage.read_at(file, offset, into);
                walker.finish(&mut cursor, header.segment_bytes, bound, &mut read, &mut |chunk| {
                    newest_unix_ns = chunk.header.sealed_unix_ns.max(newest_unix_ns);
                    if chunk.header.kind == ChunkKind::Events {
                        events += u64::from(chunk.header.events);
                    }
                })
            })??;
            segments[index].live.newest_unix_ns = newest_unix_ns;
            self.report.segments_read += 1;
            self.report.events_read += events;
            self.note_tail(&cursor, tail);
            if index + 1 == segments.len() && cursor.offset == SEGMENT_HEADER_BYTES as u64 {
                self.discard(segments);
                return Ok(Cursor::before(&header));
            }
            end = Some(cursor);
        }
        Ok(end.unwrap_or_else(|| Cursor::before_all(self.writer)))
    }

    fn note_tail(&mut self, cursor: &Cursor, tail: Tail) {
        self.report.tail = Some(tail);
        if let Tail::Torn(fault) = tail {
            self.report.truncated = Some(format!(
                "writer-{:02}/{:016x}.segment: dropped an unfinished group at offset {} that was never acknowledged \
                 as durable ({fault})",
                cursor.writer.0, cursor.epoch.0, cursor.offset
            ));
        }
    }
}

fn sound(segment: &Segment) -> &SegmentHeader {
    segment.header.as_ref().expect("checked by check_links")
}

/// Index of the oldest segment to read whole.
fn first_to_read(segments: &[Segment], read_bytes_max: u64) -> usize {
    let mut bytes = 0u64;
    let mut first = segments.len();
    while first > 0 {
        bytes = bytes.saturating_add(segments[first - 1].live.bytes);
        if segments.len() - first >= SEGMENTS_READ_MIN && bytes > read_bytes_max {
            break;
        }
        first -= 1;
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ShardSeqs;
    use crate::sys::storage::faulty::FaultyDisk;

    /// The table's rows are tested over whole logs in `tests/recovery.rs`; here is what can run under Miri.
    #[test]
    fn segments_without_chunks_are_found_linked_and_dropped() {
        let disk = FaultyDisk::new(1);
        let mut page = vec![0; 3 * SEGMENT_HEADER_BYTES];
        let mut header = SegmentHeader {
            writer: WriterId(0),
            epoch: Epoch(3),
            segment_bytes: page.len() as u64,
            created_unix_ns: 9,
            previous_epoch: Epoch(2),
            previous_end: 8192,
            previous_crc: 5,
            seqs: ShardSeqs::default(),
        };
        header.encode((&mut page[..SEGMENT_HEADER_BYTES]).try_into().unwrap());
        disk.put(&FileName::Segment(Epoch(3)).text(), page.clone());
        let recovered = recover(&mut disk.storage(), WriterId(0), 0).unwrap();
        assert_eq!((recovered.end.epoch, recovered.end.offset, recovered.end.crc), (Epoch(2), 8192, 5));
        assert_eq!((recovered.live, recovered.next_epoch), (vec![], Epoch(4)));
        assert_eq!(recovered.report.discarded, [Epoch(3)]);
        // A second one that continues another is not dropped but refused.
        header.epoch = Epoch(4);
        header.encode((&mut page[..SEGMENT_HEADER_BYTES]).try_into().unwrap());
        disk.put(&FileName::Segment(Epoch(4)).text(), page);
        let error = recover(&mut disk.storage(), WriterId(0), 0).unwrap_err();
        assert!(matches!(error, RecoverError::Damaged(Damage { epoch: Epoch(4), offset: 0, .. })), "{error}");
    }
}
