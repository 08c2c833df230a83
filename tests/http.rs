//! Every route, status and code of the interface contract, asked over a raw socket.

mod support;

use serde_json::{Value, json};
use support::bodies::{self, Form, bare, post};
use support::client::{Client, Response};
use support::observe;
use support::server::{Server, Setup};
use support::wait;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

fn post_json(body: &str) -> Vec<u8> {
    post("/v1/events", JSON, "", body.as_bytes())
}

fn post_lines(body: &str) -> Vec<u8> {
    post("/v1/events", NDJSON, "", body.as_bytes())
}

#[track_caller]
fn assert_accepted(response: Response, accepted: u64, rejected: u64) -> Value {
    let json = response.expect(202).json();
    assert_eq!(json["success"], true, "{json}");
    assert_eq!((&json["data"]["accepted"], &json["data"]["rejected"]), (&json!(accepted), &json!(rejected)), "{json}");
    json
}

#[test]
fn a_single_event_is_accepted_with_its_id() {
    let server = Server::shared();
    let response = server.ask(&post_json(r#"{"event_id":"mine-1","app_id":"a"}"#));
    assert_eq!(response.header("content-type").map(|value| value.starts_with(JSON)), Some(true));
    let request_id = response.header("x-request-id").expect("made where none was sent").to_owned();
    let json = assert_accepted(response, 1, 0);
    assert_eq!(json["data"]["event_id"], "mine-1");
    assert_eq!(json["data"]["events_count"], 1);
    assert_eq!(json["data"]["ack"], "durable");
    assert_eq!(json["request_id"], request_id.as_str());
    assert!(json["message"].is_string() && json["data"]["batch_id"].is_string(), "{json}");
    let position = json["data"]["position"].as_str().expect("a position");
    assert!(position.parse::<tidegate::base::Position>().is_ok(), "{position}");
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let stamped = json["timestamp"].as_u64().expect("unix milliseconds");
    assert!(now_ms.abs_diff(stamped) < 3_600_000, "{stamped} is not about {now_ms}");
}

#[test]
fn a_single_event_without_an_id_gets_its_position_as_one() {
    let server = Server::shared();
    let json = assert_accepted(server.ask(&post_json(r#"{"app_id":"a"}"#)), 1, 0);
    assert_eq!(json["data"]["event_id"], json["data"]["position"], "{json}");
}

#[test]
fn every_shape_is_taken_on_both_routes() {
    let server = Server::shared();
    let one = r#"{"a":1}"#;
    let array = format!("[{one}, {one} ,{one}]");
    let lines = format!("{one}\n{one}\r\n\n{one}");
    for route in ["/v1/events", "/v1/events/batch"] {
        assert_accepted(server.ask(&post(route, JSON, "", one.as_bytes())), 1, 0);
        assert_accepted(server.ask(&post(route, JSON, "", array.as_bytes())), 3, 0);
        for content_type in [NDJSON, "application/jsonl", "application/json-lines"] {
            assert_accepted(server.ask(&post(route, content_type, "", lines.as_bytes())), 3, 0);
        }
    }
    for envelope in [
        format!(r#"{{"events":{array}}}"#),
        format!(r#"{{"source":{{"events":[1]}},"events":{array},"note":"]}}"}}"#),
        format!("\n{{ \"events\" :\t{array}\r\n}}\n"),
    ] {
        assert_accepted(server.ask(&post("/v1/events/batch", JSON, "", envelope.as_bytes())), 3, 0);
    }
}

#[test]
fn on_the_events_route_an_object_with_events_is_one_event() {
    let server = Server::shared();
    assert_accepted(server.ask(&post_json(r#"{"events":[{"a":1},{"a":2}]}"#)), 1, 0);
}

#[test]
fn content_type_parameters_and_case_are_accepted() {
    let server = Server::shared();
    for content_type in ["application/json; charset=utf-8", "Application/JSON", "application/json;charset=\"utf-8\""] {
        assert_accepted(server.ask(&post("/v1/events", content_type, "", b"{}")), 1, 0);
    }
}

#[test]
fn invalid_events_are_listed_and_do_not_take_the_valid_down() {
    let server = Server::shared();
    let json = assert_accepted(server.ask(&post_lines("{\"a\":1}\n{\"a\":}\n{\"a\":3}\n[1]\n{\"a\":5}\n")), 3, 2);
    assert_eq!(json["data"]["events_count"], 3, "{json}");
    let errors = json["data"]["errors"].as_array().expect("the invalid ones");
    let seen: Vec<_> = errors.iter().map(|error| (error["index"].as_u64(), error["code"].as_str())).collect();
    assert_eq!(seen, [(Some(1), Some("INVALID_JSON")), (Some(3), Some("INVALID_JSON"))]);
    assert!(errors.iter().all(|error| error["message"].as_str().is_some_and(|text| !text.is_empty())), "{json}");

    let json = assert_accepted(server.ask(&post_json(r#"[{"a":1},{"a" 2},{"a":3}]"#)), 2, 1);
    assert_eq!(json["data"]["errors"][0]["index"], 1);
}

#[test]
fn lines_are_never_joined_to_make_an_event() {
    let server = Server::shared();
    server.ask(&post_lines("{\"a\":1\n\"b\":2}\n")).expect_error(400, "INVALID_JSON");
}

#[test]
fn only_the_first_hundred_errors_are_listed() {
    let server = Server::shared();
    let body = format!("{{}}\n{}", "{nope\n".repeat(150));
    let json = assert_accepted(server.ask(&post_lines(&body)), 1, 150);
    let errors = json["data"]["errors"].as_array().expect("the invalid ones");
    let indexes: Vec<_> = errors.iter().map(|error| error["index"].as_u64().expect("an index")).collect();
    assert_eq!(indexes, (1..=100).collect::<Vec<_>>());
    assert_eq!(json["data"]["errors_omitted"], 50);
}

#[test]
fn what_follows_a_valid_event_does_not_take_it_down() {
    let server = Server::shared();
    for body in ["[{},", "[{}", "[{}] x", "[{} {}]"] {
        let json = assert_accepted(server.ask(&post_json(body)), 1, 1);
        assert_eq!(json["data"]["errors"][0]["index"], 1, "{body}: {json}");
    }
}

#[test]
fn what_holds_no_valid_event_is_refused() {
    let server = Server::shared();
    for body in
        ["{", "nope", "1", "\"text\"", "null", "[1]", "[{]", "{\"a\":1}}", "{\"a\":1} {\"b\":2}", "{\"a\":\"\u{1}\"}"]
    {
        server.ask(&post_json(body)).expect_error(400, "INVALID_JSON");
    }
    for body in [&b"{\"a\":\"\xff\"}"[..], b"{\"a\":\"\xed\xa0\x80\"}", b"\xef\xbb\xbf{}"] {
        server.ask(&post("/v1/events", JSON, "", body)).expect_error(400, "INVALID_JSON");
    }
    for body in ["", " \r\n\t", "[]", "[ ]"] {
        server.ask(&post_json(body)).expect_error(400, "EMPTY_BATCH");
    }
    server.ask(&post_lines("\n\r\n \n")).expect_error(400, "EMPTY_BATCH");
    server.ask(&post("/v1/events/batch", JSON, "", br#"{"events":[]}"#)).expect_error(400, "EMPTY_BATCH");
}

#[test]
fn an_atomic_batch_is_stored_whole_or_not_at_all() {
    let server = Setup::new().start();
    let send = |atomic: &str, body: &str| {
        server.ask(&post(&format!("/v1/events?atomic={atomic}"), NDJSON, "", body.as_bytes()))
    };
    send("true", "{\"n\":1}\n{\"n\":2\n{\"n\":3}\n").expect_error(400, "INVALID_JSON");
    send("1", "nope\n").expect_error(400, "INVALID_JSON");
    assert_accepted(send("true", "{\"n\":4}\n{\"n\":5}\n"), 2, 0);
    assert_accepted(send("false", "{\"n\":6}\nnope\n"), 1, 1);
    // The last one is durable, so all that was to be stored before it is in the log.
    assert_eq!(observe::cat(&server.data()), [b"{\"n\":4}", b"{\"n\":5}", b"{\"n\":6}"]);
}

/// Sent at once, so that later requests find the chunk begun and the shape of their events known: what is placed together
/// must not be taken for another request's, nor an atomic batch for one that is not.
#[test]
fn requests_that_share_a_chunk_stay_apart() {
    let server = Setup::new().start();
    let mut client = server.connect();
    let lines = |query: &str, body: &str| post(&format!("/v1/events{query}"), NDJSON, "", body.as_bytes());
    let requests = [
        lines("", "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n"),
        lines("?atomic=true", "{\"n\":4}\n{\"n\":5}\n{\"n\":}\n"),
        lines("", "{\"n\":6}\n{\"n\":7}\n{\"n\":}\n{\"n\":8}\n"),
        post_json("[{\"n\":9},{\"n\":10}]"),
        lines("?atomic=true", "{\"n\":11}\n{\"n\":12}\n"),
    ];
    client.send(&requests.concat());
    let mut positions = Vec::new();
    for (accepted, rejected) in [(3, 0), (0, 1), (3, 1), (2, 0), (2, 0)] {
        let response = client.receive();
        if accepted == 0 {
            response.expect_error(400, "INVALID_JSON");
            continue;
        }
        let json = assert_accepted(response, accepted, rejected);
        let position: tidegate::base::Position = json["data"]["position"].as_str().unwrap().parse().unwrap();
        positions.push((position.seq, position.index));
    }
    assert!(positions.is_sorted(), "{positions:?}");
    let stored: Vec<String> = [1, 2, 3, 6, 7, 8, 9, 10, 11, 12].iter().map(|n| format!("{{\"n\":{n}}}")).collect();
    assert_eq!(observe::cat(&server.data()), stored.iter().map(|event| event.as_bytes().to_vec()).collect::<Vec<_>>());
    let bytes: usize = stored.iter().map(String::len).sum();
    let metrics = Client::connect(server.admin()).ask(&bare("GET", "/metrics", "")).expect(200);
    let counted = format!("tidegate_event_bytes_total{{shard=\"0\"}} {bytes}\n");
    assert!(metrics.text().contains(&counted), "{counted} is not in {}", metrics.text());
}

#[test]
fn echo_gives_the_body_back_and_stores_nothing() {
    let server = Setup::new().start();
    for body in [r#"{"a":[1,2.5,null,true,"ü\n"],"b":{}}"#, "[1,2]", "\"x\"", "7"] {
        let json = server.ask(&post("/api/echo", JSON, "", body.as_bytes())).expect(200).json();
        assert_eq!(json["echo"], serde_json::from_str::<Value>(body).unwrap());
        assert_eq!(json["message"], "Echo successful");
    }
    server.ask(&post("/api/echo", JSON, "", b"{nope")).expect_error(400, "INVALID_JSON");
    assert_accepted(server.ask(&post_json("{}")), 1, 0);
    assert_eq!(observe::cat(&server.data()), [b"{}"]);
}

#[test]
fn health_ready_and_metrics_answer_on_both_ports() {
    let server = Server::shared();
    for address in [server.listen(), server.admin()] {
        let ask = |route| support::client::Client::connect(address).ask(&bare("GET", route, ""));
        let health = ask("/health").expect(200).json();
        assert_eq!((&health["status"], &health["service"]), (&json!("healthy"), &json!("tidegate")), "{health}");
        assert!(!health["timestamp"].is_null(), "{health}");
        let ready = ask("/ready").expect(200).json();
        assert_eq!(ready["ready"], true);
        assert!(ready["checks"].is_object(), "{ready}");
        let metrics = ask("/api/metrics").expect(200).json();
        for field in [
            "total_requests",
            "successful_requests",
            "rejected_requests",
            "error_requests",
            "events_total",
            "events_per_second",
            "utilization",
            "target_utilization",
            "queue_utilization",
            "current_ccu",
            "normal_ccu",
            "avg_latency_ms",
            "p99_latency_ms",
        ] {
            assert!(metrics[field].is_number(), "{field} in {metrics}");
        }
        assert!(metrics["backpressure_active"].is_boolean(), "{metrics}");
    }
}

#[test]
fn what_was_accepted_is_counted() {
    let server = Setup::new().start();
    let counts = || ["events", "events_rejected", "requests_error"].map(|name| observe::shard_metric(&server, name, 0));
    // Who waited for the server may have been told that it is not ready yet.
    let errors = counts()[2].expect("a metric");
    assert_accepted(server.ask(&post_lines("{}\n{}\nnope\n")), 2, 1);
    server.ask(&post_json("nope")).expect(400);
    wait::until("the counters to show two requests", || {
        (counts() == [Some(2), Some(2), Some(errors + 1)]).then_some(())
    });
}

#[test]
fn head_answers_like_get_without_a_body() {
    let server = Server::shared();
    let mut client = server.connect();
    client.send(&bare("HEAD", "/health", ""));
    let head = client.receive_head().expect(200);
    assert!(head.header("content-length").is_some_and(|length| length != "0"), "{head:?}");
    client.ask(&bare("GET", "/health", "")).expect(200);
}

#[test]
fn unknown_paths_and_methods_are_told() {
    let server = Server::shared();
    for route in ["/", "/v1", "/v1/event", "/v1/events/", "/v1/events/batch/x", "/healthz", "/V1/EVENTS"] {
        server.ask(&bare("GET", route, "")).expect_error(404, "NOT_FOUND");
    }
    for (method, route, allowed) in [
        ("GET", "/v1/events", "POST"),
        ("GET", "/v1/events/batch", "POST"),
        ("GET", "/api/echo", "POST"),
        ("POST", "/health", "GET"),
        ("DELETE", "/ready", "GET"),
        ("POST", "/api/metrics", "GET"),
        ("PUT", "/v1/events", "POST"),
    ] {
        let response =
            server.ask(&bare(method, route, "Content-Length: 0\r\n")).expect_error(405, "METHOD_NOT_ALLOWED");
        let allow = response.header("allow").expect("405 says what is allowed");
        assert!(allow.split(", ").any(|method| method == allowed), "{route}: {allow}");
        assert!(!allow.split(", ").any(|name| name == method), "{route}: {allow}");
    }
}

#[test]
fn the_connection_outlives_a_refusal_whose_body_was_read() {
    let server = Server::shared();
    let mut client = server.connect();
    client.ask(&post_json("nope")).expect_error(400, "INVALID_JSON");
    client.ask(&bare("GET", "/nowhere", "")).expect_error(404, "NOT_FOUND");
    assert_accepted(client.ask(&post_json("{}")), 1, 0);
}

#[test]
fn other_media_types_and_encodings_are_refused() {
    let server = Server::shared();
    for content_type in ["text/plain", "application/xml", "application/jsonx", "multipart/form-data"] {
        server.ask(&post("/v1/events", content_type, "", b"{}")).expect_error(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    for encoding in ["br", "deflate", "gzip, gzip", "x"] {
        let headers = format!("Content-Encoding: {encoding}\r\n");
        server.ask(&post("/v1/events", JSON, &headers, b"{}")).expect_error(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    assert_accepted(server.ask(&post("/v1/events", JSON, "Content-Encoding: identity\r\n", b"{}")), 1, 0);
}

#[test]
fn the_request_id_is_echoed_or_made_and_never_injects() {
    let server = Server::shared();
    let ask = |id: &str| server.ask(&post("/v1/events", JSON, &format!("X-Request-ID: {id}\r\n"), b"{}")).expect(202);
    let response = ask("req-42.a_B");
    assert_eq!(response.header("x-request-id"), Some("req-42.a_B"));
    assert_eq!(response.json()["request_id"], "req-42.a_B");
    for bad in ["a\"b", "a\\b", &"x".repeat(500)] {
        let response = ask(bad);
        let made = response.header("x-request-id").expect("one was made").to_owned();
        assert!(!made.contains(['"', '\\']) && made.len() <= 64, "{made}");
        assert_eq!(response.json()["request_id"], made.as_str());
    }
    let ids: std::collections::HashSet<String> =
        (0..20).map(|_| server.ask(&post_json("{}")).header("x-request-id").expect("made").to_owned()).collect();
    assert_eq!(ids.len(), 20, "ids are unique");
    let refused = server.ask(&post("/v1/events", JSON, "X-Request-ID: e-7\r\n", b"nope")).expect(400);
    assert_eq!((refused.header("x-request-id"), &refused.json()["request_id"]), (Some("e-7"), &json!("e-7")));
}

#[test]
fn the_ack_level_is_the_one_asked_for() {
    let server = Server::shared();
    for level in ["durable", "written", "memory"] {
        let json = assert_accepted(server.ask(&post("/v1/events", JSON, &format!("X-Ack: {level}\r\n"), b"{}")), 1, 0);
        assert_eq!(json["data"]["ack"], level);
    }
    server.ask(&post("/v1/events", JSON, "X-Ack: fsync\r\n", b"{}")).expect_error(400, "BAD_REQUEST");
    let server = Setup::new().set("ack", "memory").start();
    assert_eq!(server.ask(&post_json("{}")).json()["data"]["ack"], "memory");
}

#[test]
fn positions_ascend_in_the_order_of_one_connection() {
    let server = Server::shared();
    let mut client = server.connect();
    let mut last = None;
    for _ in 0..50 {
        let json = client.ask(&post_json("{}")).expect(202).json();
        let position: tidegate::base::Position = json["data"]["position"].as_str().unwrap().parse().unwrap();
        let place = (position.writer, position.shard, position.seq, position.index);
        assert!(last < Some(place), "{last:?} then {place:?}");
        last = Some(place);
    }
}

#[test]
fn compressed_bodies_are_taken_and_bad_ones_refused() {
    let server = Server::shared();
    let lines = "{\"a\":1}\n".repeat(1000);
    let send = |encoding: &str, body: &[u8]| {
        server.ask(&post("/v1/events", NDJSON, &format!("Content-Encoding: {encoding}\r\n"), body))
    };
    let gzip = bodies::gzip(lines.as_bytes());
    let zstd = bodies::zstd(lines.as_bytes());
    assert_accepted(send("gzip", &gzip), 1000, 0);
    assert_accepted(send("GZIP", &gzip), 1000, 0);
    assert_accepted(send("zstd", &zstd), 1000, 0);
    // Several members and frames are one body (RFC 1952 §2.2, RFC 8878 §3.1).
    assert_accepted(send("gzip", &[gzip.as_slice(), &gzip].concat()), 2000, 0);
    assert_accepted(send("zstd", &[zstd.as_slice(), &zstd].concat()), 2000, 0);
    for (encoding, body) in [("gzip", &gzip), ("zstd", &zstd)] {
        send(encoding, &body[..body.len() - 1]).expect(400);
        send(encoding, b"not compressed at all").expect(400);
        send(encoding, &[body.as_slice(), b"trailing"].concat()).expect(400);
    }
    // The last eight bytes of a gzip member are the checksum and the length of what it holds.
    for from_end in [1, 8] {
        let mut damaged = gzip.clone();
        let at = damaged.len() - from_end;
        damaged[at] ^= 0x55;
        send("gzip", &damaged).expect(400);
    }
}

#[test]
fn the_admin_port_shows_plan_shards_and_metrics() {
    let server = Setup::new().set("shards", 2).start();
    let plan = server.ask_admin("/api/plan").expect(200).json();
    assert!(plan.is_object(), "{plan}");
    let shards = server.ask_admin("/api/shards").expect(200).json();
    let list = shards.as_array().or_else(|| shards["shards"].as_array()).expect("a list of shards");
    assert_eq!(list.len(), 2, "{shards}");
    let response = server.ask_admin("/metrics").expect(200);
    assert!(response.header("content-type").is_some_and(|value| value.starts_with("text/plain")), "{response:?}");
    for shard in ["0", "1"] {
        for name in ["events", "requests", "connections_open", "received_bytes"] {
            let label = format!("shard=\"{shard}\"");
            assert!(observe::metric(&response.text(), name, &label).is_some(), "{name} of shard {shard}");
        }
    }
    server.ask_admin("/").expect(200);
    server.ask_admin("/nowhere").expect_error(404, "NOT_FOUND");
}

#[test]
fn one_connection_may_mix_every_shape_encoding_and_framing() {
    let server = Server::shared();
    let mut client = server.connect();
    for shape in bodies::SHAPES {
        for encoding in bodies::ENCODINGS {
            for framing in bodies::FRAMINGS {
                let form = Form { shape, encoding, framing };
                assert_accepted(client.ask(&form.request(&[b"{\"a\":\"b\"}".to_vec()], "")), 1, 0);
            }
        }
    }
}

/// However far ahead: what the server has not answered yet is not unread.
#[test]
fn a_client_that_pipelines_and_reads_all_the_time_is_answered() {
    let server = Setup::new().set("receive_buffers", 1024).set("pool_bytes", "64MiB").start();
    let events = format!("[{}]", [r#"{"a":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#; 16].join(","));
    let mut client = server.connect();
    let mut sender = client.sender();
    let requests = post("/v1/events", JSON, "", events.as_bytes()).repeat(8_000);
    let sending = std::thread::spawn(move || sender.try_send(&requests));
    for number in 0..8_000 {
        let answer = client.try_receive().unwrap_or_else(|error| panic!("answer {number}: {error}"));
        answer.expect(202);
    }
    sending.join().expect("the sender ends").expect("all was taken");
}

/// The answer is there to be read by a client that reads when it has sent all, as many do.
#[test]
fn a_refusal_outlives_the_body_it_refuses() {
    let server = Server::shared();
    let body = vec![b'x'; 15 << 20];
    for _ in 0..5 {
        server.ask(&post("/nowhere", JSON, "", &body)).expect_error(404, "NOT_FOUND");
        server.ask(&post("/v1/events", "text/plain", "", &body)).expect_error(415, "UNSUPPORTED_MEDIA_TYPE");
    }
}

/// Whatever a client did, its answer counts once, and in the whole.
#[test]
fn every_answer_is_counted_once() {
    let server = Setup::new().start();
    let summary = || server.ask_admin("/api/metrics").expect(200).json();
    let outcomes = |json: &Value| {
        ["successful_requests", "rejected_requests", "error_requests"].map(|name| json[name].as_u64().expect("a count"))
    };
    let before = summary();
    let ask = |status: u16, request: &[u8]| assert_eq!(server.ask(request).status, status);
    ask(202, &post("/v1/events", JSON, "", b"{}"));
    ask(202, &post("/v1/events", JSON, "X-Ack: memory\r\n", b"{}"));
    ask(202, &post("/v1/events", JSON, "X-Ack: written\r\n", b"{}"));
    ask(400, &post("/v1/events", JSON, "", b"{nope"));
    ask(404, &bare("GET", "/nowhere", ""));
    ask(405, &bare("GET", "/v1/events", ""));
    ask(415, &post("/v1/events", "text/plain", "", b"{}"));
    ask(431, &bare("GET", "/health", &format!("X-Long: {}\r\n", "x".repeat(20_000))));
    ask(400, b"POST /v1/events HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n");
    ask(200, &bare("GET", "/health", ""));
    let after = wait::until("the counts", || {
        let json = summary();
        let total = json["total_requests"].as_u64()? - before["total_requests"].as_u64()?;
        (total >= 10).then_some(json)
    });
    let (from, to) = (outcomes(&before), outcomes(&after));
    assert_eq!([0, 1, 2].map(|index| to[index] - from[index]), [4, 0, 6]);
    assert_eq!(after["total_requests"].as_u64().unwrap() - before["total_requests"].as_u64().unwrap(), 10);
    let text = server.ask_admin("/metrics").expect(200).text();
    assert!(text.contains("tidegate_ack_latency_seconds_count{shard=\"0\"} 3\n"), "{text}");
}
