//! Every limit a client can reach, at its edge: the last that passes, the first that does not, and what it is told.

mod support;

use support::bodies::{self, Encoding, Form, Framing, Shape, bare, framed, post};
use support::observe;
use support::server::{Server, Setup};
use support::wait::until;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const EVENT_BYTES_MAX: usize = 1 << 20;

/// An event of exactly `bytes` bytes.
fn event_of(bytes: usize) -> Vec<u8> {
    let empty = br#"{"a":""}"#;
    [b"{\"a\":\"".as_slice(), &vec![b'x'; bytes - empty.len()], b"\"}"].concat()
}

fn nested(depth: usize) -> Vec<u8> {
    [r#"{"a":"#.repeat(depth - 1), "{}".into(), "}".repeat(depth - 1)].concat().into_bytes()
}

#[test]
fn an_event_of_a_mebibyte_is_the_longest() {
    let server = Setup::new().start();
    let longest = event_of(EVENT_BYTES_MAX);
    for framing in [Framing::Length, Framing::Chunked(60_000)] {
        let form = Form { shape: Shape::Single, encoding: Encoding::Identity, framing };
        server.ask(&form.request(std::slice::from_ref(&longest), "")).expect(202);
        server.ask(&form.request(&[event_of(EVENT_BYTES_MAX + 1)], "")).expect_error(413, "PAYLOAD_TOO_LARGE");
    }
    let lines = [b"{\"n\":1}".to_vec(), event_of(EVENT_BYTES_MAX + 1), longest.clone(), b"{\"n\":2}".to_vec()];
    for shape in [Shape::Lines, Shape::Array, Shape::Batch] {
        for encoding in bodies::ENCODINGS {
            let form = Form { shape, encoding, framing: Framing::Length };
            let json = server.ask(&form.request(&lines, "")).expect(202).json();
            assert_eq!((&json["data"]["accepted"], &json["data"]["rejected"]), (&3.into(), &1.into()), "{shape:?}");
            assert_eq!(json["data"]["errors"][0]["index"], 1);
            assert_eq!(json["data"]["errors"][0]["code"], "PAYLOAD_TOO_LARGE");
        }
    }
    let stored = observe::cat(&server.data());
    assert_eq!(stored.len(), 2 + 9 * 3);
    assert!(stored.iter().filter(|line| line.len() > 10).all(|line| *line == longest));
}

#[test]
fn the_body_limit_holds_at_its_edge() {
    const LIMIT: usize = 64 << 10;
    let server = Setup::new().set("body_bytes_max", "64KiB").start();
    let line = |bytes: usize| [event_of(bytes - 1).as_slice(), b"\n"].concat();
    let head = "POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Type: application/x-ndjson\r\n";
    for framing in [Framing::Length, Framing::Chunked(10_000)] {
        server.ask(&framed(head, framing, &line(LIMIT))).expect(202);
        let mut client = server.connect();
        let _closed_early = client.try_send(&framed(head, framing, &line(LIMIT + 1)));
        client.receive().expect_error(413, "PAYLOAD_TOO_LARGE");
    }
    // The limit is on what comes out of the decompressor, whatever went in.
    for encoding in [Encoding::Gzip, Encoding::Zstd] {
        let form = Form { shape: Shape::Single, encoding, framing: Framing::Length };
        server.ask(&form.request(&[event_of(LIMIT)], "")).expect(202);
        server.ask(&form.request(&[event_of(LIMIT + 1)], "")).expect_error(413, "PAYLOAD_TOO_LARGE");
    }
}

#[test]
fn a_body_that_says_it_is_too_long_is_refused_before_it_is_sent() {
    let server = Server::shared();
    for length in ["16777217", "18446744073709551615"] {
        let mut client = server.connect();
        client.send(format!("POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n").as_bytes());
        client.receive().expect_error(413, "PAYLOAD_TOO_LARGE");
        client.expect_closed();
    }
}

#[test]
fn decompression_bombs_are_refused() {
    let server = Setup::new().set("body_bytes_max", "1MiB").start();
    // 16 MiB of white space and of lines: a thousandth of that on the wire.
    let spaces = vec![b' '; 16 << 20];
    let lines = b"{}\n".repeat((16 << 20) / 3);
    for bomb in [&spaces, &lines] {
        for (encoding, body) in [("gzip", bodies::gzip(bomb)), ("zstd", bodies::zstd(bomb))] {
            let mut client = server.connect();
            let request = post("/v1/events", NDJSON, &format!("Content-Encoding: {encoding}\r\n"), &body);
            let _closed_early = client.try_send(&request);
            client.receive().expect_error(413, "PAYLOAD_TOO_LARGE");
        }
    }
    server.ask(&post("/v1/events", JSON, "", b"{}")).expect(202);
}

/// Compressed bytes that are kept until a body is whole.
const COMPRESSED_KEPT_BYTES_MAX: usize = 64 << 10;
/// How many longer bodies a shard decompresses at a time when `decoders_per_shard_max` is 1.
const DECODERS: [(Encoding, &str, usize); 2] =
    [(Encoding::Gzip, "Content-Encoding: gzip\r\n", 16), (Encoding::Zstd, "Content-Encoding: zstd\r\n", 1)];

/// A request of one chunk, up to the end of its body: that this is the end is not said yet.
fn unended(header: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Type: {JSON}\r\n{header}");
    let mut request = framed(&head, Framing::Chunked(usize::MAX), body);
    request.truncate(request.len() - END_OF_CHUNKS.len());
    request
}

const END_OF_CHUNKS: &[u8] = b"0\r\n\r\n";

#[test]
fn slow_clients_with_short_bodies_hold_no_decompressor() {
    let server = Setup::new().set("decoders_per_shard_max", 1).start();
    for (encoding, header, count) in DECODERS {
        let longest = bodies::padded(encoding, COMPRESSED_KEPT_BYTES_MAX);
        let clients: Vec<_> = (0..2 * count + 1)
            .map(|_| {
                let mut client = server.connect();
                client.send(&unended(header, &longest));
                client
            })
            .collect();
        let long = bodies::padded(encoding, COMPRESSED_KEPT_BYTES_MAX + 1);
        for body in [&long, &longest, &bodies::encode(encoding, b"{}")] {
            server.ask(&post("/v1/events", JSON, header, body)).expect(202);
        }
        for mut client in clients {
            client.send(END_OF_CHUNKS);
            client.receive().expect(202);
        }
    }
}

/// Half a kilobyte each, and the longest body there may be when decompressed.
#[test]
fn pipelined_bombs_leave_others_their_turn() {
    const BOMBS: u64 = 60;
    let server = Setup::new().start();
    let body = bodies::zstd(&[b"{}".as_slice(), &vec![b'\n'; (16 << 20) - 2]].concat());
    let bomb = post("/v1/events", NDJSON, "Content-Encoding: zstd\r\n", &body);
    assert!(bomb.len() < 2000, "{} bytes", bomb.len());
    let count = |name| observe::shard_metric(&server, name, 0).expect("a metric");
    let (mut hostile, mut other) = (server.connect(), server.connect());
    hostile.send(&bomb.repeat(BOMBS as usize));
    until("the first to be begun", || (count("requests") > 0).then_some(()));
    other.ask(&bare("GET", "/health", "")).expect(200);
    assert!(count("requests") < BOMBS, "served before all of those that came first");
    for _ in 0..BOMBS {
        hostile.receive().expect(202);
    }
    assert!(count("turn_stalls") > 0);
}

/// More of them than there are buffers to receive into: those who wait hold none.
#[test]
fn bombs_that_wait_leave_others_something_to_receive_into() {
    const BOMBS: u64 = 80;
    let server = Setup::new().set("receive_buffers", 32).start();
    let body = bodies::zstd(&[b"{}".as_slice(), &vec![b'\n'; (16 << 20) - 2]].concat());
    let bomb = post("/v1/events", NDJSON, "Content-Encoding: zstd\r\n", &body);
    let count = |name| observe::shard_metric(&server, name, 0).expect("a metric");
    let mut hostile: Vec<_> = (0..BOMBS).map(|_| server.connect()).collect();
    let mut other = server.connect();
    other.ask(&bare("GET", "/health", "")).expect(200);
    for client in &mut hostile {
        client.send(&bomb);
    }
    other.ask(&bare("GET", "/health", "")).expect(200);
    let served = count("events");
    assert!(served < BOMBS / 4, "served behind {served} of {BOMBS} that came first");
    for client in &mut hostile {
        client.receive().expect(202);
    }
}

#[test]
fn decompressors_of_long_bodies_are_bounded_and_short_ones_need_none_of_them() {
    let server = Setup::new().set("decoders_per_shard_max", 1).start();
    let mut refused = 0;
    for (encoding, header, count) in DECODERS {
        let long = bodies::padded(encoding, COMPRESSED_KEPT_BYTES_MAX + 1);
        let request = post("/v1/events", JSON, header, &long);
        let mut holders: Vec<_> = (0..count).map(|_| server.connect()).collect();
        for holder in &mut holders {
            // A head holds none.
            holder.send(&request[..request.len() - long.len()]);
            server.ask(&request).expect(202);
        }
        for holder in &mut holders {
            holder.send(&long[..long.len() - 1]);
            server.ask(&request).expect(202);
        }
        drop(holders);
        let mut holders: Vec<_> = (0..count)
            .map(|_| {
                let mut holder = server.connect();
                holder.send(&unended(header, &long));
                holder
            })
            .collect();
        until("all of them are in use", || match server.ask(&request) {
            answer if answer.status == 202 => None,
            answer => Some(answer.expect_error(503, "BACKPRESSURE")),
        });
        let mut late = server.connect();
        late.send(&unended(header, &long));
        late.receive().expect_error(503, "BACKPRESSURE");
        refused += 2;
        assert_eq!(observe::shard_metric(&server, "refused_decoders", 0), Some(refused));
        observe::expect_a_reason_for_each_refusal(&server);
        for body in [bodies::padded(encoding, COMPRESSED_KEPT_BYTES_MAX), bodies::encode(encoding, b"{}")] {
            server.ask(&post("/v1/events", JSON, header, &body)).expect(202);
            let mut client = server.connect();
            client.send(&unended(header, &body));
            client.send(END_OF_CHUNKS);
            client.receive().expect(202);
        }
        server.ask(&post("/v1/events", JSON, "", b"{}")).expect(202);
        for holder in &mut holders {
            holder.send(END_OF_CHUNKS);
            holder.receive().expect(202);
        }
        server.ask(&request).expect(202);
    }
}

#[test]
fn nesting_is_bounded() {
    let server = Setup::new().set("json_depth_max", 32).start();
    server.ask(&post("/v1/events", JSON, "", &nested(32))).expect(202);
    server.ask(&post("/v1/events", JSON, "", &nested(33))).expect_error(400, "INVALID_JSON");
    // Far deeper than any stack.
    server.ask(&post("/v1/events", JSON, "", &nested(100_000))).expect_error(400, "INVALID_JSON");
    server.ask(&post("/v1/events", JSON, "", &vec![b'['; 100_000])).expect_error(400, "INVALID_JSON");
}

#[test]
fn events_of_a_request_are_counted() {
    let server = Setup::new().set("events_per_request_max", 100).start();
    for shape in [Shape::Lines, Shape::Array, Shape::Batch] {
        let form = Form { shape, encoding: Encoding::Identity, framing: Framing::Length };
        server.ask(&form.request(&vec![b"{}".to_vec(); 100], "")).expect(202);
        server.ask(&form.request(&vec![b"{}".to_vec(); 101], "")).expect_error(400, "BATCH_TOO_LARGE");
    }
}

#[test]
fn the_head_limit_holds_at_its_edge() {
    const LIMIT: usize = 4 << 10;
    let server = Setup::new().set("head_bytes_max", "4KiB").start();
    let head_of = |bytes: usize| {
        let rest = bare("GET", "/health", "X: \r\n").len();
        bare("GET", "/health", &format!("X: {}\r\n", "y".repeat(bytes - rest)))
    };
    assert_eq!(head_of(LIMIT).len(), LIMIT);
    server.ask(&head_of(LIMIT)).expect(200);
    let mut client = server.connect();
    client.ask(&head_of(LIMIT + 1)).expect_error(431, "HEADERS_TOO_LARGE");
    client.expect_closed();
    // Without an end it is refused as soon as it is too long.
    let mut client = server.connect();
    let _closed_early = client.try_send(&[b"GET /".as_slice(), &vec![b'a'; 2 * LIMIT]].concat());
    client.receive().expect_error(431, "HEADERS_TOO_LARGE");
    client.expect_closed();
}

#[test]
fn the_number_of_headers_is_bounded() {
    let server = Server::shared();
    let with = |headers: usize| bare("GET", "/health", &"A: b\r\n".repeat(headers - 1));
    server.ask(&with(64)).expect(200);
    let mut client = server.connect();
    client.ask(&with(65)).expect_error(431, "HEADERS_TOO_LARGE");
    client.expect_closed();
}

#[test]
fn chunk_extensions_and_trailers_are_bounded() {
    let server = Server::shared();
    let head = "POST /v1/events HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = "x".repeat(1 << 20);
    for body in [format!("2;{long}\r\n{{}}\r\n0\r\n\r\n"), format!("2\r\n{{}}\r\n0\r\nT: {long}\r\n\r\n")] {
        let mut client = server.connect();
        let _closed_early = client.try_send(format!("{head}{body}").as_bytes());
        let response = client.receive();
        assert!(matches!(response.status, 400 | 413 | 431), "{}: {}", response.status, response.text());
        client.rest();
    }
}

#[test]
fn a_slow_head_gets_408_and_is_closed() {
    let server = Setup::new().set("head_timeout", "300ms").start();
    for part in [&b"G"[..], b"POST /v1/events HTTP/1.1\r\nHost: t\r\n", b"GET /health HTTP/1.1\r\nHost: t\r\n\r"] {
        let mut client = server.connect();
        client.send(part);
        client.receive().expect_error(408, "REQUEST_TIMEOUT");
        client.expect_closed();
    }
    assert!(observe::shard_metric(&server, "connections_timed_out", 0) >= Some(3));
}

#[test]
fn dribbling_a_head_does_not_win_time() {
    let server = Setup::new().set("head_timeout", "300ms").start();
    let mut client = server.connect();
    // As long as the server listens another byte is sent; the limit runs from the first, so it ends this.
    support::wait::until("the server to lose patience", || {
        let sent = client.try_send(b"G");
        (client.has_answer() || sent.is_err()).then_some(())
    });
    client.receive().expect_error(408, "REQUEST_TIMEOUT");
    client.rest();
}

#[test]
fn a_slow_body_gets_408_and_is_closed() {
    let server = Setup::new().set("body_timeout", "300ms").start();
    for part in [
        &b"POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n"[..],
        b"POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n{\"a\"",
        b"POST /v1/events HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"a",
    ] {
        let mut client = server.connect();
        client.send(part);
        client.receive().expect_error(408, "REQUEST_TIMEOUT");
        client.expect_closed();
    }
    server.ask(&post("/v1/events", JSON, "", b"{}")).expect(202);
}

#[test]
fn an_idle_connection_is_closed_without_an_answer() {
    let server = Setup::new().set("idle_timeout", "300ms").start();
    let mut fresh = server.connect();
    let mut used = server.connect();
    used.ask(&bare("GET", "/health", "")).expect(200);
    fresh.expect_closed();
    used.expect_closed();
}

/// A server that closes a connection that says nothing after `time`: that is how these tests see time pass.
fn hourglass(time: &str) -> Server {
    Setup::new().set("idle_timeout", time).start()
}

/// A limit below what is read and dropped for the sake of a connection.
#[test]
fn a_small_body_limit_refuses_what_is_longer_on_every_route() {
    let server = Setup::new().set("body_bytes_max", 64).start();
    server.ask(&post("/v1/events", JSON, "", &event_of(64))).expect(202);
    for bytes in [65, 2_000, 64 << 10] {
        let too_long = vec![b' '; bytes];
        server.ask(&post("/v1/events", JSON, "", &too_long)).expect_error(413, "PAYLOAD_TOO_LARGE");
        server.ask(&post("/nowhere", JSON, "", &too_long)).expect_error(404, "NOT_FOUND");
        server.ask(&bare("GET", "/health", &format!("Content-Length: {bytes}\r\n"))).expect(200);
    }
}

/// An empty line behind a body, which old clients send, begins no request: RFC 9112 §2.2.
#[test]
fn an_empty_line_between_requests_starts_no_clock() {
    let server = Setup::new().set("head_timeout", "1s").start();
    let request = post("/v1/events", JSON, "", b"{}");
    let mut client = server.connect();
    client.ask(&[request.as_slice(), b"\r\n"].concat()).expect(202);
    let mut slow = server.connect();
    slow.send(b"POST");
    slow.receive().expect_error(408, "REQUEST_TIMEOUT");
    client.ask(&request).expect(202);
}

#[test]
fn the_first_connection_after_a_long_quiet_is_served() {
    let server = Setup::new().set("idle_timeout", "2s").start();
    server.ask(&post("/v1/events", JSON, "", b"{}")).expect(202);
    let turns = || observe::shard_metric(&server, "turns", 0).expect("a shard counts its turns");
    let hourglass = hourglass("2500ms");
    until("a shard that sleeps for longer than the timeout", || {
        let before = turns();
        hourglass.connect().expect_closed();
        (turns() == before).then_some(())
    });
    server.ask(&post("/v1/events", JSON, "", b"{}")).expect(202);
}

#[test]
fn what_came_while_the_server_could_not_run_is_not_late() {
    let server = Setup::new().set("idle_timeout", "5s").set("head_timeout", "5s").start();
    let hourglass = hourglass("6s");
    let request = post("/v1/events", JSON, "", b"{}");
    let mut quiet = server.connect();
    let mut used = server.connect();
    let mut begun = server.connect();
    used.ask(&request).expect(202);
    begun.send(&request[..20]);
    // It is the server that is to have seen this.
    server.ask(&request).expect(202);
    server.freeze();
    for client in [&mut quiet, &mut used] {
        client.send(&request);
    }
    begun.send(&request[20..]);
    hourglass.connect().expect_closed();
    server.signal("CONT");
    for client in [&mut quiet, &mut used, &mut begun] {
        client.receive().expect(202);
    }
}

#[test]
fn slow_clients_do_not_slow_others() {
    let server = Setup::new().set("head_timeout", "20s").set("body_timeout", "20s").start();
    let slow: Vec<_> = (0..200)
        .map(|number| {
            let mut client = server.connect();
            client.send(if number % 2 == 0 {
                b"GET /he"
            } else {
                b"POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n{"
            });
            client
        })
        .collect();
    let mut honest = server.connect();
    for _ in 0..100 {
        honest.ask(&post("/v1/events", JSON, "", b"{}")).expect(202);
    }
    drop(slow);
}
