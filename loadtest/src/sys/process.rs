//! A child process that does not outlive this one, and is signalled with all that it started. The calling thread.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

/// Lets the child lead a group of its own, so that Ctrl-C is not its too, and be killed by the kernel when the calling
/// thread ends: however this process ends, the child does.
pub(crate) fn dies_with_us(command: &mut Command) {
    command.process_group(0);
    let ask = || {
        // SAFETY: PR_SET_PDEATHSIG takes an integer and touches no memory.
        let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec the closure makes one system call, which is allowed there (signal-safety(7) asks for no
    // lock and no allocation), and captures nothing.
    unsafe { command.pre_exec(ask) };
}

/// Signals the group that a child of [`dies_with_us`] leads.
///
/// # Errors
/// The errno of kill(2); ESRCH once the whole group has ended.
pub(crate) fn signal_group(leader: &Child, signal: i32) -> io::Result<()> {
    let group = libc::pid_t::try_from(leader.id()).expect("ids of processes fit");
    // SAFETY: kill(2) takes integers. The leader is not waited for while it is borrowed here alive or as a zombie, so its
    // number names no other group.
    if unsafe { libc::kill(-group, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
