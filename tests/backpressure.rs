//! What a full server does: it refuses, politely and cheaply, loses nothing that it took, and goes on when it can.

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use support::bodies::{self, bare, post};
use support::client::{Client, Response};
use support::mount::{Mount, skip};
use support::observe;
use support::server::{Server, Setup};
use support::wait;

/// A server that takes one request at a time.
fn narrow() -> Server {
    Setup::new().set("max_ccu", 1).start()
}

/// The head and the first byte of a body of two: a request in flight until the second byte comes.
fn begun() -> Vec<u8> {
    b"POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{".to_vec()
}

fn in_flight(server: &Server) -> Option<u64> {
    observe::shard_metric(server, "requests_in_flight", 0)
}

#[track_caller]
fn wait_for_in_flight(server: &Server, requests: u64) {
    wait::until("the number of requests in flight", || (in_flight(server) == Some(requests)).then_some(()));
}

/// A refusal as the contract has it.
#[track_caller]
fn assert_backpressure(response: Response) -> Response {
    let response = response.expect_error(503, "BACKPRESSURE");
    assert_eq!(response.json()["error"], "capacity_exceeded");
    let seconds: u32 = response.header("Retry-After").expect("when to come again").parse().expect("in seconds");
    assert!((1..=30).contains(&seconds), "{seconds}");
    response
}

/// Half a kilobyte each, and the longest body there may be when decompressed: more than the core has time for.
#[test]
fn what_a_few_bytes_decompress_to_is_paid_for() {
    const BOMBS: usize = 60;
    let server = Setup::new().set("target_utilization", "0.5").start();
    let body = bodies::zstd(&[b"{}".as_slice(), &vec![b'\n'; (16 << 20) - 2]].concat());
    let bomb = post("/v1/events", "application/x-ndjson", "Content-Encoding: zstd\r\n", &body);
    let mut client = server.connect();
    client.send(&bomb.repeat(BOMBS));
    let statuses: Vec<u16> = (0..BOMBS).map(|_| client.receive().status).collect();
    let served = statuses.iter().filter(|status| **status == 202).count();
    assert!(statuses.iter().all(|status| matches!(status, 202 | 503)), "{statuses:?}");
    assert!((1..=BOMBS / 2).contains(&served), "{served} of {BOMBS} served: {statuses:?}");
    assert!(observe::shard_metric(&server, "refused_utilization", 0) >= Some((BOMBS / 2) as u64));
}

#[test]
fn at_the_cap_others_are_refused_and_one_that_ends_makes_room() {
    // Half of four is two.
    let server = Setup::new().set("max_ccu", 4).set("target_utilization", "0.5").start();
    let mut clients = [server.connect(), server.connect()];
    for client in &mut clients {
        client.send(&begun());
    }
    wait_for_in_flight(&server, 2);
    let mut other = server.connect();
    let refused = assert_backpressure(other.ask(&post("/v1/events", "application/json", "", b"{}")));
    assert_eq!(refused.header("Connection"), None, "a short body is read and dropped");
    let summary = other.ask(&bare("GET", "/api/metrics", "")).expect(200).json();
    assert_eq!((&summary["current_ccu"], &summary["normal_ccu"]), (&2.into(), &2.into()));
    assert_eq!(summary["rejected_requests"], 1);
    clients[0].send(b"}");
    clients[0].receive().expect(202);
    other.ask(&post("/v1/events", "application/json", "", b"{}")).expect(202);
    assert_eq!(observe::shard_metric(&server, "refused_concurrency", 0), Some(1));
    clients[1].send(b"}");
    clients[1].receive().expect(202);
    wait_for_in_flight(&server, 0);
    wait::until("the refusal to be a second ago", || {
        let summary = other.ask(&bare("GET", "/api/metrics", "")).expect(200).json();
        (summary["backpressure_active"] == false).then_some(())
    });
}

#[test]
fn questions_are_answered_however_full_the_server_is() {
    let server = narrow();
    let mut first = server.connect();
    first.send(&begun());
    wait_for_in_flight(&server, 1);
    let mut client = server.connect();
    assert_backpressure(client.ask(&post("/api/echo", "application/json", "", b"{}")));
    for route in ["/health", "/ready", "/api/metrics"] {
        client.ask(&bare("GET", route, "")).expect(200);
        server.ask_admin(route).expect(200);
    }
    first.send(b"}");
    first.receive().expect(202);
}

