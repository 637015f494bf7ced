use serde_json::{Value, json};

use super::*;

fn mapper(mapping: Value) -> Mapper {
    Mapper::parse(&serde_json::from_value(mapping).unwrap(), "spec.mapping").unwrap()
}

fn everything() -> Mapper {
    mapper(json!({
        "namespaces": [{"from": "a", "to": "b"}, {"from": "team-*", "to": "new-*"}],
        "storageClasses": [{"from": "sa", "to": "sb"}],
        "ingressClasses": [{"from": "ia", "to": "ib"}],
        "images": [{"from": "reg.a/", "to": "reg.b/"}],
        "hosts": [{"from": "*.a.example", "to": "*.b.example"}],
    }))
}

/// Maps a body of a kind, and checks what becomes of the value at a pointer.
#[track_caller]
fn maps(group: &str, kind: &str, pointer: &str, from: Value, to: Value) {
    let mut body =
        json!({"apiVersion": "x/v1", "kind": kind, "metadata": {"name": "x", "namespace": "a"}});
    put(&mut body, pointer, from);
    everything().map(group, kind, &mut body);
    assert_eq!(
        body.pointer(pointer),
        Some(&to),
        "{group} {kind} {pointer}: {body}"
    );
}

/// Puts a value where a pointer says; `0` makes a list.
fn put(body: &mut Value, pointer: &str, value: Value) {
    let mut at = body;
    for part in pointer[1..].split('/') {
        let part = part.replace("~1", "/");
        at = if part == "0" {
            if at.is_null() {
                *at = json!([null]);
            }
            &mut at[0]
        } else {
            &mut at[part]
        };
    }
    *at = value;
}

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
const GATEWAY: &str = "gateway.networking.k8s.io";

