//! What a plan asks about the target cluster, and the answers. Values only:
//! the asking is in [`super::target`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Key;
use crate::archive::TypeId;
use crate::discovery::ServedType;
use crate::volumes::VolumeMode;

/// What has to be known of the target before a plan can be made.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The types, and of each the keys that would be written. Sorted by type.
    pub types: Vec<WantedType>,
    /// The namespaces that would be written to.
    pub namespaces: BTreeSet<String>,
    /// Claims whose volumes are overwritten if they exist.
    pub claims: BTreeSet<Key>,
}

/// The keys of one type that would be written.
#[derive(Clone, Debug)]
pub struct WantedType {
    /// The type.
    pub id: TypeId,
    /// Its kind.
    pub kind: String,
    /// The version it was captured in; the target may serve others.
    pub version: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// The keys in the target cluster, sorted, each once.
    pub keys: Vec<Key>,
}

impl WantedType {
    /// Whether this object of the target is asked about.
    #[must_use]
    pub fn contains(&self, namespace: &str, name: &str) -> bool {
        self.get(namespace, name).is_some()
    }

    /// The key with these texts, if it is asked about.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Key> {
        self.keys
            .binary_search_by(|key| (&*key.namespace, &*key.name).cmp(&(namespace, name)))
            .ok()
            .map(|at| &self.keys[at])
    }
}

/// Everything that is known of the target before planning.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// The types that it serves.
    pub served: Vec<ServedType>,
    /// Its version, as in `v1.36.3`.
    pub kubernetes_version: String,
    /// Which of the wanted objects exist.
    pub existing: ExistingObjects,
    /// Wanted types that could not be listed, with the reason. Nothing is
    /// known about their objects, which is not the same as that there are none.
    pub unreadable: BTreeMap<TypeId, String>,
    /// All namespaces.
    pub namespaces: BTreeMap<String, NamespacePhase>,
    /// The names of the storage classes. `None` when they could not be listed.
    pub storage_classes: Option<BTreeSet<String>>,
    /// What the wanted claims are like that exist.
    pub claims: HashMap<Key, ExistingClaim>,
}

/// The wanted objects that exist in the target, by type and key.
#[derive(Clone, Debug, Default)]
pub struct ExistingObjects(BTreeMap<TypeId, HashMap<Key, Existing>>);

impl ExistingObjects {
    /// Notes that an object exists.
    pub fn insert(&mut self, of: &TypeId, key: Key, existing: Existing) {
        match self.0.get_mut(of) {
            Some(objects) => objects.insert(key, existing),
            None => self.0.entry(of.clone()).or_default().insert(key, existing),
        };
    }

    /// What is known of an object; `None` when it does not exist.
    #[must_use]
    pub fn get(&self, of: &TypeId, key: &Key) -> Option<&Existing> {
        self.0.get(of)?.get(key)
    }

    /// How many exist.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().map(HashMap::len).sum()
    }

    /// Whether none exists.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.values().all(HashMap::is_empty)
    }
}

/// An object that exists in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Existing {
    /// Whether it carries the stamp of this very restore.
    pub ours: bool,
}

/// A PersistentVolumeClaim of the target, as far as it matters to whoever wants to write to
/// its volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExistingClaim {
    /// The volume that it is bound to, if it is.
    pub volume: Option<String>,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether it belongs to a pod, and goes with it.
    pub of_pod: bool,
    /// What pods see of the volume.
    pub mode: VolumeMode,
    /// How large the volume is, in bytes, if it says so.
    pub capacity_bytes: Option<u64>,
}

/// Where a namespace is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespacePhase {
    /// Objects can be created in it.
    Active,
    /// It is being deleted.
    Terminating,
}
