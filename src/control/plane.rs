//! The control thread's loop: once a second it turns counters into rates and looks whether all is well; in between it
//! answers the admin port; a signal wakes it at once.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_lite::future::or;
use futures_lite::io::AsyncReadExt;
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement, PoolPlacement};

use super::admin_server::{self, Deadlines};
use super::shutdown::{Action, Facts, Outcome, Shutdown, ThreadsState};
use super::signals::Signals;
use super::view::ServerView;
use super::{manager, say};
use crate::metrics::Summarizer;
use crate::sys::{affinity, executor};

/// Rates are computed over this time, and failures noticed within it.
const TICK: Duration = Duration::from_secs(1);
/// On the way out, looks come more often, so that the process ends soon after its threads.
const TICK_ENDING: Duration = Duration::from_millis(10);
/// Submission queue of each of the executor's rings: it has a listener, a timer and at most 64 connections.
const RING_DEPTH: usize = 128;
/// What the executor asks the kernel to register for file I/O, of which the control thread does none: its least.
const EXECUTOR_IO_BYTES: usize = 64 * 1024;

/// The shards and writers, as far as the control thread commands them.
pub trait Threads {
    /// Tells the shards to stop accepting, answer what is in flight, and end; called once.
    fn begin_drain(&mut self);

    /// Whether they run. Called every tick; must not block.
    fn state(&mut self) -> ThreadsState;

    /// Reads again what can be read again; what it was, for the log.
    fn reload(&mut self) -> String;
}

/// How the control thread runs.
#[derive(Clone, Debug)]
pub struct PlaneConfig {
    /// What a service manager is told once all is running.
    pub serves: String,
    /// The core to pin it to.
    pub core: usize,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// How long to answer 503 after a writer failed.
    pub poison_linger: Duration,
}

/// The control thread's executor could not start.
#[derive(Debug)]
pub struct ExecutorError(io::Error);

impl fmt::Display for ExecutorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the control thread's executor cannot start: {}", self.0)
    }
}

impl std::error::Error for ExecutorError {}

impl From<ExecutorError> for io::Error {
    fn from(error: ExecutorError) -> Self {
        Self::new(error.0.kind(), error)
    }
}

/// Runs the control plane on the calling thread until the server ends: asked to by a signal and drained, a writer
/// failed, or a thread was lost.
///
/// The thread is pinned, so threads are to be started before this or must pin themselves.
///
/// # Errors
/// When the executor's rings cannot be had.
pub fn run_control_plane(
    view: &Arc<ServerView>,
    listener: TcpListener,
    signals: &Signals,
    threads: &mut dyn Threads,
    config: PlaneConfig,
) -> Result<Outcome, ExecutorError> {
    if let Err(error) = affinity::pin_current_thread(config.core) {
        say(&format_args!("{error}; the control thread runs where the kernel puts it"));
    }
    // Unbound, because the thread is pinned already. No spinning before it parks: an idle server should cost nothing.
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .name("control")
        .io_memory(EXECUTOR_IO_BYTES)
        .ring_depth(RING_DEPTH)
        // No thread for calls that block: there are none here, and the executor panics where it cannot have it.
        .blocking_thread_pool_placement(PoolPlacement::Custom(Vec::new()))
        .make()
        .map_err(|error| ExecutorError(error.into()))?;
    let wake = signals.wake_socket().map_err(ExecutorError)?;
    Ok(executor.run(async {
        let deadlines = Deadlines::default();
        glommio::spawn_local(admin_server::serve(listener, Arc::clone(view), deadlines.clone())).detach();
        let mut wake = executor::adopt_unix_stream(wake);
        manager::serves(&config.serves);
        let wait = async |time| or(wait_for_tick(time), wait_for_signal(&mut wake)).await;
        watch(view, signals, threads, &deadlines, config, wait).await
    }))
}

async fn wait_for_tick(time: Duration) {
    sleep(time).await;
}

async fn wait_for_signal(wake: &mut glommio::net::UnixStream) {
    let mut bytes = [0u8; 64];
    if wake.read(&mut bytes).await.is_err() {
        // The flags are looked at every tick as well; without the socket only the haste is lost.
        std::future::pending::<()>().await;
    }
}

async fn watch(
    view: &ServerView,
    signals: &Signals,
    threads: &mut dyn Threads,
    deadlines: &Deadlines,
    config: PlaneConfig,
    mut wait: impl AsyncFnMut(Duration),
) -> Outcome {
    let mut summarizer = Summarizer::new(&view.metrics);
    let mut shutdown = Shutdown::new(config.drain_timeout, config.poison_linger);
    let mut last_tick = Instant::now();
    let mut told_of_retention = false;
    loop {
        if signals.take_reload() {
            manager::reloads();
            let came_of_it = format!("SIGHUP: {}", threads.reload());
            say(&came_of_it);
            manager::serves(&came_of_it);
        }
        let now = Instant::now();
        let facts = Facts { now, stop_asked: signals.stop_asked(), failure: view.failure(), threads: threads.state() };
        match shutdown.step(&facts) {
            Action::Wait => {}
            Action::BeginDrain => {
                say(&"draining: no new connections; requests in flight are answered (once more to stop at once)");
                manager::stops("draining: requests in flight are answered");
                view.draining.store(true, Ordering::Relaxed);
                threads.begin_drain();
            }
            Action::BeginLinger(failure) => {
                say(&format_args!(
                    "{failure}; nothing more is acknowledged, requests are answered 503, exit in {} s",
                    config.poison_linger.as_secs()
                ));
                manager::stops(&format!("{failure}; requests are answered 503"));
            }
            Action::End(outcome) => return outcome,
        }
        if now - last_tick >= TICK {
            summarizer.tick(&view.metrics, now - last_tick);
            deadlines.expire(now);
            if let Some(why) = view.retention_stands_still().filter(|_| !told_of_retention) {
                told_of_retention = true;
                say(&why);
            }
            last_tick = now;
        }
        let next = if shutdown.is_ending() { TICK_ENDING } else { TICK.saturating_sub(now - last_tick) };
        wait(next).await;
    }
}

#[cfg(test)]
#[path = "plane_tests.rs"]
mod tests;