#[test]
fn namespaces_are_mapped_in_every_typed_place() {
    let by_label = json!({"matchLabels": {"kubernetes.io/metadata.name": "a", "other": "a"}});
    let by_label_b = json!({"matchLabels": {"kubernetes.io/metadata.name": "b", "other": "a"}});
    let by_expression = json!({"matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "team-x", "z"]},
        {"key": "other", "operator": "In", "values": ["a"]},
    ]});
    let by_expression_b = json!({"matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["b", "new-x", "z"]},
        {"key": "other", "operator": "In", "values": ["a"]},
    ]});
    let names: &[(&str, &str, &str)] = &[
        ("", "ConfigMap", "/metadata/namespace"),
        ("", "Namespace", "/metadata/name"),
        (
            "",
            "Namespace",
            "/metadata/labels/kubernetes.io~1metadata.name",
        ),
        (RBAC, "RoleBinding", "/subjects/0/namespace"),
        (RBAC, "ClusterRoleBinding", "/subjects/0/namespace"),
        (
            "flowcontrol.apiserver.k8s.io",
            "FlowSchema",
            "/spec/rules/0/subjects/0/serviceAccount/namespace",
        ),
        (
            "flowcontrol.apiserver.k8s.io",
            "FlowSchema",
            "/spec/rules/0/resourceRules/0/namespaces/0",
        ),
        (
            ADMISSION,
            "MutatingWebhookConfiguration",
            "/webhooks/0/clientConfig/service/namespace",
        ),
        (
            ADMISSION,
            "ValidatingAdmissionPolicyBinding",
            "/spec/paramRef/namespace",
        ),
        (
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "/spec/conversion/webhook/clientConfig/service/namespace",
        ),
        (
            "apiregistration.k8s.io",
            "APIService",
            "/spec/service/namespace",
        ),
        ("", "PersistentVolume", "/spec/claimRef/namespace"),
        (
            "",
            "PersistentVolume",
            "/spec/csi/nodeStageSecretRef/namespace",
        ),
        ("", "PersistentVolume", "/spec/azureFile/secretNamespace"),
        ("", "PersistentVolume", "/spec/glusterfs/endpointsNamespace"),
        ("", "PersistentVolumeClaim", "/spec/dataSourceRef/namespace"),
        (
            "storage.k8s.io",
            "StorageClass",
            "/parameters/csi.storage.k8s.io~1provisioner-secret-namespace",
        ),
        (
            "snapshot.storage.k8s.io",
            "VolumeSnapshotContent",
            "/spec/volumeSnapshotRef/namespace",
        ),
        (
            "networking.k8s.io",
            "IngressClass",
            "/spec/parameters/namespace",
        ),
        (GATEWAY, "HTTPRoute", "/spec/parentRefs/0/namespace"),
        (
            GATEWAY,
            "GRPCRoute",
            "/spec/rules/0/backendRefs/0/namespace",
        ),
        (
            GATEWAY,
            "HTTPRoute",
            "/spec/rules/0/filters/0/requestMirror/backendRef/namespace",
        ),
        (
            GATEWAY,
            "Gateway",
            "/spec/listeners/0/tls/certificateRefs/0/namespace",
        ),
        (GATEWAY, "ReferenceGrant", "/spec/from/0/namespace"),
        (GATEWAY, "GatewayClass", "/spec/parametersRef/namespace"),
        (
            "monitoring.coreos.com",
            "ServiceMonitor",
            "/spec/namespaceSelector/matchNames/0",
        ),
        ("argoproj.io", "Application", "/spec/destination/namespace"),
        ("argoproj.io", "AppProject", "/spec/sourceNamespaces/0"),
        (
            "kustomize.toolkit.fluxcd.io",
            "Kustomization",
            "/spec/targetNamespace",
        ),
        (
            "helm.toolkit.fluxcd.io",
            "HelmRelease",
            "/spec/chart/spec/sourceRef/namespace",
        ),
        (
            "kustomize.toolkit.fluxcd.io",
            "Kustomization",
            "/spec/dependsOn/0/namespace",
        ),
        ("networking.istio.io", "DestinationRule", "/spec/exportTo/0"),
        (
            "security.istio.io",
            "AuthorizationPolicy",
            "/spec/rules/0/from/0/source/namespaces/0",
        ),
        (
            "external-secrets.io",
            "ClusterSecretStore",
            "/spec/provider/vault/auth/jwt/serviceAccountRef/namespace",
        ),
        (
            "",
            "ConfigMap",
            "/metadata/annotations/meta.helm.sh~1release-namespace",
        ),
        (
            "",
            "ConfigMap",
            "/metadata/labels/kustomize.toolkit.fluxcd.io~1namespace",
        ),
        (
            "apps",
            "Deployment",
            "/spec/template/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/0/namespaces/0",
        ),
        (
            "batch",
            "CronJob",
            "/spec/jobTemplate/spec/template/spec/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/0/podAffinityTerm/namespaces/0",
        ),
        (
            "",
            "Pod",
            "/spec/volumes/0/ephemeral/volumeClaimTemplate/spec/dataSourceRef/namespace",
        ),
    ];
    for (group, kind, pointer) in names {
        maps(group, kind, pointer, json!("a"), json!("b"));
        maps(group, kind, pointer, json!("z"), json!("z"));
    }
    let selectors: &[(&str, &str, &str)] = &[
        (
            "networking.k8s.io",
            "NetworkPolicy",
            "/spec/ingress/0/from/0/namespaceSelector",
        ),
        (
            "networking.k8s.io",
            "NetworkPolicy",
            "/spec/egress/0/to/0/namespaceSelector",
        ),
        (
            ADMISSION,
            "ValidatingWebhookConfiguration",
            "/webhooks/0/namespaceSelector",
        ),
        (
            ADMISSION,
            "ValidatingAdmissionPolicy",
            "/spec/matchConstraints/namespaceSelector",
        ),
        (
            ADMISSION,
            "MutatingAdmissionPolicyBinding",
            "/spec/matchResources/namespaceSelector",
        ),
        (
            GATEWAY,
            "Gateway",
            "/spec/listeners/0/allowedRoutes/namespaces/selector",
        ),
        (
            "policy.networking.k8s.io",
            "BaselineAdminNetworkPolicy",
            "/spec/subject/namespaces",
        ),
        (
            "apps",
            "StatefulSet",
            "/spec/template/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/0/namespaceSelector",
        ),
    ];
    for (group, kind, pointer) in selectors {
        maps(group, kind, pointer, by_label.clone(), by_label_b.clone());
        maps(
            group,
            kind,
            pointer,
            by_expression.clone(),
            by_expression_b.clone(),
        );
    }
}

