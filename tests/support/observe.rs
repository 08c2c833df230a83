//! What can be seen of a server from outside: its log, its metrics, its memory.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::server::Server;

/// Every durable event of the log at `data` in log order, as `tidegate cat` prints them.
#[track_caller]
pub(crate) fn cat(data: &Path) -> Vec<Vec<u8>> {
    let output = run("cat", data);
    assert!(output.status.success(), "cat: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    if output.stdout.is_empty() {
        return Vec::new();
    }
    let text = output.stdout.strip_suffix(b"\n").expect("the last line ends");
    text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// Asserts that `tidegate verify` finds the log at `data` sound.
#[track_caller]
pub(crate) fn verify(data: &Path) {
    let output = run("verify", data);
    assert!(
        output.status.success(),
        "verify: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn run(command: &str, data: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg(command)
        .arg("--data")
        .arg(data)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

/// A shard's counter or gauge from the admin port's `/metrics`; `None` if it is not there.
pub(crate) fn shard_metric(server: &Server, name: &str, shard: u16) -> Option<u64> {
    let text = server.ask_admin("/metrics").expect(200).text();
    metric(&text, name, &format!("shard=\"{shard}\""))
}

/// Asserts that each request that a server refused for the time being is counted by one reason.
#[track_caller]
pub(crate) fn expect_a_reason_for_each_refusal(server: &Server) {
    let text = server.ask_admin("/metrics").expect(200).text();
    let all = |name: &str| {
        let series = format!("tidegate_{name}");
        let samples = text.lines().filter(|line| line.starts_with(&series));
        samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum::<u64>()
    };
    assert_eq!(all("refused_"), all("requests_rejected_total") + all("refused_unauthorized_total"), "{text}");
}

/// A sample of a Prometheus text: `tidegate_<name>`, with `_total` or without, whose labels hold `label`.
pub(crate) fn metric(text: &str, name: &str, label: &str) -> Option<u64> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (family, labels) = series.split_once('{').unwrap_or((series, ""));
        let family = family.strip_prefix("tidegate_")?;
        let matches = family.strip_suffix("_total").unwrap_or(family) == name && labels.contains(label);
        matches.then(|| value.parse::<f64>().ok().map(|value| value as u64)).flatten()
    })
}

/// Resident memory of a process in bytes.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has a resident size");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("VmRSS is a number of kB");
    kib * 1024
}

/// Bytes of the files below a directory, as the disk counts them.
pub(crate) fn disk_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    for entry in entries.flatten() {
        // A file that retention removes between the two looks counts nothing.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { disk_bytes(&entry.path()) } else { metadata.blocks() * 512 };
    }
    bytes
}
