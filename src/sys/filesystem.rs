//! The filesystem and the block device under a directory: space, O_DIRECT, and what a sync costs there.

use std::ffi::{CStr, CString};
use std::fs::{self, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A filesystem as one directory on it sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// Its kind, as in `ext4`; the magic number in hex for kinds not known here.
    pub kind: String,
    /// Its size.
    pub total_bytes: u64,
    /// What an unprivileged process may still write.
    pub free_bytes: u64,
    /// Whether files can be opened with O_DIRECT; `None` where that could not be tried.
    pub direct_io: Option<bool>,
    /// The directory that is there, and the errno of writing in it, if this process cannot.
    pub unwritable: Option<(PathBuf, i32)>,
    /// The disk below; `None` where there is none (tmpfs, network) or it is not shown.
    pub device: Option<BlockDevice>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    /// Its name, as in `nvme0n1`.
    pub name: String,
    /// Whether it acknowledges writes from a cache that a power cut empties.
    pub volatile_cache: bool,
    /// Whether one write can ask to be durable by itself (force unit access).
    pub fua: bool,
    /// The NUMA node it is attached to, if it says.
    pub numa_node: Option<usize>,
}

impl BlockDevice {
    /// Whether a durable write needs no flush of the whole cache, which is when `RWF_DSYNC` is the cheaper sync.
    #[must_use]
    pub fn writes_through(&self) -> bool {
        self.fua || !self.volatile_cache
    }
}

/// Magic numbers of statfs(2), from linux/magic.h and the filesystems' own headers.
const KINDS: [(u32, &str); 9] = [
    (0xEF53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683E, "btrfs"),
    (0xF2F5_2010, "f2fs"),
    (0x2FC1_2FC1, "zfs"),
    (0x0102_1994, "tmpfs"),
    (0x794C_7630, "overlayfs"),
    (0x6969, "nfs"),
    (0x6573_5546, "fuse"),
];

/// Looks at the filesystem that holds `directory`, or will hold it: its nearest existing ancestor is asked.
///
/// # Errors
/// The errno of stat(2) or statfs(2): EACCES for a directory that may not be entered, ENOTDIR where there is or would have
/// to be a file on the way.
pub fn inspect(directory: &Path) -> io::Result<Filesystem> {
    let existing = nearest_existing(directory)?;
    let path = CString::new(existing.as_os_str().as_bytes())?;
    let mut stats = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path ends in NUL, and the struct is ours to fill in.
    if unsafe { libc::statfs(path.as_ptr(), stats.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: statfs returned 0, so it filled the struct in.
    let stats = unsafe { stats.assume_init() };
    // The field's type differs between architectures; every magic number has 32 bits.
    #[allow(clippy::unnecessary_cast, reason = "the types of statfs differ between architectures")]
    let (magic, block_bytes) = (stats.f_type as u32, stats.f_bsize as u64);
    let kind = KINDS.iter().find(|(number, _)| *number == magic);
    Ok(Filesystem {
        kind: kind.map_or_else(|| format!("{magic:#x}"), |(_, name)| (*name).to_owned()),
        total_bytes: stats.f_blocks * block_bytes,
        free_bytes: stats.f_bavail * block_bytes,
        direct_io: direct_io(&existing),
        unwritable: write_error(&path).map(|errno| (existing.clone(), errno)),
        device: block_device(Path::new("/sys/dev/block"), fs::metadata(&existing)?.dev()),
    })
}

/// Why files cannot be made in a directory by the user and groups that count for opening them (faccessat(2), AT_EACCESS).
fn write_error(directory: &CStr) -> Option<i32> {
    let to_make_files = libc::W_OK | libc::X_OK;
    // SAFETY: the path ends in NUL and lives across the call.
    let result = unsafe { libc::faccessat(libc::AT_FDCWD, directory.as_ptr(), to_make_files, libc::AT_EACCESS) };
    (result != 0).then(|| io::Error::last_os_error().raw_os_error().unwrap_or(libc::EACCES))
}

fn nearest_existing(directory: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(directory)?;
    for path in absolute.ancestors() {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Ok(path.to_owned()),
            Ok(_) => return Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
            // mkdir(2) does not follow a link that leads nowhere: no directory can be made under its name.
            Err(_) if fs::symlink_metadata(path).is_ok_and(|link| link.is_symlink()) => {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("{} is a link that leads nowhere", path.display()),
                ));
            }
            // Nothing there, or a file further up.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(PathBuf::from("/"))
}

/// Opens a file without a name, so that a look leaves no trace. EINVAL is the filesystem's "no O_DIRECT"; other errors
/// (a read-only mount, no O_TMPFILE) say nothing about it.
fn direct_io(directory: &Path) -> Option<bool> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE | libc::O_DIRECT).open(directory);
    match file {
        Ok(_) => Some(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Some(false),
        Err(_) => None,
    }
}

