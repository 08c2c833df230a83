//! Checks a whole log: every byte of every segment, and what they say of each other. Reader thread.
//!
//! Goes on behind damage, from the next segment, so that a report names all of it. Beside a running server it checks
//! what is durable at its start.

use std::path::Path;

use serde::Serialize;

use super::reader::{directory_name, expect_data_directory, writers};
use super::tail::ReadError;
use super::{READ_BYTES, segment_epoch, segment_name};
use crate::base::{Epoch, WriterId};
use crate::record::walk::{Bound, Cursor, Damage, Fault, Tail, Walker};
use crate::record::{ChunkKind, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::sys::storage::{AlignedBytes, DurableMark, FileStorage, Follower, ReadStorage};

/// How often a writer's log is looked at anew at most. A server that is restarted in a loop changes it once a start.
const LOOKS_MAX: u32 = 100;

/// What a log holds and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// No acknowledged data is missing.
    pub sound: bool,
    /// Events.
    pub events: u64,
    /// Chunks of events.
    pub chunks: u64,
    /// Bytes of events, with their record headers.
    pub event_bytes: u64,
    /// Bytes of all segment files.
    pub disk_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Each writer's part.
    pub writers: Vec<WriterReport>,
}

/// One writer's part of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WriterReport {
    /// The writer.
    pub writer: u16,
    /// Events.
    pub events: u64,
    /// Chunks of events.
    pub chunks: u64,
    /// Bytes of events, with their record headers.
    pub event_bytes: u64,
    /// Bytes of all segment files.
    pub disk_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Each shard with its last chunk's number.
    pub last_seqs: Vec<(u16, u64)>,
    /// The log was closed in order.
    pub sealed: bool,
    /// An unfinished group at the end that was never acknowledged as durable, as a sentence; not damage.
    pub torn_tail: Option<String>,
    /// Where acknowledged data is missing, as sentences that name segment and offset.
    pub damage: Vec<String>,
}

/// Checks the data directory `data`.
///
/// # Errors
/// [`ReadError::NoLog`] if that is not what it is, [`ReadError::Io`] if something cannot be read. Damage is in the report.
pub fn verify(data: &Path) -> Result<VerifyReport, ReadError> {
    // Before anything is written: a follower leaves a directory in what is somebody else's.
    expect_data_directory(data)?;
    let io = |what: String| move |error| ReadError::Io { what, error };
    let found = writers(data).map_err(io(format!("listing {}", data.display())))?;
    // Keeps retention away meanwhile; where that is not allowed, the log is looked at anew when a segment goes.
    let _follower = Follower::register(data, &found);
    let mut storages: Vec<(WriterId, Box<dyn ReadStorage>)> = Vec::new();
    for writer in found {
        let directory = data.join(directory_name(writer));
        let storage = FileStorage::open(&directory).map_err(io(format!("opening {}", directory.display())))?;
        storages.push((writer, Box::new(storage)));
    }
    verify_storages(storages)
}

/// Checks the logs in `storages`.
///
/// # Errors
/// As [`verify`].
pub fn verify_storages(storages: Vec<(WriterId, Box<dyn ReadStorage>)>) -> Result<VerifyReport, ReadError> {
    let mut report = VerifyReport { sound: true, ..VerifyReport::default() };
    for (writer, mut storage) in storages {
        let part = check_writer(writer, storage.as_mut())
            .map_err(|error| ReadError::Io { what: format!("reading writer-{:02}", writer.0), error })?;
        report.sound &= part.damage.is_empty();
        report.events += part.events;
        report.chunks += part.chunks;
        report.event_bytes += part.event_bytes;
        report.disk_bytes += part.disk_bytes;
        report.segments += part.segments;
        report.writers.push(part);
    }
    Ok(report)
}

/// Checks one writer's log; anew if a file went between being listed and being opened, as they do when a server starts or
/// retires segments meanwhile.
fn check_writer(writer: WriterId, storage: &mut dyn ReadStorage) -> std::io::Result<WriterReport> {
    for _ in 1..LOOKS_MAX {
        match Check::new(writer, storage).run() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            report => return report,
        }
    }
    Check::new(writer, storage).run()
}

struct Check<'a> {
    storage: &'a mut dyn ReadStorage,
    writer: WriterId,
    walker: Walker<AlignedBytes>,
    report: WriterReport,
}

impl<'a> Check<'a> {
    fn new(writer: WriterId, storage: &'a mut dyn ReadStorage) -> Self {
        let report = WriterReport { writer: writer.0, ..WriterReport::default() };
        Self { storage, writer, walker: Walker::new(AlignedBytes::zeroed(READ_BYTES)), report }
    }

