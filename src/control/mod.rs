//! The control plane: what runs before the shards and writers, and beside them. Main and control thread.

pub mod config;
pub mod quantity;
pub mod settings;

pub use config::{Config, ConfigError};
