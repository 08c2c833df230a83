//! Puts valid events into the open chunk and chunks into the writer's ring. Shard thread only.
//!
//! An event's bytes are copied once on their way to disk, here: from where they were received to their place in the
//! chunk. The validator reads them where they were received and proves most events there, so the copy comes after the
//! verdict and the chunk never holds half an event. In valid JSON a raw CR or LF can only be white space (RFC 8259 §7
//! wants them escaped in strings), so both are stored as a space and every stored event is one line. The validator
//! knows whether there are any.

use crate::base::{Position, Seq, ShardId, TenantId, WriterId};
use crate::handoff::{LogBuffer, NoRoom, ShardPort};
use crate::json::{Event, JsonError, Scan, Validator};
use crate::record::{RECORD_HEADER_BYTES, crc32c_append, put_record_header};

/// Why an event was not placed.
#[derive(Debug)]
pub enum Unplaced {
    /// It is not a valid event: it was not stored, the batch goes on.
    Invalid(JsonError),
    /// Neither the log buffer nor the ring has room: try again when chunks have settled.
    NoRoom,
}

/// See the module text.
pub struct Placer {
    writer: WriterId,
    shard: ShardId,
    log: LogBuffer,
    port: ShardPort,
    validator: Validator,
    /// Checksum of the open chunk's payload up to `summed_bytes`.
    crc: u32,
    summed_bytes: usize,
    chunks_sealed: u64,
}

impl Placer {
    /// A placer that fills `log` for the writer behind `port`.
    #[must_use]
    pub fn new(writer: WriterId, shard: ShardId, log: LogBuffer, port: ShardPort, json_depth_max: usize) -> Self {
        let validator = Validator::new(json_depth_max);
        Self { writer, shard, log, port, validator, crc: 0, summed_bytes: 0, chunks_sealed: 0 }
    }

    /// The validator, to look at events with before they are placed.
    #[inline]
    pub fn validator(&mut self) -> &mut Validator {
        &mut self.validator
    }

    /// The log buffer.
    #[must_use]
    pub fn log(&self) -> &LogBuffer {
        &self.log
    }

    /// The writer's port.
    #[must_use]
    pub fn port(&self) -> &ShardPort {
        &self.port
    }

    /// Chunks sealed so far.
    #[must_use]
    pub fn chunks_sealed(&self) -> u64 {
        self.chunks_sealed
    }

    /// Validates `event` and stores it; `seen` is shown the valid event before it is stored. `scan` is of the event, if
    /// it was scanned. Returns its position.
    ///
    /// # Errors
    /// [`Unplaced`], with nothing stored.
    #[inline]
    pub fn place(
        &mut self,
        event: &[u8],
        scan: Option<Scan<'_>>,
        tenant: TenantId,
        unix_ns: u64,
        seen: impl FnOnce(&mut Event<'_>),
    ) -> Result<Position, Unplaced> {
        let mut valid = judge(&mut self.validator, event, scan).map_err(Unplaced::Invalid)?;
        seen(&mut valid);
        let may_have_line_ends = valid.may_have_line_ends();
        let record = self.room(RECORD_HEADER_BYTES + event.len(), unix_ns)?;
        write_record(record, event, tenant, may_have_line_ends);
        let position = self.next_position();
        self.log.commit(1);
        Ok(position)
    }

    /// Stores `events` records that [`write_record`] made of valid events, all in one chunk. Returns the position of the
    /// first.
    ///
    /// # Errors
    /// [`Unplaced::NoRoom`], with nothing stored.
    pub fn place_records(&mut self, records: &[u8], events: u32, unix_ns: u64) -> Result<Position, Unplaced> {
        self.room(records.len(), unix_ns)?.copy_from_slice(records);
        let position = self.next_position();
        self.log.commit(events);
        Ok(position)
    }

    /// Number of the chunk being filled: what is placed now becomes durable with it.
    #[must_use]
    pub fn open_seq(&self) -> Seq {
        self.log.open_seq()
    }

    /// Brings the checksum up to the last event, while its bytes are still in cache.
    pub fn checksum(&mut self) {
        let bytes = self.log.open_payload(self.summed_bytes);
        self.crc = crc32c_append(self.crc, bytes);
        self.summed_bytes += bytes.len();
    }

    /// Whether the open chunk holds events and may be handed over now.
    #[must_use]
    pub fn can_seal(&self) -> bool {
        self.log.open_events() > 0 && self.port.has_room()
    }

    /// Seals the open chunk and hands it to the writer; nothing happens if it is empty or the ring has no room.
    pub fn seal(&mut self, unix_ns: u64) {
        if !self.can_seal() {
            return;
        }
        self.checksum();
        let chunk = self.log.seal(self.crc, unix_ns).expect("it holds events");
        (self.crc, self.summed_bytes) = (0, 0);
        self.chunks_sealed += 1;
        assert!(self.port.offer(chunk).is_ok(), "room in the ring was checked");
    }

    /// Takes settled chunks back; whether there were any.
    pub fn take_settled(&mut self) -> bool {
        self.port.take_settled(&mut self.log) > 0
    }

    fn next_position(&self) -> Position {
        Position { writer: self.writer, shard: self.shard, seq: self.log.open_seq(), index: self.log.open_events() }
    }

    fn room(&mut self, bytes: usize, unix_ns: u64) -> Result<&mut [u8], Unplaced> {
        if self.log.reserve(bytes) == Err(NoRoom::ChunkFull) {
            // Without room in the ring this does nothing, and the chunk stays full.
            self.seal(unix_ns);
        }
        self.log.extend(bytes).map_err(|_| Unplaced::NoRoom)
    }
}

/// The verdict on `event`, with a scan of it or without.
///
/// # Errors
/// [`JsonError`], if it is not valid.
#[inline(always)]
pub fn judge<'a>(
    validator: &'a mut Validator,
    event: &'a [u8],
    scan: Option<Scan<'a>>,
) -> Result<Event<'a>, JsonError> {
    let scan = scan.unwrap_or_else(|| validator.scan_whole(event));
    validator.judge(scan)
}

/// Writes one event record into `record`, which is as long as header and event together. Line ends become spaces, if
/// the event may have any.
#[inline]
pub fn write_record(record: &mut [u8], event: &[u8], tenant: TenantId, may_have_line_ends: bool) {
    let (header, body) = record.split_at_mut(RECORD_HEADER_BYTES);
    put_record_header(header.try_into().expect("split at its length"), event.len(), tenant, 0);
    body.copy_from_slice(event);
    if may_have_line_ends {
        for at in memchr::memchr2_iter(b'\r', b'\n', event) {
            body[at] = b' ';
        }
    }
}
