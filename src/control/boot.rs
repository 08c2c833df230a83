//! From a plan to running threads and back to an exit code. Main thread, which becomes the control thread.

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;

use super::cli::{EXIT_CONFIG, EXIT_HOST};
use super::config::Config;
use super::plan::Plan;
use super::plane::{PlaneConfig, Threads, run_control_plane};
use super::say;
use super::shutdown::ThreadsState;
use super::signals::Signals;
use super::view::ServerView;
use crate::metrics::{Scale, ServerMetrics};

/// Serves until the server ends; the process's exit code.
pub fn run(config: Config, plan: Plan) -> ExitCode {
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => {
            say(&format_args!("signal handlers cannot be installed: {error}"));
            return ExitCode::from(EXIT_HOST);
        }
    };
    let listener = match TcpListener::bind(plan.admin) {
        Ok(listener) => listener,
        Err(error) => {
            let given = config.sources.name("admin", &plan.admin);
            say(&format_args!("{given}: {error}; is another server running? Choose another address by --admin"));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let scale = Scale {
        log_buffer_bytes: plan.memory.log_buffer_bytes,
        target_utilization: plan.target_utilization,
        requests_per_shard_max: u64::from(plan.limits.connections_per_shard_max),
    };
    let metrics = Arc::new(ServerMetrics::new(plan.shards.len(), 0, scale));
    let view = Arc::new(ServerView::new(metrics, Vec::new(), &plan));
    let plane =
        PlaneConfig { core: plan.control_core, drain_timeout: plan.drain_timeout, poison_linger: plan.poison_linger };
    let outcome = match run_control_plane(&view, listener, &signals, &mut NoThreads { draining: false }, plane) {
        Ok(outcome) => outcome,
        Err(error) => {
            say(&error);
            return ExitCode::from(EXIT_HOST);
        }
    };
    say(&outcome);
    ExitCode::from(outcome.exit_code())
}

/// The control plane alone: it drains at once.
struct NoThreads {
    draining: bool,
}

impl Threads for NoThreads {
    fn begin_drain(&mut self) {
        self.draining = true;
    }

    fn state(&mut self) -> ThreadsState {
        if self.draining { ThreadsState::Ended } else { ThreadsState::Running }
    }

    fn reload(&mut self) -> String {
        "nothing to reload: tenants and keys are not configured, limits are fixed at start".to_owned()
    }
}
