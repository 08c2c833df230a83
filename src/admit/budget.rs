//! The work a shard may still take on: a bucket that fills at the controller's rate. Shard thread; pure.
//!
//! How full it is decides who gets in. A request is admitted while the level is above a floor and paid for as it is
//! taken on, so a long body may leave a debt that later requests wait for: it is the average that counts. Priorities are
//! floors: what is low needs half a bucket, what is high may go into debt. So low is shed first, without anybody counting
//! how much of each there is.
//!
//! A single piece of work larger than the bucket is owed beyond it: a few hundred bytes may decompress to the longest body,
//! and if that were forgiven, requests of more than a bucket each would have the whole core, whatever the target. Who has
//! had less than his share does not wait for that.

use super::{PPM, REQUEST_WORK};

/// Ticks of work the full bucket holds: what may come at once beyond the rate. More would let a burst overshoot the
/// target for longer than its fast mean looks back; less would refuse what one turn of a busy loop brings.
pub const BURST_TICKS: u64 = 25;

/// The bucket holds this many requests' worth at least. A turn that was cut short by other threads of its core makes the rate
/// a fraction of what it was for a while; a bucket in proportion would be in full debt after one request.
const BURST_MIN: u64 = 16 * REQUEST_WORK;

/// The fastest rate told apart from a faster one, so that 64 bits are enough for every product: 4 TB of bodies per second.
const RATE_MAX: u64 = i64::MAX as u64 / PPM / BURST_TICKS / (2 * (OWED_MAX as u64 + 1));

/// Buckets that are owed at most: a second of work. Nobody is shut out for longer by one body of another.
const OWED_MAX: i64 = 1000 / BURST_TICKS as i64;

/// See the module text. The level is in units of work; the same below 0.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    level: i64,
    burst: i64,
    /// Beyond the bucket's debt; paid once the bucket is full.
    owed: i64,
    /// What the last refill left over, in units times nanoseconds per tick: at low rates it is all there is.
    carry: u64,
}

impl Budget {
    /// Adds what `elapsed_ns` at `rate` per tick bring.
    pub fn refill(&mut self, rate: u64, elapsed_ns: u64) {
        let rate = rate.min(RATE_MAX);
        let burst = (rate * BURST_TICKS).max(BURST_MIN) as i64;
        if self.burst == 0 {
            // The first rate ever: what was before nobody counted.
            self.level = burst;
        } else if burst != self.burst {
            // Keep how full it is, not how much: the rate says what a unit is worth.
            let scaled = |units: i64| (i128::from(units) * i128::from(burst) / i128::from(self.burst)) as i64;
            self.level = scaled(self.level);
            if self.owed > 0 {
                self.owed = scaled(self.owed);
            }
        }
        self.burst = burst;
        if self.owed > 0 {
            self.pay(rate, elapsed_ns);
        }
        // Of longer times the bucket is full: its debt is one bucket at most.
        let elapsed_ns = elapsed_ns.min(2 * BURST_TICKS * super::TICK_NS);
        if elapsed_ns > 0 {
            let more = rate * elapsed_ns + self.carry;
            self.carry = more % super::TICK_NS;
            self.level = (self.level + (more / super::TICK_NS) as i64).min(burst);
        }
    }

    /// Pays what is owed with what comes beyond a full bucket.
    fn pay(&mut self, rate: u64, elapsed_ns: u64) {
        let more = (u128::from(rate) * u128::from(elapsed_ns)).div_ceil(u128::from(super::TICK_NS));
        let room = i128::from(self.burst - self.level);
        let left = i128::from(self.owed) - (i128::try_from(more).unwrap_or(i128::MAX) - room).max(0);
        self.owed = left.max(0) as i64;
    }

    /// Takes `work` out. The debt ends at one bucket, beyond which the controller's integral remembers; but what is larger
    /// than the bucket by itself is owed.
    pub fn charge(&mut self, work: u64) {
        let work = i64::try_from(work).unwrap_or(i64::MAX);
        let level = self.level.saturating_sub(work);
        self.level = level.max(-self.burst);
        if work > self.burst {
            let beyond = (self.level - level).min(work - self.burst);
            self.owed = self.owed.saturating_add(beyond).min(OWED_MAX * self.burst);
        }
    }

    /// How full it is for whoever has had his share: up to [`PPM`], below 0 for debt, what is owed included.
    #[must_use]
    pub fn fill(&self) -> i64 {
        self.share_of_bucket(self.level - self.owed)
    }

