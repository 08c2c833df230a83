//! The control plane: what runs before the shards and writers, and beside them. Main and control thread.
//!
//! ```text
//! flags, environment, file → settings → Config ┐
//!                     the machine → Host ──────┴→ Plan → boot → run_control_plane → exit code
//! ```

use std::fmt;

use crate::sys::stderr;

pub mod admin;
pub mod admin_server;
pub mod advice;
pub mod boot;
pub mod cli;
pub mod config;
pub mod host;
pub mod keys;
pub mod manager;
pub mod plan;
pub mod plan_view;
pub mod plane;
pub mod prometheus;
pub mod quantity;
pub mod readers;
pub mod settings;
pub mod shutdown;
pub mod signals;
pub mod tenant_numbers;
pub mod tenants;
pub mod view;

pub use config::{Config, ConfigError};
pub use host::{Host, HostError};
pub use plan::{Plan, PlanError};
pub use plane::{PlaneConfig, Threads, run_control_plane};
pub use shutdown::{Outcome, ThreadsState};
pub use signals::Signals;
pub use view::ServerView;

/// Tells the operator one thing: a line on stderr. For events in the life of the server, never for events in it.
pub fn say(message: &dyn fmt::Display) {
    stderr::tell(&format!("tidegate: {message}\n"));
}
