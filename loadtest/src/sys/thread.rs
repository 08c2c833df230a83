//! The generator's thread as the system sees it: its core, its CPU time, its limits. The calling thread.

use std::io;
use std::time::Duration;

/// Cores this process may run on, ascending.
pub(crate) fn allowed_cores() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect()
}

/// Pins the calling thread to one core; whether that was allowed.
pub(crate) fn pin(core: usize) -> bool {
    core < libc::CPU_SETSIZE as usize && core_affinity::set_for_current(core_affinity::CoreId { id: core })
}

/// Lets the calling thread's timers fire when they are due. The default slack of 50 us would be half of the slip that
/// a schedule may have.
pub(crate) fn exact_timers() {
    // SAFETY: PR_SET_TIMERSLACK takes an integer and touches no memory; a failure leaves the default, which the
    // measured slip then shows.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

/// CPU time of the calling thread.
pub(crate) fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the call's life.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "the clock of one's own thread exists");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How long the calling thread was ready to run and waited for its core; zero where the kernel does not say.
pub(crate) fn time_without_core() -> Duration {
    // Fields: time on a core, time waiting for one, time slices; see Documentation/scheduler/sched-stats.
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_ascii_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or(0))
}

/// Raises the limit of open descriptors to at least `wanted`, as far as the hard limit allows (or further, for root).
///
/// # Errors
/// With the limit that remains, in a sentence that says how to raise it.
pub(crate) fn allow_descriptors(wanted: u64) -> Result<(), String> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit for the call's life.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if limit.rlim_cur >= wanted {
        return Ok(());
    }
    let raised = libc::rlimit { rlim_cur: wanted, rlim_max: limit.rlim_max.max(wanted) };
    // SAFETY: as above; the kernel only reads it.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(format!(
        "{wanted} open files are needed and {} allowed ({error}): run 'ulimit -n {wanted}' as root first, or use fewer \
         connections",
        limit.rlim_cur
    ))
}
