//! What could be better on this host: each with what it costs and the command that changes it. Main thread, at start;
//! pure.

use std::io;

use super::config::Config;
use super::plan::{DESCRIPTORS_RESERVED, Plan, SyncMode};
use super::quantity::{ByteSize, CoreList};
use crate::sys::host::HugePages;

/// One thing that could be better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What is seen, and what it costs.
    pub symptom: String,
    /// What to do about it.
    pub fix: String,
}

/// Everything worth saying about a plan, what endangers events first.
#[must_use]
pub fn for_plan(plan: &Plan, config: &Config) -> Vec<Advice> {
    let mut advice = Vec::new();
    let mut say = |symptom: String, fix: String| advice.push(Advice { symptom, fix });
    about_the_log(plan, config, &mut say);
    about_limits(plan, config, &mut say);
    about_cores(plan, &mut say);
    about_the_kernel(plan, &mut say);
    advice
}

fn about_the_log(plan: &Plan, config: &Config, say: &mut impl FnMut(String, String)) {
    let filesystem = &plan.host.filesystem;
    if let Some((directory, errno)) = &filesystem.unwritable {
        let (directory, error) = (directory.display(), io::Error::from_raw_os_error(*errno));
        say(
            format!("this user cannot write in {directory} ({error}): a start ends with exit code 3"),
            format!("run it as the user of the log, or give {directory} to this one; --data names another directory"),
        );
    }
    if filesystem.kind == "tmpfs" {
        say(
            "the log is on tmpfs: every event is lost when the machine stops, whatever the ack level".to_owned(),
            "name a directory on a disk by --data".to_owned(),
        );
    } else if !plan.direct_io {
        say(
            format!(
                "{} has no O_DIRECT here: the log goes through the page cache, with a copy of every byte",
                filesystem.kind
            ),
            "put --data on ext4 or xfs on a local disk".to_owned(),
        );
    }
    let segments = config.segment_bytes * (u64::from(config.segments_ahead) + 1);
    if filesystem.free_bytes < config.reserve_bytes + segments {
        say(
            format!(
                "{} are free, but the reserve of {} and {} prepared segments need {}: events will be refused with 507",
                ByteSize(filesystem.free_bytes),
                ByteSize(config.reserve_bytes),
                config.segments_ahead + 1,
                ByteSize(config.reserve_bytes + segments)
            ),
            "free space, or lower --reserve-bytes or --segment-bytes".to_owned(),
        );
    } else if config.retention_bytes.is_none() && config.retention_age.is_none() {
        say(
            "nothing is ever deleted: the log grows up to the disk reserve, then events are refused with 507"
                .to_owned(),
            format!("bound it, as with --retention-bytes {}GiB", (filesystem.free_bytes >> 31).max(1)),
        );
    }
    match (&filesystem.device, plan.sync) {
        (Some(device), SyncMode::Fdatasync) if device.volatile_cache && !device.fua => say(
            format!(
                "{} has a volatile write cache and no FUA: every group commit flushes the whole cache",
                device.name
            ),
            format!(
                "use a disk with power-loss protection; if this one has it, `echo 'write through' > \
                 /sys/block/{}/queue/write_cache` says so",
                device.name
            ),
        ),
        (Some(device), SyncMode::Dsync) if !device.writes_through() => say(
            format!(
                "{} has a volatile cache and no FUA: with dsync every write flushes it, not every group",
                device.name
            ),
            "say --sync auto".to_owned(),
        ),
        _ => {}
    }
}

fn about_limits(plan: &Plan, config: &Config, say: &mut impl FnMut(String, String)) {
    if !plan.registered_buffers {
        say(
            format!(
                "memlock is {}; {} needed to register the log buffers: every write pins its pages anew",
                ByteSize(plan.host.lockable_bytes()),
                ByteSize(plan.memlock_needed_bytes)
            ),
            "run `ulimit -l unlimited` as root before starting, or set LimitMEMLOCK=infinity in the systemd unit"
                .to_owned(),
        );
    }
    let (wanted, granted) = (config.limits.connections_per_shard_max, plan.limits.connections_per_shard_max);
    if granted < wanted {
        let needed = u64::from(wanted) + DESCRIPTORS_RESERVED;
        say(
            format!(
                "the limit of open files is {}: {granted} connections per shard instead of {wanted}",
                plan.host.open_files
            ),
            format!("run `ulimit -n {needed}` before starting, or set LimitNOFILE={needed} in the systemd unit"),
        );
    }
    if !plan.admin.ip().is_loopback() {
        say(
            format!("the admin port {} answers whoever reaches it, without a key", plan.admin),
            "listen on loopback, or let a firewall pass only those who scrape it".to_owned(),
        );
    }
}

fn about_cores(plan: &Plan, say: &mut impl FnMut(String, String)) {
    let all = plan.host.cores.len();
    let mut shard_cores: Vec<usize> = plan.shards.iter().map(|shard| shard.core).collect();
    shard_cores.sort_unstable();
    shard_cores.dedup();
    if shard_cores.len() < plan.shards.len() {
        say(
            format!("{} shards share {} cores: they take turns", plan.shards.len(), shard_cores.len()),
            format!("run --shards {}", shard_cores.len()),
        );
    }
    let shared: Vec<usize> =
        plan.writers.iter().map(|writer| writer.core).filter(|core| shard_cores.contains(core)).collect();
    if !shared.is_empty() {
        let fix =
            if all == 1 { "give the server a second core" } else { "let --shard-cores and --writer-cores not overlap" };
        say(
            format!("a shard and a writer share core {}: acks wait while the shard works", CoreList(shared)),
            fix.to_owned(),
        );
    }
    let physical = |id: &usize| plan.host.cores.iter().find(|core| core.id == *id).map(|core| core.physical);
    let first_threads: Vec<usize> = shard_cores
        .iter()
        .enumerate()
        .filter(|(at, core)| !shard_cores[..*at].iter().any(|other| physical(other) == physical(core)))
        .map(|(_, core)| *core)
        .collect();
    if first_threads.len() < shard_cores.len() {
        say(
            "shards share physical cores (SMT): more throughput in all, longer tails for each".to_owned(),
            format!("for the shortest tails, one shard per physical core: --shard-cores {}", CoreList(first_threads)),
        );
    }
    let writer_nodes: Vec<usize> = plan.writers.iter().map(|writer| writer.numa_node).collect();
    let far = plan.shards.iter().filter(|shard| !writer_nodes.contains(&shard.numa_node)).count();
    if far > 0 {
        let last_of =
            |node: &usize| plan.host.cores.iter().rev().find(|core| core.numa_node == *node).map(|core| core.id);
        let cores = plan.host.numa_nodes().iter().filter_map(last_of).collect();
        say(
            format!("{far} shards hand their chunks to a writer on another NUMA node"),
            format!("one writer for each node, each with its own part of the log: --writer-cores {}", CoreList(cores)),
        );
    }
}

fn about_the_kernel(plan: &Plan, say: &mut impl FnMut(String, String)) {
    if plan.host.huge_pages == HugePages::Never {
        say(
            "transparent huge pages are off: the log buffers take 512 times the page-table entries".to_owned(),
            "run `echo madvise > /sys/kernel/mm/transparent_hugepage/enabled` as root".to_owned(),
        );
    }
    let version = plan.host.kernel_version();
    if version < (6, 10) {
        say(
            format!("Linux {} receives one buffer per completion", plan.host.kernel),
            "6.10 or later receives bundles of buffers, which is faster for large bodies".to_owned(),
        );
    }
}
