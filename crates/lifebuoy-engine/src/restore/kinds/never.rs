//! Objects that are never restored: what a cluster keeps about itself, what it
//! makes by itself, and what has ended.

use std::borrow::Cow;

use serde_json::Value;

use super::Subject;
use crate::restore::map::pattern_matches;

const OF_THE_CLUSTER: &str = "it describes the source cluster itself";
const MADE_BY_THE_CLUSTER: &str = "every cluster makes it itself";
const REQUEST: &str = "it is a request or a result of lifebuoy, not a part of the applications";
const STORAGE: &str = "it stands for something in the storage of the source cluster";
const ISSUANCE: &str = "it is a step of an issuance that belongs to the past";

/// Kinds: group, kind, why.
#[rustfmt::skip] // one row a line
const KINDS: &[(&str, &str, &str)] = &[
    ("", "Event", OF_THE_CLUSTER),
    ("events.k8s.io", "Event", OF_THE_CLUSTER),
    ("", "Node", OF_THE_CLUSTER),
    ("", "ComponentStatus", OF_THE_CLUSTER),
    ("apps", "ControllerRevision", "its controller makes it again"),
    ("coordination.k8s.io", "Lease", OF_THE_CLUSTER),
    ("coordination.k8s.io", "LeaseCandidate", OF_THE_CLUSTER),
    ("storage.k8s.io", "CSINode", OF_THE_CLUSTER),
    ("storage.k8s.io", "CSIStorageCapacity", OF_THE_CLUSTER),
    ("storage.k8s.io", "VolumeAttachment", OF_THE_CLUSTER),
    ("resource.k8s.io", "ResourceSlice", OF_THE_CLUSTER),
    ("resource.k8s.io", "ResourcePoolStatusRequest", OF_THE_CLUSTER),
    ("networking.k8s.io", "IPAddress", OF_THE_CLUSTER),
    ("internal.apiserver.k8s.io", "StorageVersion", OF_THE_CLUSTER),
    ("storagemigration.k8s.io", "StorageVersionMigration", OF_THE_CLUSTER),
    ("certificates.k8s.io", "PodCertificateRequest", OF_THE_CLUSTER),
    ("certificates.k8s.io", "CertificateSigningRequest", "the server would sign it in our name"),
    ("metrics.k8s.io", "*", OF_THE_CLUSTER),
    ("snapshot.storage.k8s.io", "VolumeSnapshot", STORAGE),
    ("snapshot.storage.k8s.io", "VolumeSnapshotContent", STORAGE),
    ("groupsnapshot.storage.k8s.io", "VolumeGroupSnapshot", STORAGE),
    ("groupsnapshot.storage.k8s.io", "VolumeGroupSnapshotContent", STORAGE),
    ("cert-manager.io", "CertificateRequest", ISSUANCE),
    ("acme.cert-manager.io", "*", ISSUANCE),
    ("lifebuoy.dev", "Backup", REQUEST),
    ("lifebuoy.dev", "Restore", REQUEST),
    ("lifebuoy.dev", "RecoveryPoint", REQUEST),
    ("lifebuoy.dev", "VolumeRestore", REQUEST),
];

/// Objects: group, kind, namespace, pattern of the name, why.
#[rustfmt::skip] // one row a line
const OBJECTS: &[(&str, &str, &str, &str, &str)] = &[
    ("", "ConfigMap", "*", "kube-root-ca.crt", MADE_BY_THE_CLUSTER),
    ("", "ConfigMap", "kube-system", "extension-apiserver-authentication", MADE_BY_THE_CLUSTER),
    ("", "Secret", "kube-system", "bootstrap-token-*", OF_THE_CLUSTER),
    ("", "Service", "default", "kubernetes", MADE_BY_THE_CLUSTER),
    ("", "Endpoints", "default", "kubernetes", MADE_BY_THE_CLUSTER),
    ("discovery.k8s.io", "EndpointSlice", "default", "kubernetes", MADE_BY_THE_CLUSTER),
    ("networking.k8s.io", "ServiceCIDR", "", "kubernetes", MADE_BY_THE_CLUSTER),
    ("scheduling.k8s.io", "PriorityClass", "", "system-*", MADE_BY_THE_CLUSTER),
];

/// Labels and annotations: group, kind, pointer of the map, key, value, why.
#[rustfmt::skip] // one row a line
const MARKS: &[(&str, &str, &str, &str, &str, &str)] = &[
    ("rbac.authorization.k8s.io", "*", "/metadata/labels", "kubernetes.io/bootstrapping", "rbac-defaults", MADE_BY_THE_CLUSTER),
    ("flowcontrol.apiserver.k8s.io", "*", "/metadata/annotations", "apf.kubernetes.io/autoupdate-spec", "true", MADE_BY_THE_CLUSTER),
    ("apiregistration.k8s.io", "APIService", "/metadata/labels", "kube-aggregator.kubernetes.io/automanaged", "*", MADE_BY_THE_CLUSTER),
    ("discovery.k8s.io", "EndpointSlice", "/metadata/labels", "endpointslice.kubernetes.io/managed-by", "endpointslice*controller.k8s.io", MADE_BY_THE_CLUSTER),
    ("", "Endpoints", "/metadata/labels", "endpoints.kubernetes.io/managed-by", "endpoint-controller", MADE_BY_THE_CLUSTER),
    ("", "Pod", "/metadata/annotations", "kubernetes.io/config.mirror", "*", OF_THE_CLUSTER),
];

/// Why the object is never restored, if so.
pub(super) fn restored(subject: &Subject<'_>, body: &Value) -> Option<Cow<'static, str>> {
    let (group, kind) = (subject.t.group.as_str(), subject.t.kind.as_str());
    let key = &subject.object.key;
    let of_kind = |g: &str, k: &str| pattern_matches(g, group) && pattern_matches(k, kind);
    let by_kind = KINDS
        .iter()
        .find(|(g, k, _)| of_kind(g, k))
        .map(|row| row.2);
    let by_name = || {
        OBJECTS
            .iter()
            .find(|(g, k, namespace, name, _)| {
                of_kind(g, k)
                    && pattern_matches(namespace, &key.namespace)
                    && pattern_matches(name, &key.name)
            })
            .map(|row| row.4)
    };
    let by_mark = || {
        MARKS
            .iter()
            .find(|(g, k, map, mark, value, _)| {
                of_kind(g, k)
                    && body
                        .pointer(map)
                        .and_then(|map| map[mark].as_str())
                        .is_some_and(|found| pattern_matches(value, found))
            })
            .map(|row| row.5)
    };
    by_kind
        .or_else(by_name)
        .or_else(by_mark)
        .or_else(|| ended(subject, body))
        .map(Cow::Borrowed)
}

fn ended(subject: &Subject<'_>, body: &Value) -> Option<&'static str> {
    if !body["metadata"]["deletionTimestamp"].is_null() {
        return Some("it was being deleted when it was captured");
    }
    let of_pod = subject.t.kind == "ResourceClaim"
        && body["metadata"]["ownerReferences"]
            .as_array()
            .is_some_and(|owners| owners.iter().any(|owner| owner["kind"] == "Pod"));
    of_pod.then_some("its pod makes it again")
}