#[test]
fn texts_that_hold_a_namespace_are_mapped_by_their_form() {
    let subject = "/subjects/0/name";
    for kind in ["RoleBinding", "ClusterRoleBinding"] {
        maps(
            RBAC,
            kind,
            subject,
            json!("system:serviceaccounts:a"),
            json!("system:serviceaccounts:b"),
        );
        maps(
            RBAC,
            kind,
            subject,
            json!("system:serviceaccount:a:a"),
            json!("system:serviceaccount:b:a"),
        );
        maps(RBAC, kind, subject, json!("a"), json!("a"));
    }
    let inject = "/metadata/annotations/cert-manager.io~1inject-ca-from";
    maps("", "ConfigMap", inject, json!("a/cert"), json!("b/cert"));
    let secret = "/metadata/annotations/nginx.ingress.kubernetes.io~1auth-secret";
    maps(
        "networking.k8s.io",
        "Ingress",
        secret,
        json!("a/x"),
        json!("b/x"),
    );
    maps(
        "networking.k8s.io",
        "Ingress",
        secret,
        json!("a"),
        json!("a"),
    );
    let istio = "networking.istio.io";
    let host = "/spec/http/0/route/0/destination/host";
    maps(
        istio,
        "VirtualService",
        host,
        json!("web.a.svc.cluster.local"),
        json!("web.b.svc.cluster.local"),
    );
    maps(istio, "VirtualService", host, json!("web"), json!("web"));
    maps(
        istio,
        "VirtualService",
        "/spec/gateways/0",
        json!("a/gw"),
        json!("b/gw"),
    );
    maps(
        istio,
        "VirtualService",
        "/spec/exportTo/0",
        json!("."),
        json!("."),
    );
    maps(
        istio,
        "Sidecar",
        "/spec/egress/0/hosts/0",
        json!("a/*"),
        json!("b/*"),
    );
    maps(
        istio,
        "Sidecar",
        "/spec/egress/0/hosts/0",
        json!("./web.a.svc"),
        json!("./web.b.svc"),
    );
    maps(
        istio,
        "Gateway",
        "/spec/servers/0/hosts/0",
        json!("a/x.a.example"),
        json!("b/x.b.example"),
    );
    let principal = "/spec/rules/0/from/0/source/principals/0";
    maps(
        "security.istio.io",
        "AuthorizationPolicy",
        principal,
        json!("cluster.local/ns/a/sa/a"),
        json!("cluster.local/ns/b/sa/a"),
    );
    let tracking = "/metadata/annotations/argocd.argoproj.io~1tracking-id";
    maps(
        "apps",
        "Deployment",
        tracking,
        json!("app:apps/Deployment:a/web"),
        json!("app:apps/Deployment:b/web"),
    );
    let elsewhere = json!({"server": "https://other.example", "namespace": "a"});
    maps(
        "argoproj.io",
        "Application",
        "/spec/destination",
        elsewhere.clone(),
        elsewhere,
    );
}

#[test]
fn rules_about_namespaces_name_the_mapped_ones() {
    let rule = |name: &str, resource: &str| json!([{"resources": [resource], "resourceNames": [name], "verbs": ["get"]}]);
    maps(
        RBAC,
        "ClusterRole",
        "/rules",
        rule("a", "namespaces"),
        rule("b", "namespaces"),
    );
    maps(
        RBAC,
        "ClusterRole",
        "/rules",
        rule("a", "secrets"),
        rule("a", "secrets"),
    );
}

