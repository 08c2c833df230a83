//! tidegate-load: load for HTTP event ingestion, and whether what was acknowledged is stored. This page is the table of
//! contents.
//!
//! ```text
//! schedule → plan → generator threads → intervals → report
//!                        │   ↑
//!                     request answer             oracle ← tidegate cat
//!                        ↓   │                     ↑
//!                        server ──── log ──────────┘
//! ```
//!
//! | module | what | thread |
//! |---|---|---|
//! | [`schedule`], [`random`], [`quantity`] | intended send times; numbers from a seed; how people write quantities | any, pure |
//! | [`event`] | names and shapes of events | any, pure |
//! | [`request`], [`response`] | images to be patched; where an answer ends; how it is judged | generator, pure |
//! | [`plan`] | what a run is to do | read-only |
//! | [`generator`] | the loop that sends and reads | generator |
//! | [`scenario`] | a load's shape from a TOML file | main |
//! | [`run`] | starts the threads, joins what they counted | main |
//! | [`oracle`] | what was acknowledged against what is stored | main |
//! | [`crash`] | rounds of load, kill -9, restart, oracle | main |
//! | [`report`] | results for programs and people | main |
//! | [`interrupt`] | SIGINT and SIGTERM | any |
//! | [`sink`] | a server that does nothing: the ceiling | its own |
//! | [`cli`] | commands and options | main |
//!
//! Nothing here uses the server's code, not even to read its log: generator and judge must not share its mistakes. Logs
//! are read by `tidegate cat`, the way every other program reads them.
#![deny(unsafe_code)]

pub mod cli;
pub mod crash;
pub mod event;
pub mod generator;
pub mod interrupt;
pub mod oracle;
pub mod plan;
pub mod quantity;
pub mod random;
pub mod report;
pub mod request;
pub mod response;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod sink;
mod sys;
