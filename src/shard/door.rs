//! Who is let in: key, tenant's limits, admission, in this order, and the books kept of it. Shard thread only.
//!
//! The decisions are [`crate::admit`]'s; this file brings them what they need: the table of tenants that the control thread
//! last sent, the counters that other shards read, and the times of each turn.

use std::sync::Arc;

use super::longest::LongestTurn;
use super::request::Request;
use crate::admit::{
    Admission, Credential, Facts, Level, Measure, Over, Published, REQUEST_WORK, Refusal, TenantTable, TenantUse,
    Traffic, Turn, Uses,
};
use crate::base::TenantId;
use crate::metrics::ShardMetrics;

/// So much of a body is charged when it is admitted; the rest as it comes. A client that announces more and sends
/// nothing shall not use up what others could have had.
const CHARGED_AHEAD_MAX: u64 = 64 * 1024;

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// No key, or nobody's: 401.
    Unauthorized,
    /// The tenant's limit is reached: 429.
    Limited(Over),
    /// There is no room for it now: 503.
    Full {
        /// Why.
        reason: Refusal,
        /// When to come again.
        retry_after_s: u32,
    },
}

/// Everything a door is made of.
pub struct Parts {
    /// The shard's admission.
    pub admission: Admission,
    /// The tenants at the start.
    pub tenants: Arc<TenantTable>,
    /// Later ones, from the control thread.
    pub news: rtrb::Consumer<Arc<TenantTable>>,
    /// What all shards let tenants use.
    pub uses: Arc<Uses>,
    /// Which of them this is.
    pub shard: usize,
}

/// See the module text.
pub struct Door {
    /// Who gets in when not all can.
    pub admission: Admission,
    tenants: Arc<TenantTable>,
    news: rtrb::Consumer<Arc<TenantTable>>,
    uses: Arc<Uses>,
    /// By tenant number, with room for every one there can be.
    states: Vec<TenantUse>,
    shard: usize,
    traffic: Traffic,
    /// A turn without work that entered the kernel: busy if the next one finds work, which then was done in there.
    unsettled: Turn,
    longest: LongestTurn,
}

