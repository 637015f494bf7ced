//! Where objects hold names: tables of group, kind, path and meaning.
//!
//! A group or kind may begin or end with `*`. The paths of pods and claims are
//! relative to the template that holds them.

use super::meaning::Meaning::{self, *};

/// Places in objects: group, kind, path, meaning.
#[rustfmt::skip] // one row a line
const PLACES: &[(&str, &str, &str, Meaning)] = &[
    // Namespaces and who may do what in them.
    ("", "Namespace", "metadata.name", Namespace),
    (RBAC, "*RoleBinding", "subjects[].namespace", Namespace),
    (RBAC, "*RoleBinding", "subjects[].name", Account),
    (RBAC, "*Role", "rules[]", RbacRule),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema", "spec.rules[].subjects[].serviceAccount.namespace", Namespace),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema", "spec.rules[].subjects[].user.name", Account),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema", "spec.rules[].subjects[].group.name", Account),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema", "spec.rules[].resourceRules[].namespaces[]", Namespace),
    // Webhooks, policies, extension APIs.
    (ADMISSION, "*WebhookConfiguration", "webhooks[].clientConfig.service.namespace", Namespace),
    (ADMISSION, "*WebhookConfiguration", "webhooks[].namespaceSelector", NamespaceSelector),
    (ADMISSION, "*AdmissionPolicy", "spec.matchConstraints.namespaceSelector", NamespaceSelector),
    (ADMISSION, "*AdmissionPolicyBinding", "spec.matchResources.namespaceSelector", NamespaceSelector),
    (ADMISSION, "*AdmissionPolicyBinding", "spec.paramRef.namespace", Namespace),
    ("apiextensions.k8s.io", "CustomResourceDefinition", "spec.conversion.webhook.clientConfig.service.namespace", Namespace),
    ("apiregistration.k8s.io", "APIService", "spec.service.namespace", Namespace),
    // Storage.
    ("", "PersistentVolume", "spec.claimRef.namespace", Namespace),
    ("", "PersistentVolume", "spec.csi.controllerPublishSecretRef.namespace", Namespace),
    ("", "PersistentVolume", "spec.csi.nodeStageSecretRef.namespace", Namespace),
    ("", "PersistentVolume", "spec.csi.nodePublishSecretRef.namespace", Namespace),
    ("", "PersistentVolume", "spec.csi.controllerExpandSecretRef.namespace", Namespace),
    ("", "PersistentVolume", "spec.csi.nodeExpandSecretRef.namespace", Namespace),
    ("", "PersistentVolume", "spec.rbd.secretRef.namespace", Namespace),
    ("", "PersistentVolume", "spec.cephfs.secretRef.namespace", Namespace),
    ("", "PersistentVolume", "spec.iscsi.secretRef.namespace", Namespace),
    ("", "PersistentVolume", "spec.scaleIO.secretRef.namespace", Namespace),
    ("", "PersistentVolume", "spec.flexVolume.secretRef.namespace", Namespace),
    ("", "PersistentVolume", "spec.storageos.secretRef.namespace", Namespace),
    ("", "PersistentVolume", "spec.storageos.volumeNamespace", Namespace),
    ("", "PersistentVolume", "spec.azureFile.secretNamespace", Namespace),
    ("", "PersistentVolume", "spec.glusterfs.endpointsNamespace", Namespace),
    ("", "PersistentVolume", "spec.storageClassName", StorageClass),
    ("", "ResourceQuota", "spec.hard", QuotaLimits),
    ("storage.k8s.io", "StorageClass", "parameters", ClassParameters),
    (SNAPSHOT, "VolumeSnapshotClass", "parameters", ClassParameters),
    (SNAPSHOT, "VolumeSnapshotContent", "spec.volumeSnapshotRef.namespace", Namespace),
    ("groupsnapshot.storage.k8s.io", "VolumeGroupSnapshotClass", "parameters", ClassParameters),
    ("groupsnapshot.storage.k8s.io", "VolumeGroupSnapshotContent", "spec.volumeGroupSnapshotRef.namespace", Namespace),
    // Network.
    ("", "Endpoints", "subsets[].addresses[].targetRef.namespace", Namespace),
    ("", "Endpoints", "subsets[].notReadyAddresses[].targetRef.namespace", Namespace),
    ("discovery.k8s.io", "EndpointSlice", "endpoints[].targetRef.namespace", Namespace),
    (NETWORK, "NetworkPolicy", "spec.ingress[].from[].namespaceSelector", NamespaceSelector),
    (NETWORK, "NetworkPolicy", "spec.egress[].to[].namespaceSelector", NamespaceSelector),
    (NETWORK, "IngressClass", "spec.parameters.namespace", Namespace),
    (NETWORK, "IPAddress", "spec.parentRef.namespace", Namespace),
    (NETWORK, "Ingress", "spec.ingressClassName", IngressClass),
    (NETWORK, "Ingress", "spec.rules[].host", Host),
    (NETWORK, "Ingress", "spec.tls[].hosts[]", Host),
    (NETWORK_POLICY, "*AdminNetworkPolicy", "spec.subject.namespaces", NamespaceSelector),
    (NETWORK_POLICY, "*AdminNetworkPolicy", "spec.subject.pods.namespaceSelector", NamespaceSelector),
    (NETWORK_POLICY, "*AdminNetworkPolicy", "spec.ingress[].from[].namespaces", NamespaceSelector),
    (NETWORK_POLICY, "*AdminNetworkPolicy", "spec.ingress[].from[].pods.namespaceSelector", NamespaceSelector),
    (NETWORK_POLICY, "*AdminNetworkPolicy", "spec.egress[].to[].namespaces", NamespaceSelector),
    (NETWORK_POLICY, "*AdminNetworkPolicy", "spec.egress[].to[].pods.namespaceSelector", NamespaceSelector),
    // Gateway API.
    (GATEWAY, "*Route", "spec.parentRefs[].namespace", Namespace),
    (GATEWAY, "*Route", "spec.rules[].backendRefs[].namespace", Namespace),
    (GATEWAY, "*Route", "spec.rules[].backendRefs[].filters[].requestMirror.backendRef.namespace", Namespace),
    (GATEWAY, "*Route", "spec.rules[].filters[].requestMirror.backendRef.namespace", Namespace),
    (GATEWAY, "*Route", "spec.hostnames[]", Host),
    (GATEWAY, "*Route", "spec.rules[].filters[].requestRedirect.hostname", Host),
    (GATEWAY, "Gateway", "spec.gatewayClassName", IngressClass),
    (GATEWAY, "Gateway", "spec.listeners[].hostname", Host),
    (GATEWAY, "Gateway", "spec.listeners[].tls.certificateRefs[].namespace", Namespace),
    (GATEWAY, "Gateway", "spec.listeners[].tls.frontendValidation.caCertificateRefs[].namespace", Namespace),
    (GATEWAY, "Gateway", "spec.listeners[].allowedRoutes.namespaces.selector", NamespaceSelector),
    (GATEWAY, "ReferenceGrant", "spec.from[].namespace", Namespace),
    (GATEWAY, "GatewayClass", "spec.parametersRef.namespace", Namespace),
    ("route.openshift.io", "Route", "spec.host", Host),
    // Prometheus operator.
    (PROMETHEUS, "*Monitor", "spec.namespaceSelector.matchNames[]", Namespace),
    (PROMETHEUS, "Probe", "spec.targets.ingress.namespaceSelector.matchNames[]", Namespace),
    (PROMETHEUS, "Prometheus", "spec.alerting.alertmanagers[].namespace", Namespace),
    (PROMETHEUS, "*", "spec.serviceMonitorNamespaceSelector", NamespaceSelector),
    (PROMETHEUS, "*", "spec.podMonitorNamespaceSelector", NamespaceSelector),
    (PROMETHEUS, "*", "spec.probeNamespaceSelector", NamespaceSelector),
    (PROMETHEUS, "*", "spec.scrapeConfigNamespaceSelector", NamespaceSelector),
    (PROMETHEUS, "*", "spec.ruleNamespaceSelector", NamespaceSelector),
    (PROMETHEUS, "Alertmanager", "spec.alertmanagerConfigNamespaceSelector", NamespaceSelector),
    (PROMETHEUS, "*", "spec.image", Image),
    // Argo CD.
    (ARGO, "Application", "spec.destination", ArgoDestination),
    (ARGO, "ApplicationSet", "spec.template.spec.destination", ArgoDestination),
    (ARGO, "AppProject", "spec.destinations[]", ArgoDestination),
    (ARGO, "AppProject", "spec.sourceNamespaces[]", Namespace),
    // Flux.
    ("*.toolkit.fluxcd.io", "*", "spec.targetNamespace", Namespace),
    ("*.toolkit.fluxcd.io", "*", "spec.storageNamespace", Namespace),
    ("*.toolkit.fluxcd.io", "*", "spec.sourceRef.namespace", Namespace),
    ("*.toolkit.fluxcd.io", "*", "spec.chartRef.namespace", Namespace),
    ("*.toolkit.fluxcd.io", "*", "spec.chart.spec.sourceRef.namespace", Namespace),
    ("*.toolkit.fluxcd.io", "*", "spec.dependsOn[].namespace", Namespace),
    ("*.toolkit.fluxcd.io", "*", "spec.healthChecks[].namespace", Namespace),
    ("*.toolkit.fluxcd.io", "*", "spec.eventSources[].namespace", Namespace),
    ("*.toolkit.fluxcd.io", "*", "spec.resources[].namespace", Namespace),
    ("*.toolkit.fluxcd.io", "*", "spec.imageRepositoryRef.namespace", Namespace),
    ("*.toolkit.fluxcd.io", "*", "spec.accessFrom.namespaceSelectors[]", NamespaceSelector),
    // Istio.
    (ISTIO, "*", "spec.exportTo[]", Namespace),
    (ISTIO, "VirtualService", "spec.hosts[]", MeshHost),
    (ISTIO, "VirtualService", "spec.gateways[]", NamespacedName),
    (ISTIO, "VirtualService", "spec.http[].match[].gateways[]", NamespacedName),
    (ISTIO, "VirtualService", "spec.http[].delegate.namespace", Namespace),
    (ISTIO, "VirtualService", "spec.http[].mirror.host", MeshHost),
    (ISTIO, "VirtualService", "spec.http[].mirrors[].destination.host", MeshHost),
    (ISTIO, "VirtualService", "spec.http[].route[].destination.host", MeshHost),
    (ISTIO, "VirtualService", "spec.tcp[].route[].destination.host", MeshHost),
    (ISTIO, "VirtualService", "spec.tls[].route[].destination.host", MeshHost),
    (ISTIO, "VirtualService", "spec.tls[].match[].sniHosts[]", MeshHost),
    (ISTIO, "DestinationRule", "spec.host", MeshHost),
    (ISTIO, "ServiceEntry", "spec.hosts[]", MeshHost),
    (ISTIO, "Gateway", "spec.servers[].hosts[]", MeshScopedHost),
    (ISTIO, "Sidecar", "spec.egress[].hosts[]", MeshScopedHost),
    ("security.istio.io", "AuthorizationPolicy", "spec.rules[].from[].source.namespaces[]", Namespace),
    ("security.istio.io", "AuthorizationPolicy", "spec.rules[].from[].source.notNamespaces[]", Namespace),
    ("security.istio.io", "AuthorizationPolicy", "spec.rules[].from[].source.principals[]", Principal),
    ("security.istio.io", "AuthorizationPolicy", "spec.rules[].from[].source.notPrincipals[]", Principal),
    // Certificates, external secrets, databases.
    ("cert-manager.io", "Certificate", "spec.dnsNames[]", Host),
    ("cert-manager.io", "Certificate", "spec.commonName", Host),
    ("cert-manager.io", "*Issuer", "spec.acme.solvers[].http01.ingress.class", IngressClass),
    ("cert-manager.io", "*Issuer", "spec.acme.solvers[].http01.ingress.ingressClassName", IngressClass),
    ("cert-manager.io", "*Issuer", "spec.acme.solvers[].http01.gatewayHTTPRoute.parentRefs[].namespace", Namespace),
    ("external-secrets.io", "ClusterSecretStore", "spec.provider.**.namespace", Namespace),
    ("external-secrets.io", "ClusterSecretStore", "spec.conditions[].namespaces[]", Namespace),
    ("external-secrets.io", "ClusterSecretStore", "spec.conditions[].namespaceSelector", NamespaceSelector),
    ("external-secrets.io", "ClusterExternalSecret", "spec.namespaces[]", Namespace),
    ("external-secrets.io", "ClusterExternalSecret", "spec.namespaceSelectors[]", NamespaceSelector),
    ("postgresql.cnpg.io", "Cluster", "spec.imageName", Image),
    ("postgresql.cnpg.io", "Cluster", "spec.storage.storageClass", StorageClass),
    ("postgresql.cnpg.io", "Cluster", "spec.walStorage.storageClass", StorageClass),
];

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
const SNAPSHOT: &str = "snapshot.storage.k8s.io";
const NETWORK: &str = "networking.k8s.io";
const NETWORK_POLICY: &str = "policy.networking.k8s.io";
const GATEWAY: &str = "gateway.networking.k8s.io";
const PROMETHEUS: &str = "monitoring.coreos.com";
const ARGO: &str = "argoproj.io";
const ISTIO: &str = "networking.istio.io";

