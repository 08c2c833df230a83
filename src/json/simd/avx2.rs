//! The block operations on two AVX2 registers: x86-64 from Haswell and Zen on. Pure.
#![allow(unsafe_code, reason = "vector instructions; that the CPU has them is proven by the value of the type")]

use std::arch::x86_64::*;

use super::gather::MOVES;
use super::portable::random_word;
use super::{BLOCK_BYTES, COMPARED_AT_ONCE, Masks, Plain, Simd, Tokens, WINDOW_BYTES, Work};

/// Exists only where [`Avx2::detect`] found every feature used here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::json) struct Avx2(());

impl Avx2 {
    /// The proof that this CPU has what is used here, if it has.
    pub(super) fn detect() -> Option<Self> {
        let has_all = !cfg!(miri)
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        has_all.then_some(Self(()))
    }
}

/// Two registers, the first 32 bytes and the second.
#[derive(Clone, Copy)]
pub(in crate::json) struct Pair(__m256i, __m256i);

/// One bit per byte that is all ones in two registers.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn mask(low: __m256i, high: __m256i) -> u64 {
    // SAFETY: the caller's promise; nothing here touches memory.
    unsafe {
        let (low, high) = (_mm256_movemask_epi8(low) as u32, _mm256_movemask_epi8(high) as u32);
        u64::from(low) | u64::from(high) << 32
    }
}

// Functions and not closures: a closure does not have the features of the function around it, so that the instructions
// in it would become calls. It measured eight times slower.

/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn equal(block: Pair, wanted: u8) -> u64 {
    // SAFETY: the caller's promise; nothing here touches memory.
    unsafe {
        let wanted = _mm256_set1_epi8(wanted as i8);
        mask(_mm256_cmpeq_epi8(block.0, wanted), _mm256_cmpeq_epi8(block.1, wanted))
    }
}

/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn is_white(bytes: __m256i) -> __m256i {
    // SAFETY: the caller's promise; nothing here touches memory but the table. A shuffle gives 0 for bytes above ASCII,
    // which they are not equal to.
    unsafe { _mm256_cmpeq_epi8(bytes, _mm256_shuffle_epi8(table(&WHITE), bytes)) }
}

/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn is_space_or_feed(bytes: __m256i) -> __m256i {
    // SAFETY: the caller's promise; nothing here touches memory.
    unsafe {
        let space = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b' ' as i8));
        _mm256_or_si256(space, _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b'\n' as i8)))
    }
}

/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn is_control(bytes: __m256i) -> __m256i {
    // SAFETY: the caller's promise; nothing here touches memory.
    unsafe { _mm256_cmpeq_epi8(_mm256_min_epu8(bytes, _mm256_set1_epi8(0x1f)), bytes) }
}

/// Backslashes, control characters and, by their own top bit, bytes above ASCII.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn is_rare(bytes: __m256i) -> __m256i {
    // SAFETY: the caller's promise; nothing here touches memory.
    unsafe {
        let backslash = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b'\\' as i8));
        _mm256_or_si256(_mm256_or_si256(backslash, is_control(bytes)), bytes)
    }
}

/// Classes of bytes that are tokens themselves, by look-ups of both halves of a byte: exact, and for some tokens it is as
/// cheap as a comparison for each. From ORs and ANDs of comparisons the compiler has made code that takes each byte by
/// itself.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn kept(bytes: __m256i) -> __m256i {
    // SAFETY: the caller's promise; nothing here touches memory but the tables.
    unsafe {
        let high_half = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), _mm256_set1_epi8(0x0f));
        let by_low = _mm256_shuffle_epi8(table(&KEPT_BY_LOW), bytes);
        _mm256_and_si256(by_low, _mm256_shuffle_epi8(table(&KEPT_BY_HIGH), high_half))
    }
}

