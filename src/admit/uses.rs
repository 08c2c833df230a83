//! What shards let tenants do, since the start: counts, and how far their limits' buckets have come. Each number is written
//! by one shard and read by all, and by the control thread, without a lock; pure.

use std::sync::atomic::{AtomicU64, Ordering};

/// What one shard let one tenant do, since the start. Written by that shard only.
#[derive(Debug, Default)]
pub struct Use {
    /// Events stored or refused as invalid.
    pub events: Count,
    /// Bytes of bodies as they came.
    pub bytes: Count,
    /// Requests admitted.
    pub requests: Count,
    /// Requests refused for his limits.
    pub limited: Count,
    /// Requests refused for the server's capacity.
    pub refused: Count,
    /// Of his bucket of events, as far as the shard knows.
    pub events_origin: Origin,
    /// The same of his bucket of bytes.
    pub bytes_origin: Origin,
}

/// A count that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`. Only the owning thread calls this.
    pub fn add(&self, n: u64) {
        // Release pairs with Acquire in `get`: who sees a use sees the origin that was raised before it.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Release);
    }

    /// The count now, or shortly before.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// The origin of a bucket, as one shard knows it, and of which limit: see `admit/limit.rs`.
#[derive(Debug, Default)]
pub struct Origin {
    epoch: AtomicU64,
    at_ns: AtomicU64,
}

impl Origin {
    /// Says that the origin under the limit of `epoch` is at `at_ns` or later. Only the owning thread calls this, with epochs
    /// that do not fall, and times that do not within one.
    pub fn raise(&self, epoch: u64, at_ns: u64) {
        if self.epoch.load(Ordering::Relaxed) != epoch {
            // First nothing, then whose: Release pairs with the first Acquire in `of`, which then does not see the time of
            // the limit before.
            self.at_ns.store(0, Ordering::Relaxed);
            self.epoch.store(epoch, Ordering::Release);
        }
        // Release pairs with the second Acquire in `of`: who sees this time sees whose it is.
        self.at_ns.store(at_ns, Ordering::Release);
    }

    /// The origin under the limit of `epoch`; 0 if the shard knows of none, or has gone on to another limit.
    #[must_use]
    pub fn of(&self, epoch: u64) -> u64 {
        if self.epoch.load(Ordering::Acquire) != epoch {
            return 0;
        }
        let at_ns = self.at_ns.load(Ordering::Acquire);
        if self.epoch.load(Ordering::Relaxed) == epoch { at_ns } else { 0 }
    }
}

/// All shards' numbers of all tenants, by shard and tenant number.
#[derive(Debug)]
pub struct Uses(Box<[Box<[Use]>]>);

impl Uses {
    /// All zero, for that many shards and tenant numbers.
    #[must_use]
    pub fn new(shards: usize, ids: usize) -> Self {
        Self((0..shards).map(|_| (0..ids).map(|_| Use::default()).collect()).collect())
    }

    /// What `shard` let `tenant` do.
    #[must_use]
    pub fn of(&self, shard: usize, tenant: usize) -> &Use {
        &self.0[shard][tenant]
    }

    /// What each shard let `tenant` do.
    pub fn each(&self, tenant: usize) -> impl Iterator<Item = &Use> {
        self.0.iter().map(move |shard| &shard[tenant])
    }

    /// One count of `tenant`, over all shards.
    #[must_use]
    pub fn sum(&self, tenant: usize, count: fn(&Use) -> &Count) -> u64 {
        self.each(tenant).map(|used| count(used).get()).fold(0, u64::wrapping_add)
    }

    /// Shards.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.0.len()
    }

    /// Tenant numbers.
    #[must_use]
    pub fn ids(&self) -> usize {
        self.0.first().map_or(0, |shard| shard.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_its_limits_alone() {
        let origin = Origin::default();
        assert_eq!(origin.of(1), 0);
        origin.raise(1, 700);
        assert_eq!((origin.of(1), origin.of(2)), (700, 0));
        origin.raise(2, 5);
        assert_eq!((origin.of(1), origin.of(2)), (0, 5));
    }
}
