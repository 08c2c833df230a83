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

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::connection::{Connection, HeldRuns, Receive, Stage, Stall};
use super::context::Context;
use super::conversation::{Next, Wants};
use super::deadlines::{Deadlines, TICK};
use super::peers::Peers;
use crate::base::{AckLevel, Seq, ShardId};
use crate::handoff::{Bell, WriterState};
use crate::sys::uring::{Completion, ProvidedBuffers, Ring, Run, Slot, Wait};

/// The buffer group of the provided buffers.
pub(super) const GROUP: u16 = 0;
/// Completions copied out of the queue at a time.
const REAPED_MAX: usize = 256;
/// How long a lingering connection waits for the peer to see its last answer.
const LINGER: Duration = Duration::from_secs(2);
/// What a lingering connection drops before it is shut: a peer that goes on sending has not seen the answer anyway.
const LINGER_BYTES_MAX: usize = 1 << 20;
/// After the drain has begun, an idle connection is kept this long: a request that crosses with it is still answered.
const DRAIN_GRACE: Duration = Duration::from_millis(100);
/// Copies of bytes a connection could not parse because its answers have no room: more shuts it.
const COPIED_BYTES_MAX: usize = 1 << 20;

/// In place of a generation: the close of a connection that was moved to another shard.
const MOVED: u32 = 0x00FF_FFFF;

/// What a submission was for, the top byte of its `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Op {
    Bell = 1,
    Accept,
    Incoming,
    Receive,
    Send,
    Side,
    Move,
    Close,
}

fn tag(op: Op, generation: u32, index: u32) -> u64 {
    debug_assert!(generation < 1 << 24);
    (op as u64) << 56 | u64::from(generation) << 32 | u64::from(index)
}

fn untag(user_data: u64) -> (Option<Op>, u32, u32) {
    let op = [Op::Bell, Op::Accept, Op::Incoming, Op::Receive, Op::Send, Op::Side, Op::Move, Op::Close]
        .into_iter()
        .find(|op| *op as u64 == user_data >> 56);
    (op, (user_data >> 32) as u32 & 0x00FF_FFFF, user_data as u32)
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
    /// How long connections may take to finish after a stop.
    pub(super) drain_timeout: Duration,
}

