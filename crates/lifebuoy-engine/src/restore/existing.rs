//! What happens to an object that exists, where the rules alone would do harm.
//! Pure.

use lifebuoy_api::ExistingPolicy;
use serde_json::Value;

use crate::archive::{ObjectKey, TypeRecord};

/// Namespaces that every cluster has from its beginning.
const OF_EVERY_CLUSTER: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Kinds whose deletion deletes what hangs on them: group, kind. Replacing one
/// could delete it, so what was captured is merged instead.
const NEVER_REPLACED: &[(&str, &str)] = &[
    ("", "Namespace"),
    ("", "PersistentVolume"),
    ("", "PersistentVolumeClaim"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
];

/// Fields of the account `default` that only a person sets.
const CUSTOMISED: &[&str] = &[
    "/imagePullSecrets",
    "/secrets",
    "/automountServiceAccountToken",
    "/metadata/labels",
    "/metadata/annotations",
];

/// The policy for an object, given that of the rules.
pub(crate) fn policy(
    t: &TypeRecord,
    target: &ObjectKey,
    body: &Value,
    rules: ExistingPolicy,
) -> ExistingPolicy {
    let of = (t.group.as_str(), t.kind.as_str());
    let everywhere = of == ("", "Namespace") && OF_EVERY_CLUSTER.contains(&&*target.name);
    let default_account = of == ("", "ServiceAccount") && *target.name == *"default";
    match rules {
        ExistingPolicy::Replace if NEVER_REPLACED.contains(&of) => ExistingPolicy::Merge,
        ExistingPolicy::Fail if everywhere => ExistingPolicy::Skip,
        // A controller makes this account in every namespace, often before us.
        ExistingPolicy::Skip | ExistingPolicy::Fail if default_account => {
            if CUSTOMISED.iter().any(|field| body.pointer(field).is_some()) {
                ExistingPolicy::Merge
            } else {
                ExistingPolicy::Skip
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use lifebuoy_api::ExistingPolicy::{Fail, Merge, Replace, Skip};
    use serde_json::json;

    use super::*;
    use crate::restore::kinds::test_objects::record;

    fn of(kind: &str, name: &str, body: Value, rules: ExistingPolicy) -> ExistingPolicy {
        policy(&record("v1", kind), &ObjectKey::new("", name), &body, rules)
    }

    #[test]
    fn nothing_is_replaced_that_would_take_others_with_it() {
        assert_eq!(of("Namespace", "shop", json!({}), Replace), Merge);
        assert_eq!(
            of("PersistentVolumeClaim", "data", json!({}), Replace),
            Merge
        );
        assert_eq!(of("ConfigMap", "x", json!({}), Replace), Replace);
    }

    #[test]
    fn what_every_cluster_has_fails_nothing() {
        assert_eq!(of("Namespace", "default", json!({}), Fail), Skip);
        assert_eq!(of("Namespace", "shop", json!({}), Fail), Fail);
        assert_eq!(of("ServiceAccount", "default", json!({}), Fail), Skip);
        let customised = json!({"imagePullSecrets": [{"name": "pull"}]});
        assert_eq!(of("ServiceAccount", "default", customised, Skip), Merge);
        assert_eq!(of("ServiceAccount", "web", json!({}), Skip), Skip);
    }
}
