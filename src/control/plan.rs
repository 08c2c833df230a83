//! The effective plan: which thread runs on which core, how much memory each takes, how the log is synced. Main thread,
//! at start; a pure function of the configuration and the host.
//!
//! Refuses what cannot be run as configured. What can be run but could be better is `advice.rs`; how a plan is shown is
//! `plan_view.rs`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::advice::{self, Advice};
use super::config::Config;
use super::host::Host;
use super::quantity::{ByteSize, CoreList, IdlePolicy, ShardCount, SyncChoice};
use crate::base::{AckLevel, Limits, MIB, ShardId, WriterId};

/// A zstd decompressor with the largest window: 8 MiB of it and three blocks of 128 KiB (RFC 8878 §3.1.1.2.4), tables of 160 KiB.
const ZSTD_DECODER_BYTES: u64 = (8 << 20) + (384 << 10) + (160 << 10);
/// A gzip decompressor: 32 KiB of window and 10 KiB of state.
const GZIP_DECODER_BYTES: u64 = 48 << 10;
/// Locked memory of one thread's rings, by experience: an SQ and CQ of a few thousand entries and a table of
/// provided buffers. Since Linux 6.14 ring memory counts against memlock.
const RING_MEMLOCK_BYTES: u64 = MIB as u64;
/// Descriptors that are not connections: listeners, rings, bells, segments, the admin port's own connections.
pub const DESCRIPTORS_RESERVED: u64 = 512;

/// One shard's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPlace {
    /// Its number.
    pub shard: ShardId,
    /// The core its thread is pinned to.
    pub core: usize,
    /// The NUMA node of that core.
    pub numa_node: usize,
    /// The writer it hands its chunks to.
    pub writer: WriterId,
}

/// One writer's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterPlace {
    /// Its number.
    pub writer: WriterId,
    /// The core its thread is pinned to.
    pub core: usize,
    /// The NUMA node of that core.
    pub numa_node: usize,
}

/// Memory by the configured pools; everything else is small and does not grow with load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Log buffer of one shard.
    pub log_buffer_bytes: u64,
    /// All receive buffers of one shard.
    pub receive_bytes: u64,
    /// Pool of one shard.
    pub pool_bytes: u64,
    /// The three together, taken at the start.
    pub shard_bytes: u64,
    /// What all decompressors of one shard come to, if so many clients compress at the same time with the largest window.
    pub decoder_bytes: u64,
    /// The pools of all shards together.
    pub total_bytes: u64,
    /// What the host can give.
    pub usable_bytes: u64,
}

impl MemoryPlan {
    /// What `shards` shards come to if every decompressor is in use with the largest window.
    #[must_use]
    pub fn most_bytes(&self, shards: usize) -> u64 {
        self.total_bytes + self.decoder_bytes * shards as u64
    }
}

/// How the writer makes a group durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Every write carries `RWF_DSYNC`.
    Dsync,
    /// Plain writes, then one fdatasync(2) per group.
    Fdatasync,
}

impl SyncMode {
    /// The name used in configuration and in the plan.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dsync => "dsync",
            Self::Fdatasync => "fdatasync",
        }
    }
}

/// Everything a server is about to do, and on what.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The shards, ascending by number.
    pub shards: Vec<ShardPlace>,
    /// The writers, ascending by number.
    pub writers: Vec<WriterPlace>,
    /// The core of the control thread.
    pub control_core: usize,
    /// Memory of the pools.
    pub memory: MemoryPlan,
    /// Locked memory that registering every log buffer takes.
    pub memlock_needed_bytes: u64,
    /// Whether log buffers are to be registered with the writers' rings: false where memlock does not allow it, and
    /// every write then pins its pages anew.
    pub registered_buffers: bool,
    /// Whether the log is written with O_DIRECT.
    pub direct_io: bool,
    /// How groups become durable.
    pub sync: SyncMode,
    /// When a request is answered, unless it says otherwise.
    pub ack: AckLevel,
    /// Directory of the log.
    pub data: PathBuf,
    /// Addresses of the data port.
    pub listen: Vec<SocketAddr>,
    /// Address of the admin port.
    pub admin: SocketAddr,
    /// What a shard without work does.
    pub idle: IdlePolicy,
    /// Share of a shard's core to spend serving.
    pub target_utilization: f64,
    /// Requests in flight from which on others are refused, over all shards.
    pub normal_ccu: u64,
    /// Age of the oldest event not yet durable from which on less is admitted; zero: whatever it is.
    pub lag_target: Duration,
    /// What a request, a connection and a shard may cost, as this host allows it.
    pub limits: Limits,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// How long a server with a failed writer answers 503 before it exits.
    pub poison_linger: Duration,
    /// The host the plan is for.
    pub host: Host,
    /// Every setting in effect.
    pub settings: Vec<(&'static str, String)>,
    /// What could be better here, the worst first.
    pub advice: Vec<Advice>,
}

