//! One connection's talk: received bytes in, requests served, answers written. Shard thread only; no sockets, no clock, so
//! it can be driven by a test byte by byte.
//!
//! Requests are served strictly in order, one at a time: head, body, answer. Answers go out through [`Replies`], which
//! holds each back until its ack level is reached. Where the framing of the stream is lost, the answer says so and is the
//! last one.
//!
//! Every refusal that the head allows is decided from the head, before a byte of the body is read.

use super::ack::Waiter;
use super::answer::{self, Accepted, Extent, Extra, Frame, Persistence, Refusals, Refused};
use super::arena::Pool;
use super::body::{Body, Progress};
use super::code::{ErrorCode, HttpError};
use super::context::{Context, Kept};
use super::door::TurnedAway;
use super::http::parse_head;
use super::question::{self, Json};
use super::refusal::{POOL_EXHAUSTED, WRITER_FAILED, count_reason, count_refusal, refusal, refused, refused_batch};
use super::replies::{Condition, GateId, Replies};
use super::request::{Framing, Request, RequestId, Route};
use crate::admit::Credential;
use crate::base::{AckLevel, TenantId};

/// Room asked for before a request is begun: any answer but a list of errors or an echo fits.
const ANSWER_BYTES: usize = 2048;
/// Room an echo's answer takes besides the echo.
const ECHO_AROUND_BYTES: usize = 1024;
/// A body of an answered request up to this length is read and dropped to keep the connection; a longer one closes it.
const SKIP_BYTES_MAX: u64 = 64 * 1024;
/// A body must bring this much, or its end, within each body timeout.
const BODY_PROGRESS_BYTES: u64 = 4096;

/// What the caller is to do after [`Conversation::consume`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Everything was consumed: bring more when it comes.
    Read,
    /// The log buffer has no room for the rest.
    WaitForRoom,
    /// This turn has done enough: go on in the next.
    WaitForTurn,
    /// Earlier answers must leave first.
    WaitForReplies,
    /// The talk is over once the answers have left; the rest is of no interest.
    Close,
}

impl Next {
    /// Bytes may be left that are to be brought again.
    #[must_use]
    pub const fn waits(self) -> bool {
        matches!(self, Self::WaitForRoom | Self::WaitForTurn | Self::WaitForReplies)
    }
}

/// What a connection waits for, to choose its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// For the server: no deadline.
    Nothing,
    /// For what it waited for before: the deadline stands.
    Unchanged,
    /// For a next request.
    Request,
    /// For the rest of a head.
    Head,
    /// For more of a body.
    Body,
    /// For the peer to take its answers.
    Reader,
}

const NO_SUCH_ROUTE: &str = "no such route: events go to POST /v1/events or POST /v1/events/batch";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between requests or in a head.
    Head,
    /// In a body whose request will be answered at its end.
    Body,
    /// In a body whose request has been answered.
    Skip,
    /// The body is over; its answer waits for room.
    Answer,
    /// The last answer has been written.
    Over,
}

/// What the request being read was let in with.
#[derive(Clone, Copy, Debug)]
struct Entry {
    tenant: TenantId,
    /// Bytes of its body, decompressed ones if it is compressed, that were charged.
    charged_bytes: u64,
}

/// See the module text.
pub struct Conversation {
    place: u32,
    generation: u32,
    phase: Phase,
    head: Kept,
    scanned: usize,
    request: Option<Request>,
    request_id: RequestId,
    body: Body,
    body_bytes: u64,
    replies: Replies,
    credential: Credential,
    entry: Option<Entry>,
    /// Requests let in and not yet answered for good; the one of `entry` is among them.
    in_flight: u32,
    turned_away: bool,
    waited_for: Option<(Wants, u64)>,
    requests: u64,
    sent_bytes: u64,
}

impl Conversation {
    /// A talk yet to begin, on the connection in `place`.
    #[must_use]
    pub fn new(place: u32) -> Self {
        Self {
            place,
            generation: 0,
            phase: Phase::Over,
            head: Kept::default(),
            scanned: 0,
            request: None,
            request_id: RequestId::made(0, 0),
            body: Body::none(),
            body_bytes: 0,
            replies: Replies::default(),
            credential: Credential::default(),
            entry: None,
            in_flight: 0,
            turned_away: false,
            waited_for: None,
            requests: 0,
            sent_bytes: 0,
        }
    }

