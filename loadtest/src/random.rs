//! Numbers from a seed: the same seed gives the same run. Pure.

/// A generator with 64 bits of state (splitmix64, Steele et al., "Fast splittable pseudorandom number generators",
/// OOPSLA 2014): enough for payloads and arrivals, and its state is its seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator for a seed. Different `stream`s of one seed are independent of each other.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut this = Self(seed ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03));
        this.next_u64();
        this
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform below `bound`, which is not 0. The bias of the multiplication is below 2^-32 for the bounds used here.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Exponential with mean 1: the gap between arrivals of a Poisson process of rate 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// One of `choices`, which is not empty.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}

/// Picks an index with given weights: one comparison chain over cumulative shares, by binary search.
#[derive(Clone, Debug)]
pub struct Weighted {
    cumulative: Vec<f64>,
}

impl Weighted {
    /// Weights ≥ 0 of which at least one is above 0.
    ///
    /// # Panics
    /// If they are not.
    #[must_use]
    pub fn new(weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        assert!(total > 0.0 && weights.iter().all(|weight| *weight >= 0.0), "weights {weights:?}");
        let mut sum = 0.0;
        let cumulative = weights
            .iter()
            .map(|weight| {
                sum += weight / total;
                sum
            })
            .collect();
        Self { cumulative }
    }

    /// Zipf's law over `count` ranks: rank k has weight 1 / k^exponent. Exponent 0 is uniform.
    #[must_use]
    pub fn zipf(count: usize, exponent: f64) -> Self {
        Self::new(&(1..=count).map(|rank| (rank as f64).powf(-exponent)).collect::<Vec<_>>())
    }

    /// `count` picks at once, of each index how many: its share, and by chance one more or less than that. Systematic
    /// sampling: one draw places all picks at equal distances.
    pub fn spread(&self, count: u64, random: &mut Random) -> Vec<u64> {
        let offset = random.unit();
        let mut before = 0;
        let last = self.cumulative.len() - 1;
        let until = self.cumulative.iter().enumerate().map(|(at, sum)| {
            // Rounding may leave the last sum a little below 1.
            if at == last { count } else { ((count as f64 * sum + offset) as u64).min(count) }
        });
        until.map(|until| until - std::mem::replace(&mut before, until)).collect()
    }

    /// An index.
    pub fn pick(&self, random: &mut Random) -> usize {
        if self.cumulative.len() == 1 {
            return 0;
        }
        let at = random.unit();
        // Rounding may leave the last sum a little below 1.
        self.cumulative.partition_point(|sum| *sum <= at).min(self.cumulative.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_stream_give_the_same_numbers_again_and_others_do_not() {
        let numbers = |seed, stream| {
            let mut random = Random::new(seed, stream);
            [random.next_u64(), random.next_u64()]
        };
        assert_eq!(numbers(7, 1), numbers(7, 1));
        assert_ne!(numbers(7, 1), numbers(7, 2));
        assert_ne!(numbers(7, 1), numbers(8, 1));
    }

    #[test]
    fn exponential_gaps_have_mean_and_deviation_one() {
        let mut random = Random::new(1, 1);
        let gaps: Vec<f64> = (0..100_000).map(|_| random.exponential()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 1.0).abs() < 0.02 && (variance - 1.0).abs() < 0.05, "mean {mean}, variance {variance}");
    }

    #[test]
    fn weights_are_kept_and_zero_is_never_picked() {
        let mut random = Random::new(2, 1);
        let weighted = Weighted::new(&[0.0, 3.0, 1.0, 0.0]);
        let mut counts = [0u32; 4];
        for _ in 0..40_000 {
            counts[weighted.pick(&mut random)] += 1;
        }
        assert_eq!((counts[0], counts[3]), (0, 0));
        assert!((29_000..31_000).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn many_picks_at_once_are_all_picked_in_their_shares() {
        let mut random = Random::new(4, 1);
        let weighted = Weighted::new(&[0.2, 0.0, 0.7, 0.1]);
        for count in (0..1000).chain([1 << 40]) {
            let spread = weighted.spread(count, &mut random);
            assert_eq!(spread.iter().sum::<u64>(), count, "{spread:?}");
            assert!((spread[2] as f64 - count as f64 * 0.7).abs() < 1.01 && spread[1] == 0, "{count}: {spread:?}");
        }
        let singles: u64 = (0..10_000).map(|_| weighted.spread(1, &mut random)[3]).sum();
        assert!((850..1150).contains(&singles), "of single picks {singles} are of a tenth");
    }

    #[test]
    fn zipf_s_first_rank_is_twice_the_second() {
        let mut random = Random::new(3, 1);
        let zipf = Weighted::zipf(100, 1.0);
        let mut counts = [0u32; 100];
        for _ in 0..100_000 {
            counts[zipf.pick(&mut random)] += 1;
        }
        let ratio = f64::from(counts[0]) / f64::from(counts[1]);
        assert!((1.8..2.2).contains(&ratio), "{ratio}");
    }
}
