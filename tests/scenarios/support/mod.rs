//! What several stories need and no user does.

pub(crate) mod aggregated;
pub(crate) mod format_reader;
pub(crate) mod profiles;
pub(crate) mod thief;

use std::sync::Arc;

use anyhow::Result;
use lifebuoy_engine::archive::Archive;
use lifebuoy_repo::{Credentials, Location, LocationOptions, Passphrase, Repository};
use lifebuoy_scenarios::Store;
use object_store::ObjectStore;

/// Opens a repository straight, as a tool would that has no operator.
pub(crate) async fn repository(store: &Store) -> Result<Repository> {
    let passphrase = Passphrase::try_from(store.passphrase.clone())?;
    Ok(Repository::open(bucket(store)?, &passphrase).await?)
}

/// The place itself, whatever is there.
pub(crate) fn bucket(store: &Store) -> Result<Arc<dyn ObjectStore>> {
    let options = LocationOptions {
        endpoint: Some(store.endpoint.clone()),
        region: Some(lifebuoy_testkit::s3::REGION.to_owned()),
        allow_http: true,
        ..LocationOptions::default()
    };
    let location = Location::parse(&store.url, options)?;
    Ok(location.open(&Credentials::new(store.credentials.clone()))?)
}

/// Opens one snapshot straight.
pub(crate) async fn open(store: &Store, snapshot: &str) -> Result<Archive> {
    Ok(Archive::open(&repository(store).await?, snapshot.parse()?).await?)
}

/// The ServiceAccount under which the chart's installation captures.
pub(crate) async fn capture_account(client: &kube::Client) -> Result<String> {
    use anyhow::Context;
    use k8s_openapi::api::apps::v1::Deployment;
    let deployments: kube::Api<Deployment> =
        kube::Api::namespaced(client.clone(), lifebuoy_scenarios::OPERATOR_NAMESPACE);
    deployments
        .list(&kube::api::ListParams::default())
        .await?
        .into_iter()
        .filter_map(|deployment| deployment.spec?.template.spec)
        .find(|pod| {
            let args = pod
                .containers
                .iter()
                .flat_map(|container| container.args.iter().flatten());
            args.into_iter().any(|arg| arg == "--mode=Backup")
        })
        .and_then(|pod| pod.service_account_name)
        .context("the chart has no Deployment that captures")
}

/// Runs the `lifebuoy` command against a cluster and gives what it prints.
pub(crate) async fn lifebuoy(
    cluster: &lifebuoy_testkit::ControlPlane,
    store: &Store,
    args: &[&str],
) -> Result<String> {
    lifebuoy_ending(cluster, store, args, 0).await
}

/// The same, for a command that ends with this exit code.
pub(crate) async fn lifebuoy_ending(
    cluster: &lifebuoy_testkit::ControlPlane,
    store: &Store,
    args: &[&str],
    code: i32,
) -> Result<String> {
    let output = tokio::process::Command::new(lifebuoy_scenarios::operator_binary()?)
        .args(args)
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("LIFEBUOY_ALLOW_HTTP", "true")
        .envs(store.environment())
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(
        output.status.code() == Some(code),
        "lifebuoy {args:?} ended with {}: {text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

/// Fails unless the target holds the sample application as the source has it,
/// remapped; the message lists every difference.
pub(crate) async fn same(
    source: &kube::Client,
    target: &kube::Client,
    remapping: &lifebuoy_testkit::compare::Remapping,
) -> Result<()> {
    let (compared, different) = lifebuoy_scenarios::compare(source, target, remapping).await?;
    anyhow::ensure!(compared > 40, "only {compared} objects to compare");
    anyhow::ensure!(
        different.is_empty(),
        "{} differences: {different:#?}",
        different.len()
    );
    Ok(())
}
