//! The lines of a log, as `tidegate cat` prints them. Main thread.
//!
//! A child process and not the server's library: what is judged is what every other reader of the log would see, and the
//! judge runs with any version of the server.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::sys::process;

/// Bytes read from the child at a time.
const READ_BYTES: usize = 1 << 20;
/// How soon a child is ended that nobody wants to go on.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The `tidegate` program: the one given, else the one beside this program, else the one on PATH.
#[must_use]
pub fn program(given: Option<&Path>) -> PathBuf {
    if let Some(given) = given {
        return given.to_owned();
    }
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("tidegate")));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("tidegate"))
}

/// Whether the program can be started at all.
///
/// # Errors
/// A sentence: it is not there, or does not do what it is asked to.
pub fn check_program(program: &Path) -> Result<(), String> {
    let asked = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match asked {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} --version: {status}; name the program with --tidegate", program.display())),
        Err(error) => Err(format!("{}: {error}; name the program with --tidegate", program.display())),
    }
}

/// Shows `line` every durable event of the log in `data`, until it says no, or `goes_on` does. The program is in a process
/// group of its own: Ctrl-C in a terminal is for this process alone, which decides what becomes of the other.
///
/// # Errors
/// A sentence: the program cannot be run, or it could not read the log.
pub fn read(
    program: &Path,
    data: &Path,
    goes_on: &(dyn Fn() -> bool + Sync),
    line: impl FnMut(&[u8]) -> bool,
) -> Result<(), String> {
    let mut command = Command::new(program);
    command
        .args([OsStr::new("cat"), OsStr::new("--data"), data.as_os_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    process::dies_with_us(&mut command);
    let mut child =
        command.spawn().map_err(|error| format!("{}: {error}; name the program with --tidegate", program.display()))?;
    let output = BufReader::with_capacity(READ_BYTES, child.stdout.take().expect("it is piped"));
    let errors = child.stderr.take().expect("it is piped");
    let (outcome, complaint) = thread::scope(|scope| {
        let (done, is_done) = mpsc::channel::<()>();
        let leader = &child;
        // Beside the reading, which waits for as long as the child is silent. It ends before the child is waited for, so that
        // the group it kills is the child's.
        scope.spawn(move || {
            while is_done.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                if !goes_on() {
                    let _ = process::signal_group(leader, libc::SIGKILL);
                    return;
                }
            }
        });
        // Beside the output: a child that complains much must not block on its complaint.
        let complaint = scope.spawn(move || text_of(errors));
        let outcome = lines(output, line);
        if !matches!(outcome, Ok(Read::ToItsEnd)) {
            // Its pipe is closed; all that holds the other one is to end, too.
            let _ = process::signal_group(&child, libc::SIGKILL);
        }
        let complaint = complaint.join().unwrap_or_default();
        drop(done);
        (outcome, complaint)
    });
    let status = child.wait().map_err(|error| format!("{}: {error}", program.display()))?;
    match outcome? {
        Read::ToItsEnd if !status.success() => {
            Err(format!("{} cat --data {}: {status}: {}", program.display(), data.display(), complaint.trim()))
        }
        Read::ToItsEnd | Read::Enough => Ok(()),
    }
}

/// How far an output was read.
enum Read {
    ToItsEnd,
    /// Until no more was wanted.
    Enough,
}

fn lines(mut output: impl BufRead, mut line: impl FnMut(&[u8]) -> bool) -> Result<Read, String> {
    let mut bytes = Vec::with_capacity(8 << 10);
    loop {
        bytes.clear();
        let read = output.read_until(b'\n', &mut bytes).map_err(|error| format!("reading the log: {error}"))?;
        if read == 0 {
            return Ok(Read::ToItsEnd);
        }
        if !line(bytes.strip_suffix(b"\n").unwrap_or(&bytes)) {
            return Ok(Read::Enough);
        }
    }
}

/// What cannot be read is no reason to hide the exit status.
fn text_of(mut errors: impl io::Read) -> String {
    let mut text = String::new();
    let _ = errors.read_to_string(&mut text);
    text
}
