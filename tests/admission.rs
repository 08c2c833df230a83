//! What admission holds under load, shown on a simulated shard: the server's own decisions, a made-up clock, clients and
//! disk. Each test prints its seed; `TIDEGATE_TEST_SEED` repeats a run.

mod simulation;

use simulation::clients::{Both, OpenLoop, RetryStorm};
use simulation::{MS, Machine, Outcome, SECOND, Simulation};
use tidegate::admit::{HOLD_NS_MAX, Priority};

/// Beyond this a bin of 100 ms counts as off the target.
const POINTS: f64 = 0.05;
/// Mean utilization over a settled second or more.
const MEAN_POINTS: f64 = 0.03;

fn seed() -> u64 {
    let given = std::env::var("TIDEGATE_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()) * 0x9E37_79B9 + 1);
    eprintln!("TIDEGATE_TEST_SEED={seed}");
    seed
}

/// One stream of normal requests at `rate` times the machine's capacity.
fn open_loop(machine: Machine, seconds: u64, rate: impl Fn(u64) -> f64) -> Outcome {
    let capacity = machine.capacity();
    let mut clients = OpenLoop::new(move |_, now_ns| rate(now_ns) * capacity);
    Simulation::new(machine, seed(), &[1], 256).run(&mut clients, seconds * SECOND)
}

/// Fails unless the shard settles on its target within a second of `from` and stays there until `to`, both in seconds.
#[track_caller]
fn assert_holds(outcome: &Outcome, from: u64, to: u64, target: f64) {
    let settled_ns = outcome.settled_after_ns(from * SECOND, to * SECOND, target, POINTS);
    let serving = outcome.serving();
    assert!(settled_ns < SECOND, "settled after {} ms: {serving:.3?}", settled_ns / MS);
    let mean = outcome.mean_serving((from + 1) * SECOND, to * SECOND);
    assert!((mean - target).abs() <= MEAN_POINTS, "mean {mean:.3}");
}

#[test]
fn a_step_to_any_load_settles_on_the_target_within_a_second_and_stays() {
    for target in [0.5, 0.67, 0.8] {
        for times in [1.2, 1.5, 3.0, 5.0] {
            let machine = Machine { target, ..Machine::default() };
            let outcome = open_loop(machine, 8, |now_ns| if now_ns < 2 * SECOND { 0.5 } else { times });
            eprintln!("target {target}, {times} times the load");
            assert_holds(&outcome, 2, 8, target);
        }
    }
}

#[test]
fn goodput_is_flat_and_what_is_admitted_stays_fast_up_to_five_times_the_load() {
    // Where a refusal costs a tenth of a served request, what the target leaves of the core pays for five times the load.
    let machine = Machine { refuse_ns: 5_000, ..Machine::default() };
    let at = |times: f64| {
        let outcome = open_loop(machine, 6, move |_| times);
        let (from, to) = (2 * SECOND, 6 * SECOND);
        (outcome.goodput(from, to), outcome.p99_ns(from, to), outcome.hold_ns(from, to))
    };
    let (goodput, p99_ns, _) = at(1.0);
    for times in [3.0, 5.0] {
        let (loaded, loaded_p99_ns, hold_ns) = at(times);
        assert!(loaded >= 0.95 * goodput, "{times} times the load: {loaded:.0} of {goodput:.0} a second");
        if times < 4.0 {
            assert!(loaded_p99_ns <= 2 * p99_ns, "p99 {loaded_p99_ns} ns, at the setpoint {p99_ns} ns");
            assert_eq!(hold_ns, 0, "nobody needs to be held");
        }
    }
}

#[test]
fn without_a_target_the_same_load_makes_everybody_wait() {
    let machine = Machine { target: 1.0, in_flight_max: u32::MAX, ..Machine::default() };
    let outcome = open_loop(machine, 4, |_| 1.5);
    assert_eq!(outcome.refused(0, 4 * SECOND), 0);
    assert!(outcome.p99_ns(SECOND, 3 * SECOND) > SECOND / 2, "latency grows with the backlog");
}

#[test]
fn a_target_is_held_when_what_refusing_took_is_divided_and_not_clocked() {
    // Whatever a refusal really costs: what the division gets wrong, the target is off by.
    for (refuse_ns, times, points) in [(5_000, 3.0, 0.05), (7_000, 5.0, 0.1), (15_000, 3.0, 0.2)] {
        let machine = Machine { refuse_ns, refusing_is_clocked: false, ..Machine::default() };
        let outcome = open_loop(machine, 6, move |_| times);
        let (serving, refusing) =
            (outcome.mean_serving(2 * SECOND, 6 * SECOND), outcome.mean_refusing(2 * SECOND, 6 * SECOND));
        eprintln!("{refuse_ns} ns a refusal, {times} times the load: serving {serving:.3}, refusing {refusing:.3}");
        assert!((serving - 0.67).abs() <= points, "{refuse_ns} ns a refusal: {serving:.3}");
    }
}

#[test]
fn others_on_the_core_never_end_admission() {
    // A low target is the worst case: one turn that others interrupt is more than it allows in 100 ms.
    for (target, others, refuse_ns) in
        [(0.67, 0.5, 15_000), (0.05, 0.5, 7_000), (0.05, 0.8, 15_000), (0.05, 0.8, 45_000)]
    {
        let machine = Machine { target, others, refuse_ns, refusing_is_clocked: false, ..Machine::default() };
        let mut storm = RetryStorm { clients: 64, think_ns: MS / 10, from_ns: 0, until_ns: 30 * SECOND };
        let outcome = Simulation::new(machine, seed(), &[1], 64).run(&mut storm, 30 * SECOND);
        let goodput = |second| outcome.goodput(second * SECOND, (second + 5) * SECOND) / machine.capacity();
        let parts: Vec<f64> = (0..6).map(|fifth| goodput(5 * fifth)).collect();
        // Where one interrupted turn is more than the target, little more than the floor of the rate may be left.
        let least = parts.iter().copied().fold(1.0, f64::min);
        let wanted = if target > 0.5 { 0.5 * (1.0 - others) } else { 0.02 };
        assert!(least > wanted, "target {target}, others {others}, {refuse_ns} ns a refusal: {parts:.3?}");
    }
}

#[test]
fn a_ramp_is_followed_without_swinging() {
    let outcome = open_loop(Machine::default(), 12, |now_ns| 0.2 + 3.8 * now_ns as f64 / (12 * SECOND) as f64);
    // The load passes the target after 2.5 s.
    assert_holds(&outcome, 3, 12, 0.67);
    assert_eq!(outcome.refused(0, 2 * SECOND), 0, "below the target nothing is refused");
}

#[test]
fn a_spike_is_survived_and_forgotten_within_a_second() {
    let spike = |now_ns: u64| if (3 * SECOND..6 * SECOND).contains(&now_ns) { 4.0 } else { 0.6 };
    let outcome = open_loop(Machine { refuse_ns: 5_000, ..Machine::default() }, 10, spike);
    assert_holds(&outcome, 3, 6, 0.67);
    assert_eq!(outcome.refused(7 * SECOND, 10 * SECOND), 0, "a second after the spike nothing is refused");
    let (before, after) = (outcome.goodput(SECOND, 3 * SECOND), outcome.goodput(7 * SECOND, 10 * SECOND));
    assert!((after / before - 1.0).abs() < 0.05, "{after:.0} and before {before:.0}");
    let (before, after) = (outcome.p99_ns(SECOND, 3 * SECOND), outcome.p99_ns(7 * SECOND, 10 * SECOND));
    assert!(after < 2 * before, "p99 {after} ns, before {before} ns");
}

#[test]
fn a_sawtooth_never_drives_the_shard_far_above_its_target() {
    for period_ms in [200, 1000, 3000] {
        let saw = |now_ns: u64| 3.0 * (now_ns % (period_ms * MS)) as f64 / (period_ms * MS) as f64;
        let outcome = open_loop(Machine::default(), 12, saw);
        let worst = outcome.serving()[10..].iter().copied().fold(0.0, f64::max);
        // The trough fills the bucket, and its 25 ms come on top of the target in the bin of 100 ms after it.
        assert!(worst <= 0.67 * 1.25 + POINTS, "period {period_ms} ms: {worst:.3}");
        // Two thirds of the time the load is above the capacity, and on average half of it in the rest.
        let mean = outcome.mean_serving(2 * SECOND, 12 * SECOND);
        assert!(mean > 0.67 * 0.75, "period {period_ms} ms: {mean:.3}");
    }
}

#[test]
fn clients_that_ignore_refusals_cost_their_share_and_no_more() {
    // 2000 clients that would like five times the capacity, and ask again at once when refused.
    let machine = Machine::default();
    let think_ns = (2000.0 / (5.0 * machine.capacity()) * 1e9) as u64;
    let mut storm = RetryStorm { clients: 2000, think_ns, from_ns: 2 * SECOND, until_ns: 8 * SECOND };
    let outcome = Simulation::new(machine, seed(), &[1], 2000).run(&mut storm, 10 * SECOND);
    assert_holds(&outcome, 2, 8, 0.67);
    let refusing = outcome.mean_refusing(3 * SECOND, 8 * SECOND);
    assert!(refusing <= 0.33 * 0.75 + POINTS, "refusing takes {refusing:.3} of the core");
    let hold_ns = outcome.hold_ns(0, 10 * SECOND);
    assert!((1..HOLD_NS_MAX).contains(&hold_ns), "{} ms", hold_ns / MS);
    assert_eq!(outcome.mean_serving(9 * SECOND, 10 * SECOND), 0.0, "and when they are gone, they are gone");
}

#[test]
fn polite_clients_are_served_through_a_storm_of_others() {
    let machine = Machine::default();
    let polite = OpenLoop { connections: 64, ..OpenLoop::new(|_, _| 0.4 * machine.capacity()) };
    let storm = RetryStorm { clients: 1000, think_ns: 20 * MS, from_ns: 2 * SECOND, until_ns: 8 * SECOND };
    let mut clients = Both { first: polite, second: storm, connections_of_first: 64, tenants_of_first: 1 };
    let outcome = Simulation::new(machine, seed(), &[1, 1], 1064).run(&mut clients, 8 * SECOND);
    let sum = |seconds: &[u64]| seconds[3..8].iter().sum::<u64>();
    let (served, offered) = (sum(&outcome.by_tenant[0]), sum(&outcome.offered_by_tenant[0]));
    assert!(served as f64 >= 0.95 * offered as f64, "{served} of {offered}");
}

#[test]
fn a_tenant_at_ten_times_his_share_costs_the_others_less_than_a_twentieth() {
    let machine = Machine { refuse_ns: 2_500, ..Machine::default() };
    let share = machine.capacity() / 8.0;
    // Seven tenants at four fifths of their shares; the eighth joins after three seconds with ten times his.
    let rate = |tenant, now_ns| match (tenant, now_ns < 3 * SECOND) {
        (0, true) => 0.8 * share,
        (0, false) => 10.0 * share,
        _ => 0.8 * share,
    };
    let mut clients = OpenLoop { clients: 8, ..OpenLoop::new(rate) };
    let outcome = Simulation::new(machine, seed(), &[1; 8], 256).run(&mut clients, 8 * SECOND);
    for tenant in 1..8 {
        let sum = |seconds: &[u64]| seconds[4..8].iter().sum::<u64>();
        let (served, offered) = (sum(&outcome.by_tenant[tenant]), sum(&outcome.offered_by_tenant[tenant]));
        assert!(served as f64 >= 0.95 * offered as f64, "tenant {tenant}: {served} of {offered}");
    }
    assert_holds(&outcome, 3, 8, 0.67);
}

#[test]
fn tenants_that_all_want_too_much_get_shares_by_weight() {
    let machine = Machine { refuse_ns: 2_500, ..Machine::default() };
    let capacity = machine.capacity();
    // Weights 1, 2 and 5 want as much each; a fourth of weight 2 wants little, and what it leaves goes to the others.
    let rate = move |tenant, _| if tenant == 3 { 0.05 * capacity } else { 1.5 * capacity };
    let mut clients = OpenLoop { clients: 4, ..OpenLoop::new(rate) };
    let outcome = Simulation::new(machine, seed(), &[1, 2, 5, 2], 256).run(&mut clients, 10 * SECOND);
    let served: Vec<f64> =
        outcome.by_tenant.iter().map(|seconds| seconds[3..10].iter().sum::<u64>() as f64 / 7.0).collect();
    assert!(served[3] > 0.95 * 0.05 * capacity, "who wants little gets it: {served:.0?}");
    let rest: f64 = served[..3].iter().sum();
    for (tenant, share) in [(0, 1.0 / 8.0), (1, 2.0 / 8.0), (2, 5.0 / 8.0)] {
        let got = served[tenant] / rest;
        assert!(
            (got / share - 1.0).abs() < 0.1,
            "tenant {tenant}: {got:.3} of the rest, {share:.3} wanted: {served:.0?}"
        );
    }
}

#[test]
fn low_priority_is_shed_first_and_high_priority_last() {
    let machine = Machine { refuse_ns: 2_500, ..Machine::default() };
    let capacity = machine.capacity();
    // At twice the capacity, a quarter high, a half normal, a quarter low: high and normal are 1.5 times the capacity.
    let priority = |die| [Priority::High, Priority::Normal, Priority::Normal, Priority::Low][(die % 4) as usize];
    let mut clients = OpenLoop { priority, ..OpenLoop::new(move |_, _| 2.0 * capacity) };
    let outcome = Simulation::new(machine, seed(), &[1], 256).run(&mut clients, 6 * SECOND);
    let [low, normal, high] = outcome.by_priority.map(|served| served as f64 / (6.0 * capacity));
    assert!(low < 0.02, "low {low:.3}");
    assert!(high > 0.48, "all of the high ones: {high:.3}");
    assert!(normal > 0.4, "and the rest is the normal ones', but for what the turns themselves cost: {normal:.3}");
}

#[test]
fn a_slow_disk_is_answered_by_admitting_less_not_by_waiting() {
    let slow = |machine: Machine| Machine {
        disk_bytes_per_second: (machine.capacity() * 0.5 * machine.body_bytes as f64) as u64,
        lag_target_ns: 50 * MS,
        ..machine
    };
    let outcome = open_loop(slow(Machine::default()), 10, |_| 0.9);
    let p99_ns = outcome.p99_ns(4 * SECOND, 9 * SECOND);
    assert!(p99_ns < 250 * MS, "p99 {} ms", p99_ns / MS);
    let goodput = outcome.goodput(4 * SECOND, 10 * SECOND) / Machine::default().capacity();
    assert!(goodput > 0.4, "the disk is used: {goodput:.3} of what it could be 0.5");
    let [by_target, by_lag, ..] = outcome.reasons;
    assert!(
        by_target * 100 <= by_lag,
        "the core is not the bottleneck: {by_target} refused for it, {by_lag} for the disk"
    );
}

#[test]
fn a_disk_that_was_in_trouble_is_used_again_when_it_is_not() {
    // Few clients, who wait for their answers: little is queued meanwhile, and so little becomes durable afterwards that it
    // does not show how fast the disk is again.
    let machine = Machine { target: 1.0, trouble: Some((2 * SECOND, 4 * SECOND, 240 * MS)), ..Machine::default() };
    let mut clients = RetryStorm { clients: 8, think_ns: MS / 10, from_ns: 0, until_ns: 6 * SECOND };
    let outcome = Simulation::new(machine, seed(), &[1], 8).run(&mut clients, 6 * SECOND);
    let goodput = |from, to| outcome.goodput(from * MS, to * MS);
    let before = goodput(1_000, 2_000);
    eprintln!("{:.2?}", (40..60).map(|at| goodput(at * 100, (at + 1) * 100) / before).collect::<Vec<_>>());
    assert!(outcome.refused(2_000 * MS, 4_000 * MS) > 0, "the trouble is great enough for the guard to act");
    let after = goodput(5_000, 6_000) / before;
    assert!(after > 0.9, "a second after it: {after:.2} of what it was before");
}
