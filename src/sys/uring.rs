//! An io_uring for one shard: set-up, provided buffers, and the dozen operations a shard submits. Shard thread only.
//!
//! The ring is split once and kept split, because a registered ring descriptor is remembered by the `Submitter` that
//! registered it. Nothing here decides what to do next; it makes the kernel's interface safe to call:
//!
//! * a send names bytes by their offset in the [`Region`] the ring was given, so they outlive the request;
//! * a received byte is read through [`ProvidedBuffers`], which knows which buffers the kernel has lent us;
//! * connections are direct descriptors ([`Slot`]), so no process-wide descriptor table is touched per request.
//!
//! Needs Linux 6.1 (DEFER_TASKRUN, io_uring_setup(2)); NO_SQARRAY (6.6) is used where the kernel has it.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, cqueue, opcode, squeue};

use super::memory::Region;

/// Index of a direct descriptor: a connection's socket in its shard's ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub u32);

/// A completion, copied out of the queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Completion {
    /// What was given with the submission.
    pub user_data: u64,
    /// Result ≥ 0, or a negated errno.
    pub result: i32,
    flags: u32,
}

impl Completion {
    /// Whether a multishot request goes on.
    #[must_use]
    pub fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The (first) provided buffer that holds what was received.
    #[must_use]
    pub fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// How long [`Ring::enter`] may block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    Poll,
    /// Until a completion, or this long.
    For(Duration),
    /// Until a completion.
    Forever,
}

/// See the module text.
pub struct Ring {
    submitter: ManuallyDrop<Submitter<'static>>,
    submission: ManuallyDrop<SubmissionQueue<'static>>,
    completion: ManuallyDrop<CompletionQueue<'static>>,
    ring: *mut IoUring,
    sendable: Arc<Region>,
    enters: u64,
}

impl Ring {
    /// A ring of `entries` submissions and `completions` completions with a table of `slots` direct descriptors, whose
    /// sends take their bytes from `sendable`. Must be called on the thread that will use it (SINGLE_ISSUER).
    ///
    /// # Errors
    /// The errno of io_uring_setup(2) or io_uring_register(2): ENOSYS or EPERM where io_uring is off, EINVAL on a kernel
    /// before 6.1, ENOMEM at the memlock limit, EMFILE when `slots` exceeds the open-files limit.
    pub fn new(entries: u32, completions: u32, slots: u32, sendable: Arc<Region>) -> io::Result<Self> {
        let ring = build(entries, completions)?;
        let ring = Box::into_raw(Box::new(ring));
        // SAFETY: `ring` was just leaked, is freed only in `drop` after its parts, and is never touched but through them.
        let (mut submitter, submission, completion) = unsafe { &mut *ring }.split();
        let registered = submitter.register_files_sparse(slots);
        // Saves the descriptor look-up of every enter; older kernels do without.
        let _ = submitter.register_ring_fd();
        let ring = Self {
            submitter: ManuallyDrop::new(submitter),
            submission: ManuallyDrop::new(submission),
            completion: ManuallyDrop::new(completion),
            ring,
            sendable,
            enters: 0,
        };
        registered.map(|()| ring)
    }

    /// A duplicate of the ring's descriptor, for other rings to send messages to.
    ///
    /// # Errors
    /// EMFILE at the open-files limit.
    pub fn duplicate_fd(&self) -> io::Result<OwnedFd> {
        // SAFETY: the ring and its descriptor live until `drop`, past this borrow.
        let fd = unsafe { BorrowedFd::borrow_raw((*self.ring).as_raw_fd()) };
        fd.try_clone_to_owned()
    }

    /// `io_uring_enter` calls so far.
    #[must_use]
    pub fn enters(&self) -> u64 {
        self.enters
    }

    /// Copies completions into `out`; how many. Fewer than `out` holds means the queue was empty.
    pub fn reap(&mut self, out: &mut [Completion]) -> usize {
        self.completion.sync();
        let mut count = 0;
        while count < out.len() {
            let Some(entry) = self.completion.next() else { break };
            out[count] = Completion { user_data: entry.user_data(), result: entry.result(), flags: entry.flags() };
            count += 1;
        }
        self.completion.sync();
        count
    }

    /// Whether completions wait to be reaped, or the kernel has deferred work that would make some.
    pub fn has_work(&mut self) -> bool {
        self.completion.sync();
        !self.completion.is_empty() || self.submission.taskrun() || self.submission.cq_overflow()
    }

