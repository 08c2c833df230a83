//! The writer's io_uring: a group of writes in flight at once, and one piece of background work beside them.
//!
//! Memory the kernel may touch: a group's bytes are borrowed for the length of [`GroupRing::write_group`], which does
//! not return before every completion is in, whatever went wrong; the page of zeros is this struct's own and outlives
//! the ring, since [`Drop`] waits for the background work.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};

use super::{AlignedBytes, Background, WRITES_PER_GROUP_MAX, Write, errno};
use crate::base::MIB;
use crate::sys::memory::Region;

/// Room for a whole group, the background work and the poll of the bell.
const ENTRIES: u32 = (WRITES_PER_GROUP_MAX * 2) as u32;
const _: () = assert!(WRITES_PER_GROUP_MAX + BACKGROUND_REQUESTS_MAX < ENTRIES as usize);
/// Requests one piece of background work may take.
const BACKGROUND_REQUESTS_MAX: usize = Background::ZERO_BYTES_MAX / ZERO_REQUEST_BYTES;
/// Zeros written by one request: as much as a device takes at full speed.
const ZERO_REQUEST_BYTES: usize = MIB;
/// `user_data` of the background work's requests; a group's writes use their index.
const BACKGROUND: u64 = u64::MAX;
/// `user_data` of the poll of the bell.
const BELL: u64 = u64::MAX - 1;
/// A write that was cut short is continued this often; the kernel has no reason to do it twice in a row.
const CONTINUATIONS_MAX: u32 = 1;

/// A ring that belongs to one thread once begun.
pub(super) struct GroupRing {
    ring: IoUring,
    zeros: AlignedBytes,
    /// Held for as long as the kernel knows their addresses.
    registered: Vec<Arc<Region>>,
    begun: bool,
    background: Option<Running>,
    /// A poll of the bell is in the ring.
    bell_polled: bool,
}

/// Background work under way.
struct Running {
    in_flight: usize,
    /// Bytes not yet written.
    missing: usize,
    failure: Option<io::Error>,
}

/// How far one write of a group is.
#[derive(Clone, Copy, Default)]
struct Flight {
    written: u32,
    continuations: u32,
}

impl GroupRing {
    /// A ring that is not yet bound to a thread, with every region registered as one fixed buffer if the kernel allows
    /// it; if not, also why not.
    pub(super) fn new(regions: &[Arc<Region>]) -> io::Result<(Self, Option<io::Error>)> {
        let ring = build()?;
        let iovecs: Vec<libc::iovec> = regions
            .iter()
            .map(|region| libc::iovec { iov_base: region.base().as_ptr().cast(), iov_len: region.bytes() })
            .collect();
        let refused = if regions.is_empty() {
            None
        } else {
            // SAFETY: each iovec is a live mapping; `registered` keeps it mapped for as long as the ring exists, because
            // fields drop in order of declaration, the ring first.
            unsafe { ring.submitter().register_buffers(&iovecs) }.err()
        };
        let registered = if refused.is_none() { regions.to_vec() } else { Vec::new() };
        let zeros = AlignedBytes::zeroed(ZERO_REQUEST_BYTES);
        Ok((Self { ring, zeros, registered, begun: false, background: None, bell_polled: false }, refused))
    }

