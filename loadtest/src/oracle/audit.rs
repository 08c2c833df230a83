//! Stored lines held against what was sent and promised. Main thread; pure.
//!
//! A line's name says its run, template and number; the template says every other byte. So each line is compared whole,
//! and what is kept of it is one bit.

use super::ledger::{Bits, Ledger};
use crate::event::{MALFORMED_TEMPLATE, NUMBER_DIGITS, Name, Number, Run, Template, Templates};
use crate::report::Verdict;

/// Examples of what is wrong that are kept.
const EXAMPLES_MAX: usize = 10;
/// Bytes of an example that are shown.
const EXAMPLE_BYTES: usize = 160;

/// What one run sent and was promised.
#[derive(Clone, Copy)]
pub struct Account<'a> {
    /// What its events were made from.
    pub templates: &'a Templates,
    /// What each of its generator threads sent and was promised.
    pub ledgers: &'a [Ledger],
}

struct Judged<'a> {
    account: Account<'a>,
    run: Run,
    /// What was found of each thread's events.
    stored: Vec<Bits>,
}

/// See the module text.
pub struct Audit<'a> {
    runs: Vec<Judged<'a>>,
    verdict: Verdict,
}

impl<'a> Audit<'a> {
    /// An audit of these runs, of which no two have the same name.
    #[must_use]
    pub fn new(accounts: &[Account<'a>]) -> Self {
        let judged = |account: &Account<'a>| Judged {
            account: *account,
            run: account.templates.run(),
            stored: vec![Bits::default(); account.ledgers.len()],
        };
        Self { runs: accounts.iter().map(judged).collect(), verdict: Verdict::default() }
    }

    /// Judges one line of the log, without its line end.
    pub fn line(&mut self, line: &[u8]) {
        let Some(name) = Name::of_line(line) else {
            self.verdict.unknown += 1;
            self.example("unknown", line);
            return;
        };
        // The newest run is asked for most.
        let Some(at) = self.runs.iter().rposition(|judged| judged.run == name.run) else {
            self.verdict.other_runs += 1;
            return;
        };
        self.verdict.stored += 1;
        let judged = &mut self.runs[at];
        let Number { thread, index } = name.number;
        let was_sent = judged.account.ledgers.get(thread).is_some_and(|ledger| index < ledger.sent);
        let template = judged.account.templates.get(name.template as usize);
        if name.template == MALFORMED_TEMPLATE && was_sent {
            self.verdict.corrupted += 1;
            self.example("malformed, and stored", line);
        } else if let Some(template) = template.filter(|_| was_sent) {
            if !judged.stored[thread].set(index) {
                self.verdict.duplicated += 1;
                self.example("duplicated", line);
            }
            if !is_made_from(line, template) {
                self.verdict.corrupted += 1;
                self.example("corrupted", line);
            }
        } else {
            self.verdict.unknown += 1;
            self.example("never sent", line);
        }
    }

    /// What was found, after the last line.
    #[must_use]
    pub fn finish(mut self) -> Verdict {
        for judged in std::mem::take(&mut self.runs) {
            for (thread, (ledger, stored)) in judged.account.ledgers.iter().zip(&judged.stored).enumerate() {
                self.verdict.sent += ledger.sent;
                self.verdict.acked += ledger.acked.count();
                self.verdict.stored_not_acked += stored.without(&ledger.acked).count() as u64;
                for index in ledger.acked.without(stored) {
                    self.verdict.lost += 1;
                    if self.verdict.examples.len() < EXAMPLES_MAX {
                        let number = Number { thread, index }.value();
                        self.verdict.examples.push(format!("lost: run {} number {number:016}", judged.run.text()));
                    }
                }
            }
        }
        let wrong = [self.verdict.lost, self.verdict.duplicated, self.verdict.corrupted, self.verdict.unknown];
        self.verdict.sound = wrong == [0; 4];
        self.verdict
    }

    fn example(&mut self, what: &str, line: &[u8]) {
        if self.verdict.examples.len() < EXAMPLES_MAX {
            let shown = String::from_utf8_lossy(&line[..line.len().min(EXAMPLE_BYTES)]);
            self.verdict.examples.push(format!("{what}: {shown}"));
        }
    }
}

