//! One request's body on its way from received bytes to placed events: framing → decompression → event boundaries →
//! sink. Shard thread only; a state machine over slices that may stop at any byte and go on later.
//!
//! It stops when the bytes are used up, when the log buffer has no room, and when this turn has decompressed enough. In the
//! last two cases it has consumed what was placed and nothing else, whatever the stage: bytes given back go back through
//! the framing, and decompressed bytes that found no room are kept aside.
//!
//! Decompressors are few, and a client may take its time. So up to [`COMPRESSED_KEPT_BYTES_MAX`] of a compressed body are
//! kept as they come, and a decompressor is taken once the body is whole: one is set apart for those, and no slow client
//! holds it. Such a body is decompressed in one go. If it finds no room in its middle it waits with its decompressor, and no
//! other of its kind takes one before it goes on: so the one set apart is enough. A longer body takes one of the others and
//! holds it until its end.
//!
//! A few hundred bytes can decompress to the longest body. A turn begins no more of that than
//! [`DECODED_PER_TURN_MAX`], or a client that pipelines such requests would have the shard to itself.

use std::cell::RefCell;
use std::ops::ControlFlow;

use super::answer::{REFUSALS_LISTED_MAX, Reason, Refusal};
use super::arena::Pool;
use super::code::{ErrorCode, HttpError};
use super::context::{Context, ErrorList, Kept, Shelf};
use super::decode::{DecodeError, Decoder};
use super::framing::{BodyFraming, Step};
use super::place::{Placer, Unplaced, judge, write_record};
use super::refusal::{DECODERS_EXHAUSTED, POOL_EXHAUSTED};
use super::request::{Encoding, Framing, Request, Route};
use super::split::{BodyShape, Carry, CarryFull, EventError, EventSink, Placed, Splitter, Stop};
use crate::base::{CHUNK_BYTES_MAX, KIB, Limits, MIB, Position, Seq, TenantId};
use crate::handoff::CHUNK_HEADER_BYTES;
use crate::json::{Scan, Validator};
use crate::record::RECORD_HEADER_BYTES;

/// Decompressed bytes handed on at a time: small enough to stay in the first-level caches with the parser's own data.
const WINDOW_BYTES_MAX: usize = 32 * KIB;
const WINDOW_BYTES_MIN: usize = 256;
/// JSON shrinks to a tenth or so. A window in proportion to its input keeps a body that comes byte by byte from costing
/// a whole window for each.
const WINDOW_PER_INPUT: usize = 16;
/// Compressed bytes kept until the body is whole: a thousand events of the usual size fit. Of a longer body they are
/// decompressed as they come.
pub const COMPRESSED_KEPT_BYTES_MAX: usize = 64 * KIB;
/// They are kept only while no more than so many quarters of the pool are out: the rest is for events and answers.
const COMPRESSED_QUARTERS: usize = 2;
/// Once a turn has decompressed this much, what else there is waits for the next one: some milliseconds of JSON.
pub const DECODED_PER_TURN_MAX: u64 = 4 * MIB as u64;
/// An atomic batch is placed in one piece, so it must fit one chunk.
const ATOMIC_BYTES_MAX: usize = CHUNK_BYTES_MAX - CHUNK_HEADER_BYTES;
/// An `event_id` longer than this is answered by the event's position instead.
const EVENT_ID_BYTES_MAX: usize = 128;

/// What is done with the events of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// Placed one by one as they are found.
    Store,
    /// Collected, and placed together at the end if all are valid.
    StoreTogether,
    /// Nothing: the body is one JSON value to be sent back.
    Echo,
    /// Nothing: the request has been answered.
    Skip,
}

/// How far [`Body::advance`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The input is used up; the body goes on.
    More,
    /// The log buffer has no room; call again with the bytes not consumed.
    NoRoom,
    /// This turn has decompressed enough; call again in the next one with the bytes not consumed.
    NextTurn,
    /// The body is over and its events are placed.
    Done,
}

/// Whether to go on, or how far [`Body::advance`] came.
type Flow = ControlFlow<Progress>;
const CONTINUE: Flow = ControlFlow::Continue(());
const NO_ROOM: Flow = ControlFlow::Break(Progress::NoRoom);
const NEXT_TURN: Flow = ControlFlow::Break(Progress::NextTurn);

