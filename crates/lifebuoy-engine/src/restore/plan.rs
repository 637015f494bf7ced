//! The plan: everything that was decided about a restore. It holds keys, edges
//! and decisions, never bodies, and carrying it out decides nothing more.

use std::collections::BTreeMap;
use std::fmt;

use lifebuoy_api::{ExistingPolicy, Problem, Reason};
use lifebuoy_repo::SessionId;
use serde::{Deserialize, Serialize};

use super::{Context, Key, OwnerRef};
use crate::archive::{Manifest, TypeId};

/// The version of the plan's own format.
pub(crate) const PLAN_VERSION: u32 = 1;

/// How many examples of objects that are left out a plan names.
pub(crate) const MAX_LEFT_OUT_EXAMPLES: usize = 3;

/// What a restore is going to do.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a plan changes nothing until it is applied"]
pub struct Plan {
    /// The version of this format.
    pub version: u32,
    /// The snapshot that is restored.
    pub snapshot: SessionId,
    /// The types of the entries, sorted by group and resource.
    pub types: Vec<PlannedType>,
    /// One entry an object, in the order in which they are applied: by wave,
    /// owners before what they own, then by type and key. An entry only ever
    /// needs entries before it.
    pub entries: Vec<Entry>,
    /// What a person should look at before the plan is carried out.
    pub problems: Vec<Problem>,
    /// Selected objects that are not restored because of what they are.
    pub left_out: Vec<LeftOut>,
    /// What two plans that do the same have in common.
    pub digest: PlanDigest,
}

/// A type of objects in a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedType {
    /// Group and resource.
    #[serde(with = "super::document::type_id")]
    pub id: TypeId,
    /// The kind.
    pub kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// The version in which the objects were captured.
    pub source_version: String,
    /// The version in which they are written; the captured one where the
    /// target does not serve the type (then its entries are refused, or the
    /// plan creates its CustomResourceDefinition first).
    pub target_version: String,
    /// The wave of the type; an entry can have a later one.
    pub wave: u8,
    /// Custom resources without a status subresource keep what their `status`
    /// holds: there it is data like any other.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub status_is_data: bool,
}

impl PlannedType {
    /// The `apiVersion` of what is written.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.id.group.is_empty() {
            self.target_version.clone()
        } else {
            format!("{}/{}", self.id.group, self.target_version)
        }
    }
}

/// What happens to one captured object.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Index into [`Plan::types`].
    pub kind: u32,
    /// The wave it is applied in.
    pub wave: u8,
    /// Where it was captured.
    pub source: Key,
    /// Where it is written.
    pub target: Key,
    /// What is done.
    pub action: Action,
    /// What is done when the object turns out to exist although the plan did
    /// not know of it.
    pub policy: ExistingPolicy,
    /// Whether others cannot be written before this workload is available: it
    /// answers for a webhook, a conversion or an aggregated API.
    pub serves: bool,
    /// Indexes of the entries that must be there first: its owners.
    pub needs: Box<[u32]>,
    /// The hash of what is written, without the restore's own stamp.
    pub body: [u8; 16],
    /// How many bytes of saved data a claim is filled with.
    pub fills: Option<u64>,
    /// What a person may want to know about it.
    pub notes: Box<[Box<str>]>,
}

/// What is done about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is created.
    Create,
    /// It exists; what was captured is merged into it.
    Merge,
    /// It exists, and is replaced.
    Replace,
    /// It exists, and is left alone.
    SkipExisting,
    /// It is a claim that exists and is left alone; everything on its volume is replaced by
    /// the saved data.
    Overwrite,
    /// This very restore created it before it was interrupted.
    Resume,
    /// It is withheld, although it could be restored.
    Withhold {
        /// Why, for machines.
        reason: Reason,
        /// Why, for people.
        message: Box<str>,
    },
    /// It cannot be restored.
    Refuse {
        /// Why, for machines.
        reason: Reason,
        /// Why, for people, with the way out.
        message: Box<str>,
    },
}

impl Action {
    /// One word for tables and documents.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Merge => "merge",
            Self::Replace => "replace",
            Self::SkipExisting => "skip",
            Self::Overwrite => "overwrite",
            Self::Resume => "resume",
            Self::Withhold { .. } => "withhold",
            Self::Refuse { .. } => "refuse",
        }
    }

    /// Whether something is written to the cluster.
    #[must_use]
    pub const fn writes(&self) -> bool {
        matches!(self, Self::Create | Self::Merge | Self::Replace)
    }
}

/// Selected objects of one type that are not restored because of what they
/// are, such as Jobs that have finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The type.
    #[serde(with = "super::document::type_id")]
    pub of: TypeId,
    /// Why.
    pub why: String,
    /// How many.
    pub objects: u64,
    /// The first few of them.
    pub examples: Vec<String>,
}

/// What two plans that do the same have in common: 64 hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanDigest(pub(crate) String);

impl PlanDigest {
    /// The 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PlanDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many entries there are of each action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanSummary {
    /// Entries.
    pub objects: u64,
    /// To be created.
    pub create: u64,
    /// To be merged into existing objects.
    pub merge: u64,
    /// Existing objects to be replaced.
    pub replace: u64,
    /// Existing objects to be left alone.
    pub skip: u64,
    /// Existing claims whose volumes are to be overwritten.
    pub overwrite: u64,
    /// Created by this restore already.
    pub resume: u64,
    /// Withheld.
    pub withhold: u64,
    /// Refused.
    pub refuse: u64,
    /// Selected objects that are left out because of what they are.
    pub left_out: u64,
    /// Volumes that are filled with saved data.
    pub volumes: u64,
    /// How many bytes that is.
    pub volume_bytes: u64,
    /// How many bytes volumes are overwritten with.
    pub overwrite_bytes: u64,
}

