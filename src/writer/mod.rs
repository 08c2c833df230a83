//! One writer: its segment files, group commit, and the durable sequence of each of its shards.
//!
//! ```text
//! open (recover, begin a segment) → join (with the shards' ports) → run: take → write → sync → publish → settle,
//!                                                                      the next write beside this sync
//! ```
//!
//! The writer's thread is the only one that touches its segment files. Decisions are pure and apart: [`batch`] what goes
//! into a group, [`segment`] which segments to keep, [`recover`] where the log ends; `store`, `commit` and `turn` do what
//! they say.
//!
//! What is absent: a timer for group commit (a sync that ends is the clock), a queue between write and sync longer than
//! one group, retries of anything that failed.

pub mod batch;
mod commit;
mod config;
mod open;
pub mod recover;
pub mod segment;
mod store;
mod turn;

pub use config::{OpenError, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, WriterConfig};
pub use open::{Opened, join, open, open_direct};
pub use recover::RecoveryReport;
pub use turn::{Now, Turn, Writer};