/// What became of a body's events.
#[derive(Debug, Default)]
pub struct Tally {
    /// Events placed.
    pub accepted: u32,
    /// Events refused.
    pub rejected: u32,
    /// Position of the first event placed.
    pub first: Option<Position>,
    /// Chunk of the last event placed.
    pub last_seq: Seq,
    /// The first errors, if there were any.
    pub errors: Option<ErrorList>,
    /// The first event's own `event_id`.
    pub event_id: EventId,
}

/// A short `event_id`, or none.
#[derive(Clone, Copy, Debug)]
pub struct EventId {
    len: u8,
    bytes: [u8; EVENT_ID_BYTES_MAX],
}

impl Default for EventId {
    fn default() -> Self {
        Self { len: 0, bytes: [0; EVENT_ID_BYTES_MAX] }
    }
}

impl EventId {
    fn take(&mut self, id: Option<&str>) {
        self.len = 0;
        if let Some(id) = id.filter(|id| id.len() <= EVENT_ID_BYTES_MAX) {
            self.bytes[..id.len()].copy_from_slice(id.as_bytes());
            self.len = id.len() as u8;
        }
    }

    /// The id; `None` if the event had none, an empty one or one over 128 bytes.
    #[must_use]
    pub fn get(&self) -> Option<&str> {
        let id = std::str::from_utf8(&self.bytes[..usize::from(self.len)]).expect("copied whole from a str");
        (!id.is_empty()).then_some(id)
    }
}

/// See the module text.
pub struct Body {
    target: Target,
    framing: BodyFraming,
    encoding: Encoding,
    decoder: Option<Decoder>,
    /// Compressed bytes that wait for the end of a short body, and how many of them are decompressed.
    compressed: Kept,
    compressed_used: usize,
    /// Decompressed bytes so far, against the limit.
    decoded_bytes: u64,
    /// Decompressed bytes that found no room, and how many of them have since.
    backlog: Kept,
    backlog_used: usize,
    splitter: Splitter,
    /// An event whose end has not arrived; the whole body of an echo.
    kept: Kept,
    /// Records of an atomic batch.
    together: Kept,
    framing_done: bool,
    /// Whose the events are.
    tenant: TenantId,
    /// What became of the events so far.
    pub tally: Tally,
}

impl Body {
    /// A body that is over.
    #[must_use]
    pub fn none() -> Self {
        let limits = Limits::default();
        Self {
            target: Target::Skip,
            framing: BodyFraming::new(Framing::None, 0).expect("nothing is within every limit"),
            encoding: Encoding::Identity,
            decoder: None,
            compressed: Kept::default(),
            compressed_used: 0,
            decoded_bytes: 0,
            backlog: Kept::default(),
            backlog_used: 0,
            splitter: Splitter::new(BodyShape::Lines, &limits),
            kept: Kept::default(),
            together: Kept::default(),
            framing_done: true,
            tenant: TenantId::default(),
            tally: Tally::default(),
        }
    }

    /// Begins the body of `request`, whose events are `tenant`'s.
    ///
    /// # Errors
    /// 413 for an announced length over the limit, 503 if that length needs a decoder to itself and all are in use.
    pub fn begin(&mut self, request: &Request, tenant: TenantId, ctx: &mut Context) -> Result<(), HttpError> {
        self.tenant = tenant;
        self.framing = BodyFraming::new(request.framing, ctx.limits.body_bytes_max)?;
        self.framing_done = false;
        self.encoding = request.encoding;
        self.decoded_bytes = 0;
        self.tally = Tally::default();
        self.target = match request.route {
            Route::Events | Route::EventsBatch if request.atomic => Target::StoreTogether,
            Route::Events | Route::EventsBatch => Target::Store,
            Route::Echo => Target::Echo,
            _ => Target::Skip,
        };
        if let Some(shape) = BodyShape::of(request.route, request.content) {
            self.splitter = Splitter::new(shape, &ctx.limits);
        }
        let is_long = matches!(request.framing, Framing::Length(bytes) if bytes > COMPRESSED_KEPT_BYTES_MAX as u64);
        if is_long && self.is_decoded() && !ctx.has_decoder(self.encoding) {
            return Err(DECODERS_EXHAUSTED);
        }
        Ok(())
    }

    /// Whether what the client sends is compressed and of interest.
    fn is_decoded(&self) -> bool {
        self.target != Target::Skip && self.encoding != Encoding::Identity
    }

