//! What a value in a known place means, and how a mapping changes it.

use serde_json::{Map, Value};

use super::{Findings, Mapper};

/// The label that the API server puts on every namespace: its name.
pub(crate) const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// The prefix of the groups of a namespace's ServiceAccounts.
const ACCOUNTS_PREFIX: &str = "system:serviceaccounts:";

/// The prefix of the user names of ServiceAccounts.
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// What follows the class in a ResourceQuota's keys.
const QUOTA_CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";

/// What a value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The name of a namespace.
    Namespace,
    /// `namespace/name`; a text without `/` names something next to the object.
    NamespacedName,
    /// A label selector for namespaces.
    NamespaceSelector,
    /// A user or group that may stand for ServiceAccounts.
    Account,
    /// A rule of RBAC, which may list namespaces by name.
    RbacRule,
    /// Parameters of a class; some name the namespace of a Secret.
    ClassParameters,
    /// The `hard` limits of a ResourceQuota.
    QuotaLimits,
    /// A storage class.
    StorageClass,
    /// An ingress or gateway class.
    IngressClass,
    /// A container image.
    Image,
    /// A host name that the world sees.
    Host,
    /// Host names with commas between them.
    HostList,
    /// A host in a service mesh: that of a Service, or one that the world sees.
    MeshHost,
    /// `namespace/host` or a host, in a service mesh.
    MeshScopedHost,
    /// A workload's identity in a service mesh.
    Principal,
    /// Where an Argo CD Application deploys to.
    ArgoDestination,
    /// `app:group/kind:namespace/name`.
    ArgoTracking,
}

impl Mapper {
    /// Rewrites a field of a map, if it is there.
    pub(super) fn rewrite_in(
        &self,
        map: &mut Value,
        field: &str,
        meaning: Meaning,
        findings: &mut Findings,
    ) {
        if let Some(value) = map.get_mut(field) {
            self.rewrite(meaning, value, findings);
        }
    }

    /// Rewrites a value that means this.
    pub(super) fn rewrite(&self, meaning: Meaning, value: &mut Value, findings: &mut Findings) {
        match meaning {
            Meaning::NamespaceSelector => self.rewrite_selector(value, findings),
            Meaning::RbacRule => self.rewrite_rbac_rule(value, findings),
            Meaning::ClassParameters => self.rewrite_parameters(value, findings),
            Meaning::QuotaLimits => self.rewrite_quota(value, findings),
            Meaning::ArgoDestination => self.rewrite_destination(value, findings),
            _ => {
                let mapped = value
                    .as_str()
                    .and_then(|text| self.rewrite_text(meaning, text));
                if let Some(mapped) = mapped {
                    *value = Value::String(mapped);
                    findings.changed = true;
                }
            }
        }
    }

    fn rewrite_text(&self, meaning: Meaning, text: &str) -> Option<String> {
        match meaning {
            // Some places hold `.` or `*` for "here" or "everywhere".
            Meaning::Namespace => super::is_label(text)
                .then(|| self.namespaces.map(text))
                .flatten(),
            Meaning::NamespacedName => {
                let (namespace, name) = text.split_once('/')?;
                Some(format!("{}/{name}", self.namespaces.map(namespace)?))
            }
            Meaning::Account => self.map_account(text),
            Meaning::StorageClass => self.storage_classes.map(text),
            Meaning::IngressClass => self.ingress_classes.map(text),
            Meaning::Image => self.images.map(text),
            Meaning::Host => self.hosts.map(text),
            Meaning::HostList => self.map_host_list(text),
            Meaning::MeshHost => self.map_mesh_host(text),
            Meaning::MeshScopedHost => self.map_scoped_host(text),
            Meaning::Principal => self.map_principal(text),
            Meaning::ArgoTracking => self.map_tracking(text),
            Meaning::NamespaceSelector
            | Meaning::RbacRule
            | Meaning::ClassParameters
            | Meaning::QuotaLimits
            | Meaning::ArgoDestination => None,
        }
    }

    fn map_account(&self, text: &str) -> Option<String> {
        if let Some(namespace) = text.strip_prefix(ACCOUNTS_PREFIX) {
            return Some(format!(
                "{ACCOUNTS_PREFIX}{}",
                self.namespaces.map(namespace)?
            ));
        }
        let (namespace, name) = text.strip_prefix(ACCOUNT_PREFIX)?.split_once(':')?;
        Some(format!(
            "{ACCOUNT_PREFIX}{}:{name}",
            self.namespaces.map(namespace)?
        ))
    }

