//! The event loop of one shard: a thin shell of system calls around [`Context`] and [`Conversation`]. Shard thread.
//!
//! One turn: reap every completion and parse what arrived; take settled chunks; seal what is ready and hand it over; answer
//! what has reached its ack level; enforce deadlines; one send per connection; one enter.
//!
//! Who owns which bytes: a provided buffer is ours from its completion until the parse is done, in the same turn, unless
//! the log buffer has no room: then the connection holds it, receives stop, and TCP pushes back. An answer's block is the
//! connection's until the send that names it has completed.
//!
//! [`Conversation`]: super::conversation::Conversation

mod finish;
mod receive;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::beside::{self, Beside};
use super::body::DECODED_PER_TURN_MAX;
use super::company::Company;
use super::connection::{Connection, HeldRuns, Stage, Stall};
use super::context::Context;
use super::deadlines::{Deadlines, TICK};
use super::door::TurnTimes;
use super::lending::Lending;
use super::peers::Peers;
use super::unread::Unread;
use crate::admit::{Facts, Progress};
use crate::base::{AckLevel, ShardId};
use crate::handoff::{Bell, WriterState};
use crate::sys::uring::{Completion, ProvidedBuffers, Ring, Run, Wait};

/// The buffer group of the provided buffers.
pub(super) const GROUP: u16 = 0;
/// Completions copied out of the queue at a time.
const REAPED_MAX: usize = 256;
/// How long a lingering connection waits for more from a peer that has yet to see its last answer.
const LINGER: Duration = Duration::from_secs(2);
/// How long it lingers at most. A client that reads only when it has sent all of its body takes as long as that takes.
const LINGER_MAX: Duration = Duration::from_secs(30);
/// What a lingering connection drops before it is shut: four bodies of the longest default.
const LINGER_BYTES_MAX: usize = 64 << 20;
/// How long events that no request waits for (ack level memory) may stay in an unfinished chunk.
const UNWAITED_MAX: Duration = Duration::from_millis(5);
/// After the drain has begun, an idle connection is kept this long: a request that crosses with it is still answered.
const DRAIN_GRACE: Duration = Duration::from_millis(100);

/// What a submission was for, the top byte of its `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Op {
    Bell = 1,
    Accept = 2,
    Incoming = 3,
    Receive = 4,
    Send = 5,
    Side = 6,
    Move = 7,
    MovedClose = 8,
    Close = 9,
}

fn tag(op: Op, generation: u32, index: u32) -> u64 {
    debug_assert!(generation < 1 << 24);
    (op as u64) << 56 | u64::from(generation) << 32 | u64::from(index)
}

fn untag(user_data: u64) -> (Option<Op>, u32, u32) {
    let op = match user_data >> 56 {
        1 => Some(Op::Bell),
        2 => Some(Op::Accept),
        3 => Some(Op::Incoming),
        4 => Some(Op::Receive),
        5 => Some(Op::Send),
        6 => Some(Op::Side),
        7 => Some(Op::Move),
        8 => Some(Op::MovedClose),
        9 => Some(Op::Close),
        _ => None,
    };
    (op, (user_data >> 32) as u32 & 0x00FF_FFFF, user_data as u32)
}

/// Whether a listener accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    /// A multishot accept is in flight.
    Armed,
    /// It failed, and is armed again with the next tick.
    Later,
    /// Not any more, or not yet.
    Off,
}

/// When the loop waits in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// At once when there is nothing to do.
    Park,
    /// Never: the core is burnt for the last microsecond of latency.
    Spin,
    /// After this long without work.
    Adaptive(Duration),
}

/// The parts of a shard that the boot thread makes.
pub(super) struct Parts {
    /// What the connections share.
    pub(super) context: Context,
    /// The ring, made on this thread.
    pub(super) ring: Ring,
    /// Its provided buffers.
    pub(super) buffers: ProvidedBuffers,
    /// Whether bundles passed the self-test.
    pub(super) bundles: bool,
    /// This shard's listeners.
    pub(super) listeners: Vec<OwnedFd>,
    /// The other shards.
    pub(super) peers: Arc<Peers>,
    /// Wakes this shard.
    pub(super) bell: Arc<Bell>,
    /// Set, and the bell rung, when the server is to stop.
    pub(super) stop: Arc<AtomicBool>,
    /// When to wait in the kernel.
    pub(super) idle: Idle,
    /// When to hold a chunk back.
    pub(super) company: Company,
    /// How long connections may take to finish after a stop.
    pub(super) drain_timeout: Duration,
}

