//! What `tidegate cat` and `tidegate verify` ask of the log. Main thread.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::base::Position;

/// Which events to print, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatRequest {
    /// Directory of the log.
    pub data: PathBuf,
    /// Whether to go on with events as they become durable.
    pub follow: bool,
    /// Only events of this tenant.
    pub tenant: Option<String>,
    /// Where to begin, at most one position for each writer; a writer without one begins with its oldest event.
    pub from: Vec<Position>,
    /// Whether to print position, tenant and time with each event.
    pub with_meta: bool,
}

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
    /// The request makes no sense: no such tenant, two positions for one writer.
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

/// Prints events to `out`, which is flushed whenever there is nothing more to print for now.
///
/// # Errors
/// When the log cannot be read or is damaged, or `out` cannot be written.
pub fn cat(request: &CatRequest, _out: &mut impl Write) -> Result<(), ReadError> {
    Err(ReadError::Log(format!("{}: this build has no reader of logs", request.data.display())))
}

/// Looks at every byte of a log.
///
/// # Errors
/// When the log cannot be read. Damage is not an error here but a finding.
pub fn verify(data: &Path) -> Result<Verification, ReadError> {
    Err(ReadError::Log(format!("{}: this build has no reader of logs", data.display())))
}
