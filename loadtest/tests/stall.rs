//! Coordinated omission, made visible: a stall of half a second is in the latencies from the intended times and not in
//! those from the actual sends.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::{load, number};
use tidegate_load::sink::{Sink, SinkCounts, SinkMode, Stall};

/// Half of the stall. Nothing here depends on how fast the machine is: of a thousand requests a second, those meant for
/// the first half of the stall wait this long at least, a twelfth of all in three seconds. From their actual send, so
/// long can wait only one request after the other on the one connection: twelve in three seconds, of thousands.
const HALF_US: f64 = 250_000.0;

#[test]
fn a_stall_of_500_ms_shows_from_the_intended_times_and_not_from_the_actual_sends() {
    let stall = Stall { after_requests: 500, length: Duration::from_millis(500) };
    let address = "127.0.0.1:0".parse().unwrap();
    let sink = Sink::bind(address, SinkMode::Answer, Some(stall)).expect("a free port");
    let address = sink.address().unwrap().to_string();
    let stop = Arc::new(AtomicBool::new(false));
    let counts = Arc::new(SinkCounts::default());
    let thread = {
        let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
        std::thread::spawn(move || sink.serve(None, &stop, &counts))
    };
    let output = load(&[
        "run",
        "--target",
        &address,
        "--check",
        "status",
        "--format",
        "single",
        "--rate",
        "1000",
        "--duration",
        "3s",
        "--warmup",
        "0s",
        "--connections",
        "1",
        "--json",
        "-",
        "--quiet",
        "--allow-bottleneck",
    ]);
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let answered = number(&result, "outcomes.accepted");
    assert_eq!(answered, counts.requests.load(Ordering::Relaxed) as f64);
    assert!(answered > 2500.0, "{}", result["outcomes"]);
    let latency = &result["latency_us"];
    assert!(number(latency, "corrected.p95") >= HALF_US, "the stall is not in the corrected percentiles: {latency}");
    assert!(number(latency, "uncorrected.p99") < HALF_US, "the stall is in the uncorrected percentiles: {latency}");
    assert!(number(latency, "uncorrected.max") >= 2.0 * HALF_US * 0.99, "nobody met the stall: {latency}");
}
