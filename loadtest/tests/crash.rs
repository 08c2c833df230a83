//! Rounds of kill -9: what they find, what they refuse to try, and what they leave when they are interrupted.

mod support;

use std::net::TcpStream;
use std::path::Path;

use support::{Hanging, Interruptible, Lease, Server, doctored, load, refusal, server_command, show, tidegate};

/// Rounds of kill -9: nothing is lost; and a reader that hides one event is found out.
#[test]
fn crash_rounds_are_sound_and_would_say_if_they_were_not() {
    let home = tempfile::tempdir().unwrap();
    let (listen, admin) = (Lease::take(), Lease::take());
    for (reader, sound) in [(tidegate().to_owned(), true), (doctored(home.path(), "sed 5d"), false)] {
        let data = home.path().join(if sound { "log" } else { "log-read-wrongly" });
        let command = server_command(&listen, &admin, &data);
        let (target, json) = (listen.address().to_string(), home.path().join("crash.json"));
        let rounds = if sound { "3" } else { "1" };
        let output = load(&[
            "crash",
            "--rounds",
            rounds,
            "--load-max",
            "300ms",
            "--server",
            &command,
            "--data",
            &show(&data),
            "--target",
            &target,
            "--tidegate",
            &show(&reader),
            "--batch",
            "10",
            "--connections",
            "8",
            "--json",
            &show(&json),
            "--server-log",
            &show(&home.path().join("server.log")),
        ]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(if sound { 0 } else { 4 }), "{said}");
        let result: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
        let acked: u64 =
            result["rounds"].as_array().unwrap().iter().map(|r| r["acked_in_round"].as_u64().unwrap()).sum();
        let before = result["acked_before"].as_u64().unwrap();
        assert!(acked > 0 && result["last"]["acked"] == acked + before, "{result}");
        assert!(result["kills"].as_u64().unwrap() >= rounds.parse().unwrap(), "{result}");
        assert_eq!(result["last"]["lost"], u64::from(!sound), "{result}");
    }
}

/// Options of a crash test with this server.
fn options(server: &str, target: &Lease, data: &Path, home: &Path) -> Vec<String> {
    let (target, log, reader) = (target.address().to_string(), show(&home.join("server.log")), show(tidegate()));
    let crash = ["crash", "--server", server, "--data", &show(data), "--target", &target, "--server-log", &log];
    let load = ["--tidegate", &reader, "--batch", "10", "--connections", "8", "--load-max", "100ms"];
    [&crash[..], &load].concat().into_iter().map(str::to_owned).collect()
}

/// No server is left, nor what it stored; what was found until then is.
#[test]
fn an_interrupted_crash_test_leaves_its_result_and_nothing_else() {
    for (signal, name, code) in [("-INT", "SIGINT", 130), ("-TERM", "SIGTERM", 143)] {
        let home = tempfile::tempdir().unwrap();
        let (listen, admin) = (Lease::take(), Lease::take());
        let (data, json) = (home.path().join("log"), home.path().join("crash.json"));
        let mut all = options(&server_command(&listen, &admin, &data), &listen, &data, home.path());
        all.extend(["--rounds", "100000", "--json", &show(&json)].map(str::to_owned));
        // Its first line is that of the first round.
        let (found_code, said, rest) = Interruptible::start(&all).end(signal);
        assert_eq!(found_code, code, "{said}{rest}");
        assert!(said.contains(&format!("NOT DONE · INTERRUPTED by {name}")), "{said}");
        let result: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
        assert_eq!((result["interrupted"].as_str(), result["sound"].as_bool()), (Some(name), Some(false)), "{result}");
        assert!(!result["rounds"].as_array().unwrap().is_empty() && result["last"].is_null(), "{result}");
        assert!(TcpStream::connect(listen.address()).is_err(), "the server is left");
        assert!(!data.exists() && result["data_removed"] == true, "{result}");
    }
}

/// Ctrl-C is for the whole group of processes; a `tidegate verify` that it ended would have found the log damaged.
#[test]
fn a_crash_test_interrupted_at_its_last_look_has_found_nothing_wrong() {
    let home = tempfile::tempdir().unwrap();
    let (listen, admin, data) = (Lease::take(), Lease::take(), home.path().join("log"));
    let reader = Hanging::new(home.path(), "verify");
    let mut all = options(&server_command(&listen, &admin, &data), &listen, &data, home.path());
    all.extend(["--rounds", "1", "--json", "-", "--tidegate", &show(&reader.program)].map(str::to_owned));
    let mut crash = Interruptible::start(&all);
    crash.until("hangs");
    crash.signal_group("-INT");
    let (code, said, rest) = crash.ended();
    assert_eq!(code, 130, "{said}{rest}");
    // What is for people does not stand beside what is for programs.
    let result: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert!(rest.contains("NOT DONE · INTERRUPTED by SIGINT"), "{rest}");
    assert!(result["log_is_sound"].is_null() && result["last"]["sound"] == true, "{result}");
}

/// What would call a sound server unsound, or one that was not tried sound.
#[test]
fn what_says_nothing_about_a_server_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (listen, admin, data) = (Lease::take(), Lease::take(), home.path().join("log"));
    let all = options(&server_command(&listen, &admin, &data), &listen, &data, home.path());
    let nowhere = show(&home.path().join("none/r"));
    let spelt_otherwise = show(&home.path().join("./server.log"));
    for refused in [
        ["--rounds", "0"],
        ["--load-max", "0s"],
        ["--load-max", "49ms"],
        ["--check", "nothing"],
        ["--ack", "memory"],
        ["--timeout", "0s"],
        ["--duration", "3s"],
        ["--schedule", "poisson,step:10@1s/20@1s"],
        ["--json", &nowhere],
        ["--server-log", &nowhere],
        ["--tidegate", &nowhere],
        // The path of its --server-log.
        ["--json", &spelt_otherwise],
    ] {
        let (code, said) = refusal(&[&all[..], &refused.map(str::to_owned)].concat());
        assert!(code == 2 && said.contains(refused[0]), "{refused:?}: {code}: {said}");
    }
    assert!(!data.exists(), "a server was started");
    // Somebody else's server would go on and be called one that lost everything.
    let other = Server::start();
    let target = other.address().to_string();
    let (code, said) = refusal(&[&all[..], &["--target".to_owned(), target]].concat());
    assert!(code == 2 && said.contains("something listens there"), "{code}: {said}");
}

/// Nothing is lost in any of these, and nothing was tried.
#[test]
fn a_log_or_a_level_that_is_not_meant_is_no_verdict() {
    let home = tempfile::tempdir().unwrap();
    let other = Server::start();
    let (listen, admin, data) = (Lease::take(), Lease::take(), home.path().join("log"));
    let command = server_command(&listen, &admin, &data);
    let cases = [
        (command.clone(), other.data(), vec![], "none is in"),
        (format!("{command} --ack memory"), data.clone(), vec![], "acknowledges from memory"),
        (command, data, vec!["--path", "/nowhere"], "no event was acknowledged"),
    ];
    for (server, data, more, told) in cases {
        let mut all = options(&server, &listen, &data, home.path());
        all.extend(["--rounds", "1"].into_iter().chain(more).map(str::to_owned));
        let output = load(&all);
        let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(3), "{told}: {shown}{said}");
        assert!(said.contains(told) && shown.contains("NOT DONE"), "{told}: {shown}{said}");
    }
}
