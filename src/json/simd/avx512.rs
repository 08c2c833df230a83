//! The block operations on one AVX-512 register: x86-64 with VBMI (table look-up by byte) and VBMI2 (byte compress), from
//! Ice Lake and Zen 4 on. Pure.
#![allow(unsafe_code, reason = "vector instructions; that the CPU has them is proven by the value of the type")]

use std::arch::x86_64::*;

use super::{BLOCK_BYTES, Masks, Plain, Simd, Tokens, Work};

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
const MINUS: u8 = 16;
const BACKSLASH: u8 = 32;
const CONTROL: u8 = 64;
const DIGIT: u8 = 128;

const STRUCTURAL: u8 = BRACKET | COLON | COMMA;

/// Classes that a byte may be of by its low half.
static BY_LOW: [u8; 64] = repeated([
    CONTROL | DIGIT | SPACE_OR_QUOTE,
    CONTROL | DIGIT,
    CONTROL | DIGIT | SPACE_OR_QUOTE,
    CONTROL | DIGIT,
    CONTROL | DIGIT,
    CONTROL | DIGIT,
    CONTROL | DIGIT,
    CONTROL | DIGIT,
    CONTROL | DIGIT,
    CONTROL | DIGIT,
    CONTROL | COLON,
    CONTROL | BRACKET,
    CONTROL | COMMA | BACKSLASH,
    CONTROL | BRACKET | MINUS,
    CONTROL,
    CONTROL,
]);