    fn map_host_list(&self, text: &str) -> Option<String> {
        let mut changed = false;
        let hosts: Vec<String> = text
            .split(',')
            .map(|host| {
                let mapped = self.hosts.map(host.trim());
                changed |= mapped.is_some();
                mapped.unwrap_or_else(|| host.to_owned())
            })
            .collect();
        changed.then(|| hosts.join(","))
    }

    /// A host with `.svc` behind the namespace is a Service; a shorter form
    /// cannot be told from a host that the world sees.
    fn map_mesh_host(&self, text: &str) -> Option<String> {
        let mut labels = text.splitn(4, '.');
        let (service, namespace) = (labels.next()?, labels.next());
        match (namespace, labels.next()) {
            (Some(namespace), Some("svc")) => {
                let rest = labels
                    .next()
                    .map_or(String::new(), |rest| format!(".{rest}"));
                Some(format!(
                    "{service}.{}.svc{rest}",
                    self.namespaces.map(namespace)?
                ))
            }
            _ => self.hosts.map(text),
        }
    }

    fn map_scoped_host(&self, text: &str) -> Option<String> {
        let Some((scope, host)) = text.split_once('/') else {
            return self.map_mesh_host(text);
        };
        let new_scope = self.rewrite_text(Meaning::Namespace, scope);
        let new_host = self.map_mesh_host(host);
        if new_scope.is_none() && new_host.is_none() {
            return None;
        }
        Some(format!(
            "{}/{}",
            new_scope.as_deref().unwrap_or(scope),
            new_host.as_deref().unwrap_or(host)
        ))
    }

    fn map_principal(&self, text: &str) -> Option<String> {
        let (before, rest) = text.split_once("/ns/")?;
        let (namespace, after) = rest.split_once('/')?;
        Some(format!(
            "{before}/ns/{}/{after}",
            self.namespaces.map(namespace)?
        ))
    }

    fn map_tracking(&self, text: &str) -> Option<String> {
        let (before, object) = text.rsplit_once(':')?;
        let (namespace, name) = object.split_once('/')?;
        Some(format!(
            "{before}:{}/{name}",
            self.namespaces.map(namespace)?
        ))
    }

    fn rewrite_selector(&self, selector: &mut Value, findings: &mut Findings) {
        if let Some(labels) = selector.get_mut("matchLabels") {
            self.rewrite_in(labels, NAMESPACE_LABEL, Meaning::Namespace, findings);
        }
        super::visit_mut(selector, "matchExpressions[]", &mut |expression| {
            if expression["key"] == NAMESPACE_LABEL {
                super::visit_mut(expression, "values[]", &mut |value| {
                    self.rewrite(Meaning::Namespace, value, findings);
                });
            }
        });
    }

    fn rewrite_rbac_rule(&self, rule: &mut Value, findings: &mut Findings) {
        let about_namespaces = rule["resources"]
            .as_array()
            .is_some_and(|resources| resources.iter().all(|r| r == "namespaces"));
        if about_namespaces {
            super::visit_mut(rule, "resourceNames[]", &mut |name| {
                self.rewrite(Meaning::Namespace, name, findings);
            });
        }
    }

    fn rewrite_parameters(&self, parameters: &mut Value, findings: &mut Findings) {
        let Some(parameters) = parameters.as_object_mut() else {
            return;
        };
        for (key, value) in parameters {
            let key = key.to_ascii_lowercase();
            if key.ends_with("secret-namespace") || key.ends_with("secretnamespace") {
                self.rewrite(Meaning::Namespace, value, findings);
            }
        }
    }

    fn rewrite_quota(&self, hard: &mut Value, findings: &mut Findings) {
        let Some(limits) = hard.as_object_mut() else {
            return;
        };
        let mapped: Map<String, Value> = std::mem::take(limits)
            .into_iter()
            .map(|(key, limit)| match self.map_quota_key(&key) {
                Some(new) => {
                    findings.changed = true;
                    (new, limit)
                }
                None => (key, limit),
            })
            .collect();
        *limits = mapped;
    }

    fn map_quota_key(&self, key: &str) -> Option<String> {
        let (class, limit) = key.split_once(QUOTA_CLASS_SUFFIX)?;
        Some(format!(
            "{}{QUOTA_CLASS_SUFFIX}{limit}",
            self.storage_classes.map(class)?
        ))
    }

    /// An Application may deploy to another cluster, whose namespaces are not ours.
    fn rewrite_destination(&self, destination: &mut Value, findings: &mut Findings) {
        let here = match (destination["server"].as_str(), destination["name"].as_str()) {
            (Some(server), _) => server.starts_with("https://kubernetes.default.svc"),
            (None, Some(name)) => name == "in-cluster",
            (None, None) => true,
        };
        if here {
            self.rewrite_in(destination, "namespace", Meaning::Namespace, findings);
        }
    }
}
