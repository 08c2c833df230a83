//! The decision: admitted or refused, from the head of a request, before its body is looked at. Shard thread; pure.

use super::budget::Budget;
use super::controller::Controller;
use super::fair::{FairShares, Share, Standing};
use super::hold::Hold;
use super::lag::{LagGuard, Progress};
use super::meter::{Meter, Turn};
use super::retry::RetryAfter;
use super::{PPM, TICK_NS};

/// Of what the target leaves of the core, what refusing may take before refused connections are held: three quarters. The
/// rest is slack: a core without any is late with everything.
const REFUSING_SHARE: u64 = PPM * 3 / 4;
/// Even with a target near 1 refusing may take this: without it nobody would be told.
const REFUSING_MIN: u64 = PPM / 20;
/// From this far into what the target leaves of the core on, connections that bring far more than others are held, too.
const SOFT_SHARE: u64 = PPM / 2;
/// Shares this near to 1 are 1: turns are measured, not counted.
const LEVEL_TICKS: u64 = 100;

/// The budget must be this full for a request of low priority; negative is debt.
const FLOOR_LOW: i64 = PPM as i64 / 2;
const FLOOR_NORMAL: i64 = 0;
const FLOOR_HIGH: i64 = -(PPM as i64) / 4;
/// A tenant below his guaranteed share is admitted at so much less: what the others left in debt is not his.
const BELOW_SHARE: i64 = PPM as i64 / 2;

/// What a client says of the importance of its request, by `X-Priority`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// Shed first.
    Low,
    /// What nobody said anything of.
    #[default]
    Normal,
    /// Shed last.
    High,
}

impl Priority {
    /// Reads `low`, `normal` or `high`, ASCII case ignored.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        [("low", Self::Low), ("normal", Self::Normal), ("high", Self::High)]
            .into_iter()
            .find_map(|(known, priority)| name.eq_ignore_ascii_case(known.as_bytes()).then_some(priority))
    }

    const fn floor(self) -> i64 {
        match self {
            Self::Low => FLOOR_LOW,
            Self::Normal => FLOOR_NORMAL,
            Self::High => FLOOR_HIGH,
        }
    }
}

/// Why a request is refused with 503 `BACKPRESSURE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The shard holds its utilization target.
    Utilization,
    /// The log is behind.
    Lag,
    /// As many requests are in flight as may be.
    Concurrency,
    /// The tenant has had his share, and others wait for theirs.
    Share,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Utilization, Self::Lag, Self::Concurrency, Self::Share];
}

/// How far a shard goes to hold its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// It takes what comes.
    #[default]
    None,
    /// It leaves some connections unread for a while, so that TCP pushes back.
    Soft,
    /// It refuses requests.
    Hard,
}

/// What an [`Admission`] holds, for one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Share of the core to spend serving; [`PPM`] and above: no limit.
    pub target: u64,
    /// Age of the oldest chunk that is not durable, from which on less is admitted, in nanoseconds.
    pub lag_target_ns: u64,
    /// Requests in flight from which on others are refused.
    pub in_flight_max: u32,
    /// Seeds the spread of `Retry-After` and of holds.
    pub seed: u64,
}

/// What the shard knows of itself at the end of a turn, besides its times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// How far shard and writer are.
    pub progress: Progress,
    /// Bytes of the log buffer in use, and all of them.
    pub log_buffer: (u64, u64),
    /// Bytes of the pool in use, and those that blocks of every size may use.
    pub pool: (u64, u64),
    /// Chunks handed over and not back, and as many as may be.
    pub chunks: (u64, u64),
}

/// One figure and its parts, each in parts per million of where it begins to hurt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Share of the core spent serving, of the target.
    pub utilization: u64,
    /// Age of the oldest chunk that is not durable, of its target.
    pub lag: u64,
    /// Requests in flight, of their cap.
    pub concurrency: u64,
    /// Log buffer in use.
    pub log_buffer: u64,
    /// Chunks handed over and not back, of the ring's length.
    pub chunks: u64,
    /// Pool in use.
    pub pool: u64,
}

impl Pressure {
    /// The worst of the parts.
    #[must_use]
    pub fn worst(&self) -> u64 {
        let Self { utilization, lag, concurrency, log_buffer, chunks, pool } = *self;
        [utilization, lag, concurrency, log_buffer, chunks, pool].into_iter().max().unwrap_or(0)
    }
}