/// See the module text.
pub(super) struct Turn {
    ctx: Context,
    ring: Ring,
    buffers: ProvidedBuffers,
    lending: Lending,
    bundles: bool,
    listeners: Vec<OwnedFd>,
    peers: Arc<Peers>,
    bell: Arc<Bell>,
    stop: Arc<AtomicBool>,
    idle: Idle,
    company: Company,
    beside: Beside,
    drain_timeout: Duration,
    connections: Vec<Connection>,
    /// Places in `connections` without one.
    vacant: Vec<u32>,
    deadlines: Deadlines,
    held: HeldRuns,
    /// Connections to look after before the turn ends.
    touched: Vec<u32>,
    /// Connections that wait for room in the log buffer, for the next turn, for provided buffers; (place, generation).
    no_room: VecDeque<(u32, u32)>,
    next_turn: VecDeque<(u32, u32)>,
    parked: VecDeque<(u32, u32)>,
    /// Connections that are left unread, until when.
    unread: Unread,
    /// Connections this shard has now.
    open: u32,
    drain_deadline: Option<Duration>,
    poisoned: bool,
    /// Of each listener.
    accepting: Vec<Accepting>,
    /// Kept between turns for their memory only: what was reaped, received, due.
    completions: Box<[Completion]>,
    runs: Vec<Run>,
    due: Vec<u32>,
    /// Since when the open chunk has held events.
    filling_since: Option<Duration>,
    /// How long it is to be held for company, as of this turn.
    hold: Option<Duration>,
    /// When the chunk was offered that an idle writer is working on.
    offered_at: Option<Duration>,
    idle_since_ns: u64,
}

impl Turn {
    /// A shard ready to run: its listeners are armed with the first turn.
    #[must_use]
    pub(super) fn new(parts: Parts) -> Self {
        let slots = slots_of(parts.context.limits.connections_per_shard_max) as usize;
        let buffers = usize::from(parts.buffers.count());
        Self {
            connections: Vec::with_capacity(slots),
            vacant: Vec::with_capacity(slots),
            deadlines: Deadlines::new(slots),
            held: HeldRuns::new(buffers),
            touched: Vec::with_capacity(slots),
            no_room: VecDeque::with_capacity(slots),
            next_turn: VecDeque::with_capacity(slots),
            parked: VecDeque::with_capacity(slots),
            unread: Unread::new(slots),
            open: 0,
            drain_deadline: None,
            poisoned: false,
            accepting: vec![Accepting::Off; parts.listeners.len()],
            completions: vec![Completion::default(); REAPED_MAX].into(),
            runs: Vec::with_capacity(buffers),
            filling_since: None,
            hold: None,
            offered_at: None,
            due: Vec::with_capacity(slots),
            idle_since_ns: 0,
            ctx: parts.context,
            ring: parts.ring,
            buffers: parts.buffers,
            lending: Lending::new(),
            bundles: parts.bundles,
            listeners: parts.listeners,
            peers: parts.peers,
            bell: parts.bell,
            stop: parts.stop,
            idle: parts.idle,
            company: parts.company,
            beside: Beside::new(),
            drain_timeout: parts.drain_timeout,
        }
    }

    /// Serves until it is told to stop and has drained.
    ///
    /// # Errors
    /// The errno of io_uring_enter(2) where the ring itself has failed.
    pub(super) fn run(&mut self) -> io::Result<()> {
        self.ring.poll_multi(self.bell.fd(), tag(Op::Bell, 0, 0))?;
        self.buffers.lend(self.lending.lent_max());
        for listener in 0..self.listeners.len() {
            self.arm_accept(listener)?;
        }
        let mut from_ns = self.ctx.clock.precise_ns();
        loop {
            let worked = self.turn()?;
            if self.drained() {
                return self.cut_off();
            }
            let turned_ns = self.ctx.clock.precise_ns();
            let blocked = self.wait(worked, turned_ns)?;
            let now_ns = self.ctx.clock.precise_ns();
            let times = TurnTimes { turn_ns: turned_ns - from_ns, enter_ns: now_ns - turned_ns, worked, blocked };
            self.count_turn(&times, now_ns);
            from_ns = now_ns;
        }
    }

    /// One turn; whether there was anything to do.
    fn turn(&mut self) -> io::Result<bool> {
        self.ctx.clock.read();
        let ticked = self.deadlines.begin_turn(self.ctx.clock.elapsed());
        self.ctx.door.hear_news();
        let mut worked = self.take_turns()?;
        worked |= self.receive()?;
        worked |= self.take_settled()?;
        self.acknowledge();
        self.offer_to_writer();
        if ticked {
            self.enforce_deadlines()?;
        }
        self.read_again();
        self.watch_for_stop()?;
        self.look_after_touched()?;
        self.buffers.lend(self.lending.lent_max());
        worked |= self.unpark()?;
        // They are not to wait for something to happen.
        worked |= !self.next_turn.is_empty();
        Ok(worked)
    }

