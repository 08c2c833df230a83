//! One connection as the event loop sees it: its slot, the requests in flight on it, the bytes it could not take yet.
//! Shard thread only. What the bytes mean is [`super::conversation`]'s business.
//!
//! A connection ends in steps, each once: shut down → every request in flight completed → direct descriptor closed → its
//! place vacant. The generation in each request's `user_data` tells a late completion from one of the next connection.

use std::time::Duration;

use super::arena::{BLOCK_BYTES_MAX, Block, Pool};
use super::beside::LastAnswered;
use super::conversation::Conversation;
use super::unread::Brought;
use crate::sys::uring::{Run, Slot};

/// What is copied of the bytes a connection has sent ahead while its answers have no room: more is held where it arrived.
const COPIED_BYTES_MAX: usize = BLOCK_BYTES_MAX;
/// Share of the pool beyond which nothing is copied.
const COPIED_QUARTERS: usize = 3;

/// Whether a receive is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receive {
    /// None is.
    Off,
    /// A multishot receive is.
    Armed,
    /// One is, and has been asked to end.
    Ending,
    /// None is: the provided buffers ran out, and it waits for half of them to be back.
    Parked,
}

/// Why a connection's bytes are not being parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stall {
    /// They are.
    None,
    /// The log buffer has no room: every connection's bytes wait, in the provided buffers they arrived in.
    NoRoom,
    /// The turn has done enough: its bytes wait for the next in a block of its own.
    Turn,
    /// Its answers have no room, because the peer does not read them or asks too many questions at once: its bytes wait
    /// in a block of its own, and where they arrived what goes beyond that.
    Replies,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is no connection here.
    Free,
    /// In use.
    Open,
    /// The peer has sent its last byte; answers may still leave.
    HalfClosed,
    /// The last answer has left, and what still arrives is dropped until the peer has seen it: a close with unread bytes
    /// would reset the connection and might destroy that answer on its way (RFC 9112 §9.6).
    Lingering,
    /// Shut down; waiting for the requests in flight.
    Closing,
    /// The descriptor's close is in flight.
    Leaving,
}

/// Received bytes that a stalled connection has yet to parse, oldest first: a copy in a block, then buffers still held.
#[derive(Debug, Default)]
pub(super) struct Leftover {
    /// A block and the part of it not yet parsed.
    pub(super) copied: Option<(Block, std::ops::Range<usize>)>,
    /// First and last of the held runs, as places in [`HeldRuns`].
    held: Option<(u32, u32)>,
}

impl Leftover {
    /// Whether nothing is left over.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.copied.is_none() && self.held.is_none()
    }

    /// Copies `bytes` behind what was copied before. False, with nothing changed, if the pool has no room for it, it would be
    /// too long, or buffers are held, which come after every copy.
    #[must_use]
    pub(super) fn set_aside(&mut self, pool: &mut Pool, bytes: &[u8]) -> bool {
        if self.held.is_some() {
            return false;
        }
        let Some((block, range)) = &mut self.copied else {
            let Some(mut block) =
                (bytes.len() <= COPIED_BYTES_MAX).then(|| pool.take_spare(bytes.len(), COPIED_QUARTERS)).flatten()
            else {
                return false;
            };
            block.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
            self.copied = Some((block, 0..bytes.len()));
            return true;
        };
        let end = range.end + bytes.len();
        if end > COPIED_BYTES_MAX || !pool.grow_spare(block, range.end, end, COPIED_QUARTERS) {
            return false;
        }
        block.bytes_mut()[range.end..end].copy_from_slice(bytes);
        range.end = end;
        true
    }
}

/// See the module text.
pub(super) struct Connection {
    /// Its socket, while there is one.
    pub(super) slot: Slot,
    /// How far it is.
    pub(super) stage: Stage,
    /// Counts the connections that were here.
    pub(super) generation: u32,
    /// The receive in flight.
    pub(super) receive: Receive,
    /// A send is in flight.
    pub(super) sending: bool,
    /// Other requests in flight: cancels and shutdowns.
    pub(super) pending: u8,
    /// Why it does not parse.
    pub(super) stall: Stall,
    /// How far its answers were when it stalled: it goes on when they are further.
    pub(super) stalled_at: (u64, u64),
    /// What it has yet to parse.
    pub(super) leftover: Leftover,
    /// It is in the list of connections to look after at the end of the turn.
    pub(super) touched: bool,
    /// It is left unread for a while.
    pub(super) unread: bool,
    /// What it has brought of late.
    pub(super) brought: Brought,
    /// When it was last answered.
    pub(super) last_answered: LastAnswered,
    /// Bytes dropped while lingering.
    pub(super) lingered_bytes: usize,
    /// When it is shut at the latest, lingering.
    pub(super) lingers_until: Duration,
    /// The talk itself.
    pub(super) conversation: Conversation,
}

