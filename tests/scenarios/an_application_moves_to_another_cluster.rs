//! An application moves to another cluster with other names for namespaces,
//! storage classes, registries and hosts, and nothing of it is lost.

use anyhow::{Context, ensure};
use lifebuoy_api::{NameMapping, PrefixMapping, Restore};
use lifebuoy_scenarios::{
    Ended, Installation, InstallationOptions, OPERATOR_NAMESPACE, SOON, World, backup, newest_of,
    repository_ready, restore, run, scenario,
};
use lifebuoy_testkit::compare::Remapping;
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

        same(&world.client(), &client, &expected()).await?;
        let status = done.status.context("no status")?;
        ensure!(
            status.counts.failed == 0 && status.counts.withheld == 0,
            "{:?}",
            status.counts
        );
        Ok(())
    });
}

fn names(pairs: &[(&str, &str)]) -> Vec<NameMapping> {
    pairs
        .iter()
        .map(|(from, to)| NameMapping {
            from: (*from).to_owned(),
            to: (*to).to_owned(),
        })
        .collect()
}

fn remapped() -> Restore {
    let mut request = restore("move", newest_of("main", "cloud-a"));
    request.spec.volumes = lifebuoy_api::RestoreVolumePolicy::Empty;
    request.spec.mapping.namespaces = names(&[("shop*", "store*")]);
    request.spec.mapping.storage_classes = names(&[("fast-a", "fast-b")]);
    request.spec.mapping.ingress_classes = names(&[("edge-a", "edge-b")]);
    request.spec.mapping.hosts = names(&[("*.a.example", "*.b.example")]);
    request.spec.mapping.images = vec![PrefixMapping {
        from: "registry.a.example/".to_owned(),
        to: "registry.b.example/".to_owned(),
    }];
    request
}

/// What the mapping means, said independently of how it is done.
fn expected() -> Remapping {
    let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    Remapping {
        namespaces: sample::NAMESPACES
            .map(|name| (name.to_owned(), name.replacen("shop", "store", 1)))
            .into_iter()
            .collect(),
        storage_classes: [pair("fast-a", "fast-b")].into(),
        ingress_classes: [pair("edge-a", "edge-b")].into(),
        image_prefixes: vec![pair("registry.a.example/", "registry.b.example/")],
        hosts: [pair("*.a.example", "*.b.example")].into(),
    }
}
