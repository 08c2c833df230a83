//! The harness of the black-box tests: a server process, a raw-socket client, event generators and an oracle.
//!
//! Nothing here uses the server's own code, so that a bug in it cannot cancel itself out. Tests wait for events (an
//! answer, a closed connection, an exit, a metric), never for time; [`wait`] is the one place that pauses.
#![allow(dead_code, reason = "each test binary compiles the harness and uses its part of it")]

pub(crate) mod audit;
pub(crate) mod bodies;
pub(crate) mod client;
pub(crate) mod events;
pub(crate) mod limits;
pub(crate) mod load;
pub(crate) mod mount;
pub(crate) mod observe;
pub(crate) mod ports;
pub(crate) mod random;
pub(crate) mod server;
pub(crate) mod wait;
