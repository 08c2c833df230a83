//! Small filesystems of the test's own: to be filled, to be frozen. They need root; without it such tests say loudly
//! that they were skipped.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Variable that turns a skip into a failure, for machines on which every test must run.
const REQUIRE_ALL: &str = "TIDEGATE_TEST_REQUIRE_ALL";

/// Says past the test runner's capture that a test did not run.
///
/// # Panics
/// If `TIDEGATE_TEST_REQUIRE_ALL` is set.
pub(crate) fn skip(test: &str, why: &str) {
    assert!(std::env::var_os(REQUIRE_ALL).is_none(), "{test} cannot run here: {why}");
    // Unlike eprintln!, a write to stderr itself is shown also when the test passes.
    writeln!(std::io::stderr(), "SKIPPED {test}: {why}").expect("stderr is open");
}

/// A mounted filesystem, unmounted on drop.
pub(crate) struct Mount {
    home: tempfile::TempDir,
    point: PathBuf,
}

impl Mount {
    /// A tmpfs of `bytes` and room for `inodes` files and directories: small, quick, without O_DIRECT.
    ///
    /// # Errors
    /// Why it cannot be mounted here.
    pub(crate) fn tmpfs(bytes: u64, inodes: u32) -> Result<Self, String> {
        let (home, point) = place();
        let options = format!("size={bytes},nr_inodes={inodes}");
        run("mount", &["-t".as_ref(), "tmpfs".as_ref(), "-o".as_ref(), options.as_ref(), "tmpfs".as_ref(), &point])?;
        Ok(Self { home, point })
    }

    /// An ext4 of `bytes` on a loop device: with O_DIRECT, and it can be frozen.
    ///
    /// # Errors
    /// Why it cannot be mounted here.
    pub(crate) fn ext4(bytes: u64) -> Result<Self, String> {
        let (home, point) = place();
        let image = home.path().join("image");
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(bytes).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), &image])?;
        run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &point])?;
        Ok(Self { home, point })
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.point
    }

    /// Stops every write to it until the guard is dropped: writers wait in the kernel, nothing fails.
    pub(crate) fn freeze(&self) -> Result<Frozen<'_>, String> {
        run("fsfreeze", &["-f".as_ref(), &self.point])?;
        Ok(Frozen { mount: self })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a server that is being killed may hold it for a moment more.
        if let Err(error) = run("umount", &["-l".as_ref(), &self.point]) {
            eprintln!("{}: {error}", self.home.path().display());
        }
    }
}

/// A filesystem that takes no writes.
pub(crate) struct Frozen<'a> {
    mount: &'a Mount,
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Err(error) = run("fsfreeze", &["-u".as_ref(), &self.mount.point]) {
            eprintln!("thawing: {error}");
        }
    }
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().expect("a directory to mount in");
    let point = home.path().join("mount");
    std::fs::create_dir(&point).expect("the directory is new");
    (home, point)
}

fn run(program: &str, arguments: &[&Path]) -> Result<(), String> {
    // Where Debian keeps programs for root, which are not on everybody's path.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
