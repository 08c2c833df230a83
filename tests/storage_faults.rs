//! What the log promises when the disk fails: seeded crashes at every kind of step, errors, a full disk, slow followers.
//! Each simulated run prints its seed when it fails; `TIDEGATE_TEST_SEED` runs one seed alone, `TIDEGATE_RUNS` another
//! number of them.

mod rig;

use std::path::Path;
use std::time::Duration;

use rig::{CHUNK_BYTES, Event, Rig, of_shard, read_all, read_more, small, verify_all};
use tidegate::base::{Epoch, KIB, Seq, ShardId, WriterId};
use tidegate::handoff::{FailureStage, WriterFailure, WriterState};
use tidegate::log::{LogReader, ReadError};
use tidegate::sys::storage::Storage as _;
use tidegate::sys::storage::faulty::{Call, Failure, FaultyDisk, Random};
use tidegate::writer::recover::recover;
use tidegate::writer::{OpenError, Turn, WriterConfig};

const SHARDS: u16 = 3;
/// Simulated runs; each holds several boots, crashes and recoveries.
const RUNS: u64 = 1000;

fn config() -> WriterConfig {
    small(Path::new("simulated"))
}

/// What a run knows to be true of the log, shard by shard.
#[derive(Default)]
struct Oracle {
    /// In the log, whatever happens.
    kept: Vec<Vec<Event>>,
    /// May be in the log, in this order, behind what is kept.
    possible: Vec<Vec<Event>>,
}

impl Oracle {
    fn new() -> Self {
        Self { kept: vec![Vec::new(); SHARDS.into()], possible: vec![Vec::new(); SHARDS.into()] }
    }

    /// Checks what a reader or recovery found: all that is kept, then a beginning of what is possible, byte for byte, in
    /// order, exactly once. With `retired`, a beginning may be missing.
    fn check(&self, found: &[Event], retired: bool) {
        for shard in 0..SHARDS {
            let found = of_shard(found, shard);
            let (kept, possible) = (&self.kept[usize::from(shard)], &self.possible[usize::from(shard)]);
            let all: Vec<&Event> = kept.iter().chain(possible).collect();
            let start = match found.first() {
                Some(first) if retired => all.iter().position(|event| event == first).expect("known"),
                _ => 0,
            };
            let expected = &all[start..];
            assert!(found.len() <= expected.len(), "shard {shard}: {} found of {}", found.len(), expected.len());
            assert!(found.iter().zip(expected).all(|(found, known)| *found == *known), "shard {shard}: other events");
            let may_be_gone = retired && found.is_empty();
            assert!(start + found.len() >= kept.len() || may_be_gone, "shard {shard}: acknowledged events are missing");
        }
    }

    /// What was found is durable from here on; the rest of what was possible never comes.
    fn adopt(&mut self, found: &[Event], retired: bool) {
        for shard in 0..SHARDS {
            let found: Vec<Event> = of_shard(found, shard).into_iter().cloned().collect();
            let kept = &mut self.kept[usize::from(shard)];
            if !(retired && found.is_empty()) {
                *kept = found;
            }
            self.possible[usize::from(shard)].clear();
        }
    }

    /// What a boot handed over by its end, and how much of it is certain to survive the machine.
    fn note(&mut self, rig: &Rig) {
        for (shard, end) in rig.shards.iter().enumerate() {
            for event in &end.offered {
                let is_durable = event.seq <= end.port.durable_seq().0;
                let list = if is_durable { &mut self.kept } else { &mut self.possible };
                list[shard].push(event.clone());
            }
        }
    }
}

