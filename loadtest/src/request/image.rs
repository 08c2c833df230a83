//! Images of requests: complete bytes with places to patch. Made before the run, by the main thread.
//!
//! What differs from send to send has a fixed width and a known place: the number of each event, the API key, and
//! whether the connection is to close. Patching a request of 200 events is 200 stores of 16 bytes.

use serde::{Deserialize, Serialize};

use super::compress::Encoding;
use super::expect::{Check, Expect};
use crate::event::{Digits, MALFORMED_TEMPLATE, NUMBER_DIGITS, Name, NameKey, Template, Templates};

/// Events of a request: as many as tidegate takes by its own default.
pub const BATCH_MAX: usize = 1_000_000;
/// Bytes of a body: positions in an image are 32 bits, and its head is to fit too.
const BODY_BYTES_MAX: u64 = 1 << 30;
/// What a body may have around its events, and a malformed event more than one that is not.
const BODY_BYTES_BESIDE: u64 = 64;
/// All images of a kind together: more variety than this costs cache and shows nothing new.
const IMAGES_BYTES_MAX: usize = 64 << 20;
/// Width of the length of a compressed body.
const LENGTH_DIGITS: usize = 8;
/// The two values of `Connection` at one width: white space behind a value is not part of it (RFC 9110, 5.5).
const KEEP_ALIVE: &[u8] = b"keep-alive";
const CLOSE: &[u8] = b"close     ";
const _: () = assert!(KEEP_ALIVE.len() == CLOSE.len());

/// How events stand in a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object.
    Single,
    /// An array of objects.
    Array,
    /// One object a line.
    #[default]
    Ndjson,
    /// `{"events":[…]}`.
    Envelope,
}

/// The level at which a request asks to be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    /// After the sync.
    Durable,
    /// After the write.
    Written,
    /// At once.
    Memory,
}

impl Ack {
    /// Value of `X-Ack`.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Written => "written",
            Self::Memory => "memory",
        }
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Events to be stored.
    Events,
    /// Events of which one is malformed.
    Malformed,
    /// `GET /health`.
    Health,
    /// `GET /ready`.
    Ready,
    /// `GET /api/metrics`.
    Metrics,
    /// `POST /api/echo`.
    Echo,
}

/// What the images of one kind are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct KindOptions {
    /// What is asked for.
    pub kind: Kind,
    /// Events per request, for kinds that carry events.
    pub batch: usize,
    /// How they stand in the body.
    pub format: Format,
    /// Another path than the kind's own.
    pub path: Option<String>,
    /// Another content type than the format's own.
    pub content_type: Option<String>,
    /// Body bytes of an echo.
    pub echo_bytes: usize,
}

/// What all requests of a run have in common.
#[derive(Clone, Debug, Default)]
pub struct HeadOptions {
    /// Value of `Host`.
    pub host: String,
    /// Value of `X-Ack`.
    pub ack: Option<Ack>,
    /// Compression of bodies.
    pub encoding: Encoding,
    /// Bodies are made once and sent again and again.
    pub repeats: bool,
    /// Bytes of the longest API key; 0 without keys.
    pub key_bytes: usize,
    /// Whether some requests end their connection.
    pub may_close: bool,
    /// More header lines, without line ends.
    pub headers: Vec<String>,
    /// How closely answers are looked at.
    pub check: Check,
}

/// A request to be patched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Head and uncompressed body.
    pub bytes: Vec<u8>,
    /// Where the body begins.
    pub body_at: usize,
    /// Where the digits of each event's number stand, ascending.
    pub numbers_at: Vec<u32>,
    key_at: Option<usize>,
    connection_at: Option<usize>,
    /// Where the length of a compressed body stands.
    length_at: Option<usize>,
}

impl Image {
    /// Writes the numbers of its events, from `first` on, into a copy of it.
    #[inline]
    pub fn write_numbers(&self, bytes: &mut [u8], first: u64) {
        let mut digits = Digits::of(first);
        for at in &self.numbers_at {
            digits.write(bytes, *at as usize);
            digits.advance();
        }
    }

