//! Every event of a data directory, writer by writer, in log order. Reader thread.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::tail::{ReadError, Tail};
use crate::base::{Position, TenantId, WriterId};
use crate::record::{ChunkHeader, ChunkKind, Records};
use crate::sys::storage::{self, FileStorage, Follower, ReadStorage};

/// One event as it was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its place in the log.
    pub position: Position,
    /// Whose it is.
    pub tenant: TenantId,
    /// When its chunk was closed, Unix time in nanoseconds.
    pub received_unix_ns: u64,
    /// Its bytes: one line of JSON, without the line's end.
    pub event: &'a [u8],
}

/// A durable, checked chunk of events.
#[derive(Clone, Copy, Debug)]
pub struct StoredChunk<'a> {
    header: ChunkHeader,
    payload: &'a [u8],
    /// Events before this one are not to be shown.
    first_index: u32,
}

impl<'a> StoredChunk<'a> {
    /// Its events, in order.
    pub fn events(&self) -> impl Iterator<Item = Event<'a>> + use<'a> {
        let header = self.header;
        let records = Records::new(self.payload).map(|record| record.expect("checked with the chunk"));
        records.enumerate().skip(self.first_index as usize).map(move |(index, record)| Event {
            position: Position {
                writer: header.writer,
                shard: header.shard,
                seq: header.seq,
                index: u32::try_from(index).expect("events of a chunk are counted in 32 bits"),
            },
            tenant: record.tenant,
            received_unix_ns: header.sealed_unix_ns,
            event: record.event,
        })
    }
}

/// Reads the logs of all writers. Between writers there is no order: they are read in turn.
pub struct LogReader {
    tails: Vec<Tail>,
    /// The tail that gave the last chunk.
    turn: usize,
    /// Everything before this is to be skipped.
    from: Option<Position>,
    data: Option<PathBuf>,
    follower: Option<Follower>,
    not_registered: Option<io::Error>,
}

impl LogReader {
    /// Opens a data directory, from its oldest event on, and registers as a follower if that is allowed.
    ///
    /// # Errors
    /// [`ReadError::NoLog`] if there is no such directory, [`ReadError::Io`] if it cannot be read.
    pub fn open(data: &Path) -> Result<Self, ReadError> {
        if !data.is_dir() {
            return Err(ReadError::NoLog(format!("{} is not a data directory", data.display())));
        }
        let mut reader = Self::over(Vec::new());
        reader.data = Some(data.to_owned());
        reader.look_for_writers()?;
        Ok(reader)
    }

    /// Reads from any storages, one per writer. Does not register.
    #[must_use]
    pub fn over(storages: Vec<(WriterId, Box<dyn ReadStorage>)>) -> Self {
        let tails = storages.into_iter().map(|(writer, storage)| Tail::new(writer, storage)).collect();
        Self { tails, turn: 0, from: None, data: None, follower: None, not_registered: None }
    }

    /// Why retention will not wait for this reader, or will for longer than it has to; `None` if all is well.
    #[must_use]
    pub fn not_registered(&self) -> Option<&io::Error> {
        self.not_registered.as_ref()
    }

    /// Starts at `position` instead: at that event, or at the end of the log if it is not there yet. Only the log of
    /// its writer is read from here on, since a position orders the events of one writer only.
    ///
    /// # Errors
    /// [`ReadError::Retired`] if retention removed it, [`ReadError::NoPosition`] if no event can have it, [`ReadError::NoLog`]
    /// if there is no such writer, and as [`LogReader::next_chunk`].
    pub fn seek(&mut self, position: Position) -> Result<(), ReadError> {
        let (tails, others) = self.tails.drain(..).partition(|tail| tail.writer() == position.writer);
        self.tails = tails;
        self.leave(&others);
        let Some(tail) = self.tails.first_mut() else {
            return Err(ReadError::NoLog(format!("there is no log of writer {}", position.writer.0)));
        };
        tail.seek(position)?;
        self.data = None;
        self.turn = 0;
        self.from = Some(position);
        self.say_what_is_needed();
        Ok(())
    }

