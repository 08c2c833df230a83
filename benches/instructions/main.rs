//! The regression gate's subject: each pure stage, run a fixed number of times, for `scripts/instructions` to count the
//! instructions of under callgrind. Time on a shared machine is noise; the number of instructions is not.
//!
//!     instructions              the names of the stages
//!     instructions STAGE        runs it and prints, as JSON, how many units of what the counted calls did
//!
//! Only what happens inside [`counted`] is counted: making events, warming up and reading bodies into buffers are not.
//! Work is the same in every run: events come from fixed seeds, and no stage looks at a clock to decide anything.

#[path = "../shapes/mod.rs"]
#[allow(dead_code, reason = "other benches use more of it")]
mod shapes;
mod shard;
mod stages;

use std::io::Write as _;
use std::process::ExitCode;

/// Calls `work` so that callgrind can tell it from everything else: it switches counting on at this function's entry and
/// off at its end, so it must keep its name and must not be inlined.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
}

/// Which of the code paths chosen at run time this processor, or the one that valgrind shows, takes.
fn code_path() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512bw") && std::arch::is_x86_feature_detected!("avx512vbmi") {
            "avx512"
        } else if std::arch::is_x86_feature_detected!("avx2") {
            "avx2"
        } else {
            "sse"
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        std::env::consts::ARCH
    }
}

fn main() -> ExitCode {
    let mut out = std::io::stdout().lock();
    let Some(wanted) = std::env::args().nth(1) else {
        let names: Vec<_> = stages::STAGES.iter().map(|stage| stage.name).collect();
        return if writeln!(out, "{}", names.join("\n")).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    };
    let Some(stage) = stages::STAGES.iter().find(|stage| stage.name == wanted) else {
        return ExitCode::from(2);
    };
    let units = (stage.run)();
    let line =
        format!(r#"{{"stage":"{wanted}","unit":"{}","units":{units},"code_path":"{}"}}"#, stage.unit, code_path());
    if writeln!(out, "{line}").is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
