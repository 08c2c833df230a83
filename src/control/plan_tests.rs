//! What the plan promises, on hosts made up for it.

use std::path::Path;

use super::super::host::made_up::host;
use super::super::settings::{Sources, parse_file};
use super::*;
use crate::sys::host::HugePages;

fn config(text: &str) -> Config {
    let path = Path::new("t.toml");
    let settings = parse_file(text, path).unwrap();
    let sources = Sources::of_file(&settings, path);
    Config::resolve(settings, sources).unwrap()
}

fn plan(text: &str, host: &Host) -> Plan {
    Plan::make(&config(text), host).unwrap()
}

fn refused(text: &str, host: &Host) -> String {
    Plan::make(&config(text), host).unwrap_err().to_string()
}

/// Shard cores, writer cores, control core.
fn cores(plan: &Plan) -> (Vec<usize>, Vec<usize>, usize) {
    let shards = plan.shards.iter().map(|shard| shard.core).collect();
    (shards, plan.writers.iter().map(|writer| writer.core).collect(), plan.control_core)
}

fn advised(plan: &Plan, part: &str) -> bool {
    plan.advice.iter().any(|advice| advice.symptom.contains(part) || advice.fix.contains(part))
}

#[test]
fn one_core_runs_everything() {
    let plan = plan("", &host(1, 1, 1));
    assert_eq!(cores(&plan), (vec![0], vec![0], 0));
    assert!(advised(&plan, "a shard and a writer share core 0") && advised(&plan, "give the server a second core"));
}

#[test]
fn two_cores_are_one_shard_and_one_for_the_rest() {
    assert_eq!(cores(&plan("", &host(2, 1, 1))), (vec![0], vec![1], 1));
}

#[test]
fn every_core_but_the_writers_is_a_shard() {
    let plan = plan("", &host(8, 1, 2));
    assert_eq!(cores(&plan), ((0..7).collect(), vec![7], 7));
    assert!(advised(&plan, "share physical cores (SMT)") && advised(&plan, "--shard-cores 0-3"));
}

#[test]
fn sixty_four_cores_on_two_nodes_have_one_writer_unless_asked() {
    let two_nodes = host(64, 2, 1);
    let one = plan("", &two_nodes);
    assert_eq!(cores(&one), ((0..63).collect(), vec![63], 63));
    assert_eq!(one.writers[0].numa_node, 1);
    assert_eq!((one.shards[31].numa_node, one.shards[32].numa_node), (0, 1));
    assert!(advised(&one, "32 shards hand their chunks to a writer on another NUMA node"));
    assert!(advised(&one, "--writer-cores 31,63"));

    let two = plan("writer_cores = \"31,63\"", &two_nodes);
    assert_eq!(two.shards.len(), 62);
    assert!(two.shards.iter().all(|shard| two.writers[usize::from(shard.writer.0)].numa_node == shard.numa_node));
    assert!(!advised(&two, "another NUMA node"));
}

#[test]
fn the_writer_is_near_its_disk() {
    let mut two_nodes = host(64, 2, 1);
    two_nodes.filesystem.device.as_mut().unwrap().numa_node = Some(0);
    assert_eq!(cores(&plan("", &two_nodes)).1, [31]);
}

#[test]
fn a_hundred_and_ninety_two_cores_need_their_memory() {
    let big = host(192, 2, 2);
    let plan = plan("", &big);
    assert_eq!(plan.shards.len(), 191);
    assert_eq!(plan.memory.shard_bytes, 112 << 20);
    assert_eq!(plan.memory.total_bytes, 191 * (112 << 20));
    let mut small = big;
    small.memory.available_bytes = 16 << 30;
    assert_eq!(
        refused("", &small),
        "shards = auto (the default): 191 shards of 269MiB each need 51393MiB, but 16GiB of memory can be had; fewer \
         shards or a smaller decoders_per_shard_max would fit"
    );
}

