//! The block operations on a table and words of 64 bits, eight bytes at a time: for CPUs without vectors, and for Miri. Pure.

use super::{BLOCK_BYTES, Masks, Plain, Simd, Work};

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

impl Portable {
    /// Runs `work` compiled for any CPU. Not inlined, so that it does not take up room where another set runs.
    #[inline(never)]
    pub(super) fn run<W: Work>(self, work: W) -> W::Output {
        work.with(self)
    }
}

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
    let (words, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|eighth| u64::from_le_bytes(words[eighth]))
}

/// One bit per byte of a block that equals `wanted`.
#[inline(always)]
fn equal(block: &[u8; BLOCK_BYTES], wanted: u8) -> u64 {
    mask(&words_of(&block.map(|byte| u8::from(byte == wanted))), 0)
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
    fn plain(self, block: Self::Block) -> Option<Plain> {
        const RARE: u64 = (1 << BACKSLASH | 1 << CONTROL | 1 << HIGH) * LOWEST;
        let classes = words_of(&block.map(|byte| CLASSES[usize::from(byte)]));
        let is_plain = classes.iter().fold(0, |any, word| any | word) & RARE == 0;
        is_plain.then(|| Plain {
            quote: mask(&classes, QUOTE),
            separator: mask(&classes, SEPARATOR),
            structural: mask(&classes, STRUCTURAL),
        })
    }

    #[inline(always)]
    fn masks(self, block: Self::Block) -> Masks {
        let classes = words_of(&block.map(|byte| CLASSES[usize::from(byte)]));
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
        let classes = words_of(&block.map(|byte| CLASSES[usize::from(byte)]));
        (mask(&classes, ESCAPE), equal(&block, b'u'))
    }

    #[inline(always)]
    fn prefix_xor(self, bits: u64) -> u64 {
        prefix_xor(bits)
    }

    #[inline(always)]
    fn gather(self, block: Self::Block, mut wanted: u64, out: &mut [u8; BLOCK_BYTES]) {
        let mut count = 0;
        while wanted != 0 {
            let at = wanted.trailing_zeros() as usize;
            let byte = block[at];
            out[count % BLOCK_BYTES] = if byte.is_ascii_digit() || byte == b'-' { b'0' } else { byte };
            count += 1;
            wanted &= wanted - 1;
        }
    }

    #[inline(always)]
    fn equal(self, left: &[u8], right: &[u8]) -> bool {
        left == right
    }
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
