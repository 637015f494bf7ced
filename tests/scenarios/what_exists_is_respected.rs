//! Objects that exist in the target are skipped, merged, replaced, or stop the
//! restore, as the request says; a reviewed plan is the plan that runs.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use lifebuoy_api::{
    ExistingOverride, ExistingPolicy, NameMapping, ObjectMatch, Restore, RestoreMode,
};
use lifebuoy_scenarios::{
    Ended, OPERATOR_NAMESPACE, SOON, World, backup, from_snapshot, namespace, restore, run,
    scenario, unique,
};

/// A snapshot of a namespace with the ConfigMaps `a` and `b`, and a target
/// namespace that has another `a`.
struct Stage {
    snapshot: String,
    source: String,
    target: String,
    existing: Api<ConfigMap>,
}

fn configmap(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(
            data.iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        ),
        ..ConfigMap::default()
    }
}

async fn stage(client: &Client) -> Result<Stage> {
    let source = namespace(client, "was").await?;
    let target = namespace(client, "is").await?;
    let captured: Api<ConfigMap> = Api::namespaced(client.clone(), &source);
    let existing: Api<ConfigMap> = Api::namespaced(client.clone(), &target);
    let create = PostParams::default();
    captured
        .create(
            &create,
            &configmap("a", &[("both", "captured"), ("theirs", "1")]),
        )
        .await?;
    captured
        .create(&create, &configmap("b", &[("new", "1")]))
        .await?;
    existing
        .create(&create, &configmap("a", &[("both", "live"), ("ours", "1")]))
        .await?;
    let mut request = backup(&unique("stage"), "main");
    request.spec.selection.namespaces = vec![source.clone()];
    let done = run(client, OPERATOR_NAMESPACE, request, SOON).await?;
    let snapshot = done
        .status
        .and_then(|status| status.snapshot)
        .context("no snapshot")?;
    Ok(Stage {
        snapshot,
        source,
        target,
        existing,
    })
}

impl Stage {
    fn request(&self, policy: ExistingPolicy) -> Restore {
        let mut request = restore(&unique("exists"), from_snapshot("main", &self.snapshot));
        request.spec.mapping.namespaces = vec![NameMapping {
            from: self.source.clone(),
            to: self.target.clone(),
        }];
        request.spec.existing.overrides = vec![ExistingOverride {
            matches: ObjectMatch {
                kinds: vec!["ConfigMap".to_owned()],
                ..ObjectMatch::default()
            },
            policy,
        }];
        request
    }

    async fn data(&self, name: &str) -> Result<BTreeMap<String, String>> {
        Ok(self.existing.get(name).await?.data.unwrap_or_default())
    }
}

fn is(data: &BTreeMap<String, String>, expected: &[(&str, &str)]) -> bool {
    data.iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .eq(expected.iter().copied())
}

#[test]
fn each_policy_does_what_it_says_to_what_exists() {
    scenario(async {
        let client = World::shared().await?.client();
        for (policy, expected) in [
            (ExistingPolicy::Skip, &[("both", "live"), ("ours", "1")][..]),
            (
                ExistingPolicy::Merge,
                &[("both", "captured"), ("ours", "1"), ("theirs", "1")],
            ),
            (
                ExistingPolicy::Replace,
                &[("both", "captured"), ("theirs", "1")],
            ),
        ] {
            let stage = stage(&client).await?;
            let done = run(&client, OPERATOR_NAMESPACE, stage.request(policy), SOON).await?;
            ensure!(done.complete(), "{policy:?}: {}", done.verdict());
            let data = stage.data("a").await?;
            ensure!(is(&data, expected), "{policy:?} left {data:?}");
            ensure!(
                is(&stage.data("b").await?, &[("new", "1")]),
                "b is created in any case"
            );
        }
        Ok(())
    });
}

#[test]
fn fail_refuses_before_anything_is_changed() {
    scenario(async {
        let client = World::shared().await?.client();
        let stage = stage(&client).await?;
        let request = stage.request(ExistingPolicy::Fail);
        let done = run(&client, OPERATOR_NAMESPACE, request, SOON).await?;
        ensure!(!done.complete(), "{}", done.verdict());
        ensure!(done.verdict().contains("PlanRefused"), "{}", done.verdict());
        let said = serde_json::to_string(&done.status)?;
        ensure!(
            said.contains("ExistingObject") && said.contains("/a"),
            "{said}"
        );
        ensure!(
            stage.existing.get_opt("b").await?.is_none(),
            "something was changed"
        );
        Ok(())
    });
}

#[test]
fn a_plan_that_was_reviewed_runs_only_while_it_is_still_the_plan() {
    scenario(async {
        let client = World::shared().await?.client();
        let stage = stage(&client).await?;
        let mut request = stage.request(ExistingPolicy::Skip);
        request.spec.mode = RestoreMode::Plan;
        let planned = run(&client, OPERATOR_NAMESPACE, request, SOON).await?;
        ensure!(planned.complete(), "{}", planned.verdict());
        ensure!(
            stage.existing.get_opt("b").await?.is_none(),
            "a plan changes nothing"
        );
        let status = planned.status.context("no status")?;
        let digest = status.plan_digest.context("no digest")?;
        ensure!(!status.plan_secrets.is_empty());

        // Someone creates `b` meanwhile: what was reviewed is no longer true.
        stage
            .existing
            .create(&PostParams::default(), &configmap("b", &[("other", "1")]))
            .await?;
        let mut request = stage.request(ExistingPolicy::Skip);
        request.spec.plan_digest = Some(digest.clone());
        let refused = run(&client, OPERATOR_NAMESPACE, request, SOON).await?;
        ensure!(
            refused.verdict().contains("PlanChanged"),
            "{}",
            refused.verdict()
        );

        stage
            .existing
            .delete("b", &kube::api::DeleteParams::default())
            .await?;
        let mut request = stage.request(ExistingPolicy::Skip);
        request.spec.plan_digest = Some(digest);
        let done = run(&client, OPERATOR_NAMESPACE, request, SOON).await?;
        ensure!(done.complete(), "{}", done.verdict());
        ensure!(is(&stage.data("b").await?, &[("new", "1")]));
        Ok(())
    });
}

#[test]
fn an_equal_restore_does_not_run_twice_unless_it_is_told_to() {
    scenario(async {
        let client = World::shared().await?.client();
        let stage = stage(&client).await?;
        let first = run(
            &client,
            OPERATOR_NAMESPACE,
            stage.request(ExistingPolicy::Skip),
            SOON,
        )
        .await?;
        ensure!(first.complete(), "{}", first.verdict());
        stage
            .existing
            .delete("b", &kube::api::DeleteParams::default())
            .await?;

        let again = run(
            &client,
            OPERATOR_NAMESPACE,
            stage.request(ExistingPolicy::Skip),
            SOON,
        )
        .await?;
        ensure!(
            again.verdict().contains("AlreadyRestored"),
            "{}",
            again.verdict()
        );
        ensure!(stage.existing.get_opt("b").await?.is_none(), "it ran again");

        let mut rerun = stage.request(ExistingPolicy::Skip);
        rerun.spec.rerun = Some("because b was deleted".to_owned());
        let done = run(&client, OPERATOR_NAMESPACE, rerun, SOON).await?;
        ensure!(done.complete(), "{}", done.verdict());
        ensure!(is(&stage.data("b").await?, &[("new", "1")]));
        Ok(())
    });
}
