//! A pod has many volumes. They are saved and brought back two at a time on its node, as the
//! chart says; from a repository with a limit of its own, one at a time.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use lifebuoy_api::{NameMapping, Repository, VolumeWay};
use lifebuoy_scenarios::{
    Ended, Kind, MOVERS_NAMESPACE, NodeWorld, OPERATOR_NAMESPACE, OneNodeWorld, backup_of_volumes,
    newest_of, node_scenario, restore, run, same_files, start_holder_of,
};
use lifebuoy_testkit::oddities::noise;
use serde_json::json;

const NAMESPACE: &str = "many";
const BACK: &str = "back";
const VOLUMES: usize = 4;
const BYTES: usize = 4 << 20;
/// `movers.maxPerNode` of the chart.
const PER_NODE: usize = 2;
/// How long saving or restoring may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(200);

#[test]
fn many_volumes_are_moved_a_few_at_a_time() {
    node_scenario(&NodeWorld::needs(&[]), async {
        let world = OneNodeWorld::start().await?;
        let told = tell(&world.a).await;
        world.a.recorded(told).await
    });
}

async fn tell(a: &NodeWorld) -> Result<()> {
    let volumes = start_holder_of(a, NAMESPACE, VOLUMES, false, 1 << 30).await?;
    for (seed, volume) in (0..).zip(&volumes) {
        fs::write(volume.join("noise"), noise(seed, BYTES))?;
    }
    let save = |name: &str| backup_of_volumes(name, "main", NAMESPACE, VolumeWay::Move);
    let (most, saved) = most_at_a_time(a, save("two")).await?;
    let progress = saved.status.unwrap_or_default().progress;
    ensure!(
        progress.volume_bytes == (VOLUMES * BYTES) as i64,
        "what was read is not all that there is: {progress:?}"
    );
    ensure!(most == PER_NODE, "{most} movers ran at a time on the node");

    let mut request = restore("back", newest_of("main", "a"));
    request.spec.mapping.namespaces = vec![NameMapping {
        from: NAMESPACE.to_owned(),
        to: BACK.to_owned(),
    }];
    let (most, _) = most_at_a_time(a, request).await?;
    ensure!(most == PER_NODE, "{most} movers ran at a time on the node");
    a.rolled_out(BACK, "deployment/holder").await?;
    for (number, volume) in volumes.iter().enumerate() {
        same_files(volume, &a.content(BACK, &format!("data-{number}")).await?)?;
    }

    let repositories: Api<Repository> = Api::namespaced(a.client(), OPERATOR_NAMESPACE);
    let one = Patch::Merge(json!({"spec": {"maxConcurrentMovers": 1}}));
    repositories
        .patch("main", &PatchParams::default(), &one)
        .await?;
    let (most, _) = most_at_a_time(a, save("one")).await?;
    ensure!(most == 1, "{most} movers ran at a time for the repository");
    a.nothing_is_left().await
}

/// Carries out a request; gives how many movers were on the node at a time, at most.
async fn most_at_a_time<K: Kind + Ended>(a: &NodeWorld, request: K) -> Result<(usize, K)> {
    let pods: Api<Pod> = Api::namespaced(a.client(), MOVERS_NAMESPACE);
    let most = AtomicUsize::new(0);
    let count = async {
        loop {
            let listed = pods.list(&ListParams::default()).await?;
            let now = listed.items.iter().filter(|pod| runs_on_node(pod)).count();
            most.fetch_max(now, Ordering::Relaxed);
            tokio::time::sleep(POLL).await;
        }
    };
    let client = a.client();
    let ended = tokio::select! {
        ended = run(&client, OPERATOR_NAMESPACE, request, LIMIT) => ended?,
        failed = count => return failed,
    };
    ensure!(ended.complete(), "{}", ended.verdict());
    Ok((most.into_inner(), ended))
}

fn runs_on_node(pod: &Pod) -> bool {
    let has_node = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.node_name.is_some());
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    has_node && !matches!(phase, Some("Succeeded" | "Failed"))
}
