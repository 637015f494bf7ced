//! Reads back what a restore has written and compares it with the snapshot: bytes by the
//! hashes that the snapshot has of them, so that no data is fetched again. Writes nothing.

use std::{
    fmt,
    fs::File,
    io::{self, Seek, SeekFrom},
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use crossbeam_channel::{Receiver, Sender, bounded};
use lifebuoy_repo::{CHUNK_BYTES_MAX, ChunkId, Reader};
use rustix::fs::{Advice, FileType, Stat};
use tokio::runtime::Handle;

use crate::{
    cursor::{Cursor, attributes, find},
    disk,
    entry::{Content, Entry, Kind, Meta},
    error::{Error, Result},
    manifest::Manifest,
    map::{MapWalk, Placed, placed},
    path::TreePath,
    progress::Progress,
    reading::next_data,
    save::threads,
    secrets::{SECRET, Secrets},
    target::{Existing, Nearby, Target},
};

/// Entries that wait to be compared.
const ENTRIES_AHEAD: usize = 1024;
/// What is read at one time where zeros are expected, in bytes.
const ZEROS_BYTES: u64 = 64 * 1024;

/// What was restored, and where to.
#[derive(Debug)]
pub struct VerifyRequest {
    /// The root of the snapshot.
    pub root: ChunkId,
    /// What of it: this path and everything in it. All of it, if it is one of a device.
    pub path: TreePath,
    /// Where to.
    pub place: PathBuf,
}

/// Compares what is at a place with a snapshot, in all that a restore brings back.
///
/// # Errors
/// [`Error::NotThere`], [`Error::Place`] if the place cannot be opened, [`Error::Damaged`]
/// if the tree is; or one of the repository. What differs is a problem that `progress`
/// tells of.
pub async fn verify(
    reader: Arc<Reader>,
    request: VerifyRequest,
    progress: Arc<Progress>,
) -> Result<()> {
    let chunks = Chunks::new(reader, Handle::current());
    tokio::task::spawn_blocking(move || compare(chunks, request, &progress))
        .await
        .map_err(|_| LOST)?
}

const LOST: Error = Error::Internal("a thread of the comparison ended early");

fn compare(chunks: Chunks, request: VerifyRequest, progress: &Progress) -> Result<()> {
    let VerifyRequest { root, path, place } = request;
    let plain = chunks.runtime.block_on(chunks.reader.get(&root))?;
    let manifest = Manifest::from_bytes(&plain)?;
    if path == TreePath::default() {
        progress.expect(manifest.summary.entries, manifest.summary.bytes);
    }
    match (manifest.tree, manifest.block_bytes) {
        (tree, Some(_)) => device(&chunks, tree, manifest.summary.bytes, &place, progress),
        (Some(root), None) => Tree::open(chunks, root, path, &place, progress)?.compare(),
        (None, None) => Err(Error::NotOurs {
            what: "it has no tree".to_owned(),
        }),
    }
}

fn device(
    chunks: &Chunks,
    map: Option<ChunkId>,
    size: u64,
    place: &Path,
    progress: &Progress,
) -> Result<()> {
    let failed = |what| Error::place(what, place);
    let mut file = File::open(place).map_err(failed("open"))?;
    let has = file.seek(SeekFrom::End(0)).map_err(failed("measure"))?;
    file.sync_all().map_err(failed("write to"))?;
    let same = if has < size {
        Err(Fault::Differs(format!("it has {has} bytes, not {size}")))
    } else {
        forget_cached(&file);
        chunks.mapped(&file, map, size, progress)
    };
    finish(same, &TreePath::default(), progress)
}

/// Tells of what differs. What ends all is an error.
fn finish(same: Result<(), Fault>, path: &TreePath, progress: &Progress) -> Result<()> {
    match same {
        Ok(()) => progress.entry(),
        Err(Fault::Ends(error)) => return Err(error),
        Err(fault) => progress.problem(path, &format!("not as in the snapshot: {fault}")),
    }
    Ok(())
}

/// Why something was not found equal.
enum Fault {
    /// It is another.
    Differs(String),
    /// It, or what the snapshot has of it, cannot be read.
    Unreadable(String),
    /// Nothing further can be compared.
    Ends(Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs(what) => f.write_str(what),
            Self::Unreadable(what) => write!(f, "it cannot be read: {what}"),
            Self::Ends(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        if error.is_of_one_part() {
            Self::Unreadable(error.to_string())
        } else {
            Self::Ends(error)
        }
    }
}

fn check(is_same: bool, what: impl Into<String>) -> Result<(), Fault> {
    if is_same {
        Ok(())
    } else {
        Err(Fault::Differs(what.into()))
    }
}

/// So that the disk is asked, and not the memory that was written to.
fn forget_cached(file: &File) {
    // Some file systems cannot: then what memory holds is compared.
    let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
}

/// Compares bytes with chunks.
pub(crate) struct Chunks {
    reader: Arc<Reader>,
    runtime: Handle,
    secrets: Secrets,
}

impl Chunks {
    pub(crate) fn new(reader: Arc<Reader>, runtime: Handle) -> Self {
        Self {
            secrets: Secrets::derive(&reader.chunk_id(SECRET)),
            reader,
            runtime,
        }
    }

    /// Whether a file holds the bytes of an entry; no if that cannot be told.
    ///
    /// # Errors
    /// One of the repository after which nothing further can be compared.
    pub(crate) fn are_in(&self, file: &File, size: u64, content: &Content) -> Result<bool> {
        forget_cached(file);
        match self.is_content(file, size, content, &Progress::default()) {
            Ok(()) => Ok(true),
            Err(Fault::Ends(error)) => Err(error),
            Err(Fault::Differs(_) | Fault::Unreadable(_)) => Ok(false),
        }
    }

    fn is_content(
        &self,
        file: &File,
        size: u64,
        content: &Content,
        progress: &Progress,
    ) -> Result<(), Fault> {
        let mut end = 0;
        match content {
            Content::Nothing => {}
            Content::Shared { hash, .. } => {
                let bytes = read(file, 0, size)?;
                check(
                    self.secrets.content(&bytes) == *hash,
                    "its bytes are others",
                )?;
                end = size;
            }
            Content::Extents(extents) => {
                for part in placed(extents) {
                    self.part(file, &part, &mut end)?;
                }
            }
            Content::Map(root) => return self.mapped(file, Some(*root), size, progress),
        }
        zeros(file, end, size)?;
        progress.bytes(size);
        Ok(())
    }

    fn mapped(
        &self,
        file: &File,
        map: Option<ChunkId>,
        size: u64,
        progress: &Progress,
    ) -> Result<(), Fault> {
        let mut end = 0;
        if let Some(root) = map {
            let mut walk = MapWalk::new(Arc::clone(&self.reader), root, size);
            while let Some(part) = self.runtime.block_on(walk.next())? {
                self.part(file, &part, &mut end)?;
                progress.bytes(part.length);
            }
        }
        zeros(file, end, size)
    }

    /// The zeros before a part that begin at `end`, and the part.
    fn part(&self, file: &File, part: &Placed, end: &mut u64) -> Result<(), Fault> {
        zeros(file, *end, part.begin)?;
        *end = part.begin + part.length;
        let bytes = read(file, part.begin, part.length)?;
        check(
            self.reader.chunk_id(&bytes) == part.chunk,
            format!("its bytes {}..{end} are others", part.begin),
        )
    }
}

/// A part of a file that is no longer than a chunk.
fn read(file: &File, begin: u64, length: u64) -> Result<Vec<u8>, Fault> {
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= CHUNK_BYTES_MAX)
        .ok_or_else(|| Fault::Unreadable("the snapshot is damaged: a part is too long".into()))?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, begin)?;
    Ok(bytes)
}

