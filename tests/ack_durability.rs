//! What a 2xx promises: the events are stored as they were sent, in order, once, and at the level that was asked for.

mod support;

use std::collections::HashMap;

use support::audit::{Audit, Lane, Outcome, Sent};
use support::bodies::{self, ENCODINGS, FRAMINGS, Form, SHAPES, Shape, bare, post};
use support::client::{Client, Response};
use support::events::{self, Kind};
use support::load::{Load, Mix};
use support::mount::{Mount, skip};
use support::observe;
use support::random;
use support::server::{Server, Setup};
use support::wait;

const JSON: &str = "application/json";

fn post_single(ack: &str, body: &[u8]) -> Vec<u8> {
    post("/v1/events", JSON, &format!("X-Ack: {ack}\r\n"), body)
}

/// Sends requests of every form over one connection and keeps book of them.
fn send_every_form(client: &mut Client, seed: u64, lane: u32, kind: Kind) -> Lane {
    let mut book = Lane { lane, kind, requests: Vec::new() };
    let mut next = 0;
    for shape in SHAPES {
        for encoding in ENCODINGS {
            for framing in FRAMINGS {
                for spread in [false, true] {
                    let form = Form { shape, encoding, framing };
                    let count = if shape == Shape::Single { 1 } else { 23 };
                    let spread = spread && form.may_spread();
                    let sent = Sent { first: next, count, spread, outcome: Outcome::Acked };
                    let response = client.ask(&form.request(&Lane::events(seed, lane, kind, sent), ""));
                    assert_eq!(response.expect(202).json()["data"]["accepted"], count, "{form:?}");
                    book.requests.push(sent);
                    next += count;
                }
            }
        }
    }
    book
}

#[test]
fn acked_is_stored_byte_for_byte_in_order_exactly_once() {
    let seed = random::seed("acked_is_stored_byte_for_byte_in_order_exactly_once");
    let mut server = Setup::new().set("shards", 2).start();
    let lanes: Vec<Lane> = [Kind::Attribution, Kind::Large, Kind::Attribution]
        .into_iter()
        .zip(1..)
        .map(|(kind, lane)| send_every_form(&mut server.connect(), seed, lane, kind))
        .collect();
    let audit = Audit::of(seed, &lanes, &observe::cat(&server.data()));
    audit.assert_sound();
    assert_eq!(audit.acked, audit.stored, "nothing is left out and nothing is made up: {audit}");
    assert_eq!(server.terminate().code(), Some(0));
    Audit::of(seed, &lanes, &observe::cat(&server.data())).assert_sound();
    observe::verify(&server.data());
    server.start_again();
    Audit::of(seed, &lanes, &observe::cat(&server.data())).assert_sound();
}

#[test]
fn line_ends_outside_strings_are_stored_as_spaces_and_all_else_as_sent() {
    let server = Setup::new().start();
    let event = b"{\r\n\t\"a\" : \"x\\r\\n\\u0000\\/\xc3\xbc\",\n\n\"a\":1.50e+00,\"n\":[ ]\r}";
    let expected = b"{  \t\"a\" : \"x\\r\\n\\u0000\\/\xc3\xbc\",  \"a\":1.50e+00,\"n\":[ ] }";
    let body = [b" \r\n[\n".as_slice(), event, b"\r\n,\n", event, b" ]\n"].concat();
    server.ask(&post("/v1/events", JSON, "", &body)).expect(202);
    server.ask(&post("/v1/events", JSON, "", &[b"\r\n \t".as_slice(), event, b"\r\n"].concat())).expect(202);
    assert_eq!(observe::cat(&server.data()), [expected, expected, expected]);
}

#[test]
fn what_is_acked_durable_can_be_read_at_once() {
    let server = Setup::new().start();
    for number in 0..20 {
        server.ask(&post_single("durable", format!("{{\"n\":{number}}}").as_bytes())).expect(202);
        let lines = observe::cat(&server.data());
        assert_eq!(lines.len(), number + 1);
        assert_eq!(lines[number], format!("{{\"n\":{number}}}").as_bytes());
    }
}

