//! What was acknowledged: one bit per event. Filled by a generator thread, read after it has ended.
//!
//! A billion events are 120 MiB here and as much again while a log is compared: that, and not the run's length, is the
//! oracle's memory.

/// Words of one block: 64 KiB, half a million events.
const BLOCK_WORDS: usize = 8 << 10;
const BLOCK_BITS: u64 = BLOCK_WORDS as u64 * 64;

/// Bits by number, all clear at first; grows by blocks.
#[derive(Clone, Debug, Default)]
pub struct Bits {
    blocks: Vec<Box<[u64]>>,
}

impl Bits {
    /// Sets a bit; whether it was clear.
    pub fn set(&mut self, bit: u64) -> bool {
        let word = self.word_mut(bit);
        let mask = 1 << (bit % 64);
        let was_clear = *word & mask == 0;
        *word |= mask;
        was_clear
    }

    /// Sets `count` bits from `first` on.
    pub fn set_range(&mut self, first: u64, count: u64) {
        let (mut bit, end) = (first, first + count);
        while bit < end {
            let within = (64 - bit % 64).min(end - bit);
            let ones = if within == 64 { u64::MAX } else { ((1 << within) - 1) << (bit % 64) };
            *self.word_mut(bit) |= ones;
            bit += within;
        }
    }

    /// Whether no bit was ever set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Whether a bit is set.
    #[must_use]
    pub fn get(&self, bit: u64) -> bool {
        let block = self.blocks.get((bit / BLOCK_BITS) as usize);
        block.is_some_and(|block| block[(bit % BLOCK_BITS / 64) as usize] & (1 << (bit % 64)) != 0)
    }

    /// Bits set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.blocks.iter().flat_map(|block| block.iter()).map(|word| u64::from(word.count_ones())).sum()
    }

    /// Bits that are set here and clear in `other`, ascending.
    pub fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = u64> + 'a {
        self.blocks.iter().enumerate().flat_map(move |(block, words)| {
            words.iter().enumerate().flat_map(move |(at, word)| {
                let theirs = other.blocks.get(block).map_or(0, |words| words[at]);
                let mut left = word & !theirs;
                let first = block as u64 * BLOCK_BITS + at as u64 * 64;
                std::iter::from_fn(move || {
                    let bit = u64::from(left.trailing_zeros());
                    left &= left.wrapping_sub(1);
                    (bit < 64).then_some(first + bit)
                })
            })
        })
    }

    fn word_mut(&mut self, bit: u64) -> &mut u64 {
        let block = (bit / BLOCK_BITS) as usize;
        while self.blocks.len() <= block {
            self.blocks.push(vec![0; BLOCK_WORDS].into_boxed_slice());
        }
        &mut self.blocks[block][(bit % BLOCK_BITS / 64) as usize]
    }
}

/// What one generator thread sent and was promised.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Events sent: their numbers are below this.
    pub sent: u64,
    /// Which of them were acknowledged.
    pub acked: Bits,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn ranges_set_what_single_bits_would() {
        let mut random = Random::new(11, 1);
        let (mut ranges, mut singles) = (Bits::default(), Bits::default());
        for _ in 0..500 {
            let (first, count) = (random.below(3 * BLOCK_BITS), random.below(300));
            ranges.set_range(first, count);
            for bit in first..first + count {
                singles.set(bit);
            }
        }
        assert_eq!(ranges.count(), singles.count());
        assert_eq!(ranges.without(&singles).count() + singles.without(&ranges).count(), 0);
    }

    #[test]
    fn a_difference_names_each_bit() {
        let (mut one, mut other) = (Bits::default(), Bits::default());
        one.set_range(60, 10);
        one.set(BLOCK_BITS + 5);
        other.set_range(0, 65);
        assert_eq!(one.without(&other).collect::<Vec<_>>(), [65, 66, 67, 68, 69, BLOCK_BITS + 5]);
        assert!(!one.set(60) && one.set(59));
        assert!(!other.get(10 * BLOCK_BITS));
    }
}
