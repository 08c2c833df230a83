//! Event boundaries in a streamed body. Shard thread; pure.
//!
//! The splitter walks over the inputs of one body, in whatever pieces they arrive, and hands each event to the
//! [`EventSink`]. It promises:
//!
//! * the same calls to the sink for every way of cutting the same body;
//! * an event that lies whole in one input is passed where it lies; only one that spans inputs is copied, into the
//!   [`Carry`], and no more of it than `event_bytes_max`;
//! * each event, and each thing that is none but stands where one should, is exactly one call, so that the sink's count
//!   of calls is the index the client knows it by.
//!
//! It finds ends, it does not judge: whether an event is valid JSON is the sink's to say. Only what has no event to show
//! for itself is refused here: see [`EventError`]. Lines are never joined: a line feed ends an event whatever it looks
//! like, so `{"a":1` and `"b":2}` on two lines are two errors and not one event.

use std::ops::ControlFlow;

use super::scan::{ElementSkipper, ObjectScanner};
pub use super::sink::{BodyShape, Carry, CarryFull, EventError, EventSink, Placed};
use super::skeleton::{Met, Skeleton};
use crate::base::Limits;
use crate::json::is_white_space;

/// Why the splitter stopped before the end of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The sink had no room. Feed the rest of the input again when it has.
    NoRoom,
    /// The carry is full. Feed the rest of the input again when it is not.
    CarryFull,
    /// More than `events_per_request_max` events. For good.
    TooMany,
}

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// Bytes of the input that need not be fed again: all, unless it stopped.
    pub consumed: usize,
    /// Why it stopped.
    pub stop: Option<Stop>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the start of a line, or within one whose front is in the carry.
    Line,
    /// In the rest of a line that was refused.
    LineSkip,
    /// Before the body's one value.
    Begin,
    /// In an object, at its brace or with its front in the carry.
    Object,
    /// In the rest of an object that was refused.
    ObjectSkip,
    /// Before an element, the first or one after a comma.
    Element { after_comma: bool },
    /// In an element that was refused, up to the comma or bracket after it.
    ElementSkip,
    /// Before a comma or the end of the array.
    AfterElement,
    /// In an envelope, after its array.
    EnvelopeRest,
    /// After the end of the value.
    End,
    /// In what is ignored, after an error that was told.
    Discard,
    /// The carry holds a whole event that the sink has not taken.
    Ready,
    /// Stopped for good.
    TooMany,
}

/// What is around the object being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Around {
    Nothing,
    Array,
    Envelope,
}

/// Splits one body. See the module text.
#[derive(Clone, Debug)]
pub struct Splitter {
    shape: BodyShape,
    state: State,
    around: Around,
    scanner: ObjectScanner,
    skipper: ElementSkipper,
    /// Of the top-level object of a [`BodyShape::Batch`].
    skeleton: Skeleton,
    /// The object may still turn out to be an envelope.
    probing: bool,
    /// Bytes in the carry.
    carried: usize,
    /// White space was left out of the carry because the line with it is over the limit. It may yet be the line's end.
    left_out: bool,
    seen: u32,
    event_bytes_max: usize,
    events_max: u32,
}

impl Splitter {
    /// A splitter for one body.
    #[must_use]
    pub fn new(shape: BodyShape, limits: &Limits) -> Self {
        Self {
            shape,
            state: if shape == BodyShape::Lines { State::Line } else { State::Begin },
            around: Around::Nothing,
            scanner: ObjectScanner::default(),
            skipper: ElementSkipper::default(),
            skeleton: Skeleton::new(),
            probing: false,
            carried: 0,
            left_out: false,
            seen: 0,
            event_bytes_max: limits.event_bytes_max,
            events_max: limits.events_per_request_max,
        }
    }

    /// Events and refusals so far.
    #[must_use]
    pub fn seen(&self) -> u32 {
        self.seen
    }

    /// The body was one object and is over: its event has a name of its own in the answer.
    #[must_use]
    pub fn was_single(&self) -> bool {
        self.shape != BodyShape::Lines && self.around == Around::Nothing && self.seen == 1
    }

    /// Bytes in the carry: what a waiting body holds besides the splitter.
    #[must_use]
    pub fn carried_bytes(&self) -> usize {
        self.carried
    }

    /// Hands on the events that end in `input`. The carry is this body's alone and starts empty. An empty input is
    /// allowed: it offers the sink again what it had no room for.
    #[inline]
    pub fn feed(&mut self, input: &mut [u8], carry: &mut impl Carry, sink: &mut impl EventSink) -> Fed {
        let mut at = 0;
        let outcome = if self.shape == BodyShape::Lines {
            self.lines(input, &mut at, carry, sink)
        } else {
            self.json(input, &mut at, carry, sink)
        };
        Fed { consumed: at, stop: self.stopped(outcome) }
    }

