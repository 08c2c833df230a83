//! Lines for the operator on stderr. Any thread.
//!
//! Writing one never fails and never waits: whoever was to read them may have gone, or may have stopped reading, and the
//! server is not to end or stand still with its log's reader. What cannot be written at once is lost, and the next line that
//! can says how many were.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// A pipe that poll(2) calls writable takes so many bytes without waiting (pipe(7): PIPE_BUF).
const PIECE_BYTES: usize = 4096;

static LOST: AtomicU64 = AtomicU64::new(0);

/// Writes `text`, a line or several with their ends.
pub fn tell(text: &str) {
    let lost = LOST.swap(0, Ordering::Relaxed);
    if lost > 0 {
        let told = write(&format!("tidegate: {lost} messages before this one were lost: nobody read stderr\n"));
        if !told {
            LOST.fetch_add(lost + 1, Ordering::Relaxed);
            return;
        }
    }
    if !write(text) {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether all of `text` was written.
fn write(text: &str) -> bool {
    text.as_bytes().chunks(PIECE_BYTES).all(|piece| is_writable() && std::io::stderr().write_all(piece).is_ok())
}

/// Whether stderr takes [`PIECE_BYTES`] without waiting, or has an error to tell.
fn is_writable() -> bool {
    let mut stderr = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one pollfd of our own, and no waiting.
    unsafe { libc::poll(&raw mut stderr, 1, 0) == 1 }
}
