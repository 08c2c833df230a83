//! The block operations on one AVX-512 register: x86-64 with VBMI (table look-up by byte) and VBMI2 (byte compress), from
//! Ice Lake and Zen 4 on. Pure.
#![allow(unsafe_code, reason = "vector instructions; that the CPU has them is proven by the value of the type")]

use std::arch::x86_64::*;

use super::portable::random_word;
use super::{BLOCK_BYTES, COMPARED_AT_ONCE, Masks, Plain, Simd, Tokens, WINDOW_BYTES, Work};

/// Exists only where [`Avx512::detect`] found every feature used here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::json) struct Avx512(());

// Classes of ASCII bytes, so chosen that each is all pairs of some low halves and some high halves of a byte: one look-up
// by each half and an AND tell the class. A look-up by seven bits at once (vpermi2b) is one instruction, but takes five
// times as long as a shuffle on Zen 4, and its two together with the compress were most of the time of a block.
const BRACKET: u8 = 1;
const COLON: u8 = 2;
const COMMA: u8 = 4;
const SPACE_OR_QUOTE: u8 = 8;
const BACKSLASH: u8 = 16;
const LINE_FEED: u8 = 32;
const CONTROL: u8 = 64;

const STRUCTURAL: u8 = BRACKET | COLON | COMMA;

/// Classes that a byte may be of by its low half.
static BY_LOW: [u8; 64] = repeated([
    CONTROL | SPACE_OR_QUOTE,
    CONTROL,
    CONTROL | SPACE_OR_QUOTE,
    CONTROL,
    CONTROL,
    CONTROL,
    CONTROL,
    CONTROL,
    CONTROL,
    CONTROL,
    CONTROL | LINE_FEED | COLON,
    CONTROL | BRACKET,
    CONTROL | COMMA | BACKSLASH,
    CONTROL | BRACKET,
    CONTROL,
    CONTROL,
]);

/// Classes that it may be of by its high half; none above ASCII.
static BY_HIGH: [u8; 64] = repeated([
    CONTROL | LINE_FEED,
    CONTROL,
    SPACE_OR_QUOTE | COMMA,
    COLON,
    0,
    BRACKET | BACKSLASH,
    0,
    BRACKET,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
]);

/// The index of each byte of a block.
static INDICES: [u8; BLOCK_BYTES] = {
    let mut indices = [0; BLOCK_BYTES];
    let mut at = 0;
    while at < indices.len() {
        indices[at] = at as u8;
        at += 1;
    }
    indices
};

/// What is added to tokens before they are multiplied.
static KEYS: [u64; 8] = {
    let mut keys = [0; 8];
    let mut at = 0;
    while at < keys.len() {
        keys[at] = random_word(at as u64);
        at += 1;
    }
    keys
};

/// Four times the same, for look-ups in any sixteen bytes of a register, and by six bits of which four count.
const fn repeated(sixteen: [u8; 16]) -> [u8; 64] {
    let mut all = [0; 64];
    let mut at = 0;
    while at < all.len() {
        all[at] = sixteen[at % 16];
        at += 1;
    }
    all
}

impl Avx512 {
    /// The proof that this CPU has what is used here, if it has.
    pub(super) fn detect() -> Option<Self> {
        let has_all = !cfg!(miri)
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("avx512vbmi2")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        has_all.then_some(Self(()))
    }
}

/// Sixty-four bytes and their classes.
#[derive(Clone, Copy)]
pub(in crate::json) struct Block {
    bytes: __m512i,
    classes: __m512i,
}

