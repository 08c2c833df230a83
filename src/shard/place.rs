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

    /// Stores the first of `events` at once: those that were proven valid when they were scanned and hold no line end, as
    /// long as the open chunk has room. Returns how many and their bytes, without headers; the next is for [`Placer::place`].
    #[inline]
    pub fn place_proven(&mut self, events: &[Scan<'_>], tenant: TenantId) -> (u32, usize) {
        let room = self.log.open_room();
        let (mut count, mut bytes) = (0, 0);
        for event in events {
            let next = bytes + RECORD_HEADER_BYTES + event.text().len();
            if !event.is_proven() || event.may_have_line_ends() || next > room {
                break;
            }
            (count, bytes) = (count + 1, next);
        }
        if count == 0 {
            return (0, 0);
        }
        let mut rest = self.log.extend(bytes).expect("no more than there is room for");
        for event in &events[..count] {
            let record;
            (record, rest) = rest.split_at_mut(RECORD_HEADER_BYTES + event.text().len());
            write_record(record, event.text(), tenant, false);
        }
        self.log.commit(count as u32);
        (count as u32, bytes - count * RECORD_HEADER_BYTES)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::{KIB, MIB};
    use crate::handoff::{Bell, WriterPort, channel};
    use crate::json::Lines;
    use crate::record::Records;
    use crate::sys::memory::Region;

    /// Small, so that a few hundred events fill several.
    const CHUNK_BYTES: usize = 16 * KIB;

    fn placer() -> (Placer, WriterPort) {
        let region = Arc::new(Region::map(2 * MIB, false).unwrap());
        let bell = || Arc::new(Bell::new().unwrap());
        let (shard, writer) = channel(ShardId(0), Arc::clone(&region), 256, Seq(0), bell(), bell(), Arc::default());
        let log = LogBuffer::new(region, ShardId(0), CHUNK_BYTES, Seq(0));
        (Placer::new(WriterId(0), ShardId(0), log, shard, 128), writer)
    }

    /// The payloads of the chunks that were handed over, and how many events each is said to hold.
    fn chunks((mut placer, mut writer): (Placer, WriterPort)) -> Vec<(Vec<u8>, u32, u32)> {
        placer.seal(0);
        let mut chunks = Vec::new();
        while let Some(chunk) = writer.take() {
            let payload =
                writer.bytes(&chunk)[crate::handoff::CHUNK_HEADER_BYTES..][..chunk.payload_bytes as usize].to_vec();
            assert_eq!(Records::check(&payload, chunk.events), Ok(()));
            chunks.push((payload, chunk.events, chunk.payload_crc));
        }
        chunks
    }

    /// Lines of every length, now and then with line ends in them or broken.
    fn lines() -> Vec<u8> {
        let mut text = Vec::new();
        for number in 0..600 {
            let filler = "x".repeat(number * 37 % 400);
            let line = match number % 23 {
                7 => format!("{{\"n\":{number},\r\"f\":\"{filler}\"}}"),
                11 => format!("{{\"n\":{number},}}"),
                _ => format!("{{\"n\":{number},\"f\":\"{filler}\"}}"),
            };
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        }
        text
    }

    /// Places every line, together where `together` says so; how many were placed that way.
    fn place_all(placer: &mut Placer, together: bool) -> u32 {
        let (text, mut scanned, mut placed) = (lines(), Lines::new(), 0);
        let mut rest = &text[..];
        while !rest.is_empty() {
            let bytes = placer.validator().scan_lines(rest, &mut scanned);
            let mut left = scanned.as_slice();
            while let Some(line) = left.first() {
                let (count, event_bytes) = if together { placer.place_proven(left, TenantId(7)) } else { (0, 0) };
                let taken = &left[..count as usize];
                assert_eq!(event_bytes, taken.iter().map(|line| line.text().len()).sum::<usize>());
                placed += count;
                if count == 0 {
                    match placer.place(line.text(), Some(*line), TenantId(7), 0, |_| {}) {
                        Ok(_) | Err(Unplaced::Invalid(_)) => {}
                        Err(Unplaced::NoRoom) => panic!("the log buffer holds all of them"),
                    }
                }
                left = &left[count.max(1) as usize..];
            }
            rest = &rest[bytes..];
        }
        placed
    }

    #[test]
    fn events_placed_together_lie_as_if_placed_one_by_one() {
        let (mut one_by_one, mut together) = (placer(), placer());
        assert_eq!(place_all(&mut one_by_one.0, false), 0);
        let placed = place_all(&mut together.0, true);
        // The rest: the first of each chunk, those with line ends, and what comes before their shape is known.
        assert!(placed > 400, "only {placed} of 600 went together");
        let (expected, found) = (chunks(one_by_one), chunks(together));
        assert!(expected.len() > 5, "{} chunks are too few to say that they end alike", expected.len());
        assert!(found == expected, "the same chunks with the same bytes");
    }

    #[test]
    fn together_go_as_many_as_fill_the_chunk_and_no_byte_more() {
        for (beyond, placed) in [(0, 2), (1, 1)] {
            let (mut placer, _writer) = placer();
            placer.place(b"{\"f\":\"\"}", None, TenantId(0), 0, |_| {}).unwrap();
            let event = |bytes: usize| format!("{{\"f\":\"{}\"}}", "x".repeat(bytes - 8));
            let room = placer.log().open_room();
            let text = format!("{}\n{}\n", event(100), event(room - 100 - 2 * RECORD_HEADER_BYTES + beyond));
            let mut lines = Lines::new();
            assert_eq!(placer.validator().scan_lines(text.as_bytes(), &mut lines), text.len());
            assert_eq!(placer.place_proven(lines.as_slice(), TenantId(0)).0, placed);
            assert_eq!(placer.log().open_room() == 0, beyond == 0);
        }
    }
}