    /// Ends the body: hands on a last line without a line feed, refuses what is incomplete. May be called again after
    /// [`Stop::NoRoom`].
    ///
    /// # Errors
    /// [`Stop`], if the last event cannot be handed on.
    pub fn finish(&mut self, carry: &mut impl Carry, sink: &mut impl EventSink) -> Result<(), Stop> {
        let outcome = self.end(carry, sink);
        self.stopped(outcome).map_or(Ok(()), Err)
    }

    fn stopped(&mut self, outcome: Result<(), Stop>) -> Option<Stop> {
        let stop = outcome.err()?;
        if stop == Stop::TooMany {
            self.state = State::TooMany;
        }
        Some(stop)
    }

    fn end(&mut self, carry: &mut impl Carry, sink: &mut impl EventSink) -> Result<(), Stop> {
        if self.state == State::Ready {
            self.offer_carried(carry, sink)?;
        }
        match self.state {
            State::Line if self.carried > 0 => self.offer_carried(carry, sink),
            State::Object | State::Element { .. } | State::AfterElement | State::EnvelopeRest => {
                self.refuse(EventError::Truncated, sink)?;
                self.drop_carried(carry);
                self.state = State::Discard;
                Ok(())
            }
            State::TooMany => Err(Stop::TooMany),
            // Nothing is open, or what is open was refused already.
            _ => Ok(()),
        }
    }

    // ---- lines

    #[inline]
    fn lines(
        &mut self,
        input: &mut [u8],
        at: &mut usize,
        carry: &mut impl Carry,
        sink: &mut impl EventSink,
    ) -> Result<(), Stop> {
        match self.state {
            State::Ready => self.offer_carried(carry, sink)?,
            State::TooMany => return Err(Stop::TooMany),
            _ => {}
        }
        if self.state == State::LineSkip || self.carried > 0 {
            let Some(end) = memchr::memchr(b'\n', input) else {
                return self.line_front(input, at, carry, sink);
            };
            self.line_front(&mut input[..end], at, carry, sink)?;
            *at = end + 1;
            if self.state == State::LineSkip {
                self.state = State::Line;
            } else {
                self.offer_carried(carry, sink)?;
            }
        }
        while let Some(bytes) = memchr::memchr(b'\n', &input[*at..]) {
            let line = trim(&mut input[*at..*at + bytes]);
            if !line.is_empty() {
                self.offer(line, sink)?;
            }
            *at += bytes + 1;
        }
        let rest = *at;
        let mut kept = 0;
        let outcome = self.line_front(&mut input[rest..], &mut kept, carry, sink);
        *at += kept;
        outcome
    }

    /// Keeps a part of a line that ends in another input, or somewhere in this one. White space before the line is
    /// not kept, nor is what comes after `event_bytes_max` as long as it is white space.
    fn line_front(
        &mut self,
        part: &mut [u8],
        at: &mut usize,
        carry: &mut impl Carry,
        sink: &mut impl EventSink,
    ) -> Result<(), Stop> {
        if self.state == State::Line {
            let kept = if self.carried == 0 { part.trim_json_start() } else { &*part };
            let room = self.event_bytes_max - self.carried;
            if kept.len() <= room && !self.left_out {
                self.carry_on(kept, carry)?;
            } else {
                let solid = kept.trim_json_end();
                if solid.len() > room || (self.left_out && !solid.is_empty()) {
                    self.refuse(EventError::TooLong, sink)?;
                    self.drop_carried(carry);
                    self.state = State::LineSkip;
                } else {
                    self.carry_on(solid, carry)?;
                    self.left_out = true;
                }
            }
        }
        *at = part.len();
        Ok(())
    }

    // ---- JSON