#[test]
fn two_connections_on_two_shards_use_both() {
    let server = Setup::new().set("shards", 2).start();
    for round in 0..5 {
        wait::until("the connections of the round before to be gone", || {
            let open = [0, 1].map(|shard| observe::shard_metric(&server, "connections_open", shard));
            (open == [Some(0), Some(0)]).then_some(())
        });
        let mut pair = [server.connect(), server.connect()];
        for client in &mut pair {
            client.ask(&post_single("durable", b"{}")).expect(202);
        }
        let open = [0, 1].map(|shard| observe::shard_metric(&server, "connections_open", shard));
        assert_eq!(open, [Some(1), Some(1)], "round {round}");
    }
    let events = [0, 1].map(|shard| observe::shard_metric(&server, "events", shard));
    assert_eq!(events, [Some(5), Some(5)]);
}

#[test]
fn a_drain_keeps_every_acked_event() {
    let seed = random::seed("a_drain_keeps_every_acked_event");
    let mut server = Setup::new().set("shards", 2).start();
    let load = Load::start(server.listen(), seed, 1, &["durable", "written", "memory", "durable"], Mix::Any);
    load.wait_for_acks(300);
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log());
    let mut lanes = load.join();
    // A drain is not a crash: what was acked at level memory is kept too.
    for sent in lanes.iter_mut().flat_map(|lane| &mut lane.requests) {
        if sent.outcome == Outcome::AckedInMemory {
            sent.outcome = Outcome::Acked;
        }
    }
    let audit = Audit::of(seed, &lanes, &observe::cat(&server.data()));
    audit.assert_sound();
    assert!(audit.acked >= 300, "{audit}");
    observe::verify(&server.data());
}

/// A request is in flight for certain once its head was answered with 100.
#[test]
fn a_drain_answers_every_request_in_flight() {
    let mut server = Setup::new().set("shards", 2).start();
    let mut clients: Vec<Client> = (0..8)
        .map(|number| {
            let mut client = server.connect();
            let head = format!(
                "POST /v1/events HTTP/1.1\r\nHost: t\r\nX-Request-ID: r{number}\r\nExpect: 100-continue\r\nContent-Length: 7\r\n\r\n"
            );
            assert_eq!(client.ask(head.as_bytes()).status, 100);
            client
        })
        .collect();
    server.ask_to_end();
    wait::until("the drain to begin", || {
        let refused = Client::try_connect(server.admin()).and_then(|mut client| {
            client.try_send(&bare("GET", "/ready", ""))?;
            client.try_receive()
        });
        refused.map_or(true, |response| response.status == 503).then_some(())
    });
    let mut stored = Vec::new();
    for (number, client) in clients.iter_mut().enumerate() {
        let event = format!("{{\"n\":{number}}}");
        client.send(event.as_bytes());
        let response = client.receive();
        assert_eq!(response.header("x-request-id"), Some(format!("r{number}").as_str()));
        match response.status {
            202 => stored.push(event.into_bytes()),
            _ => drop(response.expect_error(503, "DRAINING")),
        }
        client.expect_closed();
    }
    assert_eq!(server.wait_for_exit().code(), Some(0), "{}", server.log());
    let mut lines = observe::cat(&server.data());
    lines.sort();
    assert_eq!(lines, stored);
}

#[test]
fn a_draining_server_takes_no_new_connections_and_lets_idle_ones_go() {
    let mut server = Setup::new().start();
    let mut idle = server.connect();
    idle.ask(&bare("GET", "/health", "")).expect(200);
    server.ask_to_end();
    idle.expect_closed();
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert!(Client::try_connect(server.listen()).is_err());
}

