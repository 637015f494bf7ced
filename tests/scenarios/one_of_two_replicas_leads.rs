//! Two replicas run; one works, and the other takes over when it dies.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::ListParams;
use lifebuoy_scenarios::{
    Ended, Installation, OPERATOR_NAMESPACE, SOON, World, backup, create, get, run, scenario, until,
};

#[test]
fn when_the_leader_is_killed_the_other_replica_finishes_its_work() {
    scenario(async {
        let mut world = World::start("leaders").await?;
        let client = world.client();
        world.installation.start_replicas().await?;
        let holders = holders(&world.installation).await?;
        ensure!(
            holders
                .iter()
                .all(|holder| holder.ends_with("-0") || holder.ends_with("-1")),
            "{holders:?}"
        );
        for replica in world.installation.replicas() {
            let (status, _) = get(&replica.listen, "/healthz").await?;
            ensure!(status == 200, "{} is not healthy", replica.deployment);
        }
        let done = run(&client, OPERATOR_NAMESPACE, backup("before", "main"), SOON).await?;
        ensure!(done.complete(), "{}", done.verdict());

        // A Backup is under way when its leader dies.
        create(&client, OPERATOR_NAMESPACE, backup("during", "main")).await?;
        tokio::time::sleep(Duration::from_millis(150)).await;
        let first = world.installation.replicas().len() / 2;
        world.installation.kill_first(first);
        let limit = SOON + Duration::from_secs(60);
        let done = until(
            &client,
            OPERATOR_NAMESPACE,
            "during",
            limit,
            lifebuoy_api::Backup::ended,
        )
        .await?;
        ensure!(done.complete(), "{}", done.verdict());
        let done = run(&client, OPERATOR_NAMESPACE, backup("after", "main"), SOON).await?;
        ensure!(done.complete(), "{}", done.verdict());
        Ok(())
    });
}

async fn holders(installation: &Installation) -> Result<Vec<String>> {
    let leases: Api<Lease> = Api::namespaced(installation.client(), OPERATOR_NAMESPACE);
    let leases = leases.list(&ListParams::default()).await?;
    ensure!(!leases.items.is_empty(), "nobody leads");
    leases
        .into_iter()
        .map(|lease| {
            lease
                .spec
                .and_then(|spec| spec.holder_identity)
                .context("a Lease of nobody")
        })
        .collect()
}
