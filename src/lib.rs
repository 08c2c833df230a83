//! tidegate: HTTP event ingestion for bare-metal Linux. This page is the table of contents.
//!
//! ```text
//! socket → recv buffer → parse/validate → chunk → rtrb ring → writer → O_DIRECT segment → sync
//!                                                                                          │
//! socket ← response  ←  ack when durable_seq ≥ the request's last seq  ←  rtrb ring  ←─────┘
//! ```
//!
//! | room | what | thread |
//! |---|---|---|
//! | [`base`] | units, identifiers, limits | any |
//! | [`sys`] | rings, memory, files, cores | any |
//! | [`record`] | bytes on disk | any |
//! | [`json`] | validation over slices | shard |
//! | [`metrics`] | per-core counters and histograms | one writes, any reads |
//! | [`admit`] | who is served, who is refused, who waits | shard |
//! | [`shard`] | one shard turn: sockets, HTTP, events, acks | shard |
//! | [`handoff`] | who owns which bytes when | shard and writer |
//! | [`writer`] | one writer turn: group commit, segments, recovery | writer |
//! | [`log`] | reading a log directory | reader |
//! | [`control`] | configuration, plan, boot, shutdown, admin port | control |
#![deny(unsafe_code)]

pub mod admit;
pub mod base;
pub mod control;
pub mod handoff;
pub mod json;
pub mod log;
pub mod metrics;
pub mod record;
pub mod shard;
pub mod sys;
pub mod writer;
