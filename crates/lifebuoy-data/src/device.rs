//! Saves and restores a block device, or the image of one: blocks of one length,
//! those of zeros left out. Reads only what may have changed, where that is known.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom},
    ops::Range,
    os::unix::fs::{FileExt, FileTypeExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use crossbeam_channel::bounded;
use lifebuoy_repo::{ChunkId, Reader, Repository, SessionRequest};
use tokio::runtime::Handle;

use crate::{
    before::Before,
    builder::DeviceMap,
    delivery::deliver_to,
    error::{Error, Result},
    manifest::{DataSummary, Manifest},
    map::{MapWalk, Placed},
    parts::Parts,
    progress::Progress,
    reading::{next_data, read_up_to},
    restore::some,
    save::{Saved, commit, threads, until_stopped, without_lasting},
    sealing::{Pending, Sealing},
    target::{Existing, punch},
};

/// Blocks are no shorter, so that a map stays small...
const BLOCK_BYTES_MIN: u64 = 64 * 1024;
/// ...and no longer than a chunk.
const BLOCK_BYTES_MAX: u64 = lifebuoy_repo::CHUNK_BYTES_MAX as u64;
/// So many blocks that cost 100 bytes of memory each are what an index can take.
const BLOCKS_MAX: u64 = 1 << 20;
/// Blocks that are on their way at one time.
const PENDING_MAX: usize = 32;
/// What is read by one call, in bytes.
const READ_BYTES: u64 = 1024 * 1024;

/// What device to save, and how.
#[derive(Debug)]
pub struct SaveDeviceRequest {
    /// The device, or the image of one.
    pub place: PathBuf,
    /// What it is called in the snapshot; numbers in it are filled in.
    pub summary: DataSummary,
    /// The root of a snapshot of the same device, and the regions in bytes that may have
    /// changed since. Everything else is taken over.
    pub before: Option<(ChunkId, Vec<Range<u64>>)>,
    /// How often what was sent is committed in parts, so that a save that is cut off has
    /// not sent it in vain: [`PARTS_EVERY`](crate::PARTS_EVERY) unless there is a reason.
    /// No sooner than after 128 MiB.
    pub parts_every: Duration,
}

/// What to restore, and where to.
#[derive(Debug)]
pub struct RestoreDeviceRequest {
    /// The root of the snapshot.
    pub root: ChunkId,
    /// A device, or a file.
    pub place: PathBuf,
    /// What may be there: a device is always, a file is only resumed.
    pub existing: Existing,
}

/// How long the blocks of a device of so many bytes are.
fn block_bytes(size: u64) -> u64 {
    size.div_ceil(BLOCKS_MAX)
        .next_power_of_two()
        .clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX)
}

/// Saves a device as a snapshot of the session.
///
/// # Errors
/// [`Error::Place`] if it cannot be read; one of the repository.
pub async fn save_device(
    repository: &Repository,
    session: SessionRequest,
    request: SaveDeviceRequest,
    progress: Arc<Progress>,
) -> Result<Saved> {
    let SaveDeviceRequest {
        summary,
        parts_every,
        ..
    } = &request;
    let told = Arc::clone(&progress);
    let writer = Parts::begin(repository, session, summary, *parts_every, told).await?;
    let writer = Arc::new(writer);
    let reader = Arc::new(writer.reader());
    let (of, runtime) = (Arc::clone(&writer), Handle::current());
    let work = move || blocks(&of, runtime, &reader, request, &progress);
    let manifest = tokio::task::spawn_blocking(work).await.map_err(|_| LOST)?;
    commit(&writer, manifest).await
}

const LOST: Error = Error::Internal("a thread of the save ended early");

