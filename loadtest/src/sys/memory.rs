//! Anonymous memory at a fixed address, which the kernel may read from or write to while a request is under way.

use std::io;
use std::ptr::NonNull;

/// A private, zeroed anonymous mapping; a page costs memory only once it is touched. Unmapped on drop.
#[derive(Debug)]
pub(crate) struct Area {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: an area is an address range that one owner holds and that is not aliased by another area; it may move to
// another thread with its owner.
unsafe impl Send for Area {}

impl Area {
    /// Maps `bytes` bytes, at least one page.
    ///
    /// # Errors
    /// The errno of mmap(2): ENOMEM when the address space is not there.
    pub(crate) fn map(bytes: usize) -> io::Result<Self> {
        let bytes = bytes.max(4096);
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory that exists already.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Huge pages are a wish: without them a batch costs a few more TLB misses.
        // SAFETY: the range is this mapping's own, and the advice only changes how its pages are backed.
        unsafe { libc::madvise(base, bytes, libc::MADV_HUGEPAGE) };
        Ok(Self { base: NonNull::new(base.cast()).expect("mmap succeeded at a non-null address"), bytes })
    }

    /// Address of byte `offset`, for the kernel.
    ///
    /// # Panics
    /// If `offset + length` lies outside.
    pub(crate) fn address(&self, offset: usize, length: usize) -> *mut u8 {
        assert!(offset.checked_add(length).is_some_and(|end| end <= self.bytes), "outside the area");
        // SAFETY: the offset was just checked to lie in the mapping.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// The bytes of a range, which the kernel must not be writing to.
    ///
    /// # Panics
    /// If the range lies outside.
    pub(crate) fn slice(&self, offset: usize, length: usize) -> &[u8] {
        let start = self.address(offset, length);
        // SAFETY: in bounds, initialised (mmap zeroes), and not written to for the borrow: the callers in this room read
        // received buffers only between their completion and their return to the kernel.
        unsafe { std::slice::from_raw_parts(start, length) }
    }

    /// The bytes of a range, to be changed; the kernel must not be using it.
    ///
    /// # Panics
    /// If the range lies outside.
    pub(crate) fn slice_mut(&mut self, offset: usize, length: usize) -> &mut [u8] {
        let start = self.address(offset, length);
        // SAFETY: in bounds and initialised; the borrow of self keeps the slice unique among ours. A range that is being
        // sent may be read by the kernel meanwhile: that would send mixed bytes, which the oracle reports, and is no
        // undefined behaviour of this process, whose own accesses stay exclusive.
        unsafe { std::slice::from_raw_parts_mut(start, length) }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this address and length, and unmapped once. Rings that use an area hold it in
        // themselves and drop it after their descriptor.
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
        debug_assert_eq!(result, 0, "munmap of a mapping of our own cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_is_zeroed_and_keeps_what_is_written() {
        let mut area = Area::map(10_000).unwrap();
        assert!(area.slice(0, 10_000).iter().all(|byte| *byte == 0));
        area.slice_mut(9_990, 10).copy_from_slice(b"0123456789");
        assert_eq!(area.slice(9_995, 5), b"56789");
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn nothing_beyond_the_end_is_handed_out() {
        let area = Area::map(4096).unwrap();
        area.slice(4090, 7);
    }
}