#[test]
fn classes_images_and_hosts_are_mapped_where_they_stand() {
    maps(
        "",
        "PersistentVolumeClaim",
        "/spec/storageClassName",
        json!("sa"),
        json!("sb"),
    );
    let legacy = "/metadata/annotations/volume.beta.kubernetes.io~1storage-class";
    maps(
        "",
        "PersistentVolumeClaim",
        legacy,
        json!("sa"),
        json!("sb"),
    );
    maps(
        "",
        "PersistentVolume",
        "/spec/storageClassName",
        json!("sa"),
        json!("sb"),
    );
    maps(
        "apps",
        "StatefulSet",
        "/spec/volumeClaimTemplates/0/spec/storageClassName",
        json!("sa"),
        json!("sb"),
    );
    maps(
        "apps",
        "Deployment",
        "/spec/template/spec/volumes/0/ephemeral/volumeClaimTemplate/spec/storageClassName",
        json!("sa"),
        json!("sb"),
    );
    maps(
        "",
        "ResourceQuota",
        "/spec/hard",
        json!({"sa.storageclass.storage.k8s.io/requests.storage": "1", "pods": "2"}),
        json!({"sb.storageclass.storage.k8s.io/requests.storage": "1", "pods": "2"}),
    );
    maps(
        "networking.k8s.io",
        "Ingress",
        "/spec/ingressClassName",
        json!("ia"),
        json!("ib"),
    );
    maps(
        "networking.k8s.io",
        "Ingress",
        "/metadata/annotations/kubernetes.io~1ingress.class",
        json!("ia"),
        json!("ib"),
    );
    maps(
        GATEWAY,
        "Gateway",
        "/spec/gatewayClassName",
        json!("ia"),
        json!("ib"),
    );
    for (group, kind, template) in [
        ("", "Pod", ""),
        ("apps", "DaemonSet", "/spec/template"),
        ("apps", "ReplicaSet", "/spec/template"),
        ("batch", "Job", "/spec/template"),
        ("batch", "CronJob", "/spec/jobTemplate/spec/template"),
        ("", "ReplicationController", "/spec/template"),
        ("argoproj.io", "Rollout", "/spec/template"),
    ] {
        for place in [
            "containers/0/image",
            "initContainers/0/image",
            "ephemeralContainers/0/image",
            "volumes/0/image/reference",
        ] {
            maps(
                group,
                kind,
                &format!("{template}/spec/{place}"),
                json!("reg.a/x:1"),
                json!("reg.b/x:1"),
            );
        }
    }
    maps(
        "networking.k8s.io",
        "Ingress",
        "/spec/rules/0/host",
        json!("x.a.example"),
        json!("x.b.example"),
    );
    maps(
        "networking.k8s.io",
        "Ingress",
        "/spec/tls/0/hosts/0",
        json!("x.a.example"),
        json!("x.b.example"),
    );
    maps(
        GATEWAY,
        "HTTPRoute",
        "/spec/hostnames/0",
        json!("x.a.example"),
        json!("x.b.example"),
    );
    maps(
        GATEWAY,
        "Gateway",
        "/spec/listeners/0/hostname",
        json!("*.a.example"),
        json!("*.b.example"),
    );
    let dns = "/metadata/annotations/external-dns.alpha.kubernetes.io~1hostname";
    maps(
        "",
        "Service",
        dns,
        json!("x.a.example, y.example"),
        json!("x.b.example, y.example"),
    );
}

#[test]
fn what_kubectl_remembers_is_mapped_as_the_object_is() {
    let applied = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "a"},
        "spec": {"template": {"spec": {"containers": [{"image": "reg.a/x:1"}]}}}});
    let mut body = applied.clone();
    body["metadata"]["annotations"][LAST_APPLIED] = json!(format!("{applied}\n"));
    everything().map("apps", "Deployment", &mut body);
    let remembered = body["metadata"]["annotations"][LAST_APPLIED]
        .as_str()
        .unwrap();
    assert!(remembered.ends_with("}\n"));
    let remembered: Value = serde_json::from_str(remembered).unwrap();
    assert_eq!(remembered["metadata"]["namespace"], "b");
    assert_eq!(
        remembered["spec"]["template"]["spec"]["containers"][0]["image"],
        "reg.b/x:1"
    );
    let mut body = json!({"metadata": {"name": "x", "annotations": {LAST_APPLIED: "{"}}});
    let notes = everything().map("", "ConfigMap", &mut body);
    assert_eq!(body["metadata"]["annotations"][LAST_APPLIED], "{");
    assert_eq!(notes.len(), 1);
}

