//! One shard under made-up clients, a made-up disk and a made-up clock: the server's own admission logic, everything else
//! simulated event by event. An hour of load takes seconds, and a seed repeats it exactly.
#![allow(dead_code, reason = "each user takes its part")]

pub(crate) mod clients;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use clients::{Arrival, Clients};
use tidegate::admit::{Admission, Config, Facts, Progress, REQUEST_WORK, Refusal, Share, TICK_NS, Traffic, Turn};
use tidegate::base::Seq;

pub(crate) const MS: u64 = TICK_NS;
pub(crate) const SECOND: u64 = 1000 * MS;
/// Requests one turn takes at most: what a completion queue brings.
const TURN_REQUESTS_MAX: usize = 256;
/// From a client to the server, one way.
const TRIP_NS: u64 = 50_000;
/// What a turn costs besides its requests: one enter, timers, counters.
const TURN_NS: u64 = 3_000;
/// A request's head; of a refused one no more is received.
const HEAD_BYTES: u64 = 200;
/// How long others run when the scheduler lets them.
const SLICE_NS: u64 = 4 * MS;
/// Of the time of a turn, the kernel's share.
const KERNEL_SHARE: f64 = 0.5;
/// A sync on the made-up disk.
const SYNC_NS: u64 = 300_000;

/// A generator of even quality and 64 bits of state (splitmix64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In (0, 1].
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// The time between two events of a Poisson process with `per_second`.
    pub(crate) fn gap_ns(&mut self, per_second: f64) -> u64 {
        (-self.unit().ln() / per_second * 1e9) as u64 + 1
    }

    /// `mean`, a fifth more or less.
    fn about(&mut self, mean: u64) -> u64 {
        (mean as f64 * (0.8 + 0.4 * self.unit())) as u64
    }
}

/// The made-up machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// Share of the core to spend serving.
    pub(crate) target: f64,
    /// Time of one served request on the shard.
    pub(crate) serve_ns: u64,
    /// Time of one refused request on the shard.
    pub(crate) refuse_ns: u64,
    /// Bytes of a request's body.
    pub(crate) body_bytes: u64,
    /// Bytes the disk takes per second.
    pub(crate) disk_bytes_per_second: u64,
    /// From when on the disk is in trouble, until when, and how long a sync takes then.
    pub(crate) trouble: Option<(u64, u64, u64)>,
    pub(crate) lag_target_ns: u64,
    pub(crate) in_flight_max: u32,
    /// The shard is told what refusing took; otherwise it must divide its turns' times, as the server does.
    pub(crate) refusing_is_clocked: bool,
    /// Share of a busy core that others take from the shard, [`SLICE_NS`] at a time.
    pub(crate) others: f64,
}

impl Default for Machine {
    /// Batches of a hundred events, and refusals that cost a seventh of them.
    fn default() -> Self {
        Self {
            target: 0.67,
            serve_ns: 50_000,
            refuse_ns: 7_000,
            body_bytes: 34_000,
            disk_bytes_per_second: u64::MAX,
            trouble: None,
            lag_target_ns: 100 * MS,
            in_flight_max: 100_000,
            refusing_is_clocked: true,
            others: 0.0,
        }
    }
}

impl Machine {
    /// Requests per second that the target has room for.
    pub(crate) fn capacity(&self) -> f64 {
        self.target * 1e9 / self.serve_ns as f64
    }
}

/// What happened within one bin of time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bin {
    pub(crate) serving_ns: u64,
    pub(crate) refusing_ns: u64,
    pub(crate) served: u64,
    pub(crate) refused: u64,
    pub(crate) offered: u64,
    /// The longest that a refused connection was left unread for.
    pub(crate) hold_ns: u64,
}

/// What a run came to.
pub(crate) struct Outcome {
    pub(crate) bin_ns: u64,
    pub(crate) bins: Vec<Bin>,
    /// Time of the offer and latency from it, of each served request.
    pub(crate) latencies: Vec<(u64, u64)>,
    /// Offered and served, by tenant and second; served, by priority.
    pub(crate) offered_by_tenant: Vec<Vec<u64>>,
    pub(crate) by_tenant: Vec<Vec<u64>>,
    pub(crate) by_priority: [u64; 3],
    pub(crate) reasons: [u64; 4],
}

impl Outcome {
    /// Share of the core spent serving in each bin.
    pub(crate) fn serving(&self) -> Vec<f64> {
        self.bins.iter().map(|bin| bin.serving_ns as f64 / self.bin_ns as f64).collect()
    }

    fn within(&self, from_ns: u64, to_ns: u64) -> &[Bin] {
        &self.bins[(from_ns / self.bin_ns) as usize..(to_ns / self.bin_ns) as usize]
    }