/// One boot: random events and turns until the machine crashes or enough was done. A reader follows along.
fn boot(disk: &FaultyDisk, random: &mut Random, rig: &mut Rig, retired: bool) {
    disk.set_server_runs(true);
    let mut reader = LogReader::over(vec![(WriterId(0), Box::new(disk.storage()))]);
    let mut shown = Vec::new();
    for _ in 0..random.below(300) {
        let shard = random.below(SHARDS.into());
        if random.one_in(3) {
            let turned = rig.turn_after(Duration::from_millis(random.below(400) as u64));
            if let Err(failure) = turned {
                assert!(disk.has_crashed(), "{failure}");
                assert_eq!(rig.status.failure(), Some(failure));
                break;
            }
            // Background work may have met the crash, which the writer learns at its next turn.
            if random.one_in(4) && !disk.has_crashed() {
                match read_more(&mut reader, &mut shown) {
                    Ok(()) => {}
                    // It did not register, so retention may be faster.
                    Err(ReadError::Overtaken { .. }) if retired => {
                        reader = LogReader::over(vec![(WriterId(0), Box::new(disk.storage()))]);
                        shown.clear();
                    }
                    Err(error) => panic!("{error}"),
                }
                assert_shown_is_durable(rig, &shown);
            }
            continue;
        }
        let length = if random.one_in(10) { 1 + random.below(CHUNK_BYTES - 200) } else { 2 + random.below(600) };
        let number = random.number();
        let event: Vec<u8> = (0..length).map(|at| (number >> (at % 57)) as u8).collect();
        let end = &mut rig.shards[shard];
        if end.place(shard as u16, &event, 0) && random.one_in(2) {
            end.seal_and_offer();
        }
    }
    disk.set_server_runs(false);
}

fn assert_shown_is_durable(rig: &Rig, shown: &[Event]) {
    for (shard, end) in rig.shards.iter().enumerate() {
        let durable = end.port.durable_seq().0;
        let shown = of_shard(shown, shard as u16);
        assert!(shown.iter().all(|event| event.seq <= durable), "shown before it was durable");
        assert!(shown.windows(2).all(|pair| pair[0].seq <= pair[1].seq), "out of order");
    }
}

/// What was written survives the process, if not yet the machine.
fn assert_written_survived(disk: &FaultyDisk, written: &[Seq]) {
    // Not a reader: it would make durable what it shows.
    let recovered = recover(&mut disk.storage(), WriterId(0), u64::MAX).unwrap();
    for (shard, written) in (0..SHARDS).map(ShardId).zip(written) {
        assert!(recovered.end.seqs.last(shard) >= *written, "shard {}: written events are missing", shard.0);
    }
}

/// Most boots end in a crash: at any step, or where segments and names change.
fn order_crash(disk: &FaultyDisk, random: &mut Random) {
    let nth = 1 + random.below(6) as u64;
    match random.below(8) {
        0 => {}
        1 => disk.crash_on(Call::Rename, nth),
        2 => disk.crash_on(Call::SyncDir, nth),
        3 => disk.crash_on(Call::Create, nth),
        4 => disk.crash_on(Call::Sync, 3 * nth),
        _ => disk.crash_after(1 + random.below(120) as u64),
    }
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let disk = FaultyDisk::new(seed ^ 0x5EED);
    let retired = random.one_in(3);
    let config = WriterConfig {
        segment_bytes: (72 + 4 * random.below(15)) as u64 * KIB as u64,
        retention_bytes: retired.then_some(2 * config().segment_bytes),
        segments_ahead: 1 + random.below(2),
        ..config()
    };
    let mut oracle = Oracle::new();
    for _ in 0..2 + random.below(4) {
        if random.one_in(2) {
            // Not always: a reader that finds no server makes what it shows durable itself.
            oracle.check(&read_all(&disk).unwrap(), retired);
        }
        match random.below(6) {
            0 => disk.crash_after(1 + random.below(12) as u64),
            1 => disk.crash_on(Call::SyncDir, 1 + random.below(2) as u64),
            _ => {}
        }
        let opened = Rig::open(&config, Box::new(disk.storage()), SHARDS);
        let mut rig = match opened {
            Ok(rig) => rig,
            Err(error) => {
                assert!(disk.has_crashed(), "{error}");
                disk.reboot();
                continue;
            }
        };
        let found = read_all(&disk).unwrap_or_else(|error| {
            assert!(disk.has_crashed(), "{error}");
            Vec::new()
        });
        if !disk.has_crashed() {
            oracle.check(&found, retired);
            oracle.adopt(&found, retired);
            disk.cancel_crash();
            order_crash(&disk, &mut random);
        }
        boot(&disk, &mut random, &mut rig, retired);
        oracle.note(&rig);
        let written: Vec<_> = rig.shards.iter().map(|end| end.port.written_seq()).collect();
        drop(rig);
        if random.one_in(2) {
            disk.kill();
            assert_written_survived(&disk, &written);
        } else {
            disk.reboot();
        }
    }
    let rig = Rig::open(&config, Box::new(disk.storage()), SHARDS).unwrap();
    oracle.check(&read_all(&disk).unwrap(), retired);
    rig.stop();
    let report = verify_all(&disk);
    assert!(report.sound, "{report:?}");
}

