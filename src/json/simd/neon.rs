//! The block operations on four NEON registers: every aarch64. Pure.
#![allow(unsafe_code, reason = "vector instructions; that the CPU has them is proven by the value of the type")]

use std::arch::aarch64::*;

use super::gather::MOVES;
use super::portable::{self, prefix_xor};
use super::{BLOCK_BYTES, Masks, Plain, Simd, Tokens, WINDOW_BYTES, Work};

/// Exists only where [`Neon::detect`] found every feature used here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::json) struct Neon(());

impl Neon {
    /// The proof that this CPU has what is used here, if it has.
    pub(super) fn detect() -> Option<Self> {
        (!cfg!(miri) && std::arch::is_aarch64_feature_detected!("neon")).then_some(Self(()))
    }
}

/// White space by its low half. The others hold 0, which is no byte of their own low half, but for space itself.
static WHITE: [u8; 16] = [b' ', 0, 0, 0, 0, 0, 0, 0, 0, b'\t', b'\n', 0, 0, b'\r', 0, 0];
/// The weight of each byte of a half block in its mask.
static WEIGHTS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];

/// One bit per byte of a block, of bytes that are all ones or zeros.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn mask(classes: [uint8x16_t; 4]) -> u64 {
    // SAFETY: the caller's promise; the weights are as long as the load. Three pairwise sums add the eight weights of
    // each eight bytes, and leave the sums of the block in order.
    unsafe {
        let weights = vld1q_u8(WEIGHTS.as_ptr());
        let low = vpaddq_u8(vandq_u8(classes[0], weights), vandq_u8(classes[1], weights));
        let high = vpaddq_u8(vandq_u8(classes[2], weights), vandq_u8(classes[3], weights));
        let sums = vpaddq_u8(low, high);
        vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(sums, sums)), 0)
    }
}

// Functions and not closures: a closure does not have the features of the function around it, so that the instructions
// in it would become calls.

/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn equal(block: [uint8x16_t; 4], wanted: u8) -> u64 {
    // SAFETY: the caller's promise; nothing here touches memory.
    unsafe {
        let wanted = vdupq_n_u8(wanted);
        mask([
            vceqq_u8(block[0], wanted),
            vceqq_u8(block[1], wanted),
            vceqq_u8(block[2], wanted),
            vceqq_u8(block[3], wanted),
        ])
    }
}

/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn is_white(bytes: uint8x16_t) -> uint8x16_t {
    // SAFETY: the caller's promise; the table is as long as the load. Bytes above ASCII have a low half too, but are not
    // equal to what it stands for.
    unsafe { vceqq_u8(bytes, vqtbl1q_u8(vld1q_u8(WHITE.as_ptr()), vandq_u8(bytes, vdupq_n_u8(0x0f)))) }
}

/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn is_structural(bytes: uint8x16_t) -> uint8x16_t {
    // SAFETY: the caller's promise; nothing here touches memory. A bracket differs from its brace in one bit.
    unsafe {
        let folded = vorrq_u8(bytes, vdupq_n_u8(0x20));
        let brackets = vorrq_u8(vceqq_u8(folded, vdupq_n_u8(b'{')), vceqq_u8(folded, vdupq_n_u8(b'}')));
        let others = vorrq_u8(vceqq_u8(bytes, vdupq_n_u8(b':')), vceqq_u8(bytes, vdupq_n_u8(b',')));
        vorrq_u8(brackets, others)
    }
}

/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn is_control(bytes: uint8x16_t) -> uint8x16_t {
    // SAFETY: the caller's promise; nothing here touches memory.
    unsafe { vcltq_u8(bytes, vdupq_n_u8(0x20)) }
}

/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn is_high(bytes: uint8x16_t) -> uint8x16_t {
    // SAFETY: the caller's promise; nothing here touches memory.
    unsafe { vcgeq_u8(bytes, vdupq_n_u8(0x80)) }
}

/// Digits.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn is_digit(bytes: uint8x16_t) -> uint8x16_t {
    // SAFETY: the caller's promise; nothing here touches memory.
    unsafe { vcleq_u8(vsubq_u8(bytes, vdupq_n_u8(b'0')), vdupq_n_u8(9)) }
}

/// Backslashes, control characters and bytes above ASCII.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn is_rare(bytes: uint8x16_t) -> uint8x16_t {
    // SAFETY: the caller's promise; nothing here touches memory.
    unsafe { vorrq_u8(vorrq_u8(vceqq_u8(bytes, vdupq_n_u8(b'\\')), is_control(bytes)), is_high(bytes)) }
}

