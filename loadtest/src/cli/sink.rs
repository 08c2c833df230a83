//! `tidegate-load sink`: the ceiling, as a server to be measured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;

use super::{Exit, Failure, print};
use crate::quantity;
use crate::sink::{Sink, SinkCounts, SinkMode, Stall};

/// See the module text.
#[derive(Clone, Debug, Args)]
pub(super) struct SinkArgs {
    /// Address to listen on; port 0 takes a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:9090", value_name = "ADDR")]
    listen: SocketAddr,
    /// Answer every request with 204, or drop every byte unread.
    #[arg(long, value_enum, default_value_t = SinkMode::Answer)]
    mode: SinkMode,
    /// Core to run on.
    #[arg(long, value_name = "N")]
    core: Option<usize>,
    /// Stall for so long, once: shows what a stall does to measured latencies.
    #[arg(long, value_parser = quantity::duration, value_name = "TIME", requires = "stall_after")]
    stall: Option<Duration>,
    /// Requests after which it stalls.
    #[arg(long, value_name = "N", requires = "stall")]
    stall_after: Option<u64>,
}

/// Serves until SIGINT or SIGTERM.
pub(super) fn run(args: &SinkArgs) -> Result<Exit, Failure> {
    let stall = args.stall.zip(args.stall_after).map(|(length, after_requests)| Stall { after_requests, length });
    let unable = |error: std::io::Error| Failure::unable(format!("{}: {error}", args.listen));
    let sink = Sink::bind(args.listen, args.mode, stall).map_err(unable)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGINT, libc::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(unable)?;
    }
    print(&format!("listening on {}\n", sink.address().map_err(unable)?));
    let counts = SinkCounts::default();
    sink.serve(args.core, &stop, &counts).map_err(unable)?;
    let (requests, bytes) = (counts.requests.load(Ordering::Relaxed), counts.bytes.load(Ordering::Relaxed));
    print(&format!("{requests} requests, {bytes} bytes\n"));
    Ok(Exit::Ok)
}
