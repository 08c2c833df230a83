//! Whether bytes are UTF-8. Shard thread; pure.

/// Above this length the vectors of simdutf8 pay for its start.
const SHORT_BYTES: usize = 96;

/// Whether `bytes`, which begin and end above ASCII, are UTF-8.
pub(super) fn is_valid(bytes: &[u8]) -> bool {
    if bytes.len() <= SHORT_BYTES || cfg!(miri) {
        std::str::from_utf8(bytes).is_ok()
    } else {
        simdutf8::basic::from_utf8(bytes).is_ok()
    }
}
