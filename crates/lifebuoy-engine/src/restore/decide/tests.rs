use lifebuoy_api::{ExistingPolicy, Problem, Reason, RestoreCounts, Severity};
use lifebuoy_repo::SessionId;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::archive::{Manifest, ObjectKey, TypeId, TypeRecord, TypeTotals};
use crate::discovery::ServedType;
use crate::restore::kinds::test_objects::{object, record_of, remapped, rules, shop};
use crate::restore::report::Report;
use crate::restore::survey::{Survey, reading_order};
use crate::restore::{Action, Existing, ExistingClaim, Key, NamespacePhase, Plan, Rules, Target};
use crate::testing::fake_manifest;
use crate::volumes::{VolumeMode, VolumeRecord, empty_dir_key, test_record};

/// The manifest of a point in which the data of these claims was saved, and of no other.
fn manifest(objects: &[Value], saved: &[VolumeRecord]) -> Manifest {
    let totals = TypeTotals {
        objects: 0,
        bytes: 0,
        tree: None,
    };
    let claims = objects
        .iter()
        .filter(|body| body["kind"] == "PersistentVolumeClaim")
        .map(|body| object(body).key);
    Manifest {
        volumes_not_saved: claims
            .filter(|claim| saved.iter().all(|of| of.claim != *claim))
            .collect(),
        volumes_saved: saved.to_vec(),
        ..fake_manifest(&TypeId::new("", "configmaps"), totals)
    }
}

/// Surveys objects as [`crate::restore::survey`] does an archive.
fn survey(objects: &[Value], spec: &Value) -> Survey {
    survey_with(objects, &rules(spec.clone()), &[])
}

fn survey_with(objects: &[Value], rules: &Rules, saved: &[VolumeRecord]) -> Survey {
    let mut survey = Survey::new(SessionId::from_bytes([7; 16]), rules);
    survey.look_at_volumes(&manifest(objects, saved), rules);
    let mut types: Vec<TypeRecord> = Vec::new();
    for body in objects {
        let t = record_of(body);
        if !types.contains(&t) {
            types.push(t);
        }
    }
    let mut order: Vec<&TypeRecord> = types.iter().collect();
    reading_order(&mut order);
    for t in order {
        assert!(survey.open_type(t, rules));
        for body in objects.iter().filter(|body| record_of(body) == *t) {
            survey.look(t, &object(body), rules);
        }
    }
    survey.close();
    survey
}

/// An empty cluster that serves the types of these objects, but for custom ones.
fn empty_cluster(objects: &[Value]) -> Target {
    let mut served: Vec<ServedType> = Vec::new();
    for body in objects {
        let t = record_of(body);
        if t.group.ends_with("example.com") || served.iter().any(|s| s.kind == t.kind) {
            continue;
        }
        served.push(ServedType {
            group: t.group,
            version: t.version.clone(),
            served_versions: vec![t.version],
            kind: t.kind,
            resource: t.resource,
            namespaced: t.namespaced,
            verbs: Vec::new(),
            short_names: Vec::new(),
            stale: false,
        });
    }
    Target {
        served,
        namespaces: [("default".to_owned(), NamespacePhase::Active)].into(),
        storage_classes: Some(["standard".to_owned()].into()),
        ..Target::default()
    }
}

fn decide(objects: &[Value], spec: &Value, target: &Target) -> Plan {
    survey(objects, spec).decide(&rules(spec.clone()), target)
}

fn plan(objects: &[Value], spec: &Value) -> Plan {
    decide(objects, spec, &empty_cluster(objects))
}

#[track_caller]
fn entry<'a>(plan: &'a Plan, subject: &str) -> &'a crate::restore::Entry {
    plan.entries
        .iter()
        .find(|entry| plan.subject(entry) == subject)
        .unwrap_or_else(|| panic!("no {subject} in\n{}", plan.table()))
}

fn parse(yaml: &str) -> Vec<Value> {
    crate::restore::kinds::test_objects::fixture(yaml)
}

