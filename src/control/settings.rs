//! What may be set, by whom: one optional value for each flag, environment variable and file key. Main thread, at start.
//!
//! A setting has one name: `shard_cores` is `--shard-cores`, `TIDEGATE_SHARD_CORES` and the file's `shard_cores`. This
//! file says how each is read and which source wins; what the values mean together is `config.rs`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use serde::{Deserialize, Deserializer, de};

use super::config::ConfigError;
use super::quantity::{
    ByteSize, CoreList, IdlePolicy, OrAuto, ShardCount, Span, SyncChoice, deserialize_ack_level, parse_ack_level,
    parse_address,
};
use crate::base::AckLevel;

/// Prefix of every environment variable.
pub const ENVIRONMENT_PREFIX: &str = "TIDEGATE_";
/// Jaro similarity from which an unknown key is taken for a typo of a known one: `shrads` and `shards` have 0.94,
/// `server` and its closest setting 0.64.
const TYPO_CLOSENESS_MIN: f64 = 0.8;

/// Every setting, as far as one source gives it.
#[derive(Clone, Debug, Default, PartialEq, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Directory of the log; made if it is not there [default: ./tidegate-data]
    #[arg(long, env = "TIDEGATE_DATA", value_name = "DIR")]
    #[serde(deserialize_with = "path")]
    pub data: Option<PathBuf>,
    /// Address of the data port; may be given more than once [default: 127.0.0.1:8080]
    #[arg(long, env = "TIDEGATE_LISTEN", value_name = "ADDR", value_delimiter = ',', value_parser = parse_address)]
    #[serde(deserialize_with = "one_or_more_addresses")]
    pub listen: Option<Vec<SocketAddr>>,
    /// Address of the admin port [default: 127.0.0.1:8081]
    #[arg(long, env = "TIDEGATE_ADMIN", value_name = "ADDR", value_parser = parse_address)]
    #[serde(deserialize_with = "one_address")]
    pub admin: Option<SocketAddr>,
    /// Key file: who may send, and how much; without one everybody may [default: none]
    #[arg(long, env = "TIDEGATE_TENANTS", value_name = "FILE")]
    #[serde(deserialize_with = "path")]
    pub tenants: Option<PathBuf>,
    /// Tenants the log has numbers for, 1 to 65535, counting those that have left [default: 16384]
    #[arg(long, env = "TIDEGATE_TENANTS_MAX", value_name = "N")]
    pub tenants_max: Option<u32>,
    /// Listen beyond loopback although no API keys are configured [default: false]
    #[arg(
        long, env = "TIDEGATE_ALLOW_ANONYMOUS", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = clap::builder::BoolishValueParser::new()
    )]
    pub allow_anonymous: Option<bool>,

    /// Shards to run: auto or a number [default: auto]
    #[arg(long, env = "TIDEGATE_SHARDS", value_name = "N", help_heading = "Cores")]
    pub shards: Option<ShardCount>,
    /// Cores the shards run on, as in 0,2-5; auto: all but the writer's [default: auto]
    #[arg(long, env = "TIDEGATE_SHARD_CORES", value_name = "LIST", help_heading = "Cores")]
    pub shard_cores: Option<OrAuto<CoreList>>,
    /// Cores the writers run on, one writer for each; auto: the last core [default: auto]
    #[arg(long, env = "TIDEGATE_WRITER_CORES", value_name = "LIST", help_heading = "Cores")]
    pub writer_cores: Option<OrAuto<CoreList>>,
    /// Core of the control thread; auto: the first writer's [default: auto]
    #[arg(long, env = "TIDEGATE_CONTROL_CORE", value_name = "N", help_heading = "Cores")]
    pub control_core: Option<OrAuto<usize>>,
    /// What a shard without work does: adaptive, spin or park [default: adaptive]
    #[arg(long, env = "TIDEGATE_IDLE", value_name = "POLICY", help_heading = "Cores")]
    pub idle: Option<IdlePolicy>,

    /// Share of a shard's core to spend serving, 0.05 to 1; beyond it is 503, at 1 nothing is [default: 0.67]
    #[arg(long, env = "TIDEGATE_TARGET_UTILIZATION", value_name = "SHARE", help_heading = "Admission")]
    pub target_utilization: Option<f64>,
    /// Requests in flight; from this times the target on, more are 503; 0: as many as connections [default: 0]
    #[arg(long, env = "TIDEGATE_MAX_CCU", value_name = "N", help_heading = "Admission")]
    pub max_ccu: Option<u32>,
    /// Age of the oldest event not yet durable from which on less is let in; 0 turns it off [default: 100ms]
    #[arg(long, env = "TIDEGATE_LAG_TARGET", value_name = "TIME", help_heading = "Admission")]
    pub lag_target: Option<Span>,

    /// When a request is answered: durable, written or memory; X-Ack overrides it [default: durable]
    #[arg(long, env = "TIDEGATE_ACK", value_name = "LEVEL", value_parser = parse_ack_level, help_heading = "Log")]
    #[serde(deserialize_with = "deserialize_ack_level")]
    pub ack: Option<AckLevel>,
    /// How a group becomes durable: auto, dsync or fdatasync [default: auto]
    #[arg(long, env = "TIDEGATE_SYNC", value_name = "MODE", help_heading = "Log")]
    pub sync: Option<SyncChoice>,
    /// Bytes of one segment file, 8MiB to 16GiB [default: 256MiB]
    #[arg(long, env = "TIDEGATE_SEGMENT_BYTES", value_name = "SIZE", help_heading = "Log")]
    pub segment_bytes: Option<ByteSize>,
    /// Prepared segments to keep ready, 2 to 64 [default: 2]
    #[arg(long, env = "TIDEGATE_SEGMENTS_AHEAD", value_name = "N", help_heading = "Log")]
    pub segments_ahead: Option<u32>,
    /// Bytes of log to keep per writer, oldest segments go first; 0 keeps all [default: 0]
    #[arg(long, env = "TIDEGATE_RETENTION_BYTES", value_name = "SIZE", help_heading = "Log")]
    pub retention_bytes: Option<ByteSize>,
    /// Age up to which to keep events, whole segments go; 0 keeps all [default: 0]
    #[arg(long, env = "TIDEGATE_RETENTION_AGE", value_name = "TIME", help_heading = "Log")]
    pub retention_age: Option<Span>,
    /// Bytes of the filesystem to leave free; then requests are refused with 507 [default: 1GiB]
    #[arg(long, env = "TIDEGATE_RESERVE_BYTES", value_name = "SIZE", help_heading = "Log")]
    pub reserve_bytes: Option<ByteSize>,

    /// Log buffer of one shard, 8MiB to 1GiB [default: 32MiB]
    #[arg(long, env = "TIDEGATE_LOG_BUFFER_BYTES", value_name = "SIZE", help_heading = "Memory")]
    pub log_buffer_bytes: Option<ByteSize>,
    /// Receive buffers of one shard, a power of two from 8 to 32768 [default: 1024]
    #[arg(long, env = "TIDEGATE_RECEIVE_BUFFERS", value_name = "N", help_heading = "Memory")]
    pub receive_buffers: Option<u32>,
    /// Bytes of one receive buffer, 1KiB to 1MiB [default: 16KiB]
    #[arg(long, env = "TIDEGATE_RECEIVE_BUFFER_BYTES", value_name = "SIZE", help_heading = "Memory")]
    pub receive_buffer_bytes: Option<ByteSize>,
    /// Pool of one shard for spanning events and answers, from 8MiB on [default: 64MiB]
    #[arg(long, env = "TIDEGATE_POOL_BYTES", value_name = "SIZE", help_heading = "Memory")]
    pub pool_bytes: Option<ByteSize>,

    /// Bytes of one request body after decompression; more is 413 [default: 16MiB]
    #[arg(long, env = "TIDEGATE_BODY_BYTES_MAX", value_name = "SIZE", help_heading = "Limits")]
    pub body_bytes_max: Option<ByteSize>,
    /// Bytes of one event, 64 to 1MiB; more is 413 or an error entry [default: 1MiB]
    #[arg(long, env = "TIDEGATE_EVENT_BYTES_MAX", value_name = "SIZE", help_heading = "Limits")]
    pub event_bytes_max: Option<ByteSize>,
    /// Bytes of request line and headers, 512 to 16KiB; more is 431 [default: 16KiB]
    #[arg(long, env = "TIDEGATE_HEAD_BYTES_MAX", value_name = "SIZE", help_heading = "Limits")]
    pub head_bytes_max: Option<ByteSize>,
    /// Nesting depth of one event, 1 to 1024; more is INVALID_JSON [default: 128]
    #[arg(long, env = "TIDEGATE_JSON_DEPTH_MAX", value_name = "N", help_heading = "Limits")]
    pub json_depth_max: Option<u32>,
    /// Events in one request; more is BATCH_TOO_LARGE [default: 1000000]
    #[arg(long, env = "TIDEGATE_EVENTS_PER_REQUEST_MAX", value_name = "N", help_heading = "Limits")]
    pub events_per_request_max: Option<u32>,
    /// Open connections of one shard, 1 to 1000000; more are closed [default: 16384]
    #[arg(long, env = "TIDEGATE_CONNECTIONS_PER_SHARD_MAX", value_name = "N", help_heading = "Limits")]
    pub connections_per_shard_max: Option<u32>,
    /// From a request's first byte to the end of its head; later is 408 [default: 10s]
    #[arg(long, env = "TIDEGATE_HEAD_TIMEOUT", value_name = "TIME", help_heading = "Limits")]
    pub head_timeout: Option<Span>,
    /// Longest wait for the next byte of a body; later is 408 [default: 30s]
    #[arg(long, env = "TIDEGATE_BODY_TIMEOUT", value_name = "TIME", help_heading = "Limits")]
    pub body_timeout: Option<Span>,
    /// Keep-alive wait for the next request; later is a close [default: 75s]
    #[arg(long, env = "TIDEGATE_IDLE_TIMEOUT", value_name = "TIME", help_heading = "Limits")]
    pub idle_timeout: Option<Span>,
    /// Longest wait for a peer to take answers; later is a close [default: 30s]
    #[arg(long, env = "TIDEGATE_SEND_TIMEOUT", value_name = "TIME", help_heading = "Limits")]
    pub send_timeout: Option<Span>,
    /// zstd decompressors of one shard, 1 to 4096, and sixteen times as many for gzip; beyond them is 503 [default: 16]
    #[arg(long, env = "TIDEGATE_DECODERS_PER_SHARD_MAX", value_name = "N", help_heading = "Limits")]
    pub decoders_per_shard_max: Option<u32>,

    /// Longest wait of a short chunk for the requests of other clients; 0s turns it off [default: 500us]
    #[arg(long, env = "TIDEGATE_GROUP_HOLD_MAX", value_name = "TIME", help_heading = "Limits")]
    pub group_hold_max: Option<Span>,

    /// How long a drain may take before the server stops anyway [default: 30s]
    #[arg(long, env = "TIDEGATE_DRAIN_TIMEOUT", value_name = "TIME", help_heading = "Shutdown")]
    pub drain_timeout: Option<Span>,
    /// How long a server whose writer failed keeps answering 503 before it exits [default: 5s]
    #[arg(long, env = "TIDEGATE_POISON_LINGER", value_name = "TIME", help_heading = "Shutdown")]
    pub poison_linger: Option<Span>,
}

