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
//! It knows where events end, it does not judge: whether an event is valid JSON is the sink's to say. An event that lies
//! whole in one input is looked at once: the sink's validator finds its end and sees the event on the way. Only what has no event to show
//! for itself is refused here: see [`EventError`]. Lines are never joined: a line feed ends an event whatever it looks
//! like, so `{"a":1` and `"b":2}` on two lines are two errors and not one event. And a JSON body that begins with a brace
//! and is no envelope is one event up to its last byte: what follows the object makes the event invalid, and is not a
//! reason to take half of the body.

use std::ops::ControlFlow;

use super::scan::{ElementSkipper, ObjectScanner};
pub use super::sink::{BodyShape, Carry, CarryFull, EventError, EventSink, Placed};
use super::skeleton::{Met, Skeleton};
use crate::base::Limits;
use crate::json::{Lines, Scan, is_white_space, trim_end, trim_start};

/// What an envelope's key looks like. See [`super::skeleton`].
const ENVELOPE_KEY: &[u8] = b"\"events\"";

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
    /// In an object that may be an envelope, at its brace or with its front in the carry.
    Probe,
    /// In a body that is one event, at its brace or with its front in the carry.
    Whole,
    /// In an element that is an object, at its brace or with its front in the carry.
    Object,
    /// In the rest of such an object that was refused.
    ObjectSkip,
    /// Before an element, the first or one after a comma.
    Element { after_comma: bool },
    /// In an element that was refused, up to the comma or bracket after it.
    ElementSkip,
    /// Before a comma or the end of the array.
    AfterElement,
    /// In an envelope, after its array.
    EnvelopeRest,
    /// After the end of the array or envelope.
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
    skeleton: Skeleton,
    /// Bytes in the carry.
    carried: usize,
    /// White space was left out of the carry because the event with it is over the limit. It may yet follow the event.
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
    pub fn feed(&mut self, input: &[u8], carry: &mut impl Carry, sink: &mut impl EventSink) -> Fed {
        let mut at = 0;
        let outcome = self.go_on(input, &mut at, false, carry, sink);
        Fed { consumed: at, stop: self.stopped(outcome) }
    }

    /// [`Splitter::feed`] and [`Splitter::finish`] at once, for an input known to be the body's last: what ends with the
    /// body is then passed where it lies. Without a stop the body is finished; after one, the rest is the last input.
    #[inline]
    pub fn feed_last(&mut self, input: &[u8], carry: &mut impl Carry, sink: &mut impl EventSink) -> Fed {
        let mut at = 0;
        let outcome = self.go_on(input, &mut at, true, carry, sink).and_then(|()| self.end(carry, sink));
        Fed { consumed: at, stop: self.stopped(outcome) }
    }

    /// Ends the body: hands on what ends with it, refuses what is incomplete. May be called again after
    /// [`Stop::NoRoom`], and after the end, when it does nothing.
    ///
    /// # Errors
    /// [`Stop`], if the last event cannot be handed on.
    pub fn finish(&mut self, carry: &mut impl Carry, sink: &mut impl EventSink) -> Result<(), Stop> {
        let outcome = self.end(carry, sink);
        self.stopped(outcome).map_or(Ok(()), Err)
    }

    #[inline]
    fn go_on(
        &mut self,
        input: &[u8],
        at: &mut usize,
        is_last: bool,
        carry: &mut impl Carry,
        sink: &mut impl EventSink,
    ) -> Result<(), Stop> {
        if self.shape == BodyShape::Lines {
            self.lines(input, at, is_last, carry, sink)
        } else {
            self.json(input, at, is_last, carry, sink)
        }
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
            State::Line | State::Probe | State::Whole if self.carried > 0 => self.offer_carried(carry, sink),
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
        input: &[u8],
        at: &mut usize,
        is_last: bool,
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
                self.front(input, carry, sink)?;
                *at = input.len();
                return Ok(());
            };
            self.front(&input[..end], carry, sink)?;
            *at = end + 1;
            if self.state == State::LineSkip {
                self.state = State::Line;
            } else {
                self.offer_carried(carry, sink)?;
            }
        }
        let mut lines = Lines::new();
        while *at < input.len() {
            let rest = &input[*at..];
            let bytes = sink.validator().scan_lines(rest, &mut lines);
            if bytes == 0 {
                break;
            }
            self.offer_scanned(input, at, lines.as_slice(), (State::Line, State::Line), sink)?;
            *at = input.len() - rest.len() + bytes;
        }
        if is_last {
            self.offer_trimmed(&input[*at..], sink)?;
        } else {
            self.front(&input[*at..], carry, sink)?;
        }
        *at = input.len();
        Ok(())
    }

    /// Keeps a part of an event whose end is not known by its form: of a line, or of a body that is one event. White
    /// space before the event is not kept, nor is what comes after `event_bytes_max` as long as it is white space.
    fn front(&mut self, part: &[u8], carry: &mut impl Carry, sink: &mut impl EventSink) -> Result<(), Stop> {
        if matches!(self.state, State::LineSkip | State::Discard) {
            return Ok(());
        }
        let kept = if self.carried == 0 { trim_start(part) } else { part };
        let room = self.event_bytes_max - self.carried;
        if kept.len() <= room && !self.left_out {
            return self.carry_on(kept, carry);
        }
        let solid = trim_end(kept);
        if solid.len() <= room && (!self.left_out || solid.is_empty()) {
            self.carry_on(solid, carry)?;
            self.left_out = true;
            return Ok(());
        }
        self.refuse(EventError::TooLong, sink)?;
        self.drop_carried(carry);
        self.state = if self.shape == BodyShape::Lines { State::LineSkip } else { State::Discard };
        Ok(())
    }

    // ---- JSON

    fn json(
        &mut self,
        input: &[u8],
        at: &mut usize,
        is_last: bool,
        carry: &mut impl Carry,
        sink: &mut impl EventSink,
    ) -> Result<(), Stop> {
        if self.state == State::Ready {
            self.offer_carried(carry, sink)?;
        }
        let mut lines = None;
        while *at < input.len() {
            match self.state {
                State::Probe => self.probe(&input[*at..], at, is_last, carry, sink)?,
                State::Whole => {
                    if is_last && self.carried == 0 {
                        self.offer_trimmed(&input[*at..], sink)?;
                        self.state = State::Discard;
                    } else {
                        self.front(&input[*at..], carry, sink)?;
                    }
                    *at = input.len();
                }
                State::Object => {
                    if self.carried == 0 && self.elements(input, at, &mut lines, sink)? {
                        continue;
                    }
                    if self.object(&input[*at..], at, carry, sink)?.is_break() {
                        return Ok(());
                    }
                }
                State::ObjectSkip => match self.scanner.find_end(&input[*at..]) {
                    Some(bytes) => {
                        *at += bytes;
                        self.state = State::AfterElement;
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
                self.skeleton = Skeleton::new();
                self.state = if self.shape == BodyShape::Batch { State::Probe } else { State::Whole };
                Ok(0)
            }
            (State::Begin, b'[') => {
                self.around = Around::Array;
                self.state = State::Element { after_comma: false };
                Ok(1)
            }
            (State::Begin, _) => self.give_up(EventError::NotJson, sink),
            (State::Element { .. }, b'{') => {
                self.scanner = ObjectScanner::default();
                self.state = State::Object;
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

    /// `bytes` begin with an object that may be an envelope, or go on with it.
    fn probe(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        is_last: bool,
        carry: &mut impl Carry,
        sink: &mut impl EventSink,
    ) -> Result<(), Stop> {
        // Without its key in sight there is no envelope, and a search costs a tenth of the grammar.
        if is_last && self.carried == 0 && memchr::memmem::find(bytes, ENVELOPE_KEY).is_none() {
            self.state = State::Whole;
            return Ok(());
        }
        // If the carry is full, the same bytes come again and must be looked at from the same place.
        let skeleton = self.skeleton;
        let room = self.event_bytes_max - self.carried;
        match self.skeleton.feed(bytes) {
            Met::Events(bracket) if bracket < room && !self.left_out => {
                self.drop_carried(carry);
                self.around = Around::Envelope;
                self.state = State::Element { after_comma: false };
                *at += bracket + 1;
            }
            Met::Nothing if !is_last => {
                self.front(bytes, carry, sink).inspect_err(|_| self.skeleton = skeleton)?;
                *at += bytes.len();
            }
            // Cut off, whole without an array of events, broken, or too long before it: one event.
            Met::Nothing | Met::End(_) | Met::Fault | Met::Events(_) => self.state = State::Whole,
        }
        Ok(())
    }

    /// `input` has an element that is an object `at` its brace: hands on this one, and those that follow it, as far as they end
    /// in the input. False if none does.
    #[inline]
    fn elements<'i>(
        &mut self,
        input: &'i [u8],
        at: &mut usize,
        lines: &mut Option<Lines<'i>>,
        sink: &mut impl EventSink,
    ) -> Result<bool, Stop> {
        let elements = lines.get_or_insert_with(Lines::new);
        let bytes = sink.validator().scan_elements(&input[*at..], elements);
        let end = *at + bytes;
        // An object that is not taken is met again, like the first after a comma.
        let states = (State::Element { after_comma: true }, State::AfterElement);
        self.offer_scanned(input, at, elements.as_slice(), states, sink)?;
        *at = end;
        Ok(bytes > 0)
    }

    /// `bytes` begin with an element that is an object and does not end in them, or go on with one whose front is in the carry.
    /// Breaks at the end of the input.
    #[inline]
    fn object(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        carry: &mut impl Carry,
        sink: &mut impl EventSink,
    ) -> Result<ControlFlow<()>, Stop> {
        // If the carry is full, the same bytes come again and must be looked at from the same place.
        let scanner = self.scanner;
        let end = self.scanner.find_end(bytes);
        let part = end.unwrap_or(bytes.len());
        if part > self.event_bytes_max - self.carried {
            self.refuse(EventError::TooLong, sink)?;
            self.drop_carried(carry);
            self.state = if end.is_some() { State::AfterElement } else { State::ObjectSkip };
            *at += part;
        } else {
            self.carry_on(&bytes[..part], carry).inspect_err(|_| self.scanner = scanner)?;
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
        debug_assert_eq!(carry.as_slice().len(), self.carried);
        self.offer(trim(carry.as_slice()), None, sink)?;
        self.drop_carried(carry);
        self.state = match (self.shape, self.around) {
            (BodyShape::Lines, _) => State::Line,
            (_, Around::Nothing) => State::Discard,
            (_, Around::Array | Around::Envelope) => State::AfterElement,
        };
        Ok(())
    }

    /// Offers what is between white space, if anything is.
    #[inline]
    fn offer_trimmed(&mut self, bytes: &[u8], sink: &mut impl EventSink) -> Result<(), Stop> {
        let event = trim(bytes);
        if event.is_empty() { Ok(()) } else { self.offer(event, None, sink) }
    }

    /// Offers `events`, which lie in `input` and were scanned: together as far as the sink takes them so. `states` are those before
    /// and after each. If one is not taken, it begins `at` and is the first to be given again.
    #[inline]
    fn offer_scanned(
        &mut self,
        input: &[u8],
        at: &mut usize,
        events: &[Scan<'_>],
        (before, after): (State, State),
        sink: &mut impl EventSink,
    ) -> Result<(), Stop> {
        let mut left = events;
        while let Some(event) = left.first() {
            let taken = self.offer_together(input.len(), left, sink);
            if taken == 0 {
                *at = event.text().as_ptr() as usize - input.as_ptr() as usize;
                self.state = before;
                self.offer(event.text(), Some(*event), sink)?;
            }
            self.state = after;
            left = &left[taken.max(1)..];
        }
        Ok(())
    }

    /// Offers the first of `events`, all in `bytes` bytes, that the sink may take together. Returns how many it took; of no
    /// consequence for the state.
    #[inline]
    fn offer_together(&mut self, bytes: usize, events: &[Scan<'_>], sink: &mut impl EventSink) -> usize {
        let allowed = events.len().min((self.events_max - self.seen) as usize);
        let fits = |event: &&Scan<'_>| event.text().len() <= self.event_bytes_max;
        // Receive buffers are shorter than most servers' longest event: then there is none to look for.
        let together =
            if bytes <= self.event_bytes_max { allowed } else { events[..allowed].iter().take_while(fits).count() };
        let taken = sink.events(&events[..together]);
        self.seen += taken;
        taken as usize
    }

    /// Offers an event that lies where it came. Of no consequence for the state.
    #[inline]
    fn offer(&mut self, event: &[u8], scan: Option<Scan<'_>>, sink: &mut impl EventSink) -> Result<(), Stop> {
        if event.len() > self.event_bytes_max {
            return self.refuse(EventError::TooLong, sink);
        }
        if self.seen == self.events_max {
            return Err(Stop::TooMany);
        }
        match sink.event(event, scan) {
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

/// JSON white space cut off both ends.
#[inline]
fn trim(bytes: &[u8]) -> &[u8] {
    trim_end(trim_start(bytes))
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
