//! Finds and validates the events of a body. Worker threads; pure.
//!
//! serde_json reads each event whole without building a value ([`IgnoredAny`]): the grammar is checked, nothing is kept. It
//! does not look at the encoding of strings it ignores, so that is checked apart, for the whole body at once where it can
//! be. Valid events leave as pieces of the body, by reference count and not by copy.

use axum::body::Bytes;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// Between events and behind the last one.
const LINE_FEED: Bytes = Bytes::from_static(b"\n");

/// The body as a whole is no JSON.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotJson;

/// What is to be appended to the log, and how many events that is.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) pieces: Vec<Bytes>,
    pub(crate) accepted: usize,
    pub(crate) rejected: usize,
}

/// A body of one object a line. Invalid lines are left out and counted; empty ones are nothing.
///
/// # Errors
/// None: the signature is that of [`json`].
pub(crate) fn lines(body: Bytes) -> Result<Checked, NotJson> {
    let mut checked = Checked::default();
    let is_text = simdutf8::basic::from_utf8(&body).is_ok();
    // Valid lines that lie one behind the other leave as one piece: usually that is the body.
    let mut run_start = 0;
    let mut start = 0;
    while start < body.len() {
        let end = memchr::memchr(b'\n', &body[start..]).map_or(body.len(), |length| start + length);
        let line = &body[start..end];
        if (is_text || simdutf8::basic::from_utf8(line).is_ok()) && is_event(line) {
            checked.accepted += 1;
        } else {
            push(&mut checked.pieces, body.slice(run_start..start));
            run_start = (end + 1).min(body.len());
            checked.rejected += usize::from(!line.trim_ascii().is_empty());
        }
        start = end + 1;
    }
    push(&mut checked.pieces, body.slice(run_start..));
    if checked.pieces.last().is_some_and(|piece| !piece.ends_with(b"\n")) {
        checked.pieces.push(LINE_FEED);
    }
    Ok(checked)
}

/// A body of one object or an array of objects. Elements that are no objects are left out and counted.
///
/// # Errors
/// [`NotJson`] if it is not JSON from its first byte to its last, or neither object nor array.
pub(crate) fn json(body: &Bytes) -> Result<Checked, NotJson> {
    let mut checked = Checked::default();
    if simdutf8::basic::from_utf8(body).is_err() {
        return Err(NotJson);
    }
    let mut take = |event: &[u8]| {
        if event.starts_with(b"{") {
            checked.pieces.push(single_line(body, event));
            checked.pieces.push(LINE_FEED);
            checked.accepted += 1;
        } else {
            checked.rejected += 1;
        }
    };
    match body.trim_ascii_start().first() {
        Some(b'[') => {
            let events: Vec<&RawValue> = serde_json::from_slice(body).map_err(|_| NotJson)?;
            events.iter().for_each(|event| take(event.get().as_bytes()));
        }
        Some(b'{') if is_event(body) => take(body.trim_ascii()),
        _ => return Err(NotJson),
    }
    Ok(checked)
}

/// Whether `text`, which is UTF-8, is one JSON object.
fn is_event(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// `event`, which is a part of `body`, on one line: in valid JSON a raw line end can only be white space.
fn single_line(body: &Bytes, event: &[u8]) -> Bytes {
    if memchr::memchr2(b'\r', b'\n', event).is_none() {
        return body.slice_ref(event);
    }
    event.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }).collect::<Vec<_>>().into()
}

fn push(pieces: &mut Vec<Bytes>, piece: Bytes) {
    if !piece.is_empty() {
        pieces.push(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(checked: &Checked) -> String {
        String::from_utf8(checked.pieces.concat()).unwrap()
    }

    #[test]
    fn valid_lines_are_one_piece_of_the_body() {
        let body = Bytes::from_static(b"{\"a\":1}\n{\"b\":2}\n");
        let checked = lines(body.clone()).unwrap();
        assert_eq!((checked.accepted, checked.rejected), (2, 0));
        assert_eq!(checked.pieces.len(), 1);
        assert_eq!(checked.pieces[0].as_ptr(), body.as_ptr(), "not copied");
    }

    #[test]
    fn invalid_lines_are_left_out_and_counted() {
        let body = b"nope\n{\"a\":1}\n\n[1]\n{\"b\":}\n{\"c\":\"\xff\"}\n{\"c\":3}";
        let checked = lines(Bytes::from_static(body)).unwrap();
        assert_eq!((checked.accepted, checked.rejected), (2, 4));
        assert_eq!(text(&checked), "{\"a\":1}\n{\"c\":3}\n");
        let none = lines(Bytes::from_static(b"nope")).unwrap();
        assert_eq!((none.accepted, none.pieces.len()), (0, 0));
    }

    #[test]
    fn objects_and_arrays_become_lines() {
        let single = json(&Bytes::from_static(b" {\"a\":\n1} ")).unwrap();
        assert_eq!((text(&single).as_str(), single.accepted), ("{\"a\": 1}\n", 1));
        let array = json(&Bytes::from_static(b"[{\"a\":1}, 2, {\"b\":\"\xc3\xa9\"}]")).unwrap();
        assert_eq!((array.accepted, array.rejected), (2, 1));
        assert_eq!(text(&array), "{\"a\":1}\n{\"b\":\"é\"}\n");
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for body in [&b"{\"a\":1"[..], b"[{\"a\":1}", b"7", b"", b"{\"a\":\"\xff\"}"] {
            assert_eq!(json(&Bytes::from_static(body)).unwrap_err(), NotJson, "{body:?}");
        }
    }
}
