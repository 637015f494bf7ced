//! One captured object in, what is to be written out. Pure: the same object,
//! rules and context always give the same result, when the plan is made and
//! when it is carried out.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lifebuoy_api::{ClusterScoped, ExistingPolicy, RESTORED_BY_ANNOTATION, Reason};
use serde_json::{Map, Value};

use super::kinds;
use super::map::is_label;
use super::rules::Rules;
use super::transform::CompiledTransform;
use crate::archive::{ArchivedObject, Manifest, ObjectKey, TypeId, TypeRecord};
use crate::volumes::{self, Filling, VolumeRecord};

/// What one object has to know about others.
#[derive(Clone, Debug, Default)]
pub struct Context {
    restore_uid: Option<String>,
    volumes: BTreeSet<String>,
    status_is_data: BTreeSet<TypeId>,
    /// Claims whose data was saved, by their source keys.
    saved: Arc<BTreeMap<ObjectKey, VolumeRecord>>,
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

    /// Claims are filled with the data that this manifest says was saved of them.
    pub fn fill_from(&mut self, manifest: &Manifest) {
        let saved = manifest.volumes_saved.iter();
        self.saved = Arc::new(saved.map(|of| (of.claim.clone(), of.clone())).collect());
    }

    /// What was saved of the claim, if it is one.
    pub(crate) fn data_of(&self, t: &TypeRecord, key: &ObjectKey) -> Option<&VolumeRecord> {
        is_claim(t).then(|| self.saved.get(key)).flatten()
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
    /// Its uid in the source cluster.
    pub uid: String,
    /// What happens to it if it exists, by the rules.
    pub policy: ExistingPolicy,
    /// How many bytes of saved data a claim is filled with; of a snapshot in the storage
    /// system, how large a volume of it is at least.
    pub fills: Option<u64>,
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
        self.api_version
            .split_once('/')
            .map_or("", |(group, _)| group)
    }
}

/// What is to be written for one captured object.
#[must_use]
pub fn prepare(
    rules: &Rules,
    context: &Context,
    t: &TypeRecord,
    object: &ArchivedObject,
) -> Prepared {
    if !may_be_selected(rules, t, &object.key) {
        return Prepared::NotSelected;
    }
    let read = object.body().and_then(|body| {
        let volatile = if kinds::need_volatile(t, context) {
            object.volatile()?
        } else {
            Map::new()
        };
        Ok((body, volatile))
    });
    match read {
        Ok((body, volatile)) if has_identity(&body, object) => {
            write(rules, context, t, object, body, &volatile)
        }
        Ok(_) => Prepared::Broken(
            Reason::MalformedObject,
            "the archive holds another object under this name".to_owned(),
        ),
        Err(error) => Prepared::Broken(Reason::MalformedObject, error.to_string()),
    }
}

/// Whether the selection can take the object, by its type and key.
pub(crate) fn may_be_selected(rules: &Rules, t: &TypeRecord, key: &ObjectKey) -> bool {
    let selector = &rules.selector;
    if is_namespace(t) {
        return selector.namespace(&key.name) && !selector.resource_excluded(&t.group, &t.resource);
    }
    if t.namespaced {
        return selector.resource(&t.group, &t.resource) && selector.namespace(&key.namespace);
    }
    match selector.cluster_scoped() {
        ClusterScoped::None => false,
        ClusterScoped::Auto if !selector.all_namespaces() => {
            !selector.resource_excluded(&t.group, &t.resource)
        }
        ClusterScoped::Auto | ClusterScoped::All => selector.resource(&t.group, &t.resource),
    }
}

/// Whether the selection's label selector is asked about objects of the type:
/// it is not about namespaces, nor about what they need.
fn labels_matter(rules: &Rules, t: &TypeRecord) -> bool {
    let added = !t.namespaced
        && rules.selector.cluster_scoped() == ClusterScoped::Auto
        && !rules.selector.all_namespaces();
    !is_namespace(t) && !added
}

pub(crate) fn is_namespace(t: &TypeRecord) -> bool {
    t.group.is_empty() && t.kind == "Namespace"
}

pub(crate) fn is_claim(t: &TypeRecord) -> bool {
    t.group.is_empty() && t.kind == "PersistentVolumeClaim"
}

fn has_identity(body: &Value, object: &ArchivedObject) -> bool {
    let metadata = &body["metadata"];
    metadata["name"].as_str() == Some(&*object.key.name)
        && metadata["namespace"].as_str().unwrap_or_default() == &*object.key.namespace
}