#[test]
fn text_without_a_known_meaning_is_reported_and_not_rewritten() {
    let data = json!({"url": "http://db.a.svc:80 and db.team-x.svc.cluster.local, not db.z.svc, not x.a.svcs, not a.svc"});
    let mut body = json!({"metadata": {"name": "x", "namespace": "a"}, "data": data});
    let notes = everything().map("", "ConfigMap", &mut body);
    assert_eq!(body["data"], data);
    insta::assert_snapshot!(notes.join("\n"), @r#"
    its text still says `db.a.svc`, and namespace `a` has another name in the target; free text is not rewritten, a transform can do it
    its text still says `db.team-x.svc`, and namespace `team-x` has another name in the target; free text is not rewritten, a transform can do it
    "#);
    let mut secret = json!({"metadata": {"name": "x", "namespace": "a"}, "stringData": data});
    assert!(everything().map("", "Secret", &mut secret).is_empty());
}

#[test]
fn trust_from_outside_the_cluster_is_reported() {
    let account = |namespace: &str| {
        json!({"metadata": {"name": "x", "namespace": namespace,
            "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}}})
    };
    let notes = everything().map("", "ServiceAccount", &mut account("a"));
    assert!(notes.len() == 1 && notes[0].contains("`a`"), "{notes:?}");
    assert!(
        everything()
            .map("", "ServiceAccount", &mut account("z"))
            .is_empty()
    );
}

#[test]
fn registries_and_helm_releases_inside_secrets_are_mapped() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use std::io::{Read, Write};
    let config = json!({"auths": {"reg.a": {"auth": "x"}, "https://reg.a/v1/": {}, "z": {}}});
    let mut body = json!({"metadata": {"name": "x", "namespace": "a"},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": STANDARD.encode(config.to_string())}});
    assert_eq!(everything().map("", "Secret", &mut body).len(), 1);
    let mapped = STANDARD
        .decode(body["data"][".dockerconfigjson"].as_str().unwrap())
        .unwrap();
    let mapped: Value = serde_json::from_slice(&mapped).unwrap();
    assert_eq!(
        mapped,
        json!({"auths": {"reg.b": {"auth": "x"}, "https://reg.b/v1/": {}, "z": {}}})
    );

    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed
        .write_all(
            json!({"name": "web", "namespace": "a"})
                .to_string()
                .as_bytes(),
        )
        .unwrap();
    let release = STANDARD.encode(STANDARD.encode(packed.finish().unwrap()));
    let mut body = json!({"metadata": {"name": "x", "namespace": "a"},
        "type": "helm.sh/release.v1", "data": {"release": release}});
    assert_eq!(everything().map("", "Secret", &mut body).len(), 1);
    let once = STANDARD
        .decode(body["data"]["release"].as_str().unwrap())
        .unwrap();
    let packed = STANDARD.decode(once).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*packed)
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, r#"{"name":"web","namespace":"b"}"#);
    let mut broken =
        json!({"metadata": {"name": "x"}, "type": "helm.sh/release.v1", "data": {"release": "%"}});
    assert_eq!(everything().map("", "Secret", &mut broken).len(), 1);
    let mut none = json!({"metadata": {"name": "x"}, "type": "helm.sh/release.v1"});
    assert!(everything().map("", "Secret", &mut none).is_empty());
    assert_eq!(
        none,
        json!({"metadata": {"name": "x"}, "type": "helm.sh/release.v1"})
    );
}
