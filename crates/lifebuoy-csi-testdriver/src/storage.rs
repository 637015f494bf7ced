//! Volumes and snapshots, as subvolumes and files of a btrfs in a sparse file.
//!
//! The files are all it knows: there is no state in memory. A volume or a
//! snapshot is a folder with `record.json` and its content, named after what
//! the caller calls it, and appears and goes by one rename. Never mounts a
//! volume for a pod.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::command::{CommandError, run};
use crate::mounts;

/// How large the sparse file is, in bytes: more than any test writes.
const IMAGE_BYTES: u64 = 64 << 30;
/// The size of a volume for which none is asked, in bytes.
const CAPACITY_DEFAULT_BYTES: u64 = 1 << 30;
/// Marks what is being made or removed; a start removes what it finds.
const UNFINISHED: &str = ".unfinished-";
const RECORD: &str = "record.json";
const TREE: &str = "tree";

/// Why a request cannot be fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// There is no such volume or snapshot.
    #[error("there is no {what} {id:?}")]
    NotFound {
        /// Volume or snapshot.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The name belongs to another one.
    #[error("the name {0:?} belongs to one that differs")]
    Exists(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// The size does not fit.
    #[error("a volume of {asked} bytes cannot be made where {needed} are needed")]
    TooSmall {
        /// The most that the request allows.
        asked: u64,
        /// The size of the content.
        needed: u64,
    },
    /// A page of a list that was never given.
    #[error("the list has no page {0:?}")]
    Page(String),
    /// A tool failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A record that was not written here.
    #[error("{} is no record", path.display())]
    Record {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// What a volume is to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// A file system.
    Filesystem,
    /// A block device.
    Block,
}

/// What a volume is to be.
#[derive(Clone, Debug)]
pub(crate) struct NewVolume {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// At least so many bytes.
    pub(crate) required_bytes: u64,
    /// At most so many bytes; 0 is no limit.
    pub(crate) limit_bytes: u64,
    /// The snapshot whose content it has.
    pub(crate) snapshot: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) capacity_bytes: u64,
    pub(crate) snapshot: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) volume: String,
    pub(crate) kind: Kind,
    pub(crate) size_bytes: u64,
    /// Since 1970.
    pub(crate) taken: Duration,
}

/// A mounted storage.
#[derive(Debug)]
pub(crate) struct Storage {
    root: PathBuf,
    /// The name of the file that a Block volume is.
    disk_name: String,
}

impl Storage {
    /// Mounts the storage below `folder`, made if it is not there.
    pub(crate) fn open(folder: &Path, disk_name: &str) -> Result<Self, StorageError> {
        let root = folder.join("mounted");
        create_folder(&root)?;
        if !mounts::is_mounted(&root)? {
            let image = folder.join("storage.btrfs");
            if !image.exists() {
                make_image(&image)?;
            }
            let image = image.as_os_str();
            // Its loop device goes with the mount, however that ends.
            run(
                "mount",
                ["-o".as_ref(), "loop".as_ref(), image, root.as_os_str()],
            )?;
        }
        let storage = Self {
            root,
            disk_name: disk_name.to_owned(),
        };
        for folder in [storage.volumes(), storage.snapshots()] {
            create_folder(&folder)?;
            remove_unfinished(&folder)?;
        }
        Ok(storage)
    }

    fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Makes a volume; makes nothing if an equal one has this name.
    pub(crate) fn create_volume(&self, new: NewVolume) -> Result<Volume, StorageError> {
        let source = match &new.snapshot {
            None => None,
            Some(id) => Some(self.snapshot(id)?),
        };
        if source
            .as_ref()
            .is_some_and(|source| source.kind != new.kind)
        {
            return Err(StorageError::Invalid(
                "a volume must be of its snapshot's mode",
            ));
        }
        let needed = source.as_ref().map_or(0, |source| source.size_bytes);
        let id = id_of(&new.name);
        if let Some(existing) = find::<Volume>(&self.volumes(), &id)? {
            return existing.fits(&new, needed);
        }
        let volume = Volume {
            capacity_bytes: capacity(&new, needed)?,
            id,
            name: new.name,
            kind: new.kind,
            snapshot: new.snapshot,
        };
        add(&self.volumes(), &volume.id, &volume, |folder| {
            match &source {
                Some(source) => {
                    let from = self.snapshots().join(&source.id);
                    self.copy(volume.kind, &from, folder)?;
                }
                None if volume.kind == Kind::Filesystem => {
                    let tree = folder.join(TREE);
                    run(
                        "btrfs",
                        ["subvolume".as_ref(), "create".as_ref(), tree.as_os_str()],
                    )?;
                }
                None => {
                    let disk = folder.join(&self.disk_name);
                    File::create(&disk).map_err(at(&disk))?;
                }
            }
            if volume.kind == Kind::Block {
                let disk = folder.join(&self.disk_name);
                let file = File::options().write(true).open(&disk).map_err(at(&disk))?;
                file.set_len(volume.capacity_bytes).map_err(at(&disk))?;
            }
            Ok(())
        })?;
        Ok(volume)
    }

