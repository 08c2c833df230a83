//! Answers that no request was waiting for: each is counted, and the run that met one is not valid.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use support::{load, number};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A server that gives every request the same bytes, and closes behind them if they say so. It lives until the test ends.
fn server(reply: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let reply = reply.clone();
            std::thread::spawn(move || answer_all(client.unwrap(), &reply));
        }
    });
    address
}

/// Ends with the connection.
fn answer_all(mut client: TcpStream, reply: &str) -> std::io::Result<()> {
    let (mut pending, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        while let Some(length) = request_length(&pending) {
            pending.drain(..length);
            client.write_all(reply.as_bytes())?;
            if reply.contains("Connection: close") {
                return Ok(());
            }
        }
        let read = client.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        pending.extend_from_slice(&buffer[..read]);
    }
}

/// Bytes of the request at the front, if it is whole.
fn request_length(pending: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(pending).unwrap();
    let head = text.find("\r\n\r\n")? + 4;
    let length = text[..head].lines().find_map(|line| line.strip_prefix("Content-Length: "))?;
    let whole = head + length.trim().parse::<usize>().unwrap();
    (text.len() >= whole).then_some(whole)
}

fn run(check: &str, reply: String) -> (serde_json::Value, i32, String) {
    let target = server(reply).to_string();
    let run = ["run", "--target", &target, "--check", check, "--format", "single", "--connections", "4"];
    let rest = ["--warmup", "0s", "--duration", "200ms", "--json", "-", "--allow-bottleneck", "--rate", "100"];
    let output = load(&[&run[..], &rest].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}")), output.status.code().unwrap(), said)
}

/// A whole answer, or the beginning of something.
#[test]
fn an_answer_too_many_is_an_error_and_makes_the_run_invalid() {
    for reply in
        [ANSWER.repeat(2), ANSWER.repeat(3), format!("{ANSWER}HTTP/1.1 2"), format!("{ANSWER}no answer\r\n\r\n")]
    {
        let (result, code, said) = run("status", reply.clone());
        assert!(number(&result, "outcomes.accepted") > 0.0, "{reply}: {result}");
        let unsolicited = number(&result, "outcomes.unsolicited");
        assert!(unsolicited > 0.0 && number(&result, "errors") >= unsolicited, "{reply}: {}", result["outcomes"]);
        assert_eq!((code, result["valid"].as_bool()), (5, Some(false)), "{reply}: {said}");
        assert!(said.contains("no request was waiting for"), "{reply}: {said}");
    }
}

/// One answer each is what is asked for; a 408 is how a server ends a connection on which nothing was asked.
#[test]
fn one_answer_each_and_a_timeout_of_an_idle_connection_are_no_error() {
    let idle = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for reply in [ANSWER.to_owned(), format!("{ANSWER}{idle}")] {
        let (result, code, said) = run("status", reply.clone());
        assert_eq!(code, 0, "{reply}: {result}{said}");
        for wrong in ["unsolicited", "bad_response", "connection_lost"] {
            assert_eq!(result["outcomes"][wrong], 0, "{reply}: {}", result["outcomes"]);
        }
        assert_eq!(result["statuses"]["408"].is_null(), reply == ANSWER, "{reply}: {}", result["statuses"]);
    }
}

/// Who waits for no answer has none too many.
#[test]
fn answers_that_nobody_looks_at_are_dropped() {
    let (result, code, said) = run("nothing", ANSWER.repeat(2));
    assert!(code == 0 && number(&result, "outcomes.accepted") > 0.0, "{result}{said}");
    for wrong in ["unsolicited", "bad_response", "connection_lost"] {
        assert_eq!(result["outcomes"][wrong], 0, "{}", result["outcomes"]);
    }
}