impl Connection {
    /// A place without a connection, number `index` of the shard's.
    #[must_use]
    pub(super) fn new(index: u32) -> Self {
        Self {
            slot: Slot(u32::MAX),
            stage: Stage::Free,
            generation: 0,
            receive: Receive::Off,
            sending: false,
            pending: 0,
            stall: Stall::None,
            stalled_at: (0, 0),
            leftover: Leftover::default(),
            touched: false,
            unread: false,
            brought: Brought::default(),
            last_answered: LastAnswered::default(),
            lingered_bytes: 0,
            lingers_until: Duration::ZERO,
            conversation: Conversation::new(index),
        }
    }

    /// Begins the life of the connection with the socket in `slot`.
    ///
    /// # Panics
    /// If there is one here already, or it left something over.
    pub(super) fn open(&mut self, slot: Slot) {
        assert_eq!(self.stage, Stage::Free, "a place in use is not vacant");
        assert!(self.quiet() && self.leftover.is_empty(), "the last connection here has not been cleared away");
        self.slot = slot;
        self.stage = Stage::Open;
        self.receive = Receive::Off;
        self.stall = Stall::None;
        self.unread = false;
        self.brought = Brought::default();
        self.last_answered = LastAnswered::default();
        self.lingered_bytes = 0;
        self.lingers_until = Duration::ZERO;
        self.conversation.begin(self.generation);
    }

    /// Ends it: the descriptor is closed.
    pub(super) fn free(&mut self) {
        assert!(self.quiet(), "closed with requests in flight");
        self.stage = Stage::Free;
        // 24 bits, as many as `user_data` carries.
        self.generation = (self.generation + 1) & 0x00FF_FFFF;
    }

    /// No request is in flight on it.
    #[must_use]
    pub(super) fn quiet(&self) -> bool {
        matches!(self.receive, Receive::Off | Receive::Parked) && !self.sending && self.pending == 0
    }
}

/// Runs of provided buffers that stalled connections hold: as many as there are buffers, linked per connection.
#[derive(Debug)]
pub(super) struct HeldRuns {
    runs: Vec<(Run, u32)>,
    free: Vec<u32>,
    buffers: u16,
}

const END: u32 = u32::MAX;

impl HeldRuns {
    /// Room for `buffers` runs: each holds at least one buffer.
    #[must_use]
    pub(super) fn new(buffers: usize) -> Self {
        Self { runs: Vec::with_capacity(buffers), free: Vec::with_capacity(buffers), buffers: 0 }
    }

    /// Buffers held in all.
    #[must_use]
    pub(super) fn buffers(&self) -> u16 {
        self.buffers
    }

    /// Holds `run` as the last of `leftover`.
    pub(super) fn push(&mut self, leftover: &mut Leftover, run: Run) {
        self.buffers += run.buffers();
        let place = if let Some(place) = self.free.pop() {
            self.runs[place as usize] = (run, END);
            place
        } else {
            self.runs.push((run, END));
            self.runs.len() as u32 - 1
        };
        leftover.held = match leftover.held {
            None => Some((place, place)),
            Some((first, last)) => {
                self.runs[last as usize].1 = place;
                Some((first, place))
            }
        };
    }

    /// Takes the oldest run of `leftover`.
    pub(super) fn pop(&mut self, leftover: &mut Leftover) -> Option<Run> {
        let (first, last) = leftover.held?;
        let (run, next) = self.runs[first as usize];
        self.free.push(first);
        self.buffers -= run.buffers();
        leftover.held = (first != last).then_some((next, last));
        Some(run)
    }

