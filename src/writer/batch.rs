//! What goes into the next group commit, and where. Writer thread; pure.
//!
//! A group takes what is ready and never waits for more. It is bounded in bytes, chunks and writes, so that a sync never
//! stands behind an unbounded write; it never spans two segments. Chunks that lie one behind the other in a shard's
//! buffer are written by one write.

use crate::base::MIB;

/// Longest write made of several chunks: beyond it the device is no faster, and a failed write names less.
const RUN_BYTES_MAX: usize = MIB;

/// Bounds of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLimits {
    /// Bytes, padding and headers included.
    pub bytes_max: usize,
    /// Chunks.
    pub chunks_max: usize,
    /// Writes in flight at once.
    pub writes_max: usize,
}

/// Chunks of one port that lie one behind the other in memory and on disk: one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Index of the port.
    pub port: usize,
    /// Index of its first chunk in the group.
    pub first: usize,
    /// How many chunks.
    pub chunks: usize,
    /// Where in the segment it goes.
    pub offset: u64,
    /// How many bytes.
    pub bytes: usize,
    region_end: usize,
}

/// Whether a chunk may join the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It may.
    Fits,
    /// The group is at one of its bounds: next time.
    GroupFull,
    /// The segment has no room for it: in the next segment.
    SegmentFull,
}

/// The group being put together. Its vectors are sized once and reused.
#[derive(Debug)]
pub struct Group {
    limits: GroupLimits,
    runs: Vec<Run>,
    chunks: usize,
    start: u64,
    end: u64,
    segment_bytes: u64,
}

impl Group {
    /// An empty group with these bounds.
    #[must_use]
    pub fn new(limits: GroupLimits) -> Self {
        assert!(limits.bytes_max > 0 && limits.chunks_max > 0 && limits.writes_max > 0);
        let runs = Vec::with_capacity(limits.writes_max);
        Self { limits, runs, chunks: 0, start: 0, end: 0, segment_bytes: 0 }
    }

    /// Its bounds.
    #[must_use]
    pub fn limits(&self) -> &GroupLimits {
        &self.limits
    }

    /// Starts over at `start` of a segment of `segment_bytes`.
    pub fn begin(&mut self, start: u64, segment_bytes: u64) {
        assert!(start <= segment_bytes);
        self.runs.clear();
        self.chunks = 0;
        self.start = start;
        self.end = start;
        self.segment_bytes = segment_bytes;
    }

    /// Whether a chunk of `padded_bytes` may join. An empty group takes any chunk its segment has room for.
    #[must_use]
    pub fn fit(&self, padded_bytes: usize) -> Fit {
        let bytes = self.bytes() + padded_bytes;
        let is_full = self.chunks == self.limits.chunks_max
            || self.runs.len() == self.limits.writes_max
            || bytes > self.limits.bytes_max;
        if self.chunks > 0 && is_full {
            Fit::GroupFull
        } else if self.end + padded_bytes as u64 > self.segment_bytes {
            Fit::SegmentFull
        } else {
            Fit::Fits
        }
    }

    /// Adds the chunk of `port` at `region_offset`; where in the segment it goes.
    ///
    /// # Panics
    /// If it does not fit.
    pub fn add(&mut self, port: usize, region_offset: usize, padded_bytes: usize) -> u64 {
        assert_eq!(self.fit(padded_bytes), Fit::Fits);
        let offset = self.end;
        match self.runs.last_mut() {
            Some(run)
                if run.port == port && run.region_end == region_offset && run.bytes + padded_bytes <= RUN_BYTES_MAX =>
            {
                run.chunks += 1;
                run.bytes += padded_bytes;
                run.region_end += padded_bytes;
            }
            _ => self.runs.push(Run {
                port,
                first: self.chunks,
                chunks: 1,
                offset,
                bytes: padded_bytes,
                region_end: region_offset + padded_bytes,
            }),
        }
        self.chunks += 1;
        self.end += padded_bytes as u64;
        offset
    }

