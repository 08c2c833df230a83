//! Reading a log directory: iterate, follow, verify. Any thread of any process, beside a running server or without one.
//!
//! A reader shows an event only once it is known to be durable, and never shows bytes that are not whole: each chunk is
//! copied, then checked, then shown. How it knows what is durable:
//!
//! | the segment | and the server | durable is |
//! |---|---|---|
//! | has a successor | | everything before the end that the successor names |
//! | is the newest | runs | everything before the durable mark |
//! | is the newest | runs, but there is no mark | everything before the last group that can be seen |
//! | is the newest | does not run | what recovery would keep, once the reader itself has synced it |
//! | is the newest | does not run, and an error has made the filesystem read-only | everything before the durable mark |
//!
//! Readers register as followers, so that retention does not overtake them; where no server has made `followers/`, there is
//! nothing to register with. They change nothing else.

mod cat;
mod named;
mod reader;
mod tail;
mod verify;

pub use cat::{CatError, CatOptions, CatSummary, cat};
pub use named::{holds_named_events, storage_holds_named_events};
pub use reader::{Event, LogReader, StoredChunk, expect_data_directory};
pub use tail::ReadError;
pub use verify::{VerifyReport, WriterReport, verify, verify_storages};

/// Bytes read at a time: what a disk needs for full speed with one request in flight.
const READ_BYTES: usize = 2 << 20;

/// Name of a segment's file.
fn segment_name(epoch: crate::base::Epoch) -> String {
    format!("{:016x}.segment", epoch.0)
}

/// The epoch a segment's name says; `None` for every other file.
fn segment_epoch(name: &str) -> Option<crate::base::Epoch> {
    let stem = name.strip_suffix(".segment")?;
    let epoch = crate::base::Epoch(u64::from_str_radix(stem, 16).ok()?);
    (segment_name(epoch) == name).then_some(epoch)
}
