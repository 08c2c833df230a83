//! The controller: from the measured share of the core spent serving to the work that may be admitted per millisecond.
//! Shard thread; pure.
//!
//! A proportional-integral controller with feedforward. The obvious design, a probability of admission, has a loop gain
//! that grows with the offered load: tuned for the setpoint it oscillates at five times the load, tuned for that it takes
//! seconds at the setpoint. A *rate* of admitted work has not: the share it costs is rate × cost, whatever is offered.
//!
//! ```text
//! rate = work admitted × target / serving     feedforward, both over 100 ms: what the target has room for at the measured
//!                                             cost of a unit of work
//!      × (1 + 0.5 × error over 10 ms)         proportional: a burst is answered within 10 ms
//!      × trim, trim' = 5/s × error            integral: what the feedforward gets wrong
//! ```
//!
//! Both means of the feedforward lag by the same time, so their quotient does not: a step in load changes neither the cost
//! of work nor the rate, and there is nothing to settle. The error is (target - serving) / target. The integral is bounded, and
//! returns to 1 while nothing is refused, so it cannot wind up.
//!
//! What is measured as serving may hold a part that no refusal makes smaller: others' work on the same core, above all. If
//! that part alone is more than the target, no rate holds it, and the feedforward, which takes it for the cost of work,
//! would take the rate down by the same factor again and again. So the rate ends at [`RATE_MIN`].

use super::meter::Meter;
use super::{PPM, RATE_MIN};

/// Below this share of the core the cost of work is not measured: it would be the cost of an almost idle loop.
const SERVING_MEASURED_MIN: u64 = PPM / 50;
/// Proportional gain.
const PROPORTIONAL: i64 = PPM as i64 / 2;
/// Integral gain per tick: 5 per second.
const INTEGRAL: i64 = PPM as i64 / 200;
/// Bounds of the trim. Below, because a wrong feedforward must not stop the server; above, because it must not flood it.
const TRIM_MIN: i64 = PPM as i64 / 2;
const TRIM_MAX: i64 = PPM as i64 * 5 / 4;
/// The error counts at most this much in one step of the integral: saturation shows as 1/target and no more, and a long
/// turn counts as its time.
const TICKS_PER_STEP_MAX: u64 = 50;
/// From this share of the target on, the budget is enforced. Below it nothing is refused for utilization, however
/// wrong the rate is: the cost of work measured on an almost idle shard is too high, because small turns cost more.
const ENFORCED_FROM: u64 = PPM * 9 / 10;
/// While something is refused, it stays enforced down to this share: what is refused is why there is less to serve, and
/// letting everything in until the means have risen again would be a burst each time, of whatever priority.
const ENFORCED_TO: u64 = PPM / 2;

/// See the module text.
#[derive(Clone, Debug)]
pub struct Controller {
    /// `None`: no target, everything is admitted.
    target: Option<u64>,
    /// Feedforward: work per tick.
    capacity: Option<u64>,
    trim: i64,
    rate: Option<u64>,
    enforced: bool,
}

impl Controller {
    /// Holds `target`, parts per million of a core; at [`PPM`] and above it controls nothing.
    ///
    /// # Panics
    /// If the target is 0.
    #[must_use]
    pub fn new(target: u64) -> Self {
        assert!(target > 0, "a server that may never work");
        let target = (target < PPM).then_some(target);
        Self { target, capacity: None, trim: PPM as i64, rate: None, enforced: false }
    }

    /// Takes in what the meter shows after `ticks` more ticks, in which something was refused or nothing was.
    pub fn step(&mut self, meter: &Meter, ticks: u64, refused: bool) {
        let Some(target) = self.target else { return };
        let (serving, work) = (meter.serving_slow(), meter.work());
        if serving >= SERVING_MEASURED_MIN && work > 0 {
            self.capacity = Some((u128::from(work) * u128::from(target) / u128::from(serving)) as u64);
        }
        let error = (target as i64 - meter.serving_fast() as i64) * PPM as i64 / target as i64;
        let ticks = ticks.min(TICKS_PER_STEP_MAX) as i64;
        if refused || error < 0 {
            self.trim += INTEGRAL * ticks * error / PPM as i64;
        } else {
            // Nothing is refused: whatever was learnt about a full shard fades within a second.
            self.trim += (PPM as i64 - self.trim) * ticks / 256;
        }
        self.trim = self.trim.clamp(TRIM_MIN, TRIM_MAX);
        let proportional = PPM as i64 + PROPORTIONAL * error.clamp(-(PPM as i64), PPM as i64) / PPM as i64;
        self.rate = self.capacity.map(|capacity| {
            let rate = u128::from(capacity) * self.trim as u128 * proportional as u128;
            (rate / (u128::from(PPM) * u128::from(PPM))).max(u128::from(RATE_MIN)) as u64
        });
        // By the slow mean too: while the debt of a burst is paid, the fast one falls below, and letting go then would
        // forgive it.
        let from = if self.enforced && refused { ENFORCED_TO } else { ENFORCED_FROM };
        self.enforced = meter.serving_fast().max(serving) >= target * from / PPM;
    }

