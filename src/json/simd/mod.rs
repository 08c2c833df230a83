//! What the validator asks of a CPU: sixty-four bytes at a time, one bit per byte and class. Any thread; pure.
//!
//! One file per instruction set behind one trait, [`Simd`]. All give the same answer for every block, bit for bit, which
//! the tests hold against a loop over bytes. Which one runs is decided once, when a [`super::Validator`] is made
//! ([`Level::best`]); a value of an instruction set's type exists only on a CPU that has it, so that what follows is
//! safe code.

mod portable;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod gather;
#[cfg(test)]
mod tests;

use std::fmt;

#[cfg(target_arch = "x86_64")]
use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
use neon::Neon;
pub(super) use portable::Portable;

/// Bytes looked at in one step: one bit of a word each.
pub(super) const BLOCK_BYTES: usize = 64;
/// Tokens that are kept at once, of one event or of many: as many as there can be in what is looked at of lines at once.
pub(super) const TOKENS_MAX: usize = 64 << 10;
/// Room for them, those of one block more, what is written behind the last, and what is read behind it.
pub(super) const TOKENS_ROOM: usize = TOKENS_MAX + 4 * BLOCK_BYTES;
/// Where tokens are kept.
pub(super) type Tokens = [u8; TOKENS_ROOM];
/// Tokens that are hashed and compared at once, whether there are as many or not: most shapes are not longer, and a
/// branch on how long each is would often be guessed wrong.
pub(super) const COMPARED_AT_ONCE: usize = 2 * BLOCK_BYTES;
/// Bytes in which a number is looked for at once.
pub(super) const WINDOW_BYTES: usize = 32;

/// Classes of the bytes of a block: bit `n` is byte `n`. Each byte is looked at alone; what lies in strings is the
/// caller's to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Masks {
    /// `"`.
    pub(super) quote: u64,
    /// `\`.
    pub(super) backslash: u64,
    /// Below 0x20.
    pub(super) control: u64,
    /// What ends a number or literal: white space (space, tab, line feed, carriage return), `{}[]:,` and `"`.
    pub(super) separator: u64,
    /// `{}[]:,`.
    pub(super) structural: u64,
    /// 0x80 and above.
    pub(super) high: u64,
    /// Line feed.
    pub(super) line_feed: u64,
}

/// What most blocks need. Of bytes that are not rare the masks are those of [`Masks`]. A rare byte is a separator if it is a
/// line feed, and not if it is any other; else the masks mean nothing for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plain {
    pub(super) quote: u64,
    pub(super) separator: u64,
    pub(super) structural: u64,
    /// Backslashes, control characters and bytes above ASCII.
    pub(super) rare: u64,
}

/// Sixty-four bytes at a time.
pub(super) trait Simd: Copy {
    /// Sixty-four bytes in registers.
    type Block: Copy;

