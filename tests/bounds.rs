//! Memory and connections are bounded by configuration, not by load, and nobody pays for somebody else's greed.

mod support;

use std::collections::HashSet;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};
use support::audit::{Audit, Lane, Outcome, Sent};
use support::bodies::{self, Encoding, Form, Framing, Shape, bare, post};
use support::client::{Client, is_closed};
use support::events::Kind;
use support::limits;
use support::load::{Load, Mix};
use support::mount::{Mount, skip};
use support::observe::{self, resident_bytes};
use support::server::{LOG_BUFFER_BYTES, POOL_BYTES, RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS, Server, Setup};
use support::wait;

const MIB: u64 = 1 << 20;
/// What one shard may use beside its configured pools (the issue's figure for an idle server).
const BEYOND_POOLS_BYTES: u64 = 30 * MIB;
/// What the harness's one-shard server may use, whatever is done to it.
const RESIDENT_BYTES_MAX: u64 =
    (LOG_BUFFER_BYTES + RECEIVE_BUFFERS * RECEIVE_BUFFER_BYTES + POOL_BYTES) as u64 + BEYOND_POOLS_BYTES;
/// Buffers of a hostile client's socket: small, so that a thousand of them do not fill the kernel's memory.
const HOSTILE_SOCKET_BYTES: usize = 8 << 10;

/// Waits until the shard has this many connections: closing one takes the server a turn.
#[track_caller]
fn wait_for_open_connections(server: &Server, connections: u64) {
    wait::until("the number of connections", || {
        (observe::shard_metric(server, "connections_open", 0) == Some(connections)).then_some(())
    });
}

#[track_caller]
fn assert_resident_is_bounded(server: &Server) {
    let resident = resident_bytes(server.pid());
    assert!(resident <= RESIDENT_BYTES_MAX, "{} MiB resident, {} allowed", resident / MIB, RESIDENT_BYTES_MAX / MIB);
}

fn post_one(ack: &str) -> Vec<u8> {
    post("/v1/events", "application/json", &format!("X-Ack: {ack}\r\n"), b"{\"a\":1}")
}

/// A connection that sends requests and never reads what it is answered.
struct Deaf {
    stream: TcpStream,
    /// Bytes of the present request that are sent.
    sent: usize,
}

/// What became of an attempt to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Push {
    Sent,
    Full,
    Closed,
}

impl Deaf {
    fn connect(address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        // Before connecting, since it sets the window that is announced.
        socket.set_recv_buffer_size(HOSTILE_SOCKET_BYTES).expect("a receive buffer");
        socket.set_send_buffer_size(HOSTILE_SOCKET_BYTES).expect("a send buffer");
        socket.connect(&address.into()).expect("the server accepts");
        socket.set_nonblocking(true).expect("the socket is open");
        Self { stream: socket.into(), sent: 0 }
    }