#[test]
fn whatever_was_acknowledged_survives_any_crash_exactly_once() {
    if let Ok(seed) = std::env::var("TIDEGATE_TEST_SEED") {
        return run(seed.parse().unwrap());
    }
    let runs = std::env::var("TIDEGATE_RUNS").map_or(RUNS, |runs| runs.parse().unwrap());
    for seed in 0..runs {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "seed {seed} failed: TIDEGATE_TEST_SEED={seed} runs it alone");
    }
}

#[test]
fn what_a_reader_showed_of_a_dead_servers_log_survives_the_machine() {
    let mut shown_unsynced = 0;
    for seed in 0..40 {
        let disk = FaultyDisk::new(seed);
        let mut rig = settled(&disk, &config());
        rig.send(0, b"{\"n\":1}");
        rig.settle().unwrap();
        disk.crash_on(Call::Sync, 1);
        rig.send(0, b"{\"n\":2}");
        rig.settle().unwrap_err();
        drop(rig);
        disk.kill();
        let shown = read_all(&disk).unwrap();
        shown_unsynced += shown.len() - 1;
        disk.reboot();
        assert_eq!(read_all(&disk).unwrap(), shown, "seed {seed}");
    }
    assert_eq!(shown_unsynced, 40, "the process died between write and sync, or right after");
}

/// A group written while the one before it is synced is not covered by that sync, whatever the disk did with it.
#[test]
fn a_sync_acknowledges_only_what_was_written_before_it_began() {
    for seed in 0..40 {
        let disk = FaultyDisk::new(seed);
        let mut rig = settled(&disk, &config());
        let numbers = |rig: &Rig| (rig.shards[0].port.written_seq().0, rig.shards[0].port.durable_seq().0);
        rig.send(0, b"{\"n\":1}");
        rig.turn().unwrap();
        assert_eq!(numbers(&rig), (1, 0), "written, and waits for what comes during its sync");
        for n in 2..6 {
            rig.send(0, format!("{{\"n\":{n}}}").as_bytes());
            rig.turn().unwrap();
            assert_eq!(numbers(&rig), (n, n - 1));
        }
        let acked = rig.acked();
        assert_eq!(acked.len(), 4);
        drop(rig);
        disk.reboot();
        let stored = read_all(&disk).unwrap();
        assert!(stored.starts_with(&acked), "seed {seed}");
    }
}

