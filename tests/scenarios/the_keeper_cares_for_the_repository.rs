//! One cluster of those that share a bucket keeps it: it counts, deletes what no
//! recovery point needs once it is told to, finds damage and says so until the
//! damage is really gone. When it dies, another one takes over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use lifebuoy_api::{
    Backup, CheckLevel, ConditionType, Repository, RepositoryCollection, RepositoryStatus, find,
};
use lifebuoy_scenarios::{
    Ended, Installation, InstallationOptions, OPERATOR_NAMESPACE, SOON, World, create, get,
    namespace, repository_ready, scenario, unique, until,
};
use rand::RngExt;
use serde_json::{Value, json};

use crate::a_schedule_takes_backups::every_minute;
use crate::support::{lifebuoy, lifebuoy_ending, open};

/// Bytes of what changes between two backups.
const CONTENT_BYTES: usize = 200_000;
/// Longer ago than the shortest grace that a Repository may have.
const LONG_AGO: Duration = Duration::from_secs(2 * 3600);
/// A round of care comes once a minute where it is set to the shortest interval,
/// and a keeper is gone that has not been seen for three intervals.
const ROUND: Duration = Duration::from_secs(120);
const TAKEOVER: Duration = Duration::from_secs(420);

/// A cluster with a Schedule `yearly` of one namespace, of which the newest point
/// is kept.
struct Cluster<'a> {
    installation: &'a Installation,
    store: &'a lifebuoy_scenarios::Store,
    source: String,
}

impl<'a> Cluster<'a> {
    async fn new(
        installation: &'a Installation,
        store: &'a lifebuoy_scenarios::Store,
    ) -> Result<Self> {
        let client = installation.client();
        let source = namespace(&client, "cared").await?;
        let mut schedule = every_minute("yearly", &[&source], Some(1));
        schedule.spec.cron = "0 0 1 1 *".to_owned();
        create(&client, OPERATOR_NAMESPACE, schedule).await?;
        // What every namespace has is saved first, so that later packs hold
        // nothing but what changes.
        until::<ConfigMap>(&client, &source, "kube-root-ca.crt", SOON, |_| true).await?;
        until::<ServiceAccount>(&client, &source, "default", SOON, |_| true).await?;
        let cluster = Self {
            installation,
            store,
            source,
        };
        cluster.save().await?;
        Ok(cluster)
    }

