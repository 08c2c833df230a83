//! A tenant's rate limit, split over shards without a lock and without lending. Shard threads; pure but for counters that
//! one thread writes and all read.
//!
//! There is one bucket per tenant, and it is nowhere: it is computed. Every shard publishes what it has let a tenant use, a
//! counter that it alone writes, and what it found when it last looked at his bucket. A look takes the freshest such
//! finding of any shard, adds what the rate brought since and takes off what all counters grew by since: so every shard
//! finds the same level, at most once a millisecond and tenant, and only when a request of his comes. A tenant
//! whose connections all sit on one shard has his whole rate there; one who is everywhere has it once and not once per
//! shard. What shards use before they see each other's counters is a debt that the next look finds: the average over time
//! is exact, and what a burst can exceed is bounded by what is granted between two looks.
//!
//! A grant is the part of the level that a shard's part of the recent use suggests, and at least 1/shards: busy
//! shards do not each spend the whole level at once.

use std::sync::atomic::{AtomicU64, Ordering};

/// A look at other shards' counters lasts this long: each costs a cache miss per shard.
const LOOK_NS: u64 = 1_000_000;
/// A grant not used by then is void: others may have used it since.
const GRANT_NS: u64 = 10_000_000;
const NS_PER_S: i128 = 1_000_000_000;

/// A limit: so much per second, and so much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Per second.
    pub per_second: u64,
    /// At once.
    pub burst: u64,
}

/// What one shard let one tenant do, since the start, and what it found of his limits. Written by that shard only.
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
    /// What the shard found when it last looked at his bucket of events.
    pub events_found: Found,
    /// The same of his bucket of bytes.
    pub bytes_found: Found,
}

/// What a shard found when it looked at a bucket.
#[derive(Debug, Default)]
pub struct Found {
    /// When it looked, nanoseconds on the clock that shards share; 0: it has not.
    looked_ns: AtomicU64,
    /// When the bucket would be full again, on the same clock.
    full_at_ns: AtomicU64,
    /// The sum of all shards' counters then.
    seen_all: AtomicU64,
}

/// A count that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`. Only the owning thread calls this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The count now, or shortly before. Relaxed: a limit needs numbers that only grow, not an order between them.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All shards' counters of all tenants, by shard and tenant number.
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

    /// One count of `tenant`, over all shards.
    #[must_use]
    pub fn sum(&self, tenant: usize, count: fn(&Use) -> &Count) -> u64 {
        self.0.iter().map(|shard| count(&shard[tenant]).get()).fold(0, u64::wrapping_add)
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

/// A tenant who has used up his limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// What he may use per second.
    pub limit: u64,
    /// What he may use now: 0, or what other shards' requests may still get.
    pub remaining: u64,
    /// Seconds until he may use something again, at least 1.
    pub retry_after_s: u32,
    /// Seconds until he may use all of his burst again.
    pub reset_s: u32,
}

/// What shards publish of one limit of one tenant.
#[derive(Clone, Copy)]
pub struct Published<'a> {
    uses: &'a Uses,
    shard: usize,
    tenant: usize,
    used: fn(&Use) -> &Count,
    found: fn(&Use) -> &Found,
}

impl<'a> Published<'a> {
    /// The limit on events, as `shard` looks at it.
    #[must_use]
    pub fn events(uses: &'a Uses, shard: usize, tenant: usize) -> Self {
        Self { uses, shard, tenant, used: |of| &of.events, found: |of| &of.events_found }
    }

    /// The limit on bytes, as `shard` looks at it.
    #[must_use]
    pub fn bytes(uses: &'a Uses, shard: usize, tenant: usize) -> Self {
        Self { uses, shard, tenant, used: |of| &of.bytes, found: |of| &of.bytes_found }
    }

    fn own(&self) -> u64 {
        (self.used)(self.uses.of(self.shard, self.tenant)).get()
    }

