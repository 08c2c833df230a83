//! Where a run's result goes. That the files can be written is known before any load: what was measured must not be lost
//! to a wrong path. Main thread.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Failure, write_file};
use crate::report::{self, RunResult};
use crate::run::Run;

/// Links that the kernel follows before it gives up: path_resolution(7).
const LINKS_MAX: usize = 40;

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
    /// Refuses what cannot be written, and one place for two outputs.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let beside = self.hgrm.and_then(uncorrected);
        let all = [("--json", self.json), ("--hgrm", self.hgrm), ("--hgrm", beside.as_deref()), ("--html", self.html)];
        let given: Vec<(&str, &Path)> = all.into_iter().filter_map(|(option, path)| Some((option, path?))).collect();
        check_outputs(&given)
    }

    /// Whether standard output is that of one of them.
    pub(super) fn is_printed(&self) -> bool {
        [self.json, self.hgrm, self.html].contains(&Some(Path::new("-")))
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
            if let Some(beside) = uncorrected(path) {
                write(&beside, &report::hgrm(&totals.uncorrected));
            }
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

/// The file beside that of `--hgrm` for the latency from the actual sends; standard output, pipes and devices have none.
fn uncorrected(path: &Path) -> Option<PathBuf> {
    let mut beside = path.to_owned().into_os_string();
    beside.push(".uncorrected");
    is_kept(path).then(|| beside.into())
}

/// Whether what is written there can be written over: no standard output, pipe or device.
fn is_kept(path: &Path) -> bool {
    path != Path::new("-") && fs::metadata(path).map_or(true, |found| found.is_file())
}

/// Refuses what cannot be written, and one place for two outputs, however it is spelt. Nothing there is changed.
pub(super) fn check_outputs(given: &[(&str, &Path)]) -> Result<(), Failure> {
    let mut taken: Vec<(&str, Place)> = Vec::new();
    for (option, path) in given {
        check_writable(option, path)?;
        let Some(place) = Place::of(path) else { continue };
        if let Some((other, _)) = taken.iter().find(|(_, earlier)| *earlier == place) {
            return Err(Failure::usage(format!("{other} and {option} both name {}", path.display())));
        }
        taken.push((option, place));
    }
    Ok(())
}

/// Where something is written, the same for each spelling of it.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    StandardOutput,
    /// Device and inode of a file that is there: hard links have two names.
    File(u64, u64),
    /// Name of one that is not.
    New(PathBuf),
}

impl Place {
    /// `None` for what several may be written to, as pipes and devices, and for what cannot be found.
    fn of(path: &Path) -> Option<Self> {
        if path == Path::new("-") {
            return Some(Self::StandardOutput);
        }
        match fs::metadata(path) {
            Ok(found) => found.is_file().then(|| Self::File(found.dev(), found.ino())),
            Err(_) => {
                let end = end_of_links(path);
                Some(Self::New(directory_of(&end).canonicalize().ok()?.join(end.file_name()?)))
            }
        }
    }
}

/// What a symbolic link that leads to nothing would be followed to, and any other path itself.
fn end_of_links(path: &Path) -> PathBuf {
    let mut end = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(next) = fs::read_link(&end) else { break };
        end = directory_of(&end).join(next);
    }
    end
}

/// The directory in which a path is; `.` for a mere name.
fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Refuses a path that cannot be written. Nothing there is changed.
fn check_writable(option: &str, path: &Path) -> Result<(), Failure> {
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
            // Through a link that leads to nothing a file can be written, but not made anew.
            let end = end_of_links(path);
            let made = OpenOptions::new().write(true).create_new(true).open(&end);
            made.and_then(|_| fs::remove_file(&end)).map_err(tell)
        }
        Err(error) => Err(tell(error)),
    }
}
