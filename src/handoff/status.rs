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
}

/// Why a writer was poisoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterFailure {
    /// What it did.
    pub stage: FailureStage,
    /// The errno the kernel answered with; 0 for a write that stayed short.
    pub errno: i32,
}

impl fmt::Display for WriterFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            FailureStage::Prepare => "preparing a segment",
            FailureStage::Write => "writing to the log",
            FailureStage::Sync => "syncing the log",
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
}

impl Default for WriterStatus {
    fn default() -> Self {
        Self { state: AtomicU8::new(WriterState::Starting as u8), stage: AtomicU8::new(0), errno: AtomicI32::new(0) }
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
                _ => FailureStage::Sync,
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
}