    /// Submits what was pushed and waits as told. Does not enter the kernel when there is nothing to submit, nothing
    /// to run and no wait.
    ///
    /// # Errors
    /// The errno of io_uring_enter(2); EINTR, ETIME, EBUSY and EAGAIN are normal ends of a wait and not errors.
    pub fn enter(&mut self, wait: Wait) -> io::Result<()> {
        self.submission.sync();
        let result = match wait {
            Wait::Poll => {
                if self.submission.is_empty() && !self.submission.taskrun() && !self.submission.cq_overflow() {
                    return Ok(());
                }
                self.submitter.submit()
            }
            Wait::Forever => self.submitter.submit_and_wait(1),
            Wait::For(limit) => {
                let limit = Timespec::from(limit);
                self.submitter.submit_with_args(1, &SubmitArgs::new().timespec(&limit))
            }
        };
        self.enters += 1;
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Accepts connections from `listener` into free slots until it fails; one completion each, its result the slot.
    pub fn accept(&mut self, listener: BorrowedFd<'_>, user_data: u64) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).allocate_file_index(true).build();
        self.push(entry.user_data(user_data))
    }

    /// Receives from a socket into buffers of `group` until it fails, ends or runs out of buffers; with `bundle`, one
    /// completion may cover several consecutive buffers.
    pub fn receive(&mut self, slot: Slot, group: u16, bundle: bool, user_data: u64) -> io::Result<()> {
        let entry = if bundle {
            opcode::RecvMultiBundle::new(Fixed(slot.0), group).build()
        } else {
            opcode::RecvMulti::new(Fixed(slot.0), group).build()
        };
        self.push(entry.user_data(user_data))
    }

    /// Sends `bytes` bytes from `offset` of the ring's region. May send fewer.
    ///
    /// # Panics
    /// If the range is not in the region.
    pub fn send(&mut self, slot: Slot, offset: usize, bytes: usize, user_data: u64) -> io::Result<()> {
        assert!(offset + bytes <= self.sendable.bytes(), "a send outside the region");
        // SAFETY: the range was just checked to lie in the region, which this ring keeps alive.
        let from = unsafe { self.sendable.base().as_ptr().add(offset) };
        let length = u32::try_from(bytes).expect("a response is far below 4 GiB");
        let entry = opcode::Send::new(Fixed(slot.0), from, length).flags(libc::MSG_NOSIGNAL).build();
        self.push(entry.user_data(user_data))
    }

    /// Ends the sending direction of a socket, so that the peer reads the last answer before the close.
    pub fn shutdown_write(&mut self, slot: Slot, user_data: u64) -> io::Result<()> {
        self.push(opcode::Shutdown::new(Fixed(slot.0), libc::SHUT_WR).build().user_data(user_data))
    }

    /// Ends both directions of a socket: pending receives and sends end too.
    pub fn shutdown_both(&mut self, slot: Slot, user_data: u64) -> io::Result<()> {
        self.push(opcode::Shutdown::new(Fixed(slot.0), libc::SHUT_RDWR).build().user_data(user_data))
    }

    /// Cancels the request that was submitted with `target`. Its own completion still comes, and this one's too.
    pub fn cancel(&mut self, target: u64, user_data: u64) -> io::Result<()> {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(target)).build();
        self.push(entry.user_data(user_data))
    }

    /// Closes a direct descriptor. To be submitted once, after every request on it has completed.
    pub fn close(&mut self, slot: Slot, user_data: u64) -> io::Result<()> {
        self.push(opcode::Close::new(Fixed(slot.0)).build().user_data(user_data))
    }

    /// Polls `fd` for readability, edge-triggered, one completion per event until cancelled.
    pub fn poll_multi(&mut self, fd: RawFd, user_data: u64) -> io::Result<()> {
        let entry = opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).multi(true).build();
        self.push(entry.user_data(user_data))
    }

    /// Copies the socket in `slot` into a free slot of the ring behind `target`, which gets a completion with
    /// `target_user_data` and its slot as result; ours comes with `user_data`.
    pub fn send_slot(
        &mut self,
        slot: Slot,
        target: BorrowedFd<'_>,
        target_user_data: u64,
        user_data: u64,
    ) -> io::Result<()> {
        let entry = opcode::MsgRingSendFd::new(
            Fd(target.as_raw_fd()),
            Fixed(slot.0),
            DestinationSlot::auto_target(),
            target_user_data,
        )
        .build();
        self.push(entry.user_data(user_data))
    }

    /// Takes a buffer group out of use. No receive may name it any more.
    ///
    /// # Errors
    /// EINVAL if there is no such group.
    pub fn unregister_buffers(&mut self, group: u16) -> io::Result<()> {
        self.submitter.unregister_buf_ring(group)
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: every entry is built above from descriptors the caller lends for the request's life and from memory
        // that lives as long as the ring (`sendable`, registered buffer groups).
        while unsafe { self.submission.push(&entry) }.is_err() {
            self.submission.sync();
            self.submitter.submit()?;
            self.enters += 1;
            self.submission.sync();
        }
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the parts borrow from the leaked ring and are dropped first, once; then the ring is taken back and
        // dropped, which closes the descriptor and with it every request.
        unsafe {
            ManuallyDrop::drop(&mut self.completion);
            ManuallyDrop::drop(&mut self.submission);
            ManuallyDrop::drop(&mut self.submitter);
            drop(Box::from_raw(self.ring));
        }
    }
}

