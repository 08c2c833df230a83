//! kill -9 under load, again and again on one log: every acked event is there afterwards, intact, in order, once.
//!
//! This is a crash of the process: the kernel keeps what it was given. What a power cut leaves is simulated in
//! `storage_faults`. `TIDEGATE_CRASH_ROUNDS` makes it run longer.

mod support;

use support::audit::{Audit, Lane};
use support::load::{Load, Mix};
use support::observe;
use support::random::{self, Random};
use support::server::Setup;

const ROUNDS_DEFAULT: u32 = 6;
/// Levels of the clients of one round: memory must survive only as whole events in order.
const ACKS: [&str; 5] = ["durable", "durable", "durable", "written", "memory"];
/// A round ends after a random number of acked requests up to this.
const ACKED_REQUESTS_MAX: u64 = 1_200;

fn rounds() -> u32 {
    std::env::var("TIDEGATE_CRASH_ROUNDS").map_or(ROUNDS_DEFAULT, |text| text.parse().expect("a number of rounds"))
}

fn crash_and_audit(name: &str, shards: u32, rounds: u32) {
    let seed = random::seed(name);
    let mut random = Random::new(seed);
    let mut server = Setup::new().set("shards", shards).start();
    let mut lanes: Vec<Lane> = Vec::new();
    for round in 0..rounds {
        let enough = random.below(ACKED_REQUESTS_MAX);
        let load = Load::start(server.listen(), seed, 1 + round * ACKS.len() as u32, &ACKS, Mix::Any);
        load.wait_for_acks(enough);
        server.kill9();
        lanes.extend(load.join());
        if random.one_in(3) {
            // Once more in the middle of recovery or of preparing segments, wherever that is.
            server.launch();
            for _ in 0..random.below(2_000_000) {
                std::hint::spin_loop();
            }
            server.kill9();
        }
        server.start_again();
        let audit = Audit::of(seed, &lanes, &observe::cat(&server.data()));
        eprintln!("round {round}: {audit}");
        audit.assert_sound();
    }
    assert_eq!(server.terminate().code(), Some(0));
    observe::verify(&server.data());
    let audit = Audit::of(seed, &lanes, &observe::cat(&server.data()));
    audit.assert_sound();
    assert!(audit.acked > 0, "no load: {audit}");
}

#[test]
fn acked_survives_kill_9_on_one_shard() {
    crash_and_audit("acked_survives_kill_9_on_one_shard", 1, rounds());
}

#[test]
fn acked_survives_kill_9_on_two_shards() {
    crash_and_audit("acked_survives_kill_9_on_two_shards", 2, rounds());
}

#[test]
fn a_log_that_was_never_written_survives_kill_9() {
    let mut server = Setup::new().start();
    for _ in 0..3 {
        server.kill9();
        server.start_again();
        assert!(observe::cat(&server.data()).is_empty());
    }
    observe::verify(&server.data());
}
