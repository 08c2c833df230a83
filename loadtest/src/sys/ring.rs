//! An io_uring for one generator or sink thread: set-up, and the few operations it submits. That thread only.
//!
//! What is sent lies in the [`Area`] the ring owns and is named by offset, so the memory outlives every request; the
//! caller keeps account of which ranges are under way. Connections are direct descriptors. The ring is split once and
//! kept split, because a registered ring descriptor is remembered by the `Submitter` that registered it.
//!
//! Needs Linux 6.1 (DEFER_TASKRUN, io_uring_setup(2)).

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, cqueue, opcode, squeue};
use socket2::SockAddr;

use super::memory::Area;

/// A completion, copied out of the queue.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Completion {
    /// What was given with the submission.
    pub(crate) user_data: u64,
    /// Result ≥ 0, or a negated errno.
    pub(crate) result: i32,
    flags: u32,
}

impl Completion {
    /// Whether a multishot request goes on.
    pub(crate) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The (first) provided buffer that holds what was received.
    pub(crate) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// A range of the ring's area that is to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// Where it begins.
    pub(crate) offset: usize,
    /// Its bytes.
    pub(crate) bytes: usize,
}

/// What a ring is to hold.
pub(crate) struct RingSize {
    /// Submissions; more are submitted early.
    pub(crate) entries: u32,
    /// Completions; more are kept by the kernel at a cost.
    pub(crate) completions: u32,
    /// Direct descriptors.
    pub(crate) slots: u32,
    /// Parts of one send.
    pub(crate) parts_max: usize,
}

/// See the module text.
pub(crate) struct Ring {
    submitter: ManuallyDrop<Submitter<'static>>,
    submission: ManuallyDrop<SubmissionQueue<'static>>,
    completion: ManuallyDrop<CompletionQueue<'static>>,
    ring: *mut IoUring,
    area: Area,
    /// Whom connections go to; read by the kernel when a connect is submitted.
    peer: Option<Box<SockAddr>>,
    /// `parts_max` of each slot: a slot has one send under way at most.
    parts: Vec<libc::iovec>,
    messages: Vec<libc::msghdr>,
    parts_max: usize,
    enters: u64,
}

impl Ring {
    /// A ring whose sends take their bytes from `area`. Must be called on the thread that will use it (SINGLE_ISSUER).
    ///
    /// # Errors
    /// The errno of io_uring_setup(2) or io_uring_register(2): ENOSYS or EPERM where io_uring is off, EINVAL on a kernel
    /// before 6.1, ENOMEM at the memlock limit, EMFILE when `slots` exceeds the open-files limit.
    pub(crate) fn new(size: &RingSize, area: Area, peer: Option<SockAddr>) -> io::Result<Self> {
        let ring = Box::into_raw(Box::new(build(size)?));
        // SAFETY: `ring` was just leaked, is freed only in `drop` after its parts, and is never touched but through them.
        let (mut submitter, submission, completion) = unsafe { &mut *ring }.split();
        let registered = submitter.register_files_sparse(size.slots);
        // Saves the descriptor look-up of every enter; older kernels do without.
        let _ = submitter.register_ring_fd();
        let slots = size.slots as usize;
        // SAFETY: both are plain C structures for which zeroes are a valid value.
        let (no_part, no_message) = unsafe { (std::mem::zeroed::<libc::iovec>(), std::mem::zeroed::<libc::msghdr>()) };
        let ring = Self {
            submitter: ManuallyDrop::new(submitter),
            submission: ManuallyDrop::new(submission),
            completion: ManuallyDrop::new(completion),
            ring,
            area,
            peer: peer.map(Box::new),
            parts: vec![no_part; if size.parts_max > 1 { slots * size.parts_max } else { 0 }],
            messages: vec![no_message; if size.parts_max > 1 { slots } else { 0 }],
            parts_max: size.parts_max,
            enters: 0,
        };
        registered.map(|()| ring)
    }

    /// The bytes that may be sent.
    pub(crate) fn area(&mut self) -> &mut Area {
        &mut self.area
    }

    /// `io_uring_enter` calls so far.
    pub(crate) fn enters(&self) -> u64 {
        self.enters
    }

