//! What a run says: its result, for programs and for people.

mod chart;
pub mod compare;
mod hgrm;
mod html;
pub mod likeness;
mod limits;
mod manifest;
mod result;
pub mod series;
pub mod standing;
mod summary;

pub use hgrm::hgrm;
pub use html::html;
pub use limits::Limits;
pub use manifest::{Manifest, Setting};
pub use result::{
    GeneratorReport, KindResult, Latencies, LatencyPair, Point, RunResult, SlowReaders, Threshold, Verdict, make,
    quantile_us,
};
pub use summary::{progress, show_verdict, summary};