/// See the module text.
pub(super) struct Turn {
    ctx: Context,
    ring: Ring,
    buffers: ProvidedBuffers,
    bundles: bool,
    listeners: Vec<OwnedFd>,
    peers: Arc<Peers>,
    bell: Arc<Bell>,
    stop: Arc<AtomicBool>,
    idle: Idle,
    drain_timeout: Duration,
    connections: Vec<Connection>,
    deadlines: Deadlines,
    held: HeldRuns,
    /// Connections to look after before the turn ends.
    touched: Vec<u32>,
    /// Connections that wait for room in the log buffer, and those that wait for provided buffers; (slot, generation).
    no_room: VecDeque<(u32, u32)>,
    parked: VecDeque<(u32, u32)>,
    /// Connections being moved here: counted, not yet arrived.
    open: u32,
    drain_deadline: Option<Duration>,
    poisoned: bool,
    accept_retry: bool,
    runs: Vec<Run>,
    due: Vec<u32>,
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
            deadlines: Deadlines::new(slots),
            held: HeldRuns::new(buffers),
            touched: Vec::with_capacity(slots),
            no_room: VecDeque::with_capacity(slots),
            parked: VecDeque::with_capacity(slots),
            open: 0,
            drain_deadline: None,
            poisoned: false,
            accept_retry: false,
            runs: Vec::with_capacity(buffers),
            due: Vec::with_capacity(slots),
            idle_since_ns: 0,
            ctx: parts.context,
            ring: parts.ring,
            buffers: parts.buffers,
            bundles: parts.bundles,
            listeners: parts.listeners,
            peers: parts.peers,
            bell: parts.bell,
            stop: parts.stop,
            idle: parts.idle,
            drain_timeout: parts.drain_timeout,
        }
    }

    /// Serves until it is told to stop and has drained.
    ///
    /// # Errors
    /// The errno of io_uring_enter(2) where the ring itself has failed.
    pub(super) fn run(&mut self) -> io::Result<()> {
        self.ring.poll_multi(self.bell.fd(), tag(Op::Bell, 0, 0))?;
        for listener in 0..self.listeners.len() {
            self.arm_accept(listener)?;
        }
        let mut from_ns = self.ctx.clock.precise_ns();
        loop {
            let worked = self.turn()?;
            if self.drained() {
                return Ok(());
            }
            let turned_ns = self.ctx.clock.precise_ns();
            let blocked = self.wait(worked, turned_ns)?;
            let now_ns = self.ctx.clock.precise_ns();
            // Entering the kernel without waiting is work: that is where sockets are read. Blocking is not, nor is a
            // turn that found nothing.
            let busy_until_ns = if blocked { turned_ns } else { now_ns };
            self.count_turn(if worked { busy_until_ns - from_ns } else { 0 }, now_ns);
            from_ns = now_ns;
        }
    }

    /// One turn; whether there was anything to do.
    fn turn(&mut self) -> io::Result<bool> {
        self.ctx.clock.read();
        let mut worked = self.receive()?;
        worked |= self.take_settled()?;
        self.offer_to_writer();
        self.acknowledge();
        self.enforce_deadlines()?;
        self.watch_for_stop()?;
        self.look_after_touched()?;
        self.unpark()?;
        self.buffers.publish();
        Ok(worked)
    }

    fn receive(&mut self) -> io::Result<bool> {
        let mut completions = [Completion::default(); REAPED_MAX];
        let mut worked = false;
        loop {
            let reaped = self.ring.reap(&mut completions);
            for completion in &completions[..reaped] {
                self.complete(completion)?;
            }
            worked |= reaped > 0;
            if reaped < REAPED_MAX {
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
            Op::Close => self.closed(generation == MOVED, index),
        }
    }

    fn bell_rang(&mut self, completion: &Completion) -> io::Result<()> {
        if completion.more() { Ok(()) } else { self.ring.poll_multi(self.bell.fd(), tag(Op::Bell, 0, 0)) }
    }

    // --- connections come -------------------------------------------------------------------------------------------

    fn arm_accept(&mut self, listener: usize) -> io::Result<()> {
        self.ring.accept(self.listeners[listener].as_fd(), tag(Op::Accept, 0, listener as u32))
    }

    fn accepted(&mut self, completion: &Completion, listener: usize) -> io::Result<()> {
        if completion.result < 0 {
            // ENFILE: the slots are used up, and the kernel has closed the connection. Whatever it is, trying again at
            // once would spin; the next tick is soon enough.
            self.accept_retry |= !self.ctx.draining;
            return Ok(());
        }
        let slot = completion.result as u32;
        self.ctx.metrics().connections_accepted.add(1);
        if !completion.more() && !self.ctx.draining {
            self.arm_accept(listener)?;
        }
        let peers = Arc::clone(&self.peers);
        match peers.place(self.ctx.shard) {
            None => self.open_connection(slot),
            Some((shard, ring)) => {
                self.ctx.metrics().connections_moved.add(1);
                self.connection(slot).stage = Stage::Leaving;
                self.ring.send_slot(Slot(slot), ring, tag(Op::Incoming, 0, 0), tag(Op::Move, shard.0.into(), slot))
            }
        }
    }

    fn arrived(&mut self, completion: &Completion) -> io::Result<()> {
        match u32::try_from(completion.result) {
            Ok(slot) => self.open_connection(slot),
            Err(_) => Ok(()),
        }
    }

    fn moved(&mut self, completion: &Completion, shard: ShardId, slot: u32) -> io::Result<()> {
        if completion.result < 0 {
            // The other shard has no slot left or is gone: the connection was counted there and ends here.
            self.peers.closed(shard);
            self.ctx.metrics().connections_refused.add(1);
        }
        self.ring.close(Slot(slot), tag(Op::Close, MOVED, slot))
    }

    fn open_connection(&mut self, slot: u32) -> io::Result<()> {
        self.open += 1;
        self.connection(slot).open();
        if self.open > self.ctx.limits.connections_per_shard_max {
            self.ctx.metrics().connections_refused.add(1);
            let connection = &mut self.connections[slot as usize];
            connection.conversation.refuse_connection(&mut self.ctx);
            self.touch(slot);
            return Ok(());
        }
        self.arm_receive(slot)?;
        self.deadlines.set(slot as usize, self.ctx.limits.idle_timeout);
        if self.ctx.draining {
            self.deadlines.set(slot as usize, DRAIN_GRACE);
        }
        Ok(())
    }

    fn connection(&mut self, slot: u32) -> &mut Connection {
        while self.connections.len() <= slot as usize {
            self.connections.push(Connection::new(Slot(self.connections.len() as u32)));
        }
        &mut self.connections[slot as usize]
    }

    // --- bytes come -------------------------------------------------------------------------------------------------

    fn arm_receive(&mut self, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        debug_assert_eq!(connection.receive, Receive::Off);
        connection.receive = Receive::Armed;
        self.ring.receive(Slot(slot), GROUP, self.bundles, tag(Op::Receive, connection.generation, slot))
    }

    fn received(&mut self, completion: &Completion, generation: u32, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        assert_eq!(connection.generation, generation, "a slot is free only when its requests have completed");
        if !completion.more() {
            connection.receive = Receive::Off;
        }
        if let Some(first) = completion.buffer() {
            let bytes = completion.result.max(0) as usize;
            let mut runs = std::mem::take(&mut self.runs);
            self.buffers.take(first, bytes, &mut runs);
            self.ctx.metrics().received_bytes.add(bytes as u64);
            for run in runs.drain(..) {
                self.take_run(slot, run)?;
            }
            self.runs = runs;
        }
        match completion.result {
            1.. => {}
            0 => self.peer_ended(slot),
            error if error == -libc::ENOBUFS => {
                self.ctx.metrics().receive_buffers_empty.add(1);
                let connection = &mut self.connections[slot as usize];
                if connection.stage == Stage::Open && connection.receive == Receive::Off {
                    connection.receive = Receive::Parked;
                    self.parked.push_back((slot, generation));
                }
            }
            error if error == -libc::ECANCELED => {}
            // Reset, timed out, unreachable: nobody is left to answer.
            _ => self.shut(slot)?,
        }
        self.touch(slot);
        Ok(())
    }

    /// Takes one run of received bytes: to be parsed now, or kept behind what already waits, or dropped.
    fn take_run(&mut self, slot: u32, mut run: Run) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        if run.bytes() == 0 || !matches!(connection.stage, Stage::Open) {
            connection.lingered_bytes += run.bytes();
            self.buffers.give_back(run);
            return Ok(());
        }
        match connection.stall {
            Stall::None => {}
            Stall::NoRoom => {
                self.held.push(&mut connection.leftover, run);
                return Ok(());
            }
            Stall::Replies => return self.copy_aside(slot, run),
        }
        let input = self.buffers.bytes_of(&run);
        let (consumed, next) = connection.conversation.consume(input, &mut self.ctx);
        run.advance(consumed);
        match next {
            Next::Read => self.buffers.give_back(run),
            Next::Close => {
                connection.lingered_bytes += run.bytes();
                self.buffers.give_back(run);
            }
            Next::WaitForRoom => {
                self.held.push(&mut connection.leftover, run);
                self.stall(slot, Stall::NoRoom)?;
            }
            Next::WaitForReplies => {
                self.stall(slot, Stall::Replies)?;
                self.copy_aside(slot, run)?;
            }
        }
        Ok(())
    }

    fn stall(&mut self, slot: u32, stall: Stall) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        connection.stall = stall;
        if stall == Stall::NoRoom {
            self.ctx.metrics().no_room_stalls.add(1);
            self.no_room.push_back((slot, connection.generation));
        }
        self.end_receive(slot)
    }

    fn end_receive(&mut self, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        if connection.receive == Receive::Armed {
            connection.receive = Receive::Ending;
            connection.pending += 1;
            let target = tag(Op::Receive, connection.generation, slot);
            self.ring.cancel(target, tag(Op::Side, connection.generation, slot))?;
        }
        Ok(())
    }

    /// Copies a run into the connection's own block, so that a peer that does not read holds no shared buffer.
    fn copy_aside(&mut self, slot: u32, run: Run) -> io::Result<()> {
        let leftover = &mut self.connections[slot as usize].leftover;
        let bytes = self.buffers.bytes_of(&run);
        let kept = match &mut leftover.copied {
            None => self.ctx.pool.take(bytes.len()).map(|block| (block, 0..0)),
            copied => {
                let (mut block, range) = copied.take().expect("just seen");
                let wanted = range.end + bytes.len();
                if wanted <= COPIED_BYTES_MAX && self.ctx.pool.grow(&mut block, range.end, wanted) {
                    Some((block, range))
                } else {
                    self.ctx.pool.give_back(block);
                    None
                }
            }
        };
        leftover.copied = kept.map(|(mut block, range)| {
            let end = range.end + bytes.len();
            block.bytes_mut()[range.end..end].copy_from_slice(bytes);
            (block, range.start..end)
        });
        self.buffers.give_back(run);
        // Without the bytes the talk cannot go on: the connection pays for the pool it has used up.
        if leftover.copied.is_none() { self.shut(slot) } else { Ok(()) }
    }

    /// Goes on with a connection that was stalled.
    fn resume(&mut self, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        if connection.stage != Stage::Open && connection.stage != Stage::HalfClosed {
            return Ok(());
        }
        connection.stall = Stall::None;
        self.touch(slot);
        loop {
            let connection = &mut self.connections[slot as usize];
            let next = if let Some((mut block, range)) = connection.leftover.copied.take() {
                let (consumed, next) =
                    connection.conversation.consume(&mut block.bytes_mut()[range.clone()], &mut self.ctx);
                if matches!(next, Next::WaitForRoom | Next::WaitForReplies) {
                    connection.leftover.copied = Some((block, range.start + consumed..range.end));
                } else {
                    self.ctx.pool.give_back(block);
                }
                next
            } else if let Some(mut run) = self.held.pop(&mut connection.leftover) {
                let (consumed, next) = connection.conversation.consume(self.buffers.bytes_of(&run), &mut self.ctx);
                run.advance(consumed);
                if matches!(next, Next::WaitForRoom | Next::WaitForReplies) {
                    self.held.push_front(&mut connection.leftover, run);
                } else {
                    self.buffers.give_back(run);
                }
                next
            } else {
                // Something may be waiting in the talk itself: a body that is over but not yet placed.
                let (_, next) = connection.conversation.consume(&mut [], &mut self.ctx);
                if next == Next::Read {
                    return Ok(());
                }
                next
            };
            match next {
                Next::Read => {}
                Next::Close => return Ok(()),
                Next::WaitForRoom => return self.stall(slot, Stall::NoRoom),
                Next::WaitForReplies => return self.stall(slot, Stall::Replies),
            }
        }
    }

    fn peer_ended(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if connection.stage == Stage::Open {
            connection.stage = Stage::HalfClosed;
        } else if connection.stage == Stage::Lingering {
            connection.lingered_bytes = LINGER_BYTES_MAX;
        }
    }

    // --- the writer -------------------------------------------------------------------------------------------------

    fn take_settled(&mut self) -> io::Result<bool> {
        let settled = self.ctx.placer.take_settled();
        if settled {
            for _ in 0..self.no_room.len() {
                let (slot, generation) = self.no_room.pop_front().expect("as many as there were");
                if self.connections[slot as usize].generation == generation {
                    self.resume(slot)?;
                    if self.connections[slot as usize].stall == Stall::NoRoom {
                        // Those behind it would not find any either.
                        break;
                    }
                }
            }
        }
        Ok(settled)
    }

    /// Seals the open chunk when the writer would otherwise idle, or when an answer waits for nothing but the seal.
    fn offer_to_writer(&mut self) {
        if self.ctx.placer.port().writer_is_hungry() || self.ctx.waiters.any(AckLevel::Memory) {
            self.ctx.placer.seal(self.ctx.clock.unix_ns());
        }
    }

    fn acknowledge(&mut self) {
        if self.ctx.waiters.is_empty() {
            return;
        }
        if self.ctx.writer_state() == WriterState::Poisoned {
            return;
        }
        let sealed = Seq(self.ctx.placer.open_seq().0 - 1);
        let (written, durable) = (self.ctx.placer.port().written_seq(), self.ctx.placer.port().durable_seq());
        let now_ns = self.ctx.clock.ns();
        for (level, reached) in [(AckLevel::Memory, sealed), (AckLevel::Written, written), (AckLevel::Durable, durable)]
        {
            while let Some(waiter) = self.ctx.waiters.pop(level, reached) {
                self.ctx.metrics().ack_latency.record(now_ns.saturating_sub(waiter.since_ns));
                let connection = &mut self.connections[waiter.connection as usize];
                if connection.generation == waiter.generation && connection.conversation.open_gate(waiter.gate) {
                    self.touch(waiter.connection);
                }
            }
        }
    }

    // --- time -------------------------------------------------------------------------------------------------------

    fn enforce_deadlines(&mut self) -> io::Result<()> {
        let mut due = std::mem::take(&mut self.due);
        let ticked = self.deadlines.advance(self.ctx.clock.elapsed(), &mut due);
        for slot in due.drain(..) {
            let connection = &mut self.connections[slot as usize];
            match connection.stage {
                Stage::Open | Stage::HalfClosed => {
                    self.ctx.metrics().connections_timed_out.add(u64::from(!connection.conversation.is_idle()));
                    if connection.conversation.time_out(&mut self.ctx) {
                        self.touch(slot);
                    } else {
                        self.shut(slot)?;
                    }
                }
                Stage::Lingering => self.shut(slot)?,
                Stage::Free | Stage::Closing | Stage::Leaving => {}
            }
        }
        self.due = due;
        if self.accept_retry && ticked {
            self.accept_retry = false;
            for listener in 0..self.listeners.len() {
                self.arm_accept(listener)?;
            }
        }
        Ok(())
    }

    fn watch_for_stop(&mut self) -> io::Result<()> {
        if !self.poisoned && self.ctx.writer_state() == WriterState::Poisoned {
            self.poisoned = true;
            self.ctx.waiters.clear();
            for slot in 0..self.connections.len() as u32 {
                if matches!(self.connections[slot as usize].stage, Stage::Open | Stage::HalfClosed) {
                    self.connections[slot as usize].conversation.writer_failed(&mut self.ctx);
                    self.touch(slot);
                }
            }
        }
        if !self.ctx.draining && self.stop.load(Ordering::Acquire) {
            self.ctx.draining = true;
            self.peers.leave(self.ctx.shard);
            self.drain_deadline = Some(self.ctx.clock.elapsed() + self.drain_timeout);
            for listener in std::mem::take(&mut self.listeners).iter().enumerate().map(|(index, _)| index) {
                self.ring.cancel(tag(Op::Accept, 0, listener as u32), tag(Op::Side, 0, u32::MAX))?;
            }
            for slot in 0..self.connections.len() {
                if self.connections[slot].stage == Stage::Open && self.connections[slot].conversation.is_idle() {
                    self.deadlines.set(slot, DRAIN_GRACE);
                }
            }
        }
        Ok(())
    }

    /// Told to stop, every connection gone or out of time, every chunk settled.
    fn drained(&mut self) -> bool {
        let Some(deadline) = self.drain_deadline else { return false };
        let connections_gone = self.open == 0 || self.ctx.clock.elapsed() >= deadline;
        let chunks_gone = self.ctx.placer.log().used_bytes() == 0 && self.ctx.placer.port().outstanding() == 0;
        connections_gone && (chunks_gone || self.poisoned)
    }

    // --- answers and ends -------------------------------------------------------------------------------------------

    fn touch(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if !std::mem::replace(&mut connection.touched, true) {
            self.touched.push(slot);
        }
    }

    /// Brings every touched connection to rest: sends, resumes, re-arms, closes, sets its deadline.
    fn look_after_touched(&mut self) -> io::Result<()> {
        let mut index = 0;
        while index < self.touched.len() {
            let slot = self.touched[index];
            index += 1;
            self.connections[slot as usize].touched = false;
            self.look_after(slot)?;
        }
        self.touched.clear();
        Ok(())
    }

    fn look_after(&mut self, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        match connection.stage {
            Stage::Free | Stage::Leaving => return Ok(()),
            Stage::Closing => return self.close_if_quiet(slot),
            Stage::Lingering => {
                if connection.lingered_bytes >= LINGER_BYTES_MAX {
                    return self.shut(slot);
                }
                return if connection.receive == Receive::Off { self.arm_receive(slot) } else { Ok(()) };
            }
            Stage::Open | Stage::HalfClosed => {}
        }
        if !connection.sending
            && let Some((offset, bytes)) = connection.conversation.replies().sendable()
        {
            connection.sending = true;
            self.ring.send(Slot(slot), offset, bytes, tag(Op::Send, connection.generation, slot))?;
        }
        let connection = &mut self.connections[slot as usize];
        if connection.stall == Stall::Replies && connection.conversation.replies_have_room() {
            self.resume(slot)?;
        }
        let connection = &mut self.connections[slot as usize];
        if connection.conversation.is_over() && connection.conversation.replies().is_empty() && !connection.sending {
            return if connection.stage == Stage::HalfClosed { self.shut(slot) } else { self.linger(slot) };
        }
        if connection.stage == Stage::HalfClosed
            && connection.stall == Stall::None
            && connection.leftover.is_empty()
            && connection.conversation.replies().is_empty()
            && !connection.sending
        {
            // Nothing more can come, and nothing is owed: a request cut short has no answer that anybody waits for.
            return self.shut(slot);
        }
        if connection.stage == Stage::Open
            && connection.receive == Receive::Off
            && connection.stall == Stall::None
            && !connection.conversation.is_over()
        {
            self.arm_receive(slot)?;
        }
        self.set_deadline(slot);
        Ok(())
    }

    fn set_deadline(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        let limits = &self.ctx.limits;
        let wants = if connection.stall == Stall::NoRoom { Wants::Nothing } else { connection.conversation.wants() };
        let after = match wants {
            Wants::Nothing => return self.deadlines.clear(slot as usize),
            Wants::Unchanged => return,
            Wants::Request if self.ctx.draining => DRAIN_GRACE,
            Wants::Request => limits.idle_timeout,
            Wants::Head => limits.head_timeout,
            Wants::Body => limits.body_timeout,
            Wants::Reader => limits.send_timeout,
        };
        self.deadlines.set(slot as usize, after);
    }

    fn sent(&mut self, completion: &Completion, generation: u32, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        assert_eq!(connection.generation, generation, "a slot is free only when its requests have completed");
        connection.sending = false;
        if completion.result > 0 {
            let bytes = completion.result as usize;
            connection.conversation.sent(bytes, &mut self.ctx.pool);
            self.ctx.metrics().sent_bytes.add(bytes as u64);
        } else if completion.result != -libc::EAGAIN && completion.result != -libc::EINTR {
            self.shut(slot)?;
        }
        self.touch(slot);
        Ok(())
    }

    fn side_done(&mut self, generation: u32, slot: u32) -> io::Result<()> {
        if slot != u32::MAX {
            let connection = &mut self.connections[slot as usize];
            assert_eq!(connection.generation, generation, "a slot is free only when its requests have completed");
            connection.pending -= 1;
            self.touch(slot);
        }
        Ok(())
    }

    /// The last answer has left: say so to the peer and drop what still comes.
    fn linger(&mut self, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        connection.stage = Stage::Lingering;
        connection.pending += 1;
        let generation = connection.generation;
        self.drop_leftover(slot);
        self.deadlines.set(slot as usize, LINGER);
        self.ring.shutdown_write(Slot(slot), tag(Op::Side, generation, slot))
    }

    /// Ends a connection now, whatever it was doing.
    fn shut(&mut self, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        if matches!(connection.stage, Stage::Free | Stage::Closing | Stage::Leaving) {
            return Ok(());
        }
        connection.stage = Stage::Closing;
        self.drop_leftover(slot);
        self.deadlines.clear(slot as usize);
        self.touch(slot);
        let connection = &mut self.connections[slot as usize];
        if !connection.quiet() {
            // Ends a receive and a send in flight as well.
            connection.pending += 1;
            self.ring.shutdown_both(Slot(slot), tag(Op::Side, connection.generation, slot))?;
        }
        Ok(())
    }

    fn drop_leftover(&mut self, slot: u32) {
        let leftover = &mut self.connections[slot as usize].leftover;
        if let Some((block, _)) = leftover.copied.take() {
            self.ctx.pool.give_back(block);
        }
        while let Some(run) = self.held.pop(leftover) {
            self.buffers.give_back(run);
        }
    }

    fn close_if_quiet(&mut self, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        if !connection.quiet() {
            return Ok(());
        }
        connection.stage = Stage::Leaving;
        connection.receive = Receive::Off;
        connection.conversation.end(&mut self.ctx);
        self.ring.close(Slot(slot), tag(Op::Close, 0, slot))
    }

    fn closed(&mut self, moved: bool, slot: u32) -> io::Result<()> {
        self.connections[slot as usize].free();
        if !moved {
            self.open -= 1;
            self.peers.closed(self.ctx.shard);
        }
        Ok(())
    }

    fn unpark(&mut self) -> io::Result<()> {
        // Half of the buffers back: re-arming into a few would only run out again, at a completion each.
        if self.parked.is_empty() || self.buffers.available() < self.buffers.count() / 2 {
            return Ok(());
        }
        self.buffers.publish();
        while let Some((slot, generation)) = self.parked.pop_front() {
            let connection = &mut self.connections[slot as usize];
            if connection.generation == generation && connection.receive == Receive::Parked {
                connection.receive = Receive::Off;
                self.touch(slot);
                self.look_after_touched()?;
            }
        }
        Ok(())
    }

    // --- waiting ----------------------------------------------------------------------------------------------------

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
        self.bell.arm();
        if self.ctx.placer.port().has_settled() || self.written_reached() || self.stop_is_news() {
            self.bell.disarm();
            return self.ring.enter(Wait::Poll).map(|()| false);
        }
        let timed = self.deadlines.any() || self.drain_deadline.is_some() || self.accept_retry;
        let result = self.ring.enter(if timed { Wait::For(TICK) } else { Wait::Forever });
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

    fn count_turn(&mut self, busy_ns: u64, now_ns: u64) {
        let (enters, open) = (self.ring.enters(), self.open);
        let metrics = self.ctx.metrics();
        metrics.turns.add(1);
        metrics.busy_ns.add(busy_ns);
        metrics.wall_ns.set(now_ns);
        metrics.enters.set(enters);
        metrics.connections_open.set(open.into());
        metrics.chunks_sealed.set(self.ctx.placer.chunks_sealed());
        metrics.log_buffer_bytes_used.set(self.ctx.placer.log().used_bytes() as u64);
        metrics.requests_waiting.set(self.ctx.waiters.len() as u64);
    }
}

/// Direct descriptors of a shard: its connections, and some more so that one too many can be told so.
pub(super) fn slots_of(connections: u32) -> u32 {
    connections + 64
}