#[test]
fn a_sync_that_fails_beside_a_write_acknowledges_neither_group() {
    for (call, nth) in [(Call::Sync, 1), (Call::Write, 1)] {
        let disk = FaultyDisk::new(7);
        let mut rig = settled(&disk, &config());
        rig.send(0, b"{\"n\":1}");
        rig.turn().unwrap();
        disk.fail(call, nth, Failure::Errno(libc::EIO));
        rig.send(0, b"{\"n\":2}");
        let stage = if call == Call::Sync { FailureStage::Sync } else { FailureStage::Write };
        assert_eq!(rig.turn(), Err(WriterFailure { stage, errno: libc::EIO }));
        let synced = usize::from(call == Call::Write);
        assert_eq!(rig.acked().len(), synced, "the sync of the first group is its own");
        assert_eq!(rig.shards[0].port.outstanding(), 2 - synced, "nothing that failed is given back");
        assert_eq!(rig.status.state(), WriterState::Poisoned);
    }
}

/// A rig whose background work is done, so that the next write and sync are a group's.
fn settled(disk: &FaultyDisk, config: &WriterConfig) -> Rig {
    let mut rig = Rig::open(config, Box::new(disk.storage()), 1).unwrap();
    while rig.metrics.segments_ready.get() < config.segments_ahead as u64 {
        rig.turn().unwrap();
    }
    rig
}

#[test]
fn a_failed_sync_is_never_acknowledged_afterwards() {
    let disk = FaultyDisk::new(7);
    let mut rig = settled(&disk, &config());
    rig.send(0, b"{\"n\":1}");
    rig.settle().unwrap();
    disk.fail(Call::Sync, 1, Failure::Errno(libc::EIO));
    rig.send(0, b"{\"n\":2}");
    let failure = WriterFailure { stage: FailureStage::Sync, errno: libc::EIO };
    let steps = disk.steps();
    assert_eq!(rig.settle(), Err(failure));
    assert_eq!(disk.steps() - steps, 2, "one write, one sync, no second attempt");
    rig.send(0, b"{\"n\":3}");
    assert_eq!(rig.turn(), Err(failure), "poisoned for good");
    assert_eq!(disk.steps() - steps, 2);
    assert_eq!((rig.status.state(), rig.status.failure()), (WriterState::Poisoned, Some(failure)));
    let port = &rig.shards[0].port;
    assert_eq!((port.written_seq().0, port.durable_seq().0), (2, 1));
    assert_eq!(port.outstanding(), 2, "nothing that failed is given back");
    assert_eq!(rig.acked().len(), 1);
}

#[test]
fn a_failed_or_short_write_is_neither_written_nor_durable() {
    for (failure, errno) in
        [(Failure::Errno(libc::EIO), libc::EIO), (Failure::Errno(libc::ENOSPC), libc::ENOSPC), (Failure::Short(512), 0)]
    {
        let disk = FaultyDisk::new(7);
        let mut rig = settled(&disk, &config());
        disk.fail(Call::Write, 1, failure);
        rig.send(0, b"{\"n\":1}");
        assert_eq!(rig.turn(), Err(WriterFailure { stage: FailureStage::Write, errno }));
        let port = &rig.shards[0].port;
        assert_eq!((port.written_seq().0, port.durable_seq().0, port.outstanding()), (0, 0, 1));
        drop(rig);
        disk.kill();
        assert!(read_all(&disk).unwrap().len() <= 1, "it may be there or not, but whole or not at all");
    }
}

#[test]
fn a_failure_while_preparing_or_rolling_poisons_and_loses_nothing() {
    for (call, nth) in [
        (Call::Create, 1),
        (Call::Zero, 1),
        (Call::Sync, 12),
        (Call::Rename, 1),
        (Call::Rename, 2),
        (Call::SyncDir, 1),
        (Call::Write, 40),
    ] {
        let disk = FaultyDisk::new(7);
        let mut rig = Rig::open(&config(), Box::new(disk.storage()), 1).unwrap();
        disk.fail(call, nth, Failure::Errno(libc::EIO));
        let mut n = 0;
        let failure = loop {
            rig.send(0, format!("{{\"n\":{n}}}").as_bytes());
            n += 1;
            assert!(n < 1000, "{call:?} {nth} never failed");
            if let Err(failure) = rig.turn() {
                break failure;
            }
        };
        assert_eq!(failure.errno, libc::EIO, "{call:?} {nth}");
        let acked = rig.acked();
        drop(rig);
        disk.reboot();
        let found = read_all(&disk).unwrap();
        assert!(found.starts_with(&acked), "{call:?} {nth}");
        Rig::open(&config(), Box::new(disk.storage()), 1).unwrap();
    }
}

