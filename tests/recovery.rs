//! The recovery table of `writer::recover`, one test per row, on a simulated disk; then the same log on a real one.
//! Each state is also shown to a reader and to `verify`, which must come to the same verdict.

mod rig;

use std::path::Path;

use rig::{Event, Rig, of_shard, read_all, small, verify_all};
use tidegate::base::{Epoch, PAGE_BYTES, Seq, ShardId, WriterId};
use tidegate::handoff::WriterState;
use tidegate::record::walk::{Damage, Fault, Tail};
use tidegate::record::{CHUNK_HEADER_BYTES, ChunkHeader, HeaderFault, LinkFault, SegmentFault};
use tidegate::sys::storage::faulty::{Call, Failure, FaultyDisk};
use tidegate::sys::storage::{DirectStorage, DurableMark, SyncChoice};
use tidegate::writer::recover::recover;
use tidegate::writer::{OpenError, WriterConfig};

const FIRST: &str = "0000000000000001.segment";
const SECOND: &str = "0000000000000002.segment";
const PAGE: u64 = PAGE_BYTES as u64;

fn config() -> WriterConfig {
    small(Path::new("simulated"))
}

fn open(disk: &FaultyDisk) -> Result<Rig, OpenError> {
    Rig::open(&config(), Box::new(disk.storage()), 2)
}

/// A log of `groups` group commits, each of so many chunks of one page, from both shards in turn; then the process is
/// killed and the durable mark lost, so that only what is in the segments speaks. What was acknowledged.
fn killed_after(groups: &[usize]) -> (FaultyDisk, Vec<Event>) {
    let disk = FaultyDisk::new(1);
    let acked = add_groups(&disk, groups);
    disk.kill();
    disk.set_mark(None);
    (disk, acked)
}

fn add_groups(disk: &FaultyDisk, groups: &[usize]) -> Vec<Event> {
    let mut rig = open(disk).unwrap();
    for (group, chunks) in groups.iter().enumerate() {
        for chunk in 0..*chunks {
            rig.send((chunk % 2) as u16, format!("{{\"group\":{group},\"chunk\":{chunk}}}").as_bytes());
        }
        rig.settle().unwrap();
    }
    let acked = rig.acked();
    assert_eq!(acked.len(), groups.iter().sum::<usize>(), "each group was acknowledged whole");
    acked
}

/// A sealed log of three chunks, its durable mark lost.
fn sealed() -> (FaultyDisk, Vec<Event>) {
    let disk = FaultyDisk::new(1);
    let mut rig = open(&disk).unwrap();
    for chunk in 0..3 {
        rig.send(0, format!("{{\"chunk\":{chunk}}}").as_bytes());
        rig.settle().unwrap();
    }
    let acked = rig.stop();
    disk.kill();
    disk.set_mark(None);
    (disk, acked)
}

/// A log that fills several segments, then killed; its durable mark is kept.
fn rolled() -> (FaultyDisk, Vec<Event>) {
    let disk = FaultyDisk::new(1);
    let mut rig = open(&disk).unwrap();
    for event in 0..80 {
        rig.send(event % 2, format!("{{\"event\":{event}}}").as_bytes());
        rig.settle().unwrap();
    }
    let acked = rig.acked();
    assert!(disk.names().contains(&"0000000000000003.segment".to_owned()), "{:?}", disk.names());
    disk.kill();
    (disk, acked)
}

fn flip(disk: &FaultyDisk, name: &str, at: u64) {
    disk.edit(name, |bytes| bytes[at as usize] ^= 0x40);
}

/// Rewrites a chunk's header with a right checksum.
fn rewrite(disk: &FaultyDisk, name: &str, at: u64, change: impl FnOnce(&mut ChunkHeader)) {
    disk.edit(name, |bytes| {
        let at = at as usize;
        let (mut header, _) = ChunkHeader::decode(&bytes[at..]).unwrap();
        change(&mut header);
        let _ = header.encode((&mut bytes[at..at + CHUNK_HEADER_BYTES]).try_into().unwrap());
    });
}

