//! Reads what is to be saved: small files whole, large ones in chunks of their own.
//! A file that changes while it is read is read again, and then it is said.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Seek, SeekFrom},
    mem,
    os::fd::OwnedFd,
    sync::Arc,
};

use lifebuoy_repo::ChunkKind;
use rustix::{
    fs::{FileType, Stat, fstat},
    io::Errno,
};

use crate::{
    builder::FileMap,
    cutter::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN},
    disk,
    entry::{Attributes, Content, ContentHash, Entry, Extent, Kind, Pairs, Stamp},
    error::{Error, Result},
    node::put_attributes,
    path::TreePath,
    progress::Progress,
    sealing::{Pending, Sealing},
    secrets::Secrets,
};

/// Files up to this share chunks with others.
pub(crate) const SMALL_BYTES_MAX: u64 = 256 * 1024;
/// Below this a hole is not worth a chunk for what is around it.
const SPARSE_BYTES_MIN: u64 = 64 * 1024;
/// What of a large file is read at once: it is cut while the processor has it near.
const READ_BYTES: usize = 128 * 1024;
/// Chunks of one file whose ids are awaited.
const PENDING_MAX: usize = 8;
/// Attributes above this are in a chunk.
const ATTRIBUTE_BYTES_MAX: usize = 4096;
/// How often a file that changes is read.
const ATTEMPTS: usize = 3;

/// Something to save.
pub(crate) struct Item {
    pub(crate) path: TreePath,
    /// The directory that it is in.
    pub(crate) directory: Arc<OwnedFd>,
    /// Its name there.
    pub(crate) name: Box<[u8]>,
    pub(crate) stat: Stat,
    pub(crate) how: How,
}

/// What is known of it.
pub(crate) enum How {
    /// Everything: it is as it was in the snapshot before.
    Known(Box<Entry>),
    /// It is another name of what is at this path.
    Link(TreePath),
    /// It is to be read; this is what it was, if that may be built on.
    Read(Option<Box<Entry>>),
}

/// Items that go through one thread together.
pub(crate) type Batch = Vec<Item>;

/// What became of a batch: small files lie one after another in `bytes`.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) bytes: Vec<u8>,
    pub(crate) read: Vec<Found>,
    /// What has further names and could not be read: those are names of nothing.
    pub(crate) lost: Vec<TreePath>,
}

/// An entry, and where its bytes are.
pub(crate) enum Found {
    /// All is known.
    Whole(Entry),
    /// A file of the next so many bytes; its content is to be filled in.
    Small(Entry, ContentHash, usize),
}

/// What reading needs.
pub(crate) struct Reading<'a> {
    pub(crate) sealing: &'a Sealing<'a>,
    pub(crate) secrets: &'a Secrets,
    pub(crate) progress: &'a Progress,
}

/// A file that was read, and whether it kept still.
struct Contents {
    size: u64,
    what: What,
    stamp: Stamp,
}

enum What {
    Small(ContentHash, usize),
    Large(Content),
}