    /// Writes a key into a copy of it; shorter ones are followed by white space.
    pub fn write_key(&self, bytes: &mut [u8], key: &[u8], key_bytes: usize) {
        let Some(at) = self.key_at else { return };
        let field = &mut bytes[at..at + key_bytes];
        field[..key.len()].copy_from_slice(key);
        field[key.len()..].fill(b' ');
    }

    /// Writes into a copy of it whether the connection ends with this request.
    pub fn write_connection(&self, bytes: &mut [u8], closes: bool) {
        let Some(at) = self.connection_at else { return };
        bytes[at..at + CLOSE.len()].copy_from_slice(if closes { CLOSE } else { KEEP_ALIVE });
    }

    /// Writes the length of the compressed body into a copy of its head.
    ///
    /// # Panics
    /// If the image's body is not compressed.
    pub fn write_length(&self, bytes: &mut [u8], length: usize) {
        let at = self.length_at.expect("an image for compression has a place for its length");
        let text = format!("{length:>LENGTH_DIGITS$}");
        bytes[at..at + LENGTH_DIGITS].copy_from_slice(text.as_bytes());
    }
}

impl Kind {
    /// Its name in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Malformed => "malformed",
            Self::Health => "health",
            Self::Ready => "ready",
            Self::Metrics => "metrics",
            Self::Echo => "echo",
        }
    }
}

impl KindOptions {
    /// Whether its requests carry events.
    #[must_use]
    pub fn has_events(&self) -> bool {
        matches!(self.kind, Kind::Events | Kind::Malformed)
    }

    /// Whether its bodies have a length that can be sent. To be asked before images are made.
    ///
    /// # Errors
    /// A sentence with the limit.
    pub fn check_body(&self, encoding: Encoding, templates: &Templates) -> Result<(), String> {
        if !self.has_events() {
            return Ok(());
        }
        let bytes = templates.bytes_at_most(self.batch) + self.batch as u64 + BODY_BYTES_BESIDE;
        let told = format!("--batch {}: bodies of up to {bytes} bytes", self.batch);
        if bytes > BODY_BYTES_MAX {
            return Err(format!("{told} are more than {BODY_BYTES_MAX}; send fewer or shorter events at once"));
        }
        let compressed = encoding.bytes_max(bytes as usize);
        if encoding != Encoding::Identity && compressed >= 10_usize.pow(LENGTH_DIGITS as u32) {
            return Err(format!(
                "{told} may have more than {LENGTH_DIGITS} digits of a length when compressed; send fewer or shorter events at once"
            ));
        }
        Ok(())
    }

    fn path(&self) -> &str {
        let own = match (self.kind, self.format) {
            (Kind::Health, _) => "/health",
            (Kind::Ready, _) => "/ready",
            (Kind::Metrics, _) => "/api/metrics",
            (Kind::Echo, _) => "/api/echo",
            (_, Format::Envelope) => "/v1/events/batch",
            _ => "/v1/events",
        };
        self.path.as_deref().unwrap_or(own)
    }

    fn content_type(&self) -> Option<&str> {
        let own = match (self.kind, self.format) {
            (Kind::Health | Kind::Ready | Kind::Metrics, _) => return None,
            (Kind::Events | Kind::Malformed, Format::Ndjson) => "application/x-ndjson",
            _ => "application/json",
        };
        Some(self.content_type.as_deref().unwrap_or(own))
    }

    /// What its answers should be.
    #[must_use]
    pub fn expect(&self, check: Check) -> Expect {
        if check != Check::Tidegate {
            return Expect::default();
        }
        let batch = self.batch as u64;
        let own = Expect { needs_retry_after: true, ..Expect::default() };
        match self.kind {
            Kind::Events => Expect { statuses: vec![202], counts: Some((batch, 0)), ..own },
            Kind::Malformed if batch == 1 => Expect { statuses: vec![400], refusal: Some(400), ..own },
            Kind::Malformed => Expect { statuses: vec![202], counts: Some((batch - 1, 1)), ..own },
            Kind::Health => Expect { statuses: vec![200], holds: Some(b"\"healthy\""), ..own },
            // Not ready is an answer too: that it is given is what a probe needs.
            Kind::Ready => Expect { statuses: vec![200, 503], holds: Some(b"\"ready\":"), ..own },
            Kind::Metrics => Expect { statuses: vec![200], holds: Some(b"\"total_requests\":"), ..own },
            Kind::Echo => Expect {
                statuses: vec![200],
                holds: Some(b"{\"echo\":"),
                body_bytes_min: self.echo_bytes as u64,
                ..own
            },
        }
    }
}

