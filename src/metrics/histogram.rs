//! A log-linear histogram of nanoseconds with a fixed size: 16 linear steps in each power of two.
//!
//! Relative error at most 1/16. One thread records, any thread takes a [`Snapshot`].

use super::Counter;

/// Linear steps per power of two: 2^4 keeps any recorded value within 6.25 % of its bucket's upper edge.
const STEP_BITS: u32 = 4;
const STEPS: usize = 1 << STEP_BITS;
/// Values from 2^40 ns (18 minutes) on share the last bucket.
const VALUE_BITS_MAX: u32 = 40;
const BUCKETS: usize = (VALUE_BITS_MAX - STEP_BITS + 1) as usize * STEPS;

/// Counts of durations in nanoseconds.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[Counter]>,
    sum_ns: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| Counter::default()).collect(), sum_ns: Counter::default() }
    }
}

impl Histogram {
    /// Counts `n` observations of `ns` nanoseconds. Only the owning thread calls this.
    #[inline]
    pub fn record_n(&self, ns: u64, n: u64) {
        self.buckets[bucket_of(ns)].add(n);
        self.sum_ns.add(ns.saturating_mul(n));
    }

    /// Counts one observation.
    #[inline]
    pub fn record(&self, ns: u64) {
        self.record_n(ns, 1);
    }

    /// A copy to compute with.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { counts: self.buckets.iter().map(Counter::get).collect(), sum_ns: self.sum_ns.get() }
    }

    /// Adds what is counted so far to `sum`. Allocates nothing if `sum` came from [`Snapshot::empty`].
    pub fn add_to(&self, sum: &mut Snapshot) {
        sum.counts.resize(BUCKETS, 0);
        for (count, bucket) in sum.counts.iter_mut().zip(&self.buckets) {
            *count += bucket.get();
        }
        sum.sum_ns += self.sum_ns.get();
    }
}

/// What a histogram held at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    counts: Vec<u64>,
    sum_ns: u64,
}

/// What happened between two snapshots; borrows both, so that taking the difference allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    now: &'a Snapshot,
    before: &'a Snapshot,
}

impl Window<'_> {
    fn counts(&self) -> impl Iterator<Item = u64> {
        let before = self.before.counts.iter().copied().chain(std::iter::repeat(0));
        self.now.counts.iter().zip(before).map(|(now, before)| now.saturating_sub(before))
    }

    /// Observations counted in between.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts().sum()
    }

    /// Their sum in nanoseconds.
    #[must_use]
    pub fn sum_ns(&self) -> u64 {
        self.now.sum_ns.wrapping_sub(self.before.sum_ns)
    }

    /// Upper edge in nanoseconds of the bucket that holds quantile `q` (0 to 1) of them; 0 when there were none.
    #[must_use]
    pub fn quantile_ns(&self, q: f64) -> u64 {
        quantile_ns(self.counts(), self.count(), q)
    }
}

impl Snapshot {
    /// Nothing counted, with room for every bucket.
    #[must_use]
    pub fn empty() -> Self {
        Self { counts: vec![0; BUCKETS], sum_ns: 0 }
    }

    /// Back to nothing counted; keeps the room.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.sum_ns = 0;
    }

    /// What happened since an earlier snapshot of the same histograms.
    #[must_use]
    pub fn since<'a>(&'a self, before: &'a Self) -> Window<'a> {
        Window { now: self, before }
    }

    /// Observations counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of all observations in nanoseconds.
    #[must_use]
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// Adds another snapshot's counts to this one's.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.sum_ns += other.sum_ns;
    }

    /// Upper edge in nanoseconds of the bucket that holds quantile `q` (0 to 1); 0 when nothing was counted.
    #[must_use]
    pub fn quantile_ns(&self, q: f64) -> u64 {
        quantile_ns(self.counts.iter().copied(), self.count(), q)
    }

    /// Observations of at most `ns` nanoseconds, to the histogram's resolution.
    #[must_use]
    pub fn count_at_most(&self, ns: u64) -> u64 {
        self.counts.iter().enumerate().take_while(|(bucket, _)| upper_edge_ns(*bucket) <= ns).map(|(_, n)| n).sum()
    }
}

