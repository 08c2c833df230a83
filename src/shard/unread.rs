//! Connections that are left unread for a while, and which ones bring far more than others. Shard thread; pure.
//!
//! A connection that is not read fills the window that TCP grants its peer, and the peer waits without an error. That is
//! what keeps refusing cheap when clients come again at once, and what slows the heaviest connections before anybody must
//! be refused.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::admit::TICK_NS;
use crate::base::KIB;

/// What connections bring is compared over so long: many turns of a busy shard, and no longer than admission looks back.
const WINDOW_NS: u64 = 10 * TICK_NS;
/// Less than this within a window is nobody's fault.
const HEAVY_BYTES_MIN: u64 = 64 * KIB as u64;
/// So many times what the others bring on average is far more.
const HEAVY_TIMES: u64 = 2;
/// How long the heaviest are left unread: then the next look at the shard's figures has been taken.
pub(super) const HEAVY_HOLD_NS: u64 = 2 * TICK_NS;

/// What one connection has brought within a window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Brought {
    window: u64,
    bytes: u64,
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Unread {
    /// When, and the place; at most one entry for each.
    due: BinaryHeap<Reverse<(u64, u32)>>,
    queued: Vec<bool>,
    window: u64,
    bytes: u64,
    connections: u64,
}

impl Unread {
    /// With room for `places` connections.
    #[must_use]
    pub(super) fn new(places: usize) -> Self {
        Self {
            due: BinaryHeap::with_capacity(places),
            queued: vec![false; places],
            window: 0,
            bytes: 0,
            connections: 0,
        }
    }

    /// Counts `bytes` that a connection brought; whether it brings far more than the others do.
    pub(super) fn brought(&mut self, now_ns: u64, brought: &mut Brought, bytes: u64) -> bool {
        // Counted from 1, so that a connection that has brought nothing is in no window.
        let window = now_ns / WINDOW_NS + 1;
        if self.window != window {
            (self.window, self.bytes, self.connections) = (window, 0, 0);
        }
        if brought.window != window {
            *brought = Brought { window, bytes: 0 };
            self.connections += 1;
        }
        brought.bytes += bytes;
        self.bytes += bytes;
        let (others, others_bytes) = (self.connections - 1, self.bytes - brought.bytes);
        others > 0 && brought.bytes >= HEAVY_BYTES_MIN && brought.bytes * others > HEAVY_TIMES * others_bytes
    }

    /// The connection in `place` is to be read again at `at_ns`; or sooner, if an earlier one there had to wait.
    pub(super) fn put(&mut self, at_ns: u64, place: u32) {
        if !std::mem::replace(&mut self.queued[place as usize], true) {
            self.due.push(Reverse((at_ns, place)));
        }
    }

    /// A place whose time has come.
    pub(super) fn pop_due(&mut self, now_ns: u64) -> Option<u32> {
        let Reverse((at_ns, _)) = self.due.peek()?;
        if *at_ns > now_ns {
            return None;
        }
        let Reverse((_, place)) = self.due.pop()?;
        self.queued[place as usize] = false;
        Some(place)
    }

    /// When the next place's time comes.
    #[must_use]
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((at_ns, _))| *at_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_in_the_order_of_their_times_and_once() {
        let mut unread = Unread::new(8);
        for (at_ns, place) in [(30, 3), (10, 1), (20, 2), (5, 3)] {
            unread.put(at_ns, place);
        }
        assert_eq!((unread.next_ns(), unread.pop_due(9)), (Some(10), None));
        let due: Vec<_> = std::iter::from_fn(|| unread.pop_due(30)).collect();
        assert_eq!(due, [1, 2, 3], "place 3 was there already");
        assert_eq!(unread.next_ns(), None);
        unread.put(40, 3);
        assert_eq!(unread.pop_due(40), Some(3));
    }

    #[test]
    fn only_who_brings_far_more_than_others_is_heavy() {
        let mut unread = Unread::new(8);
        let mut connections = [Brought::default(); 4];
        assert!(!unread.brought(0, &mut connections[0], 1 << 30), "there is nobody else");
        let at_ns = WINDOW_NS;
        for connection in &mut connections {
            assert!(!unread.brought(at_ns, connection, 100_000), "all bring the same");
        }
        assert!(!unread.brought(at_ns, &mut connections[1], 100_000), "twice as much");
        assert!(unread.brought(at_ns, &mut connections[1], 10), "more than twice as much");
        assert!(!unread.brought(2 * at_ns, &mut connections[2], 1), "another window");
        assert!(!unread.brought(2 * at_ns, &mut connections[1], HEAVY_BYTES_MIN - 1), "too little to matter");
    }
}
