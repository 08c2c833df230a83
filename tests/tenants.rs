//! Who may send, how much, and whose events are whose.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::bodies::{bare, post};
use support::client::{Client, Response};
use support::observe;
use support::server::{Server, Setup};
use support::wait;

/// A key file in a directory of its own, and keys made by `tidegate key new`.
struct KeyFile {
    home: tempfile::TempDir,
}

impl KeyFile {
    fn new() -> Self {
        Self { home: tempfile::tempdir().expect("a directory for the key file") }
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("keys.toml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).expect("the key file can be written");
    }
}

/// A key and its entry in the key file, as the command prints them.
fn make_key(name: &str) -> (String, String) {
    let output = tidegate(&["key", "new", name]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let (key, entry) = text.split_once("\n\n").expect("the key, an empty line, its entry");
    let key = key.lines().last().expect("the key").to_owned();
    (key, entry.to_owned())
}

fn tidegate(arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).stdin(Stdio::null()).output().expect("the binary runs")
}

fn setup(keys: &KeyFile) -> Setup {
    Setup::new().set("tenants", keys.path().display())
}

fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

fn event(headers: &str, body: &str) -> Vec<u8> {
    post("/v1/events", "application/json", headers, body.as_bytes())
}

/// The events of one tenant, as `tidegate cat --tenant` prints them.
fn cat_of(data: &Path, tenant: &str) -> String {
    let output = tidegate(&["cat", "--data", &data.display().to_string(), "--tenant", tenant]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn assert_unauthorized(response: Response) {
    let response = response.expect_error(401, "UNAUTHORIZED");
    assert_eq!(response.header("WWW-Authenticate"), Some("Bearer"));
}

/// Sends SIGHUP and waits until the server has said what came of it.
fn reload(server: &Server) -> String {
    let said = || server.log().lines().filter(|line| line.contains("SIGHUP: ")).map(str::to_owned).collect::<Vec<_>>();
    let before = said().len();
    server.signal("HUP");
    wait::until("the answer to SIGHUP", || said().get(before).cloned())
}

#[test]
fn a_key_names_its_tenant_and_without_one_nothing_is_taken() {
    let keys = KeyFile::new();
    let ((acme, acme_entry), (blue, blue_entry)) = (make_key("acme"), make_key("blue"));
    keys.write(&(acme_entry + &blue_entry));
    let server = setup(&keys).start();
    let mut client = server.connect();
    for headers in [
        String::new(),
        bearer("tg_wrong"),
        bearer(&acme[..acme.len() - 1]),
        format!("X-API-Key: {}\r\n", acme.to_lowercase()),
        "Authorization: Basic YTpi\r\n".to_owned(),
        bearer(&"x".repeat(5000)),
    ] {
        assert_unauthorized(client.ask(&event(&headers, "{}")));
        assert_unauthorized(client.ask(&post("/api/echo", "application/json", &headers, b"{}")));
    }
    for route in ["/health", "/ready", "/api/metrics"] {
        client.ask(&bare("GET", route, "")).expect(200);
    }
    // On one connection, in turn: a key that was right says nothing of the next one.
    for (headers, body) in [
        (bearer(&acme), r#"{"n":1,"tenant":"blue"}"#),
        (format!("X-API-Key: {blue}\r\n"), r#"{"n":2}"#),
        (format!("authorization: bearer {acme}\r\n"), r#"{"n":3}"#),
        (bearer(&acme), r#"[{"n":4},{"n":5}]"#),
    ] {
        client.ask(&event(&headers, body)).expect(202);
        assert_unauthorized(client.ask(&event("", "{}")));
    }
    client.ask(&event(&(bearer(&acme) + &bearer(&blue)), "{}")).expect_error(400, "BAD_REQUEST");
    let data = server.data();
    assert_eq!(cat_of(&data, "acme"), "{\"n\":1,\"tenant\":\"blue\"}\n{\"n\":3}\n{\"n\":4}\n{\"n\":5}\n");
    assert_eq!(cat_of(&data, "blue"), "{\"n\":2}\n");
    assert_eq!(cat_of(&data, "anonymous"), "");
    let text = server.ask_admin("/metrics").expect(200).text();
    for (name, tenant, count) in
        [("tenant_events", "acme", 4), ("tenant_requests", "acme", 3), ("tenant_events", "blue", 1)]
    {
        assert_eq!(observe::metric(&text, name, &format!("tenant=\"{tenant}\"")), Some(count), "{name} {tenant}");
    }
    assert_eq!(observe::metric(&text, "refused_unauthorized", "shard=\"0\""), Some(16));
    let missing = tidegate(&["cat", "--data", &data.display().to_string(), "--tenant", "green"]);
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(missing.status.code() == Some(2) && said.contains("there is no tenant green"), "{said}");
}

#[test]
fn a_tenant_over_his_limit_is_told_when_to_come_again_and_others_go_on() {
    let keys = KeyFile::new();
    let ((slow, slow_entry), (free, free_entry)) = (make_key("slow"), make_key("free"));
    // So slow that the test is over before anything is filled up again.
    keys.write(&format!(
        "{slow_entry}events_per_second = 1\nburst = 100000\nbytes_per_second = 1\nbytes_burst = 1000000\n{free_entry}"
    ));
    let server = setup(&keys).start();
    let mut client = server.connect();
    let batch = format!("[{}]", vec!["{}"; 60_000].join(","));
    let ask = |client: &mut Client, key: &str, body: &str| client.ask(&event(&bearer(key), body));
    ask(&mut client, &slow, "{}").expect(202);
    // 60 001 of 100 000; then 20 001 too many: a request is not cut in two, its debt is waited for.
    ask(&mut client, &slow, &batch).expect(202);
    ask(&mut client, &slow, &batch).expect(202);
    let over = ask(&mut client, &slow, "{}").expect_error(429, "RATE_LIMITED");
    let header = |name: &str| over.header(name).expect(name).parse::<u64>().expect(name);
    assert!((19_000..=20_002).contains(&header("Retry-After")), "{}", header("Retry-After"));
    assert_eq!((header("X-RateLimit-Limit"), header("X-RateLimit-Remaining")), (1, 0));
    assert!((119_000..=120_001).contains(&header("X-RateLimit-Reset")), "{}", header("X-RateLimit-Reset"));
    ask(&mut client, &free, &batch).expect(202);
    // What a limit refuses is no sign of a full server.
    let summary = client.ask(&bare("GET", "/api/metrics", "")).expect(200).json();
    assert_eq!((&summary["backpressure_active"], &summary["rejected_requests"]), (&false.into(), &1.into()));
    let text = server.ask_admin("/metrics").expect(200).text();
    assert_eq!(observe::metric(&text, "tenant_limited", "tenant=\"slow\""), Some(1));

    // Bytes count as well, also those of requests that are no use.
    let server = setup(&keys).start();
    let mut client = server.connect();
    for _ in 0..2 {
        ask(&mut client, &slow, &format!("[{}", "[".repeat(600_000))).expect(400);
    }
    let over = ask(&mut client, &slow, "{}").expect_error(429, "RATE_LIMITED");
    assert_eq!(over.header("X-RateLimit-Limit"), Some("1"));
}

#[test]
fn sighup_takes_keys_and_limits_over_and_a_bad_file_changes_nothing() {
    let keys = KeyFile::new();
    let ((old, old_entry), (new, new_entry)) = (make_key("acme"), make_key("acme"));
    keys.write(&old_entry);
    let server = setup(&keys).start();
    let mut client = server.connect();
    let mut ask = |key: &str| client.ask(&event(&bearer(key), "{}"));
    ask(&old).expect(202);
    assert_unauthorized(ask(&new));

    keys.write("[[tenant]]\nname = \"acme\"\nkey = \"secret\"\n");
    let said = reload(&server);
    assert!(said.contains("unknown field `key`") && said.contains("as they were"), "{said}");
    ask(&old).expect(202);

    keys.write(&new_entry);
    let said = reload(&server);
    assert!(said.contains("1 tenant"), "{said}");
    assert_unauthorized(ask(&old));
    ask(&new).expect(202);

    let (blue, blue_entry) = make_key("blue");
    keys.write(&format!("{blue_entry}{new_entry}events_per_second = 1\nburst = 1\n"));
    assert!(reload(&server).contains("2 tenants"));
    ask(&blue).expect(202);
    // What he used before he had a limit does not count.
    ask(&new).expect(202);
    ask(&new).expect_error(429, "RATE_LIMITED");
    // Nor is what he went over by waited for at the old rate.
    keys.write(&format!("{blue_entry}{new_entry}events_per_second = 1000000\nburst = 1000\n"));
    reload(&server);
    ask(&new).expect(202);
    assert_eq!(cat_of(&server.data(), "acme").lines().count(), 5, "one tenant, whatever his key");
}

#[test]
fn a_tenants_events_stay_his_across_restarts_and_orders() {
    let keys = KeyFile::new();
    let ((acme, acme_entry), (blue, blue_entry)) = (make_key("acme"), make_key("blue"));
    keys.write(&acme_entry);
    let mut server = setup(&keys).start();
    server.ask(&event(&bearer(&acme), "{\"n\":1}")).expect(202);
    server.kill9();
    keys.write(&(blue_entry.clone() + &acme_entry));
    server.start_again();
    server.ask(&event(&bearer(&blue), "{\"n\":2}")).expect(202);
    server.ask(&event(&bearer(&acme), "{\"n\":3}")).expect(202);
    server.kill9();
    keys.write(&blue_entry);
    server.start_again();
    assert_unauthorized(server.ask(&event(&bearer(&acme), "{}")));
    assert_eq!(cat_of(&server.data(), "acme"), "{\"n\":1}\n{\"n\":3}\n", "he has left; his events have not");
    assert_eq!(cat_of(&server.data(), "blue"), "{\"n\":2}\n");
}

#[test]
fn a_log_of_tenants_without_its_list_of_names_is_refused() {
    let home = tempfile::tempdir().expect("a directory for the log");
    let keys = KeyFile::new();
    let ((acme, acme_entry), (_, blue_entry)) = (make_key("acme"), make_key("blue"));
    // A log that had no tenants yet may have them from now on.
    let mut server = Setup::new().data(home.path()).start();
    server.ask(&event("", "{\"n\":0}")).expect(202);
    server.kill9();
    keys.write(&acme_entry);
    let mut server = setup(&keys).data(home.path()).start();
    server.ask(&event(&bearer(&acme), "{\"n\":1}")).expect(202);
    server.kill9();
    // With a new list the first in the key file would be given acme's number.
    keys.write(&(blue_entry + &acme_entry));
    let list = home.path().join("tenants");
    let kept = std::fs::read(&list).expect("the list is there");
    std::fs::remove_file(&list).expect("the list is there");
    let assert_refused = || {
        let (code, said) = setup(&keys).data(home.path()).start_refused();
        assert!(code == 4 && said.contains("tenants is missing or empty, but the log holds"), "{code}: {said}");
    };
    assert_refused();
    std::fs::write(&list, "").expect("the list can be written");
    assert_refused();
    std::fs::write(&list, kept).expect("the list can be written");
    setup(&keys).data(home.path()).start();
    assert_eq!(cat_of(home.path(), "acme"), "{\"n\":1}\n");
}

#[test]
fn a_key_file_that_is_none_stops_the_start() {
    let keys = KeyFile::new();
    keys.write("");
    let (code, said) = setup(&keys).start_refused();
    assert!(code == 2 && said.contains("names no [[tenant]]"), "{code}: {said}");
    keys.write("[[tenant]]\nname = \"acme\"\nkey_sha256 = []\n");
    let (code, said) = setup(&keys).start_refused();
    assert!(code == 2 && said.contains("tenant acme: he has no key"), "{code}: {said}");
    let (code, said) = Setup::new().set("tenants", "/nowhere/keys.toml").start_refused();
    assert!(code == 2 && said.contains("cannot be read"), "{code}: {said}");
}

#[test]
fn a_flood_of_one_tenant_leaves_the_others_their_share() {
    let keys = KeyFile::new();
    let ((greedy, greedy_entry), (modest, modest_entry)) = (make_key("greedy"), make_key("modest"));
    keys.write(&(greedy_entry + &modest_entry));
    let server = setup(&keys).set("target_utilization", "0.05").start();
    let stop = Arc::new(AtomicBool::new(false));
    let floods: Vec<_> = (0..2)
        .map(|_| {
            let (mut client, stop) = (server.connect(), Arc::clone(&stop));
            let requests = event(&bearer(&greedy), "{}").repeat(32);
            std::thread::spawn(move || {
                let mut refused = 0;
                while !stop.load(Ordering::Relaxed) {
                    client.send(&requests);
                    refused += (0..32).filter(|_| client.receive().status == 503).count();
                }
                refused
            })
        })
        .collect();
    wait::until("the flood to be refused", || {
        let text = server.ask_admin("/metrics").expect(200).text();
        (observe::metric(&text, "tenant_refused", "tenant=\"greedy\"") > Some(1000)).then_some(())
    });
    // Each time after the other was let in fifty times more: far less than half of what the server serves, however fast it is.
    let mut client = server.connect();
    let let_in = || {
        let text = server.ask_admin("/metrics").expect(200).text();
        observe::metric(&text, "tenant_requests", "tenant=\"greedy\"").expect("he was let in")
    };
    let mut served = 0;
    for _ in 0..20 {
        let goal = let_in() + 50;
        wait::until("the flood to be served on", || (let_in() >= goal).then_some(()));
        served += u32::from(client.ask(&event(&bearer(&modest), "{}")).status == 202);
    }
    stop.store(true, Ordering::Relaxed);
    let refused: usize = floods.into_iter().map(|flood| flood.join().expect("answered each time")).sum();
    assert!(refused > 1000);
    // Of the flood a few in a hundred are served: one of twenty. All of these would be, on a machine without others' work on it.
    assert!(served >= 8, "{served} of 20");
}
