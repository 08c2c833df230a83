//! One deadline per connection, in a dense array. Shard thread only; time is an argument.
//!
//! A tick scans the deadlines of all places ever used: 16 384 connections are 64 KiB, read in a few microseconds twenty
//! times a second. That is cheaper than moving a timer for every request, which a wheel or a heap would have to do.

use std::time::Duration;

/// Granularity of timeouts; they fire up to one tick late, never early.
pub(super) const TICK: Duration = Duration::from_millis(50);
const NEVER: u32 = u32::MAX;

/// See the module text. Ticks count from the shard's start and last for 6 years.
#[derive(Debug)]
pub(super) struct Deadlines {
    ticks: Vec<u32>,
    used: usize,
    set: usize,
    now: u32,
}

impl Deadlines {
    /// Deadlines for `places` connections, none set.
    #[must_use]
    pub(super) fn new(places: usize) -> Self {
        Self { ticks: vec![NEVER; places], used: 0, set: 0, now: 0 }
    }

    /// Sets or moves the deadline of `place` to `after` from now.
    #[inline]
    pub(super) fn set(&mut self, place: usize, after: Duration) {
        let ticks = after.as_nanos().div_ceil(TICK.as_nanos());
        // One tick more: now lies somewhere within the present tick.
        let at = u32::try_from(ticks).unwrap_or(NEVER).saturating_add(self.now + 1).min(NEVER - 1);
        self.set += usize::from(self.ticks[place] == NEVER);
        self.ticks[place] = at;
        self.used = self.used.max(place + 1);
    }

    /// Takes the deadline of `place` away.
    #[inline]
    pub(super) fn clear(&mut self, place: usize) {
        self.set -= usize::from(self.ticks[place] != NEVER);
        self.ticks[place] = NEVER;
    }

    /// Whether any is set: else the shard may sleep without end.
    #[must_use]
    pub(super) fn any(&self) -> bool {
        self.set > 0
    }

    /// Moves to `elapsed` since the shard's start and appends the places whose deadline has passed to `due`, their
    /// deadlines taken away. Whether a new tick has begun; cheap if not.
    pub(super) fn advance(&mut self, elapsed: Duration, due: &mut Vec<u32>) -> bool {
        let now = u32::try_from(elapsed.as_nanos() / TICK.as_nanos()).expect("a shard lives less than six years");
        if now == self.now {
            return false;
        }
        self.now = now;
        if self.set == 0 {
            return true;
        }
        for (place, at) in self.ticks[..self.used].iter_mut().enumerate() {
            if *at <= now {
                *at = NEVER;
                self.set -= 1;
                due.push(place as u32);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_passes_once_and_never_early() {
        let mut deadlines = Deadlines::new(4);
        let mut due = Vec::new();
        deadlines.advance(TICK * 10, &mut due);
        deadlines.set(2, TICK * 3);
        deadlines.set(1, Duration::from_millis(1));
        deadlines.advance(TICK * 11, &mut due);
        assert!(due.is_empty(), "one tick of slack: now may be the end of a tick");
        deadlines.advance(TICK * 12, &mut due);
        assert_eq!(due, [1]);
        deadlines.set(2, TICK * 3);
        due.clear();
        deadlines.advance(TICK * 15, &mut due);
        assert!(due.is_empty(), "it was moved");
        deadlines.advance(TICK * 16, &mut due);
        assert_eq!(due, [2]);
        assert!(!deadlines.any());
        deadlines.set(0, Duration::MAX);
        deadlines.clear(0);
        assert!(!deadlines.any());
    }
}