#[test]
fn an_unreadable_log_is_the_hosts_fault_not_damage() {
    let disk = FaultyDisk::new(7);
    let mut rig = Rig::open(&config(), Box::new(disk.storage()), 1).unwrap();
    rig.send(0, b"{}");
    rig.turn().unwrap();
    drop(rig);
    disk.kill();
    for nth in 1..3 {
        disk.fail(Call::Read, nth, Failure::Errno(libc::EIO));
        let error = Rig::open(&config(), Box::new(disk.storage()), 1).err().unwrap();
        assert!(matches!(error, OpenError::Host { .. }), "{error}");
    }
}

/// Sends while events are admitted; what is buffered when they no longer are.
fn fill_until_refused(rig: &mut Rig) {
    let event = vec![b'x'; 12 * KIB];
    let mut turns = 0;
    while rig.status.state() == WriterState::Running {
        rig.send(0, &event);
        rig.turn_after(Duration::from_millis(100)).unwrap();
        turns += 1;
        assert!(turns < 10_000, "the disk never fills");
    }
    assert_eq!(rig.status.state(), WriterState::Full);
}

#[test]
fn a_full_disk_refuses_in_time_and_recovers_when_there_is_room() {
    let disk = FaultyDisk::new(7);
    let config = WriterConfig { reserve_bytes: 4 * config().segment_bytes, ..config() };
    let capacity = 60 * config.segment_bytes;
    disk.set_capacity(capacity);
    let mut rig = Rig::open(&config, Box::new(disk.storage()), 1).unwrap();
    fill_until_refused(&mut rig);
    // Everything the log buffer can still hold at that moment is written and acknowledged.
    let event = vec![b'y'; 12 * KIB];
    while rig.shards[0].place(0, &event, 0) && rig.shards[0].seal_and_offer() {}
    assert!(
        rig.shards[0].buffer.used_bytes() > 700 * KIB,
        "the ring was filled: {}",
        rig.shards[0].buffer.used_bytes()
    );
    let mut last = Turn::Worked;
    while last == Turn::Worked {
        last = rig.turn_after(Duration::from_millis(100)).unwrap();
    }
    assert_eq!((last, rig.shards[0].port.outstanding()), (Turn::Idle, 0));
    assert_eq!(rig.status.state(), WriterState::Full, "still");
    // Space is freed: events are taken again at the next look.
    disk.set_capacity(2 * capacity);
    rig.turn_after(Duration::from_secs(2)).unwrap();
    assert_eq!(rig.status.state(), WriterState::Running);
    let acked = rig.stop();
    assert_eq!(read_all(&disk).unwrap(), acked);
}

/// Without inodes, or behind a quota, statfs(2) shows free bytes and no segment can be made: a server that believes the bytes
/// admits events that then wait for ever.
#[test]
fn a_disk_on_which_no_segment_can_be_made_is_full_whatever_it_says_is_free() {
    for (call, errno) in [
        (Call::Create, libc::ENOSPC),
        (Call::Create, libc::EDQUOT),
        (Call::Zero, libc::ENOSPC),
        (Call::Zero, libc::EDQUOT),
    ] {
        let disk = FaultyDisk::new(7);
        let mut rig = settled(&disk, &config());
        disk.fail_always(call, Some(errno));
        fill_until_refused(&mut rig);
        assert!(disk.storage().free_bytes().unwrap() > 1 << 60);
        for turn in 0..50 {
            rig.turn_after(Duration::from_millis(300)).unwrap();
            assert_eq!(rig.status.state(), WriterState::Full, "{call:?}, errno {errno}, turn {turn}");
        }
        let made = disk.names().len();
        disk.fail_always(call, None);
        for _ in 0..20 {
            rig.turn_after(Duration::from_millis(300)).unwrap();
        }
        assert_eq!(rig.status.state(), WriterState::Running, "{call:?}, errno {errno}");
        assert!(disk.names().len() > made);
        let acked = rig.stop();
        assert_eq!(read_all(&disk).unwrap(), acked);
    }
}

