//! What [`super::Splitter`] promises: the same calls for every way of cutting a body, and what those calls are.

use std::cell::RefCell;

use super::*;
use crate::json::Validator;

/// The calls a body led to, in order.
type Calls = Vec<Result<String, EventError>>;

thread_local! {
    /// One for all tests of a thread: making one takes longer than a test's body.
    static VALIDATOR: RefCell<Option<Validator>> = const { RefCell::new(None) };
}

/// A validator, borrowed from the thread.
struct Borrowed(Option<Validator>);

impl Borrowed {
    fn new() -> Self {
        Self(Some(VALIDATOR.take().unwrap_or_else(|| Validator::new(128))))
    }

    fn get(&mut self) -> &mut Validator {
        self.0.as_mut().expect("there until it is dropped")
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        VALIDATOR.set(self.0.take());
    }
}

/// Notes every call; has no room whenever `refusals` says so.
struct Notebook<'a> {
    calls: Calls,
    has_room: &'a mut dyn FnMut() -> bool,
    validator: Borrowed,
}

impl EventSink for Notebook<'_> {
    fn validator(&mut self) -> &mut Validator {
        self.validator.get()
    }

    fn events(&mut self, events: &[Scan<'_>]) -> u32 {
        let taken = events.iter().take_while(|scan| scan.is_proven() && (self.has_room)());
        let before = self.calls.len();
        self.calls.extend(taken.map(|scan| Ok(String::from_utf8_lossy(scan.text()).into_owned())));
        (self.calls.len() - before) as u32
    }

    fn event(&mut self, event: &[u8], scan: Option<Scan<'_>>) -> Placed {
        assert!(scan.is_none_or(|scan| std::ptr::eq(scan.text(), event)), "scanned elsewhere");
        if !(self.has_room)() {
            return Placed::NoRoom;
        }
        self.calls.push(Ok(String::from_utf8_lossy(event).into_owned()));
        Placed::Taken
    }

    fn refuse(&mut self, error: EventError) {
        self.calls.push(Err(error));
    }
}

/// A carry of bounded size that is full now and then.
struct Pouch<'a> {
    bytes: Vec<u8>,
    bytes_max: usize,
    has_room: &'a mut dyn FnMut() -> bool,
}

