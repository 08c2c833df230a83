//! What `tidegate cat` and `tidegate verify` ask of the log. Main thread.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::keys::ANONYMOUS;
use super::{say, tenant_numbers};
use crate::base::TenantId;
use crate::log::{self, CatError, CatOptions, VerifyReport};

/// What a look at a whole log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Whether nothing acknowledged is damaged. A torn tail is sound: it was never acknowledged.
    pub sound: bool,
    /// The findings for people.
    pub text: String,
    /// The findings for machines: one JSON object.
    pub json: String,
}

/// Why reading ended early.
#[derive(Debug)]
pub enum ReadError {
    /// The request makes no sense: no such tenant.
    Request(String),
    /// The log cannot be read.
    Log(String),
    /// The log is damaged; says where.
    Damaged(String),
    /// What was read cannot be printed.
    Output(io::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(problem) | Self::Log(problem) | Self::Damaged(problem) => f.write_str(problem),
            Self::Output(error) => write!(f, "the output cannot be written: {error}"),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<log::ReadError> for ReadError {
    fn from(error: log::ReadError) -> Self {
        match error {
            log::ReadError::Damaged(damage) => Self::Damaged(damage.to_string()),
            other => Self::Log(other.to_string()),
        }
    }
}

/// Prints events to `out`, which is flushed whenever there is nothing more to print for now. Following ends with the
/// process.
///
/// # Errors
/// When there is no such log or tenant, the log cannot be read or is damaged, or `out` cannot be written.
pub fn cat(options: &CatOptions, out: &mut impl Write) -> Result<(), ReadError> {
    match log::expect_data_directory(&options.directory) {
        // A follower may be started before its server is for the first time, on a directory made for both.
        Err(log::ReadError::NoLog(_)) if options.follow && options.directory.is_dir() => {
            say(&format_args!("{}: no server has kept a log here yet, waiting for it", options.directory.display()));
        }
        checked => checked?,
    }
    let names = || tenant_numbers::names(&options.directory).map_err(|error| ReadError::Log(error.to_string()));
    let mut known = names()?;
    if let Some(tenant) = options.tenant.as_deref().filter(|tenant| *tenant != ANONYMOUS)
        && !known.values().any(|name| name == tenant)
        && !is_number(tenant)
    {
        return Err(ReadError::Request(format!("there is no tenant {tenant} in this log")));
    }
    let mut name_of = |tenant: TenantId| {
        if tenant == TenantId::default() {
            return Some(ANONYMOUS.to_owned());
        }
        if !known.contains_key(&tenant) {
            // One that came while this follows the log. Should the file not be readable just now, its number will do.
            known = names().unwrap_or_default();
        }
        known.get(&tenant).cloned()
    };
    // To the log the anonymous tenant has no name.
    let tenant = options.tenant.clone().map(|name| if name == ANONYMOUS { String::new() } else { name });
    let options = CatOptions { tenant, ..options.clone() };
    let mut warn = |why: &io::Error| {
        say(&format_args!(
            "this reader cannot be registered in {}/followers ({why}), so retention will not wait for it and may remove events \
             before they are read: run it as a user who may write there",
            options.directory.display()
        ));
    };
    match log::cat(&options, &mut name_of, &mut warn, out, &AtomicBool::new(false)) {
        Ok(_) => Ok(()),
        Err(CatError::Read(error)) => Err(error.into()),
        Err(CatError::Write(error)) => Err(ReadError::Output(error)),
    }
}

/// Whether this is what a tenant is called whose name is not known: a log may have been copied without its list of names.
fn is_number(tenant: &str) -> bool {
    tenant.strip_prefix("tenant-").is_some_and(|number| number.parse::<u16>().is_ok())
}

/// Looks at every byte of a log.
///
/// # Errors
/// When the log cannot be read. Damage is not an error here but a finding.
pub fn verify(data: &Path) -> Result<Verification, ReadError> {
    let report = log::verify(data)?;
    let json = serde_json::to_string(&report).expect("a report is plain data");
    Ok(Verification { sound: report.sound, text: text_of(&report), json })
}

fn text_of(report: &VerifyReport) -> String {
    let mut text = format!(
        "{}: {} events in {} chunks, {} bytes of events, {} segments of {} bytes\n",
        if report.sound { "sound" } else { "DAMAGED" },
        report.events,
        report.chunks,
        report.event_bytes,
        report.segments,
        report.disk_bytes
    );
    for writer in &report.writers {
        let closed = if writer.sealed { "closed in order" } else { "not closed in order" };
        let _ = writeln!(
            text,
            "writer {}: {} events, {} chunks, {} segments, {closed}",
            writer.writer, writer.events, writer.chunks, writer.segments
        );
        for (shard, seq) in &writer.last_seqs {
            let _ = writeln!(text, "  shard {shard}: last chunk {seq}");
        }
        for finding in writer.torn_tail.iter().chain(&writer.damage) {
            let _ = writeln!(text, "  {finding}");
        }
    }
    text
}