/// Recovery, a reader and `verify` agree that the log is sound and holds exactly `expected`. Goes on with the log.
#[track_caller]
fn assert_recovers(disk: &FaultyDisk, expected: &[Event]) -> Rig {
    let shown = read_all(disk).unwrap();
    for shard in 0..2 {
        assert_eq!(of_shard(&shown, shard), of_shard(expected, shard));
    }
    let report = verify_all(disk);
    assert!(report.sound, "{report:?}");
    assert_eq!(report.events, expected.len() as u64);
    let rig = open(disk).unwrap();
    for shard in 0..2 {
        let last = of_shard(expected, shard).last().map_or(0, |event| event.seq);
        assert_eq!(rig::last_seq(&rig, usize::from(shard)), Seq(last));
    }
    assert_eq!(read_all(disk).unwrap(), shown, "opening changes nothing that was there");
    rig
}

/// Recovery, a reader and `verify` agree that acknowledged data is missing at this place.
#[track_caller]
fn assert_refused(disk: &FaultyDisk, epoch: u64, offset: u64, fault: Fault) {
    let damage = Damage { writer: WriterId(0), epoch: Epoch(epoch), offset, fault };
    let error = open(disk).err().expect("refused");
    assert!(matches!(error, OpenError::Damaged(found) if found == damage), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("writer-00/{epoch:016x}.segment is damaged at offset {offset}")), "{text}");
    let error = read_all(disk).unwrap_err().to_string();
    assert_eq!(error, damage.to_string());
    let report = verify_all(disk);
    assert!(!report.sound);
    assert!(report.writers[0].damage.contains(&damage.to_string()), "{report:?}");
}

#[test]
fn an_empty_directory_is_a_new_log() {
    let disk = FaultyDisk::new(1);
    let rig = assert_recovers(&disk, &[]);
    assert_eq!((rig.report.tail, rig.report.segments), (None, 0));
}

#[test]
fn a_crash_between_create_and_rename_loses_nothing() {
    let disk = FaultyDisk::new(1);
    let length = config().segment_bytes as usize;
    disk.put("0000000000000000.ready", vec![0; length]);
    disk.put("0000000000000001.ready", vec![0; length / 2]);
    disk.put("0000000000000007.preparing", vec![0xAA; length]);
    let rig = assert_recovers(&disk, &[]);
    assert_eq!(rig.report.segments, 0);
    // The whole one was used, the short one and the unfinished one are gone.
    assert_eq!(disk.names(), [FIRST]);
}

#[test]
fn a_sealed_log_ends_cleanly() {
    let (disk, acked) = sealed();
    let rig = assert_recovers(&disk, &acked);
    assert_eq!((rig.report.tail, &rig.report.truncated), (Some(Tail::Sealed), &None));
}

#[test]
fn zeros_are_a_clean_end() {
    let (disk, acked) = killed_after(&[1, 2]);
    let rig = assert_recovers(&disk, &acked);
    assert_eq!((rig.report.tail, &rig.report.truncated), (Some(Tail::Clean), &None));
}

#[test]
fn stale_data_of_a_recycled_segment_is_not_the_log() {
    let disk = FaultyDisk::new(1);
    let config = WriterConfig { retention_bytes: Some(2 * config().segment_bytes), ..config() };
    let mut rig = Rig::open(&config, Box::new(disk.storage()), 2).unwrap();
    while rig.metrics.segments_retired.get() < 6 {
        rig.send(0, b"{\"filler\":true}");
        rig.settle().unwrap();
    }
    rig.settle().unwrap();
    let live = rig.metrics.segments_live.get() as usize;
    let acked = rig.acked();
    disk.kill();
    let newest = disk.names().into_iter().rfind(|name| name.ends_with(".segment")).unwrap();
    let end = disk.mark().unwrap().end as usize;
    disk.set_mark(None);
    let stale = ChunkHeader::decode(&disk.file(&newest)[end..]).unwrap().0;
    assert!(disk.file(&newest).len() > end && stale.epoch < Epoch(u64::from_str_radix(&newest[..16], 16).unwrap()));
    let shown = read_all(&disk).unwrap();
    assert!(acked.ends_with(&shown) && !shown.is_empty(), "the end of what was acknowledged, nothing stale");
    let rig = Rig::open(&config, Box::new(disk.storage()), 2).unwrap();
    assert_eq!((rig.report.tail, rig.report.segments), (Some(Tail::Clean), live));
    assert_eq!(rig::last_seq(&rig, 0).0, acked.len() as u64);
}