/// Two namespaces with a ConfigMap of the same name in each.
fn two() -> Vec<Value> {
    parse(
        "{apiVersion: v1, kind: Namespace, metadata: {name: a}}\n---\n\
         {apiVersion: v1, kind: Namespace, metadata: {name: b}}\n---\n\
         {apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: a}, data: {k: v}}\n---\n\
         {apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: b}, data: {k: w}}\n---\n\
         {apiVersion: v1, kind: ConfigMap, metadata: {name: 'y', namespace: b}}",
    )
}

#[test]
fn the_plan_of_a_shop_in_an_empty_cluster() {
    insta::assert_snapshot!("shop_plan", plan(&shop(), &remapped()).table());
}

#[test]
fn a_part_takes_what_it_needs_of_the_cluster() {
    let spec = json!({"selection": {"namespaces": ["shop"]}, "volumes": "Empty"});
    insta::assert_snapshot!("shop_part_plan", plan(&shop(), &spec).table());
}

#[test]
fn entries_need_only_entries_before_them() {
    let plan = plan(&shop(), &json!({}));
    for (at, entry) in plan.entries.iter().enumerate() {
        assert!(entry.needs.iter().all(|need| (*need as usize) < at));
    }
    let state = entry(&plan, "configmaps shop/web-state");
    assert_eq!(
        plan.subject(&plan.entries[state.needs[0] as usize]),
        "deployments.apps shop/web"
    );
    assert_eq!(state.wave, 8);
    assert_eq!(
        &*state.notes[0],
        "its owner Deployment gone is not restored: the reference is dropped"
    );
    let gate = entry(&plan, "deployments.apps tools/gate");
    assert!(gate.serves);
    assert_eq!(gate.wave, 6);
}

#[test]
fn two_sources_of_one_target_are_both_refused_and_both_named() {
    let spec = json!({"mapping": {"namespaces": [{"from": "*", "to": "c"}]}});
    let plan = plan(&two(), &spec);
    for (subject, other) in [("configmaps a/x", "`b/x`"), ("configmaps b/x", "`a/x`")] {
        let Action::Refuse { reason, message } = &entry(&plan, subject).action else {
            panic!("{}", plan.table());
        };
        assert_eq!(reason.as_str(), "MappingCollision");
        assert!(
            message.contains(other) && message.contains("`c/x`"),
            "{message}"
        );
    }
    assert_eq!(entry(&plan, "configmaps b/y").action, Action::Create);
    // The namespaces themselves become one.
    assert_eq!(entry(&plan, "namespaces a").action, Action::Create);
    assert_eq!(entry(&plan, "namespaces b").action, Action::SkipExisting);
    let errors = plan
        .problems
        .iter()
        .filter(|p| p.severity == Severity::Error)
        .count();
    assert_eq!(errors, 1);
    assert!(plan.refusal().is_none());
}

#[test]
fn nothing_goes_into_a_namespace_that_is_terminating_or_missing() {
    let spec = json!({"mapping": {"namespaces": [{"from": "a", "to": "dying"}]}});
    let mut target = empty_cluster(&two());
    target
        .namespaces
        .insert("dying".to_owned(), NamespacePhase::Terminating);
    let plan = decide(&two(), &spec, &target);
    for subject in ["namespaces a", "configmaps a/x"] {
        let action = &entry(&plan, subject).action;
        assert!(
            matches!(action, Action::Refuse { reason, .. } if reason.as_str() == "NamespaceTerminating"),
            "{subject}: {action:?}"
        );
    }
    assert_eq!(entry(&plan, "configmaps b/x").action, Action::Create);
    let spec = json!({"selection": {"excludedResources": ["namespaces"]}});
    let plan = self::plan(&two(), &spec);
    assert!(
        matches!(&entry(&plan, "configmaps a/x").action, Action::Refuse { reason, .. } if reason.as_str() == "DependencyNotReady")
    );
}

