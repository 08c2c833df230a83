//! What the tests of the load generator share: a server process, the generator as a process, its result.
#![allow(dead_code, reason = "each test binary uses its part")]

// The same leases as the server's own tests: all of them may run at once.
#[path = "../../../tests/support/ports.rs"]
mod ports;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub(crate) use ports::Lease;
use serde_json::Value;

/// How long a server may take to listen on a machine that does much else.
const LISTENS_WITHIN: Duration = Duration::from_secs(60);

/// The `tidegate` program of this tree and profile: there already in a test of the whole workspace, else built now.
pub(crate) fn tidegate() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // target/PROFILE/tidegate-load: cargo builds no program of another package for a test.
        let directory = Path::new(env!("CARGO_BIN_EXE_tidegate-load")).parent().expect("it lies in a directory");
        let profile = match directory.file_name().and_then(|name| name.to_str()).expect("a profile's name") {
            "debug" => "dev",
            name => name,
        };
        let program = directory.join("tidegate");
        if program.is_file() {
            return program;
        }
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--workspace", "--bin", "tidegate", "--profile", profile])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the server does not build");
        program
    })
}

/// A server with a log of its own; killed when dropped.
pub(crate) struct Server {
    child: Child,
    home: tempfile::TempDir,
    listen: Lease,
    admin: Lease,
}

impl Server {
    /// Starts one and waits until it listens.
    pub(crate) fn start() -> Self {
        let home = tempfile::tempdir().expect("a directory for the log");
        let (listen, admin) = (Lease::take(), Lease::take());
        let output = File::create(home.path().join("output")).expect("a file for its output");
        let child = Command::new(tidegate())
            .args(["serve", "--listen", &listen.address().to_string(), "--admin", &admin.address().to_string()])
            .arg("--data")
            .arg(home.path().join("data"))
            .envs(small())
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("the server starts");
        let mut server = Self { child, home, listen, admin };
        let began = Instant::now();
        while TcpStream::connect(server.address()).is_err() {
            let ended = server.child.try_wait().expect("its state can be asked");
            assert!(ended.is_none() && began.elapsed() < LISTENS_WITHIN, "{}", server.output());
            std::thread::yield_now();
        }
        server
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listen.address()
    }

    /// Its log.
    pub(crate) fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// A directory for what a test writes.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said.
    fn output(&self) -> String {
        std::fs::read_to_string(self.home.path().join("output")).unwrap_or_default()
    }

    /// A short run against it that looks at its log afterwards: result and exit code.
    pub(crate) fn run(&self, options: &[&str]) -> (Value, i32) {
        self.run_with(tidegate(), options)
    }

    /// The same, with another program to read the log.
    pub(crate) fn run_with(&self, reader: &Path, options: &[&str]) -> (Value, i32) {
        let (reader, data) = (show(reader), show(&self.data()));
        self.run_unverified(&[&["--tidegate", &reader, "--verify", &data], options].concat())
    }

