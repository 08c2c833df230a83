//! Connections come and go, and so does the run: opening, failing, closing, the tick, the end. Generator thread.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::connection::{Flight, State};
use super::effort::Effort;
use super::tally::{Ended, Interval};
use super::turn::{BUFFER_GROUP, Operation};
use super::{Generator, Shared, slow};
use crate::request::Outcome;

/// Connects under way at once: below the backlog that servers ask for.
const CONNECTING_MAX: usize = 128;
/// First and longest wait before a connection that failed is tried again; it doubles in between.
const REOPEN_NS: u64 = 10_000_000;
const REOPEN_NS_MAX: u64 = 500_000_000;
/// How often intervals, clients and reopening are looked after.
const TICK_NS: u64 = 5_000_000;
/// How often answers that are overdue are looked for.
const TIMEOUTS_EVERY_NS: u64 = 50_000_000;
/// How long a server may take to close a connection it was asked to close.
const FINISHED_NS_MAX: u64 = 1_000_000_000;
/// How long all connections may take to open before the run begins.
const OPEN_ALL: Duration = Duration::from_secs(10);

/// How long after the end a request is still sent that was due before it: longer than a generator or a server without a
/// backlog takes for what came due last. What is behind by more counts as never sent.
const LATE_NS_MAX: u64 = 250_000_000;
/// Parts of their wait to which requests that were never sent are told apart: finer than what a histogram keeps.
const WAIT_PARTS: u64 = 2048;
/// How long an answer too many is waited for behind the last one that was asked for.
const HEAR_OUT_NS: u64 = 20_000_000;

/// What follows a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Another socket, at once.
    Reopen,
    /// Another socket, after a while that grows with each failure.
    ReopenLater,
}

