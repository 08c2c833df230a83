//! From start to end as an operator sees it: signals, listeners, and whoever reads what the server says.

mod support;

use std::io::Write as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::mpsc;
use std::time::Duration;

use support::bodies::{bare, post};
use support::client::Client;
use support::observe;
use support::ports::Lease;
use support::server::{Server, Setup};
use support::wait::until;

/// Longest silence of a server that has something to say.
const SAID_WITHIN: Duration = Duration::from_secs(60);
const JSON: &str = "application/json";

/// A client in the middle of a request's body, and the rest of it.
fn half_sent(server: &Server) -> (Client, Vec<u8>) {
    let mut client = until("a connection with room for it", || {
        let mut client = server.connect();
        client.try_send(&bare("GET", "/health", "")).ok()?;
        (client.try_receive().ok()?.status == 200).then_some(client)
    });
    let request = post("/v1/events", JSON, "Expect: 100-continue\r\n", b"{\"half\":1}");
    let (front, rest) = request.split_at(request.len() - 5);
    client.ask(front).expect(100);
    (client, rest.to_vec())
}

fn finish((mut client, rest): (Client, Vec<u8>)) {
    client.ask(&rest).expect(202);
}

#[test]
fn while_it_drains_nobody_is_let_in_by_any_shard() {
    let mut server = Setup::new().set("shards", 4).start();
    let client = half_sent(&server);
    server.ask_to_end();
    until("connections to be refused", || Client::try_connect(server.listen()).is_err().then_some(()));
    // The kernel spreads connections over the sockets that listen: it takes some to meet one of four.
    assert!((0..50).all(|_| Client::try_connect(server.listen()).is_err()), "a shard that has drained still listens");
    finish(client);
    assert_eq!(server.wait_for_exit().code(), Some(0), "{}", server.log());
}

/// An accept that failed for want of a slot is tried again, on the listener where it failed and nowhere else.
#[test]
fn after_too_many_connections_every_listener_can_still_be_closed() {
    let second = Lease::take();
    let mut server = Setup::new().set("connections_per_shard_max", 4).listen_too(second.address()).start();
    let accepted = || observe::shard_metric(&server, "connections_accepted", 0).expect("a shard counts them");
    let before = accepted();
    // There are 64 slots more than connections: enough to say no to.
    let crowd: Vec<_> = (0..120).map(|_| server.connect()).collect();
    until("the slots to be used up", || (accepted() >= before + 68).then_some(()));
    // Each time round the failed accept is tried again once a tick at most.
    let ticks = || observe::shard_metric(&server, "turns", 0).expect("a shard counts its turns");
    let goal = ticks() + 40;
    until("some ticks to pass", || (ticks() >= goal).then_some(()));
    drop(crowd);
    let client = half_sent(&server);
    server.ask_to_end();
    for address in [server.listen(), second.address()] {
        until("connections to be refused", || Client::try_connect(address).is_err().then_some(()));
    }
    finish(client);
    assert_eq!(server.wait_for_exit().code(), Some(0), "{}", server.log());
}

#[test]
fn a_drain_is_a_success_if_only_idle_connections_are_cut_off() {
    let mut server = Setup::new().set("drain_timeout", "0s").start();
    let mut idle = server.connect();
    idle.ask(&bare("GET", "/health", "")).expect(200);
    let silent = server.connect();
    until("both to be counted", || (observe::shard_metric(&server, "connections_open", 0) == Some(2)).then_some(()));
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log());
    drop(silent);
}

#[test]
fn a_server_outlives_whoever_read_what_it_says() {
    let mut server = Setup::new().leave_output().start();
    drop(server.take_output());
    server.signal("HUP");
    server.ask(&post("/v1/events", JSON, "X-Ack: memory\r\n", b"{\"n\":1}")).expect(202);
    assert_eq!(server.terminate().code(), Some(0));
    assert_eq!(observe::cat(&server.data()), [b"{\"n\":1}"], "a drain keeps memory events too");
}

#[test]
fn a_server_does_not_wait_for_whoever_reads_what_it_says() {
    let mut server = Setup::new().leave_output().start();
    let (unread, mut full) = server.take_output();
    let (filled, fills) = mpsc::channel();
    // Ends with the pipe: for as long as nobody reads, a piece of it is always waiting.
    let filler = std::thread::spawn(move || {
        while full.write_all(&[b'.'; 4096]).is_ok() {
            let _the_test_looks_no_more = filled.send(());
        }
    });
    // A pipe holds sixteen pages (pipe(7)), and the server has written to the first.
    (0..15).for_each(|_| fills.recv().expect("the filler fills"));
    for _ in 0..3 {
        server.signal("HUP");
        server.ask_admin("/health").expect(200);
    }
    assert_eq!(server.terminate().code(), Some(0));
    drop(unread);
    filler.join().expect("its pipe was closed");
}

