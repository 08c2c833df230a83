//! How long a connection whose request was refused is not read. Shard thread; pure.
//!
//! Refusing costs, too: reading the request and answering it. A client that comes again at once can have a shard do
//! nothing but refuse. So refusing has a budget, a share of the core beside the target; while it costs more, each refused
//! connection is left unread for a while, so that TCP pushes back. That while grows until the budget holds and fades
//! when it does. It is never longer than the shortest `Retry-After`: who heeds that header never notices. Each hold is drawn
//! from half to one and a half times that while: connections that were refused in one turn would otherwise come back in one
//! turn, be refused together again, and leave the shard without anybody to serve in between.

use super::PPM;
use super::retry::Dice;

/// The longest hold: one second, the shortest `Retry-After`.
pub const HOLD_NS_MAX: u64 = 1_000_000_000;
/// The shortest that is worth two more submissions to the ring.
const HOLD_NS_MIN: u64 = 200_000;
/// Growth per tick and per budget exceeded: doubled in 70 ms at twice the budget. Twice as fast, it overshoots, and a shard
/// whose connections are all held has nothing to serve.
const GROWTH_PER_TICK: u64 = PPM / 100;
/// A tick counts as so many budgets exceeded at most.
const EXCESS_MAX: u64 = 2 * PPM;
/// Fading per tick: halved in 140 ms. Slower than growth, because too short a hold costs everybody and too long a hold
/// only those who do not wait.
const FADING_PER_TICK: u64 = PPM / 200;
/// After so many ticks even the longest hold has faded to nothing.
const TICKS_PER_STEP_MAX: u64 = 2000;

/// See the module text.
#[derive(Clone, Debug)]
pub struct Hold {
    budget: u64,
    ns: u64,
    dice: Dice,
}

impl Hold {
    /// For a budget in parts per million of a core; holds are drawn from `seed`.
    ///
    /// # Panics
    /// If it is 0.
    #[must_use]
    pub fn new(budget: u64, seed: u64) -> Self {
        assert!(budget > 0, "refusing is never free");
        Self { budget, ns: 0, dice: Dice::new(seed) }
    }

    /// Takes in the share of the core that refusing has been taking for a while: a burst is no reason to hold anybody, who
    /// may be the next to be served.
    pub fn step(&mut self, refusing: u64, ticks: u64) {
        for _ in 0..ticks.min(TICKS_PER_STEP_MAX) {
            if refusing > self.budget {
                let excess = ((refusing - self.budget) * PPM / self.budget).min(EXCESS_MAX);
                let from = self.ns.max(HOLD_NS_MIN);
                self.ns = (from + from * (GROWTH_PER_TICK * excess / PPM) / PPM).min(HOLD_NS_MAX);
            } else {
                self.ns -= self.ns * FADING_PER_TICK / PPM;
                if self.ns < HOLD_NS_MIN / 2 {
                    self.ns = 0;
                    return;
                }
            }
        }
    }

    /// Nanoseconds for which a connection that was just refused is to be left unread; 0: not at all.
    pub fn draw_ns(&mut self) -> u64 {
        if self.ns == 0 {
            return 0;
        }
        (self.ns / 2 + self.dice.below(self.ns + 1)).min(HOLD_NS_MAX)
    }

    /// What is drawn on average, but for the bound.
    #[must_use]
    pub fn ns(&self) -> u64 {
        self.ns
    }

    /// The budget, parts per million of a core.
    #[must_use]
    pub fn budget(&self) -> u64 {
        self.budget
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_its_budget_refusing_holds_nobody() {
        let mut hold = Hold::new(200_000, 5);
        hold.step(200_000, 10_000);
        assert_eq!(hold.ns(), 0);
    }

    #[test]
    fn beyond_it_holds_grow_to_their_bound_and_fade_again() {
        let mut hold = Hold::new(200_000, 5);
        hold.step(400_000, 70);
        assert!((380_000..440_000).contains(&hold.ns()), "doubled: {}", hold.ns());
        hold.step(1_000_000, 1000);
        assert_eq!(hold.ns(), HOLD_NS_MAX);
        hold.step(0, 140);
        assert!(hold.ns().abs_diff(HOLD_NS_MAX / 2) < 10_000_000, "halved: {}", hold.ns());
        hold.step(0, u64::MAX);
        assert_eq!(hold.ns(), 0);
    }

    #[test]
    fn holds_are_spread_and_bounded() {
        let mut hold = Hold::new(200_000, 5);
        assert_eq!(hold.draw_ns(), 0);
        hold.step(400_000, 70);
        let (mean, drawn) = (hold.ns(), (0..4000).map(|_| hold.draw_ns()).collect::<Vec<_>>());
        assert!(drawn.iter().all(|ns| (mean / 2..=mean * 3 / 2).contains(ns)));
        assert!((drawn.iter().sum::<u64>() / 4000).abs_diff(mean) < mean / 50);
        for part in 0..4 {
            let from = mean / 2 + part * mean / 4;
            assert!(drawn.iter().filter(|ns| (from..from + mean / 4).contains(ns)).count().abs_diff(1000) < 150);
        }
        hold.step(PPM, 10_000);
        assert!((0..1000).all(|_| (HOLD_NS_MAX / 2..=HOLD_NS_MAX).contains(&hold.draw_ns())));
    }
}
