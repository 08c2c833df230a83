//! Made-up clients: when they ask, for whom, and what they do about an answer.

use tidegate::admit::Priority;

use super::{Dice, MS};

/// One request on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) client: u32,
    pub(crate) connection: u32,
    pub(crate) tenant: u32,
    pub(crate) priority: Priority,
    /// When it was meant to be sent: latency counts from here.
    pub(crate) offered_ns: u64,
}

/// Who asks. Times are nanoseconds since the start.
pub(crate) trait Clients {
    /// Clients there are.
    fn count(&self) -> u32;
    /// When `client` asks first.
    fn begin(&mut self, client: u32, dice: &mut Dice) -> Option<u64>;
    /// `client` asks now, or has nothing to ask; and when it asks again whatever the answer.
    fn ask(&mut self, client: u32, now_ns: u64, dice: &mut Dice) -> (Option<Arrival>, Option<u64>);
    /// What came of a request; when its client asks again because of that.
    fn answered(&mut self, arrival: &Arrival, served: bool, now_ns: u64, dice: &mut Dice) -> Option<u64>;
}

/// Requests at given rates whatever the answers: each client is one tenant's stream over many connections.
pub(crate) struct OpenLoop<F> {
    /// Requests per second of a client at a time.
    pub(crate) rate: F,
    pub(crate) clients: u32,
    pub(crate) connections: u32,
    /// The priority of a request, by a die.
    pub(crate) priority: fn(u64) -> Priority,
}

impl<F: Fn(u32, u64) -> f64> OpenLoop<F> {
    /// One stream of normal requests over 256 connections.
    pub(crate) fn new(rate: F) -> Self {
        Self { rate, clients: 1, connections: 256, priority: |_| Priority::Normal }
    }
}

impl<F: Fn(u32, u64) -> f64> Clients for OpenLoop<F> {
    fn count(&self) -> u32 {
        self.clients
    }

    fn begin(&mut self, _client: u32, dice: &mut Dice) -> Option<u64> {
        Some(dice.next() % MS)
    }

    fn ask(&mut self, client: u32, now_ns: u64, dice: &mut Dice) -> (Option<Arrival>, Option<u64>) {
        let rate = (self.rate)(client, now_ns);
        if rate <= 0.0 {
            return (None, Some(now_ns + MS));
        }
        let per_client = (self.connections / self.clients).max(1);
        let connection = client * per_client + (dice.next() % u64::from(per_client)) as u32;
        let priority = (self.priority)(dice.next());
        let arrival = Arrival { client, connection, tenant: client, priority, offered_ns: now_ns };
        // A rate that changes soon must not wait for the next of a slow stream.
        (Some(arrival), Some(now_ns + dice.gap_ns(rate).min(50 * MS)))
    }

    fn answered(&mut self, _: &Arrival, _: bool, _: u64, _: &mut Dice) -> Option<u64> {
        None
    }
}

/// Clients that ask one after another: think, ask, and ask again at once when refused.
pub(crate) struct RetryStorm {
    pub(crate) clients: u32,
    pub(crate) think_ns: u64,
    /// From and until when they ask at all.
    pub(crate) from_ns: u64,
    pub(crate) until_ns: u64,
}

impl Clients for RetryStorm {
    fn count(&self) -> u32 {
        self.clients
    }

    fn begin(&mut self, _client: u32, dice: &mut Dice) -> Option<u64> {
        Some(self.from_ns + dice.next() % self.think_ns)
    }

    fn ask(&mut self, client: u32, now_ns: u64, _dice: &mut Dice) -> (Option<Arrival>, Option<u64>) {
        if now_ns >= self.until_ns {
            return (None, None);
        }
        let arrival = Arrival { client, connection: client, tenant: 0, priority: Priority::Normal, offered_ns: now_ns };
        (Some(arrival), None)
    }

    fn answered(&mut self, _: &Arrival, served: bool, now_ns: u64, dice: &mut Dice) -> Option<u64> {
        Some(if served { now_ns + dice.gap_ns(1e9 / self.think_ns as f64) } else { now_ns })
    }
}

/// Two kinds of clients at once; the second's tenants, clients and connections are numbered behind the first's.
pub(crate) struct Both<A, B> {
    pub(crate) first: A,
    pub(crate) second: B,
    pub(crate) connections_of_first: u32,
    pub(crate) tenants_of_first: u32,
}

impl<A: Clients, B: Clients> Clients for Both<A, B> {
    fn count(&self) -> u32 {
        self.first.count() + self.second.count()
    }

    fn begin(&mut self, client: u32, dice: &mut Dice) -> Option<u64> {
        match client.checked_sub(self.first.count()) {
            None => self.first.begin(client, dice),
            Some(client) => self.second.begin(client, dice),
        }
    }

    fn ask(&mut self, client: u32, now_ns: u64, dice: &mut Dice) -> (Option<Arrival>, Option<u64>) {
        let Some(second) = client.checked_sub(self.first.count()) else {
            return self.first.ask(client, now_ns, dice);
        };
        let (arrival, next_ns) = self.second.ask(second, now_ns, dice);
        let shifted = arrival.map(|arrival| Arrival {
            client,
            connection: arrival.connection + self.connections_of_first,
            tenant: arrival.tenant + self.tenants_of_first,
            ..arrival
        });
        (shifted, next_ns)
    }

    fn answered(&mut self, arrival: &Arrival, served: bool, now_ns: u64, dice: &mut Dice) -> Option<u64> {
        match arrival.client.checked_sub(self.first.count()) {
            None => self.first.answered(arrival, served, now_ns, dice),
            Some(_) => self.second.answered(arrival, served, now_ns, dice),
        }
    }
}
