//! The two rings of one (shard, writer) pair, with the bells and the progress that go with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use super::log_buffer::CHUNK_HEADER_BYTES;
use super::{Bell, LogBuffer, SealedChunk, SettledChunk, WriterStatus};
use crate::base::{Seq, ShardId};
use crate::sys::memory::Region;

/// How far the writer is with one shard's chunks. `durable ≤ written`, both contiguous: every chunk up to the number is.
#[derive(Debug)]
#[repr(align(128))]
struct Progress {
    written_seq: AtomicU64,
    durable_seq: AtomicU64,
    /// Whether the shard wants its bell rung for `written_seq` too. The shard's own; the writer only reads it.
    wakes_when_written: AtomicBool,
}

/// Rings the writer's bell when the shard's end goes, so that a sleeping writer notices at once.
struct RingOnDrop(Arc<Bell>);

impl Drop for RingOnDrop {
    fn drop(&mut self) {
        self.0.ring_always();
    }
}

/// The shard's end.
pub struct ShardPort {
    sealed: rtrb::Producer<SealedChunk>,
    settled: rtrb::Consumer<SettledChunk>,
    progress: Arc<Progress>,
    // Behind `sealed`: fields drop in order of declaration, and the writer must find the ring abandoned when it looks.
    writer_bell: RingOnDrop,
    status: Arc<WriterStatus>,
    outstanding: usize,
    capacity: usize,
}

/// The writer's end.
pub struct WriterPort {
    sealed: rtrb::Consumer<SealedChunk>,
    settled: rtrb::Producer<SettledChunk>,
    progress: Arc<Progress>,
    shard_bell: Arc<Bell>,
    region: Arc<Region>,
    shard: ShardId,
}

/// Joins one shard and one writer by rings of `chunks` handles each way over the shard's `region`. `last_seq` is the
/// number of the last chunk already in the log.
#[must_use]
pub fn channel(
    shard: ShardId,
    region: Arc<Region>,
    chunks: usize,
    last_seq: Seq,
    shard_bell: Arc<Bell>,
    writer_bell: Arc<Bell>,
    status: Arc<WriterStatus>,
) -> (ShardPort, WriterPort) {
    let (sealed_in, sealed_out) = rtrb::RingBuffer::new(chunks);
    let (settled_in, settled_out) = rtrb::RingBuffer::new(chunks);
    let progress = Arc::new(Progress {
        written_seq: AtomicU64::new(last_seq.0),
        durable_seq: AtomicU64::new(last_seq.0),
        wakes_when_written: AtomicBool::new(true),
    });
    let shard_port = ShardPort {
        sealed: sealed_in,
        settled: settled_out,
        progress: Arc::clone(&progress),
        writer_bell: RingOnDrop(writer_bell),
        status,
        outstanding: 0,
        capacity: chunks,
    };
    let writer_port = WriterPort { sealed: sealed_out, settled: settled_in, progress, shard_bell, region, shard };
    (shard_port, writer_port)
}

