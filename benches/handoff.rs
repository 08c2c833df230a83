//! The hand-off between a shard and its writer: what a chunk costs on one thread, and what waking a sleeper costs.
//!
//! `wake` compares the two bells there are: an eventfd that the sleeper's ring polls, and MSG_RING from ring to ring.
//! Both sleepers wait in `io_uring_enter` as the server's threads do; an iteration is there and back, two wake-ups. On
//! two cores where there are two; core 0 and core 1.
#![allow(unsafe_code, reason = "submitting to an io_uring; the rings here carry no pointers")]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use divan::Bencher;
use divan::counter::BytesCount;
use io_uring::squeue::Flags;
use io_uring::{IoUring, opcode, types};
use tidegate::base::{MIB, Seq, ShardId};
use tidegate::handoff::{Bell, LogBuffer, SealedChunk, ShardPort, WriterPort, channel};
use tidegate::sys::memory::Region;

fn main() {
    divan::main();
}

struct Pair {
    buffer: LogBuffer,
    shard: ShardPort,
    writer: WriterPort,
    shard_bell: Arc<Bell>,
    writer_bell: Arc<Bell>,
}

fn pair() -> Pair {
    let region = Arc::new(Region::map(4 * MIB, true).expect("memory"));
    let [shard_bell, writer_bell] = [(); 2].map(|()| Arc::new(Bell::new().expect("a descriptor")));
    let (shard, writer) = channel(
        ShardId(0),
        Arc::clone(&region),
        64,
        Seq(0),
        Arc::clone(&shard_bell),
        Arc::clone(&writer_bell),
        Arc::default(),
    );
    Pair { buffer: LogBuffer::new(region, ShardId(0), MIB, Seq(0)), shard, writer, shard_bell, writer_bell }
}

fn sealed(buffer: &mut LogBuffer, bytes: usize) -> SealedChunk {
    // The bytes are not filled: this is the price of handing over, not of copying.
    divan::black_box(buffer.extend(bytes).expect("the writer settles at once"));
    buffer.commit(1);
    buffer.seal(0, 0).expect("it holds an event")
}

fn settle_all(writer: &mut WriterPort) {
    let mut last = None;
    while let Some(chunk) = writer.take() {
        writer.publish_written(chunk.seq);
        last = Some(chunk.seq);
        writer.settle(chunk);
    }
    if let Some(seq) = last {
        writer.publish_durable(seq);
    }
}

/// Seal, offer, take, settle, take back: both ends on this thread.
#[divan::bench(args = [1, 8, 32])]
fn round_trip_on_one_thread(bencher: Bencher<'_, '_>, chunks: usize) {
    let mut pair = pair();
    bencher.counter(divan::counter::ItemsCount::new(chunks)).bench_local(|| {
        for _ in 0..chunks {
            let chunk = sealed(&mut pair.buffer, 1_000);
            pair.shard.offer(chunk).expect("there is room");
        }
        settle_all(&mut pair.writer);
        pair.writer.ring();
        assert_eq!(pair.shard.take_settled(&mut pair.buffer), chunks);
    });
}

/// Copying 200 events of 343 bytes into a chunk and handing it over: the work beside which the rest is to be seen.
#[divan::bench]
fn fill_and_hand_over_64_kib(bencher: Bencher<'_, '_>) {
    let mut pair = pair();
    let event = [b'x'; 343];
    bencher.counter(BytesCount::new(200 * event.len())).bench_local(|| {
        for _ in 0..200 {
            if let Ok(place) = pair.buffer.extend(event.len()) {
                place.copy_from_slice(&event);
            } else {
                // A chunk never wraps: where the buffer ends, it is handed over as it is.
                hand_over(&mut pair);
                pair.buffer.extend(event.len()).expect("all is settled").copy_from_slice(&event);
            }
            pair.buffer.commit(1);
        }
        hand_over(&mut pair)
    });
}

fn hand_over(pair: &mut Pair) -> usize {
    let chunk = pair.buffer.seal(0, 0).expect("it holds events");
    pair.shard.offer(chunk).expect("there is room");
    settle_all(&mut pair.writer);
    pair.shard.take_settled(&mut pair.buffer)
}

/// Pins this thread. By number: a list of cores would be what the parent thread is pinned to. Without a second core both
/// ends share the first.
fn pin(core: usize) {
    let _alone = !core_affinity::set_for_current(core_affinity::CoreId { id: core });
}

/// A ring as a shard has it.
fn ring() -> IoUring {
    let build = || IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_cqsize(64).build(16);
    build().expect("io_uring with DEFER_TASKRUN (Linux 6.1)")
}

