//! `kill -9` of the operator, at each step of a backup and a restore and at
//! random moments: after a restart every request ends truthfully, and nothing
//! is lost or doubled.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::DeleteParams;
use kube::{Api, Client};
use lifebuoy_api::{Backup, NameMapping, Restore};
use lifebuoy_engine::steps::Step;
use lifebuoy_scenarios::{
    Ended, OPERATOR_NAMESPACE, SOON, World, backup, create, from_snapshot, restore, run, scenario,
    unique, until,
};
use lifebuoy_testkit::compare::{Picture, Remapping, Scope, differences};
use lifebuoy_testkit::sample;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::support::repository;

/// How long a process may take to reach the step at which it aborts.
const ABORT_LIMIT: Duration = Duration::from_secs(60);

/// How many random moments are tried.
const RANDOM_KILLS: u32 = 20;

#[test]
fn at_each_step_of_a_backup_and_of_a_restore() {
    scenario(async {
        let mut world = prepared("steps").await?;
        println!(
            "steps: {:?}",
            Step::ALL
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        );
        for step in Step::ALL.iter().filter(|step| step.is_backup()) {
            let name = unique("killed-backup");
            abort_at(&mut world, &step.to_string(), save(&name)).await?;
            verify_backup(&world, &name)
                .await
                .with_context(|| format!("killed at {step}"))?;
        }
        let snapshot = saved(&world).await?;
        for step in Step::ALL.iter().filter(|step| !step.is_backup()) {
            let name = unique("killed-restore");
            abort_at(&mut world, &step.to_string(), replay(&name, &snapshot)).await?;
            verify_restore(&world, &name)
                .await
                .with_context(|| format!("killed at {step}"))?;
        }
        Ok(())
    });
}

#[test]
fn at_twenty_random_moments() {
    scenario(async {
        let mut world = prepared("moments").await?;
        let seed = std::env::var("LIFEBUOY_SEED")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or_else(rand::random);
        println!("seed: {seed} (set LIFEBUOY_SEED to replay)");
        let mut random = StdRng::seed_from_u64(seed);
        let snapshot = saved(&world).await?;
        for round in 0..RANDOM_KILLS {
            let client = world.client();
            let name = unique("moment");
            let after = Duration::from_millis(random.random_range(0..1200));
            let is_backup = round % 2 == 0;
            if is_backup {
                create(&client, OPERATOR_NAMESPACE, save(&name)).await?;
            } else {
                create(&client, OPERATOR_NAMESPACE, replay(&name, &snapshot)).await?;
            }
            tokio::time::sleep(after).await;
            world.installation.kill();
            world.installation.restart().await?;
            let verified = match is_backup {
                true => verify_backup(&world, &name).await,
                false => verify_restore(&world, &name).await,
            };
            verified
                .with_context(|| format!("seed {seed}, round {round}, killed after {after:?}"))?;
        }
        Ok(())
    });
}

/// An installation with the sample application in it.
async fn prepared(name: &str) -> Result<World> {
    let world = World::start(name).await?;
    sample::deploy(&world.client()).await?;
    // Its copies in the same cluster could not have its node port.
    let services: Api<Service> = Api::namespaced(world.client(), "shop");
    services
        .delete("web-external", &DeleteParams::default())
        .await?;
    Ok(world)
}

fn save(name: &str) -> Backup {
    let mut request = backup(name, "main");
    request.spec.selection.namespaces = sample::NAMESPACES.map(str::to_owned).to_vec();
    request
}

/// A Restore of the sample into namespaces named after the request.
fn replay(name: &str, snapshot: &str) -> Restore {
    let mut request = restore(name, from_snapshot("main", snapshot));
    request.spec.volumes = lifebuoy_api::RestoreVolumePolicy::Empty;
    request.spec.mapping.namespaces = sample::NAMESPACES
        .map(|from| NameMapping {
            from: from.to_owned(),
            to: format!("{name}-{from}"),
        })
        .to_vec();
    request
}

async fn saved(world: &World) -> Result<String> {
    let done = run(
        &world.client(),
        OPERATOR_NAMESPACE,
        save(&unique("saved")),
        SOON,
    )
    .await?;
    ensure!(done.complete(), "{}", done.verdict());
    done.status
        .and_then(|status| status.snapshot)
        .context("no snapshot")
}

/// Lets the operator abort itself at `step` while it works on `request`, and
/// starts it again.
async fn abort_at<K: lifebuoy_scenarios::Kind>(
    world: &mut World,
    step: &str,
    request: K,
) -> Result<()> {
    world.installation.kill();
    world.installation.restart_to_abort_at(step)?;
    create(&world.client(), OPERATOR_NAMESPACE, request).await?;
    let start = Instant::now();
    while !world.installation.any_ended()? {
        ensure!(
            start.elapsed() < ABORT_LIMIT,
            "the operator never came to the step {step}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.installation.kill();
    world.installation.restart().await
}

/// The Backup completed, once, and its snapshot holds what is in the cluster.
async fn verify_backup(world: &World, name: &str) -> Result<()> {
    let client = world.client();
    let done = until(&client, OPERATOR_NAMESPACE, name, SOON, Backup::ended).await?;
    ensure!(done.complete(), "{}", done.verdict());
    let snapshot = done
        .status
        .and_then(|status| status.snapshot)
        .context("no snapshot")?;
    let points = lifebuoy_engine::point::points(&repository(&world.store).await?)
        .await?
        .points;
    let of_this: Vec<_> = points
        .iter()
        .filter(|point| point.summary.backup == name)
        .collect();
    ensure!(
        of_this.len() == 1,
        "{} snapshots for one Backup",
        of_this.len()
    );
    ensure!(
        of_this[0].snapshot.session.to_string() == snapshot,
        "the status names another one"
    );

    let restored = unique("check");
    let request = replay(&restored, &snapshot);
    run(&client, OPERATOR_NAMESPACE, request, SOON).await?;
    verify_restore(world, &restored).await
}

/// The Restore completed, and its namespaces equal those of the sample.
async fn verify_restore(world: &World, name: &str) -> Result<()> {
    let client = world.client();
    let done = until(&client, OPERATOR_NAMESPACE, name, SOON, Restore::ended).await?;
    ensure!(
        done.complete(),
        "{}: {:?}",
        done.verdict(),
        done.status.map(|s| s.problems)
    );
    let namespaces = sample::NAMESPACES.map(|from| (from.to_owned(), format!("{name}-{from}")));
    let remapping = Remapping {
        namespaces: namespaces.into(),
        ..Remapping::identity()
    };
    // What is cluster-scoped is there already, and is left alone.
    let source = Scope::namespaces(sample::NAMESPACES);
    let expected = Picture::read(&client, &source).await?.expected(&remapping);
    let found = Picture::read(&client, &source.remapped(&remapping)).await?;
    let different = differences(&expected, &found);
    ensure!(
        different.is_empty(),
        "{} differences: {different:#?}",
        different.len()
    );
    remove(&client, name).await
}

/// Removes what a restore made, so that the next one meets an empty target.
async fn remove(client: &Client, name: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for from in sample::NAMESPACES {
        namespaces
            .delete(&format!("{name}-{from}"), &DeleteParams::background())
            .await?;
    }
    Ok(())
}
