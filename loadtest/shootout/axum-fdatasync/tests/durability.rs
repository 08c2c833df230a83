//! What the rival's 202 promises at its default level, so that the shootout compares it with what promises the same.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const CONNECTIONS: usize = 4;
const EVENTS_PER_CONNECTION: usize = 50;

/// A server that is gone when the test is.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(data: &Path, wrapper: &[&str]) -> Self {
        // The server sets SO_REUSEPORT, so the port is held until it listens there too.
        let held = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        held.set_reuse_port(true).unwrap();
        held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = held.local_addr().unwrap().as_socket().unwrap();
        let mut command = wrapper.to_vec();
        let listen = address.to_string();
        command.extend([env!("CARGO_BIN_EXE_axum-fdatasync"), "--listen", &listen, "--data"]);
        let process = Command::new(command[0])
            .args(&command[1..])
            .arg(data)
            .args(["--file-bytes", "1048576"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut server = Self { process, address };
        let mut line = String::new();
        BufReader::new(server.process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("listening"), "{line}");
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already where the test killed it.
        let _ended = self.process.kill();
        self.process.wait().unwrap();
    }
}

/// Status of the answer to one event; None once the server is gone.
fn post(stream: &mut TcpStream, event: &str) -> Option<u16> {
    let head = "POST /v1/events HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length:";
    write!(stream, "{head} {}\r\n\r\n{event}", event.len()).ok()?;
    let mut answer = Vec::new();
    let mut bytes = [0; 1024];
    loop {
        let read = stream.read(&mut bytes).ok().filter(|read| *read > 0)?;
        answer.extend_from_slice(&bytes[..read]);
        let text = std::str::from_utf8(&answer).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        if body.len() == length.parse::<usize>().unwrap() {
            return Some(head["HTTP/1.1 ".len()..][..3].parse().unwrap());
        }
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path(), &[]);
    let address = server.address;
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|client| {
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                let event = |number: usize| format!("{{\"client\":{client},\"number\":{number}}}");
                let acked = |number: &usize| post(&mut stream, &event(*number)) == Some(202);
                (0..EVENTS_PER_CONNECTION).take_while(acked).map(event).collect::<Vec<_>>()
            })
        })
        .collect();
    let acked: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    assert_eq!(acked.len(), CONNECTIONS * EVENTS_PER_CONNECTION);
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    let stored = std::fs::read_to_string(data.path().join("00000000.ndjson")).unwrap();
    let stored: HashSet<_> = stored.trim_end_matches('\0').lines().collect();
    for event in &acked {
        assert!(stored.contains(event.as_str()), "{event} is lost");
    }
}

#[test]
fn nothing_is_acknowledged_before_its_sync_succeeded() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        let required = std::env::var_os("TIDEGATE_TEST_REQUIRE_ALL").is_some();
        assert!(!required, "strace is missing");
        eprintln!("SKIPPED nothing_is_acknowledged_before_its_sync_succeeded: needs strace");
        return;
    }
    let data = tempfile::tempdir().unwrap();
    // -D: the server is the child, strace hangs on it and ends with it. The third sync fails; the trace is not looked at.
    let wrapper = [
        "strace",
        "-D",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=fdatasync",
        "-e",
        "inject=fdatasync:error=EIO:when=3",
    ];
    let server = Server::start(data.path(), &wrapper);
    let mut stream = TcpStream::connect(server.address).unwrap();
    let statuses: Vec<_> = (0..5).map(|number| post(&mut stream, &format!("{{\"number\":{number}}}"))).collect();
    assert_eq!(statuses, [202, 202, 503, 503, 503].map(Some));
}
