//! What a setting's value may be: sizes, times, lists of cores and the named choices. Any thread; pure text in, value out.
//!
//! Every type reads the same text wherever it stands (flag, environment, file) and prints the shortest text that reads
//! back as the same value.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::base::AckLevel;
use crate::sys::topology;

/// A number of bytes: `4096`, `64KiB`, `16MiB`, `1GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A span of time: `50us`, `5s`, `1h`; `0` for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Cores in the order given: `0,2-5`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList(pub Vec<usize>);

/// What somebody named, or `auto`: what the plan chooses.
///
/// A value of its own, not the absence of one: a flag or a variable that says `auto` takes back what the file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrAuto<T> {
    /// The plan chooses.
    Auto,
    /// This.
    Named(T),
}

impl<T> OrAuto<T> {
    /// What was named, if anything was.
    #[must_use]
    pub fn named(self) -> Option<T> {
        match self {
            Self::Auto => None,
            Self::Named(value) => Some(value),
        }
    }
}

/// How many shards to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShardCount {
    /// One for each core that is left for shards.
    #[default]
    Auto,
    /// As many as this.
    Exactly(u16),
}

/// What a shard does when it has nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdlePolicy {
    /// Spins shortly while work keeps coming, then sleeps in the kernel.
    #[default]
    Adaptive,
    /// Never sleeps: the shortest latency for a whole core.
    Spin,
    /// Sleeps at once.
    Park,
}

/// How the writer makes a group durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncChoice {
    /// `dsync` where the device makes it cheap, else `fdatasync`.
    #[default]
    Auto,
    /// Every write carries `RWF_DSYNC`.
    Dsync,
    /// Plain writes, then one fdatasync(2) per group.
    Fdatasync,
}

/// A text that is not the value it should be: says what would be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantityError(String);

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for QuantityError {}

fn wrong<T>(expected: &str) -> Result<T, QuantityError> {
    Err(QuantityError(format!("expected {expected}")))
}

/// Byte units by name. The first of a size is the one it is printed with; names are matched without regard to case.
const SIZE_UNITS: [(&str, u64); 13] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("", 1),
    ("T", 1 << 40),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
];

/// Time units in nanoseconds, longest first.
const TIME_UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Splits `64KiB` into 64 and `KiB`; `None` without leading digits or when the number does not fit.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, text[digits..].trim_start()))
}

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (number, unit) = number_and_unit(text)?;
            let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
            number.checked_mul(*bytes)
        };
        parse().map_or_else(|| wrong("a size as in 4096, 64KiB, 16MiB or 1GiB"), |bytes| Ok(Self(bytes)))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, bytes) =
            SIZE_UNITS[..4].iter().find(|(_, bytes)| self.0 > 0 && self.0.is_multiple_of(*bytes)).unwrap_or(&("", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (number, unit) = number_and_unit(text)?;
            if number == 0 && unit.is_empty() {
                return Some(Duration::ZERO);
            }
            // A bare number is refused, not guessed: 30 seconds and 30 milliseconds are both plausible timeouts.
            let (_, ns) = TIME_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
            number.checked_mul(*ns).map(Duration::from_nanos)
        };
        parse().map_or_else(
            || wrong("a time with its unit (ns, us, ms, s, m, h, d), as in 50us, 5s or 1h"),
            |time| Ok(Self(time)),
        )
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos();
        match TIME_UNITS.iter().find(|(_, unit_ns)| ns > 0 && ns.is_multiple_of(u128::from(*unit_ns))) {
            Some((unit, unit_ns)) => write!(f, "{}{unit}", ns / u128::from(*unit_ns)),
            None => f.write_str("0"),
        }
    }
}

/// Writes cores as the kernel does, runs as ranges: `0,2-5`. An empty list is the empty text.
#[must_use]
pub fn format_core_ranges(cores: &[usize]) -> String {
    let mut text = String::new();
    for run in cores.chunk_by(|a, b| a + 1 == *b) {
        let comma = if text.is_empty() { "" } else { "," };
        text += &match run {
            [one] => format!("{comma}{one}"),
            [first, .., last] => format!("{comma}{first}-{last}"),
            [] => continue,
        };
    }
    text
}

