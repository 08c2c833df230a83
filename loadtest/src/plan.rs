//! What a run is to do: decided before it starts, from the command line or a scenario, and read-only from then on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::event::Templates;
use crate::request::{Check, HeadOptions, KindOptions};
use crate::schedule::{Arrivals, Curve};

/// Connections of a run, and slow readers beside them: more than the descriptors and ports that a host has for one target.
pub const CONNECTIONS_MAX: usize = 1_000_000;

/// When requests are sent.
#[derive(Clone, Debug)]
pub enum Mode {
    /// At the times of a schedule, whatever the server does.
    Open {
        /// Requests per second over time, the warm-up included.
        curve: Curve,
        /// How arrivals are drawn from it.
        arrivals: Arrivals,
    },
    /// As soon as a connection is free: peak throughput.
    Closed,
}

/// One kind of request and how often it is picked.
#[derive(Clone, Debug)]
pub struct Share {
    /// What is sent.
    pub options: KindOptions,
    /// Weight among the kinds.
    pub weight: f64,
}

/// See the module text.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the server listens.
    pub target: SocketAddr,
    /// When requests are sent.
    pub mode: Mode,
    /// Clients over time, the warm-up included: how many connections are in use. `None`: all of them.
    pub clients: Option<Curve>,
    /// Connections of all threads.
    pub connections: usize,
    /// Requests under way on one connection.
    pub pipeline: usize,
    /// Requests after which a connection is closed and another opened.
    pub requests_per_connection: Option<u32>,
    /// Kinds of requests.
    pub shares: Vec<Share>,
    /// What all heads have in common.
    pub head: HeadOptions,
    /// API keys; the first is used most.
    pub keys: Vec<String>,
    /// Exponent of Zipf's law by which keys are picked.
    pub key_skew: f64,
    /// Events.
    pub templates: Arc<Templates>,
    /// Load before measuring begins.
    pub warmup: Duration,
    /// Measured load.
    pub duration: Duration,
    /// How long answers are waited for at the end.
    pub drain: Duration,
    /// How long one answer is waited for.
    pub timeout: Duration,
    /// Length of an interval of the time series.
    pub interval: Duration,
    /// What everything random comes from.
    pub seed: u64,
    /// Core of each generator thread; `None` is not pinned.
    pub cores: Vec<Option<usize>>,
    /// Connections that read slowly, beside the others.
    pub slow_readers: usize,
    /// Whether acknowledged events are remembered for the oracle.
    pub keeps_ledger: bool,
}

impl Plan {
    /// Generator threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.cores.len()
    }

    /// How closely answers are looked at.
    #[must_use]
    pub fn check(&self) -> Check {
        self.head.check
    }

    /// From the start to the end of the schedule, ns.
    #[must_use]
    pub fn end_ns(&self) -> u64 {
        (self.warmup + self.duration).as_nanos() as u64
    }

    /// Where measuring begins, ns from the start.
    #[must_use]
    pub fn warmup_ns(&self) -> u64 {
        self.warmup.as_nanos() as u64
    }

    /// Connections of one thread: an equal part, the first threads one more.
    #[must_use]
    pub fn connections_of(&self, thread: usize) -> usize {
        part_of(self.connections, thread, self.threads())
    }

    /// Slow readers of one thread.
    #[must_use]
    pub fn slow_readers_of(&self, thread: usize) -> usize {
        part_of(self.slow_readers, thread, self.threads())
    }
}

fn part_of(whole: usize, thread: usize, threads: usize) -> usize {
    whole / threads + usize::from(thread < whole % threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_threads_make_up_the_whole() {
        for (whole, threads) in [(10, 3), (1, 4), (64, 1), (7, 7)] {
            let parts: Vec<usize> = (0..threads).map(|thread| part_of(whole, thread, threads)).collect();
            assert_eq!(parts.iter().sum::<usize>(), whole);
            assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1);
        }
    }
}