impl Carry for Pouch<'_> {
    fn extend(&mut self, bytes: &[u8]) -> Result<(), CarryFull> {
        assert!(self.bytes.len() + bytes.len() <= self.bytes_max, "more carried than one event");
        if !(self.has_room)() {
            return Err(CarryFull);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    fn clear(&mut self) {
        self.bytes.clear();
    }
}

const EVENT_BYTES_MAX: usize = 24;

fn limits() -> Limits {
    Limits { event_bytes_max: EVENT_BYTES_MAX, ..Limits::default() }
}

/// Feeds `body` in pieces that end at `cuts`, with a sink and a carry that have room when `has_room` says so. The last
/// piece is fed as such, or like the others before a `finish`.
fn split_with(
    limits: &Limits,
    shape: BodyShape,
    body: &[u8],
    cuts: &[usize],
    last_is_known: bool,
    has_room: &mut dyn FnMut() -> bool,
) -> (Calls, Option<Stop>) {
    let has_room = RefCell::new(has_room);
    let mut sink_room = || (has_room.borrow_mut())();
    let mut carry_room = || (has_room.borrow_mut())();
    let mut sink = Notebook { calls: Vec::new(), has_room: &mut sink_room, validator: Borrowed::new() };
    let mut carry = Pouch { bytes: Vec::new(), bytes_max: limits.event_bytes_max, has_room: &mut carry_room };
    let mut splitter = Splitter::new(shape, limits);
    let mut start = 0;
    for (index, end) in cuts.iter().copied().chain([body.len()]).enumerate() {
        let piece = &body[start..end];
        start = end;
        let mut at = 0;
        loop {
            let fed = if last_is_known && index == cuts.len() {
                splitter.feed_last(&piece[at..], &mut carry, &mut sink)
            } else {
                splitter.feed(&piece[at..], &mut carry, &mut sink)
            };
            at += fed.consumed;
            match fed.stop {
                None => break assert_eq!(at, piece.len(), "all is consumed without a stop"),
                Some(Stop::TooMany) => {
                    let again = splitter.feed(&piece[at..], &mut carry, &mut sink);
                    assert_eq!((again.stop, splitter.finish(&mut carry, &mut sink)), (fed.stop, Err(Stop::TooMany)));
                    return (sink.calls, fed.stop);
                }
                Some(Stop::NoRoom | Stop::CarryFull) => {}
            }
        }
    }
    loop {
        match splitter.finish(&mut carry, &mut sink) {
            Ok(()) => break,
            Err(Stop::NoRoom | Stop::CarryFull) => {}
            Err(Stop::TooMany) => return (sink.calls, Some(Stop::TooMany)),
        }
    }
    assert!(carry.bytes.is_empty(), "the carry is empty at the end");
    assert_eq!(splitter.seen() as usize, sink.calls.len(), "each call is one index");
    assert_eq!(splitter.finish(&mut carry, &mut sink), Ok(()), "finishing twice changes nothing");
    assert_eq!(splitter.seen() as usize, sink.calls.len());
    (sink.calls, None)
}

fn split(shape: BodyShape, body: &[u8], cuts: &[usize]) -> Calls {
    let calls = split_with(&limits(), shape, body, cuts, false, &mut || true).0;
    let last_known = split_with(&limits(), shape, body, cuts, true, &mut || true).0;
    assert_eq!(last_known, calls, "{shape:?} with its last piece known: {}", String::from_utf8_lossy(body));
    calls
}

/// The calls, the same for the whole body, every single cut, pieces of one byte, and a sink that is often full.
fn split_every_way(shape: BodyShape, body: &[u8]) -> Calls {
    let whole = split(shape, body, &[]);
    let shown = String::from_utf8_lossy(body);
    for cut in (0..=body.len()).step_by(if cfg!(miri) { 5 } else { 1 }) {
        assert_eq!(split(shape, body, &[cut]), whole, "{shape:?} cut at {cut}: {shown}");
    }
    let every: Vec<usize> = (1..body.len()).collect();
    assert_eq!(split(shape, body, &every), whole, "{shape:?} in bytes: {shown}");
    for period in 2..5 {
        for cuts in [&[][..], &[body.len() / 2], &every] {
            let mut calls = 0;
            let mut has_room = || {
                calls += 1;
                calls % period == 0
            };
            let last_is_known = period % 2 == 0;
            let outcome = split_with(&limits(), shape, body, cuts, last_is_known, &mut has_room);
            assert_eq!(outcome, (whole.clone(), None), "{shape:?} with little room: {shown}");
        }
    }
    whole
}

fn events(events: &[&str]) -> Calls {
    events.iter().map(|event| Ok((*event).to_owned())).collect()
}

use EventError::{
    BrokenEnvelope, EmptyElement, MissingComma, NotAnObject, NotJson, SecondEvents, TooLong, TrailingData, Truncated,
};

#[test]
fn a_line_is_an_event() {
    let table: &[(&str, &[&str])] = &[
        ("", &[]),
        ("\n", &[]),
        (" \r\n\t\n\r\n \n", &[]),
        ("{\"a\":1}\n", &["{\"a\":1}"]),
        ("{\"a\":1}", &["{\"a\":1}"]),
        ("{\"a\":1}\r\n{\"b\":2}\r\n", &["{\"a\":1}", "{\"b\":2}"]),
        ("\n\n {\"a\":1} \t\r\n\n{ \"b\" : 2 }\n \n", &["{\"a\":1}", "{ \"b\" : 2 }"]),
        ("{\"a\":1}\r", &["{\"a\":1}"]),
        ("{\"a\":1\n\"b\":2}\n", &["{\"a\":1", "\"b\":2}"]),
        ("{\"a\":\"x\ny\"}\n", &["{\"a\":\"x", "y\"}"]),
        ("nonsense\n1\n[]\n{}{}", &["nonsense", "1", "[]", "{}{}"]),
        ("{\"é\":\"日本🦀\"}\n{\"q\":\"\\\"\\\\\"}\n", &["{\"é\":\"日本🦀\"}", "{\"q\":\"\\\"\\\\\"}"]),
        ("\x0c{}\n", &["\x0c{}"]),
        ("a\0b\n", &["a\0b"]),
    ];
    for (body, expected) in table {
        assert_eq!(split_every_way(BodyShape::Lines, body.as_bytes()), events(expected), "{body:?}");
    }
}

#[test]
fn a_line_over_the_limit_is_refused_and_skipped() {
    let longest = "x".repeat(EVENT_BYTES_MAX);
    let spaces = " ".repeat(EVENT_BYTES_MAX);
    let table: &[(String, Calls)] = &[
        (format!("{longest}\n{{}}"), events(&[&longest, "{}"])),
        (format!("{longest}\r\n{{}}\n"), events(&[&longest, "{}"])),
        (format!("{longest}y\n{{}}\n"), vec![Err(TooLong), Ok("{}".to_owned())]),
        (format!("{longest}y"), vec![Err(TooLong)]),
        (format!("{longest}{longest}{longest}\n{longest}"), vec![Err(TooLong), Ok(longest.clone())]),
        (format!("{spaces}{spaces}{longest}{spaces}{spaces}\r\n{{}}"), events(&[&longest, "{}"])),
        (format!("{spaces}{longest}{spaces}"), events(&[&longest])),
        (format!("{{}}{spaces}{spaces}\n{{}}"), events(&["{}", "{}"])),
        (format!("{{}}{spaces}{spaces}x\n{{}}"), vec![Err(TooLong), Ok("{}".to_owned())]),
        (format!("{longest} y \n\n{{}}"), vec![Err(TooLong), Ok("{}".to_owned())]),
        (format!("{longest}y\n{longest}y\n"), vec![Err(TooLong), Err(TooLong)]),
    ];
    for (body, expected) in table {
        assert_eq!(&split_every_way(BodyShape::Lines, body.as_bytes()), expected, "{body:?}");
    }
}

#[test]
fn an_object_alone_is_an_event_and_an_array_holds_events() {
    let table: &[(&str, &[&str])] = &[
        ("", &[]),
        (" \r\n\t ", &[]),
        ("{}", &["{}"]),
        (" \n{ \"a\" : 1 }\r\n ", &["{ \"a\" : 1 }"]),
        ("[]", &[]),
        (" [ ] ", &[]),
        ("[{}]", &["{}"]),
        ("[{\"a\":1},{\"b\":2}]", &["{\"a\":1}", "{\"b\":2}"]),
        (" [ {\"a\":1}\n,\r\n\t{} ] \n", &["{\"a\":1}", "{}"]),
        ("[{\"a\":\"}],{\"},{}]", &["{\"a\":\"}],{\"}", "{}"]),
        ("[{\"a\":\"\\\"}\"},{\"b\":\"\\\\\"}]", &["{\"a\":\"\\\"}\"}", "{\"b\":\"\\\\\"}"]),
        ("[{\"a\":{\"b\":[{}]}},{}]", &["{\"a\":{\"b\":[{}]}}", "{}"]),
        ("{\"a\":{\"a\":{\"a\":{}}}}", &["{\"a\":{\"a\":{\"a\":{}}}}"]),
        ("[{\"日\":\"🦀}\"}]", &["{\"日\":\"🦀}\"}"]),
        ("{\"a\":\n1}", &["{\"a\":\n1}"]),
        // One event up to the last byte, for the sink to refuse.
        ("{} x ", &["{} x"]),
        ("{}\n{}\n{}\n", &["{}\n{}\n{}"]),
        (" {\"a\":1", &["{\"a\":1"]),
        ("{\"a\":\"}", &["{\"a\":\"}"]),
        ("{\"a\":]}", &["{\"a\":]}"]),
        ("[{bad},{\"a\":]},{}]", &["{bad}", "{\"a\":]}", "{}"]),
    ];
    for (body, expected) in table {
        for shape in [BodyShape::Json, BodyShape::Batch] {
            assert_eq!(split_every_way(shape, body.as_bytes()), events(expected), "{shape:?} {body:?}");
        }
    }
}

#[test]
fn what_stands_where_an_event_should_is_refused_once() {
    let ok = |event: &str| Ok(event.to_owned());
    let table: &[(&str, Calls)] = &[
        ("[,]", vec![Err(EmptyElement), Err(EmptyElement)]),
        ("[ , {}]", vec![Err(EmptyElement), ok("{}")]),
        ("[{},]", vec![ok("{}"), Err(EmptyElement)]),
        ("[{},,{}]", vec![ok("{}"), Err(EmptyElement), ok("{}")]),
        ("[1,{}]", vec![Err(NotAnObject), ok("{}")]),
        (
            "[{},null,\"a,]\\\"\",-1.5,{}]",
            vec![ok("{}"), Err(NotAnObject), Err(NotAnObject), Err(NotAnObject), ok("{}")],
        ),
        ("[[{},[\"]\"]],{}]", vec![Err(NotAnObject), ok("{}")]),
        ("[}},{}]", vec![Err(NotAnObject), ok("{}")]),
        ("[{} {},{}]", vec![ok("{}"), Err(MissingComma), ok("{}")]),
        ("[{}{\"a\":[1,2]},{}]", vec![ok("{}"), Err(MissingComma), ok("{}")]),
        ("[{}:{}]", vec![ok("{}"), Err(MissingComma)]),
        ("[{}] [{}] ] x", vec![ok("{}"), Err(TrailingData)]),
        ("[],", vec![Err(TrailingData)]),
        ("\"{}\"", vec![Err(NotJson)]),
        ("1 {}", vec![Err(NotJson)]),
        ("\u{feff}{}", vec![Err(NotJson)]),
        ("]", vec![Err(NotJson)]),
        ("[", vec![Err(Truncated)]),
        ("[{}", vec![ok("{}"), Err(Truncated)]),
        ("[{},", vec![ok("{}"), Err(Truncated)]),
        ("[{},{\"a\"", vec![ok("{}"), Err(Truncated)]),
        ("[1", vec![Err(NotAnObject)]),
    ];
    for (body, expected) in table {
        for shape in [BodyShape::Json, BodyShape::Batch] {
            assert_eq!(&split_every_way(shape, body.as_bytes()), expected, "{shape:?} {body:?}");
        }
    }
}

#[test]
fn an_object_over_the_limit_is_refused_and_skipped() {
    let object = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    let (longest, longer, much_longer) = (object(EVENT_BYTES_MAX), object(EVENT_BYTES_MAX + 1), object(100));
    let table: &[(String, Calls)] = &[
        (longest.clone(), events(&[&longest])),
        (format!(" {longest} "), events(&[&longest])),
        (longer.clone(), vec![Err(TooLong)]),
        (much_longer[..99].to_owned(), vec![Err(TooLong)]),
        (format!("{much_longer}x"), vec![Err(TooLong)]),
        (format!("{longest}x"), vec![Err(TooLong)]),
        (format!("{longest}{:40}", ""), events(&[&longest])),
        (format!("{longest}{:40}x", ""), vec![Err(TooLong)]),
        (format!("{{}}{:40}x", ""), vec![Err(TooLong)]),
        (format!("[{longest},{longer},{{}}]"), vec![Ok(longest), Err(TooLong), Ok("{}".to_owned())]),
        (format!("[{much_longer},{much_longer}"), vec![Err(TooLong), Err(TooLong), Err(Truncated)]),
    ];
    for (body, expected) in table {
        for shape in [BodyShape::Json, BodyShape::Batch] {
            assert_eq!(&split_every_way(shape, body.as_bytes()), expected, "{shape:?} {body:?}");
        }
    }
}

#[test]
fn an_envelope_holds_events_wherever_they_stand() {
    let ok = |event: &str| Ok(event.to_owned());
    let table: &[(&str, Calls)] = &[
        (r#"{"events":[]}"#, vec![]),
        (r#"{"events":[{"a":1},{}]}"#, vec![ok(r#"{"a":1}"#), ok("{}")]),
        (" { \"events\" : [ {} ] } \n", vec![ok("{}")]),
        (r#"{"v":1,"events":[{}],"n":[{"x":[]}],"é":"]}"}"#, vec![ok("{}")]),
        (r#"{"x":[{}],"events":[{},{}]}"#, vec![ok("{}"), ok("{}")]),
        (r#"{"events":5,"events":[{}]}"#, vec![ok("{}")]),
        (r#"{"events":[{},1]}"#, vec![ok("{}"), Err(NotAnObject)]),
        (r#"{"events":[{},]}"#, vec![ok("{}"), Err(EmptyElement)]),
        (r#"{"events":[{}],"events":[{}]}"#, vec![ok("{}"), Err(SecondEvents)]),
        (r#"{"events":[{}],"events":7}"#, vec![ok("{}")]),
        (r#"{"events":[{}],}"#, vec![ok("{}"), Err(BrokenEnvelope)]),
        (r#"{"events":[{}],"a":tru}"#, vec![ok("{}"), Err(BrokenEnvelope)]),
        (r#"{"events":[{}]]"#, vec![ok("{}"), Err(BrokenEnvelope)]),
        ("{\"events\":[{}],\"a\":\"\u{1}\"}", vec![ok("{}"), Err(BrokenEnvelope)]),
        (r#"{"events":[{}]} x"#, vec![ok("{}"), Err(TrailingData)]),
        (r#"{"events":[{}]"#, vec![ok("{}"), Err(Truncated)]),
        (r#"{"events":[{}"#, vec![ok("{}"), Err(Truncated)]),
        (r#"{"events":["#, vec![Err(Truncated)]),
        // No array of events: an event like any other.
        (r#"{"events":{}}"#, vec![ok(r#"{"events":{}}"#)]),
        (r#"{"event":[{}]}"#, vec![ok(r#"{"event":[{}]}"#)]),
        (r#"{"a":{"events":[{}]}}"#, vec![ok(r#"{"a":{"events":[{}]}}"#)]),
        (r#"{"a":1} {"events":[{}]}"#, vec![ok(r#"{"a":1} {"events":[{}]}"#)]),
        // Cut off or broken before its array: one event, which the sink will refuse.
        (r#"{"events":"#, vec![ok(r#"{"events":"#)]),
        (r#"{,"events":[{}]}"#, vec![ok(r#"{,"events":[{}]}"#)]),
        // The array begins on the last byte an event may have, and after it.
        (r#"{"aaaaaaaa":1, "events":["#, vec![Err(TooLong)]),
        (r#"{"aaaaaaaa":1,"events":[{}]}"#, vec![ok("{}")]),
        (r#"{"aaaaaaaa":1, "events":[{}]}"#, vec![Err(TooLong)]),
        (r#"{"a":1,                        "events":[{}]}"#, vec![Err(TooLong)]),
    ];
    for (body, expected) in table {
        assert_eq!(&split_every_way(BodyShape::Batch, body.as_bytes()), expected, "{body:?}");
    }
    let body = br#"{"events":[1]}"#;
    assert_eq!(split_every_way(BodyShape::Json, body), events(&[r#"{"events":[1]}"#]), "only on the batch route");
}

#[test]
fn an_event_in_one_input_is_passed_where_it_lies() {
    struct Where(Vec<*const u8>, Borrowed);
    impl EventSink for Where {
        fn validator(&mut self) -> &mut Validator {
            self.1.get()
        }
        fn event(&mut self, event: &[u8], _: Option<Scan<'_>>) -> Placed {
            self.0.push(event.as_ptr());
            Placed::Taken
        }
        fn refuse(&mut self, error: EventError) {
            panic!("{error}");
        }
    }
    struct NoCarry;
    impl Carry for NoCarry {
        fn extend(&mut self, _: &[u8]) -> Result<(), CarryFull> {
            panic!("copied")
        }
        fn as_slice(&self) -> &[u8] {
            &[]
        }
        fn clear(&mut self) {}
    }
    for (shape, body, starts) in [
        (BodyShape::Lines, &b"{\"a\":1}\n\n {}\r\n"[..], &[0, 10][..]),
        (BodyShape::Lines, b"{\"a\":1}\n{}", &[0, 8]),
        (BodyShape::Json, b" {\"a\":1}", &[1]),
        (BodyShape::Json, b"[{\"a\":1}, {}]", &[1, 10]),
        (BodyShape::Batch, b" {\"a\":1}", &[1]),
        (BodyShape::Batch, b"{\"a\":\"events\"}", &[0]),
        (BodyShape::Batch, b"{\"events\":[{\"a\":1},{}]}", &[11, 19]),
    ] {
        let input = body.to_vec();
        let mut sink = Where(Vec::new(), Borrowed::new());
        let fed = Splitter::new(shape, &limits()).feed_last(&input, &mut NoCarry, &mut sink);
        assert_eq!(fed, Fed { consumed: body.len(), stop: None });
        let expected: Vec<*const u8> = starts.iter().map(|start| input[*start..].as_ptr()).collect();
        assert_eq!(sink.0, expected, "{shape:?}");
    }
}

#[test]
fn more_events_than_allowed_stop_the_body_for_good() {
    let limits = Limits { events_per_request_max: 2, ..limits() };
    let table: &[(BodyShape, &[u8], bool)] = &[
        (BodyShape::Lines, b"{}\n{}\n", false),
        (BodyShape::Lines, b"{}\n{}\n \n", false),
        (BodyShape::Lines, b"{}\n{}\n{}", true),
        (BodyShape::Lines, b"{}\n{}\n{}\n", true),
        (BodyShape::Lines, b"{}\n{}\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n", true),
        (BodyShape::Json, b"[{},{}]", false),
        (BodyShape::Json, b"[{},{},{}]", true),
        (BodyShape::Json, b"[{},1,{}]", true),
        (BodyShape::Json, b"[{},{}] x", true),
        (BodyShape::Json, b"[{},{}", true),
        (BodyShape::Batch, b"{\"events\":[{},{}]}", false),
        (BodyShape::Batch, b"{\"events\":[{},{}],}", true),
        (BodyShape::Batch, b"{\"events\":[{},{},", true),
    ];
    for (shape, body, too_many) in table {
        for cut in 0..=body.len() {
            let (calls, stop) = split_with(&limits, *shape, body, &[cut], cut % 2 == 0, &mut || true);
            assert_eq!(stop, too_many.then_some(Stop::TooMany), "{}", String::from_utf8_lossy(body));
            assert_eq!(calls.len(), 2);
        }
    }
}

#[test]
fn routes_and_content_decide_the_shape() {
    use super::super::request::{Content, Route};
    for (route, content, shape) in [
        (Route::Events, Content::Json, Some(BodyShape::Json)),
        (Route::Events, Content::Ndjson, Some(BodyShape::Lines)),
        (Route::EventsBatch, Content::Json, Some(BodyShape::Batch)),
        (Route::EventsBatch, Content::Ndjson, Some(BodyShape::Lines)),
        (Route::Events, Content::Unsupported, None),
        (Route::Echo, Content::Json, None),
        (Route::NotFound, Content::Json, None),
    ] {
        assert_eq!(BodyShape::of(route, content), shape);
    }
}

/// Bodies of random pieces of JSON, cut at random, with a sink and a carry of random room.
#[test]
fn random_bodies_split_the_same_however_they_are_cut() {
    const PIECES: &[&str] = &[
        "{",
        "}",
        "{}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\\\"",
        "\"events\":[",
        "{\"events\":[",
        "{\"a\":1}",
        "\"k\":",
        " ",
        "\n",
        "\r\n",
        "{\"id\":\"x}\"}",
        "true",
        "12",
        "é",
        "aaaaaaaaaaaaaaaaaaaaaaaa",
        "\u{0}",
        "},{",
        "]}",
    ];
    let mut state = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x71de_6a7e_u64);
    eprintln!("SEED={state}");
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for _ in 0..if cfg!(miri) { 30 } else { 5_000 } {
        let body: String = (0..random(16)).map(|_| PIECES[random(PIECES.len())]).collect();
        let body = body.as_bytes();
        for shape in [BodyShape::Lines, BodyShape::Json, BodyShape::Batch] {
            let whole = split(shape, body, &[]);
            for _ in 0..4 {
                let mut cuts: Vec<usize> = (0..random(6)).map(|_| random(body.len() + 1)).collect();
                cuts.sort_unstable();
                let period = 1 + random(3);
                let last_is_known = random(2) == 0;
                let outcome = split_with(&limits(), shape, body, &cuts, last_is_known, &mut || random(period) == 0);
                let shown = String::from_utf8_lossy(body);
                assert_eq!(outcome, (whole.clone(), None), "{shape:?} cut at {cuts:?}: {shown:?}");
            }
        }
    }
}

/// Valid events of real form, in all shapes: each comes out as it went in.
#[test]
fn real_events_come_out_as_they_went_in() {
    let limits = Limits::default();
    let events: Vec<String> = (0..40)
        .map(|index| {
            let note = "a \\\"quoted\\\" note, {braces} and [brackets] \\u00e9 日本 \\\\".repeat(index % 4);
            format!(
                r#"{{"event_id":"e-{index}","revenue":{index}.5,"custom_params":{{"n":[{{}},[]],"note":"{note}"}}}}"#
            )
        })
        .collect();
    let expected: Calls = events.iter().cloned().map(Ok).collect();
    let bodies = [
        (BodyShape::Lines, events.join("\n")),
        (BodyShape::Lines, events.join("\r\n") + "\r\n"),
        (BodyShape::Json, format!("[{}]", events.join(","))),
        (BodyShape::Batch, format!("[\n{}\n]", events.join(" ,\n"))),
        (BodyShape::Batch, format!(r#"{{"source":"sdk","events":[{}],"sent":1}}"#, events.join(", "))),
    ];
    for (shape, body) in &bodies {
        let step = if cfg!(miri) { 997 } else { 7 };
        for cut in (0..body.len()).step_by(step) {
            let cuts = [cut, (cut + 300).min(body.len())];
            let outcome = split_with(&limits, *shape, body.as_bytes(), &cuts, cut % 2 == 0, &mut || true);
            assert_eq!(outcome, (expected.clone(), None), "{shape:?} cut at {cuts:?}");
        }
    }
}
