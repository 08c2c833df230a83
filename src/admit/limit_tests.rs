//! Limits held on made-up clocks: buckets of several shards, in one thread.

use super::*;

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;

/// One tenant on several shards.
struct Tenant {
    uses: Uses,
    buckets: Vec<Bucket>,
    limit: Option<Limit>,
    measure: Measure,
}

impl Tenant {
    fn new(shards: usize, measure: Measure, rate: Rate) -> Self {
        let limit = Some(Limit::new(rate, 1));
        Self { uses: Uses::new(shards, 1), buckets: vec![Bucket::default(); shards], limit, measure }
    }

    fn published(&self, shard: usize) -> Published<'_> {
        Published::new(&self.uses, shard, 0, self.measure)
    }

    fn check(&mut self, shard: usize, now_ns: u64) -> Result<(), Over> {
        let mut bucket = self.buckets[shard];
        let checked = bucket.check(now_ns, self.limit.as_ref(), self.published(shard));
        self.buckets[shard] = bucket;
        checked
    }

    fn book(&mut self, shard: usize, now_ns: u64, units: u64) {
        let mut bucket = self.buckets[shard];
        bucket.before_use(now_ns, self.published(shard));
        self.buckets[shard] = bucket;
        self.published(shard).count()(self.uses.of(shard, 0)).add(units);
    }

    /// A request that is over at once; whether it was let in.
    fn ask(&mut self, shard: usize, now_ns: u64, units: u64) -> bool {
        let is_let_in = self.check(shard, now_ns).is_ok();
        if is_let_in {
            self.book(shard, now_ns, units);
        }
        is_let_in
    }

    /// A table in which his limit is another.
    fn reload(&mut self, now_ns: u64, epoch: u64, rate: Option<Rate>) {
        let old = self.limit;
        self.limit = rate.map(|rate| Limit::new(rate, epoch).following(old, now_ns, self.published(0)));
    }
}

fn each_way(rate: Rate, test: impl Fn(Tenant, usize)) {
    for shards in [1, 2, 8] {
        for measure in [Measure::Events, Measure::Bytes] {
            test(Tenant::new(shards, measure, rate), shards);
        }
    }
}

/// Requests of `events` each, on the shards that `place` picks, offered `offered` a second; events let through in each
/// second.
fn run(shards: usize, rate: Rate, events: u64, offered: u64, place: impl Fn(u64) -> usize) -> Vec<u64> {
    let mut tenant = Tenant::new(shards, Measure::Events, rate);
    let mut seconds = Vec::new();
    for request in 0..offered * 6 {
        tenant.ask(place(request), request * S / offered, events);
        if (request + 1).is_multiple_of(offered) {
            seconds.push(tenant.published(0).used() - seconds.iter().sum::<u64>());
        }
    }
    seconds
}

#[test]
fn the_sum_over_shards_is_the_rate_wherever_the_connections_sit() {
    let rate = Rate { per_second: 20_000, burst: 20_000 };
    type Place = fn(u64) -> usize;
    let places: [(&str, Place); 4] = [
        ("on one shard", |_| 3),
        ("on all in turn", |request| (request % 8) as usize),
        ("on two, unevenly", |request| usize::from(request % 10 == 0)),
        ("moving", |request| (request / 3000 % 8) as usize),
    ];
    for (name, place) in places {
        for (events, offered) in [(1, 50_000), (10, 4_000), (100, 1_000)] {
            let seconds = run(8, rate, events, offered, place);
            for (second, let_through) in seconds.iter().enumerate().skip(1) {
                let wrong = let_through.abs_diff(rate.per_second);
                assert!(wrong <= rate.per_second / 20, "{name}, {events} each, second {second}: {let_through}");
            }
            let first = seconds[0];
            assert!((20_000..=42_000).contains(&first), "{name}: the burst and a second's rate: {first}");
        }
    }
}

#[test]
fn below_the_limit_nothing_is_refused() {
    let rate = Rate { per_second: 20_000, burst: 2_000 };
    for place in [|_| 0, |request: u64| (request % 4) as usize] {
        assert_eq!(run(4, rate, 10, 1_900, place), [19_000; 6]);
    }
}

#[test]
fn a_batch_as_large_as_the_burst_passes_as_often_as_the_rate_brings_it() {
    each_way(Rate { per_second: 100, burst: 100 }, |mut tenant, shards| {
        let mut now_ns = 0;
        for (request, gap_ms) in [1_000, 1_001, 4_000, 1_500, 3_600_000, 2_000, 1_000, 9_000].into_iter().enumerate() {
            now_ns += gap_ms * MS;
            assert!(tenant.ask(request * 3 % shards, now_ns, 100), "{shards} shards, request {request}");
        }
    });
}

