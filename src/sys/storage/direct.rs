//! The real storage: O_DIRECT files of one directory, written through an io_uring.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, mem};

use super::directory::Identity;
use super::files::Files;
use super::mark::{self, MarkFile};
use super::ring::GroupRing;
use super::{
    AlignedBytes, Background, Displaced, DurableMark, Entry, Facts, FileId, ReadStorage, Storage, SyncChoice, SyncMode,
    Write, errno, follower, lock, probe, server_runs,
};
use crate::base::{Epoch, MIB, WriterId};
use crate::sys::memory::Region;

/// Zeros written per call when a whole file is filled while somebody waits: long enough that the device works on
/// several requests at once.
const FILL_BYTES: usize = 8 * MIB;

/// One writer's directory.
pub struct DirectStorage {
    files: Files,
    writer: WriterId,
    mark: MarkFile,
    /// The lock file that the caller holds; `None` if it holds none.
    lock: Option<Identity>,
    ring: Option<GroupRing>,
    facts: Facts,
}

impl DirectStorage {
    /// Opens `DATA/writer-NN`, making it if it is not there, and probes its disk. Also makes `DATA/followers`, which then is the
    /// server's whoever reads first, and removes what dead readers left in it.
    ///
    /// # Errors
    /// What the system answered.
    pub fn open(data: &Path, writer: WriterId, sync: SyncChoice) -> io::Result<Self> {
        let path = data.join(format!("writer-{:02}", writer.0));
        if !path.is_dir() {
            fs::create_dir_all(&path)?;
            fs::File::open(data)?.sync_all()?;
        }
        follower::prepare(data)?;
        let mut files = Files::new(&path, true)?;
        let facts = probe::probe(&mut files, sync)?;
        let mark = MarkFile::open(files.directory())?;
        let lock = lock::identity(data)?;
        Ok(Self { files, writer, mark, lock, ring: None, facts })
    }

    fn write_flags(&self) -> libc::c_int {
        if self.facts.sync == SyncMode::Dsync { libc::RWF_DSYNC } else { 0 }
    }

    fn ring(&mut self) -> &mut GroupRing {
        self.ring.as_mut().expect("registered and begun")
    }
}

fn sync_group(files: &mut Files, mode: SyncMode, file: FileId) -> io::Result<()> {
    match mode {
        // Each write completed only once it was durable, and nothing else of the file changed.
        SyncMode::Dsync => Ok(()),
        // Blocking: this thread has nothing else to do, and the ring would hand the call to a worker thread.
        SyncMode::Fdatasync => files.sync(file),
    }
}

impl ReadStorage for DirectStorage {
    fn list(&mut self) -> io::Result<Vec<Entry>> {
        self.files.directory().list()
    }

    fn open(&mut self, name: &str) -> io::Result<FileId> {
        self.files.open(name, libc::O_RDWR)
    }

    fn close(&mut self, file: FileId) {
        self.files.close(file);
    }

    fn read_at(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.files.read_at(file, offset, into)
    }

    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.files.sync(file)
    }

    fn is_still(&mut self, file: FileId, name: &str) -> io::Result<bool> {
        self.files.is_still(file, name)
    }

    fn durable_mark(&mut self) -> io::Result<Option<DurableMark>> {
        mark::read(self.files.directory())
    }

    fn server_runs(&mut self) -> io::Result<bool> {
        server_runs(self.files.data())
    }
}

impl Storage for DirectStorage {
    fn create(&mut self, name: &str, bytes: u64) -> io::Result<FileId> {
        let length = libc::off_t::try_from(bytes).map_err(|_| errno(libc::EFBIG))?;
        let file = self.files.open(name, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL)?;
        // SAFETY: the descriptor is open; no pointers.
        let allocated = unsafe { libc::fallocate(self.files.fd(file), 0, 0, length) };
        let outcome = if allocated == 0 {
            Ok(())
        } else {
            match io::Error::last_os_error() {
                // Without fallocate the zeros that follow allocate; only contiguity is lost.
                error if error.raw_os_error() == Some(libc::EOPNOTSUPP) => self.files.get(file).set_len(bytes),
                error => Err(error),
            }
        };
        if let Err(error) = outcome {
            self.files.close(file);
            self.remove(name)?;
            return Err(error);
        }
        Ok(file)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.files.directory().rename(from, to)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.files.directory().remove(name)
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.files.directory().file().sync_all()
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.files.get(file).write_all_at(bytes, offset)
    }