fn blocks(
    writer: &Parts,
    runtime: Handle,
    reader: &Arc<Reader>,
    request: SaveDeviceRequest,
    progress: &Progress,
) -> Result<Manifest> {
    let SaveDeviceRequest {
        place,
        mut summary,
        before,
        parts_every: _,
    } = request;
    let failed = |what| Error::place(what, &place);
    let mut file = File::open(&place).map_err(failed("open"))?;
    let size = file.seek(SeekFrom::End(0)).map_err(failed("measure"))?;
    progress.expect(1, size);
    let block_bytes = block_bytes(size);
    let sealing = Sealing::new(writer, runtime);
    let everything = 0..size;
    let (known, changed) = match before {
        None => (None, vec![everything]),
        Some((root, changed)) => {
            let known = known(&sealing, reader, root, block_bytes, size);
            match without_lasting(progress, known)? {
                None => (None, vec![everything]),
                known => (known, changed),
            }
        }
    };
    let mut saving = Saving {
        sealing: &sealing,
        place: &place,
        file,
        size,
        block_bytes,
        map: DeviceMap::new(&sealing, block_bytes, size),
        pending: VecDeque::new(),
        progress,
    };
    let changed = whole_blocks(changed, block_bytes, size);
    let (stop, stopped) = bounded(0);
    let tree = thread::scope(|scope| {
        // This thread reads; the others store.
        for _ in 0..threads() {
            scope.spawn(|| until_stopped(&sealing, &stopped));
        }
        let tree = saving
            .run(&changed, known)
            .and_then(|()| saving.map.finish());
        drop(stop);
        tree
    })?;
    progress.entry();
    summary.entries = 1;
    summary.bytes = size;
    Ok(Manifest {
        data: summary.data,
        summary,
        tree,
        block_bytes: Some(block_bytes),
        problems: Vec::new(),
    })
}

/// What the snapshot before says of the device, if it was cut alike and all of it may
/// be built on. None also if that is not so: then everything is read.
fn known(
    sealing: &Sealing<'_>,
    reader: &Arc<Reader>,
    root: ChunkId,
    block_bytes: u64,
    size: u64,
) -> Result<Option<Option<MapWalk>>> {
    let plain = sealing.runtime().block_on(reader.get(&root))?;
    let manifest = Manifest::from_bytes(&plain)?;
    if manifest.block_bytes != Some(block_bytes) || manifest.summary.bytes != size {
        return Ok(None);
    }
    let Some(root) = manifest.tree else {
        return Ok(Some(None));
    };
    let mut before = Before::new(sealing, Arc::clone(reader), root);
    if !before.is_map_usable(root)? {
        return Ok(None);
    }
    Ok(Some(Some(MapWalk::new(Arc::clone(reader), root, size))))
}

/// Regions as numbers of blocks, in order and apart from one another.
fn whole_blocks(mut changed: Vec<Range<u64>>, block_bytes: u64, size: u64) -> Vec<Range<u64>> {
    changed.sort_unstable_by_key(|region| region.start);
    let mut blocks: Vec<Range<u64>> = Vec::new();
    for region in changed {
        let end = region.end.min(size).div_ceil(block_bytes);
        let begin = region.start / block_bytes;
        match blocks.last_mut() {
            Some(last) if begin <= last.end => last.end = last.end.max(end),
            _ if begin < end => blocks.push(begin..end),
            _ => {}
        }
    }
    blocks
}

struct Saving<'a> {
    sealing: &'a Sealing<'a>,
    place: &'a Path,
    file: File,
    size: u64,
    block_bytes: u64,
    map: DeviceMap<&'a Sealing<'a>>,
    pending: VecDeque<(u64, u64, Pending)>,
    progress: &'a Progress,
}

