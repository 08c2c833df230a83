//! The disk's side of admission: how old the oldest chunk is that is not yet durable, and what that means for the rate.
//! Shard thread; pure.
//!
//! A shard can be far below its target while the disk is behind: then chunks queue, up to the log buffer, and every
//! answer waits behind all of them. The guard follows CoDel (RFC 8289): a queue that empties now and then is a good queue;
//! one whose age stays above the target for a whole interval is standing, and is taken down by admitting less, in steps
//! that come faster (interval / √n) as long as it stands.

use std::collections::VecDeque;

use super::TICK_NS;
use crate::base::Seq;

/// How long the age must stay above its target before the guard acts: longer than any group commit of a healthy disk.
const INTERVAL_NS: u64 = 100 * TICK_NS;
/// One step down leaves this much: 7/8.
const STEP_DOWN: (u64, u64) = (7, 8);
/// Steps up come every interval below the target, by 1/16: slower than down, because the queue that a step too far leaves
/// takes longer to empty than it took to grow. Up to [`KNOWN_GOOD`] of what the disk could not take when the queue began,
/// the n-th is by n/16: a disk that stood still and runs again is as fast as it was, and ten such steps, a second, come to
/// a factor of 17.
const STEP_UP: u64 = 16;
/// A disk that could almost take so much can take three quarters of it.
const KNOWN_GOOD: (u64, u64) = (3, 4);
/// However long a queue stands, this part of what was admitted when the guard first acted is still admitted: what is never
/// tried is never found to work again.
const LEFT_AT_LEAST: u64 = 32;
/// With this many times the admitted work allowed, the guard is of no effect and is let go.
const LET_GO_AT: u64 = 2;
/// Marks kept: chunks are marked once per tick at most, so this covers a lag of 64 ms exactly; older queues are marked
/// more coarsely.
const MARKS_MAX: usize = 64;

/// When chunks were first seen open, to tell the age of the oldest one that is not durable.
#[derive(Clone, Debug)]
pub struct LagMarks {
    marks: VecDeque<(Seq, u64)>,
}

impl Default for LagMarks {
    fn default() -> Self {
        Self { marks: VecDeque::with_capacity(MARKS_MAX) }
    }
}

impl LagMarks {
    /// Takes in how far the shard and the writer are: `open` is the chunk being filled, if it holds events, `durable` the
    /// last durable one. Returns the age of the oldest marked chunk that is not durable, in nanoseconds.
    pub fn look(&mut self, now_ns: u64, open: Option<Seq>, durable: Seq) -> u64 {
        while self.marks.front().is_some_and(|(seq, _)| *seq <= durable) {
            self.marks.pop_front();
        }
        if let Some(open) = open
            && self.marks.len() < MARKS_MAX
            && self.marks.back().is_none_or(|(seq, _)| *seq < open)
        {
            self.marks.push_back((open, now_ns));
        }
        self.marks.front().map_or(0, |(_, since_ns)| now_ns.saturating_sub(*since_ns))
    }
}

/// See the module text.
#[derive(Clone, Debug)]
pub struct LagGuard {
    target_ns: u64,
    above_since_ns: Option<u64>,
    below_since_ns: u64,
    next_step_ns: u64,
    steps: u32,
    steps_up: u64,
    least: u64,
    known_good: u64,
    rate: Option<u64>,
}

impl LagGuard {
    /// Keeps the age below `target_ns`.
    #[must_use]
    pub fn new(target_ns: u64) -> Self {
        Self {
            target_ns,
            above_since_ns: None,
            below_since_ns: 0,
            next_step_ns: 0,
            steps: 0,
            steps_up: 0,
            least: 1,
            known_good: 0,
            rate: None,
        }
    }