impl Door {
    /// A door with nobody before it.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            admission: parts.admission,
            tenants: parts.tenants,
            news: parts.news,
            states: vec![TenantUse::default(); parts.uses.ids()],
            uses: parts.uses,
            shard: parts.shard,
            traffic: Traffic::default(),
            unsettled: Turn::default(),
            longest: LongestTurn::default(),
        }
    }

    /// Whose a request with `key` is: the tenant's slot.
    ///
    /// # Errors
    /// [`TurnedAway::Unauthorized`].
    pub fn identify(&self, key: Option<&[u8]>, credential: &mut Credential) -> Result<u32, TurnedAway> {
        self.tenants.admit(key, credential).map_err(|_| TurnedAway::Unauthorized)
    }

    /// The number that is stored with the events of the tenant in `slot`.
    #[must_use]
    pub fn tenant_id(&self, slot: u32) -> TenantId {
        self.tenants.tenant(slot).id
    }

    /// Lets a request of the tenant in `slot` in: it is in flight until [`Admission::finished`]. Returns the bytes of its
    /// body that are paid for.
    ///
    /// # Errors
    /// Why it is turned away.
    pub fn enter(&mut self, now_ns: u64, request: &Request, slot: u32) -> Result<u64, TurnedAway> {
        let tenant = self.tenants.tenant(slot);
        let id = usize::from(tenant.id.0);
        let (state, used) = (&mut self.states[id], self.uses.of(self.shard, id));
        let published = |measure| Published::new(&self.uses, self.shard, id, measure);
        let by_events = state.events.check(now_ns, tenant.events.as_ref(), published(Measure::Events));
        let by_bytes = state.bytes.check(now_ns, tenant.bytes.as_ref(), published(Measure::Bytes));
        if by_events.is_err() || by_bytes.is_err() {
            used.limited.add(1);
            let over = by_events.err().into_iter().chain(by_bytes.err()).reduce(Over::longer);
            return Err(TurnedAway::Limited(over.expect("one of them is")));
        }
        if let Err(reason) = self.admission.judge(now_ns, request.priority, &mut state.share, tenant.weight) {
            used.refused.add(1);
            return Err(TurnedAway::Full { reason, retry_after_s: self.admission.retry_after_s() });
        }
        used.requests.add(1);
        let ahead = request.framing.announced_bytes().min(CHARGED_AHEAD_MAX);
        self.admission.charge(now_ns, &mut state.share, REQUEST_WORK + ahead);
        Ok(ahead)
    }

    /// Charges `bytes` more of a body to the tenant with `id`.
    pub fn charge(&mut self, now_ns: u64, id: TenantId, bytes: u64) {
        self.admission.charge(now_ns, &mut self.states[usize::from(id.0)].share, bytes);
    }

    /// Books what a request of the tenant with `id` brought, for his limits and his statistics.
    pub fn book(&mut self, now_ns: u64, id: TenantId, events: u64, bytes: u64) {
        let id = usize::from(id.0);
        let (state, used) = (&mut self.states[id], self.uses.of(self.shard, id));
        let published = |measure| Published::new(&self.uses, self.shard, id, measure);
        state.events.before_use(now_ns, published(Measure::Events));
        state.bytes.before_use(now_ns, published(Measure::Bytes));
        used.events.add(events);
        used.bytes.add(bytes);
    }

    /// Counts a request of which `bytes` were received so far.
    pub fn count_request(&mut self) {
        self.traffic.count_request();
    }

    /// Counts bytes that were received.
    pub fn count_received(&mut self, bytes: u64) {
        self.traffic.count_received(bytes);
    }

    /// Counts a request that was turned away, or bytes that are dropped because it was.
    pub fn count_refused(&mut self, requests: u64, bytes: u64) {
        self.traffic.count_refused(requests, bytes);
    }

    /// A request was refused for something else than what is judged here.
    pub fn note_refused(&mut self, now_ns: u64) {
        self.admission.note_refused(now_ns);
    }

    /// Takes in a turn of `turn_ns`, and what came after it: `enter_ns` in the kernel, of which the shard slept if it
    /// `blocked`. Returns the nanoseconds spent working and, among them, refusing; and whether the figures have changed.
    pub fn turned(&mut self, now_ns: u64, times: &TurnTimes, facts: impl FnOnce() -> Facts) -> Turned {
        let mut turn = std::mem::take(&mut self.unsettled);
        turn.wall_ns += times.turn_ns + times.enter_ns;
        if times.worked {
            let kernel_ns = turn.busy_ns + if times.blocked { 0 } else { times.enter_ns };
            turn.busy_ns = times.turn_ns + kernel_ns;
            turn.refusing_ns = self.traffic.refusing_ns(times.turn_ns, kernel_ns);
            self.longest.turned(now_ns, turn.busy_ns);
        } else if !times.blocked && turn.wall_ns < crate::admit::TICK_NS {
            turn.busy_ns = times.enter_ns;
            self.unsettled = turn;
            return Turned::default();
        } else {
            turn.busy_ns = 0;
        }
        self.traffic = Traffic::default();
        let ticked = self.admission.turned(now_ns, turn, facts);
        Turned { busy_ns: turn.busy_ns, refusing_ns: turn.refusing_ns, ticked }
    }

    /// Takes over the latest table of tenants, if there is news.
    pub fn hear_news(&mut self) {
        while let Ok(table) = self.news.pop() {
            // The control thread holds on to the old one until nobody else does, so that it is not freed here.
            self.tenants = table;
        }
    }

    /// Shows the figures.
    pub fn publish(&mut self, now_ns: u64, metrics: &ShardMetrics) {
        let admission = &self.admission;
        let (meter, pressure) = (admission.meter(), admission.pressure());
        metrics.serving_ppm.set(meter.serving_slow());
        metrics.refusing_ppm.set(meter.refusing());
        metrics.admit_ppm.set(meter.admit_share());
        metrics.pressure_ppm.set(pressure.worst());
        metrics.pressure_utilization_ppm.set(pressure.utilization);
        metrics.pressure_lag_ppm.set(pressure.lag);
        metrics.pressure_concurrency_ppm.set(pressure.concurrency);
        metrics.pressure_log_buffer_ppm.set(pressure.log_buffer);
        metrics.pressure_chunks_ppm.set(pressure.chunks);
        metrics.pressure_pool_ppm.set(pressure.pool);
        metrics.durable_lag_ns.set(admission.lag_ns());
        metrics.turn_longest_ns.set(self.longest.ns());
        metrics.hold_ns.set(admission.hold_ns());
        metrics.backpressure_level.set(match admission.level(now_ns) {
            Level::None => 0,
            Level::Soft => 1,
            Level::Hard => 2,
        });
    }
}

