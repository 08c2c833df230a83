//! The disk's side of admission: how old the oldest chunk is that is not yet durable, and what that means for the rate.
//! Shard thread; pure.
//!
//! A shard can be far below its target while the disk is behind: then chunks queue, up to the log buffer, and every
//! answer waits behind all of them. Like CoDel (RFC 8289) the guard looks at the age of the queue and not at its length, and
//! leaves a queue alone that empties now and then: only one whose age stays above the target for a whole interval is
//! standing. What it does then CoDel cannot: while a queue stands, what becomes durable is what the disk can take, so the
//! rate follows that instead of being searched for.
//!
//! ```text
//! rate = work made durable, over 100 ms × (1 + (half the target - age) / (2 × target)), the factor within 1/8 and 5/4
//! ```
//!
//! With the factor at 1 the queue stands still; the age closes half of its distance to half the target within 1.4 targets.
//! A queue that is gone leaves only the factor of 5/4, and the rate grows with what it lets through, a factor of e every
//! 400 ms: faster, every 100 ms, up to three quarters of what the disk took at best in the last seconds, because a disk
//! that was in trouble and is not any more is as fast as it was. That counts where few clients wait for their answers: next to
//! nothing is queued meanwhile that would show how fast the disk is again. After half a second without a queue and without
//! anybody refused the guard lets go.

use std::collections::VecDeque;

use super::ewma::{Decay, Mean};
use super::{PPM, RATE_MIN, TICK_NS};
use crate::base::Seq;

/// How long the age must stay above its target before the guard acts: longer than any group commit of a healthy disk.
const INTERVAL_NS: u64 = 100 * TICK_NS;
/// How long nothing must have been in its way before it lets go.
const LET_GO_NS: u64 = 5 * INTERVAL_NS;
/// Bounds of the factor, and its value for a queue of no age.
const FACTOR_MIN: i64 = PPM as i64 / 8;
const FACTOR_MAX: i64 = PPM as i64 * 5 / 4;
/// How long it is remembered what the disk took at best: it fades with this time constant.
const BEST_TICKS: u64 = 10_000;
/// The factor while the rate is far below what the disk took at best: its mean grows by e every 100 ms.
const FACTOR_FAR_BELOW: i64 = PPM as i64 * 2;
/// Where far below ends: a disk that could take so much can take three quarters of it.
const FAR_BELOW: (u64, u64) = (3, 4);
/// Marks kept: chunks are marked once per tick at most, so this covers a lag of 64 ms exactly; older queues are marked
/// more coarsely.
const MARKS_MAX: usize = 64;

/// How far a shard and its writer are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The chunk being filled, if it holds events.
    pub open: Option<Seq>,
    /// The last durable one.
    pub durable: Seq,
}

/// When chunks were first seen open, and how much work had been taken on then.
#[derive(Clone, Debug)]
struct Marks {
    marks: VecDeque<Mark>,
    durable_work: u64,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    seq: Seq,
    since_ns: u64,
    /// Taken on before this chunk was seen.
    work: u64,
}

impl Default for Marks {
    fn default() -> Self {
        Self { marks: VecDeque::with_capacity(MARKS_MAX), durable_work: 0 }
    }
}

impl Marks {
    /// Takes in how far things are when `work` has been taken on in all. Returns the age of the oldest marked chunk that is
    /// not durable, in nanoseconds, and the work that has become durable since the last look.
    fn look(&mut self, now_ns: u64, progress: Progress, work: u64) -> (u64, u64) {
        while self.marks.front().is_some_and(|mark| mark.seq <= progress.durable) {
            self.marks.pop_front();
        }
        if let Some(open) = progress.open
            && self.marks.len() < MARKS_MAX
            && self.marks.back().is_none_or(|mark| mark.seq < open)
        {
            self.marks.push_back(Mark { seq: open, since_ns: now_ns, work });
        }
        let oldest = self.marks.front();
        let durable_work = oldest.map_or(work, |mark| mark.work).max(self.durable_work);
        let more = durable_work - std::mem::replace(&mut self.durable_work, durable_work);
        (oldest.map_or(0, |mark| now_ns.saturating_sub(mark.since_ns)), more)
    }
}