#[test]
fn a_torn_last_chunk_is_dropped() {
    for (at, fault) in [
        (0, Fault::Header(HeaderFault::NoHeader)),
        (40, Fault::Header(HeaderFault::Checksum)),
        (CHUNK_HEADER_BYTES as u64 + 9, Fault::Payload),
        (PAGE - 1, Fault::Padding),
    ] {
        let (disk, acked) = killed_after(&[1, 1, 1]);
        flip(&disk, FIRST, 3 * PAGE + at);
        let rig = assert_recovers(&disk, &acked[..2]);
        if fault == Fault::Header(HeaderFault::NoHeader) {
            assert_eq!(rig.report.tail, Some(Tail::Clean), "without its magic it is not a chunk at all");
        } else {
            assert_eq!(rig.report.tail, Some(Tail::Torn(fault)));
            assert!(rig.report.truncated.as_ref().unwrap().contains("offset 12288"), "{:?}", rig.report);
        }
    }
}

#[test]
fn an_unsynced_group_partly_written_is_dropped() {
    let (disk, acked) = killed_after(&[1, 3]);
    // Of the second group the first chunk survived, the second not, the third did.
    let (kept, _) = ChunkHeader::decode(&disk.file(FIRST)[2 * PAGE_BYTES..]).unwrap();
    disk.edit(FIRST, |bytes| bytes[3 * PAGE_BYTES..4 * PAGE_BYTES].fill(0));
    let is_kept = |event: &&Event| event.seq == 1 || (event.shard, event.seq) == (kept.shard.0, kept.seq.0);
    let expected: Vec<_> = acked.iter().filter(is_kept).cloned().collect();
    assert_eq!(expected.len(), 2);
    let rig = assert_recovers(&disk, &expected);
    assert_eq!(rig.report.tail, Some(Tail::Torn(Fault::Header(HeaderFault::NoHeader))));
}

#[test]
fn damage_before_a_later_group_is_refused() {
    let (disk, _) = killed_after(&[1, 1, 1]);
    flip(&disk, FIRST, 2 * PAGE + 110);
    assert_refused(&disk, 1, 2 * PAGE, Fault::Payload);
}

#[test]
fn damage_before_the_seal_is_refused() {
    let (disk, _) = sealed();
    disk.edit(FIRST, |bytes| bytes[3 * PAGE_BYTES..4 * PAGE_BYTES].fill(0));
    assert_refused(&disk, 1, 3 * PAGE, Fault::Header(HeaderFault::NoHeader));
}

#[test]
fn damage_before_the_durable_mark_is_refused() {
    let (disk, _) = killed_after(&[1, 1, 1]);
    flip(&disk, FIRST, 3 * PAGE + 110);
    disk.set_mark(Some(DurableMark { epoch: Epoch(1), end: 3 * PAGE }));
    let before_it = read_all(&disk).unwrap();
    assert_eq!(before_it.len(), 2, "a mark that ends before the damage proves nothing of it");
    disk.set_mark(Some(DurableMark { epoch: Epoch(1), end: 4 * PAGE }));
    assert_refused(&disk, 1, 3 * PAGE, Fault::Payload);
}

#[test]
fn a_gap_in_a_shards_numbers_is_refused() {
    let (disk, _) = killed_after(&[1, 1, 1]);
    rewrite(&disk, FIRST, 3 * PAGE, |header| header.seq = Seq(4));
    assert_refused(&disk, 1, 3 * PAGE, Fault::Seq { shard: ShardId(0), last: Seq(2), found: Seq(4) });
}

#[test]
fn a_broken_chain_is_refused() {
    let (disk, _) = killed_after(&[1, 1, 1]);
    rewrite(&disk, FIRST, 3 * PAGE, |header| header.previous_crc ^= 1);
    assert_refused(&disk, 1, 3 * PAGE, Fault::Chain);
}

#[test]
fn an_unused_newest_segment_with_a_bad_header_is_discarded() {
    let (disk, _) = killed_after(&[]);
    disk.set_mark(Some(DurableMark { epoch: Epoch(1), end: PAGE }));
    flip(&disk, FIRST, 100);
    let rig = assert_recovers(&disk, &[]);
    assert_eq!(rig.report.discarded, [Epoch(1)]);
    assert!(!disk.names().contains(&FIRST.to_owned()), "{:?}", disk.names());
}

#[test]
fn a_used_newest_segment_with_a_bad_header_is_refused() {
    let (disk, _) = killed_after(&[1]);
    flip(&disk, FIRST, 100);
    assert_refused(&disk, 1, 0, Fault::Segment(SegmentFault::Checksum));
    // Even if its one chunk is gone too, the mark knows of it.
    disk.edit(FIRST, |bytes| bytes[PAGE_BYTES..].fill(0));
    disk.set_mark(Some(DurableMark { epoch: Epoch(1), end: 2 * PAGE }));
    assert_refused(&disk, 1, 0, Fault::Segment(SegmentFault::Checksum));
}

