//! A heap buffer aligned to a page, as O_DIRECT asks of every buffer.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::base::PAGE_BYTES;

/// Owned zeroed bytes at a page-aligned address.
#[derive(Debug)]
pub struct AlignedBytes {
    base: NonNull<u8>,
    bytes: usize,
    allocation: NonNull<u8>,
}

// SAFETY: the buffer is owned like a Box<[u8]>; nothing else points to it.
unsafe impl Send for AlignedBytes {}
// SAFETY: as for Box<[u8]>: shared references only read.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// A zeroed buffer of `bytes` bytes, a multiple of [`PAGE_BYTES`] above 0.
    #[must_use]
    pub fn zeroed(bytes: usize) -> Self {
        assert!(bytes > 0 && bytes.is_multiple_of(PAGE_BYTES), "{bytes} is not a whole number of pages");
        let layout = Self::layout(bytes);
        // SAFETY: the layout's size is not 0, asserted above.
        let allocation = unsafe { alloc_zeroed(layout) };
        let Some(allocation) = NonNull::new(allocation) else { handle_alloc_error(layout) };
        let lead = allocation.as_ptr().align_offset(PAGE_BYTES);
        assert!(lead < PAGE_BYTES, "a byte pointer can be aligned");
        // SAFETY: the allocation is a page longer than the buffer.
        let base = unsafe { allocation.add(lead) };
        Self { base, bytes, allocation }
    }

    /// A page more than asked for, and aligned by hand: an aligned allocation is zeroed by writing to it, which touches
    /// megabytes that may never be used, where an ordinary one comes zeroed from the kernel.
    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes + PAGE_BYTES, 1).expect("far below isize::MAX")
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout and freed once.
        unsafe { dealloc(self.allocation.as_ptr(), Self::layout(self.bytes)) };
    }
}

impl AsRef<[u8]> for AlignedBytes {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: base is valid for `bytes` initialised bytes while self lives; the borrow is shared.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.bytes) }
    }
}

impl AsMut<[u8]> for AlignedBytes {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_ref`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_aligned_zeroed_and_writable() {
        let mut buffer = AlignedBytes::zeroed(2 * PAGE_BYTES);
        assert_eq!(buffer.as_ref().as_ptr() as usize % PAGE_BYTES, 0);
        assert!(buffer.as_ref().iter().all(|byte| *byte == 0));
        buffer.as_mut().fill(1);
        assert_eq!(buffer.as_ref(), &[1; 2 * PAGE_BYTES]);
    }
}
