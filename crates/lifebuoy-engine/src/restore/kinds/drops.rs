//! Fields, annotations, labels and finalizers that a cluster gave to an object
//! and that mean nothing, or the wrong thing, in another. Tables.

use serde_json::Value;

use super::Subject;
use crate::restore::map::{pattern_matches, visit_mut};

/// Metadata that every server sets itself.
const METADATA: &[&str] = &[
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "managedFields",
];

/// Fields of a kind: group, kind, path of the parent, field.
const FIELDS: &[(&str, &str, &str, &str)] = &[
    ("", "Namespace", "", "spec"),
    ("", "PersistentVolume", "spec.claimRef", "uid"),
    ("", "PersistentVolume", "spec.claimRef", "resourceVersion"),
    // The data comes from a backup or not at all, never from the source's snapshot.
    ("", "PersistentVolumeClaim", "spec", "dataSource"),
    ("", "PersistentVolumeClaim", "spec", "dataSourceRef"),
    ("", "Pod", "spec", "nodeName"),
    ("", "Pod", "spec", "ephemeralContainers"),
    // The admission of the target works these out from the classes.
    ("", "Pod", "spec", "priority"),
    ("", "Pod", "spec", "overhead"),
];

/// Annotations: group, kind, pattern with at most one `*`.
#[rustfmt::skip] // one row a line
const ANNOTATIONS: &[(&str, &str, &str)] = &[
    ("*", "*", "lifebuoy.dev/restored-by"),
    ("*", "*", "lifebuoy.dev/held"),
    ("", "PersistentVolumeClaim", "lifebuoy.dev/overwriting"),
    // A leader of the source cluster.
    ("", "*", "control-plane.alpha.kubernetes.io/leader"),
    ("", "Namespace", "openshift.io/sa.scc.*"),
    ("", "PersistentVolume", "pv.kubernetes.io/bound-by-controller"),
    ("", "PersistentVolumeClaim", "pv.kubernetes.io/bind-completed"),
    ("", "PersistentVolumeClaim", "pv.kubernetes.io/bound-by-controller"),
    ("", "PersistentVolumeClaim", "pv.kubernetes.io/migrated-to"),
    ("", "PersistentVolumeClaim", "volume.kubernetes.io/storage-provisioner"),
    ("", "PersistentVolumeClaim", "volume.beta.kubernetes.io/storage-provisioner"),
    ("", "PersistentVolumeClaim", "volume.kubernetes.io/selected-node"),
    ("", "Pod", "cni.projectcalico.org/*"),
    ("", "Pod", "k8s.v1.cni.cncf.io/network-status"),
    ("", "Pod", "k8s.ovn.org/*"),
    ("", "Secret", "kubernetes.io/service-account.uid"),
    ("", "Endpoints", "endpoints.kubernetes.io/last-change-trigger-time"),
    ("discovery.k8s.io", "EndpointSlice", "endpoints.kubernetes.io/last-change-trigger-time"),
    ("apps", "Deployment", "deployment.kubernetes.io/revision"),
    ("apps", "ReplicaSet", "deployment.kubernetes.io/*"),
    ("apps", "DaemonSet", "deprecated.daemonset.template.generation"),
    ("batch", "Job", "batch.kubernetes.io/job-tracking"),
];

/// Labels: group, kind, pattern with at most one `*`.
const LABELS: &[(&str, &str, &str)] = &[
    ("*", "*", "lifebuoy.dev/held-for"),
    ("", "Secret", "kubernetes.io/legacy-token-*"),
];

/// Finalizers of parts of the system that set them again where they are meant.
const FINALIZERS: &[&str] = &[
    "kubernetes",
    "kubernetes.io/*-protection",
    "snapshot.storage.kubernetes.io/*",
    "external-provisioner.*",
    "external-attacher/*",
    "foregroundDeletion",
    "orphan",
    "service.kubernetes.io/load-balancer-cleanup",
    "batch.kubernetes.io/job-tracking",
];

/// Drops what the tables say.
pub(super) fn apply(subject: &mut Subject<'_>, body: &mut Value) {
    let (group, kind) = (subject.t.group.as_str(), subject.t.kind.as_str());
    let applies = |g: &str, k: &str| pattern_matches(g, group) && pattern_matches(k, kind);
    drop_metadata(body);
    drop_status(subject, body);
    for (g, k, parent, field) in FIELDS {
        if applies(g, k) {
            visit_mut(body, parent, &mut |parent| {
                if let Some(parent) = parent.as_object_mut() {
                    parent.remove(*field);
                }
            });
        }
    }
    for (table, field) in [(ANNOTATIONS, "annotations"), (LABELS, "labels")] {
        for (_, _, pattern) in table.iter().filter(|(g, k, _)| applies(g, k)) {
            super::remove_key(body, "/metadata", field, |key| {
                pattern_matches(pattern, key)
            });
        }
    }
}

fn drop_metadata(body: &mut Value) {
    let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    for field in METADATA {
        metadata.remove(*field);
    }
    if let Some(Value::Array(finalizers)) = metadata.get_mut("finalizers") {
        finalizers.retain(|finalizer| {
            !finalizer
                .as_str()
                .is_some_and(|name| FINALIZERS.iter().any(|known| pattern_matches(known, name)))
        });
        if finalizers.is_empty() {
            metadata.remove("finalizers");
        }
    }
}

/// A status is what controllers observed; without a status subresource it is
/// data like any other, and comes along.
fn drop_status(subject: &Subject<'_>, body: &mut Value) {
    let Some(body) = body.as_object_mut() else {
        return;
    };
    body.remove("status");
    if subject.context.keeps_status(&subject.t.id())
        && let Some(status) = subject.volatile.get("status")
    {
        body.insert("status".to_owned(), status.clone());
    }
}
