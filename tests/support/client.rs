//! An HTTP client over a raw socket: sends any bytes, well formed or not, and reads answers strictly.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::wait::PATIENCE;

/// Longest answer head the client takes; the server's are a few hundred bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// Status code.
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    /// Body bytes.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Value of a header, its name in any case.
    ///
    /// # Panics
    /// If the header is there twice.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let first = values.next();
        assert!(values.next().is_none(), "{name} is there twice: {self:?}");
        first.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the body of {}: {}", self.status, self.text()))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Asserts the status, showing the answer where it differs.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// Asserts that this is an error answer as the contract describes it.
    #[track_caller]
    pub(crate) fn expect_error(self, status: u16, code: &str) -> Self {
        let this = self.expect(status);
        let json = this.json();
        assert_eq!(json["code"], code, "{json}");
        assert_eq!(json["success"], false, "{json}");
        let name = json["error"].as_str().expect("error is a string");
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert!(json["message"].as_str().is_some_and(|message| message.len() > 4), "{json}");
        assert!(json["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{json}");
        this
    }
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    /// If that fails.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("connecting to {address}: {error}"))
    }

    /// Connects.
    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect(address)?)
    }

    /// Wraps a connected socket.
    pub(crate) fn over(stream: TcpStream) -> io::Result<Self> {
        // An answer that does not come fails the test instead of hanging it.
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Sends all of `bytes`.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the server takes what it is sent");
    }

    /// Sends all of `bytes`, or as much as the server takes before it closes.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends each byte in a segment of its own.
    #[track_caller]
    pub(crate) fn send_byte_by_byte(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.send(std::slice::from_ref(byte));
        }
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: &[u8]) -> Response {
        self.send(request);
        self.receive()
    }

    /// The same connection, to send on while another thread reads.
    pub(crate) fn sender(&self) -> Self {
        Self { stream: self.stream.try_clone().expect("the socket is open"), received: Vec::new() }
    }

    /// Reads the next answer.
    #[track_caller]
    pub(crate) fn receive(&mut self) -> Response {
        self.try_receive().expect("an answer")
    }

    /// Reads the next answer, or says how the connection ended.
    pub(crate) fn try_receive(&mut self) -> io::Result<Response> {
        self.receive_answer(true)
    }

    /// Reads the next answer to a HEAD request: it has no body, whatever its length says.
    #[track_caller]
    pub(crate) fn receive_head(&mut self) -> Response {
        self.receive_answer(false).expect("an answer")
    }

    /// Asserts that the server closes the connection and sends nothing more.
    #[track_caller]
    pub(crate) fn expect_closed(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "more than was expected: {}", String::from_utf8_lossy(&rest));
    }

    /// Everything until the server closes the connection. A reset is a close: it is what TCP makes of closing with
    /// input unread.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if is_closed(&error) => break,
                Err(error) => panic!("the server did not close the connection: {error}"),
            }
        }
        std::mem::take(&mut self.received)
    }

    /// Whether an answer, or a part of one, or the end of the connection is there now.
    pub(crate) fn has_answer(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("the socket is open");
        let filled = self.fill();
        self.stream.set_nonblocking(false).expect("the socket is open");
        match filled {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => !self.received.is_empty(),
            _ => true,
        }
    }

    fn receive_answer(&mut self, with_body: bool) -> io::Result<Response> {
        let head_bytes = loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.received.len() < HEAD_BYTES_MAX, "an answer head without an end");
            self.fill_some()?;
        };
        let head = String::from_utf8(self.received[..head_bytes - 4].to_vec()).expect("an answer head is ASCII");
        let mut response = parse_head(&head);
        let has_length = response.header("content-length").is_some();
        assert!(has_length || matches!(response.status, 100 | 204), "an answer without a length: {head}");
        let length = response.header("content-length").map_or(0, |text| text.parse().expect("a length"));
        let body_bytes = if with_body { length } else { 0 };
        while self.received.len() < head_bytes + body_bytes {
            self.fill_some()?;
        }
        response.body = self.received[head_bytes..head_bytes + body_bytes].to_vec();
        self.received.drain(..head_bytes + body_bytes);
        Ok(response)
    }

    fn fill_some(&mut self) -> io::Result<()> {
        match self.fill()? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let bytes = loop {
            match self.stream.read(&mut buffer) {
                // A read with a timeout ends so when the whole run is stopped and continued: signal(7).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.received.extend_from_slice(&buffer[..bytes]);
        Ok(bytes)
    }
}

/// Whether an error means that the peer has closed the connection.
pub(crate) fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

fn parse_head(head: &str) -> Response {
    assert!(!head.replace("\r\n", "").contains(['\r', '\n']), "a bare CR or LF in an answer: {head:?}");
    let mut lines = head.split("\r\n");
    let status_line = lines.next().expect("split gives one piece at least");
    let rest = status_line.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("not a status line: {status_line}"));
    let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    assert!(status.len() == 3 && reason.is_ascii(), "not a status line: {status_line}");
    let headers = lines
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a header: {line:?}"));
            assert!(!name.is_empty() && !name.contains(' '), "not a header name: {name:?}");
            (name.to_owned(), value.trim().to_owned())
        })
        .collect();
    Response { status: status.parse().expect("a status is a number"), headers, body: Vec::new() }
}
