//! What the disk under a directory can do: O_DIRECT, and how a write becomes durable on it. At start only.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::files::Files;
use super::{AlignedBytes, Facts, SyncChoice, SyncMode};
use crate::base::PAGE_BYTES;

/// Name of the file that is written to and removed again.
const PROBE_NAME: &str = "probe.tmp";

/// Tries O_DIRECT in the directory and looks up its device; sets `files.direct` accordingly.
pub(super) fn probe(files: &mut Files, choice: SyncChoice) -> io::Result<Facts> {
    let mut warnings = Vec::new();
    files.direct = try_direct(files)?;
    if !files.direct {
        warnings.push(format!(
            "the filesystem of {} has no O_DIRECT: the log goes through the page cache, slower and with a less even \
             latency; put it on ext4 or xfs",
            files.directory().path().display()
        ));
    }
    let (sync, sync_reason) = match choice {
        SyncChoice::Dsync => (SyncMode::Dsync, "configured".to_owned()),
        SyncChoice::Fdatasync => (SyncMode::Fdatasync, "configured".to_owned()),
        SyncChoice::Auto => suggest(&queue_of(files.directory().file())?),
    };
    Ok(Facts { direct: files.direct, sync, sync_reason, warnings })
}

/// Whether an O_DIRECT write of one page works. Opening alone does not tell: a device with larger blocks opens, and
/// refuses the write.
fn try_direct(files: &Files) -> io::Result<bool> {
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
    let outcome = files
        .directory()
        .open_at(PROBE_NAME, flags | libc::O_DIRECT)
        .and_then(|file| file.write_all_at(AlignedBytes::zeroed(PAGE_BYTES).as_ref(), 0));
    match files.directory().remove(PROBE_NAME) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        // A full disk says nothing about O_DIRECT; what is written later will say it again, with its own words.
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => Ok(true),
        Err(error) => Err(error),
    }
}

/// What sysfs says about the block device of a directory; empty strings where there is no such device or file.
#[derive(Debug, Default)]
struct Queue {
    device: String,
    write_cache: String,
    fua: String,
}

fn queue_of(directory: &File) -> io::Result<Queue> {
    let device = directory.metadata()?.dev();
    let name = format!("{}:{}", libc::major(device), libc::minor(device));
    let Ok(mut path) = fs::canonicalize(Path::new("/sys/dev/block").join(&name)) else {
        // Not on one block device: tmpfs, overlayfs, btrfs, network filesystems.
        return Ok(Queue { device: name, ..Queue::default() });
    };
    // A partition has no queue of its own; its disk is the directory above.
    if path.join("partition").exists() {
        path.pop();
    }
    let read = |file: &str| -> String {
        let path: PathBuf = path.join("queue").join(file);
        fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
    };
    let device = path.file_name().map_or(name, |name| name.to_string_lossy().into_owned());
    Ok(Queue { device, write_cache: read("write_cache"), fua: read("fua") })
}

fn suggest(queue: &Queue) -> (SyncMode, String) {
    let device = &queue.device;
    match (queue.write_cache.as_str(), queue.fua.as_str()) {
        ("write through", _) => (SyncMode::Dsync, format!("{device} has no volatile cache")),
        (_, "1") => (SyncMode::Dsync, format!("{device} has FUA")),
        ("", _) => (SyncMode::Fdatasync, format!("device {device} does not say how it caches")),
        (cache, _) => (SyncMode::Fdatasync, format!("{device} caches ({cache}) and has no FUA")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dsync_only_where_the_device_makes_it_cheap() {
        let suggested = |write_cache: &str, fua: &str| {
            suggest(&Queue { device: "vda".into(), write_cache: write_cache.into(), fua: fua.into() }).0
        };
        assert_eq!(suggested("write through", "0"), SyncMode::Dsync);
        assert_eq!(suggested("write back", "1"), SyncMode::Dsync);
        assert_eq!(suggested("write back", "0"), SyncMode::Fdatasync);
        assert_eq!(suggested("", ""), SyncMode::Fdatasync, "unknown is the careful one");
    }

    #[test]
    fn the_probe_leaves_nothing_behind_and_a_choice_is_obeyed() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = Files::new(directory.path(), true).unwrap();
        for (choice, mode) in [(SyncChoice::Dsync, SyncMode::Dsync), (SyncChoice::Fdatasync, SyncMode::Fdatasync)] {
            let facts = probe(&mut files, choice).unwrap();
            assert_eq!((facts.sync, facts.direct), (mode, files.direct));
            assert_eq!(facts.warnings.is_empty(), facts.direct, "no O_DIRECT is worth a warning");
        }
        assert!(!probe(&mut files, SyncChoice::Auto).unwrap().sync_reason.is_empty());
        assert_eq!(files.directory().list().unwrap(), []);
    }
}
