//! The command line from outside: which source of a setting wins, what is refused with which code, how output ends.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// The binary, without settings of whoever runs the tests.
fn tidegate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEGATE_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn settings(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    plan["settings"].take()
}

fn assert_refused(output: &Output, code: i32, message: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(message), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn flags_win_over_environment_over_file_over_default() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.toml");
    std::fs::write(&file, "ack = \"memory\"\nidle_timeout = \"11s\"\nsegment_bytes = \"16MiB\"\n").unwrap();
    let file = file.to_str().unwrap();
    let plan = || tidegate(&["plan", "--json"]);

    assert_eq!(settings(&mut plan())["ack"], "durable");
    assert_eq!(settings(plan().args(["--config", file]))["ack"], "memory");
    assert_eq!(settings(plan().env("TIDEGATE_CONFIG", file))["ack"], "memory");
    assert_eq!(settings(plan().args(["--config", file]).env("TIDEGATE_ACK", "written"))["ack"], "written");
    let all = settings(plan().args(["--config", file, "--ack", "durable"]).env("TIDEGATE_ACK", "written"));
    assert_eq!(all["ack"], "durable");
    assert_eq!((&all["idle_timeout"], &all["segment_bytes"]), (&"11s".into(), &"16MiB".into()), "the rest stays");
    let listed = settings(plan().env("TIDEGATE_LISTEN", "127.0.0.1:1,127.0.0.1:2"));
    assert_eq!(listed["listen"], "127.0.0.1:1,127.0.0.1:2");
}

/// What a plan says in effect, given again by each of the sources: a deployment can write down what it sees, and take back
/// what a file says.
#[test]
fn every_value_of_a_plan_is_one_that_flags_variables_and_files_take() {
    let directory = tempfile::tempdir().unwrap();
    let plan = || tidegate(&["plan", "--json"]);
    let shown = settings(&mut plan());
    let defaults: Vec<(&String, &str)> =
        shown.as_object().unwrap().iter().map(|(key, value)| (key, value.as_str().unwrap())).collect();
    let flags = defaults.iter().map(|(key, value)| format!("--{}={value}", key.replace('_', "-")));
    assert_eq!(settings(plan().args(flags)), shown);
    let variables = defaults.iter().map(|(key, value)| (format!("TIDEGATE_{}", key.to_uppercase()), value));
    assert_eq!(settings(plan().envs(variables)), shown);
    // As the documentation spells them: numbers and switches without quotes.
    let is_plain = |value: &str| value.parse::<f64>().is_ok() || value.parse::<bool>().is_ok();
    let lines = defaults.iter().map(|(key, value)| {
        if is_plain(value) { format!("{key} = {value}\n") } else { format!("{key} = {value:?}\n") }
    });
    let file = directory.path().join("tidegate.toml");
    std::fs::write(&file, lines.collect::<String>()).unwrap();
    assert_eq!(settings(plan().arg("--config").arg(&file)), shown);

    std::fs::write(&file, "shard_cores = \"0\"\nwriter_cores = \"0\"\ncontrol_core = 0\n").unwrap();
    let named = settings(plan().arg("--config").arg(&file));
    let mut by_variable = plan();
    let by_flag = settings(plan().arg("--config").arg(&file).args([
        "--shard-cores=auto",
        "--writer-cores=auto",
        "--control-core=auto",
    ]));
    by_variable.arg("--config").arg(&file);
    for key in ["shard_cores", "writer_cores", "control_core"] {
        assert_eq!((&named[key], &by_flag[key]), (&"0".into(), &"auto".into()), "{key}");
        by_variable.env(format!("TIDEGATE_{}", key.to_uppercase()), "auto");
    }
    assert_eq!(settings(&mut by_variable), by_flag);
}