    /// Goes on with those for whom the last turn had no time, before others come; whether there were any.
    fn take_turns(&mut self) -> io::Result<bool> {
        self.ctx.decoded_in_turn = 0;
        let waited = self.next_turn.len();
        for _ in 0..waited {
            if self.ctx.decoded_in_turn >= DECODED_PER_TURN_MAX {
                // The rest would wait again.
                break;
            }
            let (index, generation) = self.next_turn.pop_front().expect("as many as there were");
            if self.connections[index as usize].generation == generation {
                self.resume(index)?;
            }
        }
        Ok(waited > 0)
    }

    fn receive(&mut self) -> io::Result<bool> {
        let mut completions = std::mem::take(&mut self.completions);
        let mut worked = false;
        loop {
            let reaped = self.ring.reap(&mut completions);
            for completion in &completions[..reaped] {
                self.complete(completion)?;
            }
            worked |= reaped > 0;
            if reaped < REAPED_MAX {
                self.completions = completions;
                return Ok(worked);
            }
        }
    }

    fn complete(&mut self, completion: &Completion) -> io::Result<()> {
        let (op, generation, index) = untag(completion.user_data);
        match op.expect("every submission carries its purpose") {
            Op::Bell => self.bell_rang(completion),
            Op::Accept => self.accepted(completion, index as usize),
            Op::Incoming => self.arrived(completion),
            Op::Receive => self.received(completion, generation, index),
            Op::Send => self.sent(completion, generation, index),
            Op::Side => self.side_done(generation, index),
            Op::Move => self.moved(completion, ShardId(generation as u16), index),
            Op::MovedClose => Ok(()),
            Op::Close => self.closed(index),
        }
    }

    fn bell_rang(&mut self, completion: &Completion) -> io::Result<()> {
        if completion.more() { Ok(()) } else { self.ring.poll_multi(self.bell.fd(), tag(Op::Bell, 0, 0)) }
    }

    fn take_settled(&mut self) -> io::Result<bool> {
        let settled = self.ctx.placer.take_settled();
        if settled {
            for _ in 0..self.no_room.len() {
                let (index, generation) = self.no_room.pop_front().expect("as many as there were");
                if self.connections[index as usize].generation == generation {
                    // It is the first now.
                    self.ctx.room_is_awaited = false;
                    self.resume(index)?;
                    if self.connections[index as usize].stall == Stall::NoRoom {
                        // Those behind it would not find any either. It goes on before them: it may hold a decompressor.
                        self.no_room.rotate_right(1);
                        break;
                    }
                }
            }
            self.ctx.room_is_awaited = !self.no_room.is_empty();
        }
        Ok(settled)
    }

    /// Seals the open chunk when the writer would otherwise idle: when it has nothing at all, or has taken everything and
    /// the next chunk is long enough to go beside that, see [`Beside`]. Sealing sooner would cut the next group short: what
    /// arrives during a sync belongs in one group. Events that nobody waits for may stay a little longer, since every group
    /// costs a sync; events that many wait for stay until the others are there too, see [`Company`].
    fn offer_to_writer(&mut self) {
        self.hold = None;
        if self.ctx.placer.log().open_events() == 0 {
            self.filling_since = None;
            return;
        }
        let now = self.ctx.clock.elapsed();
        let since = *self.filling_since.get_or_insert(now);
        let port = self.ctx.placer.port();
        let log = self.ctx.placer.log();
        let bytes = log.open_payload_bytes();
        let is_long = bytes >= beside::BYTES_MIN;
        let may_go_beside = bytes >= self.beside.bytes(self.ctx.clock.ns(), log.position());
        let is_waited_for = self.ctx.waiters.any(AckLevel::Durable) || self.ctx.waiters.any(AckLevel::Written);
        let is_due = is_waited_for || may_go_beside || now.saturating_sub(since) >= UNWAITED_MAX || self.ctx.draining;
        let writer_has_room = port.outstanding() == 0 || (may_go_beside && port.writer_is_hungry());
        if is_due && writer_has_room {
            if !is_long && !self.ctx.draining {
                // All that wait are in this chunk: the writer has nothing, and what was durable is answered.
                let held_ns = now.saturating_sub(since).as_nanos() as u64;
                let hold_ns = self.company.hold_ns(self.ctx.waiters.len(), held_ns);
                if hold_ns > 0 {
                    self.hold = Some(Duration::from_nanos(hold_ns));
                    return;
                }
            }
            if self.ctx.placer.port().outstanding() == 0 {
                self.offered_at = Some(now);
            }
            self.ctx.placer.seal(self.ctx.clock.unix_ns());
            self.filling_since = None;
        }
    }

