//! Every option that shapes a load does what it says, against a real server: the answers are right and the log holds
//! what was acknowledged.

mod support;

use support::{Server, found, load, number, show};

/// Options, and what else must hold of the result beside a sound log and answers that are all as they should be.
fn is_sound(server: &Server, options: &[&str]) -> serde_json::Value {
    let (result, code) = server.run(options);
    assert_eq!(code, 0, "{options:?}: {result}");
    assert!(result["verdict"]["sound"].as_bool().unwrap(), "{options:?}: {}", result["verdict"]);
    assert!(found(&result, "acked") > 0, "{options:?}: nothing was acknowledged: {result}");
    for wrong in ["wrong_status", "wrong_body", "bad_response", "connection_lost", "connect_failed", "timed_out"] {
        assert_eq!(result["outcomes"][wrong], 0, "{options:?}: {}", result["outcomes"]);
    }
    result
}

#[test]
fn every_format_encoding_and_level_is_acknowledged_and_stored_intact() {
    let server = Server::start();
    for format in ["single", "array", "ndjson", "envelope"] {
        for encoding in ["identity", "gzip", "zstd"] {
            is_sound(&server, &["--format", format, "--encoding", encoding, "--batch", "7", "--pipeline", "3"]);
        }
    }
    for level in ["memory", "written", "durable"] {
        let result = is_sound(&server, &["--ack", level, "--batch", "5"]);
        assert_eq!(result["manifest"]["ack"], level);
    }
    let result = is_sound(&server, &["--batch", "5"]);
    assert_eq!(result["manifest"]["ack"], "durable (server default)");
}

#[test]
fn every_template_the_users_own_lines_and_a_replayed_log_are_stored_intact() {
    let server = Server::start();
    for template in ["attribution", "large", "webhook"] {
        let result = is_sound(&server, &["--template", template, "--batch", "4"]);
        assert_eq!(result["manifest"]["template"], template);
    }
    let lines = server.home().join("lines");
    let unusual = "{\"a\":1e999,\"b\":-123456789012345678901234567890}";
    let text = format!("{{\"a\":1}}\r\n{{\"event_id\":\"mine\",\"b\":[{{\"c\":\"\\u00e4\"}}]}}\n\n{unusual}\n{{}}\n");
    std::fs::write(&lines, text).unwrap();
    is_sound(&server, &["--events", &show(&lines), "--batch", "4"]);
    is_sound(&server, &["--replay", &show(&server.data()), "--batch", "4"]);
}

#[test]
fn repeated_bodies_are_taken_and_cannot_be_verified() {
    let server = Server::start();
    for encoding in ["identity", "gzip", "zstd"] {
        let options = ["--repeat-bodies", "--batch", "9", "--encoding", encoding];
        let (result, code) = server.run_unverified(&options);
        assert_eq!(code, 0, "{encoding}: {result}");
        assert!(number(&result, "outcomes.accepted") > 0.0 && number(&result, "errors") == 0.0, "{result}");
        assert_eq!(result["manifest"]["repeats_bodies"], true);
    }
    let both =
        ["run", "--target", &server.address().to_string(), "--repeat-bodies", "--verify", "."].map(str::to_owned);
    let refused = load(&both);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("events that repeat"), "{refused:?}");
}

#[test]
fn connections_are_renewed_after_as_many_requests_as_asked_for() {
    let server = Server::start();
    is_sound(&server, &["--requests-per-connection", "1", "--format", "single"]);
    is_sound(&server, &["--requests-per-connection", "3", "--pipeline", "2", "--batch", "2"]);
}

#[test]
fn malformed_events_are_refused_and_those_beside_them_kept() {
    let server = Server::start();
    let result = is_sound(&server, &["--malformed", "30%", "--format", "single"]);
    assert!(number(&result, "outcomes.refused_as_expected") > 0.0, "{}", result["outcomes"]);
    assert_eq!(result["statuses"]["400"].as_u64(), result["statuses"]["400"].as_u64().filter(|count| *count > 0));
    let result = is_sound(&server, &["--malformed", "100%", "--batch", "3"]);
    // Of each batch of three one is refused.
    assert_eq!(found(&result, "acked") * 3, found(&result, "sent") * 2, "{}", result["verdict"]);
}

#[test]
fn keys_and_headers_and_slow_readers_stand_beside_the_load() {
    let server = Server::start();
    let keys = server.home().join("keys");
    std::fs::write(&keys, "first-key\nk2\nthird\n").unwrap();
    is_sound(&server, &["--keys", &show(&keys), "--key-skew", "1.2", "--header", "X-More: 1", "--batch", "2"]);
    let result = is_sound(&server, &["--slow-readers", "2", "--batch", "2", "--duration", "400ms"]);
    assert_eq!(result["slow_readers"]["connections"], 2, "{result}");
}

/// Results are passed on.
#[test]
fn no_secret_of_a_header_is_in_json_or_page() {
    let server = Server::start();
    let page = server.home().join("r.html");
    let secrets =
        ["--header", "Authorization: Bearer hidden", "--header=X-API-Key: hidden", "--header", "X-More: shown"];
    let (result, _) = server.run_unverified(&[&secrets[..], &["--batch", "2", "--html", &show(&page)]].concat());
    let command = result["manifest"]["command"].as_str().unwrap();
    assert!(command.contains("'Authorization: Bearer ***'") && command.contains("'X-More: shown'"), "{command}");
    let page = std::fs::read_to_string(&page).unwrap();
    assert!(page.contains("X-More: shown"), "the page has no command");
    assert!(!result.to_string().contains("hidden") && !page.contains(" hidden"), "{command}");
}

