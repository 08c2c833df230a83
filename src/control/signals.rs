//! Signals as the control thread sees them: flags that a handler sets, and a socket that wakes the loop.
//!
//! SIGTERM and SIGINT ask to stop; a second one ends the process at once, in the handler, so that it works even when the
//! control thread does not. SIGHUP asks to reload.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// Handlers, once installed.
#[derive(Debug)]
pub struct Signals {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    wake: UnixStream,
}

impl Signals {
    /// Installs the handlers. To be called once, before anything that a signal should end in order.
    ///
    /// # Errors
    /// The errno of sigaction(2), socketpair(2) or fcntl(2).
    pub fn install() -> io::Result<Self> {
        let (stop, reload) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (wake, waker) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag unset and sets it, the second finds it set.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))?;
            flag::register(signal, Arc::clone(&stop))?;
            low_level::pipe::register(signal, waker.try_clone()?)?;
        }
        flag::register(SIGHUP, Arc::clone(&reload))?;
        low_level::pipe::register(SIGHUP, waker)?;
        Ok(Self { stop, reload, wake })
    }

    /// Whether a signal asked to stop.
    #[must_use]
    pub fn stop_asked(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether a signal asked to reload since the last call.
    pub fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }

    /// A socket that becomes readable with every signal.
    ///
    /// # Errors
    /// The errno of dup(2).
    pub fn wake_socket(&self) -> io::Result<UnixStream> {
        self.wake.try_clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_signal_sets_its_flag_and_wakes() {
        let signals = Signals::install().unwrap();
        assert!(!signals.stop_asked() && !signals.take_reload());
        low_level::raise(SIGHUP).unwrap();
        let mut byte = [0];
        signals.wake_socket().unwrap().read_exact(&mut byte).unwrap();
        assert!(signals.take_reload() && !signals.take_reload(), "asked once");
        // One only: a second would end the test. tests/cli.rs sends it to a child.
        low_level::raise(SIGTERM).unwrap();
        signals.wake_socket().unwrap().read_exact(&mut byte).unwrap();
        assert!(signals.stop_asked());
    }
}