/// Structural characters, quotes and control characters as they are, other bytes as `0`.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn folded(bytes: uint8x16_t) -> uint8x16_t {
    // SAFETY: the caller's promise; nothing here touches memory.
    unsafe {
        let quote = vceqq_u8(bytes, vdupq_n_u8(b'"'));
        let kept = vorrq_u8(vorrq_u8(is_structural(bytes), is_control(bytes)), quote);
        vbslq_u8(kept, bytes, vdupq_n_u8(b'0'))
    }
}

impl Simd for Neon {
    type Block = [uint8x16_t; 4];

    #[inline(always)]
    fn load(self, bytes: &[u8; BLOCK_BYTES]) -> Self::Block {
        let at = bytes.as_ptr();
        // SAFETY: `self` proves NEON; the array is as long as the four loads, which need no alignment.
        unsafe { [vld1q_u8(at), vld1q_u8(at.add(16)), vld1q_u8(at.add(32)), vld1q_u8(at.add(48))] }
    }

    #[inline(always)]
    fn load_front(self, bytes: &[u8]) -> Self::Block {
        let mut padded = [0; BLOCK_BYTES];
        padded[..bytes.len()].copy_from_slice(bytes);
        self.load(&padded)
    }

    #[inline(always)]
    fn plain(self, block: Self::Block) -> Plain {
        let [a, b, c, d] = block;
        // SAFETY: `self` proves NEON.
        unsafe {
            let structural = mask([is_structural(a), is_structural(b), is_structural(c), is_structural(d)]);
            let quote = equal(block, b'"');
            Plain {
                quote,
                separator: structural | quote | equal(block, b'\n') | equal(block, b' '),
                structural,
                rare: mask([is_rare(a), is_rare(b), is_rare(c), is_rare(d)]),
            }
        }
    }

    #[inline(always)]
    fn digits(self, window: &[u8; WINDOW_BYTES]) -> u64 {
        // SAFETY: `self` proves NEON; the array is as long as the two loads.
        unsafe {
            let (low, high) = (vld1q_u8(window.as_ptr()), vld1q_u8(window.as_ptr().add(16)));
            let none = vdupq_n_u8(0);
            mask([is_digit(low), is_digit(high), none, none])
        }
    }

    #[inline(always)]
    fn masks(self, block: Self::Block) -> Masks {
        let [a, b, c, d] = block;
        // SAFETY: `self` proves NEON.
        unsafe {
            let quote = equal(block, b'"');
            let white = mask([is_white(a), is_white(b), is_white(c), is_white(d)]);
            let structural = mask([is_structural(a), is_structural(b), is_structural(c), is_structural(d)]);
            Masks {
                quote,
                backslash: equal(block, b'\\'),
                control: mask([is_control(a), is_control(b), is_control(c), is_control(d)]),
                separator: white | structural | quote,
                structural,
                high: mask([is_high(a), is_high(b), is_high(c), is_high(d)]),
                line_feed: equal(block, b'\n'),
            }
        }
    }

    #[inline(always)]
    fn braces(self, block: Self::Block) -> (u64, u64) {
        // SAFETY: `self` proves NEON.
        unsafe { (equal(block, b'{'), equal(block, b'}')) }
    }

    #[inline(always)]
    fn escapes(self, block: Self::Block) -> (u64, u64) {
        // SAFETY: `self` proves NEON.
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
        prefix_xor(bits)
    }

    #[inline(always)]
    fn append(self, block: Self::Block, wanted: u64, count: usize, tokens: &mut Tokens) {
        let out = tokens[count..].first_chunk_mut::<BLOCK_BYTES>().expect("room for one more block");
        let mut count = 0;
        // SAFETY: `self` proves NEON. A row of the table is as long as its load. Each store is of 8 bytes at `count`,
        // which is at most 8 * the eighths before it, so at most 56, and `out` has 64.
        unsafe {
            for eighth in 0..8 {
                let set = (wanted >> (8 * eighth)) as u8;
                let quarter = folded(block[eighth / 2]);
                let half = if eighth % 2 == 0 { vget_low_u8(quarter) } else { vget_high_u8(quarter) };
                let moved = vtbl1_u8(half, vld1_u8(MOVES[usize::from(set)].as_ptr()));
                vst1_u8(out.as_mut_ptr().add(count), moved);
                count += set.count_ones() as usize;
            }
        }
    }

    #[inline(always)]
    fn hash(self, tokens: &[u8], count: usize) -> u32 {
        portable::hash(tokens, count)
    }

    #[inline(always)]
    fn equal(self, tokens: &[u8], other: &[u8], count: usize) -> bool {
        tokens[..count] == other[..count]
    }

    #[inline]
    fn run<W: Work>(self, work: W) -> W::Output {
        #[inline(never)]
        #[target_feature(enable = "neon")]
        fn with_features<W: Work>(set: Neon, work: W) -> W::Output {
            work.with(set)
        }
        // SAFETY: `self` was made by `detect`, which found NEON.
        unsafe { with_features(self, work) }
    }
}