/// Sleeps until at least one completion is there, and takes all.
fn sleep(ring: &mut IoUring) {
    loop {
        match ring.submit_and_wait(1) {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("io_uring_enter: {error}"),
        }
    }
    for completion in ring.completion() {
        assert!(completion.result() >= 0, "{}", io::Error::from_raw_os_error(-completion.result()));
    }
}

/// Has the ring complete whenever the eventfd is written.
fn watch(ring: &mut IoUring, eventfd: RawFd) {
    let events = (libc::EPOLLIN | libc::EPOLLET) as u32;
    let poll = opcode::PollAdd::new(types::Fd(eventfd), events).multi(true).build();
    // SAFETY: a poll reads no memory of ours, and the eventfd outlives the ring's use of it.
    unsafe { ring.submission().push(&poll).expect("an empty queue") };
    ring.submit().expect("io_uring_enter");
}

/// Queues a message to another ring, to go out with the next enter.
fn message(ring: &mut IoUring, to: RawFd) {
    let message = opcode::MsgRingData::new(types::Fd(to), 0, 1, None).build().flags(Flags::SKIP_SUCCESS);
    // SAFETY: a message carries integers only, and the other ring is open for as long as this one is used.
    unsafe { ring.submission().push(&message).expect("an empty queue") };
}

/// Chunk by chunk to a writer that sleeps each time, by the server's own bells (eventfd): offer → wake → settle → wake.
#[divan::bench]
fn round_trip_to_a_sleeping_writer(bencher: Bencher<'_, '_>) {
    let Pair { mut buffer, mut shard, mut writer, shard_bell, writer_bell } = pair();
    let bell = Arc::clone(&writer_bell);
    let thread = std::thread::spawn(move || {
        pin(1);
        let mut ring = ring();
        watch(&mut ring, bell.fd());
        while !writer.is_drained() {
            bell.arm();
            if !writer.has_chunks() && !writer.is_drained() {
                sleep(&mut ring);
            }
            bell.disarm();
            settle_all(&mut writer);
            writer.ring();
        }
    });
    pin(0);
    let mut ring = ring();
    watch(&mut ring, shard_bell.fd());
    bencher.bench_local(|| {
        let chunk = sealed(&mut buffer, 1_000);
        shard.offer(chunk).expect("there is room");
        while shard.take_settled(&mut buffer) == 0 {
            shard_bell.arm();
            if !shard.has_settled() {
                sleep(&mut ring);
            }
            shard_bell.disarm();
        }
    });
    drop(shard);
    writer_bell.ring_always();
    thread.join().expect("the writer ends");
}

mod wake {
    use super::*;

    /// Each side writes the other's eventfd, then sleeps: two system calls.
    #[divan::bench]
    fn by_eventfd(bencher: Bencher<'_, '_>) {
        let bells = [(); 2].map(|()| Arc::new(Bell::new().expect("a descriptor")));
        let [here, there] = bells;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (here, there, stop) = (Arc::clone(&here), Arc::clone(&there), Arc::clone(&stop));
            std::thread::spawn(move || {
                pin(1);
                let mut ring = ring();
                watch(&mut ring, there.fd());
                here.ring_always();
                loop {
                    sleep(&mut ring);
                    if stop.load(Ordering::Acquire) {
                        return;
                    }
                    here.ring_always();
                }
            })
        };
        pin(0);
        let mut ring = ring();
        watch(&mut ring, here.fd());
        sleep(&mut ring);
        bencher.bench_local(|| {
            there.ring_always();
            sleep(&mut ring);
        });
        stop.store(true, Ordering::Release);
        there.ring_always();
        thread.join().expect("the other side ends");
    }

    /// Each side sends a message by the enter it sleeps in: one system call.
    #[divan::bench]
    fn by_msg_ring(bencher: Bencher<'_, '_>) {
        pin(0);
        let mut here = ring();
        let here_fd = here.as_raw_fd();
        let there_fd = Arc::new(AtomicI32::new(-1));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (there_fd, stop) = (Arc::clone(&there_fd), Arc::clone(&stop));
            std::thread::spawn(move || {
                pin(1);
                let mut ring = ring();
                there_fd.store(ring.as_raw_fd(), Ordering::Release);
                message(&mut ring, here_fd);
                loop {
                    sleep(&mut ring);
                    if stop.load(Ordering::Acquire) {
                        return;
                    }
                    message(&mut ring, here_fd);
                }
            })
        };
        sleep(&mut here);
        let there = there_fd.load(Ordering::Acquire);
        bencher.bench_local(|| {
            message(&mut here, there);
            sleep(&mut here);
        });
        stop.store(true, Ordering::Release);
        message(&mut here, there);
        here.submit().expect("io_uring_enter");
        thread.join().expect("the other side ends");
    }
}
