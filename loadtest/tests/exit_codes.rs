//! Exit codes are what a pipeline goes by: each means what `loadtest/docs/result.md` says.

mod support;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use support::{Lease, Server, refusal, show, tidegate};

#[test]
fn each_threshold_can_be_met_and_missed() {
    let server = Server::start();
    let cases: [(&[&str], &str); 3] = [
        (&["--max-p99", "60s", "--max-p99", "1us"], "p99_us"),
        (&["--min-rate", "0", "--min-rate", "1G"], "requests_per_second"),
        (&["--max-error-rate", "100%"], "error_rate"),
    ];
    for (options, name) in cases {
        let (result, code) = server.run(&options[..2]);
        assert_eq!(code, 0, "{options:?}: {result}");
        assert_eq!(result["thresholds"][0]["name"], name);
        if let Some(missed) = options.get(2..4) {
            let (result, code) = server.run(missed);
            assert_eq!((code, result["thresholds"][0]["passed"].as_bool()), (1, Some(false)), "{result}");
        }
    }
    let (result, code) = server.run(&["--path", "/nowhere", "--max-error-rate", "1%"]);
    assert_eq!(code, 1, "{result}");
    let (result, code) = server.run(&["--path", "/nowhere", "--max-p99", "60s"]);
    assert_eq!(code, 1, "a latency of nothing met its limit: {result}");
}

#[test]
fn a_target_that_does_not_answer_as_it_should_is_an_error_without_any_threshold() {
    let server = Server::start();
    let (result, code) = server.run(&["--path", "/nowhere"]);
    assert_eq!((code, number_of(&result, "accepted")), (3, 0), "{result}");
    let unused = Lease::take();
    let (code, said) = refusal(&["run", "--target", &unused.address().to_string()]);
    assert!(code == 3 && said.contains("nothing answers"), "{code}: {said}");
}

fn number_of(result: &serde_json::Value, outcome: &str) -> u64 {
    result["outcomes"][outcome].as_u64().unwrap()
}

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let server = Server::start();
    let target = server.address().to_string();
    let run = ["run", "--target", &target, "--duration", "50ms", "--warmup", "0s", "--batch", "2", "--quiet"];
    for option in ["--json", "--html", "--hgrm"] {
        let (code, said) = refusal(&[&run[..], &[option, "/dev/full"]].concat());
        assert!(code == 3 && said.contains("/dev/full"), "{option}: {code}: {said}");
    }
}

/// What was measured must not be lost to a wrong path: it is refused before the load.
#[test]
fn outputs_that_cannot_be_written_are_refused_before_the_load() {
    let server = Server::start();
    let target = server.address().to_string();
    let run = ["run", "--target", &target, "--duration", "50ms", "--warmup", "0s", "--batch", "2", "--quiet"];
    let (nowhere, home) = (show(&server.home().join("none/r")), show(server.home()));
    for option in ["--json", "--html", "--hgrm"] {
        for path in [&nowhere, &home] {
            let (code, said) = refusal(&[&run[..], &[option, path]].concat());
            assert!(code == 2 && said.contains(path) && said.contains(option), "{option}: {code}: {said}");
        }
    }
    let (code, said) = refusal(&[&run[..], &["--verify", &nowhere]].concat());
    assert!(code == 2 && said.contains("--verify"), "{code}: {said}");
    let (code, said) = refusal(&[&run[..], &["--verify", &home, "--tidegate", &nowhere]].concat());
    assert!(code == 2 && said.contains("--tidegate"), "{code}: {said}");
    let lines = std::process::Command::new(tidegate()).args(["cat", "--data", &show(&server.data())]).output().unwrap();
    assert!(lines.status.success() && lines.stdout.is_empty(), "a refused run put load on the server");
    // The one that can be written is, although the other fails at last.
    let json = show(&server.home().join("r.json"));
    let (code, said) = refusal(&[&run[..], &["--html", "/dev/full", "--json", &json]].concat());
    assert!(code == 3 && said.contains("/dev/full"), "{code}: {said}");
    assert!(std::fs::read_to_string(&json).unwrap().contains("\"schema\""));
}

/// A run of the load generator that is refused before it sends anything, or is over at once.
fn short_run(server: &Server, options: &[&str]) -> std::process::Output {
    let target = server.address().to_string();
    let run =
        ["run", "--target", &target, "--duration", "50ms", "--warmup", "0s", "--batch", "2", "--connections", "2"];
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate-load"))
        .args([&run[..], &["--allow-bottleneck", "--timeout", "120s"], options].concat())
        .current_dir(server.home())
        .output();
    output.unwrap()
}

