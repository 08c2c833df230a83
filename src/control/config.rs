//! The configuration the server runs by: every setting with its value, and the combinations that are refused. Main
//! thread, at start; never changes afterwards.
//!
//! Knows nothing of the host: what the machine can do with it is `plan.rs`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::quantity::{ByteSize, CoreList, IdlePolicy, OrAuto, ShardCount, Span, SyncChoice};
use super::settings::{Settings, Sources};
use crate::base::{AckLevel, CHUNK_BYTES_MAX, EVENT_BYTES_MAX, HEAD_BYTES_MAX, KIB, Limits, MIB, PAGE_BYTES};
use crate::shard::arena::POOL_BYTES_MIN;

/// Segments smaller than this would spend more on rolling than on events, and must hold a few of the longest chunks.
const SEGMENT_BYTES_MIN: u64 = 8 * MIB as u64;
/// Keeps an offset within a segment far from any 32-bit count of pages, and a lost segment's cost bounded.
const SEGMENT_BYTES_MAX: u64 = 16 << 30;
const _: () = assert!(SEGMENT_BYTES_MIN >= 4 * CHUNK_BYTES_MAX as u64);
/// A log buffer holds one chunk that is being filled while others are being written.
const LOG_BUFFER_BYTES_MIN: u64 = 8 * MIB as u64;
/// io_uring refuses to register a single buffer longer than 1 GiB (`io_sqe_buffer_register`).
const LOG_BUFFER_BYTES_MAX: u64 = 1 << 30;
const _: () = assert!(LOG_BUFFER_BYTES_MIN >= 4 * CHUNK_BYTES_MAX as u64);
/// Entries of a provided-buffer ring: the kernel asks for a power of two of at most 2^15.
const RECEIVE_BUFFERS_MAX: u32 = 1 << 15;
/// How a setting shows that names no file.
const NO_FILE: &str = "none";

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Directory of the log.
    pub data: PathBuf,
    /// Addresses of the data port; at least one.
    pub listen: Vec<SocketAddr>,
    /// Address of the admin port.
    pub admin: SocketAddr,
    /// The key file; `None`: everybody may send.
    pub tenants: Option<PathBuf>,
    /// Tenants the log has numbers for.
    pub tenants_max: u32,
    /// Whether the data port may be reached from other hosts without API keys.
    pub allow_anonymous: bool,
    /// How many shards.
    pub shards: ShardCount,
    /// Cores for shards; `None`: the plan chooses.
    pub shard_cores: Option<CoreList>,
    /// Cores for writers, one each; `None`: the plan chooses.
    pub writer_cores: Option<CoreList>,
    /// Core for the control thread; `None`: the plan chooses.
    pub control_core: Option<usize>,
    /// What a shard without work does.
    pub idle: IdlePolicy,
    /// Share of a shard's core to spend serving, 0.05 to 1.
    pub target_utilization: f64,
    /// Requests in flight, of which the target's share is admitted; 0: as many as connections.
    pub max_ccu: u32,
    /// Age of the oldest event not yet durable from which on less is admitted; zero: whatever it is.
    pub lag_target: Duration,
    /// When a request is answered, unless it says otherwise.
    pub ack: AckLevel,
    /// How the writer syncs.
    pub sync: SyncChoice,
    /// Bytes of one segment, a multiple of 4 KiB.
    pub segment_bytes: u64,
    /// Segments prepared ahead.
    pub segments_ahead: u32,
    /// Bytes of log to keep per writer; `None`: all.
    pub retention_bytes: Option<u64>,
    /// Age up to which to keep events; `None`: for ever.
    pub retention_age: Option<Duration>,
    /// Bytes of the filesystem to leave free.
    pub reserve_bytes: u64,
    /// Bytes of one shard's log buffer, a multiple of 4 KiB.
    pub log_buffer_bytes: u64,
    /// Receive buffers of one shard, a power of two.
    pub receive_buffers: u32,
    /// Bytes of one receive buffer.
    pub receive_buffer_bytes: u32,
    /// Bytes of one shard's pool.
    pub pool_bytes: u64,
    /// What a request, a connection and a shard may cost.
    pub limits: Limits,
    /// How long a chunk may wait for company at most.
    pub group_hold_max: Duration,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// How long a server with a failed writer answers 503 before it exits.
    pub poison_linger: Duration,
    /// Where the values come from, for messages.
    pub sources: Sources,
}

