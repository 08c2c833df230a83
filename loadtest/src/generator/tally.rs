//! What a generator thread counts: per interval for the time series, and in total for the measured time.

use hdrhistogram::Histogram;

use crate::request::Outcome;
use crate::response::{Answer, word_in};

/// The longest latency told apart: ten minutes, ns.
const LATENCY_NS_MAX: u64 = 600_000_000_000;
/// Decimal digits that are kept of a latency.
const LATENCY_DIGITS: u8 = 3;
/// Status codes counted, 0 to 999: all that three digits can say.
pub const STATUSES: usize = 1000;

/// An empty histogram of ns.
#[must_use]
pub fn histogram<C: hdrhistogram::Counter>() -> Histogram<C> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS).expect("constant bounds that are allowed")
}

/// How a request ended, with its times, ns from the start.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// When it should have been sent.
    pub intended: u64,
    /// When it was.
    pub sent: u64,
    /// When it ended.
    pub ended: u64,
    /// Events acknowledged in it.
    pub events: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Index of its kind.
    pub kind: usize,
}

impl Ended {
    /// Whether its latency is one of the load's: answers that should be, and waits that were given up, which are lower
    /// bounds. A fast refusal among them would flatter the server; it is with the failures.
    fn has_latency(&self) -> bool {
        self.outcome.is_good() || matches!(self.outcome, Outcome::TimedOut | Outcome::NeverSent)
    }

    /// Whether it is the failure of a request that had an intended time.
    fn is_failure(&self) -> bool {
        !self.outcome.is_good() && !matches!(self.outcome, Outcome::ConnectFailed | Outcome::Unsolicited)
    }
}

/// One interval of one thread.
pub struct Interval {
    /// Its place in the series.
    pub index: u32,
    /// It lies behind the end of the load: answers that were still under way.
    pub is_drain: bool,
    /// When it was handed over, ns from the start.
    pub ended_ns: u64,
    /// Connections in use at its end.
    pub clients: u32,
    /// Requests sent in it.
    pub sent: u64,
    /// Requests that ended in it, by outcome.
    pub outcomes: [u64; Outcome::ALL.len()],
    /// Events acknowledged in it.
    pub events: u64,
    /// Bytes of requests answered as they should be in it.
    pub bytes: u64,
    /// Latencies from the intended times.
    pub corrected: Histogram<u64>,
    /// Latencies from the actual sends.
    pub uncorrected: Histogram<u64>,
}

impl Interval {
    /// An empty one.
    #[must_use]
    pub fn new(index: u32) -> Self {
        Self {
            index,
            is_drain: false,
            ended_ns: 0,
            clients: 0,
            sent: 0,
            outcomes: [0; Outcome::ALL.len()],
            events: 0,
            bytes: 0,
            corrected: histogram(),
            uncorrected: histogram(),
        }
    }

    /// Adds another thread's part of the same interval.
    pub fn join(&mut self, other: &Self) {
        assert_eq!(self.index, other.index);
        self.is_drain |= other.is_drain;
        self.ended_ns = self.ended_ns.max(other.ended_ns);
        self.clients += other.clients;
        self.sent += other.sent;
        for (sum, count) in self.outcomes.iter_mut().zip(other.outcomes) {
            *sum += count;
        }
        self.events += other.events;
        self.bytes += other.bytes;
        self.corrected.add(&other.corrected).expect("equal bounds");
        self.uncorrected.add(&other.uncorrected).expect("equal bounds");
    }

    /// Requests that ended in it as they should.
    #[must_use]
    pub fn good(&self) -> u64 {
        self.count(Outcome::is_good)
    }

    /// Requests that ended in it with an outcome for which `holds`.
    #[must_use]
    pub fn count(&self, holds: impl Fn(Outcome) -> bool) -> u64 {
        Outcome::ALL.iter().filter(|outcome| holds(**outcome)).map(|outcome| self.outcomes[*outcome as usize]).sum()
    }

    fn add(&mut self, ended: &Ended, count: u64) {
        self.outcomes[ended.outcome as usize] += count;
        self.events += ended.events * count;
        if ended.outcome.is_good() {
            self.bytes += ended.bytes * count;
        }
        if ended.has_latency() {
            self.corrected.saturating_record_n(ended.ended.saturating_sub(ended.intended), count);
            if ended.outcome != Outcome::NeverSent {
                self.uncorrected.saturating_record_n(ended.ended.saturating_sub(ended.sent), count);
            }
        }
    }
}