/// Structural characters and quotes: their top bits are ones.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn is_structural_or_quote(bytes: __m256i) -> __m256i {
    // SAFETY: the caller's promise; nothing here touches memory.
    unsafe {
        let classes = _mm256_and_si256(kept(bytes), _mm256_set1_epi8((BRACKET | COLON | COMMA_OR_QUOTE) as i8));
        _mm256_adds_epu8(classes, _mm256_set1_epi8(0x7f))
    }
}

/// Structural characters, quotes and control characters as they are, other bytes as `0`.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn folded(bytes: __m256i) -> __m256i {
    // SAFETY: the caller's promise; nothing here touches memory.
    unsafe {
        let others = _mm256_cmpeq_epi8(kept(bytes), _mm256_setzero_si256());
        _mm256_blendv_epi8(bytes, _mm256_set1_epi8(b'0' as i8), others)
    }
}

/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn is_digit(bytes: __m256i) -> __m256i {
    // SAFETY: the caller's promise; nothing here touches memory.
    unsafe {
        let values = _mm256_sub_epi8(bytes, _mm256_set1_epi8(b'0' as i8));
        _mm256_cmpeq_epi8(_mm256_min_epu8(values, _mm256_set1_epi8(9)), values)
    }
}

/// The sixteen entries in both halves of a register, for a shuffle within each.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn table(entries: &[u8; 16]) -> __m256i {
    // SAFETY: the caller's promise; the array is as long as the load, which needs no alignment.
    unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(entries.as_ptr().cast())) }
}

/// White space by its low half. The others hold 0, which is no byte of their own low half, but for space itself.
static WHITE: [u8; 16] = [b' ', 0, 0, 0, 0, 0, 0, 0, 0, b'\t', b'\n', 0, 0, b'\r', 0, 0];

/// All ones in the first `count` bytes of a register, or in all if they are more.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn first(count: usize) -> __m256i {
    static ONES_AND_ZEROS: [u8; 64] = {
        let mut bytes = [0; 64];
        let mut at = 0;
        while at < 32 {
            bytes[at] = 0xff;
            at += 1;
        }
        bytes
    };
    // SAFETY: the caller's promise; 32 bytes from 32 at most are in the table.
    unsafe { _mm256_loadu_si256(ONES_AND_ZEROS.as_ptr().add(32 - count.min(32)).cast()) }
}

/// The products of 32 bytes, of which `count` are tokens.
///
/// # Safety
/// The CPU has AVX2; 32 bytes can be read at `tokens`.
#[inline(always)]
unsafe fn product(tokens: *const u8, count: usize, keys: &[u64; 4]) -> __m256i {
    // SAFETY: the caller's promise; the keys are as long as their load. Zeros instead of what is behind the last token.
    unsafe {
        let wanted = _mm256_and_si256(_mm256_loadu_si256(tokens.cast()), first(count));
        let keyed = _mm256_add_epi32(wanted, _mm256_loadu_si256(keys.as_ptr().cast()));
        _mm256_mul_epu32(keyed, _mm256_srli_epi64::<32>(keyed))
    }
}

/// Ones where the first `count` of 32 bytes differ.
///
/// # Safety
/// The CPU has AVX2; 32 bytes can be read at both.
#[inline(always)]
unsafe fn unequal(left: *const u8, right: *const u8, count: usize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let differing = _mm256_xor_si256(_mm256_loadu_si256(left.cast()), _mm256_loadu_si256(right.cast()));
        _mm256_and_si256(differing, first(count))
    }
}

/// What is added to tokens before they are multiplied.
static KEYS: [[u64; 4]; COMPARED_AT_ONCE / 32] = {
    let mut keys = [[0; 4]; COMPARED_AT_ONCE / 32];
    let mut at = 0;
    while at < 16 {
        keys[at / 4][at % 4] = random_word(at as u64);
        at += 1;
    }
    keys
};

const BRACKET: u8 = 1;
const COLON: u8 = 2;
const COMMA_OR_QUOTE: u8 = 4;
const CONTROL: u8 = 8;

