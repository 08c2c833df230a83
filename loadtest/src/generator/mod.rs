//! One generator thread: a ring, its connections, its part of the schedule. Pinned; shares nothing while it runs but the
//! start, the stop flag and the channel its intervals leave by.
//!
//! One turn reads as the server's does, from the other side:
//!
//! ```text
//! reap answers → keep connections → send what is due → count → one io_uring_enter, which waits if nothing is due
//! ```
//!
//! Everything is made before the start: sockets, request images, buffers, histograms. A request is one patched copy and
//! one send; an answer is read where it was received.

mod clock;
mod connection;
mod effort;
mod lifecycle;
mod slow;
mod tally;
mod turn;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Barrier};

use clock::{Clock, Start};
use connection::Connection;
use effort::Effort;
pub use lifecycle::interval_end;
use slow::SlowReader;
pub use tally::{Ended, Interval, KindTotal, STATUSES, Tally, Totals, histogram};

use crate::oracle::Ledger;
use crate::plan::{Mode, Plan};
use crate::random::{Random, Weighted};
use crate::request::{Check, Compressor, Expect, Lane, Outcome, images};
use crate::schedule::Schedule;
use crate::sys::buffers::ReceiveBuffers;
use crate::sys::memory::Area;
use crate::sys::ring::{Part, Ring, RingSize};
use crate::sys::thread;

/// Submissions gathered before they go to the kernel.
const RING_ENTRIES: u32 = 1024;
/// Completions that fit before the kernel has to keep them elsewhere.
const RING_COMPLETIONS: u32 = 16 << 10;
/// Buffers for answers: hundreds of bytes each, so many small ones.
const RECEIVE_BUFFERS: u16 = 1024;
const RECEIVE_BUFFER_BYTES: usize = 4096;
/// Memory that requests being sent may take on one thread. Reached only if the server stops reading on all connections.
const AREA_BYTES_MAX: usize = 16 << 30;
/// Requests that one connection may have under way.
pub const PIPELINE_MAX: usize = 128;

/// What generator threads and the main thread share while a run goes on.
pub struct Shared {
    /// Ends the run early.
    pub stop: AtomicBool,
    /// Set, some milliseconds late, once an event that a ledger remembers was acknowledged.
    pub acknowledged: AtomicBool,
    /// Time 0.
    start: Start,
    /// Passed by every thread when its connections are open.
    opened: Barrier,
    /// Threads that could not begin: the others must not wait for them.
    failed: AtomicUsize,
}

impl Shared {
    /// For `threads` threads.
    #[must_use]
    pub fn new(threads: usize) -> Arc<Self> {
        Arc::new(Self {
            stop: AtomicBool::new(false),
            acknowledged: AtomicBool::new(false),
            start: Start::default(),
            opened: Barrier::new(threads),
            failed: AtomicUsize::new(0),
        })
    }
}

/// What a thread did.
pub struct Report {
    /// Its part of the counts.
    pub totals: Totals,
    /// What it was promised, if that was to be remembered.
    pub ledger: Ledger,
    /// Share of the load's time it worked.
    pub busy_fraction: f64,
    /// Share of the load's time its core was not given to it.
    pub starved_fraction: f64,
    /// The longest time for which it did not come round to anything, ns.
    pub pause_max_ns: u64,
    /// When it stopped sending, ns from the start.
    pub ended_ns: u64,
    /// What its slow readers met: answers' bytes read, connections closed by the server.
    pub slow_bytes: u64,
    /// See above.
    pub slow_closed: u64,
    /// System calls of its ring.
    pub enters: u64,
    /// Whether it ran on the core it was given.
    pub pinned: bool,
}

