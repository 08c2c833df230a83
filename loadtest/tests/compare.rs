//! `compare` tells worse from better from the same, and refuses or marks what cannot be compared.

mod support;

use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Value, json};
use support::{Server, load, show};

/// A result with ten even intervals.
fn result(directory: &Path, name: &str, rate: u64, p99_us: u64) -> String {
    let mut result = measured().clone();
    result["valid"] = true.into();
    result["requests_per_second"] = rate.into();
    result["events_per_second"] = rate.into();
    result["error_rate"] = 0.into();
    for percentile in ["p50", "p99"] {
        result["latency_us"]["corrected"][percentile] = p99_us.into();
    }
    let point = |second: u64| {
        serde_json::json!({ "from_s": second, "to_s": second + 1, "warmup": false, "drain": false, "clients": 1,
            "offered": rate, "sent": rate, "requests": rate, "events": rate, "bytes": 1, "errors": 0, "rejected": 0,
            "p50_us": p99_us, "p99_us": p99_us, "max_us": p99_us, "uncorrected_p99_us": p99_us,
            "server_rss_bytes": null })
    };
    result["intervals"] = (0..10).map(point).collect();
    write(directory, name, &result)
}

fn write(directory: &Path, name: &str, result: &Value) -> String {
    let file = directory.join(name);
    std::fs::write(&file, result.to_string()).unwrap();
    show(&file)
}

/// A result of a real run, of which the tests change what they are about.
fn measured() -> &'static Value {
    static MEASURED: OnceLock<Value> = OnceLock::new();
    MEASURED.get_or_init(|| Server::start().run(&["--batch", "2"]).0)
}

/// A copy of a result with some of its fields changed, each named as `manifest.batch`.
fn changed(from: &str, name: &str, changes: &[(&str, Value)]) -> String {
    let from = Path::new(from);
    let mut result: Value = serde_json::from_str(&std::fs::read_to_string(from).unwrap()).unwrap();
    for (field, value) in changes {
        *field.split('.').fold(&mut result, |value, part| &mut value[part]) = value.clone();
    }
    write(from.parent().unwrap(), name, &result)
}

fn compare(options: &[&str]) -> (i32, String, String) {
    let output = load(&[&["compare"], options].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn compare_fails_for_a_worse_result_and_not_for_the_same_or_a_better_one() {
    let home = tempfile::tempdir().unwrap();
    let make = |name, rate, p99| result(home.path(), name, rate, p99);
    let (base, same, slower, later, better) = (
        make("base", 1000, 500),
        make("same", 980, 510),
        make("slower", 800, 500),
        make("later", 1000, 900),
        make("better", 1300, 400),
    );
    assert_eq!(compare(&[&base, &base]).0, 0);
    assert_eq!(compare(&[&base, &same]).0, 0, "within the threshold");
    assert_eq!(compare(&[&base, &slower]).0, 1);
    assert_eq!(compare(&[&base, &later]).0, 1);
    assert_eq!(compare(&[&base, &better]).0, 0);
    assert_eq!(compare(&[&base, &better, "--both-ways"]).0, 1);
    assert_eq!(compare(&[&base, &slower, "--threshold", "30%"]).0, 0);
    // Several runs of a side scatter by more than they differ.
    let noisy = [make("n1", 700, 500), make("n2", 1000, 500), make("n3", 1300, 500)].join(",");
    assert_eq!(compare(&[&noisy, &make("n4", 900, 500)]).0, 0);
    let invalid = changed(&base, "invalid", &[("valid", false.into())]);
    let (code, _, said) = compare(&[&base, &invalid]);
    assert!(code == 5 && said.contains("invalid"), "{code}: {said}");
    assert_eq!(compare(&[&base, &invalid, "--allow-bottleneck"]).0, 0);
    assert_eq!(compare(&[&base, "/nonexistent"]).0, 2);
    std::fs::write(home.path().join("none"), "{}").unwrap();
    assert_eq!(compare(&[&base, &show(&home.path().join("none"))]).0, 2);
}

/// Figures of different loads differ by the load.
#[test]
fn runs_of_different_loads_are_refused_and_compared_on_demand() {
    let home = tempfile::tempdir().unwrap();
    let base = result(home.path(), "base", 1000, 500);
    for (field, value) in [
        ("manifest.batch", json!(200)),
        ("manifest.connections", json!(9)),
        ("manifest.schedule", json!("constant 5/s")),
        ("manifest.ack", json!("memory")),
        ("manifest.check", json!("status")),
        ("manifest.mix", json!({"events_2": 0.5, "malformed_2": 0.5})),
        ("manifest.request_bytes_mean", json!(9000.0)),
    ] {
        let other = changed(&base, "other", &[(field, value)]);
        let (code, shown, said) = compare(&[&base, &other]);
        let name = field.strip_prefix("manifest.").unwrap();
        assert!(code == 2 && said.contains(name) && said.contains("--allow-unlike"), "{field}: {code}: {said}");
        assert!(shown.is_empty(), "{field}: {shown}");
        // Within a side as well as between them.
        assert_eq!(compare(&[&[base.as_str(), &other].join(","), &base]).0, 2, "{field}");
        let (code, shown, said) = compare(&[&base, &other, "--allow-unlike"]);
        assert!(code == 0 && said.contains(name) && shown.contains("same"), "{field}: {code}: {shown}{said}");
    }
}

/// Name, what is changed, the exit code, and what is told.
type Case<'c> = (&'c str, &'c [(&'c str, Value)], i32, &'c str);

