//! Byte units and alignment.

/// Bytes in a kibibyte.
pub const KIB: usize = 1024;
/// Bytes in a mebibyte.
pub const MIB: usize = 1024 * KIB;
/// Alignment of every chunk in memory and on disk. O_DIRECT asks for the device's logical block size, which is 512
/// or 4096 bytes on every disk sold; 4096 serves both.
pub const PAGE_BYTES: usize = 4 * KIB;

/// Rounds `n` up to a multiple of `to`, a power of two.
#[must_use]
pub const fn align_up(n: usize, to: usize) -> usize {
    debug_assert!(to.is_power_of_two());
    (n + to - 1) & !(to - 1)
}

/// Rounds `n` down to a multiple of `to`, a power of two.
#[must_use]
pub const fn align_down(n: usize, to: usize) -> usize {
    debug_assert!(to.is_power_of_two());
    n & !(to - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_rounds_at_its_edges() {
        for (n, up, down) in [(0, 0, 0), (1, 4096, 0), (4095, 4096, 0), (4096, 4096, 4096), (4097, 8192, 4096)] {
            assert_eq!(align_up(n, PAGE_BYTES), up);
            assert_eq!(align_down(n, PAGE_BYTES), down);
        }
    }
}