/// Times of one iteration of the loop.
#[derive(Clone, Copy, Debug)]
pub struct TurnTimes {
    /// The turn itself.
    pub turn_ns: u64,
    /// Entering the kernel after it.
    pub enter_ns: u64,
    /// The turn found something to do.
    pub worked: bool,
    /// The shard slept in the kernel.
    pub blocked: bool,
}

/// What an iteration came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turned {
    /// Nanoseconds spent working.
    pub busy_ns: u64,
    /// Of those, estimated, on requests that were turned away.
    pub refusing_ns: u64,
    /// A tick has ended: figures have changed.
    pub ticked: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admit::{Config, Limit, Rate, Tenant, digest_of};
    use crate::shard::request::{Content, Encoding, Framing, Route};

    fn request(framing: Framing) -> Request {
        Request {
            route: Route::Events,
            is_head: false,
            http10: false,
            keep_alive: true,
            expect_continue: false,
            framing,
            content: Content::Json,
            encoding: Encoding::Identity,
            ack: None,
            atomic: false,
            key: None,
            priority: crate::admit::Priority::Normal,
            request_id: None,
        }
    }

    fn door(table: TenantTable) -> (Door, rtrb::Producer<Arc<TenantTable>>) {
        let (post, news) = rtrb::RingBuffer::new(2);
        let config = Config { target: 500_000, lag_target_ns: 100_000_000, in_flight_max: 10, seed: 1 };
        let uses = Arc::new(Uses::new(1, 16));
        (Door::new(Parts { admission: Admission::new(config), tenants: Arc::new(table), news, uses, shard: 0 }), post)
    }

    fn acme(events: Option<Rate>) -> (Tenant, Vec<crate::admit::Digest>) {
        let events = events.map(|rate| Limit::new(rate, 1));
        let tenant = Tenant { id: TenantId(3), name: "acme".into(), weight: 1, events, bytes: None };
        (tenant, vec![digest_of(b"key")])
    }

    const TICK: u64 = crate::admit::TICK_NS;

    #[test]
    fn a_tenant_is_known_by_his_key_limited_and_booked() {
        let rate = Rate { per_second: 10, burst: 5 };
        let (mut door, _post) = door(TenantTable::new(1, vec![acme(Some(rate))]).unwrap());
        let mut credential = Credential::default();
        assert_eq!(door.identify(None, &mut credential), Err(TurnedAway::Unauthorized));
        let slot = door.identify(Some(b"key"), &mut credential).unwrap();
        assert_eq!(door.tenant_id(slot), TenantId(3));
        assert_eq!(door.enter(TICK, &request(Framing::Length(100)), slot), Ok(100));
        door.book(TICK, TenantId(3), 25, 100);
        let Err(TurnedAway::Limited(over)) = door.enter(20 * TICK, &request(Framing::None), slot) else {
            panic!("not limited")
        };
        assert_eq!((over.limit, over.remaining, over.retry_after_s), (10, 0, 3));
        assert_eq!(door.uses.of(0, 3).limited.get(), 1);
        assert_eq!(door.enter(5_000 * TICK, &request(Framing::Chunked), slot), Ok(0));
    }

    #[test]
    fn who_is_over_both_limits_is_told_the_one_he_waits_for_longer() {
        for (bytes, told) in [(1010, (Measure::Bytes, 10)), (15, (Measure::Events, 1000))] {
            let (mut tenant, keys) = acme(Some(Rate { per_second: 1000, burst: 1000 }));
            tenant.bytes = Some(Limit::new(Rate { per_second: 10, burst: 10 }, 1));
            let (mut door, _post) = door(TenantTable::new(1, vec![(tenant, keys)]).unwrap());
            door.enter(TICK, &request(Framing::None), 1).unwrap();
            door.book(TICK, TenantId(3), 3000, bytes);
            let away = door.enter(20 * TICK, &request(Framing::None), 1).unwrap_err();
            let TurnedAway::Limited(over) = away else { panic!("not limited") };
            assert_eq!((over.of, over.limit), told, "{over:?}");
            let what = if over.of == Measure::Bytes { "limit on bytes" } else { "limit on events" };
            assert!(away.answer().message.contains(what), "{}", away.answer().message);
        }
    }

    #[test]
    fn requests_that_begin_before_the_first_is_over_pass_a_limit_together_and_their_debt_is_waited_for() {
        let rate = Rate { per_second: 10, burst: 10 };
        let (mut door, _post) = door(TenantTable::new(1, vec![acme(Some(rate))]).unwrap());
        (0..4).for_each(|_| assert!(door.enter(TICK, &request(Framing::Length(100)), 1).is_ok()));
        (0..4).for_each(|_| door.book(2 * TICK, TenantId(3), 1000, 100));
        let Err(TurnedAway::Limited(over)) = door.enter(3 * TICK, &request(Framing::None), 1) else {
            panic!("not limited")
        };
        assert_eq!(over.retry_after_s, 400, "3990 events and one to use, at 10 per second");
    }

    #[test]
    fn long_bodies_are_charged_as_they_come() {
        let (mut door, _post) = door(TenantTable::anonymous());
        assert_eq!(door.enter(TICK, &request(Framing::Length(1 << 40)), 0), Ok(CHARGED_AHEAD_MAX));
    }

    #[test]
    fn a_new_table_counts_at_the_next_news() {
        let (mut door, mut post) = door(TenantTable::anonymous());
        let mut credential = Credential::default();
        assert_eq!(door.identify(None, &mut credential), Ok(0));
        post.push(Arc::new(TenantTable::new(2, vec![acme(None)]).unwrap())).unwrap();
        door.hear_news();
        assert_eq!(door.identify(None, &mut credential), Err(TurnedAway::Unauthorized));
        assert!(door.identify(Some(b"key"), &mut credential).is_ok());
    }

    #[test]
    fn what_the_kernel_did_before_a_turn_found_it_is_busy_and_what_it_slept_is_not() {
        let (mut door, _post) = door(TenantTable::anonymous());
        let times = |worked, blocked| TurnTimes { turn_ns: 1000, enter_ns: 4000, worked, blocked };
        let facts = Facts::default;
        assert_eq!(door.turned(5_000, &times(true, false), facts).busy_ns, 5000);
        assert_eq!(door.turned(10_000, &times(true, true), facts).busy_ns, 1000, "asleep");
        assert_eq!(door.turned(15_000, &times(false, false), facts).busy_ns, 0, "nobody knows yet");
        assert_eq!(door.turned(20_000, &times(true, false), facts).busy_ns, 9000, "it was work");
        door.turned(25_000, &times(false, false), facts);
        assert_eq!(door.turned(30_000, &times(false, true), facts).busy_ns, 0, "it was not");
    }

    #[test]
    fn what_is_refused_in_a_turn_counts_for_that_turn_only() {
        let (mut door, _post) = door(TenantTable::anonymous());
        (0..4).for_each(|_| door.count_request());
        door.count_received(4_000);
        door.count_refused(4, 4_000);
        let times = TurnTimes { turn_ns: 100_000, enter_ns: 100_000, worked: true, blocked: false };
        let turned = door.turned(0, &times, Facts::default);
        assert_eq!((turned.busy_ns, turned.refusing_ns), (200_000, 200_000));
        let quiet = door.turned(0, &times, Facts::default);
        assert_eq!((quiet.busy_ns, quiet.refusing_ns), (200_000, 0));
    }
}
