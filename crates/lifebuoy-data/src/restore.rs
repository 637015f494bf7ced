//! Restores a directory, a window of its tree at a time: all chunks of a window are
//! read once, in the order in which they are stored, and written by several threads.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use lifebuoy_repo::{ChunkId, Reader};
use tokio::runtime::Handle;

use crate::{
    clear::Clearing,
    cursor::{Cursor, attributes, find},
    delivery::{Piece, deliver, part, whole},
    entry::{Content, Entry, Kind, Meta, Pairs},
    error::{Error, Malformed, Result},
    manifest::{DataSummary, Manifest},
    map::{MapWalk, Placed, placed},
    path::TreePath,
    progress::Progress,
    save::threads,
    target::{Existing, Nearby, Target, reserve},
    verify::Chunks,
};

/// Entries that are restored together.
const WINDOW_ENTRIES: usize = 32 * 1024;
/// Chunks of one large file that are restored together.
const WINDOW_CHUNKS: usize = 4096;

/// What to restore, and where to.
#[derive(Debug)]
pub struct RestoreRequest {
    /// The root of the snapshot.
    pub root: ChunkId,
    /// What of it: this path and everything in it.
    pub path: TreePath,
    /// Where to.
    pub place: PathBuf,
    /// What may be there.
    pub existing: Existing,
}

/// Restores files.
///
/// # Errors
/// [`Error::NotOurs`] for a snapshot of something else, [`Error::NotThere`],
/// [`Error::NotEmpty`], [`Error::Place`], [`Error::Damaged`] if the tree itself is; or
/// one of the repository. What cannot be restored of it otherwise is a problem that
/// `progress` tells of.
pub async fn restore(
    reader: Arc<Reader>,
    request: RestoreRequest,
    progress: Arc<Progress>,
) -> Result<DataSummary> {
    let runtime = Handle::current();
    let present = (request.existing == Existing::Overwrite)
        .then(|| Chunks::new(Arc::clone(&reader), runtime.clone()));
    let work = move || {
        let restoring = Restoring::begin(reader, runtime, request, present, &progress)?;
        restoring.run()
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::Internal("a thread of the restore ended early"))?
}

struct Restoring<'a> {
    reader: Arc<Reader>,
    runtime: Handle,
    summary: DataSummary,
    root: ChunkId,
    path: TreePath,
    target: Target,
    /// Tells which files that are there hold the right bytes, where that is asked.
    present: Option<Chunks>,
    progress: &'a Progress,
    /// Bytes that files may yet have: no more than the summary says.
    budget: u64,
    /// First names that are not restored, and which names are restored in their place.
    outside: HashMap<TreePath, TreePath>,
    /// Directories that what comes next may be in, and those that are whole.
    open: Vec<Directory>,
    whole: Vec<Directory>,
    /// What ends the restore after the entries at hand: it was met where only an
    /// `io::Error` can be given.
    ends: Mutex<Option<Error>>,
}

struct Directory {
    path: TreePath,
    meta: Meta,
}

/// A file that comes from several chunks, or with holes.
struct Composed<'a> {
    entry: &'a Entry,
    /// What failed, if anything has.
    failure: Mutex<Option<String>>,
}

impl<'a> Restoring<'a> {
    fn begin(
        reader: Arc<Reader>,
        runtime: Handle,
        request: RestoreRequest,
        present: Option<Chunks>,
        progress: &'a Progress,
    ) -> Result<Self> {
        let RestoreRequest {
            root,
            path,
            place,
            existing,
        } = request;
        let plain = runtime.block_on(reader.get(&root))?;
        let Manifest {
            summary,
            tree,
            block_bytes,
            ..
        } = Manifest::from_bytes(&plain)?;
        let (Some(root), None) = (tree, block_bytes) else {
            return Err(Error::NotOurs {
                what: "it is one of a device".to_owned(),
            });
        };
        let first = runtime.block_on(find(&reader, root, &path))?;
        let target = match first.kind {
            Kind::Directory => Target::directory(&place, existing)?,
            _ => Target::file(&place, existing)?,
        };
        if path == TreePath::default() {
            progress.expect(summary.entries, summary.bytes);
        }
        Ok(Self {
            reader,
            runtime,
            budget: summary.bytes,
            summary,
            root,
            path,
            target,
            present,
            progress,
            outside: HashMap::new(),
            open: Vec::new(),
            whole: Vec::new(),
            ends: Mutex::default(),
        })
    }

