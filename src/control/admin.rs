//! What the admin port answers to which request. Control thread; no sockets here: those are in `admin_server.rs`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::prometheus::{self, Format};
use super::view::ServerView;

/// Longest request identifier that is echoed.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// As much of a request as decides the answer.
#[derive(Clone, Copy, Debug)]
pub struct AdminRequest<'a> {
    /// `GET`, `HEAD`, …
    pub method: &'a str,
    /// The path without its query.
    pub path: &'a str,
    /// The `Accept` header.
    pub accept: Option<&'a str>,
    /// The `X-Request-ID` header, or one made by the server.
    pub request_id: &'a str,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminAnswer {
    /// The status code.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// `Allow`, which a 405 must have.
    pub allow: Option<&'static str>,
    /// The body; HEAD is answered with its length and without it.
    pub body: String,
}

const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

/// Answers one request.
#[must_use]
pub fn answer(view: &ServerView, request: &AdminRequest<'_>) -> AdminAnswer {
    const PATHS: [&str; 7] = ["/", "/health", "/ready", "/metrics", "/api/metrics", "/api/plan", "/api/shards"];
    if !PATHS.contains(&request.path) {
        let message = format!("the admin port answers {}; events go to the data port", PATHS.join(", "));
        return refusal(404, "not_found", "NOT_FOUND", &message, request);
    }
    if !matches!(request.method, "GET" | "HEAD") {
        let message = "the admin port only shows: use GET or HEAD";
        let refusal = refusal(405, "method_not_allowed", "METHOD_NOT_ALLOWED", message, request);
        return AdminAnswer { allow: Some("GET, HEAD"), ..refusal };
    }
    let (content_type, body) = match request.path {
        "/health" => (JSON, health()),
        "/ready" => return ready(view),
        "/api/metrics" => (JSON, view.summary_json()),
        "/api/plan" => (JSON, view.plan_json.clone()),
        "/api/shards" => (JSON, view.blocks_json()),
        "/metrics" => {
            let format = Format::accepted(request.accept);
            (format.content_type(), prometheus::render(view, format))
        }
        _ => (HTML, view.page()),
    };
    AdminAnswer { status: 200, content_type, allow: None, body }
}

/// Healthy as long as it answers: the thread that would say otherwise is the one that answers.
fn health() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let timestamp = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    json!({"status": "healthy", "service": "tidegate", "timestamp": timestamp}).to_string()
}

fn ready(view: &ServerView) -> AdminAnswer {
    let readiness = view.readiness();
    let mut body = String::new();
    readiness.write_json(&mut body).expect("a String has room");
    let status = if readiness.is_ready() { 200 } else { 503 };
    AdminAnswer { status, content_type: JSON, allow: None, body }
}

fn refusal(status: u16, error: &str, code: &str, message: &str, request: &AdminRequest<'_>) -> AdminAnswer {
    let json = json!({
        "success": false,
        "error": error,
        "code": code,
        "message": message,
        "request_id": request.request_id,
    });
    AdminAnswer { status, content_type: JSON, allow: None, body: json.to_string() }
}

