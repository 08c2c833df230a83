//! One turn of the writer: take what is ready, write it, sync once, tell the shards. Writer thread.
//!
//! Two groups at most are on their way: while one is synced, the next is being written, so that the device works on data
//! while it flushes. A group waits for nothing but the group before it.
//!
//! Promises: nothing is published as written before every write of its group completed whole, nor as durable before a
//! sync that began after that returned 0; numbers are published as contiguous prefixes; a failed write or sync is final. A
//! turn allocates nothing; beginning, preparing and retiring segments does, a few times per segment, and so does the look once
//! a second whether the log is where it was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::{Fit, GroupLimits};
use super::commit::Commit;
use super::config::OpenError;
use super::open::{Opened, now_unix_ns};
use super::store::{Active, Store, is_disk_full};
use crate::base::{PAGE_BYTES, WriterId};
use crate::handoff::{Bell, FailureStage, WriterFailure, WriterPort, WriterState, WriterStatus};
use crate::metrics::WriterMetrics;
use crate::record::walk::Cursor;
use crate::record::{ChunkHeader, SEGMENT_HEADER_BYTES, SHARDS_PER_WRITER_MAX};
use crate::sys::storage::{AlignedBytes, Displaced, DurableMark, Facts, SyncMode, WRITES_PER_GROUP_MAX, Write};

