//! Which objects a rule is about, by what was captured. Pure.

use std::collections::BTreeMap;

use lifebuoy_api::ObjectMatch;
use serde_json::Value;

use crate::Error;
use crate::archive::{ArchivedObject, TypeRecord};
use crate::selection::Glob;

/// A parsed [`ObjectMatch`]: all of its conditions must hold.
#[derive(Clone, Debug)]
pub(crate) struct Matcher {
    kinds: Vec<Glob>,
    namespaces: Vec<Glob>,
    names: Vec<Glob>,
    labels: BTreeMap<String, String>,
}

impl Matcher {
    pub(crate) fn parse(matches: &ObjectMatch, path: &str) -> Result<Self, Error> {
        let ObjectMatch {
            kinds,
            namespaces,
            names,
            labels,
        } = matches;
        Ok(Self {
            kinds: globs(kinds, &format!("{path}.kinds"))?,
            namespaces: globs(namespaces, &format!("{path}.namespaces"))?,
            names: globs(names, &format!("{path}.names"))?,
            labels: labels.clone(),
        })
    }

    /// Whether the rule is about this object; `body` is its captured form.
    pub(crate) fn matches(&self, t: &TypeRecord, object: &ArchivedObject, body: &Value) -> bool {
        self.kind(t)
            && any_or_empty(&self.names, &object.key.name)
            && self.namespace(&object.key.namespace)
            && self.labels.iter().all(|(key, wanted)| {
                body["metadata"]["labels"].get(key).and_then(Value::as_str) == Some(wanted)
            })
    }

    fn kind(&self, t: &TypeRecord) -> bool {
        if self.kinds.is_empty() {
            return true;
        }
        let name = if t.group.is_empty() {
            t.kind.clone()
        } else {
            format!("{}.{}", t.kind, t.group)
        };
        any_or_empty(&self.kinds, &name)
    }

    fn namespace(&self, namespace: &str) -> bool {
        self.namespaces.is_empty()
            || (!namespace.is_empty() && any_or_empty(&self.namespaces, namespace))
    }
}

fn any_or_empty(globs: &[Glob], text: &str) -> bool {
    globs.is_empty() || globs.iter().any(|glob| glob.matches(text))
}

fn globs(patterns: &[String], path: &str) -> Result<Vec<Glob>, Error> {
    patterns
        .iter()
        .enumerate()
        .map(|(index, text)| {
            Glob::parse(text).map_err(|message| Error::invalid(format!("{path}[{index}]"), message))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::restore::kinds::test_objects::{object, record};

    fn matches(condition: serde_json::Value, api_version: &str, kind: &str) -> bool {
        let parsed: ObjectMatch = serde_json::from_value(condition).unwrap();
        let body = json!({
            "apiVersion": api_version, "kind": kind,
            "metadata": {"name": "web", "namespace": "shop", "labels": {"tier": "front"}},
        });
        let t = record(api_version, kind);
        Matcher::parse(&parsed, "spec.transforms[0].match")
            .unwrap()
            .matches(&t, &object(&body), &body)
    }

    #[test]
    fn all_conditions_must_hold_and_case_counts() {
        assert!(matches(json!({}), "v1", "ConfigMap"));
        assert!(matches(json!({"kinds": ["ConfigMap"]}), "v1", "ConfigMap"));
        assert!(!matches(json!({"kinds": ["configmap"]}), "v1", "ConfigMap"));
        assert!(matches(
            json!({"kinds": ["Deployment.apps"]}),
            "apps/v1",
            "Deployment"
        ));
        assert!(!matches(
            json!({"kinds": ["Deployment"]}),
            "apps/v1",
            "Deployment"
        ));
        assert!(matches(
            json!({"kinds": ["*.apps"]}),
            "apps/v1",
            "Deployment"
        ));
        assert!(matches(
            json!({"namespaces": ["sh*"], "names": ["web"]}),
            "v1",
            "ConfigMap"
        ));
        assert!(!matches(
            json!({"namespaces": ["sh*"], "names": ["api"]}),
            "v1",
            "ConfigMap"
        ));
        assert!(matches(
            json!({"labels": {"tier": "front"}}),
            "v1",
            "ConfigMap"
        ));
        assert!(!matches(
            json!({"labels": {"tier": "back"}}),
            "v1",
            "ConfigMap"
        ));
    }
}