    /// The volume with this id.
    pub(crate) fn volume(&self, id: &str) -> Result<Volume, StorageError> {
        let found = find(&self.volumes(), id)?;
        found.ok_or_else(|| StorageError::NotFound {
            what: "volume",
            id: id.to_owned(),
        })
    }

    /// The directory that a Filesystem volume is.
    pub(crate) fn tree(&self, volume: &Volume) -> PathBuf {
        self.volumes().join(&volume.id).join(TREE)
    }

    /// The file that a Block volume is.
    pub(crate) fn disk(&self, volume: &Volume) -> PathBuf {
        self.volumes().join(&volume.id).join(&self.disk_name)
    }

    /// Removes a volume, if it is there.
    pub(crate) fn delete_volume(&self, id: &str) -> Result<(), StorageError> {
        remove(&self.volumes(), id)
    }

    /// Takes a snapshot; takes none if the volume has one of this name.
    pub(crate) fn create_snapshot(
        &self,
        volume: &str,
        name: &str,
    ) -> Result<Snapshot, StorageError> {
        let id = id_of(name);
        if let Some(existing) = find::<Snapshot>(&self.snapshots(), &id)? {
            if existing.volume != volume {
                return Err(StorageError::Exists(name.to_owned()));
            }
            return Ok(existing);
        }
        let volume = self.volume(volume)?;
        if volume.kind == Kind::Block {
            mounts::flush(&self.disk(&volume))?;
        }
        let snapshot = Snapshot {
            id,
            name: name.to_owned(),
            kind: volume.kind,
            size_bytes: volume.capacity_bytes,
            taken: now(),
            volume: volume.id,
        };
        add(&self.snapshots(), &snapshot.id, &snapshot, |folder| {
            let from = self.volumes().join(&snapshot.volume);
            self.copy(snapshot.kind, &from, folder)
        })?;
        Ok(snapshot)
    }

    /// The snapshot with this id.
    pub(crate) fn snapshot(&self, id: &str) -> Result<Snapshot, StorageError> {
        let found = find(&self.snapshots(), id)?;
        found.ok_or_else(|| StorageError::NotFound {
            what: "snapshot",
            id: id.to_owned(),
        })
    }

    /// All snapshots, by their ids.
    pub(crate) fn list_snapshots(&self) -> Result<Vec<Snapshot>, StorageError> {
        let mut snapshots: Vec<Snapshot> = list(&self.snapshots())?;
        snapshots.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(snapshots)
    }

    /// All volumes.
    pub(crate) fn list_volumes(&self) -> Result<Vec<Volume>, StorageError> {
        list(&self.volumes())
    }

    /// The directory or the file that a volume is.
    pub(crate) fn content(&self, id: &str) -> Result<PathBuf, StorageError> {
        let volume = self.volume(id)?;
        Ok(match volume.kind {
            Kind::Filesystem => self.tree(&volume),
            Kind::Block => self.disk(&volume),
        })
    }

    /// Removes a snapshot, if it is there.
    pub(crate) fn delete_snapshot(&self, id: &str) -> Result<(), StorageError> {
        remove(&self.snapshots(), id)
    }

    /// Copies the content of a folder into another: of one instant, sharing its
    /// blocks.
    fn copy(&self, kind: Kind, from: &Path, to: &Path) -> Result<(), StorageError> {
        match kind {
            Kind::Filesystem => {
                let (from, to) = (from.join(TREE), to.join(TREE));
                let words = ["subvolume".as_ref(), "snapshot".as_ref()];
                run(
                    "btrfs",
                    words.into_iter().chain([from.as_os_str(), to.as_os_str()]),
                )?;
            }
            Kind::Block => {
                let (from, to) = (from.join(&self.disk_name), to.join(&self.disk_name));
                run(
                    "cp",
                    [
                        "--reflink=always".as_ref(),
                        from.as_os_str(),
                        to.as_os_str(),
                    ],
                )?;
            }
        }
        Ok(())
    }
}

/// Reads the record of a volume or snapshot, if it is there.
fn find<T: DeserializeOwned>(folder: &Path, id: &str) -> Result<Option<T>, StorageError> {
    if !is_id(id) {
        return Ok(None);
    }
    let path = folder.join(id).join(RECORD);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StorageError::File { path, source }),
    };
    match serde_json::from_slice(&text) {
        Ok(record) => Ok(Some(record)),
        Err(source) => Err(StorageError::Record { path, source }),
    }
}

/// Reads the records of all that is in a folder.
fn list<T: DeserializeOwned>(folder: &Path) -> Result<Vec<T>, StorageError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let name = entry.map_err(at(folder))?.file_name();
        found.extend(find(folder, &name.to_string_lossy())?);
    }
    Ok(found)
}

