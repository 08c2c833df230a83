//! One open directory. Every name is looked up in it by its descriptor, so that nothing here ever touches another directory
//! that has taken its path meanwhile. The writer's thread and readers in theirs, one of them each.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Entry, errno};

/// What tells one file from every other, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// That of an open file.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|metadata| Self::from(&metadata))
    }

    /// That of what `path` names now; `None` if it names nothing.
    pub(super) fn at(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(Self::from(&metadata))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl From<&fs::Metadata> for Identity {
    fn from(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    file: File,
}

impl Directory {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: File::open(path)? })
    }

    /// The path it was opened by.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Whether its path still names it.
    pub(super) fn is_in_place(&self) -> io::Result<bool> {
        Ok(Identity::at(&self.path)? == Some(Identity::of(&self.file)?))
    }

    /// Its regular files.
    pub(super) fn list(&self) -> io::Result<Vec<Entry>> {
        let mut names = Names::of(self)?;
        let mut entries = Vec::new();
        while let Some(name) = names.next()? {
            // Removed between the two calls: as if it had never been listed.
            let Some(stat) = self.stat(&name)? else { continue };
            let Ok(name) = name.into_string() else { continue };
            if stat.st_mode & libc::S_IFMT == libc::S_IFREG {
                entries.push(Entry { name, bytes: u64::try_from(stat.st_size).unwrap_or(0) });
            }
        }
        Ok(entries)
    }

    /// Opens a file of it, or makes one.
    pub(super) fn open_at(&self, name: &str, flags: libc::c_int) -> io::Result<File> {
        let name = c_string(name)?;
        // Events are the users' own: readable for the server's user and group only.
        let mode: libc::c_uint = 0o640;
        // SAFETY: the directory is open and the name is a C string that outlives the call.
        let fd = unsafe { libc::openat(self.file.as_raw_fd(), name.as_ptr(), flags | libc::O_CLOEXEC, mode) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fd was just opened and nobody else owns it.
        Ok(unsafe { File::from_raw_fd(fd) })
    }

    /// Gives a file another name, replacing none: nobody else makes names here, so looking first is enough.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (c_string(from)?, c_string(to)?);
        if self.stat(&to)?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let fd = self.file.as_raw_fd();
        // SAFETY: the directory is open and both names are C strings that outlive the call.
        checked(unsafe { libc::renameat(fd, from.as_ptr(), fd, to.as_ptr()) })
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let name = c_string(name)?;
        // SAFETY: the directory is open and the name is a C string that outlives the call.
        checked(unsafe { libc::unlinkat(self.file.as_raw_fd(), name.as_ptr(), 0) })
    }

    /// Which file a name of it is; `None` if there is none.
    pub(super) fn identity_of(&self, name: &str) -> io::Result<Option<Identity>> {
        let stat = self.stat(&c_string(name)?)?;
        Ok(stat.map(|stat| Identity { device: stat.st_dev, inode: stat.st_ino }))
    }

    fn stat(&self, name: &CStr) -> io::Result<Option<libc::stat>> {
        // SAFETY: stat is plain integers, for which all zeros is a value.
        let mut stat: libc::stat = unsafe { mem::zeroed() };
        let (fd, flags) = (self.file.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
        // SAFETY: the directory is open, the name is a C string and the stat ours; both outlive the call.
        match checked(unsafe { libc::fstatat(fd, name.as_ptr(), &raw mut stat, flags) }) {
            Ok(()) => Ok(Some(stat)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The names of a directory, one after another.
struct Names(*mut libc::DIR);

impl Names {
    fn of(directory: &Directory) -> io::Result<Self> {
        // A description of its own: the place in the listing belongs to it.
        let fd = directory.open_at(".", libc::O_RDONLY | libc::O_DIRECTORY)?.into_raw_fd();
        // SAFETY: the descriptor is an open directory that nobody else owns; on success the stream does.
        let stream = unsafe { libc::fdopendir(fd) };
        if stream.is_null() {
            let error = io::Error::last_os_error();
            // SAFETY: the stream was not made, so the descriptor is still ours to close.
            drop(unsafe { File::from_raw_fd(fd) });
            return Err(error);
        }
        Ok(Self(stream))
    }

    fn next(&mut self) -> io::Result<Option<CString>> {
        // SAFETY: errno is this thread's own. readdir(3): at the end errno is left alone, at an error it is set.
        unsafe { *libc::__errno_location() = 0 };
        // SAFETY: the stream is open and this thread alone uses it.
        let entry = unsafe { libc::readdir(self.0) };
        if entry.is_null() {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(0) { Ok(None) } else { Err(error) };
        }
        // SAFETY: the entry is valid until the next call on the stream, and its name ends with a zero.
        Ok(Some(unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) }.to_owned()))
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // SAFETY: the stream is open, and closed once.
        unsafe { libc::closedir(self.0) };
    }
}

fn c_string(name: &str) -> io::Result<CString> {
    CString::new(name).map_err(|_| errno(libc::EINVAL))
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_directory_under_its_path_is_never_touched() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("a"), "ours").unwrap();
        let directory = Directory::open(&path).unwrap();
        assert!(directory.is_in_place().unwrap());
        fs::rename(&path, home.path().join("moved")).unwrap();
        assert!(!directory.is_in_place().unwrap());
        fs::create_dir(&path).unwrap();
        fs::write(path.join("a"), "another's").unwrap();
        assert!(!directory.is_in_place().unwrap());
        let ours = Identity::of(&directory.open_at("a", libc::O_RDONLY).unwrap()).unwrap();
        assert_eq!(directory.identity_of("a").unwrap(), Some(ours));
        assert_ne!(Identity::at(&path.join("a")).unwrap(), Some(ours));
        assert_eq!(directory.list().unwrap(), [Entry { name: "a".to_owned(), bytes: 4 }]);
        directory.rename("a", "b").unwrap();
        directory.remove("b").unwrap();
        assert_eq!(directory.remove("a").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(fs::read(path.join("a")).unwrap(), b"another's");
    }
}