#[test]
fn a_refusal_comes_before_the_body_and_a_long_body_ends_the_connection() {
    let server = narrow();
    let mut first = server.connect();
    first.send(&begun());
    wait_for_in_flight(&server, 1);
    let head = |length: usize, more: &str| {
        format!(
            "POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n"
        )
    };
    // Refused by the head alone; the body comes later and is dropped, not taken for a request.
    let mut client = server.connect();
    client.send(head(15, "").as_bytes());
    assert_backpressure(client.receive());
    client.send(b"GET / HTTP/1.1\r");
    client.ask(&bare("GET", "/health", "")).expect(200);

    let mut client = server.connect();
    client.send(head(8 << 20, "").as_bytes());
    assert_eq!(assert_backpressure(client.receive()).header("Connection"), Some("close"));
    client.expect_closed();

    // Nobody who waits for leave to send a body is given it.
    let mut client = server.connect();
    client.send(head(10, "Expect: 100-continue\r\n").as_bytes());
    assert_backpressure(client.receive());
    client.expect_closed();
}

#[test]
fn a_client_that_leaves_in_the_middle_makes_room() {
    let server = narrow();
    for _ in 0..3 {
        let mut client = server.connect();
        client.send(&begun());
        wait_for_in_flight(&server, 1);
        drop(client);
        wait_for_in_flight(&server, 0);
    }
    // So does one whose request comes to nothing.
    for wrong in [&b"{]"[..], b"nul"] {
        server.ask(&post("/v1/events", "application/json", "", wrong)).expect(400);
    }
    server.ask(&post("/v1/events", "application/json", "Content-Encoding: gzip\r\n", b"junk")).expect(400);
    server.ask(&post("/api/echo", "application/json", "", b"[1]")).expect(200);
    wait_for_in_flight(&server, 0);
}

#[test]
fn requests_of_one_connection_are_in_flight_until_each_is_answered() {
    let server = Setup::new().set("max_ccu", 64).start();
    let mut client = server.connect();
    let mix: Vec<u8> = ["durable", "memory", "written", "durable", "durable"]
        .iter()
        .flat_map(|ack| post("/v1/events", "application/json", &format!("X-Ack: {ack}\r\n"), b"{}"))
        .collect();
    for _ in 0..20 {
        client.send(&mix);
        (0..5).for_each(|_| drop(client.receive().expect(202)));
    }
    wait_for_in_flight(&server, 0);
}

#[test]
fn a_priority_is_one_of_three() {
    let server = Server::shared();
    for priority in ["low", "Normal", "HIGH"] {
        let header = format!("X-Priority: {priority}\r\n");
        server.ask(&post("/v1/events", "application/json", &header, b"{}")).expect(202);
    }
    for wrong in ["X-Priority: urgent\r\n", "X-Priority: low\r\nX-Priority: low\r\n"] {
        let refused = server.ask(&post("/v1/events", "application/json", wrong, b"{}"));
        refused.expect_error(400, "BAD_REQUEST");
    }
}

#[test]
fn who_comes_again_at_once_is_left_unread_for_a_while_and_then_answered() {
    // Nearly all of the core is for serving, so refusing has next to nothing.
    let server = Setup::new().set("max_ccu", 1).set("target_utilization", "0.99").start();
    let mut first = server.connect();
    first.send(&begun());
    wait_for_in_flight(&server, 1);
    let stop = Arc::new(AtomicBool::new(false));
    let stormers: Vec<JoinHandle<u64>> = (0..4)
        .map(|_| {
            let (mut client, stop) = (server.connect(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut refused = 0;
                while !stop.load(Ordering::Relaxed) {
                    assert_backpressure(client.ask(&post("/v1/events", "application/json", "", b"{}")));
                    refused += 1;
                }
                refused
            })
        })
        .collect();
    wait::until("connections to be left unread", || {
        (observe::shard_metric(&server, "connections_held", 0) > Some(20)).then_some(())
    });
    stop.store(true, Ordering::Relaxed);
    let refused: u64 = stormers.into_iter().map(|stormer| stormer.join().expect("answered each time")).sum();
    assert!(refused > 20);
    // Who is not refused is not held.
    first.send(b"}");
    first.receive().expect(202);
}

