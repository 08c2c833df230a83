//! Group commits to a real segment file: write from a registered region, then make it durable.
//!
//! In a temporary directory: set TMPDIR to the disk to be measured. The disk is another load's neighbour on most
//! machines, so look at the medians and at the ratio between sizes.

use std::sync::Arc;

use divan::Bencher;
use divan::counter::BytesCount;
use tidegate::base::{KIB, MIB, WriterId};
use tidegate::sys::memory::Region;
use tidegate::sys::storage::{DirectStorage, FileId, Storage, SyncChoice, Write};

/// Overwritten round and round, as a prepared segment is once.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Longest write of a group.
const WRITE_BYTES_MAX: usize = MIB;

fn main() {
    divan::main();
}

struct Bench {
    storage: DirectStorage,
    file: FileId,
    region: Arc<Region>,
    offset: u64,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut storage =
            DirectStorage::open(directory.path(), WriterId(0), SyncChoice::Auto).expect("a log directory");
        let region = Arc::new(Region::map(8 * MIB, true).expect("memory"));
        storage.register(&[Arc::clone(&region)]).expect("the region can be registered");
        storage.begin().expect("an io_uring");
        let file = storage.create("bench.segment", SEGMENT_BYTES).expect("disk space");
        storage.zero_and_sync(file, SEGMENT_BYTES).expect("disk space");
        Self { storage, file, region, offset: 0, _directory: directory }
    }

    /// Writes `bytes` in pieces of at most a mebibyte, all in flight at once.
    fn write(&mut self, bytes: usize) {
        if self.offset + bytes as u64 > SEGMENT_BYTES {
            self.offset = 0;
        }
        let content = bytes_of(&self.region, bytes);
        let mut writes = [Write::NONE; 8];
        let pieces = content.chunks(WRITE_BYTES_MAX);
        let count = pieces.len();
        for (write, (at, piece)) in writes.iter_mut().zip(pieces.enumerate()) {
            let offset = self.offset + (at * WRITE_BYTES_MAX) as u64;
            *write = Write { offset, bytes: piece, region: Some(0) };
        }
        self.storage.write_group(self.file, &writes[..count]).expect("the disk takes it");
        self.offset += bytes as u64;
    }
}

/// The front of a region.
#[allow(unsafe_code, reason = "the bench plays the shard that has filled the region")]
fn bytes_of(region: &Region, bytes: usize) -> &[u8] {
    assert!(bytes <= region.bytes());
    // SAFETY: the region lives as long as the slice, is zeroed memory, and nobody writes to it here.
    unsafe { std::slice::from_raw_parts(region.base().as_ptr(), bytes) }
}

const GROUPS: [usize; 5] = [4 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB];

/// A group commit: everything written, then synced.
#[divan::bench(args = GROUPS, sample_count = 50, sample_size = 4)]
fn write_and_sync(bencher: Bencher<'_, '_>, bytes: usize) {
    let mut bench = Bench::new();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        bench.write(bytes);
        bench.storage.sync_group(bench.file).expect("the disk takes it");
    });
}

/// The writes alone.
#[divan::bench(args = GROUPS, sample_count = 50, sample_size = 4)]
fn write_only(bencher: Bencher<'_, '_>, bytes: usize) {
    let mut bench = Bench::new();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| bench.write(bytes));
}
