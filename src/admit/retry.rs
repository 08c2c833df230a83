//! When a refused client is told to come again. Shard thread; pure: its dice are seeded.

/// The longest a client is sent away for capacity, in seconds.
const SECONDS_MAX: u64 = 30;

/// See the module text.
#[derive(Clone, Debug)]
pub struct RetryAfter {
    dice: u64,
}

impl RetryAfter {
    /// Dice of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { dice: seed | 1 }
    }

    /// Seconds to wait: what it takes to work off what is there (`drain_ns`), and then somewhere within as many seconds as
    /// the load exceeds what is admitted (`admit_share` parts per million of it). If all came back at the same second,
    /// the next one would be as full as this.
    pub fn seconds(&mut self, drain_ns: u64, admit_share: u64) -> u32 {
        // xorshift64 (Marsaglia 2003): the spread must be even, not unpredictable.
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        let drain = drain_ns.div_ceil(1_000_000_000).clamp(1, SECONDS_MAX);
        let spread = (super::PPM / admit_share.max(1)).clamp(1, SECONDS_MAX);
        let seconds = drain + (self.dice >> 32) % (spread + 1);
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
