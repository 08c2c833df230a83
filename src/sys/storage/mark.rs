//! The durable mark: 32 bytes in a file beside the segments, overwritten in place and never synced.
//!
//! Readers in other processes see it at once, through the page cache. It is a pwrite(2) rather than a store to a
//! mapping because a mapped page that cannot be backed (disk full, I/O error) is a SIGBUS, and a failed pwrite an errno
//! that may be ignored.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::DurableMark;
use super::directory::Directory;
use crate::base::Epoch;

/// Name of the file within the writer's directory.
pub(super) const MARK_NAME: &str = "durable";

const MAGIC: u64 = u64::from_le_bytes(*b"TGmark\0\x01");
/// A reader may see half of an overwrite; it looks again this many times.
const READS_MAX: usize = 16;

/// The writer's end.
#[derive(Debug)]
pub(super) struct MarkFile {
    file: File,
}

impl MarkFile {
    pub(super) fn open(directory: &Directory) -> io::Result<Self> {
        Ok(Self { file: directory.open_at(MARK_NAME, libc::O_WRONLY | libc::O_CREAT)? })
    }

    pub(super) fn set(&self, mark: DurableMark) -> io::Result<()> {
        self.file.write_all_at(&encode(mark), 0)
    }
}

/// Reads the mark of a directory; `None` if there is none, or none that is whole.
pub(super) fn read(directory: &Directory) -> io::Result<Option<DurableMark>> {
    let file = match directory.open_at(MARK_NAME, libc::O_RDONLY) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = [0; 32];
    for _ in 0..READS_MAX {
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        if let Some(mark) = decode(&bytes) {
            return Ok(Some(mark));
        }
    }
    Ok(None)
}

fn encode(mark: DurableMark) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (field, value) in bytes.chunks_exact_mut(8).zip([MAGIC, mark.epoch.0, mark.end, check(mark)]) {
        field.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

fn decode(bytes: &[u8; 32]) -> Option<DurableMark> {
    let field = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let mark = DurableMark { epoch: Epoch(field(8)), end: field(16) };
    (field(0) == MAGIC && field(24) == check(mark)).then_some(mark)
}

/// Tells a whole mark from one half overwritten and from bit rot. A wrong mark could condemn a sound log, so every bit
/// of both fields reaches every bit of the check (two rounds of the finaliser of MurmurHash3).
fn check(mark: DurableMark) -> u64 {
    let mut hash = MAGIC;
    for value in [mark.epoch.0, mark.end] {
        hash ^= value;
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
        hash ^= hash >> 33;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_and_a_broken_one_is_none() {
        let home = tempfile::tempdir().unwrap();
        let directory = Directory::open(home.path()).unwrap();
        assert_eq!(read(&directory).unwrap(), None);
        let file = MarkFile::open(&directory).unwrap();
        assert_eq!(read(&directory).unwrap(), None, "made but never set");
        for mark in [DurableMark { epoch: Epoch(1), end: 4096 }, DurableMark { epoch: Epoch(2), end: 1 << 28 }] {
            file.set(mark).unwrap();
            assert_eq!(read(&directory).unwrap(), Some(mark));
        }
        let sound = encode(DurableMark { epoch: Epoch(2), end: 8192 });
        for bit in 0..256 {
            let mut bytes = sound;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bytes), None, "bit {bit}");
        }
    }
}