    /// Copies completions into `out`; how many. Fewer than `out` holds means the queue was empty.
    pub(crate) fn reap(&mut self, out: &mut [Completion]) -> usize {
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

    /// Submits what was pushed and waits for one completion, up to `wait`; `None` does not wait, and enters the kernel
    /// only if there is something to submit or deferred work to run.
    ///
    /// # Errors
    /// The errno of io_uring_enter(2); EINTR, ETIME, EBUSY and EAGAIN are normal ends of a wait and not errors.
    pub(crate) fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.submission.sync();
        let result = match wait {
            None => {
                if self.submission.is_empty() && !self.submission.taskrun() && !self.submission.cq_overflow() {
                    return Ok(());
                }
                self.submitter.submit()
            }
            Some(limit) => {
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

    /// Puts a socket into a free slot; the slot owns it from now on.
    ///
    /// # Errors
    /// The errno of io_uring_register(2).
    pub(crate) fn install(&mut self, slot: u32, socket: OwnedFd) -> io::Result<()> {
        // The table holds a reference of its own, so `socket` may be closed when this returns.
        self.submitter.register_files_update(slot, &[socket.as_raw_fd()]).map(drop)
    }

    /// Empties a slot, which closes its socket. No request may be under way on it.
    ///
    /// # Errors
    /// The errno of io_uring_register(2).
    pub(crate) fn remove(&mut self, slot: u32) -> io::Result<()> {
        self.submitter.register_files_update(slot, &[-1]).map(drop)
    }

    /// Connects the socket in `slot` to the ring's peer.
    pub(crate) fn connect(&mut self, slot: u32, user_data: u64) -> io::Result<()> {
        let peer = self.peer.as_ref().expect("a ring that connects was given a peer");
        let entry = opcode::Connect::new(Fixed(slot), peer.as_ptr().cast(), peer.len()).build();
        self.push(entry.user_data(user_data))
    }

    /// Accepts connections from `listener` into free slots until it fails; one completion each, its result the slot.
    pub(crate) fn accept(&mut self, listener: BorrowedFd<'_>, user_data: u64) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).allocate_file_index(true).build();
        self.push(entry.user_data(user_data))
    }

    /// Receives into buffers of `group` until it fails, ends or runs out of buffers; with `bundle`, one completion may
    /// cover several consecutive buffers.
    pub(crate) fn receive(&mut self, slot: u32, group: u16, bundle: bool, user_data: u64) -> io::Result<()> {
        let entry = if bundle {
            opcode::RecvMultiBundle::new(Fixed(slot), group).build()
        } else {
            opcode::RecvMulti::new(Fixed(slot), group).build()
        };
        self.push(entry.user_data(user_data))
    }

    /// Receives once, up to the bytes of `into`.
    ///
    /// # Panics
    /// If the range is not in the area.
    pub(crate) fn receive_once(&mut self, slot: u32, into: Part, user_data: u64) -> io::Result<()> {
        let address = self.area.address(into.offset, into.bytes);
        let entry = opcode::Recv::new(Fixed(slot), address, into.bytes as u32).build();
        self.push(entry.user_data(user_data))
    }

    /// Sends the parts one after the other, as one request. Completes short only if the connection fails: the kernel
    /// goes on by itself while the peer's window is closed (MSG_WAITALL).
    ///
    /// # Panics
    /// If there is no part, more than `parts_max`, or one is not in the area.
    pub(crate) fn send(&mut self, slot: u32, parts: &[Part], user_data: u64) -> io::Result<()> {
        assert!(!parts.is_empty() && parts.len() <= self.parts_max, "{} parts", parts.len());
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        if let [part] = parts {
            let from = self.area.address(part.offset, part.bytes);
            let bytes = u32::try_from(part.bytes).expect("a request is far below 4 GiB");
            let entry = opcode::Send::new(Fixed(slot), from, bytes).flags(flags).build();
            return self.push(entry.user_data(user_data));
        }
        let first = slot as usize * self.parts_max;
        for (at, part) in parts.iter().enumerate() {
            let address = self.area.address(part.offset, part.bytes);
            self.parts[first + at] = libc::iovec { iov_base: address.cast(), iov_len: part.bytes };
        }
        let message = &mut self.messages[slot as usize];
        message.msg_iov = self.parts[first..].as_mut_ptr();
        message.msg_iovlen = parts.len() as _;
        let message = std::ptr::from_ref(message);
        self.push(opcode::SendMsg::new(Fixed(slot), message).flags(flags as u32).build().user_data(user_data))
    }

    /// Ends both directions of a socket: what is under way on it completes.
    pub(crate) fn shutdown(&mut self, slot: u32, user_data: u64) -> io::Result<()> {
        self.push(opcode::Shutdown::new(Fixed(slot), libc::SHUT_RDWR).build().user_data(user_data))
    }

    /// Cancels the request that was submitted with `target`. Its own completion still comes, and this one's too.
    pub(crate) fn cancel(&mut self, target: u64, user_data: u64) -> io::Result<()> {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(target)).build();
        self.push(entry.user_data(user_data))
    }

    /// Closes a slot that an accept filled. To be submitted once, after every request on it has completed.
    pub(crate) fn close(&mut self, slot: u32, user_data: u64) -> io::Result<()> {
        self.push(opcode::Close::new(Fixed(slot)).build().user_data(user_data))
    }

    /// Registers a buffer group whose entries lie at `entries`.
    ///
    /// # Safety
    /// The entries must stay mapped until the ring is dropped.
    ///
    /// # Errors
    /// The errno of io_uring_register(2) with IORING_REGISTER_PBUF_RING.
    pub(super) unsafe fn register_buffers(&mut self, entries: u64, count: u16, group: u16) -> io::Result<()> {
        // SAFETY: promised by the caller.
        unsafe { self.submitter.register_buf_ring_with_flags(entries, count, group, 0) }
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: every entry is built above from descriptors in the ring's own table or lent by the caller for the
        // request's life, and from memory this ring owns (area, peer, parts) or that outlives it (buffer groups).
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
        // dropped, which closes the descriptor and with it every request, before the area is unmapped.
        unsafe {
            ManuallyDrop::drop(&mut self.completion);
            ManuallyDrop::drop(&mut self.submission);
            ManuallyDrop::drop(&mut self.submitter);
            drop(Box::from_raw(self.ring));
        }
    }
}

fn build(size: &RingSize) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        // Without it a poller never learns that deferred work waits, and spins for ever.
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(size.completions);
    builder.build(size.entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use crate::sys::buffers::ReceiveBuffers;

    fn wait_for(ring: &mut Ring, count: usize) -> Vec<Completion> {
        let mut all = Vec::new();
        while all.len() < count {
            ring.enter(Some(Duration::from_secs(1))).unwrap();
            let mut out = [Completion::default(); 8];
            let reaped = ring.reap(&mut out);
            all.extend_from_slice(&out[..reaped]);
        }
        all
    }

    #[test]
    fn a_slot_connects_sends_parts_in_order_and_receives() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap().into();
        let size = RingSize { entries: 8, completions: 64, slots: 4, parts_max: 3 };
        let mut ring = Ring::new(&size, Area::map(4096).unwrap(), Some(peer)).unwrap();
        let mut buffers = ReceiveBuffers::new(&mut ring, 1, 4, 4096).unwrap();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        ring.install(3, socket.into()).unwrap();
        ring.connect(3, 1).unwrap();
        assert_eq!(wait_for(&mut ring, 1)[0].result, 0);
        let (mut served, _) = listener.accept().unwrap();
        ring.area().slice_mut(0, 6).copy_from_slice(b"abcdef");
        let parts = [Part { offset: 4, bytes: 2 }, Part { offset: 0, bytes: 3 }];
        ring.send(3, &parts, 2).unwrap();
        assert_eq!(wait_for(&mut ring, 1)[0].result, 5);
        let mut got = [0; 5];
        served.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"efabc");
        ring.receive(3, 1, false, 4).unwrap();
        served.write_all(b"answer").unwrap();
        let received = wait_for(&mut ring, 1)[0];
        assert!(received.more() && received.result == 6);
        let mut seen = Vec::new();
        buffers.consume(received.buffer().unwrap(), 6, |bytes| seen.extend_from_slice(bytes));
        assert_eq!(seen, b"answer");
        ring.shutdown(3, 5).unwrap();
        let mut ended: Vec<u64> = wait_for(&mut ring, 2).iter().map(|completion| completion.user_data).collect();
        ended.sort_unstable();
        assert_eq!(ended, [4, 5], "the receive ends with the shutdown");
        ring.remove(3).unwrap();
        assert_eq!(served.read(&mut got).unwrap(), 0, "an emptied slot is a closed socket");
    }

    #[test]
    fn without_a_wait_an_idle_ring_makes_no_system_call() {
        let size = RingSize { entries: 8, completions: 64, slots: 4, parts_max: 1 };
        let mut ring = Ring::new(&size, Area::map(4096).unwrap(), None).unwrap();
        ring.enter(None).unwrap();
        assert_eq!(ring.enters(), 0);
        ring.enter(Some(Duration::from_millis(1))).unwrap();
        assert_eq!(ring.enters(), 1);
    }
}
