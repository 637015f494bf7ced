//! Goes through a directory in the order of paths, and tells what has to be read.
//! Holds one open directory a level and a bounded number of names of each.

use std::{collections::HashMap, io, os::fd::OwnedFd, path::Path, sync::Arc};

use rustix::{
    fs::{FileType, Stat},
    io::Errno,
};

use crate::{
    before::Before,
    disk::{self, Names},
    entry::{Entry, Kind, Stamp},
    error::{Error, Result},
    excludes::Excludes,
    path::TreePath,
    progress::Progress,
    reading::{Batch, How, Item, SMALL_BYTES_MAX},
    secrets::Secrets,
};

/// A batch is full with so many items, or bytes of small files, or directories that
/// they are in: each of these is an open file.
const BATCH_ITEMS_MAX: usize = 128;
const BATCH_BYTES_MAX: u64 = 1024 * 1024;
const BATCH_DIRECTORIES_MAX: usize = 16;

/// Where a walk through a directory is.
pub(crate) struct Scan<'a> {
    pub(crate) secrets: &'a Secrets,
    pub(crate) progress: &'a Progress,
    pub(crate) excludes: &'a Excludes,
    pub(crate) before: Option<Before<'a>>,
    /// Only what is on this device is saved.
    device: Option<u64>,
    open: Vec<Open>,
    /// The first names of files that have several, and how many have not been seen.
    links: HashMap<(u64, u64), (TreePath, u64)>,
    root: Option<Item>,
}

struct Open {
    directory: Arc<OwnedFd>,
    path: TreePath,
    names: Names,
}

impl<'a> Scan<'a> {
    /// At the beginning of what is at `place`.
    pub(crate) fn new(
        place: &Path,
        one_file_system: bool,
        secrets: &'a Secrets,
        progress: &'a Progress,
        excludes: &'a Excludes,
        before: Option<Before<'a>>,
    ) -> Result<Self> {
        let (directory, name) = open_above(place)?;
        let stat = disk::stat(&directory, &name).map_err(Error::place("read", place))?;
        Ok(Self {
            secrets,
            progress,
            excludes,
            before,
            device: one_file_system.then_some(stat.st_dev),
            open: Vec::new(),
            links: HashMap::new(),
            root: Some(Item {
                path: TreePath::default(),
                directory: Arc::new(directory),
                name,
                stat,
                how: How::Read(None),
            }),
        })
    }

    /// The next items; none at the end.
    pub(crate) fn next_batch(&mut self) -> Result<Option<Batch>> {
        let mut batch = Batch::new();
        let mut bytes = 0;
        let mut directories = 0;
        while batch.len() < BATCH_ITEMS_MAX
            && bytes < BATCH_BYTES_MAX
            && directories < BATCH_DIRECTORIES_MAX
        {
            let Some(item) = self.next()? else { break };
            let is_next_to = |last: &Item| Arc::ptr_eq(&last.directory, &item.directory);
            directories += usize::from(!batch.last().is_some_and(is_next_to));
            if matches!(item.how, How::Read(_)) {
                let size = u64::try_from(item.stat.st_size).unwrap_or_default();
                // A large one takes its time: nothing small waits behind it.
                bytes += if size > SMALL_BYTES_MAX {
                    BATCH_BYTES_MAX
                } else {
                    size
                };
            }
            batch.push(item);
        }
        Ok((!batch.is_empty()).then_some(batch))
    }

    fn next(&mut self) -> Result<Option<Item>> {
        loop {
            let mut item = match self.root.take() {
                Some(root) => root,
                None => match self.next_found()? {
                    Some(item) => item,
                    None => return Ok(None),
                },
            };
            let is_directory = FileType::from_raw_mode(item.stat.st_mode) == FileType::Directory;
            if self.excludes.excludes(&item.path, is_directory) {
                continue;
            }
            item.how = self.how(&item.path, &item.stat)?;
            if is_directory && let Err(error) = self.enter(&item) {
                self.progress
                    .problem(&item.path, &format!("not saved: {error}"));
                if item.path.as_bytes().is_empty() {
                    return Err(Error::place("read", ".")(error));
                }
                continue;
            }
            return Ok(Some(item));
        }
    }

    fn enter(&mut self, item: &Item) -> io::Result<()> {
        if self.device.is_some_and(|device| device != item.stat.st_dev) {
            // The mount point itself is saved, as an empty directory.
            return Ok(());
        }
        let directory = disk::open_directory(&*item.directory, &item.name)?;
        self.open.push(Open {
            names: Names::of(&directory)?,
            directory: Arc::new(directory),
            path: item.path.clone(),
        });
        Ok(())
    }

