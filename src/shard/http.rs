//! Request heads: bytes to [`Request`]. Shard thread; pure.
//!
//! httparse cuts the head into its parts; what a request may look like is decided here, because a head that two
//! programs read differently is how requests are smuggled past the one in front. So, beyond httparse: lines end in CR
//! LF and in nothing else, a body has one length, given once, and `Host` is there once. Whatever breaks a rule is 400 and
//! the end of the connection.
//!
//! What is absent: bodies ([`super::framing`]), whose a key is ([`super::door`]), any state but the caller's `scanned`.

use std::mem::MaybeUninit;

use super::code::{ErrorCode, HttpError};
use super::request::{Content, Encoding, Framing, KeyPlace, Request, RequestId, Route};
use crate::admit::Priority;
use crate::base::{AckLevel, HEADERS_MAX, Limits};

/// Empty lines skipped before a request line. RFC 9112 §2.2 asks for one; some old clients send more after a body.
const EMPTY_LINES_MAX: usize = 4;

/// How the PROXY protocol begins: version 1 with either family or with none, version 2 behind its empty lines.
const PROXY_HEADS: [&[u8]; 3] = [b"PROXY TCP", b"PROXY UNKNOWN", b"\0\r\nQUIT\n"];

const HEADERS_TOO_LARGE: HttpError = HttpError {
    code: ErrorCode::HeadersTooLarge,
    message: "request line and headers are over the limit: send fewer or shorter headers",
};

/// Reads one request head from the front of `input`, which holds everything received and not yet consumed.
///
/// Returns the request and the bytes of its head, empty lines before it included; `None` while the head is incomplete.
/// `scanned` is 0 for a new request and belongs to the caller's connection: it remembers how much of an incomplete
/// head was searched for its end, so that a head sent byte by byte costs no more than one sent at once.
///
/// # Errors
/// 400 for what RFC 9112 or this server does not allow, 431 for more than [`HEADERS_MAX`] headers or more than
/// `head_bytes_max` bytes. The connection is to be closed after the answer.
pub fn parse_head(input: &[u8], scanned: &mut usize, limits: &Limits) -> Result<Option<(Request, usize)>, HttpError> {
    let parsed = parse_http(input, scanned, limits);
    match parsed {
        Ok(Some(_)) => parsed,
        Ok(None) | Err(_) => other_protocol(&input[empty_lines(input)..]).map_or(parsed, Err),
    }
}

/// What is spoken instead of HTTP, as far as it is a mistake that is made. It is answered at once: a TLS client waits for its
/// server, and would until the head's time is over.
fn other_protocol(head: &[u8]) -> Option<HttpError> {
    // None of these begins a head that could still become a request: it would depend on how the bytes arrive whether it does.
    // A TLS record's type is handshake (RFC 8446 §5.1). Versions 1 and 2 of the PROXY protocol begin like this, the second
    // behind two empty lines (haproxy's proxy-protocol.txt, 2.1 and 2.2); PROXY alone may be a method (RFC 9110 §9.1), and no
    // request target begins with a letter but those of http.
    let message = if head.first() == Some(&0x16) {
        "this looks like TLS, and the port speaks plain HTTP: use http://, or end TLS in a proxy before it"
    } else if PROXY_HEADS.iter().any(|begin| head.starts_with(begin)) {
        "the PROXY protocol is not spoken here: turn it off at the balancer"
    } else {
        return None;
    };
    Some(HttpError::bad_request(message))
}

fn parse_http(input: &[u8], scanned: &mut usize, limits: &Limits) -> Result<Option<(Request, usize)>, HttpError> {
    let start = empty_lines(input);
    let head = &input[start..];
    let within_limit = &head[..head.len().min(limits.head_bytes_max)];
    let Some(end) = find_end(within_limit, scanned.saturating_sub(start))? else {
        if head.len() > limits.head_bytes_max {
            return Err(HEADERS_TOO_LARGE);
        }
        *scanned = input.len();
        return Ok(None);
    };
    *scanned = 0;
    let mut request = parse_complete(&head[..end])?;
    if let Some(key) = &mut request.key {
        key.start += start as u32;
    }
    Ok(Some((request, start + end)))
}

