//! The block operations on two AVX2 registers: x86-64 from Haswell and Zen on. Pure.
#![allow(unsafe_code, reason = "vector instructions; that the CPU has them is proven by the value of the type")]

use std::arch::x86_64::*;

use super::gather::MOVES;
use super::portable;
use super::{BLOCK_BYTES, Masks, Plain, Simd, Tokens, Work};

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

/// Brackets folded to braces. Folding also takes 0x0c for a comma and 0x1a for a colon, which the caller takes out again.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn is_structural_or_control(bytes: __m256i) -> __m256i {
    // SAFETY: the caller's promise; nothing here touches memory but the table.
    unsafe {
        let folded = _mm256_or_si256(bytes, _mm256_set1_epi8(0x20));
        _mm256_cmpeq_epi8(folded, _mm256_shuffle_epi8(table(&STRUCTURAL), bytes))
    }
}

/// Digits and `-` as `0`, other bytes as they are.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn folded(bytes: __m256i) -> __m256i {
    // SAFETY: the caller's promise; nothing here touches memory.
    unsafe {
        let minus = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b'-' as i8));
        let number = _mm256_or_si256(is_digit(bytes), minus);
        _mm256_blendv_epi8(bytes, _mm256_set1_epi8(b'0' as i8), number)
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
/// Structural characters, brackets folded to braces, by their low half.
static STRUCTURAL: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b':', b'{', b',', b'}', 0, 0];

impl Simd for Avx2 {
    type Block = Pair;
    type Waiting = ();

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
            let structural = mask(is_structural_or_control(block.0), is_structural_or_control(block.1));
            let quote = equal(block, b'"');
            Plain {
                quote,
                // The other white space is rare.
                separator: structural | quote | equal(block, b' '),
                structural,
                rare: mask(is_rare(block.0), is_rare(block.1)),
            }
        }
    }

    #[inline(always)]
    fn digits(self, block: Self::Block) -> u64 {
        // SAFETY: `self` proves AVX2.
        unsafe { mask(is_digit(block.0), is_digit(block.1)) }
    }

    #[inline(always)]
    fn masks(self, block: Self::Block) -> Masks {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let control = mask(is_control(block.0), is_control(block.1));
            let structural = mask(is_structural_or_control(block.0), is_structural_or_control(block.1));
            let structural = structural & !control;
            let quote = equal(block, b'"');
            Masks {
                quote,
                backslash: equal(block, b'\\'),
                control,
                separator: mask(is_white(block.0), is_white(block.1)) | structural | quote,
                structural,
                high: mask(block.0, block.1),
                line_feed: equal(block, b'\n'),
            }
        }
    }

    #[inline(always)]
    fn line_feeds(self, block: Self::Block) -> u64 {
        // SAFETY: `self` proves AVX2.
        unsafe { equal(block, b'\n') }
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
    fn none_waiting(self) {}

    #[inline(always)]
    fn append(self, block: Self::Block, wanted: u64, (): (), count: usize, tokens: &mut Tokens) {
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

    #[inline(always)]
    fn store(self, (): (), _: usize, _: &mut Tokens) {}

    #[inline(always)]
    fn hash(self, tokens: &[u8], count: usize) -> u32 {
        portable::hash(tokens, count)
    }

    #[inline(always)]
    fn equal(self, tokens: &[u8], other: &[u8], count: usize) -> bool {
        assert!(count + BLOCK_BYTES <= tokens.len().min(other.len()));
        let mut differing = 0;
        let mut at = 0;
        while at < count {
            let wanted = u32::MAX >> (32 - (count - at).min(32));
            // SAFETY: `self` proves AVX2; `at` is below `count`, and behind that there is room for a block.
            unsafe {
                let left = _mm256_loadu_si256(tokens.as_ptr().add(at).cast());
                let right = _mm256_loadu_si256(other.as_ptr().add(at).cast());
                differing |= !(_mm256_movemask_epi8(_mm256_cmpeq_epi8(left, right)) as u32) & wanted;
            }
            at += 32;
        }
        differing == 0
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