/// One would be written over the other.
#[test]
fn one_place_for_two_outputs_is_refused_however_it_is_spelt() {
    let server = Server::start();
    let home = server.home();
    let absolute = show(&home.join("new"));
    std::fs::write(home.join("there"), "kept").unwrap();
    std::fs::hard_link(home.join("there"), home.join("hard")).unwrap();
    for (link, to) in [("to-there", "there"), ("to-new", "new"), ("to-link", "to-new"), ("here", ".")] {
        std::os::unix::fs::symlink(to, home.join(link)).unwrap();
    }
    for (one, other) in [
        ("new", "new"),
        ("new", "./new"),
        ("new", "data/../new"),
        ("new", &absolute),
        ("new", "here/new"),
        ("new", "to-new"),
        ("to-link", "to-new"),
        ("there", "to-there"),
        ("there", "hard"),
        ("-", "-"),
    ] {
        let output = short_run(&server, &["--json", one, "--html", other]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains("both name"), "{one} and {other}: {output:?}");
    }
    let output = short_run(&server, &["--hgrm", "new", "--html", "./new.uncorrected"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(!home.join("new").exists() && std::fs::read_to_string(home.join("there")).unwrap() == "kept");
    // Nothing there is written over.
    let output = short_run(&server, &["--json", "/dev/null", "--html", "/dev/null", "--hgrm", "new"]);
    assert!(output.status.code() != Some(2) && home.join("new").exists(), "{output:?}");
}

/// What is at its end is no file yet.
#[test]
fn an_output_through_a_link_that_leads_to_nothing_is_written() {
    let server = Server::start();
    for (link, to) in [("first", "second"), ("second", "r.json"), ("astray", "none/r.json")] {
        std::os::unix::fs::symlink(to, server.home().join(link)).unwrap();
    }
    let output = short_run(&server, &["--json", "first"]);
    assert_ne!(output.status.code(), Some(2), "{output:?}");
    assert!(std::fs::read_to_string(server.home().join("r.json")).unwrap().contains("\"schema\""));
    let output = short_run(&server, &["--json", "astray"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("No such file or directory"), "{output:?}");
}

/// Beside what is no file there is none either, and standard output has room for one thing.
#[test]
fn a_distribution_that_is_printed_is_alone() {
    let server = Server::start();
    let names = |directory: &str| -> Vec<String> {
        let entries = std::fs::read_dir(server.home().join(directory)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let before = names(".").len();
    let output = short_run(&server, &["--hgrm", "-"]);
    let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.code() != Some(2) && said.contains("goodput"), "{output:?}");
    assert!(shown.trim_start().starts_with("Value") && shown.matches("TotalCount").count() == 1, "{shown}");
    assert_eq!(names(".").len(), before, "{:?}", names("."));
    // A device of this test: a link to it, in a directory where a file could be made.
    std::os::unix::fs::symlink("/dev/null", server.home().join("device")).unwrap();
    let output = short_run(&server, &["--hgrm", "device"]);
    assert!(output.status.code() != Some(2) && !names(".").contains(&"device.uncorrected".to_owned()), "{output:?}");
}

/// Nobody's memory would be watched, and the result would not say so.
#[test]
fn a_server_process_that_is_not_there_is_refused_before_the_load() {
    let server = Server::start();
    // More than any number of a process: PID_MAX_LIMIT is 2^22.
    for pid in ["0", "4194305"] {
        let output = short_run(&server, &["--server-pid", pid]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(&format!("--server-pid {pid}")), "{output:?}");
    }
}

/// A generator that was stopped says so: what it measured then is its own pause.
#[test]
fn a_generator_that_was_stopped_marks_its_run_invalid() {
    let server = Server::start();
    let target = server.address().to_string();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate-load"))
        .args(["run", "--target", &target, "--rate", "100", "--batch", "1", "--duration", "2s", "--warmup", "0s"])
        .args(["--interval", "100ms", "--json", "-", "--connections", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first line of progress: its first interval is over, nineteen are to come.
    let mut progress = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    progress.read_line(&mut line).unwrap();
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
        assert!(sent.success(), "{line}");
    };
    signal("-STOP");
    // Another run's end: what it takes is what its schedule says, at least.
    server.run(&["--duration", "600ms"]);
    signal("-CONT");
    // Read to its end, so that the child is not held up by it.
    let mut rest = String::new();
    progress.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), result["valid"].as_bool()), (Some(5), Some(false)), "{rest}");
    assert!(result["generator"]["pause_max_us"].as_f64().unwrap() >= 500_000.0, "{}", result["generator"]);
    assert!(rest.contains("did not run") || result["invalid_because"].to_string().contains("did not run"), "{rest}");
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_name() {
    let cases: [(&[&str], &str); 27] = [
        (&["--batch", "0"], "--batch"),
        (&["--connections", "0"], "--connections"),
        (&["--pipeline", "0"], "--pipeline"),
        (&["--pipeline", "1000"], "--pipeline"),
        (&["--duration", "0s"], "--duration"),
        (&["--interval", "1ms"], "--interval"),
        (&["--rate", "fast"], "--rate"),
        (&["--schedule", "wave"], "ramp:FROM-TO"),
        (&["--cores", "4096"], "--cores"),
        (&["--keys", "/nonexistent"], "/nonexistent"),
        (&["--events", "/dev/null"], "--events"),
        (&["--header", "no colon"], "--header"),
        (&["--malformed", "2"], "--malformed"),
        (&["--key-skew=-1"], "--key-skew"),
        (&["--scenario", "/nonexistent"], "/nonexistent"),
        (&["--target", "nowhere"], "--target"),
        (&["--rate", "5", "--schedule", "ramp:1-9"], "--rate"),
        (&["--rate", "5", "--schedule", "poisson,spike:1-9"], "--rate"),
        (&["--rate", "5", "--schedule", "step:9@1s"], "--rate"),
        (&["--timeout", "0s"], "--timeout"),
        (&["--check", "nothing", "--verify", "."], "--check nothing"),
        (&["--path", "v1/events"], "--path"),
        (&["--path", "/v1 events"], "--path"),
        (&["--content-type", "text/plain\r\nX: 1"], "--content-type"),
        (&["--header", "Host: elsewhere"], "--target says it"),
        (&["--header", "X-Ack: durable", "--ack", "memory"], "--ack"),
        (&["--header", "Na me: x"], "--header"),
    ];
    for (options, named) in cases {
        let (code, said) = refusal(&[&["run"], options].concat());
        assert!(code == 2 && said.contains(named), "{options:?}: {code}: {said}");
    }
}

/// Numbers that no memory, time or counter holds are refused, and do not panic, hang or run for another time.
#[test]
fn numbers_beyond_their_limits_are_refused_with_them() {
    let most = u64::MAX.to_string();
    let cases: [(&[&str], &str); 16] = [
        (&["--connections", &most], "--connections must be from 1 to 1000000"),
        (&["--slow-readers", &most], "--slow-readers must be at most 1000000"),
        (&["--batch", &most], "--batch must be from 1 to 1000000"),
        (&["--batch", "1000001"], "--batch"),
        (&["--batch", "1000000", "--template", "large"], "--batch 1000000: bodies of up to"),
        (&["--batch", "400000", "--encoding", "gzip"], "when compressed"),
        (&["--rate", "1e12"], "more than 1e9"),
        (&["--rate", "1e308G"], "--rate"),
        (&["--schedule", "ramp:1-2G"], "more than 1e9"),
        (&["--duration", "18446744074s"], "366 days"),
        (&["--interval", "18446744073.709551616s"], "366 days"),
        (&["--warmup", "9000h"], "366 days"),
        (&["--drain", "9000h"], "366 days"),
        (&["--timeout", "9000h"], "366 days"),
        (&["--max-p99", "9000h"], "366 days"),
        (&["--schedule", "step:1@8000h/1@8000h"], "366 days"),
    ];
    for (options, named) in cases {
        let (code, said) = refusal(&[&["run"], options].concat());
        assert!(code == 2 && said.contains(named) && !said.contains("panicked"), "{options:?}: {code}: {said}");
    }
    let (code, said) = refusal(&["crash", "--server", "true", "--data", "/nowhere", "--load-max", "18446744074s"]);
    assert!(code == 2 && said.contains("366 days"), "{code}: {said}");
}

#[test]
fn malformed_events_need_answers_whatever_the_batch() {
    for batch in ["1", "5"] {
        let (code, said) = refusal(&["run", "--malformed", "30%", "--check", "nothing", "--batch", batch]);
        assert!(code == 2 && said.contains("--malformed"), "{batch}: {code}: {said}");
    }
}

/// What a scenario says is not said beside it as well.
#[test]
fn a_scenario_refuses_options_that_it_would_not_heed() {
    let scenario = |name: &str| format!("{}/scenarios/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let (spike, webhook) = (scenario("spike"), scenario("webhook"));
    for option in [
        ["--rate", "5"],
        ["--schedule", "ramp:1-2"],
        ["--duration", "1s"],
        ["--connections", "5"],
        ["--batch", "5"],
        ["--format", "array"],
        ["--malformed", "1%"],
        ["--path", "/other"],
        ["--content-type", "text/plain"],
        ["--template", "attribution"],
    ] {
        // Only the second names a template.
        let file = if option[0] == "--template" { &webhook } else { &spike };
        let (code, said) = refusal(&[&["run", "--scenario", file][..], &option].concat());
        assert!(code == 2 && said.contains(option[0]) && said.contains("--scenario"), "{option:?}: {code}: {said}");
    }
}

/// It brings its own requests, which are held against the same limits as those of options.
#[test]
fn a_scenario_whose_bodies_are_too_long_is_refused() {
    let server = Server::start();
    let file = server.home().join("long.toml");
    let text = "about = \"long\"\nrequests_per_client_per_second = 1\ntemplate = \"large\"\nstart_clients = 1\n\
                [[stage]]\ntime = \"1s\"\nclients = 1\n[[request]]\nkind = \"events\"\nbatch = 1000000\nweight = 1\n";
    std::fs::write(&file, text).unwrap();
    let (code, said) = refusal(&["run", "--target", &server.address().to_string(), "--scenario", &show(&file)]);
    assert!(code == 2 && said.contains("--batch 1000000: bodies of up to"), "{code}: {said}");
}