/// Bytes of the empty lines at the front.
fn empty_lines(input: &[u8]) -> usize {
    let lines = input.chunks_exact(2).take(EMPTY_LINES_MAX).take_while(|pair| pair == b"\r\n").count();
    2 * lines
}

/// Index after the empty line that ends the head; `None` if it has not come yet. Bytes before `from` were searched
/// before.
///
/// # Errors
/// A line feed without its carriage return: httparse would take it for a line's end.
fn find_end(head: &[u8], from: usize) -> Result<Option<usize>, HttpError> {
    for at in memchr::memchr_iter(b'\n', &head[from.min(head.len())..]) {
        let at = from + at;
        if at == 0 || head[at - 1] != b'\r' {
            return Err(HttpError::bad_request("a line must end in CR LF, not in a bare LF"));
        }
        if at >= 2 && head[at - 2] == b'\n' {
            return Ok(Some(at + 1));
        }
        if at == 1 {
            return Err(HttpError::bad_request("too many empty lines before the request line"));
        }
    }
    Ok(None)
}

fn parse_complete(head: &[u8]) -> Result<Request, HttpError> {
    let mut storage = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, &mut storage) {
        Ok(httparse::Status::Complete(bytes)) if bytes == head.len() => {}
        Ok(_) => return Err(HttpError::bad_request("malformed request head")),
        Err(error) => return Err(refused_by_httparse(error)),
    }
    // Lines end in CR LF (find_end), so there are as many CRs as lines, or one stands alone.
    if memchr::memchr_iter(b'\r', head).count() != parsed.headers.len() + 2 {
        return Err(HttpError::bad_request("a CR must be followed by LF"));
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(HttpError::bad_request("malformed request line"));
    };
    let http10 = version == 0;
    let mut fields = Fields::default();
    for header in &*parsed.headers {
        fields.take(header.name.as_bytes(), header.value)?;
    }
    if fields.hosts > 1 || (fields.hosts == 0 && !http10) {
        return Err(HttpError::bad_request("exactly one Host header is needed"));
    }
    let (path, query) = split_target(method, target)?;
    let route = route(method, path);
    let atomic = matches!(route, Route::Events | Route::EventsBatch) && is_atomic(query)?;
    Ok(Request {
        route,
        is_head: method == "HEAD",
        http10,
        keep_alive: if http10 { fields.keep_alive && !fields.close } else { !fields.close },
        // RFC 9110 §10.1.1: from an HTTP/1.0 client the expectation is ignored.
        expect_continue: fields.expect_continue && !http10,
        framing: fields.framing(http10)?,
        content: fields.content.unwrap_or(Content::Json),
        encoding: fields.encoding.unwrap_or(Encoding::Identity),
        ack: fields.ack,
        atomic,
        key: fields.key.map(|key| KeyPlace {
            start: (key.as_ptr().addr() - head.as_ptr().addr()) as u32,
            bytes: key.len() as u32,
        }),
        priority: fields.priority.unwrap_or_default(),
        request_id: fields.request_id,
    })
}

fn refused_by_httparse(error: httparse::Error) -> HttpError {
    HttpError::bad_request(match error {
        httparse::Error::TooManyHeaders => return HEADERS_TOO_LARGE,
        httparse::Error::HeaderName => "malformed header name: no white space before its colon, no folded lines",
        httparse::Error::HeaderValue => "malformed header value",
        httparse::Error::Version => "HTTP/1.1 or HTTP/1.0 is needed",
        httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token => "malformed request line",
    })
}