    /// The freshest finding of any shard: when it looked, when the bucket would be full, and what was used by then.
    fn freshest(&self) -> Option<(u64, u64, u64)> {
        let findings = self.uses.0.iter().map(|shard| (self.found)(&shard[self.tenant]));
        let freshest = findings.max_by_key(|found| found.looked_ns.load(Ordering::Relaxed))?;
        // Acquire pairs with the Release in `publish`: the two others are of this look or a later one. Of a later one they
        // miss what was used in between, one grant at most.
        let looked_ns = freshest.looked_ns.load(Ordering::Acquire);
        let (full_at, seen) = (freshest.full_at_ns.load(Ordering::Relaxed), freshest.seen_all.load(Ordering::Relaxed));
        (looked_ns > 0).then_some((looked_ns, full_at, seen))
    }

    fn publish(&self, now_ns: u64, full_at_ns: u64, seen_all: u64) {
        let found = (self.found)(self.uses.of(self.shard, self.tenant));
        found.full_at_ns.store(full_at_ns, Ordering::Relaxed);
        found.seen_all.store(seen_all, Ordering::Relaxed);
        found.looked_ns.store(now_ns.max(1), Ordering::Release);
    }
}

/// One shard's view of one tenant's bucket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// At the last look, in 10^-9 units, so that any rate is exact at a resolution of a nanosecond.
    level: i128,
    /// Nothing was looked at before 1.
    looked_ns: u64,
    /// The counters at the last look: of all shards, and of this one.
    seen_all: u64,
    seen_own: u64,
    /// Up to this count of its own the shard need not look.
    granted: u64,
}

impl Bucket {
    /// Whether one more request may begin, at `now_ns` on the clock that shards share.
    ///
    /// # Errors
    /// [`Over`], with what to tell the client.
    pub fn check(&mut self, now_ns: u64, rate: Rate, published: Published<'_>) -> Result<(), Over> {
        let own = published.own();
        let age_ns = now_ns.saturating_sub(self.looked_ns);
        let began = self.looked_ns > 0;
        if began && age_ns < GRANT_NS && own < self.granted {
            return Ok(());
        }
        // After a look that granted nothing, the next one may wait: a client in a tight loop shall not cost cache misses.
        let was_in_vain = self.granted <= self.seen_own;
        if !began || age_ns >= LOOK_NS || !was_in_vain {
            self.look(now_ns, rate, own, published);
        }
        if own < self.granted { Ok(()) } else { Err(self.over(rate)) }
    }

    fn look(&mut self, now_ns: u64, rate: Rate, own: u64, published: Published<'_>) {
        let burst = i128::from(rate.burst.max(1)) * NS_PER_S;
        let per_second = i128::from(rate.per_second.max(1));
        let all = published.uses.sum(published.tenant, published.used);
        self.level = match published.freshest() {
            None => burst,
            Some((_, full_at_ns, seen_all)) => {
                let missing = per_second * i128::from(full_at_ns.saturating_sub(now_ns));
                burst - missing - i128::from(all.saturating_sub(seen_all)) * NS_PER_S
            }
        };
        let missing_ns = u64::try_from((burst - self.level) / per_second).unwrap_or(u64::MAX);
        published.publish(now_ns, now_ns.saturating_add(missing_ns), all);
        let units = (self.level.max(0) + NS_PER_S - 1) / NS_PER_S;
        let even = units / published.uses.shards().max(1) as i128;
        let (used_all, used_own) = (all.saturating_sub(self.seen_all), own.saturating_sub(self.seen_own));
        let by_use = if used_all == 0 { 0 } else { units * i128::from(used_own) / i128::from(used_all) };
        // At least one, as long as there is any: a level of half a request must not be granted to nobody.
        let grant = even.max(by_use).max(i128::from(units > 0));
        self.granted = own.saturating_add(u64::try_from(grant).unwrap_or(u64::MAX));
        (self.seen_all, self.seen_own, self.looked_ns) = (all, own, now_ns.max(1));
    }