/// The client's identifier if it may be echoed: short, printable ASCII, nothing that needs quoting.
#[must_use]
pub fn echoed_request_id(header: Option<&[u8]>) -> Option<&str> {
    let id = std::str::from_utf8(header?).ok()?;
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()).then_some(id).filter(|id| id.bytes().all(plain))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use serde_json::Value;

    use super::super::config::Config;
    use super::super::host::made_up::host;
    use super::super::plan::Plan;
    use super::*;
    use crate::handoff::{FailureStage, WriterFailure, WriterState, WriterStatus};
    use crate::metrics::{Scale, ServerMetrics};

    fn view() -> ServerView {
        let plan = Plan::make(&Config::default(), &host(3, 1, 1)).unwrap();
        let scale = Scale { log_buffer_bytes: 32 << 20, target_utilization: 0.67, normal_ccu: 100 };
        let status = WriterStatus::default();
        status.set(WriterState::Running);
        ServerView::new(Arc::new(ServerMetrics::new(2, 1, scale)), vec![Arc::new(status)], &plan)
    }

    fn get<'a>(path: &'a str) -> AdminRequest<'a> {
        AdminRequest { method: "GET", path, accept: None, request_id: "r-1" }
    }

    fn json(view: &ServerView, path: &str) -> (u16, Value) {
        let answer = answer(view, &get(path));
        assert_eq!(answer.content_type, JSON);
        (answer.status, serde_json::from_str(&answer.body).unwrap())
    }

    #[test]
    fn every_route_answers() {
        let view = view();
        view.metrics.shards[1].connections_open.set(5);
        view.metrics.shards[1].ack_latency.record(1000);
        assert_eq!(json(&view, "/health").1["service"], "tidegate");
        assert_eq!(
            json(&view, "/ready"),
            (
                200,
                serde_json::json!({"ready": true, "checks": {
            "draining": "ok", "writer": "ok", "disk": "ok", "utilization": "ok", "queue": "ok"}})
            )
        );
        assert_eq!(json(&view, "/api/metrics").1["target_utilization"], 0.67);
        assert_eq!(json(&view, "/api/plan").1["shards"][1]["core"], 1);
        let (_, blocks) = json(&view, "/api/shards");
        assert_eq!(blocks["shards"][1]["shard"], 1);
        assert_eq!(blocks["shards"][1]["connections_open"], 5);
        assert_eq!(blocks["shards"][1]["ack_latency"]["count"], 1);
        assert_eq!(blocks["writers"][0]["state"], "running");
        assert_eq!(answer(&view, &get("/metrics")).content_type, Format::Text.content_type());
        let page = answer(&view, &get("/"));
        assert!(page.content_type.starts_with("text/html") && page.body.contains("shards   2 on cores 0-1"));
    }

    #[test]
    fn ready_turns_503_for_a_drain_and_for_a_failed_writer() {
        let view = view();
        view.draining.store(true, Ordering::Relaxed);
        let (status, body) = json(&view, "/ready");
        assert_eq!((status, &body["checks"]["draining"]), (503, &serde_json::json!("draining")));
        view.draining.store(false, Ordering::Relaxed);
        view.writers[0].set(WriterState::Full);
        assert_eq!(json(&view, "/ready").1["checks"]["disk"], "reserve_reached");
        view.writers[0].poison(WriterFailure { stage: FailureStage::Sync, errno: libc::EIO });
        let (status, body) = json(&view, "/ready");
        assert_eq!((status, &body["checks"]["writer"]), (503, &serde_json::json!("failed")));
        let failure = &json(&view, "/api/shards").1["writers"][0]["failure"];
        assert!(failure.as_str().unwrap().starts_with("syncing the log failed: Input/output error"));
    }

    #[test]
    fn what_is_not_there_and_what_is_not_allowed_are_told_apart() {
        let view = view();
        let missing = answer(&view, &AdminRequest { method: "POST", ..get("/v1/events") });
        let body: Value = serde_json::from_str(&missing.body).unwrap();
        assert_eq!((missing.status, missing.allow), (404, None));
        assert_eq!((&body["code"], &body["success"]), (&serde_json::json!("NOT_FOUND"), &serde_json::json!(false)));
        assert_eq!(body["request_id"], "r-1");
        let refused = answer(&view, &AdminRequest { method: "DELETE", ..get("/metrics") });
        let body: Value = serde_json::from_str(&refused.body).unwrap();
        assert_eq!((refused.status, refused.allow), (405, Some("GET, HEAD")));
        assert_eq!(body["code"], "METHOD_NOT_ALLOWED");
    }

    #[test]
    fn only_harmless_request_ids_are_echoed() {
        assert_eq!(echoed_request_id(Some(b"abc-123")), Some("abc-123"));
        let long = [b'a'; 65];
        for bad in [None, Some(&b""[..]), Some(b"a b"), Some(b"a\"b"), Some(b"a\\b"), Some(b"\xff"), Some(&long)] {
            assert_eq!(echoed_request_id(bad), None);
        }
    }
}
