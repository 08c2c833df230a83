//! The `tidegate` command: `serve`, `plan`, `cat`, `verify`, `key`. What each does is in `control::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate::control::cli::run(std::env::args_os())
}