    /// Loads a block.
    fn load(self, bytes: &[u8; BLOCK_BYTES]) -> Self::Block;
    /// Loads fewer than 64 bytes and zeros behind them.
    fn load_front(self, bytes: &[u8]) -> Self::Block;
    /// The few classes of its bytes that most blocks need.
    fn plain(self, block: Self::Block) -> Plain;
    /// Digits, a bit each.
    fn digits(self, window: &[u8; WINDOW_BYTES]) -> u64;
    /// Classes of its bytes.
    fn masks(self, block: Self::Block) -> Masks;
    /// Opening and closing braces.
    fn braces(self, block: Self::Block) -> (u64, u64);
    /// Bytes that may follow a backslash in a string, `u` included, and `u` alone.
    fn escapes(self, block: Self::Block) -> (u64, u64);
    /// For each bit the XOR of it and all below: ones from an opening quote up to before the closing one.
    fn prefix_xor(self, bits: u64) -> u64;
    /// Stores the bytes of `wanted`, of which none is a space, in order behind the `count` tokens there are, below
    /// [`TOKENS_MAX`]: structural characters, quotes and control characters as they are, all others as `0`.
    fn append(self, block: Self::Block, wanted: u64, count: usize, tokens: &mut Tokens);
    /// Stores the places of `starts` in order, of which there are `count` and at most 32: `at` is that of the block's first
    /// byte. What is stored behind them is of no meaning.
    #[inline(always)]
    fn note(self, mut starts: u64, count: usize, at: u32, out: &mut [u32; BLOCK_BYTES / 2]) {
        // Most blocks have no more than a first, a second and a last one. These are stored whether there are any or not,
        // since that is not to be foreseen.
        out[0] = at + starts.trailing_zeros();
        out[1] = at + (starts & starts.wrapping_sub(1)).trailing_zeros();
        out[2] = at + (63 ^ starts.leading_zeros());
        if count > 3 {
            for place in &mut out[..count] {
                *place = at + starts.trailing_zeros();
                starts &= starts.wrapping_sub(1);
            }
        }
    }
    /// A number by which to look up the first `count` of `tokens`. They are long enough for [`COMPARED_AT_ONCE`] and for a
    /// block behind `count`. Strangers may find tokens of one number: that costs a walk over the grammar, as a new shape
    /// does.
    fn hash(self, tokens: &[u8], count: usize) -> u32;
    /// Whether the first `count` of both are equal, which are as long.
    fn equal(self, tokens: &[u8], other: &[u8], count: usize) -> bool;
    /// Runs `work` in a function of its own, compiled for this instruction set: what is rare should not take up registers
    /// where it is not needed.
    fn run<W: Work>(self, work: W) -> W::Output;
}

/// How a validator validates: by which instruction set, or by the parser alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Level(Set);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    /// What has to be found out without a parser is found by portable code.
    Parser(Portable),
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Level {
    /// The fastest way on this CPU: the widest instruction set; where there are no vectors for one, the parser if there are
    /// for it.
    #[must_use]
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        let parser_has_vectors = !cfg!(miri) && is_x86_feature_detected!("sse4.2");
        #[cfg(not(target_arch = "x86_64"))]
        let parser_has_vectors = false;
        Self::best_of(&Self::all(), parser_has_vectors)
    }

    /// The best of instruction sets, slowest first. Of 343 bytes portable code proves one shape in 360 ns, where simd-json
    /// takes 309 with SSE4.2 and 947 without (one run, Zen 4).
    fn best_of(sets: &[Self], parser_has_vectors: bool) -> Self {
        let without_vectors = if parser_has_vectors { Self::parser() } else { Self::portable() };
        sets.iter().copied().rfind(|set| *set != Self::portable()).unwrap_or(without_vectors)
    }

    /// simd-json for every event, with nothing looked at before; but for elements of arrays, whose ends have to be found
    /// anyway.
    #[must_use]
    pub fn parser() -> Self {
        Self(Set::Parser(Portable))
    }

    /// Words of 64 bits and no vectors: runs everywhere.
    #[must_use]
    pub fn portable() -> Self {
        Self(Set::Portable(Portable))
    }

    /// All instruction sets this CPU has, slowest first.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::portable()];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(Avx2::detect().map(|set| Self(Set::Avx2(set))));
            all.extend(Avx512::detect().map(|set| Self(Set::Avx512(set))));
        }
        #[cfg(target_arch = "aarch64")]
        all.extend(Neon::detect().map(|set| Self(Set::Neon(set))));
        all
    }

    /// Its name in figures and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            Set::Parser(_) => "parser",
            Set::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Set::Neon(_) => "neon",
        }
    }

    /// Runs `work` compiled for this instruction set.
    #[inline]
    pub(super) fn run<W: Work>(self, work: W) -> W::Output {
        match self.0 {
            Set::Parser(set) | Set::Portable(set) => set.run(work),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(set) => set.run(work),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(set) => set.run(work),
            #[cfg(target_arch = "aarch64")]
            Set::Neon(set) => set.run(work),
        }
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A piece of work written once and compiled for each instruction set. `with` must be `#[inline(always)]`: only what is
/// inlined into a function with the features of the set is compiled with them.
pub(super) trait Work {
    /// What it returns.
    type Output;
    /// Does it.
    fn with<S: Simd>(self, simd: S) -> Self::Output;
}