#[test]
fn an_empty_newest_segment_is_discarded() {
    let (disk, acked) = killed_after(&[1, 1]);
    for start in 2..5 {
        let rig = assert_recovers(&disk, &acked);
        let discarded = if start == 2 { vec![] } else { vec![Epoch(start - 1)] };
        assert_eq!(rig.report.discarded, discarded, "starts without events do not use up segments");
        drop(rig);
        disk.kill();
    }
    assert_eq!(disk.names().iter().filter(|name| name.ends_with(".segment")).count(), 2);
}

#[test]
fn a_missing_newest_segment_is_refused() {
    let (disk, _) = rolled();
    let mark = disk.mark().unwrap();
    disk.take_away(&format!("{:016x}.segment", mark.epoch.0));
    assert_refused(&disk, mark.epoch.0, PAGE, Fault::Missing);
}

#[test]
fn a_log_whose_only_segment_is_missing_is_refused() {
    let disk = FaultyDisk::new(1);
    let _ = add_groups(&disk, &[1, 1]);
    disk.kill();
    disk.take_away(FIRST);
    assert_refused(&disk, 1, PAGE, Fault::Missing);
}

#[test]
fn recovery_says_how_young_the_events_of_a_segment_are() {
    let (disk, acked) = rolled();
    let recovered = recover(&mut disk.storage(), WriterId(0), u64::MAX).unwrap();
    let newest: Vec<u64> = recovered.live.iter().map(|live| live.newest_unix_ns).collect();
    assert!(newest.is_sorted() && newest[0] > 1_790_000_000_000_000_000, "{newest:?}");
    let youngest = acked.iter().map(|event| event.seq).max().unwrap();
    assert_eq!(newest.last(), Some(&(1_790_000_000_000_000_000 + youngest)));
}

#[test]
fn damage_in_an_older_segment_is_refused() {
    let (disk, _) = rolled();
    disk.set_mark(None);
    flip(&disk, SECOND, 5 * PAGE + 1000);
    assert_refused(&disk, 2, 5 * PAGE, Fault::Padding);
}

#[test]
fn a_tail_once_dropped_stays_dropped() {
    let (disk, acked) = killed_after(&[1, 3]);
    disk.edit(FIRST, |bytes| bytes[2 * PAGE_BYTES..3 * PAGE_BYTES].fill(0));
    let mut kept = vec![acked[0].clone()];
    // As on a filesystem that has no holes: elsewhere the dropped tail is given back.
    disk.fail(Call::PunchHole, 1, Failure::Errno(libc::EOPNOTSUPP));
    let mut rig = assert_recovers(&disk, &kept);
    // The numbers of what was dropped are given out again; the whole chunks of the old group stay where they are.
    rig.send(0, b"{\"again\":1}");
    rig.send(1, b"{\"again\":2}");
    rig.settle().unwrap();
    kept.extend(rig.acked());
    drop(rig);
    disk.kill();
    assert!(ChunkHeader::decode(&disk.file(FIRST)[3 * PAGE_BYTES..]).is_ok());
    let rig = assert_recovers(&disk, &kept);
    assert_eq!(rig.report.events_read, 3);
}

#[test]
fn restarts_do_not_push_the_log_out() {
    let disk = FaultyDisk::new(1);
    let segment_bytes = config().segment_bytes;
    let config = WriterConfig { retention_bytes: Some(3 * segment_bytes), ..config() };
    // Three segments' worth, one more as reserve and one ready: 21 whole ones would not fit.
    disk.set_capacity(5 * segment_bytes);
    let mut acked = Vec::new();
    for start in 0..20 {
        let mut rig = Rig::open(&config, Box::new(disk.storage()), 2).unwrap();
        rig.send(0, format!("{{\"start\":{start}}}").as_bytes());
        rig.settle().unwrap();
        rig.elapsed += std::time::Duration::from_secs(2);
        rig.settle().unwrap();
        assert_eq!(rig.metrics.segments_retired.get(), 0, "start {start}");
        acked.extend(rig.acked());
        disk.kill();
    }
    assert_eq!((read_all(&disk).unwrap(), acked.len()), (acked, 20));
    let report = verify_all(&disk);
    assert!(report.sound && report.segments == 20, "{report:?}");
    // What is over the limit still goes, and no file with a hole comes back: the disk would refuse to have it written to.
    let mut rig = Rig::open(&config, Box::new(disk.storage()), 2).unwrap();
    while rig.metrics.segments_retired.get() < 40 {
        rig.send(0, b"{\"filler\":true}");
        rig.settle().unwrap();
    }
}