/// The images of a kind: as many as show every template, within a bound. At least one.
#[must_use]
pub fn images(kind: &KindOptions, head: &HeadOptions, templates: &Templates) -> Vec<Image> {
    let count = match kind.kind {
        Kind::Events | Kind::Malformed => {
            let all = templates.len().div_ceil(kind.batch);
            let bytes = (templates.bytes_mean() as usize + 64) * kind.batch;
            all.min(IMAGES_BYTES_MAX / bytes).max(1)
        }
        _ => 1,
    };
    (0..count).map(|variant| image(kind, head, templates, variant)).collect()
}

fn image(kind: &KindOptions, head: &HeadOptions, templates: &Templates, variant: usize) -> Image {
    let (body, numbers) = match kind.kind {
        Kind::Events | Kind::Malformed => events_body(kind, templates, variant),
        Kind::Echo => (echo_body(kind.echo_bytes), Vec::new()),
        Kind::Health | Kind::Ready | Kind::Metrics => (Vec::new(), Vec::new()),
    };
    let mut image = image_head(kind, head, body.len());
    image.body_at = image.bytes.len();
    image.bytes.extend_from_slice(&body);
    image.numbers_at = numbers.iter().map(|at| (image.body_at + at) as u32).collect();
    image
}

fn image_head(kind: &KindOptions, head: &HeadOptions, body_bytes: usize) -> Image {
    let content_type = kind.content_type();
    let method = if content_type.is_some() { "POST" } else { "GET" };
    let mut text = format!("{method} {} HTTP/1.1\r\nHost: {}\r\n", kind.path(), head.host);
    let mut image = Image {
        bytes: Vec::new(),
        body_at: 0,
        numbers_at: Vec::new(),
        key_at: None,
        connection_at: None,
        length_at: None,
    };
    if let Some(content_type) = content_type {
        text.push_str(&format!("Content-Type: {content_type}\r\n"));
        if let Some(token) = head.encoding.token() {
            text.push_str(&format!("Content-Encoding: {token}\r\nContent-Length: "));
            image.length_at = Some(text.len());
            text.push_str(&format!("{:>LENGTH_DIGITS$}\r\n", 0));
        } else {
            text.push_str(&format!("Content-Length: {body_bytes}\r\n"));
        }
    }
    if let Some(ack) = head.ack.filter(|_| kind.has_events()) {
        text.push_str(&format!("X-Ack: {}\r\n", ack.token()));
    }
    if head.key_bytes > 0 {
        text.push_str("X-API-Key: ");
        image.key_at = Some(text.len());
        text.push_str(&" ".repeat(head.key_bytes));
        text.push_str("\r\n");
    }
    if head.may_close {
        text.push_str("Connection: ");
        image.connection_at = Some(text.len());
        text.push_str("keep-alive\r\n");
    }
    for line in &head.headers {
        text.push_str(&format!("{line}\r\n"));
    }
    text.push_str("\r\n");
    image.bytes = text.into_bytes();
    image
}

