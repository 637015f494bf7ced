//! Which claims workloads mount, so that a workload is withheld together with
//! a claim, or held while the volume of one is overwritten. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use serde_json::Value;

use super::Key;
use super::map::{pod_templates_of, visit};

/// The claims that one workload mounts, by name in its own namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    /// Claims by name.
    claims: Vec<Box<str>>,
    /// What the names of a StatefulSet's own claims begin with; a number follows.
    prefixes: Vec<Box<str>>,
}

impl Mounts {
    /// What an object mounts; `None` when nothing.
    #[must_use]
    pub fn read(group: &str, kind: &str, body: &Value) -> Option<Self> {
        let mut mounts = Self::default();
        for template in pod_templates_of(group, kind) {
            let path = if template.is_empty() {
                "spec.volumes[].persistentVolumeClaim.claimName".to_owned()
            } else {
                format!("{template}.spec.volumes[].persistentVolumeClaim.claimName")
            };
            visit(body, &path, &mut |name| {
                mounts.claims.extend(name.as_str().map(Into::into));
            });
        }
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        visit(
            body,
            "spec.volumeClaimTemplates[].metadata.name",
            &mut |template| {
                let prefix = template
                    .as_str()
                    .map(|template| format!("{template}-{name}-").into());
                mounts.prefixes.extend(prefix);
            },
        );
        (mounts != Self::default()).then_some(mounts)
    }

    /// Whether it mounts this claim of its namespace.
    #[must_use]
    pub fn contains(&self, claim: &str) -> bool {
        let is_of = |prefix: &str| claim.strip_prefix(prefix).is_some_and(is_number);
        let by_name = self.claims.iter().any(|name| **name == *claim);
        by_name || self.prefixes.iter().any(|prefix| is_of(prefix))
    }

    /// The first of these claims of the workload's namespace that it mounts.
    pub(crate) fn first_of<'a>(&self, claims: &'a BTreeSet<Arc<str>>) -> Option<&'a str> {
        let by_name = self.claims.iter().find_map(|name| claims.get(&**name));
        let by_prefix = || {
            self.prefixes.iter().find_map(|prefix| {
                claims
                    .range::<str, _>((Bound::Included(&**prefix), Bound::Unbounded))
                    .take_while(|claim| claim.starts_with(&**prefix))
                    .find(|claim| is_number(&claim[prefix.len()..]))
            })
        };
        by_name.or_else(by_prefix).map(|claim| &**claim)
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Claims by namespace.
#[derive(Debug, Default)]
pub(crate) struct Claims(BTreeMap<Arc<str>, BTreeSet<Arc<str>>>);

impl Claims {
    pub(crate) fn insert(&mut self, key: &Key) {
        self.0
            .entry(Arc::clone(&key.namespace))
            .or_default()
            .insert(Arc::clone(&key.name));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first of them that a workload in this namespace mounts.
    pub(crate) fn mounted(&self, namespace: &str, mounts: &Mounts) -> Option<&str> {
        mounts.first_of(self.0.get(namespace)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_found_by_name_and_by_the_number_of_a_stateful_set() {
        let body = json!({"metadata": {"name": "db"}, "spec": {
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
            "template": {"spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "logs"}}]}},
        }});
        let mounts = Mounts::read("apps", "StatefulSet", &body).unwrap();
        let mounted = |name: &str| {
            let by_name = mounts.contains(name).then_some(name);
            let mut claims = Claims::default();
            claims.insert(&Key::new("shop", name));
            assert_eq!(claims.mounted("shop", &mounts), by_name);
            by_name.map(str::to_owned)
        };
        assert_eq!(mounted("logs").as_deref(), Some("logs"));
        assert_eq!(mounted("data-db-12").as_deref(), Some("data-db-12"));
        assert_eq!(mounted("data-db-x"), None);
        assert_eq!(mounted("data-db-"), None);
        assert_eq!(
            Mounts::read("apps", "StatefulSet", &json!({"metadata": {"name": "db"}})),
            None
        );
    }
}
