//! How busy a shard is, and with what: time of its turns, cut into serving and refusing, and the work it took on. Shard
//! thread; pure.
//!
//! An iteration of the loop that had work is busy; a blocking wait is idle, and so is a spin that found nothing. What the
//! operating system calls processor use is not asked: a spinning shard would show 100 % and io_uring's waits as iowait.
//!
//! *Serving* is everything but refusing: requests, idle turns' overhead, health checks. The target is a target for
//! serving. Refusing comes on top, with a budget of its own, because each refused request would otherwise take its cost
//! from those that are served, and at five times the load little would be left of them.

use super::PPM;
use super::ewma::{Decay, Mean, TICK_NS};

/// Times of one turn of the loop, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// From the end of the turn before to the end of this one.
    pub wall_ns: u64,
    /// Of that, spent working.
    pub busy_ns: u64,
    /// Of that, spent on requests that were refused.
    pub refusing_ns: u64,
}

/// Sums since the last sample.
#[derive(Clone, Copy, Debug, Default)]
struct Since {
    turn: Turn,
    work: u64,
    offered: u64,
    admitted: u64,
}

/// See the module text. All means are per millisecond; of nanoseconds that makes parts per million.
#[derive(Clone, Debug)]
pub struct Meter {
    since: Since,
    carry_ns: u64,
    serving_fast: Mean,
    serving_slow: Mean,
    busy_fast: Mean,
    refusing_fast: Mean,
    refusing_slow: Mean,
    work_slow: Mean,
    /// Requests, in thousandths: a few per second must not round to none.
    offered_slow: Mean,
    admitted_slow: Mean,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            since: Since::default(),
            carry_ns: 0,
            serving_fast: Mean::new(Decay::FAST),
            serving_slow: Mean::new(Decay::SLOW),
            busy_fast: Mean::new(Decay::FAST),
            refusing_fast: Mean::new(Decay::FAST),
            refusing_slow: Mean::new(Decay::SLOW),
            work_slow: Mean::new(Decay::SLOW),
            offered_slow: Mean::new(Decay::SLOW),
            admitted_slow: Mean::new(Decay::SLOW),
        }
    }
}

impl Meter {
    /// Counts a request that asked to be admitted.
    pub fn count_offered(&mut self, admitted: bool) {
        self.since.offered += 1;
        self.since.admitted += u64::from(admitted);
    }

    /// Counts work taken on.
    pub fn count_work(&mut self, work: u64) {
        self.since.work += work;
    }

    /// Takes in one turn; how many ticks have ended with it, most often none.
    pub fn take(&mut self, turn: Turn) -> u64 {
        debug_assert!(turn.refusing_ns <= turn.busy_ns && turn.busy_ns <= turn.wall_ns, "{turn:?}");
        let since = &mut self.since;
        since.turn.wall_ns += turn.wall_ns;
        since.turn.busy_ns += turn.busy_ns;
        since.turn.refusing_ns += turn.refusing_ns;
        let elapsed_ns = self.carry_ns + turn.wall_ns;
        let ticks = elapsed_ns / TICK_NS;
        self.carry_ns = elapsed_ns % TICK_NS;
        if ticks > 0 {
            let since = std::mem::take(&mut self.since);
            self.sample(since, ticks);
        }
        ticks
    }

    fn sample(&mut self, since: Since, ticks: u64) {
        let per_tick =
            |sum: u64| (u128::from(sum) * u128::from(TICK_NS) / u128::from(since.turn.wall_ns.max(1))) as u64;
        let (busy, refusing) = (per_tick(since.turn.busy_ns), per_tick(since.turn.refusing_ns));
        let serving = busy - refusing.min(busy);
        self.serving_fast.take(serving, ticks);
        self.serving_slow.take(serving, ticks);
        self.busy_fast.take(busy, ticks);
        self.refusing_fast.take(refusing, ticks);
        self.refusing_slow.take(refusing, ticks);
        self.work_slow.take(per_tick(since.work), ticks);
        self.offered_slow.take(per_tick(since.offered * 1000), ticks);
        self.admitted_slow.take(per_tick(since.admitted * 1000), ticks);
    }

    /// Share of the core spent serving, over 10 ms.
    #[must_use]
    pub fn serving_fast(&self) -> u64 {
        self.serving_fast.get()
    }

    /// The same over 100 ms.
    #[must_use]
    pub fn serving_slow(&self) -> u64 {
        self.serving_slow.get()
    }