/// How often the disk, the place of the log on it, retention and followers are looked at.
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
    /// A group was written or made durable, or both.
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
    /// The end of the log: what is written.
    end: Cursor,
    ports: Vec<WriterPort>,
    /// The group being put together; empty between turns.
    taken: Commit,
    /// The group that is written and not yet synced; empty if there is none.
    written: Commit,
    /// Everything in the active segment before this is synced.
    durable_end: u64,
    first_port: usize,
    bell: Arc<Bell>,
    status: Arc<WriterStatus>,
    metrics: Arc<WriterMetrics>,
    buffered_bytes: u64,
    housekeeping_due: Duration,
    marked: Option<DurableMark>,
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
            durable_end: end.offset,
            end,
            taken: Commit::new(limits, ports.len()),
            written: Commit::new(limits, ports.len()),
            ports,
            first_port: 0,
            bell,
            status,
            metrics,
            buffered_bytes,
            housekeeping_due: Duration::ZERO,
            marked: None,
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

    /// One turn: writes what is ready, and syncs what was written in the turn before.
    ///
    /// # Errors
    /// As [`Writer::run`].
    pub fn turn(&mut self, now: Now) -> Result<Turn, WriterFailure> {
        if let Some(failure) = self.status.failure() {
            return Err(failure);
        }
        self.keep_house(now)?;
        match self.take_ready(now)? {
            Taken::Group => self.write_taken()?,
            _ if !self.written.is_empty() => self.sync()?,
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
        self.mark_durable(now, false);
        Ok(Turn::Worked)
    }

    /// Makes the group just taken part of the log and writes it, beside the sync of the group before it if that is due.
    fn write_taken(&mut self) -> Result<(), WriterFailure> {
        self.first_port = (self.first_port + 1) % self.ports.len();
        self.taken.fill_in_headers(&mut self.ports, self.writer, &mut self.end, self.durable_end);
        if self.written.is_empty() {
            self.write()?
        } else {
            self.write_during_sync()?
        }
        if self.store.storage.facts().sync == SyncMode::Dsync {
            // Each write was durable when it completed: there is nothing to overlap with.
            self.sync()?;
        }
        Ok(())
    }

    /// Seals the log, so that damage to its last chunk is recognised as such.
    ///
    /// # Errors
    /// As [`Writer::run`].
    ///
    /// # Panics
    /// If a group is not synced yet: the seal would prove what is not so.
    pub fn finish(mut self) -> Result<(), WriterFailure> {
        assert!(self.written.is_empty(), "a seal says that everything before it is synced");
        self.check_place()?;
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
        self.store.mark(DurableMark { epoch: self.active.epoch, end: self.end.offset });
        self.status.set(WriterState::Stopped);
        self.ring_all();
        Ok(())
    }

    /// Looks at the disk and at retention once in a while, and takes the next step of preparing segments every time.
    fn keep_house(&mut self, now: Now) -> Result<(), WriterFailure> {
        let prepared = self.store.prepare_step();
        let changed = self.checked_names(prepared)?;
        if now.elapsed < self.housekeeping_due {
            if changed {
                self.review_room();
            }
            return Ok(());
        }
        self.housekeeping_due = now.elapsed + HOUSEKEEPING_EVERY;
        self.check_place()?;
        let looked = self.store.look_at_disk();
        self.checked(looked, FailureStage::Prepare)?;
        self.retire(now)?;
        self.review_room();
        Ok(())
    }

    /// Stops if the log is no longer where readers and the next start look for it: what goes to an open file without a name
    /// is written and synced without an error, and lost.
    fn check_place(&mut self) -> Result<(), WriterFailure> {
        let stage = match self.store.displaced(self.active) {
            None => return Ok(()),
            Some(Displaced::Segment) => FailureStage::SegmentGone,
            Some(Displaced::Directory) => FailureStage::DirectoryGone,
            Some(Displaced::Lock) => FailureStage::LockGone,
        };
        Err(self.fail(WriterFailure { stage, errno: 0 }))
    }

    fn retire(&mut self, now: Now) -> Result<(), WriterFailure> {
        self.store.note_time(now.unix_ns);
        let retired = self.store.retire(now.unix_ns);
        let retired = self.checked_names(retired)?;
        self.status.set_followers_errno(self.store.followers_errno());
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
        self.metrics.segments_held.set(self.store.held() as u64);
        self.metrics.disk_free_bytes.set(self.store.free_bytes());
    }

    /// Fills the group with what is ready, in fair order.
    fn take_ready(&mut self, now: Now) -> Result<Taken, WriterFailure> {
        if self.gather() == Fit::SegmentFull && self.taken.is_empty() {
            if !self.written.is_empty() {
                // A segment is begun when everything before it is durable.
                return Ok(Taken::Nothing);
            }
            if !self.roll(now)? {
                return Ok(Taken::NoRoom);
            }
            let fit = self.gather();
            assert!(!self.taken.is_empty(), "a fresh segment has room for any chunk: {fit:?}");
        }
        Ok(if self.taken.is_empty() { Taken::Nothing } else { Taken::Group })
    }

    fn gather(&mut self) -> Fit {
        self.taken.gather(&mut self.ports, self.first_port, self.end.offset, self.segment_bytes)
    }

    /// Begins the next segment; false if the disk is full.
    fn roll(&mut self, now: Now) -> Result<bool, WriterFailure> {
        if !self.store.has_ready() {
            self.metrics.segment_waits.add(1);
        }
        let old = self.active;
        match self.store.begin_segment(&mut self.end, now.unix_ns) {
            Ok(active) => {
                self.active = active;
                self.durable_end = self.end.offset;
            }
            Err(error) if is_disk_full(&error) => {
                self.review_room();
                return Ok(false);
            }
            Err(error) => return self.checked_names(Err(error)),
        }
        self.store.storage.close(old.file);
        self.retire(now)?;
        self.review_room();
        Ok(true)
    }

    /// Writes the group just taken. Nothing is being synced.
    fn write(&mut self) -> Result<(), WriterFailure> {
        let started = Instant::now();
        let mut writes = [Write::NONE; WRITES_PER_GROUP_MAX];
        let count = self.taken.fill_writes(&self.ports, &mut writes);
        let written = self.store.storage.write_group(self.active.file, &writes[..count]);
        self.checked(written, FailureStage::Write)?;
        self.note_written(started);
        Ok(())
    }

    /// Writes the group just taken while the one before it is synced and published.
    fn write_during_sync(&mut self) -> Result<(), WriterFailure> {
        let started = Instant::now();
        let mut synced = Ok(());
        let mut writes = [Write::NONE; WRITES_PER_GROUP_MAX];
        let count = self.taken.fill_writes(&self.ports, &mut writes);
        let (ports, metrics, written) = (&self.ports, &self.metrics, &self.written);
        let outcome = self.store.storage.write_group_during_sync(self.active.file, &writes[..count], &mut |result| {
            metrics.sync_latency.record(started.elapsed().as_nanos() as u64);
            if result.is_ok() {
                // The answers leave now; the chunks themselves are given back when the device has the next ones.
                written.publish_durable(ports);
                written.ring(ports);
            }
            synced = result;
        });
        self.checked(synced, FailureStage::Sync)?;
        self.settle_durable();
        self.checked(outcome, FailureStage::Write)?;
        self.note_written(started);
        Ok(())
    }

    fn note_written(&mut self, started: Instant) {
        self.metrics.write_latency.record(started.elapsed().as_nanos() as u64);
        self.metrics.written_bytes.add(self.taken.bytes() as u64);
        self.store.pace(self.taken.bytes());
        self.taken.publish_written(&self.ports);
        std::mem::swap(&mut self.taken, &mut self.written);
    }

    /// Syncs what is written and publishes it.
    fn sync(&mut self) -> Result<(), WriterFailure> {
        let started = Instant::now();
        let synced = self.store.storage.sync_group(self.active.file);
        self.checked(synced, FailureStage::Sync)?;
        self.metrics.sync_latency.record(started.elapsed().as_nanos() as u64);
        self.written.publish_durable(&self.ports);
        self.settle_durable();
        Ok(())
    }

    /// Counts the group just published and gives its chunks back.
    fn settle_durable(&mut self) {
        self.metrics.groups.add(1);
        self.metrics.chunks.add(self.written.chunks() as u64);
        self.metrics.events.add(self.written.events());
        self.durable_end = self.written.end();
        self.written.settle(&mut self.ports);
    }

    /// Moves the durable mark to the end of what is synced: at once when there is time, else now and then.
    fn mark_durable(&mut self, now: Now, idle: bool) {
        let mark = DurableMark { epoch: self.active.epoch, end: self.durable_end };
        if self.marked != Some(mark) && (idle || now.elapsed >= self.mark_due) {
            self.store.mark(mark);
            self.marked = Some(mark);
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
        result.map_err(|error| self.fail(WriterFailure { stage, errno: error.raw_os_error().unwrap_or(0) }))
    }

    /// As [`Self::checked`], after something was done to names: one that is not there was taken away, and so may more have been.
    fn checked_names<T>(&mut self, result: std::io::Result<T>) -> Result<T, WriterFailure> {
        if result.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            self.check_place()?;
        }
        self.checked(result, FailureStage::Prepare)
    }

    fn fail(&self, failure: WriterFailure) -> WriterFailure {
        self.status.poison(failure);
        self.ring_all();
        failure
    }

    fn ring_all(&self) {
        for port in &self.ports {
            port.ring();
        }
    }
}
