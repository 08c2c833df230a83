//! Receive buffers lent to the kernel as a provided-buffer ring, always in the same cyclic order. The ring's thread.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::memory::Area;
use super::ring::Ring;

/// Equal buffers that the kernel fills in turn: 0, 1, 2 … and around.
///
/// What is received is consumed and lent again at once and in the order it was taken, so the order never changes and a
/// bundle's bytes lie in one stretch of memory, or two where it wraps.
pub(crate) struct ReceiveBuffers {
    entries: Area,
    data: Area,
    bytes: usize,
    count: u16,
    /// The next buffer the kernel fills.
    next: u16,
    /// Buffers lent so far, modulo 2^16: the tail the kernel sees.
    lent: u16,
}

impl ReceiveBuffers {
    /// `count` buffers (a power of two) of `bytes` bytes, registered with `ring` as `group`, all lent to the kernel. To
    /// be dropped after the ring.
    ///
    /// # Errors
    /// The errno of mmap(2) or io_uring_register(2).
    pub(crate) fn new(ring: &mut Ring, group: u16, count: u16, bytes: usize) -> io::Result<Self> {
        assert!(count.is_power_of_two() && count <= 1 << 15, "{count} buffers");
        let data = Area::map(usize::from(count) * bytes)?;
        let entries = Area::map(usize::from(count) * size_of::<BufRingEntry>())?;
        let address = entries.address(0, usize::from(count) * size_of::<BufRingEntry>()) as u64;
        // SAFETY: whoever drives a ring holds its buffers behind it (declared later), so they are unmapped after it.
        unsafe { ring.register_buffers(address, count, group)? };
        let mut buffers = Self { entries, data, bytes, count, next: 0, lent: 0 };
        for _ in 0..count {
            buffers.lend();
        }
        buffers.publish();
        Ok(buffers)
    }

    /// Shows `read` the bytes of one completion, `received` of them from buffer `first` on, in one or two pieces, and
    /// lends their buffers again.
    ///
    /// # Panics
    /// If the kernel did not take the buffers in turn.
    pub(crate) fn consume(&mut self, first: u16, received: usize, mut read: impl FnMut(&[u8])) {
        assert_eq!(first, self.next, "the kernel takes buffers in turn");
        let taken = received.div_ceil(self.bytes).max(1);
        assert!(taken <= usize::from(self.count), "{received} bytes are more than all buffers hold");
        let start = usize::from(first) * self.bytes;
        let before_wrap = received.min(self.data_bytes() - start);
        read(self.data.slice(start, before_wrap));
        if before_wrap < received {
            read(self.data.slice(0, received - before_wrap));
        }
        self.next = (usize::from(first) + taken).rem_euclid(usize::from(self.count)) as u16;
        for _ in 0..taken {
            self.lend();
        }
        self.publish();
    }

    fn data_bytes(&self) -> usize {
        usize::from(self.count) * self.bytes
    }

    fn lend(&mut self) {
        let place = usize::from(self.lent & (self.count - 1));
        let address = self.data.address(place * self.bytes, self.bytes) as u64;
        let entry = self.entries.address(place * size_of::<BufRingEntry>(), size_of::<BufRingEntry>());
        // SAFETY: the entry lies in the entries' area, aligned as the mapping is; the kernel reads entries only up to
        // the tail published later, and writes to none.
        unsafe {
            let entry = entry.cast::<BufRingEntry>();
            (*entry).set_addr(address);
            (*entry).set_len(self.bytes as u32);
            (*entry).set_bid(place as u16);
        }
        self.lent = self.lent.wrapping_add(1);
    }

    fn publish(&mut self) {
        let base = self.entries.address(0, size_of::<BufRingEntry>());
        // SAFETY: the tail lies in the first entry's reserved bytes (io_uring_register_buf_ring(3)), which `lend` does
        // not write. Release pairs with the kernel's acquire: entries are visible before the tail.
        unsafe {
            let tail = BufRingEntry::tail(base.cast::<BufRingEntry>()).cast_mut().cast::<AtomicU16>();
            (*tail).store(self.lent, Ordering::Release);
        }
    }
}
