//! What a [`super::FaultyDisk`] holds and does with each call. Decides nothing of its own: faults are ordered, luck is
//! the seed's.

use std::collections::{BTreeMap, HashMap};
use std::io;

use super::{Call, Failure, Random, SECTOR_BYTES};
use crate::base::{Epoch, PAGE_BYTES};
use crate::sys::storage::{Displaced, DurableMark, errno};

#[derive(Debug)]
pub(super) struct Pending {
    offset: usize,
    bytes: Vec<u8>,
    /// A sync of it failed: no later one covers it.
    lost: bool,
}

#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) current: Vec<u8>,
    pub(super) synced: Vec<u8>,
    pub(super) pending: Vec<Pending>,
    /// Whether the file's length was ever synced.
    pub(super) length_synced: bool,
    /// Where a hole begins that reaches to the file's end.
    pub(super) hole_from: Option<usize>,
}

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Add(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) random: Random,
    pub(super) files: Vec<Content>,
    pub(super) names: BTreeMap<String, usize>,
    pub(super) durable_names: BTreeMap<String, usize>,
    pub(super) pending_names: Vec<NameChange>,
    pub(super) mark: Option<DurableMark>,
    pub(super) past_marks: Vec<Option<DurableMark>>,
    pub(super) capacity: u64,
    pub(super) boot: u64,
    pub(super) steps: u64,
    pub(super) crash_at: Option<u64>,
    pub(super) crash_on: Option<(Call, u64)>,
    pub(super) crashed: bool,
    pub(super) counts: HashMap<Call, u64>,
    pub(super) failures: Vec<(Call, u64, Failure)>,
    /// Calls that fail each time, and the errno.
    pub(super) always_fail: HashMap<Call, i32>,
    /// The errno that looking at them fails with, if it does.
    pub(super) followers_need: Result<Option<Epoch>, i32>,
    pub(super) displaced: Option<Displaced>,
    pub(super) server_runs: bool,
}

/// Whether a call takes effect, and what it then answers.
pub(super) enum Verdict {
    Do,
    /// Takes effect, fully or in part, but answers with an error: the machine is gone, or a failure was ordered.
    DoThenFail(Failure),
    DoNothing(i32),
}

impl Disk {
    /// An empty disk of unlimited capacity.
    pub(super) fn new(random: Random) -> Self {
        Self {
            random,
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            mark: None,
            past_marks: vec![None],
            capacity: u64::MAX / 2,
            boot: 0,
            steps: 0,
            crash_at: None,
            crash_on: None,
            crashed: false,
            counts: HashMap::new(),
            failures: Vec::new(),
            always_fail: HashMap::new(),
            followers_need: Ok(None),
            displaced: None,
            server_runs: false,
        }
    }

    /// Counts a call that changes something and decides what becomes of it.
    pub(super) fn step(&mut self, call: Call) -> Verdict {
        self.steps += 1;
        let ordered = self.ordered(call);
        let nth = self.counts[&call];
        if self.crash_at == Some(self.steps) || self.crash_on == Some((call, nth)) {
            self.crashed = true;
            // In the middle: the call may have done its work, only nobody hears of it.
            return if self.random.one_in(2) {
                Verdict::DoNothing(libc::EIO)
            } else {
                Verdict::DoThenFail(Failure::Errno(libc::EIO))
            };
        }
        match ordered {
            Some(failure) if matches!(call, Call::Write | Call::Zero | Call::Sync) => Verdict::DoThenFail(failure),
            Some(Failure::Errno(code)) => Verdict::DoNothing(code),
            Some(Failure::Short(_)) => Verdict::DoNothing(libc::EIO),
            None => Verdict::Do,
        }
    }

    pub(super) fn ordered(&mut self, call: Call) -> Option<Failure> {
        let count = self.counts.entry(call).or_default();
        *count += 1;
        let at = *count;
        if let Some(code) = self.always_fail.get(&call) {
            return Some(Failure::Errno(*code));
        }
        let index = self.failures.iter().position(|(kind, nth, _)| (*kind, *nth) == (call, at))?;
        Some(self.failures.swap_remove(index).2)
    }