    /// Begins the talk of the place's user number `generation`.
    pub fn begin(&mut self, generation: u32) {
        self.generation = generation;
        self.phase = Phase::Head;
        self.scanned = 0;
        self.waited_for = None;
        self.turned_away = false;
    }

    /// Ends the talk and gives back all it holds. No send may be in flight.
    pub fn end(&mut self, ctx: &mut Context) {
        self.phase = Phase::Over;
        self.credential.forget();
        self.settle(ctx);
        self.finish_requests(self.in_flight, ctx);
        self.head.clear(&mut ctx.pool);
        self.body.release(ctx);
        self.replies.clear(&mut ctx.pool);
    }

    /// Takes received bytes; how many were consumed, and what to do next. To be called with no bytes after a wait that
    /// left none over.
    pub fn consume(&mut self, input: &mut [u8], ctx: &mut Context) -> (usize, Next) {
        let mut consumed = 0;
        loop {
            let rest = &mut input[consumed..];
            let step = match self.phase {
                Phase::Over => return (consumed, Next::Close),
                Phase::Head => self.take_head(rest, ctx),
                Phase::Body | Phase::Skip => self.take_body(rest, ctx),
                Phase::Answer => (0, self.answer_events(ctx)),
            };
            consumed += step.0;
            if let Some(next) = step.1 {
                if self.phase != Phase::Over {
                    ctx.placer.checksum();
                }
                return (consumed, next);
            }
        }
    }

    // --- heads ------------------------------------------------------------------------------------------------------

    fn take_head(&mut self, input: &[u8], ctx: &mut Context) -> (usize, Option<Next>) {
        if input.is_empty() {
            return (0, Some(Next::Read));
        }
        if self.replies.room(&mut ctx.pool, ANSWER_BYTES).is_none() {
            // With nothing owed there is nothing to wait for: it is the pool that has no room, not this connection.
            let waits = !self.replies.is_empty();
            return if waits {
                (0, Some(Next::WaitForReplies))
            } else {
                (input.len(), self.fail_in_head(&POOL_EXHAUSTED, ctx))
            };
        }
        // A head that came in pieces is joined in a block; one that came whole is read where it lies.
        let kept = self.head.bytes().len();
        let parsed = if kept == 0 {
            parse_head(input, &mut self.scanned, &ctx.limits)
        } else {
            let more = &input[..input.len().min(ctx.limits.head_bytes_max + 1)];
            if !self.head.extend(&mut ctx.pool, more) {
                return (input.len(), self.fail_in_head(&POOL_EXHAUSTED, ctx));
            }
            parse_head(self.head.bytes(), &mut self.scanned, &ctx.limits)
        };
        match parsed {
            Ok(Some((request, head_bytes))) => {
                let head = if kept == 0 { input } else { self.head.bytes() };
                // Others are answered whoever asks.
                let tenant = if request.route.stores_or_echoes() {
                    ctx.door.identify(request.key.map(|key| key.of(head)), &mut self.credential)
                } else {
                    Ok(0)
                };
                self.head.clear(&mut ctx.pool);
                self.scanned = 0;
                (head_bytes - kept, self.begin_request(&request, head_bytes as u64, tenant, ctx))
            }
            Ok(None) => {
                if kept == 0 && !self.head.extend(&mut ctx.pool, input) {
                    return (input.len(), self.fail_in_head(&POOL_EXHAUSTED, ctx));
                }
                (self.head.bytes().len() - kept, Some(Next::Read))
            }
            Err(error) => (input.len(), self.fail_in_head(&error, ctx)),
        }
    }

    fn begin_request(
        &mut self,
        request: &Request,
        head_bytes: u64,
        tenant: Result<u32, TurnedAway>,
        ctx: &mut Context,
    ) -> Option<Next> {
        ctx.metrics().requests.add(1);
        ctx.door.count_request();
        self.requests += 1;
        self.request = Some(*request);
        self.request_id = request.request_id.unwrap_or_else(|| ctx.make_request_id());
        self.body_bytes = 0;
        if !request.route.stores_or_echoes() {
            return self.answer_question(request.route, ctx);
        }
        let slot = match tenant {
            Ok(slot) => slot,
            Err(away) => return self.turn_away(away, head_bytes, ctx),
        };
        // Before admission: what cannot be served anyway must not use up what others could have had.
        if let Some(refusal) = refusal(request, ctx) {
            return self.fail_early(&refusal, ctx);
        }
        let tenant = ctx.door.tenant_id(slot);
        match ctx.door.enter(ctx.clock.ns(), request, slot) {
            Ok(charged_bytes) => self.entry = Some(Entry { tenant, charged_bytes }),
            Err(away) => return self.turn_away(away, head_bytes, ctx),
        }
        self.in_flight += 1;
        if let Err(error) = self.body.begin(request, tenant, ctx) {
            self.entry = None;
            self.finish_requests(1, ctx);
            return self.fail_early(&error, ctx);
        }
        if request.expect_continue {
            let room = self.replies.room(&mut ctx.pool, ANSWER_BYTES).expect("asked for before the head was read");
            room[..answer::CONTINUE.len()].copy_from_slice(answer::CONTINUE);
            self.replies.push(answer::CONTINUE.len(), None);
        }
        self.phase = Phase::Body;
        None
    }

