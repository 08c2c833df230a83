//! The segment files: recovery's leavings are cleared away, segments are prepared ahead, begun, retired and recycled.
//! Control thread while opening, writer thread afterwards. Decides nothing: that is `segment`'s.

use std::collections::VecDeque;
use std::io;

use super::config::WriterConfig;
use super::recover::Recovered;
use super::segment::{FileName, Live, Room, recyclable, retire_count};
use crate::base::{Epoch, MIB, PAGE_BYTES, align_up};
use crate::record::walk::Cursor;
use crate::record::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::sys::storage::{AlignedBytes, Background, Displaced, DurableMark, FileId, Storage};

/// Zeros to write in the background at a time while the log stands still: a group that comes then waits behind them for
/// a few hundred microseconds of a fast disk.
const ZERO_BYTES_MIN: usize = MIB;

/// The segment that chunks go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Active {
    pub(super) file: FileId,
    pub(super) epoch: Epoch,
}

/// A segment being filled with zeros.
#[derive(Clone, Copy, Debug)]
struct Preparing {
    number: u64,
    file: FileId,
    /// Zeros are written, or being written, before this.
    zeroed_end: u64,
    /// All zeros are written and the sync is under way.
    syncing: bool,
}

/// All files of one writer.
pub(super) struct Store {
    pub(super) storage: Box<dyn Storage>,
    config: WriterConfig,
    live: Vec<Live>,
    ready: VecDeque<u64>,
    preparing: Option<Preparing>,
    next_number: u64,
    next_epoch: Epoch,
    page: AlignedBytes,
    free_bytes: u64,
    /// What followers needed when last looked at.
    followers_need: Option<Epoch>,
    /// Why that could not be looked at; 0 if it could.
    followers_errno: i32,
    /// Zeros to write in the background at a time.
    zero_bytes: usize,
    /// The last segment to be made found no room. That is believed, whatever statfs(2) says is free, until one is made: a disk
    /// without inodes, or a quota, shows free bytes.
    disk_full: bool,
    /// On a full disk: one more attempt to make a segment may be made. Again after each look at the disk.
    may_try: bool,
}

impl Store {
    /// Clears away what recovery dropped and what a crash left half done, and makes durable what it kept.
    pub(super) fn new(mut storage: Box<dyn Storage>, config: WriterConfig, recovered: &Recovered) -> io::Result<Self> {
        if let Some(newest) = recovered.live.last() {
            // The process that wrote its end may have died between write and sync.
            let file = storage.open(&FileName::Segment(newest.epoch).text())?;
            let synced = storage.sync(file);
            storage.close(file);
            synced?;
        }
        let mut ready = Vec::new();
        let mut next_number = 0;
        for entry in storage.list()? {
            let remove = match FileName::parse(&entry.name) {
                Some(FileName::Ready(number)) => {
                    next_number = next_number.max(number + 1);
                    let fits = entry.bytes == config.segment_bytes;
                    if fits {
                        ready.push(number);
                    }
                    !fits
                }
                Some(FileName::Preparing(number)) => {
                    next_number = next_number.max(number + 1);
                    true
                }
                Some(FileName::Retired(_)) => true,
                Some(FileName::Segment(epoch)) => recovered.report.discarded.contains(&epoch),
                None => false,
            };
            if remove {
                storage.remove(&entry.name)?;
            }
        }
        // A removed segment must not come back behind the one begun next.
        storage.sync_dir()?;
        ready.sort_unstable();
        let free_bytes = storage.free_bytes()?;
        Ok(Self {
            storage,
            config,
            live: recovered.live.clone(),
            ready: ready.into(),
            preparing: None,
            next_number,
            next_epoch: recovered.next_epoch,
            page: AlignedBytes::zeroed(SEGMENT_HEADER_BYTES),
            free_bytes,
            followers_need: None,
            followers_errno: 0,
            zero_bytes: ZERO_BYTES_MIN,
            disk_full: false,
            may_try: true,
        })
    }