    fn over(&self, rate: Rate) -> Over {
        let per_second = i128::from(rate.per_second.max(1));
        let seconds = |units: i128| {
            let ns = units.max(0) / per_second;
            u32::try_from((ns + NS_PER_S - 1) / NS_PER_S).unwrap_or(u32::MAX)
        };
        Over {
            limit: rate.per_second,
            remaining: u64::try_from(self.level.max(0) / NS_PER_S).unwrap_or(u64::MAX),
            retry_after_s: seconds(-self.level).max(1),
            reset_s: seconds(i128::from(rate.burst) * NS_PER_S - self.level),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Requests of `events` each, on the shards that `place` picks, offered `offered` a second; events let through in each
    /// second.
    fn run(shards: usize, rate: Rate, events: u64, offered: u64, place: impl Fn(u64) -> usize) -> Vec<u64> {
        let uses = Uses::new(shards, 1);
        let mut buckets = vec![Bucket::default(); shards];
        let mut seconds = Vec::new();
        for request in 0..offered * 6 {
            let now_ns = request * 1_000_000_000 / offered;
            let shard = place(request);
            if buckets[shard].check(now_ns, rate, Published::events(&uses, shard, 0)).is_ok() {
                uses.of(shard, 0).events.add(events);
            }
            if (request + 1).is_multiple_of(offered) {
                seconds.push(uses.sum(0, |used| &used.events) - seconds.iter().sum::<u64>());
            }
        }
        seconds
    }

    #[test]
    fn the_sum_over_shards_is_the_rate_wherever_the_connections_sit() {
        let rate = Rate { per_second: 20_000, burst: 20_000 };
        type Place = fn(u64) -> usize;
        let places: [(&str, Place); 4] = [
            ("on one shard", |_| 3),
            ("on all in turn", |request| (request % 8) as usize),
            ("on two, unevenly", |request| usize::from(request % 10 == 0)),
            ("moving", |request| (request / 3000 % 8) as usize),
        ];
        for (name, place) in places {
            for (events, offered) in [(1, 50_000), (10, 4_000), (100, 1_000)] {
                let seconds = run(8, rate, events, offered, place);
                for (second, let_through) in seconds.iter().enumerate().skip(1) {
                    let wrong = let_through.abs_diff(rate.per_second);
                    assert!(wrong <= rate.per_second / 20, "{name}, {events} each, second {second}: {let_through}");
                }
                let first = seconds[0];
                assert!((20_000..=42_000).contains(&first), "{name}: the burst and a second's rate: {first}");
            }
        }
    }

    #[test]
    fn below_the_limit_nothing_is_refused() {
        let rate = Rate { per_second: 20_000, burst: 2_000 };
        for place in [|_| 0, |request: u64| (request % 4) as usize] {
            assert_eq!(run(4, rate, 10, 1_900, place), [19_000; 6]);
        }
    }

    #[test]
    fn a_refused_tenant_is_told_when_to_come_again() {
        let rate = Rate { per_second: 100, burst: 50 };
        let (uses, mut bucket) = (Uses::new(1, 1), Bucket::default());
        let mut check = |now_ns| bucket.check(now_ns, rate, Published::bytes(&uses, 0, 0));
        check(490 * MS).unwrap();
        // One request brought 400: the burst and three and a half seconds of debt.
        uses.of(0, 0).bytes.add(400);
        let over = check(500 * MS).unwrap_err();
        assert_eq!(over, Over { limit: 100, remaining: 0, retry_after_s: 4, reset_s: 4 });
        assert!(check(3_900 * MS).is_err());
        assert!(check(4_100 * MS).is_ok());
    }

    #[test]
    fn a_client_in_a_tight_loop_does_not_make_the_shard_look() {
        let rate = Rate { per_second: 1, burst: 1 };
        let (uses, mut bucket) = (Uses::new(1, 1), Bucket::default());
        bucket.check(0, rate, Published::events(&uses, 0, 0)).unwrap();
        uses.of(0, 0).events.add(5);
        let mut looks = 0;
        for us in 0..10_000 {
            let before = bucket.looked_ns;
            bucket.check(100 + us * 1000, rate, Published::events(&uses, 0, 0)).unwrap_err();
            looks += u32::from(bucket.looked_ns != before);
        }
        assert!((1..=12).contains(&looks), "{looks} looks in 10 ms");
    }
}