    fn acknowledge(&mut self) {
        if self.ctx.waiters.is_empty() {
            return;
        }
        if self.ctx.writer_state() == WriterState::Poisoned {
            return;
        }
        let (written, durable) = (self.ctx.placer.port().written_seq(), self.ctx.placer.port().durable_seq());
        let now_ns = self.ctx.clock.ns();
        if self.ctx.placer.port().outstanding() == 0
            && let Some(offered_at) = self.offered_at.take()
        {
            let took_ns = now_ns.saturating_sub(offered_at.as_nanos() as u64);
            self.company.settled(took_ns, self.ctx.waiters.len());
        }
        for (level, reached) in [(AckLevel::Written, written), (AckLevel::Durable, durable)] {
            while let Some(waiter) = self.ctx.waiters.pop(level, reached) {
                self.ctx.metrics().ack_latency.record(now_ns.saturating_sub(waiter.since_ns));
                let connection = &mut self.connections[waiter.connection as usize];
                self.beside.answered(&mut connection.last_answered);
                if connection.generation == waiter.generation
                    && connection.conversation.open_gate(waiter.gate, &mut self.ctx)
                {
                    self.touch(waiter.connection);
                }
            }
        }
    }

    /// Once a tick.
    fn enforce_deadlines(&mut self) -> io::Result<()> {
        let mut due = std::mem::take(&mut self.due);
        self.deadlines.take_passed(&mut due);
        for index in due.drain(..) {
            let connection = &mut self.connections[index as usize];
            match connection.stage {
                Stage::Open | Stage::HalfClosed => {
                    self.ctx.metrics().connections_timed_out.add(u64::from(!connection.conversation.is_idle()));
                    if connection.conversation.time_out(&mut self.ctx) {
                        self.touch(index);
                    } else {
                        self.shut(index)?;
                    }
                }
                Stage::Lingering => self.shut(index)?,
                Stage::Free | Stage::Closing | Stage::Leaving => {}
            }
        }
        self.due = due;
        for listener in 0..self.listeners.len() {
            if self.accepting[listener] == Accepting::Later {
                self.arm_accept(listener)?;
            }
        }
        Ok(())
    }

    fn watch_for_stop(&mut self) -> io::Result<()> {
        if !self.poisoned && self.ctx.writer_state() == WriterState::Poisoned {
            self.poisoned = true;
            self.ctx.waiters.clear();
            for index in 0..self.connections.len() as u32 {
                if matches!(self.connections[index as usize].stage, Stage::Open | Stage::HalfClosed) {
                    self.connections[index as usize].conversation.writer_failed(&mut self.ctx);
                    self.touch(index);
                }
            }
        }
        if !self.ctx.draining && self.stop.load(Ordering::Acquire) {
            self.ctx.draining = true;
            self.peers.leave(self.ctx.shard);
            self.drain_deadline = Some(self.ctx.clock.elapsed() + self.drain_timeout);
            // A socket is closed, and the kernel refuses connections, once its accept has ended too.
            self.listeners.clear();
            for (listener, accepting) in self.accepting.iter_mut().enumerate() {
                match accepting {
                    Accepting::Armed => {
                        self.ring.cancel(tag(Op::Accept, 0, listener as u32), tag(Op::Side, 0, u32::MAX))?;
                    }
                    Accepting::Later | Accepting::Off => *accepting = Accepting::Off,
                }
            }
            for index in 0..self.connections.len() {
                let connection = &mut self.connections[index];
                if connection.stage == Stage::Open && connection.conversation.is_idle() {
                    self.deadlines.set(index, DRAIN_GRACE);
                } else if connection.stage == Stage::Lingering {
                    connection.lingers_until = self.ctx.clock.elapsed() + LINGER;
                    self.deadlines.set(index, LINGER);
                }
            }
        }
        Ok(())
    }

    /// Told to stop, no listener open, every connection gone or out of time, every chunk settled.
    fn drained(&mut self) -> bool {
        let Some(deadline) = self.drain_deadline else { return false };
        let connections_gone = self.open == 0 || self.ctx.clock.elapsed() >= deadline;
        let chunks_gone = self.ctx.placer.log().used_bytes() == 0 && self.ctx.placer.port().outstanding() == 0;
        // An accept in flight holds its socket open, for as long as this ring is: the other shards know it, too.
        let listens = self.accepting.contains(&Accepting::Armed);
        connections_gone && !listens && (chunks_gone || self.poisoned)
    }