fn zeros(file: &File, begin: u64, end: u64) -> Result<(), Fault> {
    let mut position = begin;
    while position < end {
        // A device has no holes, or says that it cannot tell.
        let data = next_data(file, position).unwrap_or(Some((position, end)));
        let (data_begin, data_end) = data.unwrap_or((end, end));
        position = data_begin.clamp(position, end);
        while position < data_end.min(end) {
            let length = (data_end.min(end) - position).min(ZEROS_BYTES);
            let bytes = read(file, position, length)?;
            check(
                bytes.iter().all(|byte| *byte == 0),
                format!("it has data where zeros belong, from byte {position} on"),
            )?;
            position += length;
        }
    }
    Ok(())
}

/// A tree on disk, and the one in the snapshot.
struct Tree<'a> {
    chunks: Chunks,
    root: ChunkId,
    path: TreePath,
    target: Target,
    progress: &'a Progress,
}

impl<'a> Tree<'a> {
    fn open(
        chunks: Chunks,
        root: ChunkId,
        path: TreePath,
        place: &Path,
        progress: &'a Progress,
    ) -> Result<Self> {
        let failed = |what| Error::place(what, place);
        let first = chunks.runtime.block_on(find(&chunks.reader, root, &path))?;
        let there = place.symlink_metadata().map_err(failed("find"))?;
        let target = match first.kind {
            Kind::Directory => Target::directory(place, Existing::Resume)?,
            _ => Target::file(place, Existing::Resume)?,
        };
        if there.is_dir() || there.is_file() {
            // So that nothing is left to write when memory is told to forget it.
            let opened = File::open(place).map_err(failed("open"))?;
            rustix::fs::syncfs(&opened).map_err(|error| failed("write to")(error.into()))?;
        }
        Ok(Self {
            chunks,
            root,
            path,
            target,
            progress,
        })
    }