    fn json(
        &mut self,
        input: &mut [u8],
        at: &mut usize,
        carry: &mut impl Carry,
        sink: &mut impl EventSink,
    ) -> Result<(), Stop> {
        if self.state == State::Ready {
            self.offer_carried(carry, sink)?;
        }
        while *at < input.len() {
            match self.state {
                State::Object => {
                    if self.object(&mut input[*at..], at, carry, sink)?.is_break() {
                        return Ok(());
                    }
                }
                State::ObjectSkip => match self.scanner.find_end(&input[*at..]) {
                    Some(bytes) => {
                        *at += bytes;
                        self.state = self.after_object();
                    }
                    None => *at = input.len(),
                },
                State::ElementSkip => match self.skipper.find_end(&input[*at..]) {
                    Some(bytes) => {
                        *at += bytes;
                        self.state = State::AfterElement;
                    }
                    None => *at = input.len(),
                },
                State::EnvelopeRest => self.envelope_rest(&input[*at..], at, sink)?,
                State::Discard => *at = input.len(),
                State::TooMany => return Err(Stop::TooMany),
                State::Begin | State::Element { .. } | State::AfterElement | State::End => {
                    if is_white_space(input[*at]) {
                        *at += 1;
                    } else {
                        *at += self.between(input[*at], sink)?;
                    }
                }
                State::Line | State::LineSkip | State::Ready => unreachable!("{:?} in JSON", self.state),
            }
        }
        if self.state == State::TooMany { Err(Stop::TooMany) } else { Ok(()) }
    }

    /// One byte between objects that is no white space. Returns how many bytes it took: 1, or 0 if what begins here is
    /// for another state.
    #[inline]
    fn between(&mut self, byte: u8, sink: &mut impl EventSink) -> Result<usize, Stop> {
        match (self.state, byte) {
            (State::Begin, b'{') => {
                self.probing = self.shape == BodyShape::Batch;
                self.skeleton = Skeleton::new();
                self.start_object();
                Ok(0)
            }
            (State::Begin, b'[') => {
                self.around = Around::Array;
                self.state = State::Element { after_comma: false };
                Ok(1)
            }
            (State::Begin, _) => self.give_up(EventError::NotJson, sink),
            (State::Element { .. }, b'{') => {
                self.start_object();
                Ok(0)
            }
            (State::Element { after_comma }, b']') => {
                if after_comma {
                    self.refuse(EventError::EmptyElement, sink)?;
                }
                self.end_array();
                Ok(1)
            }
            (State::Element { .. }, b',') => {
                self.refuse(EventError::EmptyElement, sink)?;
                self.state = State::Element { after_comma: true };
                Ok(1)
            }
            (State::Element { .. }, _) => self.skip_element(EventError::NotAnObject, sink),
            (State::AfterElement, b',') => {
                self.state = State::Element { after_comma: true };
                Ok(1)
            }
            (State::AfterElement, b']') => {
                self.end_array();
                Ok(1)
            }
            (State::AfterElement, _) => self.skip_element(EventError::MissingComma, sink),
            _ => self.give_up(EventError::TrailingData, sink),
        }
    }

    fn start_object(&mut self) {
        self.scanner = ObjectScanner::default();
        self.state = State::Object;
    }

    fn end_array(&mut self) {
        self.state = if self.around == Around::Envelope { State::EnvelopeRest } else { State::End };
    }

    fn skip_element(&mut self, error: EventError, sink: &mut impl EventSink) -> Result<usize, Stop> {
        self.refuse(error, sink)?;
        self.skipper = ElementSkipper::default();
        self.state = State::ElementSkip;
        Ok(0)
    }

    fn give_up(&mut self, error: EventError, sink: &mut impl EventSink) -> Result<usize, Stop> {
        self.refuse(error, sink)?;
        self.state = State::Discard;
        Ok(1)
    }

