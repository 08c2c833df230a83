//! The command line: which command with which flags, and the exit code it ends with. Main thread.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::config::{Config, ConfigError};
use super::host::{self, Host, HostError};
use super::keys::{self, NewKey};
use super::plan::{Plan, PlanError};
use super::readers::{self, ReadError};
use super::settings::{self, Settings};
use super::{boot, say};
use crate::base::Position;
use crate::log::CatOptions;
use crate::sys::stderr;

/// Usage or configuration.
pub const EXIT_CONFIG: u8 = 2;
/// The host cannot run a server, or a file cannot be read.
pub const EXIT_HOST: u8 = 3;
/// The log is damaged.
pub const EXIT_DAMAGED: u8 = 4;

/// HTTP event ingestion for bare-metal Linux: every event is on disk before its 2xx.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 110, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Without arguments: serve with defaults. Every flag of serve is also an environment variable \
(TIDEGATE_…) and a key of the file given by --config; flags win over the environment, the environment over the file.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(Serve),
    /// Show what serve would run with the same flags, and what could be better on this host
    Plan {
        #[command(flatten)]
        serve: Serve,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print every durable event, one JSON per line
    Cat(Cat),
    /// Check the integrity of a log
    Verify(Verify),
    /// Make API keys
    #[command(subcommand)]
    Key(Key),
}

#[derive(Debug, Subcommand)]
enum Key {
    /// Make a key, show it once, and the entry that lets it in
    New {
        /// The tenant it is for
        #[arg(value_name = "TENANT")]
        name: String,
    },
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// TOML file to read settings from
    #[arg(long, env = "TIDEGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, clap::Args)]
struct Cat {
    /// Directory of the log
    #[arg(long, env = "TIDEGATE_DATA", value_name = "DIR", default_value = "./tidegate-data")]
    data: PathBuf,
    /// Go on with events as they become durable, until interrupted
    #[arg(long)]
    follow: bool,
    /// Only events of this tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Begin at this position, as answered by the server, and print only the log of its writer
    #[arg(long, value_name = "POSITION")]
    from: Option<Position>,
    /// Print each event with its position, tenant and time of receipt
    #[arg(long)]
    with_meta: bool,
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// Directory of the log
    #[arg(long, env = "TIDEGATE_DATA", value_name = "DIR", default_value = "./tidegate-data")]
    data: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command that `arguments` (the program's name first) ask for, to its end; the process's exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.len() <= 1 {
        arguments.resize(1, "tidegate".into());
        arguments.push("serve".into());
    }
    let parsed = Arguments::command()
        .try_get_matches_from(&arguments)
        .and_then(|matches| Ok((Arguments::from_arg_matches(&matches)?, matches)));
    let (parsed, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            if let Some(refusal) = settings::refused_variable(&error, &arguments) {
                say(&refusal);
                return ExitCode::from(EXIT_CONFIG);
            }
            // Help and version go to stdout with 0, the rest to stderr with 2. Nobody is left to tell if that fails.
            let _closed = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_CONFIG));
        }
    };
    let (_, matches) = matches.subcommand().expect("a command was parsed");
    let done = match parsed.command {
        Command::Serve(serve) => prepare(serve, matches).map(|(config, plan)| serve_until_the_end(&config, &plan)),
        Command::Plan { serve, json } => prepare(serve, matches).map(|(_, plan)| show_plan(&plan, json)),
        Command::Cat(cat) => Ok(print_events(cat)),
        Command::Verify(verify) => Ok(print_verification(&verify)),
        Command::Key(Key::New { name }) => Ok(print_new_key(&name)),
    };
    done.unwrap_or_else(|refusal| {
        say(&refusal);
        ExitCode::from(refusal.exit_code())
    })
}

/// Why nothing was started.
#[derive(Debug)]
enum Refusal {
    Config(ConfigError),
    Host(HostError),
    Plan(PlanError),
}

impl Refusal {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Plan(_) => EXIT_CONFIG,
            Self::Host(_) => EXIT_HOST,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Host(error) => error.fmt(f),
            Self::Plan(error) => error.fmt(f),
        }
    }
}

