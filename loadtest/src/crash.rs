//! Rounds of load, kill -9, restart, oracle: whether what was acknowledged survives. Main thread.
//!
//! Each round kills the server at a random time under load, some of them once more while it recovers, and then holds the
//! whole log against all rounds so far: an event must survive not only its own crash but every later one.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::event::Templates;
use crate::generator::Shared;
use crate::interrupt::Interrupt;
use crate::oracle::{self, Account, Ledger};
use crate::plan::Plan;
use crate::random::Random;
use crate::report::Verdict;
use crate::request::Outcome;
use crate::run;
use crate::sys::process;

/// How long something may listen at the address before it is somebody else: the kernel ends the rings of a killed process, and
/// with them its sockets, a little after the process itself.
const FORMER_ENDS_WITHIN: Duration = Duration::from_secs(3);
/// Between two attempts to connect.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// How long a server may take to become ready, recovery included.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to end when asked to.
const END_WITHIN: Duration = Duration::from_secs(60);
/// A start that is refused for its configuration (exit code 2) is tried again so often: the kernel ends the rings of a
/// killed process after the process itself, and until then they hold its ports.
const REFUSED_STARTS_MAX: u32 = 40;
/// Exit code of such a refusal.
const REFUSED: i32 = 2;
/// The wait before the next attempt.
const REFUSED_WAIT: Duration = Duration::from_millis(50);
/// How often either is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// One round in so many kills the server once more while it recovers.
const AGAIN_ONE_IN: u64 = 3;
/// That second kill comes within this.
const AGAIN_WITHIN: Duration = Duration::from_millis(300);
/// A load's time counts from its first acknowledgement, or from here on if there is none: where a disk takes longer for its
/// first sync than a round lasts, a kill would try nothing.
const FIRST_ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(10);
/// The least time under load.
pub const LOAD_MIN: Duration = Duration::from_millis(50);

/// What is to be done.
pub struct Crash {
    /// Rounds.
    pub rounds: u32,
    /// The server's command line, run by sh(1).
    pub server: String,
    /// Its data directory.
    pub data: PathBuf,
    /// The program that reads the log.
    pub tidegate: PathBuf,
    /// Longest time under load before a kill, from the first acknowledgement on.
    pub load_max: Duration,
    /// What kill times come from.
    pub seed: u64,
    /// Where the server's output goes.
    pub server_log: PathBuf,
    /// What may end it all early.
    pub interrupt: Interrupt,
}

/// What a round found.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// Its number, from 1.
    pub round: u32,
    /// Time under load before the kill, from the round's first acknowledgement on, milliseconds.
    pub load_ms: u64,
    /// The server was killed once more while it recovered.
    pub killed_again: bool,
    /// Starts that were refused before one was not: the killed server's ports were still taken.
    pub refused_starts: u32,
    /// From the first attempt to start again to readiness, milliseconds.
    pub ready_after_ms: u64,
    /// Events this round's clients were promised.
    pub acked_in_round: u64,
    /// The whole log against all rounds so far.
    pub verdict: Verdict,
}

/// Everything that was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CrashResult {
    /// Events acknowledged before the first round, by a server that was not killed.
    pub acked_before: u64,
    /// Each round that was judged.
    pub rounds: Vec<Round>,
    /// Kills, those during recovery included.
    pub kills: u32,
    /// The whole log after an orderly end; `None` if it did not come to that.
    pub last: Option<Verdict>,
    /// Whether `tidegate verify` finds the log sound; `None` as above.
    pub log_is_sound: Option<bool>,
    /// Whether all rounds were made and every verdict is sound.
    pub sound: bool,
    /// Seed of the kill times.
    pub seed: u64,
    /// The signal that ended it before all rounds were made.
    pub interrupted: Option<String>,
    /// What ended it before all rounds were made, if nobody asked for it.
    pub failed: Option<String>,
    /// The data directory was made by it and is gone again: only if it was interrupted, and nothing was found wrong.
    pub data_removed: bool,
}

