//! The root of a snapshot: which types there are, how faithfully each was read,
//! and what is missing.

use bytes::Bytes;
use lifebuoy_api::{Problem, Selection, VolumePolicy};
use lifebuoy_repo::ChunkId;
use serde::{Deserialize, Serialize};

use super::{ObjectKey, TypeId};
use crate::{Error, point::PointSummary, volumes::VolumeRecord};

/// The newest version of the manifest that this program reads.
pub const MANIFEST_VERSION: u32 = 3;
/// The version without the data of volumes. A program that knows no other would take
/// that data for garbage.
const WITHOUT_VOLUMES: u32 = 1;
/// The version with the data of volumes in the repository. A program that knows no other
/// cannot read that some is elsewhere.
const IN_REPOSITORY: u32 = 2;

/// What a snapshot's root chunk holds, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The version of the manifest and of the nodes and segments below it.
    pub version: u32,
    /// What the end record says as well.
    pub summary: PointSummary,
    /// The revision of the cluster's store at which `Exact` types were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// What was asked for.
    pub selection: Selection,
    /// What was asked for about the data of PersistentVolumeClaims.
    pub volumes: VolumePolicy,
    /// The operator's own namespace, whose contents were left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_namespace: Option<String>,
    /// Every PersistentVolumeClaim whose data was not saved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes_not_saved: Vec<ObjectKey>,
    /// Every PersistentVolumeClaim whose data was saved, and where it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes_saved: Vec<VolumeRecord>,
    /// Every type in the selection, by group and resource.
    pub types: Vec<TypeRecord>,
    /// API groups that were down.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unavailable_groups: Vec<UnavailableGroup>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// An API group that was down when the backup was taken. What it serves is not
/// known: its absence means nothing.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct UnavailableGroup {
    /// The API group.
    pub group: String,
    /// The version that was down.
    pub version: String,
    /// What discovery said.
    pub message: String,
}

/// One captured type.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TypeRecord {
    /// The API group; empty for the core group.
    pub group: String,
    /// The version in which the objects were read.
    pub version: String,
    /// Every version that the cluster served, the preferred one first.
    pub served_versions: Vec<String>,
    /// The kind.
    pub kind: String,
    /// The resource in the plural.
    pub resource: String,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// How faithfully it was read.
    pub fidelity: Fidelity,
    /// The revision at which it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// How many of its objects were captured.
    pub objects: u64,
    /// The bytes of both columns.
    pub bytes: u64,
    /// The root of its search tree; none when no object was captured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<ChunkId>,
}

impl TypeRecord {
    /// The type's name.
    #[must_use]
    pub fn id(&self) -> TypeId {
        TypeId::new(&*self.group, &*self.resource)
    }

    /// `group/version`, or the version alone for the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// How faithfully a type was read.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    tag = "state"
)]
pub enum Fidelity {
    /// At the revision of all other exact types.
    Exact,
    /// Completely, but not at that revision.
    Fuzzy {
        /// Why, and at which revision instead.
        reason: String,
    },
    /// Not at all. That says nothing about what there was.
    Unavailable {
        /// Why.
        reason: String,
    },
}

impl Manifest {
    /// The version of a manifest with these volumes: no newer than need be, so that
    /// older programs read what they can.
    #[must_use]
    pub fn version_for(volumes: &[VolumeRecord]) -> u32 {
        if volumes.is_empty() {
            WITHOUT_VOLUMES
        } else if volumes.iter().all(|volume| volume.saved.data().is_some()) {
            IN_REPOSITORY
        } else {
            MANIFEST_VERSION
        }
    }

    /// The manifest as it is stored.
    ///
    /// # Errors
    /// None in practice: every field has a JSON form.
    pub fn to_bytes(&self) -> Result<Bytes, Error> {
        serde_json::to_vec(self)
            .map(Bytes::from)
            .map_err(|error| Error::Internal(format!("cannot write a manifest: {error}")))
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`Error::TooNew`] for a newer version, [`Error::Damaged`] for anything
    /// that is no manifest.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let damaged =
            |error: serde_json::Error| Error::damaged("a snapshot's manifest", error.to_string());
        let found: Versioned = serde_json::from_slice(bytes).map_err(damaged)?;
        if found.version > MANIFEST_VERSION {
            return Err(Error::TooNew {
                what: "a snapshot's manifest".to_owned(),
                found: found.version,
                known: MANIFEST_VERSION,
            });
        }
        serde_json::from_slice(bytes).map_err(damaged)
    }

    /// The record of a type, if it was in the selection.
    #[must_use]
    pub fn find(&self, id: &TypeId) -> Option<&TypeRecord> {
        self.types
            .iter()
            .find(|t| t.group == id.group && t.resource == id.resource)
    }
}
