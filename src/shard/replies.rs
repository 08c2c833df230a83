//! The answers of one connection on their way out: written in request order, held back until their ack level is reached,
//! sent in one piece. Shard thread only; pure but for the pool's memory.
//!
//! Answers are formatted the moment a request is done parsing and lie in the connection's blocks. A *gate* marks the end
//! of the answers that wait for one (level, chunk) pair; bytes may be sent up to the first gate that is not open. So
//! pipelined answers leave in order whatever the order of their levels, and an ack costs no formatting.
//!
//! Two blocks: the front one is being sent, the back one is written while the front is busy. Both full is the
//! connection's own doing (it reads too slowly or pipelines too deeply) and stops its parsing, not its neighbours'.

use super::arena::{BLOCK_BYTES_MIN, Block, Pool};
use crate::base::{AckLevel, KIB, Seq};

/// Distinct (level, chunk) pairs one connection may wait for; the next request is not parsed before one is reached.
pub const GATES_MAX: usize = 8;
/// The back block takes more than the front: it is where deep pipelines pile up while the first answers wait.
const BACK_BYTES: usize = 64 * KIB;
/// Share of the pool beyond which there are no back blocks: they only make deep pipelines faster, and what a stalled
/// connection has sent ahead needs the room more.
const BACK_QUARTERS: usize = 2;

/// What an answer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The ack level asked for.
    pub level: AckLevel,
    /// The last chunk that holds events of the request.
    pub seq: Seq,
}

/// Names a gate of a connection while it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateId(u32);

#[derive(Clone, Copy, Debug)]
struct Gate {
    end: u64,
    condition: Condition,
    open: bool,
    /// Requests that wait at it, for its condition and not only for their turn.
    requests: u32,
}

#[derive(Debug)]
struct Out {
    block: Block,
    start: u64,
    filled: usize,
}

impl Out {
    fn end(&self) -> u64 {
        self.start + self.filled as u64
    }
}

/// See the module text. Offsets count bytes since the connection began.
#[derive(Debug, Default)]
pub struct Replies {
    front: Option<Out>,
    back: Option<Out>,
    written: u64,
    released: u64,
    sent: u64,
    gates: [Option<Gate>; GATES_MAX],
    first_gate: u32,
    next_gate: u32,
}

impl Replies {
    /// Room for an answer of up to `bytes` bytes; `None` if the connection must wait for earlier answers to leave, or
    /// the pool has no block.
    pub fn room(&mut self, pool: &mut Pool, bytes: usize) -> Option<&mut [u8]> {
        if self.gates_waiting() == GATES_MAX {
            return None;
        }
        let unused = self.front.as_ref().is_some_and(|front| front.filled == 0);
        let out = if self.back.is_some() {
            self.back.as_mut()
        } else if unused {
            // Asked for before and not used: a longer answer than was thought of gets a longer block, not a second one.
            self.front.as_mut().and_then(|front| pool.grow(&mut front.block, 0, bytes).then_some(front))
        } else {
            let is_full = self.front.as_ref().is_some_and(|front| front.filled + bytes > front.block.capacity());
            if is_full {
                let block = pool.take_spare(bytes.max(BACK_BYTES), BACK_QUARTERS)?;
                self.back = Some(Out { block, start: self.written, filled: 0 });
                self.back.as_mut()
            } else {
                if self.front.is_none() {
                    let block = pool.take(bytes.max(BLOCK_BYTES_MIN))?;
                    self.front = Some(Out { block, start: self.written, filled: 0 });
                }
                self.front.as_mut()
            }
        }?;
        let filled = out.filled;
        let rest = &mut out.block.bytes_mut()[filled..];
        (rest.len() >= bytes).then_some(rest)
    }

