//! What [`super`] promises: answers that a client can read, whatever is in them, and never past the buffer.

use serde_json::{Value, json};

use super::*;
use crate::base::{Seq, ShardId, WriterId};
use crate::json::JsonErrorKind;

const NOW_MS: u64 = 1_795_253_400_123;

fn with_frame<T>(persistence: Persistence, is_head: bool, write: impl FnOnce(&Frame<'_>) -> T) -> T {
    let request_id = RequestId::from_client(b"req-7").unwrap();
    let date = imf_fixdate(NOW_MS / 1000);
    write(&Frame { request_id: &request_id, date: &date, unix_ms: NOW_MS, persistence, is_head })
}

/// What `write` writes with room to spare. In a buffer that is shorter, it says so.
fn written(write: impl Fn(&mut [u8]) -> Result<usize, Overflow>) -> Vec<u8> {
    let mut buffer = vec![0; 64 << 10];
    let bytes = write(&mut buffer).expect("64 KiB are enough");
    for room in (0..bytes).step_by(if cfg!(miri) { 97 } else { 1 }) {
        assert_eq!(write(&mut vec![0; room]), Err(Overflow), "{room} of {bytes} bytes");
    }
    buffer.truncate(bytes);
    buffer
}

/// Status, headers and body, taken apart by another reader.
fn read(response: &[u8]) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut parsed = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = parsed.parse(response).unwrap() else { panic!("incomplete head") };
    let headers: Vec<(String, String)> = parsed
        .headers
        .iter()
        .map(|header| (header.name.to_owned(), String::from_utf8(header.value.to_vec()).unwrap()))
        .collect();
    (parsed.code.unwrap(), headers, response[head..].to_vec())
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// The parts of a complete answer whose length is told right.
fn read_json(response: &[u8]) -> (u16, Vec<(String, String)>, Value) {
    let (status, headers, body) = read(response);
    assert_eq!(header(&headers, "Content-Length"), Some(body.len().to_string().as_str()));
    assert_eq!(header(&headers, "Content-Type"), Some("application/json"));
    assert_eq!(header(&headers, "X-Request-ID"), Some("req-7"));
    assert_eq!(header(&headers, "Date"), Some("Sat, 21 Nov 2026 09:30:00 GMT"));
    (status, headers, serde_json::from_slice(&body).unwrap())
}

const POSITION: Position = Position { writer: WriterId(0), shard: ShardId(3), seq: Seq(1289), index: 17 };

fn single(event_id: Option<&str>) -> Accepted<'_> {
    Accepted {
        accepted: 1,
        refusals: Refusals::default(),
        position: POSITION,
        ack: AckLevel::Durable,
        extent: Extent::Single { event_id },
    }
}

#[test]
fn a_single_event_is_answered_in_full() {
    let response = written(|buffer| {
        with_frame(Persistence::Kept, false, |frame| accepted(buffer, frame, &single(Some("e\"1\\\n\u{1f}é"))))
    });
    let (status, headers, body) = read_json(&response);
    assert_eq!((status, headers.len()), (202, 4), "as few headers as will do");
    let expected = json!({
        "success": true,
        "message": "Event accepted",
        "data": {
            "accepted": 1, "rejected": 0, "events_count": 1, "batch_id": "0-3-1289-17+1", "position": "0-3-1289-17",
            "ack": "durable", "event_id": "e\"1\\\n\u{1f}é",
        },
        "timestamp": NOW_MS,
        "request_id": "req-7",
    });
    assert_eq!(body, expected);
    let unnamed =
        written(|buffer| with_frame(Persistence::Kept, false, |frame| accepted(buffer, frame, &single(None))));
    assert_eq!(read_json(&unnamed).2["data"]["event_id"], "0-3-1289-17");
}

