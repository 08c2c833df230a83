//! Every scenario runs, scaled down, against a real server: each kind of request is answered as it should be, and what was
//! acknowledged is stored. Whether a small machine meets the thresholds is not asserted; that they are judged is.

mod support;

use support::{Server, found, number, show};

fn run(name: &str, kinds: &[&str]) {
    let server = Server::start();
    let file = format!("{}/scenarios/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let target = server.address().to_string();
    let output = support::load(&[
        "run",
        "--target",
        &target,
        "--scenario",
        &file,
        "--scale",
        "0.01",
        "--time-scale",
        "0.0001",
        "--warmup",
        "100ms",
        "--interval",
        "100ms",
        "--verify",
        &show(&server.data()),
        "--tidegate",
        &show(support::tidegate()),
        "--json",
        "-",
        "--quiet",
        "--allow-bottleneck",
        "--server-pid",
        &server.pid().to_string(),
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let result: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{name}: {error}: {said}"));
    assert!(matches!(output.status.code(), Some(0 | 1)), "{name}: {:?}: {said}", output.status);
    assert!(result["verdict"]["sound"].as_bool().unwrap() && found(&result, "acked") > 0, "{name}: {result}");
    for wrong in ["wrong_status", "wrong_body", "bad_response", "connection_lost", "timed_out"] {
        assert_eq!(result["outcomes"][wrong], 0, "{name}: {}", result["outcomes"]);
    }
    let found: Vec<&String> = result["kinds"].as_object().unwrap().keys().collect();
    assert_eq!(found, kinds, "{name}");
    for kind in kinds {
        assert!(number(&result["kinds"], &format!("{kind}.requests")) > 0.0, "{name}: no {kind}: {}", result["kinds"]);
    }
    let thresholds = result["thresholds"].as_array().unwrap();
    assert!(
        thresholds.len() >= 2 && thresholds.iter().any(|one| one["name"] == "error_rate"),
        "{name}: {thresholds:?}"
    );
    assert!(result["manifest"]["scenario"].as_str().unwrap().contains(name), "{name}");
}

#[test]
fn ramp_asks_for_single_events_batches_and_reads() {
    run("ramp", &["events_1", "events_10", "metrics"]);
}

#[test]
fn spike_rises_and_falls_twice() {
    run("spike", &["events_1", "events_10"]);
}

#[test]
fn stress_grows_until_the_knee() {
    run("stress", &["events_10"]);
}

#[test]
fn load_mixes_all_routes() {
    run("load", &["echo", "events_1", "health", "metrics", "ready"]);
}

#[test]
fn endurance_watches_throughput_and_memory() {
    run("endurance", &["events_1", "events_10"]);
}

#[test]
fn webhook_sends_single_events() {
    run("webhook", &["events_1"]);
}
