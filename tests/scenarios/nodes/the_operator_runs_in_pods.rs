//! The image of the Containerfile, installed by the chart, saves in one cluster
//! what it restores in another.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use lifebuoy_scenarios::{
    Ended, NodeWorld, NodeWorlds, OPERATOR_NAMESPACE, PODS_LIMIT, backup, newest_of, node_scenario,
    restore, run,
};
use lifebuoy_testkit::sample::apply_yaml;

const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: small}
---
apiVersion: v1
kind: ConfigMap
metadata: {namespace: small, name: settings}
data: {colour: blue}
";

#[test]
fn what_one_installation_saves_another_restores() {
    node_scenario(&NodeWorld::needs(&[]), async {
        let NodeWorlds { a, b, s3: _s3 } = NodeWorlds::start(&[]).await?;
        apply_yaml(&a.client(), OBJECTS).await?;
        let mut request = backup("small", "main");
        request.spec.selection.namespaces = vec!["small".to_owned()];
        let saved = run(&a.client(), OPERATOR_NAMESPACE, request, PODS_LIMIT).await;
        let saved = a.recorded(saved).await?;
        ensure!(saved.complete(), "{}", saved.verdict());

        let request = restore("small", newest_of("main", "a"));
        let restored = run(&b.client(), OPERATOR_NAMESPACE, request, PODS_LIMIT).await;
        let restored = b.recorded(restored).await?;
        ensure!(restored.complete(), "{}", restored.verdict());
        let settings: Api<ConfigMap> = Api::namespaced(b.client(), "small");
        let data = settings.get("settings").await?.data.context("no data")?;
        ensure!(data["colour"] == "blue", "{data:?}");
        Ok(())
    });
}
