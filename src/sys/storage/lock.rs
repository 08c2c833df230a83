//! The data-directory lock: one server per directory, recognisable as running by anybody who may read it.
//!
//! An open-file-description lock (fcntl(2), F_OFD_SETLK) rather than flock(2): a reader can ask whether it is held
//! without taking it for a moment, which could make a server that starts in that moment refuse to.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::directory::Identity;

/// Name of the lock file within the data directory.
const LOCK_NAME: &str = "LOCK";
/// What it says below the pid, to whoever thinks of removing it.
const LOCK_TEXT: &str = "\
tidegate holds a lock on this very file while it runs, and leaves it when it ends. Do not delete it: a second server
could then start on the same log. The first stops as soon as it notices.
";

/// A data directory held by this process until dropped.
#[derive(Debug)]
pub struct DataLock {
    // The lock ends with the open file description; the file itself stays, since removing it would let two servers hold
    // the locks of two files of one name.
    _file: File,
}

/// Why a data directory cannot be held.
#[derive(Debug)]
pub enum LockError {
    /// Another server holds it.
    Held {
        /// The directory.
        directory: PathBuf,
        /// The other server's process, as far as it can be told.
        pid: Option<u32>,
    },
    /// The directory or the lock file cannot be made or locked.
    Io {
        /// What was tried.
        what: String,
        /// What the system answered.
        error: io::Error,
    },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { directory, pid } => {
                write!(f, "the data directory {} is in use by another server", directory.display())?;
                if let Some(pid) = pid {
                    write!(f, " (pid {pid})")?;
                }
                f.write_str(": stop it, or give this one another --data")
            }
            Self::Io { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for LockError {}

impl DataLock {
    /// Makes the directory if it is not there, and holds it.
    ///
    /// # Errors
    /// [`LockError::Held`] if another server does, [`LockError::Io`] if it cannot be made.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let io = |what: String| move |error| LockError::Io { what, error };
        fs::create_dir_all(directory).map_err(io(format!("creating {}", directory.display())))?;
        let path = directory.join(LOCK_NAME);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .map_err(io(format!("opening {}", path.display())))?;
        if !try_lock(&file).map_err(io(format!("locking {}", path.display())))? {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            return Err(LockError::Held {
                directory: directory.to_owned(),
                pid: text.lines().next().and_then(|pid| pid.parse().ok()),
            });
        }
        let text = format!("{}\n{LOCK_TEXT}", std::process::id());
        // In this order a full disk leaves what the last server wrote.
        file.write_all(text.as_bytes())
            .and_then(|()| file.set_len(text.len() as u64))
            .map_err(io(format!("writing {}", path.display())))?;
        Ok(Self { _file: file })
    }
}

/// Whether a server holds `directory` now.
///
/// # Errors
/// What the system answered; a directory without a lock file is held by nobody.
pub fn server_runs(directory: &Path) -> io::Result<bool> {
    match File::open(directory.join(LOCK_NAME)) {
        Ok(file) => is_locked(&file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a server ever held `directory`: its lock file stays. Other programs have files of that name too (RocksDB's is
/// empty), so it must hold what a server writes into it.
///
/// # Errors
/// What the system answered; a directory without a lock file was held by nobody.
pub fn was_held(directory: &Path) -> io::Result<bool> {
    match fs::read(directory.join(LOCK_NAME)) {
        Ok(bytes) => Ok(std::str::from_utf8(&bytes)
            .is_ok_and(|text| text.lines().next().is_some_and(|pid| pid.parse::<u32>().is_ok()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Which file the lock file of `directory` is now; `None` if there is none.
pub(super) fn identity(directory: &Path) -> io::Result<Option<Identity>> {
    Identity::at(&directory.join(LOCK_NAME))
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    // SAFETY: flock is plain integers, for which all zeros is a value: start 0 and length 0 are the whole file, and
    // l_pid must be 0 for an open-file-description lock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
}

/// Locks the whole file for writing until its description is closed; false if another description holds it.
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    let lock = whole_file(libc::F_WRLCK);
    // SAFETY: the descriptor is open and the pointer is to a flock that outlives the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Whether another description holds a lock on the file. Takes none.
pub(super) fn is_locked(file: &File) -> io::Result<bool> {
    let mut lock = whole_file(libc::F_WRLCK);
    // SAFETY: as in `try_lock`; the kernel writes to the flock, which is ours alone.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(libc::c_int::from(lock.l_type) != libc::F_UNLCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_is_refused_and_told_the_first_ones_pid() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("made/on/the/way");
        assert!(!server_runs(&data).unwrap() && !was_held(&data).unwrap());
        let lock = DataLock::acquire(&data).unwrap();
        assert!(server_runs(&data).unwrap());
        let refused = DataLock::acquire(&data).unwrap_err();
        assert!(matches!(refused, LockError::Held { pid: Some(pid), .. } if pid == std::process::id()));
        assert!(refused.to_string().contains("in use by another server"));
        drop(lock);
        assert!(!server_runs(&data).unwrap() && was_held(&data).unwrap());
        DataLock::acquire(&data).unwrap();
    }
}