#[test]
fn what_exists_is_treated_by_the_policy_of_the_first_match() {
    let mut target = empty_cluster(&two());
    let configs = TypeId::new("", "configmaps");
    for (namespace, name, ours) in [("a", "x", false), ("b", "x", false), ("b", "y", true)] {
        target
            .existing
            .insert(&configs, Key::new(namespace, name), Existing { ours });
    }
    let of = |spec: Value| {
        let plan = decide(&two(), &spec, &target);
        ["a/x", "b/x", "b/y"].map(|key| entry(&plan, &format!("configmaps {key}")).action.as_str())
    };
    assert_eq!(of(json!({})), ["skip", "skip", "resume"]);
    assert_eq!(
        of(json!({"existing": {"policy": "Merge"}})),
        ["merge", "merge", "resume"]
    );
    let overrides = json!([{"match": {"namespaces": ["a"]}, "policy": "Replace"}]);
    assert_eq!(
        of(json!({"existing": {"policy": "Skip", "overrides": overrides}})),
        ["replace", "skip", "resume"]
    );
    assert_eq!(
        of(json!({"existing": {"policy": "Fail"}})),
        ["refuse", "refuse", "resume"]
    );
    let plan = decide(&two(), &json!({"existing": {"policy": "Fail"}}), &target);
    insta::assert_snapshot!(plan.refusal().unwrap().message, @"it and one other object exist, and `existing` says Fail: delete what is there, or choose Skip, Merge or Replace");
}

#[test]
fn a_type_that_cannot_be_listed_is_not_an_empty_one() {
    let mut target = empty_cluster(&two());
    target
        .unreadable
        .insert(TypeId::new("", "configmaps"), "forbidden".to_owned());
    let action = |policy: &str| {
        let plan = decide(&two(), &json!({"existing": {"policy": policy}}), &target);
        entry(&plan, "configmaps a/x").action.as_str()
    };
    assert_eq!(
        ["Skip", "Merge", "Replace", "Fail"].map(action),
        ["create", "refuse", "refuse", "refuse"]
    );
}

#[test]
fn claims_without_data_are_withheld_with_what_mounts_them() {
    let actions = |spec: Value, target: &Target| {
        let plan = decide(&shop(), &spec, target);
        [
            "persistentvolumeclaims shop/data-db-0",
            "statefulsets.apps shop/db",
            "pods tools/shell",
            "deployments.apps shop/web",
        ]
        .map(|subject| entry(&plan, subject).action.as_str().to_owned())
    };
    let mut target = empty_cluster(&shop());
    assert_eq!(
        actions(json!({}), &target),
        ["withhold", "withhold", "withhold", "create"]
    );
    assert_eq!(actions(json!({"volumes": "Empty"}), &target), ["create"; 4]);
    // A claim that is there has its data from somewhere else.
    let claims = TypeId::new("", "persistentvolumeclaims");
    target.existing.insert(
        &claims,
        Key::new("shop", "data-db-0"),
        Existing { ours: false },
    );
    assert_eq!(
        actions(json!({}), &target),
        ["skip", "create", "withhold", "create"]
    );
}

#[test]
fn versions_are_the_captured_ones_or_common_ones_or_refused() {
    let objects = two();
    let with = |served: &[&str]| {
        let mut target = empty_cluster(&objects);
        for of in &mut target.served {
            if of.kind == "ConfigMap" {
                of.version = served[0].to_owned();
                of.served_versions = served.iter().map(|v| (*v).to_owned()).collect();
            }
        }
        let rules = rules(json!({}));
        let mut survey = survey(&objects, &json!({}));
        for t in survey.types.iter_mut().filter(|t| t.kind == "ConfigMap") {
            t.served_versions = vec!["v1".to_owned(), "v1beta1".to_owned()];
        }
        survey.decide(&rules, &target)
    };
    let version = |plan: &Plan| {
        plan.type_of(entry(plan, "configmaps a/x"))
            .target_version
            .clone()
    };
    let same = with(&["v2", "v1"]);
    assert_eq!((version(&same).as_str(), same.problems.len()), ("v1", 0));
    let other = with(&["v2", "v1beta1"]);
    assert_eq!(
        (version(&other).as_str(), other.problems.len()),
        ("v1beta1", 1)
    );
    assert_eq!(entry(&other, "configmaps a/x").action, Action::Create);
    let none = with(&["v2"]);
    assert!(
        matches!(&entry(&none, "configmaps a/x").action, Action::Refuse { reason, .. } if reason.as_str() == "TypeNotServed")
    );
}

