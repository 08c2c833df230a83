//! From a plan to running threads and back to an exit code. Main thread, which becomes the control thread.
//!
//! Order matters: the data directory is locked before anything in it is read; the log is recovered before shards learn
//! their last chunk numbers; listeners are bound before threads start, so that a taken address costs nothing; and the
//! server says that it is ready only when every shard has its ring and every writer its segment.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::cli::{EXIT_CONFIG, EXIT_DAMAGED, EXIT_HOST};
use super::config::Config;
use super::host::memlock_advice;
use super::keys::KeysError;
use super::manager;
use super::plan::Plan;
use super::plane::{PlaneConfig, Threads, run_control_plane};
use super::quantity::{IdlePolicy, SyncChoice};
use super::say;
use super::shutdown::{Outcome, ThreadsState};
use super::signals::Signals;
use super::tenant_numbers::NumbersError;
use super::tenants::{ForShard, Tenants};
use super::view::ServerView;
use crate::admit;
use crate::base::{PAGE_BYTES, ShardId, WriterId};
use crate::handoff::{Bell, ShardPort, WriterFailure, WriterPort, WriterState, WriterStatus, channel};
use crate::metrics::{Scale, ServerMetrics};
use crate::shard::{self, Idle, Peers, Setup};
use crate::sys::memory::Region;
use crate::sys::storage::{self, DataLock};
use crate::sys::{affinity, net, priority};
use crate::writer::{self, OpenError, Opened, Writer, WriterConfig};

/// What an adaptive shard spins before it sleeps: about as long as a sleep and a wake-up cost together.
const ADAPTIVE_SPIN: Duration = Duration::from_micros(50);
/// Chunks that may be on their way between one shard and its writer. More than a group takes, fewer than would make the
/// rings outgrow a second-level cache.
const CHUNKS_IN_FLIGHT_MAX: usize = 2048;
/// How long the control thread waits for the shards beyond the time they give themselves to drain.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);

/// Why a server did not start.
#[derive(Debug)]
pub enum BootError {
    /// An address cannot be listened on.
    Address {
        /// The setting and its value.
        given: String,
        /// What the system answered.
        error: io::Error,
    },
    /// A log cannot be opened.
    Log(OpenError),
    /// There is no telling who may send.
    Keys(KeysError),
    /// The host lacks something: memory, descriptors, a kernel feature.
    Host {
        /// What was tried.
        what: String,
        /// What the system answered.
        error: io::Error,
    },
}

impl BootError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Keys(KeysError::Numbers(NumbersError::Line { .. } | NumbersError::Missing { .. })) => EXIT_DAMAGED,
            Self::Keys(KeysError::Numbers(NumbersError::Io { .. })) => EXIT_HOST,
            Self::Address { .. } | Self::Log(OpenError::Config(_)) | Self::Keys(_) => EXIT_CONFIG,
            Self::Log(OpenError::Damaged(_)) => EXIT_DAMAGED,
            Self::Log(_) | Self::Host { .. } => EXIT_HOST,
        }
    }
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { given, error } => write!(f, "{given}: {error}; {}", address_advice(error)),
            Self::Log(error) => error.fmt(f),
            Self::Keys(error) => error.fmt(f),
            Self::Host { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

/// How long an address may be in use before that is an error. The kernel ends a killed process's rings, and with them its
/// sockets, a little after the process itself: a restart right after kill -9 finds its own addresses bound.
const FORMER_ENDS_WITHIN: Duration = Duration::from_secs(3);
/// Between two attempts to bind.
const BIND_AGAIN_AFTER: Duration = Duration::from_millis(20);

fn host(what: impl Into<String>) -> impl FnOnce(io::Error) -> BootError {
    let what = what.into();
    move |error| BootError::Host { what, error }
}

fn advised(error: &io::Error, advice: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{error}; {advice}"))
}

/// EAGAIN of pthread_create(3) names no limit, and there are two.
fn no_thread(what: &str) -> impl FnOnce(io::Error) -> BootError {
    let limits = "the limit of processes and threads is reached: raise pids.max of the control group (TasksMax in the systemd \
                  unit, --pids-limit with Docker) or RLIMIT_NPROC (`ulimit -u`, LimitNPROC in the unit), which counts all \
                  threads of this user";
    move |error| match error.kind() {
        io::ErrorKind::WouldBlock => host(what)(advised(&error, limits)),
        _ => host(what)(error),
    }
}

/// ENOMEM of a ring is memlock more often than memory.
fn no_ring(what: &str) -> impl FnOnce(io::Error) -> BootError {
    move |error| host(what)(with_memlock(error))
}

fn no_log(error: OpenError) -> BootError {
    BootError::Log(match error {
        OpenError::Host { what, error } => OpenError::Host { what, error: with_memlock(error) },
        other => other,
    })
}

fn with_memlock(error: io::Error) -> io::Error {
    match memlock_advice(&error) {
        Some(advice) => advised(&error, &advice),
        None => error,
    }
}

fn address_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "is another server running? Choose another address",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 (net.ipv4.ip_unprivileged_port_start) need CAP_NET_BIND_SERVICE: choose a higher port, or set \
             AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this host has no such address: choose one that `ip address` shows, or 0.0.0.0 or [::] for all of their kind"
        }
        _ => "choose another address",
    }
}

