//! What the log asks of a disk, as a trait small enough to be simulated.
//!
//! A [`Storage`] is one writer's directory of segment files. [`DirectStorage`] is the real one: O_DIRECT files and an
//! io_uring of its own. [`faulty`] is a disk in memory that tears, reorders, fails and crashes as told. The writer
//! drives a storage from its own thread; readers use the [`ReadStorage`] half from theirs, in their own processes.
//!
//! What every implementation promises, and the log builds on:
//!
//! * a write whose call returned is read back by everybody, and survives the death of the process;
//! * it survives the death of the machine once a `sync` of its file that began after it returned 0, not before; until
//!   then any subset of its 512-byte sectors may;
//! * a created or renamed name survives the death of the machine once `sync_dir` returned 0; before that, names change
//!   in the order the calls were made, up to some point.

mod aligned;
mod direct;
mod directory;
pub mod faulty;
mod files;
mod follower;
mod lock;
mod mark;
mod probe;
mod ring;

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub use aligned::AlignedBytes;
pub use direct::DirectStorage;
pub use files::FileStorage;
pub use follower::Follower;
pub use lock::{DataLock, LockError, server_runs, was_held};

use super::memory::Region;
use crate::base::Epoch;

/// Writes one [`Storage::write_group`] takes at most: they are in flight at once.
pub const WRITES_PER_GROUP_MAX: usize = 256;

/// A file opened through a storage; means nothing to another storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId(u32);

/// A file of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, without the directory.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// One write of a group. Offset and length are multiples of [`crate::base::PAGE_BYTES`], the address is aligned to it.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// Where in the file.
    pub offset: u64,
    /// What.
    pub bytes: &'a [u8],
    /// Index of the registered region the bytes lie in; `None` if they lie in none.
    pub region: Option<u16>,
}

impl Write<'_> {
    /// Fills the unused end of an array of writes.
    pub const NONE: Self = Write { offset: 0, bytes: &[], region: None };
}

/// Up to where the log is known to be durable: hint for readers in other processes, proof for recovery. Never ahead of
/// the truth; behind it by a few milliseconds, and after a crash of the machine by any amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DurableMark {
    /// The segment.
    pub epoch: Epoch,
    /// Everything in it before this offset is durable.
    pub end: u64,
}

/// What was taken away from under a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Displaced {
    /// The file it writes to no longer has its name.
    Segment,
    /// Its directory is no longer at its path.
    Directory,
    /// The lock file is not the one that is locked: another server could start here.
    Lock,
}

/// How a group commit is to be made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncChoice {
    /// What the device suggests.
    #[default]
    Auto,
    /// RWF_DSYNC on every write.
    Dsync,
    /// One fdatasync per group.
    Fdatasync,
}

impl FromStr for SyncChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "dsync" => Ok(Self::Dsync),
            "fdatasync" => Ok(Self::Fdatasync),
            _ => Err(format!("'{text}' is not a sync mode: expected auto, dsync or fdatasync")),
        }
    }
}

/// How a group commit is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Each write is durable when it completes (FUA, or no volatile cache).
    Dsync,
    /// The writes of a group, then one fdatasync.
    Fdatasync,
}

impl fmt::Display for SyncMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dsync => "dsync",
            Self::Fdatasync => "fdatasync",
        })
    }
}

/// What a storage found out about its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether files are opened with O_DIRECT.
    pub direct: bool,
    /// How groups are made durable.
    pub sync: SyncMode,
    /// Why so, for the plan.
    pub sync_reason: String,
    /// What an operator should know, as sentences.
    pub warnings: Vec<String>,
}

/// Work that goes on beside the groups; at most one piece at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// Overwrites a range with zeros; a multiple of a page, at most [`Background::ZERO_BYTES_MAX`].
    Zero {
        /// The file.
        file: FileId,
        /// From here.
        offset: u64,
        /// This many.
        bytes: usize,
    },
    /// Makes a file's content and length durable.
    Sync {
        /// The file.
        file: FileId,
    },
}

impl Background {
    /// Longest range of one [`Background::Zero`]: a group behind it waits for a few milliseconds of a fast disk at most.
    pub const ZERO_BYTES_MAX: usize = 16 * crate::base::MIB;
}

/// The reading half.
pub trait ReadStorage: Send {
    /// Every file of the directory, in no order.
    ///
    /// # Errors
    /// What the system answered.
    fn list(&mut self) -> io::Result<Vec<Entry>>;

    /// Opens a file.
    ///
    /// # Errors
    /// What the system answered; `NotFound` if there is none of that name.
    fn open(&mut self, name: &str) -> io::Result<FileId>;

    /// Closes a file; its id is dead from here on.
    fn close(&mut self, file: FileId);

