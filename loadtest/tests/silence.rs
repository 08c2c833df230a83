//! A server that takes everything and answers nothing: what was waited for in vain is told as that and as nothing else.

mod support;

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};

use support::{load, number};

/// A server that reads and says nothing. It lives until the test ends.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            std::thread::spawn(move || std::io::copy(&mut client.unwrap().take(u64::MAX), &mut std::io::sink()));
        }
    });
    address
}

/// A load of a hundred requests a second on one connection, of which the first is given up after a second.
fn run(duration: &str) -> serde_json::Value {
    let target = server().to_string();
    let run = ["run", "--target", &target, "--check", "status", "--format", "single", "--connections", "1"];
    let shape = ["--pipeline", "100", "--rate", "100", "--duration", duration, "--warmup", "0s", "--interval", "50ms"];
    let rest = ["--timeout", "1s", "--drain", "120s", "--quiet", "--json", "-"];
    let output = load(&[&run[..], &shape, &rest].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn intervals_of_the_drain_follow_each_other() {
    // All but this is drain.
    let result = run("100ms");
    let points = result["intervals"].as_array().unwrap();
    assert!(points.iter().filter(|point| point["drain"] == true).count() >= 2, "{points:?}");
    for pair in points.windows(2) {
        let (ended, begins) = (number(&pair[0], "to_s"), number(&pair[1], "from_s"));
        assert!((ended - begins).abs() < 1e-9, "{pair:?}");
    }
}