/// Annotations of objects, and of the pods and claims in templates.
pub(super) const ANNOTATIONS: &[(&str, Meaning)] = &[
    ("argocd.argoproj.io/tracking-id", ArgoTracking),
    ("cert-manager.io/alt-names", HostList),
    ("cert-manager.io/common-name", Host),
    ("cert-manager.io/inject-ca-from", NamespacedName),
    ("cert-manager.io/inject-ca-from-secret", NamespacedName),
    ("external-dns.alpha.kubernetes.io/hostname", HostList),
    (
        "external-dns.alpha.kubernetes.io/internal-hostname",
        HostList,
    ),
    ("kubernetes.io/ingress.class", IngressClass),
    ("meta.helm.sh/release-namespace", Namespace),
    ("nginx.ingress.kubernetes.io/auth-secret", NamespacedName),
    (
        "nginx.ingress.kubernetes.io/auth-tls-secret",
        NamespacedName,
    ),
    (
        "nginx.ingress.kubernetes.io/proxy-ssl-secret",
        NamespacedName,
    ),
    ("nginx.ingress.kubernetes.io/server-alias", HostList),
    ("replicator.v1.mittwald.de/replicate-from", NamespacedName),
    (
        "snapshot.storage.kubernetes.io/deletion-secret-namespace",
        Namespace,
    ),
    ("volume.beta.kubernetes.io/storage-class", StorageClass),
];

