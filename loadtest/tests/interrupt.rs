//! A load that a signal ends says what it saw until then, and that it is not what was asked for.

mod support;

use support::{Interruptible, Server, found, number, show, tidegate};

/// A run of which the first interval is over; it would go on for ten minutes.
fn begun(server: &Server, phase: &[&str]) -> Interruptible {
    let (target, json) = (server.address().to_string(), show(&server.home().join("r.json")));
    let (data, reader) = (show(&server.data()), show(tidegate()));
    let run = ["run", "--target", &target, "--json", &json, "--verify", &data, "--tidegate", &reader, "--rate", "100"];
    let shape = ["--batch", "2", "--connections", "2", "--interval", "100ms", "--max-p99", "1us", "--allow-bottleneck"];
    let patience = ["--timeout", "120s", "--drain", "120s"];
    Interruptible::start(&[&run[..], &shape, &patience, phase].concat())
}

fn result(server: &Server) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(server.home().join("r.json")).unwrap()).unwrap()
}

/// Neither the threshold that it misses nor `--allow-bottleneck` hides that it was not whole.
#[test]
fn an_interrupted_run_tells_its_own_length_and_is_not_valid() {
    let server = Server::start();
    let (code, said, rest) = begun(&server, &["--warmup", "0s", "--duration", "600s"]).end("-INT");
    assert_eq!(code, 130, "{said}{rest}");
    let result = result(&server);
    assert_eq!((result["interrupted"].as_str(), result["valid"].as_bool()), (Some("SIGINT"), Some(false)), "{result}");
    assert!(result["invalid_because"][0].as_str().unwrap().contains("SIGINT ended it after"), "{result}");
    let points = result["intervals"].as_array().unwrap();
    let last = points.iter().rfind(|point| point["drain"] == false).unwrap();
    assert!(number(&result, "measured_s") >= number(last, "from_s"), "{result}");
    assert!((number(&result, "measured_s") - number(last, "to_s")).abs() < 0.01, "{last}: {result}");
    assert!(said.contains("INTERRUPTED by SIGINT, 600.0 s were planned"), "{said}");
    assert!(!said.contains("req/s for 600.0 s"), "{said}");
    // What it was promised is looked for all the same.
    assert!(result["verdict"]["sound"].as_bool().unwrap() && found(&result, "acked") > 0, "{result}");
}

#[test]
fn a_run_interrupted_in_its_warm_up_has_measured_nothing() {
    let server = Server::start();
    let (code, said, rest) = begun(&server, &["--warmup", "600s", "--duration", "600s"]).end("-TERM");
    assert_eq!(code, 143, "{said}{rest}");
    let result = result(&server);
    assert_eq!((result["interrupted"].as_str(), result["valid"].as_bool()), (Some("SIGTERM"), Some(false)), "{result}");
    assert_eq!((number(&result, "measured_s"), number(&result, "requests")), (0.0, 0.0), "{result}");
    assert!(!number(&result, "requests_per_second").is_sign_negative(), "{result}");
    assert!(said.contains("goodput      - req/s · - events/s · - MB/s"), "{said}");
    assert!(said.contains("in the warm-up: nothing was measured"), "{said}");
}