    // --- bodies -----------------------------------------------------------------------------------------------------

    fn take_body(&mut self, input: &mut [u8], ctx: &mut Context) -> (usize, Option<Next>) {
        let (consumed, progress) = match self.body.advance(input, ctx) {
            Ok(advanced) => advanced,
            // The stream cannot be followed any further.
            Err(_) if self.phase == Phase::Skip => {
                self.phase = Phase::Over;
                return (input.len(), Some(Next::Close));
            }
            Err(error) => {
                self.charge_body(ctx);
                return (input.len(), self.fail(&error, ctx));
            }
        };
        self.body_bytes += consumed as u64;
        if self.entry.is_some() {
            self.charge_body(ctx);
        } else if self.phase == Phase::Skip {
            ctx.door.count_refused(0, consumed as u64);
        }
        let next = match progress {
            Progress::More => Some(Next::Read),
            Progress::NoRoom => Some(Next::WaitForRoom),
            Progress::NextTurn => Some(Next::WaitForTurn),
            Progress::Done if self.phase == Phase::Skip => {
                self.body.release(ctx);
                self.phase = Phase::Head;
                None
            }
            Progress::Done => {
                self.phase = Phase::Answer;
                None
            }
        };
        (consumed, next)
    }

    /// Charges what the body has cost beyond what was charged: its bytes, or what they decompressed to.
    fn charge_body(&mut self, ctx: &mut Context) {
        let Some(entry) = &mut self.entry else { return };
        let bytes = self.body_bytes.max(self.body.decoded_bytes());
        if bytes > entry.charged_bytes {
            ctx.door.charge(ctx.clock.ns(), entry.tenant, bytes - entry.charged_bytes);
            entry.charged_bytes = bytes;
        }
    }

    // --- answers ----------------------------------------------------------------------------------------------------

    /// Answers the request whose body is over.
    fn answer_events(&mut self, ctx: &mut Context) -> Option<Next> {
        let request = self.request.expect("a body has a request");
        if request.route == Route::Echo {
            return self.answer_echo(ctx);
        }
        let tally = &self.body.tally;
        let listed = tally.errors.as_ref().map_or(&[][..], |errors| &errors.0);
        let refusals = Refusals { first: listed, total: tally.rejected };
        let event_id = tally.event_id.get();
        let needed = answer::accepted_bytes_max(listed.len(), event_id.map_or(0, str::len));
        let Some(room) = self.replies.room(&mut ctx.pool, needed.max(ANSWER_BYTES)) else {
            return if self.replies.is_empty() { self.fail(&POOL_EXHAUSTED, ctx) } else { Some(Next::WaitForReplies) };
        };
        let close = closes(&request, ctx);
        let frame = frame(&request, &self.request_id, ctx, close);
        let (bytes, condition) = if let Some(answer) = refused_batch(&request, refusals, tally.accepted) {
            ctx.metrics().requests_error.add(1);
            (answer::refused(room, &frame, &answer), None)
        } else {
            let level = request.ack.unwrap_or(ctx.ack_default);
            let extent = if self.body.was_single() { Extent::Single { event_id } } else { Extent::Batch };
            let position = tally.first.expect("an accepted event has a position");
            let answer = Accepted { accepted: tally.accepted, refusals, position, ack: level, extent };
            // In memory they are as safe as memory makes them: there is nothing to wait for.
            let condition = (level != AckLevel::Memory).then_some(Condition { level, seq: tally.last_seq });
            if condition.is_none() {
                Self::count_ok(1, ctx);
                ctx.metrics().ack_latency.record(0);
            }
            (answer::accepted(room, &frame, &answer), condition)
        };
        let bytes = bytes.expect("room for the longest answer was asked for");
        let begun = self.settle(ctx);
        if condition.is_none() {
            self.finish_requests(begun.into(), ctx);
        }
        self.body.release(ctx);
        self.finish_answer(bytes, condition, close, ctx)
    }

