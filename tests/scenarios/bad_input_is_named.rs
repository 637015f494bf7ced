//! What is wrong with a request or a store is said in a sentence that names the
//! field or the object and the way out.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use lifebuoy_api::{
    Backup, BackupTemplate, ConcurrencyPolicy, ConditionType, NameMapping, ObjectMatch, Repository,
    Restore, Retention, Schedule, ScheduleSpec, TemplateMetadata, Transform, find,
};
use lifebuoy_scenarios::{
    Ended, OPERATOR_NAMESPACE, SOON, Store, World, backup, create, from_snapshot, namespace,
    restore, run, scenario, unique, until,
};
use lifebuoy_testkit::s3::Rights;
use serde_json::json;

/// A snapshot of one namespace with a hundred ConfigMaps.
struct Hundred {
    namespace: String,
    snapshot: String,
}

async fn hundred(client: &Client) -> Result<Hundred> {
    let namespace = namespace(client, "hundred").await?;
    let configmaps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    for number in 0..100 {
        let data = match number {
            42 => [("other".to_owned(), "x".to_owned())],
            _ => [("key".to_owned(), number.to_string())],
        };
        let configmap = ConfigMap {
            metadata: ObjectMeta {
                name: Some(format!("n{number:03}")),
                ..ObjectMeta::default()
            },
            data: Some(data.into_iter().collect()),
            ..ConfigMap::default()
        };
        configmaps
            .create(&PostParams::default(), &configmap)
            .await?;
    }
    let mut request = backup(&namespace, "main");
    request.spec.selection.namespaces = vec![namespace.clone()];
    let done = run(client, OPERATOR_NAMESPACE, request, SOON).await?;
    ensure!(done.complete(), "{}", done.verdict());
    let snapshot = done
        .status
        .and_then(|status| status.snapshot)
        .context("no snapshot")?;
    Ok(Hundred {
        namespace,
        snapshot,
    })
}

fn mapped(from: &str, to: &str) -> NameMapping {
    NameMapping {
        from: from.to_owned(),
        to: to.to_owned(),
    }
}

#[test]
fn a_patch_that_fails_on_one_of_a_hundred_objects_costs_that_object_only() {
    scenario(async {
        let client = World::shared().await?.client();
        let hundred = hundred(&client).await?;
        let target = unique("patched");
        let mut request = restore(&target, from_snapshot("main", &hundred.snapshot));
        request.spec.mapping.namespaces = vec![mapped(&hundred.namespace, &target)];
        request.spec.transforms = vec![Transform {
            matches: ObjectMatch {
                kinds: vec!["ConfigMap".to_owned()],
                names: vec!["n*".to_owned()],
                ..ObjectMatch::default()
            },
            json_patch: Some(vec![
                json!({"op": "replace", "path": "/data/key", "value": "new"}),
            ]),
            merge_patch: None,
        }];
        let done = run(&client, OPERATOR_NAMESPACE, request, SOON).await?;
        ensure!(
            !done.complete(),
            "a restore that lacks an object must not be called complete"
        );
        let status = done.status.context("no status")?;
        let named = status
            .problems
            .iter()
            .find(|problem| problem.subject.contains("n042"));
        let named = named.with_context(|| format!("n042 is not named: {:?}", status.problems))?;
        ensure!(named.reason == "TransformFailed", "{named:?}");
        ensure!(named.message.contains("/data/key"), "{named:?}");
        let configmaps: Api<ConfigMap> = Api::namespaced(client.clone(), &target);
        let restored = configmaps.list(&ListParams::default()).await?;
        let changed = restored.iter().filter(|configmap| {
            configmap
                .data
                .as_ref()
                .and_then(|data| data.get("key"))
                .is_some_and(|v| v == "new")
        });
        ensure!(changed.count() == 99, "the other 99 are restored");
        Ok(())
    });
}

