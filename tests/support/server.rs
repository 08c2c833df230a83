//! A server process of the test's own: its data directory, its ports, its end.

use std::fs;
use std::io::{PipeReader, PipeWriter, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use super::bodies;
use super::client::{Client, Response};
use super::limits;
use super::ports::Lease;
use super::wait;

/// Other ports tried when somebody who is not a test took the leased ones.
const START_ATTEMPTS_MAX: u32 = 5;
/// A segment small enough that two prepared ones cost a test milliseconds.
const SEGMENT_BYTES: usize = 8 << 20;
/// Log buffer of a shard: holds several chunks of the longest event.
pub(crate) const LOG_BUFFER_BYTES: usize = 8 << 20;
/// Provided buffers of a shard, and their size.
pub(crate) const RECEIVE_BUFFERS: usize = 256;
/// See [`RECEIVE_BUFFERS`].
pub(crate) const RECEIVE_BUFFER_BYTES: usize = 16 << 10;
/// Pool of a shard for spanning bodies, decompression and answers.
pub(crate) const POOL_BYTES: usize = 16 << 20;

/// How a server is to be started: small pools, so that many run at once on a small machine.
#[derive(Clone)]
pub(crate) struct Setup {
    environment: Vec<(String, String)>,
    data: Option<PathBuf>,
    ignore_file_size_signal: bool,
    more_listeners: Vec<SocketAddr>,
    leave_output: bool,
}

impl Setup {
    /// One shard, small pools, sleeping when idle.
    pub(crate) fn new() -> Self {
        let this = Self {
            environment: Vec::new(),
            data: None,
            ignore_file_size_signal: false,
            more_listeners: Vec::new(),
            leave_output: false,
        };
        this.set("shards", 1)
            .set("idle", "park")
            .set("segment_bytes", SEGMENT_BYTES)
            .set("segments_ahead", 2)
            .set("log_buffer_bytes", LOG_BUFFER_BYTES)
            .set("receive_buffers", RECEIVE_BUFFERS)
            .set("receive_buffer_bytes", RECEIVE_BUFFER_BYTES)
            .set("pool_bytes", POOL_BYTES)
            .set("reserve_bytes", 1 << 20)
            // What a slow, busy test machine makes a server refuse is the business of tests/backpressure.rs only.
            .set("target_utilization", "1.0")
            .set("lag_target", 0)
            .set("drain_timeout", "30s")
            .set("poison_linger", "2s")
    }

    /// Sets a configuration key, by its environment variable.
    pub(crate) fn set(mut self, key: &str, value: impl ToString) -> Self {
        let name = format!("TIDEGATE_{}", key.to_uppercase());
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value.to_string()));
        self
    }

    /// Sets an environment variable that is no setting.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Keeps the log in `directory` instead of one that is removed with the server.
    pub(crate) fn data(mut self, directory: &Path) -> Self {
        self.data = Some(directory.to_owned());
        self
    }

    /// Lets a write beyond RLIMIT_FSIZE fail with EFBIG instead of killing the process.
    pub(crate) fn ignore_file_size_signal(mut self) -> Self {
        self.ignore_file_size_signal = true;
        self
    }

    /// Listens on `address` as well.
    pub(crate) fn listen_too(mut self, address: SocketAddr) -> Self {
        self.more_listeners.push(address);
        self
    }

    /// Leaves what the server writes in its pipe: see [`Server::take_output`].
    pub(crate) fn leave_output(mut self) -> Self {
        self.leave_output = true;
        self
    }

    /// Starts the server and waits until it is ready.
    pub(crate) fn start(self) -> Server {
        let mut server = Server::new(self);
        server.start_again();
        server
    }

    /// Runs the server until it ends by itself, for starts that are to be refused; exit code and what it said.
    pub(crate) fn start_refused(self) -> (i32, String) {
        let mut server = Server::new(self);
        server.launch();
        let status = server.wait_for_exit();
        (status.code().expect("it was not killed"), server.log())
    }
}

/// A running server. Dropping it kills it; a server that has died by itself by then fails the test.
pub(crate) struct Server {
    setup: Setup,
    home: tempfile::TempDir,
    listen: Lease,
    admin: Lease,
    child: Option<Child>,
    ended: Option<ExitStatus>,
    output: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    left: Option<(PipeReader, PipeWriter)>,
}

impl Server {
    fn new(setup: Setup) -> Self {
        Self {
            setup,
            home: tempfile::tempdir().expect("a directory for the log"),
            listen: Lease::take(),
            admin: Lease::take(),
            child: None,
            ended: None,
            output: Arc::default(),
            reader: None,
            left: None,
        }
    }

    /// A server with the harness's defaults that tests of one binary share while they overlap in time. Tests that
    /// use it must not depend on what others store.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Setup::new().start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// Address of the data port.
    pub(crate) fn listen(&self) -> SocketAddr {
        self.listen.address()
    }

