//! What else happens in a data directory: files and directories that somebody removes or moves, readers of other users, readers
//! beside a server that starts.

mod rig;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rig::{Rig, read_all, small};
use tidegate::base::{Epoch, Position, Seq, ShardId, TenantId, WriterId};
use tidegate::handoff::{FailureStage, WriterFailure};
use tidegate::log::{CatOptions, LogReader, ReadError, cat, holds_named_events, verify_storages};
use tidegate::sys::storage::faulty::{Call, FaultyDisk, FaultyStorage};
use tidegate::sys::storage::{
    DataLock, DirectStorage, DurableMark, Entry, FileId, ReadStorage, Storage as _, SyncChoice,
};
use tidegate::writer::WriterConfig;

fn storage(data: &Path, writer: u16) -> DirectStorage {
    DirectStorage::open(data, WriterId(writer), SyncChoice::Auto).unwrap()
}

/// A writer on a real directory, of one shard.
fn rig(data: &Path, writer: u16) -> Rig {
    let config = WriterConfig { writer: WriterId(writer), ..small(data) };
    Rig::open(&config, Box::new(storage(data, writer)), 1).unwrap()
}

/// A data directory below another, so that it can be moved; held as a server holds it, with an event in it.
fn serving() -> (tempfile::TempDir, PathBuf, DataLock, Rig) {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let lock = DataLock::acquire(&data).unwrap();
    let mut rig = rig(&data, 0);
    rig.send(0, b"{\"n\":1}");
    rig.settle().unwrap();
    (home, data, lock, rig)
}

/// The writer stops at its next look, and would not have been closed as if all were well before that.
#[track_caller]
fn assert_noticed(take_away: impl Fn(&Path), stage: FailureStage) {
    let failure = WriterFailure { stage, errno: 0 };
    let (_home, data, _lock, mut rig) = serving();
    take_away(&data);
    rig.send(0, b"{\"n\":2}");
    assert_eq!(rig.turn_after(Duration::from_secs(1)), Err(failure));
    assert_eq!(rig.acked().len(), 1, "the second is not acknowledged");

    let (_home, data, _lock, mut rig) = serving();
    take_away(&data);
    let writer = rig.writer.take().unwrap();
    rig.shards.clear();
    assert_eq!(writer.finish(), Err(failure));
}

fn active_segment(data: &Path) -> PathBuf {
    data.join("writer-00/0000000000000001.segment")
}

#[test]
fn a_segment_taken_away_stops_the_writer() {
    assert_noticed(|data| fs::remove_file(active_segment(data)).unwrap(), FailureStage::SegmentGone);
    let rename = |data: &Path| fs::rename(active_segment(data), data.join("writer-00/renamed")).unwrap();
    assert_noticed(rename, FailureStage::SegmentGone);
    let replace = |data: &Path| {
        fs::rename(active_segment(data), data.join("renamed")).unwrap();
        fs::copy(data.join("renamed"), active_segment(data)).unwrap();
    };
    assert_noticed(replace, FailureStage::SegmentGone);
}

#[test]
fn a_directory_taken_away_stops_the_writer() {
    assert_noticed(|data| fs::remove_dir_all(data).unwrap(), FailureStage::DirectoryGone);
    assert_noticed(|data| fs::remove_dir_all(data.join("writer-00")).unwrap(), FailureStage::DirectoryGone);
    let replace = |data: &Path| {
        fs::rename(data, data.with_extension("old")).unwrap();
        drop(storage(data, 0));
    };
    assert_noticed(replace, FailureStage::DirectoryGone);
}

#[test]
fn a_lock_file_taken_away_stops_the_writer() {
    assert_noticed(|data| fs::remove_file(data.join("LOCK")).unwrap(), FailureStage::LockGone);
    let replace = |data: &Path| {
        fs::remove_file(data.join("LOCK")).unwrap();
        drop(DataLock::acquire(data).unwrap());
    };
    assert_noticed(replace, FailureStage::LockGone);
}

#[test]
fn a_log_that_was_moved_leaves_the_one_in_its_place_alone() {
    let (_home, data, _lock, _rig) = serving();
    let mut moved = storage(&data, 0);
    let names = |storage: &mut DirectStorage| -> Vec<String> {
        let mut names: Vec<_> = storage.list().unwrap().into_iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        names
    };
    fs::rename(&data, data.with_extension("old")).unwrap();
    let mut other = storage(&data, 0);
    other.create("0000000000000001.segment", 8192).unwrap();
    moved.rename("0000000000000001.segment", "0000000000000001.retired").unwrap();
    moved.remove("0000000000000001.retired").unwrap();
    assert!(!names(&mut moved).contains(&"0000000000000001.segment".to_owned()));
    assert!(names(&mut other).contains(&"0000000000000001.segment".to_owned()));
}

