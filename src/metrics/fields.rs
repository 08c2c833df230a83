//! Every counter by name: what the admin port shows and a dashboard asks for. Any thread; reads only.
//!
//! A table row is a name without the process's prefix, a sentence of help, and where to read it. A counter that is
//! missing here does not compile: the tests at the end take each struct apart without `..`.

use super::{Counter, Histogram, ShardMetrics, WriterMetrics};

/// How a value moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only up, from 0 at start.
    Counter,
    /// Up and down.
    Gauge,
    /// Nanoseconds, only up: shown in seconds.
    Nanoseconds,
    /// Nanoseconds, up and down: shown in seconds.
    NanosecondsNow,
    /// Parts per million, up and down: shown as a ratio.
    Millionths,
}

/// One counter of a block `T`.
pub struct Field<T> {
    /// Its name, as the struct spells it.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// Where it is.
    pub of: fn(&T) -> &Counter,
}

/// One histogram of nanoseconds of a block `T`.
pub struct HistogramField<T> {
    /// Its name, as the struct spells it.
    pub name: &'static str,
    /// What it measures.
    pub help: &'static str,
    /// Where it is.
    pub of: fn(&T) -> &Histogram,
}

macro_rules! fields {
    ($($name:ident $kind:ident $help:literal)+) => {
        &[$(Field { name: stringify!($name), help: $help, kind: Kind::$kind, of: |block| &block.$name }),+]
    };
}

/// All counters and gauges of a shard.
pub const SHARD_FIELDS: &[Field<ShardMetrics>] = fields! {
    requests Counter "Requests answered or being served, those included whose head could not be read."
    requests_ok Counter "Requests answered 2xx."
    requests_rejected Counter "Requests refused with 429, 503 or 507."
    requests_error Counter "Requests answered with any other 4xx or 5xx."
    events Counter "Events placed in a chunk."
    event_bytes Counter "Bytes of events placed in a chunk."
    events_rejected Counter "Events refused as invalid or too long."
    received_bytes Counter "Bytes received from sockets."
    sent_bytes Counter "Bytes handed to sockets."
    connections_accepted Counter "Connections accepted by the shard's listener."
    connections_moved Counter "Connections handed to another shard."
    connections_refused Counter "Connections refused at connections_per_shard_max."
    connections_timed_out Counter "Connections closed for slowness: head, body or send timeout."
    connections_open Gauge "Connections open now."
    chunks_sealed Counter "Chunks sealed."
    log_buffer_bytes_used Gauge "Bytes of the log buffer that wait for the writer or are being filled."
    no_room_stalls Counter "Times the log buffer had no room and connections were parked."
    turn_stalls Counter "Times a compressed body had to wait for the next turn, because this one had decompressed enough."
    receive_buffers_empty Counter "Receives that found no buffer lent to the kernel and were armed again."
    turns Counter "Turns of the shard's loop."
    busy_ns Nanoseconds "Time spent working, as against waiting or spinning without work."
    wall_ns Nanoseconds "Time since the shard's loop began."
    enters Counter "io_uring_enter calls."
    requests_waiting Gauge "Requests parsed and waiting for their ack level."
    requests_in_flight Gauge "Requests let in and not yet answered at their ack level."
    refused_utilization Counter "Requests refused with 503 because the shard holds its utilization target."
    refused_lag Counter "Requests refused with 503 because the disk is behind."
    refused_concurrency Counter "Requests refused with 503 at max_ccu."
    refused_share Counter "Requests refused with 503 because the tenant had his share and others wait for theirs."
    refused_limited Counter "Requests refused with 429: the tenant's limit."
    refused_unauthorized Counter "Requests refused with 401: no key, or nobody's."
    refused_pool Counter "Requests refused with 503 because the memory pool had no block for them."
    refused_decoders Counter "Requests refused with 503 because all decompressors were taken."
    refused_disk Counter "Requests refused with 507: no room on the disk."
    refused_draining Counter "Requests refused with 503 because the server is shutting down."
    refused_unavailable Counter "Requests refused with 503 because the log is not open yet, or its writer has failed."
    connections_held Counter "Times a connection was left unread for a while: refused again and again, or far heavier than others."
    refusing_ns Nanoseconds "Of the time spent working, what refusing took, estimated."
    serving_ppm Millionths "Share of the core spent serving, over 100 ms: what the target is for."
    refusing_ppm Millionths "Share of the core spent refusing, over 10 ms."
    admit_ppm Millionths "Share of the requests that was let in, over 100 ms."
    pressure_ppm Millionths "The worst of the pressures."
    pressure_utilization_ppm Millionths "Share of the core spent serving, of the target."
    pressure_lag_ppm Millionths "Age of the oldest chunk that is not durable, of lag_target."
    pressure_concurrency_ppm Millionths "Requests in flight, of the shard's part of max_ccu times the target."
    pressure_log_buffer_ppm Millionths "Log buffer in use."
    pressure_chunks_ppm Millionths "Chunks handed to the writer and not back, of what the ring holds."
    pressure_pool_ppm Millionths "Pool in use, of the part in which there are blocks of every size."
    durable_lag_ns NanosecondsNow "Age of the oldest chunk that is not durable."
    turn_longest_ns NanosecondsNow "Longest turn of the last minute or two: what a request waits behind others at most."
    hold_ns NanosecondsNow "How long a refused connection is left unread."
    backpressure_level Gauge "0: takes what comes; 1: some connections are left unread; 2: requests were refused within 100 ms."
};