/// What was counted of one kind of request in the measured time.
pub struct KindTotal {
    /// Requests.
    pub requests: u64,
    /// Those that ended as errors.
    pub errors: u64,
    /// Latencies from the intended times.
    pub corrected: Histogram<u64>,
}

/// All that was counted of the requests meant for the measured time.
pub struct Totals {
    /// By outcome.
    pub outcomes: [u64; Outcome::ALL.len()],
    /// By status, of the whole run.
    pub statuses: Vec<u64>,
    /// The level that the first 202 named: what the server's default is.
    pub ack: Option<String>,
    /// By kind.
    pub kinds: Vec<KindTotal>,
    /// Latencies from the intended times.
    pub corrected: Histogram<u64>,
    /// Latencies from the actual sends.
    pub uncorrected: Histogram<u64>,
    /// From the intended times to the end of requests that ended as they should not: slow ones are in no other latency.
    pub failed: Histogram<u64>,
    /// How late requests were sent although a connection was free.
    pub slip: Histogram<u64>,
}

impl Totals {
    /// Empty ones for `kinds` kinds.
    #[must_use]
    pub fn new(kinds: usize) -> Self {
        let kind = || KindTotal { requests: 0, errors: 0, corrected: histogram() };
        Self {
            outcomes: [0; Outcome::ALL.len()],
            statuses: vec![0; STATUSES],
            ack: None,
            kinds: (0..kinds).map(|_| kind()).collect(),
            corrected: histogram(),
            uncorrected: histogram(),
            failed: histogram(),
            slip: histogram(),
        }
    }

    /// Adds another thread's.
    pub fn join(&mut self, other: &Self) {
        for (sum, count) in self.outcomes.iter_mut().zip(other.outcomes) {
            *sum += count;
        }
        for (sum, count) in self.statuses.iter_mut().zip(&other.statuses) {
            *sum += count;
        }
        self.ack = self.ack.take().or_else(|| other.ack.clone());
        for (sum, kind) in self.kinds.iter_mut().zip(&other.kinds) {
            sum.requests += kind.requests;
            sum.errors += kind.errors;
            sum.corrected.add(&kind.corrected).expect("equal bounds");
        }
        self.corrected.add(&other.corrected).expect("equal bounds");
        self.uncorrected.add(&other.uncorrected).expect("equal bounds");
        self.failed.add(&other.failed).expect("equal bounds");
        self.slip.add(&other.slip).expect("equal bounds");
    }

    fn add(&mut self, ended: &Ended, count: u64) {
        self.outcomes[ended.outcome as usize] += count;
        let kind = &mut self.kinds[ended.kind];
        kind.requests += count;
        kind.errors += if ended.outcome.is_error() { count } else { 0 };
        if ended.is_failure() {
            self.failed.saturating_record_n(ended.ended.saturating_sub(ended.intended), count);
        }
        if ended.has_latency() {
            let latency = ended.ended.saturating_sub(ended.intended);
            kind.corrected.saturating_record_n(latency, count);
            self.corrected.saturating_record_n(latency, count);
            if ended.outcome != Outcome::NeverSent {
                self.uncorrected.saturating_record_n(ended.ended.saturating_sub(ended.sent), count);
            }
        }
    }
}

/// Both, and where the measured time begins.
pub struct Tally {
    /// The interval that is being filled.
    pub interval: Interval,
    /// Everything measured.
    pub totals: Totals,
    warmup_ns: u64,
}

impl Tally {
    /// Empty, for a run of `kinds` kinds that is measured from `warmup_ns` on.
    #[must_use]
    pub fn new(kinds: usize, warmup_ns: u64) -> Self {
        Self { interval: Interval::new(0), totals: Totals::new(kinds), warmup_ns }
    }

    /// Counts a request that ended.
    pub fn end(&mut self, ended: &Ended) {
        self.end_all(ended, 1);
    }

    /// Counts `count` requests that ended alike.
    pub fn end_all(&mut self, ended: &Ended, count: u64) {
        // A histogram takes the value of none for its largest.
        if count == 0 {
            return;
        }
        self.interval.add(ended, count);
        // An answer too many puts all behind it in doubt, whenever it came.
        if ended.intended >= self.warmup_ns || ended.outcome == Outcome::Unsolicited {
            self.totals.add(ended, count);
        }
    }

    /// Counts how late a request was sent.
    pub fn slip(&mut self, intended: u64, late_ns: u64) {
        if intended >= self.warmup_ns {
            self.totals.slip.saturating_record(late_ns);
        }
    }

