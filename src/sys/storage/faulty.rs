//! A disk in memory that fails as told: what the writer, recovery and readers are tested against. Any thread; no system
//! calls but a poll for a bell.
//!
//! It keeps apart what a running process reads (`current`) and what survives the machine (`synced`, plus any part of
//! the un-synced writes). A crash freezes it at a chosen step; [`FaultyDisk::reboot`] then decides from the seed which
//! sectors of which un-synced writes survived and how many of the un-synced names. Everything it does follows from the
//! seed and the calls made, so a failing seed is a test.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    Background, DurableMark, Entry, Facts, FileId, ReadStorage, Storage, SyncMode, Write, errno, poll_readable,
};
use crate::base::{Epoch, PAGE_BYTES};
use crate::sys::memory::Region;

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// A small generator of numbers that only have to look random (SplitMix64; Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is above 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A kind of call that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// One write of a group, or a single one.
    Write,
    /// A sync of a file, in the background or not.
    Sync,
    /// A sync of the directory.
    SyncDir,
    /// Creating a file.
    Create,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    Remove,
    /// Writing zeros, in the background or not.
    Zero,
    /// Reading.
    Read,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// With this errno. A write may have written some of its sectors; of a sync, nothing is known to be durable, and no
    /// later sync makes it so.
    Errno(i32),
    /// A write stays short by this many bytes.
    Short(usize),
}

#[derive(Debug)]
struct Pending {
    offset: usize,
    bytes: Vec<u8>,
    /// A sync of it failed: no later one covers it.
    lost: bool,
}

#[derive(Debug, Default)]
struct Content {
    current: Vec<u8>,
    synced: Vec<u8>,
    pending: Vec<Pending>,
    /// Whether the file's length was ever synced.
    length_synced: bool,
}

#[derive(Clone, Debug)]
enum NameChange {
    Add(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Debug)]
struct Disk {
    random: Random,
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    mark: Option<DurableMark>,
    past_marks: Vec<Option<DurableMark>>,
    capacity: u64,
    boot: u64,
    steps: u64,
    crash_at: Option<u64>,
    crash_on: Option<(Call, u64)>,
    crashed: bool,
    counts: HashMap<Call, u64>,
    failures: Vec<(Call, u64, Failure)>,
    followers_need: Option<Epoch>,
    server_runs: bool,
}

/// A disk, shared by the test and every storage on it.
#[derive(Clone, Debug)]
pub struct FaultyDisk(Arc<Mutex<Disk>>);

