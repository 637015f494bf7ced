//! What a remapped object has to look like, stated field by field for the
//! kinds that the tests use. It is a second, simpler statement of what a
//! restore does, and shares no code with it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};

use super::ObjectKey;

const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const PULL_SECRET: &str = ".dockerconfigjson";
const QUOTA_SUFFIX: &str = ".storageclass.storage.k8s.io/";

/// Names of the source cluster and what becomes of them. What is not listed
/// keeps its name.
#[derive(Clone, Debug, Default)]
pub struct Remapping {
    /// Namespaces.
    pub namespaces: BTreeMap<String, String>,
    /// Storage classes.
    pub storage_classes: BTreeMap<String, String>,
    /// Ingress classes.
    pub ingress_classes: BTreeMap<String, String>,
    /// Prefixes of images; the first that fits wins.
    pub image_prefixes: Vec<(String, String)>,
    /// Hosts of Ingresses; `*.a` to `*.b` changes everything below `a`.
    pub hosts: BTreeMap<String, String>,
}

impl Remapping {
    /// Nothing changes.
    pub fn identity() -> Self {
        Self::default()
    }

    /// The target's name of a namespace.
    pub fn namespace(&self, name: &str) -> String {
        self.namespaces
            .get(name)
            .map_or_else(|| name.to_owned(), Clone::clone)
    }

    fn host(&self, host: &str) -> String {
        if let Some(to) = self.hosts.get(host) {
            return to.clone();
        }
        for (from, to) in &self.hosts {
            let (Some(from), Some(to)) = (from.strip_prefix('*'), to.strip_prefix('*')) else {
                continue;
            };
            if let Some(label) = host.strip_suffix(from) {
                return format!("{label}{to}");
            }
        }
        host.to_owned()
    }

    fn image(&self, image: &str) -> String {
        for (from, to) in &self.image_prefixes {
            if let Some(rest) = image.strip_prefix(from) {
                return format!("{to}{rest}");
            }
        }
        image.to_owned()
    }

    pub(super) fn apply(&self, key: &ObjectKey, object: &Value) -> (ObjectKey, Value) {
        let mut key = key.clone();
        let mut object = object.clone();
        key.namespace = self.namespace(&key.namespace);
        if key.kind == "Namespace" && key.group.is_empty() {
            key.name = self.namespace(&key.name);
        }
        self.object(&key.group, &key.kind, &mut object);
        (key, object)
    }