/// Finds the disk of a device number below `root`: the queue of a partition is its parent's.
fn block_device(root: &Path, device: u64) -> Option<BlockDevice> {
    let node = fs::canonicalize(root.join(format!("{}:{}", libc::major(device), libc::minor(device)))).ok()?;
    let disk = node.ancestors().take(2).find(|path| path.join("queue").is_dir())?;
    let read = |name: &str| Some(fs::read_to_string(disk.join(name)).ok()?.trim().to_owned());
    Some(BlockDevice {
        name: disk.file_name()?.to_str()?.to_owned(),
        volatile_cache: read("queue/write_cache")? != "write through",
        fua: read("queue/fua").is_some_and(|fua| fua == "1"),
        // -1 is the kernel's "none".
        numa_node: read("device/numa_node").and_then(|node| node.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_yet_is_judged_by_its_parent() {
        let directory = tempfile::tempdir().unwrap();
        let here = inspect(directory.path()).unwrap();
        let below = inspect(&directory.path().join("not/yet/there")).unwrap();
        assert!(here.total_bytes >= here.free_bytes && here.total_bytes > 0);
        assert_eq!((here.kind, here.device), (below.kind, below.device));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "the look leaves nothing behind");
    }

    #[test]
    fn what_no_directory_can_be_made_of_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(directory.path().join("nowhere"), &link).unwrap();
        for path in [file.clone(), file.join("below"), file.join("far/below")] {
            assert_eq!(inspect(&path).unwrap_err().kind(), io::ErrorKind::NotADirectory, "{}", path.display());
        }
        for path in [link.clone(), link.join("below")] {
            let said = inspect(&path).unwrap_err().to_string();
            assert!(said.ends_with("link is a link that leads nowhere"), "{said}");
        }
        fs::create_dir(directory.path().join("nowhere")).unwrap();
        assert!(inspect(&link).is_ok() && inspect(&link.join("below")).is_ok());
    }

    #[test]
    fn a_partition_has_the_queue_of_its_disk() {
        let root = tempfile::tempdir().unwrap();
        let disk = root.path().join("devices/nvme0n1");
        fs::create_dir_all(disk.join("nvme0n1p2")).unwrap();
        fs::create_dir_all(disk.join("queue")).unwrap();
        fs::create_dir_all(disk.join("device")).unwrap();
        fs::write(disk.join("queue/write_cache"), "write back\n").unwrap();
        fs::write(disk.join("queue/fua"), "1\n").unwrap();
        fs::write(disk.join("device/numa_node"), "-1\n").unwrap();
        std::os::unix::fs::symlink(disk.join("nvme0n1p2"), root.path().join("259:2")).unwrap();
        let device = block_device(root.path(), libc::makedev(259, 2)).unwrap();
        assert_eq!(device.name, "nvme0n1");
        assert!(device.volatile_cache && device.fua && device.writes_through());
        assert_eq!(device.numa_node, None);
        assert_eq!(block_device(root.path(), libc::makedev(259, 3)), None);
    }
}