/// What the guard does while the disk is behind.
#[derive(Clone, Copy, Debug)]
struct Acting {
    rate: u64,
    /// Since when there was neither a queue nor anybody refused.
    clear_since_ns: Option<u64>,
}

/// See the module text.
#[derive(Clone, Debug)]
pub struct LagGuard {
    target_ns: u64,
    marks: Marks,
    age_ns: u64,
    durable: Mean,
    /// The most that `durable` was of late.
    best: u64,
    above_since_ns: Option<u64>,
    acting: Option<Acting>,
}

impl LagGuard {
    /// Keeps the age below `target_ns`.
    #[must_use]
    pub fn new(target_ns: u64) -> Self {
        Self {
            target_ns,
            marks: Marks::default(),
            age_ns: 0,
            durable: Mean::new(Decay::SLOW),
            best: 0,
            above_since_ns: None,
            acting: None,
        }
    }

    /// Takes in, after `ticks` more ticks, how far things are when `work` has been taken on in all, and whether anything was
    /// `refused` since the last step.
    pub fn step(&mut self, now_ns: u64, ticks: u64, progress: Progress, work: u64, refused: bool) {
        let (age_ns, durable) = self.marks.look(now_ns, progress, work);
        self.age_ns = age_ns;
        self.durable.take(durable / ticks.max(1), ticks);
        let durable = self.durable.get();
        self.best -= (u128::from(self.best) * u128::from(ticks.min(BEST_TICKS)) / u128::from(BEST_TICKS)) as u64;
        self.best = self.best.max(durable);
        if age_ns < self.target_ns {
            self.above_since_ns = None;
        } else {
            let since_ns = *self.above_since_ns.get_or_insert(now_ns);
            if self.acting.is_none() && now_ns - since_ns >= INTERVAL_NS {
                self.acting = Some(Acting { rate: 0, clear_since_ns: None });
            }
        }
        let Some(acting) = &mut self.acting else { return };
        let clear = age_ns < self.target_ns && !refused;
        acting.clear_since_ns = acting.clear_since_ns.or(Some(now_ns)).filter(|_| clear);
        if acting.clear_since_ns.is_some_and(|since_ns| now_ns - since_ns >= LET_GO_NS) {
            self.acting = None;
            return;
        }
        let factor = factor(age_ns, self.target_ns, durable < self.best * FAR_BELOW.0 / FAR_BELOW.1);
        acting.rate = ((u128::from(durable) * factor as u128 / u128::from(PPM)) as u64).max(RATE_MIN);
    }

    /// Work that may be admitted per tick; `None` while the disk keeps up.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        self.acting.map(|acting| acting.rate)
    }

    /// The age of the oldest chunk that is not durable, in nanoseconds.
    #[must_use]
    pub fn age_ns(&self) -> u64 {
        self.age_ns
    }

    /// The age the guard keeps to, in nanoseconds.
    #[must_use]
    pub fn target_ns(&self) -> u64 {
        self.target_ns
    }
}