/// Labels of objects, and of the pods and claims in templates.
pub(super) const LABELS: &[(&str, Meaning)] = &[
    ("helm.toolkit.fluxcd.io/namespace", Namespace),
    (super::meaning::NAMESPACE_LABEL, Namespace),
    ("kustomize.toolkit.fluxcd.io/namespace", Namespace),
];

/// Places in a PersistentVolumeClaim and in templates of one.
pub(super) const CLAIM: &[(&str, Meaning)] = &[
    ("spec.storageClassName", StorageClass),
    ("spec.dataSourceRef.namespace", Namespace),
];

/// Places in a pod and in templates of one.
#[rustfmt::skip] // one row a line
pub(super) const POD: &[(&str, Meaning)] = &[
    ("spec.containers[].image", Image),
    ("spec.initContainers[].image", Image),
    ("spec.ephemeralContainers[].image", Image),
    ("spec.volumes[].image.reference", Image),
    ("spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[].namespaces[]", Namespace),
    ("spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[].namespaceSelector", NamespaceSelector),
    ("spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[].podAffinityTerm.namespaces[]", Namespace),
    ("spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[].podAffinityTerm.namespaceSelector", NamespaceSelector),
    ("spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[].namespaces[]", Namespace),
    ("spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[].namespaceSelector", NamespaceSelector),
    ("spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[].podAffinityTerm.namespaces[]", Namespace),
    ("spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[].podAffinityTerm.namespaceSelector", NamespaceSelector),
];