/// Twice as fast, and wrong.
#[test]
fn a_run_that_failed_is_never_better() {
    let home = tempfile::tempdir().unwrap();
    let (base, fast) = (result(home.path(), "base", 1000, 500), result(home.path(), "fast", 2000, 200));
    assert!(compare(&[&base, &fast]).1.contains("BETTER"));
    let missed = json!([{ "name": "p95_us", "limit": 1.0, "value": 9.0, "passed": false }]);
    let unread = ("verdict_failed", "the log was not read to its end".into());
    let cases: [Case<'_>; 7] = [
        ("unsound", &[("verdict.sound", false.into())], 4, "NOT SOUND"),
        ("nothing", &[("outcomes.accepted", 0.into())], 3, "no request answered"),
        ("unread", &[("verdict", Value::Null), unread], 5, "has no verdict"),
        ("interrupted", &[("valid", false.into()), ("interrupted", "SIGINT".into())], 5, "interrupted"),
        ("unsolicited", &[("valid", false.into()), ("outcomes.unsolicited", 1.into())], 5, "no request was waiting"),
        ("failing", &[("error_rate", 0.5.into())], 1, "WORSE"),
        ("missing", &[("thresholds", missed)], 1, "threshold p95_us"),
    ];
    for (name, changes, expected, told) in cases {
        let failed = changed(&fast, name, changes);
        let (code, shown, said) = compare(&[&base, &failed, "--allow-bottleneck", "--both-ways"]);
        assert_eq!(code, expected, "{name}: {shown}{said}");
        assert!(!shown.contains("BETTER") && shown.contains("not called better"), "{name}: {shown}");
        assert!(shown.contains(told) || said.contains(told), "{name}: {shown}{said}");
    }
    // To be better than a run that says nothing says nothing.
    let (code, shown, said) = compare(&[&changed(&base, "unsound-base", &[("verdict.sound", false.into())]), &fast]);
    assert!(code == 4 && !shown.contains("BETTER"), "{code}: {shown}{said}");
}

/// What another version means by a name is not known.
#[test]
fn a_result_of_another_schema_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let base = result(home.path(), "base", 1000, 500);
    for schema in [json!(2), json!(0), json!("1")] {
        let other = changed(&base, "other", &[("schema", schema.clone())]);
        let (code, shown, said) = compare(&[&base, &other]);
        assert!(code == 2 && said.contains(&format!("{other}: schema {schema}, ")), "{code}: {said}");
        assert!(said.contains("schema 1 only") && shown.is_empty(), "{said}{shown}");
    }
    // Nor are its fields asked for.
    let other = write(home.path(), "later", &json!({ "schema": 2 }));
    let (code, _, said) = compare(&[&base, &other]);
    assert!(code == 2 && said.contains("schema 2"), "{code}: {said}");
}

/// How much it scatters is not known of one value.
#[test]
fn a_difference_of_runs_of_one_interval_is_told_and_not_judged() {
    let home = tempfile::tempdir().unwrap();
    let short = |name: &str, rate| {
        let ten = result(home.path(), name, rate, 500);
        let interval =
            serde_json::from_str::<Value>(&std::fs::read_to_string(&ten).unwrap()).unwrap()["intervals"][0].take();
        changed(&ten, name, &[("intervals", json!([interval]))])
    };
    let (base, slower) = (short("base", 1000), short("slower", 800));
    let (code, shown, said) = compare(&[&base, &slower, "--both-ways"]);
    assert!(code == 0 && !shown.contains("WORSE") && shown.contains("not told from noise"), "{code}: {shown}{said}");
    assert!(said.contains("requests_per_second, events_per_second, p50_us, p99_us scatter"), "{said}");
    let twice = |one: &str| [one, one].join(",");
    let (code, shown, said) = compare(&[&twice(&base), &twice(&slower)]);
    assert!(code == 1 && shown.contains("WORSE") && said.is_empty(), "{code}: {shown}{said}");
}
