//! What the machine and its kernel grant this process: memory, limits, io_uring.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;

/// A resource limit's value for "no limit".
pub const UNLIMITED: u64 = u64::MAX;

/// The kernel's release, as in `6.18.44-generic`. From uname(2), which also answers where /proc is not mounted.
#[must_use]
pub fn kernel_release() -> String {
    let mut name = MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: the struct is ours to fill in.
    let filled = unsafe { libc::uname(name.as_mut_ptr()) } == 0;
    assert!(filled, "uname(2) fails for a bad address only");
    // SAFETY: uname returned 0, so it filled the struct in; all zeros would be a value too.
    let release = unsafe { name.assume_init() }.release;
    let letters = release.iter().take_while(|letter| **letter != 0);
    // The type of a C character differs between architectures; a release is ASCII.
    #[allow(clippy::unnecessary_cast, reason = "c_char is i8 on x86-64 and u8 on aarch64")]
    letters.map(|letter| char::from(*letter as u8)).collect()
}

/// The machine's memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total_bytes: u64,
    /// What could be had without swapping, by the kernel's estimate.
    pub available_bytes: u64,
}

/// Reads /proc/meminfo; zeros where it does not say.
#[must_use]
pub fn memory() -> Memory {
    parse_meminfo(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

fn parse_meminfo(text: &str) -> Memory {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    Memory { total_bytes: bytes("MemTotal"), available_bytes: bytes("MemAvailable") }
}

/// The lowest memory limit of the control groups this process is in; `None` if there is none.
#[must_use]
pub fn cgroup_memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    cgroup_limit_files(&groups)
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
        .min()
        // Version 1 says "no limit" with the largest page-aligned number.
        .filter(|bytes| *bytes < 1 << 60)
}

/// Where the limits of the groups in /proc/self/cgroup (`id:controllers:path` lines) are to be found, the whole way up,
/// because each level limits those below it. In a container the path is often the host's and only the root is there.
fn cgroup_limit_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        for level in Path::new(path).ancestors() {
            let level = level.to_str().unwrap_or("/").trim_matches('/');
            let slash = if level.is_empty() { "" } else { "/" };
            files.push(format!("{root}{slash}{level}/{file}"));
        }
    }
    files
}

/// A limit of the process, see setrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Open descriptors; also the longest table of direct descriptors a ring takes.
    OpenFiles,
    /// Bytes the process may lock or register with the kernel.
    LockedMemory,
    /// Length of a file the process may write.
    FileSize,
}

impl Resource {
    fn raw(self) -> libc::__rlimit_resource_t {
        match self {
            Self::OpenFiles => libc::RLIMIT_NOFILE,
            Self::LockedMemory => libc::RLIMIT_MEMLOCK,
            Self::FileSize => libc::RLIMIT_FSIZE,
        }
    }
}

/// The two values of a resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceLimit {
    /// What holds now.
    pub soft: u64,
    /// What it may be raised to.
    pub hard: u64,
}

/// Reads a limit.
///
/// # Errors
/// The errno of getrlimit(2); none is documented for a valid resource.
pub fn resource_limit(resource: Resource) -> io::Result<ResourceLimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct is ours and of the type that getrlimit fills in.
    if unsafe { libc::getrlimit(resource.raw(), &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ResourceLimit { soft: limit.rlim_cur, hard: limit.rlim_max })
}

/// Raises a limit's soft value to its hard one, which any process may; what holds then.
///
/// # Errors
/// The errno of setrlimit(2).
pub fn raise_to_hard(resource: Resource) -> io::Result<ResourceLimit> {
    let before = resource_limit(resource)?;
    let limit = libc::rlimit { rlim_cur: before.hard, rlim_max: before.hard };
    // SAFETY: the struct is ours; setrlimit only reads it.
    if unsafe { libc::setrlimit(resource.raw(), &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    resource_limit(resource)
}

/// Whether this process may lock memory beyond its limit (`CAP_IPC_LOCK`).
#[must_use]
pub fn may_lock_any_memory() -> bool {
    const CAP_IPC_LOCK: u64 = 14;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << CAP_IPC_LOCK) != 0)
}

/// Whether the kernel backs memory with huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// For all memory.
    Always,
    /// Where a program asks for it, as this one does.
    Madvise,
    /// For none.
    Never,
    /// The kernel does not say.
    Unknown,
}

/// Reads the setting of transparent huge pages.
#[must_use]
pub fn huge_pages() -> HugePages {
    let text = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    [(HugePages::Always, "[always]"), (HugePages::Madvise, "[madvise]"), (HugePages::Never, "[never]")]
        .into_iter()
        .find_map(|(setting, chosen)| text.contains(chosen).then_some(setting))
        .unwrap_or(HugePages::Unknown)
}

/// Why this process cannot have the rings it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingRefusal {
    /// `kernel.io_uring_disabled` is not 0.
    Disabled,
    /// Another errno: EPERM or ENOSYS under a seccomp filter, ENOMEM at the memlock limit, and from kernels without the
    /// set-up flags of Linux 6.1 EINVAL.
    Errno(i32),
}

/// Sets up a small ring of the kind the shards use and drops it again.
///
/// # Errors
/// Why there can be none.
pub fn probe_rings() -> Result<(), RingRefusal> {
    let ring = io_uring::IoUring::<io_uring::squeue::Entry>::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_clamp()
        .build(8);
    let disabled = || {
        fs::read_to_string("/proc/sys/kernel/io_uring_disabled").is_ok_and(|setting| !setting.trim().starts_with('0'))
    };
    match ring.map_err(|error| error.raw_os_error().unwrap_or(0)) {
        Ok(_) => Ok(()),
        Err(libc::EPERM) if disabled() => Err(RingRefusal::Disabled),
        Err(errno) => Err(RingRefusal::Errno(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_in_kibibytes() {
        let text = "MemTotal:       24684084 kB\nMemFree:  1 kB\nMemAvailable:   24298564 kB\n";
        assert_eq!(parse_meminfo(text), Memory { total_bytes: 24_684_084 * 1024, available_bytes: 24_298_564 * 1024 });
        assert_eq!(parse_meminfo(""), Memory::default());
        assert!(memory().available_bytes > 0);
    }

    #[test]
    fn every_level_of_both_kinds_of_cgroup_is_looked_at() {
        let groups = "4:memory:/a/b\n3:cpuset:/\n0::/system.slice/tidegate.service\nnonsense\n";
        assert_eq!(
            cgroup_limit_files(groups),
            [
                "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/system.slice/tidegate.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
    }

    #[test]
    fn a_limit_is_raised_to_its_hard_value() {
        let before = resource_limit(Resource::OpenFiles).unwrap();
        let after = raise_to_hard(Resource::OpenFiles).unwrap();
        assert_eq!((after.soft, after.hard), (before.hard, before.hard));
        assert!(resource_limit(Resource::LockedMemory).unwrap().soft > 0);
    }

    #[test]
    fn the_kernel_says_who_it_is() {
        assert!(kernel_release().chars().next().is_some_and(|first| first.is_ascii_digit()));
    }
}