    /// How full it is for whoever has not: from -[`PPM`], a full bucket of debt, to [`PPM`].
    #[must_use]
    pub fn fill_of_bucket(&self) -> i64 {
        self.share_of_bucket(self.level)
    }

    /// Before there is a rate it is full.
    fn share_of_bucket(&self, units: i64) -> i64 {
        if self.burst == 0 { PPM as i64 } else { units * PPM as i64 / self.burst }
    }

    /// Time until the debt is paid, at `rate` per tick, in nanoseconds.
    #[must_use]
    pub fn paid_in_ns(&self, rate: u64) -> u64 {
        let debt = u128::from((self.level - self.owed).min(0).unsigned_abs());
        u64::try_from(debt * u128::from(super::TICK_NS) / u128::from(rate.max(1))).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admit::TICK_NS;

    /// Fast enough that the bucket is of ticks.
    const RATE: u64 = 100_000;

    #[test]
    fn it_fills_at_the_rate_up_to_the_burst_and_debts_are_paid() {
        let mut budget = Budget::default();
        assert_eq!(budget.fill(), PPM as i64, "without a rate there is no bound");
        budget.refill(RATE, 0);
        budget.charge(RATE * BURST_TICKS);
        assert_eq!((budget.fill(), budget.paid_in_ns(RATE)), (0, 0));
        budget.charge(10 * RATE);
        assert_eq!(budget.fill(), -400_000);
        assert_eq!(budget.paid_in_ns(RATE), 10 * TICK_NS);
        budget.refill(RATE, 15 * TICK_NS);
        assert_eq!(budget.fill(), 200_000);
        budget.refill(RATE, u64::MAX);
        assert_eq!(budget.fill(), PPM as i64);
        // Small ones beyond a bucket of debt are forgiven.
        (0..100).for_each(|_| budget.charge(RATE));
        assert_eq!((budget.fill(), budget.fill_of_bucket()), (-(PPM as i64), -(PPM as i64)));
    }

    #[test]
    fn one_that_is_larger_than_the_bucket_is_paid_in_full_by_those_who_have_had_their_share() {
        let mut budget = Budget::default();
        budget.refill(RATE, 0);
        budget.charge(RATE * 100);
        let fills = |budget: &Budget| (budget.fill(), budget.fill_of_bucket());
        assert_eq!((fills(&budget), budget.paid_in_ns(RATE)), ((-3_000_000, -1_000_000), 75 * TICK_NS));
        budget.refill(RATE, 25 * TICK_NS);
        assert_eq!(fills(&budget), (-2_000_000, 0));
        // A new rate leaves it as it was.
        budget.refill(2 * RATE, 0);
        assert_eq!(fills(&budget), (-2_000_000, 0));
        budget.refill(RATE, 0);
        (0..500).for_each(|_| budget.refill(RATE, TICK_NS / 10));
        assert_eq!(fills(&budget), (0, 1_000_000));
        budget.refill(RATE, 25 * TICK_NS);
        assert_eq!(fills(&budget), (1_000_000, 1_000_000));
        budget.charge(u64::MAX);
        assert_eq!(budget.fill(), -(1 + OWED_MAX) * PPM as i64, "a second, and the bucket");
        budget.refill(RATE, 3_600_000 * TICK_NS);
        assert_eq!(fills(&budget), (1_000_000, 1_000_000), "all is paid in an hour");
    }

    #[test]
    fn a_low_rate_asked_often_still_fills_it_and_one_request_does_not_empty_it() {
        let mut budget = Budget::default();
        budget.refill(100, 0);
        budget.charge(REQUEST_WORK);
        assert_eq!(budget.fill(), PPM as i64 * 15 / 16);
        // A microsecond at a time, a tenth of a unit each.
        (0..1_000 * REQUEST_WORK / 200).for_each(|_| budget.refill(100, TICK_NS / 1000));
        let half_paid = BURST_MIN as i64 - REQUEST_WORK as i64 + REQUEST_WORK as i64 / 2;
        assert_eq!(budget.fill(), half_paid * PPM as i64 / BURST_MIN as i64);
    }

    #[test]
    fn a_new_rate_leaves_it_as_full_as_it_was() {
        let mut budget = Budget::default();
        budget.refill(RATE, 0);
        budget.charge(RATE / 2 * BURST_TICKS);
        for rate in [1, 3, u64::MAX / BURST_TICKS, 40_000] {
            budget.refill(rate, 0);
            assert!(budget.fill().abs_diff(500_000) < 30_000, "{rate}: {}", budget.fill());
        }
    }
}