    fn object(&self, group: &str, kind: &str, object: &mut Value) {
        self.metadata(group, kind, object);
        match (group, kind) {
            ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
                each(at(object, "subjects"), |subject| self.subject(subject));
            }
            ("", "PersistentVolumeClaim") => self.claim(at(object, "spec")),
            ("", "PersistentVolume") => {
                rename(at(object, "spec.storageClassName"), &self.storage_classes);
                rename(at(object, "spec.claimRef.namespace"), &self.namespaces);
            }
            ("", "ResourceQuota") => self.quota(at(object, "spec.hard")),
            ("", "Secret") => self.registries(object),
            ("", "Pod") => self.pod(at(object, "spec")),
            ("batch", "CronJob") => self.pod(at(object, "spec.jobTemplate.spec.template.spec")),
            ("apps" | "batch", _) => {
                self.pod(at(object, "spec.template.spec"));
                each(at(object, "spec.volumeClaimTemplates"), |template| {
                    self.claim(at(template, "spec"));
                });
            }
            ("networking.k8s.io", "NetworkPolicy") => self.selectors(object),
            ("networking.k8s.io", "Ingress") => self.ingress(object),
            ("apiextensions.k8s.io", "CustomResourceDefinition") => {
                let service = "spec.conversion.webhook.clientConfig.service.namespace";
                rename(at(object, service), &self.namespaces);
            }
            ("admissionregistration.k8s.io", _) => {
                each(at(object, "webhooks"), |webhook| {
                    rename(
                        at(webhook, "clientConfig.service.namespace"),
                        &self.namespaces,
                    );
                    self.selectors(webhook);
                });
            }
            _ => {}
        }
    }

    fn metadata(&self, group: &str, kind: &str, object: &mut Value) {
        rename(at(object, "metadata.namespace"), &self.namespaces);
        if (group, kind) == ("", "Namespace") {
            rename(at(object, "metadata.name"), &self.namespaces);
        }
        let Some(annotations) = at(object, "metadata.annotations") else {
            return;
        };
        rename(
            annotations.get_mut("volume.beta.kubernetes.io/storage-class"),
            &self.storage_classes,
        );
        rename(
            annotations.get_mut("kubernetes.io/ingress.class"),
            &self.ingress_classes,
        );
        if let Some(applied @ Value::Object(_)) = annotations.get_mut(LAST_APPLIED) {
            self.object(group, kind, applied);
        }
    }

    fn subject(&self, subject: &mut Value) {
        rename(subject.get_mut("namespace"), &self.namespaces);
        let Some(name) = subject["name"].as_str() else {
            return;
        };
        let renamed = if let Some(namespace) = name.strip_prefix("system:serviceaccounts:") {
            format!("system:serviceaccounts:{}", self.namespace(namespace))
        } else if let Some(account) = name.strip_prefix("system:serviceaccount:") {
            let (namespace, name) = account.split_once(':').unwrap_or((account, ""));
            format!("system:serviceaccount:{}:{name}", self.namespace(namespace))
        } else {
            return;
        };
        subject["name"] = Value::String(renamed);
    }

    fn claim(&self, spec: Option<&mut Value>) {
        if let Some(spec) = spec {
            rename(at(spec, "storageClassName"), &self.storage_classes);
            rename(at(spec, "dataSourceRef.namespace"), &self.namespaces);
        }
    }

    fn quota(&self, hard: Option<&mut Value>) {
        let Some(Value::Object(limits)) = hard else {
            return;
        };
        let renamed: Map<String, Value> = std::mem::take(limits)
            .into_iter()
            .map(|(name, limit)| {
                let renamed = name.split_once(QUOTA_SUFFIX).and_then(|(class, rest)| {
                    let class = self.storage_classes.get(class)?;
                    Some(format!("{class}{QUOTA_SUFFIX}{rest}"))
                });
                (renamed.unwrap_or(name), limit)
            })
            .collect();
        *limits = renamed;
    }

    /// The registries that a pull secret is for: those that are a whole prefix.
    fn registries(&self, secret: &mut Value) {
        let Some(Value::String(field)) =
            secret.get_mut("data").and_then(|d| d.get_mut(PULL_SECRET))
        else {
            return;
        };
        let config = BASE64_STANDARD.decode(&field).ok();
        let Some(mut config) = config.and_then(|c| serde_json::from_slice::<Value>(&c).ok()) else {
            return;
        };
        let mut moved = false;
        if let Some(Value::Object(auths)) = config.get_mut("auths") {
            for (from, to) in &self.image_prefixes {
                if let Some(auth) = auths.remove(from.trim_end_matches('/')) {
                    auths.insert(to.trim_end_matches('/').to_owned(), auth);
                    moved = true;
                }
            }
        }
        // A secret in which nothing moves keeps its very bytes.
        if moved {
            *field = BASE64_STANDARD.encode(config.to_string());
        }
    }

    fn pod(&self, spec: Option<&mut Value>) {
        let Some(spec) = spec else { return };
        for part in ["containers", "initContainers", "ephemeralContainers"] {
            each(at(spec, part), |container| {
                self.image_at(at(container, "image"))
            });
        }
        each(at(spec, "volumes"), |volume| {
            self.image_at(at(volume, "image.reference"));
            self.claim(at(volume, "ephemeral.volumeClaimTemplate.spec"));
        });
        for part in ["affinity.podAffinity", "affinity.podAntiAffinity"] {
            let Some(rules) = at(spec, part) else {
                continue;
            };
            let required = at(rules, "requiredDuringSchedulingIgnoredDuringExecution");
            each(required, |term| self.affinity_term(term));
            let preferred = at(rules, "preferredDuringSchedulingIgnoredDuringExecution");
            each(preferred, |rule| {
                if let Some(term) = at(rule, "podAffinityTerm") {
                    self.affinity_term(term);
                }
            });
        }
    }

    fn affinity_term(&self, term: &mut Value) {
        each(at(term, "namespaces"), |name| {
            rename(Some(name), &self.namespaces)
        });
        self.selectors(term);
    }

    fn image_at(&self, image: Option<&mut Value>) {
        if let Some(Value::String(image)) = image {
            *image = self.image(image);
        }
    }

    fn ingress(&self, ingress: &mut Value) {
        rename(at(ingress, "spec.ingressClassName"), &self.ingress_classes);
        let host_at = |host: Option<&mut Value>| {
            if let Some(Value::String(host)) = host {
                *host = self.host(host);
            }
        };
        each(at(ingress, "spec.rules"), |rule| host_at(at(rule, "host")));
        each(at(ingress, "spec.tls"), |tls| {
            each(at(tls, "hosts"), |host| host_at(Some(host)))
        });
    }

    /// Changes every `namespaceSelector` in `value` that selects by name.
    fn selectors(&self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.selectors(item)),
            Value::Object(fields) => {
                for (name, field) in fields {
                    match name.as_str() {
                        "namespaceSelector" => self.selector(field),
                        _ => self.selectors(field),
                    }
                }
            }
            _ => {}
        }
    }

    fn selector(&self, selector: &mut Value) {
        if let Some(labels) = selector.get_mut("matchLabels") {
            rename(labels.get_mut(NAMESPACE_LABEL), &self.namespaces);
        }
        each(selector.get_mut("matchExpressions"), |expression| {
            if expression["key"] == NAMESPACE_LABEL {
                each(expression.get_mut("values"), |name| {
                    rename(Some(name), &self.namespaces)
                });
            }
        });
    }
}