impl Block {
    /// # Safety
    /// The CPU has the features that [`Avx512::detect`] looks for.
    #[inline(always)]
    unsafe fn new(bytes: __m512i) -> Self {
        // SAFETY: the caller's promise; the tables are as long as the loads.
        unsafe {
            // A shuffle takes the low half, and gives zero for bytes above ASCII.
            let by_low = _mm512_shuffle_epi8(_mm512_loadu_si512(BY_LOW.as_ptr().cast()), bytes);
            // The shift brings two bits of the next byte into the six that count here; the table is the same for all.
            let high = _mm512_srli_epi16::<4>(bytes);
            let by_high = _mm512_permutexvar_epi8(high, _mm512_loadu_si512(BY_HIGH.as_ptr().cast()));
            Self { bytes, classes: _mm512_and_si512(by_low, by_high) }
        }
    }

    /// One bit per byte that is of one of `classes`.
    ///
    /// # Safety
    /// The CPU has the features that [`Avx512::detect`] looks for.
    #[inline(always)]
    unsafe fn of(self, classes: u8) -> u64 {
        // SAFETY: the caller's promise; nothing here touches memory.
        unsafe { _mm512_test_epi8_mask(self.classes, _mm512_set1_epi8(classes as i8)) }
    }

    /// One bit per byte that is `wanted`.
    ///
    /// # Safety
    /// The CPU has the features that [`Avx512::detect`] looks for.
    #[inline(always)]
    unsafe fn equal(self, wanted: u8) -> u64 {
        // SAFETY: the caller's promise; nothing here touches memory.
        unsafe { _mm512_cmpeq_epi8_mask(self.bytes, _mm512_set1_epi8(wanted as i8)) }
    }
}

/// A mask of the first `count` bytes of a block, or all if they are more.
///
/// # Safety
/// The CPU has the features that [`Avx512::detect`] looks for.
#[inline(always)]
unsafe fn first(count: usize) -> u64 {
    // SAFETY: the caller's promise; nothing here touches memory.
    unsafe { _bzhi_u64(u64::MAX, count.min(BLOCK_BYTES) as u32) }
}

/// The products of a block of `count` tokens.
///
/// # Safety
/// The CPU has the features that [`Avx512::detect`] looks for; a block can be read at `tokens`.
#[inline(always)]
unsafe fn product(tokens: *const u8, count: usize, key: __m512i) -> __m512i {
    // SAFETY: the caller's promise. Zeros instead of what is behind the last token.
    unsafe {
        let keyed = _mm512_add_epi32(_mm512_maskz_loadu_epi8(first(count), tokens.cast()), key);
        _mm512_mul_epu32(keyed, _mm512_srli_epi64::<32>(keyed))
    }
}

/// Another key for each block.
///
/// # Safety
/// The CPU has the features that [`Avx512::detect`] looks for.
#[inline(always)]
unsafe fn next_key(key: __m512i) -> __m512i {
    // SAFETY: the caller's promise; nothing here touches memory.
    unsafe { _mm512_add_epi32(_mm512_alignr_epi32::<3>(key, key), _mm512_set1_epi32(0x9e37_79b9_u32 as i32)) }
}

/// Which of the first `count` bytes of two blocks differ.
///
/// # Safety
/// The CPU has the features that [`Avx512::detect`] looks for; a block can be read at both.
#[inline(always)]
unsafe fn unequal(left: *const u8, right: *const u8, count: usize) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let (left, right) = (_mm512_loadu_si512(left.cast()), _mm512_loadu_si512(right.cast()));
        _mm512_mask_cmpneq_epi8_mask(first(count), left, right)
    }
}

impl Simd for Avx512 {
    type Block = Block;

