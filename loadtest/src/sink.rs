//! A server that does nothing: receives, and answers or drops. Its own thread, one io_uring loop.
//!
//! The ceiling of any HTTP server on the machine with the same kernel interface: what remains when parsing, storing and
//! acknowledging cost nothing. It looks for as much of a request as it needs to find its end (the length of the body),
//! and believes it. It can also stall on purpose, to show what a stall does to measured latencies.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memchr::{memchr, memmem};
use socket2::{Domain, Socket, Type};

use crate::sys::buffers::ReceiveBuffers;
use crate::sys::memory::Area;
use crate::sys::ring::{Completion, Part, Ring, RingSize};
use crate::sys::thread;

/// Buffers for what is received: sizes at which bundles were fastest on the machines this was written on.
const RECEIVE_BUFFERS: u16 = 1024;
const RECEIVE_BUFFER_BYTES: usize = 16 << 10;
const BUFFER_GROUP: u16 = 1;
/// Connections at once.
const SLOTS: u32 = 16 << 10;
/// Connections the kernel keeps until they are accepted.
const BACKLOG: i32 = 8192;
/// Answers in one send.
const ANSWERS_MAX: usize = 256;
/// A head in pieces is kept up to this.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How often the stop flag is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

const ACCEPT: u64 = 1 << 56;
const RECEIVE: u64 = 2 << 56;
const SEND: u64 = 3 << 56;
const CLOSE: u64 = 4 << 56;
const END: u64 = 5 << 56;

/// What a sink does with what it receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SinkMode {
    /// Answer each request with 204.
    #[default]
    Answer,
    /// Never answer; nothing is looked at.
    Drop,
}

/// A pause on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// After so many requests nothing is received or answered …
    pub after_requests: u64,
    /// … for so long.
    pub length: Duration,
}

/// What a sink saw; read while it runs.
#[derive(Debug, Default)]
pub struct SinkCounts {
    /// Requests, where they are looked at.
    pub requests: AtomicU64,
    /// Bytes.
    pub bytes: AtomicU64,
}

/// A sink that listens.
pub struct Sink {
    listener: TcpListener,
    mode: SinkMode,
    stall: Option<Stall>,
}

struct Client {
    is_open: bool,
    /// Bytes of the present body still to come.
    body_left: u64,
    /// A head in pieces.
    head: Vec<u8>,
    /// Requests not yet answered, and those whose answers are being sent.
    unanswered: usize,
    sending: usize,
    operations: u8,
    ending: bool,
}

