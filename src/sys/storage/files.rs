//! The files of one writer's directory, opened with O_DIRECT where the filesystem has it; and on top of them the
//! storage of a reader. O_DIRECT for readers too: a page that readahead put into the cache just before the writer wrote
//! around the cache would be read as it was.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{DurableMark, Entry, FileId, ReadStorage, errno, mark, server_runs};

/// Open files of one directory.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    directory: File,
    open: Vec<Option<File>>,
    /// Whether O_DIRECT is asked for.
    pub(super) direct: bool,
}

impl Files {
    pub(super) fn new(path: &Path, direct: bool) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), directory: File::open(path)?, open: Vec::new(), direct })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that holds all writers' directories.
    pub(super) fn data(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    pub(super) fn directory(&self) -> &File {
        &self.directory
    }

    pub(super) fn list(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => entries.push(Entry { name, bytes: metadata.len() }),
                Ok(_) => {}
                // Removed between the two calls: as if it had never been listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    /// Opens with the given access flags, O_DIRECT added if the filesystem has it.
    pub(super) fn open(&mut self, name: &str, flags: libc::c_int) -> io::Result<FileId> {
        let direct = if self.direct { libc::O_DIRECT } else { 0 };
        let file = self.open_at(name, flags | direct)?;
        let slot = self.open.iter().position(Option::is_none).unwrap_or_else(|| {
            self.open.push(None);
            self.open.len() - 1
        });
        self.open[slot] = Some(file);
        Ok(FileId(slot as u32))
    }

    pub(super) fn open_at(&self, name: &str, flags: libc::c_int) -> io::Result<File> {
        let name = CString::new(name).map_err(|_| errno(libc::EINVAL))?;
        // Events are the users' own: readable for the server's user and group only.
        let mode: libc::c_uint = 0o640;
        // SAFETY: the directory is open and the name is a C string that outlives the call.
        let fd = unsafe { libc::openat(self.directory.as_raw_fd(), name.as_ptr(), flags | libc::O_CLOEXEC, mode) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fd was just opened and nobody else owns it.
        Ok(unsafe { File::from_raw_fd(fd) })
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
        let open = self.get(file).metadata()?;
        match fs::metadata(self.path.join(name)) {
            Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
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
        self.files.list()
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
        mark::read(self.files.path())
    }

    fn server_runs(&mut self) -> io::Result<bool> {
        server_runs(self.files.data())
    }
}