    /// Counts `requests` requests as answered 2xx: what waits for an ack is not before that is reached.
    fn count_ok(requests: u32, ctx: &Context) {
        ctx.metrics().requests_ok.add(requests.into());
    }

    fn answer_echo(&mut self, ctx: &mut Context) -> Option<Next> {
        let request = self.request.expect("a body has a request");
        let close = closes(&request, ctx);
        let value = self.body.echoed();
        let Some(room) = self.replies.room(&mut ctx.pool, ECHO_AROUND_BYTES + value.len()) else {
            return if self.replies.is_empty() { self.fail(&POOL_EXHAUSTED, ctx) } else { Some(Next::WaitForReplies) };
        };
        let validated = ctx.placer.validator().validate_value(value);
        let frame = frame(&request, &self.request_id, ctx, close);
        let bytes = match validated {
            Ok(()) => {
                ctx.metrics().requests_ok.add(1);
                answer::echo_front(room, &frame, value.len()).map(|front| {
                    let end = front + value.len();
                    room[front..end].copy_from_slice(value);
                    room[end..end + answer::ECHO_SUFFIX.len()].copy_from_slice(answer::ECHO_SUFFIX);
                    if frame.is_head { front } else { end + answer::ECHO_SUFFIX.len() }
                })
            }
            Err(error) => {
                ctx.metrics().requests_error.add(1);
                answer::refused(room, &frame, &refused(ErrorCode::InvalidJson, error.text()))
            }
        };
        let bytes = bytes.expect("room for the echo was asked for");
        let begun = self.settle(ctx);
        self.finish_requests(begun.into(), ctx);
        self.body.release(ctx);
        self.finish_answer(bytes, None, close, ctx)
    }

    /// Answers a request for which no body is needed.
    fn answer_question(&mut self, route: Route, ctx: &mut Context) -> Option<Next> {
        let request = self.request.expect("a head was read");
        let close = closes(&request, ctx) || !skippable(&request, ctx);
        let room = self.replies.room(&mut ctx.pool, ANSWER_BYTES).expect("asked for before the head was read");
        let frame = frame(&request, &self.request_id, ctx, close);
        let mut json = Json::default();
        let mut is_ok = !matches!(route, Route::NotFound | Route::MethodNotAllowed { .. });
        let bytes = match route {
            Route::Health => answer::health(room, &frame),
            Route::Ready => {
                let readiness = question::readiness(ctx);
                is_ok = readiness.is_ready();
                readiness.write_json(&mut json).expect("the checks fit");
                answer::ready(room, &frame, readiness.is_ready(), json.bytes())
            }
            Route::Metrics => {
                ctx.server.write_json(&mut json).expect("the summary fits");
                answer::json_body(room, &frame, json.bytes())
            }
            Route::NotFound => answer::refused(room, &frame, &refused(ErrorCode::NotFound, NO_SUCH_ROUTE)),
            Route::MethodNotAllowed { allow } => {
                let answer = refused(ErrorCode::MethodNotAllowed, "the route exists, for the methods in Allow");
                answer::refused(room, &frame, &Refused { extra: Extra::Allow(allow), ..answer })
            }
            Route::Events | Route::EventsBatch | Route::Echo => unreachable!("these have a body"),
        };
        let bytes = bytes.expect("these answers are short");
        let metrics = ctx.metrics();
        if is_ok { &metrics.requests_ok } else { &metrics.requests_error }.add(1);
        self.finish_early(bytes, close, &request, ctx)
    }

    /// Refuses a request from its head; its body is read and dropped if that is cheap.
    fn answer_early(&mut self, answer: &Refused<'_>, ctx: &mut Context) -> Option<Next> {
        let request = self.request.expect("a head was read");
        let close = closes(&request, ctx) || !skippable(&request, ctx);
        let room = self.replies.room(&mut ctx.pool, ANSWER_BYTES).expect("asked for before the head was read");
        let frame = frame(&request, &self.request_id, ctx, close);
        let bytes = answer::refused(room, &frame, answer);
        count_refusal(answer.code, ctx);
        self.finish_early(bytes.expect("an error is short"), close, &request, ctx)
    }

