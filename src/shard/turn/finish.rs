//! Connections on the way out: answers sent, deadlines set, the last bytes, the close. Shard thread.

use std::io;

use super::{DRAIN_GRACE, LINGER, LINGER_BYTES_MAX, LINGER_MAX, Op, Turn, tag};
use crate::shard::connection::{Receive, Stage, Stall};
use crate::shard::conversation::Wants;
use crate::sys::uring::Completion;

impl Turn {
    pub(super) fn touch(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        if !std::mem::replace(&mut connection.touched, true) {
            self.touched.push(index);
        }
    }

    /// Brings every touched connection to rest: sends, resumes, re-arms, closes, sets its deadline.
    pub(super) fn look_after_touched(&mut self) -> io::Result<()> {
        let mut next = 0;
        while next < self.touched.len() {
            let index = self.touched[next];
            next += 1;
            self.connections[index as usize].touched = false;
            self.look_after(index)?;
        }
        self.touched.clear();
        Ok(())
    }

    pub(super) fn look_after(&mut self, index: u32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        match connection.stage {
            Stage::Free | Stage::Leaving => return Ok(()),
            Stage::Closing => return self.close_if_quiet(index),
            Stage::Lingering => {
                if connection.lingered_bytes >= LINGER_BYTES_MAX {
                    return self.shut(index);
                }
                let left = connection.lingers_until.saturating_sub(self.ctx.clock.elapsed());
                self.deadlines.set(index as usize, left.min(LINGER));
                return if connection.receive == Receive::Off { self.arm_receive(index) } else { Ok(()) };
            }
            Stage::Open | Stage::HalfClosed => {}
        }
        if !connection.sending
            && let Some((offset, bytes)) = connection.conversation.replies().sendable()
        {
            connection.sending = true;
            self.ring.send(connection.slot, offset, bytes, tag(Op::Send, connection.generation, index))?;
        }
        let connection = &mut self.connections[index as usize];
        if connection.stall == Stall::Replies && connection.conversation.replies().progress() != connection.stalled_at {
            self.resume(index)?;
        }
        let connection = &mut self.connections[index as usize];
        if connection.conversation.is_over() && connection.conversation.replies().is_empty() && !connection.sending {
            return if connection.stage == Stage::HalfClosed { self.shut(index) } else { self.linger(index) };
        }
        if connection.stage == Stage::HalfClosed
            && connection.stall == Stall::None
            && connection.leftover.is_empty()
            && connection.conversation.replies().is_empty()
            && !connection.sending
        {
            // Nothing more can come, and nothing is owed: a request cut short has no answer that anybody waits for.
            return self.shut(index);
        }
        if connection.conversation.take_turned_away() {
            let hold_ns = self.ctx.door.admission.draw_hold_ns();
            if hold_ns > 0 {
                self.leave_unread(index, hold_ns)?;
            }
        }
        let connection = &mut self.connections[index as usize];
        if connection.stage == Stage::Open
            && connection.receive == Receive::Off
            && connection.stall == Stall::None
            && !connection.unread
            && !connection.conversation.is_over()
        {
            self.arm_receive(index)?;
        }
        self.set_deadline(index);
        Ok(())
    }

    pub(super) fn set_deadline(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        let limits = &self.ctx.limits;
        let wants = if matches!(connection.stall, Stall::NoRoom | Stall::Turn) {
            connection.conversation.wait_for_server();
            Wants::Nothing
        } else {
            connection.conversation.wants()
        };
        let after = match wants {
            Wants::Nothing => return self.deadlines.clear(index as usize),
            Wants::Unchanged => return,
            Wants::Request if self.ctx.draining => DRAIN_GRACE,
            Wants::Request => limits.idle_timeout,
            Wants::Head => limits.head_timeout,
            Wants::Body => limits.body_timeout,
            Wants::Reader => limits.send_timeout,
        };
        self.deadlines.set(index as usize, after);
    }