    /// Mean share of the core spent serving.
    pub(crate) fn mean_serving(&self, from_ns: u64, to_ns: u64) -> f64 {
        self.within(from_ns, to_ns).iter().map(|bin| bin.serving_ns).sum::<u64>() as f64 / (to_ns - from_ns) as f64
    }

    /// Mean share of the core spent refusing.
    pub(crate) fn mean_refusing(&self, from_ns: u64, to_ns: u64) -> f64 {
        self.within(from_ns, to_ns).iter().map(|bin| bin.refusing_ns).sum::<u64>() as f64 / (to_ns - from_ns) as f64
    }

    /// Served requests per second.
    pub(crate) fn goodput(&self, from_ns: u64, to_ns: u64) -> f64 {
        self.within(from_ns, to_ns).iter().map(|bin| bin.served).sum::<u64>() as f64 * 1e9 / (to_ns - from_ns) as f64
    }

    /// The longest hold.
    pub(crate) fn hold_ns(&self, from_ns: u64, to_ns: u64) -> u64 {
        self.within(from_ns, to_ns).iter().map(|bin| bin.hold_ns).max().unwrap_or(0)
    }

    /// Refused requests.
    pub(crate) fn refused(&self, from_ns: u64, to_ns: u64) -> u64 {
        self.within(from_ns, to_ns).iter().map(|bin| bin.refused).sum()
    }

    /// The 99th percentile of the latency of requests offered in between.
    pub(crate) fn p99_ns(&self, from_ns: u64, to_ns: u64) -> u64 {
        let mut latencies: Vec<u64> = self
            .latencies
            .iter()
            .filter(|(at, _)| (from_ns..to_ns).contains(at))
            .map(|(_, latency)| *latency)
            .collect();
        latencies.sort_unstable();
        latencies.get(latencies.len() * 99 / 100).copied().unwrap_or(0)
    }

    /// When, after `from_ns`, every bin up to `to_ns` is within `points` of `share`; nanoseconds after `from_ns`.
    pub(crate) fn settled_after_ns(&self, from_ns: u64, to_ns: u64, share: f64, points: f64) -> u64 {
        let first = (from_ns / self.bin_ns) as usize;
        let serving = self.serving();
        let last_off = (first..(to_ns / self.bin_ns) as usize).rev().find(|at| (serving[*at] - share).abs() > points);
        last_off.map_or(0, |at| (at + 1 - first) as u64 * self.bin_ns)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A request reaches the socket of its connection.
    Arrive(u32),
    /// A connection that was left unread is read again.
    Release(u32),
    /// The answer of a request reaches its client.
    Answer { request: u32, served: bool },
    /// A client that waits comes again.
    Wake(u32),
    /// The shard's turn is over.
    TurnEnds,
    /// The disk has synced what it had.
    SyncEnds,
}

struct Connection {
    held: bool,
    queued: bool,
    waiting: VecDeque<u32>,
}

/// See the module text.
pub(crate) struct Simulation {
    machine: Machine,
    dice: Dice,
    now_ns: u64,
    order: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    admission: Admission,
    shares: Vec<Share>,
    weights: Vec<u32>,
    requests: Vec<Arrival>,
    connections: Vec<Connection>,
    readable: VecDeque<u32>,
    turning: bool,
    turn: Turn,
    turn_ended_ns: u64,
    answers: Vec<(u32, bool)>,
    open: Vec<u32>,
    open_seq: Seq,
    durable: Seq,
    syncing: Option<(Seq, Vec<u32>)>,
    outcome: Outcome,
}

impl Simulation {
    pub(crate) fn new(machine: Machine, seed: u64, weights: &[u32], connections: u32) -> Self {
        let config = Config {
            target: (machine.target * 1e6) as u64,
            lag_target_ns: machine.lag_target_ns,
            in_flight_max: machine.in_flight_max,
            seed,
        };
        Self {
            machine,
            dice: Dice::new(seed),
            now_ns: 0,
            order: 0,
            events: BinaryHeap::new(),
            admission: Admission::new(config),
            shares: vec![Share::default(); weights.len()],
            weights: weights.to_vec(),
            requests: Vec::new(),
            connections: (0..connections)
                .map(|_| Connection { held: false, queued: false, waiting: VecDeque::new() })
                .collect(),
            readable: VecDeque::new(),
            turning: false,
            turn: Turn::default(),
            turn_ended_ns: 0,
            answers: Vec::new(),
            open: Vec::new(),
            open_seq: Seq(1),
            durable: Seq(0),
            syncing: None,
            outcome: Outcome {
                bin_ns: 100 * MS,
                bins: Vec::new(),
                latencies: Vec::new(),
                offered_by_tenant: vec![Vec::new(); weights.len()],
                by_tenant: vec![Vec::new(); weights.len()],
                by_priority: [0; 3],
                reasons: [0; 4],
            },
        }
    }