/// All histograms of a shard.
pub const SHARD_HISTOGRAMS: &[HistogramField<ShardMetrics>] = &[HistogramField {
    name: "ack_latency",
    help: "From the last byte of a request to the moment its ack level was reached.",
    of: |block| &block.ack_latency,
}];

/// All counters and gauges of a writer.
pub const WRITER_FIELDS: &[Field<WriterMetrics>] = fields! {
    groups Counter "Group commits whose sync returned 0."
    chunks Counter "Chunks made durable."
    events Counter "Events made durable."
    written_bytes Counter "Bytes written to segments, padding and headers included."
    segments_live Gauge "Segments that hold events."
    segments_ready Gauge "Segments prepared and empty."
    segments_held Gauge "Segments, other than the one written to, that the slowest registered reader still needs: retention waits for it."
    segments_retired Counter "Segments deleted or recycled by retention."
    segment_waits Counter "Times a segment had to be prepared while chunks waited."
    disk_free_bytes Gauge "Bytes free on the log's filesystem."
    busy_ns Nanoseconds "Time spent working, as against waiting for chunks."
    wall_ns Nanoseconds "Time since the writer's loop began."
};

/// All histograms of a writer.
pub const WRITER_HISTOGRAMS: &[HistogramField<WriterMetrics>] = &[
    HistogramField {
        name: "write_latency",
        help: "Time of the writes of one group.",
        of: |block| &block.write_latency,
    },
    HistogramField { name: "sync_latency", help: "Time of one sync.", of: |block| &block.sync_latency },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a block apart by the names in its struct and compares with the table: same names, same places.
    macro_rules! assert_complete {
        ($block:ident, $fields:expr, $histograms:expr, [$($name:ident),+], [$($histogram:ident),+]) => {{
            let block = $block::default();
            // No `..`: a counter added to the struct must be added here, and then to the table.
            let $block { $($name,)+ $($histogram),+ } = &block;
            let named: Vec<(&str, *const Counter)> = vec![$((stringify!($name), &raw const *$name)),+];
            let listed: Vec<_> = $fields.iter().map(|field| (field.name, &raw const *(field.of)(&block))).collect();
            assert_eq!(listed, named);
            let named: Vec<(&str, *const Histogram)> = vec![$((stringify!($histogram), &raw const *$histogram)),+];
            let listed: Vec<_> = $histograms.iter().map(|field| (field.name, &raw const *(field.of)(&block))).collect();
            assert_eq!(listed, named);
        }};
    }

    #[test]
    fn every_counter_is_in_its_table() {
        assert_complete!(
            ShardMetrics,
            SHARD_FIELDS,
            SHARD_HISTOGRAMS,
            [
                requests,
                requests_ok,
                requests_rejected,
                requests_error,
                events,
                event_bytes,
                events_rejected,
                received_bytes,
                sent_bytes,
                connections_accepted,
                connections_moved,
                connections_refused,
                connections_timed_out,
                connections_open,
                chunks_sealed,
                log_buffer_bytes_used,
                no_room_stalls,
                turn_stalls,
                receive_buffers_empty,
                turns,
                busy_ns,
                wall_ns,
                enters,
                requests_waiting,
                requests_in_flight,
                refused_utilization,
                refused_lag,
                refused_concurrency,
                refused_share,
                refused_limited,
                refused_unauthorized,
                refused_pool,
                refused_decoders,
                refused_disk,
                refused_draining,
                refused_unavailable,
                connections_held,
                refusing_ns,
                serving_ppm,
                refusing_ppm,
                admit_ppm,
                pressure_ppm,
                pressure_utilization_ppm,
                pressure_lag_ppm,
                pressure_concurrency_ppm,
                pressure_log_buffer_ppm,
                pressure_chunks_ppm,
                pressure_pool_ppm,
                durable_lag_ns,
                turn_longest_ns,
                hold_ns,
                backpressure_level
            ],
            [ack_latency]
        );
        assert_complete!(
            WriterMetrics,
            WRITER_FIELDS,
            WRITER_HISTOGRAMS,
            [
                groups,
                chunks,
                events,
                written_bytes,
                segments_live,
                segments_ready,
                segments_held,
                segments_retired,
                segment_waits,
                disk_free_bytes,
                busy_ns,
                wall_ns
            ],
            [write_latency, sync_latency]
        );
    }
}