fn quantile_ns(counts: impl Iterator<Item = u64>, total: u64, q: f64) -> u64 {
    if total == 0 {
        return 0;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let rank = ((q.clamp(0.0, 1.0) * total as f64).ceil() as u64).max(1);
    let mut seen = 0;
    for (bucket, count) in counts.enumerate() {
        seen += count;
        if seen >= rank {
            return upper_edge_ns(bucket);
        }
    }
    upper_edge_ns(BUCKETS - 1)
}

fn bucket_of(ns: u64) -> usize {
    if ns < STEPS as u64 {
        return ns as usize;
    }
    let magnitude = (u64::BITS - 1 - ns.leading_zeros()).min(VALUE_BITS_MAX);
    if magnitude == VALUE_BITS_MAX {
        return BUCKETS - 1;
    }
    let step = (ns >> (magnitude - STEP_BITS)) as usize & (STEPS - 1);
    (magnitude - STEP_BITS + 1) as usize * STEPS + step
}

fn upper_edge_ns(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let shift = (bucket / STEPS - 1) as u32;
    let step = (bucket % STEPS + STEPS) as u64;
    ((step + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        for magnitude in 0..VALUE_BITS_MAX {
            for ns in [1u64 << magnitude, (1 << magnitude) + 1, (1 << (magnitude + 1)) - 1] {
                let bucket = bucket_of(ns);
                assert!(bucket < BUCKETS);
                assert!(ns <= upper_edge_ns(bucket), "{ns} above its bucket");
                assert!(bucket == 0 || ns > upper_edge_ns(bucket - 1), "{ns} below its bucket");
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_come_from_the_right_bucket() {
        let histogram = Histogram::default();
        histogram.record_n(1_000, 98);
        histogram.record(1_000_000);
        histogram.record(2_000_000);
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.count(), 100);
        assert!((1_000..1_100).contains(&snapshot.quantile_ns(0.5)));
        assert!((1_000_000..1_100_000).contains(&snapshot.quantile_ns(0.99)));
        assert!((2_000_000..2_200_000).contains(&snapshot.quantile_ns(1.0)));
        assert_eq!(Snapshot::default().quantile_ns(0.5), 0);
    }

    #[test]
    fn a_window_counts_what_came_in_between() {
        let histogram = Histogram::default();
        histogram.record_n(5_000_000, 1000);
        let mut before = Snapshot::empty();
        histogram.add_to(&mut before);
        histogram.record_n(1_000, 10);
        let mut now = Snapshot::empty();
        histogram.add_to(&mut now);
        let window = now.since(&before);
        assert_eq!((window.count(), window.sum_ns()), (10, 10_000));
        assert!((1_000..1_100).contains(&window.quantile_ns(0.99)));
        assert_eq!(before.since(&before).quantile_ns(0.99), 0);
        now.clear();
        assert_eq!((now.count(), now.sum_ns()), (0, 0));
    }

    #[test]
    fn powers_of_two_and_their_halves_are_exact_edges() {
        let histogram = Histogram::default();
        // Below 64 a bucket holds one or two values, and the edge itself is within.
        for magnitude in 6..39 {
            for edge in [1u64 << magnitude, 3 << (magnitude - 1)] {
                histogram.record(edge - 1);
                let below = histogram.snapshot().count_at_most(edge);
                histogram.record(edge);
                assert_eq!(histogram.snapshot().count_at_most(edge), below, "{edge} is in the bucket above");
                assert_eq!(below, histogram.snapshot().count() - 1, "{} is in a bucket below", edge - 1);
            }
        }
    }
}