    /// Sends as much of `request`, over and over, as the kernel takes now; requests stay whole across calls.
    fn push(&mut self, request: &[u8]) -> Push {
        let mut outcome = Push::Full;
        loop {
            match self.stream.write(&request[self.sent..]) {
                Ok(bytes) => self.sent = (self.sent + bytes) % request.len(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return outcome,
                Err(error) if is_closed(&error) => return Push::Closed,
                Err(error) => panic!("sending: {error}"),
            }
            outcome = Push::Sent;
        }
    }
}

/// Batches that make up several rounds of the log buffer: every page of it and of the pools has been touched then.
const WARM_UP_BATCHES: u64 = 500;

fn send_batches(client: &mut Client, batches: u64) {
    for batch in 0..batches {
        let sent = Sent { first: batch * 200, count: 200, spread: false, outcome: Outcome::Acked };
        let events = Lane::events(1, 1, Kind::Attribution, sent);
        client.ask(&Form::PLAIN.request(&events, "X-Ack: memory\r\n")).expect(202);
    }
}

#[test]
fn a_thousand_connections_that_never_read_cost_bounded_memory() {
    limits::raise_open_files();
    let server = Setup::new().set("send_timeout", "60s").start();
    let mut honest = server.connect();
    honest.ask(&post_one("durable")).expect(202);
    let echo_body = format!("{{\"a\":\"{}\"}}", "x".repeat(4_000));
    let request = post("/api/echo", "application/json", "", echo_body.as_bytes());
    let mut deaf: Vec<Deaf> = (0..1_000).map(|_| Deaf::connect(server.listen())).collect();
    // Until the server has stopped reading from all of them: passes without progress, with an answer to somebody else in
    // between, which proves that the shard has turned.
    let mut quiet_passes = 0;
    let mut passes = 0;
    while quiet_passes < 3 {
        let mut progress = false;
        for client in &mut deaf {
            match client.push(&request) {
                Push::Sent => progress = true,
                Push::Full => {}
                // Where the share of the pool for those who do not read is used up, it is they who pay.
                Push::Closed => {}
            }
        }
        passes += 1;
        assert!(passes < 2_000, "the server reads on although nobody takes its answers");
        quiet_passes = if progress { 0 } else { quiet_passes + 1 };
        honest.ask(&post_one("durable")).expect(202);
    }
    assert_resident_is_bounded(&server);
    server.ask(&bare("GET", "/health", "")).expect(200);
    drop(deaf);
    wait_for_open_connections(&server, 1);
    honest.ask(&post_one("durable")).expect(202);
    assert_resident_is_bounded(&server);
}

/// Clients that send the most of a long event and then nothing hold blocks of a megabyte, others half of that, and so on
/// until there is no block but the smallest.
#[test]
fn those_who_begin_long_events_leave_room_for_short_ones() {
    const HOLDERS: usize = (POOL_BYTES >> 20) + 1;
    let server = Setup::new().start();
    let body = format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000));
    let whole = post("/v1/events", "application/json", "", body.as_bytes());
    let received = || observe::shard_metric(&server, "received_bytes", 0).expect("a metric");
    // Each a little less than its block, and more of each than there is room for; in the end heads alone, each of which
    // reserves the block for its answer.
    let head = whole.len() - body.len();
    let halves = (1..9).flat_map(|half| [900_000 >> half; 3]);
    let sizes = [900_000; HOLDERS].into_iter().chain(halves).chain([head; 64]);
    let holders: Vec<Client> = sizes
        .map(|bytes| {
            let before = received();
            let mut client = server.connect();
            client.send(&whole[..bytes]);
            wait::until("its bytes to be taken", || (received() >= before + bytes as u64).then_some(()));
            client
        })
        .collect();
    let large = post("/api/echo", "application/json", "", body.as_bytes());
    let counted = || observe::shard_metric(&server, "refused_pool", 0).expect("a metric");
    let before = counted();
    server.ask(&large).expect(503);
    assert_eq!(counted(), before + 1);
    assert!(observe::shard_metric(&server, "pressure_pool_ratio", 0) >= Some(1), "a pool that refuses is full");
    observe::expect_a_reason_for_each_refusal(&server);
    for _ in 0..10 {
        server.ask(&bare("GET", "/health", "")).expect(200);
        server.ask(&post_one("durable")).expect(202);
    }
    drop(holders);
    wait_for_open_connections(&server, 0);
    server.ask(&large).expect(200);
}

#[test]
fn what_is_kept_of_compressed_bodies_leaves_half_of_the_pool() {
    const KEPT_BYTES: usize = 64 << 10;
    let server = Setup::new().start();
    let body = bodies::padded(Encoding::Zstd, KEPT_BYTES);
    let request = post("/v1/events", "application/json", "Content-Encoding: zstd\r\n", &body);
    let received = || observe::shard_metric(&server, "received_bytes", 0).expect("a metric");
    let (most, last) = request.split_at(request.len() - 1);
    let holders: Vec<Client> = (0..POOL_BYTES / KEPT_BYTES)
        .map(|_| {
            let before = received();
            let mut client = server.connect();
            client.send(most);
            wait::until("its bytes to be taken", || (received() >= before + most.len() as u64).then_some(()));
            client
        })
        .collect();
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000));
    server.ask(&post("/v1/events", "application/json", "", long.as_bytes())).expect(202);
    let mut statuses = Vec::new();
    for mut client in holders {
        let _closed_early = client.try_send(last);
        statuses.push(client.receive().status);
    }
    let accepted = statuses.iter().filter(|status| **status == 202).count();
    assert!(statuses.iter().all(|status| matches!(status, 202 | 503)), "{statuses:?}");
    assert!(accepted >= POOL_BYTES / KEPT_BYTES / 2, "{statuses:?}");
}

