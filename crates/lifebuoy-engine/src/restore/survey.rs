//! The first pass over an archive: every selected object is prepared once, and
//! its key, hash and relations are kept. The bodies are not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::TryStreamExt;
use lifebuoy_api::{ClusterScoped, ExistingPolicy, Problem, Reason};
use lifebuoy_repo::SessionId;
use serde_json::Value;

use super::map::visit;
use super::mounts::Mounts;
use super::needs::Needs;
use super::plan::MAX_LEFT_OUT_EXAMPLES;
use super::prepare::{is_namespace, may_be_selected};
use super::serving::Serving;
use super::{
    Context, Draft, Interner, Key, LeftOut, Plan, Prepared, Rules, Target, Wanted, WantedType,
    existing, prepare,
};
use crate::Error;
use crate::archive::{Archive, ArchivedObject, Fidelity, Manifest, ObjectKey, TypeId, TypeRecord};
use crate::volumes;

/// Why a claim has no data.
pub(crate) const NOT_SAVED: &str =
    "its data was not saved: restore the data by other means first, or say `volumes: Empty`";
pub(crate) const NOBODY_FILLS: &str = "its data was saved, and only the operator can bring it back: create a Restore in the cluster, or say `volumes: Empty` for an empty volume";

/// After this many objects, other tasks get a turn.
const OBJECTS_PER_TURN: u32 = 64;

/// Everything that the first pass has found out.
#[derive(Debug)]
#[must_use = "a survey is there to be decided about"]
pub struct Survey {
    pub(crate) snapshot: SessionId,
    pub(crate) types: Vec<TypeRecord>,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) context: Context,
    /// The versions that captured definitions serve, by the definition's name.
    pub(crate) definitions: BTreeMap<String, Vec<String>>,
    /// Storage classes that claims name, with the first such claim.
    pub(crate) storage_classes: BTreeMap<String, String>,
    /// Claims that no data comes for, by their source keys, and why.
    pub(crate) without_data: BTreeMap<ObjectKey, &'static str>,
    pub(crate) left_out: BTreeMap<(TypeId, String), LeftOut>,
    pub(crate) problems: Vec<Problem>,
    serving: Serving,
    needs: Option<Needs>,
    /// Types are selected by name, and not Namespaces: only those that
    /// something is restored into come along.
    namespaces_on_demand: bool,
    /// Volumes of claims that exist are overwritten.
    overwrites: bool,
    interner: Interner,
}

/// A selected object, before anything is decided about it.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// Index into [`Survey::types`].
    pub(crate) kind: u32,
    pub(crate) source: Key,
    pub(crate) target: Key,
    /// Why it cannot be restored whatever the target looks like.
    pub(crate) broken: Option<(Reason, Box<str>)>,
    pub(crate) policy: ExistingPolicy,
    pub(crate) serves: bool,
    pub(crate) hash: [u8; 16],
    pub(crate) uid: Uid,
    pub(crate) owners: Box<[Owner]>,
    pub(crate) mounts: Option<Box<Mounts>>,
    /// How many bytes of saved data a claim is filled with.
    pub(crate) fills: Option<u64>,
    pub(crate) notes: Vec<Box<str>>,
}

/// An owner, as an object names it.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) uid: Uid,
    /// For people: `Deployment web`.
    pub(crate) label: Box<str>,
}

/// A captured uid, in 16 bytes whatever its form was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Uid([u8; 16]);

impl Uid {
    fn of(text: &str) -> Self {
        let mut uid = [0; 16];
        if !text.is_empty() {
            uid.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
        }
        Self(uid)
    }

    pub(crate) fn is_known(self) -> bool {
        self.0 != [0; 16]
    }
}

/// Makes the plan: reads the archive once, asks about the target, decides.
///
/// # Errors
/// What reading the archive or `observe` fails with. What concerns one object is
/// in the plan instead.
pub async fn plan(
    archive: &Archive,
    rules: &Rules,
    observe: impl AsyncFnOnce(&Wanted) -> Result<Target, Error>,
) -> Result<Plan, Error> {
    let survey = survey(archive, rules).await?;
    let target = observe(&survey.wanted()).await?;
    Ok(survey.decide(rules, &target))
}