    fn compare(&self) -> Result<()> {
        let (to_compare, entries) = bounded::<Entry>(ENTRIES_AHEAD);
        thread::scope(|scope| {
            let work = || {
                let entries = entries.clone();
                scope.spawn(move || self.compare_all(&entries))
            };
            let workers: Vec<_> = (0..threads()).map(|_| work()).collect();
            drop(entries);
            let walked = self.walk(to_compare);
            for worker in workers {
                worker.join().unwrap_or(Err(LOST))?;
            }
            walked
        })
    }

    fn walk(&self, to_compare: Sender<Entry>) -> Result<()> {
        let reader = Arc::clone(&self.chunks.reader);
        let mut cursor = Cursor::within(reader, self.root, self.path.clone());
        while let Some(leaf) = self.chunks.runtime.block_on(cursor.next_leaf())? {
            for mut entry in leaf.entries {
                self.resolve(&mut entry)?;
                entry.path = entry.path.below(&self.path);
                if to_compare.send(entry).is_err() {
                    // All who compare have ended, with an error.
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// A hard link to what was not restored is compared with that.
    fn resolve(&self, entry: &mut Entry) -> Result<()> {
        let Kind::HardLink(first) = &entry.kind else {
            return Ok(());
        };
        if first.is_within(&self.path) {
            entry.kind = Kind::HardLink(first.below(&self.path));
            return Ok(());
        }
        let found = find(&self.chunks.reader, self.root, first);
        let found = self.chunks.runtime.block_on(found)?;
        (entry.meta, entry.kind) = (found.meta, found.kind);
        Ok(())
    }

    fn compare_all(&self, entries: &Receiver<Entry>) -> Result<()> {
        let mut nearby = Nearby::default();
        for entry in entries {
            let same = self.compare_one(&entry, &mut nearby);
            finish(same, &entry.path, self.progress)?;
        }
        Ok(())
    }

    fn compare_one(&self, entry: &Entry, nearby: &mut Nearby) -> Result<(), Fault> {
        let (above, name) = self.target.locate(&entry.path, nearby)?;
        let there = disk::stat(&*above, name)?;
        if let Kind::HardLink(first) = &entry.kind {
            let (directory, old) = self.target.locate(first, &mut Nearby::default())?;
            let first_there = disk::stat(&*directory, old)?;
            let is_same = (there.st_dev, there.st_ino) == (first_there.st_dev, first_there.st_ino);
            return check(is_same, format!("it is not the same file as {first}"));
        }
        is_kind(entry, &there, &above, name)?;
        let has = disk::attributes_at(&*above, name)?;
        let wanted = attributes(&self.chunks.reader, &entry.meta);
        let wanted = self.chunks.runtime.block_on(wanted)?;
        let is_same = wanted.iter().all(|pair| has.contains(pair));
        check(is_same, "its extended attributes are others")?;
        is_meta(entry, &there)?;
        let Kind::File { size, content } = &entry.kind else {
            return Ok(());
        };
        let file = disk::open_file(&*above, name)?;
        forget_cached(&file);
        self.chunks.is_content(&file, *size, content, self.progress)
    }
}

fn is_kind(entry: &Entry, there: &Stat, above: &OwnedFd, name: &[u8]) -> Result<(), Fault> {
    let kind = FileType::from_raw_mode(there.st_mode);
    match &entry.kind {
        Kind::Directory => check(kind == FileType::Directory, "it is no directory"),
        Kind::File { size, .. } => {
            check(kind == FileType::RegularFile, "it is no file")?;
            let is_same = u64::try_from(there.st_size) == Ok(*size);
            check(
                is_same,
                format!("it has {} bytes, not {size}", there.st_size),
            )
        }
        Kind::Symlink(says) => {
            check(kind == FileType::Symlink, "it is no symbolic link")?;
            let found = rustix::fs::readlinkat(above, name, Vec::new());
            let found = found.map_err(io::Error::from)?;
            check(found.as_bytes() == says, "it points to something else")
        }
        special => check(
            disk::special(there).as_ref() == Some(special),
            "it is of another kind",
        ),
    }
}

fn is_meta(entry: &Entry, there: &Stat) -> Result<(), Fault> {
    let Meta {
        mode,
        uid,
        gid,
        modified,
        stamp: _,
        attributes: _,
    } = disk::meta(there);
    let wanted = &entry.meta;
    let is_link = matches!(entry.kind, Kind::Symlink(_));
    check(is_link || mode == wanted.mode, "its mode is another")?;
    // Nobody else could restore them.
    let owners = rustix::process::geteuid().is_root();
    let is_same = !owners || (uid, gid) == (wanted.uid, wanted.gid);
    check(is_same, "its owner or group is another")?;
    check(modified == wanted.modified, "its time is another")
}
