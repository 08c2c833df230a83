//! Whether an answer is the one its request should get. Pure.

use memchr::memmem;
use serde::{Deserialize, Serialize};

use crate::response::{Answer, number_in};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should.
    Accepted,
    /// Malformed on purpose and refused for it.
    RefusedAsExpected,
    /// Declined in the form that is promised: 429 or 503 with `Retry-After`, or 507.
    Rejected,
    /// Another status.
    WrongStatus,
    /// The right status with a body that does not say what it should.
    WrongBody,
    /// Bytes that are no HTTP answer.
    BadResponse,
    /// The connection ended before the answer.
    ConnectionLost,
    /// No connection came about.
    ConnectFailed,
    /// No answer in time.
    TimedOut,
    /// It was due, and no connection was free until the end.
    NeverSent,
    /// No request at all: an answer that none was waiting for.
    Unsolicited,
}

impl Outcome {
    /// All, in the order of their declaration.
    pub const ALL: [Self; 11] = [
        Self::Accepted,
        Self::RefusedAsExpected,
        Self::Rejected,
        Self::WrongStatus,
        Self::WrongBody,
        Self::BadResponse,
        Self::ConnectionLost,
        Self::ConnectFailed,
        Self::TimedOut,
        Self::NeverSent,
        Self::Unsolicited,
    ];

    /// Whether the request got the answer it should.
    #[must_use]
    pub fn is_good(self) -> bool {
        matches!(self, Self::Accepted | Self::RefusedAsExpected)
    }

    /// Whether it counts as an error: neither good nor declined in the promised form.
    #[must_use]
    pub fn is_error(self) -> bool {
        !self.is_good() && self != Self::Rejected
    }

    /// Its name in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::RefusedAsExpected => "refused_as_expected",
            Self::Rejected => "rejected",
            Self::WrongStatus => "wrong_status",
            Self::WrongBody => "wrong_body",
            Self::BadResponse => "bad_response",
            Self::ConnectionLost => "connection_lost",
            Self::ConnectFailed => "connect_failed",
            Self::TimedOut => "timed_out",
            Self::NeverSent => "never_sent",
            Self::Unsolicited => "unsolicited",
        }
    }
}

/// How closely answers are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Status and body as tidegate promises them: the counts of a 202, `Retry-After` of a 503.
    #[default]
    Tidegate,
    /// Any 2xx is good: other servers.
    Status,
    /// Nothing is waited for; a request is done when its last byte was sent. For servers that never answer.
    Nothing,
}

/// What a request's answer should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// Good status codes; empty: any 2xx.
    pub statuses: Vec<u16>,
    /// Events that should be accepted and refused, in the body's own words.
    pub counts: Option<(u64, u64)>,
    /// What the beginning of the body holds.
    pub holds: Option<&'static [u8]>,
    /// Least length of the body.
    pub body_bytes_min: u64,
    /// A status that refuses a malformed request as it should.
    pub refusal: Option<u16>,
    /// Whether a 429 or 503 must say when to come back.
    pub needs_retry_after: bool,
}

/// How a request ended that was answered so.
#[must_use]
pub fn judge(expect: &Expect, answer: &Answer<'_>) -> Outcome {
    if expect.refusal == Some(answer.status) {
        return Outcome::RefusedAsExpected;
    }
    let is_good = match expect.statuses.as_slice() {
        [] => (200..300).contains(&answer.status),
        statuses => statuses.contains(&answer.status),
    };
    if !is_good {
        return match answer.status {
            429 | 503 if answer.has_retry_after || !expect.needs_retry_after => Outcome::Rejected,
            507 => Outcome::Rejected,
            _ => Outcome::WrongStatus,
        };
    }
    let counted = expect.counts.is_none_or(|(accepted, rejected)| {
        number_in(answer.body, b"\"accepted\":") == Some(accepted)
            && number_in(answer.body, b"\"rejected\":") == Some(rejected)
    });
    let holds = expect.holds.is_none_or(|needle| memmem::find(answer.body, needle).is_some());
    if counted && holds && answer.body_bytes >= expect.body_bytes_min { Outcome::Accepted } else { Outcome::WrongBody }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> Answer<'static> {
        let body = body.as_bytes();
        Answer { status, has_retry_after: false, closes: false, body_bytes: body.len() as u64, body }
    }

    #[test]
    fn a_202_must_count_what_was_sent() {
        let expect =
            Expect { statuses: vec![202], counts: Some((10, 0)), needs_retry_after: true, ..Expect::default() };
        let judged = |body| judge(&expect, &answer(202, body));
        assert_eq!(judged(r#"{"data":{"accepted":10,"rejected":0}}"#), Outcome::Accepted);
        assert_eq!(judged(r#"{"data":{"accepted":9,"rejected":1}}"#), Outcome::WrongBody);
        assert_eq!(judged(r#"{"data":{"accepted":100,"rejected":0}}"#), Outcome::WrongBody);
        assert_eq!(judged("ok"), Outcome::WrongBody);
        assert_eq!(judge(&expect, &answer(200, r#"{"accepted":10,"rejected":0}"#)), Outcome::WrongStatus);
    }

    #[test]
    fn a_rejection_counts_as_one_only_in_its_promised_form() {
        let expect = Expect { needs_retry_after: true, ..Expect::default() };
        let with_retry = Answer { has_retry_after: true, ..answer(503, "") };
        assert_eq!(judge(&expect, &with_retry), Outcome::Rejected);
        assert_eq!(judge(&expect, &answer(503, "")), Outcome::WrongStatus);
        assert_eq!(judge(&expect, &answer(429, "")), Outcome::WrongStatus);
        assert_eq!(judge(&expect, &answer(507, "")), Outcome::Rejected);
        assert_eq!(judge(&expect, &answer(500, "")), Outcome::WrongStatus);
    }

    #[test]
    fn a_malformed_request_should_be_refused_and_nothing_else() {
        let expect = Expect { statuses: vec![400], refusal: Some(400), ..Expect::default() };
        assert_eq!(judge(&expect, &answer(400, "")), Outcome::RefusedAsExpected);
        assert_eq!(judge(&expect, &answer(202, "")), Outcome::WrongStatus);
    }

    #[test]
    fn a_body_cut_short_is_wrong() {
        let expect = Expect { holds: Some(b"echo"), body_bytes_min: 10, ..Expect::default() };
        assert_eq!(judge(&expect, &answer(200, "{\"echo\":{}}")), Outcome::Accepted);
        assert_eq!(judge(&expect, &answer(200, "{\"echo\"")), Outcome::WrongBody);
    }
}