/// Classes of bytes that are tokens themselves, by their low half. A shuffle gives none for bytes above ASCII.
static KEPT_BY_LOW: [u8; 16] = {
    let mut classes = [CONTROL; 16];
    classes[0x2] |= COMMA_OR_QUOTE;
    classes[0xa] |= COLON;
    classes[0xb] |= BRACKET;
    classes[0xc] |= COMMA_OR_QUOTE;
    classes[0xd] |= BRACKET;
    classes
};
/// The same by their high half.
static KEPT_BY_HIGH: [u8; 16] =
    [CONTROL, CONTROL, COMMA_OR_QUOTE, COLON, 0, BRACKET, 0, BRACKET, 0, 0, 0, 0, 0, 0, 0, 0];

impl Simd for Avx2 {
    type Block = Pair;

    #[inline(always)]
    fn load(self, bytes: &[u8; BLOCK_BYTES]) -> Self::Block {
        // SAFETY: `self` proves AVX2; the array is as long as the two loads, which need no alignment.
        unsafe { Pair(_mm256_loadu_si256(bytes.as_ptr().cast()), _mm256_loadu_si256(bytes.as_ptr().add(32).cast())) }
    }

    #[inline(always)]
    fn load_front(self, bytes: &[u8]) -> Self::Block {
        let mut padded = [0; BLOCK_BYTES];
        padded[..bytes.len()].copy_from_slice(bytes);
        self.load(&padded)
    }

