//! Prints events, one JSON a line; follows if told to. Reader thread.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fmt, thread};

use hashbrown::HashMap;

use super::reader::{Event, LogReader};
use super::tail::ReadError;
use crate::base::{Position, TenantId};
use crate::sys::storage::server_runs;

/// How long a follower that found nothing sleeps before it looks again: a bound on what it adds to the age of an event,
/// at a few system calls per look.
const FOLLOW_EVERY: Duration = Duration::from_millis(20);

/// What to print.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatOptions {
    /// The data directory.
    pub directory: PathBuf,
    /// Whether to wait for more at the end.
    pub follow: bool,
    /// Only this tenant's events; the empty name is the anonymous tenant's.
    pub tenant: Option<String>,
    /// From this position on, inclusive; only its writer's log.
    pub from: Option<Position>,
    /// Whether to wrap each event in an object that says its position, tenant and time.
    pub with_meta: bool,
}

/// What was printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CatSummary {
    /// Events printed.
    pub events: u64,
    /// Bytes printed.
    pub bytes: u64,
}

/// Why printing ended early.
#[derive(Debug)]
pub enum CatError {
    /// The log cannot be read further.
    Read(ReadError),
    /// The output cannot be written to; that its reader went away is not an error.
    Write(io::Error),
}

impl fmt::Display for CatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Write(error) => write!(f, "writing events: {error}"),
        }
    }
}

impl std::error::Error for CatError {}

impl From<ReadError> for CatError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// Prints the events of a data directory to `out` until the end of the log, or, following, until `stop` is set or
/// `out`'s reader goes away. `name_of` names tenants; it is asked once per tenant, and again later for one it did not
/// know. `warn` hears, once, why retention may remove events before they are printed, if it may.
///
/// # Errors
/// [`CatError`].
pub fn cat(
    options: &CatOptions,
    name_of: &mut dyn FnMut(TenantId) -> Option<String>,
    warn: &mut dyn FnMut(&io::Error),
    out: &mut dyn Write,
    stop: &AtomicBool,
) -> Result<CatSummary, CatError> {
    let mut reader = LogReader::open(&options.directory)?;
    if let Some(from) = options.from {
        reader.seek(from)?;
    }
    // Without a server there is no retention now; who follows meets the next one.
    if let Some(why) =
        reader.not_registered().filter(|_| options.follow || server_runs(&options.directory).unwrap_or(true))
    {
        warn(why);
    }
    let mut printer = Printer {
        out,
        tenants: Tenants { name_of, known: HashMap::new() },
        only: options.tenant.as_deref(),
        with_meta: options.with_meta,
        summary: CatSummary::default(),
    };
    match printer.print_all(&mut reader, options.follow, stop) {
        Err(CatError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(printer.summary),
        outcome => outcome.map(|()| printer.summary),
    }
}

struct Printer<'a> {
    out: &'a mut dyn Write,
    tenants: Tenants<'a>,
    only: Option<&'a str>,
    with_meta: bool,
    summary: CatSummary,
}

impl Printer<'_> {
    fn print_all(&mut self, reader: &mut LogReader, follow: bool, stop: &AtomicBool) -> Result<(), CatError> {
        while !stop.load(Ordering::Relaxed) {
            if let Some(chunk) = reader.next_chunk()? {
                for event in chunk.events() {
                    self.print(&event).map_err(CatError::Write)?;
                }
                continue;
            }
            self.out.flush().map_err(CatError::Write)?;
            if !follow {
                break;
            }
            self.tenants.ask_again();
            thread::sleep(FOLLOW_EVERY);
        }
        self.out.flush().map_err(CatError::Write)
    }

    fn print(&mut self, event: &Event<'_>) -> io::Result<()> {
        if self.only.is_some_and(|only| self.tenants.name(event.tenant) != only) {
            return Ok(());
        }
        let mut bytes = event.event.len() + 1;
        if self.with_meta {
            let Event { position, received_unix_ns, .. } = event;
            let tenant = self.tenants.quoted(event.tenant);
            let head = format!(
                r#"{{"position":"{position}","tenant":{tenant},"received_unix_ns":{received_unix_ns},"event":"#
            );
            self.out.write_all(head.as_bytes())?;
            self.out.write_all(event.event)?;
            self.out.write_all(b"}\n")?;
            bytes += head.len() + 1;
        } else {
            self.out.write_all(event.event)?;
            self.out.write_all(b"\n")?;
        }
        self.summary.events += 1;
        self.summary.bytes += bytes as u64;
        Ok(())
    }
}

/// Names by number, each asked for once. At most 65 536 entries: a tenant's number has 16 bits.
struct Tenants<'a> {
    name_of: &'a mut dyn FnMut(TenantId) -> Option<String>,
    known: HashMap<u16, Name>,
}

struct Name {
    plain: String,
    /// As a JSON string.
    quoted: String,
    /// Nobody knew it.
    guessed: bool,
}

impl Tenants<'_> {
    fn name(&mut self, tenant: TenantId) -> &str {
        &self.look_up(tenant).plain
    }

    fn quoted(&mut self, tenant: TenantId) -> &str {
        &self.look_up(tenant).quoted
    }

    fn look_up(&mut self, tenant: TenantId) -> &Name {
        let name_of = &mut self.name_of;
        self.known.entry(tenant.0).or_insert_with(|| {
            // The anonymous tenant has no name.
            let name = if tenant == TenantId(0) { Some(String::new()) } else { name_of(tenant) };
            let guessed = name.is_none();
            let plain = name.unwrap_or_else(|| format!("tenant-{}", tenant.0));
            let quoted = serde_json::Value::from(plain.as_str()).to_string();
            Name { plain, quoted, guessed }
        })
    }

    fn ask_again(&mut self) {
        self.known.retain(|_, name| !name.guessed);
    }
}