#[test]
fn a_refusal_names_what_was_given_where_and_the_fix() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.toml");
    std::fs::write(&file, "segments_ahead = 1\n").unwrap();
    let file = file.to_str().unwrap();
    for command in ["plan", "serve"] {
        let run = |arguments: &[&str]| tidegate(&[command]).args(arguments).output().unwrap();
        assert_refused(
            &run(&["--listen", "0.0.0.0:0"]),
            2,
            "--listen 0.0.0.0:0: other hosts could store events without",
        );
        assert_refused(&run(&["--config", file]), 2, &format!("segments_ahead = 1 in {file}: give 2 to 64"));
        assert_refused(&run(&["--config", "/no/such.toml"]), 2, "--config /no/such.toml: No such file or directory");
        assert_refused(&run(&["--shards", "0"]), 2, "invalid value '0' for '--shards <N>': expected auto or a number");
        assert_refused(&run(&["--no-such-flag"]), 2, "unexpected argument '--no-such-flag'");
        assert_refused(&run(&["--control-core", "1023"]), 2, "--control-core 1023: core 1023 is offline, not there");
        let hint =
            "expected ADDRESS:PORT in numbers, as in 127.0.0.1:8080 or [::1]:8080; names as in localhost:8080 are not";
        assert_refused(&run(&["--listen", "localhost:8080"]), 2, hint);
        assert_refused(&run(&["--admin", "localhost:8081"]), 2, hint);
        let variable = tidegate(&[command]).env("TIDEGATE_SEGMENTS_AHEAD", "65").output().unwrap();
        assert_refused(&variable, 2, "TIDEGATE_SEGMENTS_AHEAD=65: give 2 to 64");
    }
}

#[test]
fn a_value_that_cannot_be_read_is_told_under_the_name_of_its_variable() {
    let with = |command: &str, name: &str, value: &[u8]| {
        tidegate(&[command]).env(name, OsStr::from_bytes(value)).output().unwrap()
    };
    for (name, value, message) in [
        ("TIDEGATE_SHARDS", "abc", "tidegate: TIDEGATE_SHARDS=abc: expected auto or a number of shards"),
        ("TIDEGATE_LISTEN", "127.0.0.1:1,localhost", "TIDEGATE_LISTEN=127.0.0.1:1,localhost: expected ADDRESS:PORT in"),
        ("TIDEGATE_MAX_CCU", "-1", "TIDEGATE_MAX_CCU=-1: -1 is not in 0..=4294967295"),
        ("TIDEGATE_ALLOW_ANONYMOUS", "maybe", "TIDEGATE_ALLOW_ANONYMOUS=maybe: "),
        ("TIDEGATE_DATA", "", "TIDEGATE_DATA=: there must be a value, or no TIDEGATE_DATA at all"),
    ] {
        assert_refused(&with("plan", name, value.as_bytes()), 2, message);
    }
    assert_refused(&with("verify", "TIDEGATE_DATA", b""), 2, "TIDEGATE_DATA=: there must be a value");
    assert_refused(&with("plan", "TIDEGATE_IDLE", b"\xff"), 2, "TIDEGATE_IDLE: the value is not UTF-8");
    // Given twice, it is the flag that is wrong.
    let both = tidegate(&["plan", "--shards", "x"]).env("TIDEGATE_SHARDS", "abc").output().unwrap();
    assert_refused(&both, 2, "invalid value 'x' for '--shards <N>'");
}

#[test]
fn a_host_that_cannot_is_refused_with_3() {
    for command in ["plan", "serve"] {
        let script = format!("ulimit -l 64 && exec {} {command}", env!("CARGO_BIN_EXE_tidegate"));
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_refused(&output, 3, "memlock is 64KiB; 512KiB needed: run `ulimit -l unlimited`");
    }
}

#[test]
fn an_address_of_another_host_is_not_taken_for_a_port_in_use() {
    let directory = tempfile::tempdir().unwrap();
    // 192.0.2.0/24 is for documentation: RFC 5737.
    let output =
        tidegate(&["serve", "--listen", "192.0.2.1:0", "--allow-anonymous", "--admin", "127.0.0.1:0", "--data"])
            .arg(directory.path().join("log"))
            .output()
            .unwrap();
    assert_refused(
        &output,
        2,
        "--listen 192.0.2.1:0: Cannot assign requested address (os error 99); this host has no such",
    );
    assert!(!text(&output.stderr).contains("another server"));
}

#[test]
fn a_plan_refuses_the_data_directory_that_serve_would() {
    let directory = tempfile::tempdir().unwrap();
    let (file, link) = (directory.path().join("file"), directory.path().join("link"));
    std::fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    for (data, message) in [
        (file.clone(), "Not a directory (os error 20); name a directory this user may enter and write"),
        (file.join("below"), "Not a directory (os error 20)"),
        (link, "link is a link that leads nowhere"),
    ] {
        for command in ["plan", "serve"] {
            let output = tidegate(&[command, "--data"]).arg(&data).output().unwrap();
            assert_refused(&output, 3, &format!("--data {}: ", data.display()));
            assert_refused(&output, 3, message);
        }
        let output = tidegate(&["plan"]).env("TIDEGATE_DATA", &data).output().unwrap();
        assert_refused(&output, 3, &format!("TIDEGATE_DATA={}: ", data.display()));
    }
}