    #[inline(always)]
    fn plain(self, block: Self::Block) -> Plain {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let delimiters = mask(is_structural_or_quote(block.0), is_structural_or_quote(block.1));
            let quote = equal(block, b'"');
            Plain {
                quote,
                separator: delimiters | mask(is_space_or_feed(block.0), is_space_or_feed(block.1)),
                structural: delimiters & !quote,
                rare: mask(is_rare(block.0), is_rare(block.1)),
            }
        }
    }

    #[inline(always)]
    fn digits(self, window: &[u8; WINDOW_BYTES]) -> u64 {
        // SAFETY: `self` proves AVX2; the array is as long as the load, which needs no alignment.
        unsafe {
            let bytes = _mm256_loadu_si256(window.as_ptr().cast());
            u64::from(_mm256_movemask_epi8(is_digit(bytes)) as u32)
        }
    }

    #[inline(always)]
    fn masks(self, block: Self::Block) -> Masks {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let control = mask(is_control(block.0), is_control(block.1));
            let delimiters = mask(is_structural_or_quote(block.0), is_structural_or_quote(block.1));
            let quote = equal(block, b'"');
            Masks {
                quote,
                backslash: equal(block, b'\\'),
                control,
                separator: mask(is_white(block.0), is_white(block.1)) | delimiters,
                structural: delimiters & !quote,
                high: mask(block.0, block.1),
                line_feed: equal(block, b'\n'),
            }
        }
    }

    #[inline(always)]
    fn braces(self, block: Self::Block) -> (u64, u64) {
        // SAFETY: `self` proves AVX2.
        unsafe { (equal(block, b'{'), equal(block, b'}')) }
    }

    #[inline(always)]
    fn escapes(self, block: Self::Block) -> (u64, u64) {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let unicode = equal(block, b'u');
            let mut letters = unicode;
            for letter in *b"\"\\/bfnrt" {
                letters |= equal(block, letter);
            }
            (letters, unicode)
        }
    }

    #[inline(always)]
    fn prefix_xor(self, bits: u64) -> u64 {
        // SAFETY: `self` proves PCLMULQDQ; nothing here touches memory.
        unsafe {
            let product = _mm_clmulepi64_si128(_mm_set_epi64x(0, bits as i64), _mm_set1_epi8(-1), 0);
            _mm_cvtsi128_si64(product) as u64
        }
    }

    #[inline(always)]
    fn append(self, block: Self::Block, wanted: u64, count: usize, tokens: &mut Tokens) {
        let out = tokens[count..].first_chunk_mut::<BLOCK_BYTES>().expect("room for one more block");
        let mut count = 0;
        // SAFETY: `self` proves AVX2. A row of the table is as long as a 64-bit load. Each store is of 8 bytes at
        // `count`, which is at most 8 * the eighths before it, so at most 56, and `out` has 64.
        unsafe {
            let (first, second) = (folded(block.0), folded(block.1));
            let quarters = [
                _mm256_castsi256_si128(first),
                _mm256_extracti128_si256(first, 1),
                _mm256_castsi256_si128(second),
                _mm256_extracti128_si256(second, 1),
            ];
            for eighth in 0..8 {
                let set = (wanted >> (8 * eighth)) as u8;
                let half = quarters[eighth / 2];
                let half = if eighth % 2 == 0 { half } else { _mm_unpackhi_epi64(half, half) };
                let moves = _mm_loadl_epi64(MOVES[usize::from(set)].as_ptr().cast());
                _mm_storel_epi64(out.as_mut_ptr().add(count).cast(), _mm_shuffle_epi8(half, moves));
                count += set.count_ones() as usize;
            }
        }
    }

    /// A sum of products of neighbours with a key added to each, as the hash functions NH and UMASH have it.
    #[inline(always)]
    fn hash(self, tokens: &[u8], count: usize) -> u32 {
        assert!((count + BLOCK_BYTES).max(COMPARED_AT_ONCE) <= tokens.len());
        // SAFETY: `self` proves AVX2; the tokens are long enough for the loads, and a row of keys as long as its load.
        unsafe {
            let mut sum = _mm256_set1_epi64x(count as i64);
            for (eighth, keys) in KEYS.iter().enumerate() {
                let at = 32 * eighth;
                sum = _mm256_add_epi64(sum, product(tokens.as_ptr().add(at), count.saturating_sub(at), keys));
            }
            let mut at = COMPARED_AT_ONCE;
            while at < count {
                // The same keys again, and the place, so that equal pieces of tokens cannot change places.
                let more = product(tokens.as_ptr().add(at), count - at, &KEYS[at / 32 % 4]);
                sum = _mm256_add_epi64(sum, _mm256_xor_si256(more, _mm256_set1_epi64x((at as i64) << 32)));
                at += 32;
            }
            let half = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
            let sum = _mm_cvtsi128_si64(_mm_add_epi64(half, _mm_unpackhi_epi64(half, half))) as u64;
            (sum.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
        }
    }

    #[inline(always)]
    fn equal(self, tokens: &[u8], other: &[u8], count: usize) -> bool {
        assert!((count + BLOCK_BYTES).max(COMPARED_AT_ONCE) <= tokens.len().min(other.len()));
        // SAFETY: `self` proves AVX2; both are long enough for the loads.
        unsafe {
            let (left, right) = (tokens.as_ptr(), other.as_ptr());
            let mut differing = _mm256_setzero_si256();
            for at in (0..COMPARED_AT_ONCE).step_by(32) {
                differing = _mm256_or_si256(differing, unequal(left.add(at), right.add(at), count.saturating_sub(at)));
            }
            let mut at = COMPARED_AT_ONCE;
            while at < count {
                differing = _mm256_or_si256(differing, unequal(left.add(at), right.add(at), count - at));
                at += 32;
            }
            _mm256_testz_si256(differing, differing) == 1
        }
    }

    #[inline]
    fn run<W: Work>(self, work: W) -> W::Output {
        #[inline(never)]
        #[target_feature(enable = "avx2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
        fn with_features<W: Work>(set: Avx2, work: W) -> W::Output {
            work.with(set)
        }
        // SAFETY: `self` was made by `detect`, which found every feature named above.
        unsafe { with_features(self, work) }
    }
}