/// The thread's state. Fields are dropped in this order: the ring before the memory its requests name.
struct Generator<'p> {
    ring: Ring,
    buffers: ReceiveBuffers,
    plan: &'p Plan,
    thread: usize,
    clock: Clock,
    connections: Vec<Connection>,
    /// `pipeline` places per connection: what its next or present send is made of.
    parts: Vec<Part>,
    /// The kind and copy behind each part.
    copies: Vec<(u16, u32)>,
    /// Connections that can take a request, the longest free one first.
    ready: VecDeque<u32>,
    /// Connections with requests that are not handed to the kernel yet.
    touched: Vec<u32>,
    /// To be connected, and to be connected after a while.
    open_now: VecDeque<u32>,
    open_later: Vec<(u64, u32)>,
    connecting: usize,
    /// Connections in use: those below.
    limit: usize,
    slow: Vec<SlowReader>,
    slow_bytes: u64,
    slow_closed: u64,
    lanes: Vec<Lane>,
    expects: Vec<Expect>,
    pick: Weighted,
    pick_key: Option<Weighted>,
    random: Random,
    compressor: Compressor,
    schedule: Option<Schedule>,
    /// The next intended time.
    due: Option<u64>,
    /// Index of the next event.
    next_event: u64,
    ledger: Ledger,
    tally: Tally,
    verdicts: Vec<turn::Verdict>,
    /// No more requests are sent.
    draining: bool,
    ended_ns: u64,
    idle_polling_ns: u64,
    /// At the end of the load.
    effort: Effort,
    pause_max_ns: u64,
    next_tick: u64,
    next_timeouts: u64,
    under_way: usize,
}

/// Runs a thread's part of a plan to its end; called on that thread.
///
/// # Errors
/// What the kernel refused, in a sentence. A server that cannot be reached is no error but counted.
pub fn generate(plan: &Plan, thread: usize, shared: &Shared, intervals: &Sender<Interval>) -> Result<Report, String> {
    let pinned = plan.cores[thread].is_none_or(thread::pin);
    thread::exact_timers();
    let made = Generator::new(plan, thread).map_err(|error| explain(&error));
    if made.is_err() {
        shared.failed.fetch_add(1, Ordering::SeqCst);
    }
    let opened = made.and_then(|mut generator| {
        generator.open_all(shared).map_err(|error| explain(&error))?;
        Ok(generator)
    });
    shared.opened.wait();
    let mut generator = opened?;
    if shared.failed.load(Ordering::SeqCst) > 0 {
        return Err("another generator thread could not begin".into());
    }
    generator.clock = shared.start.clock();
    let begin = Effort::of_this_thread(&generator.clock, 0);
    generator.run(shared, intervals).map_err(|error| explain(&error))?;
    let effort = generator.effort.since(&begin);
    Ok(Report {
        totals: generator.tally.totals,
        ledger: generator.ledger,
        busy_fraction: effort.busy_fraction(),
        starved_fraction: effort.starved_fraction(),
        pause_max_ns: generator.pause_max_ns,
        ended_ns: generator.ended_ns,
        slow_bytes: generator.slow_bytes,
        slow_closed: generator.slow_closed,
        enters: generator.ring.enters(),
        pinned,
    })
}

fn explain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EPERM) => {
            format!("io_uring is not available ({error}): 'sysctl kernel.io_uring_disabled' must be 0")
        }
        Some(libc::EINVAL) => format!("the kernel refuses the ring ({error}): Linux 6.1 or later is needed"),
        Some(libc::ENOMEM) => {
            format!("{error}: raise the memlock limit ('ulimit -l unlimited') or use fewer connections")
        }
        _ => error.to_string(),
    }
}