impl FromStr for CoreList {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let cores = topology::parse_list(text).filter(|cores| !cores.is_empty());
        let Some(cores) = cores else {
            return wrong("auto or cores as in 0,2-5, each below 1024");
        };
        for (at, core) in cores.iter().enumerate() {
            if cores[..at].contains(core) {
                return wrong(&format!("each core once, but {core} is listed twice"));
            }
        }
        Ok(Self(cores))
    }
}

impl fmt::Display for CoreList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_core_ranges(&self.0))
    }
}

fn is_auto(text: &str) -> bool {
    text.trim().eq_ignore_ascii_case("auto")
}

impl FromStr for OrAuto<CoreList> {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_auto(text) { Ok(Self::Auto) } else { text.parse().map(Self::Named) }
    }
}

impl FromStr for OrAuto<usize> {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim().parse() {
            Ok(core) => Ok(Self::Named(core)),
            Err(_) if is_auto(text) => Ok(Self::Auto),
            Err(_) => wrong("auto or the number of a core"),
        }
    }
}

impl FromStr for ShardCount {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            auto if is_auto(auto) => Ok(Self::Auto),
            number => match number.parse::<u16>() {
                Ok(1..) => Ok(Self::Exactly(number.parse().expect("parsed above"))),
                _ => wrong("auto or a number of shards from 1 to 65535"),
            },
        }
    }
}

impl fmt::Display for ShardCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Exactly(shards) => write!(f, "{shards}"),
        }
    }
}

