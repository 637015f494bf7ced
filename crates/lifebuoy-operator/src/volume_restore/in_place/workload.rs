//! What starts pods, and how it is kept from doing so for a while. Pure.
//!
//! What it was before is recorded on the object itself, by the same write that stops it:
//! whoever comes later knows, and can put it back. The record says for which claims it is
//! held; when the last of them is whole it goes.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::ApiResource;
use lifebuoy_api::{HELD_ANNOTATION, HELD_FOR_LABEL};
use lifebuoy_engine::restore::Mounts;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What can be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Deployment,
    StatefulSet,
    ReplicaSet,
    DaemonSet,
    CronJob,
    Job,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Deployment,
        Self::StatefulSet,
        Self::ReplicaSet,
        Self::DaemonSet,
        Self::CronJob,
        Self::Job,
    ];

    const fn group(self) -> &'static str {
        match self {
            Self::CronJob | Self::Job => "batch",
            _ => "apps",
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::ReplicaSet => "ReplicaSet",
            Self::DaemonSet => "DaemonSet",
            Self::CronJob => "CronJob",
            Self::Job => "Job",
        }
    }

    pub(crate) fn resource(self) -> ApiResource {
        let (group, kind) = (self.group().to_owned(), self.as_str().to_owned());
        ApiResource {
            api_version: format!("{group}/v1"),
            version: "v1".to_owned(),
            plural: format!("{}s", kind.to_lowercase()),
            group,
            kind,
        }
    }

    /// The kind that an owner is of, if it is one of these.
    pub(super) fn of(owner: &OwnerReference) -> Option<Self> {
        let group = owner.api_version.split('/').next().unwrap_or_default();
        let is = |kind: &Self| kind.as_str() == owner.kind && kind.group() == group;
        Self::ALL.into_iter().find(is)
    }
}

/// One of them, as the API server has it.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) kind: Kind,
    object: Value,
}

/// What it is held for, and what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    /// The claims, by name in its namespace.
    claims: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replicas: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suspend: Option<bool>,
}

impl Workload {
    pub(crate) fn new(kind: Kind, object: Value) -> Self {
        Self { kind, object }
    }

    fn text(&self, pointer: &str) -> &str {
        let found = self.object.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_default()
    }

    pub(crate) fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    pub(crate) fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    pub(super) fn uid(&self) -> &str {
        self.text("/metadata/uid")
    }

    /// As a person says it.
    pub(super) fn title(&self) -> String {
        format!("{} `{}`", self.kind.as_str(), self.name())
    }

    /// What it belongs to.
    pub(super) fn controller(&self) -> Option<OwnerReference> {
        let owners = self.object.pointer("/metadata/ownerReferences")?;
        let owners: Vec<OwnerReference> = serde_json::from_value(owners.clone()).ok()?;
        owners
            .into_iter()
            .find(|owner| owner.controller == Some(true))
    }

    /// Whether it starts no pods whatever happens: it goes, or is a Job that has ended.
    pub(super) fn is_over(&self) -> bool {
        let conditions = self.object.pointer("/status/conditions");
        let conditions = conditions.and_then(Value::as_array).into_iter().flatten();
        let ended = |condition: &Value| {
            condition["status"] == "True"
                && matches!(condition["type"].as_str(), Some("Complete" | "Failed"))
        };
        !self.text("/metadata/deletionTimestamp").is_empty()
            || (self.kind == Kind::Job && conditions.into_iter().any(ended))
    }

    /// Whether its pods mount the claim.
    pub(super) fn mounts(&self, claim: &str) -> bool {
        Mounts::read(self.kind.group(), self.kind.as_str(), &self.object)
            .is_some_and(|mounts| mounts.contains(claim))
    }

    /// Whether its claims would be deleted if it were stopped.
    pub(super) fn deletes_claims(&self) -> bool {
        self.text("/spec/persistentVolumeClaimRetentionPolicy/whenScaled") == "Delete"
    }

    /// Whether it starts no pods as it is.
    pub(super) fn is_stopped(&self) -> bool {
        let spec = &self.object["spec"];
        match self.kind {
            Kind::Deployment | Kind::StatefulSet | Kind::ReplicaSet => spec["replicas"] == 0,
            Kind::CronJob | Kind::Job => spec["suspend"] == true,
            Kind::DaemonSet => !spec["template"]["spec"]["nodeSelector"][HELD_ANNOTATION].is_null(),
        }
    }

