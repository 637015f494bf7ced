//! Captures from a source of lists that the test plays, into a repository in
//! memory.

mod fake;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::DateTime;
use fake::{FakeCluster, Fault, REVISION};
use futures::TryStreamExt;
use lifebuoy_api::{Completeness, Consistency, PointCluster, Selection, Severity, VolumePolicy};
use lifebuoy_data::{
    DataSummary, Excludes, Existing, PARTS_EVERY, RestoreRequest, SaveRequest, TreePath, What,
    restore, save,
};
use lifebuoy_repo::{
    CollectOptions, Contents, Purpose, Repository, Role, SessionId, SessionRequest,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{lister::ListError, run::capture_from, *};
use crate::{
    AllContents, Error,
    archive::{Archive, Fidelity, ObjectKey, TypeId},
    selection::{Glob, Selector},
    testing::{repository, session},
    volumes::{SavedBy, SavedData, VolumeMode, VolumeRecord, empty_dir_key},
};

const CONFIGMAPS: &str = "/api/v1/configmaps";

fn object(namespace: &str, name: &str) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name, "resourceVersion": "5"}, "data": {"a": "b"}})
}

/// A cluster with some ConfigMaps in the namespace `shop`.
fn cluster(configmaps: usize) -> FakeCluster {
    let fake = FakeCluster::new();
    fake.serve("", "ConfigMap", "configmaps", true);
    for number in 0..configmaps {
        fake.put(CONFIGMAPS, object("shop", &format!("c-{number:03}")));
    }
    fake
}

fn request(selection: Selection) -> CaptureRequest {
    CaptureRequest {
        selector: Selector::parse(&selection, "spec.selection").unwrap(),
        selection,
        cluster: PointCluster {
            name: "a".to_owned(),
            uid: "uid-a".to_owned(),
        },
        backup: "by-hand".to_owned(),
        backup_uid: "uid-b".to_owned(),
        schedule: String::new(),
        volumes: VolumePolicy::Save,
        empty_dirs: false,
        taken_at: DateTime::UNIX_EPOCH,
        own_namespace: Some("lifebuoy-system".to_owned()),
        down_groups_that_only_warn: ONLY_WARN_GROUPS
            .iter()
            .map(|g| Glob::parse(g).unwrap())
            .collect(),
    }
}

async fn run(
    repo: &Repository,
    fake: &Arc<FakeCluster>,
    request: &CaptureRequest,
) -> Result<Captured, Error> {
    let (_, writer) = session(repo).await;
    let lister: Arc<dyn lister::Lister> = Arc::clone(fake) as _;
    let progress = CaptureProgress::new();
    let captured = capture_from(
        lister,
        writer,
        request,
        &progress,
        no_volumes,
        &CancellationToken::new(),
    )
    .await?;
    let shown = progress.snapshot();
    assert_eq!(shown.objects as u64, captured.point.summary.objects);
    assert_eq!(shown.types, shown.types_total);
    Ok(captured)
}

/// What a capture holds: type to keys.
async fn contents(repo: &Repository, captured: &Captured) -> BTreeMap<String, Vec<String>> {
    let archive = Archive::open(repo, captured.point.snapshot.session)
        .await
        .unwrap();
    let mut all = BTreeMap::new();
    for t in &archive.manifest.types {
        let objects: Vec<_> = archive.objects(t).try_collect().await.unwrap();
        for object in &objects {
            let body = object.body().unwrap();
            assert_eq!(body["kind"], t.kind);
            assert_eq!(body["apiVersion"], t.api_version());
        }
        assert_eq!(objects.len() as u64, t.objects);
        let keys = objects.iter().map(|o| o.key.to_string()).collect();
        all.insert(t.id().to_string(), keys);
    }
    all
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("shop/c-{n:03}")).collect()
}

fn fidelity<'a>(captured: &'a Captured, id: &str) -> &'a Fidelity {
    let found = captured.types.iter().find(|t| t.id().to_string() == id);
    &found.unwrap().fidelity
}