/// Does something with the list of all settings, so that a new one is named in one place besides its declaration (and
/// the compiler asks for it: the struct literal in `over` must be complete).
macro_rules! for_each_setting {
    ($apply:ident) => {
        $apply! {
            data listen admin tenants tenants_max allow_anonymous
            shards shard_cores writer_cores control_core idle
            target_utilization max_ccu lag_target
            ack sync segment_bytes segments_ahead retention_bytes retention_age reserve_bytes
            log_buffer_bytes receive_buffers receive_buffer_bytes pool_bytes
            body_bytes_max event_bytes_max head_bytes_max json_depth_max events_per_request_max
            connections_per_shard_max head_timeout body_timeout idle_timeout send_timeout decoders_per_shard_max
            group_hold_max drain_timeout poison_linger
        }
    };
}

macro_rules! implement_layers {
    ($($key:ident)*) => {
        /// Names of all settings, as the file spells them.
        pub const KEYS: &[&str] = &[$(stringify!($key)),*];

        impl Settings {
            /// What is set here, and where nothing is, what `below` sets.
            #[must_use]
            pub fn over(self, below: Self) -> Self {
                Self { $($key: self.$key.or(below.$key)),* }
            }

            fn keys_set(&self) -> Vec<&'static str> {
                let mut keys = Vec::new();
                $(if self.$key.is_some() { keys.push(stringify!($key)); })*
                keys
            }
        }
    };
}