/// Why there is no configuration to run by. All of them end with exit code 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The file cannot be read.
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The file sets what there is not.
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// What it sets.
        key: String,
        /// The setting whose name is close to it, if any is.
        nearest: Option<&'static str>,
    },
    /// The file is not TOML, or a value is not what its setting takes.
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Where in it, 1-based.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A value is out of its bounds, or does not go with another.
    Refused {
        /// The setting and its value, as the operator gave it.
        given: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, reason } => write!(f, "--config {}: {reason}", path.display()),
            Self::UnknownKey { path, key, nearest } => {
                write!(f, "{}: there is no setting '{key}'; ", path.display())?;
                match nearest {
                    Some(nearest) => write!(f, "did you mean '{nearest}'?"),
                    None => f.write_str("docs/CONFIGURATION.md lists all, none is in a section"),
                }
            }
            Self::Invalid { path, line, reason } => write!(f, "{} line {line}: {reason}", path.display()),
            Self::Refused { given, problem } => write!(f, "{given}: {problem}"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Default for Config {
    fn default() -> Self {
        Self::from_settings(Settings::default(), Sources::default())
    }
}

impl Config {
    /// Fills in defaults and refuses what cannot or must not be run.
    ///
    /// # Errors
    /// The first setting that is out of bounds or does not go with another.
    pub fn resolve(settings: Settings, sources: Sources) -> Result<Self, ConfigError> {
        let config = Self::from_settings(settings, sources);
        config.check_network()?;
        config.check_admission()?;
        config.check_log()?;
        config.check_memory()?;
        config.check_limits()?;
        Ok(config)
    }

    fn from_settings(settings: Settings, sources: Sources) -> Self {
        let limits = Limits::default();
        let bytes = |size: Option<ByteSize>, default: u64| size.map_or(default, |size| size.0);
        let time = |span: Option<Span>, default: Duration| span.map_or(default, |span| span.0);
        // A count beyond what this machine can index is as good as the largest: the checks refuse both.
        let count =
            |count: Option<u32>, default: usize| count.map_or(default, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let size = |size: Option<ByteSize>, default: usize| {
            size.map_or(default, |n| usize::try_from(n.0).unwrap_or(usize::MAX))
        };
        Self {
            data: settings.data.unwrap_or_else(|| "./tidegate-data".into()),
            listen: settings.listen.unwrap_or_else(|| vec![SocketAddr::from(([127, 0, 0, 1], 8080))]),
            admin: settings.admin.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8081))),
            // As `plan --json` shows it when there is none.
            tenants: settings.tenants.filter(|path| path.as_os_str() != NO_FILE),
            tenants_max: settings.tenants_max.unwrap_or(16_384),
            allow_anonymous: settings.allow_anonymous.unwrap_or(false),
            shards: settings.shards.unwrap_or_default(),
            shard_cores: settings.shard_cores.and_then(OrAuto::named),
            writer_cores: settings.writer_cores.and_then(OrAuto::named),
            control_core: settings.control_core.and_then(OrAuto::named),
            idle: settings.idle.unwrap_or_default(),
            target_utilization: settings.target_utilization.unwrap_or(0.67),
            max_ccu: settings.max_ccu.unwrap_or(0),
            lag_target: time(settings.lag_target, Duration::from_millis(100)),
            ack: settings.ack.unwrap_or_default(),
            sync: settings.sync.unwrap_or_default(),
            segment_bytes: bytes(settings.segment_bytes, 256 * MIB as u64),
            segments_ahead: settings.segments_ahead.unwrap_or(2),
            retention_bytes: settings.retention_bytes.map(|size| size.0).filter(|bytes| *bytes > 0),
            retention_age: settings.retention_age.map(|span| span.0).filter(|age| !age.is_zero()),
            reserve_bytes: bytes(settings.reserve_bytes, 1 << 30),
            log_buffer_bytes: bytes(settings.log_buffer_bytes, 32 * MIB as u64),
            receive_buffers: settings.receive_buffers.unwrap_or(1024),
            receive_buffer_bytes: u32::try_from(bytes(settings.receive_buffer_bytes, 16 * KIB as u64))
                .unwrap_or(u32::MAX),
            pool_bytes: bytes(settings.pool_bytes, 64 * MIB as u64),
            limits: Limits {
                body_bytes_max: bytes(settings.body_bytes_max, limits.body_bytes_max),
                event_bytes_max: size(settings.event_bytes_max, limits.event_bytes_max),
                head_bytes_max: size(settings.head_bytes_max, limits.head_bytes_max),
                json_depth_max: count(settings.json_depth_max, limits.json_depth_max),
                events_per_request_max: settings.events_per_request_max.unwrap_or(limits.events_per_request_max),
                connections_per_shard_max: settings
                    .connections_per_shard_max
                    .unwrap_or(limits.connections_per_shard_max),
                head_timeout: time(settings.head_timeout, limits.head_timeout),
                body_timeout: time(settings.body_timeout, limits.body_timeout),
                idle_timeout: time(settings.idle_timeout, limits.idle_timeout),
                send_timeout: time(settings.send_timeout, limits.send_timeout),
                decoders_per_shard_max: count(settings.decoders_per_shard_max, limits.decoders_per_shard_max),
            },
            group_hold_max: time(settings.group_hold_max, Duration::from_micros(500)),
            drain_timeout: time(settings.drain_timeout, Duration::from_secs(30)),
            poison_linger: time(settings.poison_linger, Duration::from_secs(5)),
            sources,
        }
    }

    fn check_network(&self) -> Result<(), ConfigError> {
        if self.listen.is_empty() {
            return self.refuse("listen", &"[]", "there must be an address to listen on, as in 127.0.0.1:8080");
        }
        for (at, address) in self.listen.iter().enumerate() {
            if self.listen[..at].contains(address) && address.port() != 0 {
                return self.refuse("listen", address, "the address is given twice; give it once");
            }
            if *address == self.admin && address.port() != 0 {
                return self.refuse("admin", address, "the data port has this address too; give them different ports");
            }
            if !address.ip().is_loopback() && self.tenants.is_none() && !self.allow_anonymous {
                return self.refuse(
                    "listen",
                    address,
                    "other hosts could store events without an API key; name a key file by --tenants ('tidegate key new' makes \
                     its entries), or listen on 127.0.0.1 or [::1] behind a proxy that authenticates, or say --allow-anonymous",
                );
            }
        }
        self.in_range("tenants_max", self.tenants_max.into(), 1, u16::MAX.into())
    }

    fn check_admission(&self) -> Result<(), ConfigError> {
        if !(0.05..=1.0).contains(&self.target_utilization) {
            return self.refuse(
                "target_utilization",
                &self.target_utilization,
                "it is the share of a core to spend serving: give 0.05 to 1",
            );
        }
        Ok(())
    }

    fn check_log(&self) -> Result<(), ConfigError> {
        self.in_size_range("segment_bytes", self.segment_bytes, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)?;
        self.whole_pages("segment_bytes", self.segment_bytes)?;
        self.in_range("segments_ahead", u64::from(self.segments_ahead), 2, 64)?;
        if let Some(bytes) = self.retention_bytes {
            // Less would retire the segment that is being written.
            let least = self.segment_bytes * (u64::from(self.segments_ahead) + 2);
            if bytes < least {
                return self.refuse(
                    "retention_bytes",
                    &ByteSize(bytes),
                    &format!(
                        "with segment_bytes = {} and segments_ahead = {} the log needs at least {}; give that or more, \
                         or smaller segments, or 0 to keep all",
                        ByteSize(self.segment_bytes),
                        self.segments_ahead,
                        ByteSize(least)
                    ),
                );
            }
        }
        Ok(())
    }

    fn check_memory(&self) -> Result<(), ConfigError> {
        self.in_size_range("log_buffer_bytes", self.log_buffer_bytes, LOG_BUFFER_BYTES_MIN, LOG_BUFFER_BYTES_MAX)?;
        self.whole_pages("log_buffer_bytes", self.log_buffer_bytes)?;
        if !self.receive_buffers.is_power_of_two() || !(8..=RECEIVE_BUFFERS_MAX).contains(&self.receive_buffers) {
            return self.refuse(
                "receive_buffers",
                &self.receive_buffers,
                "the kernel takes a power of two of buffers: give 8, 16, … or 32768",
            );
        }
        self.in_size_range("receive_buffer_bytes", u64::from(self.receive_buffer_bytes), KIB as u64, MIB as u64)?;
        self.in_size_range("pool_bytes", self.pool_bytes, POOL_BYTES_MIN as u64, 1 << 40)
    }

    fn check_limits(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        self.in_size_range("event_bytes_max", limits.event_bytes_max as u64, 64, EVENT_BYTES_MAX as u64)?;
        self.in_size_range("head_bytes_max", limits.head_bytes_max as u64, 512, HEAD_BYTES_MAX as u64)?;
        self.in_size_range("body_bytes_max", limits.body_bytes_max, 64, 1 << 40)?;
        self.in_range("json_depth_max", limits.json_depth_max as u64, 1, 1024)?;
        self.in_range("events_per_request_max", u64::from(limits.events_per_request_max), 1, u64::from(u32::MAX))?;
        self.in_range("connections_per_shard_max", u64::from(limits.connections_per_shard_max), 1, 1_000_000)?;
        self.in_range("decoders_per_shard_max", limits.decoders_per_shard_max as u64, 1, 4096)?;
        for (key, time) in [
            ("head_timeout", limits.head_timeout),
            ("body_timeout", limits.body_timeout),
            ("idle_timeout", limits.idle_timeout),
            ("send_timeout", limits.send_timeout),
        ] {
            if time < Duration::from_millis(1) || time > Duration::from_secs(86_400) {
                return self.refuse(
                    key,
                    &Span(time),
                    "a connection needs some time and must not wait for ever: give 1ms to 1d",
                );
            }
        }
        Ok(())
    }

    fn in_size_range(&self, key: &'static str, bytes: u64, least: u64, most: u64) -> Result<(), ConfigError> {
        if (least..=most).contains(&bytes) {
            return Ok(());
        }
        self.refuse(key, &ByteSize(bytes), &format!("give {} to {}", ByteSize(least), ByteSize(most)))
    }

    fn in_range(&self, key: &'static str, n: u64, least: u64, most: u64) -> Result<(), ConfigError> {
        if (least..=most).contains(&n) {
            return Ok(());
        }
        self.refuse(key, &n, &format!("give {least} to {most}"))
    }

    fn whole_pages(&self, key: &'static str, bytes: u64) -> Result<(), ConfigError> {
        if bytes.is_multiple_of(PAGE_BYTES as u64) {
            return Ok(());
        }
        self.refuse(key, &ByteSize(bytes), "O_DIRECT needs whole pages: give a multiple of 4KiB")
    }

    fn refuse(&self, key: &'static str, value: &dyn fmt::Display, problem: &str) -> Result<(), ConfigError> {
        Err(ConfigError::Refused { given: self.sources.name(key, value), problem: problem.to_owned() })
    }

    /// Every setting in effect as a text that reads back as the same value, in the order of the documentation.
    #[must_use]
    pub fn effective(&self) -> Vec<(&'static str, String)> {
        let or_auto = |cores: &Option<CoreList>| cores.as_ref().map_or("auto".to_owned(), CoreList::to_string);
        let limits = &self.limits;
        vec![
            ("data", self.data.display().to_string()),
            ("listen", self.listen.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")),
            ("admin", self.admin.to_string()),
            ("tenants", self.tenants.as_ref().map_or(NO_FILE.to_owned(), |path| path.display().to_string())),
            ("tenants_max", self.tenants_max.to_string()),
            ("allow_anonymous", self.allow_anonymous.to_string()),
            ("shards", self.shards.to_string()),
            ("shard_cores", or_auto(&self.shard_cores)),
            ("writer_cores", or_auto(&self.writer_cores)),
            ("control_core", self.control_core.map_or("auto".to_owned(), |core| core.to_string())),
            ("idle", self.idle.to_string()),
            ("target_utilization", self.target_utilization.to_string()),
            ("max_ccu", self.max_ccu.to_string()),
            ("lag_target", Span(self.lag_target).to_string()),
            ("ack", self.ack.to_string()),
            ("sync", self.sync.to_string()),
            ("segment_bytes", ByteSize(self.segment_bytes).to_string()),
            ("segments_ahead", self.segments_ahead.to_string()),
            ("retention_bytes", ByteSize(self.retention_bytes.unwrap_or(0)).to_string()),
            ("retention_age", Span(self.retention_age.unwrap_or_default()).to_string()),
            ("reserve_bytes", ByteSize(self.reserve_bytes).to_string()),
            ("log_buffer_bytes", ByteSize(self.log_buffer_bytes).to_string()),
            ("receive_buffers", self.receive_buffers.to_string()),
            ("receive_buffer_bytes", ByteSize(u64::from(self.receive_buffer_bytes)).to_string()),
            ("pool_bytes", ByteSize(self.pool_bytes).to_string()),
            ("body_bytes_max", ByteSize(limits.body_bytes_max).to_string()),
            ("event_bytes_max", ByteSize(limits.event_bytes_max as u64).to_string()),
            ("head_bytes_max", ByteSize(limits.head_bytes_max as u64).to_string()),
            ("json_depth_max", limits.json_depth_max.to_string()),
            ("events_per_request_max", limits.events_per_request_max.to_string()),
            ("connections_per_shard_max", limits.connections_per_shard_max.to_string()),
            ("head_timeout", Span(limits.head_timeout).to_string()),
            ("body_timeout", Span(limits.body_timeout).to_string()),
            ("idle_timeout", Span(limits.idle_timeout).to_string()),
            ("send_timeout", Span(limits.send_timeout).to_string()),
            ("decoders_per_shard_max", limits.decoders_per_shard_max.to_string()),
            ("group_hold_max", Span(self.group_hold_max).to_string()),
            ("drain_timeout", Span(self.drain_timeout).to_string()),
            ("poison_linger", Span(self.poison_linger).to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::settings::{KEYS, environment_name, flag_name, parse_file};
    use super::*;

    fn resolve(text: &str) -> Result<Config, ConfigError> {
        let path = Path::new("t.toml");
        let settings = parse_file(text, path).unwrap();
        let sources = Sources::of_file(&settings, path);
        Config::resolve(settings, sources)
    }

    #[test]
    fn the_defaults_are_allowed_and_those_of_the_contract() {
        let config = Config::resolve(Settings::default(), Sources::default()).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.listen, ["127.0.0.1:8080".parse().unwrap()]);
        assert_eq!(config.admin, "127.0.0.1:8081".parse().unwrap());
        assert_eq!(config.data, Path::new("./tidegate-data"));
        assert_eq!((config.ack, config.idle), (AckLevel::Durable, IdlePolicy::Adaptive));
        assert_eq!(config.limits, Limits::default());
        assert_eq!((config.retention_bytes, config.retention_age), (None, None));
        assert_eq!(config.reserve_bytes, 1 << 30);
    }

    #[test]
    fn every_setting_is_effective_and_a_set_one_is_the_value_given() {
        let keys: Vec<_> = Config::default().effective().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, KEYS);
        // Each differs from its default, so a field wired to the wrong setting shows.
        let text = r#"
            data = "/log"
            listen = "127.0.0.1:1"
            admin = "127.0.0.1:2"
            tenants = "keys.toml"
            tenants_max = 33
            allow_anonymous = true
            shards = 3
            shard_cores = "4-6"
            writer_cores = "7"
            control_core = 8
            idle = "spin"
            target_utilization = 0.5
            max_ccu = 9
            lag_target = "10ms"
            ack = "written"
            sync = "dsync"
            segment_bytes = "9MiB"
            segments_ahead = 3
            retention_bytes = "10GiB"
            retention_age = "11h"
            reserve_bytes = "12MiB"
            log_buffer_bytes = "13MiB"
            receive_buffers = 16
            receive_buffer_bytes = "17KiB"
            pool_bytes = "18MiB"
            body_bytes_max = "19MiB"
            event_bytes_max = "20KiB"
            head_bytes_max = "2KiB"
            json_depth_max = 22
            events_per_request_max = 23
            connections_per_shard_max = 24
            head_timeout = "25s"
            body_timeout = "26s"
            idle_timeout = "27s"
            send_timeout = "28s"
            decoders_per_shard_max = 29
            group_hold_max = "30us"
            drain_timeout = "31s"
            poison_linger = "32s"
        "#;
        let given: toml::Table = text.parse().unwrap();
        let effective = resolve(text).unwrap().effective();
        let defaults = Config::default().effective();
        for ((key, value), (_, default)) in effective.iter().zip(&defaults) {
            assert_eq!(*value, given[*key].to_string().trim_matches('"'), "{key}");
            assert_ne!(value, default, "{key}");
        }
    }

    #[test]
    fn every_refusal_names_the_setting_the_value_and_the_fix() {
        for (text, message) in [
            ("listen = []", "listen = [] in t.toml: there must be an address to listen on, as in 127.0.0.1:8080"),
            (
                "listen = [\"[::1]:1\", \"[::1]:1\"]",
                "listen = [::1]:1 in t.toml: the address is given twice; give it once",
            ),
            (
                "admin = \"127.0.0.1:8080\"",
                "admin = 127.0.0.1:8080 in t.toml: the data port has this address too; give them different ports",
            ),
            (
                "target_utilization = 1.5",
                "target_utilization = 1.5 in t.toml: it is the share of a core to spend serving: give 0.05 to 1",
            ),
            (
                "target_utilization = nan",
                "target_utilization = NaN in t.toml: it is the share of a core to spend serving: give 0.05 to 1",
            ),
            ("segment_bytes = \"1MiB\"", "segment_bytes = 1MiB in t.toml: give 8MiB to 16GiB"),
            (
                "segment_bytes = 8388609",
                "segment_bytes = 8388609 in t.toml: O_DIRECT needs whole pages: give a multiple of 4KiB",
            ),
            ("tenants_max = 70000", "tenants_max = 70000 in t.toml: give 1 to 65535"),
            ("segments_ahead = 1", "segments_ahead = 1 in t.toml: give 2 to 64"),
            ("log_buffer_bytes = \"2GiB\"", "log_buffer_bytes = 2GiB in t.toml: give 8MiB to 1GiB"),
            (
                "receive_buffers = 1000",
                "receive_buffers = 1000 in t.toml: the kernel takes a power of two of buffers: give 8, 16, … or 32768",
            ),
            ("receive_buffer_bytes = 100", "receive_buffer_bytes = 100 in t.toml: give 1KiB to 1MiB"),
            ("pool_bytes = \"8191KiB\"", "pool_bytes = 8191KiB in t.toml: give 8MiB to 1TiB"),
            ("event_bytes_max = \"2MiB\"", "event_bytes_max = 2MiB in t.toml: give 64 to 1MiB"),
            ("head_bytes_max = \"32KiB\"", "head_bytes_max = 32KiB in t.toml: give 512 to 16KiB"),
            ("body_bytes_max = 0", "body_bytes_max = 0 in t.toml: give 64 to 1TiB"),
            ("json_depth_max = 0", "json_depth_max = 0 in t.toml: give 1 to 1024"),
            ("events_per_request_max = 0", "events_per_request_max = 0 in t.toml: give 1 to 4294967295"),
            ("connections_per_shard_max = 0", "connections_per_shard_max = 0 in t.toml: give 1 to 1000000"),
            ("decoders_per_shard_max = 0", "decoders_per_shard_max = 0 in t.toml: give 1 to 4096"),
            (
                "idle_timeout = \"2d\"",
                "idle_timeout = 2d in t.toml: a connection needs some time and must not wait for ever: give 1ms to 1d",
            ),
            (
                "retention_bytes = \"256MiB\"",
                "retention_bytes = 256MiB in t.toml: with segment_bytes = 256MiB and segments_ahead = 2 the log needs \
                 at least 1GiB; give that or more, or smaller segments, or 0 to keep all",
            ),
        ] {
            assert_eq!(resolve(text).map(|_| ()).map_err(|error| error.to_string()), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn other_hosts_are_let_in_only_when_told_so() {
        for address in ["0.0.0.0:8080", "192.0.2.1:8080", "[::]:8080"] {
            let refused = resolve(&format!("listen = \"{address}\"")).unwrap_err().to_string();
            assert!(refused.contains(address) && refused.contains("--allow-anonymous"), "{refused}");
            assert!(resolve(&format!("listen = \"{address}\"\nallow_anonymous = true")).is_ok());
            assert!(resolve(&format!("listen = \"{address}\"\ntenants = \"keys.toml\"")).is_ok());
            assert!(resolve(&format!("listen = \"{address}\"\ntenants = \"none\"")).is_err());
        }
        for address in ["127.0.0.1:8080", "127.1.2.3:8080", "[::1]:8080"] {
            assert!(resolve(&format!("listen = \"{address}\"")).is_ok(), "{address}");
        }
    }

    #[test]
    fn the_documentation_lists_every_setting_with_its_default() {
        let page =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFIGURATION.md")).unwrap();
        let defaults = Config::default().effective();
        for (key, default) in &defaults {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{key}` |")));
            let row = row.unwrap_or_else(|| panic!("{key} is not documented"));
            for part in [flag_name(key), environment_name(key), default.clone()] {
                assert!(row.contains(&format!("| `{part}` |")), "{key}: {part} is not in {row}");
            }
        }
        let rows = page.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, defaults.len(), "a row for a setting that is not there");
    }
}
