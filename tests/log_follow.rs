//! Reading a log while a writer's thread is at work on a real disk: nothing early, nothing twice, nothing stale, nothing
//! missed; and what `cat` prints.

mod rig;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rig::{CHUNK_BYTES, Rig, Shard, read_more, small};
use tidegate::base::{MIB, Position, Seq, ShardId, TenantId, WriterId};
use tidegate::handoff::{Bell, LogBuffer, WriterFailure, WriterState, WriterStatus, channel};
use tidegate::log::{CatOptions, LogReader, ReadError, cat, verify};
use tidegate::metrics::WriterMetrics;
use tidegate::sys::memory::Region;
use tidegate::sys::storage::{DataLock, DirectStorage, SyncChoice};
use tidegate::writer::{self, WriterConfig};

/// A writer in its own thread, and the shards it serves.
struct Server {
    _lock: DataLock,
    thread: JoinHandle<Result<(), WriterFailure>>,
    status: Arc<WriterStatus>,
    metrics: Arc<WriterMetrics>,
    shards: Vec<Shard>,
}

fn start(config: &WriterConfig, shards: u16) -> Server {
    let lock = DataLock::acquire(&config.directory).unwrap();
    let opened = writer::open_direct(config).unwrap();
    let (status, metrics) = (Arc::<WriterStatus>::default(), Arc::<WriterMetrics>::default());
    let bell = Arc::new(Bell::new().unwrap());
    let mut ports = Vec::new();
    let mut ends = Vec::new();
    for shard in (0..shards).map(ShardId) {
        let region = Arc::new(Region::map(2 * MIB, false).unwrap());
        let last = opened.last_seq(shard);
        let shard_bell = Arc::new(Bell::new().unwrap());
        let (port, writer_port) =
            channel(shard, Arc::clone(&region), 64, last, shard_bell, Arc::clone(&bell), Arc::clone(&status));
        ends.push(Shard::new(LogBuffer::new(region, shard, CHUNK_BYTES, last), port));
        ports.push(writer_port);
    }
    let writer = writer::join(opened, ports, bell, Arc::clone(&status), Arc::clone(&metrics)).unwrap();
    let thread = thread::spawn(move || writer.run());
    Server { _lock: lock, thread, status, metrics, shards: ends }
}

impl Server {
    /// The shards go, as at a drain; the writer seals the log.
    fn stop(self) {
        drop(self.shards);
        self.thread.join().unwrap().unwrap();
        assert_eq!(self.status.state(), WriterState::Stopped);
    }
}

/// Sends `count` numbered events of a shard, waiting for room, and then for all to be durable.
fn send_numbered(shard: &mut Shard, number: u16, count: u64) {
    for event in 0..count {
        let text = format!("{{\"shard\":{number},\"n\":{event},\"pad\":\"{}\"}}", "x".repeat((event % 700) as usize));
        while !shard.place(number, text.as_bytes(), number) {
            shard.take_settled();
            thread::yield_now();
        }
        // Chunks of many sizes.
        if event % 37 == 0 || event % 41 == 0 {
            shard.seal_and_offer();
        }
    }
    while !shard.seal_and_offer() {
        shard.take_settled();
        thread::yield_now();
    }
    let last = Seq(shard.buffer.open_seq().0 - 1);
    while shard.port.durable_seq() < last {
        assert!(shard.port.durable_seq() <= shard.port.written_seq());
        shard.take_settled();
        thread::yield_now();
    }
}

fn real(directory: &Path) -> WriterConfig {
    WriterConfig { group_chunks_max: 64, group_bytes_max: MIB, ..small(directory) }
}

