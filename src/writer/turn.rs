//! One turn of the writer: take what is ready, write it, sync once, tell the shards. Writer thread.
//!
//! Promises: nothing is published as written before every write of its group completed whole, nor as durable before the
//! sync that covers it returned 0; numbers are published as contiguous prefixes; a failed write or sync is final. A turn
//! allocates nothing; beginning, preparing and retiring segments does, a few times per segment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::{Fit, Group, GroupLimits};
use super::config::OpenError;
use super::open::{Opened, now_unix_ns};
use super::store::{Active, Store, is_disk_full};
use crate::base::{PAGE_BYTES, WriterId};
use crate::handoff::{self, Bell, FailureStage, SealedChunk, WriterFailure, WriterPort, WriterState, WriterStatus};
use crate::metrics::WriterMetrics;
use crate::record::walk::Cursor;
use crate::record::{CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, SEGMENT_HEADER_BYTES, SHARDS_PER_WRITER_MAX};
use crate::sys::storage::{AlignedBytes, Facts, WRITES_PER_GROUP_MAX, Write};

// The shard keeps free what this room fills in.
const _: () = assert!(CHUNK_HEADER_BYTES == handoff::CHUNK_HEADER_BYTES);

/// How often the disk, retention and followers are looked at.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);
/// How often at most the durable mark is moved while groups follow each other: readers look every few tens of
/// milliseconds, and a pwrite per group would be a few per cent of a short group.
const MARK_EVERY: Duration = Duration::from_millis(5);

/// Time as a turn is told it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since any fixed moment.
    pub elapsed: Duration,
    /// Unix time in nanoseconds.
    pub unix_ns: u64,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A group was made durable.
    Worked,
    /// Nothing was ready.
    Idle,
    /// Chunks wait, but the disk is full.
    Blocked,
    /// Every shard has gone and everything it offered is durable.
    Drained,
}

/// What there was to take. Said by the one look that was taken: a chunk that comes after it rings the bell, so a second
/// look here could mistake it for one that there is no room for, and sleep over it.
enum Taken {
    Group,
    Nothing,
    NoRoom,
}

/// One writer, ready to run.
pub struct Writer {
    writer: WriterId,
    store: Store,
    active: Active,
    segment_bytes: u64,
    /// The end of the log: what is written, and between turns also synced.
    end: Cursor,
    ports: Vec<WriterPort>,
    group: Group,
    /// The group's chunks, in order of their offsets.
    chunks: Vec<SealedChunk>,
    /// Per port, bytes taken in this turn.
    taken: Vec<usize>,
    group_bytes_max: usize,
    first_port: usize,
    bell: Arc<Bell>,
    status: Arc<WriterStatus>,
    metrics: Arc<WriterMetrics>,
    buffered_bytes: u64,
    housekeeping_due: Duration,
    marked: (u64, u64),
    mark_due: Duration,
}

impl Writer {
    pub(super) fn new(
        opened: Opened,
        ports: Vec<WriterPort>,
        bell: Arc<Bell>,
        status: Arc<WriterStatus>,
        metrics: Arc<WriterMetrics>,
    ) -> Result<Self, OpenError> {
        if let Some(port) = ports.iter().find(|port| usize::from(port.shard().0) >= SHARDS_PER_WRITER_MAX) {
            return Err(OpenError::Config(format!(
                "shard {} cannot be served by one writer of at most {SHARDS_PER_WRITER_MAX}: use fewer shards",
                port.shard().0
            )));
        }
        let Opened { config, store, active, end, .. } = opened;
        let limits = GroupLimits {
            bytes_max: config.group_bytes_max,
            chunks_max: config.group_chunks_max,
            writes_max: WRITES_PER_GROUP_MAX,
        };
        let buffered_bytes = ports.iter().map(|port| port.region().bytes() as u64).sum();
        Ok(Self {
            writer: config.writer,
            store,
            active,
            segment_bytes: config.segment_bytes,
            end,
            group: Group::new(limits),
            chunks: Vec::with_capacity(config.group_chunks_max),
            taken: vec![0; ports.len()],
            ports,
            group_bytes_max: config.group_bytes_max,
            first_port: 0,
            bell,
            status,
            metrics,
            buffered_bytes,
            housekeeping_due: Duration::ZERO,
            marked: (0, 0),
            mark_due: Duration::ZERO,
        })
    }

