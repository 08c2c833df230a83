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

/// What stands for a secret.
const MASK: &str = "***";

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

/// The command line as it was typed, quoted where a shell needs it, without the secrets in it: results are passed on.
fn typed() -> String {
    let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    masked(arguments.collect()).iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" ")
}

fn quoted(argument: &str) -> String {
    let is_plain = argument.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c));
    if is_plain && !argument.is_empty() { argument.into() } else { format!("'{}'", argument.replace('\'', r"'\''")) }
}

/// The arguments with what proves an identity in a `--header` taken out.
fn masked(mut arguments: Vec<String>) -> Vec<String> {
    let mut is_header = false;
    for argument in &mut arguments {
        if is_header {
            *argument = masked_header(argument);
        } else if let Some(line) = argument.strip_prefix("--header=") {
            *argument = format!("--header={}", masked_header(line));
        }
        is_header = !is_header && argument == "--header";
    }
    arguments
}

/// `Authorization: Bearer ***` of a line with a token, the line itself if its header is not one of those that hold secrets.
fn masked_header(line: &str) -> String {
    let Some((name, value)) = line.split_once(':') else { return line.into() };
    match name.trim().to_ascii_lowercase().as_str() {
        "authorization" | "proxy-authorization" => match value.trim_start().split_once(' ') {
            Some((scheme, _)) => format!("{name}: {scheme} {MASK}"),
            // A token without a scheme.
            None => format!("{name}: {MASK}"),
        },
        "x-api-key" | "cookie" => format!("{name}: {MASK}"),
        _ => line.into(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proves_an_identity_is_not_recorded() {
        for (line, shown) in [
            ("Authorization: Bearer hidden", "Authorization: Bearer ***"),
            ("authorization:Basic hidden", "authorization: Basic ***"),
            ("Authorization: Digest username=\"hidden\", uri=\"hidden\"", "Authorization: Digest ***"),
            ("Authorization: hidden", "Authorization: ***"),
            ("Proxy-Authorization: Bearer hidden", "Proxy-Authorization: Bearer ***"),
            ("X-API-Key: hidden", "X-API-Key: ***"),
            ("x-api-key : hidden hidden", "x-api-key : ***"),
            ("Cookie: a=hidden; b=hidden", "Cookie: ***"),
            ("X-Priority: high", "X-Priority: high"),
            ("no colon", "no colon"),
        ] {
            let apart = ["run", "--header", line, "--batch", "5"].map(str::to_owned).to_vec();
            assert_eq!(masked(apart), ["run", "--header", shown, "--batch", "5"], "{line}");
            assert_eq!(masked(vec![format!("--header={line}")]), [format!("--header={shown}")], "{line}");
        }
        // Of two, the second too.
        let two = ["--header", "Cookie: hidden", "--header", "Cookie: hidden"].map(str::to_owned).to_vec();
        assert!(masked(two).iter().all(|argument| !argument.contains("hidden")));
        assert_eq!(quoted("Cookie: ***"), "'Cookie: ***'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
