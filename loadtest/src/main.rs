//! `tidegate-load`: see `tidegate-load --help` and `loadtest/docs/result.md`.

fn main() -> std::process::ExitCode {
    tidegate_load::cli::main()
}
