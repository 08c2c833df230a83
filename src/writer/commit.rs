//! One group commit on its way: the chunks taken, the writes they make, and what is told to their shards. Writer thread.
//!
//! Chunks are owned by the commit from the moment they are taken from a port until they are settled, and never change once
//! their headers are filled in. Decides nothing about place and size, which is `batch`'s, and makes no system call but the
//! ring of a shard's bell.

use super::batch::{Fit, Group, GroupLimits, Run};
use crate::base::{Seq, WriterId};
use crate::handoff::{self, SealedChunk, WriterPort};
use crate::record::walk::Cursor;
use crate::record::{CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind};
use crate::sys::storage::{WRITES_PER_GROUP_MAX, Write};

// The shard keeps free what this room fills in.
const _: () = assert!(CHUNK_HEADER_BYTES == handoff::CHUNK_HEADER_BYTES);

/// The chunks of one group. Its vectors are sized once and reused.
pub(super) struct Commit {
    group: Group,
    /// In order of their offsets.
    chunks: Vec<SealedChunk>,
    /// Per port, bytes taken.
    taken: Vec<usize>,
}

impl Commit {
    /// An empty one within these bounds, for so many ports.
    pub(super) fn new(limits: GroupLimits, ports: usize) -> Self {
        Self { group: Group::new(limits), chunks: Vec::with_capacity(limits.chunks_max), taken: vec![0; ports] }
    }

    /// Whether it holds no chunk.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Bytes as they go to disk.
    pub(super) fn bytes(&self) -> usize {
        self.group.bytes()
    }

    /// Chunks in it.
    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Where in the segment it ends.
    pub(super) fn end(&self) -> u64 {
        self.group.end()
    }

    /// Events in it.
    pub(super) fn events(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.events)).sum()
    }

    /// Starts over at `start` of a segment of `segment_bytes` and takes chunks until nothing is ready or one does not fit.
    /// First a fair share of each port, beginning with `first`, so that a busy shard cannot fill group after group alone;
    /// then what is left.
    ///
    /// # Panics
    /// If it is not empty.
    pub(super) fn gather(&mut self, ports: &mut [WriterPort], first: usize, start: u64, segment_bytes: u64) -> Fit {
        assert!(self.is_empty(), "chunks of an earlier group were not settled");
        self.group.begin(start, segment_bytes);
        let count = ports.len();
        let share = self.group.limits().bytes_max / count.max(1);
        self.taken.fill(0);
        for limit in [share, usize::MAX] {
            for index in 0..count {
                let index = (first + index) % count;
                let port = &mut ports[index];
                while self.taken[index] < limit {
                    let Some(padded_bytes) = port.peek_padded_bytes() else { break };
                    match self.group.fit(padded_bytes) {
                        Fit::Fits => {}
                        full => return full,
                    }
                    let chunk = port.take().expect("peeked");
                    self.group.add(index, chunk.region_offset(), padded_bytes);
                    self.chunks.push(chunk);
                    self.taken[index] += padded_bytes;
                }
            }
        }
        Fit::Fits
    }

    /// Makes each chunk part of the log: its segment, its place, what it continues. `end` moves behind them; everything
    /// before `synced_end` is synced.
    pub(super) fn fill_in_headers(
        &mut self,
        ports: &mut [WriterPort],
        writer: WriterId,
        end: &mut Cursor,
        synced_end: u64,
    ) {
        for run in self.group.runs() {
            let port = &mut ports[run.port];
            for chunk in &mut self.chunks[run.first..run.first + run.chunks] {
                assert!(
                    end.seqs.advance(chunk.shard, chunk.seq),
                    "shard {} offered chunk {} after chunk {}",
                    chunk.shard.0,
                    chunk.seq.0,
                    end.seqs.last(chunk.shard).0
                );
                let header = ChunkHeader {
                    kind: ChunkKind::Events,
                    epoch: end.epoch,
                    offset: end.offset,
                    synced_end,
                    writer,
                    shard: chunk.shard,
                    seq: chunk.seq,
                    sealed_unix_ns: chunk.sealed_unix_ns,
                    events: chunk.events,
                    payload_bytes: chunk.payload_bytes,
                    payload_crc: chunk.payload_crc,
                    previous_crc: end.crc,
                };
                end.crc = header.encode(port.header_mut(chunk));
                end.offset = header.end();
            }
        }
        assert_eq!(end.offset, self.group.end(), "headers and writes agree on every offset");
    }

    /// Puts its writes at the front of `writes`; how many there are. Into the caller's array: to return 10 KiB by value cost
    /// a copy of as much per group.
    pub(super) fn fill_writes<'a>(
        &'a self,
        ports: &'a [WriterPort],
        writes: &mut [Write<'a>; WRITES_PER_GROUP_MAX],
    ) -> usize {
        let runs = self.group.runs();
        for (write, run) in writes.iter_mut().zip(runs) {
            let bytes = ports[run.port].bytes_of_run(self.chunks_of(run));
            assert_eq!(bytes.len(), run.bytes);
            *write = Write { offset: run.offset, bytes, region: Some(run.port as u16) };
        }
        runs.len()
    }

    /// Tells the shards that its chunks are written, and wakes those that want to know.
    pub(super) fn publish_written(&self, ports: &[WriterPort]) {
        for run in self.group.runs() {
            ports[run.port].publish_written(self.last_of(run));
        }
        for port in self.ports_in(ports) {
            port.ring_written();
        }
    }

    /// Tells the shards that its chunks are synced. Wakes nobody: see [`Commit::ring`].
    pub(super) fn publish_durable(&self, ports: &[WriterPort]) {
        for run in self.group.runs() {
            ports[run.port].publish_durable(self.last_of(run));
        }
    }

    /// Wakes the shards that have chunks in it.
    pub(super) fn ring(&self, ports: &[WriterPort]) {
        for port in self.ports_in(ports) {
            port.ring();
        }
    }

    /// Gives the chunks back to their shards and wakes them; empty afterwards.
    pub(super) fn settle(&mut self, ports: &mut [WriterPort]) {
        let mut chunks = self.chunks.drain(..);
        for run in self.group.runs() {
            for chunk in chunks.by_ref().take(run.chunks) {
                ports[run.port].settle(chunk);
            }
        }
        drop(chunks);
        self.ring(ports);
    }

    fn chunks_of(&self, run: &Run) -> &[SealedChunk] {
        &self.chunks[run.first..run.first + run.chunks]
    }

    fn last_of(&self, run: &Run) -> Seq {
        self.chunks[run.first + run.chunks - 1].seq
    }

    fn ports_in<'a>(&'a self, ports: &'a [WriterPort]) -> impl Iterator<Item = &'a WriterPort> {
        ports.iter().zip(&self.taken).filter(|(_, taken)| **taken > 0).map(|(port, _)| port)
    }
}
