//! What a question without a body is answered with: readiness as one shard knows it, and the stack's room for JSON. Shard
//! thread.

use super::context::Context;
use crate::handoff::WriterState;
use crate::metrics::{Readiness, WriterHealth};

/// Room for the summary or the readiness checks, within an answer.
const JSON_BYTES_MAX: usize = 1024;

/// The server's readiness, with what this shard knows of the moment.
pub(super) fn readiness(ctx: &Context) -> Readiness {
    let log = ctx.placer.log();
    let health = match ctx.writer_state() {
        WriterState::Starting => WriterHealth::Starting,
        WriterState::Running => WriterHealth::Running,
        WriterState::Full => WriterHealth::Full,
        WriterState::Stopped => WriterHealth::Stopped,
        WriterState::Poisoned => WriterHealth::Poisoned,
    };
    let mut readiness = ctx.server.readiness(ctx.draining, health);
    readiness.queue_utilization =
        readiness.queue_utilization.max(log.used_bytes() as f64 / log.capacity_bytes() as f64);
    readiness
}

/// A short JSON body on the stack.
pub(super) struct Json {
    bytes: [u8; JSON_BYTES_MAX],
    len: usize,
}

impl Default for Json {
    fn default() -> Self {
        Self { bytes: [0; JSON_BYTES_MAX], len: 0 }
    }
}

impl Json {
    /// What was written.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::fmt::Write for Json {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}