impl FaultyDisk {
    /// An empty disk of unlimited capacity.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            random: Random::new(seed),
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            mark: None,
            past_marks: vec![None],
            capacity: u64::MAX / 2,
            boot: 0,
            steps: 0,
            crash_at: None,
            crash_on: None,
            crashed: false,
            counts: HashMap::new(),
            failures: Vec::new(),
            followers_need: None,
            server_runs: false,
        })))
    }

    /// A storage on this disk, until the next crash.
    #[must_use]
    pub fn storage(&self) -> FaultyStorage {
        let boot = self.lock().boot;
        let facts = Facts {
            direct: true,
            sync: SyncMode::Fdatasync,
            sync_reason: "simulated".to_owned(),
            warnings: Vec::new(),
        };
        FaultyStorage { disk: self.clone(), boot, open: Vec::new(), background: None, facts }
    }

    /// Calls made so far that change something.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// Crashes the machine in the middle of the `steps`-th call from now that changes something, the next being 1.
    pub fn crash_after(&self, steps: u64) {
        let mut disk = self.lock();
        disk.crash_at = Some(disk.steps + steps);
    }

    /// Crashes the machine in the middle of the `nth` call of a kind from now, the next being 1.
    pub fn crash_on(&self, call: Call, nth: u64) {
        let mut disk = self.lock();
        let at = disk.counts.get(&call).copied().unwrap_or(0) + nth;
        disk.crash_on = Some((call, at));
    }

    /// Takes back what [`FaultyDisk::crash_after`] and [`FaultyDisk::crash_on`] ordered.
    pub fn cancel_crash(&self) {
        let mut disk = self.lock();
        disk.crash_at = None;
        disk.crash_on = None;
    }

    /// Whether the machine crashed and was not rebooted yet: every call fails.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.lock().crashed
    }

    /// Makes the `nth` call of a kind from now fail, the next being 1.
    pub fn fail(&self, call: Call, nth: u64, failure: Failure) {
        let mut disk = self.lock();
        let at = disk.counts.get(&call).copied().unwrap_or(0) + nth;
        disk.failures.push((call, at, failure));
    }

    /// The process dies: its storages are dead, what it wrote stays.
    pub fn kill(&self) {
        let mut disk = self.lock();
        disk.boot += 1;
        disk.crashed = false;
        disk.crash_at = None;
        disk.crash_on = None;
        disk.failures.clear();
    }

    /// The machine dies and comes back: of what was not synced, the seed decides what survived.
    pub fn reboot(&self) {
        self.kill();
        self.lock().lose_what_was_not_synced();
    }

    /// Limits the length of all files together.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity = bytes;
    }

    /// What followers need from now on.
    pub fn set_followers_need(&self, epoch: Option<Epoch>) {
        self.lock().followers_need = epoch;
    }

    /// Whether readers are told that a server runs.
    pub fn set_server_runs(&self, runs: bool) {
        self.lock().server_runs = runs;
    }

    /// Replaces the durable mark.
    pub fn set_mark(&self, mark: Option<DurableMark>) {
        let mut disk = self.lock();
        disk.mark = mark;
        disk.past_marks = vec![mark];
    }

    /// The durable mark.
    #[must_use]
    pub fn mark(&self) -> Option<DurableMark> {
        self.lock().mark
    }

    /// Names of all files, ascending.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }

    /// A file as a running process reads it.
    ///
    /// # Panics
    /// If there is none of that name; so do the next ones.
    #[must_use]
    pub fn file(&self, name: &str) -> Vec<u8> {
        let disk = self.lock();
        disk.files[disk.names[name]].current.clone()
    }

    /// Changes a file's bytes, durably and without a trace: what a failing disk does.
    pub fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.lock();
        let index = disk.names[name];
        let file = &mut disk.files[index];
        file.pending.clear();
        edit(&mut file.current);
        file.synced = file.current.clone();
    }

    /// Adds or replaces a file, durably.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut disk = self.lock();
        disk.files.push(Content { synced: bytes.clone(), current: bytes, length_synced: true, ..Content::default() });
        let index = disk.files.len() - 1;
        disk.names.insert(name.to_owned(), index);
        disk.durable_names.insert(name.to_owned(), index);
    }

    /// Removes a file, durably.
    pub fn take_away(&self, name: &str) {
        let mut disk = self.lock();
        assert!(disk.names.remove(name).is_some(), "{name} is there");
        disk.durable_names.remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        // A test that failed while it held the lock says so itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a call takes effect, and what it then answers.
enum Verdict {
    Do,
    /// Takes effect, fully or in part, but answers with an error: the machine is gone, or a failure was ordered.
    DoThenFail(Failure),
    DoNothing(i32),
}

impl Disk {
    /// Counts a call that changes something and decides what becomes of it.
    fn step(&mut self, call: Call) -> Verdict {
        self.steps += 1;
        let ordered = self.ordered(call);
        let nth = self.counts[&call];
        if self.crash_at == Some(self.steps) || self.crash_on == Some((call, nth)) {
            self.crashed = true;
            // In the middle: the call may have done its work, only nobody hears of it.
            return if self.random.one_in(2) {
                Verdict::DoNothing(libc::EIO)
            } else {
                Verdict::DoThenFail(Failure::Errno(libc::EIO))
            };
        }
        match ordered {
            Some(failure) if matches!(call, Call::Write | Call::Zero | Call::Sync) => Verdict::DoThenFail(failure),
            Some(Failure::Errno(code)) => Verdict::DoNothing(code),
            Some(Failure::Short(_)) => Verdict::DoNothing(libc::EIO),
            None => Verdict::Do,
        }
    }

    fn ordered(&mut self, call: Call) -> Option<Failure> {
        let count = self.counts.entry(call).or_default();
        *count += 1;
        let at = *count;
        let index = self.failures.iter().position(|(kind, nth, _)| (*kind, *nth) == (call, at))?;
        Some(self.failures.swap_remove(index).2)
    }

    fn write(&mut self, call: Call, file: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).expect("a file in memory");
        let keep = |disk: &mut Self, bytes: &[u8]| {
            let file = &mut disk.files[file];
            assert!(offset + bytes.len() <= file.current.len(), "writes stay within their file");
            file.current[offset..offset + bytes.len()].copy_from_slice(bytes);
            file.pending.push(Pending { offset, bytes: bytes.to_vec(), lost: false });
        };
        match self.step(call) {
            Verdict::Do => keep(self, bytes),
            Verdict::DoNothing(code) => return Err(errno(code)),
            Verdict::DoThenFail(Failure::Short(missing)) => {
                keep(self, &bytes[..bytes.len().saturating_sub(missing)]);
                return Err(io::ErrorKind::WriteZero.into());
            }
            Verdict::DoThenFail(Failure::Errno(code)) => {
                let sectors = self.random.below(bytes.len() / SECTOR_BYTES + 1);
                keep(self, &bytes[..sectors * SECTOR_BYTES]);
                return Err(errno(code));
            }
        }
        Ok(())
    }

    fn sync(&mut self, file: usize) -> io::Result<()> {
        let verdict = self.step(Call::Sync);
        let crashed = self.crashed;
        let file = &mut self.files[file];
        let mut cover = || {
            let (lost, covered): (Vec<_>, Vec<_>) = file.pending.drain(..).partition(|write| write.lost);
            for write in covered {
                file.synced[write.offset..write.offset + write.bytes.len()].copy_from_slice(&write.bytes);
            }
            file.pending = lost;
            file.length_synced = true;
        };
        match verdict {
            Verdict::Do => {
                cover();
                Ok(())
            }
            Verdict::DoNothing(code) => Err(errno(code)),
            Verdict::DoThenFail(failure) => {
                if crashed {
                    cover();
                } else {
                    file.pending.iter_mut().for_each(|write| write.lost = true);
                }
                match failure {
                    Failure::Errno(code) => Err(errno(code)),
                    Failure::Short(_) => Err(errno(libc::EIO)),
                }
            }
        }
    }

    fn change_name(&mut self, call: Call, change: NameChange) -> io::Result<()> {
        let (applies, outcome) = match self.step(call) {
            Verdict::Do => (true, Ok(())),
            Verdict::DoThenFail(Failure::Errno(code)) => (true, Err(errno(code))),
            Verdict::DoThenFail(Failure::Short(_)) => (false, Err(errno(libc::EIO))),
            Verdict::DoNothing(code) => (false, Err(errno(code))),
        };
        if applies {
            apply(&mut self.names, &change);
            self.pending_names.push(change);
        }
        outcome
    }

    fn used(&self) -> u64 {
        self.names.values().map(|index| self.files[*index].current.len() as u64).sum()
    }

    fn lose_what_was_not_synced(&mut self) {
        let mut random = self.random.clone();
        // A journal keeps the order of names; POSIX promises nothing.
        let in_order = random.one_in(2);
        let survivors = random.below(self.pending_names.len() + 1);
        for (index, change) in self.pending_names.drain(..).enumerate() {
            let survives = if in_order { index < survivors } else { random.one_in(2) };
            if survives {
                apply(&mut self.durable_names, &change);
            }
        }
        self.names = self.durable_names.clone();
        let style = random.below(4);
        for file in &mut self.files {
            let mut bytes = std::mem::take(&mut file.synced);
            let mut pending: Vec<_> = file.pending.drain(..).collect();
            if random.one_in(2) {
                pending.reverse();
            }
            for write in pending {
                survive(style, &mut random, &mut bytes, &write);
            }
            if !file.length_synced {
                bytes.truncate(random.below(bytes.len() / PAGE_BYTES + 1) * PAGE_BYTES);
                file.length_synced = true;
            }
            file.current.clone_from(&bytes);
            file.synced = bytes;
        }
        // The mark is never synced: any value it ever had may be on disk.
        self.mark = self.past_marks[random.below(self.past_marks.len())];
        self.past_marks = vec![self.mark];
        self.random = random;
    }
}

/// Applies what survived of one un-synced write: nothing, all, whole or not, a torn beginning, or any of its sectors.
fn survive(style: usize, random: &mut Random, bytes: &mut [u8], write: &Pending) {
    let sectors = write.bytes.len().div_ceil(SECTOR_BYTES);
    let whole = random.one_in(2);
    let beginning = random.below(sectors + 1);
    for (index, sector) in write.bytes.chunks(SECTOR_BYTES).enumerate() {
        let survives = match style {
            0 => false,
            1 => whole,
            2 => index < beginning,
            _ => random.one_in(2),
        };
        if survives {
            let at = write.offset + index * SECTOR_BYTES;
            bytes[at..at + sector.len()].copy_from_slice(sector);
        }
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Add(name, file) => {
            names.insert(name.clone(), *file);
        }
        NameChange::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
    }
}

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

    fn followers_need(&mut self) -> io::Result<Option<Epoch>> {
        Ok(self.disk()?.followers_need)
    }

    fn register(&mut self, _regions: &[Arc<Region>]) -> io::Result<()> {
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn wait(&mut self, bell: RawFd, timeout: Duration) -> io::Result<()> {
        if bell < 0 { Ok(()) } else { poll_readable(&[bell], timeout) }
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }
}
