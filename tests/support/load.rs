//! Clients that send random requests until they are stopped or cut off, and keep book of what they were promised.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use super::audit::{Lane, Outcome, Sent};
use super::bodies::{Form, Shape};
use super::client::{Client, Response};
use super::events::Kind;
use super::random::Random;
use super::wait;

/// Most events in one request of the mix.
const EVENTS_PER_REQUEST_MAX: u64 = 60;
/// Most requests sent before their answers are read.
const PIPELINE_MAX: u64 = 4;

/// What the clients of one load share.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    stop: AtomicBool,
    acked: AtomicU64,
}

impl Pulse {
    /// Asks the clients to end after the answers they wait for.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Requests acknowledged so far.
    pub(crate) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }
}

/// What the requests of a load are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mix {
    /// Every shape, encoding and framing.
    Any,
    /// [`Form::PLAIN`] only: the quickest way to fill a log.
    Plain,
}

/// Clients at work.
pub(crate) struct Load {
    /// What they share.
    pub(crate) pulse: Arc<Pulse>,
    clients: Vec<JoinHandle<Lane>>,
}

impl Load {
    /// Starts a client for each of `acks` (a level for the `X-Ack` header), on lanes from `first_lane` on.
    pub(crate) fn start(address: SocketAddr, seed: u64, first_lane: u32, acks: &[&'static str], mix: Mix) -> Self {
        let pulse = Arc::new(Pulse::default());
        let clients = acks
            .iter()
            .copied()
            .zip(first_lane..)
            .map(|(ack, lane)| {
                let pulse = Arc::clone(&pulse);
                std::thread::spawn(move || run_lane(address, seed, lane, ack, mix, &pulse))
            })
            .collect();
        Self { pulse, clients }
    }

    /// Waits until `acked` requests are acknowledged. A slow server may take its time as long as it makes progress.
    #[track_caller]
    pub(crate) fn wait_for_acks(&self, acked: u64) {
        let mut seen = self.pulse.acked();
        while seen < acked {
            seen = wait::until("one more request to be acked", || {
                let now = self.pulse.acked();
                (now > seen).then_some(now)
            });
        }
    }

    /// Waits for every client and returns their books.
    pub(crate) fn join(self) -> Vec<Lane> {
        self.clients.into_iter().map(|client| client.join().expect("a client does not fail")).collect()
    }
}

fn run_lane(address: SocketAddr, seed: u64, lane: u32, ack: &str, mix: Mix, pulse: &Pulse) -> Lane {
    let mut random = Random::new(seed.rotate_left(17) ^ u64::from(lane));
    let kind = if random.one_in(5) { Kind::Large } else { Kind::Attribution };
    let mut book = Lane { lane, kind, requests: Vec::new() };
    let Ok(mut client) = Client::try_connect(address) else { return book };
    let headers = format!("X-Ack: {ack}\r\n");
    let mut next = 0;
    while !pulse.stop.load(Ordering::Relaxed) {
        let pipelined = 1 + random.below(PIPELINE_MAX);
        let unanswered = book.requests.len();
        let mut bytes = Vec::new();
        for _ in 0..pipelined {
            let form = if mix == Mix::Any { Form::random(&mut random) } else { Form::PLAIN };
            let count = if form.shape == Shape::Single { 1 } else { 1 + random.below(EVENTS_PER_REQUEST_MAX) };
            let spread = form.may_spread() && random.one_in(2);
            let sent = Sent { first: next, count, spread, outcome: Outcome::Unanswered };
            next += count;
            bytes.extend(form.request(&Lane::events(seed, lane, kind, sent), &headers));
            book.requests.push(sent);
        }
        if client.try_send(&bytes).is_err() {
            break;
        }
        for sent in &mut book.requests[unanswered..] {
            let Ok(response) = client.try_receive() else { return book };
            sent.outcome = outcome_of(&response, sent.count, ack);
            pulse.acked.fetch_add(u64::from(response.status == 202), Ordering::Relaxed);
        }
    }
    book
}

fn outcome_of(response: &Response, count: u64, ack: &str) -> Outcome {
    match response.status {
        202 => {
            let data = &response.json()["data"];
            assert_eq!(data["accepted"], count, "{data}");
            assert_eq!(data["ack"], ack, "{data}");
            if ack == "memory" { Outcome::AckedInMemory } else { Outcome::Acked }
        }
        // What a server that is full, draining or failed says.
        503 | 507 => Outcome::Refused,
        status => panic!("{status} to a valid request: {}", response.text()),
    }
}
