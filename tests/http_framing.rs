//! Where one request ends and the next begins: framing, pipelining, and the shapes that try to blur the border.

mod support;

use support::bodies::{self, bare, framed, post};
use support::client::Client;
use support::observe;
use support::server::{Server, Setup};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

fn named(id: usize, body: &str) -> Vec<u8> {
    post("/v1/events", JSON, &format!("X-Request-ID: r{id}\r\nX-Ack: memory\r\n"), body.as_bytes())
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::shared();
    let mut client = server.connect();
    let mut bytes = Vec::new();
    for id in 0..200 {
        // Levels alternate, so that a later answer is ready before an earlier one.
        let ack = ["durable", "memory", "written"][id % 3];
        let headers = format!("X-Request-ID: r{id}\r\nX-Ack: {ack}\r\n");
        bytes.extend(match id % 4 {
            0 => bare("GET", "/health", &headers),
            1 => post("/v1/events", JSON, &headers, b"nope"),
            _ => post("/v1/events", JSON, &headers, b"{\"a\":1}"),
        });
    }
    client.send(&bytes);
    for id in 0..200 {
        let response = client.receive();
        assert_eq!(response.header("x-request-id"), Some(format!("r{id}").as_str()));
        assert_eq!(response.status, [200, 400, 202, 202][id % 4]);
    }
}

#[test]
fn requests_sent_byte_by_byte_are_understood() {
    let server = Server::shared();
    let mut client = server.connect();
    let head = "POST /v1/events HTTP/1.1\r\nHost: test\r\nContent-Type: application/x-ndjson\r\n";
    let body = "{\"a\":\"ü\\\"\"}\r\n{\"b\":[1,2]}\n";
    let mut bytes = bare("GET", "/health", "");
    bytes.extend(framed(head, bodies::Framing::Length, body.as_bytes()));
    bytes.extend(framed(head, bodies::Framing::Chunked(3), body.as_bytes()));
    bytes.extend(named(1, "{}"));
    client.send_byte_by_byte(&bytes);
    client.receive().expect(200);
    for _ in 0..2 {
        assert_eq!(client.receive().expect(202).json()["data"]["accepted"], 2);
    }
    client.receive().expect(202);
}

/// Each cut is a real one: the first part travels with a complete request, whose answer proves that the server has read
/// it before the second part is sent.
#[test]
fn a_request_may_be_cut_anywhere() {
    let server = Setup::new().start();
    let head = "POST /v1/events HTTP/1.1\r\nHost: test\r\nContent-Type: application/x-ndjson\r\n";
    let body = b"{\"cut\":\"\xc3\xbc\"}\r\n {\"b\":[1,{\"c\":\"\\\\\"}]}\n\n{\"d\":4}";
    let mut client = server.connect();
    let mut requests = 0;
    for request in [
        framed(head, bodies::Framing::Length, body),
        framed(head, bodies::Framing::Chunked(9), body),
        framed(&format!("{head}Content-Encoding: gzip\r\n"), bodies::Framing::Length, &bodies::gzip(body)),
        framed(&format!("{head}Content-Encoding: zstd\r\n"), bodies::Framing::Chunked(5), &bodies::zstd(body)),
    ] {
        for cut in 1..request.len() {
            client.send(&[bare("GET", "/health", "").as_slice(), &request[..cut]].concat());
            client.receive().expect(200);
            client.send(&request[cut..]);
            let json = client.receive().expect(202).json();
            assert_eq!(json["data"]["accepted"], 3, "cut at {cut}: {json}");
            requests += 1;
        }
    }
    let lines = observe::cat(&server.data());
    assert_eq!(lines.len(), 3 * requests);
    let expected = [&b"{\"cut\":\"\xc3\xbc\"}"[..], b"{\"b\":[1,{\"c\":\"\\\\\"}]}", b"{\"d\":4}"];
    assert!(lines.chunks(3).all(|three| three == expected), "an event was joined or cut");
}

#[test]
fn chunked_bodies_may_carry_extensions_and_trailers() {
    let server = Server::shared();
    let head = "POST /v1/events HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "2\r\n{}\r\n0\r\n\r\n",
        "1;name=value\r\n{\r\n1;a=\"b\"\r\n}\r\n0;last\r\n\r\n",
        "0002\r\n{}\r\n000\r\n\r\n",
        "A\r\n{\"a\":\"bb\"}\r\n0\r\nTrailer: value\r\nX: y\r\n\r\n",
    ] {
        let mut client = server.connect();
        client.ask(format!("{head}{body}").as_bytes()).expect(202);
        client.ask(&bare("GET", "/health", "")).expect(200);
    }
}

