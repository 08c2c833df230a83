//! Time of a run: nanoseconds since a start that all threads share. Any thread.

use std::sync::OnceLock;
use std::time::Instant;

/// The moment a run begins: that at which the first thread asks.
#[derive(Debug, Default)]
pub(super) struct Start(OnceLock<Instant>);

impl Start {
    /// A clock that counts from the start.
    pub(super) fn clock(&self) -> Clock {
        Clock { origin: *self.0.get_or_init(Instant::now) }
    }
}

/// Counts nanoseconds from its origin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: Instant,
}

impl Default for Clock {
    /// Counts from now.
    fn default() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Clock {
    /// Nanoseconds since the origin.
    pub(super) fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }
}
