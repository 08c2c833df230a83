//! Group commit: one thread that owns the file. It takes every batch that has queued up, writes them with one writev(2), calls
//! fdatasync(2) once, and then answers all of them. While it syncs, the next group queues up: no timer is needed.
//!
//! A second thread makes the next file meanwhile and fills it with zeros: a sync over blocks that were only allocated
//! has to write their metadata as well. With fallocate(2) alone the writer took 520 to 540 ns of its core per event in
//! batches of 200, with zeros 175 to 180.

use std::fs::File;
use std::io::{self, IoSlice, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc as blocking;

use axum::body::Bytes;
use tokio::sync::{mpsc, oneshot};

/// Batches that may wait for the writer: then handlers wait, their connections are not read, and TCP pushes back.
const QUEUE_BATCHES: usize = 1024;
/// Bytes of one group: a write of this many takes as long as a sync.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Slices of one writev (IOV_MAX).
const SLICES_MAX: usize = 1024;
/// Length of a file, which it has from the beginning, so that syncs need not write a new one.
pub(crate) const FILE_BYTES: u64 = 256 << 20;
/// Zeros written at once.
const ZEROS_BYTES: usize = 1 << 20;
/// Files kept: this is a benchmark, not an archive.
const FILES_KEPT: u64 = 8;

/// When a batch is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Ack {
    /// After the fdatasync that covers it.
    Synced,
    /// After the write: the page cache has it.
    Written,
    /// When it is in the writer's queue.
    Memory,
}

/// Valid events on their way to the log.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) pieces: Vec<Bytes>,
}

/// The writer has ended: it could not write, and nothing is acknowledged any more.
#[derive(Debug)]
pub(crate) struct Failed;

struct Queued {
    batch: Batch,
    done: Option<oneshot::Sender<()>>,
}

/// The handlers' end of the writer's queue.
#[derive(Debug)]
pub(crate) struct Committer {
    queue: mpsc::Sender<Queued>,
    ack: Ack,
}

impl Committer {
    /// Starts a writer on files of `file_bytes` in `directory`. `begin` runs on each of its threads first.
    ///
    /// # Errors
    /// The errno of mkdir(2), open(2), write(2) or fsync(2).
    pub(crate) fn start(
        directory: &Path,
        file_bytes: u64,
        ack: Ack,
        begin: impl Fn() + Clone + Send + 'static,
    ) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let mut log = Log::create(directory, file_bytes, begin.clone())?;
        let (queue, mut batches) = mpsc::channel(QUEUE_BATCHES);
        std::thread::Builder::new().name("writer".into()).spawn(move || {
            begin();
            if let Err(error) = write_groups(&mut batches, &mut log, ack) {
                // Dropping the queue fails every batch in it, and those that come.
                eprintln!("axum-fdatasync: the writer has failed: {error}");
            }
        })?;
        Ok(Self { queue, ack })
    }

    /// Hands a batch over and waits for what the ack level demands.
    ///
    /// # Errors
    /// [`Failed`] if the writer has.
    pub(crate) async fn commit(&self, batch: Batch) -> Result<(), Failed> {
        if self.ack == Ack::Memory {
            return self.queue.send(Queued { batch, done: None }).await.map_err(|_| Failed);
        }
        let (done, reached) = oneshot::channel();
        self.queue.send(Queued { batch, done: Some(done) }).await.map_err(|_| Failed)?;
        reached.await.map_err(|_| Failed)
    }
}

fn write_groups(queue: &mut mpsc::Receiver<Queued>, log: &mut Log, ack: Ack) -> io::Result<()> {
    let mut pieces = Vec::new();
    let mut waiting = Vec::new();
    while let Some(first) = queue.blocking_recv() {
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(Queued { batch, done }) = next {
            bytes += batch.pieces.iter().map(Bytes::len).sum::<usize>();
            pieces.extend(batch.pieces);
            waiting.extend(done);
            next = if bytes < GROUP_BYTES_MAX { queue.try_recv().ok() } else { None };
        }
        log.append(&pieces, bytes as u64)?;
        pieces.clear();
        if ack == Ack::Synced {
            log.file.sync_data()?;
        }
        for done in waiting.drain(..) {
            // A client that has gone waits for nothing.
            let _gone = done.send(());
        }
    }
    Ok(())
}

struct Log {
    directory: PathBuf,
    file: File,
    /// The one after `file`, where it was made before the first event came.
    spare: Option<File>,
    /// Where the numbers of files to be made go, and where they come back.
    wanted: blocking::Sender<u64>,
    made: blocking::Receiver<io::Result<File>>,
    file_bytes: u64,
    number: u64,
    filled: u64,
}

