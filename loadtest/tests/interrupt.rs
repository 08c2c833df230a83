//! A load that a signal ends says what it saw until then, and that it is not what was asked for.

mod support;

use std::io::Read as _;
use std::path::Path;

use support::{Hanging, Interruptible, Server, found, number, show, tidegate};

/// A run of which the first interval is over; it would go on for ten minutes.
fn begun(server: &Server, phase: &[&str]) -> Interruptible {
    begun_with(server, tidegate(), phase)
}

/// The same, with another program to read the log.
fn begun_with(server: &Server, reader: &Path, phase: &[&str]) -> Interruptible {
    let (target, json) = (server.address().to_string(), show(&server.home().join("r.json")));
    let (data, reader) = (show(&server.data()), show(reader));
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

/// Whether it reaches this process alone or, as Ctrl-C does, all of its group: what reads the log is neither ended by the
/// signal itself nor left behind.
#[test]
fn a_signal_while_the_log_is_looked_at_ends_that_and_is_told() {
    for (signal, name, code, is_for_group) in [("-INT", "SIGINT", 130, true), ("-TERM", "SIGTERM", 143, false)] {
        let server = Server::start();
        let reader = Hanging::new(server.home(), "cat");
        let mut run = begun_with(&server, &reader.program, &["--warmup", "0s", "--duration", "200ms"]);
        run.until("hangs");
        let mut held = reader.held();
        if is_for_group {
            run.signal_group(signal)
        } else {
            run.signal(signal)
        }
        let (found_code, said, rest) = run.ended();
        assert_eq!(found_code, code, "{said}{rest}");
        let result = result(&server);
        assert_eq!((result["interrupted"].as_str(), result["verdict"].is_null()), (Some(name), true), "{result}");
        assert!(result["verdict_failed"].as_str().unwrap().contains(name), "{result}");
        assert!(said.contains(&format!("NO VERDICT · {name}")) && !said.contains("were planned"), "{said}");
        // The load was whole.
        assert!(!result["invalid_because"].to_string().contains(name), "{result}");
        held.read_to_end(&mut Vec::new()).unwrap();
    }
}

/// The first one ended the load, and the log is looked at all the same.
#[test]
fn a_second_signal_ends_the_look_at_the_log_at_once() {
    let server = Server::start();
    let reader = Hanging::new(server.home(), "cat");
    let mut run = begun_with(&server, &reader.program, &["--warmup", "0s", "--duration", "600s"]);
    run.signal_group("-INT");
    run.until("hangs");
    let mut held = reader.held();
    let (code, said, rest) = run.end("-TERM");
    assert_eq!((code, said.as_str()), (143, ""), "{rest}");
    let result = result(&server);
    assert_eq!((result["interrupted"].as_str(), result["verdict"].is_null()), (Some("SIGINT"), true), "{result}");
    assert_eq!(result["verdict_failed"], "the log was not read to its end", "{result}");
    held.read_to_end(&mut Vec::new()).unwrap();
}