#[test]
fn two_sources_that_would_get_one_name_are_both_named() {
    scenario(async {
        let client = World::shared().await?.client();
        let (one, two) = (
            namespace(&client, "one").await?,
            namespace(&client, "two").await?,
        );
        for namespace in [&one, &two] {
            let configmaps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
            let configmap = ConfigMap {
                metadata: ObjectMeta {
                    name: Some("same".into()),
                    ..ObjectMeta::default()
                },
                ..ConfigMap::default()
            };
            configmaps
                .create(&PostParams::default(), &configmap)
                .await?;
        }
        let mut request = backup(&one, "main");
        request.spec.selection.namespaces = vec![one.clone(), two.clone()];
        let done = run(&client, OPERATOR_NAMESPACE, request, SOON).await?;
        let snapshot = done
            .status
            .and_then(|status| status.snapshot)
            .context("no snapshot")?;

        let target = unique("merged");
        let mut request = restore(&target, from_snapshot("main", &snapshot));
        request.spec.mapping.namespaces = vec![mapped(&one, &target), mapped(&two, &target)];
        let done = run(&client, OPERATOR_NAMESPACE, request, SOON).await?;
        ensure!(!done.complete());
        let status = done.status.context("no status")?;
        for namespace in [&one, &two] {
            let subject = format!("{namespace}/same");
            ensure!(
                status
                    .problems
                    .iter()
                    .any(|problem| problem.reason == "MappingCollision"
                        && (problem.subject.contains(&subject)
                            || problem.message.contains(&subject))),
                "{subject} is not named: {:?}",
                status.problems
            );
        }
        Ok(())
    });
}

