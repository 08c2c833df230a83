//! A disk in memory that fails as told: what the writer, recovery and readers are tested against. Any thread; no system
//! calls but a poll for a bell.
//!
//! It keeps apart what a running process reads (`current`) and what survives the machine (`synced`, plus any part of
//! the un-synced writes). A crash freezes it at a chosen step; [`FaultyDisk::reboot`] then decides from the seed which
//! sectors of which un-synced writes survived and how many of the un-synced names. Everything it does follows from the
//! seed and the calls made, so a failing seed is a test.

mod disk;
mod storage;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Displaced, DurableMark, Facts, SyncMode};
use crate::base::Epoch;

use disk::{Content, Disk};
pub use storage::FaultyStorage;

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
    /// Punching a hole.
    PunchHole,
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

/// A disk, shared by the test and every storage on it.
#[derive(Clone, Debug)]
pub struct FaultyDisk(Arc<Mutex<Disk>>);

impl FaultyDisk {
    /// An empty disk of unlimited capacity.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Disk::new(Random::new(seed)))))
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
        FaultyStorage::new(self.clone(), boot, facts)
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

    /// Makes each call of a kind fail with this errno from now on, or none any more.
    pub fn fail_always(&self, call: Call, errno: Option<i32>) {
        let always_fail = &mut self.lock().always_fail;
        match errno {
            Some(errno) => always_fail.insert(call, errno),
            None => always_fail.remove(&call),
        };
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
        self.lock().followers_need = Ok(epoch);
    }

    /// Makes looking at what followers need fail from now on.
    pub fn fail_followers(&self, errno: i32) {
        self.lock().followers_need = Err(errno);
    }

    /// Says from now on that this was taken away.
    pub fn displace(&self, displaced: Option<Displaced>) {
        self.lock().displaced = displaced;
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