impl Saving<'_> {
    fn run(&mut self, changed: &[Range<u64>], known: Option<Option<MapWalk>>) -> Result<()> {
        let mut known = known.flatten();
        let mut next = self.next_known(&mut known)?;
        for blocks in changed {
            while let Some(placed) = next
                && placed.begin / self.block_bytes < blocks.end
            {
                if placed.begin / self.block_bytes < blocks.start {
                    self.take_over(&placed)?;
                }
                next = self.next_known(&mut known)?;
            }
            self.read(blocks)?;
        }
        while let Some(placed) = next {
            self.take_over(&placed)?;
            next = self.next_known(&mut known)?;
        }
        self.settle(0)
    }

    fn next_known(&self, known: &mut Option<MapWalk>) -> Result<Option<Placed>> {
        match known {
            Some(walk) => self.sealing.runtime().block_on(walk.next()),
            None => Ok(None),
        }
    }

    fn take_over(&mut self, placed: &Placed) -> Result<()> {
        self.progress.unchanged(placed.length);
        let number = placed.begin / self.block_bytes;
        self.push(number, placed.length, Pending::Done(placed.chunk))
    }

    /// Reads blocks, but for the holes among them.
    fn read(&mut self, blocks: &Range<u64>) -> Result<()> {
        let end = (blocks.end * self.block_bytes).min(self.size);
        let mut position = blocks.start * self.block_bytes;
        while position < end {
            // A device has no holes, or says that it cannot tell.
            let data = next_data(&self.file, position).unwrap_or(Some((position, end)));
            let (begin, data_end) = data.unwrap_or((end, end));
            let begin = begin.clamp(position, end) / self.block_bytes * self.block_bytes;
            let data_end = data_end.next_multiple_of(self.block_bytes).min(end);
            position = position.max(begin);
            while position < data_end {
                position = self.read_some(position, data_end)?;
            }
        }
        Ok(())
    }

    /// Reads a few blocks, and returns where the next begins.
    fn read_some(&mut self, begin: u64, end: u64) -> Result<u64> {
        let failed = || Error::place("read", self.place);
        let length = (end - begin).min(READ_BYTES.max(self.block_bytes));
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        let mut bytes = self.sealing.buffer();
        self.file.seek(SeekFrom::Start(begin)).map_err(failed())?;
        let read = read_up_to(&self.file, &mut bytes, wanted).map_err(failed())?;
        if read < wanted {
            return Err(failed()(io::ErrorKind::UnexpectedEof.into()));
        }
        self.progress.bytes(length);
        let block_bytes = usize::try_from(self.block_bytes).unwrap_or(usize::MAX);
        for (number, block) in (begin / self.block_bytes..).zip(bytes.chunks(block_bytes)) {
            if is_zeros(block) {
                continue;
            }
            let mut copy = self.sealing.buffer();
            copy.extend_from_slice(block);
            let pending = self.sealing.seal(copy)?;
            self.push(number, block.len() as u64, pending)?;
        }
        self.sealing.recycle(bytes);
        Ok(begin + length)
    }

    fn push(&mut self, number: u64, length: u64, pending: Pending) -> Result<()> {
        self.pending.push_back((number, length, pending));
        self.settle(PENDING_MAX)
    }

    /// Waits until no more than so many blocks are on their way.
    fn settle(&mut self, left: usize) -> Result<()> {
        while self.pending.len() > left
            && let Some((number, length, pending)) = self.pending.pop_front()
        {
            let chunk = self.sealing.wait(pending)?;
            self.map.push(number, length, chunk)?;
        }
        Ok(())
    }
}

/// By sixteen bytes at a time: this is what is done to every block.
fn is_zeros(block: &[u8]) -> bool {
    let (words, rest) = block.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// Restores a device, or the image of one. What is zeros becomes a hole.
///
/// # Errors
/// [`Error::NotOurs`] for a snapshot of files, [`Error::NotEmpty`], [`Error::Place`],
/// [`Error::Damaged`], or one of the repository.
pub async fn restore_device(
    reader: Arc<Reader>,
    request: RestoreDeviceRequest,
    progress: Arc<Progress>,
) -> Result<DataSummary> {
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || write(&reader, &runtime, &request, &progress))
        .await
        .map_err(|_| Error::Internal("a thread of the restore ended early"))?
}

