//! Pods without a controller, and what the admission of a cluster put into them.

use serde_json::{Map, Value};

use super::Verdict;
use crate::restore::map::visit_mut;

/// The volume with the account's token that admission adds to every pod.
const TOKEN_VOLUME_PREFIX: &str = "kube-api-access-";

/// Tolerations that admission adds to every pod, for this many seconds.
const DEFAULT_TOLERATIONS: &[&str] = &[
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];
const DEFAULT_TOLERATION_SECONDS: i64 = 300;

const CONTAINERS: &[&str] = &["spec.containers[]", "spec.initContainers[]"];

/// Removes what admission adds again; a pod that has finished is left out.
pub(super) fn apply(body: &mut Value, volatile: &Map<String, Value>) -> Verdict {
    let phase = volatile
        .get("status")
        .and_then(|status| status["phase"].as_str());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return Verdict::Leave("it has finished, and would run again".into());
    }
    let account = body["spec"]["serviceAccountName"]
        .as_str()
        .unwrap_or("default");
    let legacy_prefix = format!("{account}-token-");
    let injected = |name: &str| {
        name.starts_with(TOKEN_VOLUME_PREFIX) || name.starts_with(legacy_prefix.as_str())
    };
    retain(body, "spec", "volumes", |volume| {
        !volume["name"].as_str().is_some_and(injected)
    });
    for containers in CONTAINERS {
        retain(body, containers, "volumeMounts", |mount| {
            !mount["name"].as_str().is_some_and(injected)
        });
    }
    retain(body, "spec", "tolerations", |toleration| {
        let default = toleration["key"]
            .as_str()
            .is_some_and(|key| DEFAULT_TOLERATIONS.contains(&key))
            && toleration["tolerationSeconds"] == DEFAULT_TOLERATION_SECONDS;
        !default
    });
    Verdict::Restore
}

/// Keeps the items of a list that `keep` says; an emptied list goes.
fn retain(body: &mut Value, parent: &str, field: &str, keep: impl Fn(&Value) -> bool) {
    visit_mut(body, parent, &mut |parent| {
        let Some(parent) = parent.as_object_mut() else {
            return;
        };
        if let Some(Value::Array(items)) = parent.get_mut(field) {
            items.retain(|item| keep(item));
            if items.is_empty() {
                parent.remove(field);
            }
        }
    });
}