#[test]
fn every_schedule_offers_what_it_says() {
    let server = Server::start();
    let cases: [(&[&str], f64); 7] = [
        (&["--rate", "400"], 400.0),
        // What no connection could take is counted, too.
        (&["--rate", "1G"], 1e9),
        (&["--rate", "400", "--schedule", "poisson"], 400.0),
        (&["--schedule", "step:200@100ms/400@100ms"], 300.0),
        (&["--schedule", "ramp:100-500"], 300.0),
        (&["--schedule", "spike:100-400"], 200.0),
        (&["--schedule", "poisson,ramp:100-500"], 300.0),
    ];
    for (schedule, rate) in cases {
        let options = [&["--batch", "2"], schedule].concat();
        let result = is_sound(&server, &options);
        assert_eq!(result["manifest"]["mode"], "open");
        let offered = number(&result, "offered_requests_per_second");
        let (measured_s, intended) = (number(&result, "measured_s"), number(&result, "requests"));
        if schedule.iter().any(|option| option.contains("poisson")) {
            // What was drawn, each with an outcome, and not what is drawn on average.
            assert!((offered * measured_s - intended).abs() < 0.01, "{schedule:?}: {offered}/s, {intended} requests");
        } else {
            assert!((offered - rate).abs() <= rate * 0.02, "{schedule:?}: {offered}");
            // Every intended request has an outcome, late or not.
            assert!((intended - rate * 0.2).abs() <= 1.0, "{schedule:?}: {intended} requests");
        }
    }
}

#[test]
fn two_threads_number_their_events_apart() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        eprintln!("SKIPPED two_threads_number_their_events_apart: needs two cores");
        return;
    }
    let server = Server::start();
    let result = is_sound(&server, &["--cores", "0-1", "--batch", "5"]);
    assert_eq!(result["generator"]["cores"].as_array().unwrap().len(), 2);
}

#[test]
fn results_are_written_as_json_distribution_and_page() {
    let server = Server::start();
    let (json, hgrm, html) = (server.home().join("r.json"), server.home().join("r.hgrm"), server.home().join("r.html"));
    let (target, pid) = (server.address().to_string(), server.pid().to_string());
    let output = support::load(&[
        "run",
        "--target",
        &target,
        "--batch",
        "5",
        "--rate",
        "200",
        "--duration",
        "500ms",
        "--warmup",
        "100ms",
        "--interval",
        "100ms",
        "--json",
        &show(&json),
        "--hgrm",
        &show(&hgrm),
        "--html",
        &show(&html),
        "--server-pid",
        &pid,
        "--allow-bottleneck",
        "--connections",
        "4",
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("goodput"), "a summary is printed");
    assert!(String::from_utf8_lossy(&output.stderr).contains("req/s"), "progress is shown");
    let result: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    for name in
        ["requests_per_second", "events_per_second", "errors", "generator.busy_fraction", "generator.slip_p99_us"]
    {
        number(&result, name);
    }
    for side in ["corrected", "uncorrected"] {
        for percentile in ["p50", "p90", "p99", "p999", "max"] {
            assert!(number(&result, &format!("latency_us.{side}.{percentile}")) > 0.0);
        }
    }
    for name in ["command", "seed", "kernel", "cpu", "cores_online", "generator_cores", "ack", "version"] {
        assert!(!result["manifest"][name].is_null(), "{name} is not in the manifest");
    }
    assert!(number(&result, "server.rss_last_bytes") > 0.0);
    let points = result["intervals"].as_array().unwrap();
    assert_eq!(points.iter().filter(|point| point["warmup"] == false && point["drain"] == false).count(), 5);
    for file in [hgrm.clone(), server.home().join("r.hgrm.uncorrected")] {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("Percentile") && text.contains("TotalCount"), "{text}");
    }
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.matches("<svg").count() >= 4 && page.ends_with("</html>\n"));
    for outside in ["src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "the page needs something outside of it: {outside}");
    }
}

/// Answers that should not be are in no latency of good ones, and in one of their own; what was not measured is no zero.
#[test]
fn failed_requests_have_latencies_of_their_own() {
    let server = Server::start();
    let target = server.address().to_string();
    let run = ["run", "--target", &target, "--batch", "2", "--duration", "200ms", "--warmup", "0s", "--json", "-"];
    let output = support::load(&[&run[..], &["--path", "/nowhere", "--connections", "2"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for percentile in ["p50", "p99", "p999", "max", "mean"] {
        assert!(number(&result["latency_us"], &format!("failed.{percentile}")) > 0.0, "{}", result["latency_us"]);
        for good in ["corrected", "uncorrected"] {
            assert!(result["latency_us"][good][percentile].is_null(), "{good}: {}", result["latency_us"]);
        }
    }
    assert!(result["intervals"].as_array().unwrap().iter().all(|point| point["p99_us"].is_null()), "{result}");
    assert!(result["generator"]["slip_p99_us"].is_null(), "a closed loop has no schedule to be late for: {result}");
    assert!(said.contains("\n intended    -") && said.contains("\n failed ") && !said.contains("0.0 us"), "{said}");
    let good = is_sound(&server, &["--batch", "2"]);
    assert!(good["latency_us"]["failed"]["p99"].is_null(), "{}", good["latency_us"]);
    assert!(number(&good["latency_us"], "corrected.p99") > 0.0, "{}", good["latency_us"]);
}
