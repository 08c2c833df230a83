//! The lines of a log, as `tidegate cat` prints them. Main thread.
//!
//! A child process and not the server's library: what is judged is what every other reader of the log would see, and the
//! judge runs with any version of the server.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Bytes read from the child at a time.
const READ_BYTES: usize = 1 << 20;

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

/// Shows `line` every durable event of the log in `data`, until it says no.
///
/// # Errors
/// A sentence: the program cannot be run, or it could not read the log.
pub fn read(program: &Path, data: &Path, mut line: impl FnMut(&[u8]) -> bool) -> Result<(), String> {
    let arguments = [OsStr::new("cat"), OsStr::new("--data"), data.as_os_str()];
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}; name the program with --tidegate", program.display()))?;
    let mut output = BufReader::with_capacity(READ_BYTES, child.stdout.take().expect("it is piped"));
    let mut errors = child.stderr.take().expect("it is piped");
    // Read beside the output: a child that complains much must not block on its complaint.
    let complaint = std::thread::spawn(move || {
        let mut text = String::new();
        // What cannot be read is no reason to hide the exit status.
        let _ = errors.read_to_string(&mut text);
        text
    });
    let mut bytes = Vec::with_capacity(8 << 10);
    let mut goes_on = true;
    loop {
        bytes.clear();
        let read = output.read_until(b'\n', &mut bytes).map_err(|error| format!("reading the log: {error}"))?;
        if read == 0 {
            break;
        }
        goes_on = line(bytes.strip_suffix(b"\n").unwrap_or(&bytes));
        if !goes_on {
            break;
        }
    }
    drop(output);
    if !goes_on {
        // Its pipe is closed; it may also be asked to end.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| format!("{}: {error}", program.display()))?;
    let complaint = complaint.join().unwrap_or_default();
    if goes_on && !status.success() {
        return Err(format!("{} cat --data {}: {status}: {}", program.display(), data.display(), complaint.trim()));
    }
    Ok(())
}
