//! The oracle sees what is wrong with a log, and nothing wrong with a sound one. A real server, a real log; a doctored log
//! is the real one read through a filter that spoils it.

mod support;

use support::{Server, doctored, found, load, show};

/// Everything that is acknowledged is found, and all that was sent had an answer.
#[test]
fn a_good_run_is_sound_and_complete() {
    let server = Server::start();
    let (result, code) = server.run(&["--batch", "20"]);
    assert_eq!(code, 0, "{result}");
    assert!(result["verdict"]["sound"].as_bool().unwrap() && found(&result, "acked") > 0, "{}", result["verdict"]);
    assert_eq!(found(&result, "stored"), found(&result, "acked"), "{}", result["verdict"]);
    assert_eq!(result["errors"], 0, "{result}");
    // Another run is told from this one by its name.
    let (second, code) = server.run(&["--batch", "20"]);
    assert_eq!((code, found(&second, "other_runs")), (0, found(&result, "stored")), "{}", second["verdict"]);
}

/// Result and exit code of a run of which something was acknowledged, its log read through a filter. On a busy machine its
/// fifth of a second can pass before anything is sent: then another one is made, on an empty log again.
fn acknowledged(filter: &str) -> (serde_json::Value, i32) {
    for _ in 0..50 {
        let server = Server::start();
        let reader = doctored(server.home(), filter);
        let (result, code) = server.run_with(&reader, &["--batch", "20"]);
        if found(&result, "acked") > 0 {
            return (result, code);
        }
    }
    panic!("nothing was acknowledged in fifty runs");
}

/// Each wrong that a log can have is counted as what it is, and makes the exit code 4.
#[test]
fn each_doctored_log_is_found_unsound_for_what_was_done_to_it() {
    let cases = [
        ("lost", "sed 5d"),
        ("duplicated", "sed 5p"),
        // The last character before the closing brace: within the content, far from the name.
        ("corrupted", "sed -E '5s/.(.)$/#\\1/'"),
        ("unknown", "sed '5a {\"event_id\":\"nobody sent this\"}'"),
    ];
    for (wrong, filter) in cases {
        let (result, code) = acknowledged(filter);
        assert_eq!(code, 4, "{wrong}: {}", result["verdict"]);
        for name in ["lost", "duplicated", "corrupted", "unknown"] {
            assert_eq!(found(&result, name), u64::from(name == wrong), "{wrong}: {}", result["verdict"]);
        }
        assert!(!result["verdict"]["examples"].as_array().unwrap().is_empty(), "{wrong}: no example");
    }
}

/// An answer that promises more than was kept: all of it is lost.
#[test]
fn acknowledged_by_one_server_and_looked_for_in_anothers_log_is_lost() {
    let (server, other) = (Server::start(), Server::start());
    let data = show(&other.data());
    let (result, code) = server.run(&["--batch", "20", "--verify", &data]);
    assert_eq!(code, 4, "{}", result["verdict"]);
    assert!(found(&result, "acked") > 0 && found(&result, "lost") == found(&result, "acked"), "{}", result["verdict"]);
}

/// A log that cannot be read is no sound one, and takes nothing of what was measured with it.
#[test]
fn a_log_that_cannot_be_read_is_an_error_that_leaves_the_result() {
    let server = Server::start();
    let (target, data, json) =
        (server.address().to_string(), show(&server.data()), show(&server.home().join("r.json")));
    // It reads a little and fails.
    let reader = show(&doctored(server.home(), "{ head -n 1; exit 7; }"));
    let run = ["run", "--target", &target, "--tidegate", &reader, "--verify", &data, "--json", &json, "--batch", "2"];
    let output = load(&[&run[..], &["--duration", "100ms", "--warmup", "0s"]].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("goodput") && said.contains("NO VERDICT"), "{said}");
    let result: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    assert!(result["verdict"].is_null() && result["requests"].as_u64().is_some(), "{result}");
    assert!(result["verdict_failed"].as_str().unwrap().contains("exit status: 7"), "{result}");
}