#[test]
fn custom_resources_come_with_their_definition_or_not_at_all() {
    let with = plan(&shop(), &json!({}));
    assert_eq!(
        entry(&with, "orders.shop.example.com shop/first").action,
        Action::Create
    );
    let spec = json!({"selection": {"excludedResources": ["customresourcedefinitions.apiextensions.k8s.io"]}});
    let without = plan(&shop(), &spec);
    assert!(
        matches!(&entry(&without, "orders.shop.example.com shop/first").action, Action::Refuse { reason, .. } if reason.as_str() == "TypeNotServed")
    );
}

#[test]
fn a_failed_patch_refuses_its_object_and_no_other() {
    let mut objects = two();
    objects[3]["data"] = json!({});
    let spec = json!({"transforms": [{"match": {"kinds": ["ConfigMap"], "names": ["x"]},
        "jsonPatch": [{"op": "replace", "path": "/data/k", "value": "z"}]}]});
    let plan = plan(&objects, &spec);
    assert_eq!(entry(&plan, "configmaps a/x").action, Action::Create);
    assert!(
        matches!(&entry(&plan, "configmaps b/x").action, Action::Refuse { reason, .. } if reason.as_str() == "TransformFailed")
    );
}

#[test]
fn owners_in_a_circle_or_elsewhere_are_dropped() {
    let objects = parse(
        "{apiVersion: v1, kind: Namespace, metadata: {name: a}}\n---\n\
         {apiVersion: v1, kind: Namespace, metadata: {name: b}}\n---\n\
         {apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: a, uid: u1, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: 'y', uid: u2}]}}\n---\n\
         {apiVersion: v1, kind: ConfigMap, metadata: {name: 'y', namespace: a, uid: u2, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: x, uid: u1}]}}\n---\n\
         {apiVersion: v1, kind: ConfigMap, metadata: {name: z, namespace: b, uid: u3, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: x, uid: u1}]}}\n---\n\
         {apiVersion: v1, kind: Secret, metadata: {name: s, namespace: b, uid: u4, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: z, uid: u3}]}}",
    );
    let plan = plan(&objects, &json!({}));
    for name in ["a/x", "a/y", "b/z"] {
        let entry = entry(&plan, &format!("configmaps {name}"));
        assert!(
            entry.needs.is_empty() && entry.notes.len() == 1,
            "{entry:?}"
        );
    }
    let secret = entry(&plan, "secrets b/s");
    assert_eq!(
        plan.subject(&plan.entries[secret.needs[0] as usize]),
        "configmaps b/z"
    );
}

#[test]
fn a_plan_survives_its_document_and_equal_plans_have_equal_bytes() {
    let plan = plan(&shop(), &remapped());
    let bytes = plan.to_bytes().unwrap();
    assert_eq!(bytes, self::plan(&shop(), &remapped()).to_bytes().unwrap());
    assert_eq!(Plan::from_bytes(&bytes).unwrap(), plan);
    assert!(Plan::from_bytes(&bytes[..bytes.len() / 2]).is_err());
    assert!(Plan::from_bytes(b"").is_err());
    let json = plan.to_json().unwrap();
    assert_eq!(json["digest"], plan.digest.as_str());
    assert_eq!(
        json["entries"].as_array().unwrap().len(),
        plan.entries.len()
    );
    assert_eq!(json["summary"]["withhold"], 4);
}

#[test]
fn the_digest_knows_what_is_done_and_not_when() {
    let spec = remapped();
    let digest = |target: &Target, spec: &Value| decide(&shop(), spec, target).digest;
    let mut target = empty_cluster(&shop());
    let first = digest(&target, &spec);
    // A restore that began before goes on with the same plan.
    let configs = TypeId::new("", "configmaps");
    target.existing.insert(
        &configs,
        Key::new("store", "settings"),
        Existing { ours: true },
    );
    assert_eq!(digest(&target, &spec), first);
    target.existing.insert(
        &configs,
        Key::new("store", "settings"),
        Existing { ours: false },
    );
    assert_ne!(digest(&target, &spec), first);
    let mut other = spec.clone();
    other["mapping"]["images"][0]["to"] = json!("registry.c.example/");
    assert_ne!(digest(&empty_cluster(&shop()), &other), first);
}