/// See the module text.
#[derive(Clone, Debug)]
pub struct Admission {
    config: Config,
    meter: Meter,
    controller: Controller,
    lag: LagGuard,
    hold: Hold,
    budget: Budget,
    fair: FairShares,
    retry: RetryAfter,
    refilled_ns: u64,
    in_flight: u32,
    /// Charged since the start.
    work: u64,
    facts: Facts,
    /// Since the last step something was refused to hold the target, or because the disk is behind.
    refused_for_target: bool,
    refused_for_lag: bool,
    refused_at_ns: Option<u64>,
}

impl Admission {
    /// Knows nothing yet and admits everything.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let target = config.target.min(PPM);
        let refusing = ((PPM - target) * REFUSING_SHARE / PPM).max(REFUSING_MIN);
        Self {
            config,
            meter: Meter::default(),
            controller: Controller::new(config.target),
            lag: LagGuard::new(config.lag_target_ns),
            hold: Hold::new(refusing, config.seed),
            budget: Budget::default(),
            fair: FairShares::default(),
            retry: RetryAfter::new(config.seed),
            refilled_ns: 0,
            in_flight: 0,
            work: 0,
            facts: Facts::default(),
            refused_for_target: false,
            refused_for_lag: false,
            refused_at_ns: None,
        }
    }

    /// Takes in a turn that ended at `now_ns`. Whether a tick has ended with it, and the figures have changed.
    pub fn turned(&mut self, now_ns: u64, turn: Turn, facts: impl FnOnce() -> Facts) -> bool {
        let ticks = self.meter.take(turn);
        if ticks == 0 {
            return false;
        }
        self.facts = facts();
        self.controller.step(&self.meter, ticks, std::mem::take(&mut self.refused_for_target));
        let refused = std::mem::take(&mut self.refused_for_lag);
        self.lag.step(now_ns, ticks, self.facts.progress, self.work, refused);
        self.hold.step(self.meter.refusing_lasting(), ticks);
        true
    }

    /// Decides on a request of a tenant with `share` and `weight`. An admitted one is in flight until
    /// [`Admission::finished`], and its work is to be charged.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn judge(&mut self, now_ns: u64, priority: Priority, share: &mut Share, weight: u32) -> Result<(), Refusal> {
        let verdict = self.verdict(now_ns, priority, share, weight);
        self.meter.count_offered(verdict.is_ok());
        match verdict {
            Ok(()) => self.in_flight += 1,
            Err(reason) => {
                // A share is one of either rate.
                self.refused_for_target |= matches!(reason, Refusal::Utilization | Refusal::Share);
                self.refused_for_lag |= matches!(reason, Refusal::Lag | Refusal::Share);
                self.refused_at_ns = Some(now_ns);
            }
        }
        verdict
    }

    /// A request was refused for want of something else, which the level shows.
    pub fn note_refused(&mut self, now_ns: u64) {
        self.refused_at_ns = Some(now_ns);
    }

    fn verdict(&mut self, now_ns: u64, priority: Priority, share: &mut Share, weight: u32) -> Result<(), Refusal> {
        let Some((rate, reason)) = self.rate() else {
            return self.has_place();
        };
        self.budget.refill(rate, now_ns.saturating_sub(self.refilled_ns));
        self.refilled_ns = now_ns;
        let fill = self.budget.fill();
        // Tenants are counted also while nothing is scarce: who asks is known when it becomes so.
        let standing = self.fair.ask(now_ns, share, weight, rate, fill);
        self.has_place()?;
        if reason == Refusal::Utilization && !self.controller.is_enforced() {
            return Ok(());
        }
        let floor = priority.floor();
        match standing {
            Standing::Alone | Standing::Above if fill > floor => Ok(()),
            Standing::Alone | Standing::Above => Err(reason),
            Standing::Below if self.budget.fill_of_bucket() > floor - BELOW_SHARE => Ok(()),
            Standing::Below => Err(reason),
            Standing::Exhausted => Err(Refusal::Share),
        }
    }

    fn has_place(&self) -> Result<(), Refusal> {
        if self.in_flight < self.config.in_flight_max { Ok(()) } else { Err(Refusal::Concurrency) }
    }

    /// The lower of the rates in force, and what it is for.
    fn rate(&self) -> Option<(u64, Refusal)> {
        let by_utilization = self.controller.rate().map(|rate| (rate, Refusal::Utilization));
        let by_lag = self.lag.rate().map(|rate| (rate, Refusal::Lag));
        match (by_utilization, by_lag) {
            (Some(one), Some(other)) => {
                Some(if one.0 < other.0 && self.controller.is_enforced() { one } else { other })
            }
            (one, other) => one.or(other),
        }
    }

    /// Counts work taken on for an admitted request.
    pub fn charge(&mut self, now_ns: u64, share: &mut Share, work: u64) {
        self.work = self.work.saturating_add(work);
        self.meter.count_work(work);
        self.budget.charge(work);
        share.charge(now_ns, work);
    }

    /// `requests` admitted requests are no longer in flight.
    ///
    /// # Panics
    /// If there were not so many.
    pub fn finished(&mut self, requests: u32) {
        self.in_flight = self.in_flight.checked_sub(requests).expect("no more requests finish than were admitted");
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Seconds after which a refused client is to come again.
    pub fn retry_after_s(&mut self) -> u32 {
        let debt_ns = self.rate().map_or(0, |(rate, _)| self.budget.paid_in_ns(rate));
        self.retry.seconds(debt_ns.max(self.lag.age_ns()), self.meter.admit_share())
    }

    /// Nanoseconds for which a connection that was just refused is to be left unread; 0: not at all. Drawn around
    /// [`Admission::hold_ns`].
    pub fn draw_hold_ns(&mut self) -> u64 {
        self.hold.draw_ns()
    }

    /// Nanoseconds for which connections that are refused now are left unread on average; 0: not at all.
    #[must_use]
    pub fn hold_ns(&self) -> u64 {
        self.hold.ns()
    }

    /// Whether connections that bring far more than others are to be left unread until the next tick.
    #[must_use]
    pub fn holds_heaviest(&self) -> bool {
        let target = self.controller.target();
        target < PPM && self.meter.serving_fast() > target + (PPM - target) * SOFT_SHARE / PPM
    }

    /// What it is doing at `now_ns`.
    #[must_use]
    pub fn level(&self, now_ns: u64) -> Level {
        let refused = self.refused_at_ns.is_some_and(|at| now_ns.saturating_sub(at) < LEVEL_TICKS * TICK_NS);
        match (refused, self.hold_ns() > 0 || self.holds_heaviest()) {
            (true, _) => Level::Hard,
            (false, true) => Level::Soft,
            (false, false) => Level::None,
        }
    }

    /// The pressure and its parts.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        let share = |(used, all): (u64, u64)| used.saturating_mul(PPM) / all.max(1);
        Pressure {
            utilization: share((self.meter.serving_fast(), self.controller.target())),
            lag: share((self.lag.age_ns(), self.lag.target_ns())),
            concurrency: share((self.in_flight.into(), self.config.in_flight_max.into())),
            log_buffer: share(self.facts.log_buffer),
            chunks: share(self.facts.chunks),
            pool: share(self.facts.pool),
        }
    }

    /// Whether nothing is left to fade: figures that nobody changes stay as they are.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.meter.is_quiet() && self.hold.ns() == 0 && self.lag.rate().is_none() && self.lag.age_ns() == 0
    }

    /// How busy the shard is.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Work that may be admitted per millisecond now; `None`: as much as comes.
    #[must_use]
    pub fn admitted_rate(&self) -> Option<u64> {
        self.rate().map(|(rate, _)| rate)
    }

    /// Age of the oldest chunk that is not durable, in nanoseconds.
    #[must_use]
    pub fn lag_ns(&self) -> u64 {
        self.lag.age_ns()
    }
}