    fn run(mut self) -> Result<DataSummary> {
        if self.present.is_some() {
            self.make_way()?;
        }
        self.progress.begin_to_write();
        let mut cursor = self.cursor();
        let mut window = Vec::new();
        while let Some(leaf) = self.runtime.block_on(cursor.next_leaf())? {
            for mut entry in leaf.entries {
                if self.resolve(&mut entry)? {
                    self.count(&entry)?;
                    entry.path = entry.path.below(&self.path);
                    window.push(entry);
                }
            }
            if window.len() >= WINDOW_ENTRIES {
                self.window(std::mem::take(&mut window))?;
            }
        }
        self.window(window)?;
        while let Some(directory) = self.open.pop() {
            self.whole.push(directory);
        }
        self.finish_directories();
        self.may_go_on()?;
        Ok(self.summary)
    }

    fn cursor(&self) -> Cursor {
        Cursor::within(Arc::clone(&self.reader), self.root, self.path.clone())
    }

    /// Removes what the snapshot does not hold, once it is known that this can be read to its
    /// end, and names nothing that the repository does not have.
    fn make_way(&self) -> Result<()> {
        self.each(|entry| self.is_whole(entry))?;
        self.progress.begin_to_write();
        let mut clearing = Clearing::new(&self.target, self.progress);
        self.each(|entry| {
            let path = entry.path.below(&self.path);
            clearing.keep(&path, entry.kind == Kind::Directory);
            Ok(())
        })?;
        clearing.finish();
        Ok(())
    }

    fn each(&self, mut look: impl FnMut(&Entry) -> Result<()>) -> Result<()> {
        let mut cursor = self.cursor();
        while let Some(leaf) = self.runtime.block_on(cursor.next_leaf())? {
            leaf.entries.iter().try_for_each(&mut look)?;
        }
        Ok(())
    }

    fn is_whole(&self, entry: &Entry) -> Result<()> {
        let Kind::File { content, .. } = &entry.kind else {
            return Ok(());
        };
        let extents = match content {
            Content::Extents(extents) => &extents[..],
            _ => &[],
        };
        let one = match content {
            Content::Shared { chunk, .. } | Content::Map(chunk) => Some(chunk),
            _ => None,
        };
        let mut chunks = one.into_iter().chain(extents.iter().map(|of| &of.chunk));
        match chunks.find(|chunk| !self.reader.contains(chunk)) {
            None => Ok(()),
            Some(chunk) => Err(Error::Damaged {
                chunk: *chunk,
                what: Malformed("the repository does not have it; nothing was changed"),
            }),
        }
    }