#[test]
fn the_target_is_asked_about_what_would_be_written() {
    let wanted = survey(
        &two(),
        &json!({"mapping": {"namespaces": [{"from": "*", "to": "c"}]}}),
    )
    .wanted();
    assert_eq!(wanted.namespaces.into_iter().collect::<Vec<_>>(), ["c"]);
    let configs = &wanted.types[0];
    assert_eq!(configs.id, TypeId::new("", "configmaps"));
    assert_eq!(configs.keys, [Key::new("c", "x"), Key::new("c", "y")]);
    assert!(configs.contains("c", "x") && !configs.contains("a", "x"));
}

#[test]
fn an_entry_is_small() {
    assert!(
        std::mem::size_of::<crate::restore::Entry>() <= 160,
        "{}",
        std::mem::size_of::<crate::restore::Entry>()
    );
    let policy = ExistingPolicy::default();
    assert_eq!(policy, ExistingPolicy::Skip);
    let key = ObjectKey::new("a", "b");
    assert!(Key::new("a", "b").is(&key));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_order_of_an_archive_changes_nothing(seed in any::<u64>()) {
        let mut objects = shop();
        let reference = plan(&objects, &remapped());
        // Types in another order; within a type, keys are always sorted.
        objects.sort_by_key(|body| {
            blake3::hash(format!("{seed}{}{}", body["apiVersion"], body["kind"]).as_bytes()).to_hex()
        });
        let shuffled = decide(&objects, &remapped(), &empty_cluster(&objects));
        prop_assert_eq!(&shuffled.digest, &reference.digest);
        prop_assert_eq!(shuffled.to_bytes().unwrap(), reference.to_bytes().unwrap());
    }
}

/// A database with its claim, and what was saved of it.
fn database() -> (Vec<Value>, VolumeRecord) {
    let objects = parse(
        "{apiVersion: v1, kind: Namespace, metadata: {name: a}}\n---\n\
         {apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data-db-0, namespace: a, annotations: {volume.kubernetes.io/selected-node: n}}, \
          spec: {storageClassName: standard, volumeName: pv, accessModes: [ReadWriteOnce], dataSource: {kind: VolumeSnapshot, name: s}, resources: {requests: {storage: 10Gi}}}}\n---\n\
         {apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db, namespace: a}, \
          spec: {volumeClaimTemplates: [{metadata: {name: data}}]}}",
    );
    let record = test_record(|r| r.claim = ObjectKey::new("a", "data-db-0"));
    (objects, record)
}

fn plan_with(objects: &[Value], spec: &Value, saved: &[VolumeRecord]) -> Plan {
    let rules = rules(spec.clone());
    survey_with(objects, &rules, saved).decide(&rules, &empty_cluster(objects))
}

const CLAIM: &str = "persistentvolumeclaims a/data-db-0";
const SET: &str = "statefulsets.apps a/db";

#[test]
fn a_claim_whose_data_was_saved_is_created_and_filled() {
    let (objects, record) = database();
    for volumes in ["Withhold", "Empty"] {
        let spec = json!({"volumes": volumes});
        let plan = plan_with(&objects, &spec, std::slice::from_ref(&record));
        assert_eq!(entry(&plan, CLAIM).action, Action::Create);
        assert_eq!(entry(&plan, CLAIM).fills, Some(3 << 30));
        assert_eq!(entry(&plan, SET).action, Action::Create);
        let again = plan_with(&objects, &spec, std::slice::from_ref(&record));
        assert_eq!(plan, again);
        let table = plan.table();
        assert!(
            table.contains("1 volumes are filled with 3.0 GiB"),
            "{table}"
        );
        let read = Plan::from_bytes(&plan.to_bytes().unwrap()).unwrap();
        assert_eq!(read, plan);
    }
    let filled = plan_with(&objects, &json!({}), std::slice::from_ref(&record));
    let empty = plan_with(&objects, &json!({"volumes": "Skip"}), &[record]);
    assert_eq!(entry(&empty, CLAIM).action, Action::Create);
    assert_eq!(entry(&empty, CLAIM).fills, None);
    assert_ne!(filled.digest, empty.digest);
}