impl Generator<'_> {
    /// Opens the connections that the run begins with. Those that cannot be opened are tried again during the run.
    pub(super) fn open_all(&mut self, shared: &Shared) -> io::Result<()> {
        self.set_limit(self.limit_at(0));
        let began = Instant::now();
        while began.elapsed() < OPEN_ALL && !shared.stop.load(Ordering::Relaxed) {
            let now = self.clock.now();
            self.keep_open(now)?;
            if self.connecting == 0 && self.open_now.is_empty() {
                break;
            }
            self.ring.enter(Some(Duration::from_millis(10)))?;
            self.reap()?;
        }
        Ok(())
    }

    /// Time 0: what was counted while opening is forgotten.
    pub(super) fn begin(&mut self) {
        let now = self.clock.now();
        for at in &self.ready {
            self.connections[*at as usize].ready_at = now;
        }
        for connection in &mut self.connections {
            connection.since = now;
        }
        for (at, _) in &mut self.open_later {
            *at = now;
        }
        self.tally = super::Tally::new(self.plan.shares.len(), self.plan.warmup_ns());
        self.due = self.schedule.as_mut().and_then(Iterator::next);
    }

    /// Clients in use at a time, of this thread.
    fn limit_at(&self, now: u64) -> usize {
        let Some(curve) = &self.plan.clients else { return self.connections.len() };
        // Behind the end of the curve everybody stays for the answers that are under way.
        let all = curve.at(now.min(curve.duration_ns().saturating_sub(1)));
        clients_of(all, self.thread, self.plan.threads()).min(self.connections.len())
    }

    fn set_limit(&mut self, limit: usize) {
        for at in self.limit..limit {
            if self.connections[at].state == State::Idle {
                self.open_now.push_back(at as u32);
            }
        }
        self.limit = limit;
    }

    /// What is looked after a few hundred times a second.
    pub(super) fn tick(&mut self, now: u64, shared: &Shared, intervals: &Sender<Interval>) -> io::Result<()> {
        if !self.draining {
            self.pause_max_ns = self.pause_max_ns.max(now.saturating_sub(self.next_tick));
        }
        self.next_tick = now + TICK_NS;
        if !self.ledger.acked.is_empty() {
            shared.acknowledged.store(true, Ordering::Relaxed);
        }
        let (warmup_ns, interval_ns) = (self.plan.warmup_ns(), self.plan.interval.as_nanos() as u64);
        let ends = !self.draining && (now >= self.plan.end_ns() || shared.stop.load(Ordering::Relaxed));
        if ends {
            self.set_limit(self.limit_at(now));
            self.draining = true;
            self.ended_ns = now.min(self.plan.end_ns());
            // Neither the wait for the last answers nor the bookkeeping behind it says how busy the load kept it.
            self.effort = Effort::of_this_thread(&self.clock, self.idle_polling_ns);
            while self.tally.interval.index < intervals_until(self.ended_ns, warmup_ns, interval_ns) {
                self.hand_over(now, intervals);
            }
            self.tally.interval.is_drain = true;
        }
        while now >= interval_end(self.tally.interval.index, warmup_ns, interval_ns) {
            self.hand_over(now, intervals);
        }
        if !self.draining {
            self.set_limit(self.limit_at(now));
        }
        let mut index = 0;
        while index < self.open_later.len() {
            if self.open_later[index].0 <= now {
                self.open_now.push_back(self.open_later.swap_remove(index).1);
            } else {
                index += 1;
            }
        }
        if now >= self.next_timeouts {
            self.next_timeouts = now + TIMEOUTS_EVERY_NS;
            self.give_up_overdue(now)?;
        }
        slow::tick(self, now)
    }

    /// Ends the interval that is being filled. The main thread, which takes it, ends only after this one.
    fn hand_over(&mut self, now: u64, intervals: &Sender<Interval>) {
        let _ = intervals.send(self.tally.next_interval(now, self.limit));
    }

    fn give_up_overdue(&mut self, now: u64) -> io::Result<()> {
        let timeout = self.plan.timeout.as_nanos() as u64;
        for at in 0..self.connections.len() as u32 {
            let connection = &self.connections[at as usize];
            let age = now.saturating_sub(connection.since);
            match connection.state {
                State::Open if connection.flight(0).is_some_and(|flight| is_overdue(flight, now, timeout)) => {
                    self.give_up(at, now)?;
                }
                State::Open if at as usize >= self.limit && connection.under_way() == 0 && connection.sending == 0 => {
                    self.close(at, Then::Reopen, now)?;
                }
                State::Connecting if age > timeout => self.close(at, Then::ReopenLater, now)?,
                State::Finished if age > FINISHED_NS_MAX => self.close(at, Then::Reopen, now)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Opens what is to be opened, a few at a time.
    pub(super) fn keep_open(&mut self, now: u64) -> io::Result<()> {
        while self.connecting < CONNECTING_MAX {
            let Some(at) = self.open_now.pop_front() else { break };
            if self.has_sent_all(now) || at as usize >= self.limit || self.connections[at as usize].state != State::Idle
            {
                continue;
            }
            self.open(at, now)?;
        }
        Ok(())
    }

    fn open(&mut self, at: u32, now: u64) -> io::Result<()> {
        let connection = &mut self.connections[at as usize];
        connection.renew();
        connection.since = now;
        let installed = new_socket(self.plan.target, None).and_then(|socket| self.ring.install(at, socket.into()));
        if installed.is_err() {
            self.connect_failed(at, now);
            return Ok(());
        }
        let connection = &mut self.connections[at as usize];
        connection.state = State::Connecting;
        connection.operations = 1;
        self.connecting += 1;
        self.ring.connect(at, Operation::Connect.on(at))
    }

    pub(super) fn connected(&mut self, at: u32, result: i32, now: u64) -> io::Result<()> {
        self.connecting -= 1;
        if self.connections[at as usize].state == State::Closing {
            return self.operation_ended(at, now);
        }
        let connection = &mut self.connections[at as usize];
        connection.operations -= 1;
        if result < 0 {
            self.ring.remove(at)?;
            self.connect_failed(at, now);
            return Ok(());
        }
        connection.state = State::Open;
        connection.failures = 0;
        connection.since = now;
        self.receive(at)?;
        self.offer(at, now);
        Ok(())
    }

    /// A connection that did not come about counts as a request that did not: somebody wanted to send one.
    fn connect_failed(&mut self, at: u32, now: u64) {
        let connection = &mut self.connections[at as usize];
        connection.state = State::Idle;
        connection.failures += 1;
        let wait = (REOPEN_NS << connection.failures.min(6)).min(REOPEN_NS_MAX);
        self.open_later.push((now + wait, at));
        let (intended, outcome, kind) = (now, Outcome::ConnectFailed, self.pick.pick(&mut self.random));
        self.tally.end(&Ended { outcome, intended, sent: now, ended: now, events: 0, bytes: 0, kind });
    }

    /// An answer too many counts beside the requests: none of them was waiting for it.
    pub(super) fn note_unsolicited(&mut self, now: u64) {
        let (outcome, kind) = (Outcome::Unsolicited, self.pick.pick(&mut self.random));
        self.tally.end(&Ended { outcome, intended: now, sent: now, ended: now, events: 0, bytes: 0, kind });
    }

    /// Arms the receive of a connection.
    pub(super) fn receive(&mut self, at: u32) -> io::Result<()> {
        let connection = &mut self.connections[at as usize];
        connection.receives = true;
        connection.operations += 1;
        self.ring.receive(at, BUFFER_GROUP, false, Operation::Receive.on(at))
    }

    /// Ends a connection on which an answer is overdue. A request behind the overdue one cannot be answered before it
    /// (RFC 9112, 9.3.2), and has not waited for as long: it is lost with its connection.
    fn give_up(&mut self, at: u32, now: u64) -> io::Result<()> {
        let timeout = self.plan.timeout.as_nanos() as u64;
        while let Some(flight) =
            self.connections[at as usize].flight(0).copied().filter(|f| is_overdue(f, now, timeout))
        {
            self.connections[at as usize].pop();
            self.end(&flight, Outcome::TimedOut, now);
        }
        self.fail(at, Outcome::ConnectionLost, now)
    }

    /// Ends all requests of a connection with an outcome, and the connection.
    pub(super) fn fail(&mut self, at: u32, outcome: Outcome, now: u64) -> io::Result<()> {
        debug_assert_eq!(self.connections[at as usize].unsent, 0, "what is placed is flushed in the same turn");
        while let Some(flight) = self.connections[at as usize].pop() {
            self.end(&flight, outcome, now);
        }
        self.connections[at as usize].failures += 1;
        self.close(at, Then::ReopenLater, now)
    }

    /// Begins to end a connection without requests: what the kernel still does on it completes first.
    pub(super) fn close(&mut self, at: u32, then: Then, now: u64) -> io::Result<()> {
        let connection = &mut self.connections[at as usize];
        assert!(connection.under_way() == 0, "a connection is closed over its requests");
        let was_connecting = connection.state == State::Connecting;
        connection.state = State::Closing;
        connection.since = now;
        if then == Then::Reopen {
            connection.failures = 0;
        }
        if connection.operations == 0 {
            return self.finish_close(at, now);
        }
        connection.operations += 1;
        if was_connecting {
            self.ring.cancel(Operation::Connect.on(at), Operation::End.on(at))
        } else {
            self.ring.shutdown(at, Operation::End.on(at))
        }
    }

    /// One of the last completions of a closing connection.
    pub(super) fn operation_ended(&mut self, at: u32, now: u64) -> io::Result<()> {
        let connection = &mut self.connections[at as usize];
        connection.operations -= 1;
        if connection.operations == 0 && connection.state == State::Closing {
            return self.finish_close(at, now);
        }
        Ok(())
    }

    fn finish_close(&mut self, at: u32, now: u64) -> io::Result<()> {
        self.ring.remove(at)?;
        let has_sent_all = self.has_sent_all(now);
        let connection = &mut self.connections[at as usize];
        connection.state = State::Idle;
        if has_sent_all || at as usize >= self.limit {
            return Ok(());
        }
        match connection.failures {
            0 => self.open_now.push_back(at),
            failures => {
                let wait = (REOPEN_NS << failures.min(6)).min(REOPEN_NS_MAX);
                self.open_later.push((now + wait, at));
            }
        }
        Ok(())
    }

    /// Whether the next request was due before the end and may still leave.
    fn is_owed(&self, now: u64) -> bool {
        self.due.is_some_and(|due| due < self.ended_ns) && now.saturating_sub(self.ended_ns) <= LATE_NS_MAX
    }

    /// Whether nothing is sent any more.
    pub(super) fn has_sent_all(&self, now: u64) -> bool {
        self.draining && !self.is_owed(now)
    }

    /// Whether nothing is left to wait for.
    pub(super) fn is_over(&self, now: u64) -> bool {
        let waited = now.saturating_sub(self.ended_ns);
        self.has_sent_all(now) && (self.under_way == 0 || waited > self.plan.drain.as_nanos() as u64)
    }

    /// Waits a little longer: an answer that comes behind the last one that was asked for is one too many.
    pub(super) fn hear_out(&mut self) -> io::Result<()> {
        let until = self.clock.now() + HEAR_OUT_NS;
        loop {
            self.reap()?;
            let now = self.clock.now();
            if now >= until || !self.waits_for_answers() {
                break;
            }
            self.ring.enter(Some(Duration::from_nanos(until - now)))?;
        }
        let now = self.clock.now();
        for at in 0..self.connections.len() {
            let connection = &self.connections[at];
            if connection.state == State::Open
                && connection.under_way() == 0
                && !connection.parser.is_between_answers()
                && self.waits_for_answers()
            {
                self.note_unsolicited(now);
            }
        }
        Ok(())
    }

    /// The end: what was not answered and what was never sent is counted with the time it has waited.
    pub(super) fn settle(&mut self, intervals: &Sender<Interval>) {
        let now = self.clock.now();
        for at in 0..self.connections.len() {
            while let Some(flight) = self.connections[at].pop() {
                self.end(&flight, Outcome::TimedOut, now);
            }
        }
        self.count_never_sent(now);
        self.ledger.sent = self.next_event;
        self.hand_over(now, intervals);
    }

    /// Counts what was due and never sent, in slices of their waits: each of a high rate by itself would take longer than
    /// the run.
    fn count_never_sent(&mut self, now: u64) {
        let Some(due) = self.due.take().filter(|due| *due < self.ended_ns) else { return };
        let schedule = self.schedule.as_mut().expect("what is due is so by a schedule");
        let (warmup_ns, mut from, mut count) = (self.plan.warmup_ns(), due, 1);
        while from < self.ended_ns {
            let until = slice_end(from, now, warmup_ns).min(self.ended_ns);
            count += schedule.pass(until);
            let intended = from + (until - from) / 2;
            for (kind, count) in self.pick.spread(count, &mut self.random).into_iter().enumerate() {
                let (outcome, sent) = (Outcome::NeverSent, intended);
                self.tally.end_all(&Ended { outcome, intended, sent, ended: now, events: 0, bytes: 0, kind }, count);
            }
            (from, count) = (until, 0);
        }
    }
}

/// Where the slice of intended times ends that begins at `from`: those in it have waited equally long at `now` as far as
/// it is told, and are all meant for the warm-up or none is.
fn slice_end(from: u64, now: u64, warmup_ns: u64) -> u64 {
    let end = from + (now.saturating_sub(from) / WAIT_PARTS).max(1);
    if from < warmup_ns { end.min(warmup_ns) } else { end }
}

fn is_overdue(flight: &Flight, now: u64, timeout: u64) -> bool {
    now.saturating_sub(flight.sent) > timeout
}

/// Clients of one thread out of `all`: one at least, since half a client still has a request now and then.
fn clients_of(all: f64, thread: usize, threads: usize) -> usize {
    let all = (all.ceil() as usize).max(threads);
    all / threads + usize::from(thread < all % threads)
}

/// Intervals that begin before a time: mostly one ends there, and there is no more to the load.
fn intervals_until(ns: u64, warmup_ns: u64, interval_ns: u64) -> u32 {
    let before = warmup_ns.div_ceil(interval_ns) * interval_ns - warmup_ns;
    (ns + before).div_ceil(interval_ns) as u32
}

/// End of an interval, ns from the start. Intervals are counted from the end of the warm-up, so that none is half of it;
/// the first one ends with it.
#[must_use]
pub fn interval_end(index: u32, warmup_ns: u64, interval_ns: u64) -> u64 {
    let before = warmup_ns.div_ceil(interval_ns);
    // Those of the warm-up end with it: the first may be shorter.
    (warmup_ns + (u64::from(index) + 1) * interval_ns).saturating_sub(before * interval_ns)
}

/// A socket that sends at once, to be connected by the ring.
pub(super) fn new_socket(target: std::net::SocketAddr, receive_bytes: Option<usize>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::{clients_of, interval_end, intervals_until, slice_end};

    #[test]
    fn fewer_clients_than_threads_still_leave_each_thread_one() {
        let parts = |all, threads| (0..threads).map(|at| clients_of(all, at, threads)).collect::<Vec<_>>();
        assert_eq!(parts(7.2, 3), [3, 3, 2]);
        assert_eq!(parts(0.3, 2), [1, 1]);
        assert_eq!(parts(0.0, 1), [1]);
    }

    #[test]
    fn intervals_meet_at_the_end_of_the_warm_up() {
        let ends = |warmup, interval| (0..4).map(|index| interval_end(index, warmup, interval)).collect::<Vec<_>>();
        assert_eq!(ends(0, 10), [10, 20, 30, 40]);
        assert_eq!(ends(20, 10), [10, 20, 30, 40]);
        assert_eq!(ends(25, 10), [5, 15, 25, 35]);
    }

    /// An empty interval behind the last one would make the first of the drain begin an interval late, or be twice as long.
    #[test]
    fn a_load_has_as_many_intervals_as_begin_in_it() {
        for (warmup, interval) in [(0, 10), (20, 10), (25, 10), (3, 10)] {
            for ended in 0..60 {
                let begin = |index: u32| index.checked_sub(1).map_or(0, |last| interval_end(last, warmup, interval));
                let expected = (0..).take_while(|index| begin(*index) < ended).count() as u32;
                let found = intervals_until(ended, warmup, interval);
                assert_eq!(found.max(1), expected.max(1), "{warmup} + {interval}: until {ended}");
            }
        }
    }

    #[test]
    fn slices_of_a_wait_are_as_fine_as_its_digits_and_few() {
        let (day, warmup) = (86_400_000_000_000, 1_000_000_007);
        let (mut from, mut slices, mut meets_warmup) = (5, 0, false);
        while from < day {
            let until = slice_end(from, day + 20_000_000, warmup).min(day);
            assert!(until > from && (until - from) as f64 <= (day + 20_000_000 - from) as f64 / 2000.0);
            (from, slices, meets_warmup) = (until, slices + 1, meets_warmup || until == warmup);
        }
        assert!(slices < 40_000 && meets_warmup, "{slices}");
    }
}
