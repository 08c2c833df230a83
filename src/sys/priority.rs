//! Scheduling priority of the calling thread.

use std::io;

/// The lowest real-time priority: above every ordinary thread, below whatever else the host runs as real-time.
const PRIORITY: libc::c_int = 1;

/// Puts the calling thread into the real-time round-robin class (sched(7)): when it wakes it runs at once, whatever
/// ordinary thread has its core, instead of waiting for that one's slice to end. For a thread that sleeps between short
/// bursts of work.
///
/// # Errors
/// EPERM without CAP_SYS_NICE and with a zero RLIMIT_RTPRIO, or in a cgroup without a real-time budget.
pub fn raise_to_realtime() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: the parameters live across the call; 0 means the calling thread. SCHED_RESET_ON_FORK keeps threads and
    // kernel workers that it starts ordinary.
    let result =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_thread_is_realtime_and_its_children_are_not() {
        let policy = || {
            // SAFETY: no pointers; 0 means the calling thread.
            unsafe { libc::sched_getscheduler(0) & !libc::SCHED_RESET_ON_FORK }
        };
        let seen = std::thread::spawn(move || {
            raise_to_realtime().map(|()| (policy(), std::thread::spawn(policy).join().expect("it only looks")))
        });
        match seen.join().unwrap() {
            Ok(policies) => assert_eq!(policies, (libc::SCHED_RR, libc::SCHED_OTHER)),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM), "not allowed here: {error}"),
        }
    }
}
