//! What the operating system gives: rings, memory, files, cores. The only room with system calls; no policy.
#![allow(
    unsafe_code,
    reason = "this room is where system calls and shared memory live; every site says why it is sound"
)]

pub mod affinity;
pub mod executor;
pub mod filesystem;
pub mod host;
pub mod memory;
pub mod net;
pub mod notify;
pub mod priority;
pub mod process;
pub mod stderr;
pub mod storage;
pub mod topology;
pub mod uring;
