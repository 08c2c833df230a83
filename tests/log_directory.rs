//! What else happens in a data directory: files and directories that somebody removes or moves, readers of other users, readers
//! beside a server that starts.

mod rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rig::{Rig, small};
use tidegate::base::{TenantId, WriterId};
use tidegate::handoff::{FailureStage, WriterFailure};
use tidegate::log::holds_named_events;
use tidegate::sys::storage::{
    DataLock, DirectStorage, ReadStorage as _, Storage as _, SyncChoice,
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
