//! The control plane: what runs before the shards and writers, and beside them. Main and control thread.

pub mod advice;
pub mod config;
pub mod host;
pub mod plan;
pub mod plan_view;
pub mod quantity;
pub mod settings;

pub use config::{Config, ConfigError};
pub use host::{Host, HostError};
pub use plan::{Plan, PlanError};