impl ShardPort {
    /// Whether one more chunk may be outstanding.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.outstanding < self.capacity
    }

    /// Chunks that may be outstanding.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Chunks handed over and not yet back.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Whether the writer has taken every chunk offered: it will find nothing when its present group ends.
    #[must_use]
    pub fn writer_is_hungry(&self) -> bool {
        self.sealed.slots() == self.capacity
    }

    /// Hands a chunk over and wakes the writer if it sleeps.
    ///
    /// # Errors
    /// The chunk itself, if as many are outstanding as the rings hold.
    pub fn offer(&mut self, chunk: SealedChunk) -> Result<(), SealedChunk> {
        if !self.has_room() {
            return Err(chunk);
        }
        self.sealed.push(chunk).map_err(|rtrb::PushError::Full(chunk)| chunk)?;
        self.outstanding += 1;
        self.writer_bell.0.ring();
        Ok(())
    }

    /// Gives every settled chunk back to `buffer`; how many there were.
    pub fn take_settled(&mut self, buffer: &mut LogBuffer) -> usize {
        let mut taken = 0;
        while let Ok(chunk) = self.settled.pop() {
            buffer.release(chunk);
            taken += 1;
        }
        assert!(taken <= self.outstanding, "more chunks came back than went out");
        self.outstanding -= taken;
        taken
    }

    /// Whether settled chunks wait to be taken.
    #[must_use]
    pub fn has_settled(&self) -> bool {
        !self.settled.is_empty()
    }

    /// Every chunk up to this number has been written.
    #[inline]
    #[must_use]
    pub fn written_seq(&self) -> Seq {
        // Acquire pairs with the Release in `publish_written`.
        Seq(self.progress.written_seq.load(Ordering::Acquire))
    }

    /// Every chunk up to this number has been synced.
    #[inline]
    #[must_use]
    pub fn durable_seq(&self) -> Seq {
        // Acquire pairs with the Release in `publish_durable`.
        Seq(self.progress.durable_seq.load(Ordering::Acquire))
    }

    /// Says whether this shard is to be woken when chunks are written, or only when they are durable. To be called
    /// before the look at [`ShardPort::written_seq`] that precedes sleep. True at first; a shard whose requests all wait
    /// for `durable` saves itself a wake-up per group by `false`.
    #[inline]
    pub fn wake_when_written(&self, wanted: bool) {
        if self.progress.wakes_when_written.load(Ordering::Relaxed) != wanted {
            // The fence in `Bell::arm` orders this before the shard's second look.
            self.progress.wakes_when_written.store(wanted, Ordering::Relaxed);
        }
    }

    /// The writer's state.
    #[must_use]
    pub fn status(&self) -> &WriterStatus {
        &self.status
    }
}

impl WriterPort {
    /// The shard at the other end.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The shard's region, to register with the kernel as one fixed buffer.
    #[must_use]
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// The oldest chunk offered; `None` if there is none.
    pub fn take(&mut self) -> Option<SealedChunk> {
        self.sealed.pop().ok()
    }

    /// Size on disk of the oldest chunk offered, without taking it.
    #[must_use]
    pub fn peek_padded_bytes(&mut self) -> Option<usize> {
        self.sealed.peek().ok().map(SealedChunk::padded_bytes)
    }

    /// Whether chunks wait to be taken.
    #[must_use]
    pub fn has_chunks(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// Whether the shard has gone: it offers nothing more, and nobody waits for what it offered.
    #[must_use]
    pub fn shard_has_gone(&self) -> bool {
        self.sealed.is_abandoned()
    }

    /// Whether the shard has gone and every chunk it offered was taken.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        // In this order: a push before the shard went must be seen by the second look.
        self.sealed.is_abandoned() && self.sealed.is_empty()
    }

    /// The chunk's bytes as they go to disk: header, payload, padding.
    #[must_use]
    pub fn bytes(&self, chunk: &SealedChunk) -> &[u8] {
        assert_eq!(chunk.shard, self.shard, "a chunk of another shard");
        // SAFETY: the handle is the one owner of its extent, the shard does not touch it until it is settled, and the
        // region lives as long as this port.
        unsafe {
            std::slice::from_raw_parts(self.region.base().as_ptr().add(chunk.region_offset()), chunk.padded_bytes())
        }
    }

    /// The bytes of `chunks`, which lie one behind the other, as one slice: one write instead of several.
    ///
    /// # Panics
    /// If there is no chunk, one is another shard's, or one does not begin where the one before it ends.
    #[must_use]
    pub fn bytes_of_run(&self, chunks: &[SealedChunk]) -> &[u8] {
        let start = chunks.first().expect("a run has a chunk").region_offset();
        let mut end = start;
        for chunk in chunks {
            assert_eq!(chunk.shard, self.shard, "a chunk of another shard");
            assert_eq!(chunk.region_offset(), end, "a run has no gaps");
            end += chunk.padded_bytes();
        }
        // SAFETY: as in `bytes`, for each chunk; together they are the whole range, checked above.
        unsafe { std::slice::from_raw_parts(self.region.base().as_ptr().add(start), end - start) }
    }