    /// Puts what is left of a run just popped back in front.
    pub(super) fn push_front(&mut self, leftover: &mut Leftover, run: Run) {
        self.buffers += run.buffers();
        let place = self.free.pop().expect("a run was just popped");
        let (next, last) = leftover.held.map_or((END, place), |(first, last)| (first, last));
        self.runs[place as usize] = (run, next);
        leftover.held = Some((place, last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::arena::POOL_BYTES_MIN;
    use crate::sys::memory::Region;
    use crate::sys::uring::{ProvidedBuffers, Ring};
    use std::sync::Arc;

    #[test]
    fn held_runs_come_back_in_order_per_connection() {
        let mut ring = Ring::new(8, 16, 4, Arc::new(Region::map(4096, false).unwrap())).unwrap();
        let mut buffers = ProvidedBuffers::new(&mut ring, 0, 8, 4096).unwrap();
        buffers.lend(8);
        let mut runs = Vec::new();
        (0..6).for_each(|buffer| assert_eq!(buffers.take(buffer, 100 + usize::from(buffer), &mut runs), 1));
        let mut held = HeldRuns::new(8);
        let (mut one, mut two) = (Leftover::default(), Leftover::default());
        for (index, run) in runs.iter().enumerate() {
            held.push(if index % 2 == 0 { &mut one } else { &mut two }, *run);
        }
        assert_eq!(held.buffers(), 6);
        let mut first = held.pop(&mut one).unwrap();
        assert_eq!(held.buffers(), 5);
        first.advance(60);
        held.push_front(&mut one, first);
        assert_eq!(held.buffers(), 6);
        let lengths = |held: &mut HeldRuns, leftover: &mut Leftover| {
            std::iter::from_fn(|| held.pop(leftover)).map(|run| run.bytes()).collect::<Vec<_>>()
        };
        assert_eq!(lengths(&mut held, &mut one), [40, 102, 104]);
        assert_eq!(lengths(&mut held, &mut two), [101, 103, 105]);
        assert!(one.is_empty() && two.is_empty());
        assert_eq!(held.buffers(), 0);
    }

    fn pool() -> Pool {
        Pool::new(Arc::new(Region::map(POOL_BYTES_MIN, false).unwrap()))
    }

    #[test]
    fn what_is_set_aside_in_pieces_lies_together_behind_what_was_not_parsed() {
        let mut pool = pool();
        let mut leftover = Leftover::default();
        assert!(leftover.set_aside(&mut pool, &[1; 3000]) && leftover.set_aside(&mut pool, &[2; 3000]));
        leftover.copied.as_mut().unwrap().1.start = 2999;
        assert!(leftover.set_aside(&mut pool, &[3; 10_000]));
        let (block, range) = leftover.copied.as_ref().unwrap();
        assert_eq!((range.clone(), block.capacity()), (2999..16_000, 16_384));
        let expected = [&[1; 1][..], &[2; 3000], &[3; 10_000]].concat();
        assert_eq!(block.bytes()[range.clone()], expected);
        assert!(!leftover.set_aside(&mut pool, &vec![4; COPIED_BYTES_MAX - 15_999]), "too far ahead");
        let (block, range) = leftover.copied.take().unwrap();
        assert_eq!(block.bytes()[range], expected, "it is as it was");
        pool.give_back(block);
        assert!(!leftover.set_aside(&mut pool, &vec![4; COPIED_BYTES_MAX + 1]) && leftover.is_empty());
        assert!(leftover.set_aside(&mut pool, &vec![4; COPIED_BYTES_MAX]), "as far as is allowed");
        pool.give_back(leftover.copied.take().unwrap().0);
        assert_eq!(pool.used_bytes(), 0);
    }

    /// A copy is parsed before what is held: what comes behind held buffers is held too.
    #[test]
    fn nothing_is_copied_behind_what_is_held() {
        let (mut pool, mut leftover) = (pool(), Leftover { copied: None, held: Some((0, 0)) });
        assert!(!leftover.set_aside(&mut pool, b"later") && leftover.copied.is_none());
    }

    /// Whatever the last connection in a place was doing when it ended.
    #[test]
    fn a_place_begins_anew() {
        let mut place = Connection::new(0);
        place.open(Slot(3));
        place.stall = Stall::Replies;
        place.receive = Receive::Parked;
        (place.unread, place.lingered_bytes, place.lingers_until) = (true, 9, Duration::MAX);
        place.stage = Stage::Leaving;
        place.free();
        place.open(Slot(4));
        assert_eq!((place.stall, place.receive, place.stage), (Stall::None, Receive::Off, Stage::Open));
        assert_eq!((place.unread, place.lingered_bytes, place.lingers_until), (false, 0, Duration::ZERO));
        assert_eq!(place.generation, 1);
    }

    /// In pieces of any length: a block that grows keeps to the share that the first one had to keep to.
    #[test]
    fn what_is_set_aside_leaves_a_quarter_of_the_pool() {
        for piece in [1000, 5000, 100_000] {
            let mut pool = pool();
            let mut leftovers: Vec<Leftover> = (0..2000).map(|_| Leftover::default()).collect();
            let mut kept = 0;
            for _ in 0..20 {
                for leftover in &mut leftovers {
                    kept += usize::from(leftover.set_aside(&mut pool, &vec![0; piece]));
                    assert!(pool.used_bytes() <= POOL_BYTES_MIN / 4 * 3, "{piece}: {}", pool.used_bytes());
                }
            }
            assert!(kept * piece > POOL_BYTES_MIN / 4, "{piece}: the share was not used");
            leftovers.into_iter().filter_map(|leftover| leftover.copied).for_each(|(block, _)| pool.give_back(block));
            assert_eq!(pool.used_bytes(), 0);
        }
    }
}