for_each_setting!(implement_layers);

/// Where a setting's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Flag,
    Environment,
    File(PathBuf),
}

/// Where each value comes from, so that a refusal can name what the operator wrote. Settings at their default are
/// absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(BTreeMap<&'static str, Source>);

impl Sources {
    /// All that `settings` sets comes from the file at `path`.
    #[must_use]
    pub fn of_file(settings: &Settings, path: &Path) -> Self {
        Self(settings.keys_set().into_iter().map(|key| (key, Source::File(path.to_owned()))).collect())
    }

    /// Says what was given the way it was given: `--shards 0`, `TIDEGATE_SHARDS=0`, `shards = 0 in tidegate.toml`, or
    /// `shards = auto (the default)`.
    #[must_use]
    pub fn name(&self, key: &str, value: &dyn fmt::Display) -> String {
        match self.0.get(key) {
            Some(Source::Flag) => format!("{} {value}", flag_name(key)),
            Some(Source::Environment) => format!("{}={value}", environment_name(key)),
            Some(Source::File(path)) => format!("{key} = {value} in {}", path.display()),
            None => format!("{key} = {value} (the default)"),
        }
    }

    /// Whether somebody set it.
    #[must_use]
    pub fn is_set(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }
}

/// The flag of a setting: `shard_cores` → `--shard-cores`.
#[must_use]
pub fn flag_name(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

/// The environment variable of a setting: `shard_cores` → `TIDEGATE_SHARD_CORES`.
#[must_use]
pub fn environment_name(key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", key.to_ascii_uppercase())
}

/// Lays flags and environment (as clap read them) over the file, if one is named.
///
/// # Errors
/// When the file cannot be read, is not TOML, or sets what there is not.
pub fn merge(given: Settings, matches: &ArgMatches, file: Option<&Path>) -> Result<(Settings, Sources), ConfigError> {
    let mut sources = BTreeMap::new();
    let below = match file {
        Some(path) => {
            let settings = read_file(path)?;
            sources = Sources::of_file(&settings, path).0;
            settings
        }
        None => Settings::default(),
    };
    for key in given.keys_set() {
        let source = match matches.value_source(key) {
            Some(ValueSource::EnvVariable) => Source::Environment,
            _ => Source::Flag,
        };
        sources.insert(key, source);
    }
    Ok((given.over(below), Sources(sources)))
}

fn read_file(path: &Path) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), reason: error.to_string() })?;
    parse_file(&text, path)
}