fn build(entries: u32, completions: u32) -> io::Result<IoUring> {
    let builder = |no_sqarray: bool| {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(completions);
        if no_sqarray {
            builder.setup_no_sqarray();
        }
        builder.build(entries)
    };
    builder(true).or_else(|_| builder(false))
}

/// Received bytes that are contiguous in memory, and the buffers they lie in. Copyable as a number is: whoever holds the
/// last copy gives the buffers back, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    first: u16,
    buffers: u16,
    offset: u32,
    bytes: u32,
}

impl Run {
    /// Bytes not yet consumed.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Buffers it is part of, all of which are given back with it.
    #[must_use]
    pub fn buffers(&self) -> u16 {
        self.buffers
    }

    /// Counts the first `bytes` bytes as consumed.
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.bytes as usize, "consumed more than was received");
        self.offset += bytes as u32;
        self.bytes -= bytes as u32;
    }
}

/// Where a receive buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// With us, not in use.
    Spare,
    /// With the kernel, to be filled.
    Lent,
    /// With whoever holds the run it is part of.
    Taken,
}

/// Equal receive buffers in one [`Region`], buffer `i` at `i × bytes`, of which some are lent to the kernel.
///
/// The kernel takes buffers in the order they were lent and says only the first of a bundle, so that order is kept
/// here. What was given back last is lent first: it is the likeliest to be in the caches still. A run's buffers are lent in
/// the order of memory, so that what one bundle receives is mostly one [`Run`].
pub struct ProvidedBuffers {
    data: Region,
    entries: Region,
    bytes: usize,
    count: u16,
    /// Buffer numbers by place in the ring.
    order: Vec<u16>,
    /// Place of the next buffer the kernel takes, and of the next one lent; both wrap at 2^16.
    head: u16,
    tail: u16,
    /// What is not in use, given back last at the end.
    spare: Vec<u16>,
    places: Vec<Place>,
}

impl ProvidedBuffers {
    /// `count` buffers (a power of two up to 32768) of `bytes` bytes, registered with `ring` as buffer group `group`,
    /// none lent to the kernel yet.
    ///
    /// # Errors
    /// The errno of mmap(2) or of io_uring_register(2) with IORING_REGISTER_PBUF_RING.
    pub fn new(ring: &mut Ring, group: u16, count: u16, bytes: usize) -> io::Result<Self> {
        assert!(count.is_power_of_two() && count <= 1 << 15, "{count} buffers");
        let data = Region::map(usize::from(count) * bytes, true)?;
        let entries = Region::map(usize::from(count) * size_of::<io_uring::types::BufRingEntry>(), false)?;
        // SAFETY: the entries live in `entries`, kept beside the ring by the shard until the ring is dropped.
        unsafe {
            let base = entries.base().as_ptr() as u64;
            ring.submitter.register_buf_ring_with_flags(base, count, group, 0)?;
        }
        Ok(Self {
            data,
            entries,
            bytes,
            count,
            order: vec![0; count.into()],
            head: 0,
            tail: 0,
            spare: (0..count).rev().collect(),
            places: vec![Place::Spare; count.into()],
        })
    }

    /// Buffers in all.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Buffers the kernel has to fill.
    #[must_use]
    pub fn available(&self) -> u16 {
        self.tail.wrapping_sub(self.head)
    }

