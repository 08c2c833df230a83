//! Shapes of events proven to be JSON objects: what makes the next event of the same shape cheap. Shard thread; pure.
//!
//! A shape is a string of tokens ([`super::grammar`]). What is remembered is the string itself: a hash finds where to
//! look, and every byte is compared, so no collision can pass one shape for another. Memory is bounded: sets of four
//! ways, and in each set the clock hand passes over shapes that were used since it last came by.

use super::simd::{BLOCK_BYTES, Simd};

/// A shape of more tokens is not remembered. An event of 4.2 KB has about a thousand.
pub(super) const SHAPE_TOKENS_MAX: usize = 4096;
/// Room for them, and a block to be read behind the last.
const SHAPE_ROOM: usize = SHAPE_TOKENS_MAX + 2 * BLOCK_BYTES;
/// Keys of the outermost object that are remembered with a shape; with more, none are.
const KEYS_MAX: usize = 64;
/// Shapes a hash value can stand for.
const WAYS: usize = 4;
/// Sets of shapes: 128 shapes in all, of which a page is touched when it is first used. Half a MiB at most.
const SETS: usize = 32;
// Shapes 4 KiB apart would share the same few lines of the first-level cache.
const _: () = assert!(!SHAPE_ROOM.is_power_of_two());

/// A remembered shape: where it is kept, and the how-manieth it is to be kept there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    index: u16,
    stamp: u32,
}

#[derive(Clone, Copy)]
struct Set {
    /// Hash and number of tokens of each shape; 0 is none's, for a shape has tokens.
    tags: [u64; WAYS],
    used: [bool; WAYS],
    hand: u8,
}

/// What tells a shape from others of its set, but for some.
fn tag_of(hash: u32, count: usize) -> u64 {
    u64::from(hash) << 32 | count as u64
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
    sets: [Set; SETS],
    tokens: Vec<[u8; SHAPE_ROOM]>,
    keys: Vec<Option<Keys>>,
    /// How many shapes were kept in each place.
    stamps: Vec<u32>,
    /// Where the shape is that was found or inserted last, and its tokens: before the first, more than any.
    last: usize,
    last_count: usize,
}

impl Shapes {
    pub(super) fn new() -> Self {
        Self {
            sets: [Set { tags: [0; WAYS], used: [false; WAYS], hand: 0 }; SETS],
            tokens: vec![[0; SHAPE_ROOM]; SETS * WAYS],
            keys: vec![None; SETS * WAYS],
            stamps: vec![0; SETS * WAYS],
            last: 0,
            last_count: usize::MAX,
        }
    }

    /// The shape of exactly the first `count` of `tokens`, if it is remembered. `hash` is theirs by [`Simd::hash`].
    #[inline(always)]
    pub(super) fn find<S: Simd>(&mut self, simd: S, tokens: &[u8], count: usize, hash: u32) -> Option<Slot> {
        debug_assert!(count > 0, "no tokens would be found where there is no shape yet");
        let index = hash as usize % SETS;
        let (set, tag) = (&mut self.sets[index], tag_of(hash, count));
        // Which way it is decides no branch: that differs from event to event.
        let mut found = WAYS;
        for way in 0..WAYS {
            found = if set.tags[way] == tag { way } else { found };
        }
        if found == WAYS || !simd.equal(tokens, &self.tokens[index * WAYS + found], count) {
            return None;
        }
        set.used[found] = true;
        (self.last, self.last_count) = (index * WAYS + found, count);
        Some(self.slot(self.last))
    }

    /// Which shape that is.
    #[inline(always)]
    pub(super) fn last(&self) -> usize {
        self.last
    }

    /// The shape that was found or inserted last, if it is also that of the first `count` of `tokens`.
    #[inline(always)]
    pub(super) fn last_if_equal<S: Simd>(&self, simd: S, tokens: &[u8], count: usize) -> Option<Slot> {
        let is_equal = count == self.last_count && simd.equal(tokens, &self.tokens[self.last], count);
        is_equal.then(|| self.slot(self.last))
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
        set.tags[way] = tag_of(hash, tokens.len());
        let slot = index * WAYS + way;
        self.tokens[slot][..tokens.len()].copy_from_slice(tokens);
        self.keys[slot] = keys.1.then_some(keys.0);
        self.stamps[slot] = self.stamps[slot].wrapping_add(1);
        (self.last, self.last_count) = (slot, tokens.len());
        self.slot(slot)
    }

    #[inline(always)]
    fn slot(&self, index: usize) -> Slot {
        Slot { index: index as u16, stamp: self.stamps[index] }
    }

    /// Which tokens are keys of the outermost object, in order; `None` if they are too many to remember, or the shape has
    /// made room for another.
    pub(super) fn keys_of(&self, slot: Slot) -> Option<&[u16]> {
        let index = usize::from(slot.index);
        if self.stamps[index] != slot.stamp {
            return None;
        }
        self.keys[index].as_ref().map(|keys| &keys.tokens[..usize::from(keys.count)])
    }
}