    /// The same without a look at the log.
    pub(crate) fn run_unverified(&self, options: &[&str]) -> (Value, i32) {
        let mut all = vec!["run".to_owned(), "--target".into(), self.address().to_string()];
        all.extend(short().map(str::to_owned));
        all.extend(options.iter().map(|option| (*option).to_owned()));
        let output = load(&all);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        let result = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{complaint}"));
        (result, output.status.code().expect("it was not killed"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait()
            && !std::thread::panicking()
        {
            panic!("the server ended by itself with {status}: {}", self.output());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server small enough for many to run at once.
pub(crate) fn small() -> [(&'static str, &'static str); 11] {
    [
        ("TIDEGATE_SHARDS", "1"),
        ("TIDEGATE_IDLE", "park"),
        ("TIDEGATE_SEGMENT_BYTES", "8388608"),
        ("TIDEGATE_SEGMENTS_AHEAD", "2"),
        ("TIDEGATE_LOG_BUFFER_BYTES", "8388608"),
        ("TIDEGATE_RECEIVE_BUFFERS", "256"),
        ("TIDEGATE_POOL_BYTES", "16777216"),
        ("TIDEGATE_RESERVE_BYTES", "1048576"),
        ("TIDEGATE_DRAIN_TIMEOUT", "30s"),
        // A slow test machine is no reason to refuse.
        ("TIDEGATE_TARGET_UTILIZATION", "1.0"),
        ("TIDEGATE_LAG_TARGET", "0"),
    ]
}

/// A run of a fifth of a second without a warm-up, so that all it sends is measured, however late it is answered; what
/// limits it is not the test's matter.
fn short() -> [&'static str; 16] {
    [
        "--quiet",
        "--allow-bottleneck",
        "--json",
        "-",
        "--warmup",
        "0s",
        "--duration",
        "200ms",
        "--interval",
        "50ms",
        "--connections",
        "8",
        // What was sent is answered some time, however busy the machine is.
        "--timeout",
        "120s",
        "--drain",
        "120s",
    ]
}

/// Runs the load generator to its end.
pub(crate) fn load<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> std::process::Output {
    let program = env!("CARGO_BIN_EXE_tidegate-load");
    Command::new(program).args(arguments).stdin(Stdio::null()).output().expect("it runs")
}

/// A load that a signal is to end. It leads a process group of its own, as one that was typed at a terminal.
pub(crate) struct Interruptible {
    child: Child,
    progress: BufReader<std::process::ChildStderr>,
}

impl Interruptible {
    /// Starts the load generator; back when it has said its first line.
    pub(crate) fn start<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate-load"))
            .args(arguments)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let progress = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut started = Self { child, progress };
        started.next_line();
        started
    }

    fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.progress.read_line(&mut line).expect("its lines can be read");
        line
    }

    /// Back when it, or a program it started, has said this line.
    pub(crate) fn until(&mut self, said: &str) {
        let mut lines = String::new();
        while !lines.ends_with(&format!("{said}\n")) {
            let line = self.next_line();
            assert!(!line.is_empty(), "it ended before it said {said}: {lines}");
            lines += &line;
        }
    }

    /// Sends a signal, named as kill(1) does.
    pub(crate) fn signal(&self, signal: &str) {
        self.send(signal, &self.child.id().to_string());
    }

    /// Sends a signal to its whole group, as Ctrl-C does.
    pub(crate) fn signal_group(&self, signal: &str) {
        self.send(signal, &format!("-{}", self.child.id()));
    }

    fn send(&self, signal: &str, whom: &str) {
        let sent = Command::new("kill").args([signal, "--", whom]).status().expect("kill runs");
        assert!(sent.success(), "there is nothing to signal");
    }

    /// Sends a signal; exit code, standard output and the rest of what it said.
    pub(crate) fn end(self, signal: &str) -> (i32, String, String) {
        self.signal(signal);
        self.ended()
    }

    /// Waits for its end; exit code, standard output and the rest of what it said.
    pub(crate) fn ended(mut self) -> (i32, String, String) {
        // Read to its end, so that the child is not held up by it.
        let mut said = String::new();
        self.progress.read_to_string(&mut said).expect("its lines can be read");
        let output = self.child.wait_with_output().expect("it can be waited for");
        let code = output.status.code().expect("it was not killed");
        (code, String::from_utf8_lossy(&output.stdout).into_owned(), said)
    }
}

/// A program that does what `tidegate` does, but hangs in one of its commands: it says `hangs` on the standard error of the
/// load generator, and nothing more.
pub(crate) struct Hanging {
    /// Its path.
    pub(crate) program: PathBuf,
    /// A pipe that it holds open for writing.
    held: PathBuf,
}

impl Hanging {
    /// One that hangs in this command.
    pub(crate) fn new(directory: &Path, command: &str) -> Self {
        let (program, held) = (directory.join("hanging"), directory.join("held"));
        let made = Command::new("mkfifo").arg(&held).status().expect("mkfifo runs");
        assert!(made.success(), "there is no pipe");
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = {command} ]; then exec 9<>'{}'; echo hangs > /proc/$PPID/fd/2; read -r _ <&9; else exec '{}' \"$@\"; fi\n",
            show(&held),
            show(tidegate())
        );
        write_program(&program, &script);
        Self { program, held }
    }

    /// Once it hangs: what is at its end when the program has ended.
    pub(crate) fn held(&self) -> File {
        File::open(&self.held).expect("the pipe can be opened")
    }
}

/// Exit code of the load generator and what it complains of.
pub(crate) fn refusal<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> (i32, String) {
    let output = load(arguments);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().expect("it was not killed"), complaint)
}

/// A command line that starts a small server, as `crash --server` wants it.
pub(crate) fn server_command(listen: &Lease, admin: &Lease, data: &Path) -> String {
    let settings: Vec<String> = small().iter().map(|(name, value)| format!("{name}={value}")).collect();
    let (program, data) = (show(tidegate()), show(data));
    let (listen, admin) = (listen.address(), admin.address());
    format!("env {} {program} serve --listen {listen} --admin {admin} --data {data}", settings.join(" "))
}

/// A path as an argument.
pub(crate) fn show(path: &Path) -> String {
    path.to_str().expect("test paths are text").to_owned()
}

/// A program that does what `tidegate` does, with what `cat` prints going through `filter`, a shell command.
pub(crate) fn doctored(directory: &Path, filter: &str) -> PathBuf {
    let path = directory.join("doctored");
    let real = show(tidegate());
    let script =
        format!("#!/bin/sh\nif [ \"$1\" = cat ]; then '{real}' \"$@\" | {filter}; else exec '{real}' \"$@\"; fi\n");
    write_program(&path, &script);
    path
}

fn write_program(path: &Path, script: &str) {
    std::fs::write(path, script).expect("the script can be written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("it can be made a program");
}

/// A number of a result, named as `latency_us.corrected.p99`.
#[track_caller]
pub(crate) fn number(result: &Value, name: &str) -> f64 {
    let value = name.split('.').fold(result, |value, part| &value[part]);
    value.as_f64().unwrap_or_else(|| panic!("{name} is no number in {result}"))
}

/// A count of the oracle's verdict.
#[track_caller]
pub(crate) fn found(result: &Value, name: &str) -> u64 {
    result["verdict"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {}", result["verdict"]))
}
