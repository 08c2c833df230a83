//! A plan for people (a short aligned table, printed at start) and for machines (JSON). Pure.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::{Map, Value, json};

use super::plan::{Plan, ShardPlace};
use super::quantity::{ByteSize, CoreList, Span};
use crate::sys::host::UNLIMITED;

/// The version of this server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints bytes with one decimal of the largest binary unit that leaves at least 1: for sizes that nobody typed.
struct About(u64);

impl fmt::Display for About {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match units.into_iter().find(|(_, shift)| self.0 >> shift > 0) {
            _ if self.0 == UNLIMITED => f.write_str("unlimited"),
            Some((unit, shift)) if self.0.is_multiple_of(1 << shift) => write!(f, "{} {unit}", self.0 >> shift),
            Some((unit, shift)) => write!(f, "{:.1} {unit}", self.0 as f64 / (1u64 << shift) as f64),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

fn many(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

impl Plan {
    fn shard_cores(&self) -> CoreList {
        let mut cores: Vec<usize> = self.shards.iter().map(|shard: &ShardPlace| shard.core).collect();
        cores.sort_unstable();
        cores.dedup();
        CoreList(cores)
    }

    fn places(&self, cores: &CoreList, nodes: impl Iterator<Item = usize>) -> String {
        let mut nodes: Vec<usize> = nodes.collect();
        nodes.sort_unstable();
        nodes.dedup();
        let cores_noun = if cores.0.len() == 1 { "core" } else { "cores" };
        let nodes_noun = if nodes.len() == 1 { "node" } else { "nodes" };
        format!("on {cores_noun} {cores} (NUMA {nodes_noun} {})", CoreList(nodes))
    }

    fn log_line(&self) -> String {
        let filesystem = &self.host.filesystem;
        let device = filesystem.device.as_ref().map_or(String::new(), |device| format!(" on {}", device.name));
        let io = if self.direct_io { "O_DIRECT" } else { "buffered" };
        format!(
            "{}, {}{device}, {} free, {io}, {} per group",
            self.data.display(),
            filesystem.kind,
            About(filesystem.free_bytes),
            self.sync.name()
        )
    }

    fn setting(&self, key: &str) -> &str {
        self.settings.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| value)
    }
}

/// The table of start-up and `tidegate plan`.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, text: String| writeln!(f, "  {name:<8} {text}");
        row("host", {
            let nodes = many(self.host.numa_nodes().len(), "NUMA node");
            let cores = many(self.host.cores.len(), "core");
            format!("Linux {}, {cores}, {nodes}, {} of memory", self.host.kernel, About(self.host.memory.total_bytes))
        })?;
        row("shards", {
            let places = self.places(&self.shard_cores(), self.shards.iter().map(|shard| shard.numa_node));
            format!("{} {places}, idle {}", self.shards.len(), self.idle,)
        })?;
        row("admits", {
            let lag = if self.lag_target.is_zero() { "any".to_owned() } else { Span(self.lag_target).to_string() };
            format!(
                "up to target utilization {}, {} in flight, durable lag {lag}",
                self.target_utilization,
                many(self.normal_ccu as usize, "request"),
            )
        })?;
        row("writers", {
            let cores = CoreList(self.writers.iter().map(|writer| writer.core).collect());
            format!(
                "{} {}",
                self.writers.len(),
                self.places(&cores, self.writers.iter().map(|writer| writer.numa_node))
            )
        })?;
        row("control", format!("on core {}", self.control_core))?;
        let memory = &self.memory;
        row("memory", {
            format!(
                "{} = {} × (log buffer {} + receive buffers {} + pool {}), up to {} more for compressed bodies; {} can be had",
                About(memory.total_bytes),
                many(self.shards.len(), "shard"),
                About(memory.log_buffer_bytes),
                About(memory.receive_bytes),
                About(memory.pool_bytes),
                About(memory.decoder_bytes * self.shards.len() as u64),
                About(memory.usable_bytes)
            )
        })?;
        row("memlock", {
            let registered = if self.registered_buffers { "registered" } else { "not registered" };
            format!(
                "{} needed, {} granted; log buffers {registered}",
                About(self.memlock_needed_bytes),
                About(self.host.lockable_bytes())
            )
        })?;
        row("log", self.log_line())?;
        row("segments", {
            let retention = match (self.setting("retention_bytes"), self.setting("retention_age")) {
                ("0", "0") => "kept for ever".to_owned(),
                (bytes, "0") => format!("kept up to {bytes}"),
                ("0", age) => format!("kept for {age}"),
                (bytes, age) => format!("kept up to {bytes} and for {age}"),
            };
            let (bytes, ahead) = (self.setting("segment_bytes"), self.setting("segments_ahead"));
            format!("of {bytes}, {ahead} ready ahead, {retention}, {} stay free", self.setting("reserve_bytes"))
        })?;
        row("ack", self.ack.to_string())?;
        row("limits", {
            let limits = &self.limits;
            format!(
                "body {}, event {}, head {}, {} connections per shard",
                ByteSize(limits.body_bytes_max),
                ByteSize(limits.event_bytes_max as u64),
                ByteSize(limits.head_bytes_max as u64),
                limits.connections_per_shard_max
            )
        })?;
        let listen: Vec<String> = self.listen.iter().map(|address| format!("http://{address}")).collect();
        row("listen", listen.join(", "))?;
        row("admin", format!("http://{}", self.admin))?;
        if !self.advice.is_empty() {
            writeln!(f, "What could be better here:")?;
        }
        for advice in &self.advice {
            writeln!(f, "  - {}\n    {}", advice.symptom, advice.fix)?;
        }
        Ok(())
    }
}

