//! A shard's circular log buffer: chunks are bump-allocated at its head, written from where they lie and freed at its
//! tail in the order they were sealed. Shard thread only; the writer sees parts of it through [`SealedChunk`]s.
//!
//! Positions are virtual: they only grow, and a byte's place is its position modulo the capacity. A chunk never wraps:
//! where the rest of the buffer is too short for the next event, the rest is skipped and freed with the chunk before.
//! The buffer is the bound on bytes in flight: no room is an answer ([`NoRoom`]), not a wait.

use std::sync::Arc;

use crate::base::{PAGE_BYTES, Seq, ShardId, align_up};
use crate::sys::memory::Region;

/// Bytes kept free at the start of each chunk. The shard never writes them: the header is the writer's, which knows the
/// segment and the chunk before.
pub const CHUNK_HEADER_BYTES: usize = 96;

/// Why an event cannot be placed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The open chunk has no room for it: seal it and try again.
    ChunkFull,
    /// The buffer has none: wait for the writer to settle chunks.
    BufferFull,
}

/// A finished chunk on its way to disk. The holder owns its bytes; only the header may still change.
#[derive(Debug)]
pub struct SealedChunk {
    /// The shard whose buffer holds the bytes.
    pub shard: ShardId,
    /// Its number in that shard's sequence.
    pub seq: Seq,
    /// Bytes of event records after the header, without padding.
    pub payload_bytes: u32,
    /// Event records in the payload.
    pub events: u32,
    /// CRC32C of the payload.
    pub payload_crc: u32,
    /// When it was sealed, Unix time in nanoseconds.
    pub sealed_unix_ns: u64,
    start: u64,
    capacity: u64,
}

impl SealedChunk {
    /// Bytes it takes in memory and on disk: header, payload and zeros up to a multiple of [`PAGE_BYTES`].
    #[must_use]
    pub fn padded_bytes(&self) -> usize {
        align_up(CHUNK_HEADER_BYTES + self.payload_bytes as usize, PAGE_BYTES)
    }

    /// Offset of the chunk in its shard's region (the registered buffer), a multiple of [`PAGE_BYTES`].
    #[must_use]
    pub fn region_offset(&self) -> usize {
        (self.start % self.capacity) as usize
    }

    /// Gives the bytes back, written or not.
    #[must_use]
    pub fn settle(self) -> SettledChunk {
        SettledChunk { seq: self.seq, start: self.start, end: self.start + self.padded_bytes() as u64 }
    }
}

/// A chunk the writer is done with, on its way back to the buffer it came from.
#[derive(Debug)]
pub struct SettledChunk {
    seq: Seq,
    start: u64,
    end: u64,
}

impl SettledChunk {
    /// Number of the chunk in its shard's sequence.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.seq
    }
}

struct Open {
    start: u64,
    /// `start` modulo the capacity: asked for with every event, and a division.
    offset: usize,
    filled: usize,
    events: u32,
}

/// See the module text.
pub struct LogBuffer {
    region: Arc<Region>,
    shard: ShardId,
    capacity: u64,
    chunk_bytes_max: usize,
    head: u64,
    tail: u64,
    open: Option<Open>,
    next_seq: Seq,
    settled_seq: Seq,
}

impl LogBuffer {
    /// A buffer over `region` whose first chunk gets the number after `last_seq`.
    ///
    /// # Panics
    /// If the region holds fewer than two chunks of `chunk_bytes_max`, a multiple of [`PAGE_BYTES`].
    #[must_use]
    pub fn new(region: Arc<Region>, shard: ShardId, chunk_bytes_max: usize, last_seq: Seq) -> Self {
        assert_eq!(chunk_bytes_max % PAGE_BYTES, 0);
        assert!(region.bytes() >= 2 * chunk_bytes_max, "the log buffer must hold two chunks");
        let capacity = region.bytes() as u64;
        Self {
            region,
            shard,
            capacity,
            chunk_bytes_max,
            head: 0,
            tail: 0,
            open: None,
            next_seq: last_seq.next(),
            settled_seq: last_seq,
        }
    }

    /// Number the open chunk has, or the next one to be opened will have.
    #[must_use]
    pub fn open_seq(&self) -> Seq {
        self.next_seq
    }

    /// Number of the last chunk that came back from the writer.
    #[must_use]
    pub fn settled_seq(&self) -> Seq {
        self.settled_seq
    }

    /// Events in the open chunk.
    #[must_use]
    pub fn open_events(&self) -> u32 {
        self.open.as_ref().map_or(0, |open| open.events)
    }

