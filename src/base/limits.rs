//! Every limit a stranger can reach, in one place. Each names the answer that reaching it gives.

use std::time::Duration;

use super::units::{KIB, MIB, PAGE_BYTES};

/// Default of [`Limits::body_bytes_max`].
pub const BODY_BYTES_MAX: u64 = 16 * MIB as u64;
/// Default and upper bound of [`Limits::event_bytes_max`].
pub const EVENT_BYTES_MAX: usize = MIB;
/// A chunk holds the longest event, its record header and the chunk header: one page more than the event.
pub const CHUNK_BYTES_MAX: usize = EVENT_BYTES_MAX + PAGE_BYTES;
/// Default and upper bound of [`Limits::head_bytes_max`].
pub const HEAD_BYTES_MAX: usize = 16 * KIB;
/// Header lines in one request; more is 431.
pub const HEADERS_MAX: usize = 64;

/// What a request, a connection and a shard may cost. Set once at start; never exceeded by load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one request body, after decompression; more is 413.
    pub body_bytes_max: u64,
    /// Bytes of one event; more is 413 (a single event) or an error entry (in a batch).
    pub event_bytes_max: usize,
    /// Bytes of request line and headers together; more is 431.
    pub head_bytes_max: usize,
    /// Nesting depth of one event's objects and arrays; more is `INVALID_JSON`.
    pub json_depth_max: usize,
    /// Events in one request; more is 400 `BATCH_TOO_LARGE`.
    pub events_per_request_max: u32,
    /// Open connections of one shard; more are closed at accept, after a 503 where it can be sent.
    pub connections_per_shard_max: u32,
    /// From a request's first byte to the end of its head; later is 408.
    pub head_timeout: Duration,
    /// Longest time for the next 4 KiB of a body, or for its end; later is 408.
    pub body_timeout: Duration,
    /// Keep-alive wait for the next request; later is a close without an answer.
    pub idle_timeout: Duration,
    /// Longest wait for a peer to take a byte of its answers; later is a close.
    pub send_timeout: Duration,
    /// zstd decompressors of one shard for bodies that come over 64 KiB long; for gzip there are sixteen times as many. Such a
    /// body beyond them is 503.
    pub decoders_per_shard_max: usize,
}

impl Limits {
    /// gzip decompressors for each zstd one: they take 48 KiB, a zstd one up to 8.5 MiB.
    pub const GZIP_DECODERS_PER_ZSTD: usize = 16;

    /// Decompressors of each kind beyond those, for bodies that have arrived whole: how long they hold one is the server's
    /// doing, not their clients'.
    pub const DECODERS_FOR_WHOLE_BODIES: usize = 1;

    /// gzip decompressors of one shard for long bodies.
    #[must_use]
    pub fn gzip_decoders_per_shard_max(&self) -> usize {
        self.decoders_per_shard_max * Self::GZIP_DECODERS_PER_ZSTD
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: BODY_BYTES_MAX,
            event_bytes_max: EVENT_BYTES_MAX,
            head_bytes_max: HEAD_BYTES_MAX,
            json_depth_max: 128,
            events_per_request_max: 1_000_000,
            connections_per_shard_max: 16_384,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            send_timeout: Duration::from_secs(30),
            decoders_per_shard_max: 16,
        }
    }
}