#[test]
fn transfer_encoding_is_read_in_any_case() {
    let server = Server::shared();
    let request = "POST /v1/events HTTP/1.1\r\nhost: test\r\nTRANSFER-ENCODING: Chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    server.ask(request.as_bytes()).expect(202);
}

#[test]
fn expect_continue_is_honoured_before_the_body() {
    let server = Server::shared();
    let mut client = server.connect();
    for _ in 0..2 {
        client.send(b"POST /v1/events HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 7\r\n\r\n");
        assert_eq!(client.receive().status, 100);
        client.send(b"{\"a\":1}");
        client.receive().expect(202);
    }
    // RFC 9110 §10.1.1: a server may leave out the 100 when the body is there already; both ways one final answer comes.
    client.send(b"POST /v1/events HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}");
    let mut response = client.receive();
    if response.status == 100 {
        response = client.receive();
    }
    response.expect(202);
}

#[test]
fn expect_continue_is_refused_without_reading_the_body() {
    let server = Server::shared();
    for (head, status) in [
        ("POST /nowhere HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 7\r\n\r\n", 404),
        ("POST /v1/events HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 999999999\r\n\r\n", 413),
        (
            "POST /v1/events HTTP/1.1\r\nHost: test\r\nContent-Type: text/x\r\nExpect: 100-continue\r\nContent-Length: 7\r\n\r\n",
            415,
        ),
    ] {
        server.ask(head.as_bytes()).expect(status);
    }
    server
        .ask(b"POST /v1/events HTTP/1.1\r\nHost: test\r\nExpect: a-miracle\r\nContent-Length: 2\r\n\r\n{}")
        .expect(400);
}