    /// What connections are still open when the time is over. Those with nothing begun and nothing owed lose nothing.
    fn cut_off(&self) -> io::Result<()> {
        let is_busy = |connection: &&Connection| {
            let talk = &connection.conversation;
            let is_served = talk.is_idle() || (talk.is_over() && talk.replies().is_empty());
            connection.stage != Stage::Free && !is_served
        };
        match self.connections.iter().filter(is_busy).count() {
            0 => Ok(()),
            busy => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{busy} connections were in the middle of a request when drain_timeout was over"),
            )),
        }
    }

    /// Submits, and waits if there is nothing to do; whether it blocked.
    fn wait(&mut self, worked: bool, now_ns: u64) -> io::Result<bool> {
        if worked {
            self.idle_since_ns = now_ns;
        }
        let may_block = match self.idle {
            Idle::Park => !worked,
            Idle::Spin => false,
            Idle::Adaptive(spin) => !worked && u128::from(now_ns - self.idle_since_ns) >= spin.as_nanos(),
        };
        if !may_block || self.ring.has_work() {
            return self.ring.enter(Wait::Poll).map(|()| false);
        }
        self.ctx.placer.port().wake_when_written(self.ctx.waiters.any(AckLevel::Written));
        self.bell.arm();
        if self.ctx.placer.port().has_settled() || self.written_reached() || self.stop_is_news() {
            self.bell.disarm();
            return self.ring.enter(Wait::Poll).map(|()| false);
        }
        let timed = self.deadlines.any() || self.drain_deadline.is_some() || self.accepting.contains(&Accepting::Later);
        let wait = if let Some(hold) = self.hold {
            Some(hold)
        } else if self.filling_since.is_some() {
            Some(UNWAITED_MAX)
        } else {
            // A shard that has nothing to do still shows how its figures fall.
            (timed || !self.ctx.door.admission.is_quiet()).then_some(TICK)
        };
        let again = self.unread.next_ns().map(|at_ns| Duration::from_nanos(at_ns.saturating_sub(now_ns)));
        let wait = wait.into_iter().chain(again).min();
        let result = self.ring.enter(wait.map_or(Wait::Forever, Wait::For));
        self.bell.disarm();
        result.map(|()| true)
    }

    fn written_reached(&self) -> bool {
        self.ctx.waiters.next(AckLevel::Written).is_some_and(|seq| seq <= self.ctx.placer.port().written_seq())
    }

    fn stop_is_news(&self) -> bool {
        (!self.ctx.draining && self.stop.load(Ordering::Acquire))
            || (!self.poisoned && self.ctx.writer_state() == WriterState::Poisoned)
    }

    fn count_turn(&mut self, times: &TurnTimes, now_ns: u64) {
        let (enters, open) = (self.ring.enters(), self.open);
        let Context { door, placer, pool, .. } = &mut self.ctx;
        let turned = door.turned(now_ns, times, || {
            let (log, port) = (placer.log(), placer.port());
            let open = (log.open_events() > 0).then(|| placer.open_seq());
            Facts {
                progress: Progress { open, durable: port.durable_seq() },
                log_buffer: (log.used_bytes() as u64, log.capacity_bytes() as u64),
                pool: (pool.used_bytes() as u64, pool.bytes_for_all() as u64),
                chunks: (port.outstanding() as u64, port.capacity() as u64),
            }
        });
        if turned.ticked {
            self.ctx.door.publish(now_ns, &self.ctx.server.shards[usize::from(self.ctx.shard.0)]);
        }
        let metrics = self.ctx.metrics();
        metrics.turns.add(1);
        metrics.busy_ns.add(turned.busy_ns);
        metrics.refusing_ns.add(turned.refusing_ns);
        metrics.wall_ns.set(now_ns);
        metrics.enters.set(enters);
        metrics.connections_open.set(open.into());
        metrics.chunks_sealed.set(self.ctx.placer.chunks_sealed());
        metrics.log_buffer_bytes_used.set(self.ctx.placer.log().used_bytes() as u64);
        metrics.requests_waiting.set(self.ctx.waiters.len() as u64);
        metrics.requests_in_flight.set(self.ctx.door.admission.in_flight().into());
    }
}

/// Direct descriptors of a shard: its connections, and some more so that one too many can be told so.
pub(super) fn slots_of(connections: u32) -> u32 {
    connections + 64
}
