//! Which objects are kept: what never is, what controllers make again, and what
//! the selection says. Pure.

use std::collections::HashSet;

use lifebuoy_api::{EXCLUDE_LABEL, GROUP};

use super::shallow::Shallow;
use crate::selection::Selector;

/// A type by its group and resource.
type GroupResource = (&'static str, &'static str);

/// Types of which no object is ever captured: they are of the moment, of the
/// machines, or made again by controllers.
const NEVER: &[GroupResource] = &[
    ("", "events"),
    ("", "nodes"),
    ("apps", "controllerrevisions"),
    ("certificates.k8s.io", "certificatesigningrequests"),
    ("certificates.k8s.io", "podcertificaterequests"),
    ("coordination.k8s.io", "leasecandidates"),
    ("coordination.k8s.io", "leases"),
    ("events.k8s.io", "events"),
    ("internal.apiserver.k8s.io", "storageversions"),
    ("networking.k8s.io", "ipaddresses"),
    ("resource.k8s.io", "resourcepoolstatusrequests"),
    ("resource.k8s.io", "resourceslices"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "csistoragecapacities"),
    ("storage.k8s.io", "volumeattachments"),
    ("storagemigration.k8s.io", "storageversionmigrations"),
    // Requests to lifebuoy and what it projects of a repository.
    (GROUP, "backups"),
    (GROUP, "recoverypoints"),
    (GROUP, "volumerestores"),
    (GROUP, "restores"),
];

/// Types that show the objects of another type once more: captured only where
/// the other type is not served.
const SHOWN_TWICE: &[(GroupResource, GroupResource)] = &[
    (("extensions", "daemonsets"), ("apps", "daemonsets")),
    (("extensions", "deployments"), ("apps", "deployments")),
    (("extensions", "replicasets"), ("apps", "replicasets")),
    (
        ("extensions", "ingresses"),
        ("networking.k8s.io", "ingresses"),
    ),
    (
        ("extensions", "networkpolicies"),
        ("networking.k8s.io", "networkpolicies"),
    ),
    (
        ("authorization.openshift.io", "roles"),
        ("rbac.authorization.k8s.io", "roles"),
    ),
    (
        ("authorization.openshift.io", "rolebindings"),
        ("rbac.authorization.k8s.io", "rolebindings"),
    ),
    (
        ("authorization.openshift.io", "clusterroles"),
        ("rbac.authorization.k8s.io", "clusterroles"),
    ),
    (
        ("authorization.openshift.io", "clusterrolebindings"),
        ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ),
    (("project.openshift.io", "projects"), ("", "namespaces")),
];

/// Whether a type is never captured.
pub(crate) fn never_captured(group: &str, resource: &str) -> bool {
    NEVER.contains(&(group, resource))
}

/// The type under which a type's objects are captured already, if it is served.
pub(crate) fn shown_as(group: &str, resource: &str) -> Option<(&'static str, &'static str)> {
    let pair = SHOWN_TWICE
        .iter()
        .find(|(shown, _)| *shown == (group, resource));
    pair.map(|(_, instead)| *instead)
}

/// What the whole capture knows that decides about single objects.
#[derive(Debug)]
pub(crate) struct KeepRules {
    pub(crate) selector: Selector,
    pub(crate) own_namespace: Option<String>,
    /// Group and kind of everything in the capture set.
    pub(crate) captured_kinds: HashSet<(String, String)>,
}

/// The type of an object that is decided about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TypeName<'a> {
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) namespaced: bool,
    /// Whether this type's objects are taken as additions of
    /// `clusterScoped: Auto`, whatever their labels are.
    pub(crate) added: bool,
}

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Keep,
    Skip(Why),
}

impl Verdict {
    /// Whether the selection means the object, also where its controller makes it again.
    pub(crate) fn is_meant(self) -> bool {
        matches!(self, Self::Keep | Self::Skip(Why::Controlled))
    }
}

/// Why an object is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    NotSelected,
    ExcludeLabel,
    BeingDeleted,
    /// Its controller is captured, and makes it again.
    Controlled,
    /// The API server or a built-in controller makes it in every cluster.
    MadeByTheCluster,
    /// It is of the operator's own namespace.
    Own,
}

type Check = fn(TypeName<'_>, &Shallow<'_>, &KeepRules) -> bool;

/// Decides about one object by itself; what others say of it is with
/// [`Facts`](super::facts::Facts).
pub(crate) fn verdict(t: TypeName<'_>, object: &Shallow<'_>, rules: &KeepRules) -> Verdict {
    let checks: [(Why, Check); 6] = [
        (Why::NotSelected, not_selected),
        (Why::ExcludeLabel, |_, o, _| {
            o.label(EXCLUDE_LABEL) == Some("true")
        }),
        (Why::BeingDeleted, |_, o, _| o.being_deleted),
        (Why::Own, own),
        (Why::Controlled, |_, o, rules| controlled(o, rules)),
        (Why::MadeByTheCluster, |t, o, _| made_by_the_cluster(t, o)),
    ];
    let why = checks
        .into_iter()
        .find(|(_, holds)| holds(t, object, rules));
    why.map_or(Verdict::Keep, |(why, _)| Verdict::Skip(why))
}