    /// Drops what is still to come of the body: the request has been answered.
    pub fn skip_rest(&mut self, ctx: &mut Context) {
        self.target = Target::Skip;
        self.release(ctx);
    }

    /// Bytes that were decompressed so far.
    #[must_use]
    pub fn decoded_bytes(&self) -> u64 {
        self.decoded_bytes
    }

    /// The body was one object.
    #[must_use]
    pub fn was_single(&self) -> bool {
        self.splitter.was_single()
    }

    /// The body of an echo, once it is done.
    #[must_use]
    pub fn echoed(&self) -> &[u8] {
        self.kept.bytes()
    }

    /// Gives back everything borrowed from the shard.
    pub fn release(&mut self, ctx: &mut Context) {
        for kept in [&mut self.kept, &mut self.together, &mut self.backlog, &mut self.compressed] {
            kept.clear(&mut ctx.pool);
        }
        (self.backlog_used, self.compressed_used) = (0, 0);
        self.release_decoder(ctx);
        if let Some(mut errors) = self.tally.errors.take() {
            errors.0.clear();
            ctx.error_lists.give_back(errors);
        }
    }

    fn release_decoder(&mut self, ctx: &mut Context) {
        if let Some(decoder) = self.decoder.take() {
            ctx.give_back_decoder(self.encoding, decoder);
        }
    }

    /// Takes the next bytes of the connection. Returns how many were consumed and how far that came.
    ///
    /// # Errors
    /// What is to be answered instead of reading on: broken framing or compression (400), a limit (413, 400
    /// `BATCH_TOO_LARGE`), the pool (503). Events placed before stay placed and are not acknowledged.
    pub fn advance(&mut self, input: &mut [u8], ctx: &mut Context) -> Result<(usize, Progress), HttpError> {
        if self.holds_back()
            && let ControlFlow::Break(stop) = self.drain(ctx)?
        {
            return Ok((0, stop));
        }
        let mut consumed = 0;
        while !self.framing_done {
            match self.framing.next(&input[consumed..])? {
                Step::NeedMore { consumed: used } => return Ok((consumed + used, Progress::More)),
                Step::Done { consumed: used } => {
                    consumed += used;
                    self.framing_done = true;
                }
                Step::Data { skip, len } => {
                    let data = consumed + skip..consumed + skip + len;
                    let (used, stop) = self.take_data(&mut input[data.clone()], ctx)?;
                    consumed = data.start + used;
                    if let ControlFlow::Break(stop) = stop {
                        self.framing.give_back(len - used);
                        return Ok((consumed, stop));
                    }
                    if !self.framing.is_done() && consumed == input.len() {
                        return Ok((consumed, Progress::More));
                    }
                }
            }
        }
        if self.holds_back()
            && let ControlFlow::Break(stop) = self.drain(ctx)?
        {
            return Ok((consumed, stop));
        }
        Ok((consumed, if self.finish(ctx)? { Progress::Done } else { Progress::NoRoom }))
    }

    /// How many of the bytes were used, and why not all were.
    #[inline]
    fn take_data(&mut self, data: &mut [u8], ctx: &mut Context) -> Result<(usize, Flow), HttpError> {
        if self.target == Target::Skip {
            return Ok((data.len(), CONTINUE));
        }
        if !self.is_decoded() {
            // The last bytes of the body are known to be the last: an event that ends with them need not be kept aside
            // to see whether it goes on.
            let used = self.take_plain(data, self.framing.is_done(), ctx)?;
            return Ok((used, if used < data.len() { NO_ROOM } else { CONTINUE }));
        }
        self.take_compressed(data, ctx)
    }

    fn take_compressed(&mut self, data: &[u8], ctx: &mut Context) -> Result<(usize, Flow), HttpError> {
        if self.decoder.is_none() {
            let kept_bytes = self.compressed.bytes().len() + data.len();
            let waits = !self.framing.is_done() && kept_bytes <= COMPRESSED_KEPT_BYTES_MAX;
            if waits && self.compressed.extend_spare(&mut ctx.pool, data, COMPRESSED_QUARTERS) {
                return Ok((data.len(), CONTINUE));
            }
            if let stop @ ControlFlow::Break(_) = self.take_decoder(ctx, waits)? {
                return Ok((0, stop));
            }
            if let stop @ ControlFlow::Break(_) = self.drain(ctx)? {
                return Ok((0, stop));
            }
        } else if !self.framing.is_done() && ctx.decoded_in_turn >= DECODED_PER_TURN_MAX {
            // Its end is not put off: it may hold the decompressor that is set apart.
            return Ok((0, NEXT_TURN));
        }
        let used = self.decode(data, ctx)?;
        Ok((used, if self.backlog.is_empty() { CONTINUE } else { NO_ROOM }))
    }