    /// Notes that a completion handed us the buffers that hold `received` bytes from buffer `first` on, and appends them
    /// to `runs`, one for each stretch of memory. How many buffers that is.
    ///
    /// # Panics
    /// If the kernel hands out a buffer it did not have, or out of order.
    pub fn take(&mut self, first: u16, received: usize, runs: &mut Vec<Run>) -> u16 {
        let mut left = received;
        let before = self.head;
        let mut run: Option<Run> = None;
        loop {
            let buffer = self.order[usize::from(self.head & (self.count - 1))];
            assert!(run.is_some() || buffer == first, "the kernel took buffer {first} before {buffer}");
            self.moves(buffer, Place::Lent, Place::Taken);
            self.head = self.head.wrapping_add(1);
            let bytes = left.min(self.bytes) as u32;
            match &mut run {
                Some(run) if run.first + run.buffers == buffer => {
                    run.buffers += 1;
                    run.bytes += bytes;
                }
                _ => runs.extend(run.replace(Run { first: buffer, buffers: 1, offset: 0, bytes })),
            }
            left -= bytes as usize;
            if left == 0 {
                break;
            }
        }
        runs.extend(run);
        self.head.wrapping_sub(before)
    }

    /// The unconsumed bytes of a run.
    pub fn bytes_of(&mut self, run: &Run) -> &mut [u8] {
        debug_assert_eq!(self.places[usize::from(run.first)], Place::Taken, "buffer {} was given back", run.first);
        let start = usize::from(run.first) * self.bytes + run.offset as usize;
        let length = run.bytes as usize;
        assert!(run.offset as usize + length <= usize::from(run.buffers) * self.bytes, "a run ends in its buffers");
        // SAFETY: the range lies in the run's buffers, which were taken from the kernel and not given back; the borrow of
        // self keeps the slice unique.
        unsafe { std::slice::from_raw_parts_mut(self.data.base().as_ptr().add(start), length) }
    }

    /// Takes a run's buffers back, to be lent again.
    ///
    /// # Panics
    /// If they were given back before.
    pub fn give_back(&mut self, run: Run) {
        for buffer in (run.first..run.first + run.buffers).rev() {
            self.moves(buffer, Place::Taken, Place::Spare);
            self.spare.push(buffer);
        }
    }

    /// Lends buffers to the kernel until it has `lent_max` to fill, or all that are not in use.
    pub fn lend(&mut self, lent_max: u16) {
        let before = self.tail;
        while self.available() < lent_max
            && let Some(buffer) = self.spare.pop()
        {
            self.provide(buffer);
        }
        if self.tail != before {
            self.publish();
        }
    }

    fn publish(&mut self) {
        // SAFETY: the tail lies in the first entry's reserved bytes (io_uring_register_buf_ring(3)), which `provide`
        // does not write. Release pairs with the kernel's acquire: entries are visible before the tail.
        unsafe {
            let base = self.entries.base().as_ptr().cast::<io_uring::types::BufRingEntry>();
            let tail = io_uring::types::BufRingEntry::tail(base).cast_mut().cast::<std::sync::atomic::AtomicU16>();
            (*tail).store(self.tail, std::sync::atomic::Ordering::Release);
        }
    }

    fn moves(&mut self, buffer: u16, from: Place, to: Place) {
        let place = std::mem::replace(&mut self.places[usize::from(buffer)], to);
        assert_eq!(place, from, "buffer {buffer} goes from {from:?} to {to:?}");
    }

