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
    /// Times a compressed body had to wait for the next turn.
    pub turn_stalls: Counter,
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
    /// Gauge: requests let in and not yet answered at their ack level.
    pub requests_in_flight: Counter,
    /// Requests refused with 503 because the shard holds its utilization target.
    pub refused_utilization: Counter,
    /// Requests refused with 503 because the disk is behind.
    pub refused_lag: Counter,
    /// Requests refused with 503 at max_ccu.
    pub refused_concurrency: Counter,
    /// Requests refused with 503 because the tenant had his share and others wait for theirs.
    pub refused_share: Counter,
    /// Requests refused with 429: the tenant's limit.
    pub refused_limited: Counter,
    /// Requests refused with 401: no key, or nobody's.
    pub refused_unauthorized: Counter,
    /// Requests refused with 503 because the pool had no block for them.
    pub refused_pool: Counter,
    /// Requests refused with 503 because all decompressors were taken.
    pub refused_decoders: Counter,
    /// Requests refused with 507: no room on the disk.
    pub refused_disk: Counter,
    /// Requests refused with 503 because the server is shutting down.
    pub refused_draining: Counter,
    /// Requests refused with 503 because the log is not open yet, or its writer has failed.
    pub refused_unavailable: Counter,
    /// Times a connection was left unread for a while: refused again and again, or far heavier than others.
    pub connections_held: Counter,
    /// Of the time spent working, what refusing took, estimated.
    pub refusing_ns: Counter,
    /// Gauge, parts per million: share of the core spent serving, over 100 ms: what the target is for.
    pub serving_ppm: Counter,
    /// Gauge, parts per million: share of the core spent refusing, over 10 ms.
    pub refusing_ppm: Counter,
    /// Gauge, parts per million: share of the requests that was let in, over 100 ms.
    pub admit_ppm: Counter,
    /// Gauge, parts per million: the worst of the pressures.
    pub pressure_ppm: Counter,
    /// Gauge, parts per million: share of the core spent serving, of the target.
    pub pressure_utilization_ppm: Counter,
    /// Gauge, parts per million: age of the oldest chunk that is not durable, of lag_target.
    pub pressure_lag_ppm: Counter,
    /// Gauge, parts per million: requests in flight, of the shard's part of max_ccu times the target.
    pub pressure_concurrency_ppm: Counter,
    /// Gauge, parts per million: log buffer in use.
    pub pressure_log_buffer_ppm: Counter,
    /// Gauge, parts per million: chunks handed to the writer and not back, of what the ring holds.
    pub pressure_chunks_ppm: Counter,
    /// Gauge, parts per million: pool in use, of the part in which there are blocks of every size.
    pub pressure_pool_ppm: Counter,
    /// Gauge, nanoseconds: age of the oldest chunk that is not durable.
    pub durable_lag_ns: Counter,
    /// Gauge, nanoseconds: longest turn of the last minute or two: what a request waits behind others at most.
    pub turn_longest_ns: Counter,
    /// Gauge, nanoseconds: how long a refused connection is left unread.
    pub hold_ns: Counter,
    /// Gauge: 0: takes what comes; 1: some connections are left unread; 2: requests were refused within 100 ms.
    pub backpressure_level: Counter,
    /// From the last byte of a request to the moment its ack level was reached.
    pub ack_latency: Histogram,
}