#[test]
fn an_older_segment_with_a_bad_header_is_refused() {
    let (disk, _) = rolled();
    disk.set_mark(None);
    flip(&disk, SECOND, 8);
    assert_refused(&disk, 2, 0, Fault::Segment(SegmentFault::Checksum));
}

#[test]
fn a_missing_segment_is_refused() {
    let (disk, _) = rolled();
    disk.set_mark(None);
    disk.take_away(SECOND);
    assert_refused(&disk, 3, 0, Fault::Link(LinkFault::Epoch { named: Epoch(2), found: Epoch(1) }));
}

#[test]
fn retired_segments_are_not_missed() {
    let (disk, acked) = rolled();
    let first = verify_all(&disk);
    disk.take_away(FIRST);
    let shown = read_all(&disk).unwrap();
    assert!(shown.len() < acked.len());
    let report = verify_all(&disk);
    assert!(report.sound && report.segments == first.segments - 1);
    let rig = open(&disk).unwrap();
    assert_eq!((rig::last_seq(&rig, 0), rig::last_seq(&rig, 1)), (Seq(40), Seq(40)));
}

#[test]
fn a_crash_during_retention_loses_nothing_live() {
    let (disk, _) = rolled();
    let first = disk.file(FIRST);
    disk.take_away(FIRST);
    disk.put("0000000000000001.retired", first);
    let shown = read_all(&disk).unwrap();
    let rig = open(&disk).unwrap();
    assert_eq!((rig::last_seq(&rig, 0), rig::last_seq(&rig, 1)), (Seq(40), Seq(40)));
    assert_eq!(read_all(&disk).unwrap(), shown);
    assert!(!disk.names().iter().any(|name| name.ends_with(".retired")));
}

#[test]
fn a_log_of_a_later_version_is_refused_not_cut() {
    let (disk, _) = killed_after(&[1, 1]);
    disk.edit(FIRST, |bytes| {
        let header = &mut bytes[2 * PAGE_BYTES..2 * PAGE_BYTES + CHUNK_HEADER_BYTES];
        header[4] = 2;
        let crc = tidegate::record::crc32c(&header[..CHUNK_HEADER_BYTES - 4]);
        header[CHUNK_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    });
    assert_refused(&disk, 1, 2 * PAGE, Fault::Header(HeaderFault::Version(2)));
}

#[test]
fn a_bounded_recovery_still_knows_every_number() {
    let (disk, acked) = rolled();
    let config = WriterConfig { recover_bytes_max: 0, ..config() };
    let rig = Rig::open(&config, Box::new(disk.storage()), 2).unwrap();
    assert_eq!(rig.report.segments_read, 2, "the newest two are always read");
    assert!(rig.report.segments > 2);
    assert_eq!((rig::last_seq(&rig, 0), rig::last_seq(&rig, 1)), (Seq(40), Seq(40)));
    assert_eq!(read_all(&disk).unwrap().len(), acked.len());
}

#[test]
fn a_log_on_a_real_disk_is_written_rolled_and_recovered() {
    let directory = tempfile::tempdir().unwrap();
    let config = small(directory.path());
    let storage = || Box::new(DirectStorage::open(directory.path(), WriterId(0), SyncChoice::Auto).unwrap());
    for round in 0..3 {
        let mut rig = Rig::open(&config, storage(), 2).unwrap();
        assert_eq!(rig.status.state(), WriterState::Running);
        assert_eq!(rig.report.events_read, round * 200);
        for event in 0..100 {
            for shard in 0..2 {
                rig.send(shard, format!("{{\"round\":{round},\"event\":{event},\"shard\":{shard}}}").as_bytes());
            }
            if event % 8 == 7 {
                rig.settle().unwrap();
            }
        }
        assert_eq!(rig.stop().len(), 200);
    }
    let report = tidegate::log::verify(directory.path()).unwrap();
    assert!(report.sound && report.writers[0].sealed, "{report:?}");
    assert_eq!((report.events, report.writers[0].last_seqs.as_slice()), (600, [(0, 300), (1, 300)].as_slice()));
}
