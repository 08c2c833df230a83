//! What the machine offers, as facts the plan computes with, and the refusals of machines that cannot run a server at
//! all. Main thread, at start.

use std::fmt;
use std::io;
use std::path::Path;

use super::quantity::ByteSize;
use crate::sys::affinity;
use crate::sys::filesystem::{self, Filesystem};
use crate::sys::host::{self, HugePages, Memory, Resource, RingRefusal, UNLIMITED};
use crate::sys::topology::{self, Core};

/// The control thread's executor refuses to start below this limit of locked memory, whatever it may lock.
pub const EXECUTOR_MEMLOCK_BYTES: u64 = 512 * 1024;

/// The first Linux whose rings take the set-up flags the shards use.
const RINGS_SINCE: (u32, u32) = (6, 1);
/// What gives a process more locked memory.
const MEMLOCK_FIX: &str =
    "run `ulimit -l unlimited` as root before starting, or set LimitMEMLOCK=infinity in the systemd unit";

/// A machine, as this process is allowed to use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The kernel's release.
    pub kernel: String,
    /// The cores this process may use, ascending.
    pub cores: Vec<Core>,
    /// Whether the shards' rings can be had.
    pub rings: Result<(), RingRefusal>,
    /// The machine's memory.
    pub memory: Memory,
    /// The control group's memory limit, if there is one.
    pub memory_limit: Option<u64>,
    /// Bytes that may be locked or registered; [`UNLIMITED`] if nothing limits it.
    pub memlock_bytes: u64,
    /// Whether `memlock_bytes` does not count for this process (`CAP_IPC_LOCK`).
    pub memlock_exempt: bool,
    /// Descriptors the process may open.
    pub open_files: u64,
    /// Bytes a file may grow to.
    pub file_bytes: u64,
    /// Whether memory is backed by huge pages.
    pub huge_pages: HugePages,
    /// Where the log is, or will be.
    pub filesystem: Filesystem,
}

/// Why no server can run here. All of them end with exit code 3.
#[derive(Debug)]
pub enum HostError {
    /// The kernel does not say which cores may be used.
    NoCores,
    /// The kernel does not say how much memory there is, nor what else /proc tells.
    NoMemory,
    /// The directory of the log, as it was given, cannot be looked at.
    Data(String, io::Error),
    /// A limit cannot be read or raised.
    Limit(io::Error),
    /// io_uring is switched off.
    RingsDisabled,
    /// The kernel's io_uring is too old.
    RingsTooOld(String),
    /// io_uring is refused to this process.
    RingsRefused(io::Error),
    /// Too little memory may be locked for the control thread's executor.
    Memlock(u64),
    /// As much memory as may be locked is.
    MemlockUsedUp(u64),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCores => f.write_str("the kernel does not say which cores may be used: is /proc mounted?"),
            Self::NoMemory => f.write_str(
                "the kernel does not say how much memory there is: /proc is not mounted, or /proc/meminfo cannot be read; \
                 run `mount -t proc proc /proc` as root",
            ),
            Self::Data(given, error) => {
                write!(f, "{given}: {error}; name a directory this user may enter and write")
            }
            Self::Limit(error) => write!(f, "the limits of open files and locked memory cannot be raised: {error}"),
            Self::RingsDisabled => {
                f.write_str("io_uring is switched off on this host: run `sysctl -w kernel.io_uring_disabled=0` as root")
            }
            Self::RingsTooOld(kernel) => {
                write!(f, "Linux {kernel} is too old: 6.1 or later is needed (io_uring with DEFER_TASKRUN)")
            }
            Self::RingsRefused(error) => write!(
                f,
                "io_uring is refused to this process: {error}; in a container, allow the io_uring system calls (with \
                 Docker: --security-opt seccomp=unconfined)"
            ),
            Self::Memlock(bytes) => write!(
                f,
                "memlock is {}; {} needed: {MEMLOCK_FIX}",
                ByteSize(*bytes),
                ByteSize(EXECUTOR_MEMLOCK_BYTES)
            ),
            Self::MemlockUsedUp(bytes) => write!(f, "there is no ring to be had: {}", used_up(*bytes)),
        }
    }
}

impl std::error::Error for HostError {}

fn used_up(memlock_bytes: u64) -> String {
    format!(
        "memlock (RLIMIT_MEMLOCK) is {} and used up: the rings and registered buffers of all processes of this user count \
         against it; {MEMLOCK_FIX}",
        ByteSize(memlock_bytes)
    )
}

