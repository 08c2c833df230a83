//! Every byte of a small log corrupted once: acknowledged events are never returned changed, out of order or twice, and
//! that some are missing is noticed, except in the last group of a log that was neither closed nor marked.

mod rig;

use std::path::Path;

use rig::{Event, Rig, read_all, small, verify_all};
use tidegate::base::{KIB, PAGE_BYTES, WriterId};
use tidegate::record::{CHUNK_HEADER_BYTES, SEGMENT_HEADER_BYTES, crc32c};
use tidegate::sys::storage::faulty::{FaultyDisk, Random};
use tidegate::writer::WriterConfig;
use tidegate::writer::recover::{RecoverError, recover};

const FIRST: &str = "0000000000000001.segment";
const SECOND: &str = "0000000000000002.segment";
const THIRD: &str = "0000000000000003.segment";

fn config() -> WriterConfig {
    WriterConfig { segment_bytes: 24 * KIB as u64, chunk_bytes_max: PAGE_BYTES, ..small(Path::new("simulated")) }
}

/// A log of these groups, each of so many chunks; every chunk is one page. Stopped in order or killed; unmarked.
fn log(groups: &[usize], stopped: bool) -> (FaultyDisk, Vec<Event>) {
    let disk = FaultyDisk::new(1);
    let mut rig = Rig::open(&config(), Box::new(disk.storage()), 1).unwrap();
    for (group, chunks) in groups.iter().enumerate() {
        for chunk in 0..*chunks {
            rig.send(0, format!("{{\"group\":{group},\"chunk\":{chunk}}}").as_bytes());
        }
        rig.settle().unwrap();
    }
    let acked = rig.acked();
    if stopped {
        rig.stop();
    }
    disk.kill();
    disk.set_mark(None);
    (disk, acked)
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Refused,
    Kept(usize),
}

/// What recovery, a reader and `verify` make of the log; they must agree, and what is shown must be what was sent.
fn verdict(disk: &FaultyDisk, acked: &[Event]) -> Verdict {
    let recovered = recover(&mut disk.storage(), WriterId(0), u64::MAX);
    let shown = read_all(disk);
    let report = verify_all(disk);
    match recovered {
        Ok(recovered) => {
            let shown = shown.expect("recovery found no damage");
            assert!(acked.starts_with(&shown), "shown other than sent");
            assert!(report.sound && report.events == shown.len() as u64, "{report:?}");
            assert_eq!(recovered.report.events_read, shown.len() as u64);
            Verdict::Kept(shown.len())
        }
        Err(RecoverError::Damaged(_)) => {
            assert!(shown.is_err() && !report.sound, "recovery found damage");
            Verdict::Refused
        }
        Err(error) => panic!("{error}"),
    }
}

/// Corrupts each byte of a file in turn and holds the verdict against `expected(offset)`.
fn corrupt_every_byte(disk: &FaultyDisk, acked: &[Event], name: &str, expected: impl Fn(usize) -> Vec<Verdict>) {
    assert_eq!(verdict(disk, acked), Verdict::Kept(acked.len()));
    for at in 0..disk.file(name).len() {
        let flip = 1 << (at % 8);
        disk.edit(name, |bytes| bytes[at] ^= flip);
        let found = verdict(disk, acked);
        assert!(expected(at).contains(&found), "byte {at} of {name}: {found:?}");
        disk.edit(name, |bytes| bytes[at] ^= flip);
    }
}

#[test]
fn every_byte_of_a_sealed_log_is_guarded() {
    let (disk, acked) = log(&[1, 2], true);
    let seal = 4 * PAGE_BYTES;
    corrupt_every_byte(&disk, &acked, FIRST, |at| {
        // The seal itself holds no event, and what lies behind it is not the log.
        vec![if at < seal { Verdict::Refused } else { Verdict::Kept(3) }]
    });
}

#[test]
fn only_the_last_group_of_an_unclosed_log_can_be_mistaken_for_a_torn_tail() {
    let (disk, acked) = log(&[1, 2], false);
    corrupt_every_byte(&disk, &acked, FIRST, |at| match at / PAGE_BYTES {
        0 | 1 => vec![Verdict::Refused],
        2 => vec![Verdict::Kept(1)],
        3 => vec![Verdict::Kept(2)],
        _ => vec![Verdict::Kept(3)],
    });
}

#[test]
fn with_its_durable_mark_not_even_the_last_group_can() {
    let (disk, acked) = log(&[1, 2], false);
    let end = 4 * PAGE_BYTES;
    let mark = tidegate::sys::storage::DurableMark { epoch: tidegate::base::Epoch(1), end: end as u64 };
    disk.set_mark(Some(mark));
    corrupt_every_byte(&disk, &acked, FIRST, |at| vec![if at < end { Verdict::Refused } else { Verdict::Kept(3) }]);
}