impl Plan {
    /// A command that stores a first event.
    #[must_use]
    pub fn curl_line(&self) -> String {
        let mut address = self.listen[0];
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        format!("curl http://{address}/v1/events -H 'Content-Type: application/json' -d '{{\"event_name\":\"hello\"}}'")
    }

    /// The plan as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let host = &self.host;
        let filesystem = &host.filesystem;
        let limits = &self.limits;
        let bounded = |bytes: u64| if bytes == UNLIMITED { Value::Null } else { json!(bytes) };
        let listen: Vec<String> = self.listen.iter().map(ToString::to_string).collect();
        let shards: Vec<Value> = self
            .shards
            .iter()
            .map(|place| {
                json!({"shard": place.shard.0, "core": place.core, "numa_node": place.numa_node, "writer": place.writer.0})
            })
            .collect();
        let writers: Vec<Value> = self
            .writers
            .iter()
            .map(|place| json!({"writer": place.writer.0, "core": place.core, "numa_node": place.numa_node}))
            .collect();
        let settings: Map<String, Value> =
            self.settings.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let advice: Vec<Value> =
            self.advice.iter().map(|advice| json!({"symptom": advice.symptom, "fix": advice.fix})).collect();
        json!({
            "version": VERSION,
            "host": {
                "kernel": host.kernel,
                "cores": host.cores.iter().map(|core| core.id).collect::<Vec<_>>(),
                "numa_nodes": host.numa_nodes(),
                "memory_bytes": host.memory.total_bytes,
                "open_files": bounded(host.open_files),
            },
            "shards": shards,
            "writers": writers,
            "control": {"core": self.control_core},
            "memory": {
                "log_buffer_bytes": self.memory.log_buffer_bytes,
                "receive_bytes": self.memory.receive_bytes,
                "pool_bytes": self.memory.pool_bytes,
                "shard_bytes": self.memory.shard_bytes,
                "decoder_bytes": self.memory.decoder_bytes,
                "total_bytes": self.memory.total_bytes,
                "usable_bytes": self.memory.usable_bytes,
            },
            "memlock": {
                "needed_bytes": self.memlock_needed_bytes,
                "granted_bytes": bounded(host.lockable_bytes()),
                "registered_buffers": self.registered_buffers,
            },
            "log": {
                "data": self.data.to_string_lossy(),
                "filesystem": filesystem.kind,
                "device": filesystem.device.as_ref().map(|device| &device.name),
                "free_bytes": filesystem.free_bytes,
                "direct_io": self.direct_io,
                "sync": self.sync.name(),
            },
            "ack": self.ack.name(),
            "idle": self.idle.name(),
            "target_utilization": self.target_utilization,
            "normal_ccu": self.normal_ccu,
            "lag_target": Span(self.lag_target).to_string(),
            "listen": listen,
            "admin": self.admin.to_string(),
            "limits": {
                "body_bytes_max": limits.body_bytes_max,
                "event_bytes_max": limits.event_bytes_max,
                "head_bytes_max": limits.head_bytes_max,
                "json_depth_max": limits.json_depth_max,
                "events_per_request_max": limits.events_per_request_max,
                "connections_per_shard_max": limits.connections_per_shard_max,
                "head_timeout": Span(limits.head_timeout).to_string(),
                "body_timeout": Span(limits.body_timeout).to_string(),
                "idle_timeout": Span(limits.idle_timeout).to_string(),
                "send_timeout": Span(limits.send_timeout).to_string(),
                "decoders_per_shard_max": limits.decoders_per_shard_max,
            },
            "settings": settings,
            "advice": advice,
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Config;
    use super::super::host::made_up::host;
    use super::*;

    #[test]
    fn the_table_says_in_a_few_lines_what_will_run_where() {
        let plan = Plan::make(&Config::default(), &host(4, 1, 1)).unwrap();
        assert_eq!(
            plan.to_string(),
            "  host     Linux 6.12.0, 4 cores, 1 NUMA node, 64 GiB of memory
  shards   3 on cores 0-2 (NUMA node 0), idle adaptive
  admits   up to target utilization 0.67, 32931 requests in flight, durable lag 100ms
  writers  1 on core 3 (NUMA node 0)
  control  on core 3
  memory   336 MiB = 3 shards × (log buffer 32 MiB + receive buffers 16 MiB + pool 64 MiB), up to 471.2 MiB more for compressed bodies; 60 GiB can be had
  memlock  101 MiB needed, unlimited granted; log buffers registered
  log      ./tidegate-data, xfs on nvme0n1, 512 GiB free, O_DIRECT, dsync per group
  segments of 256MiB, 2 ready ahead, kept for ever, 1GiB stay free
  ack      durable
  limits   body 16MiB, event 1MiB, head 16KiB, 16384 connections per shard
  listen   http://127.0.0.1:8080
  admin    http://127.0.0.1:8081
What could be better here:
  - nothing is ever deleted: the log grows up to the disk reserve, then events are refused with 507
    bound it, as with --retention-bytes 256GiB
"
        );
    }

    #[test]
    fn the_json_says_the_same_to_machines() {
        let plan = Plan::make(&Config::default(), &host(4, 2, 1)).unwrap();
        let json: Value = serde_json::from_str(&plan.to_json()).unwrap();
        assert_eq!(json["shards"][2], json!({"shard": 2, "core": 2, "numa_node": 1, "writer": 0}));
        assert_eq!(json["writers"], json!([{"writer": 0, "core": 3, "numa_node": 1}]));
        assert_eq!(json["control"]["core"], 3);
        assert_eq!(json["memlock"]["granted_bytes"], Value::Null);
        assert_eq!(json["log"]["sync"], "dsync");
        assert_eq!(json["settings"]["segment_bytes"], "256MiB");
        assert_eq!(json["advice"].as_array().map(Vec::len), Some(plan.advice.len()));
        assert_eq!(json["listen"], json!(["127.0.0.1:8080"]));
    }

    #[test]
    fn the_curl_line_names_an_address_that_can_be_reached() {
        let mut config = Config { allow_anonymous: true, ..Config::default() };
        for (listen, reached) in [("127.0.0.1:1", "127.0.0.1:1"), ("0.0.0.0:2", "127.0.0.1:2"), ("[::]:3", "[::1]:3")] {
            config.listen = vec![listen.parse().unwrap()];
            let line = Plan::make(&config, &host(2, 1, 1)).unwrap().curl_line();
            assert!(line.starts_with(&format!("curl http://{reached}/v1/events ")), "{line}");
        }
    }

    #[test]
    fn sizes_are_rounded_for_reading() {
        for (bytes, text) in [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (UNLIMITED, "unlimited")] {
            assert_eq!(About(bytes).to_string(), text);
        }
    }
}
