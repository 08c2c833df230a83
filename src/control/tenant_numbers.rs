//! Which number stands for which tenant in the log. Main and control thread; one small file beside the log.
//!
//! Records carry a number of 16 bits and not a name, so the number must mean the same tenant for as long as the log is kept: across
//! restarts, in whatever order the key file names them, also after they have left it. `DATA/tenants` holds a line per tenant,
//! `1 acme`, and only grows. It is written whole under another name, synced, renamed, and the directory synced, before a shard hears of
//! a new number: what a record says can always be looked up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::base::TenantId;
use crate::log::holds_named_events;

/// The file's name in the data directory.
const FILE: &str = "tenants";
/// Under this name it is written.
const FILE_NEW: &str = "tenants.new";

/// Why tenants have no numbers.
#[derive(Debug)]
pub enum NumbersError {
    /// The file cannot be read or written.
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A line is not what the file holds.
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, 1-based.
        line: usize,
    },
    /// It is not there, or holds nothing, though the log holds events of tenants.
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// All numbers are given away.
    UsedUp {
        /// How many there are.
        tenants_max: u32,
    },
}

impl fmt::Display for NumbersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Line { path, line } => write!(
                f,
                "{} line {line}: expected a number and a name that no other line has; this file says whose events are whose: \
                 restore it from a copy",
                path.display()
            ),
            Self::Missing { path } => write!(
                f,
                "{} is missing or empty, but the log holds events of tenants; this file says whose events are whose, and a new \
                 one would say that they are others': restore it from a copy, or move the data directory away",
                path.display()
            ),
            Self::UsedUp { tenants_max } => write!(
                f,
                "this log has numbers for {tenants_max} tenants, counting those that have left: raise tenants_max and restart"
            ),
        }
    }
}

impl std::error::Error for NumbersError {}

/// Names of a data directory's tenants by number.
///
/// # Errors
/// When the file is there and cannot be read, or is not what it should be.
pub fn names(data: &Path) -> Result<BTreeMap<TenantId, String>, NumbersError> {
    let path = data.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(NumbersError::Io { path, error }),
    };
    let (mut names, mut taken) = (BTreeMap::new(), BTreeSet::new());
    for (at, line) in text.lines().enumerate() {
        let known = line.split_once(' ').and_then(|(number, name)| Some((number.parse().ok()?, name)));
        let is_new = known.is_some_and(|(number, name): (u16, &str)| {
            let is_one = number > 0 && !name.is_empty() && taken.insert(name);
            is_one && names.insert(TenantId(number), name.to_owned()).is_none()
        });
        if !is_new {
            return Err(NumbersError::Line { path, line: at + 1 });
        }
    }
    Ok(names)
}

/// The numbers of a running server's tenants.
#[derive(Debug)]
pub struct TenantNumbers {
    data: PathBuf,
    tenants_max: u32,
    by_name: BTreeMap<String, TenantId>,
}

impl TenantNumbers {
    /// Those of the log at `data`, of which there may be `tenants_max`. Without a file the log is looked at: there may be none
    /// only where no event of a tenant is.
    ///
    /// # Errors
    /// [`NumbersError`].
    pub fn open(data: &Path, tenants_max: u32) -> Result<Self, NumbersError> {
        let by_name: BTreeMap<_, _> = names(data)?.into_iter().map(|(id, name)| (name, id)).collect();
        let unreadable = |error| NumbersError::Io { path: data.to_owned(), error };
        if by_name.is_empty() && holds_named_events(data).map_err(unreadable)? {
            return Err(NumbersError::Missing { path: data.join(FILE) });
        }
        Ok(Self { data: data.to_owned(), tenants_max, by_name })
    }

    /// The numbers of `wanted`, in their order. New ones are on disk when this returns.
    ///
    /// # Errors
    /// When there are no numbers left or the file cannot be written; then nothing has changed.
    pub fn of_all<'a>(&mut self, wanted: impl Iterator<Item = &'a str>) -> Result<Vec<TenantId>, NumbersError> {
        let mut by_name = self.by_name.clone();
        let mut last = by_name.values().map(|id| id.0).max().unwrap_or(0);
        let mut ids = Vec::new();
        for name in wanted {
            let id = match by_name.get(name) {
                Some(id) => *id,
                None => {
                    last = last.checked_add(1).ok_or(NumbersError::UsedUp { tenants_max: self.tenants_max })?;
                    by_name.insert(name.to_owned(), TenantId(last));
                    TenantId(last)
                }
            };
            ids.push(id);
        }
        if u32::from(last) > self.tenants_max {
            return Err(NumbersError::UsedUp { tenants_max: self.tenants_max });
        }
        if by_name.len() != self.by_name.len() {
            self.write(&by_name).map_err(|error| NumbersError::Io { path: self.data.join(FILE), error })?;
            self.by_name = by_name;
        }
        Ok(ids)
    }

    fn write(&self, by_name: &BTreeMap<String, TenantId>) -> io::Result<()> {
        let by_number: BTreeMap<u16, &str> = by_name.iter().map(|(name, id)| (id.0, name.as_str())).collect();
        let text: String = by_number.iter().map(|(number, name)| format!("{number} {name}\n")).collect();
        let new = self.data.join(FILE_NEW);
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, self.data.join(FILE))?;
        File::open(&self.data)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &mut TenantNumbers, names: &[&str]) -> Vec<u16> {
        numbers.of_all(names.iter().copied()).unwrap().iter().map(|id| id.0).collect()
    }

    #[test]
    fn a_number_means_the_same_tenant_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let mut numbers = TenantNumbers::open(directory.path(), 10).unwrap();
        assert_eq!(ids(&mut numbers, &["b", "a"]), [1, 2]);
        assert_eq!(ids(&mut numbers, &["c", "a"]), [3, 2], "b has left");
        let mut numbers = TenantNumbers::open(directory.path(), 10).unwrap();
        assert_eq!(ids(&mut numbers, &["d", "b", "a"]), [4, 1, 2], "b is back");
        let names: Vec<_> = names(directory.path()).unwrap().into_iter().map(|(id, name)| (id.0, name)).collect();
        let expected = [(1, "b"), (2, "a"), (3, "c"), (4, "d")].map(|(id, name)| (id, name.to_owned()));
        assert_eq!(names, expected);
    }

    #[test]
    fn numbers_end_and_nothing_is_lost_by_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut numbers = TenantNumbers::open(directory.path(), 2).unwrap();
        ids(&mut numbers, &["a", "b"]);
        let error = numbers.of_all(["c"].into_iter()).unwrap_err().to_string();
        assert!(error.contains("raise tenants_max"), "{error}");
        assert_eq!(ids(&mut numbers, &["b", "a"]), [2, 1]);
        assert_eq!(names(directory.path()).unwrap().len(), 2);
    }

    #[test]
    fn a_file_that_is_not_whole_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(names(directory.path()).unwrap().is_empty(), "no file, no tenants");
        for (text, line) in
            [("1 a\n1 b\n", 2), ("1 a\n2 a\n", 2), ("0 a\n", 1), ("1\n", 1), ("1 a\nx b\n", 2), ("70000 a\n", 1)]
        {
            fs::write(directory.path().join(FILE), text).unwrap();
            let error = TenantNumbers::open(directory.path(), 10).unwrap_err().to_string();
            assert!(error.contains(&format!("tenants line {line}: ")), "{text:?}: {error}");
        }
    }
}
