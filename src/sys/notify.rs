//! Datagrams to a service manager: the protocol of sd_notify(3). Main thread, which becomes the control thread.
//!
//! A manager that does not read lets its queue fill, ten messages or a few hundred (net.unix.max_dgram_qlen), and then a sender
//! waits. Here he waits for [`WAIT_MAX`], since the thread that tells is also the one that drains and answers the admin port; what
//! was to be told is lost then, and that is an error.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The longest wait for room in a manager's queue.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// The shortest that setsockopt(2) takes for a wait.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// Sends assignments, one a line, to the socket that `NOTIFY_SOCKET` names: a path, or `@` and a name without one. Without that variable
/// there is nobody to tell, which is no error.
///
/// # Errors
/// The errno of socket(2) or send(2): ENOENT and ECONNREFUSED for a manager that has gone, EAGAIN for one that does not read.
pub fn notify(assignments: &str) -> io::Result<()> {
    let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(()) };
    let address = match name.as_bytes() {
        [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name)?,
        _ => SocketAddr::from_pathname(&name)?,
    };
    let socket = UnixDatagram::unbound()?;
    let begun = Instant::now();
    loop {
        let left = WAIT_MAX.saturating_sub(begun.elapsed());
        // 0 would mean for ever.
        socket.set_write_timeout(Some(left.max(WAIT_MIN)))?;
        match socket.send_to_addr(assignments.as_bytes(), &address) {
            // A wait with an end is not taken up again behind a signal handler (signal(7)), and the executor has timers that signal.
            Err(error) if error.kind() == io::ErrorKind::Interrupted && !left.is_zero() => {}
            sent => return sent.map(drop),
        }
    }
}

/// The time by which a manager tells one reload from another: CLOCK_MONOTONIC, microseconds.
#[must_use]
pub fn monotonic_us() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct is ours to fill in; the clock is there on every Linux, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000 + time.tv_nsec.cast_unsigned() / 1_000
}
