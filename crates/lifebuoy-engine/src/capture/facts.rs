//! What single objects tell about others while a cluster streams by: which
//! claims there are, which Services select for themselves, and what the
//! selected namespaces need of the cluster-scoped types.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use memchr::memmem;
use serde::Deserialize;

use super::{normalise::TypeName, shallow::Shallow};
use crate::{archive::ObjectKey, selection::Selector};

const RBAC: &str = "rbac.authorization.k8s.io";

/// Fields whose value is the name of a cluster-scoped object, wherever in an
/// object they stand: the field, and the type that it names.
const CLASS_FIELDS: &[(&str, (&str, &str))] = &[
    ("deviceClassName", ("resource.k8s.io", "deviceclasses")),
    (
        "gatewayClassName",
        ("gateway.networking.k8s.io", "gatewayclasses"),
    ),
    ("ingressClassName", ("networking.k8s.io", "ingressclasses")),
    (
        "priorityClassName",
        ("scheduling.k8s.io", "priorityclasses"),
    ),
    ("runtimeClassName", ("node.k8s.io", "runtimeclasses")),
    ("storageClassName", ("storage.k8s.io", "storageclasses")),
    (
        "volumeAttributesClassName",
        ("storage.k8s.io", "volumeattributesclasses"),
    ),
];
/// How all these fields end, with the beginning of their value.
const CLASS_FIELD_END: &[u8] = b"ClassName\":\"";
/// The way of naming an IngressClass before there was a field for it.
const INGRESS_CLASS_ANNOTATION: &[u8] = b"\"kubernetes.io/ingress.class\":\"";

/// What a pod has that has emptyDirs. One too many costs a look.
const EMPTY_DIR: &[u8] = b"\"emptyDir\":";

/// The order in which types are read, so that what one needs of another is
/// known in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Everything that needs nothing of others.
    First,
    /// What namespaced objects need.
    Needed,
    /// What those need.
    NeededByNeeded,
    /// The definitions of captured custom resources.
    Definitions,
}

/// The stage in which a type of which only what is needed is taken can be read;
/// none for types of which nothing is ever added.
pub(crate) fn stage_of_needed(group: &str, resource: &str) -> Option<Stage> {
    match (group, resource) {
        ("", "persistentvolumes") | (RBAC, "clusterrolebindings") => Some(Stage::Needed),
        (RBAC, "clusterroles") => Some(Stage::NeededByNeeded),
        ("apiextensions.k8s.io", "customresourcedefinitions") => Some(Stage::Definitions),
        _ => CLASS_FIELDS
            .iter()
            .any(|(_, class)| *class == (group, resource))
            .then_some(Stage::NeededByNeeded),
    }
}

/// What was learned so far.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// PersistentVolumeClaims that were captured.
    pub(crate) claims: BTreeSet<ObjectKey>,
    /// Pods with emptyDirs that are selected, also those that their controllers make again;
    /// none where nobody wants to know.
    pub(crate) pods: BTreeSet<ObjectKey>,
    /// Services whose Endpoints are made by a controller.
    selecting_services: HashSet<ObjectKey>,
    /// Names of cluster-scoped objects that are needed, by group and resource.
    needed: BTreeMap<(&'static str, &'static str), BTreeSet<String>>,
    /// Names of CustomResourceDefinitions of captured custom resources.
    definitions: BTreeSet<String>,
}

impl Facts {
    /// Learns from a pod that is selected, whether it is kept or not.
    pub(crate) fn learn_pod(&mut self, pod: &Shallow<'_>) {
        let spec = pod.field("spec").unwrap_or_default();
        if memmem::find(spec.as_bytes(), EMPTY_DIR).is_some() {
            let key = ObjectKey::new(&*pod.namespace, &*pod.name);
            self.pods.insert(key);
        }
    }