    /// `bytes` begin with an object, or go on with one whose front is in the carry. Breaks at the end of the input.
    #[inline]
    fn object(
        &mut self,
        bytes: &mut [u8],
        at: &mut usize,
        carry: &mut impl Carry,
        sink: &mut impl EventSink,
    ) -> Result<ControlFlow<()>, Stop> {
        let room = self.event_bytes_max - self.carried;
        // If the carry is full, the same bytes come again and must be looked at from the same place.
        let scanner = self.scanner;
        let skeleton = self.probing.then_some(self.skeleton);
        if self.probing {
            match self.skeleton.feed(bytes) {
                Met::Events(bracket) if bracket < room => {
                    self.drop_carried(carry);
                    self.probing = false;
                    self.around = Around::Envelope;
                    self.state = State::Element { after_comma: false };
                    *at += bracket + 1;
                    return Ok(ControlFlow::Continue(()));
                }
                Met::Nothing => {}
                // An event like any other: too long, broken, or without an array of events.
                Met::Events(_) | Met::End(_) | Met::Fault => self.probing = false,
            }
        }
        let end = self.scanner.find_end(bytes);
        let part = end.unwrap_or(bytes.len());
        if part > room {
            self.refuse(EventError::TooLong, sink)?;
            self.drop_carried(carry);
            self.probing = false;
            self.state = if end.is_some() { self.after_object() } else { State::ObjectSkip };
            *at += part;
        } else if end.is_some() && self.carried == 0 {
            if let Err(stop) = self.offer(&mut bytes[..part], sink) {
                self.state = self.before_object();
                return Err(stop);
            }
            self.state = self.after_object();
            *at += part;
        } else {
            if let Err(stop) = self.carry_on(&bytes[..part], carry) {
                self.scanner = scanner;
                if let Some(skeleton) = skeleton {
                    self.skeleton = skeleton;
                    self.probing = true;
                }
                return Err(stop);
            }
            *at += part;
            if end.is_some() {
                self.offer_carried(carry, sink)?;
            }
        }
        Ok(if end.is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    }

    fn envelope_rest(&mut self, bytes: &[u8], at: &mut usize, sink: &mut impl EventSink) -> Result<(), Stop> {
        match self.skeleton.feed(bytes) {
            Met::Nothing => *at += bytes.len(),
            Met::End(end) => {
                *at += end;
                self.state = State::End;
            }
            Met::Events(_) => *at += self.give_up(EventError::SecondEvents, sink)?,
            Met::Fault => *at += self.give_up(EventError::BrokenEnvelope, sink)?,
        }
        Ok(())
    }

    /// Where an object that could not be handed on is met again.
    fn before_object(&self) -> State {
        match self.around {
            Around::Nothing => State::Begin,
            Around::Array | Around::Envelope => State::Element { after_comma: true },
        }
    }

    fn after_object(&self) -> State {
        match self.around {
            _ if self.shape == BodyShape::Lines => State::Line,
            Around::Nothing => State::End,
            Around::Array | Around::Envelope => State::AfterElement,
        }
    }

    // ---- the carry and the sink

    fn carry_on(&mut self, bytes: &[u8], carry: &mut impl Carry) -> Result<(), Stop> {
        if !bytes.is_empty() {
            carry.extend(bytes).map_err(|CarryFull| Stop::CarryFull)?;
            self.carried += bytes.len();
        }
        assert!(self.carried <= self.event_bytes_max, "the carry holds one event at most");
        Ok(())
    }

    fn drop_carried(&mut self, carry: &mut impl Carry) {
        if self.carried > 0 {
            carry.clear();
        }
        self.carried = 0;
        self.left_out = false;
    }

    /// Offers the event in the carry, which is whole; waits with it if the sink has no room.
    fn offer_carried(&mut self, carry: &mut impl Carry, sink: &mut impl EventSink) -> Result<(), Stop> {
        self.state = State::Ready;
        debug_assert_eq!(carry.as_mut_slice().len(), self.carried);
        self.offer(trim(carry.as_mut_slice()), sink)?;
        self.drop_carried(carry);
        self.state = self.after_object();
        Ok(())
    }

    /// Offers an event that lies where it came. Of no consequence for the state.
    #[inline]
    fn offer(&mut self, event: &mut [u8], sink: &mut impl EventSink) -> Result<(), Stop> {
        if event.len() > self.event_bytes_max {
            return self.refuse(EventError::TooLong, sink);
        }
        if self.seen == self.events_max {
            return Err(Stop::TooMany);
        }
        match sink.event(event) {
            Placed::NoRoom => Err(Stop::NoRoom),
            Placed::Taken => {
                self.seen += 1;
                Ok(())
            }
        }
    }

    #[cold]
    fn refuse(&mut self, error: EventError, sink: &mut impl EventSink) -> Result<(), Stop> {
        if self.seen == self.events_max {
            return Err(Stop::TooMany);
        }
        self.seen += 1;
        sink.refuse(error);
        Ok(())
    }
}

/// JSON white space cut off both ends, in place.
#[inline]
fn trim(bytes: &mut [u8]) -> &mut [u8] {
    let end = bytes.trim_json_end().len();
    let start = end - bytes[..end].trim_json_start().len();
    &mut bytes[start..end]
}

/// `trim_ascii` would take form feeds too, which JSON does not.
trait TrimJson {
    fn trim_json_start(&self) -> &[u8];
    fn trim_json_end(&self) -> &[u8];
}

impl TrimJson for [u8] {
    #[inline]
    fn trim_json_start(&self) -> &[u8] {
        let start = self.iter().position(|byte| !is_white_space(*byte)).unwrap_or(self.len());
        &self[start..]
    }

    #[inline]
    fn trim_json_end(&self) -> &[u8] {
        let end = self.iter().rposition(|byte| !is_white_space(*byte)).map_or(0, |last| last + 1);
        &self[..end]
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