    /// Takes in the age of the oldest chunk and the work now admitted per tick.
    pub fn step(&mut self, now_ns: u64, age_ns: u64, work: u64) {
        if age_ns < self.target_ns {
            if self.above_since_ns.take().is_some() {
                (self.steps, self.steps_up) = (0, 0);
                self.below_since_ns = now_ns;
            }
            if let Some(rate) = self.rate
                && now_ns.saturating_sub(self.below_since_ns) >= INTERVAL_NS
            {
                self.below_since_ns = now_ns;
                self.steps_up += 1;
                let sixteenths = if rate < self.known_good { self.steps_up } else { 1 };
                let raised = rate.saturating_mul(STEP_UP + sixteenths) / STEP_UP + 1;
                self.rate = (raised < work.saturating_mul(LET_GO_AT).max(1)).then_some(raised);
            }
            return;
        }
        if self.above_since_ns.is_none() {
            self.above_since_ns = Some(now_ns);
            self.next_step_ns = now_ns + INTERVAL_NS;
        } else if now_ns >= self.next_step_ns {
            self.steps += 1;
            self.next_step_ns = now_ns + INTERVAL_NS / u64::from(self.steps.isqrt().max(1));
            let from = self.rate.map_or(work, |rate| rate.min(work.max(1)));
            if self.steps == 1 {
                self.known_good = from * KNOWN_GOOD.0 / KNOWN_GOOD.1;
            }
            if self.rate.is_none() {
                self.least = (work / LEFT_AT_LEAST).max(1);
            }
            self.rate = Some((from * STEP_DOWN.0 / STEP_DOWN.1).max(self.least));
        }
    }

    /// Work that may be admitted per tick; `None` while the disk keeps up.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// The age the guard keeps to, in nanoseconds.
    #[must_use]
    pub fn target_ns(&self) -> u64 {
        self.target_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_age_is_that_of_the_oldest_chunk_not_yet_durable() {
        let mut marks = LagMarks::default();
        assert_eq!(marks.look(0, None, Seq(4)), 0, "nothing is underway");
        assert_eq!(marks.look(5 * MS, Some(Seq(5)), Seq(4)), 0);
        assert_eq!(marks.look(7 * MS, Some(Seq(6)), Seq(4)), 2 * MS);
        assert_eq!(marks.look(9 * MS, Some(Seq(9)), Seq(5)), 2 * MS, "5 is durable, 6 was seen at 7 ms");
        assert_eq!(marks.look(10 * MS, None, Seq(9)), 0);
        for tick in 0..1000 {
            marks.look((100 + tick) * MS, Some(Seq(10 + tick)), Seq(9));
        }
        assert_eq!(marks.look(1200 * MS, None, Seq(9)), 1100 * MS, "a bounded list still knows the oldest");
    }

    #[test]
    fn a_queue_that_empties_now_and_then_is_left_alone() {
        let mut guard = LagGuard::new(50 * MS);
        for tick in 0..10_000 {
            let age_ns = if tick % 90 == 0 { 49 * MS } else { 80 * MS };
            guard.step(tick * MS, age_ns, 1000);
            assert_eq!(guard.rate(), None);
        }
    }

    #[test]
    fn a_standing_queue_is_taken_down_ever_faster_and_the_guard_lets_go_when_it_is_gone() {
        let mut guard = LagGuard::new(50 * MS);
        let mut falls = Vec::new();
        for tick in 0..1500 {
            let before = guard.rate();
            guard.step(tick * MS, 60 * MS, 1000);
            if guard.rate() != before {
                falls.push(tick);
            }
        }
        assert_eq!(falls[0], 100, "not before a whole interval");
        assert!(falls[1] - falls[0] >= falls.last().unwrap() - falls[falls.len() - 2]);
        assert!(guard.rate().unwrap() < 300);
        for tick in 1500..8000 {
            guard.step(tick * MS, 10 * MS, guard.rate().unwrap_or(2000).min(2000));
        }
        assert_eq!(guard.rate(), None);
    }

    #[test]
    fn a_disk_that_stood_still_is_soon_used_again_in_full() {
        let mut guard = LagGuard::new(50 * MS);
        (0..20_000).for_each(|tick| guard.step(tick * MS, tick * MS, guard.rate().unwrap_or(3200)));
        assert_eq!(guard.rate(), Some(100), "a little is always tried");
        let recovered = (20_000..30_000).find(|tick| {
            guard.step(tick * MS, 0, guard.rate().unwrap_or(3200).min(3200));
            guard.rate().is_none_or(|rate| rate >= 3200)
        });
        assert!(recovered.is_some_and(|tick| tick < 22_000), "{recovered:?}");
    }
}
