//! Plots how the simulated shard answers a step in load, for docs/BACKPRESSURE.md:
//!
//!     cargo run --release --example step-response -- docs/step-response.svg
//!
//! The same simulation as in tests/admission.rs, with a fixed seed: the same plot each time.

#[path = "mod.rs"]
mod simulation;

use std::fmt::Write as _;
use std::process::ExitCode;

use simulation::clients::OpenLoop;
use simulation::{MS, Machine, Outcome, SECOND, Simulation};

/// Target and colour of each line (Okabe and Ito: told apart by everybody).
const LINES: [(f64, &str); 3] = [(0.5, "#0072B2"), (0.67, "#009E73"), (0.8, "#D55E00")];
/// Load in multiples of what the target has room for, from when on.
const STEPS: [(u64, f64); 5] = [(0, 0.5), (1, 1.5), (2, 5.0), (3, 1.0), (4, 0.5)];
const SECONDS: u64 = 5;
const BIN_NS: u64 = 20 * MS;
const SEED: u64 = 7;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const PLOT_WIDTH: f64 = WIDTH - LEFT - 20.0;
const PLOT_HEIGHT: f64 = HEIGHT - TOP - 50.0;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: step-response FILE.svg");
        return ExitCode::from(2);
    };
    match std::fs::write(&path, plot()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

fn simulate(target: f64) -> Outcome {
    let machine = Machine { target, ..Machine::default() };
    let capacity = machine.capacity();
    let times = |now_ns: u64| STEPS.iter().rev().find(|(from, _)| now_ns >= from * SECOND).map_or(0.0, |step| step.1);
    let mut clients = OpenLoop::new(move |_, now_ns| times(now_ns) * capacity);
    Simulation::new(machine, SEED, &[1], 256).with_bins_of(BIN_NS).run(&mut clients, SECONDS * SECOND)
}

fn plot() -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    for tenth in (0..=10).step_by(2) {
        let share = f64::from(tenth) / 10.0;
        line(&mut svg, (0.0, share), (SECONDS as f64, share), "#ddd", "");
        text(&mut svg, x(0.0) - 8.0, y(share) + 4.0, "end", &format!("{share:.1}"));
    }
    for (from, times) in STEPS {
        line(&mut svg, (from as f64, 0.0), (from as f64, 1.0), "#ddd", "");
        text(&mut svg, x(from as f64 + 0.5), TOP - 8.0, "middle", &format!("load {times} ×"));
        text(&mut svg, x(from as f64), HEIGHT - 30.0, "middle", &format!("{from} s"));
    }
    for (target, colour) in LINES {
        let outcome = simulate(target);
        line(&mut svg, (0.0, target), (SECONDS as f64, target), colour, " stroke-dasharray=\"2 4\"");
        curve(&mut svg, colour, "1.5", outcome.bins.iter().map(|bin| bin.serving_ns));
        curve(&mut svg, colour, "0.6", outcome.bins.iter().map(|bin| bin.refusing_ns));
        text(&mut svg, x(SECONDS as f64) - 4.0, y(target) - 5.0, "end", &format!("target {target}"));
    }
    let caption = "Share of the core: serving (thick), refusing (thin), in bins of 20 ms; simulated, open loop";
    text(&mut svg, x(0.0), HEIGHT - 10.0, "start", caption);
    svg + "</svg>\n"
}

fn x(seconds: f64) -> f64 {
    LEFT + PLOT_WIDTH * seconds / SECONDS as f64
}

fn y(share: f64) -> f64 {
    TOP + PLOT_HEIGHT * (1.0 - share)
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, more: &str) {
    let (x1, y1, x2, y2) = (x(from.0), y(from.1), x(to.0), y(to.1));
    let _infallible =
        writeln!(svg, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"{more}/>");
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _infallible = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

fn curve(svg: &mut String, colour: &str, width: &str, busy_ns: impl Iterator<Item = u64>) {
    let points: Vec<String> = busy_ns
        .enumerate()
        .map(|(bin, ns)| {
            let seconds = (bin as u64 * BIN_NS) as f64 / SECOND as f64;
            format!("{:.1},{:.1}", x(seconds), y((ns as f64 / BIN_NS as f64).min(1.0)))
        })
        .collect();
    let points = points.join(" ");
    let _infallible =
        writeln!(svg, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>");
}
