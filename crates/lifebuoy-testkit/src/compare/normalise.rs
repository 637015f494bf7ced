//! Takes from an object what the server or its controllers put there, since
//! that differs between any two clusters. Drops nothing that a user wrote.

use kube::discovery::ApiResource;
use serde_json::{Map, Value};

use super::ObjectKey;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Types that hold nothing a restore brings back.
const IGNORED_TYPES: [(&str, &str); 6] = [
    ("", "Event"),
    ("events.k8s.io", "Event"),
    ("coordination.k8s.io", "Lease"),
    ("coordination.k8s.io", "LeaseCandidate"),
    ("apps", "ControllerRevision"),
    ("metrics.k8s.io", "PodMetrics"),
];

/// Annotations that controllers or a restore add.
const SERVER_ANNOTATIONS: [&str; 8] = [
    "deployment.kubernetes.io/revision",
    "deprecated.daemonset.template.generation",
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
    "kubernetes.io/service-account.uid",
];
/// Whose annotations and labels are the restore's own marks.
const OWN_PREFIX: &str = "lifebuoy.dev/";

const SERVER_METADATA: [&str; 8] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];
const SERVER_FINALIZERS: [&str; 3] = [
    "kubernetes.io/pvc-protection",
    "kubernetes.io/pv-protection",
    "foregroundDeletion",
];
/// Labels by which a Job's controller knows its pods.
const JOB_LABELS: [&str; 4] = [
    "controller-uid",
    "batch.kubernetes.io/controller-uid",
    "job-name",
    "batch.kubernetes.io/job-name",
];

pub(super) fn is_ignored_type(resource: &ApiResource) -> bool {
    let is_ours = resource.group == "lifebuoy.dev";
    let identity = (resource.group.as_str(), resource.kind.as_str());
    is_ours || IGNORED_TYPES.contains(&identity)
}

/// What is left to compare, or `None` if the object is a controller's.
pub(super) fn normalise(key: &ObjectKey, mut object: Value) -> Option<Value> {
    if is_made_by_a_controller(key, &object) {
        return None;
    }
    // Asks managedFields, which go next.
    if key.group.is_empty() && key.kind == "Service" {
        strip_service(&mut object);
    }
    strip_metadata(&mut object["metadata"]);
    let fields = object.as_object_mut()?;
    for name in ["status", "apiVersion", "kind"] {
        fields.remove(name);
    }
    match (key.group.as_str(), key.kind.as_str()) {
        ("", "Namespace") => {
            fields.remove("spec");
            remove(
                &mut object,
                &["metadata", "labels"],
                "kubernetes.io/metadata.name",
            );
        }
        ("", "PersistentVolumeClaim") => remove(&mut object, &["spec"], "volumeName"),
        ("", "Secret") => strip_token(&mut object),
        ("", "Pod") => strip_pod(&mut object["spec"]),
        ("batch", "Job") => strip_job(&mut object),
        _ => {}
    }
    drop_empty(
        &mut object["metadata"],
        &["annotations", "labels", "finalizers"],
    );
    Some(object)
}

fn is_made_by_a_controller(key: &ObjectKey, object: &Value) -> bool {
    let metadata = &object["metadata"];
    let mut owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    if owners.any(|owner| owner["controller"] == true) {
        return true;
    }
    let labels = &metadata["labels"];
    match (key.group.as_str(), key.kind.as_str()) {
        ("", "ConfigMap") => key.name == "kube-root-ca.crt",
        ("", "ServiceAccount") => key.name == "default",
        ("", "Endpoints") => labels["endpoints.kubernetes.io/managed-by"].is_string(),
        ("discovery.k8s.io", "EndpointSlice") => {
            let manager = labels["endpointslice.kubernetes.io/managed-by"].as_str();
            manager.is_some_and(|manager| manager.ends_with("-controller.k8s.io"))
        }
        _ => false,
    }
}

fn strip_metadata(metadata: &mut Value) {
    let Some(fields) = metadata.as_object_mut() else {
        return;
    };
    for name in SERVER_METADATA {
        fields.remove(name);
    }
    for part in ["annotations", "labels"] {
        if let Some(entries) = fields.get_mut(part).and_then(Value::as_object_mut) {
            entries.retain(|name, _| {
                !name.starts_with(OWN_PREFIX) && !SERVER_ANNOTATIONS.contains(&name.as_str())
            });
        }
    }
    if let Some(finalizers) = fields.get_mut("finalizers").and_then(Value::as_array_mut) {
        finalizers.retain(|name| !SERVER_FINALIZERS.contains(&name.as_str().unwrap_or_default()));
    }
    for owner in fields
        .get_mut("ownerReferences")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        remove(owner, &[], "uid");
    }
    // As a value, so that the order of its fields does not count.
    let annotation = fields
        .get_mut("annotations")
        .and_then(|all| all.get_mut(LAST_APPLIED));
    if let Some(annotation) = annotation
        && let Ok(value) = serde_json::from_str(annotation.as_str().unwrap_or_default())
    {
        *annotation = value;
    }
}

