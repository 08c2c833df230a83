//! Who owns which bytes when: the hand-off of chunks between a shard and its writer.
//!
//! ```text
//!   Free → Filling (shard: LogBuffer) → Sealed (ring) → InFlight (writer: SealedChunk) → Settled (ring back) → Free
//! ```
//!
//! Bytes live in one [`LogBuffer`] per shard and never move; the two `rtrb` rings of a (shard, writer) pair carry
//! handles. A handle is a token: it cannot be cloned or made up outside this room, and whoever holds it is the one
//! owner of its bytes. Rings are never spun on: their capacity bounds how many chunks may be outstanding, the shard
//! keeps to it, so a push cannot fail on either side.
//!
//! What is absent: locks, allocation after [`channel`], any knowledge of what the bytes mean.
#![allow(unsafe_code, reason = "two threads share one mapping; the handles make their parts disjoint")]

mod bell;
mod channel;
mod log_buffer;
mod sleep_flag;
mod status;

pub use bell::Bell;
pub use channel::{ShardPort, WriterPort, channel};
pub use log_buffer::{CHUNK_HEADER_BYTES, LogBuffer, NoRoom, SealedChunk, SettledChunk};
pub use sleep_flag::{Flag, SleepFlag};
pub use status::{FailureStage, WriterFailure, WriterState, WriterStatus};