    /// Reads at `offset` until `into` is full or the file ends; how many bytes. With O_DIRECT, offset, length and
    /// address must be multiples of a page.
    ///
    /// # Errors
    /// What the system answered.
    fn read_at(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Makes what was written to a file durable, whoever wrote it: before what a dead process wrote is relied on.
    ///
    /// # Errors
    /// What the system answered. Never to be tried again: the pages may be marked clean without having been written.
    fn sync(&mut self, file: FileId) -> io::Result<()>;

    /// Whether `name` still names this very file.
    ///
    /// # Errors
    /// What the system answered, other than that there is none of that name.
    fn is_still(&mut self, file: FileId, name: &str) -> io::Result<bool>;

    /// The durable mark; `None` if there is none or it is torn.
    ///
    /// # Errors
    /// What the system answered.
    fn durable_mark(&mut self) -> io::Result<Option<DurableMark>>;

    /// Whether a server holds the data directory.
    ///
    /// # Errors
    /// What the system answered.
    fn server_runs(&mut self) -> io::Result<bool>;
}

/// The writer's half.
pub trait Storage: ReadStorage {
    /// Creates a file of `bytes` bytes with space allocated but not yet written.
    ///
    /// # Errors
    /// `AlreadyExists`, ENOSPC, or what else the system answered; then there is no such file.
    fn create(&mut self, name: &str, bytes: u64) -> io::Result<FileId>;

    /// Gives a file another name, replacing none.
    ///
    /// # Errors
    /// What the system answered.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system answered.
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// Makes the names of the directory durable.
    ///
    /// # Errors
    /// What the system answered.
    fn sync_dir(&mut self) -> io::Result<()>;

    /// Writes a few pages and waits: for headers and seals. As aligned as a [`Write`].
    ///
    /// # Errors
    /// What the system answered; `WriteZero` for a write that stayed short.
    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Gives the disk back the space of `bytes` bytes of a file from `offset` on, which then read as zeros; its length stays.
    /// After a death of the machine they may be what they were. Offset and length are multiples of a page.
    ///
    /// # Errors
    /// EOPNOTSUPP on a filesystem that cannot, or what else the system answered.
    fn punch_hole(&mut self, file: FileId, offset: u64, bytes: u64) -> io::Result<()>;

    /// Fills a whole file with zeros and makes it durable, waiting for it: when no segment could be prepared ahead.
    ///
    /// # Errors
    /// What the system answered.
    fn zero_and_sync(&mut self, file: FileId, bytes: u64) -> io::Result<()>;

    /// Starts every write, waits for all of them and checks that each is complete. No byte of `writes` is touched by
    /// the kernel once this has returned, whatever it returns.
    ///
    /// # Errors
    /// The first error of any write; `WriteZero` for one that stayed short. The others may have been written.
    fn write_group(&mut self, file: FileId, writes: &[Write<'_>]) -> io::Result<()>;

    /// Writes a group as [`Storage::write_group`] does while what was written to `file` before is made durable: starts
    /// every write, syncs, tells `synced` how that went, and only then waits for the writes. The sync covers none of them.
    ///
    /// # Errors
    /// As [`Storage::write_group`]; those of the sync, never to be tried again, go to `synced` alone.
    fn write_group_during_sync(
        &mut self,
        file: FileId,
        writes: &[Write<'_>],
        synced: &mut dyn FnMut(io::Result<()>),
    ) -> io::Result<()>;

    /// Makes every group written to `file` durable.
    ///
    /// # Errors
    /// What the system answered; as for [`ReadStorage::sync`], never to be tried again.
    fn sync_group(&mut self, file: FileId) -> io::Result<()>;

    /// Starts a piece of background work.
    ///
    /// # Errors
    /// What the system answered; then nothing was started.
    ///
    /// # Panics
    /// If another piece is under way.
    fn start_background(&mut self, work: Background) -> io::Result<()>;

    /// The result of the background work; `None` while it is under way or if there is none.
    fn poll_background(&mut self) -> Option<io::Result<()>>;

    /// Bytes free for this process on the filesystem.
    ///
    /// # Errors
    /// What the system answered.
    fn free_bytes(&mut self) -> io::Result<u64>;

    /// Sets the durable mark, as a hint: without a sync.
    ///
    /// # Errors
    /// What the system answered. Harmless: readers fall behind.
    fn set_durable_mark(&mut self, mark: DurableMark) -> io::Result<()>;

    /// What is no longer where it was opened: the directory, the data directory's lock file, or `file`, which is to be named
    /// `name`; `None` if all of it is. The calls of this trait go by descriptor and do not notice.
    ///
    /// # Errors
    /// What the system answered; then nothing is known.
    fn displaced(&mut self, file: FileId, name: &str) -> io::Result<Option<Displaced>>;

    /// The oldest segment a registered follower still needs; `None` if there is no follower.
    ///
    /// # Errors
    /// What the system answered; then nothing may be retired, and nothing else is wrong: readers of other users make what is
    /// looked at here.
    fn followers_need(&mut self) -> io::Result<Option<Epoch>>;

    /// Makes the regions known to the kernel, so that writes from them skip the pinning of pages. Once, before
    /// [`Storage::begin`]; on any thread.
    ///
    /// # Errors
    /// What the system answered, if writes cannot be made at all. That they can but unregistered is a sentence in
    /// [`Facts::warnings`].
    fn register(&mut self, regions: &[Arc<Region>]) -> io::Result<()>;

    /// Binds the storage to the calling thread: groups are written from it only.
    ///
    /// # Errors
    /// What the system answered.
    fn begin(&mut self) -> io::Result<()>;

    /// Sleeps until the eventfd `bell` is readable, background work ends or `timeout` passes.
    ///
    /// # Errors
    /// What the system answered.
    fn wait(&mut self, bell: RawFd, timeout: Duration) -> io::Result<()>;

    /// What the storage found out about its disk.
    fn facts(&self) -> &Facts;
}

/// An errno as an error.
fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}
