//! One shard: sockets in, events to the hand-off, answers out. Shard thread.

pub mod answer;
pub mod code;
pub mod decode;
pub mod framing;
pub mod http;
pub mod request;
mod response;
mod scan;
mod sink;
mod skeleton;
pub mod split;