impl CrashResult {
    /// Whether anything was found lost, duplicated, corrupted, unknown or damaged.
    #[must_use]
    pub fn found_wrong(&self) -> bool {
        let verdicts = self.rounds.iter().map(|round| &round.verdict).chain(&self.last);
        verdicts.into_iter().any(|verdict| !verdict.sound) || self.log_is_sound == Some(false)
    }
}

/// Events and promises of each load so far.
type Promised = Vec<(Arc<Templates>, Vec<Ledger>)>;

/// Runs the rounds; each is shown to `seen`. `plan` makes the load of one round. However it ends, no server is left.
pub fn crash(
    crash: &Crash,
    plan: &mut dyn FnMut() -> Result<Plan, String>,
    seen: &mut dyn FnMut(&Round),
) -> CrashResult {
    let ground = Ground::of(&crash.data);
    let mut found = CrashResult { seed: crash.seed, ..CrashResult::default() };
    if let Err(error) = all_rounds(crash, plan, &mut found, seen) {
        match crash.interrupt.signal() {
            Some(signal) => found.interrupted = Some(signal.name().into()),
            None => found.failed = Some(error),
        }
    }
    found.sound = found.interrupted.is_none() && found.failed.is_none() && !found.found_wrong();
    if found.interrupted.is_some() && !found.found_wrong() {
        found.data_removed = ground.restore(&crash.data);
    }
    found
}

fn all_rounds(
    crash: &Crash,
    plan: &mut dyn FnMut() -> Result<Plan, String>,
    found: &mut CrashResult,
    seen: &mut dyn FnMut(&Round),
) -> Result<(), String> {
    let mut random = Random::new(crash.seed, 0xc4a5_4000);
    let mut promised = Promised::new();
    let first = plan()?;
    let target = first.target;
    let mut started = Server::start(crash, target)?;
    promised.push(load_for(crash, first, LOAD_MIN, || Ok(()))?);
    found.acked_before = acked(&promised[0].1);
    if found.acked_before == 0 {
        return Err("no event was acknowledged: nothing was tried".into());
    }
    is_its_log(crash, &promised)?;
    for round in 1..=crash.rounds {
        let spread = crash.load_max.saturating_sub(LOAD_MIN).as_micros() as u64;
        let load = LOAD_MIN + Duration::from_micros(random.below(spread.max(1)));
        let mut server = started.server;
        promised.push(load_for(crash, plan()?, load, move || server.kill())?);
        found.kills += 1;
        let killed_again = random.below(AGAIN_ONE_IN) == 0;
        if killed_again {
            let mut recovering = Server::launch(crash)?;
            thread::sleep(Duration::from_micros(random.below(AGAIN_WITHIN.as_micros() as u64)));
            recovering.kill()?;
            found.kills += 1;
        }
        started = Server::start(crash, target)?;
        let judged = Round {
            round,
            load_ms: load.as_millis() as u64,
            killed_again,
            refused_starts: started.refused,
            ready_after_ms: started.ready_after.as_millis() as u64,
            acked_in_round: acked(&promised[round as usize].1),
            verdict: judge(crash, &promised)?,
        };
        seen(&judged);
        found.rounds.push(judged);
    }
    let ended = started.server.end(crash)?;
    if !ended.success() {
        return Err(format!("the server ended with {ended} when asked to: see {}", crash.server_log.display()));
    }
    found.last = Some(judge(crash, &promised)?);
    found.log_is_sound = Some(log_is_sound(crash)?);
    Ok(())
}

fn acked(ledgers: &[Ledger]) -> u64 {
    ledgers.iter().map(|ledger| ledger.acked.count()).sum()
}

/// Refuses to go on with a log that is not the server's, in which all would be lost, and with promises that no crash keeps.
fn is_its_log(crash: &Crash, promised: &Promised) -> Result<(), String> {
    let verdict = judge(crash, promised)?;
    if verdict.acked > 0 && verdict.lost == verdict.acked {
        return Err(format!(
            "of {} events that the server acknowledged none is in {}, and it was not killed yet: --data must be the directory \
             that --server stores in",
            verdict.acked,
            crash.data.display()
        ));
    }
    Ok(())
}

