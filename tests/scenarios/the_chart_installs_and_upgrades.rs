//! The chart installs, upgrades from its first version, and keeps the kinds
//! and their objects when it is uninstalled.

use anyhow::{Context, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::ListParams;
use lifebuoy_api::{Backup, Repository};
use lifebuoy_scenarios::{
    Ended, Installation, InstallationOptions, OPERATOR_NAMESPACE, SOON, Store, World, backup,
    chart, helm, run, scenario,
};
use lifebuoy_testkit::tools::workspace_root;
use lifebuoy_testkit::{ControlPlane, ControlPlaneOptions};

#[test]
fn lint_finds_nothing_and_every_mode_renders() {
    scenario(async {
        let world = World::shared().await?;
        let helm = helm(&world.installation.cluster).await?;
        let chart = chart();
        let chart = chart.to_str().context("the checkout's path is not UTF-8")?;
        let lint = helm
            .run(["lint", "--strict", chart, "--set", "clusterName=a"])
            .await?;
        ensure!(lint.contains("0 chart(s) failed"), "{lint}");
        for mode in ["Backup", "Restore", "Both"] {
            let mode = format!("mode={mode}");
            let args = [
                "template",
                "x",
                chart,
                "--set",
                "clusterName=a",
                "--set",
                &mode,
            ];
            let rendered = helm.run(args).await?;
            for demanded in [
                "runAsNonRoot: true",
                "readOnlyRootFilesystem: true",
                "allowPrivilegeEscalation: false",
                "kind: PodDisruptionBudget",
                "priorityClassName:",
            ] {
                ensure!(rendered.contains(demanded), "{mode} lacks {demanded}");
            }
        }
        for (bad, said) in [
            ("mode=Sideways", "mode"),
            ("clusterName=UPPER", "clusterName"),
            ("movers.hostPaths[0]=srv", "hostPaths"),
            ("movers.hostPaths[0]=/srv/../etc", "hostPaths"),
            ("movers.hostPaths[0]=/", "hostPaths"),
        ] {
            let args = [
                "template",
                "x",
                chart,
                "--set",
                "clusterName=a",
                "--set",
                bad,
            ];
            let refused = helm.output(args, "").await?;
            ensure!(
                refused.code != 0 && refused.stderr.contains(said),
                "{bad} is accepted"
            );
        }
        Ok(())
    });
}

#[test]
fn an_upgrade_from_the_first_version_keeps_what_is_there() {
    scenario(async {
        let cluster = ControlPlane::start(ControlPlaneOptions::named("upgraded")).await?;
        let client = cluster.admin();
        let first = workspace_root().join("tests/fixtures/chart-0.1.0");
        let first = first
            .to_str()
            .context("the checkout's path is not UTF-8")?
            .to_owned();
        let args = [
            "install",
            "lifebuoy",
            &first,
            "--create-namespace",
            "--namespace",
        ];
        let args = args
            .into_iter()
            .chain([OPERATOR_NAMESPACE, "--set", "clusterName=upgraded"]);
        helm(&cluster).await?.run(args).await?;

        let s3 = lifebuoy_scenarios::store("upgraded").await?;
        let store = Store::at(&s3, "upgraded");
        store.declare(&client, OPERATOR_NAMESPACE, "main").await?;
        let installation =
            Installation::install(cluster, InstallationOptions::named("upgraded")).await?;
        let done = run(
            &client,
            OPERATOR_NAMESPACE,
            backup("upgraded", "main"),
            SOON,
        )
        .await?;
        ensure!(done.complete(), "{}", done.verdict());

        let helm = helm(&installation.cluster).await?;
        helm.run(["uninstall", "lifebuoy", "--namespace", OPERATOR_NAMESPACE])
            .await?;
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        let ours = crds.list(&ListParams::default()).await?.into_iter();
        let ours = ours
            .filter(|crd| crd.spec.group == lifebuoy_api::GROUP)
            .count();
        ensure!(ours == 6, "{ours} kinds are left after the uninstallation");
        Api::<Backup>::namespaced(client.clone(), OPERATOR_NAMESPACE)
            .get("upgraded")
            .await?;
        Api::<Repository>::namespaced(client, OPERATOR_NAMESPACE)
            .get("main")
            .await?;
        Ok(())
    });
}