/// Classes that it may be of by its high half; none above ASCII.
static BY_HIGH: [u8; 64] = repeated([
    CONTROL,
    CONTROL,
    SPACE_OR_QUOTE | COMMA | MINUS,
    DIGIT | COLON,
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

/// Where the bytes of a register come from when they are turned: sixty-four from byte `64 - n` on turn it by `n`.
static TURNS: [u8; 128] = {
    let mut turns = [0; 128];
    let mut at = 0;
    while at < turns.len() {
        turns[at] = (at % BLOCK_BYTES) as u8;
        at += 1;
    }
    turns
};

/// What is added to tokens before they are multiplied: SplitMix64 from a fixed seed.
static KEYS: [u64; 8] = {
    let mut keys = [0; 8];
    let mut state = 0x7469_6465_6761_7465_u64;
    let mut at = 0;
    while at < keys.len() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        keys[at] = bits ^ (bits >> 31);
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

impl Simd for Avx512 {
    type Block = Block;
    type Waiting = __m512i;

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
                separator: block.of(STRUCTURAL | SPACE_OR_QUOTE),
                structural: block.of(STRUCTURAL),
                rare: _mm512_test_epi8_mask(rare, rare),
            }
        }
    }

    #[inline(always)]
    fn digits(self, block: Self::Block) -> u64 {
        // SAFETY: `self` proves the features; nothing here touches memory.
        unsafe { block.of(DIGIT) }
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
    fn line_feeds(self, block: Self::Block) -> u64 {
        // SAFETY: `self` proves the features; nothing here touches memory.
        unsafe { block.equal(b'\n') }
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

    #[inline(always)]
    fn none_waiting(self) -> Self::Waiting {
        // SAFETY: `self` proves the features; nothing here touches memory.
        unsafe { _mm512_setzero_si512() }
    }

    /// Tokens are stored sixty-four at a time, each once: what is stored over what was just stored cannot be read back
    /// before all of it has reached the cache, and a hash of the tokens would wait for that.
    #[inline(always)]
    fn append(
        self,
        block: Self::Block,
        wanted: u64,
        waiting: Self::Waiting,
        count: usize,
        tokens: &mut Tokens,
    ) -> Self::Waiting {
        let waiting_count = count % BLOCK_BYTES;
        let new_count = waiting_count + wanted.count_ones() as usize;
        // SAFETY: `self` proves the features. The load is of 64 of the table's 128 bytes, from byte 64 - 63 on at least;
        // the store is to an array of its length.
        unsafe {
            let folded = _mm512_mask_mov_epi8(block.bytes, block.of(DIGIT | MINUS), _mm512_set1_epi8(b'0' as i8));
            let moved = _mm512_maskz_compress_epi8(wanted, folded);
            // Turned by as many as wait, with zeros around them.
            let turn = _mm512_loadu_si512(TURNS.as_ptr().add(BLOCK_BYTES - waiting_count).cast());
            let turned = _mm512_permutexvar_epi8(turn, moved);
            if new_count < BLOCK_BYTES {
                return _mm512_or_si512(waiting, turned);
            }
            let left_over = (1 << (new_count - BLOCK_BYTES)) - 1;
            let full = _mm512_or_si512(waiting, _mm512_maskz_mov_epi8(!left_over, turned));
            let out = tokens[count - waiting_count..].first_chunk_mut::<BLOCK_BYTES>().expect("there is room");
            _mm512_storeu_si512(out.as_mut_ptr().cast(), full);
            _mm512_maskz_mov_epi8(left_over, turned)
        }
    }

    #[inline(always)]
    fn store(self, waiting: Self::Waiting, count: usize, tokens: &mut Tokens) {
        let start = count / BLOCK_BYTES * BLOCK_BYTES;
        let out = tokens[start..].first_chunk_mut::<BLOCK_BYTES>().expect("there is room");
        // SAFETY: `self` proves the features; `out` is as long as the store, which needs no alignment.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), waiting) }
    }

    /// A sum of products of neighbours with a key added to each, as the hash functions NH and UMASH have it.
    #[inline(always)]
    fn hash(self, tokens: &[u8], count: usize) -> u32 {
        assert!(count + BLOCK_BYTES <= tokens.len());
        let mut at = 0;
        // SAFETY: `self` proves the features; behind `count` there is room for a block, and the keys are as long as
        // their load.
        unsafe {
            let mut key = _mm512_loadu_si512(KEYS.as_ptr().cast());
            let mut sum = _mm512_set1_epi64(count as i64);
            loop {
                let block = _mm512_loadu_si512(tokens.as_ptr().add(at).cast());
                // Zeros instead of what is behind the last token.
                let wanted = u64::MAX >> (BLOCK_BYTES - (count - at).clamp(1, BLOCK_BYTES));
                let keyed = _mm512_add_epi32(_mm512_maskz_mov_epi8(wanted, block), key);
                sum = _mm512_add_epi64(sum, _mm512_mul_epu32(keyed, _mm512_srli_epi64::<32>(keyed)));
                at += BLOCK_BYTES;
                if at >= count {
                    break;
                }
                // Another key for each block.
                key = _mm512_alignr_epi32::<3>(key, key);
                key = _mm512_add_epi32(key, _mm512_set1_epi32(0x9e37_79b9_u32 as i32));
            }
            let half = _mm256_add_epi64(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum));
            let quarter = _mm_add_epi64(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
            let sum = _mm_cvtsi128_si64(_mm_add_epi64(quarter, _mm_unpackhi_epi64(quarter, quarter))) as u64;
            (sum.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
        }
    }

    #[inline(always)]
    fn equal(self, tokens: &[u8], other: &[u8], count: usize) -> bool {
        assert!(count + BLOCK_BYTES <= tokens.len().min(other.len()));
        let mut differing = 0;
        let mut at = 0;
        while at < count {
            let wanted = u64::MAX >> (BLOCK_BYTES - (count - at).min(BLOCK_BYTES));
            // SAFETY: `self` proves the features; `at` is below `count`, and behind that there is room for a block.
            unsafe {
                let left = _mm512_loadu_si512(tokens.as_ptr().add(at).cast());
                let right = _mm512_loadu_si512(other.as_ptr().add(at).cast());
                differing |= _mm512_mask_cmpneq_epi8_mask(wanted, left, right);
            }
            at += BLOCK_BYTES;
        }
        differing == 0
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
