//! What [`super::parse_head`] promises: heads that are read, shapes that are refused.

use super::*;

fn parse(head: &[u8]) -> Result<Option<(Request, usize)>, HttpError> {
    parse_head(head, &mut 0, &Limits::default())
}

/// A complete request that must be accepted.
fn accept(head: &str) -> Request {
    let (request, bytes) = parse(head.as_bytes()).unwrap_or_else(|error| panic!("{head:?}: {error}")).expect(head);
    assert_eq!(bytes, head.len());
    request
}

/// The code of a complete request that must be refused.
fn refuse(head: &[u8]) -> ErrorCode {
    let shown = String::from_utf8_lossy(head);
    parse(head).map(|parsed| panic!("{shown:?} was taken for {parsed:?}")).unwrap_err().code
}

fn with_headers(headers: &str) -> String {
    format!("POST /v1/events HTTP/1.1\r\nHost: a\r\n{headers}\r\n")
}

const PLAIN: Request = Request {
    route: Route::Events,
    is_head: false,
    http10: false,
    keep_alive: true,
    expect_continue: false,
    framing: Framing::None,
    content: Content::Json,
    encoding: Encoding::Identity,
    ack: None,
    atomic: false,
    key: None,
    priority: Priority::Normal,
    request_id: None,
};

#[test]
fn a_request_with_everything_is_read() {
    let head = "POST /v1/events/batch?x=1&atomic=true HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: curl/8.5\r\n\
        Accept: */*\r\nCONTENT-TYPE:application/x-ndjson; charset=utf-8\r\ncontent-encoding: GZIP\r\nX-Ack: memory\r\n\
        X-Request-ID: r-1\r\nExpect: 100-Continue\r\nConnection: foo, Close\r\nContent-Length:  68000 \r\n\r\n";
    let expected = Request {
        route: Route::EventsBatch,
        keep_alive: false,
        expect_continue: true,
        framing: Framing::Length(68000),
        content: Content::Ndjson,
        encoding: Encoding::Gzip,
        ack: Some(AckLevel::Memory),
        atomic: true,
        request_id: RequestId::from_client(b"r-1"),
        ..PLAIN
    };
    assert_eq!(accept(head), expected);
    assert_eq!(accept(&with_headers("")), PLAIN);
}

