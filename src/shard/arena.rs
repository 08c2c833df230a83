//! A shard's memory apart from its log buffer: blocks that live from turn to turn. Shard thread only.
//!
//! What a turn needs and forgets (decompressed bytes) lies in a `bumpalo` arena that is reset after each use. What outlives a
//! turn lies in a [`Block`] of the shard's [`Pool`]: a head or an event whose end has not arrived, answers that wait for
//! their ack level or for a slow reader. The pool is one mapping of fixed size, cut by halves (a buddy allocator): blocks
//! of 4 KiB to 2 MiB, every operation in at most ten steps, no allocation after start. An exhausted pool is an answer
//! (`None`), and costs the connection that asked, nobody else: larger blocks are refused before the smallest, so that a few
//! who hold the largest leave room for requests and answers of ordinary length.
#![allow(unsafe_code, reason = "blocks are disjoint parts of one mapping, each with one owner")]

use std::ptr::NonNull;
use std::sync::Arc;

use crate::base::{KIB, MIB};
use crate::sys::memory::Region;

/// Smallest block: most heads, single events and answers fit one.
pub const BLOCK_BYTES_MIN: usize = 4 * KIB;
/// Largest block: holds an event at its limit, or an echo of one with its head.
pub const BLOCK_BYTES_MAX: usize = 2 * MIB;
/// One part in so many is for blocks of [`BLOCK_BYTES_MIN`] alone.
const SMALLEST_PART: usize = 16;
/// The smallest pool: beside that part, an event at its limit and the echo of it.
pub const POOL_BYTES_MIN: usize = 8 * MIB;
const _: () = assert!(POOL_BYTES_MIN - POOL_BYTES_MIN / SMALLEST_PART >= 2 * BLOCK_BYTES_MAX);
const ORDER_MAX: u8 = (BLOCK_BYTES_MAX / BLOCK_BYTES_MIN).trailing_zeros() as u8;
const NONE: u32 = u32::MAX;

/// Some bytes of a [`Pool`], owned by its holder until [`Pool::give_back`]. Contents are whatever was there before.
#[derive(Debug)]
#[must_use = "a block that is dropped is lost to its pool"]
pub struct Block {
    at: NonNull<u8>,
    leaf: u32,
    order: u8,
}

impl Block {
    /// Length in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        BLOCK_BYTES_MIN << self.order
    }

    /// Offset in the pool's region, by which a send names the bytes.
    #[must_use]
    pub fn region_offset(&self) -> usize {
        self.leaf as usize * BLOCK_BYTES_MIN
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the block owns its part of the region, which the pool keeps mapped while a block is out; the memory was
        // zeroed by the kernel when it was mapped, so every byte has a value.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.capacity()) }
    }

    /// The bytes, to be written.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the exclusive borrow of the one owner makes the slice unique.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.capacity()) }
    }
}

/// See the module text.
pub struct Pool {
    region: Arc<Region>,
    /// First free block of each order, as a leaf number; the rest is linked through `next` and `previous`.
    free: [u32; ORDER_MAX as usize + 1],
    next: Vec<u32>,
    previous: Vec<u32>,
    /// Order of the free block that starts at a leaf; `None` inside a block and where one is taken.
    free_order: Vec<Option<u8>>,
    used_bytes: usize,
}

impl Pool {
    /// A pool over the whole of `region`, nothing taken.
    #[must_use]
    pub fn new(region: Arc<Region>) -> Self {
        let leaves = region.bytes() / BLOCK_BYTES_MIN;
        let mut pool = Self {
            free: [NONE; ORDER_MAX as usize + 1],
            next: vec![NONE; leaves],
            previous: vec![NONE; leaves],
            free_order: vec![None; leaves],
            used_bytes: 0,
            region,
        };
        for top in (0..leaves >> ORDER_MAX).rev() {
            pool.link((top << ORDER_MAX) as u32, ORDER_MAX);
        }
        pool
    }

    /// A block of at least `bytes` bytes; `None` if `bytes` is over [`BLOCK_BYTES_MAX`] or the pool has none left: beyond
    /// fifteen sixteenths there are only blocks of [`BLOCK_BYTES_MIN`].
    pub fn take(&mut self, bytes: usize) -> Option<Block> {
        if bytes > BLOCK_BYTES_MAX {
            return None;
        }
        let order = order_for(bytes);
        if order > 0 && self.used_bytes + (BLOCK_BYTES_MIN << order) > self.bytes_for_all() {
            return None;
        }
        let found = (order..=ORDER_MAX).find(|order| self.free[usize::from(*order)] != NONE)?;
        let leaf = self.free[usize::from(found)];
        self.unlink(leaf);
        for half in (order..found).rev() {
            self.link(leaf + (1 << half), half);
        }
        self.used_bytes += BLOCK_BYTES_MIN << order;
        // SAFETY: leaf numbers come from `new`, which made them from the region's length.
        let at = unsafe { self.region.base().add(leaf as usize * BLOCK_BYTES_MIN) };
        Some(Block { at, leaf, order })
    }