fn rename(value: Option<&mut Value>, names: &BTreeMap<String, String>) {
    if let Some(Value::String(name)) = value
        && let Some(to) = names.get(name)
    {
        name.clone_from(to);
    }
}

fn each(list: Option<&mut Value>, change: impl Fn(&mut Value)) {
    if let Some(Value::Array(items)) = list {
        items.iter_mut().for_each(change);
    }
}

/// What is at a path of names joined by dots, if it is there.
fn at<'a>(value: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.')
        .try_fold(value, |value, name| value.get_mut(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn remapping() -> Remapping {
        let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        Remapping {
            namespaces: [pair("shop", "store")].into(),
            storage_classes: [pair("fast-a", "fast-b")].into(),
            ingress_classes: BTreeMap::new(),
            image_prefixes: vec![pair("a.example/", "b.example/mirror/")],
            hosts: [pair("*.a.example", "*.b.example")].into(),
        }
    }

    fn remapped(group: &str, kind: &str, mut object: Value) -> Value {
        remapping().object(group, kind, &mut object);
        object
    }

    #[test]
    fn nothing_is_added_where_nothing_was() {
        let crd = json!({"metadata": {"name": "x"}, "spec": {"conversion": {"strategy": "None"}}});
        let group = "apiextensions.k8s.io";
        assert_eq!(
            remapped(group, "CustomResourceDefinition", crd.clone()),
            crd
        );
        let volume = json!({"metadata": {"name": "x"}, "spec": {}});
        assert_eq!(remapped("", "PersistentVolume", volume.clone()), volume);
    }

    #[test]
    fn names_are_changed_in_their_places_and_in_the_last_applied_configuration() {
        let pod = |image: &str, namespace: &str| {
            json!({
                "metadata": {"namespace": namespace, "annotations": {"note": "shop"}},
                "spec": {"template": {"spec": {"containers": [{"image": image}]}}},
            })
        };
        let with_applied = |image: &str, namespace: &str| {
            let mut object = pod(image, namespace);
            object["metadata"]["annotations"][LAST_APPLIED] = pod(image, namespace);
            object
        };
        assert_eq!(
            remapped(
                "apps",
                "Deployment",
                with_applied("a.example/web:1", "shop")
            ),
            with_applied("b.example/mirror/web:1", "store")
        );
    }

    #[test]
    fn hosts_match_whole_labels() {
        assert_eq!(remapping().host("www.a.example"), "www.b.example");
        assert_eq!(remapping().host("www.aa.example"), "www.aa.example");
    }
}