/// Clients that send single events as fast as they are answered, and remember what was acknowledged.
struct Flood {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    acked: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Flood {
    /// One client for each of `headers`.
    fn start(address: SocketAddr, headers: &[&'static str]) -> Self {
        let (stop, refused, acked) = (Arc::default(), Arc::default(), Arc::default());
        let clients = headers
            .iter()
            .copied()
            .enumerate()
            .map(|(at, headers)| {
                let (stop, refused, acked) = (Arc::clone(&stop), Arc::clone(&refused), Arc::clone(&acked));
                std::thread::spawn(move || flood(address, at, headers, &stop, &refused, &acked))
            })
            .collect();
        Self { stop, refused, acked, clients }
    }

    fn wait_for(&self, what: &str, counter: &AtomicU64, requests: u64) {
        let goal = counter.load(Ordering::Relaxed) + requests;
        wait::until(what, || (counter.load(Ordering::Relaxed) >= goal).then_some(()));
    }

    /// The events that were acknowledged, by client.
    fn end(self) -> Vec<Vec<String>> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().map(|client| client.join().expect("no client fails")).collect()
    }
}

fn flood(
    address: SocketAddr,
    number: usize,
    headers: &str,
    stop: &AtomicBool,
    refused: &AtomicU64,
    acked: &AtomicU64,
) -> Vec<String> {
    /// So many at once keep the server busy however slow the client is.
    const PIPELINED: usize = 32;
    let (mut client, mut events, mut next) = (Client::connect(address), Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let names: Vec<String> = (next..next + PIPELINED).map(|n| format!("{{\"c\":{number},\"n\":{n}}}")).collect();
        next += PIPELINED;
        let requests: Vec<u8> =
            names.iter().flat_map(|event| post("/v1/events", "application/json", headers, event.as_bytes())).collect();
        client.send(&requests);
        for event in names {
            let response = client.receive();
            if response.status == 202 {
                events.push(event);
                acked.fetch_add(1, Ordering::Relaxed);
            } else {
                assert_backpressure(response);
                refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    events
}

#[test]
fn above_the_target_requests_are_refused_and_none_that_was_taken_is_lost() {
    let server = Setup::new().set("target_utilization", "0.05").start();
    let flood = Flood::start(server.listen(), &["", "X-Ack: memory\r\n", "X-Ack: written\r\n"]);
    flood.wait_for("requests to be refused", &flood.refused, 2000);
    flood.wait_for("requests to be served beside", &flood.acked, 500);
    let mut client = server.connect();
    wait::until("the summary to say so", || {
        let summary = client.ask(&bare("GET", "/api/metrics", "")).expect(200).json();
        (summary["backpressure_active"] == true).then_some(())
    });
    assert!(observe::shard_metric(&server, "refused_utilization", 0) > Some(0));
    assert_eq!(observe::shard_metric(&server, "backpressure_level", 0), Some(2));
    let mut acked: HashMap<Vec<u8>, u32> =
        flood.end().into_iter().flatten().map(|event| (event.into_bytes(), 0)).collect();
    wait::until("the server to take a request again", || {
        (client.ask(&post("/v1/events", "application/json", "", b"{\"last\":1}")).status == 202).then_some(())
    });
    for line in observe::cat(&server.data()) {
        if let Some(times) = acked.get_mut(&line) {
            *times += 1;
        }
    }
    let wrong: Vec<_> = acked.iter().filter(|(_, times)| **times != 1).collect();
    assert!(wrong.is_empty(), "{} of {} acked events are not there once: {:?}", wrong.len(), acked.len(), wrong[0]);
}

#[test]
fn above_the_target_low_priority_is_shed_before_high() {
    let server = Setup::new().set("target_utilization", "0.05").start();
    let flood = Flood::start(server.listen(), &["X-Priority: low\r\n", "X-Priority: high\r\n"]);
    flood.wait_for("requests to be refused", &flood.refused, 4000);
    flood.wait_for("requests to be served beside", &flood.acked, 500);
    let acked: Vec<usize> = flood.end().iter().map(Vec::len).collect();
    assert!(acked[0] < acked[1], "low: {}, high: {}", acked[0], acked[1]);
}

#[test]
fn a_disk_that_stands_still_is_a_reason_to_refuse_until_it_moves_again() {
    const NAME: &str = "a_disk_that_stands_still_is_a_reason_to_refuse_until_it_moves_again";
    let mount = match Mount::ext4(256 << 20) {
        Ok(mount) => mount,
        Err(why) => return skip(NAME, &why),
    };
    let server = Setup::new().data(&mount.path().join("data")).set("lag_target", "20ms").start();
    let flood = Flood::start(server.listen(), &["X-Ack: memory\r\n"]);
    flood.wait_for("requests to be served", &flood.acked, 100);
    let frozen = match mount.freeze() {
        Ok(frozen) => frozen,
        Err(why) => return skip(NAME, &why),
    };
    flood.wait_for("requests to be refused", &flood.refused, 100);
    assert!(observe::shard_metric(&server, "refused_lag", 0) > Some(0));
    drop(frozen);
    flood.wait_for("requests to be served again", &flood.acked, 1000);
    flood.end();
}
