//! Shapes of events proven to be JSON objects: what makes the next event of the same shape cheap. Shard thread; pure.
//!
//! A shape is a string of tokens ([`super::grammar`]). What is remembered is the string itself: a hash finds where to
//! look, and every byte is compared, so no collision can pass one shape for another. Memory is bounded: sets of four
//! ways, and in each set the clock hand passes over shapes that were used since it last came by.

use super::simd::{Simd, TOKENS_MAX, TOKENS_ROOM, Tokens};

/// A shape of more tokens is not remembered. An event of 4.2 KB has about a thousand.
const SHAPE_TOKENS_MAX: usize = TOKENS_MAX;
/// Keys of the outermost object that are remembered with a shape; with more, none are.
const KEYS_MAX: usize = 64;
/// Shapes a hash value can stand for.
const WAYS: usize = 4;
/// Sets of shapes: 128 shapes in all, of which a page is touched when it is first used. Half a MiB at most.
const SETS: usize = 32;
// Shapes 4 KiB apart would share the same few lines of the first-level cache.
const _: () = assert!(!TOKENS_ROOM.is_power_of_two());

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
    tokens: Vec<Tokens>,
    keys: Vec<Option<Keys>>,
}

impl Shapes {
    pub(super) fn new() -> Self {
        Self {
            sets: vec![Set { hashes: [0; WAYS], lens: [VACANT; WAYS], used: [false; WAYS], hand: 0 }; SETS],
            tokens: vec![[0; TOKENS_ROOM]; SETS * WAYS],
            keys: vec![None; SETS * WAYS],
        }
    }

    /// The shape of exactly the first `count` of `tokens`, if it is remembered. `hash` is theirs by [`Simd::hash`].
    #[inline(always)]
    pub(super) fn find<S: Simd>(&mut self, simd: S, tokens: &Tokens, count: usize, hash: u32) -> Option<Slot> {
        let index = hash as usize % SETS;
        let set = &mut self.sets[index];
        // Which way it is decides no branch: that differs from event to event.
        let mut found = WAYS;
        for way in 0..WAYS {
            let is_it = (set.hashes[way] == hash) & (usize::from(set.lens[way]) == count);
            found = if is_it { way } else { found };
        }
        let slot = index * WAYS + found;
        if found == WAYS || !simd.equal(tokens, &self.tokens[slot], count) {
            return None;
        }
        set.used[found] = true;
        Some(Slot(slot))
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
        self.tokens[slot][..tokens.len()].copy_from_slice(tokens);
        self.keys[slot] = keys.1.then_some(keys.0);
        Slot(slot)
    }

    /// Which tokens are keys of the outermost object, in order; `None` if they are too many to remember.
    pub(super) fn keys_of(&self, slot: Slot) -> Option<&[u16]> {
        self.keys[slot.0].as_ref().map(|keys| &keys.tokens[..usize::from(keys.count)])
    }
}
