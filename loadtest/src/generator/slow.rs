//! Slow readers: connections that ask much and read a few bytes at a time, beside the load. Generator thread.
//!
//! What a hostile or broken client does. A good server bounds what it keeps for them, closes them at last, and serves
//! everybody else as before; the load's own latencies show whether it does.

use std::io;

use super::Generator;
use super::lifecycle::new_socket;
use super::turn::Operation;
use crate::sys::ring::Part;

/// Requests in one send.
const REQUESTS: usize = 64;
/// Room for the requests and for what is read.
pub(super) const AREA_BYTES: usize = REQUESTS * REQUEST_BYTES_MAX + READ_BYTES;
const REQUEST_BYTES_MAX: usize = 320;
/// Bytes read at a time, and how often.
const READ_BYTES: usize = 64;
const READ_EVERY_NS: u64 = 100_000_000;
/// The least that the kernel gives: the server's sends block early.
const RECEIVE_BUFFER_BYTES: usize = 4096;
/// Wait before a closed one comes back.
const REOPEN_NS: u64 = 500_000_000;

/// One slow reader.
pub(super) struct SlowReader {
    slot: u32,
    requests: Part,
    into: Part,
    is_open: bool,
    /// Requests of the kernel under way.
    operations: u8,
    ending: bool,
    receiving: bool,
    next_at: u64,
}

impl SlowReader {
    pub(super) fn new(slot: u32, area_at: usize) -> Self {
        Self {
            slot,
            requests: Part { offset: area_at, bytes: REQUESTS * REQUEST_BYTES_MAX },
            into: Part { offset: area_at + REQUESTS * REQUEST_BYTES_MAX, bytes: READ_BYTES },
            is_open: false,
            operations: 0,
            ending: false,
            receiving: false,
            next_at: 0,
        }
    }
}

/// Writes the requests that all of them send, each padded to the same length by a header.
pub(super) fn write_request(area: &mut [u8], host: &str) {
    let head = format!("GET /health HTTP/1.1\r\nHost: {host}\r\nX-Pad: ");
    for place in area[..REQUESTS * REQUEST_BYTES_MAX].chunks_mut(REQUEST_BYTES_MAX) {
        place.fill(b'x');
        let head = &head.as_bytes()[..head.len().min(REQUEST_BYTES_MAX - 4)];
        place[..head.len()].copy_from_slice(head);
        place[REQUEST_BYTES_MAX - 4..].copy_from_slice(b"\r\n\r\n");
    }
}

fn reader<'g>(generator: &'g mut Generator<'_>, at: u32) -> &'g mut SlowReader {
    let first = generator.connections.len();
    &mut generator.slow[at as usize - first]
}

/// Opens those that are closed, and lets each open one read a little.
pub(super) fn tick(generator: &mut Generator<'_>, now: u64) -> io::Result<()> {
    for index in 0..generator.slow.len() {
        let reader = &mut generator.slow[index];
        if now < reader.next_at || reader.ending || generator.draining {
            continue;
        }
        let slot = reader.slot;
        if reader.is_open {
            reader.next_at = now + READ_EVERY_NS;
            if !reader.receiving {
                reader.receiving = true;
                reader.operations += 1;
                let into = reader.into;
                generator.ring.receive_once(slot, into, Operation::SlowReceive.on(slot))?;
            }
        } else if reader.operations == 0 {
            reader.next_at = now + REOPEN_NS;
            let Ok(socket) = new_socket(generator.plan.target, Some(RECEIVE_BUFFER_BYTES)) else { continue };
            generator.ring.install(slot, socket.into())?;
            generator.slow[index].operations = 1;
            generator.ring.connect(slot, Operation::SlowConnect.on(slot))?;
        }
    }
    Ok(())
}

pub(super) fn connected(generator: &mut Generator<'_>, at: u32, result: i32, now: u64) -> io::Result<()> {
    let reader = reader(generator, at);
    reader.operations -= 1;
    if result < 0 {
        reader.next_at = now + REOPEN_NS;
        return generator.ring.remove(at);
    }
    reader.is_open = true;
    reader.next_at = now + READ_EVERY_NS;
    send(generator, at)
}

fn send(generator: &mut Generator<'_>, at: u32) -> io::Result<()> {
    let reader = reader(generator, at);
    reader.operations += 1;
    let requests = reader.requests;
    generator.ring.send(at, &[requests], Operation::SlowSend.on(at))
}

pub(super) fn sent(generator: &mut Generator<'_>, at: u32, result: i32, now: u64) -> io::Result<()> {
    let reader = reader(generator, at);
    let is_whole = usize::try_from(result) == Ok(reader.requests.bytes);
    if reader.ending || !is_whole {
        return end(generator, at, now);
    }
    reader.operations -= 1;
    // Asks on: the server's own limit is what ends it.
    send(generator, at)
}

pub(super) fn received(generator: &mut Generator<'_>, at: u32, result: i32, now: u64) -> io::Result<()> {
    generator.slow_bytes += u64::try_from(result).unwrap_or(0);
    let reader = reader(generator, at);
    reader.receiving = false;
    if reader.ending || result <= 0 {
        return end(generator, at, now);
    }
    reader.operations -= 1;
    Ok(())
}

/// One of the completions of a connection that the server closed: the first asks for the others.
fn end(generator: &mut Generator<'_>, at: u32, now: u64) -> io::Result<()> {
    let reader = reader(generator, at);
    reader.operations -= 1;
    if !reader.ending {
        reader.ending = true;
        if reader.operations > 0 {
            reader.operations += 1;
            return generator.ring.shutdown(at, Operation::SlowEnd.on(at));
        }
    }
    finish(generator, at, now)
}

pub(super) fn ended(generator: &mut Generator<'_>, at: u32, now: u64) -> io::Result<()> {
    reader(generator, at).operations -= 1;
    finish(generator, at, now)
}

fn finish(generator: &mut Generator<'_>, at: u32, now: u64) -> io::Result<()> {
    let reader = reader(generator, at);
    if reader.operations > 0 {
        return Ok(());
    }
    reader.ending = false;
    reader.is_open = false;
    reader.next_at = now + REOPEN_NS;
    generator.slow_closed += 1;
    generator.ring.remove(at)
}