/// The filesystem is frozen, so that nothing can become durable: what answers all the same did not wait for it.
#[test]
fn no_ack_before_durable() {
    let mount = match Mount::ext4(256 << 20) {
        Ok(mount) => mount,
        Err(why) => return skip("no_ack_before_durable", &why),
    };
    let server = Setup::new().data(&mount.path().join("data")).start();
    let mut clients: HashMap<&str, Client> =
        ["durable", "written", "memory", "probe"].map(|name| (name, server.connect())).into();
    // Every connection is served by the shard before the freeze, so the order below is the order it sees.
    for client in clients.values_mut() {
        client.ask(&bare("GET", "/health", "")).expect(200);
    }
    let frozen = match mount.freeze() {
        Ok(frozen) => frozen,
        Err(why) => return skip("no_ack_before_durable", &why),
    };
    for ack in ["durable", "written", "memory"] {
        let body = format!("{{\"ack\":\"{ack}\"}}");
        clients.get_mut(ack).unwrap().send(&post_single(ack, body.as_bytes()));
    }
    clients.get_mut("memory").unwrap().receive().expect(202);
    // Two more turns of the shard, in which it would answer the others if it could.
    for _ in 0..2 {
        clients.get_mut("probe").unwrap().ask(&bare("GET", "/health", "")).expect(200);
    }
    for ack in ["durable", "written"] {
        assert!(!clients.get_mut(ack).unwrap().has_answer(), "{ack} was answered while nothing could be written");
    }
    drop(frozen);
    for ack in ["durable", "written"] {
        assert_eq!(clients.get_mut(ack).unwrap().receive().expect(202).json()["data"]["ack"], ack);
    }
    assert_eq!(observe::cat(&server.data()).len(), 3);
}

/// Writes fail from one moment on, as on a dying disk.
#[test]
fn a_failed_write_is_never_acked_and_ends_the_server() {
    let seed = random::seed("a_failed_write_is_never_acked_and_ends_the_server");
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let mut server = Setup::new().data(&data).ignore_file_size_signal().start();
    let load = Load::start(server.listen(), seed, 1, &["durable", "written", "durable"], Mix::Any);
    load.wait_for_acks(100);
    server.forbid_file_writes();
    let mut saw_unready = false;
    wait::until("the server to say that it is not ready, and end", || {
        let ready = Client::try_connect(server.admin()).and_then(|mut client| {
            client.try_send(&bare("GET", "/ready", ""))?;
            client.try_receive()
        });
        saw_unready |= ready.as_ref().is_ok_and(|response| response.status == 503);
        ready.is_err().then_some(())
    });
    assert!(saw_unready, "/ready stays 200 with a failed writer\n{}", server.log());
    assert_eq!(server.wait_for_exit().code(), Some(5), "{}", server.log());
    load.pulse.stop();
    let lanes = load.join();
    let mut healthy = Setup::new().data(&data).start();
    let audit = Audit::of(seed, &lanes, &observe::cat(&data));
    audit.assert_sound();
    assert!(audit.acked > 0, "{audit}");
    assert_eq!(healthy.terminate().code(), Some(0));
    observe::verify(&data);
}

#[test]
fn a_failed_writer_is_told_to_clients() {
    let mut server = Setup::new().ignore_file_size_signal().start();
    server.ask(&post_single("durable", b"{\"n\":1}")).expect(202);
    let mut client = server.connect();
    client.ask(&bare("GET", "/health", "")).expect(200);
    server.forbid_file_writes();
    client.ask(&post_single("durable", b"{\"n\":2}")).expect_error(503, "UNAVAILABLE");
    // Level memory promises the least, yet no 2xx is given for what has no chance.
    if client.try_send(&post_single("memory", b"{\"n\":3}")).is_ok()
        && let Ok(response) = client.try_receive()
    {
        response.expect_error(503, "UNAVAILABLE");
    }
    assert_eq!(server.wait_for_exit().code(), Some(5), "{}", server.log());
}

