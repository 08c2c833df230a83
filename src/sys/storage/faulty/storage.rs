//! The storage of one process on a [`FaultyDisk`].

use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::disk::{Content, Disk, NameChange, Verdict};
use super::{Call, Failure, FaultyDisk};
use crate::base::{Epoch, PAGE_BYTES};
use crate::sys::memory::Region;
use crate::sys::storage::{
    Background, Displaced, DurableMark, Entry, Facts, FileId, ReadStorage, Storage, Write, errno,
};

/// A storage on a [`FaultyDisk`]: one process's view, dead once the process or the machine is.
#[derive(Debug)]
pub struct FaultyStorage {
    disk: FaultyDisk,
    boot: u64,
    open: Vec<Option<usize>>,
    /// Result of the background work, and how often it will still be said to be under way.
    background: Option<(io::Result<()>, usize)>,
    facts: Facts,
}

impl FaultyStorage {
    pub(super) fn new(disk: FaultyDisk, boot: u64, facts: Facts) -> Self {
        Self { disk, boot, open: Vec::new(), background: None, facts }
    }

    fn disk(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk.lock();
        if disk.crashed || disk.boot != self.boot { Err(errno(libc::EIO)) } else { Ok(disk) }
    }

    fn index(&self, file: FileId) -> usize {
        self.open[file.0 as usize].expect("the file is open")
    }

    fn open_index(&mut self, index: usize) -> FileId {
        let slot = self.open.iter().position(Option::is_none).unwrap_or_else(|| {
            self.open.push(None);
            self.open.len() - 1
        });
        self.open[slot] = Some(index);
        FileId(slot as u32)
    }
}

impl ReadStorage for FaultyStorage {
    fn list(&mut self) -> io::Result<Vec<Entry>> {
        let disk = self.disk()?;
        let entry = |(name, index): (&String, &usize)| Entry {
            name: name.clone(),
            bytes: disk.files[*index].current.len() as u64,
        };
        Ok(disk.names.iter().map(entry).collect())
    }

    fn open(&mut self, name: &str) -> io::Result<FileId> {
        let index = self.disk()?.names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(self.open_index(index))
    }

    fn close(&mut self, file: FileId) {
        assert!(self.open[file.0 as usize].take().is_some(), "a file is closed once");
    }

