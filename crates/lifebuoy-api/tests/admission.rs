//! What a real API server says to objects of our kinds: the good ones pass,
//! and each impossible one is refused with a sentence a person understands.

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::{Api, Client};
use lifebuoy_testkit::tools::workspace_root;
use lifebuoy_testkit::{ControlPlane, ControlPlaneOptions};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The server compiles the rules of a kind when it is created, and refuses
/// those that may cost too much; so this is a test of every rule.
const ESTABLISHED_LIMIT: Duration = Duration::from_secs(60);

/// An object, and the words of its refusal, or none if it must pass.
struct Case {
    about: &'static str,
    kind: &'static str,
    spec: Value,
    refused: Option<&'static str>,
}

fn passes(about: &'static str, kind: &'static str, spec: Value) -> Case {
    Case {
        about,
        kind,
        spec,
        refused: None,
    }
}

fn refused(about: &'static str, kind: &'static str, spec: Value, words: &'static str) -> Case {
    Case {
        about,
        kind,
        spec,
        refused: Some(words),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_refuses_what_cannot_be_meant() -> Result<()> {
    let cluster = ControlPlane::start(ControlPlaneOptions::bare("admission")).await?;
    let client = cluster.admin();
    install(&client).await?;

    let mut wrong = Vec::new();
    for case in repositories()
        .into_iter()
        .chain(backups())
        .chain(schedules())
        .chain(restores())
    {
        let object = object(case.kind, "x", &case.spec);
        let answer = post(&client, &object, true).await;
        match (case.refused, answer) {
            (None, Ok(_)) => {}
            (None, Err(error)) => wrong.push(format!("{}: refused: {error}", case.about)),
            (Some(_), Ok(_)) => wrong.push(format!("{}: accepted", case.about)),
            (Some(words), Err(error)) if error.contains(words) => {}
            (Some(_), Err(error)) => wrong.push(format!("{}: other words: {error}", case.about)),
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));

    requests_do_not_change(&client).await?;
    schedules_change(&client).await?;
    defaults_are_visible(&client).await?;
    examples_are_accepted(&client).await?;
    cluster.stop().await;
    Ok(())
}

fn repositories() -> Vec<Case> {
    let key = json!({"name": "keys", "key": "passphrase"});
    let with = |more: Value| merged(json!({"url": "s3://b/p", "passphraseSecretRef": key}), more);
    let maintained = |maintenance: Value| with(json!({ "maintenance": maintenance }));
    let grace = "`grace` is a time between 1h and 8760h";
    vec![
        passes("a repository", "Repository", with(json!({}))),
        passes(
            "a repository with all fields",
            "Repository",
            with(json!({
                "endpoint": "http://127.0.0.1:9000", "allowHttp": true, "region": "eu-1",
                "credentialsSecretRef": {"name": "keys"},
                "caSecretRef": {"name": "keys", "key": "ca.crt"},
                "proxy": "http://proxy:3128", "access": "ReadOnly", "initialize": "Never",
                "mirror": {"clusters": ["a"]}, "suspend": true,
                "maintenance": {
                    "collect": "ReportOnly", "interval": "1h30m", "grace": "720h",
                    "keepAtLeast": 10, "deleteAtMostPercent": 100, "repackBelowPercent": 0,
                    "check": {"readAllInDays": 0},
                },
            })),
        ),
        passes(
            "a repository that is collected",
            "Repository",
            maintained(json!({"collect": "Enabled"})),
        ),
        passes(
            "the shortest times",
            "Repository",
            maintained(json!({"interval": "60s", "grace": "60m"})),
        ),
        passes(
            "the longest times",
            "Repository",
            maintained(json!({"interval": "8760h", "grace": "8759h59m60s"})),
        ),
        refused(
            "a collection that may not write",
            "Repository",
            with(json!({"access": "ReadOnly", "maintenance": {"collect": "Enabled"}})),
            "`maintenance.collect: Enabled` deletes, and `access: ReadOnly` never writes",
        ),
        refused(
            "a way to collect that nobody knows",
            "Repository",
            maintained(json!({"collect": "DryRun"})),
            "Unsupported value: \"DryRun\"",
        ),
        refused(
            "no grace",
            "Repository",
            maintained(json!({"grace": "0s"})),
            grace,
        ),
        refused(
            "a grace that is too short",
            "Repository",
            maintained(json!({"grace": "59m59s"})),
            grace,
        ),
        refused(
            "a grace that is too long",
            "Repository",
            maintained(json!({"grace": "8760h1s"})),
            grace,
        ),
        refused(
            "a grace in days",
            "Repository",
            maintained(json!({"grace": "7d"})),
            grace,
        ),
        refused(
            "a grace that is empty",
            "Repository",
            maintained(json!({"grace": ""})),
            grace,
        ),
        refused(
            "a grace that no clock can measure",
            "Repository",
            maintained(json!({"grace": "99999999999999999h"})),
            grace,
        ),
        refused(
            "a negative grace",
            "Repository",
            maintained(json!({"grace": "-168h"})),
            grace,
        ),
        refused(
            "a grace that is a number",
            "Repository",
            maintained(json!({"grace": 168})),
            "spec.maintenance.grace: Invalid value: \"integer\"",
        ),
        refused(
            "a keeper that never rests",
            "Repository",
            maintained(json!({"interval": "59s"})),
            "`interval` is a time between 1m and 8760h",
        ),
        refused(
            "an interval with a fraction",
            "Repository",
            maintained(json!({"interval": "1.5h"})),
            "`interval` is a time between 1m and 8760h",
        ),
        refused(
            "keeping none",
            "Repository",
            maintained(json!({"keepAtLeast": 0})),
            "spec.maintenance.keepAtLeast",
        ),
        refused(
            "more than all",
            "Repository",
            maintained(json!({"deleteAtMostPercent": 101})),
            "spec.maintenance.deleteAtMostPercent",
        ),
        refused(
            "a collection that may delete nothing",
            "Repository",
            maintained(json!({"deleteAtMostPercent": 0})),
            "spec.maintenance.deleteAtMostPercent",
        ),
        refused(
            "a pack that is more than whole",
            "Repository",
            maintained(json!({"repackBelowPercent": 101})),
            "spec.maintenance.repackBelowPercent",
        ),
        refused(
            "a check in the past",
            "Repository",
            maintained(json!({"check": {"readAllInDays": -1}})),
            "spec.maintenance.check.readAllInDays",
        ),
        refused(
            "a check nobody knows",
            "Repository",
            maintained(json!({"check": {"level": "All"}})),
            "unknown field \"spec.maintenance.check.level\"",
        ),
        passes(
            "a local folder",
            "Repository",
            with(json!({"url": "file:///backup"})),
        ),
        refused(
            "no passphrase",
            "Repository",
            json!({"url": "s3://b"}),
            "passphraseSecretRef: Required",
        ),
        refused(
            "a scheme nobody knows",
            "Repository",
            with(json!({"url": "ftp://b/p/q"})),
            "`url` starts with s3://, gs://, az:// or file://",
        ),
        refused(
            "an endpoint without TLS by mistake",
            "Repository",
            with(json!({"endpoint": "http://minio:9000"})),
            "needs `allowHttp: true`",
        ),
        refused(
            "an endpoint for a folder",
            "Repository",
            with(json!({"url": "file:///b", "endpoint": "https://s3"})),
            "`endpoint` makes no sense with a file:// URL",
        ),
        refused(
            "a field nobody knows",
            "Repository",
            with(json!({"bucket": "b"})),
            "unknown field \"spec.bucket\"",
        ),
        refused(
            "an access nobody knows",
            "Repository",
            with(json!({"access": "WriteOnly"})),
            "Unsupported value: \"WriteOnly\"",
        ),
    ]
}

fn backups() -> Vec<Case> {
    let with = |more: Value| merged(json!({"repository": "main"}), more);
    vec![
        passes("a backup", "Backup", with(json!({}))),
        passes(
            "a backup with all fields",
            "Backup",
            with(json!({
                "selection": {
                    "namespaces": ["shop-*"], "excludedNamespaces": ["shop-tmp"],
                    "resources": ["*.apps", "secrets"], "excludedResources": ["events"],
                    "labelSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
                    "clusterScoped": "None",
                },
                "volumes": "Skip", "activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 0,
            })),
        ),
        refused(
            "no repository",
            "Backup",
            json!({}),
            "spec.repository: Required value",
        ),
        refused(
            "an empty name",
            "Backup",
            json!({"repository": ""}),
            "spec.repository",
        ),
        refused(
            "a deadline of nothing",
            "Backup",
            with(json!({"activeDeadlineSeconds": 0})),
            "should be greater than or equal to 1",
        ),
        refused(
            "a misspelt field",
            "Backup",
            with(json!({"selection": {"namespace": ["a"]}})),
            "unknown field \"spec.selection.namespace\"",
        ),
        refused(
            "a policy nobody knows",
            "Backup",
            with(json!({"volumes": "Snapshot"})),
            "Unsupported value: \"Snapshot\"",
        ),
        passes(
            "a snapshot that is kept",
            "Backup",
            with(json!({"volumePolicies": [{"way": "Snapshot", "snapshotClass": "snap"}]})),
        ),
        refused(
            "a class of snapshots for a way without one",
            "Backup",
            with(json!({"volumePolicies": [{"way": "FileSystem", "snapshotClass": "snap"}]})),
            "`snapshotClass` goes with `way: Move` or `way: Snapshot`",
        ),
        refused(
            "an empty namespace",
            "Backup",
            with(json!({"selection": {"namespaces": [""]}})),
            "spec.selection.namespaces[0]",
        ),
    ]
}

fn schedules() -> Vec<Case> {
    let template = json!({"spec": {"repository": "main"}});
    let with = |more: Value| merged(json!({"cron": "0 3 * * *", "template": template}), more);
    let within = "`keepWithin` is a time between 1m and 876000h";
    vec![
        passes("a schedule", "Schedule", with(json!({}))),
        passes(
            "a name for a schedule",
            "Schedule",
            with(json!({"cron": "@daily"})),
        ),
        passes(
            "a schedule with all fields",
            "Schedule",
            with(json!({
                "cron": " 0  3 * * 1-5", "timeZone": "Europe/Berlin", "suspend": true,
                "startingDeadlineSeconds": 600, "concurrencyPolicy": "Replace",
                "retention": {"keepLast": 14}, "successfulBackupsHistoryLimit": 0,
                "failedBackupsHistoryLimit": 10,
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"repository": "main"}},
            })),
        ),
        refused(
            "seconds in a cron",
            "Schedule",
            with(json!({"cron": "0 0 3 * * *"})),
            "`cron` has five fields",
        ),
        refused(
            "a zone inside a cron",
            "Schedule",
            with(json!({"cron": "TZ=UTC 3 * * *"})),
            "the time zone goes into `timeZone`",
        ),
        refused(
            "a cancelled template",
            "Schedule",
            with(json!({"template": {"spec": {"repository": "main", "cancel": true}}})),
            "a template cannot be cancelled: use `suspend`",
        ),
        refused(
            "keeping nothing",
            "Schedule",
            with(json!({"retention": {"keepLast": 0}})),
            "retention.keepLast",
        ),
        passes(
            "every retention",
            "Schedule",
            with(json!({"retention": {
                "keepLast": 1, "keepHourly": 24, "keepDaily": 7, "keepWeekly": 5,
                "keepMonthly": 12, "keepYearly": 10, "keepWithin": "72h",
            }})),
        ),
        passes(
            "no retention, as Schedules of the first version have it",
            "Schedule",
            with(json!({"retention": {}})),
        ),
        passes(
            "rules that are left out as null",
            "Schedule",
            with(json!({"retention": {"keepLast": null, "keepWithin": null}})),
        ),
        passes(
            "the shortest time",
            "Schedule",
            with(json!({"retention": {"keepWithin": "1m"}})),
        ),
        passes(
            "the longest time",
            "Schedule",
            with(json!({"retention": {"keepWithin": "876000h"}})),
        ),
        refused(
            "keeping nothing within no time",
            "Schedule",
            with(json!({"retention": {"keepWithin": "0h"}})),
            within,
        ),
        refused(
            "keeping for ever and a day",
            "Schedule",
            with(json!({"retention": {"keepWithin": "876000h1s"}})),
            within,
        ),
        refused(
            "a time in days",
            "Schedule",
            with(json!({"retention": {"keepWithin": "30d"}})),
            within,
        ),
        refused(
            "a time with its units the wrong way round",
            "Schedule",
            with(json!({"retention": {"keepWithin": "30m1h"}})),
            within,
        ),
        refused(
            "no days",
            "Schedule",
            with(json!({"retention": {"keepDaily": 0}})),
            "spec.retention.keepDaily",
        ),
        refused(
            "years before this one",
            "Schedule",
            with(json!({"retention": {"keepYearly": -1}})),
            "spec.retention.keepYearly",
        ),
        refused(
            "a retention nobody knows",
            "Schedule",
            with(json!({"retention": {"keepFortnightly": 3}})),
            "unknown field \"spec.retention.keepFortnightly\"",
        ),
        refused(
            "no template",
            "Schedule",
            json!({"cron": "@daily"}),
            "spec.template: Required value",
        ),
    ]
}

