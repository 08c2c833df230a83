//! What a writer tells everybody: may events be taken, and if not, why not. Written by the writer's thread, read by all.

use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

/// Whether a writer takes events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterState {
    /// Recovering or preparing its first segment.
    Starting = 0,
    /// Taking chunks.
    Running = 1,
    /// The disk reserve is reached: what is in the buffers will be written, nothing more is to be admitted (507).
    Full = 2,
    /// A write or a sync failed: nothing is acknowledged any more (503), the process will exit.
    Poisoned = 3,
    /// Drained and closed.
    Stopped = 4,
}

/// What the writer did when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureStage {
    /// Creating, preparing or renaming a segment.
    Prepare = 0,
    /// Writing chunks.
    Write = 1,
    /// Syncing a segment or the directory.
    Sync = 2,
    /// Nothing of its own: the file of the active segment was removed or renamed.
    SegmentGone = 3,
    /// Nothing of its own: the directory of its log was removed or renamed.
    DirectoryGone = 4,
    /// Nothing of its own: the data directory's lock file was removed or replaced.
    LockGone = 5,
}

/// Why a writer was poisoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterFailure {
    /// What it did.
    pub stage: FailureStage,
    /// The errno the kernel answered with; 0 for a write that stayed short, and where something is gone.
    pub errno: i32,
}

impl WriterFailure {
    /// Whether somebody took away what the writer writes to: the disk is not to blame.
    #[must_use]
    pub const fn is_displaced(&self) -> bool {
        matches!(self.stage, FailureStage::SegmentGone | FailureStage::DirectoryGone | FailureStage::LockGone)
    }
}

impl fmt::Display for WriterFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            FailureStage::Prepare => "preparing a segment",
            FailureStage::Write => "writing to the log",
            FailureStage::Sync => "syncing the log",
            FailureStage::SegmentGone => {
                return f.write_str(
                    "the file of the active segment was removed or renamed by somebody else: what was acknowledged into it \
                     may be lost",
                );
            }
            FailureStage::DirectoryGone => {
                return f.write_str(
                    "the directory of the log was removed, or moved: events acknowledged since may be lost, or are where it \
                     was moved to; stop the server before its data directory is touched",
                );
            }
            FailureStage::LockGone => {
                return f.write_str(
                    "the data directory's file LOCK was removed or replaced, so that a second server could write to the same \
                     log: see that there is none, start this one again, and leave that file alone",
                );
            }
        };
        match self.errno {
            0 => write!(f, "{stage} failed: the write stayed short"),
            errno => write!(f, "{stage} failed: {}", std::io::Error::from_raw_os_error(errno)),
        }
    }
}

/// One writer's state, shared by reference.
#[derive(Debug)]
pub struct WriterStatus {
    state: AtomicU8,
    stage: AtomicU8,
    errno: AtomicI32,
    /// Why followers cannot be looked at; 0 if they can.
    followers_errno: AtomicI32,
}

impl Default for WriterStatus {
    fn default() -> Self {
        Self {
            state: AtomicU8::new(WriterState::Starting as u8),
            stage: AtomicU8::new(0),
            errno: AtomicI32::new(0),
            followers_errno: AtomicI32::new(0),
        }
    }
}

impl WriterStatus {
    /// The state now.
    #[inline]
    #[must_use]
    pub fn state(&self) -> WriterState {
        // Acquire pairs with the Release in `set` and `poison`: whoever sees Poisoned sees the reason too.
        match self.state.load(Ordering::Acquire) {
            0 => WriterState::Starting,
            1 => WriterState::Running,
            2 => WriterState::Full,
            3 => WriterState::Poisoned,
            _ => WriterState::Stopped,
        }
    }

    /// Why the writer is poisoned; `None` if it is not.
    #[must_use]
    pub fn failure(&self) -> Option<WriterFailure> {
        (self.state() == WriterState::Poisoned).then(|| WriterFailure {
            stage: match self.stage.load(Ordering::Relaxed) {
                0 => FailureStage::Prepare,
                1 => FailureStage::Write,
                2 => FailureStage::Sync,
                3 => FailureStage::SegmentGone,
                4 => FailureStage::DirectoryGone,
                _ => FailureStage::LockGone,
            },
            errno: self.errno.load(Ordering::Relaxed),
        })
    }

    /// Changes the state. Only the writer calls this; a poisoned writer stays poisoned.
    pub fn set(&self, state: WriterState) {
        assert_ne!(state, WriterState::Poisoned, "poison() carries the reason");
        if self.state() != WriterState::Poisoned {
            self.state.store(state as u8, Ordering::Release);
        }
    }

    /// The errno that looking at followers failed with when it was last tried; 0 if it did not. Retention then keeps
    /// everything, and nothing else suffers.
    #[must_use]
    pub fn followers_errno(&self) -> i32 {
        self.followers_errno.load(Ordering::Relaxed)
    }

    /// Notes it. Only the writer calls this.
    pub fn set_followers_errno(&self, errno: i32) {
        self.followers_errno.store(errno, Ordering::Relaxed);
    }

    /// Records the first failure for good.
    pub fn poison(&self, failure: WriterFailure) {
        if self.state() != WriterState::Poisoned {
            self.stage.store(failure.stage as u8, Ordering::Relaxed);
            self.errno.store(failure.errno, Ordering::Relaxed);
            self.state.store(WriterState::Poisoned as u8, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poison_is_for_good_and_keeps_the_first_reason() {
        let status = WriterStatus::default();
        status.set(WriterState::Running);
        assert_eq!(status.failure(), None);
        let first = WriterFailure { stage: FailureStage::Sync, errno: libc::EIO };
        status.poison(first);
        status.poison(WriterFailure { stage: FailureStage::Write, errno: libc::ENOSPC });
        status.set(WriterState::Running);
        assert_eq!((status.state(), status.failure()), (WriterState::Poisoned, Some(first)));
        assert!(first.to_string().contains("syncing the log failed: Input/output error"));
    }

    #[test]
    fn every_stage_is_told_as_it_was_recorded() {
        for (stage, says) in [
            (FailureStage::Prepare, "preparing a segment failed"),
            (FailureStage::Write, "writing to the log failed"),
            (FailureStage::Sync, "syncing the log failed"),
            (FailureStage::SegmentGone, "the active segment was removed"),
            (FailureStage::DirectoryGone, "the directory of the log was removed"),
            (FailureStage::LockGone, "LOCK was removed"),
        ] {
            let status = WriterStatus::default();
            status.poison(WriterFailure { stage, errno: 0 });
            let failure = status.failure().unwrap();
            assert_eq!(failure.stage, stage);
            assert!(failure.to_string().contains(says), "{failure}");
        }
    }
}