    /// Binds the ring to the calling thread.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        assert!(!self.begun, "a ring is bound once");
        // The ring was built disabled, so that the one thread allowed to submit is the one that enables it.
        self.ring.submitter().register_enable_rings()?;
        self.begun = true;
        // SAFETY: a cpu_set_t is a bit set, for which all zeros is a value.
        let mut cores: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: pid 0 is the calling thread, and the set is our own, of the size given.
        if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut cores) } == 0 {
            // What the kernel does in worker threads of its own (zeros, background syncs) must not land on a shard's
            // core. Before 5.14 it cannot be told; then it picks any core, which costs speed and nothing else.
            let _ = self.ring.submitter().register_iowq_aff(&cores);
        }
        Ok(())
    }

    /// Starts every write, calls `meanwhile` while they are in flight, and waits for them.
    pub(super) fn write_group(
        &mut self,
        fd: RawFd,
        writes: &[Write<'_>],
        flags: libc::c_int,
        meanwhile: Option<&mut dyn FnMut()>,
    ) -> io::Result<()> {
        assert!(writes.len() <= WRITES_PER_GROUP_MAX, "{} writes in one group", writes.len());
        assert!(self.begun, "the ring is bound to the thread that writes");
        let mut flights = [Flight::default(); WRITES_PER_GROUP_MAX];
        let mut in_flight = 0;
        for (index, write) in writes.iter().enumerate() {
            let entry = self.write_entry(fd, write, 0, flags).user_data(index as u64);
            self.push(&entry);
            in_flight += 1;
        }
        if let Some(meanwhile) = meanwhile {
            self.enter(0);
            meanwhile();
        }
        let mut failure = None;
        while in_flight > 0 {
            self.enter(in_flight);
            while let Some((user_data, result)) = self.reap() {
                if user_data >= BELL {
                    self.note(user_data, result);
                    continue;
                }
                in_flight -= 1;
                let index = user_data as usize;
                let (write, flight) = (&writes[index], &mut flights[index]);
                let again = result == -libc::EAGAIN || result == -libc::EINTR;
                if result < 0 && !again {
                    failure.get_or_insert(errno(-result));
                    continue;
                }
                flight.written += u32::try_from(result).unwrap_or(0);
                if flight.written as usize == write.bytes.len() {
                    continue;
                }
                flight.continuations += 1;
                if flight.continuations > CONTINUATIONS_MAX || failure.is_some() {
                    failure.get_or_insert(io::ErrorKind::WriteZero.into());
                    continue;
                }
                let written = flight.written as usize;
                let entry = self.write_entry(fd, write, written, flags).user_data(user_data);
                self.push(&entry);
                in_flight += 1;
            }
        }
        failure.map_or(Ok(()), Err)
    }

    pub(super) fn start_background(&mut self, fd: RawFd, work: Background) {
        assert!(self.background.is_none(), "one piece of background work at a time");
        assert!(self.begun, "the ring is bound to the thread that writes");
        let mut in_flight = 0;
        let mut missing = 0;
        match work {
            Background::Zero { mut offset, mut bytes, .. } => {
                assert!(bytes > 0 && bytes <= Background::ZERO_BYTES_MAX);
                missing = bytes;
                while bytes > 0 {
                    let length = bytes.min(ZERO_REQUEST_BYTES);
                    let entry = opcode::Write::new(Fd(fd), self.zeros.as_ref().as_ptr(), length as u32);
                    self.push(&entry.offset(offset).build().user_data(BACKGROUND));
                    offset += length as u64;
                    bytes -= length;
                    in_flight += 1;
                }
            }
            Background::Sync { .. } => {
                let entry = opcode::Fsync::new(Fd(fd)).flags(FsyncFlags::DATASYNC).build();
                self.push(&entry.user_data(BACKGROUND));
                in_flight = 1;
            }
        }
        self.background = Some(Running { in_flight, missing, failure: None });
        self.enter(0);
    }

    pub(super) fn poll_background(&mut self) -> Option<io::Result<()>> {
        if self.background.as_ref()?.in_flight > 0 {
            self.enter(0);
            self.reap_beside_groups();
        }
        let running = self.background.take_if(|running| running.in_flight == 0)?;
        Some(match running.failure {
            Some(failure) => Err(failure),
            None if running.missing > 0 => Err(io::ErrorKind::WriteZero.into()),
            None => Ok(()),
        })
    }

    /// Sleeps until the eventfd `bell` is readable, background work ends or `timeout` passes. In the ring, because
    /// poll(2) of a ring with deferred task work is not woken by it: measured, it slept through to its timeout.
    pub(super) fn wait(&mut self, bell: RawFd, timeout: Duration) -> io::Result<()> {
        if bell >= 0 && !self.bell_polled {
            let entry = opcode::PollAdd::new(Fd(bell), libc::POLLIN as u32).build();
            self.push(&entry.user_data(BELL));
            self.bell_polled = true;
        }
        let timeout = Timespec::from(timeout);
        let arguments = SubmitArgs::new().timespec(&timeout);
        match self.ring.submitter().submit_with_args(1, &arguments) {
            Ok(_) => {}
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
            Err(error) => return Err(error),
        }
        self.reap_beside_groups();
        Ok(())
    }

    fn reap_beside_groups(&mut self) {
        while let Some((user_data, result)) = self.reap() {
            assert!(user_data >= BELL, "a group is reaped whole before it returns");
            self.note(user_data, result);
        }
    }

    /// Notes the completion of something that is not a group's.
    fn note(&mut self, user_data: u64, result: i32) {
        if user_data == BELL {
            self.bell_polled = false;
            return;
        }
        let running = self.background.as_mut().expect("background work was started");
        running.in_flight -= 1;
        match usize::try_from(result) {
            Ok(bytes) => running.missing -= bytes,
            Err(_) => {
                running.failure.get_or_insert(errno(-result));
            }
        }
    }

    fn write_entry(&self, fd: RawFd, write: &Write<'_>, written: usize, flags: libc::c_int) -> squeue::Entry {
        let rest = &write.bytes[written..];
        let bytes = u32::try_from(rest.len()).expect("a write is far below 4 GiB");
        let offset = write.offset + written as u64;
        match write.region {
            Some(region) if !self.registered.is_empty() => {
                opcode::WriteFixed::new(Fd(fd), rest.as_ptr(), bytes, region).offset(offset).rw_flags(flags).build()
            }
            _ => opcode::Write::new(Fd(fd), rest.as_ptr(), bytes).offset(offset).rw_flags(flags).build(),
        }
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the entry's buffer is borrowed or owned until its completion is reaped, see the module text.
        let pushed = unsafe { self.ring.submission().push(entry) };
        assert!(pushed.is_ok(), "the submission queue holds a whole group and the background work");
    }

    /// Submits what was pushed and waits for `completions`.
    fn enter(&mut self, completions: usize) {
        loop {
            match self.ring.submitter().submit_and_wait(completions) {
                Ok(_) => return,
                // EINTR: a signal. EAGAIN and EBUSY: the kernel is short of memory, or wants completions reaped first;
                // what was not taken stays queued for the next call.
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) if completions > 0 && self.has_completions() => {
                        return;
                    }
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => std::thread::yield_now(),
                    // Writes may be in flight over memory that the caller is about to reuse: there is no safe way on.
                    _ => panic!("io_uring_enter of the writer's ring failed: {error}"),
                },
            }
        }
    }

    fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    fn reap(&mut self) -> Option<(u64, i32)> {
        self.ring.completion().next().map(|entry| (entry.user_data(), entry.result()))
    }
}

impl Drop for GroupRing {
    fn drop(&mut self) {
        while self.background.as_ref().is_some_and(|running| running.in_flight > 0) {
            self.enter(1);
            self.reap_beside_groups();
        }
    }
}

/// The fastest set-up this kernel has: deferred task work since 6.1, cooperative since 5.19, plain before.
fn build() -> io::Result<IoUring> {
    let mut last = None;
    for attempt in 0..3 {
        let mut builder = IoUring::builder();
        builder.setup_r_disabled().setup_clamp();
        match attempt {
            0 => {
                builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
            }
            1 => {
                builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
            }
            _ => {}
        }
        match builder.build(ENTRIES) {
            Ok(ring) => return Ok(ring),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.expect("three attempts were made"))
}
