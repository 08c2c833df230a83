//! The command line: what was typed becomes a plan or a refusal that says the fix. Main thread.

mod compare;
mod crash;
mod load;
mod outputs;
mod run;
mod sink;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use load::LoadArgs;

use crate::interrupt::Signal;

/// Why a command ends with another code than 0; see `loadtest/docs/result.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Ok,
    /// A threshold was missed, or a comparison found a difference.
    Missed,
    /// An option or file cannot be what is meant.
    Usage,
    /// The host or the target cannot.
    Unable,
    /// The oracle found something wrong.
    Unsound,
    /// The figures say nothing about the server, mostly because the generator was the bottleneck.
    Invalid,
    /// Ended by a signal before it was done.
    Interrupted(Signal),
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Missed => 1,
            Self::Usage => 2,
            Self::Unable => 3,
            Self::Unsound => 4,
            Self::Invalid => 5,
            Self::Interrupted(signal) => signal.exit_code(),
        }
    }
}

/// A command that could not do what it was asked to.
#[derive(Clone, Debug)]
pub struct Failure {
    exit: Exit,
    text: String,
}

impl Failure {
    /// An option or file that cannot be what is meant.
    #[must_use]
    pub fn usage(text: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, text: text.into() }
    }

    /// Something the host or the target cannot.
    #[must_use]
    pub fn unable(text: impl Into<String>) -> Self {
        Self { exit: Exit::Unable, text: text.into() }
    }
}

/// Load generator for HTTP event ingestion: open loop, latency from the intended send time, an oracle for what was
/// acknowledged.
#[derive(Debug, Parser)]
#[command(name = "tidegate-load", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put load on a server and say how it answered.
    Run(Box<run::RunArgs>),
    /// Rounds of load, kill -9 of the server, restart, and a look for everything that was acknowledged.
    Crash(Box<crash::CrashArgs>),
    /// Whether one result is worse than another, beyond their noise.
    Compare(compare::CompareArgs),
    /// Receive and answer, or drop, as fast as a bare io_uring loop can: the ceiling of network and kernel.
    Sink(sink::SinkArgs),
}

/// Reads the command line, does what it says, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Crash(args) => crash::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Sink(args) => sink::run(&args),
    };
    let exit = outcome.unwrap_or_else(|failure| {
        eprintln!("tidegate-load: {}", failure.text);
        failure.exit
    });
    ExitCode::from(exit.code())
}

/// The command line as it was typed, quoted where a shell needs it.
fn typed() -> String {
    let quote = |argument: String| {
        let is_plain = argument.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c));
        if is_plain && !argument.is_empty() { argument } else { format!("'{}'", argument.replace('\'', r"'\''")) }
    };
    std::env::args().map(quote).collect::<Vec<_>>().join(" ")
}

/// Prints to standard output. A reader that went away ends nothing: the exit code still counts.
fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes a file; `-` is standard output.
fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    if path == Path::new("-") {
        print(text);
        return Ok(());
    }
    std::fs::write(path, text).map_err(|error| Failure::unable(format!("{}: {error}", path.display())))
}
