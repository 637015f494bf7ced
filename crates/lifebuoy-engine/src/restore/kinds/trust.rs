//! Rules that are worked out from others, and authorities that are injected.

use serde_json::Value;

use crate::restore::map::visit_mut;

/// Annotations of what puts a CA bundle into an object.
const INJECTORS: &[&str] = &[
    "cert-manager.io/inject-ca-from",
    "cert-manager.io/inject-ca-from-secret",
    "cert-manager.io/inject-apiserver-ca",
    "service.beta.openshift.io/inject-cabundle",
];

/// Where a CA bundle stands: the paths of its parents.
const AUTHORITIES: &[&str] = &[
    "webhooks[].clientConfig",
    "spec.conversion.webhook.clientConfig",
    "spec",
];

/// The rules of an aggregated role are those of other roles.
pub(super) fn cluster_role(body: &mut Value) {
    if !body["aggregationRule"].is_null()
        && let Some(role) = body.as_object_mut()
    {
        role.remove("rules");
    }
}

/// Drops a CA bundle that is injected again from the target's own authority.
pub(super) fn injected_authority(body: &mut Value) {
    let annotations = &body["metadata"]["annotations"];
    if INJECTORS
        .iter()
        .all(|injector| annotations[*injector].is_null())
    {
        return;
    }
    for parent in AUTHORITIES {
        visit_mut(body, parent, &mut |parent| {
            if let Some(parent) = parent.as_object_mut() {
                parent.remove("caBundle");
            }
        });
    }
}
