//! Admission: which request is served, which is refused, and which connection is not read for a while. Pure: no
//! system calls, no clock, no allocation per request; time is an argument. Each shard's thread runs its own.
//!
//! ```text
//! turn's times ─ meter ─┬─ controller   serving share of the core → work that may be admitted per millisecond
//!                       ├─ hold         refusing share of the core → how long a refused connection is not read
//! chunk ages ── lag ────┤               disk behind → less work
//!                       ▼
//! request ─ credential ─ limit ─ budget ─┬─ fair        whose turn it is when there is not enough
//!           401          429     503     └─ retry       when to come again
//! ```
//!
//! Shares of a core are parts per million ([`PPM`]). *Work* is what a request is expected to cost, in bytes: its body and
//! [`REQUEST_WORK`] for everything else. What a unit of work costs in time is measured, so the unit need not be exact.

mod admission;
mod budget;
mod controller;
mod credential;
mod ewma;
mod fair;
mod hold;
mod lag;
mod limit;
mod meter;
mod retry;
mod tenants;
mod traffic;
mod uses;

pub use admission::{Admission, Config, Facts, Level, Pressure, Priority, Refusal, split_concurrency};
pub use budget::{BURST_TICKS, Budget};
pub use controller::Controller;
pub use credential::{Credential, KEY_BYTES_MAX};
pub use ewma::{Decay, Mean, TICK_NS};
pub use fair::{FairShares, Share, Standing};
pub use hold::{HOLD_NS_MAX, Hold};
pub use lag::{LagGuard, Progress};
pub use limit::{Bucket, Limit, Measure, Over, Published, Rate};
pub use meter::{Meter, Turn};
pub use retry::RetryAfter;
pub use tenants::{Digest, Tenant, TenantError, TenantTable, TenantUse, Unauthorized, WEIGHT_MAX, digest_of};
pub use traffic::Traffic;
pub use uses::{Count, Origin, Use, Uses};

/// One, in parts per million.
pub const PPM: u64 = 1_000_000;
/// Work of a request besides its body: what its head, its answer and their system calls cost, in bytes of body that cost
/// as much. A request of one event takes some 3 µs and a byte of a long body some 0.8 ns, which is 4 KiB to a request.
/// The controller corrects for what this gets wrong; it matters only for how fast a changed mix settles.
pub const REQUEST_WORK: u64 = 4096;
/// The lowest rate of admitted work per tick, whatever is measured: 250 small requests in a second, about a thousandth of a
/// core. A server that admits nothing would never find out that it could.
pub const RATE_MIN: u64 = REQUEST_WORK / 4;