fn write(
    rules: &Rules,
    context: &Context,
    t: &TypeRecord,
    object: &ArchivedObject,
    mut body: Value,
    volatile: &Map<String, Value>,
) -> Prepared {
    let labels = &body["metadata"]["labels"];
    if labels_matter(rules, t) && !rules.selector.labels_by(|key| labels[key].as_str()) {
        return Prepared::NotSelected;
    }
    if let Some(stand_in) = rules
        .mapper
        .replaced_class(&t.group, &t.kind, &object.key.name)
    {
        return Prepared::Leave(format!("`{stand_in}` of the target takes its place").into());
    }
    // What matches is decided by the object as it was captured.
    let policy = rules.policy(t, object, &body);
    let transforms: Vec<(usize, &CompiledTransform)> = rules
        .transforms
        .iter()
        .enumerate()
        .filter(|(_, transform)| transform.matches(t, object, &body))
        .collect();
    let uid = body["metadata"]["uid"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let data = context
        .data_of(t, &object.key)
        .filter(|_| rules.fills)
        .map(|record| (record, volumes::requested(&body)));
    let mut notes = Vec::new();
    let mut subject = kinds::Subject {
        t,
        object,
        context,
        volatile,
        notes: &mut notes,
    };
    if let kinds::Verdict::Leave(why) = kinds::apply(&mut subject, &mut body) {
        return Prepared::Leave(why);
    }
    let owners = kinds::take_owners(&mut body);
    notes.extend(rules.mapper.map(&t.group, &t.kind, &mut body));
    for (index, transform) in transforms {
        if let Err(message) = transform.apply(&mut body) {
            return Prepared::Broken(
                Reason::TransformFailed,
                format!("spec.transforms[{index}].{message}"),
            );
        }
    }
    match target_key(t, &body) {
        Err(message) => Prepared::Broken(Reason::TransformFailed, message),
        Ok(target) => {
            let filled = data.map(|(record, asked)| fill(&mut body, asked, record, &mut notes));
            let fills = match filled.transpose() {
                Ok(fills) => fills.flatten(),
                Err(message) => return Prepared::Broken(Reason::VolumeDoesNotFit, message),
            };
            let hash = hash(&body, &owners);
            stamp(&mut body, context.restore_uid.as_deref());
            if let (Some(_), Some(uid)) = (fills, &context.restore_uid) {
                volumes::ask_by_name(&mut body, uid, &target);
            }
            Prepared::Write(Box::new(Draft {
                api_version: t.api_version(),
                target,
                body,
                owners,
                notes,
                hash,
                uid,
                policy,
                fills,
            }))
        }
    }
}

/// Lets a claim ask for its data; gives how many bytes that is, or nothing where its
/// data comes from elsewhere.
fn fill(
    body: &mut Value,
    asked: Option<String>,
    record: &VolumeRecord,
    notes: &mut Vec<String>,
) -> Result<Option<u64>, String> {
    match volumes::fill(body, asked.as_deref(), record)? {
        Filling::Asks { note } => {
            notes.extend(note);
            Ok(Some(record.saved.bytes()))
        }
        Filling::Elsewhere(note) => {
            notes.push(note.to_owned());
            Ok(None)
        }
    }
}

/// Where the body says that it goes, once all names are mapped and all
/// transforms are applied.
fn target_key(t: &TypeRecord, body: &Value) -> Result<ObjectKey, String> {
    if body["apiVersion"] != t.api_version() || body["kind"] != *t.kind {
        return Err("a transform must not change `apiVersion` or `kind`".to_owned());
    }
    let metadata = &body["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    if name.is_empty() || name.contains('/') {
        return Err(format!("`{name}` cannot be the name of an object"));
    }
    if t.namespaced == namespace.is_empty() {
        return Err(if t.namespaced {
            "`metadata.namespace` is missing after the transforms".to_owned()
        } else {
            "`metadata.namespace` was added to an object that is in no namespace".to_owned()
        });
    }
    let named = if is_namespace(t) { name } else { namespace };
    if !named.is_empty() && !is_label(named) {
        return Err(format!(
            "`{named}` cannot be the name of a namespace: it has at most 63 lower-case letters, digits and `-`"
        ));
    }
    Ok(ObjectKey::new(namespace, name))
}

fn hash(body: &Value, owners: &[OwnerRef]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    // Writing into a hasher does not fail, nor has a `Value` keys that are no text.
    let _ = serde_json::to_writer(&mut hasher, body);
    for owner in owners {
        for text in [&owner.api_version, &owner.kind, &owner.name] {
            hasher.update(text.as_bytes()).update(&[0]);
        }
        hasher.update(&[owner.controller.into(), owner.block_owner_deletion.into()]);
    }
    let mut hash = [0; 16];
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    hash
}

fn stamp(body: &mut Value, restore_uid: Option<&str>) {
    let (Some(uid), Some(metadata)) = (restore_uid, body.get_mut("metadata")) else {
        return;
    };
    let Some(metadata) = metadata.as_object_mut() else {
        return;
    };
    let annotations = metadata
        .entry("annotations")
        .or_insert_with(|| Value::Object(Map::new()));
    if annotations.is_null() {
        *annotations = Value::Object(Map::new());
    }
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert(
            RESTORED_BY_ANNOTATION.to_owned(),
            Value::String(uid.to_owned()),
        );
    }
}

#[cfg(test)]
mod tests;
