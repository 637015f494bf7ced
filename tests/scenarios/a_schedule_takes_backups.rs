//! A Schedule takes backups at set times, forgets what is not kept, and its
//! points can be restored from every cluster that shares the repository.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use lifebuoy_api::{
    Backup, BackupTemplate, ConcurrencyPolicy, ConditionType, Retention, Schedule, ScheduleSpec,
    TemplateMetadata, find, is_true,
};
use lifebuoy_engine::point;
use lifebuoy_scenarios::{
    Ended, Installation, InstallationOptions, OPERATOR_NAMESPACE, SOON, World, backup,
    from_snapshot, namespace, repository_ready, restore, run, scenario, unique, until,
};

use crate::support::{lifebuoy, repository};

/// A Schedule that ticks every minute.
pub(crate) fn every_minute(name: &str, namespaces: &[&str], keep_last: Option<i64>) -> Schedule {
    let mut spec = backup("unused", "main").spec;
    spec.selection.namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
    Schedule::new(
        name,
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
            retention: Retention {
                keep_last,
                ..Retention::default()
            },
            successful_backups_history_limit: 1,
            failed_backups_history_limit: 1,
        },
    )
}

async fn backups_of(client: &Client, schedule: &str) -> Result<Vec<Backup>> {
    let backups: Api<Backup> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let label = format!("{}={schedule}", lifebuoy_api::SCHEDULE_LABEL);
    Ok(backups
        .list(&ListParams::default().labels(&label))
        .await?
        .items)
}

#[test]
fn a_tick_makes_a_backup_and_suspending_stops_them() {
    scenario(async {
        let world = World::shared().await?;
        let client = world.client();
        let source = namespace(&client, "ticking").await?;
        let name = unique("minutely");
        lifebuoy_scenarios::create(
            &client,
            OPERATOR_NAMESPACE,
            every_minute(&name, &[&source], None),
        )
        .await?;
        // At most a minute until the tick.
        let limit = SOON + Duration::from_secs(60);
        let schedule = until(
            &client,
            OPERATOR_NAMESPACE,
            &name,
            limit,
            |schedule: &Schedule| {
                schedule
                    .status
                    .as_ref()
                    .is_some_and(|status| status.last_successful_time.is_some())
            },
        )
        .await?;
        ensure!(
            schedule
                .status
                .is_some_and(|status| status.next_schedule_time.is_some())
        );

        lifebuoy(
            &world.installation.cluster,
            &world.store,
            &["schedule", "suspend", &name],
        )
        .await?;
        until(
            &client,
            OPERATOR_NAMESPACE,
            &name,
            SOON,
            |schedule: &Schedule| {
                find(schedule.conditions(), ConditionType::Ready)
                    .is_some_and(|ready| ready.reason == "Suspended")
            },
        )
        .await?;
        // A Backup by hand belongs to the Schedule's lineage, suspended or not.
        let by_hand = unique("by-hand");
        let args = [
            "backup",
            "create",
            &by_hand,
            "--from-schedule",
            &name,
            "--wait",
        ];
        lifebuoy(&world.installation.cluster, &world.store, &args).await?;
        let made = backups_of(&client, &name).await?;
        ensure!(
            made.iter()
                .any(|backup| backup.metadata.name.as_deref() == Some(&by_hand))
        );
        Ok(())
    });
}

