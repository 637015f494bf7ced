//! What of an object belongs to the source cluster and is not taken along, and
//! which objects are not restored at all. Tables where a table can say it, one
//! function where a kind needs more.

mod account;
mod claim;
mod drops;
mod held;
mod job;
mod never;
mod pod;
mod service;
#[cfg(test)]
pub(crate) mod test_objects;
mod trust;

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::OwnerRef;
use super::prepare::Context;
use crate::archive::{ArchivedObject, TypeRecord};

/// What the rules of its kind say about an object.
pub(crate) enum Verdict {
    /// It is restored.
    Restore,
    /// It is not, because of what it is.
    Leave(Cow<'static, str>),
}

/// An object while the rules of its kind are applied.
pub(crate) struct Subject<'a> {
    pub(crate) t: &'a TypeRecord,
    pub(crate) object: &'a ArchivedObject,
    pub(crate) context: &'a Context,
    /// `status`, `managedFields`, `resourceVersion`, as far as captured.
    pub(crate) volatile: &'a Map<String, Value>,
    pub(crate) notes: &'a mut Vec<String>,
}

/// Applies the rules: drops from `body` what belongs to the source cluster.
pub(crate) fn apply(subject: &mut Subject<'_>, body: &mut Value) -> Verdict {
    if let Some(why) = never::restored(subject, body) {
        return Verdict::Leave(why);
    }
    held::let_go(body);
    drops::apply(subject, body);
    let (group, kind) = (subject.t.group.as_str(), subject.t.kind.as_str());
    match (group, kind) {
        ("", "Pod") => return pod::apply(body, subject.volatile),
        ("", "Service") => service::apply(body, subject.volatile),
        ("", "Secret") => account::token_secret(body),
        ("", "ServiceAccount") => account::service_account(body, &subject.object.key.name),
        ("", "PersistentVolume") => return claim::volume(body, subject.notes),
        ("", "PersistentVolumeClaim") => claim::claim(body, subject.context),
        ("batch", "Job") => return job::job(body, subject.volatile, subject.notes),
        ("batch", "CronJob") => job::cron_job(body, subject.notes),
        ("rbac.authorization.k8s.io", "ClusterRole") => trust::cluster_role(body),
        ("admissionregistration.k8s.io" | "apiextensions.k8s.io" | "apiregistration.k8s.io", _) => {
            trust::injected_authority(body);
        }
        ("lifebuoy.dev", "Repository" | "Schedule") => suspend(body, subject.notes),
        _ => {}
    }
    Verdict::Restore
}

/// Whether the rules of a kind ask for the volatile part of its objects, which
/// can be larger than the rest.
pub(crate) fn need_volatile(t: &TypeRecord, context: &Context) -> bool {
    matches!(
        (t.group.as_str(), t.kind.as_str()),
        ("", "Pod" | "Service") | ("batch", "Job")
    ) || context.keeps_status(&t.id())
}

/// Two clusters must not both write what only the source wrote.
fn suspend(body: &mut Value, notes: &mut Vec<String>) {
    if let Some(spec) = body.get_mut("spec").and_then(Value::as_object_mut)
        && spec.insert("suspend".to_owned(), Value::Bool(true)) != Some(Value::Bool(true))
    {
        notes.push("it comes back suspended: set `spec.suspend` to false when this cluster shall take over".to_owned());
    }
}

/// Takes the owner references out of a body.
pub(crate) fn take_owners(body: &mut Value) -> Vec<OwnerRef> {
    let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) else {
        return Vec::new();
    };
    let Some(Value::Array(references)) = metadata.remove("ownerReferences") else {
        return Vec::new();
    };
    let text =
        |reference: &Value, field: &str| reference[field].as_str().unwrap_or_default().to_owned();
    references
        .iter()
        .map(|reference| OwnerRef {
            api_version: text(reference, "apiVersion"),
            kind: text(reference, "kind"),
            name: text(reference, "name"),
            uid: text(reference, "uid"),
            controller: reference["controller"] == true,
            block_owner_deletion: reference["blockOwnerDeletion"] == true,
        })
        .collect()
}

/// Removes a key from the map at `pointer`; an emptied map goes as well.
fn remove_key(body: &mut Value, pointer: &str, field: &str, gone: impl Fn(&str) -> bool) {
    let Some(parent) = body.pointer_mut(pointer) else {
        return;
    };
    if let Some(map) = parent.get_mut(field).and_then(Value::as_object_mut) {
        map.retain(|key, _| !gone(key));
        if map.is_empty()
            && let Some(parent) = parent.as_object_mut()
        {
            parent.remove(field);
        }
    }
}

#[cfg(test)]
mod tests;
