//! Numbers as people write them: `50us`, `1m30s`, `10k`, `23KiB`. Pure.

use std::time::Duration;

/// The longest time that is taken. Runs count nanoseconds in 64 bits, which 584 years fill: twice this, or this and a
/// warm-up of the same length, must stay far below.
pub const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads a time: numbers with ns, us, ms, s, m or h, one after the other; `0` alone is none.
///
/// # Errors
/// A sentence with what was expected; for a time above [`TIME_MAX`] with that.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a time as in 500ms, 10s or 1m30s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.trim();
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit_bytes = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..unit_bytes] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        seconds += number * unit;
        rest = &rest[unit_bytes..];
    }
    if seconds > TIME_MAX.as_secs_f64() {
        return Err(format!("'{text}' is longer than {} days", TIME_MAX.as_secs() / 86_400));
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// Reads a number, with k, M or G for powers of 1000.
///
/// # Errors
/// A sentence with what was expected.
pub fn count(text: &str) -> Result<f64, String> {
    let wrong = || format!("'{text}' is not a number as in 250, 10k or 1.5M");
    let (digits, factor) = match text.trim().as_bytes() {
        [.., b'k'] => (&text.trim()[..text.trim().len() - 1], 1e3),
        [.., b'M'] => (&text.trim()[..text.trim().len() - 1], 1e6),
        [.., b'G'] => (&text.trim()[..text.trim().len() - 1], 1e9),
        _ => (text.trim(), 1.0),
    };
    let number = digits.parse::<f64>().map_err(|_| wrong())? * factor;
    if number.is_finite() && number >= 0.0 { Ok(number) } else { Err(wrong()) }
}

/// Reads a share: 0 to 1, or with a percent sign.
///
/// # Errors
/// A sentence with what was expected.
pub fn share(text: &str) -> Result<f64, String> {
    let wrong = || format!("'{text}' is not a share as in 0.01 or 1%");
    let number = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.trim().parse(),
    };
    number.ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(wrong)
}

/// Reads a list of cores: `0,2-5`.
///
/// # Errors
/// A sentence with what was expected.
pub fn cores(text: &str) -> Result<Vec<usize>, String> {
    let wrong = || format!("'{text}' is not a list of cores as in 0,2-5");
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        let first: usize = first.parse().map_err(|_| wrong())?;
        let last: usize = last.parse().map_err(|_| wrong())?;
        if first > last || last > 4095 {
            return Err(wrong());
        }
        cores.extend(first..=last);
    }
    cores.sort_unstable();
    cores.dedup();
    Ok(cores)
}

/// A time as people read it.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        s if s >= 3600.0 => format!("{}h{:02}m", (s / 3600.0) as u64, (s % 3600.0 / 60.0) as u64),
        s if s >= 60.0 => format!("{}m{:02}s", (s / 60.0) as u64, (s % 60.0) as u64),
        s if s >= 1.0 => format!("{s:.1}s"),
        0.0 => "0s".into(),
        s => show_us(s * 1e6),
    }
}

/// Microseconds as people read them.
#[must_use]
pub fn show_us(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{:.2} s", us / 1e6),
        us if us >= 1e4 => format!("{:.1} ms", us / 1e3),
        us if us >= 1e3 => format!("{:.2} ms", us / 1e3),
        us if us >= 10.0 => format!("{us:.0} us"),
        us => format!("{us:.1} us"),
    }
}

/// A latency as [`show_us`] does; `-` where nothing was measured.
#[must_use]
pub fn show_latency(us: Option<f64>) -> String {
    us.map_or_else(|| "-".into(), show_us)
}

/// A count as people read it, with k, M and G.
#[must_use]
pub fn show_count(count: f64) -> String {
    match count {
        count if count >= 1e9 => format!("{:.2} G", count / 1e9),
        count if count >= 1e6 => format!("{:.2} M", count / 1e6),
        count if count >= 1e4 => format!("{:.1} k", count / 1e3),
        count if count.fract() == 0.0 => format!("{count:.0}"),
        count => format!("{count:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_counts_shares_and_cores_are_read_as_meant() {
        assert_eq!(duration("50us"), Ok(Duration::from_micros(50)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(count("10k"), Ok(10_000.0));
        assert_eq!(count("1.5M"), Ok(1_500_000.0));
        assert_eq!(share("1%"), Ok(0.01));
        assert_eq!(share("0.25"), Ok(0.25));
        assert_eq!(cores("0,2-4"), Ok(vec![0, 2, 3, 4]));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_an_example() {
        for wrong in ["", "s", "5", "5 parsecs", "-1s"] {
            assert!(duration(wrong).is_err_and(|text| text.contains("10s")), "{wrong}");
        }
        for wrong in ["", "k", "-1", "nan", "1x", "inf", "1e308G"] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
        let digits = "9".repeat(400);
        for long in ["8784h1s", "18446744073.709551616s", "18446744074s", &format!("{digits}h")] {
            assert!(duration(long).is_err_and(|text| text.contains("366 days")), "{long}");
        }
        assert_eq!(duration("8784h"), Ok(TIME_MAX));
        assert!(share("1.5").is_err() && share("150%").is_err());
        assert!(cores("3-1").is_err() && cores("a").is_err() && cores("").is_err());
    }
}
