//! Which answers wait for which chunk. Shard thread only; pure.
//!
//! A request waits for the chunk that was open when its last event was placed. Chunk numbers grow, so the waiters of
//! one level stand in the order in which they will be released, and a queue per level is all it takes: acknowledging is by
//! contiguous prefix, never by completion order.

use std::collections::VecDeque;

use super::replies::{Condition, GateId};
use crate::base::{AckLevel, Seq};

/// A gate of some connection's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// The connection's place in the shard's table.
    pub connection: u32,
    /// Tells this connection from a later one in the same place.
    pub generation: u32,
    /// The gate to open.
    pub gate: GateId,
    /// When the request was done parsing, nanoseconds on the shard's clock.
    pub since_ns: u64,
}

/// See the module text. Bounded by connections × [`super::replies::GATES_MAX`], which bounds the gates there can be.
#[derive(Debug, Default)]
pub struct Waiters {
    levels: [VecDeque<(Seq, Waiter)>; 3],
}

impl Waiters {
    /// No waiters, with room for `connections` of them without allocation.
    #[must_use]
    pub fn new(connections: usize) -> Self {
        Self { levels: std::array::from_fn(|_| VecDeque::with_capacity(connections)) }
    }

    /// Adds a waiter. A request whose body ended long after its last event may wait for an older chunk than the waiter
    /// before it; it is released with that one, which is later than it could be and never too early.
    pub fn push(&mut self, condition: Condition, waiter: Waiter) {
        let queue = &mut self.levels[condition.level as usize];
        let seq = queue.back().map_or(condition.seq, |(last, _)| condition.seq.max(*last));
        queue.push_back((seq, waiter));
    }

    /// The next waiter of `level` whose chunk is at most `reached`; `None` when the rest must wait.
    pub fn pop(&mut self, level: AckLevel, reached: Seq) -> Option<Waiter> {
        let queue = &mut self.levels[level as usize];
        queue.pop_front_if(|(seq, _)| *seq <= reached).map(|(_, waiter)| waiter)
    }

    /// The chunk that the first waiter of `level` waits for.
    #[must_use]
    pub fn next(&self, level: AckLevel) -> Option<Seq> {
        self.levels[level as usize].front().map(|(seq, _)| *seq)
    }

    /// Whether requests of `level` wait.
    #[must_use]
    pub fn any(&self, level: AckLevel) -> bool {
        !self.levels[level as usize].is_empty()
    }

    /// Gates waiting, over all levels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.levels.iter().map(VecDeque::len).sum()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets every waiter: the writer has failed.
    pub fn clear(&mut self) {
        self.levels.iter_mut().for_each(VecDeque::clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::replies::Replies;

    fn gate() -> GateId {
        let mut pool = crate::shard::arena::Pool::new(std::sync::Arc::new(
            crate::sys::memory::Region::map(crate::base::MIB, false).unwrap(),
        ));
        let mut replies = Replies::default();
        replies.room(&mut pool, 1).unwrap();
        let gate = replies.push(1, Some(Condition { level: AckLevel::Durable, seq: Seq(1) })).unwrap();
        // A pool with a block still out keeps its memory for ever: the kernel may be using it.
        replies.clear(&mut pool);
        gate
    }

    #[test]
    fn only_a_reached_prefix_is_released_and_levels_do_not_mix() {
        let mut waiters = Waiters::new(4);
        let gate = gate();
        let waiter = |connection| Waiter { connection, generation: 0, gate, since_ns: 0 };
        for (connection, level, seq) in
            [(0, AckLevel::Durable, 3), (1, AckLevel::Durable, 4), (2, AckLevel::Memory, 4), (3, AckLevel::Durable, 6)]
        {
            waiters.push(Condition { level, seq: Seq(seq) }, waiter(connection));
        }
        assert_eq!(waiters.pop(AckLevel::Durable, Seq(2)), None);
        assert_eq!(waiters.pop(AckLevel::Durable, Seq(5)).unwrap().connection, 0);
        assert_eq!(waiters.pop(AckLevel::Durable, Seq(5)).unwrap().connection, 1);
        assert_eq!(waiters.pop(AckLevel::Durable, Seq(5)), None);
        assert!(waiters.any(AckLevel::Memory) && !waiters.any(AckLevel::Written));
        assert_eq!(waiters.len(), 2);
    }

    #[test]
    fn an_old_chunk_waits_behind_a_newer_one_and_never_leaves_early() {
        let mut waiters = Waiters::new(2);
        let gate = gate();
        let waiter = |connection| Waiter { connection, generation: 0, gate, since_ns: 0 };
        waiters.push(Condition { level: AckLevel::Durable, seq: Seq(6) }, waiter(0));
        waiters.push(Condition { level: AckLevel::Durable, seq: Seq(5) }, waiter(1));
        assert_eq!(waiters.pop(AckLevel::Durable, Seq(5)), None);
        assert_eq!(waiters.next(AckLevel::Durable), Some(Seq(6)));
        assert_eq!(waiters.pop(AckLevel::Durable, Seq(6)).unwrap().connection, 0);
        assert_eq!(waiters.pop(AckLevel::Durable, Seq(6)).unwrap().connection, 1);
    }
}