/// Reads a configuration file's text; `path` is only for messages.
///
/// # Errors
/// When the text is not TOML, or sets what there is not, or a value is not what the setting takes.
pub fn parse_file(text: &str, path: &Path) -> Result<Settings, ConfigError> {
    let invalid = |error: &toml::de::Error| {
        let before = error.span().map_or("", |span| &text[..span.start.min(text.len())]);
        ConfigError::Invalid {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            reason: error.message().replace('\n', " "),
        }
    };
    // Unknown keys are looked for before values are read: a typo deserves the name it is close to, not a list of 40.
    let table: toml::Table = text.parse().map_err(|error| invalid(&error))?;
    if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let closeness = |known: &str| strsim::jaro(known, key);
        let nearest = KEYS.iter().copied().max_by(|a, b| closeness(a).total_cmp(&closeness(b)));
        return Err(ConfigError::UnknownKey {
            path: path.to_owned(),
            key: key.clone(),
            nearest: nearest.filter(|known| closeness(known) >= TYPO_CLOSENESS_MIN),
        });
    }
    toml::from_str(text).map_err(|error| invalid(&error))
}

/// Names in the environment that begin like ours and are no setting: most likely typos, to be warned of. They are not
/// refused, because an orchestrator puts some there: Kubernetes sets `TIDEGATE_PORT=tcp://…` and `TIDEGATE_SERVICE_HOST`
/// for every service called tidegate.
#[must_use]
pub fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    let ours = |name: &String| {
        name == "TIDEGATE_CONFIG"
            || name.starts_with("TIDEGATE_PORT")
            || name.starts_with("TIDEGATE_SERVICE_")
            || KEYS.iter().any(|key| environment_name(key) == *name)
    };
    let mut unknown: Vec<_> = names.filter(|name| name.starts_with(ENVIRONMENT_PREFIX) && !ours(name)).collect();
    unknown.sort();
    unknown
}