    fn run(mut self) -> std::io::Result<WriterReport> {
        // In this order: what the mark names is in the directory when it is listed.
        let runs = self.storage.server_runs()?;
        let mark = self.storage.durable_mark()?;
        let segments = self.segments()?;
        let newest = segments.last().map_or(Epoch(0), |segment| segment.0);
        if let Some(mark) = mark.filter(|mark| mark.epoch > newest && mark.end > SEGMENT_HEADER_BYTES as u64) {
            self.note_damage(mark.epoch, SEGMENT_HEADER_BYTES as u64, Fault::Missing);
        }
        let mut previous: Option<Cursor> = None;
        let mut last: Option<Cursor> = None;
        for (index, (epoch, bytes)) in segments.iter().copied().enumerate() {
            let header = match self.header(epoch)? {
                Ok(header) => header,
                Err(fault) => {
                    let used = self.is_used(epoch, bytes, mark)?;
                    if index + 1 < segments.len() || used {
                        self.note_damage(epoch, 0, fault);
                        self.count_file(bytes);
                    }
                    previous = None;
                    continue;
                }
            };
            self.count_file(bytes);
            if let Some(Err(fault)) =
                previous.as_ref().map(|end| header.follows(end.epoch, end.offset, end.crc, &end.seqs))
            {
                self.note_damage(epoch, 0, Fault::Link(fault));
            }
            let next = match segments.get(index + 1) {
                Some((next, _)) => self.header(*next)?.ok(),
                None => None,
            };
            let bound = bound_of(epoch, next.as_ref(), mark, runs);
            let mut cursor = Cursor::at_start_of(&header);
            let sound = self.walk(&mut cursor, &header, bound)?;
            last = Some(cursor.clone());
            previous = sound.then_some(cursor);
        }
        let seqs = last.as_ref().map(|cursor| cursor.seqs.iter().map(|(shard, seq)| (shard.0, seq.0)).collect());
        self.report.last_seqs = seqs.unwrap_or_default();
        Ok(self.report)
    }

    /// Walks one segment; whether it is sound.
    fn walk(&mut self, cursor: &mut Cursor, header: &SegmentHeader, bound: Bound) -> std::io::Result<bool> {
        let file = self.storage.open(&segment_name(header.epoch))?;
        self.walker.forget();
        let (storage, report) = (&mut *self.storage, &mut self.report);
        let mut read = |offset, into: &mut [u8]| storage.read_at(file, offset, into);
        let judged = self.walker.finish(cursor, header.segment_bytes, bound, &mut read, &mut |chunk| {
            if chunk.header.kind == ChunkKind::Events {
                report.chunks += 1;
                report.events += u64::from(chunk.header.events);
                report.event_bytes += u64::from(chunk.header.payload_bytes);
            }
        });
        self.storage.close(file);
        match judged? {
            Ok(tail) => {
                self.report.sealed = tail == Tail::Sealed;
                self.report.torn_tail = match tail {
                    Tail::Torn(fault) => Some(format!(
                        "writer-{:02}/{:016x}.segment: an unfinished group at offset {} ({fault})",
                        self.writer.0, cursor.epoch.0, cursor.offset
                    )),
                    _ => None,
                };
                Ok(true)
            }
            Err(damage) => {
                self.note_damage(damage.epoch, damage.offset, damage.fault);
                Ok(false)
            }
        }
    }

    fn segments(&mut self) -> std::io::Result<Vec<(Epoch, u64)>> {
        let entries = self.storage.list()?;
        let mut segments: Vec<_> =
            entries.iter().filter_map(|entry| Some((segment_epoch(&entry.name)?, entry.bytes))).collect();
        segments.sort_unstable();
        Ok(segments)
    }

    fn header(&mut self, epoch: Epoch) -> std::io::Result<Result<SegmentHeader, Fault>> {
        let file = self.storage.open(&segment_name(epoch))?;
        let mut page = AlignedBytes::zeroed(SEGMENT_HEADER_BYTES);
        let read = self.storage.read_at(file, 0, page.as_mut());
        self.storage.close(file);
        Ok(SegmentHeader::decode(&page.as_ref()[..read?], self.writer, epoch).map_err(Fault::Segment))
    }

    fn is_used(&mut self, epoch: Epoch, bytes: u64, mark: Option<DurableMark>) -> std::io::Result<bool> {
        if mark.is_some_and(|mark| mark.epoch == epoch && mark.end > SEGMENT_HEADER_BYTES as u64) {
            return Ok(true);
        }
        let file = self.storage.open(&segment_name(epoch))?;
        self.walker.forget();
        let storage = &mut *self.storage;
        let mut read = |offset, into: &mut [u8]| storage.read_at(file, offset, into);
        let holds = self.walker.holds_chunks(self.writer, epoch, bytes, &mut read);
        self.storage.close(file);
        holds
    }

    fn count_file(&mut self, bytes: u64) {
        self.report.segments += 1;
        self.report.disk_bytes += bytes;
    }

    fn note_damage(&mut self, epoch: Epoch, offset: u64, fault: Fault) {
        self.report.damage.push(Damage { writer: self.writer, epoch, offset, fault }.to_string());
    }
}

/// How a segment is known to end.
fn bound_of(epoch: Epoch, next: Option<&SegmentHeader>, mark: Option<DurableMark>, runs: bool) -> Bound {
    let marked_end = mark.filter(|mark| mark.epoch == epoch).map(|mark| mark.end);
    match next {
        Some(next) if next.previous_epoch == epoch => Bound::Closed(next.previous_end),
        // A missing or damaged segment follows, which is reported at its own place.
        Some(_) => Bound::Open(0),
        // What the server is writing now is neither torn nor damaged: it is not there yet.
        None if runs => Bound::Closed(marked_end.unwrap_or(SEGMENT_HEADER_BYTES as u64)),
        None => Bound::Open(marked_end.unwrap_or(0)),
    }
}