#[test]
fn routes_are_matched_by_method_and_path() {
    let post_only = Route::MethodNotAllowed { allow: "POST" };
    let get_only = Route::MethodNotAllowed { allow: "GET, HEAD" };
    for (line, route) in [
        ("POST /v1/events", Route::Events),
        ("POST /v1/events?atomic=0", Route::Events),
        ("POST /v1/events/batch", Route::EventsBatch),
        ("POST /api/echo", Route::Echo),
        ("GET /health", Route::Health),
        ("HEAD /health?x", Route::Health),
        ("GET /ready", Route::Ready),
        ("GET /api/metrics", Route::Metrics),
        ("GET /v1/events", post_only),
        ("HEAD /v1/events/batch", post_only),
        ("DELETE /api/echo", post_only),
        ("POST /health", get_only),
        ("post /v1/events", post_only),
        ("get /health", get_only),
        ("OPTIONS /ready", get_only),
        ("GET /", Route::NotFound),
        ("POST /v1/events/", Route::NotFound),
        ("POST //v1/events", Route::NotFound),
        ("POST /V1/events", Route::NotFound),
        ("POST /v1/%65vents", Route::NotFound),
        ("POST /v1/events#x", Route::NotFound),
        ("OPTIONS *", Route::NotFound),
        ("POST http://a.example/v1/events", Route::Events),
        ("POST HTTPS://a.example:8443/v1/events?atomic=1", Route::Events),
        ("GET http://a.example", Route::NotFound),
        ("GET http://a.example?x=/health", Route::NotFound),
    ] {
        let request = accept(&format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(request.route, route, "{line}");
        assert_eq!(request.is_head, line.starts_with("HEAD"));
    }
    for line in
        ["GET health", "GET *", "CONNECT a:80", "GET http:///health", "GET ftp://a/health", "GET a.example/health"]
    {
        assert_eq!(refuse(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()), ErrorCode::BadRequest, "{line}");
    }
}

#[test]
fn connections_are_kept_as_version_and_header_say() {
    for (version, header, keep_alive) in [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: te ,\tCLOSE\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let request = accept(&format!("GET /health HTTP/{version}\r\nHost: a\r\n{header}\r\n"));
        assert_eq!((request.keep_alive, request.http10), (keep_alive, version == "1.0"), "{version} {header}");
    }
}

#[test]
fn http10_needs_no_host_and_gets_no_continue() {
    let request = accept("POST /v1/events HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert!(!request.expect_continue);
    assert_eq!(request.framing, Framing::Length(5));
}

#[test]
fn content_type_and_encoding_are_told_apart() {
    for (value, content) in [
        ("application/json", Content::Json),
        ("Application/JSON ; charset=UTF-8", Content::Json),
        ("application/x-ndjson", Content::Ndjson),
        ("application/jsonl", Content::Ndjson),
        ("application/json-lines", Content::Ndjson),
        ("application/json5", Content::Unsupported),
        ("text/plain", Content::Unsupported),
        ("application/x-www-form-urlencoded", Content::Unsupported),
        ("", Content::Unsupported),
    ] {
        assert_eq!(accept(&with_headers(&format!("Content-Type: {value}\r\n"))).content, content, "{value}");
    }
    for (headers, encoding) in [
        ("Content-Encoding: gzip\r\n", Encoding::Gzip),
        ("Content-Encoding: X-Gzip\r\n", Encoding::Gzip),
        ("Content-Encoding: zstd\r\n", Encoding::Zstd),
        ("Content-Encoding: identity\r\n", Encoding::Identity),
        ("Content-Encoding: br\r\n", Encoding::Unsupported),
        ("Content-Encoding: gzip, zstd\r\n", Encoding::Unsupported),
        ("Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n", Encoding::Unsupported),
    ] {
        assert_eq!(accept(&with_headers(headers)).encoding, encoding, "{headers}");
    }
}

#[test]
fn atomic_is_yes_or_no() {
    for (query, atomic) in [("", false), ("?atomic=true", true), ("?a&atomic=1&b=", true), ("?atomic=false", false)] {
        assert_eq!(accept(&format!("POST /v1/events{query} HTTP/1.1\r\nHost: a\r\n\r\n")).atomic, atomic, "{query}");
    }
    assert!(accept("POST /v1/events?x=at&atomic=1&atomic=true HTTP/1.1\r\nHost: a\r\n\r\n").atomic);
    let slips = ["?Atomic=true", "?atomic[]=1", "?x=1;atomic=true", "?x=1?ATOMIC=true", "?atomic=true&atomic=false"];
    for query in ["?atomic", "?atomic=", "?atomic=yes", "?atomic=TRUE"].into_iter().chain(slips) {
        let head = format!("POST /v1/events{query} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(refuse(head.as_bytes()), ErrorCode::BadRequest, "{query}");
    }
    assert!(!accept("GET /health?atomic=yes HTTP/1.1\r\nHost: a\r\n\r\n").atomic, "means nothing elsewhere");
}

#[test]
fn bodies_have_one_length_given_once() {
    for (headers, framing) in [
        ("", Framing::None),
        ("Content-Length: 0\r\n", Framing::None),
        ("Content-Length: 007\r\n", Framing::Length(7)),
        ("Content-Length:\t18446744073709551615\t\r\n", Framing::Length(u64::MAX)),
        ("Transfer-Encoding: Chunked\r\n", Framing::Chunked),
    ] {
        assert_eq!(accept(&with_headers(headers)).framing, framing, "{headers}");
    }
    for headers in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\ncontent-length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length: five\r\n",
        "Content-Length: \r\n",
        "Content-Length:\r\n",
        "Content-Length: 5\x0b\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Content-Length : 5\r\n",
        "Content-Length\t: 5\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "X: y\r\n\tTransfer-Encoding: chunked\r\n",
    ] {
        assert_eq!(refuse(with_headers(headers).as_bytes()), ErrorCode::BadRequest, "{headers:?}");
    }
    let old = b"POST /v1/events HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(refuse(old), ErrorCode::BadRequest);
}

#[test]
fn malformed_heads_are_refused() {
    let table: &[&[u8]] = &[
        b"GET /health HTTP/1.1\nHost: a\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\n\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\rX: y\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nX: y\rContent-Length: 5\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n",
        b"GET /hea\0lth HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
        b"GET /health HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a@b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /health HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nX(y): z\r\n\r\n",
        b"GET /health HTTP/1.2\r\nHost: a\r\n\r\n",
        b"GET /health HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET /health http/1.1\r\nHost: a\r\n\r\n",
        b"GET /health\r\nHost: a\r\n\r\n",
        b"GET  /health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /health  HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET\t/health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /health HTTP/1.1 \r\nHost: a\r\n\r\n",
        b" GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"G\xc3\xa9T /health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"/health\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"\n\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\n\r\n\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: a\r\nX-Ack: fsync\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: a\r\nX-Ack: memory\r\nX-Ack: durable\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nContent-Type: application/json\r\n\r\n",
    ];
    for head in table {
        assert_eq!(refuse(head), ErrorCode::BadRequest, "{:?}", String::from_utf8_lossy(head));
    }
}

#[test]
fn hosts_of_every_form_are_accepted() {
    for host in ["", "localhost:8080", "10.0.0.1", "[::1]:8080", "ex-ample.com.", "a_b", "xn--e1afmkfd.example"] {
        accept(&format!("GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
}

#[test]
fn long_heads_are_431() {
    let limits = Limits { head_bytes_max: 100, ..Limits::default() };
    let parse = |head: &[u8]| parse_head(head, &mut 0, &limits).map(|parsed| parsed.is_some());
    let of_bytes = |bytes: usize| {
        let frame = "GET /health HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n";
        frame.replace("X: ", &format!("X: {}", "y".repeat(bytes - frame.len()))).into_bytes()
    };
    assert_eq!(parse(&of_bytes(100)), Ok(true));
    assert_eq!(parse(&of_bytes(101)), Err(HEADERS_TOO_LARGE));
    assert_eq!(parse(&of_bytes(200)[..100]), Ok(false), "as many bytes as a head may have: wait for more");
    assert_eq!(parse(&of_bytes(200)[..101]), Err(HEADERS_TOO_LARGE));
    assert_eq!(parse(&[b"\r\n\r\n", &of_bytes(100)[..]].concat()), Ok(true), "empty lines do not count");
    for (lines, ok) in [(HEADERS_MAX - 1, true), (HEADERS_MAX, false)] {
        let result = self::parse(with_headers(&"X: y\r\n".repeat(lines)).as_bytes());
        assert_eq!(result.map(|parsed| parsed.is_some()), if ok { Ok(true) } else { Err(HEADERS_TOO_LARGE) });
    }
}

#[test]
fn a_head_in_pieces_is_read_as_one_in_whole_and_searched_once() {
    let head = b"\r\n\r\nPOST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";
    let input = [&head[..], b"{\"a\":\"\n\"}!"].concat();
    for first in 0..head.len() {
        let mut scanned = 0;
        assert_eq!(parse_head(&input[..first], &mut scanned, &Limits::default()), Ok(None), "{first}");
        assert_eq!(scanned, first, "nothing is searched twice");
        let (request, bytes) = parse_head(&input, &mut scanned, &Limits::default()).unwrap().unwrap();
        assert_eq!((request.framing, bytes, scanned), (Framing::Length(10), head.len(), 0));
    }
    let mut scanned = 0;
    for end in 0..head.len() {
        assert_eq!(parse_head(&input[..end], &mut scanned, &Limits::default()), Ok(None));
    }
    assert!(parse_head(&input[..head.len()], &mut scanned, &Limits::default()).unwrap().is_some());
}

#[test]
fn a_bad_head_is_refused_however_it_is_cut() {
    let head = b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n";
    let bare = b"POST /v1/events HTTP/1.1\r\nHost: a\nContent-Length: 1\r\n\r\n";
    for input in [&head[..], &bare[..]] {
        let mut scanned = 0;
        let outcome =
            (0..=input.len()).find_map(|end| parse_head(&input[..end], &mut scanned, &Limits::default()).err());
        assert_eq!(outcome, parse(input).err());
    }
    assert_eq!(refuse(b"GET / HTTP/1.1\n"), ErrorCode::BadRequest, "refused at once, not after a timeout");
}

#[test]
fn another_protocol_is_named_at_once() {
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0; 500]].concat();
    let ends = [&[0x16, 3, 1, 0, 4][..], b"\r\n\r\n"].concat();
    let rows: [(&[u8], &str); 9] = [
        (b"PROXY UNKNOWN\r\n", "PROXY"),
        (b"PROXY TCP6 HTTP/1.1\r\nHost: a\r\n\r\n", "PROXY"),
        (b"PROXY UNKNOWN/ HTTP/1.0\r\n\r\n", "PROXY"),
        (&hello, "TLS"),
        (&hello[..1], "TLS"),
        (&ends, "TLS"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", "PROXY"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "PROXY"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", "PROXY"),
    ];
    for (input, what) in rows {
        let error = parse(input).unwrap_err();
        assert_eq!(error.code, ErrorCode::BadRequest);
        assert!(error.message.contains(what), "{what}: {error}");
        assert_eq!(byte_by_byte(input), Err(error), "{what}");
    }
    assert_eq!(parse(b"PROXY"), Ok(None), "may yet become something else");
    assert_eq!(parse(b"PROXY TC"), Ok(None), "may yet become something else");
}

#[test]
fn what_only_begins_like_another_protocol_is_read_however_it_is_cut() {
    for input in [
        &b"PROXY /v1/events HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"PROXY http://a/health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY * HTTP/1.0\r\n\r\n",
        b"PROXY TLS HTTP/1.0\r\n\r\n",
        b"PROXY HTTP/1.0\r\n\r\n",
        b"PROXYS TCP4 HTTP/1.0\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\r\n\r\n",
    ] {
        assert_eq!(byte_by_byte(input), parse(input), "{}", input.escape_ascii());
    }
    let (request, _) = parse(b"PROXY /v1/events HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().unwrap();
    assert_eq!(request.route, Route::MethodNotAllowed { allow: "POST" }, "a method like any other that is not served");
}

/// What a head comes to that arrives a byte at a time.
fn byte_by_byte(input: &[u8]) -> Result<Option<(Request, usize)>, HttpError> {
    let mut scanned = 0;
    (0..=input.len())
        .map(|end| parse_head(&input[..end], &mut scanned, &Limits::default()))
        .find(|outcome| !matches!(outcome, Ok(None)))
        .unwrap_or(Ok(None))
}
