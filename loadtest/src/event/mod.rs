//! Events: how each is told from all others, and what they look like. Pure, but for reading the user's own lines.
//!
//! Every event begins with its name, `{"event_id":"RRRRRRRR-TTTTTT-NNNNNNNNNNNNNNNN"`: the run, the template, the number.
//! Its bytes are a function of these three, so the oracle keeps one bit per number and can still compare every byte.

mod template;

pub use template::{Template, TemplateError, TemplateKind, Templates};

/// Digits of a number.
pub const NUMBER_DIGITS: usize = 16;
/// Digits of a template.
const TEMPLATE_DIGITS: usize = 6;
/// Hexadecimal digits of a run.
const RUN_DIGITS: usize = 8;
/// Bytes of a name.
const NAME_BYTES: usize = RUN_DIGITS + 1 + TEMPLATE_DIGITS + 1 + NUMBER_DIGITS;
/// Templates that can be told apart; the last number stands for malformed events.
pub const TEMPLATES_MAX: usize = 999_999;
/// The template number of events that are malformed on purpose and must never be stored.
pub const MALFORMED_TEMPLATE: u32 = 999_999;
/// Numbers of one generator thread; the thread's own number stands before them.
const NUMBERS_PER_THREAD: u64 = 100_000_000_000_000;
/// Generator threads whose numbers fit.
pub const THREADS_MAX: usize = 100;

/// Tells one run's events from those of all others: 32 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run(pub u32);

impl Run {
    /// Its digits.
    #[must_use]
    pub fn text(self) -> String {
        format!("{:08x}", self.0)
    }
}

/// The place of an event among all of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// The generator thread that sent it.
    pub thread: usize,
    /// Its place among that thread's.
    pub index: u64,
}

impl Number {
    /// As it stands in the name.
    #[must_use]
    pub fn value(self) -> u64 {
        debug_assert!(self.index < NUMBERS_PER_THREAD);
        self.thread as u64 * NUMBERS_PER_THREAD + self.index
    }
}

/// Which member holds the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKey {
    /// `event_id`: events made here.
    EventId,
    /// `load_id`: in front of the user's own members, which stay as they are.
    LoadId,
}

impl NameKey {
    /// What an event begins with, up to its name.
    #[must_use]
    pub fn opening(self) -> &'static [u8] {
        match self {
            Self::EventId => b"{\"event_id\":\"",
            Self::LoadId => b"{\"load_id\":\"",
        }
    }
}

/// The name of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// The run that sent it.
    pub run: Run,
    /// What it was made from.
    pub template: u32,
    /// Which it is.
    pub number: Number,
}

impl Name {
    /// The name a line begins with; `None` if it was not made by this tool.
    #[must_use]
    pub fn of_line(line: &[u8]) -> Option<Self> {
        let rest = [NameKey::EventId, NameKey::LoadId].iter().find_map(|key| line.strip_prefix(key.opening()))?;
        let name = std::str::from_utf8(rest.get(..NAME_BYTES)?).ok()?;
        let (run, rest) = name.split_at_checked(RUN_DIGITS)?;
        let (template, number) = rest.strip_prefix('-')?.split_once('-')?;
        // `parse` would take a plus sign for a digit.
        if !template.bytes().chain(number.bytes()).all(|byte| byte.is_ascii_digit())
            || template.len() != TEMPLATE_DIGITS
            || !run.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            return None;
        }
        let number: u64 = number.parse().ok()?;
        Some(Self {
            run: Run(u32::from_str_radix(run, 16).ok()?),
            template: template.parse().ok()?,
            number: Number { thread: (number / NUMBERS_PER_THREAD) as usize, index: number % NUMBERS_PER_THREAD },
        })
    }

    /// The beginning of an event up to and with the name's closing quote, its number being zeroes; and where those are.
    #[must_use]
    pub fn blank(key: NameKey, run: Run, template: u32) -> (Vec<u8>, usize) {
        let mut bytes = key.opening().to_vec();
        bytes.extend_from_slice(format!("{}-{template:06}-", run.text()).as_bytes());
        let number_at = bytes.len();
        bytes.extend_from_slice(&[b'0'; NUMBER_DIGITS]);
        bytes.push(b'"');
        (bytes, number_at)
    }
}

/// A number as its sixteen digits, counted up in place: one store per event instead of a division per digit.
#[derive(Clone, Copy, Debug)]
pub struct Digits([u8; NUMBER_DIGITS]);

impl Digits {
    /// The digits of a number below 10^16.
    #[must_use]
    pub fn of(mut value: u64) -> Self {
        let mut digits = [b'0'; NUMBER_DIGITS];
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
        assert_eq!(value, 0, "more than sixteen digits");
        Self(digits)
    }

    /// Writes them at `at`.
    #[inline]
    pub fn write(&self, bytes: &mut [u8], at: usize) {
        bytes[at..at + NUMBER_DIGITS].copy_from_slice(&self.0);
    }

    /// Counts up by one.
    #[inline]
    pub fn advance(&mut self) {
        for digit in self.0.iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_from_its_event() {
        for key in [NameKey::EventId, NameKey::LoadId] {
            let (mut event, at) = Name::blank(key, Run(0xab12), 42);
            let number = Number { thread: 3, index: 1_234_567 };
            Digits::of(number.value()).write(&mut event, at);
            event.push(b'}');
            assert_eq!(Name::of_line(&event), Some(Name { run: Run(0xab12), template: 42, number }));
        }
    }

    #[test]
    fn lines_of_others_have_no_name() {
        for line in [
            "{}",
            "{\"event_id\":\"short\"}",
            "{\"event_id\":\"0000ab12-000042-000000000000000x\"}",
            "{\"event_id\":\"0000ab12-+00042-0000000000000001\"}",
            "{\"event_id\":\"0000AB12-000042-0000000000000001\"}",
            " {\"event_id\":\"0000ab12-000042-0000000000000001\"}",
        ] {
            assert_eq!(Name::of_line(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn digits_count_up_as_numbers_do() {
        for start in [0, 8, 99_998, 1_999_999_999_999] {
            let mut digits = Digits::of(start);
            for value in start..start + 1200 {
                assert_eq!(digits.0, Digits::of(value).0);
                digits.advance();
            }
        }
    }
}