    /// Share of the core spent working at all, over 10 ms.
    #[must_use]
    pub fn busy(&self) -> u64 {
        self.busy_fast.get()
    }

    /// Share of the core spent refusing, over 10 ms.
    #[must_use]
    pub fn refusing(&self) -> u64 {
        self.refusing_fast.get()
    }

    /// The same over 10 ms or over 100 ms, whichever is less: above a limit only if it has been so for a while and still is.
    #[must_use]
    pub fn refusing_lasting(&self) -> u64 {
        self.refusing_fast.get().min(self.refusing_slow.get())
    }

    /// Whether nothing was measured for so long that nothing is left of what was.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        [self.serving_fast, self.serving_slow, self.busy_fast, self.refusing_slow].iter().all(|mean| mean.get() == 0)
    }

    /// Work taken on per tick, over 100 ms.
    #[must_use]
    pub fn work(&self) -> u64 {
        self.work_slow.get()
    }

    /// Share of the requests that was admitted, over 100 ms; all, if there were none.
    #[must_use]
    pub fn admit_share(&self) -> u64 {
        let offered = self.offered_slow.get();
        (self.admitted_slow.get() * PPM).checked_div(offered).map_or(PPM, |share| share.min(PPM))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(wall_ns: u64, busy_ns: u64) -> Turn {
        Turn { wall_ns, busy_ns, refusing_ns: 0 }
    }

    #[test]
    fn utilization_is_busy_time_over_wall_time_whatever_the_length_of_turns() {
        for wall_ns in [3_000, 77_000, 999_999, 1_000_000, 4_100_000, 50_000_000] {
            let mut meter = Meter::default();
            let mut ticks = 0;
            let mut elapsed_ns = 0;
            while elapsed_ns < 2_000_000_000 {
                ticks += meter.take(turn(wall_ns, wall_ns * 2 / 3));
                elapsed_ns += wall_ns;
            }
            assert_eq!(ticks, elapsed_ns / TICK_NS, "no tick is lost or made up");
            for share in [meter.serving_fast(), meter.serving_slow(), meter.busy()] {
                assert!(share.abs_diff(666_666) < 400, "{wall_ns}: {share}");
            }
        }
    }

    #[test]
    fn a_long_wait_is_idle_and_ends_what_was_before() {
        let mut meter = Meter::default();
        meter.take(turn(500 * TICK_NS, 500 * TICK_NS));
        assert!(meter.serving_slow() > 990_000);
        meter.take(turn(3_600_000 * TICK_NS, 1000));
        assert_eq!((meter.serving_slow(), meter.busy()), (0, 0));
    }

    #[test]
    fn refusing_is_not_serving() {
        let mut meter = Meter::default();
        for _ in 0..1000 {
            meter.take(Turn { wall_ns: TICK_NS, busy_ns: 800_000, refusing_ns: 300_000 });
        }
        assert!(meter.serving_slow().abs_diff(500_000) < 100);
        assert!(meter.refusing().abs_diff(300_000) < 100 && meter.refusing_lasting().abs_diff(300_000) < 100);
        assert!(meter.busy().abs_diff(800_000) < 100);
    }

    #[test]
    fn a_burst_of_refusals_does_not_last_and_neither_does_what_is_over() {
        let mut meter = Meter::default();
        let run = |meter: &mut Meter, ticks, refusing_ns| {
            for _ in 0..ticks {
                meter.take(Turn { wall_ns: TICK_NS, busy_ns: TICK_NS, refusing_ns });
            }
            (meter.refusing(), meter.refusing_lasting())
        };
        let (now, lasting) = run(&mut meter, 20, 800_000);
        assert!(now > 600_000 && lasting < 200_000, "{now} {lasting}");
        let (now, lasting) = run(&mut meter, 300, 800_000);
        assert!(now > 700_000 && lasting > 700_000, "{now} {lasting}");
        let (now, lasting) = run(&mut meter, 20, 0);
        assert!(now < 200_000 && lasting == now, "{now} {lasting}");
    }

    #[test]
    fn the_admitted_share_counts_requests_however_few() {
        let mut meter = Meter::default();
        assert_eq!(meter.admit_share(), PPM, "nobody asked, nobody was refused");
        for request in 0..2000 {
            meter.count_offered(request % 4 == 0);
            meter.take(turn(TICK_NS, 0));
        }
        assert!(meter.admit_share().abs_diff(250_000) < 5_000, "{}", meter.admit_share());
    }
}