/// Where objects hold pods: group, kind, path of what has `metadata` and `spec`.
pub(crate) const POD_TEMPLATES: &[(&str, &str, &str)] = &[
    ("", "Pod", ""),
    ("", "PodTemplate", "template"),
    ("", "ReplicationController", "spec.template"),
    ("apps", "DaemonSet", "spec.template"),
    ("apps", "Deployment", "spec.template"),
    ("apps", "ReplicaSet", "spec.template"),
    ("apps", "StatefulSet", "spec.template"),
    ("apps.kruise.io", "*Set", "spec.template"),
    ("argoproj.io", "Rollout", "spec.template"),
    ("batch", "CronJob", "spec.jobTemplate.spec.template"),
    ("batch", "Job", "spec.template"),
    (
        "jobset.x-k8s.io",
        "JobSet",
        "spec.replicatedJobs[].template.spec.template",
    ),
    ("keda.sh", "ScaledJob", "spec.jobTargetRef.template"),
    (
        "leaderworkerset.x-k8s.io",
        "LeaderWorkerSet",
        "spec.leaderWorkerTemplate.leaderTemplate",
    ),
    (
        "leaderworkerset.x-k8s.io",
        "LeaderWorkerSet",
        "spec.leaderWorkerTemplate.workerTemplate",
    ),
    ("ray.io", "RayCluster", "spec.headGroupSpec.template"),
    ("ray.io", "RayCluster", "spec.workerGroupSpecs[].template"),
    ("serving.knative.dev", "*", "spec.template"),
];

