//! An application moves to another cluster with other names for namespaces,
//! storage classes, registries and hosts, and nothing of it is lost.

use anyhow::{Context, ensure};
use lifebuoy_api::Restore;
use lifebuoy_scenarios::{
    Ended, Installation, InstallationOptions, OPERATOR_NAMESPACE, SOON, World, backup, mapping,
    newest_of, remapping, repository_ready, restore, run, scenario,
};
use lifebuoy_testkit::sample;

use crate::support::same;

#[test]
fn with_every_mapping_at_once() {
    scenario(async {
        let world = World::start("cloud-a").await?;
        sample::deploy(&world.client()).await?;
        let mut request = backup("everything", "main");
        request.spec.selection.namespaces = sample::NAMESPACES.map(str::to_owned).to_vec();
        let done = run(&world.client(), OPERATOR_NAMESPACE, request, SOON).await?;
        ensure!(
            done.complete(),
            "{}: {:?}",
            done.verdict(),
            done.status.map(|s| s.problems)
        );

        let target = Installation::start(InstallationOptions::named("cloud-b")).await?;
        lifebuoy_scenarios::prepare_target(&target.client()).await?;
        let client = target.client();
        world
            .store
            .declare(&client, OPERATOR_NAMESPACE, "main")
            .await?;
        repository_ready(&client, OPERATOR_NAMESPACE, "main", SOON).await?;
        let done = run(&client, OPERATOR_NAMESPACE, remapped(), SOON).await?;
        ensure!(
            done.complete(),
            "{}: {:?}",
            done.verdict(),
            done.status.map(|s| s.problems)
        );

        same(&world.client(), &client, &remapping()).await?;
        let status = done.status.context("no status")?;
        ensure!(
            status.counts.failed == 0 && status.counts.withheld == 0,
            "{:?}",
            status.counts
        );
        Ok(())
    });
}

fn remapped() -> Restore {
    let mut request = restore("move", newest_of("main", "cloud-a"));
    request.spec.volumes = lifebuoy_api::RestoreVolumePolicy::Empty;
    request.spec.mapping = mapping();
    request
}