fn restores() -> Vec<Case> {
    let point = json!({"recoveryPoint": "p"});
    let from = |from: Value| json!({"from": from});
    let with = |more: Value| merged(json!({"from": point}), more);
    let snapshot = "0123456789abcdef0123456789abcdef";
    let digest = "0".repeat(64);
    let transform = |transform: Value| with(json!({"transforms": [transform]}));
    let mapping =
        |from: &str, to: &str| with(json!({"mapping": {"namespaces": [{"from": from, "to": to}]}}));
    let either = "`from` has either `recoveryPoint`, or `repository`";
    vec![
        passes("a point", "Restore", with(json!({}))),
        passes(
            "a snapshot",
            "Restore",
            from(json!({"repository": "r", "snapshot": snapshot})),
        ),
        passes(
            "the newest",
            "Restore",
            from(json!({"repository": "r", "cluster": "a", "schedule": "s"})),
        ),
        passes(
            "a restore with all fields",
            "Restore",
            with(json!({
                "mode": "Run", "planDigest": digest,
                "selection": {"namespaces": ["shop"]},
                "mapping": {
                    "namespaces": [{"from": "shop-*", "to": "laden-*"}],
                    "storageClasses": [{"from": "*", "to": "fast"}],
                    "ingressClasses": [{"from": "nginx", "to": "traefik"}],
                    "images": [{"from": "a.example/", "to": "b.example/m/"}],
                    "hosts": [{"from": "*.a.example", "to": "*.b.example"}],
                },
                "transforms": [
                    {"match": {"kinds": ["Deployment.apps"], "labels": {"app": "web"}},
                     "jsonPatch": [{"op": "replace", "path": "/spec/replicas", "value": 1}]},
                    {"mergePatch": {"metadata": {"labels": {"a": null}}}},
                ],
                "existing": {"policy": "Merge", "overrides": [
                    {"match": {"kinds": ["Secret"]}, "policy": "Fail"}]},
                "volumes": "Empty", "rerun": "again", "ttlSecondsAfterFinished": 60,
            })),
        ),
        refused("from nowhere", "Restore", from(json!({})), either),
        refused(
            "from two places",
            "Restore",
            from(json!({"recoveryPoint": "p", "repository": "r", "snapshot": snapshot})),
            either,
        ),
        refused(
            "a point of a cluster",
            "Restore",
            from(json!({"recoveryPoint": "p", "cluster": "a"})),
            "with `recoveryPoint`, nothing else goes into `from`",
        ),
        refused(
            "a repository alone",
            "Restore",
            from(json!({"repository": "r"})),
            "`repository` needs either `snapshot`, or `cluster`",
        ),
        refused(
            "a schedule of no cluster",
            "Restore",
            from(json!({"repository": "r", "snapshot": snapshot, "schedule": "s"})),
            "`schedule` needs `cluster`",
        ),
        refused(
            "a snapshot that is no id",
            "Restore",
            from(json!({"repository": "r", "snapshot": "latest"})),
            "spec.from.snapshot",
        ),
        refused(
            "a digest for a plan only",
            "Restore",
            with(json!({"mode": "Plan", "planDigest": digest})),
            "`planDigest` goes with `mode: Run`",
        ),
        refused(
            "a digest that is none",
            "Restore",
            with(json!({"planDigest": "abc"})),
            "spec.planDigest",
        ),
        refused(
            "a mapping with too many stars",
            "Restore",
            mapping("shop", "*-b"),
            "`to` has more `*` than `from`",
        ),
        refused(
            "a mapping to nothing",
            "Restore",
            mapping("shop", ""),
            "spec.mapping.namespaces[0].to",
        ),
        refused(
            "a transform that does nothing",
            "Restore",
            transform(json!({"match": {}})),
            "exactly one of `jsonPatch` and `mergePatch`",
        ),
        refused(
            "a transform of two kinds",
            "Restore",
            transform(json!({"jsonPatch": [{"op": "remove", "path": "/a"}], "mergePatch": {}})),
            "exactly one of `jsonPatch` and `mergePatch`",
        ),
        refused(
            "an operation nobody knows",
            "Restore",
            transform(json!({"jsonPatch": [{"op": "delete", "path": "/a"}]})),
            "Unsupported value: \"delete\"",
        ),
        refused(
            "an operation without a path",
            "Restore",
            transform(json!({"jsonPatch": [{"op": "remove"}]})),
            "spec.transforms[0].jsonPatch[0].path: Required value",
        ),
        refused(
            "an override without a policy",
            "Restore",
            with(json!({"existing": {"overrides": [{"match": {}}]}})),
            "spec.existing.overrides[0].policy: Required value",
        ),
        passes(
            "volumes that are overwritten",
            "Restore",
            with(json!({"existingVolumes": "Overwrite", "volumes": "Empty"})),
        ),
        refused(
            "volumes that are overwritten with nothing",
            "Restore",
            with(json!({"existingVolumes": "Overwrite", "volumes": "Skip"})),
            "`existingVolumes: Overwrite` restores data, and `volumes: Skip` restores none",
        ),
        refused(
            "an unknown way with existing volumes",
            "Restore",
            with(json!({"existingVolumes": "Merge"})),
            "Unsupported value: \"Merge\"",
        ),
        refused(
            "a misspelt mapping",
            "Restore",
            with(json!({"mapping": {"namespace": []}})),
            "unknown field \"spec.mapping.namespace\"",
        ),
    ]
}