    /// Bytes that blocks of every size may use; what is beyond is for the smallest.
    pub fn bytes_for_all(&self) -> usize {
        self.region.bytes() - self.region.bytes() / SMALLEST_PART
    }

    /// As [`Pool::take`], for what a connection could do without: `None` also when more than `quarters` of the pool would
    /// be out. Connections that pipeline without reading use up that share and no more; the rest is for requests and
    /// answers of everybody else.
    pub fn take_spare(&mut self, bytes: usize, quarters: usize) -> Option<Block> {
        if bytes > BLOCK_BYTES_MAX {
            return None;
        }
        let after = self.used_bytes + (BLOCK_BYTES_MIN << order_for(bytes));
        if after > self.region.bytes() / 4 * quarters { None } else { self.take(bytes) }
    }

    /// Takes a block back and joins it with its free neighbours.
    ///
    /// # Panics
    /// If the block is another pool's.
    pub fn give_back(&mut self, block: Block) {
        let Block { at, mut leaf, mut order } = block;
        assert_eq!(at.as_ptr() as usize, self.region.base().as_ptr() as usize + leaf as usize * BLOCK_BYTES_MIN);
        assert!(self.free_order[leaf as usize].is_none(), "block {leaf} is free already");
        self.used_bytes -= BLOCK_BYTES_MIN << order;
        while order < ORDER_MAX {
            let buddy = leaf ^ (1 << order);
            if self.free_order[buddy as usize] != Some(order) {
                break;
            }
            self.unlink(buddy);
            leaf = leaf.min(buddy);
            order += 1;
        }
        self.link(leaf, order);
    }

    /// Replaces `block` by one of at least `bytes` bytes with the same first `used` bytes. False, with the block as it
    /// was, if there is none.
    #[must_use]
    pub fn grow(&mut self, block: &mut Block, used: usize, bytes: usize) -> bool {
        bytes <= block.capacity() || self.take(bytes).is_some_and(|larger| self.replace(block, used, larger))
    }

    /// As [`Pool::grow`], of a block from [`Pool::take_spare`] within the same share: while the bytes are copied, both
    /// blocks are out and count.
    #[must_use]
    pub fn grow_spare(&mut self, block: &mut Block, used: usize, bytes: usize, quarters: usize) -> bool {
        bytes <= block.capacity()
            || self.take_spare(bytes, quarters).is_some_and(|larger| self.replace(block, used, larger))
    }

    fn replace(&mut self, block: &mut Block, used: usize, mut larger: Block) -> bool {
        larger.bytes_mut()[..used].copy_from_slice(&block.bytes()[..used]);
        self.give_back(std::mem::replace(block, larger));
        true
    }

    /// Bytes in blocks that are out.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// The region, for a ring to send from.
    #[must_use]
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    fn link(&mut self, leaf: u32, order: u8) {
        let first = std::mem::replace(&mut self.free[usize::from(order)], leaf);
        self.next[leaf as usize] = first;
        self.previous[leaf as usize] = NONE;
        if first != NONE {
            self.previous[first as usize] = leaf;
        }
        self.free_order[leaf as usize] = Some(order);
    }

    fn unlink(&mut self, leaf: u32) {
        let order = self.free_order[leaf as usize].take().expect("only free blocks are linked");
        let (next, previous) = (self.next[leaf as usize], self.previous[leaf as usize]);
        if previous == NONE {
            self.free[usize::from(order)] = next;
        } else {
            self.next[previous as usize] = next;
        }
        if next != NONE {
            self.previous[next as usize] = previous;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.used_bytes > 0 {
            // A block that is still out must stay mapped: lose the memory rather than leave a pointer dangling.
            std::mem::forget(Arc::clone(&self.region));
        }
    }
}

fn order_for(bytes: usize) -> u8 {
    bytes.max(1).div_ceil(BLOCK_BYTES_MIN).next_power_of_two().trailing_zeros() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        Pool::new(Arc::new(Region::map(POOL_BYTES_MIN, false).unwrap()))
    }

    #[test]
    fn a_block_is_the_smallest_that_fits() {
        let mut pool = pool();
        for (bytes, capacity) in [(0, 4096), (1, 4096), (4096, 4096), (4097, 8192), (BLOCK_BYTES_MAX, BLOCK_BYTES_MAX)]
        {
            let block = pool.take(bytes).unwrap();
            assert_eq!(block.capacity(), capacity, "{bytes}");
            pool.give_back(block);
        }
        assert!(pool.take(BLOCK_BYTES_MAX + 1).is_none());
    }