    /// The same with finer bins, for plots.
    pub(crate) fn with_bins_of(mut self, bin_ns: u64) -> Self {
        self.outcome.bin_ns = bin_ns;
        self
    }

    fn at(&mut self, at_ns: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at_ns, self.order, event)));
    }

    /// Runs the clients for `length_ns`.
    pub(crate) fn run(mut self, clients: &mut dyn Clients, length_ns: u64) -> Outcome {
        for client in 0..clients.count() {
            if let Some(at_ns) = clients.begin(client, &mut self.dice) {
                self.at(at_ns, Event::Wake(client));
            }
        }
        while let Some(Reverse((at_ns, _, event))) = self.events.pop() {
            if at_ns >= length_ns {
                break;
            }
            self.now_ns = at_ns;
            match event {
                Event::Wake(client) => self.wake(clients, client),
                Event::Arrive(request) => self.arrive(request),
                Event::Release(connection) => {
                    self.connections[connection as usize].held = false;
                    self.make_readable(connection);
                }
                Event::Answer { request, served } => {
                    let arrival = self.requests[request as usize];
                    if let Some(at_ns) = clients.answered(&arrival, served, at_ns, &mut self.dice) {
                        self.at(at_ns, Event::Wake(arrival.client));
                    }
                }
                Event::TurnEnds => self.end_turn(),
                Event::SyncEnds => self.end_sync(),
            }
            if !self.turning && !self.readable.is_empty() {
                self.begin_turn();
            }
        }
        let bins = length_ns.div_ceil(self.outcome.bin_ns) as usize;
        self.outcome.bins.resize(bins, Bin::default());
        self.outcome
    }

    fn wake(&mut self, clients: &mut dyn Clients, client: u32) {
        let (arrival, next_ns) = clients.ask(client, self.now_ns, &mut self.dice);
        if let Some(arrival) = arrival {
            let request = self.requests.len() as u32;
            self.requests.push(arrival);
            self.bin(self.now_ns).offered += 1;
            count(&mut self.outcome.offered_by_tenant[arrival.tenant as usize], self.now_ns);
            self.at(self.now_ns + TRIP_NS, Event::Arrive(request));
        }
        if let Some(next_ns) = next_ns {
            self.at(next_ns, Event::Wake(client));
        }
    }

    fn arrive(&mut self, request: u32) {
        let connection = self.requests[request as usize].connection;
        self.connections[connection as usize].waiting.push_back(request);
        self.make_readable(connection);
    }

    /// A connection stands in the queue once while it is read and requests wait on it.
    fn make_readable(&mut self, connection: u32) {
        let Connection { held, queued, waiting } = &mut self.connections[connection as usize];
        if !*held && !*queued && !waiting.is_empty() {
            *queued = true;
            self.readable.push_back(connection);
        }
    }

    fn bin(&mut self, at_ns: u64) -> &mut Bin {
        let at = (at_ns / self.outcome.bin_ns) as usize;
        if self.outcome.bins.len() <= at {
            self.outcome.bins.resize(at + 1, Bin::default());
        }
        &mut self.outcome.bins[at]
    }

    /// Time spent, spread over the bins it falls into.
    fn spend(&mut self, from_ns: u64, length_ns: u64, refusing: bool) {
        let (mut at_ns, end_ns) = (from_ns, from_ns + length_ns);
        while at_ns < end_ns {
            let bin_end_ns = (at_ns / self.outcome.bin_ns + 1) * self.outcome.bin_ns;
            let part_ns = bin_end_ns.min(end_ns) - at_ns;
            let bin = self.bin(at_ns);
            if refusing {
                bin.refusing_ns += part_ns
            } else {
                bin.serving_ns += part_ns
            }
            at_ns += part_ns;
        }
    }

    fn begin_turn(&mut self) {
        self.turning = true;
        let begun_ns = self.now_ns;
        let mut spent_ns = TURN_NS;
        self.spend(begun_ns, TURN_NS, false);
        let mut refusing_ns = 0;
        let mut traffic = Traffic::default();
        for _ in 0..TURN_REQUESTS_MAX {
            let Some(connection) = self.readable.pop_front() else { break };
            self.connections[connection as usize].queued = false;
            let request = self.connections[connection as usize].waiting.pop_front().expect("it stood in the queue");
            let served = self.judge(request, begun_ns);
            let cost_ns = self.dice.about(if served { self.machine.serve_ns } else { self.machine.refuse_ns });
            self.spend(begun_ns + spent_ns, cost_ns, !served);
            spent_ns += cost_ns;
            refusing_ns += if served { 0 } else { cost_ns };
            traffic.count_request();
            if served {
                traffic.count_received(HEAD_BYTES + self.machine.body_bytes);
            } else {
                traffic.count_received(HEAD_BYTES);
                traffic.count_refused(1, HEAD_BYTES);
            }
            let at_ns = begun_ns + spent_ns;
            if served {
                self.bin(at_ns).served += 1;
                self.open.push(request);
            } else {
                let hold_ns = self.admission.draw_hold_ns();
                let bin = self.bin(at_ns);
                bin.refused += 1;
                bin.hold_ns = bin.hold_ns.max(hold_ns);
                self.answers.push((request, false));
                if hold_ns > 0 {
                    self.connections[connection as usize].held = true;
                    self.at(at_ns + hold_ns, Event::Release(connection));
                }
            }
            self.make_readable(connection);
        }
        spent_ns += self.taken_by_others(spent_ns);
        if !self.machine.refusing_is_clocked {
            let kernel_ns = (spent_ns as f64 * KERNEL_SHARE) as u64;
            refusing_ns = traffic.refusing_ns(spent_ns - kernel_ns, kernel_ns);
        }
        let end_ns = begun_ns + spent_ns;
        self.turn = Turn { wall_ns: end_ns - self.turn_ended_ns, busy_ns: spent_ns, refusing_ns };
        self.at(end_ns, Event::TurnEnds);
    }

    /// What others take of the core while the shard wants it for `wanted_ns`.
    fn taken_by_others(&mut self, wanted_ns: u64) -> u64 {
        if self.machine.others == 0.0 {
            return 0;
        }
        let slices_per_second = self.machine.others / (1.0 - self.machine.others) * 1e9 / SLICE_NS as f64;
        let (mut taken_ns, mut at_ns) = (0, self.dice.gap_ns(slices_per_second));
        while at_ns < wanted_ns {
            taken_ns += SLICE_NS;
            at_ns += self.dice.gap_ns(slices_per_second);
        }
        taken_ns
    }

    fn judge(&mut self, request: u32, now_ns: u64) -> bool {
        let Arrival { tenant, priority, .. } = self.requests[request as usize];
        let share = &mut self.shares[tenant as usize];
        match self.admission.judge(now_ns, priority, share, self.weights[tenant as usize]) {
            Ok(()) => {
                self.admission.charge(now_ns, share, REQUEST_WORK + self.machine.body_bytes);
                self.outcome.by_priority[priority as usize] += 1;
                count(&mut self.outcome.by_tenant[tenant as usize], now_ns);
                true
            }
            Err(reason) => {
                let at = Refusal::ALL.iter().position(|known| *known == reason).expect("all are listed");
                self.outcome.reasons[at] += 1;
                false
            }
        }
    }

    fn end_turn(&mut self) {
        self.turning = false;
        self.turn_ended_ns = self.now_ns;
        for (request, served) in std::mem::take(&mut self.answers) {
            self.at(self.now_ns + TRIP_NS, Event::Answer { request, served });
        }
        self.offer_to_disk();
        let open = (!self.open.is_empty()).then_some(self.open_seq);
        let progress = Progress { open, durable: self.durable };
        self.admission.turned(self.now_ns, self.turn, || Facts { progress, ..Facts::default() });
    }

    fn offer_to_disk(&mut self) {
        if self.syncing.is_some() || self.open.is_empty() {
            return;
        }
        let group = std::mem::take(&mut self.open);
        let bytes = group.len() as u64 * self.machine.body_bytes;
        let write_ns = (u128::from(bytes) * 1_000_000_000 / u128::from(self.machine.disk_bytes_per_second)) as u64;
        self.syncing = Some((self.open_seq, group));
        self.open_seq = self.open_seq.next();
        let sync_ns = match self.machine.trouble {
            Some((from_ns, to_ns, sync_ns)) if (from_ns..to_ns).contains(&self.now_ns) => sync_ns,
            _ => SYNC_NS,
        };
        self.at(self.now_ns + write_ns + sync_ns, Event::SyncEnds);
    }

    fn end_sync(&mut self) {
        let (seq, group) = self.syncing.take().expect("a sync ends that has begun");
        self.durable = seq;
        self.admission.finished(group.len() as u32);
        for request in group {
            let offered_ns = self.requests[request as usize].offered_ns;
            self.outcome.latencies.push((offered_ns, self.now_ns + TRIP_NS - offered_ns));
            self.at(self.now_ns + TRIP_NS, Event::Answer { request, served: true });
        }
        self.offer_to_disk();
    }
}

/// One more in the second of `now_ns`.
fn count(seconds: &mut Vec<u64>, now_ns: u64) {
    let second = (now_ns / SECOND) as usize;
    seconds.resize(seconds.len().max(second + 1), 0);
    seconds[second] += 1;
}