/// Why a configuration cannot be run on this host. All of them end with exit code 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// The setting and its value, as the operator gave it.
    pub given: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.given, self.problem)
    }
}

impl std::error::Error for PlanError {}

fn refuse<T>(config: &Config, key: &str, value: &dyn fmt::Display, problem: String) -> Result<T, PlanError> {
    Err(PlanError { given: config.sources.name(key, value), problem })
}

impl Plan {
    /// Fits a configuration to a host.
    ///
    /// # Errors
    /// When it names cores that are not there, needs more memory or descriptors or longer files than there may be, gives a writer
    /// nothing to write or a shard no request to serve, or lets a spinning shard share its core.
    pub fn make(config: &Config, host: &Host) -> Result<Self, PlanError> {
        let cores = assign_cores(config, host)?;
        let writers = place_writers(&cores, host);
        let shards = place_shards(config, &cores, &writers, host)?;
        let memory = plan_memory(config, host, shards.len())?;
        let threads = shards.len() + writers.len() + 1;
        let memlock_needed_bytes = memory.log_buffer_bytes * shards.len() as u64 + RING_MEMLOCK_BYTES * threads as u64;
        let device = host.filesystem.device.as_ref();
        let sync = match config.sync {
            SyncChoice::Dsync => SyncMode::Dsync,
            SyncChoice::Fdatasync => SyncMode::Fdatasync,
            SyncChoice::Auto if device.is_some_and(|device| device.writes_through()) => SyncMode::Dsync,
            SyncChoice::Auto => SyncMode::Fdatasync,
        };
        let limits = Limits { connections_per_shard_max: plan_connections(config, host)?, ..config.limits.clone() };
        let mut plan = Self {
            control_core: cores.control,
            memory,
            memlock_needed_bytes,
            registered_buffers: memlock_needed_bytes <= host.lockable_bytes(),
            // Where it could not be tried the writer tries, and falls back by itself.
            direct_io: host.filesystem.direct_io != Some(false),
            sync,
            ack: config.ack,
            data: config.data.clone(),
            listen: config.listen.clone(),
            admin: config.admin,
            idle: config.idle,
            target_utilization: config.target_utilization,
            normal_ccu: plan_normal_ccu(config, &limits, shards.len())?,
            lag_target: config.lag_target,
            limits,
            drain_timeout: config.drain_timeout,
            poison_linger: config.poison_linger,
            host: host.clone(),
            settings: config.effective(),
            advice: Vec::new(),
            shards,
            writers,
        };
        refuse_spinning_together(config, &plan)?;
        refuse_segments_beyond_the_file_limit(config, host)?;
        plan.advice = advice::for_plan(&plan, config);
        Ok(plan)
    }
}

/// `max_ccu` times the target: at least one request for each shard, because a shard that may serve nothing is none.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
fn plan_normal_ccu(config: &Config, limits: &Limits, shards: usize) -> Result<u64, PlanError> {
    let shards = shards as u64;
    let max_ccu = match config.max_ccu {
        0 => u64::from(limits.connections_per_shard_max) * shards,
        max_ccu => u64::from(max_ccu),
    };
    if max_ccu < shards {
        let problem = format!(
            "each of {shards} shards serves at least one request at a time; give at least {shards}, or --shards {max_ccu}"
        );
        return refuse(config, "max_ccu", &max_ccu, problem);
    }
    Ok(((max_ccu as f64 * config.target_utilization) as u64).max(shards))
}

/// The cores of each kind of thread. Shards' cores may be fewer than shards: they then take turns.
#[derive(Debug)]
struct Cores {
    shards: Vec<usize>,
    writers: Vec<usize>,
    control: usize,
}