#[test]
fn a_debt_is_paid_while_nobody_asks() {
    each_way(Rate { per_second: 100, burst: 100 }, |mut tenant, shards| {
        assert!(tenant.ask(0, S, 1000));
        let last = shards - 1;
        // 900 too many, and then one to use.
        assert_eq!(tenant.check(last, S + 2 * MS).unwrap_err().retry_after_s, 10);
        assert_eq!(tenant.check(last, 10 * S - MS).unwrap_err().retry_after_s, 1);
        assert_eq!(tenant.check(last, 10 * S + 20 * MS), Ok(()));
        // Another's wait costs nothing, and a full bucket holds no more than its burst.
        assert!(tenant.ask(0, 60 * S, 200));
        assert_eq!(tenant.check(last, 60 * S + 20 * MS).unwrap_err().reset_s, 2);
    });
}

#[test]
fn a_long_request_is_booked_when_it_is_over() {
    each_way(Rate { per_second: 100, burst: 100 }, |mut tenant, shards| {
        tenant.check(0, S).unwrap();
        // A minute later: the bucket was full all the time, and holds what 100 too many leave in it.
        tenant.book(0, 61 * S, 200);
        assert_eq!(tenant.check(shards - 1, 61 * S + MS).unwrap_err().retry_after_s, 2);
        assert_eq!(tenant.check(shards - 1, 62 * S + 20 * MS), Ok(()));
    });
}

/// Held against a bucket in one place that is looked at before each use.
fn hold_against_one_bucket(seed: u64) {
    let mut state = seed;
    // SplitMix64.
    let mut random = |below: u64| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    };
    // A nanosecond is a whole part of each, so that the other bucket is exact.
    let per_second = [1, 100, 1000, 20_000][random(4) as usize];
    let rate = Rate { per_second, burst: 1 + random(2 * per_second) };
    let shards = 1 + random(8) as usize;
    let mut tenant = Tenant::new(shards, Measure::Events, rate);
    let (mut now_ns, mut full_at_ns) = (S, 0);
    let mut under_way = Vec::new();
    for step in 0..400 {
        let longest_gap_ns = [MS, 30 * MS, 3 * S, 30 * S][random(4) as usize];
        now_ns += random(longest_gap_ns);
        let shard = random(shards as u64) as usize;
        if tenant.check(shard, now_ns).is_ok() && random(4) > 0 {
            under_way.push((shard, 1 + random(rate.burst + per_second / 10)));
        }
        if random(2) == 0 && !under_way.is_empty() {
            let (shard, units) = under_way.swap_remove(random(under_way.len() as u64) as usize);
            tenant.book(shard, now_ns, units);
            full_at_ns = now_ns.max(full_at_ns) + units * (S / per_second);
        }
        let missing_ns = tenant.published(shard).standing(&tenant.limit.unwrap(), now_ns).missing_ns;
        let expected_ns = full_at_ns.saturating_sub(now_ns);
        assert!(missing_ns <= expected_ns, "seed {seed}, step {step}: {missing_ns} ns are missing, not {expected_ns}");
        assert!(expected_ns - missing_ns <= GRANT_NS, "seed {seed}, step {step}: {missing_ns} of {expected_ns} ns");
    }
}

#[test]
fn the_level_is_that_of_one_bucket_but_for_ten_milliseconds() {
    (0..300).for_each(hold_against_one_bucket);
}

#[test]
fn a_refused_tenant_is_told_when_to_come_again() {
    let mut tenant = Tenant::new(1, Measure::Bytes, Rate { per_second: 100, burst: 50 });
    // One request brought 400: the burst and three and a half seconds of debt.
    assert!(tenant.ask(0, 490 * MS, 400));
    let over = tenant.check(0, 500 * MS).unwrap_err();
    assert_eq!(over, Over { of: Measure::Bytes, limit: 100, remaining: 0, retry_after_s: 4, reset_s: 4 });
    assert!(tenant.check(0, 3_900 * MS).is_err());
    assert!(tenant.check(0, 4_100 * MS).is_ok());
}

#[test]
fn who_comes_again_when_he_was_told_is_let_in() {
    for debt in 0..400 {
        let mut tenant = Tenant::new(4, Measure::Events, Rate { per_second: 100, burst: 50 });
        assert!(tenant.ask(0, S, 50 + debt));
        let over = tenant.check(1, S).unwrap_err();
        assert_eq!(tenant.check(2, S + u64::from(over.retry_after_s) * S), Ok(()), "a debt of {debt}: {over:?}");
        let too_soon_s = u64::from(over.retry_after_s).saturating_sub(1);
        assert!(tenant.check(3, S + too_soon_s * S).is_err(), "a debt of {debt}: {over:?}");
    }
}

#[test]
fn of_two_limits_the_longer_wait_is_told() {
    let over = |of, retry_after_s, reset_s| Over { of, limit: 1, remaining: 0, retry_after_s, reset_s };
    let events = over(Measure::Events, 3, 8);
    for (bytes, told) in [
        (over(Measure::Bytes, 4, 4), Measure::Bytes),
        (over(Measure::Bytes, 3, 9), Measure::Bytes),
        (over(Measure::Bytes, 3, 8), Measure::Events),
        (over(Measure::Bytes, 2, 9), Measure::Events),
    ] {
        assert_eq!(events.longer(bytes).of, told, "{bytes:?}");
    }
}

