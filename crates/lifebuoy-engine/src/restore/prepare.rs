//! One captured object in, what is to be written out. Pure: the same object,
//! rules and context always give the same result, when the plan is made and
//! when it is carried out.

use std::borrow::Cow;
use std::collections::BTreeSet;

use lifebuoy_api::{RESTORED_BY_ANNOTATION, Reason};
use serde_json::Value;

use super::map::Mapper;
use super::rules::Rules;
use super::{kinds, transform};
use crate::archive::{ArchivedObject, ObjectKey, TypeId, TypeRecord};

/// What one object has to know about others.
#[derive(Clone, Debug, Default)]
pub struct Context {
    restore_uid: Option<String>,
    volumes: BTreeSet<String>,
    status_is_data: BTreeSet<TypeId>,
}

impl Context {
    /// A context that knows nothing yet. Objects are stamped with the uid of
    /// the restore, if there is one.
    #[must_use]
    pub fn new(restore_uid: Option<&str>) -> Self {
        Self {
            restore_uid: restore_uid.map(str::to_owned),
            ..Self::default()
        }
    }

    /// Claims may keep naming this PersistentVolume: it is restored as well.
    pub fn keep_volume(&mut self, name: &str) {
        self.volumes.insert(name.to_owned());
    }

    /// The `status` of objects of this type is data.
    pub fn keep_status(&mut self, of: TypeId) {
        self.status_is_data.insert(of);
    }

    pub(crate) fn keeps_volume(&self, name: &str) -> bool {
        self.volumes.contains(name)
    }

    pub(crate) fn keeps_status(&self, of: &TypeId) -> bool {
        self.status_is_data.contains(of)
    }
}

/// What became of one captured object.
#[derive(Clone, Debug)]
pub enum Prepared {
    /// It is to be written.
    Write(Box<Draft>),
    /// The selection does not take it.
    NotSelected,
    /// It is never restored, because of what it is; the text says what.
    Leave(Cow<'static, str>),
    /// It was to be written, but that is not possible.
    Broken(Reason, String),
}

/// An object as it is to be written.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The captured `apiVersion`; a plan may choose another version.
    pub api_version: String,
    /// Where it is written.
    pub target: ObjectKey,
    /// What is written: no uid, no resourceVersion, no owner references.
    pub body: Value,
    /// Its owners in the source cluster. They are put into the body when their
    /// new uids are known.
    pub owners: Vec<OwnerRef>,
    /// What a person may want to know.
    pub notes: Vec<String>,
    /// The hash of the body without the stamp, and of the owners.
    pub hash: [u8; 16],
}

/// A reference to an owner, as captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRef {
    /// The owner's `apiVersion`.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name in the source cluster.
    pub name: String,
    /// The owner's uid in the source cluster.
    pub uid: String,
    /// Whether the owner is the object's controller.
    pub controller: bool,
    /// Whether the owner's deletion waits for the object's.
    pub block_owner_deletion: bool,
}

impl OwnerRef {
    /// The group of the owner; empty for the core group.
    #[must_use]
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }
}

/// What is to be written for one captured object.
#[must_use]
pub fn prepare(rules: &Rules, context: &Context, t: &TypeRecord, object: &ArchivedObject) -> Prepared {
    let _ = (rules, context, t, object);
    Prepared::NotSelected
}