    /// Work that may be admitted per tick; `None` before anything was measured, or without a target.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Whether the shard is so near its target that the rate counts.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        self.enforced
    }

    /// The target, parts per million; 1 without.
    #[must_use]
    pub fn target(&self) -> u64 {
        self.target.unwrap_or(PPM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admit::{TICK_NS, Turn};

    /// Ticks in which the shard spends `serving` of its time on `work`.
    fn run(controller: &mut Controller, meter: &mut Meter, ticks: u64, serving: u64, work: u64, refused: bool) {
        for _ in 0..ticks {
            meter.count_work(work);
            let ended = meter.take(Turn { wall_ns: TICK_NS, busy_ns: serving, refusing_ns: 0 });
            controller.step(meter, ended, refused);
        }
    }

    #[test]
    fn at_half_the_target_the_rate_is_about_twice_the_load_and_not_enforced() {
        let (mut controller, mut meter) = (Controller::new(600_000), Meter::default());
        assert_eq!(controller.rate(), None, "nothing is known yet");
        run(&mut controller, &mut meter, 1000, 300_000, 10_000, false);
        // 20 000, and a quarter more for the room there is.
        assert!((19_900..=25_100).contains(&controller.rate().unwrap()), "{:?}", controller.rate());
        assert!(!controller.is_enforced());
    }

    #[test]
    fn above_the_target_the_rate_falls_below_the_load_at_once_and_further_with_time() {
        let (mut controller, mut meter) = (Controller::new(500_000), Meter::default());
        run(&mut controller, &mut meter, 20, 1_000_000, 10_000, true);
        let early = controller.rate().unwrap();
        assert!(early < 5_000 && controller.is_enforced(), "{early}");
        run(&mut controller, &mut meter, 2000, 1_000_000, 10_000, true);
        let late = controller.rate().unwrap();
        assert!((1_000..early).contains(&late), "bounded: {late}");
    }

    #[test]
    fn the_trim_does_not_wind_up_while_nothing_is_refused() {
        let (mut controller, mut meter) = (Controller::new(500_000), Meter::default());
        run(&mut controller, &mut meter, 60_000, 100_000, 10_000, false);
        assert_eq!(controller.trim, PPM as i64);
        run(&mut controller, &mut meter, 5_000, 1_000_000, 100_000, true);
        assert_eq!(controller.trim, TRIM_MIN);
        run(&mut controller, &mut meter, 3_000, 100_000, 10_000, false);
        assert!(controller.trim > PPM as i64 * 98 / 100, "{}", controller.trim);
    }

    #[test]
    fn others_work_on_the_core_does_not_take_the_rate_to_nothing_and_it_comes_back_when_they_leave() {
        const TARGET: u64 = 50_000;
        let (mut controller, mut meter) = (Controller::new(TARGET), Meter::default());
        // A unit of work takes 5 ns, and for ten seconds a tenth of the core is somebody else's.
        let mut work = 10_000;
        for tick in 0..20_000 {
            let others = if tick < 10_000 { 100_000 } else { 0 };
            run(&mut controller, &mut meter, 1, others + work * 5, work, true);
            let rate = controller.rate().filter(|_| controller.is_enforced());
            work = rate.unwrap_or(100_000).min(100_000);
            assert!(work >= RATE_MIN, "{tick}: {work}");
            assert!(tick < 11_000 || work * 5 > TARGET * 9 / 10, "{tick}: {work}");
        }
    }

    #[test]
    fn the_rate_counts_from_nine_tenths_of_the_target_on_and_down_to_a_half_while_something_is_refused() {
        let (mut controller, mut meter) = (Controller::new(500_000), Meter::default());
        let mut enforced = |serving, refused| {
            run(&mut controller, &mut meter, 1000, serving, 10_000, refused);
            controller.is_enforced()
        };
        assert!(!enforced(440_000, true) && enforced(460_000, true));
        assert!(enforced(260_000, true) && !enforced(260_000, false) && !enforced(260_000, true));
        assert!(enforced(460_000, false) && !enforced(240_000, true));
    }

    #[test]
    fn a_target_of_one_controls_nothing() {
        let (mut controller, mut meter) = (Controller::new(PPM), Meter::default());
        run(&mut controller, &mut meter, 1000, 1_000_000, 10_000, false);
        assert_eq!((controller.rate(), controller.is_enforced()), (None, false));
    }
}
