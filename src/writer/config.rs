//! What a writer is told, and why it may refuse to open. Control thread.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::recover::RecoverError;
use super::segment::Retention;
use crate::base::{CHUNK_BYTES_MAX, MIB, PAGE_BYTES, WriterId};
use crate::record::walk::Damage;
use crate::sys::storage::{LockError, SyncChoice};

/// Default of [`WriterConfig::segment_bytes`].
const SEGMENT_BYTES: u64 = 256 * MIB as u64;
/// Smallest segment an operator may ask for.
pub const SEGMENT_BYTES_MIN: u64 = 8 * MIB as u64;
/// Largest segment: it is filled in the background between groups, and freed in one call.
pub const SEGMENT_BYTES_MAX: u64 = 16 * 1024 * MIB as u64;
/// A segment that holds few chunks wastes much of its end.
const CHUNKS_PER_SEGMENT_MIN: u64 = 4;
const _: () = assert!(SEGMENT_BYTES_MIN >= CHUNKS_PER_SEGMENT_MIN * CHUNK_BYTES_MAX as u64);

/// What one writer is told at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterConfig {
    /// Its number: names its directory.
    pub writer: WriterId,
    /// The data directory, the same for all writers.
    pub directory: PathBuf,
    /// Length of a segment; a multiple of a page.
    pub segment_bytes: u64,
    /// Segments kept ready beside the active one.
    pub segments_ahead: usize,
    /// Longest chunk a shard may offer.
    pub chunk_bytes_max: usize,
    /// Total length of segments above which the oldest are retired; `None` keeps all.
    pub retention_bytes: Option<u64>,
    /// Age of its youngest event above which a segment is retired; `None` keeps all.
    pub retention_age: Option<Duration>,
    /// Bytes of the filesystem to keep free; below, events are refused (507).
    pub reserve_bytes: u64,
    /// How groups are made durable.
    pub sync: SyncChoice,
    /// Bytes of one group commit.
    pub group_bytes_max: usize,
    /// Chunks of one group commit.
    pub group_chunks_max: usize,
    /// Bytes of segments that recovery reads whole, from the newest backwards; the newest two always are.
    pub recover_bytes_max: u64,
}

impl WriterConfig {
    /// The defaults for one writer of a data directory.
    #[must_use]
    pub fn new(writer: WriterId, directory: &Path) -> Self {
        Self {
            writer,
            directory: directory.to_owned(),
            segment_bytes: SEGMENT_BYTES,
            segments_ahead: 2,
            chunk_bytes_max: CHUNK_BYTES_MAX,
            retention_bytes: None,
            retention_age: None,
            reserve_bytes: 1024 * MIB as u64,
            sync: SyncChoice::Auto,
            // Some ten milliseconds of a fast disk: a group this long is at full speed already.
            group_bytes_max: 16 * MIB,
            group_chunks_max: 1024,
            recover_bytes_max: 1024 * MIB as u64,
        }
    }

    /// Checks what cannot work. That a segment is at least [`SEGMENT_BYTES_MIN`] is for the operator's configuration to
    /// check: tests and simulations use shorter ones.
    ///
    /// # Errors
    /// A sentence with the fix.
    pub fn check(&self) -> Result<(), String> {
        let page = PAGE_BYTES as u64;
        if !self.segment_bytes.is_multiple_of(page) || self.segment_bytes > SEGMENT_BYTES_MAX {
            return Err(format!(
                "segment_bytes is {}: it must be a multiple of {page} of at most {SEGMENT_BYTES_MAX}",
                self.segment_bytes
            ));
        }
        if self.chunk_bytes_max > CHUNK_BYTES_MAX || self.chunk_bytes_max == 0 {
            return Err(format!("chunk_bytes_max is {}: at most {CHUNK_BYTES_MAX}", self.chunk_bytes_max));
        }
        if self.segment_bytes < CHUNKS_PER_SEGMENT_MIN * self.chunk_bytes_max as u64 + page {
            return Err(format!(
                "segment_bytes is {}: it must hold {CHUNKS_PER_SEGMENT_MIN} chunks of {} bytes",
                self.segment_bytes, self.chunk_bytes_max
            ));
        }
        if self.segments_ahead == 0 || self.group_bytes_max == 0 || self.group_chunks_max == 0 {
            return Err("segments_ahead, group_bytes_max and group_chunks_max must be at least 1".to_owned());
        }
        Ok(())
    }

    pub(super) fn retention(&self) -> Retention {
        Retention { bytes: self.retention_bytes, age: self.retention_age }
    }
}

/// Why a writer cannot open its log.
#[derive(Debug)]
pub enum OpenError {
    /// The configuration cannot work (exit code 2).
    Config(String),
    /// Another server holds the data directory, or it cannot be locked (exit code 3).
    Lock(LockError),
    /// Acknowledged data is not there (exit code 4).
    Damaged(Damage),
    /// The host cannot: a file cannot be read, made or synced, or the disk is full (exit code 3).
    Host {
        /// What was tried.
        what: String,
        /// What the system answered.
        error: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(text) => f.write_str(text),
            Self::Lock(error) => error.fmt(f),
            Self::Damaged(damage) => write!(
                f,
                "{damage}. Acknowledged events are missing, so the server does not start: run `tidegate verify`, then \
                 restore the file or move the data directory away"
            ),
            Self::Host { what, error } if error.raw_os_error() == Some(libc::ENOSPC) => write!(
                f,
                "{what}: the disk is full: free space or shorten the retention. If `df` shows free bytes, see `df -i`: there may be \
                 no inodes left"
            ),
            Self::Host { what, error } if error.raw_os_error() == Some(libc::EDQUOT) => {
                write!(f, "{what}: this user's disk quota is used up: free space, raise it or shorten the retention")
            }
            Self::Host { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<LockError> for OpenError {
    fn from(error: LockError) -> Self {
        Self::Lock(error)
    }
}

impl From<RecoverError> for OpenError {
    fn from(error: RecoverError) -> Self {
        match error {
            RecoverError::Damaged(damage) => Self::Damaged(damage),
            RecoverError::Io { what, error } => Self::Host { what, error },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_work_and_what_cannot_work_says_why() {
        let config = WriterConfig::new(WriterId(0), Path::new("data"));
        assert_eq!(config.check(), Ok(()));
        let refused: [fn(&mut WriterConfig); 7] = [
            |config| config.segment_bytes += 1,
            |config| config.segment_bytes = 4 * MIB as u64,
            |config| config.segment_bytes = SEGMENT_BYTES_MAX + 4096,
            |config| config.chunk_bytes_max = CHUNK_BYTES_MAX + 1,
            |config| config.segments_ahead = 0,
            |config| config.group_bytes_max = 0,
            |config| config.group_chunks_max = 0,
        ];
        for (row, change) in refused.iter().enumerate() {
            let mut config = config.clone();
            change(&mut config);
            assert!(config.check().is_err(), "row {row}");
        }
    }
}