    /// Learns from an object that is kept. `additions` says whether needed
    /// cluster-scoped objects are looked for at all.
    pub(crate) fn learn(
        &mut self,
        t: TypeName<'_>,
        object: &Shallow<'_>,
        stable: &[u8],
        additions: bool,
    ) {
        let key = || ObjectKey::new(&*object.namespace, &*object.name);
        match (t.group, t.resource) {
            ("", "persistentvolumeclaims") => {
                self.claims.insert(key());
            }
            ("", "services") if has_selector(object) => {
                self.selecting_services.insert(key());
            }
            _ => {}
        }
        if !additions {
            return;
        }
        match (t.group, t.resource) {
            ("", "persistentvolumeclaims") => {
                if let Some(name) = volume_name(object) {
                    self.need(("", "persistentvolumes"), name);
                }
            }
            (RBAC, "rolebindings" | "clusterrolebindings") => {
                let role = parse::<RoleRef>(object.field("roleRef"));
                if role.kind == "ClusterRole" {
                    self.need((RBAC, "clusterroles"), role.name);
                }
            }
            ("networking.k8s.io", "ingresses") => {
                for name in values_after(stable, INGRESS_CLASS_ANNOTATION) {
                    self.need(("networking.k8s.io", "ingressclasses"), name);
                }
            }
            _ => {}
        }
        for (class, name) in classes(stable) {
            self.need(class, name);
        }
        if t.namespaced && t.group.contains('.') {
            let name = format!("{}.{}", t.resource, t.group);
            if !self.definitions.contains(&name) {
                self.definitions.insert(name);
            }
        }
    }

    fn need(&mut self, t: (&'static str, &'static str), name: String) {
        self.needed.entry(t).or_default().insert(name);
    }

    /// Whether a controller makes the Endpoints of this name.
    pub(crate) fn selected_by_service(&self, object: &Shallow<'_>) -> bool {
        !self.selecting_services.is_empty()
            && self
                .selecting_services
                .contains(&ObjectKey::new(&*object.namespace, &*object.name))
    }

    /// Whether an object of a cluster-scoped type is needed. ClusterRoles are
    /// not decided here, see [`Facts::needed_roles`].
    pub(crate) fn needs(&self, t: TypeName<'_>, object: &Shallow<'_>, selector: &Selector) -> bool {
        match (t.group, t.resource) {
            (RBAC, "clusterrolebindings") => binds_selected(object, selector),
            (RBAC, "clusterroles") => true,
            ("apiextensions.k8s.io", "customresourcedefinitions") => {
                self.definitions.contains(&*object.name)
                    || self.needed.iter().any(|((group, resource), names)| {
                        !names.is_empty() && object.name == format!("{resource}.{group}")
                    })
            }
            (group, resource) => self
                .needed
                .iter()
                .any(|(known, names)| *known == (group, resource) && names.contains(&*object.name)),
        }
    }

    /// Of all ClusterRoles, the names of those that bindings refer to, and of
    /// those that they are aggregated from.
    pub(crate) fn needed_roles(&self, roles: &[RoleFacts]) -> BTreeSet<String> {
        let mut wanted = self
            .needed
            .get(&(RBAC, "clusterroles"))
            .cloned()
            .unwrap_or_default();
        loop {
            let before = wanted.len();
            for role in roles
                .iter()
                .filter(|r| wanted.contains(&r.name))
                .cloned()
                .collect::<Vec<_>>()
            {
                let parts = roles.iter().filter(|part| {
                    role.aggregates.iter().any(|labels| {
                        !labels.is_empty()
                            && labels.iter().all(|(k, v)| part.labels.get(k) == Some(v))
                    })
                });
                wanted.extend(parts.map(|part| part.name.clone()));
            }
            if wanted.len() == before {
                return wanted;
            }
        }
    }
}

/// What decides about a ClusterRole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RoleFacts {
    pub(crate) name: String,
    labels: BTreeMap<String, String>,
    aggregates: Vec<BTreeMap<String, String>>,
}