    /// The writes to be made, in order of their offsets.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Chunks in the group.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.chunks
    }

    /// Where in the segment the group begins.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Where in the segment the group ends.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes in the group.
    #[must_use]
    pub fn bytes(&self) -> usize {
        (self.end - self.start) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB4: usize = 4096;

    fn group(bytes_max: usize, chunks_max: usize, writes_max: usize) -> Group {
        let mut group = Group::new(GroupLimits { bytes_max, chunks_max, writes_max });
        group.begin(4096, 64 << 20);
        group
    }

    #[test]
    fn neighbours_of_one_port_become_one_write() {
        let mut group = group(1 << 30, 100, 100);
        assert_eq!(group.add(0, 0, KIB4), 4096);
        assert_eq!(group.add(0, KIB4, 2 * KIB4), 8192);
        assert_eq!(group.add(1, 3 * KIB4, KIB4), 4 * 4096, "another port's memory");
        assert_eq!(group.add(0, 3 * KIB4, KIB4), 5 * 4096, "neighbours in memory, not on disk");
        assert_eq!(group.add(0, 9 * KIB4, KIB4), 6 * 4096, "neighbours on disk, not in memory");
        let runs: Vec<_> = group.runs().iter().map(|run| (run.port, run.first, run.chunks, run.bytes)).collect();
        assert_eq!(runs, [(0, 0, 2, 3 * KIB4), (1, 2, 1, KIB4), (0, 3, 1, KIB4), (0, 4, 1, KIB4)]);
        assert_eq!((group.chunks(), group.bytes(), group.end()), (5, 6 * KIB4, 7 * 4096));
        let mut end = group.start();
        for run in group.runs() {
            assert_eq!(run.offset, end, "no gap between writes");
            end += run.bytes as u64;
        }
    }

    #[test]
    fn a_write_of_several_chunks_is_bounded_and_a_long_chunk_goes_alone() {
        let mut group = group(1 << 30, 100, 100);
        let chunk = RUN_BYTES_MAX / 2;
        for index in 0..3 {
            group.add(0, index * chunk, chunk);
        }
        group.add(0, 3 * chunk, RUN_BYTES_MAX + KIB4);
        let bytes: Vec<_> = group.runs().iter().map(|run| run.bytes).collect();
        assert_eq!(bytes, [RUN_BYTES_MAX, chunk, RUN_BYTES_MAX + KIB4]);
    }

    #[test]
    fn every_bound_ends_the_group_but_never_starves_it() {
        let mut by_bytes = group(2 * KIB4, 100, 100);
        assert_eq!(by_bytes.fit(5 * KIB4), Fit::Fits, "an empty group takes a chunk above its bound");
        by_bytes.add(0, 0, KIB4);
        assert_eq!((by_bytes.fit(KIB4), by_bytes.fit(2 * KIB4)), (Fit::Fits, Fit::GroupFull));
        let mut by_chunks = group(1 << 30, 2, 100);
        by_chunks.add(0, 0, KIB4);
        by_chunks.add(0, KIB4, KIB4);
        assert_eq!(by_chunks.fit(KIB4), Fit::GroupFull);
        let mut by_writes = group(1 << 30, 100, 2);
        by_writes.add(0, 0, KIB4);
        by_writes.add(1, 0, KIB4);
        assert_eq!(by_writes.fit(KIB4), Fit::GroupFull);
    }

    #[test]
    fn a_group_never_leaves_its_segment() {
        let mut group = group(1 << 30, 100, 100);
        group.begin(4096, 4 * 4096);
        group.add(0, 0, 2 * KIB4);
        assert_eq!((group.fit(KIB4), group.fit(2 * KIB4)), (Fit::Fits, Fit::SegmentFull));
        group.begin(4 * 4096, 4 * 4096);
        assert_eq!(group.fit(KIB4), Fit::SegmentFull, "even when empty");
    }
}