#[test]
fn a_client_that_takes_nothing_is_closed() {
    let server = Setup::new().set("send_timeout", "300ms").start();
    let mut deaf = Deaf::connect(server.listen());
    let request = bare("GET", "/api/metrics", "");
    wait::until("the server to close a connection that takes nothing", || {
        (deaf.push(&request) == Push::Closed).then_some(())
    });
    assert!(observe::shard_metric(&server, "connections_timed_out", 0) >= Some(1));
}

#[test]
fn memory_after_many_events_is_what_it_was() {
    let server = Setup::new().start();
    let mut client = server.connect();
    send_batches(&mut client, WARM_UP_BATCHES);
    let before = resident_bytes(server.pid());
    send_batches(&mut client, 1_000);
    let after = resident_bytes(server.pid());
    assert!(after <= before + MIB, "{before} bytes resident after 100 000 events, {after} after 300 000");
    assert_resident_is_bounded(&server);
}

#[test]
fn memory_after_many_connections_is_what_it_was() {
    limits::raise_open_files();
    // The kernel hands out slots in a circle, so that each is used once before any is used again. A thousand of them are
    // used up by the first cycles; from then on nothing may grow.
    let server = Setup::new().set("connections_per_shard_max", 1_000).start();
    let cycle = || {
        let mut clients: Vec<Client> = (0..500).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send(&post_one("memory"));
        }
        for client in &mut clients {
            client.receive().expect(202);
        }
        drop(clients);
        wait_for_open_connections(&server, 0);
    };
    send_batches(&mut server.connect(), WARM_UP_BATCHES);
    for _ in 0..4 {
        cycle();
    }
    let before = resident_bytes(server.pid());
    for _ in 0..24 {
        cycle();
    }
    let after = resident_bytes(server.pid());
    // How many of a cycle's requests are in the server at once is up to the scheduler, so later cycles may touch a page
    // of the pool for the first time: blocks of 4 KiB for 500 answers at most. A leak of 200 bytes a connection shows.
    let first_touched = 500 * 4 * 1024;
    assert!(after <= before + first_touched, "{before} bytes resident after 2000 connections, {after} after 14000");
}

#[test]
fn a_body_longer_than_the_log_buffer_is_taken_as_a_stream() {
    let server = Setup::new().start();
    let mut client = server.connect();
    let mut lanes = Vec::new();
    for (lane, headers) in [(1, ""), (2, "Content-Encoding: gzip\r\n")] {
        let sent = Sent { first: 0, count: 3_900, spread: false, outcome: Outcome::Acked };
        let lines = Lane::events(9, lane, Kind::Large, sent).join(b"\n".as_slice());
        assert!(lines.len() > 15 << 20 && lines.len() < 16 << 20, "{}", lines.len());
        let body = if headers.is_empty() { lines } else { support::bodies::gzip(&lines) };
        let response = client.ask(&post("/v1/events", "application/x-ndjson", headers, &body)).expect(202);
        assert_eq!(response.json()["data"]["accepted"], 3_900);
        lanes.push(Lane { lane, kind: Kind::Large, requests: vec![sent] });
    }
    assert_resident_is_bounded(&server);
    Audit::of(9, &lanes, &observe::cat(&server.data())).assert_sound();
}