#[test]
fn a_mapping_to_a_namespace_that_is_being_deleted_is_refused() {
    scenario(async {
        let client = World::shared().await?.client();
        let hundred = hundred(&client).await?;
        let target = namespace(&client, "going").await?;
        // A finalizer that nobody removes keeps the namespace in `Terminating`.
        let configmaps: Api<ConfigMap> = Api::namespaced(client.clone(), &target);
        let anchor = ConfigMap {
            metadata: ObjectMeta {
                name: Some("anchor".into()),
                finalizers: Some(vec!["example.dev/anchor".into()]),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        };
        configmaps.create(&PostParams::default(), &anchor).await?;
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
        namespaces
            .delete(&target, &kube::api::DeleteParams::default())
            .await?;
        let mut request = restore(&target, from_snapshot("main", &hundred.snapshot));
        request.spec.mapping.namespaces = vec![mapped(&hundred.namespace, &target)];
        let done = run(&client, OPERATOR_NAMESPACE, request, SOON).await?;
        ensure!(!done.complete());
        let said = serde_json::to_string(&done.status)?;
        ensure!(
            said.contains("NamespaceTerminating") && said.contains(&target),
            "{said}"
        );
        Ok(())
    });
}

#[test]
fn a_field_that_does_not_parse_is_named_with_its_path() {
    scenario(async {
        let client = World::shared().await?.client();
        let mut request = backup(&unique("glob"), "main");
        request.spec.selection.namespaces = vec!["shop".to_owned(), "team-[".to_owned()];
        let done = run(&client, OPERATOR_NAMESPACE, request, SOON).await?;
        says(
            &done,
            "InvalidSpec",
            &["spec.selection.namespaces[1]", "team-["],
        )?;

        let mut request = backup(&unique("selector"), "main");
        request.spec.selection.label_selector = Some(serde_json::from_value(
            json!({"matchExpressions": [{"key": "a", "operator": "Near", "values": ["b"]}]}),
        )?);
        let done = run(&client, OPERATOR_NAMESPACE, request, SOON).await?;
        says(
            &done,
            "InvalidSpec",
            &["spec.selection.labelSelector", "Near"],
        )?;

        let mut request = restore(&unique("patch"), from_snapshot("main", &"0".repeat(32)));
        request.spec.transforms = vec![Transform {
            matches: ObjectMatch::default(),
            json_patch: Some(vec![json!({"op": "add", "path": "no-slash", "value": 1})]),
            merge_patch: None,
        }];
        let done = run(&client, OPERATOR_NAMESPACE, request, SOON).await?;
        says(
            &done,
            "InvalidSpec",
            &["spec.transforms[0].jsonPatch[0]", "no-slash"],
        )?;

        for (cron, zone, named) in [
            ("61 * * * *", "Etc/UTC", "spec.cron"),
            ("0 0 30 2 *", "Etc/UTC", "spec.cron"),
            ("0 * * * *", "Europe/Nowhere", "spec.timeZone"),
        ] {
            let schedule = schedule(&unique("cron"), cron, zone);
            let name = schedule.metadata.name.clone().context("no name")?;
            create(&client, OPERATOR_NAMESPACE, schedule).await?;
            let stalled = until(&client, OPERATOR_NAMESPACE, &name, SOON, Schedule::ended).await?;
            says(&stalled, "InvalidSpec", &[named])?;
        }
        Ok(())
    });
}

#[test]
fn a_point_that_cannot_be_restored_says_why() {
    scenario(async {
        let world = World::shared().await?;
        let client = world.client();
        let hundred = hundred(&client).await?;
        let repository = crate::support::repository(&world.store).await?;
        repository
            .forget(hundred.snapshot.parse()?, "a test forgets it")
            .await?;
        let request = restore(
            &unique("forgotten"),
            from_snapshot("main", &hundred.snapshot),
        );
        let done = run(&client, OPERATOR_NAMESPACE, request, SOON).await?;
        says(&done, "RecoveryPointForgotten", &[&hundred.snapshot])?;

        let nowhere = "00112233445566778899aabbccddeeff";
        let request = restore(&unique("nowhere"), from_snapshot("main", nowhere));
        let done = run(&client, OPERATOR_NAMESPACE, request, SOON).await?;
        says(&done, "RecoveryPointNotFound", &[nowhere])?;
        Ok(())
    });
}

#[test]
fn a_store_that_cannot_be_used_says_what_to_do() {
    scenario(async {
        let world = World::shared().await?;
        let client = world.client();
        let wrong = Store {
            passphrase: "not the passphrase".to_owned(),
            ..world.store.clone()
        };
        condition_of(&client, &wrong, "WrongPassphrase").await?;
        let closed = world.store.through("http://127.0.0.1:9");
        condition_of(&client, &closed, "StoreUnreachable").await?;
        let nowhere = Store {
            url: "s3://no-such-bucket/x".to_owned(),
            ..world.store.clone()
        };
        condition_of(&client, &nowhere, "BucketNotFound").await?;
        let mut denied = world.store.clone();
        denied
            .credentials
            .insert("AWS_SECRET_ACCESS_KEY".to_owned(), "wrong".to_owned());
        condition_of(&client, &denied, "AccessDenied").await?;
        condition_of(
            &client,
            &world.store.as_user(world.s3.user(Rights::WriteWithoutList)),
            "ListDenied",
        )
        .await?;

        let name = unique("read-only");
        let reader = world.store.as_user(world.s3.user(Rights::ReadOnly));
        reader.declare(&client, OPERATOR_NAMESPACE, &name).await?;
        let ready = until(
            &client,
            OPERATOR_NAMESPACE,
            &name,
            SOON,
            |repository: &Repository| {
                repository
                    .status
                    .as_ref()
                    .is_some_and(|status| status.access.is_some())
            },
        )
        .await?;
        let status = ready.status.context("no status")?;
        ensure!(
            status.access == Some(lifebuoy_api::Access::ReadOnly),
            "{status:?}"
        );
        let done = run(
            &client,
            OPERATOR_NAMESPACE,
            backup(&unique("no"), &name),
            SOON,
        )
        .await?;
        ensure!(
            !done.complete(),
            "a backup cannot be made with a read-only credential"
        );
        says(&done, "ReadOnlyCredentials", &[&name])?;
        Ok(())
    });
}

#[test]
fn a_bucket_that_vanishes_in_the_middle_fails_the_backup_and_the_next_one_works() {
    scenario(async {
        let world = World::start("vanishing").await?;
        let client = world.client();
        world.s3.hide_bucket()?;
        create(&client, OPERATOR_NAMESPACE, backup("lost", "main")).await?;
        let limit = SOON + Duration::from_secs(90);
        let done = until(&client, OPERATOR_NAMESPACE, "lost", limit, Backup::ended).await?;
        ensure!(!done.complete(), "{}", done.verdict());
        world.s3.show_bucket()?;
        let done = run(&client, OPERATOR_NAMESPACE, backup("found", "main"), limit).await?;
        ensure!(done.complete(), "{}", done.verdict());
        Ok(())
    });
}

#[test]
fn large_objects_and_long_names_come_back_whole() {
    scenario(async {
        let client = World::shared().await?.client();
        let source = namespace(&client, "large").await?;
        let configmaps: Api<ConfigMap> = Api::namespaced(client.clone(), &source);
        let long = format!("{}.{}", "n".repeat(120), "m".repeat(132));
        let text: String = (0..1_000_000_u32)
            .map(|n| char::from(b'a' + (n % 26) as u8))
            .collect();
        for (name, value) in [("big", text.as_str()), (long.as_str(), "x")] {
            let configmap = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(name.to_owned()),
                    ..ObjectMeta::default()
                },
                data: Some([("value".to_owned(), value.to_owned())].into()),
                ..ConfigMap::default()
            };
            configmaps
                .create(&PostParams::default(), &configmap)
                .await?;
        }
        let mut request = backup(&source, "main");
        request.spec.selection.namespaces = vec![source.clone()];
        let done = run(&client, OPERATOR_NAMESPACE, request, SOON).await?;
        ensure!(done.complete(), "{}", done.verdict());
        let snapshot = done
            .status
            .and_then(|status| status.snapshot)
            .context("no snapshot")?;
        let target = unique("large-target");
        let mut request = restore(&target, from_snapshot("main", &snapshot));
        request.spec.mapping.namespaces = vec![mapped(&source, &target)];
        let done = run(&client, OPERATOR_NAMESPACE, request, SOON).await?;
        ensure!(done.complete(), "{}", done.verdict());
        let restored: Api<ConfigMap> = Api::namespaced(client.clone(), &target);
        for name in ["big", &long] {
            let (was, is) = (configmaps.get(name).await?, restored.get(name).await?);
            ensure!(was.data == is.data, "{name} has changed");
        }
        Ok(())
    });
}

