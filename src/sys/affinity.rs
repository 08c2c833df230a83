//! Which cores this process may use, and pinning a thread to one of them.

use std::fmt;

/// The cores this process may run on, ascending; empty if the kernel does not say. Affinity masks and cpusets of
/// containers are part of it, so a core that is online but not allowed is not in the list.
#[must_use]
pub fn allowed_cores() -> Vec<usize> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    cores.into_iter().map(|core| core.id).collect()
}

/// A thread could not be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinError {
    /// The core asked for.
    pub core: usize,
}

impl fmt::Display for PinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a thread could not be pinned to core {}: it is offline or outside this process's cpuset", self.core)
    }
}

impl std::error::Error for PinError {}

/// Pins the calling thread to one core. Threads it starts later inherit the pin until they set their own.
///
/// # Errors
/// When the core is offline, or the process may not use it.
pub fn pin_current_thread(core: usize) -> Result<(), PinError> {
    let pinned =
        core < libc::CPU_SETSIZE as usize && core_affinity::set_for_current(core_affinity::CoreId { id: core });
    if pinned { Ok(()) } else { Err(PinError { core }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_is_allowed_its_core_only() {
        let last = *allowed_cores().last().expect("Linux tells the cores");
        let seen = std::thread::spawn(move || {
            pin_current_thread(last).unwrap();
            allowed_cores()
        });
        assert_eq!(seen.join().unwrap(), [last]);
        assert_eq!(pin_current_thread(100_000), Err(PinError { core: 100_000 }));
    }
}