fn write(
    reader: &Arc<Reader>,
    runtime: &Handle,
    request: &RestoreDeviceRequest,
    progress: &Progress,
) -> Result<DataSummary> {
    let RestoreDeviceRequest {
        root,
        place,
        existing,
    } = request;
    let plain = runtime.block_on(reader.get(root))?;
    let Manifest {
        summary,
        tree,
        block_bytes,
        ..
    } = Manifest::from_bytes(&plain)?;
    if block_bytes.is_none() {
        return Err(Error::NotOurs {
            what: "it is one of files".to_owned(),
        });
    }
    progress.expect(1, summary.bytes);
    let (file, whole) = open(place, *existing, summary.bytes)?;
    progress.begin_to_write();
    let mut end = 0;
    if let Some(root) = tree {
        let mut walk = MapWalk::new(Arc::clone(reader), root, summary.bytes);
        loop {
            let parts = runtime.block_on(some(&mut walk))?;
            let Some(last) = parts.last() else { break };
            for part in &parts {
                punch(&file, end, part.begin).map_err(Error::place("write to", place))?;
                end = part.begin + part.length;
            }
            debug_assert_eq!(end, last.begin + last.length);
            let failure = Mutex::new(None);
            deliver_to(
                reader,
                runtime,
                &parts,
                &|block: io::Result<&[u8]>, begin| {
                    let written = block.and_then(|block| {
                        progress.bytes(block.len() as u64);
                        file.write_all_at(block, begin)
                    });
                    if let Err(error) = written {
                        let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                        failure.get_or_insert(error);
                    }
                },
            )?;
            let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
            if let Some(error) = failure {
                return Err(Error::place("write to", place)(error));
            }
        }
    }
    punch(&file, end, whole)
        .and_then(|()| file.sync_all())
        .map_err(Error::place("write to", place))?;
    progress.entry();
    Ok(summary)
}

/// Opens a device, or makes a file, of at least this size in bytes; and up to where it is
/// written. What a larger device has behind that was there before, and stays unless all is
/// overwritten.
fn open(place: &Path, existing: Existing, size: u64) -> Result<(File, u64)> {
    let failed = |what| Error::place(what, place);
    let is_device = place
        .metadata()
        .is_ok_and(|there| there.file_type().is_block_device());
    if is_device {
        let mut device = OpenOptions::new()
            .write(true)
            .open(place)
            .map_err(failed("open"))?;
        let has = device.seek(SeekFrom::End(0)).map_err(failed("measure"))?;
        if has < size {
            let small = io::Error::other(format!("it has {has} bytes, the snapshot {size}"));
            return Err(failed("restore to")(small));
        }
        let all = existing == Existing::Overwrite;
        return Ok((device, if all { has } else { size }));
    }
    if existing == Existing::Refuse && place.symlink_metadata().is_ok() {
        return Err(Error::NotEmpty {
            path: place.to_owned(),
        });
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(place)
        .map_err(failed("create"))?;
    file.set_len(size).map_err(failed("create"))?;
    Ok((file, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_as_long_as_keeps_their_number_bounded() {
        assert_eq!(block_bytes(0), 64 << 10);
        assert_eq!(block_bytes(64 << 30), 64 << 10);
        assert_eq!(block_bytes((64 << 30) + 1), 128 << 10);
        assert_eq!(block_bytes(1 << 40), 1 << 20);
        assert_eq!(block_bytes(1 << 60), 4 << 20);
    }

    #[test]
    fn changed_regions_become_blocks_apart_from_one_another() {
        let blocks = whole_blocks(vec![25..26, 0..1, 5..11, 95..300], 10, 99);
        assert_eq!(blocks, [0..3, 9..10]);
        assert_eq!(whole_blocks(vec![100..200, 300..301], 10, 99), []);
    }

    #[test]
    fn zeros_are_told_at_every_length() {
        for len in [0, 1, 15, 16, 17, 4096] {
            let mut block = vec![0; len];
            assert!(is_zeros(&block));
            if let Some(last) = block.last_mut() {
                *last = 1;
                assert!(!is_zeros(&block));
            }
        }
    }
}