    pub(super) fn live(&self) -> &[Live] {
        &self.live
    }

    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// Whether a segment can be begun without waiting for one to be prepared.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Begins the segment after `end` and moves `end` to its start. Everything before must be durable.
    ///
    /// The order is what recovery relies on: the header is synced before the file gets its name, and the name before the
    /// first chunk.
    pub(super) fn begin_segment(&mut self, end: &mut Cursor, now_unix_ns: u64) -> io::Result<Active> {
        let number = match self.ready.front() {
            Some(number) => *number,
            None => self.prepare_now()?,
        };
        let name = FileName::Ready(number).text();
        let header = SegmentHeader {
            writer: self.config.writer,
            epoch: self.next_epoch,
            segment_bytes: self.config.segment_bytes,
            created_unix_ns: now_unix_ns,
            previous_epoch: end.epoch,
            previous_end: end.offset,
            previous_crc: end.crc,
            seqs: end.seqs.clone(),
        };
        header.encode(self.page.as_mut().try_into().expect("one page"));
        let file = self.storage.open(&name)?;
        if let Err(error) = self.name_segment(file, &name, header.epoch) {
            self.storage.close(file);
            return Err(error);
        }
        self.ready.pop_front();
        self.next_epoch = Epoch(header.epoch.0 + 1);
        if let Some(previous) = self.live.last_mut() {
            previous.end = header.previous_end;
        }
        self.live.push(Live::begun(&header));
        *end = Cursor::at_start_of(&header);
        self.mark(DurableMark { epoch: end.epoch, end: end.offset });
        Ok(Active { file, epoch: header.epoch })
    }

    /// Writes the header in `page` to `file` and gives it the name of a segment, all durable.
    fn name_segment(&mut self, file: FileId, name: &str, epoch: Epoch) -> io::Result<()> {
        self.storage.write_at(file, 0, self.page.as_ref())?;
        self.storage.sync(file)?;
        self.storage.rename(name, &FileName::Segment(epoch).text())?;
        self.storage.sync_dir()
    }

    /// Gives the disk back what segments that ended early left unused, once the one after them is begun and names their end.
    /// Each start begins a segment: without this, retention by bytes would count a whole one for each, and a server that is
    /// killed and restarted over and over push its own log out. What fails leaves a segment as long as it is.
    pub(super) fn give_back_unused(&mut self) {
        let ended = self.live.len().saturating_sub(1);
        for segment in &mut self.live[..ended] {
            let Some(from) = segment.unused_from() else { continue };
            let Ok(file) = self.storage.open(&FileName::Segment(segment.epoch).text()) else { continue };
            if self.storage.punch_hole(file, from, segment.bytes - from).is_ok() {
                segment.disk_bytes = from;
            }
            self.storage.close(file);
        }
    }

    /// Tells readers what is durable. They fall behind if it fails, nothing more.
    pub(super) fn mark(&mut self, mark: DurableMark) {
        let _ = self.storage.set_durable_mark(mark);
    }

    /// Makes a segment the first that is ready, waiting for it; its number. May use the disk's reserve: what waits was admitted.
    fn prepare_now(&mut self) -> io::Result<u64> {
        if let Some(preparing) = self.preparing {
            return self.finish_preparing_now(preparing);
        }
        let number = self.take_number();
        let made = self.make_segment(number);
        self.disk_full = made.as_ref().is_err_and(is_disk_full);
        made?;
        self.ready.push_front(number);
        Ok(number)
    }

    fn make_segment(&mut self, number: u64) -> io::Result<()> {
        let name = FileName::Preparing(number).text();
        let file = self.storage.create(&name, self.config.segment_bytes)?;
        let zeroed = self.storage.zero_and_sync(file, self.config.segment_bytes);
        self.storage.close(file);
        if zeroed.is_err() {
            self.storage.remove(&name)?;
            return zeroed;
        }
        self.storage.rename(&name, &FileName::Ready(number).text())
    }

    /// Drives the preparation under way to its end.
    fn finish_preparing_now(&mut self, preparing: Preparing) -> io::Result<u64> {
        while self.preparing.is_some() {
            if !self.prepare_step()? {
                // Nobody to wake this thread: the work itself is waited for.
                self.storage.wait(-1, std::time::Duration::from_millis(10))?;
            }
        }
        match self.ready.back() {
            Some(number) => {
                assert_eq!(*number, preparing.number, "the last one ready is the one just prepared");
                Ok(*number)
            }
            None => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        }
    }

