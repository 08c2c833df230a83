//! Connections on the way out: answers sent, deadlines set, the last bytes, the close. Shard thread.

use std::io;

use super::{DRAIN_GRACE, LINGER, LINGER_BYTES_MAX, Op, Turn, tag};
use crate::shard::connection::{Receive, Stage, Stall};
use crate::shard::conversation::Wants;
use crate::sys::uring::{Completion, Slot};

impl Turn {
    pub(super) fn touch(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if !std::mem::replace(&mut connection.touched, true) {
            self.touched.push(slot);
        }
    }

    /// Brings every touched connection to rest: sends, resumes, re-arms, closes, sets its deadline.
    pub(super) fn look_after_touched(&mut self) -> io::Result<()> {
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

    pub(super) fn look_after(&mut self, slot: u32) -> io::Result<()> {
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

    pub(super) fn set_deadline(&mut self, slot: u32) {
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

    pub(super) fn sent(&mut self, completion: &Completion, generation: u32, slot: u32) -> io::Result<()> {
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

    pub(super) fn side_done(&mut self, generation: u32, slot: u32) -> io::Result<()> {
        if slot != u32::MAX {
            let connection = &mut self.connections[slot as usize];
            assert_eq!(connection.generation, generation, "a slot is free only when its requests have completed");
            connection.pending -= 1;
            self.touch(slot);
        }
        Ok(())
    }

    /// The last answer has left: say so to the peer and drop what still comes.
    pub(super) fn linger(&mut self, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        connection.stage = Stage::Lingering;
        connection.pending += 1;
        let generation = connection.generation;
        self.drop_leftover(slot);
        self.deadlines.set(slot as usize, LINGER);
        self.ring.shutdown_write(Slot(slot), tag(Op::Side, generation, slot))
    }

    /// Ends a connection now, whatever it was doing.
    pub(super) fn shut(&mut self, slot: u32) -> io::Result<()> {
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

    pub(super) fn drop_leftover(&mut self, slot: u32) {
        let leftover = &mut self.connections[slot as usize].leftover;
        if let Some((block, _)) = leftover.copied.take() {
            self.ctx.pool.give_back(block);
        }
        while let Some(run) = self.held.pop(leftover) {
            self.buffers.give_back(run);
        }
    }

    pub(super) fn close_if_quiet(&mut self, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        if !connection.quiet() {
            return Ok(());
        }
        connection.stage = Stage::Leaving;
        connection.receive = Receive::Off;
        connection.conversation.end(&mut self.ctx);
        self.ring.close(Slot(slot), tag(Op::Close, 0, slot))
    }

    pub(super) fn closed(&mut self, moved: bool, slot: u32) -> io::Result<()> {
        self.connections[slot as usize].free();
        if !moved {
            self.open -= 1;
            self.peers.closed(self.ctx.shard);
        }
        Ok(())
    }

    pub(super) fn unpark(&mut self) -> io::Result<()> {
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
}