#[test]
fn fewer_shards_take_a_physical_core_each_near_the_writer() {
    // Cores 0-7 and their siblings 8-15; nodes 0-3,8-11 and 4-7,12-15; the writer on 15.
    assert_eq!(cores(&plan("shards = 3", &host(16, 2, 2))).0, [4, 5, 6]);
    assert_eq!(cores(&plan("shards = 5", &host(16, 2, 2))).0, [4, 5, 6, 7, 12]);
    assert_eq!(cores(&plan("shards = 2\nwriter_cores = 0", &host(4, 1, 2))).0, [1, 2]);
}

#[test]
fn what_is_named_is_taken() {
    let eight = host(8, 1, 1);
    let named = plan("shard_cores = \"5,2-3\"\nwriter_cores = \"0\"\ncontrol_core = 1", &eight);
    assert_eq!(cores(&named), (vec![5, 2, 3], vec![0], 1));
    assert_eq!(cores(&plan("shard_cores = \"6-7\"", &eight)), (vec![6, 7], vec![5], 5));
    assert_eq!(cores(&plan("shard_cores = \"0-7\"", &eight)).1, [7], "with no core left, one is shared");
    assert_eq!(cores(&plan("control_core = 3", &eight)).0, [0, 1, 2, 4, 5, 6]);
    assert_eq!(cores(&plan("control_core = 0", &host(2, 1, 1))), (vec![0], vec![1], 0), "but a shard must be");
}

#[test]
fn more_shards_than_cores_take_turns_and_say_so() {
    let plan = plan("shards = 5\nlog_buffer_bytes = \"8MiB\"", &host(3, 1, 1));
    assert_eq!(cores(&plan).0, [0, 1, 0, 1, 0]);
    assert!(advised(&plan, "5 shards share 2 cores: they take turns") && advised(&plan, "--shards 2"));
}

#[test]
fn cores_that_are_not_there_are_refused_by_name() {
    for (text, lead) in [
        ("shard_cores = \"0,9\"", "shard_cores = 0,9 in t.toml: core 9 is"),
        ("writer_cores = 4", "writer_cores = 4 in t.toml: core 4 is"),
        ("control_core = 77", "control_core = 77 in t.toml: core 77 is"),
    ] {
        let message = refused(text, &host(4, 1, 1));
        assert!(message.starts_with(lead) && message.ends_with("cores 0-3 may be used"), "{message}");
    }
    assert_eq!(
        refused("shards = 2\nwriter_cores = \"0-2\"", &host(8, 1, 1)),
        "writer_cores = 0-2 in t.toml: 3 writers for 2 shards leave some without work; name at most 2 cores"
    );
    assert_eq!(
        refused("shard_cores = \"0-1\"\nwriter_cores = \"2,7\"", &host(8, 2, 1)),
        "writer_cores = 2,7 in t.toml: the writer on core 7 would have no shard: no shard is on its NUMA node 1; name a \
         core on a node that has shards"
    );
}

#[test]
fn a_spinning_shard_has_its_core_to_itself() {
    assert_eq!(cores(&plan("idle = \"spin\"", &host(2, 1, 1))).0, [0]);
    for (text, with) in [
        ("idle = \"spin\"\nshard_cores = \"0\"\nwriter_cores = \"0\"", "a writer"),
        ("idle = \"spin\"\ncontrol_core = 0", "the control thread"),
        ("idle = \"spin\"\nshards = 2", "another shard"),
    ] {
        let message = refused(text, &host(2, 1, 1));
        let lead =
            format!("idle = spin in t.toml: shard {} shares core 0 with {with}", u8::from(with == "another shard"));
        assert!(message.starts_with(&lead) && message.contains("--idle adaptive"), "{message}");
    }
}

#[test]
fn the_table_of_descriptors_fits_the_limit_of_open_files() {
    let mut host = host(2, 1, 1);
    host.open_files = 4096;
    let clamped = plan("", &host);
    assert_eq!(clamped.limits.connections_per_shard_max, 4096 - 512);
    assert!(advised(&clamped, "3584 connections per shard instead of 16384") && advised(&clamped, "ulimit -n 16896"));
    assert_eq!(
        refused("connections_per_shard_max = 10000", &host),
        "connections_per_shard_max = 10000 in t.toml: the limit of open files is 4096; 10512 needed: run `ulimit -n \
         10512` before starting, or set LimitNOFILE=10512 in the systemd unit"
    );
    host.open_files = 256;
    assert!(refused("", &host).contains("the limit of open files is 256"));
}