/// As above, found out by the last segment that was ready: what comes then waits for room, and none of it is lost.
#[test]
fn a_full_disk_found_out_at_the_end_of_a_segment_stays_full_until_one_can_be_made() {
    let disk = FaultyDisk::new(7);
    let mut rig = settled(&disk, &config());
    let event = vec![b'x'; 12 * KIB];
    while rig.shards[0].place(0, &event, 0) && rig.shards[0].seal_and_offer() {}
    let sent = rig.shards[0].port.outstanding();
    disk.fail_always(Call::Create, Some(libc::ENOSPC));
    while rig.turn_after(Duration::from_millis(700)).unwrap() != Turn::Blocked {}
    for _ in 0..20 {
        assert_eq!(rig.turn_after(Duration::from_millis(700)), Ok(Turn::Blocked));
        assert_eq!(rig.status.state(), WriterState::Full);
    }
    disk.fail_always(Call::Create, None);
    assert_eq!(rig.turn_after(Duration::from_millis(700)), Ok(Turn::Worked), "what waited goes first");
    assert_eq!(rig.status.state(), WriterState::Running);
    rig.settle().unwrap();
    assert_eq!(rig.acked().len(), sent);
}

/// A segment that is being prepared is room: a server that forgets it refuses for a moment what it has room for. It is room
/// for one segment and no more: what was let in until then fits without the reserve.
#[test]
fn a_segment_being_prepared_is_room_once() {
    let config = WriterConfig { segments_ahead: 2, reserve_bytes: 4 * config().segment_bytes, ..config() };
    for seed in 0..100 {
        let disk = FaultyDisk::new(seed);
        disk.set_capacity(60 * config.segment_bytes);
        let mut rig = Rig::open(&config, Box::new(disk.storage()), 1).unwrap();
        fill_until_refused(&mut rig);
        for turn in 0..50 {
            rig.turn_after(Duration::from_millis(100)).unwrap();
            assert_eq!(rig.status.state(), WriterState::Full, "seed {seed}, turn {turn}");
        }
        let event = vec![b'y'; 12 * KIB];
        while rig.shards[0].place(0, &event, 0) && rig.shards[0].seal_and_offer() {}
        rig.settle().unwrap();
        assert_eq!(rig.shards[0].port.outstanding(), 0, "seed {seed}");
        let free_bytes = disk.storage().free_bytes().unwrap();
        assert!(free_bytes >= config.reserve_bytes, "seed {seed}: {free_bytes} bytes are left");
    }
}

#[test]
fn a_disk_filled_by_somebody_else_blocks_but_loses_and_poisons_nothing() {
    let disk = FaultyDisk::new(7);
    let config = config();
    let mut rig = settled(&disk, &config);
    disk.set_capacity(0);
    let event = vec![b'x'; 12 * KIB];
    let mut sent = 0;
    let blocked = loop {
        rig.send(0, &event);
        sent += 1;
        let turn = rig.turn_after(Duration::from_millis(700)).unwrap();
        if turn != Turn::Worked {
            break turn;
        }
    };
    assert_eq!((blocked, rig.status.state()), (Turn::Blocked, WriterState::Full));
    assert_eq!(rig.turn().unwrap(), Turn::Blocked);
    let kept = rig.shards[0].port.outstanding();
    assert!(kept > 0 && rig.acked().len() + kept == sent, "kept, not acknowledged");
    disk.set_capacity(u64::MAX / 2);
    assert_eq!(rig.turn_after(Duration::from_secs(2)).unwrap(), Turn::Worked);
    assert_eq!(rig.status.state(), WriterState::Running);
    rig.settle().unwrap();
    assert_eq!(rig.acked().len(), sent);
}