    fn read_at(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let index = self.index(file);
        let mut disk = self.disk()?;
        if let Some(Failure::Errno(code)) = disk.ordered(Call::Read) {
            return Err(errno(code));
        }
        let bytes = disk.files[index].current.get(offset as usize..).unwrap_or_default();
        let length = bytes.len().min(into.len());
        into[..length].copy_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn sync(&mut self, file: FileId) -> io::Result<()> {
        let index = self.index(file);
        self.disk()?.sync(index)
    }

    fn is_still(&mut self, file: FileId, name: &str) -> io::Result<bool> {
        let index = self.index(file);
        Ok(self.disk()?.names.get(name) == Some(&index))
    }

    fn durable_mark(&mut self) -> io::Result<Option<DurableMark>> {
        Ok(self.disk()?.mark)
    }

    fn server_runs(&mut self) -> io::Result<bool> {
        Ok(self.disk()?.server_runs)
    }
}

impl Storage for FaultyStorage {
    fn create(&mut self, name: &str, bytes: u64) -> io::Result<FileId> {
        let mut disk = self.disk()?;
        if disk.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if disk.used() + bytes > disk.capacity {
            return Err(errno(libc::ENOSPC));
        }
        let zeros = vec![0; usize::try_from(bytes).expect("a file in memory")];
        disk.files.push(Content { synced: zeros.clone(), current: zeros, ..Content::default() });
        let index = disk.files.len() - 1;
        disk.change_name(Call::Create, NameChange::Add(name.to_owned(), index))?;
        drop(disk);
        Ok(self.open_index(index))
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk()?;
        if !disk.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if disk.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.change_name(Call::Rename, NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut disk = self.disk()?;
        if !disk.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.change_name(Call::Remove, NameChange::Remove(name.to_owned()))
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let mut disk = self.disk()?;
        let (covers, outcome) = match disk.step(Call::SyncDir) {
            Verdict::Do => (true, Ok(())),
            Verdict::DoThenFail(_) => (true, Err(errno(libc::EIO))),
            Verdict::DoNothing(code) => (false, Err(errno(code))),
        };
        if covers {
            disk.durable_names = disk.names.clone();
            disk.pending_names.clear();
        }
        outcome
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let index = self.index(file);
        self.disk()?.write(Call::Write, index, offset, bytes)
    }

    fn punch_hole(&mut self, file: FileId, offset: u64, bytes: u64) -> io::Result<()> {
        let index = self.index(file);
        let mut disk = self.disk()?;
        assert_eq!(offset + bytes, disk.files[index].current.len() as u64, "holes here reach to the end");
        disk.punch_hole(index, offset)
    }

    fn zero_and_sync(&mut self, file: FileId, bytes: u64) -> io::Result<()> {
        let zeros = vec![0; usize::try_from(bytes).expect("a file in memory")];
        let index = self.index(file);
        self.disk()?.write(Call::Zero, index, 0, &zeros)?;
        self.sync(file)
    }

    fn write_group(&mut self, file: FileId, writes: &[Write<'_>]) -> io::Result<()> {
        let index = self.index(file);
        let mut order: Vec<_> = writes.iter().collect();
        // In flight at once: done in any order, and one that fails does not stop the others.
        let mut disk = self.disk()?;
        for at in (1..order.len()).rev() {
            let with = disk.random.below(at + 1);
            order.swap(at, with);
        }
        let mut outcome = Ok(());
        for write in order {
            assert!(write.offset.is_multiple_of(PAGE_BYTES as u64) && write.bytes.len().is_multiple_of(PAGE_BYTES));
            let written = if disk.crashed {
                Err(errno(libc::EIO))
            } else {
                disk.write(Call::Write, index, write.offset, write.bytes)
            };
            outcome = outcome.and(written);
        }
        outcome
    }

    fn write_group_during_sync(
        &mut self,
        file: FileId,
        writes: &[Write<'_>],
        synced: &mut dyn FnMut(io::Result<()>),
    ) -> io::Result<()> {
        // Some writes are done before the sync begins, and some of those it covers, though nobody may rely on it; the
        // others come after. The seed says which.
        let early = self.disk()?.random.below(writes.len() + 1);
        let before = self.write_group(file, &writes[..early]);
        let sync = self.sync(file);
        synced(sync);
        before.and(self.write_group(file, &writes[early..]))
    }

    fn sync_group(&mut self, file: FileId) -> io::Result<()> {
        self.sync(file)
    }

    fn start_background(&mut self, work: Background) -> io::Result<()> {
        assert!(self.background.is_none(), "one piece of background work at a time");
        let (Background::Zero { file, .. } | Background::Sync { file }) = work;
        let index = self.index(file);
        let mut disk = self.disk()?;
        let outcome = match work {
            Background::Zero { offset, bytes, .. } => disk.write(Call::Zero, index, offset, &vec![0; bytes]),
            Background::Sync { .. } => disk.sync(index),
        };
        let delay = disk.random.below(3);
        drop(disk);
        self.background = Some((outcome, delay));
        Ok(())
    }

    fn poll_background(&mut self) -> Option<io::Result<()>> {
        let (outcome, delay) = self.background.take()?;
        if delay > 0 {
            self.background = Some((outcome, delay - 1));
            return None;
        }
        Some(outcome)
    }

    fn free_bytes(&mut self) -> io::Result<u64> {
        let disk = self.disk()?;
        Ok(disk.capacity.saturating_sub(disk.used()))
    }

    fn set_durable_mark(&mut self, mark: DurableMark) -> io::Result<()> {
        let mut disk = self.disk()?;
        disk.mark = Some(mark);
        disk.past_marks.push(Some(mark));
        Ok(())
    }

    fn displaced(&mut self, file: FileId, name: &str) -> io::Result<Option<Displaced>> {
        if let Some(displaced) = self.disk()?.displaced {
            return Ok(Some(displaced));
        }
        Ok((!self.is_still(file, name)?).then_some(Displaced::Segment))
    }

    fn followers_need(&mut self) -> io::Result<Option<Epoch>> {
        self.disk()?.followers_need.map_err(errno)
    }

    fn register(&mut self, _regions: &[Arc<Region>]) -> io::Result<()> {
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn wait(&mut self, bell: RawFd, timeout: Duration) -> io::Result<()> {
        if bell < 0 {
            return Ok(());
        }
        let mut polled = libc::pollfd { fd: bell, events: libc::POLLIN, revents: 0 };
        // SAFETY: the pointer is to one initialised pollfd of our own. An error is as good as a wake-up: the caller looks
        // again anyway.
        unsafe { libc::poll(&raw mut polled, 1, i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)) };
        Ok(())
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }
}