impl Plan {
    /// The type of an entry. The index is the plan's own.
    #[must_use]
    pub fn type_of(&self, entry: &Entry) -> &PlannedType {
        &self.types[entry.kind as usize]
    }

    /// The entry's name for people: `deployments.apps shop/web`.
    #[must_use]
    pub fn subject(&self, entry: &Entry) -> String {
        format!("{} {}", self.type_of(entry).id, entry.source)
    }

    /// Why nothing of this plan may be carried out, if so: an object exists
    /// whose policy is `Fail`.
    #[must_use]
    pub fn refusal(&self) -> Option<Problem> {
        let mut existing = self.entries.iter().filter(|entry| {
            matches!(&entry.action, Action::Refuse { reason, .. } if *reason == Reason::ExistingObject)
                && entry.policy == ExistingPolicy::Fail
        });
        let first = existing.next()?;
        let more = existing.count();
        let what = match more {
            0 => "it exists".to_owned(),
            1 => "it and one other object exist".to_owned(),
            _ => format!("it and {more} other objects exist"),
        };
        Some(Problem::error(
            Reason::PlanRefused,
            format!("{} {}", self.type_of(first).id, first.target),
            &format!(
                "{what}, and `existing` says Fail: delete what is there, or choose Skip, Merge or Replace"
            ),
        ))
    }

    /// Which entry is this owner of the entry, if it is in the plan.
    #[must_use]
    pub fn owner_entry(&self, entry: &Entry, owner: &OwnerRef) -> Option<u32> {
        entry.needs.iter().copied().find(|at| {
            let candidate = &self.entries[*at as usize];
            let of = self.type_of(candidate);
            of.kind == owner.kind
                && of.id.group == owner.group()
                && *candidate.source.name == *owner.name
        })
    }

    /// The claims that are created, and filled with saved data.
    pub fn filled(&self) -> impl Iterator<Item = (&Entry, u64)> {
        self.entries.iter().filter_map(|entry| {
            let fills = matches!(
                entry.action,
                Action::Create | Action::Replace | Action::Resume
            );
            Some((entry, entry.fills.filter(|_| fills)?))
        })
    }

    /// The claims that exist, and whose volumes are overwritten with saved data.
    pub fn overwritten(&self) -> impl Iterator<Item = (&Entry, u64)> {
        let of = |entry: &&Entry| entry.action == Action::Overwrite;
        let entries = self.entries.iter().filter(of);
        entries.filter_map(|entry| Some((entry, entry.fills?)))
    }

    /// The claims that are filled, or would be if one that exists had gone meanwhile:
    /// somebody must be there when they ask for their data.
    pub fn asking(&self) -> impl Iterator<Item = (&Entry, u64)> {
        self.entries.iter().filter_map(|entry| {
            let asks = entry.action.writes() || entry.action == Action::Resume;
            Some((entry, entry.fills.filter(|_| asks)?))
        })
    }

    /// What [`super::prepare`] has to know to make the bodies of this plan,
    /// stamped with the uid of the restore that carries it out. The manifest is that
    /// of its snapshot.
    #[must_use]
    pub fn context(&self, restore_uid: &str, manifest: &Manifest) -> Context {
        let mut context = Context::new(Some(restore_uid));
        context.fill_from(manifest);
        for of in self.types.iter().filter(|of| of.status_is_data) {
            context.keep_status(of.id.clone());
        }
        for entry in &self.entries {
            let of = self.type_of(entry);
            if of.id.group.is_empty() && of.kind == "PersistentVolume" {
                context.keep_volume(&entry.source.name);
            }
        }
        context
    }

    /// How many entries there are of each action.
    #[must_use]
    pub fn summary(&self) -> PlanSummary {
        let mut summary = PlanSummary {
            objects: self.entries.len() as u64,
            left_out: self.left_out.iter().map(|left| left.objects).sum(),
            ..PlanSummary::default()
        };
        for (_, bytes) in self.filled() {
            summary.volumes += 1;
            summary.volume_bytes = summary.volume_bytes.saturating_add(bytes);
        }
        let overwritten = self.overwritten().map(|(_, bytes)| bytes);
        summary.overwrite_bytes = overwritten.fold(0, u64::saturating_add);
        for entry in &self.entries {
            *match entry.action {
                Action::Create => &mut summary.create,
                Action::Merge => &mut summary.merge,
                Action::Replace => &mut summary.replace,
                Action::SkipExisting => &mut summary.skip,
                Action::Overwrite => &mut summary.overwrite,
                Action::Resume => &mut summary.resume,
                Action::Withhold { .. } => &mut summary.withhold,
                Action::Refuse { .. } => &mut summary.refuse,
            } += 1;
        }
        summary
    }

    /// The entries of each wave, as ranges of [`Plan::entries`].
    #[must_use]
    pub fn waves(&self) -> BTreeMap<u8, std::ops::Range<usize>> {
        let mut waves: BTreeMap<u8, std::ops::Range<usize>> = BTreeMap::new();
        for (at, entry) in self.entries.iter().enumerate() {
            waves
                .entry(entry.wave)
                .and_modify(|range| range.end = at + 1)
                .or_insert(at..at + 1);
        }
        waves
    }
}