impl Log {
    fn create(directory: &Path, file_bytes: u64, begin: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let file = zeroed(directory, 0, file_bytes)?;
        let spare = Some(zeroed(directory, 1, file_bytes)?);
        let (wanted, numbers) = blocking::channel();
        let (ready, made) = blocking::channel();
        let home = directory.to_owned();
        std::thread::Builder::new().name("files".into()).spawn(move || {
            begin();
            for number in numbers {
                // The log has gone: nobody needs it.
                let _gone = ready.send(zeroed(&home, number, file_bytes));
            }
        })?;
        Ok(Self { directory: directory.to_owned(), file, spare, wanted, made, file_bytes, number: 0, filled: 0 })
    }

    fn append(&mut self, pieces: &[Bytes], bytes: u64) -> io::Result<()> {
        if self.filled > 0 && self.filled + bytes > self.file_bytes {
            // What was written without a sync so far is left to the page cache, as it was promised to be.
            self.file.set_len(self.filled)?;
            self.number += 1;
            self.file = match self.spare.take() {
                Some(file) => file,
                None => self.made.recv().map_err(io::Error::other)??,
            };
            self.filled = 0;
            self.wanted.send(self.number + 1).map_err(io::Error::other)?;
            if let Some(oldest) = self.number.checked_sub(FILES_KEPT) {
                std::fs::remove_file(path(&self.directory, oldest))?;
            }
        }
        for some in pieces.chunks(SLICES_MAX) {
            let mut slices: Vec<_> = some.iter().map(|piece| IoSlice::new(piece)).collect();
            write_all_vectored(&self.file, &mut slices)?;
        }
        self.filled += bytes;
        Ok(())
    }
}

fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:08}.ndjson"))
}

/// A file of `bytes` zeros that, with its name, is on the disk; positioned at its start.
fn zeroed(directory: &Path, number: u64, bytes: u64) -> io::Result<File> {
    let mut file = File::create(path(directory, number))?;
    let zeros = vec![0; ZEROS_BYTES];
    let mut left = bytes;
    while left > 0 {
        let some = left.min(ZEROS_BYTES as u64);
        file.write_all(&zeros[..some as usize])?;
        left -= some;
    }
    file.rewind()?;
    file.sync_all()?;
    File::open(directory)?.sync_all()?;
    Ok(file)
}

/// Like `write_all`, for slices: a short write goes on where it ended.
fn write_all_vectored(mut file: &File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL_FILE_BYTES: u64 = 128 << 10;

    fn lines(number: usize) -> Batch {
        Batch { pieces: vec![Bytes::from(format!("{{\"n\":{number}}}")), Bytes::from_static(b"\n")] }
    }

    fn stored(directory: &Path) -> String {
        let text = std::fs::read_to_string(path(directory, 0)).unwrap();
        text.trim_end_matches('\0').to_owned()
    }

    #[test]
    fn what_is_answered_is_in_the_file_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let committer = Committer::start(directory.path(), SMALL_FILE_BYTES, Ack::Synced, || ()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for number in 0..100 {
                committer.commit(lines(number)).await.unwrap();
            }
        });
        let expected: String = (0..100).map(|number| format!("{{\"n\":{number}}}\n")).collect();
        assert_eq!(stored(directory.path()), expected);
    }

    #[test]
    fn a_group_of_more_slices_than_one_writev_takes_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::create(directory.path(), SMALL_FILE_BYTES, || ()).unwrap();
        let pieces: Vec<_> = (0..3 * SLICES_MAX + 1).flat_map(|number| lines(number).pieces).collect();
        log.append(&pieces, pieces.iter().map(Bytes::len).sum::<usize>() as u64).unwrap();
        assert_eq!(stored(directory.path()).as_bytes(), pieces.concat());
    }

    #[test]
    fn a_full_file_is_followed_by_the_next_and_keeps_no_zeros() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::create(directory.path(), 10, || ()).unwrap();
        for number in [6, 7, 8] {
            log.append(&lines(number).pieces, 8).unwrap();
        }
        assert_eq!(std::fs::read(path(directory.path(), 0)).unwrap(), b"{\"n\":6}\n");
        assert_eq!(std::fs::read(path(directory.path(), 1)).unwrap(), b"{\"n\":7}\n");
        assert_eq!(std::fs::read(path(directory.path(), 2)).unwrap(), b"{\"n\":8}\n\0\0");
    }

    #[test]
    fn nothing_is_acknowledged_once_the_writer_has_failed() {
        let (queue, receiver) = mpsc::channel(1);
        drop(receiver);
        let committer = Committer { queue, ack: Ack::Memory };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(runtime.block_on(committer.commit(lines(0))).is_err());
    }
}