#[test]
fn who_follows_from_a_position_lets_other_writers_go() {
    let home = tempfile::tempdir().unwrap();
    for writer in 0..2 {
        let mut rig = rig(home.path(), writer);
        rig.send(0, b"{}");
        rig.stop();
    }
    let mut reader = LogReader::open(home.path()).unwrap();
    assert_eq!(storage(home.path(), 1).followers_need().unwrap(), Some(Epoch(0)));
    let from = Position { writer: WriterId(0), shard: ShardId(0), seq: Seq(1), index: 0 };
    reader.seek(from).unwrap();
    assert_eq!(storage(home.path(), 0).followers_need().unwrap(), Some(Epoch(1)));
    let needed = storage(home.path(), 1).followers_need().unwrap();
    assert!(needed.is_none_or(|needed| needed > Epoch(u64::MAX / 2)), "{needed:?} is still kept");
    assert!(reader.not_registered().is_none());
}

#[test]
fn a_reader_that_cannot_register_is_told_once_and_reads_on() {
    let (_home, data, lock, mut rig) = serving();
    rig.settle().unwrap();
    fs::remove_dir(data.join("followers")).unwrap();
    let told = |follow: bool, from: Option<&str>| {
        let from = from.map(|from| from.parse().unwrap());
        let options = CatOptions { directory: data.clone(), follow, from, ..CatOptions::default() };
        let mut told = Vec::new();
        let mut warn = |why: &io::Error| told.push(why.kind());
        let mut out = Vec::new();
        // Following, it ends at once; what it prints is the other reader's to show.
        let printed = cat(&options, &mut |_| None, &mut warn, &mut out, &AtomicBool::new(follow)).unwrap();
        assert!(follow || printed.events == 1);
        told
    };
    for follow in [false, true] {
        assert_eq!(told(follow, None), [io::ErrorKind::NotFound]);
        assert_eq!(told(follow, Some("0-0-1-0")), [io::ErrorKind::NotFound]);
    }
    rig.stop();
    drop(lock);
    assert_eq!(told(false, None), [], "nothing is removed while no server runs");
    assert_eq!(told(true, None), [io::ErrorKind::NotFound], "but one may be started");
}

#[test]
fn reading_a_copy_makes_nothing_in_it() {
    let (_home, data, lock, rig) = serving();
    rig.stop();
    drop(lock);
    fs::remove_dir(data.join("followers")).unwrap();
    assert!(tidegate::log::verify(&data).unwrap().sound);
    assert!(!data.join("followers").exists());
}

/// A log in which the first listing names a file that is gone when it is opened.
struct Vanishing {
    storage: FaultyStorage,
    listed: u32,
}

impl ReadStorage for Vanishing {
    fn list(&mut self) -> io::Result<Vec<Entry>> {
        let mut entries = self.storage.list()?;
        self.listed += 1;
        if self.listed == 1 {
            entries.push(Entry { name: "00000000000000ff.segment".to_owned(), bytes: 8192 });
        }
        Ok(entries)
    }

    fn open(&mut self, name: &str) -> io::Result<FileId> {
        self.storage.open(name)
    }

    fn close(&mut self, file: FileId) {
        self.storage.close(file);
    }

    fn read_at(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.storage.read_at(file, offset, into)
    }

    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.storage.sync(file)
    }

    fn is_still(&mut self, file: FileId, name: &str) -> io::Result<bool> {
        self.storage.is_still(file, name)
    }

    fn durable_mark(&mut self) -> io::Result<Option<DurableMark>> {
        self.storage.durable_mark()
    }

    fn server_runs(&mut self) -> io::Result<bool> {
        self.storage.server_runs()
    }
}

#[test]
fn verify_looks_again_when_a_file_goes_before_it_is_opened() {
    let disk = FaultyDisk::new(1);
    let mut rig = Rig::open(&small(Path::new("simulated")), Box::new(disk.storage()), 1).unwrap();
    rig.send(0, b"{}");
    rig.stop();
    let vanishing = Vanishing { storage: disk.storage(), listed: 0 };
    let report = verify_storages(vec![(WriterId(0), Box::new(vanishing))]).unwrap();
    assert!(report.sound && report.events == 1, "counted once: {report:?}");
}

/// An error has made the filesystem read-only: what was acknowledged does not wait for a sync that cannot be.
#[test]
fn what_was_acknowledged_is_read_where_nothing_can_be_synced() {
    let disk = FaultyDisk::new(1);
    let mut rig = Rig::open(&small(Path::new("simulated")), Box::new(disk.storage()), 1).unwrap();
    (0..5).for_each(|n| rig.send(0, format!("{{\"n\":{n}}}").as_bytes()));
    rig.settle().unwrap();
    let acked = rig.acked();
    drop(rig);
    disk.fail_always(Call::Sync, Some(libc::EROFS));
    assert_eq!((acked.len(), read_all(&disk).unwrap()), (5, acked));
    disk.fail_always(Call::Sync, Some(libc::EIO));
    assert!(matches!(read_all(&disk), Err(ReadError::Io { .. })));
}

#[test]
fn named_events_are_found_in_whichever_segment_they_begin() {
    let home = tempfile::tempdir().unwrap();
    for (tenant, expected) in [(0, false), (0, false), (7, true), (0, true)] {
        let mut rig = rig(home.path(), 0);
        let shard = &mut rig.shards[0];
        assert!(shard.place(0, b"{}", tenant) && shard.seal_and_offer());
        rig.stop();
        assert_eq!(holds_named_events(home.path()).unwrap(), expected, "after {:?}", TenantId(tenant));
    }
    assert!(!holds_named_events(tempfile::tempdir().unwrap().path()).unwrap(), "a new directory");
}