    /// The uid of the Restore that it is held for.
    pub(crate) fn held_for(&self) -> Option<&str> {
        self.object["metadata"]["labels"][HELD_FOR_LABEL].as_str()
    }

    /// The claims that it is held for.
    pub(crate) fn held_claims(&self) -> BTreeSet<String> {
        let record = self.record().ok().flatten();
        record.map(|record| record.claims).unwrap_or_default()
    }

    /// Whether what it was cannot be read.
    pub(super) fn is_unreadable(&self) -> bool {
        self.record().is_err()
    }

    fn record(&self) -> Result<Option<Record>, serde_json::Error> {
        let text = self.object["metadata"]["annotations"][HELD_ANNOTATION].as_str();
        text.map(serde_json::from_str).transpose()
    }

    /// What it is now.
    fn original(&self) -> Record {
        let spec = &self.object["spec"];
        let (mut replicas, mut suspend) = (None, None);
        match self.kind {
            Kind::Deployment | Kind::StatefulSet | Kind::ReplicaSet => {
                replicas = Some(spec["replicas"].as_i64().unwrap_or(1));
            }
            Kind::CronJob | Kind::Job => suspend = Some(spec["suspend"] == true),
            // Nothing of it is lost: a label is added to what its nodes must have.
            Kind::DaemonSet => {}
        }
        Record {
            claims: BTreeSet::new(),
            replicas,
            suspend,
        }
    }

    /// The patch that stops it for a Restore and a claim; none if that is done. What was
    /// recorded first is true: a second time it would be ours.
    pub(super) fn hold(&self, restore: &str, claim: &str) -> Option<Value> {
        let known = self.record().ok()?;
        let mut record = known.unwrap_or_else(|| self.original());
        let is_new = record.claims.insert(claim.to_owned());
        if !is_new && self.is_stopped() && self.held_for() == Some(restore) {
            return None;
        }
        let mut patch = self.patch(Some((restore, &record)));
        patch["spec"] = match self.kind {
            Kind::Deployment | Kind::StatefulSet | Kind::ReplicaSet => json!({"replicas": 0}),
            Kind::CronJob | Kind::Job => json!({"suspend": true}),
            Kind::DaemonSet => selects(&json!("true")),
        };
        Some(patch)
    }

    /// The patch that lets it go for the claims that are done; none if it is held for none of
    /// them. When it is held for no other, it becomes what it was, unless somebody has
    /// started it meanwhile.
    pub(crate) fn release(&self, is_done: impl Fn(&str) -> bool) -> Option<Value> {
        let mut record = self.record().ok()??;
        let before = record.claims.len();
        record.claims.retain(|claim| !is_done(claim));
        if record.claims.len() == before && before > 0 {
            return None;
        }
        let restore = self.held_for().unwrap_or_default();
        if !record.claims.is_empty() {
            return Some(self.patch(Some((restore, &record))));
        }
        let mut patch = self.patch(None);
        if self.is_stopped() {
            let Record {
                replicas, suspend, ..
            } = record;
            patch["spec"] = match self.kind {
                Kind::Deployment | Kind::StatefulSet | Kind::ReplicaSet => {
                    json!({"replicas": replicas})
                }
                Kind::CronJob | Kind::Job => json!({"suspend": suspend}),
                Kind::DaemonSet => selects(&Value::Null),
            };
        }
        Some(patch)
    }

    /// The part of a patch that records, or takes the record away. It is refused where the
    /// object is not the one that was seen.
    fn patch(&self, held: Option<(&str, &Record)>) -> Value {
        let (restore, record) = match held {
            // Every field has a JSON form.
            Some((restore, record)) => (
                json!(restore),
                json!(serde_json::to_string(record).unwrap_or_default()),
            ),
            None => (Value::Null, Value::Null),
        };
        json!({"metadata": {
            "resourceVersion": self.text("/metadata/resourceVersion"),
            "labels": {HELD_FOR_LABEL: restore},
            "annotations": {HELD_ANNOTATION: record},
        }})
    }
}