/// Captures ten ConfigMaps under faults; they must all be there, once.
async fn under_faults(faults: Vec<Fault>) -> Captured {
    let repo = repository().await;
    let fake = Arc::new(cluster(10));
    fake.fault(CONFIGMAPS, faults);
    let captured = run(&repo, &fake, &request(Selection::default()))
        .await
        .unwrap();
    assert_eq!(contents(&repo, &captured).await["configmaps"], names(10));
    captured
}

fn expired(token: Option<&str>) -> Fault {
    Fault::Answer(ListError::Expired {
        continue_token: token.map(str::to_owned),
        message: "expired".to_owned(),
    })
}

fn message() -> String {
    "the API server answered".to_owned()
}

#[tokio::test]
async fn everything_is_read_at_one_revision() {
    let repo = repository().await;
    let fake = Arc::new(cluster(10));
    let captured = run(&repo, &fake, &request(Selection::default()))
        .await
        .unwrap();
    assert_eq!(captured.point.summary.completeness, Completeness::Complete);
    assert_eq!(captured.point.summary.consistency, Consistency::Exact);
    assert_eq!(captured.problems, []);
    let found = contents(&repo, &captured).await;
    assert_eq!(found["configmaps"], names(10));
    assert_eq!(found["namespaces"], ["shop"]);
    let archive = Archive::open(&repo, captured.point.snapshot.session)
        .await
        .unwrap();
    assert_eq!(archive.manifest.revision.as_deref(), Some(REVISION));
    let t = archive
        .manifest
        .find(&TypeId::new("", "configmaps"))
        .unwrap();
    let one = archive
        .get(t, &ObjectKey::new("shop", "c-004"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(one.volatile().unwrap()["resourceVersion"], "5");
    let exact = fake
        .state()
        .requests
        .iter()
        .filter(|r| matches!(r.at, lister::At::Exact(_)))
        .count();
    assert_eq!(exact, 2, "one first page a type");
}

#[tokio::test]
async fn an_unchanged_cluster_stores_its_manifest_and_nothing_else() {
    let repo = repository().await;
    let fake = Arc::new(cluster(200));
    let mut request = request(Selection::default());
    run(&repo, &fake, &request).await.unwrap();
    request.taken_at = DateTime::from_timestamp(60, 0).unwrap();
    let second = run(&repo, &fake, &request).await.unwrap();
    assert_eq!(second.stats.chunks_new, 1, "{:?}", second.stats);
    assert!(second.stats.puts < 10, "{:?}", second.stats);
    assert_eq!(contents(&repo, &second).await["configmaps"], names(200));
}

#[tokio::test]
async fn a_compacted_revision_makes_the_type_fuzzy_and_loses_nothing() {
    let captured = under_faults(vec![Fault::None, expired(Some("3"))]).await;
    assert_eq!(captured.point.summary.consistency, Consistency::Fuzzy);
    assert_eq!(captured.point.summary.completeness, Completeness::Complete);
    assert!(matches!(
        fidelity(&captured, "configmaps"),
        Fidelity::Fuzzy { .. }
    ));
    assert_eq!(fidelity(&captured, "namespaces"), &Fidelity::Exact);
}

#[tokio::test]
async fn a_type_that_expires_again_is_read_on_where_it_stands() {
    let again = vec![
        Fault::None,
        expired(Some("3")),
        Fault::None,
        Fault::None,
        expired(Some("6")),
    ];
    let captured = under_faults(again).await;
    let Fidelity::Fuzzy { reason } = fidelity(&captured, "configmaps") else {
        panic!("{captured:?}");
    };
    assert!(reason.contains("several moments"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_throttled_failing_or_broken_page_is_asked_for_again() {
    let throttled = Fault::Answer(ListError::Throttled {
        after: None,
        message: message(),
    });
    let failed = Fault::Answer(ListError::Failed { message: message() });
    for faults in [
        vec![throttled.clone(), throttled],
        vec![Fault::None, failed],
        vec![Fault::Cut(150)],
        vec![Fault::None, Fault::Cut(250), Fault::Cut(0)],
    ] {
        let captured = under_faults(faults).await;
        assert_eq!(fidelity(&captured, "configmaps"), &Fidelity::Exact);
        assert_eq!(captured.point.summary.completeness, Completeness::Complete);
    }
}

#[tokio::test]
async fn a_revision_in_the_future_shows_another_store() {
    let too_new = Fault::Answer(ListError::TooNew { message: message() });
    let captured = under_faults(vec![too_new]).await;
    assert!(matches!(
        fidelity(&captured, "configmaps"),
        Fidelity::Fuzzy { .. }
    ));
}

#[tokio::test]
async fn a_type_that_cannot_be_read_is_named_and_never_taken_for_empty() {
    let repo = repository().await;
    let fake = Arc::new(cluster(10));
    fake.serve("", "Secret", "secrets", true);
    let denied = |message: &str| {
        Fault::Answer(ListError::Denied {
            message: message.to_owned(),
        })
    };
    fake.fault(CONFIGMAPS, [Fault::None, denied("no longer")]);
    fake.fault("/api/v1/secrets", [denied("token hunter2")]);
    let captured = run(&repo, &fake, &request(Selection::default()))
        .await
        .unwrap();
    assert_eq!(captured.point.summary.completeness, Completeness::Partial);
    let Fidelity::Unavailable { reason } = fidelity(&captured, "configmaps") else {
        panic!("{captured:?}");
    };
    assert_eq!(reason, "no longer");
    let subjects: Vec<_> = captured
        .problems
        .iter()
        .map(|p| (&*p.reason, &*p.subject))
        .collect();
    assert!(
        subjects.contains(&("TypeUnavailable", "configmaps")),
        "{subjects:?}"
    );
    assert!(
        subjects.contains(&("TypeUnavailable", "secrets")),
        "{subjects:?}"
    );
    let told = format!("{captured:?}");
    assert!(
        !told.contains("hunter2"),
        "the server's words about Secrets are not repeated"
    );
    assert_eq!(contents(&repo, &captured).await["namespaces"], ["shop"]);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_cannot_be_converted_is_read_in_another_one() {
    let repo = repository().await;
    let fake = FakeCluster::new();
    fake.serve("example.com", "Ticket", "tickets", true);
    fake.state().discovered.types[1].served_versions = vec!["v1".to_owned(), "v1beta1".to_owned()];
    let failed = Fault::Answer(ListError::Failed {
        message: "conversion webhook".to_owned(),
    });
    fake.fault("/apis/example.com/v1/tickets", vec![failed; 9]);
    fake.put("/apis/example.com/v1beta1/tickets", object("shop", "t"));
    let captured = run(&repo, &Arc::new(fake), &request(Selection::default()))
        .await
        .unwrap();
    let t = captured
        .types
        .iter()
        .find(|t| t.resource == "tickets")
        .unwrap();
    assert_eq!((&*t.version, t.objects), ("v1beta1", 1));
    assert_eq!(captured.point.summary.completeness, Completeness::Complete);
    assert!(captured.problems[0].message.contains("conversion webhook"));
    contents(&repo, &captured).await;
}

#[tokio::test(start_paused = true)]
async fn a_type_that_no_version_can_be_asked_for_is_given_up_at_once() {
    let repo = repository().await;
    let fake = Arc::new(cluster(4));
    fake.serve("example.com", "Ticket", "tickets", true);
    fake.state()
        .broken
        .insert("/apis/example.com/v1/tickets".to_owned());
    let captured = run(&repo, &fake, &request(Selection::default()))
        .await
        .unwrap();
    assert!(matches!(
        fidelity(&captured, "tickets.example.com"),
        Fidelity::Unavailable { .. }
    ));
    assert_eq!(captured.point.summary.completeness, Completeness::Partial);
    assert_eq!(contents(&repo, &captured).await["configmaps"], names(4));
    let state = fake.state();
    let asked = state
        .requests
        .iter()
        .filter(|r| r.path.ends_with("tickets"));
    assert_eq!(asked.count(), 3, "the tries of one request");
}

#[tokio::test]
async fn a_type_that_was_deleted_meanwhile_is_no_error() {
    let repo = repository().await;
    let fake = Arc::new(cluster(4));
    fake.serve("example.com", "Ticket", "tickets", true);
    let gone = Fault::Answer(ListError::NotFound { message: message() });
    fake.fault("/apis/example.com/v1/tickets", [gone.clone()]);
    let kept = run(&repo, &fake, &request(Selection::default()))
        .await
        .unwrap();
    assert!(matches!(
        fidelity(&kept, "tickets.example.com"),
        Fidelity::Unavailable { .. }
    ));

    struct Forgetful(Arc<FakeCluster>);
    impl lister::Lister for Forgetful {
        fn page(
            &self,
            request: lister::ListRequest,
        ) -> futures::future::BoxFuture<'_, Result<lister::PageBody, ListError>> {
            self.0.page(request)
        }
        fn served(
            &self,
        ) -> futures::future::BoxFuture<'_, Result<crate::discovery::Discovered, Error>> {
            let mut state = self.0.state();
            let now = state.discovered.clone();
            state.discovered.types.retain(|t| t.resource != "tickets");
            Box::pin(async move { Ok(now) })
        }
    }
    fake.fault("/apis/example.com/v1/tickets", [gone]);
    let (_, writer) = session(&repo).await;
    let captured = capture_from(
        Arc::new(Forgetful(fake)),
        writer,
        &request(Selection::default()),
        &CaptureProgress::new(),
        no_volumes,
        &CancellationToken::new(),
    )
    .await
    .unwrap();
    assert_eq!(captured.point.summary.completeness, Completeness::Complete);
    assert!(captured.types.iter().all(|t| t.resource != "tickets"));
}

#[tokio::test]
async fn a_type_with_other_revisions_is_fuzzy_and_comes_in_any_order() {
    let repo = repository().await;
    let fake = cluster(4);
    fake.serve("agg.example.com", "Thing", "things", true);
    let path = "/apis/agg.example.com/v1/things";
    for name in ["d", "a", "c", "b", "e"] {
        fake.put(path, object("shop", name));
    }
    fake.state()
        .elsewhere
        .insert(path.to_owned(), "7".to_owned());
    let captured = run(&repo, &Arc::new(fake), &request(Selection::default()))
        .await
        .unwrap();
    assert!(matches!(
        fidelity(&captured, "things.agg.example.com"),
        Fidelity::Fuzzy { .. }
    ));
    assert_eq!(fidelity(&captured, "configmaps"), &Fidelity::Exact);
    let found = contents(&repo, &captured).await;
    assert_eq!(
        found["things.agg.example.com"],
        ["shop/a", "shop/b", "shop/c", "shop/d", "shop/e"]
    );
}

#[tokio::test]
async fn an_api_group_that_is_down_makes_the_point_partial() {
    let repo = repository().await;
    let fake = cluster(1);
    let down = |group: &str| (group.to_owned(), "v1".to_owned(), "no answer".to_owned());
    fake.state().discovered.unavailable_groups = vec![down("custom.metrics.k8s.io")];
    let fake = Arc::new(fake);
    let warned = run(&repo, &fake, &request(Selection::default()))
        .await
        .unwrap();
    assert_eq!(warned.point.summary.completeness, Completeness::Complete);
    assert_eq!(warned.problems.len(), 1);
    fake.state()
        .discovered
        .unavailable_groups
        .push(down("example.com"));
    let partial = run(&repo, &fake, &request(Selection::default()))
        .await
        .unwrap();
    assert_eq!(partial.point.summary.completeness, Completeness::Partial);
    assert_eq!(partial.problems[0].subject, "example.com/v1");
}

#[tokio::test]
async fn claims_without_their_data_make_the_point_partial_unless_that_is_wanted() {
    let repo = repository().await;
    let fake = cluster(1);
    fake.serve("", "PersistentVolumeClaim", "persistentvolumeclaims", true);
    for number in 0..30 {
        fake.put(
            "/api/v1/persistentvolumeclaims",
            object("shop", &format!("p-{number:02}")),
        );
    }
    let fake = Arc::new(fake);
    let mut request = request(Selection::default());
    let captured = run(&repo, &fake, &request).await.unwrap();
    assert_eq!(captured.point.summary.completeness, Completeness::Partial);
    assert_eq!(captured.problems.len(), 21);
    assert_eq!(
        captured.problems[20].message,
        "the data of 10 more volumes was not saved"
    );
    let archive = Archive::open(&repo, captured.point.snapshot.session)
        .await
        .unwrap();
    assert_eq!(archive.manifest.volumes_not_saved.len(), 30);
    request.volumes = VolumePolicy::Skip;
    let captured = run(&repo, &fake, &request).await.unwrap();
    assert_eq!(captured.point.summary.completeness, Completeness::Complete);
}

/// Saves a file as a mover does, as the data of a claim.
async fn moved(repo: &Repository, claim: &ObjectKey) -> VolumeRecord {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("word"), "kept").unwrap();
    let at = DateTime::UNIX_EPOCH;
    let request = SaveRequest {
        place: folder.path().to_owned(),
        summary: DataSummary::new(What::Files, "a".into(), claim.to_string(), at),
        excludes: Excludes::default(),
        one_file_system: false,
        before: None,
        parts_every: PARTS_EVERY,
    };
    let session = SessionRequest {
        id: SessionId::random(&mut rand::rng()),
        cluster: repo.cluster_key("uid-a"),
        purpose: Purpose::Backup,
        label: bytes::Bytes::new(),
    };
    let saved = save(repo, session, request, Arc::default()).await.unwrap();
    VolumeRecord {
        claim: claim.clone(),
        storage_class: "fast".to_owned(),
        volume_mode: VolumeMode::Filesystem,
        access_modes: vec!["ReadWriteOnce".to_owned()],
        capacity_bytes: 1 << 30,
        saved: SavedBy::Move(SavedData {
            session: saved.snapshot.session,
            root: saved.snapshot.root,
            kind: What::Files,
            entries: saved.summary.entries,
            bytes: saved.summary.bytes,
            bytes_stored: 100,
            problems: 0,
        }),
        reason: "a rule".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_keeps_the_data_of_its_volumes_when_the_movers_snapshot_is_forgotten() {
    let repo = repository().await;
    let fake = cluster(1);
    fake.serve("", "PersistentVolumeClaim", "persistentvolumeclaims", true);
    for name in ["data", "cache", "broken"] {
        let claims = "/api/v1/persistentvolumeclaims";
        fake.put(claims, object("shop", name));
    }
    fake.serve("", "Pod", "pods", true);
    fake.serve("apps", "StatefulSet", "statefulsets", true);
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "u", "controller": true});
    for (name, label, owners) in [
        ("alone", "no", json!([])),
        ("excluded", "true", json!([])),
        ("web-0", "no", json!([set])),
    ] {
        let mut pod = object("shop", name);
        pod["metadata"]["labels"] = json!({lifebuoy_api::EXCLUDE_LABEL: label});
        pod["metadata"]["ownerReferences"] = owners;
        pod["spec"] = json!({"volumes": [{"name": "tmp", "emptyDir": {}}]});
        fake.put("/api/v1/pods", pod);
    }
    let (_, writer) = session(&repo).await;
    let (data, cache) = (
        ObjectKey::new("shop", "data"),
        ObjectKey::new("shop", "cache"),
    );
    let record = moved(&repo, &data).await;
    let forgotten = record.saved.data().unwrap().session;
    let volumes = async |found: &VolumesFound| {
        assert_eq!(found.claims.len(), 3);
        let pods = ["alone", "web-0"].map(|name| ObjectKey::new("shop", name));
        assert_eq!(found.pods, pods.into());
        VolumesSaved {
            saved: vec![record.clone()],
            skipped: [(cache, "a rule".to_owned())].into(),
            failed: [
                (ObjectKey::new("shop", "broken"), "no class".to_owned()),
                (
                    empty_dir_key("shop", "web-0", "tmp"),
                    "it is gone".to_owned(),
                ),
            ]
            .into(),
            problems: Vec::new(),
        }
    };
    let captured = capture_from(
        Arc::new(fake),
        writer,
        &CaptureRequest {
            empty_dirs: true,
            ..request(Selection::default())
        },
        &CaptureProgress::new(),
        volumes,
        &CancellationToken::new(),
    )
    .await
    .unwrap();
    let said: Vec<_> = captured
        .problems
        .iter()
        .map(|p| (&*p.subject, p.severity))
        .collect();
    assert_eq!(
        said,
        [
            ("persistentvolumeclaims shop/broken", Severity::Error),
            ("pods shop/web-0, emptyDir tmp", Severity::Error),
            ("persistentvolumeclaims shop/cache", Severity::Warning),
        ]
    );
    let archive = Archive::open(&repo, captured.point.snapshot.session)
        .await
        .unwrap();
    assert_eq!(archive.manifest.version, 2);
    assert_eq!(
        archive.manifest.volumes_saved,
        std::slice::from_ref(&record)
    );
    assert_eq!(archive.manifest.volumes_not_saved.len(), 2);

    repo.forget(forgotten, "the point keeps it").await.unwrap();
    let at_once = CollectOptions {
        delete: true,
        grace: Duration::ZERO,
        keep_at_least: 0,
        delete_percent_max: 100,
        stall: Duration::ZERO,
        poll: Duration::from_millis(1),
        objects_max: 1,
        bytes_min: 1,
    };
    repo.collect(&AllContents, &at_once).await.unwrap();
    repo.collect(&AllContents, &at_once).await.unwrap();
    let data = record.saved.data().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("back");
    let back = RestoreRequest {
        root: data.root,
        path: TreePath::default(),
        place: place.clone(),
        existing: Existing::Refuse,
    };
    restore(Arc::new(repo.reader().await.unwrap()), back, Arc::default())
        .await
        .unwrap();
    assert_eq!(std::fs::read_to_string(place.join("word")).unwrap(), "kept");
}

#[tokio::test]
async fn a_point_says_plainly_that_data_stays_in_its_storage_system() {
    let repo = repository().await;
    let fake = cluster(1);
    fake.serve("", "PersistentVolumeClaim", "persistentvolumeclaims", true);
    fake.put("/api/v1/persistentvolumeclaims", object("shop", "data"));
    let (_, writer) = session(&repo).await;
    let record = crate::volumes::test_record(|record| {
        record.saved = SavedBy::Snapshot(crate::volumes::test_kept());
        record.reason = "rule 1 of `volumePolicies`".to_owned();
    });
    let volumes = async |_: &VolumesFound| VolumesSaved {
        saved: vec![record.clone()],
        ..VolumesSaved::default()
    };
    let captured = capture_from(
        Arc::new(fake),
        writer,
        &request(Selection::default()),
        &CaptureProgress::new(),
        volumes,
        &CancellationToken::new(),
    )
    .await
    .unwrap();
    assert_eq!(captured.point.summary.completeness, Completeness::Complete);
    assert_eq!(captured.problems.len(), 1);
    assert_eq!(captured.problems[0].severity, Severity::Warning);
    assert!(captured.problems[0].message.contains("`snap-1`"));
    let session = captured.point.snapshot.session;
    let archive = Archive::open(&repo, session).await.unwrap();
    // Whoever knows version 2 alone reads none of it, and collects nothing.
    assert_eq!(archive.manifest.version, 3);
    assert_eq!(
        archive.manifest.volumes_saved,
        std::slice::from_ref(&record)
    );
    let manifest = archive.manifest.to_bytes().unwrap();
    let links = AllContents.links(Role::ROOT, &manifest).unwrap();
    let trees = archive.manifest.types.iter().filter(|of| of.tree.is_some());
    assert_eq!(links.len(), trees.count());
}

#[tokio::test]
async fn a_malformed_object_is_reported_and_the_others_are_saved() {
    let repo = repository().await;
    let fake = cluster(2);
    fake.put(
        CONFIGMAPS,
        json!({"metadata": {"namespace": "shop"}, "data": {"p": "hunter2"}}),
    );
    fake.put(CONFIGMAPS, object("shop", "z"));
    let captured = run(&repo, &Arc::new(fake), &request(Selection::default()))
        .await
        .unwrap();
    assert_eq!(captured.point.summary.completeness, Completeness::Partial);
    assert_eq!(captured.problems[0].reason, "MalformedObject");
    assert!(!format!("{captured:?}").contains("hunter2"));
    assert_eq!(
        contents(&repo, &captured).await["configmaps"],
        ["shop/c-000", "shop/c-001", "shop/z"]
    );
}

/// Two namespaces that need different cluster-scoped objects.
fn two_tenants() -> FakeCluster {
    let rbac = "rbac.authorization.k8s.io";
    let fake = cluster(3);
    fake.put("/api/v1/namespaces", json!({"metadata": {"name": "zoo"}}));
    fake.put(CONFIGMAPS, object("zoo", "a"));
    fake.serve("", "PersistentVolumeClaim", "persistentvolumeclaims", true);
    fake.serve("", "PersistentVolume", "persistentvolumes", false);
    fake.serve("storage.k8s.io", "StorageClass", "storageclasses", false);
    fake.serve(rbac, "ClusterRole", "clusterroles", false);
    fake.serve(rbac, "ClusterRoleBinding", "clusterrolebindings", false);
    fake.serve(
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        false,
    );
    fake.serve("example.com", "Ticket", "tickets", true);
    fake.serve("example.com", "Policy", "policies", false);
    for (tenant, crd) in [
        ("shop", "tickets.example.com"),
        ("zoo", "animals.example.com"),
    ] {
        let name = |suffix: &str| format!("{tenant}-{suffix}");
        let named = |suffix: &str| json!({"metadata": {"name": name(suffix)}});
        let mut claim = object(tenant, "claim");
        claim["spec"] = json!({"volumeName": name("pv")});
        fake.put("/api/v1/persistentvolumeclaims", claim);
        let mut volume = named("pv");
        volume["spec"] = json!({"storageClassName": name("class")});
        fake.put("/api/v1/persistentvolumes", volume);
        fake.put("/apis/storage.k8s.io/v1/storageclasses", named("class"));
        fake.put(&format!("/apis/{rbac}/v1/clusterroles"), named("role"));
        let mut binding = named("binding");
        binding["subjects"] = json!([{"kind": "ServiceAccount", "name": "x", "namespace": tenant}]);
        binding["roleRef"] = json!({"kind": "ClusterRole", "name": name("role")});
        fake.put(&format!("/apis/{rbac}/v1/clusterrolebindings"), binding);
        fake.put(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            json!({"metadata": {"name": crd}}),
        );
        fake.put("/apis/example.com/v1/policies", named("policy"));
    }
    fake.put("/apis/example.com/v1/tickets", object("shop", "t"));
    fake
}

#[tokio::test]
async fn selected_namespaces_bring_what_they_need_and_nothing_else() {
    let repo = repository().await;
    let fake = Arc::new(two_tenants());
    for namespaces in ["shop", "sho?"] {
        let selection = Selection {
            namespaces: vec![namespaces.to_owned()],
            ..Selection::default()
        };
        let captured = run(&repo, &fake, &request(selection)).await.unwrap();
        let found = contents(&repo, &captured).await;
        let expected = [
            (
                "clusterrolebindings.rbac.authorization.k8s.io",
                vec!["shop-binding"],
            ),
            ("clusterroles.rbac.authorization.k8s.io", vec!["shop-role"]),
            ("configmaps", vec!["shop/c-000", "shop/c-001", "shop/c-002"]),
            (
                "customresourcedefinitions.apiextensions.k8s.io",
                vec!["tickets.example.com"],
            ),
            ("namespaces", vec!["shop"]),
            ("persistentvolumeclaims", vec!["shop/claim"]),
            ("persistentvolumes", vec!["shop-pv"]),
            ("storageclasses.storage.k8s.io", vec!["shop-class"]),
            ("tickets.example.com", vec!["shop/t"]),
        ];
        let found: Vec<_> = found
            .iter()
            .map(|(t, keys)| (&**t, keys.iter().map(|k| &**k).collect()))
            .collect();
        assert_eq!(found, expected, "{namespaces}");
    }
}

#[tokio::test]
async fn a_cancelled_capture_commits_nothing() {
    let repo = repository().await;
    let (id, writer) = session(&repo).await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let ended = capture_from(
        Arc::new(cluster(3)),
        writer,
        &request(Selection::default()),
        &CaptureProgress::new(),
        no_volumes,
        &cancel,
    )
    .await;
    assert!(matches!(ended, Err(Error::Cancelled)));
    assert!(Archive::open(&repo, id).await.is_err());
}