/// The part of `shard` in a cap of `requests` on all of `shards` together: the parts differ by one at most and add up to
/// the cap, so it holds without a counter that shards share.
#[must_use]
pub fn split_concurrency(requests: u64, shards: usize, shard: usize) -> u32 {
    let (shards, shard) = (shards.max(1) as u64, shard as u64);
    let part = requests / shards + u64::from(shard < requests % shards);
    u32::try_from(part).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: Config = Config { target: 500_000, lag_target_ns: 100_000_000, in_flight_max: 100, seed: 1 };

    /// A shard that was busy for a second serving `work` per tick, twice its target.
    fn overloaded(work: u64) -> (Admission, u64) {
        let mut admission = Admission::new(CONFIG);
        let mut now_ns = 0;
        for _ in 0..1000 {
            admission.charge(now_ns, &mut Share::default(), work);
            now_ns += TICK_NS;
            admission.turned(now_ns, Turn { wall_ns: TICK_NS, busy_ns: TICK_NS, refusing_ns: 0 }, Facts::default);
        }
        (admission, now_ns)
    }

    /// How many of so many requests of each priority get in within a tick, in turn.
    fn admitted(admission: &mut Admission, now_ns: u64, share: &mut Share, priorities: &[Priority]) -> [u32; 3] {
        let mut counts = [0; 3];
        for priority in priorities {
            if admission.judge(now_ns, *priority, share, 1).is_ok() {
                admission.charge(now_ns, share, 1000);
                admission.finished(1);
                counts[*priority as usize] += 1;
            }
        }
        counts
    }

    #[test]
    fn without_load_everything_is_admitted_up_to_the_concurrency_cap() {
        let mut admission = Admission::new(CONFIG);
        let mut share = Share::default();
        for _ in 0..100 {
            assert_eq!(admission.judge(0, Priority::Low, &mut share, 1), Ok(()));
        }
        assert_eq!(admission.judge(0, Priority::High, &mut share, 1), Err(Refusal::Concurrency));
        assert_eq!((admission.in_flight(), admission.pressure().concurrency), (100, PPM));
        admission.finished(1);
        assert_eq!(admission.judge(0, Priority::Low, &mut share, 1), Ok(()));
    }

    #[test]
    fn above_the_target_low_priority_is_shed_first_and_high_last() {
        let (mut admission, mut now_ns) = overloaded(100_000);
        let mut share = Share::default();
        let mix: Vec<_> = (0..900)
            .map(|request| match request % 9 {
                0 => Priority::High,
                1..5 => Priority::Normal,
                _ => Priority::Low,
            })
            .collect();
        let mut sums = [0; 3];
        // The rate of some 25 per tick is less than the normal ones alone.
        for tick in 0..200 {
            let counts = admitted(&mut admission, now_ns, &mut share, &mix);
            if tick >= 50 {
                (0..3).for_each(|at| sums[at] += counts[at]);
            }
            now_ns += TICK_NS;
            let turn = Turn { wall_ns: TICK_NS, busy_ns: TICK_NS / 2, refusing_ns: 0 };
            admission.turned(now_ns, turn, Facts::default);
        }
        let [low, normal, high] = sums;
        assert_eq!(low, 0, "{sums:?}");
        assert!(high > 0 && normal * 20 < high * 21, "{sums:?}");
        assert_eq!(admission.level(now_ns), Level::Hard);
    }

    #[test]
    fn a_disk_that_is_behind_lowers_what_is_admitted_at_any_utilization() {
        let mut admission = Admission::new(CONFIG);
        let mut share = Share::default();
        let mut now_ns = 0;
        // Nothing ever becomes durable.
        let progress = Progress { open: Some(crate::base::Seq(2)), durable: crate::base::Seq(1) };
        let late = || Facts { progress, ..Facts::default() };
        let mut refused = None;
        for tick in 0..3000 {
            match admission.judge(now_ns, Priority::Normal, &mut share, 1) {
                Ok(()) => {
                    admission.charge(now_ns, &mut share, 10_000);
                    admission.finished(1);
                }
                Err(reason) => refused = refused.or(Some((tick, reason))),
            }
            now_ns += TICK_NS;
            admission.turned(now_ns, Turn { wall_ns: TICK_NS, busy_ns: TICK_NS / 10, refusing_ns: 0 }, late);
        }
        let (tick, reason) = refused.unwrap();
        assert!((100..400).contains(&tick) && reason == Refusal::Lag, "{tick} {reason:?}");
        assert_eq!((admission.lag_ns(), admission.pressure().lag), (2_999 * TICK_NS, 29_990_000));
        assert_eq!(admission.pressure().worst(), 29_990_000);
    }

    #[test]
    fn parts_of_the_concurrency_cap_add_up_to_it() {
        for shards in 1..70 {
            for cap in [0, 1, 5, 69, 6699, 10_000, 1_000_000] {
                let parts: Vec<u64> = (0..shards).map(|shard| split_concurrency(cap, shards, shard).into()).collect();
                assert_eq!(parts.iter().sum::<u64>(), cap);
                assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1);
            }
        }
    }

    #[test]
    fn a_priority_is_read_or_refused() {
        assert_eq!(Priority::from_name(b"LOW"), Some(Priority::Low));
        assert_eq!(Priority::from_name(b"high"), Some(Priority::High));
        assert_eq!(Priority::from_name(b"normal"), Some(Priority::Normal));
        assert_eq!(Priority::from_name(b"urgent"), None);
    }
}