    fn punch_hole(&mut self, file: FileId, offset: u64, bytes: u64) -> io::Result<()> {
        let invalid = |_| errno(libc::EFBIG);
        let (offset, length) = (offset.try_into().map_err(invalid)?, bytes.try_into().map_err(invalid)?);
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: the descriptor is open; no pointers.
        if unsafe { libc::fallocate(self.files.fd(file), mode, offset, length) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn zero_and_sync(&mut self, file: FileId, bytes: u64) -> io::Result<()> {
        let zeros = AlignedBytes::zeroed(FILL_BYTES);
        let file = self.files.get(file);
        let mut at = 0;
        while at < bytes {
            let length = (bytes - at).min(FILL_BYTES as u64);
            file.write_all_at(&zeros.as_ref()[..length as usize], at)?;
            at += length;
        }
        file.sync_data()
    }

    fn write_group(&mut self, file: FileId, writes: &[Write<'_>]) -> io::Result<()> {
        let (fd, flags) = (self.files.fd(file), self.write_flags());
        self.ring().write_group(fd, writes, flags, None)
    }

    fn write_group_during_sync(
        &mut self,
        file: FileId,
        writes: &[Write<'_>],
        synced: &mut dyn FnMut(io::Result<()>),
    ) -> io::Result<()> {
        let (fd, flags, mode) = (self.files.fd(file), self.write_flags(), self.facts.sync);
        let Self { files, ring, .. } = self;
        let ring = ring.as_mut().expect("registered and begun");
        ring.write_group(fd, writes, flags, Some(&mut || synced(sync_group(files, mode, file))))
    }

    fn sync_group(&mut self, file: FileId) -> io::Result<()> {
        sync_group(&mut self.files, self.facts.sync, file)
    }

    fn start_background(&mut self, work: Background) -> io::Result<()> {
        let (Background::Zero { file, .. } | Background::Sync { file }) = work;
        let fd = self.files.fd(file);
        self.ring().start_background(fd, work);
        Ok(())
    }

    fn poll_background(&mut self) -> Option<io::Result<()>> {
        self.ring.as_mut()?.poll_background()
    }

    fn free_bytes(&mut self) -> io::Result<u64> {
        // SAFETY: statvfs is plain integers, for which all zeros is a value.
        let mut stat: libc::statvfs = unsafe { mem::zeroed() };
        // SAFETY: the directory is open and the pointer is to a statvfs of our own.
        if unsafe { libc::fstatvfs(self.files.directory().file().as_raw_fd(), &raw mut stat) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // Fields are u32 on 32-bit targets.
        #[allow(clippy::useless_conversion)]
        Ok(u64::from(stat.f_bavail) * u64::from(stat.f_frsize))
    }

    fn set_durable_mark(&mut self, mark: DurableMark) -> io::Result<()> {
        self.mark.set(mark)
    }

    fn displaced(&mut self, file: FileId, name: &str) -> io::Result<Option<Displaced>> {
        if !self.files.directory().is_in_place()? {
            return Ok(Some(Displaced::Directory));
        }
        if self.lock.is_some() && lock::identity(self.files.data())? != self.lock {
            return Ok(Some(Displaced::Lock));
        }
        let is_still = self.files.is_still(file, name)?;
        Ok((!is_still).then_some(Displaced::Segment))
    }

    fn followers_need(&mut self) -> io::Result<Option<Epoch>> {
        follower::oldest_needed(self.files.data(), self.writer)
    }

    fn register(&mut self, regions: &[Arc<Region>]) -> io::Result<()> {
        let (ring, refused) = GroupRing::new(regions)?;
        if let Some(error) = refused {
            let bytes: usize = regions.iter().map(|region| region.bytes()).sum();
            self.facts.warnings.push(format!(
                "the log buffers could not be registered with io_uring ({error}), so each write pins its pages anew: \
                 raise the memlock limit to at least {} MiB (LimitMEMLOCK= or ulimit -l)",
                bytes / MIB
            ));
        }
        self.ring = Some(ring);
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        self.ring().begin()
    }

    fn wait(&mut self, bell: RawFd, timeout: Duration) -> io::Result<()> {
        self.ring().wait(bell, timeout)
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PAGE_BYTES;

    /// Tests run under /tmp by default: on the disk if that is one, else through the page cache.
    fn storage() -> (tempfile::TempDir, DirectStorage) {
        let directory = tempfile::tempdir().unwrap();
        let storage = DirectStorage::open(directory.path(), WriterId(0), SyncChoice::Auto).unwrap();
        (directory, storage)
    }

    fn region(fill: u8) -> Arc<Region> {
        let region = Region::map(2 * MIB, false).unwrap();
        // SAFETY: the region is this test's alone.
        unsafe { region.base().as_ptr().write_bytes(fill, region.bytes()) };
        Arc::new(region)
    }

    fn slice(region: &Region, at: usize, bytes: usize) -> &[u8] {
        assert!(at + bytes <= region.bytes());
        // SAFETY: in bounds, and nobody writes to the region any more.
        unsafe { std::slice::from_raw_parts(region.base().as_ptr().add(at), bytes) }
    }

    #[test]
    fn groups_from_registered_and_other_memory_read_back() {
        for (sync, direct) in [(SyncChoice::Fdatasync, true), (SyncChoice::Dsync, true), (SyncChoice::Fdatasync, false)]
        {
            let directory = tempfile::tempdir().unwrap();
            let mut storage = DirectStorage::open(directory.path(), WriterId(0), sync).unwrap();
            // False is what a filesystem without O_DIRECT comes to.
            storage.files.direct &= direct;
            let regions = [region(1), region(2)];
            storage.register(&regions).unwrap();
            storage.begin().unwrap();
            let file = storage.create("a", MIB as u64).unwrap();
            let mut other = AlignedBytes::zeroed(PAGE_BYTES);
            other.as_mut().fill(3);
            let writes = [
                Write { offset: 0, bytes: slice(&regions[0], 4096, 8192), region: Some(0) },
                Write { offset: 8192, bytes: slice(&regions[1], 0, 4096), region: Some(1) },
                Write { offset: 12288, bytes: other.as_ref(), region: None },
            ];
            storage.write_group(file, &writes[..2]).unwrap();
            let mut synced = None;
            storage.write_group_during_sync(file, &writes[2..], &mut |result| synced = Some(result)).unwrap();
            synced.expect("told once").unwrap();
            storage.sync_group(file).unwrap();
            let mut read = AlignedBytes::zeroed(5 * PAGE_BYTES);
            assert_eq!(storage.read_at(file, 0, read.as_mut()).unwrap(), 5 * PAGE_BYTES);
            let pages: Vec<u8> = read.as_ref().chunks(PAGE_BYTES).map(|page| page[17]).collect();
            assert_eq!(pages, [1, 1, 2, 3, 0]);
        }
    }

    #[test]
    fn a_failing_write_is_reported_with_its_errno() {
        let (_directory, mut storage) = storage();
        let regions = [region(1)];
        storage.register(&regions).unwrap();
        storage.begin().unwrap();
        storage.create("a", MIB as u64).unwrap();
        // Opened for reading only: the kernel answers EBADF to the writes.
        let file = storage.files.open("a", libc::O_RDONLY).unwrap();
        let write = |page: usize| Write {
            offset: (page * PAGE_BYTES) as u64,
            bytes: slice(&regions[0], page * PAGE_BYTES, PAGE_BYTES),
            region: Some(0),
        };
        let error = storage.write_group(file, &[write(0), write(1)]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn background_work_goes_on_beside_groups_and_ends_once() {
        let (_directory, mut storage) = storage();
        let regions = [region(9)];
        storage.register(&regions).unwrap();
        storage.begin().unwrap();
        let log = storage.create("log", MIB as u64).unwrap();
        let ready = storage.create("ready", 2 * MIB as u64).unwrap();
        let bytes = slice(&regions[0], 0, 4096);
        for work in [Background::Zero { file: ready, offset: 0, bytes: MIB }, Background::Sync { file: ready }] {
            assert!(storage.poll_background().is_none(), "nothing is under way");
            storage.start_background(work).unwrap();
            storage.write_group(log, &[Write { offset: 0, bytes, region: Some(0) }]).unwrap();
            let result = loop {
                if let Some(result) = storage.poll_background() {
                    break result;
                }
                storage.wait(-1, Duration::from_secs(1)).unwrap();
            };
            result.unwrap();
        }
        assert!(storage.poll_background().is_none());
        storage.start_background(Background::Zero { file: ready, offset: 0, bytes: MIB }).unwrap();
        // Dropped with work under way: waits for it, since the kernel reads memory that goes with it.
    }

    #[test]
    fn names_are_made_changed_and_never_replaced() {
        let (_directory, mut storage) = storage();
        let file = storage.create("a", 8192).unwrap();
        assert_eq!(storage.create("a", 8192).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        storage.zero_and_sync(file, 8192).unwrap();
        storage.create("b", 4096).unwrap();
        assert_eq!(storage.rename("a", "b").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        storage.rename("a", "c").unwrap();
        storage.remove("b").unwrap();
        storage.sync_dir().unwrap();
        assert!(storage.is_still(file, "c").unwrap() && !storage.is_still(file, "a").unwrap());
        let names: Vec<_> = storage.list().unwrap().into_iter().map(|entry| (entry.name, entry.bytes)).collect();
        assert!(names.contains(&("c".to_owned(), 8192)) && !names.iter().any(|(name, _)| name == "b"), "{names:?}");
        assert!(storage.free_bytes().unwrap() > 0);
    }

    #[test]
    fn a_hole_takes_no_space_and_reads_as_zeros() {
        use std::os::unix::fs::MetadataExt;
        let (directory, mut storage) = storage();
        let (page, length) = (PAGE_BYTES as u64, 2 * MIB as u64);
        let file = storage.create("a", length).unwrap();
        let mut ones = AlignedBytes::zeroed(2 * MIB);
        ones.as_mut().fill(1);
        storage.write_at(file, 0, ones.as_ref()).unwrap();
        storage.sync(file).unwrap();
        match storage.punch_hole(file, page, length - page) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return,
            punched => punched.unwrap(),
        }
        let mut read = AlignedBytes::zeroed(2 * PAGE_BYTES);
        assert_eq!(storage.read_at(file, 0, read.as_mut()).unwrap(), 2 * PAGE_BYTES);
        assert!(read.as_ref()[..PAGE_BYTES].iter().all(|byte| *byte == 1));
        assert!(read.as_ref()[PAGE_BYTES..].iter().all(|byte| *byte == 0));
        let facts = fs::metadata(directory.path().join("writer-00/a")).unwrap();
        assert_eq!(facts.len(), length);
        assert!(facts.blocks() * 512 < length / 4, "{} blocks are still taken", facts.blocks());
    }

    #[test]
    fn a_file_that_is_too_large_leaves_nothing_behind() {
        let (_directory, mut storage) = storage();
        // More than files may have, so that the kernel refuses before it takes all there is from the tests beside this one;
        // then more than an offset can say.
        for bytes in [1 << 62, u64::MAX] {
            assert!(storage.create("a", bytes).is_err());
            assert!(storage.list().unwrap().iter().all(|entry| entry.name != "a"));
        }
    }
}
