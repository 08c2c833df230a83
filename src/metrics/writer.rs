//! What one writer counts. Written by the writer's thread only.

use super::{Counter, Histogram};

/// Counters of one writer; all start at 0 with the process. Aligned like [`super::Padded`]: each writer's block is shared by
/// itself, and must not share a line with whatever is allocated beside it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WriterMetrics {
    /// Group commits whose sync returned 0.
    pub groups: Counter,
    /// Chunks made durable.
    pub chunks: Counter,
    /// Events made durable.
    pub events: Counter,
    /// Bytes written to segments, padding and headers included.
    pub written_bytes: Counter,
    /// Gauge: segments that hold events.
    pub segments_live: Counter,
    /// Gauge: segments prepared and empty.
    pub segments_ready: Counter,
    /// Gauge: segments, other than the one written to, that the slowest reader still needs.
    pub segments_held: Counter,
    /// Segments deleted or recycled by retention.
    pub segments_retired: Counter,
    /// Times a segment had to be prepared while chunks waited.
    pub segment_waits: Counter,
    /// Gauge: bytes free on the log's filesystem.
    pub disk_free_bytes: Counter,
    /// Nanoseconds spent working, as against waiting for chunks.
    pub busy_ns: Counter,
    /// Nanoseconds since the loop began.
    pub wall_ns: Counter,
    /// Time of the writes of one group.
    pub write_latency: Histogram,
    /// Time of one sync.
    pub sync_latency: Histogram,
}