impl Reading<'_> {
    /// Reads a batch. What fails is left out and said; only the repository's errors
    /// are the caller's.
    pub(crate) fn read(&self, batch: Batch) -> Result<Outcome> {
        let mut outcome = Outcome {
            bytes: self.sealing.buffer(),
            read: Vec::with_capacity(batch.len()),
            lost: Vec::new(),
        };
        for item in batch {
            let from = outcome.bytes.len();
            let path = item.path.clone();
            let is_directory = FileType::from_raw_mode(item.stat.st_mode) == FileType::Directory;
            let has_names = item.stat.st_nlink > 1 && !is_directory;
            match self.read_item(item, &mut outcome.bytes) {
                Ok(found) => {
                    self.progress.entry();
                    outcome.read.push(found);
                }
                Err(Failed::Here(error)) => {
                    outcome.bytes.truncate(from);
                    self.progress.problem(&path, &format!("not saved: {error}"));
                    if has_names {
                        outcome.lost.push(path);
                    }
                }
                Err(Failed::Repository(error)) => return Err(error),
            }
        }
        Ok(outcome)
    }

    fn read_item(&self, item: Item, bytes: &mut Vec<u8>) -> Result<Found, Failed> {
        let Item {
            path,
            directory,
            name,
            stat,
            how,
        } = item;
        let before = match how {
            How::Known(entry) => {
                if let Kind::File { size, .. } = &entry.kind {
                    self.progress.unchanged(*size);
                }
                return Ok(Found::Whole(*entry));
            }
            How::Link(target) => {
                let meta = disk::meta(&stat);
                let kind = Kind::HardLink(target);
                return Ok(Found::Whole(Entry { path, meta, kind }));
            }
            How::Read(before) => before,
        };
        let mut meta = disk::meta(&stat);
        meta.stamp = self.secrets.stamp(&stat);
        let mut small = None;
        let (kind, pairs) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let mut file = disk::open_file(&*directory, &name)?;
                let Contents { size, what, stamp } = self.contents(&path, &mut file, bytes)?;
                meta.stamp = stamp;
                let content = match what {
                    What::Large(content) => content,
                    What::Small(hash, len) => match before.as_deref().map(|entry| &entry.kind) {
                        Some(Kind::File {
                            size: old,
                            content: content @ Content::Shared { hash: of_old, .. },
                        }) if *old == size && *of_old == hash => {
                            bytes.truncate(bytes.len() - len);
                            content.clone()
                        }
                        _ => {
                            small = Some((hash, len));
                            Content::Nothing
                        }
                    },
                };
                (Kind::File { size, content }, disk::attributes(&file)?)
            }
            FileType::Directory => {
                let opened = disk::open_directory(&*directory, &name)?;
                (Kind::Directory, disk::attributes(&opened)?)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&*directory, &*name, Vec::<u8>::new())
                    .map_err(io::Error::from)?;
                let kind = Kind::Symlink(target.into_bytes());
                (kind, disk::attributes_at(&*directory, &name)?)
            }
            _ => {
                let unknown = || io::Error::other("it is of a kind that cannot be saved");
                let kind = disk::special(&stat).ok_or_else(unknown)?;
                (kind, disk::attributes_at(&*directory, &name)?)
            }
        };
        meta.attributes = self.attributes(pairs)?;
        let entry = Entry { path, meta, kind };
        Ok(match small {
            Some((hash, len)) => Found::Small(entry, hash, len),
            None => Found::Whole(entry),
        })
    }

    fn attributes(&self, pairs: Pairs) -> Result<Attributes, Failed> {
        if pairs.is_empty() {
            return Ok(Attributes::None);
        }
        let mut encoded = Vec::new();
        put_attributes(&mut encoded, &pairs);
        if encoded.len() <= ATTRIBUTE_BYTES_MAX {
            return Ok(Attributes::Inline(pairs));
        }
        Ok(Attributes::Chunk(
            self.sealing.put(ChunkKind::Data, &encoded)?,
        ))
    }

    /// Reads a file until it keeps still meanwhile.
    fn contents(
        &self,
        path: &TreePath,
        file: &mut File,
        bytes: &mut Vec<u8>,
    ) -> Result<Contents, Failed> {
        let from = bytes.len();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let before = fstat(&*file).map_err(io::Error::from)?;
            if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
                return Err(io::Error::other("it is no longer a file").into());
            }
            let (size, what) = self.read_once(file, &before, bytes)?;
            let after = fstat(&*file).map_err(io::Error::from)?;
            let stamp = self.secrets.stamp(&after);
            let is_still = stamp == self.secrets.stamp(&before);
            if is_still || attempt == ATTEMPTS {
                self.progress.bytes(size);
                if !is_still {
                    let what = "saved, but it changed while it was read";
                    self.progress.problem(path, &what);
                }
                let stamp = if is_still { stamp } else { Stamp::default() };
                return Ok(Contents { size, what, stamp });
            }
            bytes.truncate(from);
            file.rewind()?;
        }
    }

    fn read_once(
        &self,
        file: &mut File,
        stat: &Stat,
        bytes: &mut Vec<u8>,
    ) -> Result<(u64, What), Failed> {
        let expected = u64::try_from(stat.st_size).unwrap_or_default();
        let stored = u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
        let is_sparse = stored < expected && expected >= SPARSE_BYTES_MIN;
        if expected > SMALL_BYTES_MAX || is_sparse {
            let (size, content) = self.read_large(file, is_sparse)?;
            return Ok((size, What::Large(content)));
        }
        let from = bytes.len();
        // One byte more than it should have tells whether it grew.
        let read = read_up_to(
            file,
            bytes,
            usize::try_from(expected).unwrap_or_default() + 1,
        )?;
        if read as u64 > expected {
            bytes.truncate(from);
            file.rewind()?;
            let (size, content) = self.read_large(file, false)?;
            return Ok((size, What::Large(content)));
        }
        let what = match read {
            0 => What::Large(Content::Nothing),
            len => What::Small(self.secrets.content(&bytes[from..]), len),
        };
        Ok((read as u64, what))
    }

    /// Reads a file into chunks of its own. Returns its size.
    fn read_large(&self, file: &mut File, is_sparse: bool) -> Result<(u64, Content), Failed> {
        let mut chunks = Chunks {
            sealing: self.sealing,
            map: FileMap::new(self.sealing),
            pending: VecDeque::new(),
            gap: 0,
        };
        let mut position = 0;
        if is_sparse {
            while let Some((begin, end)) = next_data(file, position)? {
                chunks.gap += begin - position;
                file.seek(SeekFrom::Start(begin))?;
                position = begin + self.cut(file, end - begin, &mut chunks)?;
                if position < end {
                    // It became shorter.
                    break;
                }
            }
            let size = fstat(&*file).map_err(io::Error::from)?.st_size;
            position = position.max(u64::try_from(size).unwrap_or_default());
        } else {
            position = self.cut(file, u64::MAX, &mut chunks)?;
        }
        Ok((position, chunks.finish()?))
    }

    /// Cuts what comes, at most `limit` bytes. Returns how many there were.
    fn cut(&self, file: &File, limit: u64, chunks: &mut Chunks<'_>) -> Result<u64, Failed> {
        let buffer = || {
            let mut buffer = self.sealing.buffer();
            // All that a chunk may need: memory that is not touched takes none.
            buffer.reserve(CHUNK_BYTES_MAX);
            buffer
        };
        let mut cutter = self.secrets.gear.cutter();
        let mut chunk = buffer();
        let mut total = 0;
        loop {
            let room = CHUNK_BYTES_MAX - chunk.len();
            let room = room.min(CHUNK_BYTES_MIN.saturating_sub(chunk.len()) + READ_BYTES);
            let wanted = usize::try_from(limit - total).map_or(room, |left| left.min(room));
            let read = read_up_to(file, &mut chunk, wanted)?;
            total += read as u64;
            while let Some(length) = cutter.cut(&chunk) {
                let mut next = buffer();
                next.extend_from_slice(&chunk[length..]);
                chunk.truncate(length);
                chunks.push(mem::replace(&mut chunk, next))?;
            }
            if read < wanted || total == limit {
                if chunk.is_empty() {
                    self.sealing.recycle(chunk);
                } else {
                    chunks.push(chunk)?;
                }
                return Ok(total);
            }
        }
    }
}