#[test]
fn a_drain_onto_a_full_disk_fails_instead_of_hanging() {
    let disk = FaultyDisk::new(7);
    let mut rig = settled(&disk, &config());
    disk.set_capacity(0);
    loop {
        rig.send(0, &vec![b'x'; 12 * KIB]);
        if rig.turn_after(Duration::from_millis(700)).unwrap() == Turn::Blocked {
            break;
        }
    }
    rig.shards.clear();
    assert_eq!(rig.settle(), Err(WriterFailure { stage: FailureStage::Prepare, errno: libc::ENOSPC }));
}

#[test]
fn a_disk_that_is_full_at_start_is_refused_with_the_fix() {
    let disk = FaultyDisk::new(7);
    disk.set_capacity(config().segment_bytes - 1);
    let error = Rig::open(&config(), Box::new(disk.storage()), 1).err().unwrap();
    assert!(matches!(&error, OpenError::Host { error, .. } if error.raw_os_error() == Some(libc::ENOSPC)));
    assert!(error.to_string().contains("the disk is full: free space"), "{error}");
    assert_eq!(disk.names(), Vec::<String>::new(), "nothing half made is left");
}

/// A start begins a segment before retention runs; on a full disk, retention runs first.
#[test]
fn a_start_on_a_full_disk_makes_room_by_retention() {
    let disk = FaultyDisk::new(7);
    let mut rig = settled(&disk, &config());
    roll_to(&mut rig, &disk, 6);
    rig.stop();
    for name in disk.names() {
        if name.ends_with(".ready") {
            disk.take_away(&name);
        }
    }
    disk.set_capacity(6 * config().segment_bytes);
    let open = |config: &WriterConfig| Rig::open(config, Box::new(disk.storage()), 1);
    assert!(open(&config()).is_err(), "nothing may be removed");
    let config = WriterConfig { retention_bytes: Some(4 * config().segment_bytes), ..config() };
    disk.set_followers_need(Some(Epoch(1)));
    assert!(open(&config).is_err(), "a follower needs the oldest");
    disk.set_followers_need(None);
    let mut rig = open(&config).unwrap();
    assert_eq!(oldest(&disk), 4, "as many are kept as were asked for, the new one with them");
    rig.send(0, b"{}");
    rig.settle().unwrap();
    let report = verify_all(&disk);
    assert!(report.sound, "{report:?}");
}

/// Fills segments until `epoch` is the active one.
fn roll_to(rig: &mut Rig, disk: &FaultyDisk, epoch: u64) {
    while !disk.names().contains(&format!("{epoch:016x}.segment")) {
        rig.send(0, b"{\"filler\":true}");
        rig.turn().unwrap();
    }
}

fn oldest(disk: &FaultyDisk) -> u64 {
    let names = disk.names();
    let first = names.iter().find(|name| name.ends_with(".segment")).unwrap();
    u64::from_str_radix(&first[..16], 16).unwrap()
}

#[test]
fn how_far_behind_a_reader_is_shows_without_retention_too() {
    let disk = FaultyDisk::new(7);
    let mut rig = Rig::open(&config(), Box::new(disk.storage()), 1).unwrap();
    disk.set_followers_need(Some(Epoch(2)));
    roll_to(&mut rig, &disk, 4);
    rig.turn_after(Duration::from_secs(2)).unwrap();
    assert_eq!(rig.metrics.segments_held.get(), 2);
    disk.fail_followers(libc::EACCES);
    rig.turn_after(Duration::from_secs(2)).unwrap();
    assert_eq!((rig.metrics.segments_held.get(), rig.status.followers_errno()), (0, 0), "nothing waits for it");
}