    /// The next name in the innermost open directory.
    fn next_found(&mut self) -> Result<Option<Item>> {
        while let Some(open) = self.open.last_mut() {
            let name = match open.names.next(&*open.directory) {
                Ok(Some(name)) => name,
                Ok(None) => {
                    self.open.pop();
                    continue;
                }
                Err(error) => {
                    let what = format!("what is in it was not saved: {error}");
                    self.progress.problem(&open.path, &what);
                    self.open.pop();
                    continue;
                }
            };
            let path = match open.path.join(&name) {
                Ok(path) => path,
                Err(error) => {
                    self.progress
                        .problem(&open.path, &format!("not saved: {error}"));
                    continue;
                }
            };
            match disk::stat(&*open.directory, &name) {
                Ok(stat) => {
                    return Ok(Some(Item {
                        path,
                        directory: Arc::clone(&open.directory),
                        name,
                        stat,
                        how: How::Read(None),
                    }));
                }
                // It is gone: as if it had been before.
                Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
                Err(error) => self.progress.problem(&path, &format!("not saved: {error}")),
            }
        }
        Ok(None)
    }

    fn how(&mut self, path: &TreePath, stat: &Stat) -> Result<How> {
        if let Some(target) = self.link(path, stat) {
            return Ok(How::Link(target));
        }
        let Some(entry) = self.known(path)? else {
            return Ok(How::Read(None));
        };
        let entry = Box::new(entry);
        Ok(if is_unchanged(&entry, self.secrets.stamp(stat), stat) {
            How::Known(entry)
        } else {
            How::Read(Some(entry))
        })
    }

    /// What was at this path, if all of it may be built on. What follows damage in the
    /// snapshot before is as if it had not been there.
    fn known(&mut self, path: &TreePath) -> Result<Option<Entry>> {
        let Some(before) = &mut self.before else {
            return Ok(None);
        };
        match before.usable_at(path) {
            Err(error) if error.is_lasting() => {
                self.progress.warn(format!(
                    "what follows {path} is read, as the snapshot before cannot be: {error}"
                ));
                self.before = None;
                Ok(None)
            }
            known => known,
        }
    }

    /// The first name of a file that has several, if this is another one.
    fn link(&mut self, path: &TreePath, stat: &Stat) -> Option<TreePath> {
        #[allow(
            clippy::useless_conversion,
            reason = "its width depends on the machine"
        )]
        let names = u64::from(stat.st_nlink);
        if names < 2 || FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return None;
        }
        let file = (stat.st_dev, stat.st_ino);
        let Some((first, left)) = self.links.get_mut(&file) else {
            self.links.insert(file, (path.clone(), names - 1));
            return None;
        };
        *left -= 1;
        if *left == 0 {
            return self.links.remove(&file).map(|(first, _)| first);
        }
        Some(first.clone())
    }
}

/// Whether an entry is as it was. All metadata but the attributes is compared in any
/// case; they cannot change without the time of change in the stamp.
fn is_unchanged(entry: &Entry, stamp: Stamp, stat: &Stat) -> bool {
    let mut meta = disk::meta(stat);
    meta.stamp = stamp;
    meta.attributes = entry.meta.attributes.clone();
    let kind = FileType::from_raw_mode(stat.st_mode);
    let is_same_kind = match &entry.kind {
        Kind::Directory => kind == FileType::Directory,
        Kind::File { size, .. } => {
            kind == FileType::RegularFile && u64::try_from(stat.st_size) == Ok(*size)
        }
        Kind::Symlink(_) => kind == FileType::Symlink,
        // Cheap to look at again.
        _ => false,
    };
    is_same_kind && stamp != Stamp::default() && meta == entry.meta
}

/// Opens the directory that a path is in, links on the way and at its end followed:
/// a person named it.
fn open_above(place: &Path) -> Result<(OwnedFd, Box<[u8]>)> {
    let real = place.canonicalize().map_err(Error::place("read", place))?;
    let above = real.parent().unwrap_or(&real);
    let name = real
        .file_name()
        .map_or(&b"."[..], |name| name.as_encoded_bytes());
    let directory = std::fs::File::open(above).map_err(Error::place("read", above))?;
    Ok((directory.into(), name.into()))
}
