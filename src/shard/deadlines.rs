//! One deadline per connection, in a dense array. Shard thread only; time is an argument.
//!
//! A tick scans the deadlines of all places ever used: 16 384 connections are 64 KiB, read in a few microseconds twenty
//! times a second. That is cheaper than moving a timer for every request, which a wheel or a heap would have to do.
//!
//! What is set in a turn counts from that turn, however long the shard slept before it. Half a second and more in
//! which the host did not let the shard run counts as a tick: what clients sent meanwhile has not been received, and they are not to be told
//! that they were slow.

use std::time::Duration;

/// Granularity of timeouts; they fire up to one tick late, never early.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// A shard with deadlines wakes every tick. One that comes this many later was kept from running.
const STOPPED_TICKS: u32 = 10;
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

    /// Begins a turn at `elapsed` since the shard's start. Whether a new tick has begun.
    pub(super) fn begin_turn(&mut self, elapsed: Duration) -> bool {
        let now = u32::try_from(elapsed.as_nanos() / TICK.as_nanos()).expect("a shard lives less than six years");
        let ticks = now - self.now;
        self.now = now;
        if ticks >= STOPPED_TICKS && self.any() {
            for at in self.ticks[..self.used].iter_mut().filter(|at| **at != NEVER) {
                *at = at.saturating_add(ticks - 1).min(NEVER - 1);
            }
        }
        ticks > 0
    }

    /// Appends the places whose deadline has passed to `due` and takes those deadlines away. Once a tick is enough.
    pub(super) fn take_passed(&mut self, due: &mut Vec<u32>) {
        if self.set == 0 {
            return;
        }
        for (place, at) in self.ticks[..self.used].iter_mut().enumerate() {
            if *at <= self.now {
                *at = NEVER;
                self.set -= 1;
                due.push(place as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(deadlines: &mut Deadlines, elapsed: Duration) -> Vec<u32> {
        let mut due = Vec::new();
        deadlines.begin_turn(elapsed);
        deadlines.take_passed(&mut due);
        due
    }

    #[test]
    fn a_deadline_passes_once_and_never_early() {
        let mut deadlines = Deadlines::new(4);
        deadlines.begin_turn(TICK * 10);
        deadlines.set(2, TICK * 3);
        deadlines.set(1, Duration::from_millis(1));
        assert!(passed(&mut deadlines, TICK * 11).is_empty(), "one tick of slack: now may be the end of a tick");
        assert_eq!(passed(&mut deadlines, TICK * 12), [1]);
        deadlines.set(2, TICK * 3);
        assert!(passed(&mut deadlines, TICK * 15).is_empty(), "it was moved");
        assert_eq!(passed(&mut deadlines, TICK * 16), [2]);
        assert!(passed(&mut deadlines, TICK * 100).is_empty());
        assert!(!deadlines.any());
        deadlines.set(0, Duration::MAX);
        deadlines.clear(0);
        assert!(!deadlines.any());
    }

    #[test]
    fn a_tick_begins_once() {
        let mut deadlines = Deadlines::new(1);
        let begun = [1, 2, 3, 2000, 2000, 2001, 2002].map(|halves| deadlines.begin_turn(TICK * halves / 2));
        assert_eq!(begun, [false, true, false, true, false, false, true]);
    }

    #[test]
    fn a_deadline_set_after_a_long_sleep_counts_from_its_end() {
        let mut deadlines = Deadlines::new(1);
        deadlines.begin_turn(TICK * 1000);
        deadlines.set(0, TICK * 3);
        assert!(passed(&mut deadlines, TICK * 1003).is_empty());
        assert_eq!(passed(&mut deadlines, TICK * 1004), [0]);
    }

    #[test]
    fn a_time_in_which_the_shard_could_not_run_counts_as_one_tick() {
        let mut deadlines = Deadlines::new(3);
        deadlines.set(0, TICK * 3);
        deadlines.set(2, Duration::MAX);
        assert!(passed(&mut deadlines, TICK * STOPPED_TICKS).is_empty());
        assert!(passed(&mut deadlines, TICK * (STOPPED_TICKS + 2)).is_empty());
        assert_eq!(passed(&mut deadlines, TICK * (STOPPED_TICKS + 3)), [0]);
        deadlines.set(0, TICK * 3);
        assert_eq!(passed(&mut deadlines, TICK * (2 * STOPPED_TICKS + 2)), [0], "a short one counts");
        deadlines.begin_turn(TICK * 1_000_000);
        deadlines.set(1, TICK);
        assert_eq!(
            passed(&mut deadlines, TICK * 1_000_002),
            [1],
            "the place without one and the one for ever are as they were"
        );
        assert!(deadlines.any());
    }
}
