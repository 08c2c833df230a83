//! The other shards as one shard sees them: how many connections each has, and where to send one. Any shard's thread;
//! touched when a connection is accepted or closed, never per event.
//!
//! SO_REUSEPORT spreads connections by hash, which is uneven while they are few. So a shard that accepts one looks for the
//! shard with the fewest and, if that is another, sends the socket there by a ring message. Loads are counted at the moment
//! of the decision, on behalf of the receiver, so two connections accepted at once do not both go to the same place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::base::ShardId;
use crate::metrics::Padded;

#[derive(Debug)]
struct Peer {
    connections: AtomicU32,
    ring: OnceLock<OwnedFd>,
    open: AtomicBool,
}

/// All shards of the process.
#[derive(Debug)]
pub struct Peers(Box<[Padded<Peer>]>);

impl Peers {
    /// `shards` shards without connections, none open for messages yet.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        let peer =
            |_| Padded(Peer { connections: AtomicU32::new(0), ring: OnceLock::new(), open: AtomicBool::new(false) });
        Self((0..shards).map(peer).collect())
    }

    /// Makes `shard` reachable through `ring`, a duplicate of its ring's descriptor.
    ///
    /// # Panics
    /// If it joined before.
    pub fn join(&self, shard: ShardId, ring: OwnedFd) {
        let peer = &self.0[usize::from(shard.0)];
        assert!(peer.ring.set(ring).is_ok(), "a shard joins once");
        // Release pairs with the Acquire in `place`: the ring is there before anybody sends to it.
        peer.open.store(true, Ordering::Release);
    }

    /// Takes `shard` out of the choice: it drains.
    pub fn leave(&self, shard: ShardId) {
        self.0[usize::from(shard.0)].open.store(false, Ordering::Release);
    }

    /// Decides which shard is to serve a connection that `here` accepted, and counts it there. `None` means here.
    pub fn place(&self, here: ShardId) -> Option<(ShardId, BorrowedFd<'_>)> {
        let here = usize::from(here.0);
        let load = |index: usize| self.0[index].connections.load(Ordering::Relaxed);
        let best = (0..self.0.len())
            .filter(|index| self.0[*index].open.load(Ordering::Acquire))
            .fold(here, |best, index| if load(index) < load(best) { index } else { best });
        self.0[best].connections.fetch_add(1, Ordering::Relaxed);
        if best == here {
            return None;
        }
        let shard = ShardId(u16::try_from(best).expect("shards are numbered by u16"));
        Some((shard, self.0[best].ring.get().expect("an open peer has a ring").as_fd()))
    }

    /// Counts a connection of `shard` as gone.
    pub fn closed(&self, shard: ShardId) {
        let before = self.0[usize::from(shard.0)].connections.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "closed more connections than were placed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_gets_its_share_whoever_accepts() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let peers = Peers::new(3);
        for shard in 0..3 {
            peers.join(ShardId(shard), file.try_clone().unwrap().into());
        }
        let placed: Vec<_> = (0..6).map(|_| peers.place(ShardId(1)).map_or(1, |(shard, _)| shard.0)).collect();
        assert_eq!(placed, [1, 0, 2, 1, 0, 2], "ties stay where they are");
        peers.closed(ShardId(2));
        assert_eq!(peers.place(ShardId(0)).unwrap().0, ShardId(2));
        peers.leave(ShardId(2));
        peers.closed(ShardId(2));
        assert!(peers.place(ShardId(0)).is_none(), "a draining shard gets none");
    }
}
