//! Looks through free text for what names a Service in a namespace that a
//! restore renames, and reports it. Never rewrites anything, and never looks
//! into Secrets: what it reports is shown to people.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Mapper, places, visit};

/// At most this many findings an object are reported.
const MAX_FINDINGS: usize = 3;

/// Texts of containers in which addresses stand.
const CONTAINER_TEXTS: &[&str] = &[
    "spec.containers[].env[].value",
    "spec.containers[].args[]",
    "spec.containers[].command[]",
    "spec.initContainers[].env[].value",
    "spec.initContainers[].args[]",
    "spec.initContainers[].command[]",
];

/// Other free texts: group, kind, path.
const TEXTS: &[(&str, &str, &str)] = &[
    ("", "Service", "spec.externalName"),
    (
        "admissionregistration.k8s.io",
        "*WebhookConfiguration",
        "webhooks[].clientConfig.url",
    ),
    (
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        "spec.conversion.webhook.clientConfig.url",
    ),
];

/// Notes the addresses in `body` that still name a renamed namespace.
pub(super) fn report(
    mapper: &Mapper,
    group: &str,
    kind: &str,
    body: &Value,
    notes: &mut Vec<String>,
) {
    if mapper.namespaces.is_empty() {
        return;
    }
    let mut found = BTreeSet::new();
    let mut look = |value: &Value| {
        if let Some(text) = value.as_str() {
            collect(mapper, text, &mut found);
        }
    };
    for template in places::pod_templates_of(group, kind) {
        visit(body, template, &mut |pod| {
            for path in CONTAINER_TEXTS {
                visit(pod, path, &mut look);
            }
        });
    }
    for (g, k, path) in TEXTS {
        if places::pattern_matches(g, group) && places::pattern_matches(k, kind) {
            visit(body, path, &mut look);
        }
    }
    if (group, kind) == ("", "ConfigMap") {
        let data = body["data"].as_object();
        data.into_iter()
            .flat_map(|data| data.values())
            .for_each(&mut look);
    }
    let more = found.len().saturating_sub(MAX_FINDINGS);
    for (address, namespace) in found.into_iter().take(MAX_FINDINGS) {
        notes.push(format!(
            "its text still says `{address}`, and namespace `{namespace}` has another name in the target; free text is not rewritten, a transform can do it"
        ));
    }
    if more > 0 {
        notes.push(format!("its text names {more} more such addresses"));
    }
}

/// Annotations that tie a ServiceAccount to an identity outside the cluster.
const OUTSIDE_IDENTITIES: &[&str] = &[
    "azure.workload.identity/client-id",
    "eks.amazonaws.com/role-arn",
    "iam.gke.io/gcp-service-account",
];

/// Notes that something outside the cluster trusts this account by the name of
/// its namespace, which is about to change.
pub(super) fn report_trust(mapper: &Mapper, kind: &str, captured: &Value, notes: &mut Vec<String>) {
    let metadata = &captured["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    if kind != "ServiceAccount" || mapper.namespaces.map(namespace).is_none() {
        return;
    }
    let identity = OUTSIDE_IDENTITIES
        .iter()
        .find(|annotation| !metadata["annotations"][**annotation].is_null());
    if let Some(annotation) = identity {
        notes.push(format!(
            "by {annotation} something outside the cluster trusts it as an account of namespace `{namespace}`: change the trust there"
        ));
    }
}

/// Collects each `service.namespace.svc` of a renamed namespace, with the namespace.
fn collect(mapper: &Mapper, text: &str, found: &mut BTreeSet<(String, String)>) {
    const SUFFIX: &str = ".svc";
    let is_label_byte =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    for (at, _) in text.match_indices(SUFFIX) {
        if text
            .as_bytes()
            .get(at + SUFFIX.len())
            .copied()
            .is_some_and(is_label_byte)
        {
            continue;
        }
        let start = text[..at]
            .bytes()
            .rposition(|byte| !is_label_byte(byte) && byte != b'.')
            .map_or(0, |before| before + 1);
        let mut labels = text[start..at].rsplit('.');
        let (Some(namespace), Some(service)) = (labels.next(), labels.next()) else {
            continue;
        };
        if !service.is_empty() && mapper.namespaces.map(namespace).is_some() {
            found.insert((
                format!("{service}.{namespace}{SUFFIX}"),
                namespace.to_owned(),
            ));
        }
    }
}
