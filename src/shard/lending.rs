//! How many receive buffers the kernel is lent at a time. Shard thread only; pure.
//!
//! The kernel fills lent buffers in the order they were lent. With all of them lent, each byte is received into the buffer
//! that was used longest ago, which has left the caches, and is read from memory again to be parsed. So the kernel is lent
//! only what holds [`WARM_BYTES`] of what arrives, and those given back last are lent first. What there is beyond that is
//! for connections that hold buffers because the log buffer has no room, and for small requests: a buffer that receives
//! 300 bytes warms 300.
//!
//! A receive that finds no buffer ends; its bytes stay in the socket, and it is armed again at the end of the turn. That
//! costs a completion and a submission for up to [`WARM_BYTES`] received.

use crate::base::KIB;

/// Half of a level-2 cache of 1 MiB, as server cores have: the other half is for the log buffer's lines, which the same
/// bytes are copied to, and everything else. Measured: ADR 0015.
const WARM_BYTES: u64 = 512 * KIB as u64;
/// Lent at least: receives of several connections go on in one call of the kernel.
const LENT_MIN: u16 = 32;
/// So many buffers are looked back at, at least half as many.
const LOOKED_BACK: u64 = 512;

/// See the module text.
#[derive(Debug)]
pub(super) struct Lending {
    receives: u64,
    buffers: u64,
    bytes: u64,
}

impl Lending {
    /// Nothing received yet.
    #[must_use]
    pub(super) fn new() -> Self {
        Self { receives: 0, buffers: 0, bytes: 0 }
    }

    /// Counts a receive that brought `bytes` bytes in `buffers` buffers.
    #[inline]
    pub(super) fn received(&mut self, buffers: u16, bytes: usize) {
        self.receives += 1;
        self.buffers += u64::from(buffers);
        self.bytes += bytes as u64;
        if self.buffers > LOOKED_BACK {
            self.receives /= 2;
            self.buffers /= 2;
            self.bytes /= 2;
        }
    }

    /// Buffers the kernel is to be lent, if there are so many; all while nothing is known.
    #[inline]
    #[must_use]
    pub(super) fn lent_max(&self) -> u16 {
        let warm = (WARM_BYTES * self.buffers).checked_div(self.bytes).unwrap_or(u64::MAX);
        u16::try_from(warm).unwrap_or(u16::MAX).max(LENT_MIN)
    }

    /// Buffers that must be lent before receives that found none are armed again: half of those to be lent, of the `there`
    /// that no stalled connection holds. Re-arming into a few would run out at once; waiting for what others hold would
    /// make their stall everybody's.
    #[must_use]
    pub(super) fn rearm_min(&self, there: u16) -> u16 {
        (self.lent_max().min(there) / 2).max(1)
    }

    /// Receives that `lent` buffers are about enough for, at least one, if all of them find bytes waiting.
    #[must_use]
    pub(super) fn receives_max(&self, lent: u16) -> u16 {
        let enough = (u64::from(lent) * self.receives).checked_div(self.buffers).unwrap_or(u64::MAX);
        enough.clamp(1, u64::from(lent.max(1))) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receives_do_not_wait_for_buffers_that_others_hold() {
        let mut lending = Lending::new();
        assert_eq!([1024, 128, 3, 1, 0].map(|there| lending.rearm_min(there)), [512, 64, 1, 1, 1], "nothing is known");
        (0..2 * LOOKED_BACK).for_each(|_| lending.received(5, 68_000));
        assert_eq!([1024, 128, 20].map(|there| lending.rearm_min(there)), [19, 19, 10]);
    }

    #[test]
    fn the_kernel_is_lent_what_stays_warm() {
        let mut lending = Lending::new();
        assert_eq!((lending.lent_max(), lending.receives_max(9)), (u16::MAX, 9), "nothing is known");
        lending.received(1, 300);
        assert_eq!(lending.lent_max(), 1747, "single events share the warm bytes");
        (0..2 * LOOKED_BACK).for_each(|_| lending.received(5, 68_000));
        assert_eq!(lending.lent_max(), 38, "batches fill their buffers nearly: an early look counts for nothing");
        assert_eq!([38, 4, 0].map(|lent| lending.receives_max(lent)), [7, 1, 1], "five buffers each");
        (0..2 * LOOKED_BACK).for_each(|_| lending.received(1, 1 << 20));
        assert_eq!(lending.lent_max(), LENT_MIN, "buffers of 1 MiB");
        (0..10 * LOOKED_BACK).for_each(|_| lending.received(1, 300));
        assert!(lending.lent_max() > 1700, "small ones again");
    }
}