#[test]
fn a_batch_lists_what_was_refused_and_counts_the_rest() {
    let refusals: Vec<Refusal> = (0..120)
        .map(|index| Refusal {
            index: index * 2,
            reason: match index % 3 {
                0 => Reason::Event(EventError::TooLong),
                1 => Reason::Json(JsonError { kind: JsonErrorKind::BadNumber, offset: Some(17) }),
                _ => Reason::Json(JsonError { kind: JsonErrorKind::BadString, offset: None }),
            },
        })
        .collect();
    let write = |listed: usize, total: u32, accepted_events: u32| {
        let answer = Accepted {
            accepted: accepted_events,
            refusals: Refusals { first: &refusals[..listed], total },
            extent: Extent::Batch,
            ack: AckLevel::Memory,
            ..single(None)
        };
        let response = written(|buffer| with_frame(Persistence::Kept, false, |frame| accepted(buffer, frame, &answer)));
        read_json(&response).2
    };
    let body = write(120, 5000, 200);
    assert_eq!(body["message"], "200 events accepted, 5000 rejected");
    assert_eq!(body["data"]["errors"].as_array().unwrap().len(), REFUSALS_LISTED_MAX);
    assert_eq!(body["data"]["errors_omitted"], 4900);
    assert_eq!(body["data"]["ack"], "memory");
    assert_eq!(body["data"]["errors"][0]["code"], "PAYLOAD_TOO_LARGE");
    assert_eq!(
        body["data"]["errors"][1],
        json!({"index": 2, "code": "INVALID_JSON", "message": "malformed number at byte 17"})
    );
    assert_eq!(body["data"]["errors"][2]["message"], "unterminated string or raw control character in one");
    let body = write(1, 1, 1);
    assert_eq!(
        (&body["message"], &body["data"]["errors_omitted"]),
        (&json!("1 event accepted, 1 rejected"), &json!(0))
    );
    let body = write(0, 0, 2);
    assert_eq!(body["message"], "2 events accepted");
    assert!(body["data"].get("errors").is_none() && body["data"].get("event_id").is_none());
}

#[test]
fn every_error_of_the_contract_is_answered() {
    for code in ErrorCode::ALL {
        let answer = Refused { code, message: "say \"why\"\n", refusals: Refusals::default(), extra: Extra::default() };
        let response =
            written(|buffer| with_frame(Persistence::Closed, false, |frame| refused(buffer, frame, &answer)));
        let (status, headers, body) = read_json(&response);
        assert_eq!(status, code.status());
        assert_eq!(header(&headers, "Connection"), Some("close"));
        assert_eq!(header(&headers, "WWW-Authenticate").is_some(), status == 401);
        let expected = json!({
            "success": false, "error": code.error(), "code": code.name(), "message": "say \"why\"\n",
            "request_id": "req-7",
        });
        assert_eq!(body, expected);
    }
}

#[test]
fn an_atomic_refusal_lists_its_reasons() {
    let first = [Refusal { index: 4, reason: Reason::Event(EventError::Truncated) }];
    let answer = Refused {
        code: ErrorCode::InvalidJson,
        message: "m",
        refusals: Refusals { first: &first, total: 3 },
        extra: Extra::None,
    };
    let response = written(|buffer| with_frame(Persistence::Kept, false, |frame| refused(buffer, frame, &answer)));
    let data = &read_json(&response).2["data"];
    assert_eq!((&data["errors"][0]["index"], &data["errors_omitted"]), (&json!(4), &json!(2)));
}

#[test]
fn headers_go_with_the_errors_that_need_them() {
    let limited = Extra::RateLimit { limit: 20_000, remaining: 0, reset_s: 3, retry_after_s: 1 };
    let table: &[(Extra, &[(&str, &str)])] = &[
        (Extra::Allow("GET, HEAD"), &[("Allow", "GET, HEAD")]),
        (Extra::RetryAfter(2), &[("Retry-After", "2")]),
        (
            limited,
            &[
                ("Retry-After", "1"),
                ("X-RateLimit-Limit", "20000"),
                ("X-RateLimit-Remaining", "0"),
                ("X-RateLimit-Reset", "3"),
            ],
        ),
    ];
    for (extra, expected) in table {
        let answer =
            Refused { code: ErrorCode::Backpressure, message: "m", refusals: Refusals::default(), extra: *extra };
        let response =
            written(|buffer| with_frame(Persistence::KeptHttp10, false, |frame| refused(buffer, frame, &answer)));
        let (_, headers, _) = read_json(&response);
        for (name, value) in *expected {
            assert_eq!(header(&headers, name), Some(*value), "{name}");
        }
        assert_eq!(header(&headers, "Connection"), Some("keep-alive"));
    }
}

#[test]
fn a_head_request_gets_the_same_head_and_no_body() {
    let get = written(|buffer| with_frame(Persistence::Kept, false, |frame| health(buffer, frame)));
    let (status, headers, body) = read_json(&get);
    assert_eq!(status, 200);
    assert_eq!(body, json!({"status": "healthy", "service": "tidegate", "timestamp": NOW_MS}));
    let head = written(|buffer| with_frame(Persistence::Kept, true, |frame| health(buffer, frame)));
    assert_eq!(read(&head), (200, headers, Vec::new()));
    assert!(get.starts_with(&head));
}