/// The headers that matter, as they are met.
#[derive(Default)]
struct Fields<'a> {
    hosts: u32,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expect_continue: bool,
    content: Option<Content>,
    encoding: Option<Encoding>,
    ack: Option<AckLevel>,
    request_id: Option<RequestId>,
    key: Option<&'a [u8]>,
    priority: Option<Priority>,
}

impl<'a> Fields<'a> {
    /// The name's length decides first: most headers are none of these and cost one jump.
    #[inline]
    fn take(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), HttpError> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            4 if is("host") => {
                self.hosts += 1;
                if !value.iter().all(|byte| is_host_byte(*byte)) {
                    return Err(HttpError::bad_request("malformed Host header"));
                }
            }
            5 if is("x-ack") => {
                let level = AckLevel::from_name(value)
                    .ok_or(HttpError::bad_request("X-Ack must be durable, written or memory"))?;
                once(&mut self.ack, level, "X-Ack was given twice")?;
            }
            6 if is("expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(HttpError::bad_request("the only Expect served is 100-continue"));
                }
                self.expect_continue = true;
            }
            9 if is("x-api-key") => once(&mut self.key, value, TWO_KEYS)?,
            10 if is("x-priority") => {
                let priority = Priority::from_name(value)
                    .ok_or(HttpError::bad_request("X-Priority must be low, normal or high"))?;
                once(&mut self.priority, priority, "X-Priority was given twice")?;
            }
            10 if is("connection") => {
                for option in list(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            12 if is("content-type") => {
                once(&mut self.content, content(value), "Content-Type was given twice")?;
            }
            12 if is("x-request-id") => self.request_id = RequestId::from_client(value),
            // Another scheme is somebody else's: a proxy's, say. Where a key is needed, it is none.
            13 if is("authorization") => {
                if let Some(key) = bearer(value) {
                    once(&mut self.key, key, TWO_KEYS)?;
                }
            }
            14 if is("content-length") => {
                let bytes = content_length(value)?;
                // Twice the same is allowed to be folded into one (RFC 9110 §8.6), and is refused: no client needs it.
                once(&mut self.length, bytes, "Content-Length was given twice")?;
            }
            16 if is("content-encoding") => {
                // Two codings on top of each other, in one header or two, are not served.
                let encoding = if self.encoding.is_some() { Encoding::Unsupported } else { encoding(value) };
                self.encoding = Some(encoding);
            }
            17 if is("transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(HttpError::bad_request("the only Transfer-Encoding served is chunked, given once"));
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112 §6.1 and §6.3: both a length and a transfer coding is how requests are smuggled, and HTTP/1.0 has no
    /// transfer codings.
    fn framing(&self, http10: bool) -> Result<Framing, HttpError> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(HttpError::bad_request("Content-Length and Transfer-Encoding exclude each other")),
            (true, None) if http10 => Err(HttpError::bad_request("HTTP/1.0 has no Transfer-Encoding")),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(0) | None) => Ok(Framing::None),
            (false, Some(bytes)) => Ok(Framing::Length(bytes)),
        }
    }
}

fn once<T>(field: &mut Option<T>, value: T, twice: &'static str) -> Result<(), HttpError> {
    if field.replace(value).is_some() { Err(HttpError::bad_request(twice)) } else { Ok(()) }
}

const TWO_KEYS: &str = "give one API key, by Authorization or by X-API-Key";

/// The token of `Bearer token` (RFC 6750 §2.1); `None` of any other scheme.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
}

/// The bytes of `host [":" port]`: RFC 3986 §3.2.2, IPv6 brackets included.
const fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'%' | b'&'..=b',' | b';' | b'=' | b':' | b'[' | b']'
        )
}

/// Digits and nothing else: no sign, no list, no white space.
fn content_length(value: &[u8]) -> Result<u64, HttpError> {
    let malformed = HttpError::bad_request("Content-Length must be one decimal number");
    if value.is_empty() {
        return Err(malformed);
    }
    value.iter().try_fold(0u64, |bytes, digit| {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return Err(malformed);
        }
        bytes.checked_mul(10).and_then(|bytes| bytes.checked_add(u64::from(digit))).ok_or(malformed)
    })
}

