//! What all connections of a shard share: its memory, its place in the log, its clock. Shard thread only.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::ack::Waiters;
use super::answer::{self, DATE_BYTES, Refusal};
use super::arena::{Block, Pool};
use super::decode::Decoder;
use super::door::Door;
use super::place::Placer;
use super::request::{Encoding, RequestId};
use crate::base::{AckLevel, Limits, ShardId};
use crate::handoff::WriterState;
use crate::metrics::{ServerMetrics, ShardMetrics};

/// Time as one turn sees it: read once, so that no event costs a clock read.
#[derive(Clone, Debug)]
pub struct Clock {
    start: Instant,
    elapsed: Duration,
    unix_ns: u64,
    date: [u8; DATE_BYTES],
    date_second: u64,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        Self::since(Instant::now())
    }

    /// A clock that counts from `start`: shards that share it agree on their nanoseconds.
    #[must_use]
    pub fn since(start: Instant) -> Self {
        let mut clock =
            Self { start, elapsed: Duration::ZERO, unix_ns: 0, date: [b' '; DATE_BYTES], date_second: u64::MAX };
        clock.read();
        clock
    }

    /// Reads the clocks of the host.
    pub fn read(&mut self) {
        self.elapsed = self.start.elapsed();
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.unix_ns = u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX);
        if unix.as_secs() != self.date_second {
            self.date_second = unix.as_secs();
            self.date = answer::imf_fixdate(self.date_second);
        }
    }

    /// Nanoseconds since the clock's start now, read from the host.
    #[must_use]
    pub fn precise_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Since the clock's start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Nanoseconds since the clock's start.
    #[must_use]
    pub fn ns(&self) -> u64 {
        u64::try_from(self.elapsed.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Unix time in nanoseconds.
    #[must_use]
    pub fn unix_ns(&self) -> u64 {
        self.unix_ns
    }

    /// Unix time in milliseconds.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        self.unix_ns / 1_000_000
    }

    /// The value of a `Date` header.
    #[must_use]
    pub fn date(&self) -> &[u8; DATE_BYTES] {
        &self.date
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// The first refused events of one batch.
#[derive(Debug, Default)]
pub struct ErrorList(pub Vec<Refusal>);

/// Things taken for one request and given back at its end, made when first needed and then reused.
pub struct Shelf<T> {
    free: Vec<T>,
    made: usize,
    limit: usize,
}

impl<T> Shelf<T> {
    /// An empty shelf from which at most `limit` things are out at a time.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { free: Vec::with_capacity(limit), made: 0, limit }
    }

    /// A thing from the shelf, or from `make` if there is none and the limit allows it.
    pub fn take(&mut self, make: impl FnOnce() -> T) -> Option<T> {
        self.free.pop().or_else(|| {
            (self.made < self.limit).then(|| {
                self.made += 1;
                make()
            })
        })
    }

    /// How many can be taken now.
    #[must_use]
    pub fn left(&self) -> usize {
        self.free.len() + self.limit - self.made
    }

    /// Puts a thing back.
    pub fn give_back(&mut self, thing: T) {
        self.free.push(thing);
        assert!(self.free.len() <= self.made, "more things came back than went out");
    }
}

/// See the module text.
pub struct Context {
    /// Which shard this is.
    pub shard: ShardId,
    /// Where valid events go.
    pub placer: Placer,
    /// Memory that outlives a turn.
    pub pool: Pool,
    /// Memory of one turn.
    pub turn: bumpalo::Bump,
    /// Limits of the server.
    pub limits: Limits,
    /// Ack level of requests that ask for none.
    pub ack_default: AckLevel,
    /// Time of this turn.
    pub clock: Clock,
    /// Answers that wait for their ack level.
    pub waiters: Waiters,
    /// Counters of all shards, of which this shard writes its own.
    pub server: Arc<ServerMetrics>,
    /// Who is let in.
    pub door: Door,
    /// Reusable gzip decoders.
    pub gzip: Shelf<Decoder>,
    /// Reusable zstd decoders.
    pub zstd: Shelf<Decoder>,
    /// Reusable error lists.
    pub error_lists: Shelf<ErrorList>,
    /// Decompressed bytes of this turn.
    pub decoded_in_turn: u64,
    /// Connections wait for room in the log buffer, and the one that is served is not the first of them.
    pub room_is_awaited: bool,
    /// No request is admitted any more.
    pub draining: bool,
    /// Number of the next made request id.
    pub next_request: Cell<u64>,
    /// Tells this shard of this start of the server from all others in made request ids.
    pub request_origin: u64,
}

impl Context {
    /// This shard's counters.
    #[must_use]
    pub fn metrics(&self) -> &ShardMetrics {
        &self.server.shards[usize::from(self.shard.0)]
    }

    /// The writer's state.
    #[must_use]
    pub fn writer_state(&self) -> WriterState {
        self.placer.port().status().state()
    }

    /// A request id of our own.
    #[must_use]
    pub fn make_request_id(&self) -> RequestId {
        let number = self.next_request.get();
        self.next_request.set(number + 1);
        RequestId::made(self.request_origin, number)
    }

    /// Whether a decoder for `encoding` can be taken now and held while its client sends.
    #[must_use]
    pub fn has_decoder(&mut self, encoding: Encoding) -> bool {
        self.decoders(encoding).left() > Limits::DECODERS_FOR_WHOLE_BODIES
    }

    /// A decoder for `encoding`, for a body that `is_whole` or is still coming; `None` if all for its like are out.
    pub fn take_decoder(&mut self, encoding: Encoding, is_whole: bool) -> Option<Decoder> {
        if !is_whole && !self.has_decoder(encoding) {
            return None;
        }
        let make = || Decoder::new(encoding).expect("only compressed bodies ask");
        let mut decoder = self.decoders(encoding).take(make)?;
        decoder.reset();
        Some(decoder)
    }

    /// Puts a decoder of `encoding` back.
    pub fn give_back_decoder(&mut self, encoding: Encoding, decoder: Decoder) {
        self.decoders(encoding).give_back(decoder);
    }

    fn decoders(&mut self, encoding: Encoding) -> &mut Shelf<Decoder> {
        match encoding {
            Encoding::Gzip => &mut self.gzip,
            Encoding::Zstd => &mut self.zstd,
            Encoding::Identity | Encoding::Unsupported => unreachable!("only compressed bodies need a decoder"),
        }
    }
}

/// A growing run of bytes in one block of the pool: what is kept of a head or an event whose end has not arrived.
#[derive(Debug, Default)]
pub struct Kept {
    block: Option<Block>,
    filled: usize,
}

impl Kept {
    /// The bytes kept.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &block.bytes()[..self.filled])
    }

    /// The bytes kept, to be changed in place.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.block {
            Some(block) => &mut block.bytes_mut()[..self.filled],
            None => &mut [],
        }
    }

    /// Appends `more`. False, with nothing changed, if the pool has no block for it.
    #[must_use]
    pub fn extend(&mut self, pool: &mut Pool, more: &[u8]) -> bool {
        let Some(room) = self.extend_by(pool, more.len()) else { return false };
        room.copy_from_slice(more);
        true
    }

    /// As [`Kept::extend`], for what is kept only if no more than `quarters` of the pool would be out.
    #[must_use]
    pub fn extend_spare(&mut self, pool: &mut Pool, more: &[u8], quarters: usize) -> bool {
        let end = self.filled + more.len();
        match &mut self.block {
            None => self.block = pool.take_spare(end, quarters),
            Some(block) => {
                if !pool.grow_spare(block, self.filled, end, quarters) {
                    return false;
                }
            }
        }
        let Some(block) = &mut self.block else { return false };
        block.bytes_mut()[self.filled..end].copy_from_slice(more);
        self.filled = end;
        true
    }

    /// Appends `bytes` bytes to be filled in; `None`, with nothing changed, if the pool has no block for them.
    pub fn extend_by(&mut self, pool: &mut Pool, bytes: usize) -> Option<&mut [u8]> {
        let filled = self.filled;
        match &mut self.block {
            None => self.block = Some(pool.take(bytes)?),
            Some(block) => {
                if !pool.grow(block, filled, filled + bytes) {
                    return None;
                }
            }
        }
        self.filled += bytes;
        self.block.as_mut().map(|block| &mut block.bytes_mut()[filled..filled + bytes])
    }

    /// Takes the last bytes off, down to `bytes`.
    pub fn truncate(&mut self, bytes: usize) {
        self.filled = self.filled.min(bytes);
    }

    /// Forgets the bytes and gives the block back.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.filled = 0;
        if let Some(block) = self.block.take() {
            pool.give_back(block);
        }
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }
}
