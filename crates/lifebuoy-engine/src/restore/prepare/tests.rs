use serde_json::json;

use super::*;
use crate::restore::kinds::test_objects::{object, record_of, rules};

fn config(name: &str, namespace: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": name, "namespace": namespace, "uid": "u", "labels": {"app": "web"}}, "data": {"a": "b"}})
}

fn run(spec: Value, context: &Context, body: &Value) -> Prepared {
    prepare(&rules(spec), context, &record_of(body), &object(body))
}

#[track_caller]
fn draft(spec: Value, body: &Value) -> Draft {
    match run(spec, &Context::new(Some("restore-1")), body) {
        Prepared::Write(draft) => *draft,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn broken(spec: Value, body: &Value) -> String {
    match run(spec, &Context::new(None), body) {
        Prepared::Broken(reason, message) => format!("{reason}: {message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_matches_is_the_captured_object_and_patches_come_after_the_mapping() {
    let spec = json!({
        "mapping": {"namespaces": [{"from": "a", "to": "b"}]},
        "transforms": [
            {"match": {"namespaces": ["b"]}, "mergePatch": {"data": {"never": "x"}}},
            {"match": {"namespaces": ["a"]}, "jsonPatch": [
                {"op": "test", "path": "/metadata/namespace", "value": "b"},
                {"op": "replace", "path": "/metadata/name", "value": "y"},
            ]},
        ],
        "existing": {"policy": "Fail", "overrides": [{"match": {"names": ["x"]}, "policy": "Merge"}]},
    });
    let draft = draft(spec, &config("x", "a"));
    assert_eq!(draft.target, ObjectKey::new("b", "y"));
    assert_eq!(draft.policy, ExistingPolicy::Merge);
    assert_eq!(draft.body["data"], json!({"a": "b"}));
}

#[test]
fn the_stamp_is_on_the_object_and_not_in_the_hash() {
    let body = config("x", "a");
    let stamped = draft(json!({}), &body);
    assert_eq!(
        stamped.body["metadata"]["annotations"],
        json!({RESTORED_BY_ANNOTATION: "restore-1"})
    );
    assert!(stamped.body["metadata"].get("uid").is_none());
    let Prepared::Write(plain) = run(json!({}), &Context::new(None), &body) else {
        panic!("not written");
    };
    assert_eq!(plain.hash, stamped.hash);
    let changed = draft(
        json!({"transforms": [{"mergePatch": {"data": {"a": "c"}}}]}),
        &body,
    );
    assert_ne!(changed.hash, stamped.hash);
}

#[test]
fn an_object_that_cannot_be_made_says_why() {
    let patch = |patch: Value| json!({"transforms": [{"mergePatch": {}}, {"jsonPatch": [patch]}]});
    insta::assert_snapshot!([
        broken(patch(json!({"op": "remove", "path": "/spec/replicas"})), &config("x", "a")),
        broken(patch(json!({"op": "replace", "path": "/kind", "value": "Secret"})), &config("x", "a")),
        broken(patch(json!({"op": "remove", "path": "/metadata/namespace"})), &config("x", "a")),
        broken(patch(json!({"op": "replace", "path": "/metadata/name", "value": "a/b"})), &config("x", "a")),
        broken(patch(json!({"op": "replace", "path": "", "value": 1})), &config("x", "a")),
        broken(json!({"mapping": {"namespaces": [{"from": "*", "to": "restored-from-the-other-cluster-*"}]}}),
            &config("x", &"n".repeat(60))),
    ].join("\n"), @r#"
    TransformFailed: spec.transforms[1].jsonPatch[0] (remove /spec/replicas): path is invalid
    TransformFailed: a transform must not change `apiVersion` or `kind`
    TransformFailed: `metadata.namespace` is missing after the transforms
    TransformFailed: `a/b` cannot be the name of an object
    TransformFailed: a transform must not change `apiVersion` or `kind`
    TransformFailed: `restored-from-the-other-cluster-nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn` cannot be the name of a namespace: it has at most 63 lower-case letters, digits and `-`
    "#);
}

#[test]
fn hostile_archives_are_refused() {
    let body = config("x", "a");
    let mut object = object(&body);
    object.key.name = "y".into();
    let result = prepare(
        &rules(json!({})),
        &Context::new(None),
        &record_of(&body),
        &object,
    );
    assert!(
        matches!(result, Prepared::Broken(Reason::MalformedObject, _)),
        "{result:?}"
    );
    for bytes in [&b"[]"[..], b"{", b"{}", b"null"] {
        object.stable = bytes.to_vec().into();
        let result = prepare(
            &rules(json!({})),
            &Context::new(None),
            &record_of(&body),
            &object,
        );
        assert!(
            matches!(result, Prepared::Broken(Reason::MalformedObject, _)),
            "{result:?}"
        );
    }
}

#[test]
fn the_selection_is_about_captured_names_and_labels() {
    let selected = |selection: Value, body: &Value| {
        !matches!(
            run(json!({"selection": selection}), &Context::new(None), body),
            Prepared::NotSelected
        )
    };
    let shop = config("x", "shop");
    assert!(selected(json!({"namespaces": ["sh*"]}), &shop));
    assert!(!selected(json!({"namespaces": ["tools"]}), &shop));
    assert!(!selected(json!({"resources": ["secrets"]}), &shop));
    assert!(!selected(
        json!({"labelSelector": {"matchLabels": {"app": "db"}}}),
        &shop
    ));
    assert!(selected(
        json!({"labelSelector": {"matchLabels": {"app": "web"}}}),
        &shop
    ));
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    assert!(selected(
        json!({"resources": ["secrets"], "labelSelector": {"matchLabels": {"a": "b"}}}),
        &namespace
    ));
    assert!(!selected(
        json!({"excludedNamespaces": ["shop"]}),
        &namespace
    ));
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "x"}});
    assert!(selected(json!({"clusterScoped": "All"}), &role));
    assert!(!selected(json!({"clusterScoped": "None"}), &role));
}

#[test]
fn a_claim_asks_for_its_data_by_a_name_that_is_not_in_the_hash() {
    let body = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "shop", "annotations": {
            "pv.kubernetes.io/bind-completed": "yes", "volume.kubernetes.io/selected-node": "n"}},
        "spec": {"volumeName": "pv", "storageClassName": "fast", "accessModes": ["ReadWriteOnce"],
            "dataSource": {"kind": "VolumeSnapshot", "name": "s"},
            "resources": {"requests": {"storage": "10Gi"}}}});
    let spec = json!({"mapping": {"namespaces": [{"from": "shop", "to": "store"}],
        "storageClasses": [{"from": "fast", "to": "slow"}]}});
    let filled = |uid: Option<&str>| {
        let mut context = Context::new(uid);
        let saved = [(
            ObjectKey::new("shop", "data"),
            crate::volumes::test_record(|_| {}),
        )];
        context.saved = Arc::new(saved.into());
        match run(spec.clone(), &context, &body) {
            Prepared::Write(draft) => *draft,
            other => panic!("{other:?}"),
        }
    };
    let (plan, first, second) = (filled(None), filled(Some("r-1")), filled(Some("r-2")));
    assert_eq!((plan.hash, plan.fills), (first.hash, Some(3 << 30)));
    assert_eq!(first.hash, second.hash);
    let target = ObjectKey::new("store", "data");
    let name = crate::volumes::volume_restore_name("r-1", &target);
    assert_eq!(
        first.body["spec"],
        json!({"storageClassName": "slow", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "10Gi"}},
            "dataSourceRef": {"apiGroup": "lifebuoy.dev", "kind": "VolumeRestore", "name": name}})
    );
    assert_eq!(
        first.body["metadata"]["annotations"],
        json!({RESTORED_BY_ANNOTATION: "r-1"})
    );
}
