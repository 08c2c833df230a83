//! A tenant's rate limit, split over shards without a lock and without lending. Shard threads, and the control thread when a
//! limit changes; pure but for numbers that one thread writes and all read.
//!
//! There is one bucket per tenant, and it is nowhere: it is computed. It has an *origin*, and is full again `used / rate` after
//! that, where `used` is all that he ever used: so a use puts this time off by what it takes to bring as much again. While
//! the bucket is full the origin moves on with time, because what the rate brings then is lost. What was used every shard
//! can add up, since each counts what it let him use ([`super::uses`]); and each publishes the latest origin that it knows,
//! of which the latest is the bucket's, whoever looked last. A tenant whose connections all sit on one shard has his whole
//! rate there; one who is everywhere has it once and not once per shard.
//!
//! The origin must have moved before something is used, else idle time would count for nothing: a shard looks before it books a
//! use, unless it looked within 10 ms. What the rate brought to a full bucket since is then not lost yet, so it may hold
//! what the rate brings in 10 ms more than its burst, once and not once per look. It never holds less.
//!
//! A request's look gives the shard a grant: the part of the level that its part of the recent use suggests, and at least
//! 1/shards, so that busy shards do not each spend the whole level at once. Until the grant is used up or 10 ms old requests
//! need no look. What shards use before they see each other's counts is a debt that the next look finds: the average over
//! time is exact, and what a burst can exceed is what is granted between two looks, and what requests bring that were let
//! in before the first of them was over.

use super::uses::{Count, Origin, Use, Uses};

/// A look at other shards' counters lasts this long if it granted nothing: each costs a cache miss per shard.
const LOOK_NS: u64 = 1_000_000;
/// A look counts for so long: then a grant not used is void, since others may have used it, and a use is not booked on it.
const GRANT_NS: u64 = 10_000_000;
const NS_PER_S: u64 = 1_000_000_000;

/// So much per second, and so much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Per second.
    pub per_second: u64,
    /// At once.
    pub burst: u64,
}

impl Rate {
    /// Nanoseconds in which it brings `units`, rounded down.
    fn ns_of(self, units: u64) -> u64 {
        let ns = u128::from(units) * u128::from(NS_PER_S) / u128::from(self.per_second.max(1));
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// What it brings in `ns`, rounded up.
    fn units_in(self, ns: u64) -> u64 {
        let units = (u128::from(ns) * u128::from(self.per_second.max(1))).div_ceil(u128::from(NS_PER_S));
        u64::try_from(units).unwrap_or(u64::MAX)
    }
}

/// A rate that is in force, and where its bucket began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The rate.
    pub rate: Rate,
    /// The number of the table that brought it: origins published under another limit do not count.
    epoch: u64,
    /// The bucket's first origin.
    origin_ns: u64,
    /// All shards' count then: what came before does not count.
    used_before: u64,
}

impl Limit {
    /// A limit that the table number `epoch` brings, with a full bucket, for a tenant who has used nothing.
    #[must_use]
    pub fn new(rate: Rate, epoch: u64) -> Self {
        Self { rate, epoch, origin_ns: 0, used_before: 0 }
    }

    /// This limit, taking the place of `old` at `now_ns`. The same rate goes on as it was. Where there was no limit the bucket is
    /// full, whatever was used. Otherwise as many units are missing as were before: of the burst all but one at most, and
    /// beside that what he had to wait for before he might use one, which is brought at the higher of the two rates, so
    /// that nobody waits longer than he was told.
    #[must_use]
    pub fn following(self, old: Option<Self>, now_ns: u64, published: Published<'_>) -> Self {
        let Some(old) = old else { return Self { used_before: published.used(), ..self } };
        if old.rate == self.rate {
            return old;
        }
        let Standing { all, missing_ns, .. } = published.standing(&old, now_ns);
        let missing = old.rate.units_in(missing_ns);
        let of_burst = missing.min(old.rate.burst.max(1) - 1);
        let fastest = if old.rate.per_second > self.rate.per_second { old.rate } else { self.rate };
        let wait_ns = fastest.ns_of(missing - of_burst);
        let missing_ns = wait_ns.saturating_add(self.rate.ns_of(of_burst.min(self.rate.burst.max(1) - 1)));
        Self { origin_ns: now_ns.saturating_add(missing_ns), used_before: all, ..self }
    }
}

/// What a limit is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Events stored or refused as invalid.
    Events,
    /// Bytes of bodies as they came.
    Bytes,
}

/// A tenant who has used up his limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// Which of his limits.
    pub of: Measure,
    /// What he may use per second.
    pub limit: u64,
    /// What he may use now: 0, or what other shards' requests may still get.
    pub remaining: u64,
    /// Seconds until he may use something again, at least 1.
    pub retry_after_s: u32,
    /// Seconds until he may use all of his burst again.
    pub reset_s: u32,
}

impl Over {
    /// Of two limits that are used up, the one that is so for longer: before that, coming again is of no use.
    #[must_use]
    pub fn longer(self, other: Self) -> Self {
        let wait = |over: &Self| (over.retry_after_s, over.reset_s);
        if wait(&other) > wait(&self) { other } else { self }
    }
}

/// What shards publish of one limit of one tenant.
#[derive(Clone, Copy)]
pub struct Published<'a> {
    uses: &'a Uses,
    shard: usize,
    tenant: usize,
    measure: Measure,
}

/// Where a bucket stands.
struct Standing {
    /// What all shards let him use.
    all: u64,
    origin_ns: u64,
    /// Until it is full.
    missing_ns: u64,
}

impl<'a> Published<'a> {
    /// What there is of the limit on `measure`, as `shard` looks at it.
    #[must_use]
    pub fn new(uses: &'a Uses, shard: usize, tenant: usize, measure: Measure) -> Self {
        Self { uses, shard, tenant, measure }
    }

