//! Servers on hosts that grant them too little: whichever thread or ring meets a limit, the server ends with 3 and names it.
//!
//! The limits are a user's, do not count for root, and count all that the user runs: each server runs under a user number
//! that nobody has, which takes root to arrange.

mod support;

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use support::mount::skip;

/// Where made-up user numbers begin: above what distributions give to people and services.
const USERS_FROM: u32 = 200_000;
/// Of one that owns no log.
const NO_OWNER: u32 = 48;

/// A directory that everybody may use, with the binary in it: the one that cargo built may lie where only root may go.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), Permissions::from_mode(0o777)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_tidegate"), place.path().join("tidegate")).unwrap();
    place
}

/// A user number of this test's own: `user` is below 64, and no other server's, for what one user runs counts together. The limit of
/// threads takes 1 to 16, that of memory 32 to 41, the plan [`NO_OWNER`].
fn made_up(user: u32) -> String {
    (USERS_FROM + std::process::id() % 100_000 * 64 + user).to_string()
}

/// A small server under a user of its own, with `limit` as prlimit(1) takes it.
fn serve(place: &tempfile::TempDir, user: u32, limit: &str, shards: u16) -> Child {
    let user = made_up(user);
    let mut command = Command::new("prlimit");
    command.arg(limit).args(["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups", "--"]);
    command.arg(place.path().join("tidegate")).arg("serve").env_clear();
    command.arg("--data").arg(place.path().join(format!("data-{user}")));
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", &shards.to_string()]);
    command.args([
        "--segment-bytes",
        "8MiB",
        "--reserve-bytes",
        "0",
        "--log-buffer-bytes",
        "8MiB",
        "--pool-bytes",
        "8MiB",
    ]);
    command.args(["--receive-buffers", "8", "--decoders-per-shard-max", "1"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("prlimit and setpriv are there: util-linux")
}

/// `None` for a server that runs, admin port and all; what one said that ended, and its exit code.
fn outcome(mut server: Child) -> Option<(String, Option<i32>)> {
    let mut stderr = BufReader::new(server.stderr.take().unwrap());
    let mut said = String::new();
    if runs(&mut stderr, &mut said) {
        server.kill().unwrap();
        server.wait().unwrap();
        return None;
    }
    stderr.read_to_string(&mut said).unwrap();
    Some((said, server.wait().unwrap().code()))
}

fn runs(stderr: &mut BufReader<ChildStderr>, said: &mut String) -> bool {
    while stderr.read_line(said).unwrap() > 0 {
        let Some((_, admin)) = said.split_once("(admin http://") else { continue };
        let mut answer = String::new();
        // Refused, reset or cut short by a server that ends instead.
        return admin.split(')').next().and_then(|admin| TcpStream::connect(admin).ok()).is_some_and(|mut stream| {
            let asked = stream.write_all(b"GET /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
            asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
        });
    }
    false
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

#[test]
fn a_limit_of_threads_is_told_whichever_thread_meets_it() {
    if !is_root() {
        return skip("a_limit_of_threads_is_told_whichever_thread_meets_it", "it takes root");
    }
    let place = place();
    let mut refused = 0;
    for threads in 1..=16 {
        let server = serve(&place, threads, &format!("--nproc={threads}:{threads}"), 3);
        let Some((said, code)) = outcome(server) else { break };
        assert_eq!(code, Some(3), "{threads}: {said}");
        assert!(said.contains("the limit of processes and threads is reached: raise pids.max"), "{threads}: {said}");
        refused += 1;
    }
    // The control thread is the process's first; beside it run a writer and three shards.
    assert!((1..16).contains(&refused), "{refused}");
}

#[test]
fn a_limit_of_locked_memory_is_told_whichever_ring_meets_it() {
    if !is_root() {
        return skip("a_limit_of_locked_memory_is_told_whichever_ring_meets_it", "it takes root");
    }
    let place = place();
    // Up to what is enough for all of these rings; before Linux 6.14 they do not count, and the least is.
    for (user, kib) in [64, 512, 600, 800, 1024, 1536, 2048, 3072, 4096, 8192].into_iter().enumerate() {
        let bytes = kib * 1024;
        let server = serve(&place, 32 + u32::try_from(user).unwrap(), &format!("--memlock={bytes}:{bytes}"), 8);
        let Some((said, code)) = outcome(server) else { continue };
        assert_eq!(code, Some(3), "{kib} KiB: {said}");
        // A writer's thread, which has started by then, may still have a say of its own.
        let refusal = said.lines().rfind(|line| !line.contains("no real-time priority")).unwrap();
        assert!(refusal.contains("memlock") && refusal.contains("LimitMEMLOCK=infinity"), "{kib} KiB: {said}");
        assert!(!refusal.contains("in a container"), "{kib} KiB: {said}");
    }
}

#[test]
fn a_plan_tells_who_cannot_write_the_log() {
    if !is_root() {
        return skip("a_plan_tells_who_cannot_write_the_log", "it takes root");
    }
    let place = place();
    let data = place.path().join("data");
    fs::create_dir(&data).unwrap();
    let plan_of = |user: &str, data: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", user, "--regid", user, "--clear-groups", "--"]);
        command.arg(place.path().join("tidegate")).env_clear().args(["plan", "--shards", "1", "--data"]).arg(data);
        let output = command.output().expect("setpriv is there: util-linux");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let told = format!("this user cannot write in {} (Permission denied", data.display());
    for data in [data.clone(), data.join("not/there/yet")] {
        let (code, said) = plan_of(&made_up(NO_OWNER), &data);
        assert!(code == Some(0) && said.contains(&told), "{}: {code:?}: {said}", data.display());
    }
    for (user, data) in [("0", &data), (&*made_up(NO_OWNER), &place.path().join("mine"))] {
        let (code, said) = plan_of(user, data);
        assert!(code == Some(0) && !said.contains("cannot write"), "{user}: {code:?}: {said}");
    }
}
