//! Bounded waiting for an event that can only be looked for.

use std::time::{Duration, Instant};

/// How long anything may take before the test gives up. Far above what a loaded two-core machine needs: reaching it
/// means that the event will not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Looks until `look` finds something.
///
/// # Panics
/// With `what` when it found nothing within [`PATIENCE`].
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(PAUSE);
    }
}
