//! One shard: sockets in, events to the hand-off, answers out. Shard thread.
//!
//! ```text
//! turn ─ connection ─ conversation ─┬─ http, request        head → what is asked
//!                                   ├─ door                  who is let in: key, limits, admission
//!                                   ├─ body ─ framing        where the body lies
//!                                   │        ─ decode        gzip, zstd
//!                                   │        ─ split         event boundaries
//!                                   ├─ place                 valid events → open chunk → writer
//!                                   └─ answer, replies, ack  answers, held back until their ack level
//! ```
//!
//! `turn` makes system calls and knows no HTTP; everything below it is a state machine over slices. A shard shares
//! nothing with other shards but the counters it publishes and the connection counts of `peers`.

pub mod ack;
pub mod answer;
pub mod arena;
mod beside;
pub mod body;
pub mod code;
mod company;
mod connection;
pub mod context;
pub mod conversation;
mod deadlines;
pub mod decode;
pub mod door;
pub mod framing;
pub mod http;
mod lending;
mod longest;
mod peers;
pub mod place;
mod question;
mod refusal;
pub mod replies;
pub mod request;
mod response;
mod scan;
mod selftest;
mod sink;
mod skeleton;
pub mod split;
mod turn;
mod unread;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ack::Waiters;
use arena::Pool;
use company::Company;
use context::{Clock, Context, Shelf};
use door::Door;
pub use peers::Peers;
use place::Placer;
pub use turn::Idle;
use turn::{Parts, Turn, slots_of};

use crate::admit::{Admission, Config as AdmissionConfig, TenantTable, Uses};
use crate::base::{AckLevel, CHUNK_BYTES_MAX, Limits, Seq, ShardId, WriterId};
use crate::handoff::{Bell, LogBuffer, ShardPort};
use crate::metrics::ServerMetrics;
use crate::sys::memory::Region;
use crate::sys::uring::{ProvidedBuffers, Ring};

/// Submissions queued between two enters; more are submitted early.
const SUBMISSIONS: u32 = 1024;
/// Completions the kernel can hold: a turn of many connections must not overflow it.
const COMPLETIONS: u32 = 16 * 1024;

/// What one shard is made of. The boot thread fills it in; the shard's thread runs it.
pub struct Setup {
    /// Which shard this is.
    pub shard: ShardId,
    /// Which writer it hands its chunks to.
    pub writer: WriterId,
    /// Limits of the server.
    pub limits: Limits,
    /// Ack level of requests that ask for none.
    pub ack_default: AckLevel,
    /// Its log buffer's memory, shared with the writer.
    pub log_region: Arc<Region>,
    /// Number of the last chunk of this shard already in the log.
    pub last_seq: Seq,
    /// Its end of the rings to the writer.
    pub port: ShardPort,
    /// Wakes it.
    pub bell: Arc<Bell>,
    /// Listening sockets of its own, one for each address.
    pub listeners: Vec<OwnedFd>,
    /// All shards of the process.
    pub peers: Arc<Peers>,
    /// Counters of all shards.
    pub metrics: Arc<ServerMetrics>,
    /// Set, and the bell rung, when the server is to stop.
    pub stop: Arc<AtomicBool>,
    /// Provided buffers, a power of two.
    pub receive_buffers: u16,
    /// Bytes of each.
    pub receive_buffer_bytes: usize,
    /// Bytes of the pool for what outlives a turn.
    pub pool_bytes: usize,
    /// When to wait in the kernel.
    pub idle: Idle,
    /// How long a chunk may wait for company at most, until the requests of other clients are in it too.
    pub group_hold_max: Duration,
    /// How long connections may take to finish after a stop.
    pub drain_timeout: Duration,
    /// Random, different for each start and shard: made request ids begin with it.
    pub request_origin: u64,
    /// When the clock began that all shards count by.
    pub clock_start: Instant,
    /// What admission holds.
    pub admission: AdmissionConfig,
    /// The tenants at the start.
    pub tenants: Arc<TenantTable>,
    /// Later ones.
    pub tenant_news: rtrb::Consumer<Arc<TenantTable>>,
    /// What all shards let tenants use.
    pub uses: Arc<Uses>,
}

/// Runs a shard on the calling thread until it has drained. `ready` is called once it can take connections, with whether
/// receive bundles are in use.
///
/// # Errors
/// The errno of mmap(2), io_uring_setup(2) or io_uring_register(2) at the start, of io_uring_enter(2) later; TimedOut if
/// the drain had to cut connections off.
pub fn run(setup: Setup, ready: impl FnOnce(bool)) -> io::Result<()> {
    let pool_region = Arc::new(Region::map(setup.pool_bytes, false)?);
    let slots = slots_of(setup.limits.connections_per_shard_max);
    let mut ring = Ring::new(SUBMISSIONS, COMPLETIONS, slots, Arc::clone(&pool_region))?;
    let bundles = selftest::bundles_work(&mut ring)?;
    let buffers = ProvidedBuffers::new(&mut ring, turn::GROUP, setup.receive_buffers, setup.receive_buffer_bytes)?;
    setup.peers.join(setup.shard, ring.duplicate_fd()?);
    let log = LogBuffer::new(setup.log_region, setup.shard, CHUNK_BYTES_MAX, setup.last_seq);
    let context = Context {
        shard: setup.shard,
        placer: Placer::new(setup.writer, setup.shard, log, setup.port, setup.limits.json_depth_max),
        pool: Pool::new(pool_region),
        turn: bumpalo::Bump::new(),
        ack_default: setup.ack_default,
        clock: Clock::since(setup.clock_start),
        waiters: Waiters::new(setup.limits.connections_per_shard_max as usize),
        server: setup.metrics,
        door: Door::new(door::Parts {
            admission: Admission::new(setup.admission),
            tenants: setup.tenants,
            news: setup.tenant_news,
            uses: setup.uses,
            shard: usize::from(setup.shard.0),
        }),
        gzip: Shelf::new(setup.limits.gzip_decoders_per_shard_max() + Limits::DECODERS_FOR_WHOLE_BODIES),
        zstd: Shelf::new(setup.limits.decoders_per_shard_max + Limits::DECODERS_FOR_WHOLE_BODIES),
        error_lists: Shelf::new(setup.limits.connections_per_shard_max as usize),
        limits: setup.limits,
        decoded_in_turn: 0,
        room_is_awaited: false,
        draining: false,
        next_request: std::cell::Cell::new(0),
        request_origin: setup.request_origin,
    };
    let mut turn = Turn::new(Parts {
        context,
        ring,
        buffers,
        bundles,
        listeners: setup.listeners,
        peers: setup.peers,
        bell: setup.bell,
        stop: setup.stop,
        idle: setup.idle,
        company: Company::new(setup.group_hold_max),
        drain_timeout: setup.drain_timeout,
    });
    ready(bundles);
    turn.run()
}