/// What is wrong with a value of the environment, under the name of its variable: clap names the flag, whoever gave the
/// value. `None` if it was not the environment that `error` is about. `arguments` are the command line.
#[must_use]
pub fn refused_variable(error: &clap::Error, arguments: &[OsString]) -> Option<ConfigError> {
    let is_given = |flag: &str| arguments.iter().any(|given| given.to_string_lossy().split('=').next() == Some(flag));
    if error.kind() == ErrorKind::InvalidUtf8 && arguments.iter().all(|argument| argument.to_str().is_some()) {
        // The one error that says nothing of what it is about. Paths may be any bytes.
        let names = KEYS.iter().filter(|key| !["data", "tenants"].contains(*key) && !is_given(&flag_name(key)));
        let wrong = |name: &String| std::env::var_os(name).is_some_and(|value| value.to_str().is_none());
        let given = names.map(|key| environment_name(key)).find(wrong)?;
        return Some(ConfigError::Refused { given, problem: "the value is not UTF-8".to_owned() });
    }
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return None };
    // As in `--shards <N>` and `--allow-anonymous[=<BOOL>]`.
    let flag = argument.split([' ', '[']).next().filter(|flag| !is_given(flag))?;
    let name = environment_name(&flag.trim_start_matches('-').replace('-', "_"));
    let value = std::env::var_os(&name)?;
    let reason = std::error::Error::source(error).map(ToString::to_string);
    Some(ConfigError::Refused {
        given: format!("{name}={}", value.display()),
        problem: reason.unwrap_or_else(|| format!("there must be a value, or no {name} at all")),
    })
}

fn one_or_more_addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<SocketAddr>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected ADDRESS:PORT as in \"127.0.0.1:8080\", or a list of them")]
    enum OneOrMore {
        One(String),
        More(Vec<String>),
    }
    let texts = match OneOrMore::deserialize(deserializer)? {
        OneOrMore::One(address) => vec![address],
        OneOrMore::More(addresses) => addresses,
    };
    texts.iter().map(|text| parse_address(text).map_err(de::Error::custom)).collect::<Result<_, _>>().map(Some)
}

fn one_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    parse_address(&String::deserialize(deserializer)?).map(Some).map_err(de::Error::custom)
}