    fn take_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// Starts preparing one more segment if one is wanted and there is room, or takes the next step of the one under
    /// way; whether anything was done.
    pub(super) fn prepare_step(&mut self) -> io::Result<bool> {
        let Some(mut preparing) = self.preparing else { return self.start_preparing() };
        let Some(result) = self.storage.poll_background() else { return Ok(false) };
        match result {
            Ok(()) => {}
            Err(error) if is_disk_full(&error) => {
                self.abandon_preparing(preparing)?;
                return Ok(true);
            }
            Err(error) => return Err(error),
        }
        if preparing.syncing {
            self.storage.close(preparing.file);
            let (from, to) = (FileName::Preparing(preparing.number), FileName::Ready(preparing.number));
            self.storage.rename(&from.text(), &to.text())?;
            self.ready.push_back(preparing.number);
            self.preparing = None;
            self.disk_full = false;
            return Ok(true);
        }
        self.zero_more(&mut preparing)?;
        self.preparing = Some(preparing);
        Ok(true)
    }

    fn start_preparing(&mut self) -> io::Result<bool> {
        // On a full disk one more than is wanted may be made: nothing else shows that there is room again.
        let is_wanted = if self.disk_full { self.may_try } else { self.ready.len() < self.config.segments_ahead };
        if !is_wanted || !(Room { free_bytes: self.free_bytes, ..self.room(0, 0) }).may_prepare() {
            return Ok(false);
        }
        self.may_try = false;
        let number = self.take_number();
        let file = match self.storage.create(&FileName::Preparing(number).text(), self.config.segment_bytes) {
            Ok(file) => file,
            Err(error) if is_disk_full(&error) => {
                self.disk_full = true;
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        self.free_bytes = self.free_bytes.saturating_sub(self.config.segment_bytes);
        let mut preparing = Preparing { number, file, zeroed_end: 0, syncing: false };
        self.zero_more(&mut preparing)?;
        self.preparing = Some(preparing);
        Ok(true)
    }

    /// Starts the next background step: zeros, or the sync once all are written.
    fn zero_more(&mut self, preparing: &mut Preparing) -> io::Result<()> {
        let rest = self.config.segment_bytes - preparing.zeroed_end;
        if rest == 0 {
            preparing.syncing = true;
            return self.storage.start_background(Background::Sync { file: preparing.file });
        }
        // None ready: a group will have to wait for the rest anyway.
        let bytes = if self.ready.is_empty() { Background::ZERO_BYTES_MAX } else { self.zero_bytes };
        let bytes = rest.min(bytes as u64) as usize;
        let (file, offset) = (preparing.file, preparing.zeroed_end);
        preparing.zeroed_end += bytes as u64;
        self.storage.start_background(Background::Zero { file, offset, bytes })
    }

    fn abandon_preparing(&mut self, preparing: Preparing) -> io::Result<()> {
        self.preparing = None;
        self.disk_full = true;
        self.storage.close(preparing.file);
        self.storage.remove(&FileName::Preparing(preparing.number).text())
    }

    /// Paces the preparation to the log: a group of so many bytes was written. Twice as fast, it never falls behind for
    /// good; much faster would make groups wait without need.
    pub(super) fn pace(&mut self, group_bytes: usize) {
        self.zero_bytes = align_up(2 * group_bytes, PAGE_BYTES).clamp(ZERO_BYTES_MIN, Background::ZERO_BYTES_MAX);
    }

    /// Looks at the disk again.
    pub(super) fn look_at_disk(&mut self) -> io::Result<()> {
        self.free_bytes = self.storage.free_bytes()?;
        self.followers_need = match self.config.retention_bytes {
            Some(_) => self.look_at_followers(),
            None => self.storage.followers_need().unwrap_or(None),
        };
        self.may_try = true;
        Ok(())
    }

    /// The room for chunks when the next one goes to `active_offset` and `buffered_bytes` may come.
    ///
    /// A segment being prepared counts: its bytes were allocated when it was created. On a filesystem that cannot allocate
    /// ahead they still count as free, too, and 507 may come that segment late: chunks then wait for room, none is lost.
    pub(super) fn room(&self, active_offset: u64, buffered_bytes: u64) -> Room {
        let retention = self.config.retention();
        let extra_bytes = buffered_bytes + self.config.segment_bytes;
        let retired = retire_count(&self.live, extra_bytes, retention, 0, self.followers_need);
        Room {
            segment_bytes: self.config.segment_bytes,
            chunk_bytes_max: self.config.chunk_bytes_max as u64,
            active_offset,
            ready: self.ready.len() as u64 + u64::from(self.preparing.is_some()),
            recyclable: recyclable(&self.live, retired, self.config.segment_bytes),
            free_bytes: if self.disk_full { 0 } else { self.free_bytes },
            reserve_bytes: self.config.reserve_bytes,
        }
    }

    /// What followers need. Everything, if that cannot be looked at: what is there may be another user's, who reads what
    /// would be retired, and is no reason to stop taking events.
    fn look_at_followers(&mut self) -> Option<Epoch> {
        let needed = self.storage.followers_need();
        self.followers_errno = needed.as_ref().err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
        needed.unwrap_or(Some(Epoch(0)))
    }

    /// How many segments, other than the active one, followers still need.
    pub(super) fn held(&self) -> usize {
        let ended = &self.live[..self.live.len().saturating_sub(1)];
        let held = |segment: &&Live| self.followers_need.is_some_and(|needed| segment.epoch >= needed);
        if self.followers_errno == 0 { ended.iter().filter(held).count() } else { 0 }
    }

    /// Why followers could not be looked at the last time; 0 if they could.
    pub(super) fn followers_errno(&self) -> i32 {
        self.followers_errno
    }

    /// What was taken away from under the writer; `None` if nothing was.
    pub(super) fn displaced(&mut self, active: Active) -> Option<Displaced> {
        // A check that fails, for want of a permission perhaps, says nothing of the log.
        self.storage.displaced(active.file, &FileName::Segment(active.epoch).text()).unwrap_or(None)
    }

    /// Notes that the active segment may have been written to at this time.
    pub(super) fn note_time(&mut self, now_unix_ns: u64) {
        if let Some(active) = self.live.last_mut() {
            active.newest_unix_ns = active.newest_unix_ns.max(now_unix_ns);
        }
    }

    /// Retires what retention asks for; how many segments.
    pub(super) fn retire(&mut self, now_unix_ns: u64) -> io::Result<usize> {
        self.retire_for(0, now_unix_ns)
    }

    /// Retires what retention will ask for once one more segment is begun; how many segments.
    pub(super) fn retire_ahead(&mut self, now_unix_ns: u64) -> io::Result<usize> {
        self.retire_for(self.config.segment_bytes, now_unix_ns)
    }

    fn retire_for(&mut self, extra_bytes: u64, now_unix_ns: u64) -> io::Result<usize> {
        let retention = self.config.retention();
        if retire_count(&self.live, extra_bytes, retention, now_unix_ns, None) == 0 {
            return Ok(0);
        }
        let followers_need = self.look_at_followers();
        let count = retire_count(&self.live, extra_bytes, retention, now_unix_ns, followers_need);
        for retired in 0..count {
            if !self.retire_oldest()? {
                return Ok(retired);
            }
        }
        Ok(count)
    }

    /// Retires the oldest segment; false if a follower turned up that needs it.
    fn retire_oldest(&mut self) -> io::Result<bool> {
        let oldest = self.live[0];
        let (segment, retired) = (FileName::Segment(oldest.epoch).text(), FileName::Retired(oldest.epoch).text());
        self.storage.rename(&segment, &retired)?;
        // A follower registers and then looks whether its segment is there; here the name goes and then the followers
        // are looked at. One of the two sees the other.
        if self.look_at_followers().is_some_and(|needed| needed <= oldest.epoch) {
            self.storage.rename(&retired, &segment)?;
            return Ok(false);
        }
        // Before its bytes change: after a crash the old name over new bytes would be a damaged segment.
        self.storage.sync_dir()?;
        self.live.remove(0);
        if self.ready.len() < self.config.segments_ahead && oldest.is_recyclable(self.config.segment_bytes) {
            let number = self.take_number();
            self.storage.rename(&retired, &FileName::Ready(number).text())?;
            self.ready.push_back(number);
        } else {
            self.storage.remove(&retired)?;
        }
        Ok(true)
    }
}

/// Whether an error says that the disk, or this user's part of it, is full.
pub(super) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}