#[test]
fn retention_waits_for_followers_and_then_recycles() {
    let disk = FaultyDisk::new(7);
    let config = WriterConfig { retention_bytes: Some(3 * config().segment_bytes), ..config() };
    let mut rig = Rig::open(&config, Box::new(disk.storage()), 1).unwrap();
    disk.set_followers_need(Some(Epoch(1)));
    roll_to(&mut rig, &disk, 8);
    assert_eq!((oldest(&disk), rig.metrics.segments_retired.get()), (1, 0), "a follower still reads the first");
    disk.set_followers_need(Some(Epoch(4)));
    rig.turn_after(Duration::from_secs(2)).unwrap();
    assert_eq!((oldest(&disk), rig.metrics.segments_held.get()), (4, 4), "4 to 7 are held");
    disk.set_followers_need(None);
    rig.turn_after(Duration::from_secs(2)).unwrap();
    assert_eq!(rig.metrics.segments_held.get(), 0);
    assert_eq!(oldest(&disk), 6, "three are kept: 6, 7 and the active one");
    roll_to(&mut rig, &disk, 40);
    let steps = disk.steps();
    assert_eq!(oldest(&disk), 38);
    roll_to(&mut rig, &disk, 50);
    let per_segment = (disk.steps() - steps) / 10;
    assert!(per_segment < 75, "recycled files are not filled again: {per_segment} calls");
    rig.settle().unwrap();
    let files = disk.names().len();
    assert!(files <= 3 + config.segments_ahead + 1, "{:?}", disk.names());
    let kept = read_all(&disk).unwrap();
    assert!(rig.acked().ends_with(&kept) && !kept.is_empty());
}

#[test]
fn followers_that_cannot_be_looked_at_keep_everything_and_stop_nothing() {
    let disk = FaultyDisk::new(7);
    let config = WriterConfig { retention_bytes: Some(3 * config().segment_bytes), ..config() };
    let mut rig = Rig::open(&config, Box::new(disk.storage()), 1).unwrap();
    disk.fail_followers(libc::EACCES);
    roll_to(&mut rig, &disk, 8);
    assert_eq!((oldest(&disk), rig.status.state()), (1, WriterState::Running));
    assert_eq!(rig.status.followers_errno(), libc::EACCES, "said to whoever watches the writer");
    disk.set_followers_need(None);
    rig.turn_after(Duration::from_secs(2)).unwrap();
    assert_eq!((oldest(&disk), rig.status.followers_errno()), (6, 0));
}

#[test]
fn a_log_kept_small_by_retention_is_not_mistaken_for_a_full_disk() {
    let disk = FaultyDisk::new(7);
    // The disk holds what is to be kept, and nothing more.
    let config = WriterConfig { retention_bytes: Some(30 * config().segment_bytes), ..config() };
    disk.set_capacity(33 * config.segment_bytes);
    let mut rig = Rig::open(&config, Box::new(disk.storage()), 1).unwrap();
    roll_to(&mut rig, &disk, 70);
    assert_eq!(rig.status.state(), WriterState::Running);
    // A follower that stands still keeps the room from coming back.
    disk.set_followers_need(Some(Epoch(oldest(&disk))));
    rig.turn_after(Duration::from_secs(2)).unwrap();
    assert_eq!(rig.status.state(), WriterState::Full);
}

#[test]
fn age_retires_segments_of_an_idle_log() {
    let disk = FaultyDisk::new(7);
    let config = WriterConfig { retention_age: Some(Duration::from_secs(3600)), ..config() };
    let mut rig = Rig::open(&config, Box::new(disk.storage()), 1).unwrap();
    roll_to(&mut rig, &disk, 5);
    rig.turn_after(Duration::from_secs(3000)).unwrap();
    assert_eq!(oldest(&disk), 1);
    rig.turn_after(Duration::from_secs(3000)).unwrap();
    assert_eq!(oldest(&disk), 5, "the active one stays");
}
