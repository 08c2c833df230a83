//! Event records: what a chunk's payload is made of. Shards write them, readers iterate them.

use std::fmt;

use super::{get_u16, get_u32, put};
use crate::base::{EVENT_BYTES_MAX, TenantId};

/// Bytes before each event: length, tenant, flags. Records are packed, without padding between them.
pub const RECORD_HEADER_BYTES: usize = 8;

/// Fills in the header of a record of `event_bytes` bytes.
///
/// # Panics
/// If the event is empty or longer than [`EVENT_BYTES_MAX`]: limits are checked before bytes are placed.
#[inline]
pub fn put_record_header(header: &mut [u8; RECORD_HEADER_BYTES], event_bytes: usize, tenant: TenantId, flags: u16) {
    assert!(event_bytes > 0 && event_bytes <= EVENT_BYTES_MAX, "an event of {event_bytes} bytes");
    put(header, 0, &(event_bytes as u32).to_le_bytes());
    put(header, 4, &tenant.0.to_le_bytes());
    put(header, 6, &flags.to_le_bytes());
}

/// One event as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Whose it is.
    pub tenant: TenantId,
    /// Reserved; 0.
    pub flags: u16,
    /// Its bytes, one line of JSON.
    pub event: &'a [u8],
}

/// A payload whose checksum holds but whose records do not add up: written wrong, not damaged later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFault {
    /// A record's length is 0 or above [`EVENT_BYTES_MAX`].
    Length(u32),
    /// A record ends behind the payload.
    Overrun,
    /// The payload does not hold as many records as its chunk says.
    Count {
        /// What the chunk's header says.
        expected: u32,
        /// What the payload holds.
        found: u32,
    },
}

impl fmt::Display for RecordFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(length) => write!(f, "a record of {length} bytes"),
            Self::Overrun => f.write_str("a record ends behind its chunk"),
            Self::Count { expected, found } => write!(f, "{found} records where the header says {expected}"),
        }
    }
}

/// Iterates the records of a payload; ends after the first fault.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    /// Over `payload`, from its first record on.
    #[must_use]
    pub fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// Checks that `payload` is exactly `events` records.
    ///
    /// # Errors
    /// The first fault found.
    pub fn check(payload: &'a [u8], events: u32) -> Result<(), RecordFault> {
        let mut found = 0;
        for record in Self::new(payload) {
            record?;
            found += 1;
        }
        if found == events { Ok(()) } else { Err(RecordFault::Count { expected: events, found }) }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        let Some((header, rest)) = rest.split_at_checked(RECORD_HEADER_BYTES) else {
            return Some(Err(RecordFault::Overrun));
        };
        let length = get_u32(header, 0);
        // A flipped bit in the length must not become a 4 GiB slice.
        if length == 0 || length as usize > EVENT_BYTES_MAX {
            return Some(Err(RecordFault::Length(length)));
        }
        let Some((event, rest)) = rest.split_at_checked(length as usize) else {
            return Some(Err(RecordFault::Overrun));
        };
        self.rest = rest;
        Some(Ok(Record { tenant: TenantId(get_u16(header, 4)), flags: get_u16(header, 6), event }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(events: &[(&[u8], u16)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (event, tenant) in events {
            let mut header = [0; RECORD_HEADER_BYTES];
            put_record_header(&mut header, event.len(), TenantId(*tenant), 0);
            bytes.extend_from_slice(&header);
            bytes.extend_from_slice(event);
        }
        bytes
    }

    #[test]
    fn records_read_back_as_written() {
        let bytes = payload(&[(b"{}", 0), (b"{\"a\":1}", 7), (b"x", 65535)]);
        let records: Vec<_> = Records::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(records[1], Record { tenant: TenantId(7), flags: 0, event: b"{\"a\":1}" });
        assert_eq!((records.len(), records[2].tenant), (3, TenantId(65535)));
        assert_eq!(Records::check(&bytes, 3), Ok(()));
        assert_eq!(Records::check(&bytes, 2), Err(RecordFault::Count { expected: 2, found: 3 }));
        assert_eq!(Records::check(b"", 0), Ok(()));
    }

    #[test]
    fn a_cut_payload_is_refused_wherever_it_is_cut() {
        let bytes = payload(&[(b"{\"a\":1}", 1), (b"{\"b\":22}", 2)]);
        for cut in 1..bytes.len() {
            assert!(Records::check(&bytes[..cut], 2).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_length_out_of_bounds_is_refused_before_it_is_used() {
        for length in [0, EVENT_BYTES_MAX as u32 + 1, u32::MAX] {
            let mut bytes = payload(&[(b"{}", 1)]);
            bytes[..4].copy_from_slice(&length.to_le_bytes());
            let mut records = Records::new(&bytes);
            assert_eq!(records.next(), Some(Err(RecordFault::Length(length))));
            assert_eq!(records.next(), None, "nothing is read after a fault");
        }
    }
}