/// The lines of the next message to a service manager, without the line for people.
fn told(manager: &UnixDatagram) -> (Vec<String>, String) {
    let mut bytes = [0; 4096];
    let length = manager.recv(&mut bytes).expect("the server tells its manager");
    let message = std::str::from_utf8(&bytes[..length]).expect("text").trim_end();
    let (status, rest) = message.lines().partition::<Vec<_>, _>(|line| line.starts_with("STATUS="));
    // A time is there to tell one reload from another.
    let rest = rest.iter().map(|line| line.split_once("_USEC=").map_or(*line, |(name, _)| name).to_owned()).collect();
    (rest, status.join(""))
}

#[test]
fn a_service_manager_is_told_of_every_change() {
    let home = tempfile::tempdir().expect("a directory for a socket");
    let path = home.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(SAID_WITHIN)).expect("a timeout");
    let mut server = Setup::new().environment("NOTIFY_SOCKET", path.to_str().expect("text")).start();
    let (nothing_yet, recovering) = told(&manager);
    assert!(nothing_yet.is_empty() && recovering.starts_with("STATUS=recovering the log in /"), "{recovering}");
    let serving = (vec!["READY=1".to_owned()], format!("STATUS=serving on http://{}", server.listen()));
    assert_eq!(told(&manager), serving);
    server.signal("HUP");
    assert_eq!(told(&manager).0, ["RELOADING=1", "MONOTONIC"]);
    let (ready, reloaded) = told(&manager);
    assert!(ready == ["READY=1"] && reloaded.starts_with("STATUS=SIGHUP: "), "{ready:?} {reloaded}");
    let client = half_sent(&server);
    server.ask_to_end();
    let (stopping, draining) = told(&manager);
    assert!(stopping == ["STOPPING=1"] && draining.starts_with("STATUS=draining"), "{stopping:?} {draining}");
    finish(client);
    assert_eq!(server.wait_for_exit().code(), Some(0), "{}", server.log());
}

#[test]
fn a_service_manager_that_is_gone_stops_nothing() {
    let mut server = Setup::new().environment("NOTIFY_SOCKET", "/nonexistent/notify").start();
    let told = || server.log().contains("the service manager could not be told (NOTIFY_SOCKET): ");
    until("the operator to be told", || told().then_some(()));
    server.ask(&post("/v1/events", JSON, "", b"{\"n\":1}")).expect(202);
    assert_eq!(server.terminate().code(), Some(0));
}

#[test]
fn a_service_manager_that_does_not_read_stops_nothing() {
    let home = tempfile::tempdir().expect("a directory for a socket");
    let path = home.path().join("notify");
    let _unread = UnixDatagram::bind(&path).expect("a socket");
    let mut server = Setup::new().environment("NOTIFY_SOCKET", path.to_str().expect("text")).start();
    // A sender's own buffer may be full before the queue is: then the next one goes on.
    let mut fillers = Vec::new();
    loop {
        let filler = UnixDatagram::unbound().expect("a socket");
        filler.set_nonblocking(true).expect("a socket that does not wait");
        if filler.send_to(b"STATUS=full", &path).is_err() {
            break;
        }
        while filler.send_to(b"STATUS=full", &path).is_ok() {}
        fillers.push(filler);
    }
    server.signal("HUP");
    let told = || server.log().contains("(NOTIFY_SOCKET): Resource temporarily unavailable");
    until("the operator to be told", || told().then_some(()));
    server.ask_admin("/health").expect(200);
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log());
}

#[test]
fn a_service_manager_may_have_a_name_instead_of_a_path() {
    let name = format!("tidegate-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a short name");
    let manager = UnixDatagram::bind_addr(&address).expect("a socket");
    manager.set_read_timeout(Some(SAID_WITHIN)).expect("a timeout");
    let _server = Setup::new().environment("NOTIFY_SOCKET", &format!("@{name}")).start();
    assert!(told(&manager).1.starts_with("STATUS=recovering"));
    assert_eq!(told(&manager).0, ["READY=1"]);
}
