//! A run: starts the generator threads, joins their intervals, and hands back what they counted. Main thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::generator::{self, Interval, Report, Shared, Totals, interval_end};
use crate::oracle::Ledger;
use crate::plan::{Mode, Plan};
use crate::report::{Point, quantile_us};
use crate::schedule::Offered;

/// How long an unfinished interval is waited for before the main thread looks at its own affairs.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a run came to.
pub struct Run {
    /// All threads' counts.
    pub totals: Totals,
    /// The time series.
    pub points: Vec<Point>,
    /// What each thread says of itself.
    pub threads: Vec<ThreadReport>,
    /// What each thread sent and was promised.
    pub ledgers: Vec<Ledger>,
    /// From the end of the warm-up to the end of the load, seconds.
    pub measured_s: f64,
    /// The load was ended before its plan was.
    pub ended_early: bool,
    /// When it began, Unix ms.
    pub started_unix_ms: u64,
    /// Bytes that slow readers read, and how often a server closed one.
    pub slow_bytes: u64,
    /// See above.
    pub slow_closed: u64,
}

/// How one generator thread fared.
#[derive(Clone, Copy, Debug)]
pub struct ThreadReport {
    /// Share of the time it worked.
    pub busy_fraction: f64,
    /// Share of the time its core was not given to it.
    pub starved_fraction: f64,
    /// The longest time for which it did not come round to anything, ns.
    pub pause_max_ns: u64,
    /// How late it sent although a connection was free: median, 99th percentile and most, us; `None` if it sent nothing by a schedule.
    pub slip_us: [Option<f64>; 3],
    /// System calls of its ring.
    pub enters: u64,
    /// Whether it ran on the core it was given.
    pub pinned: bool,
}