/// What of the durable work may be admitted, in parts per million.
fn factor(age_ns: u64, target_ns: u64, far_below: bool) -> i64 {
    let age = u64::try_from(u128::from(age_ns) * u128::from(PPM) / u128::from(target_ns.max(1))).unwrap_or(u64::MAX);
    let half = PPM as i64 / 2;
    let age = age.min(8 * PPM) as i64;
    if far_below && age < half {
        return FACTOR_FAR_BELOW;
    }
    (PPM as i64 + (half - age) / 2).clamp(FACTOR_MIN, FACTOR_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(open: Option<u64>, durable: u64) -> Progress {
        Progress { open: open.map(Seq), durable: Seq(durable) }
    }

    #[test]
    fn the_age_is_that_of_the_oldest_chunk_not_yet_durable() {
        let mut marks = Marks::default();
        assert_eq!(marks.look(0, at(None, 4), 100), (0, 100), "nothing is underway");
        assert_eq!(marks.look(5 * MS, at(Some(5), 4), 130), (0, 30), "what came before it");
        assert_eq!(marks.look(7 * MS, at(Some(6), 4), 190), (2 * MS, 0));
        assert_eq!(marks.look(9 * MS, at(Some(9), 5), 200), (2 * MS, 60), "5 is durable, 6 was seen at 7 ms");
        assert_eq!(marks.look(10 * MS, at(None, 9), 200), (0, 10));
        for tick in 0..1000 {
            marks.look((100 + tick) * MS, at(Some(10 + tick), 9), 200 + tick);
        }
        assert_eq!(marks.look(1200 * MS, at(None, 9), 1300).0, 1100 * MS, "a bounded list still knows the oldest");
        assert_eq!(marks.look(1300 * MS, at(None, 2000), 1300), (0, 1100), "and no work is forgotten");
    }

    /// A disk of so much work per tick behind a guard with a target of 50 ms; a chunk per tick.
    struct Queue {
        guard: LagGuard,
        tick: u64,
        taken: u64,
        /// Taken in all by the end of each chunk.
        chunks: Vec<u64>,
        durable: u64,
        durable_work: u64,
    }

    impl Queue {
        fn new() -> Self {
            let guard = LagGuard::new(50 * MS);
            Self { guard, tick: 0, taken: 0, chunks: vec![0], durable: 0, durable_work: 0 }
        }

        /// A tick in which so much is offered; what was admitted.
        fn tick(&mut self, offered: u64, disk: u64) -> u64 {
            let admitted = self.guard.rate().map_or(offered, |rate| rate.min(offered));
            self.tick += 1;
            self.durable_work = (self.durable_work + disk).min(self.taken);
            while self.chunks.get(self.durable as usize + 1).is_some_and(|end| *end <= self.durable_work) {
                self.durable += 1;
            }
            let open = self.chunks.len() as u64;
            let progress = at(Some(open), self.durable);
            self.guard.step(self.tick * MS, 1, progress, self.taken, admitted < offered);
            self.taken += admitted;
            self.chunks.push(self.taken);
            admitted
        }

        fn ticks(&mut self, ticks: u64, offered: u64, disk: u64) {
            for _ in 0..ticks {
                self.tick(offered, disk);
            }
        }
    }

    #[test]
    fn a_disk_that_keeps_up_or_stalls_for_less_than_an_interval_is_left_alone() {
        let mut queue = Queue::new();
        for tick in 0..20_000 {
            queue.tick(10_000, if tick % 400 < 90 { 0 } else { 20_000 });
            assert_eq!(queue.guard.rate(), None, "{tick}");
        }
    }

    #[test]
    fn a_disk_that_is_too_slow_is_given_what_it_takes_and_the_queue_stays_short() {
        for disk in [9_000, 5_000, 2_500] {
            let mut queue = Queue::new();
            queue.ticks(1_500, 10_000, disk);
            let mut admitted = 0;
            for tick in 0..3_000 {
                admitted += queue.tick(10_000, disk);
                assert!(queue.guard.age_ns() < 60 * MS, "disk {disk}, {tick}: {} ms", queue.guard.age_ns() / MS);
            }
            assert!(admitted > 3_000 * disk * 95 / 100, "disk {disk}: {admitted}");
        }
    }

    #[test]
    fn a_disk_that_stood_still_is_soon_used_again_in_full_and_the_guard_lets_go() {
        let mut queue = Queue::new();
        queue.ticks(500, 1_000_000, 2_000_000);
        queue.ticks(20_000, 1_000_000, 0);
        assert_eq!(queue.guard.rate(), Some(RATE_MIN), "a little is always tried");
        let full = (0..5_000).find(|_| queue.tick(1_000_000, 2_000_000) == 1_000_000);
        assert!(full.is_some_and(|ticks| ticks < 2_000), "{full:?}");
        queue.ticks(1_000, 1_000_000, 2_000_000);
        assert_eq!(queue.guard.rate(), None);
    }

    #[test]
    fn a_queue_that_returns_when_the_guard_has_let_go_is_taken_down_again() {
        let mut queue = Queue::new();
        queue.ticks(2_000, 10_000, 5_000);
        queue.ticks(2_000, 3_000, 5_000);
        assert_eq!(queue.guard.rate(), None);
        queue.ticks(2_000, 10_000, 5_000);
        assert!(queue.guard.rate().is_some() && queue.guard.age_ns() < 60 * MS, "{}", queue.guard.age_ns());
    }
}
