//! Whether a log holds events of tenants that have a number. Control thread, before a server starts; reads one chunk of each
//! segment and judges nothing: what cannot be read as a chunk is for recovery to say.

use std::io;
use std::path::Path;

use super::reader::{directory_name, writers};
use super::{READ_BYTES, segment_epoch, segment_name};
use crate::base::{Epoch, TenantId, WriterId};
use crate::record::walk::{Cursor, Step, Walker};
use crate::record::{ChunkKind, Records, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::sys::storage::{AlignedBytes, FileStorage, ReadStorage};

/// Whether any event in `data` is that of a tenant other than the anonymous one. The first chunk of a segment speaks for all
/// of it: a server takes anonymous events or named ones, for as long as it runs, and each start begins a segment.
///
/// # Errors
/// What the system answered.
pub fn holds_named_events(data: &Path) -> io::Result<bool> {
    for writer in writers(data)? {
        let mut storage = FileStorage::open(&data.join(directory_name(writer)))?;
        if storage_holds_named_events(writer, &mut storage)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// [`holds_named_events`] for one writer's storage.
///
/// # Errors
/// What the system answered.
pub fn storage_holds_named_events(writer: WriterId, storage: &mut dyn ReadStorage) -> io::Result<bool> {
    let mut walker = Walker::new(AlignedBytes::zeroed(READ_BYTES));
    for entry in storage.list()? {
        let Some(epoch) = segment_epoch(&entry.name) else { continue };
        if begins_with_a_named_event(writer, epoch, storage, &mut walker)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn begins_with_a_named_event(
    writer: WriterId,
    epoch: Epoch,
    storage: &mut dyn ReadStorage,
    walker: &mut Walker<AlignedBytes>,
) -> io::Result<bool> {
    let file = storage.open(&segment_name(epoch))?;
    let mut read = |offset, into: &mut [u8]| storage.read_at(file, offset, into);
    let mut first_chunk = || {
        let mut page = AlignedBytes::zeroed(SEGMENT_HEADER_BYTES);
        let bytes = read(0, page.as_mut())?;
        let Ok(header) = SegmentHeader::decode(&page.as_ref()[..bytes], writer, epoch) else { return Ok(false) };
        walker.forget();
        match walker.next(&mut Cursor::at_start_of(&header), header.segment_bytes, &mut read)? {
            Step::Chunk(chunk) if chunk.header.kind == ChunkKind::Events => {
                let mut records = Records::new(chunk.payload);
                Ok(records.any(|record| record.is_ok_and(|record| record.tenant != TenantId::default())))
            }
            _ => Ok(false),
        }
    };
    let found = first_chunk();
    storage.close(file);
    found
}