    /// The next chunk known to be durable; `None` if there is none now. To be asked again to follow.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] if acknowledged data is not there, [`ReadError::Overtaken`] if retention was faster than
    /// an unregistered reader, [`ReadError::Io`] if something cannot be read.
    pub fn next_chunk(&mut self) -> Result<Option<StoredChunk<'_>>, ReadError> {
        let Some(first_index) = self.advance()? else { return Ok(None) };
        let chunk = self.tails[self.turn].chunk().expect("a tail that advanced has a chunk");
        Ok(Some(StoredChunk { header: chunk.header, payload: chunk.payload, first_index }))
    }

    /// Moves one tail to its next chunk to be shown; the index of the first event to be shown.
    fn advance(&mut self) -> Result<Option<u32>, ReadError> {
        let mut ended = 0;
        while ended < self.tails.len() {
            let tail = &mut self.tails[self.turn];
            let epoch = tail.epoch();
            let advanced = tail.advance()?;
            if tail.epoch() != epoch {
                self.say_what_is_needed();
            }
            if !advanced {
                ended += 1;
                self.turn = (self.turn + 1) % self.tails.len();
                continue;
            }
            let header = self.tails[self.turn].chunk().expect("a tail that advanced has a chunk").header;
            if let Some(first_index) = self.first_to_show(&header) {
                return Ok(Some(first_index));
            }
        }
        // A position that was not met lies behind the end: what comes now comes after it was asked for.
        self.from = None;
        self.look_for_writers()?;
        Ok(None)
    }

    fn first_to_show(&mut self, header: &ChunkHeader) -> Option<u32> {
        if header.kind == ChunkKind::Seal {
            return None;
        }
        match self.from {
            None => Some(0),
            Some(from) if (header.shard, header.seq) == (from.shard, from.seq) => {
                self.from = None;
                Some(from.index)
            }
            Some(_) => None,
        }
    }

    /// Opens the logs of writers that came since the last look.
    fn look_for_writers(&mut self) -> Result<(), ReadError> {
        let Some(data) = &self.data else { return Ok(()) };
        let known: BTreeSet<WriterId> = self.tails.iter().map(Tail::writer).collect();
        let found =
            writers(data).map_err(|error| ReadError::Io { what: format!("listing {}", data.display()), error })?;
        if found.iter().all(|writer| known.contains(writer)) {
            return Ok(());
        }
        // Registered before anything is listed: what is seen then stays.
        match Follower::register(data, &found) {
            Ok(follower) => (self.follower, self.not_registered) = (Some(follower), None),
            Err(error) => self.not_registered = Some(error),
        }
        for writer in found.into_iter().filter(|writer| !known.contains(writer)) {
            self.tails.push(open_tail(data, writer)?);
        }
        self.say_what_is_needed();
        Ok(())
    }

    /// Lets retention have what was registered for and will not be read.
    fn leave(&mut self, others: &[Tail]) {
        let Some(follower) = &self.follower else { return };
        if let Err(error) = others.iter().try_for_each(|tail| follower.leaves(tail.writer())) {
            self.not_registered = Some(error);
        }
    }

    fn say_what_is_needed(&mut self) {
        let Some(follower) = &self.follower else { return };
        for tail in &self.tails {
            if let Err(error) = follower.needs(tail.writer(), tail.epoch()) {
                // What was said last still stands, and keeps more than is needed.
                self.not_registered = Some(error);
            }
        }
    }
}

fn open_tail(data: &Path, writer: WriterId) -> Result<Tail, ReadError> {
    let directory = data.join(directory_name(writer));
    let storage = FileStorage::open(&directory)
        .map_err(|error| ReadError::Io { what: format!("opening {}", directory.display()), error })?;
    Ok(Tail::new(writer, Box::new(storage)))
}

/// Refuses a directory in which no server has kept a log: nothing in it can be missing, so it would pass for sound. A
/// data directory has a lock file from its server's first start on, and writers' directories soon after; a copy of a log
/// may be without the former.
///
/// # Errors
/// [`ReadError::NoLog`] if it is none, [`ReadError::Io`] if that cannot be told.
pub fn expect_data_directory(data: &Path) -> Result<(), ReadError> {
    let shown = data.display();
    if !data.is_dir() {
        return Err(ReadError::NoLog(format!("{shown} is not a data directory")));
    }
    let found = writers(data).and_then(|writers| Ok(!writers.is_empty() || storage::was_held(data)?));
    match found {
        Ok(true) => Ok(()),
        Ok(false) => Err(ReadError::NoLog(format!(
            "{shown} is not a data directory: no server has kept a log in it (there is neither a LOCK of a server's nor a \
             writer-00); name by --data what `tidegate serve` was given"
        ))),
        Err(error) => Err(ReadError::Io { what: format!("looking for a log in {shown}"), error }),
    }
}

/// The writers that have a directory in `data`, ascending.
pub(super) fn writers(data: &Path) -> io::Result<Vec<WriterId>> {
    let mut writers = Vec::new();
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(|name| name.strip_prefix("writer-")) else { continue };
        let Ok(writer) = number.parse().map(WriterId) else { continue };
        if name.to_str() == Some(&directory_name(writer)) && entry.path().is_dir() {
            writers.push(writer);
        }
    }
    writers.sort_unstable();
    Ok(writers)
}

pub(super) fn directory_name(writer: WriterId) -> String {
    format!("writer-{:02}", writer.0)
}