impl RoleFacts {
    /// Reads a ClusterRole's stable column.
    pub(crate) fn read(name: &str, stable: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Role {
            metadata: Metadata,
            aggregation_rule: Option<Aggregation>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Metadata {
            labels: Option<BTreeMap<String, String>>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Aggregation {
            cluster_role_selectors: Option<Vec<Selecting>>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Selecting {
            match_labels: Option<BTreeMap<String, String>>,
        }
        let role: Role = serde_json::from_slice(stable).unwrap_or_default();
        let selectors = role
            .aggregation_rule
            .unwrap_or_default()
            .cluster_role_selectors;
        Self {
            name: name.to_owned(),
            labels: role.metadata.labels.unwrap_or_default(),
            aggregates: selectors
                .unwrap_or_default()
                .into_iter()
                .filter_map(|s| s.match_labels)
                .collect(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RoleRef {
    kind: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

/// Parses a field; what is not as Kubernetes has it names nothing.
fn parse<T: Default + for<'a> Deserialize<'a>>(json: Option<&str>) -> T {
    json.and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default()
}

/// Whether a binding's subjects are in a selected namespace.
fn binds_selected(object: &Shallow<'_>, selector: &Selector) -> bool {
    let subjects: Vec<Subject> = parse(object.field("subjects"));
    subjects.iter().any(|subject| match subject.kind.as_str() {
        "ServiceAccount" => selector.namespace(&subject.namespace),
        "Group" => subject
            .name
            .strip_prefix("system:serviceaccounts:")
            .is_some_and(|namespace| selector.namespace(namespace)),
        "User" => subject
            .name
            .strip_prefix("system:serviceaccount:")
            .and_then(|rest| rest.split_once(':'))
            .is_some_and(|(namespace, _)| selector.namespace(namespace)),
        _ => false,
    })
}

fn has_selector(object: &Shallow<'_>) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Spec {
        selector: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    }
    let spec: Spec = parse(object.field("spec"));
    spec.selector.is_some_and(|selector| !selector.is_empty())
}

fn volume_name(object: &Shallow<'_>) -> Option<String> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Spec {
        volume_name: Option<String>,
    }
    let spec: Spec = parse(object.field("spec"));
    spec.volume_name.filter(|name| !name.is_empty())
}

/// Every class that is named in an object, by a look at its bytes. A name too
/// many costs nothing: only objects that exist are taken.
fn classes(stable: &[u8]) -> Vec<((&'static str, &'static str), String)> {
    let mut found = Vec::new();
    for at in memmem::find_iter(stable, CLASS_FIELD_END) {
        let before = &stable[..at + b"ClassName".len()];
        let field = before.rsplit(|b| *b == b'"').next().unwrap_or_default();
        let class = CLASS_FIELDS
            .iter()
            .find(|(name, _)| name.as_bytes() == field);
        if let Some((_, class)) = class
            && let Some(name) = value(&stable[at + CLASS_FIELD_END.len()..])
        {
            found.push((*class, name));
        }
    }
    found
}

fn values_after(stable: &[u8], field: &[u8]) -> Vec<String> {
    memmem::find_iter(stable, field)
        .filter_map(|at| value(&stable[at + field.len()..]))
        .collect()
}

/// The text up to the next quote; names have no escapes.
fn value(bytes: &[u8]) -> Option<String> {
    let end = memchr::memchr(b'"', bytes)?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use lifebuoy_api::Selection;
    use serde_json::{Value, json};

    use super::*;

    fn learn(facts: &mut Facts, group: &str, resource: &str, object: &Value) {
        let bytes = serde_json::to_vec(object).unwrap();
        let t = TypeName {
            group,
            resource,
            namespaced: true,
            added: false,
        };
        facts.learn(t, &Shallow::parse(&bytes).unwrap(), &bytes, true);
    }

    fn needs(facts: &Facts, group: &str, resource: &str, object: &Value) -> bool {
        let selection = Selection {
            namespaces: vec!["shop".to_owned()],
            ..Selection::default()
        };
        let selector = Selector::parse(&selection, "s").unwrap();
        let bytes = serde_json::to_vec(object).unwrap();
        let t = TypeName {
            group,
            resource,
            namespaced: false,
            added: true,
        };
        facts.needs(t, &Shallow::parse(&bytes).unwrap(), &selector)
    }

    fn named(name: &str) -> Value {
        json!({"metadata": {"name": name}})
    }

    #[test]
    fn what_namespaced_objects_name_is_needed() {
        let mut facts = Facts::default();
        learn(
            &mut facts,
            "apps",
            "statefulsets",
            &json!({"metadata": {"name": "db"}, "spec": {
            "template": {"spec": {"priorityClassName": "high", "runtimeClassName": "gvisor"}},
            "volumeClaimTemplates": [{"spec": {"storageClassName": "fast"}}]}}),
        );
        learn(
            &mut facts,
            "",
            "persistentvolumeclaims",
            &json!({"metadata": {"name": "c", "namespace": "shop"}, "spec": {"volumeName": "pv-1"}}),
        );
        learn(
            &mut facts,
            "networking.k8s.io",
            "ingresses",
            &json!({"metadata": {"name": "i",
            "annotations": {"kubernetes.io/ingress.class": "old"}}, "spec": {"ingressClassName": "new"}}),
        );
        learn(&mut facts, "example.com", "tickets", &named("t"));
        for (group, resource, name) in [
            ("scheduling.k8s.io", "priorityclasses", "high"),
            ("node.k8s.io", "runtimeclasses", "gvisor"),
            ("storage.k8s.io", "storageclasses", "fast"),
            ("", "persistentvolumes", "pv-1"),
            ("networking.k8s.io", "ingressclasses", "old"),
            ("networking.k8s.io", "ingressclasses", "new"),
            (
                "apiextensions.k8s.io",
                "customresourcedefinitions",
                "tickets.example.com",
            ),
        ] {
            assert!(
                needs(&facts, group, resource, &named(name)),
                "{resource} {name}"
            );
            assert!(
                !needs(&facts, group, resource, &named("other")),
                "{resource}"
            );
        }
        assert_eq!(facts.claims.len(), 1);
    }

    #[test]
    fn pods_with_empty_dirs_are_known() {
        let mut facts = Facts::default();
        for (name, volume) in [
            ("with", json!({"name": "cache", "emptyDir": {}})),
            (
                "without",
                json!({"name": "set", "configMap": {"name": "c"}}),
            ),
        ] {
            let metadata = json!({"name": name, "namespace": "shop"});
            let pod = json!({"metadata": metadata, "spec": {"volumes": [volume]}});
            let bytes = serde_json::to_vec(&pod).unwrap();
            facts.learn_pod(&Shallow::parse(&bytes).unwrap());
        }
        assert_eq!(facts.pods, [ObjectKey::new("shop", "with")].into());
    }

    #[test]
    fn a_name_inside_text_is_no_reference() {
        let mut facts = Facts::default();
        learn(
            &mut facts,
            "",
            "configmaps",
            &json!({"metadata": {"name": "c"},
            "data": {"x": "{\"storageClassName\":\"fast\"}"}}),
        );
        assert!(!needs(
            &facts,
            "storage.k8s.io",
            "storageclasses",
            &named("fast")
        ));
    }

    #[test]
    fn bindings_of_selected_accounts_bring_their_roles_and_what_those_aggregate() {
        let mut facts = Facts::default();
        let binding = |kind: &str, name: &str, namespace: &str| {
            json!({"metadata": {"name": "b"},
            "subjects": [{"kind": kind, "name": name, "namespace": namespace}],
            "roleRef": {"kind": "ClusterRole", "name": "sum"}})
        };
        for (kind, name, namespace, expected) in [
            ("ServiceAccount", "web", "shop", true),
            ("ServiceAccount", "web", "other", false),
            ("Group", "system:serviceaccounts:shop", "", true),
            ("Group", "system:serviceaccounts", "", false),
            ("User", "system:serviceaccount:shop:web", "", true),
            ("User", "alice", "", false),
        ] {
            let object = binding(kind, name, namespace);
            assert_eq!(
                needs(&facts, RBAC, "clusterrolebindings", &object),
                expected,
                "{name}"
            );
        }
        learn(
            &mut facts,
            RBAC,
            "clusterrolebindings",
            &binding("ServiceAccount", "web", "shop"),
        );
        let role = |name: &str, labels: Value, aggregates: Value| {
            let role = json!({"metadata": {"name": name, "labels": labels},
                "aggregationRule": {"clusterRoleSelectors": aggregates}});
            RoleFacts::read(name, &serde_json::to_vec(&role).unwrap())
        };
        let roles = [
            role("sum", json!(null), json!([{"matchLabels": {"to": "sum"}}])),
            role(
                "part",
                json!({"to": "sum"}),
                json!([{"matchLabels": {"to": "part"}}]),
            ),
            role("deep", json!({"to": "part"}), json!(null)),
            role("other", json!({"to": "other"}), json!(null)),
        ];
        let needed = facts.needed_roles(&roles);
        assert_eq!(
            needed.iter().map(String::as_str).collect::<Vec<_>>(),
            ["deep", "part", "sum"]
        );
    }

    #[test]
    fn endpoints_of_services_with_a_selector_are_known() {
        let mut facts = Facts::default();
        let service = |name: &str, selector: Value| {
            json!({"metadata": {"name": name, "namespace": "a"},
            "spec": {"selector": selector}})
        };
        learn(
            &mut facts,
            "",
            "services",
            &service("auto", json!({"app": "x"})),
        );
        learn(&mut facts, "", "services", &service("manual", json!(null)));
        let of = |name: &str| {
            let bytes =
                serde_json::to_vec(&json!({"metadata": {"name": name, "namespace": "a"}})).unwrap();
            facts.selected_by_service(&Shallow::parse(&bytes).unwrap())
        };
        assert!(of("auto") && !of("manual"));
    }
}
