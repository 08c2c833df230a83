//! Per-core counters and histograms: one thread writes, any thread reads, nobody locks.
//!
//! A counter is an atomic only so that another thread may look at it: its one writer adds with a plain load and store,
//! never a read-modify-write, so counting costs no bus traffic beyond the line it owns. Each thread's block is padded
//! to 128 bytes (two lines: the adjacent-line prefetcher of x86 pairs them).

mod fields;
mod histogram;
mod server;
mod shard;
mod writer;

use std::sync::atomic::{AtomicU64, Ordering};

pub use fields::{Field, HistogramField, Kind, SHARD_FIELDS, SHARD_HISTOGRAMS, WRITER_FIELDS, WRITER_HISTOGRAMS};
pub use histogram::{Histogram, Snapshot, Window};
pub use server::{
    READY_JSON_BYTES_MAX, READY_SHARE_MAX, Readiness, SUMMARY_JSON_BYTES_MAX, Scale, ServerMetrics, Summarizer,
    Summary, Totals, WriterHealth,
};
pub use shard::ShardMetrics;
pub use writer::WriterMetrics;

/// A count that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread calls this: two writers would lose counts.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Replaces the value: for gauges. Only the owning thread calls this.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value now, or shortly before.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Keeps what one core writes off the cache lines of another.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Padded<T>(pub T);

impl<T> std::ops::Deref for Padded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
