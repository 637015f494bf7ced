//! What a snapshot's root chunk and end record say. `docs/format-data.md`.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use lifebuoy_repo::ChunkId;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The newest version of manifest, nodes and maps that this program reads.
const VERSION: u32 = 1;
/// How every manifest begins.
const BEGINNING: &[u8] = b"{\"data\":";

/// What was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// A directory or file, with everything in it.
    Files,
    /// A block device, or the image of one.
    Device,
}

/// What the end record says of a snapshot, without reading anything else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataSummary {
    /// The version of this record.
    pub data: u32,
    /// What was saved.
    pub kind: What,
    /// On which machine.
    pub host: String,
    /// Where it was there.
    pub path: String,
    /// When it was begun, by the clock of that machine.
    pub taken_at: DateTime<Utc>,
    /// Files, directories and whatever else is in it; 1 for a device.
    pub entries: u64,
    /// The sizes of all files, or of the device.
    pub bytes: u64,
    /// How many things were not saved, or not as they stood at one moment.
    pub problems: u64,
}

/// Something that was not saved, or not as it stood at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Where, as it is shown to people.
    pub path: String,
    /// What happened.
    pub what: String,
}

/// A snapshot's root chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) data: u32,
    pub(crate) summary: DataSummary,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tree: Option<ChunkId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) block_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) problems: Vec<Problem>,
}

impl DataSummary {
    /// One that says nothing yet of what is in the snapshot.
    #[must_use]
    pub fn new(kind: What, host: String, path: String, taken_at: DateTime<Utc>) -> Self {
        Self {
            data: VERSION,
            kind,
            host,
            path,
            taken_at,
            entries: 0,
            bytes: 0,
            problems: 0,
        }
    }

    /// Whether these bytes are the summary of a snapshot of files or of a device, of
    /// whatever version.
    #[must_use]
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(BEGINNING)
    }

    /// The summary as it goes into the end record.
    ///
    /// # Errors
    /// None in practice: every field has a JSON form.
    pub fn to_bytes(&self) -> Result<Bytes> {
        to_bytes(self)
    }

    /// Reads a summary.
    ///
    /// # Errors
    /// [`Error::NotOurs`] for a newer version, or anything that is no summary.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        from_bytes(bytes)
    }

    /// Whether one of this snapshot's successors is like `other`.
    #[must_use]
    pub fn is_of_one_line(&self, other: &Self) -> bool {
        self.lineage() == other.lineage()
    }

    /// What is equal in snapshots that follow one another.
    pub(crate) fn lineage(&self) -> (What, &str, &str) {
        (self.kind, &self.host, &self.path)
    }
}

impl Manifest {
    /// Whether a root chunk is a manifest of this crate, of whatever version.
    pub(crate) fn is_one(plain: &[u8]) -> bool {
        plain.starts_with(BEGINNING)
    }

    pub(crate) fn to_bytes(&self) -> Result<Bytes> {
        to_bytes(self)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        from_bytes(bytes)
    }
}

fn to_bytes(value: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| not_ours(&error))
}

fn not_ours(error: &serde_json::Error) -> Error {
    Error::NotOurs {
        what: error.to_string(),
    }
}

fn from_bytes<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    #[derive(Deserialize)]
    struct Versioned {
        data: u32,
    }
    let found: Versioned = serde_json::from_slice(bytes).map_err(|error| not_ours(&error))?;
    if found.data != VERSION {
        return Err(Error::NotOurs {
            what: format!(
                "it is of version {}, this program reads {VERSION}",
                found.data
            ),
        });
    }
    serde_json::from_slice(bytes).map_err(|error| not_ours(&error))
}