impl Sink {
    /// Binds to an address; port 0 takes a free one.
    ///
    /// # Errors
    /// The errno of bind(2) or listen(2).
    pub fn bind(address: SocketAddr, mode: SinkMode, stall: Option<Stall>) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        // Inherited by accepted sockets: an answer is not kept back for an acknowledgement of the one before.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self { listener: socket.into(), mode, stall })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The errno of getsockname(2).
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Receives until `stop`, on the calling thread, pinned to `core` if one is given.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn serve(self, core: Option<usize>, stop: &AtomicBool, counts: &SinkCounts) -> io::Result<()> {
        if let Some(core) = core.filter(|core| !thread::pin(*core)) {
            return Err(io::Error::other(format!("this process may not use core {core}")));
        }
        let mut area = Area::map(ANSWERS_MAX * ANSWER.len())?;
        for at in 0..ANSWERS_MAX {
            area.slice_mut(at * ANSWER.len(), ANSWER.len()).copy_from_slice(ANSWER);
        }
        let size = RingSize { entries: 4096, completions: 32 << 10, slots: SLOTS, parts_max: 1 };
        let mut ring = Ring::new(&size, area, None)?;
        let buffers = ReceiveBuffers::new(&mut ring, BUFFER_GROUP, RECEIVE_BUFFERS, RECEIVE_BUFFER_BYTES)?;
        ring.accept(self.listener.as_fd(), ACCEPT)?;
        let clients = (0..SLOTS).map(|_| Client::new()).collect();
        let mut turn = Turn {
            ring,
            buffers,
            mode: self.mode,
            clients,
            touched: VecDeque::new(),
            bundles: true,
            requests: 0,
            bytes: 0,
        };
        let mut stall = self.stall;
        while !stop.load(Ordering::Relaxed) {
            turn.ring.enter(Some(LOOK_EVERY))?;
            turn.reap(&self.listener)?;
            if stall.is_some_and(|stall| turn.requests >= stall.after_requests) {
                // Nothing is received or answered meanwhile: what a sink's stall is.
                let until = Instant::now() + stall.take().expect("just seen").length;
                while Instant::now() < until && !stop.load(Ordering::Relaxed) {
                    std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
                }
            }
            turn.answer()?;
            counts.requests.store(turn.requests, Ordering::Relaxed);
            counts.bytes.store(turn.bytes, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Client {
    fn new() -> Self {
        Self { is_open: false, body_left: 0, head: Vec::new(), unanswered: 0, sending: 0, operations: 0, ending: false }
    }

    /// Counts the requests that end in `input`. A head without a length has no body.
    fn requests_in(&mut self, mut input: &[u8]) -> usize {
        let mut ended = 0;
        while !input.is_empty() {
            if self.body_left > 0 {
                let taken = self.body_left.min(input.len() as u64);
                input = &input[taken as usize..];
                self.body_left -= taken;
                ended += usize::from(self.body_left == 0);
                continue;
            }
            let before = self.head.len();
            let end = if before == 0 {
                memmem::find(input, b"\r\n\r\n").map(|at| at + 4)
            } else {
                self.head.extend_from_slice(&input[..input.len().min(HEAD_BYTES_MAX)]);
                let from = before.saturating_sub(3);
                memmem::find(&self.head[from..], b"\r\n\r\n").map(|at| from + at + 4 - before)
            };
            let Some(end) = end else {
                if before == 0 {
                    self.head.extend_from_slice(&input[..input.len().min(HEAD_BYTES_MAX)]);
                }
                break;
            };
            self.body_left = if before == 0 { length_of(&input[..end]) } else { length_of(&self.head[..before + end]) };
            self.head.clear();
            input = &input[end..];
            ended += usize::from(self.body_left == 0);
        }
        ended
    }
}

/// The body's length that a head says; 0 if it says none.
fn length_of(head: &[u8]) -> u64 {
    const NAME: &[u8] = b"content-length:";
    let mut rest = head;
    while let Some(end) = memchr(b'\n', rest) {
        let line = &rest[..end];
        if line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME) {
            let value = line[NAME.len()..].trim_ascii();
            return std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        }
        rest = &rest[end + 1..];
    }
    0
}

struct Turn {
    ring: Ring,
    buffers: ReceiveBuffers,
    mode: SinkMode,
    clients: Vec<Client>,
    /// Clients with requests to be answered.
    touched: VecDeque<u32>,
    /// One completion may cover several buffers; older kernels refuse that.
    bundles: bool,
    requests: u64,
    bytes: u64,
}

impl Turn {
    fn reap(&mut self, listener: &TcpListener) -> io::Result<()> {
        let mut batch = [Completion::default(); 256];
        loop {
            let count = self.ring.reap(&mut batch);
            for completion in &batch[..count] {
                let slot = completion.user_data as u32;
                match completion.user_data & (0xff << 56) {
                    ACCEPT => self.accepted(completion, listener)?,
                    RECEIVE => self.received(slot, completion)?,
                    SEND => self.sent(slot, completion.result)?,
                    END => self.operation_ended(slot)?,
                    CLOSE => self.clients[slot as usize] = Client::new(),
                    other => panic!("a completion of operation {other:#x}, which was never submitted"),
                }
            }
            if count < batch.len() {
                return Ok(());
            }
        }
    }

    fn accepted(&mut self, completion: &Completion, listener: &TcpListener) -> io::Result<()> {
        if let Ok(slot) = u32::try_from(completion.result) {
            let client = &mut self.clients[slot as usize];
            assert!(!client.is_open, "slot {slot} was given away twice");
            client.is_open = true;
            self.receive(slot)?;
        }
        // Out of slots, or of descriptors: goes on with the next connection.
        if completion.more() { Ok(()) } else { self.ring.accept(listener.as_fd(), ACCEPT) }
    }

    fn receive(&mut self, slot: u32) -> io::Result<()> {
        self.clients[slot as usize].operations += 1;
        self.ring.receive(slot, BUFFER_GROUP, self.bundles, RECEIVE | u64::from(slot))
    }

    fn received(&mut self, slot: u32, completion: &Completion) -> io::Result<()> {
        let client = &mut self.clients[slot as usize];
        if completion.result > 0 {
            self.bytes += completion.result as u64;
            let buffer = completion.buffer().expect("a receive of ours names its buffer");
            let mode = self.mode;
            let mut ended = 0;
            self.buffers.consume(buffer, completion.result as usize, |input| {
                if mode == SinkMode::Answer {
                    ended += client.requests_in(input);
                }
            });
            if ended > 0 {
                self.requests += ended as u64;
                if client.unanswered == 0 {
                    self.touched.push_back(slot);
                }
                client.unanswered += ended;
            }
        }
        if completion.more() {
            return Ok(());
        }
        if client.ending {
            return self.operation_ended(slot);
        }
        match completion.result {
            result if result > 0 || result == -libc::ENOBUFS => {
                client.operations -= 1;
                self.receive(slot)
            }
            result if result == -libc::EINVAL && self.bundles => {
                client.operations -= 1;
                self.bundles = false;
                self.receive(slot)
            }
            _ => self.end(slot),
        }
    }

    /// One send per client takes all answers that are owed.
    fn answer(&mut self) -> io::Result<()> {
        for _ in 0..self.touched.len() {
            let Some(slot) = self.touched.pop_front() else { break };
            let client = &mut self.clients[slot as usize];
            if client.ending || client.unanswered == 0 {
                continue;
            }
            if client.sending > 0 {
                self.touched.push_back(slot);
                continue;
            }
            client.sending = client.unanswered.min(ANSWERS_MAX);
            client.unanswered -= client.sending;
            client.operations += 1;
            let part = Part { offset: 0, bytes: client.sending * ANSWER.len() };
            if client.unanswered > 0 {
                self.touched.push_back(slot);
            }
            self.ring.send(slot, &[part], SEND | u64::from(slot))?;
        }
        Ok(())
    }

    fn sent(&mut self, slot: u32, result: i32) -> io::Result<()> {
        let client = &mut self.clients[slot as usize];
        let bytes = std::mem::take(&mut client.sending) * ANSWER.len();
        if client.ending {
            return self.operation_ended(slot);
        }
        if usize::try_from(result) != Ok(bytes) {
            return self.end(slot);
        }
        client.operations -= 1;
        Ok(())
    }

    /// Begins to end a client, in the completion of one of its operations.
    fn end(&mut self, slot: u32) -> io::Result<()> {
        let client = &mut self.clients[slot as usize];
        client.ending = true;
        if client.operations > 1 {
            // Takes the place of the operation that has just completed.
            return self.ring.shutdown(slot, END | u64::from(slot));
        }
        self.operation_ended(slot)
    }

    fn operation_ended(&mut self, slot: u32) -> io::Result<()> {
        let client = &mut self.clients[slot as usize];
        client.operations -= 1;
        if client.operations == 0 { self.ring.close(slot, CLOSE | u64::from(slot)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_wherever_they_are_cut() {
        let requests = b"POST / HTTP/1.1\r\ncontent-LENGTH: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: x\r\n\r\n\
            POST / HTTP/1.1\r\nContent-Length:        3\r\n\r\nabc";
        for piece in 1..=requests.len() {
            let mut client = Client::new();
            let ended: usize = requests.chunks(piece).map(|input| client.requests_in(input)).sum();
            assert_eq!((ended, client.body_left, client.head.len()), (3, 0, 0), "in pieces of {piece}");
        }
    }
}
