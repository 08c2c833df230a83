//! When a server stops and with which exit code: a state machine over explicit time. Control thread; pure.
//!
//! | state | what happens | next |
//! |---|---|---|
//! | serving | a signal asks to stop | draining |
//! | serving, draining | a writer failed | lingering: /ready says 503, requests are answered 503 |
//! | serving, draining | a thread ended that should not have | end |
//! | draining | every thread has ended | end |
//! | draining | `drain_timeout` is over | end |
//! | lingering | `poison_linger` is over, or a signal asks to stop | end |

use std::fmt;
use std::time::{Duration, Instant};

use crate::handoff::WriterFailure;

/// How a server ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Asked to stop; every request was answered and every acknowledged event synced.
    Drained,
    /// Asked to stop; some requests had begun and were not finished when the time was over.
    DrainTimedOut,
    /// A writer failed: nothing was acknowledged from then on.
    WriterFailed(WriterFailure),
    /// A shard or writer thread ended by itself; says which, and why if it said.
    ThreadEnded(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drained => f.write_str("drained: every request is answered, every acknowledged event is on disk"),
            Self::DrainTimedOut => f.write_str(
                "the drain took too long and was cut off: requests that had begun were not finished, every acknowledged event is on disk; --drain-timeout gives more time",
            ),
            Self::WriterFailed(failure) if failure.is_displaced() => {
                write!(f, "stopped because {failure}")
            }
            Self::WriterFailed(failure) => write!(
                f,
                "stopped because {failure}; what was acknowledged as durable before is on disk: mend the disk, then start again"
            ),
            Self::ThreadEnded(which) => write!(f, "stopped because a thread ended by itself: {which}"),
        }
    }
}

impl Outcome {
    /// The process's exit code.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Drained => 0,
            Self::ThreadEnded(_) => 3,
            // A drain that was cut off did not do what exit code 0 promises.
            Self::WriterFailed(_) | Self::DrainTimedOut => 5,
        }
    }
}

/// Whether the shards and writers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ThreadsState {
    /// All of them, or while draining some of them.
    Running,
    /// All have ended as they were told to.
    Ended,
    /// One ended that was not told to: says which, and why if it said.
    Lost(String),
}

/// What is known at one moment.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The moment.
    pub now: Instant,
    /// Whether a signal asked to stop.
    pub stop_asked: bool,
    /// The first writer's failure, if any failed.
    pub failure: Option<WriterFailure>,
    /// Whether the threads run.
    pub threads: ThreadsState,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing new.
    Wait,
    /// Tell the shards to drain.
    BeginDrain,
    /// Say that a writer failed, and keep answering for a while.
    BeginLinger(WriterFailure),
    /// End.
    End(Outcome),
}

/// The state machine.
#[derive(Debug)]
pub struct Shutdown {
    state: State,
    drain_timeout: Duration,
    poison_linger: Duration,
}

#[derive(Debug)]
enum State {
    Serving,
    Draining { until: Instant },
    Lingering { until: Instant, failure: WriterFailure },
}

impl Shutdown {
    /// Serving.
    #[must_use]
    pub const fn new(drain_timeout: Duration, poison_linger: Duration) -> Self {
        Self { state: State::Serving, drain_timeout, poison_linger }
    }

    /// Whether the server is on its way out and looks should come more often than once a second.
    #[must_use]
    pub const fn is_ending(&self) -> bool {
        !matches!(self.state, State::Serving)
    }

