//! Anonymous memory mapped once and kept: log buffers, receive buffers, pools.
//!
//! A [`Region`] is bytes without an owner inside: the room that maps one decides who may touch which part when, and
//! says so. Huge pages are asked for, never required.

use std::io;
use std::ptr::NonNull;

use crate::base::{MIB, align_up};

/// Size of a transparent huge page on x86-64 and on aarch64 with 4 KiB pages.
const HUGE_PAGE_BYTES: usize = 2 * MIB;

/// A private, zeroed, huge-page-aligned anonymous mapping that is unmapped on drop.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    bytes: usize,
    mapping: NonNull<u8>,
    mapping_bytes: usize,
}

// SAFETY: a region is an address range without interior state of its own; who may touch which bytes is the contract of
// the type that holds it (`handoff::LogBuffer`, `shard::arena`), which hands out disjoint parts only.
unsafe impl Send for Region {}
// SAFETY: as above: the region itself offers nothing that writes.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `bytes` (rounded up to 2 MiB). With `populate` every page is made resident now; without, a page costs memory
    /// only once it is touched.
    ///
    /// # Errors
    /// The errno of mmap(2): ENOMEM when the address space or, with `populate`, the memory is not there.
    pub fn map(bytes: usize, populate: bool) -> io::Result<Self> {
        assert!(bytes > 0);
        if cfg!(miri) {
            return Ok(Self::allocated(align_up(bytes, HUGE_PAGE_BYTES)));
        }
        let bytes = align_up(bytes, HUGE_PAGE_BYTES);
        let mapping_bytes = bytes + HUGE_PAGE_BYTES;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory that exists already.
        let mapping = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapping_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = NonNull::new(mapping.cast::<u8>()).expect("mmap succeeded at a non-null address");
        let lead = align_up(mapping.as_ptr() as usize, HUGE_PAGE_BYTES) - mapping.as_ptr() as usize;
        // SAFETY: lead < HUGE_PAGE_BYTES, and the mapping is that much longer than the region.
        let base = unsafe { mapping.add(lead) };
        let region = Self { base, bytes, mapping, mapping_bytes };
        if populate {
            // SAFETY: the range is this region's own. Both advices only change how pages are backed: the result of the
            // first is ignored because huge pages are a wish, the second's failure is an error below.
            let populated = unsafe {
                libc::madvise(base.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE);
                libc::madvise(base.as_ptr().cast(), bytes, libc::MADV_POPULATE_WRITE)
            };
            if populated != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(region)
    }

    /// The same from the allocator: Miri checks what is done with the bytes, and has no mmap with these flags.
    fn allocated(bytes: usize) -> Self {
        // SAFETY: the layout is not empty.
        let base = unsafe { std::alloc::alloc_zeroed(Self::layout(bytes)) };
        let base = NonNull::new(base).expect("Miri has memory");
        Self { base, bytes, mapping: base, mapping_bytes: bytes }
    }

    fn layout(bytes: usize) -> std::alloc::Layout {
        std::alloc::Layout::from_size_align(bytes, HUGE_PAGE_BYTES).expect("a few MiB")
    }

    /// Address of the first byte, aligned to 2 MiB.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if cfg!(miri) {
            // SAFETY: made in `allocated` with this layout.
            return unsafe { std::alloc::dealloc(self.base.as_ptr(), Self::layout(self.bytes)) };
        }
        // SAFETY: the mapping was made in `map` with this address and length and is unmapped once. Whoever shares the
        // region holds it in an Arc, so no owner of a part is left.
        let result = unsafe { libc::munmap(self.mapping.as_ptr().cast(), self.mapping_bytes) };
        debug_assert_eq!(result, 0, "munmap of a mapping of our own cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_aligned_zeroed_and_writable() {
        for populate in [false, true] {
            let region = Region::map(MIB, populate).unwrap();
            assert_eq!(region.base().as_ptr() as usize % HUGE_PAGE_BYTES, 0);
            assert_eq!(region.bytes(), HUGE_PAGE_BYTES);
            // SAFETY: the region is this test's alone.
            let bytes = unsafe { std::slice::from_raw_parts_mut(region.base().as_ptr(), region.bytes()) };
            assert!(bytes.iter().all(|byte| *byte == 0));
            bytes.fill(7);
        }
    }
}
