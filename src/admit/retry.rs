//! When a refused client is told to come again, and the dice it takes. Shard thread; pure: the dice are seeded.

/// The longest a client is sent away for capacity, in seconds.
const SECONDS_MAX: u64 = 30;

/// Even, and predictable to who knows the seed: xorshift64 (Marsaglia 2003).
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// From 0 up to and without `end`, which must be above 0 and below 2^31: a second in nanoseconds.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) * end) >> 32
    }
}

/// See the module text.
#[derive(Clone, Debug)]
pub struct RetryAfter {
    dice: Dice,
}

impl RetryAfter {
    /// Dice of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed) }
    }

    /// Seconds to wait: what it takes to work off what is there (`drain_ns`), and then somewhere within as many seconds as
    /// the load exceeds what is admitted (`admit_share` parts per million of it). If all came back at the same second,
    /// the next one would be as full as this.
    pub fn seconds(&mut self, drain_ns: u64, admit_share: u64) -> u32 {
        let drain = drain_ns.div_ceil(1_000_000_000).clamp(1, SECONDS_MAX);
        let spread = (super::PPM / admit_share.max(1)).clamp(1, SECONDS_MAX);
        let seconds = drain + self.dice.below(spread + 1);
        u32::try_from(seconds.min(SECONDS_MAX)).expect("bounded above")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admit::PPM;

    #[test]
    fn waits_are_spread_over_the_excess_and_bounded() {
        let mut retry = RetryAfter::new(7);
        let mut counts = [0; 40];
        for _ in 0..6000 {
            counts[retry.seconds(0, PPM / 5) as usize] += 1;
        }
        assert_eq!(counts[0], 0, "never at once");
        assert!(counts[1..=6].iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        assert!(counts[7..].iter().all(|count| *count == 0));
        for _ in 0..1000 {
            assert!((20..=30).contains(&retry.seconds(20_000_000_000, 1)));
            assert_eq!(retry.seconds(u64::MAX, 0), 30);
        }
    }
}
