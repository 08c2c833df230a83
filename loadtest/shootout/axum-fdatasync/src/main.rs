//! A rival for the shootout: an ingest server from axum and tokio that acknowledges after a group fdatasync, as a strong
//! engineer would write it in a week.
//!
//! One single-threaded runtime per worker core, each with a listener of its own (SO_REUSEPORT), so that nothing migrates
//! between cores; one writer thread that takes whatever has queued up, writes it with one writev(2) and syncs once
//! ([`commit`]); events validated one by one with serde_json, without building values ([`events`]). Bodies are handed to the
//! writer as they were received: bytes are not copied again where every event is valid.

mod commit;
mod events;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use clap::Parser;

use commit::{Ack, Batch, Committer, FILE_BYTES};

/// Longest body.
// Bodies are freed by another thread than the one that received them, which this allocator is good at: with it a worker
// took 373 to 434 ns of its core per event instead of 434 to 514.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BODY_BYTES_MAX: usize = 16 << 20;
/// Connections the kernel keeps for one listener.
const BACKLOG: i32 = 4096;

/// Command line.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Data port.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Directory of the log; its files are replaced.
    #[arg(long)]
    data: PathBuf,
    /// When a request is answered: after the sync, after the write, or when the events are queued.
    #[arg(long, value_enum, default_value_t = Ack::Synced)]
    ack: Ack,
    /// Length of each file of the log.
    #[arg(long, default_value_t = FILE_BYTES)]
    file_bytes: u64,
    /// Cores of the HTTP threads.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    worker_cores: Vec<usize>,
    /// Core of the writer.
    #[arg(long, default_value_t = 0)]
    writer_core: usize,
}

/// What the handlers share.
struct App {
    committer: Committer,
    /// Made request ids.
    requests: AtomicU64,
}

fn pin(core: usize) {
    static SAID: Once = Once::new();
    if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        SAID.call_once(|| eprintln!("axum-fdatasync: core {core} was refused; threads are not pinned"));
    }
}

fn listen(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// One HTTP thread: serves until the process ends.
fn work(core: usize, listener: std::net::TcpListener, app: Arc<App>) -> std::io::Result<()> {
    pin(core);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|stream| {
            // An answer is one write: waiting for more of it would only delay it.
            let _refused_by_a_closed_socket = stream.set_nodelay(true);
        });
        let router = Router::new()
            .route("/v1/events", post(ingest))
            .route("/health", get(|| async { "healthy" }))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(app);
        axum::serve(listener, router).await
    })
}

async fn ingest(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response {
    let is_lines = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/x-ndjson"));
    let checked = if is_lines { events::lines(body) } else { events::json(&body) };
    let checked = match checked {
        Ok(checked) if checked.accepted > 0 => checked,
        Ok(_) => return refuse(StatusCode::BAD_REQUEST, "EMPTY_BATCH"),
        Err(events::NotJson) => return refuse(StatusCode::BAD_REQUEST, "INVALID_JSON"),
    };
    let request = app.requests.fetch_add(1, Ordering::Relaxed);
    match app.committer.commit(Batch { pieces: checked.pieces }).await {
        Ok(()) => {
            let (accepted, rejected) = (checked.accepted, checked.rejected);
            let text = format!(
                r#"{{"success":true,"data":{{"accepted":{accepted},"rejected":{rejected},"events_count":{accepted}}},"request_id":"{request}"}}"#
            );
            (StatusCode::ACCEPTED, [(header::CONTENT_TYPE, "application/json")], text).into_response()
        }
        Err(commit::Failed) => refuse(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
    }
}

fn refuse(status: StatusCode, code: &str) -> Response {
    let text = format!(r#"{{"success":false,"code":"{code}"}}"#);
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match serve(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("axum-fdatasync: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> std::io::Result<()> {
    let core = arguments.writer_core;
    let committer = Committer::start(&arguments.data, arguments.file_bytes, arguments.ack, move || pin(core))?;
    let app = Arc::new(App { committer, requests: AtomicU64::new(0) });
    let listeners: Vec<_> =
        arguments.worker_cores.iter().map(|_| listen(arguments.listen)).collect::<Result<_, _>>()?;
    writeln!(std::io::stdout().lock(), "listening on {}", arguments.listen)?;
    let threads: Vec<_> = arguments
        .worker_cores
        .iter()
        .zip(listeners)
        .map(|(core, listener)| {
            let (core, app) = (*core, Arc::clone(&app));
            std::thread::spawn(move || work(core, listener, app))
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| std::io::Error::other("a worker panicked"))??;
    }
    Ok(())
}