    /// The same, whoever asks.
    fn fail_early(&mut self, error: &HttpError, ctx: &mut Context) -> Option<Next> {
        count_reason(error, ctx);
        self.answer_early(&refused(error.code, error.message), ctx)
    }

    /// Refuses a request that is not let in.
    fn turn_away(&mut self, away: TurnedAway, head_bytes: u64, ctx: &mut Context) -> Option<Next> {
        away.count(ctx.metrics());
        ctx.door.count_refused(1, head_bytes);
        self.turned_away = true;
        self.answer_early(&away.answer(), ctx)
    }

    fn finish_early(&mut self, bytes: usize, close: bool, request: &Request, ctx: &mut Context) -> Option<Next> {
        let next = self.finish_answer(bytes, None, close, ctx);
        if self.phase == Phase::Head && request.framing != Framing::None {
            let skipped = Request { route: Route::NotFound, ..*request };
            self.body.begin(&skipped, TenantId::default(), ctx).expect("only lengths within the limit are skipped");
            self.phase = Phase::Skip;
        }
        next
    }

    /// The same before there was a request: it counts as one nevertheless, since it is answered.
    fn fail_in_head(&mut self, error: &HttpError, ctx: &mut Context) -> Option<Next> {
        ctx.metrics().requests.add(1);
        self.fail(error, ctx)
    }

    /// Says that the stream cannot be followed, and ends the talk.
    fn fail(&mut self, error: &HttpError, ctx: &mut Context) -> Option<Next> {
        let begun = u32::from(self.settle(ctx));
        self.finish_requests(begun, ctx);
        self.body.release(ctx);
        self.head.clear(&mut ctx.pool);
        self.phase = Phase::Over;
        count_refusal(error.code, ctx);
        count_reason(error, ctx);
        let request = self.request.take();
        if request.is_none() {
            self.request_id = ctx.make_request_id();
        }
        if let Some(room) = self.replies.room(&mut ctx.pool, ANSWER_BYTES) {
            let frame = Frame {
                request_id: &self.request_id,
                date: ctx.clock.date(),
                unix_ms: ctx.clock.unix_ms(),
                persistence: Persistence::Closed,
                is_head: request.is_some_and(|request| request.is_head),
            };
            let bytes = answer::refused(room, &frame, &refused(error.code, error.message));
            self.replies.push(bytes.expect("an error is short"), None);
        }
        Some(Next::Close)
    }

    fn finish_answer(
        &mut self,
        bytes: usize,
        condition: Option<Condition>,
        close: bool,
        ctx: &mut Context,
    ) -> Option<Next> {
        if let Some(gate) = self.replies.push(bytes, condition)
            && let Some(condition) = condition
        {
            let since_ns = ctx.clock.ns();
            let waiter = Waiter { connection: self.place, generation: self.generation, gate, since_ns };
            ctx.waiters.push(condition, waiter);
        }
        self.request = None;
        self.phase = if close { Phase::Over } else { Phase::Head };
        close.then_some(Next::Close)
    }

    // --- requests in flight -----------------------------------------------------------------------------------------

    /// Books what the request being read has brought so far: it brings no more. Whether one was being read.
    fn settle(&mut self, ctx: &mut Context) -> bool {
        let Some(entry) = self.entry.take() else { return false };
        let tally = &self.body.tally;
        let events = u64::from(tally.accepted) + u64::from(tally.rejected);
        ctx.door.book(ctx.clock.ns(), entry.tenant, events, self.body_bytes);
        true
    }

    fn finish_requests(&mut self, requests: u32, ctx: &mut Context) {
        self.in_flight -= requests;
        ctx.door.admission.finished(requests);
    }

    // --- what the event loop asks and tells -------------------------------------------------------------------------

    /// The answers, to be sent.
    #[must_use]
    pub fn replies(&self) -> &Replies {
        &self.replies
    }

    /// Counts `bytes` bytes of answers as sent.
    pub fn sent(&mut self, bytes: usize, pool: &mut Pool) {
        self.replies.sent(bytes, pool);
        self.sent_bytes += bytes as u64;
    }

    /// Opens a gate of the answers, which ends the requests that wait at it; whether more can be sent now.
    pub fn open_gate(&mut self, gate: GateId, ctx: &mut Context) -> bool {
        let requests = self.replies.requests_at(gate);
        Self::count_ok(requests, ctx);
        self.finish_requests(requests, ctx);
        self.replies.open(gate)
    }

    /// Whether a request was turned away since the last call.
    pub fn take_turned_away(&mut self) -> bool {
        std::mem::take(&mut self.turned_away)
    }