impl Volume {
    /// Itself, if it is what the request would make.
    fn fits(self, new: &NewVolume, needed: u64) -> Result<Self, StorageError> {
        let large_enough = self.capacity_bytes >= new.required_bytes.max(needed);
        let small_enough = new.limit_bytes == 0 || self.capacity_bytes <= new.limit_bytes;
        let same = self.kind == new.kind && self.snapshot == new.snapshot;
        if large_enough && small_enough && same {
            return Ok(self);
        }
        Err(StorageError::Exists(self.name))
    }
}

/// The size that a new volume gets, in bytes, whose content takes `needed`.
fn capacity(new: &NewVolume, needed: u64) -> Result<u64, StorageError> {
    let limit = match new.limit_bytes {
        0 => u64::MAX,
        limit => limit,
    };
    let least = new.required_bytes.max(needed);
    if least > limit {
        return Err(StorageError::TooSmall {
            asked: limit,
            needed: least,
        });
    }
    match least {
        0 => Ok(CAPACITY_DEFAULT_BYTES.min(limit)),
        least => Ok(least),
    }
}

/// The same name gives the same id, and no name gives an odd one.
fn id_of(name: &str) -> String {
    blake3::hash(name.as_bytes()).to_hex()[..32].to_owned()
}

/// Whether it may be the name of a folder here.
fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[allow(
    clippy::disallowed_methods,
    reason = "the storage system says when its snapshots were taken"
)]
fn now() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

fn make_image(image: &Path) -> Result<(), StorageError> {
    // Under another name until it is complete.
    let unfinished = image.with_extension("unfinished");
    let file = File::create(&unfinished).map_err(at(&unfinished))?;
    file.set_len(IMAGE_BYTES).map_err(at(&unfinished))?;
    run("mkfs.btrfs", ["--quiet".as_ref(), unfinished.as_os_str()])?;
    fs::rename(&unfinished, image).map_err(at(image))
}

/// Adds a folder with a record, filled by `fill`, in one step.
fn add<T: Serialize>(
    folder: &Path,
    id: &str,
    record: &T,
    fill: impl FnOnce(&Path) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let unfinished = folder.join(format!("{UNFINISHED}{id}"));
    remove_folder(&unfinished)?;
    create_folder(&unfinished)?;
    fill(&unfinished)?;
    let path = unfinished.join(RECORD);
    let text = serde_json::to_vec(record).map_err(|source| StorageError::Record {
        path: path.clone(),
        source,
    })?;
    fs::write(&path, text).map_err(at(&path))?;
    fs::rename(&unfinished, folder.join(id)).map_err(at(&unfinished))
}

fn remove(folder: &Path, id: &str) -> Result<(), StorageError> {
    if !is_id(id) {
        return Ok(());
    }
    let unfinished = folder.join(format!("{UNFINISHED}{id}"));
    match fs::rename(folder.join(id), &unfinished) {
        Ok(()) => remove_folder(&unfinished),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at(&unfinished)(error)),
    }
}

fn remove_unfinished(folder: &Path) -> Result<(), StorageError> {
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let entry = entry.map_err(at(folder))?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            remove_folder(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_folder(folder: &Path) -> Result<(), StorageError> {
    let tree = folder.join(TREE);
    if tree.is_dir() {
        run(
            "btrfs",
            ["subvolume".as_ref(), "delete".as_ref(), tree.as_os_str()],
        )?;
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(at(folder)(error)),
        _ => Ok(()),
    }
}

fn create_folder(path: &Path) -> Result<(), StorageError> {
    fs::create_dir_all(path).map_err(at(path))
}

pub(crate) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> StorageError + '_ {
    move |source| StorageError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(required_bytes: u64, limit_bytes: u64) -> NewVolume {
        NewVolume {
            name: "pvc-1".to_owned(),
            kind: Kind::Filesystem,
            required_bytes,
            limit_bytes,
            snapshot: None,
        }
    }

    #[test]
    fn a_volume_is_as_large_as_asked_and_as_its_content() {
        assert_eq!(capacity(&new(10, 0), 0).unwrap(), 10);
        assert_eq!(capacity(&new(10, 0), 30).unwrap(), 30);
        assert_eq!(capacity(&new(0, 5), 0).unwrap(), 5);
        assert_eq!(capacity(&new(0, 0), 0).unwrap(), CAPACITY_DEFAULT_BYTES);
        assert!(matches!(
            capacity(&new(0, 20), 30),
            Err(StorageError::TooSmall {
                asked: 20,
                needed: 30
            })
        ));
    }

    #[test]
    fn no_id_leads_out_of_the_folder() {
        assert!(is_id(&id_of("../../etc")));
        assert!(!is_id("../../etc") && !is_id("") && !is_id(&format!("{UNFINISHED}1")));
    }
}