    /// Takes a decompressor, unless it is better to wait before one is held. `is_short`: the body is not whole, and not
    /// too long to wait for its end, if only there were memory.
    fn take_decoder(&mut self, ctx: &mut Context, is_short: bool) -> Result<Flow, HttpError> {
        let is_whole = self.framing.is_done();
        if is_whole && ctx.room_is_awaited {
            return Ok(NO_ROOM);
        }
        if ctx.decoded_in_turn >= DECODED_PER_TURN_MAX {
            return Ok(NEXT_TURN);
        }
        let exhausted = if is_short { POOL_EXHAUSTED } else { DECODERS_EXHAUSTED };
        self.decoder = Some(ctx.take_decoder(self.encoding, is_whole).ok_or(exhausted)?);
        Ok(CONTINUE)
    }

    fn take_plain(&mut self, data: &mut [u8], is_last: bool, ctx: &mut Context) -> Result<usize, HttpError> {
        if self.target == Target::Echo {
            if self.kept.bytes().len() + data.len() > ctx.limits.event_bytes_max {
                return Err(HttpError {
                    code: ErrorCode::PayloadTooLarge,
                    message: "an echo is limited to the size of one event (event_bytes_max)",
                });
            }
            return if self.kept.extend(&mut ctx.pool, data) { Ok(data.len()) } else { Err(POOL_EXHAUSTED) };
        }
        let fed = self.with_sink(ctx, |splitter, carry, sink| {
            let fed = if is_last { splitter.feed_last(data, carry, sink) } else { splitter.feed(data, carry, sink) };
            (fed.consumed, fed.stop)
        });
        outcome(fed.1).map(|()| fed.0)
    }

    fn decode(&mut self, data: &[u8], ctx: &mut Context) -> Result<usize, HttpError> {
        let mut turn = std::mem::take(&mut ctx.turn);
        let window = (data.len() * WINDOW_PER_INPUT).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        let result = self.decode_into(turn.alloc_slice_fill_copy(window, 0), data, ctx);
        turn.reset();
        ctx.turn = turn;
        result
    }

    fn decode_into(&mut self, window: &mut [u8], data: &[u8], ctx: &mut Context) -> Result<usize, HttpError> {
        let mut used = 0;
        loop {
            let decoder = self.decoder.as_mut().expect("a compressed body has a decoder");
            let decoded = decoder.decode(&data[used..], window).map_err(HttpError::from)?;
            used += decoded.consumed;
            self.decoded_bytes += decoded.produced as u64;
            ctx.decoded_in_turn += decoded.produced as u64;
            if self.decoded_bytes > ctx.limits.body_bytes_max {
                return Err(HttpError {
                    code: ErrorCode::PayloadTooLarge,
                    message: "the decompressed body is over the limit (body_bytes_max)",
                });
            }
            let fresh = &mut window[..decoded.produced];
            let taken = self.take_plain(fresh, false, ctx)?;
            if taken < fresh.len() {
                return if self.backlog.extend(&mut ctx.pool, &fresh[taken..]) {
                    Ok(used)
                } else {
                    Err(POOL_EXHAUSTED)
                };
            }
            // A full window may hide more output behind it, even when all input is used.
            if used == data.len() && decoded.produced < window.len() {
                return Ok(used);
            }
        }
    }

    /// Whether anything was kept aside: nothing of most bodies.
    #[inline]
    fn holds_back(&self) -> bool {
        !self.backlog.is_empty() || !self.compressed.is_empty()
    }

