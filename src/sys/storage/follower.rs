//! Registered followers: readers that retention must not overtake.
//!
//! A follower is a file in `DATA/followers/` with one line per writer, naming the oldest segment still needed. The
//! reader holds a lock on it; a file without a lock is left over from a dead reader, and whoever comes next removes it. The
//! file appears under its real name only once it is written and locked, so it is never taken for a leftover before.
//!
//! The server makes the directory, readers never do: made by a reader of another user it would be closed to the server.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::lock::{is_locked, try_lock};
use crate::base::{Epoch, WriterId};

/// Name of the directory within the data directory.
const FOLLOWERS_NAME: &str = "followers";
const SUFFIX: &str = ".follower";
/// Bytes of one line: five digits of writer, sixteen of epoch, sixteen of its complement.
const LINE_BYTES: usize = 5 + 1 + 16 + 1 + 16 + 1;

/// This process's claim on the segments it has yet to read. Ends when dropped, or with the process.
#[derive(Debug)]
pub struct Follower {
    file: File,
    path: PathBuf,
    writers: Vec<WriterId>,
}

impl Follower {
    /// Registers with everything still needed: whatever is there now stays until [`Follower::needs`] says otherwise.
    ///
    /// # Errors
    /// What the system answered: EACCES or EROFS for a reader that may not write to `DATA/followers`, ENOENT where no server
    /// has made it.
    pub fn register(data: &Path, writers: &[WriterId]) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let directory = data.join(FOLLOWERS_NAME);
        // What is left over is nobody's claim, and is not worth failing for.
        let _ = clear_leftovers(&directory);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // The pid is for people; it alone is not unique, since containers that share the directory do not share pids.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let stem = format!("{}-{now:x}-{count}", std::process::id());
        let hidden = directory.join(format!("{stem}.new"));
        let path = directory.join(format!("{stem}{SUFFIX}"));
        let mut file = File::options().read(true).write(true).create_new(true).open(&hidden)?;
        // Whatever the umask: the server may be another user, and has to read it.
        file.set_permissions(Permissions::from_mode(0o644))?;
        if !try_lock(&file)? {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a new file cannot be locked already"));
        }
        for writer in writers {
            file.write_all(&line(*writer, Epoch(0)))?;
        }
        fs::rename(&hidden, &path)?;
        Ok(Self { file, path, writers: writers.to_vec() })
    }

    /// Says that of this writer's log only the segments from `epoch` on are still needed. Only ever grows.
    ///
    /// # Errors
    /// What the system answered; then the old need stands, or the line is unreadable, which keeps everything.
    pub fn needs(&self, writer: WriterId, epoch: Epoch) -> io::Result<()> {
        match self.writers.iter().position(|known| *known == writer) {
            Some(index) => self.file.write_all_at(&line(writer, epoch), (index * LINE_BYTES) as u64),
            None => Ok(()),
        }
    }

    /// Says that of this writer's log nothing is needed any more.
    ///
    /// # Errors
    /// As [`Follower::needs`].
    pub fn leaves(&self, writer: WriterId) -> io::Result<()> {
        self.needs(writer, Epoch(u64::MAX))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // A file that stays is recognised as left over by its free lock.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the directory if it is not there, and removes what dead readers left in it.
///
/// # Errors
/// What the system answered when it was to be made. What is in it may be another user's; that it cannot be read is found
/// again, and told, when retention looks at it.
pub(super) fn prepare(data: &Path) -> io::Result<()> {
    let directory = data.join(FOLLOWERS_NAME);
    if !directory.is_dir() {
        fs::create_dir_all(&directory)?;
    }
    let _ = clear_leftovers(&directory);
    Ok(())
}

/// The oldest segment of `writer` that any living follower needs; removes what dead ones left.
pub(super) fn oldest_needed(data: &Path, writer: WriterId) -> io::Result<Option<Epoch>> {
    let mut oldest = None;
    for_each_living(&data.join(FOLLOWERS_NAME), &mut |path| {
        if let Some(needed) = need_of(&fs::read(path).unwrap_or_default(), writer) {
            oldest = Some(oldest.map_or(needed, |oldest: Epoch| oldest.min(needed)));
        }
    })?;
    Ok(oldest)
}

fn clear_leftovers(directory: &Path) -> io::Result<()> {
    for_each_living(directory, &mut |_| {})
}

/// Calls `living` with the file of every reader that lives, and removes those of readers that do not.
fn for_each_living(directory: &Path, living: &mut dyn FnMut(&Path)) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if !path.to_string_lossy().ends_with(SUFFIX) {
            continue;
        }
        // Not waiting for the other end: who may write here may also make a pipe of that name.
        let file = match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if is_locked(&file)? {
            living(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

fn line(writer: WriterId, epoch: Epoch) -> [u8; LINE_BYTES] {
    let text = format!("{:05} {:016x} {:016x}\n", writer.0, epoch.0, !epoch.0);
    text.as_bytes().try_into().expect("fields of fixed width")
}

/// What a follower's file says of `writer`; everything is needed if the file cannot be understood, for instance because
/// it is read while it is being overwritten; `None` if it does not follow that writer.
fn need_of(bytes: &[u8], writer: WriterId) -> Option<Epoch> {
    if !bytes.len().is_multiple_of(LINE_BYTES) || bytes.is_empty() {
        return Some(Epoch(0));
    }
    bytes.chunks_exact(LINE_BYTES).find_map(|bytes| {
        let parse = || {
            let mut fields = std::str::from_utf8(bytes).ok()?.split_ascii_whitespace();
            let of: u16 = fields.next()?.parse().ok()?;
            let epoch = u64::from_str_radix(fields.next()?, 16).ok()?;
            let complement = u64::from_str_radix(fields.next()?, 16).ok()?;
            (epoch == !complement).then_some((WriterId(of), Epoch(epoch)))
        };
        match parse() {
            Some((of, epoch)) => (of == writer).then_some(epoch),
            None => Some(Epoch(0)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITER: WriterId = WriterId(0);

    /// A data directory as a server leaves it.
    fn data() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        prepare(directory.path()).unwrap();
        directory
    }

    #[test]
    fn the_slowest_living_follower_counts() {
        let directory = data();
        let data = directory.path();
        assert_eq!(oldest_needed(data, WRITER).unwrap(), None);
        let slow = Follower::register(data, &[WRITER, WriterId(1)]).unwrap();
        assert_eq!(oldest_needed(data, WRITER).unwrap(), Some(Epoch(0)), "at first everything is needed");
        slow.needs(WRITER, Epoch(3)).unwrap();
        slow.needs(WriterId(1), Epoch(8)).unwrap();
        let fast = Follower::register(data, &[WRITER]).unwrap();
        fast.needs(WRITER, Epoch(0xFF)).unwrap();
        assert_eq!(oldest_needed(data, WRITER).unwrap(), Some(Epoch(3)));
        assert_eq!(oldest_needed(data, WriterId(1)).unwrap(), Some(Epoch(8)));
        assert_eq!(oldest_needed(data, WriterId(2)).unwrap(), None, "nobody follows that one");
        drop(slow);
        assert_eq!(oldest_needed(data, WRITER).unwrap(), Some(Epoch(0xFF)));
        drop(fast);
        assert_eq!(oldest_needed(data, WRITER).unwrap(), None);
    }

    #[test]
    fn what_a_dead_follower_left_is_removed() {
        let directory = data();
        let left = directory.path().join("followers/123-0.follower");
        let leave = || fs::write(&left, line(WRITER, Epoch(1))).unwrap();
        leave();
        assert_eq!(oldest_needed(directory.path(), WRITER).unwrap(), None);
        assert!(!left.exists(), "by a server that retires segments");
        leave();
        prepare(directory.path()).unwrap();
        assert!(!left.exists(), "by one that starts");
        leave();
        let living = Follower::register(directory.path(), &[WRITER]).unwrap();
        assert!(!left.exists(), "by the next reader");
        prepare(directory.path()).unwrap();
        assert!(living.path.exists(), "but not what a living one needs");
    }

    #[test]
    fn a_reader_makes_nothing_that_the_server_cannot_read() {
        let directory = tempfile::tempdir().unwrap();
        let refused = Follower::register(directory.path(), &[WRITER]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        assert!(!directory.path().join(FOLLOWERS_NAME).exists(), "the directory is the server's to make");
        prepare(directory.path()).unwrap();
        let follower = Follower::register(directory.path(), &[WRITER]).unwrap();
        let mode = follower.file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
    }

    #[test]
    fn a_writer_left_is_no_longer_kept() {
        let directory = data();
        let follower = Follower::register(directory.path(), &[WRITER, WriterId(1)]).unwrap();
        follower.leaves(WriterId(1)).unwrap();
        assert_eq!(oldest_needed(directory.path(), WRITER).unwrap(), Some(Epoch(0)));
        assert_eq!(oldest_needed(directory.path(), WriterId(1)).unwrap(), Some(Epoch(u64::MAX)));
    }

    #[test]
    fn a_pipe_among_the_followers_stops_nobody() {
        let directory = data();
        let pipe = directory.path().join("followers/pipe.follower");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(oldest_needed(directory.path(), WRITER).unwrap(), None);
    }

    #[test]
    fn a_line_that_cannot_be_read_keeps_everything() {
        let sound = line(WRITER, Epoch(0x20));
        assert_eq!(need_of(&sound, WRITER), Some(Epoch(0x20)));
        let mut torn = sound;
        torn[6..22].copy_from_slice(b"000000000000002f");
        assert_eq!(need_of(&torn, WRITER), Some(Epoch(0)));
        assert_eq!(need_of(&sound[..30], WRITER), Some(Epoch(0)));
        assert_eq!(need_of(b"", WRITER), Some(Epoch(0)));
    }
}