fn not_selected(t: TypeName<'_>, object: &Shallow<'_>, rules: &KeepRules) -> bool {
    if (t.group, t.resource) == ("", "namespaces") {
        return !rules.selector.namespace(&object.name);
    }
    let in_namespace = !t.namespaced || rules.selector.namespace(&object.namespace);
    let labels = t.added || rules.selector.labels_by(|key| object.label(key));
    !(in_namespace && labels)
}

fn own(t: TypeName<'_>, object: &Shallow<'_>, rules: &KeepRules) -> bool {
    let Some(own) = rules.own_namespace.as_deref() else {
        return false;
    };
    // The Namespace itself is saved: what comes back needs it.
    let comes_back = t.group == GROUP && matches!(t.resource, "repositories" | "schedules");
    t.namespaced && object.namespace == own && !comes_back
}

fn controlled(object: &Shallow<'_>, rules: &KeepRules) -> bool {
    object.owners.iter().filter(|o| o.controller).any(|owner| {
        let group = owner
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        rules
            .captured_kinds
            .contains(&(group.to_owned(), owner.kind.clone()))
    })
}

fn made_by_the_cluster(t: TypeName<'_>, object: &Shallow<'_>) -> bool {
    let is = |namespace: &str, name: &str| object.namespace == namespace && object.name == name;
    match (t.group, t.resource) {
        ("", "pods") => object.annotation("kubernetes.io/config.mirror").is_some(),
        ("", "configmaps") => {
            object.name == "kube-root-ca.crt"
                || is("kube-system", "extension-apiserver-authentication")
        }
        ("", "services") => is("default", "kubernetes"),
        ("", "endpoints") => {
            is("default", "kubernetes")
                || object.label("endpoints.kubernetes.io/managed-by") == Some("endpoint-controller")
        }
        ("discovery.k8s.io", "endpointslices") => {
            is("default", "kubernetes")
                || matches!(
                    object.label("endpointslice.kubernetes.io/managed-by"),
                    Some(
                        "endpointslice-controller.k8s.io"
                            | "endpointslicemirroring-controller.k8s.io"
                    )
                )
        }
        ("networking.k8s.io", "servicecidrs") => object.name == "kubernetes",
        ("rbac.authorization.k8s.io", _) => {
            object.label("kubernetes.io/bootstrapping") == Some("rbac-defaults")
        }
        ("flowcontrol.apiserver.k8s.io", _) => {
            object
                .annotation("apf.kubernetes.io/autoupdate-spec")
                .as_deref()
                == Some("true")
        }
        ("apiregistration.k8s.io", "apiservices") => object
            .label("kube-aggregator.kubernetes.io/automanaged")
            .is_some(),
        ("scheduling.k8s.io", "priorityclasses") => object.name.starts_with("system-"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use lifebuoy_api::Selection;
    use serde_json::{Value, json};

    use super::*;

    fn rules(selection: &Selection) -> KeepRules {
        let kinds = [
            ("apps", "ReplicaSet"),
            ("batch", "CronJob"),
            ("", "ConfigMap"),
        ];
        KeepRules {
            selector: Selector::parse(selection, "spec.selection").unwrap(),
            own_namespace: Some("lifebuoy-system".to_owned()),
            captured_kinds: kinds.map(|(g, k)| (g.to_owned(), k.to_owned())).into(),
        }
    }

    fn decide(group: &str, resource: &str, metadata: Value, selection: &Selection) -> Verdict {
        let namespaced = metadata.get("namespace").is_some();
        let bytes = serde_json::to_vec(&json!({ "metadata": metadata })).unwrap();
        let t = TypeName {
            group,
            resource,
            namespaced,
            added: false,
        };
        verdict(t, &Shallow::parse(&bytes).unwrap(), &rules(selection))
    }

    #[test]
    fn what_a_cluster_makes_by_itself_is_left_out() {
        use Why::{BeingDeleted, Controlled, ExcludeLabel, MadeByTheCluster, Own};
        let of = |ns: &str, name: &str| json!({"namespace": ns, "name": name});
        let labelled =
            |key: &str, value: &str| json!({"namespace": "a", "name": "x", "labels": {key: value}});
        let annotated = |key: &str, value: &str| json!({"namespace": "a", "name": "x", "annotations": {key: value}});
        let owned = |api: &str, kind: &str, controller: bool| {
            json!({"namespace": "a", "name": "x",
            "ownerReferences": [{"apiVersion": api, "kind": kind, "controller": controller}]})
        };
        let slices = "endpointslice.kubernetes.io/managed-by";
        let rbac = "rbac.authorization.k8s.io";
        let apf = "flowcontrol.apiserver.k8s.io";
        let cases: Vec<(&str, &str, Value, Option<Why>)> = vec![
            ("", "configmaps", of("a", "x"), None),
            (
                "",
                "configmaps",
                of("a", "kube-root-ca.crt"),
                Some(MadeByTheCluster),
            ),
            (
                "",
                "configmaps",
                of("kube-system", "extension-apiserver-authentication"),
                Some(MadeByTheCluster),
            ),
            (
                "",
                "configmaps",
                of("a", "extension-apiserver-authentication"),
                None,
            ),
            (
                "",
                "services",
                of("default", "kubernetes"),
                Some(MadeByTheCluster),
            ),
            ("", "services", of("a", "kubernetes"), None),
            (
                "",
                "pods",
                annotated("kubernetes.io/config.mirror", "h"),
                Some(MadeByTheCluster),
            ),
            (
                "",
                "pods",
                owned("apps/v1", "ReplicaSet", true),
                Some(Controlled),
            ),
            ("", "pods", owned("apps/v1", "ReplicaSet", false), None),
            ("", "pods", owned("other/v1", "ReplicaSet", true), None),
            (
                "",
                "secrets",
                owned("v1", "ConfigMap", true),
                Some(Controlled),
            ),
            (
                "",
                "endpoints",
                labelled("endpoints.kubernetes.io/managed-by", "endpoint-controller"),
                Some(MadeByTheCluster),
            ),
            (
                "discovery.k8s.io",
                "endpointslices",
                labelled(slices, "endpointslice-controller.k8s.io"),
                Some(MadeByTheCluster),
            ),
            (
                "discovery.k8s.io",
                "endpointslices",
                labelled(slices, "endpointslicemirroring-controller.k8s.io"),
                Some(MadeByTheCluster),
            ),
            (
                "discovery.k8s.io",
                "endpointslices",
                labelled(slices, "mine"),
                None,
            ),
            (
                "networking.k8s.io",
                "servicecidrs",
                json!({"name": "kubernetes"}),
                Some(MadeByTheCluster),
            ),
            (
                rbac,
                "clusterroles",
                json!({"name": "x", "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}),
                Some(MadeByTheCluster),
            ),
            (rbac, "clusterroles", json!({"name": "x"}), None),
            (
                apf,
                "flowschemas",
                annotated("apf.kubernetes.io/autoupdate-spec", "true"),
                Some(MadeByTheCluster),
            ),
            (
                apf,
                "flowschemas",
                annotated("apf.kubernetes.io/autoupdate-spec", "false"),
                None,
            ),
            (
                "apiregistration.k8s.io",
                "apiservices",
                labelled("kube-aggregator.kubernetes.io/automanaged", "onstart"),
                Some(MadeByTheCluster),
            ),
            (
                "scheduling.k8s.io",
                "priorityclasses",
                json!({"name": "system-node-critical"}),
                Some(MadeByTheCluster),
            ),
            (
                "scheduling.k8s.io",
                "priorityclasses",
                json!({"name": "mine"}),
                None,
            ),
            (
                "",
                "secrets",
                labelled(EXCLUDE_LABEL, "true"),
                Some(ExcludeLabel),
            ),
            ("", "secrets", labelled(EXCLUDE_LABEL, "false"), None),
            (
                "",
                "secrets",
                json!({"namespace": "a", "name": "x", "deletionTimestamp": "t"}),
                Some(BeingDeleted),
            ),
            ("", "secrets", of("lifebuoy-system", "repo"), Some(Own)),
            (GROUP, "schedules", of("lifebuoy-system", "nightly"), None),
            (GROUP, "repositories", of("lifebuoy-system", "main"), None),
            ("", "namespaces", json!({"name": "lifebuoy-system"}), None),
        ];
        for (group, resource, metadata, why) in cases {
            let expected = why.map_or(Verdict::Keep, Verdict::Skip);
            let found = decide(group, resource, metadata.clone(), &Selection::default());
            assert_eq!(found, expected, "{resource}.{group} {metadata}");
        }
    }

    #[test]
    fn the_selection_decides_by_namespace_and_label_and_namespaces_need_no_label() {
        let selection = Selection {
            namespaces: vec!["shop-*".to_owned()],
            label_selector: Some(
                serde_json::from_value(json!({"matchLabels": {"app": "web"}})).unwrap(),
            ),
            ..Selection::default()
        };
        let web = json!({"app": "web"});
        for (resource, metadata, kept) in [
            (
                "secrets",
                json!({"namespace": "shop-a", "name": "x", "labels": web}),
                true,
            ),
            (
                "secrets",
                json!({"namespace": "shop-a", "name": "x"}),
                false,
            ),
            (
                "secrets",
                json!({"namespace": "b", "name": "x", "labels": web}),
                false,
            ),
            ("namespaces", json!({"name": "shop-a"}), true),
            ("namespaces", json!({"name": "b"}), false),
        ] {
            let found = decide("", resource, metadata.clone(), &selection);
            assert_eq!(found == Verdict::Keep, kept, "{resource} {metadata}");
        }
    }

    #[test]
    fn types_of_the_moment_and_types_shown_twice_are_left_out() {
        assert!(never_captured("events.k8s.io", "events") && never_captured("", "nodes"));
        assert!(never_captured(GROUP, "backups") && !never_captured(GROUP, "schedules"));
        assert_eq!(
            shown_as("extensions", "ingresses"),
            Some(("networking.k8s.io", "ingresses"))
        );
        assert_eq!(shown_as("networking.k8s.io", "ingresses"), None);
    }
}