    /// The chunk's header, to be filled in by the writer.
    #[must_use]
    pub fn header_mut<'a>(&'a mut self, chunk: &'a mut SealedChunk) -> &'a mut [u8; CHUNK_HEADER_BYTES] {
        assert_eq!(chunk.shard, self.shard, "a chunk of another shard");
        // SAFETY: as in `bytes`; both borrows are exclusive, so no other slice of the chunk is alive.
        unsafe { &mut *self.region.base().as_ptr().add(chunk.region_offset()).cast::<[u8; CHUNK_HEADER_BYTES]>() }
    }

    /// Every chunk up to `seq` has been written.
    pub fn publish_written(&self, seq: Seq) {
        debug_assert!(seq.0 >= self.progress.written_seq.load(Ordering::Relaxed));
        // Release pairs with the Acquire in `written_seq`.
        self.progress.written_seq.store(seq.0, Ordering::Release);
    }

    /// Every chunk up to `seq` has been synced. To be called before those chunks are settled.
    pub fn publish_durable(&self, seq: Seq) {
        debug_assert!(seq.0 <= self.progress.written_seq.load(Ordering::Relaxed), "durable before written");
        // Release pairs with the Acquire in `durable_seq`.
        self.progress.durable_seq.store(seq.0, Ordering::Release);
    }

    /// Gives a chunk's bytes back to the shard. The bell is rung apart, once per group.
    ///
    /// # Panics
    /// If the ring back is full: it holds as many handles as can be outstanding.
    pub fn settle(&mut self, chunk: SealedChunk) {
        assert!(self.settled.push(chunk.settle()).is_ok(), "more chunks settled than can be outstanding");
    }

    /// Wakes the shard if it sleeps; true if it did.
    pub fn ring(&self) -> bool {
        self.shard_bell.ring()
    }

