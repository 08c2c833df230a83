//! Exponentially weighted means over ticks of a millisecond. Pure; integers, so that every host computes the same.

/// One tick, in nanoseconds.
pub const TICK_NS: u64 = 1_000_000;

/// Fraction bits of a [`Decay`].
const DECAY_BITS: u32 = 32;
/// Fraction bits of a [`Mean`]: a mean of small counts must not stick at an integer.
const VALUE_BITS: u32 = 16;

/// What is left of an old value after one tick, in 2^-32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decay(u64);

impl Decay {
    /// A time constant of 10 ms: e^(-1/10).
    pub const FAST: Self = Self(3_886_247_119);
    /// A time constant of 100 ms: e^(-1/100).
    pub const SLOW: Self = Self(4_252_231_657);

    /// What is left after `ticks` ticks, in 2^-32; exact to a few units, at a cost that grows with the logarithm of
    /// `ticks`: a shard that slept for an hour wakes as fast as one that slept for a second.
    #[must_use]
    pub const fn over(self, ticks: u64) -> u64 {
        let (mut left, mut power, mut result) = (ticks, self.0, 1 << DECAY_BITS);
        while left > 0 && result > 0 {
            if left & 1 == 1 {
                result = (result * power) >> DECAY_BITS;
            }
            power = (power * power) >> DECAY_BITS;
            left >>= 1;
        }
        result
    }

    /// `value` after `ticks` ticks without more.
    #[must_use]
    pub fn apply(self, value: u64, ticks: u64) -> u64 {
        ((u128::from(value) * u128::from(self.over(ticks))) >> DECAY_BITS) as u64
    }
}

/// A mean of samples, the newer the heavier.
#[derive(Clone, Copy, Debug)]
pub struct Mean {
    value: u64,
    decay: Decay,
}

impl Mean {
    /// A mean of 0 so far.
    #[must_use]
    pub const fn new(decay: Decay) -> Self {
        Self { value: 0, decay }
    }

    /// Takes in that the measured value was `sample` (below 2^47) for the last `ticks` ticks.
    pub fn take(&mut self, sample: u64, ticks: u64) {
        let sample = sample.min((1 << 47) - 1) << VALUE_BITS;
        let old = self.decay.apply(self.value, ticks);
        self.value = old + (sample - self.decay.apply(sample, ticks));
    }

    /// The mean, rounded.
    #[must_use]
    pub const fn get(&self) -> u64 {
        (self.value + (1 << (VALUE_BITS - 1))) >> VALUE_BITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_is_its_own_mean_and_steps_settle_with_their_time_constant() {
        for (decay, ticks) in [(Decay::FAST, 10), (Decay::SLOW, 100)] {
            let mut mean = Mean::new(decay);
            mean.take(670_000, ticks);
            // 1 - 1/e = 0.632.
            assert!((423_000..424_000).contains(&mean.get()), "{}", mean.get());
            mean.take(670_000, 30 * ticks);
            assert!((669_990..=670_000).contains(&mean.get()), "{}", mean.get());
            mean.take(0, 3_600_000);
            assert_eq!(mean.get(), 0, "an hour later nothing is left");
        }
    }

    #[test]
    fn many_ticks_at_once_are_as_many_one_by_one() {
        let (mut at_once, mut one_by_one) = (Mean::new(Decay::SLOW), Mean::new(Decay::SLOW));
        at_once.take(1000, 37);
        (0..37).for_each(|_| one_by_one.take(1000, 1));
        assert!(at_once.get().abs_diff(one_by_one.get()) <= 1);
        assert_eq!(Decay::FAST.over(0), 1 << 32);
        assert_eq!(Decay::FAST.over(u64::MAX), 0);
    }
}
