//! Captured objects for tests, from their JSON.

use serde_json::{Map, Value};

use crate::archive::{ArchivedObject, Fidelity, ObjectKey, TypeRecord};

/// Kinds in tests whose plural is not the kind with an `s`.
const PLURALS: &[(&str, &str)] = &[
    ("Ingress", "ingresses"),
    ("IngressClass", "ingressclasses"),
    ("StorageClass", "storageclasses"),
    ("NetworkPolicy", "networkpolicies"),
    ("GatewayClass", "gatewayclasses"),
    ("Endpoints", "endpoints"),
    ("PriorityClass", "priorityclasses"),
];

const CLUSTER_SCOPED: &[&str] = &[
    "Namespace",
    "Node",
    "PersistentVolume",
    "ClusterRole",
    "ClusterRoleBinding",
    "StorageClass",
    "IngressClass",
    "GatewayClass",
    "CustomResourceDefinition",
    "APIService",
    "PriorityClass",
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
    "Database",
    "ValidatingAdmissionPolicyBinding",
    "FlowSchema",
];

/// The record of a type, by what its objects say.
pub(crate) fn record(api_version: &str, kind: &str) -> TypeRecord {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let plural = PLURALS
        .iter()
        .find(|(k, _)| *k == kind)
        .map(|(_, plural)| (*plural).to_owned());
    TypeRecord {
        group: group.to_owned(),
        version: version.to_owned(),
        served_versions: vec![version.to_owned()],
        kind: kind.to_owned(),
        resource: plural.unwrap_or_else(|| {
            let lower = kind.to_lowercase();
            lower
                .strip_suffix('y')
                .map_or_else(|| format!("{lower}s"), |stem| format!("{stem}ies"))
        }),
        namespaced: !CLUSTER_SCOPED.contains(&kind),
        fidelity: Fidelity::Exact,
        resource_version: None,
        objects: 1,
        bytes: 0,
        tree: None,
    }
}

/// The record of an object's type.
pub(crate) fn record_of(body: &Value) -> TypeRecord {
    record(
        body["apiVersion"].as_str().unwrap(),
        body["kind"].as_str().unwrap(),
    )
}

/// An object as an archive has it.
pub(crate) fn object(body: &Value) -> ArchivedObject {
    let mut stable = body.clone();
    let mut volatile = Map::new();
    if let Some(status) = stable.as_object_mut().unwrap().remove("status") {
        volatile.insert("status".to_owned(), status);
    }
    let metadata = stable["metadata"].as_object_mut().unwrap();
    for field in ["managedFields", "resourceVersion"] {
        if let Some(value) = metadata.remove(field) {
            volatile.insert(field.to_owned(), value);
        }
    }
    ArchivedObject {
        key: ObjectKey {
            namespace: body["metadata"]["namespace"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            name: body["metadata"]["name"].as_str().unwrap().to_owned(),
        },
        stable: serde_json::to_vec(&stable).unwrap().into(),
        volatile: serde_json::to_vec(&volatile).unwrap().into(),
    }
}

/// The objects of a file in `tests/fixtures`.
pub(crate) fn fixture(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap()
}

/// The shop of `tests/fixtures/shop.yaml`.
pub(crate) fn shop() -> Vec<Value> {
    fixture(include_str!("../../../tests/fixtures/shop.yaml"))
}

/// The rules of a Restore with these fields in its spec.
pub(crate) fn rules(spec: Value) -> crate::restore::Rules {
    let mut spec = spec;
    spec["from"] = serde_json::json!({"recoveryPoint": "p"});
    crate::restore::Rules::parse(&serde_json::from_value(spec).unwrap()).unwrap()
}

/// Every mapping that the shop has a use for.
pub(crate) fn remapped() -> Value {
    serde_json::json!({"mapping": {
        "namespaces": [{"from": "shop", "to": "store"}, {"from": "tools", "to": "store-tools"}],
        "storageClasses": [{"from": "fast-a", "to": "fast-b"}],
        "ingressClasses": [{"from": "nginx-a", "to": "nginx-b"}],
        "images": [{"from": "registry.a.example/", "to": "registry.b.example/mirror/"}],
        "hosts": [{"from": "*.a.example", "to": "*.b.example"}],
    }})
}
