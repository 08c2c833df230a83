//! The block operations on a table and words of 64 bits, eight bytes at a time: for CPUs without vectors, and for Miri. Pure.

use super::{BLOCK_BYTES, Masks, Plain, Simd, Tokens, WINDOW_BYTES, Work};

/// Moves bit 8 * i to bit 56 + i, for each i.
const GATHER: u64 = 0x0102_0408_1020_4080;
/// The lowest bit of each byte.
const LOWEST: u64 = 0x0101_0101_0101_0101;

const QUOTE: u32 = 0;
const BACKSLASH: u32 = 1;
const CONTROL: u32 = 2;
const SEPARATOR: u32 = 3;
const STRUCTURAL: u32 = 4;
const HIGH: u32 = 5;
const LINE_FEED: u32 = 6;
const ESCAPE: u32 = 7;

/// One bit per class of each byte.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < classes.len() {
        classes[byte] = match byte as u8 {
            b' ' => 1 << SEPARATOR,
            b'\t' | b'\r' => 1 << SEPARATOR | 1 << CONTROL,
            b'\n' => 1 << SEPARATOR | 1 << CONTROL | 1 << LINE_FEED,
            b'{' | b'}' | b'[' | b']' | b':' | b',' => 1 << STRUCTURAL | 1 << SEPARATOR,
            b'"' => 1 << QUOTE | 1 << SEPARATOR | 1 << ESCAPE,
            b'\\' => 1 << BACKSLASH | 1 << ESCAPE,
            b'/' | b'b' | b'f' | b'n' | b'r' | b't' | b'u' => 1 << ESCAPE,
            0..0x20 => 1 << CONTROL,
            0x80.. => 1 << HIGH,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

/// No instruction set at all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::json) struct Portable;

/// One bit per byte of a block that is of a class, of the classes of its bytes.
#[inline(always)]
fn mask(classes: &[u64; 8], class: u32) -> u64 {
    let mut bits = 0;
    for (eighth, word) in classes.iter().enumerate() {
        bits |= ((word >> class & LOWEST).wrapping_mul(GATHER) >> 56) << (8 * eighth);
    }
    bits
}

#[inline(always)]
fn words_of(bytes: &[u8; BLOCK_BYTES]) -> [u64; 8] {
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

/// One bit per byte of a block that equals `wanted`.
#[inline(always)]
fn equal(block: &[u8; BLOCK_BYTES], wanted: u8) -> u64 {
    const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let mut bits = 0;
    for (eighth, word) in words_of(block).iter().enumerate() {
        let differing = word ^ (u64::from(wanted) * LOWEST);
        // The top bit of each byte that is zero; adding to the low seven bits carries into no other byte.
        let zero = !(((differing & LOW_BITS) + LOW_BITS) | differing | LOW_BITS);
        bits |= ((zero >> 7).wrapping_mul(GATHER) >> 56) << (8 * eighth);
    }
    bits
}

/// The classes of the bytes of a block, eight to a word. A loop: `array::map` of so many is a call for each byte.
#[inline(always)]
fn classes_of(block: &[u8; BLOCK_BYTES]) -> [u64; 8] {
    let mut classes = [0; BLOCK_BYTES];
    for (class, byte) in classes.iter_mut().zip(block) {
        *class = CLASSES[usize::from(*byte)];
    }
    words_of(&classes)
}

impl Simd for Portable {
    type Block = [u8; BLOCK_BYTES];

    #[inline(always)]
    fn load(self, bytes: &[u8; BLOCK_BYTES]) -> Self::Block {
        *bytes
    }

    #[inline(always)]
    fn load_front(self, bytes: &[u8]) -> Self::Block {
        let mut padded = [0; BLOCK_BYTES];
        padded[..bytes.len()].copy_from_slice(bytes);
        padded
    }

    #[inline(always)]
    fn plain(self, block: Self::Block) -> Plain {
        let classes = classes_of(&block);
        let (control, line_feed) = (mask(&classes, CONTROL), mask(&classes, LINE_FEED));
        Plain {
            quote: mask(&classes, QUOTE),
            separator: mask(&classes, SEPARATOR) & !control | line_feed,
            structural: mask(&classes, STRUCTURAL),
            rare: mask(&classes, BACKSLASH) | control | mask(&classes, HIGH),
        }
    }

    #[inline(always)]
    fn digits(self, window: &[u8; WINDOW_BYTES]) -> u64 {
        let mut digits = 0;
        for (eighth, bytes) in window.as_chunks::<8>().0.iter().enumerate() {
            let word = u64::from_le_bytes(*bytes);
            // Digits become 0 to 9, and what is more reaches the top bit. No byte carries into the next.
            let values = word ^ (u64::from(b'0') * LOWEST);
            let others = ((values & !(LOWEST << 7)) + 0x76 * LOWEST) | values;
            digits |= ((!others >> 7 & LOWEST).wrapping_mul(GATHER) >> 56) << (8 * eighth);
        }
        digits
    }

    #[inline(always)]
    fn masks(self, block: Self::Block) -> Masks {
        let classes = classes_of(&block);
        Masks {
            quote: mask(&classes, QUOTE),
            backslash: mask(&classes, BACKSLASH),
            control: mask(&classes, CONTROL),
            separator: mask(&classes, SEPARATOR),
            structural: mask(&classes, STRUCTURAL),
            high: mask(&classes, HIGH),
            line_feed: mask(&classes, LINE_FEED),
        }
    }

    #[inline(always)]
    fn braces(self, block: Self::Block) -> (u64, u64) {
        (equal(&block, b'{'), equal(&block, b'}'))
    }

    #[inline(always)]
    fn escapes(self, block: Self::Block) -> (u64, u64) {
        let classes = classes_of(&block);
        (mask(&classes, ESCAPE), equal(&block, b'u'))
    }

    #[inline(always)]
    fn prefix_xor(self, bits: u64) -> u64 {
        prefix_xor(bits)
    }

    #[inline(always)]
    fn append(self, block: Self::Block, mut wanted: u64, count: usize, tokens: &mut Tokens) {
        let out = tokens[count..].first_chunk_mut::<BLOCK_BYTES>().expect("room for one more block");
        let mut count = 0;
        while wanted != 0 {
            let at = wanted.trailing_zeros() as usize;
            let byte = block[at];
            let is_kept = CLASSES[usize::from(byte)] & (1 << QUOTE | 1 << CONTROL | 1 << STRUCTURAL) != 0;
            out[count % BLOCK_BYTES] = if is_kept { byte } else { b'0' };
            count += 1;
            wanted &= wanted - 1;
        }
    }

    #[inline(always)]
    fn hash(self, tokens: &[u8], count: usize) -> u32 {
        hash(tokens, count)
    }

    #[inline(always)]
    fn equal(self, tokens: &[u8], other: &[u8], count: usize) -> bool {
        tokens[..count] == other[..count]
    }

    #[inline]
    fn run<W: Work>(self, work: W) -> W::Output {
        // Not inlined, so that it does not take up room where another set runs.
        #[inline(never)]
        fn apart<W: Work>(set: Portable, work: W) -> W::Output {
            work.with(set)
        }
        apart(self, work)
    }
}

/// Words of eight tokens that count for the hash; what differs later only is told apart by comparing.
const HASHED_WORDS_MAX: usize = 64;

/// The `number`-th word of SplitMix64 from a fixed seed.
pub(super) const fn random_word(number: u64) -> u64 {
    let mut bits = 0x7469_6465_6761_7465_u64.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number + 1));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Odd multipliers for the words.
static MULTIPLIERS: [u64; HASHED_WORDS_MAX] = {
    let mut multipliers = [0; HASHED_WORDS_MAX];
    let mut at = 0;
    while at < multipliers.len() {
        multipliers[at] = random_word(at as u64) | 1;
        at += 1;
    }
    multipliers
};

/// A sum of products, which the CPU forms side by side.
#[inline(always)]
pub(super) fn hash(tokens: &[u8], count: usize) -> u32 {
    let (words, _) = tokens.as_chunks::<8>();
    let whole = count / 8;
    let mut sum = (count as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for at in 0..whole.min(HASHED_WORDS_MAX) {
        sum = sum.wrapping_add(u64::from_le_bytes(words[at]).wrapping_mul(MULTIPLIERS[at]));
    }
    let last = u64::from_le_bytes(words[whole]) & ((1 << (count % 8 * 8)) - 1);
    sum = sum.wrapping_add((last ^ sum >> 32).wrapping_mul(MULTIPLIERS[0]));
    (sum >> 32) as u32
}

/// Six shifts for what a carry-less multiplication by all ones does at once.
#[inline(always)]
pub(super) const fn prefix_xor(mut bits: u64) -> u64 {
    bits ^= bits << 1;
    bits ^= bits << 2;
    bits ^= bits << 4;
    bits ^= bits << 8;
    bits ^= bits << 16;
    bits ^ (bits << 32)
}