    pub(super) fn write(&mut self, call: Call, file: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).expect("a file in memory");
        let keep = |disk: &mut Self, bytes: &[u8]| {
            let file = &mut disk.files[file];
            assert!(offset + bytes.len() <= file.current.len(), "writes stay within their file");
            assert!(
                file.hole_from.is_none_or(|hole| offset + bytes.len() <= hole),
                "space given back is not written to"
            );
            file.current[offset..offset + bytes.len()].copy_from_slice(bytes);
            file.pending.push(Pending { offset, bytes: bytes.to_vec(), lost: false });
        };
        match self.step(call) {
            Verdict::Do => keep(self, bytes),
            Verdict::DoNothing(code) => return Err(errno(code)),
            Verdict::DoThenFail(Failure::Short(missing)) => {
                keep(self, &bytes[..bytes.len().saturating_sub(missing)]);
                return Err(io::ErrorKind::WriteZero.into());
            }
            Verdict::DoThenFail(Failure::Errno(code)) => {
                let sectors = self.random.below(bytes.len() / SECTOR_BYTES + 1);
                keep(self, &bytes[..sectors * SECTOR_BYTES]);
                return Err(errno(code));
            }
        }
        Ok(())
    }

    /// Zeros from `offset` to the file's end, on the disk now or only after the next sync: a filesystem's journal may be late.
    pub(super) fn punch_hole(&mut self, file: usize, offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).expect("a file in memory");
        let (applies, outcome) = match self.step(Call::PunchHole) {
            Verdict::Do => (true, Ok(())),
            Verdict::DoThenFail(_) => (true, Err(errno(libc::EIO))),
            Verdict::DoNothing(code) => (false, Err(errno(code))),
        };
        if applies {
            let file = &mut self.files[file];
            let zeros = vec![0; file.current.len() - offset];
            file.current[offset..].copy_from_slice(&zeros);
            file.pending.push(Pending { offset, bytes: zeros, lost: false });
            file.hole_from = Some(offset);
        }
        outcome
    }

    pub(super) fn sync(&mut self, file: usize) -> io::Result<()> {
        let verdict = self.step(Call::Sync);
        let crashed = self.crashed;
        let file = &mut self.files[file];
        let mut cover = || {
            let (lost, covered): (Vec<_>, Vec<_>) = file.pending.drain(..).partition(|write| write.lost);
            for write in covered {
                file.synced[write.offset..write.offset + write.bytes.len()].copy_from_slice(&write.bytes);
            }
            file.pending = lost;
            file.length_synced = true;
        };
        match verdict {
            Verdict::Do => {
                cover();
                Ok(())
            }
            Verdict::DoNothing(code) => Err(errno(code)),
            Verdict::DoThenFail(failure) => {
                if crashed {
                    cover();
                } else {
                    file.pending.iter_mut().for_each(|write| write.lost = true);
                }
                match failure {
                    Failure::Errno(code) => Err(errno(code)),
                    Failure::Short(_) => Err(errno(libc::EIO)),
                }
            }
        }
    }

    pub(super) fn change_name(&mut self, call: Call, change: NameChange) -> io::Result<()> {
        let (applies, outcome) = match self.step(call) {
            Verdict::Do => (true, Ok(())),
            Verdict::DoThenFail(Failure::Errno(code)) => (true, Err(errno(code))),
            Verdict::DoThenFail(Failure::Short(_)) => (false, Err(errno(libc::EIO))),
            Verdict::DoNothing(code) => (false, Err(errno(code))),
        };
        if applies {
            apply(&mut self.names, &change);
            self.pending_names.push(change);
        }
        outcome
    }

    pub(super) fn used(&self) -> u64 {
        let taken = |file: &Content| file.hole_from.unwrap_or(file.current.len()) as u64;
        self.names.values().map(|index| taken(&self.files[*index])).sum()
    }

    pub(super) fn lose_what_was_not_synced(&mut self) {
        let mut random = self.random.clone();
        // A journal keeps the order of names; POSIX promises nothing.
        let in_order = random.one_in(2);
        let survivors = random.below(self.pending_names.len() + 1);
        for (index, change) in self.pending_names.drain(..).enumerate() {
            let survives = if in_order { index < survivors } else { random.one_in(2) };
            if survives {
                apply(&mut self.durable_names, &change);
            }
        }
        self.names = self.durable_names.clone();
        let style = random.below(4);
        for file in &mut self.files {
            let mut bytes = std::mem::take(&mut file.synced);
            let mut pending: Vec<_> = file.pending.drain(..).collect();
            if random.one_in(2) {
                pending.reverse();
            }
            for write in pending {
                survive(style, &mut random, &mut bytes, &write);
            }
            if !file.length_synced {
                bytes.truncate(random.below(bytes.len() / PAGE_BYTES + 1) * PAGE_BYTES);
                file.length_synced = true;
            }
            file.current.clone_from(&bytes);
            file.synced = bytes;
            file.hole_from = file.hole_from.filter(|_| random.one_in(2));
        }
        // The mark is never synced: any value it ever had may be on disk.
        self.mark = self.past_marks[random.below(self.past_marks.len())];
        self.past_marks = vec![self.mark];
        self.random = random;
    }
}

/// Applies what survived of one un-synced write: nothing, all, whole or not, a torn beginning, or any of its sectors.
fn survive(style: usize, random: &mut Random, bytes: &mut [u8], write: &Pending) {
    let sectors = write.bytes.len().div_ceil(SECTOR_BYTES);
    let whole = random.one_in(2);
    let beginning = random.below(sectors + 1);
    for (index, sector) in write.bytes.chunks(SECTOR_BYTES).enumerate() {
        let survives = match style {
            0 => false,
            1 => whole,
            2 => index < beginning,
            _ => random.one_in(2),
        };
        if survives {
            let at = write.offset + index * SECTOR_BYTES;
            bytes[at..at + sector.len()].copy_from_slice(sector);
        }
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Add(name, file) => {
            names.insert(name.clone(), *file);
        }
        NameChange::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
    }
}