/// Whether a line is the template but for its number. A CR in it is stored as a space.
fn is_made_from(line: &[u8], template: &Template) -> bool {
    let behind = template.number_at + NUMBER_DIGITS;
    let same = |stored: &[u8], sent: &[u8]| {
        stored == sent
            || stored.len() == sent.len()
                && stored.iter().zip(sent).all(|(stored, sent)| stored == sent || (*stored == b' ' && *sent == b'\r'))
    };
    line.len() == template.bytes.len()
        && same(&line[..template.number_at], &template.bytes[..template.number_at])
        && same(&line[behind..], &template.bytes[behind..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Digits, TemplateKind};

    fn templates() -> Templates {
        Templates::generated(TemplateKind::Attribution, Run(0xabc), 1)
    }

    fn line(templates: &Templates, template: usize, index: u64) -> Vec<u8> {
        let template = templates.get(template).unwrap();
        let mut bytes = template.bytes.clone();
        Digits::of(Number { thread: 0, index }.value()).write(&mut bytes, template.number_at);
        bytes
    }

    /// A thread that sent 100 events and was promised the first 50.
    fn ledger() -> Vec<Ledger> {
        let mut ledger = Ledger { sent: 100, ..Ledger::default() };
        ledger.acked.set_range(0, 50);
        vec![ledger]
    }

    fn audit(lines: &[Vec<u8>]) -> Verdict {
        let (templates, ledgers) = (templates(), ledger());
        let mut audit = Audit::new(&[Account { templates: &templates, ledgers: &ledgers }]);
        lines.iter().for_each(|line| audit.line(line));
        audit.finish()
    }

    fn stored(count: u64) -> Vec<Vec<u8>> {
        (0..count).map(|index| line(&templates(), index as usize % 7, index)).collect()
    }

    #[test]
    fn all_that_was_promised_and_some_that_was_sent_is_sound() {
        let verdict = audit(&stored(60));
        assert!(verdict.sound && verdict.examples.is_empty(), "{verdict:?}");
        assert_eq!((verdict.sent, verdict.acked, verdict.stored, verdict.stored_not_acked), (100, 50, 60, 10));
    }

    #[test]
    fn each_wrong_is_found_and_counted_as_what_it_is() {
        let mut lines = stored(50);
        lines.remove(7);
        assert_eq!((audit(&lines).lost, audit(&lines).sound), (1, false));
        let mut lines = stored(50);
        lines.push(lines[3].clone());
        assert_eq!((audit(&lines).duplicated, audit(&lines).lost, audit(&lines).sound), (1, 0, false));
        let mut lines = stored(50);
        lines.push(b"{\"event_id\":\"somebody's\"}".to_vec());
        lines.push(line(&templates(), 0, 100));
        lines.push(b"{\"event_id\":\"00000abc-000600-0000000000000060\"}".to_vec());
        assert_eq!((audit(&lines).unknown, audit(&lines).sound), (3, false));
        let mut lines = stored(50);
        lines.push(b"{\"event_id\":\"00000abc-999999-0000000000000060\"}".to_vec());
        assert_eq!((audit(&lines).corrupted, audit(&lines).sound), (1, false));
    }

    #[test]
    fn every_single_changed_byte_is_found() {
        let lines = stored(50);
        for at in 0..lines[5].len() {
            let mut lines = lines.clone();
            lines[5][at] ^= 1;
            let verdict = audit(&lines);
            // A change in the run's digits makes it another run's line, and this run's is lost.
            assert!(!verdict.sound, "byte {at}");
        }
        let mut cut = lines.clone();
        cut[5].pop();
        assert_eq!(audit(&cut).corrupted, 1);
    }

    #[test]
    fn lines_of_other_runs_are_counted_and_not_judged() {
        let mut lines = stored(50);
        lines.push(b"{\"event_id\":\"00000abd-000001-0000000000000060\"}".to_vec());
        let verdict = audit(&lines);
        assert_eq!((verdict.other_runs, verdict.sound), (1, true));
    }
}