    /// Bytes sent and bytes released so far. While neither grows, an answer that found no room will find none again.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        (self.sent, self.released)
    }

    /// Counts `bytes` bytes, just written to what [`Replies::room`] gave, as the next answer. With a condition it waits
    /// behind a gate: a new one's name is returned, to be opened when the condition holds; none if it joins the last.
    pub fn push(&mut self, bytes: usize, condition: Option<Condition>) -> Option<GateId> {
        let out = if self.back.is_some() { &mut self.back } else { &mut self.front };
        let out = out.as_mut().expect("room was asked for");
        assert!(out.filled + bytes <= out.block.capacity(), "an answer past its room");
        out.filled += bytes;
        self.written += bytes as u64;
        let last = self.next_gate.wrapping_sub(1);
        let waiting = self.gates_waiting();
        match condition {
            Some(condition) => {
                if waiting > 0 {
                    let gate = self.gate_mut(last);
                    if gate.condition == condition && !gate.open {
                        gate.end += bytes as u64;
                        gate.requests += 1;
                        return None;
                    }
                }
                assert!(waiting < GATES_MAX, "room refuses before the gates run out");
                let id = self.next_gate;
                self.next_gate = id.wrapping_add(1);
                self.gates[id as usize % GATES_MAX] =
                    Some(Gate { end: self.written, condition, open: false, requests: 1 });
                Some(GateId(id))
            }
            None if waiting > 0 => {
                // Waits behind the gate for its turn only; leaving together with the answer before is soon enough.
                self.gate_mut(last).end += bytes as u64;
                None
            }
            None => {
                self.released = self.written;
                None
            }
        }
    }

    /// Requests that wait at a gate; 0 if it is open or forgotten.
    #[must_use]
    pub fn requests_at(&self, id: GateId) -> u32 {
        let is_known = id.0.wrapping_sub(self.first_gate) < self.next_gate.wrapping_sub(self.first_gate);
        let gate = self.gates[id.0 as usize % GATES_MAX].filter(|gate| is_known && !gate.open);
        gate.map_or(0, |gate| gate.requests)
    }

    /// Opens a gate: its condition holds. True if more bytes may be sent now.
    pub fn open(&mut self, id: GateId) -> bool {
        if id.0.wrapping_sub(self.first_gate) >= self.next_gate.wrapping_sub(self.first_gate) {
            return false;
        }
        self.gate_mut(id.0).open = true;
        let before = self.released;
        while self.gates_waiting() > 0 && self.gate_mut(self.first_gate).open {
            let gate = self.gates[self.first_gate as usize % GATES_MAX].take().expect("it waits");
            self.released = gate.end;
            self.first_gate = self.first_gate.wrapping_add(1);
        }
        self.released > before
    }

    /// Forgets every answer that still waits behind a gate: its condition will never hold.
    pub fn drop_waiting(&mut self) {
        self.first_gate = self.next_gate;
        self.gates = [None; GATES_MAX];
        let keep = self.released;
        for out in [&mut self.front, &mut self.back].into_iter().flatten() {
            out.filled = out.filled.min(keep.saturating_sub(out.start) as usize);
            out.start = out.start.min(keep);
        }
        self.written = keep;
    }

    /// Bytes that may be sent now, as (offset in the pool's region, length); `None` if there are none. What is returned
    /// stays where it is until [`Replies::sent`] has counted it.
    #[must_use]
    pub fn sendable(&self) -> Option<(usize, usize)> {
        let front = self.front.as_ref()?;
        let end = front.end().min(self.released);
        let length = end.saturating_sub(self.sent) as usize;
        (length > 0).then(|| (front.block.region_offset() + (self.sent - front.start) as usize, length))
    }

    /// Counts `bytes` bytes as taken by the kernel; gives the front block back when all of it is.
    pub fn sent(&mut self, bytes: usize, pool: &mut Pool) {
        self.sent += bytes as u64;
        assert!(self.sent <= self.released, "sent before released");
        if self.front.as_ref().is_some_and(|front| front.end() == self.sent) {
            let front = std::mem::replace(&mut self.front, self.back.take()).expect("just seen");
            pool.give_back(front.block);
        }
    }

    /// Answers wait for their ack level.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.first_gate != self.next_gate
    }

    /// Everything written has been sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sent == self.written
    }

    /// Gives every block back: the connection is over and no send is in flight.
    pub fn clear(&mut self, pool: &mut Pool) {
        for out in [self.front.take(), self.back.take()].into_iter().flatten() {
            pool.give_back(out.block);
        }
        *self = Self { first_gate: self.next_gate, next_gate: self.next_gate, ..Self::default() };
    }

    fn gates_waiting(&self) -> usize {
        self.next_gate.wrapping_sub(self.first_gate) as usize
    }

    fn gate_mut(&mut self, id: u32) -> &mut Gate {
        self.gates[id as usize % GATES_MAX].as_mut().expect("a waiting gate is there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::MIB;
    use crate::sys::memory::Region;
    use std::sync::Arc;

    fn pool() -> Pool {
        Pool::new(Arc::new(Region::map(2 * MIB, false).unwrap()))
    }

    fn durable(seq: u64) -> Option<Condition> {
        Some(Condition { level: AckLevel::Durable, seq: Seq(seq) })
    }

    fn put(replies: &mut Replies, pool: &mut Pool, text: &[u8], condition: Option<Condition>) -> Option<GateId> {
        replies.room(pool, text.len()).unwrap()[..text.len()].copy_from_slice(text);
        replies.push(text.len(), condition)
    }

    fn sendable(replies: &Replies) -> &[u8] {
        let Some((offset, length)) = replies.sendable() else { return b"" };
        let block = &replies.front.as_ref().expect("bytes to send lie in the front block").block;
        &block.bytes()[offset - block.region_offset()..][..length]
    }

    #[test]
    fn an_answer_without_a_condition_leaves_at_once() {
        let (mut pool, mut replies) = (pool(), Replies::default());
        assert_eq!(put(&mut replies, &mut pool, b"one", None), None);
        assert_eq!(sendable(&replies), b"one");
        replies.sent(1, &mut pool);
        assert_eq!(sendable(&replies), b"ne");
        replies.sent(2, &mut pool);
        assert!(replies.is_empty());
        assert_eq!(pool.used_bytes(), 0, "an idle connection holds no block");
    }

    #[test]
    fn answers_leave_in_request_order_whatever_opens_first() {
        let (mut pool, mut replies) = (pool(), Replies::default());
        let slow = put(&mut replies, &mut pool, b"1", durable(5)).unwrap();
        let quick =
            put(&mut replies, &mut pool, b"2", Some(Condition { level: AckLevel::Memory, seq: Seq(5) })).unwrap();
        put(&mut replies, &mut pool, b"3", None);
        assert!(!replies.open(quick));
        assert_eq!(sendable(&replies), b"");
        assert!(replies.open(slow));
        assert_eq!(sendable(&replies), b"123");
    }

    #[test]
    fn answers_with_one_condition_share_a_gate() {
        let (mut pool, mut replies) = (pool(), Replies::default());
        let gate = put(&mut replies, &mut pool, b"1", durable(5)).unwrap();
        assert_eq!(put(&mut replies, &mut pool, b"2", durable(5)), None);
        let later = put(&mut replies, &mut pool, b"3", durable(6)).unwrap();
        put(&mut replies, &mut pool, b"4", None);
        assert_eq!((replies.requests_at(gate), replies.requests_at(later)), (2, 1));
        replies.open(gate);
        assert_eq!((replies.requests_at(gate), replies.requests_at(later)), (0, 1));
        assert_eq!(sendable(&replies), b"12");
        replies.open(later);
        assert_eq!(sendable(&replies), b"1234");
    }

    #[test]
    fn too_many_conditions_stop_the_connection() {
        let (mut pool, mut replies) = (pool(), Replies::default());
        let gates: Vec<_> =
            (0..GATES_MAX as u64).map(|seq| put(&mut replies, &mut pool, b"x", durable(seq)).unwrap()).collect();
        assert!(replies.room(&mut pool, 1).is_none());
        replies.open(gates[0]);
        assert!(replies.room(&mut pool, 1).is_some());
    }

    #[test]
    fn full_blocks_stop_the_connection_until_the_front_has_left() {
        let (mut pool, mut replies) = (pool(), Replies::default());
        let mut answers = 0;
        while replies.room(&mut pool, 1000).is_some() {
            replies.push(1000, None);
            answers += 1;
        }
        assert_eq!(answers, 4 + BACK_BYTES / 1000);
        replies.sent(4000, &mut pool);
        let (_, length) = replies.sendable().unwrap();
        assert_eq!(length, BACK_BYTES / 1000 * 1000, "the back block is the front now");
        assert!(replies.room(&mut pool, 1000).is_some());
        replies.clear(&mut pool);
        assert_eq!(pool.used_bytes(), 0);
    }

    #[test]
    fn an_answer_longer_than_first_thought_of_is_sent_too() {
        let (mut pool, mut replies) = (pool(), Replies::default());
        replies.room(&mut pool, 100).unwrap();
        put(&mut replies, &mut pool, &[7; 20_000], None);
        assert_eq!(sendable(&replies), [7; 20_000]);
        replies.sent(20_000, &mut pool);
        assert_eq!(pool.used_bytes(), 0);
    }

    #[test]
    fn a_failed_writer_takes_back_what_was_not_released() {
        let (mut pool, mut replies) = (pool(), Replies::default());
        put(&mut replies, &mut pool, b"sent", None);
        let gate = put(&mut replies, &mut pool, b"never", durable(9)).unwrap();
        replies.drop_waiting();
        put(&mut replies, &mut pool, b"503", None);
        assert!(!replies.open(gate), "a forgotten gate opens nothing");
        assert_eq!(sendable(&replies), b"sent503");
    }
}
