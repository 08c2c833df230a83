//! SIGINT and SIGTERM: the first one ends what goes on in order, so that what was seen until then is told; the second one
//! ends the process. Any thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::generator::Shared;

/// How soon a load notices.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What asked for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// What kill(1), service managers and CI send.
    Terminate,
}

impl Signal {
    const ALL: [Self; 2] = [Self::Interrupt, Self::Terminate];

    /// Its name in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// What a shell says of a process that a signal ended: 128 and its number.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        128 + self.number() as u8
    }

    fn number(self) -> i32 {
        match self {
            Self::Interrupt => libc::SIGINT,
            Self::Terminate => libc::SIGTERM,
        }
    }
}

/// Whether and by what the process was asked to end; its clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    /// Number of the signal; 0 before there is one.
    number: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Handles both signals from now on.
    ///
    /// # Errors
    /// The errno of sigaction(2).
    pub fn handle() -> io::Result<Self> {
        let interrupt = Self::default();
        let again = Arc::new(AtomicBool::new(false));
        for signal in Signal::ALL {
            let code = i32::from(signal.exit_code());
            // Asked in this order: the first signal finds the flag unset and sets it.
            signal_hook::flag::register_conditional_shutdown(signal.number(), code, Arc::clone(&again))?;
            signal_hook::flag::register(signal.number(), Arc::clone(&again))?;
            let number = Arc::clone(&interrupt.number);
            signal_hook::flag::register_usize(signal.number(), number, signal.number() as usize)?;
        }
        Ok(interrupt)
    }

    /// The signal that came.
    #[must_use]
    pub fn signal(&self) -> Option<Signal> {
        let number = self.number.load(Ordering::Relaxed);
        Signal::ALL.into_iter().find(|signal| signal.number() as usize == number)
    }

    /// Ends a load once a signal comes.
    pub fn stops(&self, shared: &Arc<Shared>) {
        let (interrupt, shared) = (self.clone(), Arc::clone(shared));
        std::thread::spawn(move || {
            while interrupt.signal().is_none() {
                std::thread::park_timeout(LOOK_EVERY);
            }
            shared.stop.store(true, Ordering::Relaxed);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_told_by_its_number_and_none_is_none() {
        let interrupt = Interrupt::default();
        assert_eq!(interrupt.signal(), None);
        for (number, signal, code) in [(2, Signal::Interrupt, 130), (15, Signal::Terminate, 143)] {
            interrupt.number.store(number, Ordering::Relaxed);
            assert_eq!(interrupt.clone().signal(), Some(signal));
            assert_eq!(signal.exit_code(), code);
        }
    }
}
