//! The harness is right: its generator keeps its sizes, its client reads answers strictly, its oracle finds every wrong.

mod support;

use std::io::Write as _;
use std::net::TcpListener;

use support::audit::{Audit, Lane, Outcome, Sent};
use support::bodies::{self, Form, Framing};
use support::client::Client;
use support::events::{self, ATTRIBUTION_BYTES, ATTRIBUTION_BYTES_MEAN, EventName, Kind};
use support::observe;
use support::ports::Lease;

const SEED: u64 = 7;

#[test]
fn generated_events_have_the_sizes_of_the_real_ones() {
    let sizes: Vec<usize> =
        (0..20_000).map(|number| events::event(SEED, Kind::Attribution, EventName { lane: 3, number }).len()).collect();
    let (least, most) = (*sizes.iter().min().unwrap(), *sizes.iter().max().unwrap());
    assert!(ATTRIBUTION_BYTES.contains(&least) && ATTRIBUTION_BYTES.contains(&most), "{least} to {most} bytes");
    let mean = sizes.iter().sum::<usize>() / sizes.len();
    assert!(mean.abs_diff(ATTRIBUTION_BYTES_MEAN) <= 2, "mean {mean}");
    let large = events::event(SEED, Kind::Large, EventName { lane: 3, number: 0 }).len();
    assert!((4_100..4_400).contains(&large), "{large}");
}

#[test]
fn generated_events_are_json_on_one_line_and_carry_their_name() {
    for kind in [Kind::Attribution, Kind::Large] {
        for number in 0..500 {
            let name = EventName { lane: 12, number };
            let event = events::event(SEED, kind, name);
            assert_eq!(event, events::event(SEED, kind, name), "a function of its name");
            assert!(!event.contains(&b'\n') && !event.contains(&b'\r'));
            let spread = events::spread(&event);
            assert!(spread.contains(&b'\n') && spread.contains(&b'\r'));
            let value: serde_json::Value = serde_json::from_slice(&event).unwrap();
            assert_eq!(value, serde_json::from_slice::<serde_json::Value>(&spread).unwrap());
            assert_eq!(EventName::of_line(&event), Some(name));
            assert_eq!(EventName::of_line(&events::stored(&spread)), Some(name));
            assert!(!events::stored(&spread).contains(&b'\n'));
        }
    }
}

#[test]
fn chunked_bodies_are_framed_as_rfc_9112_says() {
    assert_eq!(
        bodies::framed("H\r\n", Framing::Chunked(4), b"abcdef"),
        b"H\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n2\r\nef\r\n0\r\n\r\n"
    );
    let request = Form::PLAIN.request(&[b"{}".to_vec(), b"{}".to_vec()], "X-Ack: memory\r\n");
    let text = String::from_utf8(request).unwrap();
    assert!(text.ends_with("X-Ack: memory\r\nContent-Length: 6\r\n\r\n{}\n{}\n"), "{text}");
}

#[test]
fn the_client_reads_pipelined_answers_and_the_close() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Le").unwrap();
        stream.write_all(b"ngth: 2\r\nX-A: b\r\n\r\n{}HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").unwrap();
    });
    let mut client = Client::connect(address);
    assert_eq!(client.receive().status, 100);
    let accepted = client.receive();
    assert_eq!((accepted.status, accepted.header("x-a"), accepted.text().as_str()), (202, Some("b"), "{}"));
    assert_eq!(client.receive().status, 404);
    client.expect_closed();
    assert!(client.try_receive().is_err());
    server.join().unwrap();
}

#[test]
fn ports_are_leased_once() {
    let leases: Vec<Lease> = (0..50).map(|_| Lease::take()).collect();
    let mut addresses: Vec<_> = leases.iter().map(Lease::address).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), leases.len());
}

#[test]
fn samples_are_found_by_name_and_label() {
    let text = "# TYPE tidegate_events counter\ntidegate_events_total{shard=\"0\"} 7\ntidegate_events_total{shard=\"1\"} 1e3\n\
                tidegate_connections_open{shard=\"1\"} 2\ntidegate_up 1\n";
    assert_eq!(observe::metric(text, "events", "shard=\"1\""), Some(1000));
    assert_eq!(observe::metric(text, "connections_open", "shard=\"1\""), Some(2));
    assert_eq!(observe::metric(text, "connections_open", "shard=\"0\""), None);
    assert_eq!(observe::metric(text, "up", ""), Some(1));
}

fn lane() -> Lane {
    let sent = |first, count, outcome| Sent { first, count, spread: first == 2, outcome };
    Lane {
        lane: 1,
        kind: Kind::Attribution,
        requests: vec![sent(0, 2, Outcome::Acked), sent(2, 2, Outcome::Acked), sent(4, 2, Outcome::Unanswered)],
    }
}

fn log() -> Vec<Vec<u8>> {
    let lane = lane();
    lane.requests
        .iter()
        .flat_map(|sent| Lane::events(SEED, lane.lane, lane.kind, *sent))
        .map(|event| events::stored(&event))
        .collect()
}

fn audit(lines: &[Vec<u8>]) -> Audit {
    Audit::of(SEED, &[lane()], lines)
}

#[test]
fn the_oracle_passes_a_sound_log() {
    let all = audit(&log());
    all.assert_sound();
    assert_eq!((all.acked, all.stored, all.stored_not_acked), (4, 6, 2));
    audit(&log()[..4]).assert_sound();
    audit(&log()[..5]).assert_sound();
}

#[test]
fn the_oracle_finds_every_wrong() {
    let name = |number| vec![EventName { lane: 1, number }];
    let mut lines = log();
    lines.truncate(3);
    assert_eq!(audit(&lines).lost, name(3));

    let mut lines = log();
    lines.push(lines[5].clone());
    assert_eq!(audit(&lines).duplicated, name(5));

    let mut lines = log();
    *lines[1].last_mut().unwrap() = b']';
    assert_eq!(audit(&lines).corrupted, name(1));

    let mut lines = log();
    lines.swap(2, 3);
    assert_eq!(audit(&lines).out_of_order, name(2));

    let mut lines = log();
    lines.remove(4);
    assert_eq!(audit(&lines).skipped, name(4));

    for stranger in [b"{}".to_vec(), events::event(SEED, Kind::Attribution, EventName { lane: 1, number: 6 })] {
        let mut lines = log();
        lines.push(stranger);
        let audit = audit(&lines);
        assert_eq!(audit.unknown.len(), 1);
        assert!(std::panic::catch_unwind(|| audit.assert_sound()).is_err());
    }
}
