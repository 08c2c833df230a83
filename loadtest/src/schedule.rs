//! When each request is meant to be sent: a rate over time, and arrivals drawn from it. Pure; times are nanoseconds from
//! the start of the load.
//!
//! The schedule never looks at what the server does: that is what makes a load open. A request that cannot leave when it
//! is due keeps its intended time, and its latency counts from there.

use std::fmt;
use std::iter::Peekable;

use crate::quantity;
use crate::random::Random;

const NS_PER_S: f64 = 1e9;
/// The highest rate that is taken, requests per second: one a nanosecond, which is what times are counted in.
pub const RATE_MAX: f64 = 1e9;
/// Of Poisson arrivals that are passed over, those that are drawn: a fiftieth of a second of work. Those behind them are
/// counted by their mean, from which a drawn number would differ by a thousandth.
const PASSED_DRAWN_MAX: u64 = 1_000_000;
/// Up to this rate what Poisson arrivals offer is drawn, else it is their mean: the main thread has to keep up.
const OFFERED_DRAWN_MAX: f64 = 1e7;

/// A stretch of time in which a value goes evenly from one number to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Piece {
    /// How long, ns.
    pub duration_ns: u64,
    /// Value at its start.
    pub from: f64,
    /// Value at its end.
    pub to: f64,
}

/// A value over time: requests per second, or clients.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    pieces: Vec<Piece>,
}

/// A schedule that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleError(String);

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "schedule: {}; one of constant, step:RATE@TIME/RATE@TIME…, ramp:FROM-TO, spike:BASE-PEAK, each with \
             'poisson,' before it for random arrivals",
            self.0
        )
    }
}

impl std::error::Error for ScheduleError {}

impl Curve {
    /// The pieces one after the other; those without duration are left out.
    #[must_use]
    pub fn new(pieces: Vec<Piece>) -> Self {
        let pieces: Vec<Piece> = pieces.into_iter().filter(|piece| piece.duration_ns > 0).collect();
        assert!(pieces.iter().all(|piece| piece.from >= 0.0 && piece.to >= 0.0), "a value below zero");
        Self { pieces }
    }

    /// One value for the whole time.
    #[must_use]
    pub fn flat(value: f64, duration_ns: u64) -> Self {
        Self::new(vec![Piece { duration_ns, from: value, to: value }])
    }