/// A drain that has to cut a client off does not end as if it had served everybody.
#[test]
fn a_drain_that_was_cut_off_is_no_success() {
    let mut server = Setup::new().set("drain_timeout", "300ms").start();
    let mut client = server.connect();
    client.ask(&bare("GET", "/health", "")).expect(200);
    client.send(b"POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n{\"half\":");
    assert_eq!(server.terminate().code(), Some(5), "{}", server.log());
}

/// Large batches, one connection each, and the book of them.
struct Filling(Lane);

impl Filling {
    fn new() -> Self {
        Self(Lane { lane: 1, kind: Kind::Large, requests: Vec::new() })
    }

    fn send(&mut self, server: &Server) -> Response {
        let first = self.0.requests.last().map_or(0, |sent: &Sent| sent.first + sent.count);
        let mut sent = Sent { first, count: 50, spread: false, outcome: Outcome::Acked };
        // On a connection of its own: a server may close one whose request it does not read to the end.
        let response = server.ask(&Form::PLAIN.request(&Lane::events(1, 1, Kind::Large, sent), ""));
        if response.status != 202 {
            sent.outcome = Outcome::Refused;
        }
        self.0.requests.push(sent);
        response
    }

    /// Sends until the disk is full, and checks what the server then says.
    #[track_caller]
    fn fill(&mut self, server: &Server) {
        let refused = (0..2_000).map(|_| self.send(server)).find(|response| response.status != 202);
        refused.expect("400 MB do not fit").expect_error(507, "INSUFFICIENT_STORAGE");
        let ready = server.ask(&bare("GET", "/ready", "")).expect(503).json();
        assert_eq!(ready["ready"], false, "{ready}");
        server.ask(&bare("GET", "/health", "")).expect(200);
        assert_eq!(observe::shard_metric(server, "refused_disk", 0), Some(1));
        observe::expect_a_reason_for_each_refusal(server);
    }

    /// Waits until events are taken again, and checks that all that was acknowledged is there.
    #[track_caller]
    fn expect_room_again(mut self, server: &Server) {
        wait::until("the server to use the space that came back", || {
            let is_ready = server.ask(&bare("GET", "/ready", "")).status == 200;
            (is_ready && self.send(server).status == 202).then_some(())
        });
        Audit::of(1, &[self.0], &observe::cat(&server.data())).assert_sound();
        observe::verify(&server.data());
    }
}

/// A disk that fills: 507 from the reserve on, nothing acked is lost, and space that comes back is used.
#[test]
fn the_disk_reserve_gives_507_and_loses_nothing() {
    let mount = match Mount::tmpfs(96 << 20, 1_000) {
        Ok(mount) => mount,
        Err(why) => return skip("the_disk_reserve_gives_507_and_loses_nothing", &why),
    };
    let ballast = mount.path().join("ballast");
    std::fs::write(&ballast, vec![1; 24 << 20]).unwrap();
    let server = Setup::new().data(&mount.path().join("data")).set("reserve_bytes", "4MiB").start();
    let mut filling = Filling::new();
    filling.fill(&server);
    std::fs::remove_file(&ballast).unwrap();
    filling.expect_room_again(&server);
}

/// A disk that has bytes, but no inode for another segment, is as full as one without bytes.
#[test]
fn a_disk_without_inodes_gives_507_and_loses_nothing() {
    let mount = match Mount::tmpfs(1 << 30, 64) {
        Ok(mount) => mount,
        Err(why) => return skip("a_disk_without_inodes_gives_507_and_loses_nothing", &why),
    };
    let server = Setup::new().data(&mount.path().join("data")).set("reserve_bytes", "4MiB").start();
    let ballast: Vec<_> = (0..64)
        .map(|number| mount.path().join(number.to_string()))
        .take_while(|path| std::fs::File::create(path).is_ok())
        .collect();
    assert!(!ballast.is_empty() && ballast.len() < 64, "{} files", ballast.len());
    let mut filling = Filling::new();
    filling.fill(&server);
    let metric = |name| observe::metric(&server.ask_admin("/metrics").expect(200).text(), name, "").unwrap();
    assert!(metric("writer_disk_free_bytes") > 512 << 20);
    let began = metric("up_seconds");
    wait::until("the writer to look at the disk a few times more", || {
        filling.send(&server).expect_error(507, "INSUFFICIENT_STORAGE");
        (metric("up_seconds") > began + 3).then_some(())
    });
    for path in ballast {
        std::fs::remove_file(path).unwrap();
    }
    filling.expect_room_again(&server);
}