async fn requests_do_not_change(client: &Client) -> Result<()> {
    let spec = json!({"repository": "main", "activeDeadlineSeconds": 60});
    post(client, &object("Backup", "fixed", &spec), false)
        .await
        .map_err(anyhow::Error::msg)?;
    let path = path("Backup", Some("fixed"));
    let said = put_spec(client, &path, json!({"volumes": "Skip"})).await?;
    ensure!(
        said.contains("a Backup is immutable but for `spec.cancel`"),
        "{said}"
    );
    let said = put_spec(client, &path, json!({"ttlSecondsAfterFinished": 1})).await?;
    ensure!(said.contains("a Backup is immutable"), "{said}");
    ensure!(put_spec(client, &path, json!({"cancel": true})).await? == "");
    let said = put_spec(client, &path, json!({"cancel": false})).await?;
    ensure!(said.contains("`cancel` cannot be taken back"), "{said}");

    let spec = json!({"from": {"recoveryPoint": "p"}, "transforms": [{"mergePatch": {"a": 1}}]});
    post(client, &object("Restore", "fixed", &spec), false)
        .await
        .map_err(anyhow::Error::msg)?;
    let path = self::path("Restore", Some("fixed"));
    let words = "a Restore is immutable but for `spec.cancel`";
    for change in [
        json!({"mode": "Plan"}),
        json!({"rerun": "again"}),
        json!({"existingVolumes": "Overwrite"}),
        json!({"transforms": [{"mergePatch": {"a": 2}}]}),
        json!({"transforms": null}),
    ] {
        let said = put_spec(client, &path, change.clone()).await?;
        ensure!(said.contains(words), "{change}: {said}");
    }
    ensure!(put_spec(client, &path, json!({"cancel": true})).await? == "");

    let claim = json!({"namespace": "shop", "name": "data"});
    let spec = json!({
        "repository": "main", "snapshot": "0".repeat(32), "volume": claim, "claim": claim,
        "restore": {"name": "fixed", "uid": "u"},
    });
    post(client, &object("VolumeRestore", "fixed", &spec), false)
        .await
        .map_err(anyhow::Error::msg)?;
    let path = self::path("VolumeRestore", Some("fixed"));
    let said = put_spec(client, &path, json!({"repository": "other"})).await?;
    ensure!(said.contains("a VolumeRestore is immutable"), "{said}");

    let point = json!({
        "repository": "main", "snapshot": "0".repeat(32), "backup": "b",
        "cluster": {"name": "a", "uid": "u"}, "takenAt": "2026-11-23T23:00:00Z",
        "completeness": "Complete", "consistency": "Exact", "objects": 1,
    });
    post(client, &object("RecoveryPoint", "fixed", &point), false)
        .await
        .map_err(anyhow::Error::msg)?;
    let path = self::path("RecoveryPoint", Some("fixed"));
    let said = put_spec(client, &path, json!({"objects": 2})).await?;
    ensure!(
        said.contains("mirrors the repository and cannot be changed"),
        "{said}"
    );
    Ok(())
}