    /// Its pieces in order.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Its length, ns.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.duration_ns).sum()
    }

    /// The value at a time; 0 behind the end.
    #[must_use]
    pub fn at(&self, ns: u64) -> f64 {
        let mut start = 0;
        for piece in &self.pieces {
            if ns < start + piece.duration_ns {
                let part = (ns - start) as f64 / piece.duration_ns as f64;
                return piece.from + (piece.to - piece.from) * part;
            }
            start += piece.duration_ns;
        }
        0.0
    }

    /// Its largest value.
    #[must_use]
    pub fn peak(&self) -> f64 {
        self.pieces.iter().flat_map(|piece| [piece.from, piece.to]).fold(0.0, f64::max)
    }

    /// Requests it stands for: the integral, if it is a rate per second.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.pieces.iter().map(Piece::area).sum()
    }

    /// Requests that it stands for between two times, ns.
    #[must_use]
    pub fn between(&self, from_ns: u64, to_ns: u64) -> f64 {
        let (mut sum, mut start) = (0.0, 0);
        for piece in &self.pieces {
            let end = start + piece.duration_ns;
            let (from, to) = (from_ns.max(start), to_ns.min(end));
            if from < to {
                let value =
                    |ns: u64| piece.from + (piece.to - piece.from) * (ns - start) as f64 / piece.duration_ns as f64;
                sum += (value(from) + value(to)) / 2.0 * (to - from) as f64 / NS_PER_S;
            }
            start = end;
        }
        sum
    }

    /// The same shape with all values multiplied.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let scale = |piece: &Piece| Piece { from: piece.from * factor, to: piece.to * factor, ..*piece };
        Self { pieces: self.pieces.iter().map(scale).collect() }
    }

    /// The same with its first value held for `duration_ns` before it: a warm-up. A curve that begins at 0 is begun at a
    /// tenth of where it goes: nothing would warm nothing, and its peak may be more than the server can take.
    #[must_use]
    pub fn after_warmup(&self, duration_ns: u64) -> Self {
        let begin = |piece: &Piece| if piece.from > 0.0 { piece.from } else { piece.to / 10.0 };
        let first = self.pieces.iter().map(begin).find(|value| *value > 0.0).unwrap_or(0.0);
        let mut pieces = vec![Piece { duration_ns, from: first, to: first }];
        pieces.extend_from_slice(&self.pieces);
        Self::new(pieces)
    }

    /// The ends of its falls, ns: from where on a server should recover. Falls that follow each other are one.
    #[must_use]
    pub fn falls(&self) -> Vec<u64> {
        let mut falls = Vec::new();
        let mut end = 0;
        for (at, piece) in self.pieces.iter().enumerate() {
            let start = end;
            end += piece.duration_ns;
            let before = if at == 0 { piece.from } else { self.pieces[at - 1].to };
            if piece.from < before {
                falls.push(start);
            }
            let goes_on = self.pieces.get(at + 1).is_some_and(|next| next.to < next.from || next.from < piece.to);
            if piece.to < piece.from && piece.to > 0.0 && !goes_on {
                falls.push(end);
            }
        }
        falls
    }

    /// Reads `constant`, `step:…`, `ramp:…` or `spike:…` for a run of `duration_ns` at `rate` per second.
    ///
    /// # Errors
    /// [`ScheduleError`] with what is wrong.
    pub fn parse(text: &str, rate: Option<f64>, duration_ns: u64) -> Result<Self, ScheduleError> {
        let curve = Self::parse_shape(text, rate, duration_ns)?;
        curve.check().map_err(ScheduleError)?;
        Ok(curve)
    }

    /// Whether it is a rate that can be kept and a time that can be counted.
    ///
    /// # Errors
    /// A sentence with the limit, [`RATE_MAX`] or [`TIME_MAX`](quantity::TIME_MAX).
    pub fn check(&self) -> Result<(), String> {
        if self.peak() > RATE_MAX {
            return Err(format!("{:e} requests per second are more than {RATE_MAX:e}", self.peak()));
        }
        let whole_s = self.pieces.iter().map(|piece| piece.duration_ns as f64).sum::<f64>() / NS_PER_S;
        if whole_s > quantity::TIME_MAX.as_secs_f64() {
            return Err(format!("it is longer than {} days", quantity::TIME_MAX.as_secs() / 86_400));
        }
        Ok(())
    }

    fn parse_shape(text: &str, rate: Option<f64>, duration_ns: u64) -> Result<Self, ScheduleError> {
        let wrong = |what: String| Err(ScheduleError(what));
        let (shape, numbers) = text.split_once(':').unwrap_or((text, ""));
        let pair = || -> Result<(f64, f64), ScheduleError> {
            let both = numbers
                .split_once('-')
                .and_then(|(from, to)| Some((quantity::count(from).ok()?, quantity::count(to).ok()?)));
            both.ok_or_else(|| ScheduleError(format!("'{text}' does not name two rates as in {shape}:1000-5000")))
        };
        match shape {
            "constant" => match rate {
                Some(rate) if rate > 0.0 => Ok(Self::flat(rate, duration_ns)),
                _ => wrong("a constant schedule needs --rate above 0".into()),
            },
            "ramp" => {
                let (from, to) = pair()?;
                Ok(Self::new(vec![Piece { duration_ns, from, to }]))
            }
            "spike" => {
                let (base, peak) = pair()?;
                let third = duration_ns / 3;
                let flat = |value, duration_ns| Piece { duration_ns, from: value, to: value };
                Ok(Self::new(vec![flat(base, third), flat(peak, third), flat(base, duration_ns - 2 * third)]))
            }
            "step" => {
                let mut pieces = Vec::new();
                for step in numbers.split('/') {
                    let read = step
                        .split_once('@')
                        .and_then(|(rate, time)| Some((quantity::count(rate).ok()?, quantity::duration(time).ok()?)));
                    let Some((rate, time)) = read else {
                        return wrong(format!("'{step}' is not a step as in 1000@10s"));
                    };
                    pieces.push(Piece { duration_ns: time.as_nanos() as u64, from: rate, to: rate });
                }
                Ok(Self::new(pieces))
            }
            _ => wrong(format!("'{text}' is not known")),
        }
    }
}

