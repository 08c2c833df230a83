//! The block operations on one AVX-512 register: x86-64 with VBMI (table look-up by byte) and VBMI2 (byte compress), from
//! Ice Lake and Zen 4 on. Pure.
#![allow(unsafe_code, reason = "vector instructions; that the CPU has them is proven by the value of the type")]

use std::arch::x86_64::*;

use super::{BLOCK_BYTES, Masks, Plain, Simd, Work};

/// Exists only where [`Avx512::detect`] found every feature used here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::json) struct Avx512(());

const SEPARATOR: u8 = 1;
const STRUCTURAL: u8 = 2;
const QUOTE: u8 = 4;
const CONTROL: u8 = 8;
const BACKSLASH: u8 = 16;
const ESCAPE: u8 = 32;
/// Not in the table: of bytes above ASCII, by their own top bit.
const HIGH: u8 = 128;

/// Class of each ASCII byte.
static CLASSES: [u8; 128] = {
    let mut classes = [0; 128];
    let mut byte = 0;
    while byte < classes.len() {
        classes[byte] = match byte as u8 {
            b' ' => SEPARATOR,
            b'\t' | b'\n' | b'\r' => SEPARATOR | CONTROL,
            b'{' | b'}' | b'[' | b']' | b':' | b',' => SEPARATOR | STRUCTURAL,
            b'"' => SEPARATOR | QUOTE | ESCAPE,
            b'\\' => BACKSLASH | ESCAPE,
            b'/' | b'b' | b'f' | b'n' | b'r' | b't' | b'u' => ESCAPE,
            0..0x20 => CONTROL,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

/// The token of each ASCII byte: digits and `-` as `0`, others as they are.
static TOKENS: [u8; 128] = {
    let mut tokens = [0; 128];
    let mut byte = 0;
    while byte < tokens.len() {
        tokens[byte] = match byte as u8 {
            b'0'..=b'9' | b'-' => b'0',
            other => other,
        };
        byte += 1;
    }
    tokens
};

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

    /// Runs `work` compiled with these features.
    #[inline]
    pub(super) fn run<W: Work>(self, work: W) -> W::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
        fn with_features<W: Work>(set: Avx512, work: W) -> W::Output {
            work.with(set)
        }
        // SAFETY: `self` was made by `detect`, which found every feature named above.
        unsafe { with_features(self, work) }
    }
}

/// The bytes that are of a class.
///
/// # Safety
/// The CPU has the features that [`Avx512::detect`] looks for.
#[inline(always)]
unsafe fn of(classes: __m512i, class: u8) -> u64 {
    // SAFETY: the caller's promise; nothing here touches memory.
    unsafe { _mm512_test_epi8_mask(classes, _mm512_set1_epi8(class as i8)) }
}

/// What `table` has for each byte of a block, its top bit aside.
///
/// # Safety
/// The CPU has the features that [`Avx512::detect`] looks for.
#[inline(always)]
unsafe fn looked_up_modulo(table: &[u8; 128], block: __m512i) -> __m512i {
    let table = table.as_ptr();
    // SAFETY: the caller's promise; the two halves of the table are 64 bytes each.
    unsafe {
        let low = _mm512_loadu_si512(table.cast());
        let high = _mm512_loadu_si512(table.add(64).cast());
        _mm512_permutex2var_epi8(low, block, high)
    }
}

/// What `table` has for each byte of a block. Bytes above ASCII, which the look-up would take modulo 128, get zero.
///
/// # Safety
/// The CPU has the features that [`Avx512::detect`] looks for.
#[inline(always)]
unsafe fn looked_up(table: &[u8; 128], block: __m512i) -> __m512i {
    let table = table.as_ptr();
    // SAFETY: the caller's promise; the two halves of the table are 64 bytes each.
    unsafe {
        let low = _mm512_loadu_si512(table.cast());
        let high = _mm512_loadu_si512(table.add(64).cast());
        _mm512_maskz_permutex2var_epi8(!_mm512_movepi8_mask(block), low, block, high)
    }
}

impl Simd for Avx512 {
    type Block = __m512i;

    #[inline(always)]
    fn load(self, bytes: &[u8; BLOCK_BYTES]) -> Self::Block {
        // SAFETY: `self` proves the features; the array is as long as the load, which needs no alignment.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_front(self, bytes: &[u8]) -> Self::Block {
        assert!(bytes.len() < BLOCK_BYTES);
        // SAFETY: `self` proves the features; bytes outside of the mask are not read, and the mask has `len` ones.
        unsafe { _mm512_maskz_loadu_epi8((1 << bytes.len()) - 1, bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn plain(self, block: Self::Block) -> Option<Plain> {
        // SAFETY: `self` proves the features; nothing here touches memory but the tables.
        unsafe {
            // Without a mask, which costs two instructions: bytes above ASCII get the class of others, and are rare.
            let classes = looked_up_modulo(&CLASSES, block);
            // In the ternary's table 0xf8 is `a | b & c`.
            let rare = _mm512_ternarylogic_epi64::<0xf8>(classes, block, _mm512_set1_epi8(HIGH as i8));
            if of(rare, BACKSLASH | CONTROL | HIGH) != 0 {
                return None;
            }
            Some(Plain {
                quote: of(classes, QUOTE),
                separator: of(classes, SEPARATOR),
                structural: of(classes, STRUCTURAL),
            })
        }
    }

    #[inline(always)]
    fn masks(self, block: Self::Block) -> Masks {
        // SAFETY: `self` proves the features; nothing here touches memory.
        unsafe {
            let classes = looked_up(&CLASSES, block);
            Masks {
                quote: of(classes, QUOTE),
                backslash: of(classes, BACKSLASH),
                control: of(classes, CONTROL),
                separator: of(classes, SEPARATOR),
                structural: of(classes, STRUCTURAL),
                high: _mm512_movepi8_mask(block),
                line_feed: _mm512_cmpeq_epi8_mask(block, _mm512_set1_epi8(b'\n' as i8)),
            }
        }
    }

    #[inline(always)]
    fn braces(self, block: Self::Block) -> (u64, u64) {
        // SAFETY: `self` proves the features; nothing here touches memory.
        unsafe {
            (
                _mm512_cmpeq_epi8_mask(block, _mm512_set1_epi8(b'{' as i8)),
                _mm512_cmpeq_epi8_mask(block, _mm512_set1_epi8(b'}' as i8)),
            )
        }
    }

    #[inline(always)]
    fn escapes(self, block: Self::Block) -> (u64, u64) {
        // SAFETY: `self` proves the features; nothing here touches memory.
        unsafe { (of(looked_up(&CLASSES, block), ESCAPE), _mm512_cmpeq_epi8_mask(block, _mm512_set1_epi8(b'u' as i8))) }
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
    fn gather(self, block: Self::Block, wanted: u64, out: &mut [u8; BLOCK_BYTES]) {
        // SAFETY: `self` proves the features; `out` is as long as the store, which needs no alignment. The compress goes
        // to a register first: compressing to memory is microcode on Zen 4, a hundred cycles instead of three.
        unsafe {
            // Unlike the other sets this one makes bytes above ASCII 0. Both are no token of any object.
            let moved = _mm512_maskz_compress_epi8(wanted, looked_up(&TOKENS, block));
            _mm512_storeu_si512(out.as_mut_ptr().cast(), moved);
        }
    }

    #[inline(always)]
    fn equal(self, left: &[u8], right: &[u8]) -> bool {
        assert_eq!(left.len(), right.len());
        let (left_blocks, left_rest) = left.as_chunks::<BLOCK_BYTES>();
        let (right_blocks, right_rest) = right.as_chunks::<BLOCK_BYTES>();
        let mut differing = 0;
        // SAFETY: `self` proves the features; nothing here touches memory.
        unsafe {
            for (left, right) in left_blocks.iter().zip(right_blocks) {
                differing |= _mm512_cmpneq_epi8_mask(self.load(left), self.load(right));
            }
            differing |= _mm512_cmpneq_epi8_mask(self.load_front(left_rest), self.load_front(right_rest));
        }
        differing == 0
    }
}
