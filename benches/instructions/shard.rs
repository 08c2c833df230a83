//! Whole turns of a shard without its system calls: received bytes in, events placed, chunks to a writer that settles them
//! at once, answers out. Everything between the ring's completions and its submissions, by the server's own code.
//!
//! With several shards each has a thread of its own, as in the server: many more threads than cores is the point. The work
//! is the same in total, so instructions per event say whether a shard's cost knows how many others there are.

use std::sync::Arc;
use std::thread;

use tidegate::admit::{Admission, Config, Facts, PPM, TenantTable, Uses};
use tidegate::base::{AckLevel, CHUNK_BYTES_MAX, KIB, Limits, MIB, Seq, ShardId, WriterId};
use tidegate::handoff::{Bell, LogBuffer, WriterPort, WriterState, WriterStatus, channel};
use tidegate::metrics::{Scale, ServerMetrics};
use tidegate::shard::ack::Waiters;
use tidegate::shard::arena::Pool;
use tidegate::shard::context::{Clock, Context, Shelf};
use tidegate::shard::conversation::{Conversation, Next};
use tidegate::shard::door::{Door, Parts, TurnTimes};
use tidegate::shard::place::Placer;
use tidegate::sys::memory::Region;

use crate::counted;
use crate::shapes::{Size, events_of};

/// Events of a batch.
const BATCH: u64 = 200;
/// Batches of one measurement over all shards: a multiple of the most shards there are.
const BATCHES: u64 = 512;
/// Single events of one measurement.
const SINGLES: u64 = 6400;
/// Received bytes come in runs of at most this: the server's provided buffer.
const RUN_BYTES: usize = 16 * KIB;

struct Shard {
    ctx: Context,
    writer: WriterPort,
    now_ns: u64,
    conversations: Vec<Conversation>,
    /// What each connection has received, and what it receives each turn.
    received: Vec<Vec<u8>>,
    request: Vec<u8>,
}

impl Shard {
    fn new(shard: u16, metrics: Arc<ServerMetrics>, connections: u32, request: &[u8], admission: Config) -> Self {
        let shard = ShardId(shard);
        let limits = Limits { connections_per_shard_max: connections, ..Limits::default() };
        let region = Arc::new(Region::map(4 * MIB, false).expect("memory"));
        let [bell, writer_bell] = [(); 2].map(|()| Arc::new(Bell::new().expect("a descriptor")));
        let status = Arc::new(WriterStatus::default());
        status.set(WriterState::Running);
        let (port, writer) = channel(shard, Arc::clone(&region), 64, Seq(0), bell, writer_bell, status);
        let log = LogBuffer::new(region, shard, CHUNK_BYTES_MAX, Seq(0));
        let ctx = Context {
            shard,
            placer: Placer::new(WriterId(0), shard, log, port, limits.json_depth_max),
            pool: Pool::new(Arc::new(Region::map(16 * MIB, false).expect("memory"))),
            turn: bumpalo::Bump::new(),
            ack_default: AckLevel::Durable,
            clock: Clock::new(),
            waiters: Waiters::new(connections as usize),
            server: metrics,
            door: door(shard, admission),
            gzip: Shelf::new(limits.decoders_per_shard_max),
            zstd: Shelf::new(limits.decoders_per_shard_max),
            error_lists: Shelf::new(connections as usize),
            limits,
            decoded_in_turn: 0,
            room_is_awaited: false,
            draining: false,
            next_request: std::cell::Cell::new(0),
            request_origin: 1,
        };
        let conversations = (0..connections)
            .map(|place| {
                let mut conversation = Conversation::new(place);
                conversation.begin(1);
                conversation
            })
            .collect();
        let received = vec![request.to_vec(); connections as usize];
        Self { ctx, writer, now_ns: 0, conversations, received, request: request.to_vec() }
    }

    /// What the kernel does: the next requests lie in the buffers. Not counted.
    fn receive(&mut self) {
        for received in &mut self.received {
            received.copy_from_slice(&self.request);
        }
    }

