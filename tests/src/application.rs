//! The sample application as a thing to save, move and compare.

use anyhow::Result;
use kube::Client;
use lifebuoy_api::{Mapping, NameMapping, PrefixMapping};
use lifebuoy_testkit::compare::{Difference, Picture, Remapping, Scope, differences};
use lifebuoy_testkit::sample::{self, CLUSTER_SCOPED, NAMESPACES};

/// The classes of the cluster that the application moves to.
const TARGET_CLASSES: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: fast-b}
provisioner: csi.b.example
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: edge-b}
spec: {controller: b.example/ingress}
";

/// All that belongs to the application.
#[must_use]
pub fn application() -> Scope {
    Scope::namespaces(NAMESPACES).with_cluster_scoped(CLUSTER_SCOPED)
}

/// Gives a cluster the classes that the application is mapped to there.
///
/// # Errors
/// When the API server refuses them.
pub async fn prepare_target(client: &Client) -> Result<()> {
    sample::apply_yaml(client, TARGET_CLASSES).await?;
    Ok(())
}

/// The mapping with which the application moves: every kind of it at once.
#[must_use]
pub fn mapping() -> Mapping {
    let names = |from: &str, to: &str| {
        vec![NameMapping {
            from: from.to_owned(),
            to: to.to_owned(),
        }]
    };
    Mapping {
        namespaces: names("shop*", "store*"),
        storage_classes: names("fast-a", "fast-b"),
        ingress_classes: names("edge-a", "edge-b"),
        images: vec![PrefixMapping {
            from: "registry.a.example/".to_owned(),
            to: "registry.b.example/".to_owned(),
        }],
        hosts: names("*.a.example", "*.b.example"),
    }
}

/// What [`mapping`] means, said independently of how it is done.
#[must_use]
pub fn remapping() -> Remapping {
    let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    Remapping {
        namespaces: NAMESPACES
            .map(|name| (name.to_owned(), name.replacen("shop", "store", 1)))
            .into_iter()
            .collect(),
        storage_classes: [pair("fast-a", "fast-b")].into(),
        ingress_classes: [pair("edge-a", "edge-b")].into(),
        image_prefixes: vec![pair("registry.a.example/", "registry.b.example/")],
        hosts: [pair("*.a.example", "*.b.example")].into(),
    }
}

/// What is different in the target from the application as it is in the
/// source, remapped; and how many objects were compared.
///
/// # Errors
/// When one of the clusters cannot be read.
pub async fn compare(
    source: &Client,
    target: &Client,
    remapping: &Remapping,
) -> Result<(usize, Vec<Difference>)> {
    let expected = Picture::read(source, &application())
        .await?
        .expected(remapping);
    let found = Picture::read(target, &application().remapped(remapping)).await?;
    Ok((expected.len(), differences(&expected, &found)))
}