/// What is named is taken as it is; what is not is chosen from what is left:
///
/// * one core: everything shares it;
/// * otherwise one writer, on the last core of the NUMA node its disk is attached to (without that knowledge, the last
///   core of all): core 0 takes most interrupts and timers by default, so the thread whose delay every ack waits for
///   stays away from it;
/// * control on the first writer's core: it wakes once a second, and a writer spends most of its time waiting for the
///   disk, while a millisecond taken from a shard is a millisecond of every connection on it;
/// * shards on all others.
fn assign_cores(config: &Config, host: &Host) -> Result<Cores, PlanError> {
    let all: Vec<usize> = host.cores.iter().map(|core| core.id).collect();
    let named = |cores: &Option<CoreList>| cores.as_ref().map(|cores| cores.0.clone());
    for (key, cores) in [
        ("shard_cores", named(&config.shard_cores)),
        ("writer_cores", named(&config.writer_cores)),
        ("control_core", config.control_core.map(|core| vec![core])),
    ] {
        let cores = cores.unwrap_or_default();
        if let Some(missing) = cores.iter().find(|core| !all.contains(core)) {
            let problem = format!(
                "core {missing} is offline, not there, or outside this process's cpuset; cores {} may be used",
                CoreList(all)
            );
            return refuse(config, key, &CoreList(cores), problem);
        }
    }
    let without =
        |taken: &[usize]| -> Vec<usize> { all.iter().copied().filter(|core| !taken.contains(core)).collect() };
    let or_all = |cores: Vec<usize>| if cores.is_empty() { all.clone() } else { cores };

    let home_node = host.filesystem.device.as_ref().and_then(|device| device.numa_node);
    let writers = named(&config.writer_cores).unwrap_or_else(|| {
        let free = or_all(without(&named(&config.shard_cores).unwrap_or_default()));
        let at_home = free.iter().rev().find(|core| Some(node_of(host, **core)) == home_node);
        vec![*at_home.or(free.last()).expect("a host has cores")]
    });
    let control = config.control_core.unwrap_or(writers[0]);
    let shards = named(&config.shard_cores).unwrap_or_else(|| {
        let mut taken = writers.clone();
        // A core given to control alone is kept free of shards, unless that leaves none.
        if without(&taken).len() > 1 {
            taken.push(control);
        }
        or_all(without(&taken))
    });
    Ok(Cores { shards, writers, control })
}

fn node_of(host: &Host, core: usize) -> usize {
    host.cores.iter().find(|known| known.id == core).map_or(0, |core| core.numa_node)
}

fn place_writers(cores: &Cores, host: &Host) -> Vec<WriterPlace> {
    let place = |(at, core): (usize, &usize)| WriterPlace {
        writer: WriterId(u16::try_from(at).expect("a core list has at most 1024 entries")),
        core: *core,
        numa_node: node_of(host, *core),
    };
    cores.writers.iter().enumerate().map(place).collect()
}

fn place_shards(
    config: &Config,
    cores: &Cores,
    writers: &[WriterPlace],
    host: &Host,
) -> Result<Vec<ShardPlace>, PlanError> {
    let mut shard_cores = cores.shards.clone();
    let count = match config.shards {
        ShardCount::Auto => shard_cores.len(),
        ShardCount::Exactly(count) => usize::from(count),
    };
    if count < shard_cores.len() && config.shard_cores.is_none() {
        // Fewer shards than cores: the writer's node first, then a physical core each before SMT siblings share one.
        let core = |id: &usize| host.cores.iter().find(|core| core.id == *id);
        let sibling_rank = |id: &usize| {
            let physical = core(id).map(|core| core.physical);
            cores.shards.iter().filter(|other| *other < id && core(other).map(|core| core.physical) == physical).count()
        };
        shard_cores.sort_by_key(|id| (node_of(host, *id) != writers[0].numa_node, sibling_rank(id), *id));
        shard_cores.truncate(count);
        shard_cores.sort_unstable();
    }
    if writers.len() > count {
        let problem =
            format!("{} writers for {count} shards leave some without work; name at most {count} cores", writers.len());
        return refuse(config, "writer_cores", &CoreList(cores.writers.clone()), problem);
    }
    let mut shards: Vec<ShardPlace> = Vec::with_capacity(count);
    for number in 0..count {
        let core = shard_cores[number % shard_cores.len()];
        let numa_node = node_of(host, core);
        // The least burdened writer, those of the shard's own node before others.
        let burden = |writer: &WriterPlace| shards.iter().filter(|shard| shard.writer == writer.writer).count();
        let writer = writers.iter().min_by_key(|writer| (writer.numa_node != numa_node, burden(writer), writer.writer));
        shards.push(ShardPlace {
            shard: ShardId(u16::try_from(number).expect("a shard count has 16 bits")),
            core,
            numa_node,
            writer: writer.expect("there is a writer").writer,
        });
    }
    for writer in writers {
        if !shards.iter().any(|shard| shard.writer == writer.writer) {
            let problem = format!(
                "the writer on core {} would have no shard: no shard is on its NUMA node {}; name a core on a node that has shards",
                writer.core, writer.numa_node
            );
            return refuse(config, "writer_cores", &CoreList(cores.writers.clone()), problem);
        }
    }
    Ok(shards)
}

