//! The capture account can read what it saves, and cannot use it to get further.
//! A request in a tenant's namespace is refused before anything is read.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use lifebuoy_api::{Backup, ConditionType, find};
use lifebuoy_scenarios::{
    Installation, InstallationOptions, OPERATOR_NAMESPACE, SOON, World, backup, create, namespace,
    scenario, until,
};

use crate::support::capture_account;

#[test]
fn the_capture_account_cannot_reach_nodes_pods_or_single_objects() {
    scenario(async {
        let world = World::shared().await?;
        let account = capture_account(&world.client()).await?;
        let kubeconfig = world
            .installation
            .cluster
            .kubeconfig_for_service_account(OPERATOR_NAMESPACE, &account)
            .await?;
        let home = world.installation.cluster.directory().join("capture-home");
        let kubectl = lifebuoy_testkit::kubectl::CommandLine::kubectl(kubeconfig, home).await?;
        for refused in [
            "get nodes/proxy",
            "get pods/exec",
            "create pods/exec",
            "create pods",
            "get secrets",
            "delete pods",
            "update secrets",
            "patch deployments.apps",
            "create serviceaccounts/token",
            "impersonate users",
            "escalate clusterroles",
            "bind clusterroles",
        ] {
            let args = ["auth", "can-i", "--namespace=default"];
            let finished = kubectl
                .output(args.into_iter().chain(refused.split(' ')), "")
                .await?;
            ensure!(
                finished.stdout.trim() == "no",
                "{refused}: {}",
                finished.stdout
            );
        }
        for allowed in [
            "list secrets",
            "watch pods",
            "list customresourcedefinitions",
        ] {
            let args = ["auth", "can-i", "--all-namespaces"];
            let finished = kubectl
                .output(args.into_iter().chain(allowed.split(' ')), "")
                .await?;
            ensure!(
                finished.stdout.trim() == "yes",
                "{allowed}: {}",
                finished.stdout
            );
        }
        Ok(())
    });
}

#[test]
fn a_backup_in_a_tenants_namespace_reads_nothing() {
    scenario(async {
        // A cluster of its own: the audit log must hold this Backup's requests only.
        let mut options = InstallationOptions::named("tenant");
        options.cluster.audit = true;
        let installation = Installation::start(options).await?;
        let client = installation.client();
        let tenant = namespace(&client, "tenant").await?;
        let account = capture_account(&client).await?;
        let user = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{account}");
        let lists = || -> Result<u64> {
            let counts = installation.cluster.request_counts()?;
            Ok(counts.of(&user).get("list").copied().unwrap_or_default())
        };
        // Its watches begin with lists of their own.
        let mut before = lists()?;
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let now = lists()?;
            if now == before {
                break;
            }
            before = now;
        }
        create(&client, &tenant, backup("mine", "main")).await?;
        let refused = until(&client, &tenant, "mine", SOON, |backup: &Backup| {
            backup.status.as_ref().is_some_and(|status| {
                find(&status.conditions, ConditionType::Stalled).is_some_and(|c| c.status == "True")
            })
        })
        .await?;
        let status = refused.status.context("no status")?;
        let stalled = find(&status.conditions, ConditionType::Stalled).context("not stalled")?;
        ensure!(stalled.reason == "NamespaceNotPermitted", "{stalled:?}");
        ensure!(
            status.session.is_none() && status.progress.types == 0,
            "{status:?}"
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
        ensure!(
            lists()? == before,
            "the operator has listed something for a tenant"
        );
        Ok(())
    });
}

#[test]
fn ordinary_users_have_no_rights_on_our_kinds() {
    scenario(async {
        let client = World::shared().await?.client();
        for verb in ["create", "get", "list", "delete"] {
            for resource in [
                "backups",
                "restores",
                "recoverypoints",
                "repositories",
                "schedules",
            ] {
                ensure!(
                    !allowed(&client, "somebody", verb, resource).await?,
                    "an ordinary user may {verb} {resource}"
                );
            }
        }
        Ok(())
    });
}

async fn allowed(client: &Client, user: &str, verb: &str, resource: &str) -> Result<bool> {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.to_owned()),
            groups: Some(vec!["system:authenticated".to_owned()]),
            resource_attributes: Some(ResourceAttributes {
                group: Some(lifebuoy_api::GROUP.to_owned()),
                resource: Some(resource.to_owned()),
                verb: Some(verb.to_owned()),
                namespace: Some(OPERATOR_NAMESPACE.to_owned()),
                ..ResourceAttributes::default()
            }),
            non_resource_attributes: None::<NonResourceAttributes>,
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let review = reviews.create(&PostParams::default(), &review).await?;
    Ok(review.status.is_some_and(|status| status.allowed))
}
