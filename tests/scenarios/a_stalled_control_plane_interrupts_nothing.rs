//! A control plane stalls for half a minute, as a busy one does, while a Backup runs.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;
use lifebuoy_scenarios::{
    Ended, OPERATOR_NAMESPACE, SOON, World, backup, create, namespace, run, scenario, until,
};

const STALL: Duration = Duration::from_secs(30);
/// Enough for a Backup to run when the stall begins.
const OBJECTS: usize = 400;

#[test]
fn a_backup_goes_on_when_the_control_plane_does() {
    scenario(async {
        let mut world = World::start("stalled").await?;
        let client = world.client();
        let maps: Api<ConfigMap> =
            Api::namespaced(client.clone(), &namespace(&client, "stalled").await?);
        for number in 0..OBJECTS {
            let mut map = ConfigMap::default();
            map.metadata.name = Some(format!("map-{number}"));
            maps.create(&PostParams::default(), &map).await?;
        }

        create(&client, OPERATOR_NAMESPACE, backup("during", "main")).await?;
        let stalled = Stalled::begin(world.installation.cluster.process_ids())?;
        tokio::time::sleep(STALL).await;
        drop(stalled);

        let done = until(
            &client,
            OPERATOR_NAMESPACE,
            "during",
            SOON,
            lifebuoy_api::Backup::ended,
        )
        .await?;
        ensure!(done.complete(), "{}", done.verdict());
        let attempts = done.status.context("ended, and how?")?.attempts;
        ensure!(attempts == 1, "it took {attempts} attempts");
        ensure!(!world.installation.any_ended()?, "the operator has ended");
        let after = run(&client, OPERATOR_NAMESPACE, backup("after", "main"), SOON).await?;
        ensure!(after.complete(), "{}", after.verdict());
        Ok(())
    });
}

/// Processes that stand still until this is dropped.
struct Stalled(Vec<u32>);

impl Stalled {
    fn begin(processes: Vec<u32>) -> Result<Self> {
        signal("-STOP", &processes)?;
        Ok(Self(processes))
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        // Without it nothing of the cluster answers: whatever follows fails, and says so.
        let _ = signal("-CONT", &self.0);
    }
}

fn signal(which: &str, processes: &[u32]) -> Result<()> {
    let processes = processes.iter().map(ToString::to_string);
    let sent = Command::new("kill").arg(which).args(processes).status()?;
    ensure!(sent.success(), "kill {which}: {sent}");
    Ok(())
}
