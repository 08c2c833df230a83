//! One writer's log from any chunk to its moving end. Reader thread.
//!
//! [`Tail::advance`] moves to the next durable chunk, over the ends of segments, and says `false` when there is none
//! yet; asked again later it goes on. What it stands on is a [`Cursor`], so that every chunk shown continues the one
//! shown before it: same chain, next number.

use std::fmt;
use std::io;

use super::{READ_BYTES, segment_epoch, segment_name};
use crate::base::{Epoch, Position, Seq, WriterId};
use crate::record::walk::{Bound, Chunk, Cursor, Damage, Fault, Step, Walker};
use crate::record::{LinkFault, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::sys::storage::{AlignedBytes, FileId, ReadStorage};

/// Why reading cannot go on.
#[derive(Debug)]
pub enum ReadError {
    /// Acknowledged data is not there.
    Damaged(Damage),
    /// Retention removed a segment before it was read. Only readers that could not register meet this.
    Overtaken {
        /// The writer.
        writer: WriterId,
        /// The segment.
        epoch: Epoch,
    },
    /// The position to start from was removed by retention.
    Retired(Position),
    /// The position to start from is none that an event can have.
    NoPosition(Position),
    /// There is no such log.
    NoLog(String),
    /// Something cannot be read.
    Io {
        /// What was tried.
        what: String,
        /// What the system answered.
        error: io::Error,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(damage) => damage.fmt(f),
            Self::Overtaken { writer, epoch } => write!(
                f,
                "retention removed writer-{:02}/{:016x}.segment while it was read: run as a user who may write to the \
                 data directory's followers/, so that it waits",
                writer.0, epoch.0
            ),
            Self::Retired(position) => write!(f, "position {position} is no longer in the log: retention removed it"),
            Self::NoPosition(position) => write!(
                f,
                "position {position} is no event's: positions are as the server answers them, the third number from 1 on; without \
                 --from everything is read"
            ),
            Self::NoLog(text) => f.write_str(text),
            Self::Io { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<Damage> for ReadError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

/// A segment being read.
struct Open {
    file: FileId,
    header: SegmentHeader,
    /// No chunk at or behind this is shown; grows while the segment is the newest.
    limit: u64,
    /// The limit is final: another segment follows.
    closed: bool,
    /// Its bytes were made durable by this reader, the server being gone.
    synced: bool,
}

/// See the module text.
pub(super) struct Tail {
    storage: Box<dyn ReadStorage>,
    writer: WriterId,
    walker: Walker<AlignedBytes>,
    cursor: Cursor,
    open: Option<Open>,
}

impl Tail {
    /// The log of `writer`, from its oldest chunk on.
    pub(super) fn new(writer: WriterId, storage: Box<dyn ReadStorage>) -> Self {
        let walker = Walker::new(AlignedBytes::zeroed(READ_BYTES));
        Self { storage, writer, walker, cursor: Cursor::before_all(writer), open: None }
    }

    pub(super) fn writer(&self) -> WriterId {
        self.writer
    }

    /// The segment being read: what is before it is not needed any more. 0 before the first.
    pub(super) fn epoch(&self) -> Epoch {
        self.cursor.epoch
    }

    /// The chunk last moved to.
    pub(super) fn chunk(&self) -> Option<Chunk<'_>> {
        self.walker.current()
    }

    /// Moves to the next durable chunk; false if there is none now.
    pub(super) fn advance(&mut self) -> Result<bool, ReadError> {
        loop {
            if self.open.is_none() && !self.open_next()? {
                return Ok(false);
            }
            let open = self.open.as_ref().expect("opened above");
            if self.cursor.offset < open.limit {
                if self.step()? {
                    return Ok(true);
                }
                // What was taken for the end moved, or the segment was given up.
                continue;
            }
            if open.closed {
                self.close();
            } else if !self.look_further()? {
                return Ok(false);
            }
        }
    }

    /// Starts at the segment in which `position` lies, if it is still there.
    pub(super) fn seek(&mut self, position: Position) -> Result<(), ReadError> {
        if position.seq == Seq(0) {
            return Err(ReadError::NoPosition(position));
        }
        let before = |header: &SegmentHeader| header.seqs.last(position.shard) < position.seq;
        let segments = self.segments()?;
        for (index, epoch) in segments.iter().enumerate().rev() {
            let Some((file, header)) = self.open_segment(*epoch)? else { continue };
            if before(&header) {
                self.start(file, header);
                return Ok(());
            }
            self.storage.close(file);
            if index == 0 {
                return Err(ReadError::Retired(position));
            }
        }
        Ok(())
    }

    fn io(&self, what: &str) -> impl FnOnce(io::Error) -> ReadError + use<> {
        let what = format!("{what} of writer-{:02}", self.writer.0);
        move |error| ReadError::Io { what, error }
    }

    fn damage(&self, epoch: Epoch, offset: u64, fault: Fault) -> ReadError {
        Damage { writer: self.writer, epoch, offset, fault }.into()
    }

    /// Checks the chunk at the cursor, which lies before the limit; false if there is none after all.
    fn step(&mut self) -> Result<bool, ReadError> {
        let open = self.open.as_ref().expect("a segment is open");
        let (file, storage) = (open.file, &mut self.storage);
        let mut read = |offset, into: &mut [u8]| storage.read_at(file, offset, into);
        let fault = match self.walker.next(&mut self.cursor, open.limit, &mut read) {
            Ok(Step::Chunk(_)) => return Ok(true),
            Ok(Step::Stop(fault)) => fault,
            Err(error) => return Err(self.io("reading a segment")(error)),
        };
        let epoch = self.cursor.epoch;
        if !self.is_still_there()? {
            // Its bytes may be another segment's by now.
            return Err(ReadError::Overtaken { writer: self.writer, epoch });
        }
        Err(self.damage(epoch, self.cursor.offset, fault))
    }

    fn is_still_there(&mut self) -> Result<bool, ReadError> {
        let open = self.open.as_ref().expect("a segment is open");
        let name = segment_name(open.header.epoch);
        self.storage.is_still(open.file, &name).map_err(self.io("looking at a segment"))
    }

    /// At the limit of the newest segment: moves the limit if more is durable by now, or finds out that the segment has
    /// a successor; false if neither.
    fn look_further(&mut self) -> Result<bool, ReadError> {
        let epoch = self.cursor.epoch;
        // In this order: if the server is gone, what it did before is seen by every later look.
        let runs = self.storage.server_runs().map_err(self.io("looking for the server"))?;
        let mark = self.storage.durable_mark().map_err(self.io("reading the durable mark"))?;
        if let Some(header) = self.successor()? {
            return self.note_successor(&header);
        }
        if let Some(mark) = mark.filter(|mark| mark.epoch > epoch && mark.end > SEGMENT_HEADER_BYTES as u64) {
            // Begun since the directory was listed, or, with nobody there to begin one, missing.
            if !runs {
                return Err(self.damage(mark.epoch, SEGMENT_HEADER_BYTES as u64, Fault::Missing));
            }
            return Ok(false);
        }
        let marked_end = mark.filter(|mark| mark.epoch == epoch).map(|mark| mark.end);
        let end = match (runs, marked_end) {
            (true, Some(end)) => end,
            // No mark at all: a server that cannot write one. One of another segment: it is just about to be moved.
            (true, None) if mark.is_some() => return Ok(false),
            (true, None) => self.evident_end()?,
            (false, end) => self.recovered_end(end.unwrap_or(0))?,
        };
        let open = self.open.as_mut().expect("a segment is open");
        let end = end.min(open.header.segment_bytes);
        let moved = end > open.limit;
        open.limit = open.limit.max(end);
        Ok(moved)
    }

    /// The newest segment has a successor: its end is known.
    fn note_successor(&mut self, successor: &SegmentHeader) -> Result<bool, ReadError> {
        let epoch = self.cursor.epoch;
        let still_there = self.is_still_there()?;
        let open = self.open.as_mut().expect("a segment is open");
        if successor.previous_epoch == epoch {
            if successor.previous_end > open.header.segment_bytes {
                // What the two headers say cannot both be true, whatever lies in the file.
                return Err(self.damage(epoch, self.cursor.offset, Fault::Overrun));
            }
            open.limit = successor.previous_end;
            open.closed = true;
            return Ok(true);
        }
        let begun_in_its_place = successor.previous_epoch == open.header.previous_epoch
            && successor.previous_end == open.header.previous_end;
        if begun_in_its_place && !still_there && self.cursor.offset == SEGMENT_HEADER_BYTES as u64 {
            // This one was never used, and dropped by a restart, which comes before its successor is begun: one that is still
            // there would be found again, for ever.
            let before = Cursor::before(&open.header);
            self.close();
            self.cursor = before;
            return Ok(true);
        }
        if !still_there {
            return Err(ReadError::Overtaken { writer: self.writer, epoch });
        }
        let fault = LinkFault::Epoch { named: successor.previous_epoch, found: epoch };
        Err(self.damage(successor.epoch, 0, Fault::Link(fault)))
    }

    /// The header of the segment that comes next, if there is one yet.
    fn successor(&mut self) -> Result<Option<SegmentHeader>, ReadError> {
        // A segment never used and dropped may have been begun again under its own number.
        let from = if self.cursor.offset == SEGMENT_HEADER_BYTES as u64 && !self.is_still_there()? {
            self.open.as_ref().expect("a segment is open").header.previous_epoch
        } else {
            self.cursor.epoch
        };
        match self.next_after(from)? {
            Some((file, header)) => {
                self.storage.close(file);
                Ok(Some(header))
            }
            None => Ok(None),
        }
    }

    /// With a server but without a mark: what the last chunk that can be seen says was synced before it was written.
    fn evident_end(&mut self) -> Result<u64, ReadError> {
        let open = self.open.as_ref().expect("a segment is open");
        let (file, limit, storage) = (open.file, open.header.segment_bytes, &mut self.storage);
        let mut read = |offset, into: &mut [u8]| storage.read_at(file, offset, into);
        let mut cursor = self.cursor.clone();
        let mut end = cursor.offset;
        self.walker.forget();
        let outcome = loop {
            match self.walker.next(&mut cursor, limit, &mut read) {
                Ok(Step::Chunk(chunk)) => end = chunk.header.synced_end,
                Ok(Step::Stop(_)) => break Ok(end),
                Err(error) => break Err(error),
            }
        };
        // What was read may have changed when it is read again.
        self.walker.forget();
        outcome.map_err(self.io("reading a segment"))
    }

    /// Without a server: where recovery would say that the log ends; or the mark, where what is behind it cannot be synced.
    fn recovered_end(&mut self, durable_end: u64) -> Result<u64, ReadError> {
        let open = self.open.as_mut().expect("a segment is open");
        let (file, bytes) = (open.file, open.header.segment_bytes);
        if !open.synced {
            open.synced = true;
            match self.storage.sync(file) {
                // An error has made the filesystem read-only: nothing can be made durable there, and nothing need be that is.
                Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                    open.synced = false;
                    return Ok(durable_end);
                }
                synced => synced.map_err(self.io("syncing a segment"))?,
            }
        }
        let storage = &mut self.storage;
        let mut read = |offset, into: &mut [u8]| storage.read_at(file, offset, into);
        let mut end = self.cursor.clone();
        self.walker.forget();
        let judged = self.walker.finish(&mut end, bytes, Bound::Open(durable_end), &mut read, &mut |_| {});
        self.walker.forget();
        judged.map_err(self.io("reading a segment"))??;
        Ok(end.offset)
    }

    /// Opens the first segment, or the one after the one just read; false if there is none yet.
    fn open_next(&mut self) -> Result<bool, ReadError> {
        // In this order: what the mark names is in the directory when it is listed.
        let runs = self.storage.server_runs().map_err(self.io("looking for the server"))?;
        let mark = self.storage.durable_mark().map_err(self.io("reading the durable mark"))?;
        let Some((file, header)) = self.next_after(self.cursor.epoch)? else {
            let epoch = self.cursor.epoch;
            return match mark.filter(|mark| mark.epoch > epoch && mark.end > SEGMENT_HEADER_BYTES as u64) {
                // With a server there it may just have been begun.
                Some(mark) if !runs => Err(self.damage(mark.epoch, SEGMENT_HEADER_BYTES as u64, Fault::Missing)),
                _ => Ok(false),
            };
        };
        if self.cursor.epoch > Epoch(0) {
            let Cursor { epoch, offset, crc, ref seqs, .. } = self.cursor;
            if let Err(fault) = header.follows(epoch, offset, crc, seqs) {
                self.storage.close(file);
                return Err(self.damage(header.epoch, 0, Fault::Link(fault)));
            }
        }
        self.start(file, header);
        Ok(true)
    }

    fn start(&mut self, file: FileId, header: SegmentHeader) {
        self.walker.forget();
        self.cursor = Cursor::at_start_of(&header);
        let limit = self.cursor.offset;
        self.open = Some(Open { file, header, limit, closed: false, synced: false });
    }

    fn close(&mut self) {
        self.walker.forget();
        if let Some(open) = self.open.take() {
            self.storage.close(open.file);
        }
    }

    /// Opens the segment with the lowest epoch above `epoch`.
    fn next_after(&mut self, epoch: Epoch) -> Result<Option<(FileId, SegmentHeader)>, ReadError> {
        loop {
            let Some(next) = self.segments()?.into_iter().find(|found| *found > epoch) else { return Ok(None) };
            match self.open_segment(next)? {
                Some(opened) => return Ok(Some(opened)),
                // Retired since it was listed, or never used: if it is the newest, nothing comes next.
                None if self.segments()?.last() == Some(&next) => return Ok(None),
                None => {}
            }
        }
    }

    /// Epochs of all segments, ascending.
    fn segments(&mut self) -> Result<Vec<Epoch>, ReadError> {
        let entries = self.storage.list().map_err(self.io("listing the log"))?;
        let mut epochs: Vec<_> = entries.iter().filter_map(|entry| segment_epoch(&entry.name)).collect();
        epochs.sort_unstable();
        Ok(epochs)
    }

    /// Opens a segment and reads its header; `None` if it has gone, or was begun and never used.
    fn open_segment(&mut self, epoch: Epoch) -> Result<Option<(FileId, SegmentHeader)>, ReadError> {
        let name = segment_name(epoch);
        let file = match self.storage.open(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io("opening a segment")(error)),
        };
        let mut page = AlignedBytes::zeroed(SEGMENT_HEADER_BYTES);
        let read = self.storage.read_at(file, 0, page.as_mut()).map_err(self.io("reading a segment's header"))?;
        match SegmentHeader::decode(&page.as_ref()[..read], self.writer, epoch) {
            Ok(header) => Ok(Some((file, header))),
            Err(fault) => {
                let unused = self.is_unused(file, epoch)?;
                self.storage.close(file);
                if unused { Ok(None) } else { Err(self.damage(epoch, 0, Fault::Segment(fault))) }
            }
        }
    }

    /// Whether a segment without a sound header is the newest and without chunks, or has gone meanwhile.
    fn is_unused(&mut self, file: FileId, epoch: Epoch) -> Result<bool, ReadError> {
        let gone = !self.storage.is_still(file, &segment_name(epoch)).map_err(self.io("looking at a segment"))?;
        if gone || self.segments()?.last() != Some(&epoch) {
            return Ok(gone);
        }
        let mark = self.storage.durable_mark().map_err(self.io("reading the durable mark"))?;
        if mark.is_some_and(|mark| mark.epoch == epoch && mark.end > SEGMENT_HEADER_BYTES as u64) {
            return Ok(false);
        }
        let bytes = self.storage.list().map_err(self.io("listing the log"))?;
        let bytes = bytes.iter().find(|entry| entry.name == segment_name(epoch)).map_or(0, |entry| entry.bytes);
        let storage = &mut self.storage;
        let mut read = |offset, into: &mut [u8]| storage.read_at(file, offset, into);
        self.walker.forget();
        let holds = self.walker.holds_chunks(self.writer, epoch, bytes, &mut read);
        self.walker.forget();
        holds.map(|holds| !holds).map_err(self.io("reading a segment"))
    }
}
