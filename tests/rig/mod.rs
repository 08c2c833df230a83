//! A writer and its shards on one thread, over any storage: what the storage tests are built from.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate::base::{KIB, MIB, Seq, ShardId, TenantId, WriterId};
use tidegate::handoff::{
    Bell, CHUNK_HEADER_BYTES, LogBuffer, NoRoom, ShardPort, WriterFailure, WriterState, WriterStatus, channel,
};
use tidegate::log::{LogReader, ReadError, VerifyReport, verify_storages};
use tidegate::metrics::WriterMetrics;
use tidegate::record::{RECORD_HEADER_BYTES, crc32c, put_record_header};
use tidegate::sys::memory::Region;
use tidegate::sys::storage::Storage;
use tidegate::sys::storage::faulty::FaultyDisk;
use tidegate::writer::{self, Now, OpenError, RecoveryReport, Turn, Writer, WriterConfig};

/// Longest chunk of the tests: events of a few hundred bytes fill one now and then.
pub(crate) const CHUNK_BYTES: usize = 16 * KIB;
/// Rings of this many chunks: some tests fill them.
const RING_CHUNKS: usize = 64;

/// Small segments, so that a test rolls often.
pub(crate) fn small(directory: &Path) -> WriterConfig {
    WriterConfig {
        segment_bytes: 128 * KIB as u64,
        segments_ahead: 1,
        chunk_bytes_max: CHUNK_BYTES,
        reserve_bytes: 0,
        group_bytes_max: 48 * KIB,
        group_chunks_max: 8,
        recover_bytes_max: u64::MAX,
        ..WriterConfig::new(WriterId(0), directory)
    }
}

/// One event as a test knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) shard: u16,
    pub(crate) seq: u64,
    pub(crate) bytes: Vec<u8>,
}

/// One shard's half of the hand-off.
pub(crate) struct Shard {
    pub(crate) buffer: LogBuffer,
    pub(crate) port: ShardPort,
    /// Events of chunks handed over, in order.
    pub(crate) offered: Vec<Event>,
    open: Vec<Event>,
}

impl Shard {
    /// A shard that has handed nothing over yet.
    pub(crate) fn new(buffer: LogBuffer, port: ShardPort) -> Self {
        Self { buffer, port, offered: Vec::new(), open: Vec::new() }
    }

    /// Places an event; false if there is no room now.
    pub(crate) fn place(&mut self, shard: u16, event: &[u8], tenant: u16) -> bool {
        let bytes = RECORD_HEADER_BYTES + event.len();
        if self.buffer.open_payload_bytes() + bytes + CHUNK_HEADER_BYTES > CHUNK_BYTES && !self.seal_and_offer() {
            return false;
        }
        let slice = match self.buffer.extend(bytes) {
            Ok(slice) => slice,
            Err(NoRoom::BufferFull) => return false,
            // The end of the buffer or its oldest chunk is near: the next chunk may fit.
            Err(NoRoom::ChunkFull) => return self.seal_and_offer() && self.place(shard, event, tenant),
        };
        let (header, body) = slice.split_first_chunk_mut().expect("a record header");
        put_record_header(header, event.len(), TenantId(tenant), 0);
        body.copy_from_slice(event);
        self.buffer.commit(1);
        self.open.push(Event { shard, seq: self.buffer.open_seq().0, bytes: event.to_vec() });
        true
    }

    /// Seals the open chunk and hands it over; false if the ring has no room.
    pub(crate) fn seal_and_offer(&mut self) -> bool {
        if !self.port.has_room() {
            return false;
        }
        let crc = crc32c(self.buffer.open_payload(0));
        if let Some(chunk) = self.buffer.seal(crc, 1_790_000_000_000_000_000 + self.buffer.open_seq().0) {
            self.port.offer(chunk).expect("the ring has room");
            self.offered.append(&mut self.open);
        }
        true
    }

    /// Takes settled chunks back.
    pub(crate) fn take_settled(&mut self) {
        self.port.take_settled(&mut self.buffer);
    }

    /// The events acknowledged as durable so far.
    pub(crate) fn acked(&self) -> impl Iterator<Item = &Event> {
        let durable = self.port.durable_seq().0;
        self.offered.iter().filter(move |event| event.seq <= durable)
    }
}

/// A writer and its shards.
pub(crate) struct Rig {
    pub(crate) shards: Vec<Shard>,
    pub(crate) writer: Option<Writer>,
    pub(crate) status: Arc<WriterStatus>,
    pub(crate) metrics: Arc<WriterMetrics>,
    pub(crate) report: RecoveryReport,
    pub(crate) elapsed: Duration,
}