/// Reads every selected object once. Memory grows with the number of objects,
/// some 300 bytes each, not with their size.
///
/// # Errors
/// What reading the archive fails with.
pub async fn survey(archive: &Archive, rules: &Rules) -> Result<Survey, Error> {
    let manifest = &archive.manifest;
    let mut survey = Survey::new(archive.point.snapshot.session, rules);
    survey.look_at_volumes(manifest, rules);
    let mut types: Vec<&TypeRecord> = manifest.types.iter().collect();
    reading_order(&mut types);
    let mut read = 0u32;
    for t in types {
        if !survey.open_type(t, rules) {
            continue;
        }
        let (of, selected) = (t.clone(), rules.clone());
        let definitions = is_definition(t);
        let mut objects = archive.select(t, move |key| {
            definitions || may_be_selected(&selected, &of, key)
        });
        while let Some(object) = objects.try_next().await? {
            survey.look(t, &object, rules);
            read = read.wrapping_add(1);
            if read.is_multiple_of(OBJECTS_PER_TURN) {
                tokio::task::yield_now().await;
            }
        }
    }
    survey.close();
    Ok(survey)
}

/// Sorts types so that what must have been seen before others comes first.
pub(crate) fn reading_order(types: &mut [&TypeRecord]) {
    types.sort_by_key(|t| (rank(t), t.id()));
}

fn rank(t: &TypeRecord) -> u8 {
    match (t.group.as_str(), t.kind.as_str()) {
        ("apiextensions.k8s.io", _) => 0,
        ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => 1,
        ("", "PersistentVolume" | "Service") => 2,
        _ => 3,
    }
}

fn is_definition(t: &TypeRecord) -> bool {
    t.group == "apiextensions.k8s.io" && t.kind == "CustomResourceDefinition"
}

impl Survey {
    pub(crate) fn new(snapshot: SessionId, rules: &Rules) -> Self {
        let selector = &rules.selector;
        let partial =
            selector.cluster_scoped() == ClusterScoped::Auto && !selector.all_namespaces();
        Self {
            snapshot,
            types: Vec::new(),
            candidates: Vec::new(),
            context: Context::new(None),
            definitions: BTreeMap::new(),
            storage_classes: BTreeMap::new(),
            without_data: BTreeMap::new(),
            left_out: BTreeMap::new(),
            problems: Vec::new(),
            serving: Serving::default(),
            needs: partial.then(Needs::default),
            namespaces_on_demand: !selector.resource("", "namespaces"),
            overwrites: rules.overwrites,
            interner: Interner::default(),
        }
    }

    /// Notes which claims have data, and which have none; and what is not restored.
    pub(crate) fn look_at_volumes(&mut self, manifest: &Manifest, rules: &Rules) {
        let not_saved = manifest.volumes_not_saved.iter();
        self.without_data
            .extend(not_saved.map(|claim| (claim.clone(), NOT_SAVED)));
        if rules.fills {
            self.context.fill_from(manifest);
        } else {
            let saved = manifest.volumes_saved.iter();
            self.without_data
                .extend(saved.map(|of| (of.claim.clone(), NOBODY_FILLS)));
        }
        let saved = manifest.volumes_saved.iter().map(|of| &of.claim);
        let selector = &rules.selector;
        let empty_dirs = saved.filter(|key| {
            volumes::empty_dir_of(key).is_some()
                && selector.resource("", "pods")
                && selector.namespace(&key.namespace)
        });
        self.problems.extend(volumes::not_restored(empty_dirs));
    }