#[test]
fn a_misspelt_variable_is_told_and_the_plan_still_shown() {
    let output = tidegate(&["plan"]).env("TIDEGATE_SHRADS", "3").output().unwrap();
    assert!(output.status.success());
    assert!(text(&output.stderr).contains("TIDEGATE_SHRADS is set, but there is no such setting"));
    let table = text(&output.stdout);
    for row in ["shards", "writers", "control", "memory", "memlock", "log", "ack", "limits", "listen", "admin"] {
        assert!(table.lines().any(|line| line.trim_start().starts_with(row)), "{row}: {table}");
    }
}

#[test]
fn a_plan_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("log");
    assert!(tidegate(&["plan", "--data", data.to_str().unwrap()]).output().unwrap().status.success());
    assert!(!data.exists());
}

#[test]
fn help_and_version_go_to_stdout() {
    for (flag, part) in [("--help", "Usage: tidegate <COMMAND>"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let output = tidegate(&[flag]).output().unwrap();
        assert!(output.status.success() && text(&output.stdout).contains(part), "{flag}");
    }
}

#[test]
fn a_closed_stdout_is_no_failure() {
    // The pipe's reader is gone before anything is written.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = tidegate(&["plan"]).stdout(Stdio::from(writer)).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn without_arguments_it_serves_says_its_plan_and_stops_when_asked() {
    let directory = tempfile::tempdir().unwrap();
    let free_address = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (listen, admin) = (free_address(), free_address());
    let mut server = serving(directory.path(), &listen, &admin).spawn().unwrap();
    wait_until_ready(&admin, &mut server);

    let other = directory.path().join("other");
    let second =
        tidegate(&["serve", "--admin", &admin, "--listen", &free_address(), "--data"]).arg(other).output().unwrap();
    assert_ne!(second.status.code(), Some(0), "the admin port is taken");
    let said = text(&second.stderr);
    assert!(said.contains(&format!("--admin {admin}: Address already in use")), "{said}");

    let kill = format!("kill -TERM {}", server.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let ended = server.wait_with_output().unwrap();
    let said = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{said}");
    for part in ["  shards   1 on core", &format!("curl http://{listen}/v1/events ")] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// A small server, configured by variables alone; what it says is piped.
fn serving(data: &Path, listen: &str, admin: &str) -> Command {
    let mut command = tidegate(&[]);
    command
        .env("TIDEGATE_DATA", data)
        .env("TIDEGATE_LISTEN", listen)
        .env("TIDEGATE_ADMIN", admin)
        .env("TIDEGATE_SHARDS", "1")
        .env("TIDEGATE_SEGMENT_BYTES", "8MiB")
        .env("TIDEGATE_RESERVE_BYTES", "0")
        .env("TIDEGATE_LOG_BUFFER_BYTES", "8MiB")
        .env("TIDEGATE_POOL_BYTES", "8MiB")
        .stderr(Stdio::piped());
    command
}

#[test]
fn addresses_that_a_killed_server_has_not_let_go_of_yet_are_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let former = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [listen, admin] = [0, 1].map(|at: usize| former[at].local_addr().unwrap().to_string());
    let mut server = serving(directory.path(), &listen, &admin).spawn().unwrap();
    let mut said = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
    for (address, former) in [&admin, &listen].into_iter().zip(former.into_iter().rev()) {
        let waits = format!("{address} is in use: waiting for a former server to end");
        assert!(said.any(|line| line.contains(&waits)), "it ended instead");
        drop(former);
    }
    assert!(said.any(|line| line.contains("listening on")), "it ended instead");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn the_port_that_the_kernel_chose_is_told_everywhere() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = serving(directory.path(), "127.0.0.1:0,127.0.0.1:0", "127.0.0.1:0")
        .env("TIDEGATE_SHARDS", "2")
        .spawn()
        .unwrap();
    let (mut listening, mut admin) = (Vec::new(), String::new());
    let mut curl = None;
    for line in BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap) {
        if let Some((data, on)) =
            line.strip_prefix("tidegate: listening on http://").and_then(|said| said.split_once(' '))
        {
            listening.push(data.to_owned());
            on.trim_start_matches("(admin http://").trim_end_matches(')').clone_into(&mut admin);
        }
        if let Some(said) = line.strip_prefix("tidegate: try: curl http://") {
            curl = said.split('/').next().map(str::to_owned);
            break;
        }
    }
    assert_eq!((listening.len(), curl.as_ref()), (2, listening.first()), "it ended instead");
    wait_until_ready(&admin, &mut server);
    let plan: Value = serde_json::from_str(&get(&admin, "/api/plan")).unwrap();
    assert_eq!((&plan["listen"], &plan["admin"]), (&listening.clone().into(), &admin.into()));
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    for address in &listening {
        let port: u16 = address.rsplit(':').next().unwrap().parse().unwrap();
        assert!(get(address, "/health").contains("healthy"));
        // Local address and state of every socket; 0A is one that listens: proc_net_tcp.txt of the kernel.
        let local = format!(" 0100007F:{port:04X} 00000000:0000 0A ");
        assert_eq!(sockets.matches(&local).count(), 2, "a listener for each shard on one port");
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

fn get(address: &str, route: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("GET {route} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn a_directory_without_a_log_is_no_sound_log() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let read = |command: &str| tidegate(&[command, "--data"]).arg(&data).output().unwrap();
    let assert_none = |message: &str| {
        for command in ["verify", "cat"] {
            assert_refused(&read(command), 3, &format!("{} is not a data directory{message}", data.display()));
        }
    };
    assert_none("");
    std::fs::create_dir(&data).unwrap();
    assert_none(": no server has kept a log in it");
    // Somebody else's: RocksDB's lock file has the same name, and nothing in it.
    std::fs::write(data.join("LOCK"), "").unwrap();
    std::fs::write(data.join("CURRENT"), "MANIFEST-000001\n").unwrap();
    assert_none(": no server has kept a log in it");
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 2, "a look leaves nothing behind");
    // As a server leaves it that stopped before its first event, and as a copy of the log alone is.
    for name in ["LOCK", "writer-00"] {
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::create_dir(&data).unwrap();
        match name {
            "LOCK" => std::fs::write(data.join(name), "4711\n").unwrap(),
            _ => std::fs::create_dir(data.join(name)).unwrap(),
        }
        let verified = read("verify");
        assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stderr));
        assert!(text(&verified.stdout).starts_with("sound: 0 events"));
        assert_eq!(read("cat").status.code(), Some(0));
    }
}

#[test]
fn a_follower_may_be_there_before_its_server() {
    let directory = tempfile::tempdir().unwrap();
    let follow = |data: &Path| {
        let mut command = tidegate(&["cat", "--follow", "--data"]);
        command.arg(data).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let missing = follow(&directory.path().join("missing")).output().unwrap();
    assert_refused(&missing, 3, "missing is not a data directory");
    let mut follower = follow(directory.path()).spawn().unwrap();
    let mut said = BufReader::new(follower.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("no server has kept a log here yet, waiting for it")), "it ended instead");

    let mut server = serving(directory.path(), "127.0.0.1:0", "127.0.0.1:0").spawn().unwrap();
    let mut said = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
    let address = said.find_map(|line| Some(line.split_once("curl http://")?.1.split_once('/')?.0.to_owned())).unwrap();
    let event = "{\"event_name\":\"first\"}";
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: {}",
        event.len()
    );
    stream.write_all(format!("{head}\r\n\r\n{event}").as_bytes()).unwrap();
    let mut followed = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert_eq!(followed.next().unwrap().unwrap(), event);
    for mut process in [follower, server] {
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

/// Asks /ready until it is, as often as it takes a slow machine to start; each look is a round trip.
fn wait_until_ready(admin: &str, server: &mut Child) {
    for _ in 0..1_000_000 {
        assert_eq!(server.try_wait().unwrap(), None, "the server ended instead");
        let Ok(mut stream) = TcpStream::connect(admin) else { continue };
        let mut answer = String::new();
        let asked = stream.write_all(b"GET /ready HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        if asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200") {
            return;
        }
    }
    panic!("{admin} never became ready");
}
