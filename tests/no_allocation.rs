//! After warm-up the data path allocates nothing: an allocator that counts says so.
//!
//! Counts are kept per thread, so that tests beside each other do not disturb. A whole shard is counted too: real sockets
//! and a real ring, with a writer that settles every chunk at once.
#![allow(unsafe_code, reason = "a global allocator cannot be written without; it only passes calls on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tidegate::admit::{Config as AdmissionConfig, PPM, TenantTable, Uses};
use tidegate::base::{AckLevel, CHUNK_BYTES_MAX, KIB, Limits, MIB, Seq, ShardId, WriterId};
use tidegate::handoff::{Bell, LogBuffer, NoRoom, ShardPort, WriterPort, WriterState, WriterStatus, channel};
use tidegate::metrics::{Scale, ServerMetrics, ShardMetrics};
use tidegate::shard::{self, Idle, Peers, Setup};
use tidegate::sys::memory::Region;
use tidegate::sys::net;

thread_local! {
    /// Calls that may take memory, of this thread. Const-initialised and without a destructor: reading it allocates
    /// nothing itself.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Whether this thread is the shard, whose calls are counted where another thread can see them.
    static IS_SHARD: Cell<bool> = const { Cell::new(false) };
}

static SHARD_ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

fn count() {
    ALLOCATIONS.with(|calls| calls.set(calls.get() + 1));
    if IS_SHARD.with(Cell::get) {
        SHARD_ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
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

/// A shard on a thread of its own, and a writer without a disk.
struct ShardRig {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    bell: Arc<Bell>,
    shard: JoinHandle<std::io::Result<()>>,
    writer: JoinHandle<()>,
    metrics: Arc<ServerMetrics>,
}

impl ShardRig {
    /// To be held for as long as allocations are counted: they are counted over all shards of the process.
    fn alone() -> MutexGuard<'static, ()> {
        static ONE: Mutex<()> = Mutex::new(());
        ONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(in_flight_max: u32) -> Self {
        let region = Arc::new(Region::map(4 * MIB, true).expect("memory"));
        let [bell, writer_bell] = [(); 2].map(|()| Arc::new(Bell::new().expect("a descriptor")));
        let status = Arc::new(WriterStatus::default());
        status.set(WriterState::Running);
        let (port, writer_port) =
            channel(ShardId(0), Arc::clone(&region), 64, Seq(0), Arc::clone(&bell), writer_bell, status);
        let (address, listeners) = net::listen("127.0.0.1:0".parse().expect("an address"), 1).expect("a port");
        let scale = Scale { log_buffer_bytes: 4 * MIB as u64, target_utilization: 0.67, normal_ccu: 100 };
        let metrics = Arc::new(ServerMetrics::new(1, 1, scale));
        let stop = Arc::new(AtomicBool::new(false));
        let setup = Setup {
            shard: ShardId(0),
            writer: WriterId(0),
            limits: Limits { connections_per_shard_max: 64, ..Limits::default() },
            ack_default: AckLevel::Durable,
            log_region: region,
            last_seq: Seq(0),
            port,
            bell: Arc::clone(&bell),
            listeners,
            peers: Arc::new(Peers::new(1)),
            metrics: Arc::clone(&metrics),
            stop: Arc::clone(&stop),
            receive_buffers: 64,
            receive_buffer_bytes: 16 * KIB,
            pool_bytes: 16 * MIB,
            idle: Idle::Park,
            group_hold_max: Duration::from_micros(500),
            drain_timeout: Duration::from_secs(30),
            request_origin: 1,
            clock_start: Instant::now(),
            admission: AdmissionConfig { target: PPM, lag_target_ns: u64::MAX, in_flight_max, seed: 1 },
            tenants: Arc::new(TenantTable::anonymous()),
            tenant_news: rtrb::RingBuffer::new(1).1,
            uses: Arc::new(Uses::new(1, 1)),
        };
        let shard = thread::spawn(move || {
            IS_SHARD.with(|is_shard| is_shard.set(true));
            shard::run(setup, |_| ())
        });
        let writer = thread::spawn(move || settle_until_drained(writer_port));
        Self { address, stop, bell, shard, writer, metrics }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.bell.ring_always();
        self.shard.join().expect("no panic").expect("a clean drain");
        self.writer.join().expect("no panic");
    }
}

fn settle_until_drained(mut port: WriterPort) {
    while !port.is_drained() {
        let Some(chunk) = port.take() else {
            thread::yield_now();
            continue;
        };
        port.publish_written(chunk.seq);
        port.publish_durable(chunk.seq);
        port.settle(chunk);
        port.ring();
    }
}

fn request(kind: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Sends a request and reads its answer whole.
fn ask(stream: &mut BufReader<TcpStream>, request: &[u8]) -> String {
    stream.get_mut().write_all(request).expect("a server that reads");
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let start = head.len();
        assert!(stream.read_line(&mut head).expect("an answer") > 0, "closed after {head:?}");
        let line = head[start..].to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("the whole body");
    head
}

#[test]
fn a_shard_allocates_nothing_per_event_after_warm_up() {
    let _alone = ShardRig::alone();
    let rig = ShardRig::start(64);
    let event = |number: usize, pad: usize| {
        format!("{{\"event_id\":\"e{number}\",\"user_id\":{number},\"pad\":\"{}\"}}", "x".repeat(pad))
    };
    let lines = (0..200).map(|number| event(number, 240) + "\n").collect::<String>();
    let array = format!("[{}]", (0..20).map(|number| event(number, 4_000)).collect::<Vec<_>>().join(",\n"));
    let requests = [
        request("application/x-ndjson", &lines),
        request("application/json", &array),
        request("application/json", &event(1, 250)),
        // Invalid events take an error list, a long one a block that outlives the turn.
        request("application/x-ndjson", "{\"a\":1}\nnope\n[1]\n"),
        request("application/json", &event(2, 300_000)),
        b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n".to_vec(),
    ];
    let round = |rounds: usize| {
        // Connections come and go too.
        let mut streams: Vec<_> =
            (0..8).map(|_| BufReader::new(TcpStream::connect(rig.address).expect("a listener"))).collect();
        for _ in 0..rounds {
            for stream in &mut streams {
                for request in &requests {
                    let head = ask(stream, request);
                    assert!(head.starts_with("HTTP/1.1 20"), "{head}");
                }
            }
        }
    };
    for _ in 0..4 {
        round(5);
    }
    let events = || rig.metrics.shards[0].events.get();
    let (events_before, before) = (events(), SHARD_ALLOCATIONS.load(Ordering::Relaxed));
    assert!(before > 0, "the shard's own start is counted, or nothing is");
    for _ in 0..4 {
        round(20);
    }
    let (events_after, after) = (events(), SHARD_ALLOCATIONS.load(Ordering::Relaxed));
    assert!(events_after - events_before >= 4 * 20 * 8 * 222);
    assert_eq!(after - before, 0, "allocations in {} events", events_after - events_before);
    rig.stop();
}

#[test]
fn a_shard_allocates_nothing_when_it_refuses() {
    let _alone = ShardRig::alone();
    let rig = ShardRig::start(0);
    let requests = [
        request("application/json", "{}"),
        request("application/x-ndjson", &"{\"a\":1}\n".repeat(3_000)),
        b"GET /ready HTTP/1.1\r\nHost: t\r\n\r\n".to_vec(),
    ];
    let round = |rounds: usize| {
        let mut streams: Vec<_> =
            (0..8).map(|_| BufReader::new(TcpStream::connect(rig.address).expect("a listener"))).collect();
        for _ in 0..rounds {
            for stream in &mut streams {
                for (request, status) in requests.iter().zip(["503", "503", "200"]) {
                    let head = ask(stream, request);
                    assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
                }
            }
        }
    };
    round(5);
    let refused = || rig.metrics.shards[0].refused_concurrency.get();
    let (refused_before, before) = (refused(), SHARD_ALLOCATIONS.load(Ordering::Relaxed));
    round(50);
    assert_eq!(refused() - refused_before, 50 * 8 * 2);
    assert_eq!(SHARD_ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
    rig.stop();
}
