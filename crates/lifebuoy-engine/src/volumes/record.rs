//! What a recovery point says of a claim, or of an emptyDir, whose data was saved.

use std::fmt;

use lifebuoy_data::What;
use lifebuoy_repo::{ChunkId, SessionId};
use serde::{Deserialize, Serialize};

use crate::archive::ObjectKey;

/// A claim or an emptyDir whose data was saved, and where it is.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRecord {
    /// The claim, as it was captured; of an emptyDir, an
    /// [`empty_dir_key`](super::empty_dir_key).
    pub claim: ObjectKey,
    /// Its storage class; empty if it had none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub storage_class: String,
    /// What pods see of the volume.
    pub volume_mode: VolumeMode,
    /// How pods may have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_modes: Vec<String>,
    /// How large it was, in bytes; 0 for an emptyDir without a limit.
    pub capacity_bytes: u64,
    /// How it was saved.
    pub saved: SavedBy,
    /// Why in this way, for a person.
    pub reason: String,
}

impl VolumeRecord {
    /// How large a volume has to be for the data, in bytes. The sizes of files with holes may
    /// say more than a volume had that held them.
    #[must_use]
    pub fn needs_bytes(&self) -> u64 {
        let bytes = self.saved.bytes();
        match self.capacity_bytes {
            0 => bytes,
            capacity => bytes.min(capacity),
        }
    }
}

/// What pods see of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeMode {
    /// A directory.
    #[default]
    Filesystem,
    /// A device.
    Block,
}

impl VolumeMode {
    /// The word of Kubernetes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Filesystem => "Filesystem",
            Self::Block => "Block",
        }
    }
}

/// How the data of a volume was saved.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "way")]
pub enum SavedBy {
    /// From a snapshot of the storage system.
    Move(SavedData),
    /// From where a pod has it mounted.
    FileSystem(SavedData),
    /// Not in the repository: as a snapshot of the storage system, which is kept there.
    Snapshot(KeptSnapshot),
}

impl SavedBy {
    /// The way, as a rule of a Backup calls it.
    #[must_use]
    pub const fn way(&self) -> &'static str {
        match self {
            Self::Move(_) => "Move",
            Self::FileSystem(_) => "FileSystem",
            Self::Snapshot(_) => "Snapshot",
        }
    }

    /// Where the data is in the repository; nothing if it is not there.
    #[must_use]
    pub const fn data(&self) -> Option<&SavedData> {
        match self {
            Self::Move(data) | Self::FileSystem(data) => Some(data),
            Self::Snapshot(_) => None,
        }
    }

    /// The snapshot in the storage system, if that is where the data is.
    #[must_use]
    pub const fn kept(&self) -> Option<&KeptSnapshot> {
        match self {
            Self::Snapshot(kept) => Some(kept),
            Self::Move(_) | Self::FileSystem(_) => None,
        }
    }

    /// How many bytes come back; for a snapshot of the storage system, how large a volume
    /// of it is at least.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        match self {
            Self::Move(data) | Self::FileSystem(data) => data.bytes,
            Self::Snapshot(kept) => kept.restore_bytes,
        }
    }
}

/// Data in the storage system that it came from. Whatever becomes of that becomes of the
/// data.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KeptSnapshot {
    /// The CSI driver that made the snapshot.
    pub driver: String,
    /// What the driver calls it.
    pub handle: String,
    /// The VolumeSnapshotClass that it was made with.
    pub snapshot_class: String,
    /// How large a volume of it is at least, in bytes.
    pub restore_bytes: u64,
}

impl fmt::Display for KeptSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the snapshot `{}` of the driver `{}`",
            self.handle, self.driver
        )
    }
}

/// Data in the repository.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SavedData {
    /// The session that stored it.
    pub session: SessionId,
    /// The root of its tree or map; the recovery point keeps it.
    pub root: ChunkId,
    /// What it is.
    pub kind: What,
    /// Files, directories and whatever else; 1 for a device.
    pub entries: u64,
    /// The sizes of all files, or of the device.
    pub bytes: u64,
    /// Bytes that were new to the repository, as stored.
    pub bytes_stored: u64,
    /// What was not saved, or not as it stood at one moment.
    pub problems: u64,
}