    /// Bytes between tail and head: what waits for the writer or is being filled, skipped ends included.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        let open = self.open.as_ref().map_or(0, |open| align_up(open.filled, PAGE_BYTES) as u64);
        (self.head + open - self.tail) as usize
    }

    /// Where the next chunk begins, in bytes since the buffer was made: only grows, with padding and skipped ends.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.head
    }

    /// Capacity in bytes.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        self.capacity as usize
    }

    /// Makes sure that the open chunk, opened if none is, has room for `bytes` more bytes.
    ///
    /// # Errors
    /// [`NoRoom`], with no byte changed.
    ///
    /// # Panics
    /// If `bytes` could not fit even an empty chunk: limits are checked before bytes are placed.
    #[inline]
    pub fn reserve(&mut self, bytes: usize) -> Result<(), NoRoom> {
        assert!(CHUNK_HEADER_BYTES + bytes <= self.chunk_bytes_max, "{bytes} bytes can never fit a chunk");
        if self.open.as_ref().is_none_or(|open| open.events == 0) {
            // An empty chunk that was opened for a shorter event may lie too close to the buffer's end for this one.
            self.open_chunk(bytes)?;
        }
        let open = self.open.as_ref().expect("opened above");
        let end = open.filled + bytes;
        if end > self.chunk_bytes_max
            || open.offset + end > self.capacity as usize
            || open.start + align_up(end, PAGE_BYTES) as u64 > self.tail + self.capacity
        {
            assert!(open.events > 0, "an empty chunk was opened with room for these bytes");
            return Err(NoRoom::ChunkFull);
        }
        Ok(())
    }

    /// Bytes that [`LogBuffer::extend`] can append before the open chunk must be sealed; 0 if none is open or it is empty.
    #[inline]
    #[must_use]
    pub fn open_room(&self) -> usize {
        let Some(open) = self.open.as_ref().filter(|open| open.events > 0) else { return 0 };
        // Each bound, counted from the chunk's start, is a multiple of a page: where the bytes fit, their padding does.
        let unsettled = (self.tail + self.capacity - open.start) as usize;
        self.chunk_bytes_max.min(self.capacity as usize - open.offset).min(unsettled) - open.filled
    }

    /// Appends `bytes` bytes to the open chunk and returns them to be filled. They count from here on;
    /// [`LogBuffer::roll_back`] takes them away again.
    ///
    /// # Errors
    /// [`NoRoom`], as [`LogBuffer::reserve`].
    #[inline]
    pub fn extend(&mut self, bytes: usize) -> Result<&mut [u8], NoRoom> {
        self.reserve(bytes)?;
        let open = self.open.as_mut().expect("reserved above");
        let at = open.offset + open.filled;
        open.filled += bytes;
        // SAFETY: [at, at + bytes) lies in the region (checked by `reserve`) between the open chunk's start and tail +
        // capacity, which no sealed or in-flight chunk overlaps: those lie in [tail, head). The open chunk is this
        // thread's alone, and the borrow of self keeps the slice unique.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.region.base().as_ptr().add(at), bytes) })
    }

    /// Counts the bytes last extended as `events` event records.
    #[inline]
    pub fn commit(&mut self, events: u32) {
        self.open.as_mut().expect("extended before").events += events;
    }

    /// Takes the last `bytes` back off the open chunk.
    #[inline]
    pub fn roll_back(&mut self, bytes: usize) {
        let open = self.open.as_mut().expect("extended before");
        assert!(open.filled >= CHUNK_HEADER_BYTES + bytes, "rolled back more than was extended");
        open.filled -= bytes;
    }

    /// The payload of the open chunk from byte `from` on.
    #[must_use]
    pub fn open_payload(&self, from: usize) -> &[u8] {
        let Some(open) = &self.open else { return &[] };
        let at = open.offset + CHUNK_HEADER_BYTES + from;
        let bytes = open.filled - CHUNK_HEADER_BYTES - from;
        // SAFETY: the range lies in the open chunk, which is this thread's alone, and was filled by `extend`'s caller.
        unsafe { std::slice::from_raw_parts(self.region.base().as_ptr().add(at), bytes) }
    }

    /// Payload bytes in the open chunk.
    #[must_use]
    pub fn open_payload_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.filled - CHUNK_HEADER_BYTES)
    }

    /// Closes the open chunk, zeroes its padding and makes it a handle; `None` if it holds no event.
    pub fn seal(&mut self, payload_crc: u32, sealed_unix_ns: u64) -> Option<SealedChunk> {
        if self.open_events() == 0 {
            return None;
        }
        let open = self.open.take().expect("it holds events");
        let padded = align_up(open.filled, PAGE_BYTES);
        // SAFETY: the padding lies in the region (a chunk never wraps, and chunk limits are page multiples) and in the
        // open chunk's extent, checked against the tail page by page in `extend`.
        unsafe { self.region.base().as_ptr().add(open.offset + open.filled).write_bytes(0, padded - open.filled) };
        let chunk = SealedChunk {
            shard: self.shard,
            seq: self.next_seq,
            payload_bytes: u32::try_from(open.filled - CHUNK_HEADER_BYTES).expect("a chunk is at most a few MiB"),
            events: open.events,
            payload_crc,
            sealed_unix_ns,
            start: open.start,
            capacity: self.capacity,
        };
        debug_assert_eq!(chunk.padded_bytes(), padded);
        self.head = open.start + padded as u64;
        self.next_seq = self.next_seq.next();
        Some(chunk)
    }

    /// Takes a chunk back; its bytes are free again.
    ///
    /// # Panics
    /// If chunks come back in another order than they were sealed in.
    pub fn release(&mut self, chunk: SettledChunk) {
        assert_eq!(chunk.seq, self.settled_seq.next(), "chunks settle in the order they were sealed");
        assert!(chunk.start >= self.tail && chunk.end <= self.head, "a settled chunk lies between tail and head");
        self.settled_seq = chunk.seq;
        self.tail = chunk.end;
    }

    fn open_chunk(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let needed = CHUNK_HEADER_BYTES + bytes;
        let mut start = self.head;
        let to_end = (self.capacity - start % self.capacity) as usize;
        if to_end < needed {
            start += to_end as u64;
        }
        if self.head == self.tail {
            // Nothing is outstanding: what is skipped here has no chunk before it to be freed with.
            self.head = start;
            self.tail = start;
        }
        if start + align_up(needed, PAGE_BYTES) as u64 > self.tail + self.capacity {
            return Err(NoRoom::BufferFull);
        }
        let offset = (start % self.capacity) as usize;
        self.open = Some(Open { start, offset, filled: CHUNK_HEADER_BYTES, events: 0 });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{KIB, MIB};

    const CHUNK: usize = 256 * KIB;

    fn buffer() -> LogBuffer {
        LogBuffer::new(Arc::new(Region::map(2 * MIB, false).unwrap()), ShardId(0), CHUNK, Seq(41))
    }

    fn place(buffer: &mut LogBuffer, bytes: usize, fill: u8) -> Result<(), NoRoom> {
        buffer.extend(bytes)?.fill(fill);
        buffer.commit(1);
        Ok(())
    }

    #[test]
    fn a_chunk_is_numbered_padded_and_comes_back() {
        let mut buffer = buffer();
        assert!(buffer.seal(0, 0).is_none(), "nothing to seal");
        place(&mut buffer, 300, 1).unwrap();
        place(&mut buffer, 400, 2).unwrap();
        assert_eq!((buffer.open_events(), buffer.open_payload_bytes()), (2, 700));
        assert_eq!(buffer.open_payload(299)[..2], [1, 2]);
        let chunk = buffer.seal(7, 9).unwrap();
        assert_eq!((chunk.seq, chunk.events, chunk.payload_bytes, chunk.padded_bytes()), (Seq(42), 2, 700, 4096));
        assert_eq!(buffer.used_bytes(), 4096);
        buffer.release(chunk.settle());
        assert_eq!((buffer.used_bytes(), buffer.settled_seq(), buffer.open_seq()), (0, Seq(42), Seq(43)));
    }

    #[test]
    fn rolled_back_bytes_leave_nothing_behind() {
        let mut buffer = buffer();
        buffer.extend(100).unwrap().fill(9);
        buffer.roll_back(100);
        assert!(buffer.seal(0, 0).is_none());
        place(&mut buffer, 10, 1).unwrap();
        buffer.extend(4000).unwrap().fill(9);
        buffer.roll_back(4000);
        let chunk = buffer.seal(0, 0).unwrap();
        assert_eq!(chunk.payload_bytes, 10);
        let at = chunk.region_offset() + CHUNK_HEADER_BYTES + 10;
        // SAFETY: the test holds the chunk's handle.
        let padding = unsafe { std::slice::from_raw_parts(buffer.region.base().as_ptr().add(at), 4096 - 106) };
        assert!(padding.iter().all(|byte| *byte == 0), "padding is zeroed at the seal");
    }

    #[test]
    fn a_chunk_opened_too_near_the_end_is_moved() {
        let mut buffer = buffer();
        while buffer.capacity_bytes() - buffer.head as usize > 8 * KIB {
            let bytes = (buffer.capacity_bytes() - buffer.head as usize - 8 * KIB).min(CHUNK) - CHUNK_HEADER_BYTES;
            place(&mut buffer, bytes, 1).unwrap();
            let chunk = buffer.seal(0, 0).unwrap();
            buffer.release(chunk.settle());
        }
        buffer.extend(100).unwrap();
        buffer.roll_back(100);
        place(&mut buffer, 100 * KIB, 2).unwrap();
        assert_eq!(buffer.seal(0, 0).unwrap().region_offset(), 0);
    }

    #[test]
    fn a_full_buffer_says_so_and_recovers_in_order() {
        let mut buffer = buffer();
        let mut sealed = std::collections::VecDeque::new();
        let event = CHUNK - CHUNK_HEADER_BYTES;
        loop {
            match place(&mut buffer, event, 3) {
                Ok(()) => sealed.push_back(buffer.seal(0, 0).unwrap()),
                Err(NoRoom::BufferFull) => break,
                Err(NoRoom::ChunkFull) => unreachable!("each chunk holds one event"),
            }
        }
        assert_eq!(sealed.len(), 8, "2 MiB hold eight chunks of 256 KiB");
        assert_eq!(buffer.used_bytes(), buffer.capacity_bytes());
        buffer.release(sealed.pop_front().unwrap().settle());
        place(&mut buffer, event, 4).unwrap();
        assert_eq!(place(&mut buffer, 1, 4), Err(NoRoom::ChunkFull));
    }

    #[test]
    #[should_panic(expected = "order")]
    fn chunks_out_of_order_are_a_bug() {
        let mut buffer = buffer();
        place(&mut buffer, 1, 1).unwrap();
        let _first = buffer.seal(0, 0).unwrap();
        place(&mut buffer, 1, 1).unwrap();
        let second = buffer.seal(0, 0).unwrap();
        buffer.release(second.settle());
    }

    /// What bounds the open chunk in turn: its own limit, the buffer's end, and a chunk that has not come back.
    #[test]
    fn the_room_of_a_chunk_is_what_it_can_be_extended_by() {
        let mut buffer = buffer();
        assert_eq!(buffer.open_room(), 0, "nothing is open");
        let mut live = std::collections::VecDeque::new();
        let mut met = [0; 3];
        for first in (0..120).map(|round: usize| 1 + round * 7919 % (CHUNK / 2)) {
            if place(&mut buffer, first, 0) == Err(NoRoom::BufferFull) {
                buffer.release(SealedChunk::settle(live.pop_front().expect("a full buffer has live chunks")));
                continue;
            }
            let room = buffer.open_room();
            let offset = buffer.open.as_ref().unwrap().offset;
            let end = offset + CHUNK_HEADER_BYTES + first + room;
            met[if end == offset + CHUNK { 0 } else { 1 + usize::from(end < 2 * MIB) }] += 1;
            assert_eq!(buffer.reserve(room + 1), Err(NoRoom::ChunkFull));
            if room > 0 {
                place(&mut buffer, room, 0).unwrap();
                assert_eq!(buffer.open_room(), 0);
                buffer.roll_back(room - room / 3);
            }
            live.push_back(buffer.seal(0, 0).unwrap());
        }
        assert!(met.iter().all(|times| *times > 0), "limit, end, chunk that is out: met {met:?} times");
    }

    /// Random sizes against a model: live chunks never overlap, bytes come back as written, nothing leaks.
    #[test]
    fn live_chunks_never_overlap() {
        // Miri looks at every few bytes: each costs it a microsecond.
        let (rounds, step) = if cfg!(miri) { (100, 997) } else { (20_000u32, 1) };
        let mut buffer = buffer();
        let mut live: std::collections::VecDeque<(SealedChunk, u8)> = std::collections::VecDeque::new();
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        for round in 0..rounds {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let bytes = 1 + (state >> 33) as usize % (CHUNK - CHUNK_HEADER_BYTES);
            let fill = round as u8;
            match place(&mut buffer, bytes, fill) {
                Ok(()) => live.push_back((buffer.seal(0, 0).unwrap(), fill)),
                Err(NoRoom::ChunkFull) => unreachable!(),
                Err(NoRoom::BufferFull) => {
                    let (chunk, fill) = live.pop_front().expect("a full buffer has live chunks");
                    let at = chunk.region_offset() + CHUNK_HEADER_BYTES;
                    // SAFETY: the test holds the chunk's handle.
                    let payload = unsafe {
                        std::slice::from_raw_parts(buffer.region.base().as_ptr().add(at), chunk.payload_bytes as usize)
                    };
                    assert!(
                        payload.iter().step_by(step).all(|byte| *byte == fill),
                        "round {round}: overwritten while live"
                    );
                    buffer.release(chunk.settle());
                }
            }
        }
        while let Some((chunk, _)) = live.pop_front() {
            buffer.release(chunk.settle());
        }
        assert_eq!(buffer.used_bytes(), 0);
    }
}