#[test]
fn ready_is_200_or_503_with_its_body() {
    for (is_ready, status) in [(true, 200), (false, 503)] {
        let response = written(|buffer| {
            with_frame(Persistence::Kept, false, |frame| ready(buffer, frame, is_ready, b"{\"a\":1}"))
        });
        let (answered, _, body) = read_json(&response);
        assert_eq!((answered, body), (status, json!({"a": 1})));
    }
}

#[test]
fn lengths_of_any_number_of_digits_are_told_right() {
    for bytes in [0, 1, 9, 10, 99, 100, 999, 1000, 9999, 10_000, 60_000] {
        let body = vec![b'7'; bytes];
        let mut buffer = vec![0; 64 << 10];
        let written = with_frame(Persistence::Kept, false, |frame| json_body(&mut buffer, frame, &body)).unwrap();
        let (_, headers, read_body) = read(&buffer[..written]);
        assert_eq!(header(&headers, "Content-Length"), Some(bytes.to_string().as_str()));
        assert_eq!(read_body, body);
    }
}

#[test]
fn an_echo_is_its_front_the_body_and_the_suffix() {
    let body = br#"{"a":[1,2]}"#;
    let front = written(|buffer| with_frame(Persistence::Kept, false, |frame| echo_front(buffer, frame, body.len())));
    let (status, _, value) = read_json(&[&front[..], body, ECHO_SUFFIX].concat());
    assert_eq!((status, value), (200, json!({"echo": {"a": [1, 2]}, "message": "Echo successful"})));
}

#[test]
fn the_longest_answers_fit_the_room_they_are_given() {
    let longest_id = RequestId::from_client(&[b'x'; RequestId::BYTES_MAX]).unwrap();
    let date = imf_fixdate(u64::MAX / 2);
    let frame = Frame {
        request_id: &longest_id,
        date: &date,
        unix_ms: u64::MAX,
        persistence: Persistence::KeptHttp10,
        is_head: false,
    };
    let position =
        Position { writer: WriterId(u16::MAX), shard: ShardId(u16::MAX), seq: Seq(u64::MAX), index: u32::MAX };
    let event_id = "\u{1}".repeat(300);
    let kinds = [
        JsonErrorKind::NotAnObject,
        JsonErrorKind::NotUtf8,
        JsonErrorKind::TooDeep,
        JsonErrorKind::TrailingData,
        JsonErrorKind::BadNumber,
        JsonErrorKind::BadEscape,
        JsonErrorKind::BadLiteral,
        JsonErrorKind::BadString,
        JsonErrorKind::BadStructure,
    ];
    let of_json = kinds.map(|kind| Reason::Json(JsonError { kind, offset: Some(u32::MAX) }));
    let of_split = [
        EventError::TooLong,
        EventError::NotJson,
        EventError::NotAnObject,
        EventError::EmptyElement,
        EventError::MissingComma,
        EventError::TrailingData,
        EventError::Truncated,
        EventError::BrokenEnvelope,
        EventError::SecondEvents,
    ]
    .map(Reason::Event);
    for reason in of_json.into_iter().chain(of_split) {
        let first = [Refusal { index: u32::MAX, reason }; REFUSALS_LISTED_MAX];
        let refusals = Refusals { first: &first, total: u32::MAX };
        let answer = Accepted {
            accepted: u32::MAX,
            refusals,
            position,
            ack: AckLevel::Durable,
            extent: Extent::Single { event_id: Some(&event_id) },
        };
        let mut buffer = vec![0; accepted_bytes_max(first.len(), event_id.len())];
        assert!(accepted(&mut buffer, &frame, &answer).is_ok(), "{reason:?}");
        let extra =
            Extra::RateLimit { limit: u64::MAX, remaining: u64::MAX, reset_s: u32::MAX, retry_after_s: u32::MAX };
        let answer = Refused { code: ErrorCode::Unauthorized, message: &event_id, refusals, extra };
        let mut buffer = vec![0; refused_bytes_max(first.len(), event_id.len())];
        assert!(refused(&mut buffer, &frame, &answer).is_ok(), "{reason:?}");
    }
}

#[test]
fn dates_are_as_http_writes_them() {
    for (unix_seconds, date) in [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
        (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
        (1_709_251_200, "Fri, 01 Mar 2024 00:00:00 GMT"),
        (1_767_225_599, "Wed, 31 Dec 2025 23:59:59 GMT"),
        (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        (13_569_465_600, "Sat, 01 Jan 2400 00:00:00 GMT"),
        (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
    ] {
        assert_eq!(String::from_utf8_lossy(&imf_fixdate(unix_seconds)), date);
    }
    assert!(imf_fixdate(u64::MAX).ends_with(b" GMT"));
}
