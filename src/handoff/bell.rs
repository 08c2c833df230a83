//! Wakes a thread that sleeps in its io_uring loop, and costs nothing when it does not sleep.
//!
//! The sleeper arms the bell, looks at its rings once more, sleeps; the waker pushes and rings, which writes the eventfd only
//! if the bell was armed. That neither misses the other is [`SleepFlag`]'s promise.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::sleep_flag::SleepFlag;

/// One thread's bell. The owner arms it; anybody rings it.
#[derive(Debug)]
#[repr(align(128))]
pub struct Bell {
    sleeping: SleepFlag,
    eventfd: OwnedFd,
}

impl Bell {
    /// A bell at rest.
    ///
    /// # Errors
    /// The errno of eventfd(2): EMFILE or ENFILE at the descriptor limit.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fd was just made and nobody else owns it.
        Ok(Self { sleeping: SleepFlag::default(), eventfd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Says that the owner is about to sleep. It must look at its rings once more after this and sleep only if they are
    /// empty; [`Bell::disarm`] when it does not sleep or wakes for another reason.
    pub fn arm(&self) {
        self.sleeping.arm();
    }

    /// Says that the owner is awake.
    pub fn disarm(&self) {
        self.sleeping.disarm();
    }

    /// Wakes the owner if it sleeps. To be called after the push that it is to find. True if a wake-up was sent.
    pub fn ring(&self) -> bool {
        let must_wake = self.sleeping.must_wake();
        if must_wake {
            self.write();
        }
        must_wake
    }

    /// Wakes the owner's loop whether it sleeps or not: for signals that are not in a ring.
    pub fn ring_always(&self) {
        self.sleeping.disarm();
        self.write();
    }

    /// The eventfd that becomes readable: the owner polls it (edge-triggered) in its ring.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }

    /// Empties the eventfd, for an owner that polls it level-triggered.
    pub fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: the buffer is 8 bytes, as eventfd(2) asks. EAGAIN (already empty) is as good as success.
        unsafe { libc::read(self.fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    fn write(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the buffer is 8 bytes, as eventfd(2) asks. The one failure, EAGAIN at a count of 2^64 - 2, leaves the
        // descriptor readable, which is all a ring asks for.
        unsafe { libc::write(self.fd(), one.as_ptr().cast(), one.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sleeper_is_woken_and_only_once() {
        let bell = Bell::new().unwrap();
        assert!(!bell.ring(), "the owner is awake");
        bell.arm();
        assert!(bell.ring());
        assert!(!bell.ring(), "one wake-up is enough");
        bell.arm();
        bell.disarm();
        assert!(!bell.ring());
    }
}