/// What to do about a ring that failed with ENOMEM; `None` where memlock cannot be the cause of `error`. Capabilities are
/// not asked: in a user namespace they do not exempt from it, whatever /proc says.
#[must_use]
pub fn memlock_advice(error: &io::Error) -> Option<String> {
    if error.kind() != io::ErrorKind::OutOfMemory {
        return None;
    }
    let limit = host::resource_limit(Resource::LockedMemory).ok()?.soft;
    (limit != UNLIMITED).then(|| used_up(limit))
}

/// Raises the soft limits of open files and locked memory to their hard ones: what an administrator grants is meant to
/// be used, and the soft limit of 1024 files is there for programs that still call select(2).
///
/// # Errors
/// When the kernel refuses, which it may not.
pub fn raise_limits() -> Result<(), HostError> {
    for resource in [Resource::OpenFiles, Resource::LockedMemory] {
        host::raise_to_hard(resource).map_err(HostError::Limit)?;
    }
    Ok(())
}

impl Host {
    /// Looks at this machine; `data` is the directory the log is in or will be in, and `given` how it was given, for messages.
    ///
    /// # Errors
    /// When the directory cannot be entered, or the kernel does not tell the cores or limits.
    pub fn inspect(data: &Path, given: &str) -> Result<Self, HostError> {
        let cores = affinity::allowed_cores();
        if cores.is_empty() {
            return Err(HostError::NoCores);
        }
        let limit = |resource| host::resource_limit(resource).map(|limit| limit.soft).map_err(HostError::Limit);
        Ok(Self {
            kernel: host::kernel_release(),
            cores: topology::read(Path::new(topology::SYSFS), &cores),
            rings: host::probe_rings(),
            memory: host::memory(),
            memory_limit: host::cgroup_memory_limit(),
            memlock_bytes: limit(Resource::LockedMemory)?,
            memlock_exempt: host::may_lock_any_memory(),
            open_files: limit(Resource::OpenFiles)?,
            file_bytes: limit(Resource::FileSize)?,
            huge_pages: host::huge_pages(),
            filesystem: filesystem::inspect(data).map_err(|error| HostError::Data(given.to_owned(), error))?,
        })
    }

    /// Refuses a machine that cannot run a server however it is configured.
    ///
    /// # Errors
    /// What it lacks.
    pub fn check(&self) -> Result<(), HostError> {
        // What follows from /proc would be told as the operator's fault otherwise: no memory for one shard.
        if self.memory.total_bytes == 0 {
            return Err(HostError::NoMemory);
        }
        match self.rings {
            Err(RingRefusal::Disabled) => return Err(HostError::RingsDisabled),
            // A newer kernel has io_uring: if it says that it does not, somebody makes it say so.
            Err(RingRefusal::Errno(libc::EINVAL | libc::ENOSYS)) if self.kernel_version() < RINGS_SINCE => {
                return Err(HostError::RingsTooOld(self.kernel.clone()));
            }
            Err(RingRefusal::Errno(_)) | Ok(()) => {}
        }
        // Before what else the rings met, which may come from it. The executor looks at the limit only, not at whether
        // it counts for this process.
        if self.memlock_bytes < EXECUTOR_MEMLOCK_BYTES {
            return Err(HostError::Memlock(self.memlock_bytes));
        }
        match self.rings {
            Err(RingRefusal::Errno(libc::ENOMEM)) if self.memlock_bytes != UNLIMITED => {
                Err(HostError::MemlockUsedUp(self.memlock_bytes))
            }
            Err(RingRefusal::Errno(errno)) => Err(HostError::RingsRefused(io::Error::from_raw_os_error(errno))),
            Err(RingRefusal::Disabled) | Ok(()) => Ok(()),
        }
    }

    /// Bytes that may be locked or registered; [`UNLIMITED`] if nothing limits it.
    #[must_use]
    pub fn lockable_bytes(&self) -> u64 {
        if self.memlock_exempt { UNLIMITED } else { self.memlock_bytes }
    }

    /// Memory a server may use: what the machine has free, or what the control group allows if that is less.
    #[must_use]
    pub fn usable_memory_bytes(&self) -> u64 {
        self.memory.available_bytes.min(self.memory_limit.unwrap_or(u64::MAX))
    }

