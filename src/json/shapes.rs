//! Shapes of events proven to be JSON objects: what makes the next event of the same shape cheap. Shard thread; pure.
//!
//! A shape is a string of tokens ([`super::grammar`]). What is remembered is the string itself: a hash finds where to
//! look, and every byte is compared, so no collision can pass one shape for another. Memory is bounded: sets of four
//! ways, and in each set the clock hand passes over shapes that were used since it last came by.

use super::simd::{BLOCK_BYTES, Simd};

/// A shape of more tokens is not remembered. An event of 4.2 KB has about a thousand.
pub(super) const SHAPE_TOKENS_MAX: usize = 4096;
/// Keys of the outermost object that are remembered with a shape; with more, none are.
const KEYS_MAX: usize = 64;
/// Shapes a hash value can stand for.
const WAYS: usize = 4;
/// Sets of shapes: 128 shapes in all, of which a page is touched when it is first used. Half a MiB at most.
const SETS: usize = 32;
/// Bytes from one shape to the next. Not a power of two: shapes 4 KiB apart would share the same few lines of the
/// first-level cache.
const STRIDE: usize = SHAPE_TOKENS_MAX + 2 * BLOCK_BYTES;
/// Words of eight tokens that count for the hash; what differs later only is told apart by comparing.
const HASHED_WORDS_MAX: usize = 64;

/// Odd multipliers for the words of a shape: SplitMix64 from a fixed seed.
static MULTIPLIERS: [u64; HASHED_WORDS_MAX] = {
    let mut multipliers = [0; HASHED_WORDS_MAX];
    let mut state = 0x7469_6465_6761_7465_u64;
    let mut at = 0;
    while at < multipliers.len() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        multipliers[at] = (bits ^ (bits >> 31)) | 1;
        at += 1;
    }
    multipliers
};

/// The hash of `tokens`: a sum of products, which the CPU forms side by side. Not for strangers to be kept from
/// colliding: a collision costs a walk over the grammar, as a new shape does.
#[inline(always)]
pub(super) fn hash_of(tokens: &[u8]) -> u32 {
    let (words, rest) = tokens.as_chunks::<8>();
    let mut sum = (tokens.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for (word, multiplier) in words.iter().zip(&MULTIPLIERS) {
        sum = sum.wrapping_add(u64::from_le_bytes(*word).wrapping_mul(*multiplier));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    sum = sum.wrapping_add((u64::from_le_bytes(last) ^ sum >> 32).wrapping_mul(MULTIPLIERS[0]));
    (sum >> 32) as u32
}

/// A remembered shape, until the next one is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(usize);

/// The length of no shape.
const VACANT: u16 = u16::MAX;
const _: () = assert!(SHAPE_TOKENS_MAX < VACANT as usize);

#[derive(Clone, Copy)]
struct Set {
    hashes: [u32; WAYS],
    /// Tokens of each shape, or [`VACANT`].
    lens: [u16; WAYS],
    used: [bool; WAYS],
    hand: u8,
}

#[derive(Clone, Copy)]
struct Keys {
    count: u8,
    tokens: [u16; KEYS_MAX],
}

/// Collects the keys of a shape while the grammar is walked.
pub(super) struct KeyList(Keys, bool);

impl KeyList {
    pub(super) fn new() -> Self {
        Self(Keys { count: 0, tokens: [0; KEYS_MAX] }, true)
    }

    /// The outermost object has a key at this token.
    #[inline]
    pub(super) fn push(&mut self, token: usize) {
        let at = usize::from(self.0.count);
        if at < KEYS_MAX && token <= SHAPE_TOKENS_MAX {
            self.0.tokens[at] = token as u16;
            self.0.count += 1;
        } else {
            self.1 = false;
        }
    }
}

/// See the module text.
pub(super) struct Shapes {
    sets: Vec<Set>,
    tokens: Vec<u8>,
    keys: Vec<Option<Keys>>,
}

impl Shapes {
    pub(super) fn new() -> Self {
        Self {
            sets: vec![Set { hashes: [0; WAYS], lens: [VACANT; WAYS], used: [false; WAYS], hand: 0 }; SETS],
            tokens: vec![0; SETS * WAYS * STRIDE],
            keys: vec![None; SETS * WAYS],
        }
    }

    /// The shape with exactly these tokens, if it is remembered. Its hash is `hash_of(tokens)`.
    #[inline(always)]
    pub(super) fn find<S: Simd>(&mut self, simd: S, tokens: &[u8], hash: u32) -> Option<Slot> {
        let index = hash as usize % SETS;
        let set = &mut self.sets[index];
        for way in 0..WAYS {
            if set.hashes[way] == hash && usize::from(set.lens[way]) == tokens.len() {
                let slot = index * WAYS + way;
                let start = slot * STRIDE;
                if simd.equal(tokens, &self.tokens[start..start + tokens.len()]) {
                    set.used[way] = true;
                    return Some(Slot(slot));
                }
            }
        }
        None
    }

    /// Remembers `tokens`, which are at least one and at most [`SHAPE_TOKENS_MAX`], in place of a shape that was not used
    /// for a while.
    pub(super) fn insert(&mut self, tokens: &[u8], hash: u32, keys: &KeyList) -> Slot {
        assert!(!tokens.is_empty() && tokens.len() <= SHAPE_TOKENS_MAX, "a shape of {} tokens", tokens.len());
        let index = hash as usize % SETS;
        let set = &mut self.sets[index];
        // At most one round: a shape passed over is not used any more when the hand comes back.
        while std::mem::take(&mut set.used[usize::from(set.hand)]) {
            set.hand = (set.hand + 1) % WAYS as u8;
        }
        let way = usize::from(set.hand);
        set.hand = (set.hand + 1) % WAYS as u8;
        set.hashes[way] = hash;
        set.lens[way] = tokens.len() as u16;
        let slot = index * WAYS + way;
        self.tokens[slot * STRIDE..slot * STRIDE + tokens.len()].copy_from_slice(tokens);
        self.keys[slot] = keys.1.then_some(keys.0);
        Slot(slot)
    }

    /// Which tokens are keys of the outermost object, in order; `None` if they are too many to remember.
    pub(super) fn keys_of(&self, slot: Slot) -> Option<&[u16]> {
        self.keys[slot.0].as_ref().map(|keys| &keys.tokens[..usize::from(keys.count)])
    }
}