    fn provide(&mut self, buffer: u16) {
        self.moves(buffer, Place::Spare, Place::Lent);
        let place = usize::from(self.tail & (self.count - 1));
        self.order[place] = buffer;
        // SAFETY: place < count, so the entry lies in the entries' region; the kernel reads entries only up to the tail
        // published later, and writes to none of them.
        unsafe {
            let entry = self.entries.base().as_ptr().cast::<io_uring::types::BufRingEntry>().add(place);
            let data = self.data.base().as_ptr().add(usize::from(buffer) * self.bytes);
            (*entry).set_addr(data as u64);
            (*entry).set_len(u32::try_from(self.bytes).expect("a receive buffer is far below 4 GiB"));
            (*entry).set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::MIB;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    fn ring() -> Ring {
        Ring::new(64, 256, 64, Arc::new(Region::map(MIB, false).unwrap())).unwrap()
    }

    fn wait_one(ring: &mut Ring) -> Completion {
        let mut out = [Completion::default(); 1];
        loop {
            if ring.reap(&mut out) == 1 {
                return out[0];
            }
            ring.enter(Wait::Forever).unwrap();
        }
    }

    #[test]
    fn a_socket_is_accepted_received_from_sent_to_and_closed() {
        let mut ring = ring();
        let mut buffers = ProvidedBuffers::new(&mut ring, 1, 8, 4096).unwrap();
        buffers.lend(8);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        ring.accept(listener.as_fd(), 1).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = wait_one(&mut ring);
        assert!(accepted.user_data == 1 && accepted.more());
        let slot = Slot(u32::try_from(accepted.result).unwrap());
        ring.receive(slot, 1, false, 2).unwrap();
        client.write_all(b"hello").unwrap();
        let received = wait_one(&mut ring);
        assert_eq!((received.user_data, received.result, received.buffer()), (2, 5, Some(0)));
        let mut runs = Vec::new();
        buffers.take(0, 5, &mut runs);
        assert_eq!((runs.len(), buffers.available()), (1, 7));
        assert_eq!(buffers.bytes_of(&runs[0]), b"hello");
        buffers.give_back(runs[0]);
        buffers.lend(8);
        assert_eq!(buffers.available(), 8);
        // SAFETY: nothing else uses the region yet.
        unsafe { ring.sendable.base().as_ptr().copy_from(b"world".as_ptr(), 5) };
        ring.send(slot, 0, 5, 3).unwrap();
        assert_eq!(wait_one(&mut ring).result, 5);
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"world");
        ring.cancel(2, 4).unwrap();
        let mut ended = [wait_one(&mut ring).user_data, wait_one(&mut ring).user_data];
        ended.sort_unstable();
        assert_eq!(ended, [2, 4], "the cancelled request and the cancel both complete");
        ring.close(slot, 5).unwrap();
        assert_eq!(wait_one(&mut ring).result, 0);
        assert_eq!(client.read(&mut answer).unwrap(), 0);
    }

    #[test]
    #[should_panic(expected = "from Taken to Spare")]
    fn a_buffer_given_back_twice_is_a_bug() {
        let mut ring = ring();
        let mut buffers = ProvidedBuffers::new(&mut ring, 1, 8, 4096).unwrap();
        buffers.give_back(Run { first: 3, buffers: 1, offset: 0, bytes: 1 });
    }

    #[test]
    fn runs_follow_memory_and_part_where_the_order_does() {
        let mut ring = ring();
        let mut buffers = ProvidedBuffers::new(&mut ring, 1, 8, 4096).unwrap();
        buffers.lend(8);
        let mut runs = Vec::new();
        assert_eq!((buffers.take(0, 3 * 4096, &mut runs), buffers.take(3, 5, &mut runs)), (3, 1));
        assert_eq!(
            runs.iter().map(|run| (run.first, run.buffers, run.bytes)).collect::<Vec<_>>(),
            [(0, 3, 12288), (3, 1, 5)]
        );
        let mut part = runs[0];
        part.advance(5000);
        assert_eq!((part.bytes(), buffers.bytes_of(&part).len()), (7288, 7288));
        // Held while a later one goes back first: the ring's order is no longer that of memory.
        buffers.give_back(runs[1]);
        buffers.lend(8);
        buffers.give_back(part);
        buffers.lend(8);
        runs.clear();
        buffers.take(4, 8 * 4096, &mut runs);
        assert_eq!(runs.iter().map(|run| (run.first, run.buffers)).collect::<Vec<_>>(), [(4, 4), (3, 1), (0, 3)]);
    }

    #[test]
    fn what_was_given_back_last_is_lent_first_and_no_more_than_asked() {
        let mut ring = ring();
        let mut buffers = ProvidedBuffers::new(&mut ring, 1, 8, 4096).unwrap();
        buffers.lend(3);
        assert_eq!(buffers.available(), 3);
        let mut runs = Vec::new();
        buffers.take(0, 2 * 4096, &mut runs);
        buffers.take(2, 7, &mut runs);
        buffers.lend(1);
        assert_eq!(buffers.available(), 1, "another is lent while those are in use");
        buffers.give_back(runs[1]);
        buffers.give_back(runs[0]);
        buffers.lend(1);
        assert_eq!(buffers.available(), 1, "there are enough");
        buffers.lend(u16::MAX);
        assert_eq!(buffers.available(), 8, "all there are");
        runs.clear();
        buffers.take(3, 8 * 4096, &mut runs);
        let lent: Vec<_> = runs.iter().map(|run| (run.first, run.buffers)).collect();
        assert_eq!(lent, [(3, 1), (0, 3), (4, 4)], "the last back first, a run in the order of memory");
    }

    #[test]
    fn a_poll_waits_no_longer_than_told() {
        let mut ring = ring();
        ring.enter(Wait::Poll).unwrap();
        assert_eq!(ring.enters(), 0, "nothing to do is no system call");
        ring.enter(Wait::For(Duration::from_millis(1))).unwrap();
        assert_eq!(ring.enters(), 1);
    }
}
