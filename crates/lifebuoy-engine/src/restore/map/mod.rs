//! Names that differ between two clusters, replaced wherever an object has
//! them in a place whose meaning is known.
//!
//! The places are data ([`places`]), walked by one small walker ([`walk`]);
//! what a text in a place means is in [`meaning`]. Text without a known
//! meaning is never rewritten: [`text`] only reports what looks like a name.

mod embedded;
mod meaning;
mod names;
mod places;
mod text;
mod walk;

use lifebuoy_api::Mapping;
use serde_json::Value;

use crate::Error;
use meaning::Meaning;
pub(crate) use names::is_label;
use names::{HostMap, NameMap, NameSort, PrefixMap};
pub(crate) use places::{pattern_matches, pod_templates_of};
pub(crate) use walk::{visit, visit_mut};

/// The annotation in which `kubectl apply` keeps what it last applied.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// All mappings of a restore.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mapper {
    namespaces: NameMap,
    storage_classes: NameMap,
    ingress_classes: NameMap,
    images: PrefixMap,
    hosts: HostMap,
}

/// What mapping one object has found besides what it has changed.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Whether anything was changed.
    pub(crate) changed: bool,
    /// What a person may want to know.
    pub(crate) notes: Vec<String>,
}

impl Mapper {
    /// Parses the mappings; `path` is where they stand.
    pub(crate) fn parse(mapping: &Mapping, path: &str) -> Result<Self, Error> {
        let Mapping {
            namespaces,
            storage_classes,
            ingress_classes,
            images,
            hosts,
        } = mapping;
        let at = |field: &str| format!("{path}.{field}");
        Ok(Self {
            namespaces: NameMap::parse(namespaces, &at("namespaces"), NameSort::Label)?,
            storage_classes: NameMap::parse(
                storage_classes,
                &at("storageClasses"),
                NameSort::Subdomain,
            )?,
            ingress_classes: NameMap::parse(
                ingress_classes,
                &at("ingressClasses"),
                NameSort::Subdomain,
            )?,
            images: PrefixMap::parse(images, &at("images"))?,
            hosts: HostMap::parse(hosts, &at("hosts"))?,
        })
    }

    fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
            && self.storage_classes.is_empty()
            && self.ingress_classes.is_empty()
            && self.images.is_empty()
            && self.hosts.is_empty()
    }

    /// What a source namespace is called in the target.
    pub(crate) fn namespace(&self, name: &str) -> Option<String> {
        self.namespaces.map(name)
    }

    /// The name that stands for this class in the target, if it is a class
    /// that a mapping replaces: such a class is not restored itself.
    pub(crate) fn replaced_class(&self, group: &str, kind: &str, name: &str) -> Option<String> {
        match (group, kind) {
            ("storage.k8s.io", "StorageClass") => self.storage_classes.map(name),
            ("networking.k8s.io", "IngressClass")
            | ("gateway.networking.k8s.io", "GatewayClass") => self.ingress_classes.map(name),
            _ => None,
        }
    }

    /// Maps one object, what `kubectl apply` remembers of it included.
    pub(crate) fn map(&self, group: &str, kind: &str, body: &mut Value) -> Vec<String> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut findings = Findings::default();
        text::report_trust(self, kind, body, &mut findings.notes);
        self.map_places(group, kind, body, &mut findings);
        embedded::map_secret(self, group, kind, body, &mut findings);
        self.map_last_applied(group, kind, body, &mut findings);
        text::report(self, group, kind, body, &mut findings.notes);
        findings.notes
    }

    fn map_places(&self, group: &str, kind: &str, body: &mut Value, findings: &mut Findings) {
        for (path, meaning) in places::places_of(group, kind) {
            visit_mut(body, path, &mut |value| {
                self.rewrite(*meaning, value, findings);
            });
        }
        if let Some(metadata) = body.get_mut("metadata") {
            self.map_metadata(metadata, findings);
        }
        for path in places::claim_templates_of(group, kind) {
            visit_mut(body, path, &mut |claim| self.map_claim(claim, findings));
        }
        for path in places::pod_templates_of(group, kind) {
            visit_mut(body, path, &mut |pod| self.map_pod(pod, findings));
        }
    }

    fn map_metadata(&self, metadata: &mut Value, findings: &mut Findings) {
        self.rewrite_in(metadata, "namespace", Meaning::Namespace, findings);
        for (map, table) in [
            ("annotations", places::ANNOTATIONS),
            ("labels", places::LABELS),
        ] {
            let Some(entries) = metadata.get_mut(map).filter(|map| map.is_object()) else {
                continue;
            };
            for (key, meaning) in table {
                self.rewrite_in(entries, key, *meaning, findings);
            }
        }
    }

    fn map_claim(&self, claim: &mut Value, findings: &mut Findings) {
        for (path, meaning) in places::CLAIM {
            visit_mut(claim, path, &mut |value| {
                self.rewrite(*meaning, value, findings)
            });
        }
        if let Some(metadata) = claim.get_mut("metadata") {
            self.map_metadata(metadata, findings);
        }
    }

    fn map_pod(&self, pod: &mut Value, findings: &mut Findings) {
        for (path, meaning) in places::POD {
            visit_mut(pod, path, &mut |value| {
                self.rewrite(*meaning, value, findings)
            });
        }
        if let Some(metadata) = pod.get_mut("metadata") {
            self.map_metadata(metadata, findings);
        }
        visit_mut(
            pod,
            "spec.volumes[].ephemeral.volumeClaimTemplate",
            &mut |claim| {
                self.map_claim(claim, findings);
            },
        );
    }

    /// Without this, the next `kubectl apply` would put the old names back.
    fn map_last_applied(&self, group: &str, kind: &str, body: &mut Value, findings: &mut Findings) {
        let annotation = body
            .pointer_mut("/metadata/annotations")
            .and_then(|annotations| annotations.get_mut(LAST_APPLIED));
        let Some(annotation) = annotation else {
            return;
        };
        let parsed = annotation.as_str().map(serde_json::from_str::<Value>);
        let Some(Ok(mut applied)) =
            parsed.filter(|applied| applied.as_ref().is_ok_and(Value::is_object))
        else {
            findings.notes.push(format!(
                "the annotation {LAST_APPLIED} is not JSON, and was left as it is"
            ));
            return;
        };
        let mut inner = Findings::default();
        self.map_places(group, kind, &mut applied, &mut inner);
        embedded::map_secret(self, group, kind, &mut applied, &mut inner);
        if inner.changed {
            // kubectl ends it with a newline.
            *annotation = Value::String(format!("{applied}\n"));
            findings.changed = true;
        }
    }
}

#[cfg(test)]
mod tests;