/// Gives a choice its names: `FromStr` takes any of them without regard to case, `Display` prints it.
macro_rules! named_choice {
    ($choice:ident, $expected:literal, $($variant:ident = $name:literal),+) => {
        impl $choice {
            /// The name used in configuration, in the plan and in JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        impl FromStr for $choice {
            type Err = QuantityError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                [$(Self::$variant),+]
                    .into_iter()
                    .find(|choice| text.trim().eq_ignore_ascii_case(choice.name()))
                    .map_or_else(|| wrong($expected), Ok)
            }
        }

        impl fmt::Display for $choice {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

named_choice!(IdlePolicy, "adaptive, spin or park", Adaptive = "adaptive", Spin = "spin", Park = "park");
named_choice!(SyncChoice, "auto, dsync or fdatasync", Auto = "auto", Dsync = "dsync", Fdatasync = "fdatasync");

/// Reads an ack level's name; the error says which there are.
///
/// # Errors
/// When the text is none of them.
pub fn parse_ack_level(text: &str) -> Result<AckLevel, QuantityError> {
    AckLevel::from_name(text.trim().as_bytes()).map_or_else(|| wrong("durable, written or memory"), Ok)
}

/// Reads an address to listen on. Names are not looked up: what they stand for may change, and be several addresses.
///
/// # Errors
/// When the text is not an address and a port in numbers.
pub fn parse_address(text: &str) -> Result<SocketAddr, QuantityError> {
    text.trim().parse().or_else(|_| {
        wrong(
            "ADDRESS:PORT in numbers, as in 127.0.0.1:8080 or [::1]:8080; names as in localhost:8080 are not looked up",
        )
    })
}

/// Reads a value from a file: a text, or a bare integer where the text would be one.
struct TextVisitor<T>(fn(&str) -> Result<T, QuantityError>);

impl<T> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a whole number")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

macro_rules! deserialize_from_text {
    ($($quantity:ty),+) => {
        $(impl<'de> Deserialize<'de> for $quantity {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(TextVisitor(<Self as FromStr>::from_str))
            }
        })+
    };
}

deserialize_from_text!(ByteSize, Span, OrAuto<CoreList>, OrAuto<usize>, ShardCount, IdlePolicy, SyncChoice);

/// Reads an optional ack level from a file. (`AckLevel` lives in `base`, which knows nothing of serde.)
///
/// # Errors
/// When the value is not the name of one.
pub fn deserialize_ack_level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<AckLevel>, D::Error> {
    deserializer.deserialize_any(TextVisitor(parse_ack_level)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_with_and_without_units_and_print_back() {
        for (text, bytes, printed) in [
            ("0", 0, "0"),
            ("4095", 4095, "4095"),
            ("64KiB", 65_536, "64KiB"),
            ("64 kib", 65_536, "64KiB"),
            ("16MiB", 16 << 20, "16MiB"),
            ("1024MiB", 1 << 30, "1GiB"),
            ("2T", 2 << 40, "2TiB"),
            ("1kB", 1000, "1000"),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
            assert_eq!(ByteSize(bytes).to_string(), printed);
            assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
        for bad in ["", "MiB", "-1", "1.5GiB", "16MiBs", "20000000TiB", "0x10"] {
            let error = bad.parse::<ByteSize>().unwrap_err().to_string();
            assert_eq!(error, "expected a size as in 4096, 64KiB, 16MiB or 1GiB", "{bad}");
        }
    }

    #[test]
    fn times_need_a_unit_and_print_back() {
        for (text, ns, printed) in [
            ("0", 0, "0"),
            ("50us", 50_000, "50us"),
            ("1500ms", 1_500_000_000, "1500ms"),
            ("5s", 5_000_000_000, "5s"),
            ("60s", 60_000_000_000, "1m"),
            ("24h", 86_400_000_000_000, "1d"),
        ] {
            let time = Span(Duration::from_nanos(ns));
            assert_eq!(text.parse(), Ok(time), "{text}");
            assert_eq!(time.to_string(), printed);
        }
        for bad in ["30", "", "s", "5 minutes", "-1s", "300000000d"] {
            assert!(bad.parse::<Span>().unwrap_err().to_string().contains("50us, 5s or 1h"), "{bad}");
        }
    }

    #[test]
    fn core_lists_keep_their_order_and_are_bounded() {
        assert_eq!("0,2-5".parse(), Ok(CoreList(vec![0, 2, 3, 4, 5])));
        assert_eq!(" 7 , 1 - 2 ".parse(), Ok(CoreList(vec![7, 1, 2])));
        assert_eq!(CoreList(vec![0, 2, 3, 4, 5, 9]).to_string(), "0,2-5,9");
        for bad in ["", "a", "3-1", "0-4294967295", "1,,2", "0,1,0"] {
            assert!(bad.parse::<CoreList>().is_err(), "{bad}");
        }
        assert_eq!(
            "2,1-3".parse::<CoreList>().unwrap_err().to_string(),
            "expected each core once, but 2 is listed twice"
        );
    }

    #[test]
    fn cores_may_be_left_to_the_plan() {
        assert_eq!("Auto".parse(), Ok(OrAuto::<CoreList>::Auto));
        assert_eq!(" auto ".parse(), Ok(OrAuto::<usize>::Auto));
        assert_eq!("0,2".parse(), Ok(OrAuto::Named(CoreList(vec![0, 2]))));
        assert_eq!("7".parse(), Ok(OrAuto::Named(7)));
        let message = |wrong: &str| wrong.parse::<OrAuto<usize>>().unwrap_err().to_string();
        assert_eq!(message("autos"), "expected auto or the number of a core");
        let message = |wrong: &str| wrong.parse::<OrAuto<CoreList>>().unwrap_err().to_string();
        assert_eq!(message("autos"), "expected auto or cores as in 0,2-5, each below 1024");
    }

    #[test]
    fn choices_read_their_own_names() {
        assert_eq!("AUTO".parse(), Ok(ShardCount::Auto));
        assert_eq!("65535".parse(), Ok(ShardCount::Exactly(65_535)));
        for bad in ["0", "-1", "65536", "many"] {
            assert!(bad.parse::<ShardCount>().unwrap_err().to_string().contains("from 1 to 65535"), "{bad}");
        }
        assert_eq!("Spin".parse(), Ok(IdlePolicy::Spin));
        assert_eq!("fdatasync".parse(), Ok(SyncChoice::Fdatasync));
        assert!("none".parse::<SyncChoice>().unwrap_err().to_string().contains("auto, dsync or fdatasync"));
        assert!(parse_ack_level("fsync").is_err());
        assert_eq!(parse_ack_level("Memory"), Ok(AckLevel::Memory));
    }
}