/// Runs a plan; `seen` is shown every complete interval, and `shared` can end it early.
///
/// # Errors
/// A sentence, if a thread could not begin or the kernel refused something.
pub fn run(plan: &Arc<Plan>, shared: &Arc<Shared>, seen: &mut dyn FnMut(&mut Point)) -> Result<Run, String> {
    let started_unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
    let (send, receive) = mpsc::channel();
    let mut threads = Vec::new();
    for at in 0..plan.threads() {
        let (plan, shared, send) = (Arc::clone(plan), Arc::clone(shared), send.clone());
        let body = move || generator::generate(&plan, at, &shared, &send);
        let thread = thread::Builder::new().name(format!("generator-{at}")).spawn(body);
        threads.push(thread.map_err(|error| format!("a generator thread could not be started: {error}"))?);
    }
    drop(send);
    let offered = match &plan.mode {
        Mode::Open { curve, arrivals } => Some(Offered::new(curve, *arrivals, plan.seed, plan.threads())),
        Mode::Closed => None,
    };
    let mut series = Series { plan, offered, parts: BTreeMap::new(), points: Vec::new(), last_ended_ns: 0 };
    loop {
        match receive.recv_timeout(LOOK_EVERY) {
            Ok(interval) => series.add(interval, seen),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let mut reports = Vec::new();
    for thread in threads {
        reports.push(thread.join().map_err(|_| "a generator thread panicked".to_owned())?);
    }
    let reports = reports.into_iter().collect::<Result<Vec<Report>, String>>()?;
    Ok(series.finish(reports, started_unix_ms, seen))
}

struct Series<'p> {
    plan: &'p Plan,
    /// `None` in a closed loop, which offers what it sends.
    offered: Option<Offered>,
    /// Intervals that not all threads have sent yet, with how many have.
    parts: BTreeMap<u32, (usize, Interval)>,
    points: Vec<Point>,
    /// Where the last interval that was shown ends.
    last_ended_ns: u64,
}

impl Series<'_> {
    fn add(&mut self, interval: Interval, seen: &mut dyn FnMut(&mut Point)) {
        let index = interval.index;
        let count = match self.parts.remove(&index) {
            Some((count, mut sum)) => {
                sum.join(&interval);
                self.parts.insert(index, (count + 1, sum));
                count + 1
            }
            None => {
                self.parts.insert(index, (1, interval));
                1
            }
        };
        if count == self.plan.threads() {
            let (_, interval) = self.parts.remove(&index).expect("it was just inserted");
            self.show(&interval, self.plan.end_ns(), seen);
        }
    }

    fn show(&mut self, interval: &Interval, ended_ns: u64, seen: &mut dyn FnMut(&mut Point)) {
        let (from_ns, to_ns) = self.bounds(interval, ended_ns);
        let mut point = self.point(interval, from_ns, to_ns);
        // The load mostly ends where an interval does: what follows until that is noticed is none.
        let is_empty = point.requests + point.errors + point.rejected + point.sent == 0;
        if point.seconds() > 1e-3 || !is_empty {
            self.last_ended_ns = to_ns;
            seen(&mut point);
            self.points.push(point);
        }
    }

    /// Where an interval begins and ends, ns from the start. Those of the drain follow each other from the end of the load on.
    fn bounds(&self, interval: &Interval, ended_ns: u64) -> (u64, u64) {
        let (warmup_ns, interval_ns) = (self.plan.warmup_ns(), self.plan.interval.as_nanos() as u64);
        let bound = |index| interval_end(index, warmup_ns, interval_ns);
        if interval.is_drain {
            return (self.last_ended_ns, interval.ended_ns.max(self.last_ended_ns));
        }
        // A run that is stopped early ends within an interval; else the tick that ends one comes a little later.
        (interval.index.checked_sub(1).map_or(0, bound), bound(interval.index).min(interval.ended_ns).min(ended_ns))
    }

    fn point(&mut self, interval: &Interval, from_ns: u64, to_ns: u64) -> Point {
        let offered = match &mut self.offered {
            Some(_) if interval.is_drain => 0.0,
            Some(offered) => offered.between(from_ns, to_ns),
            None => interval.sent as f64,
        };
        Point {
            from_s: from_ns as f64 / 1e9,
            to_s: to_ns as f64 / 1e9,
            warmup: to_ns <= self.plan.warmup_ns(),
            drain: interval.is_drain,
            clients: interval.clients,
            offered,
            sent: interval.sent,
            requests: interval.good(),
            events: interval.events,
            bytes: interval.bytes,
            errors: interval.count(|outcome| outcome.is_error()),
            rejected: interval.count(|outcome| outcome == crate::request::Outcome::Rejected),
            p50_us: quantile_us(&interval.corrected, 0.5),
            p99_us: quantile_us(&interval.corrected, 0.99),
            max_us: quantile_us(&interval.corrected, 1.0),
            uncorrected_p99_us: quantile_us(&interval.uncorrected, 0.99),
            server_rss_bytes: None,
        }
    }

    fn finish(mut self, reports: Vec<Report>, started_unix_ms: u64, seen: &mut dyn FnMut(&mut Point)) -> Run {
        let ended_ns = reports.iter().map(|report| report.ended_ns).max().unwrap_or(0);
        // Threads that were stopped early may have ended in different intervals.
        for (_, interval) in std::mem::take(&mut self.parts).into_values() {
            self.show(&interval, ended_ns, seen);
        }
        // An early end makes the last interval shorter than it was taken for.
        for point in &mut self.points {
            point.to_s = if point.drain { point.to_s } else { point.to_s.min(ended_ns as f64 / 1e9) };
        }
        let mut totals = Totals::new(self.plan.shares.len());
        let mut threads = Vec::new();
        let (mut slow_bytes, mut slow_closed) = (0, 0);
        let mut ledgers = Vec::new();
        for report in reports {
            totals.join(&report.totals);
            let slip = &report.totals.slip;
            threads.push(ThreadReport {
                busy_fraction: report.busy_fraction,
                starved_fraction: report.starved_fraction,
                pause_max_ns: report.pause_max_ns,
                slip_us: [0.5, 0.99, 1.0].map(|quantile| quantile_us(slip, quantile)),
                enters: report.enters,
                pinned: report.pinned,
            });
            slow_bytes += report.slow_bytes;
            slow_closed += report.slow_closed;
            ledgers.push(report.ledger);
        }
        let measured_s = ended_ns.saturating_sub(self.plan.warmup_ns()) as f64 / 1e9;
        Run {
            totals,
            points: self.points,
            threads,
            ledgers,
            measured_s,
            ended_early: ended_ns < self.plan.end_ns(),
            started_unix_ms,
            slow_bytes,
            slow_closed,
        }
    }
}