    /// Hands on what was kept aside, as far as its time has come; breaks where it has to wait.
    fn drain(&mut self, ctx: &mut Context) -> Result<Flow, HttpError> {
        if let stop @ ControlFlow::Break(_) = self.drain_backlog(ctx)? {
            return Ok(stop);
        }
        if self.compressed.is_empty() || (self.decoder.is_none() && !self.framing_done) {
            return Ok(CONTINUE);
        }
        if self.decoder.is_none()
            && let stop @ ControlFlow::Break(_) = self.take_decoder(ctx, false)?
        {
            return Ok(stop);
        }
        let compressed = std::mem::take(&mut self.compressed);
        let used = self.decode(&compressed.bytes()[self.compressed_used..], ctx);
        self.compressed = compressed;
        self.compressed_used += used?;
        if self.compressed_used == self.compressed.bytes().len() {
            self.compressed.clear(&mut ctx.pool);
            self.compressed_used = 0;
        }
        Ok(if self.backlog.is_empty() { CONTINUE } else { NO_ROOM })
    }

    fn drain_backlog(&mut self, ctx: &mut Context) -> Result<Flow, HttpError> {
        if self.backlog.is_empty() {
            return Ok(CONTINUE);
        }
        let mut backlog = std::mem::take(&mut self.backlog);
        let from = self.backlog_used;
        let taken = self.take_plain(&mut backlog.bytes_mut()[from..], false, ctx);
        self.backlog = backlog;
        self.backlog_used += taken?;
        if self.backlog_used < self.backlog.bytes().len() {
            return Ok(NO_ROOM);
        }
        self.backlog.clear(&mut ctx.pool);
        self.backlog_used = 0;
        Ok(CONTINUE)
    }

    fn end_decoding(&mut self, ctx: &mut Context) -> Result<(), HttpError> {
        if self.decoder.as_ref().is_none_or(|decoder| !decoder.is_complete()) {
            return Err(DecodeError::Truncated.into());
        }
        // What follows may have to wait, and needs none.
        self.release_decoder(ctx);
        self.encoding = Encoding::Identity;
        Ok(())
    }