#[test]
fn downtime_over_many_ticks_gives_one_backup() {
    scenario(async {
        let mut world = World::start("downtime").await?;
        let client = world.client();
        world.installation.kill();
        lifebuoy_scenarios::create(
            &client,
            OPERATOR_NAMESPACE,
            every_minute("missed", &["default"], None),
        )
        .await?;
        // The last tick that the Schedule knows of is hours ago.
        let past = chrono::Utc::now() - chrono::Duration::hours(5);
        let status = serde_json::json!({"status": {
            "lastScheduleTime": past.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        }});
        let schedules: Api<Schedule> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
        schedules
            .patch_status("missed", &PatchParams::default(), &Patch::Merge(&status))
            .await?;
        world.installation.restart().await?;
        let schedule = until(
            &client,
            OPERATOR_NAMESPACE,
            "missed",
            SOON,
            |schedule: &Schedule| {
                schedule
                    .status
                    .as_ref()
                    .is_some_and(|status| status.last_successful_time.is_some())
            },
        )
        .await?;
        let made = backups_of(&client, "missed").await?.len();
        ensure!(
            (1..=2).contains(&made),
            "{made} Backups for five hours of downtime"
        );
        let missed = schedule.status.context("no status")?.missed_ticks;
        ensure!(missed >= 298, "{missed} ticks missed");
        Ok(())
    });
}

#[test]
fn what_is_not_kept_is_forgotten_and_nothing_is_deleted() {
    scenario(async {
        let world = World::shared().await?;
        let client = world.client();
        let source = namespace(&client, "kept").await?;
        let name = unique("keeper");
        let mut schedule = every_minute(&name, &[&source], Some(2));
        schedule.spec.cron = "0 0 1 1 *".to_owned();
        lifebuoy_scenarios::create(&client, OPERATOR_NAMESPACE, schedule).await?;
        let mut snapshots = Vec::new();
        for _ in 0..4 {
            let backup = unique("kept-backup");
            let args = [
                "backup",
                "create",
                &backup,
                "--from-schedule",
                &name,
                "--wait",
            ];
            lifebuoy(&world.installation.cluster, &world.store, &args).await?;
            let backups: Api<Backup> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
            // History limits may have removed the object of an older one already.
            let status = backups.get(&backup).await?.status.context("no status")?;
            snapshots.push(status.snapshot.context("no snapshot")?);
        }
        let repository = repository(&world.store).await?;
        let start = std::time::Instant::now();
        loop {
            let all = point::points(&repository).await?.points;
            let forgotten: Vec<bool> = snapshots
                .iter()
                .map(|id| {
                    all.iter()
                        .find(|point| point.snapshot.session.to_string() == *id)
                        .is_none_or(|point| point.snapshot.forgotten)
                })
                .collect();
            if forgotten == [true, true, false, false] {
                break;
            }
            ensure!(start.elapsed() < SOON, "forgotten: {forgotten:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let done = run(
            &client,
            OPERATOR_NAMESPACE,
            restore(&unique("old"), from_snapshot("main", &snapshots[0])),
            SOON,
        )
        .await?;
        ensure!(
            done.verdict().contains("RecoveryPointForgotten"),
            "{}",
            done.verdict()
        );
        Ok(())
    });
}

#[test]
fn a_point_of_one_cluster_is_restored_in_another() {
    scenario(async {
        let world = World::shared().await?;
        let source_client = world.client();
        let source = namespace(&source_client, "travels").await?;
        let mut request = backup(&unique("travelling"), "main");
        request.spec.selection.namespaces = vec![source.clone()];
        let done = run(&source_client, OPERATOR_NAMESPACE, request, SOON).await?;
        ensure!(done.complete(), "{}", done.verdict());

        let other = Installation::start(InstallationOptions::named("elsewhere")).await?;
        let client = other.client();
        world
            .store
            .declare(&client, OPERATOR_NAMESPACE, "shared")
            .await?;
        repository_ready(&client, OPERATOR_NAMESPACE, "shared", SOON).await?;
        let snapshot = done
            .status
            .and_then(|status| status.snapshot)
            .context("no snapshot")?;
        let request = restore("arrive", from_snapshot("shared", &snapshot));
        let done = run(&client, OPERATOR_NAMESPACE, request, SOON).await?;
        ensure!(
            is_true(done.conditions(), ConditionType::Complete),
            "{}",
            done.verdict()
        );
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client);
        namespaces.get(&source).await?;
        Ok(())
    });
}