/// Retention deletes whole segments, the oldest first: what is left is the newest part without a hole.
#[test]
fn retention_bounds_the_disk_and_keeps_the_newest() {
    const KEEP: u64 = 32 << 20;
    let server = Setup::new().set("retention_bytes", KEEP).start();
    let mut client = server.connect();
    let mut book = Lane { lane: 1, kind: Kind::Large, requests: Vec::new() };
    for request in 0..400 {
        let sent = Sent { first: request * 60, count: 60, spread: false, outcome: Outcome::Acked };
        client.ask(&Form::PLAIN.request(&Lane::events(2, 1, Kind::Large, sent), "")).expect(202);
        book.requests.push(sent);
    }
    let lines = observe::cat(&server.data());
    let kept = lines.len() as u64;
    assert!(kept < 400 * 60, "100 MB were sent, {KEEP} bytes are to be kept");
    assert!(kept * 4_200 > KEEP / 2, "{kept} events are less than retention allows");
    let first = 400 * 60 - kept;
    let expected = (first..400 * 60).map(|number| events::event(2, Kind::Large, events::EventName { lane: 1, number }));
    assert!(expected.eq(lines), "what is kept is the newest part, in order");
    // Retired segments go at the next look of the writer: at most the log, the prepared segments and the one being filled.
    let bound = KEEP + 4 * (8 << 20);
    wait::until("the disk use to come down to its bound", || {
        (observe::disk_bytes(&server.data()) <= bound).then_some(())
    });
}

#[test]
fn a_second_server_on_the_same_log_is_refused() {
    let server = Setup::new().start();
    server.ask(&post_single("durable", b"{\"n\":1}")).expect(202);
    let (code, log) = Setup::new().data(&server.data()).start_refused();
    assert_ne!(code, 0, "{log}");
    assert!(log.to_lowercase().contains("lock") || log.contains("in use"), "{log}");
    server.ask(&post_single("durable", b"{\"n\":2}")).expect(202);
    assert_eq!(observe::cat(&server.data()).len(), 2);
}

#[test]
fn follow_shows_what_is_acked_and_nothing_twice() {
    use std::io::BufRead;
    let server: Server = Setup::new().start();
    server.ask(&post_single("durable", b"{\"n\":0}")).expect(202);
    let mut follower = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["cat", "--follow", "--data"])
        .arg(server.data())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(follower.stdout.take().unwrap()).lines();
    for number in 0..200 {
        assert_eq!(lines.next().unwrap().unwrap(), format!("{{\"n\":{number}}}"));
        server.ask(&post_single("durable", format!("{{\"n\":{}}}", number + 1).as_bytes())).expect(202);
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn gzip_and_plain_bodies_store_the_same() {
    let server = Setup::new().start();
    let lines = b"{\"a\":1}\n{\"b\":2}\n";
    let gzip = post("/v1/events", "application/x-ndjson", "Content-Encoding: gzip\r\n", &bodies::gzip(lines));
    server.ask(&gzip).expect(202);
    server.ask(&post("/v1/events", "application/x-ndjson", "", lines)).expect(202);
    let stored = observe::cat(&server.data());
    assert_eq!(stored[..2], stored[2..]);
    assert_eq!(stored.len(), 4);
}