    /// Replaces what the namespace holds.
    async fn change(&self) -> Result<()> {
        let maps: Api<ConfigMap> = Api::namespaced(self.installation.client(), &self.source);
        let _absent = maps.delete("content", &DeleteParams::default()).await;
        let text: String = rand::rng()
            .sample_iter(rand::distr::Alphanumeric)
            .take(CONTENT_BYTES)
            .map(char::from)
            .collect();
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some("content".to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([("text".to_owned(), text)])),
            ..ConfigMap::default()
        };
        maps.create(&PostParams::default(), &map).await?;
        Ok(())
    }

    /// Takes a backup; gives its snapshot.
    async fn save(&self) -> Result<String> {
        let name = unique("cared");
        let args = [
            "backup",
            "create",
            &name,
            "--from-schedule",
            "yearly",
            "--wait",
        ];
        lifebuoy(&self.installation.cluster, self.store, &args).await?;
        let backups: Api<Backup> = Api::namespaced(self.installation.client(), OPERATOR_NAMESPACE);
        let status = backups.get(&name).await?.status.context("no status")?;
        status.snapshot.context("no snapshot")
    }

    /// Takes two backups of different things, and waits until retention has
    /// forgotten the first: long ago, as the store tells. Gives both snapshots.
    async fn leave_garbage(&self, bucket: &Path) -> Result<(String, String)> {
        self.change().await?;
        let old = self.save().await?;
        self.change().await?;
        let new = self.save().await?;
        let forget = bucket.join("forget").join(&old);
        let start = std::time::Instant::now();
        while !forget.exists() {
            ensure!(start.elapsed() < SOON, "retention has not forgotten {old}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        File::options()
            .write(true)
            .open(forget)?
            .set_modified((chrono::Utc::now() - LONG_AGO).into())?;
        Ok((old, new))
    }
}

/// The packs of a session, by their paths in the bucket.
fn packs(bucket: &Path, session: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in fs::read_dir(bucket.join("packs"))? {
        for pack in fs::read_dir(folder?.path())? {
            let path = pack?.path();
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            if name.is_some_and(|name| name.starts_with(session)) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn all_packs(bucket: &Path) -> Result<BTreeSet<PathBuf>> {
    Ok(packs(bucket, "")?.into_iter().collect())
}

async fn set_maintenance(client: &Client, rules: Value) -> Result<()> {
    let repositories: Api<Repository> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let change = json!({"spec": {"maintenance": rules}});
    repositories
        .patch("main", &PatchParams::default(), &Patch::Merge(&change))
        .await?;
    Ok(())
}

fn status(repository: &Repository) -> RepositoryStatus {
    repository.status.clone().unwrap_or_default()
}

/// The status, the reason and the message of a condition.
fn told(repository: &Repository, kind: ConditionType) -> (String, String, String) {
    find(repository.conditions(), kind).map_or_else(Default::default, |it| {
        (it.status.clone(), it.reason.clone(), it.message.clone())
    })
}

async fn until_repository(
    client: &Client,
    limit: Duration,
    done: impl Fn(&Repository) -> bool,
) -> Result<Repository> {
    until(client, OPERATOR_NAMESPACE, "main", limit, done).await
}

fn collection(repository: &Repository) -> Option<RepositoryCollection> {
    status(repository).last_collection
}

/// Lets the next daily round come: the operator is stopped, the last round made
/// one of the day before yesterday, and the operator started.
async fn next_round(world: &mut World) -> Result<Repository> {
    let client = world.client();
    let repositories: Api<Repository> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    until_repository(&client, SOON, |it| collection(it).is_some()).await?;
    world
        .installation
        .terminate(Duration::from_secs(30))
        .await?;
    let past = chrono::Utc::now() - chrono::Duration::days(2);
    let past = past.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let change = json!({"status": {"lastCollection": {"time": past}}});
    let before = repositories
        .patch_status("main", &PatchParams::default(), &Patch::Merge(&change))
        .await?;
    world.installation.restart().await?;
    let before = collection(&before);
    until_repository(&client, SOON, |it| collection(it) != before).await
}

/// Whether the operator tells this value of a metric of the Repository.
async fn tells(installation: &Installation, metric: &str, value: &str) -> Result<bool> {
    let line = format!("lifebuoy_{metric}{{repository=\"main\"}} {value}\n");
    for replica in installation.replicas() {
        if get(&replica.listen, "/metrics").await?.1.contains(&line) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn garbage_goes_when_it_may_and_damage_is_told_until_it_is_gone() {
    scenario(async {
        let mut world = World::start("cared-for").await?;
        let client = world.client();
        let bucket = world.s3.bucket_directory().join("cared-for");
        // Two shares of the data: a round reads one, and the next the other.
        let rules = json!({"grace": "1h", "keepAtLeast": 1, "deleteAtMostPercent": 100,
            "repackBelowPercent": 0, "check": {"readAllInDays": 2}});
        set_maintenance(&client, rules).await?;
        let cluster = Cluster::new(&world.installation, &world.store).await?;
        let (old, new) = cluster.leave_garbage(&bucket).await?;
        let source = cluster.source;
        let before = all_packs(&bucket)?;

        // By default it is only counted.
        let repository = next_round(&mut world).await?;
        let reported = collection(&repository).context("no collection")?;
        ensure!(reported.outcome == "Reported", "{reported:?}");
        ensure!(reported.deleted_bytes == 0 && reported.snapshots_forgotten == 0);
        let storage = status(&repository).storage.context("no storage")?;
        let kept = i64::try_from(CONTENT_BYTES)? / 2;
        ensure!(
            storage.bytes > 2 * kept && storage.garbage_bytes > kept,
            "{storage:?}"
        );
        ensure!(
            storage.plain_bytes.is_some_and(|plain| plain > 2 * kept),
            "{storage:?}"
        );
        ensure!(
            storage.garbage_packs > 0 && storage.objects > storage.packs,
            "{storage:?}"
        );
        ensure!(
            status(&repository).keeper.is_none(),
            "one that counts keeps nothing"
        );
        ensure!(all_packs(&bucket)? == before, "counting deleted packs");

        // Told to, the keeper deletes what the forgotten point alone needed.
        set_maintenance(&client, json!({"collect": "Enabled"})).await?;
        let repository = next_round(&mut world).await?;
        let collected = collection(&repository).context("no collection")?;
        ensure!(collected.outcome == "Collected", "{collected:?}");
        ensure!(collected.deleted_bytes > kept && collected.snapshots_forgotten == 1);
        ensure!(status(&repository).keeper.as_deref() == Some("cared-for"));
        let storage = status(&repository).storage.context("no storage")?;
        ensure!(
            storage.garbage_bytes == 0 && storage.bytes > kept,
            "{storage:?}"
        );
        let left = packs(&bucket, &old)?;
        ensure!(left.is_empty(), "garbage is left: {left:?}");
        open(&world.store, &new).await?;
        let check = status(&repository).last_check.context("no check")?;
        ensure!(check.outcome == "CheckPassed" && check.level == CheckLevel::Share);
        ensure!(told(&repository, ConditionType::Healthy).0 == "True");
        ensure!(tells(&world.installation, "repository_healthy", "1").await?);

        // A bit of what the newest point needs is flipped. One of two rounds finds it.
        let data = packs(&bucket, &new)?;
        let pack = data
            .iter()
            .find(|path| path.to_string_lossy().ends_with(".data"));
        let pack = pack.context("no pack of data")?;
        let mut bytes = fs::read(pack)?;
        bytes[100] ^= 1;
        fs::write(pack, bytes)?;
        let key = pack.strip_prefix(&bucket)?.to_str().context("no key")?;
        let mut repository = next_round(&mut world).await?;
        if told(&repository, ConditionType::Healthy).0 != "False" {
            repository = next_round(&mut world).await?;
        }
        let (is, reason, message) = told(&repository, ConditionType::Healthy);
        ensure!(
            (is.as_str(), reason.as_str()) == ("False", "CheckFailed"),
            "{message}"
        );
        for word in [key, "lifebuoy repo repair", "1 recovery points"] {
            ensure!(message.contains(word), "{word} is not in: {message}");
        }
        ensure!(tells(&world.installation, "repository_healthy", "0").await?);
        ensure!(
            told(&repository, ConditionType::Ready).0 == "True",
            "backups go on"
        );

        // The next round reads the other share, which is sound.
        let found = status(&repository)
            .last_check
            .and_then(|check| check.reading);
        let repository = next_round(&mut world).await?;
        let check = status(&repository).last_check.context("no check")?;
        ensure!(
            check.reading != found,
            "the same share was read again: {check:?}"
        );
        ensure!(
            told(&repository, ConditionType::Healthy).0 == "False",
            "{check:?}"
        );
        ensure!(check.problem_count == 1 && check.problems[0].subject == key);

        // A repair says what that costs, and sets the pack aside.
        let args = ["repo", "repair", "--level", "all", "-o", "json"];
        let said = lifebuoy_ending(&world.installation.cluster, &world.store, &args, 3).await?;
        let repaired: Value = serde_json::from_str(&said)?;
        ensure!(repaired["packsSetAside"] == 1, "{repaired}");
        ensure!(
            repaired["left"]["affected"][0]["snapshot"] == *new,
            "{repaired}"
        );
        let item = repaired["left"]["affected"][0]["items"][0].as_str();
        ensure!(
            item.is_some_and(|item| item.contains("configmaps")),
            "{repaired}"
        );
        let repository = next_round(&mut world).await?;
        ensure!(told(&repository, ConditionType::Healthy).0 == "False");

        // What is still in the cluster, the next backup stores again.
        let cluster = Cluster {
            installation: &world.installation,
            store: &world.store,
            source,
        };
        let healing = cluster.save().await?;
        let repository = next_round(&mut world).await?;
        let (is, reason, message) = told(&repository, ConditionType::Healthy);
        ensure!(
            (is.as_str(), reason.as_str()) == ("True", "CheckPassed"),
            "{message}"
        );
        ensure!(tells(&world.installation, "repository_healthy", "1").await?);
        open(&world.store, &healing).await?;
        let args = ["repo", "check", "--level", "all"];
        lifebuoy(&world.installation.cluster, &world.store, &args).await?;
        Ok(())
    });
}

#[test]
fn of_two_clusters_the_keeper_deletes_and_the_other_takes_over_when_it_dies() {
    scenario(async {
        let mut world = World::start("keeper-a").await?;
        let bucket = world.s3.bucket_directory().join("keeper-a");
        let rules = json!({"collect": "Enabled", "interval": "1m", "grace": "1h",
            "keepAtLeast": 1, "deleteAtMostPercent": 100, "repackBelowPercent": 0,
            "check": {"readAllInDays": 0}});
        let a = world.client();
        set_maintenance(&a, rules.clone()).await?;
        let cluster = Cluster::new(&world.installation, &world.store).await?;
        let (garbage_of_a, _) = cluster.leave_garbage(&bucket).await?;
        until_repository(&a, ROUND, |it| {
            status(it).keeper.as_deref() == Some("keeper-a")
                && collection(it).is_some_and(|last| last.snapshots_forgotten == 1)
        })
        .await?;
        let left = packs(&bucket, &garbage_of_a)?;
        ensure!(left.is_empty(), "garbage is left: {left:?}");

        // One that only counts leaves that to the keeper.
        let other = Installation::start(InstallationOptions::named("keeper-b")).await?;
        let b = other.client();
        world.store.declare(&b, OPERATOR_NAMESPACE, "main").await?;
        repository_ready(&b, OPERATOR_NAMESPACE, "main", SOON).await?;
        let rests = |it: &Repository| told(it, ConditionType::Maintained).1 == "NotKeeper";
        let repository = until_repository(&b, SOON, rests).await?;
        ensure!(status(&repository).keeper.as_deref() == Some("keeper-a"));
        ensure!(
            status(&repository).storage.is_none(),
            "it has counted for itself"
        );
        ensure!(told(&repository, ConditionType::Healthy).1 == "NotKeeper");

        // One that may delete as well does not while there is a keeper, not even
        // its own garbage.
        set_maintenance(&b, rules).await?;
        let rounds = |it: &Repository| collection(it).map(|last| last.time);
        let seen = rounds(&until_repository(&a, SOON, |_| true).await?);
        let cluster = Cluster::new(&other, &world.store).await?;
        let (garbage_of_b, _) = cluster.leave_garbage(&bucket).await?;
        let forgotten =
            |it: &Repository| collection(it).is_some_and(|last| last.snapshots_forgotten == 1);
        until_repository(&a, ROUND, |it| rounds(it) != seen && forgotten(it)).await?;
        let left = packs(&bucket, &garbage_of_b)?;
        ensure!(left.is_empty(), "garbage is left: {left:?}");
        let repository = until_repository(&b, ROUND, rests).await?;
        ensure!(collection(&repository).is_none(), "two have collected");

        world.installation.kill();
        let (garbage, kept) = cluster.leave_garbage(&bucket).await?;
        let repository = until_repository(&b, TAKEOVER, forgotten).await?;
        ensure!(status(&repository).keeper.as_deref() == Some("keeper-b"));
        ensure!(told(&repository, ConditionType::Maintained).1 == "Collected");
        let left = packs(&bucket, &garbage)?;
        ensure!(left.is_empty(), "garbage is left: {left:?}");
        open(&world.store, &kept).await?;
        Ok(())
    });
}
