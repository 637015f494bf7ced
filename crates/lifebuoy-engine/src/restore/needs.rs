//! Which cluster-scoped objects the selected namespaces need: their classes,
//! volumes, definitions, and the cluster roles of their accounts. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::map::{pod_templates_of, visit};
use crate::archive::{ObjectKey, TypeId, TypeRecord};

/// Names that namespaced objects refer to: group, kind, path, and the group and
/// resource that is referred to.
#[rustfmt::skip] // one row a line
const REFERENCES: &[(&str, &str, &str, &str, &str)] = &[
    ("", "PersistentVolumeClaim", "spec.storageClassName", "storage.k8s.io", "storageclasses"),
    ("", "PersistentVolumeClaim", "spec.volumeName", "", "persistentvolumes"),
    ("", "PersistentVolumeClaim", "spec.volumeAttributesClassName", "storage.k8s.io", "volumeattributesclasses"),
    ("apps", "StatefulSet", "spec.volumeClaimTemplates[].spec.storageClassName", "storage.k8s.io", "storageclasses"),
    ("networking.k8s.io", "Ingress", "spec.ingressClassName", "networking.k8s.io", "ingressclasses"),
    ("gateway.networking.k8s.io", "Gateway", "spec.gatewayClassName", "gateway.networking.k8s.io", "gatewayclasses"),
    ("snapshot.storage.k8s.io", "VolumeSnapshot", "spec.volumeSnapshotClassName", "snapshot.storage.k8s.io", "volumesnapshotclasses"),
];

/// The same for pods and their templates: path, group, resource.
#[rustfmt::skip] // one row a line
const POD_REFERENCES: &[(&str, &str, &str)] = &[
    ("spec.priorityClassName", "scheduling.k8s.io", "priorityclasses"),
    ("spec.runtimeClassName", "node.k8s.io", "runtimeclasses"),
    ("spec.volumes[].ephemeral.volumeClaimTemplate.spec.storageClassName", "storage.k8s.io", "storageclasses"),
];

const RBAC: &str = "rbac.authorization.k8s.io";

/// What was seen of who needs what.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    wanted: BTreeSet<(TypeId, String)>,
    /// Users and groups that stand for ServiceAccounts of the namespaces.
    accounts: BTreeSet<String>,
    bindings: Vec<Binding>,
    roles: BTreeMap<String, Role>,
}

#[derive(Debug)]
struct Binding {
    name: String,
    subjects: Vec<String>,
    role: String,
}

#[derive(Debug)]
struct Role {
    labels: BTreeMap<String, String>,
    aggregates: Vec<BTreeMap<String, String>>,
}

impl Needs {
    /// Looks at a prepared object.
    pub(crate) fn look(&mut self, t: &TypeRecord, target: &ObjectKey, body: &Value) {
        if t.namespaced {
            self.look_at_namespaced(t, target, body);
            return;
        }
        match (t.group.as_str(), t.kind.as_str()) {
            (RBAC, "ClusterRoleBinding") => self.bindings.push(Binding {
                name: target.name.clone(),
                subjects: subjects(body),
                role: text(&body["roleRef"], "name"),
            }),
            (RBAC, "ClusterRole") => {
                let mut aggregates = Vec::new();
                visit(
                    body,
                    "aggregationRule.clusterRoleSelectors[].matchLabels",
                    &mut |labels| {
                        aggregates.push(texts(labels));
                    },
                );
                let labels = texts(&body["metadata"]["labels"]);
                self.roles
                    .insert(target.name.clone(), Role { labels, aggregates });
            }
            _ => {}
        }
    }

    fn look_at_namespaced(&mut self, t: &TypeRecord, target: &ObjectKey, body: &Value) {
        let (group, kind) = (t.group.as_str(), t.kind.as_str());
        // Harmless where the type is no custom resource: there is no such definition.
        self.want(
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            &t.id().to_string(),
        );
        for (_, _, path, of, resource) in REFERENCES
            .iter()
            .filter(|(g, k, ..)| (*g, *k) == (group, kind))
        {
            visit(body, path, &mut |name| {
                self.want(of, resource, name.as_str().unwrap_or_default())
            });
        }
        for template in pod_templates_of(group, kind) {
            visit(body, template, &mut |pod| {
                for (path, of, resource) in POD_REFERENCES {
                    visit(pod, path, &mut |name| {
                        self.want(of, resource, name.as_str().unwrap_or_default())
                    });
                }
            });
        }
        if (group, kind) == ("", "ServiceAccount") {
            let ObjectKey { namespace, name } = target;
            self.accounts
                .insert(format!("system:serviceaccount:{namespace}:{name}"));
            self.accounts
                .insert(format!("system:serviceaccounts:{namespace}"));
        }
        if (group, kind) == (RBAC, "RoleBinding") && body["roleRef"]["kind"] == "ClusterRole" {
            self.want(RBAC, "clusterroles", &text(&body["roleRef"], "name"));
        }
    }

    fn want(&mut self, group: &str, resource: &str, name: &str) {
        if !name.is_empty() {
            self.wanted
                .insert((TypeId::new(group, resource), name.to_owned()));
        }
    }

    /// Adds the bindings of the accounts, the roles of these, and the roles
    /// that those are aggregated from.
    pub(crate) fn close(&mut self) {
        let bindings = std::mem::take(&mut self.bindings);
        for binding in bindings {
            if binding
                .subjects
                .iter()
                .any(|subject| self.accounts.contains(subject))
            {
                self.want(RBAC, "clusterrolebindings", &binding.name);
                self.want(RBAC, "clusterroles", &binding.role);
            }
        }
        let roles = std::mem::take(&mut self.roles);
        let mut open: Vec<&str> = roles
            .keys()
            .map(String::as_str)
            .filter(|name| self.needs_role(name))
            .collect();
        while let Some(name) = open.pop() {
            for (other, role) in &roles {
                let aggregated = roles[name].aggregates.iter().any(|selector| {
                    !selector.is_empty()
                        && selector
                            .iter()
                            .all(|(key, value)| role.labels.get(key) == Some(value))
                });
                if aggregated && !self.needs_role(other) {
                    self.want(RBAC, "clusterroles", other);
                    open.push(other);
                }
            }
        }
    }

    fn needs_role(&self, name: &str) -> bool {
        self.needs(&TypeId::new(RBAC, "clusterroles"), name)
    }

    /// Whether this cluster-scoped object is needed; after [`Needs::close`].
    pub(crate) fn needs(&self, of: &TypeId, name: &str) -> bool {
        self.wanted.contains(&(of.clone(), name.to_owned()))
    }
}

/// The subjects of a binding, as the users and groups that they stand for.
fn subjects(body: &Value) -> Vec<String> {
    body["subjects"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|subject| match subject["kind"].as_str() {
            Some("ServiceAccount") => {
                format!(
                    "system:serviceaccount:{}:{}",
                    text(subject, "namespace"),
                    text(subject, "name")
                )
            }
            _ => text(subject, "name"),
        })
        .collect()
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn texts(map: &Value) -> BTreeMap<String, String> {
    map.as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}