    /// Address of the admin port.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Directory of the log.
    pub(crate) fn data(&self) -> PathBuf {
        self.setup.data.clone().unwrap_or_else(|| self.home.path().join("data"))
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// A new connection to the data port.
    #[track_caller]
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.listen())
    }

    /// Asks the data port on a connection of its own.
    #[track_caller]
    pub(crate) fn ask(&self, request: &[u8]) -> Response {
        self.connect().ask(request)
    }

    /// Asks the admin port on a connection of its own.
    #[track_caller]
    pub(crate) fn ask_admin(&self, route: &str) -> Response {
        Client::connect(self.admin()).ask(&bodies::bare("GET", route, ""))
    }

    /// What the server has written to standard output and error.
    pub(crate) fn log(&self) -> String {
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&output).into_owned()
    }

    /// Kills it as a crash would: no handler runs, nothing is flushed.
    pub(crate) fn kill9(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        if let Some(status) = child.try_wait().expect("the child is ours") {
            panic!("the server ended before it was killed: {status}\n{}", self.log());
        }
        child.kill().expect("the child is ours");
        child.wait().expect("the child is ours");
        self.read_to_the_end();
    }

    /// Sends SIGTERM and returns at once.
    pub(crate) fn ask_to_end(&self) {
        self.signal("TERM");
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.ask_to_end();
        self.wait_for_exit()
    }

    /// Waits until the server ends by itself or by a signal sent before.
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("the server runs");
        let status = wait::until("the server's end", || child.try_wait().expect("the child is ours"));
        self.child = None;
        self.ended = Some(status);
        self.read_to_the_end();
        status
    }

    /// Starts it on the same directory and ports and waits until it is ready.
    pub(crate) fn start_again(&mut self) {
        for attempt in 1..=START_ATTEMPTS_MAX {
            self.launch();
            if self.becomes_ready() {
                return;
            }
            let log = self.log();
            assert!(
                log.to_lowercase().contains("in use") && attempt < START_ATTEMPTS_MAX,
                "the server did not start: {:?}\n{log}",
                self.ended
            );
            self.listen = Lease::take();
            self.admin = Lease::take();
        }
    }

    /// Starts the process without waiting for anything.
    pub(crate) fn launch(&mut self) {
        assert!(self.child.is_none(), "the server runs already");
        let binary = env!("CARGO_BIN_EXE_tidegate");
        let mut command = if self.setup.ignore_file_size_signal {
            // An ignored signal stays ignored across exec.
            let mut shell = Command::new("sh");
            shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", binary]);
            shell
        } else {
            Command::new(binary)
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDEGATE_") {
                command.env_remove(name);
            }
        }
        // A pipe, not a file: tests forbid the server to write to files.
        let (mut output_end, server_end) = std::io::pipe().expect("a pipe can be made");
        command
            .arg("serve")
            .arg("--listen")
            .arg(self.listen().to_string())
            .arg("--admin")
            .arg(self.admin().to_string())
            .arg("--data")
            .arg(self.data())
            .envs(self.setup.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(server_end.try_clone().expect("the pipe is open"))
            .stderr(server_end.try_clone().expect("the pipe is open"));
        for address in &self.setup.more_listeners {
            command.arg("--listen").arg(address.to_string());
        }
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{binary}: {error}")));
        self.ended = None;
        // What it still holds of the writing end would keep the reader from the end.
        drop(command);
        if self.setup.leave_output {
            self.left = Some((output_end, server_end));
            return;
        }
        drop(server_end);
        let output = Arc::clone(&self.output);
        self.reader = Some(std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(bytes @ 1..) = output_end.read(&mut piece) {
                output.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..bytes]);
            }
        }));
    }

    /// Both ends of the pipe the server writes to, if nobody reads it.
    pub(crate) fn take_output(&mut self) -> (PipeReader, PipeWriter) {
        self.left.take().expect("it was left, and not taken yet")
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        // The shell's own `kill`: the harness needs no unsafe call for it, and no package.
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status();
        assert!(sent.expect("sh runs").success(), "SIG{name} could not be sent");
    }

    /// Stops the process, as a host does with a guest, until SIGCONT. When this returns, no thread of it runs.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.pid());
        wait::until("every thread to be stopped", || {
            let mut states = fs::read_dir(&tasks).expect("it lives").map(|task| {
                let stat = fs::read_to_string(task.expect("it can be listed").path().join("stat")).unwrap_or_default();
                // After the name, which is in parentheses: proc_pid_stat(5).
                stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
            });
            states.all(|is_stopped| is_stopped).then_some(())
        });
    }

    /// Limits the size a file may be written to from now on, 0 bytes: every write to the log fails with EFBIG.
    pub(crate) fn forbid_file_writes(&self) {
        limits::forbid_file_writes(self.pid());
    }

    fn becomes_ready(&mut self) -> bool {
        let address = self.listen();
        wait::until("the server to be ready", || {
            let child = self.child.as_mut().expect("it was launched");
            if let Some(status) = child.try_wait().expect("the child is ours") {
                self.child = None;
                self.ended = Some(status);
                self.read_to_the_end();
                return Some(false);
            }
            let mut client = Client::try_connect(address).ok()?;
            client.try_send(&bodies::bare("GET", "/ready", "")).ok()?;
            let response = client.try_receive().ok()?;
            (response.status == 200).then_some(true)
        })
    }

    fn read_to_the_end(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading a pipe does not fail");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let died = self.child.as_mut().and_then(|child| child.try_wait().expect("the child is ours"));
        if let Some(child) = &mut self.child {
            // Both fail only for a child that has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.read_to_the_end();
        if std::thread::panicking() {
            eprintln!("---- the server's output ----\n{}----", self.log());
        } else if let Some(status) = died {
            panic!("the server died under the test: {status}\n{}", self.log());
        }
    }
}
