//! Opens a writer's log: recovers its end and begins a fresh segment behind it. Control thread, once per start.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::config::{OpenError, WriterConfig};
use super::recover::{RecoveryReport, recover};
use super::store::{Active, Store, is_disk_full};
use super::turn::Writer;
use crate::base::{Seq, ShardId, WriterId};
use crate::handoff::{Bell, WriterPort, WriterStatus};
use crate::metrics::WriterMetrics;
use crate::record::walk::Cursor;
use crate::sys::storage::{DirectStorage, Facts, Storage};

/// A log ready to be written to.
pub struct Opened {
    pub(super) config: WriterConfig,
    pub(super) store: Store,
    pub(super) active: Active,
    pub(super) end: Cursor,
    report: RecoveryReport,
}

impl Opened {
    /// The last chunk number of `shard` in the log: its log buffer counts on from there. 0 if it has none.
    #[must_use]
    pub fn last_seq(&self, shard: ShardId) -> Seq {
        self.end.seqs.last(shard)
    }

    /// The writer's number.
    #[must_use]
    pub fn writer(&self) -> WriterId {
        self.config.writer
    }

    /// What recovery found.
    #[must_use]
    pub fn report(&self) -> &RecoveryReport {
        &self.report
    }

    /// The sync mode, O_DIRECT or not, warnings.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        self.store.storage.facts()
    }
}

/// Opens the log of `config.writer` on the real disk. The caller holds the data directory's lock.
///
/// # Errors
/// As [`open`]; [`OpenError::Host`] if the directory cannot be made or probed.
pub fn open_direct(config: &WriterConfig) -> Result<Opened, OpenError> {
    config.check().map_err(OpenError::Config)?;
    let storage = DirectStorage::open(&config.directory, config.writer, config.sync).map_err(|error| {
        OpenError::Host { what: format!("opening the log in {}", config.directory.display()), error }
    })?;
    open(config, Box::new(storage))
}

/// Opens the log of `config.writer` in `storage`: finds its end, makes that durable, and begins a fresh segment.
///
/// # Errors
/// [`OpenError::Config`] for a configuration that cannot work, [`OpenError::Damaged`] if acknowledged data is missing,
/// [`OpenError::Host`] if something cannot be read or made.
pub fn open(config: &WriterConfig, mut storage: Box<dyn Storage>) -> Result<Opened, OpenError> {
    config.check().map_err(OpenError::Config)?;
    let recovered = recover(storage.as_mut(), config.writer, config.recover_bytes_max)?;
    let host = |what: &str| {
        let what = format!("{what} in {}", config.directory.display());
        move |error| OpenError::Host { what, error }
    };
    let mut end = recovered.end.clone();
    let mut store = Store::new(storage, config.clone(), &recovered).map_err(host("clearing up the log"))?;
    let now = now_unix_ns();
    let begun = store.begin_segment(&mut end, now).or_else(|error| {
        // On a full disk, what retention removes as soon as the segment is begun makes room for it.
        let may_help = is_disk_full(&error) && store.retire_ahead(now)? > 0;
        if may_help { store.begin_segment(&mut end, now) } else { Err(error) }
    });
    let active = begun.map_err(host("beginning a segment"))?;
    store.give_back_unused();
    Ok(Opened { config: config.clone(), store, active, end, report: recovered.report })
}

/// Joins an opened log with the shards it serves; the result is to be sent to its thread and run there.
///
/// # Errors
/// [`OpenError::Host`] if io_uring cannot be set up, [`OpenError::Config`] for more shards than a log can number.
pub fn join(
    mut opened: Opened,
    ports: Vec<WriterPort>,
    bell: Arc<Bell>,
    status: Arc<WriterStatus>,
    metrics: Arc<WriterMetrics>,
) -> Result<Writer, OpenError> {
    let regions: Vec<_> = ports.iter().map(|port| Arc::clone(port.region())).collect();
    opened
        .store
        .storage
        .register(&regions)
        .map_err(|error| OpenError::Host { what: "setting up the writer's io_uring".to_owned(), error })?;
    Writer::new(opened, ports, bell, status, metrics)
}

/// Unix time in nanoseconds.
pub(super) fn now_unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