    /// One turn: parse and place, offer, settle, acknowledge, send.
    fn turn(&mut self) {
        for (conversation, received) in self.conversations.iter_mut().zip(&mut self.received) {
            for run in received.chunks_mut(RUN_BYTES) {
                assert_eq!(conversation.consume(run, &mut self.ctx), (run.len(), Next::Read));
            }
        }
        self.ctx.placer.seal(self.ctx.clock.unix_ns());
        self.settle();
        self.ctx.placer.take_settled();
        let durable = self.ctx.placer.port().durable_seq();
        while let Some(waiter) = self.ctx.waiters.pop(AckLevel::Durable, durable) {
            self.ctx.metrics().ack_latency.record(self.ctx.clock.ns().saturating_sub(waiter.since_ns));
            self.conversations[waiter.connection as usize].open_gate(waiter.gate, &mut self.ctx);
        }
        // As if each turn took so long that the shard is busy for three tenths of the time: there is a rate, and room below it.
        self.now_ns += 100_000;
        let times = TurnTimes { turn_ns: 30_000, enter_ns: 70_000, worked: true, blocked: true };
        if self.ctx.door.turned(self.now_ns, &times, Facts::default).ticked {
            self.ctx.door.publish(self.now_ns, &self.ctx.server.shards[usize::from(self.ctx.shard.0)]);
        }
        for conversation in &mut self.conversations {
            let (_, bytes) = conversation.replies().sendable().expect("every request is answered in its turn");
            conversation.sent(bytes, &mut self.ctx.pool);
        }
    }

    fn settle(&mut self) {
        while let Some(chunk) = self.writer.take() {
            self.writer.publish_written(chunk.seq);
            self.writer.publish_durable(chunk.seq);
            self.writer.settle(chunk);
        }
        self.writer.ring();
    }

    /// `turns` of them, counted, after some that are not.
    fn run(&mut self, turns: u64) {
        for _ in 0..4 {
            self.receive();
            self.turn();
        }
        for _ in 0..turns {
            self.receive();
            counted(&mut || self.turn());
        }
    }
}

/// With a target, and nobody refused.
const ADMITS: Config = Config { target: PPM * 67 / 100, lag_target_ns: u64::MAX, in_flight_max: u32::MAX, seed: 1 };
/// Everybody refused.
const REFUSES: Config = Config { in_flight_max: 0, ..ADMITS };

fn door(shard: ShardId, admission: Config) -> Door {
    Door::new(Parts {
        admission: Admission::new(admission),
        tenants: Arc::new(TenantTable::anonymous()),
        news: rtrb::RingBuffer::new(1).1,
        uses: Arc::new(Uses::new(usize::from(shard.0) + 1, 1)),
        shard: usize::from(shard.0),
    })
}

fn request(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn metrics(shards: u16) -> Arc<ServerMetrics> {
    let scale = Scale { log_buffer_bytes: 4 * MIB as u64, target_utilization: 0.67, normal_ccu: 64 };
    Arc::new(ServerMetrics::new(shards.into(), 1, scale))
}

/// Runs `requests` of a kind on so many shards of so many connections; the requests.
fn run_on(shards: u16, connections: u32, requests: u64, request: &[u8], admission: Config) -> Arc<ServerMetrics> {
    let metrics = metrics(shards);
    let turns = requests / u64::from(shards) / u64::from(connections);
    assert_eq!(turns * u64::from(shards) * u64::from(connections), requests, "every shard has the same share");
    thread::scope(|scope| {
        for shard in 0..shards {
            let metrics = Arc::clone(&metrics);
            scope.spawn(move || Shard::new(shard, metrics, connections, request, admission).run(turns));
        }
    });
    metrics
}

/// Batches of 200 lines on `shards` shards, as many in total whatever their number; the events counted.
pub(crate) fn batches_on(shards: u16) -> u64 {
    let lines = events_of(Size::Bytes343, BATCH).join(b"\n".as_slice());
    let metrics = run_on(shards, 4, BATCHES, &request("application/x-ndjson", &lines), ADMITS);
    let warm_up = u64::from(shards) * 4 * 4 * BATCH;
    let stored: u64 = metrics.shards.iter().map(|shard| shard.events.get()).sum();
    assert_eq!(stored, BATCHES * BATCH + warm_up);
    BATCHES * BATCH
}

/// Single events on one shard of 64 connections; the requests counted.
pub(crate) fn singles() -> u64 {
    let stored = run_on(1, 64, SINGLES, &single(), ADMITS);
    assert!(stored.shards[0].events.get() > SINGLES);
    SINGLES
}

/// The same, each refused; the requests counted.
pub(crate) fn refusals() -> u64 {
    let stored = run_on(1, 64, SINGLES, &single(), REFUSES);
    assert_eq!(stored.shards[0].events.get(), 0);
    SINGLES
}

fn single() -> Vec<u8> {
    let mut event = events_of(Size::Mean268, 1).remove(0);
    event.pop();
    event.extend_from_slice(br#","note":""#);
    event.resize(298, b'x');
    event.extend_from_slice(br#""}"#);
    request("application/json", &event)
}
