//! Hands sockets made with std to the control thread's executor.
//!
//! The executor's own `bind` sets SO_REUSEPORT and not SO_REUSEADDR: a second server on the same admin port would start
//! and take half of the first one's connections. std's does it the other way round, and can be called before anything
//! else starts, when a port that is taken can still be refused.

use std::net::TcpListener;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;

/// Gives a listener to the executor of the calling thread.
///
/// # Panics
/// Outside an executor.
#[must_use]
pub fn adopt_listener(listener: TcpListener) -> glommio::net::TcpListener {
    // SAFETY: the descriptor is a listening TCP socket, and into_raw_fd gave up its one owner.
    unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) }
}

/// Gives one end of a socket pair to the executor of the calling thread.
///
/// # Panics
/// Outside an executor.
#[must_use]
pub fn adopt_unix_stream(stream: UnixStream) -> glommio::net::UnixStream {
    // SAFETY: the descriptor is a connected Unix stream socket, and into_raw_fd gave up its one owner.
    unsafe { glommio::net::UnixStream::from_raw_fd(stream.into_raw_fd()) }
}