/// Keeps a node port only if someone asked for it, not if it was assigned.
fn strip_service(service: &mut Value) {
    let asked_for = asked_node_ports(&service["metadata"]);
    let spec = &mut service["spec"];
    if spec["clusterIP"] != "None" {
        remove(spec, &[], "clusterIP");
        remove(spec, &[], "clusterIPs");
    }
    remove(spec, &[], "healthCheckNodePort");
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        let identity = (port["port"].clone(), port["protocol"].clone());
        if !asked_for.contains(&identity) {
            remove(port, &[], "nodePort");
        }
    }
}

/// The ports, as port and protocol, whose node port a client has sent.
fn asked_node_ports(metadata: &Value) -> Vec<(Value, Value)> {
    let mut asked = Vec::new();
    for entry in metadata["managedFields"].as_array().into_iter().flatten() {
        let ports = entry["fieldsV1"]["f:spec"]["f:ports"].as_object();
        for (key, fields) in ports.into_iter().flatten() {
            let key = key
                .strip_prefix("k:")
                .and_then(|key| serde_json::from_str::<Value>(key).ok());
            if let (Some(key), true) = (key, fields.get("f:nodePort").is_some()) {
                asked.push((key["port"].clone(), key["protocol"].clone()));
            }
        }
    }
    asked
}

fn strip_token(secret: &mut Value) {
    if secret["type"] == "kubernetes.io/service-account-token" {
        for name in ["token", "ca.crt", "namespace"] {
            remove(secret, &["data"], name);
        }
    }
}

fn strip_job(job: &mut Value) {
    if job["spec"]["manualSelector"] != true {
        remove(job, &["spec"], "selector");
    }
    for label in JOB_LABELS {
        remove(job, &["spec", "template", "metadata", "labels"], label);
        remove(job, &["metadata", "labels"], label);
    }
    drop_empty(&mut job["spec"]["template"]["metadata"], &["labels"]);
    drop_empty(&mut job["spec"]["template"], &["metadata"]);
}

fn strip_pod(spec: &mut Value) {
    for name in ["nodeName", "priority", "tolerations"] {
        remove(spec, &[], name);
    }
    let is_token = |entry: &Value| {
        entry["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("kube-api-access-"))
    };
    let Some(fields) = spec.as_object_mut() else {
        return;
    };
    if let Some(volumes) = fields.get_mut("volumes").and_then(Value::as_array_mut) {
        volumes.retain(|volume| !is_token(volume));
    }
    for part in ["containers", "initContainers"] {
        for container in fields
            .get_mut(part)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(mounts) = container
                .get_mut("volumeMounts")
                .and_then(Value::as_array_mut)
            {
                mounts.retain(|mount| !is_token(mount));
            }
            drop_empty(container, &["volumeMounts"]);
        }
    }
    drop_empty(spec, &["volumes"]);
}

/// Removes `name` from the object at `path`, if both are there.
fn remove(value: &mut Value, path: &[&str], name: &str) {
    let mut at = Some(value);
    for step in path {
        at = at.and_then(|value| value.get_mut(step));
    }
    if let Some(fields) = at.and_then(Value::as_object_mut) {
        fields.remove(name);
    }
}

/// An empty list or map means the same as none.
fn drop_empty(value: &mut Value, names: &[&str]) {
    let Some(fields) = value.as_object_mut() else {
        return;
    };
    for name in names {
        let is_empty = match fields.get(*name) {
            Some(Value::Array(items)) => items.is_empty(),
            Some(Value::Object(items)) => Map::is_empty(items),
            Some(Value::Null) => true,
            _ => false,
        };
        if is_empty {
            fields.remove(*name);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(group: &str, kind: &str) -> ObjectKey {
        ObjectKey {
            group: group.into(),
            kind: kind.into(),
            namespace: "n".into(),
            name: "o".into(),
        }
    }

    #[test]
    fn only_node_ports_that_someone_asked_for_count() {
        let managed = json!({"f:spec": {"f:ports": {
            "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:nodePort": {}, "f:port": {}},
            "k:{\"port\":90,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}},
        }}});
        let service = json!({
            "metadata": {"name": "o", "uid": "1", "managedFields": [{"fieldsV1": managed}]},
            "spec": {"clusterIP": "10.0.0.1", "ports": [
                {"port": 80, "protocol": "TCP", "nodePort": 30080},
                {"port": 90, "protocol": "TCP", "nodePort": 31234},
            ]},
        });
        let expected = json!({
            "metadata": {"name": "o"},
            "spec": {"ports": [
                {"port": 80, "protocol": "TCP", "nodePort": 30080},
                {"port": 90, "protocol": "TCP"},
            ]},
        });
        assert_eq!(normalise(&key("", "Service"), service), Some(expected));
    }

    #[test]
    fn what_a_controller_owns_does_not_count() {
        let owned = json!({"metadata": {"ownerReferences": [{"controller": true}]}});
        assert_eq!(normalise(&key("", "Pod"), owned), None);
    }
}