    /// The last answer has been written: what still arrives is of no interest.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Between requests, nothing received of the next and nothing owed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Head && !self.in_head() && self.replies.is_empty()
    }

    /// Whether a head has begun. Empty lines are none: old clients send one behind a body (RFC 9112 §2.2).
    fn in_head(&self) -> bool {
        self.head.bytes().iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
    }

    /// What the connection waits for now.
    pub fn wants(&mut self) -> Wants {
        let (wants, mark) = if self.replies.sendable().is_some() {
            (Wants::Reader, self.sent_bytes)
        } else {
            match self.phase {
                Phase::Head if self.in_head() => (Wants::Head, self.requests),
                Phase::Body | Phase::Skip => {
                    (Wants::Body, (self.requests << 40) | (self.body_bytes / BODY_PROGRESS_BYTES))
                }
                _ if self.replies.is_waiting() => (Wants::Nothing, 0),
                _ => (Wants::Request, self.requests),
            }
        };
        if self.waited_for.replace((wants, mark)) == Some((wants, mark)) { Wants::Unchanged } else { wants }
    }

    /// It waits for the server from now on: what it waited for before begins anew when the server is done.
    pub fn wait_for_server(&mut self) {
        self.waited_for = None;
    }

    /// The deadline has passed. True if there is an answer to send first; else the connection is to be shut.
    pub fn time_out(&mut self, ctx: &mut Context) -> bool {
        let in_request = match self.phase {
            Phase::Head => self.in_head(),
            Phase::Body => true,
            Phase::Skip | Phase::Answer | Phase::Over => false,
        };
        if !in_request || self.replies.sendable().is_some() {
            return false;
        }
        let code = ErrorCode::RequestTimeout;
        if self.phase == Phase::Head {
            let message = "the request's head took too long (head_timeout)";
            self.fail_in_head(&HttpError { code, message }, ctx);
        } else {
            self.fail(&HttpError { code, message: "the request's body came too slowly (body_timeout)" }, ctx);
        }
        true
    }

    /// The writer has failed: what waits for it will never be acknowledged, and is told so.
    pub fn writer_failed(&mut self, ctx: &mut Context) {
        let owed = self.replies.is_waiting() || matches!(self.phase, Phase::Body | Phase::Answer);
        self.replies.drop_waiting();
        let begun = u32::from(self.entry.is_some());
        let waited = self.in_flight - begun;
        self.finish_requests(waited, ctx);
        if owed {
            // One answer, which also ends the talk, stands for all that waited.
            let others = u64::from((waited + begun).saturating_sub(1));
            ctx.metrics().requests_rejected.add(others);
            ctx.metrics().refused_unavailable.add(others);
            self.fail(&WRITER_FAILED, ctx);
        }
    }

    /// One connection too many: says so and ends the talk.
    pub fn refuse_connection(&mut self, ctx: &mut Context) {
        let error = HttpError {
            code: ErrorCode::Backpressure,
            message: "the shard has as many connections as it may (connections_per_shard_max): retry later",
        };
        self.fail_in_head(&error, ctx);
    }
}

/// Whether the body of an answered request is short enough to be read for the sake of the connection.
fn skippable(request: &Request, ctx: &Context) -> bool {
    match request.framing {
        Framing::None => true,
        Framing::Length(bytes) => bytes <= SKIP_BYTES_MAX.min(ctx.limits.body_bytes_max) && !request.expect_continue,
        Framing::Chunked => false,
    }
}

/// Whether the connection ends with the answer.
fn closes(request: &Request, ctx: &Context) -> bool {
    !request.keep_alive || ctx.draining
}

fn frame<'a>(request: &Request, request_id: &'a RequestId, ctx: &'a Context, close: bool) -> Frame<'a> {
    Frame {
        request_id,
        date: ctx.clock.date(),
        unix_ms: ctx.clock.unix_ms(),
        persistence: if close { Persistence::Closed } else { Persistence::of(request) },
        is_head: request.is_head,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The deadline was taken away while the server was waited for: it has to be set again.
    #[test]
    fn a_wait_for_the_server_begins_the_client_s_time_anew() {
        let mut talk = Conversation::new(0);
        talk.begin(0);
        assert_eq!([talk.wants(), talk.wants()], [Wants::Request, Wants::Unchanged]);
        talk.wait_for_server();
        assert_eq!([talk.wants(), talk.wants()], [Wants::Request, Wants::Unchanged]);
    }
}