fn plan_memory(config: &Config, host: &Host, shards: usize) -> Result<MemoryPlan, PlanError> {
    let receive_bytes = u64::from(config.receive_buffers) * u64::from(config.receive_buffer_bytes);
    let shard_bytes = config.log_buffer_bytes + receive_bytes + config.pool_bytes;
    let plan = MemoryPlan {
        log_buffer_bytes: config.log_buffer_bytes,
        receive_bytes,
        pool_bytes: config.pool_bytes,
        shard_bytes,
        decoder_bytes: (config.limits.decoders_per_shard_max + Limits::DECODERS_FOR_WHOLE_BODIES) as u64
            * ZSTD_DECODER_BYTES
            + (config.limits.gzip_decoders_per_shard_max() + Limits::DECODERS_FOR_WHOLE_BODIES) as u64
                * GZIP_DECODER_BYTES,
        total_bytes: shard_bytes * shards as u64,
        usable_bytes: host.usable_memory_bytes(),
    };
    let most_bytes = plan.most_bytes(shards);
    if most_bytes > plan.usable_bytes {
        let largest = [
            ("log_buffer_bytes", config.log_buffer_bytes),
            ("receive_buffer_bytes", receive_bytes),
            ("pool_bytes", config.pool_bytes),
            ("decoders_per_shard_max", plan.decoder_bytes),
        ];
        let (largest, _) = largest.into_iter().max_by_key(|(_, bytes)| *bytes).expect("four uses");
        let problem = format!(
            "{shards} shards of {} each need {}, but {} of memory can be had; fewer shards or a smaller {largest} would fit",
            ByteSize((shard_bytes + plan.decoder_bytes) & !((1 << 20) - 1)),
            ByteSize(most_bytes & !((1 << 20) - 1)),
            ByteSize(plan.usable_bytes)
        );
        return refuse(config, "shards", &config.shards, problem);
    }
    Ok(plan)
}

/// A ring's table of direct descriptors may be no longer than the process may open files (`io_register_files`
/// answers EMFILE). The default gives way to that; a number somebody chose does not.
fn plan_connections(config: &Config, host: &Host) -> Result<u32, PlanError> {
    let wanted = config.limits.connections_per_shard_max;
    let most = u32::try_from(host.open_files.saturating_sub(DESCRIPTORS_RESERVED)).unwrap_or(u32::MAX);
    if wanted <= most {
        return Ok(wanted);
    }
    if most == 0 || config.sources.is_set("connections_per_shard_max") {
        let problem = format!(
            "the limit of open files is {}; {} needed: run `ulimit -n {1}` before starting, or set LimitNOFILE={1} in \
             the systemd unit",
            host.open_files,
            u64::from(wanted) + DESCRIPTORS_RESERVED
        );
        return refuse(config, "connections_per_shard_max", &wanted, problem);
    }
    Ok(most)
}

/// Past RLIMIT_FSIZE the kernel kills a process that makes a file longer (setrlimit(2): SIGXFSZ).
fn refuse_segments_beyond_the_file_limit(config: &Config, host: &Host) -> Result<(), PlanError> {
    if config.segment_bytes <= host.file_bytes {
        return Ok(());
    }
    let problem = format!(
        "the limit on the length of a file is {}: run `ulimit -f unlimited` before starting, or set LimitFSIZE=infinity in the \
         systemd unit",
        ByteSize(host.file_bytes)
    );
    refuse(config, "segment_bytes", &ByteSize(config.segment_bytes), problem)
}

/// A thread that never sleeps starves whatever shares its core: a writer there would get its turn every few
/// milliseconds, and every ack would wait for it.
fn refuse_spinning_together(config: &Config, plan: &Plan) -> Result<(), PlanError> {
    if plan.idle != IdlePolicy::Spin {
        return Ok(());
    }
    for (at, shard) in plan.shards.iter().enumerate() {
        let with = if plan.shards[..at].iter().any(|other| other.core == shard.core) {
            "another shard"
        } else if plan.writers.iter().any(|writer| writer.core == shard.core) {
            "a writer"
        } else if plan.control_core == shard.core {
            "the control thread"
        } else {
            continue;
        };
        let problem = format!(
            "shard {} shares core {} with {with} and would starve it; say --idle adaptive, or give every shard a core of \
             its own by --shards and --shard-cores",
            shard.shard.0, shard.core
        );
        return refuse(config, "idle", &config.idle, problem);
    }
    Ok(())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
