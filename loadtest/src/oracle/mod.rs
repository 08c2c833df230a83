//! The oracle: whether what was acknowledged is in the log, once and intact, and nothing else is.

mod audit;
mod ledger;
pub mod log;

use std::path::Path;
use std::time::{Duration, Instant};

pub use audit::{Account, Audit};
pub use ledger::{Bits, Ledger};

use crate::report::Verdict;

/// How long an acknowledged event may take to become visible to readers. The answer to a request and the mark that
/// readers go by are written one after the other, and events acknowledged from memory are sealed a little later.
const VISIBLE_WITHIN: Duration = Duration::from_secs(5);
/// How often it is looked again.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Holds the log in `data` against what the runs were promised, for as long as `goes_on` says so. The server may be running
/// or not.
///
/// # Errors
/// A sentence, if the log cannot be read to its end.
pub fn verify(
    program: &Path,
    data: &Path,
    accounts: &[Account<'_>],
    goes_on: &(dyn Fn() -> bool + Sync),
) -> Result<Verdict, String> {
    let began = Instant::now();
    loop {
        let mut audit = Audit::new(accounts);
        let outcome = log::read(program, data, goes_on, |line| {
            audit.line(line);
            goes_on()
        });
        // First: a child that was killed for it could not read the log.
        if !goes_on() {
            return Err("the look at the log was ended".into());
        }
        outcome?;
        let verdict = audit.finish();
        if verdict.lost == 0 || began.elapsed() > VISIBLE_WITHIN {
            return Ok(verdict);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