#[test]
fn a_follower_sees_every_event_once_and_in_order_across_rolls_and_recycling() {
    const EVENTS: u64 = 6000;
    let directory = tempfile::tempdir().unwrap();
    let config = WriterConfig { retention_bytes: Some(512 * 1024), ..real(directory.path()) };
    let mut server = start(&config, 2);
    let mut reader = LogReader::open(directory.path()).unwrap();
    assert!(reader.not_registered().is_none(), "{:?}", reader.not_registered());
    let senders: Vec<_> = server
        .shards
        .drain(..)
        .enumerate()
        .map(|(number, mut shard)| {
            thread::spawn(move || {
                send_numbered(&mut shard, number as u16, EVENTS);
                shard
            })
        })
        .collect();
    let mut next = [0u64; 2];
    while next != [EVENTS; 2] {
        let Some(chunk) = reader.next_chunk().unwrap() else {
            thread::yield_now();
            continue;
        };
        for event in chunk.events() {
            let shard = usize::from(event.position.shard.0);
            let expected = format!("{{\"shard\":{shard},\"n\":{},", next[shard]);
            assert!(event.event.starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(event.event));
            assert_eq!(event.tenant, TenantId(shard as u16));
            next[shard] += 1;
        }
    }
    server.shards = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
    assert!(server.metrics.segments_live.get() + server.metrics.segments_retired.get() > 20, "it rolled often");
    assert_eq!(server.metrics.events.get(), 2 * EVENTS);
    let metrics = Arc::clone(&server.metrics);
    server.stop();
    assert!(reader.next_chunk().unwrap().is_none());
    let report = verify(directory.path()).unwrap();
    // Whether it is sealed depends on where it ended: a segment that is full to its last page has no room for the seal.
    assert!(report.sound && report.writers[0].torn_tail.is_none(), "{report:?}");
    assert!(metrics.groups.get() > 0 && metrics.sync_latency.snapshot().count() == metrics.groups.get());
}

#[test]
fn a_follower_goes_on_over_restarts_and_segments_never_used() {
    let directory = tempfile::tempdir().unwrap();
    let config = real(directory.path());
    start(&config, 1).stop();
    let mut reader = LogReader::open(directory.path()).unwrap();
    let mut shown = Vec::new();
    read_more(&mut reader, &mut shown).unwrap();
    assert!(shown.is_empty());
    for round in 1..=4 {
        let mut server = start(&config, 1);
        read_more(&mut reader, &mut shown).unwrap();
        if round % 2 == 0 {
            send_numbered(&mut server.shards[0], 0, 10);
        }
        server.stop();
        read_more(&mut reader, &mut shown).unwrap();
        assert_eq!(shown.len(), round / 2 * 10);
    }
}

#[test]
fn what_one_log_buffer_cannot_hold_waits_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = start(&real(directory.path()), 1);
    // Some four megabytes through a buffer of two.
    send_numbered(&mut server.shards[0], 0, 12_000);
    server.stop();
    assert_eq!(verify(directory.path()).unwrap().events, 12_000);
}

#[test]
fn verify_beside_a_running_server_counts_what_is_durable() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = start(&real(directory.path()), 1);
    send_numbered(&mut server.shards[0], 0, 500);
    let mut reader = LogReader::open(directory.path()).unwrap();
    let mut shown = Vec::new();
    while shown.len() < 500 {
        read_more(&mut reader, &mut shown).unwrap();
    }
    let report = verify(directory.path()).unwrap();
    assert!(report.sound && !report.writers[0].sealed, "{report:?}");
    assert_eq!((report.events, &report.writers[0].torn_tail), (500, &None));
    server.stop();
}

/// A stopped log of six events of three tenants.
fn six_events() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let storage = DirectStorage::open(directory.path(), WriterId(0), SyncChoice::Auto).unwrap();
    let mut rig = Rig::open(&small(directory.path()), Box::new(storage), 1).unwrap();
    for n in 0..6u16 {
        let shard = &mut rig.shards[0];
        assert!(shard.place(0, format!("{{\"n\":{n}}}").as_bytes(), n % 3));
        if n % 2 == 1 {
            shard.seal_and_offer();
            rig.turn().unwrap();
        }
    }
    rig.stop();
    directory
}

/// Hears the warnings of a reader that has nothing to be warned of.
fn all_is_well(why: &io::Error) {
    panic!("retention will not wait: {why}");
}

fn printed(options: &CatOptions) -> String {
    let mut out = Vec::new();
    let mut name_of = |tenant: TenantId| (tenant == TenantId(1)).then(|| "ac\"me".to_owned());
    let summary = cat(options, &mut name_of, &mut all_is_well, &mut out, &AtomicBool::new(false)).unwrap();
    assert_eq!(summary.bytes, out.len() as u64);
    assert_eq!(summary.events, out.iter().filter(|byte| **byte == b'\n').count() as u64);
    String::from_utf8(out).unwrap()
}