/// A body of events and where their numbers stand in it.
fn events_body(kind: &KindOptions, templates: &Templates, variant: usize) -> (Vec<u8>, Vec<usize>) {
    let (open, between, close): (&[u8], &[u8], &[u8]) = match kind.format {
        Format::Single => (b"", b"", b""),
        Format::Array => (b"[", b",", b"]"),
        Format::Ndjson => (b"", b"\n", b"\n"),
        Format::Envelope => (b"{\"events\":[", b",", b"]}"),
    };
    let mut body = open.to_vec();
    let mut numbers = Vec::with_capacity(kind.batch);
    for at in 0..kind.batch {
        if at > 0 {
            body.extend_from_slice(between);
        }
        let template = templates.get((variant * kind.batch + at) % templates.len()).expect("within the templates");
        let is_malformed = kind.kind == Kind::Malformed && at == kind.batch - 1;
        let spoilt = is_malformed.then(|| spoil(template, templates));
        let template = spoilt.as_ref().unwrap_or(template);
        numbers.push(body.len() + template.number_at);
        body.extend_from_slice(&template.bytes);
    }
    body.extend_from_slice(close);
    debug_assert!(numbers.windows(2).all(|pair| pair[1] - pair[0] > NUMBER_DIGITS));
    (body, numbers)
}

/// The event under the name of malformed ones, with a member that is no JSON: braces and quotes stay balanced, so that
/// the events beside it can still be told apart.
fn spoil(template: &Template, templates: &Templates) -> Template {
    let key = if template.bytes.starts_with(NameKey::EventId.opening()) { NameKey::EventId } else { NameKey::LoadId };
    let (mut bytes, number_at) = Name::blank(key, templates.run(), MALFORMED_TEMPLATE);
    bytes.extend_from_slice(&template.bytes[template.number_at + NUMBER_DIGITS + 1..template.bytes.len() - 1]);
    bytes.extend_from_slice(b",\"bad\":nul}");
    Template { bytes, number_at }
}