impl Piece {
    /// The integral over the piece, values per second.
    fn area(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.duration_ns as f64 / NS_PER_S
    }

    /// The integral over its first `part_ns`.
    fn area_until(&self, part_ns: u64) -> f64 {
        if part_ns == self.duration_ns {
            return self.area();
        }
        let to = self.from + (self.to - self.from) * (part_ns as f64 / self.duration_ns as f64);
        (self.from + to) / 2.0 * part_ns as f64 / NS_PER_S
    }

    /// The time within the piece, ns, at which its integral reaches `area`, which is at most [`Piece::area`].
    fn time_of(&self, area: f64) -> u64 {
        // from·t + slope/2·t² = area, in the form that does not cancel for slopes near 0 and works for from = 0.
        let from = self.from / NS_PER_S;
        let slope = (self.to - self.from) / NS_PER_S / self.duration_ns as f64;
        let root = (from * from + 2.0 * slope * area).max(0.0).sqrt();
        let time = 2.0 * area / (from + root);
        (time as u64).min(self.duration_ns - 1)
    }
}

/// How arrivals are drawn from a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    /// As evenly as the rate allows.
    #[default]
    Even,
    /// A Poisson process: clients that know nothing of each other.
    Poisson,
}

/// The intended send times of one generator thread, ascending.
#[derive(Clone, Debug)]
pub struct Schedule {
    curve: Curve,
    arrivals: Arrivals,
    random: Random,
    piece: usize,
    /// Where the piece begins, ns.
    start_ns: u64,
    /// Requests between the start of the piece and the next one.
    ahead: f64,
    /// Arrivals that may be drawn only to be passed over.
    may_draw: u64,
}

impl Schedule {
    /// The part of `thread` of `threads` equal ones in `curve`, which is a rate per second of all. Even arrivals of the
    /// threads interleave.
    #[must_use]
    pub fn new(curve: &Curve, arrivals: Arrivals, seed: u64, thread: usize, threads: usize) -> Self {
        assert!(thread < threads, "thread {thread} of {threads}");
        let mut random = Random::new(seed, 0x5ced_0000 + thread as u64);
        let ahead = match arrivals {
            Arrivals::Even => thread as f64 / threads as f64,
            Arrivals::Poisson => random.exponential(),
        };
        Self {
            curve: curve.scaled(1.0 / threads as f64),
            arrivals,
            random,
            piece: 0,
            start_ns: 0,
            ahead,
            may_draw: PASSED_DRAWN_MAX,
        }
    }

    /// Passes over those before a time, ns; how many. In steps of a piece and not of a request: even arrivals are counted
    /// by the integral of their rate, and Poisson's behind the first million as even ones.
    pub fn pass(&mut self, until_ns: u64) -> u64 {
        let mut count = 0;
        while let Some(piece) = self.curve.pieces.get(self.piece).copied() {
            let part_ns = until_ns.saturating_sub(self.start_ns).min(piece.duration_ns);
            let area = piece.area_until(part_ns);
            while self.arrivals == Arrivals::Poisson && self.ahead < area {
                count += 1;
                self.ahead += self.random.exponential();
                self.may_draw -= 1;
                if self.may_draw == 0 {
                    self.arrivals = Arrivals::Even;
                }
            }
            if self.ahead < area {
                let passed = (area - self.ahead).ceil();
                count += passed as u64;
                self.ahead += passed;
            }
            if part_ns < piece.duration_ns {
                break;
            }
            self.ahead -= piece.area();
            self.start_ns += piece.duration_ns;
            self.piece += 1;
        }
        count
    }
}

impl Iterator for Schedule {
    type Item = u64;

    /// The next intended time, ns from the start; `None` behind the end.
    fn next(&mut self) -> Option<u64> {
        loop {
            let piece = *self.curve.pieces.get(self.piece)?;
            let area = piece.area();
            if self.ahead >= area {
                self.ahead -= area;
                self.start_ns += piece.duration_ns;
                self.piece += 1;
                continue;
            }
            let time = self.start_ns + piece.time_of(self.ahead);
            self.ahead += match self.arrivals {
                Arrivals::Even => 1.0,
                Arrivals::Poisson => self.random.exponential(),
            };
            return Some(time);
        }
    }
}