    pub(super) fn sent(&mut self, completion: &Completion, generation: u32, index: u32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        assert_eq!(connection.generation, generation, "a index is free only when its requests have completed");
        connection.sending = false;
        if completion.result > 0 {
            let bytes = completion.result as usize;
            connection.conversation.sent(bytes, &mut self.ctx.pool);
            self.ctx.metrics().sent_bytes.add(bytes as u64);
        } else if completion.result != -libc::EAGAIN && completion.result != -libc::EINTR {
            self.shut(index)?;
        }
        self.touch(index);
        Ok(())
    }

    pub(super) fn side_done(&mut self, generation: u32, index: u32) -> io::Result<()> {
        if index != u32::MAX {
            let connection = &mut self.connections[index as usize];
            assert_eq!(connection.generation, generation, "a index is free only when its requests have completed");
            connection.pending -= 1;
            self.touch(index);
        }
        Ok(())
    }

    /// The last answer has left: say so to the peer and drop what still comes.
    pub(super) fn linger(&mut self, index: u32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        connection.stage = Stage::Lingering;
        let patience = if self.ctx.draining { LINGER } else { LINGER_MAX };
        connection.lingers_until = self.ctx.clock.elapsed() + patience;
        connection.pending += 1;
        let (slot, generation) = (connection.slot, connection.generation);
        self.drop_leftover(index);
        self.deadlines.set(index as usize, LINGER);
        self.ring.shutdown_write(slot, tag(Op::Side, generation, index))
    }

    /// Ends a connection now, whatever it was doing.
    pub(super) fn shut(&mut self, index: u32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        if matches!(connection.stage, Stage::Free | Stage::Closing | Stage::Leaving) {
            return Ok(());
        }
        connection.stage = Stage::Closing;
        self.drop_leftover(index);
        self.deadlines.clear(index as usize);
        self.touch(index);
        let connection = &mut self.connections[index as usize];
        if !connection.quiet() {
            // Ends a receive and a send in flight as well.
            connection.pending += 1;
            self.ring.shutdown_both(connection.slot, tag(Op::Side, connection.generation, index))?;
        }
        Ok(())
    }

    pub(super) fn drop_leftover(&mut self, index: u32) {
        let leftover = &mut self.connections[index as usize].leftover;
        if let Some((block, _)) = leftover.copied.take() {
            self.ctx.pool.give_back(block);
        }
        while let Some(run) = self.held.pop(leftover) {
            self.buffers.give_back(run);
        }
    }

    pub(super) fn close_if_quiet(&mut self, index: u32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        if !connection.quiet() {
            return Ok(());
        }
        connection.stage = Stage::Leaving;
        connection.receive = Receive::Off;
        connection.conversation.end(&mut self.ctx);
        self.ring.close(connection.slot, tag(Op::Close, connection.generation, index))
    }

    pub(super) fn closed(&mut self, index: u32) -> io::Result<()> {
        self.connections[index as usize].free();
        self.vacant.push(index);
        self.open -= 1;
        self.peers.closed(self.ctx.shard);
        Ok(())
    }

    /// Arms receives that found no buffer; whether there were any. Those that waited longest come first, and about as
    /// many as buffers are lent for: others would only run out again, at a completion each.
    pub(super) fn unpark(&mut self) -> io::Result<bool> {
        let lent = self.buffers.available();
        if self.parked.is_empty() || lent < self.lending.rearm_min(self.buffers.count() - self.held.buffers()) {
            return Ok(false);
        }
        for _ in 0..self.lending.receives_max(lent) {
            let Some((index, generation)) = self.parked.pop_front() else { break };
            let connection = &mut self.connections[index as usize];
            if connection.generation == generation && connection.receive == Receive::Parked {
                connection.receive = Receive::Off;
                self.touch(index);
                self.look_after_touched()?;
            }
        }
        // An armed receive that has nothing to receive completes nothing: the rest must not wait for it.
        Ok(true)
    }
}
