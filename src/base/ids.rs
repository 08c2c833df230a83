//! Identifiers: each its own type, so that a shard number never becomes a sequence number.

use std::fmt;
use std::str::FromStr;

/// A shard's number, 0-based, stable while the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// A writer's number, 0-based. Names a directory of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterId(pub u16);

/// A tenant's number as stored with each event; 0 is the anonymous tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub u16);

/// Number of a chunk within its (writer, shard) pair: 1 for the first ever written, +1 for each one after it, across
/// restarts. 0 means "none yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The number of the chunk after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Number of a segment within its writer's log: 1 for the first ever, +1 for each one after it. Every chunk carries
/// the epoch of its segment, so that what a recycled file held before is never taken for new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// When a request is answered with a 2xx.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AckLevel {
    /// Its events are in the log buffer, in order, and will be written: lost by a crash of the process.
    Memory,
    /// The write of its chunks completed: survives a crash of the process, not of the machine.
    Written,
    /// The sync that covers its chunks returned 0: survives both.
    #[default]
    Durable,
}

impl AckLevel {
    /// The name used in configuration, in `X-Ack` and in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Written => "written",
            Self::Durable => "durable",
        }
    }

    /// Reads a name written by [`AckLevel::name`], ASCII case ignored.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Memory, Self::Written, Self::Durable]
            .into_iter()
            .find(|level| name.eq_ignore_ascii_case(level.name().as_bytes()))
    }
}

impl fmt::Display for AckLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names one stored event: the writer whose log holds it, the shard and the number of its chunk, and its index within
/// the chunk (0-based). Written `writer-shard-seq-index` in decimal, as in `0-3-1289-17`.
///
/// A position is known when the event is placed, before any disk is touched, so an answer at every ack level has one.
/// Within one (writer, shard) pair positions ascend in log order; between shards the log's own order counts, and
/// readers resume at the place in the log that a position names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The writer whose log holds the event.
    pub writer: WriterId,
    /// The shard that received it.
    pub shard: ShardId,
    /// The number of its chunk.
    pub seq: Seq,
    /// Its index within the chunk, 0-based.
    pub index: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}-{}", self.writer.0, self.shard.0, self.seq.0, self.index)
    }
}

/// A text that is not a [`Position`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsePositionError(String);

impl fmt::Display for ParsePositionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not a position: expected writer-shard-seq-index, as in 0-3-1289-17", self.0)
    }
}

impl std::error::Error for ParsePositionError {}

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut parts = text.split('-');
            let position = Self {
                writer: WriterId(parts.next()?.parse().ok()?),
                shard: ShardId(parts.next()?.parse().ok()?),
                seq: Seq(parts.next()?.parse().ok()?),
                index: parts.next()?.parse().ok()?,
            };
            parts.next().is_none().then_some(position)
        };
        parse().ok_or_else(|| ParsePositionError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back_as_written() {
        let position = Position { writer: WriterId(0), shard: ShardId(3), seq: Seq(1289), index: 17 };
        assert_eq!(position.to_string(), "0-3-1289-17");
        assert_eq!("0-3-1289-17".parse(), Ok(position));
        for bad in ["", "1", "0-3-1289", "0-3-1289-17-2", "a-3-1-1", "0-70000-1-1", "0-3--1-1"] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ack_levels_ascend_and_read_back() {
        assert!(AckLevel::Memory < AckLevel::Written && AckLevel::Written < AckLevel::Durable);
        assert_eq!(AckLevel::from_name(b"Durable"), Some(AckLevel::Durable));
        assert_eq!(AckLevel::from_name(b"fsync"), None);
    }
}
