//! The story of databases that move to another cluster: saved by a Schedule while
//! they are written to, and restored in another namespace, on another storage class.
//!
//! The scenario and the demo tell it. It never loses the first cluster itself, and
//! it is an error where anything that it checks is not as promised.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use lifebuoy_api::{
    Backup, BackupTemplate, ConcurrencyPolicy, Hook, HookFailure, NameMapping, Restore, Retention,
    Schedule, ScheduleSpec, TemplateMetadata, VolumeWay,
};
use lifebuoy_testkit::directory;
use lifebuoy_testkit::namespace::Needs;
use lifebuoy_testkit::node::images::{self, Layer};
use serde_json::json;

use crate::{
    Acknowledged, Databases, Ended, NodeWorld, NodeWorlds, OPERATOR_NAMESPACE, QUIESCE_POSTGRES,
    QUIESCE_REDIS, Writers, backup_of_volumes, create, eventually, newest_of, restore, run, until,
};

const SHOP: &str = "shop";
const SHOP_ELSEWHERE: &str = "shop-dr";
/// How long saving or restoring both volumes may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(600);

/// Is told each step that is done, and what there is to say of it.
pub type Tell<'a> = &'a mut dyn FnMut(&str, &str);

/// What is known of the databases before their cluster is lost.
pub struct KnownDatabases {
    /// Before any snapshot was there.
    pub before: Acknowledged,
    /// At the end of the backup.
    pub after: Acknowledged,
    /// Of what is constant in Redis.
    pub digest: String,
}

impl NodeWorlds {
    /// What the story needs to be there.
    #[must_use]
    pub fn needs_of_databases() -> Needs {
        NodeWorld::needs(&[Layer::Databases])
    }

    /// Starts both clusters, with the image of the databases.
    ///
    /// # Errors
    /// As [`NodeWorlds::start`].
    pub async fn start_for_databases() -> Result<Self> {
        Self::start(&[images::databases(&directory::root())?]).await
    }
}

/// Lets a Schedule save the databases while they are written to.
///
/// # Errors
/// When the backup is not complete, or leaves something behind.
pub async fn save_databases(a: &NodeWorld, tell: Tell<'_>) -> Result<KnownDatabases> {
    let databases = Databases {
        world: a,
        namespace: SHOP,
    };
    databases.deploy("fast").await?;
    let digest = databases.constant_digest().await?;
    tell(
        "PostgreSQL and Redis run in A",
        "namespace shop, class fast",
    );
    let mut writers = Writers::start(databases).await?;
    tell(
        "both are written to all the time",
        "each write is on disk before it is acknowledged",
    );
    create(&a.client(), OPERATOR_NAMESPACE, every_minute()).await?;
    let name = scheduled(a).await?;
    tell(
        "the Schedule's tick has come",
        "at most a minute of waiting",
    );
    let before = acknowledged_before_snapshots(a, &writers, &name).await?;
    tell(
        "a snapshot is there",
        &format!("acknowledged before: {before}"),
    );
    let saved: Backup = until(&a.client(), OPERATOR_NAMESPACE, &name, LIMIT, Ended::ended).await?;
    ensure!(saved.complete(), "{}", saved.verdict());
    writers.check_running()?;
    let after = writers.acknowledged()?;
    drop(writers);
    let progress = saved.status.map(|status| status.progress);
    let progress = progress.unwrap_or_default();
    tell(
        "the volumes are moved into the repository",
        &format!(
            "{} volumes, {} bytes read, {} stored; acknowledged by now: {after}",
            progress.volumes, progress.volume_bytes, progress.volume_bytes_stored
        ),
    );
    a.nothing_is_left().await?;
    tell(
        "nothing that was made for the backup is left",
        "no snapshot, claim, Job, pod or Secret",
    );
    Ok(KnownDatabases {
        before,
        after,
        digest,
    })
}

fn every_minute() -> Schedule {
    let mut spec = backup_of_volumes("unused", "main", SHOP, VolumeWay::Move).spec;
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
///
/// # Errors
/// When the restore is not complete, anything is missing or wrong, or something
/// is left behind.
pub async fn bring_back_databases(
    b: &NodeWorld,
    known: &KnownDatabases,
    tell: Tell<'_>,
) -> Result<()> {
    let restored = run(&b.client(), OPERATOR_NAMESPACE, elsewhere(), LIMIT).await?;
    ensure!(restored.complete(), "{}", restored.verdict());
    let databases = Databases {
        world: b,
        namespace: SHOP_ELSEWHERE,
    };
    databases.ready().await?;
    tell(
        "PostgreSQL and Redis run in B",
        "namespace shop-dr, class slow",
    );
    let found = databases.found().await?;
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
    tell(
        "all that was acknowledged before the snapshots is there, without a gap",
        &format!(
            "before the snapshots: {}; restored: {found}; at the end of the backup: {}",
            known.before, known.after
        ),
    );
    databases.check_every_page().await?;
    tell(
        "pg_amcheck finds nothing",
        "every page of every table and index",
    );
    let digest = databases.constant_digest().await?;
    ensure!(digest == known.digest, "{digest} is not {}", known.digest);
    tell(
        "what is constant in Redis is equal",
        &format!(
            "number of keys, and the digest of their values: {}",
            one_line(&digest)
        ),
    );
    b.nothing_is_left().await?;
    tell(
        "nothing that was made for the restore is left",
        "no snapshot, claim, Job, pod or Secret",
    );
    Ok(())
}

fn elsewhere() -> Restore {
    let mut request = restore("failover", newest_of("main", "a"));
    let to = |from: &str, to: &str| NameMapping {
        from: from.to_owned(),
        to: to.to_owned(),
    };
    request.spec.selection.namespaces = vec![SHOP.to_owned()];
    request.spec.mapping.namespaces = vec![to(SHOP, SHOP_ELSEWHERE)];
    request.spec.mapping.storage_classes = vec![to("fast", "slow")];
    request
}

/// The words of a few short lines.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
