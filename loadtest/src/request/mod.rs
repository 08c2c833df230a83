//! Requests: built once, patched per send, and what is expected of each answer.

mod compress;
mod expect;
pub mod field;
mod image;
mod lane;

pub use compress::{Compressor, Encoding};
pub use expect::{Check, Expect, Outcome, judge};
pub use image::{Ack, BATCH_MAX, Format, HeadOptions, Image, Kind, KindOptions, images};
pub use lane::{Lane, Patch};
