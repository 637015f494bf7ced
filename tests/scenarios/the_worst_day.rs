//! `docs/worst-day.md` as it stands: a new cluster, the bucket, the passphrase,
//! and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use kube::Api;
use kube::api::ListParams;
use lifebuoy_api::{
    BackupTemplate, ConcurrencyPolicy, Retention, Schedule, ScheduleSpec, TemplateMetadata,
};
use lifebuoy_scenarios::{
    Ended, OPERATOR_NAMESPACE, SOON, Store, World, backup, create, operator_binary, run, scenario,
};
use lifebuoy_testkit::compare::Remapping;
use lifebuoy_testkit::s3::Rights;
use lifebuoy_testkit::tools::workspace_root;
use lifebuoy_testkit::{ControlPlane, ControlPlaneOptions, Tool, sample, tools};

use crate::support::same;

#[test]
fn the_document_leads_from_a_bare_cluster_to_an_equal_one() {
    scenario(async {
        let world = saved("worst").await?;
        follow(&world, &world.store, "worst-new").await?;
        // Again, with a credential that can only read.
        let reader = world.store.as_user(world.s3.user(Rights::ReadOnly));
        follow(&world, &reader, "worst-again").await
    });
}

/// A cluster with the sample application and a Schedule, saved once.
async fn saved(name: &str) -> Result<World> {
    let world = World::start(name).await?;
    let client = world.client();
    sample::deploy(&world.client()).await?;
    let template = BackupTemplate {
        metadata: TemplateMetadata::default(),
        spec: backup("unused", "main").spec,
    };
    let schedule = Schedule::new(
        "nightly",
        ScheduleSpec {
            cron: "0 2 * * *".to_owned(),
            time_zone: "Europe/Berlin".to_owned(),
            suspend: false,
            starting_deadline_seconds: None,
            concurrency_policy: ConcurrencyPolicy::Forbid,
            template,
            retention: Retention::default(),
            successful_backups_history_limit: 3,
            failed_backups_history_limit: 3,
        },
    );
    create(&client, OPERATOR_NAMESPACE, schedule).await?;
    let done = run(&client, OPERATOR_NAMESPACE, backup("last", "main"), SOON).await?;
    ensure!(done.complete(), "{}", done.verdict());
    Ok(world)
}

/// Executes the document against a new cluster, and compares.
async fn follow(world: &World, store: &Store, name: &str) -> Result<()> {
    let new = ControlPlane::start(ControlPlaneOptions::named(name)).await?;
    let document = fs::read_to_string(workspace_root().join("docs/worst-day.md"))?;
    let script = commands(&document);
    ensure!(
        script.lines().count() >= 5,
        "the document has hardly a command:\n{script}"
    );
    execute(&new, world, store, &script).await?;

    same(&world.client(), &new.admin(), &Remapping::identity()).await?;

    let schedules: Api<Schedule> = Api::namespaced(new.admin(), OPERATOR_NAMESPACE);
    let schedules = schedules.list(&ListParams::default()).await?.items;
    let nightly = schedules
        .iter()
        .find(|schedule| schedule.metadata.name.as_deref() == Some("nightly"))
        .context("the Schedule is not back")?;
    ensure!(
        nightly.spec.suspend,
        "the Schedule is back, but not suspended"
    );
    Ok(())
}

/// The lines of all `sh` blocks, in order.
fn commands(document: &str) -> String {
    let mut script = String::new();
    let mut inside = false;
    for line in document.lines() {
        match (inside, line.trim_end()) {
            (false, "```sh") => inside = true,
            (true, "```") => inside = false,
            (true, command) => {
                script.push_str(command);
                script.push('\n');
            }
            (false, _) => {}
        }
    }
    script
}

/// Runs the script as a person would paste it, with the tools on the PATH.
async fn execute(new: &ControlPlane, world: &World, store: &Store, script: &str) -> Result<()> {
    let found = tools::ensure_async(&[Tool::Kubectl, Tool::Helm]).await?;
    let mut path = vec![operator_binary()?];
    path.extend([
        found.get(Tool::Kubectl)?.to_owned(),
        found.get(Tool::Helm)?.to_owned(),
    ]);
    let folders = path.iter().filter_map(|program| program.parent());
    let old = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(
        folders
            .map(Path::to_owned)
            .chain(std::env::split_paths(&old)),
    )?;
    let home = new.directory().join("home");
    fs::create_dir_all(&home)?;

    let mut environment: BTreeMap<String, String> = store.environment();
    environment.insert("LIFEBUOY_ALLOW_HTTP".into(), "true".into());
    environment.insert(
        "LIFEBUOY_CLUSTER".into(),
        world.installation.cluster_name().to_owned(),
    );
    let output = tokio::process::Command::new("bash")
        .args(["-euxo", "pipefail", "-c", script])
        .current_dir(workspace_root())
        .env("PATH", path)
        .env("HOME", home)
        .env("KUBECONFIG", new.kubeconfig())
        .envs(environment)
        .stdin(Stdio::null())
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "the document's commands ended with {}:\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    Ok(())
}