    /// What the storage found out, complete now that the log buffers are registered.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        self.store.storage.facts()
    }

    /// Runs on the calling thread until every shard has gone (then the log is sealed) or something fails.
    ///
    /// # Errors
    /// The failure that poisoned the writer; it is in its [`WriterStatus`] too.
    pub fn run(mut self) -> Result<(), WriterFailure> {
        let started = Instant::now();
        self.begin()?;
        let mut busy = Duration::ZERO;
        loop {
            let woken = Instant::now();
            let elapsed = woken.duration_since(started);
            let turn = self.turn(Now { elapsed, unix_ns: now_unix_ns() })?;
            busy += woken.elapsed();
            self.metrics.busy_ns.set(busy.as_nanos() as u64);
            self.metrics.wall_ns.set(started.elapsed().as_nanos() as u64);
            match turn {
                Turn::Worked => {}
                Turn::Idle | Turn::Blocked => self.sleep(turn)?,
                Turn::Drained => return self.finish(),
            }
        }
    }

    /// Binds the writer to the calling thread and starts taking chunks. [`Writer::run`] does this itself.
    ///
    /// # Errors
    /// As [`Writer::run`].
    pub fn begin(&mut self) -> Result<(), WriterFailure> {
        let begun = self.store.storage.begin();
        self.checked(begun, FailureStage::Prepare)?;
        self.status.set(WriterState::Running);
        Ok(())
    }

    /// One turn: one group commit, if anything is ready.
    ///
    /// # Errors
    /// As [`Writer::run`].
    pub fn turn(&mut self, now: Now) -> Result<Turn, WriterFailure> {
        if let Some(failure) = self.status.failure() {
            return Err(failure);
        }
        self.keep_house(now)?;
        match self.take_ready(now)? {
            Taken::Group => {}
            Taken::Nothing => {
                self.store.pace(0);
                self.mark_durable(now, true);
                let drained = self.ports.iter().all(WriterPort::is_drained);
                return Ok(if drained { Turn::Drained } else { Turn::Idle });
            }
            Taken::NoRoom => {
                self.mark_durable(now, true);
                if self.ports.iter().all(WriterPort::shard_has_gone) {
                    // A drain must not wait for ever for a disk that stays full, nor end as if all were well.
                    let full = std::io::Error::from_raw_os_error(libc::ENOSPC);
                    return self.checked(Err(full), FailureStage::Prepare);
                }
                return Ok(Turn::Blocked);
            }
        }
        self.fill_in_headers();
        self.write()?;
        self.publish_written();
        self.sync()?;
        self.publish_durable();
        self.mark_durable(now, false);
        Ok(Turn::Worked)
    }

    /// Seals the log, so that damage to its last chunk is recognised as such.
    ///
    /// # Errors
    /// As [`Writer::run`].
    pub fn finish(mut self) -> Result<(), WriterFailure> {
        // A segment without chunks needs no seal: its header says where the one before it ends.
        let has_chunks = self.end.offset > SEGMENT_HEADER_BYTES as u64;
        if has_chunks && self.end.offset + PAGE_BYTES as u64 <= self.segment_bytes {
            let mut page = AlignedBytes::zeroed(PAGE_BYTES);
            let seal = ChunkHeader::seal(self.writer, self.active.epoch, self.end.offset, self.end.crc, now_unix_ns());
            let header = page.as_mut().first_chunk_mut().expect("a page holds a header");
            self.end.crc = seal.encode(header);
            let written = self.store.storage.write_at(self.active.file, self.end.offset, page.as_ref());
            self.checked(written, FailureStage::Write)?;
            let synced = self.store.storage.sync(self.active.file);
            self.checked(synced, FailureStage::Sync)?;
            self.end.offset += PAGE_BYTES as u64;
        }
        self.store.mark(&self.end);
        self.status.set(WriterState::Stopped);
        self.ring_all();
        Ok(())
    }

    /// Looks at the disk and at retention once in a while, and takes the next step of preparing segments every time.
    fn keep_house(&mut self, now: Now) -> Result<(), WriterFailure> {
        let prepared = self.store.prepare_step();
        let changed = self.checked(prepared, FailureStage::Prepare)?;
        if now.elapsed < self.housekeeping_due {
            if changed {
                self.review_room();
            }
            return Ok(());
        }
        self.housekeeping_due = now.elapsed + HOUSEKEEPING_EVERY;
        let looked = self.store.look_at_disk();
        self.checked(looked, FailureStage::Prepare)?;
        self.retire(now)?;
        self.review_room();
        Ok(())
    }

    fn retire(&mut self, now: Now) -> Result<(), WriterFailure> {
        let retired = self.store.retire(now.unix_ns);
        let retired = self.checked(retired, FailureStage::Prepare)?;
        self.metrics.segments_retired.add(retired as u64);
        Ok(())
    }

    /// Refuses events while what the log buffers can hold might not fit, and takes them again once it does.
    fn review_room(&mut self) {
        let room = self.store.room(self.end.offset, self.buffered_bytes);
        let state = if room.is_enough_for(self.buffered_bytes) { WriterState::Running } else { WriterState::Full };
        if self.status.state() != state {
            self.status.set(state);
        }
        self.metrics.segments_live.set(self.store.live().len() as u64);
        self.metrics.segments_ready.set(self.store.ready() as u64);
        self.metrics.disk_free_bytes.set(self.store.free_bytes());
    }

    /// Fills the group with what is ready, in fair order.
    fn take_ready(&mut self, now: Now) -> Result<Taken, WriterFailure> {
        debug_assert!(self.chunks.is_empty());
        self.group.begin(self.end.offset, self.segment_bytes);
        if self.gather() == Fit::SegmentFull && self.chunks.is_empty() {
            if !self.roll(now)? {
                return Ok(Taken::NoRoom);
            }
            self.group.begin(self.end.offset, self.segment_bytes);
            let fit = self.gather();
            assert!(!self.chunks.is_empty(), "a fresh segment has room for any chunk: {fit:?}");
        }
        Ok(if self.chunks.is_empty() { Taken::Nothing } else { Taken::Group })
    }

    /// Takes chunks until nothing is ready or one does not fit. First a fair share of each port, so that a busy shard
    /// cannot fill group after group alone, then what is left; the first to be asked changes from group to group.
    fn gather(&mut self) -> Fit {
        let count = self.ports.len();
        let share = self.group_bytes_max / count.max(1);
        self.taken.fill(0);
        for limit in [share, usize::MAX] {
            for index in 0..count {
                let index = (self.first_port + index) % count;
                let port = &mut self.ports[index];
                while self.taken[index] < limit {
                    let Some(padded_bytes) = port.peek_padded_bytes() else { break };
                    match self.group.fit(padded_bytes) {
                        Fit::Fits => {}
                        full => return full,
                    }
                    let chunk = port.take().expect("peeked");
                    self.group.add(index, chunk.region_offset(), padded_bytes);
                    self.chunks.push(chunk);
                    self.taken[index] += padded_bytes;
                }
            }
        }
        Fit::Fits
    }

    /// Begins the next segment; false if the disk is full.
    fn roll(&mut self, now: Now) -> Result<bool, WriterFailure> {
        if !self.store.has_ready() {
            self.metrics.segment_waits.add(1);
        }
        let old = self.active;
        match self.store.begin_segment(&mut self.end, now.unix_ns) {
            Ok(active) => self.active = active,
            Err(error) if is_disk_full(&error) => {
                self.review_room();
                return Ok(false);
            }
            Err(error) => return self.checked(Err(error), FailureStage::Prepare),
        }
        self.store.storage.close(old.file);
        self.retire(now)?;
        self.review_room();
        Ok(true)
    }

    /// Makes each chunk part of the log: its segment, its place, what it continues.
    fn fill_in_headers(&mut self) {
        self.first_port = (self.first_port + 1) % self.ports.len();
        for run in self.group.runs() {
            let port = &mut self.ports[run.port];
            for chunk in &mut self.chunks[run.first..run.first + run.chunks] {
                assert!(
                    self.end.seqs.advance(chunk.shard, chunk.seq),
                    "shard {} offered chunk {} after chunk {}",
                    chunk.shard.0,
                    chunk.seq.0,
                    self.end.seqs.last(chunk.shard).0
                );
                let header = ChunkHeader {
                    kind: ChunkKind::Events,
                    epoch: self.active.epoch,
                    offset: self.end.offset,
                    group_start: self.group.start(),
                    writer: self.writer,
                    shard: chunk.shard,
                    seq: chunk.seq,
                    sealed_unix_ns: chunk.sealed_unix_ns,
                    events: chunk.events,
                    payload_bytes: chunk.payload_bytes,
                    payload_crc: chunk.payload_crc,
                    previous_crc: self.end.crc,
                };
                self.end.crc = header.encode(port.header_mut(chunk));
                self.end.offset = header.end();
            }
        }
        assert_eq!(self.end.offset, self.group.end(), "headers and writes agree on every offset");
    }

    fn write(&mut self) -> Result<(), WriterFailure> {
        let started = Instant::now();
        let runs = self.group.runs();
        let mut writes = [Write::NONE; WRITES_PER_GROUP_MAX];
        for (write, run) in writes.iter_mut().zip(runs) {
            let bytes = self.ports[run.port].bytes_of_run(&self.chunks[run.first..run.first + run.chunks]);
            assert_eq!(bytes.len(), run.bytes);
            *write = Write { offset: run.offset, bytes, region: Some(run.port as u16) };
        }
        let written = self.store.storage.write_group(self.active.file, &writes[..runs.len()]);
        self.checked(written, FailureStage::Write)?;
        self.metrics.write_latency.record(started.elapsed().as_nanos() as u64);
        self.metrics.written_bytes.add(self.group.bytes() as u64);
        self.store.pace(self.group.bytes());
        Ok(())
    }

    fn publish_written(&self) {
        for run in self.group.runs() {
            self.ports[run.port].publish_written(self.chunks[run.first + run.chunks - 1].seq);
        }
        for (port, taken) in self.ports.iter().zip(&self.taken) {
            if *taken > 0 {
                port.ring_written();
            }
        }
    }

    fn sync(&mut self) -> Result<(), WriterFailure> {
        let started = Instant::now();
        let synced = self.store.storage.sync_group(self.active.file);
        self.checked(synced, FailureStage::Sync)?;
        self.metrics.sync_latency.record(started.elapsed().as_nanos() as u64);
        Ok(())
    }

    fn publish_durable(&mut self) {
        for run in self.group.runs() {
            self.ports[run.port].publish_durable(self.chunks[run.first + run.chunks - 1].seq);
        }
        let events: u64 = self.chunks.iter().map(|chunk| u64::from(chunk.events)).sum();
        self.metrics.groups.add(1);
        self.metrics.chunks.add(self.chunks.len() as u64);
        self.metrics.events.add(events);
        let mut chunks = self.chunks.drain(..);
        for run in self.group.runs() {
            for chunk in chunks.by_ref().take(run.chunks) {
                self.ports[run.port].settle(chunk);
            }
        }
        drop(chunks);
        for (port, taken) in self.ports.iter().zip(&self.taken) {
            if *taken > 0 {
                port.ring();
            }
        }
    }

    /// Moves the durable mark to the end of the log: at once when there is time, else now and then.
    fn mark_durable(&mut self, now: Now, idle: bool) {
        let end = (self.end.epoch.0, self.end.offset);
        if end != self.marked && (idle || now.elapsed >= self.mark_due) {
            self.store.mark(&self.end);
            self.marked = end;
            self.mark_due = now.elapsed + MARK_EVERY;
        }
    }

    /// Sleeps until a shard rings, background work ends, or it is time to look at the disk again.
    fn sleep(&mut self, turn: Turn) -> Result<(), WriterFailure> {
        // Blocked: what is ready cannot be written before the disk has room, so a ring would change nothing.
        let bell = if turn == Turn::Blocked { -1 } else { self.bell.fd() };
        self.bell.arm();
        let work_came = turn == Turn::Idle
            && (self.ports.iter().any(WriterPort::has_chunks) || self.ports.iter().all(WriterPort::is_drained));
        let slept = if work_came { Ok(()) } else { self.store.storage.wait(bell, HOUSEKEEPING_EVERY) };
        self.bell.disarm();
        self.bell.clear();
        self.checked(slept, FailureStage::Prepare)
    }

    /// Passes a result on, poisoning the writer if it is an error: the one place where a failure becomes final.
    fn checked<T>(&self, result: std::io::Result<T>, stage: FailureStage) -> Result<T, WriterFailure> {
        result.map_err(|error| {
            let failure = WriterFailure { stage, errno: error.raw_os_error().unwrap_or(0) };
            self.status.poison(failure);
            self.ring_all();
            failure
        })
    }

    fn ring_all(&self) {
        for port in &self.ports {
            port.ring();
        }
    }
}