    /// Counts an answer's status; of the first 202 the level at which it acknowledges is kept.
    pub fn answer(&mut self, answer: &Answer<'_>) {
        self.totals.statuses[usize::from(answer.status).min(STATUSES - 1)] += 1;
        if answer.status == 202 && self.totals.ack.is_none() {
            self.totals.ack = Some(word_in(answer.body, b"\"ack\":\"").unwrap_or_default().to_owned());
        }
    }

    /// Ends the interval at a time; what was counted in it.
    pub fn next_interval(&mut self, now: u64, clients: usize) -> Interval {
        (self.interval.ended_ns, self.interval.clients) = (now, clients as u32);
        let next = Interval { is_drain: self.interval.is_drain, ..Interval::new(self.interval.index + 1) };
        std::mem::replace(&mut self.interval, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(outcome: Outcome, intended: u64, sent: u64, ended: u64) -> Ended {
        Ended { outcome, intended, sent, ended, events: 2, bytes: 10, kind: 0 }
    }

    #[test]
    fn latency_counts_from_both_times_and_warm_up_is_left_out_of_totals() {
        let mut tally = Tally::new(1, 1000);
        tally.end(&ended(Outcome::Accepted, 999, 999, 5000));
        tally.end(&ended(Outcome::Accepted, 1000, 3000, 5000));
        assert_eq!((tally.totals.corrected.len(), tally.interval.corrected.len()), (1, 2));
        assert!(tally.totals.corrected.equivalent(4000, tally.totals.corrected.max()));
        assert!(tally.totals.uncorrected.equivalent(2000, tally.totals.uncorrected.max()));
    }

    /// A thousand seconds at the highest rate are more than 32 bits count.
    #[test]
    fn requests_that_ended_alike_count_as_many() {
        let (mut tally, mut one_by_one) = (Tally::new(1, 0), Tally::new(1, 0));
        let never = ended(Outcome::NeverSent, 0, 0, 7_000_000);
        tally.end_all(&never, 3);
        tally.end_all(&ended(Outcome::NeverSent, 0, 0, 1 << 39), 0);
        (0..3).for_each(|_| one_by_one.end(&never));
        assert_eq!(tally.totals.outcomes, one_by_one.totals.outcomes);
        assert_eq!(tally.totals.failed, one_by_one.totals.failed);
        assert_eq!(tally.interval.corrected, one_by_one.interval.corrected);
        tally.end_all(&never, 1 << 40);
        assert_eq!((tally.totals.kinds[0].errors, tally.interval.corrected.len()), ((1 << 40) + 3, (1 << 40) + 3));
        assert!(tally.interval.corrected.equivalent(7_000_000, tally.interval.corrected.value_at_quantile(0.99)));
    }

    #[test]
    fn each_status_counts_as_itself() {
        let mut tally = Tally::new(1, 0);
        for status in [200, 599, 600, 999] {
            tally.answer(&Answer { status, has_retry_after: false, closes: false, body_bytes: 0, body: b"" });
            assert_eq!(tally.totals.statuses[usize::from(status)], 1, "{status}");
        }
    }

    #[test]
    fn refusals_flatter_no_latency_and_waits_given_up_are_kept() {
        let mut tally = Tally::new(1, 0);
        tally.end(&ended(Outcome::Rejected, 0, 0, 5));
        tally.end(&ended(Outcome::WrongStatus, 0, 0, 5));
        assert_eq!(tally.totals.corrected.len(), 0);
        tally.end(&ended(Outcome::NeverSent, 0, 0, 7_000_000));
        tally.end(&ended(Outcome::TimedOut, 0, 0, 9_000_000));
        assert_eq!((tally.totals.corrected.len(), tally.totals.uncorrected.len()), (2, 1));
        assert_eq!(tally.totals.kinds[0].errors, 3);
    }

    #[test]
    fn every_failed_request_is_in_the_latency_of_failures_and_no_other_is() {
        let slow_ns = 10_000_000_000;
        for outcome in Outcome::ALL {
            let mut tally = Tally::new(1, 0);
            tally.end(&ended(outcome, 0, 0, slow_ns));
            let mut totals = Totals::new(1);
            totals.join(&tally.totals);
            let is_request = !matches!(outcome, Outcome::ConnectFailed | Outcome::Unsolicited);
            assert_eq!(totals.failed.len(), u64::from(is_request && !outcome.is_good()), "{outcome:?}");
            // In one or the other: what took ten seconds is somewhere.
            let seen = totals.corrected.max().max(totals.failed.max());
            assert_eq!(totals.corrected.equivalent(seen, slow_ns), is_request, "{outcome:?}");
        }
    }
}