    /// The kernel's major and minor version; (0, 0) if the release does not begin with one.
    #[must_use]
    pub fn kernel_version(&self) -> (u32, u32) {
        let mut numbers = self.kernel.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// Numbers of the NUMA nodes that have cores for this process, ascending.
    #[must_use]
    pub fn numa_nodes(&self) -> Vec<usize> {
        let mut nodes: Vec<_> = self.cores.iter().map(|core| core.numa_node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }
}

#[cfg(test)]
pub(super) mod made_up {
    //! Hosts that nobody has at hand.

    use super::*;
    use crate::sys::filesystem::BlockDevice;

    /// A good host with `cores` logical cores, spread evenly over `nodes` NUMA nodes in blocks, with `threads` SMT
    /// siblings for each physical core numbered as Linux does (first all first threads, then all second ones).
    pub(in crate::control) fn host(cores: usize, nodes: usize, threads: usize) -> Host {
        let physical = cores / threads;
        let core =
            |id: usize| Core { id, numa_node: id % physical / physical.div_ceil(nodes), physical: id % physical };
        Host {
            kernel: "6.12.0".to_owned(),
            cores: (0..cores).map(core).collect(),
            rings: Ok(()),
            memory: Memory { total_bytes: 64 << 30, available_bytes: 60 << 30 },
            memory_limit: None,
            memlock_bytes: UNLIMITED,
            memlock_exempt: false,
            open_files: 1 << 20,
            file_bytes: UNLIMITED,
            huge_pages: HugePages::Madvise,
            filesystem: Filesystem {
                kind: "xfs".to_owned(),
                total_bytes: 1 << 40,
                free_bytes: 1 << 39,
                direct_io: Some(true),
                unwritable: None,
                device: Some(BlockDevice {
                    name: "nvme0n1".to_owned(),
                    volatile_cache: false,
                    fua: true,
                    numa_node: None,
                }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_inspected() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::inspect(directory.path(), "data").unwrap();
        assert!(!host.cores.is_empty() && host.usable_memory_bytes() > 0);
        assert!(host.kernel_version() >= (5, 0), "{}", host.kernel);
    }

    #[test]
    fn a_host_that_cannot_is_told_how_it_could() {
        let able = made_up::host(2, 1, 1);
        assert!(able.check().is_ok());
        for (host, message) in [
            (
                Host { rings: Err(RingRefusal::Disabled), ..able.clone() },
                "io_uring is switched off on this host: run `sysctl -w kernel.io_uring_disabled=0` as root",
            ),
            (
                Host { rings: Err(RingRefusal::Errno(libc::EINVAL)), kernel: "5.15.0-91".to_owned(), ..able.clone() },
                "Linux 5.15.0-91 is too old: 6.1 or later is needed (io_uring with DEFER_TASKRUN)",
            ),
            (
                Host { rings: Err(RingRefusal::Errno(libc::ENOSYS)), ..able.clone() },
                "io_uring is refused to this process: Function not implemented (os error 38); in a container, allow the \
                 io_uring system calls (with Docker: --security-opt seccomp=unconfined)",
            ),
            (
                Host { rings: Err(RingRefusal::Errno(libc::EPERM)), ..able.clone() },
                "io_uring is refused to this process: Operation not permitted (os error 1); in a container, allow the \
                 io_uring system calls (with Docker: --security-opt seccomp=unconfined)",
            ),
            (
                Host { memlock_bytes: 64 * 1024, memlock_exempt: true, ..able.clone() },
                "memlock is 64KiB; 512KiB needed: run `ulimit -l unlimited` as root before starting, or set \
                 LimitMEMLOCK=infinity in the systemd unit",
            ),
            (
                Host { rings: Err(RingRefusal::Errno(libc::ENOMEM)), memlock_bytes: 64 * 1024, ..able.clone() },
                "memlock is 64KiB; 512KiB needed: run `ulimit -l unlimited` as root before starting, or set \
                 LimitMEMLOCK=infinity in the systemd unit",
            ),
            (
                Host { rings: Err(RingRefusal::Errno(libc::ENOMEM)), memlock_bytes: 8 << 20, ..able.clone() },
                "there is no ring to be had: memlock (RLIMIT_MEMLOCK) is 8MiB and used up: the rings and registered buffers \
                 of all processes of this user count against it; run `ulimit -l unlimited` as root before starting, or set \
                 LimitMEMLOCK=infinity in the systemd unit",
            ),
            (
                Host { memory: Memory::default(), ..able.clone() },
                "the kernel does not say how much memory there is: /proc is not mounted, or /proc/meminfo cannot be read; \
                 run `mount -t proc proc /proc` as root",
            ),
        ] {
            assert_eq!(host.check().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn the_tighter_of_two_memory_limits_counts() {
        let mut host = made_up::host(2, 1, 1);
        assert_eq!(host.usable_memory_bytes(), 60 << 30);
        host.memory_limit = Some(1 << 30);
        assert_eq!(host.usable_memory_bytes(), 1 << 30);
        host.memlock_bytes = 1;
        assert_eq!(host.lockable_bytes(), 1);
        host.memlock_exempt = true;
        assert_eq!(host.lockable_bytes(), UNLIMITED);
    }
}