#[test]
fn a_claim_that_cannot_hold_its_data_is_refused_and_what_mounts_it_withheld() {
    let (objects, record) = database();
    let small = json!({"volumes": "Empty", "transforms": [{"match": {"kinds": ["PersistentVolumeClaim"]},
        "mergePatch": {"spec": {"resources": {"requests": {"storage": "1Gi"}}}}}]});
    let plan = plan_with(&objects, &small, std::slice::from_ref(&record));
    let block = VolumeRecord {
        volume_mode: VolumeMode::Block,
        ..record
    };
    for (plan, words) in [
        (plan, "3.0 GiB were saved of it"),
        (
            plan_with(&objects, &json!({}), &[block]),
            "a block device was saved",
        ),
    ] {
        match &entry(&plan, CLAIM).action {
            Action::Refuse { reason, message } => {
                assert_eq!(*reason, Reason::VolumeDoesNotFit);
                assert!(message.contains(words), "{message}");
            }
            other => panic!("{other:?}"),
        }
        let set = &entry(&plan, SET).action;
        assert!(
            matches!(
                set,
                Action::Withhold {
                    reason: Reason::Withheld,
                    ..
                }
            ),
            "{set:?}"
        );
    }
}

#[test]
fn data_of_a_claim_that_exists_is_named_and_stays_away() {
    let (objects, record) = database();
    let mut target = empty_cluster(&objects);
    target
        .namespaces
        .insert("a".to_owned(), NamespacePhase::Active);
    let id = TypeId::new("", "persistentvolumeclaims");
    target
        .existing
        .insert(&id, Key::new("a", "data-db-0"), Existing { ours: false });
    for (policy, action) in [("Skip", Action::SkipExisting), ("Replace", Action::Merge)] {
        let rules = rules(json!({"existing": {"policy": policy}}));
        let plan =
            survey_with(&objects, &rules, std::slice::from_ref(&record)).decide(&rules, &target);
        let claim = entry(&plan, CLAIM);
        assert_eq!(claim.action, action);
        assert!(
            claim
                .notes
                .iter()
                .any(|note| note.contains("is not restored"))
        );
        assert_eq!(plan.filled().count(), 0);
    }
}

/// The plan that overwrites the volume of a claim which is like this.
fn overwriting(change: impl FnOnce(&mut ExistingClaim, &mut Value)) -> Plan {
    let (objects, record) = database();
    let mut target = empty_cluster(&objects);
    target
        .namespaces
        .insert("a".to_owned(), NamespacePhase::Active);
    let (id, key) = (
        TypeId::new("", "persistentvolumeclaims"),
        Key::new("a", "data-db-0"),
    );
    let mut spec = json!({"existingVolumes": "Overwrite"});
    let mut claim = ExistingClaim {
        volume: Some("pv-1".to_owned()),
        capacity_bytes: Some(10 << 30),
        ..ExistingClaim::default()
    };
    change(&mut claim, &mut spec);
    target
        .existing
        .insert(&id, key.clone(), Existing { ours: false });
    target.claims.insert(key.clone(), claim);
    let rules = rules(spec);
    let survey = survey_with(&objects, &rules, &[record]);
    assert_eq!(survey.wanted().claims.contains(&key), rules.overwrites);
    survey.decide(&rules, &target)
}