/// The media type decides; parameters such as `charset` do not: JSON is UTF-8 (RFC 8259 §8.1).
fn content(value: &[u8]) -> Content {
    let media_type = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let is = |known: &str| media_type.eq_ignore_ascii_case(known.as_bytes());
    if is("application/json") {
        Content::Json
    } else if is("application/x-ndjson") || is("application/jsonl") || is("application/json-lines") {
        Content::Ndjson
    } else {
        Content::Unsupported
    }
}

fn encoding(value: &[u8]) -> Encoding {
    let is = |known: &str| value.eq_ignore_ascii_case(known.as_bytes());
    if is("gzip") || is("x-gzip") {
        Encoding::Gzip
    } else if is("zstd") {
        Encoding::Zstd
    } else if is("identity") || value.is_empty() {
        Encoding::Identity
    } else {
        Encoding::Unsupported
    }
}

/// The members of a comma-separated list (RFC 9110 §5.6.1).
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Path and query of a request target (RFC 9112 §3.2): origin form, or absolute form, whose authority is not looked
/// at, or `*` of OPTIONS. Nothing is percent-decoded: routes are matched as they are written.
fn split_target<'a>(method: &str, target: &'a str) -> Result<(&'a str, &'a str), HttpError> {
    let malformed = HttpError::bad_request("the request target must be a path or an absolute http URI");
    let local = if target.starts_with('/') {
        target
    } else if let Some(rest) = after_scheme(target) {
        let authority = rest.find(['/', '?']).unwrap_or(rest.len());
        if authority == 0 {
            return Err(malformed);
        }
        &rest[authority..]
    } else if method == "OPTIONS" && target == "*" {
        target
    } else {
        return Err(malformed);
    };
    let (path, query) = local.split_once('?').unwrap_or((local, ""));
    Ok((if path.is_empty() { "/" } else { path }, query))
}

fn after_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].iter().find_map(|scheme| {
        let head = target.get(..scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then(|| &target[scheme.len()..])
    })
}

fn route(method: &str, path: &str) -> Route {
    let (route, allow) = match path {
        "/v1/events" => (Route::Events, "POST"),
        "/v1/events/batch" => (Route::EventsBatch, "POST"),
        "/api/echo" => (Route::Echo, "POST"),
        "/health" => (Route::Health, "GET, HEAD"),
        "/ready" => (Route::Ready, "GET, HEAD"),
        "/api/metrics" => (Route::Metrics, "GET, HEAD"),
        _ => return Route::NotFound,
    };
    let allowed = match method {
        "POST" => allow == "POST",
        "GET" | "HEAD" => allow != "POST",
        _ => false,
    };
    if allowed { route } else { Route::MethodNotAllowed { allow } }
}

/// Whether the query asks for `atomic`. What nearly does is refused: who asks for all or nothing must not get the default by
/// a slip.
fn is_atomic(query: &str) -> Result<bool, HttpError> {
    let mut atomic = None;
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name == "atomic" {
            let asked = match value {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => return Err(HttpError::bad_request("atomic must be true or false")),
            };
            if *atomic.get_or_insert(asked) != asked {
                return Err(HttpError::bad_request("atomic is given twice, once true and once false"));
            }
        } else if holds(name, b"atomic") || holds(value, b"atomic=") {
            return Err(HttpError::bad_request(
                "a parameter is spelt nearly like atomic: write ?atomic=true or &atomic=true",
            ));
        }
    }
    Ok(atomic.unwrap_or(false))
}

/// Whether `text` has `part` in it, in upper or lower case.
fn holds(text: &str, part: &[u8]) -> bool {
    text.as_bytes().windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
