//! One connection: what it is doing, what is under way on it. Generator thread; no system calls.

use crate::response::Parser;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No socket.
    Idle,
    /// Being connected.
    Connecting,
    /// In use.
    Open,
    /// Its last answer has come; the server is to close it.
    Finished,
    /// What is under way in the kernel is being ended; then the socket is closed.
    Closing,
}

/// A request that was sent and not yet answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flight {
    /// When it should have been sent, ns.
    pub(super) intended: u64,
    /// When it was, ns.
    pub(super) sent: u64,
    /// Index of its first event.
    pub(super) first: u64,
    /// Its bytes.
    pub(super) bytes: u32,
    /// Index of its kind.
    pub(super) kind: u16,
}

/// See the module text. Its flights lie in a ring of `pipeline` places.
pub(super) struct Connection {
    pub(super) state: State,
    pub(super) parser: Parser,
    flights: Box<[Flight]>,
    first: usize,
    count: usize,
    /// Flights, the newest ones, that are patched and not yet handed to the kernel.
    pub(super) unsent: usize,
    /// Flights in the send that is under way; 0: none is.
    pub(super) sending: usize,
    /// Requests of the kernel that have not completed: the slot is not used again before there are none.
    pub(super) operations: u8,
    /// A receive is armed.
    pub(super) receives: bool,
    /// In the queue of ready ones.
    pub(super) queued: bool,
    /// Since when it could take a request, ns.
    pub(super) ready_at: u64,
    /// Requests made on this socket.
    pub(super) requests: u32,
    /// No more requests on this socket.
    pub(super) last_sent: bool,
    /// Connects that failed in a row.
    pub(super) failures: u32,
    /// When it came into its state, ns.
    pub(super) since: u64,
}

impl Connection {
    /// One without a socket.
    pub(super) fn new(pipeline: usize) -> Self {
        Self {
            state: State::Idle,
            parser: Parser::new(),
            flights: vec![Flight::default(); pipeline].into_boxed_slice(),
            first: 0,
            count: 0,
            unsent: 0,
            sending: 0,
            operations: 0,
            receives: false,
            queued: false,
            ready_at: 0,
            requests: 0,
            last_sent: false,
            failures: 0,
            since: 0,
        }
    }

    /// Forgets the old socket's life.
    pub(super) fn renew(&mut self) {
        assert!(self.count == 0 && self.operations == 0 && self.sending == 0, "a socket is renewed while in use");
        self.parser.reset();
        self.requests = 0;
        self.last_sent = false;
    }

    /// Requests without an answer.
    pub(super) fn under_way(&self) -> usize {
        self.count
    }

    /// Whether it can take a request now. One send at a time: two could overtake each other.
    pub(super) fn is_free(&self) -> bool {
        self.state == State::Open && self.sending == 0 && !self.last_sent && self.count < self.flights.len()
    }

    /// Notes a request.
    pub(super) fn push(&mut self, flight: Flight) {
        assert!(self.count < self.flights.len(), "more requests than the pipeline holds");
        let at = (self.first + self.count) % self.flights.len();
        self.flights[at] = flight;
        self.count += 1;
        self.unsent += 1;
    }

    /// The flight `ahead` places behind the oldest, if it was sent.
    pub(super) fn flight(&self, ahead: usize) -> Option<&Flight> {
        (ahead < self.count - self.unsent).then(|| &self.flights[(self.first + ahead) % self.flights.len()])
    }

    /// The oldest, which is answered or given up.
    pub(super) fn pop(&mut self) -> Option<Flight> {
        if self.count == 0 {
            return None;
        }
        let flight = self.flights[self.first];
        self.first = (self.first + 1) % self.flights.len();
        self.count -= 1;
        self.unsent = self.unsent.min(self.count);
        Some(flight)
    }

    /// The flights that are handed to the kernel now, to be stamped.
    pub(super) fn newest_mut(&mut self) -> impl Iterator<Item = &mut Flight> {
        let places = self.flights.len();
        let (from, until) = (self.first + self.count - self.unsent, self.first + self.count);
        let is_newest = move |at: usize| (from..until).contains(&at) || (from..until).contains(&(at + places));
        self.flights.iter_mut().enumerate().filter(move |(at, _)| is_newest(*at)).map(|(_, flight)| flight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(intended: u64) -> Flight {
        Flight { intended, ..Flight::default() }
    }

    #[test]
    fn flights_leave_in_the_order_they_came_and_only_sent_ones_can_be_answered() {
        let mut connection = Connection::new(3);
        for round in 0..10 {
            connection.push(flight(round * 2));
            connection.push(flight(round * 2 + 1));
            assert!(connection.flight(0).is_none(), "nothing was sent");
            let mut newest: Vec<u64> = connection.newest_mut().map(|flight| flight.intended).collect();
            newest.sort_unstable();
            assert_eq!(newest, [round * 2, round * 2 + 1]);
            connection.unsent = 0;
            assert_eq!(connection.flight(1).unwrap().intended, round * 2 + 1);
            assert!(connection.flight(2).is_none());
            assert_eq!(connection.pop().unwrap().intended, round * 2);
            assert_eq!(connection.pop().unwrap().intended, round * 2 + 1);
            assert!(connection.pop().is_none());
        }
    }

    #[test]
    fn a_full_or_sending_connection_is_not_free() {
        let mut connection = Connection::new(1);
        assert!(!connection.is_free());
        connection.state = State::Open;
        assert!(connection.is_free());
        connection.push(flight(1));
        assert!(!connection.is_free());
        connection.pop();
        connection.sending = 1;
        assert!(!connection.is_free());
    }
}