    /// The body is over: places what is left. False if there is no room for it yet.
    #[inline]
    fn finish(&mut self, ctx: &mut Context) -> Result<bool, HttpError> {
        if self.is_decoded() {
            self.end_decoding(ctx)?;
        }
        if !matches!(self.target, Target::Store | Target::StoreTogether) {
            return Ok(true);
        }
        let stop = self.with_sink(ctx, |splitter, carry, sink| splitter.finish(carry, sink).err());
        if stop == Some(Stop::NoRoom) {
            return Ok(false);
        }
        outcome(stop)?;
        if self.target == Target::StoreTogether && self.tally.rejected == 0 && self.tally.accepted > 0 {
            let records = self.together.bytes();
            match ctx.placer.place_records(records, self.tally.accepted, ctx.clock.unix_ns()) {
                Ok(first) => {
                    (self.tally.first, self.tally.last_seq) = (Some(first), first.seq);
                    let bytes = records.len() - RECORD_HEADER_BYTES * self.tally.accepted as usize;
                    ctx.metrics().events.add(self.tally.accepted.into());
                    ctx.metrics().event_bytes.add(bytes as u64);
                }
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn with_sink<R>(
        &mut self,
        ctx: &mut Context,
        feed: impl FnOnce(&mut Splitter, &mut KeptCarry<'_, '_>, &mut Sink<'_, '_>) -> R,
    ) -> R {
        let unix_ns = ctx.clock.unix_ns();
        let metrics = &ctx.server.shards[usize::from(ctx.shard.0)];
        let before = (self.tally.accepted, self.tally.rejected);
        let together = self.target == Target::StoreTogether;
        let pool = RefCell::new(&mut ctx.pool);
        let mut carry = KeptCarry { kept: &mut self.kept, pool: &pool };
        let mut sink = Sink {
            placer: &mut ctx.placer,
            error_lists: &mut ctx.error_lists,
            tally: &mut self.tally,
            together: together.then_some(&mut self.together),
            tenant: self.tenant,
            pool: &pool,
            unix_ns,
            event_bytes: 0,
        };
        let result = feed(&mut self.splitter, &mut carry, &mut sink);
        let event_bytes = sink.event_bytes;
        if !together {
            metrics.events.add((self.tally.accepted - before.0).into());
            metrics.event_bytes.add(event_bytes);
        }
        metrics.events_rejected.add((self.tally.rejected - before.1).into());
        result
    }
}

/// What a stop of the splitter means for the request; having no room is none of its faults.
fn outcome(stop: Option<Stop>) -> Result<(), HttpError> {
    match stop {
        None | Some(Stop::NoRoom) => Ok(()),
        Some(Stop::CarryFull) => Err(POOL_EXHAUSTED),
        Some(Stop::TooMany) => Err(HttpError {
            code: ErrorCode::BatchTooLarge,
            message: "more events than one request may hold (events_per_request_max): split the batch",
        }),
    }
}

struct KeptCarry<'a, 'p> {
    kept: &'a mut Kept,
    pool: &'a RefCell<&'p mut Pool>,
}

impl Carry for KeptCarry<'_, '_> {
    fn extend(&mut self, bytes: &[u8]) -> Result<(), CarryFull> {
        if self.kept.extend(&mut self.pool.borrow_mut(), bytes) { Ok(()) } else { Err(CarryFull) }
    }

    fn as_slice(&self) -> &[u8] {
        self.kept.bytes()
    }

    fn clear(&mut self) {
        self.kept.clear(&mut self.pool.borrow_mut());
    }
}

struct Sink<'a, 'p> {
    placer: &'a mut Placer,
    error_lists: &'a mut Shelf<ErrorList>,
    tally: &'a mut Tally,
    together: Option<&'a mut Kept>,
    tenant: TenantId,
    pool: &'a RefCell<&'p mut Pool>,
    unix_ns: u64,
    event_bytes: u64,
}

impl Sink<'_, '_> {
    fn reject(&mut self, reason: Reason) {
        let index = self.tally.accepted + self.tally.rejected;
        self.tally.rejected += 1;
        if self.tally.errors.is_none() {
            self.tally.errors = self.error_lists.take(ErrorList::default);
        }
        if let Some(errors) = self.tally.errors.as_mut().filter(|errors| errors.0.len() < REFUSALS_LISTED_MAX) {
            errors.0.push(Refusal { index, reason });
        }
    }

    fn place_together(&mut self, event: &[u8], scan: Option<Scan<'_>>) {
        let together = self.together.as_mut().expect("asked only for an atomic batch");
        let mut valid = match judge(self.placer.validator(), event, scan) {
            Ok(valid) => valid,
            Err(error) => return self.reject(Reason::Json(error)),
        };
        let may_have_line_ends = valid.may_have_line_ends();
        if self.tally.accepted == 0 {
            self.tally.event_id.take(valid.string_field("event_id"));
        }
        if self.tally.rejected == 0 {
            let bytes = RECORD_HEADER_BYTES + event.len();
            let record = if together.bytes().len() + bytes > ATOMIC_BYTES_MAX {
                None
            } else {
                together.extend_by(&mut self.pool.borrow_mut(), bytes)
            };
            let Some(record) = record else { return self.reject(Reason::Event(EventError::BatchTooLong)) };
            write_record(record, event, self.tenant, may_have_line_ends);
        }
        // A batch that is refused already stores nothing; its other errors are still worth telling.
        self.tally.accepted += 1;
    }
}

impl EventSink for Sink<'_, '_> {
    #[inline]
    fn validator(&mut self) -> &mut Validator {
        self.placer.validator()
    }

    #[inline]
    fn events(&mut self, events: &[Scan<'_>]) -> u32 {
        // The first of a request says more than that it is there: its position, its id.
        if self.tally.accepted == 0 || self.together.is_some() {
            return 0;
        }
        let (count, bytes) = self.placer.place_proven(events, self.tenant);
        if count > 0 {
            self.tally.last_seq = self.placer.open_seq();
            self.tally.accepted += count;
            self.event_bytes += bytes as u64;
        }
        count
    }

    #[inline]
    fn event(&mut self, event: &[u8], scan: Option<Scan<'_>>) -> Placed {
        if self.together.is_some() {
            self.place_together(event, scan);
            return Placed::Taken;
        }
        let is_first = self.tally.accepted == 0;
        let event_id = &mut self.tally.event_id;
        let placed = self.placer.place(event, scan, self.tenant, self.unix_ns, |valid| {
            if is_first {
                event_id.take(valid.string_field("event_id"));
            }
        });
        match placed {
            Ok(position) => {
                if is_first {
                    self.tally.first = Some(position);
                }
                self.tally.last_seq = position.seq;
                self.tally.accepted += 1;
                self.event_bytes += event.len() as u64;
            }
            Err(Unplaced::Invalid(error)) => self.reject(Reason::Json(error)),
            Err(Unplaced::NoRoom) => return Placed::NoRoom,
        }
        Placed::Taken
    }

    fn refuse(&mut self, error: EventError) {
        self.reject(Reason::Event(error));
    }
}