/// Where objects hold claims: group, kind, path of what has a claim's `spec`.
const CLAIM_TEMPLATES: &[(&str, &str, &str)] = &[
    ("", "PersistentVolumeClaim", ""),
    ("apps", "StatefulSet", "spec.volumeClaimTemplates[]"),
    ("apps.kruise.io", "*Set", "spec.volumeClaimTemplates[]"),
    (PROMETHEUS, "*", "spec.storage.volumeClaimTemplate"),
    (
        PROMETHEUS,
        "*",
        "spec.storage.ephemeral.volumeClaimTemplate",
    ),
];

/// The places of a kind.
pub(super) fn places_of<'a>(
    group: &'a str,
    kind: &'a str,
) -> impl Iterator<Item = (&'static str, &'static Meaning)> + 'a {
    PLACES
        .iter()
        .filter(move |(g, k, ..)| pattern_matches(g, group) && pattern_matches(k, kind))
        .map(|(_, _, path, meaning)| (*path, meaning))
}

/// The paths of the pods in a kind.
pub(crate) fn pod_templates_of<'a>(
    group: &'a str,
    kind: &'a str,
) -> impl Iterator<Item = &'static str> + 'a {
    paths_of(POD_TEMPLATES, group, kind)
}

/// The paths of the claims in a kind.
pub(super) fn claim_templates_of<'a>(
    group: &'a str,
    kind: &'a str,
) -> impl Iterator<Item = &'static str> + 'a {
    paths_of(CLAIM_TEMPLATES, group, kind)
}

fn paths_of<'a>(
    table: &'static [(&'static str, &'static str, &'static str)],
    group: &'a str,
    kind: &'a str,
) -> impl Iterator<Item = &'static str> + 'a {
    table
        .iter()
        .filter(move |(g, k, _)| pattern_matches(g, group) && pattern_matches(k, kind))
        .map(|(_, _, path)| *path)
}

/// Whether a text matches a table's pattern with at most one `*`.
pub(crate) fn pattern_matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => {
            text.len() >= before.len() + after.len()
                && text.starts_with(before)
                && text.ends_with(after)
        }
    }
}