    fn count(&self) -> fn(&Use) -> &Count {
        match self.measure {
            Measure::Events => |of| &of.events,
            Measure::Bytes => |of| &of.bytes,
        }
    }

    fn origin<'b>(&self, of: &'b Use) -> &'b Origin {
        match self.measure {
            Measure::Events => &of.events_origin,
            Measure::Bytes => &of.bytes_origin,
        }
    }

    fn own(&self) -> u64 {
        self.count()(self.uses.of(self.shard, self.tenant)).get()
    }

    fn used(&self) -> u64 {
        self.uses.sum(self.tenant, self.count())
    }

    fn standing(&self, limit: &Limit, now_ns: u64) -> Standing {
        // Counts first: who sees a use then sees the origin that was raised before it.
        let all = self.used();
        let used_ns = limit.rate.ns_of(all.saturating_sub(limit.used_before));
        let known_ns = self.uses.each(self.tenant).map(|of| self.origin(of).of(limit.epoch)).max().unwrap_or(0);
        let origin_ns = known_ns.max(limit.origin_ns).max(now_ns.saturating_sub(used_ns));
        Standing { all, origin_ns, missing_ns: origin_ns.saturating_add(used_ns).saturating_sub(now_ns) }
    }

    fn raise(&self, limit: &Limit, origin_ns: u64) {
        self.origin(self.uses.of(self.shard, self.tenant)).raise(limit.epoch, origin_ns);
    }
}

/// One shard's view of one tenant's bucket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// As it was when a request was last checked; `None`: there was none.
    limit: Option<Limit>,
    /// Nothing was looked at before 1.
    looked_ns: u64,
    /// Until the bucket is full, at the last look.
    missing_ns: u64,
    /// The counters at the last look: of all shards, and of this one.
    seen_all: u64,
    seen_own: u64,
    /// Up to this count of its own the shard need not look.
    granted: u64,
}

impl Bucket {
    /// Whether one more request may begin under `limit`, at `now_ns` on the clock that shards share.
    ///
    /// # Errors
    /// [`Over`], with what to tell the client.
    #[inline]
    pub fn check(&mut self, now_ns: u64, limit: Option<&Limit>, published: Published<'_>) -> Result<(), Over> {
        if limit.is_none() && self.limit.is_none() { Ok(()) } else { self.check_limit(now_ns, limit, published) }
    }

    fn check_limit(&mut self, now_ns: u64, limit: Option<&Limit>, published: Published<'_>) -> Result<(), Over> {
        if self.limit.map(|known| known.epoch) != limit.map(|limit| limit.epoch) {
            *self = Self { limit: limit.copied(), ..Self::default() };
        }
        let Some(limit) = self.limit else { return Ok(()) };
        let own = published.own();
        let age_ns = now_ns.saturating_sub(self.looked_ns);
        let began = self.looked_ns > 0;
        if began && age_ns < GRANT_NS && own < self.granted {
            return Ok(());
        }
        // After a look that granted nothing, the next one may wait: a client in a tight loop shall not cost cache misses.
        let was_in_vain = self.granted <= self.seen_own;
        if !began || age_ns >= LOOK_NS || !was_in_vain {
            self.look(now_ns, &limit, own, published);
        }
        if own < self.granted { Ok(()) } else { Err(self.over(limit.rate, published.measure)) }
    }

    /// To be called before a use is booked, at `now_ns`: so that the time before it counts for what it was. A request that came
    /// under an earlier limit than the present one may be booked without; then what the rate brought since the limit
    /// changed pays for it, even if the bucket was full.
    #[inline]
    pub fn before_use(&mut self, now_ns: u64, published: Published<'_>) {
        if let Some(limit) = self.limit
            && now_ns.saturating_sub(self.looked_ns) >= GRANT_NS
        {
            self.look(now_ns, &limit, published.own(), published);
        }
    }

    fn look(&mut self, now_ns: u64, limit: &Limit, own: u64, published: Published<'_>) {
        let Standing { all, origin_ns, missing_ns } = published.standing(limit, now_ns);
        published.raise(limit, origin_ns);
        self.missing_ns = missing_ns;
        let units = self.units(limit.rate);
        let even = units / published.uses.shards().max(1) as u64;
        let (used_all, used_own) = (all.saturating_sub(self.seen_all), own.saturating_sub(self.seen_own));
        let by_use = u128::from(units) * u128::from(used_own) / u128::from(used_all.max(1));
        // At least one, as long as there is any: fewer units than shards must not be granted to nobody.
        let grant = even.max(u64::try_from(by_use).unwrap_or(u64::MAX)).max(u64::from(units > 0));
        self.granted = own.saturating_add(grant);
        (self.seen_all, self.seen_own, self.looked_ns) = (all, own, now_ns.max(1));
    }

    /// Whole units that were in it at the last look. A part of one is none: else a burst of one event would be two.
    fn units(&self, rate: Rate) -> u64 {
        rate.burst.max(1).saturating_sub(rate.units_in(self.missing_ns))
    }

    fn over(&self, rate: Rate, of: Measure) -> Over {
        let wait_ns = self.missing_ns.saturating_sub(rate.ns_of(rate.burst.max(1) - 1));
        let seconds = |ns: u64| u32::try_from(ns.div_ceil(NS_PER_S)).unwrap_or(u32::MAX);
        Over {
            of,
            limit: rate.per_second,
            remaining: self.units(rate),
            retry_after_s: seconds(wait_ns).max(1),
            reset_s: seconds(self.missing_ns),
        }
    }
}

#[cfg(test)]
#[path = "limit_tests.rs"]
mod tests;
