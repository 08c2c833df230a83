//! After warm-up the data path allocates nothing: an allocator that counts says so.
//!
//! Counts are kept per thread, so that tests beside each other do not disturb. What runs here is the path of an event as
//! one thread walks it; the socket loop of a whole shard is counted by its own test.
#![allow(unsafe_code, reason = "a global allocator cannot be written without; it only passes calls on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use tidegate::base::{CHUNK_BYTES_MAX, MIB, Seq, ShardId};
use tidegate::handoff::{Bell, LogBuffer, NoRoom, ShardPort, WriterPort, channel};
use tidegate::metrics::ShardMetrics;
use tidegate::sys::memory::Region;

thread_local! {
    /// Calls that may take memory, of this thread. Const-initialised and without a destructor: reading it allocates
    /// nothing itself.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    ALLOCATIONS.with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: every method passes its arguments on to the system allocator unchanged and returns what that returns.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the ones that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(block, layout, bytes) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread while `run` runs.
fn allocations_of(run: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    run();
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn the_allocator_counts() {
    assert_eq!(allocations_of(|| drop(std::hint::black_box(Box::new(7)))), 1);
    assert_eq!(allocations_of(|| drop(std::hint::black_box(vec![0u8; 100]))), 1);
    assert_eq!(allocations_of(|| ()), 0);
}

struct Pair {
    buffer: LogBuffer,
    shard: ShardPort,
    writer: WriterPort,
    metrics: ShardMetrics,
}

impl Pair {
    fn new() -> Self {
        let region = Arc::new(Region::map(4 * MIB, false).expect("memory"));
        let bells = [(); 2].map(|()| Arc::new(Bell::new().expect("a descriptor")));
        let [shard_bell, writer_bell] = bells;
        let (shard, writer) =
            channel(ShardId(0), Arc::clone(&region), 16, Seq(0), shard_bell, writer_bell, Arc::default());
        let buffer = LogBuffer::new(region, ShardId(0), CHUNK_BYTES_MAX, Seq(0));
        Self { buffer, shard, writer, metrics: ShardMetrics::default() }
    }

    /// One turn of a shard and one of a writer, with `events` events of `bytes` bytes.
    fn turn(&mut self, events: u32, bytes: usize) {
        for _ in 0..events {
            match self.buffer.extend(bytes) {
                Ok(place) => place.fill(b'x'),
                Err(NoRoom::ChunkFull) => {
                    self.hand_over();
                    self.buffer.extend(bytes).expect("the writer has settled everything").fill(b'x');
                }
                Err(NoRoom::BufferFull) => unreachable!("the writer settles at once"),
            }
            self.buffer.commit(1);
            self.metrics.events.add(1);
        }
        self.hand_over();
        self.metrics.ack_latency.record(u64::from(events) * 1_000);
    }

    fn hand_over(&mut self) {
        let Some(chunk) = self.buffer.seal(0, 0) else { return };
        self.shard.offer(chunk).expect("nothing is outstanding");
        while let Some(mut chunk) = self.writer.take() {
            self.writer.header_mut(&mut chunk).fill(1);
            self.writer.publish_written(chunk.seq);
            self.writer.publish_durable(chunk.seq);
            self.writer.settle(chunk);
        }
        self.writer.ring();
        self.shard.take_settled(&mut self.buffer);
    }
}

#[test]
fn the_hand_off_allocates_nothing_per_event() {
    let mut pair = Pair::new();
    // Several rounds of the buffer, chunks of every fill, the longest event too.
    let allocations = allocations_of(|| {
        for round in 0..200 {
            pair.turn(200, 276);
            pair.turn(1 + round % 7, 4_300);
            pair.turn(1, MIB);
        }
    });
    assert_eq!(allocations, 0);
    assert_eq!(pair.metrics.events.get(), (0..200u64).map(|round| 200 + 1 + round % 7 + 1).sum::<u64>());
    assert_eq!(pair.buffer.used_bytes(), 0);
}