#[test]
fn a_raised_limit_pays_its_debt_at_the_new_rate() {
    each_way(Rate { per_second: 1, burst: 1 }, |mut tenant, shards| {
        assert!(tenant.ask(0, S, 300));
        assert_eq!(tenant.check(0, S + MS).unwrap_err().retry_after_s, 300);
        tenant.reload(2 * S, 2, Some(Rate { per_second: 100_000, burst: 1 }));
        // 299 events at 100 000 per second.
        assert!(tenant.check(shards - 1, 2 * S + 2 * MS).is_err(), "the debt is not forgotten");
        assert_eq!(tenant.check(shards - 1, 2 * S + 4 * MS), Ok(()));
    });
}

#[test]
fn a_raised_burst_is_there_at_once_less_what_is_missing() {
    each_way(Rate { per_second: 1, burst: 1 }, |mut tenant, shards| {
        assert!(tenant.ask(0, S, 300));
        tenant.reload(2 * S, 2, Some(Rate { per_second: 1, burst: 1000 }));
        assert!(tenant.ask(shards - 1, 2 * S, 700), "701 are left");
        assert!(tenant.ask(0, 2 * S, 1));
        assert!(tenant.check(0, 2 * S).is_err());
    });
}

#[test]
fn a_lowered_limit_is_as_empty_as_it_was_and_nobody_waits_longer_than_he_was_told() {
    each_way(Rate { per_second: 1000, burst: 1000 }, |mut tenant, shards| {
        assert!(tenant.ask(0, S, 3_500));
        assert_eq!(tenant.check(0, S + MS).unwrap_err().retry_after_s, 3);
        tenant.reload(2 * S, 2, Some(Rate { per_second: 1, burst: 1000 }));
        let over = tenant.check(shards - 1, 2 * S).unwrap_err();
        assert_eq!((over.limit, over.retry_after_s, over.reset_s), (1, 2, 1001));
        let mut let_in = 0;
        (0..100).for_each(|at| let_in += u64::from(tenant.ask(0, 4 * S + at * 100 * MS, 1)));
        assert!((10..=12).contains(&let_in), "{let_in} in ten seconds and what had come before");
    });
}

#[test]
fn a_changed_burst_has_been_used_as_far_as_the_old_one_was() {
    for (used, burst, left) in [(0, 500, 500), (0, 50, 50), (40, 500, 460), (40, 50, 10), (90, 50, 1), (100, 500, 400)]
    {
        let mut tenant = Tenant::new(2, Measure::Events, Rate { per_second: 1, burst: 100 });
        assert!(tenant.ask(0, S, used));
        tenant.reload(S, 2, Some(Rate { per_second: 1, burst }));
        let missing_ns = tenant.published(1).standing(&tenant.limit.unwrap(), S).missing_ns;
        assert_eq!(missing_ns, (burst - left) * S, "{used} used of 100, then {burst}");
    }
}

#[test]
fn what_was_used_without_a_limit_does_not_count() {
    each_way(Rate { per_second: 1000, burst: 1000 }, |mut tenant, shards| {
        assert!(tenant.ask(0, S, 5_000));
        tenant.reload(2 * S, 2, None);
        (0..20).for_each(|at| assert!(tenant.ask(at as usize % shards, 2 * S + at * MS, 10_000)));
        tenant.reload(3 * S, 3, Some(Rate { per_second: 1000, burst: 1000 }));
        assert!(tenant.ask(shards - 1, 3 * S, 1000), "the bucket is full");
        assert!(tenant.check(shards - 1, 3 * S).is_err(), "and no fuller");
    });
}

#[test]
fn a_reload_that_leaves_a_limit_as_it_was_changes_nothing() {
    let rate = Rate { per_second: 100, burst: 100 };
    each_way(rate, |mut tenant, shards| {
        assert!(tenant.ask(0, S, 1000));
        let before = tenant.limit;
        tenant.reload(2 * S, 2, Some(rate));
        assert_eq!(tenant.limit, before);
        assert_eq!(tenant.check(shards - 1, 2 * S).unwrap_err().retry_after_s, 9, "8 seconds and something to use");
    });
}

#[test]
fn a_client_in_a_tight_loop_does_not_make_the_shard_look() {
    let mut tenant = Tenant::new(1, Measure::Events, Rate { per_second: 1, burst: 1 });
    assert!(tenant.ask(0, 0, 5));
    let mut looks = 0;
    for us in 0..10_000 {
        let before = tenant.buckets[0].looked_ns;
        tenant.check(0, 100 + us * 1000).unwrap_err();
        looks += u32::from(tenant.buckets[0].looked_ns != before);
    }
    assert!((1..=12).contains(&looks), "{looks} looks in 10 ms");
}
