//! A server that takes everything and answers nothing: what was waited for in vain is told as that and as nothing else.

mod support;

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};

use support::{load, number};

/// A server that reads and says nothing. It lives until the test ends.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            std::thread::spawn(move || std::io::copy(&mut client.unwrap().take(u64::MAX), &mut std::io::sink()));
        }
    });
    address
}

/// A load of a hundred requests a second on one connection, of which the first is given up after a second.
fn run(duration: &str) -> serde_json::Value {
    let target = server().to_string();
    let run = ["run", "--target", &target, "--check", "status", "--format", "single", "--connections", "1"];
    let shape = ["--pipeline", "100", "--rate", "100", "--duration", duration, "--warmup", "0s", "--interval", "50ms"];
    let rest = ["--timeout", "1s", "--drain", "120s", "--quiet", "--json", "-"];
    let output = load(&[&run[..], &shape, &rest].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// Nothing can be answered before what was asked first, so that those behind an overdue request have not waited in vain
/// for as long: they are lost with their connection, and lower no percentile of what was waited for.
#[test]
fn requests_behind_an_overdue_one_are_lost_and_make_no_short_wait() {
    let result = run("900ms");
    let (late, lost) = (number(&result, "outcomes.timed_out"), number(&result, "outcomes.connection_lost"));
    assert!(late > 0.0 && lost > 0.0, "{}", result["outcomes"]);
    let counted = late + lost + number(&result, "outcomes.never_sent");
    assert_eq!((counted, number(&result, "requests")), (90.0, 90.0), "{}", result["outcomes"]);
    assert!(number(&result["latency_us"], "uncorrected.p50") >= 1e6, "{}", result["latency_us"]);
}

#[test]
fn intervals_of_the_drain_follow_each_other() {
    // All but this is drain.
    let result = run("100ms");
    let points = result["intervals"].as_array().unwrap();
    assert!(points.iter().filter(|point| point["drain"] == true).count() >= 2, "{points:?}");
    for pair in points.windows(2) {
        let (ended, begins) = (number(&pair[0], "to_s"), number(&pair[1], "from_s"));
        assert!((ended - begins).abs() < 1e-9, "{pair:?}");
    }
}
