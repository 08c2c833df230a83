//! The turn of a generator thread: reap, send what is due, wait.

use std::io;
use std::time::Duration;

use super::connection::{Flight, State};
use super::{Generator, lifecycle, slow};
use crate::event::Number;
use crate::plan::Mode;
use crate::request::{Check, Outcome, Patch, judge};
use crate::sys::ring::Completion;

/// The buffer group of all answers.
pub(super) const BUFFER_GROUP: u16 = 1;
/// Completions copied out of the queue at once.
const REAP_MAX: usize = 256;
/// Requests sent in one turn of an open loop: their times are read before the kernel sends the first of them, and each
/// takes it two or three microseconds.
const SENDS_MAX: usize = 16;
/// A wait shorter than this is polled away: a sleeping thread wakes up tens of microseconds late.
const POLL_NS: u64 = 60_000;

/// What a completion belongs to: the upper byte of its user data; the lower half names the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Operation {
    Connect = 1,
    Receive = 2,
    Send = 3,
    End = 4,
    SlowConnect = 5,
    SlowSend = 6,
    SlowReceive = 7,
    SlowEnd = 8,
}

impl Operation {
    pub(super) fn on(self, connection: u32) -> u64 {
        (self as u64) << 56 | u64::from(connection)
    }

    fn of(user_data: u64) -> Self {
        match user_data >> 56 {
            1 => Self::Connect,
            2 => Self::Receive,
            3 => Self::Send,
            4 => Self::End,
            5 => Self::SlowConnect,
            6 => Self::SlowSend,
            7 => Self::SlowReceive,
            8 => Self::SlowEnd,
            other => panic!("a completion of operation {other}, which was never submitted"),
        }
    }
}

/// How one answer was judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    outcome: Outcome,
    status: u16,
    closes: bool,
}