#[test]
fn cat_prints_filters_and_resumes() {
    let directory = six_events();
    let options = CatOptions { directory: directory.path().to_owned(), ..CatOptions::default() };
    assert_eq!(printed(&options), (0..6).map(|n| format!("{{\"n\":{n}}}\n")).collect::<String>());
    let of = |tenant: &str| CatOptions { tenant: Some(tenant.to_owned()), ..options.clone() };
    assert_eq!(printed(&of("ac\"me")), "{\"n\":1}\n{\"n\":4}\n");
    assert_eq!(printed(&of("")), "{\"n\":0}\n{\"n\":3}\n");
    assert_eq!(printed(&of("tenant-2")), "{\"n\":2}\n{\"n\":5}\n", "nobody knows its name");
    assert_eq!(printed(&of("nobody")), "");
    let from = |text: &str| CatOptions { from: Some(text.parse::<Position>().unwrap()), ..options.clone() };
    assert_eq!(printed(&from("0-0-2-1")), "{\"n\":3}\n{\"n\":4}\n{\"n\":5}\n");
    assert_eq!(printed(&from("0-0-3-7")), "", "behind its chunk's last event is the next chunk's first");
    assert_eq!(printed(&from("0-0-99-0")), "", "behind the end");
    let meta = CatOptions { with_meta: true, ..of("ac\"me") };
    let lines = printed(&meta);
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["position"], "0-0-1-1");
    assert_eq!((&first["tenant"], &first["event"]["n"]), (&"ac\"me".into(), &1.into()));
    assert_eq!(first["received_unix_ns"], 1_790_000_000_000_000_001u64);
}

#[test]
fn cat_says_what_it_cannot_print() {
    let directory = six_events();
    let mut name_of = |_: TenantId| None;
    let stop = AtomicBool::new(false);
    let nowhere = CatOptions { directory: directory.path().join("nowhere"), ..CatOptions::default() };
    let error = cat(&nowhere, &mut name_of, &mut all_is_well, &mut Vec::new(), &stop).unwrap_err();
    assert!(error.to_string().contains("not a data directory"), "{error}");
    let mut reader = LogReader::open(directory.path()).unwrap();
    let position = Position { writer: WriterId(7), shard: ShardId(0), seq: Seq(1), index: 0 };
    assert!(matches!(reader.seek(position), Err(ReadError::NoLog(_))));
    let mut reader = LogReader::open(directory.path()).unwrap();
    let error = reader.seek("0-0-0-0".parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("0-0-0-0 is no event's") && !error.contains("retention"), "{error}");
    // The reader of the output going away is the end, not an error.
    let options = CatOptions { directory: directory.path().to_owned(), ..CatOptions::default() };
    let (reader, mut writer) = io::pipe().unwrap();
    drop(reader);
    assert!(cat(&options, &mut name_of, &mut all_is_well, &mut writer, &stop).is_ok());
}

#[test]
fn cat_resumes_behind_retention_only_with_a_word() {
    let directory = tempfile::tempdir().unwrap();
    let config = WriterConfig { retention_bytes: Some(256 * 1024), ..real(directory.path()) };
    let mut server = start(&config, 1);
    send_numbered(&mut server.shards[0], 0, 6000);
    server.stop();
    let mut reader = LogReader::open(directory.path()).unwrap();
    let position = Position { writer: WriterId(0), shard: ShardId(0), seq: Seq(1), index: 0 };
    let error = reader.seek(position).unwrap_err();
    assert!(matches!(error, ReadError::Retired(retired) if retired == position), "{error}");
}

#[test]
fn cat_follow_ends_when_told_and_shows_what_came_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = start(&real(directory.path()), 1);
    let stop = Arc::new(AtomicBool::new(false));
    let (printed, mut out) = io::pipe().unwrap();
    let follower = thread::spawn({
        let (stop, directory) = (Arc::clone(&stop), directory.path().to_owned());
        move || {
            let options = CatOptions { directory, follow: true, ..CatOptions::default() };
            cat(&options, &mut |_| None, &mut all_is_well, &mut out, &stop).unwrap()
        }
    });
    send_numbered(&mut server.shards[0], 0, 200);
    let mut lines = io::BufRead::lines(io::BufReader::new(printed));
    for n in 0..200 {
        let line = lines.next().unwrap().unwrap();
        assert!(line.starts_with(&format!("{{\"shard\":0,\"n\":{n},")), "{line}");
    }
    stop.store(true, Ordering::Relaxed);
    assert_eq!(follower.join().unwrap().events, 200);
    server.stop();
}