/// A JSON object of about `bytes` bytes.
fn echo_body(bytes: usize) -> Vec<u8> {
    let mut body = b"{\"items\":[0".to_vec();
    let mut item = 0;
    while body.len() + 40 < bytes {
        item += 1;
        body.extend_from_slice(format!(",{{\"item\":{item},\"text\":\"echo me\"}}").as_bytes());
    }
    body.extend_from_slice(b"],\"pad\":\"");
    body.resize(body.len().max(bytes.saturating_sub(2)), b'x');
    body.extend_from_slice(b"\"}");
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Run, TemplateKind};

    fn options(kind: Kind, batch: usize, format: Format) -> KindOptions {
        KindOptions { kind, batch, format, path: None, content_type: None, echo_bytes: 23_000 }
    }

    fn templates() -> Templates {
        Templates::generated(TemplateKind::Attribution, Run(9), 1)
    }

    fn events_of(format: Format, body: &[u8]) -> Vec<serde_json::Value> {
        let text = std::str::from_utf8(body).unwrap();
        match format {
            Format::Single => vec![serde_json::from_str(text).unwrap()],
            Format::Array => serde_json::from_str(text).unwrap(),
            Format::Ndjson => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            Format::Envelope => {
                let value: serde_json::Value = serde_json::from_str(text).unwrap();
                value["events"].as_array().unwrap().clone()
            }
        }
    }

    #[test]
    fn every_format_holds_its_events_with_ascending_numbers_after_patching() {
        for (format, batch) in [(Format::Single, 1), (Format::Array, 7), (Format::Ndjson, 7), (Format::Envelope, 7)] {
            let head = HeadOptions { host: "h".into(), ..HeadOptions::default() };
            for image in images(&options(Kind::Events, batch, format), &head, &templates()) {
                let mut bytes = image.bytes.clone();
                image.write_numbers(&mut bytes, 995);
                let head = std::str::from_utf8(&bytes[..image.body_at]).unwrap();
                assert!(head.contains(&format!("Content-Length: {}\r\n", bytes.len() - image.body_at)), "{head}");
                let events = events_of(format, &bytes[image.body_at..]);
                assert_eq!(events.len(), batch);
                for (at, event) in events.iter().enumerate() {
                    let id = event["event_id"].as_str().unwrap();
                    assert!(id.ends_with(&format!("-{:016}", 995 + at)), "{id}");
                }
            }
        }
    }

    #[test]
    fn the_images_of_a_kind_show_every_template() {
        let templates = templates();
        let head = HeadOptions::default();
        let images = images(&options(Kind::Events, 100, Format::Ndjson), &head, &templates);
        let mut seen = std::collections::BTreeSet::new();
        for image in &images {
            for event in image.bytes[image.body_at..].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                seen.insert(Name::of_line(event).unwrap().template);
            }
        }
        assert_eq!(seen.len(), templates.len());
    }

    #[test]
    fn key_connection_and_length_are_patched_in_place() {
        let head = HeadOptions {
            host: "h".into(),
            key_bytes: 8,
            may_close: true,
            encoding: Encoding::Gzip,
            ack: Some(Ack::Memory),
            headers: vec!["X-More: 1".into()],
            ..HeadOptions::default()
        };
        let image = &images(&options(Kind::Events, 1, Format::Single), &head, &templates())[0];
        let mut bytes = image.bytes.clone();
        image.write_key(&mut bytes, b"abc", 8);
        image.write_connection(&mut bytes, true);
        image.write_length(&mut bytes, 1234);
        let text = std::str::from_utf8(&bytes[..image.body_at]).unwrap();
        for line in
            ["X-API-Key: abc     ", "Connection: close     ", "Content-Length:     1234", "X-Ack: memory", "X-More: 1"]
        {
            assert!(text.contains(&format!("{line}\r\n")), "{line} in {text}");
        }
        image.write_key(&mut bytes, b"abcdefgh", 8);
        image.write_connection(&mut bytes, false);
        assert!(std::str::from_utf8(&bytes[..image.body_at]).unwrap().contains("Connection: keep-alive\r\n"));
        assert_eq!(bytes.len(), image.bytes.len());
    }

    #[test]
    fn a_malformed_request_has_one_bad_event_under_the_name_of_bad_ones() {
        let head = HeadOptions::default();
        let image = &images(&options(Kind::Malformed, 5, Format::Ndjson), &head, &templates())[0];
        let lines: Vec<&[u8]> = image.bytes[image.body_at..].split(|byte| *byte == b'\n').collect();
        for (at, line) in lines[..5].iter().enumerate() {
            let is_json = serde_json::from_slice::<serde_json::Value>(line).is_ok();
            let is_named_bad = Name::of_line(line).unwrap().template == MALFORMED_TEMPLATE;
            assert_eq!((is_json, is_named_bad), if at == 4 { (false, true) } else { (true, false) });
        }
    }

    /// A body of what is just within the limit has places for its numbers; the next longer one has none.
    #[test]
    fn bodies_that_no_image_can_hold_are_refused_and_no_others() {
        let lines = ["{\"a\":1}".to_owned(), format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 19))];
        let templates = Templates::of_lines(lines.iter().map(String::as_bytes), Run(1)).unwrap();
        let check = |batch, encoding| options(Kind::Events, batch, Format::Ndjson).check_body(encoding, &templates);
        for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Zstd] {
            assert!(check(BATCH_MAX, encoding).unwrap_err().contains("--batch 1000000"));
            assert!(check(300, encoding).is_ok());
        }
        // Half of them are 512 KiB long.
        assert!(check(4094, Encoding::Identity).is_ok() && check(4098, Encoding::Identity).is_err());
        assert!(check(400, Encoding::Gzip).is_err() && check(400, Encoding::Identity).is_ok());
        assert!(options(Kind::Health, BATCH_MAX, Format::Ndjson).check_body(Encoding::Identity, &templates).is_ok());
        for batch in [1, 2, 3, 300] {
            let kinds =
                [options(Kind::Events, batch, Format::Envelope), options(Kind::Malformed, batch, Format::Array)];
            for image in kinds.iter().flat_map(|kind| images(kind, &HeadOptions::default(), &templates)) {
                let body = (image.bytes.len() - image.body_at) as u64;
                assert!(body <= templates.bytes_at_most(batch) + batch as u64 + BODY_BYTES_BESIDE, "{batch}: {body}");
            }
        }
    }

    #[test]
    fn an_echo_has_the_bytes_asked_for_and_is_json() {
        for bytes in [100, 23_000] {
            let body = echo_body(bytes);
            assert_eq!(body.len(), bytes);
            serde_json::from_slice::<serde_json::Value>(&body).unwrap();
        }
    }
}
