//! The control plane as a process: what the admin port shows, what signals do, with which code it ends.
//!
//! Signals are the process's, so each test runs a child: this test binary again, asked for one test,
//! which plays the server when the environment names a role.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::super::config::Config;
use super::super::host::Host;
use super::super::plan::Plan;
use super::*;
use crate::handoff::{FailureStage, WriterFailure, WriterState, WriterStatus};
use crate::metrics::{Scale, ServerMetrics};

const ROLE: &str = "TIDEGATE_TEST_ROLE";
/// The test a child is asked for.
const PLAYER: &str = "control::plane::tests::it_answers_until_it_is_asked_to_stop_and_then_ends_with_0";
/// Longer than any test waits, so that what ends sooner did not end by this.
const NEVER: Duration = Duration::from_secs(3600);

/// What the child's threads do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    /// End when asked to.
    Drain,
    /// Never end.
    Stay,
    /// One is lost.
    Lose,
    /// The writer has failed; the server lingers for long.
    Fail,
    /// The writer has failed; the server does not linger.
    FailAtOnce,
}

const ROLES: [Role; 5] = [Role::Drain, Role::Stay, Role::Lose, Role::Fail, Role::FailAtOnce];

struct RoleThreads {
    role: Role,
    asked: bool,
}

impl Threads for RoleThreads {
    fn begin_drain(&mut self) {
        self.asked = true;
    }

    fn state(&mut self) -> ThreadsState {
        match self.role {
            Role::Drain if self.asked => ThreadsState::Ended,
            Role::Lose => ThreadsState::Lost("shard 7".to_owned()),
            _ => ThreadsState::Running,
        }
    }

    fn reload(&mut self) -> String {
        "reloaded nothing in particular".to_owned()
    }
}

/// The server in its role, to the end of the process.
fn play(role: &str) -> ! {
    let role = *ROLES.iter().find(|known| format!("{known:?}") == role).expect("a role");
    let plan = Plan::make(&Config::default(), &Host::inspect(Path::new("/"), "data").unwrap()).unwrap();
    let scale = Scale { log_buffer_bytes: 1, target_utilization: 0.67, normal_ccu: 100 };
    let status = Arc::new(WriterStatus::default());
    status.set(WriterState::Running);
    if matches!(role, Role::Fail | Role::FailAtOnce) {
        status.poison(WriterFailure { stage: FailureStage::Sync, errno: 5 });
    }
    let view = Arc::new(ServerView::new(Arc::new(ServerMetrics::new(1, 1, scale)), vec![status], &plan));
    let signals = Signals::install().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    writeln!(std::io::stdout(), "\nport {}", listener.local_addr().unwrap().port()).unwrap();
    let poison_linger = if role == Role::FailAtOnce { Duration::ZERO } else { NEVER };
    let plane =
        PlaneConfig { serves: "serving".to_owned(), core: plan.control_core, drain_timeout: NEVER, poison_linger };
    let mut threads = RoleThreads { role, asked: false };
    let outcome = run_control_plane(&view, listener, &signals, &mut threads, plane).unwrap();
    std::process::exit(outcome.exit_code().into());
}

struct Plane {
    child: Child,
    port: u16,
}

impl Plane {
    fn start(role: Role) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([PLAYER, "--exact", "--nocapture"])
            .env(ROLE, format!("{role:?}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| line.strip_prefix("port ")?.parse().ok());
        Self { child, port: port.expect("the child says its port") }
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Status and body; `None` if the connection was closed without an answer.
    fn try_get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head["HTTP/1.1 ".len()..][..3].parse().unwrap(), body.to_owned()))
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.try_get(path).expect("an answer")
    }

    /// Asks until the answer is as hoped; every look is a round trip, so the wait is bounded by their number.
    fn wait_for(&self, path: &str, hoped: impl Fn(u16, &str) -> bool) {
        for _ in 0..100_000 {
            if self.try_get(path).is_some_and(|(status, body)| hoped(status, &body)) {
                return;
            }
        }
        panic!("{path} never answered as hoped");
    }

    fn end(mut self) -> (ExitStatus, String) {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap(), said)
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // For tests that panic; a child that has ended already does not mind.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn it_answers_until_it_is_asked_to_stop_and_then_ends_with_0() {
    if let Ok(role) = std::env::var(ROLE) {
        play(&role);
    }
    for signal in ["TERM", "INT"] {
        let plane = Plane::start(Role::Drain);
        for path in ["/", "/health", "/ready", "/metrics", "/api/metrics", "/api/plan", "/api/shards"] {
            assert_eq!(plane.get(path).0, 200, "{path}");
        }
        assert_eq!(plane.get("/v1/events").0, 404);
        plane.signal(signal);
        let (status, said) = plane.end();
        assert_eq!(status.code(), Some(0), "{said}");
        assert!(said.contains("tidegate: draining: no new connections"), "{said}");
    }
}

