//! PostgreSQL and Redis are saved by a Schedule while they are written to, their
//! cluster is lost, and they start in another one: in another namespace, on
//! another storage class, with everything that was acknowledged before the
//! snapshots. Nothing that was made on the way is left anywhere.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use lifebuoy_api::{
    Backup, BackupTemplate, ConcurrencyPolicy, Hook, HookFailure, NameMapping, Retention, Schedule,
    ScheduleSpec, TemplateMetadata, VolumeMatch, VolumePolicy, VolumeRule, VolumeWay,
};
use lifebuoy_scenarios::{
    Acknowledged, Databases, Ended, NodeWorld, NodeWorlds, OPERATOR_NAMESPACE, QUIESCE_POSTGRES,
    QUIESCE_REDIS, Writers, backup, create, eventually, newest_of, node_scenario, restore, run,
    until,
};
use lifebuoy_testkit::directory;
use lifebuoy_testkit::node::images::{self, Layer};
use serde_json::json;

const SHOP: &str = "shop";
const SHOP_ELSEWHERE: &str = "shop-dr";
/// How long saving or restoring both volumes may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(600);

/// What is known of the databases before their cluster is lost.
struct Known {
    /// Before any snapshot was there.
    before: Acknowledged,
    /// At the end of the backup.
    after: Acknowledged,
    digest: String,
}

#[test]
fn databases_start_elsewhere_with_all_that_was_acknowledged() {
    node_scenario(&NodeWorld::needs(&[Layer::Databases]), async {
        let databases = images::databases(&directory::root())?;
        let NodeWorlds { a, b, s3: _s3 } = NodeWorlds::start(&[databases]).await?;
        let known = a.recorded(save(&a).await).await?;
        drop(a);
        b.recorded(bring_back(&b, &known).await).await
    });
}

/// Lets a Schedule save the databases while they are written to.
async fn save(a: &NodeWorld) -> Result<Known> {
    let databases = Databases {
        world: a,
        namespace: SHOP,
    };
    databases.deploy("fast").await?;
    let digest = databases.constant_digest().await?;
    let mut writers = Writers::start(databases).await?;
    create(&a.client(), OPERATOR_NAMESPACE, every_minute()).await?;
    let name = scheduled(a).await?;
    let before = acknowledged_before_snapshots(a, &writers, &name).await?;
    let saved: Backup = until(&a.client(), OPERATOR_NAMESPACE, &name, LIMIT, Ended::ended).await?;
    ensure!(saved.complete(), "{}", saved.verdict());
    writers.check_running()?;
    let after = writers.acknowledged()?;
    drop(writers);
    a.nothing_is_left().await?;
    Ok(Known {
        before,
        after,
        digest,
    })
}

fn every_minute() -> Schedule {
    let mut spec = backup("unused", "main").spec;
    spec.selection.namespaces = vec![SHOP.to_owned()];
    spec.volumes = VolumePolicy::Save;
    spec.volume_policies = vec![VolumeRule {
        matching: VolumeMatch::default(),
        way: VolumeWay::Move,
        snapshot_class: None,
    }];
    spec.hooks = vec![
        hook("postgres", QUIESCE_POSTGRES),
        hook("redis", QUIESCE_REDIS),
    ];
    Schedule::new(
        "each-minute",
        ScheduleSpec {
            cron: "* * * * *".to_owned(),
            time_zone: "Europe/Berlin".to_owned(),
            suspend: false,
            starting_deadline_seconds: None,
            concurrency_policy: ConcurrencyPolicy::Forbid,
            template: BackupTemplate {
                metadata: TemplateMetadata::default(),
                spec,
            },
            retention: Retention::default(),
            successful_backups_history_limit: 3,
            failed_backups_history_limit: 3,
        },
    )
}

/// A command for the pods of a database, whose failure would fail the backup.
fn hook(app: &str, quiesce: &str) -> Hook {
    Hook {
        namespaces: vec![SHOP.to_owned()],
        label_selector: LabelSelector {
            match_labels: Some(BTreeMap::from([("app".to_owned(), app.to_owned())])),
            ..LabelSelector::default()
        },
        container: None,
        quiesce: quiesce.to_owned(),
        resume: None,
        timeout_seconds: 60,
        on_failure: HookFailure::Fail,
    }
}

/// Waits for the first Backup that the Schedule makes; it makes no others.
async fn scheduled(a: &NodeWorld) -> Result<String> {
    let backups: Api<Backup> = Api::namespaced(a.client(), OPERATOR_NAMESPACE);
    let name = eventually("a Backup is made on time", LIMIT, async || {
        let made = backups.list(&ListParams::default()).await?;
        Ok(made.items.into_iter().find_map(|one| one.metadata.name))
    })
    .await?;
    let schedules: Api<Schedule> = Api::namespaced(a.client(), OPERATOR_NAMESPACE);
    let suspended = Patch::Merge(json!({"spec": {"suspend": true}}));
    schedules
        .patch("each-minute", &PatchParams::default(), &suspended)
        .await?;
    Ok(name)
}

/// What was acknowledged when no snapshot of a volume was there yet.
async fn acknowledged_before_snapshots(
    a: &NodeWorld,
    writers: &Writers,
    backup: &str,
) -> Result<Acknowledged> {
    let backups: Api<Backup> = Api::namespaced(a.client(), OPERATOR_NAMESPACE);
    let mut before = writers.acknowledged()?;
    eventually("a snapshot is taken", LIMIT, async || {
        // In this order: what is read before there is none, is before all.
        let acknowledged = writers.acknowledged()?;
        let snapshots = ["get", "volumesnapshots", "-A", "-o=name"];
        if !a.kubectl(&snapshots).await?.trim().is_empty() {
            return Ok(Some(()));
        }
        let saved = backups.get(backup).await?;
        ensure!(!saved.ended(), "no snapshot was taken: {}", saved.verdict());
        before = acknowledged;
        Ok(None)
    })
    .await?;
    Ok(before)
}

/// Restores the databases in the other cluster, and looks at what they have.
async fn bring_back(b: &NodeWorld, known: &Known) -> Result<()> {
    let mut request = restore("failover", newest_of("main", "a"));
    let to = |from: &str, to: &str| NameMapping {
        from: from.to_owned(),
        to: to.to_owned(),
    };
    request.spec.selection.namespaces = vec![SHOP.to_owned()];
    request.spec.mapping.namespaces = vec![to(SHOP, SHOP_ELSEWHERE)];
    request.spec.mapping.storage_classes = vec![to("fast", "slow")];
    let restored = run(&b.client(), OPERATOR_NAMESPACE, request, LIMIT).await?;
    ensure!(restored.complete(), "{}", restored.verdict());

    let databases = Databases {
        world: b,
        namespace: SHOP_ELSEWHERE,
    };
    databases.ready().await?;
    let found = databases.found().await?;
    println!(
        "before the snapshots {:?}, restored {found:?}, at the end of the backup {:?}",
        known.before, known.after
    );
    ensure!(
        found.postgres >= known.before.postgres && found.redis >= known.before.redis,
        "{found:?} are there, {:?} were acknowledged before the snapshots",
        known.before
    );
    // They were written to while their data was sent.
    ensure!(
        found.postgres < known.after.postgres && found.redis < known.after.redis,
        "{found:?} are there, {:?} were acknowledged until the end",
        known.after
    );
    ensure!(databases.constant_digest().await? == known.digest);
    databases.check_every_page().await?;
    b.nothing_is_left().await
}