impl Generator<'_> {
    /// Handles every completion there is; how many.
    pub(super) fn reap(&mut self) -> io::Result<usize> {
        let mut batch = [Completion::default(); REAP_MAX];
        let mut total = 0;
        loop {
            let count = self.ring.reap(&mut batch);
            if count == 0 {
                return Ok(total);
            }
            let now = self.clock.now();
            for completion in &batch[..count] {
                self.complete(completion, now)?;
            }
            total += count;
            if count < REAP_MAX {
                return Ok(total);
            }
        }
    }

    fn complete(&mut self, completion: &Completion, now: u64) -> io::Result<()> {
        let at = completion.user_data as u32;
        let result = completion.result;
        match Operation::of(completion.user_data) {
            Operation::Connect => self.connected(at, result, now),
            Operation::Send => self.sent(at, result, now),
            Operation::Receive => self.received(at, completion, now),
            Operation::End => self.operation_ended(at, now),
            Operation::SlowConnect => slow::connected(self, at, result, now),
            Operation::SlowSend => slow::sent(self, at, result, now),
            Operation::SlowReceive => slow::received(self, at, result, now),
            Operation::SlowEnd => slow::ended(self, at, now),
        }
    }

    fn sent(&mut self, at: u32, result: i32, now: u64) -> io::Result<()> {
        let places = at as usize * self.plan.pipeline;
        let connection = &mut self.connections[at as usize];
        let sending = std::mem::take(&mut connection.sending);
        let bytes: usize = self.parts[places..places + sending].iter().map(|part| part.bytes).sum();
        for (kind, copy) in &self.copies[places..places + sending] {
            self.lanes[usize::from(*kind)].give_back(*copy);
        }
        if connection.state != State::Open && connection.state != State::Finished {
            return self.operation_ended(at, now);
        }
        connection.operations -= 1;
        if usize::try_from(result) != Ok(bytes) {
            return self.fail(at, Outcome::ConnectionLost, now);
        }
        if !self.waits_for_answers() {
            for _ in 0..sending {
                let flight = self.connections[at as usize].pop().expect("what was sent was under way");
                self.end(&flight, Outcome::Accepted, now);
            }
        }
        self.offer(at, now);
        Ok(())
    }

    fn received(&mut self, at: u32, completion: &Completion, now: u64) -> io::Result<()> {
        if completion.result > 0 {
            let buffer = completion.buffer().expect("a receive of ours names its buffer");
            self.read_answers(at, buffer, completion.result as usize);
        }
        let connection = &mut self.connections[at as usize];
        if !completion.more() {
            connection.receives = false;
        }
        if connection.state == State::Closing {
            self.verdicts.clear();
            return if completion.more() { Ok(()) } else { self.operation_ended(at, now) };
        }
        if !completion.more() {
            connection.operations -= 1;
        }
        if completion.result == 0 {
            self.read_end(at);
        }
        let mut verdicts = std::mem::take(&mut self.verdicts);
        for verdict in verdicts.drain(..) {
            if self.connections[at as usize].state != State::Closing {
                self.answered(at, verdict, now)?;
            }
        }
        self.verdicts = verdicts;
        let connection = &self.connections[at as usize];
        match completion.result {
            _ if connection.state == State::Closing => Ok(()),
            // The end of buffers ends the receive, not the connection.
            result if result > 0 || result == -libc::ENOBUFS => {
                if connection.receives {
                    Ok(())
                } else {
                    self.receive(at)
                }
            }
            0 if connection.under_way() == 0 => {
                if !connection.parser.is_between_answers() {
                    self.note_unsolicited(now);
                }
                self.close(at, lifecycle::Then::Reopen, now)
            }
            _ => self.fail(at, Outcome::ConnectionLost, now),
        }
    }

    /// Reads what was received into verdicts, and gives the buffers back.
    fn read_answers(&mut self, at: u32, buffer: u16, received: usize) {
        let connection = &mut self.connections[at as usize];
        let (expects, verdicts, tally) = (&self.expects, &mut self.verdicts, &mut self.tally);
        verdicts.clear();
        let mut is_bad = connection.state == State::Closing || self.plan.check() == Check::Nothing;
        self.buffers.consume(buffer, received, |mut input| {
            while !is_bad && !input.is_empty() {
                // Which request the next answer is for decides how it is judged.
                let kind = connection.flight(verdicts.len()).map(|flight| usize::from(flight.kind));
                let verdict = match connection.parser.next(&mut input) {
                    Ok(None) => continue,
                    Ok(Some(answer)) => {
                        tally.answer(&answer);
                        let outcome = kind.map_or(Outcome::Unsolicited, |kind| judge(&expects[kind], &answer));
                        Verdict { outcome, status: answer.status, closes: answer.closes }
                    }
                    Err(_) => {
                        let outcome = if kind.is_some() { Outcome::BadResponse } else { Outcome::Unsolicited };
                        Verdict { outcome, status: 0, closes: true }
                    }
                };
                // What follows either cannot be told apart.
                is_bad = matches!(verdict.outcome, Outcome::BadResponse | Outcome::Unsolicited);
                verdicts.push(verdict);
            }
        });
    }

    /// The answer that the end of the connection completes, as a verdict.
    fn read_end(&mut self, at: u32) {
        let connection = &mut self.connections[at as usize];
        let Some(kind) = connection.flight(0).map(|flight| usize::from(flight.kind)) else { return };
        let Some(answer) = connection.parser.end() else { return };
        self.tally.answer(&answer);
        let outcome = judge(&self.expects[kind], &answer);
        self.verdicts.push(Verdict { outcome, status: answer.status, closes: true });
    }

    fn answered(&mut self, at: u32, verdict: Verdict, now: u64) -> io::Result<()> {
        match verdict.outcome {
            Outcome::BadResponse => return self.fail(at, Outcome::BadResponse, now),
            Outcome::Unsolicited => return self.unsolicited(at, verdict.status, now),
            _ => {}
        }
        let connection = &mut self.connections[at as usize];
        let flight = connection.pop().expect("an answer without a request is an unsolicited one");
        connection.last_sent |= verdict.closes || verdict.status == 408;
        self.end(&flight, verdict.outcome, now);
        let connection = &mut self.connections[at as usize];
        if connection.last_sent && connection.under_way() == 0 && connection.state == State::Open {
            // The server closes, so that the wait for stray packets is its and not the client's.
            connection.state = State::Finished;
            connection.since = now;
        }
        self.offer(at, now);
        Ok(())
    }

    /// An answer that no request was waiting for: RFC 9112, 9.2 has it dropped and the connection closed. A 408 is the way
    /// in which a server ends a connection that was idle for too long (RFC 9110, 15.5.9).
    fn unsolicited(&mut self, at: u32, status: u16, now: u64) -> io::Result<()> {
        if status == 408 {
            return self.close(at, lifecycle::Then::Reopen, now);
        }
        self.note_unsolicited(now);
        self.fail(at, Outcome::ConnectionLost, now)
    }

    /// Queues a connection that can take a request.
    pub(super) fn offer(&mut self, at: u32, now: u64) {
        let connection = &mut self.connections[at as usize];
        if connection.is_free() && !connection.queued {
            connection.queued = true;
            connection.ready_at = now;
            self.ready.push_back(at);
        }
    }

    /// Sends what is due and finds a connection; how many requests.
    pub(super) fn send_due(&mut self, now: u64) -> io::Result<usize> {
        match self.plan.mode {
            Mode::Open { .. } => self.send_scheduled(now),
            Mode::Closed if self.draining => Ok(0),
            Mode::Closed => self.send_wherever_free(now),
        }
    }

    fn send_scheduled(&mut self, now: u64) -> io::Result<usize> {
        let mut count = 0;
        while count < SENDS_MAX && !self.has_sent_all(now) {
            let Some(intended) = self.due.filter(|due| *due <= now) else { break };
            let Some(at) = self.next_ready() else { break };
            self.place(at, intended)?;
            let late = self.clock.now().saturating_sub(intended.max(self.connections[at as usize].ready_at));
            self.tally.slip(intended, late);
            // Pipelining: free until its send is handed over.
            let ready_at = self.connections[at as usize].ready_at;
            self.offer(at, ready_at);
            self.due = self.schedule.as_mut().and_then(Iterator::next);
            count += 1;
        }
        Ok(count)
    }

    fn send_wherever_free(&mut self, now: u64) -> io::Result<usize> {
        let mut count = 0;
        while let Some(at) = self.next_ready() {
            while self.connections[at as usize].is_free() {
                self.place(at, now)?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// The longest free connection that is still wanted.
    fn next_ready(&mut self) -> Option<u32> {
        while let Some(at) = self.ready.pop_front() {
            let connection = &mut self.connections[at as usize];
            connection.queued = false;
            if connection.is_free() && (at as usize) < self.limit {
                return Some(at);
            }
        }
        None
    }

    /// Puts a request on a connection; it leaves with the next [`Generator::flush`].
    fn place(&mut self, at: u32, intended: u64) -> io::Result<()> {
        let kind = self.pick.pick(&mut self.random);
        let options = &self.plan.shares[kind].options;
        let connection = &mut self.connections[at as usize];
        connection.requests += 1;
        connection.last_sent = self.plan.requests_per_connection == Some(connection.requests);
        let key = self.pick_key.as_ref().map(|pick| self.plan.keys[pick.pick(&mut self.random)].as_bytes());
        let number = Number { thread: self.thread, index: self.next_event };
        let patch = Patch {
            first: number.value(),
            key: key.map(|key| (key, self.plan.head.key_bytes)),
            closes: connection.last_sent,
        };
        let (copy, part) = self.lanes[kind].take(self.ring.area(), &patch, &mut self.compressor)?;
        let place = at as usize * self.plan.pipeline + connection.unsent;
        self.parts[place] = part;
        self.copies[place] = (kind as u16, copy);
        if connection.unsent == 0 {
            self.touched.push(at);
        }
        let flight =
            Flight { intended, sent: intended, first: self.next_event, bytes: part.bytes as u32, kind: kind as u16 };
        connection.push(flight);
        if options.has_events() {
            self.next_event += options.batch as u64;
        }
        self.under_way += 1;
        self.tally.interval.sent += 1;
        Ok(())
    }

    /// Hands what was placed to the ring, one send per connection.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let is_open = self.schedule.is_some();
        for index in 0..self.touched.len() {
            let at = self.touched[index];
            let now = self.clock.now();
            let connection = &mut self.connections[at as usize];
            for flight in connection.newest_mut() {
                flight.sent = now;
                if !is_open {
                    flight.intended = now;
                }
            }
            let count = std::mem::take(&mut connection.unsent);
            connection.sending = count;
            connection.operations += 1;
            let first = at as usize * self.plan.pipeline;
            self.ring.send(at, &self.parts[first..first + count], Operation::Send.on(at))?;
        }
        self.touched.clear();
        Ok(())
    }

    /// How long there is nothing to do; `None` to look again at once.
    pub(super) fn idle_time(&self, now: u64) -> Option<Duration> {
        let mut until = self.next_tick;
        if let Some(due) = self.due.filter(|_| !self.has_sent_all(now) && !self.ready.is_empty()) {
            until = until.min(due.saturating_sub(POLL_NS));
        }
        (until > now).then(|| Duration::from_nanos(until - now))
    }
}