/// Nodes must have a label that none has.
fn selects(value: &Value) -> Value {
    json!({"template": {"spec": {"nodeSelector": {HELD_ANNOTATION: value}}}})
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn workload(kind: Kind, name: &str, spec: Value) -> Workload {
        let object = json!({
            "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "resourceVersion": "7"},
            "spec": spec,
        });
        Workload::new(kind, object)
    }

    /// The workload after a patch.
    pub(in super::super) fn patched(workload: &Workload, patch: &Value) -> Workload {
        fn merge(into: &mut Value, patch: &Value) {
            let Some(fields) = patch.as_object() else {
                *into = patch.clone();
                return;
            };
            if !into.is_object() {
                *into = json!({});
            }
            for (key, value) in fields {
                if value.is_null() {
                    into.as_object_mut().unwrap().remove(key);
                } else {
                    merge(&mut into[key], value);
                }
            }
        }
        let mut object = workload.object.clone();
        merge(&mut object, patch);
        Workload::new(workload.kind, object)
    }

    pub(in super::super) fn changed(workload: &Workload, patch: Value) -> Workload {
        patched(workload, &patch)
    }

    fn some_of_each() -> [Workload; 6] {
        [
            workload(Kind::Deployment, "web", json!({"replicas": 3})),
            workload(Kind::StatefulSet, "db", json!({"replicas": 0})),
            workload(Kind::ReplicaSet, "old", json!({"replicas": 1})),
            workload(
                Kind::DaemonSet,
                "agent",
                json!({"template": {"spec": {"nodeSelector": {"disk": "fast"}}}}),
            ),
            workload(Kind::CronJob, "nightly", json!({"suspend": false})),
            workload(Kind::Job, "once", json!({"suspend": true})),
        ]
    }

    #[test]
    fn what_is_held_is_stopped_and_comes_back_as_it_was() {
        for before in some_of_each() {
            let held = patched(&before, &before.hold("r", "data").unwrap());
            assert!(held.is_stopped(), "{before:?}");
            assert_eq!(held.held_for(), Some("r"));
            assert_eq!(held.hold("r", "data"), None);
            assert_eq!(held.release(|claim| claim == "logs"), None);
            let after = patched(&held, &held.release(|claim| claim == "data").unwrap());
            assert_eq!(after.object["spec"], before.object["spec"]);
            assert_eq!((after.held_for(), after.held_claims().len()), (None, 0));
            assert_eq!(after.release(|_| true), None);
        }
    }

    #[test]
    fn what_was_recorded_first_survives_whoever_holds_it_next() {
        for before in some_of_each() {
            let held = patched(&before, &before.hold("r", "data").unwrap());
            let both = patched(&held, &held.hold("r", "logs").unwrap());
            let taken_over = patched(&both, &both.hold("s", "logs").unwrap());
            assert_eq!(taken_over.held_for(), Some("s"));
            let one = patched(
                &taken_over,
                &taken_over.release(|claim| claim == "logs").unwrap(),
            );
            assert!(one.is_stopped());
            assert_eq!(one.held_claims(), ["data".to_owned()].into());
            let after = patched(&one, &one.release(|_| true).unwrap());
            assert_eq!(after.object["spec"], before.object["spec"]);
        }
    }

    #[test]
    fn what_somebody_has_started_is_stopped_again_or_left_as_it_is() {
        let before = workload(Kind::Deployment, "web", json!({"replicas": 3}));
        let held = patched(&before, &before.hold("r", "data").unwrap());
        let started = changed(&held, json!({"spec": {"replicas": 5}}));
        let again = patched(&started, &started.hold("r", "data").unwrap());
        assert!(again.is_stopped());
        let after = patched(&again, &again.release(|_| true).unwrap());
        assert_eq!(after.object["spec"]["replicas"], 3);
        let left = patched(&started, &started.release(|_| true).unwrap());
        assert_eq!(left.object["spec"]["replicas"], 5);
        assert_eq!(left.held_for(), None);
    }

    #[test]
    fn what_cannot_be_read_is_not_written_over() {
        let odd = json!({"metadata": {"annotations": {HELD_ANNOTATION: "3"}}});
        let odd = changed(
            &workload(Kind::Deployment, "web", json!({"replicas": 3})),
            odd,
        );
        assert!(odd.is_unreadable());
        assert_eq!((odd.hold("r", "data"), odd.release(|_| true)), (None, None));
    }

    #[test]
    fn a_resource_is_called_as_the_server_calls_it() {
        let names = Kind::ALL.map(|kind| kind.resource().plural);
        let expected = [
            "deployments",
            "statefulsets",
            "replicasets",
            "daemonsets",
            "cronjobs",
            "jobs",
        ];
        assert_eq!(names, expected);
    }
}