/// Appends up to `max` bytes and reads no further; fewer only at the end of the file.
pub(crate) fn read_up_to(file: &File, bytes: &mut Vec<u8>, max: usize) -> io::Result<usize> {
    let begin = bytes.len();
    let (mut end, limit) = (begin, begin + max);
    bytes.resize(limit, 0);
    while end < limit {
        match rustix::io::read(file, &mut bytes[end..]) {
            Ok(0) => break,
            Ok(read) => end += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(end);
    Ok(end - begin)
}

/// The next region that is no hole, from `position` on.
pub(crate) fn next_data(file: &File, position: u64) -> io::Result<Option<(u64, u64)>> {
    use rustix::fs::SeekFrom;
    let begin = match rustix::fs::seek(file, SeekFrom::Data(position)) {
        Ok(begin) => begin,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some((
        begin,
        rustix::fs::seek(file, SeekFrom::Hole(begin))?,
    )))
}

/// The chunks of one file, some of them on their way.
struct Chunks<'a> {
    sealing: &'a Sealing<'a>,
    map: FileMap<&'a Sealing<'a>>,
    pending: VecDeque<(u64, u64, Pending)>,
    /// The hole before the next chunk.
    gap: u64,
}

impl Chunks<'_> {
    fn push(&mut self, chunk: Vec<u8>) -> Result<()> {
        let length = chunk.len() as u64;
        let pending = self.sealing.seal(chunk)?;
        let gap = mem::take(&mut self.gap);
        self.pending.push_back((gap, length, pending));
        while self.pending.len() > PENDING_MAX {
            self.settle_first()?;
        }
        Ok(())
    }

    fn settle_first(&mut self) -> Result<()> {
        if let Some((gap, length, pending)) = self.pending.pop_front() {
            let chunk = self.sealing.wait(pending)?;
            self.map.push(Extent { gap, length, chunk })?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Content> {
        while !self.pending.is_empty() {
            self.settle_first()?;
        }
        self.map.finish()
    }
}

/// Why something was not read.
enum Failed {
    /// The file system said no.
    Here(io::Error),
    /// The repository did.
    Repository(Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Here(error)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Repository(error)
    }
}