/// A path, and not the empty one, which would be the directory the server happens to be started in.
fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.as_os_str().is_empty() {
        return Err(de::Error::custom("expected a path, not an empty text"));
    }
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    fn given(arguments: &[&str]) -> (Settings, ArgMatches) {
        let command = Settings::augment_args(Command::new("tidegate").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments).unwrap();
        (Settings::from_arg_matches(&matches).unwrap(), matches)
    }

    #[test]
    fn every_setting_has_the_same_name_as_flag_variable_and_key() {
        let command = Settings::augment_args(Command::new("tidegate"));
        let mut flags: Vec<_> = command.get_arguments().map(|argument| argument.get_id().as_str()).collect();
        for argument in command.get_arguments() {
            let key = argument.get_id().as_str();
            assert_eq!(argument.get_long().map(|long| format!("--{long}")), Some(flag_name(key)));
            assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(&*environment_name(key)));
            let help = argument.get_help().unwrap().to_string();
            assert!(help.contains("[default: "), "{key} does not say its default: {help}");
        }
        flags.sort_unstable();
        let mut keys = KEYS.to_vec();
        keys.sort_unstable();
        assert_eq!(flags, keys);
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_the_default() {
        let (flags, matches) = given(&["--shards", "3", "--listen", "127.0.0.1:1,127.0.0.1:2", "--listen", "[::1]:3"]);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tidegate.toml");
        std::fs::write(&path, "shards = 2\nack = \"memory\"\nlisten = \"127.0.0.1:9\"\n").unwrap();
        let (settings, sources) = merge(flags, &matches, Some(&path)).unwrap();
        assert_eq!(settings.shards, Some(ShardCount::Exactly(3)));
        assert_eq!(settings.listen.as_ref().map(Vec::len), Some(3));
        assert_eq!(settings.ack, Some(AckLevel::Memory));
        assert_eq!(settings.sync, None);
        assert_eq!(sources.name("shards", &3), "--shards 3");
        assert_eq!(sources.name("ack", &"memory"), format!("ack = memory in {}", path.display()));
        assert_eq!(sources.name("sync", &"auto"), "sync = auto (the default)");
    }

    #[test]
    fn a_switch_may_stand_alone_or_carry_its_value() {
        assert_eq!(given(&["--allow-anonymous"]).0.allow_anonymous, Some(true));
        assert_eq!(given(&["--allow-anonymous=no"]).0.allow_anonymous, Some(false));
        assert_eq!(given(&[]).0.allow_anonymous, None);
    }

    #[test]
    fn a_file_may_set_everything() {
        let text = r#"
            data = "/var/lib/tidegate"
            listen = ["127.0.0.1:8080", "[::1]:8080"]
            admin = "127.0.0.1:9000"
            allow_anonymous = true
            shards = "auto"
            shard_cores = "0,2-5"
            writer_cores = 6
            control_core = 7
            target_utilization = 0.8
            idle = "park"
            ack = "written"
            sync = "fdatasync"
            segment_bytes = "64MiB"
            retention_age = "1d"
            log_buffer_bytes = 16777216
        "#;
        let settings = parse_file(text, Path::new("t.toml")).unwrap();
        assert_eq!(settings.listen.map(|addresses| addresses.len()), Some(2));
        assert_eq!(settings.writer_cores, Some(OrAuto::Named(CoreList(vec![6]))));
        assert_eq!(settings.log_buffer_bytes, Some(ByteSize(16 << 20)));
        assert_eq!((settings.ack, settings.idle), (Some(AckLevel::Written), Some(IdlePolicy::Park)));
    }

    #[test]
    fn what_a_file_may_not_say_is_refused_with_its_place() {
        for (text, message) in [
            ("shrads = 2", "t.toml: there is no setting 'shrads'; did you mean 'shards'?"),
            (
                "[server]\nlisten = \"127.0.0.1:1\"",
                "t.toml: there is no setting 'server'; docs/CONFIGURATION.md lists all, none is in a section",
            ),
            (
                "\nidle_timeout = 30",
                "t.toml line 2: expected a time with its unit (ns, us, ms, s, m, h, d), as in 50us, 5s or 1h",
            ),
            ("ack = \"fsync\"", "t.toml line 1: expected durable, written or memory"),
            ("shards = 1.5", "t.toml line 1: invalid type: floating point `1.5`, expected a text or a whole number"),
        ] {
            assert_eq!(parse_file(text, Path::new("t.toml")).unwrap_err().to_string(), message);
        }
        for (text, part) in [
            ("shards = ", "t.toml line 1: "),
            ("listen = 8080", "expected ADDRESS:PORT as in \"127.0.0.1:8080\", or a list of them"),
            (
                "\nlisten = \"localhost:8080\"",
                "t.toml line 2: expected ADDRESS:PORT in numbers, as in 127.0.0.1:8080 or ",
            ),
            ("listen = [\"127.0.0.1:1\", \"localhost:2\"]", "names as in localhost:8080 are not looked up"),
            ("\nadmin = \"localhost:8080\"", "t.toml line 2: expected ADDRESS:PORT in numbers"),
            ("\ndata = \"\"", "t.toml line 2: expected a path, not an empty text"),
            ("\n\ntenants = \"\"", "t.toml line 3: expected a path, not an empty text"),
        ] {
            let message = parse_file(text, Path::new("t.toml")).unwrap_err().to_string();
            assert!(message.contains(part) && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn a_typo_in_the_environment_is_noticed_and_an_orchestrators_names_are_not() {
        let names = ["TIDEGATE_SHRADS", "TIDEGATE_SHARDS", "TIDEGATE_PORT_80_TCP", "TIDEGATE_SERVICE_HOST", "PATH"];
        assert_eq!(unknown_variables(names.into_iter().map(String::from)), ["TIDEGATE_SHRADS"]);
    }
}
