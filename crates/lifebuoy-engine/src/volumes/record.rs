//! What a recovery point says of a claim, or of an emptyDir, whose data was saved.

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
}

impl SavedBy {
    /// The way, as a rule of a Backup calls it.
    #[must_use]
    pub const fn way(&self) -> &'static str {
        match self {
            Self::Move(_) => "Move",
            Self::FileSystem(_) => "FileSystem",
        }
    }

    /// Where the data is in the repository.
    #[must_use]
    pub const fn data(&self) -> &SavedData {
        match self {
            Self::Move(data) | Self::FileSystem(data) => data,
        }
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
