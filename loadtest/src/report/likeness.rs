//! Whether runs were of one and the same load: only then does a difference of their figures say something. Pure.

use serde_json::Value;

use super::result::RunResult;

/// Fields of the manifest that make the load, or decide what its figures mean.
const FIELDS: [&str; 18] = [
    "mode",
    "schedule",
    "scenario",
    "duration_s",
    "connections",
    "pipeline",
    "requests_per_connection",
    "mix",
    "batch",
    "format",
    "encoding",
    "repeats_bodies",
    "template",
    "ack",
    "check",
    "timeout_s",
    "keys",
    "slow_readers",
];
/// Bytes of a request may differ by this share: another host's name, other random events.
const BYTES_SHARE: f64 = 0.02;

/// How a run differs from the first one, as `batch: 100, in another run 200`. Empty if all are of one load.
#[must_use]
pub fn unlike<'r>(runs: impl IntoIterator<Item = &'r RunResult>) -> Vec<String> {
    let mut runs = runs.into_iter();
    let Some(first) = runs.next() else { return Vec::new() };
    let mut found = Vec::new();
    for run in runs {
        for difference in differences(first, run) {
            if !found.contains(&difference) {
                found.push(difference);
            }
        }
    }
    found
}

fn differences(one: &RunResult, other: &RunResult) -> Vec<String> {
    let manifest = |run: &RunResult| serde_json::to_value(&run.manifest).expect("a manifest has string keys only");
    let (ones, others) = (manifest(one), manifest(other));
    let mut found = Vec::new();
    for name in FIELDS {
        let (value, theirs) = (meant(&ones[name]), meant(&others[name]));
        if value != theirs && !is_unknown(name, &value) && !is_unknown(name, &theirs) {
            found.push(format!("{name}: {}, in another run {}", show(&value), show(&theirs)));
        }
    }
    let (bytes, theirs) = (one.manifest.request_bytes_mean, other.manifest.request_bytes_mean);
    if (bytes - theirs).abs() > bytes.max(theirs) * BYTES_SHARE {
        found.push(format!("request_bytes_mean: {bytes:.0}, in another run {theirs:.0}"));
    }
    found
}

/// Whether a run does not say. Of the fields that earlier versions did not write these three have no value that means the
/// same; the server's default is named by its first 202 only.
fn is_unknown(name: &str, value: &Value) -> bool {
    match name {
        "check" | "mix" | "timeout_s" => value.is_null(),
        "ack" => value == "server default",
        _ => false,
    }
}

/// A level is the same whether it was asked for or is the server's default.
fn meant(value: &Value) -> Value {
    value.as_str().map_or_else(|| value.clone(), |text| text.trim_end_matches(" (server default)").into())
}

fn show(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::result::tests::result_with;

    /// A run with one field of its manifest changed.
    fn run_with(name: &str, value: Value) -> RunResult {
        let mut run = result_with(Vec::new());
        run.manifest.request_bytes_mean = 1000.0;
        let mut manifest = serde_json::to_value(&run.manifest).unwrap();
        assert!(manifest.get(name).is_some(), "{name} is no field of a manifest");
        manifest[name] = value;
        run.manifest = serde_json::from_value(manifest).unwrap();
        run
    }

    #[test]
    fn each_field_that_makes_the_load_is_told_and_no_other() {
        let changed: [(&str, Value); 16] = [
            ("mode", "open".into()),
            ("schedule", "constant 5/s".into()),
            ("scenario", "spike".into()),
            ("duration_s", 7.5.into()),
            ("connections", 9.into()),
            ("pipeline", 9.into()),
            ("requests_per_connection", 9.into()),
            ("batch", 9.into()),
            ("format", "single".into()),
            ("encoding", "zstd".into()),
            ("repeats_bodies", true.into()),
            ("template", "webhook".into()),
            ("ack", "memory".into()),
            ("keys", 9.into()),
            ("slow_readers", 9.into()),
            ("request_bytes_mean", 2000.0.into()),
        ];
        let base = run_with("seed", 0.into());
        for (name, value) in changed {
            let found = unlike([&base, &run_with(name, value.clone()), &run_with(name, value)]);
            assert!(found.len() == 1 && found[0].starts_with(name), "{name}: {found:?}");
        }
        let unchanged: [(&str, Value); 8] = [
            ("seed", 7.into()),
            ("run", "other".into()),
            ("commit", "other".into()),
            ("cpu", "other".into()),
            ("target", "other".into()),
            ("check", "tidegate".into()),
            ("timeout_s", 1.0.into()),
            ("request_bytes_mean", 1010.0.into()),
        ];
        for (name, value) in unchanged {
            assert!(unlike([&base, &run_with(name, value)]).is_empty(), "{name}");
        }
        let known = |name, value: Value, other: Value| unlike([&run_with(name, value), &run_with(name, other)]).len();
        assert_eq!(known("check", "tidegate".into(), "status".into()), 1);
        assert_eq!(known("timeout_s", 1.0.into(), 2.0.into()), 1);
        assert_eq!(known("mix", serde_json::json!({"a": 1.0}), serde_json::json!({"a": 0.9, "b": 0.1})), 1);
        assert_eq!(known("ack", "durable".into(), "durable (server default)".into()), 0);
        assert_eq!(known("ack", "durable".into(), "server default".into()), 0, "no 202 named it");
        assert_eq!(known("ack", "durable".into(), "memory (server default)".into()), 1);
    }
}