/// Declares a Repository there and waits until it is not ready for `reason`.
async fn condition_of(client: &Client, store: &Store, reason: &str) -> Result<()> {
    let name = unique("store");
    store.declare(client, OPERATOR_NAMESPACE, &name).await?;
    let object = until(
        client,
        OPERATOR_NAMESPACE,
        &name,
        SOON,
        |repository: &Repository| {
            find(repository.conditions(), ConditionType::Ready)
                .is_some_and(|ready| ready.status == "False" && ready.reason == reason)
        },
    )
    .await
    .with_context(|| format!("expected {reason}"))?;
    let ready = find(object.conditions(), ConditionType::Ready).context("no condition")?;
    ensure!(
        ready.message.len() > 20,
        "{reason} has no remedy: {ready:?}"
    );
    ensure!(
        !ready.message.contains(&store.passphrase),
        "the passphrase is shown"
    );
    Ok(())
}

/// Fails unless the request ended for this reason, and says these words.
fn says(request: &impl Ended, reason: &str, words: &[&str]) -> Result<()> {
    let verdict = request.verdict();
    ensure!(verdict.contains(reason), "expected {reason}: {verdict}");
    for word in words {
        ensure!(verdict.contains(word), "{verdict} does not name {word}");
    }
    Ok(())
}

fn schedule(name: &str, cron: &str, time_zone: &str) -> Schedule {
    Schedule::new(
        name,
        ScheduleSpec {
            cron: cron.to_owned(),
            time_zone: time_zone.to_owned(),
            suspend: false,
            starting_deadline_seconds: None,
            concurrency_policy: ConcurrencyPolicy::Forbid,
            template: BackupTemplate {
                metadata: TemplateMetadata::default(),
                spec: backup("unused", "main").spec,
            },
            retention: Retention::default(),
            successful_backups_history_limit: 3,
            failed_backups_history_limit: 3,
        },
    )
}

#[test]
fn a_restore_reads_the_bucket_and_not_what_the_cluster_says() {
    scenario(async {
        let client = World::shared().await?.client();
        let request = restore(
            &unique("pointless"),
            lifebuoy_api::RestoreSource {
                recovery_point: Some("no-such-point".to_owned()),
                ..lifebuoy_api::RestoreSource::default()
            },
        );
        let done: Restore = run(&client, OPERATOR_NAMESPACE, request, SOON).await?;
        says(&done, "RecoveryPointNotFound", &["no-such-point"])
    });
}