/// How many requests the threads' schedules intend, one interval after the other.
pub struct Offered {
    curve: Curve,
    /// Those of a Poisson process, drawn once more: it is not its mean, but where there are too many to draw. Even arrivals
    /// are the curve's but for a fraction of one.
    drawn: Vec<Peekable<Schedule>>,
}

impl Offered {
    /// Of the same schedules that [`Schedule::new`] gives to `threads` threads.
    #[must_use]
    pub fn new(curve: &Curve, arrivals: Arrivals, seed: u64, threads: usize) -> Self {
        let schedule = |thread| Schedule::new(curve, arrivals, seed, thread, threads).peekable();
        let drawn = match arrivals {
            Arrivals::Poisson if curve.peak() <= OFFERED_DRAWN_MAX => (0..threads).map(schedule).collect(),
            _ => Vec::new(),
        };
        Self { curve: curve.clone(), drawn }
    }

    /// Requests that are intended between two times, ns. No time before an earlier call's end is asked for again.
    pub fn between(&mut self, from_ns: u64, to_ns: u64) -> f64 {
        if self.drawn.is_empty() {
            return self.curve.between(from_ns, to_ns);
        }
        let mut count = 0;
        for schedule in &mut self.drawn {
            while let Some(at) = schedule.next_if(|at| *at < to_ns) {
                count += u64::from(at >= from_ns);
            }
        }
        count as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn even(curve: &Curve) -> Vec<u64> {
        Schedule::new(curve, Arrivals::Even, 1, 0, 1).collect()
    }

    #[test]
    fn a_constant_rate_is_evenly_spaced_and_complete() {
        let times = even(&Curve::flat(1000.0, 2 * SECOND));
        assert_eq!(times.len(), 2000);
        assert_eq!(times[0], 0);
        for pair in times.windows(2) {
            let gap = pair[1] - pair[0];
            assert!((999_999..=1_000_001).contains(&gap), "{gap}");
        }
    }

    #[test]
    fn a_ramp_sends_as_much_as_its_area_and_twice_as_dense_at_twice_the_rate() {
        let curve = Curve::new(vec![Piece { duration_ns: 10 * SECOND, from: 0.0, to: 1000.0 }]);
        let times = even(&curve);
        assert_eq!(times.len(), 5000);
        let within = |from: u64, to: u64| times.iter().filter(|time| (from..to).contains(*time)).count() as i64;
        // The integral of 100·t over [2, 3) is 250, over [7, 8) 750.
        assert!((within(2 * SECOND, 3 * SECOND) - 250).abs() <= 1);
        assert!((within(7 * SECOND, 8 * SECOND) - 750).abs() <= 1);
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
    }

    #[test]
    fn parts_of_a_curve_add_up_to_its_whole() {
        let curve = Curve::parse("step:100@1s/300@2s", None, 0).unwrap();
        assert!((curve.between(0, 3 * SECOND) - curve.total()).abs() < 1e-6);
        assert!((curve.between(SECOND / 2, 2 * SECOND) - 350.0).abs() < 1e-6);
        assert!(curve.between(4 * SECOND, 5 * SECOND).abs() < 1e-6);
    }

    #[test]
    fn a_falling_ramp_ends_at_its_end() {
        let times = even(&Curve::new(vec![Piece { duration_ns: 10 * SECOND, from: 1000.0, to: 0.0 }]));
        assert_eq!(times.len(), 5000);
        assert!(*times.last().unwrap() < 10 * SECOND);
    }

    #[test]
    fn steps_and_spikes_hold_their_rates() {
        let steps = even(&Curve::parse("step:100@1s/300@2s", None, 0).unwrap());
        assert_eq!(steps.iter().filter(|time| **time < SECOND).count(), 100);
        assert_eq!(steps.len(), 700);
        let spike = even(&Curve::parse("spike:10-1000", None, 3 * SECOND).unwrap());
        assert_eq!(spike.iter().filter(|time| (SECOND..2 * SECOND).contains(*time)).count(), 1000);
        assert_eq!(spike.len(), 1020);
    }

    /// One connection and a server that takes a tenth of a millisecond but for one stall of half a second: exact.
    #[test]
    fn a_stall_is_in_latencies_from_intended_times_and_not_in_those_from_sends() {
        let (service, stall_at, stall) = (100_000, SECOND, SECOND / 2);
        let (mut free_at, mut corrected, mut uncorrected) = (0, Vec::new(), Vec::new());
        for intended in even(&Curve::flat(1000.0, 3 * SECOND)) {
            let sent = intended.max(free_at);
            let is_stalled = (stall_at..stall_at + stall).contains(&(sent + service));
            free_at = if is_stalled { stall_at + stall } else { sent } + service;
            corrected.push(free_at - intended);
            uncorrected.push(free_at - sent);
        }
        let above = |latencies: &[u64], ns| latencies.iter().filter(|latency| **latency > ns).count();
        // Those meant for the first half of the stall waited for its second half at least.
        assert!((249..=280).contains(&above(&corrected, stall / 2)), "{}", above(&corrected, stall / 2));
        assert_eq!(above(&uncorrected, stall / 2), 1, "only the request under way was stalled");
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_variance_of_their_name() {
        let curve = Curve::flat(10_000.0, 20 * SECOND);
        let mut per_slice = vec![0f64; 2000];
        for time in Schedule::new(&curve, Arrivals::Poisson, 42, 0, 1) {
            per_slice[(time / 10_000_000) as usize] += 1.0;
        }
        let mean = per_slice.iter().sum::<f64>() / per_slice.len() as f64;
        let variance = per_slice.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / per_slice.len() as f64;
        assert!((mean - 100.0).abs() < 2.0, "{mean}");
        assert!((0.85..1.15).contains(&(variance / mean)), "variance {variance}, mean {mean}");
    }

    #[test]
    fn what_is_offered_is_what_is_scheduled_and_not_its_mean() {
        let curve = Curve::parse("ramp:100-300", None, SECOND).unwrap();
        for arrivals in [Arrivals::Even, Arrivals::Poisson] {
            let times: Vec<u64> = (0..3).flat_map(|thread| Schedule::new(&curve, arrivals, 7, thread, 3)).collect();
            let mut offered = Offered::new(&curve, arrivals, 7, 3);
            let (mut sum, mut deviates) = (0.0, false);
            // The first tenth is asked for by nobody.
            for tenth in 1..10 {
                let (from, to) = (tenth * SECOND / 10, (tenth + 1) * SECOND / 10);
                let counted = times.iter().filter(|at| (from..to).contains(*at)).count() as f64;
                let found = offered.between(from, to);
                let exact = if arrivals == Arrivals::Poisson { 0.0 } else { 3.0 };
                assert!((found - counted).abs() <= exact, "{arrivals:?} {tenth}: {found} of {counted}");
                deviates |= (counted - curve.between(from, to)).abs() > 3.0;
                sum += found;
            }
            assert!(sum > 150.0 && deviates == (arrivals == Arrivals::Poisson), "{arrivals:?}: {sum}");
        }
    }

    #[test]
    fn those_passed_over_are_as_many_as_those_that_would_have_come() {
        let curve = Curve::parse("step:900@1s/30@3s", None, 0).unwrap();
        let ramp = Curve::parse("ramp:0-700", None, 4 * SECOND).unwrap();
        for (curve, arrivals) in
            [(&curve, Arrivals::Even), (&curve, Arrivals::Poisson), (&ramp, Arrivals::Even), (&ramp, Arrivals::Poisson)]
        {
            let mut one_by_one = Schedule::new(curve, arrivals, 3, 1, 2).peekable();
            let mut passing = Schedule::new(curve, arrivals, 3, 1, 2);
            // Neither before nor behind the ends of pieces is any lost.
            for until in [0, SECOND / 3, SECOND, SECOND + 1, 2 * SECOND, 5 * SECOND, 9 * SECOND] {
                let counted = std::iter::from_fn(|| one_by_one.next_if(|at| *at < until)).count() as u64;
                assert_eq!(passing.pass(until), counted, "{arrivals:?} until {until}");
            }
            assert_eq!(passing.next(), None);
        }
    }

    /// One by one these would take weeks.
    #[test]
    fn what_nobody_can_send_is_counted_without_drawing_it() {
        for arrivals in [Arrivals::Even, Arrivals::Poisson] {
            let curve = Curve::flat(RATE_MAX, 24 * 3600 * SECOND);
            let counted = Schedule::new(&curve, arrivals, 1, 0, 1).pass(u64::MAX) as f64;
            assert!((counted / curve.total() - 1.0).abs() < 1e-6, "{arrivals:?}: {counted}");
            let offered = Offered::new(&curve, arrivals, 1, 1).between(0, u64::MAX);
            assert!((offered / curve.total() - 1.0).abs() < 1e-6, "{arrivals:?}: {offered}");
        }
    }

    #[test]
    fn rates_and_times_above_their_limits_are_refused_with_them() {
        for text in ["ramp:1-1.1G", "step:2G@1s", "spike:1-1e300"] {
            let error = Curve::parse(text, None, SECOND).unwrap_err().to_string();
            assert!(error.contains("more than 1e9"), "{text}: {error}");
        }
        assert!(Curve::parse("constant", Some(1e12), SECOND).unwrap_err().to_string().contains("more than 1e9"));
        assert!(Curve::parse("constant", Some(RATE_MAX), SECOND).is_ok());
        let steps = format!("step:{}", vec!["1@8000h"; 600].join("/"));
        assert!(Curve::parse(&steps, None, SECOND).unwrap_err().to_string().contains("366 days"));
    }

    #[test]
    fn a_seed_gives_the_same_schedule_again() {
        let curve = Curve::flat(1000.0, SECOND);
        let times = |seed| Schedule::new(&curve, Arrivals::Poisson, seed, 0, 1).collect::<Vec<_>>();
        assert_eq!(times(5), times(5));
        assert_ne!(times(5), times(6));
    }

    #[test]
    fn threads_share_the_schedule_without_gap_or_overlap() {
        let curve = Curve::new(vec![
            Piece { duration_ns: SECOND, from: 900.0, to: 900.0 },
            Piece { duration_ns: SECOND, from: 900.0, to: 0.0 },
        ]);
        let mut all: Vec<u64> = (0..3).flat_map(|thread| Schedule::new(&curve, Arrivals::Even, 1, thread, 3)).collect();
        all.sort_unstable();
        assert_eq!(all.len(), 1350);
        for (one, other) in all.iter().zip(even(&curve)) {
            assert!(one.abs_diff(other) < 20_000, "{one} and {other}");
        }
    }

    #[test]
    fn a_warm_up_holds_the_first_rate() {
        let curve = Curve::parse("ramp:100-200", None, SECOND).unwrap().after_warmup(SECOND);
        assert!((curve.at(SECOND / 2) - 100.0).abs() < 1e-9);
        assert_eq!(curve.duration_ns(), 2 * SECOND);
        let from_nothing = Curve::parse("ramp:0-200", None, SECOND).unwrap().after_warmup(SECOND);
        assert!((from_nothing.at(SECOND / 2) - 20.0).abs() < 1e-9);
    }

    #[test]
    fn falls_are_where_load_drops_and_not_where_it_ends() {
        let flat = |value, duration_ns| Piece { duration_ns, from: value, to: value };
        let spike = Curve::new(vec![flat(10.0, 5), flat(90.0, 5), flat(10.0, 5), flat(50.0, 5), flat(10.0, 5)]);
        assert_eq!(spike.falls(), [10, 20]);
        let ramps = Curve::new(vec![
            Piece { duration_ns: 5, from: 0.0, to: 9.0 },
            Piece { duration_ns: 5, from: 9.0, to: 6.0 },
            Piece { duration_ns: 5, from: 6.0, to: 3.0 },
            flat(3.0, 5),
            Piece { duration_ns: 5, from: 3.0, to: 0.0 },
        ]);
        assert_eq!(ramps.falls(), [15]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_forms_that_can() {
        for text in ["", "step:", "step:5", "ramp:7", "spike:a-b", "wave:1-2"] {
            let error = Curve::parse(text, Some(1.0), SECOND).unwrap_err().to_string();
            assert!(error.contains("ramp:FROM-TO"), "{text}: {error}");
        }
        assert!(Curve::parse("constant", None, SECOND).unwrap_err().to_string().contains("--rate"));
    }
}