#[test]
fn segments_are_no_longer_than_files_may_be() {
    let mut host = host(2, 1, 1);
    host.file_bytes = 256 << 20;
    plan("", &host);
    host.file_bytes -= 1;
    let message = refused("", &host);
    assert!(message.starts_with("segment_bytes = 256MiB"), "{message}");
    assert!(message.contains("ulimit -f unlimited") && message.contains("LimitFSIZE"), "{message}");
    plan("segment_bytes = \"128MiB\"", &host);
}

#[test]
fn log_buffers_are_registered_only_where_memlock_allows() {
    let mut host = host(2, 1, 1);
    host.memlock_bytes = 8 << 20;
    let poor = plan("", &host);
    assert_eq!(poor.memlock_needed_bytes, 35 << 20);
    assert!(!poor.registered_buffers && advised(&poor, "memlock is 8MiB; 35MiB needed"));
    host.memlock_exempt = true;
    assert!(plan("", &host).registered_buffers);
}

#[test]
fn the_sync_mode_follows_the_disk() {
    let mut host = host(2, 1, 1);
    assert_eq!(plan("", &host).sync, SyncMode::Dsync);
    host.filesystem.device.as_mut().unwrap().fua = false;
    assert_eq!(plan("", &host).sync, SyncMode::Dsync, "a cache that is not volatile needs no FUA");
    host.filesystem.device.as_mut().unwrap().volatile_cache = true;
    let flushed = plan("", &host);
    assert_eq!(flushed.sync, SyncMode::Fdatasync);
    assert!(advised(&flushed, "every group commit flushes the whole cache"));
    let forced = plan("sync = \"dsync\"", &host);
    assert_eq!(forced.sync, SyncMode::Dsync);
    assert!(advised(&forced, "--sync auto"));
    host.filesystem.device = None;
    assert_eq!(plan("", &host).sync, SyncMode::Fdatasync);
}

#[test]
fn a_good_host_with_bounded_retention_gets_no_advice() {
    assert_eq!(plan("retention_bytes = \"2GiB\"", &host(2, 1, 1)).advice, []);
    assert_eq!(plan("retention_age = \"1d\"", &host(2, 1, 1)).advice, []);
}

#[test]
fn everything_that_could_be_better_is_said_with_its_fix() {
    let mut poor = host(2, 1, 1);
    poor.kernel = "6.1.0-18".to_owned();
    poor.huge_pages = HugePages::Never;
    poor.filesystem.direct_io = Some(false);
    let plan_of = |text: &str, host: &Host| plan(text, host);
    let plan = plan_of("admin = \"0.0.0.0:8081\"", &poor);
    assert!(!plan.direct_io);
    for part in [
        "no O_DIRECT here",
        "--retention-bytes 256GiB",
        "the admin port 0.0.0.0:8081 answers whoever reaches it",
        "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        "receives one buffer per completion",
    ] {
        assert!(advised(&plan, part), "{part}: {:?}", plan.advice);
    }
    poor.filesystem.kind = "tmpfs".to_owned();
    poor.filesystem.free_bytes = 1 << 30;
    let plan = plan_of("", &poor);
    assert!(advised(&plan, "the log is on tmpfs") && advised(&plan, "will be refused with 507"));
}

#[test]
fn fewer_requests_in_flight_than_shards_are_refused() {
    let host = host(9, 1, 1);
    assert_eq!(plan("max_ccu = 8\ntarget_utilization = 0.5", &host).normal_ccu, 8, "one for each shard");
    let said = refused("max_ccu = 7\ntarget_utilization = 0.5", &host);
    assert!(said.starts_with("max_ccu = 7") && said.contains("give at least 8, or --shards 7"), "{said}");
    assert_eq!(plan("max_ccu = 7\nshards = 7", &host).normal_ccu, 7);
    assert_eq!(plan("max_ccu = 100\ntarget_utilization = 0.5", &host).normal_ccu, 50);
}
