//! How much of its time a generator thread worked, and how much of it it was without its core. Pure but for the reading.

use super::clock::Clock;
use crate::sys::thread;

/// Times of a thread, ns: since its beginning, or between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effort {
    /// That passed.
    pub(super) wall_ns: u64,
    /// It was on a core.
    pub(super) cpu_ns: u64,
    /// Part of the latter: it polled and found nothing to do.
    pub(super) idle_polling_ns: u64,
    /// It was ready to run and its core was not given to it.
    pub(super) starved_ns: u64,
}

impl Effort {
    /// What the calling thread has come to.
    pub(super) fn of_this_thread(clock: &Clock, idle_polling_ns: u64) -> Self {
        Self {
            wall_ns: clock.now(),
            cpu_ns: thread::cpu_time().as_nanos() as u64,
            idle_polling_ns,
            starved_ns: thread::time_without_core().as_nanos() as u64,
        }
    }

    /// From an earlier reading to this one.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            wall_ns: self.wall_ns.saturating_sub(earlier.wall_ns),
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            idle_polling_ns: self.idle_polling_ns.saturating_sub(earlier.idle_polling_ns),
            starved_ns: self.starved_ns.saturating_sub(earlier.starved_ns),
        }
    }

    /// Share of the time it worked.
    pub(super) fn busy_fraction(&self) -> f64 {
        // Polling is timed by the wall: a thread that lost its core meanwhile has polled longer than it ran.
        self.share(self.cpu_ns.saturating_sub(self.idle_polling_ns))
    }

    /// Share of the time it waited for its core.
    pub(super) fn starved_fraction(&self) -> f64 {
        self.share(self.starved_ns)
    }

    fn share(&self, ns: u64) -> f64 {
        // The clocks are read one after the other, so that a part may seem larger than the whole.
        (ns as f64 / self.wall_ns.max(1) as f64).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_time_on_the_core_without_idle_polling_of_the_time_between_two_readings() {
        let begin = Effort { wall_ns: 1000, cpu_ns: 700, idle_polling_ns: 0, starved_ns: 50 };
        let end = Effort { wall_ns: 11_000, cpu_ns: 6700, idle_polling_ns: 2000, starved_ns: 1050 };
        let effort = end.since(&begin);
        assert!((effort.busy_fraction() - 0.4).abs() < 1e-12, "{effort:?}");
        assert!((effort.starved_fraction() - 0.1).abs() < 1e-12, "{effort:?}");
    }

    #[test]
    fn no_share_is_below_nothing_or_above_the_whole() {
        let polled = Effort { wall_ns: 100, cpu_ns: 40, idle_polling_ns: 60, starved_ns: 0 };
        assert!(polled.busy_fraction().abs() < 1e-12, "{polled:?}");
        let full = Effort { wall_ns: 100, cpu_ns: 103, idle_polling_ns: 0, starved_ns: 101 };
        assert!((full.busy_fraction() - 1.0).abs() < 1e-12 && (full.starved_fraction() - 1.0).abs() < 1e-12);
        let none = Effort::default();
        assert!(none.busy_fraction().abs() < 1e-12 && none.since(&full).starved_fraction().abs() < 1e-12);
    }
}