#[test]
fn every_byte_of_an_older_segment_is_guarded() {
    let (disk, acked) = log(&[1; 6], false);
    assert!(disk.names().contains(&SECOND.to_owned()));
    let end = SEGMENT_HEADER_BYTES + 5 * PAGE_BYTES;
    assert_eq!(disk.file(FIRST).len(), end, "the first segment is full");
    corrupt_every_byte(&disk, &acked, FIRST, |_| vec![Verdict::Refused]);
}

/// As if the one before it had been begun, never used and dropped; but it is there. A reader that believes it would begin with
/// the second segment again and again.
#[test]
fn a_segment_that_skips_the_one_before_it_is_damage() {
    let (disk, acked) = log(&[1; 12], false);
    assert_eq!(verdict(&disk, &acked), Verdict::Kept(12));
    disk.edit(THIRD, |bytes| {
        bytes[32] = 1;
        make_header_checksum_right(bytes);
    });
    assert_eq!(verdict(&disk, &acked), Verdict::Refused);
}

/// A header whose checksum is right can still say what cannot be: that its segment is shorter than where the next one says that it
/// ends, as an example.
#[test]
fn whatever_the_headers_of_segments_say_all_who_read_them_agree() {
    let (sound, _) = log(&[1; 12], true);
    const FIELDS: usize = 128;
    for name in [FIRST, SECOND, THIRD] {
        let bytes = sound.file(name);
        for (at, value) in (0..FIELDS).flat_map(|at| [0, 1, 0x20, 0x60, 0xFF].map(|value| (at, value))) {
            let mut edited = bytes.clone();
            edited[at] = value;
            make_header_checksum_right(&mut edited);
            sound.put(name, edited);
            assert_agreed(&sound, &format!("{name}, byte {at} set to {value}"));
        }
        sound.put(name, bytes);
    }
}

fn make_header_checksum_right(segment: &mut [u8]) {
    let end = SEGMENT_HEADER_BYTES - 4;
    let crc = crc32c(&segment[..end]);
    segment[end..SEGMENT_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

/// Recovery, a reader and `verify` all refuse a log, or all find the same in it.
fn assert_agreed(disk: &FaultyDisk, edit: &str) {
    let recovered = recover(&mut disk.storage(), WriterId(0), u64::MAX);
    let shown = read_all(disk);
    let report = verify_all(disk);
    match (recovered, shown) {
        (Ok(recovered), Ok(shown)) => {
            assert_eq!(recovered.report.events_read, shown.len() as u64, "{edit}");
            assert!(report.sound, "{edit}: {report:?}");
        }
        (Err(_), Err(_)) => assert!(!report.sound, "{edit}"),
        (recovered, shown) => panic!("{edit}: recovery {recovered:?}, reader {shown:?}"),
    }
}

/// Edits that keep checksums right reach the checks behind them: lengths, counts, numbers, chains.
#[test]
fn edits_with_right_checksums_never_panic_and_never_invent_events() {
    let (disk, _) = log(&[1, 2, 1, 3], true);
    let sound: Vec<(String, Vec<u8>)> = disk
        .names()
        .into_iter()
        .filter(|name| name.ends_with(".segment"))
        .map(|name| (name.clone(), disk.file(&name)))
        .collect();
    for seed in 0..4000 {
        let mut random = Random::new(seed);
        let disk = FaultyDisk::new(seed);
        for (name, bytes) in &sound {
            let mut bytes = bytes.clone();
            for _ in 0..1 + random.below(3) {
                edit_page(&mut bytes, &mut random);
            }
            disk.put(name, bytes);
        }
        assert_agreed(&disk, &format!("seed {seed}"));
    }
}

fn edit_page(bytes: &mut [u8], random: &mut Random) {
    let page = random.below(bytes.len() / PAGE_BYTES);
    let page = &mut bytes[page * PAGE_BYTES..(page + 1) * PAGE_BYTES];
    let reach = if random.one_in(3) { PAGE_BYTES } else { CHUNK_HEADER_BYTES + 16 };
    let at = random.below(reach);
    page[at] = match random.below(3) {
        0 => random.number() as u8,
        1 => page[at].wrapping_add(1),
        _ => 0,
    };
    let is_chunk = page.starts_with(b"TGc");
    if is_chunk && random.one_in(2) {
        let length = u32::from_le_bytes(page[56..60].try_into().unwrap()) as usize;
        let payload = &page[CHUNK_HEADER_BYTES..(CHUNK_HEADER_BYTES + length).min(PAGE_BYTES)];
        let crc = crc32c(payload);
        page[60..64].copy_from_slice(&crc.to_le_bytes());
    }
    let end = if is_chunk { CHUNK_HEADER_BYTES } else { PAGE_BYTES };
    let crc = crc32c(&page[..end - 4]);
    page[end - 4..end].copy_from_slice(&crc.to_le_bytes());
}
