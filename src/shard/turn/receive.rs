//! Connections and their bytes on the way in: accept, place, receive, parse, stall, resume. Shard thread.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::{Accepting, DRAIN_GRACE, GROUP, LINGER_BYTES_MAX, Op, Turn, tag};
use crate::base::ShardId;
use crate::shard::connection::{Connection, Receive, Stage, Stall};
use crate::shard::conversation::Next;
use crate::shard::unread::HEAVY_HOLD_NS;
use crate::sys::uring::{Completion, Run, Slot};

/// One in so many receive buffers is not held for connections whose answers have no room: the others are served with it.
const KEPT_SHARE: u16 = 8;

impl Turn {
    pub(super) fn arm_accept(&mut self, listener: usize) -> io::Result<()> {
        self.accepting[listener] = Accepting::Armed;
        self.ring.accept(self.listeners[listener].as_fd(), tag(Op::Accept, 0, listener as u32))
    }

    pub(super) fn accepted(&mut self, completion: &Completion, listener: usize) -> io::Result<()> {
        if !completion.more() {
            self.accepting[listener] = Accepting::Off;
        }
        if completion.result < 0 {
            // ENFILE: the slots are used up, and the kernel has closed the connection. Whatever it is, trying again at
            // once would spin; the next tick is soon enough.
            self.ctx.metrics().connections_refused.add(u64::from(completion.result == -libc::ENFILE));
            if !completion.more() && !self.ctx.draining {
                self.accepting[listener] = Accepting::Later;
            }
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
                self.ring.send_slot(Slot(slot), ring, tag(Op::Incoming, 0, 0), tag(Op::Move, shard.0.into(), slot))
            }
        }
    }

    pub(super) fn arrived(&mut self, completion: &Completion) -> io::Result<()> {
        match u32::try_from(completion.result) {
            Ok(slot) => self.open_connection(slot),
            Err(_) => Ok(()),
        }
    }

    pub(super) fn moved(&mut self, completion: &Completion, shard: ShardId, slot: u32) -> io::Result<()> {
        if completion.result < 0 {
            // The other shard has no slot left or is gone: the connection was counted there and ends here.
            self.peers.closed(shard);
            self.ctx.metrics().connections_refused.add(1);
        }
        self.ring.close(Slot(slot), tag(Op::MovedClose, 0, slot))
    }

    pub(super) fn open_connection(&mut self, slot: u32) -> io::Result<()> {
        self.open += 1;
        // Places are reused last in, first out: what a shard touches follows its open connections, not their churn.
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.connections.push(Connection::new(self.connections.len() as u32));
            self.connections.len() as u32 - 1
        });
        self.connections[index as usize].open(Slot(slot));
        if self.open > self.ctx.limits.connections_per_shard_max {
            self.ctx.metrics().connections_refused.add(1);
            self.connections[index as usize].conversation.refuse_connection(&mut self.ctx);
            self.touch(index);
            return Ok(());
        }
        self.arm_receive(index)?;
        let patience = if self.ctx.draining { DRAIN_GRACE } else { self.ctx.limits.idle_timeout };
        self.deadlines.set(index as usize, patience);
        Ok(())
    }

    pub(super) fn arm_receive(&mut self, index: u32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        debug_assert_eq!(connection.receive, Receive::Off);
        connection.receive = Receive::Armed;
        self.ring.receive(connection.slot, GROUP, self.bundles, tag(Op::Receive, connection.generation, index))
    }

    pub(super) fn received(&mut self, completion: &Completion, generation: u32, index: u32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        assert_eq!(connection.generation, generation, "a index is free only when its requests have completed");
        if !completion.more() {
            connection.receive = Receive::Off;
        }
        if let Some(first) = completion.buffer() {
            let bytes = completion.result.max(0) as usize;
            let mut runs = std::mem::take(&mut self.runs);
            let buffers = self.buffers.take(first, bytes, &mut runs);
            self.lending.received(buffers, bytes);
            self.ctx.metrics().received_bytes.add(bytes as u64);
            self.ctx.door.count_received(bytes as u64);
            let is_heavy = self.unread.brought(self.ctx.clock.ns(), &mut connection.brought, bytes as u64);
            if is_heavy && self.ctx.door.admission.holds_heaviest() {
                self.leave_unread(index, HEAVY_HOLD_NS)?;
            }
            for run in runs.drain(..) {
                self.take_run(index, run)?;
            }
            self.runs = runs;
        }
        match completion.result {
            1.. => {}
            0 => self.peer_ended(index),
            error if error == -libc::ENOBUFS => {
                self.ctx.metrics().receive_buffers_empty.add(1);
                let connection = &mut self.connections[index as usize];
                if matches!(connection.stage, Stage::Open | Stage::Lingering) && connection.receive == Receive::Off {
                    connection.receive = Receive::Parked;
                    self.parked.push_back((index, generation));
                }
            }
            error if error == -libc::ECANCELED => {}
            // Reset, timed out, unreachable: nobody is left to answer.
            _ => self.shut(index)?,
        }
        self.touch(index);
        Ok(())
    }

    /// Takes one run of received bytes: to be parsed now, or kept behind what already waits, or dropped.
    pub(super) fn take_run(&mut self, index: u32, mut run: Run) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        if run.bytes() == 0 || !matches!(connection.stage, Stage::Open) {
            connection.lingered_bytes += run.bytes();
            // Most often the body of a request that was refused.
            self.ctx.door.count_refused(0, run.bytes() as u64);
            self.buffers.give_back(run);
            return Ok(());
        }
        match connection.stall {
            Stall::None => {}
            Stall::NoRoom => {
                self.held.push(&mut connection.leftover, run);
                return Ok(());
            }
            Stall::Replies | Stall::Turn => return self.copy_aside(index, run),
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
                self.stall(index, Stall::NoRoom)?;
            }
            Next::WaitForTurn | Next::WaitForReplies => {
                self.stall(index, if next == Next::WaitForTurn { Stall::Turn } else { Stall::Replies })?;
                self.copy_aside(index, run)?;
            }
        }
        Ok(())
    }

    pub(super) fn stall(&mut self, index: u32, stall: Stall) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        connection.stall = stall;
        connection.stalled_at = connection.conversation.replies().progress();
        let generation = connection.generation;
        match stall {
            Stall::NoRoom => {
                self.ctx.metrics().no_room_stalls.add(1);
                self.no_room.push_back((index, generation));
                self.ctx.room_is_awaited = true;
            }
            Stall::Turn => {
                self.ctx.metrics().turn_stalls.add(1);
                self.next_turn.push_back((index, generation));
            }
            Stall::Replies | Stall::None => {}
        }
        self.end_receive(index)
    }

    /// Leaves a connection unread for a while, so that TCP makes its peer wait.
    pub(super) fn leave_unread(&mut self, index: u32, for_ns: u64) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        if std::mem::replace(&mut connection.unread, true) {
            return Ok(());
        }
        self.ctx.metrics().connections_held.add(1);
        self.unread.put(self.ctx.clock.ns() + for_ns, index);
        self.end_receive(index)
    }

    /// Goes on with those whose time has come.
    pub(super) fn read_again(&mut self) {
        let now_ns = self.ctx.clock.ns();
        while let Some(index) = self.unread.pop_due(now_ns) {
            self.connections[index as usize].unread = false;
            self.touch(index);
        }
    }

    pub(super) fn end_receive(&mut self, index: u32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        if connection.receive == Receive::Armed {
            connection.receive = Receive::Ending;
            connection.pending += 1;
            let target = tag(Op::Receive, connection.generation, index);
            self.ring.cancel(target, tag(Op::Side, connection.generation, index))?;
        }
        Ok(())
    }

    /// Copies a run into the connection's own block, so that a peer that does not read, or asks for more than a turn has time
    /// for, holds no shared buffer. What that block does not take stays where it is: a peer that reads all the time may have
    /// sent as much before its first answer.
    pub(super) fn copy_aside(&mut self, index: u32, run: Run) -> io::Result<()> {
        let leftover = &mut self.connections[index as usize].leftover;
        if leftover.set_aside(&mut self.ctx.pool, self.buffers.bytes_of(&run)) {
            self.buffers.give_back(run);
            return Ok(());
        }
        let count = self.buffers.count();
        if self.held.buffers() + run.buffers() <= count - count / KEPT_SHARE {
            self.held.push(leftover, run);
            return Ok(());
        }
        self.buffers.give_back(run);
        // Without the bytes the talk cannot go on: the connection pays for having sent so far ahead.
        self.ctx.metrics().connections_timed_out.add(1);
        self.shut(index)
    }

    /// Goes on with a connection that was stalled.
    pub(super) fn resume(&mut self, index: u32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        connection.stall = Stall::None;
        if connection.stage != Stage::Open && connection.stage != Stage::HalfClosed {
            return Ok(());
        }
        self.touch(index);
        loop {
            let connection = &mut self.connections[index as usize];
            let next = if let Some((mut block, range)) = connection.leftover.copied.take() {
                let (consumed, next) =
                    connection.conversation.consume(&mut block.bytes_mut()[range.clone()], &mut self.ctx);
                if next.waits() {
                    connection.leftover.copied = Some((block, range.start + consumed..range.end));
                } else {
                    self.ctx.pool.give_back(block);
                }
                next
            } else if let Some(mut run) = self.held.pop(&mut connection.leftover) {
                let (consumed, next) = connection.conversation.consume(self.buffers.bytes_of(&run), &mut self.ctx);
                run.advance(consumed);
                if next.waits() {
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
                Next::WaitForRoom => return self.stall(index, Stall::NoRoom),
                Next::WaitForTurn => return self.stall(index, Stall::Turn),
                Next::WaitForReplies => return self.stall(index, Stall::Replies),
            }
        }
    }

    pub(super) fn peer_ended(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        if connection.stage == Stage::Open {
            connection.stage = Stage::HalfClosed;
        } else if connection.stage == Stage::Lingering {
            connection.lingered_bytes = LINGER_BYTES_MAX;
        }
    }
}
