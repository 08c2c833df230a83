//! Resource limits of processes, set with `prlimit` (util-linux, on every Debian): no unsafe call, no package.

use std::process::Command;

/// Lets this process open as many files as it may ever. The usual soft limit of 1024 is less than some tests hold.
pub(crate) fn raise_open_files() {
    let pid = std::process::id().to_string();
    let output = Command::new("prlimit")
        .args(["--nofile", "--output", "HARD", "--noheadings", "--raw", "--pid", &pid])
        .output()
        .expect("prlimit (util-linux) runs");
    let hard = String::from_utf8(output.stdout).expect("prlimit prints ASCII").trim().to_owned();
    set(&pid, &format!("--nofile={hard}:{hard}"));
}

/// Makes every further write of process `pid` to a file fail with EFBIG.
pub(crate) fn forbid_file_writes(pid: u32) {
    set(&pid.to_string(), "--fsize=0:0");
}

fn set(pid: &str, limit: &str) {
    let status = Command::new("prlimit").args([limit, "--pid", pid]).status().expect("prlimit (util-linux) runs");
    assert!(status.success(), "{limit} could not be set");
}