    /// Begins a type; whether there is anything of it to look at.
    pub(crate) fn open_type(&mut self, t: &TypeRecord, rules: &Rules) -> bool {
        if let Fidelity::Unavailable { reason } = &t.fidelity
            && (rules.selector.resource(&t.group, &t.resource) || is_namespace(t))
        {
            self.problems.push(Problem::warning(
                Reason::TypeUnavailable,
                t.id().to_string(),
                &format!(
                    "the recovery point holds none of them, since they could not be read: {reason}"
                ),
            ));
        }
        if t.tree.is_none() && t.objects == 0 {
            return false;
        }
        self.types.push(t.clone());
        true
    }

    /// Looks at an object of the type that was opened last.
    pub(crate) fn look(&mut self, t: &TypeRecord, object: &ArchivedObject, rules: &Rules) {
        if is_definition(t)
            && let Ok(body) = object.body()
        {
            self.look_at_definition(&body);
        }
        match prepare(rules, &self.context, t, object) {
            Prepared::NotSelected => {}
            Prepared::Leave(why) => self.leave(t, object, &why),
            Prepared::Broken(reason, message) => self.break_off(object, reason, &message, rules),
            Prepared::Write(draft) => self.accept(t, object, &draft),
        }
    }

    fn look_at_definition(&mut self, body: &Value) {
        let spec = &body["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let id = TypeId::new(text(&spec["group"]), text(&spec["names"]["plural"]));
        let mut served = Vec::new();
        let mut status_is_data = true;
        visit(spec, "versions[]", &mut |version| {
            if version["served"] == true {
                served.push(text(&version["name"]));
            }
            status_is_data &= version["subresources"]["status"].is_null();
        });
        if status_is_data {
            self.context.keep_status(id.clone());
        }
        self.definitions.insert(id.to_string(), served);
    }

    fn leave(&mut self, t: &TypeRecord, object: &ArchivedObject, why: &str) {
        if self.needs.is_some() && !t.namespaced && !is_namespace(t) {
            // Nobody asked for it, and whether someone needs it is not known.
            return;
        }
        let left = self
            .left_out
            .entry((t.id(), why.to_owned()))
            .or_insert_with(|| LeftOut {
                of: t.id(),
                why: why.to_owned(),
                objects: 0,
                examples: Vec::new(),
            });
        left.objects += 1;
        if left.examples.len() < MAX_LEFT_OUT_EXAMPLES {
            left.examples.push(object.key.to_string());
        }
    }

    /// Keeps an object that cannot be restored: the report has to name it.
    fn break_off(&mut self, object: &ArchivedObject, reason: Reason, message: &str, rules: &Rules) {
        let key = &object.key;
        let source = self.interner.key(&key.namespace, &key.name);
        let target = match rules.mapper.namespace(&key.namespace) {
            Some(namespace) => Key {
                namespace: self.interner.text(&namespace),
                name: Arc::clone(&source.name),
            },
            None => source.clone(),
        };
        self.candidates.push(Candidate {
            kind: self.current(),
            source,
            target,
            broken: Some((reason, message.into())),
            policy: ExistingPolicy::Skip,
            serves: false,
            hash: [0; 16],
            uid: Uid::of(""),
            owners: Box::default(),
            mounts: None,
            fills: None,
            notes: Vec::new(),
        });
    }

    fn accept(&mut self, t: &TypeRecord, object: &ArchivedObject, draft: &Draft) {
        let (group, kind) = (t.group.as_str(), t.kind.as_str());
        if (group, kind) == ("", "PersistentVolume") {
            self.context.keep_volume(&object.key.name);
        }
        if let Some(needs) = &mut self.needs {
            needs.look(t, &draft.target, &draft.body);
        }
        self.look_at_claims(t, draft);
        let source = self.interner.key(&object.key.namespace, &object.key.name);
        let target = self.target_of(&source, draft);
        self.candidates.push(Candidate {
            kind: self.current(),
            source,
            target,
            broken: None,
            policy: existing::policy(t, &draft.target, &draft.body, draft.policy),
            serves: self.serving.look(group, kind, &draft.body),
            hash: draft.hash,
            uid: Uid::of(&draft.uid),
            owners: draft
                .owners
                .iter()
                .map(|owner| Owner {
                    uid: Uid::of(&owner.uid),
                    label: format!("{} {}", owner.kind, owner.name).into(),
                })
                .collect(),
            mounts: Mounts::read(group, kind, &draft.body).map(Box::new),
            fills: draft.fills,
            notes: draft
                .notes
                .iter()
                .map(|note| note.as_str().into())
                .collect(),
        });
    }

    /// The key of the draft, with text shared where it is equal.
    fn target_of(&mut self, source: &Key, draft: &Draft) -> Key {
        Key {
            namespace: self.interner.text(&draft.target.namespace),
            name: if *source.name == *draft.target.name {
                Arc::clone(&source.name)
            } else {
                draft.target.name.as_str().into()
            },
        }
    }

    fn look_at_claims(&mut self, t: &TypeRecord, draft: &Draft) {
        let path = match (t.group.as_str(), t.kind.as_str()) {
            ("", "PersistentVolumeClaim") => "spec.storageClassName",
            ("apps", "StatefulSet") => "spec.volumeClaimTemplates[].spec.storageClassName",
            _ => return,
        };
        visit(&draft.body, path, &mut |class| {
            if let Some(class) = class.as_str().filter(|class| !class.is_empty()) {
                self.storage_classes
                    .entry(class.to_owned())
                    .or_insert_with(|| format!("{} {}", t.id(), draft.target));
            }
        });
    }

    /// The index of the type that was opened last. There are fewer types than
    /// a `u32` counts: each is a line of a manifest in memory.
    fn current(&self) -> u32 {
        u32::try_from(self.types.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// Ends the pass: what nobody needs goes, and the order becomes that of the
    /// keys, whatever the order of the archive was.
    pub(crate) fn close(&mut self) {
        let types = &self.types;
        if let Some(mut needs) = self.needs.take() {
            needs.close();
            self.candidates.retain(|candidate| {
                let t = &types[candidate.kind as usize];
                t.namespaced || is_namespace(t) || needs.needs(&t.id(), &candidate.target.name)
            });
        }
        if self.namespaces_on_demand {
            let used: BTreeSet<Arc<str>> = self
                .candidates
                .iter()
                .map(|candidate| Arc::clone(&candidate.target.namespace))
                .collect();
            self.candidates.retain(|candidate| {
                !is_namespace(&types[candidate.kind as usize])
                    || used.contains(&candidate.target.name)
            });
        }
        let ids: Vec<TypeId> = types.iter().map(TypeRecord::id).collect();
        self.candidates.sort_by(|a, b| {
            ids[a.kind as usize]
                .cmp(&ids[b.kind as usize])
                .then_with(|| a.source.cmp(&b.source))
        });
    }

    /// What has to be known of the target.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        let sound = self
            .candidates
            .iter()
            .filter(|candidate| candidate.broken.is_none());
        let mut of_type: BTreeMap<TypeId, (&TypeRecord, Vec<Key>)> = BTreeMap::new();
        for candidate in sound {
            let t = &self.types[candidate.kind as usize];
            if !candidate.target.namespace.is_empty() {
                wanted
                    .namespaces
                    .insert(candidate.target.namespace.to_string());
            } else if is_namespace(t) {
                wanted.namespaces.insert(candidate.target.name.to_string());
            }
            let data = self.context.data_of(t, &candidate.source.to_object_key());
            if self.overwrites && data.is_some() {
                wanted.claims.insert(candidate.target.clone());
            }
            of_type
                .entry(t.id())
                .or_insert_with(|| (t, Vec::new()))
                .1
                .push(candidate.target.clone());
        }
        wanted.types = of_type
            .into_iter()
            .map(|(id, (t, mut keys))| {
                keys.sort();
                keys.dedup();
                WantedType {
                    id,
                    kind: t.kind.clone(),
                    version: t.version.clone(),
                    namespaced: t.namespaced,
                    keys,
                }
            })
            .collect();
        wanted
    }
}

#[cfg(test)]
mod tests;