/// Serves until the server ends; the process's exit code.
#[must_use]
pub fn run(config: &Config, plan: &Plan) -> ExitCode {
    match serve(config, plan) {
        Ok(outcome) => {
            say(&outcome);
            ExitCode::from(outcome.exit_code())
        }
        Err(error) => {
            say(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn serve(config: &Config, plan: &Plan) -> Result<Outcome, BootError> {
    let signals = Signals::install().map_err(host("installing signal handlers"))?;
    let address = |setting, address: SocketAddr| {
        let given = config.sources.name(setting, &address);
        move |error| BootError::Address { given, error }
    };
    let admin = patiently(plan.admin, || TcpListener::bind(plan.admin)).map_err(address("admin", plan.admin))?;
    let mut listeners: Vec<Vec<OwnedFd>> = plan.shards.iter().map(|_| Vec::new()).collect();
    // From here on the plan has the addresses that are bound: for a port of 0 the kernel has chosen one.
    let mut plan = plan.clone();
    plan.admin = admin.local_addr().map_err(host("asking for the admin port's address"))?;
    for listen in &mut plan.listen {
        let listening = patiently(*listen, || net::listen(*listen, plan.shards.len()));
        let (bound, sockets) = listening.map_err(address("listen", *listen))?;
        *listen = bound;
        for (shard, socket) in sockets.into_iter().enumerate() {
            listeners[shard].push(socket);
        }
    }
    let plan = &plan;
    let mut server = Server::start(config, plan, listeners)?;
    for listen in &plan.listen {
        say(&format_args!("listening on http://{listen} (admin http://{})", plan.admin));
    }
    say(&format_args!("try: {}", plan.curl_line()));
    let addresses: Vec<String> = plan.listen.iter().map(|listen| format!("http://{listen}")).collect();
    let plane = PlaneConfig {
        serves: format!("serving on {}", addresses.join(", ")),
        core: plan.control_core,
        drain_timeout: plan.drain_timeout + DRAIN_MARGIN,
        poison_linger: plan.poison_linger,
    };
    let view = Arc::clone(&server.view);
    let outcome = run_control_plane(&view, admin, &signals, &mut server, plane)
        .map_err(|error| no_ring("starting the control plane")(error.into()))?;
    if outcome == Outcome::Drained && !server.join() {
        return Ok(Outcome::DrainTimedOut);
    }
    Ok(outcome)
}

/// Binds, and while the address is in use goes on trying for [`FORMER_ENDS_WITHIN`].
fn patiently<T>(address: SocketAddr, mut bind: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let begun = Instant::now();
    let mut waits = false;
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < FORMER_ENDS_WITHIN => {
                if !std::mem::replace(&mut waits, true) {
                    say(&format_args!("{address} is in use: waiting for a former server to end"));
                }
                std::thread::sleep(BIND_AGAIN_AFTER);
            }
            bound => return bound,
        }
    }
}

/// The threads of a running server.
struct Server {
    view: Arc<ServerView>,
    stop: Arc<AtomicBool>,
    bells: Vec<Arc<Bell>>,
    tenants: Tenants,
    /// Where the clock began that the shards share.
    clock_start: Instant,
    shards: Vec<JoinHandle<io::Result<()>>>,
    writers: Vec<JoinHandle<Result<(), WriterFailure>>>,
    _lock: DataLock,
}

impl Server {
    fn start(config: &Config, plan: &Plan, listeners: Vec<Vec<OwnedFd>>) -> Result<Self, BootError> {
        let lock = DataLock::acquire(&plan.data).map_err(|error| BootError::Log(OpenError::Lock(error)))?;
        let scale = Scale {
            log_buffer_bytes: plan.memory.log_buffer_bytes,
            target_utilization: plan.target_utilization,
            normal_ccu: plan.normal_ccu,
        };
        let metrics = Arc::new(ServerMetrics::new(plan.shards.len(), plan.writers.len(), scale));
        let statuses: Vec<Arc<WriterStatus>> = plan.writers.iter().map(|_| Arc::default()).collect();
        let tenants = Tenants::open(config.tenants.as_deref(), &plan.data, config.tenants_max, plan.shards.len())
            .map_err(BootError::Keys)?;
        let view = ServerView::new(Arc::clone(&metrics), statuses.clone(), plan).with_tenants(tenants.shown());
        let view = Arc::new(view);
        let stop = Arc::new(AtomicBool::new(false));
        let peers = Arc::new(Peers::new(plan.shards.len()));
        manager::is_at(&format!("recovering the log in {}", plan.data.display()));
        let mut opened = open_logs(config, plan)?;
        let clock_start = Instant::now();
        let (bells, shards, writers) = (Vec::new(), Vec::new(), Vec::new());
        let mut server = Self { clock_start, view, stop, bells, tenants, shards, writers, _lock: lock };

        let writer_bells = plan.writers.iter().map(|_| bell()).collect::<Result<Vec<_>, _>>()?;
        let mut ports: Vec<Vec<WriterPort>> = plan.writers.iter().map(|_| Vec::new()).collect();
        let mut setups = Vec::with_capacity(plan.shards.len());
        for (place, listeners) in plan.shards.iter().zip(listeners) {
            let writer = usize::from(place.writer.0);
            let region = map_on(place.core, plan.memory.log_buffer_bytes as usize)?;
            let last_seq = opened[writer].last_seq(place.shard);
            let shard_bell = bell()?;
            let (shard_port, writer_port) = channel(
                place.shard,
                Arc::clone(&region),
                CHUNKS_IN_FLIGHT_MAX.min(region.bytes() / PAGE_BYTES),
                last_seq,
                Arc::clone(&shard_bell),
                Arc::clone(&writer_bells[writer]),
                Arc::clone(&statuses[writer]),
            );
            ports[writer].push(writer_port);
            server.bells.push(Arc::clone(&shard_bell));
            setups.push((
                place.core,
                setup(
                    config,
                    plan,
                    place.shard,
                    place.writer,
                    SetupParts {
                        log_region: region,
                        last_seq,
                        port: shard_port,
                        bell: shard_bell,
                        listeners,
                        peers: Arc::clone(&peers),
                        metrics: Arc::clone(&metrics),
                        stop: Arc::clone(&server.stop),
                        clock_start,
                        tenants: server.tenants.for_shard(),
                    },
                ),
            ));
        }
        for ((place, opened), ports) in plan.writers.iter().zip(opened.drain(..)).zip(ports) {
            let number = usize::from(place.writer.0);
            let (bell, status) = (Arc::clone(&writer_bells[number]), Arc::clone(&statuses[number]));
            let joined = writer::join(opened, ports, bell, status, Arc::clone(&metrics.writers[number]));
            server.start_writer(place.core, place.writer, joined.map_err(no_log)?)?;
        }
        server.start_shards(setups)?;
        Ok(server)
    }

    fn start_writer(&mut self, core: usize, writer: WriterId, ready: Writer) -> Result<(), BootError> {
        for warning in &ready.facts().warnings {
            say(&format_args!("writer {}: {warning}", writer.0));
        }
        let thread = thread::Builder::new().name(format!("writer-{}", writer.0)).spawn(move || {
            pin(core);
            if let Err(error) = priority::raise_to_realtime() {
                say(&format_args!(
                    "writer {}: no real-time priority ({error}): where other threads share core {core}, acks wait for \
                     their slices to end; grant CAP_SYS_NICE or LimitRTPRIO=1",
                    writer.0
                ));
            }
            ready.run()
        });
        self.writers.push(thread.map_err(no_thread("starting a writer's thread"))?);
        Ok(())
    }

    fn start_shards(&mut self, setups: Vec<(usize, Setup)>) -> Result<(), BootError> {
        let (ready, readies) = mpsc::channel();
        let shards = setups.len();
        for (core, setup) in setups {
            let (ready, name) = (ready.clone(), format!("shard-{}", setup.shard.0));
            let thread = thread::Builder::new().name(name).spawn(move || {
                pin(core);
                let failed = ready.clone();
                let result = shard::run(setup, move |bundles| {
                    let _ = ready.send(Ok(bundles));
                });
                if let Err(error) = &result {
                    let _ = failed.send(Err(io::Error::new(error.kind(), error.to_string())));
                }
                result
            });
            self.shards.push(thread.map_err(no_thread("starting a shard's thread"))?);
        }
        drop(ready);
        for _ in 0..shards {
            let bundles = readies
                .recv()
                .unwrap_or_else(|_| Err(io::Error::other("the thread ended")))
                .map_err(no_ring("starting a shard (its ring needs Linux 6.1, memory and file descriptors)"))?;
            if !bundles {
                say(&"receive bundles failed their self-test on this kernel: receiving one buffer at a time");
                break;
            }
        }
        Ok(())
    }

    /// Waits for the threads; whether all of them ended with nothing left undone.
    fn join(&mut self) -> bool {
        let mut done = true;
        for shard in self.shards.drain(..) {
            if let Ok(Err(error)) = shard.join() {
                say(&format_args!("a shard did not drain: {error}"));
                done = false;
            }
        }
        for writer in self.writers.drain(..) {
            if let Ok(Err(failure)) = writer.join() {
                say(&failure);
                done = false;
            }
        }
        done
    }
}

impl Threads for Server {
    fn begin_drain(&mut self) {
        // Release pairs with the shards' Acquire: whatever was set up before is seen by a draining shard.
        self.stop.store(true, Ordering::Release);
        for bell in &self.bells {
            bell.ring_always();
        }
    }

    fn state(&mut self) -> ThreadsState {
        let stopping = self.stop.load(Ordering::Relaxed);
        if let Some(lost) = self.shards.iter().find(|shard| shard.is_finished() && !stopping) {
            let name = lost.thread().name().unwrap_or("a shard").to_owned();
            return ThreadsState::Lost(name);
        }
        let failed = self.view.writers.iter().any(|status| status.state() == WriterState::Poisoned);
        if let Some(lost) = self.writers.iter().find(|writer| writer.is_finished() && !stopping && !failed) {
            let name = lost.thread().name().unwrap_or("a writer").to_owned();
            return ThreadsState::Lost(name);
        }
        let all_ended =
            self.shards.iter().all(JoinHandle::is_finished) && self.writers.iter().all(JoinHandle::is_finished);
        if all_ended { ThreadsState::Ended } else { ThreadsState::Running }
    }

    fn reload(&mut self) -> String {
        let now_ns = u64::try_from(self.clock_start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let said = self.tenants.reload(now_ns);
        // One that sleeps must not serve its next request by the old table.
        self.bells.iter().for_each(|bell| bell.ring_always());
        said
    }
}

fn open_logs(config: &Config, plan: &Plan) -> Result<Vec<Opened>, BootError> {
    plan.writers
        .iter()
        .map(|place| {
            let opened = writer::open_direct(&WriterConfig {
                segment_bytes: config.segment_bytes,
                segments_ahead: config.segments_ahead as usize,
                retention_bytes: config.retention_bytes,
                retention_age: config.retention_age,
                reserve_bytes: config.reserve_bytes,
                sync: match config.sync {
                    SyncChoice::Auto => storage::SyncChoice::Auto,
                    SyncChoice::Dsync => storage::SyncChoice::Dsync,
                    SyncChoice::Fdatasync => storage::SyncChoice::Fdatasync,
                },
                ..WriterConfig::new(place.writer, &plan.data)
            })
            .map_err(no_log)?;
            say(&format_args!("writer {}: {}", place.writer.0, opened.report()));
            Ok(opened)
        })
        .collect()
}

struct SetupParts {
    log_region: Arc<Region>,
    last_seq: crate::base::Seq,
    port: ShardPort,
    bell: Arc<Bell>,
    listeners: Vec<OwnedFd>,
    peers: Arc<Peers>,
    metrics: Arc<ServerMetrics>,
    stop: Arc<AtomicBool>,
    clock_start: Instant,
    tenants: ForShard,
}

fn setup(config: &Config, plan: &Plan, shard: ShardId, writer: WriterId, parts: SetupParts) -> Setup {
    Setup {
        shard,
        writer,
        limits: plan.limits.clone(),
        ack_default: plan.ack,
        log_region: parts.log_region,
        last_seq: parts.last_seq,
        port: parts.port,
        bell: parts.bell,
        listeners: parts.listeners,
        peers: parts.peers,
        metrics: parts.metrics,
        stop: parts.stop,
        receive_buffers: u16::try_from(config.receive_buffers).expect("checked when configured"),
        receive_buffer_bytes: config.receive_buffer_bytes as usize,
        pool_bytes: config.pool_bytes as usize,
        idle: match plan.idle {
            IdlePolicy::Adaptive => Idle::Adaptive(ADAPTIVE_SPIN),
            IdlePolicy::Spin => Idle::Spin,
            IdlePolicy::Park => Idle::Park,
        },
        group_hold_max: config.group_hold_max,
        drain_timeout: plan.drain_timeout,
        request_origin: random(),
        clock_start: parts.clock_start,
        admission: admission(plan, shard),
        tenants: parts.tenants.table,
        tenant_news: parts.tenants.news,
        uses: parts.tenants.uses,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
fn admission(plan: &Plan, shard: ShardId) -> admit::Config {
    let lag_target_ns = u64::try_from(plan.lag_target.as_nanos()).unwrap_or(u64::MAX);
    admit::Config {
        target: (plan.target_utilization * admit::PPM as f64) as u64,
        lag_target_ns: if lag_target_ns == 0 { u64::MAX } else { lag_target_ns },
        in_flight_max: admit::split_concurrency(plan.normal_ccu, plan.shards.len(), usize::from(shard.0)),
        seed: random(),
    }
}

/// A log buffer whose pages lie on the NUMA node of `core`: memory goes where it is first touched.
fn map_on(core: usize, bytes: usize) -> Result<Arc<Region>, BootError> {
    let mapped = thread::Builder::new().name("mapping".to_owned()).spawn(move || {
        pin(core);
        Region::map(bytes, true)
    });
    let mapped = mapped.map_err(no_thread("starting a thread to map a log buffer"))?;
    let region = mapped.join().unwrap_or_else(|_| Err(io::Error::other("the mapping thread ended")));
    region.map(Arc::new).map_err(host(format!("mapping a log buffer of {bytes} bytes (log_buffer_bytes)")))
}

fn bell() -> Result<Arc<Bell>, BootError> {
    Bell::new().map(Arc::new).map_err(host("making an eventfd"))
}

fn pin(core: usize) {
    if let Err(error) = affinity::pin_current_thread(core) {
        say(&format_args!("{error}; it runs where the kernel puts it"));
    }
}

/// Different at each call: the standard library seeds each hasher's keys from the operating system's randomness.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_former_server_is_waited_for() {
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        for refused in [libc::EACCES, libc::EADDRNOTAVAIL, libc::EAFNOSUPPORT] {
            let mut attempts = 0;
            let bound: io::Result<()> = patiently(address, || {
                attempts += 1;
                Err(io::Error::from_raw_os_error(refused))
            });
            assert_eq!((bound.unwrap_err().raw_os_error(), attempts), (Some(refused), 1));
        }
        let mut ends = [libc::EADDRINUSE, libc::EADDRINUSE].into_iter();
        let bound =
            patiently(address, || ends.next().map_or(Ok("bound"), |errno| Err(io::Error::from_raw_os_error(errno))));
        assert_eq!((bound.unwrap(), ends.next()), ("bound", None));
    }

    #[test]
    fn each_refusal_says_what_would_help_against_it() {
        let address = |errno| BootError::Address {
            given: "--listen 127.0.0.1:80".to_owned(),
            error: io::Error::from_raw_os_error(errno),
        };
        for (error, code, parts) in [
            (
                address(libc::EADDRINUSE),
                EXIT_CONFIG,
                ["--listen 127.0.0.1:80: Address already in use", "another server"],
            ),
            (address(libc::EACCES), EXIT_CONFIG, ["Permission denied", "need CAP_NET_BIND_SERVICE"]),
            (address(libc::EADDRNOTAVAIL), EXIT_CONFIG, ["Cannot assign", "this host has no such address"]),
            (address(libc::EAFNOSUPPORT), EXIT_CONFIG, ["Address family not supported", "choose another address"]),
            (
                no_thread("starting a shard's thread")(io::Error::from_raw_os_error(libc::EAGAIN)),
                EXIT_HOST,
                ["starting a shard's thread: Resource temporarily", "raise pids.max of the control group"],
            ),
        ] {
            let said = error.to_string();
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
            assert!(said.contains("another server") == said.contains("already in use"), "{said}");
            assert_eq!(error.exit_code(), code, "{said}");
        }
    }
}