/// A Schedule holds the spec of a Backup, and may change it.
async fn schedules_change(client: &Client) -> Result<()> {
    let spec = json!({"cron": "@daily", "template": {"spec": {"repository": "main"}}});
    post(client, &object("Schedule", "changes", &spec), false)
        .await
        .map_err(anyhow::Error::msg)?;
    let path = path("Schedule", Some("changes"));
    let said = put_spec(
        client,
        &path,
        json!({"template": {"spec": {"repository": "b"}}}),
    )
    .await?;
    ensure!(said.is_empty(), "{said}");
    Ok(())
}

async fn defaults_are_visible(client: &Client) -> Result<()> {
    let spec = json!({"from": {"recoveryPoint": "p"}});
    let made = post(client, &object("Restore", "x", &spec), true)
        .await
        .map_err(anyhow::Error::msg)?;
    let expected = json!({
        "from": {"recoveryPoint": "p"}, "mode": "Run", "cancel": false,
        "selection": {"clusterScoped": "Auto"}, "mapping": {},
        "existing": {"policy": "Skip"}, "volumes": "Withhold", "existingVolumes": "Keep",
    });
    ensure!(made["spec"] == expected, "{}", made["spec"]);

    let key = json!({"name": "keys", "key": "passphrase"});
    let spec = json!({"url": "s3://b/p", "passphraseSecretRef": key, "maintenance": {"check": {}}});
    let made = post(client, &object("Repository", "x", &spec), true)
        .await
        .map_err(anyhow::Error::msg)?;
    let expected = json!({
        "collect": "ReportOnly", "interval": "24h", "grace": "168h", "keepAtLeast": 3,
        "deleteAtMostPercent": 50, "repackBelowPercent": 50, "check": {"readAllInDays": 30},
    });
    let found = &made["spec"]["maintenance"];
    ensure!(*found == expected, "{found}");
    let spec = json!({"url": "s3://b/p", "passphraseSecretRef": key});
    let made = post(client, &object("Repository", "x", &spec), true)
        .await
        .map_err(anyhow::Error::msg)?;
    let found = &made["spec"]["maintenance"];
    ensure!(*found == expected, "{found}");
    Ok(())
}