#[test]
fn requests_on_one_connection_are_answered_in_turn() {
    let plane = Plane::start(Role::Drain);
    let mut stream = TcpStream::connect(("127.0.0.1", plane.port)).unwrap();
    let requests = "GET /health HTTP/1.1\r\nHost: t\r\n\r\nHEAD /api/plan HTTP/1.1\r\nHost: t\r\nX-Request-ID: mine-2\r\n\r\n\
                    DELETE /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    stream.write_all(requests.as_bytes()).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    let codes: Vec<&str> = answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
    assert_eq!(codes, ["200", "200", "405"]);
    assert!(answers.contains("x-request-id: mine-2\r\n") && answers.contains("allow: GET, HEAD\r\n"));
    assert!(!answers.contains("\"memlock\""), "HEAD has no body: {answers}");
}

#[test]
fn a_drain_shows_as_not_ready_and_a_second_signal_ends_it_at_once() {
    let plane = Plane::start(Role::Stay);
    assert_eq!(plane.get("/ready").0, 200);
    plane.signal("TERM");
    plane.wait_for("/ready", |status, body| status == 503 && body.contains("\"draining\":\"draining\""));
    plane.signal("TERM");
    assert_eq!(plane.end().0.code(), Some(128 + 15));
}

#[test]
fn sighup_reloads_and_changes_nothing_else() {
    let plane = Plane::start(Role::Drain);
    plane.signal("HUP");
    assert_eq!(plane.get("/ready").0, 200);
    plane.signal("TERM");
    let (status, said) = plane.end();
    assert_eq!(status.code(), Some(0));
    assert!(said.contains("tidegate: SIGHUP: reloaded nothing in particular"), "{said}");
}

#[test]
fn a_failed_writer_shows_as_not_ready_and_ends_with_5() {
    let plane = Plane::start(Role::Fail);
    let (status, body) = plane.get("/ready");
    assert_eq!((status, body.contains("\"writer\":\"failed\"")), (503, true), "{body}");
    assert_eq!(plane.get("/health").0, 200, "it lives, so that it can say what is wrong");
    plane.signal("TERM");
    assert_eq!(plane.end().0.code(), Some(5));

    let (status, said) = Plane::start(Role::FailAtOnce).end();
    assert_eq!(status.code(), Some(5));
    assert!(
        said.contains("tidegate: syncing the log failed: Input/output error (os error 5); nothing more is"),
        "{said}"
    );
}

#[test]
fn a_lost_thread_ends_the_server_with_3() {
    assert_eq!(Plane::start(Role::Lose).end().0.code(), Some(3));
}

#[test]
fn connections_beyond_the_bound_are_closed_and_others_stay() {
    let plane = Plane::start(Role::Drain);
    let connect = || TcpStream::connect(("127.0.0.1", plane.port)).unwrap();
    let kept: Vec<TcpStream> = (0..64).map(|_| connect()).collect();
    let mut byte = [0];
    assert_eq!(connect().read(&mut byte).unwrap_or(0), 0, "the 65th is closed");
    let mut first = &kept[0];
    first.write_all(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    first.read_exact(&mut byte).unwrap();
    drop(kept);
    plane.wait_for("/health", |status, _| status == 200);
}