impl<'p> Generator<'p> {
    fn new(plan: &'p Plan, thread: usize) -> io::Result<Self> {
        let connections = plan.connections_of(thread);
        let slow_readers = plan.slow_readers_of(thread);
        let copies_max = connections * plan.pipeline;
        let mut base = 0;
        let mut lanes = Vec::new();
        for share in &plan.shares {
            let images = images(&share.options, &plan.head, &plan.templates);
            let bytes = Lane::bytes(&images, plan.head.encoding, copies_max);
            lanes.push(Lane::new(images, plan.head.encoding, plan.head.repeats, base, copies_max));
            base += bytes;
        }
        let slow_at = base;
        base += slow::AREA_BYTES;
        if base > AREA_BYTES_MAX {
            return Err(io::Error::other(format!(
                "{} GiB of requests could be under way at once: use fewer connections, less pipelining or smaller batches",
                base >> 30
            )));
        }
        let mut area = Area::map(base)?;
        lanes.iter_mut().for_each(|lane| lane.warm(&mut area));
        slow::write_request(area.slice_mut(slow_at, slow::AREA_BYTES), &plan.head.host);
        let slots = (connections + slow_readers) as u32;
        let size = RingSize { entries: RING_ENTRIES, completions: RING_COMPLETIONS, slots, parts_max: plan.pipeline };
        let mut ring = Ring::new(&size, area, Some(plan.target.into()))?;
        let buffers = ReceiveBuffers::new(&mut ring, turn::BUFFER_GROUP, RECEIVE_BUFFERS, RECEIVE_BUFFER_BYTES)?;
        let schedule = match &plan.mode {
            Mode::Open { curve, arrivals } => Some(Schedule::new(curve, *arrivals, plan.seed, thread, plan.threads())),
            Mode::Closed => None,
        };
        let weights: Vec<f64> = plan.shares.iter().map(|share| share.weight).collect();
        Ok(Self {
            ring,
            buffers,
            plan,
            thread,
            clock: Clock::default(),
            connections: (0..connections).map(|_| Connection::new(plan.pipeline)).collect(),
            parts: vec![Part::default(); copies_max],
            copies: vec![(0, 0); copies_max],
            ready: VecDeque::with_capacity(connections),
            touched: Vec::with_capacity(connections),
            open_now: VecDeque::with_capacity(connections),
            open_later: Vec::with_capacity(connections),
            connecting: 0,
            limit: 0,
            slow: (0..slow_readers).map(|at| SlowReader::new((connections + at) as u32, slow_at)).collect(),
            slow_bytes: 0,
            slow_closed: 0,
            expects: plan.shares.iter().map(|share| share.options.expect(plan.check())).collect(),
            pick: Weighted::new(&weights),
            pick_key: (!plan.keys.is_empty()).then(|| Weighted::zipf(plan.keys.len(), plan.key_skew)),
            random: Random::new(plan.seed, 0x6e4e_0000 + thread as u64),
            compressor: Compressor::new(plan.head.encoding),
            schedule,
            due: None,
            next_event: 0,
            ledger: Ledger::default(),
            tally: Tally::new(plan.shares.len(), plan.warmup_ns()),
            verdicts: Vec::with_capacity(256),
            draining: false,
            ended_ns: 0,
            idle_polling_ns: 0,
            effort: Effort::default(),
            pause_max_ns: 0,
            next_tick: 0,
            next_timeouts: 0,
            under_way: 0,
            lanes,
        })
    }

    /// The whole run, from time 0 to the last answer or the end of waiting for it.
    fn run(&mut self, shared: &Shared, intervals: &Sender<Interval>) -> io::Result<()> {
        self.begin();
        loop {
            let turn_began = self.clock.now();
            let reaped = self.reap()?;
            let now = self.clock.now();
            if now >= self.next_tick {
                self.tick(now, shared, intervals)?;
            }
            self.keep_open(now)?;
            let sent = self.send_due(now)?;
            self.flush()?;
            if self.is_over(now) {
                break;
            }
            let wait = if reaped + sent > 0 { None } else { self.idle_time(now) };
            self.ring.enter(wait)?;
            if reaped + sent == 0 && wait.is_none() {
                self.idle_polling_ns += self.clock.now() - turn_began;
            }
        }
        self.hear_out()?;
        self.settle(intervals);
        Ok(())
    }

    /// Notes an ended request in counts and ledger.
    fn end(&mut self, flight: &connection::Flight, outcome: Outcome, now: u64) {
        let kind = usize::from(flight.kind);
        let events = if outcome == Outcome::Accepted { self.acknowledged_events(kind) } else { 0 };
        if events > 0 && self.plan.keeps_ledger {
            self.ledger.acked.set_range(flight.first, events);
        }
        self.under_way -= 1;
        self.tally.end(&Ended {
            outcome,
            intended: flight.intended,
            sent: flight.sent,
            ended: now,
            events,
            bytes: u64::from(flight.bytes),
            kind,
        });
    }

    /// Events that an accepted request of a kind stands for: all, but the malformed one at its end.
    fn acknowledged_events(&self, kind: usize) -> u64 {
        let options = &self.plan.shares[kind].options;
        match options.kind {
            crate::request::Kind::Events => options.batch as u64,
            crate::request::Kind::Malformed => options.batch as u64 - 1,
            _ => 0,
        }
    }

    fn waits_for_answers(&self) -> bool {
        self.plan.check() != Check::Nothing
    }
}