/// Puts load on the server, does `then` once it has acknowledged for `load`, or a signal comes, and gives what was promised
/// until then.
fn load_for(
    crash: &Crash,
    plan: Plan,
    load: Duration,
    then: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<(Arc<Templates>, Vec<Ledger>), String> {
    let plan = Arc::new(plan);
    let shared = Shared::new(plan.threads());
    let ender = {
        let (shared, interrupt) = (Arc::clone(&shared), crash.interrupt.clone());
        thread::spawn(move || {
            let goes_on = || interrupt.signal().is_none();
            let began = Instant::now();
            while !shared.acknowledged.load(Ordering::Relaxed)
                && began.elapsed() < FIRST_ACKNOWLEDGED_WITHIN
                && goes_on()
            {
                thread::sleep(LOOK_EVERY);
            }
            let began = Instant::now();
            while began.elapsed() < load && goes_on() {
                thread::sleep(LOOK_EVERY.min(load.saturating_sub(began.elapsed())));
            }
            let done = then();
            shared.stop.store(true, Ordering::Relaxed);
            done
        })
    };
    let done = run::run(&plan, &shared, &mut |_| {});
    ender.join().map_err(|_| "the thread that ends the load panicked".to_owned())??;
    crash.goes_on()?;
    let done = done?;
    if done.totals.ack.as_deref() == Some("memory") {
        return Err(
            "the server acknowledges from memory: such events a crash loses by definition; use durable or written"
                .into(),
        );
    }
    if done.totals.outcomes[Outcome::Unsolicited as usize] > 0 {
        return Err("answers came that no request was waiting for: nobody knows what was acknowledged".into());
    }
    Ok((Arc::clone(&plan.templates), done.ledgers))
}

impl Crash {
    /// An error once a signal has come; its text is told to nobody.
    fn goes_on(&self) -> Result<(), String> {
        self.interrupt.signal().map_or(Ok(()), |signal| Err(signal.name().into()))
    }
}

fn judge(crash: &Crash, promised: &Promised) -> Result<Verdict, String> {
    let accounts: Vec<Account<'_>> =
        promised.iter().map(|(templates, ledgers)| Account { templates, ledgers }).collect();
    oracle::verify(&crash.tidegate, &crash.data, &accounts, &|| crash.interrupt.signal().is_none())
}

fn log_is_sound(crash: &Crash) -> Result<bool, String> {
    let tell = |error: std::io::Error| format!("{}: {error}", crash.tidegate.display());
    let mut command = Command::new(&crash.tidegate);
    command
        .args([Path::new("verify"), Path::new("--data"), &crash.data])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // What Ctrl-C would end would look like a damaged log.
    process::dies_with_us(&mut command);
    let mut child = command.spawn().map_err(tell)?;
    loop {
        if let Some(status) = child.try_wait().map_err(tell)? {
            return Ok(status.success());
        }
        if let Err(interrupted) = crash.goes_on() {
            let _ = process::signal_group(&child, libc::SIGKILL);
            let _ = child.wait();
            return Err(interrupted);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// A server process; killed if it is dropped.
struct Server {
    child: Child,
}

/// A server that is ready.
struct Started {
    server: Server,
    refused: u32,
    ready_after: Duration,
}

impl Server {
    /// Starts the server and waits until it is ready.
    fn start(crash: &Crash, target: SocketAddr) -> Result<Started, String> {
        let began = Instant::now();
        let mut server = Self::launch(crash)?;
        let mut refused = 0;
        loop {
            if let Ok(Some(status)) = server.child.try_wait() {
                if status.code() != Some(REFUSED) || refused == REFUSED_STARTS_MAX {
                    return Err(format!(
                        "the server ended at its start with {status}: see {}",
                        crash.server_log.display()
                    ));
                }
                refused += 1;
                thread::sleep(REFUSED_WAIT);
                server = Self::launch(crash)?;
            }
            crash.goes_on()?;
            if is_ready(target) {
                return Ok(Started { server, refused, ready_after: began.elapsed() });
            }
            if began.elapsed() > READY_WITHIN {
                return Err(format!("the server was not ready within {} s", READY_WITHIN.as_secs()));
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn launch(crash: &Crash) -> Result<Self, String> {
        let log = File::options().create(true).append(true).open(&crash.server_log);
        let log = log.map_err(|error| format!("{}: {error}", crash.server_log.display()))?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        // `exec` makes the child the server itself: what is killed is not a shell.
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec {}", crash.server)]).stdin(Stdio::null()).stdout(log).stderr(errors);
        process::dies_with_us(&mut command);
        command.spawn().map(|child| Self { child }).map_err(|error| format!("{}: {error}", crash.server))
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    fn kill(&mut self) -> Result<(), String> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(format!("the server ended by itself before it was killed: {status}"));
        }
        process::signal_group(&self.child, libc::SIGKILL)
            .and_then(|()| self.child.wait())
            .map(drop)
            .map_err(|error| format!("the server could not be killed: {error}"))
    }

    /// SIGTERM, and waits for the end.
    fn end(mut self, crash: &Crash) -> Result<ExitStatus, String> {
        process::signal_group(&self.child, libc::SIGTERM)
            .map_err(|error| format!("the server could not be asked to end: {error}"))?;
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                return Ok(status);
            }
            crash.goes_on()?;
            if began.elapsed() > END_WITHIN {
                return Err(format!("the server did not end within {} s of SIGTERM", END_WITHIN.as_secs()));
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that was waited for may have left its number to another group.
        if let Ok(None) = self.child.try_wait() {
            let _ = process::signal_group(&self.child, libc::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// What the data directory was before the first start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ground {
    Absent,
    Empty,
    /// Somebody's.
    Used,
}

impl Ground {
    fn of(data: &Path) -> Self {
        match fs::read_dir(data) {
            Ok(mut entries) => entries.next().map_or(Self::Empty, |_| Self::Used),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::Absent,
            Err(_) => Self::Used,
        }
    }

    /// Removes what was not there; whether that is all gone.
    fn restore(self, data: &Path) -> bool {
        let remove = |path: &Path| {
            if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
        };
        match self {
            Self::Absent => remove(data).is_ok(),
            Self::Empty => {
                let entries = fs::read_dir(data).into_iter().flatten();
                entries.into_iter().all(|entry| entry.and_then(|entry| remove(&entry.path())).is_ok())
            }
            Self::Used => false,
        }
    }
}

/// Whether anything listens at the address, and goes on to.
#[must_use]
pub fn is_taken(target: SocketAddr) -> bool {
    let began = Instant::now();
    while TcpStream::connect_timeout(&target, Duration::from_secs(1)).is_ok() {
        if began.elapsed() >= FORMER_ENDS_WITHIN {
            return true;
        }
        thread::sleep(LOOK_AGAIN_AFTER);
    }
    false
}

/// Whether `GET /ready` is answered with 200.
fn is_ready(target: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut socket = TcpStream::connect_timeout(&target, Duration::from_secs(1))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.write_all(b"GET /ready HTTP/1.1\r\nHost: ready\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        socket.read_exact(&mut status)?;
        Ok(&status == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_there_before_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let (absent, empty, used) = (home.path().join("absent"), home.path().join("empty"), home.path().join("used"));
        fs::create_dir(&empty).unwrap();
        fs::create_dir(&used).unwrap();
        fs::write(used.join("mine"), "mine").unwrap();
        let grounds = [&absent, &empty, &used].map(|data| Ground::of(data));
        assert_eq!(grounds, [Ground::Absent, Ground::Empty, Ground::Used]);
        for (ground, data) in grounds.into_iter().zip([&absent, &empty, &used]) {
            fs::create_dir_all(data.join("writer-0")).unwrap();
            fs::write(data.join("writer-0/segment"), "of the server").unwrap();
            fs::write(data.join("LOCK"), "of the server").unwrap();
            assert_eq!(ground.restore(data), ground != Ground::Used, "{ground:?}");
        }
        assert!(!absent.exists());
        assert_eq!(Ground::of(&empty), Ground::Empty);
        assert!(used.join("mine").exists() && used.join("writer-0/segment").exists());
    }
}