/// The writer stands still: a body that was kept until it was whole, and is longer than the log buffer once decompressed, stops
/// in its middle and goes on there.
#[test]
fn a_short_compressed_body_that_finds_no_room_goes_on_where_it_stopped() {
    const NAME: &str = "a_short_compressed_body_that_finds_no_room_goes_on_where_it_stopped";
    const EVENTS: usize = 780;
    const LATE: usize = 5;
    let mount = match Mount::ext4(512 << 20) {
        Ok(mount) => mount,
        Err(why) => return skip(NAME, &why),
    };
    let data = mount.path().join("data");
    let server = Setup::new().set("log_buffer_bytes", "8MiB").set("decoders_per_shard_max", 1).data(&data).start();
    let padding = "p".repeat(20_000);
    let events: Vec<_> = (0..3 * EVENTS).map(|n| format!(r#"{{"n":{n},"padding":"{padding}"}}"#)).collect();
    let mut clients: Vec<_> = events
        .chunks(EVENTS)
        .zip([Encoding::Gzip, Encoding::Zstd, Encoding::Zstd])
        .map(|(events, encoding)| {
            let form = Form { shape: Shape::Lines, encoding, framing: Framing::Length };
            let events: Vec<_> = events.iter().map(|event| event.clone().into_bytes()).collect();
            let mut request = form.request(&events, "");
            assert!(request.len() < 60_000, "a short one: {} bytes", request.len());
            let last = request.pop().expect("a request has bytes");
            let mut client = server.connect();
            client.send(&request);
            server.ask(&bare("GET", "/health", "")).expect(200);
            (client, last)
        })
        .collect();
    let frozen = match mount.freeze() {
        Ok(frozen) => frozen,
        Err(why) => return skip(NAME, &why),
    };
    for (stalls, (client, last)) in clients.iter_mut().enumerate() {
        client.send(&[*last]);
        wait::until("the log buffer to be full", || {
            (observe::shard_metric(&server, "no_room_stalls", 0) > Some(stalls as u64)).then_some(())
        });
    }
    // Who comes later waits as well, and takes no decompressor before: one in its middle may hold the last.
    let form = Form { shape: Shape::Single, encoding: Encoding::Zstd, framing: Framing::Length };
    let mut late: Vec<_> = (0..LATE)
        .map(|n| {
            let mut client = server.connect();
            client.send(&form.request(&[format!("{{\"late\":{n}}}").into_bytes()], ""));
            let stalls = Some((clients.len() + n) as u64);
            wait::until("it to wait", || (observe::shard_metric(&server, "no_room_stalls", 0) > stalls).then_some(()));
            client
        })
        .collect();
    drop(frozen);
    for (client, _) in &mut clients {
        assert_eq!(client.receive().expect(202).json()["data"]["accepted"], EVENTS);
    }
    for client in &mut late {
        client.receive().expect(202);
    }
    let stored = observe::cat(&server.data());
    assert_eq!(stored.len(), 3 * EVENTS + LATE);
    for sent in events.chunks(EVENTS) {
        let ours: HashSet<_> = sent.iter().map(String::as_bytes).collect();
        let stored = stored.iter().map(Vec::as_slice).filter(|event| ours.contains(event));
        assert!(stored.eq(sent.iter().map(String::as_bytes)), "each once and in order");
    }
}

/// The writer stands still: what clients send has to wait in their sockets, not in the server.
#[test]
fn a_full_log_buffer_slows_sockets_not_memory() {
    const NAME: &str = "a_full_log_buffer_slows_sockets_not_memory";
    let mount = match Mount::ext4(512 << 20) {
        Ok(mount) => mount,
        Err(why) => return skip(NAME, &why),
    };
    let seed = support::random::seed(NAME);
    let server = Setup::new().data(&mount.path().join("data")).start();
    let mut probe = server.connect();
    let load = Load::start(server.listen(), seed, 1, &["memory", "memory", "memory", "durable"], Mix::Plain);
    load.wait_for_acks(50);
    let frozen = match mount.freeze() {
        Ok(frozen) => frozen,
        Err(why) => return skip(NAME, &why),
    };
    wait::until("the log buffer to be full", || {
        (observe::shard_metric(&server, "no_room_stalls", 0) > Some(0)).then_some(())
    });
    assert_resident_is_bounded(&server);
    probe.ask(&bare("GET", "/health", "")).expect(200);
    drop(frozen);
    let acked = load.pulse.acked();
    load.wait_for_acks(acked + 20);
    load.pulse.stop();
    let lanes = load.join();
    // One durable ack after all others: everything before it on this shard is in the log.
    probe.ask(&post("/v1/events", "application/json", "", b"{\"last\":1}")).expect(202);
    let mut lines = observe::cat(&server.data());
    lines.retain(|line| line != b"{\"last\":1}");
    let audit = Audit::of(seed, &lanes, &lines);
    audit.assert_sound();
    assert_resident_is_bounded(&server);
}

/// More arrives at once than the kernel is lent buffers for: receives end, and are armed again when others have been parsed.
#[test]
fn connections_that_find_no_receive_buffer_are_read_later() {
    const CONNECTIONS: u32 = 64;
    const WARM_UP: u64 = 100;
    let server = Setup::new().start();
    let mut first = server.connect();
    // Full buffers: from here on the kernel is lent few of them.
    send_batches(&mut first, WARM_UP);
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| server.connect()).collect();
    wait_for_open_connections(&server, u64::from(CONNECTIONS) + 1);
    let sent = Sent { first: 0, count: 140, spread: false, outcome: Outcome::Acked };
    server.freeze();
    for (client, lane) in clients.iter_mut().zip(2..) {
        // Less than its socket's buffers hold: nobody reads.
        client.send(&Form::PLAIN.request(&Lane::events(1, lane, Kind::Attribution, sent), ""));
    }
    server.signal("CONT");
    for client in &mut clients {
        client.receive().expect(202);
    }
    assert!(
        observe::shard_metric(&server, "receive_buffers_empty", 0) > Some(0),
        "buffers sufficed: nothing was tried"
    );
    let warm_up = |batch| Sent { first: batch * 200, count: 200, ..sent };
    let mut lanes = vec![Lane { lane: 1, kind: Kind::Attribution, requests: (0..WARM_UP).map(warm_up).collect() }];
    lanes.extend((2..2 + CONNECTIONS).map(|lane| Lane { lane, kind: Kind::Attribution, requests: vec![sent] }));
    Audit::of(1, &lanes, &observe::cat(&server.data())).assert_sound();
}

#[test]
fn connections_beyond_the_limit_are_refused_and_room_is_reused() {
    const LIMIT: usize = 16;
    let server = Setup::new().set("connections_per_shard_max", LIMIT).start();
    wait_for_open_connections(&server, 0);
    let mut held: Vec<Client> = (0..LIMIT).map(|_| server.connect()).collect();
    for client in &mut held {
        client.ask(&bare("GET", "/health", "")).expect(200);
    }
    for _ in 0..40 {
        let mut refused = server.connect();
        let _closed_early = refused.try_send(&bare("GET", "/health", ""));
        match refused.try_receive() {
            Ok(response) => drop(response.expect_error(503, "BACKPRESSURE")),
            Err(error) => assert!(is_closed(&error), "{error}"),
        }
        refused.rest();
    }
    assert!(observe::shard_metric(&server, "connections_refused", 0) >= Some(40));
    for client in &mut held {
        client.ask(&post_one("durable")).expect(202);
    }
    for _ in 0..5 {
        drop(held.pop());
        let mut next = wait::until("room for one more connection", || {
            let mut client = Client::try_connect(server.listen()).ok()?;
            client.try_send(&bare("GET", "/health", "")).ok()?;
            client.try_receive().ok().filter(|response| response.status == 200).map(|_| client)
        });
        next.ask(&post_one("durable")).expect(202);
        held.push(next);
    }
}

#[test]
fn a_thousand_idle_connections_leave_others_served() {
    limits::raise_open_files();
    let server = Setup::new().start();
    let mut idle: Vec<Client> = (0..1_000).map(|_| server.connect()).collect();
    let mut honest = server.connect();
    for _ in 0..100 {
        honest.ask(&post_one("durable")).expect(202);
    }
    wait_for_open_connections(&server, 1_001);
    assert_resident_is_bounded(&server);
    for client in &mut idle {
        client.send(&bare("GET", "/health", ""));
    }
    for client in &mut idle {
        client.receive().expect(200);
    }
}
