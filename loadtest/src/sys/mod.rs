//! What the operating system gives the load generator: a ring, memory the kernel may touch, a core. System calls, no policy.
//!
//! Of its own and not the server's room of that name: the two sides of a measurement share no code, so that no mistake
//! cancels itself out. It is the only place of this crate with unsafe code.
#![allow(
    unsafe_code,
    reason = "this is where system calls and kernel-shared memory live; every site says why it is sound"
)]

pub(crate) mod buffers;
pub(crate) mod memory;
pub(crate) mod process;
pub(crate) mod ring;
pub(crate) mod thread;