    /// Wakes the shard if it sleeps and wants to know of written chunks; true if it did.
    pub fn ring_written(&self) -> bool {
        // Pairs with the fence in `Bell::arm`: either the shard's second look sees the number published before this, or
        // its wish, stored before it armed, is seen here.
        fence(Ordering::SeqCst);
        self.progress.wakes_when_written.load(Ordering::Relaxed) && self.shard_bell.ring()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{KIB, MIB};

    fn pair(chunks: usize) -> (LogBuffer, ShardPort, WriterPort) {
        let region = Arc::new(Region::map(2 * MIB, false).unwrap());
        let bells = (Arc::new(Bell::new().unwrap()), Arc::new(Bell::new().unwrap()));
        let (shard, writer) =
            channel(ShardId(0), Arc::clone(&region), chunks, Seq(0), bells.0, bells.1, Arc::default());
        (LogBuffer::new(region, ShardId(0), 256 * KIB, Seq(0)), shard, writer)
    }

    fn sealed(buffer: &mut LogBuffer, fill: u8) -> SealedChunk {
        buffer.extend(100).unwrap().fill(fill);
        buffer.commit(1);
        buffer.seal(0, 0).unwrap()
    }

    #[test]
    fn a_full_ring_hands_the_chunk_back() {
        let (mut buffer, mut shard, mut writer) = pair(2);
        assert!(shard.writer_is_hungry());
        for fill in 1..=2 {
            let chunk = sealed(&mut buffer, fill);
            shard.offer(chunk).unwrap();
        }
        assert!(!shard.has_room() && !shard.writer_is_hungry());
        let refused = sealed(&mut buffer, 3);
        let refused = shard.offer(refused).unwrap_err();
        let first = writer.take().unwrap();
        assert_eq!(writer.bytes(&first)[CHUNK_HEADER_BYTES], 1);
        assert!(shard.offer(refused).is_err_and(|chunk| chunk.seq == Seq(3)), "taken is still outstanding");
        writer.settle(first);
        assert_eq!(shard.take_settled(&mut buffer), 1);
        assert!(shard.has_room());
    }

    #[test]
    fn neighbours_are_one_slice() {
        let (mut buffer, mut shard, mut writer) = pair(4);
        for fill in 1..=3 {
            let chunk = sealed(&mut buffer, fill);
            shard.offer(chunk).unwrap();
        }
        let chunks: Vec<_> = std::iter::from_fn(|| writer.take()).collect();
        let run = writer.bytes_of_run(&chunks);
        assert_eq!(run.len(), 3 * 4096);
        for (index, chunk) in chunks.iter().enumerate() {
            assert_eq!(&run[index * 4096..(index + 1) * 4096], writer.bytes(chunk));
        }
    }

    #[test]
    #[should_panic(expected = "no gaps")]
    fn chunks_apart_are_no_run() {
        let (mut buffer, mut shard, mut writer) = pair(4);
        for fill in 1..=3 {
            let chunk = sealed(&mut buffer, fill);
            shard.offer(chunk).unwrap();
        }
        let (first, _second) = (writer.take().unwrap(), writer.take().unwrap());
        let third = writer.take().unwrap();
        let _ = writer.bytes_of_run(&[first, third]);
    }

    #[test]
    fn a_shard_is_woken_for_written_only_if_it_wants() {
        let region = Arc::new(Region::map(MIB, false).unwrap());
        let bell = Arc::new(Bell::new().unwrap());
        let writer_bell = Arc::new(Bell::new().unwrap());
        let (shard, writer) = channel(ShardId(0), region, 1, Seq(0), Arc::clone(&bell), writer_bell, Arc::default());
        bell.arm();
        shard.wake_when_written(false);
        assert!(!writer.ring_written() && writer.ring());
        bell.arm();
        shard.wake_when_written(true);
        assert!(writer.ring_written());
    }

    #[test]
    fn a_shard_that_goes_wakes_the_writer() {
        let region = Arc::new(Region::map(MIB, false).unwrap());
        let bell = Arc::new(Bell::new().unwrap());
        let writer_bell = Arc::new(Bell::new().unwrap());
        let (shard, writer) = channel(ShardId(0), region, 1, Seq(0), bell, Arc::clone(&writer_bell), Arc::default());
        writer_bell.arm();
        assert!(!writer.is_drained());
        drop(shard);
        assert!(writer.is_drained());
        assert!(!writer_bell.ring(), "it was rung already");
    }

    #[test]
    fn bytes_cross_threads_whole_and_in_order() {
        const CHUNKS: u64 = if cfg!(miri) { 50 } else { 20_000 };
        let (mut buffer, mut shard, mut writer) = pair(8);
        let consumer = std::thread::spawn(move || {
            let mut expected = Seq(1);
            while !writer.is_drained() {
                let Some(mut chunk) = writer.take() else {
                    std::thread::yield_now();
                    continue;
                };
                assert_eq!(chunk.seq, expected);
                writer.header_mut(&mut chunk).fill(0xEE);
                let payload = &writer.bytes(&chunk)[CHUNK_HEADER_BYTES..CHUNK_HEADER_BYTES + 100];
                assert!(payload.iter().all(|byte| *byte == expected.0 as u8));
                writer.publish_written(chunk.seq);
                writer.publish_durable(chunk.seq);
                writer.settle(chunk);
                expected = expected.next();
            }
            expected
        });
        let mut waiting = None;
        let mut made = 0;
        while made < CHUNKS || waiting.is_some() {
            shard.take_settled(&mut buffer);
            if waiting.is_none() {
                made += 1;
                waiting = Some(sealed(&mut buffer, made as u8));
            }
            waiting = shard.offer(waiting.take().expect("made above")).err();
        }
        while shard.outstanding() > 0 {
            shard.take_settled(&mut buffer);
        }
        assert_eq!((shard.durable_seq(), buffer.settled_seq(), buffer.used_bytes()), (Seq(CHUNKS), Seq(CHUNKS), 0));
        drop(shard);
        assert_eq!(consumer.join().unwrap(), Seq(CHUNKS + 1));
    }
}
