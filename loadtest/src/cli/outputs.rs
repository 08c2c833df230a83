//! Where a run's result goes. That the files can be written is known before any load: what was measured must not be lost
//! to a wrong path. Main thread.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Failure, write_file};
use crate::report::{self, RunResult};
use crate::run::Run;

/// The files that were asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outputs<'a> {
    /// `--json`.
    pub(super) json: Option<&'a Path>,
    /// `--hgrm`.
    pub(super) hgrm: Option<&'a Path>,
    /// `--html`.
    pub(super) html: Option<&'a Path>,
}

impl Outputs<'_> {
    /// Refuses what cannot be written, and one file for two outputs.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let beside = self.hgrm.map(uncorrected);
        let all = [("--json", self.json), ("--hgrm", self.hgrm), ("--hgrm", beside.as_deref()), ("--html", self.html)];
        let given: Vec<(&str, &Path)> = all.into_iter().filter_map(|(option, path)| Some((option, path?))).collect();
        for (at, (option, path)) in given.iter().enumerate() {
            if let Some((other, _)) = given[..at].iter().find(|(_, earlier)| earlier == path && is_kept(path)) {
                return Err(Failure::usage(format!("{other} and {option} both name {}", path.display())));
            }
            check_writable(option, path)?;
        }
        Ok(())
    }

    /// Whether standard output is the JSON's.
    pub(super) fn json_is_printed(&self) -> bool {
        self.json == Some(Path::new("-"))
    }

    /// Writes each; those that cannot be are named together in the failure.
    pub(super) fn write(&self, result: &RunResult, done: &Run) -> Result<(), Failure> {
        let totals = &done.totals;
        let mut failures = Vec::new();
        let mut write = |path: &Path, text: &str| failures.extend(write_file(path, text).err());
        if let Some(path) = self.json {
            let json = serde_json::to_string_pretty(result).expect("a result has string keys only");
            write(path, &format!("{json}\n"));
        }
        if let Some(path) = self.hgrm {
            write(path, &report::hgrm(&totals.corrected));
            write(&uncorrected(path), &report::hgrm(&totals.uncorrected));
        }
        if let Some(path) = self.html {
            write(path, &report::html(result, &totals.corrected, &totals.uncorrected));
        }
        match failures.as_slice() {
            [] => Ok(()),
            all => Err(Failure::unable(all.iter().map(|one| one.text.as_str()).collect::<Vec<_>>().join("; "))),
        }
    }

    /// Writes those that are files: what a later failure, or a kill, does not take away again.
    pub(super) fn write_early(&self, result: &RunResult, done: &Run) -> Result<(), Failure> {
        let kept = |path: Option<_>| path.filter(|path: &&Path| is_kept(path));
        let (json, hgrm, html) = (kept(self.json), kept(self.hgrm), kept(self.html));
        Outputs { json, hgrm, html }.write(result, done)
    }
}

/// The file beside that of `--hgrm` for the latency from the actual sends.
fn uncorrected(path: &Path) -> PathBuf {
    let mut beside = path.to_owned().into_os_string();
    beside.push(".uncorrected");
    beside.into()
}

/// Whether what is written there can be written over: no standard output, pipe or device.
fn is_kept(path: &Path) -> bool {
    path != Path::new("-") && fs::metadata(path).map_or(true, |found| found.is_file())
}

/// Refuses a path that cannot be written. Nothing there is changed.
pub(super) fn check_writable(option: &str, path: &Path) -> Result<(), Failure> {
    let refuse = |why: String| Failure::usage(format!("{option} {}: cannot be written: {why}", path.display()));
    let tell = |error: std::io::Error| refuse(error.to_string());
    if path == Path::new("-") {
        return Ok(());
    }
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(refuse("it is a directory".into())),
        Ok(found) if found.is_file() => OpenOptions::new().append(true).open(path).map(drop).map_err(tell),
        // To open a pipe would be to wait for its reader.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let made = OpenOptions::new().write(true).create_new(true).open(path);
            made.and_then(|_| fs::remove_file(path)).map_err(tell)
        }
        Err(error) => Err(tell(error)),
    }
}