    /// A hard link to what is not restored is restored in its place, and further ones
    /// become names of that. Returns whether there is something to restore.
    fn resolve(&mut self, entry: &mut Entry) -> Result<bool> {
        let Kind::HardLink(first) = &entry.kind else {
            return Ok(true);
        };
        if first.is_within(&self.path) {
            entry.kind = Kind::HardLink(first.below(&self.path));
            return Ok(true);
        }
        if let Some(here) = self.outside.get(first) {
            entry.kind = Kind::HardLink(here.clone());
            return Ok(true);
        }
        let here = entry.path.below(&self.path);
        match self.runtime.block_on(find(&self.reader, self.root, first)) {
            Ok(found) if !matches!(found.kind, Kind::Directory | Kind::HardLink(_)) => {
                self.outside.insert(first.clone(), here);
                (entry.meta, entry.kind) = (found.meta, found.kind);
                Ok(true)
            }
            Ok(_) | Err(Error::NotThere { .. }) => {
                let what = "not restored: the snapshot does not hold what it is a name of";
                self.progress.problem(&here, &what);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// A snapshot that says less than there is in it is not what it seems.
    fn count(&mut self, entry: &Entry) -> Result<()> {
        if let Kind::File { size, .. } = &entry.kind {
            self.budget = self.budget.checked_sub(*size).ok_or(Error::Damaged {
                chunk: self.root,
                what: Malformed("the files are larger than the snapshot says"),
            })?;
        }
        Ok(())
    }

    fn window(&mut self, entries: Vec<Entry>) -> Result<()> {
        let mut nearby = Nearby::default();
        for entry in &entries {
            while let Some(last) = self.open.last()
                && !entry.path.is_within(&last.path)
            {
                self.whole.extend(self.open.pop());
            }
            if entry.kind == Kind::Directory {
                let made = self.target.make_directory(&entry.path, &mut nearby);
                self.done(&entry.path, made);
                self.open.push(Directory {
                    path: entry.path.clone(),
                    meta: entry.meta.clone(),
                });
            }
        }
        self.files(&entries)?;
        for entry in &entries {
            if !matches!(entry.kind, Kind::Directory | Kind::File { .. }) {
                let made = self
                    .attributes(&entry.meta)
                    .and_then(|pairs| self.target.make_special(entry, &pairs, &mut nearby));
                self.done(&entry.path, made);
            }
        }
        self.finish_directories();
        self.may_go_on()
    }

    fn done(&self, path: &TreePath, done: io::Result<()>) {
        match done {
            Ok(()) => self.progress.entry(),
            Err(error) => self.problem(path, &error),
        }
    }

    fn problem(&self, path: &TreePath, what: &impl std::fmt::Display) {
        self.progress
            .problem(path, &format!("not restored as it was: {what}"));
    }

    fn finish_directories(&mut self) {
        let mut nearby = Nearby::default();
        for Directory { path, meta } in std::mem::take(&mut self.whole) {
            let finished = self.attributes(&meta).and_then(|pairs| {
                self.target
                    .finish_directory(&path, &meta, &pairs, &mut nearby)
            });
            if let Err(error) = finished {
                self.problem(&path, &error);
            }
        }
    }

    /// Fails if something was met that everything else would meet, too.
    fn may_go_on(&mut self) -> Result<()> {
        let ends = self.ends.get_mut().unwrap_or_else(PoisonError::into_inner);
        ends.take().map_or(Ok(()), Err)
    }

    fn attributes(&self, meta: &Meta) -> io::Result<Pairs> {
        let pairs = attributes(&self.reader, meta);
        self.runtime.block_on(pairs).map_err(|error| {
            let said = io::Error::other(error.to_string());
            if !error.is_of_one_part() {
                let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
                ends.get_or_insert(error);
            }
            said
        })
    }

    /// Restores the files among these entries.
    fn files(&self, entries: &[Entry]) -> Result<()> {
        let mut nearby = Nearby::default();
        let mut simple = Vec::new();
        let mut composed = Vec::new();
        let mut pieces: HashMap<ChunkId, Vec<Piece>> = HashMap::new();
        let mut maps = Vec::new();
        let present = self.present(entries)?;
        for (at, entry) in entries.iter().enumerate() {
            let Kind::File { size, content } = &entry.kind else {
                continue;
            };
            if self.target.is_there(entry, &mut nearby) {
                self.progress.entry();
                self.progress.unchanged(*size);
                continue;
            }
            if present.contains(&at) {
                self.progress.unchanged(*size);
                self.done(&entry.path, self.finish_file(entry, &mut nearby));
                continue;
            }
            match content {
                Content::Shared { chunk, offset, .. } => {
                    let piece = Piece {
                        file: simple.len(),
                        begin: 0,
                        offset: *offset as usize,
                        length: usize::try_from(*size).unwrap_or(usize::MAX),
                    };
                    pieces.entry(*chunk).or_default().push(piece);
                    simple.push(entry);
                }
                Content::Map(root) => maps.push((entry, *root)),
                Content::Extents(_) | Content::Nothing => composed.push(entry),
            }
        }
        self.simple_files(&simple, pieces)?;
        self.composed_files(&composed)?;
        for (entry, root) in maps {
            self.mapped_file(entry, root)?;
        }
        Ok(())
    }

    /// The numbers of the files whose bytes are there already: each was read.
    fn present(&self, entries: &[Entry]) -> Result<HashSet<usize>> {
        let Some(chunks) = &self.present else {
            return Ok(HashSet::new());
        };
        let (next, found) = (AtomicUsize::new(0), Mutex::new(HashSet::new()));
        let look = || {
            let mut nearby = Nearby::default();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(entry) = entries.get(at) else {
                    return Ok(());
                };
                if self.is_present(chunks, entry, &mut nearby)? {
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.insert(at);
                }
            }
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads()).map(|_| scope.spawn(look)).collect();
            workers.into_iter().try_for_each(|worker| {
                let lost = Error::Internal("a thread of the restore ended early");
                worker.join().unwrap_or(Err(lost))
            })
        })?;
        Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_present(&self, chunks: &Chunks, entry: &Entry, nearby: &mut Nearby) -> Result<bool> {
        let Kind::File { size, content } = &entry.kind else {
            return Ok(false);
        };
        let seems = self.target.seems_there(entry, nearby);
        let Ok(true) = seems else {
            return Ok(false);
        };
        match self.target.read_file(&entry.path, nearby) {
            Ok(file) => chunks.are_in(&file, *size, content),
            Err(_) => Ok(false),
        }
    }

    /// Gives a file whose bytes are there everything else that it has.
    fn finish_file(&self, entry: &Entry, nearby: &mut Nearby) -> io::Result<()> {
        let pairs = self.attributes(&entry.meta)?;
        let opened = self.target.open_file(&entry.path, nearby)?;
        self.target.finish(&opened, &entry.meta, &pairs)
    }

    /// Files that are in one chunk each: whole with one visit.
    fn simple_files(&self, files: &[&Entry], pieces: HashMap<ChunkId, Vec<Piece>>) -> Result<()> {
        self.deliver(pieces, |plain, piece, nearby| {
            let entry = files[piece.file];
            let written = plain.and_then(|plain| {
                let bytes = part(plain, piece)?;
                let file = self.target.make_file(&entry.path, 0, nearby)?;
                file.write_all_at(bytes, 0)?;
                let pairs = self.attributes(&entry.meta)?;
                self.target.finish(&file, &entry.meta, &pairs)
            });
            if written.is_ok() {
                self.progress.bytes(piece.length as u64);
            }
            self.done(&entry.path, written);
        })
    }

    fn composed_files(&self, entries: &[&Entry]) -> Result<()> {
        let mut nearby = Nearby::default();
        let mut files: Vec<Composed<'_>> = Vec::new();
        let mut pieces: HashMap<ChunkId, Vec<Piece>> = HashMap::new();
        for &entry in entries {
            let Kind::File { size, content } = &entry.kind else {
                continue;
            };
            let parts: Vec<Placed> = match content {
                Content::Extents(extents) => placed(extents).collect(),
                _ => Vec::new(),
            };
            match self.begin_file(entry, *size, &parts, &mut nearby) {
                Ok(_) => {}
                Err(error) => {
                    self.problem(&entry.path, &error);
                    continue;
                }
            }
            for part in parts {
                pieces
                    .entry(part.chunk)
                    .or_default()
                    .push(Piece::of(files.len(), &part));
            }
            files.push(Composed {
                entry,
                failure: Mutex::default(),
            });
        }
        self.deliver(pieces, |plain, piece, nearby| {
            let file = &files[piece.file];
            let written = plain.and_then(|plain| {
                let bytes = whole(plain, piece)?;
                let opened = self.target.open_file(&file.entry.path, nearby)?;
                opened.write_all_at(bytes, piece.begin)
            });
            match written {
                Ok(()) => self.progress.bytes(piece.length as u64),
                Err(error) => file.fail(&error),
            }
        })?;
        for file in files {
            self.end_file(&file, &mut nearby);
        }
        Ok(())
    }

    /// Makes a file and takes the room that it needs.
    fn begin_file(
        &self,
        entry: &Entry,
        size: u64,
        parts: &[Placed],
        nearby: &mut Nearby,
    ) -> io::Result<File> {
        let file = self.target.make_file(&entry.path, size, nearby)?;
        for part in parts {
            reserve(&file, part.begin, part.length)?;
        }
        Ok(file)
    }

    fn end_file(&self, file: &Composed<'_>, nearby: &mut Nearby) {
        let Composed { entry, failure } = file;
        let failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
        let finished = match &*failure {
            // Without its time it is not taken for whole.
            Some(what) => Err(io::Error::other(what.clone())),
            None => self.finish_file(entry, nearby),
        };
        self.done(&entry.path, finished);
    }

    /// A file that has a map, some chunks at a time.
    fn mapped_file(&self, entry: &Entry, root: ChunkId) -> Result<()> {
        let Kind::File { size, .. } = &entry.kind else {
            return Ok(());
        };
        let mut nearby = Nearby::default();
        let made = match self.begin_file(entry, *size, &[], &mut nearby) {
            Ok(made) => made,
            Err(error) => {
                self.problem(&entry.path, &error);
                return Ok(());
            }
        };
        let file = Composed {
            entry,
            failure: Mutex::default(),
        };
        let mut walk = MapWalk::new(Arc::clone(&self.reader), root, *size);
        loop {
            let parts = match self.runtime.block_on(some(&mut walk)) {
                Ok(parts) => parts,
                Err(error) if error.is_of_one_part() => {
                    file.fail(&error);
                    break;
                }
                Err(error) => return Err(error),
            };
            if parts.is_empty() {
                break;
            }
            self.write_parts(&made, &parts, &file)?;
        }
        drop(made);
        self.end_file(&file, &mut nearby);
        Ok(())
    }

    fn write_parts(&self, made: &File, parts: &[Placed], file: &Composed<'_>) -> Result<()> {
        let mut pieces: HashMap<ChunkId, Vec<Piece>> = HashMap::new();
        for part in parts {
            if let Err(error) = reserve(made, part.begin, part.length) {
                file.fail(&error);
                return Ok(());
            }
            let piece = Piece::of(0, part);
            pieces.entry(part.chunk).or_default().push(piece);
        }
        self.deliver(pieces, |plain, piece, _| {
            let written =
                plain.and_then(|plain| made.write_all_at(whole(plain, piece)?, piece.begin));
            match written {
                Ok(()) => self.progress.bytes(piece.length as u64),
                Err(error) => file.fail(&error),
            }
        })
    }

    /// Reads chunks in the order in which they are stored, and hands each to one of
    /// several threads.
    fn deliver(
        &self,
        pieces: HashMap<ChunkId, Vec<Piece>>,
        write: impl Fn(io::Result<&[u8]>, &Piece, &mut Nearby) + Sync,
    ) -> Result<()> {
        deliver(&self.reader, &self.runtime, pieces, &write)
    }
}

/// The next chunks of a map.
pub(crate) async fn some(walk: &mut MapWalk) -> Result<Vec<Placed>> {
    let mut parts = Vec::new();
    while parts.len() < WINDOW_CHUNKS
        && let Some(part) = walk.next().await?
    {
        parts.push(part);
    }
    Ok(parts)
}

impl Composed<'_> {
    fn fail(&self, what: &impl ToString) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| what.to_string());
    }
}