impl Rig {
    /// Opens the log and joins `shards` shards with log buffers of 2 MiB.
    pub(crate) fn open(config: &WriterConfig, storage: Box<dyn Storage>, shards: u16) -> Result<Self, OpenError> {
        let opened = writer::open(config, storage)?;
        let report = opened.report().clone();
        let (status, metrics) = (Arc::<WriterStatus>::default(), Arc::<WriterMetrics>::default());
        let bell = Arc::new(Bell::new().unwrap());
        let mut ports = Vec::new();
        let mut ends = Vec::new();
        for shard in (0..shards).map(ShardId) {
            let region = Arc::new(Region::map(2 * MIB, false).unwrap());
            let last_seq = opened.last_seq(shard);
            let (shard_port, writer_port) = channel(
                shard,
                Arc::clone(&region),
                RING_CHUNKS,
                last_seq,
                Arc::new(Bell::new().unwrap()),
                Arc::clone(&bell),
                Arc::clone(&status),
            );
            let buffer = LogBuffer::new(region, shard, CHUNK_BYTES, last_seq);
            ends.push(Shard::new(buffer, shard_port));
            ports.push(writer_port);
        }
        let mut writer = writer::join(opened, ports, bell, Arc::clone(&status), Arc::clone(&metrics))?;
        writer.begin().map_err(|failure| OpenError::Config(failure.to_string()))?;
        Ok(Self { shards: ends, writer: Some(writer), status, metrics, report, elapsed: Duration::ZERO })
    }

    /// Places an event of `shard` and hands its chunk over.
    pub(crate) fn send(&mut self, shard: u16, event: &[u8]) {
        let end = &mut self.shards[usize::from(shard)];
        assert!(end.place(shard, event, 0) && end.seal_and_offer(), "the rig has room");
    }

    /// One turn of the writer, a millisecond after the last one.
    pub(crate) fn turn(&mut self) -> Result<Turn, WriterFailure> {
        self.turn_after(Duration::from_millis(1))
    }

    /// One turn of the writer, `later` than the last one.
    pub(crate) fn turn_after(&mut self, later: Duration) -> Result<Turn, WriterFailure> {
        self.elapsed += later;
        let unix_ns = 1_790_000_000_000_000_000 + self.elapsed.as_nanos() as u64;
        let turn = self.writer.as_mut().expect("running").turn(Now { elapsed: self.elapsed, unix_ns });
        for shard in &mut self.shards {
            shard.take_settled();
        }
        turn
    }

    /// Turns until nothing is left to do.
    pub(crate) fn settle(&mut self) -> Result<(), WriterFailure> {
        while self.turn()? == Turn::Worked {}
        Ok(())
    }

    /// Stops in order: the log is sealed. What was acknowledged in the end.
    pub(crate) fn stop(mut self) -> Vec<Event> {
        self.settle().unwrap();
        let writer = self.writer.take().expect("running");
        let acked = self.acked();
        self.shards.clear();
        writer.finish().unwrap();
        assert_eq!(self.status.state(), WriterState::Stopped);
        acked
    }

    /// Every event acknowledged so far, shard by shard.
    pub(crate) fn acked(&self) -> Vec<Event> {
        self.shards.iter().flat_map(|shard| shard.acked().cloned()).collect()
    }

    /// Bytes of a chunk's padding left free by a record of `event` bytes in a chunk of its own.
    pub(crate) fn padded(event: usize) -> u64 {
        tidegate::base::align_up(CHUNK_HEADER_BYTES + RECORD_HEADER_BYTES + event, tidegate::base::PAGE_BYTES) as u64
    }
}

/// Number of the last chunk a rig has for a shard.
pub(crate) fn last_seq(rig: &Rig, shard: usize) -> Seq {
    Seq(rig.shards[shard].buffer.open_seq().0 - 1)
}

/// Reads everything durable on a simulated disk, as `tidegate cat` would.
pub(crate) fn read_all(disk: &FaultyDisk) -> Result<Vec<Event>, ReadError> {
    let mut reader = LogReader::over(vec![(WriterId(0), Box::new(disk.storage()))]);
    let mut events = Vec::new();
    read_more(&mut reader, &mut events)?;
    Ok(events)
}

/// Reads on until there is no more for now.
pub(crate) fn read_more(reader: &mut LogReader, events: &mut Vec<Event>) -> Result<(), ReadError> {
    while let Some(chunk) = reader.next_chunk()? {
        events.extend(chunk.events().map(|event| Event {
            shard: event.position.shard.0,
            seq: event.position.seq.0,
            bytes: event.event.to_vec(),
        }));
    }
    Ok(())
}

/// Checks everything on a simulated disk, as `tidegate verify` would.
pub(crate) fn verify_all(disk: &FaultyDisk) -> VerifyReport {
    verify_storages(vec![(WriterId(0), Box::new(disk.storage()))]).unwrap()
}

/// Events of one shard.
pub(crate) fn of_shard(events: &[Event], shard: u16) -> Vec<&Event> {
    events.iter().filter(|event| event.shard == shard).collect()
}
