//! Does the kernel's receive bundle do what it says? Tried at start on a socket of our own, because several kernels had
//! bundles that lost or repeated bytes; without them a shard receives one buffer at a time. Shard thread, before the first
//! turn.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::sys::uring::{Completion, ProvidedBuffers, Ring, Slot, Wait};

/// A buffer group of the test's own.
const GROUP: u16 = 1;
const BUFFERS: u16 = 16;
const BUFFER_BYTES: usize = 256;
/// Enough for several bundles and an unfinished buffer at the end; sent in two pieces.
const PIECES: [usize; 2] = [5 * BUFFER_BYTES + 17, 3 * BUFFER_BYTES + 1];
/// A loopback socket answers in microseconds; a kernel that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(2);

const ACCEPT: u64 = 1;
const CANCEL: u64 = 2;
const RECEIVE: u64 = 3;
const SHUTDOWN: u64 = 4;
const CLOSE: u64 = 5;

/// Whether bytes sent to a bundle receive arrive complete, in order, in the buffers the completions say.
///
/// # Errors
/// The errno of what the test itself needs: sockets, ring, memory. A kernel without bundles is no error but `false`.
pub(super) fn bundles_work(ring: &mut Ring) -> io::Result<bool> {
    let mut buffers = ProvidedBuffers::new(ring, GROUP, BUFFERS, BUFFER_BYTES)?;
    buffers.lend(BUFFERS);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    ring.accept(listener.as_fd(), ACCEPT)?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let accepted = next(ring)?;
    ring.cancel(ACCEPT, CANCEL)?;
    let (_, _) = (next(ring)?, next(ring)?);
    let Some(slot) = accepted.and_then(|accepted| u32::try_from(accepted.result).ok()).map(Slot) else {
        return Err(io::Error::other("the self-test's connection was not accepted"));
    };
    ring.receive(slot, GROUP, true, RECEIVE)?;
    let mut ended = false;
    let intact = pieces_arrive(ring, &mut buffers, &mut client, &mut ended)?;
    // Ends the receive, if it has not ended yet, and waits for every completion before the buffers go.
    drop(client);
    ring.shutdown_both(slot, SHUTDOWN)?;
    ring.cancel(RECEIVE, CANCEL)?;
    let (mut shut, mut cancelled) = (false, false);
    while !(shut && cancelled && ended) {
        let Some(completion) = next(ring)? else { return Err(io::Error::other("the self-test's receive never ended")) };
        shut |= completion.user_data == SHUTDOWN;
        cancelled |= completion.user_data == CANCEL;
        ended |= completion.user_data == RECEIVE && !completion.more();
    }
    ring.close(slot, CLOSE)?;
    next(ring)?;
    ring.unregister_buffers(GROUP)?;
    Ok(intact)
}

fn pieces_arrive(
    ring: &mut Ring,
    buffers: &mut ProvidedBuffers,
    client: &mut TcpStream,
    ended: &mut bool,
) -> io::Result<bool> {
    let mut expected = 0u32;
    for piece in PIECES {
        let bytes: Vec<u8> = (expected..).take(piece).map(|byte| (byte % 251) as u8).collect();
        client.write_all(&bytes)?;
        let mut arrived = 0;
        while arrived < piece {
            let Some(completion) = next(ring)? else { return Ok(false) };
            *ended = !completion.more();
            let (Some(first), true) = (completion.buffer(), completion.result > 0) else { return Ok(false) };
            let received = completion.result as usize;
            if received > piece - arrived {
                return Ok(false);
            }
            let mut runs = Vec::new();
            buffers.take(first, received, &mut runs);
            for run in runs {
                for byte in buffers.bytes_of(&run) {
                    if u32::from(*byte) != expected % 251 {
                        return Ok(false);
                    }
                    expected += 1;
                }
                buffers.give_back(run);
            }
            buffers.lend(BUFFERS);
            arrived += received;
        }
    }
    Ok(true)
}

fn next(ring: &mut Ring) -> io::Result<Option<Completion>> {
    let mut out = [Completion::default(); 1];
    let started = std::time::Instant::now();
    while started.elapsed() < PATIENCE {
        if ring.reap(&mut out) == 1 {
            return Ok(Some(out[0]));
        }
        ring.enter(Wait::For(PATIENCE))?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::MIB;
    use crate::sys::memory::Region;
    use std::sync::Arc;

    #[test]
    fn the_test_passes_here_and_leaves_a_clean_ring() {
        let mut ring = Ring::new(64, 256, 16, Arc::new(Region::map(MIB, false).unwrap())).unwrap();
        for _ in 0..2 {
            assert!(bundles_work(&mut ring).unwrap(), "this kernel's bundles do not work: receives fall back");
        }
        assert_eq!(ring.reap(&mut [Completion::default(); 4]), 0);
    }
}
