//! Whose turn it is when the server is the bottleneck: weighted max-min shares between tenants. Shard thread; pure.
//!
//! The budget's fill says how scarce work is, and sets one level for all: a tenant may have up to `weight × level`, where
//!
//! ```text
//! level = guaranteed / (1 - fill)      guaranteed = rate / weights of the tenants that ask
//! ```
//!
//! With an empty bucket everybody gets his guaranteed share, and the shares add up to the rate. The more there is left over,
//! the higher the level, until who wants more gets it: so the level comes to rest where demand below it and shares at it
//! add up to the rate, which is what max-min fairness means. Nothing is sorted and nobody is visited: a request looks at its
//! own tenant only, so ten thousand tenants cost what one costs.

use super::ewma::{Decay, TICK_NS};
use super::{PPM, REQUEST_WORK, TICK_NS as TICK};

/// A tenant asks as long as a request of his came within this or the last such time.
const EPOCH_NS: u64 = 100 * TICK_NS;
/// Ticks that [`Decay::SLOW`] averages over.
const SHARE_TICKS: u64 = 100;
/// Who has had less than this within the last 100 ms has not had his share, however small the shares are just now.
const LITTLE: u64 = 2 * REQUEST_WORK;
const _: () = assert!(TICK == TICK_NS);

/// What one tenant has had of one shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    /// Work within the last 100 ms, the older the lighter.
    recent: u64,
    at_tick: u64,
    epoch: u64,
}

impl Share {
    /// Work per tick, over 100 ms.
    fn rate(&mut self, now_ns: u64) -> u64 {
        let tick = now_ns / TICK_NS;
        self.recent = Decay::SLOW.apply(self.recent, tick.saturating_sub(self.at_tick));
        self.at_tick = tick;
        self.recent / SHARE_TICKS
    }

    /// Counts work he was given.
    pub fn charge(&mut self, now_ns: u64, work: u64) {
        self.rate(now_ns);
        self.recent = self.recent.saturating_add(work);
    }
}

/// See the module text.
#[derive(Clone, Debug, Default)]
pub struct FairShares {
    epoch: u64,
    weight_before: u64,
    weight_now: u64,
    /// Of those that ask now, who did not before.
    weight_joined: u64,
}

/// How a tenant stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody else asks.
    Alone,
    /// He has had less than his guaranteed share.
    Below,
    /// He has had more, and there is more for him.
    Above,
    /// He has had all there is for him.
    Exhausted,
}

impl FairShares {
    /// Takes in that the tenant with `share` and `weight` asks, and says how he stands with a budget that fills with `rate`
    /// work per tick and is `fill` parts per million full.
    pub fn ask(&mut self, now_ns: u64, share: &mut Share, weight: u32, rate: u64, fill: i64) -> Standing {
        let weight = u64::from(weight.max(1));
        // Epochs count from 2, so that a share never asked for is of none, nor of the one before the first.
        let epoch = now_ns / EPOCH_NS + 2;
        if epoch != self.epoch {
            self.weight_before = if epoch == self.epoch + 1 { self.weight_now } else { 0 };
            (self.weight_now, self.weight_joined) = (0, 0);
            self.epoch = epoch;
        }
        if share.epoch != epoch {
            self.weight_now += weight;
            // Who asks seldom is often the first of his epoch, and must not be taken for the only one.
            self.weight_joined += if share.epoch + 1 == epoch { 0 } else { weight };
            share.epoch = epoch;
        }
        let weights = self.weight_before + self.weight_joined;
        if weights <= weight {
            return Standing::Alone;
        }
        let guaranteed = u128::from(rate) * u128::from(weight) / u128::from(weights);
        let had = u128::from(share.rate(now_ns));
        let left = PPM as i64 - fill.clamp(0, PPM as i64);
        if had < guaranteed || share.recent < LITTLE {
            Standing::Below
        } else if had * left as u128 <= guaranteed * u128::from(PPM) {
            Standing::Above
        } else {
            Standing::Exhausted
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_without_company_is_alone_and_no_longer_when_another_asks() {
        let mut fair = FairShares::default();
        let (mut one, mut two) = (Share::default(), Share::default());
        assert_eq!(fair.ask(0, &mut one, 5, 1000, 0), Standing::Alone);
        assert_eq!(fair.ask(TICK_NS, &mut two, 5, 1000, 0), Standing::Below);
        assert_eq!(fair.ask(2 * TICK_NS, &mut one, 5, 1000, 0), Standing::Below);
        assert_eq!(fair.ask(EPOCH_NS, &mut one, 5, 1000, 0), Standing::Below, "the other asked an epoch ago");
        assert_eq!(fair.ask(2 * EPOCH_NS, &mut one, 5, 1000, 0), Standing::Alone);
        assert_eq!(fair.ask(90 * EPOCH_NS, &mut two, 5, 1000, 0), Standing::Alone);
    }

    #[test]
    fn who_asks_seldom_is_not_taken_for_the_only_one() {
        let mut fair = FairShares::default();
        let (mut often, mut seldom) = (Share::default(), Share::default());
        for epoch in 0..30 {
            let at_ns = epoch * EPOCH_NS;
            if epoch % 3 == 2 {
                assert_eq!(fair.ask(at_ns, &mut seldom, 1, 1000, 0), Standing::Below, "the first of his epoch");
                assert_eq!(fair.ask(at_ns, &mut seldom, 1, 1000, 0), Standing::Below, "and the second");
            }
            fair.ask(at_ns + 1, &mut often, 1, 1000, 0);
        }
    }

    #[test]
    fn the_level_rises_with_what_is_left_over() {
        let mut fair = FairShares::default();
        let (mut one, mut two) = (Share::default(), Share::default());
        fair.ask(0, &mut two, 1, 1000, 0);
        // 750 per tick, where 500 are guaranteed.
        one.charge(0, 75_000);
        assert_eq!(fair.ask(0, &mut one, 1, 1000, 0), Standing::Exhausted);
        assert_eq!(fair.ask(0, &mut one, 1, 1000, 300_000), Standing::Exhausted);
        assert_eq!(fair.ask(0, &mut one, 1, 1000, 400_000), Standing::Above);
        assert_eq!(fair.ask(0, &mut one, 1, 1000, PPM as i64), Standing::Above);
        let mut fair = FairShares::default();
        (one.epoch, two.epoch) = (0, 0);
        fair.ask(0, &mut two, 1, 1000, 0);
        assert_eq!(fair.ask(0, &mut one, 4, 1000, 0), Standing::Below, "with four times the weight it is not much");
    }
}
