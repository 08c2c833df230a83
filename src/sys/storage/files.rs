//! The files of one writer's directory, opened with O_DIRECT where the filesystem has it; and on top of them the
//! storage of a reader. O_DIRECT for readers too: a page that readahead put into the cache just before the writer wrote
//! around the cache would be read as it was.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::directory::{Directory, Identity};
use super::{DurableMark, Entry, FileId, ReadStorage, mark, server_runs};

/// Open files of one directory.
#[derive(Debug)]
pub(super) struct Files {
    directory: Directory,
    open: Vec<Option<File>>,
    /// Whether O_DIRECT is asked for.
    pub(super) direct: bool,
}

impl Files {
    pub(super) fn new(path: &Path, direct: bool) -> io::Result<Self> {
        Ok(Self { directory: Directory::open(path)?, open: Vec::new(), direct })
    }

    /// The directory that holds all writers' directories.
    pub(super) fn data(&self) -> &Path {
        self.directory.path().parent().unwrap_or(Path::new("."))
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Opens with the given access flags, O_DIRECT added if the filesystem has it.
    pub(super) fn open(&mut self, name: &str, flags: libc::c_int) -> io::Result<FileId> {
        let direct = if self.direct { libc::O_DIRECT } else { 0 };
        let file = self.directory.open_at(name, flags | direct)?;
        let slot = self.open.iter().position(Option::is_none).unwrap_or_else(|| {
            self.open.push(None);
            self.open.len() - 1
        });
        self.open[slot] = Some(file);
        Ok(FileId(slot as u32))
    }

    pub(super) fn close(&mut self, file: FileId) {
        assert!(self.open[file.0 as usize].take().is_some(), "a file is closed once");
    }

    pub(super) fn get(&self, file: FileId) -> &File {
        self.open[file.0 as usize].as_ref().expect("the file is open")
    }

    pub(super) fn fd(&self, file: FileId) -> RawFd {
        self.get(file).as_raw_fd()
    }

    pub(super) fn read_at(&self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let file = self.get(file);
        let mut filled = 0;
        while filled < into.len() {
            match file.read_at(&mut into[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(bytes) => {
                    filled += bytes;
                    // O_DIRECT: a length that is not a whole number of blocks is the end of the file, and going on from
                    // there would be misaligned.
                    if self.direct && !bytes.is_multiple_of(512) {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    pub(super) fn sync(&self, file: FileId) -> io::Result<()> {
        self.get(file).sync_data()
    }

    pub(super) fn is_still(&self, file: FileId, name: &str) -> io::Result<bool> {
        Ok(self.directory.identity_of(name)? == Some(Identity::of(self.get(file))?))
    }
}

/// One writer's directory for reading only.
#[derive(Debug)]
pub struct FileStorage {
    files: Files,
}

impl FileStorage {
    /// Opens the directory of one writer, `DATA/writer-NN`.
    ///
    /// # Errors
    /// What the system answered.
    pub fn open(directory: &Path) -> io::Result<Self> {
        Ok(Self { files: Files::new(directory, true)? })
    }
}

impl ReadStorage for FileStorage {
    fn list(&mut self) -> io::Result<Vec<Entry>> {
        self.files.directory().list()
    }

    fn open(&mut self, name: &str) -> io::Result<FileId> {
        match self.files.open(name, libc::O_RDONLY) {
            // tmpfs and some network filesystems have no O_DIRECT and say so here.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && self.files.direct => {
                self.files.direct = false;
                self.files.open(name, libc::O_RDONLY)
            }
            opened => opened,
        }
    }

    fn close(&mut self, file: FileId) {
        self.files.close(file);
    }

    fn read_at(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.files.read_at(file, offset, into)
    }

    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.files.sync(file)
    }

    fn is_still(&mut self, file: FileId, name: &str) -> io::Result<bool> {
        self.files.is_still(file, name)
    }

    fn durable_mark(&mut self) -> io::Result<Option<DurableMark>> {
        mark::read(self.files.directory())
    }

    fn server_runs(&mut self) -> io::Result<bool> {
        server_runs(self.files.data())
    }
}