/// The files in `examples/`, and the YAML in the README, are what they say.
async fn examples_are_accepted(client: &Client) -> Result<()> {
    let root = workspace_root();
    let mut texts = vec![(
        "README.md".to_owned(),
        fenced_yaml(&std::fs::read_to_string(root.join("README.md"))?),
    )];
    for entry in std::fs::read_dir(root.join("examples"))? {
        let path = entry?.path();
        texts.push((path.display().to_string(), std::fs::read_to_string(&path)?));
    }
    let mut seen = 0;
    for (file, text) in texts {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).with_context(|| format!("{file} is not YAML"))?;
        for document in documents {
            if document["apiVersion"] != "lifebuoy.dev/v1alpha1" {
                continue;
            }
            let kind = document["kind"].as_str().context("no kind")?;
            let name = document["metadata"]["name"].as_str().context("no name")?;
            let here = object(kind, name, &document["spec"]);
            let made = post(client, &here, true).await;
            made.map_err(|said| anyhow::anyhow!("{file} {kind} {name}: {said}"))?;
            seen += 1;
        }
    }
    ensure!(seen >= 10, "only {seen} examples");
    Ok(())
}

/// The blocks of YAML in a Markdown text, as one stream of documents.
fn fenced_yaml(markdown: &str) -> String {
    let blocks = markdown.split("```yaml\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("```").next());
    blocks.collect::<Vec<_>>().join("---\n")
}

async fn install(client: &Client) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let started = Instant::now();
    for crd in lifebuoy_api::all_crds() {
        let name = crd.metadata.name.clone().context("a CRD has a name")?;
        crds.create(&PostParams::default(), &crd)
            .await
            .with_context(|| name.clone())?;
        while !established(&crds.get(&name).await?)? {
            ensure!(
                started.elapsed() < ESTABLISHED_LIMIT,
                "{name} is not established"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // The endpoints of a new kind, and the namespace `default`, come a moment later.
    for crd in lifebuoy_api::all_crds() {
        let request = http::Request::get(path(&crd.spec.names.kind, None)).body(Vec::new())?;
        while client.request::<Value>(request.clone()).await.is_err() {
            ensure!(
                started.elapsed() < ESTABLISHED_LIMIT,
                "{} is not served",
                crd.spec.names.plural
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    while namespaces.get_opt("default").await?.is_none() {
        ensure!(
            started.elapsed() < ESTABLISHED_LIMIT,
            "no namespace `default`"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn established(crd: &CustomResourceDefinition) -> Result<bool> {
    let conditions = crd
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let mut established = false;
    for condition in conditions {
        let is = condition.status == "True";
        match condition.type_.as_str() {
            "NonStructuralSchema" if is => bail!("{:?}", condition.message),
            "NamesAccepted" if !is => bail!("{:?}", condition.message),
            "Established" => established = is,
            _ => {}
        }
    }
    Ok(established)
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "lifebuoy.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    })
}

fn path(kind: &str, name: Option<&str>) -> String {
    let plural = match kind {
        "Repository" => "repositories".to_owned(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    let name = name.map(|name| format!("/{name}")).unwrap_or_default();
    format!("/apis/lifebuoy.dev/v1alpha1/namespaces/default/{plural}{name}")
}

/// Creates the object, as strictly as kubectl does; the error is the server's
/// own sentence.
async fn post(client: &Client, object: &Value, dry: bool) -> Result<Value, String> {
    let kind = object["kind"].as_str().unwrap_or_default();
    let dry = if dry { "&dryRun=All" } else { "" };
    let uri = format!("{}?fieldValidation=Strict{dry}", path(kind, None));
    send(client, http::Request::post(uri), object).await
}

/// Changes fields of the spec; gives the server's refusal, or nothing.
async fn put_spec(client: &Client, path: &str, spec: Value) -> Result<String> {
    let request = http::Request::patch(format!("{path}?fieldValidation=Strict"))
        .header("Content-Type", "application/merge-patch+json");
    Ok(send(client, request, &json!({"spec": spec}))
        .await
        .err()
        .unwrap_or_default())
}

async fn send(
    client: &Client,
    request: http::request::Builder,
    body: &Value,
) -> Result<Value, String> {
    let bytes = serde_json::to_vec(body).map_err(|error| error.to_string())?;
    let request = request.body(bytes).map_err(|error| error.to_string())?;
    client
        .request::<Value>(request)
        .await
        .map_err(|error| match error {
            kube::Error::Api(status) => status.message,
            other => other.to_string(),
        })
}

fn merged(mut base: Value, more: Value) -> Value {
    if let (Value::Object(base), Value::Object(more)) = (&mut base, more) {
        base.extend(more);
    }
    base
}