    #[inline(always)]
    fn load(self, bytes: &[u8; BLOCK_BYTES]) -> Self::Block {
        // SAFETY: `self` proves the features; the array is as long as the load, which needs no alignment.
        unsafe { Block::new(_mm512_loadu_si512(bytes.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_front(self, bytes: &[u8]) -> Self::Block {
        assert!(bytes.len() < BLOCK_BYTES);
        // SAFETY: `self` proves the features; bytes outside of the mask are not read, and the mask has `len` ones.
        unsafe { Block::new(_mm512_maskz_loadu_epi8((1 << bytes.len()) - 1, bytes.as_ptr().cast())) }
    }

    #[inline(always)]
    fn plain(self, block: Self::Block) -> Plain {
        // SAFETY: `self` proves the features; nothing here touches memory.
        unsafe {
            // Bytes above ASCII are of no class, but have a top bit. In the table of a ternary 0xf8 is `a | b & c`.
            let rare_classes = _mm512_set1_epi8((BACKSLASH | CONTROL) as i8);
            let rare = _mm512_ternarylogic_epi64::<0xf8>(
                _mm512_and_si512(block.bytes, _mm512_set1_epi8(-128)),
                block.classes,
                rare_classes,
            );
            Plain {
                quote: block.equal(b'"'),
                separator: block.of(STRUCTURAL | SPACE_OR_QUOTE | LINE_FEED),
                structural: block.of(STRUCTURAL),
                rare: _mm512_test_epi8_mask(rare, rare),
            }
        }
    }

    #[inline(always)]
    fn digits(self, window: &[u8; WINDOW_BYTES]) -> u64 {
        // SAFETY: `self` proves the features; the array is as long as the load, which needs no alignment.
        unsafe {
            let bytes = _mm256_loadu_si256(window.as_ptr().cast());
            let values = _mm256_sub_epi8(bytes, _mm256_set1_epi8(b'0' as i8));
            u64::from(_mm256_cmplt_epu8_mask(values, _mm256_set1_epi8(10)))
        }
    }

    #[inline(always)]
    fn masks(self, block: Self::Block) -> Masks {
        // SAFETY: `self` proves the features; nothing here touches memory.
        unsafe {
            let line_feed = block.equal(b'\n');
            let white = block.equal(b'\t') | block.equal(b'\r') | line_feed;
            Masks {
                quote: block.equal(b'"'),
                backslash: block.of(BACKSLASH),
                control: block.of(CONTROL),
                separator: block.of(STRUCTURAL | SPACE_OR_QUOTE) | white,
                structural: block.of(STRUCTURAL),
                high: _mm512_movepi8_mask(block.bytes),
                line_feed,
            }
        }
    }

    #[inline(always)]
    fn braces(self, block: Self::Block) -> (u64, u64) {
        // SAFETY: `self` proves the features; nothing here touches memory.
        unsafe { (block.equal(b'{'), block.equal(b'}')) }
    }

    #[inline(always)]
    fn escapes(self, block: Self::Block) -> (u64, u64) {
        // SAFETY: `self` proves the features; nothing here touches memory.
        unsafe {
            let unicode = block.equal(b'u');
            let mut letters = unicode;
            for letter in *b"\"\\/bfnrt" {
                letters |= block.equal(letter);
            }
            (letters, unicode)
        }
    }

    #[inline(always)]
    fn prefix_xor(self, bits: u64) -> u64 {
        // SAFETY: `self` proves the features; nothing here touches memory.
        unsafe {
            let product = _mm_clmulepi64_si128(_mm_set_epi64x(0, bits as i64), _mm_set1_epi8(-1), 0);
            _mm_cvtsi128_si64(product) as u64
        }
    }

    /// To a register and then stored: a compress to memory is microcode on Zen 4. And only half a register if that is all:
    /// most stores of a whole one would be of two lines of the cache, and cost twice as much.
    #[inline(always)]
    fn append(self, block: Self::Block, wanted: u64, count: usize, tokens: &mut Tokens) {
        let out = tokens[count..].first_chunk_mut::<BLOCK_BYTES>().expect("room for one more block");
        // SAFETY: `self` proves the features; `out` is as long as the longer store, and stores need no alignment.
        unsafe {
            let kept = _mm512_set1_epi8((STRUCTURAL | SPACE_OR_QUOTE | CONTROL) as i8);
            let others = _mm512_testn_epi8_mask(block.classes, kept);
            let folded = _mm512_mask_mov_epi8(block.bytes, others, _mm512_set1_epi8(b'0' as i8));
            let moved = _mm512_maskz_compress_epi8(wanted, folded);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm512_castsi512_si256(moved));
            if wanted.count_ones() > 32 {
                _mm512_storeu_si512(out.as_mut_ptr().cast(), moved);
            }
        }
    }

    /// Eight places at a time: most blocks have no more, and one by one, each takes four instructions.
    #[inline(always)]
    fn note(self, starts: u64, count: usize, at: u32, out: &mut [u32; BLOCK_BYTES / 2]) {
        // SAFETY: `self` proves the features; `out` is as long as the stores, which need no alignment.
        unsafe {
            let places = _mm512_maskz_compress_epi8(starts, _mm512_loadu_si512(INDICES.as_ptr().cast()));
            let eight = _mm256_cvtepu8_epi32(_mm512_castsi512_si128(places));
            let eight = _mm256_add_epi32(eight, _mm256_set1_epi32(at as i32));
            _mm256_storeu_si256(out.as_mut_ptr().cast(), eight);
            if count > 8 {
                let base = _mm512_set1_epi32(at as i32);
                let first = _mm512_cvtepu8_epi32(_mm512_castsi512_si128(places));
                let second = _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32::<1>(places));
                _mm512_storeu_si512(out.as_mut_ptr().cast(), _mm512_add_epi32(first, base));
                _mm512_storeu_si512(out.as_mut_ptr().add(16).cast(), _mm512_add_epi32(second, base));
            }
        }
    }

    /// A sum of products of neighbours with a key added to each, as the hash functions NH and UMASH have it.
    #[inline(always)]
    fn hash(self, tokens: &[u8], count: usize) -> u32 {
        assert!((count + BLOCK_BYTES).max(COMPARED_AT_ONCE) <= tokens.len());
        // SAFETY: `self` proves the features; the tokens are long enough for the loads, and the keys as long as theirs.
        unsafe {
            let first_key = _mm512_loadu_si512(KEYS.as_ptr().cast());
            let mut key = next_key(first_key);
            let mut sum = _mm512_set1_epi64(count as i64);
            sum = _mm512_add_epi64(sum, product(tokens.as_ptr(), count, first_key));
            sum = _mm512_add_epi64(sum, product(tokens.as_ptr().add(64), count.saturating_sub(64), key));
            let mut at = COMPARED_AT_ONCE;
            while at < count {
                key = next_key(key);
                sum = _mm512_add_epi64(sum, product(tokens.as_ptr().add(at), count - at, key));
                at += BLOCK_BYTES;
            }
            let half = _mm256_add_epi64(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum));
            let quarter = _mm_add_epi64(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
            let sum = _mm_cvtsi128_si64(_mm_add_epi64(quarter, _mm_unpackhi_epi64(quarter, quarter))) as u64;
            (sum.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
        }
    }

    #[inline(always)]
    fn equal(self, tokens: &[u8], other: &[u8], count: usize) -> bool {
        assert!((count + BLOCK_BYTES).max(COMPARED_AT_ONCE) <= tokens.len().min(other.len()));
        // SAFETY: `self` proves the features; both are long enough for the loads.
        unsafe {
            let (left, right) = (tokens.as_ptr(), other.as_ptr());
            let mut differing = unequal(left, right, count);
            differing |= unequal(left.add(64), right.add(64), count.saturating_sub(64));
            let mut at = COMPARED_AT_ONCE;
            while at < count {
                differing |= unequal(left.add(at), right.add(at), count - at);
                at += BLOCK_BYTES;
            }
            differing == 0
        }
    }

    #[inline]
    fn run<W: Work>(self, work: W) -> W::Output {
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
        fn with_features<W: Work>(set: Avx512, work: W) -> W::Output {
            work.with(set)
        }
        // SAFETY: `self` was made by `detect`, which found every feature named above.
        unsafe { with_features(self, work) }
    }
}