/// From flags to a plan: what `serve` and `plan` share.
fn prepare(serve: Serve, matches: &ArgMatches) -> Result<(Config, Plan), Refusal> {
    let (settings, sources) =
        settings::merge(serve.settings, matches, serve.config.as_deref()).map_err(Refusal::Config)?;
    let config = Config::resolve(settings, sources).map_err(Refusal::Config)?;
    for name in settings::unknown_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())) {
        say(&format_args!("{name} is set, but there is no such setting: it has no effect"));
    }
    host::raise_limits().map_err(Refusal::Host)?;
    let given = config.sources.name("data", &config.data.display());
    let host = Host::inspect(&config.data, &given).map_err(Refusal::Host)?;
    host.check().map_err(Refusal::Host)?;
    let plan = Plan::make(&config, &host).map_err(Refusal::Plan)?;
    Ok((config, plan))
}

fn serve_until_the_end(config: &Config, plan: &Plan) -> ExitCode {
    stderr::tell(&format!("tidegate {}\n{plan}", super::plan_view::VERSION));
    boot::run(config, plan)
}

fn show_plan(plan: &Plan, json: bool) -> ExitCode {
    let text = if json { plan.to_json() + "\n" } else { plan.to_string() };
    printed(io::stdout().lock().write_all(text.as_bytes()))
}

fn print_events(cat: Cat) -> ExitCode {
    let Cat { data, follow, tenant, from, with_meta } = cat;
    // Through a buffer: std's stdout looks for line ends in every write.
    let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    let read = readers::cat(&CatOptions { directory: data, follow, tenant, from, with_meta }, &mut out);
    // What was read before an error is printed before it is told.
    match (out.flush(), read) {
        (Ok(()), Ok(())) => ExitCode::SUCCESS,
        (Err(error), Ok(())) => printed(Err(error)),
        (_, Err(error)) => read_failed(&error),
    }
}

fn print_verification(verify: &Verify) -> ExitCode {
    match readers::verify(&verify.data) {
        Ok(report) => {
            let text = if verify.json { &report.json } else { &report.text };
            let code = printed(writeln!(io::stdout().lock(), "{}", text.trim_end()));
            if report.sound { code } else { ExitCode::from(EXIT_DAMAGED) }
        }
        Err(error) => read_failed(&error),
    }
}

fn print_new_key(name: &str) -> ExitCode {
    match keys::make_key(name) {
        Ok(NewKey { key, entry }) => printed(writeln!(io::stdout().lock(), "{key}\n\n{}", entry.trim_end())),
        Err(problem) => {
            say(&format_args!("key new {name}: {problem}"));
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

fn read_failed(error: &ReadError) -> ExitCode {
    match error {
        ReadError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        _ => say(error),
    }
    ExitCode::from(match error {
        ReadError::Request(_) => EXIT_CONFIG,
        ReadError::Log(_) | ReadError::Output(_) => EXIT_HOST,
        ReadError::Damaged(_) => EXIT_DAMAGED,
    })
}

/// A reader that hangs up (`tidegate cat | head`) has seen what it wanted: that is success.
fn printed(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => read_failed(&ReadError::Output(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn help_names_every_setting_and_its_default() {
        let mut serve = Arguments::command().find_subcommand("serve").unwrap().clone();
        let help = serve.render_long_help().to_string();
        for key in settings::KEYS {
            assert!(
                help.contains(&settings::flag_name(key)) && help.contains(&settings::environment_name(key)),
                "{key}"
            );
        }
    }

    #[test]
    fn a_position_to_begin_at_is_read_or_refused() {
        let arguments = ["tidegate", "cat", "--from", "0-1-2-3", "--follow"];
        let Command::Cat(cat) = Arguments::try_parse_from(arguments).unwrap().command else { panic!("not cat") };
        assert_eq!(cat.from.map(|from| from.to_string()).as_deref(), Some("0-1-2-3"));
        assert!(cat.follow && !cat.with_meta);
        let wrong = Arguments::try_parse_from(["tidegate", "cat", "--from", "7"]).unwrap_err().to_string();
        assert!(wrong.contains("'7' is not a position: expected writer-shard-seq-index"), "{wrong}");
    }
}