    /// Decides on what is known now.
    pub fn step(&mut self, facts: &Facts) -> Action {
        if let State::Lingering { until, failure } = self.state {
            // Threads may end while lingering: a poisoned writer's does at once.
            let over = facts.now >= until || facts.stop_asked;
            return if over { Action::End(Outcome::WriterFailed(failure)) } else { Action::Wait };
        }
        if let Some(failure) = facts.failure {
            if facts.stop_asked {
                return Action::End(Outcome::WriterFailed(failure));
            }
            self.state = State::Lingering { until: facts.now + self.poison_linger, failure };
            return Action::BeginLinger(failure);
        }
        if let ThreadsState::Lost(which) = &facts.threads {
            return Action::End(Outcome::ThreadEnded(which.clone()));
        }
        match self.state {
            State::Serving if facts.stop_asked => {
                self.state = State::Draining { until: facts.now + self.drain_timeout };
                Action::BeginDrain
            }
            State::Draining { .. } if facts.threads == ThreadsState::Ended => Action::End(Outcome::Drained),
            State::Draining { until } if facts.now >= until => Action::End(Outcome::DrainTimedOut),
            State::Serving if facts.threads == ThreadsState::Ended => {
                Action::End(Outcome::ThreadEnded("every shard and writer ended without being asked".to_owned()))
            }
            _ => Action::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::FailureStage;

    const DRAIN: Duration = Duration::from_secs(30);
    const LINGER: Duration = Duration::from_secs(5);
    const FAILURE: WriterFailure = WriterFailure { stage: FailureStage::Sync, errno: libc::EIO };

    fn facts(now: Instant) -> Facts {
        Facts { now, stop_asked: false, failure: None, threads: ThreadsState::Running }
    }

    #[test]
    fn a_drain_ends_when_the_threads_have() {
        let start = Instant::now();
        let mut shutdown = Shutdown::new(DRAIN, LINGER);
        assert_eq!(shutdown.step(&facts(start)), Action::Wait);
        assert!(!shutdown.is_ending());
        let asked = Facts { stop_asked: true, ..facts(start) };
        assert_eq!(shutdown.step(&asked), Action::BeginDrain);
        assert!(shutdown.is_ending());
        assert_eq!(shutdown.step(&asked), Action::Wait, "told once");
        let ended = Facts { threads: ThreadsState::Ended, ..asked };
        assert_eq!(shutdown.step(&ended), Action::End(Outcome::Drained));
    }

    #[test]
    fn a_drain_does_not_wait_for_ever() {
        let start = Instant::now();
        let mut shutdown = Shutdown::new(DRAIN, LINGER);
        let at = |after| Facts { stop_asked: true, ..facts(start + after) };
        assert_eq!(shutdown.step(&at(Duration::ZERO)), Action::BeginDrain);
        assert_eq!(shutdown.step(&at(DRAIN - Duration::from_millis(1))), Action::Wait);
        assert_eq!(shutdown.step(&at(DRAIN)), Action::End(Outcome::DrainTimedOut));
    }

    #[test]
    fn a_failed_writer_lingers_and_then_ends_with_its_reason() {
        let start = Instant::now();
        for drain_first in [false, true] {
            let mut shutdown = Shutdown::new(DRAIN, LINGER);
            if drain_first {
                assert_eq!(shutdown.step(&Facts { stop_asked: true, ..facts(start) }), Action::BeginDrain);
            }
            let failed = |after| Facts { failure: Some(FAILURE), ..facts(start + after) };
            assert_eq!(shutdown.step(&failed(Duration::ZERO)), Action::BeginLinger(FAILURE));
            let lost = Facts { threads: ThreadsState::Lost("writer 0".to_owned()), ..failed(Duration::from_secs(1)) };
            assert_eq!(shutdown.step(&lost), Action::Wait, "the failed writer's thread ends: that is known");
            assert_eq!(shutdown.step(&failed(LINGER)), Action::End(Outcome::WriterFailed(FAILURE)));
        }
    }

    #[test]
    fn a_signal_cuts_the_lingering_short() {
        let start = Instant::now();
        let mut shutdown = Shutdown::new(DRAIN, LINGER);
        let failed = Facts { failure: Some(FAILURE), ..facts(start) };
        shutdown.step(&failed);
        let asked = Facts { stop_asked: true, ..failed.clone() };
        assert_eq!(shutdown.step(&asked), Action::End(Outcome::WriterFailed(FAILURE)));
        let mut both_at_once = Shutdown::new(DRAIN, LINGER);
        assert_eq!(both_at_once.step(&asked), Action::End(Outcome::WriterFailed(FAILURE)));
    }

    #[test]
    fn a_lost_thread_ends_the_server() {
        let start = Instant::now();
        let lost = Facts { threads: ThreadsState::Lost("shard 3".to_owned()), ..facts(start) };
        let ended = Facts { threads: ThreadsState::Ended, ..facts(start) };
        assert_eq!(Shutdown::new(DRAIN, LINGER).step(&lost), Action::End(Outcome::ThreadEnded("shard 3".to_owned())));
        assert!(matches!(Shutdown::new(DRAIN, LINGER).step(&ended), Action::End(Outcome::ThreadEnded(_))));
        let mut draining = Shutdown::new(DRAIN, LINGER);
        draining.step(&Facts { stop_asked: true, ..facts(start) });
        assert!(matches!(draining.step(&lost), Action::End(Outcome::ThreadEnded(_))));
    }

    #[test]
    fn exit_codes_are_the_contracts() {
        let codes = [Outcome::Drained, Outcome::DrainTimedOut, Outcome::WriterFailed(FAILURE)].map(|o| o.exit_code());
        assert_eq!(codes, [0, 5, 5]);
        assert_eq!(Outcome::ThreadEnded(String::new()).exit_code(), 3);
    }
}