#[test]
fn http_1_0_is_answered_and_closed_unless_kept() {
    let server = Server::shared();
    let mut client = server.connect();
    client.ask(b"POST /v1/events HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}").expect(202);
    client.expect_closed();
    let mut client = server.connect();
    client.ask(b"GET /health HTTP/1.0\r\n\r\n").expect(200);
    client.expect_closed();
    let mut client = server.connect();
    let kept = client.ask(b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").expect(200);
    assert!(kept.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive")), "{kept:?}");
    client.ask(b"GET /health HTTP/1.0\r\n\r\n").expect(200);
    client.expect_closed();
}

#[test]
fn connection_close_is_honoured_and_said() {
    let server = Server::shared();
    let mut client = server.connect();
    client.send(&[bare("GET", "/health", "Connection: Close\r\n"), bare("GET", "/health", "")].concat());
    let response = client.receive().expect(200);
    assert!(response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")), "{response:?}");
    client.expect_closed();
}

#[test]
fn a_client_that_has_finished_sending_still_gets_its_answers() {
    let server = Server::shared();
    let mut client = server.connect();
    client.send(&[named(1, "{}"), named(2, "{}")].concat());
    client.finish_sending();
    assert_eq!(client.receive().expect(202).header("x-request-id"), Some("r1"));
    assert_eq!(client.receive().expect(202).header("x-request-id"), Some("r2"));
    client.expect_closed();
}

#[test]
fn a_client_that_leaves_in_mid_request_leaves_nothing_behind() {
    let server = Setup::new().start();
    // Atomic, because without it an event that came whole is stored, whatever becomes of its request.
    let atomic = "/v1/events?atomic=true";
    let chunked = format!("POST {atomic} HTTP/1.1\r\nHost: t\r\n");
    for request in [
        post(atomic, JSON, "", b"{\"a\":1}"),
        post(atomic, NDJSON, "", b"{\"a\":1}\n{\"a\":2}\n"),
        framed(&chunked, bodies::Framing::Chunked(3), b"{\"a\":1}"),
    ] {
        for cut in 1..request.len() {
            let mut client = server.connect();
            client.send(&request[..cut]);
            drop(client);
        }
    }
    server.ask(&named(1, "{\"last\":1}")).expect(202);
    server.ask(&post("/v1/events", JSON, "", b"{\"durable\":1}")).expect(202);
    assert_eq!(observe::cat(&server.data()), [b"{\"last\":1}".as_slice(), b"{\"durable\":1}"]);
}

#[test]
fn a_few_empty_lines_before_a_request_are_skipped() {
    let server = Server::shared();
    let mut client = server.connect();
    client.ask(&[b"\r\n\r\n".as_slice(), &bare("GET", "/health", "")].concat()).expect(200);
    client.ask(&[b"\r\n".as_slice(), &named(1, "{}")].concat()).expect(202);
}

#[test]
fn an_absolute_target_is_understood() {
    let server = Server::shared();
    server.ask(b"GET http://test:8080/health HTTP/1.1\r\nHost: test:8080\r\n\r\n").expect(200);
}

/// Each is ambiguous to some proxy or server; what follows it on the connection must never be taken for a request.
const SMUGGLING: &[(&str, &[u8])] = &[
    ("length and chunked", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunked and length", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    ("two lengths", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} "),
    ("two equal lengths", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}"),
    ("a list of lengths", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length: 2, 2\r\n\r\n{}"),
    ("a signed length", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length: +2\r\n\r\n{}"),
    ("a negative length", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length: -2\r\n\r\n{}"),
    ("a hexadecimal length", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length: 0x2\r\n\r\n{}"),
    ("an empty length", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length: \r\n\r\n{}"),
    ("a length with a space", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length: 1 2\r\n\r\n{}"),
    ("a length beyond 64 bits", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length: 18446744073709551618\r\n\r\n{}"),
    ("another transfer coding", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\n{}"),
    ("a list of transfer codings", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("two transfer codings", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a misspelt transfer coding", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("a quoted transfer coding", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    ("chunked in HTTP/1.0", b"POST /v1/events HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a folded header", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\n{}"),
    ("a folded transfer coding", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("a space before the colon", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length : 2\r\n\r\n{}"),
    ("a tab before the colon", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n"),
    ("a header without a colon", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length\r\n\r\n{}"),
    ("a header without a name", b"POST /v1/events HTTP/1.1\r\nHost: t\r\n: 2\r\n\r\n{}"),
    ("a space before the first header", b"POST /v1/events HTTP/1.1\r\n Host: t\r\nContent-Length: 2\r\n\r\n{}"),
    ("a bare CR in a value", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nX: a\rContent-Length: 2\r\n\r\n{}"),
    ("a bare LF between headers", b"POST /v1/events HTTP/1.1\r\nHost: t\nContent-Length: 2\r\n\r\n{}"),
    ("a bare LF after the request line", b"POST /v1/events HTTP/1.1\nHost: t\r\nContent-Length: 2\r\n\r\n{}"),
    ("a bare LF at the end", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\n{}\r\n\r\n"),
    ("bare LFs only", b"GET /health HTTP/1.1\nHost: t\n\nGET /health HTTP/1.1\r\nHost: t\r\n\r\n"),
    ("a NUL in a value", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nX: a\0b\r\nContent-Length: 2\r\n\r\n{}"),
    ("a NUL in a name", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nX\0: a\r\nContent-Length: 2\r\n\r\n{}"),
    ("no host", b"POST /v1/events HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"),
    ("two hosts", b"POST /v1/events HTTP/1.1\r\nHost: t\r\nHost: t\r\nContent-Length: 2\r\n\r\n{}"),
    ("HTTP/2.0", b"GET /health HTTP/2.0\r\nHost: t\r\n\r\n"),
    ("HTTP/1.2", b"GET /health HTTP/1.2\r\nHost: t\r\n\r\n"),
    ("HTTP/0.9", b"GET /health\r\n\r\n"),
    ("a lower-case version", b"GET /health http/1.1\r\nHost: t\r\n\r\n"),
    ("two spaces in the request line", b"GET  /health HTTP/1.1\r\nHost: t\r\n\r\n"),
    ("a control byte in the target", b"GET /hea\x01lth HTTP/1.1\r\nHost: t\r\n\r\n"),
    ("an HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
];

/// As [`SMUGGLING`], in what follows `Transfer-Encoding: chunked`.
const BAD_CHUNKS: &[(&str, &[u8])] = &[
    ("no size", b"\r\n{}\r\n0\r\n\r\n"),
    ("not a number", b"g\r\n{}\r\n0\r\n\r\n"),
    ("a prefix", b"0x2\r\n{}\r\n0\r\n\r\n"),
    ("a sign", b"+2\r\n{}\r\n0\r\n\r\n"),
    ("a negative size", b"-2\r\n{}\r\n0\r\n\r\n"),
    ("a space before the size", b" 2\r\n{}\r\n0\r\n\r\n"),
    ("a size beyond 64 bits", b"10000000000000002\r\n{}\r\n0\r\n\r\n"),
    ("a size that overflows twice", b"fffffffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
    ("a bare LF after the size", b"2\n{}\r\n0\r\n\r\n"),
    ("a bare CR after the size", b"2\r{}\r\n0\r\n\r\n"),
    ("no line end after the data", b"2\r\n{}0\r\n\r\n"),
    ("a bare LF after the data", b"2\r\n{}\n0\r\n\r\n"),
    ("more data than was said", b"2\r\n{} \r\n0\r\n\r\n"),
    ("a bare LF in an extension", b"2;a\nb\r\n{}\r\n0\r\n\r\n"),
    ("a bare CR in an extension", b"2;a\rb\r\n{}\r\n0\r\n\r\n"),
    ("a bare LF at the end", b"2\r\n{}\r\n0\r\n\nGET / HTTP/1.1\r\n\r\n"),
];

#[track_caller]
fn assert_refused_and_closed(server: &Server, name: &str, request: &[u8]) {
    let mut client = server.connect();
    // The request that would be smuggled in. The server may close before it is sent: then it was not read at all.
    let smuggled = named(666, "{\"smuggled\":1}");
    let _closed_early = client.try_send(&[request, &smuggled].concat());
    let response = client.try_receive().unwrap_or_else(|error| panic!("{name}: no answer: {error}"));
    assert_eq!(response.status, 400, "{name}: {}", response.text());
    let response = response.expect_error(400, "BAD_REQUEST");
    assert!(response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")), "{name}");
    let rest = client.rest();
    assert!(rest.is_empty(), "{name}: answered more: {}", String::from_utf8_lossy(&rest));
}

#[test]
fn ambiguous_heads_are_refused_and_the_connection_closed() {
    let server = Setup::new().start();
    for (name, request) in SMUGGLING {
        assert_refused_and_closed(&server, name, request);
    }
    server.ask(&post("/v1/events", JSON, "", b"{\"good\":1}")).expect(202);
    assert_eq!(observe::cat(&server.data()), [b"{\"good\":1}"]);
}

#[test]
fn bad_chunks_are_refused_and_the_connection_closed() {
    let server = Setup::new().start();
    for (name, body) in BAD_CHUNKS {
        let head = b"POST /v1/events?atomic=true HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice();
        assert_refused_and_closed(&server, name, &[head, body].concat());
    }
    server.ask(&post("/v1/events", JSON, "", b"{\"good\":1}")).expect(202);
    assert_eq!(observe::cat(&server.data()), [b"{\"good\":1}"]);
}

#[test]
fn random_bytes_cost_only_their_own_connection() {
    let seed = support::random::seed("random_bytes_cost_only_their_own_connection");
    let mut random = support::random::Random::new(seed);
    let server = Setup::new().start();
    let mut honest = server.connect();
    let valid = [
        bare("GET", "/health", ""),
        post("/v1/events", NDJSON, "", b"{\"a\":1}\n{\"b\":[2]}\n"),
        framed("POST /v1/events HTTP/1.1\r\nHost: t\r\n", bodies::Framing::Chunked(3), b"[{\"a\":1},{}]"),
    ];
    for round in 0..300 {
        let mut request = random.pick(&valid).clone();
        for _ in 0..=random.below(4) {
            let at = random.below(request.len() as u64) as usize;
            match random.below(4) {
                0 => request[at] = random.next() as u8,
                1 => request.insert(at, *random.pick(b"\r\n :;\0,{}[]\"0f")),
                2 => request.truncate(at.max(1)),
                _ => drop(request.remove(at)),
            }
            if request.is_empty() {
                break;
            }
        }
        let mut client = Client::connect(server.listen());
        if client.try_send(&request).is_ok() {
            client.finish_sending();
            // Any answer is right as long as the connection ends: what the bytes mean is other tests' business.
            client.rest();
        }
        let response = honest.ask(&named(round, "{}")).expect(202);
        assert_eq!(response.header("x-request-id"), Some(format!("r{round}").as_str()));
    }
}
