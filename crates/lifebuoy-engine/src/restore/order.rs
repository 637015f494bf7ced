//! In which order types are applied: waves, as a table. Pure.
//!
//! A wave begins when the one before it is done. Inside a wave the order is that
//! of the table, and owners come before what they own.

use super::map::pattern_matches;

/// The wave of workloads that answer for webhooks, conversions and APIs.
pub(crate) const SERVING_WAVE: u8 = 6;

/// The wave of everything that the table does not name: custom resources.
const OTHER_WAVE: u8 = 7;

/// Wave, group, kind.
const WAVES: &[(u8, &str, &str)] = &[
    (0, "apiextensions.k8s.io", "CustomResourceDefinition"),
    (1, "", "Namespace"),
    // What workloads and claims refer to by name.
    (2, "storage.k8s.io", "StorageClass"),
    (2, "storage.k8s.io", "VolumeAttributesClass"),
    (2, "storage.k8s.io", "CSIDriver"),
    (2, "snapshot.storage.k8s.io", "VolumeSnapshotClass"),
    (
        2,
        "groupsnapshot.storage.k8s.io",
        "VolumeGroupSnapshotClass",
    ),
    (2, "scheduling.k8s.io", "PriorityClass"),
    (2, "node.k8s.io", "RuntimeClass"),
    (2, "networking.k8s.io", "IngressClass"),
    (2, "networking.k8s.io", "ServiceCIDR"),
    (2, "gateway.networking.k8s.io", "GatewayClass"),
    (2, "resource.k8s.io", "DeviceClass"),
    (2, "flowcontrol.apiserver.k8s.io", "*"),
    (2, "certificates.k8s.io", "ClusterTrustBundle"),
    (2, "rbac.authorization.k8s.io", "ClusterRole"),
    // What pods start with; policies before pods leave no open moment.
    (3, "", "ServiceAccount"),
    (3, "", "Secret"),
    (3, "", "ConfigMap"),
    (3, "rbac.authorization.k8s.io", "Role"),
    (3, "rbac.authorization.k8s.io", "RoleBinding"),
    (3, "rbac.authorization.k8s.io", "ClusterRoleBinding"),
    (3, "networking.k8s.io", "NetworkPolicy"),
    (3, "policy.networking.k8s.io", "*"),
    (3, "", "LimitRange"),
    // Data.
    (4, "snapshot.storage.k8s.io", "VolumeSnapshotContent"),
    (4, "snapshot.storage.k8s.io", "VolumeSnapshot"),
    (4, "groupsnapshot.storage.k8s.io", "*"),
    (4, "", "PersistentVolume"),
    (4, "", "PersistentVolumeClaim"),
    (5, "", "Service"),
    (5, "", "Endpoints"),
    (5, "discovery.k8s.io", "EndpointSlice"),
    // 6: workloads that serve; see `SERVING_WAVE`.
    (7, "cert-manager.io", "*Issuer"),
    (7, "cert-manager.io", "Certificate"),
    (8, "resource.k8s.io", "*"),
    (8, "", "PodTemplate"),
    (8, "apps", "DaemonSet"),
    (8, "apps", "StatefulSet"),
    (8, "apps", "Deployment"),
    (8, "apps", "ReplicaSet"),
    (8, "", "ReplicationController"),
    (8, "batch", "CronJob"),
    (8, "batch", "Job"),
    (8, "", "Pod"),
    // What acts on workloads, or would refuse them.
    (9, "policy", "PodDisruptionBudget"),
    (9, "autoscaling", "HorizontalPodAutoscaler"),
    (9, "", "ResourceQuota"),
    (9, "networking.k8s.io", "Ingress"),
    (9, "gateway.networking.k8s.io", "*"),
    (9, "route.openshift.io", "*"),
    // What could refuse everything before it.
    (10, "apiregistration.k8s.io", "APIService"),
    (10, "admissionregistration.k8s.io", "*"),
];

/// Kinds that can answer for others when a Service selects their pods.
const SERVING: &[(&str, &str)] = &[
    ("", "Pod"),
    ("", "ReplicationController"),
    ("apps", "DaemonSet"),
    ("apps", "Deployment"),
    ("apps", "ReplicaSet"),
    ("apps", "StatefulSet"),
];

/// The wave of a type, and its place in the wave.
pub(crate) fn wave(group: &str, kind: &str) -> (u8, usize) {
    WAVES
        .iter()
        .position(|(_, g, k)| pattern_matches(g, group) && pattern_matches(k, kind))
        .map_or((OTHER_WAVE, WAVES.len()), |at| (WAVES[at].0, at))
}

/// Whether objects of the type can answer for webhooks, conversions and APIs.
pub(crate) fn can_serve(group: &str, kind: &str) -> bool {
    SERVING.contains(&(group, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_row_is_reached() {
        assert!(WAVES.is_sorted_by_key(|(wave, ..)| *wave));
        for (at, (wave_of, group, kind)) in WAVES.iter().enumerate() {
            let (found, place) = wave(group, &kind.replace('*', ""));
            assert!(
                kind.contains('*') || (found, place) == (*wave_of, at),
                "{group} {kind} is hidden by a row before it"
            );
        }
    }

    #[test]
    fn custom_resources_come_after_what_they_need_and_before_workloads() {
        assert_eq!(wave("example.com", "Database").0, OTHER_WAVE);
        assert!(wave("apiextensions.k8s.io", "CustomResourceDefinition").0 < OTHER_WAVE);
        assert!(wave("admissionregistration.k8s.io", "ValidatingAdmissionPolicy").0 > OTHER_WAVE);
    }
}