#[test]
fn a_volume_is_overwritten_only_where_it_is_asked_and_loudly() {
    for policy in ["Skip", "Merge", "Replace"] {
        let plan = overwriting(|_, spec| spec["existing"] = json!({"policy": policy}));
        assert_eq!(entry(&plan, CLAIM).action, Action::Overwrite);
        assert_eq!(plan.overwritten().count(), 1);
        assert_eq!((plan.filled().count(), plan.asking().count()), (0, 0));
        let table = plan.table();
        for words in [
            "OVERWRITTEN:\n  persistentvolumeclaims a/data-db-0: EVERYTHING ON THE VOLUME `pv-1`",
            "1 volumes that are there are OVERWRITTEN with 3.0 GiB",
        ] {
            assert!(table.contains(words), "{table}");
        }
        assert_eq!(Plan::from_bytes(&plan.to_bytes().unwrap()).unwrap(), plan);
        assert_eq!(plan.summary().overwrite_bytes, 3 << 30);
    }
    let kept = overwriting(|_, spec| *spec = json!({}));
    assert_eq!(entry(&kept, CLAIM).action, Action::SkipExisting);
    assert_ne!(kept.digest, overwriting(|_, _| {}).digest);
    let fails = overwriting(|_, spec| spec["existing"] = json!({"policy": "Fail"}));
    assert!(fails.refusal().is_some());
}

#[test]
fn a_volume_that_cannot_take_the_data_is_refused_and_all_else_goes_on() {
    type Change = fn(&mut ExistingClaim, &mut Value);
    let cases: &[(Change, Reason, &str)] = &[
        (
            |claim, _| claim.volume = None,
            Reason::DependencyNotReady,
            "not bound",
        ),
        (
            |claim, _| claim.terminating = true,
            Reason::DependencyNotReady,
            "being deleted",
        ),
        (
            |claim, _| claim.of_pod = true,
            Reason::DependencyNotReady,
            "belongs to a pod",
        ),
        (
            |claim, _| claim.mode = VolumeMode::Block,
            Reason::VolumeDoesNotFit,
            "`volumeMode: Filesystem` was saved",
        ),
        (
            |claim, _| claim.capacity_bytes = Some(1 << 30),
            Reason::VolumeDoesNotFit,
            "it has 1.0 GiB, and 3.0 GiB were saved",
        ),
    ];
    for (change, expected, words) in cases {
        let plan = overwriting(change);
        match &entry(&plan, CLAIM).action {
            Action::Refuse { reason, message } => {
                assert_eq!(reason, expected);
                assert!(message.contains(words), "{message}");
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(entry(&plan, SET).action, Action::Withhold { .. }));
        assert!(plan.refusal().is_none());
        assert_eq!(plan.overwritten().count(), 0);
    }
}

#[test]
fn of_empty_dirs_that_were_saved_plan_and_report_say_that_they_are_not_filled() {
    let (objects, claim) = database();
    let empty_dir = test_record(|r| r.claim = empty_dir_key("a", "web-0", "cache"));
    let saved = [claim, empty_dir];
    let said = |problems: &[Problem]| {
        let warned = problems.iter().filter(|of| {
            of.reason == Reason::EmptyDirNotRestored.as_str() && of.severity == Severity::Warning
        });
        warned.map(|of| of.message.clone()).collect::<Vec<_>>()
    };
    let plan = plan_with(&objects, &json!({}), &saved);
    assert!(said(&plan.problems)[0].ends_with("a/web-0/cache"));
    let ended = plan.entries.iter().map(|_| (Reason::Created, "".into()));
    let report = Report::new(
        &plan,
        ended.collect(),
        RestoreCounts::default(),
        Vec::new(),
        Vec::new(),
    );
    assert_eq!(said(&report.problems), said(&plan.problems));
    assert!(
        report.table().contains("a/web-0/cache"),
        "{}",
        report.table()
    );
    for elsewhere in [
        json!({"selection": {"namespaces": ["b"]}}),
        json!({"selection": {"resources": ["persistentvolumeclaims"]}}),
    ] {
        let plan = plan_with(&objects, &elsewhere, &saved);
        assert!(said(&plan.problems).is_empty(), "{elsewhere}");
    }
}

#[test]
fn where_nobody_fills_volumes_their_claims_are_withheld() {
    let (objects, record) = database();
    let rules = rules(json!({})).without_filling();
    let plan = survey_with(&objects, &rules, &[record]).decide(&rules, &empty_cluster(&objects));
    let claim = &entry(&plan, CLAIM).action;
    assert!(
        matches!(claim, Action::Withhold { message, .. } if message.contains("only the operator")),
        "{claim:?}"
    );
}
