//! Rounds of load, kill -9, restart, oracle: whether what was acknowledged survives. Main thread.
//!
//! Each round kills the server at a random time under load, some of them once more while it recovers, and then holds the
//! whole log against all rounds so far: an event must survive not only its own crash but every later one.

use std::fs::File;
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
use crate::oracle::{self, Account, Ledger};
use crate::plan::Plan;
use crate::random::Random;
use crate::report::Verdict;
use crate::run;

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
/// The least time under load.
const LOAD_MIN: Duration = Duration::from_millis(50);

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
    /// Longest time under load before a kill.
    pub load_max: Duration,
    /// What kill times come from.
    pub seed: u64,
    /// Where the server's output goes.
    pub server_log: PathBuf,
}

/// What a round found.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// Its number, from 1.
    pub round: u32,
    /// Time under load before the kill, milliseconds.
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
#[derive(Clone, Debug, Serialize)]
pub struct CrashResult {
    /// Each round.
    pub rounds: Vec<Round>,
    /// Kills, those during recovery included.
    pub kills: u32,
    /// The whole log after an orderly end.
    pub last: Verdict,
    /// Whether `tidegate verify` finds the log sound.
    pub log_is_sound: bool,
    /// Whether every verdict was.
    pub sound: bool,
    /// Seed of the kill times.
    pub seed: u64,
}

/// Runs the rounds; each is shown to `seen`. `plan` makes the load of one round.
///
/// # Errors
/// A sentence: the server does not start or end, or the log cannot be read.
pub fn crash(
    crash: &Crash,
    plan: &mut dyn FnMut() -> Result<Plan, String>,
    seen: &mut dyn FnMut(&Round),
) -> Result<CrashResult, String> {
    let mut random = Random::new(crash.seed, 0xc4a5_4000);
    let mut promised: Vec<(Arc<Templates>, Vec<Ledger>)> = Vec::new();
    let mut rounds = Vec::new();
    let mut kills = 0;
    let target = plan()?.target;
    let mut started = Server::start(crash, target)?;
    for round in 1..=crash.rounds {
        let spread = crash.load_max.saturating_sub(LOAD_MIN).as_micros() as u64;
        let load = LOAD_MIN + Duration::from_micros(random.below(spread.max(1)));
        let (templates, ledgers) = load_until_killed(plan()?, started.server, load)?;
        kills += 1;
        let acked_in_round = ledgers.iter().map(|ledger| ledger.acked.count()).sum();
        promised.push((templates, ledgers));
        let killed_again = random.below(AGAIN_ONE_IN) == 0;
        if killed_again {
            let recovering = Server::launch(crash)?;
            thread::sleep(Duration::from_micros(random.below(AGAIN_WITHIN.as_micros() as u64)));
            recovering.kill()?;
            kills += 1;
        }
        started = Server::start(crash, target)?;
        let found = Round {
            round,
            load_ms: load.as_millis() as u64,
            killed_again,
            refused_starts: started.refused,
            ready_after_ms: started.ready_after.as_millis() as u64,
            acked_in_round,
            verdict: judge(crash, &promised)?,
        };
        seen(&found);
        rounds.push(found);
    }
    let ended = started.server.end()?;
    if !ended.success() {
        return Err(format!("the server ended with {ended} when asked to: see {}", crash.server_log.display()));
    }
    let last = judge(crash, &promised)?;
    let log_is_sound = log_is_sound(crash)?;
    let sound = log_is_sound && last.sound && rounds.iter().all(|round| round.verdict.sound);
    Ok(CrashResult { rounds, kills, last, log_is_sound, sound, seed: crash.seed })
}

/// Puts load on the server, kills it after `load`, and gives what was promised until then.
fn load_until_killed(plan: Plan, server: Server, load: Duration) -> Result<(Arc<Templates>, Vec<Ledger>), String> {
    let plan = Arc::new(plan);
    let shared = Shared::new(plan.threads());
    let killer = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            thread::sleep(load);
            let killed = server.kill();
            shared.stop.store(true, Ordering::Relaxed);
            killed
        })
    };
    let done = run::run(&plan, &shared, &mut |_| {});
    killer.join().map_err(|_| "the killing thread panicked".to_owned())??;
    Ok((Arc::clone(&plan.templates), done?.ledgers))
}

fn judge(crash: &Crash, promised: &[(Arc<Templates>, Vec<Ledger>)]) -> Result<Verdict, String> {
    let accounts: Vec<Account<'_>> =
        promised.iter().map(|(templates, ledgers)| Account { templates, ledgers }).collect();
    oracle::verify(&crash.tidegate, &crash.data, &accounts)
}

fn log_is_sound(crash: &Crash) -> Result<bool, String> {
    let status = Command::new(&crash.tidegate)
        .args([Path::new("verify"), Path::new("--data"), &crash.data])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.map(|status| status.success()).map_err(|error| format!("{}: {error}", crash.tidegate.display()))
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
        let child = Command::new("sh")
            .args(["-c", &format!("exec {}", crash.server)])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn();
        child.map(|child| Self { child }).map_err(|error| format!("{}: {error}", crash.server))
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    fn kill(mut self) -> Result<(), String> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(format!("the server ended by itself before it was killed: {status}"));
        }
        self.child.kill().and_then(|()| self.child.wait()).map(drop).map_err(|error| error.to_string())
    }

    /// SIGTERM, and waits for the end.
    fn end(mut self) -> Result<ExitStatus, String> {
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        asked.map_err(|error| format!("kill: {error}"))?;
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                return Ok(status);
            }
            if began.elapsed() > END_WITHIN {
                return Err(format!("the server did not end within {} s of SIGTERM", END_WITHIN.as_secs()));
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only for a child that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
