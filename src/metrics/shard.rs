//! What one shard counts. Written by the shard's thread only.

use super::{Counter, Histogram};

/// Counters of one shard; all start at 0 with the process.
#[derive(Debug, Default)]
pub struct ShardMetrics {
    /// Requests whose head was read.
    pub requests: Counter,
    /// Requests answered 2xx.
    pub requests_ok: Counter,
    /// Requests refused with 429, 503 or 507.
    pub requests_rejected: Counter,
    /// Requests answered with any other 4xx or 5xx.
    pub requests_error: Counter,
    /// Events placed in a chunk.
    pub events: Counter,
    /// Bytes of those events.
    pub event_bytes: Counter,
    /// Events refused as invalid or too long.
    pub events_rejected: Counter,
    /// Bytes received from sockets.
    pub received_bytes: Counter,
    /// Bytes handed to sockets.
    pub sent_bytes: Counter,
    /// Connections accepted by this shard's listener.
    pub connections_accepted: Counter,
    /// Connections handed to another shard.
    pub connections_moved: Counter,
    /// Connections refused at `connections_per_shard_max`.
    pub connections_refused: Counter,
    /// Connections closed for slowness: head, body or send timeout, or far ahead of the answers they do not take.
    pub connections_timed_out: Counter,
    /// Gauge: connections open now.
    pub connections_open: Counter,
    /// Chunks sealed.
    pub chunks_sealed: Counter,
    /// Gauge: bytes of the log buffer that wait for the writer or are being filled.
    pub log_buffer_bytes_used: Counter,
    /// Times the log buffer had no room and connections were parked.
    pub no_room_stalls: Counter,
    /// Times the provided-buffer ring ran empty (ENOBUFS).
    pub receive_buffers_empty: Counter,
    /// Turns of the loop.
    pub turns: Counter,
    /// Nanoseconds spent working, as against waiting or spinning without work.
    pub busy_ns: Counter,
    /// Nanoseconds since the loop began.
    pub wall_ns: Counter,
    /// `io_uring_enter` calls.
    pub enters: Counter,
    /// Gauge: requests parsed and waiting for their ack level.
    pub requests_waiting: Counter,
    /// From the last byte of a request to the moment its ack level was reached.
    pub ack_latency: Histogram,
}