    #[test]
    fn an_exhausted_pool_says_so_and_heals() {
        let mut pool = pool();
        let blocks: Vec<_> = std::iter::from_fn(|| pool.take(1)).collect();
        assert_eq!(blocks.len(), POOL_BYTES_MIN / BLOCK_BYTES_MIN);
        assert_eq!(pool.used_bytes(), POOL_BYTES_MIN);
        for block in blocks {
            pool.give_back(block);
        }
        let whole: Vec<_> = std::iter::from_fn(|| pool.take(BLOCK_BYTES_MAX)).collect();
        assert_eq!(whole.len(), POOL_BYTES_MIN / BLOCK_BYTES_MAX - 1, "neighbours were joined back into whole blocks");
        whole.into_iter().for_each(|block| pool.give_back(block));
        assert_eq!(pool.used_bytes(), 0);
    }

    #[test]
    fn a_quarter_is_kept_from_those_who_could_do_without() {
        let mut pool = pool();
        let mut spare: Vec<_> = std::iter::from_fn(|| pool.take_spare(1, 3)).collect();
        assert_eq!(pool.used_bytes(), POOL_BYTES_MIN / 4 * 3);
        let mut needed = pool.take(1).unwrap();
        let grown = &mut spare[0];
        assert!(!pool.grow_spare(grown, 1, BLOCK_BYTES_MIN + 1, 3), "growth keeps to the share as well");
        assert!(pool.grow_spare(grown, 1, BLOCK_BYTES_MIN, 3), "nothing has to grow");
        assert!(pool.grow(&mut needed, 1, BLOCK_BYTES_MIN + 1), "what is needed may use all of the pool");
        for block in spare.into_iter().chain([needed]) {
            pool.give_back(block);
        }
        assert_eq!(pool.used_bytes(), 0);
    }

    #[test]
    fn a_sixteenth_is_for_the_smallest_blocks() {
        let mut pool = pool();
        let larger: Vec<_> = std::iter::from_fn(|| pool.take(BLOCK_BYTES_MIN + 1)).collect();
        assert_eq!(
            pool.used_bytes(),
            POOL_BYTES_MIN / 16 * 15,
            "those of twice the length use what there is but for that"
        );
        let smallest: Vec<_> = std::iter::from_fn(|| pool.take(BLOCK_BYTES_MIN)).collect();
        assert_eq!(pool.used_bytes(), POOL_BYTES_MIN);
        for block in larger.into_iter().chain(smallest) {
            pool.give_back(block);
        }
        let mut event = pool.take(BLOCK_BYTES_MAX).unwrap();
        let echo = pool.take(BLOCK_BYTES_MAX).expect("the smallest pool holds an event at its limit and its echo");
        assert!(pool.grow(&mut event, 0, BLOCK_BYTES_MAX));
        pool.give_back(event);
        pool.give_back(echo);
    }

    #[test]
    fn growing_keeps_the_bytes() {
        let mut pool = pool();
        let mut block = pool.take(10).unwrap();
        block.bytes_mut()[..3].copy_from_slice(b"abc");
        assert!(pool.grow(&mut block, 3, 100_000));
        assert_eq!((&block.bytes()[..3], block.capacity()), (&b"abc"[..], 131_072));
        assert!(!pool.grow(&mut block, 3, BLOCK_BYTES_MAX + 1));
        pool.give_back(block);
    }

    /// Random takes and returns against a model: no two blocks overlap, every byte is one block's.
    #[test]
    fn blocks_never_overlap() {
        let mut pool = pool();
        let mut out: Vec<(Block, u8)> = Vec::new();
        let mut state = 0x2545_F491_4F6C_DD1Du64;
        // Miri takes minutes to look at a few hundred KiB.
        let (steps, bytes_max) = if cfg!(miri) { (24, 9_000) } else { (5_000u32, 60_000) };
        for step in 0..steps {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let taken = if state.is_multiple_of(2) { pool.take((state >> 8) as usize % bytes_max) } else { None };
            if let Some(mut block) = taken {
                block.bytes_mut().fill(step as u8);
                out.push((block, step as u8));
            } else if !out.is_empty() {
                let (block, fill) = out.swap_remove((state >> 40) as usize % out.len());
                assert!(block.bytes().iter().all(|byte| *byte == fill), "step {step}: a block was overwritten");
                pool.give_back(block);
            }
        }
        for (block, _) in out {
            pool.give_back(block);
        }
        assert_eq!(pool.used_bytes(), 0);
    }
}
